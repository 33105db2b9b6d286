/* SPDX-License-Identifier: Apache-2.0 */
/* The store's housekeeping, once a second, on a thread of its own: what it does may take long. And how much of what is kept
 * is nowhere else: DIRTY_PAGES of the index a second, so that the sum of a large store is some minutes old. */
#pragma once

#include "worker/worker_core.h"

struct worker_keeper;

int worker_keeper_start(struct worker_core *core, struct worker_keeper **ret);

/* NULL is fine. */
struct worker_keeper *worker_keeper_stop(struct worker_keeper *k);
