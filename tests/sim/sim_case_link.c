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

enum { BEAT_MS = 100, SILENT_MS = 1000, TICK_MS = 10 };

/* So much time passes, with a sign of the master's health every 100 ms if it beats. */
static void pass(struct world *w, uint32_t ms, bool beats)
{
    for (uint32_t i = 0; i < ms; i += BEAT_MS) {
        if (beats)
            twin_on_health(w->nodes[0], SILENT_MS);
        run_ms(w, min(ms - i, (uint32_t)BEAT_MS));
    }
}

/* Node 0 leads, and its master beats. */
static void begin_beating(struct world *w)
{
    elect(w, 0);
    all_ticks(w, true);
    pass(w, 500, true);
    expect(w, !twin_is_silent(w->nodes[0]), "a master that beats is silent");
}

CASE_WITH(link_starved_master, 3, with_link,
          "a master starved of its cores for half a second, again and again, leads on")
{
    begin_beating(w);
    uint64_t term = term_of(w, 0);
    for (int i = 0; i < 100; i++) {
        pass(w, between(&w->node_random, 300, 600), false);
        twin_on_health(w->nodes[0], SILENT_MS); /* one beat, then the next time */
        if (i % 3 == 0)
            pass(w, between(&w->node_random, 0, 400), true);
        expect(w, !twin_is_silent(w->nodes[0]), "a starved master is taken for a stopped one");
    }
    expect(w, leads(w, 0) && term_of(w, 0) == term, "it does not lead any more");
    pass(w, SILENT_MS + 10 * TICK_MS, false);
    expect(w, twin_is_silent(w->nodes[0]), "a stopped master is not noticed");
    twin_on_health(w->nodes[0], SILENT_MS);
    run_ms(w, 2 * TICK_MS);
    expect(w, !twin_is_silent(w->nodes[0]), "a master that beats again stays silent");
}

CASE_WITH(link_silence_of_its_own, 3, with_link, "a journal whose own loop stood still does not judge a living master")
{
    begin_beating(w);
    for (int i = 0; i < 100; i++) {
        ticks(w, 0, false); /* both stand still */
        run_ms(w, between(&w->node_random, 500, 5000));
        ticks(w, 0, true);
        run_ms(w, between(&w->node_random, 1, 10 * TICK_MS)); /* the clock is looked at before what waits is read */
        expect(w, !twin_is_silent(w->nodes[0]), "a journal that stood still judges its master");
        pass(w, between(&w->node_random, 0, 500), true);
        expect(w, !twin_is_silent(w->nodes[0]), "a journal that stood still judges its master");
    }
    pass(w, SILENT_MS + 10 * TICK_MS, false);
    expect(w, twin_is_silent(w->nodes[0]), "a stopped master is not noticed");
}

CASE_WITH(link_silent_lease, 3, with_leases,
          "the leases of a silent master are over when leadership goes, and come again with it")
{
    begin_beating(w);
    const struct twin_master *t = twin_master_of(w->nodes[0]);
    expect(w, t->lease_ns > node_now_ms(w->nodes[0]) * 1000000, "no lease");
    pass(w, SILENT_MS - 10 * TICK_MS, false);
    expect(w, !twin_is_silent(w->nodes[0]), "taken for silent too early");
    expect(w, t->lease_ns < node_now_ms(w->nodes[0]) * 1000000 + 10 * TICK_MS * 1000000ull,
           "leases of a silent master go on");
    twin_on_health(w->nodes[0], SILENT_MS);
    run_ms(w, 200);
    expect(w, t->lease_ns > node_now_ms(w->nodes[0]) * 1000000, "no lease again");
}
