/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_stretch.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "worker/block_store.h"

/* While it is worked on: as many as one change can make of them. */
struct work {
    struct block_stretch at[BLOCK_STRETCHES + 1];
    int n;
};

static void push(struct work *w, uint32_t from, uint32_t to)
{
    if (from < to)
        w->at[w->n++] = (struct block_stretch){from, to};
}

static void put(struct block_stretches *s, const struct work *w, int skip)
{
    *s = (struct block_stretches){0};
    for (int i = skip; i < w->n; i++)
        s->at[i - skip] = w->at[i];
}

/* In order, with [from, to) in its place. */
static struct work with(const struct block_stretches *s, uint32_t from, uint32_t to)
{
    struct work w = {0};
    for (int i = 0; i < BLOCK_STRETCHES; i++) {
        const struct block_stretch *t = &s->at[i];
        if (t->from < t->to && t->from <= to && from <= t->to) {
            from = min(from, t->from);
            to = max(to, t->to);
        }
    }
    bool placed = from >= to;
    for (int i = 0; i < BLOCK_STRETCHES; i++) {
        const struct block_stretch *t = &s->at[i];
        if (!placed && (t->from >= t->to || t->from > from)) {
            push(&w, from, to);
            placed = true;
        }
        if (t->to < from || t->from > to)
            push(&w, t->from, t->to);
    }
    if (!placed)
        push(&w, from, to);
    return w;
}

bool block_stretches_add(struct block_stretches *s, uint32_t from, uint32_t to)
{
    struct work w = with(s, from, to);
    if (w.n > BLOCK_STRETCHES)
        return false;
    put(s, &w, 0);
    return true;
}

void block_stretches_force(struct block_stretches *s, uint32_t from, uint32_t to)
{
    struct work w = with(s, from, to);
    if (w.n > BLOCK_STRETCHES) {
        int best = 0;
        for (int i = 1; i + 1 < w.n; i++)
            if (w.at[i + 1].from - w.at[i].to < w.at[best + 1].from - w.at[best].to)
                best = i;
        w.at[best].to = w.at[best + 1].to;
        for (int i = best + 1; i + 1 < w.n; i++)
            w.at[i] = w.at[i + 1];
        w.n--;
    }
    put(s, &w, 0);
}

bool block_stretches_sub(struct block_stretches *s, uint32_t from, uint32_t to)
{
    struct work w = {0};
    bool changed = false;
    for (int i = 0; i < BLOCK_STRETCHES; i++) {
        const struct block_stretch *t = &s->at[i];
        bool hit = from < to && t->from < to && from < t->to;
        changed |= hit;
        push(&w, t->from, hit ? min(from, t->to) : t->to);
        if (hit)
            push(&w, max(to, t->from), t->to);
    }
    put(s, &w, w.n > BLOCK_STRETCHES);
    return changed;
}

bool block_stretches_find(const struct block_stretches *s, uint32_t from, uint32_t to, struct block_stretch *ret)
{
    for (int i = 0; i < BLOCK_STRETCHES; i++)
        if (from < to && s->at[i].from < to && from < s->at[i].to) {
            *ret = (struct block_stretch){max(from, s->at[i].from), min(to, s->at[i].to)};
            return true;
        }
    return false;
}

bool block_stretches_surround(const struct block_stretches *s, uint32_t from, uint32_t to)
{
    for (int i = 0; i < BLOCK_STRETCHES; i++)
        if (s->at[i].from < from && to < s->at[i].to)
            return true;
    return false;
}

uint64_t block_stretches_chunks(const struct block_stretches *s)
{
    uint64_t chunks = 0;
    for (int i = 0; i < BLOCK_STRETCHES; i++)
        for (uint32_t c = s->at[i].from / BLOCK_CHUNK_BYTES; c * BLOCK_CHUNK_BYTES < s->at[i].to; c++)
            chunks |= 1ull << c;
    return chunks;
}
