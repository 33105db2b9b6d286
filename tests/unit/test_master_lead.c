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
