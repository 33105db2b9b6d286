/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills. A fill owns its chunks (bit in `filling`) and their reserved space until each is sealed or the fill ends. Large
 * files are written in place; a small one is collected in memory and appended to a segment when it is sealed.
 */
#include "worker/block_state.h"
#include "worker/block_units.h"

#include "base/log.h"

struct block_fill {
    struct block_store *s;
    struct block *block;     /* held */
    struct block_file *file; /* held and in use; NULL: packed */
    struct block_key key;
    struct block_place place;
    uint64_t mine;    /* chunks this fill still owns */
    uint64_t touched; /* of them: something was written */
    uint32_t fetched; /* bytes of the block that come from the source; zeros follow */
    uint32_t length;  /* of the block when it began */
    uint32_t first;
    bool pinned;
    void *packed;               /* length bytes */
    struct block_units units[]; /* of chunk first + i */
};

static bool place_ok(const struct block_place *p)
{
    return p->block_bytes >= BLOCK_BYTES_MIN && p->block_bytes <= BLOCK_BYTES_MAX &&
           (p->block_bytes & (p->block_bytes - 1)) == 0 && p->length > 0 && p->length <= p->block_bytes;
}

static bool to_be_packed(const struct block_key *key, const struct block_place *place)
{
    return key->index == 0 && place->file_bytes <= BLOCK_PACKED_MAX && place->file_bytes == place->length;
}

/* ---- beginning: each step on the claimed block ---- */

/* Whatever is here of another version goes, if it may. */
static int make_way(struct block_store *s, struct block *b, const struct block_key *key,
                    const struct block_place *place, uint64_t range)
{
    pthread_mutex_lock(&s->lock);
    bool other = b->exists && (b->version != key->version ||
                               /* the same content, of which we knew another part of the zeros at its end */
                               (b->present && !block_dirty(b) && b->length != place->length));
    uint64_t drop = other ? b->present : b->damaged & ~b->written & range;
    bool exported = b->file && !b->packed && block_file_exported(s, b->file);
    int r = 0;
    if (b->lost)
        r = -CV_DATA_DAMAGED;
    else if (other && b->version > key->version && (b->present || block_dirty(b)))
        r = -ESTALE;
    else if (other && (block_dirty(b) || b->filling || b->writers || (b->readers && !exported && !b->packed)))
        r = -CV_BUSY;

    pthread_mutex_unlock(&s->lock);
    return r < 0 || !drop ? r : block_drop(s, b, drop);
}

/* The block's state for this version. A block may exist without a chunk (a fill that was killed leaves that): its row
 * still names what it was to be. Returns whether the row says something else now. Lock held. */
static bool set_version(struct block *b, const struct block_key *key, const struct block_place *place, bool pinned)
{
    bool changed = pinned && !b->pinned;
    b->pinned |= pinned;
    if (block_dirty(b) || (b->exists && b->version == key->version && (b->present || b->filling)))
        return changed;
    changed |= b->version != key->version || b->base_version != key->version || b->length != place->length ||
               b->base_length != place->length || b->mount != place->mount;
    b->version = b->base_version = key->version;
    b->length = b->base_length = place->length;
    b->mount = place->mount;
    return changed;
}

/* The backing file of the inode, claimed, in use, made if there is none. */
int block_fill_file(struct block_store *s, uint64_t inode, uint32_t block_bytes, struct block_file **ret)
{
    struct block_file *f;
    uint8_t shift = (uint8_t)__builtin_ctz(block_bytes);
    int r;
    for (;;) {
        r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f);
        if (r < 0)
            return r;
        pthread_mutex_lock(&s->lock);
        block_file_claim(s, f);
        bool retired = f->retired;
        if (retired)
            block_file_unclaim(s, f);
        pthread_mutex_unlock(&s->lock);
        if (!retired)
            break;
        block_file_unhold(s, f); /* went while we waited: look again */
    }
    if (f->exists) {
        r = f->lost ? -CV_DATA_DAMAGED : f->shift != shift ? -EINVAL : block_file_use(s, f);
        if (r == -ENOENT)
            r = -CV_BUSY; /* its chunks have to be found missing first */
    } else {
        uint64_t id;
        r = block_store_file_id(s, &id);
        if (r == 0) {
            r = block_file_create(s, f, id, shift);
            if (r < 0)
                r = block_space_write_error(s, r);
        }
    }
    if (r < 0) {
        pthread_mutex_lock(&s->lock);
        block_file_unclaim(s, f);
        pthread_mutex_unlock(&s->lock);
        block_file_unhold(s, f);
        return r;
    }
    *ret = f;
    return 0;
}

