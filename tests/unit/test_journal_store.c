/* SPDX-License-Identifier: Apache-2.0 */
/* The log of the journal: formats, appending, truncation, compaction, and everything that must be refused.
 * RocksDB: not for the thread sanitizer. */
#include "tests/unit/journal_log.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "raft/journal_mark.h"

/* ---- formats ---- */

static void expect_bytes(const void *p, size_t n, const char *hex)
{
    char out[400];
    ck_assert_uint_le(n * 2 + 1, sizeof(out));
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", ((const uint8_t *)p)[i]);
    ck_assert_str_eq(out, hex);
}

TEST(rows_of_the_log_have_their_golden_bytes)
{
    struct journal_hs_row hs = {.term = 5, .vote = 0x1122334455667788};
    journal_row_seal("hs", 2, &hs, sizeof(hs));
    expect_bytes(&hs, sizeof(hs),
                 "05000000000000008877665544332211"
                 "ef2f28f6");
    struct journal_first_row first = {.first = 100, .base_term = 3, .base_chain = 0xabcdef};
    journal_row_seal("first", 5, &first, sizeof(first));
    expect_bytes(&first, sizeof(first),
                 "64000000000000000300000000000000efcdab0000000000"
                 "4d2774cb");
    struct journal_commit_row commit = {.commit = 99};
    journal_row_seal("commit", 6, &commit, sizeof(commit));
    expect_bytes(&commit, sizeof(commit),
                 "6300000000000000"
                 "36b9e303");
    struct journal_run_row run = {.term = 9};
    journal_row_seal("run/\0\0\0\0\0\0\0\1", JOURNAL_RUN_KEY, &run, sizeof(run));
    expect_bytes(&run, sizeof(run),
                 "0900000000000000"
                 "bf93d3dd");
    struct journal_ident_row ident = {
        .version = 1, .incarnation = 2, .cluster = test_cluster, .node = 7, .created_ns = 8};
    journal_row_seal("ident", 5, &ident, sizeof(ident));
    expect_bytes(&ident, sizeof(ident),
                 "01000000"
                 "02000000"
                 "0102030405060708090a0b0c0d0e0f10"
                 "0700000000000000"
                 "0800000000000000"
                 "00000000"
                 "e61b147e");
    struct journal_entry_head head = {
        .type = RAFT_BATCH, .op_count = 2, .term = 3, .size = 5, .data_crc = crc32c(0, "hello", 5)};
    head.chain = journal_chain(0x1234, 3, RAFT_BATCH, "hello", 5);
    journal_entry_seal(17, &head);
    expect_bytes(&head, sizeof(head),
                 "01020000"
                 "02000000"
                 "0300000000000000"
                 "dc8b40ae67814f19050000004cbb719af438c4dc");
}

