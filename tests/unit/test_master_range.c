/* SPDX-License-Identifier: Apache-2.0 */
/* RocksDB: not for the thread sanitizer. */
/*
 * Ranges of rows that lie in several files of the metadata database, of which some are in the block cache and some are not:
 * what is read from memory only, and what is read from a damaged file, ends with an error, never as if there were no more.
 * RocksDB 7.7 to 8.5.0 does just that (facebook/rocksdb#11782) unless it is told to ignore range deletions.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/random.h"
#include "meta/master_core.h"
#include "meta/master_store.h"
#include "rocks/rocks_c.h"
#include "tests/unit/unit.h"

static const struct uuid CLUSTER = {{1, 2, 3}};

enum { ROWS = 4000, DIRECTORY = 7, FILES_MAX = 64 };

/* A file of the database that holds rows of the directory. */
struct file {
    char path[300];
    uint64_t first, last;
};

struct rig {
    char path[256];
    struct file files[FILES_MAX]; /* one sorted run, in order */
    uint32_t count;
    struct master_store *store;
};

static struct text row_key(uint64_t k, uint8_t out[16])
{
    put_be64(out, DIRECTORY);
    put_be64(out + 8, k);
    return (struct text){(char *)out, 16};
}

static uint64_t key_row(struct text key)
{
    ck_assert_uint_eq(key.n, 16);
    return get_be64(key.p + 8);
}

static void open_store(struct rig *g, uint64_t cache_bytes)
{
    struct master_store_options o = {.path = g->path, .cache_bytes = cache_bytes};
    ck_assert_int_eq(master_store_open(&o, CLUSTER, &g->store), 0);
}

/* Names step, 2 * step, ... of the directory, and applied. */
static void write_names(struct master_store *s, uint64_t from, uint64_t step, uint64_t applied, bool remove)
{
    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    ck_assert_int_eq(master_batch_new(&b), 0);
    uint8_t key[16], state_key[META_KEY_MAX], state_value[META_STATE_SIZE];
    for (uint64_t k = from; k <= ROWS; k += step)
        if (remove)
            master_batch_remove(s, b, META_FAMILY_dentry, row_key(k, key));
        else
            master_batch_put(s, b, META_FAMILY_dentry, row_key(k, key), TEXT("an inode number and a type, or so"));
    struct meta_state state = {.applied = applied};
    master_batch_put(s, b, META_FAMILY_small, (struct text){(char *)state_key, meta_key_state(state_key)},
                     (struct text){(char *)state_value, meta_state_encode(&state, state_value)});
    ck_assert_int_eq(master_store_write(s, b, applied), 0);
    ck_assert_int_eq(master_store_flush(s), 0);
}

static void ck_no_error(char *error)
{
    ck_assert_msg(!error, "%s", error ? error : "");
}

/* The families as RocksDB lists them, opened by nobody else; files of 16 KiB, blocks of 1 KiB. */
struct raw {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_column_family_handle_t *handles[META_FAMILY_COUNT], *dentry;
};

static void raw_open(struct raw *w, const char *path)
{
    char *error = NULL, **names;
    size_t n;
    const rocksdb_options_t *each[META_FAMILY_COUNT];
    w->options = rocksdb_options_create();
    rocksdb_options_set_atomic_flush(w->options, 1);
    rocksdb_options_set_paranoid_checks(w->options, 1);
    rocksdb_options_set_compression(w->options, rocksdb_no_compression);
    rocksdb_options_set_target_file_size_base(w->options, 16 << 10);
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_block_size(t, 1 << 10);
    rocksdb_options_set_block_based_table_factory(w->options, t);
    rocksdb_block_based_options_destroy(t);
    names = rocksdb_list_column_families(w->options, path, &n, &error);
    ck_no_error(error);
    ck_assert_uint_eq(n, META_FAMILY_COUNT);
    for (int i = 0; i < META_FAMILY_COUNT; i++)
        each[i] = w->options;
    w->db = rocksdb_open_column_families(w->options, path, META_FAMILY_COUNT, (const char *const *)names, each,
                                         w->handles, &error);
    ck_no_error(error);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(names[i], "dentry"))
            w->dentry = w->handles[i];
    rocksdb_list_column_families_destroy(names, n);
}

static void raw_close(struct raw *w)
{
    for (int i = 0; i < META_FAMILY_COUNT; i++)
        rocksdb_column_family_handle_destroy(w->handles[i]);
    rocksdb_close(w->db);
    rocksdb_options_destroy(w->options);
}

static void raw_compact(struct raw *w)
{
    rocksdb_compactoptions_t *o = rocksdb_compactoptions_create();
    rocksdb_compactoptions_set_bottommost_level_compaction(o, 2); /* force */
    rocksdb_compact_range_cf_opt(w->db, w->dentry, o, NULL, 0, NULL, 0);
    rocksdb_compactoptions_destroy(o);
}

static int compare_files(const void *a, const void *b)
{
    const struct file *fa = a, *fb = b;
    return fa->first < fb->first ? -1 : fa->first > fb->first;
}

