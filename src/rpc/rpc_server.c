/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/rpc_server.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "rpc/rpc_buffer.h"

#define LISTENERS_MAX  8
#define SHARE_MAX      64
#define SMALL_BYTES    1024 /* bodies and data up to this live in the request's own memory */
#define HELLO_BODY_MAX 16384
#define SPARE_REQUESTS 1024 /* kept for reuse */

struct listener {
    struct rpc_server *server;
    int fd;
    struct io_op accept;
    struct loop_timer again; /* after running out of descriptors */
    bool accepting;
};

struct rpc_server {
    struct loop *loop;
    struct rpc_server_options options;
    struct listener listeners[LISTENERS_MAX];
    unsigned listener_count;
    uint16_t port;
    struct rpc_server *share[SHARE_MAX];
    unsigned share_count, share_next;
    struct list peers;
    _Atomic uint32_t connections, in_flight;
    struct list spare; /* requests, by link */
    uint32_t spare_count;
    bool stopping;
    uint64_t grace_until_ns;
    struct loop_timer grace;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct loop_job end;
};

struct rpc_peer {
    struct rpc_server *server;
    struct rpc_conn *conn; /* NULL once it is gone */
    struct list link;      /* server->peers */
    struct list requests;  /* in flight: of_peer */
    uint32_t in_flight;
    bool greeted;
    struct loop_timer hello_timer;
    uint8_t role;
    struct net_credentials credentials;
    bool has_credentials;
    void *user;
};

static uint32_t in_flight_max(const struct rpc_server *s)
{
    return s->options.in_flight_max ? s->options.in_flight_max : 4096;
}

/* Written by the loop, read by others. */
static void count(_Atomic uint32_t *n, int by)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + (uint32_t)by, memory_order_relaxed);
}

/* ---- stopping ------------------------------------------------------------------------------------------------------- */

static void end_now(struct loop_job *job)
{
    struct rpc_server *s = container_of(job, struct rpc_server, end);
    s->stopped(s->stopped_arg);
}

static void end_when_quiet(struct rpc_server *s)
{
    if (!s->stopping || !list_empty(&s->peers) || s->end.run)
        return;
    for (unsigned i = 0; i < s->listener_count; i++)
        if (s->listeners[i].accepting)
            return;
    loop_timer_stop(s->loop, &s->grace);
    s->end.run = end_now;
    loop_post(s->loop, &s->end);
}

static void peer_free_when_quiet(struct rpc_peer *p)
{
    struct rpc_server *s = p->server;
    if (p->conn || p->in_flight)
        return;
    list_remove(&p->link);
    free(p);
    end_when_quiet(s);
}

