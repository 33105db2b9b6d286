/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_options.h"

#include <stdio.h>

#include "base/error.h"

#define OPTIONS_DEF    "raft/journal_options.def"
#define OPTIONS_STRUCT struct journal_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

static int check(const void *options, char *why, size_t why_size)
{
    const struct journal_options *o = options;
    if (o->heartbeat_ms < o->tick_ms) {
        snprintf(why, why_size, "heartbeat_ms must not be shorter than tick_ms");
        return -CV_CONFIG_BAD;
    }
    /* Several heartbeats must fit, or one lost message makes an election. */
    if (o->election_ms < 4 * o->heartbeat_ms) {
        snprintf(why, why_size, "election_ms must be at least 4 times heartbeat_ms");
        return -CV_CONFIG_BAD;
    }
    return 0;
}

const struct option_section journal_section = {
    OPTION_SECTION("journal", "cv-journal: one Raft voter", struct journal_options, rows),
    .check = check,
};
