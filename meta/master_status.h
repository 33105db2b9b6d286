/* SPDX-License-Identifier: Apache-2.0 */
/* What a master says about itself: to clients (cluster_status), to the scrape (gauges), to /readyz and /status. */
#pragma once

#include "base/uuid.h"
#include "meta/master_core.h"
#include "meta/master_import.h"
#include "meta/master_options.h"
#include "meta/master_scribe.h"
#include "meta/master_server.h"
#include "meta/master_ufs.h"
#include "meta/master_workers.h"
#include "wire/message.h"

/* Any thread. All borrowed. */
struct master_status {
    struct master_core *core;
    struct master_scribe *scribe;
    struct master_workers *workers;
    struct master_ufs *ufs;
    struct master_import *import;
    struct master_server *server; /* NULL before it is made */
    const struct master_options *options;
    struct uuid cluster;
    uint64_t master;
    uint64_t started_ns, started_wall_ns;
    char address[300];   /* where clients reach us */
    const char *journal; /* its socket */
};

/* The answer to cluster_status; what it points to goes into texts, which must be empty. */
void master_status_answer(void *arg, struct msg_cluster_status_answer *ret, struct buf *texts);

/* For metrics_set_gauges(). */
void master_status_gauges(void *arg, void *gauges);

/* For /readyz. 0, or -CV_NOT_LEADER and so on, with the reason in why. */
int master_status_ready(const struct master_status *s, char *why, size_t why_size);

/* For /status: one JSON object. */
int master_status_json(struct master_status *s, struct buf *out);
