/* SPDX-License-Identifier: Apache-2.0 */
/* The log of the journal: what is damaged, or not ours, is refused. RocksDB: not for the thread sanitizer. */
#include "tests/unit/journal_log.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "raft/journal_mark.h"

/* A log of count synced entries whose write-ahead log still holds all of them. */
static void log_with_entries(const char *dir, uint32_t count)
{
    format_log(dir);
    struct journal_store *s = open_log(dir);
    for (uint32_t i = 0; i < count; i++)
        append(s, 1, 1, 1000);
    uint64_t due;
    ck_assert_int_eq(journal_store_idle(s, NS_PER_S * 3600, &due), 0); /* the mark is raised */
    s = journal_store_free(s);
}

TEST(a_flipped_byte_in_the_middle_of_the_write_ahead_log_is_refused)
{
    char wal[400];
    log_with_entries(test_dir("j"), 60);
    uint64_t size = newest_file(test_dir("j"), ".log", wal, sizeof(wal));
    flip_byte(wal, size / 2);
    copy_dir(test_dir("j"), test_dir("copy"));
    open_log_expect(test_dir("j"), -CV_LOG_DAMAGED, "must not vote");

    /* With RocksDB's own default the same log opens, without a word and without half of the entries. */
    rocksdb_options_t *o = rocksdb_options_create();
    const char *names[] = {"default", "log", "conf"};
    const rocksdb_options_t *options[] = {o, o, o};
    rocksdb_column_family_handle_t *family[3];
    char path[300], *error = NULL;
    snprintf(path, sizeof(path), "%s/log", test_dir("copy"));
    rocksdb_t *db = rocksdb_open_column_families(o, path, 3, names, options, family, &error);
    ck_assert_msg(error == NULL, "%s", error);
    rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
    rocksdb_iterator_t *it = rocksdb_create_iterator_cf(db, ro, family[1]);
    int count = 0;
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it))
        count++;
    ck_assert_int_ge(count, 20);
    ck_assert_int_le(count, 40);
    rocksdb_iter_destroy(it);
    rocksdb_readoptions_destroy(ro);
    for (int i = 0; i < 3; i++)
        rocksdb_column_family_handle_destroy(family[i]);
    rocksdb_close(db);
    rocksdb_options_destroy(o);
    /* What that left behind ends below durable.mark. */
    open_log_expect(test_dir("copy"), -CV_LOG_DAMAGED, "acknowledged entries are lost");
}

TEST(a_torn_tail_is_not_damage)
{
    char wal[400];
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    for (int i = 0; i < 10; i++)
        append(s, 1, 1, 1000); /* at time 0: the mark stays where it is */
    s = journal_store_free(s);
    uint64_t size = newest_file(dir, ".log", wal, sizeof(wal));
    for (uint64_t cut = 1; cut < 2500; cut += 311) {
        copy_dir(dir, test_dir("cut"));
        newest_file(test_dir("cut"), ".log", wal, sizeof(wal));
        ck_assert_int_eq(truncate(wal, (off_t)(size - cut)), 0);
        s = open_log(test_dir("cut"));
        ck_assert_uint_eq(journal_store_state(s)->last, 10 - cut / 1062); /* a record is an entry and some */
        check_whole(s);
        s = journal_store_free(s);
        char command[300];
        snprintf(command, sizeof(command), "rm -r %s", test_dir("cut"));
        ck_assert_int_eq(system(command), 0);
    }
}

TEST(a_log_that_ends_below_the_mark_is_refused)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    append(s, 1, 5, 100);
    s = journal_store_free(s);
    copy_dir(dir, test_dir("old"));
    s = open_log(dir);
    append(s, 1, 5, 100);
    uint64_t due;
    ck_assert_int_eq(journal_store_idle(s, 0, &due), 0);
    ck_assert_int_eq(journal_store_idle(s, NS_PER_S * 3600 * 24 * 365, &due), 0);
    ck_assert_uint_eq(due, UINT64_MAX);
    ck_assert_uint_eq(journal_store_mark(s)->index, 11);
    s = journal_store_free(s);
    char command[600];
    snprintf(command, sizeof(command), "rm -r %s/log && cp -a %s/log %s/log", dir, test_dir("old"), dir);
    ck_assert_int_eq(system(command), 0);
    open_log_expect(dir, -CV_LOG_DAMAGED, "acknowledged entries are lost");
    snprintf(command, sizeof(command), "rm %s/durable.mark", dir);
    ck_assert_int_eq(system(command), 0);
    open_log_expect(dir, -CV_LOG_DAMAGED, "durable.mark");
    snprintf(command, sizeof(command), "rm -r %s/log; cp %s/durable.mark %s", dir, test_dir("old"), dir);
    ck_assert_int_eq(system(command), 0);
    open_log_expect(dir, -CV_LOG_DAMAGED, "no log");
}

