/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_twin.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "sim_check.h"
#include "sim_mutants.h"
#include "sim_node.h"
#include "sim_store.h"

enum {
    TWIN_CREDIT_BYTES = 1 << 20,
    TWIN_RING = 1 << 14,
    TWIN_RING_SCRIPTED = 1 << 20,
    TWIN_CONNS = 4,
    TWIN_SILENT_MS = 1000000000
};

struct rpc_conn {
    struct twin *t; /* NULL: free */
    const struct rpc_conn_ops *ops;
    void *user;
    bool closed;
    int reason;
};

/* One loop and one driver a journal: both are the twin. */
struct loop {
    struct loop_hook *hook;
    struct loop_timer *timer;
    struct io_op *accept, *work;
    bool cancelled;
};

struct twin {
    struct node *n;
    struct loop loop;
    struct journal_link *link;
    struct journal_ring *ring;
    struct journal_metrics metrics;
    struct journal_view view;
    struct rpc_conn conns[TWIN_CONNS], *conn; /* conn: the newest */
    struct rpc_conn *health;                  /* of the master's beats, when a script wants them */
    uint64_t behind_ns;                       /* of a mutant: see twin_on_tick() */
    uint64_t ticked_ns;
    uint64_t lease_ns, lease_term; /* the latest a living master was told, in this term */
    struct twin_master master;
    bool attaching; /* somebody attaches at this moment */
    uint32_t depth; /* calls into the link under way */
    bool dead;

    /* The proposal the model gives to the core at this moment. */
    struct raft_input *in;
    struct journal_record *const *records;
    uint64_t first; /* the index it got; 0: none */
    int result;
    bool asked;
};

#define twin_of_loop(l_)   container_of(l_, struct twin, loop)
#define twin_of_driver(d_) ((struct twin *)(uintptr_t)(d_)) /* struct journal_driver is never defined here */

/* ---- In place of the loop ---- */

bool loop_is_here(const struct loop *loop)
{
    return true;
}

uint64_t loop_now(const struct loop *loop)
{
    const struct twin *t = twin_of_loop(loop);
    return node_now_ms(t->n) * 1000000 - t->behind_ns + (SIM_MUTANT(link_lease_forgotten) ? 1ull << 60 : 0);
}

void loop_at_turn_end(struct loop *loop, struct loop_hook *hook)
{
    loop->hook = hook;
}

void loop_hook_cancel(struct loop *loop, struct loop_hook *hook)
{
    loop->hook = NULL;
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t at_ns)
{
    loop->timer = timer;
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    loop->timer = NULL;
}

void io_accept(struct loop *loop, struct io_op *op, int fd, void (*done)(struct io_op *, int))
{
    op->done = done;
    op->loop = loop;
    op->state = 1;
    loop->accept = op;
}

void io_work(struct loop *loop, struct io_op *op, int (*work)(void *arg), void *arg, void (*done)(struct io_op *, int))
{
    op->done = done;
    op->work = work;
    op->work_arg = arg;
    op->state = 1;
    loop->work = op;
}

void io_cancel(struct io_op *op)
{
    if (op->state)
        op->loop->cancelled = true;
}

int loop_close(struct loop *loop, int fd)
{
    return -1;
}

int net_parse(const char *text, uint16_t default_port, struct net_address *ret)
{
    return 0;
}

int net_listen_at_start(const struct net_address *address, mode_t mode, int *ret)
{
    *ret = -1;
    return 0;
}

static void finish(struct io_op *op, int result)
{
    op->state = 0;
    op->done(op, result);
}

/* What the loop would do before it sleeps. */
static void settle(struct twin *t)
{
    struct loop *loop = &t->loop;
    for (bool busy = true; busy;) {
        busy = false;
        struct loop_hook *hook = take(loop->hook);
        struct io_op *work = take(loop->work);
        if (hook)
            hook->run(hook);
        if (work)
            finish(work, t->dead ? -CV_STOPPING : work->work(work->work_arg));
        if (loop->cancelled && loop->accept)
            finish(take(loop->accept), -ECANCELED);
        for (uint32_t i = 0; i < TWIN_CONNS; i++) {
            struct rpc_conn *c = &t->conns[i];
            if (!c->t || !c->closed)
                continue;
            c->ops->closed(c, c->reason, c->user);
            c->t = NULL;
            busy = true;
        }
        busy = busy || hook || work;
    }
}

