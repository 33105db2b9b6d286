/* SPDX-License-Identifier: Apache-2.0 */
/* What a mount counts: rows in fuse/cvfs_metrics.def, machinery in conf/metrics.h. */
#pragma once

#include "conf/metrics.h"

/* Rows of cvfs_ops.def, in their order, for counting. */
enum cvfs_op_number {
#define CVFS_OP(name, argument, names, run) CVFS_OP_##name,
#include "fuse/cvfs_ops.def"
    CVFS_OP_OTHER,
    CVFS_OP_COUNT
};
extern const char *const cvfs_op_names[CVFS_OP_COUNT];

#define METRICS_DEF "fuse/cvfs_metrics.def"
struct cvfs_metrics {
#include "conf/metric_fields.h"
};
#define METRICS_DEF "fuse/cvfs_metrics.def"
struct cvfs_gauges {
#include "conf/metric_gauges.h"
};
extern const struct metric_set cvfs_metric_set;
