/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots and compaction in the consensus core: offers, installation, pins, what journal-only members keep. */
#include "raft_cluster.h"

static struct cluster c;

static int compact(uint64_t id, uint64_t first)
{
    struct node *n = node_of(&c, id);
    step(&c, id, (struct raft_input){.type = RAFT_IN_COMPACT, .compact.first = first});
    if (n->result < 0)
        return n->result;
    struct store *stores[] = {n->cache, n->disk};
    for (int i = 0; i < 2; i++) {
        stores[i]->base_term = stores[i]->log[first - 1].term;
        stores[i]->first = first;
    }
    return 0;
}

static int ready(uint64_t leader, uint64_t peer, uint64_t source, uint64_t index)
{
    step(&c, leader, (struct raft_input){.type = RAFT_IN_SNAPSHOT_READY, .snapshot_ready = {peer, source, index}});
    return node_of(&c, leader)->result;
}

/* The receiver has the files of its offer, whose configuration it asks of source. */
static int install(uint64_t id, uint64_t source)
{
    struct raft_snapshot_offer offer = node_of(&c, id)->offer;
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_INSTALL};
    in.snapshot_install.index = offer.index;
    in.snapshot_install.term = offer.term;
    in.snapshot_install.conf = raft_conf_at(node_of(&c, source)->r, offer.index, &in.snapshot_install.conf_index);
    step(&c, id, in);
    return node_of(&c, id)->result;
}

static void give_up(uint64_t id, uint64_t peer)
{
    step(&c, id, (struct raft_input){.type = RAFT_IN_SNAPSHOT_FAILED, .snapshot_failed.peer = peer});
}

/* 1 leads and has compacted up to 60 of 102; 3 has only entry 2. */
static void behind_start(void)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    isolate(&c, 3, true);
    for (int i = 0; i < 100; i++)
        propose(&c, 1);
    settle(&c);
    run_ms(&c, 60);
    for (uint32_t i = 1; i <= 2; i++)
        tell_app(&c, i);
    ck_assert_int_eq(compact(1, 104), -EINVAL); /* beyond the end */
    ck_assert_int_eq(compact(1, 61), 0);
    ck_assert_int_eq(compact(1, 40), 0);
    heal(&c);
}

TEST(raft_a_peer_too_far_behind_gets_the_state_and_goes_on)
{
    behind_start();
    run_ms(&c, 200);
    struct node *n1 = node_of(&c, 1), *n3 = node_of(&c, 3);
    ck_assert_uint_eq(n1->wanted[3], 60);
    ck_assert_uint_eq(n1->out.compact_to, 60); /* held until the state's index is known */
    uint64_t before = c.delivered;
    run_ms(&c, 1000);
    ck_assert_uint_lt(c.delivered - before, 90); /* asked once, and nothing is sent meanwhile */

    ck_assert_int_eq(ready(1, 2, 1, 80), -ENOENT);
    ck_assert_int_eq(ready(2, 3, 1, 80), -CV_NOT_LEADER);
    ck_assert_int_eq(ready(1, 3, 1, 59), -EINVAL);
    ck_assert_int_eq(ready(1, 3, 1, 103), -EINVAL);
    ck_assert_int_eq(ready(1, 3, 2, 80), 0); /* at the other follower */
    ck_assert_uint_eq(n1->out.compact_to, 80);
    ck_assert_int_eq(compact(1, 82), -EINVAL); /* pinned */
    ck_assert_int_eq(compact(1, 81), 0);
    settle(&c);
    ck_assert_uint_eq(n3->offer.index, 80);
    ck_assert_uint_eq(n3->offer.term, 2);
    ck_assert_uint_eq(n3->offer.source, 2);
    /* Repeated offers change nothing. */
    n3->offer.source = 0;
    run_ms(&c, 1200);
    ck_assert_uint_eq(n3->offer.source, 0);

    n3->disk_held = true;
    ck_assert_int_eq(install(3, 1), 0);
    const struct raft_write *w = &n3->out.write;
    ck_assert_uint_eq(w->install.index, 80);
    ck_assert_uint_eq(w->install.term, 2);
    ck_assert_uint_eq(w->install.conf_index, 1);
    ck_assert_uint_eq(w->truncate_from, 81);
    ck_assert_uint_eq(n3->out.commit, 80);
    ck_assert_uint_lt(n3->out.apply_to, 80); /* until it is on disk */
    run_ms(&c, 200);
    ck_assert_uint_lt(n3->out.apply_to, 80);
    ck_assert_uint_lt(status_of(&c, 1).peers[1].match, 80); /* nor does the leader count it */
    n3->disk_held = false;
    settle(&c);
    run_ms(&c, 100);
    ck_assert_uint_eq(n3->out.commit, 102);
    ck_assert_uint_eq(n3->out.apply_to, 102);
    ck_assert_uint_eq(n1->out.compact_to, 102);
    crash(&c, 3);
    boot(&c, 3);
    run_ms(&c, 200);
    ck_assert_uint_eq(n3->out.commit, 102);
    cluster_stop(&c);
}

