/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_options.h"

#include <stdio.h>

#include "base/error.h"

#define OPTIONS_DEF    "worker/worker_options.def"
#define OPTIONS_STRUCT struct worker_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

static int check(const void *options, char *why, size_t why_size)
{
    const struct worker_options *o = options;
    if (o->low_percent >= o->high_percent) {
        snprintf(why, why_size, "low_percent must be below high_percent");
        return -CV_CONFIG_BAD;
    }
    if (o->small_file_bytes > o->segment_bytes / 8) {
        snprintf(why, why_size, "small_file_bytes must be at most an eighth of segment_bytes");
        return -CV_CONFIG_BAD;
    }
    return 0;
}

const struct option_section worker_section = {
    OPTION_SECTION("worker", "cv-worker: the data cached on this host", struct worker_options, rows),
    .check = check,
};
