/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping a whole backing file with all its blocks: eviction of small ones, and of any whose descriptors left. */
#include "worker/block_state.h"

#include "base/bytes.h"

static bool may_go(struct block_store *s, const struct block_file *f, const struct block *b, bool only_cold)
{
    if (b->pinned || b->lost || b->filling || b->writers || block_dirty(b))
        return false;
    if (b->readers && !block_file_exported(s, f)) /* their bytes would no longer be counted */
        return false;
    return !only_cold || block_heat_cold(&b->heat, b->present) == b->present;
}

/* Claim one block of the file, if it may go. */
static int add_block(struct block_store *s, struct block_retire *x, uint32_t index, bool only_cold)
{
    struct block *b = x->held && x->held->index == index ? x->held : NULL;
    if (x->count == x->room) {
        uint32_t room = x->room ? x->room * 2 : 4;
        struct block **more = block_io_check(BLOCK_IO_ALLOC) ? NULL : realloc(x->blocks, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        x->blocks = more;
        x->room = room;
    }
    int r = b ? 0 : block_hold(s, x->file->key, index, &b);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    bool claimed = b == x->held || block_try_claim(s, b);
    if (!claimed || b->file != x->file || !may_go(s, x->file, b, only_cold)) {
        if (claimed && b != x->held)
            block_unclaim(s, b);
        if (b != x->held)
            block_unhold_locked(s, b);
        r = -CV_BUSY;
    }
    pthread_mutex_unlock(&s->lock);
    if (r == 0)
        x->blocks[x->count++] = b;
    return r;
}

static int add_blocks(struct block_store *s, struct block_retire *x, bool only_cold)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_BLOCK, x->file->key), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_block row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r == 0 && row.file_id == x->file->id)
            r = add_block(s, x, get_be32(key.p + 9), only_cold);
    }
    return r;
}

/* The rows of one block leave; one that was written here once keeps its epoch. */
static void put_block(struct block_store *s, struct block_retire *x, struct block_batch *batch, struct block *b)
{
    uint64_t bytes = block_charge(b, b->present);
    for (uint64_t left = b->present; left; left &= left - 1) {
        struct block_row_key key = block_key_chunk(b->inode, b->index, (uint8_t)__builtin_ctzll(left));
        block_batch_delete(batch, &key);
    }
    struct block_row_key mount = block_key_u32(BLOCK_ROW_MOUNT, b->mount);
    block_batch_add(batch, &mount, -(int64_t)bytes);
    struct block_file *file = b->file;
    b->file = NULL; /* for the row only; still attached until it is written */
    if (b->epoch) {
        block_put_row(s, batch, b);
    } else {
        struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
        block_batch_delete(batch, &key);
    }
    b->file = file;
    x->bytes += bytes;
}

int block_retire_prepare(struct block_store *s, struct block_file *f, struct block *held, bool only_cold,
                         struct block_batch *batch, struct block_retire *ret)
{
    *ret = (struct block_retire){.file = f, .held = held};
    pthread_mutex_lock(&s->lock);
    block_file_claim(s, f);
    f->refs++;
    int r = f->exists && !f->lost ? 0 : -ENOENT;
    ret->bytes = f->condemned;
    pthread_mutex_unlock(&s->lock);
    if (r == 0)
        r = add_blocks(s, ret, only_cold);
    if (r < 0) {
        block_retire_abort(s, ret);
        return r == -CV_BUSY || r == -ENOENT ? r : block_store_index_error(s, r);
    }
    uint64_t condemned = ret->bytes;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < ret->count; i++)
        put_block(s, ret, batch, ret->blocks[i]);
    pthread_mutex_unlock(&s->lock);
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
    block_batch_add(batch, &used, block_file_exported(s, f) ? (int64_t)condemned : -(int64_t)(ret->bytes - condemned));
    block_file_put_going(s, batch, f, ret->bytes);
    return 0;
}

static void let_go(struct block_store *s, struct block_retire *x)
{
    for (uint32_t i = 0; i < x->count; i++) {
        struct block *b = x->blocks[i];
        if (b == x->held)
            continue;
        block_unclaim(s, b);
        block_unhold_locked(s, b);
    }
    block_file_unclaim(s, x->file);
    block_file_unhold_locked(s, x->file);
    free(x->blocks);
    *x = (struct block_retire){0};
}

void block_retire_abort(struct block_store *s, struct block_retire *x)
{
    pthread_mutex_lock(&s->lock);
    let_go(s, x);
    pthread_mutex_unlock(&s->lock);
}

int block_retire_finish(struct block_store *s, struct block_retire *x)
{
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < x->count; i++) {
        struct block *b = x->blocks[i];
        s->stats.evicted_bytes += block_charge(b, b->present);
        b->present = b->open = b->checked = b->written = b->doubt = b->damaged = 0;
        b->room = 0;
        b->heat = (struct block_heat){0};
        b->exists = b->epoch != 0;
        b->unsaved = false;
        block_attach(s, b, NULL);
    }
    x->file->condemned = 0;
    pthread_mutex_unlock(&s->lock);
    int r = block_file_unlink(s, x->file, x->bytes);
    pthread_mutex_lock(&s->lock);
    let_go(s, x);
    pthread_mutex_unlock(&s->lock);
    block_files_bury(s);
    return r;
}

int block_retire(struct block_store *s, struct block_file *f, struct block *held)
{
    struct block_retire x;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    int r = block_retire_prepare(s, f, held, false, batch, &x);
    if (r < 0)
        return r;
    r = block_store_commit(s, batch, true);
    if (r < 0)
        block_retire_abort(s, &x);
    else
        r = block_retire_finish(s, &x);
    return r;
}
