/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing who votes, in steps that can be repeated. A step says how the configuration shall be, not what to do: it is
 * looked at, then asked for, then looked at again, until it is so and committed, whoever leads by then. So a command that
 * was interrupted, or whose leader died, is simply typed again, and what is so already is no error.
 *
 *      for each step:   look --so, committed--> next step
 *                        ^  \--not so--> ask the leader's journal --taken--> (look)
 *                        |                     |  not now (another change, no leader, still catching up)
 *                        '------ a pause ------'
 */
#pragma once

#include "cli/raft_view.h"

enum raft_step_kind {
    STEP_ADD,      /* node is a member: a learner until promoted */
    STEP_CATCH_UP, /* it has what the leader has, but for what came just now, and was heard since the step began */
    STEP_PROMOTE,
    STEP_DEMOTE,
    STEP_REMOVE,
    STEP_SET_ADDRESS,
    STEP_HAND_OVER, /* it does not lead */
    STEP_LEAD,      /* it leads */
};

struct raft_step {
    enum raft_step_kind kind;
    uint64_t node;
    char address[RAFT_VIEW_ADDRESS], client_address[RAFT_VIEW_ADDRESS];
    uint32_t flags;    /* enum link_admin_flag */
    uint64_t begun_ns; /* when it was begun; 0: only planned */
};

enum { RAFT_STEPS_MAX = 8 };

struct raft_change {
    struct cli *cli;
    struct raft_view *view;
    uint64_t deadline_ns;
    bool dry_run;
    struct raft_step steps[RAFT_STEPS_MAX];
    uint32_t count, done;   /* done: of the steps, those that changed something */
    const char *on_timeout; /* what to type when catching up takes longer; NULL */
};

/* Append a step. */
struct raft_step *raft_change_step(struct raft_change *c, enum raft_step_kind kind, uint64_t node);

/* Connect and look: there must be a leader. Returns CLI_OK, or reports. timeout_ms: --timeout, else this. */
int raft_change_begin(struct raft_change *c, struct cli *cli, uint64_t timeout_ms);
void raft_change_end(struct raft_change *c);

/* Take all steps and print the configuration before and after. Returns the exit status; failures are reported. */
int raft_change_run(struct raft_change *c);

/* The members as a table: of status (wide) or of a configuration (before, after). */
struct out *raft_members_table(const struct raft_view *v, bool status);
