/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the loop both implementations share: the turn, jobs, hooks, the books of ops in flight, stopping.
 *
 * Waking: a poster pushes its job, then looks at asleep; the loop sets asleep, then looks at the jobs. Both steps are
 * sequentially consistent, so one of the two sees the other; whoever clears asleep makes the one write to wake_fd.
 */
#include "io/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "io/loop_internal.h"

#define SUSPEND_CHECK_NS NS_PER_S /* with timers running, a sleep is never longer: see loop.h on suspend */

#define NOBODY ((pthread_t)0)

/* ---- making and ending ------------------------------------------------------------------------------------------ */

int loop_backend_parse(const char *name, enum loop_backend *ret)
{
    static const char *const names[] = {[LOOP_AUTO] = "auto", [LOOP_URING] = "uring", [LOOP_EPOLL] = "epoll"};
    for (size_t i = 0; i < array_size(names); i++)
        if (name && strcmp(name, names[i]) == 0) {
            *ret = (enum loop_backend)i;
            return 0;
        }
    return -EINVAL;
}

/* io_uring if it works here, else epoll, said once a process. */
static int backend_new(enum loop_backend wanted, uint32_t entries, struct loop **ret)
{
    const char *env = getenv("CV_LOOP");
    if (wanted == LOOP_AUTO && env && *env && loop_backend_parse(env, &wanted) < 0)
        log_warn(-EINVAL, "ignoring CV_LOOP='%s': not auto, uring or epoll", env);
    if (wanted == LOOP_EPOLL)
        return loop_epoll_new(entries, ret);
    int r = loop_uring_new(entries, ret);
    /* (-ENOMEM: RLIMIT_MEMLOCK, which all rings of a user count against, since Linux 6.14 again) */
    if (r >= 0 || wanted == LOOP_URING || r == -EMFILE || r == -ENFILE)
        return r;
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said))
        (void)log_at(LOG_LEVEL_INFO, r, "io_uring is not available, using epoll");
    return loop_epoll_new(entries, ret);
}

int loop_new(const struct loop_options *options, struct loop **ret)
{
    static const struct loop_options none;
    const struct loop_options *o = options ? options : &none;
    struct loop *loop = NULL;
    int r = backend_new(o->backend, o->queue_entries ? o->queue_entries : 1024, &loop);
    if (r < 0)
        return r;
    snprintf(loop->name, sizeof(loop->name), "%s", o->name ? o->name : "loop");
    loop->owner = pthread_self();
    loop->now = loop->woke_ns = clock_ns();
    loop->hooks_end = &loop->hooks;
    list_init(&loop->all);
    list_init(&loop->ready);
    r = loop_threads_init(&loop->threads, o->file_threads ? o->file_threads : 4);
    if (r < 0) {
        loop_free(loop);
        return r;
    }
    *ret = loop;
    return 0;
}

struct loop *loop_free(struct loop *loop)
{
    if (!loop)
        return NULL;
    assert(!loop->runs && loop->stats.inflight == 0 && !atomic_load(&loop->jobs));
    loop_threads_fini(&loop->threads);
    loop->vtable->free(loop);
    return NULL;
}

static void *loop_thread_main(void *arg)
{
    struct loop *loop = arg;
    pthread_setname_np(pthread_self(), loop->name);
    loop->thread_result = loop_run(loop);
    loop_health_end(loop);
    return NULL;
}

int loop_start(struct loop *loop)
{
    atomic_store(&loop->owner, NOBODY); /* not ours any more, not the thread's yet */
    loop_health_begin(loop);
    int r = -pthread_create(&loop->thread, NULL, loop_thread_main, loop);
    if (r < 0) {
        loop_health_end(loop);
        atomic_store(&loop->owner, pthread_self());
    }
    return r;
}

int loop_join(struct loop *loop)
{
    pthread_join(loop->thread, NULL);
    atomic_store(&loop->owner, pthread_self()); /* what is left to tidy up belongs to whoever joined */
    return loop->thread_result;
}

