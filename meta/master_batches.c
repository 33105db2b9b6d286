/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_batches.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int master_batches_init(struct master_batches *b, uint32_t in_flight_max)
{
    *b = (struct master_batches){.size = in_flight_max};
    b->ring = calloc(b->size, sizeof(*b->ring));
    return b->ring ? 0 : -ENOMEM;
}

void master_batches_fini(struct master_batches *b)
{
    assert(b->count == 0 && b->filling.n == 0);
    free(b->ring);
    b->ring = NULL;
}

static struct master_batch_entry *at(const struct master_batches *b, uint32_t i)
{
    return &b->ring[(b->head + i) % b->size];
}

bool master_batches_may_close(const struct master_batches *b, uint32_t bytes)
{
    if (b->count >= b->size || b->count >= b->credit_entries)
        return false;
    return b->count == 0 ? b->credit_bytes > 0 : b->bytes + bytes <= b->credit_bytes;
}

void master_batches_close(struct master_batches *b, struct meta_payload *payload)
{
    assert(b->count < b->size);
    struct master_batch_entry *e = at(b, b->count++);
    *e = (struct master_batch_entry){
        .number = payload->batch,
        .bytes = payload->n,
        .op_count = payload->op_count,
        .payload = payload,
        .waiting = b->filling,
    };
    b->filling = (struct master_chain){0};
    b->bytes += e->bytes;
    b->unproposed++;
}

struct master_batch_entry *master_batches_next(struct master_batches *b)
{
    return b->unproposed ? at(b, b->count - b->unproposed) : NULL;
}

void master_batches_proposed(struct master_batches *b, struct master_batch_entry *e, uint64_t sequence, uint64_t now_ns)
{
    assert(e == master_batches_next(b));
    b->unproposed--;
    e->sequence = sequence;
    e->proposed_ns = now_ns;
    meta_payload_unref(e->payload);
    e->payload = NULL;
}

void master_batches_wait(struct master_batches *b, uint64_t number, struct master_request *q)
{
    /* Nearly always the one being filled, or the last. */
    for (uint32_t i = b->count; i-- > 0;) {
        struct master_batch_entry *e = at(b, i);
        if (e->number == number) {
            master_chain_add(&e->waiting, q);
            return;
        }
        if (e->number < number)
            break;
    }
    master_chain_add(&b->filling, q);
}

void master_batches_indexed(struct master_batches *b, uint64_t first_sequence, uint64_t first_index, uint32_t count)
{
    for (uint32_t i = 0; i < b->count; i++) {
        struct master_batch_entry *e = at(b, i);
        if (e->index == 0 && e->sequence >= first_sequence && e->sequence - first_sequence < count)
            e->index = first_index + (e->sequence - first_sequence);
    }
}

uint64_t master_batches_release(struct master_batches *b, uint64_t index, struct master_chain *ret)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        struct master_batch_entry *e = at(b, i);
        if (e->index == 0 || e->index > index)
            break;
        master_chain_append(ret, &e->waiting);
        last = e->number;
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
    assert(b->count > b->unproposed && e->waiting.n == 0);
    b->bytes -= e->bytes;
    b->head = (b->head + 1) % b->size;
    b->count--;
}

void master_batches_undo(struct master_batches *b, uint64_t number, struct master_chain *ret)
{
    struct master_chain taken = {0};
    uint32_t keep = 0;
    while (keep < b->count && at(b, keep)->number < number)
        keep++;
    for (uint32_t i = keep; i < b->count; i++) {
        struct master_batch_entry *e = at(b, i);
        b->bytes -= e->bytes;
        meta_payload_unref(e->payload);
        e->payload = NULL;
        if (!e->sequence)
            b->unproposed--;
        master_chain_append(&taken, &e->waiting);
    }
    b->count = keep;
    master_chain_append(&taken, &b->filling);
    master_chain_append(ret, &taken);
}
