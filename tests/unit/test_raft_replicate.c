/* SPDX-License-Identifier: Apache-2.0 */
/* Replication in the consensus core: the commit rules, what is durable, gaps, windows, and known bugs of others. */
#include "raft_cluster.h"

static struct cluster c;

/* ---- Commit ---- */

/* libraft 0.15 (R2): dissertation figure 3.7. */
TEST(raft_r2_old_terms_are_not_committed_by_counting)
{
    struct raft_conf conf = voters(5);
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 5; i++) {
        node_of(&c, i)->options.append_entries_max = 1;
        boot(&c, i);
    }
    cluster_elect(&c, 1); /* term 2, entry 2 everywhere */
    for (uint32_t i = 3; i <= 5; i++)
        cut(&c, 1, i);
    ck_assert_uint_eq(propose(&c, 1), 3); /* on 1 and 2 */
    settle(&c);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 2);
    crash(&c, 1);

    cut(&c, 5, 2);
    force_campaign(&c, 5); /* term 3 by 3, 4, 5 */
    sync_disk(&c, 5, 9);
    deliver_of(&c, RAFT_MSG_VOTE, 5, 0);
    sync_disk(&c, 3, 9);
    sync_disk(&c, 4, 9);
    deliver_of(&c, RAFT_MSG_VOTE_REPLY, 0, 5);
    ck_assert_int_eq(node_of(&c, 5)->out.role, RAFT_LEADER);
    sync_disk(&c, 5, 9); /* entry 3 of term 3 on 5 only */
    drop_all(&c);
    crash(&c, 5);

    heal(&c);
    boot(&c, 1);
    force_campaign(&c, 1); /* term 3 is taken by 3, 4: 1 gets there in a second attempt */
    settle(&c);
    force_campaign(&c, 1);
    sync_disk(&c, 1, 9);
    deliver_of(&c, RAFT_MSG_VOTE, 1, 0);
    for (uint32_t i = 2; i <= 4; i++)
        sync_disk(&c, i, 9);
    deliver_of(&c, RAFT_MSG_VOTE_REPLY, 0, 1);
    ck_assert_int_eq(node_of(&c, 1)->out.role, RAFT_LEADER);
    ck_assert_uint_eq(node_of(&c, 1)->out.start_index, 4);
    sync_disk(&c, 1, 9);
    /* 3 and 4 get entry 3 of term 2, and no more. */
    for (uint32_t i = 3; i <= 4; i++) {
        deliver_of(&c, RAFT_MSG_APPEND, 1, i); /* rejected */
        deliver_of(&c, RAFT_MSG_APPEND_REPLY, i, 1);
        deliver_of(&c, RAFT_MSG_APPEND, 1, i);
        sync_disk(&c, i, 9);
        deliver_of(&c, RAFT_MSG_APPEND_REPLY, i, 1);
        ck_assert_uint_eq(node_of(&c, i)->disk->last, 3);
        ck_assert_uint_eq(node_of(&c, i)->disk->log[3].term, 2);
    }
    ck_assert_uint_eq(status_of(&c, 1).peers[1].match, 3);
    ck_assert_uint_eq(status_of(&c, 1).peers[2].match, 3);
    /* On 1, 3 and 4, a majority, but not of this term. */
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 2);
    drop_all(&c);
    crash(&c, 1);
    crash(&c, 2);

    boot(&c, 5);
    force_campaign(&c, 5); /* and so 5 may yet replace it */
    settle(&c);
    force_campaign(&c, 5);
    settle(&c);
    ck_assert_uint_eq(leader_of(&c), 5);
    run_ms(&c, 200);
    ck_assert_uint_eq(node_of(&c, 3)->disk->log[3].term, 3);
    boot(&c, 1);
    boot(&c, 2);
    run_ms(&c, 1000);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, node_of(&c, 5)->out.commit);
    cluster_stop(&c);
}

/* RedisLabs/raft (R6): commit beyond what the message covers. */
TEST(raft_r6_commit_covers_only_what_the_message_verified)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 2, 1); /* 2, 3 of term 2, never committed */
    inject_append(&c, 3, 2, 3, 2, 2, 3, 0, 4); /* term 3's leader: we agree up to 2, and 4 is committed */
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 2);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 3);
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT, .from = 3, .to = 2, .term = 3};
    h.heartbeat.round = 1;
    h.heartbeat.commit = 3;
    inject(&c, h);
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 2);
    inject_append(&c, 3, 2, 3, 2, 2, 3, 2, 4);
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 4);
    cluster_stop(&c);
}