static void list_files(struct rig *g, struct raw *w)
{
    const rocksdb_livefiles_t *files = rocksdb_livefiles(w->db);
    g->count = 0;
    for (int i = 0; i < rocksdb_livefiles_count(files); i++) {
        if (strcmp(rocksdb_livefiles_column_family_name(files, i), "dentry") != 0)
            continue;
        ck_assert_int_gt(rocksdb_livefiles_level(files, i), 0);
        ck_assert_uint_lt(g->count, FILES_MAX);
        struct file *f = &g->files[g->count++];
        size_t n;
        snprintf(f->path, sizeof(f->path), "%s/rows%s", unit_tempdir(), rocksdb_livefiles_name(files, i));
        f->first = get_be64(rocksdb_livefiles_smallestkey(files, i, &n) + 8);
        f->last = get_be64(rocksdb_livefiles_largestkey(files, i, &n) + 8);
    }
    rocksdb_livefiles_destroy(files);
    qsort(g->files, g->count, sizeof(g->files[0]), compare_files);
}

/* A directory of ROWS names, in several files of one level. Not open. */
static void rig_make(struct rig *g)
{
    snprintf(g->path, sizeof(g->path), "%s/rows", unit_tempdir());
    ck_assert_int_eq(master_store_create(g->path, CLUSTER), 0);
    open_store(g, 8 << 20);
    write_names(g->store, 1, 2, 1, false);
    write_names(g->store, 2, 2, 2, false);
    g->store = master_store_free(g->store);
    struct raw w;
    raw_open(&w, g->path);
    raw_compact(&w);
    list_files(g, &w);
    raw_close(&w);
    ck_assert_uint_ge(g->count, 4);
}

/* Read rows from k on until the end, an error or most rows (and stand at the next one); returns the error. What is read must be without a gap. */
static int scan_from(struct rig *g, bool memory, uint64_t k, uint64_t most, uint64_t *ret_next)
{
    struct master_iter *it cleanup(master_iter_free_p) = NULL;
    uint8_t key[16];
    ck_assert_int_eq(master_iter_new(g->store, META_FAMILY_dentry, memory, &it), 0);
    for (bool more = master_iter_seek(it, row_key(k, key)); more && most--; more = master_iter_next(it))
        ck_assert_uint_eq(key_row(master_iter_key(it)), k++);
    *ret_next = k;
    return master_iter_error(it);
}

/* ---- what is not in memory is not the end ------------------------------------------------------------------------ */

static void read_up_to_the_second_file(struct rig *g)
{
    uint64_t next;
    ck_assert_int_eq(scan_from(g, false, 1, g->files[0].last - 1, &next), 0);
    ck_assert_int_eq(scan_from(g, true, 1, UINT64_MAX, &next), -EAGAIN);
    ck_assert_uint_eq(next, g->files[1].first);
}

TEST(range_in_memory_ends_with_an_error_before_a_file_that_is_not_in_memory)
{
    static struct rig g;
    rig_make(&g);
    open_store(&g, 8 << 20);
    read_up_to_the_second_file(&g);
    master_store_free(g.store);
}

TEST(range_in_memory_ends_with_an_error_before_a_block_that_is_not_in_memory)
{
    static struct rig g;
    rig_make(&g);
    open_store(&g, 8 << 20);
    uint8_t key[16];
    struct master_value v; /* the second file's index and its last block come into memory */
    ck_assert_int_eq(master_store_get(g.store, META_FAMILY_dentry, row_key(g.files[1].last, key), &v), 0);
    master_value_release(&v);
    read_up_to_the_second_file(&g);
    master_store_free(g.store);
}

TEST(range_in_memory_is_whole_when_all_of_it_is_there)
{
    static struct rig g;
    rig_make(&g);
    open_store(&g, 8 << 20);
    uint64_t next;
    ck_assert_int_eq(scan_from(&g, true, 1, UINT64_MAX, &next), -EAGAIN);
    ck_assert_uint_eq(next, 1);
    ck_assert_int_eq(scan_from(&g, false, 1, UINT64_MAX, &next), 0);
    ck_assert_int_eq(scan_from(&g, true, 1, UINT64_MAX, &next), 0);
    ck_assert_uint_eq(next, ROWS + 1);
    master_store_free(g.store);
}

/* Some names were removed since, which is said by a newer file: what that cannot be asked must not be believed. The cache
 * holds a part of it all, another part each time. */
