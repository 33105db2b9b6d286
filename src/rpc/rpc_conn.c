/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send queue is a list of segments: buffers of our own that small frames are appended to, lent memory, and ranges of
 * files. A flush gives the memory segments at the head of the queue to one sendmsg; a file segment is sent alone by
 * sendfile. A segment that is being sent is not appended to.
 *
 * Frames arrive in a buffer of the connection; one that is larger gets a buffer of its own size, from where its bulk is
 * received without another copy, and which frame() may keep. Nothing may touch the buffer while a receive is in flight:
 * frames are parsed only when none is.
 */
#include "rpc/rpc_conn.h"

#include <assert.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "rpc/rpc_buffer.h"

#define RECEIVE_BYTES (64u << 10)     /* the connection's receive buffer; larger frames get one of their own */
#define RECEIVE_MIN   4096            /* receive no fewer bytes when moving what is there makes room for more */
#define MEMORY_PAUSE  (5 * NS_PER_MS) /* before asking again for a buffer that the limit refused */
#define FD_SETS_MAX   8               /* sets of descriptors received whose frames have not come yet */
#define KEEPALIVE_S   20
#define SEGMENT_BYTES (64u << 10) /* of small frames that are sent together */
#define SPARE_MAX     2           /* empty segments kept */
#define VECTOR_MAX    64

enum segment_kind { SEGMENT_OWN, SEGMENT_LENT, SEGMENT_FILE };

struct segment {
    struct list link;
    enum segment_kind kind;
    bool full; /* is being sent: nothing is appended any more */
    uint32_t n, sent;
    struct rpc_release *release;
    unsigned fd_count; /* descriptors that go with its first byte */
    int fds[NET_FDS_MAX];
    union {
        const uint8_t *lent;
        struct {
            int fd;
            uint64_t offset;
        };
    };
    uint32_t room;
    uint8_t bytes[]; /* SEGMENT_OWN */
};

struct fd_set_in {
    int fd[NET_FDS_MAX];
    unsigned n; /* 0: they were lost on the way */
};

struct rpc_conn {
    struct loop *loop;
    int fd;
    bool is_unix;
    const struct rpc_conn_ops *ops;
    void *user;
    struct rpc_conn_limits limits;

    uint8_t *own; /* RECEIVE_BYTES */
    uint8_t
        *in; /* own, or the buffer of one large frame that begins at 0; received and not yet taken: [taken, filled) */
    uint32_t in_room, in_filled, in_taken;
    struct io_op receive;
    bool receiving, parsing;
    bool congested_in;       /* the send queue is too long: no frames are taken */
    bool held;               /* rpc_conn_pause() */
    struct loop_timer again; /* for a buffer */

    struct fd_set_in *fd_sets; /* FD_SETS_MAX, with receive_fds: [first, first + count) */
    unsigned fd_first, fd_set_count;
    struct msghdr message;
    struct iovec in_vector;
    union net_control in_control, out_control;

    struct list queue; /* segments to send */
    uint64_t queued;   /* bytes of them */
    struct segment *spare[SPARE_MAX];
    unsigned spare_count;
    struct loop_hook flush;
    struct io_op send;
    struct iovec vector[VECTOR_MAX];
    bool sending, congested;

    bool closing, finishing;
    int reason;
    struct loop_job end;
    char peer[NET_TEXT_MAX];
};

static void parse(struct rpc_conn *c);
static void start_receive(struct rpc_conn *c);
static void start_send(struct rpc_conn *c);

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void segment_drop(struct rpc_conn *c, struct segment *s)
{
    list_remove(&s->link);
    if (s->release)
        s->release->run(s->release);
    if (s->kind == SEGMENT_OWN && s->room == SEGMENT_BYTES && c->spare_count < SPARE_MAX && !c->closing)
        c->spare[c->spare_count++] = s;
    else
        free(s);
}

/* The first set of descriptors is done with: close what nobody took. */
static void fd_set_drop(struct rpc_conn *c)
{
    struct fd_set_in *set = &c->fd_sets[c->fd_first];
    for (unsigned i = 0; i < set->n; i++)
        close_fd(set->fd[i]);
    c->fd_first = (c->fd_first + 1) % FD_SETS_MAX;
    c->fd_set_count--;
}

