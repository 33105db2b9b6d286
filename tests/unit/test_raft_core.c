/* SPDX-License-Identifier: Apache-2.0 */
/* The consensus core as a whole: one voter, three voters, restarts, refusals, alarms, no allocation. */
#include "raft_cluster.h"

static struct cluster c;

/* ---- One voter ---- */

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
    tick(&c);
    ck_assert_int_eq(o->role, RAFT_CANDIDATE);
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

TEST(raft_one_voter_restarts_with_its_log_and_a_new_term)
{
    cluster_start(&c, 1);
    run_ms(&c, 20);
    for (int i = 0; i < 10; i++)
        propose(&c, 1);
    settle(&c);
    propose(&c, 1); /* never synced */
    crash(&c, 1);
    boot(&c, 1);
    ck_assert_uint_eq(status_of(&c, 1).last, 12);
    run_ms(&c, 20);
    ck_assert_int_eq(node_of(&c, 1)->out.role, RAFT_LEADER);
    ck_assert_uint_eq(node_of(&c, 1)->out.term, 3);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 13);
    cluster_stop(&c);
}

/* ---- Three ---- */

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

TEST(raft_survives_the_loss_of_any_one_of_three)
{
    cluster_start(&c, 3);
    run_ms(&c, 2500);
    uint64_t terms = 0;
    for (int round = 0; round < 6; round++) {
        uint64_t leader = leader_of(&c);
        ck_assert_uint_ne(leader, 0);
        ck_assert_uint_gt(node_of(&c, leader)->out.term, terms);
        terms = node_of(&c, leader)->out.term;
        uint64_t index = propose(&c, leader);
        settle(&c);
        ck_assert_uint_ge(node_of(&c, leader)->out.commit, index);
        crash(&c, leader);
        run_ms(&c, 2500);
        ck_assert_uint_ge(node_of(&c, leader_of(&c))->out.commit, index);
        boot(&c, leader);
        run_ms(&c, 700);
    }
    cluster_stop(&c);
}

TEST(raft_messages_end_when_nothing_happens)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    for (int i = 0; i < 50; i++)
        propose(&c, 1);
    settle(&c);
    uint64_t before = c.delivered;
    run_ms(&c, 1000);
    /* A heartbeat to each of two every 50 ms, and its answer. */
    ck_assert_uint_le(c.delivered - before, 4 * 21);
    cluster_stop(&c);
}

/* ---- Refusals ---- */

TEST(raft_refuses_proposals_it_must_not_append)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    uint64_t term = node_of(&c, 1)->out.term, last = node_of(&c, 1)->out.last;
    struct raft_entry e = {.type = RAFT_BATCH};
    struct raft_input in = {.type = RAFT_IN_PROPOSE, .propose = {.term = term, .entries = &e, .count = 1}};
    step(&c, 2, in);
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_NOT_LEADER);
    in.propose.term = term - 1;
    step(&c, 1, in);
    ck_assert_int_eq(node_of(&c, 1)->result, -ESTALE);
    in.propose.term = term;
    uint8_t bad[] = {0, RAFT_NOOP, RAFT_CONF, RAFT_BARRIER + 1};
    for (size_t i = 0; i < sizeof(bad); i++) {
        e.type = bad[i];
        step(&c, 1, in);
        ck_assert_int_eq(node_of(&c, 1)->result, -EINVAL);
    }
    e.type = RAFT_BATCH;
    in.propose.count = 0;
    step(&c, 1, in);
    ck_assert_int_eq(node_of(&c, 1)->result, -EINVAL);
    in.propose.count = RAFT_APPEND_ENTRIES_MAX + 1;
    step(&c, 1, in);
    ck_assert_int_eq(node_of(&c, 1)->result, -EINVAL);
    ck_assert_uint_eq(node_of(&c, 1)->out.last, last);
    ck_assert_uint_eq(node_of(&c, 1)->out.write.seq, 0);
    ck_assert_uint_eq(node_of(&c, 1)->out.send_count, 0);
    in.type = 99;
    step(&c, 1, in);
    ck_assert_int_eq(node_of(&c, 1)->result, -EINVAL);
    cluster_stop(&c);
}

