/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The duel: two rivals lead in turns, each cut off soon after it was elected, while the other is kept away. It is the
 * pattern behind the oldest bugs (figure 3.7 of the dissertation, the two members' changes of R4): an entry reaches a
 * few nodes, another term begins without it, the first comes back.
 *
 *   turn 1:  B away;  A is elected, changes something, keeps no or one follower
 *   turn 2:  A away;  B is elected, changes something, keeps no or one follower
 *   turn 3:  B away;  A again ...
 */
#include "sim_nemesis.h"
#include "sim_net.h"
#include "sim_node.h"

static uint64_t some(struct world *w, uint64_t low_us, uint64_t high_us)
{
    return between(&w->nemesis_random, (uint32_t)low_us, (uint32_t)high_us);
}

/* About as long as an election takes. */
static uint64_t election_us(const struct world *w)
{
    const struct params *p = &w->params;
    return 4 * (p->net_us + p->net_jitter_us) + 2 * (p->disk_us + p->disk_jitter_us) + 500;
}

static void mend(struct world *w)
{
    struct duel *d = &w->nemesis->duel;
    while (d->cut_count)
        nemesis_on_heal(w, d->cuts[--d->cut_count]);
}

static void cut(struct world *w, uint32_t a, uint32_t b)
{
    struct duel *d = &w->nemesis->duel;
    int heal = nemesis_cut(w, a, b, true, 0);
    if (heal >= 0 && d->cut_count == array_size(d->cuts))
        nemesis_on_heal(w, (uint32_t)heal);
    else if (heal >= 0)
        d->cuts[d->cut_count++] = (uint16_t)heal;
}

/* Two voters that are not the rivals. */
static void plan_members(struct world *w)
{
    struct duel *d = &w->nemesis->duel;
    struct node *others[2] = {NULL, NULL};
    const struct sim_entry *conf = image_conf(&d->rivals[0]->disk.live, d->rivals[0]->disk.live.last);
    for (uint32_t i = 0, count = 0; conf && i < conf->conf->count && count < 2; i++) {
        struct node *n = node_by_id(w, conf->conf->members[i].id);
        if (n != d->rivals[0] && n != d->rivals[1] && conf->conf->members[i].role == RAFT_VOTER && !n->dead)
            others[count++] = n;
    }
    if (!others[1])
        return;
    uint32_t first = prng_below(&w->nemesis_random, 2);
    d->demotes[0] = others[first];
    d->demotes[1] = others[!first];
    d->keeps[0] = chance(&w->nemesis_random, 700) ? NULL : others[!first];
    d->keeps[1] = others[first];
}

static void plan_turn(struct world *w, uint64_t after_us)
{
    struct duel *d = &w->nemesis->duel;
    nemesis_plan(d->rivals[0], AIMED_DUEL, after_us, ++d->number);
}

void duel_start(struct world *w)
{
    struct duel *d = &w->nemesis->duel;
    uint32_t a = prng_below(&w->nemesis_random, w->node_count), b = prng_below(&w->nemesis_random, w->node_count);
    struct node *leader = world_leader(w);
    if (leader)
        a = leader->slot;
    if (d->begun || d->turns || a == b || w->nodes[a]->dead || w->nodes[b]->dead)
        return;
    trace(w, "duel of n%u and n%u", a, b);
    *d = (struct duel){
        .number = d->number, .rivals = {w->nodes[a], w->nodes[b]}, .turns = between(&w->nemesis_random, 3, 7)};
    if (w->params.faults[FAULT_members] && chance(&w->nemesis_random, 500))
        plan_members(w);
    plan_turn(w, 0);
}

void duel_turn(struct world *w, uint64_t number)
{
    struct duel *d = &w->nemesis->duel;
    if (number != d->number)
        return;
    mend(w);
    if (d->turns == 0 || d->rivals[0]->dead || d->rivals[1]->dead) {
        d->begun = false;
        d->turns = 0;
        return;
    }
    struct node *up = d->rivals[d->up], *away = d->rivals[!d->up];
    bool polite = params_leases_hold(&w->params);
    cut(w, 1u << away->slot, nemesis_alive(w));
    d->turns--;
    d->up = !d->up;
    if (node_leads(up) && d->begun && !polite) {
        /* It still believes to lead its old term: a restart makes it a candidate. */
        node_stop(up, STOP_MACHINE, -1);
        node_start(up, STOP_MACHINE);
    }
    uint64_t e = election_us(w), t = (uint64_t)w->params.election_ms * SIM_MS;
    plan_turn(w, polite ? 3 * t : 12 * e); /* or sooner: when it leads */
    d->begun = true;
    if (node_leads(up))
        duel_on_leader(up);
    else
        nemesis_plan(up, AIMED_DUEL_CAMPAIGN, polite ? t + t / 10 : some(w, 0, e), d->number);
}

/* Until it leads: the first time it may only find that the others are at a later term. */
void duel_campaign(struct node *n, uint64_t number)
{
    struct world *w = n->world;
    if (number != w->nemesis->duel.number || node_leads(n) || !n->up)
        return;
    nemesis_plan(n, AIMED_CAMPAIGN, 0, 1);
    nemesis_plan(n, AIMED_DUEL_CAMPAIGN, election_us(w), number);
}

/* A rival leads: soon it is cut off, and its change, if any, is on its way. */
void duel_on_leader(struct node *n)
{
    struct world *w = n->world;
    struct duel *d = &w->nemesis->duel;
    uint32_t side = n == d->rivals[1];
    if (!d->begun || (!side && n != d->rivals[0]))
        return;
    plan_turn(w, election_us(w) + some(w, 0, 4 * election_us(w)));
    if (d->demotes[side]) {
        nemesis_plan(n, AIMED_DUEL_CHANGE, 0, side);
        nemesis_plan(n, AIMED_DUEL_CUT, 0, 0);
    } else {
        bool at_once = chance(&w->nemesis_random, 300);
        nemesis_plan(n, AIMED_DUEL_CUT, at_once ? 0 : some(w, 0, 2 * election_us(w)), 0);
    }
}

void duel_change(struct node *n, uint64_t side)
{
    struct duel *d = &n->world->nemesis->duel;
    if (d->begun && d->demotes[side] && node_leads(n) && !node_is_paused(n))
        members_do(n, RAFT_DEMOTE, d->demotes[side]);
}

/* The one that leads now keeps one follower, or none. */
void duel_cut_off(struct node *n)
{
    struct world *w = n->world;
    struct duel *d = &w->nemesis->duel;
    uint32_t side = n == d->rivals[1], self = 1u << n->slot, keep = 0;
    if (!d->begun)
        return;
    if (d->demotes[side])
        keep = d->keeps[side] ? 1u << d->keeps[side]->slot : 0;
    else if (chance(&w->nemesis_random, 600))
        keep = 1u << prng_below(&w->nemesis_random, w->node_count);
    cut(w, self | keep, nemesis_alive(w) & ~(self | keep));
}
