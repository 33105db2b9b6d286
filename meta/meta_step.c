/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps that operations share: what a message names is seen and checked in Linux's order, inodes come and go with their
 * names. They call what is below them (see_*, put_*, mounts, origins, content), never an operation.
 */
#include <dirent.h>

#include "meta/meta_core.h"
#include "wire/meta_flags.h"

/* --- seeing ------------------------------------------------------------------------------------------------------------- */

int check_name(struct text name)
{
    if (name.n == 0)
        return -ENOENT;
    if (name.n > META_NAME_MAX)
        return -ENAMETOOLONG;
    if (name.p[0] == '.' && (name.n == 1 || (name.n == 2 && name.p[1] == '.')))
        return -EINVAL;
    return memchr(name.p, '/', name.n) || memchr(name.p, 0, name.n) ? -EINVAL : 0;
}

/* How soon the answer may leave goes by the mounts of what it is about: the strictest of them (master_ack.h). */
static void about(struct run *u, const struct meta_inode *i)
{
    const struct kept_row *k = i->mount ? kept_find(&u->m->mounts, i->mount) : NULL;
    u->q->mount = i->mount ? i->mount : u->q->mount;
    u->q->acks |= (uint8_t)(1u << (k && k->now ? meta_mount_ack(&k->mount) : MOUNT_ACK_CLUSTER));
}

/* Nobody holds it that is known, and who asks has told all he holds: it only waits to be purged, or for others to tell. (A
 * directory that was taken off with its names is there until it is empty.) */
static bool is_gone(const struct run *u, const struct meta_inode *i)
{
    if (!(i->flags & INODE_ORPHAN) || i->entries || handle_any(&u->m->sessions, i->id))
        return false;
    const struct session *s = session_find(&u->m->sessions, u->q->caller.session);
    return s && s->told;
}

int see_target(struct run *u, uint64_t id, struct meta_inode *ret)
{
    int r = see_inode(u, id, ret);
    if (r == 0)
        about(u, ret);
    if (r == 0 && is_gone(u, ret))
        r = -ESTALE;
    return r == -ENOENT ? -ESTALE : r;
}

int see_directory(struct run *u, uint64_t id, struct meta_inode *ret)
{
    int r = see_target(u, id, ret);
    return r == 0 && !S_ISDIR(ret->mode) ? -ENOTDIR : r;
}

int not_here(struct run *u, const struct meta_inode *dir, struct text name)
{
    struct meta_request *q = u->q;
    if (!(dir->flags & (INODE_LISTING_PARTIAL | INODE_LISTING_UNKNOWN)) || !dir->nlink || !has_ufs(u, dir->mount))
        return -ENOENT;
    for (uint32_t k = 0; k < q->absent_count; k++)
        if (q->absent[k].directory == dir->id && (!q->absent[k].name.n || text_equal(q->absent[k].name, name)))
            return -ENOENT;
    if (listed_whole(u, dir->mount)) /* what is removed here may still be there: never ask for one name */
        name.n = 0;
    char key[META_ORIGIN_KEY_MAX];
    struct text at;
    int r = origin_key(u, dir, key, &at);
    q->data.n = 0;
    if (r == 0 && at.n)
        r = buf_append(&q->data, at.p, at.n);
    if (r == 0 && at.n)
        r = buf_append(&q->data, "/", 1);
    if (r < 0)
        return r == -CV_NOT_PREPARED || r == -ENOMEM ? r : -ENOENT; /* it is not there */
    q->unlisted = (struct meta_unlisted){dir->id, dir->mount, key_of(q->data.p, (uint32_t)q->data.n), name};
    return -CV_NOT_LISTED;
}

int see_old_name(struct run *u, const struct meta_inode *parent, struct text name, struct meta_inode *ret)
{
    struct meta_dentry d;
    int r = may(&u->q->caller, parent, MAY_EXEC);
    if (r == 0)
        r = check_name(name);
    if (r == 0)
        r = see_name(u, parent->id, name, &d);
    else
        return r;
    if (r < 0)
        return r == -ENOENT ? not_here(u, parent, name) : r;
    r = see_inode(u, d.child, ret);
    if (r == 0)
        about(u, ret);
    return r == -ENOENT ? -CV_BAD_FORMAT : r; /* a name without an inode is damage */
}

int see_new_name(struct run *u, uint64_t parent, struct text name, struct meta_inode *ret)
{
    struct meta_dentry d;
    int r = see_directory(u, parent, ret);
    if (r == 0)
        r = may(&u->q->caller, ret, MAY_EXEC);
    if (r == 0)
        r = check_name(name);
    if (r < 0)
        return r;
    r = see_name(u, parent, name, &d);
    if (r == -ENOENT)
        r = not_here(u, ret, name);
    if (r != -ENOENT)
        return r == 0 ? -EEXIST : r;
    if (ret->nlink == 0)
        return -ENOENT; /* it was removed while somebody had it open */
    if (read_only(u, ret->mount))
        return -CV_READ_ONLY_MOUNT;
    return may(&u->q->caller, ret, MAY_WRITE | MAY_EXEC);
}

