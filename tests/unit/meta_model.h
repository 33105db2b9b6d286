/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A POSIX namespace as naive as it gets: arrays and linear searches. What the namespace core is compared with. Written from
 * the manual pages and Linux' order of checks, without a look at the core's own code paths: no rows, no layers, no batches.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/meta_format.h"
#include "wire/meta_flags.h"

struct m_xattr {
    char name[40], value[16];
    uint32_t value_n;
};

struct m_entry {
    char name[256];
    uint64_t id;
};

/* Content: blocks of 4096 bytes. */
#define M_BLOCK  4096u
#define M_BLOCKS 4
struct m_block {
    bool there;
    uint64_t version, epoch; /* epoch 0: changed by a new size, not told since */
    uint32_t valid;
};

struct m_node {
    uint64_t id, parent, size, rdev;
    uint32_t mode, uid, gid, nlink;
    char target[40];
    uint32_t inlined; /* bytes of the file that are inline, all of them `fill` */
    char fill;
    bool extents; /* blocks were granted since it was empty */
    struct m_block blocks[M_BLOCKS];
    struct m_xattr xattrs[6];
    int xattr_count;
    struct m_entry *entries;
    int entry_count;
};

struct model {
    struct m_node *nodes;
    int count;
};

struct m_caller {
    uint32_t uid, gid, group; /* one more group */
};

static struct m_node *m_find(const struct model *m, uint64_t id)
{
    for (int i = 0; i < m->count; i++)
        if (m->nodes[i].id == id)
            return &m->nodes[i];
    return NULL;
}

static struct m_entry *m_entry_find(const struct m_node *d, const char *name)
{
    for (int i = 0; i < d->entry_count; i++)
        if (strcmp(d->entries[i].name, name) == 0)
            return &d->entries[i];
    return NULL;
}

static bool m_is_dir(const struct m_node *n)
{
    return S_ISDIR(n->mode);
}

static bool m_in_group(const struct m_caller *c, uint32_t gid)
{
    return c->gid == gid || c->group == gid;
}

/* mask: r 4, w 2, x 1 */
static int m_may(const struct m_caller *c, const struct m_node *n, uint32_t mask)
{
    uint32_t granted;
    if (c->uid == 0)
        return mask & 1 && !m_is_dir(n) && !(n->mode & 0111) ? -EACCES : 0;
    if (c->uid == n->uid)
        granted = n->mode >> 6;
    else if (m_in_group(c, n->gid))
        granted = n->mode >> 3;
    else
        granted = n->mode;
    return (granted & mask) == mask ? 0 : -EACCES;
}

static int m_name_ok(const char *name)
{
    if (!*name)
        return -ENOENT;
    if (strlen(name) > 255)
        return -ENAMETOOLONG;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strchr(name, '/'))
        return -EINVAL;
    return 0;
}

/* A directory to search, and the name in it. *entry NULL: not there. */
static int m_search(const struct model *m, const struct m_caller *c, uint64_t parent, const char *name,
                    struct m_node **dir, struct m_entry **entry)
{
    int r;
    *dir = m_find(m, parent);
    if (!*dir)
        return -ESTALE;
    if (!m_is_dir(*dir))
        return -ENOTDIR;
    if ((r = m_may(c, *dir, 1)) < 0 || (r = m_name_ok(name)) < 0)
        return r;
    *entry = m_entry_find(*dir, name);
    return 0;
}

static int m_lookup(const struct model *m, const struct m_caller *c, uint64_t parent, const char *name, uint64_t *ret)
{
    struct m_node *d;
    struct m_entry *e;
    int r = m_search(m, c, parent, name, &d, &e);
    if (r < 0)
        return r;
    if (!e)
        return -ENOENT;
    *ret = e->id;
    return 0;
}

