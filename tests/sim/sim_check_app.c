/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the application and of what clients were told (raft.md 9.2). Linearizability needs no search: the log is
 * the order of all changes, so it is enough that every request of mode quorum takes effect between its beginning and
 * its end in that order. A request begins above a floor: the newest version of its key that any finished request was
 * shown; what it writes or sees must not be older.
 */
#include <stdlib.h>
#include <string.h>

#include "sim_check.h"
#include "sim_clients.h"
#include "sim_nemesis.h"
#include "sim_node.h"
#include "sim_space.h"

typedef unsigned long long ull; /* for printing */

static uint64_t index_of(const struct check *c, uint64_t version)
{
    return version ? c->versions[version >> 1].index : 0;
}

/* ---- The expected state ---- */

void check_fold(struct world *w, const struct sim_entry *e)
{
    struct check *c = w->check;
    const char *problem = state_apply(&c->state, e);
    if (problem)
        fail_harm(w, "history", "entry %llu, made by n%u in term %llu: %s", (ull)e->index, e->maker, (ull)e->term,
                  problem);
    if (w->params.space)
        space_check_fold(w, e);
    if (e->type != RAFT_BATCH)
        return;
    const struct batch_data *b = (const void *)e->data;
    for (uint32_t i = 0; i < b->count; i++) {
        const struct op *op = &b->ops[i];
        if (op->type == OP_ID)
            c->ids[op->after] = e->index;
        else
            c->versions[op->after >> 1].index = e->index;
    }
}

void check_applied(struct node *n, const struct state *s)
{
    struct world *w = n->world;
    struct check *c = w->check;
    if (s->applied > c->commit)
        fail_harm(w, "applied_ahead", "n%u applied %llu, committed is %llu", n->slot, (ull)s->applied, (ull)c->commit);
    if (state_digest(s) != c->at[s->applied].digest)
        fail_harm(w, "state", "n%u's state at %llu is not what the log says", n->slot, (ull)s->applied);
}

void check_flushed(struct node *n, const struct state *s)
{
    const struct state *before = n->disk.durable.flushed;
    if (before && s->applied < before->applied)
        fail_harm(n->world, "flushed_back", "n%u's state on disk goes back from %llu to %llu", n->slot,
                  (ull)before->applied, (ull)s->applied);
    check_applied(n, s);
}

void check_undone(struct node *n, uint64_t digest, uint64_t expected)
{
    if (digest != expected)
        fail_harm(n->world, "undo", "n%u rolled a batch back and is not where it was", n->slot);
}

void check_effect(struct node *n, const struct op *op)
{
    if (index_of(n->world->check, op->after) == 0)
        fail_harm(n->world, "effect", "n%u releases the side effect of an operation that is not committed", n->slot);
}

void check_id(struct node *n, uint64_t id)
{
    struct world *w = n->world;
    struct check *c = w->check;
    if (id >= c->id_room) {
        uint64_t room = max(2 * c->id_room, id + 1024);
        c->ids = realloc(c->ids, room * sizeof(c->ids[0]));
        if (!c->ids)
            abort();
        memset(c->ids + c->id_room, 0, (room - c->id_room) * sizeof(c->ids[0]));
        c->id_room = room;
    }
    c->id_count = max(c->id_count, id + 1);
    if (c->ids[id])
        fail_harm(w, "id_twice", "n%u hands out id %llu, which was handed out before", n->slot, (ull)id);
    c->ids[id] = 1;
}

/* ---- Clients ---- */

uint64_t check_version_new(struct world *w, bool gone)
{
    struct check *c = w->check;
    if (c->version_count >= c->version_room) {
        c->version_room = max(2 * c->version_room, (uint64_t)1024);
        c->versions = realloc(c->versions, c->version_room * sizeof(c->versions[0]));
        if (!c->versions)
            abort();
    }
    uint64_t number = c->version_count++;
    c->versions[number] = (struct version){0};
    return number << 1 | (gone ? VERSION_GONE : 0);
}

uint64_t check_floor(struct world *w, uint32_t key)
{
    return w->check->version_index[key];
}

void check_written(struct node *n, const struct sim_entry *e)
{
    const struct batch_data *b = (const void *)e->data;
    if (e->type != RAFT_BATCH || !n->world->params.local_permille)
        return;
    for (uint32_t i = 0; i < b->count; i++)
        if (b->ops[i].type != OP_ID)
            n->world->check->versions[b->ops[i].after >> 1].disks |= 1u << n->slot;
}

void check_promise(struct node *n, const struct answer *a)
{
    struct world *w = n->world;
    struct check *c = w->check;
    if (a->result != 0 && a->result != -EEXIST)
        return;
    bool wrote = a->result == 0 && a->type != OP_GET;
    bool safe = a->type == OP_ID ? c->ids[a->version] > 1 : a->version == 0 || index_of(c, a->version) > 0;
    if (a->mode == ACK_QUORUM && !safe)
        fail_harm(w, wrote ? "quorum_ack" : "early_answer",
                  "n%u answers a request of client %u with what is not committed", n->slot, a->client);
    bool on_disk = wrote && a->type != OP_ID && c->versions[a->version >> 1].disks >> n->slot & 1;
    if (a->mode == ACK_LOCAL && wrote && a->type != OP_ID && !safe && !on_disk)
        fail_harm(w, "local_ack", "n%u answers a request of client %u with what is not on its disk", n->slot,
                  a->client);
    if (!wrote || a->type == OP_ID)
        return;
    struct version *v = &c->versions[a->version >> 1];
    if (v->acknowledged && v->mode != ACK_APPLIED)
        return; /* a retry: what was said first counts */
    v->acknowledged = true;
    v->mode = a->mode;
    v->slot = (uint8_t)n->slot;
    v->link = n->link.number;
    v->term = n->master.term;
}

