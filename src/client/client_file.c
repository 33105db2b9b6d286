/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files: made by the answers of OPEN and CREATE, gone with RELEASE. The way of an operation on content: from any thread
 * to the loop, where it waits now and then, until it ends or its deadline comes. And the forms that wait for it.
 */
#include "client/client_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#define DEFAULT_MEMORY (128ull << 20)

/* ---- files ---------------------------------------------------------------------------------------------------------- */

/* O_TRUNC: what was written before is gone. Otherwise the answer is as old or as new as that of MSG layout. */
static int take_layout(struct client_inode *in, struct curvine_request *q, const struct rec_layout *l, uint64_t sent_ns)
{
    bool first = !in->files && !in->version;
    if (q->flags & O_TRUNC && !q->created && !first)
        client_truncated(in, &q->attr, NULL);
    bool older = q->index && q->index < in->index;
    if (!first && (older || client_inode_dirty(in) || !list_empty(&in->writes))) { /* ours is newer */
        client_layout_expire(in);
        return 0;
    }
    int r = client_layout_apply(in, l, true);
    if (r == 0)
        client_attr_apply(in, &q->attr, q->lease_ms, sent_ns);
    in->index = max(in->index, q->index);
    return r;
}

int client_file_new(struct curvine *cv, struct curvine_request *q, const struct rec_layout *layout, uint64_t sent_ns)
{
    q->file = NULL;
    if (!S_ISREG(q->attr.mode))
        return 0;
    struct client_inode *in = client_inode_get(cv, q->attr.inode);
    struct curvine_file *f = calloc(1, sizeof(*f));
    if (!in || !f) {
        free(f);
        if (in)
            client_inode_put(in);
        return -ENOMEM;
    }
    int r = take_layout(in, q, layout, sent_ns);
    if (r < 0) {
        free(f);
        client_inode_put(in);
        return r;
    }
    f->cv = cv;
    f->inode = in;
    f->handle = q->handle;
    f->flags = (int)q->flags;
    f->ahead_job.run = client_ahead_job;
    f->errors_told = in->error_count - (in->error_count && !in->error_told);
    list_push_back(&in->open_files, &f->link);
    in->files++;
    if (!in->uid || (f->flags & O_ACCMODE) != O_RDONLY) {
        in->uid = q->caller ? q->caller->uid : geteuid();
        in->gid = q->caller ? q->caller->gid : getegid();
    }
    q->file = f;
    return 0;
}

void client_error(struct client_inode *in, int error)
{
    in->error = error;
    in->error_count++;
    in->error_told = false;
}

void client_error_told(struct curvine_file *f)
{
    f->inode->error_told |= f->errors_told != f->inode->error_count;
    f->errors_told = f->inode->error_count;
}

/* Another writer's handle serves from here on. */
void client_file_free(struct curvine_file *f)
{
    struct client_inode *in = f->inode;
    list_remove(&f->link);
    list_for_each (e, &in->open_files) {
        const struct curvine_file *other = list_entry(e, struct curvine_file, link);
        if (in->grant_handle == f->handle && (other->flags & O_ACCMODE) != O_RDONLY)
            in->grant_handle = other->handle;
    }
    in->files--;
    free(f);
}

/* ---- answers --------------------------------------------------------------------------------------------------------------- */

static void set_size(struct client_call *call, const void *body, uint32_t n)
{
    struct curvine_request *q = call->request;
    struct client_inode *in = client_inode_find(call->cv, q->attr.inode);
    struct msg_setattr_answer a;
    if (in && msg_setattr_answer_decode(body, n, &a) == 0) {
        client_truncated(in, &q->attr, &a.layout);
        in->index = max(in->index, q->index);
    }
}

int client_answered(struct client_call *call, const void *body, uint32_t n)
{
    struct curvine_request *q = call->request;
    struct curvine *cv = call->cv;
    int r = 0;
    if (q->op == CURVINE_OPEN) {
        struct msg_open_answer a;
        r = msg_open_answer_decode(body, n, &a);
        if (r == 0)
            r = client_file_new(cv, q, &a.layout, call->sent_ns);
    } else if (q->op == CURVINE_CREATE) {
        struct msg_create_answer a;
        r = msg_create_answer_decode(body, n, &a);
        if (r == 0)
            r = client_file_new(cv, q, &a.layout, call->sent_ns);
    } else if (q->op == CURVINE_SETATTR && q->valid & CURVINE_SET_SIZE)
        set_size(call, body, n);
    if (r < 0 || !cv->content->inode_count)
        return r;
    client_attr_patch(cv, &q->attr, q->index);
    for (uint32_t i = 0; i < q->entry_count; i++)
        client_attr_patch(cv, (struct curvine_attr *)(uintptr_t)&q->entries[i].attr, q->index);
    return 0;
}

/* ---- handles nobody has --------------------------------------------------------------------------------------------------------- */

static void on_given_back(struct client_master_call *m, int result)
{
    client_master_call_fini(m);
    free(m);
}

