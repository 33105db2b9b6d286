/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on the namespace core and on the naive model (meta_model.h) beside it: equal errors, equal results,
 * equal trees. A difference is printed with its seed.
 */
#pragma once

#include "tests/unit/meta_model.h"
#include "tests/unit/meta_rig.h"

#define HANDLES 64

struct held {
    uint64_t handle, inode;
    uint32_t flags;
};

struct play {
    struct rig g, follower;
    uint64_t followed; /* log entries applied there */
    struct model now;
    struct model *after; /* after each entry of the log */
    uint64_t seed;
    struct prng prng;
    struct m_caller caller;
    struct held held[HANDLES + 2];
    int held_count;
    struct buf last; /* the last message that changed something */
    uint16_t last_type;
    uint64_t last_entry;    /* log entry it went into */
    struct meta_delta *out; /* sealed */
    bool out_written;       /* and in the base */
    uint64_t sequence_between;
    int step;
};

#define EXPECT(p, condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "seed %lu step %d: ", (unsigned long)(p)->seed, (p)->step);                                \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            ck_abort_msg("model and core differ (seed %lu)", (unsigned long)(p)->seed);                                \
        }                                                                                                              \
    } while (0)

static uint32_t below(struct play *p, uint32_t n)
{
    return prng_below(&p->prng, n);
}

static bool is_held(void *arg, uint64_t inode)
{
    struct play *p = arg;
    for (int i = 0; i < p->held_count; i++)
        if (p->held[i].inode == inode)
            return true;
    return false;
}

/* --- choosing ---------------------------------------------------------------------------------------------------------------- */

static uint64_t any_node(struct play *p)
{
    if (below(p, 50) == 0)
        return 500000 + below(p, 10); /* nobody has it */
    const struct m_node *n = &p->now.nodes[below(p, (uint32_t)p->now.count)];
    if (n->nlink == 0 && !is_held(p, n->id))
        return META_ROOT; /* it may be purged at any time */
    return n->id;
}

static uint64_t any_dir(struct play *p)
{
    if (below(p, 20) == 0)
        return any_node(p);
    for (int i = 0; i < 50; i++) {
        const struct m_node *n = &p->now.nodes[below(p, (uint32_t)p->now.count)];
        if (S_ISDIR(n->mode) && (n->nlink || is_held(p, n->id)))
            return n->id;
    }
    return META_ROOT;
}

static const char *any_name(struct play *p)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "hh", "i i", "j.txt", "k", "l"};
    static char long_name[257], others[8][8];
    static int turn;
    char *other = others[turn++ % 8]; /* they live while a few others are asked for */
    uint32_t x = below(p, 200);
    memset(long_name, 'n', 256); /* 256, or without its first 255 */
    if (x == 0)
        return "";
    if (x == 1)
        return ".";
    if (x == 2)
        return "x/y";
    if (x <= 4) {
        return x == 3 ? long_name + 1 : long_name;
    }
    if (x < 15) {
        snprintf(other, sizeof(others[0]), "o%u", below(p, 40));
        return other;
    }
    return names[below(p, array_size(names))];
}

static uint32_t any_mode(struct play *p)
{
    static const uint32_t modes[] = {0777,  0777,  0755,  0700,  0644,  0666, 0770,
                                     01777, 02775, 02777, 04755, 06777, 0,    0111};
    return modes[below(p, array_size(modes))];
}

static void any_caller(struct play *p)
{
    static const struct m_caller callers[] = {{0, 0, 0}, {0, 0, 0}, {1, 1, 100}, {2, 2, 100}, {3, 100, 3}};
    p->caller = callers[below(p, array_size(callers))];
    static uint8_t all_groups[8][4]; /* as the names */
    static int turn;
    uint8_t *groups = all_groups[turn++ % 8];
    put_le32(groups, p->caller.group);
    p->g.head.uid = p->caller.uid;
    p->g.head.gid = p->caller.gid;
    p->g.head.groups = (struct text){(const char *)groups, 4};
}

