/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults: at random times (EVERY, sim_nemesis.c), and aimed at the moments that are delicate (CHANCE, sim_aimed.c, by
 * the hooks below), with the intensities the seed drew. Every fault ends: its end is scheduled with it, and all of
 * them end when the calm begins.
 */
#pragma once

#include "sim_world.h"

struct node;
struct raft_output;
struct sim_message;

enum { NEMESIS_HEALS = 64 };

/* Links cut until a time. */
struct heal {
    uint16_t pairs[SIM_NODES_MAX]; /* [from]: bits of to */
    bool used;
};

/* What is done at a planned time (EVENT_AIMED). */
enum aimed {
    AIMED_CRASH = 1,  /* crash, back after value us */
    AIMED_ISOLATE,    /* cut off for value us */
    AIMED_WITH_PEER,  /* cut off for value us, but for one other node */
    AIMED_CAMPAIGN,   /* force an election, or ask for one where leases must hold */
    AIMED_CLOCK_GOES, /* ends of faults */
    AIMED_CAN_LEAD,
    AIMED_LOG_ROOM,
    AIMED_MEMBERS,  /* the next step of replacing a lost machine */
    AIMED_FORCE,    /* all machines but one are lost */
    AIMED_CHANGE,   /* this one changes the members, if it leads */
    AIMED_DUEL,     /* the next turn */
    AIMED_DUEL_CUT, /* this rival leads: cut it off */
    AIMED_DUEL_CAMPAIGN,
    AIMED_DUEL_CHANGE,
};

struct duel {
    struct node *rivals[2];
    uint32_t turns; /* to come; 0: none */
    uint32_t up;    /* whose turn is next */
    bool begun;
    uint64_t number; /* of what is planned next: other plans are void */
    /* Each demotes one of the two bystanders as soon as it leads, and keeps the other, or nobody: the two changes
     * know nothing of each other. NULL: they change nothing. */
    struct node *demotes[2], *keeps[2];
    uint16_t cuts[8];
    uint32_t cut_count;
};

struct nemesis {
    struct heal heals[NEMESIS_HEALS];
    struct node *lost;        /* wiped, and perhaps still a member */
    struct node *replacement; /* for it */
    struct duel duel;
    struct node *stale;       /* led when another was elected: clients may ask it */
    struct node *slow_leader; /* its disk is behind */
    bool over;
};

struct nemesis *nemesis_new(struct world *w);

/* Plan the first fault of each kind. */
void nemesis_start(struct world *w);
void nemesis_on_fault(struct world *w, enum fault fault);
void nemesis_on_heal(struct world *w, uint32_t heal);
void nemesis_on_aimed(struct node *n, enum aimed what, uint64_t value);

/* No more faults: everything is mended and started. */
void nemesis_end(struct world *w);

/* ---- Hooks ---- */

void nemesis_on_role(struct node *n, bool became_leader);
void nemesis_on_release(struct node *n, const struct sim_message *m);
void nemesis_on_write(struct node *n);
void nemesis_on_truncate(struct node *n);
void nemesis_on_conf(struct node *n);
void nemesis_on_propose(struct node *n);
void nemesis_on_snapshot(struct node *n, uint32_t source);

/* A message is about to travel for us (UINT64_MAX: it is lost); returns for how long it shall. */
uint64_t nemesis_on_send(struct node *from, const struct sim_message *m, uint64_t us);

/* One node loses the leader; the others restart just before it campaigns. */
void nemesis_hit_lease(struct world *w);

/* A leader with a slow disk is cut off, comes back, and loses what it never wrote. */
void nemesis_hit_slow_leader(struct world *w);

/* ---- Tools, for scripted cases too ---- */

/* Cut all links from nodes of mask a to nodes of mask b (and back) for a while; 0: until nemesis_end(). Returns what
 * nemesis_on_heal() takes, < 0: too many at once. */
int nemesis_cut(struct world *w, uint32_t a, uint32_t b, bool both, uint64_t for_us);
void nemesis_plan(struct node *n, enum aimed what, uint64_t after_us, uint64_t value);

/* Bits of all machines that are not dead. */
uint32_t nemesis_alive(const struct world *w);

/* ---- sim_duel.c ---- */

void duel_start(struct world *w);
void duel_turn(struct world *w, uint64_t number);
void duel_campaign(struct node *n, uint64_t number);
void duel_on_leader(struct node *n);
void duel_cut_off(struct node *n);
void duel_change(struct node *n, uint64_t side);

/* ---- sim_members.c ---- */

/* One change; returns the core's error. A leader that changes itself asks its master first. */
int members_do(struct node *leader, enum raft_conf_op op, const struct node *who);

/* This node changes something, if it leads. */
void members_change_at(struct node *leader);

/* A step of changing the members at random, or of replacing a machine that was lost. */
void members_change(struct world *w);

/* Destroy a machine's disk, if the cluster can stand it now. */
void members_lose(struct world *w);

/* All machines but one are lost for good; the one that is left is made a cluster of its own (raft.md 8.3), and grows again
 * by new machines. Returns it; NULL: none has all that was committed, nothing happened. */
struct node *members_force(struct world *w);
