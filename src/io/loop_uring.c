/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop on io_uring. Ops become SQEs as they are submitted; one io_uring_enter a turn submits them, sleeps and
 * brings completions; they are drained in batches. The ring is made disabled and enabled by the loop's thread, which
 * is what SINGLE_ISSUER with DEFER_TASKRUN asks for (completions are then worked on only inside our enter, not by
 * interrupting us); older kernels get the flags they know.
 *
 * Sockets are non-blocking for sendfile's sake. The kernel arms a poll for them all the same; should one answer EAGAIN,
 * a poll SQE stands in (IO_STATE_AWAIT) and the op is tried again.
 */
#include "io/loop_internal.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define BATCH       64
#define CANCEL_MARK 0 /* user data of what nobody waits for */

struct loop_uring {
    struct loop loop;
    struct io_uring ring;
    bool enabled, wake_armed, skip_success;
    struct list backlog; /* ops that found the submission queue full, in order, by link */
    struct list cancels; /* ops in the kernel whose cancellation found it full, by link */
};

static struct loop_uring *uring_of(struct loop *loop)
{
    return container_of(loop, struct loop_uring, loop);
}

/* A free SQE, after a submission in the middle of the turn if need be. NULL: the kernel takes no more now. */
static struct io_uring_sqe *get_sqe(struct loop_uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (!sqe && u->enabled) {
        LOOP_COUNT(&u->loop, enters, 1);
        if (io_uring_submit(&u->ring) >= 0)
            sqe = io_uring_get_sqe(&u->ring);
    }
    return sqe;
}

static void prepare(struct io_uring_sqe *sqe, struct io_op *op)
{
    switch (op->kind) {
    case IO_ACCEPT: io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); break;
    case IO_CONNECT: io_uring_prep_connect(sqe, op->fd, op->p, (socklen_t)op->n); break;
    case IO_RECV: io_uring_prep_recv(sqe, op->fd, op->p, op->n, 0); break;
    case IO_SEND: io_uring_prep_send(sqe, op->fd, op->p, op->n, MSG_NOSIGNAL); break;
    case IO_RECVMSG: io_uring_prep_recvmsg(sqe, op->fd, op->p, op->arg); break;
    case IO_SENDMSG: io_uring_prep_sendmsg(sqe, op->fd, &op->message, op->arg); break;
    case IO_POLL: io_uring_prep_poll_add(sqe, op->fd, op->arg); break;
    case IO_READ: io_uring_prep_read(sqe, op->fd, op->p, (unsigned)op->n, op->offset); break;
    case IO_WRITE: io_uring_prep_write(sqe, op->fd, op->p, (unsigned)op->n, op->offset); break;
    case IO_READV: io_uring_prep_readv(sqe, op->fd, op->p, (unsigned)op->n, op->offset); break;
    case IO_WRITEV: io_uring_prep_writev(sqe, op->fd, op->p, (unsigned)op->n, op->offset); break;
    case IO_FSYNC: io_uring_prep_fsync(sqe, op->fd, op->arg ? IORING_FSYNC_DATASYNC : 0); break;
    case IO_FALLOCATE: io_uring_prep_fallocate(sqe, op->fd, (int)op->arg, (off_t)op->offset, (off_t)op->n); break;
    default: assert(!"an op with an SQE");
    }
}

/* Give the op to the kernel, or false. */
static bool push(struct loop_uring *u, struct io_op *op)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return false;
    if (op->state == IO_STATE_AWAIT) {
        bool reads = op->kind == IO_ACCEPT || op->kind == IO_RECV || op->kind == IO_RECVMSG;
        io_uring_prep_poll_add(sqe, op->fd, reads ? POLLIN : POLLOUT);
    } else {
        op->state = IO_STATE_KERNEL;
        prepare(sqe, op);
    }
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)op);
    list_init(&op->link);
    return true;
}

static void push_or_queue(struct loop_uring *u, struct io_op *op)
{
    if (list_empty(&u->backlog) && push(u, op))
        return;
    list_push_back(&u->backlog, &op->link);
}

