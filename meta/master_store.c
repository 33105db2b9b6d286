/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB as the metadata database. Two rules make it exact (measured, reference notes R7 and R10):
 *  - all families are flushed together: atomic_flush for the flushes RocksDB begins itself (and Checkpoint), and
 *    master_flush_all() for ours. No family is ever flushed alone.
 *  - "applied" is in a row (the core's state row) of the same write batch as the rows it speaks for, so it is flushed or lost with them. Read
 *    with the persisted tier (files only, no memtable) it says which state a crash cannot take away any more.
 */
#include "meta/master_store.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "meta/master_flush.h"
#include "meta/master_format.h"
#include "meta/master_tidy.h"
#include "rocks/rocks_c.h"

/* RocksDB's own: families by our enum. The small rows live in the family that every database has. */
static const char *const family_names[META_FAMILY_COUNT] = {
    [META_FAMILY_inode] = "inode", [META_FAMILY_dentry] = "dentry", [META_FAMILY_extent] = "extent",
    [META_FAMILY_queue] = "queue", [META_FAMILY_small] = "default",
};

enum { TIER_ALL = 0, TIER_CACHE = 1, TIER_PERSISTED = 2 }; /* rocksdb::ReadTier */
enum { INFO_LOG_WARN = 2 };                                /* rocksdb::InfoLogLevel */

#define MEMTABLE_BYTES (1ull << 30) /* never reached: a batch is far smaller and flushed at once */
#define FILTER_BITS    10           /* per key: 1 % of the look-ups of absent keys touch a data block in vain */
#define GRANT_KINDS    2            /* meta_format.h: of inodes and sessions, of mounts */

struct master_store {
    char *path;
    rocksdb_t *db;
    rocksdb_column_family_handle_t *families[META_FAMILY_COUNT];
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read_cached, *read_blocking, *read_persisted;
    rocksdb_writeoptions_t *write_options;
    _Atomic uint64_t applied, flushed; /* any thread */
    /* Writer's, read by any thread for metrics. */
    _Atomic uint64_t writes, rows, flushes, write_ns, flush_ns;
};

/* ---- errors ----------------------------------------------------------------------------------------------------- */

/* What the text of a RocksDB status means to us; frees it. 0 for NULL. */
static int take_error(char **error)
{
    if (!*error)
        return 0;
    static const struct {
        const char *prefix;
        int code;
    } known[] = {
        {"NotFound", -ENOENT},
        {"Corruption", -CV_BAD_CHECKSUM},
        {"Result incomplete", -EAGAIN},
        {"IO error: No space left", -ENOSPC},
        {"IO error: While lock file", -CV_LOCKED},
        {"IO error", -EIO},
        {"Invalid argument", -CV_BAD_FORMAT},
        {"Not implemented", -CV_FORMAT_TOO_NEW},
    };
    int r = -EIO;
    for (size_t i = 0; i < array_size(known); i++)
        if (!strncmp(*error, known[i].prefix, strlen(known[i].prefix))) {
            r = known[i].code;
            break;
        }
    if (r != -ENOENT && r != -EAGAIN)
        log_error(r, "metadata rocksdb: %s", *error);
    rocksdb_free(*error);
    *error = NULL;
    return r;
}

/* ---- open ------------------------------------------------------------------------------------------------------- */

static rocksdb_options_t *options_new(rocksdb_cache_t *cache)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_atomic_flush(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_write_buffer_size(o, MEMTABLE_BYTES);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_max_open_files(o, -1); /* "in memory" must never need to open a file */
    rocksdb_options_set_skip_stats_update_on_db_open(o, 1);
    rocksdb_options_set_avoid_unnecessary_blocking_io(o, 1); /* readers do not delete old files */
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    rocksdb_options_set_compression(o, rocksdb_lz4_compression);
    rocksdb_options_set_bytes_per_sync(o, 1 << 20);
    rocksdb_options_set_max_log_file_size(o, 16 << 20);
    rocksdb_options_set_keep_log_file_num(o, 4);
    rocksdb_options_set_info_log_level(o, INFO_LOG_WARN);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);

    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(FILTER_BITS));
    rocksdb_block_based_options_set_format_version(t, 5);
    if (cache) {
        rocksdb_block_based_options_set_block_cache(t, cache);
        rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1); /* the budget counts them too */
        rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
        rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    }
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    return o;
}

