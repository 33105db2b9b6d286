/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up chunks: they leave memory, then the index (synced), then the disk. A pending row says at the next start
 * what was not punched any more.
 */
#include "worker/block_state.h"

#include <sys/stat.h>

#include "base/bytes.h"

/* Punch runs of chunks; the last one to the end of the block. */
static int punch(const struct block_file *f, uint32_t index, uint64_t chunks)
{
    uint64_t start = (uint64_t)index << f->shift;
    while (chunks) {
        uint32_t first = (uint32_t)__builtin_ctzll(chunks);
        uint64_t run = ~(chunks >> first);
        uint32_t n = run ? (uint32_t)__builtin_ctzll(run) : 64 - first;
        n = min(n, 64 - first);
        int r = block_io_punch(f->fd, start + (uint64_t)first * BLOCK_CHUNK_BYTES, (uint64_t)n * BLOCK_CHUNK_BYTES);
        if (r < 0)
            return r;
        chunks &= ~block_bits(first, n);
    }
    return 0;
}

int block_drop_punch(struct block_store *s, struct block_file *f, uint32_t index, uint64_t chunks)
{
    if (!chunks)
        return 0;
    int r = block_file_use(s, f);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = punch(f, index, chunks);
    block_file_unuse(s, f);
    return r < 0 ? block_store_fail(s, r, "giving back space") : 0;
}

int block_drop_cut(struct block_store *s, struct block_file *f, uint32_t index, uint32_t length)
{
    uint64_t start = (uint64_t)index << f->shift, end = start + (1ull << f->shift);
    struct stat st;
    int r = length < end - start ? block_io_punch(f->fd, start + length, end - start - length) : 0;
    if (r == 0)
        r = fstat(f->fd, &st) < 0 ? -errno : 0;
    if (r == 0 && (uint64_t)st.st_size > start + length && (uint64_t)st.st_size <= end)
        r = block_io_cut(f->fd, start + length);
    return r < 0 ? block_store_fail(s, r, "cutting a file") : 0;
}

void block_drop_put_pending(struct block_batch *batch, const struct block *b, uint32_t cut)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_PENDING, b->inode, b->index);
    struct block_row_pending row = {.cut = cut};
    block_batch_put(batch, &key, &row, sizeof(row));
}

static void leave_memory(struct block *b, uint64_t chunks)
{
    b->present &= ~chunks;
    b->open &= ~chunks;
    b->checked &= ~chunks;
    b->written &= ~chunks;
    b->doubt &= ~chunks;
    b->damaged &= ~chunks;
    block_heat_reset(&b->heat, chunks);
}

static void forget_written(struct block *b)
{
    b->durable = 0;
    b->cuts++;
    b->watched = false;
    b->torn = b->mended = b->filled = b->gaps = (struct block_stretches){0};
}

/* The rows of chunks, and the block's own when nothing is left. Lock held. */
static void put_drop(struct block_store *s, struct block_batch *batch, struct block *b, uint64_t chunks, bool last,
                     bool forget)
{
    if (b->packed) {
        struct block_row_key mount = block_key_u32(BLOCK_ROW_MOUNT, b->mount);
        struct block_row_key dead = block_key_u64(BLOCK_ROW_DEAD, b->file->key);
        block_batch_add(batch, &mount, -block_packed_bytes(b->length));
        block_batch_add(batch, &dead, block_packed_bytes(b->length));
    } else {
        for (uint64_t left = chunks; left; left &= left - 1) {
            struct block_row_key key = block_key_chunk(b->inode, b->index, (uint8_t)__builtin_ctzll(left));
            block_batch_delete(batch, &key);
        }
        block_add_charge(s, batch, b->mount, -(int64_t)block_charge(b, chunks));
        block_drop_put_pending(batch, b, BLOCK_CUT_NONE);
    }
    if (!last)
        return;
    block_durable_end(batch, b);
    struct block_row_key key = block_key_block(BLOCK_ROW_TORN, b->inode, b->index);
    block_batch_delete(batch, &key);
    key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
    if (b->epoch && !forget) {
        struct block copy = *b;
        copy.packed = false;
        copy.file = NULL;
        block_put_row(s, batch, &copy);
    } else {
        block_batch_delete(batch, &key);
    }
}

void block_drop_put_settled(struct block_batch *batch, const struct block *b)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_PENDING, b->inode, b->index);
    block_batch_delete(batch, &key);
}

int block_drop_settled(struct block_store *s, struct block *b)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return 0; /* the next start looks again */
    block_drop_put_settled(batch, b);
    return block_store_commit(s, batch, false);
}

