/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_node.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim_check.h"
#include "sim_nemesis.h"
#include "sim_net.h"
#include "sim_store.h"
#include "sim_twin.h"

struct node *node_by_id(struct world *w, uint64_t id)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (w->nodes[i]->id == id)
            return w->nodes[i];
    return NULL;
}

struct node *world_leader(struct world *w)
{
    struct node *best = NULL;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = w->nodes[i];
        if (node_leads(n) && (!best || n->out.term > best->out.term))
            best = n;
    }
    return best;
}

/* ---- Clock ---- */

static uint64_t local_us(const struct node *n)
{
    return n->clock_local_us + (n->world->now_us - n->clock_since_us) * n->clock_rate / 1000;
}

uint64_t node_now_ms(const struct node *n)
{
    return local_us(n) / 1000;
}

void node_set_clock(struct node *n, uint64_t jump_us, uint32_t rate)
{
    n->clock_local_us = local_us(n) + jump_us;
    n->clock_since_us = n->world->now_us;
    n->clock_rate = rate;
}

/* ---- Life ---- */

struct node *node_new(struct world *w, bool journal_only)
{
    assert(w->node_count < SIM_NODES_MAX);
    uint32_t slot = w->node_count++;
    if (!w->nodes_kept[slot]) {
        w->nodes_kept[slot] = calloc(1, sizeof(struct node));
        assert(w->nodes_kept[slot]);
    }
    struct node *n = w->nodes[slot] = w->nodes_kept[slot];
    struct disk disk = n->disk; /* vectors are used again */
    struct event *deferred = n->deferred;
    uint32_t deferred_room = n->deferred_room;
    memset(n, 0, sizeof(*n));
    n->disk = disk;
    n->deferred = deferred;
    n->deferred_room = deferred_room;
    n->world = w;
    n->slot = slot;
    n->journal_only = journal_only;
    do
        n->id = prng_next(&w->node_random) >> 8;
    while (!n->id || node_by_id(w, n->id) != n);
    disk_init(&n->disk);
    n->held_end = &n->held;
    n->link.proposals_end = &n->link.proposals;
    n->keeps_log = !w->scripted && chance(&w->node_random, 200);
    n->clock_rate = 1000;
    if (w->params.faults[FAULT_clock_rate])
        n->clock_rate = between(&w->node_random, 954, 1047);
    n->clock_local_us = (uint64_t)between(&w->node_random, 1000, 1000000000) * 1000;
    n->clock_since_us = w->now_us;
    return n;
}

/* One unit with a configuration behind the end, written at once. */
static void append_conf(struct node *n, uint64_t term, const struct raft_conf *conf, bool maker)
{
    struct world *w = n->world;
    const struct disk_image *d = &n->disk.durable;
    uint8_t *data = sim_alloc(&w->arena, RAFT_CONF_ENCODED_MAX);
    uint32_t size = (uint32_t)raft_conf_encode(conf, data);
    struct raft_entry e = {.term = term, .data = data, .size = size, .type = RAFT_CONF};
    struct disk_unit *u = disk_unit_new(w, 1);
    u->seq = 1;
    u->term = term;
    u->commit = d->commit;
    u->first = d->last + 1;
    u->entries[0] = check_entry(n, image_entry(d, d->last), u->first, &e, maker);
    disk_queue(n, u);
    disk_crash(n, 1);
}

void node_format(struct node *n, const struct raft_conf *conf)
{
    append_conf(n, 1, conf, n->slot == 0);
}

void node_append_offline(struct node *n, uint64_t term, const struct raft_conf *conf)
{
    store_start(n);
    append_conf(n, term, conf, true);
    store_stop(n);
}

static struct raft *new_core(struct node *n)
{
    struct world *w = n->world;
    const struct params *p = &w->params;
    const struct disk_image *image = &n->disk.durable;
    struct raft_options o = {
        .id = n->id,
        .seed = prng_next(&w->node_random),
        .heartbeat_ms = p->heartbeat_ms,
        .election_ms = p->election_ms,
        .append_entries_max = p->append_entries_max,
        .inflight_entries_max = p->inflight_entries_max,
        .uncommitted_max = p->uncommitted_max,
        .silent_ms = 20 * p->election_ms,
        .no_lease = p->no_lease,
        .pessimistic_hints = p->hint_poor == 1,
    };
    struct raft_restart s = {
        .now_ms = node_now_ms(n),
        .term = image->term,
        .vote = image->vote,
        .first = image->first,
        .last = image->last,
        .base_term = image->base ? image->base->term : 0,
        .commit = image->commit,
        .applied = p->applied_known && n->master.up ? n->master.state.applied : 0,
    };
    struct raft_run *runs = w->check->runs;
    uint64_t term = 0;
    for (uint64_t i = image->first; i <= image->last; i++) {
        if (image->entries[i]->term == term)
            continue;
        term = image->entries[i]->term;
        assert(s.run_count < CHECK_RUNS);
        runs[s.run_count++] = (struct raft_run){i, term};
    }
    s.runs = runs;
    uint32_t from = image->conf_count > 2 ? image->conf_count - 2 : 0;
    for (uint32_t i = from; i < image->conf_count; i++) {
        s.conf_index[s.conf_count] = image->confs[i]->index;
        s.conf[s.conf_count++] = image->confs[i]->conf;
    }
    struct raft *raft = NULL;
    int r = raft_new(&o, &s, &raft);
    if (r < 0)
        fail_harm(w, "start", "n%u: raft_new: %s", n->slot, cv_error_name(r));
    return raft;
}

