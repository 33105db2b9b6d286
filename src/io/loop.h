/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop: one thread that owns objects and moves their input and output. One interface, two implementations
 * chosen at run time: io_uring (loop_uring.c), and epoll with a few file threads (loop_epoll.c) where io_uring is
 * forbidden (containers, kernel.io_uring_disabled). Callers cannot tell them apart.
 *
 *      one turn:   submit everything queued and sleep: ONE system call -> done functions of finished ops
 *                  -> jobs posted by other threads -> timers due -> turn-end hooks (one writev per connection)
 *
 * The rules, the same for both implementations:
 *  - An io_op is embedded in the request it serves. Submitting never fails and never calls back: whatever happens
 *    arrives as the result, and the done function runs exactly once per submission, on the loop, in a later step.
 *    From submission until then the op, and every buffer, address and msghdr it was given, belong to the loop.
 *    The done function may free the op's memory or submit it again.
 *  - Everything below runs on the loop's thread (assert_on_loop) unless marked "any thread". Before the loop runs,
 *    the thread that made it counts as the loop's thread, so objects can be set up before loop_start().
 *  - Nothing here blocks but loop_run, loop_join and loop_call. Work that may block goes to io_work().
 *  - Descriptors: sockets are non-blocking (what net.h and io_accept return is). Close sockets with loop_close(),
 *    after their ops are done: never close a descriptor an op still uses; io_cancel() it and wait.
 *  - Stopping: the owners of objects stop those (refuse, cancel, wait for their ops), then loop_stop(). From then on
 *    submissions finish with -CV_STOPPING, what is in flight is cancelled, and loop_run returns when nothing is.
 *
 * Results: >= 0 what the system call would return, or -errno; -ECANCELED after io_cancel (an op that was faster than
 * its cancellation has its own result); -CV_STOPPING.
 *
 * Time is clock_ns() (CLOCK_BOOTTIME). The kernel's sleep does not count suspended time, so a timer may be up to a
 * second late after a resume: validity (leases, deadlines) is checked by clock when used, not by a timer's firing.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/list.h"

struct loop; /* opaque: src/io/loop_internal.h */

/* ---- the loop -------------------------------------------------------------------------------------------------- */

enum loop_backend {
    LOOP_AUTO,  /* io_uring if the kernel lets us, else epoll and a log line saying why. CV_LOOP=uring|epoll decides */
    LOOP_URING, /* io_uring or an error */
    LOOP_EPOLL,
};

struct loop_options {
    const char *name;          /* for logs and the thread's name (15 bytes show); not copied; NULL: "loop" */
    enum loop_backend backend; /* all zero is good: LOOP_AUTO and defaults */
    uint32_t queue_entries;    /* submissions a turn before an extra system call; 0: 1024 */
    uint32_t file_threads;     /* at most, started when first needed; 0: 4 */
};

/* Make a loop; options may be NULL. Free with loop_free() once loop_run returned (or it never ran).
 * Errors: -ENOMEM; -EMFILE; LOOP_URING only: -EPERM or -ENOSYS io_uring is forbidden or missing. */
int loop_new(const struct loop_options *options, struct loop **ret);
struct loop *loop_free(struct loop *loop);
DEFINE_CLEANUP(struct loop *, loop_free)

/* Be the loop's thread until loop_stop() and nothing is in flight. Returns 0, or an error the loop cannot go on from. */
int loop_run(struct loop *loop);

/* Run it on a thread of its own; loop_join waits for the end and returns what loop_run did. */
int loop_start(struct loop *loop);
int loop_join(struct loop *loop);

/* Any thread, any number of times: end loop_run (see "Stopping" above). */
void loop_stop(struct loop *loop);

/* Any thread: "uring" or "epoll"; LOOP_URING or LOOP_EPOLL, never LOOP_AUTO. */
const char *loop_backend_name(const struct loop *loop);
enum loop_backend loop_get_backend(const struct loop *loop);

/* Read "auto", "uring" or "epoll" (configuration, CV_LOOP). Errors: -EINVAL. */
int loop_backend_parse(const char *name, enum loop_backend *ret);

/* Any thread: is this the loop's thread? */
bool loop_is_here(const struct loop *loop);
#define assert_on_loop(loop) assert(loop_is_here(loop))

/* clock_ns() as of this turn: good enough for deadlines, costs nothing. */
uint64_t loop_now(const struct loop *loop);

