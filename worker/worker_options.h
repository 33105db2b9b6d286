/* SPDX-License-Identifier: Apache-2.0 */
/* Section "worker" of curvine.yaml: cv-worker: the data cached on this host. Rows: worker/worker_options.def. */
#pragma once

#include "conf/options.h"

#define OPTIONS_DEF "worker/worker_options.def"
struct worker_options {
#include "conf/option_fields.h"
};
extern const struct option_section worker_section;
