/* SPDX-License-Identifier: Apache-2.0 */
/* Ends an expansion of METRICS_DEF. */
#undef COUNTER
#undef COUNTERS
#undef HISTOGRAM
#undef HISTOGRAMS
#undef GAUGE
#undef GAUGES
#undef METRICS_DEF
