/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_ufs.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define CHECK_NS   (15 * NS_PER_S) /* a preflight takes at most */
#define PARAMS_MAX 32

struct mount {
    struct list link;
    uint32_t id;
    struct ufs *ufs;
    char failing[400]; /* under the lock */
};

struct master_ufs {
    struct loop *loop;
    bool started;
    _Atomic bool mounts_changed;
    int (*describe)(void *arg, uint32_t mount, struct rec_mount *ret, struct buf *texts);
    void *arg;
    pthread_mutex_t lock; /* guards the list of mounts against readers on other threads */
    struct list mounts;
    struct list checks; /* that run */
    uint32_t closing;   /* under file systems on their way out */
    bool refusing, stopping;
    struct ufs_counters closed; /* of those that are gone */
};

int master_ufs_new(uint32_t io_backend, struct master_ufs **ret)
{
    struct master_ufs *u cleanup(master_ufs_free_p) = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    list_init(&u->mounts);
    list_init(&u->checks);
    pthread_mutex_init(&u->lock, NULL);
    struct loop_options lo = {.name = "ufs", .backend = (enum loop_backend)io_backend, .file_threads = 4};
    int r = loop_new(&lo, &u->loop);
    if (r < 0)
        return r;
    *ret = take(u);
    return 0;
}

struct master_ufs *master_ufs_free(struct master_ufs *u)
{
    if (!u)
        return NULL;
    assert(!u->started && list_empty(&u->mounts));
    loop_free(u->loop);
    pthread_mutex_destroy(&u->lock);
    free(u);
    return NULL;
}

int master_ufs_start(struct master_ufs *u)
{
    int r = loop_start(u->loop);
    u->started = r == 0;
    return r;
}

struct loop *master_ufs_loop(struct master_ufs *u)
{
    return u->loop;
}

void master_ufs_set_describe(struct master_ufs *u,
                             int (*describe)(void *arg, uint32_t mount, struct rec_mount *ret, struct buf *texts),
                             void *arg)
{
    u->describe = describe;
    u->arg = arg;
}

/* ---- stopping: checks are cancelled and end, mounts close, then the loop may -------------------------------------------- */

static void stop_if_done(struct master_ufs *u)
{
    if (u->stopping && list_empty(&u->checks) && u->closing == 0)
        loop_stop(u->loop);
}

static void ufs_closed(void *arg)
{
    struct master_ufs *u = arg;
    u->closing--;
    stop_if_done(u);
}

static void close_ufs(struct master_ufs *u, struct ufs *ufs)
{
    u->closing++;
    ufs_close(ufs, ufs_closed, u);
}

static void add_counters(struct ufs_counters *to, const struct ufs_counters *c)
{
    for (int i = 0; i < UFS_VERBS; i++)
        to->requests[i] += c->requests[i];
    to->retries += c->retries;
    to->failures += c->failures;
}

static void close_mount(struct master_ufs *u, struct mount *m)
{
    pthread_mutex_lock(&u->lock);
    if (m->ufs)
        add_counters(&u->closed, ufs_counters(m->ufs));
    list_remove(&m->link);
    pthread_mutex_unlock(&u->lock);
    if (m->ufs)
        close_ufs(u, m->ufs);
    free(m);
}

static int refuse_on_loop(void *arg)
{
    struct master_ufs *u = arg;
    u->refusing = true;
    list_for_each_safe (e, &u->checks)
        ufs_cancel(&list_entry(e, struct master_ufs_check, link)->op);
    return 0;
}

void master_ufs_refuse(struct master_ufs *u)
{
    if (u->started)
        loop_call(u->loop, refuse_on_loop, u);
}

static int stop_on_loop(void *arg)
{
    struct master_ufs *u = arg;
    refuse_on_loop(u);
    u->stopping = true;
    list_for_each_safe (e, &u->mounts)
        close_mount(u, list_entry(e, struct mount, link));
    stop_if_done(u);
    return 0;
}

