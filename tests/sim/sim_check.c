/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of logs, roles and promises (raft.md 9.2, numbers in comments). The state and the clients: sim_check_app.c.
 */
#include "sim_check.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "sim_nemesis.h"
#include "sim_net.h"
#include "sim_node.h"
#include "sim_space.h"

typedef unsigned long long ull; /* for printing */

struct check *check_new(void)
{
    struct check *c = calloc(1, sizeof(*c));
    if (!c)
        abort();
    return c;
}

struct check *check_free(struct check *c)
{
    if (!c)
        return NULL;
    free(c->at);
    free(c->leaders);
    free(c->versions);
    free(c->ids);
    space_free(c->space);
    free(c->space_ids);
    free(c);
    return NULL;
}

static void *grow(void *p, uint64_t *room, uint64_t need, size_t size)
{
    if (need < *room)
        return p;
    uint64_t more = max(2 * *room, need + 1024);
    p = realloc(p, more * size);
    if (!p)
        abort();
    memset((char *)p + *room * size, 0, (more - *room) * size);
    *room = more;
    return p;
}

void check_reset(struct world *w)
{
    struct check *c = w->check;
    if (c->at)
        memset(c->at, 0, (c->highest + 1) * sizeof(c->at[0]));
    if (c->leaders)
        memset(c->leaders, 0, (c->highest_term + 1) * sizeof(c->leaders[0]));
    if (c->ids)
        memset(c->ids, 0, c->id_count * sizeof(c->ids[0]));
    c->highest = c->highest_term = c->id_count = 0;
    c->commit = c->newest_committer = 0;
    memset(&c->state, 0, sizeof(c->state));
    c->conf = NULL;
    c->forced = 0;
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++)
        c->nodes[i].vote_count = c->nodes[i].life = 0;
    memset(c->version_index, 0, sizeof(c->version_index));
    c->version_count = 1;
    c->space = space_free(c->space);
    memset(c->space_sessions, 0, sizeof(c->space_sessions));
    c->space_count = 0;
    if (c->space_ids)
        memset(c->space_ids, 0, c->space_id_end);
    c->space_id_end = 0;
    c->small_units.free = c->big_units.free = NULL;
    c->at = grow(c->at, &c->room, 1, sizeof(c->at[0]));
    c->at[0].digest = state_digest(&c->state);
}

/* ---- Entries (4) ---- */

uint64_t check_chain(uint64_t before, uint64_t term, uint8_t type, const uint8_t *data, uint32_t size)
{
    uint64_t seed = before ^ hash_u64(term << 8 | type);
    return hash_bytes(seed, size ? data : (const uint8_t *)"", size);
}

struct sim_entry *check_find(struct world *w, uint64_t index, uint64_t term)
{
    struct check *c = w->check;
    struct sim_entry *e = index < c->room ? c->at[index].entries : NULL;
    while (e && e->term != term)
        e = e->next;
    return e;
}

static struct sim_entry *entry_new(struct node *n, uint64_t index, const struct raft_entry *from, uint64_t chain)
{
    struct world *w = n->world;
    struct check *c = w->check;
    struct sim_entry *e = sim_alloc(&w->arena, sizeof(*e));
    uint8_t *data = from->size ? sim_alloc(&w->arena, from->size) : NULL;
    if (from->size)
        memcpy(data, from->data, from->size);
    *e = (struct sim_entry){
        .index = index,
        .term = from->term,
        .chain = chain,
        .data = data,
        .size = from->size,
        .type = from->type,
        .maker = (uint8_t)n->slot,
        .next = c->at[index].entries,
    };
    if (e->type == RAFT_CONF) {
        struct raft_conf *conf = sim_alloc(&w->arena, sizeof(*conf));
        int r = raft_conf_decode(data, e->size, conf);
        if (r < 0)
            fail_harm(w, "conf", "n%u made a configuration nobody can read: %s", n->slot, cv_error_name(r));
        e->conf = conf;
    }
    c->at[index].entries = e;
    return e;
}

