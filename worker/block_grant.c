/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From clean to written and back: the first contact under an epoch, giving open chunks their CRCs, and the committed
 * record that says the under file system has it all.
 */
#include "worker/block_change.h"
#include "worker/block_units.h"

#include "base/log.h"
#include "wire/data_flags.h"

/* ---- a packed block gets a backing file ---- */

static int copy_out(struct block_store *s, struct block *b, struct block_file *to, struct block_units *u)
{
    struct block_file *from = b->file;
    char *data cleanup(freep) = block_io_alloc(b->length);
    size_t n = 0;
    int r = data ? block_file_use(s, from) : -ENOMEM;
    if (r < 0)
        return r;
    r = block_io_read(from->fd, data, b->length, block_place_of(b, 0), &n);
    block_file_unuse(s, from);
    if (r < 0)
        return r;
    block_units_add(u, 0, data, b->length);
    r = block_io_write(to->fd, data, b->length, 0);
    return r < 0 ? block_space_write_error(s, r) : 0;
}

static int unpack_into(struct block_store *s, struct block *b, struct block_file *f, uint64_t bytes)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    struct block_units u = {0};
    uint32_t crc[BLOCK_CHUNK_UNITS], length;
    struct block_row_chunk row = {
        .state = BLOCK_CHUNK_SEALED,
        .pages = (uint16_t)block_pages(b->length, 0),
        .length = b->length,
        .block_version = b->version,
    };
    int r = batch ? copy_out(s, b, f, &u) : -ENOMEM;
    if (r == 0)
        r = block_check_row(s, b, 0, false, crc, &length);
    if (r == 0 && memcmp(crc, u.crc, sizeof(crc)) != 0)
        r = -CV_DATA_DAMAGED;
    uint64_t seal;
    if (r == 0)
        r = block_store_seal(s, f, &seal);
    if (r < 0)
        return r;
    row.seal = seal;
    memcpy(row.unit_crc, crc, sizeof(crc));
    pthread_mutex_lock(&s->lock);
    struct block after = *b;
    after.packed = false;
    after.file = f;
    block_put_row(s, batch, &after);
    block_put_chunk(batch, b, 0, &row);
    block_file_put_row(s, batch, f);
    block_add_charge(s, batch, b->mount, (int64_t)bytes);
    struct block_row_key mount = block_key_u32(BLOCK_ROW_MOUNT, b->mount);
    struct block_row_key dead = block_key_u64(BLOCK_ROW_DEAD, b->file->key);
    block_batch_add(batch, &mount, -block_packed_bytes(b->length));
    block_batch_add(batch, &dead, block_packed_bytes(b->length));
    pthread_mutex_unlock(&s->lock);
    r = block_store_commit(s, batch, false);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    b->packed = false;
    b->checked = 1;
    b->doubt = 0;
    block_attach(s, b, f);
    block_space_unreserve(s, bytes);
    s->used += bytes;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static void let_file_go(struct block_store *s, struct block_file *f)
{
    pthread_mutex_lock(&s->lock);
    block_file_unclaim(s, f);
    pthread_mutex_unlock(&s->lock);
    block_file_unuse(s, f);
    block_file_unhold(s, f);
}

/* Claimed. The segment keeps a dead copy. A damaged one is dropped. */
static int unpack(struct block_store *s, struct block *b, uint32_t block_bytes)
{
    uint64_t bytes = BLOCK_PAGE * block_pages(b->length, 0);
    struct block_file *f;
    int r = block_space_reserve(s, bytes);
    if (r < 0)
        return r;
    r = block_fill_file(s, b->inode, block_bytes, &f);
    if (r == 0) {
        r = unpack_into(s, b, f, bytes);
        let_file_go(s, f);
    }
    if (r < 0) {
        pthread_mutex_lock(&s->lock);
        block_space_unreserve(s, bytes);
        pthread_mutex_unlock(&s->lock);
    }
    return r == -CV_DATA_DAMAGED || r == -ENOENT ? block_drop(s, b, 1) : r;
}

/* ---- first contact ---- */