void master_ufs_stop(struct master_ufs *u)
{
    if (!u->started)
        return;
    loop_call(u->loop, stop_on_loop, u);
    loop_join(u->loop);
    u->started = false;
}

/* ---- preflight ------------------------------------------------------------------------------------------------------------ */

static char *copy_text(struct text t)
{
    if (t.n && memchr(t.p, 0, t.n))
        return NULL;
    return strndup(t.n ? t.p : "", t.n);
}

/* Names and values as ufs_open() wants them. Errors: -ENOMEM; -EINVAL. */
static int copy_params(const struct wire_list *list, struct ufs_param **ret, unsigned *count)
{
    if (list->count > PARAMS_MAX)
        return -EINVAL;
    struct ufs_param *p = calloc(list->count + 1, sizeof(*p));
    int r = p ? 0 : -ENOMEM;
    *ret = p;
    *count = 0;
    rec_for_each (mount_param, e, list) {
        if (r < 0)
            continue;
        p[*count].name = copy_text(e.name);
        p[*count].value = copy_text(e.value);
        if (!p[*count].name || !p[*count].value)
            r = -EINVAL;
        ++*count;
    }
    return r;
}

static void free_params(struct ufs_param *p, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (p[i].value)
            explicit_bzero((char *)(uintptr_t)p[i].value, strlen(p[i].value)); /* may be a secret */
        free((char *)(uintptr_t)p[i].name);
        free((char *)(uintptr_t)p[i].value);
    }
    free(p);
}

int master_ufs_check_new(struct text uri, const struct wire_list *params, struct master_ufs_check **ret)
{
    struct master_ufs_check *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    list_init(&c->link);
    c->uri = copy_text(uri);
    int r = copy_params(params, &c->params, &c->count);
    if (!c->uri || r < 0) {
        master_ufs_check_free(c);
        return r < 0 ? r : -EINVAL;
    }
    *ret = c;
    return 0;
}

struct master_ufs_check *master_ufs_check_free(struct master_ufs_check *c)
{
    if (!c)
        return NULL;
    free_params(c->params, c->count);
    free(c->uri);
    free(c);
    return NULL;
}

static void check_end(struct master_ufs_check *c, int result)
{
    struct master_ufs *u = c->u;
    c->result = result;
    list_remove(&c->link);
    if (c->ufs)
        close_ufs(u, c->ufs);
    c->ufs = NULL;
    c->done(c);
    stop_if_done(u);
}

static void check_done(struct ufs_op *op)
{
    struct master_ufs_check *c = container_of(op, struct master_ufs_check, op);
    snprintf(c->message, sizeof(c->message), "%s", op->result < 0 ? op->message : "");
    check_end(c, op->result);
}

static void check_run(struct loop_job *job)
{
    struct master_ufs_check *c = container_of(job, struct master_ufs_check, job);
    struct master_ufs *u = c->u;
    list_push_back(&u->checks, &c->link);
    if (u->refusing)
        return check_end(c, -CV_STOPPING);
    int r = ufs_open(u->loop, c->uri, c->params, c->count, &c->ufs, c->message, sizeof(c->message));
    if (r < 0)
        return check_end(c, r);
    c->op.deadline_ns = clock_ns() + CHECK_NS;
    ufs_check(c->ufs, &c->op, check_done);
}

void master_ufs_check(struct master_ufs *u, struct master_ufs_check *c)
{
    c->u = u;
    c->job.run = check_run;
    loop_post(u->loop, &c->job);
}

/* ---- mounts --------------------------------------------------------------------------------------------------------------- */

static struct mount *find(struct master_ufs *u, uint32_t id)
{
    list_for_each (e, &u->mounts) {
        struct mount *m = list_entry(e, struct mount, link);
        if (m->id == id)
            return m;
    }
    return NULL;
}

void master_ufs_mounts_changed(struct master_ufs *u)
{
    atomic_store(&u->mounts_changed, true);
}

