/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing. A WRITE to a small file that lives inline changes memory here (it goes to the master with FLUSH, FSYNC, RELEASE or
 * after a second). Every other one is cut into pieces, and a piece goes to all replicas of its block under a grant:
 *
 *      NEW --granted, room, nothing overlapping before it--> SENT --all replicas have it--> gone
 *       ^                                                     | stale epoch: a new grant, once
 *       +-------------------------- PAUSED <------------------+ a worker does not answer: again, until the deadline
 *
 * Pieces that overlap are sent one after the other, so that replicas agree. A file that grows out of its inline content is
 * converted first: the content is written to block 0, other writes wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "client/client_file.h"

#define PIECES_MAX    32          /* of one WRITE at a time */
#define IN_FLIGHT_MAX (24u << 20) /* bytes, all files: below what a connection queues */
#define GRANT_AHEAD   4           /* blocks */
#define PAUSE_MIN_MS  10
#define PAUSE_MAX_MS  500

enum piece_state { PIECE_NEW, PIECE_SENT, PIECE_PAUSED };

struct client_piece;
struct piece_send {
    struct rpc_call rpc;
    struct client_piece *piece;
    struct client_worker *worker;
    struct client_shared_slot slot; /* where the worker reads it */
};

struct client_piece {
    struct list link; /* client_inode.pieces */
    struct client_inode *in;
    struct client_io *io; /* NULL: the conversion */
    struct client_bytes *bytes;
    const uint8_t *data;
    uint32_t block, offset, n, crc;
    enum piece_state state;
    bool regranted, summed; /* summed: crc is that of the data */
    unsigned outstanding, rounds;
    int result;
    uint64_t deadline_ns, version, epoch;
    struct loop_timer timer;
    struct piece_send sends[CLIENT_REPLICAS_MAX];
};

static void write_go(struct client_io *io);

/* ---- grants ------------------------------------------------------------------------------------------------------------- */

static void piece_end(struct client_piece *p, int result);

/* What waits for the grant that failed. */
static void fail_ungranted(struct client_inode *in, uint32_t first, uint32_t count, int result)
{
    for (bool again = true; again;) {
        again = false;
        list_for_each (e, &in->pieces) {
            struct client_piece *p = list_entry(e, struct client_piece, link);
            const struct client_extent *x = client_extent_find(in, p->block);
            if (p->state == PIECE_NEW && p->block - first < count && !(x && x->granted)) {
                piece_end(p, result);
                again = true;
                break;
            }
        }
    }
}

/* No worker takes data now: they are asked for again until their deadline. */
static void pause_ungranted(struct client_inode *in, uint32_t first, uint32_t count)
{
    list_for_each (e, &in->pieces) {
        struct client_piece *p = list_entry(e, struct client_piece, link);
        const struct client_extent *x = client_extent_find(in, p->block);
        if (p->state != PIECE_NEW || p->block - first >= count || (x && x->granted))
            continue;
        p->state = PIECE_PAUSED;
        p->result = -CV_NO_WORKER;
        loop_timer_start(in->cv->loop, &p->timer, min(clock_ns() + PAUSE_MAX_MS * NS_PER_MS / 4, p->deadline_ns));
    }
}

static int take_grant(struct client_inode *in, const struct msg_write_grant_answer *a)
{
    int r = 0;
    pthread_rwlock_wrlock(&in->lock);
    if (a->layout.block_shift && in->extent_count == 0)
        in->shift = a->layout.block_shift;
    rec_for_each (extent, e, &a->layout.extents) {
        const struct client_extent *old = client_extent_find(in, e.block);
        uint32_t written = old && old->ours ? old->valid : 0;
        if (r == 0)
            r = client_extent_put(in, &e, true);
        struct client_extent *x = client_extent_find(in, e.block);
        if (r == 0 && x) /* what we wrote under our grant before is content under this one */
            x->valid = max(x->valid, written);
    }
    in->base_version = a->layout.base_version;
    in->base_bytes = a->layout.base_bytes;
    pthread_rwlock_unlock(&in->lock);
    in->version = a->attr.version;
    in->generation++;
    client_chunks_drop_stale(in);
    return r;
}

