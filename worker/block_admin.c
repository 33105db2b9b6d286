/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon asks about the store as a whole, or about an inode: status, lists, removal, pins, descriptors. */
#include "worker/block_state.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/bytes.h"

#define HIGH_WATER        96 /* per cent of the capacity: evict in the background from here */
#define LOW_WATER         94 /* down to here */
#define COMPACT_AT_A_TIME 8
#define CALM_DEFAULT      30
#define CALM_AT_A_TIME    65536

uint64_t block_store_boot(const struct block_store *s)
{
    return s->boot; /* set at open, before there are other threads */
}

void block_store_status(struct block_store *s, struct block_store_status *ret)
{
    pthread_mutex_lock(&s->lock);
    *ret = s->stats;
    ret->capacity_bytes = s->capacity;
    ret->used_bytes = s->used;
    ret->reserved_bytes = s->reserved;
    ret->left_bytes = s->left;
    ret->resident_blocks = s->block_count;
    ret->resident_files = s->file_count;
    ret->open_files = s->open_count;
    ret->memory_bytes = pool_bytes(&s->block_pool) + pool_bytes(&s->file_pool) +
                        (s->block_mask + 1ull + s->file_mask + 1ull) * sizeof(void *);
    ret->failed = s->failed;
    pthread_mutex_unlock(&s->lock);
}

int block_store_mount_bytes(struct block_store *s, uint32_t mount, uint64_t *ret)
{
    struct block_row_key key = block_key_u32(BLOCK_ROW_MOUNT, mount);
    return block_store_index_error(s, block_index_get_sum(s->index, &key, ret));
}

/* ---- housekeeping ---- */

/* Segments of which more than half is dead are copied together. A few each time. */
static int compact(struct block_store *s)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_DEAD), key;
    struct block_row_key from = block_key_u64(BLOCK_ROW_DEAD, s->compact_next);
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    uint64_t found = 0;
    int n = 0, r = block_iter_new(s->index, &prefix, &from, &i);
    for (; r >= 0 && n < COMPACT_AT_A_TIME && !found && (r = block_iter_next(i, &key)) == 1; n++) {
        struct block_row_key segment = key;
        struct block_row_segment row;
        uint64_t dead = 0;
        segment.p[0] = BLOCK_ROW_SEGMENT;
        s->compact_next = get_be64(key.p + 1) + 1;
        r = block_index_get_sum(s->index, &key, &dead);
        if (r == 0)
            r = block_index_get(s->index, &segment, false, &row, sizeof(row));
        if (r == 0 && row.closed && dead >= row.bytes / 2)
            found = get_be64(key.p + 1);
        if (r == -ENOENT)
            r = 0;
    }
    if (r == 0 && !found)
        s->compact_next = 0; /* once round */
    if (r < 0 || !found)
        return r < 0 ? r : 0;
    uint64_t freed;
    r = block_segment_evict(s, found, true, &freed);
    return r == -CV_BUSY ? 0 : r;
}

