/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: small clean files one after the other. The room of a segment is charged whole when it is begun, its length
 * when it is closed. Two are appended to: one by fills, one by the survivors of eviction, which may use what is held back.
 */
#include "worker/block_state.h"

#include <sys/stat.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"

static uint64_t align_up(uint64_t n)
{
    return (n + BLOCK_SEGMENT_ALIGN - 1) / BLOCK_SEGMENT_ALIGN * BLOCK_SEGMENT_ALIGN;
}

static void put_row(struct block_store *s, struct block_batch *batch, const struct block_file *f, uint64_t bytes,
                    bool closed)
{
    struct block_row_key key = block_key_u64(BLOCK_ROW_SEGMENT, f->key);
    struct block_row_key active = block_key_u64(BLOCK_ROW_ACTIVE, f->key);
    struct block_row_segment row = {
        .closed = closed,
        .directory_id = s->dir.identity.directory_id,
        .bytes = bytes,
        .exported = f->exported,
    };
    struct block_row_mark mark = {0};
    block_batch_put(batch, &key, &row, sizeof(row));
    if (closed)
        block_batch_delete(batch, &active);
    else
        block_batch_put(batch, &active, &mark, sizeof(mark));
}

static void add_used(struct block_store *s, struct block_batch *batch, int64_t delta)
{
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
    block_batch_add(batch, &used, delta);
}

/* Nothing more comes: charge what it has become. Claimed. */
static int close_segment(struct block_store *s, struct block_file *f, uint64_t charged, uint64_t length)
{
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return -ENOMEM;
    put_row(s, batch, f, length, true);
    add_used(s, batch, (int64_t)(length - charged));
    int r = block_store_commit(s, batch, false);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    s->used -= charged - length;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int begin_segment(struct block_store *s, struct block_file **ret)
{
    uint64_t id;
    struct block_file *f;
    int r = block_store_file_id(s, &id);
    if (r == 0)
        r = block_file_hold(s, BLOCK_FILE_SEGMENT, id, &f);
    if (r < 0)
        return r;
    struct block_segment_head head = {.directory_id = s->dir.identity.directory_id, .segment_id = id};
    block_segment_head_finish(&head);
    r = block_file_create(s, f, id, 0);
    if (r < 0) {
        block_file_unhold(s, f);
        return r;
    }
    r = block_io_write(f->fd, &head, sizeof(head), 0);
    if (r < 0)
        r = block_space_write_error(s, r);
    struct block_batch *batch cleanup(block_batch_free_p) = r == 0 ? block_batch_new() : NULL;
    if (r == 0 && !batch)
        r = -ENOMEM;
    if (r == 0) {
        struct block_row_key creating = block_key_u64(BLOCK_ROW_CREATING, id);
        block_batch_delete(batch, &creating);
        put_row(s, batch, f, s->options.segment_bytes, false);
        add_used(s, batch, s->options.segment_bytes);
        r = block_store_commit(s, batch, false);
    }
    if (r < 0) { /* its name stays as a creating row */
        f->exists = false;
        block_file_unuse(s, f);
        block_file_unhold(s, f);
        return r;
    }
    *ret = f;
    return 0;
}

/* The writer's segment is full or there is none: the next one. */
static int roll(struct block_store *s, struct block_seg_writer *w)
{
    uint64_t room = s->options.segment_bytes;
    struct block_file *next = NULL;
    if (w->file) {
        int r = close_segment(s, w->file, room, align_up(w->at));
        if (r < 0)
            return r;
        struct block_file *full = take(w->file);
        pthread_mutex_lock(&s->lock);
        block_file_unuse_locked(s, full);
        block_file_unhold_locked(s, full);
        pthread_mutex_unlock(&s->lock);
    }
    int r = w == &s->survivors ? block_space_reserve_survivor(s, room) : block_space_reserve(s, room);
    if (r < 0)
        return r;
    r = begin_segment(s, &next);
    pthread_mutex_lock(&s->lock);
    block_space_unreserve(s, room);
    if (r == 0) {
        s->used += room;
        w->file = next;
        w->at = sizeof(struct block_segment_head);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

int block_segment_append(struct block_store *s, struct block_seg_writer *w, struct block_entry_head *head,
                         const void *data, struct block_file **ret_file, uint32_t *ret_offset)
{
    uint64_t bytes = align_up(sizeof(*head) + head->length);
    int r = 0;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (w->rolling)
            pthread_cond_wait(&s->changed, &s->lock);
        if (w->file && w->at + bytes <= s->options.segment_bytes)
            break;
        w->rolling = true;
        pthread_mutex_unlock(&s->lock);
        r = roll(s, w);
        pthread_mutex_lock(&s->lock);
        w->rolling = false;
        pthread_cond_broadcast(&s->changed);
        if (r < 0) {
            pthread_mutex_unlock(&s->lock);
            return r;
        }
    }
    struct block_file *f = w->file;
    uint64_t at = w->at;
    w->at += bytes;
    f->refs++;
    f->users++;
    pthread_mutex_unlock(&s->lock);

    block_entry_head_finish(head);
    r = block_io_write2(f->fd, head, sizeof(*head), data, head->length, at);
    block_file_unuse(s, f);
    if (r < 0) {
        block_file_unhold(s, f);
        return block_space_write_error(s, r);
    }
    *ret_file = f;
    *ret_offset = (uint32_t)at;
    return 0;
}

int block_segment_recover(struct block_store *s)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_ACTIVE), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_file *f;
        struct block_row_segment row;
        uint64_t id = get_be64(key.p + 1);
        struct block_row_key row_key = block_key_u64(BLOCK_ROW_SEGMENT, id);
        r = block_index_get(s->index, &row_key, false, &row, sizeof(row));
        if (r == 0)
            r = block_file_hold(s, BLOCK_FILE_SEGMENT, id, &f);
        if (r < 0)
            return r;
        struct stat st = {0};
        r = block_file_use(s, f);
        if (r == 0) {
            r = fstat(f->fd, &st) < 0 ? -errno : 0;
            block_file_unuse(s, f);
        } else if (r == -ENOENT) {
            r = 0; /* its blocks find out */
        }
        if (r == 0)
            r = close_segment(s, f, row.bytes, min(align_up((uint64_t)st.st_size), row.bytes));
        block_file_unhold(s, f);
    }
    return r;
}

