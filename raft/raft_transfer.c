/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing leadership over (3.10): stop taking proposals, bring the successor to the end of the log, tell it to
 * campaign at once. Done when somebody asks, when this node leads but should not (journal-only, or its application
 * cannot), and when its own removal is committed.
 *
 * TIMEOUT_NOW overrides voters' promises to us, and may arrive long after the transfer was given up: our lease ends
 * before it is sent and does not come back in this term.
 */
#include "raft/raft_state.h"

#include <errno.h>

enum fitness { UNABLE, RELUCTANT, ABLE };

static enum fitness fitness(bool can_lead, bool reluctant)
{
    return !can_lead ? UNABLE : reluctant ? RELUCTANT : ABLE;
}

/* The full voter to ask first: fittest, then furthest, then by priority. Only those that are so fit at least. */
static struct raft_peer *best_successor(struct raft *r, enum fitness least)
{
    const struct raft_conf *conf = raft_conf_current(r);
    struct raft_peer *best = NULL;
    const struct raft_member *best_member = NULL;
    enum fitness best_fit = UNABLE;
    for (uint32_t i = 0; i < conf->count; i++) {
        const struct raft_member *m = &conf->members[i];
        struct raft_peer *p = raft_peer_find(r, m->id);
        if (!p || !raft_votes(m) || m->journal_only || !raft_peer_heard(r, p))
            continue;
        enum fitness fit = fitness(p->can_lead, p->reluctant);
        if (fit < least)
            continue;
        bool better = !best || fit > best_fit ||
                      (fit == best_fit &&
                       (p->match > best->match || (p->match == best->match && m->priority > best_member->priority)));
        if (better) {
            best = p;
            best_member = m;
            best_fit = fit;
        }
    }
    return best;
}

static void begin(struct raft *r, uint64_t to)
{
    r->transfer_to = to;
    r->transfer_until_ms = r->now_ms + r->options.election_ms;
    r->transfer_sent_ms = 0;
    r->lease_lost = true;
}

int raft_on_transfer(struct raft *r, uint64_t to)
{
    if (r->role != RAFT_LEADER)
        return -CV_NOT_LEADER;
    if (r->transfer_to)
        return -EBUSY;
    const struct raft_peer *p;
    if (to) {
        const struct raft_member *m = raft_conf_find(raft_conf_current(r), to);
        p = raft_peer_find(r, to);
        if (!p || !m || !raft_votes(m) || m->journal_only)
            return -ENOENT;
        if (!raft_peer_heard(r, p))
            return -CV_UNREACHABLE;
    } else {
        p = best_successor(r, UNABLE);
        if (!p)
            return -CV_UNREACHABLE;
    }
    begin(r, p->id);
    return 0;
}

void raft_transfer_tick(struct raft *r)
{
    if (r->transfer_to && r->now_ms >= r->transfer_until_ms) {
        r->transfer_to = 0;
        r->handover_after_ms = r->now_ms + r->options.election_ms;
    }
    /* A leader that should not be one: never with one voter, there is nobody else. */
    const struct raft_member *self = raft_self(r);
    enum fitness own = self && self->journal_only ? UNABLE : fitness(r->can_lead, r->reluctant);
    bool unfit = self && raft_conf_voters(raft_conf_current(r)) > 1 && own < ABLE &&
                 !(self->journal_only && MUTANT(journal_leader_stays));
    if (!unfit) {
        r->handover_since_ms = 0;
        return;
    }
    if (!r->handover_since_ms)
        r->handover_since_ms = r->now_ms;
    if (r->transfer_to || r->now_ms < r->handover_after_ms)
        return;
    const struct raft_peer *p = best_successor(r, own + 1);
    if (p)
        begin(r, p->id);
}

static void send_timeout_now(struct raft *r, uint64_t to)
{
    struct raft_message *m = raft_send_new(r, RAFT_MSG_TIMEOUT_NOW, to, RAFT_GATE_NONE);
    m->timeout_now.last_index = r->log.last;
    r->transfer_sent_ms = r->now_ms;
}

void raft_leader_transfer(struct raft *r)
{
    if (!r->transfer_to)
        return;
    const struct raft_peer *p = raft_peer_find(r, r->transfer_to);
    bool due = !r->transfer_sent_ms || r->now_ms - r->transfer_sent_ms >= r->options.heartbeat_ms;
    if (p && p->match == r->log.last && due)
        send_timeout_now(r, p->id);
}

void raft_transfer_parting(struct raft *r)
{
    const struct raft_peer *p = best_successor(r, UNABLE);
    if (p && p->match >= r->commit)
        send_timeout_now(r, p->id);
}
