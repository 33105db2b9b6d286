/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_metrics.h"

#define METRICS_DEF    "raft/journal_metrics.def"
#define METRICS_STRUCT struct journal_metrics
#define GAUGES_STRUCT  struct journal_gauges
static const struct metric rows[] = {
#include "conf/metric_rows.h"
};
const struct metric_set journal_metric_set = {
    METRIC_SET("journal", struct journal_metrics, struct journal_gauges, rows)};