TEST(raft_follower_commit_never_goes_back)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 4, 4);
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 4);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 2, 2); /* delayed */
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 4);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 5);
    cluster_stop(&c);
}

TEST(raft_a_leader_counts_itself_only_when_its_disk_has_it)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    node_of(&c, 1)->disk_held = true;
    crash(&c, 3);
    uint64_t index = propose(&c, 1);
    settle(&c);
    ck_assert_uint_eq(node_of(&c, 2)->disk->last, index);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, index - 1);
    boot(&c, 3);
    run_ms(&c, 200);
    /* Two other disks are a majority without it (10.2.1), but its application's state must not get ahead of its log. */
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, index);
    ck_assert_uint_eq(node_of(&c, 1)->out.apply_to, index - 1);
    node_of(&c, 1)->disk_held = false;
    settle(&c);
    ck_assert_uint_eq(node_of(&c, 1)->out.apply_to, index);
    cluster_stop(&c);
}

TEST(raft_an_ack_leaves_only_when_the_entries_are_on_disk)
{
    cluster_one_of_three(&c, 2);
    node_of(&c, 2)->disk_held = true;
    inject_append(&c, 1, 2, 2, 1, 1, 2, 3, 1);
    uint64_t seq = node_of(&c, 2)->out.write.seq;
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_APPEND_REPLY, 1)->after_seq, seq);
    /* The same again, nothing to write: it waits all the same. */
    inject_append(&c, 1, 2, 2, 1, 1, 2, 3, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.seq, 0);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_APPEND_REPLY, 1)->after_seq, seq);
    /* A heartbeat's answer waits for the term, and tells apart what came and what is durable. */
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT, .from = 1, .to = 2, .term = 2};
    h.heartbeat.round = 1;
    inject(&c, h);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_HEARTBEAT_REPLY, 1)->after_seq, seq);
    sync_disk(&c, 2, 9);
    inject_append(&c, 1, 2, 2, 4, 2, 2, 1, 1);
    h.heartbeat.round = 2;
    inject(&c, h);
    const struct raft_send *s = sent(&c, 2, RAFT_MSG_HEARTBEAT_REPLY, 1);
    ck_assert_uint_eq(s->after_seq, 0);
    ck_assert_uint_eq(s->message.heartbeat_reply.accepted, 5);
    ck_assert_uint_eq(s->message.heartbeat_reply.match, 4);
    cluster_stop(&c);
}

/* etcd's asynchronous storage writes: an ack for bytes that a queued truncation is about to remove. */
TEST(raft_a_late_disk_ack_does_not_count_for_what_replaced_the_entry)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 2, 1); /* write 1: 2, 3 of term 2 */
    inject_append(&c, 3, 2, 3, 1, 1, 3, 2, 3); /* write 2: removes them, 2, 3 of term 3 */
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 3);
    sync_disk(&c, 2, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.apply_to, 1);
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT, .from = 3, .to = 2, .term = 3};
    h.heartbeat.round = 1;
    inject(&c, h);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_HEARTBEAT_REPLY, 3)->message.heartbeat_reply.match, 1);
    sync_disk(&c, 2, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 3);
    cluster_stop(&c);
}

TEST(raft_a_late_disk_ack_does_not_count_though_the_same_entry_came_back)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 2, 1); /* write 1: 2, 3 of term 2 */
    inject_append(&c, 3, 2, 3, 1, 1, 3, 1, 1); /* write 2: truncates, 2 of term 3 */
    inject_append(&c, 1, 2, 4, 1, 1, 2, 2, 1); /* write 3: truncates, 2, 3 of term 2 again */
    sync_disk(&c, 2, 1);
    /* Equal index and term, but write 2 will take them off the disk before write 3 puts them back. */
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 1);
    sync_disk(&c, 2, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 1);
    sync_disk(&c, 2, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 3);
    cluster_stop(&c);
}

/* ---- Followers ---- */

TEST(raft_truncation_and_what_follows_are_one_write)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 5, 1);
    inject_append(&c, 3, 2, 3, 3, 2, 3, 2, 1);
    const struct raft_write *w = &node_of(&c, 2)->out.write;
    ck_assert_uint_eq(w->term, 3);
    ck_assert_uint_eq(w->vote, 0);
    ck_assert_uint_eq(w->truncate_from, 4);
    ck_assert_uint_eq(w->first, 4);
    ck_assert_uint_eq(w->count, 2);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 5);
    cluster_stop(&c);
}

