/* SPDX-License-Identifier: Apache-2.0 */
/* Resident blocks: the table, loading from the index, unloading when the memory budget is used up. */
#include "worker/block_state.h"

#include <sys/stat.h>

#include "base/bytes.h"
#include "base/hash.h"

static struct block **bucket(struct block_store *s, uint64_t inode, uint32_t index)
{
    return &s->blocks[hash_u64(inode * 0x9e3779b97f4a7c15ull + index) & s->block_mask];
}

struct block *block_find(struct block_store *s, uint64_t inode, uint32_t index)
{
    struct block *b = *bucket(s, inode, index);
    while (b && (b->inode != inode || b->index != index))
        b = b->hash_next;
    return b;
}

void block_attach(struct block_store *s, struct block *b, struct block_file *f)
{
    struct block_file *old = b->file;
    if (old == f)
        return;
    list_remove(&b->of_file);
    if (f) {
        f->refs++;
        list_push_back(&f->blocks, &b->of_file);
    }
    b->file = f;
    if (old)
        block_file_unhold_locked(s, old);
}

/* Out of the table and gone. */
static void forget(struct block_store *s, struct block *b)
{
    struct block **at = bucket(s, b->inode, b->index);
    while (*at != b)
        at = &(*at)->hash_next;
    *at = b->hash_next;
    list_remove(&b->lru);
    list_remove(&b->of_opened);
    block_attach(s, b, NULL);
    pool_release(&s->block_pool, b);
    s->block_count--;
}

static bool idle(const struct block *b)
{
    return !b->refs && !b->readers && !b->writers && !b->filling && !b->busy && !b->loading && !b->unsaved;
}

/* Unload one block that was not used lately, in the manner of a clock. A bounded search. */
static bool unload_one(struct block_store *s)
{
    for (int i = 0; i < 1024 && !list_empty(&s->lru); i++) {
        struct block *b = list_entry(s->lru.next, struct block, lru);
        if (idle(b) && !b->recent) {
            forget(s, b);
            return true;
        }
        b->recent = false;
        list_remove(&b->lru);
        list_push_back(&s->lru, &b->lru);
    }
    return false;
}

static struct block *make(struct block_store *s, uint64_t inode, uint32_t index)
{
    struct block *b = block_io_check(BLOCK_IO_ALLOC) ? NULL : pool_alloc(&s->block_pool);
    if (!b && unload_one(s))
        b = pool_alloc(&s->block_pool);
    if (!b)
        return NULL;
    *b = (struct block){.inode = inode, .index = index, .loading = true, .refs = 1, .recent = true};
    list_init(&b->of_file);
    list_init(&b->of_opened);
    list_push_back(&s->lru, &b->lru);
    struct block **at = bucket(s, inode, index);
    b->hash_next = *at;
    *at = b;
    s->block_count++;
    return b;
}

/* ---- loading ---- */

static bool in_doubt(struct block_store *s, uint64_t seal)
{
    bool found = false;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < BLOCK_DOUBTS; i++)
        found |= seal && seal >= s->row.doubt[i].first && seal <= s->row.doubt[i].last;
    pthread_mutex_unlock(&s->lock);
    return found;
}

/* Open chunks may have grown the block since its row was written: the file's size says how far. */
static int load_length(struct block_store *s, struct block *b, struct block_file *f)
{
    char name[BLOCK_NAME_MAX];
    struct stat st;
    block_dir_name(BLOCK_FILE_BACKING, f->id, name);
    if (fstatat(s->dir.fd, name, &st, 0) < 0)
        return errno == ENOENT ? 0 : -errno; /* found missing when it is opened */
    uint64_t start = (uint64_t)b->index << f->shift, size = (uint64_t)st.st_size;
    if (size > start)
        b->length = max(b->length, (uint32_t)min(size - start, (uint64_t)b->room));
    return 0;
}

static int load_chunks(struct block_store *s, struct block *b, struct block_file *f)
{
    struct block_row_key prefix = block_key_block(BLOCK_ROW_CHUNK, b->inode, b->index), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_chunk row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0)
            break;
        uint32_t c = key.p[key.n - 1];
        if (key.n != prefix.n + 1 || c >= 64 || (row.state != BLOCK_CHUNK_OPEN && row.state != BLOCK_CHUNK_SEALED))
            return -CV_BAD_FORMAT;
        uint64_t bit = 1ull << c;
        b->present |= bit;
        if (row.block_version > b->base_version)
            b->written |= bit;
        if (row.state == BLOCK_CHUNK_OPEN) {
            b->open |= bit;
            b->room = max(b->room, c * BLOCK_CHUNK_BYTES + row.pages * BLOCK_PAGE);
        } else if (in_doubt(s, row.seal)) {
            b->doubt |= bit;
        }
    }
    if (r == 0 && b->open)
        r = load_length(s, b, f);
    return r;
}

