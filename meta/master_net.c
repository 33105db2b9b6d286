/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One network loop. A request is in one place at a time:
 *
 *      arrived --turn--> [read lock] --> uncertain --> waiting for `released` --> answered
 *          ^   \                    \--> with the scribe --> uncertain ----------> answered
 *          |    \--> file thread (rows from disk) --.
 *          |-----------------------------------------'------ with the scribe: rows left memory: again
 *          '--> thread ufs (names of an under file system) --> again
 */
#include "meta/master_net.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "meta/master_ack.h"
#include "meta/master_import_names.h"
#include "meta/master_mounts.h"
#include "meta/master_own.h"
#include "meta/master_sessions.h"
#include "meta/master_workers.h"

#define GROUP_MAX   64   /* looked at under one lock: bounds how long the scribe waits */
#define ROUNDS_MAX  16   /* a request that finds its rows in the database's memory this often goes to a thread */
#define ASKERS_MS   100  /* who asks for a leader waits for us to be it */
#define ASKED_MAX   4096 /* names one request asks under file systems for: a path has no more */
#define SPARE_MAX   4096
#define SPARE_BYTES (128u << 10)

#define COUNT(n, name, by)                                                                                             \
    do {                                                                                                               \
        if ((n)->metrics)                                                                                              \
            counter_add(&(n)->metrics->name, (by));                                                                    \
    } while (0)

/* ---- requests ----------------------------------------------------------------------------------------------------- */

static struct net_request *request_new(struct master_net *n)
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
static void request_drop(struct net_request *q)
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

static void look_at(struct net_request *q)
{
    list_push_back(&q->net->arrived, &q->link);
    loop_at_turn_end(q->net->loop, &q->net->turn);
}

/* ---- answering ---------------------------------------------------------------------------------------------------- */

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

static void count_answer(struct net_request *q, int error, uint64_t now)
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

static void answer(struct net_request *q, int error, uint64_t now)
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
    count_answer(q, error, now);
    if (error)
        master_net_refuse(n, q->rpc, error);
    else
        rpc_answer_body(q->rpc, 0, index, n->out.p, (uint32_t)n->out.n);
    if (!q->fetched || q->base.meta.op_class != META_READ || !install(q))
        request_drop(q);
}

/* ---- answers that wait: do we lead, and does what they rest on stay? ------------------------------------------------- */

static void answer_own(struct net_request *q, uint64_t now);

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
        return answer_own(q, now);
    if (!is_read(q))
        return answer(q, m->error, now);
    if (q->op == MASTER_OP_sync)
        m->depends = max(m->depends, atomic_load(&c->early));
    enum ack_mode mode = master_ack_mode(m, q->net->o->options->ack_mode, now >= c->mount_acks_ns);
    if (m->depends > atomic_load(&c->safe[ACK_QUORUM]) && m->depends > atomic_load(&c->safe[mode]))
        wait_in(&q->net->waiting[mode], q);
    else
        answer(q, m->error, now);
}

/* The answer is found. Returns false when it has to wait for a majority to confirm that we lead. */
static bool settle(struct net_request *q, uint64_t now)
{
    struct master_request *b = &q->base;
    int r = b->certain ? 0 : master_core_certain(q->net->core, b->term, b->executed_ns, now);
    if (r == -CV_BUSY)
        return false;
    if (r == 0) {
        settle_certain(q, now);
    } else if (q->op == MASTER_OP_session_renew) {
        q->outcome = r;
        answer_own(q, now);
    } else {
        answer(q, r, now);
    }
    return true;
}

