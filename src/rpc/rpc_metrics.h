/* SPDX-License-Identifier: Apache-2.0 */
/* What connections, servers and clients count: rows in rpc/rpc_metrics.def, machinery in conf/metrics.h. A loop thread has
 * one block, given to them in rpc_conn_limits.metrics; without one nothing is counted. */
#pragma once

#include "conf/metrics.h"

#define METRICS_DEF "rpc/rpc_metrics.def"
struct rpc_metrics {
#include "conf/metric_fields.h"
};
extern const struct metric_set rpc_metric_set;

#define RPC_COUNT(metrics, field, n)                                                                                   \
    do {                                                                                                               \
        struct rpc_metrics *rpc_count_ = (metrics);                                                                    \
        if (rpc_count_)                                                                                                \
            counter_add(&rpc_count_->field, (n));                                                                      \
    } while (0)
