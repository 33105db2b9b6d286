/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the namespace is mounted on this host. The truth is the kernel's (/proc/self/mountinfo) and the running cv-fuse
 * programs' command lines; nothing is kept beside them. Nothing here touches a mounted file system: one that hangs must not
 * hang those who want to be rid of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/text.h"

struct host_mount {
    char point[4096];
    char type[64];     /* "fuse.curvine", "ext4" */
    char source[1024]; /* "curvine:/data", "/dev/sda1" */
    char options[256];
    unsigned minor; /* of its device: the name of the connection below /sys/fs/fuse/connections */
    bool ours;
};

/* Call each() for everything mounted here, in the kernel's order (what is mounted over comes later), until it returns
 * non-zero, which is returned. Errors: errno. */
int mounts_each(int (*each)(const struct host_mount *m, void *arg), void *arg);

/* The uppermost mount at exactly this path (absolute, without a final '/'). Errors: -ENOENT not a mount point. */
int mounts_find(const char *point, struct host_mount *ret);

/* The cv-fuse that serves a mount point; 0: none. Its namespace path (":/data") and configuration file go to path and
 * config, "" if unknown; both may be NULL. */
pid_t mounts_server(const char *point, char *path, char *config, size_t size);

/* Unmount. lazy: from view now, for good when nobody uses it. Errors: -EBUSY; -EPERM; -EIO: the helper of libfuse failed, for
 * the reason that mounts_helper_said() has; errno. */
int mounts_unmount(const char *point, bool lazy);
const char *mounts_helper_said(void);

/* Fail everything that waits for the mount, and all that comes: for one whose server hangs. Errors: -EPERM; errno. */
int mounts_abort(const struct host_mount *m);

/* Append a line for each process that holds something below point: "    1234 bash (working directory)". Returns how
 * many; those of other users are seen by root only. */
unsigned mounts_holders(const char *point, struct buf *ret);

/* A process that has the mount in a mount namespace of its own (a container, a service), where unmounting here does not
 * reach; 0: none that we may see. m->minor 0: not known, one of ours at the same place. */
pid_t mounts_elsewhere(const struct host_mount *m);

/* path made absolute, symbolic links resolved in all components but those below or at a mount of ours (which may hang).
 * Without a final '/'. Errors: -ENOENT, errno. */
int mounts_absolute(const char *path, char *out, size_t size);
