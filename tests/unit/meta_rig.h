/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A master of one thread around the namespace core, for its tests: an in-memory base (sorted array), a log of payloads,
 * and the way a request takes through prepare, fetch and execute. Knobs make the way rough: eviction anywhere, a base that
 * never answers from memory.
 */
#pragma once

#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/random.h"
#include "meta/meta.h"
#include "meta/meta_core.h"
#include "wire/meta_flags.h"

#define UNUSED __attribute__((unused))

/* --- the base ------------------------------------------------------------------------------------------------------------ */

struct cell {
    uint8_t *key; /* family, key, value in one block */
    uint32_t key_n, value_n;
};

struct store {
    struct cell *cells;
    size_t count, room;
    uint64_t gets, scans;
    int fail;  /* error to answer with, or 0 */
    bool cold; /* nothing is in memory */
};

static int cell_compare(uint8_t family, struct text key, const struct cell *c)
{
    if (c->key[0] != family)
        return family < c->key[0] ? -1 : 1;
    return text_compare(key, key_of(c->key + 1, c->key_n));
}

/* The first cell >= key. */
static size_t store_seek(const struct store *s, uint8_t family, struct text key)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cell_compare(family, key, &s->cells[middle]) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int store_get(void *context, enum meta_family family, struct text key, bool memory, struct buf *value)
{
    struct store *s = context;
    if (s->fail)
        return s->fail;
    if (memory && s->cold)
        return -CV_NOT_PREPARED;
    s->gets++;
    size_t at = store_seek(s, (uint8_t)family, key);
    if (at == s->count || cell_compare((uint8_t)family, key, &s->cells[at]) != 0)
        return -ENOENT;
    const struct cell *c = &s->cells[at];
    return buf_append(value, c->key + 1 + c->key_n, c->value_n);
}

static int store_scan(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                      bool (*each)(void *arg, struct text key, struct text value), void *arg)
{
    struct store *s = context;
    if (s->fail)
        return s->fail;
    if (memory && s->cold)
        return -CV_NOT_PREPARED;
    s->scans++;
    for (size_t at = store_seek(s, (uint8_t)family, from); at < s->count; at++) {
        const struct cell *c = &s->cells[at];
        if (c->key[0] != family || c->key_n < prefix.n || memcmp(c->key + 1, prefix.p, prefix.n) != 0)
            break;
        if (!each(arg, key_of(c->key + 1, c->key_n), key_of(c->key + 1 + c->key_n, c->value_n)))
            break;
    }
    return 0;
}

static struct meta_base store_base(struct store *s)
{
    return (struct meta_base){s, store_get, store_scan};
}

static struct cell cell_new(const struct redo_row *r)
{
    struct cell c = {malloc(1 + r->key.n + r->value.n + 1), r->key.n, r->value.n};
    c.key[0] = (uint8_t)meta_table_family(r->table);
    memcpy(c.key + 1, r->key.p, r->key.n);
    if (r->value.n)
        memcpy(c.key + 1 + r->key.n, r->value.p, r->value.n);
    return c;
}

/* Merge a sealed delta in; it must come sorted, each key once. */
static void store_write(struct store *s, struct meta_delta *d)
{
    struct redo_row row;
    size_t room = s->count + 64, n = 0, at = 0, added = 0;
    ck_assert_int_eq(meta_delta_sort(d), 0);
    while (meta_delta_next(d, &row))
        added++;
    meta_delta_rewind(d);
    room += added;
    struct cell *cells = malloc(room * sizeof(*cells)), last = {0};
    while (meta_delta_next(d, &row)) {
        uint8_t family = (uint8_t)meta_table_family(row.table);
        ck_assert(!last.key || cell_compare(family, row.key, &last) > 0);
        while (at < s->count && cell_compare(family, row.key, &s->cells[at]) > 0)
            cells[n++] = s->cells[at++];
        if (at < s->count && cell_compare(family, row.key, &s->cells[at]) == 0)
            free(s->cells[at++].key);
        free(last.key);
        last = cell_new(&row);
        if (!row.deleted)
            cells[n++] = cell_new(&row);
    }
    free(last.key);
    while (at < s->count)
        cells[n++] = s->cells[at++];
    free(s->cells);
    s->cells = cells;
    s->count = n;
    s->room = room;
}

static void UNUSED store_put(struct store *s, enum meta_table table, struct text key, struct text value)
{
    const struct redo_row r = {table, false, key, value};
    size_t at = store_seek(s, (uint8_t)meta_table_family(table), key);
    if (at < s->count && cell_compare((uint8_t)meta_table_family(table), key, &s->cells[at]) == 0) {
        free(s->cells[at].key);
        s->cells[at] = cell_new(&r);
        return;
    }
    s->cells = realloc(s->cells, (s->count + 1) * sizeof(*s->cells));
    memmove(s->cells + at + 1, s->cells + at, (s->count - at) * sizeof(*s->cells));
    s->cells[at] = cell_new(&r);
    s->count++;
}

