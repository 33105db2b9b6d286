/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame connection (rpc/rpc_conn.h) without requests: proposals are lent from where the core put their payloads,
 * entries are handled in the receive buffer. All errors end the connection, and all ends are the same: wait until it
 * is closed, tell the owner, try again later.
 */
#include "meta/master_link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "meta/master_health.h"
#include "rpc/rpc_conn.h"

#define RECONNECT_FIRST_MS 5u /* doubled up to the next: both ends are often started together */
#define RECONNECT_MS       50u
#define REFUSED_MS         1000u /* up to this while the journal answers, but one of the two will not go on */

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_ATTACHING, LINK_UP, LINK_CLOSING, LINK_STOPPED };

struct master_link {
    struct loop *loop;
    struct master_link_options o;
    const struct master_link_events *events;
    struct net_address address;
    struct master_health *health;
    enum link_state state;
    int said;         /* why it is down, as it was logged last; 0: it is up, or was never tried */
    uint32_t wait_ms; /* before the last attempt, about */
    bool reached;     /* the journal answered the last attempt */
    int error;        /* of the last attempt */
    uint64_t up_ns;   /* since when it is up */
    uint32_t refused; /* why the journal would not have us when it was last asked; 0: it did */
    int fd;           /* while connecting; then the connection's */
    struct io_op connect_op;
    struct rpc_conn *conn;      /* ATTACHING, UP, CLOSING */
    struct loop_timer timer;    /* reconnect */
    void (*stopped)(void *arg); /* set: stopping */
    void *stopped_arg;
};

/* A payload on its way out. */
struct lent_payload {
    struct rpc_release release;
    struct meta_payload *payload;
};

static void move(struct master_link *l, enum link_state to)
{
    /* from -> to, one bit each */
    static const uint8_t may[] = {
        [LINK_DOWN] = 1 << LINK_CONNECTING | 1 << LINK_STOPPED,
        [LINK_CONNECTING] = 1 << LINK_ATTACHING | 1 << LINK_DOWN,
        [LINK_ATTACHING] = 1 << LINK_UP | 1 << LINK_CLOSING,
        [LINK_UP] = 1 << LINK_CLOSING,
        [LINK_CLOSING] = 1 << LINK_DOWN,
        [LINK_STOPPED] = 0,
    };
    assert(may[l->state] & 1 << to);
    l->state = to;
}

static bool is_open(const struct master_link *l)
{
    return l->state == LINK_ATTACHING || l->state == LINK_UP;
}