TEST(raft_is_busy_when_too_much_is_uncommitted_or_unwritten)
{
    struct raft_conf conf = voters(3);
    cluster_format(&c, &conf);
    for (uint32_t i = 1; i <= 3; i++) {
        node_of(&c, i)->options.uncommitted_max = 20;
        boot(&c, i);
    }
    cluster_elect(&c, 1);
    isolate(&c, 1, true);
    uint32_t accepted = 0;
    while (propose(&c, 1))
        accepted++;
    ck_assert_uint_eq(accepted, 20);
    ck_assert_int_eq(node_of(&c, 1)->result, -CV_BUSY);
    heal(&c);
    run_ms(&c, 200);
    ck_assert_uint_ne(propose(&c, 1), 0);
    cluster_stop(&c);

    cluster_start(&c, 1);
    run_ms(&c, 20);
    node_of(&c, 1)->disk_held = true;
    for (accepted = 0; propose(&c, 1);)
        accepted++;
    ck_assert_int_eq(node_of(&c, 1)->result, -CV_BUSY);
    ck_assert_uint_gt(accepted, RAFT_WRITES_MAX / 2);
    ck_assert_uint_lt(accepted, RAFT_WRITES_MAX);
    node_of(&c, 1)->disk_held = false;
    settle(&c);
    ck_assert_uint_ne(propose(&c, 1), 0);
    cluster_stop(&c);
}

TEST(raft_drops_messages_while_its_disk_stands_still)
{
    cluster_one_of_three(&c, 2);
    node_of(&c, 2)->disk_held = true;
    for (uint64_t i = 1; i <= RAFT_WRITES_MAX; i++) {
        inject_append(&c, 1, 2, 2, i, i == 1 ? 1 : 2, 2, 1, 1);
        ck_assert_int_eq(node_of(&c, 2)->result, 0);
    }
    uint64_t last = node_of(&c, 2)->out.last;
    inject_append(&c, 1, 2, 2, last, 2, 2, 1, 1);
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_BUSY);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, last);
    /* Nor does it start elections that it could not write down. */
    c.now_ms += 10000;
    step(&c, 2, (struct raft_input){.type = RAFT_IN_CAMPAIGN, .campaign.force = true});
    ck_assert_uint_eq(node_of(&c, 2)->out.term, 2);
    sync_disk(&c, 2, 1);
    inject_append(&c, 1, 2, 2, last, 2, 2, 1, 1);
    ck_assert_int_eq(node_of(&c, 2)->result, 0);
    cluster_stop(&c);
}

TEST(raft_drops_messages_that_contradict_themselves)
{
    cluster_one_of_three(&c, 2);
    struct raft_entry e[2] = {{.term = 2, .type = RAFT_BATCH}, {.term = 2, .type = RAFT_BATCH}};
    struct raft_message good = {.type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 2, .entries = e};
    good.append.prev_index = 1;
    good.append.prev_term = 1;
    good.append.count = 2;
    good.append.last_term = 2;
    struct raft_message m[13];
    for (size_t i = 0; i < array_size(m); i++)
        m[i] = good;
    m[0].to = 3;
    m[1].from = 2;
    m[2].from = 0;
    m[3].term = 0;
    m[4].term = 1; /* entries of a later term than the message's */
    m[5].append.last_term = 1;
    m[6].append.prev_term = 0;
    m[7].append.prev_index = 0;
    m[8].append.prev_index = UINT64_MAX;
    m[9].append.count = RAFT_APPEND_ENTRIES_MAX + 1;
    m[10].entries = NULL;
    m[11].type = 200;
    m[12].append.prev_term = 3;
    for (size_t i = 0; i < array_size(m); i++) {
        step(&c, 2, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &m[i]});
        ck_assert_msg(node_of(&c, 2)->result == -CV_BAD_MESSAGE, "message %d", (int)i);
        ck_assert_uint_eq(node_of(&c, 2)->out.term, 1);
        ck_assert_uint_eq(node_of(&c, 2)->out.send_count, 0);
    }
    step(&c, 2, (struct raft_input){.type = RAFT_IN_MESSAGE});
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_BAD_MESSAGE);
    e[1].type = 0;
    inject(&c, good);
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_BAD_MESSAGE);
    e[1].type = RAFT_BATCH;
    e[1].term = 1;
    inject(&c, good);
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_BAD_MESSAGE);
    e[1].term = 2;
    inject(&c, good);
    ck_assert_int_eq(node_of(&c, 2)->result, 0);
    ck_assert_uint_eq(node_of(&c, 2)->out.last, 3);
    cluster_stop(&c);
}

