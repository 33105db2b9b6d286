/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's file threads: they make calls that block (all file calls of the epoll implementation, io_work of both,
 * sendfile of what is not in the page cache) and post the op back. A thread is started when work waits and no thread is
 * idle, up to the limit; they end with the loop.
 */
#include "io/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

#ifdef SYS_cachestat
#define SYS_CACHESTAT SYS_cachestat
#else
#define SYS_CACHESTAT 451 /* Linux 6.5, newer than our headers; the same on all architectures we build for */
#endif
#define SENDFILE_PIECE (1u << 20) /* bytes a try sends at most, so that one connection does not starve the others */

int loop_threads_init(struct loop_threads *t, uint32_t limit)
{
    t->thread = calloc(limit, sizeof(*t->thread));
    if (!t->thread)
        return -ENOMEM;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->filled, NULL);
    list_init(&t->waiting);
    t->limit = limit;
    return 0;
}

void loop_threads_fini(struct loop_threads *t)
{
    if (!t->thread)
        return;
    pthread_mutex_lock(&t->lock);
    assert(list_empty(&t->waiting));
    t->closed = true;
    pthread_cond_broadcast(&t->filled);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->count; i++)
        pthread_join(t->thread[i], NULL);
    pthread_cond_destroy(&t->filled);
    pthread_mutex_destroy(&t->lock);
    free(t->thread);
}

static int restart(ssize_t r)
{
    return r < 0 ? -errno : (int)r;
}

int io_call(struct io_op *op)
{
    switch (op->kind) {
    case IO_READ: return restart(pread(op->fd, op->p, op->n, (off_t)op->offset));
    case IO_WRITE: return restart(pwrite(op->fd, op->p, op->n, (off_t)op->offset));
    case IO_READV: return restart(preadv(op->fd, op->p, (int)op->n, (off_t)op->offset));
    case IO_WRITEV: return restart(pwritev(op->fd, op->p, (int)op->n, (off_t)op->offset));
    case IO_FSYNC: return restart(op->arg ? fdatasync(op->fd) : fsync(op->fd));
    case IO_FALLOCATE: return restart(fallocate(op->fd, (int)op->arg, (off_t)op->offset, (off_t)op->n));
    case IO_WORK: return op->work(op->work_arg);
    case IO_SENDFILE: {
        off_t offset = (off_t)op->file_offset;
        return restart(sendfile(op->fd, op->file_fd, &offset, min(op->file_n, (uint64_t)SENDFILE_PIECE)));
    }
    default: assert(!"a call of the file threads");
    }
    return -EINVAL;
}

/* Is all of the next piece in the page cache, so that sending it will not wait for the disk? */
static bool is_cached(const struct io_op *op, uint64_t n)
{
    struct {
        uint64_t offset, length;
    } range = {op->file_offset, n};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } stat;
    if (syscall(SYS_CACHESTAT, op->file_fd, &range, &stat, 0) < 0)
        return false; /* before Linux 6.5, or not ours to ask: a file thread does it */
    if (n == 0)
        return true;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = op->file_offset / page;
    return stat.cached >= (op->file_offset + n - 1) / page - first + 1;
}

void io_sendfile_try(struct loop *loop, struct io_op *op)
{
    uint64_t n = min(op->file_n, (uint64_t)SENDFILE_PIECE);
    if (!is_cached(op, n)) { /* also what ends before n bytes */
        io_to_thread(loop, op);
        return;
    }
    int r = io_call(op);
    LOOP_COUNT(loop, enters, 2);
    if (r == -EAGAIN)
        loop->vtable->await_writable(loop, op);
    else
        io_ready(loop, op, r);
}

/* Back on the loop. */
static void thread_job_done(struct loop_job *job)
{
    struct io_op *op = container_of(job, struct io_op, job);
    struct loop *loop = op->loop;
    if (op->kind == IO_SENDFILE && op->result == -EAGAIN && !op->cancelled)
        loop->vtable->await_writable(loop, op);
    else
        io_finish(loop, op, op->result == -EAGAIN && op->cancelled ? -ECANCELED : op->result);
}

static void *thread_main(void *arg)
{
    struct loop *loop = arg;
    struct loop_threads *t = &loop->threads;
    pthread_setname_np(pthread_self(), "cv-file");
    pthread_mutex_lock(&t->lock);
    for (;;) {
        struct list *e = list_pop_front(&t->waiting);
        if (!e) {
            if (t->closed)
                break;
            t->idle++;
            pthread_cond_wait(&t->filled, &t->lock);
            t->idle--;
            continue;
        }
        struct io_op *op = list_entry(e, struct io_op, link);
        t->depth--;
        op->flags |= IO_THREAD_RUNS;
        pthread_mutex_unlock(&t->lock);
        op->result = io_call(op);
        op->job.run = thread_job_done;
        loop_post(loop, &op->job);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

void io_to_thread(struct loop *loop, struct io_op *op)
{
    struct loop_threads *t = &loop->threads;
    op->state = IO_STATE_THREAD;
    LOOP_COUNT(loop, works, 1);
    pthread_mutex_lock(&t->lock);
    op->flags &= (uint8_t)~IO_THREAD_RUNS;
    list_push_back(&t->waiting, &op->link);
    t->depth++;
    bool grow = t->depth > t->idle && t->count < t->limit;
    if (grow && pthread_create(&t->thread[t->count], NULL, thread_main, loop) == 0)
        t->count++;
    bool alone = t->count == 0; /* not one thread could be started: slow is better than wrong */
    if (alone) {
        list_remove(&op->link);
        t->depth--;
    } else {
        pthread_cond_signal(&t->filled);
    }
    pthread_mutex_unlock(&t->lock);
    if (alone) {
        log_warn(-EAGAIN, "loop %s: cannot start a file thread, calling from the loop", loop->name);
        io_ready(loop, op, io_call(op));
    }
}

bool loop_threads_cancel(struct loop *loop, struct io_op *op)
{
    struct loop_threads *t = &loop->threads;
    pthread_mutex_lock(&t->lock);
    bool ours = !(op->flags & IO_THREAD_RUNS);
    if (ours) {
        list_remove(&op->link);
        t->depth--;
    }
    pthread_mutex_unlock(&t->lock);
    return ours;
}