static const char *any_xattr(struct play *p)
{
    static const char *const names[] = {"user.a",  "user.b", "trusted.t", "security.s", "security.capability",
                                        "system.x"};
    return names[below(p, array_size(names))];
}

/* --- operations: core first, then the model with the ids the core gave ------------------------------------------------------ */

static void attr_equals(struct play *p, const struct rec_attr *a, uint64_t id)
{
    const struct m_node *n = m_find(&p->now, id);
    if (!n) {
        EXPECT(p, a->inode == id && a->nlink == 0, "inode %lu should be gone\n", (unsigned long)id);
        return;
    }
    EXPECT(p,
           a->inode == id && a->mode == n->mode && a->uid == n->uid && a->gid == n->gid && a->nlink == n->nlink &&
               a->size == n->size && a->rdev == n->rdev,
           "inode %lu: mode %o/%o uid %u/%u gid %u/%u nlink %u/%u size %lu/%lu\n", (unsigned long)id, a->mode, n->mode,
           a->uid, n->uid, a->gid, n->gid, a->nlink, n->nlink, (unsigned long)a->size, (unsigned long)n->size);
}

static void same(struct play *p, const char *what, int core, int model)
{
    EXPECT(p, core == model, "%s: core says %s, model says %s\n", what, cv_error_name(core), cv_error_name(model));
}

static void do_make(struct play *p)
{
    uint64_t parent = any_dir(p), rdev = 0;
    const char *name = any_name(p), *target = NULL;
    uint32_t kind = below(p, 8), mode = any_mode(p);
    const union meta_answer *a = &p->g.q.answer;
    const struct rec_attr *attr, *dir;
    int r, e;
    if (kind < 3) {
        mode = S_IFDIR | (mode & 01777 & ~022u);
        r = SEND(&p->g, mkdir, .parent = parent, .name = text_of(name), .mode = mode, .umask = 022);
        attr = &a->mkdir.attr, dir = &a->mkdir.parent;
    } else if (kind < 6) {
        static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR};
        mode = types[below(p, 6)] | mode;
        if (S_ISCHR(mode))
            rdev = below(p, 1000);
        r = SEND(&p->g, mknod, .parent = parent, .name = text_of(name), .mode = mode, .rdev = rdev);
        attr = &a->mknod.attr, dir = &a->mknod.parent;
    } else {
        target = "../over/there";
        mode = S_IFLNK | 0777;
        r = SEND(&p->g, symlink, .parent = parent, .name = text_of(name), .target = text_of(target));
        attr = &a->symlink.attr, dir = &a->symlink.parent;
    }
    e = m_make(&p->now, &p->caller, parent, name, mode, rdev, target, attr->inode, S_ISCHR(mode) && p->caller.uid != 0);
    if (e == 0 && S_ISCHR(mode) && p->caller.uid != 0)
        e = -EPERM;
    same(p, "make", r, e);
    if (r == 0) {
        attr_equals(p, attr, attr->inode);
        attr_equals(p, dir, parent);
    }
}

static void do_link(struct play *p)
{
    uint64_t id = any_node(p), parent = any_dir(p);
    const char *name = any_name(p);
    int r = SEND(&p->g, link, .inode = id, .parent = parent, .name = text_of(name));
    same(p, "link", r, m_link(&p->now, &p->caller, id, parent, name));
    if (r == 0)
        attr_equals(p, &p->g.q.answer.link.attr, id);
}

static void do_remove(struct play *p)
{
    uint64_t parent = any_dir(p);
    const char *name = any_name(p);
    bool dir = below(p, 2);
    const union meta_answer *a = &p->g.q.answer;
    int r = dir ? SEND(&p->g, rmdir, .parent = parent, .name = text_of(name))
                : SEND(&p->g, unlink, .parent = parent, .name = text_of(name));
    same(p, dir ? "rmdir" : "unlink", r, m_remove(&p->now, &p->caller, parent, name, dir, is_held, p));
    if (r == 0) {
        const struct rec_attr *attr = dir ? &a->rmdir.attr : &a->unlink.attr;
        attr_equals(p, attr, attr->inode);
        attr_equals(p, dir ? &a->rmdir.parent : &a->unlink.parent, parent);
    }
}

