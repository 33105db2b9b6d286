/* SPDX-License-Identifier: Apache-2.0 */
/* Section "fuse" of curvine.yaml: cv-fuse: one mount. Rows: fuse/cvfs_options.def. */
#pragma once

#include "conf/options.h"

#define OPTIONS_DEF "fuse/cvfs_options.def"
struct cvfs_options {
#include "conf/option_fields.h"
};
extern const struct option_section cvfs_section;
