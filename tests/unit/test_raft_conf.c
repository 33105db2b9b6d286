/* SPDX-License-Identifier: Apache-2.0 */
/* Membership in the consensus core: both guards, catching up, roll back, removal; the bytes of a configuration. */
#include "raft_cluster.h"

static struct cluster c;

static struct raft_member learner(uint64_t id)
{
    struct raft_member m = member(id);
    m.role = RAFT_LEARNER;
    return m;
}

static const struct raft_conf *conf_of(uint64_t id, uint64_t *index)
{
    return raft_conf_newest(node_of(&c, id)->r, index);
}

static bool votes_in(const struct raft_conf *conf, uint64_t id)
{
    const struct raft_member *m = raft_conf_find(conf, id);
    return m && m->role == RAFT_VOTER;
}

/* ---- The bytes ---- */

static struct raft_conf sample(void)
{
    struct raft_conf conf = {0};
    struct raft_member a = {.id = 0x1122334455667788, .role = RAFT_VOTER, .priority = 7};
    strcpy(a.raft_address, "a:1");
    struct raft_member b = {.id = 2, .role = RAFT_LEARNER, .journal_only = 1};
    strcpy(b.client_address, "bc:22");
    ck_assert_int_eq(raft_conf_put(&conf, &a), 0);
    ck_assert_int_eq(raft_conf_put(&conf, &b), 0);
    return conf;
}

TEST(raft_conf_has_golden_bytes_and_a_round_trip)
{
    struct raft_conf conf = sample(), back;
    uint8_t out[RAFT_CONF_ENCODED_MAX];
    size_t n = raft_conf_encode(&conf, out);
    const uint8_t golden[] = {1,    2,    0,    0, /**/
                              2,    0,    0,    0,    0,    0,    0,    0,    RAFT_LEARNER, 1, 0, 0, 5,   'b', 'c', ':',
                              '2',  '2', /**/
                              0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, RAFT_VOTER,   0, 7, 3, 'a', ':', '1', 0};
    ck_assert_uint_eq(n, sizeof(golden));
    ck_assert_mem_eq(out, golden, n);
    ck_assert_int_eq(raft_conf_decode(out, n, &back), 0);
    ck_assert_mem_eq(&back, &conf, sizeof(conf));
    ck_assert_uint_eq(raft_conf_voters(&back), 1);
}

TEST(raft_conf_of_the_greatest_size_fits)
{
    struct raft_conf conf = {0}, back;
    for (uint64_t i = RAFT_MEMBERS_MAX; i > 0; i--) {
        struct raft_member m = {.id = i << 40, .role = RAFT_VOTER};
        memset(m.raft_address, 'r', RAFT_ADDRESS_SIZE - 1);
        memset(m.client_address, 'c', RAFT_ADDRESS_SIZE - 1);
        ck_assert_int_eq(raft_conf_put(&conf, &m), 0);
    }
    struct raft_member more = member(3);
    ck_assert_int_eq(raft_conf_put(&conf, &more), -ENOSPC);
    uint8_t out[RAFT_CONF_ENCODED_MAX];
    size_t n = raft_conf_encode(&conf, out);
    ck_assert_uint_le(n, sizeof(out));
    ck_assert_int_eq(raft_conf_decode(out, n, &back), 0);
    ck_assert_mem_eq(&back, &conf, sizeof(conf));
}

TEST(raft_conf_decoder_refuses_every_truncation_and_every_extra_byte)
{
    struct raft_conf conf = sample(), back;
    uint8_t out[RAFT_CONF_ENCODED_MAX + 1] = {0};
    size_t n = raft_conf_encode(&conf, out);
    for (size_t i = 0; i < n; i++) {
        uint8_t *exact = malloc(i ?: 1); /* so that a sanitizer sees a read beyond */
        memcpy(exact, out, i);
        ck_assert_int_eq(raft_conf_decode(exact, i, &back), -CV_BAD_FORMAT);
        free(exact);
    }
    ck_assert_int_eq(raft_conf_decode(out, n + 1, &back), -CV_BAD_FORMAT);
}

