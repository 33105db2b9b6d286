/* SPDX-License-Identifier: Apache-2.0 */
/* Reads in the consensus core: lease, read index, followers' reads, and when each must be refused. */
#include "raft_cluster.h"

static struct cluster c;

static int ask(uint64_t id, uint64_t context)
{
    step(&c, id, (struct raft_input){.type = RAFT_IN_READ, .read.context = context});
    return node_of(&c, id)->result;
}

static const struct raft_read *answer_of(uint64_t id, uint64_t context)
{
    struct node *n = node_of(&c, id);
    for (uint32_t i = 0; i < n->read_count; i++)
        if (n->reads[i].context == context)
            return &n->reads[i];
    return NULL;
}

static void start_without_lease(void)
{
    struct raft_conf conf = voters(3);
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++) {
        node_of(&c, i)->options.no_lease = true;
        boot(&c, i);
    }
    cluster_elect(&c, 1);
}

TEST(raft_a_lease_answers_at_once)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t index = propose(&c, 1);
    settle(&c);
    ck_assert_uint_gt(node_of(&c, 1)->out.lease_until_ms, c.now_ms);
    ck_assert_int_eq(ask(1, 7), 0);
    ck_assert_uint_eq(node_of(&c, 1)->out.read_count, 1);
    ck_assert_uint_eq(answer_of(1, 7)->index, index);
    ck_assert_int_eq(answer_of(1, 7)->result, 0);
    cluster_stop(&c);
}

TEST(raft_a_lease_counts_from_the_sending_of_the_heartbeat)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    run_ms(&c, 200);
    /* Rounds leave every 50 ms; let the answers to one arrive 100 ms late. */
    while (!flying_of(&c, RAFT_MSG_HEARTBEAT, 1, 2))
        tick(&c);
    uint64_t sent_ms = c.now_ms;
    struct flying *h2 = NULL;
    for (uint32_t i = 0; i < c.flying_count; i++)
        if (c.flying[i]->m.to == 2)
            h2 = catch_message(&c, i);
    drop_all(&c);
    for (int i = 0; i < 10; i++) {
        tick(&c);
        drop_all(&c);
    }
    deliver(&c, h2);
    deliver_of(&c, RAFT_MSG_HEARTBEAT_REPLY, 2, 1);
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, sent_ms + 450); /* T_min less 10 % */
    cluster_stop(&c);
}

TEST(raft_the_lease_ends_before_another_can_be_elected)
{
    for (uint32_t seed = 0; seed < 20; seed++) {
        struct raft_conf conf = voters(3);
        cluster_format(&c, &conf);
        for (uint32_t i = 1; i <= 3; i++) {
            node_of(&c, i)->options.seed = seed * 10 + i;
            boot(&c, i);
        }
        cluster_elect(&c, 1);
        run_ms(&c, 200);
        isolate(&c, 1, true);
        while (leader_of(&c) == 1)
            run_ms(&c, 10);
        while (!leader_of(&c))
            run_ms(&c, 10);
        ck_assert_uint_le(node_of(&c, 1)->out.lease_until_ms, c.now_ms);
        cluster_stop(&c);
    }
}

TEST(raft_without_a_lease_a_read_waits_for_a_round_begun_after_it)
{
    start_without_lease();
    uint64_t index = propose(&c, 1);
    settle(&c);
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, 0);
    ck_assert_int_eq(ask(1, 1), 0);
    ck_assert_ptr_null(answer_of(1, 1));
    ck_assert_uint_eq(flying_of(&c, RAFT_MSG_HEARTBEAT, 1, 0), 2); /* begins at once */
    ck_assert_int_eq(ask(1, 2), 0);
    ck_assert_uint_eq(flying_of(&c, RAFT_MSG_HEARTBEAT, 1, 0), 2); /* shares the next */
    deliver_of(&c, RAFT_MSG_HEARTBEAT, 1, 2);
    deliver_of(&c, RAFT_MSG_HEARTBEAT_REPLY, 2, 1);
    ck_assert_uint_eq(answer_of(1, 1)->index, index);
    ck_assert_ptr_null(answer_of(1, 2));
    settle(&c);
    ck_assert_uint_eq(answer_of(1, 2)->index, index);
    cluster_stop(&c);
}

TEST(raft_reads_of_a_leader_that_lost_its_majority_are_refused)
{
    start_without_lease();
    isolate(&c, 1, true);
    ck_assert_int_eq(ask(1, 1), 0);
    run_ms(&c, 700);
    ck_assert_int_eq(answer_of(1, 1)->result, -CV_NOT_LEADER);
    ck_assert_int_eq(ask(1, 2), -CV_NOT_LEADER);
    cluster_stop(&c);
}

