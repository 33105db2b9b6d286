/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's disk under the log: an ordered queue of atomic write units. What was asked for is in live at once; what
 * a crash can no longer undo is in durable. A sync takes all units queued so far (up to group_max) and finishes after
 * the disk's latency; a crash keeps an arbitrary prefix of the units not yet reported, and what it keeps is durable.
 *
 *      unit 7   unit 8 | unit 9   unit 10          live    = durable + all units
 *      ---in flight----|----waiting------          crash   = durable + some first ones
 *
 * The application's flushed state lies on the same machine and is replaced atomically; a snapshot's installation
 * switches to its state in the same unit as the log (raft.h, install).
 */
#pragma once

#include "sim_world.h"

/* An entry of a log, shared by all logs and messages that hold it: it never changes. */
struct sim_entry {
    struct sim_entry *next; /* another entry of the same index: only one of them can ever be committed */
    uint64_t index, term;
    uint64_t chain;       /* hash of everything up to and including this entry */
    uint64_t store_chain; /* the same of the log store; 0: it never had the entry */
    const uint8_t *data;
    uint32_t size;
    uint8_t type;                 /* enum raft_entry_type */
    uint8_t maker;                /* slot of the leader that made it */
    const struct raft_conf *conf; /* CONF: decoded */
};

struct state; /* the application's, see sim_state.h */

enum { DISK_CONFS = 48 };

struct disk_image {
    uint64_t term, vote, commit;
    uint64_t first, last;
    struct sim_entry *base;     /* entry first - 1; NULL when first is 1 */
    struct sim_entry **entries; /* by index; room of them */
    uint64_t room;
    struct sim_entry *confs[DISK_CONFS]; /* configurations, ascending; at least the newest two */
    uint32_t conf_count;
    const struct state *flushed; /* the application's; NULL: the empty state */
};

struct disk_unit {
    struct disk_unit *next;
    uint64_t seq; /* 0: the driver's own (compaction) */
    uint64_t term, vote, commit;
    uint64_t truncate_from, compact_first;
    struct sim_entry *install, *install_conf; /* snapshot's last entry; NULL: none */
    const struct state *install_state;
    bool no_term, no_vote; /* only half of the hard state (mutants) */
    bool keep_tail;        /* entries overwrite, what is behind them stays (mutants) */
    uint64_t first;
    uint32_t count;
    struct sim_entry *entries[];
};

struct disk {
    struct disk_image live, durable;
    struct disk_unit *head, *tail; /* queued, in flight ones first */
    uint32_t queued, in_flight;
    bool busy;
    uint32_t epoch;     /* grows with each crash: what was in flight is void */
    uint64_t synced_us; /* last sync */

    /* Faults. */
    bool hold; /* scripted: nothing finishes */
    uint64_t slow_until_us, slow_us;
    uint64_t stall_until_us;
    uint64_t full_until_us;
    bool fail_next;
    bool damaged; /* content lost or changed: must be noticed at the next start */
};

void disk_init(struct disk *d);

/* A unit with room for count entries; the caller fills it in and queues it. */
struct disk_unit *disk_unit_new(struct world *w, uint32_t count);
void disk_queue(struct node *n, struct disk_unit *u);

/* EVENT_SYNCED: the units in flight are durable, or the write failed (then the process is stopped). */
void disk_on_synced(struct node *n, uint32_t epoch);

/* Scripted: begin what is held back. */
void disk_kick(struct node *n);

/* The machine or its journal process stopped: keep the first units (keep < 0: an arbitrary number; else that many). */
void disk_crash(struct node *n, int keep);

/* Entry of an image, or NULL: compacted (but its base) or not there. */
static inline struct sim_entry *image_entry(const struct disk_image *image, uint64_t index)
{
    if (index >= image->first && index <= image->last)
        return image->entries[index];
    return index + 1 == image->first ? image->base : NULL;
}

/* Newest configuration at or below index; NULL: unknown. */
struct sim_entry *image_conf(const struct disk_image *image, uint64_t index);

/* Does the chain hold from first to last? */
bool image_is_sound(const struct disk_image *image);
