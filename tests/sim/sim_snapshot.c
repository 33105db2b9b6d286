/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots between machines: the leader names a source with a checkpoint, the receiver fetches it piece by piece and
 * keeps what it has across restarts and changes of leader, then has the core switch to it (raft.md 7.3).
 */
#include <assert.h>

#include "sim_check.h"
#include "sim_nemesis.h"
#include "sim_net.h"
#include "sim_node.h"
#include "sim_space.h"

enum { FETCH_PIECES = 4, FETCH_TRIES = 8 };

/* ---- Source ---- */

static bool can_give(const struct node *n, uint64_t min_index)
{
    return n->up && n->master.up && !n->journal_only && n->master.state.applied >= min_index &&
           n->master.state.applied + 1 >= n->disk.live.first;
}

static const struct checkpoint *find_checkpoint(const struct node *n, uint64_t index)
{
    for (uint32_t i = 0; i < NODE_CHECKPOINTS; i++)
        if (n->checkpoints[i].state && n->checkpoints[i].state->applied == index)
            return &n->checkpoints[i];
    return NULL;
}

/* The state as it is now: a hard-linked copy, so making one is quick whatever its size. */
static const struct checkpoint *make_checkpoint(struct node *n)
{
    struct world *w = n->world;
    const struct checkpoint *existing = find_checkpoint(n, n->master.state.applied);
    if (existing)
        return existing;
    struct sim_entry *entry = image_entry(&n->disk.live, n->master.state.applied);
    struct sim_entry *conf = image_conf(&n->disk.live, n->master.state.applied);
    if (!entry || !conf)
        return NULL;
    struct state *copy = sim_alloc(&w->arena, sizeof(*copy));
    *copy = n->master.state;
    if (n->master.space)
        copy->base = space_flush(n->master.space);
    struct checkpoint *c = &n->checkpoints[n->checkpoint_next++ % NODE_CHECKPOINTS];
    *c = (struct checkpoint){copy, entry, conf};
    return c;
}

/* ---- Leader ---- */

void snapshot_on_want(struct node *n, const struct raft_snapshot_want *want)
{
    struct world *w = n->world;
    /* Ourselves, or better somebody who follows. */
    uint32_t able[SIM_NODES_MAX], count = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        if (can_give(w->nodes[i], want->min_index) && w->nodes[i]->id != want->peer)
            able[count++] = i;
    uint32_t source = count ? able[prng_below(&w->node_random, count)] : n->slot;
    trace(w, "n%u wants a snapshot for n%u from n%u", n->slot, node_by_id(w, want->peer)->slot, source);
    uint32_t most = w->params.election_ms * SIM_MS / 4;
    struct event *e = world_schedule(w, w->now_us + between(&w->node_random, 100, most), EVENT_CHECKPOINT);
    e->node = n->slot;
    e->life = n->life;
    e->value = want->peer;
    e->other = (uint16_t)source;
}

void snapshot_on_checkpoint(struct node *n, uint64_t peer, uint64_t source_slot)
{
    struct node *source = n->world->nodes[source_slot];
    bool heard = source == n || !net_is_cut(n->world, source->slot, n->slot);
    const struct checkpoint *c = heard && can_give(source, 0) ? make_checkpoint(source) : NULL;
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_READY};
    if (c) {
        in.snapshot_ready.peer = peer;
        in.snapshot_ready.source = source->id;
        in.snapshot_ready.index = c->state->applied;
        uint32_t life = n->life;
        int r = node_step(n, &in);
        if (r == 0 || n->life != life)
            return;
        if (r != -CV_NOT_LEADER && r != -ENOENT && r != -EINVAL)
            fail_harm(n->world, "snapshot", "n%u: a snapshot that is ready gets %s", n->slot, cv_error_name(r));
    }
    struct raft_input failed = {.type = RAFT_IN_SNAPSHOT_FAILED, .snapshot_failed.peer = peer};
    node_step(n, &failed);
}

/* ---- Receiver ---- */

static void fetch_later(struct node *n, uint64_t us)
{
    struct event *e = world_schedule(n->world, n->world->now_us + us, EVENT_FETCH);
    e->node = n->slot;
    e->life = n->life;
    e->value = n->fetch.number;
}

void snapshot_on_offer(struct node *n, const struct raft_snapshot_offer *offer)
{
    struct world *w = n->world;
    struct fetch *f = &n->fetch;
    struct node *source = node_by_id(w, offer->source);
    assert(source);
    if (f->index != offer->index || f->term != offer->term) {
        f->index = offer->index;
        f->term = offer->term;
        f->pieces = FETCH_PIECES;
    }
    f->source = source->slot;
    f->tries = 0;
    f->active = true;
    f->slow = false;
    f->number++;
    trace(w, "n%u fetches snapshot %llu from n%u, %u pieces to go", n->slot, (unsigned long long)f->index, f->source,
          f->pieces);
    fetch_later(n, between(&w->node_random, 100, 2000));
    nemesis_on_snapshot(n, f->source);
}

static void give_up(struct node *n)
{
    n->fetch.index = 0;
    n->fetch.active = false;
    n->fetch.number++;
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_FAILED};
    node_step(n, &in);
}

static void install(struct node *n, const struct checkpoint *c)
{
    struct world *w = n->world;
    struct fetch *f = &n->fetch;
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_INSTALL};
    in.snapshot_install.index = f->index;
    in.snapshot_install.term = f->term;
    in.snapshot_install.conf_index = c->conf->index;
    in.snapshot_install.conf = c->conf->conf;
    n->install_conf = c->conf;
    n->install_state = c->state;
    uint32_t life = n->life;
    int r = node_step(n, &in);
    if (n->life != life)
        return;
    if (r == -CV_BUSY) {
        fetch_later(n, w->params.election_ms * SIM_MS / 4);
        return;
    }
    /* -EINVAL: elected meanwhile. */
    if (r < 0 && r != -EALREADY && !(r == -EINVAL && n->out.role == RAFT_LEADER))
        fail_harm(w, "snapshot", "n%u: installing gets %s", n->slot, cv_error_name(r));
    trace(w, "n%u installs snapshot %llu: %s", n->slot, (unsigned long long)f->index, r ? cv_error_name(r) : "ok");
    if (r == 0)
        w->counters.snapshots++;
    f->index = 0;
    f->active = false;
    f->number++;
}

void snapshot_on_fetch(struct node *n, uint32_t number)
{
    struct world *w = n->world;
    struct fetch *f = &n->fetch;
    if (number != f->number || !n->up)
        return;
    struct node *source = w->nodes[f->source];
    const struct checkpoint *c = find_checkpoint(source, f->index);
    if (!c || c->entry->term != f->term || source->dead) {
        give_up(n); /* the source does not have it any more */
        return;
    }
    if (f->pieces == 0) {
        install(n, c);
        return;
    }
    bool ok = source->up && !net_is_cut(w, source->slot, n->slot) && !net_is_cut(w, n->slot, source->slot);
    if (ok)
        f->pieces--;
    else if (++f->tries > FETCH_TRIES) {
        give_up(n);
        return;
    }
    uint32_t most_us = f->slow ? w->params.election_ms * SIM_MS : 5000;
    fetch_later(n, ok ? between(&w->node_random, 100, most_us) : w->params.election_ms * SIM_MS / 4);
}
