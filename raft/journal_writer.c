/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_writer.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/queue.h"

enum {
    GROUP_BYTES = 4 << 20, /* of one batch: bounds its memory; larger syncs gain nothing */
    LOOK_EVERY_NS = NS_PER_S,
};

struct journal_writer {
    struct journal_writer_options options;
    struct queue queue;
    pthread_t thread;
    struct journal_metrics *metrics;
    bool own_metrics;
    uint64_t looked_ns;
    _Atomic uint64_t log_bytes, disk_free; /* any thread */
};

static void run_written(struct loop_job *job)
{
    struct journal_write *first = container_of(job, struct journal_write, done);
    struct journal_writer *w = first->writer;
    struct list group = LIST_INIT(group);
    list_append_all(&group, &first->group); /* the writes may be freed by who is told */
    w->options.written(w->options.arg, &group);
}

/* Sync what was added, count, and tell the loop. */
static void finish_group(struct journal_writer *w, struct list *group)
{
    if (list_empty(group))
        return;
    uint64_t begin = clock_ns();
    int r = journal_store_sync(w->options.store, begin);
    if (r < 0)
        log_fatal(r, "write the log: stopping, the next start will look at what is on disk");
    uint64_t entries = 0, bytes = 0, operations = 0;
    list_for_each (e, group) {
        const struct journal_write *write = list_entry(e, struct journal_write, link);
        histogram_add(&w->metrics->queue_ns, begin - write->queued_ns);
        for (uint32_t i = 0; i < write->unit.count; i++) {
            bytes += write->entries[i]->size;
            operations += write->entries[i]->op_count;
        }
        entries += write->unit.count;
    }
    histogram_add(&w->metrics->sync_ns, clock_ns() - begin);
    histogram_add(&w->metrics->group_entries, entries);
    counter_add(&w->metrics->syncs, 1);
    counter_add(&w->metrics->entries, entries);
    counter_add(&w->metrics->entry_bytes, bytes);
    counter_add(&w->metrics->operations, operations);

    struct journal_write *first = list_entry(group->next, struct journal_write, link);
    list_init(&first->group);
    list_append_all(&first->group, group);
    first->done = (struct loop_job){.run = run_written};
    loop_post(w->options.loop, &first->done);
}

static void compact(struct journal_writer *w, const struct journal_write *write)
{
    uint64_t begin = clock_ns();
    int r = journal_store_compact(w->options.store, write->compact_first);
    if (r < 0)
        log_fatal(r, "delete the beginning of the log: stopping");
    counter_add(&w->metrics->compactions, 1);
    log_info("deleted log entries below %llu in %llu ms", (unsigned long long)write->compact_first,
             (unsigned long long)((clock_ns() - begin) / NS_PER_MS));
}

static void write_all(struct journal_writer *w, struct list *taken)
{
    struct list group = LIST_INIT(group);
    for (struct list *e; (e = list_pop_front(taken));) {
        struct journal_write *write = list_entry(e, struct journal_write, link);
        if (write->compact_first) {
            finish_group(w, &group);
            compact(w, write);
        } else {
            int r = journal_store_add(w->options.store, &write->unit);
            if (r < 0)
                log_fatal(r, "write the log: stopping, the next start will look at what is on disk");
        }
        list_push_back(&group, e);
        if (journal_store_batch_bytes(w->options.store) >= GROUP_BYTES)
            finish_group(w, &group);
    }
    finish_group(w, &group);
}

/* Once a second: durable.mark when nothing is written, and how large the log and how full the disk is. */
static uint64_t housekeeping(struct journal_writer *w)
{
    uint64_t now = clock_ns(), due;
    int r = journal_store_idle(w->options.store, now, &due);
    if (r < 0)
        log_fatal(r, "write durable.mark: stopping, the next start will look at what is on disk");
    if (now - w->looked_ns >= LOOK_EVERY_NS) {
        w->looked_ns = now;
        struct statvfs fs;
        atomic_store_explicit(&w->log_bytes, journal_store_bytes(w->options.store), memory_order_relaxed);
        if (w->options.dir && statvfs(w->options.dir, &fs) == 0)
            atomic_store_explicit(&w->disk_free, (uint64_t)fs.f_bavail * fs.f_frsize, memory_order_relaxed);
    }
    uint64_t next = w->looked_ns + LOOK_EVERY_NS;
    next = min(next, due);
    return next > now ? next - now : 1;
}

static void *writer_thread(void *arg)
{
    struct journal_writer *w = arg;
    pthread_setname_np(pthread_self(), "log-writer");
    struct list taken = LIST_INIT(taken);
    while (queue_take_all(&w->queue, &taken, housekeeping(w)))
        write_all(w, &taken);
    return NULL;
}

int journal_writer_start(const struct journal_writer_options *options, struct journal_writer **ret)
{
    struct journal_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->options = *options;
    w->disk_free = UINT64_MAX;
    w->own_metrics = !options->metrics;
    int r = 0;
    if (options->metrics)
        r = metrics_block_new(options->metrics, &journal_metric_set, &w->metrics);
    else if (!(w->metrics = calloc(1, sizeof(*w->metrics))))
        r = -ENOMEM;
    if (r < 0) {
        free(w);
        return r;
    }
    queue_init(&w->queue, UINT32_MAX); /* bounded by the core: RAFT_WRITES_MAX */
    r = -pthread_create(&w->thread, NULL, writer_thread, w);
    if (r < 0) {
        queue_fini(&w->queue);
        if (w->own_metrics)
            free(w->metrics);
        else
            metrics_block_free(options->metrics, &journal_metric_set, w->metrics);
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct journal_writer *journal_writer_stop(struct journal_writer *w)
{
    if (!w)
        return NULL;
    queue_close(&w->queue);
    pthread_join(w->thread, NULL);
    queue_fini(&w->queue);
    if (w->own_metrics)
        free(w->metrics);
    else
        metrics_block_free(w->options.metrics, &journal_metric_set, w->metrics);
    free(w);
    return NULL;
}

void journal_writer_push(struct journal_writer *w, struct journal_write *write)
{
    write->writer = w;
    write->queued_ns = clock_ns();
    int r = queue_push(&w->queue, &write->link);
    assert(r == 0);
}

uint64_t journal_writer_log_bytes(const struct journal_writer *w)
{
    return atomic_load_explicit(&w->log_bytes, memory_order_relaxed);
}

uint64_t journal_writer_disk_free(const struct journal_writer *w)
{
    return atomic_load_explicit(&w->disk_free, memory_order_relaxed);
}
