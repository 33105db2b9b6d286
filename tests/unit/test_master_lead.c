/* SPDX-License-Identifier: Apache-2.0 */
/* A master among others: who leads, what it may answer, what it must not (not for the thread sanitizer). */
#include "tests/unit/master_test.h"

/* The body of an answer that says who leads. */
static struct msg_leader_answer leader_in(struct asked *a)
{
    struct msg_leader_answer answer;
    ck_assert_int_eq(msg_leader_answer_decode(a->body, a->n, &answer), 0);
    return answer;
}

TEST(lead_is_told_to_who_asks_the_wrong_master)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct msg_leader m = {0};
    struct asked *a = ask(k.c, MSG_leader, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert(text_equal(leader_in(a).address, TEXT("here:1")));
    ck_assert_uint_eq(leader_in(a).serving, 1);
    ck_assert_uint_eq(leader_in(a).term, 1);
    asked_free(a);

    fake_journal_follow(k.journal);
    struct asked *wrong[3];
    until(lookup(k.c, "x") == -CV_NOT_LEADER);
    wrong[0] = ask_lookup(k.c, "x");                                                              /* a read */
    wrong[1] = ask_create(k.c, "x", 0);                                                           /* a mutation */
    wrong[2] = ask(k.c, MSG_session_renew, &(struct msg_session_renew){.session = k.c->session}); /* the master's own */
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(asked_wait(wrong[i]), -CV_NOT_LEADER);
        struct msg_leader_answer l = leader_in(wrong[i]);
        ck_assert(text_equal(l.address, TEXT("there:2")));
        ck_assert_uint_eq(l.node, 2);
        ck_assert_uint_eq(l.term, 2);
        ck_assert_uint_eq(l.serving, 0);
        asked_free(wrong[i]);
    }
    cluster_fini(&k);
}

static struct asked *ask_who_leads(struct cluster *k, uint64_t known_term)
{
    struct msg_leader m = {.flags = 1, .known_term = known_term};
    return ask(k->c, MSG_leader, &m);
}

static bool finish_who_leads(struct asked *a)
{
    ck_assert_int_eq(asked_wait(a), 0);
    bool serving = leader_in(a).serving;
    asked_free(a);
    return serving;
}

/* Who looks for a leader need not ask again and again: the next one says so when it begins. */
TEST(lead_is_told_when_it_begins_to_who_waits_for_it)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    bool told = false;
    for (int i = 0; i < 20 && !told; i++) { /* a machine may be slow, but not always */
        fake_journal_follow(k.journal);
        until(lookup(k.c, "x") == -CV_NOT_LEADER);
        struct asked *a = ask_who_leads(&k, k.journal->term);
        usleep(20000);
        fake_journal_lead(k.journal);
        told = finish_who_leads(a);
    }
    ck_assert(told);
    fake_journal_follow(k.journal);
    until(lookup(k.c, "x") == -CV_NOT_LEADER);
    uint64_t began = clock_ns();
    ck_assert(!finish_who_leads(ask_who_leads(&k, k.journal->term))); /* but not for ever */
    ck_assert_uint_ge(clock_ns() - began, 50 * NS_PER_MS);
    struct asked *last = ask_who_leads(&k, k.journal->term);
    master_stop(k.master); /* nor while it stops: answered, or the connection ends first */
    finish(last);
    cluster_fini(&k);
}

/* Its lease is given back with the word that it cannot lead: nobody has to wait for its end. */
TEST(lead_that_is_given_away_takes_the_lease_along)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "x"), 0);
    ck_assert(!k.journal->lease_back);
    master_stop(k.master);
    ck_assert(k.journal->lease_back);
    cluster_fini(&k);
}

/* What was sent while the role changed is in no log: it must not stand in the way of what the next leader sends. */
TEST(lead_lost_takes_back_what_the_journal_never_took)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_swallow(k.journal, true);
    struct rec_op_head head = head_of(k.c, 0);
    struct asked *a = ask_create_with(k.c, "x", head);
    until(k.journal->swallowed > 0);
    fake_journal_follow(k.journal);
    ck_assert_int_eq(finish(a), -CV_NOT_LEADER); /* it was not executed, that is sure */
    fake_journal_swallow(k.journal, false);
    fake_journal_lead(k.journal);
    int r;
    until((r = lookup(k.c, "x")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, -ENOENT);
    until((r = finish(ask_create_with(k.c, "x", head))) != -CV_BUSY);
    ck_assert_int_eq(r, 0);
    ck_assert_int_eq(k.failed, 0);
    cluster_fini(&k);
}

