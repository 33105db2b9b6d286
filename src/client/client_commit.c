/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was written becomes known to the master: one write_commit at a time for an inode, with size, mtime, the lengths of its
 * blocks, or the whole content when it is inline. Asked for by FLUSH, FSYNC, RELEASE, before a truncation, and by the tick a
 * second after the first write.
 *
 *      FLUSH     drain -> commit
 *      FSYNC     drain -> block_sync at all workers written to -> commit -> a majority of the masters has it
 *      RELEASE   drain -> commit that closes the handle, or close
 *      SETATTR of a size, OPEN with O_TRUNC: nothing new begins; drain -> commit -> the request itself -> the new layout
 *
 * "dirty_generation" counts writes; a commit carries the count it was made at, so who waits knows when it is its turn.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/client_file.h"

#define COMMIT_AFTER_MS 1000
#define SYNC_AGAIN_MS   50

struct commit {
    struct client_master_call call;
    struct client_inode *in;
    uint64_t closing, handle;
    bool all;
    uint32_t count;
    struct rec_written_length lengths[];
};

static void truncates_next(struct client_inode *in);
static void commit_start(struct client_inode *in, uint64_t closing);

void client_dirty(struct client_inode *in)
{
    if (!client_inode_dirty(in))
        in->dirty_since_ns = clock_ns();
    in->dirty_generation++;
    pthread_rwlock_wrlock(&in->lock);
    in->mtime_ns = max(in->mtime_ns + 1, clock_wall_ns());
    pthread_rwlock_unlock(&in->lock);
}

/* ---- commits ----------------------------------------------------------------------------------------------------------- */

static struct commit *commit_new(struct client_inode *in)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < in->extent_count && n < COMMIT_LENGTHS_MAX; i++)
        n += in->extents[i].valid > in->extents[i].committed;
    struct commit *c = calloc(1, sizeof(*c) + n * sizeof(c->lengths[0]));
    if (!c)
        return NULL;
    c->in = in;
    uint32_t i = 0;
    for (; i < in->extent_count && c->count < n; i++) {
        const struct client_extent *e = &in->extents[i];
        if (e->valid > e->committed)
            c->lengths[c->count++] = (struct rec_written_length){
                .block = e->block, .version = e->version, .epoch = e->epoch, .valid_length = e->valid};
    }
    c->all = c->count < COMMIT_LENGTHS_MAX;
    return c;
}

static void take_commit(struct commit *c, const struct msg_write_commit_answer *a)
{
    struct client_inode *in = c->in;
    pthread_rwlock_wrlock(&in->lock);
    for (uint32_t i = 0; i < c->count; i++) {
        struct client_extent *e = client_extent_find(in, c->lengths[i].block);
        if (e && e->version == c->lengths[i].version && e->epoch == c->lengths[i].epoch)
            e->committed = max(e->committed, c->lengths[i].valid_length);
    }
    pthread_rwlock_unlock(&in->lock);
    in->version = a->attr.version;
    in->generation++;
    in->unsynced = true;
    in->reopen_tries = 0;
    in->index = max(in->index, c->call.q.index);
    if (c->closing)
        in->closed_handle = c->closing;
    if (!c->all)
        return;
    in->committed_generation = in->commit_generation;
    if (client_inode_dirty(in))
        in->dirty_since_ns = clock_ns();
    else
        in->inline_dirty = false;
}

/* It will never be accepted: forget it, but not that it failed. */
static void commit_refused(struct commit *c, int result)
{
    struct client_inode *in = c->in;
    log_warn(result, "what was written to inode %llu is not accepted", (unsigned long long)in->inode);
    pthread_rwlock_wrlock(&in->lock);
    for (uint32_t i = 0; i < c->count; i++) {
        struct client_extent *e = client_extent_find(in, c->lengths[i].block);
        if (e && e->epoch == c->lengths[i].epoch) {
            e->committed = e->valid;
            e->granted = e->ours = false;
        }
    }
    pthread_rwlock_unlock(&in->lock);
    in->committed_generation = in->commit_generation;
    in->inline_dirty = in->inline_dirty && client_inode_dirty(in);
    in->generation++;
    client_layout_expire(in);
}

