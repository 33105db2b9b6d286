/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches: rows are put into the open one (meta_put.c), which is closed into a payload, which is committed or undone. Between
 * put and commit a row stands in the overlay; at commit it moves to the delta without being copied: rows, payload and the
 * batch's head are one block of memory, held by references to the payload.
 *
 *      put_*  --> overlay + tree          (open batch: values in chunks of its own)
 *      meta_batch_close --> block { batch | rows | payload }, overlay points there now
 *      meta_batch_committed --> delta     meta_batch_undo --> gone, tree loaded again from the layers
 *
 * What committed batches of another leader bring is applied: decoded into such a block, and absorbed like one of ours.
 */
#include "base/log.h"
#include "meta/meta_core.h"
#include "meta/meta_cursor.h"

/* --- life ---------------------------------------------------------------------------------------------------------------- */

void batch_init(struct meta *m)
{
    list_init(&m->inflight);
    m->open.number = 1;
}

static void batch_drop(struct batch *b)
{
    list_remove(&b->link);
    meta_payload_unref(b->payload);
}

void batch_fini(struct meta *m)
{
    while (!list_empty(&m->inflight))
        batch_drop(list_entry(m->inflight.next, struct batch, link));
    open_fini(&m->open);
}

/* --- closing ------------------------------------------------------------------------------------------------------------ */

static uint32_t varint_size(uint64_t v)
{
    return v ? (uint32_t)(70 - __builtin_clzll(v)) / 7 : 1;
}

static uint64_t row_size(const struct row *r)
{
    return 1 + varint_size(r->key_n) + r->key_n + (r->deleted ? 0 : varint_size(r->value_n) + r->value_n);
}

/* Write the row; it points there from now on. */
static uint8_t *row_write(struct row *r, uint8_t *p)
{
    *p++ = (uint8_t)(r->table | (r->deleted ? REDO_DELETE : 0));
    p = varint_put(p, r->key_n);
    memcpy(p, r->key, r->key_n);
    r->key = p;
    p += r->key_n;
    if (r->deleted)
        return p;
    p = varint_put(p, r->value_n);
    memcpy(p, r->value, r->value_n);
    r->value = p;
    return p + r->value_n;
}

/* One block for the batch, its rows and n bytes of payload. */
static struct batch *block_new(uint32_t rows, uint64_t n)
{
    uint64_t memory = sizeof(struct batch) + rows * sizeof(struct row) + sizeof(struct meta_payload) + n;
    struct batch *b = n <= UINT32_MAX ? malloc(memory) : NULL;
    if (!b)
        return NULL;
    struct row *r = (struct row *)(b + 1);
    *b = (struct batch){.payload = (struct meta_payload *)(r + rows), .rows = r, .row_count = rows, .memory = memory};
    list_init(&b->link);
    *b->payload = (struct meta_payload){.n = (uint32_t)n, .references = 1, .block = b};
    return b;
}

struct meta_open_batch meta_batch_now(const struct meta *m)
{
    const struct open_batch *o = &m->open;
    return (struct meta_open_batch){o->number, o->op_count,
                                    o->op_count ? REDO_HEADER_SIZE + (uint32_t)(o->ops.n + o->row_bytes) : 0};
}

