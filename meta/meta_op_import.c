/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that an under file system has: taken over as the daemon lists them, up to META_IMPORT_NAMES at a time.
 *
 *      not here                             made: base_version 1, base_bytes all of it, ufs_at its key in the directory's
 *      here, the same object                left alone
 *      here, another object                 a new inode takes the name over, the old one goes as if it were unlinked
 *      here, changed or made here           left alone, counted: whose content wins is not decided here
 *      here, gone there (meta_sweep)        removed, if it came from there and was not changed here
 *
 * In a mount of mode fs names are only ever added, and only until the directory is known wholly: what was removed here is
 * there for a while yet, what was lost there is not to be lost here.
 *
 * A directory that is replaced or removed goes with everything below it, unless something in its mount was ever written
 * here: then it stays, since looking through what is below it has no bound.
 */
#include <dirent.h>

#include "meta/meta_op.h"

enum action { LEAVE, CREATE, REPLACE };

struct import {
    struct run *u;
    struct meta_import *what;
    struct meta_inode dir;
    bool written; /* the mount was ever written to */
    bool truth;   /* its mode is fs: once a directory is known, what is here counts */
    uint64_t bytes;
    uint32_t made; /* names to be made */
    uint32_t kept, skipped;
    uint64_t children[META_IMPORT_NAMES];
    uint8_t actions[META_IMPORT_NAMES];
};

static struct text etag_of(const struct meta_import_name *n)
{
    return n->etag.n <= META_ETAG_MAX ? n->etag : (struct text){NULL, 0}; /* then times and lengths must do */
}

static bool same_object(const struct meta_inode *i, const struct meta_import_name *n)
{
    struct text etag = etag_of(n);
    if (i->ufs_etag.n && etag.n)
        return text_equal(i->ufs_etag, etag);
    return i->ufs_mtime_ns == n->mtime_ns && i->ufs_length == n->size;
}

/* May what is here go because of what is there? */
static bool may_go(const struct import *m, const struct meta_inode *i)
{
    if (!i->ufs_at.n || i->flags & INODE_DIRTY || m->truth)
        return false;
    return !S_ISDIR(i->mode) || !i->entries || !m->written;
}

static int import_see_dir(struct import *m, uint64_t id)
{
    int r = see_directory(m->u, id, &m->dir);
    if (r < 0)
        return r;
    const struct kept_row *k = kept_find(&m->u->m->mounts, m->dir.mount);
    m->truth = is_mirrored(m->u, m->dir.mount);
    if (m->dir.nlink == 0 || !has_ufs(m->u, m->dir.mount))
        return -ESTALE;
    m->written = k->mount.written;
    return 0;
}

/* Which names are here: first all of them, then their inodes, each in one order. */
static int import_see_names(struct import *m)
{
    const struct meta_import *w = m->what;
    struct meta_dentry d;
    int missing = 0;
    for (uint32_t k = 0; k < w->count; k++) {
        const struct meta_import_name *n = &w->names[k];
        m->children[k] = 0;
        m->actions[k] = LEAVE;
        if (check_name(n->name) < 0 || n->key.n > META_NAME_MAX || (n->key.n > 1 && memchr(n->key.p, '/', n->key.n)) ||
            n->size > FILE_BYTES_MAX) {
            m->skipped++;
            continue;
        }
        int r = m->dir.entries ? see_name(m->u, m->dir.id, n->name, &d) : -ENOENT;
        if (r == -CV_NOT_PREPARED)
            missing = r;
        else if (r == 0)
            m->children[k] = d.child;
        else if (r == -ENOENT)
            m->actions[k] = CREATE;
        else
            return r;
    }
    return missing;
}

static int import_judge(struct import *m, uint32_t k)
{
    const struct meta_import_name *n = &m->what->names[k];
    struct meta_inode i;
    uint32_t mark = see_mark(m->u);
    int r = see_inode(m->u, m->children[k], &i);
    if (r < 0)
        return r == -ENOENT ? -CV_BAD_FORMAT : r;
    bool same = S_ISDIR(i.mode) ? n->directory : !n->directory && i.ufs_at.n && same_object(&i, n);
    if (!same && may_go(m, &i)) {
        m->actions[k] = REPLACE;
        m->bytes += 512 + i.target.n + i.ufs_at.n + i.ufs_etag.n;
    }
    m->kept += !same && m->actions[k] != REPLACE;
    see_release(m->u, mark);
    return 0;
}

