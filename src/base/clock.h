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

/* Times of files are ns since 1970 in two's complement, from 1677 to 2262: those before 1970 are negative. */
static inline struct timespec ns_to_timespec(uint64_t ns)
{
    int64_t seconds = (int64_t)ns / (int64_t)NS_PER_S, rest = (int64_t)ns % (int64_t)NS_PER_S;
    if (rest < 0)
        return (struct timespec){.tv_sec = seconds - 1, .tv_nsec = (long)(rest + (int64_t)NS_PER_S)};
    return (struct timespec){.tv_sec = seconds, .tv_nsec = (long)rest};
}

/* What lies outside becomes the first or last of them. */
static inline uint64_t ns_of_timespec(int64_t seconds, uint32_t ns)
{
    int64_t r;
    if (__builtin_mul_overflow(seconds, (int64_t)NS_PER_S, &r) || __builtin_add_overflow(r, (int64_t)ns, &r))
        return (uint64_t)(seconds < 0 ? INT64_MIN : INT64_MAX);
    return (uint64_t)r;
}

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
