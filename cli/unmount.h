/* SPDX-License-Identifier: Apache-2.0 */
/* Unmounting on this host, for cv umount and cv local down. */
#pragma once

#include "cli/cli.h"
#include "cli/mounts.h"

enum unmount_how {
    UNMOUNT_NORMAL, /* refused while somebody uses it; ends when everything written is in the cluster */
    UNMOUNT_LAZY,   /* from view now, for good when nobody uses it */
    UNMOUNT_FORCE,  /* what waits for it fails, its cv-fuse is told to stop: for one that hangs */
};

/* point and m: from mounts_find(). Reports failures, with who uses it. Returns a status. */
int unmount_here(struct cli *cli, const char *point, const struct host_mount *m, enum unmount_how how);

/* The same of one that is not mounted here (any more), but a cv-fuse, pid, serves it to another mount namespace: refused
 * while there is one, unless forced; then what uses it there gets errors. */
int unmount_elsewhere(struct cli *cli, const char *point, pid_t pid, enum unmount_how how);
