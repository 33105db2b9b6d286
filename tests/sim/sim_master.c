/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_master.h"

#include <assert.h>
#include <string.h>

#include "sim_check.h"
#include "sim_clients.h"
#include "sim_mutants.h"
#include "sim_node.h"
#include "sim_space.h"

enum { ID_GRANT = 6 }; /* few, so that grants run out */

static bool is_committed(const struct master *m, uint64_t batch)
{
    return batch < m->first_batch;
}

static uint64_t batches_waiting(const struct master *m)
{
    return m->next_batch - m->first_batch;
}

/* ---- Proposals ---- */

static void propose(struct node *n, const struct batch *b)
{
    if (b->data->count)
        trace(n->world, "n%u master proposes batch %llu: client %u request %llu and %u more", n->slot,
              (unsigned long long)b->number, b->data->ops[0].client, (unsigned long long)b->data->ops[0].seq,
              b->data->count - 1);
    else
        trace(n->world, "n%u master proposes batch %llu of the namespace alone", n->slot,
              (unsigned long long)b->number);
    struct link_message p = {
        .type = TO_JOURNAL_PROPOSE,
        .entry_type = RAFT_BATCH,
        .number = b->number,
        .term = b->term,
        .data = b->data,
        .size = batch_size(b->data),
    };
    link_send_journal(n, &p);
}

static void timer(struct node *n, uint64_t us, uint64_t batch)
{
    struct event *e = world_schedule(n->world, n->world->now_us + us, EVENT_MASTER);
    e->node = n->slot;
    e->life = n->master.life;
    e->value = batch;
}

static void close_batch(struct node *n)
{
    struct master *m = &n->master;
    if (!m->open)
        return;
    m->open = false;
    struct batch *b = master_batch(m, m->next_batch - 1);
    if (m->space)
        b->space_number = space_close(m->space, &b->data);
    propose(n, b);
}

static struct batch *open_batch(struct node *n)
{
    struct master *m = &n->master;
    struct world *w = n->world;
    if (m->open)
        return master_batch(m, m->next_batch - 1);
    if (batches_waiting(m) >= MASTER_BATCHES - 1)
        return NULL;
    struct batch *b = master_batch(m, m->next_batch);
    *b = (struct batch){
        .number = m->next_batch,
        .term = m->term,
        .digest_before = view_digest(m),
        .data = sim_alloc(&w->arena, sizeof(*b->data)),
    };
    b->data->executed_term = m->term;
    if (m->space) {
        b->space_number = space_open_number(m->space);
        b->space_before = space_dump(m->space);
    }
    m->next_batch++;
    m->open = true;
    if (w->params.batch_ops > 1)
        timer(n, w->params.batch_us, b->number);
    return b;
}

/* Nothing in flight: at once. Else when it is full, or after its time. */
static void close_when_due(struct node *n)
{
    struct master *m = &n->master;
    struct world *w = n->world;
    if (!m->open)
        return;
    const struct batch *b = master_batch(m, m->next_batch - 1);
    if (b->data->count >= min(w->params.batch_ops, (uint32_t)BATCH_OPS) || batches_waiting(m) == 1)
        close_batch(n);
}

static void grant_ids(struct node *n)
{
    struct master *m = &n->master;
    if (m->granting || !master_serves(m) || n->world->params.clients == 0)
        return;
    struct grant_data *g = sim_alloc(&n->world->arena, sizeof(*g));
    *g = (struct grant_data){.executed_term = m->term, .from = m->state.granted, .to = m->state.granted + ID_GRANT};
    m->granting = true;
    struct link_message p = {
        .type = TO_JOURNAL_PROPOSE, .entry_type = RAFT_ID_LEASE, .term = m->term, .data = g, .size = sizeof(*g)};
    link_send_journal(n, &p);
}

/* ---- The namespace beside it ---- */

