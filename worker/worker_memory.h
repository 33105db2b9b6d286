/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory shared with a client of this host (MSG block_memory), which puts there what it writes: a write then costs a copy into
 * it and one out of it, instead of those and two more through the socket. It is ours, sealed in its size, so that nothing a
 * client does takes a page away under a thread of ours. Counted; any thread.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

#define WORKER_MEMORY_MIN (1u << 20)  /* bytes */
#define WORKER_MEMORY_MAX (64u << 20) /* of one connection */

struct worker_memory {
    _Atomic uint32_t refs;
    uint32_t bytes;
    const uint8_t *p;
};

/* ret_fd: the caller's, for the client. Errors: -EINVAL bytes; -CV_BUSY all connections together have enough. */
int worker_memory_new(uint32_t bytes, struct worker_memory **ret, int *ret_fd);
struct worker_memory *worker_memory_ref(struct worker_memory *m);
struct worker_memory *worker_memory_unref(struct worker_memory *m); /* NULL is fine, and returned */
