/* SPDX-License-Identifier: Apache-2.0 */
/* A few stretches of bytes of one block, in order, none touching another, empty ones last. On disk as in memory. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_STRETCHES 4

struct block_stretch {
    uint32_t from, to; /* [from, to); equal: empty */
};

struct block_stretches {
    struct block_stretch at[BLOCK_STRETCHES];
};

static inline bool block_stretches_any(const struct block_stretches *s)
{
    return s->at[0].to > 0;
}

/* [from, to) belongs to them. false: there is no room; then nothing changed. */
bool block_stretches_add(struct block_stretches *s, uint32_t from, uint32_t to);

/* The same, and the two next to each other with the least between them become one when there is no room. */
void block_stretches_force(struct block_stretches *s, uint32_t from, uint32_t to);

/* [from, to) does not. When that makes one too many, the lowest goes. Returns whether anything changed. */
bool block_stretches_sub(struct block_stretches *s, uint32_t from, uint32_t to);

/* The first that has bytes of [from, to), cut to it. false: none. */
bool block_stretches_find(const struct block_stretches *s, uint32_t from, uint32_t to, struct block_stretch *ret);

/* Does one of them reach beyond [from, to) on both sides? */
bool block_stretches_surround(const struct block_stretches *s, uint32_t from, uint32_t to);

/* Chunks they touch. */
uint64_t block_stretches_chunks(const struct block_stretches *s);