static void do_rename(struct play *p)
{
    uint64_t parent = any_dir(p), new_parent = below(p, 3) ? any_dir(p) : parent;
    char name[300];
    strcpy(name, any_name(p)); /* any_name() gives static storage */
    const char *new_name = any_name(p);
    uint32_t flags = below(p, 4) ? 0 : below(p, 4);
    const struct msg_rename_answer *a = &p->g.q.answer.rename;
    int r = SEND(&p->g, rename, .parent = parent, .name = text_of(name), .new_parent = new_parent,
                 .new_name = text_of(new_name), .flags = flags);
    same(p, "rename", r, m_rename(&p->now, &p->caller, parent, name, new_parent, new_name, flags, is_held, p));
    if (r == 0) {
        attr_equals(p, &a->attr, a->attr.inode);
        attr_equals(p, &a->parent, parent);
        attr_equals(p, &a->new_parent, new_parent);
        if (a->replaced.inode)
            attr_equals(p, &a->replaced, a->replaced.inode);
    }
}

static void do_setattr(struct play *p)
{
    uint64_t id = any_node(p), handle = 0;
    uint32_t valid = 0;
    bool writable = false, by_handle = false;
    static const uint32_t bits[] = {SETATTR_MODE,
                                    SETATTR_UID,
                                    SETATTR_GID,
                                    SETATTR_SIZE,
                                    SETATTR_ATIME | SETATTR_MTIME | SETATTR_ATIME_NOW | SETATTR_MTIME_NOW,
                                    SETATTR_ATIME | SETATTR_MTIME};
    for (uint32_t i = 0, n = 1 + below(p, 2); i < n; i++)
        valid |= bits[below(p, array_size(bits))];
    if (p->held_count && below(p, 4) == 0) {
        const struct held *h = &p->held[below(p, (uint32_t)p->held_count)];
        id = h->inode;
        handle = h->handle;
        writable = (h->flags & O_ACCMODE) != O_RDONLY;
    }
    uint32_t mode = any_mode(p), uid = below(p, 4), gid = below(p, 2) ? 100 : below(p, 4);
    uint64_t size = below(p, 10000);
    int r = SEND(&p->g, setattr, .inode = id, .valid = valid, .mode = mode, .uid = uid, .gid = gid, .size = size,
                 .atime_ns = 1, .mtime_ns = 2, .handle = handle);
    for (int i = 0; i < p->held_count; i++) /* still */
        by_handle |= writable && p->held[i].handle == handle;
    same(p, "setattr", r, m_setattr(&p->now, &p->caller, id, valid, mode, uid, gid, size, by_handle));
    if (r == 0)
        attr_equals(p, &p->g.q.answer.setattr.attr, id);
}

static void do_xattr(struct play *p)
{
    uint64_t id = any_node(p);
    const char *name = any_xattr(p);
    uint32_t flags = below(p, 3), n = below(p, 16);
    if (below(p, 3)) {
        int r =
            SEND(&p->g, setxattr, .inode = id, .name = text_of(name), .value = {"0123456789abcdef", n}, .flags = flags);
        same(p, "setxattr", r, m_setxattr(&p->now, &p->caller, id, name, "0123456789abcdef", n, flags));
    } else {
        int r = SEND(&p->g, removexattr, .inode = id, .name = text_of(name));
        same(p, "removexattr", r, m_removexattr(&p->now, &p->caller, id, name));
    }
}

static void hold(struct play *p, uint64_t handle, uint64_t inode, uint32_t flags)
{
    EXPECT(p, handle != 0, "no handle\n");
    p->held[p->held_count++] = (struct held){handle, inode, flags};
}

static uint32_t any_open_flags(struct play *p)
{
    static const uint32_t flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY, O_WRONLY | O_TRUNC, O_RDONLY | O_TRUNC};
    return flags[below(p, array_size(flags))];
}

