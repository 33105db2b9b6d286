/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master's speculative view: rows that are changed but not committed lie over the committed ones, each tagged
 * with the newest batch that owns it. A batch remembers what it covered up, so batches can be undone newest first.
 */
#include "sim_check.h"
#include "sim_master.h"
#include "sim_mutants.h"
#include "sim_node.h"
#include "sim_space.h"

#include "base/hash.h"

uint64_t view_row(const struct master *m, uint32_t key, uint64_t *ret_batch)
{
    const struct overlay_row *o = &m->rows[key];
    *ret_batch = o->batch;
    return o->batch ? o->value : m->state.rows[key];
}

const struct slot_row *view_slot(const struct master *m, uint32_t client, uint64_t *ret_batch)
{
    const struct overlay_slot *o = &m->slots[client];
    *ret_batch = o->batch;
    return o->batch ? &o->row : &m->state.slots[client];
}

uint64_t view_digest(const struct master *m)
{
    uint64_t digest = 0, batch;
    for (uint32_t k = 0; k < SIM_KEYS; k++)
        digest = hash_u64(digest ^ view_row(m, k, &batch));
    for (uint32_t c = 0; c < SIM_CLIENTS_MAX; c++) {
        const struct slot_row *s = view_slot(m, c, &batch);
        digest = hash_u64(digest ^ s->seq) + s->result;
    }
    return hash_u64(digest ^ m->id_last);
}

void overlay_execute(struct master *m, struct batch *b, const struct op *op)
{
    struct undo *u = &b->undo[b->data->count];
    *u = (struct undo){
        .client = op->client,
        .key = op->key,
        .has_row = op->type != OP_ID,
        .row = m->rows[op->key],
        .slot = m->slots[op->client],
        .id_last = m->id_last,
    };
    b->data->ops[b->data->count++] = *op;
    m->slots[op->client] = (struct overlay_slot){{op->seq, op->after, op->plan}, b->number};
    if (op->type == OP_ID)
        m->id_last = max(m->id_last, op->after);
    else
        m->rows[op->key] = (struct overlay_row){op->after, b->number};
}

void overlay_commit(struct master *m, struct batch *b)
{
    for (uint32_t i = 0; i < b->data->count; i++) {
        const struct op *op = &b->data->ops[i];
        /* A newer batch may own the row by now: then it stays. */
        if (op->type != OP_ID && (m->rows[op->key].batch == b->number || SIM_MUTANT(overlay_dropped_early)))
            m->rows[op->key].batch = 0;
        if (m->slots[op->client].batch == b->number)
            m->slots[op->client].batch = 0;
    }
}

/* What a batch covered up may have been committed meanwhile: then it is found below. */
static uint64_t still_over(const struct master *m, uint64_t batch)
{
    return batch >= m->first_batch ? batch : 0;
}

void overlay_undo(struct node *n, uint64_t from_number)
{
    struct master *m = &n->master;
    const struct batch *oldest = NULL; /* of those the namespace knows */
    while (m->next_batch > m->first_batch && m->next_batch > from_number) {
        struct batch *b = master_batch(m, --m->next_batch);
        if (b->space_number)
            oldest = b;
        trace(n->world, "n%u master undoes batch %llu (entry %llu)", n->slot, (unsigned long long)b->number,
              (unsigned long long)b->index);
        for (uint32_t i = b->data->count; i > 0; i--) {
            struct undo *u = &b->undo[i - 1];
            if (u->has_row) {
                m->rows[u->key] = u->row;
                m->rows[u->key].batch = still_over(m, u->row.batch);
            }
            m->id_last = u->id_last;
            if (SIM_MUTANT(slot_not_undone))
                continue;
            m->slots[u->client] = u->slot;
            m->slots[u->client].batch = still_over(m, u->slot.batch);
        }
        check_undone(n, view_digest(m), b->digest_before);
    }
    m->open = false;
    if (!m->space || !oldest)
        return;
    space_undo(m->space, oldest->space_number);
    check_undone(n, space_dump(m->space), oldest->space_before);
}
