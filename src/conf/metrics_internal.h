/* SPDX-License-Identifier: Apache-2.0 */
/* What metrics.c (counting, summing) and metrics_write.c (forms of output) share. */
#pragma once

#include "conf/metrics.h"

/* One form of output: how a set begins and ends, and how one row with its summed values (at) is written. */
struct metrics_writer {
    int (*set)(struct buf *out, const struct metric_set *set, bool first, bool end);
    int (*metric)(struct buf *out, const struct metric_set *set, const struct metric *row, const void *at, bool first);
};

/* Sum all sets and write them. Errors: -ENOMEM. */
int metrics_write_all(struct metrics *m, const struct metrics_writer *w, struct buf *out);