const char *loop_backend_name(const struct loop *loop)
{
    return loop->vtable->name;
}

enum loop_backend loop_get_backend(const struct loop *loop)
{
    return loop->vtable->backend;
}

bool loop_is_here(const struct loop *loop)
{
    return pthread_equal(atomic_load_explicit(&loop->owner, memory_order_relaxed), pthread_self());
}

uint64_t loop_now(const struct loop *loop)
{
    return loop->now;
}

void loop_get_stats(const struct loop *loop, struct loop_stats *ret)
{
    const struct loop_stats *s = &loop->stats;
#define LOAD(field) .field = __atomic_load_n(&s->field, __ATOMIC_RELAXED)
    *ret = (struct loop_stats){LOAD(turns),  LOAD(sleeps), LOAD(enters),  LOAD(ops),     LOAD(jobs),
                               LOAD(timers), LOAD(works),  LOAD(busy_ns), LOAD(inflight)};
#undef LOAD
    ret->wakes = atomic_load_explicit(&loop->wakes, memory_order_relaxed);
}

/* ---- jobs and hooks --------------------------------------------------------------------------------------------- */

static void wake(struct loop *loop)
{
    if (!atomic_load(&loop->asleep) || !atomic_exchange(&loop->asleep, false))
        return;
    atomic_fetch_add_explicit(&loop->wakes, 1, memory_order_relaxed);
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof(one));
    assert(n == sizeof(one));
}

void loop_post(struct loop *loop, struct loop_job *job)
{
    struct loop_job *newest = atomic_load_explicit(&loop->jobs, memory_order_relaxed);
    do
        job->next = newest;
    while (!atomic_compare_exchange_weak(&loop->jobs, &newest, job));
    wake(loop);
}

void loop_stop(struct loop *loop)
{
    loop_health_end(loop);
    atomic_store(&loop->stop, true);
    wake(loop);
}

static void run_jobs(struct loop *loop)
{
    if (!atomic_load_explicit(&loop->jobs, memory_order_relaxed))
        return;
    struct loop_job *job = atomic_exchange(&loop->jobs, NULL), *oldest = NULL;
    while (job) {
        struct loop_job *next = job->next;
        job->next = oldest;
        oldest = job;
        job = next;
    }
    while (oldest) {
        job = oldest;
        oldest = job->next;
        LOOP_COUNT(loop, jobs, 1);
        job->run(job);
    }
}

struct call {
    struct loop_job job;
    int (*fn)(void *arg);
    void *arg;
    int result;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t finished;
};

static void call_run(struct loop_job *job)
{
    struct call *c = container_of(job, struct call, job);
    int r = c->fn(c->arg);
    pthread_mutex_lock(&c->lock);
    c->result = r;
    c->done = true;
    pthread_cond_signal(&c->finished);
    pthread_mutex_unlock(&c->lock);
}

int loop_call(struct loop *loop, int (*fn)(void *arg), void *arg)
{
    if (loop_is_here(loop)) {
        assert(!loop->runs);
        return fn(arg);
    }
    struct call c = {.job = {.run = call_run}, .fn = fn, .arg = arg};
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.finished, NULL);
    loop_post(loop, &c.job);
    pthread_mutex_lock(&c.lock);
    while (!c.done)
        pthread_cond_wait(&c.finished, &c.lock);
    pthread_mutex_unlock(&c.lock);
    pthread_cond_destroy(&c.finished);
    pthread_mutex_destroy(&c.lock);
    return c.result;
}

void loop_at_turn_end(struct loop *loop, struct loop_hook *hook)
{
    assert_on_loop(loop);
    if (hook->queued)
        return;
    hook->queued = true;
    hook->next = NULL;
    *loop->hooks_end = hook;
    loop->hooks_end = &hook->next;
}

