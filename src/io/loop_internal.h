/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What loop.c shares with its two implementations, the timers and the file threads. Nobody else includes this.
 *
 * The life of an op; io_finish() is the only way out, so done runs once:
 *
 *      IDLE --submit--> KERNEL   the implementation has it (SQE, socket wait queue, file thread)
 *        |                 |  result known away from the kernel's queue (refused, cancelled, a file thread's)
 *        +--> READY <------+
 *               |          |
 *               +--> done <+     from the loop's turn, never from submit or cancel
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "io/loop.h"

enum io_kind {
    IO_NOTHING, /* is done in the next step */
    IO_ACCEPT,
    IO_CONNECT,
    IO_RECV,
    IO_SEND,
    IO_RECVMSG,
    IO_SENDMSG,
    IO_SENDFILE,
    IO_POLL,
    IO_READ,
    IO_WRITE,
    IO_READV,
    IO_WRITEV,
    IO_FSYNC,
    IO_FALLOCATE,
    IO_WORK,
};

enum io_state {
    IO_STATE_IDLE,    /* the caller's */
    IO_STATE_BACKLOG, /* submitted, the kernel does not know it yet; on a list of the implementation */
    IO_STATE_KERNEL,  /* io_uring: it has an SQE. epoll: parked until the descriptor is ready */
    IO_STATE_AWAIT,   /* io_uring only: a poll SQE stands for it, the call is tried again after that */
    IO_STATE_THREAD,  /* with the file threads */
    IO_STATE_READY,   /* result is known, on loop->ready */
};

/* op->flags, guarded by the file threads' lock */
#define IO_THREAD_RUNS 1

/* One of the two implementations. All run on the loop. */
struct loop_vtable {
    const char *name;
    enum loop_backend backend;
    int (*enter)(struct loop *loop);  /* loop_run begins, on its thread */
    void (*leave)(struct loop *loop); /* it ends */
    void (*submit)(struct loop *loop, struct io_op *op);
    void (*cancel)(struct loop *loop, struct io_op *op);
    int (*wait)(struct loop *loop, uint64_t timeout_ns); /* submit, sleep (0: do not; UINT64_MAX: for ever) */
    void (*reap)(struct loop *loop);                     /* io_finish what is finished */
    /* io_sendfile_try found the socket full: call it again when it is writable. */
    void (*await_writable)(struct loop *loop, struct io_op *op);
    void (*forget)(struct loop *loop, int fd); /* fd is about to be closed */
    void (*free)(struct loop *loop);
};

/* Threads for calls that block; started one by one as work waits, ended with the loop. */
struct loop_threads {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t filled;
    struct list waiting; /* ops by link */
    pthread_t *thread;
    uint32_t count, idle, limit, depth;
    bool closed;
};

/* What loop_health.c keeps per loop that loop_start() started. */
struct loop_health {
    struct list link;
    struct loop_job job;
    _Atomic(uint64_t) asked_ns; /* any thread, atomic: when the job was posted; 0: it has run */
};

struct loop {
    const struct loop_vtable *vtable;
    char name[16];
    _Atomic(pthread_t) owner; /* any thread, atomic */
    bool runs, stopping;      /* stopping: refuse what is new */
    uint64_t now, woke_ns;

    struct list all;   /* every op in flight, by all */
    struct list ready; /* ops whose result is known, by link */
    struct loop_hook *hooks, **hooks_end;
    struct loop_timer *timers; /* root of the heap */
    uint64_t timer_sequence;

    struct loop_threads threads;
    struct loop_stats stats; /* written by the loop with relaxed stores */
    pthread_t thread;        /* loop_start */
    int thread_result;

    int wake_fd; /* eventfd: written to end a sleep, never read: both implementations see each write */
    _Alignas(64) _Atomic(struct loop_job *) jobs; /* any thread, atomic: newest first */
    _Atomic(bool) asleep;                         /* any thread, atomic: whoever clears it writes wake_fd */
    _Atomic(bool) stop;                           /* any thread, atomic */
    _Atomic(uint64_t) wakes;                      /* any thread, atomic */
    struct loop_health health;
};

#define LOOP_COUNT(loop, field, n) __atomic_store_n(&(loop)->stats.field, (loop)->stats.field + (n), __ATOMIC_RELAXED)

/* Implementations. Errors of loop_uring_new: -ENOSYS, -EPERM, -EOPNOTSUPP: not available here, use the other. */
int loop_uring_new(uint32_t entries, struct loop **ret);
int loop_epoll_new(uint32_t entries, struct loop **ret);
#define LOOP_WAKE_MARK UINT64_MAX /* user data of the wake descriptor */

void io_submit(struct loop *loop, struct io_op *op, enum io_kind kind, int fd, void (*done)(struct io_op *, int));

/* The op is done: leave the books and call done. Only from the turn. */
void io_finish(struct loop *loop, struct io_op *op, int result);

/* The op's result is known, its done function runs in the next step. */
void io_ready(struct loop *loop, struct io_op *op, int result);

/* Have the file threads make the op's call; ends in io_finish. */
void io_to_thread(struct loop *loop, struct io_op *op);

/* Make the op's blocking call here. Returns its result. */
int io_call(struct io_op *op);

/* One try of io_sendfile: the op becomes ready, or waits for a file thread, or for the socket (await_writable). */
void io_sendfile_try(struct loop *loop, struct io_op *op);

/* From now on, and no longer, loops_healthy() asks this loop. */
void loop_health_begin(struct loop *loop);
void loop_health_end(struct loop *loop);

/* File threads. */
int loop_threads_init(struct loop_threads *t, uint32_t limit);
void loop_threads_fini(struct loop_threads *t);
bool loop_threads_cancel(struct loop *loop, struct io_op *op); /* true: it had not begun and is ours again */

/* Timers. */
uint64_t loop_timer_next(const struct loop *loop); /* UINT64_MAX: none */
void loop_timers_fire(struct loop *loop);