/* A configuration within our own term, and proposals of ours behind it that are not committed yet. */
TEST(lead_goes_on_over_a_configuration_among_its_own_entries)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_hold(k.journal, true);
    fake_journal_insert(k.journal, LINK_CONF);
    uint64_t conf = k.journal->last;
    struct asked *a = ask_create(k.c, "x", 0);
    until(k.journal->last > conf);
    fake_journal_commit(k.journal, conf);
    until(k.journal->applied >= conf);
    ck_assert(!is_answered(a));
    fake_journal_hold(k.journal, false);
    ck_assert_int_eq(finish(a), 0);
    ck_assert_int_eq(create(k.c, "y"), 0);
    ck_assert_int_eq(k.failed, 0);
    cluster_fini(&k);
}

static struct asked *ask_unlink(struct caller *c, const char *name, uint32_t slot)
{
    struct msg_unlink m = {.head = head_of(c, slot), .parent = META_ROOT, .name = text_of(name)};
    return ask(c, MSG_unlink, &m);
}

static struct asked *ask_renew(struct caller *c)
{
    return ask(c, MSG_session_renew, &(struct msg_session_renew){.session = c->session});
}

/* Without a lease a majority is asked: it costs a round, nothing else. */
TEST(lead_without_a_lease_answers_when_a_majority_has_confirmed_it)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "there"), 0);
    ck_assert_uint_eq(k.journal->reads, 0);
    fake_journal_lease(k.journal, 0);
    until(lookup(k.c, "there") == 0 && k.journal->reads >= 2);
    ck_assert_int_eq(lookup(k.c, "x"), -ENOENT);
    uint64_t reads = k.journal->reads;
    ck_assert_int_eq(create(k.c, "y"), 0); /* its commit is proof enough */
    ck_assert_uint_eq(k.journal->reads, reads);
    cluster_fini(&k);
}

/* A leader that nobody follows any more: nothing it remembers is told, whether read or found by the scribe. */
TEST(lead_that_is_not_confirmed_answers_nothing)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "there"), 0);
    fake_journal_lease(k.journal, 0);
    until(lookup(k.c, "no") == -ENOENT && k.journal->reads > 0); /* it knows that it has none */
    fake_journal_hold_reads(k.journal, true);
    uint32_t asked = k.journal->reads;
    struct asked *a[6] = {
        ask_lookup(k.c, "there"),
        ask_lookup(k.c, "x"),
        ask_unlink(k.c, "x", 1),     /* nothing to remove: no commit */
        ask_create(k.c, "there", 2), /* opens: no commit */
        ask_renew(k.c),
        ask_create(k.c, "there", 3),
    };
    until(k.journal->reads > asked);
    ck_assert_int_eq(create(k.c, "y"), 0); /* behind all of them on this connection, and with the scribe */
    for (int i = 0; i < 6; i++)
        ck_assert_msg(!is_answered(a[i]), "%d was answered", i);
    fake_journal_follow(k.journal);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(finish(a[i]), -CV_NOT_LEADER);
    ck_assert_int_eq(k.failed, 0);
    cluster_fini(&k);
}

/* A confirmation counts for what was read before it was asked for, not for what came later. */
TEST(lead_is_confirmed_for_what_was_read_before_it_was_asked)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_lease(k.journal, 0);
    until(lookup(k.c, "no") == -ENOENT && k.journal->reads > 0); /* it knows that it has none */
    fake_journal_hold_reads(k.journal, true);
    uint32_t asked = k.journal->reads;
    struct asked *first = ask_lookup(k.c, "x");
    until(k.journal->reads == asked + 1);
    struct asked *second = ask_lookup(k.c, "x");
    ck_assert_int_eq(create(k.c, "y"), 0);
    fake_journal_answer_reads(k.journal, 1);
    ck_assert_int_eq(finish(first), -ENOENT);
    until(k.journal->reads == asked + 2);
    ck_assert(!is_answered(second));
    fake_journal_answer_reads(k.journal, 1);
    ck_assert_int_eq(finish(second), -ENOENT);
    cluster_fini(&k);
}