/* 1: it was begun before. */
static int check_grant(const struct block *b, const struct block_grant *g)
{
    if (b->lost)
        return -CV_DATA_DAMAGED;
    if (b->exists && (g->epoch < b->epoch || g->key.version < b->version))
        return -CV_STALE_EPOCH;
    if (b->exists && g->key.version == b->version && !block_dirty(b))
        return -CV_STALE_EPOCH; /* the under file system has this version: it is not to change any more */
    if (b->exists && g->epoch == b->epoch && g->key.version == b->version && g->place.length <= b->length)
        return 1;
    /* A cut the master knows nothing of, in a part of the log that was given up: the rest is not zeros, it is gone. */
    if (b->exists && block_dirty(b) && g->epoch / INCARNATION_STEP > b->epoch / INCARNATION_STEP &&
        g->place.length > b->length)
        return -CV_DATA_DAMAGED;
    return b->filling ? -CV_BUSY : 0;
}

/* What is here belongs to neither what the grant builds on nor what was written before: it goes. */
static int drop_other(struct block_store *s, struct block *b, const struct block_grant *g)
{
    pthread_mutex_lock(&s->lock);
    bool other = b->exists && !block_dirty(b) && b->version != g->base_version && b->present;
    bool used = b->readers && !b->packed && !block_file_exported(s, b->file);
    pthread_mutex_unlock(&s->lock);
    if (!other)
        return 0;
    return used ? -CV_BUSY : block_drop(s, b, ~0ull);
}

/* Lock held. */
static struct block_change plan_begin(const struct block *b, const struct block_grant *g)
{
    struct block_change x = block_change_none(b);
    uint32_t length = g->place.length;
    x.row = x.sync = x.watch = x.retorn = true;
    x.version = g->key.version;
    x.epoch = g->epoch;
    if (!b->exists || (!block_dirty(b) && b->version != g->base_version)) { /* nothing carries over */
        x.base_version = g->base_version;
        x.base_length = min(g->base_length, length);
        x.length = x.durable = length;
        x.mount = g->place.mount;
        return x;
    }
    if (!block_dirty(b) || g->base_version == b->version) { /* clean, whether we were told or not */
        x.base_version = b->version;
        x.base_length = b->length;
        x.all_clean = true;
        x.torn = x.mended = x.filled = (struct block_stretches){0};
        x.durable = length;
    }
    if (length < b->length) {
        (void)block_stretches_sub(&x.torn, length, UINT32_MAX);
        (void)block_stretches_sub(&x.mended, length, UINT32_MAX);
        (void)block_stretches_sub(&x.filled, length, UINT32_MAX);
        uint32_t whole = block_chunk_count(length);
        x.cutting = true;
        x.gone = whole < 64 ? ~0ull << whole & b->present : 0;
        x.base_length = min(x.base_length, length);
        x.opened = block_change_short_tail(b, length); /* what is left of this chunk no longer matches its CRC */
        if ((b->open | x.opened) & ~x.gone)
            x.room = block_change_room(b, length);
    } else if (length > b->length) {
        if (!x.all_clean) { /* acknowledged by us, committed, and gone with the power */
            block_stretches_force(&x.torn, b->length, length);
            block_stretches_force(&x.mended, b->length, length);
            x.durable = b->durable == b->length ? length : b->durable;
        }
        x.opened = block_change_short_tail(b, b->length);
        if (x.opened)
            x.room = max(b->room,
                         block_change_room(b, min(length, (b->length / BLOCK_CHUNK_BYTES + 1) * BLOCK_CHUNK_BYTES)));
    }
    x.length = length;
    return x;
}

