/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tools for a journal's directory, as cv-journal COMMAND: format and join make it; check, dump and compare look at it
 * without changing anything; rejoin, force-new-cluster and check --repair-tail throw something away, which they say before,
 * and do only when the cluster's id is typed or given with --yes. All refuse beside a running journal (the directory's
 * lock). An empty directory is never formatted but by format and join.
 *
 * Exit status: 0 done, the log is sound; 1 failed, the log is damaged; 2 wrong usage; 4 there is no log, or a journal
 * works on it.
 */
#pragma once

#include <stdbool.h>

#include "conf/options.h"

/* Does the command line name a tool? Options may be before it. */
bool journal_tool_is(int argc, char **argv);

/* What there is, in lines for people. Borrowed for ever; one thread. */
const char *journal_tool_commands(void);

/* Run it; returns the exit status. */
int journal_tool_main(int argc, char **argv, const struct option_section *const *sections);
