/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of rows: a merge of four sorted sources (rows in flight, delta, sealed delta, pages of the base), of which the
 * uppermost that has a key decides what becomes of it. Rows in flight are few and in no order: they are picked out and
 * sorted when the scan begins.
 */
#include "meta/meta_core.h"

static bool has_prefix(const struct scan *s, struct text key)
{
    return key.n >= s->prefix_n && memcmp(key.p, s->from, s->prefix_n) == 0;
}

static int compare_flight(const void *a, const void *b)
{
    const struct row *ra = *(const struct row *const *)a, *rb = *(const struct row *const *)b;
    int c = text_compare(row_key(ra), row_key(rb));
    return c ? c : (ra->batch == rb->batch ? 0 : (int32_t)(ra->batch - rb->batch) > 0 ? -1 : 1); /* newest first */
}

static void pick(struct scan *s, const struct row *r)
{
    struct text from = {(const char *)s->from, s->from_n};
    if (r->table == s->table && has_prefix(s, row_key(r)) && text_compare(row_key(r), from) >= 0)
        s->overlay[s->overlay_count++] = r;
}

static int overlay_collect(struct scan *s)
{
    const struct meta *m = s->u->m;
    uint32_t most = m->overlay_rows_of[s->table], kept = 0;
    if (!most)
        return 0;
    s->overlay = malloc(most * sizeof(*s->overlay));
    if (!s->overlay)
        return -ENOMEM;
    list_for_each (e, &m->inflight) {
        const struct batch *b = list_entry(e, struct batch, link);
        for (uint32_t i = 0; i < b->row_count; i++)
            pick(s, &b->rows[i]);
    }
    for (uint32_t i = 0; i < m->open.row_count; i++)
        pick(s, &m->open.chunks[i / ROW_CHUNK][i % ROW_CHUNK]);
    assert(s->overlay_count <= most);
    if (s->overlay_count)
        qsort(s->overlay, s->overlay_count, sizeof(*s->overlay), compare_flight);
    for (uint32_t i = 0; i < s->overlay_count; i++)
        if (!kept || !text_equal(row_key(s->overlay[kept - 1]), row_key(s->overlay[i])))
            s->overlay[kept++] = s->overlay[i];
    s->overlay_count = kept;
    return 0;
}

int scan_init(struct scan *s, struct run *u, enum meta_table table, struct text from, uint32_t prefix_n, uint32_t page,
              bool keys_only)
{
    const struct meta *m = u->m;
    assert(from.n >= prefix_n && from.n <= META_KEY_MAX && order_wants(table));
    *s = (struct scan){.u = u, .table = table, .keys_only = keys_only, .prefix_n = prefix_n, .page = page};
    memcpy(s->from, from.p, from.n);
    s->from_n = from.n;
    s->delta = order_seek(&m->delta->order, meta_table_family(table), from);
    if (m->sealed)
        s->sealed = order_seek(&m->sealed->order, meta_table_family(table), from);
    return overlay_collect(s);
}

void scan_fini(struct scan *s)
{
    free(s->overlay);
    s->overlay = NULL;
}

/* The row a layer's cursor stands at, if it still belongs to the range. */
static const struct row *layer_at(const struct scan *s, const struct order_cursor *c)
{
    const struct row *r = order_get(c);
    return r && r->table == s->table && has_prefix(s, row_key(r)) ? r : NULL;
}

/* A scan's rows in the store: u16 key length, u32 value length, key, value. */
static const uint8_t *page_row(const struct scan *s, struct text *key, struct text *value)
{
    const uint8_t *p = s->u->q->store.p + s->need_at;
    *key = (struct text){(const char *)p + 6, get_le16(p)};
    *value = (struct text){key->p + key->n, get_le32(p + 2)};
    return p;
}

/* The next row of the base into key and value; *more says if there is one. Asks for the next page when one is used up. */
static int base_at(struct scan *s, bool *more, struct text *key, struct text *value)
{
    struct meta_request *q = s->u->q;
    for (;;) {
        if (!s->need) {
            struct text from = {(const char *)s->from, s->from_n};
            const struct meta_need *n = need_find(q, true, s->table, from);
            if (!n)
                return need_scan(s->u, s->table, from, s->prefix_n, s->page, s->keys_only);
            if (!n->done)
                return -CV_NOT_PREPARED;
            s->need = (uint32_t)(n - q->needs) + 1;
            s->need_row = 0;
            s->need_at = n->value_at;
        }
        *more = s->need_row < q->needs[s->need - 1].rows;
        if (*more) {
            page_row(s, key, value);
            return 0;
        }
        if (q->needs[s->need - 1].end)
            return 0;
        s->need = 0; /* from has moved behind the last row of the page */
    }
}

static void base_pass(struct scan *s, struct text key, struct text value)
{
    s->need_row++;
    s->need_at += 6 + key.n + value.n;
    assert(key.n <= META_KEY_MAX);
    memcpy(s->from, key.p, key.n);
    s->from[key.n] = 0; /* the smallest key behind it */
    s->from_n = key.n + 1;
}

int scan_next(struct scan *s, struct text *key, struct text *value)
{
    for (;;) {
        struct text base_key = {NULL, 0}, base_value = {NULL, 0};
        bool base_more = false;
        int r = base_at(s, &base_more, &base_key, &base_value);
        if (r < 0)
            return r;
        const struct row *rows[3] = {
            s->overlay_at < s->overlay_count ? s->overlay[s->overlay_at] : NULL,
            layer_at(s, &s->delta),
            layer_at(s, &s->sealed),
        };
        /* The smallest key, and the uppermost row that has it. */
        const struct row *best = NULL;
        for (int i = 0; i < 3; i++)
            if (rows[i] && (!best || text_compare(row_key(rows[i]), row_key(best)) < 0))
                best = rows[i];
        bool from_base = base_more && (!best || text_compare(base_key, row_key(best)) < 0);
        if (!best && !base_more)
            return -ENODATA;
        *key = from_base ? base_key : row_key(best);
        *value = from_base ? base_value : row_value(best);
        if (rows[0] && text_equal(row_key(rows[0]), *key))
            s->overlay_at++;
        if (rows[1] && text_equal(row_key(rows[1]), *key))
            order_next(&s->delta);
        if (rows[2] && text_equal(row_key(rows[2]), *key))
            order_next(&s->sealed);
        if (base_more && text_equal(base_key, *key))
            base_pass(s, base_key, base_value);
        if (from_base)
            return 0;
        see_depend(s->u, best->batch);
        if (!best->deleted)
            return 0;
    }
}
