/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_index.h"

#include <rocksdb/c.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "worker/block_io.h"

struct block_index {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read, *read_memory;
    rocksdb_writeoptions_t *write, *write_sync;
};

struct block_iter {
    rocksdb_iterator_t *it;
    rocksdb_readoptions_t *read;
    struct block_row_key prefix, key;
    struct block_row_key end; /* behind the last key with prefix, n 0: there is no such key; borrowed by it */
    bool started;
};

/* RocksDB says what went wrong in words. The text is freed. */
static int take_error(char *text, const char *what)
{
    int r = strncmp(text, "Corruption", 10) == 0                             ? -CV_BAD_CHECKSUM
            : strncmp(text, "Result incomplete", 17) == 0                    ? -CV_NOT_PREPARED
            : strstr(text, "No space left")                                  ? -CV_NO_SPACE
            : strstr(text, "No such file") || strstr(text, "does not exist") ? -ENOENT
                                                                             : -EIO;
    if (r != -CV_NOT_PREPARED)
        log_debug("block index: %s: %s", what, text);
    rocksdb_free(text);
    return r;
}

static rocksdb_options_t *make_options(uint64_t cache_bytes, rocksdb_cache_t **ret_cache)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_paranoid_checks(o, 1);
    /* A prefix of the batches after a crash. That it holds everything synced is checked with the mark. */
    rocksdb_options_set_wal_recovery_mode(o, 2);
    rocksdb_options_set_uint64add_merge_operator(o);
    rocksdb_options_set_compression(o, rocksdb_no_compression); /* mostly checksums */
    rocksdb_options_set_write_buffer_size(o, 16 << 20);
    rocksdb_options_set_max_write_buffer_number(o, 3);
    rocksdb_options_set_max_total_wal_size(o, 64 << 20);
    rocksdb_options_set_max_background_jobs(o, 2);
    /* All of them: of a file that is not open, who must not block gets empty rows (#12443). */
    rocksdb_options_set_max_open_files(o, -1);
    rocksdb_options_set_skip_stats_update_on_db_open(o, 1);
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_max_log_file_size(o, 4 << 20);
    rocksdb_options_set_info_log_level(o, 2); /* warnings */

    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    *ret_cache = rocksdb_cache_create_lru(cache_bytes);
    rocksdb_block_based_options_set_block_cache(t, *ret_cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1); /* within the budget too */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
    rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    return o;
}

static rocksdb_readoptions_t *make_read(void)
{
    rocksdb_readoptions_t *o = rocksdb_readoptions_create();
    /* There are none here; iterators that look for them (RocksDB 7.7 to 8.5.0, #11782) take a file whose first block cannot
     * be read for the end, without an error. */
    rocksdb_readoptions_set_ignore_range_deletions(o, 1);
    return o;
}

int block_index_open(const char *path, enum block_index_mode mode, uint64_t cache_bytes, struct block_index **ret)
{
    struct block_index *x cleanup(block_index_free_p) = block_io_alloc(sizeof(*x));
    if (!x)
        return -ENOMEM;
    x->options = make_options(cache_bytes, &x->cache);
    x->read = make_read();
    x->read_memory = make_read();
    rocksdb_readoptions_set_read_tier(x->read_memory, 1);
    x->write = rocksdb_writeoptions_create();
    x->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(x->write_sync, 1);

    char *error = NULL;
    if (mode == BLOCK_INDEX_CREATE) {
        rocksdb_options_set_create_if_missing(x->options, 1);
        rocksdb_options_set_error_if_exists(x->options, 1);
    }
    x->db = mode == BLOCK_INDEX_READ_ONLY ? rocksdb_open_for_read_only(x->options, path, 0, &error)
                                          : rocksdb_open(x->options, path, &error);
    if (error)
        return take_error(error, "open");
    *ret = take(x);
    return 0;
}

int block_index_repair(const char *path)
{
    rocksdb_cache_t *cache;
    rocksdb_options_t *o = make_options(8 << 20, &cache);
    char *error = NULL;
    rocksdb_repair_db(o, path, &error);
    rocksdb_options_destroy(o);
    rocksdb_cache_destroy(cache);
    return error ? take_error(error, "repair") : 0;
}

struct block_index *block_index_free(struct block_index *x)
{
    if (!x)
        return NULL;
    if (x->db)
        rocksdb_close(x->db);
    rocksdb_readoptions_destroy(x->read);
    rocksdb_readoptions_destroy(x->read_memory);
    rocksdb_writeoptions_destroy(x->write);
    rocksdb_writeoptions_destroy(x->write_sync);
    rocksdb_options_destroy(x->options);
    rocksdb_cache_destroy(x->cache);
    free(x);
    return NULL;
}

static int get(struct block_index *x, const struct block_row_key *key, bool must_not_block,
               rocksdb_pinnableslice_t **ret)
{
    int r = must_not_block ? 0 : block_io_check(BLOCK_IO_INDEX_READ);
    if (r < 0)
        return r;
    char *error = NULL;
    rocksdb_pinnableslice_t *v =
        rocksdb_get_pinned(x->db, must_not_block ? x->read_memory : x->read, (const char *)key->p, key->n, &error);
    if (error)
        return take_error(error, "get");
    if (!v)
        return -ENOENT;
    *ret = v;
    return 0;
}

int block_index_get(struct block_index *x, const struct block_row_key *key, bool must_not_block, void *row, size_t n)
{
    rocksdb_pinnableslice_t *v;
    int r = get(x, key, must_not_block, &v);
    if (r < 0)
        return r;
    size_t size;
    const char *p = rocksdb_pinnableslice_value(v, &size);
    r = block_row_read(key, p, size, row, n);
    rocksdb_pinnableslice_destroy(v);
    return r;
}

