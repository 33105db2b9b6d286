/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Permissions, as Linux checks them in its virtual file system (path_resolution(7), chmod(2), chown(2), unlink(2)). Root is
 * uid 0 with all capabilities. Mode bits only; access control lists are not kept.
 */
#include "meta/meta_core.h"

bool in_group(const struct meta_caller *c, uint32_t gid)
{
    if (c->gid == gid)
        return true;
    for (uint32_t i = 0; i < c->group_count; i++)
        if (get_le32(c->groups + 4 * i) == gid)
            return true;
    return false;
}

int may(const struct meta_caller *c, const struct meta_inode *i, int mask)
{
    if (is_root(c)) /* everything, but executing a file needs one x at least */
        return mask & MAY_EXEC && !S_ISDIR(i->mode) && !(i->mode & 0111) ? -EACCES : 0;
    uint32_t bits = c->uid == i->uid ? i->mode >> 6 : in_group(c, i->gid) ? i->mode >> 3 : i->mode;
    return ((uint32_t)mask & ~bits & 7) ? -EACCES : 0;
}

int may_delete(const struct meta_caller *c, const struct meta_inode *parent, const struct meta_inode *victim,
               bool is_dir)
{
    int r = may(c, parent, MAY_WRITE | MAY_EXEC);
    if (r < 0)
        return r;
    if (parent->mode & S_ISVTX && !is_root(c) && c->uid != victim->uid && c->uid != parent->uid)
        return -EPERM;
    if (is_dir && !S_ISDIR(victim->mode))
        return -ENOTDIR;
    if (is_dir && victim->id == META_ROOT)
        return -EBUSY;
    return !is_dir && S_ISDIR(victim->mode) ? -EISDIR : 0;
}

/* --- after a write --------------------------------------------------------------------------------------------------------- */

uint32_t mode_after_write(const struct meta_caller *c, const struct meta_inode *i)
{
    uint32_t mode = i->mode;
    if (is_root(c) || !S_ISREG(mode))
        return mode;
    mode &= ~(uint32_t)S_ISUID;
    return mode & S_IXGRP ? mode & ~(uint32_t)S_ISGID : mode;
}

static struct text capability_name(void)
{
    return TEXT("security.capability");
}

int see_capability(struct run *u, const struct meta_inode *i)
{
    uint8_t key[META_KEY_MAX];
    struct text value;
    if (!i->xattr_count || !S_ISREG(i->mode))
        return -ENOENT;
    return see_row(u, META_TABLE_xattr, key_of(key, meta_key_xattr(i->id, capability_name(), key)), &value);
}

void put_no_capability(struct run *u, struct meta_inode *i)
{
    uint8_t key[META_KEY_MAX];
    put_no_row(u, META_TABLE_xattr, key_of(key, meta_key_xattr(i->id, capability_name(), key)));
    i->xattr_count--;
    i->xattr_name_bytes -= capability_name().n + 1;
}