/* The batch an answer rests on, as the namespace says; it may not say less than we know. */
static uint64_t rests_on(struct node *n, uint64_t known, uint64_t depends)
{
    struct master *m = &n->master;
    uint64_t number = 0;
    if (SIM_MUTANT(space_depends_ignored))
        return 0;
    for (uint64_t i = m->next_batch; depends && i > m->first_batch && !number; i--)
        if (master_batch(m, i - 1)->space_number == depends)
            number = i - 1;
    if (!is_committed(m, known) && number < known)
        fail_harm(n->world, "space_depends", "n%u: an answer rests on batch %llu, the namespace says %llu", n->slot,
                  (unsigned long long)known, (unsigned long long)number);
    return number;
}

/* Something of the namespace alone, in a batch: what comes before a client's first request, or what it asks of itself.
 * A batch that stays empty is not proposed. */
static void space_work(struct node *n, int client)
{
    struct master *m = &n->master;
    bool was_open = m->open;
    struct batch *b = open_batch(n);
    uint64_t session = 0;
    if (!b)
        return;
    bool done = client < 0 ? space_inner(m->space) : space_prepare(m->space, (uint32_t)client, &session);
    if (session) {
        b->data->session = session;
        b->data->session_client = (uint64_t)client;
    }
    if (!done && !was_open) {
        m->next_batch--;
        m->open = false;
        return;
    }
    m->preparing = client < 0 ? m->preparing : b->number;
    close_when_due(n);
}

static bool space_serves(struct node *n, uint32_t client)
{
    struct master *m = &n->master;
    space_lead(m->space, m->term);
    enum space_client is = space_client(m->space, client);
    if (is == SPACE_NO_SESSION && (m->preparing < m->first_batch || m->preparing >= m->next_batch))
        space_work(n, (int)client);
    return is == SPACE_READY;
}

static void space_take(struct node *n, const struct sim_entry *e, const struct batch *own)
{
    struct master *m = &n->master;
    const struct batch_data *b = (const void *)e->data;
    if (own && own->space_number)
        space_committed(m->space, own->space_number, e->index);
    else if (!own && e->type == RAFT_BATCH && b->space_n && batches_waiting(m))
        fail_harm(n->world, "speculation", "n%u: entry %llu is not ours, and batches of ours wait", n->slot,
                  (unsigned long long)e->index);
    else
        space_apply(m->space, e);
    space_check_applied(n, e->index, batches_waiting(m) == 0);
}

/* ---- Answers ---- */

static bool lease_holds(const struct node *n)
{
    const struct master *m = &n->master;
    bool given_up = m->no_lease || (m->cannot_lead && !SIM_MUTANT(lease_kept_at_master));
    return !given_up && node_now_ms(n) < m->lease_ms;
}

static void finish(struct node *n, struct waiter *w)
{
    w->used = false;
    w->answer.slot = (uint8_t)n->slot;
    client_answer(n, &w->answer);
}

static void refuse(struct node *n, struct waiter *w, int result)
{
    w->answer.result = result;
    w->answer.hint = n->master.leader_hint;
    finish(n, w);
}

static void ask_read_index(struct node *n, struct waiter *w)
{
    struct master *m = &n->master;
    w->asked = true;
    struct link_message r = {.type = TO_JOURNAL_READ,
                             .number = (uint64_t)++m->read_number << 8 | (uint64_t)(w - m->waiters)};
    w->read_number = m->read_number;
    link_send_journal(n, &r);
}

/* Are the conditions of the ack mode met for everything the answer rests on? */
static bool may_leave(const struct master *m, const struct waiter *w)
{
    if (w->batch == 0 || is_committed(m, w->batch))
        return true;
    if (w->answer.mode == ACK_APPLIED)
        return true;
    const struct batch *b = &m->batches[w->batch % MASTER_BATCHES];
    return w->answer.mode == ACK_LOCAL && b->index && (b->index <= m->durable || SIM_MUTANT(local_ack_early)) &&
           b->term == m->term;
}

