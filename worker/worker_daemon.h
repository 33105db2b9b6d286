/* SPDX-License-Identifier: Apache-2.0 */
/* A whole worker: opens its store, serves, keeps in touch with the master. What a program, or a test, starts and stops. */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "conf/common_options.h"
#include "conf/metrics.h"
#include "worker/worker_options.h"

struct worker; /* opaque */

struct worker_config {
    const struct worker_options *options; /* borrowed, like all below */
    const struct cluster_options *cluster;
    struct metrics *metrics; /* may be NULL */
};

/* Open everything; logs what is wrong. Free with worker_free(). */
int worker_new(const struct worker_config *config, struct worker **ret);
struct worker *worker_free(struct worker *w);
DEFINE_CLEANUP(struct worker *, worker_free)

/* Listen and serve; look for the master that leads (not finding one is logged, and tried on). Logs errors. */
int worker_start(struct worker *w);

/* Refuse, answer what is in flight, sync. */
void worker_stop(struct worker *w);

/* Any thread. 0, or a negative code with the reason in why. */
int worker_ready(struct worker *w, char *why, size_t why_size);
int worker_status_page(struct worker *w, struct buf *out);

uint16_t worker_port(const struct worker *w);
uint64_t worker_id(const struct worker *w);
const char *worker_socket(const struct worker *w);
