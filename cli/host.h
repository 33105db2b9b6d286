/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemons that packages have installed on this host: which there are, whether their data directories are formatted,
 * whether they run. What cv cluster init works from, and what cv cluster status says when no master answers.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "cli/cli.h"

enum host_state {
    HOST_ABSENT,      /* the program is not installed */
    HOST_UNFORMATTED, /* its data directory is empty or not there */
    HOST_STOPPED,     /* formatted, nobody runs on it */
    HOST_RUNNING,
    HOST_HIDDEN, /* the directory is not ours to look into */
};

struct host_daemon {
    const char *name;    /* "journal" */
    const char *program; /* "cv-journal", also the name of its unit */
    enum host_state state;
    char dir[4096]; /* its (first) data directory */
};

#define HOST_DAEMONS 3

/* Look at all three, in the order they start in. Returns a status; a wrong configuration is reported. */
int host_look(struct cli *cli, struct host_daemon ret[HOST_DAEMONS]);

const char *host_state_name(enum host_state state);

/* Whether any of them is installed here, and cv was not told to ask another cluster (--cluster, --dir). */
bool host_is_one(const struct cli *cli, const struct host_daemon daemons[HOST_DAEMONS]);

/* On stderr: the state of each, and the command to type next. For when no master answers. */
void host_advise(const struct host_daemon daemons[HOST_DAEMONS]);