TEST(a_forgotten_vote_is_refused)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    append(s, 3, 5, 100);
    struct journal_mark_file mark;
    int fd = open(dir, O_DIRECTORY | O_RDONLY);
    ck_assert_int_eq(journal_mark_open(fd, TEST_NODE, false, &mark), 0);
    s = journal_store_free(s);
    ck_assert_int_eq(journal_mark_write(&mark, 3, 3, 3, TEST_NODE + 1), 0);
    open_log_expect(dir, -CV_LOG_DAMAGED, "term and vote");
    ck_assert_int_eq(journal_mark_write(&mark, 3, 3, 4, TEST_NODE), 0);
    open_log_expect(dir, -CV_LOG_DAMAGED, "term and vote");
    ck_assert_int_eq(journal_mark_write(&mark, 3, 2, 3, TEST_NODE), 0);
    open_log_expect(dir, -CV_LOG_DAMAGED, "is of term");
    ck_assert_int_eq(journal_mark_write(&mark, 3, 3, 3, TEST_NODE), 0);
    s = open_log(dir);
    s = journal_store_free(s);
    char path[300];
    snprintf(path, sizeof(path), "%s/durable.mark", dir);
    flip_byte(path, 30);
    open_log_expect(dir, -CV_LOG_DAMAGED, "durable.mark");
    flip_byte(path, 30);
    struct journal_mark_file other;
    ck_assert_int_eq(journal_mark_open(fd, TEST_NODE + 1, false, &other), -CV_LOG_DAMAGED);
    journal_mark_close(&mark);
    close(fd);
}

/* Change the database behind the store's back. */
static void meddle(const char *dir, void (*change)(struct journal_db *d))
{
    char path[300];
    snprintf(path, sizeof(path), "%s/log", dir);
    struct journal_db d;
    ck_assert_int_eq(journal_db_open(path, JOURNAL_DB_WRITE, 0, NULL, &d), 0);
    change(&d);
    journal_db_close(&d);
}

static void put(struct journal_db *d, enum journal_family family, const void *key, size_t key_size, const void *value,
                size_t n)
{
    char *error = NULL;
    rocksdb_put_cf(d->db, d->sync, d->family[family], key, key_size, value, n, &error);
    ck_assert_ptr_null(error);
}

static void put_entry(struct journal_db *d, uint64_t index, uint64_t chain, uint64_t term)
{
    uint8_t key[8], value[sizeof(struct journal_entry_head) + 3];
    put_be64(key, index);
    struct journal_entry_head head = {
        .type = RAFT_BATCH, .term = term, .chain = chain, .size = 3, .data_crc = crc32c(0, "abc", 3)};
    journal_entry_seal(index, &head);
    memcpy(value, &head, sizeof(head));
    memcpy(value + sizeof(head), "abc", 3);
    put(d, JOURNAL_LOG, key, 8, value, sizeof(value));
}

static void break_chain(struct journal_db *d)
{
    put_entry(d, 30, 1, 1);
}

static void break_term(struct journal_db *d)
{
    put_entry(d, 30, 1, 2);
}

static void make_gap(struct journal_db *d)
{
    uint8_t key[8];
    put_be64(key, 30);
    char *error = NULL;
    rocksdb_delete_cf(d->db, d->sync, d->family[JOURNAL_LOG], (char *)key, 8, &error);
    ck_assert_ptr_null(error);
}

static void damage_last(struct journal_db *d)
{
    uint8_t key[8];
    put_be64(key, 61);
    put(d, JOURNAL_LOG, key, 8, "short", 5);
}

static void lose_hs(struct journal_db *d)
{
    char *error = NULL;
    rocksdb_delete_cf(d->db, d->sync, d->family[JOURNAL_DEFAULT], "hs", 2, &error);
    ck_assert_ptr_null(error);
}

static void lose_runs(struct journal_db *d)
{
    char *error = NULL;
    rocksdb_delete_cf(d->db, d->sync, d->family[JOURNAL_DEFAULT], "run/\0\0\0\0\0\0\0\1", JOURNAL_RUN_KEY, &error);
    ck_assert_ptr_null(error);
}

static void newer_format(struct journal_db *d)
{
    struct journal_ident_row ident = {.version = 2, .cluster = test_cluster, .node = TEST_NODE};
    journal_row_seal("ident", 5, &ident, sizeof(ident));
    put(d, JOURNAL_DEFAULT, "ident", 5, &ident, sizeof(ident));
}