struct sim_entry *check_entry(struct node *n, struct sim_entry *before, uint64_t index, const struct raft_entry *e,
                              bool maker)
{
    struct world *w = n->world;
    struct check *c = w->check;
    if (!before && index > 1)
        fail_harm(w, "log_hole", "n%u appends entry %llu behind nothing", n->slot, (ull)index);
    c->at = grow(c->at, &c->room, index, sizeof(c->at[0]));
    c->highest = max(c->highest, index);
    uint64_t chain = check_chain(before ? before->chain : 0, e->term, e->type, e->data, e->size);
    struct sim_entry *known = check_find(w, index, e->term);
    if (known && known->chain != chain)
        fail_harm(w, "log_matching", "entry %llu of term %llu is two things: at n%u, and as made by n%u", (ull)index,
                  (ull)e->term, n->slot, known->maker);
    if (known)
        return known;
    if (!maker)
        fail_harm(w, "log_invented", "n%u has an entry %llu of term %llu that no leader made", n->slot, (ull)index,
                  (ull)e->term);
    return entry_new(n, index, e, chain);
}

/* ---- Writes (7, 10, 13, 21) ---- */

static bool is_committed(const struct check *c, const struct sim_entry *e)
{
    return e && e->index <= c->commit && c->at[e->index].committed == e;
}

static void check_truncation(struct node *n, const struct raft_write *write)
{
    struct world *w = n->world;
    const struct sim_entry *e = image_entry(&n->disk.live, write->truncate_from);
    w->counters.truncations++;
    /* Committed in this term or an earlier one: then this term's leader has it. (A leader of an older term may replace
     * it on a node that was not needed for the majority.) */
    if (is_committed(w->check, e) && w->check->at[e->index].committer <= write->term)
        fail_harm(w, "committed_removed", "n%u removes the committed entry %llu", n->slot, (ull)e->index);
    if (n->out.role == RAFT_LEADER && n->out.term == write->term)
        fail_rule(w, "leader_truncates", "n%u leads term %llu and cuts its own log", n->slot, (ull)write->term);
    if (e && e->index == write->truncate_from && e->term == write->term)
        fail_rule(w, "own_term_truncated", "n%u removes entry %llu of the present term: its leader never wrote another",
                  n->slot, (ull)e->index);
}

/* Of an entry this leader just made. */
static void check_made(struct node *n, const struct raft_write *write, const struct raft_entry *e)
{
    struct world *w = n->world;
    if (e->type == RAFT_CONF) {
        w->counters.conf_changes++;
        const struct sim_entry *committed = image_entry(&n->disk.live, n->out.commit);
        if (write->first > 1 && (!committed || committed->term != write->term))
            fail_rule(w, "conf_too_early", "n%u changes the members before an entry of its term %llu is committed",
                      n->slot, (ull)write->term);
        nemesis_on_conf(n);
    }
    if (e->type != RAFT_BATCH && e->type != RAFT_ID_LEASE)
        return;
    uint64_t executed;
    memcpy(&executed, e->data, sizeof(executed)); /* both kinds begin with it */
    if (executed != e->term)
        fail_rule(w, "stale_proposal", "n%u appends in term %llu what was executed in term %llu", n->slot, (ull)e->term,
                  (ull)executed);
    if (n->journal_only)
        fail_rule(w, "journal_only_proposes", "n%u is journal-only and took a proposal", n->slot);
}

void check_write(struct node *n, const struct raft_write *write)
{
    struct world *w = n->world;
    struct check *c = w->check;
    if (write->truncate_from) {
        check_truncation(n, write);
        check_cut(n, write->truncate_from);
    }
    if (write->install.index) {
        check_cut(n, 1);
        const struct sim_entry *e = check_find(w, write->install.index, write->install.term);
        if (!is_committed(c, e))
            fail_harm(w, "snapshot_uncommitted", "n%u installs a snapshot of (%llu, %llu), which is not committed",
                      n->slot, (ull)write->install.index, (ull)write->install.term);
    }
    for (uint32_t i = 0; i < write->count; i++)
        if (!check_find(w, write->first + i, write->entries[i].term))
            check_made(n, write, &write->entries[i]);
}

/* ---- Roles (1, 5) ---- */

