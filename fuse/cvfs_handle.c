/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/cvfs_handle.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define NONE UINT32_MAX

void cvfs_handles_init(struct cvfs_handles *h)
{
    *h = (struct cvfs_handles){.free = NONE};
    pthread_mutex_init(&h->lock, NULL);
}

void cvfs_handles_fini(struct cvfs_handles *h)
{
    for (uint32_t i = 0; i < CVFS_HANDLE_CHUNKS; i++)
        free(atomic_load(&h->chunks[i]));
    pthread_mutex_destroy(&h->lock);
}

static struct cvfs_handle *at(struct cvfs_handles *h, uint32_t index)
{
    if (index / CVFS_HANDLE_CHUNK >= CVFS_HANDLE_CHUNKS)
        return NULL;
    struct cvfs_handle *chunk = atomic_load_explicit(&h->chunks[index / CVFS_HANDLE_CHUNK], memory_order_acquire);
    return chunk ? &chunk[index % CVFS_HANDLE_CHUNK] : NULL;
}

/* Locked: an index nobody uses. */
static int find_free(struct cvfs_handles *h, uint32_t *ret)
{
    if (h->free != NONE) {
        *ret = h->free;
        h->free = at(h, h->free)->next_free;
        return 0;
    }
    uint32_t chunk = h->made / CVFS_HANDLE_CHUNK;
    if (chunk >= CVFS_HANDLE_CHUNKS)
        return -ENFILE;
    if (!atomic_load(&h->chunks[chunk])) {
        struct cvfs_handle *fresh = calloc(CVFS_HANDLE_CHUNK, sizeof(*fresh));
        if (!fresh)
            return -ENOMEM;
        atomic_store_explicit(&h->chunks[chunk], fresh, memory_order_release);
    }
    *ret = h->made++;
    return 0;
}

int cvfs_handle_new(struct cvfs_handles *h, uint64_t *ret_number, struct cvfs_handle **ret)
{
    uint32_t index;
    pthread_mutex_lock(&h->lock);
    int r = find_free(h, &index);
    if (r == 0)
        h->open++;
    pthread_mutex_unlock(&h->lock);
    if (r < 0)
        return r;
    struct cvfs_handle *handle = at(h, index);
    uint32_t generation = atomic_load(&handle->generation) + 1;
    assert(generation & 1);
    *handle = (struct cvfs_handle){.next_free = NONE};
    atomic_store_explicit(&handle->generation, generation, memory_order_release);
    *ret_number = (uint64_t)generation << 32 | index;
    *ret = handle;
    return 0;
}

struct cvfs_handle *cvfs_handle_get(struct cvfs_handles *h, uint64_t number)
{
    struct cvfs_handle *handle = at(h, (uint32_t)number);
    uint32_t generation = (uint32_t)(number >> 32);
    return handle && generation & 1 && atomic_load_explicit(&handle->generation, memory_order_acquire) == generation
               ? handle
               : NULL;
}

void cvfs_handle_release(struct cvfs_handles *h, uint64_t number)
{
    struct cvfs_handle *handle = cvfs_handle_get(h, number);
    assert(handle);
    pthread_mutex_lock(&h->lock);
    atomic_fetch_add(&handle->generation, 1);
    handle->next_free = h->free;
    h->free = (uint32_t)number;
    h->open--;
    pthread_mutex_unlock(&h->lock);
}

uint32_t cvfs_handles_open(struct cvfs_handles *h)
{
    pthread_mutex_lock(&h->lock);
    uint32_t n = h->open;
    pthread_mutex_unlock(&h->lock);
    return n;
}

bool cvfs_handle_next(struct cvfs_handles *h, uint32_t *position, uint64_t *ret_number)
{
    for (struct cvfs_handle *handle; (handle = at(h, *position));) {
        uint32_t index = (*position)++, generation = atomic_load(&handle->generation);
        if (generation & 1) {
            *ret_number = (uint64_t)generation << 32 | index;
            return true;
        }
    }
    return false;
}
