/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing a directory, a page at a time, in order of names: the order stays the same while the directory changes, and a
 * page begins behind a name, which need not exist any more. A directory that is complete in the tree and not large is
 * answered from there; any other is a merge of the layers and the base.
 */
#include "meta/meta_op.h"
#include "wire/frame.h"
#include "wire/meta_flags.h"

#define ENTRIES_MAX  4096u
#define ENTRIES_PAGE 1024u
#define BYTES_MAX    (FRAME_BODY_MAX - 4096u)
#define BYTES_PAGE   (256u << 10)

struct listing {
    struct run *u;
    bool attrs, missing, full;
    uint32_t count, entries_max, bytes_max, room; /* room: bytes the entries so far take */
};

/* Add an entry; with its attributes, which may have to be fetched: then the rest of the page is gone through for what it
 * needs too. The name must not be touched afterwards: a need moves what it may lie in. */
static int list_entry_add(struct listing *l, struct text name, uint64_t child, uint8_t type)
{
    struct rec_dir_entry e = {.inode = child, .type = type, .name = name};
    struct meta_inode i;
    uint32_t bytes = 4 + (uint32_t)wire_size(rec_dir_entry_desc(), &e);
    if (l->count == l->entries_max || l->room + bytes > l->bytes_max) {
        l->full = true;
        return 0;
    }
    l->room += bytes;
    l->count++;
    if (l->attrs) {
        char copy[META_NAME_MAX];
        memcpy(copy, name.p, name.n);
        e.name.p = copy;
        int r = see_inode(l->u, child, &i);
        see_release(l->u, 0);
        if (r == -CV_NOT_PREPARED) {
            l->missing = true;
            return 0;
        }
        if (r < 0)
            return r == -ENOENT ? -CV_BAD_FORMAT : r;
        attr_fill(&e.attr, &i);
        return l->missing ? 0 : rec_dir_entry_append(&l->u->q->data, &e);
    }
    return l->missing ? 0 : rec_dir_entry_append(&l->u->q->data, &e);
}

static int compare_names(const void *a, const void *b)
{
    return text_compare(name_text(*(const struct name *const *)a), name_text(*(const struct name *const *)b));
}

static int list_tree(struct listing *l, const struct node *d, struct text after)
{
    const struct tree *t = &l->u->m->tree;
    uint32_t most = ((const struct directory *)d)->names, n = 0;
    const struct name **names cleanup(freep) = malloc((most + 1) * sizeof(*names));
    int r = 0;
    if (!names)
        return -ENOMEM;
    for (const struct name *e = tree_first(t, d); e; e = tree_next(t, e))
        if (name_child(e) && (after.n == 0 || text_compare(name_text(e), after) > 0))
            names[n++] = e;
    qsort(names, n, sizeof(*names), compare_names);
    for (uint32_t i = 0; i < n && r == 0 && !l->full; i++)
        r = list_entry_add(l, name_text(names[i]), name_child(names[i]), names[i]->object.type);
    return r;
}

static int list_layers(struct listing *l, const struct meta_inode *dir, struct text after)
{
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    struct meta_dentry d;
    uint32_t n = meta_key_dentry(dir->id, after, key), whole = l->u->m->options.whole_dir_names;
    if (after.n)
        key[n++] = 0; /* the smallest name behind it */
    uint32_t page = (dir->entries <= whole ? max(l->entries_max, whole) : l->entries_max) + 1;
    int r = scan_init(&s, l->u, META_TABLE_dentry, key_of(key, n), 8, page, false);
    while (r == 0 && !l->full && (r = scan_next(&s, &k, &value)) == 0) {
        r = meta_dentry_decode(value, &d);
        if (r == 0)
            r = list_entry_add(l, (struct text){k.p + 8, k.n - 8}, d.child, d.type);
    }
    if (r == -CV_NOT_PREPARED && l->count && !l->missing) {
        l->full = true; /* what is there is a page */
        r = 0;
    }
    scan_fini(&s);
    return r == -ENODATA ? 0 : r;
}

int op_readdir(struct run *u)
{
    const struct msg_readdir *msg = &u->q->message.readdir;
    struct msg_readdir_answer *a = &u->q->answer.readdir;
    struct meta_inode dir;
    struct listing l = {
        .u = u,
        .attrs = msg->flags & READDIR_ATTR,
        .entries_max = msg->max_entries ? min(msg->max_entries, ENTRIES_MAX) : ENTRIES_PAGE,
        .bytes_max = msg->max_bytes ? min(msg->max_bytes, BYTES_MAX) : BYTES_PAGE,
    };
    int r = see_directory(u, msg->inode, &dir);
    if (r == 0)
        r = may(&u->q->caller, &dir, MAY_READ);
    if (r == 0 && (msg->after.n > META_NAME_MAX || l.bytes_max < 512))
        r = -EINVAL;
    if (r < 0)
        return r;
    r = not_all_here(u, &dir);
    if (r < 0)
        return r;
    see_release(u, 0);
    const struct node *d = tree_node(&u->m->tree, msg->inode);
    if (d && d->flags & NODE_COMPLETE && ((const struct directory *)d)->names <= u->m->options.whole_dir_names)
        r = list_tree(&l, d, msg->after);
    else
        r = list_layers(&l, &dir, msg->after);
    if (r == 0 && l.missing)
        r = -CV_NOT_PREPARED;
    if (r < 0)
        return r;
    a->entries = wire_list_of(&u->q->data, l.count);
    a->end = !l.full;
    a->parent = dir.parent;
    a->change = dir.change;
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}
