/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repairs of a stopped journal's directory, when the usual way (another voter has it all) is gone. Each is one atomic
 * write, or a course of renames that can be begun again, and holds the directory's lock. They ask nobody: who calls has
 * had a person confirm what is lost (raft/journal_tool.h).
 */
#pragma once

#include "raft/journal_store.h"

/* ---- which of several logs is the best, and where they part ---- */

/* One log as compare sees it. */
struct journal_copy {
    const struct journal_store *store; /* open, read only */
    uint64_t same_to; /* equal to the best log's up to here; 0: they have nothing to hold against each other */
    bool compared;    /* same_to is known: the two overlap */
    bool diverged;    /* they differ at or below what both know as committed: one of them is wrong */
};

/* Is a further than b: later incarnation, then later term of its last entry, then higher last index (Ongaro 3.6.1)? */
bool journal_state_is_further(const struct journal_state *a, const struct journal_state *b);

/* Compare n logs; *ret_best: which is the furthest. Errors: -CV_LOG_DAMAGED an entry cannot be read; -ENOMEM. */
int journal_compare(struct journal_copy *copies, uint32_t n, uint32_t *ret_best);

/* ---- a new incarnation: quorum is gone for good ---- */

enum { JOURNAL_FORCE_TERMS = 1000 }; /* terms that old members may have used meanwhile */

/* The configuration in which this node is the only voter: itself as the newest configuration knows it, a full voter.
 * Errors: -ENOENT it is in no configuration (never added, or removed); -EINVAL it is journal-only: it has no state. */
int journal_alone_conf(const struct journal_store *s, struct raft_conf *ret);

/* In one synced write: incarnation + 1, term + JOURNAL_FORCE_TERMS without a vote, and conf as the next entry. Everything
 * in the log counts as committed from then on. Errors: fatal, see journal_store_add(). */
int journal_force(struct journal_store *s, const struct raft_conf *conf);

/* ---- throw the log away ---- */

/* Make dir the log of a new member of cluster that waits to be added, under a new id, whatever is in it now (damaged,
 * half thrown away by an earlier attempt, or nothing but the directory). cluster none, incarnation 0: those the old log
 * names.
 * *ret_node: the new id; *ret_old: the one that is gone, 0 if nobody can tell.
 * Errors: -CV_LOCKED; -CV_NOT_FORMATTED there never was a log; -CV_LOG_DAMAGED the old log cannot be read and no cluster
 * is given; errno. */
int journal_rejoin(const char *dir, struct uuid cluster, uint32_t incarnation, struct buf *why,
                   struct uuid *ret_cluster, uint64_t *ret_old, uint64_t *ret_node);

/* ---- a damaged end ---- */

/* May the log be cut before its first bad entry? 0, and *ret_from: where. Errors: -ENODATA nothing is wrong; -EPERM the
 * damage reaches what is known committed, or what durable.mark says was on disk: why says which; -CV_FORMAT_TOO_NEW. */
int journal_tail_check(const struct journal_store *s, struct journal_check *check, struct buf *why, uint64_t *ret_from);

/* Cut it. The store is open for writing (with no_check). Errors: fatal. */
int journal_tail_cut(struct journal_store *s, uint64_t from);
