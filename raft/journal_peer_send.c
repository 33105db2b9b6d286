/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending. What is said does not wait for a connection: without one a message is lost, as any message may be, and the core
 * says it again. An APPEND waits for room on the wire, and gets its entries when it leaves: from memory, or, for a peer that
 * is far behind, from disk. One read a peer at a time, by a file thread; what waits behind it keeps its order.
 */
#include "base/error.h"
#include "base/log.h"
#include "raft/journal_peer_internal.h"

/* ---- from disk ---- */

/* The first waiting message was sent with count entries: the rest of its range stays. count 0: it is gone. */
static void shorten_first(struct peer *peer, uint32_t count, uint64_t last_term)
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

static int read_disk(void *arg)
{
    struct peer *peer = arg;
    peer->disk.result = journal_store_read(journal_driver_store(peer->p->driver), peer->disk.from, peer->disk.to,
                                           PEER_ENTRIES_BYTES, &peer->disk.read);
    return 0;
}

/* Is what was read still what the message names? A leader's log only grows, but it may have been compacted, or this is
 * no leader any more; equal terms at the ends make all between equal. */
static bool still_fits(struct peer *peer, const struct raft_message *m)
{
    const struct journal_read *read = &peer->disk.read;
    const struct journal_driver *d = peer->p->driver;
    uint64_t term;
    if (m->term < journal_driver_view(d)->term || m->append.prev_index + 1 != peer->disk.from || read->count == 0 ||
        read->count > m->append.count)
        return false;
    const struct journal_entry *last = &read->entries[read->count - 1];
    return journal_driver_term(d, m->append.prev_index + m->append.count, &term) == 0 && term == m->append.last_term &&
           journal_driver_term(d, last->index, &term) == 0 && term == last->term;
}

static void disk_done(struct io_op *op, int result)
{
    struct peer *peer = container_of(op, struct peer, disk.op);
    struct journal_peers *p = peer->p;
    peer->disk.busy = false;
    int r = result < 0 ? result : peer->disk.result;
    if (r < 0 && r != -ENOENT && r != -CV_STOPPING && r != -ECANCELED)
        log_warn(r, "entry %llu cannot be read for a peer", (unsigned long long)peer->disk.from);
    if (peer->count && !p->stopping) {
        struct raft_message m = peer->waiting[peer->head % PEER_WAITING_MAX];
        if (r == 0 && still_fits(peer, &m)) {
            const struct journal_entry *entries[JOURNAL_READ_ENTRIES_MAX];
            for (uint32_t i = 0; i < peer->disk.read.count; i++)
                entries[i] = &peer->disk.read.entries[i];
            m.append.count = peer->disk.read.count;
            m.append.last_term = entries[m.append.count - 1]->term;
            (void)peer_put(peer, PEER_ENTRIES, &m, entries);
            shorten_first(peer, m.append.count, m.append.last_term);
        } else {
            shorten_first(peer, 0, 0);
        }
    }
    const struct raft_message *next = &peer->waiting[peer->head % PEER_WAITING_MAX];
    if (!peer->count || journal_ring_find(journal_driver_ring(p->driver), next->append.prev_index + 1))
        journal_read_fini(&peer->disk.read); /* caught up with memory */
    if (p->stopping)
        peers_finish_stop(p);
    else
        peer_pump(peer);
}

static void read_first(struct peer *peer)
{
    const struct raft_message *m = &peer->waiting[peer->head % PEER_WAITING_MAX];
    peer->figures.disk_reads++;
    counter_add(&journal_driver_metrics(peer->p->driver)->peer_disk_reads, 1);
    peer->disk.busy = true;
    peer->disk.from = m->append.prev_index + 1;
    peer->disk.to = m->append.prev_index + m->append.count;
    io_work(peer->p->options.loop, &peer->disk.op, read_disk, peer, disk_done);
}

/* ---- what waits ---- */

/* Send the first that waits. Returns false when it has to wait on. */
static bool send_first(struct peer *peer)
{
    struct journal_driver *d = peer->p->driver;
    struct raft_message m = peer->waiting[peer->head % PEER_WAITING_MAX];
    struct journal_record *records[RAFT_APPEND_ENTRIES_MAX];
    const struct journal_entry *entries[RAFT_APPEND_ENTRIES_MAX];
    if (m.term < journal_driver_view(d)->term) { /* void */
        shorten_first(peer, 0, 0);
        return true;
    }
    int n = journal_driver_attach(d, &m, PEER_ENTRIES_BYTES, records);
    if (n == -EAGAIN) {
        read_first(peer);
        return false;
    }
    if (n < 0) {
        peer_dropped(peer, 1);
        shorten_first(peer, 0, 0);
        return true;
    }
    for (int i = 0; i < n; i++)
        entries[i] = &records[i]->entry;
    (void)peer_put(peer, PEER_ENTRIES, &m, entries);
    for (int i = 0; i < n; i++)
        journal_ring_unpin(journal_driver_ring(d), records[i]);
    shorten_first(peer, (uint32_t)n, m.append.last_term);
    return true;
}

void peer_pump(struct peer *peer)
{
    while (peer->count && !peer->disk.busy) {
        const struct rpc_conn *c = peer_conn(peer, PEER_ENTRIES);
        if (!c) {
            peer_dropped(peer, peer->count);
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
            peer_dropped(peer, 1);
        return;
    }
    if (peer->count == PEER_WAITING_MAX || !peer_conn(peer, PEER_ENTRIES)) {
        peer_dropped(peer, 1);
        return;
    }
    peer->waiting[(peer->head + peer->count++) % PEER_WAITING_MAX] = *m;
    peer_pump(peer);
}
