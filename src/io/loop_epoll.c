/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop on epoll, for where io_uring is forbidden. A socket op is tried at once; if the socket is not ready the op
 * parks on the descriptor until epoll says so. A socket is registered once, edge-triggered for both directions, when
 * something first parks on it: after that waiting costs no system call. What is known about readiness saves tries that
 * would only answer EAGAIN: also a receive that brought less than it had room for left nothing behind (with recvmsg that
 * is not so, descriptors cut what it brings). File ops go to the file threads, but for reads the page cache can answer.
 *
 * A descriptor that is only polled (a library's) is registered while the poll waits and not a moment longer, since its
 * owner may close it without telling us. Late events of a descriptor number used again are told by their generation.
 */
#include "io/loop_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define EVENTS_MAX 256
#define CHUNK      64 /* descriptors per allocation of the table, which never moves: lists point into it */

struct fd_state {
    struct list waiting; /* ops parked here, by link */
    uint32_t generation;
    bool known, registered;
    bool foreign;            /* registered for a poll only */
    bool readable, writable; /* false: the last try drained or filled it, wait for an event */
    bool ended;              /* the end of the stream was seen coming: it is behind the data, with no other event */
};

struct loop_epoll {
    struct loop loop;
    int epoll_fd;
    bool no_pwait2; /* kernel before 5.11 */
    struct fd_state **chunks;
    uint32_t chunk_count;
    int event_count;
    struct epoll_event events[EVENTS_MAX];
};

static struct loop_epoll *epoll_of(struct loop *loop)
{
    return container_of(loop, struct loop_epoll, loop);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

/* What we know of fd; NULL: nothing yet. */
static struct fd_state *fd_find(struct loop_epoll *e, int fd)
{
    uint32_t chunk = (uint32_t)fd / CHUNK;
    return fd >= 0 && chunk < e->chunk_count && e->chunks[chunk] ? &e->chunks[chunk][fd % CHUNK] : NULL;
}

static int fd_get(struct loop_epoll *e, int fd, struct fd_state **ret)
{
    if (fd < 0)
        return -EBADF;
    uint32_t chunk = (uint32_t)fd / CHUNK;
    if (chunk >= e->chunk_count) {
        struct fd_state **chunks = realloc(e->chunks, (chunk + 1) * sizeof(*chunks));
        if (!chunks)
            return -ENOMEM;
        memset(chunks + e->chunk_count, 0, (chunk + 1 - e->chunk_count) * sizeof(*chunks));
        e->chunks = chunks;
        e->chunk_count = chunk + 1;
    }
    if (!e->chunks[chunk] && !(e->chunks[chunk] = calloc(CHUNK, sizeof(struct fd_state))))
        return -ENOMEM;
    struct fd_state *f = &e->chunks[chunk][fd % CHUNK];
    if (!f->known) {
        list_init(&f->waiting);
        f->known = f->readable = f->writable = true;
    }
    *ret = f;
    return 0;
}

static int fd_register(struct loop_epoll *e, int fd, struct fd_state *f, bool foreign)
{
    if (f->registered && (!f->foreign || foreign))
        return 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u64 = (uint64_t)f->generation << 32 | (uint32_t)fd};
    LOOP_COUNT(&e->loop, enters, 1);
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
        return -errno;
    f->registered = true;
    f->foreign = foreign;
    return 0;
}

static void fd_unregister(struct loop_epoll *e, int fd, struct fd_state *f)
{
    LOOP_COUNT(&e->loop, enters, 1);
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, NULL); /* EBADF, ENOENT: its owner closed it already */
    f->generation++;
    f->registered = f->foreign = f->ended = false;
    f->readable = f->writable = true;
}

/* A number the kernel just gave out: what we knew of it is about a descriptor closed without loop_close(). */
static void fd_is_new(struct loop_epoll *e, int fd)
{
    struct fd_state *f = fd_find(e, fd);
    if (f && f->registered && list_empty(&f->waiting))
        fd_unregister(e, fd, f);
}

/* ---- ops on sockets --------------------------------------------------------------------------------------------- */

static bool op_reads(const struct io_op *op)
{
    return op->kind == IO_ACCEPT || op->kind == IO_RECV || op->kind == IO_RECVMSG;
}

/* Wait for the descriptor. */
static void park(struct loop_epoll *e, struct io_op *op, struct fd_state *f)
{
    int r = fd_register(e, op->fd, f, op->kind == IO_POLL);
    if (r < 0) {
        io_ready(&e->loop, op, r);
        return;
    }
    op->state = IO_STATE_KERNEL;
    list_push_back(&f->waiting, &op->link);
}

/* The op leaves the descriptor's queue. */
static void unpark(struct loop_epoll *e, struct io_op *op, struct fd_state *f)
{
    list_remove(&op->link);
    if (f->foreign && list_empty(&f->waiting))
        fd_unregister(e, op->fd, f);
}

