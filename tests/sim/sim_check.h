/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold, whatever happens (raft.md 9.2; the numbers below are its). The checker sees everything: all logs,
 * disks and messages of a run, and remembers what was ever promised. It is told of each event that could break a
 * promise and looks only at what that event changed.
 *
 *   every entry that was ever in a log, by index and term    -> 4 log matching
 *   who led which term, who voted for whom                   -> 1, 2
 *   the committed entries, folded into the expected state    -> 5, 6, 7, 8, 10, 11, 13, 15, 16, 18, 20, 21
 *   what clients were told                                   -> 12, 17, 19
 */
#pragma once

#include "sim_master.h"
#include "sim_state.h"
#include "sim_world.h"

struct node;
struct sim_entry;
struct sim_message;

struct check_vote {
    uint64_t term, candidate;
};

enum { CHECK_VOTES = 64, CHECK_RUNS = 4096 };

/* Of one node, across its restarts. */
struct check_node {
    struct check_vote votes[CHECK_VOTES]; /* released, a ring */
    uint32_t vote_count;
    uint32_t life; /* the fields below are of this life */
    uint64_t term, commit;
};

struct check_index {
    struct sim_entry *entries;   /* every entry that was ever made here, a list */
    struct sim_entry *committed; /* the one that is committed */
    uint64_t committer;          /* term of the leader under which it was found so */
    uint64_t digest;             /* of the state after it */
    uint64_t space_digest, space_dump;
};

struct check {
    struct check_index *at; /* by index; what there was and is */
    uint64_t room, highest; /* highest index any log ever had */
    uint64_t commit;        /* entries 1..commit are committed */
    uint64_t newest_committer;
    struct state state;     /* fold of all committed entries */
    struct sim_entry *conf; /* newest committed configuration */
    uint64_t forced;        /* a configuration an offline tool made: it may differ by more than one voter */

    uint64_t *leaders; /* by term: the node's id */
    uint64_t leaders_room, highest_term;

    struct check_node nodes[SIM_NODES_MAX];

    /* Clients. */
    uint64_t version_index[SIM_KEYS]; /* index of the newest version that some finished request of mode quorum saw */
    struct version *versions;         /* all versions ever written, by number */
    uint64_t version_count, version_room;
    uint64_t *ids; /* of each id: index of the entry that holds it; 1: handed out, not committed */
    uint64_t id_count, id_room;

    /* The namespace (sim_space_check.c). */
    struct space *space; /* fold of all committed entries; NULL: none was */
    uint64_t space_sessions[SIM_CLIENTS_MAX], space_since[SIM_CLIENTS_MAX]; /* and the entry that opened it */
    uint64_t space_count;                                                   /* sequences of requests that must fail */
    uint8_t *space_ids;                                                     /* a bit each: given to something */
    uint64_t space_id_room, space_id_end;

    /* Recycled memory of the run, here because everybody sees the checker. */
    struct recycler small_units, big_units;
    uint8_t wire[1 << 20];
    struct raft_run runs[CHECK_RUNS];
};

/* A write some client asked for. */
struct version {
    uint64_t index;    /* committed there; 0: not (yet) */
    bool acknowledged; /* somebody was told that it was written */
    uint8_t mode;      /* under which; by this node, in this connection of its link, in this term */
    uint8_t slot;
    uint32_t link;
    uint64_t term;
    uint32_t disks; /* which nodes ever had it on disk */
    uint32_t cut;   /* which nodes ever truncated it, or replaced it by a snapshot */
};

struct check *check_new(void);
struct check *check_free(struct check *c);
void check_reset(struct world *w);

uint64_t check_chain(uint64_t before, uint64_t term, uint8_t type, const uint8_t *data, uint32_t size);

/* The shared entry for what a node appends behind before (NULL: nothing). Fails when the same index and term was ever
 * something else (4). maker: the entry may be new, made by this leader. */
struct sim_entry *check_entry(struct node *n, struct sim_entry *before, uint64_t index, const struct raft_entry *e,
                              bool maker);

/* An entry that is known to exist. */
struct sim_entry *check_find(struct world *w, uint64_t index, uint64_t term);

/* Before a write is queued: truncation (7), configurations (10), terms of proposals (21). */
void check_write(struct node *n, const struct raft_write *write);

/* After a step: roles (1, 5), watermarks (3, 6, 8), leases (11). */
void check_step(struct node *n, const struct raft_output *out);

/* After a tick: who leads must hear a majority, and take no proposals if it is journal-only. */
void check_tick(struct node *n);

/* A message leaves (2, 9). */
void check_release(struct node *n, const struct sim_message *m);

/* The log is cut at the front (14). */
void check_compact(struct node *n, uint64_t first);

/* An entry is committed: the expected state takes it in (12, 20, 21). */
void check_fold(struct world *w, const struct sim_entry *e);

/* A master's committed state moved to s->applied (13, 15); its speculative view is at digest (16). */
void check_applied(struct node *n, const struct state *s);
void check_flushed(struct node *n, const struct state *s);

/* A batch was rolled back: digest is the view's after, expected that before it was executed (16). */
void check_undone(struct node *n, uint64_t digest, uint64_t expected);

/* A side effect of an operation is released (19). */
void check_effect(struct node *n, const struct op *op);

void check_id(struct node *n, uint64_t id);

/* An entry is on a node's disk. */
void check_written(struct node *n, const struct sim_entry *e);

/* An answer leaves: what it says must be as safe as its mode promises (17). */
void check_promise(struct node *n, const struct answer *a);

/* Clients: a version is asked for; the floor a request begins above; an answer (12, 17). */
uint64_t check_version_new(struct world *w, bool gone);
uint64_t check_floor(struct world *w, uint32_t key);

struct client;
void check_answer(struct world *w, const struct client *c, const struct answer *a);

/* Quiet at the end: everything that should have happened has. NULL, or what is missing. */
const char *check_settled(struct world *w);

/* A number that grows as long as something still happens: entries reach disks and states, requests are answered. */
uint64_t check_progress(struct world *w);

/* A node's log is cut, or replaced by a snapshot, from an index on: what of it was never committed is gone there (17). */
void check_cut(struct node *n, uint64_t from);

/* The end: count what was answered under "applied" or "local" and is not there. It may be missing only if who answered
 * stopped leading afterwards, under "local" only if its log lost against another (17). */
void check_losses(struct world *w);
