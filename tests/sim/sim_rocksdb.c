/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of RocksDB's C interface as the log store uses (raft/journal_append.c, _state.c, _check.c, _store.c), in
 * memory: three families of rows in order of their keys, batches that are written whole. It takes the place of
 * journal_db.c and of the library in the simulator's program, so that the log store's own logic runs there as it is.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "raft/journal_db.h"
#include "sim_rocksdb.h"

struct row {
    char *bytes; /* key, then value */
    uint32_t key_n, value_n;
};

struct family {
    struct row *rows;
    uint32_t count, room;
};

struct rocksdb_t {
    struct family families[JOURNAL_FAMILIES];
};

struct rocksdb_column_family_handle_t {
    enum journal_family family;
};

static rocksdb_column_family_handle_t handles[JOURNAL_FAMILIES] = {{JOURNAL_DEFAULT}, {JOURNAL_LOG}, {JOURNAL_CONF}};

_Thread_local struct rocksdb_t *fake_db_opening;

struct rocksdb_t *fake_db_new(void)
{
    struct rocksdb_t *d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    return d;
}

static void remove_rows(struct family *f, uint32_t from, uint32_t to)
{
    if (from >= to)
        return;
    for (uint32_t i = from; i < to; i++)
        free(f->rows[i].bytes);
    memmove(f->rows + from, f->rows + to, (f->count - to) * sizeof(f->rows[0]));
    f->count -= to - from;
}

struct rocksdb_t *fake_db_free(struct rocksdb_t *d)
{
    if (!d)
        return NULL;
    for (int i = 0; i < JOURNAL_FAMILIES; i++) {
        if (d->families[i].count)
            remove_rows(&d->families[i], 0, d->families[i].count);
        free(d->families[i].rows);
    }
    free(d);
    return NULL;
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    int r = memcmp(a, b, min(an, bn));
    return r ? r : (an > bn) - (an < bn);
}