static void m_entry_add(struct m_node *d, const char *name, uint64_t id)
{
    d->entries = realloc(d->entries, (size_t)(d->entry_count + 1) * sizeof(*d->entries));
    struct m_entry *e = &d->entries[d->entry_count++];
    memset(e, 0, sizeof(*e));
    strcpy(e->name, name);
    e->id = id;
}

static void m_entry_drop(struct m_node *d, const char *name)
{
    struct m_entry *e = m_entry_find(d, name);
    *e = d->entries[--d->entry_count];
}

static void m_remove_node(struct model *m, uint64_t id)
{
    struct m_node *n = m_find(m, id);
    free(n->entries);
    *n = m->nodes[--m->count];
}

/* May a name be made here? */
static int m_may_make(const struct model *m, const struct m_caller *c, uint64_t parent, const char *name,
                      struct m_node **dir)
{
    struct m_entry *e;
    int r = m_search(m, c, parent, name, dir, &e);
    if (r < 0)
        return r;
    if (e)
        return -EEXIST;
    if ((*dir)->nlink == 0)
        return -ENOENT;
    return m_may(c, *dir, 3);
}

/* id: what the core called it. mode with type, umask applied. */
static int m_make(struct model *m, const struct m_caller *c, uint64_t parent, const char *name, uint32_t mode,
                  uint64_t rdev, const char *target, uint64_t id, bool dry)
{
    struct m_node *d;
    int r = m_may_make(m, c, parent, name, &d);
    if (r < 0 || dry)
        return r;
    struct m_node n = {
        .id = id, .parent = parent, .mode = mode, .uid = c->uid, .gid = c->gid, .nlink = 1, .rdev = rdev};
    if (target) {
        strcpy(n.target, target);
        n.size = strlen(target);
    }
    if (d->mode & S_ISGID) {
        n.gid = d->gid;
        if (S_ISDIR(mode))
            n.mode |= S_ISGID;
        else if (mode & S_ISGID && mode & S_IXGRP && c->uid != 0 && !m_in_group(c, n.gid))
            n.mode &= ~(uint32_t)S_ISGID;
    }
    if (S_ISDIR(mode)) {
        n.nlink = 2;
        d->nlink++;
    }
    m_entry_add(d, name, id);
    m->nodes = realloc(m->nodes, (size_t)(m->count + 1) * sizeof(n));
    m->nodes[m->count++] = n;
    return 0;
}

static int m_may_remove(const struct m_caller *c, const struct m_node *dir, const struct m_node *victim, bool want_dir)
{
    int r = m_may(c, dir, 3);
    if (r < 0)
        return r;
    if (dir->mode & S_ISVTX && c->uid != 0 && victim->uid != c->uid && dir->uid != c->uid)
        return -EPERM;
    if (want_dir)
        return m_is_dir(victim) ? 0 : -ENOTDIR;
    return m_is_dir(victim) ? -EISDIR : 0;
}

static int m_link(struct model *m, const struct m_caller *c, uint64_t id, uint64_t parent, const char *name)
{
    struct m_node *n = m_find(m, id), *d;
    if (!n)
        return -ESTALE;
    int r = m_may_make(m, c, parent, name, &d);
    if (r < 0)
        return r;
    if (m_is_dir(n))
        return -EPERM;
    if (n->nlink == 0)
        return -ENOENT;
    n->nlink++;
    m_entry_add(d, name, id);
    return 0;
}

/* A node lost a name. kept: somebody has it open, or it has rows of its own to be cleared away first. */
static void m_unref(struct model *m, uint64_t id, bool kept)
{
    struct m_node *n = m_find(m, id);
    n->nlink = m_is_dir(n) ? 0 : n->nlink - 1;
    if (n->nlink == 0 && !kept && n->xattr_count == 0)
        m_remove_node(m, id);
}