static void try_answer(struct node *n, struct waiter *w)
{
    struct master *m = &n->master;
    if (w->at_follower) {
        if (!w->confirmed || m->state.applied < w->read_index)
            return;
        w->answer.version = m->state.rows[w->request.key];
        uint64_t depends;
        if (m->space && batches_waiting(m) == 0)
            space_expect(m->space, w->request.key, w->answer.version, false, &depends);
        finish(n, w);
        return;
    }
    if (!may_leave(m, w))
        return;
    /* What was only read must still have been the newest: leadership is looked at last, just before the answer. */
    if (w->needs_leader && !w->confirmed && !(m->leading && lease_holds(n))) {
        if (!w->asked)
            ask_read_index(n, w);
        return;
    }
    finish(n, w);
}

static void try_answers(struct node *n)
{
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++)
        if (n->master.waiters[i].used)
            try_answer(n, &n->master.waiters[i]);
}

static void refuse_all(struct node *n, int result)
{
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++)
        if (n->master.waiters[i].used)
            refuse(n, &n->master.waiters[i], result);
}

/* Undo batches from number on; who waits for them asks again. */
static void undo_from(struct node *n, uint64_t number)
{
    overlay_undo(n, number);
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++) {
        struct waiter *w = &n->master.waiters[i];
        if (w->used && w->batch >= number)
            refuse(n, w, -CV_UNKNOWN_OUTCOME);
    }
}

/* ---- Requests ---- */

static void execute(struct node *n, struct waiter *w)
{
    struct master *m = &n->master;
    const struct request *r = &w->request;
    uint64_t row_batch = 0, depends;
    uint64_t before = r->type == OP_ID ? 0 : view_row(m, r->key, &row_batch);
    bool negative = (r->type == OP_SWAP && before != r->expected) || (r->type == OP_REMOVE && !version_exists(before));
    if (r->type == OP_GET || negative) {
        w->answer.result = negative ? -EEXIST : 0;
        w->answer.version = before;
        w->batch = row_batch;
        w->needs_leader = true;
        if (m->space) {
            space_expect(m->space, r->key, before, negative, &depends);
            w->batch = rests_on(n, row_batch, depends);
        }
        if ((negative && SIM_MUTANT(negative_answer_early)) || (!negative && SIM_MUTANT(read_not_waiting)))
            w->batch = 0;
        try_answer(n, w);
        return;
    }
    uint64_t id = m->id_next;
    if (r->type == OP_ID && SIM_MUTANT(id_lease_ignored)) {
        id = m->id_last + 1;
    } else if (r->type == OP_ID && m->id_next == m->id_end) {
        grant_ids(n);
        refuse(n, w, -CV_BUSY);
        return;
    }
    struct batch *b = open_batch(n);
    if (!b) {
        refuse(n, w, -CV_BUSY);
        return;
    }
    struct op op = {
        .type = r->type,
        .key = r->key,
        .client = r->client,
        .seq = r->seq,
        .before = before,
        .after = r->type == OP_ID ? id : r->version,
    };
    if (m->space && space_execute(m->space, &op, &depends) == -CV_BUSY) {
        space_inner(m->space);
        close_when_due(n);
        refuse(n, w, -CV_BUSY);
        return;
    }
    if (r->type == OP_ID) {
        m->id_next += !SIM_MUTANT(id_lease_ignored);
        check_id(n, id);
    }
    overlay_execute(m, b, &op);
    if (SIM_MUTANT(effect_before_commit) && op.type == OP_REMOVE)
        check_effect(n, &op);
    w->answer.version = op.after;
    w->batch = m->space ? rests_on(n, b->number, depends) : b->number;
    close_when_due(n);
    try_answer(n, w);
}

