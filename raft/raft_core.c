/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's frame: start, one step, roles.
 *
 *   raft_step(input):  reserve what the step may need  ->  the handler of the input changes state
 *                      ->  a candidate counts votes, a leader commits, answers, sends (after every input alike)
 *                      ->  put_out: number the write unit, gate the messages, report state
 *
 *                 timeout                   majority: pre-votes          majority, own vote durable
 *    FOLLOWER ---------------> PRECANDIDATE ---------------> CANDIDATE ---------------------------> LEADER
 *       ^  ^                        |     leader's TIMEOUT_NOW   |                                     |
 *       |  +------------------------+----------------------------+                                     |
 *       |        a leader is heard, a higher term is met                                               |
 *       +----------------------------------------------------------------------------------------------+
 *                 a higher term is met, no majority answers (6.2), removal committed (4.2.2)
 */
#include "raft/raft_state.h"

#include <assert.h>
#include <errno.h>

/* ---- Alarms ---- */

void raft_alarm_raise(struct raft *r, enum raft_alarm_code code)
{
    if (!r->alarm)
        r->alarm = code;
}

const char *raft_alarm(const struct raft *r)
{
    static const char *const texts[] = {
        NULL,
#define RAFT_ALARM(NAME, text) text,
#include "raft/raft_alarm.def"
#undef RAFT_ALARM
    };
    return texts[r->alarm];
}

/* ---- Start ---- */

static int options_resolve(const struct raft_options *given, struct raft_options *ret)
{
    struct raft_options o = *given;
    o.heartbeat_ms = o.heartbeat_ms ?: 50;
    o.election_ms = o.election_ms ?: 500;
    o.drift_percent = o.drift_percent ?: 10;
    o.append_entries_max = o.append_entries_max ?: RAFT_APPEND_ENTRIES_MAX;
    o.inflight_entries_max = o.inflight_entries_max ?: 512;
    o.uncommitted_max = o.uncommitted_max ?: 65536;
    o.silent_ms = o.silent_ms ?: 60000;
    o.handover_alarm_ms = o.handover_alarm_ms ?: 5000;
    /* Leases and stickiness rest on several heartbeats fitting into T_min (3.9). */
    if (o.id == 0 || o.heartbeat_ms * 3 > o.election_ms || o.drift_percent > 50 ||
        o.append_entries_max > RAFT_APPEND_ENTRIES_MAX || o.election_ms > 600000)
        return -EINVAL;
    *ret = o;
    return 0;
}

static int restart_check(const struct raft_restart *s)
{
    if (s->first == 0 || s->last < s->first - 1 || s->conf_count > 2 || (s->first == 1 && s->base_term != 0) ||
        (s->first > 1 && s->base_term == 0))
        return -CV_LOG_DAMAGED;
    uint64_t term = s->base_term, next = 0;
    for (uint32_t i = 0; i < s->run_count; i++) {
        const struct raft_run *run = &s->runs[i];
        bool starts_right = i == 0 ? run->first <= s->first && run->first > 0 : run->first > next;
        if (!starts_right || run->first > s->last || run->term < term || run->term == 0 || (i > 0 && run->term == term))
            return -CV_LOG_DAMAGED;
        term = run->term;
        next = run->first;
    }
    if ((s->run_count == 0) != (s->last < s->first) || term > s->term)
        return -CV_LOG_DAMAGED;
    for (uint32_t i = 0; i < s->conf_count; i++)
        if (s->conf_index[i] == 0 || s->conf_index[i] > s->last || !s->conf[i] || raft_conf_check(s->conf[i]) < 0 ||
            (i > 0 && s->conf_index[i] <= s->conf_index[i - 1]))
            return -CV_LOG_DAMAGED;
    if (s->conf_count == 0 && s->last > 0)
        return -CV_LOG_DAMAGED;
    if (s->applied > s->last)
        return -CV_LOG_DAMAGED;
    return 0;
}

DEFINE_CLEANUP(struct raft *, raft_free)

