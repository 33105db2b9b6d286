/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_options.h"

#define OPTIONS_DEF    "worker/worker_options.def"
#define OPTIONS_STRUCT struct worker_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

const struct option_section worker_section = {
    OPTION_SECTION("worker", "cv-worker: the data cached on this host", struct worker_options, rows),
};
