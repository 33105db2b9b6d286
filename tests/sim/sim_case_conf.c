/* SPDX-License-Identifier: Apache-2.0 */
/* Known bugs around membership changes. */
#include "sim_case.h"

static uint32_t voters_at(struct world *w, uint32_t slot)
{
    uint64_t index;
    const struct raft_conf *conf = raft_conf_newest(w->nodes[slot]->raft, &index);
    return raft_conf_voters(conf);
}

/* Two leaders' competing changes, neither built on the other: one adds the fifth voter and reaches only that one, the
 * other removes the first and reaches only one more. Their majorities need not share a node. */
CASE(conf_without_current_term, 4, "cowsql (R4): members change before an entry of the term is committed")
{
    elect(w, 0);
    run_ms(w, 20);
    uint32_t fifth = new_machine(w, false);
    int r = change(w, 0, RAFT_ADD_LEARNER, fifth);
    expect(w, r == 0, "no learner: %s", cv_error_name(r));
    run_ms(w, 20);
    propose(w, 0);
    run_ms(w, 20);
    cut(w, N(0) | N(fifth), ALL & ~(N(0) | N(fifth)));
    r = change(w, 0, RAFT_PROMOTE, fifth);
    expect(w, r == 0, "no promotion: %s", cv_error_name(r));
    run_ms(w, 20);
    elect(w, 1);
    cut(w, N(1) | N(2), N(3)); /* before its first entry reaches 3 */
    run_ms(w, 20);
    r = change(w, 1, RAFT_DEMOTE, 0);
    run_ms(w, 20);
    heal(w);
    cut(w, N(1) | N(2), ALL & ~(N(1) | N(2)));
    stop(w, 0, -1);
    start(w, 0);
    for (int i = 0; i < 3 && !leads(w, 0); i++) {
        campaign(w, 0);
        run_ms(w, 20);
    }
    expect(w, r == -EBUSY, "a change without an entry of the term committed gets %s", r ? cv_error_name(r) : "done");
}

CASE(conf_while_uncommitted, 5, "members change while the last change is not committed")
{
    elect(w, 0);
    run_ms(w, 20);
    propose(w, 0);
    run_ms(w, 20);
    cut(w, N(0) | N(1), N(2) | N(3) | N(4));
    int r = change(w, 0, RAFT_DEMOTE, 4);
    expect(w, r == 0, "no demotion: %s", cv_error_name(r));
    r = change(w, 0, RAFT_DEMOTE, 3);
    run_ms(w, 20); /* two of three */
    elect(w, 2);   /* three of five */
    run_ms(w, 20);
    expect(w, r == -EBUSY, "a second change gets %s", r ? cv_error_name(r) : "done");
}

/* 0 makes a change nobody else gets, and loses it to another leader. If it stays in force there, 0 can be elected by a
 * majority that the real configurations do not know. */
CASE(conf_not_rolled_back, 4, "a truncated configuration stays in force")
{
    elect(w, 0);
    run_ms(w, 20);
    propose(w, 0);
    run_ms(w, 20);
    cut(w, N(0), ALL);
    int r = change(w, 0, RAFT_DEMOTE, 3);
    expect(w, r == 0, "no demotion: %s", cv_error_name(r));
    run_ms(w, 20);
    elect(w, 2);
    run_ms(w, 20);
    heal(w);
    propose(w, 2);
    run_ms(w, 20);
    for (int i = 0; i < 6; i++) {
        tick(w, 2);
        run_ms(w, 60);
    }
    expect(w, last_of(w, 0) == last_of(w, 2), "0 did not follow");
    expect(w, voters_at(w, 0) == 4, "%u voters at 0", voters_at(w, 0));
    cut(w, N(0) | N(1), N(2) | N(3));
    r = change(w, 2, RAFT_DEMOTE, 0);
    expect(w, r == 0, "no demotion: %s", cv_error_name(r));
    run_ms(w, 20);
    campaign(w, 0);
    run_ms(w, 20);
}

CASE(conf_batch_index, 3, "cowsql (R5): a configuration gets the index of its batch's first entry")
{
    elect(w, 0);
    run_ms(w, 20);
    propose(w, 0);
    run_ms(w, 20);
    cut(w, N(1), ALL);
    propose(w, 0);
    int r = change(w, 0, RAFT_UPDATE, 2);
    expect(w, r == 0, "no change: %s", cv_error_name(r));
    uint64_t index = last_of(w, 0), known = 0;
    run_ms(w, 20);
    heal(w);
    for (int i = 0; i < 10 && last_of(w, 1) < index; i++) {
        tick(w, 0);
        run_ms(w, 60);
    }
    expect(w, last_of(w, 1) == index, "1 did not follow");
    raft_conf_newest(w->nodes[1]->raft, &known);
    expect(w, known == index, "1 takes entry %llu for the configuration, it is %llu", (unsigned long long)known,
           (unsigned long long)index);
}

/* Found by seed 1284: a promoted learner that does not know it yet never campaigns, so nothing brings it the term of
 * the one that asks it. */
CASE(prevote_of_older_term, 2, "a granted pre-vote does not count because its sender is at an older term")
{
    elect(w, 0);
    run_ms(w, 20);
    int r = change(w, 0, RAFT_DEMOTE, 1);
    run_ms(w, 20);
    expect(w, r == 0, "no demotion: %s", cv_error_name(r));
    for (int i = 0; i < 2; i++) {
        tick(w, 0);
        run_ms(w, 60);
    }
    lose(w, 0, 1, RAFT_MSG_APPEND);
    r = change(w, 0, RAFT_PROMOTE, 1);
    expect(w, r == 0, "no promotion: %s", cv_error_name(r));
    run_ms(w, 20);
    cut(w, N(0), N(1));
    stop(w, 0, -1);
    start(w, 0);
    campaign(w, 0); /* two terms ahead of 1 */
    run_ms(w, 5);
    campaign(w, 0);
    run_ms(w, 5);
    stop(w, 0, -1);
    start(w, 0);
    lose(w, 0, 0, 0);
    heal(w);
    all_ticks(w, true);
    run_ms(w, 4000);
    expect(w, leads(w, 0), "nobody leads");
}