/* The lease runs out while a read waits for what it rests on, or comes and goes: all are answered in the end. */
TEST(lead_answers_everybody_while_leases_come_and_go)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    for (int i = 0; i < 60; i++) {
        struct asked *a[8];
        fake_journal_lease(k.journal, i % 3 == 0 ? 0 : i % 3 == 1 ? clock_ns() + NS_PER_MS / 2 : UINT64_MAX);
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        for (uint32_t n = 0; n < 8; n += 2) {
            a[n] = ask_create(k.c, name, n);
            a[n + 1] = ask_lookup(k.c, name);
        }
        for (int n = 0; n < 8; n++) {
            int r = finish(a[n]);
            ck_assert_msg(r == 0 || r == -ENOENT, "%d", r);
        }
    }
    cluster_fini(&k);
}

/* ---- states that must be equal --------------------------------------------------------------------------------------- */

static int file_count(const char *dir, const char *suffix)
{
    char command[256];
    snprintf(command, sizeof(command), "ls %s | grep -c '%s$' >/dev/null", dir, suffix);
    return system(command) == 0;
}

/* A master whose state comes from the log of another one. */
static void start_from_log(struct cluster *k, const char *dir)
{
    snprintf(k->dir, sizeof(k->dir), "%s/%s", k->run_dir, dir);
    ck_assert_int_eq(master_dir_format(k->dir, CLUSTER), 0);
    cluster_start_master(k);
}

static uint64_t entries_of(const struct fake_journal *j, enum link_entry_type type, uint64_t *ret_last)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < j->last; i++)
        if (j->log[i].type == type) {
            n++;
            *ret_last = i;
        }
    return n;
}

static void leave_a_log(struct cluster *k)
{
    cluster_init(k);
    k->options.digest_entries = 4;
    cluster_start(k);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        ck_assert_int_eq(create(k->c, name), 0);
    }
    k->master = master_free(k->master);
}

TEST(lead_lets_all_compare_their_state)
{
    struct cluster k;
    uint64_t at = 0;
    leave_a_log(&k);
    ck_assert_uint_ge(entries_of(k.journal, LINK_DIGEST, &at), 4);
    start_from_log(&k, "second");
    until(lookup(k.c, "f19") == 0);
    ck_assert_int_eq(k.failed, 0);
    ck_assert(!file_count(k.dir, "[.]diverged"));
    cluster_fini(&k);
}

TEST(lead_is_not_for_who_has_another_state)
{
    struct cluster k;
    struct master_dir d;
    uint64_t at = 0;
    leave_a_log(&k);
    ck_assert_uint_ge(entries_of(k.journal, LINK_DIGEST, &at), 4);
    k.journal->log[at].payload[16] ^= 1; /* as if the leader had had another */
    start_from_log(&k, "second");
    until(k.failed == -CV_LOG_DIVERGED);
    ck_assert_int_ne(lookup(k.c, "f19"), 0);
    k.master = master_free(k.master);
    ck_assert(file_count(k.dir, "[.]diverged"));
    ck_assert_int_eq(master_dir_open(k.dir, &d), -CV_LOG_DIVERGED); /* nor after a restart */
    cluster_fini(&k);
}

TEST(lead_refuses_entries_of_a_later_feature_level)
{
    struct cluster k;
    uint64_t at = 0;
    leave_a_log(&k);
    entries_of(k.journal, LINK_BATCH, &at);
    k.journal->log[at].payload[4]++;
    start_from_log(&k, "second");
    until(k.failed == -CV_FORMAT_TOO_NEW);
    ck_assert_int_ne(lookup(k.c, "f19"), 0);
    k.master = master_free(k.master);
    cluster_fini(&k);
}

/* A state that came from a backup, or a cluster that lost its majority: what was given since is not known. */
TEST(lead_of_a_later_incarnation_gives_nothing_twice)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "before"), 0);
    uint64_t session = k.c->session;
    k.master = master_free(k.master);
    k.journal->incarnation = 3;
    cluster_start_master(&k);
    until(lookup(k.c, "before") == -CV_SESSION_ENDED); /* its slots may be further than this log knows */
    open_session(k.c);
    ck_assert_int_eq(lookup(k.c, "before"), 0);
    ck_assert_uint_gt(k.c->session, session + (2ull << 36));
    k.master = master_free(k.master);
    k.journal->incarnation = 3; /* once only */
    cluster_start_master(&k);
    session = k.c->session;
    until(lookup(k.c, "before") == 0);
    open_session(k.c);
    ck_assert_uint_lt(k.c->session, session + (1ull << 36));
    ck_assert_int_eq(k.failed, 0);
    k.master = master_free(k.master);
    k.journal->incarnation = 2; /* of a cluster that was given up */
    cluster_start_master(&k);
    until(k.failed == -CV_WRONG_INCARNATION);
    k.master = master_free(k.master);
    cluster_fini(&k);
}