static void start_journal(struct node *n)
{
    struct world *w = n->world;
    if (!image_is_sound(&n->disk.durable)) {
        /* Quarantine (raft.md 8.4): the machine must be replaced. */
        if (!n->disk.damaged)
            fail_harm(w, "log_broken", "n%u: the log on disk does not hang together", n->slot);
        n->dead = true;
        return;
    }
    if (n->disk.damaged)
        fail_harm(w, "damage_unseen", "n%u: started from a damaged disk", n->slot);
    store_start(n);
    twin_start(n);
    n->life++;
    n->up = true;
    n->raft = new_core(n);
    memset(&n->out, 0, sizeof(n->out));
    n->out.role = RAFT_FOLLOWER;
    n->out.term = n->disk.durable.term;
    n->written_seq = 0;
    trace(w, "n%u journal starts: term %llu, log %llu..%llu, commit %llu", n->slot,
          (unsigned long long)n->disk.durable.term, (unsigned long long)n->disk.durable.first,
          (unsigned long long)n->disk.durable.last, (unsigned long long)n->disk.durable.commit);
    struct event *e =
        world_schedule(w, w->now_us + between(&w->node_random, 0, w->params.tick_ms * SIM_MS), EVENT_TICK);
    e->node = n->slot;
    e->life = n->life;
}

void node_start(struct node *n, enum stop which)
{
    if (n->dead)
        return;
    if ((which & STOP_MASTER) && !n->master.up && !n->journal_only)
        master_start(n);
    if ((which & STOP_JOURNAL) && !n->up)
        start_journal(n);
    if (n->up && n->master.up)
        link_connect(n);
}

static void drop_held(struct node *n)
{
    while (n->held) {
        struct sim_message *m = n->held;
        n->held = m->next;
        net_message_free(n->world, m);
    }
    n->held_end = &n->held;
}

void node_stop(struct node *n, enum stop which, int keep)
{
    struct world *w = n->world;
    if ((which & STOP_MASTER) && n->master.up) {
        trace(w, "n%u master stops", n->slot);
        master_stop(n);
        link_break(n);
    }
    if (!(which & STOP_JOURNAL) || !n->up)
        return;
    trace(w, "n%u journal stops: term %llu, log to %llu, %u writes queued", n->slot, (unsigned long long)n->out.term,
          (unsigned long long)n->disk.live.last, n->disk.queued);
    w->counters.crashes++;
    twin_end(n);
    n->up = false;
    n->life++;
    n->raft = raft_free(n->raft);
    drop_held(n);
    disk_crash(n, keep);
    store_stop(n);
    link_break(n);
    /* What was already fetched of a snapshot stays in its staging directory. */
    n->fetch.number++;
    n->fetch.active = false;
}

void node_restart_later(struct node *n, uint64_t after_us)
{
    struct event *e = world_schedule(n->world, n->world->now_us + after_us, EVENT_RESTART);
    e->node = n->slot;
    n->restarts_pending++;
}

/* ---- Carrying out (raft.h, top) ---- */

static void carry_write(struct node *n, const struct raft_write *write, bool maker)
{
    struct world *w = n->world;
    const struct disk_image *live = &n->disk.live;
    check_write(n, write);
    twin_on_write(n, write);
    struct disk_unit *u = disk_unit_new(w, write->count);
    u->seq = write->seq;
    u->term = write->term;
    u->vote = write->vote;
    u->commit = write->commit;
    u->truncate_from = write->truncate_from;
    u->first = write->first;
    struct sim_entry *before = NULL;
    if (write->install.index) {
        u->install = check_find(w, write->install.index, write->install.term);
        u->install_conf = n->install_conf;
        u->install_state = n->install_state;
        before = u->install;
    }
    for (uint32_t i = 0; i < write->count; i++) {
        uint64_t index = write->first + i;
        if (i > 0)
            before = u->entries[i - 1];
        else if (!before || before->index + 1 != index)
            before = image_entry(live, index - 1);
        u->entries[i] = check_entry(n, before, index, &write->entries[i], maker);
    }
    trace(w, "n%u write %llu: term %llu vote %llx%s%llu, %u entries from %llu", n->slot, (unsigned long long)u->seq,
          (unsigned long long)u->term, (unsigned long long)u->vote & 0xffff, u->truncate_from ? ", cut from " : ", ",
          (unsigned long long)u->truncate_from, u->count, (unsigned long long)u->first);
    disk_queue(n, u);
    if (write->truncate_from)
        nemesis_on_truncate(n);
}