/* A commit nobody answered is an error for what it carried; later writes wait for the next one. A refused one took with it
 * what was written to its blocks since, so it fails whoever waits, and is kept for those who will ask. */
static void wake_committed(struct client_inode *in, int error, bool refused)
{
    struct list waiting = LIST_INIT(waiting);
    uint64_t told = in->commit_generation;
    bool all = refused || in->cv->state == CLIENT_CLOSING;
    list_append_all(&waiting, &in->commit_waiting);
    for (struct list *e; (e = list_pop_front(&waiting));) {
        struct client_io *io = list_entry(e, struct client_io, link);
        bool failed = error < 0 && (all || io->generation <= in->commit_generation);
        if (!failed && io->generation > in->committed_generation) {
            list_push_back(&in->commit_waiting, &io->link);
            continue;
        }
        if (failed) {
            io->error = error;
            client_error_told(io->request->file);
            told = max(told, io->generation);
        }
        io->resume(io);
    }
    if (refused && told < in->dirty_generation)
        client_error(in, error); /* also to those who were told, and wrote since */
    if (!list_empty(&in->commit_waiting))
        commit_start(in, 0);
}

static void on_commit(struct client_master_call *m, int result)
{
    struct commit *c = m->user;
    struct client_inode *in = c->in;
    struct msg_write_commit_answer a;
    if (result == 0)
        result = msg_write_commit_answer_decode(m->answer.p, m->answer.n, &a);
    in->commit_call = NULL;
    bool later = client_worker_error(result);                   /* no master: again with the next tick */
    bool bad = result == -EBADF || result == -CV_SESSION_ENDED; /* a commit may happen twice */
    bool again = bad && client_reopen_bad(in, c->handle);
    if (again) {
        client_master_call_fini(m);
        free(c);
        in->ios++;
        client_drained(in); /* sent again when the handle is good, which may be now */
        in->ios--;
        client_inode_put(in);
        return;
    }
    if (result == 0)
        take_commit(c, &a);
    else if (!later)
        commit_refused(c, result);
    if (result < 0 && !later)
        client_error(in, result);
    if (later)
        in->dirty_since_ns = clock_ns();
    client_master_call_fini(m);
    free(c);
    in->ios++;
    wake_committed(in, result, result < 0 && !later);
    if (result < 0 && later && !list_empty(&in->truncates) && in->cv->state != CLIENT_CLOSING)
        in->dirty_since_ns = 0; /* a truncation waits for it until its deadline */
    client_drained(in);
    in->ios--;
    client_inode_put(in);
}

/* closing: with this handle, which is closed by it. */
static void commit_start(struct client_inode *in, uint64_t closing)
{
    if (in->commit_call || in->reopening || !client_inode_dirty(in) || in->cv->state == CLIENT_CLOSING)
        return;
    if (in->inline_dirty && (in->extent_count || in->base_bytes)) { /* it has blocks already: goes to block 0 */
        client_convert(in, clock_ns() + in->cv->options.timeout_ms * NS_PER_MS);
        return;
    }
    struct commit *c = commit_new(in);
    struct buf list = {0};
    for (uint32_t i = 0; c && i < c->count; i++)
        if (rec_written_length_append(&list, &c->lengths[i]) < 0)
            c->all = false;
    if (!c)
        return;
    in->commit_call = &c->call;
    in->commit_generation = in->dirty_generation;
    c->call.user = c;
    c->closing = c->all && in->writes.next == &in->writes ? closing : 0;
    struct msg_write_commit q = {
        .inode = in->inode,
        .handle = closing ? closing : in->grant_handle,
        .valid = COMMIT_SIZE | COMMIT_MTIME,
        .size = in->size,
        .mtime_ns = in->mtime_ns,
        .lengths = wire_list_of(&list, c->count),
    };
    c->handle = q.handle;
    if (c->count)
        q.valid |= COMMIT_LENGTHS;
    if (c->closing)
        q.valid |= COMMIT_CLOSE;
    if (in->inline_dirty && in->inline_data) {
        q.valid |= COMMIT_INLINE;
        q.inline_data = (struct text){(const char *)in->inline_data->p, in->inline_data->n};
    }
    client_head(in, &q.head);
    client_master_call(in->cv, &c->call, MSG_write_commit, true, false, msg_write_commit_desc(), &q,
                       clock_ns() + in->cv->options.timeout_ms * NS_PER_MS, on_commit);
    buf_fini(&list);
}