/* A block with open chunks that nobody wrote for a while, held; NULL: none is left of the `*left` to be looked at. */
static struct block *next_calm(struct block_store *s, uint32_t calm_max, uint32_t *left, struct block_key *ret_key)
{
    struct block *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (; *left && !found && !list_empty(&s->opened); --*left) {
        struct block *b = list_entry(list_pop_front(&s->opened), struct block, of_opened);
        if (!b->open && !b->watched)
            continue;
        list_push_back(&s->opened, &b->of_opened);
        if (++b->calm < calm_max || b->writers || b->busy || b->lost)
            continue;
        b->calm = 0;
        b->refs++;
        *ret_key = (struct block_key){.inode = b->inode, .index = b->index, .version = b->version};
        found = b;
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

static int seal_calm(struct block_store *s)
{
    uint32_t left = 0, calm_max = s->options.calm_max ? s->options.calm_max : CALM_DEFAULT;
    struct block *b;
    struct block_key key;
    int r = 0;
    pthread_mutex_lock(&s->lock);
    list_for_each (e, &s->opened)
        if (++left == CALM_AT_A_TIME)
            break;
    pthread_mutex_unlock(&s->lock);
    while (r == 0 && (b = next_calm(s, calm_max, &left, &key))) {
        r = block_write_seal(s, &key, 0);
        if (r == -CV_STALE_EPOCH || r == -CV_BUSY || r == -ENODATA || r == -CV_DATA_DAMAGED)
            r = 0; /* moved on, or is to be found damaged by who reads it */
        block_unhold(s, b);
    }
    return r;
}

int block_store_maintain(struct block_store *s)
{
    int r = seal_calm(s);
    if (r == 0)
        r = block_store_sync(s);
    block_files_bury(s);
    block_space_look(s);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    uint64_t high = s->capacity / 100 * HIGH_WATER, low = s->capacity / 100 * LOW_WATER;
    uint64_t taken = s->used + s->reserved + s->options.segment_bytes;
    uint64_t left = s->left;
    pthread_mutex_unlock(&s->lock);
    uint64_t freed, want = taken > high ? taken - low : 0;
    pthread_mutex_lock(&s->evict_lock);
    r = compact(s);
    pthread_mutex_unlock(&s->evict_lock);
    if (r < 0)
        return block_store_index_error(s, r);
    if (want && left < taken)
        r = block_store_evict(s, want, &freed);
    return r == -CV_NO_SPACE ? 0 : r;
}

/* ---- lists ---- */

int block_store_list(struct block_store *s, struct block_cursor *cursor, struct block_info *out, int max)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_BLOCK), key;
    struct block_row_key from = block_key_block(BLOCK_ROW_BLOCK, cursor->inode, cursor->index);
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int n = 0, r = block_iter_new(s->index, &prefix, &from, &i);
    while (r >= 0 && n < max && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_block row;
        uint64_t inode = get_be64(key.p + 1);
        uint32_t index = get_be32(key.p + 9);
        if (cursor->started && inode == cursor->inode && index == cursor->index)
            continue;
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0)
            break;
        *cursor = (struct block_cursor){.inode = inode, .index = index, .started = true};
        if (row.file_id == 0)
            continue; /* an epoch, no data */
        out[n++] = (struct block_info){
            .inode = inode,
            .index = index,
            .version = row.block_version,
            .base_version = row.base_version,
            .epoch = row.epoch,
            .mount = row.mount,
            .length = row.length,
            .dirty = row.block_version != row.base_version,
            .packed = row.flags & BLOCK_FLAG_PACKED,
            .pinned = row.flags & BLOCK_FLAG_PINNED,
            .lost = row.flags & BLOCK_FLAG_LOST,
        };
    }
    return r < 0 ? block_store_index_error(s, r) : n;
}

/* Charged for the chunks of one block that are younger than its base. */
static int dirty_bytes(struct block_store *s, const struct block_info *b, uint64_t *bytes)
{
    struct block_row_key prefix = block_key_block(BLOCK_ROW_CHUNK, b->inode, b->index), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    struct block_row_chunk row;
    if (b->packed) {
        *bytes += (uint64_t)block_packed_bytes(b->length);
        return 0;
    }
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        r = block_iter_row(i, &row, sizeof(row));
        if (r >= 0 && row.block_version != b->base_version)
            *bytes += (uint64_t)row.pages * BLOCK_PAGE;
    }
    return r;
}

int block_store_dirty(struct block_store *s, struct block_cursor *cursor, int max, uint64_t *bytes)
{
    struct block_info page[256];
    int n = block_store_list(s, cursor, page, min(max, (int)array_size(page))), r = 0;
    for (int k = 0; k < n && r >= 0; k++)
        if (page[k].dirty)
            r = dirty_bytes(s, &page[k], bytes);
    return r < 0 ? block_store_index_error(s, r) : n;
}

/* Call visit with each block of an inode, claimed. */
static int each_block(struct block_store *s, uint64_t inode, int (*visit)(struct block_store *, struct block *, void *),
                      void *arg)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_BLOCK, inode), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block *b;
        r = block_take(s, inode, get_be32(key.p + 9), &b);
        if (r < 0)
            break;
        r = visit(s, b, arg);
        block_give_back(s, b);
    }
    return block_store_index_error(s, r);
}

/* ---- removal ---- */

static int remove_all(struct block_store *s, struct block *b, void *arg)
{
    pthread_mutex_lock(&s->lock);
    bool busy = b->filling || b->writers;
    pthread_mutex_unlock(&s->lock);
    return busy ? -CV_BUSY : block_forget(s, b);
}

static int remove_clean(struct block_store *s, struct block *b, void *arg)
{
    pthread_mutex_lock(&s->lock);
    bool keep = !b->exists || b->lost || b->pinned || block_dirty(b);
    bool busy = b->filling || b->writers || (b->readers && b->file && !b->packed && !block_file_exported(s, b->file));
    pthread_mutex_unlock(&s->lock);
    return keep ? 0 : busy ? -CV_BUSY : block_drop(s, b, ~0ull);
}