TEST(an_entry_is_refused_with_any_bit_changed)
{
    uint8_t value[sizeof(struct journal_entry_head) + 5];
    struct journal_entry_head head = {.type = RAFT_BATCH,
                                      .op_count = 2,
                                      .term = 3,
                                      .size = 5,
                                      .data_crc = crc32c(0, "hello", 5)},
                              out;
    journal_entry_seal(17, &head);
    memcpy(value, &head, sizeof(head));
    memcpy(value + sizeof(head), "hello", 5);
    ck_assert_int_eq(journal_entry_open(17, value, sizeof(value), &out), 0);
    ck_assert_int_eq(memcmp(&head, &out, sizeof(head)), 0);
    ck_assert_int_lt(journal_entry_open(18, value, sizeof(value), &out), 0);
    ck_assert_int_lt(journal_entry_open(17, value, sizeof(value) - 1, &out), 0);
    for (size_t bit = 0; bit < sizeof(value) * 8; bit++) {
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_int_lt(journal_entry_open(17, value, sizeof(value), &out), 0);
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    head.version = 2;
    head.head_crc = 0;
    uint8_t key[8];
    put_be64(key, 17);
    head.head_crc = crc32c(crc32c(0, key, 8), &head, offsetof(struct journal_entry_head, head_crc));
    memcpy(value, &head, sizeof(head));
    ck_assert_int_eq(journal_entry_open(17, value, sizeof(value), &out), -CV_FORMAT_TOO_NEW);
}

/* ---- life ---- */

TEST(a_log_is_never_formatted_twice_nor_opened_unformatted)
{
    const char *dir = test_dir("j");
    open_log_expect(dir, -CV_NOT_FORMATTED, "cv-journal format");
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    open_log_expect(dir, -CV_NOT_FORMATTED, NULL);
    format_log(dir);
    struct journal_format format = {.cluster = test_cluster};
    struct buf why = {0};
    ck_assert_int_eq(journal_store_format(dir, &format, &why), -CV_ALREADY_FORMATTED);
    buf_fini(&why);
    struct journal_store *s = open_log(dir);
    const struct journal_state *t = journal_store_state(s);
    ck_assert(uuid_equal(t->cluster, test_cluster));
    ck_assert_uint_eq(t->node, TEST_NODE);
    ck_assert_uint_eq(t->last, 1);
    ck_assert_uint_eq(t->term, 1);
    ck_assert_uint_eq(t->conf_count, 1);
    struct buf conf = {0};
    ck_assert_int_eq(journal_store_conf(s, 1, &conf), 0);
    ck_assert_uint_eq(conf.n, 8);
    buf_fini(&conf);
    open_log_expect(dir, -CV_LOCKED, "stop it first");
    ck_assert_int_eq(journal_store_format(dir, &format, NULL), -CV_LOCKED);
    s = journal_store_free(s);
}

TEST(a_joining_node_has_an_empty_log_of_term_zero)
{
    const char *dir = test_dir("j");
    struct journal_format format = {.cluster = test_cluster};
    ck_assert_int_eq(journal_store_format(dir, &format, NULL), 0);
    struct journal_store *s = open_log(dir);
    const struct journal_state *t = journal_store_state(s);
    ck_assert_uint_ne(t->node, 0);
    ck_assert_uint_eq(t->last, 0);
    ck_assert_uint_eq(t->first, 1);
    ck_assert_uint_eq(t->term, 0);
    ck_assert_uint_eq(t->conf_count + t->run_count, 0);
    s = journal_store_free(s);
}

/* Everything in first..last reads back; entry 1 is the founding configuration. */
static void check_whole(const struct journal_store *s)
{
    const struct journal_state *t = journal_store_state(s);
    struct journal_read read = {.count = 0};
    for (uint64_t at = max(t->first, (uint64_t)2); at <= t->last; at += read.count) {
        ck_assert_int_eq(journal_store_read(s, at, t->last, 1 << 20, &read), 0);
        for (uint32_t i = 0; i < read.count; i++)
            check_entry_data(&read.entries[i], at + i, journal_state_term(t, at + i));
    }
    journal_read_fini(&read);
    struct journal_check check = {.problem = NULL};
    ck_assert_int_eq(journal_check_entries(journal_store_db(s), t, t->first, &check), 0);
    ck_assert_uint_eq(check.entries, t->last + 1 - t->first);
}

TEST(what_was_appended_is_there_after_a_restart)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    append(s, 2, 10, 100);
    append(s, 2, 1, 0);
    append(s, 5, 3, 70000);
    ck_assert_int_eq(add_entries(s, 5, 2, 10), 0);
    ck_assert_int_eq(add_entries(s, 7, 2, 10), 0);
    ck_assert_uint_gt(journal_store_batch_bytes(s), 0);
    ck_assert_int_eq(journal_store_sync(s, 0), 0);
    ck_assert_uint_eq(journal_store_batch_bytes(s), 0);
    check_whole(s);
    uint64_t chain = journal_store_state(s)->last_chain;
    s = journal_store_free(s);
    s = open_log(dir);
    const struct journal_state *t = journal_store_state(s);
    ck_assert_uint_eq(t->last, 19);
    ck_assert_uint_eq(t->last_chain, chain);
    ck_assert_uint_eq(t->term, 7);
    ck_assert_uint_eq(t->vote, TEST_NODE);
    ck_assert_uint_eq(t->run_count, 4);
    ck_assert_uint_eq(t->runs[2].first, 13);
    ck_assert_uint_eq(t->runs[2].term, 5);
    check_whole(s);
    s = journal_store_free(s);
}

