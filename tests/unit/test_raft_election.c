/* SPDX-License-Identifier: Apache-2.0 */
/* Elections of the consensus core: votes, pre-votes, stickiness, quorum check, transfer, journal-only voters. */
#include "raft_cluster.h"

static struct cluster c;

static struct raft_message vote_request(uint64_t from, uint64_t to, uint64_t term, uint64_t last, uint64_t last_term)
{
    struct raft_message m = {.type = RAFT_MSG_VOTE, .from = from, .to = to, .term = term};
    m.vote.last_index = last;
    m.vote.last_term = last_term;
    return m;
}

static bool granted(uint64_t voter, uint64_t candidate)
{
    const struct raft_send *s = sent(&c, voter, RAFT_MSG_VOTE_REPLY, candidate);
    return s && s->message.vote_reply.granted;
}

/* One of three, its promise of before the start run out, with entries 2..4 of term 2. */
static void voter_start(void)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 3, 1);
    sync_disk(&c, 2, 9);
    c.now_ms += 600;
}

TEST(raft_a_vote_leaves_only_when_it_is_on_disk)
{
    voter_start();
    inject(&c, vote_request(3, 2, 3, 4, 2));
    ck_assert(granted(2, 3));
    uint64_t seq = node_of(&c, 2)->out.write.seq;
    ck_assert_uint_ne(seq, 0);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.term, 3);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.vote, 3);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_VOTE_REPLY, 3)->after_seq, seq);
    ck_assert_uint_eq(flying_of(&c, RAFT_MSG_VOTE_REPLY, 2, 3), 0);
    sync_disk(&c, 2, 9);
    ck_assert_uint_eq(flying_of(&c, RAFT_MSG_VOTE_REPLY, 2, 3), 1);
    cluster_stop(&c);
}

TEST(raft_a_candidate_asks_only_when_its_own_vote_is_on_disk)
{
    voter_start();
    force_campaign(&c, 2);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_VOTE, 1)->after_seq, node_of(&c, 2)->out.write.seq);
    /* A vote that comes before it, by whatever way, does not make a leader. */
    struct raft_message m = {.type = RAFT_MSG_VOTE_REPLY, .from = 1, .to = 2, .term = 3};
    m.vote_reply.granted = 1;
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_CANDIDATE);
    sync_disk(&c, 2, 9);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_LEADER);
    cluster_stop(&c);
}

TEST(raft_votes_once_a_term_also_across_a_crash)
{
    voter_start();
    inject(&c, vote_request(3, 2, 3, 4, 2));
    ck_assert(granted(2, 3));
    inject(&c, vote_request(1, 2, 3, 4, 2));
    ck_assert(!granted(2, 1));
    inject(&c, vote_request(3, 2, 3, 4, 2)); /* repeated: yes again */
    ck_assert(granted(2, 3));
    sync_disk(&c, 2, 9);
    crash(&c, 2);
    boot(&c, 2);
    c.now_ms += 600;
    inject(&c, vote_request(1, 2, 3, 9, 2));
    ck_assert(!granted(2, 1));
    inject(&c, vote_request(1, 2, 4, 9, 2));
    ck_assert(granted(2, 1));
    cluster_stop(&c);
}

TEST(raft_compares_logs_by_last_term_before_length)
{
    voter_start();
    inject(&c, vote_request(3, 2, 3, 100, 1)); /* long, but old */
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 3);
    ck_assert(!granted(2, 3));
    inject(&c, vote_request(3, 2, 4, 3, 2)); /* shorter */
    ck_assert(!granted(2, 3));
    inject(&c, vote_request(3, 2, 5, 2, 3)); /* short, but newer */
    ck_assert(granted(2, 3));
    cluster_stop(&c);
}

TEST(raft_does_not_vote_while_it_hears_a_leader)
{
    voter_start();
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT, .from = 1, .to = 2, .term = 2};
    h.heartbeat.round = 1;
    inject(&c, h);
    c.now_ms += 490;
    inject(&c, vote_request(3, 2, 3, 9, 2));
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 2); /* not even the term (4.2.3) */
    ck_assert_uint_eq(node_of(&c, 2)->out.send_count, 0);
    struct raft_message p = {.type = RAFT_MSG_PREVOTE, .from = 3, .to = 2, .term = 2};
    p.prevote.next_term = 3;
    p.prevote.last_index = 9;
    p.prevote.last_term = 2;
    inject(&c, p);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_PREVOTE_REPLY, 3)->message.prevote_reply.granted, 0);
    c.now_ms += 20;
    inject(&c, p);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_PREVOTE_REPLY, 3)->message.prevote_reply.granted, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 2);
    inject(&c, vote_request(3, 2, 3, 9, 2));
    ck_assert(granted(2, 3));
    cluster_stop(&c);
}

