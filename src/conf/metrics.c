/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: per set the blocks of its threads, and one block of what threads that are gone had counted. Blocks
 * hold nothing but counters, so summing them is adding arrays of words.
 */
#include "conf/metrics_internal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#define SETS_MAX   32
#define CACHE_LINE 64

struct block {
    struct block *next;
    _Alignas(CACHE_LINE) char counters[];
};

struct set_state {
    const struct metric_set *set;
    struct block *blocks; /* of living threads */
    uint64_t *gone;       /* sums of the others, block_size bytes */
    void (*fill)(void *arg, void *gauges);
    void *fill_arg;
};

struct metrics {
    pthread_mutex_t lock; /* guards all below; held during a scrape, never while counting */
    struct set_state sets[SETS_MAX];
    uint32_t n;
};

int metrics_new(struct metrics **ret)
{
    struct metrics *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    pthread_mutex_init(&m->lock, NULL);
    *ret = m;
    return 0;
}

struct metrics *metrics_free(struct metrics *m)
{
    if (!m)
        return NULL;
    for (uint32_t i = 0; i < m->n; i++) {
        for (struct block *b = m->sets[i].blocks, *next; b; b = next) {
            next = b->next;
            free(b);
        }
        free(m->sets[i].gone);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
    return NULL;
}

/* Under the lock. The state of a set, new when it is not known yet. */
static int find_set(struct metrics *m, const struct metric_set *set, struct set_state **ret)
{
    assert(set->block_size % sizeof(uint64_t) == 0);
    for (uint32_t i = 0; i < m->n; i++)
        if (m->sets[i].set == set) {
            *ret = &m->sets[i];
            return 0;
        }
    if (m->n == SETS_MAX)
        return -ENOSPC;
    struct set_state *s = &m->sets[m->n];
    *s = (struct set_state){.set = set, .gone = calloc(1, set->block_size + 1)};
    if (!s->gone)
        return -ENOMEM;
    m->n++;
    *ret = s;
    return 0;
}

static void add_block(uint64_t *sums, const void *counters, uint32_t size)
{
    const struct counter *c = counters;
    for (uint32_t i = 0; i < size / sizeof(uint64_t); i++)
        sums[i] += counter_get(&c[i]);
}

int metrics_block_new(struct metrics *m, const struct metric_set *set, void *ret)
{
    size_t size = sizeof(struct block) + (set->block_size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct block *b = aligned_alloc(CACHE_LINE, size);
    if (!b)
        return -ENOMEM;
    memset(b, 0, size);
    struct set_state *s;
    pthread_mutex_lock(&m->lock);
    int r = find_set(m, set, &s);
    if (r == 0) {
        b->next = s->blocks;
        s->blocks = b;
    }
    pthread_mutex_unlock(&m->lock);
    if (r < 0) {
        free(b);
        return r;
    }
    *(void **)ret = b->counters;
    return 0;
}

void metrics_block_free(struct metrics *m, const struct metric_set *set, void *block)
{
    if (!block)
        return;
    struct block *b = container_of(block, struct block, counters);
    struct set_state *s;
    pthread_mutex_lock(&m->lock);
    int r = find_set(m, set, &s);
    assert(r == 0);
    struct block **at = &s->blocks;
    while (*at != b) {
        assert(*at); /* a block of this set, freed once */
        at = &(*at)->next;
    }
    *at = b->next;
    add_block(s->gone, b->counters, set->block_size);
    pthread_mutex_unlock(&m->lock);
    free(b);
}

int metrics_set_gauges(struct metrics *m, const struct metric_set *set, void (*fill)(void *arg, void *gauges),
                       void *arg)
{
    struct set_state *s;
    pthread_mutex_lock(&m->lock);
    int r = find_set(m, set, &s);
    if (r == 0 && fill && s->fill)
        r = -EEXIST;
    if (r == 0) {
        s->fill = fill;
        s->fill_arg = arg;
    }
    pthread_mutex_unlock(&m->lock);
    return r;
}

void gauge_family_add(struct gauge_family *f, const char *label, int64_t value)
{
    if (f->n == GAUGE_FAMILY_MAX)
        return;
    if (f->n == f->room) {
        uint32_t room = max(f->room * 2, 16u);
        struct gauge_item *items = realloc(f->items, room * sizeof(*items));
        if (!items)
            return;
        f->items = items;
        f->room = room;
    }
    struct gauge_item *item = &f->items[f->n++];
    snprintf(item->label, sizeof(item->label), "%s", label);
    item->value = value;
}

uint64_t histogram_count(const struct histogram *h)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += counter_get(&h->buckets[i]);
    return count;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t count = histogram_count(h), seen = 0;
    if (count == 0)
        return 0;
    double wanted = q * (double)count;
    uint32_t last = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t here = counter_get(&h->buckets[i]);
        if (!here)
            continue;
        seen += here;
        last = i;
        if ((double)seen >= wanted)
            break;
    }
    return histogram_bound(last);
}

static void free_families(const struct metric_set *set, void *gauges)
{
    for (uint32_t i = 0; i < set->n; i++)
        if (set->rows[i].kind == METRIC_GAUGE_FAMILY)
            free(((struct gauge_family *)((char *)gauges + set->rows[i].offset))->items);
}

static int write_set(const struct set_state *s, const struct metrics_writer *w, bool first_set, struct buf *out)
{
    const struct metric_set *set = s->set;
    uint64_t *sums cleanup(freep) = malloc(set->block_size + 1);
    void *gauges cleanup(freep) = calloc(1, set->gauges_size + 1);
    if (!sums || !gauges)
        return -ENOMEM;
    memcpy(sums, s->gone, set->block_size);
    for (const struct block *b = s->blocks; b; b = b->next)
        add_block(sums, b->counters, set->block_size);
    if (s->fill)
        s->fill(s->fill_arg, gauges);

    int r = w->set(out, set, first_set, false);
    bool first = true;
    for (uint32_t i = 0; r == 0 && i < set->n; i++) {
        const struct metric *row = &set->rows[i];
        bool is_gauge = row->kind == METRIC_GAUGE || row->kind == METRIC_GAUGE_FAMILY;
        if (is_gauge && !s->fill)
            continue; /* nobody knows it: absent, not zero */
        r = w->metric(out, set, row, (is_gauge ? (char *)gauges : (char *)sums) + row->offset, first);
        first = false;
    }
    free_families(set, gauges);
    return r < 0 ? r : w->set(out, set, first_set, true);
}

int metrics_write_all(struct metrics *m, const struct metrics_writer *w, struct buf *out)
{
    int r = 0;
    pthread_mutex_lock(&m->lock);
    for (uint32_t i = 0; r == 0 && i < m->n; i++)
        r = write_set(&m->sets[i], w, i == 0, out);
    pthread_mutex_unlock(&m->lock);
    return r;
}
