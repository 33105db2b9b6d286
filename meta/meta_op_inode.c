/* SPDX-License-Identifier: Apache-2.0 */
/* Inodes: attributes, access, the target of a symlink, the file system's figures. */
#include "meta/meta_op.h"
#include "wire/meta_flags.h"

int op_getattr(struct run *u)
{
    struct msg_getattr_answer *a = &u->q->answer.getattr;
    struct meta_inode i;
    int r = see_target(u, u->q->message.getattr.inode, &i);
    if (r < 0)
        return r;
    attr_fill(&a->attr, &i);
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

int op_access(struct run *u)
{
    const struct msg_access *msg = &u->q->message.access;
    struct meta_inode i;
    if (msg->mask & ~7u)
        return -EINVAL;
    int r = see_target(u, msg->inode, &i);
    if (r < 0)
        return r;
    bool special = !S_ISREG(i.mode) && !S_ISDIR(i.mode) && !S_ISLNK(i.mode);
    if (msg->mask & MAY_WRITE && !special && read_only(u, i.mount))
        return -CV_READ_ONLY_MOUNT;
    return may(&u->q->caller, &i, (int)msg->mask);
}

int op_readlink(struct run *u)
{
    struct meta_inode i;
    int r = see_target(u, u->q->message.readlink.inode, &i);
    if (r == 0 && !S_ISLNK(i.mode))
        r = -EINVAL;
    if (r == 0)
        u->q->answer.readlink.target = i.target;
    return r;
}

int op_statfs(struct run *u)
{
    struct msg_statfs_answer *a = &u->q->answer.statfs;
    a->inodes = u->m->state.inodes;
    a->free_inodes = META_ID_LIMIT - u->m->id_limit;
    a->name_max = META_NAME_MAX;
    return 0;
}

/* --- setattr -------------------------------------------------------------------------------------------------------------- */

static int check_size(struct run *u, const struct msg_setattr *msg, const struct meta_inode *i)
{
    if (S_ISDIR(i->mode))
        return -EISDIR;
    if (!S_ISREG(i->mode))
        return -EINVAL;
    if (read_only(u, i->mount))
        return -CV_READ_ONLY_MOUNT;
    if (msg->size > FILE_BYTES_MAX)
        return -EFBIG;
    /* a handle opened for writing lets its owner truncate, whatever the mode has become (ftruncate(2)) */
    return write_handle(u, msg->handle, i->id) ? 0 : may(&u->q->caller, i, MAY_WRITE);
}

static int check_owner(const struct meta_caller *c, const struct msg_setattr *msg, const struct meta_inode *i)
{
    bool owner = c->uid == i->uid;
    if (is_root(c))
        return 0;
    if (msg->valid & SETATTR_UID && !(owner && msg->uid == i->uid))
        return -EPERM;
    if (msg->valid & SETATTR_GID && !(owner && (msg->gid == i->gid || in_group(c, msg->gid))))
        return -EPERM;
    return msg->valid & SETATTR_MODE && !owner ? -EPERM : 0;
}

static int check_times(const struct meta_caller *c, const struct msg_setattr *msg, const struct meta_inode *i)
{
    uint32_t v = msg->valid;
    bool given = (v & SETATTR_ATIME && !(v & SETATTR_ATIME_NOW)) || (v & SETATTR_MTIME && !(v & SETATTR_MTIME_NOW));
    if (!(v & (SETATTR_ATIME | SETATTR_MTIME)) || is_root(c) || c->uid == i->uid)
        return 0;
    if (given)
        return -EPERM;
    return v & SETATTR_SIZE ? 0 : may(c, i, MAY_WRITE); /* to now: whoever may write */
}

static void set_owner(struct run *u, const struct msg_setattr *msg, struct meta_inode *i)
{
    if (msg->valid & SETATTR_UID)
        i->uid = msg->uid;
    if (msg->valid & SETATTR_GID)
        i->gid = msg->gid;
    if (S_ISDIR(i->mode))
        return;
    i->mode &= ~(uint32_t)S_ISUID; /* for root too, as Linux does */
    if (i->mode & S_IXGRP || (!is_root(&u->q->caller) && !in_group(&u->q->caller, i->gid)))
        i->mode &= ~(uint32_t)S_ISGID;
}

static void set_mode(struct run *u, uint32_t mode, struct meta_inode *i)
{
    i->mode = (i->mode & S_IFMT) | (mode & 07777);
    if (!is_root(&u->q->caller) && !in_group(&u->q->caller, i->gid))
        i->mode &= ~(uint32_t)S_ISGID;
}

static void set_times(struct run *u, const struct msg_setattr *msg, struct meta_inode *i)
{
    if (msg->valid & SETATTR_ATIME)
        i->atime_ns = (int64_t)(msg->valid & SETATTR_ATIME_NOW ? u->now_ns : msg->atime_ns);
    if (msg->valid & SETATTR_MTIME)
        i->mtime_ns = (int64_t)(msg->valid & SETATTR_MTIME_NOW ? u->now_ns : msg->mtime_ns);
}

/* What stays of the inline content, for the answer; before the row is changed. */
static int keep_inline(struct run *u, const struct cut *c)
{
    u->q->data.n = 0;
    return c->inlined.n ? buf_append(&u->q->data, c->inlined.p, min((uint64_t)c->inlined.n, c->size)) : 0;
}

/* Where the end lies now. */
static int size_answer(struct run *u, const struct meta_inode *i, const struct cut *c, struct rec_layout *l)
{
    layout_head(u, i, true, l);
    l->first_block = c->boundary;
    if (c->inlined.n) {
        l->inline_data = key_of(u->q->data.p, (uint32_t)u->q->data.n);
        return 0;
    }
    int r = c->has_boundary ? extent_append(u, c->boundary, &c->extent) : 0;
    l->extents = wire_list_of(&u->q->data, c->has_boundary);
    return r;
}

int op_setattr(struct run *u)
{
    const struct msg_setattr *msg = &u->q->message.setattr;
    struct msg_setattr_answer *a = &u->q->answer.setattr;
    const struct meta_caller *c = &u->q->caller;
    uint32_t v = msg->valid;
    struct meta_inode i;
    struct cut cut = {0};
    if (v & ~(uint32_t)SETATTR_ALL)
        return -EINVAL;
    int r = see_target(u, msg->inode, &i);
    if (r == 0 && v & SETATTR_SIZE)
        r = check_size(u, msg, &i);
    if (r == 0)
        r = check_owner(c, msg, &i);
    if (r == 0)
        r = check_times(c, msg, &i);
    if (r == 0 && v & SETATTR_SIZE)
        r = cut_see(u, &i, msg->size, &cut);
    if (r < 0)
        return r;
    int capability = cut.capability ? 0 : v & (SETATTR_UID | SETATTR_GID) ? see_capability(u, &i) : -ENOENT;
    if (capability < 0 && capability != -ENOENT)
        return capability;
    if (u->dry)
        return 0;
    if (v) {
        r = cut_reserve(u, &cut, 2, PUT_INODE_BYTES + PUT_NAME_BYTES);
        r = r ? r : keep_inline(u, &cut);
        if (r < 0)
            return r;
        if (v & SETATTR_SIZE)
            cut_put(u, &i, &cut);
        if (v & (SETATTR_UID | SETATTR_GID))
            set_owner(u, msg, &i);
        if (v & SETATTR_MODE)
            set_mode(u, msg->mode, &i);
        set_times(u, msg, &i);
        if (v & (SETATTR_UID | SETATTR_GID | SETATTR_MODE) && i.mount)
            i.flags |= INODE_LOCAL_ATTRS;
        if (capability == 0 && !cut.capability)
            put_no_capability(u, &i);
        i.ctime_ns = (int64_t)u->now_ns;
        put_inode(u, &i);
        put_op(u, REDO_setattr, i.id, v, 0);
    }
    u->result.inode = i.id;
    attr_fill(&a->attr, &i);
    a->lease_ms = u->m->options.lease_ms;
    return v & SETATTR_SIZE ? size_answer(u, &i, &cut, &a->layout) : 0;
}
