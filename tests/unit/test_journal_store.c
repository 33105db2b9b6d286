/* SPDX-License-Identifier: Apache-2.0 */
/* The log of the journal: formats, appending, truncation, compaction, crashes. RocksDB: not for the thread sanitizer. */
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
    uint64_t until = clock_ns() + 20 * NS_PER_S; /* files go in the background */
    while (journal_store_bytes(s) >= full / 3 && clock_ns() < until)
        usleep(10000);
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
    int fd[2];
    ck_assert_int_eq(pipe2(fd, O_CLOEXEC), 0);
    pid_t child = unit_fork();
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
    ck_assert_msg(WIFSIGNALED(unit_wait(child)), "the writer failed");
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
