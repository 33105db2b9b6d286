/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_disk.h"

#include <assert.h>
#include <string.h>

#include "raft/raft_mutant.h"
#include "sim_check.h"
#include "sim_nemesis.h"
#include "sim_node.h"
#include "sim_state.h"
#include "sim_store.h"

/* ---- Images ---- */

static void image_init(struct disk_image *image)
{
    struct sim_entry **entries = image->entries;
    uint64_t room = image->room;
    *image = (struct disk_image){.entries = entries, .room = room, .first = 1};
}

static void image_room(struct disk_image *image, uint64_t index)
{
    if (index < image->room)
        return;
    uint64_t room = max(2 * image->room, index + 1024);
    image->entries = realloc(image->entries, room * sizeof(struct sim_entry *));
    assert(image->entries);
    image->room = room;
}

struct sim_entry *image_conf(const struct disk_image *image, uint64_t index)
{
    for (uint32_t i = image->conf_count; i > 0; i--)
        if (image->confs[i - 1]->index <= index)
            return image->confs[i - 1];
    return NULL;
}

static void image_put_conf(struct disk_image *image, struct sim_entry *e)
{
    if (image->conf_count == DISK_CONFS)
        memmove(image->confs, image->confs + 1, --image->conf_count * sizeof(image->confs[0]));
    image->confs[image->conf_count++] = e;
}

static void image_truncate(struct disk_image *image, uint64_t from)
{
    if (from <= image->last)
        image->last = from - 1;
    while (image->conf_count && image->confs[image->conf_count - 1]->index >= from)
        image->conf_count--;
}

static void image_install(struct disk_image *image, const struct disk_unit *u)
{
    uint64_t index = u->install->index;
    /* Rows of configurations that the snapshot covers are replaced by its own. */
    uint32_t keep = 0;
    struct sim_entry *later[DISK_CONFS];
    for (uint32_t i = 0; i < image->conf_count; i++)
        if (image->confs[i]->index > index)
            later[keep++] = image->confs[i];
    image->conf_count = 0;
    image_put_conf(image, u->install_conf);
    for (uint32_t i = 0; i < keep; i++)
        image_put_conf(image, later[i]);
    image->first = index + 1;
    image->base = u->install;
    image->last = max(image->last, index);
    if (!image->flushed || image->flushed->applied < u->install_state->applied)
        image->flushed = u->install_state;
}

static void image_apply(struct disk_image *image, const struct disk_unit *u)
{
    if (u->seq) {
        if (!u->no_term)
            image->term = u->term;
        if (!u->no_vote)
            image->vote = u->vote;
        image->commit = u->commit;
    }
    if (u->install)
        image_install(image, u);
    if (u->truncate_from)
        image_truncate(image, u->truncate_from);
    for (uint32_t i = 0; i < u->count; i++) {
        struct sim_entry *e = u->entries[i];
        image_room(image, e->index);
        image->entries[e->index] = e;
        if (e->type == RAFT_CONF)
            image_put_conf(image, e);
    }
    if (u->count) {
        uint64_t end = u->first + u->count - 1;
        image->last = u->keep_tail ? max(image->last, end) : end;
    }
    if (u->compact_first > image->first) {
        image->base = image_entry(image, u->compact_first - 1);
        image->first = u->compact_first;
    }
}

static void image_copy(struct disk_image *to, const struct disk_image *from)
{
    struct sim_entry **entries = to->entries;
    uint64_t room = to->room;
    *to = *from;
    to->entries = entries;
    to->room = room;
    if (from->last < from->first)
        return;
    image_room(to, from->last);
    memcpy(to->entries + from->first, from->entries + from->first,
           (from->last - from->first + 1) * sizeof(struct sim_entry *));
}

bool image_is_sound(const struct disk_image *image)
{
    uint64_t chain = image->base ? image->base->chain : 0;
    for (uint64_t i = image->first; i <= image->last; i++) {
        const struct sim_entry *e = image->entries[i];
        if (e->index != i || e->chain != check_chain(chain, e->term, e->type, e->data, e->size))
            return false;
        chain = e->chain;
    }
    return true;
}

/* ---- The queue ---- */

void disk_init(struct disk *d)
{
    struct disk_image live = d->live, durable = d->durable;
    *d = (struct disk){.live = {.entries = live.entries, .room = live.room},
                       .durable = {.entries = durable.entries, .room = durable.room}};
    image_init(&d->live);
    image_init(&d->durable);
}

enum { UNIT_SMALL = 4 };

static size_t unit_size(uint32_t count)
{
    uint32_t room = count <= UNIT_SMALL ? UNIT_SMALL : RAFT_APPEND_ENTRIES_MAX + 1;
    return sizeof(struct disk_unit) + room * sizeof(struct sim_entry *);
}

struct disk_unit *disk_unit_new(struct world *w, uint32_t count)
{
    assert(count <= RAFT_APPEND_ENTRIES_MAX + 1);
    struct check *c = w->check;
    struct recycler *r = count <= UNIT_SMALL ? &c->small_units : &c->big_units;
    struct disk_unit *u = recycler_take(r, &w->arena, unit_size(count));
    memset(u, 0, sizeof(*u));
    u->count = count;
    return u;
}

static void unit_free(struct world *w, struct disk_unit *u)
{
    recycler_give(u->count <= UNIT_SMALL ? &w->check->small_units : &w->check->big_units, u);
}

