/* SPDX-License-Identifier: Apache-2.0 */
/* The two forms metrics are read in: Prometheus text, and JSON for the dashboard and scripts. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "conf/json.h"
#include "conf/metrics_internal.h"

/* Times are counted in ns and exported in seconds, as Prometheus wants base units. */
struct unit {
    int name_length; /* of the row's name without the suffix */
    const char *suffix;
    bool seconds;
};

static struct unit unit_of(const struct metric *row)
{
    size_t n = strlen(row->name);
    bool ns = n > 3 && strcmp(row->name + n - 3, "_ns") == 0;
    return (struct unit){.name_length = (int)(ns ? n - 3 : n), .suffix = ns ? "_seconds" : "", .seconds = ns};
}

static int write_value(struct buf *out, struct unit unit, int64_t value)
{
    return unit.seconds ? buf_printf(out, "%.9g\n", (double)value / 1e9) : buf_printf(out, "%" PRId64 "\n", value);
}

/* A label value, escaped: backslash, quote and newline. */
static int write_label(struct buf *out, const char *label, const char *value, const char *before, const char *after)
{
    int r = buf_printf(out, "%s%s=\"", before, label);
    for (; r == 0 && *value; value++)
        r = *value == '\n'                    ? buf_append(out, "\\n", 2)
            : *value == '"' || *value == '\\' ? buf_printf(out, "\\%c", *value)
                                              : buf_append(out, value, 1);
    return r < 0 ? r : buf_printf(out, "\"%s", after);
}

/* The i-th label of an array. */
static const char *label_at(const struct metric *row, uint32_t i, char number[16])
{
    if (row->labels && row->labels[i])
        return row->labels[i];
    snprintf(number, 16, "%u", i);
    return number;
}

static int text_line(struct buf *out, const struct metric_set *set, const struct metric *row, const char *end,
                     const char *label)
{
    struct unit unit = unit_of(row);
    int r = buf_printf(out, "curvine_%s_%.*s%s%s", set->name, unit.name_length, row->name, unit.suffix, end);
    if (r == 0 && label)
        r = write_label(out, row->label, label, "{", "}");
    return r < 0 ? r : buf_append(out, " ", 1);
}

/* Cumulative buckets at powers of two: 1 us to 69 s for times, 1 to 2^40 in steps of four for all else. */
static int text_histogram(struct buf *out, const struct metric_set *set, const struct metric *row,
                          const struct histogram *h, const char *label)
{
    struct unit unit = unit_of(row);
    const char *name = row->name;
    uint64_t seen = 0;
    uint32_t i = 0;
    int r = 0;
    for (uint32_t power = unit.seconds ? 10 : 0; r == 0 && power <= (unit.seconds ? 36 : 40);
         power += unit.seconds ? 1 : 2) {
        for (; i < HISTOGRAM_BUCKETS && histogram_bound(i) <= 1ull << power; i++)
            seen += counter_get(&h->buckets[i]);
        r = buf_printf(out, "curvine_%s_%.*s%s_bucket{", set->name, unit.name_length, name, unit.suffix);
        if (r == 0 && label)
            r = write_label(out, row->label, label, "", ",");
        if (r == 0)
            r = buf_printf(out, "le=\"%.9g\"} %" PRIu64 "\n", (double)(1ull << power) / (unit.seconds ? 1e9 : 1), seen);
    }
    uint64_t count = histogram_count(h);
    if (r == 0)
        r = buf_printf(out, "curvine_%s_%.*s%s_bucket{", set->name, unit.name_length, name, unit.suffix);
    if (r == 0 && label)
        r = write_label(out, row->label, label, "", ",");
    if (r == 0)
        r = buf_printf(out, "le=\"+Inf\"} %" PRIu64 "\n", count);
    if (r == 0)
        r = text_line(out, set, row, "_sum", label);
    if (r == 0)
        r = write_value(out, unit, (int64_t)counter_get(&h->sum));
    if (r == 0)
        r = text_line(out, set, row, "_count", label);
    return r < 0 ? r : buf_printf(out, "%" PRIu64 "\n", count);
}

static int text_metric(struct buf *out, const struct metric_set *set, const struct metric *row, const void *at,
                       bool first)
{
    static const char *const types[] = {"counter", "histogram", "gauge", "gauge"};
    struct unit unit = unit_of(row);
    const char *end = row->kind == METRIC_COUNTER ? "_total" : "";
    int r = buf_printf(out, "# HELP curvine_%s_%.*s%s%s %s\n# TYPE curvine_%s_%.*s%s%s %s\n", set->name,
                       unit.name_length, row->name, unit.suffix, end, row->help, set->name, unit.name_length, row->name,
                       unit.suffix, end, types[row->kind]);
    char number[16];
    for (uint32_t i = 0; r == 0 && i < row->count; i++) {
        const char *label = row->label && row->kind != METRIC_GAUGE_FAMILY ? label_at(row, i, number) : NULL;
        const struct gauge_family *family = at;
        switch (row->kind) {
        case METRIC_COUNTER:
            r = text_line(out, set, row, end, label);
            if (r == 0)
                r = write_value(out, unit, (int64_t)counter_get((const struct counter *)at + i));
            break;
        case METRIC_HISTOGRAM: r = text_histogram(out, set, row, (const struct histogram *)at + i, label); break;
        case METRIC_GAUGE:
            r = text_line(out, set, row, "", NULL);
            if (r == 0)
                r = write_value(out, unit, *(const int64_t *)at);
            break;
        case METRIC_GAUGE_FAMILY:
            for (uint32_t j = 0; r == 0 && j < family->n; j++) {
                r = text_line(out, set, row, "", family->items[j].label);
                if (r == 0)
                    r = write_value(out, unit, family->items[j].value);
            }
            break;
        }
    }
    return r;
}

