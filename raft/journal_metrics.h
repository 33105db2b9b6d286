/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of cv-journal: rows in raft/journal_metrics.def. Blocks: one for the loop, one for the log writer. */
#pragma once

#include "conf/metrics.h"

#define METRICS_DEF "raft/journal_metrics.def"
struct journal_metrics {
#include "conf/metric_fields.h"
};
#define METRICS_DEF "raft/journal_metrics.def"
struct journal_gauges {
#include "conf/metric_gauges.h"
};
extern const struct metric_set journal_metric_set;
