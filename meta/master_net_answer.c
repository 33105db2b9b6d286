/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of a network loop: what they say, and when they may leave. One that rests on our memory waits until it is certain
 * that we still led when it was found, and until what it rests on is as safe as its ack mode asks for; who asks for a leader
 * waits a moment for us to be it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "meta/master_ack.h"
#include "meta/master_import_names.h"
#include "meta/master_mounts.h"
#include "meta/master_net.h"
#include "meta/master_scribe.h"
#include "meta/master_workers.h"

#define ASKERS_MS   100 /* who asks for a leader waits for us to be it */
#define SPARE_MAX   4096
#define SPARE_BYTES (128u << 10)

/* ---- requests ------------------------------------------------------------------------------------------------- */

struct net_request *net_request_new(struct master_net *n)
{
    struct list *e = list_pop_front(&n->spare);
    if (e) {
        n->spare_count--;
        struct net_request *q = list_entry(e, struct net_request, link);
        meta_request_reset(&q->base.meta);
        return q;
    }
    struct net_request *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    meta_request_init(&q->base.meta);
    list_init(&q->link);
    q->net = n;
    q->base.home = &n->home;
    return q;
}

/* Those that have grown (by long listings) are not kept. */
void net_request_drop(struct net_request *q)
{
    struct master_net *n = q->net;
    const struct meta_request *m = &q->base.meta;
    bool large = m->store.room + m->data.room + m->need_room * sizeof(*m->needs) > SPARE_BYTES;
    if (n->spare_count >= SPARE_MAX || large) {
        meta_request_fini(&q->base.meta);
        free(q);
        return;
    }
    list_push_front(&n->spare, &q->link);
    n->spare_count++;
}

void net_look_at(struct net_request *q)
{
    list_push_back(&q->net->arrived, &q->link);
    loop_at_turn_end(q->net->loop, &q->net->turn);
}

/* ---- answering ------------------------------------------------------------------------------------------------ */

void master_net_count(struct master_net *n, enum master_op op, uint64_t received_ns, int error, uint64_t now)
{
    struct master_metrics *m = n->metrics;
    if (!m)
        return;
    histogram_add(&m->op_ns[op], now - received_ns);
    if (error)
        counter_add(&m->op_errors, 1);
    switch (-error) {
    case CV_BUSY: counter_add(&m->refused_busy, 1); break;
    case CV_NOT_LEADER: counter_add(&m->refused_not_leader, 1); break;
    case CV_DEADLINE: counter_add(&m->deadlines_missed, 1); break;
    case CV_CANCELLED: counter_add(&m->cancelled, 1); break;
    default: break;
    }
}

void master_net_refuse(struct master_net *n, struct rpc_request *rpc, int error)
{
    char address[MASTER_ADDRESS_SIZE];
    struct msg_leader_answer leader;
    uint64_t index = n->core->released_index;
    if (error != -CV_NOT_LEADER && error != -CV_UNKNOWN_OUTCOME && error != -CV_STOPPING)
        return rpc_answer(rpc, error, index, NULL, NULL);
    master_core_leader(n->core, address, &leader);
    rpc_answer(rpc, error, index, msg_leader_answer_desc(), &leader);
}

void net_count_answer(struct net_request *q, int error, uint64_t now)
{
    master_net_count(q->net, (enum master_op)q->op, q->received_ns, error, now);
}

static int mask_mounts(const struct net_request *q, struct msg_mount_list_answer *a, struct buf *texts)
{
    struct wire_list masked;
    int r = master_mounts_mask(q->net->o->ufs, &a->mounts, texts, &masked);
    a->mounts = masked;
    return r;
}

