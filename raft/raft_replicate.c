/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries from the leader to its followers (3.5), and what is committed (3.6.2).
 *
 *          a reply shows where the logs part or agree            everything up to next - 1 is there or under way
 *   PROBE ------------------------------------------> REPLICATE: pipelined, at most window behind match
 *     ^ one message at a time                          |    |
 *     +------- a gap (message lost, peer restarted) ---+    |
 *     |                                                     v
 *     +---- SNAPSHOT: its log ends before ours begins <-----+      (raft_snapshot.c)
 *
 * The window is inflight_entries_max; it halves with each gap and grows again by what is acknowledged, so that where
 * messages overtake each other they become few instead of many.
 *
 * Messages may be lost without a word. A rejection shows a gap; without further traffic the heartbeat's answer shows
 * it: it says how far the follower's log agrees, durable or not, so that a slow disk is not taken for a lost message.
 */
#include "raft/raft_state.h"

#include <errno.h>

/* ---- Progress ---- */

struct raft_peer *raft_peer_find(struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i].id == id)
            return &r->peers[i];
    return NULL;
}

bool raft_peer_heard(const struct raft *r, const struct raft_peer *p)
{
    return p->heard_ms && r->now_ms - p->heard_ms < r->options.election_ms;
}

void raft_peer_init(struct raft *r, struct raft_peer *p, uint64_t id)
{
    *p = (struct raft_peer){
        .id = id,
        .state = RAFT_PROBE,
        .next = r->log.last + 1,
        .window = r->options.inflight_entries_max,
        .target = r->log.last,
        .target_ms = r->now_ms,
    };
}

static void leave_snapshot(struct raft_peer *p)
{
    p->snapshot_index = p->snapshot_source = p->snapshot_pin = 0;
}

void raft_peer_probe(struct raft_peer *p, uint64_t next)
{
    leave_snapshot(p);
    p->state = RAFT_PROBE;
    p->next = next;
    p->probing = false;
}

void raft_peer_slow(struct raft_peer *p)
{
    p->window = max(p->window / 2, 1u);
}

void raft_peer_replicate(struct raft *r, struct raft_peer *p, uint64_t next)
{
    leave_snapshot(p);
    p->state = RAFT_REPLICATE;
    p->next = next;
    p->moved_ms = r->now_ms;
}

uint64_t raft_resend_ms(const struct raft *r)
{
    return max(2 * r->options.heartbeat_ms, r->options.election_ms / 4);
}

/* ---- Leader: sending ---- */

static bool send_entries(struct raft *r, struct raft_peer *p, uint64_t count)
{
    if (r->send_count >= RAFT_SENDS_MAX - RAFT_SENDS_SPARE)
        return false; /* the rest with the next input */
    struct raft_message *m = raft_send_new(r, RAFT_MSG_APPEND, p->id, RAFT_GATE_NONE);
    m->append.prev_index = p->next - 1;
    m->append.prev_term = raft_log_term(&r->log, p->next - 1);
    m->append.count = (uint32_t)count;
    m->append.last_term = raft_log_term(&r->log, p->next - 1 + count);
    m->append.commit = r->commit;
    return true;
}

void raft_peer_send(struct raft *r, struct raft_peer *p)
{
    if (p->state == RAFT_SNAPSHOT)
        return;
    if (p->next < r->log.first) {
        raft_snapshot_want(r, p);
        return;
    }
    const struct raft_options *o = &r->options;
    uint64_t last = r->log.last, most = o->append_entries_max;
    if (p->state == RAFT_PROBE) {
        if (p->probing || !send_entries(r, p, min(most, last + 1 - p->next)))
            return;
        p->probing = true;
        p->moved_ms = r->now_ms;
        return;
    }
    while (p->next <= last && p->next - 1 - p->match < p->window) {
        uint64_t room = p->window - (p->next - 1 - p->match);
        uint64_t count = min(most, last + 1 - p->next);
        count = min(count, room);
        if (!send_entries(r, p, count))
            return;
        if (p->accepted + 1 >= p->next)
            p->moved_ms = r->now_ms; /* nothing was under way: its time runs from now */
        p->next += count;
    }
}

/* Also while its own removal, already in force, is not committed. */
static bool is_journal_only(const struct raft *r)
{
    for (uint32_t i = r->conf_count; i > 0; i--) {
        const struct raft_member *self = raft_conf_find(&r->confs[i - 1].conf, r->options.id);
        if (self)
            return self->journal_only;
    }
    return false;
}