/* ---- In place of the connection ---- */

int rpc_conn_new(struct loop *loop, int fd, const struct rpc_conn_ops *ops, void *user,
                 const struct rpc_conn_limits *limits, struct rpc_conn **ret)
{
    struct twin *t = twin_of_loop(loop);
    struct rpc_conn *c = t->conns;
    while (c->t)
        c++;
    assert(c < t->conns + TWIN_CONNS);
    *c = (struct rpc_conn){.t = t, .ops = ops, .user = user};
    t->conn = *ret = c;
    return 0;
}

bool rpc_conn_is_open(const struct rpc_conn *c)
{
    return c->t && !c->closed && !c->t->dead;
}

bool rpc_conn_congested(const struct rpc_conn *c)
{
    return false;
}

const char *rpc_conn_peer(const struct rpc_conn *c)
{
    return "twin";
}

int rpc_conn_credentials(const struct rpc_conn *c, struct net_credentials *ret)
{
    *ret = (struct net_credentials){.uid = geteuid(), .gid = getegid()};
    return 0;
}

void rpc_conn_close(struct rpc_conn *c, int reason)
{
    struct twin *t = c->t;
    if (c == t->conn && !c->closed && reason != -CV_CLOSED && reason != -CV_STOPPING)
        fail_harm(t->n->world, "link_dropped", "n%u: the link drops a master that keeps the rules: %s", t->n->slot,
                  cv_error_name(reason));
    c->closed = true;
    c->reason = reason;
}

void rpc_conn_finish(struct rpc_conn *c, int reason)
{
    c->closed = true;
    c->reason = reason;
}

/* A lease of an earlier leadership that was lost in spite of it is the core's business, check_lease(). */
static void check_role_sent(struct twin *t, const struct msg_link_role *m)
{
    if (m->term != t->lease_term)
        t->lease_ns = 0;
    t->lease_term = m->term;
    t->lease_ns = max(t->lease_ns, m->lease_until_ns);
}

/* What is sent must be true at this moment. */
static void check_sent(struct twin *t, uint16_t type, const void *record)
{
    const struct node *n = t->n;
    if (type == MSG_link_role)
        check_role_sent(t, record);
    uint64_t durable = type == MSG_link_durable ? ((const struct msg_link_durable *)record)->index : 0;
    if (durable > n->out.durable)
        fail_harm(n->world, "link_early", "n%u: the link tells %llu as durable, the disk has %llu", n->slot,
                  (unsigned long long)durable, (unsigned long long)n->out.durable);
}

int rpc_conn_send_data(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, const struct iovec *data, unsigned count)
{
    struct twin *t = c->t;
    if (c != t->conn || t->dead)
        return 0; /* nobody listens */
    check_sent(t, header->type, record);
    size_t n = wire_size(desc, record), all = n;
    for (unsigned i = 0; i < count; i++)
        all += data[i].iov_len;
    uint8_t *bytes = sim_alloc(&t->n->world->arena, all + 1), *end = wire_put(desc, record, bytes);
    for (unsigned i = 0; i < count; i++) {
        if (data[i].iov_len)
            memcpy(end, data[i].iov_base, data[i].iov_len);
        end += data[i].iov_len;
    }
    struct link_message m = {.type = TO_MASTER_FRAME, .number = header->type, .data = bytes, .size = (uint32_t)n};
    link_send_master(t->n, &m);
    return 0;
}

int rpc_conn_send(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                  const void *record)
{
    return rpc_conn_send_data(c, header, desc, record, NULL, 0);
}

static void leave(struct twin *t);