/* The second name, by which the data is found when the index is lost. File claimed. */
static int link_written(struct block_store *s, struct block_file *f)
{
    char name[BLOCK_NAME_MAX], written[BLOCK_NAME_MAX];
    if (f->linked)
        return 0;
    block_dir_name(BLOCK_FILE_BACKING, f->id, name);
    block_dir_written_name(f->key, f->id, written);
    int r = block_io_link(s->dir.fd, name, written);
    if (r < 0)
        return block_store_fail(s, r, "second name of a written file");
    pthread_mutex_lock(&s->lock);
    f->linked = true;
    block_file_named(s, f); /* its folder is synced with the data */
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int begin_in_file(struct block_store *s, struct block *b, struct block_change *x)
{
    struct block_file *f = x->file;
    pthread_mutex_lock(&s->lock);
    f->written = true;
    while (x->cutting && f->writers) /* to other blocks of it: they see that it is claimed */
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    int r = block_change(s, b, x);
    return r < 0 ? r : link_written(s, f);
}

static int begin(struct block_store *s, struct block *b, const struct block_grant *g)
{
    pthread_mutex_lock(&s->lock);
    int r = check_grant(b, g);
    while (r == 0 && b->writers) /* of the epoch before; new ones see that the block is claimed */
        pthread_cond_wait(&s->changed, &s->lock);
    bool packed = b->packed;
    pthread_mutex_unlock(&s->lock);
    if (r != 0)
        return r < 0 ? r : 0;
    r = drop_other(s, b, g);
    if (r == 0 && packed && b->packed)
        r = unpack(s, b, g->place.block_bytes);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    struct block_change x = plan_begin(b, g);
    pthread_mutex_unlock(&s->lock);
    r = block_change_reserve(s, b, &x);
    if (r < 0)
        return r;
    r = block_fill_file(s, b->inode, g->place.block_bytes, &x.file);
    if (r < 0) {
        block_change_unreserve(s, &x);
        return r;
    }
    struct block_file *f = x.file;
    r = begin_in_file(s, b, &x);
    let_file_go(s, f);
    return r;
}

int block_write_begin(struct block_store *s, const struct block_grant *g)
{
    const struct block_place *p = &g->place;
    bool ok = p->block_bytes >= BLOCK_BYTES_MIN && p->block_bytes <= BLOCK_BYTES_MAX &&
              (p->block_bytes & (p->block_bytes - 1)) == 0 && p->length <= p->block_bytes &&
              g->key.version > g->base_version && g->epoch > 0;
    struct block *b;
    if (!ok)
        return -EINVAL;
    int r = block_store_check(s);
    if (r == 0)
        r = block_take(s, g->key.inode, g->key.index, &b);
    if (r < 0)
        return r;
    r = begin(s, b, g);
    block_give_back(s, b);
    return r;
}

/* ---- CRCs for what was written ---- */

/* Read a chunk back and write its row. */
static int seal_chunk(struct block_store *s, struct block *b, uint32_t chunk, void *buffer, struct block_batch *batch)
{
    struct block_units u = {0};
    struct block_row_chunk row = {.state = BLOCK_CHUNK_SEALED, .block_version = b->version};
    size_t n = 0;
    row.length = block_chunk_length(b, chunk);
    row.pages = (uint16_t)block_pages(b->length, chunk);
    int r = block_io_read(b->file->fd, buffer, row.length, block_place_of(b, chunk * BLOCK_CHUNK_BYTES), &n);
    if (r < 0)
        return r;
    memset((char *)buffer + n, 0, row.length - n);
    block_units_add(&u, 0, buffer, row.length);
    memcpy(row.unit_crc, u.crc, sizeof(row.unit_crc));
    uint64_t seal;
    r = block_store_seal(s, b->file, &seal);
    if (r < 0)
        return r;
    row.seal = seal;
    block_put_chunk(batch, b, chunk, &row);
    return 0;
}

/* Claimed, in use, no writers. Chunks opened beyond the end of the block go. */
static int seal_chunks(struct block_store *s, struct block *b)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    void *buffer cleanup(freep) = block_io_alloc(BLOCK_CHUNK_BYTES);
    if (!batch || !buffer)
        return -ENOMEM;
    uint64_t all = block_bits(0, block_chunk_count(b->length));
    uint64_t open = b->open & all, beyond = b->open & ~all;
    pthread_mutex_lock(&s->lock);
    struct block sealed = *b;
    pthread_mutex_unlock(&s->lock);
    sealed.open = 0;
    int64_t delta = (int64_t)block_charge(&sealed, open) - (int64_t)block_charge(b, b->open);
    int r = block_file_sync(s, b->file); /* before the record that says so */
    for (uint64_t left = open; r == 0 && left; left &= left - 1)
        r = seal_chunk(s, b, (uint32_t)__builtin_ctzll(left), buffer, batch);
    if (r < 0)
        return r;
    for (uint64_t left = beyond; left; left &= left - 1) {
        struct block_row_key key = block_key_chunk(b->inode, b->index, (uint8_t)__builtin_ctzll(left));
        block_batch_delete(batch, &key);
    }
    pthread_mutex_lock(&s->lock);
    sealed.durable = b->length;
    sealed.mended = b->torn;
    block_put_row(s, batch, &sealed);
    pthread_mutex_unlock(&s->lock);
    block_durable_end(batch, b);
    block_add_charge(s, batch, b->mount, delta);
    r = block_store_commit(s, batch, false);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    b->open = 0;
    b->present &= ~beyond;
    b->written &= ~beyond;
    b->checked |= open;
    b->room = 0;
    b->durable = b->length;
    b->mended = b->torn;
    b->filled = (struct block_stretches){0};
    b->unsaved = b->watched = false;
    s->used += (uint64_t)delta; /* never more than before */
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* Claim the block of this version and epoch, with no writer in it. Errors: -CV_STALE_EPOCH, -ENODATA. */
static int take_written(struct block_store *s, const struct block_key *key, uint64_t epoch, struct block **ret)
{
    struct block *b;
    int r = block_take(s, key->inode, key->index, &b);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    while (b->writers)
        pthread_cond_wait(&s->changed, &s->lock);
    r = b->lost                                                      ? -CV_DATA_DAMAGED
        : !b->exists                                                 ? -ENODATA
        : b->version != key->version || (epoch && b->epoch != epoch) ? -CV_STALE_EPOCH
                                                                     : 0;
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        block_give_back(s, b);
    else
        *ret = b;
    return r;
}

static int seal(struct block_store *s, struct block *b)
{
    if (!b->file || !(b->open || b->watched))
        return 0;
    int r = block_file_use(s, b->file);
    if (r < 0)
        return r == -ENOENT ? -CV_DATA_DAMAGED : r;
    struct block_file *f = b->file;
    r = seal_chunks(s, b);
    block_file_unuse(s, f);
    return r;
}

int block_write_seal(struct block_store *s, const struct block_key *key, uint64_t epoch)
{
    struct block *b;
    int r = block_store_check(s);
    if (r == 0)
        r = take_written(s, key, epoch, &b);
    if (r < 0)
        return r;
    r = seal(s, b);
    block_give_back(s, b);
    return r;
}

/* ---- clean ---- */

/* Has f no written data any more? Then its second name goes. */
static int unlink_written(struct block_store *s, struct block_file *f)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_BLOCK, f->key), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    bool dirty = false;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && !dirty && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_block row;
        r = block_iter_row(i, &row, sizeof(row));
        dirty = r == 0 && row.file_id == f->id && row.block_version != row.base_version;
    }
    if (r < 0 || dirty)
        return r < 0 ? block_store_index_error(s, r) : 0;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    char name[BLOCK_NAME_MAX];
    block_dir_written_name(f->key, f->id, name);
    r = batch ? block_io_unlink(s->dir.fd, name) : -ENOMEM;
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    f->written = f->linked = false;
    block_file_put_row(s, batch, f);
    pthread_mutex_unlock(&s->lock);
    return block_store_commit(s, batch, false);
}

