/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files. A handle is the leader's word in memory that a session has an inode open; it keeps an unlinked inode alive.
 * Opening is no mutation unless it creates or truncates. The answer says where the content lies.
 */
#include <dirent.h>
#include <fcntl.h>

#include "meta/meta_op.h"
#include "wire/meta_flags.h"

/* What opening it so asks for. */
static int mask_of(uint32_t flags)
{
    switch (flags & O_ACCMODE) {
    case O_RDONLY: return flags & OPEN_EXEC ? MAY_EXEC : MAY_READ;
    case O_WRONLY: return MAY_WRITE;
    default: return MAY_READ | MAY_WRITE;
    }
}

static int check_open(const struct run *u, const struct meta_inode *i, uint32_t flags)
{
    const struct meta_caller *c = &u->q->caller;
    int mask = mask_of(flags);
    if (flags & O_TRUNC)
        mask |= MAY_WRITE;
    if (S_ISLNK(i->mode))
        return -ELOOP;
    if (S_ISDIR(i->mode) && (mask & MAY_WRITE || flags & O_CREAT))
        return -EISDIR;
    if (flags & O_DIRECTORY && !S_ISDIR(i->mode))
        return -ENOTDIR;
    if (mask & MAY_WRITE && S_ISREG(i->mode) && read_only(u, i->mount))
        return -CV_READ_ONLY_MOUNT;
    return may(c, i, mask);
}

/* What opening changes: with O_TRUNC the content, otherwise nothing. */
static int see_opening(struct run *u, const struct meta_inode *i, uint32_t flags, struct cut *cut,
                       struct rec_layout *layout)
{
    if (flags & O_TRUNC && S_ISREG(i->mode))
        return cut_see(u, i, 0, cut);
    return layout_see(u, i, 0, EXTENTS_OPEN, (flags & O_ACCMODE) != O_RDONLY, layout);
}

static int handle_new(struct run *u, const struct meta_inode *i, uint32_t flags, uint64_t *ret)
{
    struct session_table *t = &u->m->sessions;
    struct session *s = session_find(t, u->q->caller.session);
    struct handle *h;
    uint64_t number;
    do /* after 2^32 of them under one leader the numbers come round; some are still open */
        number = (uint64_t)u->m->epoch << 32 | ++t->next_handle;
    while (handle_find(t, number));
    int r = handle_add(t, s, number, i->id, flags, &h);
    if (r < 0)
        return r;
    h->orphan = i->flags & INODE_ORPHAN;
    *ret = u->result.handle = number;
    return 0;
}

/* Give a handle on an inode that is there, truncated if asked for. */
static int open_existing(struct run *u, struct meta_inode *i, uint32_t flags, struct cut *cut, uint64_t *handle,
                         struct rec_layout *layout)
{
    bool truncate = flags & O_TRUNC && S_ISREG(i->mode);
    int r = truncate ? cut_reserve(u, cut, 1, PUT_INODE_BYTES) : 0;
    if (r == 0)
        r = handle_new(u, i, flags, handle);
    if (r < 0 || !truncate)
        return r;
    cut_put(u, i, cut);
    put_inode(u, i);
    layout_head(u, i, (flags & O_ACCMODE) != O_RDONLY, layout);
    return 0;
}