static int m_remove(struct model *m, const struct m_caller *c, uint64_t parent, const char *name, bool want_dir,
                    bool (*is_open)(void *, uint64_t), void *arg)
{
    struct m_node *d, *n;
    struct m_entry *e;
    int r = m_search(m, c, parent, name, &d, &e);
    if (r < 0)
        return r;
    if (!e)
        return -ENOENT;
    n = m_find(m, e->id);
    if ((r = m_may_remove(c, d, n, want_dir)) < 0)
        return r;
    if (want_dir && n->entry_count)
        return -ENOTEMPTY;
    uint64_t id = n->id;
    if (want_dir)
        d->nlink--;
    m_entry_drop(d, name);
    m_unref(m, id, is_open(arg, id));
    return 0;
}

static bool m_below(const struct model *m, uint64_t id, uint64_t ancestor)
{
    for (;;) {
        if (id == ancestor)
            return true;
        const struct m_node *n = m_find(m, id);
        if (id == META_ROOT || n->nlink == 0)
            return false;
        id = n->parent;
    }
}

static int m_rename(struct model *m, const struct m_caller *c, uint64_t parent, const char *name, uint64_t new_parent,
                    const char *new_name, uint32_t flags, bool (*is_open)(void *, uint64_t), void *arg)
{
    struct m_node *d = NULL, *nd = NULL;
    struct m_entry *e = NULL, *ne = NULL;
    if (flags > 2)
        return -EINVAL;
    struct m_node *p = m_find(m, parent), *np = m_find(m, new_parent);
    if (!p || !m_is_dir(p))
        return p ? -ENOTDIR : -ESTALE;
    if (!np || !m_is_dir(np))
        return np ? -ENOTDIR : -ESTALE;
    int r = m_search(m, c, parent, name, &d, &e);
    if (r < 0)
        return r;
    if (!e)
        return -ENOENT;
    r = m_search(m, c, new_parent, new_name, &nd, &ne);
    if (r < 0)
        return r;
    if (ne && flags == 1)
        return -EEXIST;
    if (!ne && flags == 2)
        return -ENOENT;
    struct m_node *a = m_find(m, e->id), *b = ne ? m_find(m, ne->id) : NULL;
    if (parent != new_parent && m_is_dir(a) && m_below(m, new_parent, a->id))
        return -EINVAL;
    if (parent != new_parent && b && m_is_dir(b) && m_below(m, parent, b->id))
        return flags == 2 ? -EINVAL : -ENOTEMPTY;
    if (a == b)
        return 0;
    if ((r = m_may_remove(c, d, a, m_is_dir(a))) < 0)
        return r;
    if (b)
        r = m_may_remove(c, nd, b, flags == 2 ? m_is_dir(b) : m_is_dir(a));
    else
        r = nd->nlink == 0 ? -ENOENT : m_may(c, nd, 3);
    if (r == 0 && parent != new_parent && m_is_dir(a))
        r = m_may(c, a, 2);
    if (r == 0 && parent != new_parent && flags == 2 && m_is_dir(b))
        r = m_may(c, b, 2);
    if (r < 0)
        return r;
    if (flags != 2 && b && m_is_dir(b) && b->entry_count)
        return -ENOTEMPTY;
    uint64_t a_id = a->id, b_id = b ? b->id : 0;
    bool a_dir = m_is_dir(a), b_dir = b && m_is_dir(b);
    if (flags == 2) {
        e->id = b_id;
        ne->id = a_id;
        d->nlink += (uint32_t)(b_dir - a_dir);
        nd->nlink += (uint32_t)(a_dir - b_dir);
        if (b_dir)
            b->parent = parent;
    } else {
        m_entry_drop(d, name);
        d->nlink -= a_dir;
        if (b) {
            m_entry_drop(nd, new_name);
            nd->nlink -= b_dir;
        }
        m_entry_add(nd, new_name, a_id);
        nd->nlink += a_dir;
    }
    if (a_dir)
        a->parent = new_parent;
    if (b && flags != 2)
        m_unref(m, b_id, is_open(arg, b_id));
    return 0;
}

