/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master's pulse: a thread that writes link_health to the journal every LINK_HEALTH_MS over a connection of its
 * own. It says that the process runs (and is not stopped, swapped out or frozen); a busy scribe does not silence it.
 */
#pragma once

#include <stdint.h>

#include "io/net.h"

struct master_health; /* opaque */

/* address: the journal's. Errors: -ENOMEM. */
int master_health_new(const struct net_address *address, uint64_t master, struct master_health **ret);

/* Ends the thread, if it was started. NULL is fine. */
struct master_health *master_health_free(struct master_health *h);

int master_health_start(struct master_health *h);