int raft_on_propose(struct raft *r, uint64_t term, struct raft_entry *entries, uint32_t count)
{
    if (count == 0 || count > RAFT_APPEND_ENTRIES_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++)
        if (entries[i].type < RAFT_NOOP || entries[i].type > RAFT_BARRIER || entries[i].type == RAFT_NOOP ||
            entries[i].type == RAFT_CONF)
            return -EINVAL;
    if (r->role != RAFT_LEADER || (is_journal_only(r) && !MUTANT(journal_leader_proposes)))
        return -CV_NOT_LEADER;
    /* What was computed under another term may rest on entries that this term's log does not hold. */
    if (term != r->term && !MUTANT(stale_term_proposal))
        return -ESTALE;
    if (r->transfer_to || raft_log_writes_left(&r->log) <= RAFT_WRITES_SPARE ||
        r->log.last - r->commit + count > r->options.uncommitted_max)
        return -CV_BUSY;
    for (uint32_t i = 0; i < count; i++)
        entries[i].term = r->term;
    raft_append(r, entries, count);
    r->proposed_first = r->write.first;
    return 0;
}

/* ---- Leader: answers and commit ---- */

/* A learner catches up in rounds: each ends when it has what the log held at its beginning (4.2.1). */
static void catch_up(struct raft *r, struct raft_peer *p)
{
    if (p->match < p->target)
        return;
    p->caught_up = r->now_ms - p->target_ms < r->options.election_ms;
    p->target = r->log.last;
    p->target_ms = r->now_ms;
}

void raft_peer_acked(struct raft *r, struct raft_peer *p, uint64_t index)
{
    if (index <= p->match)
        return;
    p->window = (uint32_t)min(p->window + (index - p->match), (uint64_t)r->options.inflight_entries_max);
    p->match = index;
    p->moved_ms = r->now_ms;
    p->next = max(p->next, index + 1);
    catch_up(r, p);
}

static void on_rejected(struct raft *r, struct raft_peer *p, const struct raft_message *m)
{
    const __typeof__(m->append_reply) *a = &m->append_reply;
    /* Late answers: to a message before the one that agreed, or before the one being probed. */
    if (a->index <= p->match || a->index >= p->next || p->state == RAFT_SNAPSHOT ||
        (p->state == RAFT_PROBE && a->index != p->next - 1))
        return;
    /* A gap: everything behind it is refused, message by message. With a full window each of those refusals could make
     * us send the window again, and so on without end. */
    if (p->state == RAFT_REPLICATE)
        raft_peer_slow(p);
    uint64_t next = a->index;
    if (!r->options.pessimistic_hints) {
        /* Where the follower's term ends in our log, or where it begins in its log, or where its log ends. */
        if (a->conflict_term) {
            uint64_t ours = raft_log_last_of_term(&r->log, a->conflict_term, a->index - 1);
            next = ours ? ours + 1 : a->conflict_first;
        } else {
            next = a->last_index + 1;
        }
    }
    /* Not below where our log begins without having asked there: a hint may be too low, and nobody may be left who could
     * give a snapshot. */
    if (a->index >= r->log.first && !MUTANT(low_hint_believed))
        next = max(next, r->log.first);
    next = min(next, a->index);
    raft_peer_probe(p, max(p->match + 1, next));
}

void raft_on_append_reply(struct raft *r, struct raft_peer *p, const struct raft_message *m)
{
    if (m->append_reply.rejected) {
        on_rejected(r, p, m);
        return;
    }
    uint64_t index = m->append_reply.index;
    if (index > r->log.last) {
        raft_alarm_raise(r, RAFT_ALARM_ACK_BEYOND_LOG);
        return;
    }
    raft_peer_acked(r, p, index);
    bool known = p->match + 1 >= r->log.first;
    if (p->state == RAFT_PROBE || (p->state == RAFT_SNAPSHOT && known))
        raft_peer_replicate(r, p, p->match + 1);
}