/* RocksDB writes the options in force beside its files: hold them against what the rules above need. */
static int check_options(const char *path)
{
    rocksdb_env_t *env = rocksdb_create_default_env();
    rocksdb_options_t *o = NULL, **family_options = NULL;
    size_t n = 0;
    char **names = NULL, *error = NULL;
    rocksdb_load_latest_options(path, env, true, NULL, &o, &n, &names, &family_options, &error);
    int r = take_error(&error);
    if (r == 0) {
        bool good =
            rocksdb_options_get_atomic_flush(o) && rocksdb_options_get_paranoid_checks(o) && n == META_FAMILY_COUNT;
        for (size_t i = 0; i < META_FAMILY_COUNT && good; i++) {
            bool found = false;
            for (size_t k = 0; k < n; k++)
                found |= !strcmp(names[k], family_names[i]);
            good = found;
        }
        rocksdb_load_latest_options_destroy(o, names, family_options, n);
        if (!good)
            r = log_error(-CV_BAD_FORMAT, "metadata rocksdb '%s' does not run with the options it must have", path);
    }
    rocksdb_env_destroy(env);
    return r;
}

static void close_database(struct master_store *s)
{
    for (int i = 0; i < META_FAMILY_COUNT; i++)
        if (s->families[i])
            rocksdb_column_family_handle_destroy(s->families[i]);
    if (s->db)
        rocksdb_close(s->db);
}

struct master_store *master_store_free(struct master_store *s)
{
    if (!s)
        return NULL;
    close_database(s);
    if (s->options)
        rocksdb_options_destroy(s->options);
    rocksdb_readoptions_t *reads[] = {s->read_cached, s->read_blocking, s->read_persisted};
    for (size_t i = 0; i < array_size(reads); i++)
        if (reads[i])
            rocksdb_readoptions_destroy(reads[i]);
    if (s->write_options)
        rocksdb_writeoptions_destroy(s->write_options);
    if (s->cache)
        rocksdb_cache_destroy(s->cache);
    free(s->path);
    free(s);
    return NULL;
}

static rocksdb_readoptions_t *read_options(int tier)
{
    rocksdb_readoptions_t *o = rocksdb_readoptions_create();
    rocksdb_readoptions_set_read_tier(o, tier);
    /* There are none here; and iterators that look for them (RocksDB 7.7 to 8.5.0, #11782) take a file of a level whose
     * first block cannot be read, or is not in memory, for the end of that level, and report no error. */
    rocksdb_readoptions_set_ignore_range_deletions(o, 1);
    return o;
}

enum open_mode { OPEN_WRITE, OPEN_CREATE, OPEN_READ };

static int open_database(const char *path, uint64_t cache_bytes, enum open_mode mode, struct master_store **ret)
{
    struct master_store *s cleanup(master_store_free_p) = calloc(1, sizeof(*s));
    if (!s || !(s->path = strdup(path)))
        return -ENOMEM;
    if (cache_bytes)
        s->cache = rocksdb_cache_create_lru(cache_bytes);
    s->options = options_new(s->cache);
    if (mode == OPEN_CREATE) {
        rocksdb_options_set_create_if_missing(s->options, 1);
        rocksdb_options_set_create_missing_column_families(s->options, 1);
        rocksdb_options_set_error_if_exists(s->options, 1);
    }
    s->read_cached = read_options(TIER_CACHE);
    s->read_blocking = read_options(TIER_ALL);
    s->read_persisted = read_options(TIER_PERSISTED);
    s->write_options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(s->write_options, 1);

    const rocksdb_options_t *each[META_FAMILY_COUNT];
    for (int i = 0; i < META_FAMILY_COUNT; i++)
        each[i] = s->options;
    char *error = NULL;
    if (mode == OPEN_READ)
        s->db = rocksdb_open_for_read_only_column_families(s->options, path, META_FAMILY_COUNT, family_names, each,
                                                           s->families, 0, &error);
    else
        s->db =
            rocksdb_open_column_families(s->options, path, META_FAMILY_COUNT, family_names, each, s->families, &error);
    int r = take_error(&error);
    if (r < 0)
        return r;
    r = check_options(path);
    if (r < 0)
        return r;
    *ret = take(s);
    return 0;
}

/* Our own rows. The names hold a zero byte: sizeof, not strlen. */
#define ROW(name) ((struct text){name, sizeof(name) - 1})

