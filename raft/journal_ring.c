/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_ring.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/error.h"

enum { ALIGN = 64 };

/* Records in order of allocation: in [tail, head), or, when head < tail, in [tail, end) and [0, head). */
struct journal_ring {
    uint8_t *region;
    uint64_t bytes, bytes_max;
    uint64_t head, tail, end;
    uint64_t count; /* records in the region; 0: empty, wherever head and tail are */
    uint64_t used, pinned;

    uint64_t first, last; /* indexes in the table; empty when first > last */
    struct journal_record *table[JOURNAL_RING_ENTRIES_MAX];
};

int journal_ring_new(uint64_t bytes, uint64_t bytes_max, struct journal_ring **ret)
{
    struct journal_ring *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->bytes_max = max(bytes, bytes_max);
    r->bytes = bytes;
    r->first = 1;
    r->region = mmap(NULL, r->bytes_max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->region == MAP_FAILED) {
        free(r);
        return -ENOMEM;
    }
    *ret = r;
    return 0;
}

static struct journal_record **slot(const struct journal_ring *r, uint64_t index)
{
    return (struct journal_record **)&r->table[index % JOURNAL_RING_ENTRIES_MAX];
}

struct journal_ring *journal_ring_free(struct journal_ring *r)
{
    if (!r)
        return NULL;
    for (uint64_t i = r->first; i <= r->last; i++) {
        if ((*slot(r, i))->room == 0)
            free(*slot(r, i));
    }
    munmap(r->region, r->bytes_max);
    free(r);
    return NULL;
}

void journal_ring_resize(struct journal_ring *r, uint64_t bytes)
{
    r->bytes = min(bytes, r->bytes_max);
}

/* Take indexes first..index out of the table. */
static void forget_up_to(struct journal_ring *r, uint64_t index)
{
    for (; r->first <= index && r->first <= r->last; r->first++)
        *slot(r, r->first) = NULL;
}

/* Free the oldest record. Returns false when it is pinned. */
static bool evict(struct journal_ring *r)
{
    struct journal_record *oldest = (struct journal_record *)(r->region + r->tail);
    if (oldest->pins)
        return false;
    uint64_t index = oldest->entry.index;
    if (index && journal_ring_find(r, index) == oldest)
        forget_up_to(r, index);
    bool wrapped = r->head < r->tail;
    r->used -= oldest->room;
    r->tail += oldest->room;
    r->count--;
    if (wrapped && r->tail == r->end)
        r->tail = 0;
    return true;
}

/* Make room for n contiguous bytes at head. Returns false when pinned records are in the way. */
static bool make_room(struct journal_ring *r, uint64_t n)
{
    for (;;) {
        if (r->count == 0) {
            r->head = r->tail = 0;
            return n <= r->bytes;
        }
        if (r->head > r->tail) { /* one piece: behind it, or at 0 before it */
            if (r->head + n <= r->bytes)
                return true;
            if (n < r->tail) {
                r->end = r->head;
                r->head = 0;
                return true;
            }
        } else if (r->head + n < r->tail && r->head + n <= r->bytes) {
            return true;
        }
        if (!evict(r))
            return false;
    }
}

static uint64_t record_room(uint32_t size)
{
    return (sizeof(struct journal_record) + size + ALIGN - 1) / ALIGN * ALIGN;
}

int journal_ring_alloc(struct journal_ring *r, uint32_t size, struct journal_record **ret)
{
    uint64_t n = record_room(size);
    if (!make_room(r, n))
        return -CV_BUSY;
    struct journal_record *record = (struct journal_record *)(r->region + r->head);
    *record = (struct journal_record){.pins = 1, .room = (uint32_t)n};
    record->entry.data = record->data;
    record->entry.size = size;
    r->head += n;
    r->count++;
    r->used += n;
    r->pinned += n;
    *ret = record;
    return 0;
}

int journal_ring_alloc_always(struct journal_ring *r, uint32_t size, struct journal_record **ret)
{
    if (journal_ring_alloc(r, size, ret) == 0)
        return 0;
    struct journal_record *record = calloc(1, sizeof(*record) + size);
    if (!record)
        return -ENOMEM;
    record->pins = 1;
    record->entry.data = record->data;
    record->entry.size = size;
    *ret = record;
    return 0;
}

void journal_ring_add(struct journal_ring *r, struct journal_record *record, uint64_t index, uint64_t term)
{
    assert(record->pins && record->entry.index == 0);
    if (r->first > r->last || index != r->last + 1) { /* the first one, or behind an installed snapshot */
        forget_up_to(r, r->last);
        r->first = index;
        r->last = index - 1;
    }
    if (r->last - r->first + 1 == JOURNAL_RING_ENTRIES_MAX)
        forget_up_to(r, r->first);
    record->entry.index = index;
    record->entry.term = term;
    *slot(r, index) = record;
    r->last = index;
}

void journal_ring_truncate(struct journal_ring *r, uint64_t from)
{
    for (; r->last >= from && r->last >= r->first; r->last--)
        *slot(r, r->last) = NULL;
}

struct journal_record *journal_ring_find(const struct journal_ring *r, uint64_t index)
{
    return index >= r->first && index <= r->last ? *slot(r, index) : NULL;
}

void journal_ring_pin(struct journal_ring *r, struct journal_record *record)
{
    if (record->pins++ == 0)
        r->pinned += record->room;
}

void journal_ring_unpin(struct journal_ring *r, struct journal_record *record)
{
    assert(record->pins);
    if (--record->pins)
        return;
    r->pinned -= record->room;
    if (record->room)
        return;
    if (journal_ring_find(r, record->entry.index) == record)
        forget_up_to(r, record->entry.index); /* the table has no holes */
    free(record);
}

uint64_t journal_ring_used(const struct journal_ring *r)
{
    return r->used;
}

uint64_t journal_ring_pinned(const struct journal_ring *r)
{
    return r->pinned;
}