static void check_leader(struct node *n, const struct raft_output *out)
{
    struct world *w = n->world;
    struct check *c = w->check;
    c->leaders = grow(c->leaders, &c->leaders_room, out->term, sizeof(c->leaders[0]));
    c->highest_term = max(c->highest_term, out->term);
    uint64_t *leader = &c->leaders[out->term];
    if (*leader == n->id)
        return;
    if (*leader)
        fail_harm(w, "two_leaders", "n%u and n%u both lead term %llu", n->slot, node_by_id(w, *leader)->slot,
                  (ull)out->term);
    *leader = n->id;
    w->counters.elections++;
    /* Everything a leader of an earlier term committed. */
    uint64_t i = c->commit;
    while (i > 0 && c->at[i].committer >= out->term)
        i--;
    const struct sim_entry *e = image_entry(&n->disk.live, i);
    if (i > 0 && i + 1 >= n->disk.live.first && e != c->at[i].committed)
        fail_harm(w, "leader_incomplete", "n%u leads term %llu without entry %llu, committed in term %llu", n->slot,
                  (ull)out->term, (ull)i, (ull)c->at[i].committer);
}

/* ---- Commit (6, 8, 10, 11) ---- */

static void check_majority(struct node *n, uint64_t index)
{
    struct world *w = n->world;
    const struct sim_entry *e = image_entry(&n->disk.live, index);
    const struct sim_entry *conf = image_conf(&n->disk.live, n->disk.live.last);
    uint32_t voters = 0, have = 0;
    for (uint32_t i = 0; i < conf->conf->count; i++) {
        const struct raft_member *m = &conf->conf->members[i];
        if (m->role != RAFT_VOTER)
            continue;
        const struct disk_image *d = &node_by_id(w, m->id)->disk.durable;
        const struct sim_entry *there = image_entry(d, index);
        voters++;
        /* By chain: a bit of it may have flipped since, on a machine that is lost now. */
        have += (there && there->index == index && there->chain == e->chain) || d->first > index + 1;
    }
    if (2 * have <= voters)
        fail_rule(w, "commit_not_durable", "n%u commits entry %llu, which %u of %u voters have on disk", n->slot,
                  (ull)index, have, voters);
}

static uint32_t voters_apart(const struct raft_conf *a, const struct raft_conf *b)
{
    uint32_t apart = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct raft_member *m = raft_conf_find(b, a->members[i].id);
        apart += a->members[i].role == RAFT_VOTER && !(m && m->role == RAFT_VOTER);
    }
    return apart;
}

static void commit_entry(struct node *n, struct sim_entry *e, uint64_t term)
{
    struct world *w = n->world;
    struct check *c = w->check;
    struct check_index *at = &c->at[e->index];
    at->committed = e;
    at->committer = term;
    c->commit = e->index;
    c->newest_committer = max(c->newest_committer, term);
    w->counters.commits++;
    if (e->type == RAFT_CONF) {
        if (c->conf && e->index != c->forced &&
            voters_apart(c->conf->conf, e->conf) + voters_apart(e->conf, c->conf->conf) > 1)
            fail_harm(w, "conf_jump", "committed configurations %llu and %llu differ by more than one voter",
                      (ull)c->conf->index, (ull)e->index);
        c->conf = e;
    }
    check_fold(w, e);
    at->digest = state_digest(&c->state);
}

/* Nobody may still think to be the only leader (11). */
static void check_lease(struct node *n, uint64_t committer)
{
    struct world *w = n->world;
    if (n->up && n->out.role == RAFT_LEADER && n->out.term < committer && n->out.lease_until_ms > node_now_ms(n))
        fail_harm(w, "lease", "n%u has a lease in term %llu for %llu ms more, but term %llu has committed", n->slot,
                  (ull)n->out.term, (ull)(n->out.lease_until_ms - node_now_ms(n)), (ull)committer);
}

