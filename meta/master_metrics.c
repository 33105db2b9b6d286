/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_metrics.h"

const char *const master_op_names[MASTER_OP_COUNT] = {
#define OP(name, class, head) [MASTER_OP_##name] = #name,
    META_OPS_(OP)
#undef OP
#define OWN(name) [MASTER_OP_##name] = #name,
        MASTER_OWN_OPS_(OWN)
#undef OWN
            [MASTER_OP_other] = "other",
};

enum master_op master_op_of(uint16_t type)
{
    switch (type) {
#define OP(name, class, head)                                                                                          \
    case MSG_##name: return MASTER_OP_##name;
        META_OPS_(OP)
#undef OP
#define OWN(name)                                                                                                      \
    case MSG_##name: return MASTER_OP_##name;
        MASTER_OWN_OPS_(OWN)
#undef OWN
    default: return MASTER_OP_other;
    }
}

#define METRICS_DEF    "meta/master_metrics.def"
#define METRICS_STRUCT struct master_metrics
#define GAUGES_STRUCT  struct master_gauges
static const struct metric rows[] = {
#include "conf/metric_rows.h"
};

const struct metric_set master_metric_set = {
    METRIC_SET("master", struct master_metrics, struct master_gauges, rows),
};