int raft_new(const struct raft_options *options, const struct raft_restart *restart, struct raft **ret)
{
    struct raft *r cleanup(raft_free_p) = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    int e = options_resolve(options, &r->options);
    if (e < 0)
        return e;
    e = restart_check(restart);
    if (e < 0)
        return e;
    struct raft_log *log = &r->log;
    e = raft_log_reserve(log, restart->run_count + 2 * RAFT_APPEND_ENTRIES_MAX);
    if (e < 0)
        return e;
    log->first = restart->first;
    log->last = log->durable = log->loaded = restart->last;
    log->base_term = restart->base_term;
    for (uint32_t i = 0; i < restart->run_count; i++)
        log->runs[log->run_count++] = restart->runs[i];
    if (log->run_count)
        log->runs[0].first = log->first;

    r->term = restart->term;
    r->vote = restart->vote;
    for (uint32_t i = 0; i < restart->conf_count; i++)
        r->confs[r->conf_count++] = (struct raft_conf_at){restart->conf_index[i], *restart->conf[i]};
    r->applied = restart->applied;
    uint64_t known = max(restart->commit, restart->applied);
    r->commit = known < log->first ? log->first - 1 : min(known, log->last);

    r->now_ms = restart->now_ms;
    /* Nodes given the same seed must not time out together for ever. */
    r->prng.state = hash_u64(r->options.seed + hash_u64(r->options.id));
    /* Numbers of reads differ from those before a restart, whose answers may still be on their way. */
    r->read_head = prng_next(&r->prng) >> 2;
    r->role = RAFT_FOLLOWER;
    /* Before the restart we may have promised a leader not to elect another for T_min (4.2.3, 6.4.1). */
    r->sticky_ms = r->term && !MUTANT(vote_after_restart) ? r->now_ms + r->options.election_ms : 0;
    raft_reset_timeout(r);
    *ret = take(r);
    return 0;
}

struct raft *raft_free(struct raft *r)
{
    if (r)
        free(r->log.runs);
    free(r);
    return NULL;
}

/* ---- State every part changes ---- */

void raft_set_term(struct raft *r, uint64_t term)
{
    if (term <= r->term) {
        raft_alarm_raise(r, RAFT_ALARM_TERM_BACKWARDS);
        return;
    }
    r->term = term;
    r->vote = 0;
    r->accepted = 0;
    r->leader = 0;
    r->hard_changed = true;
}

void raft_set_vote(struct raft *r, uint64_t id)
{
    if (r->vote == id)
        return;
    if (r->vote != 0) {
        raft_alarm_raise(r, RAFT_ALARM_SECOND_VOTE);
        return;
    }
    r->vote = id;
    r->hard_changed = true;
}

void raft_set_commit(struct raft *r, uint64_t index)
{
    if (index < r->commit && !MUTANT(commit_backwards)) {
        raft_alarm_raise(r, RAFT_ALARM_COMMIT_BACKWARDS);
        return;
    }
    if (index > r->log.last) {
        raft_alarm_raise(r, RAFT_ALARM_COMMIT_MISSING);
        return;
    }
    r->commit = index;
    if (r->receiving_index && r->receiving_index <= index)
        r->receiving_index = 0; /* the entries came first */
}

void raft_follow(struct raft *r, uint64_t leader)
{
    if (r->role != RAFT_FOLLOWER || r->leader != leader)
        raft_reset_timeout(r);
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
    r->votes = 0;
    r->start_index = 0;
    r->peer_count = 0;
    r->transfer_to = 0;
    r->handover_since_ms = 0;
    r->left_behind = false;
}

static void become_leader(struct raft *r)
{
    r->role = RAFT_LEADER;
    r->leader = r->options.id;
    r->start_ms = r->now_ms;
    r->lease_lost = false;
    r->transfer_to = 0;
    r->handover_since_ms = r->handover_after_ms = 0;
    r->receiving_index = 0;
    r->peer_count = 0;
    raft_peers_sync(r);
    /* What earlier terms left is committed, and reads are answered, only behind an entry of this term (3.6.2, 6.4). */
    r->start_index = r->log.last + 1;
    if (!MUTANT(noop_omitted))
        raft_append_made(r, RAFT_NOOP, 0);
    raft_round_begin(r);
}

