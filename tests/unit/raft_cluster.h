/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few replicas of the consensus core in one process, for scripted tests: virtual time, a disk per node that can be
 * held back or lose what is not synced, links that can be cut, and every committed entry compared across nodes and
 * crashes. Nothing random: what a test does not do does not happen. (Random schedules: tests/sim.)
 *
 *   struct cluster c;
 *   cluster_start(&c, 3);            three voters, ids 1 2 3
 *   cluster_elect(&c, 1);            node 1 leads, its first entry is committed everywhere
 *   cut(&c, 1, 2);                   no messages between 1 and 2
 *   propose(&c, 1, 77); settle(&c);  deliver and sync until nothing moves
 *   run_ms(&c, 1000);                ticks, with settle after each
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "raft/raft.h"
#include "unit.h"

enum { NODES_MAX = 6, LOG_MAX = 2048, FLYING_MAX = 8192, WRITES_QUEUED_MAX = 1100, HELD_MAX = 8192 };

struct stored {
    uint64_t term, value;
    uint8_t type;
    uint32_t size;
    uint8_t *conf; /* CONF: its bytes */
};

/* What a log database holds. */
struct store {
    uint64_t term, vote, commit;
    uint64_t first, last, base_term;
    struct stored log[LOG_MAX];
    uint32_t conf_count; /* the table of configurations */
    struct {
        uint64_t index;
        struct raft_conf conf;
    } confs[64];
};

struct write_copy {
    struct raft_write w;
    struct stored *entries;
    struct raft_conf install_conf;
};

struct node {
    uint64_t id;
    struct raft *r; /* NULL: not running */
    struct raft_options options;
    struct raft_output out; /* of the last step; its pointers are stale */
    int result;             /* of the last step */

    struct store *disk, *cache; /* durable; with queued writes */
    struct write_copy queue[WRITES_QUEUED_MAX];
    uint32_t queued;
    bool disk_held; /* settle() leaves the queue alone */
    struct raft_send held[HELD_MAX];
    uint32_t held_count;

    uint64_t applied;
    bool can_lead, reluctant;
    struct raft_read reads[64]; /* answered, oldest first */
    uint32_t read_count;
    uint64_t wanted[NODES_MAX + 1]; /* by peer: min_index asked for, 0 none */
    struct raft_snapshot_offer offer;
    uint32_t leader_times; /* how often it became leader */
};

struct flying {
    struct raft_message m;
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    uint8_t *bytes; /* payloads */
};

struct cluster {
    uint64_t now_ms;
    uint32_t count;
    struct node nodes[NODES_MAX];
    bool cut[NODES_MAX + 1][NODES_MAX + 1];
    struct flying *flying[FLYING_MAX];
    uint32_t flying_count;
    uint64_t delivered;
    uint64_t next_value;
    bool expect_alarm; /* the test wants one */

    struct stored committed[LOG_MAX]; /* by index, as first seen */
    uint64_t committed_last;
};

static bool counting_allocations; /* true inside raft_step */

static inline struct node *node_of(struct cluster *c, uint64_t id)
{
    return &c->nodes[id - 1];
}

static inline struct raft_member member(uint64_t id)
{
    struct raft_member m = {.id = id, .role = RAFT_VOTER};
    snprintf(m.raft_address, sizeof(m.raft_address), "host%d:8996", (int)id);
    snprintf(m.client_address, sizeof(m.client_address), "host%d:8995", (int)id);
    return m;
}

/* Bytes of configuration entries, shared by all stores of the one cluster there is. */
static uint8_t conf_arena[512][RAFT_CONF_ENCODED_MAX];
static uint32_t conf_arena_used;

static inline uint8_t *conf_bytes(void)
{
    ck_assert_uint_lt(conf_arena_used, array_size(conf_arena));
    return conf_arena[conf_arena_used++];
}

/* ---- Store ---- */