/* Rows before bytes: block, file, and that something is pending. */
static int begin_in_file(struct block_fill *f)
{
    struct block_store *s = f->s;
    struct block *b = f->block;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    int r = block_fill_file(s, f->key.inode, f->place.block_bytes, &f->file);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    bool new_row = set_version(b, &f->key, &f->place, f->pinned);
    new_row |= !b->exists || b->file != f->file;
    block_attach(s, b, f->file);
    b->exists = true;
    if (new_row)
        block_put_row(s, batch, b);
    if (f->file->fresh)
        block_file_put_row(s, batch, f->file);
    block_drop_put_pending(batch, b, BLOCK_CUT_NONE);
    pthread_mutex_unlock(&s->lock);
    r = block_store_commit(s, batch, false);
    pthread_mutex_lock(&s->lock);
    if (r == 0) {
        b->filling |= f->mine;
        block_heat_reset(&b->heat, f->mine);
        f->fetched = min(b->base_length, b->length);
        f->length = b->length;
    }
    block_file_unclaim(s, f->file);
    pthread_mutex_unlock(&s->lock);
    return r;
}

static int begin_packed(struct block_fill *f)
{
    f->packed = block_io_alloc(f->place.length);
    if (!f->packed)
        return -ENOMEM;
    pthread_mutex_lock(&f->s->lock);
    f->block->filling |= f->mine;
    f->fetched = f->length = f->place.length;
    pthread_mutex_unlock(&f->s->lock);
    return 0;
}

/* Which chunks are this fill's, and what they will be charged. */
static uint64_t choose(struct block_fill *f, uint64_t range, uint64_t *ret_bytes)
{
    struct block_store *s = f->s;
    struct block *b = f->block;
    pthread_mutex_lock(&s->lock);
    uint64_t mine = range & ~b->present & ~b->filling;
    uint32_t length = f->place.length;
    if (block_dirty(b)) { /* what lies beyond the base is zeros, not to be fetched */
        mine &= block_bits(0, block_chunk_count(min(b->base_length, b->length)));
        length = b->length;
    }
    *ret_bytes = 0;
    for (uint64_t left = mine; left; left &= left - 1)
        *ret_bytes += BLOCK_PAGE * block_pages(length, (uint32_t)__builtin_ctzll(left));
    pthread_mutex_unlock(&s->lock);
    return mine;
}

static int begin(struct block_fill *f, uint64_t range)
{
    struct block_store *s = f->s;
    uint64_t bytes = 0;
    int r = make_way(s, f->block, &f->key, &f->place, range);
    if (r < 0)
        return r;
    f->mine = choose(f, range, &bytes);
    if (!f->mine)
        return -EALREADY;
    pthread_mutex_lock(&s->lock);
    bool pack = to_be_packed(&f->key, &f->place) && !block_dirty(f->block) && !f->block->file;
    pthread_mutex_unlock(&s->lock);
    if (pack)
        return begin_packed(f);
    r = block_space_reserve(s, bytes);
    if (r < 0)
        return r;
    r = begin_in_file(f);
    if (r < 0) {
        pthread_mutex_lock(&s->lock);
        block_space_unreserve(s, bytes);
        pthread_mutex_unlock(&s->lock);
    }
    return r;
}

static void release_file(struct block_fill *f)
{
    if (!f->file)
        return;
    block_file_unuse(f->s, f->file);
    block_file_unhold(f->s, take(f->file));
}

int block_fill_begin(struct block_store *s, const struct block_key *key, const struct block_place *place,
                     uint32_t first, uint32_t count, unsigned flags, struct block_fill **ret, uint64_t *ret_mine)
{
    if (!place_ok(place) || key->version == 0 || first >= block_chunk_count(place->length) || count == 0)
        return -EINVAL;
    count = min(count, block_chunk_count(place->length) - first);
    int r = block_store_check(s);
    if (r < 0)
        return r;
    struct block_fill *f cleanup(freep) = block_io_alloc(sizeof(*f) + count * sizeof(f->units[0]));
    if (!f)
        return -ENOMEM;
    f->s = s;
    f->key = *key;
    f->place = *place;
    f->first = first;
    f->pinned = flags & BLOCK_FILL_PINNED;
    r = block_take(s, key->inode, key->index, &f->block);
    if (r < 0)
        return r;
    r = begin(f, block_bits(first, count));
    pthread_mutex_lock(&s->lock);
    block_unclaim(s, f->block);
    if (r < 0)
        block_unhold_locked(s, f->block);
    pthread_mutex_unlock(&s->lock);
    if (r < 0) {
        release_file(f);
        free(f->packed);
        return r;
    }
    *ret_mine = f->mine;
    *ret = take(f);
    return 0;
}

/* ---- bytes ---- */

static bool owns(const struct block_fill *f, uint32_t chunk)
{
    return __atomic_load_n(&f->mine, __ATOMIC_RELAXED) >> chunk & 1; /* other chunks may be sealed meanwhile */
}