TEST(raft_conf_decoder_refuses_what_no_cluster_may_have)
{
    struct raft_conf conf = sample(), back;
    uint8_t good[RAFT_CONF_ENCODED_MAX], bad[RAFT_CONF_ENCODED_MAX];
    size_t n = raft_conf_encode(&conf, good);
    const struct {
        size_t at;
        uint8_t byte;
        int error;
    } cases[] = {
        {0, 2, -CV_FORMAT_TOO_NEW}, {0, 0, -CV_BAD_FORMAT},
        {1, 1, -CV_BAD_FORMAT},     {1, 3, -CV_BAD_FORMAT},
        {1, 17, -CV_BAD_FORMAT},    {2, 1, -CV_BAD_FORMAT},
        {3, 1, -CV_BAD_FORMAT},     {4, 0, -CV_BAD_FORMAT},
        {12, 0, -CV_BAD_FORMAT},    {12, 3, -CV_BAD_FORMAT},
        {13, 2, -CV_BAD_FORMAT},    {16, 200, -CV_BAD_FORMAT},
        {17, 0, -CV_BAD_FORMAT},    {30, 2, -CV_BAD_FORMAT /* no full voter left */},
        {31, 1, -CV_BAD_FORMAT},
    };
    for (size_t i = 0; i < array_size(cases); i++) {
        memcpy(bad, good, n);
        bad[cases[i].at] = cases[i].byte;
        ck_assert_msg(raft_conf_decode(bad, n, &back) == cases[i].error, "case %d", (int)i);
    }
}

/* ---- Growing and shrinking ---- */

static void grow_by(uint64_t leader, uint64_t id)
{
    join_node(&c, id);
    ck_assert_int_eq(change_conf(&c, leader, RAFT_ADD_LEARNER, learner(id)), 0);
    run_ms(&c, 300);
    ck_assert_int_eq(change_conf(&c, leader, RAFT_PROMOTE, member(id)), 0);
    run_ms(&c, 100);
}

TEST(raft_grows_from_one_voter_to_three_and_back)
{
    cluster_start(&c, 1);
    run_ms(&c, 20);
    for (int i = 0; i < 100; i++)
        propose(&c, 1);
    settle(&c);
    grow_by(1, 2);
    grow_by(1, 3);
    uint64_t index;
    for (uint32_t i = 1; i <= 3; i++) {
        const struct raft_conf *conf = conf_of(i, &index);
        ck_assert_uint_eq(raft_conf_voters(conf), 3);
        ck_assert(status_of(&c, i).conf_committed);
    }
    crash(&c, 1);
    run_ms(&c, 2500);
    uint64_t leader = leader_of(&c);
    ck_assert_uint_ne(leader, 0);
    ck_assert_uint_ne(propose(&c, leader), 0);
    settle(&c);
    boot(&c, 1);
    run_ms(&c, 1000);
    ck_assert_int_eq(change_conf(&c, leader, RAFT_REMOVE, member(1)), 0);
    run_ms(&c, 200);
    ck_assert(node_of(&c, 1)->out.warnings & RAFT_WARN_NOT_MEMBER);
    uint64_t other = 5 - leader;
    ck_assert_int_eq(change_conf(&c, leader, RAFT_DEMOTE, member(other)), 0);
    run_ms(&c, 100);
    ck_assert_int_eq(change_conf(&c, leader, RAFT_REMOVE, member(other)), 0);
    run_ms(&c, 100);
    crash(&c, other);
    crash(&c, 1);
    ck_assert_uint_ne(propose(&c, leader), 0);
    settle(&c);
    run_ms(&c, 5000);
    ck_assert_uint_eq(leader_of(&c), leader);
    ck_assert_uint_eq(node_of(&c, leader)->out.commit, node_of(&c, leader)->out.last);
    cluster_stop(&c);
}

TEST(raft_a_joining_node_waits_and_does_not_campaign)
{
    cluster_start(&c, 1);
    join_node(&c, 2);
    run_ms(&c, 5000);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_FOLLOWER);
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 0);
    step(&c, 2, (struct raft_input){.type = RAFT_IN_CAMPAIGN, .campaign.force = true});
    ck_assert_int_eq(node_of(&c, 2)->result, -EINVAL);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, learner(2)), 0);
    run_ms(&c, 100);
    crash(&c, 1);
    run_ms(&c, 5000);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_FOLLOWER); /* a learner */
    cluster_stop(&c);
}

