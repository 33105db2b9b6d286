/* SPDX-License-Identifier: Apache-2.0 */
/* What a master counts: rows in meta/master_metrics.def, machinery in conf/metrics.h. */
#pragma once

#include "conf/metrics.h"
#include "meta/meta.h"

/* OWN(name): requests the daemon answers itself. */
// clang-format off
#define MASTER_OWN_OPS_(OWN)                                                                                           \
    OWN(leader) OWN(session_renew) OWN(cluster_status) OWN(workers)                                                    \
    OWN(worker_register) OWN(worker_heartbeat) OWN(worker_mounts) OWN(sessions_check) OWN(origin_changed) OWN(raft_admin)
// clang-format on

/* Requests served, for counting by operation: those of the core, then the daemon's own. */
enum master_op {
#define OP(name, class, head) MASTER_OP_##name,
    META_OPS_(OP)
#undef OP
#define OWN(name) MASTER_OP_##name,
        MASTER_OWN_OPS_(OWN)
#undef OWN
            MASTER_OP_other,
    MASTER_OP_COUNT
};
extern const char *const master_op_names[MASTER_OP_COUNT];

/* The operation of a message type. */
enum master_op master_op_of(uint16_t type);

#define METRICS_DEF "meta/master_metrics.def"
struct master_metrics {
#include "conf/metric_fields.h"
};
#define METRICS_DEF "meta/master_metrics.def"
struct master_gauges {
#include "conf/metric_gauges.h"
};
extern const struct metric_set master_metric_set;
