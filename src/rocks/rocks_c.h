/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB's C interface, for whoever needs of it what came after 6.26, the RocksDB of EPEL 9 and the oldest we build with: there
 * rocks_old.cc has these calls, under the names and with the meaning that newer ones have in rocksdb/c.h.
 *
 * What 6.26 cannot do at all is left out where it is asked for: wal_compression (raft/journal_settings.def) does not exist.
 */
#pragma once

#include <rocksdb/c.h>

#ifdef CV_ROCKS_OLD /* the Makefile asks rocksdb/version.h, which may be C++ */
#ifdef __cplusplus
extern "C" {
#else
#include <stdbool.h>
#endif

void rocksdb_options_set_avoid_unnecessary_blocking_io(rocksdb_options_t *o, unsigned char v);

/* The family a file is of, while the list lives. */
const char *rocksdb_livefiles_column_family_name(const rocksdb_livefiles_t *files, int index);

/* The options a database was opened with last. On error *error is set, for rocksdb_free(); else all is given back by
 * rocksdb_load_latest_options_destroy(). cache may be NULL. */
void rocksdb_load_latest_options(const char *path, rocksdb_env_t *env, bool ignore_unknown, rocksdb_cache_t *cache,
                                 rocksdb_options_t **options, size_t *count, char ***names,
                                 rocksdb_options_t ***family_options, char **error);
void rocksdb_load_latest_options_destroy(rocksdb_options_t *options, char **names, rocksdb_options_t **family_options,
                                         size_t count);

#ifdef __cplusplus
}
#endif
#endif