/* ---- Start ---- */

TEST(raft_new_refuses_a_state_that_contradicts_itself)
{
    struct raft_conf conf = voters(3);
    struct raft_run runs[2] = {{1, 1}, {5, 3}};
    const struct raft_restart good = {.now_ms = 1,
                                      .term = 3,
                                      .first = 1,
                                      .last = 9,
                                      .runs = runs,
                                      .run_count = 2,
                                      .commit = 4,
                                      .conf_count = 1,
                                      .conf_index = {1},
                                      .conf = {&conf}};
    struct raft_options o = {.id = 1};
    struct raft *r;
    ck_assert_int_eq(raft_new(&o, &good, &r), 0);
    uint64_t term;
    ck_assert_int_eq(raft_term(r, 0, &term), 0);
    ck_assert_uint_eq(term, 0);
    ck_assert_int_eq(raft_term(r, 4, &term), 0);
    ck_assert_uint_eq(term, 1);
    ck_assert_int_eq(raft_term(r, 9, &term), 0);
    ck_assert_uint_eq(term, 3);
    ck_assert_int_eq(raft_term(r, 10, &term), -ENOENT);
    raft_free(r);

    struct raft_run later[2] = {{1, 1}, {5, 4}}, same[2] = {{1, 1}, {5, 1}}, order[2] = {{1, 1}, {1, 3}},
                    beyond[2] = {{1, 1}, {10, 3}}, late[2] = {{2, 1}, {5, 3}}, zero[2] = {{1, 0}, {5, 3}};
    struct raft_conf empty = {0};
    struct raft_restart bad[14];
    for (size_t i = 0; i < array_size(bad); i++)
        bad[i] = good;
    bad[0].first = 0;
    bad[1].base_term = 1;
    bad[2].runs = later;
    bad[3].runs = same;
    bad[4].runs = order;
    bad[5].runs = beyond;
    bad[6].runs = late;
    bad[7].runs = zero;
    bad[8].run_count = 0;
    bad[9].conf_count = 0;
    bad[10].conf[0] = &empty;
    bad[11].conf_index[0] = 10;
    bad[12].applied = 10;
    bad[13].first = 3; /* compacted, but the term before is not known */
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_msg(raft_new(&o, &bad[i], &r) == -CV_LOG_DAMAGED, "state %d", (int)i);
    struct raft_options wrong[] = {
        {0}, {.id = 1, .heartbeat_ms = 300}, {.id = 1, .drift_percent = 60}, {.id = 1, .append_entries_max = 65}};
    for (size_t i = 0; i < array_size(wrong); i++)
        ck_assert_int_eq(raft_new(&wrong[i], &good, &r), -EINVAL);
    ck_assert_ptr_null(raft_free(NULL));
}

