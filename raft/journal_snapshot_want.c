/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leader's part: find who gives a snapshot to a peer, one peer after the other.
 *
 *      IDLE --a follower is caught up--> DIAL -> ASKED --bulk_prepared--> offered
 *        |                                 '--------'--- an error, too late: ourselves
 *        '--no, or that failed---------> SELF --our master's checkpoint--> REACH (connect to it) --> offered
 *
 * REACH: a peer that has no configuration yet does not know where we are, so we make the connection it asks on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "raft/journal_snapshot_internal.h"
#include "raft/journal_status.h"

#define PREPARE_NS (60 * NS_PER_S)
#define HEARD_MS   2000
#define WARN_NS    (30 * NS_PER_S)

static void drop_first(struct wants *w)
{
    w->state = WANT_IDLE;
    w->count--;
    memmove(&w->queue[0], &w->queue[1], w->count * sizeof(w->queue[0]));
}

static void again(struct journal_snapshots *s)
{
    loop_timer_stop(s->options.loop, &s->wants.late);
    loop_at_turn_end(s->options.loop, &s->turn);
}

static void offered(struct journal_snapshots *s)
{
    struct wants *w = &s->wants;
    struct want want = w->queue[0];
    char peer[17], source[17];
    drop_first(w);
    int r = journal_driver_snapshot_ready(s->driver, want.peer, w->source, w->index);
    if (r < 0) {
        log_debug("the snapshot at %" PRIu64 " is of no use: %s", w->index, cv_error_name(r));
        (void)journal_driver_snapshot_failed(s->driver, want.peer);
    } else {
        log_info("node %s lags behind the log: it fetches the state at entry %" PRIu64 " from node %s",
                 journal_node_text(want.peer, peer), w->index, journal_node_text(w->source, source));
    }
    again(s);
}

static void first_failed(struct journal_snapshots *s, int error)
{
    struct wants *w = &s->wants;
    struct want *want = &w->queue[0];
    char peer[17];
    if (!want->self && error != -CV_NOT_LEADER) {
        want->self = true; /* then from us */
        w->state = WANT_IDLE;
    } else {
        uint64_t id = want->peer;
        if (!w->warned_ns || clock_ns() > w->warned_ns + WARN_NS) {
            w->warned_ns = clock_ns();
            log_warn(error, "no snapshot for node %s, which lags behind the log; trying again",
                     journal_node_text(id, peer));
        }
        drop_first(w);
        (void)journal_driver_snapshot_failed(s->driver, id);
    }
    again(s);
}

/* ---- ourselves ---- */

static void reached(struct journal_dial *d, int result)
{
    struct journal_snapshots *s = container_of(d, struct journal_snapshots, wants.dial);
    struct wants *w = &s->wants;
    (void)bulk_dialed(s, d, result);
    if (!s->stopping && w->state == WANT_REACH)
        offered(s); /* also if not: it may reach us */
}

static void on_source(struct journal_snapshots *s, int result, uint64_t index)
{
    struct wants *w = &s->wants;
    if (w->state != WANT_SELF)
        return;
    if (result < 0) {
        first_failed(s, result);
        return;
    }
    w->index = index;
    w->source = s->options.node;
    w->dial.done = reached;
    if (bulk_find(s, w->queue[0].peer) || journal_dial_busy(&w->dial) ||
        journal_peers_dial(s->peers, w->queue[0].peer, PEER_SNAPSHOT, &w->dial) < 0) {
        offered(s);
        return;
    }
    w->state = WANT_REACH;
    journal_dial_start(&w->dial);
}

/* ---- a follower ---- */

static void ask(struct journal_snapshots *s, struct bulk *b)
{
    struct msg_bulk_prepare m = {.min_index = s->wants.queue[0].min_index};
    s->wants.state = WANT_ASKED;
    loop_timer_start(s->options.loop, &s->wants.late, clock_ns() + PREPARE_NS);
    bulk_send(b, MSG_bulk_prepare, &m);
}

static void dialed(struct journal_dial *d, int result)
{
    struct journal_snapshots *s = container_of(d, struct journal_snapshots, wants.dial);
    struct bulk *b = bulk_dialed(s, d, result);
    if (s->stopping || s->wants.state != WANT_DIAL)
        return;
    if (b)
        ask(s, b);
    else
        first_failed(s, result < 0 ? result : -CV_BUSY);
}

