/* SPDX-License-Identifier: Apache-2.0 */
/* Section "master" of curvine.yaml: cv-master: the namespace. Rows: meta/master_options.def. */
#pragma once

#include "conf/options.h"

/* When a mutation is answered (design: ack modes). */
enum ack_mode { ACK_QUORUM, ACK_LOCAL, ACK_APPLIED, ACK_MODES }; /* the strictest first */

#define OPTIONS_DEF "meta/master_options.def"
struct master_options {
#include "conf/option_fields.h"
};
extern const struct option_section master_section;