static void on_grant(struct client_master_call *m, int result)
{
    struct client_inode *in = m->user;
    struct msg_write_grant_answer a;
    if (result == 0)
        result = msg_write_grant_answer_decode(m->answer.p, m->answer.n, &a);
    if (result == 0)
        result = take_grant(in, &a);
    in->index = max(in->index, m->q.index);
    uint64_t handle = m->q.offset;
    client_master_call_fini(m);
    free(m);
    in->grant_call = NULL;
    in->ios++;
    bool bad = result == -EBADF || result == -CV_SESSION_ENDED;
    if (bad && client_reopen_bad(in, handle)) {
        in->grant_next = 0;
    } else if (result == 0) {
        in->reopen_tries = 0;
        in->grant_next = in->grant_first + in->grant_count;
        fail_ungranted(in, in->grant_first, 1, -CV_BAD_MESSAGE);
    } else if (result == -CV_NO_WORKER && in->cv->state != CLIENT_CLOSING) {
        in->grant_next = 0;
        pause_ungranted(in, in->grant_first, in->grant_count);
    } else {
        client_layout_expire(in);
        fail_ungranted(in, in->grant_first, in->grant_count, result);
    }
    client_write_pump(in);
    in->ios--;
    client_inode_put(in);
}

static uint64_t near_worker(struct curvine *cv)
{
    struct client_content *c = cv->content;
    for (unsigned i = 0; i < c->worker_count; i++)
        if (c->workers[i]->local && c->workers[i]->up)
            return c->workers[i]->id;
    return 0;
}

