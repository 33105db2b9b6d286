/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/loop.h"
#include "io/loop_health.h"

static struct {
    struct loop_job job;
    pthread_mutex_t held;
} stuck = {.held = PTHREAD_MUTEX_INITIALIZER};

static void hang(struct loop_job *job)
{
    pthread_mutex_lock(&stuck.held);
    pthread_mutex_unlock(&stuck.held);
}

/* Ask until the answer is r. */
static void expect_health(int r, const char *name)
{
    char which[32] = "";
    uint64_t until = clock_ns() + 20 * NS_PER_S;
    while (loops_healthy(20, which, sizeof(which)) != r) {
        ck_assert_msg(clock_ns() < until, "never said %d", r);
        usleep(1000);
        which[0] = '\0';
    }
    ck_assert_str_eq(which, name);
}

TEST(a_loop_that_hangs_is_named_until_it_turns_again)
{
    struct loop *well, *ill;
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "well"}, &well), 0);
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "ill"}, &ill), 0);
    ck_assert_int_eq(loop_start(well), 0);
    ck_assert_int_eq(loop_start(ill), 0);
    expect_health(0, "");
    pthread_mutex_lock(&stuck.held);
    stuck.job.run = hang;
    loop_post(ill, &stuck.job);
    expect_health(-ETIMEDOUT, "ill");
    pthread_mutex_unlock(&stuck.held);
    expect_health(0, "");
    pthread_mutex_lock(&stuck.held);
    loop_post(ill, &stuck.job);
    expect_health(-ETIMEDOUT, "ill");
    loop_stop(ill); /* one that ends is not asked any more */
    expect_health(0, "");
    pthread_mutex_unlock(&stuck.held);
    loop_join(ill);
    loop_stop(well);
    loop_join(well);
    loop_free(ill);
    loop_free(well);
    expect_health(0, "");
}
