/* SPDX-License-Identifier: Apache-2.0 */
/* The check of entries against their checksums, the chain, each other and the table of terms: journal_state.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "raft/journal_state.h"

DEFINE_CLEANUP(rocksdb_iterator_t *, rocksdb_iter_destroy)

static __attribute__((format(printf, 3, 4))) void problem(struct journal_check *c, uint64_t index, const char *format,
                                                          ...)
{
    if (!c->first_bad || index < c->first_bad)
        c->first_bad = index;
    c->problems++;
    if (!c->problem)
        return;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    c->problem(c->arg, text);
}

static bool enough(const struct journal_check *c)
{
    return c->problems_max && c->problems >= c->problems_max;
}

/* The chain of the entry before from, which is not checked itself. */
static int chain_before(const struct journal_db *d, const struct journal_state *s, uint64_t from, uint64_t *ret)
{
    if (from == s->first) {
        *ret = s->base_chain;
        return 0;
    }
    uint8_t key[8];
    put_be64(key, from - 1);
    rocksdb_pinnableslice_t *slice;
    struct text value;
    int r = journal_db_get(d, JOURNAL_LOG, key, sizeof(key), &slice, &value);
    if (r < 0)
        return r;
    struct journal_entry_head head;
    r = journal_entry_open(from - 1, value.p, value.n, &head);
    rocksdb_pinnableslice_destroy(slice);
    if (r == 0)
        *ret = head.chain;
    return r;
}

/* One entry. chain: of the entry before, moved on. known: the chain before is known. */
static int check_entry(struct journal_check *c, const struct journal_state *s, uint64_t index, const char *value,
                       size_t n, bool known, uint64_t *chain)
{
    struct journal_entry_head head;
    int r = journal_entry_open(index, value, n, &head);
    if (r < 0) {
        problem(c, index, "entry %llu: %s", (unsigned long long)index, cv_error_text(r));
        return r == -CV_FORMAT_TOO_NEW ? r : -CV_LOG_DAMAGED;
    }
    if (known && journal_chain(*chain, head.term, head.type, value + sizeof(head), head.size) != head.chain)
        problem(c, index, "entry %llu does not follow the one before it (hash chain)", (unsigned long long)index);
    if (journal_state_term(s, index) != head.term)
        problem(c, index, "entry %llu is of term %llu, the table of terms says %llu", (unsigned long long)index,
                (unsigned long long)head.term, (unsigned long long)journal_state_term(s, index));
    c->entries++;
    c->bytes += head.size;
    c->operations += head.op_count;
    c->by_type[head.type]++;
    *chain = head.chain;
    return 0;
}

int journal_check_entries(const struct journal_db *d, const struct journal_state *s, uint64_t from,
                          struct journal_check *c)
{
    uint64_t expected = from, chain = 0;
    int r = chain_before(d, s, from, &chain);
    bool known = r == 0;
    if (r < 0 && from <= s->last)
        problem(c, from - 1, "entry %llu: %s", (unsigned long long)(from - 1), cv_error_text(r));

    rocksdb_iterator_t *it cleanup(rocksdb_iter_destroy_p) =
        rocksdb_create_iterator_cf(d->db, d->scan, d->family[JOURNAL_LOG]);
    uint8_t start[8];
    put_be64(start, from);
    rocksdb_iter_seek(it, (const char *)start, sizeof(start));
    for (; rocksdb_iter_valid(it) && !enough(c); rocksdb_iter_next(it)) {
        size_t key_size, n;
        const char *key = rocksdb_iter_key(it, &key_size);
        const char *value = rocksdb_iter_value(it, &n);
        if (key_size != 8) {
            problem(c, expected, "a key of %zu bytes behind entry %llu", key_size, (unsigned long long)expected - 1);
            continue;
        }
        uint64_t index = get_be64(key);
        if (index != expected) {
            problem(c, expected, "entries %llu to %llu are missing", (unsigned long long)expected,
                    (unsigned long long)index - 1);
            known = false;
        }
        r = check_entry(c, s, index, value, n, known, &chain);
        if (r == -CV_FORMAT_TOO_NEW)
            return r;
        known = r == 0;
        expected = index + 1;
    }
    char *error = NULL;
    rocksdb_iter_get_error(it, &error);
    if (error) {
        problem(c, expected, "entry %llu cannot be read: %s", (unsigned long long)expected, error);
        rocksdb_free(error);
    } else if (!enough(c) && expected != s->last + 1) {
        problem(c, expected, "entries %llu to %llu are missing", (unsigned long long)expected,
                (unsigned long long)s->last);
    }
    return c->problems ? -CV_LOG_DAMAGED : 0;
}

uint64_t journal_check_tail_from(const struct journal_db *d, const struct journal_state *s, uint64_t bytes)
{
    rocksdb_iterator_t *it cleanup(rocksdb_iter_destroy_p) =
        rocksdb_create_iterator_cf(d->db, d->scan, d->family[JOURNAL_LOG]);
    uint64_t from = s->last + 1, seen = 0;
    for (rocksdb_iter_seek_to_last(it); rocksdb_iter_valid(it) && seen < bytes; rocksdb_iter_prev(it)) {
        size_t key_size, n;
        const char *key = rocksdb_iter_key(it, &key_size);
        (void)rocksdb_iter_value(it, &n);
        if (key_size != 8 || get_be64(key) < s->first)
            break;
        from = get_be64(key);
        seen += n;
    }
    return from;
}