void raft_append(struct raft *r, const struct raft_entry *entries, uint32_t count)
{
    if (count == 0)
        return;
    assert(r->write.count == 0);
    r->write.first = r->log.last + 1;
    r->write.count = count;
    r->write.entries = entries;
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].term < raft_log_last_term(&r->log) || entries[i].term > r->term)
            raft_alarm_raise(r, RAFT_ALARM_TERM_BACKWARDS);
        raft_log_append(&r->log, entries[i].term);
        if (entries[i].type != RAFT_CONF)
            continue;
        struct raft_conf conf;
        if (!entries[i].data || raft_conf_decode(entries[i].data, entries[i].size, &conf) < 0)
            raft_alarm_raise(r, RAFT_ALARM_CONF_BAD);
        else
            raft_conf_adopt(r, MUTANT(conf_batch_index) ? r->write.first : r->log.last, &conf);
    }
}

void raft_append_made(struct raft *r, enum raft_entry_type type, uint32_t size)
{
    r->made = (struct raft_entry){.term = r->term, .type = type, .size = size, .data = size ? r->made_data : NULL};
    raft_append(r, &r->made, 1);
}

void raft_truncate(struct raft *r, uint64_t from)
{
    if (r->role == RAFT_LEADER)
        raft_alarm_raise(r, RAFT_ALARM_LEADER_TRUNCATES);
    if (from <= r->commit)
        raft_alarm_raise(r, RAFT_ALARM_TRUNCATE_COMMITTED);
    if (r->alarm)
        return;
    raft_log_truncate(&r->log, from);
    r->write.truncate_from = from;
    raft_conf_rollback(r, from);
}

struct raft_message *raft_send_new(struct raft *r, enum raft_message_type type, uint64_t to, enum raft_gate gate)
{
    struct raft_send *s = &r->sends[r->send_count];
    r->gates[r->send_count] = gate;
    if (r->send_count < RAFT_SENDS_MAX)
        r->send_count++;
    memset(s, 0, sizeof(*s));
    s->message.type = type;
    s->message.from = r->options.id;
    s->message.to = to;
    return &s->message; /* its term is set when the step ends */
}

/* ---- Messages ---- */

/* The sender leads our term. */
static void heard_leader(struct raft *r, uint64_t leader)
{
    if (r->role == RAFT_LEADER || (r->leader && r->leader != leader)) {
        raft_alarm_raise(r, RAFT_ALARM_TWO_LEADERS);
        return;
    }
    raft_follow(r, leader);
    raft_reset_timeout(r);
    if (!MUTANT(vote_not_sticky))
        r->sticky_ms = r->now_ms + r->options.election_ms;
}

/* A message of an older term is void, but its sender shall learn of ours: a leader steps down, a node that asks for
 * votes catches up, a node stuck at a higher term comes back (3.3; raft.md 5.2). */
static void on_older_term(struct raft *r, const struct raft_message *m)
{
    struct raft_message *reply;
    switch (m->type) {
    case RAFT_MSG_APPEND:
    case RAFT_MSG_HEARTBEAT:
    case RAFT_MSG_SNAPSHOT:
    case RAFT_MSG_TIMEOUT_NOW: raft_send_new(r, RAFT_MSG_HEARTBEAT_REPLY, m->from, RAFT_GATE_TERM); break;
    case RAFT_MSG_PREVOTE:
        if (MUTANT(prevote_no_adopt))
            break;
        reply = raft_send_new(r, RAFT_MSG_PREVOTE_REPLY, m->from, RAFT_GATE_TERM);
        reply->prevote_reply.next_term = m->prevote.next_term;
        break;
    case RAFT_MSG_VOTE: raft_send_new(r, RAFT_MSG_VOTE_REPLY, m->from, RAFT_GATE_TERM); break;
    default: break;
    }
}

