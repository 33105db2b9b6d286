/* SPDX-License-Identifier: Apache-2.0 */
/* Expands METRICS_DEF into the fields of a thread's block (see conf/metrics.h). No include guard: once a set. */
#define COUNTER(name, help)                         struct counter name;
#define COUNTERS(name, label, count, names, help)   struct counter name[count];
#define HISTOGRAM(name, help)                       struct histogram name;
#define HISTOGRAMS(name, label, count, names, help) struct histogram name[count];
#define GAUGE(name, help)
#define GAUGES(name, label, help)
#include METRICS_DEF
#include "conf/metric_undef.h"
