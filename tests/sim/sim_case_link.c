/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's end of the link beside its model: what it tells, and to whom. */
#include "sim_case.h"
#include "sim_twin.h"

static void with_link(struct params *p)
{
    p->store = p->link = true;
    p->clients = 1;
    p->flush_ms = 100;
}

static void restart_master(struct world *w, uint32_t slot)
{
    node_stop(w->nodes[slot], STOP_MASTER, 0);
    run_ms(w, 5);
    node_start(w->nodes[slot], STOP_MASTER);
    run_ms(w, 20);
}

static uint64_t told(struct world *w, uint32_t slot)
{
    const struct twin_master *t = twin_master_of(w->nodes[slot]);
    expect(w, t && t->attached, "n%u: no master is attached", slot);
    return t->told;
}

CASE_WITH(link_told_early, 3, with_link, "durable and not committed: the link says committed")
{
    elect(w, 0);
    run_ms(w, 20);
    expect(w, told(w, 0) == commit_of(w, 0), "what is committed is not told");
    cut(w, N(0), ALL);
    propose(w, 0);
    run_ms(w, 20);
    expect(w, told(w, 0) < last_of(w, 0), "what is not committed is told");
}

CASE_WITH(link_resends_wrong, 3, with_link, "a master attaches again: entries follow what it has")
{
    elect(w, 0);
    for (int i = 0; i < 5; i++) {
        propose(w, 0);
        run_ms(w, 20);
    }
    for (int i = 0; i < 4; i++) { /* every other time its end is noticed only by the next attach */
        restart_master(w, 0);
        propose(w, 0);
        run_ms(w, 20);
        expect(w, told(w, 0) == commit_of(w, 0), "a master that came again is not told all");
    }
}

CASE_WITH(link_ignores_credit, 3, with_link, "a master that keeps to its credit is not disconnected")
{
    elect(w, 0);
    run_ms(w, 50);
    twin_flood(w->nodes[0], LINK_CREDIT_ENTRIES + 10);
    expect(w, told(w, 0) == commit_of(w, 0), "what is committed is not told");
}