void client_commit_wait(struct client_io *io, uint64_t closing, void (*resume)(struct client_io *))
{
    struct client_inode *in = io->inode;
    io->generation = in->dirty_generation;
    client_io_wait(io, &in->commit_waiting, resume);
    commit_start(in, closing);
}

/* ---- FLUSH, FSYNC, RELEASE -------------------------------------------------------------------------------------------------- */

enum flush_state { FLUSH_DRAIN, FLUSH_SYNC, FLUSH_COMMIT, FLUSH_COMMITTED, FLUSH_DURABLE, FLUSH_CLOSE };

struct client_sync {
    struct client_io *io; /* who waits for it; NULL: not any more, it goes on */
    struct client_inode *in;
    uint64_t deadline_ns;
    unsigned count, outstanding;
    struct sync_call {
        struct rpc_call rpc;
        struct loop_timer timer;
        struct client_sync *sync;
        uint64_t worker, boot;
        int result;
    } calls[];
};

static void flush_go(struct client_io *io);
static void sync_send(struct sync_call *s);

static void sync_ended(struct client_sync *y)
{
    struct client_io *io = y->io;
    struct client_inode *in = y->in;
    if (--y->outstanding)
        return;
    for (unsigned i = 0; i < y->count; i++) {
        const struct sync_call *s = &y->calls[i];
        struct client_touched *t = client_touched_find(in, s->worker);
        if (s->result == 0)
            continue;
        if (io && !io->error)
            io->error = s->result;
        if (s->result == -CV_WRITES_LOST) { /* what has been written since is of another boot */
            client_error(in, s->result);
            continue;
        }
        t->boot = s->boot; /* still to be done, also if more was written meanwhile */
        t->unsynced = true;
    }
    free(y);
    in->sync = NULL;
    in->ios++;
    if (io) {
        io->sync = NULL;
        flush_go(io);
    }
    client_io_wake(&in->sync_waiting);
    in->ios--;
    client_inode_put(in);
}

static void on_sync(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct sync_call *s = container_of(call, struct sync_call, rpc);
    const struct client_sync *y = s->sync;
    struct curvine *cv = y->in->cv;
    if (client_worker_error(result) && clock_ns() < y->deadline_ns && cv->state != CLIENT_CLOSING) {
        client_map_refresh(cv);
        loop_timer_start(cv->loop, &s->timer, clock_ns() + SYNC_AGAIN_MS * NS_PER_MS);
        return;
    }
    s->result = result;
    sync_ended(s->sync);
}

static void on_sync_timer(struct loop_timer *timer)
{
    sync_send(container_of(timer, struct sync_call, timer));
}

static void sync_send(struct sync_call *s)
{
    struct client_inode *in = s->sync->in;
    struct client_worker *w = client_worker_find(in->cv, s->worker);
    struct rpc_client *conn = w ? client_worker_conn(w, false) : NULL;
    if (!conn) {
        s->result = -CV_NO_WORKER;
        sync_ended(s->sync);
        return;
    }
    struct msg_block_sync m = {.inode = in->inode, .boot = s->boot};
    s->rpc.done = on_sync;
    rpc_client_call(conn, &s->rpc, MSG_block_sync, msg_block_sync_desc(), &m, s->sync->deadline_ns);
}

static unsigned unsynced(const struct client_inode *in)
{
    unsigned n = 0;
    for (unsigned i = 0; i < in->touched_count; i++)
        n += in->touched[i].unsynced;
    return n;
}