void master_on_request(struct node *n, const struct request *r)
{
    struct master *m = &n->master;
    if (!m->up)
        return;
    struct waiter *w = &m->waiters[r->client];
    if (w->used && w->request.seq >= r->seq)
        return; /* a repeated request: the original is waiting */
    *w = (struct waiter){
        .used = true,
        .request = *r,
        .answer = {.client = r->client, .seq = r->seq, .mode = r->mode, .type = r->type},
    };
    if (r->type == OP_GET && r->follower && m->attached) {
        w->at_follower = true;
        ask_read_index(n, w);
        return;
    }
    if (!master_serves(m)) {
        refuse(n, w, -CV_NOT_LEADER);
        return;
    }
    if (m->space && !space_serves(n, r->client)) {
        refuse(n, w, -CV_BUSY);
        return;
    }
    uint64_t slot_batch;
    const struct slot_row *slot = view_slot(m, r->client, &slot_batch);
    if (r->type != OP_GET && r->seq < slot->seq) {
        w->used = false; /* its client has gone on: nobody waits */
        return;
    }
    if (r->type != OP_GET && r->seq == slot->seq) {
        /* A retry joins the original. */
        w->answer.version = slot->result;
        w->batch = slot_batch;
        if (m->space) {
            const struct op op = {.client = r->client,
                                  .seq = r->seq,
                                  .type = r->type,
                                  .key = r->key,
                                  .after = slot->result,
                                  .plan = (uint8_t)slot->plan};
            uint64_t depends;
            space_repeat(m->space, &op, &depends);
            w->batch = rests_on(n, slot_batch, depends);
        }
        try_answer(n, w);
        return;
    }
    execute(n, w);
}

/* ---- What is committed ---- */

static void release_effects(struct node *n, const struct sim_entry *e)
{
    const struct batch_data *b = (const void *)e->data;
    if (!n->master.leading || e->type != RAFT_BATCH)
        return;
    for (uint32_t i = 0; i < b->count; i++)
        if (b->ops[i].type == OP_REMOVE)
            check_effect(n, &b->ops[i]);
}

static void apply(struct node *n, const struct sim_entry *e)
{
    struct master *m = &n->master;
    trace(n->world, "n%u master applies entry %llu of term %llu", n->slot, (unsigned long long)e->index,
          (unsigned long long)e->term);
    const char *problem = state_apply(&m->state, e);
    if (problem)
        fail_harm(n->world, "state", "n%u, entry %llu: %s", n->slot, (unsigned long long)e->index, problem);
    const struct batch *own = NULL;
    if (batches_waiting(m)) {
        struct batch *b = master_batch(m, m->first_batch);
        if (b->index == e->index && b->term == e->term) {
            own = b;
            m->first_batch++;
            overlay_commit(m, b);
        } else if (e->type == RAFT_BATCH && b->index == e->index) {
            fail_harm(n->world, "speculation", "n%u: entry %llu is committed in another form than proposed", n->slot,
                      (unsigned long long)e->index);
        }
    }
    m->id_last = max(m->id_last, m->state.id_last);
    if (e->type == RAFT_ID_LEASE && m->leading && e->term == m->term) {
        const struct grant_data *g = (const void *)e->data;
        m->granting = false;
        m->id_next = max(g->from, (uint64_t)1);
        m->id_end = g->to;
    }
    check_applied(n, &m->state);
    if (m->space)
        space_take(n, e, own);
    release_effects(n, e);
}

static void apply_to(struct node *n, uint64_t index)
{
    struct master *m = &n->master;
    const struct disk_image *log = &n->disk.live;
    uint64_t before = m->state.applied;
    /* A snapshot may have replaced what we were told of: TO_MASTER_INSTALL is on its way. */
    while (m->state.applied < index && m->state.applied + 1 >= log->first && m->state.applied < log->last)
        apply(n, log->entries[m->state.applied + 1]);
    if (m->state.applied == before)
        return;
    master_report(n);
    if (m->space && master_serves(m) && !m->open && batches_waiting(m) == 0) {
        space_lead(m->space, m->term);
        space_work(n, -1);
    }
}

