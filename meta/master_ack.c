/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_ack.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "wire/meta_flags.h"

bool master_ack_is_strict(const struct meta_request *q)
{
    const union meta_message *m = &q->message;
    switch (q->type) {
    case MSG_lookup:
    case MSG_walk:
    case MSG_readlink:
    case MSG_readdir:
    case MSG_getattr:
    case MSG_access:
    case MSG_statfs:
    case MSG_getxattr:
    case MSG_listxattr:
    case MSG_mkdir:
    case MSG_mknod:
    case MSG_symlink:
    case MSG_link:
    case MSG_unlink:
    case MSG_rmdir:
    case MSG_rename:
    case MSG_setxattr:
    case MSG_removexattr:
    case MSG_write_commit:
    case MSG_close: return m->head.flags & OP_DURABLE;
    case MSG_sync: return true;
    case MSG_setattr: return m->head.flags & OP_DURABLE || m->setattr.valid & SETATTR_SIZE;
    /* What was there is opened: the answer says where its content is. */
    case MSG_create: return m->head.flags & OP_DURABLE || !q->changed || !q->answer.create.created;
    default: return true;
    }
}

enum ack_mode master_ack_mode(const struct meta_request *q, enum ack_mode cluster, bool mounts)
{
    static const enum ack_mode modes[] = {
        [MOUNT_ACK_QUORUM] = ACK_QUORUM, [MOUNT_ACK_LOCAL] = ACK_LOCAL, [MOUNT_ACK_APPLIED] = ACK_APPLIED};
    if (master_ack_is_strict(q))
        return ACK_QUORUM;
    if (!(q->acks & ~(1u << MOUNT_ACK_CLUSTER)))
        return cluster;
    enum ack_mode strictest = q->acks & 1u << MOUNT_ACK_CLUSTER ? cluster : ACK_APPLIED;
    for (unsigned i = MOUNT_ACK_QUORUM; i <= MOUNT_ACK_APPLIED; i++)
        if (q->acks & 1u << i)
            strictest = min(strictest, modes[i]); /* they are in order of strictness */
    return mounts ? strictest : min(strictest, cluster);
}

/* ---- notes ----------------------------------------------------------------------------------------------------------- */

struct note {
    uint64_t session, sequence, inode; /* inode: or the directory of the name */
    uint32_t slot, uid, mount;
    uint16_t type, name_n;
    char name[META_NAME_MAX];
};
#define NOTE_SIZE(name_n) ((offsetof(struct note, name) + (name_n) + 7) & ~(size_t)7)

/* What it is about. */
static struct text subject(const struct meta_request *q, uint64_t *inode)
{
    const union meta_message *m = &q->message;
    switch (q->type) {
#define NAMED(x)                                                                                                       \
    case MSG_##x: *inode = m->x.parent; return m->x.name;
        NAMED(create)
        NAMED(mkdir)
        NAMED(mknod)
        NAMED(symlink)
        NAMED(link)
        NAMED(unlink)
        NAMED(rmdir)
        NAMED(rename)
#undef NAMED
    case MSG_setattr: *inode = m->setattr.inode; break;
    case MSG_setxattr: *inode = m->setxattr.inode; return m->setxattr.name;
    case MSG_removexattr: *inode = m->removexattr.inode; return m->removexattr.name;
    case MSG_write_commit: *inode = m->write_commit.inode; break;
    case MSG_write_grant: *inode = m->write_grant.inode; break;
    case MSG_open: *inode = m->open.inode; break;
    default: *inode = 0;
    }
    return (struct text){NULL, 0};
}

void master_ack_note(struct buf *notes, const struct meta_request *q)
{
    struct note n = {
        .session = q->caller.session,
        .uid = q->caller.uid,
        .mount = q->mount,
        .type = q->type,
        .slot = q->op_class == META_SCRIBE ? q->message.head.slot : 0,
        .sequence = q->message.head.sequence,
    };
    struct text name = subject(q, &n.inode);
    n.name_n = (uint16_t)min(name.n, (uint32_t)META_NAME_MAX);
    if (n.name_n)
        memcpy(n.name, name.p, n.name_n);
    if (buf_append(notes, &n, NOTE_SIZE(n.name_n)) < 0)
        log_warn(-ENOMEM, "note an operation answered before it was replicated");
}

/* Control characters and what is not ASCII as '?': a name is a client's, and this is one line of a log. */
static void printable(char *p, uint16_t n)
{
    for (uint16_t i = 0; i < n; i++)
        if (p[i] < ' ' || p[i] > '~')
            p[i] = '?';
}

void master_ack_lost(struct master_ack_book *b, struct buf *notes)
{
    for (size_t at = 0; at < notes->n;) {
        struct note n;
        memcpy(&n, notes->p + at, offsetof(struct note, name));
        memcpy(n.name, notes->p + at + offsetof(struct note, name), n.name_n);
        printable(n.name, n.name_n);
        log_warn(0,
                 "audit: lost an acknowledged operation: %s '%.*s' of inode %llu (mount %u) by uid %u (session %llx, "
                 "slot %u, number %llu)",
                 message_name(n.type), n.name_n, n.name, (unsigned long long)n.inode, n.mount, n.uid,
                 (unsigned long long)n.session, n.slot, (unsigned long long)n.sequence);
        b->lost++;
        at += NOTE_SIZE(n.name_n);
    }
    notes->n = 0;
}

/* ---- fates not known --------------------------------------------------------------------------------------------------- */

void master_ack_fini(struct master_ack_book *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        buf_fini(&b->pending[i].notes);
    free(b->pending);
    *b = (struct master_ack_book){0};
}

void master_ack_unknown(struct master_ack_book *b, struct buf *notes, uint64_t term, uint32_t crc, uint32_t n)
{
    if (!notes->n)
        return;
    if (b->count == b->room && b->room < MASTER_ACK_PENDING_MAX) {
        uint32_t room = b->room ? b->room * 2 : 16;
        struct master_ack_batch *more = realloc(b->pending, room * sizeof(*more));
        if (more) {
            b->pending = more;
            b->room = room;
        }
    }
    if (b->count == b->room) {
        master_ack_lost(b, notes);
        return;
    }
    b->pending[b->count++] = (struct master_ack_batch){.term = term, .crc = crc, .n = n, .notes = *notes};
    *notes = (struct buf){0};
}

void master_ack_seen(struct master_ack_book *b, uint64_t term, uint32_t crc, uint32_t n)
{
    uint32_t keep = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        struct master_ack_batch *p = &b->pending[i];
        bool is_it = p->term == term && p->crc == crc && p->n == n;
        if (!is_it && p->term < term)
            master_ack_lost(b, &p->notes);
        else if (!is_it) {
            b->pending[keep++] = *p;
            continue;
        }
        buf_fini(&p->notes);
    }
    b->count = keep;
}

void master_ack_settle(struct master_ack_book *b)
{
    master_ack_seen(b, UINT64_MAX, 0, 0);
}
