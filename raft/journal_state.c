/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"

DEFINE_CLEANUP(rocksdb_iterator_t *, rocksdb_iter_destroy)
DEFINE_CLEANUP(rocksdb_pinnableslice_t *, rocksdb_pinnableslice_destroy)

/* Append to a growing array of 8- or 16-byte elements. */
static int grow(void **array, uint32_t *room, uint32_t count, size_t element)
{
    if (count < *room)
        return 0;
    uint32_t more = *room ? *room * 2 : 16;
    void *p = realloc(*array, more * element);
    if (!p)
        return -ENOMEM;
    *array = p;
    *room = more;
    return 0;
}

int journal_state_add_run(struct journal_state *s, uint64_t first, uint64_t term)
{
    int r = grow((void **)&s->runs, &s->run_room, s->run_count, sizeof(s->runs[0]));
    if (r == 0)
        s->runs[s->run_count++] = (struct raft_run){first, term};
    return r;
}

int journal_state_add_conf(struct journal_state *s, uint64_t index)
{
    int r = grow((void **)&s->confs, &s->conf_room, s->conf_count, sizeof(s->confs[0]));
    if (r == 0)
        s->confs[s->conf_count++] = index;
    return r;
}

uint64_t journal_state_term(const struct journal_state *s, uint64_t index)
{
    if (index == s->first - 1)
        return s->base_term;
    if (index < s->first || index > s->last)
        return 0;
    uint32_t i = s->run_count;
    while (i > 0 && s->runs[i - 1].first > index)
        i--;
    return i > 0 ? s->runs[i - 1].term : 0;
}

void journal_state_fini(struct journal_state *s)
{
    free(s->runs);
    free(s->confs);
    *s = (struct journal_state){.node = 0};
}

/* One row of `default` into row. Errors: -ENOENT; damaged: reported in why. */
static int load_row(const struct journal_db *d, const char *key, void *row, size_t size, struct buf *why)
{
    rocksdb_pinnableslice_t *slice cleanup(rocksdb_pinnableslice_destroy_p) = NULL;
    struct text value;
    int r = journal_db_get(d, JOURNAL_DEFAULT, key, strlen(key), &slice, &value);
    if (r == 0)
        r = journal_row_open(key, strlen(key), value.p, value.n, row, size);
    if (r < 0 && r != -ENOENT) {
        (void)buf_printf(why, "row '%s': %s", key, cv_error_text(r));
        r = -CV_LOG_DAMAGED;
    }
    return r;
}

int journal_state_load_ident(const struct journal_db *d, struct buf *why, struct journal_state *ret)
{
    struct journal_ident_row ident;
    int r = load_row(d, JOURNAL_KEY_IDENT, &ident, sizeof(ident), why);
    if (r == -ENOENT)
        return -CV_NOT_FORMATTED;
    if (r < 0)
        return r;
    if (ident.version != JOURNAL_FORMAT_VERSION) {
        (void)buf_printf(why, "format version %u, this program knows %u", ident.version, JOURNAL_FORMAT_VERSION);
        return -CV_FORMAT_TOO_NEW;
    }
    ret->cluster = ident.cluster;
    ret->node = ident.node;
    ret->incarnation = ident.incarnation;
    ret->created_ns = ident.created_ns;
    return 0;
}

static int load_snap(const struct journal_db *d, struct buf *why, struct journal_state *s)
{
    rocksdb_pinnableslice_t *slice cleanup(rocksdb_pinnableslice_destroy_p) = NULL;
    struct text value;
    int r = journal_db_get(d, JOURNAL_DEFAULT, JOURNAL_KEY_SNAP, strlen(JOURNAL_KEY_SNAP), &slice, &value);
    if (r == -ENOENT)
        return 0;
    struct journal_snap_row row;
    if (r == 0 && value.n >= sizeof(row) + 4) {
        memcpy(&row, value.p, sizeof(row));
        uint32_t crc = crc32c(crc32c(0, JOURNAL_KEY_SNAP, strlen(JOURNAL_KEY_SNAP)), value.p, value.n - 4);
        if (crc == get_le32(value.p + value.n - 4) && value.n == sizeof(row) + row.directory_size + 4 &&
            row.directory_size < sizeof(s->snap_directory)) {
            s->snap_index = row.index;
            memcpy(s->snap_directory, value.p + sizeof(row), row.directory_size);
            s->snap_directory[row.directory_size] = 0;
            return 0;
        }
    }
    (void)buf_printf(why, "row '" JOURNAL_KEY_SNAP "' is damaged");
    return -CV_LOG_DAMAGED;
}

