/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership (4.1): one voter is added or removed at a time, so a majority of the old configuration and one of the
 * new share a node; a configuration is in force from the moment it is appended. Two guards keep that argument sound
 * across leaders: no change while the last one is not committed, and none before an entry of this term is committed
 * (else two leaders' competing changes can both win: Ongaro's correction of 2015 to 4.1; experiment R4).
 *
 * The log's last two configurations are kept: a newer one is only appended when the one before is committed, so a
 * truncation can take away at most one.
 */
#include "raft/raft_state.h"

#include <errno.h>

static const struct raft_conf no_conf;

const struct raft_conf *raft_conf_current(const struct raft *r)
{
    return r->conf_count ? &r->confs[r->conf_count - 1].conf : &no_conf;
}

const struct raft_conf *raft_conf_newest(const struct raft *r, uint64_t *ret_index)
{
    if (!r->conf_count)
        return NULL;
    *ret_index = r->confs[r->conf_count - 1].index;
    return raft_conf_current(r);
}

const struct raft_conf *raft_conf_at(const struct raft *r, uint64_t index, uint64_t *ret_index)
{
    for (uint32_t i = r->conf_count; i > 0; i--) {
        if (r->confs[i - 1].index > index)
            continue;
        *ret_index = r->confs[i - 1].index;
        return &r->confs[i - 1].conf;
    }
    return NULL;
}

const struct raft_member *raft_self(const struct raft *r)
{
    return raft_conf_find(raft_conf_current(r), r->options.id);
}

bool raft_is_voter(const struct raft *r)
{
    const struct raft_member *self = raft_self(r);
    return self && raft_votes(self);
}

void raft_conf_adopt(struct raft *r, uint64_t index, const struct raft_conf *conf)
{
    if (r->conf_count == 2) {
        r->confs[0] = r->confs[1];
        r->conf_count = 1;
    }
    r->confs[r->conf_count].index = index;
    r->confs[r->conf_count].conf = *conf;
    r->conf_count++;
}

void raft_conf_rollback(struct raft *r, uint64_t from)
{
    if (MUTANT(conf_not_rolled_back))
        return;
    while (r->conf_count && r->confs[r->conf_count - 1].index >= from) {
        if (--r->conf_count == 0)
            raft_alarm_raise(r, RAFT_ALARM_CONF_LOST);
    }
}

static void add_peers(struct raft *r, const struct raft_conf *conf, const struct raft_peer *old, uint32_t old_count)
{
    for (uint32_t k = 0; k < conf->count && r->peer_count < RAFT_PEERS_MAX; k++) {
        uint64_t id = conf->members[k].id;
        if (id == r->options.id || raft_peer_find(r, id))
            continue;
        struct raft_peer *p = &r->peers[r->peer_count++];
        raft_peer_init(r, p, id);
        for (uint32_t o = 0; o < old_count; o++)
            if (old[o].id == id)
                *p = old[o];
        p->leaving_ms = 0;
    }
}

void raft_peers_sync(struct raft *r)
{
    struct raft_peer old[RAFT_PEERS_MAX];
    uint32_t old_count = r->peer_count;
    memcpy(old, r->peers, old_count * sizeof(old[0]));
    r->peer_count = 0;
    const struct raft_conf_at *newest = &r->confs[r->conf_count - 1];
    add_peers(r, &newest->conf, old, old_count);
    if (newest->index > r->commit) {
        if (r->conf_count == 2)
            add_peers(r, &r->confs[0].conf, old, old_count);
        return;
    }
    /* Who is removed gets that entry too, and hears that it is committed, so that it stops campaigning; within T_min,
     * or not at all: then pre-votes keep it harmless. */
    for (uint32_t o = 0; o < old_count && r->peer_count < RAFT_PEERS_MAX; o++) {
        struct raft_peer *p = &old[o];
        if (raft_peer_find(r, p->id))
            continue;
        p->leaving_ms = p->leaving_ms ?: r->now_ms;
        if (p->match >= newest->index)
            raft_heartbeat_send(r, p);
        else if (r->now_ms - p->leaving_ms < r->options.election_ms)
            r->peers[r->peer_count++] = *p;
    }
}

/* The configuration after op, or why not. */
static int changed_conf(const struct raft *r, enum raft_conf_op op, const struct raft_member *wanted,
                        struct raft_conf *ret)
{
    struct raft_conf conf = *raft_conf_current(r);
    const struct raft_member *is = raft_conf_find(&conf, wanted->id);
    struct raft_member m;
    if (op == RAFT_ADD_LEARNER) {
        if (is)
            return -EEXIST;
        m = *wanted;
        m.role = RAFT_LEARNER;
    } else {
        if (!is)
            return -ENOENT;
        m = *is;
    }
    switch (op) {
    case RAFT_ADD_LEARNER: break;
    case RAFT_PROMOTE:
        if (raft_votes(is))
            return -EEXIST;
        m.role = RAFT_VOTER;
        break;
    case RAFT_DEMOTE:
        if (!raft_votes(is))
            return -EEXIST;
        m.role = RAFT_LEARNER;
        break;
    case RAFT_UPDATE:
        m.priority = wanted->priority;
        memcpy(m.raft_address, wanted->raft_address, sizeof(m.raft_address));
        memcpy(m.client_address, wanted->client_address, sizeof(m.client_address));
        break;
    case RAFT_REMOVE: {
        uint32_t i = (uint32_t)(is - conf.members);
        conf.count--;
        memmove(&conf.members[i], &conf.members[i + 1], (conf.count - i) * sizeof(conf.members[0]));
        memset(&conf.members[conf.count], 0, sizeof(conf.members[0]));
        break;
    }
    default: return -EINVAL;
    }
    if (op != RAFT_REMOVE) {
        int e = raft_conf_put(&conf, &m);
        if (e < 0)
            return e;
    }
    int e = raft_conf_check(&conf);
    if (e < 0)
        return e;
    *ret = conf;
    return 0;
}

int raft_on_conf(struct raft *r, enum raft_conf_op op, const struct raft_member *member)
{
    if (r->role != RAFT_LEADER)
        return -CV_NOT_LEADER;
    if (r->transfer_to || raft_log_writes_left(&r->log) <= RAFT_WRITES_SPARE)
        return -EBUSY;
    /* Guard 1: one at a time. */
    if (r->confs[r->conf_count - 1].index > r->commit && !MUTANT(conf_while_uncommitted))
        return -EBUSY;
    /* Guard 2: this term has committed something, so no earlier leader's change can come back. */
    if (r->commit < r->start_index && !MUTANT(conf_without_current_term))
        return -EBUSY;
    struct raft_conf conf;
    int e = changed_conf(r, op, member, &conf);
    if (e < 0)
        return e;
    /* A new voter must be near, or the cluster stalls until it is (4.2.1). */
    if (op == RAFT_PROMOTE) {
        const struct raft_peer *p = raft_peer_find(r, member->id);
        if (!p || !p->caught_up || !raft_peer_heard(r, p))
            return -EAGAIN;
    }
    /* The change itself has to be committed by the new majority: is it there? */
    if (!raft_quorum_heard(r, &conf, false))
        return -CV_UNREACHABLE;
    size_t size = raft_conf_encode(&conf, r->made_data);
    raft_append_made(r, RAFT_CONF, (uint32_t)size);
    r->proposed_first = r->log.last;
    raft_peers_sync(r);
    return 0;
}
