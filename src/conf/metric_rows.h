/* SPDX-License-Identifier: Apache-2.0 */
/* Expands METRICS_DEF into the rows of struct metric (see conf/metrics.h). No include guard: once a set. */
// clang-format off
#define METRIC_ROW(name_, kind_, struct_, help_, ...)                                                                  \
    {.name = #name_, .kind = kind_, .offset = offsetof(struct_, name_), .help = help_, __VA_ARGS__},

#define COUNTER(name, help) METRIC_ROW(name, METRIC_COUNTER, METRICS_STRUCT, help, .count = 1)
#define COUNTERS(name, label_, count_, names, help)                                                                    \
    METRIC_ROW(name, METRIC_COUNTER, METRICS_STRUCT, help, .count = count_, .label = #label_, .labels = names)
#define HISTOGRAM(name, help) METRIC_ROW(name, METRIC_HISTOGRAM, METRICS_STRUCT, help, .count = 1)
#define HISTOGRAMS(name, label_, count_, names, help)                                                                  \
    METRIC_ROW(name, METRIC_HISTOGRAM, METRICS_STRUCT, help, .count = count_, .label = #label_, .labels = names)
#define GAUGE(name, help)          METRIC_ROW(name, METRIC_GAUGE, GAUGES_STRUCT, help, .count = 1)
#define GAUGES(name, label_, help) METRIC_ROW(name, METRIC_GAUGE_FAMILY, GAUGES_STRUCT, help, .count = 1, .label = #label_)
// clang-format on
#include METRICS_DEF
#include "conf/metric_undef.h"
#undef METRIC_ROW
#undef METRICS_STRUCT
#undef GAUGES_STRUCT
