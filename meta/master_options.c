/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_options.h"

#define OPTIONS_DEF    "meta/master_options.def"
#define OPTIONS_STRUCT struct master_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

const struct option_section master_section = {
    OPTION_SECTION("master", "cv-master: the namespace", struct master_options, rows),
};