int block_write_clean(struct block_store *s, const struct block_key *key, uint64_t epoch)
{
    struct block *b;
    int r = block_store_check(s);
    if (r == 0)
        r = take_written(s, key, epoch, &b);
    if (r < 0)
        return r;
    struct block_file *f = NULL;
    if (block_dirty(b)) {
        r = seal(s, b);
        pthread_mutex_lock(&s->lock);
        struct block_change x = block_change_none(b);
        x.base_version = b->version;
        x.base_length = b->length;
        x.row = x.all_clean = true;
        if (block_stretches_any(&b->torn))
            r = -CV_DATA_DAMAGED; /* nobody can have all of it */
        else if (b->filling)
            r = -CV_BUSY; /* a fill of base content: its end comes first */
        f = b->file;
        f->refs++;
        pthread_mutex_unlock(&s->lock);
        if (r == 0)
            r = block_change(s, b, &x);
    }
    block_give_back(s, b);
    if (!f)
        return r;
    if (r == 0) {
        pthread_mutex_lock(&s->lock);
        block_file_claim(s, f);
        pthread_mutex_unlock(&s->lock);
        if (f->exists && f->written)
            r = unlink_written(s, f);
        pthread_mutex_lock(&s->lock);
        block_file_unclaim(s, f);
        pthread_mutex_unlock(&s->lock);
    }
    block_file_unhold(s, f);
    return r;
}
