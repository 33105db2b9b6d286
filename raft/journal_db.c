/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_db.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

enum {
    BLOCK_CACHE_BYTES = 8 << 20,    /* old entries are read once, in order */
    BLOCK_BYTES = 64 << 10,         /* entries are large: a block an entry or two */
    SMALL_MEMTABLE_BYTES = 4 << 20, /* families default and conf: small rows, overwritten */
    MEMTABLES = 2,                  /* one filling, one being written out */
};

void (*journal_db_tamper)(rocksdb_options_t *options);

static const char *const family_names[JOURNAL_FAMILIES] = {"default", "log", "conf"};

int journal_db_error(char *error, const char *what, struct buf *why)
{
    if (!error)
        return 0;
    int r = strncmp(error, "Corruption", 10) == 0               ? -CV_LOG_DAMAGED
            : strstr(error, "lock")                             ? -CV_LOCKED
            : strstr(error, "does not exist")                   ? -CV_NOT_FORMATTED
            : strstr(error, "No space left")                    ? -ENOSPC
            : strncmp(error, "IO error: No such file", 22) == 0 ? -CV_LOG_DAMAGED
                                                                : -EIO;
    if (why)
        (void)buf_printf(why, "%s: %s", what, error);
    rocksdb_free(error);
    return r;
}

/* What makes the log fast and small, and may differ without harm. */
static void tune(rocksdb_options_t *o, enum journal_family family, uint64_t memtable_bytes, rocksdb_cache_t *cache)
{
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_max_open_files(o, 256);
    rocksdb_options_set_keep_log_file_num(o, 3);
    rocksdb_options_set_max_log_file_size(o, 4 << 20);
    rocksdb_options_set_info_log_level(o, 2); /* warnings; ours are in the journal's own log */
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_allow_concurrent_memtable_write(o, 0); /* one writer */
    rocksdb_options_set_bytes_per_sync(o, 1 << 20);            /* files of a flush go out evenly, beside our syncs */
    /* A start replays what the write-ahead log holds: the small families are flushed early so that they do not keep
     * old files of it alive. */
    rocksdb_options_set_max_total_wal_size(o, 3 * memtable_bytes);
    rocksdb_options_set_write_buffer_size(o, family == JOURNAL_LOG ? memtable_bytes : SMALL_MEMTABLE_BYTES);
    rocksdb_options_set_max_write_buffer_number(o, MEMTABLES);
    rocksdb_options_set_target_file_size_base(o, 64 << 20);
    rocksdb_options_set_level0_slowdown_writes_trigger(o, 64);
    rocksdb_options_set_level0_stop_writes_trigger(o, 128);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_size(table, BLOCK_BYTES);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_block_based_options_destroy(table);
}

static rocksdb_options_t *new_options(enum journal_family family, enum journal_db_mode mode, uint64_t memtable_bytes,
                                      rocksdb_cache_t *cache)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, mode == JOURNAL_DB_CREATE);
    rocksdb_options_set_create_missing_column_families(o, mode == JOURNAL_DB_CREATE);
    tune(o, family, memtable_bytes, cache);
#define SETTING(scope, name, value, reason) rocksdb_options_set_##name(o, value);
#include "raft/journal_settings.def"
#undef SETTING
    if (journal_db_tamper)
        journal_db_tamper(o);
    return o;
}

