/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>

#include "conf/json.h"
#include "conf/metrics.h"

static const char *const fake_ops[] = {"get", "put"};

#define METRICS_DEF "tests/unit/test_metrics.def"
struct fake_metrics {
#include "conf/metric_fields.h"
};
#define METRICS_DEF "tests/unit/test_metrics.def"
struct fake_gauges {
#include "conf/metric_gauges.h"
};
#define METRICS_DEF    "tests/unit/test_metrics.def"
#define METRICS_STRUCT struct fake_metrics
#define GAUGES_STRUCT  struct fake_gauges
static const struct metric rows[] = {
#include "conf/metric_rows.h"
};
static const struct metric_set fake_set = {METRIC_SET("fake", struct fake_metrics, struct fake_gauges, rows)};

static void fill(void *arg, void *gauges)
{
    struct fake_gauges *g = gauges;
    g->used_bytes = -5;
    gauge_family_add(&g->dir_used_bytes, "/a\"b", 10);
    gauge_family_add(&g->dir_used_bytes, "/c", 20);
}

/* Static storage. */
static const char *text_of_metrics(struct metrics *m)
{
    static char said[65536];
    struct buf out cleanup(buf_fini) = {0};
    ck_assert_int_eq(metrics_write_text(m, &out), 0);
    ck_assert_uint_lt(out.n, sizeof(said));
    memcpy(said, out.p, out.n);
    said[out.n] = 0;
    return said;
}

#define ck_assert_says(said, line) ck_assert_msg(strstr((said), (line)), "no '%s' in:\n%s", (line), (said))

TEST(counters_of_all_threads_are_summed_also_of_those_that_ended)
{
    struct metrics *m cleanup(metrics_free_p) = NULL;
    struct fake_metrics *a, *b;
    ck_assert_int_eq(metrics_new(&m), 0);
    ck_assert_int_eq(metrics_block_new(m, &fake_set, &a), 0);
    ck_assert_int_eq(metrics_block_new(m, &fake_set, &b), 0);
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    counter_add(&a->block_reads, 3);
    counter_add(&b->block_reads, 4);
    counter_add(&b->requests[1], 9);
    ck_assert_says(text_of_metrics(m), "curvine_fake_block_reads_total 7\n");
    metrics_block_free(m, &fake_set, a);
    ck_assert_says(text_of_metrics(m), "# HELP curvine_fake_block_reads_total blocks served to clients\n"
                                       "# TYPE curvine_fake_block_reads_total counter\n"
                                       "curvine_fake_block_reads_total 7\n");
    ck_assert_says(text_of_metrics(m), "curvine_fake_requests_total{op=\"get\"} 0\n"
                                       "curvine_fake_requests_total{op=\"put\"} 9\n");
}

TEST(gauges_are_asked_for_at_the_scrape_and_absent_when_nobody_knows_them)
{
    struct metrics *m cleanup(metrics_free_p) = NULL;
    struct fake_metrics *a;
    ck_assert_int_eq(metrics_new(&m), 0);
    ck_assert_int_eq(metrics_block_new(m, &fake_set, &a), 0);
    ck_assert_ptr_null(strstr(text_of_metrics(m), "used_bytes"));
    ck_assert_int_eq(metrics_set_gauges(m, &fake_set, fill, NULL), 0);
    ck_assert_int_eq(metrics_set_gauges(m, &fake_set, fill, NULL), -EEXIST);
    ck_assert_says(text_of_metrics(m), "curvine_fake_used_bytes -5\n");
    ck_assert_says(text_of_metrics(m), "curvine_fake_dir_used_bytes{dir=\"/a\\\"b\"} 10\n"
                                       "curvine_fake_dir_used_bytes{dir=\"/c\"} 20\n");
    ck_assert_int_eq(metrics_set_gauges(m, &fake_set, NULL, NULL), 0);
    ck_assert_ptr_null(strstr(text_of_metrics(m), "used_bytes"));
}

