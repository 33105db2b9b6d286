/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a request: who asks (session), was it run before (slot), the operation itself, what the slot remembers.
 *
 * Exactly once: a slot remembers its highest sequence and what that request did. The same sequence again is answered from
 * that memory, with attributes as they are now: of what was committed and of what is still in flight (then the answer
 * depends on the same batch, so it waits for the same commit as the first one). A lower sequence is refused.
 *
 * What changed nothing (an error, an open) has no row; the slot of this leader remembers it all the same. Under a new
 * leader such a request is executed anew if it comes again. That is sound: nothing happened the first time, and the
 * client asks again only because it never saw the answer, so the request takes place at the moment of the second try. It
 * does ask of a client that it closes its connection to the old leader before it asks the new one. Answers that say "not
 * now" no slot remembers: the client does ask again having seen them.
 */
#include "meta/meta_core.h"

static int see_attr_or_gone(struct run *u, uint64_t id, struct rec_attr *ret)
{
    struct meta_inode i;
    uint32_t mark = see_mark(u);
    int r = id ? see_inode(u, id, &i) : 0;
    see_release(u, mark);
    if (!id)
        return 0;
    if (r == 0)
        attr_fill(ret, &i);
    else if (r == -ENOENT)
        ret->inode = id; /* gone meanwhile: no links, nothing else is known */
    return r == -ENOENT ? 0 : r;
}

/* Where the content is by now. */
static int see_layout_or_gone(struct run *u, uint64_t id, struct rec_layout *ret)
{
    struct meta_inode i;
    int r = see_inode(u, id, &i);
    if (r == 0)
        r = layout_see(u, &i, 0, EXTENTS_OPEN, true, ret);
    return r == -ENOENT ? 0 : r;
}

/* The answer of a repetition. */
static int answer_again(struct run *u)
{
    const struct meta_slot_row *s = &u->result;
    const union meta_message *msg = &u->q->message;
    union meta_answer *a = &u->q->answer;
    struct rec_attr *attr = NULL, *parent = NULL, *replaced = NULL, *new_parent = NULL;
    struct rec_layout *layout = NULL;
    uint64_t parent_id = s->other;
    switch (s->type) {
    case MSG_mkdir: attr = &a->mkdir.attr, parent = &a->mkdir.parent; break;
    case MSG_mknod: attr = &a->mknod.attr, parent = &a->mknod.parent; break;
    case MSG_symlink: attr = &a->symlink.attr, parent = &a->symlink.parent; break;
    case MSG_link: attr = &a->link.attr, parent = &a->link.parent; break;
    case MSG_unlink: attr = &a->unlink.attr, parent = &a->unlink.parent; break;
    case MSG_rmdir: attr = &a->rmdir.attr, parent = &a->rmdir.parent; break;
    case MSG_setattr: attr = &a->setattr.attr, layout = &a->setattr.layout; break;
    case MSG_mount_add:
        attr = &a->mount_add.attr;
        a->mount_add.mount = (uint32_t)s->other;
        break;
    case MSG_rename:
        attr = &a->rename.attr, replaced = &a->rename.replaced;
        parent = &a->rename.parent, new_parent = &a->rename.new_parent;
        parent_id = msg->rename.parent;
        break;
    case MSG_write_grant: return write_grant_again(u);
    case MSG_write_commit:
        attr = &a->write_commit.attr;
        a->write_commit.lease_ms = u->m->options.lease_ms;
        write_commit_again(u);
        break;
    case MSG_create:
        attr = &a->create.attr, parent = &a->create.parent;
        a->create.handle = s->handle;
        a->create.created = s->flags & 1;
        layout = &a->create.layout;
        a->create.lease_ms = u->m->options.lease_ms;
        break;
    case MSG_open:
        attr = &a->open.attr;
        a->open.handle = s->handle;
        layout = &a->open.layout;
        a->open.lease_ms = u->m->options.lease_ms;
        break;
    default: break;
    }
    int r = attr ? see_attr_or_gone(u, s->inode, attr) : 0, e;
    if (layout && (e = see_layout_or_gone(u, s->inode, layout)) < 0)
        r = e;
    if (parent && (e = see_attr_or_gone(u, parent_id, parent)) < 0)
        r = e;
    if (replaced && (e = see_attr_or_gone(u, s->other, replaced)) < 0)
        r = e;
    if (new_parent && (e = see_attr_or_gone(u, msg->rename.new_parent, new_parent)) < 0)
        r = e;
    return r;
}

/* --- session and slot --------------------------------------------------------------------------------------------------- */

static int see_session(struct run *u, uint64_t id, struct session **ret)
{
    struct meta *m = u->m;
    struct session *s = session_find(&m->sessions, id);
    if (s) {
        see_depend(u, s->batch);
        *ret = s;
        return s->now_open ? 0 : -CV_SESSION_ENDED;
    }
    return id && id < max(m->next_id, m->id_limit) ? -CV_SESSION_ENDED : -CV_SESSION_UNKNOWN;
}