TEST(raft_does_not_vote_right_after_a_start)
{
    voter_start();
    crash(&c, 2);
    boot(&c, 2);
    c.now_ms += 490;
    inject(&c, vote_request(3, 2, 3, 9, 2));
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 2);
    ck_assert(!granted(2, 3));
    struct raft_message m = vote_request(3, 2, 3, 9, 2);
    m.vote.transfer = 1; /* the leader wants it */
    inject(&c, m);
    ck_assert(granted(2, 3));
    cluster_stop(&c);
}

TEST(raft_a_node_cut_off_does_not_disturb_when_it_returns)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t term = node_of(&c, 1)->out.term;
    isolate(&c, 3, true);
    run_ms(&c, 5000);
    ck_assert_uint_eq(node_of(&c, 3)->out.term, term); /* it only ever asked first (9.6) */
    ck_assert_int_eq(node_of(&c, 3)->out.role, RAFT_PRECANDIDATE);
    propose(&c, 1);
    heal(&c);
    run_ms(&c, 1000);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_uint_eq(node_of(&c, 1)->out.term, term);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, node_of(&c, 1)->out.commit);
    cluster_stop(&c);
}

TEST(raft_one_broken_link_does_not_unseat_the_leader)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t term = node_of(&c, 1)->out.term;
    cut(&c, 1, 3); /* 2 hears both */
    run_ms(&c, 5000);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_uint_eq(node_of(&c, 1)->out.term, term);
    cluster_stop(&c);
}

/* openraft issue 1796: who has the higher term cannot win, who could win does not learn of the term. */
TEST(raft_prevote_does_not_deadlock_between_a_higher_term_and_a_longer_log)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    isolate(&c, 3, true);
    for (int i = 0; i < 5; i++)
        propose(&c, 1);
    settle(&c);
    for (int i = 0; i < 7; i++) {
        force_campaign(&c, 3); /* a higher term with a shorter log */
        settle(&c);
    }
    ck_assert_uint_eq(node_of(&c, 3)->out.term, 9);
    crash(&c, 2);
    crash(&c, 1);
    heal(&c);
    boot(&c, 1);
    ck_assert_uint_eq(node_of(&c, 1)->out.term, 2);
    run_ms(&c, 5000);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_uint_ge(node_of(&c, 3)->out.commit, 7);
    cluster_stop(&c);
}

TEST(raft_a_node_stuck_at_a_higher_term_rejoins)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    isolate(&c, 3, true);
    for (int i = 0; i < 3; i++)
        force_campaign(&c, 3);
    settle(&c);
    uint64_t term = node_of(&c, 3)->out.term;
    ck_assert_uint_gt(term, node_of(&c, 1)->out.term);
    heal(&c);
    run_ms(&c, 3000);
    ck_assert_uint_ne(leader_of(&c), 0);
    ck_assert_uint_gt(node_of(&c, 1)->out.term, term);
    ck_assert_uint_eq(node_of(&c, 3)->out.leader, leader_of(&c));
    cluster_stop(&c);
}

TEST(raft_a_leader_without_a_majority_steps_down)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    isolate(&c, 1, true);
    run_ms(&c, 400);
    ck_assert_int_eq(node_of(&c, 1)->out.role, RAFT_LEADER);
    run_ms(&c, 200);
    ck_assert_int_ne(node_of(&c, 1)->out.role, RAFT_LEADER);
    ck_assert_uint_eq(node_of(&c, 1)->out.leader, 0);
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, 0);
    run_ms(&c, 2000);
    uint64_t leader = leader_of(&c);
    ck_assert(leader == 2 || leader == 3);
    heal(&c);
    run_ms(&c, 200);
    ck_assert_uint_eq(node_of(&c, 1)->out.leader, leader);
    cluster_stop(&c);
}

