/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_snapshot_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "conf/json.h"
#include "raft/journal_status.h"

enum { LOOK_NS = NS_PER_S };

/* ---- connections ---- */

/* Decode the body as message `name` into m and do what follows. */
#define ON(name, ...)                                                                                                  \
    case MSG_bulk_##name: {                                                                                            \
        struct msg_bulk_##name m;                                                                                      \
        int r = msg_bulk_##name##_decode(f->body, f->header.body_len, &m);                                             \
        if (r < 0)                                                                                                     \
            return r;                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        return 0;                                                                                                      \
    }

static int handle(struct bulk *b, const struct rpc_frame *f)
{
    switch (f->header.type) {
        ON(prepare, source_on_prepare(b, &m))
        ON(prepared, wants_on_prepared(b, &m))
        ON(open, source_on_open(b, &m))
        ON(manifest, fetch_on_manifest(b, &m, f))
        ON(need, return source_on_need(b, &m))
        ON(data, return fetch_on_data(b, &m, f))
    default: return 0; /* of a newer journal */
    }
}

static void bulk_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct bulk *b = user;
    if (b->s->stopping)
        return;
    int r = f->header.incarnation == b->s->options.incarnation ? handle(b, f) : -CV_WRONG_INCARNATION;
    if (r < 0) {
        char node[17];
        log_warn(r, "node %s (%s) sends what cannot be (%s): disconnecting it", journal_node_text(b->node, node),
                 rpc_conn_peer(c), message_name(f->header.type));
        rpc_conn_close(c, r);
    }
}

static void bulk_closed(struct rpc_conn *c, int reason, void *user)
{
    struct bulk *b = user;
    b->conn = NULL;
    b->count = 0;
    wants_bulk_closed(b);
    fetch_bulk_closed(b);
    bulk_release(b);
}

static void bulk_drained(struct rpc_conn *c, void *user)
{
    source_drained(user);
}

static const struct rpc_conn_ops bulk_ops = {.frame = bulk_frame, .closed = bulk_closed, .drained = bulk_drained};

void journal_snapshots_accept(void *arg, struct rpc_conn *conn, uint64_t node)
{
    (void)bulk_add(arg, conn, node);
}

/* ---- what the driver and the link tell ---- */

static void turn(struct loop_hook *hook)
{
    struct journal_snapshots *s = container_of(hook, struct journal_snapshots, turn);
    if (s->stopping)
        return;
    fetch_offer(s);
    wants_step(s);
}

static void on_want(void *arg, const struct raft_snapshot_want *want)
{
    struct journal_snapshots *s = arg;
    wants_add(s, want->peer, want->min_index);
    loop_at_turn_end(s->options.loop, &s->turn);
}

static void on_offer(void *arg, const struct raft_snapshot_offer *offer)
{
    struct journal_snapshots *s = arg;
    s->fetch.offer = *offer;
    s->fetch.again = true;
    s->offers++;
    loop_at_turn_end(s->options.loop, &s->turn);
}

static void on_installed(void *arg)
{
    fetch_installed(arg);
}

static int on_status(void *arg, struct buf *out)
{
    const struct journal_snapshots *s = arg;
    static const char *const gives[] = {"none", "asked", "completing", "ready"};
    static const char *const takes[] = {"idle",      "waiting", "connecting", "asking",
                                        "comparing", "running", "checking",   "switching"};
    const struct source *g = &s->source;
    const struct fetch *f = &s->fetch;
    char node[17];
    int r = buf_printf(out, ",\"snapshots\":{\"give\":\"%s\",\"give_index\":%" PRIu64 ",\"give_bytes\":%" PRIu64,
                       gives[g->state], g->state == SOURCE_READY ? g->manifest.index : 0,
                       g->state == SOURCE_READY ? (uint64_t)manifest_bytes(&g->manifest) : 0);
    if (r == 0)
        r = buf_printf(out,
                       ",\"sent_bytes\":%" PRIu64 ",\"fetch\":\"%s\",\"fetch_index\":%" PRIu64 ",\"fetch_from\":\"%s\"",
                       s->sent, takes[f->state], f->state ? f->offer.index : 0,
                       f->state ? journal_node_text(f->offer.source, node) : "");
    if (r == 0)
        r = buf_printf(out,
                       ",\"fetch_bytes\":%" PRIu64 ",\"kept_bytes\":%" PRIu64 ",\"received_bytes\":%" PRIu64
                       ",\"fetched_bytes\":%" PRIu64 ",\"installed\":%" PRIu64 ",\"offers\":%" PRIu64 "}",
                       f->total, f->kept, f->received, s->fetched, s->fetches, s->offers);
    return r;
}

const struct journal_snapshot_ops journal_snapshots_driver = {
    .want = on_want, .offer = on_offer, .installed = on_installed, .status = on_status};

static void on_attached(void *arg)
{
    snapshots_sweep(arg);
}

static void on_ready(void *arg, const struct msg_link_snapshot_ready *answer)
{
    source_on_ready(arg, answer);
}

const struct journal_link_snapshots journal_snapshots_link = {.attached = on_attached, .ready = on_ready};

/* ---- life ---- */

static void look(struct loop_timer *timer)
{
    struct journal_snapshots *s = container_of(timer, struct journal_snapshots, look);
    loop_timer_start(s->options.loop, &s->look, clock_ns() + LOOK_NS);
    source_look(s);
    wants_step(s);
}

int journal_snapshots_new(const struct journal_snapshots_options *options, struct journal_snapshots **ret)
{
    struct journal_snapshots *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->options = *options;
    s->bulk_ops = &bulk_ops;
    s->swept = fetch_swept;
    list_init(&s->bulks);
    loop_hook_init(&s->turn, turn);
    loop_timer_init(&s->look, look);
    wants_init(s);
    fetch_init(s);
    *ret = s;
    return 0;
}

struct journal_snapshots *journal_snapshots_free(struct journal_snapshots *s)
{
    if (!s)
        return NULL;
    assert(!snapshots_busy(s));
    source_fini(&s->source);
    fetch_fini(&s->fetch);
    free(s);
    return NULL;
}

void journal_snapshots_start(struct journal_snapshots *s, struct journal_driver *driver, struct journal_link *link,
                             struct journal_peers *peers)
{
    s->driver = driver;
    s->link = link;
    s->peers = peers;
    s->started = true;
    loop_timer_start(s->options.loop, &s->look, clock_ns() + LOOK_NS);
}

void journal_snapshots_set_rate(struct journal_snapshots *s, uint64_t rate)
{
    assert_on_loop(s->options.loop);
    if (rate == s->options.rate)
        return;
    s->options.rate = rate;
    s->rate_ns = 0; /* what waits by the old one goes now */
    list_for_each_safe (e, &s->bulks) {
        struct bulk *b = list_entry(e, struct bulk, link);
        if (loop_timer_running(&b->rate)) {
            loop_timer_stop(s->options.loop, &b->rate);
            source_drained(b);
        }
    }
}

void journal_snapshots_stop(struct journal_snapshots *s, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(s->options.loop);
    s->stopping = true;
    s->stopped = stopped;
    s->stopped_arg = arg;
    loop_timer_stop(s->options.loop, &s->look);
    loop_hook_cancel(s->options.loop, &s->turn);
    wants_stop(s);
    fetch_stop(s);
    list_for_each (e, &s->bulks) {
        struct bulk *b = list_entry(e, struct bulk, link);
        if (b->conn)
            rpc_conn_close(b->conn, -CV_STOPPING);
    }
    snapshots_finish_stop(s);
}