void check_cut(struct node *n, uint64_t from)
{
    struct check *c = n->world->check;
    const struct disk_image *d = &n->disk.live;
    for (uint64_t i = max(from, d->first); i <= d->last && n->world->params.local_permille; i++) {
        const struct batch_data *b = (const void *)d->entries[i]->data;
        for (uint32_t k = 0; d->entries[i]->type == RAFT_BATCH && k < b->count; k++)
            if (b->ops[k].type != OP_ID)
                c->versions[b->ops[k].after >> 1].cut |= 1u << n->slot;
    }
}

void check_answer(struct world *w, const struct client *client, const struct answer *a)
{
    struct check *c = w->check;
    const struct request *r = &client->request;
    if (a->mode != ACK_QUORUM || r->type == OP_ID)
        return;
    uint64_t index = index_of(c, a->version);
    bool wrote = a->result == 0 && r->type != OP_GET;
    if (wrote ? index <= client->floor : index < client->floor)
        fail_harm(w, "linearizability",
                  "client %u, key %u: %s version %llu (entry %llu), but entry %llu was shown to somebody before the "
                  "request began",
                  client->number, r->key, wrote ? "writes" : "sees", (ull)a->version, (ull)index, (ull)client->floor);
    c->version_index[r->key] = max(c->version_index[r->key], index);
}

/* ---- The end ---- */

static const char *member_settled(struct world *w, const struct node *leader, const struct node *n)
{
    static _Thread_local char text[160];
    const char *what = NULL;
    if (!n->up)
        what = "is not up";
    else if (n->out.term != leader->out.term)
        what = "is in another term than the leader";
    else if (n->disk.durable.last != leader->out.last)
        what = "does not have the leader's log";
    else if (n->out.commit != leader->out.commit)
        what = "does not know all that is committed";
    else if (n->fetch.active)
        what = "still fetches a snapshot";
    else if (!n->journal_only && (!n->master.up || n->master.state.applied != leader->out.commit))
        what = "has a master that has not applied everything";
    else if (!n->journal_only && n->master.next_batch != n->master.first_batch)
        what = "has a master with batches that are neither committed nor undone";
    if (!what)
        return NULL;
    snprintf(text, sizeof(text), "n%u %s", n->slot, what);
    return text;
}

const char *check_settled(struct world *w)
{
    const struct node *leader = world_leader(w);
    if (!leader)
        return "there is no leader";
    if (leader->journal_only)
        return "a journal-only node leads";
    if (leader->out.commit != leader->out.last)
        return "the leader has uncommitted entries";
    const struct sim_entry *conf = w->check->conf;
    for (uint32_t i = 0; conf && i < conf->conf->count; i++) {
        const struct node *n = node_by_id(w, conf->conf->members[i].id);
        const char *what = n->dead ? NULL : member_settled(w, leader, n);
        if (what)
            return what;
    }
    for (uint32_t i = 0; i < w->client_count; i++)
        if (w->clients[i]->busy)
            return "a client waits for an answer";
    return NULL;
}

uint64_t check_progress(struct world *w)
{
    uint64_t sum = w->check->commit;
    for (uint32_t i = 0; i < w->node_count; i++)
        sum += w->nodes[i]->disk.durable.last + w->nodes[i]->master.state.applied;
    for (uint32_t i = 0; i < w->client_count; i++)
        sum += !w->clients[i]->busy;
    return sum;
}

static void check_loss(struct world *w, const struct version *v)
{
    const struct node *n = w->nodes[v->slot];
    if (n->dead || w->check->forced || !raft_conf_find(w->check->conf->conf, n->id))
        return; /* its disk is gone, or nobody reads it any more */
    if (v->mode == ACK_QUORUM)
        fail_harm(w, "quorum_lost", "n%u answered a change under quorum, and it is not there", n->slot);
    if (n->link.number == v->link && w->check->highest_term == v->term)
        fail_harm(w, "lost_without_change", "n%u led term %llu to the end, and lost a change it had answered", n->slot,
                  (ull)v->term);
    if (v->mode == ACK_LOCAL && !(v->cut >> n->slot & 1))
        fail_harm(w, "local_lost", "n%u lost a change that was on its disk, and no other log replaced it", n->slot);
}

void check_losses(struct world *w)
{
    struct check *c = w->check;
    for (uint64_t i = 1; i < c->version_count; i++) {
        const struct version *v = &c->versions[i];
        if (!v->acknowledged || v->index)
            continue;
        w->counters.lost_acks++;
        check_loss(w, v);
    }
}
