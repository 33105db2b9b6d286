/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key of a file or directory in its under file system, put together on the way up: ufs_at is its name there, within its
 * parent's key, "/" when that is empty ("a//b", "a/"); or '/' and its whole key within the mount, since it was moved here
 * and not there.
 */
#include "meta/meta_core.h"

#define KEY_BYTES_MAX 4096u

#define KEY_DEPTH_MAX 1024u

/* Put the part in front of what stands at *at. */
static bool prepend(char *key, uint32_t *at, struct text part, bool slash)
{
    if (*at < part.n + slash)
        return false;
    if (slash)
        key[--*at] = '/';
    *at -= part.n;
    memcpy(key + *at, part.p, part.n);
    return true;
}

static bool is_whole(struct text at)
{
    return at.n > 1 && at.p[0] == '/';
}

int origin_key(struct run *u, const struct meta_inode *i, char key[META_ORIGIN_KEY_MAX], struct text *ret)
{
    const struct kept_row *mount = kept_find(&u->m->mounts, i->mount);
    uint32_t at = KEY_BYTES_MAX, mark = see_mark(u);
    struct meta_inode n = *i;
    if (!has_ufs(u, i->mount))
        return -ENOENT;
    for (uint32_t depth = 0; n.id != mount->mount.inode; depth++) {
        struct text part = n.ufs_at;
        bool whole = is_whole(part);
        if (!part.n)
            return -ENODATA; /* made here */
        if (part.p[0] == '/')
            part = (struct text){part.p + 1, part.n - 1};
        if (depth > KEY_DEPTH_MAX || !prepend(key, &at, part, depth > 0))
            return -ENAMETOOLONG;
        if (whole)
            break;
        int r = see_inode(u, n.parent, &n);
        see_release(u, mark);
        if (r < 0)
            return r == -ENOENT ? -ENODATA : r;
    }
    *ret = (struct text){key + at, KEY_BYTES_MAX - at};
    return 0;
}

int origin_pin(struct run *u, struct meta_inode *i, char key[META_ORIGIN_KEY_MAX])
{
    struct text at;
    if (!i->ufs_at.n || is_whole(i->ufs_at) || !has_ufs(u, i->mount))
        return 0;
    int r = origin_key(u, i, key, &at);
    if (r < 0)
        return r == -ENODATA ? 0 : r;
    if (at.n + 1 > META_UFS_AT_MAX)
        return -ENAMETOOLONG;
    memmove(key + 1, at.p, at.n);
    key[0] = '/';
    i->ufs_at = (struct text){key, at.n + 1};
    return 0;
}