/* One at a time: a second one would find nothing to sync while the first is not done. */
static void sync_start(struct client_io *io)
{
    struct client_inode *in = io->inode;
    unsigned n = unsynced(in);
    struct client_sync *y = calloc(1, sizeof(*y) + n * sizeof(y->calls[0]));
    if (!y) {
        io->error = -ENOMEM;
        flush_go(io);
        return;
    }
    io->sync = in->sync = y;
    y->io = io;
    y->in = in;
    y->deadline_ns = io->deadline_ns;
    for (unsigned i = 0; i < in->touched_count; i++) {
        if (!in->touched[i].unsynced)
            continue;
        struct sync_call *s = &y->calls[y->count++];
        s->sync = y;
        s->worker = in->touched[i].worker;
        s->boot = in->touched[i].boot;
        loop_timer_init(&s->timer, on_sync_timer);
        in->touched[i].unsynced = false;
    }
    y->outstanding = y->count + 1;
    for (unsigned i = 0; i < y->count; i++)
        sync_send(&y->calls[i]);
    sync_ended(y);
}

/* Waits for a majority. */
struct client_durable {
    struct client_master_call call;
    struct client_io *io; /* as in struct client_sync */
    struct client_inode *in;
};

static void on_durable(struct client_master_call *m, int result)
{
    struct client_durable *d = m->user;
    struct client_io *io = d->io;
    struct client_inode *in = d->in;
    struct msg_sync_answer a;
    if (result == 0)
        result = msg_sync_answer_decode(m->answer.p, m->answer.n, &a);
    if (result == 0)
        client_acks_told(in->cv, a.early, a.generation, 0);
    if (result == 0 && in->unsure) {
        result = -CV_ACK_LOST;
        in->unsure = false;
        client_error(in, result);
    }
    in->unsynced |= result != 0;
    client_master_call_fini(m);
    free(d);
    if (io) {
        io->durable = NULL;
        if (!io->error)
            io->error = result;
        io->state = FLUSH_DURABLE + 1;
        flush_go(io);
    }
    in->ios--;
    client_inode_put(in);
}

/* The master answers before a majority has what it did: wait until one has all of this file, its name included. */
static void wait_durable(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct client_durable *d = calloc(1, sizeof(*d));
    if (!d) {
        io->error = -ENOMEM;
        io->state = FLUSH_CLOSE;
        flush_go(io);
        return;
    }
    struct msg_sync q = {.inode = in->inode};
    client_head(in, &q.head);
    d->call.user = d;
    d->io = io;
    d->in = in;
    io->durable = d;
    in->unsynced = false;
    in->ios++;
    client_master_call(io->cv, &d->call, MSG_sync, false, false, msg_sync_desc(), &q, io->deadline_ns, on_durable);
}

/* What is under way to disks and masters goes on without it. */
void client_flush_leave(struct client_io *io)
{
    if (io->sync)
        io->sync->io = NULL;
    else if (io->durable)
        io->durable->io = NULL;
    else
        return;
    io->sync = NULL;
    io->durable = NULL;
    flush_go(io);
}

/* At the end: one that nobody waits for may be pausing between two attempts. */
void client_sync_forget(struct client_inode *in)
{
    struct client_sync *y = take(in->sync);
    for (unsigned i = 0; y && i < y->count; i++)
        loop_timer_stop(in->cv->loop, &y->calls[i].timer);
    free(y);
}

static void on_closed(struct client_master_call *m, int result)
{
    struct client_io *io = m->user;
    client_master_call_fini(m);
    free(m);
    io->state = FLUSH_CLOSE + 1;
    flush_go(io);
}

static bool close_handle(struct client_io *io)
{
    struct client_inode *in = io->inode;
    uint64_t handle = io->request->file->handle;
    if (in->closed_handle == handle && handle)
        return false;
    struct client_master_call *m = calloc(1, sizeof(*m));
    if (!m)
        return false; /* it goes with the session */
    struct msg_close q = {.inode = in->inode, .handle = handle};
    client_head(in, &q.head);
    m->user = io;
    client_master_call(io->cv, m, MSG_close, false, false, msg_close_desc(), &q, io->deadline_ns, on_closed);
    return true;
}

