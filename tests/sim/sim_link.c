/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_link.h"

#include <string.h>

#include "sim_check.h"
#include "sim_mutants.h"
#include "sim_nemesis.h"
#include "sim_node.h"
#include "sim_twin.h"

/* ---- Both streams ---- */

static void send_later(struct node *n, const struct link_message *m, enum event_type type, uint64_t *arrives_us)
{
    struct world *w = n->world;
    if (!n->link.up)
        return;
    struct link_message *copy = sim_alloc(&w->arena, sizeof(*copy));
    *copy = *m;
    bool frame = m->type == TO_MASTER_FRAME; /* the twin's change nothing of the model's course */
    uint64_t at_us = w->now_us + (w->params.link_us && !frame ? between(&w->node_random, 0, w->params.link_us) : 0);
    if (w->now_us < n->link.slow_until_us && !frame)
        at_us += between(&w->node_random, 0, (uint32_t)n->link.slow_us);
    *arrives_us = max(*arrives_us, at_us);
    struct event *e = world_schedule(w, *arrives_us, type);
    e->node = n->slot;
    e->life = n->link.number;
    e->p = copy;
}

void link_send_master(struct node *n, const struct link_message *m)
{
    send_later(n, m, EVENT_TO_MASTER, &n->link.to_master_us);
}

void link_send_journal(struct node *n, const struct link_message *m)
{
    send_later(n, m, EVENT_TO_JOURNAL, &n->link.to_journal_us);
}

static void journal_reset(struct link_state *l)
{
    l->attached = false;
    l->told_durable = l->told_apply_to = l->told_lease = 0;
    l->proposals = NULL;
    l->proposals_end = &l->proposals;
    l->proposing = NULL;
    l->handing_over = false;
}

void link_connect(struct node *n)
{
    struct link_state *l = &n->link;
    if (l->up)
        return;
    l->up = true;
    l->number++;
    journal_reset(l);
    struct link_message m = {
        .type = TO_JOURNAL_ATTACH,
        .index = n->master.state.applied,
        .durable = n->disk.durable.flushed ? n->disk.durable.flushed->applied : 0,
        .flag = !n->master.cannot_lead,
    };
    link_send_journal(n, &m);
}

static void app_input(struct node *n, uint64_t applied, uint64_t flushed, bool can_lead, bool log_full)
{
    struct raft_input in = {.type = RAFT_IN_APP};
    n->link.can_lead = can_lead;
    in.app.applied = applied;
    in.app.flushed = flushed;
    /* Some only should not: a disk that is nearly full. But nobody attached cannot. */
    in.app.reluctant = !can_lead && n->link.attached && n->link.number % 3 == 0;
    in.app.can_lead = can_lead || in.app.reluctant;
    in.app.log_full = log_full;
    int r = node_step(n, &in);
    if (r < 0)
        fail_harm(n->world, "app", "n%u: watermarks are refused: %s", n->slot, cv_error_name(r));
}

void link_break(struct node *n)
{
    struct link_state *l = &n->link;
    if (!l->up)
        return;
    l->up = false;
    l->number++;
    bool attached = l->attached;
    journal_reset(l);
    twin_break(n);
    if (n->master.up)
        master_unlink(n);
    /* The master died: give leadership away at once (raft.md 5.2). */
    if (n->up && attached)
        app_input(n, l->applied, l->flushed, false, false);
}

/* ---- The journal's side: to the master ---- */

static struct link_message status(const struct node *n, enum to_master type)
{
    const struct raft_output *o = &n->out;
    struct world *w = n->world;
    struct node *leader = o->leader ? node_by_id(w, o->leader) : NULL;
    return (struct link_message){
        .type = (uint8_t)type,
        .role = o->role,
        .term = o->term,
        .number = leader ? leader->slot + 1 : 0,
        .start = o->start_index,
        .last = o->last,
        .durable = o->durable,
        .apply_to = o->apply_to,
        /* The core may hand over at any moment while it thinks we cannot lead: then the lease is not safe to give. */
        .lease_ms = n->link.can_lead ? o->lease_until_ms : 0,
    };
}

