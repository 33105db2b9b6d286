/* SPDX-License-Identifier: Apache-2.0 */
/* Repairs of a journal's directory: comparing, forcing, rejoining, cutting, on hand-made logs. RocksDB: not for the
 * thread sanitizer. */
#include "tests/unit/journal_log.h"

#include <errno.h>
#include <rocksdb/c.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "raft/journal_mark.h"
#include "raft/journal_recover.h"

static struct raft_member member(uint64_t id, enum raft_member_role role, bool journal_only)
{
    struct raft_member m = {.id = id, .role = (uint8_t)role, .journal_only = journal_only};
    snprintf(m.raft_address, sizeof(m.raft_address), "n%llu:8996", (unsigned long long)id);
    snprintf(m.client_address, sizeof(m.client_address), "n%llu:8995", (unsigned long long)id);
    return m;
}

/* TEST_NODE as it is given here, and two more voters. */
static void format_three(const char *dir, uint64_t node, struct raft_member self)
{
    struct raft_conf conf = {.count = 0};
    struct raft_member others[] = {member(1, RAFT_VOTER, false), member(2, RAFT_VOTER, false), self};
    uint8_t bytes[RAFT_CONF_ENCODED_MAX];
    for (size_t i = 0; i < array_size(others); i++)
        ck_assert_int_eq(raft_conf_put(&conf, &others[i]), 0);
    struct journal_format format = {.cluster = test_cluster, .node = node, .conf = bytes};
    format.conf_size = (uint32_t)raft_conf_encode(&conf, bytes);
    ck_assert_int_eq(journal_store_format(dir, &format, NULL), 0);
}

static struct journal_store *open_only(const char *dir)
{
    struct journal_store *s = NULL;
    struct journal_store_options options = {.read_only = true, .no_check = true};
    ck_assert_int_eq(journal_store_open(dir, &options, NULL, &s), 0);
    return s;
}

/* A log of units {term, count}. */
static void make_log(const char *dir, const uint64_t (*units)[2], size_t n)
{
    format_three(dir, TEST_NODE, member(TEST_NODE, RAFT_VOTER, false));
    struct journal_store *s = open_log(dir);
    for (size_t i = 0; i < n; i++)
        append(s, units[i][0], (uint32_t)units[i][1], 100);
    journal_store_free(s);
}

/* ---- compare ---- */

/* Compare two logs: which is the best, and the other's copy. */
static struct journal_copy compare_two(const char *a, const char *b, uint32_t *ret_best)
{
    struct journal_copy copies[] = {{.store = open_only(a)}, {.store = open_only(b)}};
    ck_assert_int_eq(journal_compare(copies, 2, ret_best), 0);
    ck_assert(copies[*ret_best].compared);
    ck_assert_uint_eq(copies[*ret_best].same_to, journal_store_state(copies[*ret_best].store)->last);
    for (int i = 0; i < 2; i++)
        journal_store_free((struct journal_store *)(uintptr_t)copies[i].store);
    return copies[1 - *ret_best];
}

TEST(the_log_with_the_later_last_term_is_the_furthest_and_where_they_part_is_found)
{
    uint32_t best;
    make_log(test_dir("a"), (const uint64_t[][2]){{2, 10}, {3, 40}}, 2); /* longer, last of term 3 */
    make_log(test_dir("b"), (const uint64_t[][2]){{2, 10}, {4, 7}}, 2);
    struct journal_copy c = compare_two(test_dir("a"), test_dir("b"), &best);
    ck_assert_uint_eq(best, 1);
    ck_assert(c.compared && !c.diverged);
    ck_assert_uint_eq(c.same_to, 11);

    make_log(test_dir("c"), (const uint64_t[][2]){{2, 10}, {3, 4}}, 2); /* the beginning of a */
    c = compare_two(test_dir("c"), test_dir("a"), &best);
    ck_assert_uint_eq(best, 1);
    ck_assert(c.compared && !c.diverged);
    ck_assert_uint_eq(c.same_to, 15);
}

TEST(logs_that_differ_in_what_both_know_committed_have_diverged)
{
    const char *dirs[] = {test_dir("a"), test_dir("b")};
    for (int i = 0; i < 2; i++) {
        make_log(dirs[i], (const uint64_t[][2]){{2, 10}}, 1);
        struct journal_store *s = open_log(dirs[i]);
        struct journal_unit unit = {.term = 3, .commit = 13};
        append(s, 3 + (uint64_t)i, 5, 64);
        unit.term = 3 + (uint64_t)i;
        unit.vote = 9; /* so that there is something to write */
        ck_assert_int_eq(journal_store_add(s, &unit), 0);
        ck_assert_int_eq(journal_store_sync(s, 0), 0);
        journal_store_free(s);
    }
    uint32_t best;
    struct journal_copy c = compare_two(dirs[0], dirs[1], &best);
    ck_assert_uint_eq(best, 1);
    ck_assert_uint_eq(c.same_to, 11);
    ck_assert(c.diverged);
}

