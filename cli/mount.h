/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of cv mount: attaching an under file system to a path, and mounting a path on this host. */
#pragma once

#include "cli/cli.h"
#include "cli/mount_params.h"
#include "client/curvine.h"

struct attachment {
    const char *uri;   /* "": none, a scratch mount */
    const char *path;  /* in the namespace: "/data" */
    uint8_t mode;      /* enum mount_mode */
    uint32_t flags;    /* enum mount_flag */
    uint8_t ack_mode;  /* enum mount_ack */
    bool may_be_there; /* the same URI attached at this path already is success */
    struct mount_params params;
};

/* Attach; with MOUNT_CHECK in flags only try. Tells what was done (not in json), reports why not. Returns a status. */
int mount_attach(struct cli *cli, struct curvine *cv, const struct attachment *a);

const char *mount_mode_name(uint8_t mode);
const char *mount_ack_name(uint8_t ack); /* enum mount_ack: "cluster", "quorum", ... */

/* Change the ack mode of what is attached at a path ("/data"). Returns a status. */
int mount_set_ack(struct cli *cli, struct curvine *cv, const char *path, uint8_t ack);

struct host_mounting {
    const char *path;  /* "/data" */
    const char *point; /* as the user wrote it */
    bool over;         /* a directory that is not empty is fine */
    bool allow_other;
};

/* What can be known before anything is done: is the mount point one, can this host mount. Absolute form to out. */
int mount_point_check(struct cli *cli, const struct host_mounting *m, char *out, size_t size);

/* Start cv-fuse in the background and wait until it serves. point: from mount_point_check(). */
int mount_here(struct cli *cli, const struct host_mounting *m, const char *point);