void loop_hook_cancel(struct loop *loop, struct loop_hook *hook)
{
    assert_on_loop(loop);
    if (!hook->queued)
        return;
    struct loop_hook **h = &loop->hooks;
    while (*h != hook)
        h = &(*h)->next;
    *h = hook->next;
    if (loop->hooks_end == &hook->next)
        loop->hooks_end = h;
    hook->queued = false;
}

/* Hooks queued from here on run next turn: the marker stands between. */
static void run_hooks(struct loop *loop)
{
    if (!loop->hooks)
        return;
    struct loop_hook marker = {.run = NULL};
    loop_at_turn_end(loop, &marker);
    while (loop->hooks != &marker) {
        struct loop_hook *hook = loop->hooks;
        loop_hook_cancel(loop, hook);
        hook->run(hook);
    }
    loop_hook_cancel(loop, &marker);
}

/* ---- the turn --------------------------------------------------------------------------------------------------- */

void io_ready(struct loop *loop, struct io_op *op, int result)
{
    op->result = result;
    op->state = IO_STATE_READY;
    list_push_back(&loop->ready, &op->link);
}

void io_finish(struct loop *loop, struct io_op *op, int result)
{
    op->state = IO_STATE_IDLE;
    list_remove(&op->all);
    LOOP_COUNT(loop, inflight, -1u);
    LOOP_COUNT(loop, ops, 1);
    op->done(op, result);
}

static void run_ready(struct loop *loop)
{
    struct list now = LIST_INIT(now);
    list_append_all(&now, &loop->ready);
    struct list *e;
    while ((e = list_pop_front(&now))) {
        struct io_op *op = list_entry(e, struct io_op, link);
        io_finish(loop, op, op->result);
    }
}

/* Refuse what is new, cancel what is in flight. Cancelling only queues, so the list does not change under us. */
static void begin_stop(struct loop *loop)
{
    loop->stopping = true;
    list_for_each (e, &loop->all)
        io_cancel(list_entry(e, struct io_op, all));
}

static uint64_t sleep_ns(struct loop *loop)
{
    if (!list_empty(&loop->ready) || loop->hooks || (loop->stopping && loop->stats.inflight == 0))
        return 0;
    uint64_t next = loop_timer_next(loop);
    if (next == UINT64_MAX)
        return UINT64_MAX;
    uint64_t now = clock_ns();
    return next <= now ? 0 : min(next - now, (uint64_t)SUSPEND_CHECK_NS);
}

static int turn(struct loop *loop)
{
    if (atomic_load_explicit(&loop->stop, memory_order_relaxed) && !loop->stopping)
        begin_stop(loop);
    uint64_t timeout = sleep_ns(loop);
    if (timeout) {
        atomic_store(&loop->asleep, true);
        if (atomic_load(&loop->jobs) || (atomic_load(&loop->stop) && !loop->stopping))
            timeout = 0;
    }
    LOOP_COUNT(loop, turns, 1);
    LOOP_COUNT(loop, sleeps, timeout > 0);
    LOOP_COUNT(loop, busy_ns, clock_ns() - loop->woke_ns);
    int r = loop->vtable->wait(loop, timeout);
    atomic_store_explicit(&loop->asleep, false, memory_order_relaxed);
    loop->now = loop->woke_ns = clock_ns();
    if (r < 0)
        return log_error(r, "loop %s: wait", loop->name);
    loop->vtable->reap(loop);
    run_ready(loop);
    run_jobs(loop);
    loop_timers_fire(loop);
    run_hooks(loop);
    run_ready(loop); /* what could be done at once: saves a turn */
    return 0;
}

int loop_run(struct loop *loop)
{
    atomic_store(&loop->owner, pthread_self());
    loop->runs = true;
    loop->now = loop->woke_ns = clock_ns();
    int r = loop->vtable->enter(loop);
    while (r >= 0 && !(loop->stopping && loop->stats.inflight == 0 && !loop->hooks && !atomic_load(&loop->jobs)))
        r = turn(loop);
    loop->vtable->leave(loop);
    loop->runs = false;
    return r;
}
