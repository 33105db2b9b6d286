/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds of heartbeats, and what a majority's answers to a round mean (6.2, 6.4): the leader goes on leading, reads
 * that arrived before the round began are linearizable, and, because nobody who answered votes within T_min of it,
 * no other leader exists until T_min after the round was sent: the lease (6.4.1), less the clocks' drift.
 */
#include "raft/raft_state.h"

#include <errno.h>

/* ---- Rounds ---- */

void raft_heartbeat_send(struct raft *r, const struct raft_peer *p)
{
    struct raft_message *m = raft_send_new(r, RAFT_MSG_HEARTBEAT, p->id, RAFT_GATE_NONE);
    m->heartbeat.round = r->round;
    m->heartbeat.commit = min(r->commit, p->match);
    m->heartbeat.floor = r->floor;
}

void raft_round_begin(struct raft *r)
{
    r->round++;
    r->round_ms[r->round % RAFT_ROUNDS_MAX] = r->now_ms;
    r->heartbeat_ms = r->now_ms + r->options.heartbeat_ms;
    raft_compact_floor(r);
    for (uint32_t i = 0; i < r->peer_count; i++)
        raft_heartbeat_send(r, &r->peers[i]);
}

static const struct raft_peer *peer_of(const struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i].id == id)
            return &r->peers[i];
    return NULL;
}

uint64_t raft_round_confirmed(const struct raft *r)
{
    const struct raft_conf *conf = raft_conf_current(r);
    uint64_t rounds[RAFT_MEMBERS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < conf->count; i++) {
        if (!raft_votes(&conf->members[i]))
            continue;
        const struct raft_peer *p = peer_of(r, conf->members[i].id);
        uint64_t round = p ? p->acked_round : r->round; /* who is no peer is us */
        uint32_t at = n++;
        for (; at > 0 && rounds[at - 1] < round; at--)
            rounds[at] = rounds[at - 1];
        rounds[at] = round;
    }
    return n ? rounds[n / 2] : 0;
}

uint64_t raft_lease_until(const struct raft *r)
{
    /* Not without a vote of our own: the configuration that removes us may already elect without us. Not after a
     * transfer began: a delayed TIMEOUT_NOW makes voters break their promise at any time in this term. */
    if (r->role != RAFT_LEADER || r->options.no_lease || !raft_is_voter(r) ||
        (r->lease_lost && !MUTANT(lease_survives_transfer)))
        return 0;
    uint64_t round = raft_round_confirmed(r);
    if (round == 0 || r->round - round >= RAFT_ROUNDS_MAX)
        return 0;
    uint64_t sent_ms = MUTANT(lease_from_reply) ? r->now_ms : r->round_ms[round % RAFT_ROUNDS_MAX];
    return sent_ms + (uint64_t)r->options.election_ms * (100 - r->options.drift_percent) / 100;
}

bool raft_quorum_heard(const struct raft *r, const struct raft_conf *conf, bool grace)
{
    uint32_t voters = 0, heard = 0;
    for (uint32_t i = 0; i < conf->count; i++) {
        if (!raft_votes(&conf->members[i]))
            continue;
        voters++;
        if (conf->members[i].id == r->options.id) {
            heard++;
            continue;
        }
        const struct raft_peer *p = peer_of(r, conf->members[i].id);
        uint64_t at = p ? p->heard_ms : 0;
        if (grace)
            at = max(at, r->start_ms);
        heard += at && r->now_ms - at < r->options.election_ms;
    }
    return 2 * heard > voters;
}

void raft_leader_tick(struct raft *r)
{
    /* A leader cut off from its majority must not keep clients waiting, nor refuse votes for ever (6.2). */
    if (!raft_quorum_heard(r, raft_conf_current(r), true) && !MUTANT(no_quorum_check)) {
        raft_follow(r, 0);
        return;
    }
    for (uint32_t i = 0; i < r->peer_count; i++) {
        struct raft_peer *p = &r->peers[i];
        /* A round lasted too long: not while it is under way; and who has it all is near, also where nothing is appended
         * that a shorter round could be measured by. */
        if (r->now_ms - p->target_ms >= r->options.election_ms && p->match < p->target)
            p->caught_up = false;
        else if (r->now_ms - p->target_ms >= r->options.election_ms && p->match == r->log.last)
            p->caught_up = true;
    }
    if (r->now_ms >= r->heartbeat_ms) {
        if (r->peer_count && r->peers[r->peer_count - 1].leaving_ms)
            raft_peers_sync(r);
        raft_round_begin(r);
    }
    raft_transfer_tick(r);
}

