/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole cluster on one machine, unprivileged, in one directory: the same daemons with the same files as an installed
 * cluster, started by cv local up instead of systemd.
 *
 *      DIR/curvine.yaml   configuration, made once, then the user's
 *      DIR/cluster-id     written last: the directory is set up
 *      DIR/journal, DIR/master, DIR/worker   data directories; "lock" in each holds the pid while the daemon runs
 *      DIR/run            unix sockets          DIR/log   one log file a daemon
 *
 * With --masters N there are N journals and masters; those of node k > 1 have curvine-k.yaml, journal-k, master-k, run-k.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "cli/mounts.h"

#define LOCAL_DIR_MAX     80 /* so that socket names fit in 107 bytes */
#define LOCAL_MASTERS_MAX 5
#define LOCAL_DAEMONS_MAX (2 * LOCAL_MASTERS_MAX + 1)

struct local_daemon {
    char name[24];       /* "journal", "journal-2": its folder and its log's name */
    const char *program; /* "cv-journal" */
    unsigned node;       /* from 1: whose configuration it reads */
};

/* All daemons of the cluster in dir, in the order they are started in; stopped the other way round. Returns how many. */
unsigned local_daemons(const char *dir, struct local_daemon ret[LOCAL_DAEMONS_MAX]);

/* How many journals and masters it has. */
unsigned local_masters(const char *dir);

/* The configuration of a node. */
void local_config(const char *dir, unsigned node, char *out, size_t size);

/* The directory: --dir, else $CURVINE_LOCAL, else ~/.curvine. Absolute. Errors: -ENOENT no home; -ENAMETOOLONG. */
int local_dir(struct cli *cli, char *out, size_t size);

/* Whether cv local up was there. */
bool local_is_set_up(const char *dir);

/* Make directories, configuration and data formats (local_set_up.c). What a failed attempt left behind is used or made
 * again. masters: 1 to LOCAL_MASTERS_MAX. capacity: bytes of the worker; 0: a tenth of what is free there, 16 GiB at most. */
int local_set_up(struct cli *cli, const char *dir, unsigned masters, uint64_t capacity);

/* The pid of the daemon that runs on its folder; 0: none. */
pid_t local_pid(const char *dir, const struct local_daemon *d);

/* Start a daemon and wait until it says that it is ready. Reports failures with the end of its log. Returns a status. */
int local_start(struct cli *cli, const char *dir, const struct local_daemon *d, uint64_t deadline_ns, pid_t *ret);

/* Call each() for everything of this cluster that is mounted on this host, until it returns non-zero. */
int local_each_mount(const char *dir, int (*each)(const struct host_mount *m, pid_t pid, void *arg), void *arg);

/* A cv-fuse of this cluster whose mount is not seen here: another mount namespace has it. 0: none; else where it was mounted. */
pid_t local_unseen_mount(const char *dir, char *point, size_t size);