TEST(raft_campaign_waits_for_earlier_promises_unless_forced)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t term = node_of(&c, 1)->out.term;
    struct raft_input in = {.type = RAFT_IN_CAMPAIGN};
    step(&c, 1, in);
    ck_assert_int_eq(node_of(&c, 1)->result, -EINVAL); /* leads already */
    step(&c, 2, in);
    ck_assert_int_eq(node_of(&c, 2)->result, 0);
    run_ms(&c, 2000);
    ck_assert_uint_eq(node_of(&c, 1)->out.term, term); /* it hears the leader */
    crash(&c, 1);
    uint64_t heard_ms = c.now_ms;
    step(&c, 2, in);
    while (!leader_of(&c) && c.now_ms < heard_ms + 3000)
        run_ms(&c, 10);
    ck_assert_uint_ge(c.now_ms, heard_ms + 440); /* the others promised too */
    ck_assert_uint_ne(leader_of(&c), 0);
    cluster_stop(&c);
}

/* ---- Transfer ---- */

static int transfer(uint64_t id, uint64_t to)
{
    step(&c, id, (struct raft_input){.type = RAFT_IN_TRANSFER, .transfer.to = to});
    return node_of(&c, id)->result;
}

TEST(raft_transfers_leadership_within_a_heartbeat)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    ck_assert_int_eq(transfer(2, 1), -CV_NOT_LEADER);
    ck_assert_int_eq(transfer(1, 1), -ENOENT);
    ck_assert_int_eq(transfer(1, 9), -ENOENT);
    propose(&c, 1);
    ck_assert_int_eq(transfer(1, 3), 0);
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, 0);
    ck_assert_int_eq(transfer(1, 2), -EBUSY);
    ck_assert_uint_eq(propose(&c, 1), 0);
    ck_assert_int_eq(node_of(&c, 1)->result, -CV_BUSY);
    settle(&c);
    ck_assert_uint_eq(leader_of(&c), 3);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, 4);
    cluster_stop(&c);
}

TEST(raft_transfer_brings_the_successor_to_the_end_first)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    cut(&c, 1, 3);
    for (int i = 0; i < 200; i++)
        propose(&c, 1);
    settle(&c);
    run_ms(&c, 100);
    heal(&c);
    ck_assert_int_eq(transfer(1, 3), 0);
    ck_assert_ptr_null(sent(&c, 1, RAFT_MSG_TIMEOUT_NOW, 3));
    run_ms(&c, 300);
    ck_assert_uint_eq(leader_of(&c), 3);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, 203);
    cluster_stop(&c);
}

TEST(raft_transfer_given_up_takes_proposals_again_but_the_lease_is_gone)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    cut(&c, 1, 3);
    propose(&c, 1);
    settle(&c);
    ck_assert_int_eq(transfer(1, 3), 0); /* heard lately, yet behind */
    run_ms(&c, 490);
    ck_assert_uint_eq(propose(&c, 1), 0);
    run_ms(&c, 30);
    ck_assert_uint_ne(propose(&c, 1), 0);
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, 0);
    ck_assert(status_of(&c, 1).lease_lost);
    ck_assert_int_eq(transfer(1, 3), -CV_UNREACHABLE);
    ck_assert_int_eq(transfer(1, 0), 0);
    settle(&c);
    ck_assert_uint_eq(leader_of(&c), 2);
    run_ms(&c, 60);
    ck_assert_uint_gt(node_of(&c, 2)->out.lease_until_ms, c.now_ms);
    cluster_stop(&c);
}

TEST(raft_a_delayed_timeout_now_finds_a_leader_without_lease)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    ck_assert_int_eq(transfer(1, 3), 0);
    ck_assert_uint_eq(flying_of(&c, RAFT_MSG_TIMEOUT_NOW, 1, 3), 1);
    struct flying *late = NULL;
    for (uint32_t i = 0; i < c.flying_count; i++)
        if (c.flying[i]->m.type == RAFT_MSG_TIMEOUT_NOW)
            late = catch_message(&c, i);
    for (int i = 0; i < 100; i++) {
        tick(&c);
        for (uint32_t k = 0; k < c.flying_count; k++)
            if (c.flying[k]->m.type == RAFT_MSG_TIMEOUT_NOW)
                drop(catch_message(&c, k));
        settle(&c);
    }
    ck_assert_uint_eq(leader_of(&c), 1);
    deliver(&c, late); /* long after: overrides the promises of 1 and 2 */
    ck_assert_uint_eq(node_of(&c, 1)->out.lease_until_ms, 0);
    settle(&c);
    ck_assert_uint_eq(leader_of(&c), 3);
    cluster_stop(&c);
}

