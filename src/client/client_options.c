/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_options.h"

#define OPTIONS_DEF    "client/client_options.def"
#define OPTIONS_STRUCT struct client_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

const struct option_section client_section = {
    OPTION_SECTION("client", "libcurvine, in every program that uses the cluster", struct client_options, rows),
};