/* 0: not run before; 1: it was, u->result says what it did; -CV_SLOT_BAD. */
static int slot_check(struct run *u, const struct session *s, const struct rec_op_head *h)
{
    if (h->slot >= s->slot_count)
        return -CV_SLOT_BAD;
    const struct slot *slot = session_slot_peek(s, h->slot);
    if (!slot || h->sequence > slot->now.sequence)
        return 0;
    if (h->sequence < slot->now.sequence || slot->now.type != u->q->type)
        return -CV_SLOT_BAD;
    see_depend(u, slot->batch);
    u->result = slot->now;
    u->q->replayed = true;
    return slot->error ? slot->error : 1;
}

static void slot_remember(struct run *u, struct slot *slot, const struct rec_op_head *h, int error)
{
    uint8_t key[META_KEY_MAX], value[64];
    u->result.sequence = h->sequence;
    u->result.type = u->q->type;
    if (u->q->changed) {
        uint32_t n = meta_slot_encode(&u->result, value);
        put_row(u, META_TABLE_slot, key_of(key, meta_key_slot(u->q->caller.session, h->slot, key)), key_of(value, n));
        return;
    }
    slot->now = u->result;
    slot->error = error;
    slot->batch = u->q->depends ? (uint32_t)u->q->depends : (uint32_t)u->m->batch_committed;
}

/* "Not now" is none: it is asked again under the same number, and has to be looked at anew. That includes CV_NO_SPACE, a
 * grant when no worker takes data: clients are told CV_NO_WORKER and ask again until one does. */
static bool is_outcome(int r)
{
    return r != -CV_NOT_PREPARED && r != -CV_NOT_LISTED && r != -CV_BUSY && r != -CV_NO_SPACE && r != -ENOMEM;
}

static bool makes_more(const struct meta_request *q)
{
    switch (q->type) {
    case MSG_mkdir:
    case MSG_mknod:
    case MSG_symlink:
    case MSG_link:
    case MSG_create:
    case MSG_setxattr:
    case MSG_write_grant:
    case MSG_mount_add: return true;
    default: return false;
    }
}

static int run_once(struct run *u, struct session *s)
{
    const struct rec_op_head *h = &u->q->message.head;
    struct slot *slot;
    int r = slot_check(u, s, h);
    if (r == 1)
        return answer_again(u);
    if (r < 0)
        return r;
    if (!u->dry && (r = session_slot(s, h->slot, &slot)) < 0)
        return r;
    r = u->m->full && makes_more(u->q) ? -ENOSPC : u->q->op->run(u);
    if (!u->dry && is_outcome(r))
        slot_remember(u, slot, h, r);
    return r;
}

static int run_request(struct run *u)
{
    struct meta_request *q = u->q;
    struct session *s = NULL;
    if (!q->op->has_head)
        return q->op->run(u);
    if (!u->m->has_root)
        return -CV_NOT_FORMATTED;
    if (q->op->once == META_ONCE_ADMIN && !q->caller.session)
        return q->op->run(u);
    if (q->caller.session || q->op_class == META_SCRIBE) {
        int r = see_session(u, q->caller.session, &s);
        if (r < 0)
            return r;
    }
    if (q->op->once == META_ONCE || q->op->once == META_ONCE_ADMIN ||
        (q->op->once == META_ONCE_MAYBE && q->message.head.sequence))
        return q->message.head.sequence ? run_once(u, s) : -CV_SLOT_BAD;
    return q->op->run(u);
}

static void run_begin(struct run *u)
{
    struct meta_request *q = u->q;
    need_check(u->m, q);
    q->error = 0;
    q->depends = 0;
    q->changed = q->replayed = false;
    q->need_hint = q->texts_used = 0;
    q->acks = 0;
    q->mount = 0;
    q->data.n = 0;
    memset(&q->answer, 0, sizeof(q->answer));
}

/* --- entry points ------------------------------------------------------------------------------------------------------- */

int meta_read(const struct meta *m, struct meta_request *q)
{
    assert(q->op_class == META_READ);
    struct run u = {.m = (struct meta *)(uintptr_t)m, .q = q, .dry = true};
    run_begin(&u);
    int r = run_request(&u);
    if (r == -CV_NOT_PREPARED || r == -CV_NOT_LISTED)
        return r;
    q->error = r;
    return 0;
}

int meta_prepare(const struct meta *m, struct meta_request *q)
{
    assert(q->op_class == META_SCRIBE);
    struct run u = {.m = (struct meta *)(uintptr_t)m, .q = q, .dry = true};
    run_begin(&u);
    int r = run_request(&u);
    return r == -CV_NOT_PREPARED || r == -CV_NOT_LISTED ? r : 0; /* anything else is for the scribe to find */
}

int meta_execute(struct meta *m, struct meta_request *q, uint64_t wall_ns)
{
    assert(q->op_class == META_SCRIBE);
    struct run u = {.m = m, .q = q, .now_ns = max(wall_ns, m->time_ns + 1)};
    run_begin(&u);
    if (q->need_count)
        meta_install(m, q);
    int r = run_request(&u);
    if (r == -CV_NOT_PREPARED) {
        q->prepares++;
        m->prepare_again++;
    }
    if (r == -CV_NOT_PREPARED || r == -CV_NOT_LISTED || r == -CV_BUSY)
        return r;
    assert(r == 0 || !q->changed || q->op->type == 0);
    q->error = r;
    if (q->changed) {
        m->time_ns = u.now_ns;
        if (m->leading && m->id_asked - m->next_id < m->options.id_grant / 2)
            put_grant(&u);
    }
    return 0;
}
