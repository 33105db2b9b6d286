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

static void with_leases(struct params *p)
{
    with_link(p);
    p->no_lease = false;
}

CASE_WITH(link_lease_forgotten, 3, with_leases, "a transfer waits until the leases the master was told have run out")
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 300);
    struct twin_master *t = twin_master_of(w->nodes[0]);
    expect(w, t && t->lease_ns > node_now_ms(w->nodes[0]) * 1000000, "no lease");
    twin_on_admin(w->nodes[0], "transfer", 0);
    run_ms(w, 10);
    expect(w, t->lease_ns == 0, "the master is not told that leases are over");
    run_ms(w, 2000);
    expect(w, t->lease_ns == 0, "leases come back in this term");
    expect(w, t->admin_answers == 1, "the transfer is never done");
}
