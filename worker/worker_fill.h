/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling: what is not here comes from the under file system, each chunk once however many wait for it, in ranges fetched
 * in parallel, and whoever waits goes on as soon as its chunks are readable. docs/worker.md draws it.
 *
 * Owner: the back loop; worker_fill_want() from any thread.
 */
#pragma once

#include "wire/message.h"
#include "worker/worker_core.h"
#include "worker/worker_master.h"

struct worker_fill;

/* Somebody who waits for chunks, embedded in a request. All zero before its first use. */
struct fill_wait {
    struct rec_block block;
    uint64_t chunks;      /* wanted: bit c stands for chunk c */
    bool ahead;           /* nobody needs them yet: behind those that are needed */
    bool pin;             /* keep them */
    uint64_t deadline_ns; /* of the asker */
    /* Not to be kept: only n bytes of the block from offset, into this memory. */
    uint8_t *into;
    uint32_t offset, n;

    struct loop *home;
    /* Once, on home. result: 0 they were readable; -CV_NO_SPACE they cannot be kept: ask again with into;
     * -CV_STALE_IDENTITY the object is another one; -CV_STALE_EPOCH the layout is out of date; what the under file system
     * or the master answered. */
    void (*done)(struct fill_wait *w);
    int result;
    uint64_t fetched; /* bytes fetched for it */

    /* Private. */
    struct loop_job job;
    struct worker_fill *fill;
    struct list link;
    uint64_t left;
    void *direct;
};

struct worker_fill_options {
    struct worker_core *core;
    struct worker_master *master;
    struct worker_metrics *metrics;
};

/* Errors: -ENOMEM. */
int worker_fill_new(struct loop *loop, const struct worker_fill_options *o, struct worker_fill **ret);

/* What waits ends with -CV_STOPPING; stopped() runs when nothing is under way. Nobody calls worker_fill_want() any more. */
void worker_fill_stop(struct worker_fill *f, void (*stopped)(void *arg), void *arg);
struct worker_fill *worker_fill_free(struct worker_fill *f);

/* Any thread. */
void worker_fill_want(struct worker_fill *f, struct fill_wait *w);

/* The leader says its mounts have this version. */
void worker_fill_mounts_changed(struct worker_fill *f, uint64_t mounts_version);