static void late(struct loop_timer *timer)
{
    struct journal_snapshots *s = container_of(timer, struct journal_snapshots, wants.late);
    if (s->wants.state == WANT_ASKED)
        first_failed(s, -CV_DEADLINE);
}

void wants_on_prepared(struct bulk *b, const struct msg_bulk_prepared *m)
{
    struct journal_snapshots *s = b->s;
    struct wants *w = &s->wants;
    if (w->state != WANT_ASKED || b->node != w->source)
        return;
    loop_timer_stop(s->options.loop, &w->late);
    if (m->error || m->index < w->queue[0].min_index) {
        first_failed(s, m->error ? bulk_error(m->error) : -EAGAIN);
        return;
    }
    w->index = m->index;
    offered(s);
}

void wants_bulk_closed(struct bulk *b)
{
    struct wants *w = &b->s->wants;
    if (w->state == WANT_ASKED && b->node == w->source && !b->s->stopping)
        first_failed(b->s, -CV_CLOSED);
}

/* A follower with a state, near the end of the log: it has time that we have not. 0: none. */
static uint64_t find_follower(struct journal_snapshots *s, const struct want *want)
{
    struct raft_status status;
    raft_status(journal_driver_raft(s->driver), &status);
    const struct raft_conf *conf = journal_driver_conf(s->driver);
    uint64_t best = 0, best_flushed = 0;
    for (uint32_t i = 0; i < status.peer_count; i++) {
        const struct raft_peer_status *p = &status.peers[i];
        const struct raft_member *m = conf ? raft_conf_find(conf, p->id) : NULL;
        bool heard = p->heard_ms && clock_ms() - p->heard_ms < HEARD_MS;
        if (p->id == want->peer || !m || m->journal_only || p->state != RAFT_REPLICATE || !heard || !p->can_lead ||
            p->flushed < want->min_index || p->flushed < best_flushed)
            continue;
        best = p->id;
        best_flushed = p->flushed;
    }
    return best;
}

/* Whether the peer knows where others are: it has a configuration. One without a log hears of us only. */
static bool knows_others(struct journal_snapshots *s, uint64_t peer)
{
    struct raft_status status;
    raft_status(journal_driver_raft(s->driver), &status);
    for (uint32_t i = 0; i < status.peer_count; i++)
        if (status.peers[i].id == peer)
            return status.peers[i].match > 0;
    return false;
}

void wants_step(struct journal_snapshots *s)
{
    struct wants *w = &s->wants;
    if (w->state != WANT_IDLE || w->count == 0 || s->stopping)
        return;
    if (journal_driver_view(s->driver)->role != RAFT_LEADER) {
        w->count = 0; /* the core asks again when we lead again */
        return;
    }
    struct want *want = &w->queue[0];
    want->self = want->self || !knows_others(s, want->peer);
    w->source = want->self ? 0 : find_follower(s, want);
    if (!w->source) {
        want->self = true;
        w->state = WANT_SELF;
        source_want(s, want->min_index, on_source);
        return;
    }
    struct bulk *b = bulk_find(s, w->source);
    if (b) {
        ask(s, b);
        return;
    }
    w->dial.done = dialed;
    int r = journal_dial_busy(&w->dial) ? -CV_BUSY : journal_peers_dial(s->peers, w->source, PEER_SNAPSHOT, &w->dial);
    if (r < 0) {
        first_failed(s, r);
        return;
    }
    w->state = WANT_DIAL;
    journal_dial_start(&w->dial);
}

void wants_add(struct journal_snapshots *s, uint64_t peer, uint64_t min_index)
{
    struct wants *w = &s->wants;
    for (uint32_t i = 0; i < w->count; i++)
        if (w->queue[i].peer == peer) {
            w->queue[i].min_index = min_index;
            return;
        }
    if (w->count < array_size(w->queue))
        w->queue[w->count++] = (struct want){.peer = peer, .min_index = min_index};
}

void wants_init(struct journal_snapshots *s)
{
    loop_timer_init(&s->wants.late, late);
}

void wants_stop(struct journal_snapshots *s)
{
    loop_timer_stop(s->options.loop, &s->wants.late);
    journal_dial_stop(&s->wants.dial);
}