static inline void store_put_conf(struct store *s, uint64_t index, const struct raft_conf *conf)
{
    if (s->conf_count == array_size(s->confs)) {
        memmove(&s->confs[0], &s->confs[1], sizeof(s->confs) - sizeof(s->confs[0]));
        s->conf_count--;
    }
    s->confs[s->conf_count].index = index;
    s->confs[s->conf_count++].conf = *conf;
}

static inline void store_apply(struct store *s, const struct write_copy *wc)
{
    const struct raft_write *w = &wc->w;
    s->term = w->term;
    s->vote = w->vote;
    s->commit = w->commit;
    if (w->truncate_from) {
        s->last = min(s->last, w->truncate_from - 1);
        while (s->conf_count && s->confs[s->conf_count - 1].index >= w->truncate_from)
            s->conf_count--;
    }
    if (w->install.index) {
        s->first = w->install.index + 1;
        s->last = max(s->last, w->install.index);
        s->base_term = w->install.term;
        if (s->conf_count == 0 || s->confs[s->conf_count - 1].index < w->install.conf_index)
            store_put_conf(s, w->install.conf_index, &wc->install_conf);
    }
    for (uint32_t i = 0; i < w->count; i++) {
        uint64_t index = w->first + i;
        ck_assert_uint_eq(index, s->last + 1);
        ck_assert_uint_lt(index, LOG_MAX);
        s->log[index] = wc->entries[i];
        s->last = index;
        if (wc->entries[i].type == RAFT_CONF) {
            struct raft_conf conf;
            ck_assert_int_eq(raft_conf_decode(wc->entries[i].conf, wc->entries[i].size, &conf), 0);
            store_put_conf(s, index, &conf);
        }
    }
}

/* ---- Carrying out a step's output ---- */

static inline void note_committed(struct cluster *c, struct node *n)
{
    for (uint64_t i = n->applied + 1; i <= n->out.apply_to; i++) {
        if (i < n->cache->first)
            continue;
        struct stored *e = &n->cache->log[i];
        if (i <= c->committed_last && c->committed[i].term) {
            /* State machine safety (3.6.3): one entry per committed index, ever. */
            ck_assert_msg(c->committed[i].term == e->term && c->committed[i].value == e->value,
                          "node %d commits another entry at %d", (int)n->id, (int)i);
            continue;
        }
        c->committed[i] = *e;
        c->committed_last = max(c->committed_last, i);
    }
    n->applied = max(n->applied, n->out.apply_to);
}

static inline void fly(struct cluster *c, struct node *n, const struct raft_message *m)
{
    if (c->cut[m->from][m->to] || m->to > c->count)
        return;
    struct flying *f = calloc(1, sizeof(*f));
    f->m = *m;
    if (m->type == RAFT_MSG_APPEND) {
        f->bytes = calloc(RAFT_APPEND_ENTRIES_MAX, RAFT_CONF_ENCODED_MAX);
        for (uint32_t i = 0; i < m->append.count; i++) {
            uint64_t index = m->append.prev_index + 1 + i;
            if (index < n->cache->first || index > n->cache->last) {
                free(f->bytes);
                free(f);
                return;
            }
            struct stored *e = &n->cache->log[index];
            uint8_t *p = f->bytes + i * RAFT_CONF_ENCODED_MAX;
            memcpy(p, e->conf ?: (uint8_t *)&e->value, e->size);
            f->entries[i] = (struct raft_entry){.term = e->term, .type = e->type, .size = e->size, .data = p};
        }
        f->m.entries = f->entries;
        if (m->append.count && f->entries[m->append.count - 1].term != m->append.last_term) {
            free(f->bytes);
            free(f);
            return; /* changed since: as raft.h asks */
        }
    }
    ck_assert_uint_lt(c->flying_count, FLYING_MAX);
    c->flying[c->flying_count++] = f;
}