TEST(raft_refuses_changes_that_make_no_sense)
{
    cluster_start(&c, 3);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(2)), -CV_NOT_LEADER);
    cluster_elect(&c, 1);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, learner(2)), -EEXIST);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(2)), -EEXIST);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(7)), -ENOENT);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(7)), -ENOENT);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(7)), -ENOENT);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_UPDATE, member(7)), -ENOENT);
    ck_assert_int_eq(change_conf(&c, 1, 99, member(2)), -EINVAL);
    struct raft_member zero = learner(5);
    zero.id = 0;
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, zero), -EINVAL);
    ck_assert_uint_eq(node_of(&c, 1)->out.last, 2);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(3)), 0);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(2)), -EBUSY); /* the last is not committed */
    run_ms(&c, 100);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(3)), -EEXIST);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(2)), 0);
    run_ms(&c, 100);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(1)), -EINVAL); /* nobody would vote */
    cluster_stop(&c);

    struct raft_conf conf = voters(3);
    conf.members[1].journal_only = conf.members[2].journal_only = 1;
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++)
        boot(&c, i);
    cluster_elect(&c, 1);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(1)), -EINVAL); /* no full voter left */
    cluster_stop(&c);
}

TEST(raft_does_not_change_membership_while_handing_over)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    run_ms(&c, 100);
    node_of(&c, 2)->disk_held = true;
    propose(&c, 1);
    step(&c, 1, (struct raft_input){.type = RAFT_IN_TRANSFER, .transfer.to = 2});
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(3)), -EBUSY);
    cluster_stop(&c);
}

TEST(raft_updates_addresses_without_touching_votes)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    struct raft_member m = learner(2);
    strcpy(m.raft_address, "elsewhere:1");
    m.priority = 9;
    m.journal_only = 1;
    ck_assert_int_eq(change_conf(&c, 1, RAFT_UPDATE, m), 0);
    run_ms(&c, 100);
    uint64_t index;
    const struct raft_member *now = raft_conf_find(conf_of(3, &index), 2);
    ck_assert_str_eq(now->raft_address, "elsewhere:1");
    ck_assert_uint_eq(now->priority, 9);
    ck_assert_uint_eq(now->role, RAFT_VOTER);
    ck_assert_uint_eq(now->journal_only, 0);
    cluster_stop(&c);
}

TEST(raft_promotes_only_learners_that_caught_up)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    for (int i = 0; i < 300; i++)
        propose(&c, 1);
    settle(&c);
    join_node(&c, 4);
    isolate(&c, 4, true);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, learner(4)), 0);
    run_ms(&c, 700);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(4)), -EAGAIN);
    heal(&c);
    run_ms(&c, 300);
    /* It has everything, but took longer than T_min to get it: one more round has to be short. */
    ck_assert_uint_eq(node_of(&c, 4)->out.last, node_of(&c, 1)->out.last);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(4)), -EAGAIN);
    propose(&c, 1);
    run_ms(&c, 100);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(4)), 0);
    run_ms(&c, 100);
    uint64_t index;
    ck_assert(votes_in(conf_of(4, &index), 4));
    cluster_stop(&c);
}

TEST(raft_a_late_learner_of_an_idle_cluster_catches_up_too)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    settle(&c);
    join_node(&c, 4);
    isolate(&c, 4, true);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, learner(4)), 0);
    run_ms(&c, 2000);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(4)), -EAGAIN);
    heal(&c);
    run_ms(&c, 1500); /* nobody proposes anything */
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(4)), 0);
    cluster_stop(&c);
}

TEST(raft_changes_need_the_new_majority_to_answer)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    crash(&c, 3);
    run_ms(&c, 600);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(2)), -CV_UNREACHABLE); /* 1 and the dead 3 */
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(3)), 0);
    run_ms(&c, 100);
    ck_assert(status_of(&c, 1).conf_committed);
    cluster_stop(&c);
}

