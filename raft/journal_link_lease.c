/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The role with its lease, as the master is told, and how leases end. The master answers reads by itself until the lease
 * it was told runs out, and it learns of a shorter one only when it comes to that message. So whatever ends this leader's
 * promise to be the only one (a transfer, its own demotion or removal, a stop, leadership given away because the master is
 * silent, or was disconnected by us, or because a disk is nearly full) reaches the core only when no lease that was ever
 * told can be in use (6.4.1): from the first wish on the master is told none in this term, and the wish waits until those
 * it has are over, T_min at most. Meanwhile it leads on, and asks a majority for each read.
 *
 *      wish ---> link_role(lease 0) ... the lease told last runs out ---> core
 *
 * A master that ended the connection holds none: it is dead, or has stopped to serve before. Nor does one that stops and
 * says so (lease_back). With one member nobody can take over, and its lease is for ever; it ends when the second is added,
 * long before that may vote.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "raft/journal_link_internal.h"

/* A master that gave no sign for half the time after which it is taken for silent gets no longer lease than it has: that is
 * over, then, when leadership shall go. */
static uint64_t longest_lease(const struct journal_link *l)
{
    const struct link_session *s = &l->session;
    const struct journal_view *v = journal_driver_view(l->driver);
    if (v->lease_until_ns == UINT64_MAX || s->silent_ns <= l->options.silent_ms * NS_PER_MS / 2)
        return v->lease_until_ns;
    return min(v->lease_until_ns, s->role_term == v->term ? s->lease_until_ns : 0);
}

/* What the master may be told as lease_until_ns now; noted as told. */
static uint64_t lease(struct journal_link *l)
{
    const struct journal_view *v = journal_driver_view(l->driver);
    /* The core may hand over at any moment while it believes that the master cannot lead. */
    if (l->lease_over_term == v->term || !l->session.core_can_lead)
        return 0;
    uint64_t lease_ns = longest_lease(l);
    if (lease_ns != UINT64_MAX)
        l->lease_told_ns = max(l->lease_told_ns, lease_ns);
    return lease_ns;
}

void link_tell_role(struct journal_link *l)
{
    struct link_session *s = &l->session;
    const struct journal_view *v = journal_driver_view(l->driver);
    bool another = s->role != v->role || s->role_term != v->term;
    uint64_t lease_ns = lease(l);
    if (!another && s->role_leader == v->leader && s->lease_until_ns == lease_ns)
        return;
    if (another) {
        link_refuse_pending(l);
        s->start_index = v->role == RAFT_LEADER ? v->last : 0;
        s->roles_unseen++;
    }
    s->role = (uint8_t)v->role;
    s->role_term = v->term;
    s->role_leader = v->leader;
    s->lease_until_ns = lease_ns;
    const struct raft_conf *conf = journal_driver_conf(l->driver);
    const struct raft_member *leader = conf && v->leader ? raft_conf_find(conf, v->leader) : NULL;
    struct msg_link_role m = {
        .term = v->term,
        .role = (uint8_t)v->role,
        .leader = v->leader,
        .leader_address = text_of(leader ? leader->client_address : ""),
        .start_index = s->start_index,
        .lease_until_ns = lease_ns,
    };
    link_send(l, MSG_link_role, &m);
}

bool link_lease_end(struct journal_link *l)
{
    const struct journal_view *v = journal_driver_view(l->driver);
    if (v->role != RAFT_LEADER || v->members <= 1)
        return true; /* (a learner may be a voter in a moment) */
    if (l->lease_over_term != v->term) {
        l->lease_over_term = v->term;
        if (link_has_master(l))
            link_tell_role(l);
    }
    return loop_now(l->options.loop) > l->lease_told_ns;
}

/* The master stops: it has ended its lease by itself, so nobody has to wait for that. */
void link_lease_back(struct journal_link *l)
{
    l->lease_over_term = journal_driver_view(l->driver)->term;
    l->lease_told_ns = 0;
}

bool journal_link_let_go(struct journal_link *l)
{
    return link_lease_end(l);
}

/* ---- wishes of people ---- */

/* Does it end our promise? The core knows what 0 is in a transfer; of changes those of ourselves do. */
static bool lets_go(const struct journal_link *l, const struct msg_link_admin *m)
{
    bool leaves = text_equal(m->command, TEXT("demote")) || text_equal(m->command, TEXT("remove"));
    return text_equal(m->command, TEXT("transfer")) || (leaves && m->node == l->options.node);
}

static void refuse(struct journal_link *l, const struct msg_link_admin *m, int error)
{
    struct msg_link_admin_answer answer = {.context = m->context, .error = (uint32_t)-error};
    link_send(l, MSG_link_admin_answer, &answer);
}

void link_admin_or_wait(struct journal_link *l, const struct msg_link_admin *m)
{
    struct link_wish *w = &l->wish;
    if (!lets_go(l, m) || link_lease_end(l)) {
        link_on_admin(l, m);
        return;
    }
    w->body.n = 0;
    int r = w->waits ? -CV_BUSY : wire_encode(message_desc(MSG_link_admin), m, &w->body);
    if (r < 0) {
        refuse(l, m, r);
        return;
    }
    w->waits = true;
    w->generation = l->generation;
}

static void look_at_wish(struct journal_link *l)
{
    struct link_wish *w = &l->wish;
    struct msg_link_admin m;
    if (!w->waits || (w->generation == l->generation && !link_lease_end(l)))
        return;
    w->waits = false;
    if (w->generation != l->generation)
        return; /* nobody waits for it any more */
    if (msg_link_admin_decode(w->body.p, w->body.n, &m) == 0)
        link_on_admin(l, &m);
}

/* ---- the master is gone, silent, or says that it cannot lead ---- */

static bool is_able(const struct journal_link *l)
{
    const struct link_session *s = &l->session;
    return !s->silent && (s->can_lead || s->unfit == LINK_UNFIT_DISK || s->unfit == LINK_UNFIT_DAMAGE);
}

/* With one of its disks nearly full a node will soon have to refuse, or to stand, and one that cannot read all has errors to
 * give: then another should lead. */
static bool should_lead(const struct journal_link *l)
{
    bool reluctant = link_disk_is_low(l) || l->session.unfit == LINK_UNFIT_DAMAGE;
    return is_able(l) && !(reluctant && journal_driver_view(l->driver)->voters > 1);
}

int link_tell_app(struct journal_link *l)
{
    struct link_session *s = &l->session;
    bool fit = should_lead(l);
    if (fit || link_lease_end(l))
        s->core_can_lead = fit;
    /* Because of a disk it only should not. */
    bool reluctant = !s->core_can_lead && is_able(l);
    journal_driver_reluctant(l->driver, reluctant);
    return journal_driver_applied(l->driver, s->applied, s->flushed, s->core_can_lead || reluctant);
}

void link_lease_gone(struct journal_link *l, bool dead)
{
    if (dead)
        l->lease_told_ns = 0;
    l->letting_go = !link_lease_end(l);
    if (!l->letting_go)
        journal_driver_attached(l->driver, false);
}

void link_look_at_leases(struct journal_link *l)
{
    struct link_session *s = &l->session;
    look_at_wish(l);
    if (link_has_master(l) && s->core_can_lead != should_lead(l) && (!s->core_can_lead || link_lease_end(l)))
        (void)link_tell_app(l);
    if (l->letting_go && (l->master || link_lease_end(l))) {
        l->letting_go = false;
        if (!l->master)
            journal_driver_attached(l->driver, false);
    }
}