TEST(entries_and_rows_that_do_not_fit_together_are_refused)
{
    static const struct {
        void (*change)(struct journal_db *d);
        int expected;
        const char *text;
    } cases[] = {
        {break_chain, -CV_LOG_DAMAGED, "hash chain"},         {break_term, -CV_LOG_DAMAGED, "hash chain"},
        {make_gap, -CV_LOG_DAMAGED, "entries 30 to 30"},      {damage_last, -CV_LOG_DAMAGED, "the last entry (61)"},
        {lose_hs, -CV_LOG_DAMAGED, "term and vote are miss"}, {lose_runs, -CV_LOG_DAMAGED, "table of terms"},
        {newer_format, -CV_FORMAT_TOO_NEW, "version 2"},
    };
    log_with_entries(test_dir("good"), 60);
    for (size_t i = 0; i < array_size(cases); i++) {
        char name[20];
        snprintf(name, sizeof(name), "j%zu", i);
        copy_dir(test_dir("good"), test_dir(name));
        meddle(test_dir(name), cases[i].change);
        open_log_expect(test_dir(name), cases[i].expected, cases[i].text);
    }
}

TEST(any_flipped_byte_of_a_small_row_is_refused)
{
    log_with_entries(test_dir("good"), 3);
    struct journal_store *s = open_log(test_dir("good"));
    ck_assert_int_eq(journal_store_compact(s, 3), 0); /* so that there is a row `first` */
    s = journal_store_free(s);
    static const char *const keys[] = {"ident", "hs", "first"};
    char path[300];
    snprintf(path, sizeof(path), "%s/log", test_dir("good"));
    for (size_t k = 0; k < array_size(keys); k++) {
        struct journal_db d;
        ck_assert_int_eq(journal_db_open(path, JOURNAL_DB_WRITE, 0, NULL, &d), 0);
        rocksdb_pinnableslice_t *slice;
        struct text value;
        ck_assert_int_eq(journal_db_get(&d, JOURNAL_DEFAULT, keys[k], strlen(keys[k]), &slice, &value), 0);
        uint8_t row[64];
        ck_assert_uint_le(value.n, sizeof(row));
        memcpy(row, value.p, value.n);
        for (uint32_t i = 0; i < value.n; i++) {
            struct journal_state t;
            struct buf why = {0};
            row[i] ^= 1;
            put(&d, JOURNAL_DEFAULT, keys[k], strlen(keys[k]), row, value.n);
            ck_assert_int_eq(journal_state_load(&d, &why, &t), -CV_LOG_DAMAGED);
            row[i] ^= 1;
            put(&d, JOURNAL_DEFAULT, keys[k], strlen(keys[k]), row, value.n);
            buf_fini(&why);
        }
        rocksdb_pinnableslice_destroy(slice);
        journal_db_close(&d);
    }
    s = open_log(test_dir("good"));
    s = journal_store_free(s);
}

static void point_in_time(rocksdb_options_t *o)
{
    rocksdb_options_set_wal_recovery_mode(o, 2);
}

static void compress(rocksdb_options_t *o)
{
    rocksdb_options_set_compression(o, rocksdb_lz4_compression);
}

static void careless(rocksdb_options_t *o)
{
    rocksdb_options_set_paranoid_checks(o, 0);
}

TEST(other_settings_than_ours_refuse_the_start)
{
    static const struct {
        void (*change)(rocksdb_options_t *o);
        const char *text;
    } cases[] = {
        {point_in_time, "wal_recovery_mode"},
        {compress, "compression"},
        {careless, "paranoid_checks"},
    };
    const char *dir = test_dir("j");
    log_with_entries(dir, 3);
    for (size_t i = 0; i < array_size(cases); i++) {
        journal_db_tamper = cases[i].change;
        open_log_expect(dir, -CV_CONFIG_BAD, cases[i].text);
    }
    journal_db_tamper = NULL;
    struct journal_store *s = open_log(dir);
    s = journal_store_free(s);
}

TEST(a_read_only_open_changes_nothing)
{
    const char *dir = test_dir("j");
    log_with_entries(dir, 30);
    copy_dir(dir, test_dir("before"));
    struct journal_store_options options = {.read_only = true};
    struct journal_store *s = NULL;
    ck_assert_int_eq(journal_store_open(dir, &options, NULL, &s), 0);
    ck_assert_uint_eq(journal_store_state(s)->last, 31);
    check_whole(s);
    s = journal_store_free(s);
    char command[600];
    snprintf(command, sizeof(command), "diff -r --exclude=LOG* %s %s", dir, test_dir("before"));
    ck_assert_int_eq(system(command), 0);
}
