/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing in place. prepare opens chunks: their old CRC is gone from the index, on disk, before the first byte changes.
 * start and end bracket each write. sync brings data and rows to the disk.
 */
#include "worker/block_change.h"

#define SYNC_TRIES 8

/* ---- the fast path ---- */

/* May [offset, end) be written now? Lock held. */
static int check_write(const struct block *b, const struct block_key *key, uint64_t epoch, uint32_t offset,
                       uint32_t end)
{
    if (b->lost)
        return -CV_DATA_DAMAGED;
    if (!b->exists || !block_dirty(b) || b->version != key->version || b->epoch != epoch)
        return -CV_STALE_EPOCH; /* of this epoch nothing was begun here, or it is over */
    if (end <= offset || !b->file || end > 1u << b->file->shift)
        return -EINVAL;
    return block_stretches_surround(&b->torn, offset, end) ? -CV_DATA_DAMAGED : 0;
}

/* The chunk the block ends in must not be in the making while the block grows past it. */
static uint64_t growing_past(const struct block *b, uint32_t end)
{
    return end > b->length && b->length % BLOCK_CHUNK_BYTES ? 1ull << (b->length / BLOCK_CHUNK_BYTES) : 0;
}

static uint64_t chunks_of(uint32_t offset, uint32_t end)
{
    uint32_t first = offset / BLOCK_CHUNK_BYTES, last = (end - 1) / BLOCK_CHUNK_BYTES;
    return block_bits(first, last - first + 1);
}

static bool ready(const struct block *b, uint32_t offset, uint32_t end)
{
    uint64_t chunks = chunks_of(offset, end), tail = growing_past(b, end);
    if (b->busy || b->file->busy || b->file->fd < 0 || !b->watched || (b->open & chunks) != chunks ||
        b->damaged & chunks)
        return false;
    return end <= b->length || (end <= b->room && !(tail & b->filling) && !(tail & b->present & ~b->open));
}

