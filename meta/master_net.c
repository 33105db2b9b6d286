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
#include "meta/master_import_names.h"
#include "meta/master_own.h"
#include "meta/master_sessions.h"
#include "meta/master_workers.h"

#define GROUP_MAX  64   /* looked at under one lock: bounds how long the scribe waits */
#define ROUNDS_MAX 16   /* a request that finds its rows in the database's memory this often goes to a thread */
#define ASKED_MAX  4096 /* names one request asks under file systems for: a path has no more */

/* ---- back from the scribe ----------------------------------------------------------------------------------------- */

static void take_back(struct loop_job *job)
{
    struct master_request *next = container_of(job, struct master_request, job);
    struct master_net *n = container_of(next->home, struct master_net, home);
    uint64_t now = clock_ns();
    for (struct master_request *q; (q = next);) {
        next = q->next;
        struct net_request *r = container_of(q, struct net_request, base);
        if (q->install)
            net_request_drop(r);
        else if (q->again)
            net_look_at(r);
        else
            net_settle(r, now);
    }
    net_release_waiting(n, now);
}

/* ---- the turn ----------------------------------------------------------------------------------------------------- */

static int fetch_work(void *arg)
{
    struct net_request *q = arg;
    return meta_fetch(&q->net->core->base, &q->base.meta, false);
}

/* What others can read is not an error yet. */
static void fetch_failed(struct net_request *q, int error, uint64_t now)
{
    bool damaged = error == -EIO || error == -CV_BAD_CHECKSUM;
    net_answer(q, damaged ? master_core_damaged(q->net->core, error) : error, now);
}

static void fetch_done(struct io_op *op, int result)
{
    struct net_request *q = container_of(op, struct net_request, fetch);
    if (result < 0)
        fetch_failed(q, result, clock_ns());
    else
        net_look_at(q);
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
        return c->refuses_new ? -ENOSPC : LIST; /* names that come in take room, too */
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
        net_look_at(q);
    } else if (r == -CV_NOT_PREPARED) {
        COUNT(n, fetches_blocking, 1);
        q->rounds = 0;
        io_work(n->loop, &q->fetch, fetch_work, q, fetch_done);
    } else {
        fetch_failed(q, r, now);
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
        net_look_at(q);
    else
        net_answer(q, r, clock_ns());
}

/* Off the lock: let the under file system be asked. */
static void list_names(struct net_request *q, uint64_t now)
{
    struct master_net *n = q->net;
    if (q->asked++ == ASKED_MAX)
        return net_answer(q, -CV_BUSY, now);
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
        net_answer_own(q, now);
    } else {
        q->base.executed_ns = now;
        net_settle(q, now);
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
            net_answer(container_of(q, struct net_request, base), r, clock_ns());
    if (net_anybody_waits(n))
        net_release_waiting(n, clock_ns());
}

/* ---- mounts: their under file system is asked first ----------------------------------------------------------------- */

static void refuse_mount(struct net_request *q, const struct master_ufs_check *c)
{
    const struct msg_mount_add_answer a = {.reason = text_of(c->message), .error = (uint32_t)-c->result};
    net_count_answer(q, c->result, clock_ns());
    rpc_answer(q->rpc, 0, q->net->core->released_index, msg_mount_add_answer_desc(), &a);
    net_request_drop(q);
}

static void checked_run(struct loop_job *job)
{
    struct net_request *q = container_of(job, struct net_request, back);
    struct master_ufs_check *c = q->check;
    q->check = NULL;
    if (c->result == 0)
        net_look_at(q);
    else if (c->result == -CV_STOPPING || c->result == -ECANCELED)
        net_answer(q, -CV_STOPPING, clock_ns());
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
        net_look_at(q);
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
    net_look_at(q);
    return 0;
}

static void on_request(struct rpc_request *rpc, void *user)
{
    struct master_net *n = user;
    if (master_own_serves(rpc->header.type))
        return master_own_request(n, rpc);
    struct net_request *q = net_request_new(n);
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
    net_answer_own(q, loop_now(n->loop));
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
    loop_timer_init(&n->askers_timer, net_askers_fired);
    list_init(&n->spare);
    loop_hook_init(&n->turn, turn_run);
    snprintf(n->name, sizeof(n->name), "net%u", number);
    struct loop_options lo = {
        .name = n->name, .backend = (enum loop_backend)o->io_backend, .file_threads = o->options->read_threads};
    int r = loop_new(&lo, &n->loop);
    if (r < 0)
        return r;
    n->home = (struct master_home){.loop = n->loop, .take_back = take_back, .wake.run = net_wake_run};
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
    assert(list_empty(&n->arrived) && !net_anybody_waits(n));
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
