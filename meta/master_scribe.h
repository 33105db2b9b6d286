/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scribe: the thread that changes the namespace. It takes prepared requests from the network loops, executes them in
 * small groups under the write lock, packs what changed into batches, proposes those on the link, and gives requests
 * back when what they depend on is as safe as the ack mode asks for. It also applies what other leaders committed,
 * decides when the delta is written, and runs what the master asks of itself (id grants, purges, ended sessions).
 *
 *      network loops --push--> waiting --execute--> batch being filled --close--> in flight --committed--> back home
 *                                                        |    (link: propose, committed)        |
 *                                                        '--- undone: outcome unknown ----------'
 *
 * A batch is closed when it is full, when its window is over, or at once if nothing is in flight: a lone request never
 * waits for others. What cannot be proposed (journal's credit, batches in flight) stays in the batch being filled; when
 * that is full requests wait; when too many wait, pushing answers -CV_BUSY. Nothing grows without bound.
 *
 *      DETACHED --attached--> FOLLOWING --leader, all up to start_index applied--> LEADING
 *          ^---- link lost ------'  ^------------- role lost ---------------------'  (--> STOPPING from any)
 *
 * The thread is a loop (named "scribe"): jobs, the link's socket and timers wake it, one system call a turn.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/uuid.h"
#include "conf/metrics.h"
#include "meta/master_core.h"
#include "meta/master_options.h"
#include "meta/master_request.h"

struct master_scribe;   /* opaque */
struct master_sessions; /* meta/master_sessions.h */
struct master_workers;  /* meta/master_workers.h */
struct master_ufs;      /* meta/master_ufs.h */

struct master_scribe_options {
    const struct master_options *options; /* batches, queues, ack mode, flush, sessions; borrowed */
    const char *journal_socket;           /* borrowed */
    struct uuid cluster;
    const char *dir, *state; /* the data directory and what in it is used; NULL: no snapshots; borrowed */
    struct metrics *metrics; /* may be NULL */
    uint32_t queue_max;      /* requests waiting; 0: 8192 */
    uint32_t io_backend;     /* enum loop_backend */
    struct master_sessions *sessions;
    struct master_workers *workers; /* may be NULL */
    struct master_ufs *ufs;         /* may be NULL */
    /* On the scribe's thread: the node cannot go on (logged already): a log entry it cannot read, another cluster's
     * journal. */
    void (*failed)(void *arg, int error);
    /* On the scribe's thread: the directory was switched to another state. Stop this master and open it again. */
    void (*install)(void *arg);
    /* On the scribe's thread: the database took no more, its disk is full (said already). Stop this master, and open it again when
     * there is room. NULL: failed(). */
    void (*no_room)(void *arg);
    void *arg;
};

/* Errors: -ENOMEM and what loops, threads and the link's path give. */
int master_scribe_new(struct master_core *core, const struct master_scribe_options *options,
                      struct master_scribe **ret);

/* After master_scribe_stop(), or when it never ran. NULL is fine. */
struct master_scribe *master_scribe_free(struct master_scribe *s);
DEFINE_CLEANUP(struct master_scribe *, master_scribe_free)

#define MASTER_HOMES_MAX 256

/* Make a loop known, before start. Errors: -ENOSPC. */
int master_scribe_add_home(struct master_scribe *s, struct master_home *home);

/* Start the thread: connects to the journal. */
int master_scribe_start(struct master_scribe *s);

/* Any thread: give a chain of requests away, each prepared with 0 under the read lock. They come back through their
 * home, all of them, in any order. Errors: -CV_BUSY too many wait; -CV_STOPPING. Then they stay the caller's. */
int master_scribe_push(struct master_scribe *s, struct master_chain *chain);

/* Any thread while requests may be pushed: there is something the master has to ask of itself (a worker's row). */
void master_scribe_poke(struct master_scribe *s);

/* Any thread: an answer waits for core.confirmed_ns to pass now, and for its home to be woken then, or when we lead no
 * longer. */
void master_scribe_confirm(struct master_scribe *s);

/* Not on the scribe's thread: refuse what comes, let what is in flight commit (up to grace_ms), hand leadership over, write
 * and flush the delta, end the thread. All requests have been given back when it returns. */
void master_scribe_stop(struct master_scribe *s, uint32_t grace_ms);

/* Any thread. */
struct master_scribe_status {
    const char *state; /* "leading", "following", "detached", "stopping". Static storage */
    uint64_t term, applied, flushed, committed;
    uint32_t queued, batches_in_flight;
    uint64_t attached; /* links made since start */
};
void master_scribe_get_status(const struct master_scribe *s, struct master_scribe_status *ret);
