/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/rpc_metrics.h"

struct rpc_gauges {
    int none;
};

#define METRICS_DEF    "rpc/rpc_metrics.def"
#define METRICS_STRUCT struct rpc_metrics
#define GAUGES_STRUCT  struct rpc_gauges
static const struct metric rows[] = {
#include "conf/metric_rows.h"
};

const struct metric_set rpc_metric_set = {METRIC_SET("rpc", struct rpc_metrics, struct rpc_gauges, rows)};