TEST(raft_a_snapshot_that_failed_is_asked_for_again)
{
    behind_start();
    run_ms(&c, 200);
    struct node *n1 = node_of(&c, 1), *n3 = node_of(&c, 3);
    n1->wanted[3] = 0;
    give_up(1, 3); /* the leader's driver could not make one */
    ck_assert_uint_eq(n1->out.compact_to, 102);
    run_ms(&c, 400);
    ck_assert_uint_eq(n1->wanted[3], 0); /* not at once */
    run_ms(&c, 300);
    ck_assert_uint_eq(n1->wanted[3], 60);
    ck_assert_int_eq(ready(1, 3, 1, 80), 0);
    settle(&c);
    ck_assert_uint_eq(n3->offer.index, 80);
    n1->wanted[3] = 0;
    give_up(3, 0); /* the receiver could not fetch it */
    settle(&c);
    ck_assert_uint_eq(n1->out.compact_to, 102);
    run_ms(&c, 700);
    ck_assert_uint_eq(n1->wanted[3], 60);
    ck_assert_int_eq(ready(1, 3, 1, 90), 0);
    settle(&c);
    ck_assert_int_eq(install(3, 1), 0);
    run_ms(&c, 300);
    ck_assert_uint_eq(n3->out.commit, 102);
    give_up(1, 9);
    ck_assert_int_eq(n1->result, -ENOENT);
    give_up(1, 3); /* nothing under way any more */
    ck_assert_int_eq(n1->result, 0);
    ck_assert_uint_eq(status_of(&c, 1).peers[1].state, RAFT_REPLICATE);
    cluster_stop(&c);
}

TEST(raft_a_lost_offer_is_repeated)
{
    behind_start();
    run_ms(&c, 200);
    ck_assert_int_eq(ready(1, 3, 1, 80), 0);
    drop_all(&c);
    run_ms(&c, 400);
    ck_assert_uint_eq(node_of(&c, 3)->offer.index, 0);
    run_ms(&c, 300);
    ck_assert_uint_eq(node_of(&c, 3)->offer.index, 80);
    cluster_stop(&c);
}

TEST(raft_does_not_campaign_while_its_state_is_replaced)
{
    behind_start();
    run_ms(&c, 200);
    ck_assert_int_eq(ready(1, 3, 1, 80), 0);
    settle(&c);
    crash(&c, 1);
    cut(&c, 2, 3);
    run_ms(&c, 4000);
    ck_assert_int_eq(node_of(&c, 3)->out.role, RAFT_FOLLOWER);
    give_up(3, 0);
    run_ms(&c, 2000);
    ck_assert_int_eq(node_of(&c, 3)->out.role, RAFT_PRECANDIDATE);
    cluster_stop(&c);
}