static void dispatch_leaders_peer(struct raft *r, const struct raft_message *m)
{
    struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, m->from) : NULL;
    if (!p)
        return; /* an answer to what we no longer are, or from who no longer belongs to us */
    p->heard_ms = r->now_ms;
    switch (m->type) {
    case RAFT_MSG_APPEND_REPLY: raft_on_append_reply(r, p, m); break;
    case RAFT_MSG_HEARTBEAT_REPLY: raft_on_heartbeat_reply(r, p, m); break;
    default: raft_on_snapshot_failed(r, p, m); break;
    }
}

static int on_message(struct raft *r, const struct raft_message *m)
{
    if (!m || m->to != r->options.id || m->from == r->options.id || raft_message_check(m) < 0)
        return -CV_BAD_MESSAGE;
    if (raft_log_writes_left(&r->log) < 1)
        return -CV_BUSY;
    /* Questions about votes neither bring a term nor an answer while we hold to a leader (4.2.3, 9.6). */
    if (m->type == RAFT_MSG_PREVOTE && m->term >= r->term) {
        raft_on_prevote(r, m);
        return 0;
    }
    /* Nor did granting one raise the voter's term: it may well be older than ours. */
    if (m->type == RAFT_MSG_PREVOTE_REPLY && m->prevote_reply.granted &&
        (m->term == r->term || (m->term < r->term && !MUTANT(prevote_answer_of_older_term)))) {
        raft_on_prevote_reply(r, m);
        return 0;
    }
    if (m->type == RAFT_MSG_VOTE && !m->vote.transfer && m->term >= r->term && raft_is_sticky(r))
        return 0;
    if (m->term < r->term) {
        on_older_term(r, m);
        return 0;
    }
    if (m->term > r->term) {
        if (m->type == RAFT_MSG_PREVOTE_REPLY && MUTANT(prevote_no_adopt))
            return 0;
        raft_set_term(r, m->term);
        raft_follow(r, 0);
    }
    switch (m->type) {
    case RAFT_MSG_APPEND:
    case RAFT_MSG_HEARTBEAT:
    case RAFT_MSG_SNAPSHOT:
    case RAFT_MSG_TIMEOUT_NOW:
        heard_leader(r, m->from);
        if (r->alarm)
            return 0;
        break;
    default: break;
    }
    switch (m->type) {
    case RAFT_MSG_PREVOTE_REPLY: break; /* refused: it told its term */
    case RAFT_MSG_VOTE: raft_on_vote(r, m); break;
    case RAFT_MSG_VOTE_REPLY: raft_on_vote_reply(r, m); break;
    case RAFT_MSG_APPEND: raft_on_append(r, m); break;
    case RAFT_MSG_HEARTBEAT: raft_on_heartbeat(r, m); break;
    case RAFT_MSG_SNAPSHOT: raft_on_snapshot(r, m); break;
    case RAFT_MSG_TIMEOUT_NOW: raft_on_timeout_now(r, m); break;
    case RAFT_MSG_READ: raft_on_read(r, m); break;
    case RAFT_MSG_READ_REPLY: raft_on_read_reply(r, m); break;
    default: dispatch_leaders_peer(r, m); break;
    }
    return 0;
}

/* ---- The step ---- */

static int on_app(struct raft *r, const struct raft_input *in)
{
    uint64_t applied = in->app.applied;
    /* Right after a start the application may know of commits that our hint does not: it applied them before. Only
     * entries that were on disk then, and still are, can be meant. */
    if (applied > r->commit) {
        if (applied > r->log.loaded) {
            raft_alarm_raise(r, RAFT_ALARM_APPLIED_AHEAD);
            return 0;
        }
        raft_set_commit(r, applied);
    }
    r->applied = applied;
    r->flushed = min(in->app.flushed, applied);
    r->can_lead = in->app.can_lead;
    r->reluctant = in->app.reluctant;
    r->log_full = in->app.log_full;
    return 0;
}

