/* SPDX-License-Identifier: Apache-2.0 */
/* Names: looking up, making, removing. Renaming has its own file. */
#include <dirent.h>

#include "meta/meta_op.h"

int op_lookup(struct run *u)
{
    const struct msg_lookup *msg = &u->q->message.lookup;
    struct msg_lookup_answer *a = &u->q->answer.lookup;
    struct meta_inode dir, i;
    int r = see_directory(u, msg->parent, &dir);
    if (r == 0)
        r = see_old_name(u, &dir, msg->name, &i);
    a->parent = msg->parent;
    a->lease_ms = u->m->options.lease_ms;
    if (r < 0)
        return r;
    a->parent_change = dir.change;
    attr_fill(&a->attr, &i);
    return 0;
}

/* The next component of a path; false at its end. */
static bool component(struct text *path, struct text *ret)
{
    while (path->n && *path->p == '/')
        path->p++, path->n--;
    uint32_t n = 0;
    while (n < path->n && path->p[n] != '/')
        n++;
    *ret = (struct text){path->p, n};
    path->p += n;
    path->n -= n;
    return n > 0;
}

int op_walk(struct run *u)
{
    const struct msg_walk *msg = &u->q->message.walk;
    struct msg_walk_answer *a = &u->q->answer.walk;
    struct text path = msg->path, name;
    struct meta_inode i, next;
    if (path.n > 4096)
        return -ENAMETOOLONG;
    int r = see_target(u, msg->start, &i);
    while (r == 0 && component(&path, &name)) {
        if (S_ISLNK(i.mode)) { /* in the middle: the client goes on from where it points */
            path = (struct text){name.p, path.n + (uint32_t)(path.p - name.p)};
            break;
        }
        if (!S_ISDIR(i.mode))
            return -ENOTDIR;
        see_release(u, 0);
        u->q->acks = 0; /* of the last directory, and what is there */
        r = see_old_name(u, &i, name, &next);
        if (r == 0) {
            a->parent = i.id;
            i = next;
        }
    }
    if (r < 0)
        return r;
    attr_fill(&a->attr, &i);
    a->rest = path;
    a->target = i.target;
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

/* --- making --------------------------------------------------------------------------------------------------------------- */

static int make(struct run *u, uint64_t parent, const struct new_node *n, enum redo_kind kind, struct rec_attr *attr,
                struct rec_attr *parent_attr)
{
    struct meta_inode dir, i;
    int r = see_new_name(u, parent, n->name, &dir);
    if (r == 0 && S_ISDIR(n->mode) && dir.nlink >= META_NLINK_MAX)
        r = -EMLINK;
    if (r < 0 || u->dry)
        return r;
    r = ids_left(u, 1);
    if (r == 0)
        r = put_reserve(u, NEW_NODE_ROWS, 2 * PUT_INODE_BYTES + PUT_NAME_BYTES);
    if (r < 0)
        return r;
    put_new_node(u, &dir, n, &i);
    put_op(u, kind, i.id, dir.id, 0);
    attr_fill(attr, &i);
    attr_fill(parent_attr, &dir);
    return 0;
}

int op_mkdir(struct run *u)
{
    const struct msg_mkdir *msg = &u->q->message.mkdir;
    struct msg_mkdir_answer *a = &u->q->answer.mkdir;
    const struct new_node n = {.name = msg->name, .mode = S_IFDIR | (msg->mode & ~msg->umask & 01777)};
    a->lease_ms = u->m->options.lease_ms;
    return make(u, msg->parent, &n, REDO_mkdir, &a->attr, &a->parent);
}

int op_mknod(struct run *u)
{
    const struct msg_mknod *msg = &u->q->message.mknod;
    struct msg_mknod_answer *a = &u->q->answer.mknod;
    uint32_t type = msg->mode & S_IFMT ? msg->mode & S_IFMT : S_IFREG;
    bool device = type == S_IFCHR || type == S_IFBLK;
    if (type == S_IFDIR)
        return -EPERM;
    if (device && !is_root(&u->q->caller)) {
        struct meta_inode dir;
        int r = see_new_name(u, msg->parent, msg->name, &dir);
        return r < 0 ? r : -EPERM;
    }
    if (!device && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        return -EINVAL;
    const struct new_node n = {
        .name = msg->name, .mode = type | (msg->mode & ~msg->umask & 07777), .rdev = device ? msg->rdev : 0};
    a->lease_ms = u->m->options.lease_ms;
    return make(u, msg->parent, &n, REDO_mknod, &a->attr, &a->parent);
}

int op_symlink(struct run *u)
{
    const struct msg_symlink *msg = &u->q->message.symlink;
    struct msg_symlink_answer *a = &u->q->answer.symlink;
    if (msg->target.n == 0 || memchr(msg->target.p, 0, msg->target.n))
        return msg->target.n ? -EINVAL : -ENOENT;
    if (msg->target.n > META_TARGET_MAX)
        return -ENAMETOOLONG;
    const struct new_node n = {.name = msg->name, .mode = S_IFLNK | 0777, .target = msg->target};
    a->lease_ms = u->m->options.lease_ms;
    return make(u, msg->parent, &n, REDO_symlink, &a->attr, &a->parent);
}

int op_link(struct run *u)
{
    const struct msg_link *msg = &u->q->message.link;
    struct msg_link_answer *a = &u->q->answer.link;
    struct meta_inode i, dir;
    char key[META_ORIGIN_KEY_MAX];
    int r = see_target(u, msg->inode, &i), e = see_new_name(u, msg->parent, msg->name, &dir);
    if (r < 0 || e < 0)
        return r < 0 ? r : e;
    if (S_ISDIR(i.mode))
        return -EPERM;
    if (i.mount != dir.mount)
        return -EXDEV;
    if (i.nlink == 0)
        return -ENOENT;
    if (i.nlink >= META_NLINK_MAX)
        return -EMLINK;
    r = origin_pin(u, &i, key); /* its first name, and that one's directory, may go */
    if (r < 0 || u->dry)
        return r;
    r = put_reserve(u, 3, 2 * PUT_INODE_BYTES + PUT_NAME_BYTES);
    if (r < 0)
        return r;
    i.nlink++;
    i.ctime_ns = (int64_t)u->now_ns;
    directory_changed(u, &dir, 1, 0);
    put_inode(u, &i);
    put_inode(u, &dir);
    put_name(u, dir.id, msg->name, i.id, (uint8_t)IFTODT(i.mode));
    put_op(u, REDO_link, i.id, dir.id, 0);
    u->result.inode = i.id;
    u->result.other = dir.id;
    attr_fill(&a->attr, &i);
    attr_fill(&a->parent, &dir);
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

/* --- removing ------------------------------------------------------------------------------------------------------------- */

static int removing(struct run *u, uint64_t parent, struct text name, bool is_dir, struct rec_attr *attr,
                    struct rec_attr *parent_attr)
{
    struct meta_inode dir, i;
    int r = see_directory(u, parent, &dir);
    if (r == 0 && read_only(u, dir.mount))
        r = -CV_READ_ONLY_MOUNT;
    if (r == 0)
        r = see_old_name(u, &dir, name, &i);
    if (r == 0 && i.mount != dir.mount)
        r = -EBUSY; /* a mount begins there */
    if (r == 0)
        r = may_delete(&u->q->caller, &dir, &i, is_dir);
    if (r == 0 && is_dir && i.entries)
        r = -ENOTEMPTY;
    if (r == 0 && is_dir) /* it may have names there */
        r = not_all_here(u, &i);
    if (r < 0 || u->dry)
        return r;
    r = put_reserve(u, 2 + DROP_LINK_ROWS, 2 * PUT_INODE_BYTES + 2 * PUT_NAME_BYTES);
    if (r < 0)
        return r;
    directory_changed(u, &dir, -1, -is_dir);
    put_name(u, dir.id, name, 0, 0);
    put_inode(u, &dir);
    int left = drop_link(u, &i);
    put_op(u, is_dir ? REDO_rmdir : REDO_unlink, i.id, dir.id, (uint64_t)left);
    u->result.inode = i.id;
    u->result.other = dir.id;
    attr_fill(attr, &i);
    attr_fill(parent_attr, &dir);
    return 0;
}

int op_unlink(struct run *u)
{
    const struct msg_unlink *msg = &u->q->message.unlink;
    struct msg_unlink_answer *a = &u->q->answer.unlink;
    return removing(u, msg->parent, msg->name, false, &a->attr, &a->parent);
}

int op_rmdir(struct run *u)
{
    const struct msg_rmdir *msg = &u->q->message.rmdir;
    struct msg_rmdir_answer *a = &u->q->answer.rmdir;
    return removing(u, msg->parent, msg->name, true, &a->attr, &a->parent);
}
