/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which chunks go first: the policy, two bits a chunk, of which the store keeps a pair of words in each resident block.
 * Pure, no I/O, no lock: called under the store's. Another policy (S3-FIFO) replaces the three functions.
 *
 * A clock whose chunks start at 0 when filled and count the times a reader came back, up to 3. The hand takes chunks at
 * 0 or 1 (nobody came a second time: a scan) and lowers the others by one. What is not resident was not used lately
 * and counts as 0.
 */
#pragma once

#include <stdint.h>

struct block_heat {
    uint64_t low, high; /* bit c of each: the count of chunk c */
};

/* Chunks came in, or went. */
static inline void block_heat_reset(struct block_heat *h, uint64_t chunks)
{
    h->low &= ~chunks;
    h->high &= ~chunks;
}

/* A reader came to these chunks; going on where it stopped is not coming again (the caller sees to that). */
static inline void block_heat_read(struct block_heat *h, uint64_t chunks)
{
    uint64_t up = chunks & ~(h->low & h->high);
    uint64_t carry = h->low & up;
    h->low ^= up;
    h->high ^= carry;
}

/* The hand passes over chunks: returns those to drop, lowers the others. */
static inline uint64_t block_heat_pass(struct block_heat *h, uint64_t chunks)
{
    uint64_t stay = chunks & h->high;
    uint64_t borrow = stay & ~h->low;
    h->low ^= stay;
    h->high ^= borrow;
    return chunks & ~stay;
}

/* Would the hand take all of these? */
static inline uint64_t block_heat_cold(const struct block_heat *h, uint64_t chunks)
{
    return chunks & ~h->high;
}
