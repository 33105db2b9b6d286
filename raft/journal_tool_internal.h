/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tools of a journal's directory: what their sources share. Each line calls those below it:
 *
 *      journal_tool.c          the command line
 *      journal_tool_format.c   format, join
 *      journal_tool_check.c    check, dump
 *      journal_tool_recover.c  compare, and what throws something away
 *      journal_tool_report.c   what tools say to people
 */
#pragma once

#include "conf/config.h"
#include "raft/journal_recover.h"

enum tool_status { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2, TOOL_UNREACHABLE = 4 };

struct tool {
    const char *command;
    const char *path, **sets; /* of the configuration */
    int set_count;
    struct config *config;
    const char *dir;
    const char *cluster, *peers, *self, *journal_only, *keep, *yes;
    bool single, json, repair_tail;
    uint64_t from, to, behind, incarnation;
    char **arguments; /* of compare: the directories */
    int argument_count;
};

void tool_complain(const struct tool *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Report r, with why if there is more to say. Returns the exit status. */
int tool_failed(const struct tool *t, int r, const struct buf *why);

/* An empty log of this cluster, and this incarnation if one was said, that never voted: the id it waits to be added by may stay.
 * (No step of a rejoin is left to be done.) */
bool tool_waits(const struct tool *t, const struct journal_state *s, struct uuid cluster);

/* What a check found: printed as it comes, or kept for JSON. */
struct tool_problems {
    const struct tool *tool;
    struct buf json;
    uint32_t n;
};
void tool_problem(void *arg, const char *text);

int tool_format(struct tool *t); /* and join */
int tool_check(struct tool *t);
int tool_dump(struct tool *t);
int tool_compare(struct tool *t);
int tool_force_new_cluster(struct tool *t);
int tool_rejoin(struct tool *t);
int tool_repair_tail(struct tool *t);
