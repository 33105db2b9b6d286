/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: from a message to an answer, and what they fetch from the base on the way. Nothing here runs an operation. */
#include <dirent.h>

#include "meta/meta_core.h"

void meta_request_init(struct meta_request *q)
{
    memset(q, 0, sizeof(*q));
}

void meta_request_reset(struct meta_request *q)
{
    const struct meta_request old = *q;
    memset(q, 0, sizeof(*q));
    q->needs = old.needs;
    q->need_room = old.need_room;
    q->store = (struct buf){old.store.p, 0, old.store.room};
    q->data = (struct buf){old.data.p, 0, old.data.room};
    q->texts = old.texts;
}

void meta_request_fini(struct meta_request *q)
{
    free(q->needs);
    free(q->texts);
    buf_fini(&q->store);
    buf_fini(&q->data);
    memset(q, 0, sizeof(*q));
}

int meta_request_decode(struct meta_request *q, uint16_t type, const void *body, size_t n)
{
    const struct meta_op *op = meta_op_find(type);
    if (!op)
        return -CV_UNKNOWN_MESSAGE;
    int r = wire_decode(message_desc(type), body, n, &q->message);
    if (r < 0)
        return r;
    q->op = op;
    q->type = type;
    q->op_class = op->op_class;
    if (!op->has_head)
        return 0;
    const struct rec_op_head *h = &q->message.head;
    if (h->groups.n % 4)
        return -CV_BAD_MESSAGE;
    q->caller = (struct meta_caller){
        .session = h->session,
        .uid = h->uid,
        .gid = h->gid,
        .groups = (const uint8_t *)h->groups.p,
        .group_count = h->groups.n / 4,
        .pid = h->pid,
    };
    return 0;
}

void meta_request_inner(struct meta_request *q, enum meta_inner what, uint64_t arg)
{
    q->op = meta_op_inner(what);
    q->type = 0;
    q->op_class = META_SCRIBE;
    q->arg = arg;
}

void meta_request_worker(struct meta_request *q, const struct meta_worker_row *row)
{
    meta_request_inner(q, META_OP_worker, row->worker);
    q->worker = row;
}

void meta_request_import(struct meta_request *q, struct meta_import *what)
{
    meta_request_inner(q, META_OP_import, what->directory);
    q->import = what;
}

void meta_request_sweep(struct meta_request *q, struct meta_import *what)
{
    meta_request_inner(q, META_OP_sweep, what->directory);
    q->import = what;
}

void meta_unlisted_absent(struct meta_request *q)
{
    if (q->absent_count < META_ABSENT_MAX)
        q->absent[q->absent_count++] = q->unlisted;
}

int meta_answer_encode(const struct meta_request *q, struct buf *b)
{
    const struct wire_desc *d = q->type && q->error == 0 ? message_desc(q->type + 0x8000) : NULL;
    return d ? wire_encode(d, &q->answer, b) : 0;
}

/* --- fetching ---------------------------------------------------------------------------------------------------------- */

static int fetch_row(const struct meta_base *base, struct meta_request *q, struct meta_need *n, bool memory)
{
    uint8_t key[META_KEY_MAX + 1]; /* the store may move while the value is appended to it */
    memcpy(key, q->store.p + n->key_at, n->key_n);
    size_t before = q->store.n;
    int r = base->get(base->context, meta_table_family(n->table), key_of(key, n->key_n), memory, &q->store);
    if (r < 0 && r != -ENOENT) {
        q->store.n = before;
        return r;
    }
    n->absent = r == -ENOENT;
    n->value_at = (uint32_t)before;
    n->value_n = (uint32_t)(q->store.n - before);
    n->done = true;
    return 0;
}

struct fetch_page {
    struct meta_request *q;
    struct meta_need *need;
    int error;
};

static bool fetch_page_row(void *arg, struct text key, struct text value)
{
    struct fetch_page *p = arg;
    struct buf *store = &p->q->store;
    uint8_t head[6];
    if (p->need->rows == p->need->limit) {
        p->need->end = false; /* there is more */
        return false;
    }
    if (p->need->keys_only)
        value.n = 0;
    if (key.n > META_KEY_MAX || value.n > META_VALUE_MAX)
        p->error = -CV_BAD_FORMAT;
    put_le16(head, (uint16_t)key.n);
    put_le32(head + 2, value.n);
    if (!p->error)
        p->error = buf_reserve(store, sizeof(head) + key.n + value.n);
    if (p->error)
        return false;
    buf_append(store, head, sizeof(head));
    buf_append(store, key.p, key.n);
    buf_append(store, value.p, value.n);
    p->need->rows++;
    return true;
}