static uint64_t disk_latency(struct node *n)
{
    struct world *w = n->world;
    struct disk *d = &n->disk;
    uint64_t us = w->params.disk_us + between(&w->disk_random, 0, w->params.disk_jitter_us);
    if (w->now_us < d->slow_until_us)
        us += between(&w->disk_random, 0, (uint32_t)d->slow_us);
    if (w->now_us < d->stall_until_us)
        us += d->stall_until_us - w->now_us;
    return us;
}

void disk_kick(struct node *n)
{
    struct disk *d = &n->disk;
    struct world *w = n->world;
    if (d->busy || !d->head || d->hold)
        return;
    d->busy = true;
    d->in_flight = min(d->queued, w->params.group_max);
    struct event *e = world_schedule(w, w->now_us + disk_latency(n), EVENT_SYNCED);
    e->node = n->slot;
    e->life = d->epoch;
}

static void queue_one(struct node *n, struct disk_unit *u)
{
    struct disk *d = &n->disk;
    image_apply(&d->live, u);
    u->next = NULL;
    *(d->tail ? &d->tail->next : &d->head) = u;
    d->tail = u;
    d->queued++;
}

/* Mutants: one unit as two. The first carries no seq a wait could end at; both must be written in between crashes. */
static bool queue_split(struct node *n, struct disk_unit *u)
{
    struct world *w = n->world;
    if (MUTANT(term_vote_split) && u->seq && u->term != n->disk.live.term && u->vote != n->disk.live.vote) {
        struct disk_unit *vote = disk_unit_new(w, 0);
        vote->seq = u->seq - 1;
        vote->vote = u->vote;
        vote->commit = u->commit;
        vote->no_term = true;
        queue_one(n, vote);
        u->no_vote = true;
        queue_one(n, u);
        return true;
    }
    if (MUTANT(truncate_append_split) && u->truncate_from && u->count) {
        struct disk_unit *cut = disk_unit_new(w, 0);
        cut->seq = u->seq;
        cut->term = u->term;
        cut->vote = u->vote;
        cut->commit = u->commit;
        cut->truncate_from = u->first + u->count;
        u->seq--;
        image_truncate(&n->disk.live, u->truncate_from); /* the table of configurations */
        u->truncate_from = 0;
        u->keep_tail = true;
        queue_one(n, u);
        queue_one(n, cut);
        return true;
    }
    return false;
}

void disk_queue(struct node *n, struct disk_unit *u)
{
    n->world->counters.writes++;
    if (!queue_split(n, u))
        queue_one(n, u);
    disk_kick(n);
    nemesis_on_write(n);
}

static struct disk_unit *pop_unit(struct disk *d)
{
    struct disk_unit *u = d->head;
    d->head = u->next;
    if (!d->head)
        d->tail = NULL;
    d->queued--;
    return u;
}

/* A write that fails stops the process (raft.h: a failed write is fatal). Returns false then. */
static bool write_fails(struct node *n)
{
    struct disk *d = &n->disk;
    struct world *w = n->world;
    bool full = w->now_us < d->full_until_us;
    if (!full && !d->fail_next)
        return false;
    if (full && MUTANT(hard_state_lost)) {
        bool entries = false;
        struct disk_unit *u = d->head;
        for (uint32_t i = 0; i < d->in_flight; i++, u = u->next) {
            entries = entries || u->count || u->install || u->truncate_from;
            u->no_term = u->no_vote = true;
        }
        if (!entries)
            return false;
    }
    trace(w, "n%u disk: write fails (%s)", n->slot, full ? "full" : "error");
    d->fail_next = false;
    node_stop(n, STOP_JOURNAL, full ? 0 : -1);
    /* A full disk lets the process start, and fail again at the next write. */
    node_restart_later(n, between(&w->disk_random, 1, 4 * w->params.election_ms) * SIM_MS);
    return true;
}

void disk_on_synced(struct node *n, uint32_t epoch)
{
    struct disk *d = &n->disk;
    struct world *w = n->world;
    if (epoch != d->epoch)
        return;
    if (write_fails(n))
        return;
    uint64_t seq = 0;
    bool installed = false;
    for (uint32_t i = 0; i < d->in_flight; i++) {
        struct disk_unit *u = pop_unit(d);
        image_apply(&d->durable, u);
        store_take(n, u);
        for (uint32_t k = 0; k < u->count; k++)
            check_written(n, u->entries[k]);
        seq = max(seq, u->seq);
        installed = installed || u->install;
        unit_free(w, u);
    }
    d->busy = false;
    d->in_flight = 0;
    d->synced_us = w->now_us;
    disk_kick(n);
    if (seq || installed) {
        struct event *e = world_schedule(w, w->now_us, EVENT_WRITTEN);
        e->node = n->slot;
        e->life = n->life;
        e->value = seq;
        e->other = installed;
    }
}

void disk_crash(struct node *n, int keep)
{
    struct disk *d = &n->disk;
    struct world *w = n->world;
    uint32_t kept = 0;
    if (keep >= 0)
        kept = min((uint32_t)keep, d->queued);
    else if (d->queued)
        /* Often all (the process died, the machine lives) or nothing (the power failed). */
        kept = chance(&w->disk_random, 300)   ? d->queued
               : chance(&w->disk_random, 300) ? 0
                                              : between(&w->disk_random, 0, d->queued);
    for (uint32_t i = 0; d->head; i++) {
        struct disk_unit *u = pop_unit(d);
        if (i < kept) {
            image_apply(&d->durable, u);
            store_take(n, u);
        }
        unit_free(w, u);
    }
    d->in_flight = 0;
    d->busy = false;
    d->epoch++;
    d->fail_next = false;
    image_copy(&d->live, &d->durable);
}
