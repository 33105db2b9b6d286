/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeing rows. One order of looking everywhere: the tree (decoded enough, and it knows what does not exist), the overlay,
 * the delta, the sealed delta, then what the request brought from the base. What is nowhere becomes a need.
 */
#include "meta/meta_core.h"

#define TEXTS_ROOM (64u << 10)

/* --- needs ----------------------------------------------------------------------------------------------------------- */

void need_check(const struct meta *m, struct meta_request *q)
{
    if (q->generation == m->generation)
        return;
    q->generation = m->generation;
    q->need_count = q->need_hint = 0;
    q->store.n = 0;
}

struct meta_need *need_find(struct meta_request *q, bool scan, enum meta_table table, struct text key)
{
    /* Runs ask in the same order each time, so the next is mostly the one behind the last. */
    for (uint32_t i = 0, at = q->need_hint; i < q->need_count; i++, at++) {
        if (at >= q->need_count)
            at = 0;
        struct meta_need *n = &q->needs[at];
        if (n->table == table && n->scan == scan && n->key_n == key.n &&
            memcmp(q->store.p + n->key_at, key.p, key.n) == 0) {
            q->need_hint = at + 1;
            return n;
        }
    }
    return NULL;
}

static int need_add(struct run *u, const struct meta_need *need, struct text key)
{
    struct meta_request *q = u->q;
    if (q->need_count >= META_NEEDS_MAX)
        return -E2BIG;
    if (q->need_count == q->need_room) {
        uint32_t room = q->need_room ? q->need_room * 2 : 16;
        struct meta_need *needs = realloc(q->needs, room * sizeof(*needs));
        if (!needs)
            return -ENOMEM;
        q->needs = needs;
        q->need_room = room;
    }
    struct meta_need *n = &q->needs[q->need_count];
    *n = *need;
    n->key_at = (uint32_t)q->store.n;
    n->key_n = (uint16_t)key.n;
    int r = buf_append(&q->store, key.p, key.n);
    if (r < 0)
        return r;
    q->need_count++;
    return -CV_NOT_PREPARED;
}

int need_row(struct run *u, enum meta_table table, struct text key)
{
    const struct meta_need n = {.table = (uint8_t)table};
    return need_find(u->q, false, table, key) ? -CV_NOT_PREPARED : need_add(u, &n, key);
}

int need_scan(struct run *u, enum meta_table table, struct text from, uint32_t prefix_n, uint32_t limit, bool keys_only)
{
    const struct meta_need n = {
        .table = (uint8_t)table, .scan = true, .keys_only = keys_only, .prefix_n = (uint16_t)prefix_n, .limit = limit};
    return need_find(u->q, true, table, from) ? -CV_NOT_PREPARED : need_add(u, &n, from);
}

/* --- layers ---------------------------------------------------------------------------------------------------------- */

void see_depend(struct run *u, uint32_t batch)
{
    const struct meta *m = u->m;
    int32_t ahead = (int32_t)(batch - (uint32_t)m->batch_committed);
    if (ahead <= 0 || m->batch_committed + (uint32_t)ahead > m->open.number)
        return; /* committed, or so old that its number came round again */
    uint64_t full = m->batch_committed + (uint32_t)ahead;
    if (full > u->q->depends)
        u->q->depends = full;
}

const struct row *layers_find(const struct meta *m, enum meta_table table, struct text key, uint32_t hash)
{
    const struct row *r = NULL;
    if (m->overlay.count)
        r = row_table_find(&m->overlay, table, key, hash);
    if (!r && m->delta->table.count)
        r = row_table_find(&m->delta->table, table, key, hash);
    if (!r && m->sealed)
        r = row_table_find(&m->sealed->table, table, key, hash);
    return r;
}

/* Below the tree. *batch: of what was seen. */
static int see_below(struct run *u, enum meta_table table, struct text key, uint32_t hash, struct text *ret,
                     uint32_t *batch)
{
    const struct row *r = layers_find(u->m, table, key, hash);
    if (r) {
        *batch = r->batch;
        see_depend(u, r->batch);
        *ret = row_value(r);
        return r->deleted ? -ENOENT : 0;
    }
    *batch = 0;
    const struct meta_need *n = need_find(u->q, false, table, key);
    if (!n)
        return need_row(u, table, key);
    if (!n->done)
        return -CV_NOT_PREPARED;
    *ret = (struct text){(const char *)u->q->store.p + n->value_at, n->value_n};
    return n->absent ? -ENOENT : 0;
}

int see_row(struct run *u, enum meta_table table, struct text key, struct text *ret)
{
    uint32_t batch;
    return see_below(u, table, key, row_hash(table, key), ret, &batch);
}

/* --- inodes ---------------------------------------------------------------------------------------------------------- */

static int keep_text(struct meta_request *q, struct text *t)
{
    if (!t->n)
        return 0;
    if (!q->texts && !(q->texts = malloc(TEXTS_ROOM)))
        return -ENOMEM;
    assert(q->texts_used + t->n <= TEXTS_ROOM);
    char *to = (char *)q->texts + q->texts_used;
    memcpy(to, t->p, t->n);
    q->texts_used += t->n;
    t->p = to;
    return 0;
}

/* Texts of the decoded row move to where neither eviction nor another need can reach them. */
static int inode_from(struct run *u, uint64_t id, struct text row, struct meta_inode *ret)
{
    int r = meta_inode_decode(id, row, ret);
    if (r == 0)
        r = keep_text(u->q, &ret->target);
    if (r == 0)
        r = keep_text(u->q, &ret->ufs_etag);
    return r < 0 ? r : keep_text(u->q, &ret->ufs_at);
}

int see_inode(struct run *u, uint64_t id, struct meta_inode *ret)
{
    if (id >= META_ID_LIMIT)
        return -ENOENT;
    const struct node *n = tree_node(&u->m->tree, id);
    if (n) {
        see_depend(u, n->batch);
        return n->flags & NODE_ABSENT ? -ENOENT : inode_from(u, id, node_row(n), ret);
    }
    uint8_t key[META_KEY_MAX];
    struct text row;
    uint32_t batch;
    int r = see_below(u, META_TABLE_inode, key_of(key, meta_key_inode(id, key)), (uint32_t)hash_u64(id), &row, &batch);
    if (r == 0)
        r = inode_from(u, id, row, ret);
    if (r == 0 && !u->dry)
        tree_put_node(&u->m->tree, id, (ret->mode & S_IFMT) == S_IFDIR, row, batch);
    return r;
}

/* --- names ----------------------------------------------------------------------------------------------------------- */

int see_name(struct run *u, uint64_t parent, struct text name, struct meta_dentry *ret)
{
    const struct meta *m = u->m;
    uint32_t hash = (uint32_t)hash_bytes(parent, name.p, name.n), batch;
    const struct name *n = tree_name(&m->tree, parent, name, hash);
    if (n) {
        *ret = (struct meta_dentry){name_child(n), n->object.type};
        return ret->child ? 0 : -ENOENT;
    }
    const struct node *d = tree_node(&m->tree, parent);
    if (d && d->flags & NODE_COMPLETE)
        return -ENOENT;
    uint8_t key[META_KEY_MAX];
    struct text value;
    int r = see_below(u, META_TABLE_dentry, key_of(key, meta_key_dentry(parent, name, key)), hash, &value, &batch);
    if (r == 0)
        r = meta_dentry_decode(value, ret);
    if ((r == 0 || r == -ENOENT) && !u->dry)
        tree_put_name(&u->m->tree, parent, name, hash, r ? 0 : ret->child, r ? 0 : ret->type);
    return r;
}
