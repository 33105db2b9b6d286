/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults aimed at delicate moments (raft.md 9.4, "what made the difference"): a hook sees the moment and, with the
 * seed's chance, plans what makes a bug at that place show: crashes of milliseconds, the right nodes cut off, an
 * election at the right time.
 */
#include "sim_net.h"
#include "sim_nemesis.h"
#include "sim_node.h"

static uint64_t timeout_us(const struct world *w)
{
    return (uint64_t)w->params.election_ms * SIM_MS;
}

static uint64_t soon(struct world *w, uint32_t most_us)
{
    return between(&w->nemesis_random, 0, most_us);
}

static bool hit(struct world *w, enum fault fault)
{
    return !w->nemesis->over && chance(&w->nemesis_random, w->params.faults[fault]);
}

/* Anybody alive but these; NULL: nobody. */
static struct node *other_than(struct world *w, const struct node *a, const struct node *b)
{
    for (int i = 0; i < 12; i++) {
        struct node *n = w->nodes[prng_below(&w->nemesis_random, w->node_count)];
        if (n != a && n != b && !n->dead)
            return n;
    }
    return NULL;
}

void nemesis_plan(struct node *n, enum aimed what, uint64_t after_us, uint64_t value)
{
    struct event *e = world_schedule(n->world, n->world->now_us + after_us, EVENT_AIMED);
    e->node = n->slot;
    e->other = what;
    e->value = value;
}

static void campaign(struct node *n, bool force)
{
    struct world *w = n->world;
    if (!n->up || node_is_paused(n))
        return;
    trace(w, "n%u is told to campaign%s", n->slot, force && !params_leases_hold(&w->params) ? " at once" : "");
    struct raft_input in = {.type = RAFT_IN_CAMPAIGN};
    in.campaign.force = force && !params_leases_hold(&w->params);
    node_step(n, &in);
}

void nemesis_on_aimed(struct node *n, enum aimed what, uint64_t value)
{
    struct world *w = n->world;
    uint32_t self = 1u << n->slot, rest = nemesis_alive(w) & ~self;
    if (n->dead && what != AIMED_MEMBERS && what != AIMED_FORCE && what != AIMED_DUEL)
        return; /* (these are of the whole cluster) */
    switch (what) {
    case AIMED_CLOCK_GOES:
        if (n->clock_rate == 0)
            node_set_clock(n, 0, (uint32_t)value);
        return;
    case AIMED_CAN_LEAD:
    case AIMED_LOG_ROOM:
        *(what == AIMED_CAN_LEAD ? &n->master.cannot_lead : &n->master.log_full) = false;
        if (n->master.up)
            master_report(n);
        return;
    default: break;
    }
    if (w->nemesis->over)
        return;
    switch (what) {
    case AIMED_CRASH:
        if (n->up) {
            node_stop(n, STOP_MACHINE, -1);
            node_restart_later(n, value);
        }
        break;
    case AIMED_ISOLATE: nemesis_cut(w, self, rest, true, value); break;
    case AIMED_WITH_PEER: {
        const struct node *peer = other_than(w, n, NULL);
        if (peer)
            nemesis_cut(w, self | 1u << peer->slot, rest & ~(1u << peer->slot), true, value);
        break;
    }
    case AIMED_CAMPAIGN: campaign(n, value); break;
    case AIMED_MEMBERS: members_change(w); break;
    case AIMED_FORCE: members_force(w); break;
    case AIMED_CHANGE: members_change_at(n); break;
    case AIMED_DUEL: duel_turn(w, value); break;
    case AIMED_DUEL_CAMPAIGN: duel_campaign(n, value); break;
    case AIMED_DUEL_CUT: duel_cut_off(n); break;
    case AIMED_DUEL_CHANGE: duel_change(n, value); break;
    default: break;
    }
}

/* ---- Hooks ---- */

/* Somebody else still believes to lead: let it, and let clients ask it. */
static void keep_stale_leader(struct node *n)
{
    struct world *w = n->world;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *old = w->nodes[i];
        if (old == n || !node_leads(old) || !hit(w, FAULT_hit_stale_leader))
            continue;
        nemesis_cut(w, 1u << i, nemesis_alive(w), true, timeout_us(w) + soon(w, (uint32_t)timeout_us(w)));
        w->nemesis->stale = old;
    }
}