static void settle_or_wait(struct net_request *q, uint64_t now)
{
    if (settle(q, now))
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
        if (!settle(q, now))
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
            answer(q, q->base.meta.error, now);
        else
            look_at(q);
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

static bool anybody_waits(const struct master_net *n)
{
    for (int mode = 0; mode < ACK_MODES; mode++)
        if (!list_empty(&n->waiting[mode]))
            return true;
    return !list_empty(&n->uncertain) || !list_empty(&n->askers);
}

/* ---- who leads? ------------------------------------------------------------------------------------------------------- */

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

static void askers_fired(struct loop_timer *timer)
{
    struct master_net *n = container_of(timer, struct master_net, askers_timer);
    master_net_answer_askers(n, clock_ns() - ASKERS_MS * NS_PER_MS + 1);
}

static void release_waiting(struct master_net *n, uint64_t now);

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
    release_waiting(n, a->received_ns); /* it may serve by now; and wants to be woken */
    return 0;
}

static void release_waiting(struct master_net *n, uint64_t now)
{
    struct standing is, before;
    do {
        before = standing_of(n->core);
        if (before.leading)
            master_net_answer_askers(n, UINT64_MAX);
        confirm_some(n, now);
        for (int mode = 0; mode < ACK_MODES; mode++)
            release_some(&n->waiting[mode], before.safe[mode], before.view, now);
        if (!anybody_waits(n))
            return;
        /* Ask to be woken, then look once more: see struct master_home. */
        int content = HOME_CONTENT;
        atomic_compare_exchange_strong(&n->home.state, &content, HOME_WAITS);
        is = standing_of(n->core);
    } while (memcmp(&is, &before, sizeof(is)) != 0);
}

static void wake_run(struct loop_job *job)
{
    struct master_net *n = container_of(job, struct master_net, home.wake);
    atomic_store(&n->home.state, HOME_CONTENT);
    release_waiting(n, clock_ns());
}

static void take_back(struct loop_job *job)
{
    struct master_request *next = container_of(job, struct master_request, job);
    struct master_net *n = container_of(next->home, struct master_net, home);
    uint64_t now = clock_ns();
    for (struct master_request *q; (q = next);) {
        next = q->next;
        struct net_request *r = container_of(q, struct net_request, base);
        if (q->install)
            request_drop(r);
        else if (q->again)
            look_at(r);
        else
            settle_or_wait(r, now);
    }
    release_waiting(n, now);
}

/* ---- the turn ----------------------------------------------------------------------------------------------------- */

static int fetch_work(void *arg)
{
    struct net_request *q = arg;
    return meta_fetch(&q->net->core->base, &q->base.meta, false);
}

static void fetch_done(struct io_op *op, int result)
{
    struct net_request *q = container_of(op, struct net_request, fetch);
    if (result < 0)
        answer(q, result, clock_ns());
    else
        look_at(q);
}

/* What there is to say without the core: 0: go on. */
static int refuse(const struct net_request *q, uint64_t now)
{
    if (atomic_load_explicit(&q->rpc->cancelled, memory_order_relaxed))
        return -CV_CANCELLED;
    if (q->rpc->deadline_ns < now)
        return -CV_DEADLINE;
    return master_core_leads(q->net->core) ? 0 : -CV_NOT_LEADER;
}

/* [R] */
static int renew_session(struct net_request *q, uint64_t now)
{
    struct msg_session_renew m;
    int r = msg_session_renew_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r < 0)
        return r;
    if (!meta_session_exists(q->net->core->meta, m.session))
        return -CV_SESSION_ENDED;
    master_sessions_heard(q->net->o->sessions, m.session, now);
    return 0;
}

/* [R] One request; the outcome says what comes next: 0 or an error: answer; EXECUTE, FETCH, LIST. */
enum { EXECUTE = 1, FETCH = 2, LIST = 3 };

static int run_one(struct net_request *q, uint64_t now)
{
    struct master_core *c = q->net->core;
    int r = refuse(q, now);
    q->base.certain = r < 0;
    if (r < 0)
        return r;
    q->base.term = atomic_load_explicit(&c->leading, memory_order_acquire);
    if (q->op == MASTER_OP_session_renew)
        return renew_session(q, now);
    q->view = atomic_load_explicit(&c->view, memory_order_relaxed);
    bool reads = q->base.meta.op_class == META_READ;
    r = reads ? meta_read(c->meta, &q->base.meta) : meta_prepare(c->meta, &q->base.meta);
    if (r == 0)
        return reads ? 0 : EXECUTE;
    if (r == -CV_NOT_LISTED)
        return c->disks_low ? -ENOSPC : LIST; /* names that come in take room, too */
    return FETCH;
}