TEST(raft_ignores_a_timeout_now_that_names_more_than_it_has)
{
    voter_start();
    struct raft_message m = {.type = RAFT_MSG_TIMEOUT_NOW, .from = 1, .to = 2, .term = 2};
    m.timeout_now.last_index = 5;
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_FOLLOWER);
    m.timeout_now.last_index = 4;
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_CANDIDATE);
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 3);
    m.term = 1; /* an old one: its sender hears of our term */
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_CANDIDATE);
    ck_assert_ptr_nonnull(sent(&c, 2, RAFT_MSG_HEARTBEAT_REPLY, 1));
    cluster_stop(&c);
}

TEST(raft_a_leader_whose_application_cannot_lead_hands_over)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    run_ms(&c, 100);
    node_of(&c, 2)->can_lead = false;
    tell_app(&c, 2);
    run_ms(&c, 100);
    node_of(&c, 1)->can_lead = false;
    tell_app(&c, 1);
    run_ms(&c, 100);
    ck_assert_uint_eq(leader_of(&c), 3);
    /* Nobody able: it stays, and says so. */
    node_of(&c, 3)->can_lead = false;
    tell_app(&c, 3);
    run_ms(&c, 6000);
    ck_assert_uint_eq(leader_of(&c), 3);
    ck_assert(node_of(&c, 3)->out.warnings & RAFT_WARN_HANDOVER);
    node_of(&c, 1)->can_lead = true;
    tell_app(&c, 1);
    run_ms(&c, 300);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_uint_eq(node_of(&c, 1)->out.warnings, 0);
    cluster_stop(&c);

    cluster_start(&c, 1); /* never with one voter */
    node_of(&c, 1)->can_lead = false;
    tell_app(&c, 1);
    run_ms(&c, 1000);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_uint_ne(propose(&c, 1), 0);
    cluster_stop(&c);
}

static void make(uint64_t id, bool can_lead, bool reluctant)
{
    node_of(&c, id)->can_lead = can_lead;
    node_of(&c, id)->reluctant = reluctant;
    tell_app(&c, id);
}

TEST(raft_a_reluctant_leader_hands_over_to_who_is_not_and_to_nobody_else)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    run_ms(&c, 100);
    make(2, true, true);
    run_ms(&c, 100);
    make(1, true, true);
    run_ms(&c, 100);
    ck_assert_uint_eq(leader_of(&c), 3);
    uint64_t term = node_of(&c, 3)->out.term;
    make(3, true, true); /* all are: no to and fro */
    run_ms(&c, 10000);
    ck_assert_uint_eq(leader_of(&c), 3);
    ck_assert_uint_eq(node_of(&c, 3)->out.term, term);
    ck_assert_uint_ne(propose(&c, 3), 0);
    make(2, true, false);
    run_ms(&c, 300);
    ck_assert_uint_eq(leader_of(&c), 2);
    cluster_stop(&c);
}

TEST(raft_a_leader_that_cannot_lead_hands_over_to_the_reluctant_when_nobody_is_willing)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    make(2, false, false);
    make(3, true, true);
    run_ms(&c, 100);
    make(1, false, false);
    run_ms(&c, 100);
    ck_assert_uint_eq(leader_of(&c), 3);
    run_ms(&c, 5000);
    ck_assert_uint_eq(leader_of(&c), 3); /* nobody is better */
    cluster_stop(&c);
}

TEST(raft_a_node_that_cannot_lead_campaigns_later_but_campaigns)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    for (int i = 1; i <= 3; i++) {
        node_of(&c, i)->can_lead = i == 3;
        tell_app(&c, i);
    }
    run_ms(&c, 200);
    ck_assert_uint_eq(leader_of(&c), 3);
    crash(&c, 3);
    uint64_t start_ms = c.now_ms;
    while (!leader_of(&c) && c.now_ms < start_ms + 5000)
        run_ms(&c, 10);
    ck_assert_uint_ne(leader_of(&c), 0);
    ck_assert_uint_ge(c.now_ms - start_ms, 900);
    cluster_stop(&c);
}