TEST(raft_a_delayed_append_does_not_remove_what_came_after_it)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 5, 1);
    sync_disk(&c, 2, 9);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 2, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 6);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.seq, 0);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 0, 1);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 6);
    cluster_stop(&c);
}

TEST(raft_rejections_tell_where_to_go_on)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 3, 1, 1, 2, 4, 1); /* 2..5 of term 2 */
    inject_append(&c, 1, 2, 3, 5, 2, 3, 3, 1); /* 6..8 of term 3 */
    inject_append(&c, 3, 2, 5, 20, 5, 5, 1, 1);
    const struct raft_message *m = &sent(&c, 2, RAFT_MSG_APPEND_REPLY, 3)->message;
    ck_assert_uint_eq(m->append_reply.rejected, 1);
    ck_assert_uint_eq(m->append_reply.index, 20);
    ck_assert_uint_eq(m->append_reply.last_index, 8);
    ck_assert_uint_eq(m->append_reply.conflict_term, 0);
    inject_append(&c, 3, 2, 5, 7, 4, 5, 1, 1);
    m = &sent(&c, 2, RAFT_MSG_APPEND_REPLY, 3)->message;
    ck_assert_uint_eq(m->append_reply.conflict_term, 3);
    ck_assert_uint_eq(m->append_reply.conflict_first, 6);
    cluster_stop(&c);
}

/* ---- Catching up ---- */

static void lagging(uint32_t entries)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    isolate(&c, 3, true);
    for (uint32_t i = 0; i < entries; i++) {
        propose(&c, 1);
        if (i % 50 == 0)
            settle(&c);
    }
    settle(&c);
}

TEST(raft_catches_up_in_a_few_messages)
{
    lagging(1000);
    heal(&c);
    uint64_t before = c.delivered;
    run_ms(&c, 300);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, 1002);
    /* 1000 entries at 64 a message, acks, a few heartbeats. */
    ck_assert_uint_lt(c.delivered - before, 90);
    cluster_stop(&c);
}

TEST(raft_replaces_a_divergent_tail_in_a_few_messages)
{
    for (int pessimistic = 0; pessimistic < 2; pessimistic++) {
        struct raft_conf conf = voters(3);
        cluster_format(&c, &conf);
        for (uint32_t i = 1; i <= 3; i++) {
            node_of(&c, i)->options.pessimistic_hints = pessimistic;
            boot(&c, i);
        }
        cluster_elect(&c, 1);
        isolate(&c, 1, true);
        for (int i = 0; i < 60; i++)
            propose(&c, 1); /* doomed */
        settle(&c);
        cluster_elect(&c, 2);
        for (int i = 0; i < 200; i++)
            propose(&c, 2);
        settle(&c);
        heal(&c);
        uint64_t before = c.delivered;
        run_ms(&c, 600);
        ck_assert_uint_eq(node_of(&c, 1)->out.commit, 203);
        ck_assert_uint_eq(node_of(&c, 1)->out.last, 203);
        if (!pessimistic)
            ck_assert_uint_lt(c.delivered - before, 80);
        cluster_stop(&c);
    }
}

TEST(raft_finds_the_common_part_over_many_terms)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    /* 1 and 2 alternate, each leading alone with entries that never arrive; 3 follows 2 only. */
    for (int i = 0; i < 10; i++) {
        heal(&c);
        cluster_elect(&c, 2);
        isolate(&c, 1, true);
        for (int k = 0; k < 3; k++)
            propose(&c, 2);
        settle(&c);
        for (int k = 0; k < 2; k++) {
            force_campaign(&c, 1);
            settle(&c);
        }
    }
    heal(&c);
    run_ms(&c, 3000);
    ck_assert_uint_ne(leader_of(&c), 0);
    uint64_t last = node_of(&c, leader_of(&c))->out.last;
    for (uint32_t i = 1; i <= 3; i++)
        ck_assert_uint_eq(node_of(&c, i)->out.commit, last);
    cluster_stop(&c);
}

TEST(raft_sends_no_more_than_the_window)
{
    struct raft_conf conf = voters(3);
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++) {
        node_of(&c, i)->options.inflight_entries_max = 10;
        node_of(&c, i)->options.append_entries_max = 4;
        boot(&c, i);
    }
    cluster_elect(&c, 1);
    node_of(&c, 3)->disk_held = true;
    for (int i = 0; i < 100; i++)
        propose(&c, 1);
    settle(&c);
    run_ms(&c, 400);
    ck_assert_uint_eq(node_of(&c, 3)->out.last, 12);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 102);
    node_of(&c, 3)->disk_held = false;
    run_ms(&c, 100);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, 102);
    cluster_stop(&c);
}