/* Attach the entries, as they are in the log now. Returns NULL when the range is gone: the message is dropped. */
static struct sim_message *attach(struct node *n, const struct raft_message *m)
{
    struct world *w = n->world;
    if (m->type != RAFT_MSG_APPEND) {
        struct sim_message *s = net_message_new(w, 0);
        s->m = *m;
        return s;
    }
    const struct disk_image *live = &n->disk.live;
    uint64_t prev = m->append.prev_index;
    uint32_t count = m->append.count;
    const struct sim_entry *last = image_entry(live, prev + count);
    if ((last ? last->term : 0) != m->append.last_term || (count && prev + 1 < live->first))
        return NULL;
    struct sim_message *s = net_message_new(w, count);
    s->m = *m;
    for (uint32_t i = 0; i < count; i++)
        s->entries[i] = live->entries[prev + 1 + i];
    return s;
}

static void release(struct node *n, struct sim_message *s)
{
    check_release(n, s);
    if (s->m.type == RAFT_MSG_HEARTBEAT) {
        const struct sim_entry *e = image_entry(&n->disk.live, s->m.heartbeat.commit);
        s->m.heartbeat.chain = e && e->index == s->m.heartbeat.commit ? e->chain : 0;
    }
    nemesis_on_release(n, s);
    net_send(n, s);
}

/* Some drivers cut a range in pieces (raft.h, 5). */
static void release_split(struct node *n, struct sim_message *s)
{
    struct world *w = n->world;
    uint32_t cut = s->count > 1 && w->params.split ? between(&w->net_random, 1, s->count) : s->count;
    if (cut == s->count) {
        release(n, s);
        return;
    }
    struct raft_message first = s->m, rest = s->m;
    const struct sim_entry *last = s->entries[cut - 1];
    first.append.count = cut;
    first.append.last_term = rest.append.prev_term = last->term;
    rest.append.prev_index += cut;
    rest.append.count -= cut;
    net_message_free(w, s);
    struct sim_message *piece = attach(n, &first);
    if (piece)
        release(n, piece);
    /* Or only a prefix is sent. */
    piece = chance(&w->net_random, 800) ? attach(n, &rest) : NULL;
    if (piece)
        release(n, piece);
}

static void carry_send(struct node *n, const struct raft_send *send)
{
    struct world *w = n->world;
    const struct raft_message *m = &send->message;
    struct sim_message *s = attach(n, m);
    if (!s)
        return;
    if (m->type == RAFT_MSG_APPEND_REPLY && !m->append_reply.rejected) {
        const struct sim_entry *e = image_entry(&n->disk.live, m->append_reply.index);
        s->chain = e ? e->chain : 0;
    }
    s->after_seq = send->after_seq;
    trace(w, "n%u %s to n%d (after %llu)", n->slot, message_text(m),
          node_by_id(w, m->to) ? (int)node_by_id(w, m->to)->slot : -1, (unsigned long long)send->after_seq);
    if (send->after_seq <= n->written_seq) {
        release_split(n, s);
        return;
    }
    s->next = NULL;
    *n->held_end = s;
    n->held_end = &s->next;
}

/* Entries are attached when the message leaves. */
static void release_late(struct node *n, struct sim_message *s)
{
    if (s->m.type == RAFT_MSG_APPEND) {
        struct raft_message m = s->m;
        net_message_free(n->world, s);
        s = attach(n, &m);
        if (!s)
            return;
    }
    release(n, s);
}

static void release_held(struct node *n)
{
    uint32_t life = n->life;
    struct sim_message **at = &n->held;
    while (n->life == life && *at) {
        struct sim_message *s = *at;
        if (s->after_seq > n->written_seq) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        if (!*at)
            n->held_end = at;
        release_late(n, s);
    }
}

