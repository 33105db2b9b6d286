/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of filling (worker_fill.h):
 *
 *      flight   one version of one block of which something is wanted: who waits, which chunks are being fetched
 *      run      a stretch of up to fill_range_bytes of it: one fill of the store, mostly one range request
 *      direct   a range fetched into memory for one asker, not kept
 *
 *      want ──► flight ──origin──► runs queued ──slot──► begin ──► get ──► seal ... seal ──► end
 *               waits     master   needed before         thread   pieces   thread     │     thread
 *                 ▲                ahead                          written             │
 *                 └───────────────────────── chunks are readable ◄────────────────────┘
 *
 * worker_fill.c has flights and the queue, worker_run.c runs, worker_direct.c directs. All on the back loop; what blocks in
 * the store runs on its file threads.
 */
#pragma once

#include "worker/worker_fill.h"
#include "worker/worker_mounts.h"
#include "worker/worker_origin.h"

#define FLIGHT_BUCKETS 4096

struct flight {
    struct flight *hash_next;
    struct worker_fill *fill;
    struct rec_block block;
    struct list waits;     /* fill_wait.link */
    struct list queued;    /* runs not started: run.of_flight */
    uint64_t taken;        /* chunks of runs, queued or active */
    uint32_t active, runs; /* started; all */
    bool asking, known;    /* the origin */
    bool going;            /* go is posted */
    struct loop_job go;
    bool early; /* a get of another object fails before its first byte: chunks may be sealed as they come */
    struct origin_wait origin_wait;
    struct mount_wait mount_wait;
    struct origin origin; /* key is ours */
};

struct run {
    struct list link;      /* of the queue */
    struct list of_flight; /* of flight->queued */
    struct flight *flight;
    uint32_t first, count;
    bool ahead, pin, ended;
    uint64_t deadline_ns;

    struct block_fill *fill; /* NULL: not begun, or ended */
    uint64_t mine;           /* chunks to be fetched */
    uint64_t got, sealed;    /* of them: all bytes written; readable */
    uint64_t ready;          /* being sealed now: a file thread's */
    uint32_t bytes;          /* of the block that the source has to give */
    uint32_t at, until;      /* of the get under way */
    struct mount_wait mount_wait;
    struct ufs_op op;
    bool getting, working;
    struct io_op io;
    int result, seal_result;
};

struct worker_fill {
    struct loop *loop;
    struct worker_fill_options o;
    struct worker_origins *origins;
    struct worker_mounts *mounts;
    struct flight *flights[FLIGHT_BUCKETS];
    uint32_t flight_count;
    struct list needed, ahead; /* runs queued */
    struct list directs;       /* queued */
    uint32_t active, directs_active;
    struct loop_timer tick; /* counters to the metrics */
    bool stopping, mounts_stopped;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* --- worker_fill.c --- */
/* Chunks are readable: who waited for no others goes on. bytes: fetched for them. */
void flight_settle(struct flight *f, uint64_t chunks, uint64_t bytes);
/* They will not be: whoever waits for any of them ends with error. */
void flight_fail(struct flight *f, uint64_t chunks, int error);
/* A run is over and freed: its chunks may be taken again. */
void flight_run_ended(struct flight *f, uint64_t chunks);
/* A slot is free, or something is queued. */
void fill_start_some(struct worker_fill *f);
void fill_wait_end(struct fill_wait *w, int result);
void fill_stopped_when_quiet(struct worker_fill *f);

/* --- worker_run.c --- */
void run_start(struct run *r);

/* --- worker_direct.c --- */
int direct_new(struct worker_fill *f, struct fill_wait *w);
void direct_start(struct worker_fill *f); /* the first of f->directs */