TEST(the_commit_hint_rides_along_and_never_goes_back)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    struct journal_unit unit = {.term = 1, .commit = 1};
    ck_assert_int_eq(journal_store_add(s, &unit), 0);
    ck_assert_int_eq(journal_store_sync(s, 0), 0); /* alone: not written */
    s = journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->commit, 0);
    ck_assert_int_eq(journal_store_add(s, &unit), 0);
    append(s, 1, 1, 10);
    s = journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->commit, 1);
    s = journal_store_free(s);
}

/* Replace the log from `from` on by one entry of term. */
static void replace(struct journal_store *s, uint64_t from, uint64_t term, uint8_t type)
{
    uint8_t data[50];
    struct journal_entry e, *list[] = {&e};
    make_entry(&e, data, from, term, sizeof(data));
    e.type = type;
    struct journal_unit unit = {.term = term, .vote = 0, .truncate_from = from, .entries = list, .count = 1};
    ck_assert_int_eq(journal_store_add(s, &unit), 0);
    ck_assert_int_eq(journal_store_sync(s, 0), 0);
}

TEST(a_truncated_log_takes_its_terms_and_configurations_with_it)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    append(s, 2, 10, 100); /* 2..11 */
    replace(s, 12, 3, RAFT_CONF);
    append(s, 4, 5, 100); /* 13..17 */
    ck_assert_uint_eq(journal_store_state(s)->conf_count, 2);
    uint64_t marked = journal_store_mark(s)->index;
    ck_assert_int_eq(journal_store_sync(s, clock_ns()), 0);
    ck_assert_int_eq(add_entries(s, 4, 5, 100), 0); /* 18..22, not yet synced when the truncation comes */
    replace(s, 8, 6, RAFT_BATCH);
    ck_assert_uint_le(journal_store_mark(s)->index, 7);
    ck_assert_uint_ge(marked, 1);
    for (int pass = 0; pass < 2; pass++) {
        const struct journal_state *t = journal_store_state(s);
        ck_assert_uint_eq(t->last, 8);
        ck_assert_uint_eq(t->last_term, 6);
        ck_assert_uint_eq(t->conf_count, 1);
        ck_assert_uint_eq(t->run_count, 3);
        ck_assert_uint_eq(journal_state_term(t, 7), 2);
        check_whole(s);
        s = journal_store_free(s);
        s = open_log(dir);
    }
    append(s, 6, 20, 100);
    check_whole(s);
    replace(s, 2, 7, RAFT_BATCH);
    check_whole(s);
    s = journal_store_free(s);
    s = open_log(dir);
    check_whole(s);
    s = journal_store_free(s);
}

TEST(entries_that_were_added_and_not_yet_synced_can_be_truncated)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    ck_assert_int_eq(add_entries(s, 1, 10, 100), 0); /* 2..11 */
    replace(s, 6, 2, RAFT_BATCH);
    ck_assert_uint_eq(journal_store_state(s)->last, 6);
    check_whole(s);
    s = journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->last, 6);
    check_whole(s);
    s = journal_store_free(s);
}

TEST(a_vote_is_kept_also_without_a_new_term)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_unit units[] = {{.term = 4}, {.term = 4, .vote = 9}, {.term = 5}};
    static const uint64_t votes[] = {0, 9, 0};
    for (size_t i = 0; i < array_size(units); i++) {
        struct journal_store *s = open_log(dir);
        ck_assert_int_eq(journal_store_add(s, &units[i]), 0);
        ck_assert_int_eq(journal_store_sync(s, 0), 0);
        s = journal_store_free(s);
        s = open_log(dir);
        ck_assert_uint_eq(journal_store_state(s)->term, units[i].term);
        ck_assert_uint_eq(journal_store_state(s)->vote, votes[i]);
        s = journal_store_free(s);
    }
}