static bool push_cancel(struct loop_uring *u, struct io_op *op)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return false;
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    io_uring_sqe_set_data64(sqe, CANCEL_MARK);
    if (u->skip_success)
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    return true;
}

static void flush_queues(struct loop_uring *u)
{
    while (!list_empty(&u->cancels)) {
        struct io_op *op = list_entry(u->cancels.next, struct io_op, link);
        if (!push_cancel(u, op))
            return;
        list_remove(&op->link);
    }
    while (!list_empty(&u->backlog)) {
        struct list *e = list_pop_front(&u->backlog);
        if (!push(u, list_entry(e, struct io_op, link))) {
            list_push_front(&u->backlog, e);
            return;
        }
    }
}

/* Multishot, and the eventfd is never read: each write is one completion, no system call of ours. */
static void arm_wake(struct loop_uring *u)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return; /* the turn is short then (see wait) and comes back here */
    io_uring_prep_poll_multishot(sqe, u->loop.wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, LOOP_WAKE_MARK);
    u->wake_armed = true;
}

/* ---- the implementation's table --------------------------------------------------------------------------------- */

static int uring_enter(struct loop *loop)
{
    struct loop_uring *u = uring_of(loop);
    if (!u->enabled) {
        /* io_uring_enable_rings(), which liburing 2.3 declares and does not export */
        int r = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
        if (r < 0)
            return r;
        u->enabled = true;
    }
    io_uring_register_ring_fd(&u->ring); /* saves a descriptor look-up a turn; fine without */
    return 0;
}

static void uring_leave(struct loop *loop)
{
    io_uring_unregister_ring_fd(&uring_of(loop)->ring); /* it belongs to the thread, not to the ring */
}

static void uring_submit(struct loop *loop, struct io_op *op)
{
    if (op->kind == IO_SENDFILE) {
        io_sendfile_try(loop, op);
        return;
    }
    op->state = IO_STATE_BACKLOG;
    push_or_queue(uring_of(loop), op);
}

static void uring_await_writable(struct loop *loop, struct io_op *op)
{
    op->state = IO_STATE_AWAIT;
    push_or_queue(uring_of(loop), op);
}

static void uring_cancel(struct loop *loop, struct io_op *op)
{
    struct loop_uring *u = uring_of(loop);
    if (!list_empty(&op->link)) { /* in the backlog */
        list_remove(&op->link);
        io_ready(loop, op, -ECANCELED);
    } else if (!list_empty(&u->cancels) || !push_cancel(u, op)) {
        list_push_back(&u->cancels, &op->link);
    }
}

static int uring_wait(struct loop *loop, uint64_t timeout_ns)
{
    struct loop_uring *u = uring_of(loop);
    if (!u->wake_armed)
        arm_wake(u);
    flush_queues(u);
    if (!list_empty(&u->backlog) || !list_empty(&u->cancels) || !u->wake_armed)
        timeout_ns = min(timeout_ns, NS_PER_MS);
    int r;
    if (timeout_ns == 0) {
        bool work = io_uring_sq_ready(&u->ring) || (IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_TASKRUN);
        if (!work)
            return 0;
        r = io_uring_submit_and_get_events(&u->ring);
    } else {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec t = {.tv_sec = (long long)(timeout_ns / NS_PER_S),
                                      .tv_nsec = (long long)(timeout_ns % NS_PER_S)};
        r = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, timeout_ns == UINT64_MAX ? NULL : &t, NULL);
    }
    LOOP_COUNT(loop, enters, 1);
    /* EBUSY and EAGAIN: completions must be drained first, or memory is short: the next turn submits again. */
    return r >= 0 || r == -ETIME || r == -EINTR || r == -EBUSY || r == -EAGAIN ? 0 : r;
}

static bool try_again(const struct io_op *op, int result)
{
    return (result == -EAGAIN || result == -EINTR) && !op->cancelled && op->kind != IO_CONNECT;
}