static void store_free(struct store *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->cells[i].key);
    free(s->cells);
    *s = (struct store){0};
}

static void UNUSED store_copy(struct store *to, const struct store *from)
{
    *to = (struct store){.cells = malloc((from->count + 1) * sizeof(struct cell)), .count = from->count};
    for (size_t i = 0; i < from->count; i++) {
        const struct cell *c = &from->cells[i];
        to->cells[i] = *c;
        to->cells[i].key = malloc(1 + c->key_n + c->value_n + 1);
        memcpy(to->cells[i].key, c->key, 1 + c->key_n + c->value_n);
    }
}

/* --- the rig --------------------------------------------------------------------------------------------------------------- */

struct rig {
    struct meta *m;
    struct store store;
    struct meta_base base;
    struct meta_options options;
    struct meta_request q;
    struct buf body;
    struct meta_payload **log; /* entry i has log index i + 1 */
    uint64_t log_count;        /* closed */
    uint64_t committed;        /* log entries committed */
    uint64_t wall_ns;
    struct rec_op_head head; /* given to requests that have none */
    uint64_t sequence;       /* counted up for each of them; 0: leave it alone */
    struct prng prng;
    uint32_t evict_chance;      /* one in so many steps evicts something; 0: never */
    uint32_t rounds;            /* of the last request: how often it had to fetch */
    void (*between)(void *arg); /* now and then called while a request is under way: another may overtake it */
    void *between_arg;
    bool inside;
    uint32_t epoch; /* of the last leadership */
};

static void rig_shake(struct rig *g)
{
    if (g->evict_chance && prng_below(&g->prng, g->evict_chance) == 0)
        tree_evict(&g->m->tree, 1 + prng_below(&g->prng, 20));
}

static void rig_between(struct rig *g)
{
    if (!g->between || g->inside || prng_below(&g->prng, 4))
        return;
    struct meta_request q = g->q;
    struct buf body = g->body;
    struct rec_op_head head = g->head;
    uint64_t sequence = g->sequence;
    uint32_t rounds = g->rounds;
    g->inside = true;
    g->body = (struct buf){0};
    meta_request_init(&g->q);
    g->between(g->between_arg);
    meta_request_fini(&g->q);
    buf_fini(&g->body);
    g->q = q;
    g->body = body;
    g->head = head;
    g->sequence = sequence;
    g->rounds = rounds;
    g->inside = false;
    rig_shake(g); /* also what the other has just used may leave */
}

/* Take a prepared or read request all the way; what went wrong outside of it, or q->error. */
static int rig_run(struct rig *g, struct meta_request *q)
{
    g->rounds = 0;
    for (;;) {
        rig_shake(g);
        int r = q->op_class == META_READ ? meta_read(g->m, q) : meta_prepare(g->m, q);
        if (r == -CV_NOT_LISTED)
            return r;
        ck_assert(r == 0 || r == -CV_NOT_PREPARED);
        if (r < 0) {
            g->rounds++;
            ck_assert_uint_lt(g->rounds, 10000);
            r = meta_fetch(&g->base, q, true);
            if (r == -CV_NOT_PREPARED)
                r = meta_fetch(&g->base, q, false);
            if (r < 0)
                return r;
            rig_between(g);
            continue;
        }
        if (q->op_class == META_READ) {
            meta_install(g->m, q);
            return q->error;
        }
        rig_shake(g);
        rig_between(g);
        g->wall_ns += 10;
        r = meta_execute(g->m, q, g->wall_ns);
        if (r == 0)
            return q->error;
        if (r != -CV_NOT_PREPARED)
            return r;
    }
}

/* Send a message; answer in g->q.answer. */
static int rig_send(struct rig *g, uint16_t type, void *msg)
{
    const struct wire_desc *d = message_desc(type);
    bool has_head =
        type != MSG_session_open && type != MSG_session_close && type != MSG_origin && type != MSG_blocks_check;
    if (has_head && ((struct rec_op_head *)msg)->session == 0) {
        *(struct rec_op_head *)msg = g->head;
        if (g->sequence)
            ((struct rec_op_head *)msg)->sequence = ++g->sequence;
    }
    g->body.n = 0;
    ck_assert_int_eq(wire_encode(d, msg, &g->body), 0);
    meta_request_reset(&g->q);
    ck_assert_int_eq(meta_request_decode(&g->q, type, g->body.p, g->body.n), 0);
    return rig_run(g, &g->q);
}

#define SEND(g, name, ...) rig_send((g), MSG_##name, &(struct msg_##name){__VA_ARGS__})

