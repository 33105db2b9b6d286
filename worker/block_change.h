/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One change of a claimed block that is being written: chunks open or go, lengths and versions move. Space first, then the
 * rows in one batch, then memory, then the disk.
 *
 * Open chunks are charged up to `room`, so a growing file costs a row each time it doubles, and its length is found
 * again after a crash from its size. A chunk that is shorter than 1 MiB because the block ends in it is opened before the
 * block grows past it: sealed chunks always cover what the block has.
 */
#pragma once

#include "worker/block_state.h"

struct block_change {
    uint64_t opened; /* become open */
    uint64_t gone;   /* become absent */
    uint32_t length, base_length, room, durable;
    struct block_stretches torn, mended, filled;
    uint64_t version, base_version, epoch;
    uint32_t mount;
    bool cutting;   /* the bytes from `length` on become zeros: nobody else writes to the file */
    bool row;       /* the block's own row changes */
    bool all_clean; /* what is here counts as base from now on */
    bool watch;     /* it is going to be written */
    bool retorn;    /* torn changes: no writer is in it */
    bool sync;
    struct block_file *file; /* NULL: as it is; else claimed, its row is written too */
    int64_t delta;           /* of the charge, once reserved */
    bool reserved;
};

/* No change yet. Lock held. */
struct block_change block_change_none(const struct block *b);

/* How far open chunks are charged when the block reaches end: whole chunks, but for the only one of a small file,
 * which doubles. */
uint32_t block_change_room(const struct block *b, uint32_t end);

/* The chunk the block ends in, if it is sealed and shorter than a chunk. */
uint64_t block_change_short_tail(const struct block *b, uint32_t length);

/* Reserve what the change needs: before a file is claimed. The block must not change until then. Lock not held, BLOCKING.
 * Errors: -CV_NO_SPACE. */
int block_change_reserve(struct block_store *s, const struct block *b, struct block_change *x);
void block_change_unreserve(struct block_store *s, struct block_change *x); /* it is not going to happen */

/* Do it (and reserve, if that was not done). Lock not held, BLOCKING. Errors: -CV_NO_SPACE. */
int block_change(struct block_store *s, struct block *b, struct block_change *x);
