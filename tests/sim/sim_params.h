/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed draws before it runs: size of the cluster, pace, limits of the core, which faults and how strong.
 * Each seed takes its own small selection (swarm testing): bugs hide behind faults that mask each other.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum fault_kind { FAULT_EVERY, FAULT_CHANCE, FAULT_SWITCH };

enum fault {
#define SIM_FAULT(name, kind, share, low, high, text) FAULT_##name,
#include "sim_faults.def"
#undef SIM_FAULT
    FAULT_COUNT,
};

struct fault_info {
    const char *name, *text;
    enum fault_kind kind;
    uint32_t share, low, high;
};

extern const struct fault_info fault_infos[FAULT_COUNT];

struct params {
    /* The cluster. */
    uint32_t voters;       /* 1..5, journal-only ones included */
    uint32_t journal_only; /* of the voters, the last ones */
    uint32_t learners;     /* from the start */

    /* Time. */
    uint32_t run_ms; /* with faults */
    uint32_t tick_ms;
    uint32_t heartbeat_ms, election_ms;

    /* The core's limits and the driver's habits. */
    uint32_t append_entries_max, inflight_entries_max, uncommitted_max;
    uint32_t group_max;      /* write units that share a sync */
    uint32_t compact_every;  /* entries; 0: never */
    uint32_t compact_behind; /* entries kept behind what may go */
    uint32_t flush_ms;       /* how often a master's state reaches its disk */
    bool no_lease;
    bool codec;         /* messages travel as bytes */
    bool split;         /* the driver cuts appends in pieces */
    uint32_t hint_poor; /* refusals of appends: 1 the leader goes back one by one, 2 their hints are too low */
    bool told_first;    /* the core learns of a sync before the messages that waited for it leave */
    bool in_order;      /* links keep the order of messages */
    bool space;         /* masters run the namespace core too */
    bool store;         /* the log store runs beside each disk */
    bool link;          /* the journal's end of the link runs beside the model (with store) */
    uint32_t force;     /* permille of run_ms: then all machines but one are lost for good; 0: never */
    bool applied_known; /* a restart tells the core what the application has */

    /* Pace of network, disk, link between journal and master. */
    uint32_t net_us, net_jitter_us;
    uint32_t disk_us, disk_jitter_us;
    uint32_t link_us; /* at most */

    /* Load. */
    uint32_t clients;
    uint32_t think_ms; /* mean */
    uint32_t batch_ops, batch_us;
    uint32_t read_permille, follower_read_permille;
    uint32_t applied_permille, local_permille; /* of changes, in that ack mode; the rest: quorum */

    /* Faults: 0 not in this seed; else the drawn intensity, at least 1. */
    uint32_t faults[FAULT_COUNT];

    bool harm_only; /* checks of rules are off: what remains is what the faults brought out */
};

/* The parameters of a seed. */
void params_draw(uint64_t seed, struct params *ret);

/* A quiet cluster for scripted cases: fixed small delays, no faults, no clients. */
void params_quiet(uint32_t voters, struct params *ret);

/* Change one: "voters=3", "no=crash,drop" (without these faults), "only=crash" (no others), "crash=20".
 * Errors: -EINVAL unknown name or value. */
int params_set(struct params *p, const char *setting);

/* Leases are only promised where clocks keep their bounds and nobody overrides stickiness. */
bool params_leases_hold(const struct params *p);

void params_print(const struct params *p, FILE *out);