static void tell(struct node *n, enum to_master type)
{
    struct link_message m = status(n, type);
    n->link.told_durable = m.durable;
    n->link.told_apply_to = m.apply_to;
    n->link.told_lease = m.lease_ms;
    link_send_master(n, &m);
}

static void reject_waiting(struct node *n)
{
    struct link_state *l = &n->link;
    for (struct link_message *p = l->proposals; p; p = p->next) {
        struct link_message m = {.type = TO_MASTER_REJECTED, .number = p->number, .term = p->term};
        link_send_master(n, &m);
    }
    l->proposals = NULL;
    l->proposals_end = &l->proposals;
}

void link_after_step(struct node *n, const struct raft_output *before, const struct raft_output *out)
{
    struct link_state *l = &n->link;
    uint32_t life = n->life, number = l->number;
    twin_after_step(n, before, out);
    if (!l->attached || n->life != life || l->number != number)
        return;
    if (l->proposing && out->proposed_first) {
        struct link_message m = {.type = TO_MASTER_PROPOSED,
                                 .number = l->proposing->number,
                                 .index = out->proposed_first,
                                 .term = l->proposing->term};
        link_send_master(n, &m);
    }
    if (before->term != out->term || before->role != out->role)
        reject_waiting(n);
    if (out->role_changed)
        tell(n, TO_MASTER_ROLE);
    if (out->write.truncate_from) {
        struct link_message m = {.type = TO_MASTER_TRUNCATE, .index = out->write.truncate_from};
        link_send_master(n, &m);
    }
    if (out->durable != l->told_durable || out->apply_to != l->told_apply_to ||
        (l->can_lead ? out->lease_until_ms : 0) != l->told_lease)
        tell(n, TO_MASTER_STATUS);
}

void link_on_installed(struct node *n)
{
    if (!n->link.attached)
        return;
    struct link_message m = {.type = TO_MASTER_INSTALL};
    link_send_master(n, &m);
    tell(n, TO_MASTER_STATUS);
}

void link_answer_read(struct node *n, const struct raft_read *read)
{
    struct link_message m = {
        .type = TO_MASTER_READ, .number = read->context, .index = read->index, .result = read->result};
    link_send_master(n, &m);
}

/* ---- The journal's side: from the master ---- */

static void propose(struct node *n, struct link_message *p)
{
    struct link_state *l = &n->link;
    struct raft_entry e = {.data = p->data, .size = p->size, .type = p->entry_type};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.term = p->term;
    in.propose.entries = &e;
    in.propose.count = 1;
    /* The core's output is carried out in the step: the master must be told the index before what follows from it. */
    l->proposing = p;
    uint32_t life = n->life, number = l->number;
    int r = twin_propose(n, p, &in);
    if (n->life != life || l->number != number)
        return;
    l->proposing = NULL;
    if (r == 0) {
        nemesis_on_propose(n);
        return;
    }
    if (r == -CV_BUSY && !SIM_MUTANT(busy_refused)) {
        /* Order is everything: those behind it wait too. */
        p->next = l->proposals;
        if (!l->proposals)
            l->proposals_end = &p->next;
        l->proposals = p;
        return;
    }
    if (r != -CV_NOT_LEADER && r != -ESTALE && r != -CV_BUSY)
        fail_harm(n->world, "propose", "n%u: a proposal gets %s", n->slot, cv_error_name(r));
    struct link_message m = {.type = TO_MASTER_REJECTED, .number = p->number, .term = p->term};
    link_send_master(n, &m);
}

void link_propose_waiting(struct node *n)
{
    struct link_state *l = &n->link;
    uint32_t life = n->life, number = l->number;
    while (n->life == life && l->number == number && l->proposals) {
        struct link_message *p = l->proposals;
        l->proposals = p->next;
        if (!l->proposals)
            l->proposals_end = &l->proposals;
        propose(n, p);
        if (l->proposals == p)
            return; /* still busy */
    }
}

