/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of the membership, and machines that are lost with their disks: a lost machine never comes back; a new one
 * with a new id is added as a learner, promoted, and the lost one removed (raft.md 8.1), in whatever order works.
 */
#include <assert.h>

#include "sim_check.h"
#include "sim_mutants.h"
#include "sim_nemesis.h"
#include "sim_node.h"

enum { FORCE_TERMS = 1000 };

static struct node *spare(struct world *w, bool journal_only)
{
    if (w->node_count == SIM_NODES_MAX)
        return NULL;
    struct node *n = node_new(w, journal_only);
    node_start(n, STOP_MACHINE);
    return n;
}

int members_do(struct node *leader, enum raft_conf_op op, const struct node *who)
{
    struct world *w = leader->world;
    struct raft_input in = {.type = RAFT_IN_CONF};
    in.conf.op = op;
    in.conf.member = (struct raft_member){
        .id = who->id,
        .role = RAFT_LEARNER,
        .journal_only = who->journal_only,
        .priority = (uint8_t)prng_below(&w->nemesis_random, 8),
    };
    snprintf(in.conf.member.raft_address, sizeof(in.conf.member.raft_address), "n%u:%d", who->slot, (int)op);
    if (who == leader && (op == RAFT_REMOVE || op == RAFT_DEMOTE)) {
        link_leave(leader, &in);
        return 0;
    }
    int r = node_step(leader, &in);
    trace(w, "n%u changes members: %s n%u: %s", leader->slot,
          op == RAFT_ADD_LEARNER ? "add"
          : op == RAFT_PROMOTE   ? "promote"
          : op == RAFT_DEMOTE    ? "demote"
          : op == RAFT_REMOVE    ? "remove"
                                 : "update",
          who->slot, r ? cv_error_name(r) : "ok");
    return r;
}

/* ---- A lost machine ---- */

static void replace_lost(struct world *w, struct node *leader, const struct raft_conf *conf)
{
    struct nemesis *nm = w->nemesis;
    if (!nm->replacement)
        nm->replacement = spare(w, nm->lost->journal_only);
    const struct raft_member *old = raft_conf_find(conf, nm->lost->id);
    const struct raft_member *new = nm->replacement ? raft_conf_find(conf, nm->replacement->id) : NULL;
    if (!old && (!nm->replacement || (new &&new->role == RAFT_VOTER))) {
        nm->lost = nm->replacement = NULL;
        return;
    }
    if (nm->replacement && !new)
        members_do(leader, RAFT_ADD_LEARNER, nm->replacement);
    else if (new &&new->role == RAFT_LEARNER && (!old || chance(&w->nemesis_random, 500)))
        members_do(leader, RAFT_PROMOTE, nm->replacement);
    else
        members_do(leader, RAFT_REMOVE, nm->lost);
}

/* Without this machine the cluster must still be able to work: no other voter is lost, and there are three. */
static bool can_lose(struct world *w, const struct node *n)
{
    const struct sim_entry *e = w->check->conf;
    if (!e || w->nemesis->lost || n->dead || raft_conf_voters(e->conf) < 3)
        return false;
    uint32_t full = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct node *other = w->nodes[i];
        const struct sim_entry *newest = image_conf(&other->disk.live, other->disk.live.last);
        /* A change that is under way, or in the log of a machine that is down, might leave fewer. */
        if (!other->dead && ((newest && newest->index > e->index) || other->link.handing_over))
            return false;
        const struct raft_member *m = raft_conf_find(e->conf, other->id);
        full +=
            other != n && !other->dead && m && m->role == RAFT_VOTER && !m->journal_only && other->disk.durable.flushed;
    }
    return full > 0;
}

void members_lose(struct world *w)
{
    struct node *n = w->nodes[prng_below(&w->nemesis_random, w->node_count)];
    if (!can_lose(w, n))
        return;
    struct disk_image *d = &n->disk.durable;
    node_stop(n, STOP_MACHINE, -1);
    w->nemesis->lost = n;
    if (d->last >= d->first && chance(&w->nemesis_random, 600)) {
        /* A bit flips somewhere in the log: it has to be noticed at the start. */
        uint64_t index = d->first + prng_below(&w->nemesis_random, (uint32_t)(d->last - d->first + 1));
        struct sim_entry *e = sim_alloc(&w->arena, sizeof(*e));
        *e = *d->entries[index];
        if (chance(&w->nemesis_random, 500) || e->type == RAFT_CONF)
            e->term ^= 1ull << prng_below(&w->nemesis_random, 16);
        else
            e->type ^= 1;
        d->entries[index] = e;
        n->disk.damaged = true;
        trace(w, "n%u a bit flips in entry %llu", n->slot, (unsigned long long)index);
        node_start(n, STOP_MACHINE);
        node_stop(n, STOP_MACHINE, -1);
    }
    n->dead = true;
    trace(w, "n%u is lost", n->slot);
    nemesis_plan(w->nodes[0], AIMED_MEMBERS, 1000, 0);
}

