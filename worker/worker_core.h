/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of one worker share. Set up before any thread runs; fields are read-only but for the atomic ones. */
#pragma once

#include <stdint.h>

#include "base/uuid.h"
#include "worker/block_store.h"
#include "worker/worker_dir.h"
#include "worker/worker_metrics.h"
#include "worker/worker_options.h"

struct worker_core {
    const struct worker_options *options;
    struct metrics *metrics; /* may be NULL */
    struct uuid cluster;
    uint64_t worker;
    struct worker_dir dir;
    struct block_store *store;      /* any thread */
    struct worker_exports *exports; /* any thread */
    struct worker_fill *fill;       /* worker_fill_want(): any thread */
    _Atomic uint64_t served_bytes;  /* any thread */
    _Atomic uint64_t written_bytes; /* any thread */
    _Atomic uint64_t filled_bytes;  /* any thread */
    _Atomic uint64_t dirty_bytes;   /* written and nowhere else, by the keeper's last pass; any thread */
    _Atomic uint32_t works;         /* requests on file threads now; any thread */
    _Atomic uint32_t registered;    /* 1: known to the master that leads; any thread */
    _Atomic uint32_t incarnation;   /* of the master last registered with; 0: none yet; any thread */
    uint32_t checked;               /* incarnation in which all that is here was asked about; back loop */
};

/* Count in a block of metrics that may be missing. */
#define WORKER_COUNT(metrics, field, n)                                                                                \
    do {                                                                                                               \
        struct worker_metrics *worker_count_ = (metrics);                                                              \
        if (worker_count_)                                                                                             \
            counter_add(&worker_count_->field, (n));                                                                   \
    } while (0)