static void flush_end(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct curvine_file *f = io->request->file;
    bool writer = (f->flags & O_ACCMODE) != O_RDONLY;
    int result = io->error;
    if (writer || io->request->op == CURVINE_FSYNC) {
        if (!result && f->errors_told != in->error_count)
            result = in->error;
        client_error_told(f);
    }
    in->ios++;
    if (io->request->op == CURVINE_RELEASE) {
        assert(!f->reopening);
        client_file_free(f);
        io->request->file = NULL;
    }
    client_io_finish(io, result);
    in->ios--;
    client_inode_put(in);
}

static void flush_go(struct client_io *io)
{
    struct client_inode *in = io->inode;
    enum curvine_op op = io->request->op;
    struct curvine_file *f = io->request->file;
    if (io->expired && !io->error)
        io->error = -CV_DEADLINE;
    if (io->sync)
        return; /* its end comes here */
    if (io->error && io->state < FLUSH_CLOSE)
        io->state = FLUSH_CLOSE;
    for (;; io->state++) {
        switch (io->state) {
        case FLUSH_DRAIN:
            if (!client_write_idle(in, io->sequence)) {
                client_io_wait(io, &in->drain_waiting, flush_go);
                return;
            }
            continue;
        case FLUSH_SYNC:
            if (op != CURVINE_FSYNC || (!in->sync && !unsynced(in)))
                continue;
            if (in->sync) {
                client_io_wait(io, &in->sync_waiting, flush_go);
                return;
            }
            io->state = FLUSH_COMMIT;
            sync_start(io);
            return;
        case FLUSH_COMMIT: {
            bool writer = (f->flags & O_ACCMODE) != O_RDONLY;
            if (!writer || !client_inode_dirty(in))
                continue;
            io->state = FLUSH_COMMITTED;
            client_commit_wait(io, op == CURVINE_RELEASE ? f->handle : 0, flush_go);
            return;
        }
        case FLUSH_COMMITTED: continue;
        case FLUSH_DURABLE:
            if (op != CURVINE_FSYNC || (!client_acks_early(io->cv) && !in->unsure))
                continue;
            wait_durable(io);
            return;
        case FLUSH_CLOSE:
            if (op == CURVINE_RELEASE)
                client_reopen_forget(f);
            if (op == CURVINE_RELEASE && f->reopening) { /* its new handle is to be closed, and it is in use */
                client_io_wait(io, &in->drain_waiting, flush_go);
                return;
            }
            f->closing = op == CURVINE_RELEASE;
            if (op == CURVINE_RELEASE && !io->expired && close_handle(io))
                return;
            continue;
        default: flush_end(io); return;
        }
    }
}

void client_flush(struct client_io *io)
{
    io->sequence = io->inode->sequence;
    flush_go(io);
}

/* ---- truncation ------------------------------------------------------------------------------------------------------------------ */

bool client_truncate_hold(struct client_call *call)
{
    struct curvine_request *q = call->request;
    bool truncates = !call->answer && ((q->op == CURVINE_SETATTR && q->valid & CURVINE_SET_SIZE) ||
                                       (q->op == CURVINE_OPEN && q->flags & O_TRUNC));
    struct client_inode *in = truncates ? client_inode_find(call->cv, q->inode) : NULL;
    if (!in)
        return false;
    call->exclusive = true;
    in->ios++;
    client_call_hold(call, &in->truncates);
    truncates_next(in);
    return true;
}

static void truncates_next(struct client_inode *in)
{
    if (in->truncating || list_empty(&in->truncates) || !list_empty(&in->pieces) || in->converting || in->commit_call)
        return;
    list_for_each (e, &in->writes) /* those that wait for us are not in the way */
        if (list_entry(e, struct client_io, order)->marked)
            return;
    if (client_inode_dirty(in)) {
        if (in->dirty_since_ns) /* not again at once when no master answers */
            commit_start(in, 0);
        return;
    }
    in->truncating = list_entry(list_pop_front(&in->truncates), struct client_call, link);
    client_call_go(in->truncating);
}

