/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests that run on both implementations of the loop: LOOP_TEST(name) { ... uses loop ... } becomes name_uring and
 * name_epoll. The test sets things up, then loop_run(loop) on its own thread; its callbacks call loop_stop(loop). A
 * watchdog fails a test whose loop does not end.
 */
#pragma once

#include "tests/unit/unit.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "io/loop.h"

static struct loop *loop_for_test(enum loop_backend backend)
{
    struct loop *loop = NULL;
    int r = loop_new(&(struct loop_options){.name = "test", .backend = backend}, &loop);
    /* (-ENOMEM: others of this user have all the rings RLIMIT_MEMLOCK allows) */
    if (backend == LOOP_URING && (r == -EPERM || r == -ENOSYS || r == -EOPNOTSUPP || r == -ENOMEM)) {
        fprintf(stderr, "io_uring is not available here: not tested\n");
        return NULL;
    }
    ck_assert_int_eq(r, 0);
    return loop;
}

static void watchdog_fires(struct loop_timer *timer)
{
    ck_abort_msg("the loop did not end in time");
}

/* Run the loop to its end on this thread. */
static void __attribute__((unused)) run_loop(struct loop *loop)
{
    struct loop_timer watchdog;
    loop_timer_init(&watchdog, watchdog_fires);
    loop_timer_start(loop, &watchdog, clock_ns() + 60 * NS_PER_S);
    ck_assert_int_eq(loop_run(loop), 0);
    loop_timer_stop(loop, &watchdog);
}

#define LOOP_TEST(name)                                                                                                \
    static void name(struct loop *loop);                                                                               \
    TEST(name##_uring)                                                                                                 \
    {                                                                                                                  \
        struct loop *loop = loop_for_test(LOOP_URING);                                                                 \
        if (loop)                                                                                                      \
            name(loop);                                                                                                \
        loop_free(loop);                                                                                               \
    }                                                                                                                  \
    TEST(name##_epoll)                                                                                                 \
    {                                                                                                                  \
        struct loop *loop = loop_for_test(LOOP_EPOLL);                                                                 \
        name(loop);                                                                                                    \
        loop_free(loop);                                                                                               \
    }                                                                                                                  \
    static void name(struct loop *loop)