/* A server that stops keeps a connection until its last answer is out. */
static void finish_if_stopping(struct rpc_peer *p)
{
    if (p->server->stopping && p->in_flight == 0 && p->conn)
        rpc_conn_finish(p->conn, -CV_STOPPING);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void request_release(struct rpc_server *s, struct rpc_request *q)
{
    rpc_buffer_free(q->large);
    q->large = NULL;
    if (s->spare_count < SPARE_REQUESTS) {
        list_push_front(&s->spare, &q->link);
        s->spare_count++;
    } else {
        free(q);
    }
}

/* Where body and data live until the answer: small ones are copied, large frames bring their buffer along. */
static int request_keep(struct rpc_request *q, struct rpc_conn *c, const struct rpc_frame *f)
{
    uint32_t n = f->header.body_len + f->header.data_len;
    q->body = f->body;
    if (n <= SMALL_BYTES) {
        q->body = memcpy(q->bytes, f->body, n);
    } else if (!(q->large = rpc_conn_take_buffer(c))) {
        q->large = rpc_buffer_new(n);
        if (!q->large)
            return -CV_BUSY;
        q->body = memcpy(q->large, f->body, n);
    }
    q->data = q->body + f->header.body_len;
    return 0;
}

/* Errors: -ENOMEM, -CV_BUSY. */
static int request_new(struct rpc_server *s, struct rpc_conn *c, const struct rpc_frame *f, struct rpc_request **ret)
{
    struct list *e = list_pop_front(&s->spare);
    struct rpc_request *q = e ? list_entry(e, struct rpc_request, link) : malloc(sizeof(*q) + SMALL_BYTES);
    if (!q)
        return -ENOMEM;
    s->spare_count -= e != NULL;
    *q = (struct rpc_request){
        .header = f->header,
        .deadline_ns = f->header.aux ? loop_now(s->loop) + f->header.aux * NS_PER_MS : UINT64_MAX,
    };
    list_init(&q->link);
    int r = request_keep(q, c, f);
    if (r < 0)
        request_release(s, q);
    else
        *ret = q;
    return r;
}

/* The connection to answer on, or NULL when nobody waits any more. */
static struct rpc_conn *answer_conn(struct rpc_request *q, int error, uint64_t index, struct frame_header *header)
{
    struct rpc_peer *p = q->peer;
    assert_on_loop(p->server->loop);
    *header = (struct frame_header){
        .type = q->header.type | 0x8000,
        .flags = FRAME_ANSWER,
        .request_id = q->header.request_id,
        .aux = (uint32_t)-error,
        .incarnation = p->server->options.self.incarnation,
        .index = index,
    };
    return p->conn && !atomic_load_explicit(&q->cancelled, memory_order_relaxed) ? p->conn : NULL;
}

static void answered(struct rpc_request *q)
{
    struct rpc_peer *p = q->peer;
    struct rpc_server *s = p->server;
    list_remove(&q->of_peer);
    if (atomic_load_explicit(&q->cancelled, memory_order_relaxed))
        RPC_COUNT(s->options.limits.metrics, requests_cancelled, 1);
    if (p->in_flight-- == in_flight_max(s) && p->conn)
        rpc_conn_resume(p->conn);
    count(&s->in_flight, -1);
    request_release(s, q);
    finish_if_stopping(p);
    peer_free_when_quiet(p);
}

/* An answer that does not fit becomes an error: the caller must not wait for ever. */
static void check_sent(struct rpc_conn *c, struct frame_header *header, int r)
{
    if (r != -CV_FRAME_TOO_BIG && r != -ENOMEM && r != -ENOTSUP)
        return;
    header->aux = (uint32_t)-r;
    rpc_conn_send(c, header, NULL, NULL);
}

void rpc_answer(struct rpc_request *q, int error, uint64_t index, const struct wire_desc *desc, const void *record)
{
    struct frame_header header;
    struct rpc_conn *c = answer_conn(q, error, index, &header);
    if (c)
        check_sent(c, &header, rpc_conn_send(c, &header, desc, record));
    answered(q);
}

void rpc_answer_body(struct rpc_request *q, int error, uint64_t index, const void *body, uint32_t n)
{
    struct frame_header header;
    struct rpc_conn *c = answer_conn(q, error, index, &header);
    if (c)
        check_sent(c, &header, rpc_conn_send_body(c, &header, body, n));
    answered(q);
}

void rpc_answer_data(struct rpc_request *q, int error, uint64_t index, const struct wire_desc *desc, const void *record,
                     const struct iovec *data, unsigned count)
{
    struct frame_header header;
    struct rpc_conn *c = answer_conn(q, error, index, &header);
    if (c)
        check_sent(c, &header, rpc_conn_send_data(c, &header, desc, record, data, count));
    answered(q);
}

void rpc_answer_lent(struct rpc_request *q, uint64_t index, const struct wire_desc *desc, const void *record,
                     const void *data, uint32_t n, struct rpc_release *release)
{
    struct frame_header header;
    struct rpc_conn *c = answer_conn(q, 0, index, &header);
    int r = c ? rpc_conn_send_lent(c, &header, desc, record, data, n, release) : -CV_CLOSED;
    if (r < 0)
        release->run(release);
    if (c)
        check_sent(c, &header, r);
    answered(q);
}

void rpc_answer_file(struct rpc_request *q, uint64_t index, const struct wire_desc *desc, const void *record, int fd,
                     uint64_t offset, uint32_t n, struct rpc_release *release)
{
    struct frame_header header;
    struct rpc_conn *c = answer_conn(q, 0, index, &header);
    int r = c ? rpc_conn_send_file(c, &header, desc, record, fd, offset, n, release) : -CV_CLOSED;
    if (r < 0)
        release->run(release);
    if (c)
        check_sent(c, &header, r);
    answered(q);
}

void rpc_answer_fds(struct rpc_request *q, uint64_t index, const struct wire_desc *desc, const void *record,
                    const int *fds, unsigned n, struct rpc_release *release)
{
    struct frame_header header;
    struct rpc_conn *c = answer_conn(q, 0, index, &header);
    int r = c ? rpc_conn_send_fds(c, &header, desc, record, fds, n, release) : -CV_CLOSED;
    if (r < 0)
        release->run(release);
    if (c)
        check_sent(c, &header, r);
    answered(q);
}

/* ---- frames of a connection --------------------------------------------------------------------------------------------- */

static void greet(struct rpc_peer *p, const struct rpc_frame *f)
{
    struct rpc_server *s = p->server;
    struct msg_hello hello;
    struct msg_hello_answer answer;
    int r = f->header.type != MSG_hello ? -CV_BAD_MESSAGE : msg_hello_decode(f->body, f->header.body_len, &hello);
    if (r < 0) {
        log_warn(r, "%s: '%s' before HELLO", rpc_conn_peer(p->conn), message_name(f->header.type));
        RPC_COUNT(s->options.limits.metrics, connections_refused, 1);
        rpc_conn_close(p->conn, r);
        return;
    }
    r = rpc_hello_check(&s->options.self, &hello, &answer);
    if (r == 0 && s->stopping)
        r = -CV_STOPPING;
    if (r == 0 && s->options.hello)
        r = s->options.hello(p, &hello, &answer, s->options.user);
    struct frame_header header = {
        .type = MSG_hello_answer,
        .flags = FRAME_ANSWER,
        .request_id = f->header.request_id,
        .aux = (uint32_t)-r,
        .incarnation = s->options.self.incarnation,
    };
    rpc_conn_send(p->conn, &header, msg_hello_answer_desc(), &answer);
    if (r < 0) {
        log_warn(r, "%s (" TEXT_FMT " on " TEXT_FMT ") refused", rpc_conn_peer(p->conn), TEXT_ARG(hello.program),
                 TEXT_ARG(hello.host));
        RPC_COUNT(s->options.limits.metrics, connections_refused, 1);
        rpc_conn_finish(p->conn, r);
        return;
    }
    p->greeted = true;
    p->role = hello.role;
    loop_timer_stop(s->loop, &p->hello_timer);
    rpc_conn_set_max(p->conn, s->options.limits.body_max, s->options.limits.data_max);
}

static void cancel(struct rpc_peer *p, uint64_t request_id)
{
    list_for_each (e, &p->requests) {
        struct rpc_request *q = list_entry(e, struct rpc_request, of_peer);
        if (q->header.request_id == request_id)
            atomic_store_explicit(&q->cancelled, true, memory_order_relaxed);
    }
}

static void refuse(struct rpc_peer *p, const struct rpc_frame *f, int error)
{
    struct frame_header header = {
        .type = f->header.type | 0x8000,
        .flags = FRAME_ANSWER,
        .request_id = f->header.request_id,
        .aux = (uint32_t)-error,
        .incarnation = p->server->options.self.incarnation,
    };
    rpc_conn_send(p->conn, &header, NULL, NULL);
}

static void answer_ping(struct rpc_peer *p, const struct rpc_frame *f)
{
    struct frame_header header = {.type = MSG_ping_answer, .flags = FRAME_ANSWER, .request_id = f->header.request_id};
    rpc_conn_send_body(p->conn, &header, f->body, min(f->header.body_len, 64u));
}

static void on_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct rpc_peer *p = user;
    struct rpc_server *s = p->server;
    if (!p->greeted) {
        greet(p, f);
        return;
    }
    if (f->header.flags & FRAME_CANCEL) {
        cancel(p, f->header.request_id);
        return;
    }
    if (f->header.flags & FRAME_ONE_WAY && s->options.one_way) {
        s->options.one_way(p, f, s->options.user);
        return;
    }
    if (f->header.flags || f->header.type & 0x8000) {
        log_warn(0, "%s: unexpected frame '%s'", rpc_conn_peer(c), message_name(f->header.type));
        rpc_conn_close(c, -CV_BAD_MESSAGE);
        return;
    }
    if (f->header.type == MSG_ping) {
        answer_ping(p, f);
        return;
    }
    struct rpc_request *q = NULL;
    int r = s->stopping ? -CV_STOPPING : request_new(s, c, f, &q);
    RPC_COUNT(s->options.limits.metrics, requests, 1);
    if (r < 0) {
        RPC_COUNT(s->options.limits.metrics, requests_refused, 1);
        refuse(p, f, r);
        return;
    }
    q->peer = p;
    list_push_back(&p->requests, &q->of_peer);
    if (++p->in_flight == in_flight_max(s))
        rpc_conn_pause(c);
    count(&s->in_flight, 1);
    s->options.request(q, s->options.user);
}

