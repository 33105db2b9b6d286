/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers: random_u64() from the kernel for ids and secrets; struct prng for jitter, tests and simulation,
 * where a run must be a function of its seed (splitmix64).
 */
#pragma once

#include <stdint.h>

/* 64 random bits from the kernel, never 0. Aborts when the kernel has none to give. */
uint64_t random_u64(void);

struct prng {
    uint64_t state;
};

static inline uint64_t prng_next(struct prng *p)
{
    uint64_t z = (p->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Uniform in [0, n); n > 0. The bias of the multiply method is below 2^-32 for the small n used here. */
static inline uint32_t prng_below(struct prng *p, uint32_t n)
{
    return (uint32_t)(((prng_next(p) >> 32) * n) >> 32);
}