static inline struct raft_output *step(struct cluster *c, uint64_t id, struct raft_input in)
{
    struct node *n = node_of(c, id);
    ck_assert(n->r);
    in.now_ms = c->now_ms;
    counting_allocations = true;
    n->result = raft_step(n->r, &in, &n->out);
    counting_allocations = false;
    if (!c->expect_alarm)
        ck_assert_msg(n->result != -CV_LOG_DIVERGED, "node %d: %s", (int)id, raft_alarm(n->r));
    const struct raft_output *o = &n->out;
    if (o->role_changed && o->role == RAFT_LEADER)
        n->leader_times++;
    if (o->write.seq) {
        ck_assert_uint_lt(n->queued, WRITES_QUEUED_MAX);
        struct write_copy *w = &n->queue[n->queued++];
        w->w = o->write;
        if (w->w.install.index) {
            w->install_conf = *o->write.install.conf;
            n->applied = max(n->applied, w->w.install.index);
        }
        w->entries = calloc(o->write.count + 1, sizeof(*w->entries));
        for (uint32_t i = 0; i < o->write.count; i++) {
            const struct raft_entry *e = &o->write.entries[i];
            w->entries[i] = (struct stored){.term = e->term, .type = e->type, .size = e->size};
            if (e->type == RAFT_CONF) {
                w->entries[i].conf = conf_bytes();
                memcpy(w->entries[i].conf, e->data, e->size);
            } else if (e->size) {
                memcpy(&w->entries[i].value, e->data, min(e->size, (uint32_t)8));
            }
        }
        store_apply(n->cache, w);
    }
    if (n->result == -CV_LOG_DIVERGED)
        return &n->out;
    ck_assert_uint_eq(n->cache->last, o->last);
    note_committed(c, n);
    for (uint32_t i = 0; i < o->send_count; i++) {
        if (o->sends[i].after_seq) {
            ck_assert_uint_lt(n->held_count, HELD_MAX);
            n->held[n->held_count++] = o->sends[i];
        } else {
            fly(c, n, &o->sends[i].message);
        }
    }
    for (uint32_t i = 0; i < o->read_count; i++)
        if (n->read_count < array_size(n->reads))
            n->reads[n->read_count++] = o->reads[i];
    for (uint32_t i = 0; i < o->want_count; i++)
        n->wanted[o->wants[i].peer] = o->wants[i].min_index;
    if (o->offer.index)
        n->offer = o->offer;
    return &n->out;
}

/* ---- Disk, network, time ---- */

/* Sync the first count queued writes of a node. */
static inline void sync_disk(struct cluster *c, uint64_t id, uint32_t count)
{
    struct node *n = node_of(c, id);
    count = min(count, n->queued);
    if (!count)
        return;
    uint64_t seq = n->queue[count - 1].w.seq;
    for (uint32_t i = 0; i < count; i++) {
        store_apply(n->disk, &n->queue[i]);
        free(n->queue[i].entries);
    }
    n->queued -= count;
    memmove(n->queue, n->queue + count, n->queued * sizeof(n->queue[0]));
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->held_count; i++) {
        if (n->held[i].after_seq <= seq)
            fly(c, n, &n->held[i].message);
        else
            n->held[kept++] = n->held[i];
    }
    n->held_count = kept;
    step(c, id, (struct raft_input){.type = RAFT_IN_WRITTEN, .written.seq = seq});
}

/* Take message number i out of the air. */
static inline struct flying *catch_message(struct cluster *c, uint32_t i)
{
    struct flying *f = c->flying[i];
    c->flying_count--;
    memmove(&c->flying[i], &c->flying[i + 1], (c->flying_count - i) * sizeof(c->flying[0]));
    return f;
}

static inline void drop(struct flying *f)
{
    free(f->bytes);
    free(f);
}