static int import_see(struct import *m)
{
    int missing = 0, r = import_see_names(m);
    if (r < 0)
        return r;
    for (uint32_t k = 0; k < m->what->count; k++) {
        r = m->children[k] ? import_judge(m, k) : 0;
        if (r == -CV_NOT_PREPARED)
            missing = r;
        else if (r < 0)
            return r;
        if (m->actions[k] == LEAVE)
            continue;
        const struct meta_import_name *n = &m->what->names[k];
        m->made++;
        m->bytes += 512ull + 3 * n->name.n + n->key.n + n->etag.n;
    }
    return missing;
}

static void import_make(struct import *m, const struct meta_import_name *n)
{
    struct run *u = m->u;
    bool directory = n->directory;
    int64_t time = n->mtime_ns ? (int64_t)n->mtime_ns : (int64_t)u->now_ns;
    uint32_t shift = u->m->options.block_shift;
    struct meta_inode i = {
        .id = id_take(u),
        .mode = (directory ? S_IFDIR : S_IFREG) | (n->mode & 07777 ? n->mode & 07777
                                                   : directory     ? 0755
                                                                   : 0644),
        .uid = n->mode ? n->uid : m->dir.uid,
        .gid = n->mode ? n->gid : m->dir.gid,
        .nlink = directory ? 2 : 1,
        .parent = m->dir.id,
        .mount = m->dir.mount,
        .change = 1,
        .flags = directory ? INODE_LISTING_UNKNOWN : 0,
        .size = directory ? 0 : n->size,
        .base_version = directory ? 0 : 1,
        .base_bytes = directory ? 0 : n->size,
        .block_shift = !directory && shift != META_BLOCK_SHIFT ? (uint8_t)shift : 0,
        .mtime_ns = time,
        .atime_ns = time,
        .ctime_ns = time,
        .btime_ns = time,
        .ufs_at = n->key.n ? n->key : n->name,
    };
    if (!directory) {
        i.ufs_mtime_ns = n->mtime_ns;
        i.ufs_length = n->size;
        i.ufs_etag = etag_of(n);
    }
    put_inode(u, &i);
    if (directory)
        tree_set_complete(&u->m->tree, i.id, true);
    put_name(u, m->dir.id, n->name, i.id, directory ? DT_DIR : DT_REG);
    m->dir.entries++;
    m->dir.nlink += directory;
    u->m->now.inodes++;
    u->m->now.directories += directory;
    u->m->now.bytes += i.size;
}

/* The name goes; what it led to as well, if that was its last. */
static void import_drop(struct import *m, struct text name, uint64_t child)
{
    struct run *u = m->u;
    struct meta_inode i;
    uint32_t mark = see_mark(u);
    int r = see_inode(u, child, &i);
    assert(r == 0);
    bool directory = S_ISDIR(i.mode);
    put_name(u, m->dir.id, name, 0, 0);
    int left = drop_link(u, &i);
    put_op(u, directory ? REDO_rmdir : REDO_unlink, i.id, m->dir.id, (uint64_t)left);
    m->dir.entries--;
    m->dir.nlink -= directory;
    see_release(u, mark);
}

static bool is_here(struct import *m, struct text name)
{
    struct meta_dentry d;
    return see_name(m->u, m->dir.id, name, &d) == 0;
}

static void import_put(struct import *m)
{
    struct meta_import *w = m->what;
    for (uint32_t k = 0; k < w->count; k++) {
        const struct meta_import_name *n = &w->names[k];
        if (m->actions[k] == LEAVE || (m->actions[k] == CREATE && k && is_here(m, n->name)))
            continue; /* named twice */
        if (m->actions[k] == REPLACE) {
            struct meta_dentry d;
            int r = see_name(m->u, m->dir.id, n->name, &d);
            assert(r == 0);
            if (d.child != m->children[k])
                continue;
            import_drop(m, n->name, d.child);
            w->replaced++;
        } else {
            w->created++;
        }
        import_make(m, n);
    }
}

