/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pool of equal objects in slabs: allocation and release are a few instructions, memory is given back only with
 * the pool. Owner: one thread. An empty pool with a limit says so (NULL): the caller pushes back.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct pool {
    size_t object_size;    /* rounded up to pointer alignment */
    uint32_t slab_objects; /* objects per slab */
    uint64_t limit, used;  /* objects; limit 0 is none */
    void *free_list;       /* linked through the first word of each free object */
    void *slabs;           /* linked through the first word of each slab */
    char *fresh;           /* never used objects of the newest slab */
    uint32_t fresh_left;
    uint64_t slab_count;
};

/* slab_bytes: how much to ask malloc for at a time (at least one object). */
void pool_init(struct pool *p, size_t object_size, size_t slab_bytes, uint64_t limit);

/* Free the slabs; objects still in use become invalid. */
void pool_fini(struct pool *p);

/* An object with undefined content, or NULL: no memory, or the limit is reached. */
void *pool_alloc(struct pool *p);

/* NULL is fine. */
void pool_release(struct pool *p, void *object);

/* Bytes held from malloc. */
uint64_t pool_bytes(const struct pool *p);
