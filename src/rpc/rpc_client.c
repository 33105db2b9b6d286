/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls in flight stand in a table; the request id is the place in it and a generation, so that a late answer to a call
 * that was given up finds nobody.
 */
#include "rpc/rpc_client.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"

#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000

enum call_state { CALL_IDLE, CALL_WAITING, CALL_SENT, CALL_FAILING };
enum client_state { CLIENT_IDLE, CLIENT_PAUSING, CLIENT_RESOLVING, CLIENT_CONNECTING, CLIENT_GREETING, CLIENT_READY };

struct place {
    struct rpc_call *call; /* NULL: free */
    uint32_t generation;   /* counts its uses */
    uint32_t next_free;
    bool late; /* call is gone, its answer is awaited */
};

#define NO_PLACE   UINT32_MAX
#define PLACES_MAX 65536       /* calls in flight */
#define LATE_MAX   4096        /* answers awaited of calls that were given up */
#define QUEUED_MAX (32u << 20) /* bytes the server has not taken, above which calls are refused */

struct rpc_client {
    struct loop *loop;
    struct rpc_client_options options;
    char *address;
    enum client_state state;
    struct net_address resolved;
    int fd;
    struct io_op io;
    struct loop_timer timer; /* pause before the next attempt; limit of an attempt */
    uint32_t failures;       /* attempts in a row */
    struct prng jitter;
    struct rpc_conn *conn;
    char reason[128];
    struct list waiting, sent; /* calls */
    struct place *places;
    uint32_t place_count, free_place, late_count;
    uint64_t heard_ns; /* a frame came */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
    struct loop_job end;
};

/* ---- the end of a call ------------------------------------------------------------------------------------------------ */

static void call_end(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct rpc_metrics *metrics = call->client->options.limits.metrics;
    if (!f && result == -CV_DEADLINE)
        RPC_COUNT(metrics, calls_deadline, 1);
    else if (!f && call->sent && result == -CV_CLOSED)
        RPC_COUNT(metrics, calls_broken, 1);
    else if (!f && !call->sent)
        RPC_COUNT(metrics, calls_unsent, 1);
    list_remove(&call->link);
    loop_timer_stop(call->client->loop, &call->timer);
    free(call->body);
    call->body = NULL;
    call->state = CALL_IDLE;
    call->done(call, result, f);
}

static void place_release(struct rpc_client *c, uint32_t i)
{
    struct place *p = &c->places[i];
    c->late_count -= p->late;
    p->call = NULL;
    p->late = false;
    p->generation++;
    p->next_free = c->free_place;
    c->free_place = i;
}

/* Errors: -CV_BUSY too much is in flight; -ENOMEM. */
static int place_take(struct rpc_client *c, struct rpc_call *call)
{
    if (rpc_conn_queued(c->conn) > QUEUED_MAX)
        return -CV_BUSY;
    if (c->free_place == NO_PLACE) {
        uint32_t count = c->place_count ? c->place_count * 2 : 64;
        if (count > PLACES_MAX)
            return -CV_BUSY;
        struct place *places = reallocarray(c->places, count, sizeof(*places));
        if (!places)
            return -ENOMEM;
        c->places = places;
        for (uint32_t i = c->place_count; i < count; i++) {
            places[i] = (struct place){.generation = 1, .next_free = i + 1 < count ? i + 1 : NO_PLACE};
        }
        c->free_place = c->place_count;
        c->place_count = count;
    }
    call->place = c->free_place;
    struct place *p = &c->places[call->place];
    c->free_place = p->next_free;
    p->call = call;
    return 0;
}

static uint64_t request_id(const struct rpc_client *c, uint32_t place)
{
    return (uint64_t)c->places[place].generation << 32 | place;
}

/* The call is given up: tell the server, or wait for what it says. An answer under way finds another generation in the place. */
static void abandon_place(struct rpc_call *call)
{
    struct rpc_client *c = call->client;
    struct place *p = &c->places[call->place];
    if (call->late && c->options.late && c->late_count < LATE_MAX) {
        p->call = NULL;
        p->late = true;
        c->late_count++;
        return;
    }
    struct frame_header header = {.type = call->type, .flags = FRAME_CANCEL, .request_id = request_id(c, call->place)};
    if (c->conn && !rpc_conn_congested(c->conn))
        rpc_conn_send(c->conn, &header, NULL, NULL);
    place_release(c, call->place);
}