/* arg says whether it has begun. A unix listener whose queue is full answers EAGAIN at once: that is the result. */
static int try_connect(struct io_op *op)
{
    if (!op->arg) {
        if (connect(op->fd, op->p, (socklen_t)op->n) == 0)
            return 0;
        op->arg = errno == EINPROGRESS;
        return op->arg ? -EAGAIN : -errno;
    }
    int error = 0;
    socklen_t n = sizeof(error);
    if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        return -errno;
    struct sockaddr_storage peer;
    n = sizeof(peer);
    if (error || getpeername(op->fd, (struct sockaddr *)&peer, &n) == 0)
        return -error;
    return errno == ENOTCONN ? -EAGAIN : -errno;
}

static int try_poll(const struct io_op *op)
{
    struct pollfd p = {.fd = op->fd, .events = (short)op->arg};
    int r = poll(&p, 1, 0);
    return r < 0 ? -errno : r == 0 ? -EAGAIN : p.revents & POLLNVAL ? -EBADF : p.revents;
}

/* Make the op's call without blocking. -EAGAIN: not ready. */
static int try_call(struct io_op *op)
{
    ssize_t r = -1;
    switch (op->kind) {
    case IO_ACCEPT: r = accept4(op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); break;
    case IO_CONNECT: return try_connect(op);
    case IO_RECV: r = recv(op->fd, op->p, op->n, MSG_DONTWAIT); break;
    case IO_SEND: r = send(op->fd, op->p, op->n, MSG_DONTWAIT | MSG_NOSIGNAL); break;
    case IO_RECVMSG: r = recvmsg(op->fd, op->p, (int)op->arg | MSG_DONTWAIT); break;
    case IO_SENDMSG: r = sendmsg(op->fd, &op->message, (int)op->arg | MSG_DONTWAIT); break;
    case IO_POLL: return try_poll(op);
    default: assert(!"an op on a socket");
    }
    return r < 0 ? -errno : (int)r;
}

static void try_op(struct loop_epoll *e, struct io_op *op, struct fd_state *f)
{
    bool *ready = op_reads(op) ? &f->readable : &f->writable;
    if (op->kind != IO_POLL && !*ready) {
        park(e, op, f);
        return;
    }
    if (op->kind == IO_SENDFILE) {
        io_sendfile_try(&e->loop, op);
        return;
    }
    LOOP_COUNT(&e->loop, enters, 1);
    int r = try_call(op);
    if (r == -EINTR)
        r = -EAGAIN;
    bool again = r == -EAGAIN && !(op->kind == IO_CONNECT && !op->arg);
    if (op->kind == IO_ACCEPT && r >= 0)
        fd_is_new(e, r);
    if (op->kind != IO_POLL && f->registered)
        *ready = r != -EAGAIN && !(op->kind == IO_RECV && !f->ended && r > 0 && (uint64_t)r < op->n);
    if (again)
        park(e, op, f);
    else
        io_ready(&e->loop, op, r);
}

/* Reads the page cache can answer now, without a thread. */
static bool try_cached_read(struct io_op *op)
{
    struct iovec one = {op->p, op->n};
    struct iovec *v = op->kind == IO_READV ? op->p : &one;
    size_t want = 0, count = op->kind == IO_READV ? op->n : 1;
    for (size_t i = 0; i < count; i++)
        want += v[i].iov_len;
    ssize_t r = preadv2(op->fd, v, (int)count, (off_t)op->offset, RWF_NOWAIT);
    if (r != 0 && (size_t)r != want)
        return false;
    op->result = (int)r;
    return true;
}

/* ---- the implementation's table --------------------------------------------------------------------------------- */

static void epoll_submit(struct loop *loop, struct io_op *op)
{
    struct loop_epoll *e = epoll_of(loop);
    if (op->kind == IO_READ || op->kind == IO_READV) {
        LOOP_COUNT(loop, enters, 1);
        if (try_cached_read(op))
            io_ready(loop, op, op->result);
        else
            io_to_thread(loop, op);
    } else if (op->kind > IO_READV || op->kind == IO_WRITE) {
        io_to_thread(loop, op);
    } else {
        struct fd_state *f;
        int r = fd_get(e, op->fd, &f);
        if (op->kind == IO_CONNECT) {
            op->arg = 0;
            fd_is_new(e, op->fd);
        }
        if (r < 0)
            io_ready(loop, op, r);
        else
            try_op(e, op, f);
    }
}

static void epoll_await_writable(struct loop *loop, struct io_op *op)
{
    struct loop_epoll *e = epoll_of(loop);
    struct fd_state *f = fd_find(e, op->fd);
    f->writable = false;
    park(e, op, f);
}

