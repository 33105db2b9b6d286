/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data directory as the configuration names it: "[KIND:SIZE]PATH", e.g. "[SSD:200GiB]/data/curvine" or just a path.
 * Making it a worker's, and opening the block store in it. All functions block.
 */
#pragma once

#include "base/uuid.h"
#include "worker/block_store.h"
#include "worker/worker_options.h"

struct worker_dir {
    char path[4000];
    enum block_kind kind;    /* BLOCK_SSD unless told */
    uint64_t capacity_bytes; /* 0: what the file system has, less worker.reserve_bytes */
};

const char *worker_kind_name(enum block_kind kind); /* "SSD" */

/* Errors: -EINVAL; -ENAMETOOLONG. */
int worker_dir_parse(const char *text, struct worker_dir *ret);

/* The one directory there may be for now, or the one given. Logs. Errors: -EINVAL. */
int worker_dir_choose(const struct worker_options *o, const char *override, struct worker_dir *ret);

/* Make it (mode 0700) if its parent exists, and a worker's of this cluster, with a new random worker id.
 * Errors: as block_store_format(). */
int worker_dir_format(const struct worker_dir *d, struct uuid cluster, uint64_t *ret_worker);

/* Open the store. Logs. The directory's kind is what it was formatted with. */
int worker_dir_open(struct worker_dir *d, const struct worker_options *o, struct block_identity_options *ret_identity,
                    struct block_store **ret);
