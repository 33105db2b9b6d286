/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/common_options.h"

#define OPTIONS_DEF    "conf/cluster_options.def"
#define OPTIONS_STRUCT struct cluster_options
static const struct option_def cluster_rows[] = {
#include "conf/option_rows.h"
};

const struct option_section cluster_section = {
    OPTION_SECTION("cluster", "what every program needs to find and trust the others", struct cluster_options,
                   cluster_rows),
};

#define OPTIONS_DEF    "conf/log_options.def"
#define OPTIONS_STRUCT struct log_options
static const struct option_def log_rows[] = {
#include "conf/option_rows.h"
};

const struct option_section log_section = {
    OPTION_SECTION("log", "the log of every program, on its standard error", struct log_options, log_rows),
};
