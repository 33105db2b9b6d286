/* SPDX-License-Identifier: Apache-2.0 */
/* Writing to the journal store: units into a batch, the batch to disk, durable.mark behind it. See journal_store.h. */
#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"
#include "raft/journal_store_internal.h"

enum { MARK_EVERY_NS = NS_PER_S };

/* ---- rows into the batch ---- */

static void put_row(struct journal_store *s, const char *key, void *row, size_t size)
{
    journal_row_seal(key, strlen(key), row, size);
    rocksdb_writebatch_put_cf(s->batch, s->db.family[JOURNAL_DEFAULT], key, strlen(key), row, size);
}

static void run_key(uint64_t first, uint8_t out[JOURNAL_RUN_KEY])
{
    memcpy(out, JOURNAL_KEY_RUN, JOURNAL_RUN_KEY - 8);
    put_be64(out + JOURNAL_RUN_KEY - 8, first);
}

static int put_run(struct journal_store *s, uint64_t first, uint64_t term)
{
    uint8_t key[JOURNAL_RUN_KEY];
    run_key(first, key);
    struct journal_run_row row = {.term = term};
    journal_row_seal(key, sizeof(key), &row, sizeof(row));
    rocksdb_writebatch_put_cf(s->batch, s->db.family[JOURNAL_DEFAULT], (char *)key, sizeof(key), (char *)&row,
                              sizeof(row));
    return journal_state_add_run(&s->state, first, term);
}

static void delete_run(struct journal_store *s, uint64_t first)
{
    uint8_t key[JOURNAL_RUN_KEY];
    run_key(first, key);
    rocksdb_writebatch_delete_cf(s->batch, s->db.family[JOURNAL_DEFAULT], (char *)key, sizeof(key));
}

static int put_conf(struct journal_store *s, uint64_t index, const uint8_t *data, size_t size)
{
    uint8_t key[8], crc[4];
    put_be64(key, index);
    put_le32(crc, crc32c(crc32c(0, key, sizeof(key)), data, size));
    const char *keys[] = {(char *)key}, *values[] = {(const char *)data, (char *)crc};
    const size_t key_sizes[] = {sizeof(key)}, value_sizes[] = {size, sizeof(crc)};
    rocksdb_writebatch_putv_cf(s->batch, s->db.family[JOURNAL_CONF], 1, keys, key_sizes, 2, values, value_sizes);
    if (s->state.conf_count > 0 && s->state.confs[s->state.conf_count - 1] >= index)
        return 0; /* a snapshot's configuration that the log has too */
    return journal_state_add_conf(&s->state, index);
}

static void delete_conf(struct journal_store *s, uint64_t index)
{
    uint8_t key[8];
    put_be64(key, index);
    rocksdb_writebatch_delete_cf(s->batch, s->db.family[JOURNAL_CONF], (char *)key, sizeof(key));
}

/* Entries from..below `to`. */
static void delete_entries(struct journal_store *s, uint64_t from, uint64_t to)
{
    uint8_t start[8], end[8];
    put_be64(start, from);
    put_be64(end, to);
    if (from < to)
        rocksdb_writebatch_delete_range_cf(s->batch, s->db.family[JOURNAL_LOG], (char *)start, sizeof(start),
                                           (char *)end, sizeof(end));
}

/* Head of an entry that is in the database already. */
static int read_head(struct journal_store *s, uint64_t index, struct journal_entry_head *ret)
{
    uint8_t key[8];
    put_be64(key, index);
    rocksdb_pinnableslice_t *slice;
    struct text value;
    int r = journal_db_get(&s->db, JOURNAL_LOG, key, sizeof(key), &slice, &value);
    if (r < 0)
        return r == -ENOENT ? -CV_LOG_DAMAGED : r;
    r = journal_entry_open(index, value.p, value.n, ret);
    rocksdb_pinnableslice_destroy(slice);
    return r;
}

/* ---- truncation, installation ---- */

/* Last entry from the tables and the database: after truncation. */
static int find_end(struct journal_store *s)
{
    struct journal_state *t = &s->state;
    t->last_term = t->base_term;
    t->last_chain = t->base_chain;
    if (t->last < t->first)
        return 0;
    struct journal_entry_head head;
    int r = read_head(s, t->last, &head);
    if (r == 0) {
        t->last_term = head.term;
        t->last_chain = head.chain;
    }
    return r;
}