/* A writer that goes on where the last grant ended gets more at a time. */
static void want_grant(struct client_inode *in, uint32_t block, uint64_t deadline_ns)
{
    if (in->grant_call || in->reopening || in->cv->state == CLIENT_CLOSING)
        return;
    struct client_master_call *m = calloc(1, sizeof(*m));
    if (!m)
        return;
    m->user = in;
    in->grant_call = m;
    in->grant_count = block && block == in->grant_next ? min(in->grant_count * 2, (uint32_t)GRANT_AHEAD) : 1;
    in->grant_first = block;
    struct msg_write_grant q = {
        .inode = in->inode,
        .handle = in->grant_handle,
        .first_block = block,
        .count = in->grant_count,
        .near = near_worker(in->cv),
    };
    m->q.offset = q.handle;
    client_head(in, &q.head);
    client_master_call(in->cv, m, MSG_write_grant, true, false, msg_write_grant_desc(), &q, deadline_ns, on_grant);
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------------- */

struct client_touched *client_touched_find(struct client_inode *in, uint64_t worker)
{
    for (unsigned i = 0; i < in->touched_count; i++)
        if (in->touched[i].worker == worker)
            return &in->touched[i];
    return NULL;
}

void client_touched_since(struct client_touched *t, uint64_t boot)
{
    if (!t->unsynced || !t->boot)
        t->boot = boot;
    t->unsynced = true;
}

/* It has something that fsync is to bring to its disk. */
static int touch(struct client_inode *in, uint64_t worker, uint64_t boot)
{
    struct client_touched *t = client_touched_find(in, worker);
    if (t) {
        client_touched_since(t, boot);
        return 0;
    }
    struct client_touched *more = reallocarray(in->touched, in->touched_count + 1, sizeof(*more));
    if (!more)
        return -ENOMEM;
    in->touched = more;
    more[in->touched_count++] = (struct client_touched){worker, boot, true};
    return 0;
}

static void converted(struct client_piece *p, int result)
{
    struct client_inode *in = p->in;
    in->converting = false;
    if (result == 0) {
        pthread_rwlock_wrlock(&in->lock);
        struct client_bytes *old = take(in->inline_data);
        pthread_rwlock_unlock(&in->lock);
        client_bytes_unref(old);
        in->inline_dirty = false;
        client_dirty(in);
    } else {
        if (in->inline_dirty && list_empty(&in->write_waiting))
            client_error(in, result);
        list_for_each (e, &in->write_waiting)
            list_entry(e, struct client_io, link)->error = result;
    }
}

static void piece_end(struct client_piece *p, int result)
{
    struct client_inode *in = p->in;
    struct client_io *io = p->io;
    if (result == 0) {
        client_chunks_drop(in, p->block, p->offset, p->n);
        pthread_rwlock_wrlock(&in->lock);
        struct client_extent *e = client_extent_find(in, p->block);
        if (e)
            e->valid = max(e->valid, p->offset + p->n);
        uint64_t end = ((uint64_t)p->block << in->shift) + p->offset + p->n;
        if (io && end > in->size)
            in->size = end;
        pthread_rwlock_unlock(&in->lock);
        client_dirty(in);
    }
    list_remove(&p->link);
    loop_timer_stop(in->cv->loop, &p->timer);
    in->ios++;
    if (!io) {
        converted(p, result);
        client_io_wake(&in->write_waiting);
    } else {
        io->outstanding--;
        if (result < 0 && !io->error)
            io->error = result;
    }
    client_bytes_unref(p->bytes);
    free(p);
    if (io && !io->outstanding && list_empty(&io->link))
        write_go(io);
    else if (io && !io->error && list_empty(&io->link))
        write_go(io); /* the next pieces */
    client_drained(in);
    in->ios--;
    client_inode_put(in);
}

static void on_piece_timer(struct loop_timer *timer)
{
    struct client_piece *p = container_of(timer, struct client_piece, timer);
    p->state = PIECE_NEW;
    if (clock_ns() >= p->deadline_ns)
        piece_end(p, p->result ? p->result : -CV_DEADLINE);
    else
        client_write_pump(p->in);
}

static void piece_answered(struct client_piece *p)
{
    struct client_inode *in = p->in;
    struct client_content *c = in->cv->content;
    c->write_bytes -= p->n;
    struct client_extent *e = client_extent_find(in, p->block);
    bool same = e && e->version == p->version && e->epoch == p->epoch;
    if (p->result == -CV_STALE_EPOCH && (!p->regranted || !same)) {
        p->regranted = same;
        p->state = PIECE_NEW;
        if (same)
            e->granted = false;
        p->result = 0;
        client_write_pump(in);
    } else if (client_worker_error(p->result) && clock_ns() < p->deadline_ns && in->cv->state != CLIENT_CLOSING &&
               !(p->io && p->io->error)) {
        if (same) /* perhaps others take its place */
            e->granted = false;
        client_map_refresh(in->cv);
        p->state = PIECE_PAUSED;
        uint64_t pause_ms = min((uint64_t)PAUSE_MIN_MS << min(p->rounds++, 6u), (uint64_t)PAUSE_MAX_MS);
        loop_timer_start(in->cv->loop, &p->timer, min(clock_ns() + pause_ms * NS_PER_MS, p->deadline_ns));
    } else {
        in->ios++;
        piece_end(p, p->result);
        client_write_pump(in);
        in->ios--;
        client_inode_put(in);
    }
    struct list room = LIST_INIT(room);
    list_append_all(&room, &c->write_room);
    for (struct list *r; (r = list_pop_front(&room));)
        client_write_pump(list_entry(r, struct client_inode, room));
}

static void on_sent(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct piece_send *s = container_of(call, struct piece_send, rpc);
    struct client_piece *p = s->piece;
    struct msg_block_write_answer m;
    client_shared_give_back(s->worker, &s->slot, f != NULL);
    if (result == 0)
        result = msg_block_write_answer_decode(f->body, f->header.body_len, &m);
    if (result == 0)
        result = touch(p->in, s->worker->id, m.boot);
    if (result < 0 && (!p->result || result == -CV_STALE_EPOCH))
        p->result = result;
    if (--p->outstanding == 0)
        piece_answered(p);
}

/* To one replica: by memory shared with it, or behind the message. */
static int send_to(struct client_piece *p, struct piece_send *s, struct client_worker *w, uint64_t deadline_ns)
{
    struct rpc_client *conn = w ? client_worker_conn(w, false) : NULL;
    if (!conn)
        return -CV_NO_WORKER;
    struct msg_block_write m = {.offset = p->offset};
    client_block_desc(p->in, p->block, &m.block);
    s->piece = p;
    s->worker = w;
    s->rpc.done = on_sent;
    if (client_shared_take(w, conn, p->n, &s->slot)) {
        m.crc = client_shared_fill(&s->slot, p->data, p->n, &m.shared_offset);
        m.shared_length = p->n;
        p->outstanding++;
        rpc_client_call(conn, &s->rpc, MSG_block_write, msg_block_write_desc(), &m, deadline_ns);
        return 0;
    }
    if (!p->summed)
        p->crc = crc32c(0, p->data, p->n);
    p->summed = true;
    m.crc = p->crc;
    struct buf body = {0};
    int r = msg_block_write_encode(&m, &body);
    if (r == 0) {
        p->outstanding++;
        rpc_client_call_body(conn, &s->rpc, MSG_block_write, 0, body.p, (uint32_t)body.n, p->data, p->n, deadline_ns);
    }
    buf_fini(&body);
    return r;
}

static void send_piece(struct client_piece *p, const struct client_extent *e)
{
    struct client_inode *in = p->in;
    struct curvine *cv = in->cv;
    p->state = PIECE_SENT;
    p->version = e->version;
    p->epoch = e->epoch;
    p->result = 0;
    p->outstanding = 1;
    cv->content->write_bytes += p->n;
    uint64_t now = clock_ns(), left = p->deadline_ns > now ? p->deadline_ns - now : 0;
    uint64_t until = min(p->deadline_ns, now + max(left / 2, NS_PER_S));
    for (unsigned i = 0; i < e->replica_count; i++) {
        int r = send_to(p, &p->sends[i], client_worker_find(cv, e->replicas[i]), until);
        if (r < 0)
            p->result = r;
    }
    client_chunks_drop(in, p->block, p->offset, p->n);
    bool sequential = p->io && p->io->end >= in->size_next && p->offset >= client_block_bytes(in) / 2;
    const struct client_extent *next = sequential ? client_extent_find(in, p->block + 1) : NULL;
    if (sequential && !(next && next->granted) && p->block + 1 == in->grant_next)
        want_grant(in, p->block + 1, p->deadline_ns);
    if (--p->outstanding == 0) { /* nobody to send it to */
        cv->content->write_bytes -= p->n;
        p->state = PIECE_PAUSED;
        client_map_refresh(cv);
        ((struct client_extent *)(uintptr_t)e)->granted = false;
        loop_timer_start(cv->loop, &p->timer, min(now + PAUSE_MAX_MS * NS_PER_MS / 4, p->deadline_ns));
    }
}

static bool overlaps_earlier(const struct client_inode *in, const struct client_piece *p)
{
    list_for_each (e, &in->pieces) {
        const struct client_piece *q = list_entry(e, struct client_piece, link);
        if (q == p)
            return false;
        if (q->block == p->block && q->offset < p->offset + p->n && p->offset < q->offset + q->n)
            return true;
    }
    return false;
}

void client_write_pump(struct client_inode *in)
{
    struct client_content *c = in->cv->content;
    list_for_each_safe (e, &in->pieces) {
        struct client_piece *p = list_entry(e, struct client_piece, link);
        if (p->state != PIECE_NEW || overlaps_earlier(in, p))
            continue;
        const struct client_extent *x = client_extent_find(in, p->block);
        if (!x || !x->granted) {
            want_grant(in, p->block, p->deadline_ns);
            continue;
        }
        if (c->write_bytes && c->write_bytes + p->n > IN_FLIGHT_MAX) {
            if (list_empty(&in->room))
                list_push_back(&c->write_room, &in->room);
            return;
        }
        send_piece(p, x);
    }
}

static struct client_piece *piece_new(struct client_inode *in, struct client_io *io, uint64_t at, const uint8_t *data,
                                      uint64_t n, uint64_t deadline_ns)
{
    struct client_piece *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->in = in;
    p->io = io;
    p->block = (uint32_t)(at >> in->shift);
    p->offset = (uint32_t)(at & (client_block_bytes(in) - 1));
    p->n =
        (uint32_t)min(n, (uint64_t)min(CLIENT_IO_MAX - p->offset % CLIENT_IO_MAX, client_block_bytes(in) - p->offset));
    p->data = data;
    p->deadline_ns = deadline_ns;
    loop_timer_init(&p->timer, on_piece_timer);
    list_push_back(&in->pieces, &p->link);
    return p;
}

void client_convert(struct client_inode *in, uint64_t deadline_ns)
{
    struct client_bytes *b = in->inline_data;
    if (in->converting || !b)
        return;
    struct client_piece *p = piece_new(in, NULL, 0, b->p, b->n, deadline_ns);
    if (!p)
        return;
    atomic_fetch_add(&b->refs, 1);
    p->bytes = b;
    in->converting = true;
    client_write_pump(in);
}

bool client_write_idle(const struct client_inode *in, uint64_t before)
{
    if (in->converting)
        return false;
    return list_empty(&in->writes) || list_entry(in->writes.next, struct client_io, order)->sequence >= before;
}

/* ---- WRITE ------------------------------------------------------------------------------------------------------------------- */

static void write_end(struct client_io *io)
{
    struct client_inode *in = io->inode;
    list_remove(&io->order);
    if (list_empty(&in->writes))
        in->size_next = in->size;
    in->ios++;
    client_io_finish(io, io->error ? io->error : (int)io->request->value.n);
    client_drained(in);
    in->ios--;
    client_inode_put(in);
}

static bool fits_inline(const struct client_inode *in, uint64_t end)
{
    return end <= INLINE_MAX && in->size <= INLINE_MAX && !in->extent_count && !in->base_bytes && !in->next_known &&
           list_empty(&in->pieces);
}

/* A new copy each time: readers may be looking at the old one. */
static int write_inline(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct client_bytes *old = in->inline_data;
    struct client_bytes *b = client_bytes_new((uint32_t)max(io->end, (uint64_t)(old ? old->n : 0)));
    if (!b)
        return -ENOMEM;
    if (old)
        memcpy(b->p, old->p, old->n);
    memcpy(b->p + io->position, io->request->value.p, io->request->value.n);
    pthread_rwlock_wrlock(&in->lock);
    in->inline_data = b;
    in->size = max((uint64_t)in->size, io->end);
    pthread_rwlock_unlock(&in->lock);
    client_bytes_unref(old);
    in->inline_dirty = true;
    client_dirty(in);
    io->position = io->end;
    return 0;
}

static int make_pieces(struct client_io *io)
{
    struct client_inode *in = io->inode;
    uint64_t start = io->end - io->request->value.n;
    while (io->position < io->end && io->outstanding < PIECES_MAX) {
        const uint8_t *data = (const uint8_t *)io->request->value.p + (io->position - start);
        struct client_piece *p = piece_new(in, io, io->position, data, io->end - io->position, io->deadline_ns);
        if (!p)
            return -ENOMEM;
        io->outstanding++;
        io->position += p->n;
    }
    client_write_pump(in);
    return 0;
}

/* Where it goes is decided once: behind what was written before when appending. */
static int place_write(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct curvine_request *q = io->request;
    if (in->flags & LAYOUT_READ_ONLY)
        return -EROFS;
    bool append = q->flags == CURVINE_WRITE_AS_OPENED ? q->file->flags & O_APPEND : q->flags == CURVINE_WRITE_AT_END;
    uint64_t at = append ? max(in->size_next, (uint64_t)in->size) : q->offset;
    if (at > (uint64_t)INT64_MAX - q->value.n || (at + q->value.n) >> in->shift >= UINT32_MAX)
        return -EFBIG;
    io->position = at;
    io->end = at + q->value.n;
    in->size_next = max(in->size_next, io->end);
    return 0;
}

static void tell_size(struct client_io *io)
{
    write_end(io);
}

static void write_go(struct client_io *io)
{
    struct client_inode *in = io->inode;
    if (io->expired && !io->error)
        io->error = -CV_DEADLINE;
    if (!io->error && !client_map_ready(io->cv)) {
        client_io_wait(io, &io->cv->content->map_waiting, write_go);
        return;
    }
    bool fresh = client_inode_dirty(in) || !list_empty(&in->pieces) || client_layout_ready(in, 0);
    if (!io->error && !io->marked && !fresh) {
        client_layout_want(in, 0, io->deadline_ns);
        client_io_wait(io, &in->layout_waiting, write_go);
        return;
    }
    if (!io->error && !io->marked && (in->truncating || !list_empty(&in->truncates) || in->converting)) {
        client_io_wait(io, &in->write_waiting, write_go);
        return;
    }
    if (!io->error && !io->marked) {
        in->grant_handle = io->request->file->handle;
        io->error = io->end ? 0 : place_write(io);
        if (io->error) {
            write_end(io);
            return;
        }
        if (fits_inline(in, io->end)) {
            io->marked = true;
            io->error = write_inline(io);
        } else if (in->inline_data) {
            client_convert(in, io->deadline_ns);
            client_io_wait(io, in->converting ? &in->write_waiting : &in->drain_waiting, write_go);
            return;
        }
        io->marked = true;
    }
    if (!io->error && io->position < io->end)
        io->error = make_pieces(io);
    if (io->outstanding)
        return;
    if (!io->error && in->flags & LAYOUT_SHARED && !io->state && client_inode_dirty(in)) {
        io->state = 1;
        client_commit_wait(io, 0, tell_size);
        return;
    }
    write_end(io);
}

void client_write(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct curvine_request *q = io->request;
    if ((q->file->flags & O_ACCMODE) == O_RDONLY || q->value.n == 0 || q->value.n > INT32_MAX) {
        client_io_finish(io, q->value.n == 0 ? 0 : q->value.n > INT32_MAX ? -EINVAL : -EBADF);
        return;
    }
    io->sequence = in->sequence++;
    list_push_back(&in->writes, &io->order);
    write_go(io);
}

/* It has an error: what is on its way is called back, what is not goes nowhere. */
void client_write_cancel(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct list unsent = LIST_INIT(unsent);
    list_for_each_safe (e, &in->pieces) {
        struct client_piece *p = list_entry(e, struct client_piece, link);
        if (p->io != io)
            continue;
        if (p->state == PIECE_SENT)
            for (unsigned i = 0; i < CLIENT_REPLICAS_MAX; i++) {
                if (rpc_call_busy(&p->sends[i].rpc))
                    rpc_client_cancel(&p->sends[i].rpc);
            }
        else {
            list_remove(e);
            list_push_back(&unsent, e);
        }
    }
    in->ios++;
    io->outstanding++; /* it stays until the last piece is looked at */
    for (struct list *e; (e = list_pop_front(&unsent));)
        piece_end(list_entry(e, struct client_piece, link), io->error);
    if (--io->outstanding == 0 && list_empty(&io->link))
        write_go(io);
    client_write_pump(in);
    in->ios--;
    client_inode_put(in);
}
