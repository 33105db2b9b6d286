/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Submitting and cancelling ops: the arguments go into the op, the op into the books and to the implementation.
 */
#include "io/loop_internal.h"

#include "base/error.h"

#define COUNT_MAX 0x7ffff000u /* what the kernel moves at most in one call */

void io_submit(struct loop *loop, struct io_op *op, enum io_kind kind, int fd, void (*done)(struct io_op *, int))
{
    assert_on_loop(loop);
    assert(!io_op_busy(op));
    op->done = done;
    op->loop = loop;
    op->fd = fd;
    op->kind = (uint8_t)kind;
    op->flags = 0;
    op->cancelled = false;
    list_push_back(&loop->all, &op->all);
    LOOP_COUNT(loop, inflight, 1);
    if (loop->stopping)
        io_ready(loop, op, -CV_STOPPING);
    else if (kind == IO_WORK)
        io_to_thread(loop, op);
    else if (kind == IO_NOTHING)
        io_ready(loop, op, 0);
    else
        loop->vtable->submit(loop, op);
}

void io_cancel(struct io_op *op)
{
    if (!io_op_busy(op))
        return;
    struct loop *loop = op->loop;
    assert_on_loop(loop);
    if (op->state == IO_STATE_READY || op->cancelled)
        return;
    op->cancelled = true;
    if (op->state != IO_STATE_THREAD)
        loop->vtable->cancel(loop, op);
    else if (loop_threads_cancel(loop, op))
        io_ready(loop, op, -ECANCELED);
}

void io_accept(struct loop *loop, struct io_op *op, int fd, void (*done)(struct io_op *, int))
{
    io_submit(loop, op, IO_ACCEPT, fd, done);
}

void io_connect(struct loop *loop, struct io_op *op, int fd, const struct sockaddr *address, socklen_t n,
                void (*done)(struct io_op *, int))
{
    op->p = (void *)address;
    op->n = n;
    io_submit(loop, op, IO_CONNECT, fd, done);
}

void io_recv(struct loop *loop, struct io_op *op, int fd, void *p, size_t n, void (*done)(struct io_op *, int))
{
    op->p = p;
    op->n = min(n, (size_t)COUNT_MAX);
    io_submit(loop, op, IO_RECV, fd, done);
}

void io_send(struct loop *loop, struct io_op *op, int fd, const void *p, size_t n, void (*done)(struct io_op *, int))
{
    op->p = (void *)p;
    op->n = min(n, (size_t)COUNT_MAX);
    io_submit(loop, op, IO_SEND, fd, done);
}

void io_sendv(struct loop *loop, struct io_op *op, int fd, const struct iovec *v, unsigned count,
              void (*done)(struct io_op *, int))
{
    op->message = (struct msghdr){.msg_iov = (struct iovec *)v, .msg_iovlen = count};
    op->arg = MSG_NOSIGNAL;
    io_submit(loop, op, IO_SENDMSG, fd, done);
}

void io_recvmsg(struct loop *loop, struct io_op *op, int fd, struct msghdr *message, int flags,
                void (*done)(struct io_op *, int))
{
    op->p = message;
    op->arg = (uint32_t)flags | MSG_CMSG_CLOEXEC;
    io_submit(loop, op, IO_RECVMSG, fd, done);
}

void io_sendmsg(struct loop *loop, struct io_op *op, int fd, const struct msghdr *message, int flags,
                void (*done)(struct io_op *, int))
{
    op->message = *message;
    op->arg = (uint32_t)flags | MSG_NOSIGNAL;
    io_submit(loop, op, IO_SENDMSG, fd, done);
}

void io_sendfile(struct loop *loop, struct io_op *op, int socket_fd, int file_fd, uint64_t offset, uint64_t n,
                 void (*done)(struct io_op *, int))
{
    op->file_fd = file_fd;
    op->file_offset = offset;
    op->file_n = n;
    io_submit(loop, op, IO_SENDFILE, socket_fd, done);
}

void io_poll(struct loop *loop, struct io_op *op, int fd, uint32_t events, void (*done)(struct io_op *, int))
{
    op->arg = events;
    io_submit(loop, op, IO_POLL, fd, done);
}

static void submit_file(struct loop *loop, struct io_op *op, enum io_kind kind, int fd, const void *p, uint64_t n,
                        uint64_t offset, void (*done)(struct io_op *, int))
{
    op->p = (void *)p;
    op->n = n;
    op->offset = offset;
    io_submit(loop, op, kind, fd, done);
}

void io_read(struct loop *loop, struct io_op *op, int fd, void *p, size_t n, uint64_t offset,
             void (*done)(struct io_op *, int))
{
    submit_file(loop, op, IO_READ, fd, p, min(n, (size_t)COUNT_MAX), offset, done);
}

void io_write(struct loop *loop, struct io_op *op, int fd, const void *p, size_t n, uint64_t offset,
              void (*done)(struct io_op *, int))
{
    submit_file(loop, op, IO_WRITE, fd, p, min(n, (size_t)COUNT_MAX), offset, done);
}

void io_readv(struct loop *loop, struct io_op *op, int fd, const struct iovec *v, unsigned count, uint64_t offset,
              void (*done)(struct io_op *, int))
{
    submit_file(loop, op, IO_READV, fd, v, count, offset, done);
}

void io_writev(struct loop *loop, struct io_op *op, int fd, const struct iovec *v, unsigned count, uint64_t offset,
               void (*done)(struct io_op *, int))
{
    submit_file(loop, op, IO_WRITEV, fd, v, count, offset, done);
}

void io_fsync(struct loop *loop, struct io_op *op, int fd, bool data_only, void (*done)(struct io_op *, int))
{
    op->arg = data_only;
    io_submit(loop, op, IO_FSYNC, fd, done);
}

void io_fallocate(struct loop *loop, struct io_op *op, int fd, int mode, uint64_t offset, uint64_t n,
                  void (*done)(struct io_op *, int))
{
    op->arg = (uint32_t)mode;
    submit_file(loop, op, IO_FALLOCATE, fd, NULL, n, offset, done);
}

void io_work(struct loop *loop, struct io_op *op, int (*work)(void *arg), void *arg, void (*done)(struct io_op *, int))
{
    op->work = work;
    op->work_arg = arg;
    io_submit(loop, op, IO_WORK, -1, done);
}

int loop_close(struct loop *loop, int fd)
{
    assert_on_loop(loop);
    if (fd < 0)
        return -1;
    loop->vtable->forget(loop, fd);
    return close_fd(fd);
}
