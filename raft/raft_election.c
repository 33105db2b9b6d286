/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elections (3.4), made rarer and calmer: a node first asks whether it could win (pre-vote, 9.6), and nobody votes
 * within T_min of hearing a leader (stickiness, 4.2.3), which is also what leases rest on (6.4.1). A vote counts when
 * it is on disk, our own too.
 */
#include "raft/raft_state.h"

#include <errno.h>

/* Uniform in [T_min, 2 T_min) (3.9); twice that for journal-only voters: they win only when nobody else can. */
void raft_reset_timeout(struct raft *r)
{
    uint32_t ms = r->options.election_ms + prng_below(&r->prng, r->options.election_ms);
    const struct raft_member *self = raft_self(r);
    if (self && self->journal_only)
        ms *= 2;
    r->election_ms = r->now_ms + ms;
    r->waited_extra = false;
}

bool raft_is_sticky(const struct raft *r)
{
    /* A leader that lost its majority has stepped down: see raft_leader_tick(). */
    return r->role == RAFT_LEADER || r->now_ms < r->sticky_ms;
}

/* Is a candidate's log at least as up to date as ours (3.6.1)? */
static bool is_up_to_date(const struct raft *r, uint64_t last_index, uint64_t last_term)
{
    uint64_t own_term = raft_log_last_term(&r->log);
    if (MUTANT(vote_ignores_last_term))
        return last_index >= r->log.last;
    return last_term > own_term || (last_term == own_term && last_index >= r->log.last);
}

/* Votes so far against the voters of the configuration in force. */
static bool has_majority(const struct raft *r, uint32_t votes)
{
    const struct raft_conf *conf = raft_conf_current(r);
    uint32_t voters = 0, yes = 0;
    for (uint32_t i = 0; i < conf->count; i++) {
        if (!raft_votes(&conf->members[i]))
            continue;
        voters++;
        yes += votes >> i & 1;
    }
    return 2 * yes > voters;
}

static uint32_t vote_bit(const struct raft *r, uint64_t id)
{
    const struct raft_conf *conf = raft_conf_current(r);
    const struct raft_member *m = raft_conf_find(conf, id);
    return m ? 1u << (m - conf->members) : 0;
}

void raft_campaign(struct raft *r, bool transfer)
{
    if (raft_log_writes_left(&r->log) < 1)
        return; /* the disk stands still: no leader may start here; again after the next timeout */
    raft_set_term(r, r->term + 1);
    raft_set_vote(r, r->options.id);
    r->role = RAFT_CANDIDATE;
    raft_reset_timeout(r);
    r->own_vote_seq = r->log.queued_seq + 1; /* this step's write */
    r->votes = 0;
    const struct raft_conf *conf = raft_conf_current(r);
    for (uint32_t i = 0; i < conf->count; i++) {
        if (!raft_votes(&conf->members[i]) || conf->members[i].id == r->options.id)
            continue;
        struct raft_message *m = raft_send_new(r, RAFT_MSG_VOTE, conf->members[i].id, RAFT_GATE_ALL);
        m->vote.last_index = r->log.last;
        m->vote.last_term = raft_log_last_term(&r->log);
        m->vote.transfer = transfer;
    }
}

static void ask_first(struct raft *r)
{
    r->role = RAFT_PRECANDIDATE;
    r->leader = 0;
    raft_reset_timeout(r);
    r->votes = vote_bit(r, r->options.id);
    if (has_majority(r, r->votes)) {
        raft_campaign(r, false);
        return;
    }
    const struct raft_conf *conf = raft_conf_current(r);
    for (uint32_t i = 0; i < conf->count; i++) {
        if (!raft_votes(&conf->members[i]) || conf->members[i].id == r->options.id)
            continue;
        struct raft_message *m = raft_send_new(r, RAFT_MSG_PREVOTE, conf->members[i].id, RAFT_GATE_TERM);
        m->prevote.next_term = r->term + 1;
        m->prevote.last_index = r->log.last;
        m->prevote.last_term = raft_log_last_term(&r->log);
    }
}

