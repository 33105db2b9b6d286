/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting rows into the open batch: a new version in the overlay, and what the tree and the always resident say of it. Keys
 * and values lie in chunks of the batch's own until it is closed (meta_batch.c). put_reserve() first, then nothing fails:
 * an operation that has begun to change something always gets to its end.
 */
#include <dirent.h>

#include "meta/meta_core.h"

#define OVERLAY_ROWS_MAX (1u << 20)

/* --- memory of the open batch ----------------------------------------------------------------------------------------- */

static void chunks_free(struct value_chunk **list)
{
    while (*list) {
        struct value_chunk *c = *list;
        *list = c->next;
        free(c);
    }
}

void open_fini(struct open_batch *o)
{
    for (uint32_t i = 0; i < o->chunk_count; i++)
        free(o->chunks[i]);
    free(o->chunks);
    chunks_free(&o->values);
    chunks_free(&o->spare);
    buf_fini(&o->ops);
}

void open_reset(struct meta *m, uint64_t number)
{
    struct open_batch *o = &m->open;
    while (o->values) {
        struct value_chunk *c = o->values;
        o->values = c->next;
        if (o->spare || c->room > VALUE_CHUNK) {
            free(c);
        } else {
            c->next = NULL;
            o->spare = c;
        }
    }
    o->row_count = o->op_count = 0;
    o->row_bytes = 0;
    o->ops.n = 0;
    o->number = number;
}

static int reserve_rows(struct open_batch *o, uint32_t rows)
{
    while (o->row_count + rows > o->chunk_count * ROW_CHUNK) {
        if (o->chunk_count == o->chunk_room) {
            uint32_t room = o->chunk_room ? o->chunk_room * 2 : 8;
            struct row **chunks = realloc(o->chunks, room * sizeof(*chunks));
            if (!chunks)
                return -ENOMEM;
            o->chunks = chunks;
            o->chunk_room = room;
        }
        o->chunks[o->chunk_count] = malloc(ROW_CHUNK * sizeof(struct row));
        if (!o->chunks[o->chunk_count])
            return -ENOMEM;
        o->chunk_count++;
    }
    return 0;
}

static int reserve_values(struct open_batch *o, uint64_t bytes)
{
    if (o->values && o->values->room - o->values->used >= bytes)
        return 0;
    struct value_chunk *c = o->spare;
    if (c && c->room >= bytes) {
        o->spare = c->next;
    } else {
        uint64_t room = max(bytes, (uint64_t)VALUE_CHUNK);
        c = malloc(sizeof(*c) + room);
        if (!c)
            return -ENOMEM;
        c->room = (uint32_t)room;
    }
    c->used = 0;
    c->next = o->values;
    o->values = c;
    return 0;
}

int put_reserve(struct run *u, uint32_t rows, uint64_t bytes)
{
    struct meta *m = u->m;
    assert(!u->dry);
    rows += 3; /* a slot, a grant, a mount may come with it */
    bytes += 256 + m->mounts.largest;
    if (m->overlay.count + rows > OVERLAY_ROWS_MAX)
        return -CV_BUSY;
    int r = reserve_rows(&m->open, rows);
    if (r == 0)
        r = reserve_values(&m->open, bytes);
    return r < 0 ? r : buf_reserve(&m->open.ops, 4 * 64);
}

int put_reserve_ops(struct run *u, uint32_t ops)
{
    return buf_reserve(&u->m->open.ops, (ops + 4) * 64ul);
}

/* Bytes from what put_reserve() made sure of. */
static uint8_t *value_take(struct open_batch *o, uint32_t n)
{
    assert(o->values && o->values->room - o->values->used >= n);
    uint8_t *p = o->values->bytes + o->values->used;
    o->values->used += n;
    return p;
}

/* --- putting ---------------------------------------------------------------------------------------------------------- */

static struct row *open_row(struct meta *m, enum meta_table table, struct text key, uint32_t hash)
{
    struct open_batch *o = &m->open;
    struct row *r = row_table_find(&m->overlay, table, key, hash);
    if (r && r->batch == (uint32_t)o->number)
        return r;
    assert(o->row_count < o->chunk_count * ROW_CHUNK);
    r = open_batch_row(o, o->row_count);
    o->row_count++;
    *r = (struct row){.hash = hash,
                      .batch = (uint32_t)o->number,
                      .table = (uint8_t)table,
                      .key = value_take(o, key.n),
                      .key_n = (uint16_t)key.n};
    memcpy((uint8_t *)(uintptr_t)r->key, key.p, key.n);
    row_table_push(&m->overlay, r);
    m->overlay_rows_of[table]++;
    o->row_bytes += key.n + 4;
    return r;
}

