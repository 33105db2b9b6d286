/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/cvfs_metrics.h"

const char *const cvfs_op_names[CVFS_OP_COUNT] = {
#define CVFS_OP(name, argument, names, run) [CVFS_OP_##name] = #run,
#include "fuse/cvfs_ops.def"
    [CVFS_OP_OTHER] = "other",
};

#define METRICS_DEF    "fuse/cvfs_metrics.def"
#define METRICS_STRUCT struct cvfs_metrics
#define GAUGES_STRUCT  struct cvfs_gauges
static const struct metric rows[] = {
#include "conf/metric_rows.h"
};

const struct metric_set cvfs_metric_set = {
    METRIC_SET("fuse", struct cvfs_metrics, struct cvfs_gauges, rows),
};
