/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_dial.h"

#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"

static void next_address(struct journal_dial *d);

static void finish(struct journal_dial *d, int result)
{
    loop_timer_stop(d->loop, &d->timer);
    if (d->fd >= 0)
        d->fd = loop_close(d->loop, d->fd);
    d->state = DIAL_IDLE;
    if (result < 0 && !d->reason[0])
        snprintf(d->reason, sizeof(d->reason), "%s", cv_error_text(result));
    d->done(d, d->stopping ? -CV_STOPPING : result);
}

/* ---- hello ---- */

static void on_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct journal_dial *d = user;
    struct msg_peer_hello_answer answer;
    int r = f->header.type == MSG_peer_hello_answer && !f->header.data_len
                ? msg_peer_hello_answer_decode(f->body, f->header.body_len, &answer)
                : -CV_BAD_MESSAGE;
    if (r < 0) {
        rpc_conn_close(c, r);
        return;
    }
    struct text reason;
    r = journal_hello_accept(d->self, d->to, &answer, &reason);
    if (r < 0 || d->stopping) {
        d->refused = answer.error != 0;
        snprintf(d->reason, sizeof(d->reason), TEXT_FMT, TEXT_ARG(reason));
        rpc_conn_close(c, r < 0 ? r : -CV_STOPPING);
        return;
    }
    d->node = answer.node;
    d->features = answer.features;
    snprintf(d->digest, sizeof(d->digest), TEXT_FMT, TEXT_ARG(answer.digest));
    d->conn = c;
    finish(d, 0);
}

static void on_closed(struct rpc_conn *c, int reason, void *user)
{
    struct journal_dial *d = user;
    finish(d, reason);
}

static const struct rpc_conn_ops hello_ops = {.frame = on_frame, .closed = on_closed};

static void say_hello(struct journal_dial *d)
{
    struct msg_peer_hello hello;
    struct frame_header h = {.type = MSG_peer_hello, .flags = FRAME_ONE_WAY, .incarnation = d->self->incarnation};
    int fd = d->fd;
    d->fd = -1;
    int r = rpc_conn_new(d->loop, fd, &hello_ops, d, &d->limits, &d->conn);
    if (r < 0) {
        finish(d, r);
        return;
    }
    (void)net_give_up(fd, d->silent_ms);
    d->state = DIAL_HELLO;
    rpc_conn_set_max(d->conn, 4096, 1);
    loop_timer_start(d->loop, &d->timer, clock_ns() + d->step_ms * NS_PER_MS);
    journal_hello_fill(d->self, d->channel, d->to, &hello);
    hello.from_index = d->from_index;
    hello.to_index = d->to_index;
    r = rpc_conn_send(d->conn, &h, msg_peer_hello_desc(), &hello);
    if (r < 0)
        rpc_conn_close(d->conn, r);
}

/* ---- connect ---- */

static void on_connected(struct io_op *op, int result)
{
    struct journal_dial *d = container_of(op, struct journal_dial, op);
    if (result == 0 && !d->stopping) {
        say_hello(d);
        return;
    }
    d->result = result == -ECANCELED ? -CV_DEADLINE : result;
    d->fd = loop_close(d->loop, d->fd);
    next_address(d);
}

/* Ends with the last one's error. */
static void next_address(struct journal_dial *d)
{
    while (d->at < d->count && !d->stopping) {
        const struct net_address *a = &d->where[d->at++];
        d->result = net_socket(a, &d->fd);
        if (d->result < 0)
            continue;
        d->state = DIAL_CONNECT;
        loop_timer_start(d->loop, &d->timer, clock_ns() + d->step_ms * NS_PER_MS);
        io_connect(d->loop, &d->op, d->fd, &a->any, a->n, on_connected);
        return;
    }
    finish(d, d->result < 0 ? d->result : -CV_UNREACHABLE);
}

static void on_late(struct loop_timer *timer)
{
    struct journal_dial *d = container_of(timer, struct journal_dial, timer);
    if (d->state == DIAL_CONNECT)
        io_cancel(&d->op);
    else if (d->state == DIAL_HELLO)
        rpc_conn_close(d->conn, -CV_DEADLINE);
}

/* ---- names ---- */

static int resolve(void *arg)
{
    struct journal_dial *d = arg;
    return net_resolve(d->address, 0, d->where, DIAL_ADDRESSES_MAX);
}

static void on_resolved(struct io_op *op, int result)
{
    struct journal_dial *d = container_of(op, struct journal_dial, op);
    d->count = result > 0 ? (unsigned)result : 0;
    d->result = result < 0 ? result : 0;
    next_address(d);
}

/* By a file thread even for numbers: done() must not run inside the start. */
void journal_dial_start(struct journal_dial *d)
{
    assert_on_loop(d->loop);
    assert(d->state == DIAL_IDLE);
    d->state = DIAL_RESOLVE;
    d->stopping = d->refused = false;
    d->conn = NULL;
    d->fd = -1;
    d->at = d->count = 0;
    d->reason[0] = d->digest[0] = 0;
    loop_timer_init(&d->timer, on_late);
    io_work(d->loop, &d->op, resolve, d, on_resolved);
}

void journal_dial_stop(struct journal_dial *d)
{
    if (d->state == DIAL_IDLE)
        return;
    d->stopping = true;
    if (d->state == DIAL_HELLO)
        rpc_conn_close(d->conn, -CV_STOPPING);
    else
        io_cancel(&d->op);
}
