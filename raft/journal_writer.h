/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log writer: the one thread that writes the log. It takes all writes that are queued, makes one batch of them, syncs
 * it once, and tells the loop; while it is in that sync the next group collects. So a lone write waits for nothing,
 * and many share a sync: the size of groups follows the disk.
 *
 *      loop:    journal_writer_push() ... push() ... push()             written(group)
 *                        |                                                 ^
 *      writer:           +--> add, add, add -> one synced write ----------+
 *
 * An error of the disk ends the process at once: nothing is retried and nothing is acknowledged after it.
 */
#pragma once

#include <stdatomic.h>

#include "io/loop.h"
#include "raft/journal_metrics.h"
#include "raft/journal_ring.h"

/* One unit on its way. The pusher's until pushed, and again when it comes back in written(). */
struct journal_write {
    struct list link;
    uint64_t seq;           /* of the core; 0 for compaction */
    uint64_t compact_first; /* delete entries below it; 0: write the unit */
    struct journal_unit unit;
    struct journal_install *install;                        /* malloc'ed with all it points to, or NULL */
    struct journal_entry *entries[RAFT_APPEND_ENTRIES_MAX]; /* of records that the pusher pinned */

    /* The writer's. */
    struct journal_writer *writer;
    uint64_t queued_ns;
    struct loop_job done; /* of the first of a group */
    struct list group;    /* the whole group, in order */
};

struct journal_writer;

struct journal_writer_options {
    struct loop *loop;
    struct journal_store *store; /* its writing side belongs to the writer until journal_writer_stop() */
    const char *dir;             /* on whose file system free space is watched */
    struct metrics *metrics;     /* may be NULL */
    /* On the loop: everything on the list (of journal_write.link) is durable, in order. */
    void (*written)(void *arg, struct list *group);
    void *arg;
};

/* Errors: -ENOMEM, -EAGAIN. */
int journal_writer_start(const struct journal_writer_options *options, struct journal_writer **ret);

/* When everything pushed has come back. The log is closed by its owner. */
struct journal_writer *journal_writer_stop(struct journal_writer *w);

/* Loop: give a write away. */
void journal_writer_push(struct journal_writer *w, struct journal_write *write);

/* Any thread: as of a second ago, about. */
uint64_t journal_writer_log_bytes(const struct journal_writer *w);
uint64_t journal_writer_disk_free(const struct journal_writer *w);