static void drop_speculation(struct node *n)
{
    struct master *m = &n->master;
    overlay_undo(n, 0);
    if (m->space)
        space_follow(m->space);
    m->id_last = m->state.id_last;
    m->granting = false;
    m->id_next = m->id_end = 0;
}

/* The namespace from what is on the disk, or was fetched. */
static void space_begin(struct node *n)
{
    struct master *m = &n->master;
    m->space = space_free(m->space);
    if (!n->world->params.space)
        return;
    m->space = space_new(n->world, n->slot, m->state.base);
    space_check_applied(n, m->state.applied, true);
}

static void on_install(struct node *n)
{
    struct master *m = &n->master;
    const struct state *s = n->disk.durable.flushed;
    if (!s || s->applied <= m->state.applied)
        return;
    drop_speculation(n);
    m->state = *s;
    m->id_last = s->id_last;
    check_applied(n, &m->state);
    if (!SIM_MUTANT(space_not_installed))
        space_begin(n);
    master_report(n);
}

/* ---- The link ---- */

static void on_role(struct node *n, const struct link_message *l)
{
    struct master *m = &n->master;
    bool leads = l->role == RAFT_LEADER;
    if (!leads || l->term != m->term) {
        /* Proposals without an answer before this message will be refused: they were executed under an older term. */
        uint64_t number = m->next_batch;
        while (number > m->first_batch && master_batch(m, number - 1)->index == 0)
            number--;
        undo_from(n, number);
        refuse_all(n, -CV_UNKNOWN_OUTCOME);
        if (m->space)
            space_follow(m->space);
        m->granting = false;
        m->id_next = m->id_end = 0;
        m->no_lease = m->cannot_lead;
    }
    m->leading = leads;
    m->term = l->term;
    m->leader_hint = (uint32_t)l->number;
    m->durable = l->durable;
    m->lease_ms = l->lease_ms;
    m->start_index = l->start;
    m->serve_from = l->start;
}

static void on_welcome(struct node *n, const struct link_message *l)
{
    struct master *m = &n->master;
    m->attached = true;
    m->term = 0;
    on_role(n, l);
    /* A predecessor of ours may have proposed what we do not know of: it is all below this. */
    if (!SIM_MUTANT(serve_before_attach_caught_up))
        m->serve_from = max(m->start_index, l->last);
}

static void on_proposed(struct node *n, const struct link_message *l)
{
    struct master *m = &n->master;
    if (l->number < m->first_batch || l->number >= m->next_batch)
        return; /* a grant of ids */
    struct batch *b = master_batch(m, l->number);
    if (b->term == l->term)
        b->index = l->index;
    trace(n->world, "n%u master: batch %llu is entry %llu", n->slot, (unsigned long long)l->number,
          (unsigned long long)l->index);
}

static void on_truncate(struct node *n, uint64_t from)
{
    struct master *m = &n->master;
    uint64_t number = m->next_batch;
    while (number > m->first_batch) {
        const struct batch *b = master_batch(m, number - 1);
        if (b->index && b->index < from)
            break;
        number--;
    }
    undo_from(n, number);
}

static void on_read_index(struct node *n, const struct link_message *l)
{
    struct waiter *w = &n->master.waiters[l->number & 0xff];
    if (!w->used || w->read_number != l->number >> 8)
        return;
    if (l->result < 0) {
        refuse(n, w, -CV_NOT_LEADER);
        return;
    }
    w->confirmed = true;
    w->read_index = l->index;
}