int inner_import(struct run *u)
{
    struct meta_import *w = u->q->import;
    struct import m = {.u = u, .what = w};
    if (!w || w->count > META_IMPORT_NAMES)
        return -EINVAL;
    const uint32_t unlisted = INODE_LISTING_PARTIAL | INODE_LISTING_UNKNOWN;
    w->created = w->replaced = w->removed = 0;
    int r = import_see_dir(&m, w->directory);
    if (r == 0 && m.truth && !(m.dir.flags & unlisted)) {
        w->kept = w->count;
        return 0;
    }
    if (r == 0)
        r = import_see(&m);
    if (r < 0 || u->dry)
        return r;
    uint32_t flags = m.dir.flags;
    if (w->complete)
        flags &= ~unlisted;
    else if (flags & INODE_LISTING_UNKNOWN && w->count)
        flags = (flags & ~unlisted) | INODE_LISTING_PARTIAL;
    w->kept = m.kept;
    w->skipped = m.skipped;
    if (!m.made && flags == m.dir.flags)
        return 0;
    r = ids_left(u, m.made);
    if (r == 0)
        r = put_reserve(u, (3 + DROP_LINK_ROWS) * m.made + 1, m.bytes + PUT_INODE_BYTES);
    if (r == 0)
        r = put_reserve_ops(u, m.made + 1);
    if (r < 0)
        return r;
    import_put(&m);
    m.dir.flags = flags;
    m.dir.change += m.made > 0;
    put_inode(u, &m.dir);
    put_op(u, REDO_import, m.dir.id, w->created, w->replaced);
    return 0;
}

/* --- what is gone there ----------------------------------------------------------------------------------------------------- */

/* One page of names: those the listing did not have and that may go. */
static int sweep_see(struct import *m, uint8_t (*names)[META_NAME_MAX], uint8_t *lengths)
{
    struct run *u = m->u;
    struct meta_import *w = m->what;
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    struct meta_dentry d;
    struct meta_inode i;
    uint32_t n = meta_key_dentry(m->dir.id, key_of(w->after, w->after_n), key), seen = 0;
    int missing = 0;
    if (w->after_n)
        key[n++] = 0;
    int r = scan_init(&s, u, META_TABLE_dentry, key_of(key, n), 8, META_IMPORT_NAMES, false);
    while (r == 0 && seen < META_IMPORT_NAMES && (r = scan_next(&s, &k, &value)) == 0) {
        uint32_t mark = see_mark(u);
        r = meta_dentry_decode(value, &d);
        seen++;
        w->next_n = (uint8_t)(k.n - 8);
        memcpy(w->next, k.p + 8, w->next_n);
        if (r < 0 || w->listed(w->arg, key_of(w->next, w->next_n)))
            continue;
        r = see_inode(u, d.child, &i);
        if (r == 0 && may_go(m, &i)) {
            lengths[m->made] = w->next_n;
            memcpy(names[m->made], w->next, w->next_n);
            m->children[m->made++] = d.child;
            m->bytes += 512ull + 2 * META_NAME_MAX + i.ufs_at.n + i.ufs_etag.n;
        }
        see_release(u, mark);
        missing = r == -CV_NOT_PREPARED ? r : missing;
        r = r == -CV_NOT_PREPARED ? 0 : r;
    }
    scan_fini(&s);
    w->end = r == -ENODATA;
    return r < 0 && r != -ENODATA ? r : missing;
}

int inner_sweep(struct run *u)
{
    struct meta_import *w = u->q->import;
    struct import m = {.u = u, .what = w};
    uint8_t(*names)[META_NAME_MAX] cleanup(freep) = malloc(META_IMPORT_NAMES * sizeof(*names));
    uint8_t lengths[META_IMPORT_NAMES];
    if (!names)
        return -ENOMEM;
    if (!w || !w->listed)
        return -EINVAL;
    w->removed = 0;
    int r = import_see_dir(&m, w->directory);
    if (r == 0)
        r = sweep_see(&m, names, lengths);
    if (r < 0 || u->dry || !m.made)
        return r;
    r = put_reserve(u, (1 + DROP_LINK_ROWS) * m.made + 1, m.bytes + PUT_INODE_BYTES);
    if (r == 0)
        r = put_reserve_ops(u, m.made + 1);
    if (r < 0)
        return r;
    for (uint32_t k = 0; k < m.made; k++)
        import_drop(&m, key_of(names[k], lengths[k]), m.children[k]);
    w->removed = m.made;
    m.dir.change++;
    put_inode(u, &m.dir);
    put_op(u, REDO_sweep, m.dir.id, m.made, 0);
    return 0;
}
