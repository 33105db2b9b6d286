/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeper: a master that can begin anew. When a state from another master was installed (its log had gone on without this
 * one), nothing in memory is of use any more: the master is stopped, freed, and made again on the new state, while the
 * process and its ports for people live on. Only a follower gets there, so no client loses a leader by it.
 *
 * The same when the database ran out of room: its master hands over and stops, and is made anew on the same state as soon as
 * there is room; nor does a master that finds none at its start give up. It follows warm, then.
 *
 * A thread of its own does that; questions asked meanwhile are answered "not ready".
 */
#pragma once

#include "meta/master_daemon.h"

struct master_keeper; /* opaque */

/* Open a master; logs what is wrong. config.install must be NULL; what it points to is borrowed. */
int master_keeper_new(const struct master_config *config, struct master_keeper **ret);
struct master_keeper *master_keeper_free(struct master_keeper *k);
DEFINE_CLEANUP(struct master_keeper *, master_keeper_free)

int master_keeper_start(struct master_keeper *k);
void master_keeper_stop(struct master_keeper *k);

/* As those of master_daemon.h. Any thread. */
int master_keeper_wait_ready(struct master_keeper *k, uint32_t timeout_ms);
int master_keeper_ready(struct master_keeper *k, char *why, size_t why_size);
int master_keeper_status_page(struct master_keeper *k, struct buf *out);