static void on_closed(struct rpc_conn *c, int reason, void *user)
{
    struct rpc_peer *p = user;
    struct rpc_server *s = p->server;
    list_for_each (e, &p->requests)
        atomic_store_explicit(&list_entry(e, struct rpc_request, of_peer)->cancelled, true, memory_order_relaxed);
    p->conn = NULL;
    loop_timer_stop(s->loop, &p->hello_timer);
    count(&s->connections, -1);
    if (p->greeted && s->options.gone)
        s->options.gone(p, s->options.user);
    peer_free_when_quiet(p);
}

static const struct rpc_conn_ops conn_ops = {.frame = on_frame, .closed = on_closed};

/* ---- connections and listeners --------------------------------------------------------------------------------------------- */

static void on_hello_late(struct loop_timer *timer)
{
    struct rpc_peer *p = container_of(timer, struct rpc_peer, hello_timer);
    log_warn(0, "%s: no HELLO in time", rpc_conn_peer(p->conn));
    RPC_COUNT(p->server->options.limits.metrics, connections_refused, 1);
    rpc_conn_close(p->conn, -CV_DEADLINE);
}

void rpc_server_adopt(struct rpc_server *s, int fd)
{
    assert_on_loop(s->loop);
    uint32_t limit = s->options.connections_max ? s->options.connections_max : 10000;
    if (s->stopping || atomic_load_explicit(&s->connections, memory_order_relaxed) >= limit) {
        RPC_COUNT(s->options.limits.metrics, connections_refused, 1);
        if (!s->stopping)
            log_warn(0, "%u connections are open: refusing another", limit);
        loop_close(s->loop, fd);
        return;
    }
    struct rpc_peer *p = calloc(1, sizeof(*p));
    if (!p) {
        loop_close(s->loop, fd);
        return;
    }
    p->server = s;
    list_init(&p->requests);
    p->has_credentials = net_credentials(fd, &p->credentials) == 0;
    struct rpc_conn_limits limits = s->options.limits;
    limits.hold_when_congested = true;
    int r = rpc_conn_new(s->loop, fd, &conn_ops, p, &limits, &p->conn);
    if (r < 0) {
        log_warn(r, "accept");
        free(p);
        return;
    }
    rpc_conn_set_max(p->conn, HELLO_BODY_MAX, 1); /* strangers get little memory */
    loop_timer_init(&p->hello_timer, on_hello_late);
    loop_timer_start(s->loop, &p->hello_timer,
                     clock_ns() + (s->options.hello_ms ? s->options.hello_ms : 5000) * NS_PER_MS);
    list_push_back(&s->peers, &p->link);
    count(&s->connections, 1);
}

