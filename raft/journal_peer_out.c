/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dialing, with backoff, and sending. What is said does not wait for a connection: without one a message is lost, as any
 * message may be, and the core says it again.
 */
#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
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

static void dial(struct peer_out *o)
{
    struct journal_peers *p = o->peer->p;
    if (journal_peers_dial(p, o->peer->id, o->channel, &o->dial) < 0) {
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

bool peer_out_busy(const struct peer *peer)
{
    bool busy = false;
    for (int c = PEER_CONTROL; c <= PEER_ENTRIES; c++)
        busy = busy || peer->out[c].conn || journal_dial_busy(&peer->out[c].dial);
    return busy;
}

struct rpc_conn *peer_conn(const struct peer *peer, enum peer_channel channel)
{
    struct rpc_conn *out = peer->out[channel].conn;
    if (out && rpc_conn_is_open(out))
        return out;
    const struct peer_in *in = peer->in[channel];
    return in && rpc_conn_is_open(in->conn) ? in->conn : NULL;
}

/* ---- sending ---- */

static void drop(struct peer *peer, uint32_t messages)
{
    peer->figures.dropped += messages;
    counter_add(&journal_driver_metrics(peer->p->driver)->peer_dropped, messages);
}

int peer_put(struct peer *peer, enum peer_channel channel, const struct raft_message *m,
             const struct journal_entry *const *entries)
{
    struct rpc_conn *c = peer_conn(peer, channel);
    uint8_t head[PEER_HEAD_MAX];
    struct iovec data[RAFT_APPEND_ENTRIES_MAX];
    uint32_t count = m->type == RAFT_MSG_APPEND ? m->append.count : 0, crc = 0;
    uint64_t bytes = 0;
    size_t n = raft_message_encode(m, head);
    assert(count <= RAFT_APPEND_ENTRIES_MAX && (count == 0 || entries != NULL));
    for (uint32_t i = 0; i < count; i++) {
        const struct journal_entry *e = entries[i]; /* cppcheck-suppress nullPointer; an APPEND comes with them */
        struct raft_entry header = {.term = e->term, .size = e->size, .type = e->type};
        raft_entry_header_encode(&header, head + n);
        n += RAFT_ENTRY_HEADER_SIZE;
        data[i] = (struct iovec){(void *)(uintptr_t)e->data, e->size};
        crc = crc32c(crc, e->data, e->size);
        bytes += e->size;
    }
    struct msg_peer_raft body = {.head = {(const char *)head, (uint32_t)n}};
    struct frame_header h = {
        .type = MSG_peer_raft, .flags = FRAME_ONE_WAY, .aux = crc, .incarnation = peer->p->options.self.incarnation};
    int r = c ? rpc_conn_send_data(c, &h, msg_peer_raft_desc(), &body, data, count) : -CV_CLOSED;
    if (r < 0) {
        drop(peer, 1);
        return r;
    }
    struct journal_metrics *metrics = journal_driver_metrics(peer->p->driver);
    bytes += FRAME_HEADER_SIZE + n + 4;
    peer->figures.messages_out++;
    peer->figures.bytes_out += bytes;
    counter_add(&metrics->peer_messages_out, 1);
    counter_add(&metrics->peer_bytes_out, bytes);
    return 0;
}

void peer_shorten_first(struct peer *peer, uint32_t count, uint64_t last_term)
{
    struct raft_message *m = &peer->waiting[peer->head % PEER_WAITING_MAX];
    if (count && count < m->append.count) {
        m->append.prev_index += count;
        m->append.prev_term = last_term;
        m->append.count -= count;
        return;
    }
    peer->head++;
    peer->count--;
}

/* Send the first that waits. Returns false when it has to wait on. */
static bool send_first(struct peer *peer)
{
    struct journal_driver *d = peer->p->driver;
    struct raft_message m = peer->waiting[peer->head % PEER_WAITING_MAX];
    struct journal_record *records[RAFT_APPEND_ENTRIES_MAX];
    const struct journal_entry *entries[RAFT_APPEND_ENTRIES_MAX];
    if (m.term < journal_driver_view(d)->term) { /* void */
        peer_shorten_first(peer, 0, 0);
        return true;
    }
    int n = journal_driver_attach(d, &m, PEER_ENTRIES_BYTES, records);
    if (n == -EAGAIN) {
        peer_read_first(peer);
        return false;
    }
    if (n < 0) {
        drop(peer, 1);
        peer_shorten_first(peer, 0, 0);
        return true;
    }
    for (int i = 0; i < n; i++)
        entries[i] = &records[i]->entry;
    (void)peer_put(peer, PEER_ENTRIES, &m, entries);
    for (int i = 0; i < n; i++)
        journal_ring_unpin(journal_driver_ring(d), records[i]);
    peer_shorten_first(peer, (uint32_t)n, m.append.last_term);
    return true;
}

void peer_pump(struct peer *peer)
{
    while (peer->count && !peer->disk.busy) {
        const struct rpc_conn *c = peer_conn(peer, PEER_ENTRIES);
        if (!c) {
            drop(peer, peer->count);
            peer->count = 0;
            return;
        }
        if (rpc_conn_queued(c) >= PEER_ENTRIES_QUEUE || !send_first(peer))
            return; /* continued when the connection has drained, or the disk has answered */
    }
}

void peer_send(struct peer *peer, const struct raft_message *m)
{
    if (m->type != RAFT_MSG_APPEND) {
        const struct rpc_conn *c = peer_conn(peer, PEER_CONTROL);
        if (c && rpc_conn_queued(c) < PEER_CONTROL_QUEUE)
            (void)peer_put(peer, PEER_CONTROL, m, NULL);
        else
            drop(peer, 1);
        return;
    }
    if (peer->count == PEER_WAITING_MAX || !peer_conn(peer, PEER_ENTRIES)) {
        drop(peer, 1);
        return;
    }
    peer->waiting[(peer->head + peer->count++) % PEER_WAITING_MAX] = *m;
    peer_pump(peer);
}