/* No further frame comes; what is queued goes out when the end is ours. */
static void link_close(struct master_link *l, int reason)
{
    if (!is_open(l))
        return;
    move(l, LINK_CLOSING);
    if (l->stopped)
        rpc_conn_finish(l->conn, reason);
    else
        rpc_conn_close(l->conn, reason);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

/* What cannot even be queued ends the connection: the journal waits for each of these. */
static void send_message(struct master_link *l, uint16_t type, const void *message)
{
    struct frame_header h = {.type = type, .flags = FRAME_ONE_WAY};
    int r = is_open(l) ? rpc_conn_send(l->conn, &h, message_desc(type), message) : 0;
    if (r < 0)
        link_close(l, r);
}

static void payload_sent(struct rpc_release *release)
{
    struct lent_payload *p = container_of(release, struct lent_payload, release);
    meta_payload_unref(p->payload);
    free(p);
}

static int send_lent(struct master_link *l, const struct frame_header *h, const struct msg_link_propose *m,
                     struct meta_payload *payload)
{
    struct lent_payload *lent = malloc(sizeof(*lent));
    if (!lent)
        return -ENOMEM;
    *lent = (struct lent_payload){.release.run = payload_sent, .payload = payload};
    meta_payload_ref(payload);
    int r = rpc_conn_send_lent(l->conn, h, msg_link_propose_desc(), m, payload->bytes, payload->n, &lent->release);
    if (r < 0)
        payload_sent(&lent->release);
    return r;
}

int master_link_propose(struct master_link *l, const struct master_proposal *p)
{
    assert_on_loop(l->loop);
    if (l->state != LINK_UP)
        return -CV_CLOSED;
    struct msg_link_propose m = {
        .term = p->term,
        .sequence = p->sequence,
        .op_count = p->op_count,
        .payload_crc = p->crc,
        .entry_type = p->type,
    };
    struct frame_header h = {.type = MSG_link_propose, .flags = FRAME_ONE_WAY};
    struct iovec data = {(void *)(uintptr_t)p->bytes, p->n};
    return p->payload ? send_lent(l, &h, &m, p->payload)
                      : rpc_conn_send_data(l->conn, &h, msg_link_propose_desc(), &m, &data, 1);
}

void master_link_role_seen(struct master_link *l, uint64_t term)
{
    assert_on_loop(l->loop);
    struct msg_link_role_seen m = {.term = term};
    if (l->state == LINK_UP)
        send_message(l, MSG_link_role_seen, &m);
}

void master_link_applied(struct master_link *l, uint64_t applied, uint64_t flushed, enum link_unfit unfit)
{
    assert_on_loop(l->loop);
    struct msg_link_applied m = {
        .applied = applied,
        .flushed = flushed,
        .can_lead = unfit == LINK_FIT,
        .lease_back = unfit == LINK_UNFIT_STOPS,
        .unfit = (uint8_t)unfit,
    };
    if (l->state == LINK_UP)
        send_message(l, MSG_link_applied, &m);
}

void master_link_send(struct master_link *l, uint16_t type, const void *message)
{
    assert_on_loop(l->loop);
    if (l->state == LINK_UP)
        send_message(l, type, message);
}

int master_link_admin(struct master_link *l, const struct msg_link_admin *admin)
{
    assert_on_loop(l->loop);
    struct frame_header h = {.type = MSG_link_admin, .flags = FRAME_ONE_WAY};
    return l->state == LINK_UP ? rpc_conn_send(l->conn, &h, msg_link_admin_desc(), admin) : -CV_CLOSED;
}

int master_link_read(struct master_link *l, uint64_t context)
{
    assert_on_loop(l->loop);
    struct frame_header h = {.type = MSG_link_read, .flags = FRAME_ONE_WAY};
    struct msg_link_read m = {.context = context};
    return l->state == LINK_UP ? rpc_conn_send(l->conn, &h, msg_link_read_desc(), &m) : -CV_CLOSED;
}

/* ---- receiving -------------------------------------------------------------------------------------------------- */

static int handle_entries(struct master_link *l, const uint8_t *body, size_t n, struct text data)
{
    struct msg_link_entries m;
    int r = msg_link_entries_decode(body, n, &m);
    if (r < 0)
        return r;
    uint32_t left = m.entries.count;
    rec_for_each (link_entry, e, &m.entries) {
        if (e.length > data.n)
            return -CV_BAD_MESSAGE;
        struct text payload = {data.p, e.length};
        data = (struct text){data.p + e.length, data.n - e.length};
        if (crc32c(0, payload.p, payload.n) != e.crc)
            return -CV_BAD_CHECKSUM;
        r = l->events->entry(l->events->arg, &e, payload, --left > 0);
        if (r < 0)
            return r;
    }
    return data.n ? -CV_BAD_MESSAGE : 0;
}

static int handle_welcome(struct master_link *l, const uint8_t *body, size_t n)
{
    struct msg_link_welcome m;
    int r = msg_link_welcome_decode(body, n, &m);
    if (r < 0)
        return r;
    if (m.error && m.reason.n && l->refused != m.error)
        log_warn(0, "the journal at %s refuses this master: " TEXT_FMT, l->o.socket, TEXT_ARG(m.reason));
    l->refused = m.error;
    if (m.error)
        return -(int)(m.error & INT32_MAX);
    if (!uuid_equal(uuid_from_bytes(m.cluster), l->o.cluster))
        return -CV_WRONG_CLUSTER;
    move(l, LINK_UP);
    l->up_ns = clock_ns();
    r = l->events->attached(l->events->arg, &m);
    if (r < 0)
        return r;
    if (l->said)
        log_info("link to the journal at %s is up", l->o.socket);
    l->said = 0;
    return 0;
}

/* Decode the body as message name and tell event with what follows. */
#define TELL(name, ...)                                                                                                \
    {                                                                                                                  \
        struct msg_link_##name m;                                                                                      \
        int r = msg_link_##name##_decode(body, h->body_len, &m);                                                       \
        if (r < 0)                                                                                                     \
            return r;                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        return 0;                                                                                                      \
    }

static int handle_frame(struct master_link *l, const struct rpc_frame *f)
{
    const struct frame_header *h = &f->header;
    const uint8_t *body = f->body;
    const struct master_link_events *e = l->events;
    if (l->state == LINK_ATTACHING)
        return h->type == MSG_link_welcome ? handle_welcome(l, body, h->body_len) : -CV_BAD_MESSAGE;
    switch (h->type) {
    case MSG_link_role: TELL(role, e->role(e->arg, &m))
    case MSG_link_proposed: TELL(proposed, e->proposed(e->arg, &m))
    case MSG_link_rejected: TELL(rejected, e->rejected(e->arg, &m))
    case MSG_link_durable: TELL(durable, e->durable(e->arg, m.index, m.term))
    case MSG_link_committed: TELL(committed, e->committed(e->arg, m.index, m.term))
    case MSG_link_truncate: TELL(truncate, e->truncated(e->arg, m.from))
    case MSG_link_credit: TELL(credit, e->credit(e->arg, &m))
    case MSG_link_read_index: TELL(read_index, e->read(e->arg, &m))
    case MSG_link_admin_answer: TELL(admin_answer, e->admin(e->arg, &m))
    case MSG_link_snapshot_request: TELL(snapshot_request, e->snapshot_request(e->arg, &m))
    case MSG_link_install: TELL(install, e->install(e->arg, &m))
    case MSG_link_entries:
        return handle_entries(l, body, h->body_len, (struct text){(const char *)f->data, h->data_len});
    default: return 0; /* of a newer journal: nothing we rely on */
    }
}

static void conn_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct master_link *l = user;
    int r = is_open(l) ? handle_frame(l, f) : 0;
    if (r < 0)
        link_close(l, r);
}