struct handover {
    struct loop_job job;
    struct rpc_server *server;
    int fd;
};

static void take_over(struct loop_job *job)
{
    struct handover *h = container_of(job, struct handover, job);
    rpc_server_adopt(h->server, h->fd);
    free(h);
}

static void distribute(struct rpc_server *s, int fd)
{
    struct rpc_server *to = s->share_count ? s->share[s->share_next++ % s->share_count] : s;
    struct handover *h = to == s ? NULL : malloc(sizeof(*h));
    if (!h) {
        rpc_server_adopt(s, fd);
        return;
    }
    *h = (struct handover){.job.run = take_over, .server = to, .fd = fd};
    loop_post(to->loop, &h->job);
}

static void on_accept(struct io_op *op, int result);

static void accept_next(struct listener *l)
{
    l->accepting = true;
    io_accept(l->server->loop, &l->accept, l->fd, on_accept);
}

static void accept_again(struct loop_timer *timer)
{
    struct listener *l = container_of(timer, struct listener, again);
    if (!l->server->stopping)
        accept_next(l);
}

static void on_accept(struct io_op *op, int result)
{
    struct listener *l = container_of(op, struct listener, accept);
    struct rpc_server *s = l->server;
    l->accepting = false;
    if (result >= 0)
        distribute(s, result);
    if (s->stopping) {
        end_when_quiet(s);
    } else if (result == -EMFILE || result == -ENFILE || result == -ENOBUFS || result == -ENOMEM) {
        log_warn(result, "accept: trying again in 100 ms");
        loop_timer_start(s->loop, &l->again, clock_ns() + 100 * NS_PER_MS);
    } else {
        accept_next(l);
    }
}

