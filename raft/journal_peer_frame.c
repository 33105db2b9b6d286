/* SPDX-License-Identifier: Apache-2.0 */
/* One frame to a peer, or from one, on whichever connection there is; and the end of all connections. */
#include <assert.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "raft/journal_peer_internal.h"
#include "raft/journal_status.h"

/* ---- out ---- */

struct rpc_conn *peer_conn(const struct peer *peer, enum peer_channel channel)
{
    struct rpc_conn *out = peer->out[channel].conn;
    if (out && rpc_conn_is_open(out))
        return out;
    const struct peer_in *in = peer->in[channel];
    return in && rpc_conn_is_open(in->conn) ? in->conn : NULL;
}

void peer_dropped(struct peer *peer, uint32_t messages)
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
        peer_dropped(peer, 1);
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

/* ---- in ---- */

int peer_decode(const struct journal_self *self, uint64_t from, const struct rpc_frame *f, struct raft_entry *entries,
                struct raft_message *ret)
{
    struct msg_peer_raft m;
    if (f->header.type != MSG_peer_raft || f->header.incarnation != self->incarnation)
        return -CV_BAD_MESSAGE;
    int r = msg_peer_raft_decode(f->body, f->header.body_len, &m);
    if (r < 0)
        return r;
    const uint8_t *head = (const uint8_t *)m.head.p;
    if (m.head.n == 0 || head + m.head.n != f->body + f->header.body_len) /* the payloads follow at once */
        return -CV_BAD_MESSAGE;
    if (crc32c(0, f->data, f->header.data_len) != f->header.aux)
        return -CV_BAD_CHECKSUM;
    r = raft_message_decode(head, m.head.n + f->header.data_len, entries, ret);
    if (r == 0 && (ret->from != from || ret->to != self->node))
        r = -CV_BAD_MESSAGE; /* forged, or of a node that is no longer here */
    return r;
}

void peer_on_frame(struct peer *peer, enum peer_channel channel, struct rpc_conn *c, const struct rpc_frame *f)
{
    struct journal_peers *p = peer->p;
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message m;
    struct journal_metrics *metrics = journal_driver_metrics(p->driver);
    uint64_t bytes = FRAME_HEADER_SIZE + f->header.body_len + f->header.data_len;
    peer->figures.bytes_in += bytes;
    peer->figures.messages_in++;
    counter_add(&metrics->peer_bytes_in, bytes);
    counter_add(&metrics->peer_messages_in, 1);
    int r = peer_decode(&p->options.self, peer->id, f, entries, &m);
    if (r == -CV_UNKNOWN_MESSAGE)
        return; /* of a newer version: any message may be lost */
    if (r == 0)
        r = journal_driver_message(p->driver, &m);
    if (r == -CV_BAD_MESSAGE || r == -CV_BAD_CHECKSUM) {
        char node[17];
        log_warn(r, "node %s (%s) sends what cannot be: disconnecting it", journal_node_text(peer->id, node),
                 rpc_conn_peer(c));
        rpc_conn_close(c, r);
    } else if (r < 0) {
        counter_add(&metrics->peer_dropped, 1);
    }
}

/* ---- the end ---- */

uint32_t peers_silent_ms(const struct journal_peers *p)
{
    return max(2 * p->options.election_ms, 1000u);
}

static bool peer_out_busy(const struct peer *peer)
{
    bool busy = false;
    for (int c = PEER_CONTROL; c <= PEER_ENTRIES; c++)
        busy = busy || peer->out[c].conn || journal_dial_busy(&peer->out[c].dial);
    return busy;
}

bool peer_is_idle(const struct peer *peer)
{
    return !peer_out_busy(peer) && !peer->in[PEER_CONTROL] && !peer->in[PEER_ENTRIES] && !peer->disk.busy;
}

void peers_finish_stop(struct journal_peers *p)
{
    if (!p->stopping || p->in_count || p->question_count || io_op_busy(&p->accept) || !p->stopped)
        return;
    list_for_each (e, &p->peers)
        if (!peer_is_idle(list_entry(e, struct peer, link)))
            return;
    p->fd = loop_close(p->options.loop, p->fd);
    void (*stopped)(void *arg) = p->stopped;
    p->stopped = NULL;
    stopped(p->stopped_arg);
}
