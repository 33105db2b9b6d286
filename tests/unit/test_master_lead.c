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