TEST(raft_a_snapshot_survives_a_change_of_leader)
{
    behind_start();
    ck_assert_int_eq(compact(2, 71), 0);
    run_ms(&c, 200);
    ck_assert_int_eq(ready(1, 3, 2, 80), 0);
    settle(&c);
    crash(&c, 1);
    cluster_elect(&c, 2);
    run_ms(&c, 200);
    ck_assert_uint_eq(node_of(&c, 2)->wanted[3], 70);
    ck_assert_int_eq(ready(2, 3, 2, 80), 0);
    settle(&c);
    ck_assert_int_eq(install(3, 2), 0);
    run_ms(&c, 300);
    ck_assert_uint_eq(node_of(&c, 3)->out.commit, node_of(&c, 2)->out.commit);
    cluster_stop(&c);
}

TEST(raft_a_newer_offer_replaces_the_one_being_fetched)
{
    cluster_one_of_three(&c, 2);
    struct raft_message m = {.type = RAFT_MSG_SNAPSHOT, .from = 1, .to = 2, .term = 2};
    m.snapshot.index = 50;
    m.snapshot.index_term = 2;
    m.snapshot.source = 1;
    inject(&c, m);
    ck_assert_uint_eq(node_of(&c, 2)->out.offer.index, 50);
    inject(&c, m);
    ck_assert_uint_eq(node_of(&c, 2)->out.offer.index, 0);
    m.snapshot.index = 60;
    inject(&c, m);
    ck_assert_uint_eq(node_of(&c, 2)->out.offer.index, 60);
    cluster_stop(&c);
}

/* A follower with 2..20 of term 2, of which commit are committed. */
static void follower_start(uint64_t commit)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 19, commit);
    sync_disk(&c, 2, 9);
}

static int install_at(uint64_t index, uint64_t term)
{
    static struct raft_conf conf;
    conf = voters(3);
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_INSTALL};
    in.snapshot_install.index = index;
    in.snapshot_install.term = term;
    in.snapshot_install.conf_index = 1;
    in.snapshot_install.conf = &conf;
    step(&c, 2, in);
    return node_of(&c, 2)->result;
}

TEST(raft_a_snapshot_does_not_replace_a_newer_log)
{
    follower_start(10);
    ck_assert_int_eq(install_at(10, 2), -EALREADY); /* the log has it all */
    ck_assert_int_eq(install_at(5, 2), -EALREADY);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 20);
    /* Within the log: what follows stays, it may have been acknowledged. */
    ck_assert_int_eq(install_at(15, 2), 0);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 20);
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 15);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.truncate_from, 0);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.install.index, 15);
    ck_assert_uint_eq(status_of(&c, 2).first, 16);
    uint64_t index, term;
    ck_assert_int_eq(raft_term(node_of(&c, 2)->r, 15, &term), 0);
    ck_assert_uint_eq(term, 2);
    ck_assert_int_eq(raft_term(node_of(&c, 2)->r, 14, &term), -ENOENT);
    ck_assert_ptr_nonnull(raft_conf_newest(node_of(&c, 2)->r, &index));
    cluster_stop(&c);

    follower_start(10); /* another term at its index: the tail is not the leader's */
    ck_assert_int_eq(install_at(15, 3), 0);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 15);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.truncate_from, 16);
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 10);
    sync_disk(&c, 2, 9);
    ck_assert_uint_eq(node_of(&c, 2)->out.durable, 15);
    cluster_stop(&c);
}

TEST(raft_stops_when_a_snapshot_contradicts_a_committed_entry)
{
    follower_start(10);
    c.expect_alarm = true;
    ck_assert_int_eq(install_at(8, 3), -CV_LOG_DIVERGED);
    ck_assert_str_eq(raft_alarm(node_of(&c, 2)->r), "a snapshot's last entry differs from a committed entry of ours");
    cluster_stop(&c);
}

