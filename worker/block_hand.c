/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand of the clock: round all backing files in order of inode and block, then all segments, and again. What lies
 * before it comes from the index, so it needs nothing in memory and starts where it stopped before a restart.
 * Policy is in block_evict.h. One thread at a time (evict_lock), which never waits for a claim: whoever evicts to make room
 * has claims of its own.
 */
#include "worker/block_state.h"

#include "base/bytes.h"
#include "base/log.h"

#define BATCH_FILES 32 /* whole files that share one synced batch */
#define ROUNDS_MAX  5  /* a chunk at 3 goes in the third */

struct pass {
    uint64_t freed;
    uint64_t waiting; /* bytes of the files in the batch */
    uint32_t rounds;  /* times the hand came to the beginning since something was freed */
    struct block_batch *batch;
    struct block_retire files[BATCH_FILES];
    int count;
};

/* ---- whole files ---- */

static int flush(struct block_store *s, struct pass *p)
{
    int r = p->count ? block_store_commit(s, p->batch, true) : 0;
    for (int i = 0; i < p->count; i++) {
        uint64_t bytes = block_file_exported(s, p->files[i].file) ? 0 : p->files[i].bytes;
        if (r < 0) {
            block_retire_abort(s, &p->files[i]);
            continue;
        }
        r = block_retire_finish(s, &p->files[i]);
        if (r == 0)
            p->freed += bytes;
    }
    p->count = 0;
    p->waiting = 0;
    block_batch_clear(p->batch);
    return r;
}

/* The hand passed a file that stays: lower what is resident of it. */
static void lower(struct block_store *s, struct block_file *f)
{
    pthread_mutex_lock(&s->lock);
    list_for_each (e, &f->blocks) {
        struct block *b = list_entry(e, struct block, of_file);
        block_heat_pass(&b->heat, b->present);
    }
    pthread_mutex_unlock(&s->lock);
}

/* 1: it goes with the batch; 0: it stays. */
static int retire_cold(struct block_store *s, struct pass *p, struct block_file *f)
{
    int r = block_retire_prepare(s, f, NULL, true, p->batch, &p->files[p->count]);
    if (r == -CV_BUSY || r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    p->waiting += p->files[p->count++].bytes;
    if (p->count == BATCH_FILES)
        r = flush(s, p);
    return r < 0 ? r : 1;
}

/* ---- single blocks of large files ---- */

static int drop_cold(struct block_store *s, struct pass *p, uint64_t inode, uint32_t index)
{
    struct block *b;
    int r = block_hold(s, inode, index, &b);
    if (r < 0)
        return r == -CV_BUSY ? 0 : r;
    pthread_mutex_lock(&s->lock);
    uint64_t cold = 0, bytes = 0;
    bool mine = !b->pinned && !b->lost && !block_dirty(b) && !b->readers && !b->writers && block_try_claim(s, b);
    if (mine) {
        cold = block_heat_pass(&b->heat, b->present);
        bytes = block_charge(b, cold);
    }
    pthread_mutex_unlock(&s->lock);
    if (cold) {
        r = block_drop(s, b, cold);
        if (r == 0) {
            p->freed += bytes;
            pthread_mutex_lock(&s->lock);
            s->stats.evicted_bytes += bytes;
            pthread_mutex_unlock(&s->lock);
        }
    }
    pthread_mutex_lock(&s->lock);
    if (mine)
        block_unclaim(s, b);
    block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
    return r == -CV_BUSY ? 0 : r;
}

/* ---- the way round ---- */

/* The first two block rows of a file from index on: *ret_count of them. */
static int next_blocks(struct block_store *s, uint64_t inode, uint32_t index, uint32_t ret_index[2], int *ret_count)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_BLOCK, inode), key;
    struct block_row_key from = block_key_block(BLOCK_ROW_BLOCK, inode, index);
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    *ret_count = 0;
    int r = block_iter_new(s->index, &prefix, &from, &i);
    while (r >= 0 && *ret_count < 2 && (r = block_iter_next(i, &key)) == 1)
        ret_index[(*ret_count)++] = get_be32(key.p + 9);
    return r < 0 ? r : 0;
}