static void commit_to(struct node *n, const struct raft_output *out)
{
    struct world *w = n->world;
    struct check *c = w->check;
    const struct disk_image *live = &n->disk.live;
    /* A leader that commits its own removal follows at the end of the same step. */
    if (out->role != RAFT_LEADER && !(n->out.role == RAFT_LEADER && n->out.term == out->term))
        fail_harm(w, "commit_by_follower", "n%u commits up to %llu, its leaders only to %llu", n->slot,
                  (ull)out->commit, (ull)c->commit);
    const struct sim_entry *last = image_entry(live, out->commit);
    if (last->term != out->term)
        fail_rule(w, "commit_of_old_term", "n%u in term %llu commits entry %llu of term %llu by counting", n->slot,
                  (ull)out->term, (ull)out->commit, (ull)last->term);
    check_majority(n, out->commit);
    while (c->commit < out->commit)
        commit_entry(n, live->entries[c->commit + 1], out->term);
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *other = w->nodes[i];
        if (other == n || !node_leads(other))
            continue;
        check_lease(other, out->term);
        bool later = other->out.term > out->term && out->commit + 1 >= other->disk.live.first;
        if (later && image_entry(&other->disk.live, out->commit) != last)
            fail_harm(w, "leader_incomplete", "n%u leads term %llu without entry %llu, committed in term %llu",
                      other->slot, (ull)other->out.term, (ull)out->commit, (ull)out->term);
    }
}

/* The core and the log must agree on which configuration is in force. */
static void check_conf_in_force(struct node *n)
{
    struct world *w = n->world;
    uint64_t index = 0;
    const struct raft_conf *conf = raft_conf_newest(n->raft, &index);
    const struct sim_entry *e = image_conf(&n->disk.live, n->disk.live.last);
    if ((conf != NULL) != (e != NULL) || (e && e->index != index))
        fail_rule(w, "conf_in_force", "n%u goes by configuration %llu, its log's newest is %llu", n->slot, (ull)index,
                  (ull)(e ? e->index : 0));
}

void check_step(struct node *n, const struct raft_output *out)
{
    struct world *w = n->world;
    struct check *c = w->check;
    struct check_node *cn = &c->nodes[n->slot];
    if (cn->life != n->life) {
        cn->life = n->life;
        cn->term = cn->commit = 0;
    }
    if (out->term < cn->term || out->commit < cn->commit)
        fail_harm(w, "backwards", "n%u goes back: term %llu to %llu, commit %llu to %llu", n->slot, (ull)cn->term,
                  (ull)out->term, (ull)cn->commit, (ull)out->commit);
    cn->term = out->term;
    if (out->role == RAFT_LEADER)
        check_leader(n, out);
    if (out->write.seq && (out->write.count || out->write.truncate_from || out->write.install.index))
        check_conf_in_force(n);
    if (out->role == RAFT_LEADER && out->lease_until_ms > node_now_ms(n) && out->term < c->newest_committer)
        fail_harm(w, "lease", "n%u has a lease in term %llu, but term %llu has committed", n->slot, (ull)out->term,
                  (ull)c->newest_committer);
    if (out->commit == cn->commit)
        return;
    cn->commit = out->commit;
    if (out->commit > n->disk.live.last)
        fail_harm(w, "commit_beyond_log", "n%u commits %llu, its log ends at %llu", n->slot, (ull)out->commit,
                  (ull)n->disk.live.last);
    if (out->commit > c->commit)
        commit_to(n, out);
    const struct sim_entry *e = image_entry(&n->disk.live, out->commit);
    if (e && e != c->at[out->commit].committed)
        fail_harm(w, "state_machine", "n%u commits another entry %llu (term %llu) than was committed (term %llu)",
                  n->slot, (ull)out->commit, (ull)e->term, (ull)c->at[out->commit].committed->term);
}

/* ---- Leading ---- */

/* A leader nobody answers keeps its clients waiting for ever. Any message counts here, so this is generous. */
static void check_heard(struct node *n)
{
    struct world *w = n->world;
    const struct sim_entry *conf = image_conf(&n->disk.live, n->disk.live.last);
    uint64_t limit_us = (uint64_t)w->params.election_ms * SIM_MS * 25 / 10;
    uint32_t voters = 0, heard = 0;
    if (n->clock_rate == 0 || w->now_us - max(n->led_us, n->paused_until_us) < limit_us)
        return;
    for (uint32_t i = 0; i < conf->conf->count; i++) {
        const struct raft_member *m = &conf->conf->members[i];
        if (m->role != RAFT_VOTER)
            continue;
        voters++;
        heard += m->id == n->id || w->now_us - n->heard_us[node_by_id(w, m->id)->slot] < limit_us;
    }
    if (2 * heard <= voters)
        fail_harm(w, "leads_alone", "n%u leads term %llu and hears %u of %u voters", n->slot, (ull)n->out.term, heard,
                  voters);
}