TEST(histogram_buckets_hold_exactly_their_range)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        ck_assert_uint_eq(histogram_bucket(histogram_bound(i)), i);
        if (i + 1 < HISTOGRAM_BUCKETS)
            ck_assert_uint_eq(histogram_bucket(histogram_bound(i) + 1), i + 1);
    }
    ck_assert_uint_eq(histogram_bucket(0), 0);
    ck_assert_uint_eq(histogram_bound(HISTOGRAM_BUCKETS - 1), 1ull << 48);
    ck_assert_uint_eq(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

TEST(histograms_give_quantiles_within_a_quarter_and_cumulative_buckets)
{
    struct metrics *m cleanup(metrics_free_p) = NULL;
    struct fake_metrics *a;
    ck_assert_int_eq(metrics_new(&m), 0);
    ck_assert_int_eq(metrics_block_new(m, &fake_set, &a), 0);
    ck_assert_uint_eq(histogram_quantile(&a->read_ns, 0.5), 0);
    for (uint64_t i = 1; i <= 1000; i++)
        histogram_add(&a->read_ns, i * 1000);
    ck_assert_uint_eq(histogram_count(&a->read_ns), 1000);
    static const double qs[] = {0.01, 0.5, 0.9, 0.99, 1};
    for (size_t i = 0; i < array_size(qs); i++) {
        double got = (double)histogram_quantile(&a->read_ns, qs[i]), want = qs[i] * 1000000;
        ck_assert_msg(got >= want * 0.999 && got <= want * 1.26, "q %f: %f for %f", qs[i], got, want);
    }
    histogram_add(&a->size_bytes, 4096);
    histogram_add(&a->size_bytes, 4097);
    const char *said = text_of_metrics(m);
    ck_assert_says(said, "# TYPE curvine_fake_read_seconds histogram\n");
    ck_assert_says(said, "curvine_fake_read_seconds_bucket{le=\"1.024e-06\"} 1\n");
    ck_assert_says(said, "curvine_fake_read_seconds_bucket{le=\"+Inf\"} 1000\n");
    ck_assert_says(said, "curvine_fake_read_seconds_sum 0.5005\ncurvine_fake_read_seconds_count 1000\n");
    ck_assert_says(said,
                   "curvine_fake_size_bytes_bucket{le=\"4096\"} 1\ncurvine_fake_size_bytes_bucket{le=\"16384\"} 2\n");
}

TEST(metrics_as_json_parse_and_hold_the_same_numbers)
{
    struct metrics *m cleanup(metrics_free_p) = NULL;
    struct fake_metrics *a;
    ck_assert_int_eq(metrics_new(&m), 0);
    ck_assert_int_eq(metrics_block_new(m, &fake_set, &a), 0);
    ck_assert_int_eq(metrics_set_gauges(m, &fake_set, fill, NULL), 0);
    counter_add(&a->requests[0], 3);
    histogram_add(&a->read_ns, 8);
    struct buf out cleanup(buf_fini) = {0};
    ck_assert_int_eq(metrics_write_json(m, &out), 0);
    json_t *root = json_loadb((char *)out.p, out.n, 0, NULL);
    ck_assert_ptr_nonnull(root);
    json_t *set = json_object_get(root, "fake");
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(set, "requests"), "get")), 3);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(set, "dir_used_bytes"), "/a\"b")), 10);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(set, "read_ns"), "p99")), 8);
    ck_assert_int_eq(json_integer_value(json_object_get(set, "used_bytes")), -5);
    json_decref(root);
}

TEST(json_strings_escape_what_json_does_not_take)
{
    struct buf out cleanup(buf_fini) = {0};
    ck_assert_int_eq(json_write_text(&out, "a\"b\\c\n\x01 \xc3\xa4 \xff \xed\xa0\x80 \xf0\x9f\x98\x80 \xc3"), 0);
    ck_assert_int_eq(buf_append(&out, "", 1), 0);
    ck_assert_str_eq((char *)out.p, "\"a\\\"b\\\\c\\u000a\\u0001 \xc3\xa4 \xef\xbf\xbd "
                                    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xf0\x9f\x98\x80 \xef\xbf\xbd\"");
}

static void *count_many(void *arg)
{
    struct metrics *m = arg;
    struct fake_metrics *a;
    ck_assert_int_eq(metrics_block_new(m, &fake_set, &a), 0);
    for (int i = 0; i < 100000; i++) {
        counter_add(&a->block_reads, 1);
        histogram_add(&a->read_ns, (uint64_t)i);
    }
    metrics_block_free(m, &fake_set, a);
    return NULL;
}

TEST(counting_and_scraping_at_the_same_time_loses_nothing)
{
    struct metrics *m cleanup(metrics_free_p) = NULL;
    ck_assert_int_eq(metrics_new(&m), 0);
    pthread_t threads[4];
    for (size_t i = 0; i < array_size(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_many, m), 0);
    for (int i = 0; i < 20; i++)
        (void)text_of_metrics(m);
    for (size_t i = 0; i < array_size(threads); i++)
        pthread_join(threads[i], NULL);
    ck_assert_says(text_of_metrics(m), "curvine_fake_block_reads_total 400000\n");
    ck_assert_says(text_of_metrics(m), "curvine_fake_read_seconds_count 400000\n");
}
