/* SPDX-License-Identifier: Apache-2.0 */
/* Known bugs around votes, terms and leases. */
#include "sim_case.h"

CASE(vote_before_fsync, 3, "votes leave before they are durable")
{
    hold_disk(w, 2);
    cut(w, N(0), N(1));
    campaign(w, 0);
    run_ms(w, 20);
    stop(w, 2, 0);
    release_disk(w, 2);
    start(w, 2);
    campaign(w, 1); /* in the same term */
    run_ms(w, 20);
}

CASE(vote_ignores_last_term, 3, "logs are compared by length only")
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(0), ALL);
    for (int i = 0; i < 3; i++)
        propose(w, 0);
    elect(w, 1);
    run_ms(w, 20);
    heal(w);
    cut(w, N(1), ALL);
    stop(w, 0, -1);
    start(w, 0);
    for (int i = 0; i < 3; i++) {
        campaign(w, 0);
        run_ms(w, 20);
        expect(w, !leads(w, 0), "a node without the committed entry leads");
    }
}

static void leases(struct params *p)
{
    p->no_lease = false;
}

/* A leader with a lease, one follower cut off from it for just longer than its own promise lasts. */
static void cut_off_one(struct world *w)
{
    elect(w, 0);
    all_ticks(w, true);
    ticks(w, 2, false);
    run_ms(w, 300);
    cut(w, N(0), N(2));
    run_ms(w, 520);
    expect(w, w->nodes[0]->out.lease_until_ms > node_now_ms(w->nodes[0]), "the leader has no lease");
}

CASE_WITH(vote_after_restart, 3, leases, "votes are given right after a start, whatever was promised before it")
{
    cut_off_one(w);
    lose(w, 0, 1, RAFT_MSG_HEARTBEAT);
    stop(w, 1, -1);
    start(w, 1);
    campaign_politely(w, 2);
    run_ms(w, 20);
    expect(w, !leads(w, 2), "a second leader in the time of a lease");
}

CASE_WITH(vote_not_sticky, 3, leases, "votes are given while a leader is heard")
{
    cut_off_one(w);
    campaign_politely(w, 2);
    run_ms(w, 20);
    expect(w, !leads(w, 2), "a second leader in the time of a lease");
}

/* openraft #1796: the node with the longer log is at the lower term and asks for the term the others passed long ago;
 * the others are at the higher term and have the shorter log. */
static void stuck_pair(struct world *w)
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    propose(w, 0);
    run_ms(w, 20);
    for (int i = 0; i < 4; i++) {
        campaign(w, 2);
        run_ms(w, 20);
    }
    stop(w, 1, -1);
    stop(w, 0, -1);
    start(w, 0);
    heal(w);
    all_ticks(w, true);
    run_ms(w, 6000);
    expect(w, leads(w, 0), "the longer log and the higher term do not come together");
}

CASE(prevote_no_adopt, 3, "openraft: refused pre-votes do not pass on the higher term, nobody is ever elected")
{
    stuck_pair(w);
}

CASE(no_quorum_check, 3, "a leader without a majority goes on")
{
    elect(w, 0);
    ticks(w, 0, true);
    run_ms(w, 200);
    cut(w, N(0), ALL);
    run_ms(w, 1500);
    expect(w, !leads(w, 0), "still leads, with nobody answering");
}

static bool no_timeout_now(struct world *w, struct sim_message *m, struct node *from, struct node *to)
{
    return m->m.type != RAFT_MSG_TIMEOUT_NOW;
}

CASE_WITH(lease_survives_transfer, 3, leases,
          "a leader that began a transfer keeps its lease; the word to take over arrives late")
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 300);
    w->net->filter = no_timeout_now;
    struct raft_input in = {.type = RAFT_IN_TRANSFER, .transfer.to = w->nodes[1]->id};
    int r = node_step(w->nodes[0], &in);
    expect(w, r == 0, "no transfer: %s", cv_error_name(r));
    run_ms(w, 800); /* given up */
    expect(w, leads(w, 0), "the transfer should have been given up");
    cut(w, N(0), N(1));
    struct raft_message m = {.type = RAFT_MSG_TIMEOUT_NOW};
    m.timeout_now.last_index = last_of(w, 1);
    inject(w, 0, 1, term_of(w, 0), m);
    run_ms(w, 20);
}

/* Answers to heartbeats take 400 ms. */
static bool slow_answers(struct world *w, struct sim_message *m, struct node *from, struct node *to)
{
    if (m->m.type != RAFT_MSG_HEARTBEAT_REPLY || from->slot != 1 || to->slot != 0)
        return true;
    struct sim_message *copy = net_message_new(w, 0);
    *copy = *m;
    copy->receiver_life = to->life;
    struct event *e = world_schedule(w, w->now_us + 400 * SIM_MS, EVENT_MESSAGE);
    e->p = copy;
    e->node = to->slot;
    return false;
}

CASE_WITH(lease_from_reply, 3, leases, "the lease counts from the reply, not from the heartbeat's sending")
{
    elect(w, 0);
    w->net->filter = slow_answers;
    cut(w, N(0), N(2));
    ticks(w, 0, true);
    run_ms(w, 2000);
    nemesis_cut(w, N(0), N(1), false, 0); /* 0 still hears 1 */
    run_ms(w, 505);                       /* 1 has promised nothing any more */
    expect(w, leads(w, 0), "the leader should still lead");
    nemesis_cut(w, N(1), N(0), false, 0);
    campaign_politely(w, 1);
    run_ms(w, 20);
    expect(w, leads(w, 1), "1 was not elected");
}

static void journal_only(struct params *p)
{
    p->journal_only = 1;
}

static void expect_refused(struct world *w, uint32_t slot)
{
    struct raft_entry e = {.type = RAFT_BARRIER};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.term = term_of(w, slot);
    in.propose.entries = &e;
    in.propose.count = 1;
    int r = node_step(w->nodes[slot], &in);
    expect(w, r == -CV_NOT_LEADER, "a proposal at a journal-only leader gets %s", r ? cv_error_name(r) : "appended");
}

CASE_WITH(journal_leader_proposes, 3, journal_only, "a journal-only leader accepts proposals")
{
    elect(w, 2);
    run_ms(w, 20);
    expect_refused(w, 2);
}

/* Found by seed 3761: it is no member of the configuration in force any more, so it did not know its kind. */
CASE_WITH(journal_leader_leaves, 3, journal_only, "a journal-only leader accepts proposals while it is removed")
{
    elect(w, 2);
    run_ms(w, 20);
    hold_disk(w, 0);
    hold_disk(w, 1);
    int r = change(w, 2, RAFT_REMOVE, 2);
    expect(w, r == 0 && leads(w, 2), "no removal: %s", cv_error_name(r));
    expect_refused(w, 2);
}

CASE_WITH(journal_leader_stays, 3, journal_only, "a journal-only leader does not hand over")
{
    elect(w, 2);
    all_ticks(w, true);
    run_ms(w, 2000);
    expect(w, !leads(w, 2), "a journal-only node still leads");
    expect(w, leads(w, 0) || leads(w, 1), "nobody took over");
}
