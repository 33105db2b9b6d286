/* SPDX-License-Identifier: Apache-2.0 */
/* Expands METRICS_DEF into the fields of a set's gauges (see conf/metrics.h). No include guard: once a set. */
#define COUNTER(name, help)
#define COUNTERS(name, label, count, names, help)
#define HISTOGRAM(name, help)
#define HISTOGRAMS(name, label, count, names, help)
#define GAUGE(name, help)         int64_t name;
#define GAUGES(name, label, help) struct gauge_family name;
#include METRICS_DEF
#include "conf/metric_undef.h"