/* ---- All lost but one ---- */

/* Has everything that was ever committed on its disk, and a master that can serve. */
static bool can_stay(struct world *w, const struct node *n)
{
    const struct check *c = w->check;
    const struct disk_image *d = &n->disk.durable;
    return !n->dead && !n->journal_only && d->conf_count && c->commit && d->last >= c->commit &&
           d->first <= c->commit + 1 && image_entry(d, c->commit) == c->at[c->commit].committed;
}

/* What the offline tool writes: a term far above all that the lost machines may have seen, and itself as the only voter.
 * What was not committed becomes so by this. */
static void force_alone(struct node *n)
{
    struct world *w = n->world;
    const struct disk_image *d = &n->disk.durable;
    struct raft_conf conf = {.count = 1};
    conf.members[0] = (struct raft_member){.id = n->id, .role = RAFT_VOTER};
    snprintf(conf.members[0].raft_address, sizeof(conf.members[0].raft_address), "n%u:9", n->slot);
    node_append_offline(n, d->term + (SIM_MUTANT(force_same_term) ? 0 : FORCE_TERMS), &conf);
    w->check->forced = d->last;
    trace(w, "n%u is a cluster of its own from entry %llu, term %llu", n->slot, (unsigned long long)d->last,
          (unsigned long long)d->term);
}

struct node *members_force(struct world *w)
{
    struct node *keep = NULL;
    uint32_t at = prng_below(&w->nemesis_random, w->node_count);
    for (uint32_t i = 0; i < w->node_count && !keep; i++)
        if (can_stay(w, w->nodes[(at + i) % w->node_count]))
            keep = w->nodes[(at + i) % w->node_count];
    if (!keep)
        return NULL;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = w->nodes[i];
        if (n->dead)
            continue;
        node_stop(n, STOP_MACHINE, -1);
        n->dead = n != keep;
    }
    w->nemesis->lost = w->nemesis->replacement = NULL;
    force_alone(keep);
    node_start(keep, STOP_MACHINE);
    for (uint32_t i = 1; i <= 8 && !w->scripted; i++)
        nemesis_plan(keep, AIMED_CHANGE, (uint64_t)i * w->params.election_ms * SIM_MS, 0);
    return keep;
}

/* ---- At random ---- */

static void change_anything(struct world *w, struct node *leader, const struct raft_conf *conf)
{
    struct prng *random = &w->nemesis_random;
    const struct raft_member *m = &conf->members[prng_below(random, conf->count)];
    const struct node *who = node_by_id(w, m->id);
    uint32_t voters = raft_conf_voters(conf);
    uint32_t what = prng_below(random, 100);
    if (m->role == RAFT_LEARNER && what < 70) {
        members_do(leader, RAFT_PROMOTE, who);
    } else if (what < 30 && conf->count < 7) {
        struct node *n = spare(w, voters >= 3 && chance(random, 150));
        if (n)
            members_do(leader, RAFT_ADD_LEARNER, n);
    } else if (what < 55 && (voters > 2 || m->role == RAFT_LEARNER)) {
        members_do(leader, RAFT_REMOVE, who);
    } else if (what < 85 && voters > 2 && m->role == RAFT_VOTER) {
        members_do(leader, RAFT_DEMOTE, who);
    } else {
        members_do(leader, RAFT_UPDATE, who);
    }
}

void members_change_at(struct node *leader)
{
    struct world *w = leader->world;
    if (!node_leads(leader) || node_is_paused(leader))
        return;
    uint64_t index;
    struct raft_conf conf = *raft_conf_newest(leader->raft, &index);
    if (w->nemesis->lost)
        replace_lost(w, leader, &conf);
    else
        change_anything(w, leader, &conf);
}

void members_change(struct world *w)
{
    struct node *leader = world_leader(w);
    if (w->nemesis->lost && !w->nemesis->over)
        nemesis_plan(w->nodes[0], AIMED_MEMBERS, (uint64_t)w->params.election_ms * SIM_MS / 2, 0);
    /* Not the newest leader alone: one that is cut off may try too. */
    for (uint32_t i = 0; i < w->node_count && chance(&w->nemesis_random, 300); i++)
        if (node_leads(w->nodes[i]))
            leader = w->nodes[i];
    if (leader)
        members_change_at(leader);
}