static int truncate_log(struct journal_store *s, uint64_t from)
{
    struct journal_state *t = &s->state;
    if (from > t->last)
        return 0;
    from = max(from, t->first);
    /* The mark first: a crash in between leaves a log that is longer than the mark, which is fine. */
    if (s->mark.mark.index >= from) {
        int r = journal_mark_write(&s->mark, from - 1, journal_state_term(t, from - 1), s->mark.mark.term,
                                   s->mark.mark.vote);
        if (r < 0)
            return r;
    }
    delete_entries(s, from, t->last + 1);
    /* No entry is left: nor is a run, also one that begins before a snapshot that took away its first entries. */
    while (t->run_count > 0 && (t->runs[t->run_count - 1].first >= from || from == t->first))
        delete_run(s, t->runs[--t->run_count].first);
    while (t->conf_count > 0 && t->confs[t->conf_count - 1] >= from)
        delete_conf(s, t->confs[--t->conf_count]);
    t->last = from - 1;
    return find_end(s);
}

static void put_first(struct journal_store *s)
{
    struct journal_first_row row = {
        .first = s->state.first, .base_term = s->state.base_term, .base_chain = s->state.base_chain};
    put_row(s, JOURNAL_KEY_FIRST, &row, sizeof(row));
}

/* Entries before first are gone: drop the runs that end there, and all older configurations but two. */
static void trim_tables(struct journal_store *s)
{
    struct journal_state *t = &s->state;
    uint32_t n = 0;
    while (n < t->run_count && (t->last < t->first || (n + 1 < t->run_count && t->runs[n + 1].first <= t->first)))
        delete_run(s, t->runs[n++].first);
    t->run_count -= n;
    if (n)
        memmove(t->runs, t->runs + n, t->run_count * sizeof(t->runs[0]));
    n = 0;
    while (t->conf_count - n > 2 && t->confs[n] < t->first)
        delete_conf(s, t->confs[n++]);
    t->conf_count -= n;
    if (n)
        memmove(t->confs, t->confs + n, t->conf_count * sizeof(t->confs[0]));
}

/* The snapshot's configuration is the one up to its end. Ours there may be of entries that were never committed; those
 * behind it stay. */
static int install_conf(struct journal_store *s, const struct journal_install *in)
{
    struct journal_state *t = &s->state;
    uint32_t n = 0;
    while (n < t->conf_count && t->confs[n] <= in->index)
        delete_conf(s, t->confs[n++]);
    t->conf_count -= n;
    if (n)
        memmove(t->confs, t->confs + n, t->conf_count * sizeof(t->confs[0]));
    bool later = t->conf_count > 0;
    int r = put_conf(s, in->conf_index, in->conf, in->conf_size);
    if (r < 0 || !later)
        return r;
    r = journal_state_add_conf(t, in->conf_index); /* at the end; it belongs to the front */
    if (r < 0)
        return r;
    memmove(t->confs + 1, t->confs, (t->conf_count - 1) * sizeof(t->confs[0]));
    t->confs[0] = in->conf_index;
    return 0;
}

static int install(struct journal_store *s, const struct journal_install *in)
{
    struct journal_state *t = &s->state;
    assert(in->index >= t->first);
    delete_entries(s, 0, min(in->index, t->last) + 1);
    t->first = in->index + 1;
    t->base_term = in->term;
    t->base_chain = in->chain;
    if (t->last < t->first) {
        t->last = in->index;
        t->last_term = in->term;
        t->last_chain = in->chain;
    }
    put_first(s);
    size_t name = strlen(in->directory);
    uint8_t row[sizeof(struct journal_snap_row) + sizeof(t->snap_directory) + 4];
    if (name >= sizeof(t->snap_directory))
        return -ENAMETOOLONG;
    struct journal_snap_row head = {in->index,      in->term,          in->chain,
                                    in->conf_index, in->manifest_hash, .directory_size = (uint32_t)name};
    memcpy(row, &head, sizeof(head));
    memcpy(row + sizeof(head), in->directory, name);
    put_row(s, JOURNAL_KEY_SNAP, row, sizeof(head) + name + 4);
    t->snap_index = in->index;
    memcpy(t->snap_directory, in->directory, name + 1);
    int r = install_conf(s, in);
    if (r == 0)
        trim_tables(s);
    return r;
}

/* ---- units ---- */

static int append_entry(struct journal_store *s, struct journal_entry *e)
{
    struct journal_state *t = &s->state;
    assert(e->index == t->last + 1 && e->term >= t->last_term && e->size <= JOURNAL_ENTRY_SIZE_MAX);
    if (e->term != t->last_term || t->run_count == 0) {
        int r = put_run(s, e->index, e->term);
        if (r < 0)
            return r;
    }
    e->chain = journal_chain(t->last_chain, e->term, e->type, e->data, e->size);
    struct journal_entry_head head = {.type = e->type,
                                      .op_count = e->op_count,
                                      .term = e->term,
                                      .chain = e->chain,
                                      .size = e->size,
                                      .data_crc = e->data_crc};
    journal_entry_seal(e->index, &head);
    uint8_t key[8];
    put_be64(key, e->index);
    const char *keys[] = {(char *)key}, *values[] = {(char *)&head, (const char *)e->data};
    const size_t key_sizes[] = {sizeof(key)}, value_sizes[] = {sizeof(head), e->size};
    rocksdb_writebatch_putv_cf(s->batch, s->db.family[JOURNAL_LOG], 1, keys, key_sizes, e->size ? 2 : 1, values,
                               value_sizes);
    s->batch_bytes += sizeof(head) + e->size;
    t->last = e->index;
    t->last_term = e->term;
    t->last_chain = e->chain;
    return e->type == RAFT_CONF ? put_conf(s, e->index, e->data, e->size) : 0;
}

