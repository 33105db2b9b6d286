/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the driver: journal_driver.c (life, inputs, the clock, what the log keeps, questions) calls journal_driver_step.c
 * (one input to the core, and all that follows from it). All of it belongs to the loop but for what is marked.
 */
#pragma once

#include <stdatomic.h>

#include "base/list.h"
#include "base/pool.h"
#include "raft/journal_driver.h"

/* A message whose promise is not durable yet. */
struct held_send {
    struct list link;
    struct raft_send send;
};

/* What other threads may read: the view and the application's watermarks. */
struct figures {
    _Atomic uint64_t role, term, first, last, durable, commit, applied, flushed, attached, warnings, cache_used;
};

struct journal_driver {
    struct journal_driver_options options;
    struct raft *raft;
    struct journal_ring *ring;
    struct journal_writer *writer;
    struct journal_metrics *metrics;
    bool own_metrics;
    struct loop_timer tick;
    uint64_t compact_looked_ns, compact_to;

    struct journal_view view;
    uint64_t installed; /* index of the state the log goes on behind, and its directory; durable */
    char installed_directory[256];
    struct journal_install *installing; /* for the next write of the core: see journal_driver_install() */
    uint64_t loaded;                    /* last entry of ours that was on disk at the start, and still is */
    uint64_t applied, flushed;
    bool attached, can_lead, reluctant, log_full, compacting;
    uint32_t warned; /* warnings that were logged */

    struct pool writes;    /* struct journal_write */
    uint32_t writes_out;   /* pushed and not back */
    struct pool held_pool; /* struct held_send */
    struct list held;      /* in order of sending */
    struct figures figures;

    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* --- journal_driver_step.c */

/* One input, and all that follows from it. records: of a proposal, else NULL. Errors: of struct raft_input; -CV_STOPPING. */
int driver_step(struct journal_driver *d, struct raft_input *in, struct journal_record *const *records);

/* A unit for the log writer, zeroed; always there. */
struct journal_write *driver_new_write(struct journal_driver *d);
void driver_push(struct journal_driver *d, struct journal_write *w);

/* The write of this number is durable, and those before it: messages that waited for them leave. */
void driver_release_held(struct journal_driver *d, uint64_t seq);

/* What of the view does not come from a step: configuration, disk. */
void driver_look_around(struct journal_driver *d);
/* The figures, for other threads. */
void driver_publish(struct journal_driver *d);