static bool m_drop_capability(struct m_node *n)
{
    for (int i = 0; S_ISREG(n->mode) && i < n->xattr_count; i++)
        if (strcmp(n->xattrs[i].name, "security.capability") == 0) {
            n->xattrs[i] = n->xattrs[--n->xattr_count];
            return true;
        }
    return false;
}

static void m_written(const struct m_caller *c, struct m_node *n);

static void m_truncate(const struct m_caller *c, struct m_node *n, uint64_t size)
{
    n->size = size;
    n->inlined = n->inlined < size ? n->inlined : (uint32_t)size;
    for (uint32_t i = 0; i < M_BLOCKS; i++) {
        struct m_block *b = &n->blocks[i];
        uint64_t at = (uint64_t)i * M_BLOCK;
        if (at >= size)
            *b = (struct m_block){0};
        else if (b->there && size < at + M_BLOCK) {
            b->epoch = 0;
            b->valid = b->valid < size - at ? b->valid : (uint32_t)(size - at);
        }
    }
    if (size == 0)
        n->extents = false;
    m_written(c, n);
}

static void m_written(const struct m_caller *c, struct m_node *n)
{
    m_drop_capability(n);
    if (c->uid != 0) {
        n->mode &= ~(uint32_t)S_ISUID;
        if (n->mode & S_IXGRP)
            n->mode &= ~(uint32_t)S_ISGID;
    }
}

static int m_setattr(struct model *m, const struct m_caller *c, uint64_t id, uint32_t valid, uint32_t mode,
                     uint32_t uid, uint32_t gid, uint64_t size, bool by_handle)
{
    struct m_node *n = m_find(m, id);
    int r = 0;
    if (!n)
        return -ESTALE;
    bool owner = c->uid == n->uid, root = c->uid == 0;
    if (valid & SETATTR_SIZE) {
        if (m_is_dir(n))
            return -EISDIR;
        if (!S_ISREG(n->mode))
            return -EINVAL;
        if (!by_handle && (r = m_may(c, n, 2)) < 0)
            return r;
    }
    if (valid & SETATTR_UID && !root && !(owner && uid == n->uid))
        return -EPERM;
    if (valid & SETATTR_GID && !root && !(owner && (gid == n->gid || m_in_group(c, gid))))
        return -EPERM;
    if (valid & SETATTR_MODE && !root && !owner)
        return -EPERM;
    if (valid & (SETATTR_ATIME | SETATTR_MTIME) && !root && !owner) {
        if (!(valid & SETATTR_ATIME_NOW) || !(valid & SETATTR_MTIME_NOW))
            return -EPERM;
        if (!(valid & SETATTR_SIZE) && (r = m_may(c, n, 2)) < 0)
            return r;
    }
    if (valid & SETATTR_SIZE)
        m_truncate(c, n, size);
    if (valid & SETATTR_UID)
        n->uid = uid;
    if (valid & SETATTR_GID)
        n->gid = gid;
    if (valid & (SETATTR_UID | SETATTR_GID)) {
        m_drop_capability(n);
        if (!m_is_dir(n)) {
            n->mode &= ~(uint32_t)S_ISUID;
            if (n->mode & S_IXGRP || (!root && !m_in_group(c, n->gid)))
                n->mode &= ~(uint32_t)S_ISGID;
        }
    }
    if (valid & SETATTR_MODE) {
        n->mode = (n->mode & S_IFMT) | mode;
        if (!root && !m_in_group(c, n->gid))
            n->mode &= ~(uint32_t)S_ISGID;
    }
    return 0;
}

