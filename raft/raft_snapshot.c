/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers whose log ends before ours begins get the state instead (5.1-5.3), and what may be compacted.
 *
 *   leader                                        driver / source                     receiver
 *   peer in SNAPSHOT, log pinned -- want -->      checkpoint
 *   pin at its index             <-- ready --
 *   SNAPSHOT message ------------------------------------------------------------->   offer -> fetches files
 *   (again every T_min until it answers)                                              <- install: one write
 *   REPLICATE from index + 1     <------------------------------ APPEND_REPLY ----    when that is durable
 *
 * The state at an index is committed, so it stays good when the leader changes. The core moves no bytes.
 */
#include "raft/raft_state.h"

#include <errno.h>

/* ---- Leader ---- */

void raft_snapshot_want(struct raft *r, struct raft_peer *p)
{
    /* Not for somebody silent: the log would be kept for nothing. */
    if (r->now_ms < p->want_after_ms || !raft_peer_heard(r, p))
        return;
    p->state = RAFT_SNAPSHOT;
    p->snapshot_index = p->snapshot_source = 0;
    p->snapshot_pin = r->log.first - 1; /* not 0: the log was compacted */
    r->wants[r->want_count++] = (struct raft_snapshot_want){p->id, r->log.first - 1};
}

void raft_snapshot_offer(struct raft *r, struct raft_peer *p)
{
    p->offered_ms = r->now_ms;
    struct raft_message *m = raft_send_new(r, RAFT_MSG_SNAPSHOT, p->id, RAFT_GATE_NONE);
    m->snapshot.index = p->snapshot_index;
    m->snapshot.index_term = raft_log_term(&r->log, p->snapshot_index);
    m->snapshot.source = p->snapshot_source;
}

int raft_on_snapshot_ready(struct raft *r, uint64_t peer, uint64_t source, uint64_t index)
{
    if (r->role != RAFT_LEADER)
        return -CV_NOT_LEADER;
    struct raft_peer *p = raft_peer_find(r, peer);
    if (!p || p->state != RAFT_SNAPSHOT)
        return -ENOENT;
    if (index == 0 || index < r->log.first - 1 || index > r->commit || source == 0)
        return -EINVAL;
    p->snapshot_index = p->snapshot_pin = index;
    p->snapshot_source = source;
    raft_snapshot_offer(r, p);
    return 0;
}

/* Let the log go; ask again later if the peer still needs it. */
static void give_up(struct raft *r, struct raft_peer *p)
{
    if (p->state != RAFT_SNAPSHOT)
        return;
    p->want_after_ms = r->now_ms + r->options.election_ms;
    raft_peer_probe(p, p->match + 1);
}

void raft_on_snapshot_failed(struct raft *r, struct raft_peer *p, const struct raft_message *m)
{
    if (m->snapshot_failed.index == p->snapshot_index)
        give_up(r, p);
}

/* ---- Receiver ---- */

void raft_on_snapshot(struct raft *r, const struct raft_message *m)
{
    uint64_t index = m->snapshot.index, term = m->snapshot.index_term;
    if (index <= r->commit) {
        /* The leader does not know yet: what is committed here is in its log too. */
        raft_ack(r, m->from, index);
        return;
    }
    if (raft_log_term(&r->log, index) == term) {
        r->accepted = max(r->accepted, index);
        raft_ack(r, m->from, index);
        return;
    }
    if (r->receiving_index == index && r->receiving_term == term)
        return; /* repeated: under way */
    r->receiving_index = index;
    r->receiving_term = term;
    r->offer = (struct raft_snapshot_offer){index, term, m->snapshot.source};
}