TEST(raft_reads_of_a_new_leader_wait_for_its_first_entry)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t index = propose(&c, 1);
    settle(&c); /* committed at 1; the others do not know yet */
    ck_assert_uint_lt(node_of(&c, 2)->out.commit, index);
    crash(&c, 1);
    force_campaign(&c, 2);
    sync_disk(&c, 2, 9);
    deliver_of(&c, RAFT_MSG_VOTE, 2, 3);
    sync_disk(&c, 3, 9);
    deliver_of(&c, RAFT_MSG_VOTE_REPLY, 3, 2);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_LEADER);
    node_of(&c, 2)->disk_held = true; /* nothing is committed yet */
    ck_assert_int_eq(ask(2, 5), 0);
    settle(&c);
    ck_assert_uint_eq(answer_of(2, 5)->index, index + 1); /* so the read waits until it is */
    ck_assert_uint_lt(node_of(&c, 2)->out.commit, index + 1);
    cluster_stop(&c);
}

TEST(raft_a_follower_reads_by_the_leaders_word)
{
    for (int lease = 0; lease < 2; lease++) {
        if (lease) {
            cluster_start(&c, 3);
            cluster_elect(&c, 1);
        } else {
            start_without_lease();
        }
        uint64_t index = propose(&c, 1);
        settle(&c);
        ck_assert_int_eq(ask(3, 11), 0);
        ck_assert_int_eq(ask(3, 12), 0);
        settle(&c);
        ck_assert_uint_eq(answer_of(3, 11)->index, index);
        ck_assert_uint_eq(answer_of(3, 12)->index, index);
        ck_assert_uint_eq(status_of(&c, 3).reads_waiting, 0);
        cluster_stop(&c);
    }
}

TEST(raft_a_followers_read_ends_also_when_no_answer_comes)
{
    cluster_start(&c, 3);
    ck_assert_int_eq(ask(3, 1), -CV_NOT_LEADER); /* nobody to ask */
    cluster_elect(&c, 1);
    cut(&c, 1, 3);
    ck_assert_int_eq(ask(3, 2), 0);
    run_ms(&c, 510);
    ck_assert_int_eq(answer_of(3, 2)->result, -CV_NOT_LEADER);
    cluster_stop(&c);

    /* The leader is another by the time the question arrives. */
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    ck_assert_int_eq(ask(3, 3), 0);
    struct flying *question = catch_message(&c, 0);
    ck_assert_int_eq(question->m.type, RAFT_MSG_READ);
    cluster_elect(&c, 2);
    ck_assert_int_eq(answer_of(3, 3)->result, -CV_NOT_LEADER);
    deliver(&c, question);
    settle(&c);
    ck_assert_uint_eq(node_of(&c, 3)->read_count, 1);
    cluster_stop(&c);
}

TEST(raft_an_answer_to_a_question_of_before_the_restart_is_ignored)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    ck_assert_int_eq(ask(3, 1), 0);
    deliver_of(&c, RAFT_MSG_READ, 3, 1);
    struct flying *old = catch_message(&c, 0);
    ck_assert_int_eq(old->m.type, RAFT_MSG_READ_REPLY);
    crash(&c, 3);
    boot(&c, 3);
    run_ms(&c, 100);
    ck_assert_int_eq(ask(3, 2), 0);
    deliver(&c, old);
    ck_assert_ptr_null(answer_of(3, 2));
    settle(&c);
    ck_assert_int_eq(answer_of(3, 2)->result, 0);
    cluster_stop(&c);
}

TEST(raft_reads_waiting_are_bounded)
{
    start_without_lease();
    isolate(&c, 1, true);
    for (uint32_t i = 0; i < RAFT_READS_MAX; i++)
        ck_assert_int_eq(ask(1, i), 0);
    ck_assert_int_eq(ask(1, 9999), -CV_BUSY);
    struct raft_message m = {.type = RAFT_MSG_READ, .from = 2, .to = 1, .term = node_of(&c, 1)->out.term};
    inject(&c, m);
    ck_assert_uint_eq(sent(&c, 1, RAFT_MSG_READ_REPLY, 2)->message.read_reply.refused, 1);
    heal(&c);
    run_ms(&c, 100);
    ck_assert_uint_eq(status_of(&c, 1).reads_waiting, 0);
    cut(&c, 1, 3);
    for (uint32_t i = 0; i < RAFT_READS_MAX; i++)
        ck_assert_int_eq(ask(3, i), 0);
    ck_assert_int_eq(ask(3, 9999), -CV_BUSY);
    cluster_stop(&c);
}

TEST(raft_many_reads_of_followers_are_answered_over_several_steps)
{
    start_without_lease();
    uint64_t term = node_of(&c, 1)->out.term;
    isolate(&c, 1, true);
    for (uint64_t i = 1; i <= 300; i++)
        inject(&c, (struct raft_message){.type = RAFT_MSG_READ, .from = 2, .to = 1, .term = term, .read.context = i});
    ck_assert_uint_eq(status_of(&c, 1).reads_waiting, 300);
    heal(&c);
    run_ms(&c, 100);
    ck_assert_uint_eq(status_of(&c, 1).reads_waiting, 0);
    cluster_stop(&c);
}
