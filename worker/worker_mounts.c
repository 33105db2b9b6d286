/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_mounts.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define PARAMS_MAX 32
#define ASK_MS     10000

struct worker_mount {
    struct list link;
    uint32_t id;
    char *uri;
    struct ufs_param params[PARAMS_MAX];
    unsigned param_count;
    struct ufs *ufs; /* NULL: not opened */
    struct ufs_counters counted;
    bool seen; /* in the newest answer */
};

struct worker_mounts {
    struct loop *loop;
    struct worker_master *master;
    struct worker_metrics *metrics;
    struct list mounts, waiting; /* waiting: for the master's answer */
    struct worker_call call;
    bool asking, ask_again, stopping;
    unsigned closing;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void stopped_when_quiet(struct worker_mounts *m)
{
    if (m->stopping && !m->asking && m->closing == 0 && m->stopped) {
        void (*stopped)(void *) = take(m->stopped);
        stopped(m->stopped_arg);
    }
}

/* ---- one mount -------------------------------------------------------------------------------------------------- */

static void count(struct worker_mounts *m, struct worker_mount *x)
{
    if (!x->ufs || !m->metrics)
        return;
    const struct ufs_counters *now = ufs_counters(x->ufs);
    for (int v = 0; v < UFS_VERBS; v++)
        counter_add(&m->metrics->ufs_requests[v], now->requests[v] - x->counted.requests[v]);
    counter_add(&m->metrics->ufs_retries, now->retries - x->counted.retries);
    counter_add(&m->metrics->ufs_bytes_in, now->bytes_in - x->counted.bytes_in);
    x->counted = *now;
}

static void closed(void *arg)
{
    struct worker_mounts *m = arg;
    m->closing--;
    stopped_when_quiet(m);
}

static void forget(struct worker_mounts *m, struct worker_mount *x)
{
    list_remove(&x->link);
    if (x->ufs) {
        count(m, x);
        m->closing++;
        ufs_close(x->ufs, closed, m);
    }
    for (unsigned i = 0; i < x->param_count; i++) {
        free((void *)(uintptr_t)x->params[i].name);
        free((void *)(uintptr_t)x->params[i].value);
    }
    free(x->uri);
    free(x);
}

static char *copy(struct text t)
{
    return strndup(t.p ? t.p : "", t.n);
}

static struct worker_mount *make(const struct rec_mount *r)
{
    struct worker_mount *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    list_init(&x->link);
    x->id = r->mount;
    x->uri = copy(r->uri);
    rec_for_each (mount_param, p, &r->params) {
        if (x->param_count < PARAMS_MAX)
            x->params[x->param_count++] = (struct ufs_param){copy(p.name), copy(p.value)};
    }
    return x;
}

static bool same(const struct worker_mount *a, const struct worker_mount *b)
{
    if (strcmp(a->uri, b->uri) != 0 || a->param_count != b->param_count)
        return false;
    for (unsigned i = 0; i < a->param_count; i++)
        if (strcmp(a->params[i].name, b->params[i].name) != 0 || strcmp(a->params[i].value, b->params[i].value) != 0)
            return false;
    return true;
}

static struct worker_mount *find(struct worker_mounts *m, uint32_t id)
{
    list_for_each (e, &m->mounts) {
        struct worker_mount *x = list_entry(e, struct worker_mount, link);
        if (x->id == id)
            return x;
    }
    return NULL;
}

/* Opened when first used: a bad one says so then, and is tried again then. */
static void give(struct worker_mounts *m, struct mount_wait *w, int r)
{
    struct worker_mount *x = find(m, w->mount);
    if (r == 0 && !x)
        r = -ENOENT;
    if (r == 0 && !x->ufs) {
        char why[400];
        r = ufs_open(m->loop, x->uri, x->params, x->param_count, &x->ufs, why, sizeof(why));
        x->counted = (struct ufs_counters){0};
        if (r < 0)
            log_warn(r, "mount %u: %s", x->id, why);
    }
    if (r < 0)
        w->done(w, r, NULL, false);
    else
        w->done(w, 0, x->ufs, strncmp(x->uri, "s3:", 3) == 0);
}

/* ---- from the master -------------------------------------------------------------------------------------------- */

static void install(struct worker_mounts *m, const struct msg_worker_mounts_answer *a)
{
    list_for_each (e, &m->mounts)
        list_entry(e, struct worker_mount, link)->seen = false;
    rec_for_each (mount, r, &a->mounts) {
        struct worker_mount *x = make(&r), *old = find(m, r.mount);
        if (!x)
            break;
        if (old && same(old, x)) {
            old->seen = true;
            forget(m, x);
            continue;
        }
        if (old)
            forget(m, old);
        x->seen = true;
        list_push_back(&m->mounts, &x->link);
    }
    list_for_each_safe (e, &m->mounts) {
        struct worker_mount *x = list_entry(e, struct worker_mount, link);
        if (!x->seen)
            forget(m, x);
    }
}

static void answered(struct worker_call *call, int result, const struct rpc_frame *f)
{
    struct worker_mounts *m = container_of(call, struct worker_mounts, call);
    struct msg_worker_mounts_answer a;
    m->asking = false;
    if (result == 0)
        result = msg_worker_mounts_answer_decode(f->body, f->header.body_len, &a);
    if (result == 0 && !m->stopping)
        install(m, &a);
    else if (!m->stopping)
        log_warn(result, "mounts from the master");
    struct list waiting = LIST_INIT(waiting);
    list_append_all(&waiting, &m->waiting);
    for (struct list *e; (e = list_pop_front(&waiting));)
        give(m, list_entry(e, struct mount_wait, link), m->stopping ? -CV_STOPPING : result);
    if (m->ask_again && !m->stopping)
        worker_mounts_refresh(m);
    stopped_when_quiet(m);
}

void worker_mounts_refresh(struct worker_mounts *m)
{
    if (m->stopping || m->asking) {
        m->ask_again = true; /* what is on its way may be older than what we heard of */
        return;
    }
    m->asking = true;
    m->ask_again = false;
    m->call.done = answered;
    struct msg_worker_mounts q = {0};
    worker_master_call(m->master, &m->call, MSG_worker_mounts, msg_worker_mounts_desc(), &q,
                       clock_ns() + ASK_MS * NS_PER_MS);
}

void worker_mounts_get(struct worker_mounts *m, uint32_t mount, struct mount_wait *w)
{
    w->mount = mount;
    list_init(&w->link);
    if (m->stopping || find(m, mount)) {
        give(m, w, m->stopping ? -CV_STOPPING : 0);
        return;
    }
    list_push_back(&m->waiting, &w->link);
    if (!m->asking)
        worker_mounts_refresh(m);
}

void worker_mounts_count(struct worker_mounts *m)
{
    list_for_each (e, &m->mounts)
        count(m, list_entry(e, struct worker_mount, link));
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

int worker_mounts_new(struct loop *loop, struct worker_master *master, struct worker_metrics *metrics,
                      struct worker_mounts **ret)
{
    struct worker_mounts *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->loop = loop;
    m->master = master;
    m->metrics = metrics;
    list_init(&m->mounts);
    list_init(&m->waiting);
    *ret = m;
    return 0;
}

void worker_mounts_stop(struct worker_mounts *m, void (*stopped)(void *arg), void *arg)
{
    m->stopping = true;
    m->stopped = stopped;
    m->stopped_arg = arg;
    while (!list_empty(&m->mounts))
        forget(m, list_entry(m->mounts.next, struct worker_mount, link));
    stopped_when_quiet(m);
}

struct worker_mounts *worker_mounts_free(struct worker_mounts *m)
{
    free(m);
    return NULL;
}