static void on_deadline(struct loop_timer *timer)
{
    struct rpc_call *call = container_of(timer, struct rpc_call, timer);
    if (call->state == CALL_SENT)
        abandon_place(call);
    call_end(call, -CV_DEADLINE, NULL);
}

static void fail_now(struct loop_job *job)
{
    struct rpc_call *call = container_of(job, struct rpc_call, job);
    call_end(call, call->result, NULL);
}

/* End a call on a later turn: not from inside what starts or cancels it. It is on no list meanwhile. */
static void fail_later(struct rpc_call *call, int result)
{
    call->state = CALL_FAILING;
    call->result = result;
    list_remove(&call->link);
    call->job = (struct loop_job){.run = fail_now};
    loop_timer_stop(call->client->loop, &call->timer);
    loop_post(call->client->loop, &call->job);
}

static void fail_all(struct rpc_client *c, struct list *calls, int result)
{
    struct list failed = LIST_INIT(failed);
    list_append_all(&failed, calls);
    list_for_each (e, &failed) /* done() of one may cancel another: that is too late */
        list_entry(e, struct rpc_call, link)->state = CALL_FAILING;
    while (!list_empty(&failed)) /* done() may start new calls, on the lists of the client */
        call_end(list_entry(failed.next, struct rpc_call, link), result, NULL);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

static struct frame_header header_of(struct rpc_client *c, struct rpc_call *call, uint64_t index)
{
    uint64_t now = loop_now(c->loop), left_ms = 0;
    if (call->deadline_ns != UINT64_MAX)
        left_ms = call->deadline_ns > now ? (call->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS : 1;
    return (struct frame_header){
        .type = call->type,
        .request_id = request_id(c, call->place),
        .aux = (uint32_t)min(left_ms, (uint64_t)UINT32_MAX),
        .incarnation = c->options.self.incarnation,
        .index = index,
    };
}

static void sent(struct rpc_client *c, struct rpc_call *call, int r)
{
    if (r < 0) {
        place_release(c, call->place);
        fail_later(call, r == -CV_CLOSED ? -CV_UNREACHABLE : r);
        return;
    }
    if (list_empty(&c->sent))
        c->heard_ns = loop_now(c->loop); /* silence counts from here */
    call->state = CALL_SENT;
    call->sent = true;
    list_push_back(&c->sent, &call->link);
}

static void begin(struct rpc_client *c, struct rpc_call *call, uint16_t type, uint64_t deadline_ns)
{
    assert_on_loop(c->loop);
    assert(!rpc_call_busy(call));
    RPC_COUNT(c->options.limits.metrics, calls, 1);
    call->client = c;
    call->type = type;
    call->deadline_ns = deadline_ns;
    call->sent = false;
    call->body = NULL;
    call->state = CALL_WAITING;
    list_init(&call->link);
    loop_timer_init(&call->timer, on_deadline);
    if (deadline_ns != UINT64_MAX)
        loop_timer_start(c->loop, &call->timer, deadline_ns);
}

/* Keep the message until there is a connection. */
static void wait_for_connection(struct rpc_client *c, struct rpc_call *call, uint64_t index, const void *body,
                                uint32_t n, const void *data, uint32_t data_n)
{
    if (c->closing) {
        fail_later(call, -CV_UNREACHABLE);
        return;
    }
    call->body = malloc(8 + (size_t)n + data_n);
    if (!call->body) {
        fail_later(call, -ENOMEM);
        return;
    }
    memcpy(call->body, &index, 8);
    if (n)
        memcpy(call->body + 8, body, n);
    if (data_n)
        memcpy(call->body + 8 + n, data, data_n);
    call->body_n = n;
    call->data_n = data_n;
    list_push_back(&c->waiting, &call->link);
    rpc_client_connect(c);
}

void rpc_client_call_body(struct rpc_client *c, struct rpc_call *call, uint16_t type, uint64_t index, const void *body,
                          uint32_t n, const void *data, uint32_t data_n, uint64_t deadline_ns)
{
    begin(c, call, type, deadline_ns);
    if (c->state != CLIENT_READY)
        wait_for_connection(c, call, index, body, n, data, data_n);
    else {
        int r = place_take(c, call);
        if (r < 0) {
            fail_later(call, r);
            return;
        }
        struct frame_header header = header_of(c, call, index);
        sent(c, call, rpc_conn_send_body_data(c->conn, &header, body, n, data, data_n));
    }
}

void rpc_client_call(struct rpc_client *c, struct rpc_call *call, uint16_t type, const struct wire_desc *desc,
                     const void *record, uint64_t deadline_ns)
{
    if (c->state == CLIENT_READY) {
        begin(c, call, type, deadline_ns);
        int r = place_take(c, call);
        if (r < 0) {
            fail_later(call, r);
            return;
        }
        struct frame_header header = header_of(c, call, 0);
        sent(c, call, rpc_conn_send(c->conn, &header, desc, record));
        return;
    }
    struct buf body cleanup(buf_fini) = {0};
    int r = desc ? wire_encode(desc, record, &body) : 0;
    if (r < 0) {
        begin(c, call, type, deadline_ns);
        fail_later(call, r);
        return;
    }
    rpc_client_call_body(c, call, type, 0, body.p, (uint32_t)body.n, NULL, 0, deadline_ns);
}

void rpc_client_cancel(struct rpc_call *call)
{
    assert(call->state == CALL_IDLE || loop_is_here(call->client->loop));
    if (call->state == CALL_SENT)
        abandon_place(call);
    if (call->state == CALL_WAITING || call->state == CALL_SENT)
        fail_later(call, -CV_CANCELLED);
}

uint8_t *rpc_client_take_buffer(struct rpc_client *c)
{
    assert_on_loop(c->loop);
    return rpc_conn_take_buffer(c->conn);
}

/* ---- frames that come in ------------------------------------------------------------------------------------------------ */

/* Calls that waited for the connection. */
static void send_waiting(struct rpc_client *c)
{
    struct list waiting = LIST_INIT(waiting);
    list_append_all(&waiting, &c->waiting);
    for (struct list *e; (e = list_pop_front(&waiting));) {
        struct rpc_call *call = list_entry(e, struct rpc_call, link);
        uint64_t index;
        memcpy(&index, call->body, 8);
        int r = place_take(c, call);
        if (r < 0) {
            fail_later(call, r);
            continue;
        }
        struct frame_header header = header_of(c, call, index);
        r = rpc_conn_send_body_data(c->conn, &header, call->body + 8, call->body_n, call->body + 8 + call->body_n,
                                    call->data_n);
        free(call->body);
        call->body = NULL;
        sent(c, call, r);
    }
}

static void report(struct rpc_client *c, int error, const struct msg_hello_answer *answer)
{
    if (c->options.state)
        c->options.state(c, error, answer, c->reason, c->options.user);
}

/* The other end's HELLO. */
static void on_greeted(struct rpc_client *c, const struct rpc_frame *f)
{
    struct msg_hello_answer answer;
    int r = f->header.type != MSG_hello_answer ? -CV_BAD_MESSAGE
                                               : msg_hello_answer_decode(f->body, f->header.body_len, &answer);
    if (r == 0 && f->header.aux) {
        r = -(int)f->header.aux;
        snprintf(c->reason, sizeof(c->reason), TEXT_FMT, TEXT_ARG(answer.reason));
    }
    if (r == 0)
        r = rpc_hello_accept(&c->options.self, &answer);
    if (r < 0) {
        rpc_conn_close(c->conn, r);
        return;
    }
    loop_timer_stop(c->loop, &c->timer);
    c->state = CLIENT_READY;
    c->reason[0] = '\0';
    report(c, 0, &answer);
    if (c->state == CLIENT_READY)
        send_waiting(c);
}

static void on_answer(struct rpc_client *c, const struct rpc_frame *f)
{
    uint32_t i = (uint32_t)f->header.request_id;
    if (i >= c->place_count || c->places[i].generation != f->header.request_id >> 32)
        return; /* given up meanwhile */
    if (c->places[i].late) {
        place_release(c, i);
        c->options.late(c, f, c->options.user);
        return;
    }
    if (!c->places[i].call)
        return;
    struct rpc_call *call = c->places[i].call;
    c->failures = 0; /* not before: a server may greet and hang up */
    place_release(c, i);
    int r = f->header.type != (call->type | 0x8000) ? -CV_BAD_MESSAGE : -(int)f->header.aux;
    call_end(call, r, f);
}

static void on_frame(struct rpc_conn *conn, const struct rpc_frame *f, void *user)
{
    struct rpc_client *c = user;
    c->heard_ns = loop_now(c->loop);
    if (c->state == CLIENT_GREETING)
        on_greeted(c, f);
    else if (f->header.flags & FRAME_ANSWER)
        on_answer(c, f);
    else if (f->header.flags & FRAME_ONE_WAY && c->options.one_way)
        c->options.one_way(c, f, c->options.user);
}

/* ---- connecting ------------------------------------------------------------------------------------------------------------ */

static void free_now(struct loop_job *job)
{
    struct rpc_client *c = container_of(job, struct rpc_client, end);
    void (*closed)(void *) = c->closed;
    void *arg = c->closed_arg;
    free(c->places);
    free(c->address);
    free(c);
    if (closed)
        closed(arg);
}

static void free_when_quiet(struct rpc_client *c)
{
    if (!c->closing || c->conn || io_op_busy(&c->io) || c->end.run)
        return;
    c->end.run = free_now;
    loop_post(c->loop, &c->end);
}

/* There is no connection: it could not be made, or has ended (if it was of use, the next attempt begins at once). What waits fails with
 * each failed attempt: callers with several addresses want to try the next. */
static void attempt_failed(struct rpc_client *c, int error)
{
    loop_timer_stop(c->loop, &c->timer);
    if (c->state != CLIENT_READY || c->failures)
        c->failures++;
    c->state = CLIENT_IDLE;
    if (!c->closing)
        report(c, error, NULL);
    fail_all(c, &c->waiting, error == -CV_WRONG_CLUSTER || error == -CV_WRONG_INCARNATION ? error : -CV_UNREACHABLE);
    fail_all(c, &c->sent, -CV_CLOSED);
    free_when_quiet(c); /* last: what is called above may have made calls, which fail by jobs of their own */
}

static void on_closed(struct rpc_conn *conn, int reason, void *user)
{
    struct rpc_client *c = user;
    c->conn = NULL;
    for (uint32_t i = 0; i < c->place_count; i++)
        if (c->places[i].call || c->places[i].late)
            place_release(c, i);
    attempt_failed(c, reason);
}

static const struct rpc_conn_ops conn_ops = {.frame = on_frame, .closed = on_closed};

static void on_connected(struct io_op *op, int result)
{
    struct rpc_client *c = container_of(op, struct rpc_client, io);
    int fd = c->fd;
    c->fd = -1;
    if (result == 0 && c->closing)
        result = -ECANCELED;
    if (result == 0)
        result = rpc_conn_new(c->loop, fd, &conn_ops, c, &c->options.limits, &c->conn);
    else
        loop_close(c->loop, fd);
    if (result < 0) {
        snprintf(c->reason, sizeof(c->reason), "%s", cv_error_text(result));
        attempt_failed(c, result == -ECANCELED ? -CV_DEADLINE : result);
        return;
    }
    if (c->options.give_up_ms)
        (void)net_give_up(fd, c->options.give_up_ms); /* no TCP (-EOPNOTSUPP): its end is seen at once */
    struct msg_hello hello;
    rpc_hello_fill(&c->options.self, &hello);
    hello.session = c->options.session;
    c->state = CLIENT_GREETING;
    struct frame_header header = {.type = MSG_hello, .incarnation = c->options.self.incarnation};
    rpc_conn_send(c->conn, &header, msg_hello_desc(), &hello);
}

static int resolve_work(void *arg)
{
    struct rpc_client *c = arg;
    return net_resolve(c->address, c->options.default_port, &c->resolved, 1);
}

static void connect_resolved(struct rpc_client *c, int result)
{
    if (result >= 0 && c->closing)
        result = -ECANCELED;
    if (result >= 0)
        result = net_socket(&c->resolved, &c->fd);
    if (result < 0) {
        snprintf(c->reason, sizeof(c->reason), "%s", cv_error_text(result));
        attempt_failed(c, result);
        return;
    }
    c->state = CLIENT_CONNECTING;
    io_connect(c->loop, &c->io, c->fd, &c->resolved.any, c->resolved.n, on_connected);
}

static void on_resolved(struct io_op *op, int result)
{
    connect_resolved(container_of(op, struct rpc_client, io), result);
}

static void on_timer(struct loop_timer *timer)
{
    struct rpc_client *c = container_of(timer, struct rpc_client, timer);
    if (c->state == CLIENT_PAUSING) {
        uint32_t limit = c->options.connect_timeout_ms ? c->options.connect_timeout_ms : 3000;
        loop_timer_start(c->loop, &c->timer, clock_ns() + limit * NS_PER_MS);
        c->state = CLIENT_RESOLVING;
        int r = net_parse(c->address, c->options.default_port, &c->resolved);
        if (r == -EADDRNOTAVAIL) /* a name: ask DNS, which may take its time */
            io_work(c->loop, &c->io, resolve_work, c, on_resolved);
        else
            connect_resolved(c, r);
    } else if (c->conn) {
        snprintf(c->reason, sizeof(c->reason), "no HELLO in time");
        rpc_conn_close(c->conn, -CV_DEADLINE);
    } else if (io_op_busy(&c->io)) {
        io_cancel(&c->io);
    }
}

void rpc_client_connect(struct rpc_client *c)
{
    assert_on_loop(c->loop);
    if (c->state != CLIENT_IDLE || c->closing)
        return;
    uint64_t pause = 0;
    if (c->failures) {
        uint32_t ceiling = (uint32_t)min((uint64_t)BACKOFF_MIN_MS << min(c->failures, 10u), (uint64_t)BACKOFF_MAX_MS);
        pause = (ceiling / 2 + prng_below(&c->jitter, ceiling / 2 + 1)) * NS_PER_MS;
    }
    c->state = CLIENT_PAUSING;
    loop_timer_start(c->loop, &c->timer, clock_ns() + pause);
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

int rpc_client_new(struct loop *loop, const struct rpc_client_options *options, struct rpc_client **ret)
{
    struct net_address address;
    int r = net_parse(options->address, options->default_port, &address);
    if (r < 0 && r != -EADDRNOTAVAIL) /* that one is a host name */
        return r;
    struct rpc_client *c = calloc(1, sizeof(*c));
    if (!c || !(c->address = strdup(options->address))) {
        free(c);
        return -ENOMEM;
    }
    c->loop = loop;
    c->options = *options;
    c->fd = -1;
    c->free_place = NO_PLACE;
    c->jitter.state = random_u64();
    list_init(&c->waiting);
    list_init(&c->sent);
    loop_timer_init(&c->timer, on_timer);
    *ret = c;
    return 0;
}

void rpc_client_close(struct rpc_client *c, void (*closed)(void *arg), void *arg)
{
    assert_on_loop(c->loop);
    assert(!c->closing);
    c->closing = true;
    c->closed = closed;
    c->closed_arg = arg;
    loop_timer_stop(c->loop, &c->timer);
    fail_all(c, &c->waiting, -CV_UNREACHABLE);
    if (c->conn)
        rpc_conn_close(c->conn, -CV_CLOSED);
    else if (io_op_busy(&c->io))
        io_cancel(&c->io);
    free_when_quiet(c);
}

void rpc_client_drop(struct rpc_client *c)
{
    assert_on_loop(c->loop);
    if (c->conn && !list_empty(&c->sent))
        rpc_conn_close(c->conn, -CV_CLOSED);
}

bool rpc_client_connected(const struct rpc_client *c)
{
    return c->state == CLIENT_READY;
}

const char *rpc_client_address(const struct rpc_client *c)
{
    return c->address;
}

uint64_t rpc_client_silent_ms(const struct rpc_client *c)
{
    return list_empty(&c->sent) ? 0 : (clock_ns() - c->heard_ns) / NS_PER_MS;
}