static void complete(struct loop_uring *u, struct io_op *op, int result)
{
    list_remove(&op->link); /* a cancellation that waits has nothing to cancel any more */
    if (op->state == IO_STATE_AWAIT) {
        if (result < 0 || op->cancelled) {
            io_finish(&u->loop, op, result < 0 ? result : -ECANCELED);
        } else if (op->kind == IO_SENDFILE) {
            io_sendfile_try(&u->loop, op);
        } else {
            op->state = IO_STATE_BACKLOG;
            push_or_queue(u, op);
        }
    } else if (!try_again(op, result)) {
        io_finish(&u->loop, op, result);
    } else if (op->kind >= IO_READ) {
        io_to_thread(&u->loop, op);
    } else {
        op->state = IO_STATE_AWAIT;
        push_or_queue(u, op);
    }
}

static void uring_reap(struct loop *loop)
{
    struct loop_uring *u = uring_of(loop);
    unsigned n, total = 0;
    do {
        struct io_uring_cqe *cqes[BATCH];
        struct {
            uint64_t data;
            int result;
            unsigned flags;
        } done[BATCH];
        n = io_uring_peek_batch_cqe(&u->ring, cqes, BATCH);
        for (unsigned i = 0; i < n; i++) {
            done[i].data = cqes[i]->user_data;
            done[i].result = cqes[i]->res;
            done[i].flags = cqes[i]->flags;
        }
        io_uring_cq_advance(&u->ring, n);
        for (unsigned i = 0; i < n; i++) {
            if (done[i].data == LOOP_WAKE_MARK)
                u->wake_armed = done[i].flags & IORING_CQE_F_MORE;
            else if (done[i].data != CANCEL_MARK)
                complete(u, (struct io_op *)(uintptr_t)done[i].data, done[i].result);
        }
        total += n;
    } while (n == BATCH && total < *u->ring.cq.kring_entries);
}

static void uring_forget(struct loop *loop, int fd)
{
}

static void uring_free(struct loop *loop)
{
    struct loop_uring *u = uring_of(loop);
    assert(list_empty(&u->backlog) && list_empty(&u->cancels));
    io_uring_queue_exit(&u->ring);
    close_fd(loop->wake_fd);
    free(u);
}

static const struct loop_vtable uring_vtable = {
    .name = "uring",
    .backend = LOOP_URING,
    .enter = uring_enter,
    .leave = uring_leave,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .wait = uring_wait,
    .reap = uring_reap,
    .await_writable = uring_await_writable,
    .forget = uring_forget,
    .free = uring_free,
};

/* Make the ring with the best flags this kernel knows. */
static int make_ring(struct io_uring *ring, uint32_t entries)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 6.1 */
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* 5.19 */
        0,
    };
    int r = -ENOSYS;
    for (size_t i = 0; i < array_size(flags); i++) {
        struct io_uring_params p = {.flags =
                                        flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
                                    .cq_entries = entries * 4};
        r = io_uring_queue_init_params(entries, ring, &p);
        if (r == -EINVAL)
            continue;
        if (r < 0)
            return r;
        unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG |
                          IORING_FEAT_NATIVE_WORKERS;
        if ((p.features & needed) == needed)
            return 0;
        io_uring_queue_exit(ring);
        return -EOPNOTSUPP;
    }
    return r;
}

int loop_uring_new(uint32_t entries, struct loop **ret)
{
    struct loop_uring *u = aligned_alloc(_Alignof(struct loop_uring), sizeof(*u));
    if (!u)
        return -ENOMEM;
    memset(u, 0, sizeof(*u));
    list_init(&u->backlog);
    list_init(&u->cancels);
    u->loop.vtable = &uring_vtable;
    int r = make_ring(&u->ring, entries);
    if (r < 0)
        goto no_ring;
    u->skip_success = u->ring.features & IORING_FEAT_CQE_SKIP;
    u->loop.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->loop.wake_fd < 0) {
        r = -errno;
        goto no_eventfd;
    }
    *ret = &u->loop;
    return 0;
no_eventfd:
    io_uring_queue_exit(&u->ring);
no_ring:
    free(u);
    return r;
}