void raft_leader_commit(struct raft *r)
{
    const struct raft_conf *conf = raft_conf_current(r);
    uint64_t matches[RAFT_MEMBERS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < conf->count; i++) {
        if (!raft_votes(&conf->members[i]))
            continue;
        uint64_t match;
        if (conf->members[i].id == r->options.id)
            /* Our disk works in parallel to the followers'; we are one of the majority when it is done (10.2.1). */
            match = MUTANT(leader_counts_unsynced) ? r->log.last : r->log.durable;
        else
            match = raft_peer_find(r, conf->members[i].id)->match;
        uint32_t at = n++;
        for (; at > 0 && matches[at - 1] < match; at--)
            matches[at] = matches[at - 1];
        matches[at] = match;
    }
    uint64_t index = n ? matches[n / 2] : 0; /* descending: n / 2 + 1 voters have it */
    /* Only entries of our own term by counting; older ones with them (3.6.2, figure 3.7; experiment R2). */
    if (index <= r->commit || (raft_log_term(&r->log, index) != r->term && !MUTANT(commit_old_term)))
        return;
    uint64_t conf_index = r->confs[r->conf_count - 1].index;
    bool conf_committed = r->commit < conf_index && conf_index <= index;
    raft_set_commit(r, index);
    if (!conf_committed)
        return;
    raft_peers_sync(r);
    if (!raft_is_voter(r)) {
        raft_transfer_parting(r);
        raft_follow(r, 0); /* 4.2.2 */
    }
}

/* ---- Follower ---- */

void raft_ack(struct raft *r, uint64_t to, uint64_t index)
{
    struct raft_message *m = raft_send_new(r, RAFT_MSG_APPEND_REPLY, to, RAFT_GATE_ALL);
    m->append_reply.index = index;
}

static void reject(struct raft *r, const struct raft_message *m)
{
    struct raft_message *reply = raft_send_new(r, RAFT_MSG_APPEND_REPLY, m->from, RAFT_GATE_ALL);
    uint64_t prev = m->append.prev_index;
    reply->append_reply.rejected = 1;
    reply->append_reply.index = prev;
    reply->append_reply.last_index = r->log.last;
    if (prev > r->log.last)
        return;
    reply->append_reply.conflict_term = raft_log_term(&r->log, prev);
    reply->append_reply.conflict_first = raft_log_run_first(&r->log, prev);
}

void raft_on_append(struct raft *r, const struct raft_message *m)
{
    const __typeof__(m->append) *a = &m->append;
    struct raft_log *log = &r->log;
    uint64_t end = a->prev_index + a->count; /* what this message covers */
    uint32_t skip = 0;
    if (a->prev_index < log->first - 1) {
        /* The beginning was compacted here: it is committed, so it is the leader's too (3.6.3). */
        if (end < log->first - 1) {
            r->accepted = max(r->accepted, end);
            raft_ack(r, m->from, end);
            return;
        }
        skip = (uint32_t)(log->first - 1 - a->prev_index);
        if (m->entries[skip - 1].term != log->base_term) {
            raft_alarm_raise(r, RAFT_ALARM_COMMIT_DIFFERS);
            return;
        }
    } else if (a->prev_index > log->last || raft_log_term(log, a->prev_index) != a->prev_term) {
        if (a->prev_index <= r->commit)
            raft_alarm_raise(r, RAFT_ALARM_COMMIT_DIFFERS);
        else
            reject(r, m);
        return;
    }
    /* What is there already stays: only a differing entry, and what follows it, goes. A delayed message must not
     * remove entries that were acknowledged after it was sent. */
    uint64_t index = a->prev_index + skip;
    for (; skip < a->count && index + 1 <= log->last; skip++, index++)
        if (raft_log_term(log, index + 1) != m->entries[skip].term)
            break;
    if (index < log->last && (skip < a->count || MUTANT(stale_append_truncates))) {
        if (index < r->accepted && !MUTANT(stale_append_truncates)) {
            raft_alarm_raise(r, RAFT_ALARM_LEADER_TRUNCATES); /* the leader of this term changed its log */
            return;
        }
        raft_truncate(r, index + 1);
        if (r->alarm)
            return;
    }
    raft_append(r, m->entries + skip, a->count - skip);
    if (r->alarm)
        return;
    r->accepted = max(r->accepted, end);
    /* Up to what this message covers: behind it our log may differ from the leader's (3.5; experiment R6). */
    uint64_t commit = min(a->commit, MUTANT(commit_last_index) ? log->last : end);
    if (commit > r->commit || MUTANT(commit_backwards))
        raft_set_commit(r, commit);
    raft_ack(r, m->from, end);
}
