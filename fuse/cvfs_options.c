/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/cvfs_options.h"

#define OPTIONS_DEF    "fuse/cvfs_options.def"
#define OPTIONS_STRUCT struct cvfs_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

const struct option_section cvfs_section = {
    OPTION_SECTION("fuse", "cv-fuse: one mount", struct cvfs_options, rows),
};