static void carry_out(struct node *n, const struct raft_output *out, bool maker)
{
    struct world *w = n->world;
    bool was_leader = n->out.role == RAFT_LEADER && n->out.term == out->term;
    bool became_leader = out->role == RAFT_LEADER && !was_leader;
    uint32_t life = n->life;
    if (became_leader)
        n->led_us = w->now_us;
    if (out->role_changed)
        trace(w, "n%u is %s of term %llu", n->slot,
              out->role == RAFT_LEADER      ? "LEADER"
              : out->role == RAFT_CANDIDATE ? "candidate"
              : out->role == RAFT_FOLLOWER  ? "follower"
                                            : "precandidate",
              (unsigned long long)out->term);
    if (out->write.seq)
        carry_write(n, &out->write, maker);
    if (n->life != life)
        return; /* crashed at a boundary of writes */
    check_step(n, out);
    struct raft_output before = n->out;
    n->out = *out;
    link_after_step(n, &before, out);
    for (uint32_t i = 0; i < out->send_count && n->life == life; i++)
        carry_send(n, &out->sends[i]);
    for (uint32_t i = 0; i < out->read_count && n->life == life; i++)
        link_answer_read(n, &out->reads[i]);
    for (uint32_t i = 0; i < out->want_count && n->life == life; i++)
        snapshot_on_want(n, &out->wants[i]);
    if (out->offer.index && n->life == life)
        snapshot_on_offer(n, &out->offer);
    if (n->life == life)
        nemesis_on_role(n, became_leader);
}

int node_step(struct node *n, struct raft_input *in)
{
    struct world *w = n->world;
    struct raft_output out;
    in->now_ms = node_now_ms(n);
    w->counters.steps++;
    int r = raft_step(n->raft, in, &out);
    if (r == -CV_LOG_DIVERGED)
        fail_harm(w, "alarm", "n%u: %s", n->slot, raft_alarm(n->raft));
    /* The core makes entries when proposals arrive, and its own when it was elected. */
    carry_out(n, &out, out.role == RAFT_LEADER || in->type == RAFT_IN_PROPOSE);
    return r;
}

void node_receive(struct node *n, const struct raft_message *m)
{
    struct world *w = n->world;
    uint32_t from = node_by_id(w, m->from)->slot;
    trace(w, "n%u <- n%u %s", n->slot, from, message_text(m));
    n->heard_us[from] = w->now_us;
    if (m->type == RAFT_MSG_HEARTBEAT && m->heartbeat.chain) {
        const struct sim_entry *e = image_entry(&n->disk.live, m->heartbeat.commit);
        if (e && e->index <= n->out.commit && e->chain != m->heartbeat.chain)
            fail_harm(w, "chain", "n%u: the leader's log differs at committed entry %llu", n->slot,
                      (unsigned long long)e->index);
    }
    struct raft_input in = {.type = RAFT_IN_MESSAGE, .message = m};
    int r = node_step(n, &in);
    if (r < 0 && r != -CV_BUSY)
        fail_harm(w, "refused", "n%u refuses %s: %s", n->slot, raft_message_name(m->type), cv_error_name(r));
}

/* Delete what the core and the habit of this driver allow. */
static void compact(struct node *n)
{
    struct world *w = n->world;
    const struct params *p = &w->params;
    uint64_t first = n->disk.live.first, to = n->out.compact_to;
    if (!p->compact_every || n->keeps_log || to < first + p->compact_every + p->compact_behind)
        return;
    uint64_t new_first = to + 1 - p->compact_behind;
    struct raft_input in = {.type = RAFT_IN_COMPACT, .compact.first = new_first};
    check_compact(n, new_first);
    uint32_t life = n->life;
    int r = node_step(n, &in);
    if (r < 0)
        fail_harm(w, "compact", "n%u may not compact to its own compact_to: %s", n->slot, cv_error_name(r));
    if (n->life != life)
        return;
    trace(w, "n%u compacts to %llu", n->slot, (unsigned long long)new_first);
    w->counters.compactions++;
    struct disk_unit *u = disk_unit_new(w, 0);
    u->compact_first = new_first;
    disk_queue(n, u);
}

void node_on_tick(struct node *n)
{
    struct world *w = n->world;
    struct event *e = world_schedule(w, w->now_us + w->params.tick_ms * SIM_MS, EVENT_TICK);
    e->node = n->slot;
    e->life = n->life;
    if (n->no_ticks)
        return;
    uint32_t life = n->life;
    struct raft_input in = {.type = RAFT_IN_TICK};
    node_step(n, &in);
    if (n->life == life)
        check_tick(n);
    if (n->life == life)
        twin_on_tick(n);
    if (n->life == life)
        link_propose_waiting(n);
    if (n->life == life)
        compact(n);
}

void node_on_written(struct node *n, uint64_t seq, bool installed)
{
    uint32_t life = n->life;
    struct world *w = n->world;
    n->written_seq = max(n->written_seq, seq);
    if (!w->params.told_first)
        release_held(n);
    if (seq && n->life == life) {
        struct raft_input in = {.type = RAFT_IN_WRITTEN, .written.seq = n->written_seq};
        node_step(n, &in);
    }
    if (w->params.told_first && n->life == life)
        release_held(n);
    if (installed && n->life == life)
        link_on_installed(n);
}