static void epoll_cancel(struct loop *loop, struct io_op *op)
{
    struct loop_epoll *e = epoll_of(loop);
    unpark(e, op, fd_find(e, op->fd));
    io_ready(loop, op, -ECANCELED);
}

static int epoll_enter(struct loop *loop)
{
    return 0;
}

static void epoll_leave(struct loop *loop)
{
}

static int epoll_wait_ns(struct loop_epoll *e, uint64_t timeout_ns)
{
    if (!e->no_pwait2) {
        struct timespec t = {.tv_sec = (time_t)(timeout_ns / NS_PER_S), .tv_nsec = (long)(timeout_ns % NS_PER_S)};
        /* glibc has it since 2.35, which Red Hat 9 has not. */
        int r = (int)syscall(SYS_epoll_pwait2, e->epoll_fd, e->events, EVENTS_MAX, timeout_ns == UINT64_MAX ? NULL : &t,
                             NULL, 0);
        if (r >= 0 || errno != ENOSYS)
            return r < 0 ? -errno : r;
        e->no_pwait2 = true;
    }
    int ms = timeout_ns == UINT64_MAX ? -1 : (int)min((timeout_ns + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)INT32_MAX);
    int r = epoll_wait(e->epoll_fd, e->events, EVENTS_MAX, ms);
    return r < 0 ? -errno : r;
}

static int epoll_backend_wait(struct loop *loop, uint64_t timeout_ns)
{
    struct loop_epoll *e = epoll_of(loop);
    LOOP_COUNT(loop, enters, 1);
    int r = epoll_wait_ns(e, timeout_ns);
    e->event_count = max(r, 0);
    return r == -EINTR || r >= 0 ? 0 : r;
}

/* Try what waits on the descriptor for these events. Trying makes ops ready or parks them again, it runs nothing. */
static void fd_event(struct loop_epoll *e, int fd, struct fd_state *f, uint32_t events)
{
    bool gone = events & (EPOLLERR | EPOLLHUP);
    f->readable |= gone || events & (EPOLLIN | EPOLLRDHUP);
    f->writable |= gone || events & EPOLLOUT;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        f->ended = true;
    struct list tried = LIST_INIT(tried);
    list_append_all(&tried, &f->waiting);
    struct list *l;
    while ((l = list_pop_front(&tried)))
        try_op(e, list_entry(l, struct io_op, link), f);
    if (f->foreign && list_empty(&f->waiting))
        fd_unregister(e, fd, f);
}

static void epoll_reap(struct loop *loop)
{
    struct loop_epoll *e = epoll_of(loop);
    for (int i = 0; i < e->event_count; i++) {
        uint64_t data = e->events[i].data.u64;
        if (data == LOOP_WAKE_MARK)
            continue; /* edge-triggered and never read: each write is one event */
        int fd = (int)(uint32_t)data;
        struct fd_state *f = fd_find(e, fd);
        if (f->registered && f->generation == data >> 32)
            fd_event(e, fd, f, e->events[i].events);
    }
    e->event_count = 0;
}

static void epoll_forget(struct loop *loop, int fd)
{
    struct loop_epoll *e = epoll_of(loop);
    struct fd_state *f = fd_find(e, fd);
    if (!f || !f->known)
        return;
    assert(list_empty(&f->waiting));
    if (f->registered)
        fd_unregister(e, fd, f); /* also when others hold it open: a passed descriptor would go on telling us */
    f->readable = f->writable = true;
}

static void epoll_free(struct loop *loop)
{
    struct loop_epoll *e = epoll_of(loop);
    for (uint32_t i = 0; i < e->chunk_count; i++)
        free(e->chunks[i]);
    free(e->chunks);
    close_fd(e->epoll_fd);
    close_fd(loop->wake_fd);
    free(e);
}

static const struct loop_vtable epoll_vtable = {
    .name = "epoll",
    .backend = LOOP_EPOLL,
    .enter = epoll_enter,
    .leave = epoll_leave,
    .submit = epoll_submit,
    .cancel = epoll_cancel,
    .wait = epoll_backend_wait,
    .reap = epoll_reap,
    .await_writable = epoll_await_writable,
    .forget = epoll_forget,
    .free = epoll_free,
};

int loop_epoll_new(uint32_t entries, struct loop **ret)
{
    struct loop_epoll *e = aligned_alloc(_Alignof(struct loop_epoll), sizeof(*e));
    if (!e)
        return -ENOMEM;
    memset(e, 0, sizeof(*e));
    e->loop.vtable = &epoll_vtable;
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->loop.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = LOOP_WAKE_MARK};
    if (e->epoll_fd < 0 || e->loop.wake_fd < 0 || epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->loop.wake_fd, &event) < 0) {
        int r = -errno;
        epoll_free(&e->loop);
        return r;
    }
    *ret = &e->loop;
    return 0;
}