struct meta_payload *meta_batch_close(struct meta *m)
{
    struct open_batch *o = &m->open;
    if (!o->op_count)
        return NULL;
    uint64_t rows_n = 0;
    for (uint32_t i = 0; i < o->row_count; i++)
        rows_n += row_size(open_batch_row(o, i));
    struct batch *b = block_new(o->row_count, REDO_HEADER_SIZE + o->ops.n + rows_n);
    if (!b)
        log_fatal(-ENOMEM, "close a batch of %u operations", o->op_count);
    b->payload->batch = o->number;
    b->payload->op_count = o->op_count;
    b->totals = m->now;
    b->time_ns = m->time_ns;
    b->feature_level = m->level;
    b->incarnation = m->incarnation;
    b->rows_at = REDO_HEADER_SIZE + (uint32_t)o->ops.n;
    const struct redo_header h = {
        .feature_level = b->feature_level,
        .op_count = o->op_count,
        .row_count = o->row_count,
        .incarnation = m->incarnation,
        .ops_length = (uint32_t)o->ops.n,
        .inodes = m->now.inodes,
        .directories = m->now.directories,
        .orphans = m->now.orphans,
        .bytes = m->now.bytes,
        .time_ns = m->time_ns,
    };
    redo_header_encode(&h, b->payload->bytes);
    memcpy(b->payload->bytes + REDO_HEADER_SIZE, o->ops.p, o->ops.n);
    uint8_t *p = b->payload->bytes + b->rows_at;
    for (uint32_t i = 0; i < o->row_count; i++) {
        struct row *r = open_batch_row(o, i);
        b->rows[i] = *r;
        p = row_write(&b->rows[i], p);
        row_table_replace(&m->overlay, r, &b->rows[i]);
    }
    assert(p == b->payload->bytes + b->payload->n);
    list_push_back(&m->inflight, &b->link);
    open_reset(m, o->number + 1);
    meta_payload_ref(b->payload);
    return b->payload;
}

/* --- committing ----------------------------------------------------------------------------------------------------------- */

static void effects_tell(struct meta *m, const struct batch *b)
{
    struct redo_reader r;
    struct redo_op op;
    if (!m->effect)
        return;
    int e = redo_reader_init(&r, (struct text){(const char *)b->payload->bytes, b->payload->n});
    assert(e == 0);
    while (redo_next_op(&r, &op) == 0) {
        struct meta_effect f = {.inode = op.inode, .session = op.session};
        switch (op.kind) {
        case REDO_purge: f.kind = op.extra ? 0 : META_EFFECT_PURGED, f.a = op.other; break;
        case REDO_unlink:
        case REDO_rmdir:
            f.kind = op.extra == LINK_ORPHAN ? META_EFFECT_ORPHANED : op.extra ? META_EFFECT_PURGED : 0;
            f.a = op.extra == LINK_GONE;
            break;
        case REDO_truncate: f.kind = META_EFFECT_TRUNCATED, f.a = op.other, f.epoch = op.extra; break;
        case REDO_mount_add:
        case REDO_mount_set:
        case REDO_mount_remove: f.kind = META_EFFECT_MOUNTS, f.a = op.other; break;
        case REDO_worker: f.kind = META_EFFECT_WORKERS; break;
        case REDO_session_open: f.kind = META_EFFECT_SESSION_OPENED, f.session = op.inode; break;
        case REDO_session_close: f.kind = META_EFFECT_SESSION_CLOSED, f.session = op.inode; break;
        default: break;
        }
        if (f.kind)
            m->effect(m->effect_arg, &f);
    }
}

/* The batch's rows are the committed state now. */
static void batch_absorb(struct meta *m, struct batch *b, uint64_t index)
{
    int e = delta_reserve(m->delta);
    if (e < 0)
        log_fatal(e, "keep a committed batch");
    for (uint32_t i = 0; i < b->row_count; i++) {
        row_committed(m, &b->rows[i]);
        delta_put(m->delta, &b->rows[i]);
    }
    const uint8_t *rows = b->payload->bytes + b->rows_at;
    m->state.digest = hash_bytes(m->state.digest, rows, b->payload->n - b->rows_at);
    m->state.time_ns = b->time_ns;
    m->state.inodes = b->totals.inodes;
    m->state.directories = b->totals.directories;
    m->state.orphans = b->totals.orphans;
    m->state.bytes = b->totals.bytes;
    m->state.applied = index;
    m->state.incarnation = b->incarnation;
    m->state.feature_level = b->feature_level;
    delta_hold(m->delta, b->payload, b->memory, b->payload->op_count);
}

