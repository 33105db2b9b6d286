/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes: user., trusted. and security. (xattr(7)). How many an inode has, and how long their names are
 * together, stands in its row: most inodes have none, and that is answered without looking further.
 */
#include "meta/meta_op.h"

enum { CREATE = 1, REPLACE = 2 };
enum name_space { SPACE_USER, SPACE_TRUSTED, SPACE_SECURITY };

static int space_of(struct text name, enum name_space *ret)
{
    static const struct {
        struct text prefix;
        enum name_space space;
    } spaces[] = {{{"user.", 5}, SPACE_USER}, {{"trusted.", 8}, SPACE_TRUSTED}, {{"security.", 9}, SPACE_SECURITY}};
    if (name.n == 0 || name.n > META_NAME_MAX)
        return -ERANGE;
    for (size_t i = 0; i < array_size(spaces); i++) {
        struct text p = spaces[i].prefix;
        if (name.n < p.n || memcmp(name.p, p.p, p.n) != 0)
            continue;
        if (name.n == p.n || memchr(name.p, 0, name.n))
            return -EINVAL;
        *ret = spaces[i].space;
        return 0;
    }
    return -EOPNOTSUPP;
}

/* Linux, xattr_permission(): user. on files and directories only, by their mode; trusted. for root alone. */
static int may_xattr(const struct meta_caller *c, const struct meta_inode *i, enum name_space space, bool write)
{
    switch (space) {
    case SPACE_TRUSTED: return is_root(c) ? 0 : write ? -EPERM : -ENODATA;
    case SPACE_SECURITY: return write && !is_root(c) ? -EPERM : 0;
    default: break;
    }
    if (!S_ISREG(i->mode) && !S_ISDIR(i->mode))
        return write ? -EPERM : -ENODATA;
    if (write && S_ISDIR(i->mode) && i->mode & S_ISVTX && c->uid != i->uid && !is_root(c))
        return -EPERM;
    return may(c, i, write ? MAY_WRITE : MAY_READ);
}

/* The inode and the attribute, if there is one (-ENODATA). */
static int see_xattr(struct run *u, uint64_t id, struct text name, bool write, struct meta_inode *i, struct text *value)
{
    uint8_t key[META_KEY_MAX];
    enum name_space space;
    int r = see_target(u, id, i);
    if (r == 0)
        r = space_of(name, &space);
    if (r == 0)
        r = may_xattr(&u->q->caller, i, space, write);
    if (r < 0)
        return r;
    if (!i->xattr_count)
        return -ENODATA;
    r = see_row(u, META_TABLE_xattr, key_of(key, meta_key_xattr(id, name, key)), value);
    if (r < 0)
        return r == -ENOENT ? -ENODATA : r;
    if (value->n == 0 || (uint8_t)value->p[0] != META_ROW_VERSION)
        return value->n && (uint8_t)value->p[0] > META_ROW_VERSION ? -CV_FORMAT_TOO_NEW : -CV_BAD_FORMAT;
    *value = (struct text){value->p + 1, value->n - 1};
    return 0;
}

int op_getxattr(struct run *u)
{
    const struct msg_getxattr *msg = &u->q->message.getxattr;
    struct meta_inode i;
    struct text value;
    int r = see_xattr(u, msg->inode, msg->name, false, &i, &value);
    if (r == 0)
        r = buf_append(&u->q->data, value.p, value.n);
    if (r == 0)
        u->q->answer.getxattr.value = (struct text){(const char *)u->q->data.p, value.n};
    return r;
}

int op_listxattr(struct run *u)
{
    struct meta_inode i;
    struct scan s;
    struct text k, value;
    uint8_t key[META_KEY_MAX];
    struct buf *names = &u->q->data;
    uint64_t id = u->q->message.listxattr.inode;
    int r = see_target(u, id, &i);
    if (r < 0 || !i.xattr_count)
        return r;
    r = scan_init(&s, u, META_TABLE_xattr, key_of(key, meta_key_xattr(id, (struct text){0}, key)), 9, 512, true);
    while (r == 0 && (r = scan_next(&s, &k, &value)) == 0) {
        struct text name = {k.p + 9, k.n - 9};
        enum name_space space;
        if (space_of(name, &space) == 0 && (space != SPACE_TRUSTED || is_root(&u->q->caller))) {
            r = buf_append(names, name.p, name.n);
            if (r == 0)
                r = buf_append(names, "", 1);
        }
    }
    scan_fini(&s);
    u->q->answer.listxattr.names = (struct text){(const char *)names->p, (uint32_t)names->n};
    return r == -ENODATA ? 0 : r;
}

int op_setxattr(struct run *u)
{
    const struct msg_setxattr *msg = &u->q->message.setxattr;
    struct meta_inode i;
    struct text old;
    uint8_t key[META_KEY_MAX];
    if (msg->flags & ~(uint32_t)(CREATE | REPLACE))
        return -EINVAL;
    if (msg->value.n > META_XATTR_MAX)
        return -E2BIG;
    int r = see_xattr(u, msg->inode, msg->name, true, &i, &old);
    bool has = r == 0;
    if (r < 0 && r != -ENODATA)
        return r;
    if (has && msg->flags & CREATE)
        return -EEXIST;
    if (!has && msg->flags & REPLACE)
        return -ENODATA;
    if (!has && i.xattr_name_bytes + msg->name.n + 1 > META_XATTR_MAX)
        return -ENOSPC;
    if (u->dry)
        return 0;
    r = put_reserve(u, 2, PUT_INODE_BYTES + PUT_NAME_BYTES + msg->value.n + 1);
    if (r == 0)
        r = buf_reserve(&u->q->data, msg->value.n + 1);
    if (r < 0)
        return r;
    const uint8_t version = META_ROW_VERSION;
    buf_append(&u->q->data, &version, 1);
    buf_append(&u->q->data, msg->value.p, msg->value.n);
    put_row(u, META_TABLE_xattr, key_of(key, meta_key_xattr(i.id, msg->name, key)),
            key_of(u->q->data.p, (uint32_t)u->q->data.n));
    i.xattr_count += !has;
    i.xattr_name_bytes += has ? 0 : msg->name.n + 1;
    i.ctime_ns = (int64_t)u->now_ns;
    put_inode(u, &i);
    put_op(u, REDO_setxattr, i.id, 0, msg->value.n);
    u->result.inode = i.id;
    return 0;
}

int op_removexattr(struct run *u)
{
    const struct msg_removexattr *msg = &u->q->message.removexattr;
    struct meta_inode i;
    struct text old;
    uint8_t key[META_KEY_MAX];
    int r = see_xattr(u, msg->inode, msg->name, true, &i, &old);
    if (r < 0 || u->dry)
        return r;
    r = put_reserve(u, 2, PUT_INODE_BYTES + PUT_NAME_BYTES);
    if (r < 0)
        return r;
    put_no_row(u, META_TABLE_xattr, key_of(key, meta_key_xattr(i.id, msg->name, key)));
    i.xattr_count--;
    i.xattr_name_bytes -= msg->name.n + 1;
    i.ctime_ns = (int64_t)u->now_ns;
    put_inode(u, &i);
    put_op(u, REDO_removexattr, i.id, 0, 0);
    u->result.inode = i.id;
    return 0;
}
