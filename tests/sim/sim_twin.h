/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twin: the journal's end of the local link (raft/journal_link*.c and the ring, the very object files) beside the
 * model of sim_link.c, in seeds with params.link. Each proposal of the model reaches the core through it; what it tells
 * travels as encoded frames in the model's stream, so that it is delayed and lost as that is, to a master's end that
 * holds it against the committed log (sim_twin_master.c):
 *
 *      every committed entry comes once, in order, others' with their payload, own ones as a watermark
 *      committed only what is committed, durable only what is on the disk; not less than the model tells
 *      proposals are numbered in sequence; what the link refuses, the core refuses; it drops nobody who keeps the rules
 *      what ends a leadership reaches the core when no lease that a living master was told is left
 *      a second attach ends the first connection; what is in flight stays within the credit
 *
 * sim_twin.c stands in for loop, connection and driver (journal_driver.h is declared there over the simulated core).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "raft/journal_link_internal.h"
#include "sim_link.h"
#include "sim_world.h"

struct node;
struct twin;

/* What the master's end knows: of one connection. */
struct twin_master {
    bool attached;
    uint64_t told, sequence, credit_bytes;
    uint32_t credit_entries, unanswered;
    uint64_t role_term, start_index, lease_ns;
    uint32_t admin_answers;
    uint8_t role;
    uint64_t own[LINK_OWN_MAX]; /* indexes of proposals, not told committed: a queue */
    uint32_t own_head, own_count;
};

/* The journal starts (its disk is loaded), stops, installs a snapshot: the link knows none, it rests until a start. */
void twin_start(struct node *n);
void twin_end(struct node *n);

/* The log is to be written: into the ring. */
void twin_on_write(struct node *n, const struct raft_write *write);

/* Time passes. */
void twin_on_tick(struct node *n);

/* After each step, from the model. */
void twin_after_step(struct node *n, const struct raft_output *before, const struct raft_output *out);

/* The model's messages at the journal: attach and applied, a frame of the master's end; the end of the connection. */
void twin_on_attach(struct node *n, const struct link_message *m);
void twin_on_applied(struct node *n, const struct link_message *m);
void twin_on_admin(struct node *n, const char *command, uint64_t node); /* a person asks for it */
void twin_on_frame(struct node *n, const struct link_message *m);
void twin_break(struct node *n);

/* Scripted: the master gives a sign of health; from the first on it counts when it gives none for so long. Does the journal
 * think so? */
void twin_on_health(struct node *n, uint32_t silent_ms);
bool twin_is_silent(const struct node *n);

/* Give a proposal to the core, through the link. Returns the core's error. */
int twin_propose(struct node *n, const struct link_message *p, struct raft_input *in);

/* Scripted: propose one byte each, count times, as far as the credit allows. Nothing of it reaches the core. */
void twin_flood(struct node *n, uint32_t count);

/* All of a world. crashed: leave what ran into an assertion alone. */
void twin_clear(struct world *w, bool crashed);

/* ---- sim_twin_master.c ---- */

/* The master's process takes a frame of the journal, or a message of the model which may be one that ends a role. */
void twin_master_frame(struct node *n, const struct link_message *m);
void twin_master_answers_roles(struct node *n);
struct twin_master *twin_master_of(struct node *n);