/* What the lost file was charged leaves with it. */
static int forget_lost(struct block_store *s, struct block_file *f)
{
    char name[BLOCK_NAME_MAX];
    struct stat st = {0};
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    block_dir_name(BLOCK_FILE_BACKING, f->id, name);
    (void)fstatat(s->dir.fd, name, &st, 0);
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
    block_batch_add(batch, &used, -(int64_t)st.st_blocks * 512);
    int r = block_store_commit(s, batch, false);
    pthread_mutex_lock(&s->lock);
    f->condemned += (uint64_t)st.st_blocks * 512;
    f->lost = false;
    list_for_each_safe (e, &s->lru) {
        struct block *b = list_entry(e, struct block, lru);
        if (b->inode != f->key || !b->lost)
            continue;
        b->lost = false;
        b->refs++; /* goes with the last reference */
        block_unhold_locked(s, b);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Nothing of this inode is pending any more. */
static int forget_pending(struct block_store *s, uint64_t inode)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_PENDING, inode), key;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = batch ? block_iter_new(s->index, &prefix, NULL, &i) : -ENOMEM;
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1)
        block_batch_delete(batch, &key);
    if (r == 0 && block_batch_count(batch))
        r = block_store_commit(s, batch, false);
    return r;
}

int block_store_remove(struct block_store *s, uint64_t inode, enum block_remove_what what)
{
    struct block_file *f;
    int r = block_store_check(s);
    if (r == 0 && what == BLOCK_REMOVE_CLEAN)
        return each_block(s, inode, remove_clean, NULL);
    if (r == 0)
        r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f); /* it knows what is condemned */
    if (r < 0)
        return r;
    r = each_block(s, inode, remove_all, NULL);
    if (r == 0 && f->exists && f->lost)
        r = forget_lost(s, f);
    if (r == 0 && f->exists)
        r = block_file_reap(s, f);
    block_file_unhold(s, f);
    return r < 0 ? r : forget_pending(s, inode);
}

struct cut {
    uint64_t size, epoch;
    uint8_t shift;
};

static int cut_block(struct block_store *s, struct block *b, void *arg)
{
    const struct cut *c = arg;
    pthread_mutex_lock(&s->lock);
    bool behind = b->exists && (uint64_t)b->index << c->shift >= c->size && b->epoch <= c->epoch;
    bool busy = b->filling || b->writers;
    pthread_mutex_unlock(&s->lock);
    return !behind ? 0 : busy ? -CV_BUSY : block_drop_all(s, b);
}

int block_store_truncate(struct block_store *s, uint64_t inode, uint64_t size, uint64_t epoch)
{
    struct block_file *f;
    int r = block_store_check(s);
    if (r == 0)
        r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f); /* without one: packed, which is block 0 */
    if (r < 0)
        return r;
    struct cut c = {.size = size, .epoch = epoch, .shift = f->exists ? f->shift : 26};
    bool lost = f->exists && f->lost;
    r = lost ? 0 : each_block(s, inode, cut_block, &c);
    block_file_unhold(s, f);
    return lost && size == 0 ? block_store_remove(s, inode, BLOCK_REMOVE_ALL) : r;
}

/* Claim the block if it still is what it was said to be, and nothing is under way in it. */
static int take_as_said(struct block_store *s, const struct block_key *key, uint64_t epoch, struct block **ret)
{
    struct block *b;
    int r = block_store_check(s);
    if (r == 0)
        r = block_take(s, key->inode, key->index, &b);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    if (!b->exists || b->version != key->version || b->epoch != epoch)
        r = -ESTALE;
    else if (b->filling || b->writers)
        r = -CV_BUSY;
    pthread_mutex_unlock(&s->lock);
    if (r == 0)
        *ret = b;
    else
        block_give_back(s, b);
    return r;
}

int block_store_forget(struct block_store *s, const struct block_key *key, uint64_t epoch)
{
    struct block *b;
    int r = take_as_said(s, key, epoch, &b);
    if (r < 0)
        return r;
    r = block_drop_all(s, b);
    block_give_back(s, b);
    return r;
}

/* Claimed. */
static int mark_lost(struct block_store *s, struct block *b)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    pthread_mutex_lock(&s->lock);
    b->lost = true;
    block_put_row(s, batch, b);
    pthread_mutex_unlock(&s->lock);
    return block_store_commit(s, batch, true);
}

int block_store_give_up(struct block_store *s, const struct block_key *key, uint64_t epoch)
{
    struct block *b;
    int r = take_as_said(s, key, epoch, &b);
    if (r < 0)
        return r;
    r = block_dirty(b) ? mark_lost(s, b) : block_drop_all(s, b);
    block_give_back(s, b);
    return r;
}

/* ---- pins ---- */