/* ---- Loss ---- */

TEST(raft_lost_entries_are_sent_again_without_new_traffic)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t index = propose(&c, 1);
    for (uint32_t i = 0; i < c.flying_count; i++)
        if (c.flying[i]->m.type == RAFT_MSG_APPEND && c.flying[i]->m.to == 3)
            drop(catch_message(&c, i--));
    settle(&c);
    ck_assert_uint_lt(node_of(&c, 3)->out.last, index);
    run_ms(&c, 300);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, index);
    cluster_stop(&c);
}

TEST(raft_a_lost_ack_is_made_good_by_a_heartbeat)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    crash(&c, 2);
    uint64_t index = propose(&c, 1);
    deliver_of(&c, RAFT_MSG_APPEND, 1, 3);
    sync_disk(&c, 3, 9);
    drop_all(&c);
    settle(&c);
    ck_assert_uint_lt(node_of(&c, 1)->out.commit, index);
    run_ms(&c, 100);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, index);
    cluster_stop(&c);
}

TEST(raft_a_slow_disk_is_not_taken_for_loss)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    node_of(&c, 3)->disk_held = true;
    for (int i = 0; i < 100; i++)
        propose(&c, 1);
    settle(&c);
    uint64_t last = node_of(&c, 1)->out.last;
    ck_assert_uint_eq(node_of(&c, 3)->out.last, last);
    uint32_t appends = 0;
    for (int i = 0; i < 40; i++) {
        tick(&c);
        appends += flying_of(&c, RAFT_MSG_APPEND, 1, 3);
        settle(&c);
    }
    ck_assert_uint_eq(appends, 0);
    ck_assert_uint_eq(leader_of(&c), 1); /* and the leader keeps its heartbeats' answers */
    cluster_stop(&c);
}

TEST(raft_a_follower_that_restarts_in_mid_stream_goes_on)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    node_of(&c, 3)->disk_held = true;
    for (int i = 0; i < 30; i++)
        propose(&c, 1);
    settle(&c);
    crash(&c, 3); /* loses what it had not synced */
    node_of(&c, 3)->disk_held = false;
    boot(&c, 3);
    run_ms(&c, 500);
    ck_assert_uint_eq(leader_of(&c), 1);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, 32);
    cluster_stop(&c);
}

TEST(raft_old_answers_change_nothing)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    for (int i = 0; i < 10; i++)
        propose(&c, 1);
    settle(&c);
    struct raft_status before = status_of(&c, 1);
    uint64_t term = node_of(&c, 1)->out.term;
    struct raft_message m = {.type = RAFT_MSG_APPEND_REPLY, .from = 2, .to = 1, .term = term};
    m.append_reply.index = 5;
    inject(&c, m);
    m.append_reply.rejected = 1;
    inject(&c, m);
    m.append_reply.index = 50;
    inject(&c, m);
    m.type = RAFT_MSG_HEARTBEAT_REPLY;
    memset(&m.heartbeat_reply, 0, sizeof(m.heartbeat_reply));
    m.heartbeat_reply.round = 1;
    inject(&c, m);
    m.from = 6; /* nobody we know */
    inject(&c, m);
    struct raft_status after = status_of(&c, 1);
    for (uint32_t i = 0; i < after.peer_count; i++) {
        ck_assert_uint_eq(after.peers[i].match, before.peers[i].match);
        ck_assert_uint_eq(after.peers[i].next, before.peers[i].next);
    }
    cluster_stop(&c);
}

/* ---- Where a rejection leads ---- */

static void reject(uint64_t prev, uint64_t conflict_term, uint64_t conflict_first, uint64_t last)
{
    struct raft_message m = {.type = RAFT_MSG_APPEND_REPLY, .from = 3, .to = 1, .term = node_of(&c, 1)->out.term};
    m.append_reply.rejected = 1;
    m.append_reply.index = prev;
    m.append_reply.conflict_term = conflict_term;
    m.append_reply.conflict_first = conflict_first;
    m.append_reply.last_index = last;
    inject(&c, m);
}

static uint64_t next_of_3(void)
{
    struct raft_status s = status_of(&c, 1);
    for (uint32_t i = 0; i < s.peer_count; i++)
        if (s.peers[i].id == 3)
            return s.peers[i].next;
    return 0;
}