void raft_on_heartbeat(struct raft *r, const struct raft_message *m)
{
    r->floor = max(r->floor, m->heartbeat.floor);
    /* The leader says we acknowledged this much, in this term. */
    if (m->heartbeat.commit > r->log.last) {
        raft_alarm_raise(r, RAFT_ALARM_COMMIT_MISSING);
        return;
    }
    /* After a restart we do not know yet that our log is the leader's up to there: its next entries tell. */
    uint64_t commit = min(m->heartbeat.commit, r->accepted);
    if (commit > r->commit)
        raft_set_commit(r, commit);
    struct raft_message *reply = raft_send_new(r, RAFT_MSG_HEARTBEAT_REPLY, m->from, RAFT_GATE_TERM);
    reply->heartbeat_reply.round = m->heartbeat.round;
    reply->heartbeat_reply.accepted = r->accepted;
    reply->heartbeat_reply.match = min(r->accepted, r->log.durable);
    reply->heartbeat_reply.flushed = r->flushed;
    reply->heartbeat_reply.flags = (r->can_lead ? RAFT_HEARTBEAT_CAN_LEAD : 0) |
                                   (r->reluctant ? RAFT_HEARTBEAT_RELUCTANT : 0) |
                                   (r->log_full ? RAFT_HEARTBEAT_LOG_FULL : 0);
}

/* What its log holds of ours tells whether messages were lost. */
static void notice_loss(struct raft *r, struct raft_peer *p, uint64_t accepted)
{
    if (accepted > p->accepted)
        p->moved_ms = r->now_ms;
    p->accepted = accepted;
    bool stands = r->now_ms - p->moved_ms >= raft_resend_ms(r);
    switch (p->state) {
    case RAFT_PROBE:
        if (accepted && accepted + 1 >= p->next)
            raft_peer_replicate(r, p, accepted + 1);
        else if (stands)
            p->probing = false;
        break;
    case RAFT_REPLICATE:
        if (accepted + 1 >= p->next || !stands)
            break;
        raft_peer_slow(p);
        if (accepted && accepted >= p->match)
            raft_peer_replicate(r, p, accepted + 1);
        else /* it restarted, and does not know yet that what it has is ours */
            raft_peer_probe(p, p->match + 1);
        break;
    case RAFT_SNAPSHOT:
        if (accepted && accepted + 1 >= r->log.first)
            raft_peer_replicate(r, p, accepted + 1);
        else if (p->snapshot_index && r->now_ms - p->offered_ms >= r->options.election_ms)
            raft_snapshot_offer(r, p);
        break;
    }
}

void raft_on_heartbeat_reply(struct raft *r, struct raft_peer *p, const struct raft_message *m)
{
    const __typeof__(m->heartbeat_reply) *h = &m->heartbeat_reply;
    if (h->accepted > r->log.last || h->match > h->accepted) {
        raft_alarm_raise(r, RAFT_ALARM_ACK_BEYOND_LOG);
        return;
    }
    if (h->round <= p->acked_round)
        return; /* late: nothing here is newer */
    p->acked_round = min(h->round, r->round);
    p->flushed = h->flushed;
    p->can_lead = h->flags & RAFT_HEARTBEAT_CAN_LEAD;
    p->reluctant = h->flags & RAFT_HEARTBEAT_RELUCTANT;
    p->log_full = h->flags & RAFT_HEARTBEAT_LOG_FULL;
    if (!MUTANT(lost_ack_stays_lost))
        raft_peer_acked(r, p, h->match);
    notice_loss(r, p, h->accepted);
}

/* ---- Reads ---- */

static struct raft_waiting *read_at(struct raft *r, uint64_t number)
{
    return &r->reads[number % RAFT_READS_MAX];
}