static inline void deliver(struct cluster *c, struct flying *f)
{
    struct node *n = node_of(c, f->m.to);
    if (n->r && !c->cut[f->m.from][f->m.to]) {
        c->delivered++;
        /* Through the codec, as on a wire. */
        static uint8_t wire[RAFT_MESSAGE_FIXED_MAX + RAFT_APPEND_ENTRIES_MAX * (16 + RAFT_CONF_ENCODED_MAX)];
        size_t size = raft_message_encode(&f->m, wire);
        uint32_t entries = f->m.type == RAFT_MSG_APPEND ? f->m.append.count : 0;
        for (uint32_t i = 0; i < entries; i++, size += RAFT_ENTRY_HEADER_SIZE)
            raft_entry_header_encode(&f->entries[i], wire + size);
        for (uint32_t i = 0; i < entries; size += f->entries[i++].size)
            memcpy(wire + size, f->entries[i].data, f->entries[i].size);
        struct raft_entry decoded[RAFT_APPEND_ENTRIES_MAX];
        struct raft_message m;
        ck_assert_int_eq(raft_message_decode(wire, size, decoded, &m), 0);
        step(c, f->m.to, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &m});
    }
    drop(f);
}

/* Deliver and sync until nothing moves. */
static inline void settle(struct cluster *c)
{
    for (uint32_t turns = 0;; turns++) {
        ck_assert_msg(turns < 100000, "messages never end");
        bool moved = false;
        for (uint32_t i = 1; i <= c->count; i++)
            if (node_of(c, i)->r && node_of(c, i)->queued && !node_of(c, i)->disk_held) {
                sync_disk(c, i, UINT32_MAX);
                moved = true;
            }
        if (c->flying_count) {
            deliver(c, catch_message(c, 0));
            moved = true;
        }
        if (!moved)
            return;
    }
}

static inline void tick(struct cluster *c)
{
    c->now_ms += 10;
    for (uint32_t i = 1; i <= c->count; i++)
        if (node_of(c, i)->r)
            step(c, i, (struct raft_input){.type = RAFT_IN_TICK});
}

static inline void run_ms(struct cluster *c, uint64_t ms)
{
    for (uint64_t until = c->now_ms + ms; c->now_ms < until;) {
        tick(c);
        settle(c);
    }
}

static inline void cut(struct cluster *c, uint64_t a, uint64_t b)
{
    c->cut[a][b] = c->cut[b][a] = true;
}

static inline void isolate(struct cluster *c, uint64_t a, bool cut_off)
{
    for (uint32_t i = 1; i <= c->count; i++)
        c->cut[a][i] = c->cut[i][a] = cut_off;
}

static inline void heal(struct cluster *c)
{
    memset(c->cut, 0, sizeof(c->cut));
}

static inline void drop_all(struct cluster *c)
{
    while (c->flying_count)
        drop(catch_message(c, 0));
}

/* ---- Start, crash ---- */

static inline int try_boot(struct cluster *c, uint64_t id)
{
    struct node *n = node_of(c, id);
    struct store *s = n->disk;
    struct raft_run runs[LOG_MAX];
    struct raft_restart restart = {.now_ms = c->now_ms,
                                   .term = s->term,
                                   .vote = s->vote,
                                   .commit = s->commit,
                                   .first = s->first,
                                   .last = s->last,
                                   .base_term = s->base_term,
                                   .runs = runs};
    for (uint64_t i = s->first; i <= s->last; i++)
        if (i == s->first || s->log[i].term != s->log[i - 1].term)
            runs[restart.run_count++] = (struct raft_run){.first = i, .term = s->log[i].term};
    uint32_t from = s->conf_count > 2 ? s->conf_count - 2 : 0;
    for (uint32_t i = from; i < s->conf_count; i++) {
        restart.conf_index[restart.conf_count] = s->confs[i].index;
        restart.conf[restart.conf_count++] = &s->confs[i].conf;
    }
    n->options.id = id;
    n->options.seed++;
    return raft_new(&n->options, &restart, &n->r);
}

static inline void tell_app(struct cluster *c, uint64_t id)
{
    struct node *n = node_of(c, id);
    step(
        c, id,
        (struct raft_input){
            .type = RAFT_IN_APP,
            .app = {.applied = n->applied, .flushed = n->applied, .can_lead = n->can_lead, .reluctant = n->reluctant}});
}