static int rig_inner(struct rig *g, enum meta_inner what, uint64_t arg)
{
    meta_request_reset(&g->q);
    meta_request_inner(&g->q, what, arg);
    return rig_run(g, &g->q);
}

/* Close the open batch, if there is one; it is in the log, not committed. */
static void rig_close(struct rig *g)
{
    struct meta_payload *p = meta_batch_close(g->m);
    if (!p)
        return;
    ck_assert_int_eq(redo_check((struct text){(const char *)p->bytes, p->n}), 0);
    g->log = realloc(g->log, (g->log_count + 1) * sizeof(*g->log));
    g->log[g->log_count++] = p;
}

static void rig_commit_to(struct rig *g, uint64_t count)
{
    for (; g->committed < count; g->committed++)
        meta_batch_committed(g->m, g->log[g->committed]->batch, meta_applied(g->m) + 1);
}

static void rig_commit(struct rig *g)
{
    rig_close(g);
    rig_commit_to(g, g->log_count);
}

/* Write the committed rows to the base. */
static void UNUSED rig_flush(struct rig *g)
{
    struct meta_delta *d = meta_delta_seal(g->m);
    if (!d)
        return;
    store_write(&g->store, d);
    meta_delta_written(g->m, d);
    meta_delta_free(d);
}

static void rig_open_session(struct rig *g, uint32_t slots)
{
    ck_assert_int_eq(SEND(g, session_open, .host = TEXT("host"), .program = TEXT("test"), .slots = slots), 0);
    g->head = (struct rec_op_head){.session = g->q.answer.session_open.session};
    g->sequence = 1;
    rig_commit(g);
}

static uint32_t rig_place(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max, uint64_t *ret)
{
    ret[0] = 901 + block;
    return 1;
}

/* Formatted, leading, one session. */
static void UNUSED rig_init(struct rig *g, const struct meta_options *o)
{
    *g = (struct rig){.wall_ns = 1000000000, .prng = {1}};
    if (o)
        g->options = *o;
    g->base = store_base(&g->store);
    meta_request_init(&g->q);
    ck_assert_int_eq(meta_new(&g->options, &g->base, &g->m), 0);
    meta_on_place(g->m, rig_place, NULL);
    meta_lead(g->m, ++g->epoch);
    meta_allow_purge(g->m); /* there were no sessions: nobody can hold anything */
    ck_assert_int_eq(rig_inner(g, META_OP_format, 1), 0);
    rig_commit(g);
    ck_assert_int_eq(rig_inner(g, META_OP_purge, 0), 0);
    rig_open_session(g, 0);
}

/* The process dies: what was flushed and what is in the log up to `keep` entries stays. It leads again. */
static void UNUSED rig_crash(struct rig *g, uint64_t keep)
{
    g->m = meta_free(g->m);
    while (g->log_count > keep)
        meta_payload_unref(g->log[--g->log_count]);
    ck_assert_int_eq(meta_new(&g->options, &g->base, &g->m), 0);
    for (uint64_t i = meta_applied(g->m); i < g->log_count; i++)
        ck_assert_int_eq(meta_apply(g->m, (struct text){(const char *)g->log[i]->bytes, g->log[i]->n}, i + 1), 0);
    g->committed = g->log_count;
    meta_on_place(g->m, rig_place, NULL);
    meta_lead(g->m, ++g->epoch);
    ck_assert_int_eq(rig_inner(g, META_OP_grant, 0), 0);
    rig_commit(g);
}

static void rig_fini(struct rig *g)
{
    meta_request_fini(&g->q);
    buf_fini(&g->body);
    g->m = meta_free(g->m);
    while (g->log_count)
        meta_payload_unref(g->log[--g->log_count]);
    free(g->log);
    store_free(&g->store);
}

/* --- short forms ------------------------------------------------------------------------------------------------------------- */

static uint64_t UNUSED make_dir(struct rig *g, uint64_t parent, const char *name)
{
    ck_assert_int_eq(SEND(g, mkdir, .parent = parent, .name = text_of(name), .mode = 0755), 0);
    return g->q.answer.mkdir.attr.inode;
}

/* Created and closed. */
static uint64_t UNUSED make_file(struct rig *g, uint64_t parent, const char *name)
{
    ck_assert_int_eq(SEND(g, mknod, .parent = parent, .name = text_of(name), .mode = S_IFREG | 0644), 0);
    return g->q.answer.mknod.attr.inode;
}

static int UNUSED look(struct rig *g, uint64_t parent, const char *name)
{
    return SEND(g, lookup, .parent = parent, .name = text_of(name));
}

static void UNUSED rig_purge_all(struct rig *g)
{
    struct meta_request q;
    meta_request_init(&q);
    while (meta_next_inner(g->m, &q)) {
        rig_run(g, &q);
        meta_request_reset(&q);
    }
    meta_request_fini(&q);
}