static int text_set(struct buf *out, const struct metric_set *set, bool first, bool end)
{
    return 0;
}

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%*s %lu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_files(void)
{
    uint64_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* the one of opendir */
}

/* The metrics every Prometheus client library has, under the names it gives them. */
static int text_process(struct buf *out)
{
    struct rusage usage;
    struct rlimit files;
    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &files);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    return buf_printf(out,
                      "# HELP process_cpu_seconds_total CPU time of the process\n"
                      "# TYPE process_cpu_seconds_total counter\n"
                      "process_cpu_seconds_total %.6f\n"
                      "# HELP process_resident_memory_bytes memory of the process\n"
                      "# TYPE process_resident_memory_bytes gauge\n"
                      "process_resident_memory_bytes %" PRIu64 "\n"
                      "# HELP process_open_fds open files of the process\n"
                      "# TYPE process_open_fds gauge\n"
                      "process_open_fds %" PRIu64 "\n"
                      "# HELP process_max_fds open files the process may have\n"
                      "# TYPE process_max_fds gauge\n"
                      "process_max_fds %" PRIu64 "\n"
                      "# HELP curvine_build_info version of the program, as a label\n"
                      "# TYPE curvine_build_info gauge\n"
                      "curvine_build_info{version=\"" CV_VERSION "\"} 1\n",
                      cpu, resident_bytes(), open_files(), (uint64_t)files.rlim_cur);
}

int metrics_write_text(struct metrics *m, struct buf *out)
{
    static const struct metrics_writer text = {.set = text_set, .metric = text_metric};
    int r = metrics_write_all(m, &text, out);
    return r < 0 ? r : text_process(out);
}

static int json_set(struct buf *out, const struct metric_set *set, bool first, bool end)
{
    return end ? buf_append(out, "}", 1) : buf_printf(out, "%s\"%s\":{", first ? "" : ",", set->name);
}

static int json_histogram(struct buf *out, const struct histogram *h)
{
    return buf_printf(out,
                      "{\"count\":%" PRIu64 ",\"sum\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p90\":%" PRIu64
                      ",\"p99\":%" PRIu64 ",\"max\":%" PRIu64 "}",
                      histogram_count(h), counter_get(&h->sum), histogram_quantile(h, 0.5), histogram_quantile(h, 0.9),
                      histogram_quantile(h, 0.99), histogram_quantile(h, 1));
}

static int json_value(struct buf *out, const struct metric *row, const void *at, uint32_t i)
{
    switch (row->kind) {
    case METRIC_COUNTER: return buf_printf(out, "%" PRIu64, counter_get((const struct counter *)at + i));
    case METRIC_HISTOGRAM: return json_histogram(out, (const struct histogram *)at + i);
    case METRIC_GAUGE: return buf_printf(out, "%" PRId64, *(const int64_t *)at);
    default: return buf_printf(out, "%" PRId64, ((const struct gauge_family *)at)->items[i].value);
    }
}

static int json_metric(struct buf *out, const struct metric_set *set, const struct metric *row, const void *at,
                       bool first)
{
    int r = buf_printf(out, "%s\"%s\":", first ? "" : ",", row->name);
    if (r == 0 && !row->label)
        return json_value(out, row, at, 0);
    uint32_t n = row->kind == METRIC_GAUGE_FAMILY ? ((const struct gauge_family *)at)->n : row->count;
    char number[16];
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        r = buf_append(out, i ? "," : "{", 1);
        if (r == 0)
            r = json_write_text(out, row->kind == METRIC_GAUGE_FAMILY
                                         ? ((const struct gauge_family *)at)->items[i].label
                                         : label_at(row, i, number));
        if (r == 0)
            r = buf_append(out, ":", 1);
        if (r == 0)
            r = json_value(out, row, at, i);
    }
    return r < 0 ? r : buf_printf(out, "%s", n ? "}" : "{}");
}

int metrics_write_json(struct metrics *m, struct buf *out)
{
    static const struct metrics_writer json = {.set = json_set, .metric = json_metric};
    int r = buf_append(out, "{", 1);
    if (r == 0)
        r = metrics_write_all(m, &json, out);
    return r < 0 ? r : buf_append(out, "}", 1);
}