static int set_pin(struct block_store *s, struct block *b, void *arg)
{
    bool pinned = *(bool *)arg;
    struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
    struct block_row_block row;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    row.flags = (uint8_t)((row.flags & ~BLOCK_FLAG_PINNED) | (pinned ? BLOCK_FLAG_PINNED : 0));
    block_batch_put(batch, &key, &row, sizeof(row));
    r = block_store_commit(s, batch, false);
    pthread_mutex_lock(&s->lock);
    if (r == 0)
        b->pinned = pinned;
    pthread_mutex_unlock(&s->lock);
    return r;
}

int block_store_pin(struct block_store *s, uint64_t inode, bool pinned)
{
    return each_block(s, inode, set_pin, &pinned);
}

/* ---- descriptors ---- */

static int put_exported(struct block_store *s, struct block_file *f, uint64_t exported, bool sync)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    if (f->type == BLOCK_FILE_BACKING) {
        pthread_mutex_lock(&s->lock);
        struct block_file after = *f;
        after.exported = exported;
        block_file_put_row(s, batch, &after);
        pthread_mutex_unlock(&s->lock);
    } else {
        struct block_row_key key = block_key_u64(BLOCK_ROW_SEGMENT, f->key);
        struct block_row_segment row;
        int r = block_index_get(s->index, &key, false, &row, sizeof(row));
        if (r < 0)
            return block_store_index_error(s, r);
        row.exported = exported;
        block_batch_put(batch, &key, &row, sizeof(row));
    }
    int r = block_store_commit(s, batch, sync);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    f->exported = exported;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int block_export(struct block_store *s, const struct block_read *rd, struct block_export *ret)
{
    struct block_file *f = rd->file;
    if (!f)
        return -ENODATA;
    int r = 0;
    pthread_mutex_lock(&s->lock);
    block_file_claim(s, f);
    bool exported = block_file_exported(s, f), gone = f->retired && !exported;
    pthread_mutex_unlock(&s->lock);
    if (gone)
        r = -ENODATA; /* removed meanwhile, and no longer charged */
    else if (!exported)
        r = put_exported(s, f, s->boot, true);
    pthread_mutex_lock(&s->lock);
    block_file_unclaim(s, f);
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return r;
    char path[48];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", rd->fd);
    r = block_io_open(AT_FDCWD, path, O_RDONLY, &ret->fd);
    ret->file_id = f->id;
    ret->segment = f->type == BLOCK_FILE_SEGMENT;
    return r;
}

/* The resident file of this id, held; NULL: none. Lock held. */
static struct block_file *find_by_id(struct block_store *s, uint64_t id)
{
    for (uint32_t i = 0; i <= s->file_mask; i++)
        for (struct block_file *f = s->files[i]; f; f = f->hash_next)
            if (f->id == id && !f->loading) {
                f->refs++;
                return f;
            }
    return NULL;
}

/* An unlinked file is charged no more. Errors: -ENOENT there is none of that id. */
static int forget_left(struct block_store *s, uint64_t file_id)
{
    struct block_row_key key = block_key_u64(BLOCK_ROW_LEFT, file_id);
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
    struct block_row_left row;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r < 0)
        return r == -ENOENT ? r : block_store_index_error(s, r);
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    block_batch_delete(batch, &key);
    block_batch_add(batch, &used, -(int64_t)row.bytes);
    r = block_store_commit(s, batch, false);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    s->used -= row.bytes;
    s->left -= row.bytes;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int block_export_release(struct block_store *s, uint64_t file_id)
{
    int r = forget_left(s, file_id);
    if (r != -ENOENT)
        return r;
    /* Still in place: it may be punched and reused again. If it is not resident it stays as it is, until a restart. */
    pthread_mutex_lock(&s->lock);
    struct block_file *f = find_by_id(s, file_id);
    if (f)
        block_file_claim(s, f);
    bool gone = !f || f->retired;
    pthread_mutex_unlock(&s->lock);
    r = f && !gone && block_file_exported(s, f) ? put_exported(s, f, 0, false) : 0;
    if (f) {
        pthread_mutex_lock(&s->lock);
        block_file_unclaim(s, f);
        pthread_mutex_unlock(&s->lock);
        block_file_unhold(s, f);
    }
    if (!gone)
        return r;
    r = forget_left(s, file_id); /* it was unlinked since the first look: its row came before it left the table */
    return r == -ENOENT ? 0 : r;
}

int block_export_left(struct block_store *s, uint64_t after, uint64_t *out, int max)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_LEFT), key;
    struct block_row_key from = block_key_u64(BLOCK_ROW_LEFT, after + 1);
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int n = 0, r = block_iter_new(s->index, &prefix, &from, &i);
    while (r >= 0 && n < max && (r = block_iter_next(i, &key)) == 1)
        out[n++] = get_be64(key.p + 1);
    return r < 0 ? block_store_index_error(s, r) : n;
}
