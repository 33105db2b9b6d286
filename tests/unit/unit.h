/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unit tests on the Check library: each TEST registers itself and runs in a process of its own. Names are
 * sentences: TEST(list_keeps_the_order_of_insertion) { ck_assert(...); }
 * Run one by name: CK_RUN_CASE=name build/test/test_list.
 */
#pragma once

#include <check.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

void unit_register(const TTest *test, const char *name, int timeout_seconds);

/* A test that may take up to seconds (before sanitizers and load are allowed for). */
#define TEST_TIMEOUT(name, seconds)                                                                                    \
    static void name##_body(void);                                                                                     \
    START_TEST(name)                                                                                                   \
    {                                                                                                                  \
        name##_body();                                                                                                 \
    }                                                                                                                  \
    END_TEST                                                                                                           \
    static void __attribute__((constructor)) name##_register(void)                                                     \
    {                                                                                                                  \
        unit_register(name, #name, seconds);                                                                           \
    }                                                                                                                  \
    static void name##_body(void)

#define TEST(name) TEST_TIMEOUT(name, 20)

/* A new empty directory of this test, removed when it ends; what a killed test left, when its program ends well. Static
 * storage. */
const char *unit_tempdir(void);

/* fork() for a child that is going to be killed at any time, and the wait for its end: returns its status. One such child at a
 * time. What it says to Check counts if it ends by itself. If it was killed that is dropped: half a message would be the end of
 * the program ("Bad message type"). */
pid_t unit_fork(void);
int unit_wait(pid_t child);

/* The file that Check's messages of this process and its children go into; -1: not found. */
int unit_messages(void);

/* A call that returns 0, or this code; told by name when it does not. */
#define ck_ok(expression)                                                                                              \
    do {                                                                                                               \
        int ok_ = (expression);                                                                                        \
        ck_assert_msg(ok_ == 0, "%s: %s", #expression, cv_error_name(ok_));                                            \
    } while (0)
#define ck_error(expression, code)                                                                                     \
    do {                                                                                                               \
        int got_ = (expression);                                                                                       \
        ck_assert_msg(got_ == (code), "%s: %s, not %s", #expression, cv_error_name(got_), cv_error_name(code));        \
    } while (0)

/* Wait for a condition, not for a time. */
#define until(condition) until_within(20, condition)
#define until_within(seconds, condition)                                                                               \
    do {                                                                                                               \
        uint64_t until_ns = clock_ns() + (seconds)*NS_PER_S;                                                           \
        while (!(condition)) {                                                                                         \
            ck_assert_msg(clock_ns() < until_ns, "waited %d s for: %s", (int)(seconds), #condition);                   \
            usleep(500);                                                                                               \
        }                                                                                                              \
    } while (0)
