/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine: a journal process (the true core and the driver around it), a master process unless it is journal-only,
 * one disk, one clock. The driver keeps the rules at the top of raft.h and nothing more, in each of the ways they
 * allow (params.told_first, split, codec, group_max).
 *
 * Machines are never reused: one whose disk was lost stays down for ever, its place is taken by a new one.
 */
#pragma once

#include "sim_disk.h"
#include "sim_link.h"
#include "sim_master.h"
#include "sim_world.h"

struct sim_message;

enum stop {
    STOP_JOURNAL = 1,
    STOP_MASTER = 2,
    STOP_MACHINE = 3,
};

/* A snapshot being fetched by this node. */
struct fetch {
    uint64_t index, term; /* 0: none */
    bool active, slow;
    uint32_t source; /* slot */
    uint32_t pieces; /* still to come */
    uint32_t tries;  /* failed ones in a row */
    uint32_t number; /* of the fetch: events of an older one are void */
};

/* A checkpoint a node can give away: its state, and what the log says about it. Survives restarts. */
struct checkpoint {
    const struct state *state; /* NULL: none */
    struct sim_entry *entry, *conf;
};

enum { NODE_CHECKPOINTS = 4 };

struct node {
    struct world *world;
    uint32_t slot;
    uint64_t id;
    bool journal_only;
    bool dead;      /* wiped or damaged: never again */
    bool keeps_log; /* this driver never compacts */

    /* Journal process. */
    bool up;
    uint32_t life; /* grows when it starts and when it stops */
    struct raft *raft;
    struct raft_output out; /* of the last step: its watermarks */
    uint64_t written_seq;   /* told by the disk */
    struct sim_message *held, **held_end;
    uint64_t led_us;                  /* when it became leader */
    uint64_t heard_us[SIM_NODES_MAX]; /* when a message of that node last came */
    uint64_t paused_until_us;         /* the whole machine stands still */
    struct event *deferred;           /* what happens to it meanwhile, in order */
    uint32_t deferred_count, deferred_room;
    uint32_t restarts_pending;

    struct disk disk;
    struct store *store;            /* the log store beside it; NULL: not in this run */
    struct twin *twin, *twin_dying; /* the true link beside the model; one that waits for its callers */
    struct link_state link;
    struct master master;
    struct fetch fetch;
    struct checkpoint checkpoints[NODE_CHECKPOINTS];
    uint32_t checkpoint_next;
    struct sim_entry *install_conf; /* what the core's write.install shall put on disk */
    const struct state *install_state;

    /* Clock: local us = clock_local + (now - clock_since) * clock_rate / 1000. */
    uint64_t clock_local_us, clock_since_us;
    uint32_t clock_rate;
    bool no_ticks; /* scripted */
};

/* A new machine. join: an empty log that waits to be added; else the log begins with the founding configuration. */
struct node *node_new(struct world *w, bool journal_only);
void node_format(struct node *n, const struct raft_conf *conf);

/* What an offline tool does to a stopped journal's log: a configuration at its end, of a new term. */
void node_append_offline(struct node *n, uint64_t term, const struct raft_conf *conf);

struct node *node_by_id(struct world *w, uint64_t id);

/* Start the processes that are down (enum stop). A log that is damaged ends the machine. */
void node_start(struct node *n, enum stop which);

/* Stop processes. keep: how many queued disk writes survive, < 0: the world decides. */
void node_stop(struct node *n, enum stop which, int keep);

/* Start what is down after this time. */
void node_restart_later(struct node *n, uint64_t after_us);

uint64_t node_now_ms(const struct node *n);
void node_set_clock(struct node *n, uint64_t jump_us, uint32_t rate);

/* Give the core an input and carry out what it asks for; returns raft_step's error. */
int node_step(struct node *n, struct raft_input *in);

void node_receive(struct node *n, const struct raft_message *m);
void node_on_tick(struct node *n);
void node_on_written(struct node *n, uint64_t seq, bool installed);

static inline bool node_is_paused(const struct node *n)
{
    return n->world->now_us < n->paused_until_us;
}

static inline bool node_leads(const struct node *n)
{
    return n->up && n->out.role == RAFT_LEADER;
}

/* The leader of the highest term, or NULL. */
struct node *world_leader(struct world *w);

/* One line about a message; static storage. */
const char *message_text(const struct raft_message *m);

/* ---- sim_snapshot.c ---- */

void snapshot_on_want(struct node *n, const struct raft_snapshot_want *want);
void snapshot_on_checkpoint(struct node *n, uint64_t peer, uint64_t source_slot);
void snapshot_on_offer(struct node *n, const struct raft_snapshot_offer *offer);
void snapshot_on_fetch(struct node *n, uint32_t number);
