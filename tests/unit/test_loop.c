/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/loop_test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/random.h"

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

#define POSTERS  4
#define PER_POST 20000

struct counted_job {
    struct loop_job job;
    int poster, number;
};

static struct {
    struct loop *loop;
    struct counted_job *jobs;
    int next[POSTERS], total;
} posting;

static void count_job(struct loop_job *job)
{
    struct counted_job *c = container_of(job, struct counted_job, job);
    assert_on_loop(posting.loop);
    ck_assert_int_eq(c->number, posting.next[c->poster]); /* in the poster's order, none lost, none twice */
    posting.next[c->poster]++;
    if (++posting.total == POSTERS * PER_POST)
        loop_stop(posting.loop);
}

static void *post_many(void *arg)
{
    struct counted_job *c = arg;
    for (int i = 0; i < PER_POST; i++) {
        loop_post(posting.loop, &c[i].job);
        if (i % 1000 == 0)
            sched_yield(); /* let the loop go to sleep now and then */
    }
    return NULL;
}

LOOP_TEST(loop_runs_every_job_posted_by_four_threads_once_and_in_order)
{
    posting.loop = loop;
    posting.total = 0;
    posting.jobs = calloc(POSTERS * PER_POST, sizeof(*posting.jobs));
    pthread_t thread[POSTERS];
    for (int t = 0; t < POSTERS; t++) {
        posting.next[t] = 0;
        struct counted_job *c = posting.jobs + t * PER_POST;
        for (int i = 0; i < PER_POST; i++)
            c[i] = (struct counted_job){.job.run = count_job, .poster = t, .number = i};
        pthread_create(&thread[t], NULL, post_many, c);
    }
    run_loop(loop);
    for (int t = 0; t < POSTERS; t++)
        pthread_join(thread[t], NULL);
    struct loop_stats s;
    loop_get_stats(loop, &s);
    ck_assert_uint_eq(s.jobs, POSTERS * PER_POST);
    ck_assert_uint_lt(s.wakes, s.jobs); /* a busy loop is not woken */
    free(posting.jobs);
}

static int add_one(void *arg)
{
    return ++*(int *)arg;
}

LOOP_TEST(loop_call_runs_on_the_loop_and_returns_the_result)
{
    int n = 41;
    ck_assert_int_eq(loop_call(loop, add_one, &n), 42); /* does not run yet: here */
    ck_assert_int_eq(loop_start(loop), 0);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(loop_call(loop, add_one, &n), 43 + i);
    ck_assert(!loop_is_here(loop));
    loop_stop(loop);
    ck_assert_int_eq(loop_join(loop), 0);
}

/* ---- timers ----------------------------------------------------------------------------------------------------- */

#define TIMERS 2000

struct numbered_timer {
    struct loop_timer timer;
    int number;
    uint64_t at_ns;
    bool stopped, fired;
};

static struct {
    struct loop *loop;
    struct numbered_timer t[TIMERS];
    int left;
    uint64_t last_ns;
    int last_number;
} timing;

static void timer_fires(struct loop_timer *timer)
{
    struct numbered_timer *t = container_of(timer, struct numbered_timer, timer);
    ck_assert(!t->stopped && !t->fired);
    t->fired = true;
    ck_assert_uint_ge(clock_ns(), t->at_ns);
    ck_assert_uint_ge(t->at_ns, timing.last_ns);
    if (t->at_ns == timing.last_ns)
        ck_assert_int_gt(t->number, timing.last_number);
    timing.last_ns = t->at_ns;
    timing.last_number = t->number;
    if (--timing.left == 0)
        loop_stop(timing.loop);
}

LOOP_TEST(loop_timers_fire_in_order_of_time_then_of_starting)
{
    struct prng random = {7};
    timing.loop = loop;
    timing.left = TIMERS;
    timing.last_ns = 0;
    uint64_t begin = clock_ns();
    for (int i = 0; i < TIMERS; i++) {
        struct numbered_timer *t = &timing.t[i];
        *t = (struct numbered_timer){.number = i};
        loop_timer_init(&t->timer, timer_fires);
        loop_timer_start(loop, &t->timer, begin + NS_PER_S); /* moved below */
    }
    for (int i = 0; i < TIMERS; i++) { /* many at equal times */
        timing.t[i].at_ns = begin + prng_below(&random, 100) * NS_PER_MS;
        loop_timer_start(loop, &timing.t[i].timer, timing.t[i].at_ns);
    }
    for (int i = 0; i < TIMERS; i++)
        if (prng_below(&random, 3) == 0) {
            loop_timer_stop(loop, &timing.t[i].timer);
            loop_timer_stop(loop, &timing.t[i].timer); /* fine twice */
            timing.t[i].stopped = true;
            timing.left--;
        }
    ck_assert_int_gt(timing.left, 0);
    run_loop(loop);
    for (int i = 0; i < TIMERS; i++)
        ck_assert(timing.t[i].fired != timing.t[i].stopped && !loop_timer_running(&timing.t[i].timer));
}

