/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's side of the master that leads: registering with it, heartbeats, and calls that wait until there is one.
 * Which one leads finds rpc_leader.h. Owner: the back loop.
 *
 *               leader found: register; refused: again, after pauses from 50 ms to 1 s
 *               .------.
 *               v      |                  leader lost, heartbeat or call refused, "register again"
 *      SEEKING ─┴──────┴──► KNOWN ──────────────────────────────────────────────────────────────────► SEEKING
 *                           heartbeat every heartbeat_ms; answers bring removals and versions of map and mounts
 */
#pragma once

#include "conf/common_options.h"
#include "rpc/rpc_leader.h"
#include "worker/worker_core.h"

struct worker_master;

struct worker_master_options {
    struct worker_core *core; /* borrowed, like all below */
    const struct cluster_options *cluster;
    struct worker_metrics *metrics;
    const char *advertise, *socket; /* what others are told */
    /* The mounts changed, or a leader was found: both versions as it says. */
    void (*mounts_changed)(void *arg, uint64_t mounts_version);
    void (*registered)(void *arg); /* with a master that leads */
    void (*beaten)(void *arg);     /* a heartbeat was answered */
    void *arg;
};

/* Errors: -ENOMEM; -EINVAL an address. */
int worker_master_new(struct loop *loop, const struct worker_master_options *o, struct worker_master **ret);

/* Begin to look for the leader. */
void worker_master_start(struct worker_master *m);

/* Calls that wait or are in flight end with -CV_STOPPING; then stopped() runs and m may be freed. */
void worker_master_stop(struct worker_master *m, void (*stopped)(void *arg), void *arg);
struct worker_master *worker_master_free(struct worker_master *m);

/* A call to the leader, sent again (and waiting meanwhile) when leaders change. All zero before its first use. */
struct worker_call {
    /* Once, later. As rpc_call.done; result also -CV_STOPPING. The call may be reused or freed in it. */
    void (*done)(struct worker_call *call, int result, const struct rpc_frame *f);
    /* Private. */
    struct rpc_call rpc;
    struct worker_master *master;
    struct list link;
    struct loop_timer timer;
    struct buf body;
    uint64_t deadline_ns;
    uint16_t type;
};
void worker_master_call(struct worker_master *m, struct worker_call *call, uint16_t type, const struct wire_desc *desc,
                        const void *record, uint64_t deadline_ns);