TEST(raft_commits_at_once_what_the_application_had_applied_before_a_restart)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    for (int i = 0; i < 5; i++)
        propose(&c, 1);
    settle(&c);
    run_ms(&c, 60);
    ck_assert_uint_eq(node_of(&c, 2)->applied, 7);
    crash(&c, 2);
    ck_assert_uint_lt(node_of(&c, 2)->disk->commit, 7); /* the hint lags */
    boot(&c, 2);
    ck_assert_uint_eq(node_of(&c, 2)->out.commit, 7);
    cluster_stop(&c);
}

TEST(raft_a_write_reported_twice_changes_nothing)
{
    cluster_start(&c, 1);
    run_ms(&c, 20);
    propose(&c, 1);
    settle(&c);
    step(&c, 1, (struct raft_input){.type = RAFT_IN_WRITTEN, .written.seq = 1});
    ck_assert_int_eq(node_of(&c, 1)->result, 0);
    ck_assert_uint_eq(node_of(&c, 1)->out.commit, 3);
    uint64_t index;
    ck_assert_ptr_nonnull(raft_conf_newest(node_of(&c, 1)->r, &index));
    join_node(&c, 2);
    ck_assert_ptr_null(raft_conf_newest(node_of(&c, 2)->r, &index));
    ck_assert_uint_eq(status_of(&c, 2).conf_index, 0);
    cluster_stop(&c);
}

TEST(raft_time_going_back_is_no_time)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    c.now_ms -= 900;
    run_ms(&c, 850);
    ck_assert_uint_eq(leader_of(&c), 1);
    cluster_stop(&c);
}

/* ---- Alarms ---- */

/* Stopped for good: nothing leaves any more. */
static void check_stopped(uint64_t id, const char *text)
{
    struct node *n = node_of(&c, id);
    ck_assert_int_eq(n->result, -CV_LOG_DIVERGED);
    ck_assert_ptr_nonnull(raft_alarm(n->r));
    ck_assert_msg(strstr(raft_alarm(n->r), text) != NULL, "%s", raft_alarm(n->r));
    ck_assert_uint_eq(n->out.write.seq, 0);
    ck_assert_uint_eq(n->out.send_count, 0);
    c.now_ms += 5000;
    step(&c, id, (struct raft_input){.type = RAFT_IN_TICK});
    ck_assert_int_eq(n->result, -CV_LOG_DIVERGED);
    ck_assert_uint_eq(n->out.send_count, 0);
    cluster_stop(&c);
}

static void stopping_start(void)
{
    cluster_one_of_three(&c, 2);
    inject_append(&c, 1, 2, 2, 1, 1, 2, 4, 3); /* 2..5 of term 2, 3 committed */
    sync_disk(&c, 2, 9);
    ck_assert_ptr_null(raft_alarm(node_of(&c, 2)->r));
    c.expect_alarm = true;
}

TEST(raft_stops_when_two_nodes_lead_one_term)
{
    stopping_start();
    inject_append(&c, 3, 2, 2, 5, 2, 2, 1, 3);
    check_stopped(2, "two leaders");
}

TEST(raft_stops_rather_than_truncate_what_is_committed)
{
    stopping_start();
    inject_append(&c, 3, 2, 3, 2, 2, 3, 1, 3);
    check_stopped(2, "commit index");
}

TEST(raft_stops_when_the_leader_differs_at_a_committed_entry)
{
    stopping_start();
    inject_append(&c, 3, 2, 4, 3, 3, 4, 1, 3);
    check_stopped(2, "differs from ours");
}

TEST(raft_stops_when_it_lost_what_it_acknowledged)
{
    stopping_start();
    struct raft_message m = {.type = RAFT_MSG_HEARTBEAT, .from = 1, .to = 2, .term = 2};
    m.heartbeat.round = 1;
    m.heartbeat.commit = 6;
    inject(&c, m);
    check_stopped(2, "does not hold");
}

