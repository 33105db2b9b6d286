/* SPDX-License-Identifier: Apache-2.0 */
/* The consensus core as a whole: one voter, three voters, restarts, bad input, no allocation. */
#include "raft_cluster.h"

static struct cluster c;

TEST(raft_one_voter_elects_itself_on_the_first_tick_and_commits_what_its_disk_has)
{
    cluster_start(&c, 1);
    node_of(&c, 1)->disk_held = true;
    tick(&c);
    struct raft_output *o = &node_of(&c, 1)->out;
    ck_assert_int_eq(o->role, RAFT_CANDIDATE);
    ck_assert_uint_eq(o->write.seq, 1);
    ck_assert_uint_eq(o->write.term, 2);
    ck_assert_uint_eq(o->write.vote, 1);
    ck_assert_uint_eq(o->send_count, 0);
    /* Its vote counts when it is on disk. */
    sync_disk(&c, 1, 1);
    ck_assert_int_eq(o->role, RAFT_LEADER);
    ck_assert(o->role_changed);
    ck_assert_uint_eq(o->start_index, 2);
    ck_assert_uint_eq(o->write.first, 2);
    ck_assert_uint_eq(o->write.count, 1);
    ck_assert_int_eq(o->write.entries[0].type, RAFT_NOOP);
    ck_assert_uint_eq(o->commit, 0);
    /* Pipelined: the first proposal does not wait for the first entry's sync. */
    ck_assert_uint_eq(propose(&c, 1), 3);
    ck_assert_uint_eq(propose(&c, 1), 4);
    ck_assert_uint_eq(o->commit, 0);
    sync_disk(&c, 1, 2);
    ck_assert_uint_eq(o->commit, 3);
    ck_assert_uint_eq(o->durable, 3);
    sync_disk(&c, 1, 1);
    ck_assert_uint_eq(o->commit, 4);
    ck_assert_uint_gt(o->lease_until_ms, c.now_ms);
    cluster_stop(&c);
}

TEST(raft_three_voters_elect_one_leader_and_replicate)
{
    cluster_start(&c, 3);
    run_ms(&c, 2500);
    uint64_t leader = leader_of(&c);
    ck_assert_uint_ne(leader, 0);
    for (int i = 0; i < 500; i++) {
        ck_assert_uint_ne(propose(&c, leader), 0);
        if (i % 7 == 0)
            settle(&c);
    }
    settle(&c);
    run_ms(&c, 100);
    for (uint32_t i = 1; i <= 3; i++) {
        ck_assert_uint_eq(node_of(&c, i)->out.commit, 502);
        ck_assert_uint_eq(node_of(&c, i)->out.leader, leader);
    }
    ck_assert_uint_eq(node_of(&c, 1)->leader_times + node_of(&c, 2)->leader_times + node_of(&c, 3)->leader_times, 1);
    cluster_stop(&c);
}