/* ---- Known bugs ---- */

/* cowsql/raft 0.22 (R4): two competing single-server changes; Ongaro's correction of 2015. */
TEST(raft_r4_no_change_before_an_entry_of_the_term_is_committed)
{
    cluster_start(&c, 4);
    cluster_elect(&c, 1);
    join_node(&c, 5);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, learner(5)), 0);
    run_ms(&c, 300);
    isolate(&c, 1, true);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(5)), 0); /* on 1 only: five voters */
    settle(&c);
    /* 2 is elected by 3 and 4. Were it to demote 1 at once, 2 and 3 would be a majority of its three voters, while
     * 1, 4, 5 were one of the five. */
    force_campaign(&c, 2);
    sync_disk(&c, 2, 9);
    deliver_of(&c, RAFT_MSG_VOTE, 2, 0);
    sync_disk(&c, 3, 9);
    sync_disk(&c, 4, 9);
    deliver_of(&c, RAFT_MSG_VOTE_REPLY, 0, 2);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_LEADER);
    ck_assert_int_eq(change_conf(&c, 2, RAFT_DEMOTE, member(1)), -EBUSY);
    settle(&c);
    ck_assert_int_eq(change_conf(&c, 2, RAFT_DEMOTE, member(1)), 0);
    settle(&c);
    heal(&c);
    run_ms(&c, 1000);
    uint64_t index;
    for (uint32_t i = 1; i <= 5; i++) {
        ck_assert(!votes_in(conf_of(i, &index), 1));
        ck_assert(!votes_in(conf_of(i, &index), 5));
    }
    cluster_stop(&c);
}

/* cowsql/raft 0.22 (R5): the configuration's index in a batch. */
TEST(raft_r5_a_configuration_behind_a_command_has_its_own_index)
{
    cluster_one_of_three(&c, 2);
    uint8_t bytes[RAFT_CONF_ENCODED_MAX];
    struct raft_conf conf = voters(4);
    struct raft_entry e[2] = {{.term = 2, .type = RAFT_BATCH}, {.term = 2, .type = RAFT_CONF, .data = bytes}};
    e[1].size = (uint32_t)raft_conf_encode(&conf, bytes);
    struct raft_message m = {.type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 2, .entries = e};
    m.append.prev_index = m.append.prev_term = 1;
    m.append.last_term = 2;
    m.append.count = 2;
    inject(&c, m);
    uint64_t index;
    ck_assert_uint_eq(raft_conf_voters(conf_of(2, &index)), 4);
    ck_assert_uint_eq(index, 3);
    ck_assert_uint_eq(raft_conf_voters(raft_conf_at(node_of(&c, 2)->r, 2, &index)), 3);
    ck_assert_uint_eq(index, 1);
    /* And is gone when entry 3 is. */
    inject_append(&c, 3, 2, 3, 2, 2, 3, 1, 1);
    ck_assert_uint_eq(raft_conf_voters(conf_of(2, &index)), 3);
    ck_assert_uint_eq(index, 1);
    ck_assert_ptr_null(raft_conf_at(node_of(&c, 2)->r, 0, &index));
    cluster_stop(&c);
}

TEST(raft_a_truncated_configuration_is_no_longer_in_force)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    isolate(&c, 1, true);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(3)), 0);
    settle(&c);
    uint64_t index;
    ck_assert(!votes_in(conf_of(1, &index), 3));
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 2);
    cluster_elect(&c, 2);
    heal(&c);
    run_ms(&c, 300);
    ck_assert(votes_in(conf_of(1, &index), 3));
    crash(&c, 2);
    run_ms(&c, 2500);
    ck_assert_uint_ne(leader_of(&c), 0);
    cluster_stop(&c);
}