static int ticks;

static void tick(struct loop_timer *timer)
{
    if (++ticks == 5)
        loop_stop(timing.loop);
    else
        loop_timer_start(timing.loop, timer, loop_now(timing.loop) + 10 * NS_PER_MS);
}

LOOP_TEST(loop_sleeps_as_long_as_the_next_timer_says)
{
    struct loop_timer t;
    timing.loop = loop;
    ticks = 0;
    loop_timer_init(&t, tick);
    loop_timer_start(loop, &t, 0); /* in the past */
    uint64_t begin = clock_ns(), cpu = clock_thread_cpu_ns();
    run_loop(loop);
    ck_assert_uint_ge(clock_ns() - begin, 40 * NS_PER_MS);
    ck_assert_uint_lt(clock_thread_cpu_ns() - cpu, 30 * NS_PER_MS); /* does not spin */
    struct loop_stats s;
    loop_get_stats(loop, &s);
    ck_assert_uint_eq(s.timers, 5);
    ck_assert_uint_lt(s.turns, 50);
}

/* ---- hooks ------------------------------------------------------------------------------------------------------ */

static struct {
    struct loop *loop;
    struct loop_hook a, b, never;
    struct loop_job job[3];
    int jobs, a_runs, b_runs;
} hooking;

static void hook_job(struct loop_job *job)
{
    hooking.jobs++;
    loop_at_turn_end(hooking.loop, &hooking.a);
    loop_at_turn_end(hooking.loop, &hooking.a);
    loop_at_turn_end(hooking.loop, &hooking.b);
    loop_at_turn_end(hooking.loop, &hooking.never);
    loop_hook_cancel(hooking.loop, &hooking.never);
}

static void hook_a(struct loop_hook *hook)
{
    ck_assert_int_eq(hooking.jobs, 3); /* all of the turn was handled before */
    if (++hooking.a_runs == 1)
        loop_at_turn_end(hooking.loop, hook); /* next turn */
}

static void hook_b(struct loop_hook *hook)
{
    ck_assert_int_eq(hooking.a_runs, 1);
    hooking.b_runs++;
    loop_stop(hooking.loop);
}

static void hook_never(struct loop_hook *hook)
{
    ck_abort_msg("a cancelled hook ran");
}

LOOP_TEST(loop_hooks_run_once_at_the_end_of_the_turn)
{
    memset(&hooking, 0, sizeof(hooking));
    hooking.loop = loop;
    loop_hook_init(&hooking.a, hook_a);
    loop_hook_init(&hooking.b, hook_b);
    loop_hook_init(&hooking.never, hook_never);
    for (int i = 0; i < 3; i++) {
        hooking.job[i].run = hook_job;
        loop_post(loop, &hooking.job[i]);
    }
    run_loop(loop);
    ck_assert_int_eq(hooking.a_runs, 2);
    ck_assert_int_eq(hooking.b_runs, 1);
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

TEST(loop_backend_is_chosen_by_the_environment_and_junk_is_ignored)
{
    struct loop *loop;
    setenv("CV_LOOP", "epoll", 1);
    ck_assert_int_eq(loop_new(NULL, &loop), 0);
    ck_assert_int_eq(loop_get_backend(loop), LOOP_EPOLL);
    ck_assert_str_eq(loop_backend_name(loop), "epoll");
    loop_free(loop);
    setenv("CV_LOOP", "junk", 1);
    ck_assert_int_eq(loop_new(NULL, &loop), 0);
    loop_free(loop);
    enum loop_backend b;
    ck_assert_int_eq(loop_backend_parse("uring", &b), 0);
    ck_assert_int_eq(b, LOOP_URING);
    ck_assert_int_eq(loop_backend_parse("", &b), -EINVAL);
    ck_assert_int_eq(loop_backend_parse(NULL, &b), -EINVAL);
}

static void run_without_io_uring(int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {array_size(filter), filter};
    struct loop *loop;
    unsetenv("CV_LOOP");
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    ck_assert_int_eq(loop_new(&(struct loop_options){.backend = LOOP_URING}, &loop), -error);
    ck_assert_int_eq(loop_new(NULL, &loop), 0);
    ck_assert_int_eq(loop_get_backend(loop), LOOP_EPOLL);
    int n = 1;
    ck_assert_int_eq(loop_start(loop), 0);
    ck_assert_int_eq(loop_call(loop, add_one, &n), 2);
    loop_stop(loop);
    ck_assert_int_eq(loop_join(loop), 0);
    loop_free(loop);
}

/* As in a container whose seccomp profile forbids io_uring. */
TEST(loop_falls_back_to_epoll_where_io_uring_is_forbidden)
{
    run_without_io_uring(EPERM);
}

TEST(loop_falls_back_to_epoll_where_a_user_has_locked_all_the_memory_that_is_allowed)
{
    run_without_io_uring(ENOMEM);
}