static int fetch_scan(const struct meta_base *base, struct meta_request *q, struct meta_need *n, bool memory)
{
    uint8_t from[META_KEY_MAX + 1];
    memcpy(from, q->store.p + n->key_at, n->key_n);
    size_t before = q->store.n;
    struct fetch_page page = {q, n, 0};
    n->rows = 0;
    n->end = true;
    n->value_at = (uint32_t)before;
    int r = base->scan(base->context, meta_table_family(n->table), key_of(from, n->prefix_n), key_of(from, n->key_n),
                       memory, fetch_page_row, &page);
    if (r == 0)
        r = page.error;
    if (r < 0) {
        q->store.n = before;
        return r;
    }
    n->done = true;
    return 0;
}

int meta_fetch(const struct meta_base *base, struct meta_request *q, bool memory)
{
    int missing = 0;
    for (uint32_t i = 0; i < q->need_count; i++) {
        struct meta_need *n = &q->needs[i];
        if (n->done)
            continue;
        int r = n->scan ? fetch_scan(base, q, n, memory) : fetch_row(base, q, n, memory);
        if (r == -CV_NOT_PREPARED && memory)
            missing = r;
        else if (r < 0)
            return r;
    }
    return missing;
}

/* --- into the tree ----------------------------------------------------------------------------------------------------- */

static void install_inode(struct meta *m, struct text key, const struct meta_need *n, struct text value)
{
    struct meta_inode i;
    uint64_t id = get_be64(key.p);
    if (id >= META_ID_LIMIT || tree_node(&m->tree, id) ||
        layers_find(m, META_TABLE_inode, key, row_hash(META_TABLE_inode, key)))
        return;
    if (n->absent)
        tree_put_node(&m->tree, id, false, (struct text){NULL, 0}, 0);
    else if (meta_inode_decode(id, value, &i) == 0)
        tree_put_node(&m->tree, id, S_ISDIR(i.mode), value, 0);
    m->installed++;
}

static void install_name(struct meta *m, struct text key, const struct meta_need *n, struct text value)
{
    struct meta_dentry d = {0};
    uint64_t parent = get_be64(key.p);
    struct text name = {key.p + 8, key.n - 8};
    uint32_t hash = row_hash(META_TABLE_dentry, key);
    if (tree_name(&m->tree, parent, name, hash) || layers_find(m, META_TABLE_dentry, key, hash))
        return;
    if (!n->absent && meta_dentry_decode(value, &d) < 0)
        return;
    tree_put_name(&m->tree, parent, name, hash, d.child, d.type);
    m->installed++;
}

/* All names of a directory, as a merge of what was fetched with the layers. It is complete from here on; a name that finds
 * no room, or leaves, takes that back. */
static void install_directory(struct meta *m, struct meta_request *q, uint64_t id)
{
    const struct node *d = tree_node(&m->tree, id);
    if (!d || d->object.kind != TREE_DIRECTORY || d->flags & (NODE_COMPLETE | NODE_ABSENT))
        return;
    struct run u = {.m = m, .q = q, .dry = true};
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    struct meta_dentry e;
    int r = scan_init(&s, &u, META_TABLE_dentry, key_of(key, meta_key_dentry(id, (struct text){0}, key)), 8, 0, false);
    tree_set_complete(&m->tree, id, true);
    while (r == 0 && (r = scan_next(&s, &k, &value)) == 0) {
        struct text name = {k.p + 8, k.n - 8};
        uint32_t hash = row_hash(META_TABLE_dentry, k);
        r = meta_dentry_decode(value, &e);
        if (r == 0 && !tree_name(&m->tree, id, name, hash))
            tree_put_name(&m->tree, id, name, hash, e.child, e.type);
        m->installed++;
    }
    if (r != -ENODATA)
        tree_set_complete(&m->tree, id, false);
    scan_fini(&s);
}

void meta_install(struct meta *m, struct meta_request *q)
{
    need_check(m, q);
    for (int pass = 0; pass < 3; pass++) /* directories before their names */
        for (uint32_t i = 0; i < q->need_count; i++) {
            const struct meta_need *n = &q->needs[i];
            struct text key = key_of(q->store.p + n->key_at, n->key_n);
            struct text value = key_of(q->store.p + n->value_at, n->value_n);
            if (!n->done)
                continue;
            if (pass == 0 && !n->scan && n->table == META_TABLE_inode)
                install_inode(m, key, n, value);
            if (pass == 1 && !n->scan && n->table == META_TABLE_dentry)
                install_name(m, key, n, value);
            if (pass == 2 && n->scan && n->table == META_TABLE_dentry && n->key_n == 8 && n->end &&
                n->rows <= m->options.whole_dir_names)
                install_directory(m, q, get_be64(key.p));
        }
}