static int get_row(struct master_store *s, rocksdb_readoptions_t *how, struct text key, void *out, size_t n)
{
    char *error = NULL;
    size_t length = 0;
    char *v = rocksdb_get_cf(s->db, how, s->families[META_FAMILY_small], key.p, key.n, &length, &error);
    int r = take_error(&error);
    if (r == 0 && !v)
        r = -ENOENT;
    else if (r == 0 && length != n)
        r = -CV_BAD_FORMAT;
    else if (r == 0)
        memcpy(out, v, n);
    rocksdb_free(v);
    return r;
}

/* The core's state row; all zero when there is none yet. */
static int get_state(struct master_store *s, rocksdb_readoptions_t *how, struct meta_state *ret)
{
    uint8_t key[META_KEY_MAX], value[META_STATE_SIZE];
    struct text k = {(char *)key, meta_key_state(key)}, v = {(char *)value, sizeof(value)};
    *ret = (struct meta_state){0};
    int r = get_row(s, how, k, value, sizeof(value));
    return r == 0 ? meta_state_decode(v, ret) : r == -ENOENT ? 0 : r;
}

/* The log index it names. */
static int get_applied(struct master_store *s, rocksdb_readoptions_t *how, uint64_t *ret)
{
    struct meta_state state;
    int r = get_state(s, how, &state);
    if (r == 0)
        *ret = state.applied;
    return r;
}

int master_store_create(const char *path, struct uuid cluster)
{
    char *error = NULL;
    rocksdb_options_t *plain = rocksdb_options_create();
    rocksdb_destroy_db(plain, path, &error);
    rocksdb_options_destroy(plain);
    int r = take_error(&error);
    if (r < 0 && r != -ENOENT)
        return r;
    struct master_store *s cleanup(master_store_free_p) = NULL;
    r = open_database(path, 0, OPEN_CREATE, &s);
    if (r < 0)
        return r;
    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    r = master_batch_new(&b);
    if (r < 0)
        return r;
    uint8_t format[4];
    put_le32(format, MASTER_ROWS_FORMAT);
    master_batch_put(s, b, META_FAMILY_small, ROW(MASTER_ROW_CLUSTER), uuid_bytes(&cluster));
    master_batch_put(s, b, META_FAMILY_small, ROW(MASTER_ROW_FORMAT), (struct text){(char *)format, sizeof(format)});
    r = master_store_write(s, b, 0);
    return r < 0 ? r : master_store_flush(s);
}

static int check_identity(struct master_store *s, struct uuid cluster)
{
    struct uuid stored;
    int r = get_row(s, s->read_blocking, ROW(MASTER_ROW_CLUSTER), stored.b, sizeof(stored.b));
    if (r < 0)
        return r == -ENOENT ? -CV_NOT_FORMATTED : r;
    if (!uuid_equal(stored, cluster))
        return -CV_WRONG_CLUSTER;
    uint8_t format[4];
    r = get_row(s, s->read_blocking, ROW(MASTER_ROW_FORMAT), format, sizeof(format));
    if (r < 0)
        return r == -ENOENT ? -CV_NOT_FORMATTED : r;
    return get_le32(format) > MASTER_ROWS_FORMAT ? -CV_FORMAT_TOO_NEW : 0;
}

int master_store_open(const struct master_store_options *options, struct uuid cluster, struct master_store **ret)
{
    if (access(options->path, F_OK) < 0)
        return errno == ENOENT ? -CV_NOT_FORMATTED : -errno;
    struct master_store *s cleanup(master_store_free_p) = NULL;
    int r = open_database(options->path, options->cache_bytes, OPEN_WRITE, &s);
    if (r < 0)
        return r;
    r = check_identity(s, cluster);
    if (r < 0)
        return r;
    uint64_t applied = 0, flushed = 0;
    r = get_applied(s, s->read_blocking, &applied);
    if (r == 0)
        r = get_applied(s, s->read_persisted, &flushed);
    if (r < 0)
        return r;
    assert(applied == flushed); /* nothing is in memtables yet: there is no log to replay */
    s->applied = s->flushed = flushed;
    *ret = take(s);
    return 0;
}

/* ---- snapshots --------------------------------------------------------------------------------------------------- */

int master_store_peek(const char *path, struct uuid cluster, struct meta_state *ret)
{
    struct master_store *s cleanup(master_store_free_p) = NULL;
    int r = open_database(path, 0, OPEN_READ, &s);
    if (r == 0)
        r = check_identity(s, cluster);
    return r < 0 ? r : get_state(s, s->read_blocking, ret);
}