void nemesis_on_role(struct node *n, bool became_leader)
{
    struct world *w = n->world;
    if (!became_leader)
        return;
    keep_stale_leader(n);
    duel_on_leader(n);
    if (!hit(w, FAULT_hit_new_leader))
        return;
    uint64_t after = soon(w, chance(&w->nemesis_random, 500) ? 3 * w->params.net_us : 20000);
    uint64_t back = soon(w, (uint32_t)(3 * timeout_us(w)));
    switch (prng_below(&w->nemesis_random, 4)) {
    case 0: nemesis_plan(n, AIMED_CRASH, after, 1000 + back / 3); break;
    case 1: nemesis_plan(n, AIMED_ISOLATE, after, back + 1000); break;
    default: nemesis_plan(n, AIMED_WITH_PEER, after, back + 1000); break;
    }
    struct node *next = other_than(w, n, NULL);
    if (next)
        nemesis_plan(next, AIMED_CAMPAIGN, after + soon(w, (uint32_t)timeout_us(w)), 1);
}

void nemesis_on_release(struct node *n, const struct sim_message *s)
{
    struct world *w = n->world;
    const struct raft_message *m = &s->m;
    bool vote = m->type == RAFT_MSG_VOTE_REPLY && m->vote_reply.granted;
    bool ack = m->type == RAFT_MSG_APPEND_REPLY && !m->append_reply.rejected;
    struct node *to = node_by_id(w, m->to);
    if (vote && hit(w, FAULT_hit_vote)) {
        nemesis_plan(n, AIMED_CRASH, soon(w, 3000), between(&w->nemesis_random, 1000, 10000));
        /* Somebody else wants votes of the same term. */
        struct node *rival = other_than(w, n, to);
        if (rival)
            nemesis_plan(rival, AIMED_CAMPAIGN, soon(w, 2000), 1);
    } else if (ack && hit(w, FAULT_hit_ack)) {
        nemesis_plan(n, AIMED_CRASH, soon(w, 500), between(&w->nemesis_random, 1000, 10000));
        /* The leader hears the ack, and nothing more; those who do not have the entry elect. */
        nemesis_plan(to, AIMED_ISOLATE, 2 * w->params.net_us + w->params.net_jitter_us + soon(w, 1000),
                     timeout_us(w) * 2);
        struct node *next = other_than(w, to, NULL);
        if (next)
            nemesis_plan(next, AIMED_CAMPAIGN, 12000 + soon(w, (uint32_t)timeout_us(w)), 1);
    }
}

void nemesis_on_write(struct node *n)
{
    struct world *w = n->world;
    if (!n->up || !hit(w, FAULT_crash_write))
        return;
    node_stop(n, STOP_MACHINE, -1);
    node_restart_later(n, chance(&w->nemesis_random, 500) ? between(&w->nemesis_random, 1000, 10000)
                                                          : 1000 + soon(w, (uint32_t)(3 * timeout_us(w))));
}

void nemesis_on_truncate(struct node *n)
{
    struct world *w = n->world;
    if (w->nemesis->slow_leader == n) {
        /* It comes to its own writes late; the new leader may believe they are there. */
        w->nemesis->slow_leader = NULL;
        struct node *leader = world_leader(w);
        uint64_t after = soon(w, (uint32_t)timeout_us(w));
        nemesis_plan(n, AIMED_CRASH, after, 1000 + soon(w, 10000));
        if (leader)
            nemesis_plan(leader, AIMED_ISOLATE, after, 2 * timeout_us(w));
        nemesis_plan(n, AIMED_CAMPAIGN, after + 15000, 1);
    }
    if (!hit(w, FAULT_hit_truncate))
        return;
    if (chance(&w->nemesis_random, 500)) {
        node_stop(n, STOP_MACHINE, -1);
        node_restart_later(n, between(&w->nemesis_random, 1000, 10000));
        return;
    }
    n->disk.slow_until_us = w->now_us + 2 * timeout_us(w);
    n->disk.slow_us = timeout_us(w);
    nemesis_plan(n, AIMED_CAMPAIGN, soon(w, 20000), 1);
}