void check_tick(struct node *n)
{
    struct world *w = n->world;
    if (n->out.role != RAFT_LEADER)
        return;
    if (!w->params.faults[FAULT_clock_suspend])
        check_heard(n);
    if (!n->journal_only)
        return;
    struct raft_entry e = {.type = RAFT_BARRIER};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.term = n->out.term;
    in.propose.entries = &e;
    in.propose.count = 1;
    int r = node_step(n, &in);
    if (r != -CV_NOT_LEADER)
        fail_harm(w, "journal_only_proposes", "n%u is journal-only, and a proposal gets %s", n->slot,
                  r ? cv_error_name(r) : "appended");
}

/* ---- Messages (2, 9) ---- */

static void check_vote(struct node *n, uint64_t term, uint64_t candidate)
{
    struct world *w = n->world;
    struct check_node *cn = &w->check->nodes[n->slot];
    for (uint32_t i = 0; i < min(cn->vote_count, (uint32_t)CHECK_VOTES); i++) {
        const struct check_vote *v = &cn->votes[i];
        if (v->term == term && v->candidate != candidate)
            fail_harm(w, "second_vote", "n%u votes for n%u and for n%u in term %llu", n->slot,
                      node_by_id(w, v->candidate)->slot, node_by_id(w, candidate)->slot, (ull)term);
        if (v->term == term)
            return;
    }
    cn->votes[cn->vote_count++ % CHECK_VOTES] = (struct check_vote){term, candidate};
}

void check_release(struct node *n, const struct sim_message *s)
{
    struct world *w = n->world;
    const struct raft_message *m = &s->m;
    const struct disk_image *d = &n->disk.durable;
    if (m->term > d->term)
        fail_rule(w, "term_not_durable", "n%u sends %s of term %llu, its disk knows only term %llu", n->slot,
                  raft_message_name(m->type), (ull)m->term, (ull)d->term);
    uint64_t candidate = m->type == RAFT_MSG_VOTE                                  ? n->id
                         : m->type == RAFT_MSG_VOTE_REPLY && m->vote_reply.granted ? m->to
                                                                                   : 0;
    if (candidate) {
        check_vote(n, m->term, candidate);
        if (d->term == m->term && d->vote != candidate)
            fail_rule(w, "vote_not_durable", "n%u sends a vote of term %llu that is not on its disk", n->slot,
                      (ull)m->term);
    }
    if (m->type != RAFT_MSG_APPEND_REPLY || m->append_reply.rejected || d->term > m->term)
        return;
    const struct sim_entry *e = image_entry(d, m->append_reply.index);
    bool covered = m->append_reply.index + 1 < d->first;
    if (!covered && s->chain && (!e || e->chain != s->chain))
        fail_rule(w, "ack_not_durable", "n%u acknowledges entry %llu, which is not on its disk", n->slot,
                  (ull)m->append_reply.index);
}

/* ---- Compaction (14) ---- */

void check_compact(struct node *n, uint64_t first)
{
    struct world *w = n->world;
    if (first > w->check->commit + 1)
        fail_harm(w, "compaction", "n%u compacts to %llu, committed is %llu", n->slot, (ull)first,
                  (ull)w->check->commit);
    /* Who needs what goes must be able to get it as a snapshot. */
    uint64_t best = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct state *s = w->nodes[i]->disk.durable.flushed;
        if (!w->nodes[i]->dead && s)
            best = max(best, s->applied);
    }
    if (best + 1 < first)
        fail_harm(w, "compaction", "n%u compacts to %llu, the newest state on any disk is at %llu", n->slot, (ull)first,
                  (ull)best);
}