int block_write_start(struct block_store *s, const struct block_key *key, uint64_t epoch, uint32_t offset, uint32_t n,
                      struct block_write *ret)
{
    uint32_t end = offset + n;
    pthread_mutex_lock(&s->lock);
    struct block *b = block_find(s, key->inode, key->index);
    int r = s->failed ? -CV_STOPPING : !b || b->loading ? -CV_NOT_PREPARED : 0;
    if (r == 0)
        r = check_write(b, key, epoch, offset, end);
    if (r == 0 && (!ready(b, offset, end) || !block_durable_note(b, offset, end)))
        r = -CV_NOT_PREPARED;
    if (r == 0) {
        if (end > b->length) {
            b->length = end;
            b->unsaved = true;
        }
        block_store_unsynced(s, b->file);
        b->recent = true;
        b->calm = 0;
        b->writers++;
        b->file->writers++;
        b->file->users++;
        *ret = (struct block_write){
            .fd = b->file->fd,
            .fd_offset = ((uint64_t)b->index << b->file->shift) + offset,
            .offset = offset,
            .length = n,
            .block = b,
            .file = b->file,
        };
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

void block_write_end(struct block_store *s, struct block_write *w, int result)
{
    if (!w->block)
        return;
    pthread_mutex_lock(&s->lock);
    assert(w->block->writers > 0 && w->file->writers > 0);
    w->block->writers--;
    if (result >= 0)
        w->block->unsaved |= block_stretches_sub(&w->block->torn, w->offset, w->offset + w->length);
    block_store_unsynced(s, w->file); /* again: it may have been synced since it started */
    if (--w->file->writers == 0 || w->block->writers == 0)
        pthread_cond_broadcast(&s->changed);
    if (result >= 0) {
        s->stats.written_bytes += w->length;
        block_flow_note(s, w->file, w->fd_offset, w->length);
    }
    block_file_unuse_locked(s, w->file);
    pthread_mutex_unlock(&s->lock);
    if (result < 0)
        (void)block_space_write_error(s, result);
    *w = (struct block_write){.fd = -1};
}

/* ---- opening chunks ---- */

/* What a write of [offset, end) needs. Lock held. Errors: -ENODATA content of the base is missing; -EAGAIN a sync first. */
static int plan(const struct block *b, uint32_t offset, uint32_t end, struct block_change *x)
{
    *x = block_change_none(b);
    for (uint32_t c = offset / BLOCK_CHUNK_BYTES; c * BLOCK_CHUNK_BYTES < end; c++) {
        uint64_t bit = 1ull << c;
        uint32_t start = c * BLOCK_CHUNK_BYTES;
        uint32_t based = min(max(b->base_length, start), start + BLOCK_CHUNK_BYTES);
        uint32_t reach = min(b->length, start + BLOCK_CHUNK_BYTES);
        if (b->damaged & bit && !(offset <= start && end >= reach)) /* all of it anew is welcome */
            return b->written & bit ? -CV_DATA_DAMAGED : -ENODATA;
        if (!(b->present & bit) && based > start && !(offset <= start && end >= based))
            return -ENODATA;
        x->opened |= bit & ~b->open;
    }
    uint32_t length = max(end, b->length);
    if (end > b->length)
        x->opened |= block_change_short_tail(b, b->length);
    if (x->opened || end > b->room) {
        /* Chunks before the last of the block may be written anywhere in. */
        uint32_t last = 63 - (uint32_t)__builtin_clzll(b->open | x->opened);
        x->room = max(b->room, block_change_room(b, min((last + 1) * BLOCK_CHUNK_BYTES, length)));
    }
    x->sync = (x->opened & b->present) != 0;
    x->watch = true;
    return block_durable_fill(b, offset, end, &x->filled) ? 0 : -EAGAIN;
}

/* Claim the block when no fill is in the way of a write of [offset, end). */
static void claim_for_write(struct block_store *s, struct block *b, uint32_t offset, uint32_t end)
{
    pthread_mutex_lock(&s->lock);
    for (;;) {
        block_claim(s, b);
        if (end <= offset || !(b->filling & (chunks_of(offset, end) | growing_past(b, end))))
            break;
        block_unclaim(s, b); /* its end needs the claim */
        pthread_cond_wait(&s->changed, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

int block_write_prepare(struct block_store *s, const struct block_key *key, uint64_t epoch, uint32_t offset, uint32_t n)
{
    struct block *b;
    struct block_change x;
    uint32_t end = offset + n;
    int r = block_store_check(s);
    if (r == 0)
        r = block_hold(s, key->inode, key->index, &b);
    if (r < 0)
        return r;
    claim_for_write(s, b, offset, end);
    pthread_mutex_lock(&s->lock);
    r = check_write(b, key, epoch, offset, end);
    if (r == 0)
        r = plan(b, offset, end, &x);
    pthread_mutex_unlock(&s->lock);
    if (r == 0)
        r = block_file_use(s, b->file);
    if (r == 0) {
        r = block_change(s, b, &x);
        block_file_unuse(s, b->file);
    } else if (r == -ENOENT) {
        r = -CV_DATA_DAMAGED;
    }
    pthread_mutex_lock(&s->lock);
    block_unclaim(s, b);
    while (r == 0 && b->file && b->file->busy) /* being cut, or exported */
        pthread_cond_wait(&s->changed, &s->lock);
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
    return r;
}

int block_write(struct block_store *s, const struct block_key *key, uint64_t epoch, uint32_t offset, const void *p,
                uint32_t n)
{
    struct block_write w;
    int r;
    for (int tries = 0; (r = block_write_start(s, key, epoch, offset, n, &w)) == -CV_NOT_PREPARED; tries++) {
        r = block_write_prepare(s, key, epoch, offset, n);
        if (r == -EAGAIN)
            r = block_write_sync(s, key->inode);
        if (r < 0 || tries == 64)
            return r < 0 ? r : -CV_BUSY;
    }
    if (r < 0)
        return r;
    r = block_io_write(w.fd, p, n, w.fd_offset);
    block_write_end(s, &w, r);
    return r == -ENOSPC || r == -EDQUOT ? -CV_NO_SPACE : r;
}

/* ---- to the disk ---- */

/* Again what was cut meanwhile, under another epoch. Errors: -CV_BUSY it was cut each time. */
static int save_all(struct block_store *s, struct block_file *f)
{
    bool all = false;
    int r = 0;
    for (int tries = 0; r == 0 && !all && tries < SYNC_TRIES; tries++)
        r = block_durable_save(s, f, true, &all);
    return r == 0 && !all ? -CV_BUSY : r;
}

int block_write_sync(struct block_store *s, uint64_t inode)
{
    struct block_file *f;
    int r = block_store_check(s);
    if (r == 0)
        r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f);
    if (r < 0)
        return r;
    if (f->exists) {
        r = block_file_use(s, f);
        if (r == 0) {
            r = save_all(s, f);
            block_file_unuse(s, f);
        }
        if (r == 0) {
            r = block_index_sync(s->index);
            r = r < 0 ? block_store_fail(s, r, "sync of the index") : block_store_mark(s, false);
        }
    }
    block_file_unhold(s, f);
    return r;
}