int master_store_checkpoint(struct master_store *s, const char *path)
{
    char *error = NULL;
    rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(s->db, &error);
    if (!error)
        rocksdb_checkpoint_create(c, path, 0, &error); /* 0: what is in memtables is flushed first, atomically */
    if (c)
        rocksdb_checkpoint_object_destroy(c);
    return take_error(&error);
}

int master_store_refound(const char *path, struct uuid from, struct uuid to, uint64_t jump, uint64_t *ret_applied)
{
    struct master_store *s cleanup(master_store_free_p) = NULL;
    int r = open_database(path, 0, OPEN_WRITE, &s);
    if (r == 0)
        r = check_identity(s, from);
    if (r < 0)
        return r;
    struct meta_state state;
    r = get_state(s, s->read_blocking, &state);
    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    if (r == 0)
        r = master_batch_new(&b);
    if (r < 0)
        return r;
    master_batch_put(s, b, META_FAMILY_small, ROW(MASTER_ROW_CLUSTER), uuid_bytes(&to));
    for (uint8_t kind = 0; kind < GRANT_KINDS; kind++) {
        uint8_t key[META_KEY_MAX], value[16];
        struct master_value old = {{0}};
        struct text k = {(char *)key, meta_key_grant(kind, key)};
        r = master_store_get(s, META_FAMILY_small, k, &old);
        if (r == -ENOENT)
            continue;
        uint64_t limit;
        if (r == 0)
            r = meta_limit_decode(old.text, &limit);
        master_value_release(&old);
        if (r < 0)
            return r;
        struct text v = {(char *)value, meta_limit_encode(limit + (kind == 0 ? jump : 0), value)};
        master_batch_put(s, b, META_FAMILY_small, k, v);
    }
    r = master_store_write(s, b, state.applied);
    if (r == 0)
        r = master_store_flush(s);
    if (r == 0)
        *ret_applied = state.applied;
    return r;
}

