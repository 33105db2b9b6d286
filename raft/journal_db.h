/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journal database: RocksDB opened with the settings the log needs (journal_settings.def), and the errors of its C
 * interface turned into ours. Nothing else of raft/ opens RocksDB.
 *
 * The write-ahead log is on and synced by fdatasync with each batch. What its settings can do about the price of a
 * sync is in docs/journal.md; in short: RocksDB preallocates the file (fallocate), which is all that is allowed to us,
 * since reusing files is not.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "raft/journal_format.h"
#include "rocks/rocks_c.h"

enum journal_db_mode {
    JOURNAL_DB_CREATE, /* make it if it is not there */
    JOURNAL_DB_WRITE,  /* must be there */
    JOURNAL_DB_READ,   /* must be there; nothing is changed, not even by recovery */
};

struct journal_db {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *family[JOURNAL_FAMILIES];
    rocksdb_options_t *options[JOURNAL_FAMILIES];
    rocksdb_writeoptions_t *sync; /* every write */
    rocksdb_readoptions_t *read;  /* checksums verified, blocks cached */
    rocksdb_readoptions_t *scan;  /* for long iterations: leaves the cache alone */
    rocksdb_cache_t *cache;
};

#define JOURNAL_DB_NONE ((struct journal_db){.db = NULL})

/* Open the database in dir. memtable_bytes: of the family log, 0 for 64 MiB; two of them may be in memory.
 * why (may be NULL) gets the cause for people. Errors: -CV_LOG_DAMAGED RocksDB refuses its files;
 * -CV_NOT_FORMATTED no database there; -CV_LOCKED; -CV_CONFIG_BAD a setting did not take effect; -ENOSPC; -EIO; -ENOMEM. */
int journal_db_open(const char *dir, enum journal_db_mode mode, uint64_t memtable_bytes, struct buf *why,
                    struct journal_db *ret);
void journal_db_close(struct journal_db *d);

/* Turn an error message of RocksDB into a code, append it to why (may be NULL) after what and free it. error NULL: 0. */
int journal_db_error(char *error, const char *what, struct buf *why);

/* A whole row. *ret borrows until rocksdb_pinnableslice_destroy(*ret_slice). Errors: -ENOENT; -CV_LOG_DAMAGED. */
int journal_db_get(const struct journal_db *d, enum journal_family family, const void *key, size_t key_size,
                   rocksdb_pinnableslice_t **ret_slice, struct text *ret);

/* Bytes on disk and in memtables of the family log, about. Any thread. */
uint64_t journal_db_log_bytes(const struct journal_db *d);

/* Tests: change the options after ours are set. NULL otherwise. */
extern void (*journal_db_tamper)(rocksdb_options_t *options);