TEST(compaction_forgets_the_beginning_and_gives_its_space_back)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store_options options = {.memtable_bytes = 1 << 20};
    struct journal_store *s = NULL;
    ck_assert_int_eq(journal_store_open(dir, &options, NULL, &s), 0);
    replace(s, 2, 2, RAFT_CONF);
    replace(s, 3, 2, RAFT_CONF);
    for (int i = 0; i < 40; i++)
        append(s, 3 + (uint64_t)i / 10, 32, 16000);
    uint64_t full = journal_store_bytes(s), last = journal_store_state(s)->last;
    ck_assert_uint_gt(full, 18 << 20);
    ck_assert_int_eq(journal_store_compact(s, last + 2), -EINVAL);
    ck_assert_int_eq(journal_store_compact(s, last - 100), 0);
    ck_assert_uint_lt(journal_store_bytes(s), full / 3);
    const struct journal_state *t = journal_store_state(s);
    ck_assert_uint_eq(t->conf_count, 2);
    ck_assert_uint_eq(t->run_count, 1);
    struct journal_read read = {.count = 0};
    ck_assert_int_eq(journal_store_read(s, last - 101, last, 1000, &read), -ENOENT);
    ck_assert_int_eq(journal_store_read(s, last + 1, last + 1, 1000, &read), -ENOENT);
    journal_read_fini(&read);
    check_whole(s);
    s = journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->first, last - 100);
    ck_assert_uint_eq(journal_state_term(journal_store_state(s), last - 101), 6);
    check_whole(s);
    append(s, 9, 10, 100);
    ck_assert_int_eq(journal_store_compact(s, last + 11), 0); /* all of it */
    ck_assert_uint_eq(journal_store_state(s)->last, last + 10);
    append(s, 10, 3, 100);
    s = journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->last, last + 13);
    ck_assert_uint_eq(journal_store_state(s)->run_count, 1);
    check_whole(s);
    s = journal_store_free(s);
}

TEST(installing_a_snapshot_replaces_the_log_before_it)
{
    const char *dir = test_dir("j");
    format_log(dir);
    struct journal_store *s = open_log(dir);
    append(s, 2, 20, 100); /* 2..21 */
    struct journal_install in = {.index = 500,
                                 .term = 4,
                                 .chain = 0x99,
                                 .conf_index = 400,
                                 .conf = (uint8_t *)"conf",
                                 .conf_size = 4,
                                 .directory = "meta-500-1",
                                 .manifest_hash = 77};
    struct journal_unit unit = {.term = 5, .install = &in};
    ck_assert_int_eq(journal_store_add(s, &unit), 0);
    append(s, 5, 2, 100);
    for (int pass = 0; pass < 2; pass++) {
        const struct journal_state *t = journal_store_state(s);
        ck_assert_uint_eq(t->first, 501);
        ck_assert_uint_eq(t->last, 502);
        ck_assert_uint_eq(t->base_term, 4);
        ck_assert_uint_eq(t->base_chain, 0x99);
        ck_assert_str_eq(t->snap_directory, "meta-500-1");
        ck_assert_uint_eq(t->snap_index, 500);
        ck_assert_uint_eq(t->conf_count, 1); /* the log's own, at 1, is gone with its entry */
        ck_assert_uint_eq(t->confs[0], 400);
        struct buf conf = {0};
        ck_assert_int_eq(journal_store_conf(s, 400, &conf), 0);
        ck_assert_int_eq(memcmp(conf.p, "conf", 4), 0);
        buf_fini(&conf);
        check_whole(s);
        s = journal_store_free(s);
        s = open_log(dir);
    }
    /* One that the log reaches beyond keeps the rest. */
    append(s, 5, 10, 100);
    in.index = 505;
    in.term = 5;
    struct journal_read read = {.count = 0};
    ck_assert_int_eq(journal_store_read(s, 505, 505, 1000, &read), 0);
    in.chain = read.entries[0].chain;
    journal_read_fini(&read);
    ck_assert_int_eq(journal_store_add(s, &unit), 0);
    ck_assert_int_eq(journal_store_sync(s, 0), 0);
    s = journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->first, 506);
    ck_assert_uint_eq(journal_store_state(s)->last, 512);
    check_whole(s);
    s = journal_store_free(s);
}

/* ---- refusals ---- */

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

/* ---- crashes ---- */