static inline void boot(struct cluster *c, uint64_t id)
{
    struct node *n = node_of(c, id);
    ck_assert_int_eq(try_boot(c, id), 0);
    *n->cache = *n->disk;
    n->queued = n->held_count = 0;
    tell_app(c, id);
}

/* Lose what is not synced. */
static inline void crash(struct cluster *c, uint64_t id)
{
    struct node *n = node_of(c, id);
    n->r = raft_free(n->r);
    for (uint32_t i = 0; i < n->queued; i++)
        free(n->queue[i].entries);
    n->queued = n->held_count = n->read_count = 0;
    n->applied = min(n->applied, n->disk->last);
}

static inline void node_init(struct cluster *c, uint64_t id)
{
    struct node *n = node_of(c, id);
    n->id = id;
    n->can_lead = true;
    n->options.seed = id;
    n->disk = calloc(1, sizeof(*n->disk));
    n->cache = calloc(1, sizeof(*n->cache));
    n->disk->first = 1;
    c->count = max(c->count, (uint32_t)id);
}

/* Formatted with conf, not yet running. */
static inline void format_node(struct cluster *c, uint64_t id, const struct raft_conf *conf)
{
    node_init(c, id);
    struct store *s = node_of(c, id)->disk;
    s->term = 1;
    s->last = 1;
    s->log[1] = (struct stored){.term = 1, .type = RAFT_CONF, .conf = conf_bytes()};
    s->log[1].size = (uint32_t)raft_conf_encode(conf, s->log[1].conf);
    store_put_conf(s, 1, conf);
}

/* A node that waits to be added. */
static inline void join_node(struct cluster *c, uint64_t id)
{
    node_init(c, id);
    boot(c, id);
}

static inline void cluster_format(struct cluster *c, const struct raft_conf *conf)
{
    memset(c, 0, sizeof(*c));
    c->now_ms = 1000;
    c->next_value = 1;
    conf_arena_used = 0;
    for (uint32_t i = 0; i < conf->count; i++)
        format_node(c, conf->members[i].id, conf);
}

static inline struct raft_conf voters(uint32_t n)
{
    struct raft_conf conf = {0};
    for (uint32_t i = 1; i <= n; i++) {
        struct raft_member m = member(i);
        ck_assert_int_eq(raft_conf_put(&conf, &m), 0);
    }
    return conf;
}

static inline void cluster_start(struct cluster *c, uint32_t n)
{
    struct raft_conf conf = voters(n);
    cluster_format(c, &conf);
    for (uint32_t i = 1; i <= n; i++)
        boot(c, i);
}

static inline void cluster_stop(struct cluster *c)
{
    drop_all(c);
    for (uint32_t i = 1; i <= c->count; i++) {
        struct node *n = node_of(c, i);
        for (uint32_t k = 0; k < n->queued; k++)
            free(n->queue[k].entries);
        raft_free(n->r);
        free(n->disk);
        free(n->cache);
    }
}

/* ---- What tests do ---- */

static inline void force_campaign(struct cluster *c, uint64_t id)
{
    step(c, id, (struct raft_input){.type = RAFT_IN_CAMPAIGN, .campaign.force = true});
}

static inline void cluster_elect(struct cluster *c, uint64_t id)
{
    /* Somebody may be at a higher term, which the first attempt learns. */
    for (int i = 0; i < 3 && node_of(c, id)->out.role != RAFT_LEADER; i++) {
        force_campaign(c, id);
        settle(c);
    }
    ck_assert_int_eq(node_of(c, id)->out.role, RAFT_LEADER);
    run_ms(c, 60); /* a heartbeat tells what is committed */
}

/* One BATCH with a fresh value; its index, or 0 when refused (result tells why). */
static inline uint64_t propose(struct cluster *c, uint64_t id)
{
    uint64_t value = c->next_value++;
    struct raft_entry e = {.type = RAFT_BATCH, .size = 8, .data = (uint8_t *)&value};
    struct raft_output *o =
        step(c, id,
             (struct raft_input){.type = RAFT_IN_PROPOSE,
                                 .propose = {.term = node_of(c, id)->out.term, .entries = &e, .count = 1}});
    return o->proposed_first;
}