static void free_conn(struct loop_job *job)
{
    struct rpc_conn *c = container_of(job, struct rpc_conn, end);
    list_for_each_safe (e, &c->queue)
        segment_drop(c, list_entry(e, struct segment, link));
    c->fd = loop_close(c->loop, c->fd);
    c->ops->closed(c, c->reason, c->user);
    while (c->spare_count)
        free(c->spare[--c->spare_count]);
    if (c->in != c->own)
        rpc_buffer_free(c->in);
    free(c->own);
    while (c->fd_set_count)
        fd_set_drop(c);
    free(c->fd_sets);
    free(c);
}

static void end_when_quiet(struct rpc_conn *c)
{
    if (c->closing && !c->receiving && !c->sending && !c->parsing && !c->end.run) {
        c->end.run = free_conn;
        loop_post(c->loop, &c->end);
    }
}

void rpc_conn_close(struct rpc_conn *c, int reason)
{
    assert_on_loop(c->loop);
    if (c->closing)
        return;
    c->closing = true;
    c->reason = reason;
    loop_hook_cancel(c->loop, &c->flush);
    loop_timer_stop(c->loop, &c->again);
    if (c->receiving)
        io_cancel(&c->receive);
    if (c->sending)
        io_cancel(&c->send);
    end_when_quiet(c);
}

void rpc_conn_finish(struct rpc_conn *c, int reason)
{
    assert_on_loop(c->loop);
    if (c->closing || c->finishing)
        return;
    c->finishing = true;
    c->reason = reason;
    if (list_empty(&c->queue))
        rpc_conn_close(c, reason);
}

static void describe_peer(struct rpc_conn *c, const struct net_credentials *who)
{
    struct net_address address;
    if (c->is_unix)
        snprintf(c->peer, sizeof(c->peer), "unix:pid %d", (int)who->pid);
    else if (net_peer(c->fd, &address) == 0)
        net_text(&address, c->peer);
    else
        snprintf(c->peer, sizeof(c->peer), "?");
}

static bool may_take(const struct rpc_conn *c)
{
    return !c->closing && !c->finishing && !c->congested_in && !c->held;
}

/* The end of a turn: frames that were held back, then everything queued. */
static void on_flush(struct loop_hook *hook)
{
    struct rpc_conn *c = container_of(hook, struct rpc_conn, flush);
    if (may_take(c) && !c->receiving && !loop_timer_running(&c->again))
        parse(c);
    if (!c->sending && !c->closing && !list_empty(&c->queue))
        start_send(c);
}

static void on_again(struct loop_timer *timer)
{
    struct rpc_conn *c = container_of(timer, struct rpc_conn, again);
    if (may_take(c) && !c->receiving)
        parse(c);
}

int rpc_conn_new(struct loop *loop, int fd, const struct rpc_conn_ops *ops, void *user,
                 const struct rpc_conn_limits *limits, struct rpc_conn **ret)
{
    struct rpc_conn *c = calloc(1, sizeof(*c));
    uint8_t *own = malloc(RECEIVE_BYTES);
    struct net_credentials who;
    bool is_unix = net_credentials(fd, &who) == 0, fds = is_unix && limits && limits->receive_fds;
    struct fd_set_in *fd_sets = fds ? calloc(FD_SETS_MAX, sizeof(*fd_sets)) : NULL;
    if (!c || !own || (fds && !fd_sets)) {
        free(c);
        free(own);
        free(fd_sets);
        loop_close(loop, fd);
        return -ENOMEM;
    }
    c->loop = loop;
    c->fd = fd;
    c->is_unix = is_unix;
    c->ops = ops;
    c->user = user;
    if (limits)
        c->limits = *limits;
    c->limits.send_high = c->limits.send_high ? c->limits.send_high : 4u << 20;
    c->limits.send_max = c->limits.send_max ? c->limits.send_max : 64u << 20;
    rpc_conn_set_max(c, c->limits.body_max, c->limits.data_max);
    c->in = c->own = own;
    c->in_room = RECEIVE_BYTES;
    c->fd_sets = fd_sets;
    list_init(&c->queue);
    loop_hook_init(&c->flush, on_flush);
    loop_timer_init(&c->again, on_again);
    describe_peer(c, &who);
    RPC_COUNT(c->limits.metrics, connections_opened, 1);
    if (!is_unix)
        net_keepalive(fd, KEEPALIVE_S); /* without it: a peer that lost power is never missed */
    start_receive(c);
    *ret = c;
    return 0;
}

void rpc_conn_set_max(struct rpc_conn *c, uint32_t body_max, uint32_t data_max)
{
    c->limits.body_max = body_max ? body_max : FRAME_BODY_MAX;
    c->limits.data_max = data_max ? data_max : FRAME_DATA_MAX;
}