/* Learners and removed nodes do not campaign, but who was a voter goes on until its removal is committed: the others
 * may need it to get there (4.2.2). A node whose state is being replaced waits. */
static bool may_campaign(const struct raft *r)
{
    if (r->receiving_index)
        return false;
    if (raft_is_voter(r))
        return true;
    if (r->conf_count < 2 || r->confs[1].index <= r->commit || MUTANT(removed_voter_rests))
        return false;
    const struct raft_member *was = raft_conf_find(&r->confs[0].conf, r->options.id);
    return was && raft_votes(was);
}

void raft_election_tick(struct raft *r)
{
    if (!may_campaign(r))
        return;
    const struct raft_conf *conf = raft_conf_current(r);
    const struct raft_member *self = raft_self(r);
    bool alone = raft_is_voter(r) && raft_conf_voters(conf) == 1;
    if (alone && r->role == RAFT_CANDIDATE)
        return; /* our vote is on its way to the disk */
    if (!alone && r->now_ms < r->election_ms)
        return;
    if (!alone && !(self && self->journal_only) && (!r->can_lead || r->reluctant) && !r->waited_extra) {
        /* Let somebody whose application is able and willing go first, but never forbid it: we may hold the only copy. */
        r->election_ms = r->now_ms + r->options.election_ms;
        r->waited_extra = true;
        return;
    }
    /* One voter is its own majority: nobody else can hold a lease that a vote of ours would break. */
    ask_first(r);
}

bool raft_has_won(const struct raft *r)
{
    uint32_t votes = r->votes;
    /* Messages wait for the disk before they leave; so does our own vote before it counts (3.8). */
    if (r->log.written_seq >= r->own_vote_seq)
        votes |= vote_bit(r, r->options.id);
    return has_majority(r, votes);
}

void raft_on_prevote(struct raft *r, const struct raft_message *m)
{
    struct raft_message *reply = raft_send_new(r, RAFT_MSG_PREVOTE_REPLY, m->from, RAFT_GATE_TERM);
    reply->prevote_reply.next_term = m->prevote.next_term;
    reply->prevote_reply.granted = m->prevote.next_term > r->term && !raft_is_sticky(r) &&
                                   is_up_to_date(r, m->prevote.last_index, m->prevote.last_term);
}

void raft_on_prevote_reply(struct raft *r, const struct raft_message *m)
{
    if (r->role != RAFT_PRECANDIDATE || m->prevote_reply.next_term != r->term + 1)
        return;
    r->votes |= vote_bit(r, m->from);
    if (has_majority(r, r->votes))
        raft_campaign(r, false);
}

void raft_on_vote(struct raft *r, const struct raft_message *m)
{
    struct raft_message *reply = raft_send_new(r, RAFT_MSG_VOTE_REPLY, m->from, RAFT_GATE_ALL);
    bool free = r->vote == 0 || r->vote == m->from;
    if (!free || r->role == RAFT_LEADER || r->leader || !is_up_to_date(r, m->vote.last_index, m->vote.last_term))
        return;
    raft_set_vote(r, m->from);
    raft_reset_timeout(r);
    reply->vote_reply.granted = 1;
}

void raft_on_vote_reply(struct raft *r, const struct raft_message *m)
{
    if (r->role == RAFT_CANDIDATE && m->vote_reply.granted)
        r->votes |= vote_bit(r, m->from);
}

void raft_on_timeout_now(struct raft *r, const struct raft_message *m)
{
    if (may_campaign(r) && r->log.last >= m->timeout_now.last_index)
        raft_campaign(r, true);
}

int raft_on_campaign(struct raft *r, bool force)
{
    if (!may_campaign(r) || r->role == RAFT_LEADER)
        return -EINVAL;
    r->waited_extra = true;
    r->election_ms = force ? r->now_ms : max(r->now_ms, r->sticky_ms);
    if (force)
        raft_campaign(r, true);
    return 0;
}
