/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver must promise about its writes (raft.h, 2): bugs in the fake disk. */
#include "sim_case.h"

CASE(term_vote_split, 3, "term and vote are two writes: a vote of a new term appears in the old one")
{
    cut(w, N(0), N(1));
    campaign(w, 1);
    run_ms(w, 20); /* 2 voted for 1 in term 2 */
    cut(w, N(1), ALL);
    hold_disk(w, 2);
    campaign(w, 0); /* term 2, unheard: 2 has voted */
    run_ms(w, 5);
    campaign(w, 0); /* term 3 */
    run_ms(w, 5);
    stop(w, 2, 1);
    release_disk(w, 2);
    start(w, 2);
    struct raft_message m = {.type = RAFT_MSG_VOTE};
    m.vote.last_index = 1;
    m.vote.last_term = 1;
    m.vote.transfer = 1;
    inject(w, 0, 2, 2, m); /* the request of term 2 once more */
    run_ms(w, 20);
}

CASE(truncate_append_split, 3, "a truncation and the entries that follow are two writes")
{
    elect(w, 2);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    propose(w, 2);
    propose(w, 2); /* 3 and 4 of term 2 */
    run_ms(w, 20);
    elect(w, 0); /* 3 of term 3 */
    run_ms(w, 20);
    hold_disk(w, 2);
    struct raft_message m = {.type = RAFT_MSG_HEARTBEAT};
    inject(w, 0, 2, term_of(w, 0), m); /* its term in a unit of its own */
    inject_append(w, 0, 2, 2, 1, 2);
    stop(w, 2, 2);
    release_disk(w, 2);
    start(w, 2);
    run_ms(w, 20);
}

CASE(hard_state_lost, 3, "a full disk loses term and vote, but the write is reported done")
{
    w->nodes[2]->disk.full_until_us = w->now_us + 1000 * SIM_MS;
    cut(w, N(0), N(1));
    campaign(w, 0);
    run_ms(w, 20);
    stop(w, 2, 0);
    w->nodes[2]->disk.full_until_us = 0;
    start(w, 2);
    campaign(w, 1); /* in the same term */
    run_ms(w, 20);
}
