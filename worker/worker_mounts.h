/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The under file systems of the mounts, as the master that leads tells them, each opened when it is first needed. Owner:
 * the back loop.
 */
#pragma once

#include "ufs/ufs.h"
#include "worker/worker_master.h"

struct worker_mounts;

int worker_mounts_new(struct loop *loop, struct worker_master *master, struct worker_metrics *metrics,
                      struct worker_mounts **ret);
/* Close them all; stopped() runs when that is done. */
void worker_mounts_stop(struct worker_mounts *m, void (*stopped)(void *arg), void *arg);
struct worker_mounts *worker_mounts_free(struct worker_mounts *m);

/* Ask the master for its mounts: they have changed, or one we do not know was named. */
void worker_mounts_refresh(struct worker_mounts *m);

/* Somebody who wants a mount's under file system. */
struct mount_wait {
    /* Once, perhaps from inside worker_mounts_get(). result 0: u is good until this returns and while operations run on it;
     * early: a get fails before its first byte when the object is another one by now. -ENOENT no such mount;
     * -CV_STOPPING; what ufs_open() or the master said. */
    void (*done)(struct mount_wait *w, int result, struct ufs *u, bool early);
    /* Private. */
    struct list link;
    uint32_t mount;
};
void worker_mounts_get(struct worker_mounts *m, uint32_t mount, struct mount_wait *w);

/* Add what was asked of under file systems since the last call to the metrics. */
void worker_mounts_count(struct worker_mounts *m);