void client_handle_back(struct curvine *cv, uint64_t inode, uint64_t handle)
{
    struct client_master_call *m = cv->state == CLIENT_OPEN ? calloc(1, sizeof(*m)) : NULL;
    if (!m)
        return; /* it goes with the session */
    struct msg_close q = {
        .head = {.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()}, .inode = inode, .handle = handle};
    client_master_call(cv, m, MSG_close, false, false, msg_close_desc(), &q,
                       clock_ns() + cv->options.timeout_ms * NS_PER_MS, on_given_back);
}

void client_late_answer(const struct rpc_frame *f, void *user)
{
    struct msg_open_answer opened;
    struct msg_create_answer made;
    if (f->header.aux)
        return;
    if (f->header.type == MSG_open_answer && msg_open_answer_decode(f->body, f->header.body_len, &opened) == 0)
        client_handle_back(user, opened.attr.inode, opened.handle);
    else if (f->header.type == MSG_create_answer && msg_create_answer_decode(f->body, f->header.body_len, &made) == 0)
        client_handle_back(user, made.attr.inode, made.handle);
}

/* ---- operations on content ----------------------------------------------------------------------------------------------------- */

void client_io_wait(struct client_io *io, struct list *where, void (*resume)(struct client_io *))
{
    io->resume = resume;
    list_remove(&io->link);
    list_push_back(where, &io->link);
}

void client_io_wake(struct list *where)
{
    struct list woken = LIST_INIT(woken);
    list_append_all(&woken, where);
    for (struct list *e; (e = list_pop_front(&woken));) {
        struct client_io *io = list_entry(e, struct client_io, link);
        io->resume(io);
    }
}

/* What they waited for was asked for by the first of them, with its deadline or a shorter one: an error that may pass is an
 * error only of those whose own time is over. The others look again. */
void client_io_wake_error(struct list *where, int error)
{
    uint64_t now = clock_ns();
    list_for_each (e, where) {
        struct client_io *io = list_entry(e, struct client_io, link);
        if (!client_worker_error(error) || now >= io->deadline_ns || io->cv->state == CLIENT_CLOSING)
            io->error = error;
    }
    client_io_wake(where);
}

void client_io_finish(struct client_io *io, int result)
{
    struct client_inode *in = io->inode;
    struct curvine_request *q = io->request;
    loop_timer_stop(io->cv->loop, &io->timer);
    list_remove(&io->link);
    list_remove(&io->order);
    q->result = result;
    q->done(q); /* io may be gone */
    in->ios--;
    client_inode_put(in);
}

/* Soon: what is in flight for it is called back, and ends it when the last of it has. */
static void io_give_up(struct client_io *io, int error)
{
    if (!io->error)
        io->error = error;
    list_for_each_safe (e, &io->subs)
        client_fetch_cancel(list_entry(e, struct client_fetch, link));
    if (!list_empty(&io->link)) {
        list_remove(&io->link);
        io->resume(io);
    } else if (io->request->op == CURVINE_WRITE)
        client_write_cancel(io);
    else
        client_flush_leave(io);
}

static void on_io_deadline(struct loop_timer *timer)
{
    struct client_io *io = container_of(timer, struct client_io, timer);
    io->expired = true;
    io_give_up(io, -CV_DEADLINE);
}

void client_io_cancel(struct client_io *io)
{
    io_give_up(io, -CV_CANCELLED);
}

static void on_io(struct loop_job *job)
{
    struct client_io *io = container_of(job, struct client_io, job);
    struct curvine_file *f = io->request->file;
    if (io->request->op == CURVINE_RELEASE && f->ahead_posted) { /* its job is behind us in the queue */
        loop_post(io->cv->loop, job);
        return;
    }
    f->inode->ios++;
    loop_timer_start(io->cv->loop, &io->timer, io->deadline_ns);
    switch (io->request->op) {
    case CURVINE_READ: client_read(io); break;
    case CURVINE_WRITE: client_write(io); break;
    default: client_flush(io); break;
    }
}

void client_io_start(struct curvine *cv, struct curvine_request *q)
{
    struct client_io *io = io_of(q);
    uint32_t timeout_ms = q->timeout_ms ? q->timeout_ms : cv->options.timeout_ms;
    *io = (struct client_io){.cv = cv, .request = q, .inode = q->file->inode, .job.run = on_io};
    io->deadline_ns = clock_ns() + timeout_ms * NS_PER_MS;
    loop_timer_init(&io->timer, on_io_deadline);
    list_init(&io->link);
    list_init(&io->order);
    list_init(&io->subs);
    q->entries = NULL;
    q->entry_count = 0;
    q->result = 0;
    loop_post(cv->loop, &io->job);
}

/* ---- a message to the master ------------------------------------------------------------------------------------------------------ */

static void on_master_call(struct curvine_request *q)
{
    struct client_master_call *m = container_of(q, struct client_master_call, q);
    m->done(m, q->result);
}