/* A frame arrives. */
static void deliver_on(struct rpc_conn *c, uint16_t type, const void *record, const void *data, uint32_t data_n)
{
    struct twin *t = c->t;
    struct buf body cleanup(buf_fini) = {0};
    if (wire_encode(message_desc(type), record, &body) < 0)
        abort();
    /* Of their exact sizes, so that reading past them is seen. */
    struct rpc_frame f = {
        .header = {.type = type, .body_len = (uint32_t)body.n, .data_len = data_n}, .body = body.p, .data = data};
    t->depth++;
    c->ops->frame(c, &f, c->user);
    leave(t);
}

/* The same of the master. */
static void deliver(struct twin *t, uint16_t type, const void *record, const void *data, uint32_t data_n)
{
    deliver_on(t->conn, type, record, data, data_n);
}

/* ---- In place of the driver ---- */

const struct journal_view *journal_driver_view(const struct journal_driver *d)
{
    struct twin *t = twin_of_driver(d);
    const struct raft_output *o = &t->n->out;
    t->view = (struct journal_view){
        .role = o->role,
        .term = o->term,
        .leader = o->leader,
        .first = t->n->disk.live.first,
        .last = t->n->disk.live.last,
        .durable = o->durable,
        .commit = o->commit,
        .apply_to = SIM_MUTANT(link_told_early) ? max(o->apply_to, o->durable) : o->apply_to,
        .lease_until_ns = o->lease_until_ms * 1000000,
    };
    const struct raft_conf *conf = t->n->raft ? journal_driver_conf(d) : NULL;
    t->view.voters = conf ? raft_conf_voters(conf) : 0;
    t->view.members = conf ? conf->count : 0;
    return &t->view;
}

struct journal_ring *journal_driver_ring(struct journal_driver *d)
{
    return twin_of_driver(d)->ring;
}

struct journal_store *journal_driver_store(struct journal_driver *d)
{
    return store_open(twin_of_driver(d)->n);
}

struct journal_metrics *journal_driver_metrics(struct journal_driver *d)
{
    return &twin_of_driver(d)->metrics;
}

const struct raft *journal_driver_raft(const struct journal_driver *d)
{
    return twin_of_driver(d)->n->raft;
}

const struct raft_conf *journal_driver_conf(const struct journal_driver *d)
{
    uint64_t index;
    return raft_conf_newest(twin_of_driver(d)->n->raft, &index);
}

int journal_driver_term(const struct journal_driver *d, uint64_t index, uint64_t *ret)
{
    return raft_term(twin_of_driver(d)->n->raft, index, ret);
}

/* What ends this leadership: no lease that a master was told may be left. */
static void check_let_go(struct twin *t, const char *what)
{
    const struct node *n = t->n;
    if (!t->dead && n->out.role == RAFT_LEADER && node_now_ms(n) * 1000000 <= t->lease_ns &&
        journal_driver_view((struct journal_driver *)(void *)t)->voters > 1)
        fail_harm(n->world, "link_lease", "n%u: %s, and the master has a lease for %llu ms", n->slot, what,
                  (unsigned long long)(t->lease_ns / 1000000 - node_now_ms(n)));
}

/* The core gets these inputs from the model; here is only what the driver itself refuses. */
int journal_driver_applied(struct journal_driver *d, uint64_t applied, uint64_t flushed, bool can_lead)
{
    const struct node *n = twin_of_driver(d)->n;
    if (!can_lead && !twin_of_driver(d)->attaching)
        check_let_go(twin_of_driver(d), "the master cannot lead");
    return applied > max(n->out.apply_to, n->disk.live.last) || flushed > applied ? -CV_LOG_DAMAGED : 0;
}

void journal_driver_reluctant(struct journal_driver *d, bool reluctant)
{
}

void journal_driver_attached(struct journal_driver *d, bool attached)
{
    if (!attached)
        check_let_go(twin_of_driver(d), "the master is gone");
}

int journal_driver_read(struct journal_driver *d, uint64_t context)
{
    return -CV_STOPPING;
}

