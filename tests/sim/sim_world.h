/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of one simulated run: virtual time, the queue of events, memory, what went wrong. One seed, one world, one
 * thread; everything that happens is a function of the seed and the parameters, so a failure is replayed by running
 * the seed again.
 *
 *   clients --requests--> master --link--> node (driver + the true core) --messages--> other nodes
 *      |                    |                  |
 *      |                  state             disk: queue of atomic write units, what a crash leaves
 *      |                    |                  |
 *      +------- checks: after every event, against what must hold whatever happens ---------+
 *                                              |
 *                          nemesis: faults, at random and aimed
 *
 * Nothing here is freed one by one: memory comes from an arena that is emptied with the world. Time is in us.
 */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/random.h"
#include "raft/raft.h"
#include "sim_params.h"

enum {
    SIM_NODES_MAX = 16,  /* machines a run may ever see; a wiped one comes back as a new one */
    SIM_CLIENTS_MAX = 6, /* each with one request under way */
    SIM_KEYS = 6,
    SIM_MS = 1000, /* us */
};

/* ---- Memory -------------------------------------------------------------------------------------------------------- */

struct sim_chunk;

struct sim_arena {
    struct sim_chunk *first, *current;
    size_t used; /* of current */
};

/* Zeroed, aligned to 8; lives until the world is reset. Memory that ends ends the process. */
void *sim_alloc(struct sim_arena *a, size_t n);

/* Objects of equal size that come and go: a list of free ones over the arena. */
struct recycler {
    void *free; /* linked through the first word */
};

void *recycler_take(struct recycler *r, struct sim_arena *a, size_t n);
void recycler_give(struct recycler *r, void *p);

/* ---- Events -------------------------------------------------------------------------------------------------------- */

enum event_type {
    EVENT_TICK,       /* node: the core's clock ticks */
    EVENT_MESSAGE,    /* a message arrives */
    EVENT_SYNCED,     /* node: its disk finished what it was doing */
    EVENT_WRITTEN,    /* node: told so (later, if it was paused) */
    EVENT_RESTART,    /* node: start what is down */
    EVENT_TO_MASTER,  /* link: journal to master */
    EVENT_TO_JOURNAL, /* link: master to journal */
    EVENT_MASTER,     /* master: a timer */
    EVENT_REQUEST,    /* a client's request arrives at a master */
    EVENT_ANSWER,     /* an answer arrives at a client */
    EVENT_CLIENT,     /* client: a timer */
    EVENT_FETCH,      /* node: next piece of a snapshot */
    EVENT_CHECKPOINT, /* node: a checkpoint for a peer is ready */
    EVENT_FAULT,      /* nemesis: the next fault of a kind */
    EVENT_HEAL,       /* nemesis: the end of one */
    EVENT_AIMED,      /* nemesis: an action it planned */
    EVENT_RESUME,     /* node: its machine goes on after a pause */
    EVENT_CALL,       /* scripted cases */
    EVENT_COUNT,
};

/* The key is time << 32 | order of scheduling: the same seed always pops in the same order. */
struct event {
    uint64_t key;
    void *p;
    uint64_t value;
    uint32_t life; /* of the process it is meant for */
    uint16_t other;
    uint8_t type; /* enum event_type */
    uint8_t node;
};

/* ---- The world ------------------------------------------------------------------------------------------------------ */

struct node;
struct check;
struct nemesis;
struct network;
struct client;

struct failure {
    char check[32]; /* which one: "log_matching" */
    char text[512];
    uint64_t at_us;
    bool rule; /* the check states a rule of the algorithm; false: harm was done */
};

struct counters {
    uint64_t events, steps, messages, delivered, writes, crashes, elections, commits, requests, answers, reads;
    uint64_t lost_acks; /* of mode "applied", gone with a change of leadership */
    uint64_t snapshots, compactions, conf_changes, transfers, truncations;
};

struct world {
    uint64_t seed;
    struct params params;
    uint64_t now_us;
    uint32_t order;
    struct event *heap;
    uint32_t heap_count, heap_room;
    struct sim_arena arena;

    /* Streams of randomness: kept apart so that leaving out one kind of fault disturbs the others less. */
    struct prng net_random, disk_random, node_random, client_random, nemesis_random;

    struct node *nodes[SIM_NODES_MAX];      /* all that ever were; the slot is the index */
    struct node *nodes_kept[SIM_NODES_MAX]; /* their memory, from run to run */
    uint32_t node_count;
    struct network *net;
    struct check *check;
    struct nemesis *nemesis;
    struct client *clients[SIM_CLIENTS_MAX];
    uint32_t client_count;

    bool scripted; /* nothing happens but what the script does */
    bool calm;     /* the last part of a run: no faults, no new requests */
    struct counters counters;

    struct failure failure;
    bool failed;
    sigjmp_buf escape; /* world_fail() goes here */

    char store_dir[64]; /* of the log stores' files; empty: none yet */

    FILE *trace; /* NULL: none */
};

/* Reusable from seed to seed; one per thread. */
struct world *world_new(void);
struct world *world_free(struct world *w);
DEFINE_CLEANUP(struct world *, world_free)

/* Empty it and set it up for a run: members formatted and started, clients, faults planned (not if scripted). */
void world_reset(struct world *w, uint64_t seed, const struct params *params, bool scripted);

/* A failed assertion (in builds with mutants also a bad pointer) is a failure of the run like any other, with its seed.
 * Call once. */
void world_catch_signals(void);

/* Run the seed to its end: faults, then calm and the liveness checks. Returns false when a check failed (w->failure). */
bool world_run(struct world *w);

/* Run something on it until a check fails: what world_run does with a seed, and scripted cases with theirs. */
bool world_protect(struct world *w, void (*run)(struct world *));

/* Handle events until this time, or until none is left. */
void world_run_until(struct world *w, uint64_t until_us);

/* Schedule; the caller fills in the rest of the event. */
struct event *world_schedule(struct world *w, uint64_t at_us, enum event_type type);

/* A check found something: record it and leave the run. */
_Noreturn void world_fail(struct world *w, bool rule, const char *check, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Harm: what users would notice, or what inevitably leads there. Rule: a rule of the algorithm was broken, even if
 * nothing came of it this time. The gate counts harm, so that it measures what the faults bring out. */
#define fail_harm(w, check, ...) world_fail(w, false, check, __VA_ARGS__)
#define fail_rule(w, check, ...)                                                                                       \
    do {                                                                                                               \
        if (!(w)->params.harm_only)                                                                                    \
            world_fail(w, true, check, __VA_ARGS__);                                                                   \
    } while (0)

void world_trace(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line of the story, in replays only. */
#define trace(w, ...)                                                                                                  \
    do {                                                                                                               \
        if (__builtin_expect((w)->trace != NULL, 0))                                                                   \
            world_trace(w, __VA_ARGS__);                                                                               \
    } while (0)

/* ---- Chance ---------------------------------------------------------------------------------------------------------- */

static inline bool chance(struct prng *p, uint32_t permille)
{
    return permille && prng_below(p, 1000) < permille;
}

/* Uniform in [low, high]. */
static inline uint32_t between(struct prng *p, uint32_t low, uint32_t high)
{
    return high <= low ? low : low + prng_below(p, high - low + 1);
}