void meta_batch_committed(struct meta *m, uint64_t upto, uint64_t index)
{
    assert(upto < m->open.number && index > m->state.applied);
    while (!list_empty(&m->inflight)) {
        struct batch *b = list_entry(m->inflight.next, struct batch, link);
        if (b->payload->batch > upto)
            break;
        list_remove(&b->link);
        for (uint32_t i = 0; i < b->row_count; i++) {
            row_table_replace(&m->overlay, &b->rows[i], NULL);
            m->overlay_rows_of[b->rows[i].table]--;
        }
        m->batch_committed = b->payload->batch;
        batch_absorb(m, b, index);
        effects_tell(m, b);
    }
}

void meta_skip(struct meta *m, uint64_t index)
{
    assert(index > m->state.applied);
    m->state.applied = index;
}

/* --- undoing ---------------------------------------------------------------------------------------------------------------- */

/* The version of a key has left the overlay: let the tree and the always resident say what the layers say now. */
static void row_restore(struct meta *m, const struct row *gone)
{
    const struct row *top = layers_find(m, gone->table, row_key(gone), gone->hash);
    struct meta_inode i;
    struct meta_dentry d;
    if (gone->table == META_TABLE_inode) {
        uint64_t id = get_be64(gone->key);
        if (!top)
            tree_forget_node(&m->tree, id);
        else if (top->deleted)
            tree_put_node(&m->tree, id, false, (struct text){NULL, 0}, top->batch);
        else if (meta_inode_decode(id, row_value(top), &i) == 0)
            tree_put_node(&m->tree, id, S_ISDIR(i.mode), row_value(top), top->batch);
    } else if (gone->table == META_TABLE_dentry) {
        uint64_t parent = get_be64(gone->key);
        struct text name = key_of(gone->key + 8, gone->key_n - 8u);
        if (!top)
            tree_forget_name(&m->tree, parent, name, gone->hash);
        else if (top->deleted)
            tree_put_name(&m->tree, parent, name, gone->hash, 0, 0);
        else if (meta_dentry_decode(row_value(top), &d) == 0)
            tree_put_name(&m->tree, parent, name, gone->hash, d.child, d.type);
    } else {
        row_now(m, gone, top);
    }
}

static void rows_undo(struct meta *m, struct row **rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        row_table_replace(&m->overlay, rows[i], NULL);
        m->overlay_rows_of[rows[i]->table]--;
    }
    /* Names first: a directory made by this batch leaves the tree only when it has none. */
    for (uint32_t i = 0; i < n; i++)
        if (rows[i]->table != META_TABLE_inode)
            row_restore(m, rows[i]);
    for (uint32_t i = 0; i < n; i++)
        if (rows[i]->table == META_TABLE_inode)
            row_restore(m, rows[i]);
}

static void undo(struct meta *m, struct row *(*at)(const void *arg, uint32_t i), const void *arg, uint32_t n)
{
    struct row **rows cleanup(freep) = malloc((n + 1) * sizeof(*rows));
    if (!rows)
        log_fatal(-ENOMEM, "undo a batch");
    for (uint32_t i = 0; i < n; i++)
        rows[i] = at(arg, i);
    rows_undo(m, rows, n);
}

static struct row *row_of_open(const void *arg, uint32_t i)
{
    return open_batch_row(arg, i);
}

static struct row *row_of_batch(const void *arg, uint32_t i)
{
    return &((const struct batch *)arg)->rows[i];
}

void meta_batch_undo(struct meta *m, uint64_t from)
{
    assert(from > m->batch_committed);
    if (from <= m->open.number && m->open.row_count)
        undo(m, row_of_open, &m->open, m->open.row_count);
    if (from <= m->open.number) /* its number is not used again: somebody may still wait for it */
        open_reset(m, m->open.number + 1);
    while (!list_empty(&m->inflight)) {
        struct batch *b = list_entry(m->inflight.prev, struct batch, link);
        if (b->payload->batch < from)
            break;
        undo(m, row_of_batch, b, b->row_count);
        batch_drop(b);
    }
    struct totals now = {m->state.inodes, m->state.directories, m->state.orphans, m->state.bytes};
    if (!list_empty(&m->inflight))
        now = list_entry(m->inflight.prev, struct batch, link)->totals;
    m->now = now;
    m->incarnation =
        list_empty(&m->inflight) ? m->state.incarnation : list_entry(m->inflight.prev, struct batch, link)->incarnation;
    m->level = list_empty(&m->inflight) ? max(m->state.feature_level, 1u)
                                        : list_entry(m->inflight.prev, struct batch, link)->feature_level;
    uint8_t key[META_KEY_MAX];
    struct text k = key_of(key, meta_key_inode(META_ROOT, key));
    m->has_root = m->root_committed || layers_find(m, META_TABLE_inode, k, row_hash(META_TABLE_inode, k));
    slots_forget_all(m);
}