/* ---- Journal-only voters ---- */

static void two_full_one_journal(void)
{
    struct raft_conf conf = voters(3);
    conf.members[2].journal_only = 1;
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++)
        boot(&c, i);
}

TEST(raft_a_journal_only_voter_campaigns_last)
{
    for (int run = 0; run < 10; run++) {
        two_full_one_journal();
        for (uint32_t i = 1; i <= 3; i++)
            node_of(&c, i)->options.seed = 100 * run + i;
        cluster_elect(&c, 1);
        crash(&c, 1);
        run_ms(&c, 3000);
        ck_assert_uint_eq(leader_of(&c), 2);
        ck_assert_uint_eq(node_of(&c, 3)->leader_times, 0);
        cluster_stop(&c);
    }
}

TEST(raft_hands_over_to_who_is_able_then_furthest_then_preferred)
{
    for (int run = 0; run < 3; run++) {
        struct raft_conf conf = voters(4);
        conf.members[2].priority = 5;
        cluster_format(&c, &conf);
        for (uint32_t i = 1; i <= 4; i++)
            boot(&c, i);
        cluster_elect(&c, 1);
        if (run == 1) { /* 3 is preferred, but not able */
            node_of(&c, 3)->can_lead = false;
            tell_app(&c, 3);
        }
        run_ms(&c, 100);
        if (run == 2) { /* 3 and 2 are preferred or first, but behind */
            node_of(&c, 3)->disk_held = node_of(&c, 2)->disk_held = true;
            propose(&c, 1);
            settle(&c);
        }
        ck_assert_int_eq(transfer(1, 0), 0);
        ck_assert_uint_eq(status_of(&c, 1).transfer_to, run == 0 ? 3 : run == 1 ? 2 : 4);
        cluster_stop(&c);
    }
}

TEST(raft_transfers_only_to_full_voters_that_answer)
{
    two_full_one_journal();
    cluster_elect(&c, 1);
    ck_assert_int_eq(transfer(1, 3), -ENOENT);
    crash(&c, 2);
    run_ms(&c, 600);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_int_eq(transfer(1, 2), -CV_UNREACHABLE);
    ck_assert_int_eq(transfer(1, 0), -CV_UNREACHABLE);
    ck_assert_uint_gt(node_of(&c, 1)->out.lease_until_ms, c.now_ms); /* nothing was begun */
    cluster_stop(&c);
}

TEST(raft_a_journal_only_leader_saves_the_tail_and_hands_over)
{
    two_full_one_journal();
    cluster_elect(&c, 1);
    run_ms(&c, 100);
    cut(&c, 1, 2);
    uint64_t index = propose(&c, 1);
    settle(&c);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, index); /* on 1 and 3 only */
    crash(&c, 1);
    heal(&c);
    for (int i = 0; i < 500 && !(leader_of(&c) == 2); i++) {
        run_ms(&c, 10);
        if (leader_of(&c) == 3) {
            ck_assert_uint_eq(propose(&c, 3), 0);
            ck_assert_int_eq(node_of(&c, 3)->result, -CV_NOT_LEADER);
        }
    }
    ck_assert_uint_gt(node_of(&c, 3)->leader_times, 0); /* it had to */
    ck_assert_uint_eq(leader_of(&c), 2);
    ck_assert_uint_ge(node_of(&c, 2)->out.commit, index);
    ck_assert_uint_ne(propose(&c, 2), 0);
    cluster_stop(&c);
}

TEST(raft_a_journal_only_leader_alone_with_a_sleeping_master_warns)
{
    two_full_one_journal();
    cluster_elect(&c, 1);
    node_of(&c, 2)->can_lead = false;
    tell_app(&c, 2);
    run_ms(&c, 100);
    crash(&c, 1);
    force_campaign(&c, 3);
    settle(&c);
    run_ms(&c, 5500);
    ck_assert_uint_eq(leader_of(&c), 3);
    ck_assert(node_of(&c, 3)->out.warnings & RAFT_WARN_HANDOVER);
    node_of(&c, 2)->can_lead = true;
    tell_app(&c, 2);
    run_ms(&c, 700);
    ck_assert_uint_eq(leader_of(&c), 2);
    cluster_stop(&c);
}