/* ---- connecting, ending ----------------------------------------------------------------------------------------- */

/* How long to wait before the next attempt. A socket nobody listens on costs nothing to try; but when the journal answered
 * and it did not last, the next attempt ends the same way most likely, and costs both sides. */
static uint64_t next_wait_ns(struct master_link *l)
{
    if (l->up_ns && clock_ns() - l->up_ns > REFUSED_MS * NS_PER_MS)
        l->wait_ms = 0; /* it did last */
    l->up_ns = 0;
    uint32_t most = l->reached ? REFUSED_MS : RECONNECT_MS;
    l->wait_ms = min(l->wait_ms ? l->wait_ms * 2 : RECONNECT_FIRST_MS, most);
    if (l->refused == CV_WRONG_CLUSTER || l->refused == CV_LOG_DAMAGED)
        l->wait_ms = REFUSED_MS; /* it takes a person to change the answer */
    return l->wait_ms * NS_PER_MS - random_u64() % (l->wait_ms * NS_PER_MS / 4);
}

static void went_down(struct master_link *l, int error)
{
    move(l, LINK_DOWN);
    if (l->stopped) {
        loop_timer_stop(l->loop, &l->timer);
        move(l, LINK_STOPPED);
        l->stopped(l->stopped_arg);
        return;
    }
    if (!l->said || (l->reached && l->said != error)) {
        log_warn(error, "link to the journal at %s is down, retrying", l->o.socket);
        l->said = error;
    }
    l->error = error;
    loop_timer_start(l->loop, &l->timer, clock_ns() + next_wait_ns(l));
    l->events->lost(l->events->arg, error);
}

