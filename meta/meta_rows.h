/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows in memory, and the tables of the layers above the base.
 *
 *      struct row        a key and its value (or its removal); both lie in the payload of the batch that wrote it
 *      struct row_table  rows by key: a chained hash
 *      struct order      the rows that are ever listed (names, xattrs, extents, orphans ...) in key order: a B+ tree that
 *                        only grows, since a removed row stays as a tombstone until the whole layer goes
 *      overlay           a row_table in which a key may have several versions, newest first in its chain
 *      struct meta_delta committed rows: table and order, one version a key, and the payloads it holds on to
 *
 * Owner: the scribe (exclusive lock); readers look under the shared lock. A sealed delta does not change any more, so
 * the writing thread reads it without a lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "meta/meta.h"

struct row {
    struct row *next; /* in its bucket */
    const uint8_t *key, *value;
    uint32_t hash;
    uint32_t value_n;
    uint32_t batch; /* low bits of the batch that wrote it */
    uint16_t key_n;
    uint8_t table;
    bool deleted;
};

static inline struct text row_key(const struct row *r)
{
    return (struct text){(const char *)r->key, r->key_n};
}

static inline struct text row_value(const struct row *r)
{
    return (struct text){(const char *)r->value, r->value_n};
}

/* The same for a name in the tree and for its row: of a dentry hash_bytes(parent, name), of an inode hash_u64(id). */
uint32_t row_hash(enum meta_table table, struct text key);

struct row_table {
    struct row **buckets;
    uint32_t mask;
    uint64_t count;
};

int row_table_init(struct row_table *t, uint32_t buckets); /* a power of two. Errors: -ENOMEM */
void row_table_fini(struct row_table *t);
/* The first, that is the newest, version. */
struct row *row_table_find(const struct row_table *t, enum meta_table table, struct text key, uint32_t hash);
void row_table_push(struct row_table *t, struct row *r);
/* The row must be in it; by: NULL takes it out, else that stands in its place. */
void row_table_replace(struct row_table *t, struct row *r, struct row *by);

/* --- order ------------------------------------------------------------------------------------------------------ */

struct order_node;

struct order {
    struct order_node *root, *recent; /* recent: the leaf of the last insertion, where the next one often goes */
    struct order_chunk *chunks;
    uint32_t chunk_used, height;
    uint64_t bytes;
};

struct order_cursor {
    const struct order_node *leaf;
    uint32_t at;
};

/* Is a table listed in order somewhere? */
bool order_wants(enum meta_table table);

/* The key must not be there yet. Errors: -ENOMEM. */
int order_insert(struct order *o, struct row *r);
void order_fini(struct order *o);

/* Stand before the first row of the family with a key >= from. */
struct order_cursor order_seek(const struct order *o, enum meta_family family, struct text from);
/* The row there, or NULL at the end. */
struct row *order_get(const struct order_cursor *c);
void order_next(struct order_cursor *c);

/* Order of rows: family, then key bytewise. */
int row_compare(enum meta_family fa, struct text a, enum meta_family fb, struct text b);

/* --- delta ------------------------------------------------------------------------------------------------------- */

struct meta_delta {
    struct row_table table;
    struct order order;
    struct meta_payload **payloads; /* held until the delta is freed */
    size_t payload_count, payload_room;
    uint64_t operations, bytes;
    struct meta_state state; /* at sealing */
    uint64_t from_applied;

    /* for writing */
    struct row **sorted;
    size_t sorted_count, at;
    struct row state_row;
    uint8_t state_key[8], state_value[META_STATE_SIZE];
};

struct meta_delta *delta_new(uint64_t from_applied);

/* Room to hold on to one more payload. Errors: -ENOMEM. */
int delta_reserve(struct meta_delta *d);
/* Keep a committed row, in place of an older one of the same key. Out of memory stops the node: a committed row cannot
 * be refused. */
void delta_put(struct meta_delta *d, struct row *r);
/* Hold on to the payload the rows lie in; takes the reference. After delta_reserve(). */
void delta_hold(struct meta_delta *d, struct meta_payload *p, uint64_t bytes, uint32_t operations);
