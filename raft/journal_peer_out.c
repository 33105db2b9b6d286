/* SPDX-License-Identifier: Apache-2.0 */
/* The connections we make: dialing, with backoff. */
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "raft/journal_peer_internal.h"
#include "raft/journal_status.h"

enum {
    RETRY_MIN_MS = 20,
    RETRY_MAX_MS = 1000, /* a healed network is noticed this late at most */
    REFUSED_RETRY_MS = 3000,
    DIAL_STEP_MS = 1000,
};

static void dial(struct peer_out *o);

/* ---- connections ---- */

static void plan_dial(struct peer_out *o)
{
    struct journal_peers *p = o->peer->p;
    if (p->stopping || !o->peer->member)
        return;
    uint64_t ms = min((uint64_t)RETRY_MIN_MS << min(o->failures, 10u), (uint64_t)RETRY_MAX_MS);
    if (o->dial.refused)
        ms = REFUSED_RETRY_MS;
    ms = ms / 2 + random_u64() % (ms / 2 + 1); /* not all at once */
    loop_timer_start(p->options.loop, &o->retry, clock_ns() + ms * NS_PER_MS);
}

static void out_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct peer_out *o = user;
    if (!o->peer->p->stopping)
        peer_on_frame(o->peer, o->channel, c, f);
}

static void out_closed(struct rpc_conn *c, int reason, void *user)
{
    struct peer_out *o = user;
    struct journal_peers *p = o->peer->p;
    char node[17];
    o->conn = NULL;
    if (!p->stopping) {
        o->error = reason;
        snprintf(o->reason, sizeof(o->reason), "%s", cv_error_text(reason));
        if (o->channel == PEER_CONTROL)
            log_info("the connection to node %s at %s ended: %s", journal_node_text(o->peer->id, node),
                     o->peer->address, o->reason);
        plan_dial(o);
    }
    peers_finish_stop(p);
}

static void out_drained(struct rpc_conn *c, void *user)
{
    struct peer_out *o = user;
    peer_pump(o->peer);
}

static const struct rpc_conn_ops out_ops = {.frame = out_frame, .closed = out_closed, .drained = out_drained};

static void log_dial_failed(const struct peer_out *o, int error, const char *reason)
{
    char node[17];
    const struct peer_out *control = &o->peer->out[PEER_CONTROL];
    if ((o->error == error && strcmp(o->reason, reason) == 0) || /* once for each reason */
        (o != control && strcmp(control->reason, reason) == 0))
        return;
    log_warn(error, "node %s at %s (%s)%s%s%s; trying again", journal_node_text(o->peer->id, node), o->peer->address,
             peer_channel_name(o->channel), o->dial.refused ? " refuses us" : "", o->dial.refused ? ": " : "",
             o->dial.refused ? reason : "");
}

static void dial_done(struct journal_dial *d, int result)
{
    struct peer_out *o = container_of(d, struct peer_out, dial);
    struct peer *peer = o->peer;
    struct journal_peers *p = peer->p;
    char node[17];
    if (result == 0) {
        o->conn = d->conn;
        rpc_conn_set_ops(o->conn, &out_ops, o);
        rpc_conn_set_max(o->conn, PEER_BODY_MAX, o->channel == PEER_ENTRIES ? JOURNAL_ENTRY_SIZE_MAX : 1);
        if (o->channel == PEER_CONTROL)
            log_info("connected to node %s at %s", journal_node_text(peer->id, node), peer->address);
        o->failures = 0;
        o->error = 0;
        o->reason[0] = 0;
        peer->figures.connects++;
        counter_add(&journal_driver_metrics(p->driver)->peer_connects, 1);
        if (p->stopping || !peer->member)
            rpc_conn_close(o->conn, -CV_STOPPING);
        peer_pump(peer);
        return;
    }
    if (!p->stopping && result != -CV_STOPPING) {
        log_dial_failed(o, result, d->reason);
        o->error = result;
        snprintf(o->reason, sizeof(o->reason), "%s", d->reason);
        o->failures++;
    }
    plan_dial(o);
    peers_finish_stop(p);
}

int peer_fill_dial(struct peer *peer, enum peer_channel channel, struct journal_dial *d)
{
    struct journal_peers *p = peer->p;
    if (!peer->address[0])
        return -ENOENT;
    *d = (struct journal_dial){
        .loop = p->options.loop,
        .self = &p->options.self,
        .channel = channel,
        .to = peer->id,
        .step_ms = 1000,
        .silent_ms = peers_silent_ms(p),
        .done = d->done,
    };
    snprintf(d->address, sizeof(d->address), "%s", peer->address);
    return 0;
}

static void dial(struct peer_out *o)
{
    if (peer_fill_dial(o->peer, o->channel, &o->dial) < 0) {
        snprintf(o->reason, sizeof(o->reason), "the configuration has no address for it");
        return; /* until it has */
    }
    o->dial.done = dial_done;
    o->dial.step_ms = DIAL_STEP_MS;
    o->dial.limits = (struct rpc_conn_limits){
        .send_high = o->channel == PEER_ENTRIES ? PEER_ENTRIES_QUEUE : PEER_CONTROL_QUEUE,
        .send_max = PEER_ENTRIES_QUEUE + 2 * JOURNAL_ENTRY_SIZE_MAX,
    };
    journal_dial_start(&o->dial);
}

static void on_retry(struct loop_timer *timer)
{
    struct peer_out *o = container_of(timer, struct peer_out, retry);
    if (!o->peer->p->stopping && o->peer->member && !o->conn && !journal_dial_busy(&o->dial))
        dial(o);
}

void peer_out_init(struct peer *peer)
{
    for (int c = PEER_CONTROL; c <= PEER_ENTRIES; c++) {
        peer->out[c].peer = peer;
        peer->out[c].channel = (enum peer_channel)c;
        loop_timer_init(&peer->out[c].retry, on_retry);
    }
}

void peer_connect(struct peer *peer)
{
    for (int c = PEER_CONTROL; c <= PEER_ENTRIES; c++) {
        struct peer_out *o = &peer->out[c];
        if (!o->conn && !journal_dial_busy(&o->dial) && !loop_timer_running(&o->retry))
            dial(o);
    }
}

void peer_disconnect(struct peer *peer)
{
    for (int c = PEER_CONTROL; c <= PEER_ENTRIES; c++) {
        struct peer_out *o = &peer->out[c];
        loop_timer_stop(peer->p->options.loop, &o->retry);
        journal_dial_stop(&o->dial);
        if (o->conn)
            rpc_conn_close(o->conn, -CV_CLOSED);
        if (peer->in[c] && !peer->member)
            rpc_conn_close(peer->in[c]->conn, -CV_CLOSED);
    }
    peer->count = 0;
}