/* What the core leaves to the daemon. Texts go into texts. */
static int complete_answer(struct net_request *q, struct buf *texts)
{
    union meta_answer *a = &q->base.meta.answer;
    const struct master_server_options *o = q->net->o;
    struct master_workers_stats w;
    switch (q->op) {
    case MASTER_OP_session_open:
        a->session_open.timeout_ms = (uint32_t)o->options->session_timeout_ms;
        a->session_open.incarnation = q->net->core->incarnation;
        a->session_open.acks_early = q->net->core->acks_early;
        a->session_open.generation = q->net->core->generation;
        return 0;
    case MASTER_OP_sync:
        a->sync.generation = q->net->core->generation;
        a->sync.early = q->net->core->acks_early;
        return 0;
    case MASTER_OP_statfs:
        master_workers_get_stats(o->workers, clock_ns(), &w);
        a->statfs.total_bytes = w.capacity;
        a->statfs.free_bytes = w.capacity - min(w.capacity, w.dirty); /* the rest can be evicted */
        return 0;
    case MASTER_OP_mount_list: return mask_mounts(q, &a->mount_list, texts);
    default: return 0;
    }
}

/* The core knows only that nobody takes data. No capacity: who is up has not told this leader yet what he has. */
static int grant_error(const struct net_request *q)
{
    struct master_workers_stats w;
    master_workers_get_stats(q->net->o->workers, clock_ns(), &w);
    /* Who had room a moment later was away when the core asked. */
    return w.capacity && w.dirty >= w.capacity - w.capacity / 16 ? -CV_NO_SPACE : -CV_NO_WORKER;
}

/* What a read fetched is put into the tree, for those who ask next, by the scribe. */
static bool install(struct net_request *q)
{
    struct master_chain one = {0};
    q->base.install = true;
    master_chain_add(&one, &q->base);
    return master_scribe_push(q->net->scribe, &one) == 0;
}

static bool look_anew(struct net_request *q);

void net_answer(struct net_request *q, int error, uint64_t now)
{
    struct master_net *n = q->net;
    if (q->op == MASTER_OP_origin_changed && !error && look_anew(q))
        return;
    uint64_t index = atomic_load_explicit(&n->core->released_index, memory_order_relaxed);
    struct buf texts = {0};
    n->out.n = 0;
    if (!error)
        error = complete_answer(q, &texts);
    else if (error == -CV_NO_SPACE && q->op == MASTER_OP_write_grant)
        error = grant_error(q);
    if (!error && q->op != MASTER_OP_origin_changed)
        error = meta_answer_encode(&q->base.meta, &n->out);
    buf_fini(&texts);
    net_count_answer(q, error, now);
    if (error)
        master_net_refuse(n, q->rpc, error);
    else
        rpc_answer_body(q->rpc, 0, index, n->out.p, (uint32_t)n->out.n);
    if (!q->fetched || q->base.meta.op_class != META_READ || !install(q))
        net_request_drop(q);
}

void net_answer_own(struct net_request *q, uint64_t now)
{
    struct master_net *n = q->net;
    if (q->outcome == 0 && q->op == MASTER_OP_session_renew) {
        struct msg_session_renew m;
        msg_session_renew_decode(q->rpc->body, q->rpc->header.body_len, &m);
        struct msg_session_renew_answer a = {(uint32_t)n->o->options->lease_ms, m.lease_epoch,
                                             master_workers_version(n->o->workers, now), n->core->acks_early,
                                             n->core->generation};
        net_count_answer(q, 0, now);
        rpc_answer(q->rpc, 0, n->core->released_index, msg_session_renew_answer_desc(), &a);
    } else {
        net_count_answer(q, q->outcome, now);
        master_net_refuse(n, q->rpc, q->outcome);
    }
    net_request_drop(q);
}

static void looked_anew_run(struct loop_job *job)
{
    struct net_request *q = container_of(container_of(job, struct master_import_wait, job), struct net_request, wait);
    buf_fini(&q->name);
    q->name = (struct buf){0};
    net_answer(q, q->wait.result == -ENOENT ? 0 : q->wait.result, clock_ns());
}

/* A worker met another object than the one we named: import what is there now under that name, once. Returns whether it is
 * on its way. */