void master_on_link(struct node *n, const struct link_message *l)
{
    struct master *m = &n->master;
    switch ((enum to_master)l->type) {
    case TO_MASTER_WELCOME: on_welcome(n, l); break;
    case TO_MASTER_ROLE: on_role(n, l); break;
    case TO_MASTER_STATUS:
        m->durable = l->durable;
        m->lease_ms = l->lease_ms;
        break;
    case TO_MASTER_PROPOSED: on_proposed(n, l); return;
    case TO_MASTER_REJECTED:
        if (l->term != m->term)
            break; /* undone already, with the change of role */
        if (l->number == 0)
            m->granting = false;
        else if (l->number >= m->first_batch)
            undo_from(n, l->number);
        break;
    case TO_MASTER_TRUNCATE: on_truncate(n, l->index); return;
    case TO_MASTER_FRAME: return; /* the twin's */
    case TO_MASTER_INSTALL: on_install(n); break;
    case TO_MASTER_READ: on_read_index(n, l); break;
    case TO_MASTER_NO_LEASE:
        if (l->term == m->term && !SIM_MUTANT(lease_kept_at_master))
            m->no_lease = true;
        struct link_message yes = *l;
        yes.type = TO_JOURNAL_NO_LEASE;
        link_send_journal(n, &yes);
        return;
    }
    apply_to(n, l->apply_to);
    close_when_due(n);
    try_answers(n);
    if (m->id_next == m->id_end)
        grant_ids(n);
}

void master_report(struct node *n)
{
    struct master *m = &n->master;
    if (!m->attached)
        return;
    struct link_message l = {
        .type = TO_JOURNAL_APPLIED,
        .index = m->state.applied,
        .durable = n->disk.durable.flushed ? n->disk.durable.flushed->applied : 0,
        .flag = !m->cannot_lead,
        .flag2 = m->log_full,
    };
    link_send_journal(n, &l);
}

/* ---- Life ---- */

static void flush(struct node *n)
{
    struct master *m = &n->master;
    struct state *copy = sim_alloc(&n->world->arena, sizeof(*copy));
    *copy = m->state;
    if (m->space) {
        copy->base = space_flush(m->space);
        space_check_base(n, copy->base, copy->applied);
    }
    check_flushed(n, copy);
    n->disk.live.flushed = n->disk.durable.flushed = copy;
}

void master_on_timer(struct node *n, uint64_t batch)
{
    struct master *m = &n->master;
    struct world *w = n->world;
    if (batch) {
        if (m->open && m->next_batch - 1 == batch)
            close_batch(n);
        return;
    }
    timer(n, (uint64_t)w->params.flush_ms * SIM_MS, 0);
    const struct state *flushed = n->disk.durable.flushed;
    if (m->space && !m->sealed) {
        space_seal(m->space); /* and write it next time */
        m->sealed = true;
    } else if (m->state.applied > (flushed ? flushed->applied : 0)) {
        m->sealed = false;
        flush(n);
        master_report(n);
    }
}

void master_start(struct node *n)
{
    struct master *m = &n->master;
    struct world *w = n->world;
    uint32_t life = m->life;
    bool cannot_lead = m->cannot_lead, log_full = m->log_full;
    assert(!m->space);
    memset(m, 0, sizeof(*m));
    m->life = life + 1;
    m->up = true;
    m->cannot_lead = cannot_lead;
    m->log_full = log_full;
    m->first_batch = m->next_batch = 1;
    if (n->disk.durable.flushed)
        m->state = *n->disk.durable.flushed;
    m->id_last = m->state.id_last;
    check_applied(n, &m->state);
    space_begin(n);
    trace(w, "n%u master starts at %llu", n->slot, (unsigned long long)m->state.applied);
    timer(n, between(&w->node_random, 1, w->params.flush_ms) * SIM_MS, 0);
}

void master_stop(struct node *n)
{
    n->master.up = false;
    n->master.life++;
    n->master.attached = n->master.leading = false;
    n->master.space = space_free(n->master.space);
}

void master_unlink(struct node *n)
{
    struct master *m = &n->master;
    m->attached = m->leading = false;
    m->lease_ms = 0;
    drop_speculation(n);
    refuse_all(n, -CV_UNKNOWN_OUTCOME);
}
