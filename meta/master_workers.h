/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workers as the leader sees them: who is there, who answers, who takes part in placement, and what each has to drop.
 *
 *      register   a worker says who it is, to each new leader again; who is known from stored rows counts as heard of
 *                 when we began to lead, so a change of leader takes nobody's blocks away
 *      up         heard of within worker_down_ms
 *      in         takes part in placement: from the first registration; out after worker_out_ms without a word (or by
 *                 command), in again when it comes back
 *      map        all of that with a version that grows with every change, over leaders too (term in the high half)
 *      drops      what commits have made nobody's: told in answers to heartbeats until acknowledged. Bounded; what gets
 *                 lost here (a full queue, a change of leader, a worker that is down) blocks_check finds
 *
 * Any thread; one lock, held for a copy or a walk over the workers. Times are clock_ns().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "meta/master_options.h"
#include "meta/meta_format.h"
#include "place/place.h"
#include "wire/message.h"

struct master_workers; /* opaque */

#define MASTER_WORKERS_MAX 4096
#define MASTER_DROPS_MAX   65536 /* waiting for one worker */
#define MASTER_DROPS_TOLD  8192  /* in one answer */

/* options: worker_heartbeat_ms, worker_down_ms, worker_out_ms; borrowed. Errors: -ENOMEM. */
int master_workers_new(const struct master_options *options, struct master_workers **ret);
struct master_workers *master_workers_free(struct master_workers *w);
DEFINE_CLEANUP(struct master_workers *, master_workers_free)

/* We begin to lead in this term: nobody has registered, nothing is to be dropped. */
void master_workers_lead(struct master_workers *w, uint64_t term);

/* Known from a stored row (after master_workers_lead): as if it had registered, without a word since. Errors: -EINVAL;
 * -CV_BUSY; -ENOMEM. */
int master_workers_known(struct master_workers *w, const struct meta_worker_row *row, uint64_t now_ns);

/* It says who it is. mounts_version is left to the caller.
 * Errors: -EINVAL no id or address, texts too long; -CV_BUSY too many workers; -ENOMEM. */
int master_workers_register(struct master_workers *w, const struct msg_worker_register *m, uint64_t now_ns,
                            struct msg_worker_register_answer *ret);

/* --- rows to be stored: who it is, weight, in --- */
struct master_worker_row {
    struct meta_worker_row row; /* its texts are in here */
    char address[256], socket[256], host[256], boot[256];
};

/* The next row that differs from what is stored. It counts as stored from then on. Cheap when there is none. */
bool master_workers_next_row(struct master_workers *w, struct master_worker_row *ret);
/* What was taken out may not have been committed: all of it again. */
void master_workers_store_again(struct master_workers *w);

/* It lives. Drops told go into texts. mounts_version is left to the caller. Errors: -ENOMEM. */
int master_workers_heartbeat(struct master_workers *w, const struct msg_worker_heartbeat *m, uint64_t now_ns,
                             struct msg_worker_heartbeat_answer *ret, struct buf *texts);

/* Whether the worker said, since it registered, that it has asked about all it holds in this incarnation. One that is out, or
 * not known, is not waited for: what it holds is of an older epoch when it comes back. Any thread. */
bool master_workers_checked(struct master_workers *w, uint64_t worker, uint32_t incarnation);

/* The map, or when the asker has this version already only its number. Errors: -ENOMEM. */
int master_workers_map(struct master_workers *w, uint64_t known_version, uint64_t now_ns,
                       struct msg_workers_answer *ret, struct buf *texts);
uint64_t master_workers_version(struct master_workers *w, uint64_t now_ns);

/* Committed: everything of the inode behind size is nobody's (0: all of it). */
void master_workers_drop(struct master_workers *w, uint64_t inode, uint64_t size, uint64_t epoch);

/* Up to max workers for a block, best first: those that are in and up and have room; near (if it is one of them) before
 * the others. Returns how many, 0: nobody takes data. */
uint32_t master_workers_place(struct master_workers *w, uint64_t inode, uint32_t block, uint64_t near, uint32_t max,
                              uint64_t now_ns, uint64_t *ret);

/* Workers as nodes of cluster_status, appended to list. Returns how many. */
uint32_t master_workers_nodes(struct master_workers *w, uint64_t now_ns, struct buf *list);

struct master_workers_stats {
    uint32_t up, down, out;         /* out ones are not counted in the others */
    uint64_t capacity, used, dirty; /* bytes, of those that are up */
    uint64_t damaged_chunks, lost_blocks;
    uint64_t drops_waiting;            /* of all workers together */
    uint64_t drops_queued, drops_lost; /* since start; lost: the queue was full */
};
void master_workers_get_stats(struct master_workers *w, uint64_t now_ns, struct master_workers_stats *ret);