static int load_runs(const struct journal_db *d, struct buf *why, struct journal_state *s)
{
    rocksdb_iterator_t *it cleanup(rocksdb_iter_destroy_p) =
        rocksdb_create_iterator_cf(d->db, d->scan, d->family[JOURNAL_DEFAULT]);
    size_t prefix = strlen(JOURNAL_KEY_RUN);
    for (rocksdb_iter_seek(it, JOURNAL_KEY_RUN, prefix); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_size, n;
        const char *key = rocksdb_iter_key(it, &key_size);
        const char *value = rocksdb_iter_value(it, &n);
        if (key_size < prefix || memcmp(key, JOURNAL_KEY_RUN, prefix) != 0)
            break;
        struct journal_run_row row;
        int r =
            key_size == JOURNAL_RUN_KEY ? journal_row_open(key, key_size, value, n, &row, sizeof(row)) : -CV_BAD_FORMAT;
        if (r < 0) {
            (void)buf_printf(why, "a row of the table of terms: %s", cv_error_text(r));
            return -CV_LOG_DAMAGED;
        }
        r = journal_state_add_run(s, get_be64(key + prefix), row.term);
        if (r < 0)
            return r;
    }
    char *error = NULL;
    rocksdb_iter_get_error(it, &error);
    return journal_db_error(error, "read the table of terms", why);
}

static int load_confs(const struct journal_db *d, struct buf *why, struct journal_state *s)
{
    rocksdb_iterator_t *it cleanup(rocksdb_iter_destroy_p) =
        rocksdb_create_iterator_cf(d->db, d->scan, d->family[JOURNAL_CONF]);
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_size, n;
        const char *key = rocksdb_iter_key(it, &key_size);
        const char *value = rocksdb_iter_value(it, &n);
        if (key_size != 8 || n < 4 || crc32c(crc32c(0, key, 8), value, n - 4) != get_le32(value + n - 4)) {
            (void)buf_printf(why, "a row of the table of configurations is damaged");
            return -CV_LOG_DAMAGED;
        }
        int r = journal_state_add_conf(s, get_be64(key));
        if (r < 0)
            return r;
    }
    char *error = NULL;
    rocksdb_iter_get_error(it, &error);
    return journal_db_error(error, "read the table of configurations", why);
}

/* The last entry; by now first, base and the tables are known. */
static int load_last(const struct journal_db *d, struct buf *why, struct journal_state *s)
{
    s->last = s->first - 1;
    s->last_term = s->base_term;
    s->last_chain = s->base_chain;
    rocksdb_iterator_t *it cleanup(rocksdb_iter_destroy_p) =
        rocksdb_create_iterator_cf(d->db, d->scan, d->family[JOURNAL_LOG]);
    rocksdb_iter_seek_to_last(it);
    if (rocksdb_iter_valid(it)) {
        size_t key_size, n;
        const char *key = rocksdb_iter_key(it, &key_size);
        const char *value = rocksdb_iter_value(it, &n);
        uint64_t index = key_size == 8 ? get_be64(key) : 0;
        struct journal_entry_head head;
        int r = index ? journal_entry_open(index, value, n, &head) : -CV_BAD_FORMAT;
        if (r < 0) {
            (void)buf_printf(why, "the last entry (%llu): %s", (unsigned long long)index, cv_error_text(r));
            return r == -CV_FORMAT_TOO_NEW ? r : -CV_LOG_DAMAGED;
        }
        if (index < s->first) { /* compaction deletes in the batch that moves first */
            (void)buf_printf(why, "entry %llu lies before the first retained, %llu", (unsigned long long)index,
                             (unsigned long long)s->first);
            return -CV_LOG_DAMAGED;
        }
        s->last = index;
        s->last_term = head.term;
        s->last_chain = head.chain;
    }
    char *error = NULL;
    rocksdb_iter_get_error(it, &error);
    return journal_db_error(error, "read the last entry", why);
}