/* A row of a segment that is not there any more (it was damaged and given up): nothing is here. */
static int drop_dangling(struct block_store *s, struct block *b)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    struct block_row_key mount = block_key_u32(BLOCK_ROW_MOUNT, b->mount);
    block_batch_add(batch, &mount, -block_packed_bytes(b->length));
    b->packed = false;
    b->present = 0;
    if (b->epoch) {
        block_put_row(s, batch, b);
    } else {
        struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
        block_batch_delete(batch, &key);
        b->exists = false;
    }
    return block_index_write(s->index, batch, false);
}

static int load_data(struct block_store *s, struct block *b, const struct block_row_block *row)
{
    struct block_file *f;
    int r = b->packed ? block_file_hold(s, BLOCK_FILE_SEGMENT, row->file_id, &f)
                      : block_file_hold(s, BLOCK_FILE_BACKING, b->inode, &f);
    if (r < 0)
        return r;
    if (b->packed && !f->exists) {
        r = drop_dangling(s, b);
    } else if (!f->exists || f->id != row->file_id) {
        r = -CV_BAD_CHECKSUM; /* rows of one batch contradict each other */
    } else if (b->packed) {
        b->present = 1;
        b->entry_offset = row->entry_offset;
        b->doubt = in_doubt(s, row->seal);
    } else {
        b->lost = f->lost;
        r = load_chunks(s, b, f);
    }
    pthread_mutex_lock(&s->lock);
    if (r >= 0 && b->exists && f->exists)
        block_attach(s, b, f);
    b->unsaved = b->file && block_unsaved(b);
    if (b->unsaved) /* written, and then killed */
        block_store_unsynced(s, b->file);
    block_file_unhold_locked(s, f);
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* No row. Normal, unless the file is one whose rows were lost. */
static int load_nothing(struct block_store *s, struct block *b)
{
    struct block_row_key key = block_key_file(b->inode, s->dir.identity.directory_id);
    struct block_row_file row;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r == 0)
        b->lost = row.lost;
    return r == -ENOENT ? 0 : r;
}

static int load_torn(struct block_store *s, struct block *b)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_TORN, b->inode, b->index);
    struct block_row_torn row;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r == 0)
        b->torn = b->mended = row.torn;
    return r == -ENOENT ? -CV_BAD_CHECKSUM : r;
}

static int load(struct block_store *s, struct block *b)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
    struct block_row_block row;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r == -ENOENT)
        return load_nothing(s, b);
    if (r < 0)
        return r;
    b->exists = true;
    b->version = row.block_version;
    b->base_version = row.base_version;
    b->epoch = row.epoch;
    b->length = b->durable = row.length;
    b->base_length = row.base_length;
    b->mount = row.mount;
    b->packed = row.flags & BLOCK_FLAG_PACKED;
    b->pinned = row.flags & BLOCK_FLAG_PINNED;
    r = row.flags & BLOCK_FLAG_TORN ? load_torn(s, b) : 0;
    if (r < 0)
        return r;
    r = row.file_id ? load_data(s, b, &row) : 0;
    b->lost |= (row.flags & BLOCK_FLAG_LOST) != 0;
    return r;
}

void block_note_open(struct block_store *s, struct block *b)
{
    if ((b->open || b->watched) && list_empty(&b->of_opened))
        list_push_back(&s->opened, &b->of_opened);
}

int block_hold(struct block_store *s, uint64_t inode, uint32_t index, struct block **ret)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    struct block *b;
    while ((b = block_find(s, inode, index)) && b->loading)
        pthread_cond_wait(&s->changed, &s->lock);
    if (b) {
        b->refs++;
        b->recent = true;
    } else if (!(b = make(s, inode, index))) {
        r = -CV_BUSY;
    } else {
        pthread_mutex_unlock(&s->lock);
        r = load(s, b);
        pthread_mutex_lock(&s->lock);
        b->loading = false;
        block_note_open(s, b);
        pthread_cond_broadcast(&s->changed);
        if (r < 0)
            forget(s, b);
    }
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return block_store_index_error(s, r);
    *ret = b;
    return 0;
}