int journal_driver_transfer(struct journal_driver *d, uint64_t to)
{
    check_let_go(twin_of_driver(d), "it hands over");
    return -CV_STOPPING;
}

int journal_driver_change(struct journal_driver *d, enum raft_conf_op op, const struct raft_member *member,
                          uint64_t *ret_index)
{
    check_let_go(twin_of_driver(d), "it leaves");
    return -CV_STOPPING;
}

int journal_driver_status(struct journal_driver *d, struct buf *out)
{
    return -CV_STOPPING;
}

/* After an installed snapshot the twin rests. */
uint64_t journal_driver_installed(const struct journal_driver *d, const char **ret_directory)
{
    *ret_directory = "";
    return 0;
}

/* Dialing other journals is not part of it. */
int link_identify(struct journal_link *l, const struct msg_link_admin *m)
{
    return -CV_STOPPING;
}

void link_identify_stop(struct journal_link *l)
{
}

int journal_driver_propose(struct journal_driver *d, uint64_t term, struct journal_record *const *records,
                           uint32_t count, uint64_t *ret_first)
{
    struct twin *t = twin_of_driver(d);
    struct raft_input *in = t->in;
    struct node *n = t->n;
    if (!in)
        return -CV_BUSY; /* the model gives it again when it thinks so */
    const struct raft_entry *e = in->propose.entries;
    const struct journal_entry *own = &records[0]->entry;
    if (count != 1 || own->size != e->size || own->type != e->type || term != in->propose.term ||
        (e->size && memcmp(own->data, e->data, e->size) != 0))
        fail_harm(n->world, "link_propose", "n%u: the link proposes something else than the master", n->slot);
    t->asked = true;
    t->records = records;
    t->first = 0;
    t->result = node_step(n, in);
    t->records = NULL;
    if (t->dead && !t->first)
        return -CV_STOPPING;
    *ret_first = t->first;
    return t->dead ? 0 : t->result; /* after a crash: the record is the driver's already */
}

/* ---- Life ---- */

static void destroy(struct twin *t);
static void stopped(void *arg)
{
}

static void check_counts(const struct twin *t)
{
    const struct link_session *s = &t->link->session;
    uint32_t count = s->pending_count;
    for (uint32_t i = 0; i < s->range_count; i++)
        count += (uint32_t)(s->ranges[i].last - s->ranges[i].first + 1);
    if (count != s->inflight_entries || s->inflight_bytes > TWIN_CREDIT_BYTES + LINK_PAYLOAD_MAX)
        fail_harm(t->n->world, "link_credit", "n%u: %u entries are in flight, the link counts %u", t->n->slot, count,
                  s->inflight_entries);
}

static void leave(struct twin *t)
{
    if (t->depth > 1) {
        t->depth--;
        return;
    }
    if (!t->dead)
        settle(t);
    t->depth--;
    if (t->dead)
        destroy(t);
    else
        check_counts(t);
}

void twin_start(struct node *n)
{
    const struct params *p = &n->world->params;
    if (!p->link || !p->store || n->journal_only)
        return;
    struct twin *t = n->twin = calloc(1, sizeof(*t));
    uint32_t ring = n->world->scripted ? TWIN_RING_SCRIPTED : TWIN_RING;
    if (!t || journal_ring_new(ring, ring, &t->ring) < 0)
        abort();
    t->n = n;
    struct journal_link_options o = {.loop = &t->loop,
                                     .socket = "",
                                     .credit_bytes = TWIN_CREDIT_BYTES,
                                     .silent_ms = TWIN_SILENT_MS,
                                     .cluster = {{1}},
                                     .node = n->id};
    struct journal_driver *d = (struct journal_driver *)(void *)t;
    if (log_get_level() > LOG_LEVEL_ERROR)
        log_set_level(LOG_LEVEL_ERROR);
    if (journal_link_new(&o, &t->link) < 0 || journal_link_start(t->link, d) < 0)
        abort();
}

