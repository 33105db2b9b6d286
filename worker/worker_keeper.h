/* SPDX-License-Identifier: Apache-2.0 */
/* The store's housekeeping, once a second, on a thread of its own: what it does may take long. */
#pragma once

#include "worker/block_store.h"

struct worker_keeper;

int worker_keeper_start(struct block_store *s, struct worker_keeper **ret);

/* NULL is fine. */
struct worker_keeper *worker_keeper_stop(struct worker_keeper *k);