void block_unhold_locked(struct block_store *s, struct block *b)
{
    assert(b->refs > 0);
    b->refs--;
    if (!b->exists && !b->lost && idle(b))
        forget(s, b); /* nothing worth remembering */
}

void block_unhold(struct block_store *s, struct block *b)
{
    pthread_mutex_lock(&s->lock);
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
}

bool block_try_claim(struct block_store *s, struct block *b)
{
    if (b->busy)
        return false;
    b->busy = true;
    return true;
}

void block_claim(struct block_store *s, struct block *b)
{
    while (!block_try_claim(s, b))
        pthread_cond_wait(&s->changed, &s->lock);
}

void block_unclaim(struct block_store *s, struct block *b)
{
    assert(b->busy);
    b->busy = false;
    pthread_cond_broadcast(&s->changed);
}

int block_take(struct block_store *s, uint64_t inode, uint32_t index, struct block **ret)
{
    int r = block_hold(s, inode, index, ret);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    block_claim(s, *ret);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

void block_give_back(struct block_store *s, struct block *b)
{
    pthread_mutex_lock(&s->lock);
    block_unclaim(s, b);
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
}

/* ---- what follows from the state ---- */

uint64_t block_charge(const struct block *b, uint64_t chunks)
{
    uint64_t sum = 0;
    if (b->packed)
        return 0; /* its segment is charged */
    for (uint64_t left = chunks; left; left &= left - 1)
        sum += block_chunk_charge(b, (uint32_t)__builtin_ctzll(left));
    return sum;
}

uint64_t block_zero_chunks(const struct block *b)
{
    uint32_t based = block_chunk_count(b->base_length), all = block_chunk_count(b->length);
    if (!b->exists || b->packed || all <= based)
        return 0;
    return block_bits(based, all - based) & ~b->present & ~b->filling;
}

void block_put_row(struct block_store *s, struct block_batch *batch, const struct block *b)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
    assert(!b->packed); /* the one who packs writes that row */
    struct block_row_block row = {
        .flags = (uint8_t)((b->pinned ? BLOCK_FLAG_PINNED : 0) | (b->lost ? BLOCK_FLAG_LOST : 0) |
                           (block_stretches_any(&b->mended) ? BLOCK_FLAG_TORN : 0)),
        .mount = b->mount,
        .block_version = b->version,
        .base_version = b->base_version,
        .epoch = b->epoch,
        .length = block_dirty(b) ? min(b->durable, b->length) : b->length,
        .base_length = b->base_length,
        .file_id = b->file ? b->file->id : 0,
    };
    block_batch_put(batch, &key, &row, sizeof(row));
    if (block_stretches_any(&b->mended)) { /* else it may stay: it is not looked at */
        key = block_key_block(BLOCK_ROW_TORN, b->inode, b->index);
        struct block_row_torn torn = {.torn = b->mended};
        block_batch_put(batch, &key, &torn, sizeof(torn));
    }
}

void block_put_packed_row(struct block_batch *batch, const struct block *b, uint64_t segment, uint32_t offset,
                          const uint32_t unit_crc[2], uint64_t seal)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
    struct block_row_block row = {
        .flags = (uint8_t)(BLOCK_FLAG_PACKED | (b->pinned ? BLOCK_FLAG_PINNED : 0)),
        .mount = b->mount,
        .block_version = b->version,
        .base_version = b->base_version,
        .epoch = b->epoch,
        .length = b->length,
        .base_length = b->base_length,
        .file_id = segment,
        .entry_offset = offset,
        .unit_crc = {unit_crc[0], unit_crc[1]},
        .seal = seal,
    };
    block_batch_put(batch, &key, &row, sizeof(row));
}

void block_add_charge(struct block_store *s, struct block_batch *batch, uint32_t mount, int64_t delta)
{
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
    struct block_row_key of_mount = block_key_u32(BLOCK_ROW_MOUNT, mount);
    block_batch_add(batch, &used, delta);
    block_batch_add(batch, &of_mount, delta);
}

struct block_row_chunk block_open_row(const struct block *b, uint32_t room, uint32_t chunk)
{
    return (struct block_row_chunk){
        .state = BLOCK_CHUNK_OPEN,
        .pages = (uint16_t)block_pages(room, chunk),
        .block_version = b->version,
    };
}

void block_put_chunk(struct block_batch *batch, const struct block *b, uint32_t chunk, struct block_row_chunk *row)
{
    struct block_row_key key = block_key_chunk(b->inode, b->index, (uint8_t)chunk);
    block_batch_put(batch, &key, row, sizeof(*row));
}