/* Bytes of a chunk that come from the source. */
static uint32_t chunk_fetched(const struct block_fill *f, uint32_t chunk)
{
    uint32_t start = chunk * BLOCK_CHUNK_BYTES;
    return f->fetched <= start ? 0 : min(f->fetched - start, BLOCK_CHUNK_BYTES);
}

uint32_t block_fill_bytes(const struct block_fill *f)
{
    return f->fetched;
}

static bool in_order(const struct block_fill *f, uint32_t offset, uint32_t n)
{
    if (n == 0 || offset + n < offset || offset + n > f->fetched)
        return false;
    for (uint32_t at = offset; at < offset + n;) {
        uint32_t chunk = at / BLOCK_CHUNK_BYTES, within = at % BLOCK_CHUNK_BYTES;
        uint32_t piece = min(offset + n - at, BLOCK_CHUNK_BYTES - within);
        if (!owns(f, chunk) || !block_units_fit(&f->units[chunk - f->first], within, piece))
            return false;
        at += piece;
    }
    return true;
}

int block_fill_where(struct block_fill *f, uint32_t offset, uint32_t n, int *ret_fd, uint64_t *ret_fd_offset)
{
    if (f->packed)
        return -EOPNOTSUPP;
    if (!in_order(f, offset, n))
        return -EINVAL;
    *ret_fd = f->file->fd;
    *ret_fd_offset = ((uint64_t)f->key.index << f->file->shift) + offset;
    return 0;
}

int block_fill_wrote(struct block_fill *f, uint32_t offset, const void *p, uint32_t n)
{
    if (!in_order(f, offset, n))
        return -EINVAL;
    for (uint32_t done = 0; done < n;) {
        uint32_t chunk = (offset + done) / BLOCK_CHUNK_BYTES, within = (offset + done) % BLOCK_CHUNK_BYTES;
        uint32_t piece = min(n - done, BLOCK_CHUNK_BYTES - within);
        block_units_add(&f->units[chunk - f->first], within, (const char *)p + done, piece);
        __atomic_fetch_or(&f->touched, 1ull << chunk, __ATOMIC_RELAXED);
        done += piece;
    }
    return 0;
}

int block_fill_write(struct block_fill *f, uint32_t offset, const void *p, uint32_t n)
{
    int fd;
    uint64_t at;
    if (f->packed) {
        int r = block_fill_wrote(f, offset, p, n);
        if (r == 0)
            memcpy((char *)f->packed + offset, p, n);
        return r;
    }
    int r = block_fill_where(f, offset, n, &fd, &at);
    if (r < 0)
        return r;
    for (uint32_t c = offset / BLOCK_CHUNK_BYTES; c <= (offset + n - 1) / BLOCK_CHUNK_BYTES; c++)
        __atomic_fetch_or(&f->touched, 1ull << c, __ATOMIC_RELAXED);
    r = block_io_write(fd, p, n, at);
    return r < 0 ? block_space_write_error(f->s, r) : block_fill_wrote(f, offset, p, n);
}

/* ---- sealing ---- */

static int seal_packed(struct block_fill *f)
{
    struct block_store *s = f->s;
    struct block *b = f->block;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    struct block_file *segment;
    uint32_t offset;
    uint64_t seal;
    if (!batch)
        return -ENOMEM;
    struct block_entry_head head = {
        .inode = f->key.inode,
        .block_version = f->key.version,
        .length = f->place.length,
        .mount = f->place.mount,
        .crc = {f->units[0].crc[0], f->units[0].crc[1]},
    };
    int r = block_segment_append(s, &s->fills, &head, f->packed, &segment, &offset);
    if (r < 0)
        return r;
    r = block_store_seal(s, segment, &seal);
    if (r == 0) {
        pthread_mutex_lock(&s->lock);
        block_claim(s, b);
        (void)set_version(b, &f->key, &f->place, f->pinned); /* the row is written anyway */
        block_put_packed_row(batch, b, segment->key, offset, f->units[0].crc, seal);
        pthread_mutex_unlock(&s->lock);
        struct block_row_key mount = block_key_u32(BLOCK_ROW_MOUNT, f->place.mount);
        block_batch_add(batch, &mount, block_packed_bytes(f->place.length));
        r = block_store_commit(s, batch, false);
        pthread_mutex_lock(&s->lock);
        if (r == 0) {
            b->exists = b->packed = true;
            b->entry_offset = offset;
            b->present = b->checked = 1;
            b->damaged = b->doubt = b->written = b->open = 0;
            b->filling = 0;
            b->heat = (struct block_heat){0};
            block_attach(s, b, segment);
            s->stats.filled_bytes += f->place.length;
        }
        block_unclaim(s, b);
        pthread_mutex_unlock(&s->lock);
    }
    block_file_unhold(s, segment);
    return r;
}

