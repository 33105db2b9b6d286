/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <assert.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* Objects start one maximal alignment behind the slab's link. */
#define SLAB_HEAD (sizeof(max_align_t))

void pool_init(struct pool *p, size_t object_size, size_t slab_bytes, uint64_t limit)
{
    size_t align = sizeof(void *);
    object_size = max(object_size, align);
    object_size = (object_size + align - 1) / align * align;
    *p = (struct pool){
        .object_size = object_size,
        .slab_objects = (uint32_t)max(slab_bytes / object_size, (size_t)1),
        .limit = limit,
    };
}

void pool_fini(struct pool *p)
{
    for (void *slab = p->slabs, *next; slab; slab = next) {
        next = *(void **)slab;
        free(slab);
    }
    *p = (struct pool){0};
}

void *pool_alloc(struct pool *p)
{
    if (p->limit && p->used >= p->limit)
        return NULL;
    void *object = p->free_list;
    if (object) {
        p->free_list = *(void **)object;
    } else {
        if (p->fresh_left == 0) {
            char *slab = malloc(SLAB_HEAD + p->object_size * p->slab_objects);
            if (!slab)
                return NULL;
            *(void **)(void *)slab = p->slabs;
            p->slabs = slab;
            p->slab_count++;
            p->fresh = slab + SLAB_HEAD;
            p->fresh_left = p->slab_objects;
        }
        object = p->fresh;
        p->fresh += p->object_size;
        p->fresh_left--;
    }
    p->used++;
    return object;
}

void pool_release(struct pool *p, void *object)
{
    if (!object)
        return;
    assert(p->used > 0);
    p->used--;
    *(void **)object = p->free_list;
    p->free_list = object;
}

uint64_t pool_bytes(const struct pool *p)
{
    return p->slab_count * (SLAB_HEAD + p->object_size * p->slab_objects);
}