/* The hand is on inode, at hand_index. Files whose descriptors left go whole or not at all. */
static int visit_file(struct block_store *s, struct pass *p, uint64_t inode)
{
    struct block_file *f;
    uint32_t index[2];
    int count, r = next_blocks(s, inode, s->hand_index, index, &count);
    if (r == 0)
        r = block_file_hold(s, BLOCK_FILE_BACKING, inode, &f);
    if (r < 0)
        return r;
    bool more = false;
    if (f->exists && block_file_exported(s, f)) {
        r = retire_cold(s, p, f);
        if (r == 0)
            lower(s, f);
    } else if (f->exists && s->hand_index == 0 && count == 1) {
        r = retire_cold(s, p, f);
        if (r == 0)
            r = drop_cold(s, p, inode, index[0]);
    } else if (f->exists && count > 0) {
        r = drop_cold(s, p, inode, index[0]);
        more = true;
    }
    block_file_unhold(s, f);
    s->hand_inode = more ? inode : inode + 1;
    s->hand_index = more ? index[0] + 1 : 0;
    return r < 0 ? r : 0;
}

/* One step among backing files; 0 at their end. */
static int step_files(struct block_store *s, struct pass *p)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_FILE), key;
    struct block_row_key from = block_key_file(s->hand_inode, 0);
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, &from, &i);
    if (r == 0)
        r = block_iter_next(i, &key);
    if (r <= 0)
        return r;
    uint64_t inode = get_be64(key.p + 1);
    if (inode != s->hand_inode) {
        s->hand_inode = inode;
        s->hand_index = 0;
    }
    r = visit_file(s, p, inode);
    return r < 0 ? r : 1;
}

static int step_segments(struct block_store *s, struct pass *p)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_SEGMENT), key;
    struct block_row_key from = block_key_u64(BLOCK_ROW_SEGMENT, s->hand_segment);
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, &from, &i);
    if (r == 0)
        r = block_iter_next(i, &key);
    if (r <= 0)
        return r;
    uint64_t id = get_be64(key.p + 1), freed = 0;
    s->hand_segment = id + 1;
    r = block_segment_evict(s, id, false, &freed);
    p->freed += freed;
    return r < 0 && r != -CV_BUSY ? r : 1;
}

static int step(struct block_store *s, struct pass *p)
{
    int r = s->hand_segment == 0 ? step_files(s, p) : 0;
    if (r != 0)
        return r;
    r = step_segments(s, p);
    if (r != 0)
        return r;
    s->hand_inode = s->hand_segment = s->hand_index = 0;
    p->rounds++;
    return flush(s, p); /* the hand must not come to a file that is in the batch */
}

/* Go on until at least bytes are freed or the hand went round in vain. evict_lock held. */
static int run(struct block_store *s, uint64_t bytes, uint64_t *ret_freed)
{
    struct pass *p cleanup(freep) = block_io_alloc(sizeof(*p));
    struct block_batch *batch cleanup(block_batch_free_p) = p ? block_batch_new() : NULL;
    if (!batch)
        return -ENOMEM;
    p->batch = batch;
    int r = 0;
    for (uint64_t before = 0; r >= 0 && p->freed < bytes && p->rounds < ROUNDS_MAX; before = p->freed) {
        r = p->freed + p->waiting >= bytes ? flush(s, p) : step(s, p);
        if (p->freed > before)
            p->rounds = 0;
    }
    int last = flush(s, p);
    pthread_mutex_lock(&s->lock);
    s->row.hand_inode = s->hand_inode;
    s->row.hand_segment = s->hand_segment;
    pthread_mutex_unlock(&s->lock);
    *ret_freed = p->freed;
    return r < 0 ? r : last;
}

int block_hand_make_room(struct block_store *s, uint64_t bytes)
{
    uint64_t freed = 0;
    pthread_mutex_lock(&s->evict_lock);
    uint64_t need = block_space_missing(s, bytes);
    /* Somewhat more, so that not every fill has to come here. */
    int r = need ? run(s, need + min(s->options.dirs[0].capacity_bytes / 64, 64ull << 20), &freed) : 0;
    pthread_mutex_unlock(&s->evict_lock);
    if (r == 0 && need && freed < need && block_space_missing(s, bytes))
        r = -CV_NO_SPACE;
    return block_store_index_error(s, r);
}

int block_store_evict(struct block_store *s, uint64_t bytes, uint64_t *ret_freed)
{
    uint64_t freed = 0;
    pthread_mutex_lock(&s->evict_lock);
    int r = run(s, bytes, &freed);
    pthread_mutex_unlock(&s->evict_lock);
    *ret_freed = freed;
    return r < 0 ? block_store_index_error(s, r) : freed >= bytes ? 0 : -CV_NO_SPACE;
}