static int on_tick(struct raft *r)
{
    raft_reads_expire(r);
    if (r->role == RAFT_LEADER)
        raft_leader_tick(r);
    else
        raft_election_tick(r);
    return 0;
}

static int dispatch(struct raft *r, const struct raft_input *in)
{
    switch (in->type) {
    case RAFT_IN_TICK: return on_tick(r);
    case RAFT_IN_MESSAGE: return on_message(r, in->message);
    case RAFT_IN_PROPOSE: return raft_on_propose(r, in->propose.term, in->propose.entries, in->propose.count);
    case RAFT_IN_WRITTEN:
        if (raft_log_written(&r->log, in->written.seq) < 0)
            raft_alarm_raise(r, RAFT_ALARM_WRITTEN_UNKNOWN);
        return 0;
    case RAFT_IN_READ: return raft_on_read_local(r, in->read.context);
    case RAFT_IN_CONF: return raft_on_conf(r, in->conf.op, &in->conf.member);
    case RAFT_IN_TRANSFER: return raft_on_transfer(r, in->transfer.to);
    case RAFT_IN_APP: return on_app(r, in);
    case RAFT_IN_COMPACT: return raft_on_compact(r, in->compact.first);
    case RAFT_IN_SNAPSHOT_READY:
        return raft_on_snapshot_ready(r, in->snapshot_ready.peer, in->snapshot_ready.source, in->snapshot_ready.index);
    case RAFT_IN_SNAPSHOT_INSTALL: return raft_on_snapshot_install(r, in);
    case RAFT_IN_SNAPSHOT_FAILED: return raft_on_snapshot_given_up(r, in->snapshot_failed.peer);
    case RAFT_IN_CAMPAIGN: return raft_on_campaign(r, in->campaign.force);
    }
    return -EINVAL;
}

/* What follows from the state alone, whatever the input was. */
static void settle(struct raft *r)
{
    if (r->role == RAFT_CANDIDATE) {
        if (!raft_has_won(r))
            return;
        become_leader(r);
    }
    if (r->role != RAFT_LEADER || r->alarm)
        return;
    raft_leader_commit(r);
    if (r->role != RAFT_LEADER || r->alarm)
        return;
    raft_leader_reads(r);
    for (uint32_t i = 0; i < r->peer_count; i++)
        raft_peer_send(r, &r->peers[i]);
    raft_leader_transfer(r);
}

static void number_write(struct raft *r)
{
    struct raft_write *w = &r->write;
    if (!r->hard_changed && !w->truncate_from && !w->count && !w->install.index)
        return;
    w->seq = raft_log_queue(&r->log);
    w->term = r->term;
    w->vote = r->vote;
    w->commit = r->commit;
    if (r->hard_changed)
        r->hard_seq = w->seq;
}

static uint64_t gate_seq(const struct raft *r, const struct raft_send *s, enum raft_gate gate)
{
    uint64_t seq = gate == RAFT_GATE_NONE ? 0 : gate == RAFT_GATE_TERM ? r->hard_seq : r->log.queued_seq;
    if ((MUTANT(ack_before_fsync) && s->message.type == RAFT_MSG_APPEND_REPLY) ||
        (MUTANT(vote_before_fsync) && s->message.type == RAFT_MSG_VOTE_REPLY))
        return 0;
    return seq > r->log.written_seq ? seq : 0;
}

static uint32_t warnings(const struct raft *r)
{
    uint32_t w = 0;
    if (r->role == RAFT_LEADER && r->handover_since_ms &&
        r->now_ms - r->handover_since_ms >= r->options.handover_alarm_ms)
        w |= RAFT_WARN_HANDOVER;
    if (r->left_behind)
        w |= RAFT_WARN_LEFT_BEHIND;
    if (!raft_self(r))
        w |= RAFT_WARN_NOT_MEMBER;
    return w;
}