void client_truncate_ended(struct client_call *call)
{
    struct client_inode *in = client_inode_find(call->cv, call->request->inode);
    call->exclusive = false;
    if (!in)
        return;
    if (in->truncating == call)
        in->truncating = NULL;
    truncates_next(in);
    if (!in->truncating)
        client_io_wake(&in->write_waiting);
    in->ios--;
    client_inode_put(in);
}

/* All grants are over. l NULL, or without a block size: the layout must be asked for. */
void client_truncated(struct client_inode *in, const struct curvine_attr *attr, const struct rec_layout *l)
{
    in->generation++;
    in->inline_dirty = false;
    in->committed_generation = in->dirty_generation;
    pthread_rwlock_wrlock(&in->lock);
    for (uint32_t i = 0; i < in->extent_count; i++) {
        in->extents[i].granted = in->extents[i].ours = false;
        in->extents[i].committed = in->extents[i].valid;
    }
    in->grant_next = 0;
    in->size = attr->size;
    in->size_next = attr->size;
    in->mtime_ns = attr->mtime_ns;
    pthread_rwlock_unlock(&in->lock);
    list_for_each (e, &in->writes) { /* those that wait for us: what is appended goes behind the new end */
        struct client_io *io = list_entry(e, struct client_io, order);
        if (!io->marked)
            io->end = 0;
    }
    in->version = attr->version;
    client_chunks_drop(in, 0, 0, UINT32_MAX);
    if (!l || !l->block_shift || client_layout_apply(in, l, false) < 0)
        client_layout_expire(in);
}

/* ---- what others wait for -------------------------------------------------------------------------------------------------------- */

void client_drained(struct client_inode *in)
{
    in->ios++;
    client_io_wake(&in->drain_waiting);
    if (!list_empty(&in->commit_waiting))
        commit_start(in, 0);
    truncates_next(in);
    if (!in->truncating && list_empty(&in->truncates) && !in->converting)
        client_io_wake(&in->write_waiting);
    in->ios--;
}

static void tick_inode(struct client_inode *in, uint64_t now)
{
    if (client_inode_dirty(in) && now >= in->dirty_since_ns + COMMIT_AFTER_MS * NS_PER_MS) {
        commit_start(in, 0);
        if (!in->dirty_since_ns)
            in->dirty_since_ns = now;
    }
    if (atomic_load_explicit(&in->used, memory_order_relaxed)) {
        in->used = false;
        if (now + in->lease_ms * NS_PER_MS * 3 / 4 >= in->until_ns && in->until_ns)
            client_layout_want(in, 0, UINT64_MAX);
    }
}

static void on_tick(struct loop_timer *timer)
{
    struct client_content *c = container_of(timer, struct client_content, tick);
    struct curvine *cv = c->cv;
    uint64_t now = clock_ns();
    if (cv->state == CLIENT_CLOSING)
        return;
    for (size_t i = 0; i < array_size(c->inodes) && c->inode_count; i++)
        list_for_each_safe (e, &c->inodes[i])
            tick_inode(list_entry(e, struct client_inode, link), now);
    if (c->backing_count)
        client_backings_sweep(cv, false);
    client_workers_probe(cv);
    bool warm = client_shared_tick(cv);
    if (c->inode_count || c->backing_count || warm)
        loop_timer_start(cv->loop, &c->tick, now + CLIENT_TICK_MS * NS_PER_MS);
}

void client_tick_start(struct curvine *cv)
{
    struct client_content *c = cv->content;
    c->tick.fire = on_tick;
    if (!loop_timer_running(&c->tick))
        loop_timer_start(cv->loop, &c->tick, clock_ns() + CLIENT_TICK_MS * NS_PER_MS);
}