static void on_propose(struct node *n, struct link_message *p)
{
    struct link_state *l = &n->link;
    if (l->proposals) {
        p->next = NULL;
        *l->proposals_end = p;
        l->proposals_end = &p->next;
        return;
    }
    propose(n, p);
}

static void on_read(struct node *n, uint64_t context)
{
    struct raft_input in = {.type = RAFT_IN_READ, .read.context = context};
    uint32_t life = n->life;
    int r = node_step(n, &in);
    if (n->life != life || r == 0)
        return;
    if (r != -CV_BUSY && r != -CV_NOT_LEADER)
        fail_harm(n->world, "read", "n%u: a read gets %s", n->slot, cv_error_name(r));
    struct raft_read refused = {.context = context, .result = r};
    link_answer_read(n, &refused);
}

static void on_attach(struct node *n, const struct link_message *m)
{
    struct link_state *l = &n->link;
    l->applied = m->index;
    l->flushed = m->durable;
    /* Attached before the step: what follows from it is told. */
    l->attached = true;
    uint32_t life = n->life, number = l->number;
    app_input(n, m->index, m->durable, m->flag, false);
    if (n->life != life || l->number != number)
        return;
    twin_on_attach(n, m);
    tell(n, TO_MASTER_WELCOME);
    /* A snapshot was installed and the journal stopped before it could say so. */
    const struct state *flushed = n->disk.durable.flushed;
    if (flushed && flushed->applied > m->index)
        link_on_installed(n);
}

/* The master gave up its lease in this term: now the core may let go. */
static void after_lease(struct node *n, const struct link_message *m)
{
    struct world *w = n->world;
    n->link.handing_over = false;
    if (n->out.term != m->term || n->out.role != RAFT_LEADER)
        return;
    struct raft_input in = {.type = RAFT_IN_TRANSFER, .transfer.to = m->index};
    if (m->data)
        in = *(const struct raft_input *)m->data;
    else
        w->counters.transfers++;
    int r = node_step(n, &in);
    trace(w, "n%u %s: %s", n->slot, m->data ? "removes itself" : "hands over", r ? cv_error_name(r) : "ok");
}

static void ask_for_lease(struct node *n, struct link_message m)
{
    m.type = TO_MASTER_NO_LEASE;
    m.term = n->out.term;
    if (!n->link.attached) {
        after_lease(n, &m);
    } else if (!n->link.handing_over) {
        n->link.handing_over = true;
        link_send_master(n, &m);
    }
}

void link_transfer(struct node *n, uint64_t to)
{
    twin_on_admin(n, "transfer", to);
    ask_for_lease(n, (struct link_message){.index = to});
}

void link_leave(struct node *n, const struct raft_input *conf)
{
    struct raft_input *copy = sim_alloc(&n->world->arena, sizeof(*copy));
    *copy = *conf;
    twin_on_admin(n, conf->conf.op == RAFT_DEMOTE ? "demote" : "remove", n->id);
    ask_for_lease(n, (struct link_message){.data = copy});
}

void link_on_journal(struct node *n, struct link_message *m)
{
    if (!n->up)
        return;
    switch ((enum to_journal)m->type) {
    case TO_JOURNAL_ATTACH: on_attach(n, m); break;
    case TO_JOURNAL_PROPOSE: on_propose(n, m); break;
    case TO_JOURNAL_APPLIED:
        n->link.applied = m->index;
        n->link.flushed = m->durable;
        twin_on_applied(n, m);
        app_input(n, m->index, m->durable, m->flag, m->flag2);
        break;
    case TO_JOURNAL_FRAME: twin_on_frame(n, m); break;
    case TO_JOURNAL_READ: on_read(n, m->number); break;
    case TO_JOURNAL_NO_LEASE: after_lease(n, m); break;
    }
}

void link_on_master(struct node *n, struct link_message *m)
{
    if (!n->master.up)
        return;
    if (m->type == TO_MASTER_FRAME) {
        twin_master_frame(n, m);
        return;
    }
    if (m->type == TO_MASTER_WELCOME || m->type == TO_MASTER_ROLE || m->type == TO_MASTER_STATUS)
        twin_master_answers_roles(n);
    master_on_link(n, m);
}