/* Off the lock: get its rows, at once if the database has them in memory. */
static void fetch(struct net_request *q, uint64_t now)
{
    struct master_net *n = q->net;
    q->fetched = true;
    COUNT(n, fetches, 1);
    int r = q->rounds++ < ROUNDS_MAX ? meta_fetch(&n->core->base, &q->base.meta, true) : -CV_NOT_PREPARED;
    if (r == 0) {
        look_at(q);
    } else if (r == -CV_NOT_PREPARED) {
        COUNT(n, fetches_blocking, 1);
        q->rounds = 0;
        io_work(n->loop, &q->fetch, fetch_work, q, fetch_done);
    } else {
        answer(q, r, now);
    }
}

/* What the under file system said, or why it cannot say. */
static void listed_run(struct loop_job *job)
{
    struct net_request *q = container_of(container_of(job, struct master_import_wait, job), struct net_request, wait);
    int r = q->wait.result;
    if (r == -ENOENT)
        meta_unlisted_absent(&q->base.meta);
    if (r == 0 || r == -ENOENT)
        look_at(q);
    else
        answer(q, r, clock_ns());
}

static void looked_anew_run(struct loop_job *job)
{
    struct net_request *q = container_of(container_of(job, struct master_import_wait, job), struct net_request, wait);
    buf_fini(&q->name);
    q->name = (struct buf){0};
    answer(q, q->wait.result == -ENOENT ? 0 : q->wait.result, clock_ns());
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

/* Off the lock: let the under file system be asked. */
static void list_names(struct net_request *q, uint64_t now)
{
    struct master_net *n = q->net;
    if (q->asked++ == ASKED_MAX)
        return answer(q, -CV_BUSY, now);
    COUNT(n, unlisted, 1);
    q->wait = (struct master_import_wait){
        .directory = q->base.meta.unlisted.directory,
        .name = q->base.meta.unlisted.name,
        .deadline_ns = q->rpc->deadline_ns,
        .cancelled = &q->rpc->cancelled,
        .loop = n->loop,
        .job.run = listed_run,
    };
    master_import_want(n->o->import, &q->wait);
}

static void answer_own(struct net_request *q, uint64_t now)
{
    struct master_net *n = q->net;
    if (q->outcome == 0 && q->op == MASTER_OP_session_renew) {
        struct msg_session_renew m;
        msg_session_renew_decode(q->rpc->body, q->rpc->header.body_len, &m);
        struct msg_session_renew_answer a = {(uint32_t)n->o->options->lease_ms, m.lease_epoch,
                                             master_workers_version(n->o->workers, now), n->core->acks_early,
                                             n->core->generation};
        count_answer(q, 0, now);
        rpc_answer(q->rpc, 0, n->core->released_index, msg_session_renew_answer_desc(), &a);
    } else {
        count_answer(q, q->outcome, now);
        master_net_refuse(n, q->rpc, q->outcome);
    }
    request_drop(q);
}

/* Off the lock: send each where its outcome says. */
static void dispatch(struct net_request *q, struct master_chain *to_scribe, uint64_t now)
{
    if (q->outcome == EXECUTE) {
        q->base.again = false;
        q->base.certain = true; /* until the scribe finds that nothing of it is committed */
        q->base.deadline_ns = q->rpc->deadline_ns;
        q->base.cancelled = &q->rpc->cancelled;
        master_chain_add(to_scribe, &q->base);
    } else if (q->outcome == FETCH) {
        fetch(q, now);
    } else if (q->outcome == LIST) {
        list_names(q, now);
    } else if (q->outcome < 0 && q->op != MASTER_OP_session_renew) {
        answer_own(q, now);
    } else {
        q->base.executed_ns = now;
        settle_or_wait(q, now);
    }
}

static void look_at_group(struct master_net *n, struct master_chain *to_scribe)
{
    struct list group = LIST_INIT(group);
    for (int i = 0; i < GROUP_MAX && !list_empty(&n->arrived); i++)
        list_push_back(&group, list_pop_front(&n->arrived));
    uint64_t now = clock_ns();
    master_core_read_lock(n->core);
    list_for_each (e, &group) {
        struct net_request *q = list_entry(e, struct net_request, link);
        q->outcome = run_one(q, now);
    }
    master_core_unlock(n->core);
    now = clock_ns();
    list_for_each_safe (e, &group) {
        struct net_request *q = list_entry(e, struct net_request, link);
        list_remove(&q->link);
        dispatch(q, to_scribe, now);
    }
}

static void turn_run(struct loop_hook *hook)
{
    struct master_net *n = container_of(hook, struct master_net, turn);
    struct master_chain to_scribe = {0};
    while (!list_empty(&n->arrived))
        look_at_group(n, &to_scribe);
    int r = master_scribe_push(n->scribe, &to_scribe);
    if (r < 0)
        for (struct master_request *q; (q = master_chain_take(&to_scribe));)
            answer(container_of(q, struct net_request, base), r, clock_ns());
    if (anybody_waits(n))
        release_waiting(n, clock_ns());
}

/* ---- mounts: their under file system is asked first ----------------------------------------------------------------- */

static void refuse_mount(struct net_request *q, const struct master_ufs_check *c)
{
    const struct msg_mount_add_answer a = {.reason = text_of(c->message), .error = (uint32_t)-c->result};
    count_answer(q, c->result, clock_ns());
    rpc_answer(q->rpc, 0, q->net->core->released_index, msg_mount_add_answer_desc(), &a);
    request_drop(q);
}

static void checked_run(struct loop_job *job)
{
    struct net_request *q = container_of(job, struct net_request, back);
    struct master_ufs_check *c = q->check;
    q->check = NULL;
    if (c->result == 0)
        look_at(q);
    else if (c->result == -CV_STOPPING || c->result == -ECANCELED)
        answer(q, -CV_STOPPING, clock_ns());
    else
        refuse_mount(q, c);
    master_ufs_check_free(c);
}

/* On the thread ufs. */
static void check_done(struct master_ufs_check *c)
{
    struct net_request *q = c->arg;
    loop_post(q->net->loop, &q->back);
}

static int preflight(struct net_request *q)
{
    const struct msg_mount_add *m = &q->base.meta.message.mount_add;
    int r = refuse(q, clock_ns());
    if (r < 0)
        return r;
    if (q->base.meta.caller.uid != 0)
        return -EPERM;
    if (m->uri.n == 0) { /* scratch */
        look_at(q);
        return 0;
    }
    r = master_ufs_check_new(m->uri, &m->params, &q->check);
    if (r < 0)
        return r;
    q->back.run = checked_run;
    q->check->done = check_done;
    q->check->arg = q;
    master_ufs_check(q->net->o->ufs, q->check);
    return 0;
}

/* ---- from the network --------------------------------------------------------------------------------------------- */

/* Decoded, and it may speak for whom it does: on its way. */
static int begin(struct net_request *q)
{
    struct meta_caller *caller = &q->base.meta.caller;
    switch (q->op) {
    case MASTER_OP_mount_add:
    case MASTER_OP_mount_remove:
    case MASTER_OP_mount_set:
    case MASTER_OP_upgrade:
        if (master_peer_may_administer(rpc_peer_user(q->rpc->peer), caller))
            caller->uid = 0;
        if (q->op == MASTER_OP_mount_add)
            return preflight(q);
        break;
    case MASTER_OP_origin:
    case MASTER_OP_origin_changed:
    case MASTER_OP_blocks_check:
        if (!master_peer_is_worker(q->rpc->peer))
            return -EPERM;
        break;
    default: break;
    }
    look_at(q);
    return 0;
}

static void on_request(struct rpc_request *rpc, void *user)
{
    struct master_net *n = user;
    if (master_own_serves(rpc->header.type))
        return master_own_request(n, rpc);
    struct net_request *q = request_new(n);
    if (!q)
        return rpc_answer(rpc, -ENOMEM, 0, NULL, NULL);
    q->rpc = rpc;
    q->op = (uint8_t)master_op_of(rpc->header.type);
    q->received_ns = loop_now(n->loop);
    q->rounds = 0;
    q->asked = 0;
    q->fetched = q->base.install = false;
    int r = 0;
    if (q->op != MASTER_OP_session_renew) {
        /* What changed is first looked up like an origin: its message begins in the same way. */
        uint16_t type = rpc->header.type == MSG_origin_changed ? MSG_origin : rpc->header.type;
        r = meta_request_decode(&q->base.meta, type, rpc->body, rpc->header.body_len);
        if (r == 0)
            r = master_peer_check(rpc_peer_user(rpc->peer), &q->base.meta.caller);
    }
    if (r == 0)
        r = begin(q);
    if (r == 0)
        return;
    q->outcome = r;
    answer_own(q, loop_now(n->loop));
}

static int on_hello(struct rpc_peer *peer, const struct msg_hello *hello, struct msg_hello_answer *answer, void *user)
{
    struct master_net *n = user;
    struct master_peer *p;
    int r = master_peer_new(peer, &p);
    if (r < 0)
        return r;
    rpc_peer_set_user(peer, p);
    answer->incarnation = n->core->incarnation;
    return 0;
}

static void on_gone(struct rpc_peer *peer, void *user)
{
    master_peer_free(rpc_peer_user(peer));
}

int master_net_init(struct master_net *n, uint32_t number, struct master_core *core, struct master_scribe *scribe,
                    const struct master_server_options *o)
{
    *n = (struct master_net){.core = core, .scribe = scribe, .o = o};
    list_init(&n->arrived);
    for (int mode = 0; mode < ACK_MODES; mode++)
        list_init(&n->waiting[mode]);
    list_init(&n->uncertain);
    list_init(&n->askers);
    loop_timer_init(&n->askers_timer, askers_fired);
    list_init(&n->spare);
    loop_hook_init(&n->turn, turn_run);
    snprintf(n->name, sizeof(n->name), "net%u", number);
    struct loop_options lo = {
        .name = n->name, .backend = (enum loop_backend)o->io_backend, .file_threads = o->options->read_threads};
    int r = loop_new(&lo, &n->loop);
    if (r < 0)
        return r;
    n->home = (struct master_home){.loop = n->loop, .take_back = take_back, .wake.run = wake_run};
    if (o->metrics && (r = metrics_block_new(o->metrics, &master_metric_set, &n->metrics)) < 0)
        return r;
    struct rpc_server_options so = {
        .self = {.role = RPC_MASTER, .node = o->master, .program = "cv-master " CV_VERSION},
        .connections_max = o->options->connections_max,
        .request = on_request,
        .hello = on_hello,
        .gone = on_gone,
        .user = n,
    };
    memcpy(so.self.cluster, o->cluster.b, UUID_SIZE);
    return rpc_server_new(n->loop, &so, &n->rpc);
}

void master_net_fini(struct master_net *n)
{
    assert(list_empty(&n->arrived) && !anybody_waits(n));
    for (struct list *e; (e = list_pop_front(&n->spare));) {
        struct net_request *q = list_entry(e, struct net_request, link);
        meta_request_fini(&q->base.meta);
        free(q);
    }
    rpc_server_free(n->rpc);
    if (n->metrics)
        metrics_block_free(n->o->metrics, &master_metric_set, n->metrics);
    loop_free(n->loop);
    buf_fini(&n->out);
}