TEST(raft_stops_when_a_leader_changes_its_log)
{
    stopping_start();
    /* Terms 2 2 2 2, then the same leader's entry 5 is said to be of term 1 and followed by more: cannot be. */
    inject_append(&c, 1, 2, 3, 3, 2, 2, 2, 3);
    inject_append(&c, 1, 2, 3, 4, 2, 3, 1, 3);
    check_stopped(2, "its own log");
}

TEST(raft_stops_when_a_write_is_reported_that_nobody_asked_for)
{
    stopping_start();
    step(&c, 2, (struct raft_input){.type = RAFT_IN_WRITTEN, .written.seq = 77});
    check_stopped(2, "never asked for");
}

TEST(raft_stops_when_the_application_is_ahead)
{
    stopping_start();
    step(&c, 2, (struct raft_input){.type = RAFT_IN_APP, .app.applied = 4});
    check_stopped(2, "ahead");
}

TEST(raft_stops_when_a_configuration_cannot_be_read)
{
    stopping_start();
    struct raft_entry e = {.term = 2, .type = RAFT_CONF, .size = 3, .data = (const uint8_t *)"abc"};
    struct raft_message m = {.type = RAFT_MSG_APPEND, .from = 1, .to = 2, .term = 2, .entries = &e};
    m.append.prev_index = 5;
    m.append.prev_term = m.append.last_term = 2;
    m.append.count = 1;
    inject(&c, m);
    ck_assert_int_eq(node_of(&c, 2)->result, -CV_LOG_DIVERGED);
    check_stopped(2, "cannot be decoded");
}

TEST(raft_stops_when_a_peer_accepted_what_was_never_sent)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    c.expect_alarm = true;
    struct raft_message m = {.type = RAFT_MSG_HEARTBEAT_REPLY, .from = 2, .to = 1, .term = node_of(&c, 1)->out.term};
    m.heartbeat_reply.round = 99;
    m.heartbeat_reply.accepted = 2;
    m.heartbeat_reply.match = 3;
    inject(&c, m);
    check_stopped(1, "never had");
}

TEST(raft_stops_when_what_it_compacted_differs_from_the_leaders)
{
    stopping_start();
    c.expect_alarm = false;
    step(&c, 2, (struct raft_input){.type = RAFT_IN_APP, .app = {.applied = 3, .flushed = 3}});
    step(&c, 2, (struct raft_input){.type = RAFT_IN_COMPACT, .compact.first = 4});
    c.expect_alarm = true;
    inject_append(&c, 1, 2, 3, 1, 1, 3, 4, 3);
    check_stopped(2, "differs from ours");
}

TEST(raft_stops_when_a_peer_acknowledges_what_it_never_sent)
{
    cluster_start(&c, 3);
    cluster_elect(&c, 1);
    c.expect_alarm = true;
    struct raft_message m = {.type = RAFT_MSG_APPEND_REPLY, .from = 2, .to = 1, .term = node_of(&c, 1)->out.term};
    m.append_reply.index = 99;
    inject(&c, m);
    check_stopped(1, "never had");
}

/* ---- Allocation ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
static uint64_t allocations; /* inside raft_step */

void *malloc(size_t n)
{
    allocations += counting_allocations;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    allocations += counting_allocations;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    allocations += counting_allocations;
    return __libc_realloc(p, n);
}

TEST(raft_steps_do_not_allocate)
{
    cluster_start(&c, 3);
    run_ms(&c, 2500);
    allocations = 0;
    for (int i = 0; i < 1000; i++) {
        propose(&c, leader_of(&c));
        if (i % 10 == 0)
            run_ms(&c, 10);
    }
    run_ms(&c, 1000);
    ck_assert_uint_eq(allocations, 0);
    /* Elections add a run each: the table doubles now and then. */
    for (int i = 0; i < 300; i++)
        cluster_elect(&c, 1 + i % 3);
    ck_assert_uint_gt(allocations, 0);
    ck_assert_uint_lt(allocations, 15);
    cluster_stop(&c);
}
#endif
