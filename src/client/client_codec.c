/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_codec.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

static struct text in(struct curvine_text t)
{
    return (struct text){t.p, t.n};
}

static struct curvine_text out(struct text t)
{
    return (struct curvine_text){t.p, t.n};
}

static void attr_out(const struct rec_attr *a, struct curvine_attr *ret)
{
    *ret = (struct curvine_attr){
        .inode = a->inode,
        .size = a->size,
        .blocks = a->blocks,
        .rdev = a->rdev,
        .atime_ns = a->atime_ns,
        .mtime_ns = a->mtime_ns,
        .ctime_ns = a->ctime_ns,
        .btime_ns = a->btime_ns,
        .version = a->version,
        .mode = a->mode,
        .nlink = a->nlink,
        .uid = a->uid,
        .gid = a->gid,
        .flags = a->flags,
    };
}

/* A request's encoder: the message's fields from the request's. */
#define ENCODE(msg, ...)                                                                                               \
    static int encode_##msg(const struct curvine_request *q, const struct rec_op_head *head, struct buf *body)         \
    {                                                                                                                  \
        struct msg_##msg m = {.head = *head, __VA_ARGS__};                                                             \
        return msg_##msg##_encode(&m, body);                                                                           \
    }

/* An answer's decoder: m is the decoded answer. */
#define DECODE(msg, ...)                                                                                               \
    static int decode_##msg(struct curvine_request *q, const void *body, size_t n)                                     \
    {                                                                                                                  \
        struct msg_##msg##_answer m;                                                                                   \
        int r = msg_##msg##_answer_decode(body, n, &m);                                                                \
        if (r < 0)                                                                                                     \
            return r;                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        return 0;                                                                                                      \
    }

#define DECODE_ATTR(msg) DECODE(msg, attr_out(&m.attr, &q->attr); q->lease_ms = m.lease_ms)
#define DECODE_NEW(msg)                                                                                                \
    DECODE(msg, attr_out(&m.attr, &q->attr); attr_out(&m.parent, &q->parent); q->lease_ms = m.lease_ms)
#define DECODE_GONE(msg) DECODE(msg, attr_out(&m.attr, &q->attr); attr_out(&m.parent, &q->parent))

ENCODE(lookup, .parent = q->inode, .name = in(q->name))
DECODE_ATTR(lookup)
ENCODE(walk, .start = q->inode, .path = in(q->name))
DECODE(walk, attr_out(&m.attr, &q->attr); q->parent.inode = m.parent; q->rest = out(m.rest); q->data = out(m.target);
       q->lease_ms = m.lease_ms)
ENCODE(getattr, .inode = q->inode)
DECODE_ATTR(getattr)
ENCODE(setattr, .inode = q->inode, .valid = q->valid, .mode = q->mode, .uid = q->uid, .gid = q->gid, .size = q->size,
       .atime_ns = q->atime_ns, .mtime_ns = q->mtime_ns, .handle = q->handle)
DECODE_ATTR(setattr)
ENCODE(access, .inode = q->inode, .mask = q->mode)
ENCODE(mkdir, .parent = q->inode, .name = in(q->name), .mode = q->mode, .umask = q->umask)
DECODE_NEW(mkdir)
ENCODE(mknod, .parent = q->inode, .name = in(q->name), .mode = q->mode, .umask = q->umask, .rdev = q->rdev)
DECODE_NEW(mknod)
ENCODE(symlink, .parent = q->inode, .name = in(q->name), .target = in(q->value))
DECODE_NEW(symlink)
ENCODE(link, .inode = q->inode2, .parent = q->inode, .name = in(q->name))
DECODE_NEW(link)
ENCODE(unlink, .parent = q->inode, .name = in(q->name))
DECODE_GONE(unlink)
ENCODE(rmdir, .parent = q->inode, .name = in(q->name))
DECODE_GONE(rmdir)
ENCODE(rename, .parent = q->inode, .name = in(q->name), .new_parent = q->inode2, .new_name = in(q->value),
       .flags = q->flags)
