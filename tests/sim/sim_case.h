/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scripted cases: one per known bug, by its name, on a quiet cluster where nothing happens but what the script does:
 * small fixed delays, no faults, no clients, and no ticks, so that nobody campaigns unasked. All checks are on. A case
 * that returns has passed; with its mutant switched on it must fail.
 *
 *     CASE(commit_old_term, 5, "figure 3.7 of the dissertation ...")
 *     {
 *         elect(w, 0);
 *         ...
 *     }
 */
#pragma once

#include "sim_check.h"
#include "sim_clients.h"
#include "sim_master.h"
#include "sim_nemesis.h"
#include "sim_net.h"
#include "sim_node.h"
#include "sim_world.h"

struct sim_case {
    const char *name, *text;
    void (*set)(struct params *p); /* before the cluster is founded; may be NULL */
    void (*run)(struct world *w);
    uint32_t voters;
    struct sim_case *next;
};

extern struct sim_case *sim_cases;

#define CASE_WITH(case_name, voters_, set_, text_)                                                                     \
    static void case_##case_name(struct world *w);                                                                     \
    static struct sim_case case_of_##case_name = {#case_name, text_, set_, case_##case_name, voters_, NULL};           \
    static void __attribute__((constructor)) register_##case_name(void)                                                \
    {                                                                                                                  \
        case_of_##case_name.next = sim_cases;                                                                          \
        sim_cases = &case_of_##case_name;                                                                              \
    }                                                                                                                  \
    static void case_##case_name(struct world *w)

#define CASE(case_name, voters_, text_) CASE_WITH(case_name, voters_, NULL, text_)

/* Run one; returns whether it passed (w->failure). trace as in struct world. */
bool case_run(struct world *w, const struct sim_case *c, FILE *trace);
const struct sim_case *case_find(const char *name);

/* ---- What scripts say ---- */

#define expect(w, condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail_harm(w, "case", __VA_ARGS__);                                                                         \
    } while (0)

void run_ms(struct world *w, uint64_t ms);

/* Time passes for this node, with its ticks. */
void ticks(struct world *w, uint32_t slot, bool on);
void all_ticks(struct world *w, bool on);

/* One tick now. */
void tick(struct world *w, uint32_t slot);

/* Campaign at once, overriding promises; politely: with pre-votes, when its own promise is over. elect waits until it
 * leads, and tries again in the next term if need be. */
void campaign(struct world *w, uint32_t slot);
void campaign_politely(struct world *w, uint32_t slot);
void elect(struct world *w, uint32_t slot);

/* Append an entry that means nothing at the leader; returns its index. */
uint64_t propose(struct world *w, uint32_t slot);

/* Cut nodes of mask a from nodes of mask b, for good. heal() mends everything. */
void cut(struct world *w, uint32_t a, uint32_t b);
void heal(struct world *w);

#define N(slot) (1u << (slot))
#define ALL     0xffffu

/* Stop a machine keeping that many queued writes (< 0: all); start it again. */
void stop(struct world *w, uint32_t slot, int keep);
void start(struct world *w, uint32_t slot);

/* The disk finishes nothing until released. */
void hold_disk(struct world *w, uint32_t slot);
void release_disk(struct world *w, uint32_t slot);

/* Let the node receive a message now, as if somebody had sent it long ago. from, to, term are filled in. */
void inject(struct world *w, uint32_t from, uint32_t to, uint64_t term, struct raft_message m);

/* An APPEND with count entries from prev_index on, as they are in the sender's log. */
void inject_append(struct world *w, uint32_t from, uint32_t to, uint64_t prev_index, uint32_t count, uint64_t commit);

/* Messages of this type from one node to another are lost, until type 0. */
void lose(struct world *w, uint32_t from, uint32_t to, uint8_t type);

/* Change the membership at a node that leads; returns raft_step's error. */
int change(struct world *w, uint32_t leader, enum raft_conf_op op, uint32_t slot);

/* A new machine that waits to be added; returns its slot. */
uint32_t new_machine(struct world *w, bool journal_only);

/* Ask as client number (of params.clients) at this node. */
void ask(struct world *w, uint32_t client, uint32_t slot, struct request r);

static inline uint64_t last_of(struct world *w, uint32_t slot)
{
    return w->nodes[slot]->disk.live.last;
}

static inline uint64_t commit_of(struct world *w, uint32_t slot)
{
    return w->nodes[slot]->out.commit;
}

static inline uint64_t term_of(struct world *w, uint32_t slot)
{
    return w->nodes[slot]->out.term;
}

static inline bool leads(struct world *w, uint32_t slot)
{
    return node_leads(w->nodes[slot]);
}
