/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRCs of a chunk's 64 KiB units as its bytes come in: within a unit in order, the units in any order. A unit that begins
 * again at its start counts anew. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/block_store.h"

struct block_units {
    uint32_t crc[BLOCK_CHUNK_UNITS];
    uint32_t filled[BLOCK_CHUNK_UNITS]; /* bytes so far */
};

/* Would n bytes at offset within the chunk be in order? */
bool block_units_fit(const struct block_units *u, uint32_t offset, uint32_t n);

/* They came. */
void block_units_add(struct block_units *u, uint32_t offset, const void *p, uint32_t n);

/* Are the first length bytes of the chunk complete? */
bool block_units_complete(const struct block_units *u, uint32_t length);

/* Go on with zeros from byte from to byte to. */
void block_units_zeros(struct block_units *u, uint32_t from, uint32_t to);
