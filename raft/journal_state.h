/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journal state: what the log database says about itself in its small rows, and the check of its entries against
 * them. Loaded once at start; the store keeps it up to date while it writes.
 */
#pragma once

#include <stdbool.h>

#include "raft/journal_db.h"
#include "raft/raft.h"

struct journal_state {
    struct uuid cluster;
    uint64_t node;
    uint32_t incarnation;
    uint64_t created_ns; /* wall clock */

    uint64_t term, vote;
    uint64_t commit;                       /* hint */
    uint64_t first, base_term, base_chain; /* base: entry first - 1 */
    uint64_t last, last_term, last_chain;  /* last == first - 1: no entries; then last_* are base_* */

    struct raft_run *runs; /* of entries first..last, ascending; the first begins at or before first */
    uint32_t run_count, run_room;
    uint64_t *confs; /* indexes of the configurations kept, ascending */
    uint32_t conf_count, conf_room;

    uint64_t snap_index; /* 0: the state was never installed from a snapshot */
    char snap_directory[256];

    uint32_t forced_incarnation; /* 0: never by force-new-cluster */
    uint64_t forced_index;
};

/* Read all rows. why gets the cause. Errors: -CV_NOT_FORMATTED no ident; -CV_LOG_DAMAGED a row is missing, damaged or
 * contradicts another; -CV_FORMAT_TOO_NEW; -ENOMEM. */
int journal_state_load(const struct journal_db *d, struct buf *why, struct journal_state *ret);
void journal_state_fini(struct journal_state *s);

/* Only whose log it is: for a log that cannot be loaded. Errors: as above. */
int journal_state_load_ident(const struct journal_db *d, struct buf *why, struct journal_state *ret);

/* The run an index belongs to gives its term; 0 when it is not in first - 1 .. last. */
uint64_t journal_state_term(const struct journal_state *s, uint64_t index);

/* Keep the tables in step with the log. Errors: -ENOMEM. */
int journal_state_add_run(struct journal_state *s, uint64_t first, uint64_t term);
int journal_state_add_conf(struct journal_state *s, uint64_t index);

/* ---- check ---- */

/* What a check saw; problem is called for each thing wrong. */
struct journal_check {
    void (*problem)(void *arg, const char *text); /* may be NULL */
    void *arg;
    uint32_t problems_max; /* stop after so many; 0: never */

    uint64_t entries, bytes, operations; /* looked at; bytes of payload */
    uint64_t by_type[RAFT_BARRIER + 1];
    uint32_t problems;
    uint64_t first_bad; /* lowest index with a problem; 0 none */
};

/* Hold entries from..last against their checksums, the chain, each other and the runs. from: at least s->first.
 * Errors: -CV_LOG_DAMAGED there was a problem; -CV_FORMAT_TOO_NEW. */
int journal_check_entries(const struct journal_db *d, const struct journal_state *s, uint64_t from,
                          struct journal_check *check);

/* Where to begin so that the last n bytes of entries are checked. */
uint64_t journal_check_tail_from(const struct journal_db *d, const struct journal_state *s, uint64_t bytes);
