/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics: declared once as rows of a .def file, counted for an add, summed when somebody looks.
 *
 *     COUNTER(block_reads, "blocks served to clients")                                     worker/worker_metrics.def
 *     COUNTERS(requests, op, OP_COUNT, op_names, "requests by operation")      an array, labelled by a const char *[]
 *     HISTOGRAM(read_ns, "time from request to answer")                        _ns is exported in seconds
 *     HISTOGRAMS(op_ns, op, OP_COUNT, op_names, "...")
 *     GAUGE(used_bytes, "bytes in use in all directories")                     asked for at the scrape
 *     GAUGES(dir_used_bytes, dir, "bytes in use in this directory")            any number of labels, at the scrape
 *
 * Each thread that counts has a block (the set's struct) of its own and is the only one to write it: counting is a
 * plain load, add and store, no locked instruction, no shared cache line. A scrape sums the blocks and asks for the
 * gauges. Names are exported as curvine_<set>_<name>, counters with _total.
 *
 * A set is declared by a header and a source of its own:
 *
 *     #define METRICS_DEF "worker/worker_metrics.def"          #define METRICS_DEF    "worker/worker_metrics.def"
 *     struct worker_metrics {                                  #define METRICS_STRUCT struct worker_metrics
 *     #include "conf/metric_fields.h"                          #define GAUGES_STRUCT  struct worker_gauges
 *     };                                                       static const struct metric rows[] = {
 *     #define METRICS_DEF "worker/worker_metrics.def"          #include "conf/metric_rows.h"
 *     struct worker_gauges {                                   };
 *     #include "conf/metric_gauges.h"                          const struct metric_set worker_metric_set = {
 *     };                                                           METRIC_SET("worker", struct worker_metrics,
 *     extern const struct metric_set worker_metric_set;                       struct worker_gauges, rows)};
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"

/* Written by one thread, read by any. */
struct counter {
    _Atomic uint64_t value;
};

static inline void counter_add(struct counter *c, uint64_t n)
{
    uint64_t value = atomic_load_explicit(&c->value, memory_order_relaxed);
    atomic_store_explicit(&c->value, value + n, memory_order_relaxed);
}

/* For the rare counter that several threads write. */
static inline void counter_add_shared(struct counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
}

static inline uint64_t counter_get(const struct counter *c)
{
    return atomic_load_explicit(&c->value, memory_order_relaxed);
}

/*
 * Values in buckets that grow by the power of two, four to an octave: a quantile is right within 25 %. Bucket i holds
 * the values in (histogram_bound(i - 1), histogram_bound(i)]; values above 2^48 are counted in the last.
 */
#define HISTOGRAM_BUCKETS 188

struct histogram {
    struct counter sum;
    struct counter buckets[HISTOGRAM_BUCKETS];
};

static inline uint32_t histogram_bucket(uint64_t value)
{
    uint64_t v = value ? value - 1 : 0; /* bounds belong to the bucket below them, as Prometheus has it */
    if (v < 4)
        return (uint32_t)v;
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(v);
    uint32_t i = (octave - 1) * 4 + ((v >> (octave - 2)) & 3);
    return min(i, HISTOGRAM_BUCKETS - 1u);
}

/* The largest value bucket i holds. */
static inline uint64_t histogram_bound(uint32_t i)
{
    return i < 4 ? i + 1 : (uint64_t)(4 + i % 4 + 1) << (i / 4 - 1);
}

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    counter_add(&h->buckets[histogram_bucket(value)], 1);
    counter_add(&h->sum, value);
}

/* The value below which q (0 to 1) of what was counted lies: the bound of the bucket it falls in; 0 for an empty one. */
uint64_t histogram_quantile(const struct histogram *h, double q);
uint64_t histogram_count(const struct histogram *h);

/* A labelled gauge while it is being filled. */
struct gauge_family {
    struct gauge_item {
        char label[96]; /* cut when longer */
        int64_t value;
    } * items;
    uint32_t n, room;
};

/* Items beyond this many are left out: a scrape stays bounded whatever the cluster holds. */
#define GAUGE_FAMILY_MAX 4096

void gauge_family_add(struct gauge_family *f, const char *label, int64_t value);

enum metric_kind { METRIC_COUNTER, METRIC_HISTOGRAM, METRIC_GAUGE, METRIC_GAUGE_FAMILY };

struct metric {
    const char *name, *help;
    enum metric_kind kind;
    uint32_t offset;           /* in the block, or in the struct of gauges */
    uint32_t count;            /* of an array; 1 else */
    const char *label;         /* of an array or family; NULL else */
    const char *const *labels; /* of an array: count names; NULL: numbers */
};

struct metric_set {
    const char *name;
    const struct metric *rows;
    uint32_t n;
    uint32_t block_size, gauges_size; /* bytes */
};

#define METRIC_SET(name_, block_type_, gauges_type_, rows_)                                                            \
    .name = (name_), .rows = (rows_), .n = sizeof(rows_) / sizeof((rows_)[0]), .block_size = sizeof(block_type_),      \
    .gauges_size = sizeof(gauges_type_)

/* The metrics of one daemon. All functions may be called from any thread. */
struct metrics;

int metrics_new(struct metrics **ret);
struct metrics *metrics_free(struct metrics *m);
DEFINE_CLEANUP(struct metrics *, metrics_free)

/* A zeroed block for the calling thread to count in, of the set's struct; on cache lines of its own.
 * Errors: -ENOMEM; -ENOSPC too many sets. */
int metrics_block_new(struct metrics *m, const struct metric_set *set, void *ret);

/* The thread counts no more: its counts stay in the sums, the block is freed. */
void metrics_block_free(struct metrics *m, const struct metric_set *set, void *block);

/* Who knows the gauges of a set: fill is called at each scrape, on the scraping thread, with the set's struct of
 * gauges zeroed; it must not call metrics_*(). One per set; fill NULL takes it back (and waits for a scrape under way).
 * Errors: -EEXIST the set has one; -ENOMEM; -ENOSPC. */
int metrics_set_gauges(struct metrics *m, const struct metric_set *set, void (*fill)(void *arg, void *gauges),
                       void *arg);

/* Append everything as Prometheus text (version 0.0.4), with the process_* metrics of this process. */
int metrics_write_text(struct metrics *m, struct buf *out);

/* Append everything as one JSON object {set: {name: value}}; a histogram is {count, sum, p50, p90, p99, max}. */
int metrics_write_json(struct metrics *m, struct buf *out);