/* Counted by the loop; read from it, or from any thread as approximate values. */
struct loop_stats {
    uint64_t turns;    /* loop turns */
    uint64_t sleeps;   /* turns that found nothing to do and slept */
    uint64_t enters;   /* system calls to submit or wait, and epoll's reads, writes and registrations */
    uint64_t ops;      /* ops done */
    uint64_t jobs;     /* jobs run */
    uint64_t timers;   /* timers fired */
    uint64_t wakes;    /* system calls made by other threads to wake the loop */
    uint64_t works;    /* ops that went through the file threads */
    uint64_t busy_ns;  /* time not asleep */
    uint32_t inflight; /* ops submitted and not done now */
};
void loop_get_stats(const struct loop *loop, struct loop_stats *ret);

/* ---- jobs: into the loop from any thread ----------------------------------------------------------------------- */

/* Embedded in what crosses threads; posting gives it away. All zero before the first post. */
struct loop_job {
    struct loop_job *next;
    void (*run)(struct loop_job *job); /* on the loop; may free or post the job again */
};

/* Any thread (the loop's own too: it runs next turn). In order per posting thread; no lock; a system call only if
 * the loop sleeps. Jobs posted before loop_run returned are run, also while stopping; posting later is a mistake. */
void loop_post(struct loop *loop, struct loop_job *job);

/* Any thread but the loop's: run fn(arg) on the loop, wait for it, return what it returned. For starting, stopping and
 * tests. On a loop that does not run yet, from the thread that made it, fn simply runs here. */
int loop_call(struct loop *loop, int (*fn)(void *arg), void *arg);

/* ---- turn end: once, after everything that finished in this turn was handled ------------------------------------ */

struct loop_hook {
    struct loop_hook *next;
    void (*run)(struct loop_hook *hook);
    bool queued;
};

static inline void loop_hook_init(struct loop_hook *hook, void (*run)(struct loop_hook *hook))
{
    *hook = (struct loop_hook){.run = run};
}

/* Run the hook once at the end of this turn; asking again before that changes nothing. What it submits goes out with
 * this turn's system call. A hook that asks again runs in the next turn, which will not sleep. */
void loop_at_turn_end(struct loop *loop, struct loop_hook *hook);

/* Take it back (also when not queued). */
void loop_hook_cancel(struct loop *loop, struct loop_hook *hook);

/* ---- timers ---------------------------------------------------------------------------------------------------- */

/* A pairing heap (Fredman et al. 1986), intrusive: starting cannot fail and costs a few instructions, so does stopping
 * a timer that would have been late anyway (the deadline nobody missed). Fires in order of time, then of starting. */
struct loop_timer {
    struct loop_timer *child, *next, *prev; /* prev: left sibling, or parent of the first child; NULL: not running */
    uint64_t at_ns, sequence;
    void (*fire)(struct loop_timer *timer); /* on the loop; the timer is not running then, and may be started again */
};

static inline void loop_timer_init(struct loop_timer *timer, void (*fire)(struct loop_timer *timer))
{
    *timer = (struct loop_timer){.fire = fire};
}

/* Fire at at_ns by clock_ns(); in the past: in the next turn. A running timer is moved. */
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t at_ns);

/* Does not fire any more; fine when not running. */
void loop_timer_stop(struct loop *loop, struct loop_timer *timer);

static inline bool loop_timer_running(const struct loop_timer *timer)
{
    return timer->prev != NULL;
}

/* ---- ops ------------------------------------------------------------------------------------------------------- */

/* All zero (or done with) before submission. Fields are the loop's. */
struct io_op {
    void (*done)(struct io_op *op, int result); /* may free or submit op again */
    struct loop *loop;
    struct list all; /* every op in flight on this loop */
    union {
        struct list link; /* where it waits: see the implementations */
        struct loop_job job;
    };
    int fd, result;
    uint8_t kind, state, flags;
    bool cancelled;
    uint32_t arg; /* events, message flags, fsync and fallocate modes */
    union {
        struct {
            void *p; /* buffer, iovec, msghdr, address or argument */
            uint64_t n, offset;
        };
        struct msghdr message; /* io_sendv, io_sendmsg */
        struct {
            int (*work)(void *arg);
            void *work_arg;
        };
        struct {
            uint64_t file_offset, file_n;
            int file_fd;
        };
    };
};

/* In flight: submitted and its done function not called yet. */
static inline bool io_op_busy(const struct io_op *op)
{
    return op->state != 0;
}

/* Ask for an early end. done still runs, once, later. Nothing happens to an op that is not in flight. */
void io_cancel(struct io_op *op);

