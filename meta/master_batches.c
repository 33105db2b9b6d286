/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_batches.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "meta/master_ack.h"

int master_batches_init(struct master_batches *b, uint32_t in_flight_max)
{
    *b = (struct master_batches){.size = in_flight_max};
    b->ring = calloc(b->size, sizeof(*b->ring));
    return b->ring ? 0 : -ENOMEM;
}

static void waits_fini(struct master_batch_waits *w)
{
    assert(w->mode.n == 0 && w->strict.n == 0);
    buf_fini(&w->acked);
}

void master_batches_fini(struct master_batches *b)
{
    assert(b->count == 0);
    waits_fini(&b->filling);
    for (uint32_t i = 0; i < b->size; i++)
        waits_fini(&b->ring[i].waits);
    free(b->ring);
    b->ring = NULL;
}

static struct master_batch_entry *at(const struct master_batches *b, uint32_t i)
{
    return master_batches_at(b, i);
}

bool master_batches_may_close(const struct master_batches *b, uint32_t bytes)
{
    if (b->count >= b->size || b->count >= b->credit_entries)
        return false;
    return b->count == 0 ? b->credit_bytes > 0 : b->bytes + bytes <= b->credit_bytes;
}

/* A place at the end of the ring; of what stood there only the room for notes is left. */
static struct master_batch_entry *push(struct master_batches *b, struct master_batch_entry what)
{
    assert(b->count < b->size);
    struct master_batch_entry *e = at(b, b->count++);
    what.waits.acked = e->waits.acked;
    what.waits.acked.n = 0;
    *e = what;
    b->bytes += e->bytes;
    b->unproposed++;
    return e;
}

struct master_batch_entry *master_batches_close(struct master_batches *b, struct meta_payload *payload)
{
    struct master_batch_entry *e = push(b, (struct master_batch_entry){
                                               .type = LINK_BATCH,
                                               .number = payload->batch,
                                               .bytes = payload->n,
                                               .op_count = payload->op_count,
                                               .payload = payload,
                                           });
    struct buf room = e->waits.acked;
    e->waits = b->filling;
    b->filling = (struct master_batch_waits){.acked = room};
    return e;
}

struct master_batch_entry *master_batches_add(struct master_batches *b, enum link_entry_type type, const void *bytes,
                                              uint32_t n)
{
    assert(n <= MASTER_SMALL_MAX);
    struct master_batch_entry what = {.type = (uint8_t)type, .bytes = n};
    what.number = b->count ? at(b, b->count - 1)->number : 0;
    memcpy(what.small, bytes, n);
    return push(b, what);
}

struct master_batch_entry *master_batches_next(struct master_batches *b)
{
    return b->unproposed ? at(b, b->count - b->unproposed) : NULL;
}

void master_batches_proposed(struct master_batches *b, struct master_batch_entry *e, uint64_t term, uint64_t sequence,
                             uint64_t now_ns)
{
    assert(e == master_batches_next(b));
    b->unproposed--;
    e->term = term;
    e->sequence = sequence;
    e->proposed_ns = now_ns;
    meta_payload_unref(e->payload);
    e->payload = NULL;
}

struct master_batch_waits *master_batches_waits(struct master_batches *b, uint64_t number)
{
    /* Nearly always the one being filled, or the last. */
    for (uint32_t i = b->count; i-- > 0;) {
        struct master_batch_entry *e = at(b, i);
        if (e->number == number && e->type == LINK_BATCH)
            return &e->waits;
        if (e->number < number)
            break;
    }
    return &b->filling;
}

void master_batches_indexed(struct master_batches *b, uint64_t first_sequence, uint64_t first_index, uint32_t count)
{
    for (uint32_t i = 0; i < b->count; i++) {
        struct master_batch_entry *e = at(b, i);
        if (e->index == 0 && e->sequence >= first_sequence && e->sequence - first_sequence < count)
            e->index = first_index + (e->sequence - first_sequence);
    }
}

/* Answered, and not committed: what changed something is noted. */
static void release_early(struct master_batch_waits *w, struct master_chain *ret)
{
    for (const struct master_request *q = w->mode.first; q; q = q->next)
        if (q->meta.changed)
            master_ack_note(&w->acked, &q->meta);
    master_chain_append(ret, &w->mode);
}

uint64_t master_batches_release(struct master_batches *b, uint64_t index, uint64_t commit, struct master_chain *ret,
                                uint64_t *ret_committed)
{
    uint64_t last = 0;
    *ret_committed = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        struct master_batch_entry *e = at(b, i);
        if (e->index == 0 || e->index > index)
            break;
        last = e->number;
        if (e->index > commit) {
            release_early(&e->waits, ret);
            continue;
        }
        master_chain_append(ret, &e->waits.mode);
        master_chain_append(ret, &e->waits.strict);
        *ret_committed = e->number;
    }
    return last;
}

const struct master_batch_entry *master_batches_committed(const struct master_batches *b, uint64_t index)
{
    const struct master_batch_entry *e = b->count ? at(b, 0) : NULL;
    return e && e->index && e->index <= index ? e : NULL;
}

void master_batches_drop(struct master_batches *b)
{
    struct master_batch_entry *e = at(b, 0);
    assert(b->count > b->unproposed && e->waits.mode.n == 0 && e->waits.strict.n == 0);
    e->waits.acked.n = 0;
    b->bytes -= e->bytes;
    b->head = (b->head + 1) % b->size;
    b->count--;
}

static void waits_undo(struct master_batch_waits *w, struct master_chain *ret)
{
    assert(w->acked.n == 0);
    master_chain_append(ret, &w->mode);
    master_chain_append(ret, &w->strict);
}

uint64_t master_batches_undo(struct master_batches *b, uint32_t position, struct master_chain *ret)
{
    uint64_t number = 0;
    for (uint32_t i = position; i < b->count; i++) {
        struct master_batch_entry *e = at(b, i);
        b->bytes -= e->bytes;
        meta_payload_unref(e->payload);
        e->payload = NULL;
        if (!e->sequence)
            b->unproposed--;
        if (!number && e->type == LINK_BATCH)
            number = e->number;
        waits_undo(&e->waits, ret);
    }
    b->count = min(b->count, position);
    waits_undo(&b->filling, ret);
    return number;
}