void client_master_call(struct curvine *cv, struct client_master_call *m, uint16_t type, bool mutation, bool plain,
                        const struct wire_desc *desc, const void *record, uint64_t deadline_ns,
                        void (*done)(struct client_master_call *m, int result))
{
    struct buf body = {0};
    uint64_t now = clock_ns();
    uint64_t left_ms = deadline_ns > now ? (deadline_ns - now) / NS_PER_MS + 1 : 1;
    m->op = (struct client_op){.name = message_name(type), .type = type, .mutation = mutation};
    m->done = done;
    m->q.timeout_ms = deadline_ns == UINT64_MAX ? 0 : (uint32_t)min(left_ms, (uint64_t)UINT32_MAX);
    m->q.done = on_master_call;
    int r = wire_encode(desc, record, &body);
    client_submit_encoded(cv, &m->q, &m->op, &body, &m->answer, plain, r);
}

void client_master_call_fini(struct client_master_call *m)
{
    buf_fini(&m->answer);
}

/* ---- beginning and end -------------------------------------------------------------------------------------------------------------- */

int client_content_init(struct curvine *cv)
{
    struct client_content *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    cv->content = c;
    c->cv = cv;
    if (!cv->options.memory_bytes)
        cv->options.memory_bytes = DEFAULT_MEMORY;
    for (size_t i = 0; i < array_size(c->inodes); i++)
        list_init(&c->inodes[i]);
    struct list *lists[] = {&c->backings, &c->blocks, &c->chunks, &c->write_room};
    for (size_t i = 0; i < array_size(lists); i++)
        list_init(lists[i]);
    client_workers_init(cv);
    return 0;
}

/* The loop has ended: nothing is in flight. Files that were not closed are freed with the rest. */
void client_content_fini(struct curvine *cv)
{
    struct client_content *c = cv->content;
    if (!c)
        return;
    for (size_t i = 0; i < array_size(c->inodes); i++)
        list_for_each_safe (e, &c->inodes[i]) {
            struct client_inode *in = list_entry(e, struct client_inode, link);
            while (!list_empty(&in->open_files))
                client_file_free(list_entry(in->open_files.next, struct curvine_file, link));
            client_sync_forget(in);
            client_chunks_forget(in);
            client_inode_put(in);
        }
    client_backings_sweep(cv, true);
    client_workers_fini(cv);
    free(c);
    cv->content = NULL;
}

/* ---- any thread -------------------------------------------------------------------------------------------------------------------------- */

uint64_t curvine_file_inode(const struct curvine_file *file)
{
    return file->inode->inode;
}

uint64_t curvine_file_size(const struct curvine_file *file)
{
    return atomic_load(&file->inode->size);
}

/* ---- waiting forms ---------------------------------------------------------------------------------------------- */

static int open_inode(struct curvine *cv, uint64_t inode, int flags, struct curvine_file **ret)
{
    struct curvine_request q = {.op = CURVINE_OPEN, .inode = inode, .flags = (uint32_t)flags};
    int r = curvine_run(cv, &q);
    if (r < 0)
        return r;
    if (q.file) {
        *ret = q.file;
        return 0;
    }
    struct curvine_request close = {.op = CURVINE_RELEASE, .inode = inode, .handle = q.handle};
    curvine_run(cv, &close);
    return S_ISDIR(q.attr.mode) ? -EISDIR : -ENOTSUP;
}

int curvine_file_open(struct curvine *cv, const char *path, int flags, uint32_t mode, struct curvine_file **ret)
{
    uint64_t inode;
    int r = 0;
    if (flags & O_CREAT) {
        struct curvine_text name;
        r = curvine_resolve_parent(cv, path, &inode, &name);
        if (r < 0)
            return r;
        struct curvine_request q = {
            .op = CURVINE_CREATE, .inode = inode, .name = name, .mode = mode & 07777, .flags = (uint32_t)flags};
        r = curvine_run(cv, &q);
        if (r == 0 && q.file) {
            *ret = q.file;
            return 0;
        }
        if (r < 0 && (r != -ELOOP || flags & (O_EXCL | O_NOFOLLOW)))
            return r;
    }
    struct curvine_attr attr;
    r = curvine_resolve(cv, path, flags & O_NOFOLLOW ? 0 : CURVINE_FOLLOW, &inode, &attr);
    if (r < 0)
        return r;
    if (S_ISLNK(attr.mode))
        return -ELOOP;
    return open_inode(cv, inode, flags & ~(O_CREAT | O_EXCL), ret);
}

int64_t curvine_pwrite(struct curvine_file *file, const void *p, size_t n, uint64_t offset)
{
    struct curvine_request q = {
        .op = CURVINE_WRITE, .file = file, .offset = offset, .value = {p, (uint32_t)min(n, 1u << 30)}};
    return curvine_run(file->cv, &q);
}

int curvine_fsync(struct curvine_file *file)
{
    struct curvine_request q = {.op = CURVINE_FSYNC, .file = file};
    return curvine_run(file->cv, &q);
}

int curvine_sync(struct curvine *cv, const char *directory)
{
    struct curvine_request q = {.op = CURVINE_FSYNC};
    int r = curvine_resolve(cv, directory, CURVINE_FOLLOW, &q.inode, NULL);
    return r < 0 ? r : curvine_run(cv, &q);
}

int curvine_file_close(struct curvine_file *file)
{
    if (!file)
        return 0;
    struct curvine_request q = {.op = CURVINE_RELEASE, .file = file};
    return curvine_run(file->cv, &q);
}
