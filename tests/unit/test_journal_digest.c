/* SPDX-License-Identifier: Apache-2.0 */
/* Digests of ranges of a log, and what they find, on hand-made logs. RocksDB: not for the thread sanitizer. */
#include "tests/unit/journal_log.h"

#include <errno.h>

#include "base/bytes.h"
#include "raft/journal_digest.h"

static int digest(struct journal_store *s, uint64_t from, uint64_t to, struct journal_digest *ret)
{
    const struct journal_state *t = journal_store_state(s);
    *ret = (struct journal_digest){.from = from, .to = to, .first = t->first, .last = t->last, .commit = t->last - 1};
    return journal_digest_read(s, ret);
}

static struct journal_store *make_log(const char *dir)
{
    format_log(dir);
    struct journal_store *s = open_log(dir);
    append(s, 1, 100, 200); /* behind entry 1, the configuration */
    append(s, 2, 2000, 20);
    return s;
}

/* Another payload byte in an entry, under a right checksum. */
static void forge(struct journal_store *s, uint64_t index)
{
    const struct journal_db *d = journal_store_db(s);
    struct journal_read read = {.count = 0};
    ck_assert_int_eq(journal_store_read(s, index, index, 1, &read), 0);
    const struct journal_entry *e = &read.entries[0];
    struct journal_entry_head head = {.type = e->type, .term = e->term, .chain = e->chain, .size = e->size};
    uint8_t key[8], row[sizeof(head) + 300];
    memcpy(row + sizeof(head), e->data, e->size);
    row[sizeof(head)] ^= 1;
    head.data_crc = crc32c(0, row + sizeof(head), e->size);
    journal_entry_seal(index, &head);
    memcpy(row, &head, sizeof(head));
    put_be64(key, index);
    char *error = NULL;
    rocksdb_put_cf(d->db, d->sync, d->family[JOURNAL_LOG], (char *)key, sizeof(key), (char *)row,
                   sizeof(head) + e->size, &error);
    ck_assert_ptr_null(error);
    journal_read_fini(&read);
}

TEST(equal_logs_come_to_the_same_and_others_do_not)
{
    struct journal_store *a = make_log(test_dir("a")), *b = make_log(test_dir("b"));
    struct journal_digest x, y;
    ck_assert_int_eq(digest(a, 5, 90, &x), 0);
    ck_assert_int_eq(digest(b, 5, 90, &y), 0);
    ck_assert_uint_eq(x.covered, 90);
    ck_assert_uint_eq(x.damaged, 0);
    ck_assert_uint_eq(x.digest, y.digest);
    ck_assert_uint_eq(x.before, y.before);
    ck_assert_int_eq(digest(b, 5, 91, &y), 0);
    ck_assert_uint_ne(x.digest, y.digest);
    ck_assert_int_eq(digest(b, 6, 90, &y), 0);
    ck_assert_uint_ne(x.digest, y.digest);
    journal_store_free(a);
    journal_store_free(b);
}

TEST(a_digest_has_bounds)
{
    struct journal_store *s = make_log(test_dir("a"));
    struct journal_digest d;
    ck_assert_int_eq(digest(s, 0, 1, &d), 0); /* only where the log stands */
    ck_assert_uint_eq(d.covered, 0);
    ck_assert_uint_eq(d.last, 2101);
    ck_assert_int_eq(digest(s, 10, UINT64_MAX, &d), 0);
    ck_assert_uint_eq(d.covered, 10 + DIGEST_ENTRIES_MAX - 1);
    ck_assert_int_eq(digest(s, 2000, UINT64_MAX, &d), 0);
    ck_assert_uint_eq(d.covered, 2100); /* the last one is not committed */
    ck_assert_int_eq(digest(s, 2101, 2101, &d), -ENOENT);
    ck_assert_int_eq(digest(s, 9999, 9999, &d), -ENOENT);
    ck_assert_int_eq(digest(s, 60, 50, &d), -ENOENT); /* what a stranger may ask */
    ck_assert_int_eq(journal_store_compact(s, 50), 0);
    ck_assert_int_eq(digest(s, 49, 60, &d), -ENOENT);
    ck_assert_int_eq(digest(s, 50, 60, &d), 0);
    ck_assert_uint_eq(d.covered, 60);
    journal_store_free(s);
}

TEST(an_entry_that_was_changed_later_is_damaged_whatever_its_checksum_says)
{
    struct journal_store *s = make_log(test_dir("a"));
    struct journal_digest d;
    forge(s, 40);
    ck_assert_int_eq(digest(s, 2, 100, &d), 0);
    ck_assert_uint_eq(d.damaged, 40);
    ck_assert_uint_eq(d.covered, 39);
    ck_assert_int_eq(digest(s, 40, 40, &d), 0);
    ck_assert_uint_eq(d.damaged, 40);
    ck_assert_int_eq(digest(s, 41, 100, &d), 0); /* what follows it is as it was */
    ck_assert_uint_eq(d.damaged, 0);
    journal_store_free(s);
}
