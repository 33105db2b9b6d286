/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata database: the rows of the namespace as of one committed log index, in a RocksDB of its own. Rows reach
 * it only after their batch is committed, many at a time, sorted, with the index ("applied") in the same atomic write (it is in the state row);
 * there is no write-ahead log, because the journal has everything behind what is flushed.
 *
 *      read:   master_store_try (what is in memory, never blocks) | master_store_get (may read the disk) | iterators
 *      write:  master_store_write (one batch: rows and applied) -> master_store_flush (all families, synced)
 *
 * At every moment, and after a crash at any moment, the database holds exactly the state of some applied index: either
 * a whole batch is there or nothing of it. What RocksDB is told for that (WAL off, atomic flush) is checked at open.
 * After a write or flush that failed the database takes nothing any more: close it; the journal has the rest.
 *
 * Reads: any thread. Writes and flushes: one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "base/uuid.h"
#include "meta/meta_format.h"

struct master_store; /* opaque */

struct master_store_options {
    const char *path;
    uint64_t cache_bytes; /* block cache: data, index and filter blocks */
};

/* Make an empty database at path for a cluster, replacing what is there. */
int master_store_create(const char *path, struct uuid cluster);

/* Open what master_store_create() made. Free with master_store_free().
 * Errors: -CV_NOT_FORMATTED; -CV_WRONG_CLUSTER; -CV_FORMAT_TOO_NEW; -CV_BAD_FORMAT; -CV_LOCKED; -CV_BAD_CHECKSUM. */
int master_store_open(const struct master_store_options *options, struct uuid cluster, struct master_store **ret);
struct master_store *master_store_free(struct master_store *s);
DEFINE_CLEANUP(struct master_store *, master_store_free)

/* --- snapshots: may block, any thread --- */

/* Make path, which must not be there, a copy of the database at one applied index (not below master_store_flushed()):
 * hard links to its files where they are on one file system, so it costs little whatever the size. */
int master_store_checkpoint(struct master_store *s, const char *path);

/* What a database nobody has open for writing says about itself. Errors: as master_store_open(). */
int master_store_peek(const char *path, struct uuid cluster, struct meta_state *ret);

/* Make the database of cluster `from` one of cluster `to`, which goes on where the first was: the same names and files,
 * but inode and session ids are handed out from `jump` above every id granted so far, so that none is ever used twice
 * whatever the first cluster did since. *ret_applied: the log index its log must go on behind. */
int master_store_refound(const char *path, struct uuid from, struct uuid to, uint64_t jump, uint64_t *ret_applied);

/* Any thread: the log index whose state is safely in files: after a crash the database opens at this or a later one. */
uint64_t master_store_flushed(const struct master_store *s);

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* A value, held in place by RocksDB until released. All zero: none. */
struct master_value {
    struct text text;
    void *pin;
};
void master_value_release(struct master_value *v);

/* The value of a key, if finding out needs no disk. Errors: -ENOENT there is none; -EAGAIN only the disk knows;
 * -CV_BAD_CHECKSUM. */
int master_store_try(struct master_store *s, enum meta_family family, struct text key, struct master_value *ret);

/* The value of a key; may block. Errors: -ENOENT; -CV_BAD_CHECKSUM, -EIO. */
int master_store_get(struct master_store *s, enum meta_family family, struct text key, struct master_value *ret);

/* Rows of a family in order of their keys, as of its making. memory: only what needs no disk, then the end with
 * master_iter_error() -EAGAIN; otherwise it may block. */
struct master_iter; /* opaque */
int master_iter_new(struct master_store *s, enum meta_family family, bool memory, struct master_iter **ret);
struct master_iter *master_iter_free(struct master_iter *it);
DEFINE_CLEANUP(struct master_iter *, master_iter_free)

/* Go to the first key >= the given one / the next one. Returns false at the end or on an error (master_iter_error). */
bool master_iter_seek(struct master_iter *it, struct text key);
bool master_iter_next(struct master_iter *it);
int master_iter_error(const struct master_iter *it);

/* Where it stands; valid until it moves. */
struct text master_iter_key(const struct master_iter *it);
struct text master_iter_value(const struct master_iter *it);

/* ---- writing ---------------------------------------------------------------------------------------------------- */

struct master_batch; /* opaque */

int master_batch_new(struct master_batch **ret);
struct master_batch *master_batch_free(struct master_batch *b);
DEFINE_CLEANUP(struct master_batch *, master_batch_free)

/* Adding in order of family and key is what makes the write cheap (RocksDB's skip list then remembers its place). */
void master_batch_put(struct master_store *s, struct master_batch *b, enum meta_family family, struct text key,
                      struct text value);
void master_batch_remove(struct master_store *s, struct master_batch *b, enum meta_family family, struct text key);

/* Write the rows of the batch, which bring the database to log index applied: its state row (META_TABLE_state) says so
 * too, which is checked when it is flushed. */
int master_store_write(struct master_store *s, struct master_batch *b, uint64_t applied);

/* Bring everything written to disk; master_store_flushed() moves to the last applied written. Blocks. */
int master_store_flush(struct master_store *s);

/* Behind a flush, now and then: put small files together (meta/master_tidy.h). Blocks, for as long as it takes to write 256
 * MiB at most. */
void master_store_tidy(struct master_store *s);

/* ---- for metrics ------------------------------------------------------------------------------------------------ */

struct master_store_stats {
    uint64_t applied, flushed;      /* written; safely in files */
    uint64_t writes, rows, flushes; /* since open */
    uint64_t write_ns, flush_ns;    /* spent in them */
    uint64_t cache_bytes, memtable_bytes, file_bytes, files;
};
void master_store_get_stats(struct master_store *s, struct master_store_stats *ret);
