/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One core by itself, for cases about what it refuses and what stops it: no driver, no cluster, no checks. It is member
 * 1 of 1, 2, 3; its disk is always done at once.
 */
#pragma once

#include "sim_case.h"

struct lone {
    struct world *w;
    struct raft *raft;
    struct raft_output out; /* of the last step, pointers void */
    struct raft_conf conf;
    struct raft_options options;
    struct raft_restart restart;
    struct raft_run runs[4];
    uint64_t now_ms;
    bool slow_disk; /* writes are not reported */
};

/* Entries 1..last of term 1, the configuration at 1, nothing known to be committed. Change fields, then lone_start(). */
void lone_init(struct lone *l, struct world *w, uint64_t last);

/* raft_new()'s result; a core made before is freed. */
int lone_start(struct lone *l);
void lone_fini(struct lone *l);

int lone_step(struct lone *l, struct raft_input in);

/* A message from a member; its term is given. entries are all of this term and of type BARRIER but as set. */
int lone_message(struct lone *l, uint64_t from, uint64_t term, struct raft_message m);
int lone_append(struct lone *l, uint64_t from, uint64_t term, uint64_t prev, uint64_t prev_term, uint32_t count,
                uint64_t commit);

/* Make it leader of the next term. */
void lone_lead(struct lone *l);