static void conn_closed(struct rpc_conn *c, int reason, void *user)
{
    struct master_link *l = user;
    l->conn = NULL;
    if (l->state != LINK_CLOSING)
        move(l, LINK_CLOSING);
    went_down(l, reason);
}

static void connect_done(struct io_op *op, int result)
{
    struct master_link *l = container_of(op, struct master_link, connect_op);
    if (result == 0 && l->stopped)
        result = -CV_STOPPING;
    if (result < 0) {
        l->fd = loop_close(l->loop, l->fd);
        return went_down(l, result);
    }
    static const struct rpc_conn_ops ops = {.frame = conn_frame, .closed = conn_closed};
    /* Credit bounds what is queued; a full queue must not keep us from reading what makes it shorter. */
    static const struct rpc_conn_limits limits = {.send_high = 64u << 20, .send_max = 256u << 20};
    int r = rpc_conn_new(l->loop, take_fd(l->fd), &ops, l, &limits, &l->conn);
    if (r < 0)
        return went_down(l, r);
    move(l, LINK_ATTACHING);
    l->reached = true;
    struct msg_link_attach m = {
        .master = l->o.master,
        .state_version = LINK_STATE_VERSION,
        .cluster = uuid_bytes(&l->o.cluster),
    };
    l->events->attaching(l->events->arg, &m);
    send_message(l, MSG_link_attach, &m);
}

static void connect_now(struct master_link *l)
{
    move(l, LINK_CONNECTING);
    l->reached = false;
    int r = net_socket(&l->address, &l->fd);
    if (r < 0)
        return went_down(l, r);
    io_connect(l->loop, &l->connect_op, l->fd, &l->address.any, l->address.n, connect_done);
}

static void timer_fired(struct loop_timer *timer)
{
    connect_now(container_of(timer, struct master_link, timer));
}

int master_link_new(struct loop *loop, const struct master_link_options *options, struct master_link **ret)
{
    struct master_link *l cleanup(master_link_free_p) = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->loop = loop;
    l->o = *options;
    l->events = options->events;
    l->fd = -1;
    loop_timer_init(&l->timer, timer_fired);
    char text[NET_TEXT_MAX];
    int r = snprintf(text, sizeof(text), "unix:%s", options->socket);
    if (r >= (int)sizeof(text))
        return -ENAMETOOLONG;
    r = net_parse(text, 0, &l->address);
    if (r < 0)
        return r;
    r = master_health_new(&l->address, l->o.master, &l->health);
    if (r < 0)
        return r;
    *ret = take(l);
    return 0;
}

struct master_link *master_link_free(struct master_link *l)
{
    if (!l)
        return NULL;
    assert(l->state == LINK_DOWN || l->state == LINK_STOPPED);
    master_health_free(l->health);
    free(l);
    return NULL;
}

int master_link_start(struct master_link *l)
{
    assert_on_loop(l->loop);
    int r = master_health_start(l->health);
    if (r == 0)
        connect_now(l);
    return r;
}

void master_link_stop(struct master_link *l, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(l->loop);
    assert(!l->stopped);
    l->stopped = stopped;
    l->stopped_arg = arg;
    if (l->state == LINK_DOWN) {
        loop_timer_stop(l->loop, &l->timer);
        move(l, LINK_STOPPED);
        stopped(arg);
    } else if (l->state == LINK_CONNECTING) {
        io_cancel(&l->connect_op);
    } else {
        link_close(l, -CV_STOPPING);
    }
}

int master_link_why(const struct master_link *l, struct buf *out)
{
    int error = l->refused ? -(int)(l->refused & INT32_MAX) : l->error;
    return buf_printf(out, "the journal at %s: %s", l->o.socket, error ? cv_error_text(error) : "not asked yet");
}