static void destroy(struct twin *t)
{
    t->dead = true;
    t->n->twin_dying = NULL;
    t->depth++;
    journal_link_stop(t->link, stopped, NULL);
    settle(t);
    journal_link_free(t->link);
    journal_ring_free(t->ring);
    free(t);
}

void twin_end(struct node *n)
{
    struct twin *t = take(n->twin);
    if (!t)
        return;
    t->dead = true;
    n->twin_dying = t;
    if (!t->depth)
        destroy(t);
}

void twin_clear(struct world *w, bool crashed)
{
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *n = w->nodes[i];
        if (!n)
            continue;
        struct twin *t = n->twin ? n->twin : n->twin_dying;
        n->twin = n->twin_dying = NULL;
        if (t && !crashed)
            destroy(t);
    }
}

/* ---- What the driver tells ---- */

void twin_on_write(struct node *n, const struct raft_write *write)
{
    struct twin *t = n->twin;
    if (!t)
        return;
    if (write->install.index) {
        twin_end(n);
        return;
    }
    if (write->truncate_from)
        journal_ring_truncate(t->ring, write->truncate_from);
    for (uint32_t i = 0; i < write->count; i++) {
        const struct raft_entry *e = &write->entries[i];
        struct journal_record *record;
        if (t->records) {
            record = t->records[i];
            t->first = write->first;
        } else {
            if (journal_ring_alloc_always(t->ring, e->size, &record) < 0)
                abort();
            if (e->size)
                memcpy(record->data, e->data, e->size);
            record->entry.type = e->type;
            record->entry.data_crc = crc32c(0, e->data, e->size);
        }
        journal_ring_add(t->ring, record, write->first + i, e->term);
        journal_ring_unpin(t->ring, record); /* the disk has its own copy */
    }
}

void twin_after_step(struct node *n, const struct raft_output *before, const struct raft_output *out)
{
    struct twin *t = n->twin;
    if (!t)
        return;
    t->depth++;
    if (out->role_changed)
        journal_link_app.role(t->link);
    if (out->write.truncate_from)
        journal_link_app.truncated(t->link, out->write.truncate_from);
    journal_link_app.progress(t->link);
    bool nested = t->depth > 1;
    leave(t);
    if (nested || n->twin != t || !link_has_master(t->link))
        return;
    const struct link_session *s = &t->link->session;
    if (s->told < out->apply_to && s->frame_count < LINK_FRAMES_MAX)
        fail_harm(n->world, "link_late", "n%u: the link has told %llu, the model %llu", n->slot,
                  (unsigned long long)s->told, (unsigned long long)out->apply_to);
}

/* ---- What the model's master says ---- */

struct twin_master *twin_master_of(struct node *n)
{
    return n->twin && n->twin->conn ? &n->twin->master : NULL;
}

void twin_on_attach(struct node *n, const struct link_message *m)
{
    struct twin *t = n->twin;
    if (!t || m->durable > m->index)
        return; /* its state comes by a snapshot */
    struct rpc_conn *old = t->conn;
    t->depth++;
    finish(take(t->loop.accept), 0);
    leave(t);
    t->master = (struct twin_master){.told = m->index};
    struct msg_link_attach in = {
        .master = n->link.number,
        .applied = m->index - (SIM_MUTANT(link_resends_wrong) && m->index),
        .flushed = m->durable,
        .can_lead = m->flag,
    };
    t->attaching = true;
    deliver(t, MSG_link_attach, &in, NULL, 0);
    if (n->twin == t)
        t->attaching = false;
    if (n->twin == t && old && rpc_conn_is_open(old))
        fail_harm(n->world, "link_two", "n%u: two masters are attached", n->slot);
}

static bool attached(const struct twin *t)
{
    return t && t->conn && rpc_conn_is_open(t->conn) && t->link->master;
}

void twin_break(struct node *n)
{
    struct twin *t = n->twin;
    if (!t || !t->conn)
        return;
    struct rpc_conn *c = take(t->conn);
    t->master.attached = false;
    t->lease_ns = 0; /* it is dead */
    if (!rpc_conn_is_open(c) || n->link.number % 2)
        return; /* its end is not noticed before the next attach */
    t->depth++;
    rpc_conn_close(c, -CV_CLOSED);
    leave(t);
}

