/* SPDX-License-Identifier: Apache-2.0 */
/* Bugs our own core had, found by random schedules: each stays as a mutant. */
#include "sim_case.h"

/* 0 alone votes; 1 is promoted but does not know yet, so that it never campaigns, and 0 is terms ahead of it. */
CASE(prevote_answer_of_older_term, 1, "a pre-vote granted by a voter at an older term is dropped")
{
    elect(w, 0);
    run_ms(w, 20);
    uint32_t second = new_machine(w, false);
    int r = change(w, 0, RAFT_ADD_LEARNER, second);
    expect(w, r == 0, "no learner: %s", cv_error_name(r));
    run_ms(w, 20);
    propose(w, 0);
    run_ms(w, 20);
    cut(w, N(0), N(second));
    r = change(w, 0, RAFT_PROMOTE, second);
    expect(w, r == 0, "no promotion: %s", cv_error_name(r));
    run_ms(w, 20);
    stop(w, 0, -1);
    start(w, 0);
    for (int i = 0; i < 3; i++) {
        campaign(w, 0);
        run_ms(w, 20);
    }
    heal(w);
    all_ticks(w, true);
    run_ms(w, 6000);
    expect(w, leads(w, 0), "nobody leads");
}

CASE(removed_voter_rests, 2, "a voter whose removal is not committed no longer campaigns, and nobody else can win")
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(0), N(1));
    int r = change(w, 0, RAFT_DEMOTE, 0);
    expect(w, r == 0, "no demotion: %s", cv_error_name(r));
    run_ms(w, 20);
    stop(w, 0, -1);
    start(w, 0);
    heal(w);
    all_ticks(w, true);
    run_ms(w, 8000);
    expect(w, leads(w, 1), "the voter that is left does not lead");
}

CASE(lost_ack_stays_lost, 2, "an ack that was lost is never made good")
{
    elect(w, 0);
    run_ms(w, 20);
    lose(w, 1, 0, RAFT_MSG_APPEND_REPLY);
    uint64_t index = propose(w, 0);
    run_ms(w, 20);
    lose(w, 1, 0, 0);
    all_ticks(w, true);
    run_ms(w, 3000);
    expect(w, commit_of(w, 0) >= index, "on both disks for 3 s and not committed");
}
