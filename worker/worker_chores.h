/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker asks the master now and then: which sessions that hold descriptors have ended; which blocks are nobody's
 * (a sweep over everything kept, a page a heartbeat). Owner: the back loop.
 */
#pragma once

#include "worker/worker_core.h"
#include "worker/worker_master.h"

struct worker_chores;

int worker_chores_new(struct loop *loop, struct worker_core *core, struct worker_master *master,
                      struct worker_metrics *metrics, struct worker_chores **ret);

/* Registered, perhaps with a master of a later incarnation: then everything kept is asked about at once, page after page. */
void worker_chores_registered(struct worker_chores *c);
/* A heartbeat was answered. */
void worker_chores_beat(struct worker_chores *c);

/* The master is stopped already. stopped() runs, perhaps from in here, when nothing is under way. */
void worker_chores_stop(struct worker_chores *c, void (*stopped)(void *arg), void *arg);
struct worker_chores *worker_chores_free(struct worker_chores *c);
