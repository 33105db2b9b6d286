/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of small tables that are always in memory: mounts and workers. Each as it was executed (now) and as it is committed,
 * so that an undone batch can fall back without asking the base.
 * Owner: the scribe; readers look under the shared lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "meta/meta_format.h"

struct kept_row {
    uint64_t id;
    uint8_t *now, *committed; /* values; NULL: there is no such row */
    uint32_t now_n, committed_n;
    uint32_t batch;              /* low bits; of now */
    struct meta_mount_row mount; /* now, decoded, of a mount */
};

struct kept {
    struct kept_row **rows; /* by id */
    uint32_t count, room;
    uint32_t largest; /* bytes of the largest row ever */
    uint64_t version; /* counts committed changes */
};

void kept_fini(struct kept *k);
/* Also one that only is committed, or only executed: look at now and committed. NULL: none. */
struct kept_row *kept_find(const struct kept *k, uint64_t id);
/* What was executed; p NULL: there is no row any more. Errors: -ENOMEM. */
int kept_now(struct kept *k, uint64_t id, struct text value, uint32_t batch);
/* What was executed is taken back: now is what is committed. */
int kept_undone(struct kept *k, uint64_t id);
int kept_committed(struct kept *k, uint64_t id, struct text value);