int journal_store_add(struct journal_store *s, const struct journal_unit *unit)
{
    assert(!s->read_only);
    struct journal_state *t = &s->state;
    int r;
    /* Reading the new end needs the database to have it, and durable.mark must go down first. */
    if ((unit->truncate_from || unit->install) && (r = journal_store_sync(s, clock_ns())) < 0)
        return r;
    assert(unit->term >= t->term);
    if (!s->hs_known || unit->term != t->term || unit->vote != t->vote) {
        struct journal_hs_row row = {.term = unit->term, .vote = unit->vote};
        put_row(s, JOURNAL_KEY_HS, &row, sizeof(row));
        t->term = unit->term;
        t->vote = unit->vote;
        s->hs_known = true;
    }
    if (unit->install && (r = install(s, unit->install)) < 0)
        return r;
    if (unit->truncate_from && (r = truncate_log(s, unit->truncate_from)) < 0)
        return r;
    for (uint32_t i = 0; i < unit->count; i++) {
        r = append_entry(s, unit->entries[i]);
        if (r < 0)
            return r;
    }
    t->commit = max(t->commit, unit->commit);
    return 0;
}

size_t journal_store_batch_bytes(const struct journal_store *s)
{
    return s->batch_bytes;
}

/* ---- to disk ---- */

static int raise_mark(struct journal_store *s, uint64_t now_ns)
{
    const struct journal_state *t = &s->state;
    s->marked_ns = now_ns;
    s->mark_late = false;
    return journal_mark_write(&s->mark, t->last, t->last_term, t->term, t->vote);
}

int journal_store_sync(struct journal_store *s, uint64_t now_ns)
{
    if (rocksdb_writebatch_count(s->batch) == 0)
        return 0;
    if (s->state.commit != s->hint) { /* rides along, never alone */
        struct journal_commit_row row = {.commit = s->state.commit};
        put_row(s, JOURNAL_KEY_COMMIT, &row, sizeof(row));
        s->hint = s->state.commit;
    }
    char *error = NULL;
    rocksdb_write(s->db.db, s->db.sync, s->batch, &error);
    int r = journal_db_error(error, "write", NULL);
    if (r < 0)
        return r;
    rocksdb_writebatch_clear(s->batch);
    s->batch_bytes = 0;
    s->mark_late = true;
    return now_ns >= s->marked_ns + MARK_EVERY_NS ? raise_mark(s, now_ns) : 0;
}

int journal_store_idle(struct journal_store *s, uint64_t now_ns, uint64_t *ret_due_ns)
{
    *ret_due_ns = UINT64_MAX;
    if (!s->mark_late)
        return 0;
    if (now_ns >= s->marked_ns + MARK_EVERY_NS)
        return raise_mark(s, now_ns);
    *ret_due_ns = s->marked_ns + MARK_EVERY_NS;
    return 0;
}

int journal_store_compact(struct journal_store *s, uint64_t first)
{
    struct journal_state *t = &s->state;
    assert(!s->read_only && rocksdb_writebatch_count(s->batch) == 0);
    if (first > t->last + 1)
        return -EINVAL;
    if (first <= t->first)
        return 0;
    struct journal_entry_head head;
    int r = read_head(s, first - 1, &head);
    if (r < 0)
        return r;
    /* From 0, not from the old first: deleting files may take away an older range deletion while a file that it
     * covered, and that reaches beyond `first`, stays. */
    delete_entries(s, 0, first);
    t->first = first;
    t->base_term = head.term;
    t->base_chain = head.chain;
    put_first(s);
    trim_tables(s);
    /* Deleting files is not undone by a crash, so `first` must be on disk before. */
    r = journal_store_sync(s, clock_ns());
    if (r < 0)
        return r;
    uint8_t start[8] = {0}, end[8];
    put_be64(end, first - 1); /* inclusive */
    char *error = NULL;
    rocksdb_delete_file_in_range_cf(s->db.db, s->db.family[JOURNAL_LOG], (char *)start, sizeof(start), (char *)end,
                                    sizeof(end), &error);
    return journal_db_error(error, "delete old files", NULL);
}