/* Hold the settings of one scope against what is in force; what is wrong goes to why. */
static int verify_scope(rocksdb_options_t *o, bool db, struct buf *why)
{
    enum { DB, FAMILY };
    int r = 0, scope = db ? DB : FAMILY;
#define SETTING(scope_, name, value, reason)                                                                           \
    if (scope == scope_ && (long long)rocksdb_options_get_##name(o) != (long long)(value)) {                           \
        (void)buf_printf(why, "RocksDB runs with " #name "=%lld, the log needs %lld: %s\n",                            \
                         (long long)rocksdb_options_get_##name(o), (long long)(value), reason);                        \
        r = -CV_CONFIG_BAD;                                                                                            \
    }
#include "raft/journal_settings.def"
#undef SETTING
    return r;
}

/* RocksDB writes what it really runs with to a file in its directory at each start: that is held against ours. */
static int verify(const char *dir, const struct journal_db *d, struct buf *why)
{
    if (rocksdb_writeoptions_get_disable_WAL(d->sync)) {
        (void)buf_printf(why, "RocksDB would write without its log");
        return -CV_CONFIG_BAD;
    }
#ifndef CV_TEST_NO_FSYNC
    if (!rocksdb_writeoptions_get_sync(d->sync)) {
        (void)buf_printf(why, "RocksDB would write without syncing");
        return -CV_CONFIG_BAD;
    }
#endif
    rocksdb_options_t *db_options = NULL, **family_options = NULL;
    rocksdb_env_t *env = rocksdb_create_default_env();
    char **names = NULL, *error = NULL;
    size_t count = 0;
    rocksdb_load_latest_options(dir, env, true, d->cache, &db_options, &count, &names, &family_options, &error);
    int r = journal_db_error(error, "read RocksDB's OPTIONS file", why);
    if (r == 0) {
        r = verify_scope(db_options, true, why);
        for (size_t i = 0; i < count; i++) {
            int rf = verify_scope(family_options[i], false, why);
            r = r < 0 ? r : rf;
        }
        rocksdb_load_latest_options_destroy(db_options, names, family_options, count);
    }
    rocksdb_env_destroy(env);
    return r;
}

int journal_db_open(const char *dir, enum journal_db_mode mode, uint64_t memtable_bytes, struct buf *why,
                    struct journal_db *ret)
{
    struct buf scratch cleanup(buf_fini) = {0};
    why = why ? why : &scratch;
    struct journal_db d cleanup(journal_db_close) = JOURNAL_DB_NONE;
    if (!memtable_bytes)
        memtable_bytes = 64 << 20;
    d.cache = rocksdb_cache_create_lru(BLOCK_CACHE_BYTES);
    for (int i = 0; i < JOURNAL_FAMILIES; i++)
        d.options[i] = new_options((enum journal_family)i, mode, memtable_bytes, d.cache);
    d.sync = rocksdb_writeoptions_create();
#ifdef CV_TEST_NO_FSYNC /* a build that must fail the power cut tests; that of snapshots with a log that is synced */
    rocksdb_writeoptions_set_sync(d.sync, getenv("CV_TEST_SYNC_LOG") != NULL);
#else
    rocksdb_writeoptions_set_sync(d.sync, 1);
#endif
    d.read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(d.read, 1);
    d.scan = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(d.scan, 1);
    rocksdb_readoptions_set_fill_cache(d.scan, 0);
    rocksdb_readoptions_set_readahead_size(d.scan, 1 << 20);

    char *error = NULL;
    const rocksdb_options_t *const *options = (const rocksdb_options_t *const *)d.options;
    if (mode == JOURNAL_DB_READ)
        d.db = rocksdb_open_for_read_only_column_families(d.options[0], dir, JOURNAL_FAMILIES, family_names, options,
                                                          d.family, 0, &error);
    else
        d.db =
            rocksdb_open_column_families(d.options[0], dir, JOURNAL_FAMILIES, family_names, options, d.family, &error);
    int r = journal_db_error(error, "open the log", why);
    if (r == 0 && mode != JOURNAL_DB_READ)
        r = verify(dir, &d, why);
    if (r < 0)
        return r;
    *ret = d;
    d = JOURNAL_DB_NONE;
    return 0;
}

void journal_db_close(struct journal_db *d)
{
    for (int i = 0; i < JOURNAL_FAMILIES; i++) {
        if (d->family[i])
            rocksdb_column_family_handle_destroy(d->family[i]);
    }
    if (d->db)
        rocksdb_close(d->db);
    for (int i = 0; i < JOURNAL_FAMILIES; i++) {
        if (d->options[i])
            rocksdb_options_destroy(d->options[i]);
    }
    if (d->sync)
        rocksdb_writeoptions_destroy(d->sync);
    if (d->read)
        rocksdb_readoptions_destroy(d->read);
    if (d->scan)
        rocksdb_readoptions_destroy(d->scan);
    if (d->cache)
        rocksdb_cache_destroy(d->cache);
    *d = JOURNAL_DB_NONE;
}

int journal_db_get(const struct journal_db *d, enum journal_family family, const void *key, size_t key_size,
                   rocksdb_pinnableslice_t **ret_slice, struct text *ret)
{
    char *error = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned_cf(d->db, d->read, d->family[family], key, key_size, &error);
    int r = journal_db_error(error, "read", NULL);
    if (r < 0)
        return r;
    if (!slice)
        return -ENOENT;
    size_t n;
    const char *p = rocksdb_pinnableslice_value(slice, &n);
    *ret_slice = slice;
    *ret = (struct text){p, (uint32_t)n};
    return 0;
}

uint64_t journal_db_log_bytes(const struct journal_db *d)
{
    uint64_t files = 0, memory = 0;
    (void)rocksdb_property_int_cf(d->db, d->family[JOURNAL_LOG], "rocksdb.live-sst-files-size", &files);
    (void)rocksdb_property_int_cf(d->db, d->family[JOURNAL_LOG], "rocksdb.cur-size-all-mem-tables", &memory);
    return files + memory;
}
