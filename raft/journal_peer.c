/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_peer_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "raft/journal_status.h"

enum {
    LOOK_NS = NS_PER_S,
};

/* ---- who belongs to the cluster ---- */

static int start_listening(struct journal_peers *p, bool at_start)
{
    if (p->fd >= 0 || !p->want_listen || p->stopping)
        return 0;
    struct net_address bound;
    int r = at_start ? net_listen_at_start(&p->listen, 0, &p->fd) : net_listen(&p->listen, 0, &p->fd);
    if (r == 0)
        r = net_local(p->fd, &bound);
    if (r < 0) {
        if (r != p->listen_error)
            log_error(r, "listen for the other journals on %s", p->address);
        p->listen_error = r;
        return r;
    }
    p->listen_error = 0;
    net_text(&bound, p->address);
    log_info("listening for the other journals on %s", p->address);
    peers_start_accept(p);
    return 0;
}

/* One configuration or none: the core decides alone, or waits to be added. */
static void set_members(struct journal_peers *p, const struct raft_conf *conf)
{
    uint64_t self = p->options.self.node;
    list_for_each (e, &p->peers) {
        struct peer *peer = list_entry(e, struct peer, link);
        if (peer->member && !raft_conf_find(conf, peer->id))
            peers_leave(p, peer);
    }
    for (uint32_t i = 0; i < conf->count; i++) {
        const struct raft_member *m = &conf->members[i];
        if (m->id == self)
            continue;
        peers_forget_removed(p, m->id);
        struct peer *peer = peers_get(p, m->id);
        if (!peer)
            continue; /* out of memory: tried with the next configuration */
        bool moved = peer->member && strcmp(peer->address, m->raft_address) != 0;
        peer->member = true;
        snprintf(peer->address, sizeof(peer->address), "%s", m->raft_address);
        if (moved)
            peer_disconnect(peer);
        peer_connect(peer);
    }
    p->want_listen = conf->count > 1 || !raft_conf_find(conf, self);
}

static void on_members(void *arg, const struct raft_conf *conf)
{
    struct journal_peers *p = arg;
    assert_on_loop(p->options.loop);
    if (!p->started || p->stopping)
        return;
    set_members(p, conf);
    (void)start_listening(p, false);
}

static void on_send(void *arg, const struct raft_message *m)
{
    struct journal_peers *p = arg;
    struct peer *peer = p->started && !p->stopping ? peers_find(p, m->to) : NULL;
    if (peer)
        peer_send(peer, m);
}

static int on_status(void *arg, struct buf *out)
{
    return journal_peers_status(arg, out);
}

const struct journal_transport_ops journal_peers_transport = {
    .send = on_send, .members = on_members, .status = on_status};

/* ---- every second ---- */

static void count_gauges(struct journal_peers *p)
{
    uint64_t connected = 0, lag = 0;
    struct raft_status s;
    raft_status(journal_driver_raft(p->driver), &s);
    for (uint32_t i = 0; i < s.peer_count; i++)
        lag = max(lag, s.last > s.peers[i].match ? s.last - s.peers[i].match : 0);
    list_for_each (e, &p->peers) {
        const struct peer *peer = list_entry(e, struct peer, link);
        connected += peer->member && peer_conn(peer, PEER_CONTROL) && peer_conn(peer, PEER_ENTRIES);
    }
    atomic_store_explicit(&p->connected, connected, memory_order_relaxed);
    atomic_store_explicit(&p->lag_entries, lag, memory_order_relaxed);
}

static void look(struct loop_timer *timer)
{
    struct journal_peers *p = container_of(timer, struct journal_peers, look);
    uint64_t now = clock_ns();
    loop_timer_start(p->options.loop, &p->look, now + LOOK_NS);
    (void)start_listening(p, false);
    if (p->fd >= 0 && !io_op_busy(&p->accept))
        peers_start_accept(p);
    peers_close_late(p, now);
    list_for_each_safe (e, &p->peers) {
        struct peer *peer = list_entry(e, struct peer, link);
        if (peer->member || now < peer->leave_ns)
            continue;
        peer_disconnect(peer);
        if (peer_is_idle(peer))
            peers_drop(peer);
    }
    count_gauges(p);
}

void journal_peers_gauges(const struct journal_peers *p, struct journal_gauges *ret)
{
    ret->peers_connected = (int64_t)atomic_load_explicit(&p->connected, memory_order_relaxed);
    ret->lag_entries = (int64_t)atomic_load_explicit(&p->lag_entries, memory_order_relaxed);
}

/* ---- life ---- */

DEFINE_CLEANUP(struct journal_peers *, journal_peers_free)

int journal_peers_new(const struct journal_peers_options *options, struct journal_peers **ret)
{
    struct journal_peers *p cleanup(journal_peers_free_p) = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->options = *options;
    p->fd = -1;
    list_init(&p->peers);
    list_init(&p->in);
    loop_timer_init(&p->look, look);
    bool v6 = strchr(options->listen, ':') && options->listen[0] != '[';
    char text[NET_TEXT_MAX];
    if (snprintf(text, sizeof(text), v6 ? "[%s]:%u" : "%s:%u", options->listen, options->port) >= (int)sizeof(text))
        return -ENAMETOOLONG;
    int r = net_resolve(text, 0, &p->listen, 1);
    if (r < 0)
        return r;
    net_text(&p->listen, p->address);
    p->options.self.address = p->address;
    *ret = take(p);
    return 0;
}

struct journal_peers *journal_peers_free(struct journal_peers *p)
{
    if (!p)
        return NULL;
    assert(p->in_count == 0 && !io_op_busy(&p->accept));
    list_for_each_safe (e, &p->peers)
        peers_drop(list_entry(e, struct peer, link));
    free(p);
    return NULL;
}

int journal_peers_start(struct journal_peers *p, struct journal_driver *driver)
{
    p->driver = driver;
    p->started = true;
    const struct raft_conf *conf = journal_driver_conf(driver);
    p->want_listen = true;
    if (conf)
        set_members(p, conf);
    int r = start_listening(p, true);
    if (r == 0)
        loop_timer_start(p->options.loop, &p->look, clock_ns() + LOOK_NS);
    return r;
}

void journal_peers_stop(struct journal_peers *p, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(p->options.loop);
    p->stopping = true;
    p->stopped = stopped;
    p->stopped_arg = arg;
    loop_timer_stop(p->options.loop, &p->look);
    io_cancel(&p->accept);
    list_for_each (e, &p->in)
        rpc_conn_close(list_entry(e, struct peer_in, link)->conn, -CV_STOPPING);
    list_for_each (e, &p->peers)
        peer_disconnect(list_entry(e, struct peer, link));
    peers_finish_stop(p);
}

/* ---- questions ---- */

uint16_t journal_peers_port(const struct journal_peers *p)
{
    const char *colon = strrchr(p->address, ':');
    return p->fd >= 0 && colon ? (uint16_t)atoi(colon + 1) : 0;
}