void twin_on_admin(struct node *n, const char *command, uint64_t node)
{
    struct twin *t = n->twin;
    if (!attached(t))
        return;
    struct msg_link_admin in = {.context = 1, .command = text_of(command), .node = node};
    deliver(t, MSG_link_admin, &in, NULL, 0);
}

void twin_on_tick(struct node *n)
{
    struct twin *t = n->twin;
    if (!t)
        return;
    uint64_t now = node_now_ms(n) * 1000000, step = 50000000;
    t->depth++;
    /* The mutant: all the time it stood still is there, as if it had turned. */
    for (uint64_t at = t->ticked_ns; SIM_MUTANT(link_silence_of_its_own) && t->ticked_ns && at + step < now;
         at += step) {
        t->behind_ns = now - at;
        t->loop.timer->fire(t->loop.timer);
    }
    t->behind_ns = 0;
    t->ticked_ns = now;
    t->loop.timer->fire(t->loop.timer);
    leave(t);
}

void twin_on_health(struct node *n, uint32_t silent_ms)
{
    struct twin *t = n->twin;
    if (!t->health) {
        struct rpc_conn *masters = t->conn;
        t->link->options.silent_ms = silent_ms;
        t->depth++;
        finish(take(t->loop.accept), 0);
        leave(t);
        t->health = t->conn;
        t->conn = masters;
    }
    struct msg_link_health in = {.beat = 1, .master = n->link.number};
    deliver_on(t->health, MSG_link_health, &in, NULL, 0);
}

bool twin_is_silent(const struct node *n)
{
    return n->twin->link->session.silent;
}

void twin_on_applied(struct node *n, const struct link_message *m)
{
    struct twin *t = n->twin;
    if (!attached(t))
        return;
    const struct link_session *s = &t->link->session;
    uint64_t applied = s->frame_count == LINK_FRAMES_MAX ? min(m->index, s->told) : m->index;
    struct msg_link_applied in = {.applied = applied, .flushed = min(m->durable, applied), .can_lead = m->flag};
    deliver(t, MSG_link_applied, &in, NULL, 0);
}

void twin_on_frame(struct node *n, const struct link_message *m)
{
    struct twin *t = n->twin;
    if (!attached(t))
        return;
    struct msg_link_role_seen in = {.term = m->term};
    t->master.sequence = 0;
    deliver(t, MSG_link_role_seen, &in, NULL, 0);
}

static void send_proposal(struct twin *t, uint64_t term, uint8_t type, const void *data, uint32_t size)
{
    struct msg_link_propose m = {
        .term = term,
        .sequence = ++t->master.sequence,
        .payload_crc = crc32c(0, data, size),
        .entry_type = type,
    };
    deliver(t, MSG_link_propose, &m, data, size);
}

int twin_propose(struct node *n, const struct link_message *p, struct raft_input *in)
{
    struct twin *t = n->twin;
    if (!attached(t))
        return node_step(n, in);
    t->depth++;
    t->in = in;
    t->asked = false;
    if (t->link->session.pending_count == 0)
        send_proposal(t, p->term, p->entry_type, p->data, p->size);
    t->loop.timer->fire(t->loop.timer);
    int r = t->asked ? t->result : 0;
    bool asked = t->asked;
    t->in = NULL;
    leave(t);
    if (asked)
        return r;
    r = node_step(n, in);
    if (r == 0)
        fail_harm(n->world, "link_refused", "n%u: the link refuses what the core takes", n->slot);
    return r;
}

void twin_flood(struct node *n, uint32_t count)
{
    struct twin *t = n->twin;
    struct twin_master *m = &t->master;
    for (uint32_t i = 0; i < count; i++) {
        if (m->own_count + i >= m->credit_entries && !SIM_MUTANT(link_ignores_credit))
            return;
        send_proposal(t, n->out.term, RAFT_BATCH, "x", 1);
    }
}
