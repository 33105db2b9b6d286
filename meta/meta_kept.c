/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_kept.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static void row_free(struct kept_row *r)
{
    free(r->now);
    free(r->committed);
    free(r);
}

void kept_fini(struct kept *k)
{
    for (uint32_t i = 0; i < k->count; i++)
        row_free(k->rows[i]);
    free(k->rows);
    *k = (struct kept){0};
}

/* The first with an id not below this one. */
static uint32_t seek(const struct kept *k, uint64_t id)
{
    uint32_t low = 0, high = k->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (k->rows[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct kept_row *kept_find(const struct kept *k, uint64_t id)
{
    uint32_t at = seek(k, id);
    return at < k->count && k->rows[at]->id == id ? k->rows[at] : NULL;
}

static struct kept_row *add(struct kept *k, uint64_t id)
{
    uint32_t at = seek(k, id);
    if (at < k->count && k->rows[at]->id == id)
        return k->rows[at];
    if (k->count == k->room) {
        uint32_t room = k->room ? k->room * 2 : 16;
        struct kept_row **rows = realloc(k->rows, room * sizeof(*rows));
        if (!rows)
            return NULL;
        k->rows = rows;
        k->room = room;
    }
    struct kept_row *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->id = id;
    memmove(k->rows + at + 1, k->rows + at, (k->count - at) * sizeof(*k->rows));
    k->rows[at] = r;
    k->count++;
    return r;
}

static void settle(struct kept *k, struct kept_row *r)
{
    if (r->now || r->committed)
        return;
    uint32_t at = seek(k, r->id);
    k->count--;
    memmove(k->rows + at, k->rows + at + 1, (k->count - at) * sizeof(*k->rows));
    row_free(r);
}

static int copy(struct text value, uint8_t **to, uint32_t *to_n)
{
    uint8_t *p = NULL;
    if (value.p) {
        p = malloc(value.n + 1ul);
        if (!p)
            return -ENOMEM;
        memcpy(p, value.p, value.n);
    }
    free(*to);
    *to = p;
    *to_n = value.p ? value.n : 0;
    return 0;
}

/* A row of the other table does not decode as a mount, or as nonsense nobody looks at. */
static void decode(struct kept_row *r)
{
    if (!r->now || meta_mount_decode((uint32_t)r->id, (struct text){(const char *)r->now, r->now_n}, &r->mount) < 0)
        r->mount = (struct meta_mount_row){0};
}

int kept_now(struct kept *k, uint64_t id, struct text value, uint32_t batch)
{
    struct kept_row *r = value.p ? add(k, id) : kept_find(k, id);
    if (!r)
        return value.p ? -ENOMEM : 0;
    int e = copy(value, &r->now, &r->now_n);
    if (e < 0)
        return e;
    r->batch = batch;
    k->largest = max(k->largest, value.n);
    decode(r);
    settle(k, r);
    return 0;
}

int kept_undone(struct kept *k, uint64_t id)
{
    const struct kept_row *r = kept_find(k, id);
    return r ? kept_now(k, id, (struct text){(const char *)r->committed, r->committed_n}, 0) : 0;
}

int kept_committed(struct kept *k, uint64_t id, struct text value)
{
    struct kept_row *r = value.p ? add(k, id) : kept_find(k, id);
    k->version++;
    if (!r)
        return value.p ? -ENOMEM : 0;
    int e = copy(value, &r->committed, &r->committed_n);
    if (e == 0)
        settle(k, r);
    return e;
}
