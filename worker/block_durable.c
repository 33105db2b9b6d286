/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far written blocks are on disk. The row of a dirty block has the length of which everything is there: it is taken
 * when no write is under way, and written down when an fdatasync that began later is done. What was acknowledged beyond
 * it is in the page cache; a kill loses none of it, so after one the file's size says how long the block is. A power cut
 * leaves pages of it, or holes that read as zeros: so the start after it cuts the file where the row ends. The master knows
 * how long the block was; the difference becomes a *torn* stretch as soon as somebody comes with that length. Never zeros.
 *
 * docs/block-store.md has the whole of it.
 */
#include <stdlib.h>

#include "base/bytes.h"
#include "worker/block_change.h"

/* ---- saving ---- */

struct saving {
    struct block *block; /* held */
    uint32_t length, cuts;
    struct block_stretches torn, filled;
};

struct savings {
    struct saving *items;
    size_t count, room;
};

/* The next block of f, in order, that is to be saved. Lock held. */
static struct block *next_unsaved(struct block_file *f, int64_t after)
{
    struct block *found = NULL;
    list_for_each (e, &f->blocks) {
        struct block *b = list_entry(e, struct block, of_file);
        if (b->unsaved && b->index > after && (!found || b->index < found->index))
            found = b;
    }
    return found;
}

static int add(struct savings *list, struct block *b)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 16;
        struct saving *more = reallocarray(list->items, room, sizeof(*more));
        if (!more)
            return -ENOMEM;
        list->items = more;
        list->room = room;
    }
    struct saving *it = &list->items[list->count++];
    *it = (struct saving){.block = b, .length = b->length, .cuts = b->cuts, .torn = b->torn, .filled = b->filled};
    return 0;
}

/* What is acknowledged by now: with writers held up for the moment it takes those under way to end. */
static int look(struct block_store *s, struct block_file *f, bool patient, struct savings *list, bool *ret_all)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    int64_t after = -1;
    for (struct block *b; r == 0 && (b = next_unsaved(f, after));) {
        after = b->index;
        b->refs++;
        if (patient) {
            block_claim(s, b);
        } else if (!block_try_claim(s, b)) {
            *ret_all = false;
            block_unhold_locked(s, b);
            continue;
        }
        while (b->writers)
            pthread_cond_wait(&s->changed, &s->lock);
        r = add(list, b);
        block_unclaim(s, b);
        if (r < 0)
            block_unhold_locked(s, b);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Claimed. One that was cut meanwhile is looked at anew. */
static int save(struct block_store *s, struct block_file *f, const struct saving *it, bool *ret_all)
{
    struct block *b = it->block;
    pthread_mutex_lock(&s->lock);
    bool here = b->exists && b->file == f && block_dirty(b), same = here && b->cuts == it->cuts;
    struct block_change x = block_change_none(b);
    x.row = true;
    x.durable = max(x.durable, it->length);
    x.mended = it->torn;
    if (memcmp(&x.filled, &it->filled, sizeof(x.filled)) == 0)
        x.filled = (struct block_stretches){0};
    *ret_all &= same || !here;
    pthread_mutex_unlock(&s->lock);
    return same ? block_change(s, b, &x) : 0;
}

int block_durable_save(struct block_store *s, struct block_file *f, bool patient, bool *ret_all)
{
    struct savings list = {0};
    *ret_all = true;
    int r = look(s, f, patient, &list, ret_all);
    if (r == 0)
        r = block_file_sync(s, f);
    for (size_t i = 0; i < list.count; i++) {
        struct block *b = list.items[i].block;
        pthread_mutex_lock(&s->lock);
        bool mine = true;
        if (patient)
            block_claim(s, b);
        else
            mine = block_try_claim(s, b);
        pthread_mutex_unlock(&s->lock);
        *ret_all &= mine;
        if (mine && r == 0)
            r = save(s, f, &list.items[i], ret_all);
        pthread_mutex_lock(&s->lock);
        if (mine)
            block_unclaim(s, b);
        block_unhold_locked(s, b);
        pthread_mutex_unlock(&s->lock);
    }
    free(list.items);
    return r;
}

/* ---- rows ---- */

void block_durable_put(struct block_store *s, struct block_batch *batch, const struct block *b)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_WRITING, b->inode, b->index);
    struct block_row_writing row = {.boot = s->boot, .filled = b->filled};
    block_batch_put(batch, &key, &row, sizeof(row));
}

void block_durable_end(struct block_batch *batch, const struct block *b)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_WRITING, b->inode, b->index);
    block_batch_delete(batch, &key);
}

/* ---- at start ---- */

/* What may have been written where the file now has holes is torn. */
static int tear(struct block_store *s, const struct block_row_key *at, struct block_row_block *row,
                const struct block_stretches *filled)
{
    struct block_row_key key = *at;
    struct block_row_torn torn = {0};
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    int r = batch ? 0 : -ENOMEM;
    key.p[0] = BLOCK_ROW_TORN;
    if (r == 0 && row->flags & BLOCK_FLAG_TORN)
        r = block_index_get(s->index, &key, false, &torn, sizeof(torn));
    if (r < 0)
        return r;
    struct block_stretches all = torn.torn;
    for (int i = 0; i < BLOCK_STRETCHES; i++)
        block_stretches_force(&all, filled->at[i].from, filled->at[i].to);
    torn.torn = all;
    row->flags |= BLOCK_FLAG_TORN;
    block_batch_put(batch, &key, &torn, sizeof(torn));
    block_batch_put(batch, at, row, sizeof(*row));
    return block_store_commit(s, batch, false); /* synced with the end of the writing row */
}