/* ---- eviction and compaction ---- */

#define MOVE_MAX 64 /* entries claimed at a time */

struct move {
    struct block *block;   /* claimed and held */
    struct block_file *to; /* held; NULL: it goes */
    uint32_t offset;
    uint64_t seal;
};

struct clearing {
    struct block_store *s;
    struct block_file *file;
    uint64_t length;
    bool keep_cold;
    struct block_batch *batch;
    struct move moves[MOVE_MAX];
    int count;
    uint8_t data[BLOCK_PACKED_MAX];
};

static bool lives_here(const struct clearing *c, const struct block *b, uint64_t offset)
{
    return b->exists && b->packed && b->file == c->file && b->entry_offset == offset;
}

/* Bytes that would be copied, as far as memory knows. With lower, the hand passes over them. */
static uint64_t warm_bytes(struct clearing *c, bool lower)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&c->s->lock);
    list_for_each (e, &c->file->blocks) {
        struct block *b = list_entry(e, struct block, of_file);
        if (b->pinned || block_heat_cold(&b->heat, 1) == 0)
            sum += (uint64_t)block_packed_bytes(b->length);
        if (lower)
            block_heat_pass(&b->heat, 1);
    }
    pthread_mutex_unlock(&c->s->lock);
    return sum;
}

/* Copy an entry to the survivors. -CV_BAD_CHECKSUM: it is damaged and goes. */
static int copy_entry(struct clearing *c, struct move *m, const struct block_entry_head *head, uint64_t offset)
{
    size_t n = 0;
    int r = block_io_read(c->file->fd, c->data, head->length, offset + sizeof(*head), &n);
    if (r < 0 || n < head->length)
        return -CV_BAD_CHECKSUM;
    for (uint32_t u = 0; u * BLOCK_UNIT_BYTES < head->length; u++) {
        uint32_t piece = min(head->length - u * BLOCK_UNIT_BYTES, BLOCK_UNIT_BYTES);
        if (crc32c(0, c->data + u * BLOCK_UNIT_BYTES, piece) != head->crc[u])
            return -CV_BAD_CHECKSUM;
    }
    struct block_entry_head copy = *head;
    r = block_segment_append(c->s, &c->s->survivors, &copy, c->data, &m->to, &m->offset);
    if (r == 0) {
        r = block_store_seal(c->s, m->to, &m->seal);
        if (r < 0)
            block_file_unhold(c->s, take(m->to));
    }
    return r;
}