DECODE(rename, attr_out(&m.attr, &q->attr); attr_out(&m.parent, &q->parent); attr_out(&m.new_parent, &q->parent2))
ENCODE(readlink, .inode = q->inode)
DECODE(readlink, q->data = out(m.target))
ENCODE(setxattr, .inode = q->inode, .name = in(q->name), .value = in(q->value), .flags = q->flags)
ENCODE(getxattr, .inode = q->inode, .name = in(q->name))
DECODE(getxattr, q->data = out(m.value))
ENCODE(listxattr, .inode = q->inode)
DECODE(listxattr, q->data = out(m.names))
ENCODE(removexattr, .inode = q->inode, .name = in(q->name))
ENCODE(statfs, .inode = q->inode)
DECODE(statfs, q->statfs = ((struct curvine_statfs){m.total_bytes, m.free_bytes, m.inodes, m.free_inodes, m.name_max}))
ENCODE(create, .parent = q->inode, .name = in(q->name), .mode = q->mode, .umask = q->umask, .flags = q->flags)
DECODE(create, attr_out(&m.attr, &q->attr); attr_out(&m.parent, &q->parent); q->lease_ms = m.lease_ms;
       q->handle = m.handle; q->created = m.created)
ENCODE(open, .inode = q->inode, .flags = q->flags)
DECODE(open, attr_out(&m.attr, &q->attr); q->lease_ms = m.lease_ms; q->handle = m.handle)
ENCODE(sync, .inode = q->inode)
ENCODE(close, .inode = q->inode, .handle = q->handle)
ENCODE(readdir, .inode = q->inode, .after = in(q->name), .max_entries = q->max,
       .max_bytes = (uint32_t)min(q->size, UINT32_MAX), .flags = q->flags)

/* Entries live in one array that client_call frees after done. */
static int decode_readdir(struct curvine_request *q, const void *body, size_t n)
{
    struct msg_readdir_answer m;
    int r = msg_readdir_answer_decode(body, n, &m);
    if (r < 0)
        return r;
    struct curvine_dirent *entries = calloc(m.entries.count ? m.entries.count : 1, sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    uint32_t count = 0;
    rec_for_each (dir_entry, e, &m.entries) {
        struct curvine_dirent *d = &entries[count++];
        *d = (struct curvine_dirent){.inode = e.inode, .name = out(e.name), .type = e.type};
        if (e.attr.inode)
            attr_out(&e.attr, &d->attr);
    }
    q->entries = entries;
    q->entry_count = count;
    q->end = m.end;
    q->lease_ms = m.lease_ms;
    return 0;
}

#define READ(op, msg)           [op] = {#msg, MSG_##msg, false, encode_##msg, decode_##msg}
#define READ_NOTHING(op, msg)   [op] = {#msg, MSG_##msg, false, encode_##msg, NULL}
#define CHANGE(op, msg)         [op] = {#msg, MSG_##msg, true, encode_##msg, decode_##msg}
#define CHANGE_NOTHING(op, msg) [op] = {#msg, MSG_##msg, true, encode_##msg, NULL}

static const struct client_op ops[CURVINE_OP_COUNT] = {
    READ(CURVINE_LOOKUP, lookup),
    READ(CURVINE_WALK, walk),
    READ(CURVINE_GETATTR, getattr),
    CHANGE(CURVINE_SETATTR, setattr),
    READ_NOTHING(CURVINE_ACCESS, access),
    CHANGE(CURVINE_MKDIR, mkdir),
    CHANGE(CURVINE_MKNOD, mknod),
    CHANGE(CURVINE_SYMLINK, symlink),
    CHANGE(CURVINE_LINK, link),
    CHANGE(CURVINE_UNLINK, unlink),
    CHANGE(CURVINE_RMDIR, rmdir),
    CHANGE(CURVINE_RENAME, rename),
    READ(CURVINE_READLINK, readlink),
    READ(CURVINE_READDIR, readdir),
    CHANGE_NOTHING(CURVINE_SETXATTR, setxattr),
    READ(CURVINE_GETXATTR, getxattr),
    READ(CURVINE_LISTXATTR, listxattr),
    CHANGE_NOTHING(CURVINE_REMOVEXATTR, removexattr),
    READ(CURVINE_STATFS, statfs),
    CHANGE(CURVINE_CREATE, create),
    CHANGE(CURVINE_OPEN, open),
    READ_NOTHING(CURVINE_RELEASE, close),
    READ_NOTHING(CURVINE_FSYNC, sync), /* without a file; the answer is for client_sync.c */
};

const struct client_op *client_op_of(enum curvine_op op)
{
    return (unsigned)op < CURVINE_OP_COUNT && ops[op].type ? &ops[op] : NULL;
}

/* Behind the record's length: u64 session, u32 slot, u64 sequence (messages_meta.def). */
void client_head_patch(struct buf *body, uint64_t session, uint32_t slot, uint64_t sequence)
{
    put_le64(body->p + 4, session);
    put_le32(body->p + 12, slot);
    put_le64(body->p + 16, sequence);
}