static int seal_in_file(struct block_fill *f, uint32_t chunk)
{
    struct block_store *s = f->s;
    struct block *b = f->block;
    struct block_units *u = &f->units[chunk - f->first];
    uint64_t bit = 1ull << chunk;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    struct block_row_chunk row = {.state = BLOCK_CHUNK_SEALED, .block_version = f->key.version};
    if (!batch)
        return -ENOMEM;
    uint64_t seal;
    int r = block_store_seal(s, f->file, &seal);
    if (r < 0)
        return r;
    row.seal = seal;
    pthread_mutex_lock(&s->lock);
    row.length = block_chunk_length(b, chunk);
    row.pages = (uint16_t)block_pages(b->length, chunk);
    if (block_dirty(b))
        row.block_version = b->base_version;
    uint32_t mount = b->mount;
    pthread_mutex_unlock(&s->lock);
    block_units_zeros(u, chunk_fetched(f, chunk), row.length);
    memcpy(row.unit_crc, u->crc, sizeof(row.unit_crc));
    int64_t bytes = row.pages * BLOCK_PAGE;
    block_put_chunk(batch, b, chunk, &row);
    block_add_charge(s, batch, mount, bytes);
    r = block_store_commit(s, batch, false);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    b->present |= bit;
    b->checked |= bit;
    b->filling &= ~bit;
    b->damaged &= ~bit;
    b->doubt &= ~bit;
    __atomic_fetch_and(&f->mine, ~bit, __ATOMIC_RELAXED);
    block_space_unreserve(s, (uint64_t)bytes);
    s->used += (uint64_t)bytes;
    s->stats.filled_bytes += row.length;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int block_fill_seal(struct block_fill *f, uint32_t chunk, const uint32_t *crc)
{
    if (chunk < f->first || chunk >= 64 || !owns(f, chunk))
        return -EINVAL;
    struct block_units *u = &f->units[chunk - f->first];
    uint32_t length = chunk_fetched(f, chunk);
    if (!block_units_complete(u, length))
        return -EAGAIN;
    for (uint32_t i = 0; crc && i * BLOCK_UNIT_BYTES < length; i++)
        if (crc[i] != u->crc[i])
            return -CV_BAD_CHECKSUM;
    int r = f->packed ? seal_packed(f) : seal_in_file(f, chunk);
    if (r == 0 && f->packed)
        f->mine = 0;
    return r;
}

/* ---- the end ---- */

/* What was not sealed leaves nothing behind. Claimed. */
static int give_up(struct block_fill *f)
{
    struct block_store *s = f->s;
    struct block *b = f->block;
    int r = block_drop_punch(s, f->file, b->index, f->mine & f->touched);
    pthread_mutex_lock(&s->lock);
    uint64_t bytes = 0;
    for (uint64_t left = f->mine; left; left &= left - 1)
        bytes += BLOCK_PAGE * block_pages(f->length, (uint32_t)__builtin_ctzll(left));
    block_space_unreserve(s, bytes);
    b->filling &= ~f->mine;
    f->mine = 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* The last fill of a block ends: nothing pending, and no row for nothing. Claimed. */
static void settle(struct block_fill *f)
{
    struct block_store *s = f->s;
    struct block *b = f->block;
    pthread_mutex_lock(&s->lock);
    bool last = !b->filling;
    bool nothing = last && !b->present && !block_dirty(b);
    pthread_mutex_unlock(&s->lock);
    if (!last || block_store_check(s) < 0)
        return;
    if (!nothing) {
        (void)block_drop_settled(s, b);
        return;
    }
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return; /* an empty row: harmless */
    pthread_mutex_lock(&s->lock);
    block_attach(s, b, NULL);
    b->exists = b->epoch != 0;
    struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
    if (b->exists)
        block_put_row(s, batch, b);
    else
        block_batch_delete(batch, &key);
    pthread_mutex_unlock(&s->lock);
    key = block_key_block(BLOCK_ROW_PENDING, b->inode, b->index);
    block_batch_delete(batch, &key);
    if (block_store_commit(s, batch, false) == 0)
        (void)block_file_reap(s, f->file);
}

struct block_fill *block_fill_end(struct block_fill *f)
{
    if (!f)
        return NULL;
    struct block_store *s = f->s;
    struct block *b = f->block;
    pthread_mutex_lock(&s->lock);
    if (f->file)
        block_claim(s, b);
    else
        b->filling &= ~f->mine;
    pthread_mutex_unlock(&s->lock);
    if (f->file) {
        if (f->mine && give_up(f) < 0)
            log_debug("fill of inode %llu: gave up, space not punched", (unsigned long long)f->key.inode);
        settle(f);
        pthread_mutex_lock(&s->lock);
        block_unclaim(s, b);
        pthread_mutex_unlock(&s->lock);
    }
    release_file(f);
    free(f->packed);
    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&s->changed);
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
    free(f);
    return NULL;
}
