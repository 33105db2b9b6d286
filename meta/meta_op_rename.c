/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rename(2) with RENAME_NOREPLACE and RENAME_EXCHANGE. The checks come in the order of Linux (do_renameat2, vfs_rename), so
 * that a call wrong in two ways gives the same error here. Up to four inodes change: the moved one, the replaced (or
 * exchanged) one, and both directories; a row shared by two of these roles is worked on once.
 */
#include <dirent.h>

#include "meta/meta_op.h"

enum { NOREPLACE = 1, EXCHANGE = 2 };

struct rename {
    struct run *u;
    const struct msg_rename *msg;
    struct meta_inode parent, new_parent_store, moved, other;
    struct meta_inode *new_parent; /* &parent when the same */
    char *moved_at, *other_at;     /* room for their ufs_at */
    bool has_other, exchange;
};

static int see_names(struct rename *n)
{
    struct run *u = n->u;
    const struct msg_rename *msg = n->msg;
    int r = see_directory(u, msg->parent, &n->parent), e = 0;
    if (msg->new_parent == msg->parent)
        n->new_parent = &n->parent;
    else
        e = see_directory(u, msg->new_parent, &n->new_parent_store);
    if (r < 0 || e < 0)
        return r < 0 ? r : e;
    if (n->parent.mount != n->new_parent->mount)
        return -EXDEV;
    if (read_only(u, n->parent.mount))
        return -CV_READ_ONLY_MOUNT;
    r = see_old_name(u, &n->parent, msg->name, &n->moved);
    e = see_old_name(u, n->new_parent, msg->new_name, &n->other);
    n->has_other = e == 0;
    if (r < 0)
        return r;
    if (e < 0 && e != -ENOENT)
        return e;
    if (e == -ENOENT && msg->new_name.n == 0)
        return e;
    if (n->has_other && msg->flags & NOREPLACE)
        return -EEXIST;
    return !n->has_other && n->exchange ? -ENOENT : 0;
}

/* A directory must not come to lie below itself. */
static int check_loops(struct rename *n)
{
    struct run *u = n->u;
    int r;
    if (n->new_parent == &n->parent)
        return 0;
    if (S_ISDIR(n->moved.mode) && (r = is_above(u, n->moved.id, n->new_parent)) != 0)
        return r < 0 ? r : -EINVAL;
    if (n->has_other && S_ISDIR(n->other.mode) && (r = is_above(u, n->other.id, &n->parent)) != 0)
        return r < 0 ? r : n->exchange ? -EINVAL : -ENOTEMPTY;
    return 0;
}

/* Where a mount begins nothing moves, nor above it: its row says its path. */
static int check_mounts(struct rename *n)
{
    struct run *u = n->u;
    int r = 0;
    if (n->moved.mount != n->parent.mount || (n->has_other && n->other.mount != n->parent.mount))
        return -EBUSY;
    if (n->parent.mount || !u->m->mounts.count)
        return 0;
    if (S_ISDIR(n->moved.mode))
        r = is_above_mount(u, n->moved.id);
    if (r == 0 && n->exchange && S_ISDIR(n->other.mode))
        r = is_above_mount(u, n->other.id);
    return r > 0 ? -EBUSY : r;
}

static int check_rights(struct rename *n)
{
    const struct meta_caller *c = &n->u->q->caller;
    bool is_dir = S_ISDIR(n->moved.mode), elsewhere = n->new_parent != &n->parent;
    int r = may_delete(c, &n->parent, &n->moved, is_dir);
    if (r < 0)
        return r;
    if (n->has_other)
        r = may_delete(c, n->new_parent, &n->other, n->exchange ? S_ISDIR(n->other.mode) : is_dir);
    else if (n->new_parent->nlink == 0)
        r = -ENOENT;
    else
        r = may(c, n->new_parent, MAY_WRITE | MAY_EXEC);
    if (r == 0 && elsewhere && is_dir) /* its ".." changes */
        r = may(c, &n->moved, MAY_WRITE);
    if (r == 0 && elsewhere && n->exchange && S_ISDIR(n->other.mode))
        r = may(c, &n->other, MAY_WRITE);
    return r;
}