TEST(logs_that_do_not_overlap_are_compared_by_their_ends_only)
{
    make_log(test_dir("a"), (const uint64_t[][2]){{2, 10}}, 1);
    make_log(test_dir("b"), (const uint64_t[][2]){{2, 100}}, 1);
    struct journal_store *s = open_log(test_dir("b"));
    ck_assert_int_eq(journal_store_compact(s, 51), 0);
    journal_store_free(s);
    uint32_t best;
    struct journal_copy c = compare_two(test_dir("a"), test_dir("b"), &best);
    ck_assert_uint_eq(best, 1);
    ck_assert(!c.compared && !c.diverged);

    s = open_log(test_dir("a"));
    append(s, 2, 41, 100); /* 52: the base of b's first is there too */
    journal_store_free(s);
    c = compare_two(test_dir("a"), test_dir("b"), &best);
    ck_assert(c.compared && !c.diverged);
    ck_assert_uint_eq(c.same_to, 52);
}

/* ---- force ---- */

TEST(forcing_makes_one_voter_of_a_new_incarnation_and_keeps_every_entry)
{
    const char *dir = test_dir("a");
    make_log(dir, (const uint64_t[][2]){{2, 10}, {5, 3}}, 2);
    struct journal_store *s = open_log(dir);
    struct raft_conf conf;
    ck_assert_int_eq(journal_alone_conf(s, &conf), 0);
    ck_assert_uint_eq(conf.count, 1);
    ck_assert_int_eq(journal_force(s, &conf), 0);
    journal_store_free(s);

    s = open_log(dir);
    const struct journal_state *t = journal_store_state(s);
    ck_assert_uint_eq(t->incarnation, 2);
    ck_assert_uint_eq(t->forced_incarnation, 2);
    ck_assert_uint_eq(t->forced_index, 14);
    ck_assert_uint_eq(t->term, 5 + JOURNAL_FORCE_TERMS);
    ck_assert_uint_eq(t->vote, 0);
    ck_assert_uint_eq(t->last, 15);
    ck_assert_uint_eq(t->commit, 15);
    ck_assert_uint_eq(t->node, TEST_NODE);
    ck_assert_uint_eq(t->confs[t->conf_count - 1], 15);
    struct buf bytes = {0};
    struct raft_conf now;
    ck_assert_int_eq(journal_store_conf(s, 15, &bytes), 0);
    ck_assert_int_eq(raft_conf_decode(bytes.p, bytes.n, &now), 0);
    ck_assert_uint_eq(now.count, 1);
    ck_assert_uint_eq(now.members[0].id, TEST_NODE);
    ck_assert_str_eq(now.members[0].raft_address, "n119:8996");
    buf_fini(&bytes);
    struct journal_read read = {.count = 0};
    ck_assert_int_eq(journal_store_read(s, 2, 14, 1 << 20, &read), 0);
    ck_assert_uint_eq(read.count, 13);
    for (uint32_t i = 0; i < read.count; i++)
        check_entry_data(&read.entries[i], 2 + i, i < 10 ? 2 : 5);
    journal_read_fini(&read);
    struct journal_check check = {.problem = NULL};
    ck_assert_int_eq(journal_check_entries(journal_store_db(s), t, 1, &check), 0);
    journal_store_free(s);
}

TEST(a_learner_may_go_on_alone_but_no_journal_only_and_no_stranger)
{
    struct raft_conf conf;
    format_three(test_dir("a"), TEST_NODE, member(TEST_NODE, RAFT_LEARNER, false));
    struct journal_store *s = open_log(test_dir("a"));
    ck_assert_int_eq(journal_alone_conf(s, &conf), 0);
    ck_assert_uint_eq(conf.members[0].role, RAFT_VOTER);
    ck_assert_int_eq(raft_conf_check(&conf), 0);
    journal_store_free(s);

    format_three(test_dir("b"), TEST_NODE, member(TEST_NODE, RAFT_VOTER, true));
    s = open_log(test_dir("b"));
    ck_assert_int_eq(journal_alone_conf(s, &conf), -EINVAL);
    journal_store_free(s);

    format_three(test_dir("c"), 99, member(TEST_NODE, RAFT_VOTER, false));
    s = open_log(test_dir("c"));
    ck_assert_int_eq(journal_alone_conf(s, &conf), -ENOENT);
    journal_store_free(s);

    struct journal_format join = {.cluster = test_cluster};
    ck_assert_int_eq(journal_store_format(test_dir("d"), &join, NULL), 0);
    s = open_log(test_dir("d"));
    ck_assert_int_eq(journal_alone_conf(s, &conf), -ENOENT);
    journal_store_free(s);
}