int block_drop(struct block_store *s, struct block *b, uint64_t chunks)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    pthread_mutex_lock(&s->lock);
    struct block_file *f = b->file;
    bool packed = b->packed;
    chunks &= b->present;
    if (!f || !chunks) {
        pthread_mutex_unlock(&s->lock);
        return 0;
    }
    if (!packed && block_file_exported(s, f)) {
        pthread_mutex_unlock(&s->lock);
        return block_retire(s, f, b);
    }
    bool last = !(b->present & ~chunks) && !b->filling && !block_dirty(b);
    uint64_t bytes = block_charge(b, chunks);
    f->refs++;
    put_drop(s, batch, b, chunks, last, false);
    leave_memory(b, chunks);
    if (last) {
        b->exists = b->epoch != 0;
        b->packed = b->unsaved = false;
        block_attach(s, b, NULL);
    }
    pthread_mutex_unlock(&s->lock);

    int r = block_store_commit(s, batch, !packed);
    if (r == 0 && !packed)
        r = block_drop_punch(s, f, b->index, chunks);
    if (r == 0 && !packed) {
        pthread_mutex_lock(&s->lock);
        s->used -= bytes;
        bool settled = !b->filling;
        pthread_mutex_unlock(&s->lock);
        if (settled)
            r = block_drop_settled(s, b);
        if (r == 0 && last)
            r = block_file_reap(s, f);
    }
    block_file_unhold(s, f);
    return r;
}

int block_drop_all(struct block_store *s, struct block *b)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    pthread_mutex_lock(&s->lock);
    struct block_file *f = b->file;
    bool packed = b->packed;
    uint64_t chunks = b->present, bytes = block_charge(b, chunks);
    if (f)
        f->refs++;
    if (b->exists)
        put_drop(s, batch, b, chunks, true, true);
    leave_memory(b, ~0ull);
    forget_written(b);
    b->exists = b->packed = b->unsaved = b->pinned = false;
    b->lost = f && f->lost;
    b->epoch = 0;
    block_attach(s, b, NULL);
    pthread_mutex_unlock(&s->lock);

    int r = block_batch_count(batch) ? block_store_commit(s, batch, true) : 0;
    if (r == 0 && f && !packed) {
        r = block_drop_punch(s, f, b->index, chunks);
        pthread_mutex_lock(&s->lock);
        s->used -= bytes;
        pthread_mutex_unlock(&s->lock);
    }
    if (r == 0 && f && !packed)
        r = block_drop_settled(s, b);
    if (r == 0 && f && !packed)
        r = block_file_reap(s, f);
    if (f)
        block_file_unhold(s, f);
    return r;
}

int block_forget(struct block_store *s, struct block *b)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    pthread_mutex_lock(&s->lock);
    if (b->packed || b->exists) {
        if (b->file && !b->packed)
            b->file->condemned += block_charge(b, b->present);
        put_drop(s, batch, b, b->present, true, true);
    }
    leave_memory(b, ~0ull);
    forget_written(b);
    b->exists = b->packed = b->unsaved = b->pinned = false;
    b->lost = b->file && b->file->lost;
    b->epoch = 0;
    block_attach(s, b, NULL);
    pthread_mutex_unlock(&s->lock);
    return block_batch_count(batch) ? block_store_commit(s, batch, false) : 0;
}

/* Before the block is loaded: the file's size says how long it is. */
static int recover_cut(struct block_store *s, struct block_file *f, uint32_t index, uint32_t cut)
{
    if (cut == BLOCK_CUT_NONE)
        return 0;
    int r = block_file_use(s, f);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = block_drop_cut(s, f, index, cut);
    block_file_unuse(s, f);
    return r;
}

static int recover_one(struct block_store *s, uint64_t inode, uint32_t index, uint32_t cut)
{
    struct block *b;
    struct block_file *f;
    int r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f);
    if (r < 0)
        return r;
    if (f->exists)
        r = recover_cut(s, f, index, cut);
    if (r == 0 && f->exists)
        r = block_take(s, inode, index, &b);
    if (r == 0 && f->exists) {
        uint64_t all = block_bits(0, 1u << (f->shift - 20));
        if (!block_file_exported(s, f))
            r = block_drop_punch(s, f, index, all & ~b->present);
        bool nothing = !b->file;
        block_give_back(s, b);
        if (r == 0 && nothing)
            r = block_file_reap(s, f);
    }
    block_file_unhold(s, f);
    return r;
}

int block_drop_recover(struct block_store *s)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_PENDING), key;
    struct block_batch *done cleanup(block_batch_free_p) = block_batch_new();
    if (!done)
        return -ENOMEM;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_pending row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r == 0)
            r = recover_one(s, get_be64(key.p + 1), get_be32(key.p + 9), row.cut);
        block_batch_delete(done, &key);
    }
    if (r == 0 && block_batch_count(done))
        r = block_store_commit(s, done, true);
    return r;
}
