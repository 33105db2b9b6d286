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
