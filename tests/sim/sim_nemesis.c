/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_nemesis.h"

#include <assert.h>
#include <string.h>

#include "sim_net.h"
#include "sim_node.h"

struct nemesis *nemesis_new(struct world *w)
{
    return sim_alloc(&w->arena, sizeof(struct nemesis));
}

/* ---- Tools ---- */

/* T_min in us: the measure of all times here. */
static uint64_t timeouts(const struct world *w, uint32_t tenths)
{
    return (uint64_t)w->params.election_ms * SIM_MS * tenths / 10;
}

/* Between these many tenths of T_min. */
static uint64_t a_while(struct world *w, uint32_t low, uint32_t high)
{
    return timeouts(w, 10) * between(&w->nemesis_random, low * 100, high * 100) / 1000;
}

uint32_t nemesis_alive(const struct world *w)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        mask |= w->nodes[i]->dead ? 0 : 1u << i;
    return mask;
}

static struct node *any_node(struct world *w)
{
    for (int i = 0; i < 20; i++) {
        struct node *n = w->nodes[prng_below(&w->nemesis_random, w->node_count)];
        if (!n->dead)
            return n;
    }
    return w->nodes[0];
}

/* Leaders are worth more attention. */
static struct node *a_target(struct world *w)
{
    struct node *leader = world_leader(w);
    return leader && chance(&w->nemesis_random, 350) ? leader : any_node(w);
}

int nemesis_cut(struct world *w, uint32_t a, uint32_t b, bool both, uint64_t for_us)
{
    uint32_t slot = 0;
    while (slot < NEMESIS_HEALS && w->nemesis->heals[slot].used)
        slot++;
    if (slot == NEMESIS_HEALS)
        return -1;
    struct heal *h = &w->nemesis->heals[slot];
    memset(h, 0, sizeof(*h));
    h->used = true;
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++)
        for (uint32_t k = 0; k < SIM_NODES_MAX; k++)
            if (i != k && ((a >> i & 1 && b >> k & 1) || (both && a >> k & 1 && b >> i & 1))) {
                h->pairs[i] |= (uint16_t)(1u << k);
                net_cut(w, i, k, 1);
            }
    trace(w, "nemesis cuts %x %s %x for %llu us", a, both ? "and" : "to", b, (unsigned long long)for_us);
    if (for_us)
        world_schedule(w, w->now_us + for_us, EVENT_HEAL)->other = (uint16_t)slot;
    return (int)slot;
}

void nemesis_on_heal(struct world *w, uint32_t heal)
{
    struct heal *h = &w->nemesis->heals[heal];
    if (!h->used)
        return;
    h->used = false;
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++)
        for (uint32_t k = 0; k < SIM_NODES_MAX; k++)
            if (h->pairs[i] >> k & 1)
                net_cut(w, i, k, -1);
}

/* ---- Faults at random times ---- */

static void crash(struct world *w, struct node *n, enum stop which)
{
    if (n->dead)
        return;
    node_stop(n, which, -1);
    bool quick = chance(&w->nemesis_random, 350);
    node_restart_later(n, quick ? between(&w->nemesis_random, 1000, 10000) : a_while(w, 1, 40));
}

static void crash_all(struct world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        crash(w, w->nodes[i], STOP_MACHINE);
}

static void split(struct world *w)
{
    uint32_t alive = nemesis_alive(w), half = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        half |= prng_below(&w->nemesis_random, 2) << i;
    nemesis_cut(w, half & alive, ~half & alive, true, a_while(w, 5, 60));
}

static void cut_link(struct world *w, bool flap)
{
    uint32_t a = 1u << a_target(w)->slot, b = 1u << any_node(w)->slot;
    if (a == b)
        return;
    if (!flap) {
        nemesis_cut(w, a, b, true, a_while(w, 5, 60));
        return;
    }
    /* Several short ones at once overlap in no particular way: the link comes and goes. */
    for (int i = 0; i < 6; i++)
        nemesis_cut(w, a, b, chance(&w->nemesis_random, 500), a_while(w, 1, 20));
}

static void slow_link(struct world *w)
{
    struct link *link = &w->net->links[a_target(w)->slot][any_node(w)->slot];
    link->slow_until_us = w->now_us + a_while(w, 5, 60);
    link->slow_us = a_while(w, 1, 20);
}

static void disk_fault(struct world *w, enum fault fault)
{
    struct node *n = a_target(w);
    struct disk *d = &n->disk;
    switch (fault) {
    case FAULT_disk_slow:
        d->slow_until_us = w->now_us + a_while(w, 5, 60);
        d->slow_us = a_while(w, 1, 10);
        break;
    case FAULT_disk_stall: d->stall_until_us = w->now_us + a_while(w, 5, 40); break;
    case FAULT_disk_full: d->full_until_us = w->now_us + a_while(w, 2, 40); break;
    default: d->fail_next = true; break;
    }
    trace(w, "n%u %s", n->slot, fault_infos[fault].name);
}

