/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, and nothing else, through libfuse3: as root by mount(2), else by fusermount3. What comes out is the descriptor
 * of /dev/fuse; the protocol on it is ours.
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"

struct cvfs_mount; /* opaque */

struct cvfs_mount_options {
    const char *path;  /* in the namespace, "/data": what /proc/mounts shows as source is curvine:/data */
    const char *point; /* a local directory */
    bool allow_other;  /* not only the user who mounts */
    bool read_only;
    bool nonempty; /* files that are in the mount point may be hidden */
};

/* Is the mount point good? Takes away what a daemon that died left there. Logs why not.
 * Errors: -ENOENT, -ENOTDIR; -EBUSY something of ours is mounted there; -ENOTEMPTY. */
int cvfs_mount_check(const struct cvfs_mount_options *options);

/* Mount. Logs errors. From here on whoever looks into the mount point waits for us. */
int cvfs_mount_new(const struct cvfs_mount_options *options, struct cvfs_mount **ret);
int cvfs_mount_fd(const struct cvfs_mount *m);

/* The mount is gone from the name space; processes with open files in it keep it until the descriptor is closed.
 * Harmless when somebody else has unmounted it. */
void cvfs_mount_detach(struct cvfs_mount *m);

/* Closes the descriptor: nothing may use it any more. Detaches if that was not done. NULL is fine; returns NULL. */
struct cvfs_mount *cvfs_mount_free(struct cvfs_mount *m);
DEFINE_CLEANUP(struct cvfs_mount *, cvfs_mount_free)
