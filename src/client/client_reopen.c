/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open handles live with the master that leads: a new leader, and a new session, knows none. So after every reconnection to
 * a master each open file is opened again by its inode (its rights were checked when it was opened first), and its old handle
 * closed, which matters when the same master still leads. Grants and commits of an inode wait until its files are open again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/error.h"
#include "client/client_file.h"

#define REOPEN_AT_ONCE   64
#define REOPEN_TRIES_MAX 10 /* of one inode, without a grant or commit that succeeded in between */

struct reopen {
    struct client_master_call call;
    struct curvine_file *file;
};

static void on_old_closed(struct client_master_call *m, int result)
{
    client_master_call_fini(m);
    free(m);
}

/* One file less: the last one lets grants and commits go on. */
static void reopening_ended(struct client_inode *in)
{
    if (--in->reopening)
        return;
    in->ios++;
    client_write_pump(in);
    client_drained(in);
    in->ios--;
}

static void close_old(struct client_inode *in, uint64_t handle)
{
    struct client_master_call *m = calloc(1, sizeof(*m));
    if (!m)
        return; /* it goes with the session */
    struct msg_close q = {.inode = in->inode, .handle = handle};
    client_head(in, &q.head);
    client_master_call(in->cv, m, MSG_close, false, false, msg_close_desc(), &q, UINT64_MAX, on_old_closed);
}

static void on_reopened(struct client_master_call *m, int result)
{
    struct reopen *o = container_of(m, struct reopen, call);
    struct curvine_file *f = o->file;
    struct client_inode *in = f->inode;
    struct curvine *cv = in->cv;
    struct msg_open_answer a;
    if (result == 0)
        result = msg_open_answer_decode(m->answer.p, m->answer.n, &a);
    if (result == 0) {
        close_old(in, f->handle);
        if (in->grant_handle == f->handle)
            in->grant_handle = a.handle;
        f->handle = a.handle;
    } /* otherwise what needs the handle says that it is bad */
    client_master_call_fini(m);
    free(o);
    f->reopening = false;
    cv->content->reopens--;
    reopening_ended(in);
    client_inode_put(in);
    client_reopen_some(cv);
}

static void reopen(struct curvine_file *f)
{
    struct client_inode *in = f->inode;
    struct reopen *o = calloc(1, sizeof(*o));
    f->stale = false;
    if (!o) {
        reopening_ended(in);
        return;
    }
    o->file = f;
    f->reopening = true;
    in->cv->content->reopens++;
    const int once = O_CREAT | O_EXCL | O_TRUNC;
    struct msg_open q = {.inode = in->inode, .flags = (uint32_t)(f->flags & ~once)};
    client_head(in, &q.head);
    q.head.uid = q.head.gid = 0;
    client_master_call(in->cv, &o->call, MSG_open, false, false, msg_open_desc(), &q, UINT64_MAX, on_reopened);
}

void client_reopen_some(struct curvine *cv)
{
    struct client_content *c = cv->content;
    for (size_t i = 0; i < array_size(c->inodes) && c->stale_files; i++)
        list_for_each (e, &c->inodes[i])
            list_for_each (k, &list_entry(e, struct client_inode, link)->open_files) {
                struct curvine_file *f = list_entry(k, struct curvine_file, link);
                if (c->reopens >= REOPEN_AT_ONCE || cv->state == CLIENT_CLOSING)
                    return;
                if (f->stale && !f->reopening) {
                    c->stale_files--;
                    reopen(f);
                }
            }
}

static void mark(struct client_inode *in)
{
    list_for_each (e, &in->open_files) {
        struct curvine_file *f = list_entry(e, struct curvine_file, link);
        if (f->stale || f->reopening || f->closing)
            continue;
        f->stale = true;
        in->reopening++;
        in->cv->content->stale_files++;
    }
}

void client_reopen_all(struct curvine *cv)
{
    struct client_content *c = cv->content;
    for (size_t i = 0; i < array_size(c->inodes); i++)
        list_for_each (e, &c->inodes[i])
            mark(list_entry(e, struct client_inode, link));
    client_reopen_some(cv);
}

bool client_reopen_bad(struct client_inode *in, uint64_t handle)
{
    if (in->reopening || handle != in->grant_handle)
        return true;
    /* The same master may lead again under another term, and know the handle no more, any number of times. */
    if (in->reopen_tries >= REOPEN_TRIES_MAX)
        return false;
    in->reopen_tries++;
    mark(in);
    client_reopen_some(in->cv);
    return in->reopening > 0;
}

void client_reopen_forget(struct curvine_file *f)
{
    if (!f->stale)
        return;
    f->stale = false;
    f->cv->content->stale_files--;
    reopening_ended(f->inode);
}
