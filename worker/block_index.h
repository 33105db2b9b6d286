/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index: the rows of block_format.h in one RocksDB with its write-ahead log on. A batch is applied whole or not at
 * all; after a crash a prefix of the batches is there, at least up to the last synced one (an index that ends before
 * its mark says so). Any thread. Everything may block, except a get that says it must not.
 *
 * Errors of all: -CV_BAD_CHECKSUM, -CV_BAD_FORMAT, -CV_FORMAT_TOO_NEW as block_row_read(), and damage RocksDB finds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "worker/block_format.h"

struct block_index;
struct block_batch;
struct block_iter;

enum block_index_mode { BLOCK_INDEX_OPEN, BLOCK_INDEX_CREATE, BLOCK_INDEX_READ_ONLY };

/* path: the folder. Errors: -ENOENT there is none. */
int block_index_open(const char *path, enum block_index_mode mode, uint64_t cache_bytes, struct block_index **ret);
struct block_index *block_index_free(struct block_index *x); /* NULL is fine */
DEFINE_CLEANUP(struct block_index *, block_index_free)

/* Make what can be read of an index that does not open readable again. Rows may be missing or older than they were. */
int block_index_repair(const char *path);

/* Copy the row under key. Errors: -ENOENT; -CV_NOT_PREPARED it is not in memory and must_not_block. */
int block_index_get(struct block_index *x, const struct block_row_key *key, bool must_not_block, void *row, size_t n);

/* A sum (kinds u, m, D); 0 when there is none. */
int block_index_get_sum(struct block_index *x, const struct block_row_key *key, uint64_t *ret);

/* Batches are cheap and for one thread. The functions that add to it cannot fail. */
struct block_batch *block_batch_new(void); /* NULL: no memory */
struct block_batch *block_batch_free(struct block_batch *b);
DEFINE_CLEANUP(struct block_batch *, block_batch_free)
void block_batch_put(struct block_batch *b, const struct block_row_key *key, void *row, size_t n); /* finishes row */
void block_batch_delete(struct block_batch *b, const struct block_row_key *key);
void block_batch_add(struct block_batch *b, const struct block_row_key *key, int64_t delta); /* to a sum */
int block_batch_count(const struct block_batch *b);
void block_batch_clear(struct block_batch *b);

/* Apply. With sync it, and all before it, is on disk on return. */
int block_index_write(struct block_index *x, struct block_batch *b, bool sync);

/* Everything written so far to disk. */
int block_index_sync(struct block_index *x);

/* Number of the last change. */
uint64_t block_index_sequence(struct block_index *x);

/* Rows whose key begins with prefix, from key from (or the first if NULL) on. After block_iter_next() returned 1: a row;
 * 0: the end. */
int block_iter_new(struct block_index *x, const struct block_row_key *prefix, const struct block_row_key *from,
                   struct block_iter **ret);
struct block_iter *block_iter_free(struct block_iter *i);
DEFINE_CLEANUP(struct block_iter *, block_iter_free)
int block_iter_next(struct block_iter *i, struct block_row_key *ret_key);
int block_iter_row(struct block_iter *i, void *row, size_t n); /* of the key just returned */
