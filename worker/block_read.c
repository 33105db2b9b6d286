/* SPDX-License-Identifier: Apache-2.0 */
/* Presence and reads: the fast path under the short lock, and what brings a block to where it works. */
#include "worker/block_state.h"

#include <fcntl.h>
#include <stdio.h>

int block_presence(struct block_store *s, uint64_t inode, uint32_t index, struct block_presence *ret)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    struct block *b = block_find(s, inode, index);
    if (!b || b->loading) {
        r = -CV_NOT_PREPARED;
    } else if (!b->exists && !b->filling) {
        r = b->lost ? -CV_DATA_DAMAGED : -ENODATA;
    } else {
        *ret = (struct block_presence){
            .version = b->version,
            .file_id = b->file ? b->file->id : 0,
            .length = b->length,
            .readable = ((b->present & ~b->damaged) | block_zero_chunks(b)) & ~block_stretches_chunks(&b->torn),
            .torn = block_stretches_chunks(&b->torn),
            .sealed = b->present & ~b->open & ~b->damaged,
            .open = b->open,
            .checked = b->checked & b->present & ~b->open & ~b->damaged,
            .filling = b->filling,
            .damaged = b->damaged & b->written,
            .dirty = block_dirty(b),
            .packed = b->packed,
            .pinned = b->pinned,
        };
        b->recent = true;
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

int block_prepare(struct block_store *s, uint64_t inode, uint32_t index)
{
    struct block *b;
    int r = block_hold(s, inode, index, &b);
    if (r < 0)
        return r;
    struct block_file *f = NULL;
    pthread_mutex_lock(&s->lock);
    if (!b->exists && !b->filling) {
        r = b->lost ? -CV_DATA_DAMAGED : -ENODATA;
    } else if (b->file) {
        f = b->file;
        f->refs++;
    }
    pthread_mutex_unlock(&s->lock);
    if (f) {
        if (block_file_use(s, f) == 0)
            block_file_unuse(s, f);
        block_file_unhold(s, f);
    }
    block_unhold(s, b);
    return r;
}

/* ---- the fast path ---- */

enum verdict { READ_OK, READ_ABSENT, READ_UNCHECKED, READ_DAMAGED };

static enum verdict judge(const struct block *b, uint32_t chunk, uint64_t zeros, unsigned flags)
{
    uint64_t bit = 1ull << chunk;
    if (zeros & bit)
        return READ_OK;
    if (b->damaged & bit)
        return b->written & bit ? READ_DAMAGED : READ_ABSENT;
    if (!(b->present & bit))
        return READ_ABSENT;
    if ((b->open | b->checked) & bit)
        return READ_OK;
    return (flags & BLOCK_READ_UNCHECKED) && !(b->doubt & bit) ? READ_OK : READ_UNCHECKED;
}

/* Bytes from offset that may be read now; 0 with *ret_why. */
static uint32_t readable(const struct block *b, uint32_t offset, uint32_t length, unsigned flags, enum verdict *ret_why)
{
    uint64_t zeros = block_zero_chunks(b);
    uint32_t end = offset + min(length, b->length - offset), at = offset;
    struct block_stretch torn;
    *ret_why = READ_OK;
    if (block_stretches_find(&b->torn, offset, end, &torn)) {
        *ret_why = READ_DAMAGED;
        end = torn.from;
    }
    while (at < end) {
        uint32_t chunk = at / BLOCK_CHUNK_BYTES;
        *ret_why = judge(b, chunk, zeros, flags);
        if (*ret_why != READ_OK)
            break;
        at = (chunk + 1) * BLOCK_CHUNK_BYTES;
    }
    return min(at, end) - offset;
}

/* Count the chunks somebody came to; going on within a chunk does not count again. */
static void touch(struct block *b, uint32_t offset, uint32_t length)
{
    uint32_t first = offset / BLOCK_CHUNK_BYTES, last = (offset + length - 1) / BLOCK_CHUNK_BYTES;
    uint64_t chunks = block_bits(first, last - first + 1);
    if (offset == b->next_offset && offset % BLOCK_CHUNK_BYTES)
        chunks &= ~(1ull << first);
    block_heat_read(&b->heat, chunks & b->present);
    b->next_offset = offset + length;
    b->recent = true;
}

/* Lock held. */
static int find(struct block_store *s, const struct block_key *key, uint32_t offset, uint32_t length, unsigned flags,
                struct block_read *ret)
{
    struct block *b = block_find(s, key->inode, key->index);
    if (!b || b->loading)
        return -CV_NOT_PREPARED;
    if (b->lost)
        return -CV_DATA_DAMAGED;
    if (!b->exists || b->version != key->version)
        return -ENODATA;
    *ret = (struct block_read){.fd = -1};
    if (offset >= b->length)
        return 0;
    enum verdict why;
    uint32_t n = readable(b, offset, length, flags, &why);
    if (n == 0 && why != READ_OK)
        return why == READ_ABSENT ? -ENODATA : why == READ_DAMAGED ? -CV_DATA_DAMAGED : -CV_NOT_PREPARED;
    if (!b->file) /* nothing but zeros, and no file to read them from yet */
        return -ENODATA;
    if (b->file->fd < 0)
        return -CV_NOT_PREPARED;
    touch(b, offset, n);
    b->readers++;
    b->file->users++;
    *ret = (struct block_read){
        .fd = b->file->fd,
        .fd_offset = block_place_of(b, offset),
        .length = n,
        .block = b,
        .file = b->file,
    };
    return 0;
}

int block_read_begin(struct block_store *s, const struct block_key *key, uint32_t offset, uint32_t length,
                     unsigned flags, struct block_read *ret)
{
    if (length == 0)
        return -EINVAL;
    pthread_mutex_lock(&s->lock);
    int r = find(s, key, offset, length, flags, ret);
    s->stats.hits += r == 0;
    s->stats.misses += r == -ENODATA;
    s->stats.prepares += r == -CV_NOT_PREPARED;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void block_read_end(struct block_store *s, struct block_read *r)
{
    if (!r->block)
        return;
    pthread_mutex_lock(&s->lock);
    assert(r->block->readers > 0);
    if (--r->block->readers == 0)
        pthread_cond_broadcast(&s->changed);
    r->block->refs++; /* so that it goes in one place when it is worth nothing */
    block_unhold_locked(s, r->block);
    block_file_unuse_locked(s, r->file);
    pthread_mutex_unlock(&s->lock);
    *r = (struct block_read){.fd = -1};
}

/* ---- the blocking part ---- */

/* Verify what the range needs of a claimed block. */
static int check_range(struct block_store *s, struct block *b, uint32_t offset, uint32_t length, unsigned flags)
{
    uint32_t end = offset + min(length, b->length - offset);
    uint64_t found = 0;
    for (uint32_t c = offset / BLOCK_CHUNK_BYTES; c * BLOCK_CHUNK_BYTES < end; c++) {
        pthread_mutex_lock(&s->lock);
        bool check = judge(b, c, 0, flags) == READ_UNCHECKED;
        pthread_mutex_unlock(&s->lock);
        int r = check ? block_check_chunk(s, b, c) : 0;
        if (r < 0 && r != -CV_DATA_DAMAGED)
            return r;
        if (r < 0)
            found |= 1ull << c;
    }
    return found ? block_check_settle(s, b) : 0;
}

int block_read_prepare(struct block_store *s, const struct block_key *key, uint32_t offset, uint32_t length,
                       unsigned flags)
{
    struct block *b;
    int r = block_prepare(s, key->inode, key->index);
    if (r == 0)
        r = block_take(s, key->inode, key->index, &b);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    bool here = b->exists && b->version == key->version;
    bool missing = here && b->file && b->file->missing;
    if (missing)
        b->damaged |= b->present;
    pthread_mutex_unlock(&s->lock);
    if (b->lost)
        r = -CV_DATA_DAMAGED;
    else if (!here)
        r = -ENODATA;
    else if (missing)
        r = block_check_settle(s, b);
    else if (offset < b->length && b->file)
        r = check_range(s, b, offset, length, flags);
    block_give_back(s, b);
    return r;
}

int block_read(struct block_store *s, const struct block_key *key, uint32_t offset, void *p, uint32_t length)
{
    struct block_read rd;
    int r;
    for (int tries = 0; (r = block_read_begin(s, key, offset, length, 0, &rd)) == -CV_NOT_PREPARED; tries++) {
        r = block_read_prepare(s, key, offset, length, 0);
        if (r < 0 || tries == 16)
            return r < 0 ? r : -CV_BUSY;
    }
    if (r < 0 || rd.length == 0)
        return r;
    size_t got = 0;
    r = block_io_read(rd.fd, p, rd.length, rd.fd_offset, &got);
    if (r == 0) {
        memset((char *)p + got, 0, rd.length - got);
        r = (int)rd.length;
    }
    block_read_end(s, &rd);
    return r;
}

/* ---- CRCs for readers who check themselves ---- */

int block_read_crcs(struct block_store *s, const struct block_key *key, uint32_t chunk, bool may_block,
                    uint32_t ret_crc[BLOCK_CHUNK_UNITS], uint32_t *ret_length)
{
    pthread_mutex_lock(&s->lock);
    struct block *b = block_find(s, key->inode, key->index);
    bool loaded = b && !b->loading;
    if (loaded)
        b->refs++;
    pthread_mutex_unlock(&s->lock);
    if (!loaded && !may_block)
        return -CV_NOT_PREPARED;
    int r = loaded ? 0 : block_hold(s, key->inode, key->index, &b);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    struct block copy = *b; /* the row is read for what the block is now */
    pthread_mutex_unlock(&s->lock);
    if (chunk >= 64 || !copy.exists || copy.version != key->version ||
        !(copy.present & ~copy.open & ~copy.damaged & 1ull << chunk))
        r = -ENODATA;
    if (r == 0)
        r = block_check_row(s, &copy, chunk, !may_block, ret_crc, ret_length);
    pthread_mutex_lock(&s->lock);
    bool same = b->exists && b->version == key->version && (b->present & ~b->open & 1ull << chunk);
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
    if (r != -CV_NOT_PREPARED && !same)
        return -ENODATA; /* changed meanwhile: whatever was read */
    return r == -CV_BAD_CHECKSUM ? block_store_index_error(s, r) : r;
}

int block_read_verify(struct block_store *s, const struct block_key *key, uint32_t chunk)
{
    struct block *b;
    int r = block_take(s, key->inode, key->index, &b);
    if (r < 0)
        return r;
    if (chunk >= 64 || !b->exists || b->version != key->version || !(b->present & ~b->open & 1ull << chunk))
        r = -ENODATA;
    else
        r = block_check_chunk(s, b, chunk);
    if (r == -CV_DATA_DAMAGED)
        r = block_check_settle(s, b);
    block_give_back(s, b);
    return r;
}
