/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies under a namespace core on a simulated disk: rows in order of (family, key), never changed. A flush makes a
 * new one of the old and the sealed delta, so whoever holds an older one (a checkpoint, a crash) still has it whole.
 */
#pragma once

#include "base/random.h"
#include "meta/meta.h"
#include "sim_world.h"

struct space_base;

struct space_view {
    const struct space_base *rows; /* NULL: empty */
    struct prng *random;           /* whether a row is in memory */
};

/* The base a view shows at the time of asking. */
struct meta_base space_base_of(struct space_view *v);

/* A base with the delta's rows over those of old. */
const struct space_base *space_base_write(struct world *w, const struct space_base *old, struct meta_delta *d);

/* Nodes leave the core's tree, as if memory were short. */
void space_evict(struct meta *m, uint32_t count);