static void put_move(struct clearing *c, const struct move *m, const struct block_entry_head *head)
{
    struct block *b = m->block;
    if (m->to) {
        uint32_t crc[2] = {head->crc[0], head->crc[1]};
        block_put_packed_row(c->batch, b, m->to->key, m->offset, crc, m->seal);
        return;
    }
    struct block_row_key mount = block_key_u32(BLOCK_ROW_MOUNT, b->mount);
    block_batch_add(c->batch, &mount, -block_packed_bytes(b->length));
    if (b->epoch) {
        pthread_mutex_lock(&c->s->lock);
        struct block copy = *b;
        pthread_mutex_unlock(&c->s->lock);
        copy.packed = false;
        copy.file = NULL;
        block_put_row(c->s, c->batch, &copy);
    } else {
        struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
        block_batch_delete(c->batch, &key);
    }
}

/* Write the batch; then memory follows. On error memory stays as it was. */
static int flush_moves(struct clearing *c, int r)
{
    struct block_store *s = c->s;
    if (r == 0 && c->count)
        r = block_store_commit(s, c->batch, false);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < c->count; i++) {
        struct move *m = &c->moves[i];
        struct block *b = m->block;
        if (r == 0 && m->to) {
            block_attach(s, b, m->to);
            b->entry_offset = m->offset;
            b->checked = 1;
            b->doubt = b->damaged = 0;
        } else if (r == 0) {
            s->stats.evicted_bytes += (uint64_t)block_packed_bytes(b->length);
            b->present = b->checked = b->doubt = b->damaged = 0;
            b->exists = b->epoch != 0;
            b->packed = false;
            b->heat = (struct block_heat){0};
            block_attach(s, b, NULL);
        }
        if (m->to)
            block_file_unhold_locked(s, m->to);
        block_unclaim(s, b);
        block_unhold_locked(s, b);
    }
    pthread_mutex_unlock(&s->lock);
    c->count = 0;
    block_batch_clear(c->batch);
    return r;
}

static int clear_entry(struct clearing *c, const struct block_entry_head *head, uint64_t offset)
{
    struct block_store *s = c->s;
    struct move *m = &c->moves[c->count];
    *m = (struct move){0};
    int r = block_hold(s, head->inode, 0, &m->block);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    struct block *b = m->block;
    bool lives = lives_here(c, b, offset);
    bool mine = lives && block_try_claim(s, b);
    bool stay = mine && (c->keep_cold || b->pinned || block_heat_pass(&b->heat, 1) == 0);
    if (!mine)
        block_unhold_locked(s, b);
    pthread_mutex_unlock(&s->lock);
    if (!mine)
        return lives ? -CV_BUSY : 0;
    r = stay ? copy_entry(c, m, head, offset) : 0;
    if (r < 0 && r != -CV_BAD_CHECKSUM) {
        block_give_back(s, b);
        return r;
    }
    put_move(c, m, head);
    c->count++;
    return c->count == MOVE_MAX ? flush_moves(c, 0) : 0;
}

