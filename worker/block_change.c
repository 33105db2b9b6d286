/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_change.h"

struct block_change block_change_none(const struct block *b)
{
    return (struct block_change){
        .length = b->length,
        .base_length = b->base_length,
        .room = b->room,
        .durable = b->durable,
        .torn = b->torn,
        .mended = b->mended,
        .filled = b->filled,
        .version = b->version,
        .base_version = b->base_version,
        .epoch = b->epoch,
        .mount = b->mount,
    };
}

uint32_t block_change_room(const struct block *b, uint32_t end)
{
    if (b->index > 0 || end > BLOCK_CHUNK_BYTES)
        return (end + BLOCK_CHUNK_BYTES - 1) / BLOCK_CHUNK_BYTES * BLOCK_CHUNK_BYTES;
    uint32_t room = BLOCK_UNIT_BYTES;
    while (room < end)
        room *= 2;
    return room;
}

uint64_t block_change_short_tail(const struct block *b, uint32_t length)
{
    return length % BLOCK_CHUNK_BYTES ? b->present & ~b->open & 1ull << (length / BLOCK_CHUNK_BYTES) : 0;
}

static uint64_t open_pages(uint64_t chunks, uint32_t room)
{
    uint64_t pages = 0;
    for (; chunks; chunks &= chunks - 1)
        pages += block_pages(room, (uint32_t)__builtin_ctzll(chunks));
    return pages;
}

/* How the charge moves. Lock held. */
static int64_t charge_delta(const struct block *b, const struct block_change *x)
{
    uint64_t after = (b->open | x->opened) & ~x->gone;
    uint64_t leaves = b->open | (b->present & (x->opened | x->gone));
    return (int64_t)(open_pages(after, x->room) * BLOCK_PAGE) - (int64_t)block_charge(b, leaves);
}

/* Lock held. */
static void put_rows(struct block_store *s, struct block_batch *batch, const struct block *b,
                     const struct block_change *x, int64_t delta)
{
    struct block after = *b;
    after.version = x->version;
    after.base_version = x->base_version;
    after.epoch = x->epoch;
    after.length = x->length;
    after.base_length = x->base_length;
    after.durable = x->durable;
    after.mended = x->mended;
    after.filled = x->filled;
    after.mount = x->mount;
    if (x->file)
        after.file = x->file;
    for (uint64_t left = b->present & x->gone; left; left &= left - 1) {
        struct block_row_key key = block_key_chunk(b->inode, b->index, (uint8_t)__builtin_ctzll(left));
        block_batch_delete(batch, &key);
    }
    for (uint64_t left = (b->open | x->opened) & ~x->gone; left; left &= left - 1) {
        uint32_t c = (uint32_t)__builtin_ctzll(left);
        if (!(x->opened >> c & 1) && block_pages(x->room, c) == block_pages(b->room, c))
            continue;
        struct block_row_chunk row = block_open_row(&after, x->room, c);
        block_put_chunk(batch, b, c, &row);
    }
    if (x->row)
        block_put_row(s, batch, &after);
    if (x->file)
        block_file_put_row(s, batch, x->file);
    if (x->cutting)
        block_drop_put_pending(batch, b, x->length);
    if (x->watch)
        block_durable_put(s, batch, &after);
    block_add_charge(s, batch, b->mount, delta);
}

/* Lock held. What readers and fills move meanwhile is left alone. */
static void install(struct block_store *s, struct block *b, const struct block_change *x)
{
    b->cuts += x->length < b->length;
    b->watched |= x->watch;
    b->durable = min(x->durable, x->length);
    if (x->retorn)
        b->torn = x->torn;
    b->mended = x->mended;
    b->filled = x->filled;
    block_durable_opened(b, x->opened & ~b->present);
    (void)block_stretches_sub(&b->gaps, x->length, UINT32_MAX);
    b->version = x->version;
    b->base_version = x->base_version;
    b->epoch = x->epoch;
    b->length = x->length;
    b->base_length = x->base_length;
    b->room = x->room;
    b->mount = x->mount;
    b->present = (b->present | x->opened) & ~x->gone;
    b->open = (b->open | x->opened) & ~x->gone;
    if (x->all_clean)
        b->written = 0;
    b->written = (b->written | x->opened) & ~x->gone;
    b->checked &= ~(x->opened | x->gone);
    b->doubt &= ~(x->opened | x->gone);
    b->damaged &= ~(x->opened | x->gone);
    if (x->file)
        block_attach(s, b, x->file);
    b->exists |= x->row;
    b->unsaved = (b->unsaved && !x->row) || block_unsaved(b);
    if (b->unsaved && b->file)
        block_store_unsynced(s, b->file);
    block_note_open(s, b);
}

int block_change_reserve(struct block_store *s, const struct block *b, struct block_change *x)
{
    pthread_mutex_lock(&s->lock);
    x->delta = charge_delta(b, x);
    pthread_mutex_unlock(&s->lock);
    int r = x->delta > 0 ? block_space_reserve(s, (uint64_t)x->delta) : 0;
    x->reserved = r == 0;
    return r;
}

void block_change_unreserve(struct block_store *s, struct block_change *x)
{
    pthread_mutex_lock(&s->lock);
    if (x->reserved && x->delta > 0)
        block_space_unreserve(s, (uint64_t)x->delta);
    x->reserved = false;
    pthread_mutex_unlock(&s->lock);
}

int block_change(struct block_store *s, struct block *b, struct block_change *x)
{
    int r = x->reserved ? 0 : block_change_reserve(s, b, x);
    if (r < 0)
        return r;
    int64_t delta = x->delta;
    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    /* Made first: a cut that stays pending would be done again at the next start, to what is written behind it by then. */
    struct block_batch *settled cleanup(block_batch_free_p) = batch && x->cutting ? block_batch_new() : NULL;
    if (!batch || (x->cutting && !settled)) {
        block_change_unreserve(s, x);
        return -ENOMEM;
    }
    bool first = !b->watched && (x->watch || x->opened), moved = memcmp(&x->filled, &b->filled, sizeof(x->filled)) != 0;
    x->watch = first || moved;
    x->sync |= first || (moved && !x->row); /* more of it; less may come to the disk later */
    pthread_mutex_lock(&s->lock);
    put_rows(s, batch, b, x, delta);
    pthread_mutex_unlock(&s->lock);
    if (block_batch_count(batch))
        r = block_store_commit(s, batch, x->sync);
    pthread_mutex_lock(&s->lock);
    if (delta > 0)
        block_space_unreserve(s, (uint64_t)delta);
    x->reserved = false;
    if (r == 0) {
        if (delta > 0)
            s->used += (uint64_t)delta;
        install(s, b, x);
    }
    struct block_file *f = b->file;
    pthread_mutex_unlock(&s->lock);
    if (r == 0 && x->cutting) {
        r = block_drop_cut(s, f, b->index, x->length);
        if (r == 0) {
            block_drop_put_settled(settled, b);
            r = block_store_commit(s, settled, false);
        }
    }
    if (r == 0 && delta < 0) {
        pthread_mutex_lock(&s->lock);
        s->used -= (uint64_t)-delta;
        pthread_mutex_unlock(&s->lock);
    }
    return r;
}
