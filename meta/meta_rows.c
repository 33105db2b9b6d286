/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "base/log.h"
#include "meta/meta_redo.h"

uint32_t row_hash(enum meta_table table, struct text key)
{
    if (table == META_TABLE_inode)
        return (uint32_t)hash_u64(get_be64(key.p));
    if (table == META_TABLE_dentry)
        return (uint32_t)hash_bytes(get_be64(key.p), key.p + 8, key.n - 8);
    return (uint32_t)hash_bytes(table, key.p, key.n);
}

/* --- table ----------------------------------------------------------------------------------------------------------- */

int row_table_init(struct row_table *t, uint32_t buckets)
{
    assert((buckets & (buckets - 1)) == 0);
    *t = (struct row_table){.buckets = calloc(buckets, sizeof(*t->buckets)), .mask = buckets - 1};
    return t->buckets ? 0 : -ENOMEM;
}

void row_table_fini(struct row_table *t)
{
    free(t->buckets);
    *t = (struct row_table){0};
}

struct row *row_table_find(const struct row_table *t, enum meta_table table, struct text key, uint32_t hash)
{
    struct row *r = t->buckets[hash & t->mask];
    for (; r; r = r->next)
        if (r->hash == hash && r->table == table && r->key_n == key.n && memcmp(r->key, key.p, key.n) == 0)
            return r;
    return NULL;
}

void row_table_push(struct row_table *t, struct row *r)
{
    struct row **bucket = &t->buckets[r->hash & t->mask];
    r->next = *bucket;
    *bucket = r;
    t->count++;
}

void row_table_replace(struct row_table *t, struct row *r, struct row *by)
{
    struct row **link = &t->buckets[r->hash & t->mask];
    while (*link != r) {
        assert(*link);
        link = &(*link)->next;
    }
    if (by) {
        by->next = r->next;
        *link = by;
    } else {
        *link = r->next;
        t->count--;
    }
}

/* --- order: a B+ tree of row pointers that only grows ------------------------------------------------------------------ */

#define FANOUT 32

struct order_node {
    uint32_t count;
    bool leaf;
    struct order_node *right; /* leaf: the next */
    struct row *rows[FANOUT]; /* leaf: its rows; else the first row below each child */
    struct order_node *children[];
};

#define CHUNK_BYTES (256u << 10)
struct order_chunk {
    struct order_chunk *next;
    uint8_t bytes[CHUNK_BYTES];
};

bool order_wants(enum meta_table table)
{
    switch (table) {
    case META_TABLE_inode:
    case META_TABLE_inline:
    case META_TABLE_slot:
    case META_TABLE_grant:
    case META_TABLE_state: return false;
    default: return true;
    }
}

int row_compare(enum meta_family fa, struct text a, enum meta_family fb, struct text b)
{
    return fa != fb ? (fa > fb) - (fa < fb) : text_compare(a, b);
}

static int compare_rows(const struct row *a, const struct row *b)
{
    return row_compare(meta_table_family(a->table), row_key(a), meta_table_family(b->table), row_key(b));
}

static struct order_node *node_new(struct order *o, bool leaf)
{
    uint32_t n = sizeof(struct order_node) + (leaf ? 0 : FANOUT * sizeof(struct order_node *));
    if (!o->chunks || o->chunk_used + n > CHUNK_BYTES) {
        struct order_chunk *c = malloc(sizeof(*c));
        if (!c)
            return NULL;
        c->next = o->chunks;
        o->chunks = c;
        o->chunk_used = 0;
        o->bytes += sizeof(*c);
    }
    struct order_node *node = (struct order_node *)(o->chunks->bytes + o->chunk_used);
    o->chunk_used += n;
    node->count = 0;
    node->leaf = leaf;
    node->right = NULL;
    return node;
}

void order_fini(struct order *o)
{
    while (o->chunks) {
        struct order_chunk *c = o->chunks;
        o->chunks = c->next;
        free(c);
    }
    *o = (struct order){0};
}