static int check_room(struct rename *n)
{
    bool is_dir = S_ISDIR(n->moved.mode), other_dir = n->has_other && S_ISDIR(n->other.mode);
    if (!n->exchange && other_dir && n->other.entries)
        return -ENOTEMPTY;
    int r = !n->exchange && other_dir ? not_all_here(n->u, &n->other) : 0;
    if (r < 0)
        return r;
    if (n->new_parent == &n->parent)
        return 0;
    if (is_dir && !other_dir && n->new_parent->nlink >= META_NLINK_MAX)
        return -EMLINK;
    return n->exchange && other_dir && !is_dir && n->parent.nlink >= META_NLINK_MAX ? -EMLINK : 0;
}

/* Under another parent, ufs_at must say all of the key. */
static int pin_origins(struct rename *n)
{
    if (n->new_parent == &n->parent)
        return 0;
    int r = origin_pin(n->u, &n->moved, n->moved_at);
    return r == 0 && n->exchange ? origin_pin(n->u, &n->other, n->other_at) : r;
}

static void move_to(struct run *u, struct meta_inode *i, const struct meta_inode *from, const struct meta_inode *to)
{
    i->ctime_ns = (int64_t)u->now_ns;
    if (i->parent == from->id)
        i->parent = to->id;
}

static int rename_put(struct rename *n)
{
    struct run *u = n->u;
    const struct msg_rename *msg = n->msg;
    bool is_dir = S_ISDIR(n->moved.mode), other_dir = n->has_other && S_ISDIR(n->other.mode);
    uint64_t replaced = n->has_other && !n->exchange ? n->other.id : 0;
    int left = LINK_LEFT;
    move_to(u, &n->moved, &n->parent, n->new_parent);
    if (n->exchange) {
        move_to(u, &n->other, n->new_parent, &n->parent);
        directory_changed(u, &n->parent, 0, other_dir - is_dir);
        directory_changed(u, n->new_parent, 0, is_dir - other_dir);
        put_name(u, n->parent.id, msg->name, n->other.id, (uint8_t)IFTODT(n->other.mode));
        put_inode(u, &n->other);
    } else {
        directory_changed(u, &n->parent, -1, -is_dir);
        directory_changed(u, n->new_parent, n->has_other ? 0 : 1, is_dir - other_dir);
        put_name(u, n->parent.id, msg->name, 0, 0);
        if (n->has_other)
            left = drop_link(u, &n->other);
    }
    put_name(u, n->new_parent->id, msg->new_name, n->moved.id, (uint8_t)IFTODT(n->moved.mode));
    put_inode(u, &n->moved);
    put_inode(u, &n->parent);
    if (n->new_parent != &n->parent)
        put_inode(u, n->new_parent);
    put_op(u, REDO_rename, n->moved.id, n->new_parent->id, replaced);
    if (replaced)
        put_op(u, other_dir ? REDO_rmdir : REDO_unlink, replaced, n->new_parent->id, (uint64_t)left);
    return 0;
}

int op_rename(struct run *u)
{
    struct msg_rename_answer *a = &u->q->answer.rename;
    char moved_at[META_ORIGIN_KEY_MAX], other_at[META_ORIGIN_KEY_MAX];
    struct rename n = {.u = u, .msg = &u->q->message.rename, .moved_at = moved_at, .other_at = other_at};
    n.new_parent = &n.new_parent_store;
    n.exchange = n.msg->flags & EXCHANGE;
    if (n.msg->flags & ~(uint32_t)(NOREPLACE | EXCHANGE) || (n.exchange && n.msg->flags & NOREPLACE))
        return -EINVAL;
    int r = see_names(&n);
    if (r == 0)
        r = check_loops(&n);
    if (r < 0)
        return r;
    bool same = n.has_other && n.moved.id == n.other.id; /* two names of one inode: nothing happens */
    if (!same && (r = check_rights(&n)) == 0)
        r = check_room(&n);
    if (!same && r == 0)
        r = check_mounts(&n);
    if (!same && r == 0)
        r = pin_origins(&n);
    if (r < 0 || u->dry)
        return r;
    if (!same) {
        r = put_reserve(u, 6 + DROP_LINK_ROWS, 4 * PUT_INODE_BYTES + 3 * PUT_NAME_BYTES);
        if (r < 0)
            return r;
        rename_put(&n);
    }
    u->result.inode = n.moved.id;
    attr_fill(&a->attr, &n.moved);
    if (n.has_other && !same) {
        u->result.other = n.other.id;
        attr_fill(&a->replaced, &n.other);
    }
    attr_fill(&a->parent, &n.parent);
    attr_fill(&a->new_parent, n.new_parent);
    return 0;
}
