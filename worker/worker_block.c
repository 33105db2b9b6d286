/* SPDX-License-Identifier: Apache-2.0 */
/* What a request says about a block, held against what the store has. */
#include <errno.h>

#include "base/error.h"
#include "worker/worker_net.h"

int worker_block_check(struct worker_request *q)
{
    const struct rec_block *b = &q->block;
    bool ok = b->inode && b->block_bytes >= BLOCK_BYTES_MIN && b->block_bytes <= BLOCK_BYTES_MAX &&
              (b->block_bytes & (b->block_bytes - 1)) == 0 && b->base_length <= b->block_bytes &&
              b->valid_length <= b->block_bytes && (b->base_length == 0 || b->base_version) &&
              (b->epoch == 0 || b->version > b->base_version) && (b->epoch || b->version == b->base_version);
    q->content = b->epoch ? b->valid_length : b->base_length;
    return ok ? 0 : -EINVAL;
}

struct block_key worker_block_key(const struct rec_block *b)
{
    return (struct block_key){.inode = b->inode, .index = b->index, .version = b->version};
}

int worker_block_contact(struct worker_core *c, const struct rec_block *b)
{
    struct block_presence p = {0};
    if (b->epoch == 0)
        return 0;
    int r = block_prepare(c->store, b->inode, b->index);
    while (r == 0 && (r = block_presence(c->store, b->inode, b->index, &p)) == -CV_NOT_PREPARED)
        r = block_prepare(c->store, b->inode, b->index); /* left memory meanwhile */
    if (r < 0 && r != -ENODATA)
        return r;
    /* Bytes behind the base were acknowledged by us: they are here, or they are lost. Never zeros. */
    if (b->valid_length > b->base_length && !(r == 0 && p.dirty))
        return -CV_DATA_DAMAGED;
    struct block_grant g = {
        .key = worker_block_key(b),
        .epoch = b->epoch,
        .place = {.block_bytes = b->block_bytes,
                  .length = b->valid_length,
                  .file_bytes = b->file_bytes,
                  .mount = b->mount},
        .base_version = b->base_version,
        .base_length = b->base_length,
    };
    return block_write_begin(c->store, &g);
}

int worker_block_missing(struct worker_core *c, const struct rec_block *b, uint64_t chunks, uint64_t *ret)
{
    uint32_t content = b->epoch ? min(b->valid_length, b->base_length) : b->base_length;
    uint64_t based = worker_chunks(0, content);
    struct block_presence p;
    int r = block_presence(c->store, b->inode, b->index, &p);
    if (r == -ENODATA && b->epoch == 0) {
        *ret = chunks & based;
        return 0;
    }
    if (r < 0)
        return r == -ENODATA ? -CV_STALE_EPOCH : r;
    if (p.version > b->version || (p.version != b->version && p.dirty))
        return -CV_STALE_EPOCH;
    if (p.version != b->version || (b->epoch == 0 && p.length < content)) { /* a fill replaces it */
        *ret = chunks & based;
        return 0;
    }
    if (p.damaged & chunks)
        return -CV_DATA_DAMAGED;
    *ret = chunks & based & ~p.readable & ~p.torn;
    return 0;
}

int worker_block_missing_prepared(struct worker_core *c, const struct rec_block *b, uint64_t chunks, uint64_t *ret)
{
    int r;
    while ((r = worker_block_missing(c, b, chunks, ret)) == -CV_NOT_PREPARED) {
        r = block_prepare(c->store, b->inode, b->index);
        if (r == -ENODATA && b->epoch == 0) {
            *ret = chunks;
            return 0;
        }
        if (r < 0)
            return r;
    }
    return r;
}