/* Sockets. Streams: counts may be short, 0 from a receive is the peer's end. A peer that went away is -EPIPE or
 * -ECONNRESET, never a signal. At most one receive and one send in flight per socket. A unix socket whose peer sends
 * descriptors is read by io_recvmsg. io_accept's result is the new
 * descriptor, non-blocking and close-on-exec. */
void io_accept(struct loop *loop, struct io_op *op, int fd, void (*done)(struct io_op *, int));
void io_connect(struct loop *loop, struct io_op *op, int fd, const struct sockaddr *address, socklen_t n,
                void (*done)(struct io_op *, int));
void io_recv(struct loop *loop, struct io_op *op, int fd, void *p, size_t n, void (*done)(struct io_op *, int));
void io_send(struct loop *loop, struct io_op *op, int fd, const void *p, size_t n, void (*done)(struct io_op *, int));
void io_sendv(struct loop *loop, struct io_op *op, int fd, const struct iovec *v, unsigned count,
              void (*done)(struct io_op *, int));

/* With ancillary data (descriptors, see net.h). flags as for sendmsg(2); MSG_NOSIGNAL and MSG_CMSG_CLOEXEC are added. */
void io_recvmsg(struct loop *loop, struct io_op *op, int fd, struct msghdr *message, int flags,
                void (*done)(struct io_op *, int));
void io_sendmsg(struct loop *loop, struct io_op *op, int fd, const struct msghdr *message, int flags,
                void (*done)(struct io_op *, int));

/* From a file into a socket without passing through our memory. What is in the page cache goes out from the loop,
 * the rest from a file thread, so a slow disk stalls nobody. Result: bytes, may be short; 0: end of file. */
void io_sendfile(struct loop *loop, struct io_op *op, int socket_fd, int file_fd, uint64_t offset, uint64_t n,
                 void (*done)(struct io_op *, int));

/* Once: wait until fd is ready for any of events (POLLIN, POLLOUT; errors and hang-up always count).
 * Result: the ready events. */
void io_poll(struct loop *loop, struct io_op *op, int fd, uint32_t events, void (*done)(struct io_op *, int));

/* Files, at an offset. Counts may be short at the end of file and on errors. */
void io_read(struct loop *loop, struct io_op *op, int fd, void *p, size_t n, uint64_t offset,
             void (*done)(struct io_op *, int));
void io_write(struct loop *loop, struct io_op *op, int fd, const void *p, size_t n, uint64_t offset,
              void (*done)(struct io_op *, int));
void io_readv(struct loop *loop, struct io_op *op, int fd, const struct iovec *v, unsigned count, uint64_t offset,
              void (*done)(struct io_op *, int));
void io_writev(struct loop *loop, struct io_op *op, int fd, const struct iovec *v, unsigned count, uint64_t offset,
               void (*done)(struct io_op *, int));
void io_fsync(struct loop *loop, struct io_op *op, int fd, bool data_only, void (*done)(struct io_op *, int));
void io_fallocate(struct loop *loop, struct io_op *op, int fd, int mode, uint64_t offset, uint64_t n,
                  void (*done)(struct io_op *, int));

/* Run work(arg) on a file thread; result: what it returned. For calls that may block and have no op of their own
 * (open, rename, statfs, getaddrinfo, database reads). Cancelling prevents it only while it has not begun. */
void io_work(struct loop *loop, struct io_op *op, int (*work)(void *arg), void *arg, void (*done)(struct io_op *, int));

/* ---- sockets and foreign descriptors --------------------------------------------------------------------------- */

/* Close a socket (or anything an op used). No op on it may be in flight. fd -1 is fine; returns -1. */
int loop_close(struct loop *loop, int fd);

/* Readiness of a descriptor that belongs to a library (libcurl's multi interface), level-triggered: ready() is called
 * again as long as the descriptor is. The library may close the descriptor right after io_watch_stop(). */
struct io_watch {
    struct io_op op;
    struct loop *loop;
    int fd;          /* -1: not watching */
    uint32_t events; /* POLLIN | POLLOUT */
    bool stopping;
    void (*ready)(struct io_watch *watch, uint32_t events);
    void (*stopped)(struct io_watch *watch);
};

void io_watch_start(struct loop *loop, struct io_watch *watch, int fd, uint32_t events,
                    void (*ready)(struct io_watch *watch, uint32_t events));

/* Other events from now on; may be called from ready(). */
void io_watch_change(struct io_watch *watch, uint32_t events);

/* ready() is not called any more. The memory is the caller's again when stopped(watch) has run, which is once, on the
 * loop, in a later step. */
void io_watch_stop(struct io_watch *watch, void (*stopped)(struct io_watch *watch));