static void put_out(struct raft *r, bool role_changed, struct raft_output *ret)
{
    if (r->alarm) {
        r->send_count = r->answer_count = r->want_count = 0;
        memset(&r->write, 0, sizeof(r->write));
        memset(&r->offer, 0, sizeof(r->offer));
        r->hard_changed = role_changed = false;
    }
    number_write(r);
    for (uint32_t i = 0; i < r->send_count; i++) {
        r->sends[i].message.term = r->term;
        r->sends[i].after_seq = gate_seq(r, &r->sends[i], r->gates[i]);
    }
    *ret = (struct raft_output){
        .write = r->write,
        .sends = r->sends,
        .send_count = r->send_count,
        .role_changed = role_changed,
        .role = r->role,
        .term = r->term,
        .leader = r->leader,
        .start_index = r->role == RAFT_LEADER ? r->start_index : 0,
        .last = r->log.last,
        .durable = r->log.durable,
        .commit = r->commit,
        .apply_to = min(r->commit, r->log.durable),
        .lease_until_ms = r->alarm ? 0 : raft_lease_until(r),
        .compact_to = raft_compact_to(r),
        .warnings = warnings(r),
        .proposed_first = r->proposed_first,
        .reads = r->answers,
        .read_count = r->answer_count,
        .wants = r->wants,
        .want_count = r->want_count,
        .offer = r->offer,
    };
}

int raft_step(struct raft *r, const struct raft_input *in, struct raft_output *ret)
{
    r->now_ms = max(r->now_ms, in->now_ms);
    r->hard_changed = false;
    r->send_count = r->answer_count = r->want_count = 0;
    r->proposed_first = 0;
    memset(&r->write, 0, sizeof(r->write));
    memset(&r->offer, 0, sizeof(r->offer));

    enum raft_role role = r->role;
    uint64_t term = r->term, leader = r->leader;
    int e = r->alarm ? 0 : raft_log_reserve(&r->log, RAFT_APPEND_ENTRIES_MAX + 1);
    if (e == 0 && !r->alarm)
        e = dispatch(r, in);
    if (e == 0 && !r->alarm)
        settle(r);
    bool changed = r->role != role || r->term != term || r->leader != leader;
    if (changed)
        raft_reads_refuse(r);
    put_out(r, changed, ret);
    return r->alarm ? -CV_LOG_DIVERGED : e;
}

/* ---- Questions ---- */

int raft_term(const struct raft *r, uint64_t index, uint64_t *ret)
{
    if (index + 1 < r->log.first || index > r->log.last)
        return -ENOENT;
    *ret = raft_log_term(&r->log, index);
    return 0;
}

void raft_status(const struct raft *r, struct raft_status *ret)
{
    const struct raft_log *log = &r->log;
    uint64_t conf_index = r->conf_count ? r->confs[r->conf_count - 1].index : 0;
    *ret = (struct raft_status){
        .id = r->options.id,
        .role = r->role,
        .term = r->term,
        .vote = r->vote,
        .leader = r->leader,
        .first = log->first,
        .last = log->last,
        .durable = log->durable,
        .commit = r->commit,
        .applied = r->applied,
        .flushed = r->flushed,
        .conf_index = conf_index,
        .conf_committed = conf_index && conf_index <= r->commit,
        .transfer_to = r->transfer_to,
        .lease_lost = r->lease_lost,
        .queued_seq = log->queued_seq,
        .written_seq = log->written_seq,
        .reads_waiting = r->read_count,
        .run_count = log->run_count,
        .warnings = warnings(r),
        .peer_count = min(r->peer_count, (uint32_t)RAFT_MEMBERS_MAX),
    };
    for (uint32_t i = 0; i < ret->peer_count; i++) {
        const struct raft_peer *p = &r->peers[i];
        ret->peers[i] = (struct raft_peer_status){
            .id = p->id,
            .state = p->state,
            .match = p->match,
            .next = p->next,
            .flushed = p->flushed,
            .heard_ms = p->heard_ms,
            .snapshot_index = p->snapshot_index,
            .can_lead = p->can_lead,
            .caught_up = p->caught_up,
        };
    }
}