/* How many rows of the node are smaller than the key. */
static uint32_t below(const struct order_node *node, enum meta_family family, struct text key)
{
    uint32_t low = 0, high = node->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const struct row *r = node->rows[middle];
        if (row_compare(meta_table_family(r->table), row_key(r), family, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Make room in a full node: its upper half goes to a new right neighbour; all of nothing when insertion is at its end, so
 * that names created in order leave full nodes behind. */
static struct order_node *split(struct order *o, struct order_node *node, uint32_t at)
{
    struct order_node *right = node_new(o, node->leaf);
    if (!right)
        return NULL;
    uint32_t keep = at == FANOUT ? FANOUT - (node->leaf ? 0 : 1) : FANOUT / 2;
    right->count = node->count - keep;
    memcpy(right->rows, node->rows + keep, right->count * sizeof(*right->rows));
    if (!node->leaf)
        memcpy(right->children, node->children + keep, right->count * sizeof(*right->children));
    node->count = keep;
    right->right = node->right;
    node->right = right;
    return right;
}

static void put_at(struct order_node *node, uint32_t at, struct row *r, struct order_node *child)
{
    assert(node->count < FANOUT && at <= node->count);
    memmove(node->rows + at + 1, node->rows + at, (node->count - at) * sizeof(*node->rows));
    node->rows[at] = r;
    if (!node->leaf) {
        memmove(node->children + at + 1, node->children + at, (node->count - at) * sizeof(*node->children));
        node->children[at] = child;
    }
    node->count++;
}

/* Insert below node; when it had to be split, *ret is the new right half, else NULL. */
static int insert_below(struct order *o, struct order_node *node, struct row *r, struct order_node **ret)
{
    uint32_t at = below(node, meta_table_family(r->table), row_key(r));
    struct order_node *child = NULL, *right = NULL;
    *ret = NULL;
    if (!node->leaf) {
        uint32_t to = at ? at - 1 : 0;
        int e = insert_below(o, node->children[to], r, &child);
        node->rows[to] = node->children[to]->rows[0];
        if (e < 0 || !child)
            return e;
        at = to + 1;
        r = child->rows[0];
    }
    if (node->count == FANOUT) {
        right = split(o, node, at);
        if (!right)
            return -ENOMEM;
        if (at > node->count || (at == node->count && right->count == 0)) {
            at -= node->count;
            put_at(right, at, r, child);
        } else {
            put_at(node, at, r, child);
        }
        *ret = right;
    } else {
        put_at(node, at, r, child);
    }
    if (node->leaf)
        o->recent = right && right->count && compare_rows(right->rows[0], r) <= 0 ? right : node;
    return 0;
}

/* The leaf of the last insertion takes this row too when it lies strictly within its rows, or behind the very last. */
static bool insert_recent(struct order *o, struct row *r)
{
    struct order_node *leaf = o->recent;
    if (!leaf || leaf->count == FANOUT || leaf->count == 0 || compare_rows(leaf->rows[0], r) > 0)
        return false;
    if (compare_rows(leaf->rows[leaf->count - 1], r) < 0) {
        if (leaf->right && compare_rows(leaf->right->rows[0], r) < 0)
            return false;
        put_at(leaf, leaf->count, r, NULL);
        return true;
    }
    put_at(leaf, below(leaf, meta_table_family(r->table), row_key(r)), r, NULL);
    return true;
}

int order_insert(struct order *o, struct row *r)
{
    struct order_node *right, *root;
    if (!o->root && !(o->root = node_new(o, true)))
        return -ENOMEM;
    if (insert_recent(o, r))
        return 0;
    int e = insert_below(o, o->root, r, &right);
    if (e < 0 || !right)
        return e;
    root = node_new(o, false);
    if (!root)
        return -ENOMEM;
    put_at(root, 0, o->root->rows[0], o->root);
    put_at(root, 1, right->rows[0], right);
    o->root = root;
    o->height++;
    return 0;
}

static void skip_empty(struct order_cursor *c)
{
    while (c->leaf && c->at >= c->leaf->count) {
        c->leaf = c->leaf->right;
        c->at = 0;
    }
}

struct order_cursor order_seek(const struct order *o, enum meta_family family, struct text from)
{
    struct order_cursor c = {o->root, 0};
    while (c.leaf && !c.leaf->leaf) {
        uint32_t at = below(c.leaf, family, from);
        c.leaf = c.leaf->children[at ? at - 1 : 0];
    }
    if (c.leaf)
        c.at = below(c.leaf, family, from);
    skip_empty(&c);
    return c;
}

struct row *order_get(const struct order_cursor *c)
{
    return c->leaf ? c->leaf->rows[c->at] : NULL;
}

void order_next(struct order_cursor *c)
{
    c->at++;
    skip_empty(c);
}

/* --- delta ----------------------------------------------------------------------------------------------------------- */

void meta_payload_ref(struct meta_payload *p)
{
    __atomic_add_fetch(&p->references, 1, __ATOMIC_RELAXED);
}

void meta_payload_unref(struct meta_payload *p)
{
    if (p && __atomic_sub_fetch(&p->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(p->block);
}

#define DELTA_BUCKETS (1u << 18)

struct meta_delta *delta_new(uint64_t from_applied)
{
    struct meta_delta *d = calloc(1, sizeof(*d));
    if (!d || row_table_init(&d->table, DELTA_BUCKETS) < 0) {
        free(d);
        return NULL;
    }
    d->from_applied = from_applied;
    return d;
}

int delta_reserve(struct meta_delta *d)
{
    if (d->payload_count < d->payload_room)
        return 0;
    size_t room = d->payload_room ? d->payload_room * 2 : 1024;
    struct meta_payload **payloads = realloc(d->payloads, room * sizeof(struct meta_payload *));
    if (!payloads)
        return -ENOMEM;
    d->payloads = payloads;
    d->payload_room = room;
    return 0;
}

void delta_put(struct meta_delta *d, struct row *r)
{
    struct row *old = row_table_find(&d->table, r->table, row_key(r), r->hash);
    if (old) { /* its place in table and order stays; the memory of both lasts as long as the delta */
        old->key = r->key;
        old->value = r->value;
        old->value_n = r->value_n;
        old->batch = r->batch;
        old->deleted = r->deleted;
        return;
    }
    row_table_push(&d->table, r);
    if (order_wants(r->table)) {
        int e = order_insert(&d->order, r);
        if (e < 0)
            log_fatal(e, "keep a committed row");
    }
}

void delta_hold(struct meta_delta *d, struct meta_payload *p, uint64_t bytes, uint32_t operations)
{
    assert(d->payload_count < d->payload_room);
    d->payloads[d->payload_count++] = p;
    d->bytes += bytes;
    d->operations += operations;
}

struct meta_delta *meta_delta_free(struct meta_delta *d)
{
    if (!d)
        return NULL;
    for (size_t i = 0; i < d->payload_count; i++)
        meta_payload_unref(d->payloads[i]);
    free(d->payloads);
    free(d->sorted);
    order_fini(&d->order);
    row_table_fini(&d->table);
    free(d);
    return NULL;
}

/* --- writing out ----------------------------------------------------------------------------------------------------- */

static int compare_for_sort(const void *a, const void *b)
{
    return compare_rows(*(struct row *const *)a, *(struct row *const *)b);
}

int meta_delta_sort(struct meta_delta *d)
{
    if (d->sorted)
        return 0;
    d->sorted = malloc((d->table.count + 1) * sizeof(struct row *));
    if (!d->sorted)
        return -ENOMEM;
    size_t n = 0;
    for (uint32_t i = 0; i <= d->table.mask; i++)
        for (struct row *r = d->table.buckets[i]; r; r = r->next)
            d->sorted[n++] = r;
    assert(n == d->table.count);
    d->state_row = (struct row){.table = META_TABLE_state,
                                .key = d->state_key,
                                .key_n = (uint16_t)meta_key_state(d->state_key),
                                .value = d->state_value,
                                .value_n = meta_state_encode(&d->state, d->state_value)};
    d->sorted[n++] = &d->state_row;
    qsort(d->sorted, n, sizeof(*d->sorted), compare_for_sort);
    d->sorted_count = n;
    d->at = 0;
    return 0;
}

void meta_delta_rewind(struct meta_delta *d)
{
    d->at = 0;
}

bool meta_delta_next(struct meta_delta *d, struct redo_row *ret)
{
    assert(d->sorted);
    if (d->at == d->sorted_count)
        return false;
    const struct row *r = d->sorted[d->at++];
    *ret = (struct redo_row){r->table, r->deleted, row_key(r), row_value(r)};
    return true;
}

uint64_t meta_delta_applied(const struct meta_delta *d)
{
    return d->state.applied;
}