/* ---- rejoin ---- */

static void expect_joined(const char *dir, uint64_t node)
{
    struct journal_store *s = open_log(dir);
    const struct journal_state *t = journal_store_state(s);
    ck_assert_uint_eq(t->node, node);
    ck_assert(uuid_equal(t->cluster, test_cluster));
    ck_assert_uint_eq(t->last, 0);
    ck_assert_uint_eq(t->term, 0);
    ck_assert_uint_eq(t->conf_count, 0);
    journal_store_free(s);
}

static bool exists(const char *dir, const char *name)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static int rejoin(const char *dir, struct uuid cluster, uint64_t *old, uint64_t *node)
{
    struct buf why = {0};
    struct uuid got;
    int r = journal_rejoin(dir, cluster, 0, &why, &got, old, node);
    if (r == 0)
        ck_assert(uuid_equal(got, test_cluster));
    buf_fini(&why);
    return r;
}

TEST(rejoining_leaves_an_empty_log_under_a_new_id)
{
    const char *dir = test_dir("a");
    uint64_t old, node, again;
    make_log(dir, (const uint64_t[][2]){{2, 10}}, 1);
    ck_assert_int_eq(rejoin(dir, (struct uuid){{0}}, &old, &node), 0);
    ck_assert_uint_eq(old, TEST_NODE);
    ck_assert_uint_ne(node, TEST_NODE);
    expect_joined(dir, node);
    ck_assert(!exists(dir, "log.old") && !exists(dir, "rejoin"));
    ck_assert_int_eq(rejoin(dir, (struct uuid){{0}}, &old, &again), 0);
    ck_assert_uint_eq(old, node);
    expect_joined(dir, again);
    struct uuid got;
    ck_assert_int_eq(journal_rejoin(dir, test_cluster, 4, NULL, &got, &old, &node), 0);
    struct journal_store *s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->incarnation, 4);
    journal_store_free(s);
    ck_assert_int_eq(rejoin(dir, (struct uuid){{0}}, &old, &node), 0); /* as the old one was */
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->incarnation, 4);
    journal_store_free(s);
}

TEST(rejoining_begins_again_wherever_it_was_cut_short)
{
    /* The steps: rejoin/ made; log -> log.old; the mark; rejoin/log -> log; log.old removed. */
    static const char *const cut[] = {
        "mkdir %s/rejoin && touch %s/rejoin/lock",
        "cp -a %s/log %s/log.old",
        "mv %s/log %s/log.old",
        "mv %s/log %s/log.old && mkdir %s/rejoin",
        "mv %s/log %s/log.old && rm %s/durable.mark && touch %s/durable.mark",
    };
    for (size_t i = 0; i < array_size(cut); i++) {
        char name[8] = {(char)('a' + (int)i), 0}, command[1200];
        const char *dir = test_dir(name);
        uint64_t old, node;
        make_log(dir, (const uint64_t[][2]){{2, 10}}, 1);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(command, sizeof(command), cut[i], dir, dir, dir, dir);
#pragma GCC diagnostic pop
        ck_assert_int_eq(system(command), 0);
        ck_assert_int_eq(rejoin(dir, (struct uuid){{0}}, &old, &node), 0);
        ck_assert_uint_eq(old, TEST_NODE);
        expect_joined(dir, node);
    }
}

