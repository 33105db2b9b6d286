/* SPDX-License-Identifier: Apache-2.0 */
/* Who there is: peers found and made, and those that left. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "raft/journal_peer_internal.h"
#include "raft/journal_status.h"

enum { LEAVE_NS = 10 * NS_PER_S }; /* a former member hears how it left */

struct peer *peers_find(struct journal_peers *p, uint64_t id)
{
    list_for_each (e, &p->peers) {
        struct peer *peer = list_entry(e, struct peer, link);
        if (peer->id == id)
            return peer;
    }
    return NULL;
}

struct peer *peers_get(struct journal_peers *p, uint64_t id)
{
    struct peer *peer = peers_find(p, id);
    if (peer || p->peer_count == PEERS_MAX)
        return peer;
    peer = calloc(1, sizeof(*peer));
    if (!peer)
        return NULL;
    peer->p = p;
    peer->id = id;
    peer->leave_ns = clock_ns() + LEAVE_NS;
    peer_out_init(peer);
    list_push_back(&p->peers, &peer->link);
    p->peer_count++;
    return peer;
}

void peers_drop(struct peer *peer)
{
    assert(peer_is_idle(peer));
    list_remove(&peer->link);
    peer->p->peer_count--;
    journal_read_fini(&peer->disk.read);
    free(peer);
}

void peers_leave(struct journal_peers *p, struct peer *peer)
{
    char node[17];
    log_info("node %s is no member any more", journal_node_text(peer->id, node));
    peer->member = false;
    peer->leave_ns = clock_ns() + LEAVE_NS;
    p->removed[p->removed_count++ % PEER_REMOVED_MAX] = peer->id;
}

void peers_forget_removed(struct journal_peers *p, uint64_t id)
{
    for (uint32_t i = 0; i < PEER_REMOVED_MAX; i++)
        if (p->removed[i] == id)
            p->removed[i] = 0;
}

bool peers_was_removed(const struct journal_peers *p, uint64_t id)
{
    for (uint32_t i = 0; i < PEER_REMOVED_MAX; i++)
        if (p->removed[i] == id)
            return true;
    return false;
}

int journal_peers_dial(struct journal_peers *p, uint64_t node, enum peer_channel channel, struct journal_dial *d)
{
    struct peer *peer = peers_find(p, node);
    return peer ? peer_fill_dial(peer, channel, d) : -ENOENT;
}