/* --- applying ---------------------------------------------------------------------------------------------------------------- */

/* Decode the rows of a copied payload into its block; all of them are good, or none is applied. */
static int rows_decode(struct batch *b, uint32_t batch)
{
    struct text payload = {(const char *)b->payload->bytes, b->payload->n};
    struct redo_reader r;
    struct redo_row row;
    int e = redo_reader_rows(&r, payload);
    if (e < 0)
        return e;
    b->rows_at = (uint32_t)(r.ops_end - b->payload->bytes);
    for (uint32_t n = 0;; n++) {
        e = redo_next_row(&r, &row);
        if (e < 0)
            return e == -ENODATA ? 0 : e;
        e = redo_row_check(&row);
        if (e < 0)
            return e;
        b->rows[n] = (struct row){
            .key = (const uint8_t *)row.key.p,
            .key_n = (uint16_t)row.key.n,
            .value = (const uint8_t *)row.value.p,
            .value_n = row.value.n,
            .hash = row_hash(row.table, row.key),
            .batch = batch,
            .table = (uint8_t)row.table,
            .deleted = row.deleted,
        };
    }
}

/* A follower has no readers to warm anything for: what is resident is kept right, nothing is added. */
static void tree_follow(struct meta *m, const struct row *r)
{
    struct meta_inode i;
    if (r->table == META_TABLE_inode) {
        uint64_t id = get_be64(r->key);
        if (id != META_ROOT && !tree_node(&m->tree, id))
            return;
        if (r->deleted)
            tree_put_node(&m->tree, id, false, (struct text){NULL, 0}, r->batch);
        else if (meta_inode_decode(id, row_value(r), &i) == 0)
            tree_put_node(&m->tree, id, S_ISDIR(i.mode), row_value(r), r->batch);
    } else if (r->table == META_TABLE_dentry) {
        tree_forget_name(&m->tree, get_be64(r->key), key_of(r->key + 8, r->key_n - 8u), r->hash);
    } else {
        row_now(m, r, r);
    }
}

int meta_apply(struct meta *m, struct text payload, uint64_t index)
{
    struct redo_reader r;
    assert(list_empty(&m->inflight) && m->open.op_count == 0 && index > m->state.applied);
    int e = redo_reader_init(&r, payload);
    if (e < 0)
        return e;
    if (r.header.feature_level > m->options.level_max)
        return -CV_FORMAT_TOO_NEW;
    if (r.header.row_count > payload.n / 3 || r.header.op_count > payload.n / 6)
        return -CV_BAD_FORMAT; /* before memory is asked for */
    struct batch *b = block_new(r.header.row_count, payload.n);
    if (!b)
        return -ENOMEM;
    memcpy(b->payload->bytes, payload.p, payload.n);
    b->payload->op_count = r.header.op_count;
    e = rows_decode(b, (uint32_t)m->batch_committed);
    if (e < 0) {
        meta_payload_unref(b->payload);
        return e;
    }
    b->totals = (struct totals){r.header.inodes, r.header.directories, r.header.orphans, r.header.bytes};
    b->time_ns = r.header.time_ns;
    for (uint32_t i = 0; i < b->row_count; i++)
        tree_follow(m, &b->rows[i]);
    m->now = b->totals;
    m->time_ns = b->time_ns;
    m->incarnation = r.header.incarnation;
    b->feature_level = m->level = r.header.feature_level;
    b->incarnation = m->incarnation;
    batch_absorb(m, b, index);
    m->has_root = m->root_committed;
    return 0;
}
