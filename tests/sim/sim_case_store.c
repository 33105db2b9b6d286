/* SPDX-License-Identifier: Apache-2.0 */
/* The log store beside the disks: what it is given, and what it says after a start. */
#include "sim_case.h"

static void store(struct params *p)
{
    p->store = true;
    p->compact_every = 4;
    p->flush_ms = 100;
}

static void restart(struct world *w, uint32_t slot)
{
    stop(w, slot, -1);
    start(w, slot);
}

CASE_WITH(store_loses_vote, 3, store, "the vote does not reach the log store")
{
    elect(w, 0);
    run_ms(w, 20);
    for (uint32_t i = 0; i < 3; i++)
        restart(w, i);
}

CASE_WITH(store_keeps_tail, 3, store, "a truncation does not reach the log store")
{
    elect(w, 2);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    for (int i = 0; i < 3; i++)
        propose(w, 2);
    run_ms(w, 20);
    elect(w, 0);
    run_ms(w, 20);
    heal(w);
    for (int i = 0; i < 6; i++) {
        tick(w, 0);
        run_ms(w, 60);
    }
    expect(w, last_of(w, 2) == last_of(w, 0), "2 does not follow");
    restart(w, 2);
}

CASE_WITH(store_snapshot, 3, store, "the log store of a member that got a snapshot, and of those that compacted")
{
    elect(w, 0);
    all_ticks(w, true);
    ticks(w, 2, false);
    run_ms(w, 100);
    cut(w, N(2), ALL);
    for (int i = 0; i < 20; i++) {
        propose(w, 0);
        run_ms(w, 20);
    }
    run_ms(w, 300);
    expect(w, w->nodes[0]->disk.live.first > last_of(w, 2) + 1, "nothing was compacted");
    heal(w);
    run_ms(w, 3000);
    expect(w, w->counters.snapshots > 0 && last_of(w, 2) == last_of(w, 0), "2 did not catch up");
    for (uint32_t i = 0; i < 3; i++)
        restart(w, i);
}