TEST(raft_refuses_an_installation_that_makes_no_sense)
{
    follower_start(10);
    struct raft_conf empty = {0}, conf = voters(3);
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_INSTALL};
    in.snapshot_install.index = 30;
    in.snapshot_install.term = 2;
    in.snapshot_install.conf_index = 1;
    step(&c, 2, in);
    ck_assert_int_eq(node_of(&c, 2)->result, -EINVAL);
    in.snapshot_install.conf = &empty;
    step(&c, 2, in);
    ck_assert_int_eq(node_of(&c, 2)->result, -EINVAL);
    in.snapshot_install.conf = &conf;
    in.snapshot_install.conf_index = 31;
    step(&c, 2, in);
    ck_assert_int_eq(node_of(&c, 2)->result, -EINVAL);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 20);
    cluster_stop(&c);
}

TEST(raft_a_candidate_that_installs_a_snapshot_is_none_any_more)
{
    follower_start(10);
    force_campaign(&c, 2);
    ck_assert_int_eq(install_at(30, 2), 0);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_FOLLOWER);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.vote, 2);
    sync_disk(&c, 2, 9);
    struct raft_message m = {.type = RAFT_MSG_VOTE_REPLY, .from = 1, .to = 2, .term = 3};
    m.vote_reply.granted = 1;
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 2)->out.role, RAFT_FOLLOWER);
    node_of(&c, 2)->disk_held = true;
    for (uint64_t i = 0; i < RAFT_WRITES_MAX; i++)
        inject_append(&c, 1, 2, 3, 30 + i, i ? 3 : 2, 3, 1, 30);
    ck_assert_int_eq(install_at(2000, 3), -CV_BUSY);
    cluster_stop(&c);
}

TEST(raft_keeps_a_later_configuration_when_the_log_goes_on_behind_a_snapshot)
{
    follower_start(10);
    uint8_t bytes[RAFT_CONF_ENCODED_MAX];
    struct raft_conf conf = voters(4);
    struct raft_entry e = {.term = 2, .type = RAFT_CONF, .data = bytes};
    e.size = (uint32_t)raft_conf_encode(&conf, bytes);
    struct raft_message m = {.type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 2, .entries = &e};
    m.append.prev_index = 20;
    m.append.prev_term = m.append.last_term = 2;
    m.append.count = 1;
    inject(&c, m);
    crash(&c, 2); /* and only the newest configuration is loaded again */
    boot(&c, 2);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 20);
    inject(&c, m);
    sync_disk(&c, 2, 9);
    node_of(&c, 2)->disk->confs[0] = node_of(&c, 2)->disk->confs[1];
    node_of(&c, 2)->disk->conf_count = 1;
    crash(&c, 2);
    boot(&c, 2);
    ck_assert_int_eq(install_at(15, 2), 0);
    uint64_t index;
    ck_assert_uint_eq(raft_conf_voters(raft_conf_newest(node_of(&c, 2)->r, &index)), 4);
    ck_assert_uint_eq(index, 21);
    ck_assert_uint_eq(raft_conf_voters(raft_conf_at(node_of(&c, 2)->r, 15, &index)), 3);
    cluster_stop(&c);
}

TEST(raft_an_offer_of_what_is_there_is_answered_with_an_ack)
{
    follower_start(10);
    struct raft_message m = {.type = RAFT_MSG_SNAPSHOT, .from = 1, .to = 2, .term = 2};
    m.snapshot.index = 8;
    m.snapshot.index_term = 2;
    m.snapshot.source = 1;
    inject(&c, m);
    ck_assert_uint_eq(node_of(&c, 2)->out.offer.index, 0);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_APPEND_REPLY, 1)->message.append_reply.index, 8);
    m.snapshot.index = 18; /* not committed, but the same entry */
    inject(&c, m);
    ck_assert_uint_eq(node_of(&c, 2)->out.offer.index, 0);
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_APPEND_REPLY, 1)->message.append_reply.index, 18);
    /* Entries that come first end the wait for a snapshot. */
    m.snapshot.index = 22;
    inject(&c, m);
    ck_assert_uint_eq(node_of(&c, 2)->out.offer.index, 22);
    inject_append(&c, 1, 2, 2, 20, 2, 2, 4, 24);
    ck_assert_int_eq(install_at(22, 2), -EALREADY);
    cluster_stop(&c);
}