/* 1 leads term 9 with 2..9 of term 2, 10..19 of term 5 and its no-op at 20, its log beginning at first. */
static void terms_start(uint64_t first)
{
    cluster_one_of_three(&c, 1);
    inject_append(&c, 2, 1, 5, 1, 1, 2, 8, 9);
    inject_append(&c, 2, 1, 5, 9, 2, 5, 10, 9);
    sync_disk(&c, 1, 9);
    if (first > 1) {
        step(&c, 1, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 9, .flushed = 9}});
        step(&c, 1, (struct raft_input){.type = RAFT_IN_COMPACT, .compact.first = first});
        ck_assert_int_eq(node_of(&c, 1)->result, 0);
        node_of(&c, 1)->cache->first = first;
    }
    while (node_of(&c, 1)->out.term < 9)
        force_campaign(&c, 1);
    sync_disk(&c, 1, 9);
    struct raft_message m = {.type = RAFT_MSG_VOTE_REPLY, .from = 2, .to = 1, .term = 9};
    m.vote_reply.granted = 1;
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 1)->out.role, RAFT_LEADER);
    ck_assert_uint_eq(next_of_3(), 20);
}

TEST(raft_a_rejection_leads_behind_the_last_entry_of_the_follower)
{
    terms_start(1);
    reject(19, 0, 0, 12);
    ck_assert_uint_eq(next_of_3(), 13);
    reject(19, 0, 0, 5); /* late: to another probe than the one under way */
    ck_assert_uint_eq(next_of_3(), 13);
    cluster_stop(&c);
}

TEST(raft_a_rejection_leads_behind_the_leaders_last_entry_of_the_followers_term)
{
    terms_start(1);
    reject(19, 2, 2, 30);
    ck_assert_uint_eq(next_of_3(), 10);
    cluster_stop(&c);
    terms_start(10); /* just compacted: its term is still known */
    reject(19, 2, 2, 30);
    ck_assert_uint_eq(next_of_3(), 10);
    cluster_stop(&c);
}

TEST(raft_a_rejection_leads_before_a_term_the_leader_does_not_have)
{
    terms_start(1);
    reject(19, 4, 7, 30);
    ck_assert_uint_eq(next_of_3(), 7);
    cluster_stop(&c);
    terms_start(1);
    reject(19, 8, 25, 30); /* nonsense is clamped: always at least one entry back */
    ck_assert_uint_eq(next_of_3(), 19);
    cluster_stop(&c);
    terms_start(1);
    reject(19, 1, 1, 30);
    ck_assert_uint_eq(next_of_3(), 2);
    cluster_stop(&c);
}

TEST(raft_a_rejection_below_the_compacted_part_leads_to_a_snapshot)
{
    terms_start(10);
    reject(19, 0, 0, 4); /* it may be too low: the first entry there is is tried before */
    ck_assert_uint_eq(node_of(&c, 1)->out.want_count, 0);
    ck_assert_uint_eq(next_of_3(), 10);
    reject(9, 0, 0, 4);
    ck_assert_uint_eq(node_of(&c, 1)->out.want_count, 1);
    ck_assert_uint_eq(node_of(&c, 1)->out.wants[0].peer, 3);
    ck_assert_uint_eq(node_of(&c, 1)->out.wants[0].min_index, 9);
    reject(4, 0, 0, 3); /* late */
    ck_assert_int_eq(status_of(&c, 1).peers[1].state, RAFT_SNAPSHOT);
    cluster_stop(&c);
}

TEST(raft_sends_in_portions_when_much_is_to_be_sent)
{
    struct raft_conf conf = voters(3);
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++) {
        node_of(&c, i)->options.append_entries_max = 1;
        boot(&c, i);
    }
    cluster_elect(&c, 1);
    isolate(&c, 3, true);
    for (int i = 0; i < 400; i++)
        propose(&c, 1);
    settle(&c);
    heal(&c);
    uint32_t most = 0;
    for (int i = 0; i < 60; i++) {
        tick(&c);
        while (c.flying_count) {
            most = max(most, node_of(&c, 1)->out.send_count);
            deliver(&c, catch_message(&c, 0));
            for (uint32_t n = 1; n <= 3; n++)
                sync_disk(&c, n, 1);
        }
    }
    ck_assert_uint_le(most, RAFT_SENDS_MAX);
    ck_assert_uint_ge(most, 64);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, 402);
    cluster_stop(&c);
}
