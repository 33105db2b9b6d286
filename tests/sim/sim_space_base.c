/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_space_base.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "meta/meta_core.h"

struct cell {
    uint8_t family;
    struct text key, value;
};

struct space_base {
    uint32_t count;
    struct cell cells[];
};

static int compare(uint8_t family, struct text key, const struct cell *c)
{
    if (family != c->family)
        return family < c->family ? -1 : 1;
    return text_compare(key, c->key);
}

/* The first cell at or behind a key. */
static uint32_t seek(const struct space_base *b, uint8_t family, struct text key)
{
    uint32_t low = 0, high = b ? b->count : 0;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (compare(family, key, &b->cells[middle]) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Half of what is asked for is not in memory. */
static bool is_cold(const struct space_view *v, bool memory)
{
    return memory && chance(v->random, 500);
}

static int base_get(void *context, enum meta_family family, struct text key, bool memory, struct buf *value)
{
    const struct space_view *v = context;
    const struct space_base *b = v->rows;
    if (is_cold(v, memory))
        return -CV_NOT_PREPARED;
    uint32_t at = seek(b, (uint8_t)family, key);
    if (!b || at == b->count || compare((uint8_t)family, key, &b->cells[at]) != 0)
        return -ENOENT;
    return buf_append(value, b->cells[at].value.p, b->cells[at].value.n);
}

static int base_scan(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                     bool (*each)(void *arg, struct text key, struct text value), void *arg)
{
    const struct space_view *v = context;
    const struct space_base *b = v->rows;
    if (is_cold(v, memory))
        return -CV_NOT_PREPARED;
    for (uint32_t at = seek(b, (uint8_t)family, from); b && at < b->count; at++) {
        const struct cell *c = &b->cells[at];
        if (c->family != family || c->key.n < prefix.n || memcmp(c->key.p, prefix.p, prefix.n) != 0)
            break;
        if (!each(arg, c->key, c->value))
            break;
    }
    return 0;
}

struct meta_base space_base_of(struct space_view *v)
{
    return (struct meta_base){v, base_get, base_scan};
}

static struct text keep(struct world *w, struct text t)
{
    char *p = sim_alloc(&w->arena, t.n + 1);
    if (t.n)
        memcpy(p, t.p, t.n);
    return (struct text){p, t.n};
}

const struct space_base *space_base_write(struct world *w, const struct space_base *old, struct meta_delta *d)
{
    struct redo_row row;
    uint32_t added = 0, at = 0, before = old ? old->count : 0;
    int r = meta_delta_sort(d);
    assert(r == 0);
    while (meta_delta_next(d, &row))
        added++;
    meta_delta_rewind(d);
    struct space_base *b = sim_alloc(&w->arena, sizeof(*b) + (before + added) * sizeof(b->cells[0]));
    while (meta_delta_next(d, &row)) {
        uint8_t family = (uint8_t)meta_table_family(row.table);
        while (at < before && compare(family, row.key, &old->cells[at]) > 0)
            b->cells[b->count++] = old->cells[at++];
        if (at < before && compare(family, row.key, &old->cells[at]) == 0)
            at++;
        if (!row.deleted)
            b->cells[b->count++] = (struct cell){family, keep(w, row.key), keep(w, row.value)};
    }
    while (at < before)
        b->cells[b->count++] = old->cells[at++];
    return b;
}

void space_evict(struct meta *m, uint32_t count)
{
    tree_evict(&m->tree, count);
}
