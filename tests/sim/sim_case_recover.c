/* SPDX-License-Identifier: Apache-2.0 */
/* What people do when machines are gone for good (raft.md 8.3). */
#include "sim_case.h"

static void lose_for_good(struct world *w, uint32_t slot)
{
    stop(w, slot, 0);
    w->nodes[slot]->dead = true;
}

static void grow(struct world *w, uint32_t leader, uint32_t slot)
{
    int r = change(w, leader, RAFT_ADD_LEARNER, slot);
    expect(w, r == 0, "no learner: %s", cv_error_name(r));
    run_ms(w, 2000);
    r = change(w, leader, RAFT_PROMOTE, slot);
    expect(w, r == 0, "no promotion: %s", cv_error_name(r));
    run_ms(w, 1000);
}

CASE(force_same_term, 3, "two of three machines are lost: the third goes on alone, and new machines join it")
{
    elect(w, 0);
    run_ms(w, 20);
    uint64_t committed = propose(w, 0);
    run_ms(w, 20);
    cut(w, N(0), N(2)); /* on 1 alone beside the leader, and 1 has not heard that it is committed */
    lose(w, 1, 0, RAFT_MSG_APPEND_REPLY);
    uint64_t unknown = propose(w, 0);
    run_ms(w, 20);
    cut(w, N(0), N(1));
    propose(w, 0); /* nobody else will ever know */
    run_ms(w, 20);
    uint64_t term = term_of(w, 1);
    expect(w, commit_of(w, 0) == committed && last_of(w, 1) == unknown, "not as it should be");
    lose_for_good(w, 0);
    lose_for_good(w, 2);
    all_ticks(w, true);
    run_ms(w, 5000);
    expect(w, !leads(w, 1), "one of three leads");
    expect(w, members_force(w) == w->nodes[1], "another one stays");
    all_ticks(w, true);
    run_ms(w, 2000);
    expect(w, leads(w, 1) && term_of(w, 1) > term + 1000, "it does not lead alone");
    expect(w, commit_of(w, 1) > unknown, "what it has is not committed");
    lose(w, 1, 0, 0);
    uint32_t first = new_machine(w, false), second = new_machine(w, false);
    all_ticks(w, true);
    grow(w, 1, first);
    grow(w, 1, second);
    expect(w, raft_conf_voters(w->check->conf->conf) == 3, "the cluster has not grown");
    stop(w, 1, -1);
    run_ms(w, 5000);
    expect(w, leads(w, first) || leads(w, second), "the new machines cannot do without the old one");
}

CASE(rejoin_after_wipe, 3, "a machine that lost its disk comes back as a new member, and the old one is removed")
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 100);
    propose(w, 0);
    run_ms(w, 100);
    lose_for_good(w, 2);
    uint32_t again = new_machine(w, false);
    ticks(w, again, true);
    grow(w, 0, again);
    int r = change(w, 0, RAFT_REMOVE, 2);
    expect(w, r == 0, "the lost member is not removed: %s", cv_error_name(r));
    run_ms(w, 500);
    stop(w, 1, -1);
    propose(w, 0);
    run_ms(w, 500);
    expect(w, commit_of(w, 0) == last_of(w, 0) && last_of(w, again) == last_of(w, 0), "the new member does not count");
}

CASE(late_learner, 1,
     "a learner that came long after it was added, to a cluster where nothing happens, can be promoted")
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 100);
    uint32_t second = new_machine(w, false);
    stop(w, second, 0);
    int r = change(w, 0, RAFT_ADD_LEARNER, second);
    expect(w, r == 0, "no learner: %s", cv_error_name(r));
    run_ms(w, 3000); /* its round takes longer than an election */
    start(w, second);
    ticks(w, second, true);
    run_ms(w, 2000);
    r = change(w, 0, RAFT_PROMOTE, second);
    expect(w, r == 0, "no promotion: %s", cv_error_name(r));
}