/* --- putting ------------------------------------------------------------------------------------------------------------ */

void directory_changed(struct run *u, struct meta_inode *d, int entries, int links)
{
    d->entries += (uint64_t)entries;
    d->nlink += (uint32_t)links;
    d->change++;
    d->mtime_ns = d->ctime_ns = (int64_t)u->now_ns;
    if (d->mount) /* what a name was made, moved or removed for is nowhere else either */
        mount_written(u, d->mount);
}

int put_new_node(struct run *u, struct meta_inode *parent, const struct new_node *n, struct meta_inode *ret)
{
    const struct meta_caller *c = &u->q->caller;
    bool directory = S_ISDIR(n->mode);
    uint32_t shift = u->m->options.block_shift;
    *ret = (struct meta_inode){
        .id = id_take(u),
        .mode = n->mode,
        .uid = c->uid,
        .gid = parent->mode & S_ISGID ? parent->gid : c->gid,
        .nlink = directory ? 2 : 1,
        .parent = parent->id,
        .mount = parent->mount,
        .change = 1,
        .size = n->target.n,
        .rdev = n->rdev,
        .target = n->target,
        .block_shift = S_ISREG(n->mode) && shift != META_BLOCK_SHIFT ? (uint8_t)shift : 0,
    };
    ret->mtime_ns = ret->atime_ns = ret->ctime_ns = ret->btime_ns = (int64_t)u->now_ns;
    if (parent->mode & S_ISGID && directory)
        ret->mode |= S_ISGID;
    else if ((n->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !is_root(c) && !in_group(c, ret->gid))
        ret->mode &= ~(uint32_t)S_ISGID; /* nobody gets a program of a group he is not in */
    directory_changed(u, parent, 1, directory);
    put_inode(u, ret);
    if (directory)
        tree_set_complete(&u->m->tree, ret->id, true);
    put_inode(u, parent);
    put_name(u, parent->id, n->name, ret->id, (uint8_t)IFTODT(ret->mode));
    u->m->now.inodes++;
    u->m->now.directories += directory;
    u->m->now.bytes += ret->size;
    u->result.inode = ret->id;
    u->result.other = parent->id;
    return 0;
}

int drop_link(struct run *u, struct meta_inode *i)
{
    struct meta *m = u->m;
    /* Until the period of re-assertion is over somebody may hold it who has not told us yet. */
    bool directory = S_ISDIR(i->mode),
         held = handle_any(&m->sessions, i->id) || (m->leading && !m->purge_allowed && m->sessions.untold);
    uint8_t key[META_KEY_MAX], value[16];
    i->ctime_ns = (int64_t)u->now_ns;
    i->nlink = directory ? 0 : i->nlink - 1;
    if (i->nlink) {
        put_inode(u, i);
        return LINK_LEFT;
    }
    if (!held && !i->xattr_count && !i->entries && !(i->flags & INODE_HAS_EXTENTS)) {
        if (i->flags & INODE_HAS_INLINE)
            inline_drop(u, i);
        put_no_inode(u, i);
        m->now.inodes--;
        m->now.directories -= directory;
        m->now.bytes -= i->size;
        return i->base_version || i->epoch ? LINK_GONE : LINK_NEVER;
    }
    i->flags |= INODE_ORPHAN;
    put_inode(u, i);
    put_row(u, META_TABLE_orphan, key_of(key, meta_key_id(META_TABLE_orphan, i->id, key)),
            key_of(value, meta_u64_encode(u->now_ns, value)));
    m->now.orphans++;
    if (held)
        handle_set_orphan(&m->sessions, i->id); /* or the walk that begins with purging finds it */
    else
        purge_wanted(m, i->id);
    return LINK_ORPHAN;
}

/* --- answers ------------------------------------------------------------------------------------------------------------ */

void attr_fill(struct rec_attr *a, const struct meta_inode *i)
{
    *a = (struct rec_attr){
        .inode = i->id,
        .mode = i->mode,
        .nlink = i->nlink,
        .uid = i->uid,
        .gid = i->gid,
        .rdev = i->rdev,
        .size = i->size,
        .blocks = S_ISREG(i->mode) ? (i->size + 511) / 512 : 0,
        .atime_ns = (uint64_t)i->atime_ns,
        .mtime_ns = (uint64_t)i->mtime_ns,
        .ctime_ns = (uint64_t)i->ctime_ns,
        .btime_ns = (uint64_t)i->btime_ns,
        .version = i->change,
        .flags = i->flags | (i->xattr_count ? INODE_HAS_XATTR : 0),
    };
}
