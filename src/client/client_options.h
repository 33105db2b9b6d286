/* SPDX-License-Identifier: Apache-2.0 */
/* Section "client" of curvine.yaml: libcurvine, in every program that uses the cluster. Rows: client/client_options.def. */
#pragma once

#include "conf/options.h"

#define OPTIONS_DEF "client/client_options.def"
struct client_options {
#include "conf/option_fields.h"
};
extern const struct option_section client_section;