static void do_open(struct play *p)
{
    uint32_t flags = any_open_flags(p);
    if (p->held_count == HANDLES)
        return;
    if (below(p, 2)) {
        uint64_t id = any_node(p);
        int r = SEND(&p->g, open, .inode = id, .flags = flags);
        same(p, "open", r, m_open(&p->now, &p->caller, id, flags, false));
        if (r == 0) {
            attr_equals(p, &p->g.q.answer.open.attr, id);
            hold(p, p->g.q.answer.open.handle, id, flags);
        }
        return;
    }
    uint64_t parent = any_dir(p), id = 0;
    const char *name = any_name(p);
    uint32_t mode = any_mode(p);
    const struct msg_create_answer *a = &p->g.q.answer.create;
    if (below(p, 3) == 0)
        flags |= O_EXCL;
    int r = SEND(&p->g, create, .parent = parent, .name = text_of(name), .mode = mode, .umask = 022, .flags = flags);
    int e = m_make(&p->now, &p->caller, parent, name, S_IFREG | (mode & ~022u), 0, NULL, a->attr.inode, false);
    if (e == 0)
        EXPECT(p, a->created, "create: not told so\n");
    if (e == -EEXIST && !(flags & O_EXCL)) {
        m_lookup(&p->now, &p->caller, parent, name, &id);
        e = m_open(&p->now, &p->caller, id, flags, true);
    }
    same(p, "create", r, e);
    if (r == 0) {
        attr_equals(p, &a->attr, a->attr.inode);
        hold(p, a->handle, a->attr.inode, flags);
    }
}

static void do_close(struct play *p)
{
    if (!p->held_count)
        return;
    struct held h = p->held[below(p, (uint32_t)p->held_count)];
    same(p, "close", SEND(&p->g, close, .inode = h.inode, .handle = h.handle), 0);
    for (int i = 0; i < p->held_count; i++)
        if (p->held[i].handle == h.handle)
            p->held[i] = p->held[--p->held_count];
}

static bool still_writes(const struct play *p, const struct held *h)
{
    for (int i = 0; i < p->held_count; i++)
        if (p->held[i].handle == h->handle)
            return (h->flags & O_ACCMODE) != O_RDONLY;
    return false;
}

/* Blocks of an open file are asked for; block 0 comes with them when the file is inline. */
static void do_grant(struct play *p, const struct held *h)
{
    uint32_t first = below(p, M_BLOCKS), count = 1 + below(p, M_BLOCKS - first);
    int r = SEND(&p->g, write_grant, .inode = h->inode, .handle = h->handle, .first_block = first, .count = count);
    struct m_node *n = m_find(&p->now, h->inode);
    if (!n)
        return; /* closed by another request, and gone */
    same(p, "write_grant", r, still_writes(p, h) ? 0 : -EBADF);
    if (r < 0)
        return;
    const struct rec_layout *l = &p->g.q.answer.write_grant.layout;
    uint64_t top = 0;
    for (int i = 0; i < M_BLOCKS; i++)
        top = max(top, n->blocks[i].epoch);
    EXPECT(p, l->inline_data.n == n->inlined && l->extents.count == count + (n->inlined && first), "grant\n");
    rec_for_each (extent, e, &l->extents) {
        struct m_block *b = &n->blocks[e.block];
        EXPECT(p, e.block < M_BLOCKS && e.valid_length == (b->there ? b->valid : 0), "granted block %u\n", e.block);
        EXPECT(p, e.epoch > top || (b->there && (!b->epoch || e.epoch == b->epoch)), "granted epoch\n");
        *b = (struct m_block){true, e.version, e.epoch, e.valid_length};
    }
    n->extents = true;
}