int raft_on_snapshot_install(struct raft *r, const struct raft_input *in)
{
    uint64_t index = in->snapshot_install.index, term = in->snapshot_install.term;
    const struct raft_conf *conf = in->snapshot_install.conf;
    uint64_t conf_index = in->snapshot_install.conf_index;
    if (!conf || raft_conf_check(conf) < 0 || conf_index == 0 || conf_index > index || term == 0 ||
        r->role == RAFT_LEADER)
        return -EINVAL;
    if (raft_log_writes_left(&r->log) < 1)
        return -CV_BUSY;
    if (index <= r->commit && !MUTANT(snapshot_over_newer)) {
        if (index + 1 >= r->log.first && raft_log_term(&r->log, index) != term)
            raft_alarm_raise(r, RAFT_ALARM_SNAPSHOT_DIFFERS);
        r->receiving_index = 0;
        return r->alarm ? 0 : -EALREADY;
    }
    if (r->role != RAFT_FOLLOWER)
        raft_follow(r, 0); /* a candidate asked for votes with another log */
    r->receiving_index = 0;
    if (raft_log_term(&r->log, index) == term && !MUTANT(snapshot_over_newer)) {
        /* Our log goes on behind the snapshot: keep what follows, it may have been acknowledged (7.4 of raft.md). */
        raft_log_compact(&r->log, index + 1);
        if (r->conf_count == 1 && r->confs[0].index > index) {
            r->confs[1] = r->confs[0];
            r->confs[0] = (struct raft_conf_at){conf_index, *conf};
            r->conf_count = 2;
        }
    } else {
        raft_log_reset(&r->log, index, term, r->commit);
        r->write.truncate_from = index + 1;
        r->conf_count = 0;
        raft_conf_adopt(r, conf_index, conf);
    }
    if (index > r->commit)
        raft_set_commit(r, index);
    else
        r->commit = min(r->commit, r->log.last); /* a mutant's */
    r->accepted = max(r->accepted, index);
    r->write.install.index = index;
    r->write.install.term = term;
    r->write.install.conf_index = conf_index;
    r->write.install.conf = conf;
    if (r->leader)
        raft_ack(r, r->leader, index);
    return 0;
}

int raft_on_snapshot_given_up(struct raft *r, uint64_t peer)
{
    if (peer) {
        struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, peer) : NULL;
        if (!p)
            return -ENOENT;
        give_up(r, p);
        return 0;
    }
    if (r->receiving_index && r->leader) {
        struct raft_message *m = raft_send_new(r, RAFT_MSG_SNAPSHOT_FAILED, r->leader, RAFT_GATE_TERM);
        m->snapshot_failed.index = r->receiving_index;
    }
    r->receiving_index = 0;
    return 0;
}

/* ---- Compaction ---- */

void raft_compact_floor(struct raft *r)
{
    const struct raft_conf *conf = raft_conf_current(r);
    uint64_t floor = r->commit;
    bool log_full = r->log_full;
    for (uint32_t i = 0; i < r->peer_count; i++)
        log_full |= r->peers[i].log_full;
    r->left_behind = false;
    for (uint32_t i = 0; i < conf->count; i++) {
        const struct raft_member *m = &conf->members[i];
        if (m->journal_only)
            continue;
        const struct raft_peer *p = raft_peer_find(r, m->id);
        if (!p) {
            floor = min(floor, r->flushed);
            continue;
        }
        uint64_t heard = max(p->heard_ms, r->start_ms);
        if (log_full && r->now_ms - heard >= r->options.silent_ms)
            r->left_behind = true;
        else
            floor = min(floor, p->flushed);
    }
    r->floor = max(r->floor, floor);
}

uint64_t raft_compact_to(const struct raft *r)
{
    const struct raft_member *self = raft_self(r);
    /* A journal-only member has no state to rebuild from, nor to give: it keeps what full members may need. */
    uint64_t to = self && self->journal_only ? r->floor : r->flushed;
    to = min(to, r->commit);
    to = min(to, r->log.durable);
    for (uint32_t i = 0; i < r->peer_count; i++)
        if (r->peers[i].snapshot_pin && !MUTANT(compaction_ignores_pin))
            to = min(to, r->peers[i].snapshot_pin);
    return max(to, r->log.first - 1);
}

int raft_on_compact(struct raft *r, uint64_t first)
{
    if (first == 0 || first - 1 > raft_compact_to(r))
        return -EINVAL;
    if (first > r->log.first)
        raft_log_compact(&r->log, first);
    return 0;
}