void nemesis_on_conf(struct node *n)
{
    struct world *w = n->world;
    if (!hit(w, FAULT_hit_conf))
        return;
    uint64_t back = timeout_us(w) + soon(w, (uint32_t)(4 * timeout_us(w)));
    enum aimed what = chance(&w->nemesis_random, 700) ? AIMED_WITH_PEER : AIMED_CRASH;
    nemesis_plan(n, what, soon(w, 2 * w->params.net_us), back);
    /* And the next leader changes the members too. */
    struct node *next = other_than(w, n, NULL);
    if (!next)
        return;
    nemesis_plan(next, AIMED_CAMPAIGN, soon(w, (uint32_t)timeout_us(w)), 1);
    nemesis_plan(next, AIMED_MEMBERS, timeout_us(w) + soon(w, (uint32_t)timeout_us(w)), 0);
}

void nemesis_on_propose(struct node *n)
{
    struct world *w = n->world;
    if (!hit(w, FAULT_hit_proposal))
        return;
    uint64_t back = soon(w, (uint32_t)(4 * timeout_us(w)));
    nemesis_plan(n, chance(&w->nemesis_random, 500) ? AIMED_ISOLATE : AIMED_WITH_PEER, soon(w, 3 * w->params.net_us),
                 back + 1000);
}

void nemesis_on_snapshot(struct node *n, uint32_t source)
{
    struct world *w = n->world;
    if (!hit(w, FAULT_hit_snapshot))
        return;
    struct node *victim = chance(&w->nemesis_random, 600) ? n : w->nodes[source];
    if (chance(&w->nemesis_random, 300)) {
        /* The fetch takes long, and another leader may still have the entries. */
        struct node *next = other_than(w, n, world_leader(w));
        n->fetch.slow = true;
        if (next)
            nemesis_plan(next, AIMED_CAMPAIGN, soon(w, 20000), 1);
        return;
    }
    nemesis_plan(victim, chance(&w->nemesis_random, 600) ? AIMED_CRASH : AIMED_ISOLATE, soon(w, 40000),
                 1000 + soon(w, (uint32_t)(2 * timeout_us(w))));
}

uint64_t nemesis_on_send(struct node *from, const struct sim_message *m, uint64_t us)
{
    struct world *w = from->world;
    if (m->m.type == RAFT_MSG_TIMEOUT_NOW && us != UINT64_MAX && hit(w, FAULT_hit_transfer))
        us += soon(w, (uint32_t)(6 * timeout_us(w)));
    return us;
}

void nemesis_hit_slow_leader(struct world *w)
{
    struct node *leader = world_leader(w);
    struct node *next = leader ? other_than(w, leader, NULL) : NULL;
    if (!next)
        return;
    uint64_t t = timeout_us(w);
    leader->disk.slow_until_us = w->now_us + 8 * t;
    leader->disk.slow_us = t;
    w->nemesis->slow_leader = leader;
    nemesis_cut(w, 1u << leader->slot, nemesis_alive(w), true, t + soon(w, (uint32_t)t));
    nemesis_plan(next, AIMED_CAMPAIGN, soon(w, (uint32_t)t), 1);
}

void nemesis_hit_lease(struct world *w)
{
    struct node *leader = world_leader(w);
    struct node *cut = leader ? other_than(w, leader, NULL) : NULL;
    if (!cut)
        return;
    /* The one that is cut off may campaign when its own promise is over: T_min after the last heartbeat. Its clock may
     * be 10 % slow. */
    uint64_t when = timeout_us(w) + timeout_us(w) / 10 + soon(w, (uint32_t)timeout_us(w) / 4);
    nemesis_cut(w, 1u << leader->slot, 1u << cut->slot, true, when + 2 * timeout_us(w));
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = w->nodes[i];
        if (n != leader && n != cut && chance(&w->nemesis_random, 800))
            nemesis_plan(n, AIMED_CRASH, when - 4000 + soon(w, 2000), 1000 + soon(w, 1000));
    }
    nemesis_plan(cut, AIMED_CAMPAIGN, when, 0);
}