TEST(raft_append_to_a_compacted_log_skips_what_is_gone)
{
    follower_start(20);
    step(&c, 2, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 20, .flushed = 20}});
    ck_assert_int_eq(compact(2, 11), 0);
    inject_append(&c, 1, 2, 2, 4, 2, 2, 3, 20); /* wholly before */
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_APPEND_REPLY, 1)->message.append_reply.index, 7);
    inject_append(&c, 1, 2, 2, 4, 2, 2, 20, 20); /* over the edge, and 21..24 new */
    ck_assert_uint_eq(sent(&c, 2, RAFT_MSG_APPEND_REPLY, 1)->message.append_reply.index, 24);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 24);
    ck_assert_uint_eq(node_of(&c, 2)->out.write.first, 21);
    cluster_stop(&c);
}

/* ---- Compaction ---- */

TEST(raft_a_full_member_compacts_what_its_application_has_flushed)
{
    cluster_start(&c, 1);
    run_ms(&c, 20);
    for (int i = 0; i < 20; i++)
        propose(&c, 1);
    settle(&c);
    step(&c, 1, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 20, .flushed = 10}});
    ck_assert_uint_eq(node_of(&c, 1)->out.compact_to, 10);
    ck_assert_int_eq(compact(1, 12), -EINVAL);
    ck_assert_int_eq(compact(1, 0), -EINVAL);
    ck_assert_int_eq(compact(1, 11), 0);
    ck_assert_uint_eq(status_of(&c, 1).first, 11);
    step(&c, 1, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 22, .flushed = 22}});
    ck_assert_int_eq(compact(1, 23), 0); /* all of it */
    ck_assert_uint_eq(propose(&c, 1), 23);
    settle(&c);
    crash(&c, 1);
    node_of(&c, 1)->applied = 22;
    boot(&c, 1);
    run_ms(&c, 20);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 24);
    cluster_stop(&c);
}

TEST(raft_a_journal_only_member_keeps_what_full_members_need)
{
    struct raft_conf conf = voters(3);
    conf.members[2].journal_only = 1;
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++) {
        node_of(&c, i)->options.silent_ms = 2000;
        boot(&c, i);
    }
    cluster_elect(&c, 1);
    for (int i = 0; i < 50; i++)
        propose(&c, 1);
    settle(&c);
    run_ms(&c, 100);
    step(&c, 1, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 52, .flushed = 40, .can_lead = true}});
    step(&c, 2, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 52, .flushed = 30, .can_lead = true}});
    run_ms(&c, 200);
    ck_assert_uint_eq(node_of(&c, 3)->out.compact_to, 30);
    ck_assert_uint_eq(node_of(&c, 1)->out.compact_to, 40);
    /* A silent member holds it up, but not when a log is full. */
    crash(&c, 2);
    step(&c, 1, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 52, .flushed = 52, .can_lead = true}});
    run_ms(&c, 3000);
    ck_assert_uint_eq(node_of(&c, 3)->out.compact_to, 30);
    ck_assert_uint_eq(node_of(&c, 1)->out.warnings, 0);
    step(&c, 3, (struct raft_input){.type = RAFT_IN_APP, .app = {.log_full = true}});
    run_ms(&c, 200);
    ck_assert_uint_eq(node_of(&c, 3)->out.compact_to, 52);
    ck_assert(node_of(&c, 1)->out.warnings & RAFT_WARN_LEFT_BEHIND);
    cluster_stop(&c);
}