void rpc_conn_pause(struct rpc_conn *c)
{
    assert_on_loop(c->loop);
    c->held = true;
}

void rpc_conn_resume(struct rpc_conn *c)
{
    assert_on_loop(c->loop);
    if (!c->held)
        return;
    c->held = false;
    if (!c->parsing && !c->closing)
        loop_at_turn_end(c->loop, &c->flush);
}

bool rpc_conn_is_open(const struct rpc_conn *c)
{
    return !c->closing && !c->finishing;
}

void rpc_conn_set_ops(struct rpc_conn *c, const struct rpc_conn_ops *ops, void *user)
{
    assert_on_loop(c->loop);
    c->ops = ops;
    c->user = user;
}

const char *rpc_conn_peer(const struct rpc_conn *c)
{
    return c->peer;
}

int rpc_conn_credentials(const struct rpc_conn *c, struct net_credentials *ret)
{
    return net_credentials(c->fd, ret);
}

int rpc_conn_groups(const struct rpc_conn *c, gid_t *groups, unsigned limit)
{
    return net_groups(c->fd, groups, limit);
}

uint64_t rpc_conn_queued(const struct rpc_conn *c)
{
    return c->queued;
}

bool rpc_conn_congested(const struct rpc_conn *c)
{
    return c->congested;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------- */

/* Make what is held begin at 0. */
static void move_to_front(struct rpc_conn *c)
{
    memmove(c->in, c->in + c->in_taken, c->in_filled - c->in_taken);
    c->in_filled -= c->in_taken;
    c->in_taken = 0;
}

/* Room for the frame that begins at in_taken and needs total bytes; what is held is part of it.
 * Errors: -EAGAIN no buffer of that size now. */
static int make_room(struct rpc_conn *c, uint32_t total)
{
    if (c->in_taken + total <= c->in_room)
        return 0;
    if (total <= c->in_room) {
        move_to_front(c);
        return 0;
    }
    uint8_t *large = rpc_buffer_new(total);
    if (!large)
        return -EAGAIN;
    c->in_filled -= c->in_taken;
    memcpy(large, c->in + c->in_taken, c->in_filled);
    c->in = large;
    c->in_room = total;
    c->in_taken = 0;
    return 0;
}

/* The frame in the large buffer was handled: back to our own, which is empty. */
static void leave_large(struct rpc_conn *c)
{
    rpc_buffer_free(c->in);
    c->in = c->own;
    c->in_room = RECEIVE_BYTES;
    c->in_filled = c->in_taken = 0;
}

uint8_t *rpc_conn_take_buffer(struct rpc_conn *c)
{
    assert(c->parsing);
    if (c->in == c->own)
        return NULL;
    return take(c->in);
}

/* Hand over a complete frame of total bytes. */
static int deliver(struct rpc_conn *c, struct rpc_frame *f, uint32_t total)
{
    f->body = c->in + c->in_taken + FRAME_HEADER_SIZE;
    f->data = f->body + f->header.body_len;
    if (f->header.body_len && crc32c(0, f->body, f->header.body_len) != f->header.body_crc)
        return -CV_BAD_CHECKSUM;
    bool with_fds = f->header.flags & FRAME_FDS;
    if (with_fds) {
        if (!c->fd_set_count)
            return -CV_BAD_MESSAGE;
        f->fds = c->fd_sets[c->fd_first].fd;
        f->fd_count = c->fd_sets[c->fd_first].n;
    }
    c->in_taken += total;
    RPC_COUNT(c->limits.metrics, frames_in, 1);
    c->ops->frame(c, f, c->user);
    if (with_fds)
        fd_set_drop(c);
    if (c->in != c->own)
        leave_large(c);
    return 1;
}

/* Take one frame. Returns 1: taken; 0: more bytes are needed; or an error (-EAGAIN: no memory now). */
static int take_frame(struct rpc_conn *c)
{
    uint32_t held = c->in_filled - c->in_taken;
    if (held < FRAME_HEADER_SIZE)
        return make_room(c, FRAME_HEADER_SIZE);
    struct rpc_frame f = {0};
    int r = frame_decode(c->in + c->in_taken, &f.header);
    if (r < 0)
        return r;
    if (f.header.body_len > c->limits.body_max || f.header.data_len > c->limits.data_max)
        return -CV_FRAME_TOO_BIG;
    uint32_t total = FRAME_HEADER_SIZE + f.header.body_len + f.header.data_len;
    return held < total ? make_room(c, total) : deliver(c, &f, total);
}

static void parse(struct rpc_conn *c)
{
    int r = 1;
    assert(!c->receiving && !c->parsing);
    c->parsing = true; /* frame() may close: the buffer must stay until we are out */
    while (r == 1 && may_take(c))
        r = take_frame(c);
    c->parsing = false;
    if (r == -EAGAIN) {
        RPC_COUNT(c->limits.metrics, memory_waits, 1);
        if (!c->closing)
            loop_timer_start(c->loop, &c->again, loop_now(c->loop) + MEMORY_PAUSE);
        return;
    }
    if (r < 0 && !c->closing) {
        log_warn(r, "closing the connection to %s", c->peer);
        RPC_COUNT(c->limits.metrics, connections_broken, 1);
        rpc_conn_close(c, r);
    }
    if (c->in_taken == c->in_filled)
        c->in_taken = c->in_filled = 0;
    if (c->closing)
        end_when_quiet(c);
    else if (may_take(c))
        start_receive(c);
}

/* Descriptors that came with what was received. */
static int take_fds(struct rpc_conn *c)
{
    if (!c->message.msg_controllen)
        return 0;
    int fds[NET_FDS_MAX];
    int n = net_take_fds(&c->message, fds, NET_FDS_MAX);
    if (n == 0)
        return 0;
    if (c->fd_set_count == FD_SETS_MAX) {
        for (int i = 0; i < n; i++)
            close_fd(fds[i]);
        return -CV_BAD_MESSAGE;
    }
    struct fd_set_in *set = &c->fd_sets[(c->fd_first + c->fd_set_count++) % FD_SETS_MAX];
    set->n = n > 0 ? (unsigned)n : 0;
    memcpy(set->fd, fds, set->n * sizeof(int));
    return 0;
}

static void on_receive(struct io_op *op, int result)
{
    struct rpc_conn *c = container_of(op, struct rpc_conn, receive);
    c->receiving = false;
    if (result > 0 && c->fd_sets) {
        int r = take_fds(c);
        if (r < 0 && !c->closing)
            rpc_conn_close(c, log_warn(r, "%s sends descriptors nobody asked for", c->peer));
    }
    if (result > 0 && !c->closing) {
        c->in_filled += (uint32_t)result;
        RPC_COUNT(c->limits.metrics, receives, 1);
        RPC_COUNT(c->limits.metrics, bytes_in, (uint64_t)result);
        if (may_take(c))
            parse(c);
        return;
    }
    if (!c->closing)
        rpc_conn_close(c, result == 0 ? -CV_CLOSED : result);
    end_when_quiet(c);
}

static void start_receive(struct rpc_conn *c)
{
    if (c->in_taken && c->in_room - c->in_filled < RECEIVE_MIN)
        move_to_front(c);
    c->receiving = true;
    void *to = c->in + c->in_filled;
    size_t n = c->in_room - c->in_filled;
    if (!c->fd_sets) {
        io_recv(c->loop, &c->receive, c->fd, to, n, on_receive);
        return;
    }
    c->in_vector = (struct iovec){to, n};
    c->message = (struct msghdr){.msg_iov = &c->in_vector, .msg_iovlen = 1};
    net_fd_room(&c->message, &c->in_control);
    io_recvmsg(c->loop, &c->receive, c->fd, &c->message, 0, on_receive);
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

/* Bytes left the queue: somebody may be waiting for that. */
static void after_sent(struct rpc_conn *c)
{
    if (!c->congested || c->queued > c->limits.send_high / 2)
        return;
    c->congested = c->congested_in = false;
    if (may_take(c) && !c->receiving && !loop_timer_running(&c->again))
        parse(c);
    if (c->ops->drained && !c->closing)
        c->ops->drained(c, c->user);
}

static void on_sent(struct io_op *op, int result)
{
    struct rpc_conn *c = container_of(op, struct rpc_conn, send);
    c->sending = false;
    if (result <= 0 && !c->closing) /* 0: a file shorter than promised */
        rpc_conn_close(c, result == 0 ? -EIO : result == -EPIPE || result == -ECONNRESET ? -CV_CLOSED : result);
    if (c->closing) {
        end_when_quiet(c);
        return;
    }
    uint64_t left = (uint64_t)result;
    RPC_COUNT(c->limits.metrics, sends, 1);
    RPC_COUNT(c->limits.metrics, bytes_out, left);
    c->queued -= left;
    while (!list_empty(&c->queue)) {
        struct segment *s = list_entry(c->queue.next, struct segment, link);
        uint32_t n = (uint32_t)min(left, (uint64_t)(s->n - s->sent));
        if (n)
            s->fd_count = 0; /* they went with the first byte */
        s->sent += n;
        left -= n;
        if (s->sent < s->n)
            break;
        segment_drop(c, s); /* also lent ones of no bytes */
    }
    if (!list_empty(&c->queue))
        start_send(c);
    else if (c->finishing)
        rpc_conn_close(c, c->reason);
    after_sent(c);
}

static void start_send(struct rpc_conn *c)
{
    struct segment *head = list_entry(c->queue.next, struct segment, link);
    c->sending = true;
    if (head->kind == SEGMENT_FILE) {
        io_sendfile(c->loop, &c->send, c->fd, head->fd, head->offset + head->sent, head->n - head->sent, on_sent);
        return;
    }
    struct msghdr message = {.msg_iov = c->vector};
    int flags = 0;
    list_for_each (e, &c->queue) {
        struct segment *s = list_entry(e, struct segment, link);
        if (s->kind == SEGMENT_FILE)
            flags = MSG_MORE; /* one packet with the beginning of the file */
        if (s->kind == SEGMENT_FILE || message.msg_iovlen == VECTOR_MAX || (s->fd_count && message.msg_iovlen))
            break;
        if (s->fd_count)
            net_put_fds(&message, &c->out_control, s->fds, s->fd_count);
        const uint8_t *p = s->kind == SEGMENT_OWN ? s->bytes : s->lent;
        c->vector[message.msg_iovlen++] = (struct iovec){(void *)(uintptr_t)(p + s->sent), s->n - s->sent};
        s->full = true;
    }
    if (message.msg_iovlen == 1 && !message.msg_control && !flags)
        io_send(c->loop, &c->send, c->fd, c->vector[0].iov_base, c->vector[0].iov_len, on_sent);
    else
        io_sendmsg(c->loop, &c->send, c->fd, &message, flags, on_sent);
}

static struct segment *segment_new(struct rpc_conn *c, enum segment_kind kind, uint32_t room)
{
    struct segment *s = kind == SEGMENT_OWN && room == SEGMENT_BYTES && c->spare_count ? c->spare[--c->spare_count]
                                                                                       : malloc(sizeof(*s) + room);
    if (s) {
        memset(s, 0, offsetof(struct segment, fds));
        s->kind = kind;
        s->room = room;
    }
    return s;
}

/* Room for n contiguous bytes at the end of the queue, counted as queued. */
static uint8_t *reserve(struct rpc_conn *c, uint32_t n)
{
    struct segment *s = list_empty(&c->queue) ? NULL : list_entry(c->queue.prev, struct segment, link);
    if (!s || s->kind != SEGMENT_OWN || s->full || s->room - s->n < n) {
        s = segment_new(c, SEGMENT_OWN, max(n, SEGMENT_BYTES));
        if (!s)
            return NULL;
        list_push_back(&c->queue, &s->link);
    }
    uint8_t *p = s->bytes + s->n;
    s->n += n;
    c->queued += n;
    return p;
}

/* Queue header and body; room for extra bytes behind them when extra is given. */
static int put_frame(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                     const void *record, const void *body, size_t body_n, uint32_t data_n, uint32_t copied,
                     uint8_t **ret_data)
{
    assert_on_loop(c->loop);
    if (!rpc_conn_is_open(c))
        return -CV_CLOSED;
    if (desc)
        body_n = wire_size(desc, record);
    if (body_n > FRAME_BODY_MAX || data_n > FRAME_DATA_MAX)
        return -CV_FRAME_TOO_BIG;
    uint32_t n = FRAME_HEADER_SIZE + (uint32_t)body_n + copied;
    if (c->queued + n > c->limits.send_max) {
        log_warn(0, "%s does not read what it is sent: closing the connection", c->peer);
        rpc_conn_close(c, -CV_BUSY);
        return -CV_BUSY;
    }
    uint8_t *p = reserve(c, n);
    if (!p)
        return -ENOMEM;
    uint8_t *at = p + FRAME_HEADER_SIZE;
    if (desc)
        at = wire_put(desc, record, at);
    else if (body_n)
        at = (uint8_t *)memcpy(at, body, body_n) + body_n;
    struct frame_header h = *header;
    h.body_len = (uint32_t)body_n;
    h.data_len = data_n;
    h.body_crc = crc32c(0, p + FRAME_HEADER_SIZE, body_n);
    frame_encode(&h, p);
    if (ret_data)
        *ret_data = at;
    return 0;
}

/* A frame was queued: send it at the end of this turn, and see to the bounds. */
static void queued(struct rpc_conn *c)
{
    RPC_COUNT(c->limits.metrics, frames_out, 1);
    if (!c->sending)
        loop_at_turn_end(c->loop, &c->flush);
    if (c->queued < c->limits.send_high || c->congested)
        return;
    RPC_COUNT(c->limits.metrics, congestions, 1);
    c->congested = true;
    c->congested_in = c->limits.hold_when_congested;
}

int rpc_conn_send(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                  const void *record)
{
    int r = put_frame(c, header, desc, record, NULL, 0, 0, 0, NULL);
    if (r == 0)
        queued(c);
    return r;
}

int rpc_conn_send_body(struct rpc_conn *c, const struct frame_header *header, const void *body, uint32_t n)
{
    int r = put_frame(c, header, NULL, NULL, body, n, 0, 0, NULL);
    if (r == 0)
        queued(c);
    return r;
}

int rpc_conn_send_body_data(struct rpc_conn *c, const struct frame_header *header, const void *body, uint32_t n,
                            const void *data, uint32_t data_n)
{
    uint8_t *to;
    int r = put_frame(c, header, NULL, NULL, body, n, data_n, data_n, &to);
    if (r < 0)
        return r;
    if (data_n)
        memcpy(to, data, data_n);
    queued(c);
    return 0;
}

int rpc_conn_send_data(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, const struct iovec *data, unsigned count)
{
    size_t n = 0;
    for (unsigned i = 0; i < count; i++)
        n += data[i].iov_len;
    if (n > FRAME_DATA_MAX)
        return -CV_FRAME_TOO_BIG;
    uint8_t *to;
    int r = put_frame(c, header, desc, record, NULL, 0, (uint32_t)n, (uint32_t)n, &to);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < count; i++) {
        memcpy(to, data[i].iov_base, data[i].iov_len);
        to += data[i].iov_len;
    }
    queued(c);
    return 0;
}

static int send_segment(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                        const void *record, struct segment *s)
{
    int r = s ? put_frame(c, header, desc, record, NULL, 0, s->n, 0, NULL) : -ENOMEM;
    if (r < 0) {
        free(s);
        return r;
    }
    list_push_back(&c->queue, &s->link);
    c->queued += s->n;
    queued(c);
    return 0;
}

int rpc_conn_send_lent(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, const void *data, uint32_t n, struct rpc_release *release)
{
    struct segment *s = segment_new(c, SEGMENT_LENT, 0);
    if (s) {
        s->n = n;
        s->lent = data;
        s->release = release;
    }
    return send_segment(c, header, desc, record, s);
}

int rpc_conn_send_file(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, int fd, uint64_t offset, uint32_t n, struct rpc_release *release)
{
    struct segment *s = segment_new(c, SEGMENT_FILE, 0);
    if (s) {
        s->n = n;
        s->fd = fd;
        s->offset = offset;
        s->release = release;
    }
    return send_segment(c, header, desc, record, s);
}

int rpc_conn_send_fds(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                      const void *record, const int *fds, unsigned n, struct rpc_release *release)
{
    assert(n > 0 && n <= NET_FDS_MAX);
    if (!c->is_unix)
        return -ENOTSUP;
    /* A segment of its own: descriptors go with its first byte. */
    size_t need = FRAME_HEADER_SIZE + (desc ? wire_size(desc, record) : 0);
    if (need > FRAME_HEADER_SIZE + FRAME_BODY_MAX)
        return -CV_FRAME_TOO_BIG;
    struct segment *s = segment_new(c, SEGMENT_OWN, max((uint32_t)need, SEGMENT_BYTES));
    if (!s)
        return -ENOMEM;
    s->fd_count = n;
    memcpy(s->fds, fds, n * sizeof(int));
    list_push_back(&c->queue, &s->link);
    struct frame_header h = *header;
    h.flags |= FRAME_FDS;
    int r = put_frame(c, &h, desc, record, NULL, 0, 0, 0, NULL);
    if (r < 0) {
        list_remove(&s->link);
        free(s);
        return r;
    }
    s->release = release;
    queued(c);
    return 0;
}