/* Do the tables and the rows agree? */
static int cross_check(const struct journal_state *s, struct buf *why)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < s->run_count; i++) {
        if (s->runs[i].term <= before || (i > 0 && s->runs[i].first <= s->runs[i - 1].first)) {
            (void)buf_printf(why, "the table of terms does not ascend");
            return -CV_LOG_DAMAGED;
        }
        before = s->runs[i].term;
    }
    bool runs_fit = s->last < s->first ? s->run_count == 0
                                       : s->run_count > 0 && s->runs[0].first <= s->first &&
                                             s->runs[s->run_count - 1].first <= s->last &&
                                             s->runs[s->run_count - 1].term == s->last_term;
    if (!runs_fit) {
        (void)buf_printf(why, "the table of terms does not fit entries %llu to %llu", (unsigned long long)s->first,
                         (unsigned long long)s->last);
        return -CV_LOG_DAMAGED;
    }
    if (s->last_term > s->term) {
        (void)buf_printf(why, "the last entry is of term %llu, but the recorded term is %llu",
                         (unsigned long long)s->last_term, (unsigned long long)s->term);
        return -CV_LOG_DAMAGED;
    }
    if (s->conf_count > 0 && s->confs[s->conf_count - 1] > s->last) {
        (void)buf_printf(why, "a configuration at %llu lies beyond the last entry %llu",
                         (unsigned long long)s->confs[s->conf_count - 1], (unsigned long long)s->last);
        return -CV_LOG_DAMAGED;
    }
    return 0;
}

static int load(const struct journal_db *d, struct buf *why, struct journal_state *s)
{
    int r = journal_state_load_ident(d, why, s);
    if (r < 0)
        return r;
    struct journal_hs_row hs;
    r = load_row(d, JOURNAL_KEY_HS, &hs, sizeof(hs), why);
    if (r < 0) { /* written with ident, so it is always there */
        if (r == -ENOENT)
            (void)buf_printf(why, "term and vote are missing");
        return -CV_LOG_DAMAGED;
    }
    s->term = hs.term;
    s->vote = hs.vote;
    struct journal_first_row first = {.first = 1};
    r = load_row(d, JOURNAL_KEY_FIRST, &first, sizeof(first), why);
    if (r < 0 && r != -ENOENT)
        return r;
    s->first = first.first;
    s->base_term = first.base_term;
    s->base_chain = first.base_chain;
    struct journal_commit_row commit = {.commit = 0};
    r = load_row(d, JOURNAL_KEY_COMMIT, &commit, sizeof(commit), why);
    if (r < 0 && r != -ENOENT)
        return r;
    s->commit = commit.commit;
    struct journal_forced_row forced = {.incarnation = 0};
    r = load_row(d, JOURNAL_KEY_FORCED, &forced, sizeof(forced), why);
    if (r < 0 && r != -ENOENT)
        return r;
    s->forced_incarnation = forced.incarnation;
    s->forced_index = forced.index;
    if (s->first == 0) {
        (void)buf_printf(why, "row '" JOURNAL_KEY_FIRST "' is not possible");
        return -CV_LOG_DAMAGED;
    }
    if ((r = load_snap(d, why, s)) < 0 || (r = load_runs(d, why, s)) < 0 || (r = load_confs(d, why, s)) < 0 ||
        (r = load_last(d, why, s)) < 0)
        return r;
    return cross_check(s, why);
}

int journal_state_load(const struct journal_db *d, struct buf *why, struct journal_state *ret)
{
    struct journal_state s = {.first = 1};
    int r = load(d, why, &s);
    if (r < 0)
        journal_state_fini(&s);
    else
        *ret = s;
    return r;
}
