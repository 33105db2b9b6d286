/* SPDX-License-Identifier: Apache-2.0 */
/* Section "journal" of curvine.yaml: cv-journal: one Raft voter. Rows: raft/journal_options.def. */
#pragma once

#include "conf/options.h"

#define OPTIONS_DEF "raft/journal_options.def"
struct journal_options {
#include "conf/option_fields.h"
};
extern const struct option_section journal_section;