/* Close what is no mount any more. */
static void look_for_gone(struct master_ufs *u)
{
    if (!atomic_exchange(&u->mounts_changed, false))
        return;
    list_for_each_safe (e, &u->mounts) {
        struct mount *m = list_entry(e, struct mount, link);
        struct rec_mount row;
        struct buf texts = {0};
        if (u->describe(u->arg, m->id, &row, &texts) == -ENOENT)
            close_mount(u, m);
        buf_fini(&texts);
    }
}

static int find_or_add(struct master_ufs *u, uint32_t id, struct mount **ret)
{
    *ret = find(u, id);
    if (*ret)
        return 0;
    struct mount *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->id = id;
    pthread_mutex_lock(&u->lock);
    list_push_back(&u->mounts, &m->link);
    pthread_mutex_unlock(&u->lock);
    *ret = m;
    return 0;
}

static int open_mount(struct master_ufs *u, struct mount *m, const struct rec_mount *row)
{
    char message[sizeof(m->failing)] = "the mount's parameters are damaged";
    struct ufs_param *params = NULL;
    struct ufs *ufs = NULL;
    unsigned count = 0;
    char *uri = copy_text(row->uri);
    int r = copy_params(&row->params, &params, &count);
    if (r == 0 && !uri)
        r = -ENOMEM;
    if (r == 0)
        r = ufs_open(u->loop, uri, params, count, &ufs, message, sizeof(message));
    free_params(params, count);
    free(uri);
    pthread_mutex_lock(&u->lock);
    m->ufs = ufs;
    pthread_mutex_unlock(&u->lock);
    if (r < 0 && r != -ENOMEM) /* "no such directory" is not said of a name below it */
        r = -CV_UFS_FAILED;
    master_ufs_note(u, m->id, r, message);
    return r;
}

int master_ufs_of(struct master_ufs *u, uint32_t id, struct ufs **ret)
{
    struct mount *m;
    struct rec_mount row;
    struct buf texts = {0};
    assert_on_loop(u->loop);
    if (u->refusing)
        return -CV_STOPPING;
    look_for_gone(u);
    m = find(u, id);
    int r = m && m->ufs ? 0 : u->describe(u->arg, id, &row, &texts);
    if (r == 0)
        r = find_or_add(u, id, &m);
    if (r == 0 && !m->ufs)
        r = open_mount(u, m, &row);
    buf_fini(&texts);
    if (r == 0)
        *ret = m->ufs;
    return r;
}

void master_ufs_note(struct master_ufs *u, uint32_t id, int result, const char *message)
{
    struct mount *m = find(u, id);
    if (!m || result == -ENOENT || result == -ENOTDIR || result == -ECANCELED)
        return;
    bool was = m->failing[0];
    pthread_mutex_lock(&u->lock);
    snprintf(m->failing, sizeof(m->failing), "%s", result < 0 ? message : "");
    pthread_mutex_unlock(&u->lock);
    if (result < 0 && !was)
        log_warn(result, "mount %u: %s", id, message);
    else if (result == 0 && was)
        log_info("mount %u answers again", id);
}

int master_ufs_failing(struct master_ufs *u, uint32_t id, struct buf *text)
{
    pthread_mutex_lock(&u->lock);
    const struct mount *m = find(u, id);
    int r = m ? buf_append(text, m->failing, strlen(m->failing)) : 0;
    pthread_mutex_unlock(&u->lock);
    return r;
}

void master_ufs_get_stats(struct master_ufs *u, struct master_ufs_stats *ret)
{
    pthread_mutex_lock(&u->lock);
    struct ufs_counters sum = u->closed;
    *ret = (struct master_ufs_stats){0};
    list_for_each (e, &u->mounts) {
        const struct mount *m = list_entry(e, struct mount, link);
        if (m->ufs)
            add_counters(&sum, ufs_counters(m->ufs)); /* a figure or two may be old */
        ret->open += m->ufs != NULL;
        ret->failing += m->failing[0] != 0;
    }
    pthread_mutex_unlock(&u->lock);
    for (int i = 0; i < UFS_VERBS; i++)
        ret->requests += sum.requests[i];
    ret->failures = sum.failures;
    ret->retries = sum.retries;
}
