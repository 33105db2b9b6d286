/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/rpc_buffer.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct buffer {
    uint64_t n;
    _Alignas(max_align_t) uint8_t bytes[];
};

static _Atomic uint64_t used, limit = 512u << 20;

uint8_t *rpc_buffer_new(uint32_t n)
{
    if (atomic_fetch_add_explicit(&used, n, memory_order_relaxed) + n <= atomic_load(&limit)) {
        struct buffer *b = malloc(sizeof(*b) + n);
        if (b) {
            b->n = n;
            return b->bytes;
        }
    }
    atomic_fetch_sub_explicit(&used, n, memory_order_relaxed);
    return NULL;
}

void rpc_buffer_free(uint8_t *buffer)
{
    if (!buffer)
        return;
    struct buffer *b = container_of(buffer, struct buffer, bytes);
    atomic_fetch_sub_explicit(&used, b->n, memory_order_relaxed);
    free(b);
}

void rpc_buffer_set_limit(uint64_t bytes)
{
    atomic_store(&limit, bytes);
}

uint64_t rpc_buffer_used(void)
{
    return atomic_load(&used);
}