static void do_lengths(struct play *p, const struct held *h)
{
    struct m_node *n = m_find(&p->now, h->inode);
    uint32_t at = below(p, M_BLOCKS), length = below(p, M_BLOCK + 1);
    const struct m_block known = n->blocks[at];
    struct rec_written_length w = {at, known.version, known.epoch + (below(p, 8) == 0), length};
    uint64_t size = at * M_BLOCK + length;
    struct buf lengths cleanup(buf_fini) = {0};
    if (known.there && !known.epoch)
        return;
    ck_assert_int_eq(rec_written_length_append(&lengths, &w), 0);
    w.valid_length /= 2; /* twice: the longer counts */
    ck_assert_int_eq(rec_written_length_append(&lengths, &w), 0);
    int r = SEND(&p->g, write_commit, .inode = h->inode, .handle = h->handle, .valid = COMMIT_LENGTHS | COMMIT_SIZE,
                 .size = size, .lengths = wire_list_of(&lengths, 2));
    n = m_find(&p->now, h->inode);
    if (!n)
        return;
    struct m_block *b = &n->blocks[at];
    int e = b->there && w.version == b->version && w.epoch == b->epoch ? 0 : -CV_STALE_EPOCH;
    if (e == 0 && n->inlined && at)
        e = -EINVAL;
    same(p, "write_commit", r, still_writes(p, h) ? e : -EBADF);
    if (r < 0)
        return;
    b->valid = max(b->valid, length);
    n->size = max(n->size, size);
    n->inlined = 0;
    m_written(&p->caller, n);
}

static void do_inline(struct play *p, const struct held *h)
{
    char data[40];
    uint32_t length = below(p, sizeof(data));
    bool close = below(p, 3) == 0;
    memset(data, 'a' + (int)below(p, 26), sizeof(data));
    int r = SEND(&p->g, write_commit, .inode = h->inode, .handle = h->handle,
                 .valid = COMMIT_INLINE | (close ? COMMIT_CLOSE : 0), .inline_data = {data, length});
    struct m_node *n = m_find(&p->now, h->inode);
    if (!n)
        return;
    same(p, "write_commit inline", r, !still_writes(p, h) ? -EBADF : n->extents ? -CV_STALE_EPOCH : 0);
    if (r < 0)
        return;
    n->size = n->inlined = length;
    n->fill = data[0];
    m_written(&p->caller, n);
    for (int i = 0; i < p->held_count && close; i++)
        if (p->held[i].handle == h->handle)
            p->held[i] = p->held[--p->held_count];
}

static void do_content(struct play *p)
{
    if (!p->held_count)
        return;
    struct held h = p->held[below(p, (uint32_t)p->held_count)];
    if (!S_ISREG(m_find(&p->now, h.inode)->mode))
        return;
    switch (below(p, 3)) {
    case 0: do_grant(p, &h); break;
    case 1: do_lengths(p, &h); break;
    default: do_inline(p, &h); break;
    }
}

static void compare_layout(struct play *p, struct rig *g, struct m_node *n)
{
    same(p, "layout", SEND(g, layout, .inode = n->id), 0);
    const struct rec_layout *l = &g->q.answer.layout.layout;
    uint32_t seen = 0, there = 0;
    EXPECT(p, l->inline_data.n == n->inlined && (!n->inlined || l->inline_data.p[n->inlined - 1] == n->fill),
           "inline data of %lu\n", (unsigned long)n->id);
    rec_for_each (extent, e, &l->extents) {
        struct m_block *b = &n->blocks[e.block];
        EXPECT(p, e.block < M_BLOCKS && b->there && b->valid == e.valid_length && (!b->epoch || b->epoch == e.epoch),
               "block %u of %lu\n", e.block, (unsigned long)n->id);
        seen++;
    }
    for (int i = 0; i < M_BLOCKS; i++)
        there += n->blocks[i].there;
    EXPECT(p, seen == (n->inlined ? 0 : there), "%u blocks of %lu, should be %u\n", seen, (unsigned long)n->id, there);
}

static void do_look(struct play *p)
{
    uint64_t parent = any_dir(p), id = 0;
    const char *name = any_name(p);
    int r = look(&p->g, parent, name);
    same(p, "lookup", r, m_lookup(&p->now, &p->caller, parent, name, &id));
    if (r == 0)
        attr_equals(p, &p->g.q.answer.lookup.attr, id);
}