TEST(a_log_that_cannot_be_read_is_thrown_away_only_with_the_clusters_id)
{
    const char *dir = test_dir("a");
    char command[600];
    uint64_t old, node;
    make_log(dir, (const uint64_t[][2]){{2, 10}}, 1);
    snprintf(command, sizeof(command), "rm %s/log/CURRENT", dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(rejoin(dir, (struct uuid){{0}}, &old, &node), -CV_LOG_DAMAGED);
    ck_assert_int_eq(rejoin(dir, test_cluster, &old, &node), 0);
    ck_assert_uint_eq(old, 0);
    expect_joined(dir, node);
}

TEST(an_empty_directory_is_never_made_a_log_by_rejoin)
{
    uint64_t old, node;
    ck_assert_int_eq(rejoin(test_dir("none"), test_cluster, &old, &node), -CV_NOT_FORMATTED);
    ck_assert(!exists(test_dir("none"), "."));
    ck_assert_int_eq(mkdir(test_dir("empty"), 0700), 0);
    ck_assert_int_eq(rejoin(test_dir("empty"), test_cluster, &old, &node), -CV_NOT_FORMATTED);
    ck_assert(!exists(test_dir("empty"), "log"));
}

TEST(rejoin_refuses_beside_a_running_journal)
{
    const char *dir = test_dir("a");
    uint64_t old, node;
    make_log(dir, (const uint64_t[][2]){{2, 10}}, 1);
    struct journal_store *s = open_log(dir);
    ck_assert_int_eq(rejoin(dir, test_cluster, &old, &node), -CV_LOCKED);
    journal_store_free(s);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->last, 11);
    journal_store_free(s);
}

/* ---- the tail ---- */

/* Take away one entry as a lost file would. */
static void lose_entry(const char *dir, uint64_t index)
{
    struct journal_store *s = open_log(dir);
    const struct journal_db *d = journal_store_db(s);
    uint8_t key[8];
    char *error = NULL;
    put_be64(key, index);
    rocksdb_delete_cf(d->db, d->sync, d->family[JOURNAL_LOG], (char *)key, sizeof(key), &error);
    ck_assert_ptr_null(error);
    journal_store_free(s);
}

static int tail(const char *dir, uint64_t *from, bool cut)
{
    struct buf why = {0};
    struct journal_store *s = NULL;
    struct journal_store_options options = {.no_check = true};
    struct journal_check check = {.problem = NULL};
    ck_assert_int_eq(journal_store_open(dir, &options, &why, &s), 0);
    int r = journal_tail_check(s, &check, &why, from);
    if (r == 0 && cut)
        ck_assert_int_eq(journal_tail_cut(s, *from), 0);
    journal_store_free(s);
    buf_fini(&why);
    return r;
}

TEST(a_hole_behind_commit_and_mark_can_be_cut_off_and_nothing_else)
{
    const char *dir = test_dir("a");
    uint64_t from;
    make_log(dir, (const uint64_t[][2]){{2, 10}}, 1); /* the mark says 1 or 11, see below */
    struct journal_store *s = open_log(dir);
    uint64_t due;
    ck_assert_int_eq(add_entries(s, 2, 1, 10), 0); /* 12 */
    ck_assert_int_eq(journal_store_sync(s, clock_ns() + 3000000000), 0);
    ck_assert_int_eq(journal_store_idle(s, clock_ns() + 9000000000, &due), 0);
    ck_assert_uint_eq(journal_store_mark(s)->index, 12);
    ck_assert_int_eq(add_entries(s, 2, 20, 10), 0); /* to 32, within the same second */
    ck_assert_int_eq(journal_store_sync(s, 0), 0);
    ck_assert_uint_eq(journal_store_mark(s)->index, 12);
    journal_store_free(s);
    ck_assert_int_eq(tail(dir, &from, false), -ENODATA);

    lose_entry(dir, 20);
    open_log_expect(dir, -CV_LOG_DAMAGED, "missing");
    ck_assert_int_eq(tail(dir, &from, true), 0);
    ck_assert_uint_eq(from, 20);
    s = open_log(dir);
    ck_assert_uint_eq(journal_store_state(s)->last, 19);
    append(s, 2, 3, 10);
    journal_store_free(s);
    ck_assert_int_eq(tail(dir, &from, false), -ENODATA);

    lose_entry(dir, 12); /* durable.mark has it */
    ck_assert_int_eq(tail(dir, &from, true), -EPERM);
}

TEST(a_hole_in_what_is_known_committed_is_not_cut_off)
{
    const char *dir = test_dir("a");
    uint64_t from;
    make_log(dir, (const uint64_t[][2]){{2, 10}}, 1);
    struct journal_store *s = open_log(dir);
    struct journal_unit unit = {.term = 2, .vote = 5, .commit = 8};
    ck_assert_int_eq(journal_store_add(s, &unit), 0);
    ck_assert_int_eq(journal_store_sync(s, 0), 0);
    ck_assert_uint_lt(journal_store_mark(s)->index, 7);
    journal_store_free(s);
    lose_entry(dir, 7);
    ck_assert_int_eq(tail(dir, &from, true), -EPERM);
}