TEST(raft_stops_when_both_known_configurations_are_truncated)
{
    struct raft_conf conf = voters(3);
    cluster_format(&c, &conf);
    node_of(&c, 2)->disk->first = 2; /* as if 1 were compacted and its configuration forgotten */
    node_of(&c, 2)->disk->base_term = 1;
    node_of(&c, 2)->disk->last = 2;
    node_of(&c, 2)->disk->log[2] = node_of(&c, 2)->disk->log[1];
    node_of(&c, 2)->disk->confs[0].index = 2;
    boot(&c, 2);
    c.expect_alarm = true;
    inject_append(&c, 1, 2, 3, 1, 1, 3, 1, 1);
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_LOG_DIVERGED);
    ck_assert_str_eq(raft_alarm(node_of(&c, 2)->r), "removing entries took away both known configurations");
    cluster_stop(&c);
}

/* ---- Removing ---- */

TEST(raft_a_removed_leader_goes_when_its_removal_is_committed)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    run_ms(&c, 100);
    ck_assert_uint_gt(node_of(&c, 1)->out.lease_until_ms, c.now_ms);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(1)), 0);
    ck_assert_int_eq(node_of(&c, 1)->out.role, RAFT_LEADER);
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, 0); /* 2 and 3 may already elect without it */
    uint64_t index = node_of(&c, 1)->out.proposed_first;
    /* It leads, but does not count: both others have to have it. */
    crash(&c, 3);
    settle(&c);
    ck_assert_uint_lt(node_of(&c, 1)->out.commit, index);
    boot(&c, 3);
    uint64_t start_ms = c.now_ms;
    while (leader_of(&c) < 2 && c.now_ms < start_ms + 2000)
        run_ms(&c, 10);
    ck_assert_uint_gt(leader_of(&c), 1); /* told at once: nobody waited for a timeout */
    ck_assert_uint_le(c.now_ms, start_ms + 250);
    ck_assert_int_eq(node_of(&c, 1)->out.role, RAFT_FOLLOWER);
    uint64_t term = node_of(&c, leader_of(&c))->out.term;
    run_ms(&c, 5000);
    ck_assert_uint_eq(node_of(&c, leader_of(&c))->out.term, term);
    ck_assert(node_of(&c, 1)->out.warnings & RAFT_WARN_NOT_MEMBER);
    cluster_stop(&c);
}

/* Found by random schedules: the promoted node does not know yet, so it never campaigns and never learns the term. */
TEST(raft_a_prevote_of_a_voter_at_an_older_term_counts)
{
    cluster_start(&c, 1);
    join_node(&c, 2);
    run_ms(&c, 20);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_ADD_LEARNER, learner(2)), 0);
    run_ms(&c, 300);
    cut(&c, 1, 2);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_PROMOTE, member(2)), 0);
    settle(&c);
    crash(&c, 1);
    boot(&c, 1);
    for (int i = 0; i < 3; i++)
        force_campaign(&c, 1);
    settle(&c);
    ck_assert_uint_gt(node_of(&c, 1)->out.term, node_of(&c, 2)->out.term + 1);
    run_ms(&c, 2000);
    heal(&c);
    run_ms(&c, 3000);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert(status_of(&c, 2).conf_committed);
    cluster_stop(&c);
}

TEST(raft_a_removed_follower_stops_campaigning)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_REMOVE, member(3)), 0);
    settle(&c);
    run_ms(&c, 5000);
    ck_assert_int_eq(node_of(&c, 3)->out.role, RAFT_FOLLOWER);
    ck_assert_uint_eq(status_of(&c, 1).peer_count, 1);
    cluster_stop(&c);
}

TEST(raft_a_demoted_leader_is_still_needed_until_that_is_committed)
{
    cluster_start(&c, 2);
    cluster_elect(&c, 1);
    run_ms(&c, 100);
    cut(&c, 1, 2);
    ck_assert_int_eq(change_conf(&c, 1, RAFT_DEMOTE, member(1)), 0);
    settle(&c);
    run_ms(&c, 3000); /* it steps down: 2 does not answer. 2 needs its vote, and has the shorter log */
    heal(&c);
    run_ms(&c, 5000);
    uint64_t index;
    ck_assert_uint_eq(leader_of(&c), 2);
    ck_assert(!votes_in(conf_of(2, &index), 1));
    ck_assert_uint_eq(node_of(&c, 1)->out.leader, 2);
    cluster_stop(&c);
}