/* Answer a waiting read: to our application, or to the follower that asked. False: no room, later. */
static bool answer(struct raft *r, struct raft_waiting *w, int result)
{
    if (w->answered)
        return true;
    if (w->from == 0) {
        r->answers[r->answer_count++] = (struct raft_read){w->context, w->index, result};
    } else {
        if (r->send_count == RAFT_SENDS_MAX)
            return false;
        struct raft_message *m = raft_send_new(r, RAFT_MSG_READ_REPLY, w->from, RAFT_GATE_TERM);
        m->read_reply.context = w->context;
        m->read_reply.index = w->index;
        m->read_reply.refused = result < 0;
    }
    w->answered = true;
    return true;
}

static void pop_answered(struct raft *r)
{
    while (r->read_count && read_at(r, r->read_head)->answered) {
        r->read_head++;
        r->read_count--;
    }
}

/* Leader: a read enters. Its index: everything committed so far anywhere is at or below our commit or, before
 * this term has committed anything, below the first entry of this term, which then has to be applied (6.4 step 1). */
static int enter(struct raft *r, uint64_t context, uint64_t from)
{
    if (r->read_count == RAFT_READS_MAX)
        return -CV_BUSY;
    struct raft_waiting *w = read_at(r, r->read_head + r->read_count++);
    *w = (struct raft_waiting){
        .context = context,
        .from = from,
        .index = MUTANT(read_before_noop) ? r->commit : max(r->commit, r->start_index),
        .round = r->round + 1, /* one that begins after the read arrived */
        .since_ms = r->now_ms,
    };
    if (raft_lease_until(r) > r->now_ms || MUTANT(read_unconfirmed))
        w->round = 0;
    return 0;
}

void raft_leader_reads(struct raft *r)
{
    if (r->read_count == 0)
        return;
    /* One round at a time: reads that arrive meanwhile share the next. */
    uint64_t newest = read_at(r, r->read_head + r->read_count - 1)->round;
    if (newest > r->round && raft_round_confirmed(r) >= r->round)
        raft_round_begin(r);
    uint64_t confirmed = raft_round_confirmed(r);
    for (uint64_t n = r->read_head; n < r->read_head + r->read_count; n++) {
        struct raft_waiting *w = read_at(r, n);
        if (w->round <= confirmed && !answer(r, w, 0))
            break;
    }
    pop_answered(r);
}

void raft_reads_refuse(struct raft *r)
{
    for (; r->read_count; r->read_head++, r->read_count--)
        answer(r, read_at(r, r->read_head), -CV_NOT_LEADER);
}

void raft_reads_expire(struct raft *r)
{
    for (uint64_t n = r->read_head; n < r->read_head + r->read_count; n++) {
        struct raft_waiting *w = read_at(r, n);
        if (r->now_ms - w->since_ms < r->options.election_ms)
            break;
        if (!answer(r, w, -CV_NOT_LEADER))
            break;
    }
    pop_answered(r);
}

int raft_on_read_local(struct raft *r, uint64_t context)
{
    if (r->role == RAFT_LEADER)
        return enter(r, context, 0);
    if (!r->leader)
        return -CV_NOT_LEADER;
    if (r->read_count == RAFT_READS_MAX)
        return -CV_BUSY;
    struct raft_message *m = raft_send_new(r, RAFT_MSG_READ, r->leader, RAFT_GATE_TERM);
    uint64_t number = r->read_head + r->read_count++;
    *read_at(r, number) = (struct raft_waiting){.context = context, .since_ms = r->now_ms};
    m->read.context = number;
    return 0;
}

void raft_on_read(struct raft *r, const struct raft_message *m)
{
    if (r->role == RAFT_LEADER && enter(r, m->read.context, m->from) == 0)
        return;
    struct raft_message *reply = raft_send_new(r, RAFT_MSG_READ_REPLY, m->from, RAFT_GATE_TERM);
    reply->read_reply.context = m->read.context;
    reply->read_reply.refused = 1;
}

void raft_on_read_reply(struct raft *r, const struct raft_message *m)
{
    uint64_t number = m->read_reply.context;
    if (r->role != RAFT_FOLLOWER || m->from != r->leader || number < r->read_head ||
        number - r->read_head >= r->read_count)
        return;
    struct raft_waiting *w = read_at(r, number);
    w->index = m->read_reply.index;
    answer(r, w, m->read_reply.refused ? -CV_NOT_LEADER : 0);
    pop_answered(r);
}
