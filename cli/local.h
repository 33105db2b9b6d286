/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole cluster on one machine, unprivileged, in one directory: the same daemons with the same files as an installed
 * cluster, started by cv local up instead of systemd.
 *
 *      DIR/curvine.yaml   configuration, made once, then the user's
 *      DIR/cluster-id     written last: the directory is set up
 *      DIR/journal, DIR/master, DIR/worker   data directories; "lock" in each holds the pid while the daemon runs
 *      DIR/run            unix sockets          DIR/log   one log file a daemon
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "cli/mounts.h"

struct local_daemon {
    const char *name;    /* "journal": its folder */
    const char *program; /* "cv-journal" */
};

/* In the order they are started in; stopped the other way round. Ends with name NULL. */
extern const struct local_daemon local_daemons[];

/* The directory: --dir, else $CURVINE_LOCAL, else ~/.curvine. Absolute. Errors: -ENOENT no home; -ENAMETOOLONG. */
int local_dir(struct cli *cli, char *out, size_t size);

/* Whether cv local up was there. */
bool local_is_set_up(const char *dir);

/* Make directories, configuration and data formats. What a failed attempt left behind is used or made again.
 * capacity: bytes of the worker; 0: a tenth of what is free there, 16 GiB at most. */
int local_set_up(struct cli *cli, const char *dir, uint64_t capacity);

/* The pid of the daemon that runs on its folder; 0: none. */
pid_t local_pid(const char *dir, const struct local_daemon *d);

/* Start a daemon and wait until it says that it is ready. Reports failures with the end of its log. Returns a status. */
int local_start(struct cli *cli, const char *dir, const struct local_daemon *d, uint64_t deadline_ns, pid_t *ret);

/* Call each() for everything of this cluster that is mounted on this host, until it returns non-zero. */
int local_each_mount(const char *dir, int (*each)(const struct host_mount *m, pid_t pid, void *arg), void *arg);
