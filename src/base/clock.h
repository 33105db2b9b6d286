/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two clocks of the project. Leases, sessions, deadlines and timers use clock_ns() (CLOCK_BOOTTIME: never set
 * back, counts suspend). Wall time is only for file times and for people. The pure cores get time as an argument.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

static inline uint64_t clock_read(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_ns(void)
{
    return clock_read(CLOCK_BOOTTIME);
}

static inline uint64_t clock_ms(void)
{
    return clock_ns() / NS_PER_MS;
}

static inline uint64_t clock_wall_ns(void)
{
    return clock_read(CLOCK_REALTIME);
}

/* CPU time of the calling thread. */
static inline uint64_t clock_thread_cpu_ns(void)
{
    return clock_read(CLOCK_THREAD_CPUTIME_ID);
}
