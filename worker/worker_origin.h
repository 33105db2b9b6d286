/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the clean content of inodes comes from: the master knows, the answers are kept (the newest ORIGINS_MAX used) and
 * asked for once however many wait. Owner: the back loop.
 */
#pragma once

#include "ufs/ufs.h"
#include "worker/worker_master.h"

struct worker_origins;

struct origin {
    uint64_t inode, version;
    uint64_t base_bytes;
    uint32_t mount;
    struct ufs_identity identity;
    char *key; /* zero-terminated; borrowed by whoever is given it, for the time of the call */
};

/* Somebody who wants to know. */
struct origin_wait {
    /* Once, perhaps from inside worker_origins_get(). Errors: -ENOENT; -ENODATA; -CV_STALE_EPOCH the master has another
     * version; -CV_DEADLINE; -CV_STOPPING. */
    void (*done)(struct origin_wait *w, int result, const struct origin *o);
    /* Private. */
    struct list link;
    uint64_t version;
};

int worker_origins_new(struct worker_master *master, struct worker_metrics *metrics, struct worker_origins **ret);
struct worker_origins *worker_origins_free(struct worker_origins *o); /* no question may be under way */

void worker_origins_get(struct worker_origins *o, uint64_t inode, uint64_t version, uint64_t deadline_ns,
                        struct origin_wait *w);

/* The object is another one now: forget it, and tell the master. */
void worker_origins_changed(struct worker_origins *o, uint64_t inode, uint64_t version);

/* Questions under way. */
uint32_t worker_origins_asking(const struct worker_origins *o);
