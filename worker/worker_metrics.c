/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_metrics.h"

#include "wire/message.h"

const char *const worker_op_names[WORKER_OP_COUNT] = {
#define OP(name) [WORKER_OP_##name] = #name,
    WORKER_OPS(OP)
#undef OP
};

const char *const worker_verb_names[UFS_VERBS] = {
    [UFS_GET] = "get",       [UFS_HEAD] = "head", [UFS_PUT] = "put",
    [UFS_DELETE] = "delete", [UFS_LIST] = "list", [UFS_POST] = "post",
};

enum worker_op worker_op_of(uint16_t type)
{
    switch (type) {
#define OP(name)                                                                                                       \
    case MSG_##name: return WORKER_OP_##name;
        WORKER_OPS(OP)
#undef OP
    default: return WORKER_OP_COUNT;
    }
}

#define METRICS_DEF    "worker/worker_metrics.def"
#define METRICS_STRUCT struct worker_metrics
#define GAUGES_STRUCT  struct worker_gauges
static const struct metric rows[] = {
#include "conf/metric_rows.h"
};

const struct metric_set worker_metric_set = {
    METRIC_SET("worker", struct worker_metrics, struct worker_gauges, rows),
};