/* Of another boot: what its row says is all there is. Not loaded yet: the file's size says how long it is. */
static int cut_back(struct block_store *s, uint64_t inode, uint32_t index, const struct block_row_writing *writing)
{
    struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, inode, index);
    struct block_row_block row;
    struct block_file *f;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r < 0 || row.flags & BLOCK_FLAG_PACKED || row.block_version == row.base_version || !row.file_id)
        return r == -ENOENT ? 0 : r;
    r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f);
    if (r < 0)
        return r;
    if (f->exists && f->id == row.file_id && !f->lost) {
        struct block_stretches filled = writing->filled;
        r = block_stretches_any(&filled) ? tear(s, &key, &row, &filled) : 0;
        if (r == 0)
            r = block_file_use(s, f);
        if (r == 0) {
            r = block_drop_cut(s, f, index, row.length);
            if (r == 0)
                r = block_file_sync(s, f);
            block_file_unuse(s, f);
        }
    }
    block_file_unhold(s, f);
    return r == -ENOENT ? 0 : r; /* found missing by who reads it */
}

static int each_row(struct block_store *s,
                    int (*visit)(struct block_store *, uint64_t, uint32_t, const struct block_row_writing *),
                    bool same_boot, struct block_batch *done)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_WRITING), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_writing row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0 || (row.boot == s->boot) != same_boot)
            continue;
        r = visit(s, get_be64(key.p + 1), get_be32(key.p + 9), &row);
        if (done)
            block_batch_delete(done, &key);
    }
    return r;
}

int block_durable_recover(struct block_store *s)
{
    struct block_batch *done cleanup(block_batch_free_p) = block_batch_new();
    int r = done ? each_row(s, cut_back, false, done) : -ENOMEM;
    if (r == 0 && block_batch_count(done))
        r = block_store_commit(s, done, true);
    return r;
}

/* Loading finds the length. */
static int load(struct block_store *s, uint64_t inode, uint32_t index, const struct block_row_writing *writing)
{
    struct block *b;
    int r = block_hold(s, inode, index, &b);
    if (r < 0)
        return r == -CV_BUSY ? 0 : r; /* for want of memory: when it is asked for */
    pthread_mutex_lock(&s->lock);
    if (block_dirty(b) && b->file && !b->packed) {
        b->watched = true;
        b->filled = writing->filled;
        b->unsaved |= block_unsaved(b);
        block_note_open(s, b);
        if (b->unsaved)
            block_store_unsynced(s, b->file);
    }
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int block_durable_resume(struct block_store *s)
{
    return each_row(s, load, true, NULL);
}

/* ---- gaps ---- */

/* One too many: the lowest, oldest in a stream, is forgotten. What is lost of it then reads as it was at the last sync. */
static void add_gap(struct block *b, uint32_t from, uint32_t to)
{
    if (!block_stretches_add(&b->gaps, from, to)) {
        (void)block_stretches_sub(&b->gaps, 0, b->gaps.at[0].to);
        (void)block_stretches_add(&b->gaps, from, to);
    }
}

static struct block_stretches unfilled(const struct block *b)
{
    struct block_stretches gaps = b->gaps;
    for (int i = 0; i < BLOCK_STRETCHES; i++)
        (void)block_stretches_sub(&gaps, b->filled.at[i].from, b->filled.at[i].to);
    return gaps;
}

bool block_durable_note(struct block *b, uint32_t from, uint32_t to)
{
    struct block_stretch gap;
    if (from < b->durable && block_stretches_any(&b->gaps)) {
        struct block_stretches gaps = unfilled(b);
        if (block_stretches_find(&gaps, from, min(to, b->durable), &gap))
            return false;
    }
    if (from > b->length)
        add_gap(b, b->length, from);
    if (block_stretches_any(&b->gaps))
        (void)block_stretches_sub(&b->gaps, from, to);
    return true;
}

/* To the end of the gap or chunk: not a row for each write of a stream. */
bool block_durable_fill(const struct block *b, uint32_t from, uint32_t to, struct block_stretches *filled)
{
    bool room = true, none = !block_stretches_any(&b->filled);
    struct block_stretches gaps = unfilled(b);
    struct block_stretch gap;
    for (uint32_t c = from / BLOCK_CHUNK_BYTES; c * BLOCK_CHUNK_BYTES < min(to, b->durable); c++)
        if (!(b->present >> c & 1))
            (void)block_stretches_add(&gaps, c * BLOCK_CHUNK_BYTES, (c + 1) * BLOCK_CHUNK_BYTES);
    while (room && block_stretches_find(&gaps, from, min(to, b->durable), &gap)) {
        uint32_t end = min((gap.to + BLOCK_CHUNK_BYTES - 1) / BLOCK_CHUNK_BYTES * BLOCK_CHUNK_BYTES, b->durable);
        (void)block_stretches_find(&gaps, gap.from, end, &gap);
        if (none)
            block_stretches_force(filled, gap.from, gap.to); /* what lies between is written as well */
        else
            room = block_stretches_add(filled, gap.from, gap.to);
        (void)block_stretches_sub(&gaps, gap.from, gap.to);
    }
    return room;
}

void block_durable_opened(struct block *b, uint64_t chunks)
{
    for (; chunks; chunks &= chunks - 1) {
        uint32_t start = (uint32_t)__builtin_ctzll(chunks) * BLOCK_CHUNK_BYTES;
        if (start < b->durable)
            add_gap(b, start, min(start + BLOCK_CHUNK_BYTES, b->durable));
    }
}
