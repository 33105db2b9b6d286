/* SPDX-License-Identifier: Apache-2.0 */
/* The workers as the master tells them, and where the blocks of a file are: for du, blocks, load and free. */
#pragma once

#include "client/curvine.h"
#include "place/place.h"
#include "wire/message.h"

struct cluster_map {
    struct buf body;
    struct msg_workers_answer answer; /* borrows from body */
    struct place_member *members;     /* in the answer's order */
    struct rec_worker *workers;       /* texts borrow from body */
    unsigned count;
};

int cluster_map_get(struct curvine *cv, struct cluster_map *ret);
void cluster_map_fini(struct cluster_map *m);

/* Call each() for all blocks of a file that have content, in order: with the worker that holds it (written) or is to
 * hold it (of the under file system); 0: none can. written: the row's; else block.epoch is 0. A file whose content is
 * inline has none. Negative results of each() end it. Errors: of each(), of asking. */
struct block_place {
    struct rec_block block;
    uint64_t worker;
    bool written;
};
int cluster_each_block(struct curvine *cv, const struct cluster_map *m, uint64_t inode,
                       int (*each)(const struct block_place *b, void *arg), void *arg);

/* What all workers that are up hold of these inodes, added up: sums[i] is of inodes[i]. Up to PRESENCE_MAX at once.
 * Errors: of the first worker that does not answer. */
#define PRESENCE_MAX 1000
struct held {
    uint64_t cached, dirty;
    uint32_t blocks;
};
int cluster_held(struct curvine *cv, const struct cluster_map *m, const uint64_t *inodes, unsigned n,
                 struct held *sums);
