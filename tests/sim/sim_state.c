/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_state.h"

#include "base/hash.h"
#include "sim_disk.h"

static const char *apply_op(struct state *s, const struct op *op)
{
    struct slot_row *slot = &s->slots[op->client];
    if (op->seq <= slot->seq)
        return "a request was executed twice, or after a later one of its client";
    if (op->type == OP_ID) {
        s->id_last = max(s->id_last, op->after);
    } else {
        if (s->rows[op->key] != op->before)
            return "an operation was executed on another version than the log holds";
        s->rows[op->key] = op->after;
    }
    slot->seq = op->seq;
    slot->result = op->after;
    slot->plan = op->plan;
    return NULL;
}

const char *state_apply(struct state *s, const struct sim_entry *e)
{
    s->applied = e->index;
    if (e->type == RAFT_ID_LEASE) {
        const struct grant_data *g = (const void *)e->data;
        if (g->from != s->granted)
            return "a grant of ids does not begin where the last one ended";
        s->granted = g->to;
        return NULL;
    }
    if (e->type != RAFT_BATCH)
        return NULL;
    const struct batch_data *b = (const void *)e->data;
    const char *problem = NULL;
    for (uint32_t i = 0; i < b->count; i++) {
        const char *p = apply_op(s, &b->ops[i]);
        problem = problem ? problem : p;
    }
    return problem;
}

uint64_t state_digest(const struct state *s)
{
    return hash_bytes(s->applied, s->rows, sizeof(*s) - offsetof(struct state, rows));
}