/* All entries in turn. One with a damaged head hides those behind it: they go with the segment. */
static int clear_entries(struct clearing *c)
{
    uint64_t at = sizeof(struct block_segment_head);
    int r = 0;
    while (r == 0 && at + sizeof(struct block_entry_head) <= c->length) {
        struct block_entry_head head;
        size_t n = 0;
        r = block_io_read(c->file->fd, &head, sizeof(head), at, &n);
        if (r < 0)
            break;
        if (n < sizeof(head) || block_entry_head_check(&head) < 0 || head.length > BLOCK_PACKED_MAX) {
            log_warn(0, "segment %016llx: unreadable from byte %llu on, ignoring the rest of it",
                     (unsigned long long)c->file->key, (unsigned long long)at);
            break;
        }
        r = clear_entry(c, &head, at);
        at += align_up(sizeof(head) + head.length);
    }
    return flush_moves(c, r);
}

/* What is resident of it and was hidden by damage: gone too. Then the segment itself. */
static int finish_clearing(struct clearing *c)
{
    struct block_store *s = c->s;
    struct block_file *f = c->file;
    bool out = block_file_exported(s, f);
    bool busy = false;
    pthread_mutex_lock(&s->lock);
    list_for_each (e, &f->blocks)
        busy |= list_entry(e, struct block, of_file)->busy;
    if (busy) {
        pthread_mutex_unlock(&s->lock);
        return -CV_BUSY;
    }
    block_file_claim(s, f);
    list_for_each_safe (e, &f->blocks) {
        struct block *b = list_entry(e, struct block, of_file);
        b->present = b->checked = b->doubt = b->damaged = 0;
        b->packed = false;
        b->exists = b->epoch != 0; /* its row dangles until it is loaded again */
        block_attach(s, b, NULL);
    }
    pthread_mutex_unlock(&s->lock);
    struct block_row_key dead = block_key_u64(BLOCK_ROW_DEAD, f->key);
    block_file_put_going(s, c->batch, f, c->length);
    block_batch_delete(c->batch, &dead);
    if (!out)
        add_used(s, c->batch, -(int64_t)c->length);
    int r = block_store_commit(s, c->batch, true);
    if (r == 0)
        r = block_file_unlink(s, f, c->length);
    pthread_mutex_lock(&s->lock);
    block_file_unclaim(s, f);
    pthread_mutex_unlock(&s->lock);
    return r;
}

int block_segment_evict(struct block_store *s, uint64_t id, bool keep_cold, uint64_t *ret_freed)
{
    struct block_row_key key = block_key_u64(BLOCK_ROW_SEGMENT, id);
    struct block_row_segment row;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r < 0)
        return r == -ENOENT ? -CV_BUSY : r;
    if (!row.closed)
        return -CV_BUSY;
    struct clearing *c cleanup(freep) = block_io_alloc(sizeof(*c));
    struct block_batch *batch cleanup(block_batch_free_p) = c ? block_batch_new() : NULL;
    if (!batch)
        return -ENOMEM;
    c->s = s;
    c->length = row.bytes;
    c->keep_cold = keep_cold;
    c->batch = batch;
    r = block_file_hold(s, BLOCK_FILE_SEGMENT, id, &c->file);
    if (r < 0)
        return r;
    r = block_file_use(s, c->file);
    bool there = r == 0;
    if (r == 0 && !keep_cold && warm_bytes(c, false) > c->length / 4 * 3) {
        warm_bytes(c, true);
        r = -CV_BUSY;
    }
    uint64_t before = s->survivors.file ? s->survivors.at : 0;
    if (r == 0)
        r = clear_entries(c);
    if (r == 0 || r == -ENOENT)
        r = finish_clearing(c);
    if (r == 0 && !block_file_exported(s, c->file)) {
        uint64_t copied = s->survivors.at > before ? s->survivors.at - before : 0;
        *ret_freed = c->length > copied ? c->length - copied : 0;
    }
    if (there)
        block_file_unuse(s, c->file);
    block_file_unhold(s, c->file);
    return r;
}