/* Child: append, tell the parent through fd what is on disk, for ever. */
static _Noreturn void append_for_ever(const char *dir, int fd, uint64_t seed)
{
    struct prng p = {seed};
    struct journal_store *s = NULL;
    struct journal_store_options options = {.memtable_bytes = 1 << 20}; /* many flushes */
    if (journal_store_open(dir, &options, NULL, &s) < 0)
        _exit(1);
    for (;;) {
        const struct journal_state *t = journal_store_state(s);
        uint64_t term = t->term + (prng_below(&p, 50) == 0);
        if (prng_below(&p, 30) == 0 && t->last > t->first + 4) {
            /* Only what was never reported may be truncated: report -1 first. */
            uint64_t lower[2] = {t->last - 3, 0};
            if (write(fd, lower, sizeof(lower)) != sizeof(lower))
                _exit(1);
            replace(s, t->last - 2, term + 1, RAFT_BATCH);
        } else if (prng_below(&p, 200) == 0) {
            if (journal_store_compact(s, t->first + (t->last - t->first) / 2) < 0)
                _exit(1);
        } else {
            for (uint32_t i = prng_below(&p, 4); i != UINT32_MAX; i--) {
                if (add_entries(s, term, 1 + prng_below(&p, 5), prng_below(&p, 9000)) < 0)
                    _exit(1);
            }
            if (journal_store_sync(s, clock_ns()) < 0)
                _exit(1);
        }
        uint64_t durable[2] = {t->last, t->last_chain};
        if (write(fd, durable, sizeof(durable)) != sizeof(durable))
            _exit(1);
    }
}

/* RocksDB does not survive a fork, so everything that uses it in these tests is a child of its own. */
static void in_child(void (*fn)(void *arg), void *arg)
{
    pid_t child = fork();
    if (child == 0) {
        fn(arg);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "see above");
}

static void format_child(void *arg)
{
    format_log(arg);
}

static uint64_t reported[2];

static void check_child(void *dir)
{
    struct journal_store *s = open_log(dir);
    ck_assert_uint_ge(journal_store_state(s)->last, reported[0]);
    if (reported[1] && reported[0] >= journal_store_state(s)->first) {
        struct journal_read back = {.count = 0};
        ck_assert_int_eq(journal_store_read(s, reported[0], reported[0], 1, &back), 0);
        ck_assert_uint_eq(back.entries[0].chain, reported[1]);
        journal_read_fini(&back);
    }
    check_whole(s);
    s = journal_store_free(s);
}

/* Start a writer, kill it after stop_at reports, note the last one. Returns how many came. */
static uint32_t kill_writer(char *dir, uint64_t seed, uint32_t stop_at)
{
    int fd[2], status;
    ck_assert_int_eq(pipe2(fd, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0)
        append_for_ever(dir, fd[1], seed);
    close(fd[1]);
    uint32_t count = 0;
    reported[0] = reported[1] = 0;
    for (uint64_t got[2]; read(fd[0], got, sizeof(got)) == sizeof(got);) {
        memcpy(reported, got, sizeof(got));
        if (++count == stop_at)
            kill(child, SIGKILL); /* and drain the pipe */
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status), "the writer failed");
    close(fd[0]);
    return count;
}

TEST_TIMEOUT(kill_9_in_a_loop_loses_nothing_that_was_reported, 60)
{
    char dir[300];
    snprintf(dir, sizeof(dir), "%s", test_dir("j"));
    in_child(format_child, dir);
    struct prng p = {2};
    uint64_t total = 0;
    for (int round = 0; round < 25; round++) {
        total += kill_writer(dir, prng_next(&p), 20 + prng_below(&p, 400));
        in_child(check_child, dir);
    }
    ck_assert_uint_gt(total, 500);
}

/* ---- errors ---- */

static void write_into_a_full_disk(void *dir)
{
    struct journal_store *s = open_log(dir);
    append(s, 1, 1, 100);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(add_entries(s, 1, 1, 50000), 0);
    ck_assert_int_lt(journal_store_sync(s, 0), 0);
    /* The process ends here: what is on disk is for the next open to judge. */
}

TEST(a_failed_write_is_reported_and_leaves_what_was_there)
{
    char dir[300];
    snprintf(dir, sizeof(dir), "%s", test_dir("j"));
    in_child(format_child, dir);
    in_child(write_into_a_full_disk, dir);
    struct journal_store *s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->last, 2);
    check_whole(s);
    s = journal_store_free(s);
}
