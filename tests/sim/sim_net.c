/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_net.h"

#include <assert.h>
#include <string.h>

#include "sim_check.h"
#include "sim_disk.h"
#include "sim_nemesis.h"
#include "sim_node.h"

enum { MESSAGE_SMALL = 2 };

struct sim_message *net_message_new(struct world *w, uint32_t count)
{
    bool small = count <= MESSAGE_SMALL;
    size_t n = sizeof(struct sim_message) + (small ? MESSAGE_SMALL : RAFT_APPEND_ENTRIES_MAX) * sizeof(void *);
    assert(count <= RAFT_APPEND_ENTRIES_MAX);
    struct sim_message *m = recycler_take(small ? &w->net->small : &w->net->big, &w->arena, n);
    m->count = count;
    m->next = NULL;
    m->chain = 0;
    return m;
}

void net_message_free(struct world *w, struct sim_message *m)
{
    recycler_give(m->count <= MESSAGE_SMALL ? &w->net->small : &w->net->big, m);
}

void net_cut(struct world *w, uint32_t from, uint32_t to, int change)
{
    struct link *link = &w->net->links[from][to];
    assert(change > 0 || link->cuts > 0);
    link->cuts = (uint8_t)(link->cuts + change);
    if (link->cuts == (change > 0) && from < w->node_count && to < w->node_count)
        trace(w, "net: %u -> %u %s", from, to, change > 0 ? "cut" : "mended");
}

static uint64_t delay_basic(struct world *w)
{
    const struct params *p = &w->params;
    uint64_t us = p->net_us;
    if (p->net_jitter_us)
        us += between(&w->net_random, 0, p->net_jitter_us);
    if (w->calm)
        return us;
    if (chance(&w->net_random, p->faults[FAULT_drop]))
        return UINT64_MAX;
    if (chance(&w->net_random, p->faults[FAULT_reorder]))
        us += between(&w->net_random, 0, 10 * (p->net_us + p->net_jitter_us));
    if (chance(&w->net_random, p->faults[FAULT_late]))
        us += between(&w->net_random, 0, 4 * p->election_ms) * SIM_MS;
    return us;
}

uint64_t net_delay_anywhere(struct world *w)
{
    return delay_basic(w);
}

uint64_t net_delay(struct world *w, struct link *link)
{
    if (link->cuts)
        return UINT64_MAX;
    uint64_t us = delay_basic(w);
    if (us != UINT64_MAX && w->now_us < link->slow_until_us)
        us += between(&w->net_random, 0, (uint32_t)link->slow_us);
    return us;
}

static void deliver_at(struct world *w, struct sim_message *m, uint64_t at_us, struct node *to)
{
    m->receiver_life = to->life;
    struct event *e = world_schedule(w, at_us, EVENT_MESSAGE);
    e->p = m;
    e->node = to->slot;
}

static struct sim_message *copy_message(struct world *w, const struct sim_message *m)
{
    struct sim_message *c = net_message_new(w, m->count);
    memcpy(c, m, sizeof(*m) + m->count * sizeof(m->entries[0]));
    return c;
}

void net_send(struct node *from, struct sim_message *m)
{
    struct world *w = from->world;
    struct node *to = node_by_id(w, m->m.to);
    w->counters.messages++;
    if (!to || (w->net->filter && !w->net->filter(w, m, from, to))) {
        net_message_free(w, m);
        return;
    }
    if (w->params.hint_poor == 2 && m->m.type == RAFT_MSG_APPEND_REPLY && m->m.append_reply.rejected) {
        m->m.append_reply.conflict_term = m->m.append_reply.conflict_first = 0;
        m->m.append_reply.last_index = chance(&w->net_random, 500) ? 0 : m->m.append_reply.last_index / 2;
    }
    struct link *link = &w->net->links[from->slot][to->slot];
    m->sender_life = from->life;
    uint64_t us = net_delay(w, link);
    us = nemesis_on_send(from, m, us);
    if (us == UINT64_MAX) {
        trace(w, "n%u -> n%u %s lost", from->slot, to->slot, raft_message_name(m->m.type));
        net_message_free(w, m);
        return;
    }
    uint64_t at_us = w->now_us + us;
    if (w->params.in_order) {
        at_us = max(at_us, link->busy_until_us);
        link->busy_until_us = at_us;
    }
    if (!w->calm && chance(&w->net_random, w->params.faults[FAULT_duplicate])) {
        uint64_t again = w->now_us + us + between(&w->net_random, 0, 2 * w->params.election_ms) * SIM_MS;
        deliver_at(w, copy_message(w, m), again, to);
    }
    deliver_at(w, m, at_us, to);
}

/* Through the codec: what comes out must be what went in. */
static void receive_bytes(struct node *to, const struct sim_message *m, const struct raft_entry *entries)
{
    struct world *w = to->world;
    struct check *c = w->check;
    uint8_t *p = c->wire;
    size_t n = raft_message_encode(&m->m, p);
    for (uint32_t i = 0; i < m->count; i++) {
        raft_entry_header_encode(&entries[i], p + n);
        n += RAFT_ENTRY_HEADER_SIZE;
    }
    for (uint32_t i = 0; i < m->count; i++) {
        assert(n + entries[i].size <= sizeof(c->wire));
        if (entries[i].size)
            memcpy(p + n, entries[i].data, entries[i].size);
        n += entries[i].size;
    }
    struct raft_entry decoded[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message message;
    int r = raft_message_decode(p, n, decoded, &message);
    if (r < 0)
        fail_harm(w, "codec", "%s does not decode: %s", raft_message_name(m->m.type), cv_error_name(r));
    node_receive(to, &message);
}

void net_on_message(struct world *w, struct sim_message *m)
{
    struct node *to = node_by_id(w, m->m.to);
    struct node *from = node_by_id(w, m->m.from);
    bool stale = m->receiver_life != to->life && !(w->params.faults[FAULT_stale_connection] && !w->calm);
    if (!to->up || stale || w->net->links[from->slot][to->slot].cuts) {
        net_message_free(w, m);
        return;
    }
    w->counters.delivered++;
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    for (uint32_t i = 0; i < m->count; i++) {
        const struct sim_entry *e = m->entries[i];
        entries[i] = (struct raft_entry){.term = e->term, .data = e->data, .size = e->size, .type = e->type};
    }
    m->m.entries = m->count ? entries : NULL;
    if (w->params.codec)
        receive_bytes(to, m, entries);
    else
        node_receive(to, &m->m);
    net_message_free(w, m);
}