int rpc_server_listen(struct rpc_server *s, const char *address, uint16_t default_port, mode_t mode)
{
    assert_on_loop(s->loop);
    if (s->listener_count == LISTENERS_MAX)
        return -E2BIG;
    struct net_address a;
    int r = net_resolve(address, default_port, &a, 1);
    if (r < 0)
        return r;
    struct listener *l = &s->listeners[s->listener_count];
    *l = (struct listener){.server = s};
    loop_timer_init(&l->again, accept_again);
    r = net_listen_at_start(&a, mode, &l->fd);
    if (r < 0)
        return r;
    s->listener_count++;
    struct net_address bound;
    if (!net_is_unix(&a) && s->port == 0 && net_local(l->fd, &bound) == 0) {
        char text[NET_TEXT_MAX];
        s->port = (uint16_t)atoi(strrchr(net_text(&bound, text), ':') + 1);
    }
    accept_next(l);
    return 0;
}

uint16_t rpc_server_port(const struct rpc_server *s)
{
    return s->port;
}

void rpc_server_share(struct rpc_server *s, struct rpc_server *const *servers, unsigned count)
{
    s->share_count = min(count, (unsigned)SHARE_MAX);
    memcpy(s->share, servers, s->share_count * sizeof(*servers));
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

static void on_grace_over(struct loop_timer *timer)
{
    struct rpc_server *s = container_of(timer, struct rpc_server, grace);
    list_for_each_safe (e, &s->peers) {
        struct rpc_peer *p = list_entry(e, struct rpc_peer, link);
        if (p->conn)
            rpc_conn_close(p->conn, -CV_STOPPING);
    }
}

int rpc_server_new(struct loop *loop, const struct rpc_server_options *options, struct rpc_server **ret)
{
    struct rpc_server *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->loop = loop;
    s->options = *options;
    list_init(&s->peers);
    list_init(&s->spare);
    loop_timer_init(&s->grace, on_grace_over);
    *ret = s;
    return 0;
}

void rpc_server_stop(struct rpc_server *s, uint32_t grace_ms, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(s->loop);
    assert(!s->stopping);
    s->stopping = true;
    s->stopped = stopped;
    s->stopped_arg = arg;
    for (unsigned i = 0; i < s->listener_count; i++) {
        struct listener *l = &s->listeners[i];
        loop_timer_stop(s->loop, &l->again);
        if (l->accepting)
            io_cancel(&l->accept);
    }
    loop_timer_start(s->loop, &s->grace, clock_ns() + grace_ms * NS_PER_MS);
    list_for_each_safe (e, &s->peers)
        finish_if_stopping(list_entry(e, struct rpc_peer, link));
    end_when_quiet(s);
}

struct rpc_server *rpc_server_free(struct rpc_server *s)
{
    if (!s)
        return NULL;
    assert(list_empty(&s->peers));
    for (unsigned i = 0; i < s->listener_count; i++)
        loop_close(s->loop, s->listeners[i].fd);
    for (struct list *e; (e = list_pop_front(&s->spare));)
        free(list_entry(e, struct rpc_request, link));
    free(s);
    return NULL;
}

uint32_t rpc_server_connections(const struct rpc_server *s)
{
    return atomic_load_explicit(&s->connections, memory_order_relaxed);
}

uint32_t rpc_server_in_flight(const struct rpc_server *s)
{
    return atomic_load_explicit(&s->in_flight, memory_order_relaxed);
}

struct rpc_conn *rpc_peer_conn(const struct rpc_peer *p)
{
    return p->conn;
}

uint8_t rpc_peer_role(const struct rpc_peer *p)
{
    return p->role;
}

int rpc_peer_credentials(const struct rpc_peer *p, struct net_credentials *ret)
{
    if (!p->has_credentials)
        return -ENOTSUP;
    *ret = p->credentials;
    return 0;
}

void rpc_peer_set_user(struct rpc_peer *p, void *user)
{
    p->user = user;
}

void *rpc_peer_user(const struct rpc_peer *p)
{
    return p->user;
}