static void put(struct run *u, enum meta_table table, struct text key, uint32_t hash, const struct text *value)
{
    struct open_batch *o = &u->m->open;
    assert(!u->dry);
    struct row *r = open_row(u->m, table, key, hash);
    r->deleted = !value;
    if (!value) {
        r->value_n = 0;
    } else {
        if (value->n > r->value_n)
            r->value = value_take(o, value->n);
        r->value_n = value->n;
        memcpy((uint8_t *)(uintptr_t)r->value, value->p, value->n);
        o->row_bytes += value->n;
    }
    u->q->changed = true;
    u->q->depends = o->number;
    if (table >= META_TABLE_session || table == META_TABLE_mount || table == META_TABLE_worker)
        row_now(u->m, r, r);
}

void put_row(struct run *u, enum meta_table table, struct text key, struct text value)
{
    put(u, table, key, row_hash(table, key), &value);
}

void put_no_row(struct run *u, enum meta_table table, struct text key)
{
    put(u, table, key, row_hash(table, key), NULL);
}

void put_inode(struct run *u, const struct meta_inode *i)
{
    uint8_t key[META_KEY_MAX], value[META_INODE_MAX];
    struct text row = key_of(value, meta_inode_encode(i, value));
    put(u, META_TABLE_inode, key_of(key, meta_key_inode(i->id, key)), (uint32_t)hash_u64(i->id), &row);
    tree_put_node(&u->m->tree, i->id, S_ISDIR(i->mode), row, (uint32_t)u->m->open.number);
}

void put_no_inode(struct run *u, const struct meta_inode *i)
{
    uint8_t key[META_KEY_MAX];
    put(u, META_TABLE_inode, key_of(key, meta_key_inode(i->id, key)), (uint32_t)hash_u64(i->id), NULL);
    tree_put_node(&u->m->tree, i->id, S_ISDIR(i->mode), (struct text){NULL, 0}, (uint32_t)u->m->open.number);
}

void put_name(struct run *u, uint64_t parent, struct text name, uint64_t child, uint8_t type)
{
    uint8_t key[META_KEY_MAX], value[16];
    const struct meta_dentry d = {child, type};
    uint32_t hash = (uint32_t)hash_bytes(parent, name.p, name.n);
    struct text row = key_of(value, child ? meta_dentry_encode(&d, value) : 0);
    put(u, META_TABLE_dentry, key_of(key, meta_key_dentry(parent, name, key)), hash, child ? &row : NULL);
    tree_put_name(&u->m->tree, parent, name, hash, child, type);
}

void put_op(struct run *u, enum redo_kind kind, uint64_t inode, uint64_t other, uint64_t extra)
{
    struct open_batch *o = &u->m->open;
    const struct redo_op op = {.kind = (uint8_t)kind,
                               .uid = u->q->caller.uid,
                               .session = u->q->caller.session,
                               .inode = inode,
                               .other = other,
                               .extra = extra};
    uint8_t bytes[64];
    uint32_t n = redo_op_encode(&op, bytes);
    int r = buf_append(&o->ops, bytes, n);
    assert(r == 0); /* put_reserve() made room */
    o->op_count++;
}

/* --- ids -------------------------------------------------------------------------------------------------------------- */

int ids_left(struct run *u, uint32_t n)
{
    return u->m->next_id + n <= u->m->id_limit ? 0 : -CV_BUSY;
}

uint64_t id_take(struct run *u)
{
    assert(u->m->next_id < u->m->id_limit);
    return u->m->next_id++;
}

/* Ask for the next range. Its row goes with the batch; the ids may be used when that is committed. */
void put_grant(struct run *u)
{
    struct meta *m = u->m;
    uint8_t key[4], value[16];
    if (m->id_asked < META_FIRST_ID)
        m->id_asked = META_FIRST_ID;
    m->id_asked = max(m->id_asked, m->next_id) + m->options.id_grant;
    assert(m->id_asked < META_ID_LIMIT);
    put_row(u, META_TABLE_grant, key_of(key, meta_key_grant(0, key)),
            key_of(value, meta_limit_encode(m->id_asked, value)));
    put_op(u, REDO_grant, 0, 0, m->id_asked);
}
