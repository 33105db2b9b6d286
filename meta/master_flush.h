/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one function that flushes a metadata database: all families at once, atomically (DB::Flush with the list of
 * them). RocksDB's C interface only flushes one family at a time, also under atomic_flush, and that is not enough:
 * with the WAL off, a crash after such a flush leaves the flushed family (with "applied" in it) and empties the others
 * (measured on 7.8: applied = 1000, rows = 0). So "make check" refuses any other flush.
 */
#pragma once

#include <rocksdb/c.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Write what is in the memtables of all families to files and sync them; blocks. path: as given at open, to tell that
 * db is what it should be. On error *error is a text to free(); it stays as it is otherwise. */
void master_flush_all(rocksdb_t *db, const char *path, rocksdb_column_family_handle_t *const *families, size_t count,
                      char **error);

#ifdef __cplusplus
}
#endif
