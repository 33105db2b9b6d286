/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker counts: rows in worker/worker_metrics.def. Each loop has a block of its own. */
#pragma once

#include "conf/metrics.h"
#include "ufs/ufs.h"

/* Requests a worker answers: OP(name), of messages_data.def. */
#define WORKER_OPS(OP)                                                                                                 \
    OP(block_read)                                                                                                     \
    OP(block_open)                                                                                                     \
    OP(block_release)                                                                                                  \
    OP(block_fill)                                                                                                     \
    OP(block_write)                                                                                                    \
    OP(block_sync)                                                                                                     \
    OP(block_memory)                                                                                                   \
    OP(presence)                                                                                                       \
    OP(block_list)                                                                                                     \
    OP(free)

enum worker_op {
#define OP(name) WORKER_OP_##name,
    WORKER_OPS(OP)
#undef OP
        WORKER_OP_COUNT
};
extern const char *const worker_op_names[WORKER_OP_COUNT], *const worker_verb_names[UFS_VERBS];

/* WORKER_OP_COUNT: none of ours. */
enum worker_op worker_op_of(uint16_t type);

#define METRICS_DEF "worker/worker_metrics.def"
struct worker_metrics {
#include "conf/metric_fields.h"
};
#define METRICS_DEF "worker/worker_metrics.def"
struct worker_gauges {
#include "conf/metric_gauges.h"
};
extern const struct metric_set worker_metric_set;
