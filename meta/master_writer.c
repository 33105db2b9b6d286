/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_writer.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "meta/meta_redo.h"

enum { TIDY_EVERY = 16 /* flushes */ };

struct master_writer {
    struct loop *loop;
    struct master_store *store;
    const struct master_writer_events *events;
    pthread_t thread;
    bool idle;        /* the loop's */
    bool gave_up;     /* the loop's */
    int error;        /* the thread's, then the loop's: no_room */
    unsigned flushes; /* the thread's */
    struct loop_job written_job, flushed_job, no_room_job;

    pthread_mutex_t lock; /* guards the following */
    pthread_cond_t changed;
    struct meta_delta *delta; /* given and not freed yet */
    bool acknowledged;        /* written() ran: nobody but the writer knows the delta any more */
    bool stop;
};

static void written_run(struct loop_job *job)
{
    struct master_writer *w = container_of(job, struct master_writer, written_job);
    w->events->written(w->events->arg, w->delta);
    pthread_mutex_lock(&w->lock);
    w->acknowledged = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void flushed_run(struct loop_job *job)
{
    struct master_writer *w = container_of(job, struct master_writer, flushed_job);
    w->idle = true;
    w->events->flushed(w->events->arg);
}

static void no_room_run(struct loop_job *job)
{
    struct master_writer *w = container_of(job, struct master_writer, no_room_job);
    w->idle = w->gave_up = true;
    w->events->no_room(w->events->arg, w->error);
}

static int write_delta(struct master_writer *w, struct meta_delta *d)
{
    int r = meta_delta_sort(d);
    if (r < 0)
        return r;
    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    r = master_batch_new(&b);
    if (r < 0)
        return r;
    struct redo_row row;
    while (meta_delta_next(d, &row)) {
        enum meta_family family = meta_table_family(row.table);
        if (row.deleted)
            master_batch_remove(w->store, b, family, row.key);
        else
            master_batch_put(w->store, b, family, row.key, row.value);
    }
    return master_store_write(w->store, b, meta_delta_applied(d));
}

/* Readers find the rows in the database from now on; wait until they do. Frees the delta. */
static void acknowledge(struct master_writer *w, struct meta_delta *d)
{
    pthread_mutex_lock(&w->lock);
    while (!w->acknowledged)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    meta_delta_free(d);
}

/* Nothing that comes behind could be trusted, and RocksDB itself may end the process at any moment from here. */
static int check_error(int r)
{
    if (r < 0 && r != -ENOSPC)
        log_fatal(r, "write the metadata database: stopping, the journal has what is missing; look at the disk, and "
                     "start again");
    return r;
}

static void write_and_flush(struct master_writer *w, struct meta_delta *d)
{
    int r = check_error(write_delta(w, d));
    if (r == 0) {
        loop_post(w->loop, &w->written_job);
        r = check_error(master_store_flush(w->store));
        acknowledge(w, d);
    } /* else it is the core's, sealed: rows in it are read from there */
    pthread_mutex_lock(&w->lock);
    w->delta = NULL;
    pthread_mutex_unlock(&w->lock);
    w->error = r;
    loop_post(w->loop, r == 0 ? &w->flushed_job : &w->no_room_job);
    if (r == 0 && ++w->flushes % TIDY_EVERY == 0)
        master_store_tidy(w->store);
}

static void *writer_main(void *arg)
{
    struct master_writer *w = arg;
    pthread_setname_np(pthread_self(), "writer");
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (w->delta) {
            pthread_mutex_unlock(&w->lock);
            write_and_flush(w, w->delta);
            pthread_mutex_lock(&w->lock);
        } else {
            pthread_cond_wait(&w->changed, &w->lock);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int master_writer_new(struct loop *loop, struct master_store *store, const struct master_writer_events *events,
                      struct master_writer **ret)
{
    struct master_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    *w = (struct master_writer){.loop = loop, .store = store, .events = events, .idle = true};
    w->written_job.run = written_run;
    w->flushed_job.run = flushed_run;
    w->no_room_job.run = no_room_run;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    int r = -pthread_create(&w->thread, NULL, writer_main, w);
    if (r < 0) {
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

bool master_writer_is_idle(const struct master_writer *w)
{
    return w->idle;
}

void master_writer_give(struct master_writer *w, struct meta_delta *delta)
{
    assert(w->idle && !w->gave_up);
    w->idle = false;
    pthread_mutex_lock(&w->lock);
    w->delta = delta;
    w->acknowledged = false;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

struct master_writer *master_writer_free(struct master_writer *w)
{
    if (!w)
        return NULL;
    assert(w->idle);
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return NULL;
}