static bool look_anew(struct net_request *q)
{
    const struct msg_origin_answer *a = &q->base.meta.answer.origin;
    struct msg_origin_changed m;
    const char *slash = a->key.n ? memrchr(a->key.p, '/', a->key.n) : NULL;
    uint32_t before = slash ? (uint32_t)(slash + 1 - a->key.p) : 0;
    if (q->asked++ || msg_origin_changed_decode(q->rpc->body, q->rpc->header.body_len, &m) < 0 ||
        m.version != a->version)
        return false;
    if (import_name_of((struct text){a->key.p + before, a->key.n - before}, false, &q->name) < 0)
        return false;
    COUNT(q->net, origins_changed, 1);
    q->wait = (struct master_import_wait){
        .directory = a->parent,
        .name = {(const char *)q->name.p, (uint32_t)q->name.n},
        .deadline_ns = q->rpc->deadline_ns,
        .cancelled = &q->rpc->cancelled,
        .loop = q->net->loop,
        .job.run = looked_anew_run,
    };
    master_import_want(q->net->o->import, &q->wait);
    return true;
}

/* ---- answers that wait: do we lead, and does what they rest on stay? ------------------------------------------ */

static bool is_read(const struct net_request *q)
{
    return q->op != MASTER_OP_session_renew && q->base.meta.op_class == META_READ;
}

static void wait_in(struct list *waiting, struct net_request *q)
{
    COUNT(q->net, waits, 1);
    struct list *before = waiting->prev; /* mostly the highest */
    while (before != waiting && list_entry(before, struct net_request, link)->base.meta.depends > q->base.meta.depends)
        before = before->prev;
    list_insert_after(before, &q->link);
}

/* We led when it was found. Mutations have waited for their batch with the scribe. */
static void settle_certain(struct net_request *q, uint64_t now)
{
    const struct master_core *c = q->net->core;
    struct meta_request *m = &q->base.meta;
    if (q->op == MASTER_OP_session_renew)
        return net_answer_own(q, now);
    if (!is_read(q))
        return net_answer(q, m->error, now);
    if (q->op == MASTER_OP_sync)
        m->depends = max(m->depends, atomic_load(&c->early));
    enum ack_mode mode = master_ack_mode(m, q->net->o->options->ack_mode, now >= c->mount_acks_ns);
    if (m->depends > atomic_load(&c->safe[ACK_QUORUM]) && m->depends > atomic_load(&c->safe[mode]))
        wait_in(&q->net->waiting[mode], q);
    else
        net_answer(q, m->error, now);
}

/* The answer is found. Returns false when it has to wait for a majority to confirm that we lead. */
static bool settle_now(struct net_request *q, uint64_t now)
{
    struct master_request *b = &q->base;
    int r = b->certain ? 0 : master_core_certain(q->net->core, b->term, b->executed_ns, now);
    if (r == -CV_BUSY)
        return false;
    if (r == 0) {
        settle_certain(q, now);
    } else if (q->op == MASTER_OP_session_renew) {
        q->outcome = r;
        net_answer_own(q, now);
    } else {
        net_answer(q, r, now);
    }
    return true;
}

void net_settle(struct net_request *q, uint64_t now)
{
    if (settle_now(q, now))
        return;
    COUNT(q->net, confirmations_wanted, 1);
    list_push_back(&q->net->uncertain, &q->link);
    master_scribe_confirm(q->net->scribe);
}

static void confirm_some(struct master_net *n, uint64_t now)
{
    struct list list = LIST_INIT(list);
    list_append_all(&list, &n->uncertain);
    for (struct list *e; (e = list_pop_front(&list));) {
        struct net_request *q = list_entry(e, struct net_request, link);
        if (!settle_now(q, now))
            list_push_back(&n->uncertain, &q->link);
    }
    /* A question that was asked after the last of them was found is enough for all. */
    if (!list_empty(&n->uncertain) &&
        list_entry(n->uncertain.prev, struct net_request, link)->base.executed_ns > n->core->asked_ns)
        master_scribe_confirm(n->scribe);
}