uint64_t master_store_flushed(const struct master_store *s)
{
    return atomic_load_explicit(&s->flushed, memory_order_acquire);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

void master_value_release(struct master_value *v)
{
    if (v->pin)
        rocksdb_pinnableslice_destroy(v->pin);
    *v = (struct master_value){0};
}

static int get_value(struct master_store *s, rocksdb_readoptions_t *how, enum meta_family family, struct text key,
                     struct master_value *ret)
{
    char *error = NULL;
    rocksdb_pinnableslice_t *v = rocksdb_get_pinned_cf(s->db, how, s->families[family], key.p, key.n, &error);
    int r = take_error(&error);
    if (r < 0)
        return r;
    if (!v)
        return -ENOENT;
    size_t n;
    const char *p = rocksdb_pinnableslice_value(v, &n);
    *ret = (struct master_value){{p, (uint32_t)n}, v};
    return 0;
}

int master_store_try(struct master_store *s, enum meta_family family, struct text key, struct master_value *ret)
{
    return get_value(s, s->read_cached, family, key, ret);
}

int master_store_get(struct master_store *s, enum meta_family family, struct text key, struct master_value *ret)
{
    return get_value(s, s->read_blocking, family, key, ret);
}

/* struct master_iter is RocksDB's iterator under a name of ours. */
static rocksdb_iterator_t *inner(const struct master_iter *it)
{
    return (rocksdb_iterator_t *)it;
}

int master_iter_new(struct master_store *s, enum meta_family family, bool memory, struct master_iter **ret)
{
    rocksdb_readoptions_t *how = memory ? s->read_cached : s->read_blocking;
    *ret = (struct master_iter *)rocksdb_create_iterator_cf(s->db, how, s->families[family]);
    return *ret ? 0 : -ENOMEM;
}

struct master_iter *master_iter_free(struct master_iter *it)
{
    if (it)
        rocksdb_iter_destroy(inner(it));
    return NULL;
}

bool master_iter_seek(struct master_iter *it, struct text key)
{
    rocksdb_iter_seek(inner(it), key.p, key.n);
    return rocksdb_iter_valid(inner(it));
}

bool master_iter_next(struct master_iter *it)
{
    rocksdb_iter_next(inner(it));
    return rocksdb_iter_valid(inner(it));
}

int master_iter_error(const struct master_iter *it)
{
    char *error = NULL;
    rocksdb_iter_get_error(inner(it), &error);
    return take_error(&error);
}

struct text master_iter_key(const struct master_iter *it)
{
    size_t n;
    const char *p = rocksdb_iter_key(inner(it), &n);
    return (struct text){p, (uint32_t)n};
}

struct text master_iter_value(const struct master_iter *it)
{
    size_t n;
    const char *p = rocksdb_iter_value(inner(it), &n);
    return (struct text){p, (uint32_t)n};
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static rocksdb_writebatch_t *inner_batch(struct master_batch *b)
{
    return (rocksdb_writebatch_t *)b;
}

int master_batch_new(struct master_batch **ret)
{
    *ret = (struct master_batch *)rocksdb_writebatch_create();
    return *ret ? 0 : -ENOMEM;
}

struct master_batch *master_batch_free(struct master_batch *b)
{
    if (b)
        rocksdb_writebatch_destroy(inner_batch(b));
    return NULL;
}

void master_batch_put(struct master_store *s, struct master_batch *b, enum meta_family family, struct text key,
                      struct text value)
{
    rocksdb_writebatch_put_cf(inner_batch(b), s->families[family], key.p, key.n, value.p, value.n);
}

void master_batch_remove(struct master_store *s, struct master_batch *b, enum meta_family family, struct text key)
{
    rocksdb_writebatch_delete_cf(inner_batch(b), s->families[family], key.p, key.n);
}

int master_store_write(struct master_store *s, struct master_batch *b, uint64_t applied)
{
    assert(applied >= s->applied);
    uint64_t began = clock_ns();
    char *error = NULL;
    rocksdb_write(s->db, s->write_options, inner_batch(b), &error);
    int r = take_error(&error);
    if (r < 0)
        return r;
    s->applied = applied;
    s->writes++;
    s->rows += (uint64_t)rocksdb_writebatch_count(inner_batch(b));
    s->write_ns += clock_ns() - began;
    return 0;
}

int master_store_flush(struct master_store *s)
{
    uint64_t began = clock_ns();
    uint64_t flushed = 0;
#ifdef CV_TEST_NO_FSYNC /* a build that must fail the power cut tests */
    int r = get_applied(s, s->read_blocking, &flushed);
#else
    char *error = NULL;
    master_flush_all(s->db, s->path, s->families, META_FAMILY_COUNT, &error);
    int r = take_error(&error);
    if (r < 0)
        return r;
    /* Believe the files, not the call. */
    r = get_applied(s, s->read_persisted, &flushed);
#endif
    if (r < 0)
        return r;
    if (flushed != s->applied)
        return log_error(-EIO, "metadata flush: applied is %llu in the files and %llu in memory",
                         (unsigned long long)flushed, (unsigned long long)s->applied);
    atomic_store_explicit(&s->flushed, flushed, memory_order_release);
    s->flushes++;
    s->flush_ns += clock_ns() - began;
    return 0;
}

void master_store_tidy(struct master_store *s)
{
    for (int i = 0; i < META_FAMILY_COUNT; i++) {
        unsigned n = master_tidy(s->db, s->families[i], family_names[i]);
        if (n)
            log_debug("put %u small files of the metadata database together (%s)", n, family_names[i]);
    }
}

void master_store_get_stats(struct master_store *s, struct master_store_stats *ret)
{
    *ret = (struct master_store_stats){
        .applied = s->applied,
        .flushed = s->flushed,
        .writes = s->writes,
        .rows = s->rows,
        .flushes = s->flushes,
        .write_ns = s->write_ns,
        .flush_ns = s->flush_ns,
        .cache_bytes = s->cache ? rocksdb_cache_get_usage(s->cache) : 0,
    };
    for (int i = 0; i < META_FAMILY_COUNT; i++) {
        uint64_t n = 0;
        if (rocksdb_property_int_cf(s->db, s->families[i], "rocksdb.cur-size-all-mem-tables", &n) == 0)
            ret->memtable_bytes += n;
        if (rocksdb_property_int_cf(s->db, s->families[i], "rocksdb.total-sst-files-size", &n) == 0)
            ret->file_bytes += n;
        for (int level = 0; level < 7; level++) {
            char name[] = "rocksdb.num-files-at-level0";
            name[sizeof(name) - 2] = (char)('0' + level);
            char *v = rocksdb_property_value_cf(s->db, s->families[i], name);
            ret->files += v ? strtoull(v, NULL, 10) : 0;
            rocksdb_free(v);
        }
    }
}