/* The first row at or behind a key. */
static uint32_t seek(const struct family *f, const char *key, size_t n)
{
    uint32_t low = 0, high = f->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (compare(f->rows[middle].bytes, f->rows[middle].key_n, key, n) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct family *f, uint32_t at, const char *key, size_t n)
{
    return at < f->count && compare(f->rows[at].bytes, f->rows[at].key_n, key, n) == 0;
}

/* ---- Batches ---- */

struct change {
    enum { PUT, DELETE, DELETE_RANGE } what;
    enum journal_family family;
    struct row row; /* DELETE_RANGE: from key to value */
};

struct rocksdb_writebatch_t {
    struct change *changes;
    int count, room;
};

rocksdb_writebatch_t *rocksdb_writebatch_create(void)
{
    rocksdb_writebatch_t *b = calloc(1, sizeof(*b));
    if (!b)
        abort();
    return b;
}

void rocksdb_writebatch_clear(rocksdb_writebatch_t *b)
{
    for (int i = 0; i < b->count; i++)
        free(b->changes[i].row.bytes);
    b->count = 0;
}

void rocksdb_writebatch_destroy(rocksdb_writebatch_t *b)
{
    rocksdb_writebatch_clear(b);
    free(b->changes);
    free(b);
}

int rocksdb_writebatch_count(rocksdb_writebatch_t *b)
{
    return b->count;
}

static void add(rocksdb_writebatch_t *b, int what, rocksdb_column_family_handle_t *f, const char *key, size_t key_n,
                size_t value_n, char **ret_value)
{
    if (b->count == b->room) {
        b->room = max(2 * b->room, 16);
        b->changes = realloc(b->changes, (size_t)b->room * sizeof(b->changes[0]));
    }
    struct row row = {malloc(key_n + value_n + 1), (uint32_t)key_n, (uint32_t)value_n};
    if (!b->changes || !row.bytes)
        abort();
    memcpy(row.bytes, key, key_n);
    *ret_value = row.bytes + key_n;
    b->changes[b->count++] = (struct change){what, f->family, row};
}

void rocksdb_writebatch_putv_cf(rocksdb_writebatch_t *b, rocksdb_column_family_handle_t *f, int keys,
                                const char *const *key, const size_t *key_n, int values, const char *const *value,
                                const size_t *value_n)
{
    size_t n = 0;
    char *to;
    assert(keys == 1);
    for (int i = 0; i < values; i++)
        n += value_n[i];
    add(b, PUT, f, key[0], key_n[0], n, &to);
    for (int i = 0; i < values; to += value_n[i++])
        if (value_n[i])
            memcpy(to, value[i], value_n[i]);
}

void rocksdb_writebatch_put_cf(rocksdb_writebatch_t *b, rocksdb_column_family_handle_t *f, const char *key,
                               size_t key_n, const char *value, size_t value_n)
{
    rocksdb_writebatch_putv_cf(b, f, 1, &key, &key_n, 1, &value, &value_n);
}

void rocksdb_writebatch_delete_cf(rocksdb_writebatch_t *b, rocksdb_column_family_handle_t *f, const char *key,
                                  size_t key_n)
{
    char *none;
    add(b, DELETE, f, key, key_n, 0, &none);
}

void rocksdb_writebatch_delete_range_cf(rocksdb_writebatch_t *b, rocksdb_column_family_handle_t *f, const char *key,
                                        size_t key_n, const char *end, size_t end_n)
{
    char *to;
    add(b, DELETE_RANGE, f, key, key_n, end_n, &to);
    memcpy(to, end, end_n);
}

static void put(struct family *f, struct row *row)
{
    uint32_t at = seek(f, row->bytes, row->key_n);
    if (is_at(f, at, row->bytes, row->key_n)) {
        free(f->rows[at].bytes);
    } else {
        if (f->count == f->room) {
            f->room = max(2 * f->room, 64u);
            f->rows = realloc(f->rows, f->room * sizeof(f->rows[0]));
            if (!f->rows)
                abort();
        }
        memmove(f->rows + at + 1, f->rows + at, (f->count - at) * sizeof(f->rows[0]));
        f->count++;
    }
    f->rows[at] = *row;
    row->bytes = NULL; /* moved */
}

void rocksdb_write(rocksdb_t *d, const rocksdb_writeoptions_t *options, rocksdb_writebatch_t *b, char **error)
{
    for (int i = 0; i < b->count; i++) {
        struct row *row = &b->changes[i].row;
        struct family *f = &d->families[b->changes[i].family];
        uint32_t at = seek(f, row->bytes, row->key_n);
        switch (b->changes[i].what) {
        case PUT: put(f, row); break;
        case DELETE:
            if (is_at(f, at, row->bytes, row->key_n))
                remove_rows(f, at, at + 1);
            break;
        case DELETE_RANGE: remove_rows(f, at, max(at, seek(f, row->bytes + row->key_n, row->value_n))); break;
        }
    }
}

/* What whole files hold of it is gone; here there are none. */
void rocksdb_delete_file_in_range_cf(rocksdb_t *d, rocksdb_column_family_handle_t *f, const char *start, size_t n,
                                     const char *end, size_t end_n, char **error)
{
}

/* ---- Reading ---- */

struct rocksdb_iterator_t {
    const struct family *family;
    uint32_t at; /* family->count: at the end */
};

rocksdb_iterator_t *rocksdb_create_iterator_cf(rocksdb_t *d, const rocksdb_readoptions_t *options,
                                               rocksdb_column_family_handle_t *f)
{
    rocksdb_iterator_t *it = calloc(1, sizeof(*it));
    if (!it)
        abort();
    it->family = &d->families[f->family];
    it->at = it->family->count;
    return it;
}

void rocksdb_iter_destroy(rocksdb_iterator_t *it)
{
    free(it);
}

unsigned char rocksdb_iter_valid(const rocksdb_iterator_t *it)
{
    return it->at < it->family->count;
}

void rocksdb_iter_seek_to_first(rocksdb_iterator_t *it)
{
    it->at = 0;
}

void rocksdb_iter_seek_to_last(rocksdb_iterator_t *it)
{
    it->at = it->family->count ? it->family->count - 1 : 0;
}

void rocksdb_iter_seek(rocksdb_iterator_t *it, const char *key, size_t n)
{
    it->at = seek(it->family, key, n);
}

void rocksdb_iter_next(rocksdb_iterator_t *it)
{
    it->at++;
}

void rocksdb_iter_prev(rocksdb_iterator_t *it)
{
    it->at = it->at ? it->at - 1 : it->family->count;
}

const char *rocksdb_iter_key(const rocksdb_iterator_t *it, size_t *n)
{
    *n = it->family->rows[it->at].key_n;
    return it->family->rows[it->at].bytes;
}

const char *rocksdb_iter_value(const rocksdb_iterator_t *it, size_t *n)
{
    *n = it->family->rows[it->at].value_n;
    return it->family->rows[it->at].bytes + it->family->rows[it->at].key_n;
}

void rocksdb_iter_get_error(const rocksdb_iterator_t *it, char **error)
{
}

void rocksdb_free(void *p)
{
    free(p);
}

void rocksdb_pinnableslice_destroy(rocksdb_pinnableslice_t *slice)
{
}

/* ---- In place of journal_db.c ---- */

int journal_db_open(const char *dir, enum journal_db_mode mode, uint64_t memtable_bytes, struct buf *why,
                    struct journal_db *ret)
{
    *ret = JOURNAL_DB_NONE;
    ret->db = fake_db_opening;
    for (int i = 0; i < JOURNAL_FAMILIES; i++)
        ret->family[i] = &handles[i];
    if (mode != JOURNAL_DB_CREATE)
        return 0;
    /* What tells that there is a database. */
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    int dir_fd cleanup(closep) = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    int fd cleanup(closep) = openat(dir_fd, "CURRENT", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : 0;
}

void journal_db_close(struct journal_db *d)
{
    *d = JOURNAL_DB_NONE;
}

int journal_db_error(char *error, const char *what, struct buf *why)
{
    return error ? -EIO : 0;
}

int journal_db_get(const struct journal_db *d, enum journal_family family, const void *key, size_t key_size,
                   rocksdb_pinnableslice_t **ret_slice, struct text *ret)
{
    const struct family *f = &d->db->families[family];
    uint32_t at = seek(f, key, key_size);
    if (!is_at(f, at, key, key_size))
        return -ENOENT;
    *ret_slice = NULL;
    *ret = (struct text){f->rows[at].bytes + f->rows[at].key_n, f->rows[at].value_n};
    return 0;
}

uint64_t journal_db_log_bytes(const struct journal_db *d)
{
    return 0;
}