/* Opening what is there. */
static int m_open(struct model *m, const struct m_caller *c, uint64_t id, uint32_t flags, bool creating)
{
    struct m_node *n = m_find(m, id);
    if (!n)
        return -ESTALE;
    uint32_t access = flags & O_ACCMODE, want = access == O_RDONLY ? 4 : access == O_WRONLY ? 2 : 6;
    if (flags & O_TRUNC)
        want |= 2;
    if (S_ISLNK(n->mode))
        return -ELOOP;
    if (m_is_dir(n) && (want & 2 || creating))
        return -EISDIR;
    int r = m_may(c, n, want);
    if (r == 0 && flags & O_TRUNC && S_ISREG(n->mode))
        m_truncate(c, n, 0);
    return r;
}

/* --- xattrs ---------------------------------------------------------------------------------------------------------------- */

static int m_may_xattr(const struct m_caller *c, const struct m_node *n, const char *name, bool write)
{
    if (strncmp(name, "user.", 5) == 0) {
        if (!name[5])
            return -EINVAL;
        if (!S_ISREG(n->mode) && !m_is_dir(n))
            return write ? -EPERM : -ENODATA;
        if (write && m_is_dir(n) && n->mode & S_ISVTX && c->uid != 0 && c->uid != n->uid)
            return -EPERM;
        return m_may(c, n, write ? 2 : 4);
    }
    if (strncmp(name, "trusted.", 8) == 0)
        return c->uid == 0 ? 0 : write ? -EPERM : -ENODATA;
    if (strncmp(name, "security.", 9) == 0)
        return write && c->uid != 0 ? -EPERM : 0;
    return -EOPNOTSUPP;
}

static struct m_xattr *m_xattr_find(struct m_node *n, const char *name)
{
    for (int i = 0; i < n->xattr_count; i++)
        if (strcmp(n->xattrs[i].name, name) == 0)
            return &n->xattrs[i];
    return NULL;
}

static int m_setxattr(struct model *m, const struct m_caller *c, uint64_t id, const char *name, const char *value,
                      uint32_t value_n, uint32_t flags)
{
    struct m_node *n = m_find(m, id);
    if (!n)
        return -ESTALE;
    int r = m_may_xattr(c, n, name, true);
    if (r < 0)
        return r;
    struct m_xattr *x = m_xattr_find(n, name);
    if (x && flags == 1)
        return -EEXIST;
    if (!x && flags == 2)
        return -ENODATA;
    if (!x) {
        x = &n->xattrs[n->xattr_count++];
        strcpy(x->name, name);
    }
    memcpy(x->value, value, value_n);
    x->value_n = value_n;
    return 0;
}

static int m_removexattr(struct model *m, const struct m_caller *c, uint64_t id, const char *name)
{
    struct m_node *n = m_find(m, id);
    if (!n)
        return -ESTALE;
    int r = m_may_xattr(c, n, name, true);
    if (r < 0)
        return r;
    struct m_xattr *x = m_xattr_find(n, name);
    if (!x)
        return -ENODATA;
    *x = n->xattrs[--n->xattr_count];
    return 0;
}

/* --- whole models ------------------------------------------------------------------------------------------------------------ */

static void m_free(struct model *m)
{
    for (int i = 0; i < m->count; i++)
        free(m->nodes[i].entries);
    free(m->nodes);
    *m = (struct model){0};
}

static struct model m_copy(const struct model *m)
{
    struct model c = {malloc((size_t)(m->count + 1) * sizeof(struct m_node)), m->count};
    for (int i = 0; i < m->count; i++) {
        c.nodes[i] = m->nodes[i];
        size_t n = (size_t)m->nodes[i].entry_count * sizeof(struct m_entry);
        c.nodes[i].entries = malloc(n + 1);
        if (n)
            memcpy(c.nodes[i].entries, m->nodes[i].entries, n);
    }
    return c;
}

static struct model m_new(void)
{
    struct model m = {calloc(1, sizeof(struct m_node)), 1};
    m.nodes[0] = (struct m_node){.id = META_ROOT, .parent = META_ROOT, .mode = S_IFDIR | 0755, .nlink = 2};
    return m;
}
