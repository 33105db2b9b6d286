/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index in memory with the interface of worker/block_index.h, for tests under the thread sanitizer, which RocksDB is
 * not built for. Included by one file of a test program, it takes the place of the real one when the program is linked.
 * A sorted array and a lock; what is synced counts for nothing, the index ends with its last user.
 */
#pragma once

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "worker/block_index.h"
#include "worker/block_io.h"

struct fake_row {
    struct block_row_key key;
    uint16_t n;
    bool deleted, added; /* of a batch: delete; add to a sum */
    uint8_t value[128];
};

struct block_batch {
    struct fake_row *rows;
    int count, room;
};

struct block_index {
    pthread_mutex_t lock;
    struct fake_row **rows; /* sorted by key */
    size_t count, room;
    uint64_t sequence;
};

struct block_iter {
    struct block_index *x;
    struct block_row_key prefix, at;
    struct fake_row row;
    bool started;
};

static struct block_index *fake_store; /* survives a close: the "disk" */

static int fake_compare(const struct block_row_key *a, const struct block_row_key *b)
{
    int c = memcmp(a->p, b->p, min(a->n, b->n));
    return c ? c : (int)a->n - (int)b->n;
}

/* The first row at or after key. */
static size_t fake_seek(struct block_index *x, const struct block_row_key *key)
{
    size_t low = 0, high = x->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (fake_compare(&x->rows[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct fake_row *fake_find(struct block_index *x, const struct block_row_key *key)
{
    size_t i = fake_seek(x, key);
    return i < x->count && fake_compare(&x->rows[i]->key, key) == 0 ? x->rows[i] : NULL;
}

int block_index_open(const char *path, enum block_index_mode mode, uint64_t cache_bytes, struct block_index **ret)
{
    if (mode == BLOCK_INDEX_CREATE) {
        fake_store = calloc(1, sizeof(*fake_store));
        pthread_mutex_init(&fake_store->lock, NULL);
    }
    *ret = fake_store;
    return fake_store ? 0 : -ENOENT;
}

struct block_index *block_index_free(struct block_index *x)
{
    return NULL;
}

int block_index_repair(const char *path)
{
    return -EIO;
}

/* What happens between a look for a row that is not there and what the asker makes of that; called once. */
static void (*fake_index_missed)(const struct block_row_key *key);

int block_index_get(struct block_index *x, const struct block_row_key *key, bool must_not_block, void *row, size_t n)
{
    pthread_mutex_lock(&x->lock);
    struct fake_row *f = fake_find(x, key);
    int r = f ? block_row_read(key, f->value, f->n, row, n) : -ENOENT;
    pthread_mutex_unlock(&x->lock);
    if (r == -ENOENT && fake_index_missed) {
        void (*missed)(const struct block_row_key *) = take(fake_index_missed);
        missed(key);
    }
    return r;
}

int block_index_get_sum(struct block_index *x, const struct block_row_key *key, uint64_t *ret)
{
    pthread_mutex_lock(&x->lock);
    struct fake_row *f = fake_find(x, key);
    *ret = f ? get_le64(f->value) : 0;
    pthread_mutex_unlock(&x->lock);
    return 0;
}

struct block_batch *block_batch_new(void)
{
    return calloc(1, sizeof(struct block_batch));
}

struct block_batch *block_batch_free(struct block_batch *b)
{
    if (b) {
        free(b->rows);
        free(b);
    }
    return NULL;
}

static struct fake_row *fake_add(struct block_batch *b, const struct block_row_key *key)
{
    if (b->count == b->room) {
        b->room = b->room ? b->room * 2 : 8;
        b->rows = realloc(b->rows, (size_t)b->room * sizeof(*b->rows));
    }
    struct fake_row *f = &b->rows[b->count++];
    *f = (struct fake_row){.key = *key};
    return f;
}

void block_batch_put(struct block_batch *b, const struct block_row_key *key, void *row, size_t n)
{
    struct fake_row *f = fake_add(b, key);
    block_row_finish(key, row, n);
    f->n = (uint16_t)n;
    memcpy(f->value, row, n);
}

void block_batch_delete(struct block_batch *b, const struct block_row_key *key)
{
    fake_add(b, key)->deleted = true;
}

void block_batch_add(struct block_batch *b, const struct block_row_key *key, int64_t delta)
{
    struct fake_row *f = fake_add(b, key);
    f->added = true;
    f->n = 8;
    put_le64(f->value, (uint64_t)delta);
}

int block_batch_count(const struct block_batch *b)
{
    return b->count;
}

void block_batch_clear(struct block_batch *b)
{
    b->count = 0;
}

static void fake_apply(struct block_index *x, const struct fake_row *f)
{
    size_t i = fake_seek(x, &f->key);
    bool there = i < x->count && fake_compare(&x->rows[i]->key, &f->key) == 0;
    x->sequence++;
    if (f->deleted) {
        if (there) {
            free(x->rows[i]);
            memmove(x->rows + i, x->rows + i + 1, (--x->count - i) * sizeof(*x->rows));
        }
        return;
    }
    if (!there) {
        if (x->count == x->room) {
            x->room = x->room ? x->room * 2 : 1024;
            x->rows = realloc(x->rows, x->room * sizeof(*x->rows));
        }
        memmove(x->rows + i + 1, x->rows + i, (x->count++ - i) * sizeof(*x->rows));
        x->rows[i] = calloc(1, sizeof(*f));
        x->rows[i]->key = f->key;
    }
    uint64_t sum = f->added ? get_le64(x->rows[i]->value) + get_le64(f->value) : 0;
    *x->rows[i] = *f;
    if (f->added)
        put_le64(x->rows[i]->value, sum);
}

int block_index_write(struct block_index *x, struct block_batch *b, bool sync)
{
    pthread_mutex_lock(&x->lock);
    for (int i = 0; i < b->count; i++)
        fake_apply(x, &b->rows[i]);
    pthread_mutex_unlock(&x->lock);
    return 0;
}

int block_index_sync(struct block_index *x)
{
    return 0;
}

uint64_t block_index_sequence(struct block_index *x)
{
    pthread_mutex_lock(&x->lock);
    uint64_t n = x->sequence;
    pthread_mutex_unlock(&x->lock);
    return n;
}

int block_iter_new(struct block_index *x, const struct block_row_key *prefix, const struct block_row_key *from,
                   struct block_iter **ret)
{
    struct block_iter *i = calloc(1, sizeof(*i));
    i->x = x;
    i->prefix = *prefix;
    i->at = from ? *from : *prefix;
    *ret = i;
    return 0;
}

struct block_iter *block_iter_free(struct block_iter *i)
{
    free(i);
    return NULL;
}

/* Not a snapshot, as RocksDB's is: rows that come meanwhile may be seen. */
int block_iter_next(struct block_iter *i, struct block_row_key *ret_key)
{
    pthread_mutex_lock(&i->x->lock);
    size_t at = fake_seek(i->x, &i->at);
    if (i->started && at < i->x->count && fake_compare(&i->x->rows[at]->key, &i->at) == 0)
        at++;
    bool found = at < i->x->count && i->x->rows[at]->key.n >= i->prefix.n &&
                 memcmp(i->x->rows[at]->key.p, i->prefix.p, i->prefix.n) == 0;
    if (found) {
        i->row = *i->x->rows[at];
        i->at = *ret_key = i->row.key;
    }
    i->started = true;
    pthread_mutex_unlock(&i->x->lock);
    return found;
}

int block_iter_row(struct block_iter *i, void *row, size_t n)
{
    return block_row_read(&i->row.key, i->row.value, i->row.n, row, n);
}