static inline int change_conf(struct cluster *c, uint64_t id, enum raft_conf_op op, struct raft_member m)
{
    struct raft_input in = {.type = RAFT_IN_CONF};
    in.conf.op = op;
    in.conf.member = m;
    step(c, id, in);
    return node_of(c, id)->result;
}

static inline uint64_t leader_of(struct cluster *c)
{
    uint64_t id = 0, term = 0;
    for (uint32_t i = 1; i <= c->count; i++) {
        struct node *n = node_of(c, i);
        if (n->r && n->out.role == RAFT_LEADER && n->out.term > term) {
            id = i;
            term = n->out.term;
        }
    }
    return id;
}

static inline struct raft_status status_of(struct cluster *c, uint64_t id)
{
    struct raft_status s;
    raft_status(node_of(c, id)->r, &s);
    return s;
}

/* A message as if from a peer, not delivered through the air. */
static inline void inject(struct cluster *c, struct raft_message m)
{
    step(c, m.to, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &m});
}

/* How many messages of a type are in the air from..to (0: any). */
static inline uint32_t flying_of(struct cluster *c, uint8_t type, uint64_t from, uint64_t to)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->flying_count; i++) {
        const struct raft_message *m = &c->flying[i]->m;
        n += m->type == type && (!from || m->from == from) && (!to || m->to == to);
    }
    return n;
}

/* Deliver the messages now in the air of one type (0: any) from..to (0: any); those they cause stay. */
static inline uint32_t deliver_of(struct cluster *c, uint8_t type, uint64_t from, uint64_t to)
{
    uint32_t n = 0, all = c->flying_count;
    for (uint32_t i = 0, k = 0; k < all; k++) {
        const struct raft_message *m = &c->flying[i]->m;
        if ((type && m->type != type) || (from && m->from != from) || (to && m->to != to)) {
            i++;
            continue;
        }
        deliver(c, catch_message(c, i));
        n++;
    }
    return n;
}

/* The last message of a type to somebody that the last step of a node asked for, or NULL. Valid until its next step. */
static inline const struct raft_send *sent(struct cluster *c, uint64_t id, uint8_t type, uint64_t to)
{
    const struct raft_output *o = &node_of(c, id)->out;
    for (uint32_t i = o->send_count; i > 0; i--)
        if (o->sends[i - 1].message.type == type && o->sends[i - 1].message.to == to)
            return &o->sends[i - 1];
    return NULL;
}

/* An APPEND from a leader that is not simulated: count entries of entry_term behind prev. */
static inline void inject_append(struct cluster *c, uint64_t from, uint64_t to, uint64_t term, uint64_t prev_index,
                                 uint64_t prev_term, uint64_t entry_term, uint32_t count, uint64_t commit)
{
    uint64_t values[RAFT_APPEND_ENTRIES_MAX];
    struct raft_entry e[RAFT_APPEND_ENTRIES_MAX];
    for (uint32_t i = 0; i < count; i++) {
        values[i] = entry_term * 1000 + prev_index + 1 + i;
        e[i] =
            (struct raft_entry){.term = entry_term, .type = RAFT_BATCH, .size = 8, .data = (const uint8_t *)&values[i]};
    }
    struct raft_message m = {.type = RAFT_MSG_APPEND, .from = from, .to = to, .term = term, .entries = e};
    m.append.prev_index = prev_index;
    m.append.prev_term = prev_term;
    m.append.count = count;
    m.append.last_term = count ? entry_term : prev_term;
    m.append.commit = commit;
    inject(c, m);
}

/* A three-voter cluster of which only node id runs; the test plays the others. */
static inline void cluster_one_of_three(struct cluster *c, uint64_t id)
{
    struct raft_conf conf = voters(3);
    cluster_format(c, &conf);
    boot(c, id);
}