int block_index_get_sum(struct block_index *x, const struct block_row_key *key, uint64_t *ret)
{
    rocksdb_pinnableslice_t *v;
    int r = get(x, key, false, &v);
    if (r == -ENOENT) {
        *ret = 0;
        return 0;
    }
    if (r < 0)
        return r;
    size_t size;
    const char *p = rocksdb_pinnableslice_value(v, &size);
    if (size == 8)
        *ret = get_le64(p);
    rocksdb_pinnableslice_destroy(v);
    return size == 8 ? 0 : -CV_BAD_FORMAT;
}

static rocksdb_writebatch_t *of(const struct block_batch *b)
{
    return (rocksdb_writebatch_t *)(uintptr_t)b;
}

struct block_batch *block_batch_new(void)
{
    if (block_io_check(BLOCK_IO_ALLOC))
        return NULL;
    return (struct block_batch *)rocksdb_writebatch_create();
}

struct block_batch *block_batch_free(struct block_batch *b)
{
    if (b)
        rocksdb_writebatch_destroy(of(b));
    return NULL;
}

void block_batch_put(struct block_batch *b, const struct block_row_key *key, void *row, size_t n)
{
    block_row_finish(key, row, n);
    rocksdb_writebatch_put(of(b), (const char *)key->p, key->n, row, n);
}

void block_batch_delete(struct block_batch *b, const struct block_row_key *key)
{
    rocksdb_writebatch_delete(of(b), (const char *)key->p, key->n);
}

void block_batch_add(struct block_batch *b, const struct block_row_key *key, int64_t delta)
{
    if (delta == 0)
        return;
    char v[8];
    put_le64(v, (uint64_t)delta); /* the sum wraps, so adding a negative number subtracts */
    rocksdb_writebatch_merge(of(b), (const char *)key->p, key->n, v, sizeof(v));
}

int block_batch_count(const struct block_batch *b)
{
    return rocksdb_writebatch_count(of(b));
}

void block_batch_clear(struct block_batch *b)
{
    rocksdb_writebatch_clear(of(b));
}

int block_index_write(struct block_index *x, struct block_batch *b, bool sync)
{
    int r = block_io_check(BLOCK_IO_INDEX_WRITE);
    if (r < 0)
        return r;
    if (sync) {
        r = block_io_check(BLOCK_IO_INDEX_SYNC);
        if (r < 0)
            return r;
        sync = r != BLOCK_IO_SKIP;
    }
    char *error = NULL;
    rocksdb_write(x->db, sync ? x->write_sync : x->write, of(b), &error);
    return error ? take_error(error, "write") : 0;
}

int block_index_sync(struct block_index *x)
{
    int r = block_io_check(BLOCK_IO_INDEX_SYNC);
    if (r)
        return r == BLOCK_IO_SKIP ? 0 : r;
    char *error = NULL;
    rocksdb_flush_wal(x->db, 1, &error);
    return error ? take_error(error, "sync") : 0;
}

uint64_t block_index_sequence(struct block_index *x)
{
    return rocksdb_get_latest_sequence_number(x->db);
}

/* Where rows of prefix end. Without that an iterator whose rows are all gone goes on over everything else that was deleted,
 * and adds up sums it then does not give out: the removal of one file was as slow as all removals before it were many. */
static struct block_row_key behind(const struct block_row_key *prefix)
{
    struct block_row_key end = *prefix;
    while (end.n && end.p[end.n - 1] == 0xff)
        end.n--;
    if (end.n)
        end.p[end.n - 1]++;
    return end;
}

int block_iter_new(struct block_index *x, const struct block_row_key *prefix, const struct block_row_key *from,
                   struct block_iter **ret)
{
    int r = block_io_check(BLOCK_IO_INDEX_READ);
    if (r < 0)
        return r;
    struct block_iter *i = block_io_alloc(sizeof(*i));
    if (!i)
        return -ENOMEM;
    i->prefix = *prefix;
    i->end = behind(prefix);
    i->read = make_read();
    if (i->end.n)
        rocksdb_readoptions_set_iterate_upper_bound(i->read, (const char *)i->end.p, i->end.n);
    i->it = rocksdb_create_iterator(x->db, i->read);
    const struct block_row_key *start = from ? from : prefix;
    rocksdb_iter_seek(i->it, (const char *)start->p, start->n);
    *ret = i;
    return 0;
}

struct block_iter *block_iter_free(struct block_iter *i)
{
    if (i) {
        rocksdb_iter_destroy(i->it);
        rocksdb_readoptions_destroy(i->read);
        free(i);
    }
    return NULL;
}

int block_iter_next(struct block_iter *i, struct block_row_key *ret_key)
{
    if (i->started)
        rocksdb_iter_next(i->it);
    i->started = true;
    if (!rocksdb_iter_valid(i->it)) {
        char *error = NULL;
        rocksdb_iter_get_error(i->it, &error);
        return error ? take_error(error, "iterate") : 0;
    }
    size_t n;
    const char *p = rocksdb_iter_key(i->it, &n);
    if (n < i->prefix.n || memcmp(p, i->prefix.p, i->prefix.n) != 0)
        return 0;
    if (n > BLOCK_ROW_KEY_MAX)
        return -CV_BAD_FORMAT;
    i->key.n = (uint8_t)n;
    memcpy(i->key.p, p, n);
    *ret_key = i->key;
    return 1;
}

int block_iter_row(struct block_iter *i, void *row, size_t n)
{
    size_t size;
    const char *p = rocksdb_iter_value(i->it, &size);
    return block_row_read(&i->key, p, size, row, n);
}
