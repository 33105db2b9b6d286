/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open handles live with the master that leads: a new leader, and a new session, knows none. So after every reconnection to
 * a master they are told to it, a thousand in a message (MSG reassert). One that it does not take (it is that of this very
 * leader, who forgot it), or all when it does not know the message, is opened again by its inode (its rights were checked
 * when it was opened first) and gets another number; its old handle is closed. Grants and commits of an inode wait until its
 * files are open again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "client/client_file.h"

#define REASSERT_FILES   1000 /* in a message */
#define REASSERT_AT_ONCE 16   /* messages */
#define REOPEN_AT_ONCE   64
#define REOPEN_TRIES_MAX 10 /* of one inode, without a grant or commit that succeeded in between */

struct reopen {
    struct client_master_call call;
    struct curvine_file *file;
};

struct reassertion {
    struct client_master_call call;
    struct curvine *cv;
    bool as_self;
    uint32_t count;
    struct curvine_file *files[REASSERT_FILES];
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
    if (!in->cv->content->as_self)
        q.head.uid = q.head.gid = 0;
    client_master_call(in->cv, &o->call, MSG_open, false, false, msg_open_desc(), &q, UINT64_MAX, on_reopened);
}

/* ---- many at once ------------------------------------------------------------------------------------------------------ */

/* The master has taken this one, or (error) it is opened again by itself. */
static void reasserted(struct curvine_file *f, int error, bool again)
{
    struct client_inode *in = f->inode;
    f->reopening = false;
    if (error) {
        f->stale = true;
        f->refused = !again;
        in->cv->content->stale_files++;
        client_drained(in); /* who closes it need not wait for that, and may free it */
    } else {
        reopening_ended(in);
    }
    client_inode_put(in);
}

static void on_reasserted(struct client_master_call *m, int result)
{
    struct reassertion *t = container_of(m, struct reassertion, call);
    struct curvine *cv = t->cv;
    struct msg_reassert_answer a = {0};
    if (result == -EPERM && !t->as_self)
        cv->content->as_self = true; /* a process without privileges, on a unix socket */
    if (result == 0)
        result = msg_reassert_answer_decode(m->answer.p, m->answer.n, &a);
    if (result == 0 && a.results.n != 4 * t->count)
        result = -CV_BAD_MESSAGE;
    cv->content->reassertions--;
    for (uint32_t i = 0; i < t->count; i++) {
        bool again = result == -EPERM && !t->as_self;
        int error = result ? result : -(int)get_le32((const uint8_t *)a.results.p + 4 * (size_t)i);
        reasserted(t->files[i], error, again);
    }
    client_master_call_fini(m);
    free(t);
    client_reopen_some(cv);
}

static void reassert(struct reassertion *t)
{
    struct curvine *cv = t->cv;
    struct buf list = {0};
    for (uint32_t i = 0; i < t->count; i++) {
        struct curvine_file *f = t->files[i];
        const int once = O_CREAT | O_EXCL | O_TRUNC;
        struct rec_held_handle h = {
            .handle = f->handle, .inode = f->inode->inode, .flags = (uint32_t)(f->flags & ~once)};
        (void)rec_held_handle_append(&list, &h); /* without memory: a bad message, and they are opened again */
        f->stale = false;
        f->reopening = true;
        cv->content->stale_files--;
    }
    struct msg_reassert q = {.handles = wire_list_of(&list, t->count)};
    t->as_self = cv->content->as_self;
    if (t->as_self) {
        q.head.uid = geteuid();
        q.head.gid = getegid();
    }
    cv->content->reassertions++;
    client_master_call(cv, &t->call, MSG_reassert, false, false, msg_reassert_desc(), &q, UINT64_MAX, on_reasserted);
    buf_fini(&list);
}

/* The file's turn, in *t with others or alone. Returns false when enough is under way. */
static bool tell(struct curvine *cv, struct curvine_file *f, struct reassertion **t)
{
    struct client_content *c = cv->content;
    if (!*t && !f->refused && c->reassertions < REASSERT_AT_ONCE && (*t = malloc(sizeof(**t)))) {
        memset(&(*t)->call, 0, sizeof((*t)->call));
        (*t)->cv = cv;
        (*t)->count = 0;
    }
    if (*t && !f->refused) {
        (*t)->files[(*t)->count++] = f;
        if ((*t)->count == REASSERT_FILES) {
            reassert(*t);
            *t = NULL;
        }
        return true;
    }
    if (!f->refused && c->reassertions)
        return false;
    if (c->reopens >= REOPEN_AT_ONCE)
        return false;
    c->stale_files--;
    reopen(f);
    return true;
}

static void tell_done(struct curvine *cv);

/* Another master leads by now? If this one could not be told, it waits until the session's time would be over. */
static void on_told(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    tell_done(container_of(call, struct curvine, told_call));
}

/* The master may forget what has no name and is not among those. At once: what is sent next comes behind it. */
static void tell_done(struct curvine *cv)
{
    struct client_content *c = cv->content;
    if (!c->tell_done || c->stale_files || c->reassertions || c->reopens || cv->state != CLIENT_OPEN ||
        rpc_call_busy(&cv->told_call))
        return;
    c->tell_done = false;
    struct msg_reassert q = {.head = {.session = cv->session, .uid = geteuid(), .gid = getegid()}, .done = 1};
    cv->told_call.done = on_told;
    rpc_client_call(rpc_leader_client(cv->leader), &cv->told_call, MSG_reassert, msg_reassert_desc(), &q,
                    clock_ns() + 5 * NS_PER_S);
}

void client_reopen_some(struct curvine *cv)
{
    struct client_content *c = cv->content;
    struct reassertion *t = NULL;
    if (cv->state == CLIENT_CLOSING)
        return;
    tell_done(cv);
    bool more = true;
    for (size_t i = 0; more && i < array_size(c->inodes) && c->stale_files; i++)
        list_for_each (e, &c->inodes[i])
            list_for_each (k, &list_entry(e, struct client_inode, link)->open_files) {
                struct curvine_file *f = list_entry(k, struct curvine_file, link);
                more = more && (!f->stale || f->reopening || tell(cv, f, &t));
            }
    if (t)
        reassert(t);
}

static void mark(struct client_inode *in)
{
    list_for_each (e, &in->open_files) {
        struct curvine_file *f = list_entry(e, struct curvine_file, link);
        if (f->stale || f->reopening || f->closing)
            continue;
        f->stale = true;
        f->refused = false;
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
    c->tell_done = true;
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