int op_open(struct run *u)
{
    const struct msg_open *msg = &u->q->message.open;
    struct msg_open_answer *a = &u->q->answer.open;
    struct meta_inode i;
    struct cut cut = {0};
    int r = see_target(u, msg->inode, &i);
    if (r == 0)
        r = check_open(u, &i, msg->flags & ~(uint32_t)O_CREAT);
    if (r == 0)
        r = see_opening(u, &i, msg->flags, &cut, &a->layout);
    if (r < 0 || u->dry)
        return r;
    r = open_existing(u, &i, msg->flags, &cut, &a->handle, &a->layout);
    if (r < 0)
        return r;
    u->result.inode = i.id;
    attr_fill(&a->attr, &i);
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

static int create_new(struct run *u, const struct msg_create *msg, struct meta_inode *dir)
{
    struct msg_create_answer *a = &u->q->answer.create;
    const struct new_node n = {.name = msg->name, .mode = S_IFREG | (msg->mode & ~msg->umask & 07777)};
    struct meta_inode i = {.id = u->m->next_id};
    int r = ids_left(u, 1);
    if (r == 0)
        r = put_reserve(u, NEW_NODE_ROWS, 2 * PUT_INODE_BYTES + PUT_NAME_BYTES);
    if (r == 0)
        r = handle_new(u, &i, msg->flags, &a->handle);
    if (r < 0)
        return r;
    put_new_node(u, dir, &n, &i);
    put_op(u, REDO_create, i.id, dir->id, 0);
    u->result.flags = 1;
    a->created = 1;
    layout_head(u, &i, true, &a->layout);
    attr_fill(&a->attr, &i);
    return 0;
}

int op_create(struct run *u)
{
    const struct msg_create *msg = &u->q->message.create;
    struct msg_create_answer *a = &u->q->answer.create;
    struct meta_inode dir, i;
    struct cut cut = {0};
    int r = see_new_name(u, msg->parent, msg->name, &dir);
    bool exists = r == -EEXIST && !(msg->flags & O_EXCL);
    if (exists)
        r = see_old_name(u, &dir, msg->name, &i);
    if (r == 0 && exists)
        r = check_open(u, &i, msg->flags | O_CREAT);
    if (r == 0 && exists)
        r = see_opening(u, &i, msg->flags, &cut, &a->layout);
    if (r < 0 || u->dry)
        return r;
    if (exists) {
        r = open_existing(u, &i, msg->flags, &cut, &a->handle, &a->layout);
        u->result.inode = i.id;
        u->result.other = dir.id;
        attr_fill(&a->attr, &i);
    } else {
        r = create_new(u, msg, &dir);
    }
    attr_fill(&a->parent, &dir);
    a->lease_ms = u->m->options.lease_ms;
    return r;
}

/* Closing what is not open is no error: the first closing may have been answered to nobody. */
int op_close(struct run *u)
{
    const struct msg_close *msg = &u->q->message.close;
    if (u->dry)
        return 0;
    struct handle *h = handle_find(&u->m->sessions, msg->handle);
    if (!h || h->session->link.key != u->q->caller.session || h->by_inode.key != msg->inode)
        return 0;
    close_handle(u, h);
    return 0;
}

/* --- handles of the leader before ----------------------------------------------------------------------------------------- */

#define REASSERT_MAX 4096u /* in one message: the scribe's other work waits */

/* It was opened with these rights once. Who speaks for himself alone is asked for them again: the owner could give them to
 * himself. */
static int check_held(const struct run *u, const struct meta_inode *i, uint32_t flags)
{
    const struct meta_caller *c = &u->q->caller;
    int mask = mask_of(flags);
    return is_root(c) || c->uid == i->uid ? 0 : may(c, i, mask);
}

static int reassert_one(struct run *u, const struct rec_held_handle *h)
{
    struct meta_inode i;
    uint32_t mark = see_mark(u);
    int r = see_target(u, h->inode, &i);
    see_release(u, mark);
    if (r == 0)
        r = check_held(u, &i, h->flags);
    if (r < 0 || u->dry)
        return r;
    const struct handle *known = handle_find(&u->m->sessions, h->handle);
    if (known)
        return known->session->link.key == u->q->caller.session && known->by_inode.key == h->inode ? 0 : -EBADF;
    if (h->handle >> 32 >= u->m->epoch) /* one of ours, closed or never given: a new open may get that number */
        return -EBADF;
    return meta_reassert(u->m, u->q->caller.session, h->inode, h->handle, h->flags);
}

int op_reassert(struct run *u)
{
    const struct msg_reassert *msg = &u->q->message.reassert;
    struct buf *results = &u->q->data;
    int missing = 0;
    if (msg->handles.count > REASSERT_MAX)
        return -E2BIG;
    rec_for_each (held_handle, h, &msg->handles) {
        uint8_t code[4];
        int r = reassert_one(u, &h);
        if (r == -CV_NOT_PREPARED)
            missing = r;
        else if (r == -ENOMEM)
            return r;
        put_le32(code, (uint32_t)-r);
        if ((r = buf_append(results, code, sizeof(code))) < 0)
            return r;
    }
    if (msg->done && !missing && !u->dry)
        session_has_told(&u->m->sessions, session_find(&u->m->sessions, u->q->caller.session));
    u->q->answer.reassert.results = key_of(results->p, (uint32_t)results->n);
    return missing;
}

/* What else the answer waits for is the daemon's to say. */
int op_sync(struct run *u)
{
    struct meta_inode i;
    int r = u->q->message.sync.inode ? see_target(u, u->q->message.sync.inode, &i) : 0;
    if (r == 0 && u->q->message.sync.inode)
        attr_fill(&u->q->answer.sync.attr, &i);
    return r;
}