/* The same request again: the same outcome, and nothing happens. */
static void do_again(struct play *p, int first)
{
    struct meta_request *q = &p->g.q;
    if (q->op_class == META_READ || q->type == MSG_close)
        return;
    uint16_t type = q->type;
    uint64_t digest_rows = p->g.m->open.op_count;
    meta_request_reset(q);
    ck_assert_int_eq(meta_request_decode(q, type, p->g.body.p, p->g.body.n), 0);
    int r = rig_run(&p->g, q);
    same(p, "repetition", r, first);
    EXPECT(p, q->replayed, "repetition of %s was executed\n", message_name(type));
    EXPECT(p, p->g.m->open.op_count == digest_rows, "repetition of %s changed something\n", message_name(type));
}

/* --- comparing everything ---------------------------------------------------------------------------------------------------- */

static int entry_compare(const void *a, const void *b)
{
    return strcmp(((const struct m_entry *)a)->name, ((const struct m_entry *)b)->name);
}

static void compare_xattrs(struct play *p, struct rig *g, struct m_node *n)
{
    int r = SEND(g, listxattr, .inode = n->id);
    same(p, "listxattr", r, 0);
    uint32_t bytes = 0;
    for (int i = 0; i < n->xattr_count; i++)
        bytes += (uint32_t)strlen(n->xattrs[i].name) + 1;
    EXPECT(p, g->q.answer.listxattr.names.n == bytes, "xattr names of %lu: %u bytes, should be %u\n",
           (unsigned long)n->id, g->q.answer.listxattr.names.n, bytes);
    for (int i = 0; i < n->xattr_count; i++) {
        const struct m_xattr *x = &n->xattrs[i];
        same(p, "getxattr", SEND(g, getxattr, .inode = n->id, .name = text_of(x->name)), 0);
        struct text v = g->q.answer.getxattr.value;
        EXPECT(p, v.n == x->value_n && (v.n == 0 || memcmp(v.p, x->value, v.n) == 0), "value of %s\n", x->name);
    }
}

static void compare_directory(struct play *p, struct rig *g, struct m_node *n)
{
    char after[256] = "";
    int at = 0;
    if (n->entry_count)
        qsort(n->entries, (size_t)n->entry_count, sizeof(*n->entries), entry_compare);
    for (bool end = false; !end;) {
        uint32_t page = below(p, 4) ? 0 : 1 + below(p, 5);
        same(p, "readdir",
             SEND(g, readdir, .inode = n->id, .after = text_of(after), .max_entries = page,
                  .flags = below(p, 4) ? READDIR_ATTR : 0),
             0);
        const struct msg_readdir_answer *a = &g->q.answer.readdir;
        end = a->end;
        rec_for_each (dir_entry, e, &a->entries) {
            EXPECT(p,
                   at < n->entry_count && text_equal(e.name, text_of(n->entries[at].name)) &&
                       e.inode == n->entries[at].id,
                   "directory %lu: entry %d is " TEXT_FMT ", should be %s\n", (unsigned long)n->id, at,
                   TEXT_ARG(e.name), at < n->entry_count ? n->entries[at].name : "none");
            if (e.attr.inode)
                attr_equals(p, &e.attr, e.inode);
            memcpy(after, e.name.p, e.name.n);
            after[e.name.n] = 0;
            at++;
        }
    }
    EXPECT(p, at == n->entry_count, "directory %lu: %d of %d names\n", (unsigned long)n->id, at, n->entry_count);
}

static void compare_all(struct play *p, struct rig *g)
{
    struct rec_op_head head = g->head;
    g->head.uid = g->head.gid = 0;
    for (int i = 0; i < p->now.count; i++) {
        struct m_node *n = &p->now.nodes[i];
        if (n->nlink == 0 && !is_held(p, n->id))
            continue; /* purged or not */
        same(p, "getattr", SEND(g, getattr, .inode = n->id), 0);
        attr_equals(p, &g->q.answer.getattr.attr, n->id);
        if (S_ISDIR(n->mode))
            compare_directory(p, g, n);
        if (S_ISLNK(n->mode)) {
            same(p, "readlink", SEND(g, readlink, .inode = n->id), 0);
            EXPECT(p, text_equal(g->q.answer.readlink.target, text_of(n->target)), "target\n");
        }
        if (S_ISREG(n->mode))
            compare_layout(p, g, n);
        compare_xattrs(p, g, n);
    }
    g->head = head;
}
