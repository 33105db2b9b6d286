/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send queue is a list of segments: buffers of our own that small frames are appended to, lent memory, and ranges of
 * files. A flush gives the memory segments at the head of the queue to one sendmsg; a file segment is sent alone by
 * sendfile. A segment that is being sent is not appended to.
 */
#include "rpc/rpc_conn.h"

#include <assert.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"

#define RECEIVE_BYTES (64u << 10) /* receive buffer at rest; larger frames grow it for as long as they take */
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

struct rpc_conn {
    struct loop *loop;
    int fd;
    const struct rpc_conn_ops *ops;
    void *user;
    struct rpc_conn_limits limits;

    uint8_t *in; /* received and not yet taken: in[taken..filled) */
    uint32_t in_room, in_filled, in_taken;
    struct io_op receive;
    bool receiving, parsing, paused; /* paused: the send queue is too long */

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

static void free_conn(struct loop_job *job)
{
    struct rpc_conn *c = container_of(job, struct rpc_conn, end);
    list_for_each_safe (e, &c->queue)
        segment_drop(c, list_entry(e, struct segment, link));
    c->fd = loop_close(c->loop, c->fd);
    c->ops->closed(c, c->reason, c->user);
    while (c->spare_count)
        free(c->spare[--c->spare_count]);
    free(c->in);
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

static void describe_peer(struct rpc_conn *c)
{
    struct net_address address;
    struct net_credentials who;
    if (net_credentials(c->fd, &who) == 0)
        snprintf(c->peer, sizeof(c->peer), "unix:pid %d", (int)who.pid);
    else if (net_peer(c->fd, &address) == 0)
        net_text(&address, c->peer);
    else
        snprintf(c->peer, sizeof(c->peer), "?");
}

static void on_flush(struct loop_hook *hook)
{
    struct rpc_conn *c = container_of(hook, struct rpc_conn, flush);
    if (!c->sending && !c->closing && !list_empty(&c->queue))
        start_send(c);
}

int rpc_conn_new(struct loop *loop, int fd, const struct rpc_conn_ops *ops, void *user,
                 const struct rpc_conn_limits *limits, struct rpc_conn **ret)
{
    struct rpc_conn *c = calloc(1, sizeof(*c));
    uint8_t *in = malloc(RECEIVE_BYTES);
    if (!c || !in) {
        free(c);
        free(in);
        loop_close(loop, fd);
        return -ENOMEM;
    }
    c->loop = loop;
    c->fd = fd;
    c->ops = ops;
    c->user = user;
    if (limits)
        c->limits = *limits;
    c->limits.send_high = c->limits.send_high ? c->limits.send_high : 4u << 20;
    c->limits.send_max = c->limits.send_max ? c->limits.send_max : 64u << 20;
    c->limits.data_max = c->limits.data_max ? c->limits.data_max : FRAME_DATA_MAX;
    c->in = in;
    c->in_room = RECEIVE_BYTES;
    list_init(&c->queue);
    loop_hook_init(&c->flush, on_flush);
    describe_peer(c);
    start_receive(c);
    *ret = c;
    return 0;
}

bool rpc_conn_is_open(const struct rpc_conn *c)
{
    return !c->closing && !c->finishing;
}

struct loop *rpc_conn_loop(const struct rpc_conn *c)
{
    return c->loop;
}

void rpc_conn_set_user(struct rpc_conn *c, void *user)
{
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

uint64_t rpc_conn_queued(const struct rpc_conn *c)
{
    return c->queued;
}

bool rpc_conn_congested(const struct rpc_conn *c)
{
    return c->congested;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------- */

/* Room for the frame that begins at in_taken, which needs total bytes. */
static int make_room(struct rpc_conn *c, uint32_t total)
{
    uint32_t held = c->in_filled - c->in_taken;
    if (c->in_taken && c->in_taken + total > c->in_room) {
        memmove(c->in, c->in + c->in_taken, held);
        c->in_filled = held;
        c->in_taken = 0;
    }
    if (total <= c->in_room)
        return 0;
    uint8_t *in = realloc(c->in, total);
    if (!in)
        return -ENOMEM;
    c->in = in;
    c->in_room = total;
    return 0;
}

/* Take one frame. Returns 1: taken; 0: more bytes are needed; or an error. */
static int take_frame(struct rpc_conn *c)
{
    uint32_t held = c->in_filled - c->in_taken;
    if (held < FRAME_HEADER_SIZE)
        return make_room(c, FRAME_HEADER_SIZE);
    struct rpc_frame f;
    int r = frame_decode(c->in + c->in_taken, &f.header);
    if (r < 0)
        return r;
    if (f.header.data_len > c->limits.data_max)
        return -CV_FRAME_TOO_BIG;
    uint32_t total = FRAME_HEADER_SIZE + f.header.body_len + f.header.data_len;
    if (held < total)
        return make_room(c, total);
    f.body = c->in + c->in_taken + FRAME_HEADER_SIZE;
    f.data = f.body + f.header.body_len;
    if (crc32c(0, f.body, f.header.body_len) != f.header.body_crc)
        return -CV_BAD_CHECKSUM;
    c->in_taken += total;
    c->ops->frame(c, &f, c->user);
    return 1;
}

static void parse(struct rpc_conn *c)
{
    int r = 1;
    c->parsing = true; /* frame() may close: the buffer must stay until we are out */
    while (r == 1 && !c->closing && !c->paused)
        r = take_frame(c);
    c->parsing = false;
    if (r < 0 && !c->closing) {
        log_warn(r, "closing the connection to %s", c->peer);
        rpc_conn_close(c, r);
    }
    if (c->in_taken == c->in_filled) {
        c->in_taken = c->in_filled = 0;
        if (c->in_room > RECEIVE_BYTES && !c->closing) { /* back to the size at rest */
            uint8_t *in = malloc(RECEIVE_BYTES);
            if (in) {
                free(c->in);
                c->in = in;
                c->in_room = RECEIVE_BYTES;
            }
        }
    }
    if (c->closing)
        end_when_quiet(c);
    else if (!c->paused)
        start_receive(c);
}

static void on_receive(struct io_op *op, int result)
{
    struct rpc_conn *c = container_of(op, struct rpc_conn, receive);
    c->receiving = false;
    if (result > 0 && !c->closing) {
        c->in_filled += (uint32_t)result;
        parse(c);
        return;
    }
    if (!c->closing)
        rpc_conn_close(c, result == 0 ? -CV_CLOSED : result);
    end_when_quiet(c);
}

static void start_receive(struct rpc_conn *c)
{
    if (c->receiving)
        return;
    if (c->in_filled == c->in_room) { /* full of taken bytes and the start of a frame */
        memmove(c->in, c->in + c->in_taken, c->in_filled - c->in_taken);
        c->in_filled -= c->in_taken;
        c->in_taken = 0;
    }
    c->receiving = true;
    io_recv(c->loop, &c->receive, c->fd, c->in + c->in_filled, c->in_room - c->in_filled, on_receive);
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

/* Bytes left the queue: somebody may be waiting for that. */
static void after_sent(struct rpc_conn *c)
{
    if (!c->congested || c->queued > c->limits.send_high / 2)
        return;
    c->congested = false;
    if (c->paused) {
        c->paused = false;
        parse(c);
    }
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
    c->queued -= left;
    while (left) {
        struct segment *s = list_entry(c->queue.next, struct segment, link);
        uint32_t n = (uint32_t)min(left, (uint64_t)(s->n - s->sent));
        s->sent += n;
        left -= n;
        if (s->sent == s->n)
            segment_drop(c, s);
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
    unsigned count = 0;
    list_for_each (e, &c->queue) {
        struct segment *s = list_entry(e, struct segment, link);
        if (s->kind == SEGMENT_FILE || count == VECTOR_MAX)
            break;
        const uint8_t *p = s->kind == SEGMENT_OWN ? s->bytes : s->lent;
        c->vector[count++] = (struct iovec){(void *)(uintptr_t)(p + s->sent), s->n - s->sent};
        s->full = true;
    }
    io_sendv(c->loop, &c->send, c->fd, c->vector, count, on_sent);
}

static struct segment *segment_new(struct rpc_conn *c, enum segment_kind kind, uint32_t room)
{
    struct segment *s = kind == SEGMENT_OWN && room == SEGMENT_BYTES && c->spare_count ? c->spare[--c->spare_count]
                                                                                       : malloc(sizeof(*s) + room);
    if (s)
        *s = (struct segment){.kind = kind, .room = room};
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

/* Something was queued: send it at the end of this turn, and see to the bounds. */
static void queued(struct rpc_conn *c)
{
    if (!c->sending)
        loop_at_turn_end(c->loop, &c->flush);
    if (c->queued >= c->limits.send_high) {
        c->congested = true;
        c->paused = true;
    }
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
    if (s->n) {
        list_push_back(&c->queue, &s->link);
        c->queued += s->n;
    } else {
        list_init(&s->link);
        segment_drop(c, s);
    }
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