TEST(memory_says_what_the_disk_says_or_that_it_does_not_know)
{
    static struct rig g;
    rig_make(&g);
    open_store(&g, 8 << 20);
    write_names(g.store, 7, 7, 3, true);
    g.store = master_store_free(g.store);
    struct prng p = {4};
    uint32_t unknown = 0, known = 0, ended = 0;
    for (int round = 0; round < 30; round++) {
        open_store(&g, (uint64_t)8 << (10 + prng_below(&p, 7)));
        for (int i = 0; i < 100; i++) {
            uint8_t key[16];
            uint64_t k = 1 + prng_below(&p, ROWS + 5);
            bool there = k <= ROWS && k % 7 != 0;
            struct master_value v = {{0}};
            int r = master_store_try(g.store, META_FAMILY_dentry, row_key(k, key), &v);
            ck_assert_msg(r == -EAGAIN || r == (there ? 0 : -ENOENT), "row %d: %d", (int)k, r);
            unknown += r == -EAGAIN;
            known += r != -EAGAIN;
            master_value_release(&v);

            struct master_iter *it cleanup(master_iter_free_p) = NULL;
            ck_assert_int_eq(master_iter_new(g.store, META_FAMILY_dentry, true, &it), 0);
            uint64_t at = k;
            bool more = master_iter_seek(it, row_key(k, key));
            for (; more; more = master_iter_next(it)) {
                at += at % 7 == 0;
                ck_assert_uint_eq(key_row(master_iter_key(it)), at++);
            }
            at += at % 7 == 0;
            r = master_iter_error(it);
            ck_assert_msg(r == -EAGAIN || (r == 0 && at >= ROWS + 1), "from %d to %d: %d", (int)k, (int)at, r);
            ended += r == 0 && at > k;

            if (prng_below(&p, 4) == 0) { /* and some of it comes in */
                ck_assert_int_eq(master_store_get(g.store, META_FAMILY_dentry, row_key(k, key), &v),
                                 there ? 0 : -ENOENT);
                master_value_release(&v);
            }
        }
        g.store = master_store_free(g.store);
    }
    ck_assert_uint_gt(unknown, 0);
    ck_assert_uint_gt(known, 0);
    ck_assert_uint_gt(ended, 0);
}

/* ---- the core's view --------------------------------------------------------------------------------------------- */

static bool count_row(void *arg, struct text key, struct text value)
{
    uint64_t *next = arg;
    ck_assert_uint_eq(key_row(key), (*next)++);
    return true;
}

TEST(core_is_never_told_that_there_is_nothing_by_memory_that_does_not_know)
{
    static struct rig g;
    rig_make(&g);
    open_store(&g, 8 << 20);
    struct master_core c;
    struct meta_options o = {.memory_bytes = 1 << 20};
    ck_assert_int_eq(master_core_init(&c, &o, g.store), 0);
    uint8_t key[16], prefix[8];
    put_be64(prefix, DIRECTORY);
    struct text directory = {(char *)prefix, 8};
    struct buf value cleanup(buf_fini) = {0};

    ck_assert_int_eq(c.base.get(c.base.context, META_FAMILY_dentry, row_key(5, key), true, &value), -CV_NOT_PREPARED);
    uint64_t next = 1;
    ck_assert_int_eq(scan_from(&g, false, 1, g.files[0].last - 1, &next), 0);
    ck_assert_int_eq(c.base.get(c.base.context, META_FAMILY_dentry, row_key(5, key), true, &value), 0);
    next = 1;
    ck_assert_int_eq(c.base.scan(c.base.context, META_FAMILY_dentry, directory, directory, true, count_row, &next),
                     -CV_NOT_PREPARED);
    next = 1;
    ck_assert_int_eq(c.base.scan(c.base.context, META_FAMILY_dentry, directory, directory, false, count_row, &next), 0);
    ck_assert_uint_eq(next, ROWS + 1);
    next = 1; /* now it is all in memory */
    ck_assert_int_eq(c.base.scan(c.base.context, META_FAMILY_dentry, directory, directory, true, count_row, &next), 0);
    ck_assert_uint_eq(next, ROWS + 1);
    master_core_fini(&c);
    master_store_free(g.store);
}

/* ---- what cannot be read is not the end -------------------------------------------------------------------------- */

static void damage(const char *path)
{
    int fd = open(path, O_RDWR);
    uint8_t c;
    ck_assert_int_eq(pread(fd, &c, 1, 100), 1);
    c ^= 0x40;
    ck_assert_int_eq(pwrite(fd, &c, 1, 100), 1);
    close(fd);
}

TEST(range_ends_with_an_error_before_a_damaged_file)
{
    static struct rig g;
    rig_make(&g);
    damage(g.files[1].path); /* its first block */
    open_store(&g, 8 << 20);
    uint64_t next;
    ck_assert_int_eq(scan_from(&g, false, 1, UINT64_MAX, &next), -CV_BAD_CHECKSUM);
    ck_assert_uint_eq(next, g.files[1].first);
    master_store_free(g.store);
}

TEST(compaction_stops_at_a_damaged_file_and_loses_nothing_behind_it)
{
    static struct rig g;
    rig_make(&g);
    damage(g.files[1].path);
    open_store(&g, 8 << 20);
    write_names(g.store, 1, 3, 3, false);
    g.store = master_store_free(g.store);
    struct raw w;
    raw_open(&w, g.path);
    raw_compact(&w);
    raw_close(&w);
    open_store(&g, 8 << 20);
    uint64_t next;
    ck_assert_int_eq(scan_from(&g, false, g.files[2].first, UINT64_MAX, &next), 0);
    ck_assert_uint_eq(next, ROWS + 1);
    ck_assert_int_eq(scan_from(&g, false, 1, UINT64_MAX, &next), -CV_BAD_CHECKSUM);
    master_store_free(g.store);
}