static void clock_fault(struct world *w, bool suspend)
{
    struct node *n = a_target(w);
    if (suspend && n->clock_rate) {
        nemesis_plan(n, AIMED_CLOCK_GOES, a_while(w, 2, 40), n->clock_rate);
        node_set_clock(n, 0, 0);
    } else {
        node_set_clock(n, a_while(w, 1, 60), n->clock_rate);
    }
    trace(w, "n%u clock %s", n->slot, suspend ? "stands still" : "jumps");
}

static void app_fault(struct world *w, bool full)
{
    struct node *n = a_target(w);
    if (full) {
        n->master.log_full = true;
    } else {
        n->master.cannot_lead = true;
        n->master.no_lease = true;
    }
    trace(w, "n%u %s", n->slot, full ? "log is full" : "cannot lead");
    if (n->master.up)
        master_report(n);
    nemesis_plan(n, full ? AIMED_LOG_ROOM : AIMED_CAN_LEAD, a_while(w, 5, 80), 0);
}

static void transfer(struct world *w)
{
    struct node *leader = world_leader(w);
    if (leader && !node_is_paused(leader))
        link_transfer(leader, chance(&w->nemesis_random, 500) ? 0 : any_node(w)->id);
}

static void act(struct world *w, enum fault fault)
{
    struct node *n;
    switch (fault) {
    case FAULT_halves: split(w); break;
    case FAULT_isolate: nemesis_cut(w, 1u << a_target(w)->slot, nemesis_alive(w), true, a_while(w, 5, 60)); break;
    case FAULT_single_link: cut_link(w, false); break;
    case FAULT_one_way: nemesis_cut(w, 1u << a_target(w)->slot, nemesis_alive(w), false, a_while(w, 5, 60)); break;
    case FAULT_flap: cut_link(w, true); break;
    case FAULT_slow_link: slow_link(w); break;
    case FAULT_crash: crash(w, a_target(w), STOP_MACHINE); break;
    case FAULT_crash_all: crash_all(w); break;
    case FAULT_crash_master:
        n = a_target(w);
        if (!n->journal_only)
            crash(w, n, STOP_MASTER);
        break;
    case FAULT_crash_journal: crash(w, a_target(w), STOP_JOURNAL); break;
    case FAULT_slow_local:
        n = a_target(w);
        n->link.slow_until_us = w->now_us + a_while(w, 5, 60);
        n->link.slow_us = a_while(w, 1, 20);
        break;
    case FAULT_pause:
        n = a_target(w);
        n->paused_until_us = max(n->paused_until_us, w->now_us + a_while(w, 2, 60)); /* never goes on early */
        trace(w, "n%u stands still", n->slot);
        break;
    case FAULT_disk_slow:
    case FAULT_disk_stall:
    case FAULT_disk_full:
    case FAULT_disk_error: disk_fault(w, fault); break;
    case FAULT_disk_damage: members_lose(w); break;
    case FAULT_clock_jump: clock_fault(w, false); break;
    case FAULT_clock_suspend: clock_fault(w, true); break;
    case FAULT_members: members_change(w); break;
    case FAULT_transfer: transfer(w); break;
    case FAULT_election:
    case FAULT_campaign: nemesis_plan(any_node(w), AIMED_CAMPAIGN, 0, fault == FAULT_election); break;
    case FAULT_cannot_lead: app_fault(w, false); break;
    case FAULT_log_full: app_fault(w, true); break;
    case FAULT_hit_lease: nemesis_hit_lease(w); break;
    case FAULT_hit_slow_leader: nemesis_hit_slow_leader(w); break;
    case FAULT_duel: duel_start(w); break;
    default: break;
    }
}

static void plan_next(struct world *w, enum fault fault)
{
    uint32_t mean = w->params.faults[fault];
    if (!mean || fault_infos[fault].kind != FAULT_EVERY)
        return;
    world_schedule(w, w->now_us + a_while(w, 0, 2 * mean) + 1, EVENT_FAULT)->other = (uint16_t)fault;
}

void nemesis_on_fault(struct world *w, enum fault fault)
{
    if (w->nemesis->over)
        return;
    act(w, fault);
    plan_next(w, fault);
}

void nemesis_start(struct world *w)
{
    for (uint32_t i = 0; i < FAULT_COUNT; i++)
        plan_next(w, (enum fault)i);
    if (w->params.force)
        nemesis_plan(w->nodes[0], AIMED_FORCE, (uint64_t)w->params.run_ms * SIM_MS * w->params.force / 1000, 0);
}

/* ---- The end of it ---- */

/* Pauses end by themselves: what happened meanwhile is waiting in order. */
void nemesis_end(struct world *w)
{
    w->nemesis->over = true;
    for (uint32_t i = 0; i < NEMESIS_HEALS; i++)
        nemesis_on_heal(w, i);
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = w->nodes[i];
        struct disk *d = &n->disk;
        d->slow_until_us = d->stall_until_us = d->full_until_us = 0;
        d->fail_next = false;
        n->link.slow_until_us = 0;
        n->master.cannot_lead = n->master.log_full = false;
        if (n->clock_rate == 0)
            node_set_clock(n, 0, 1000);
        for (uint32_t k = 0; k < SIM_NODES_MAX; k++)
            w->net->links[i][k].slow_until_us = 0;
        node_start(n, STOP_MACHINE);
        if (n->master.up)
            master_report(n);
    }
}
