/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole master: opens its data directory, builds the namespace, connects to its journal, serves. What a program, or a
 * test, starts and stops.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "conf/common_options.h"
#include "conf/metrics.h"
#include "meta/master_options.h"

struct master; /* opaque */

struct master_config {
    const struct master_options *options; /* borrowed, like all below */
    const struct cluster_options *cluster;
    struct metrics *metrics; /* may be NULL */
    /* Any thread: the master cannot go on, which was logged. */
    void (*failed)(void *arg, int error);
    void *arg;
    /* Any thread: another state was put in the place of ours: free this master and make it anew (meta/master_keeper.h). */
    void (*install)(void *arg);
    /* Any thread: its disk is full: the same, when there is room. NULL: failed(). */
    void (*no_room)(void *arg);
};

/* Open everything; logs what is wrong. Free with master_free(). */
int master_new(const struct master_config *config, struct master **ret);
struct master *master_free(struct master *m);
DEFINE_CLEANUP(struct master *, master_free)

/* Listen, connect to the journal, serve as soon as it may. Logs errors. */
int master_start(struct master *m);

/* Wait until it is ready (leads and serves, or follows a leader), at most so long. 0, or why not. */
int master_wait_ready(struct master *m, uint32_t timeout_ms);

/* Refuse, answer what is in flight, hand over, write everything committed to the database. */
void master_stop(struct master *m);

/* 0, or a negative code with the reason in why. Any thread. */
int master_ready(struct master *m, char *why, size_t why_size);
int master_status_page(struct master *m, struct buf *out);

uint16_t master_port(const struct master *m);
