/* SPDX-License-Identifier: Apache-2.0 */
/* RocksDB: not for the thread sanitizer. */
/* The index of a worker when it has many files: a row that is not in memory, or cannot be
 * read, is neither absent nor empty. */
#include "worker/block_index.h"

#include <errno.h>
#include <fcntl.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/unit/unit.h"

enum { ROWS = 8000 };

static const char *index_path(void)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/index", unit_tempdir());
    return path;
}

static struct block_row_key row_key(int i)
{
    struct block_row_key k = {0};
    k.n = (uint8_t)snprintf((char *)k.p, sizeof(k.p), "k%07d", i);
    return k;
}

/* Rows in small files of one level. Returns how many; the one that begins next behind the first to *ret_second. */
static int make_files(char *ret_second, size_t room, int *ret_row)
{
    char *error = NULL, value[300];
    memset(value, 'v', sizeof(value));
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_writeoptions_t *w = rocksdb_writeoptions_create();
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_uint64add_merge_operator(o);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_target_file_size_base(o, 4 << 10);
    rocksdb_t *db = rocksdb_open(o, index_path(), &error);
    ck_assert_ptr_null(error);
    for (int pass = 0; pass < 2; pass++) { /* two files that overlap: they are not just moved */
        for (int i = pass; i < ROWS; i += 2) {
            struct block_row_key k = row_key(i);
            rocksdb_put(db, w, (char *)k.p, k.n, value, sizeof(value), &error);
            ck_assert_ptr_null(error);
        }
        rocksdb_flushoptions_t *f = rocksdb_flushoptions_create();
        rocksdb_flush(db, f, &error);
        ck_assert_ptr_null(error);
        rocksdb_flushoptions_destroy(f);
    }
    rocksdb_compact_range(db, NULL, 0, NULL, 0);
    const rocksdb_livefiles_t *files = rocksdb_livefiles(db);
    int count = rocksdb_livefiles_count(files), second = ROWS;
    for (int i = 0; i < count; i++) {
        size_t n;
        int first = atoi(rocksdb_livefiles_smallestkey(files, i, &n) + 1);
        if (first > 0 && first < second) {
            second = first;
            snprintf(ret_second, room, "%s%s", index_path(), rocksdb_livefiles_name(files, i));
        }
    }
    *ret_row = second;
    rocksdb_livefiles_destroy(files);
    rocksdb_close(db);
    rocksdb_writeoptions_destroy(w);
    rocksdb_options_destroy(o);
    return count;
}

static int count_rows(struct block_index *x, int *ret)
{
    struct block_iter *it cleanup(block_iter_free_p) = NULL;
    struct block_row_key prefix = {.n = 1, .p = "k"}, key;
    ck_assert_int_eq(block_iter_new(x, &prefix, NULL, &it), 0);
    int r;
    for (*ret = 0; (r = block_iter_next(it, &key)) == 1;)
        ++*ret;
    return r;
}

/* RocksDB before 9.1 opens no file for who must not block, and then gives an empty row (facebook/rocksdb#12443). */
TEST(index_row_that_is_not_in_memory_is_neither_absent_nor_empty)
{
    char second[300];
    int row;
    ck_assert_int_gt(make_files(second, sizeof(second), &row), 200);
    struct block_index *x;
    ck_assert_int_eq(block_index_open(index_path(), BLOCK_INDEX_OPEN, 1 << 20, &x), 0);
    for (int i = 0; i < ROWS; i++) {
        struct block_row_key k = row_key(i);
        uint8_t out[300];
        int r = block_index_get(x, &k, true, out, sizeof(out));
        ck_assert_msg(r == -CV_NOT_PREPARED, "row %d: %d", i, r);
    }
    int n;
    ck_assert_int_eq(count_rows(x, &n), 0);
    ck_assert_int_eq(n, ROWS);
    block_index_free(x);
}

TEST(index_rows_end_with_an_error_before_a_damaged_file)
{
    char second[300];
    int row, n;
    make_files(second, sizeof(second), &row);
    int fd = open(second, O_RDWR);
    uint8_t c;
    ck_assert_int_eq(pread(fd, &c, 1, 100), 1);
    c ^= 0x40;
    ck_assert_int_eq(pwrite(fd, &c, 1, 100), 1);
    close(fd);
    struct block_index *x;
    ck_assert_int_eq(block_index_open(index_path(), BLOCK_INDEX_OPEN, 1 << 20, &x), 0);
    ck_assert_int_eq(count_rows(x, &n), -CV_BAD_CHECKSUM);
    ck_assert_int_eq(n, row);
    block_index_free(x);
}

/* Keys that begin with "r" and a byte, and the end of those that begin with it. */
static struct block_row_key short_key(uint8_t a, uint8_t b, uint8_t n)
{
    return (struct block_row_key){.n = n, .p = {'r', a, b}};
}

static int count_prefix(struct block_index *x, struct block_row_key prefix)
{
    struct block_iter *it cleanup(block_iter_free_p) = NULL;
    struct block_row_key key;
    int n = 0, r;
    ck_assert_int_eq(block_iter_new(x, &prefix, NULL, &it), 0);
    while ((r = block_iter_next(it, &key)) == 1)
        n++;
    ck_assert_int_eq(r, 0);
    return n;
}

TEST(index_iterator_gives_all_rows_of_a_prefix_and_looks_at_no_others)
{
    struct block_index *x;
    struct block_batch *b cleanup(block_batch_free_p) = block_batch_new();
    ck_assert_int_eq(block_index_open(index_path(), BLOCK_INDEX_CREATE, 1 << 20, &x), 0);
    struct block_row_mark row = {0};
    for (int i = 0; i < 256; i++) {
        struct block_row_key last = short_key(0xff, (uint8_t)i, 3), other = short_key(7, (uint8_t)i, 3);
        block_batch_put(b, &last, &row, sizeof(row));
        block_batch_put(b, &other, &row, sizeof(row));
    }
    for (int i = 0; i < 5000; i++) { /* many files that were here once */
        struct block_row_key k = {.n = 6, .p = {'r', 9}};
        memcpy(k.p + 2, &i, 4);
        block_batch_put(b, &k, &row, sizeof(row));
        block_batch_delete(b, &k);
    }
    ck_assert_int_eq(block_index_write(x, b, false), 0);
    ck_assert_int_eq(count_prefix(x, short_key(0xff, 0, 2)), 256); /* nothing can be behind them */
    ck_assert_int_eq(count_prefix(x, short_key(7, 0xff, 3)), 1);
    ck_assert_int_eq(count_prefix(x, short_key(7, 0, 2)), 256);

    rocksdb_set_perf_level(rocksdb_enable_count);
    rocksdb_perfcontext_t *count = rocksdb_perfcontext_create();
    rocksdb_perfcontext_reset(count);
    ck_assert_int_eq(count_prefix(x, short_key(8, 0, 2)), 0);
    ck_assert_uint_lt(rocksdb_perfcontext_metric(count, rocksdb_internal_delete_skipped_count), 10);
    rocksdb_perfcontext_destroy(count);
    rocksdb_set_perf_level(rocksdb_disable);
    block_index_free(x);
}