/* Answer what may leave; look again at what rests on batches that were taken back. */
static void release_some(const struct list *waiting, uint64_t released, uint64_t view, uint64_t now)
{
    list_for_each_safe (e, waiting) {
        struct net_request *q = list_entry(e, struct net_request, link);
        bool safe = q->base.meta.depends <= released;
        if (!safe && q->view == view)
            return;
        list_remove(&q->link);
        if (safe)
            net_answer(q, q->base.meta.error, now);
        else
            net_look_at(q);
    }
}

/* All that answers wait for. */
struct standing {
    uint64_t leading, lease_until_ns, confirmed_ns, safe[ACK_MODES], view;
};

static struct standing standing_of(const struct master_core *c)
{
    struct standing s = {
        .leading = c->leading, .lease_until_ns = c->lease_until_ns, .confirmed_ns = c->confirmed_ns, .view = c->view};
    for (int mode = 0; mode < ACK_MODES; mode++)
        s.safe[mode] = max((uint64_t)c->safe[mode], (uint64_t)c->safe[ACK_QUORUM]);
    return s;
}

bool net_anybody_waits(const struct master_net *n)
{
    for (int mode = 0; mode < ACK_MODES; mode++)
        if (!list_empty(&n->waiting[mode]))
            return true;
    return !list_empty(&n->uncertain) || !list_empty(&n->askers);
}

/* ---- who leads? ----------------------------------------------------------------------------------------------- */

void master_net_answer_askers(struct master_net *n, uint64_t before_ns)
{
    while (!list_empty(&n->askers)) {
        struct master_asker *a = list_entry(n->askers.next, struct master_asker, link);
        char address[MASTER_ADDRESS_SIZE];
        struct msg_leader_answer m;
        if (a->received_ns >= before_ns) {
            loop_timer_start(n->loop, &n->askers_timer, a->received_ns + ASKERS_MS * NS_PER_MS);
            return;
        }
        list_remove(&a->link);
        master_core_leader(n->core, address, &m);
        master_net_count(n, MASTER_OP_leader, a->received_ns, 0, clock_ns());
        rpc_answer(a->rpc, 0, n->core->released_index, msg_leader_answer_desc(), &m);
        free(a);
    }
    loop_timer_stop(n->loop, &n->askers_timer);
}

void net_askers_fired(struct loop_timer *timer)
{
    struct master_net *n = container_of(timer, struct master_net, askers_timer);
    master_net_answer_askers(n, clock_ns() - ASKERS_MS * NS_PER_MS + 1);
}

int master_net_wait_for_leader(struct master_net *n, struct rpc_request *rpc)
{
    struct master_asker *a = n->stopped ? NULL : malloc(sizeof(*a));
    if (!a)
        return n->stopped ? -CV_STOPPING : -ENOMEM;
    *a = (struct master_asker){.rpc = rpc, .received_ns = clock_ns()};
    list_init(&a->link);
    list_push_back(&n->askers, &a->link);
    if (!loop_timer_running(&n->askers_timer))
        loop_timer_start(n->loop, &n->askers_timer, a->received_ns + ASKERS_MS * NS_PER_MS);
    net_release_waiting(n, a->received_ns); /* it may serve by now; and wants to be woken */
    return 0;
}

void net_release_waiting(struct master_net *n, uint64_t now)
{
    struct standing is, before;
    do {
        before = standing_of(n->core);
        if (before.leading)
            master_net_answer_askers(n, UINT64_MAX);
        confirm_some(n, now);
        for (int mode = 0; mode < ACK_MODES; mode++)
            release_some(&n->waiting[mode], before.safe[mode], before.view, now);
        if (!net_anybody_waits(n))
            return;
        /* Ask to be woken, then look once more: see struct master_home. */
        int content = HOME_CONTENT;
        atomic_compare_exchange_strong(&n->home.state, &content, HOME_WAITS);
        is = standing_of(n->core);
    } while (memcmp(&is, &before, sizeof(is)) != 0);
}

void net_wake_run(struct loop_job *job)
{
    struct master_net *n = container_of(job, struct master_net, home.wake);
    atomic_store(&n->home.state, HOME_CONTENT);
    net_release_waiting(n, clock_ns());
}
