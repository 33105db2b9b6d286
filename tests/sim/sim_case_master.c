/* SPDX-License-Identifier: Apache-2.0 */
/* Known bugs of masters: what is speculative, what may be answered when, and reads. */
#include "sim_case.h"

static void clients(struct params *p)
{
    p->clients = 4;
    p->link_us = 0;
}

static void leases(struct params *p)
{
    clients(p);
    p->no_lease = false;
}

static void put(struct world *w, uint32_t client, uint32_t slot, enum ack_mode mode)
{
    ask(w, client, slot, (struct request){.type = OP_PUT, .key = 0, .mode = (uint8_t)mode});
}

static void get(struct world *w, uint32_t client, uint32_t slot, bool follower)
{
    ask(w, client, slot, (struct request){.type = OP_GET, .key = 0, .follower = follower});
}

static bool has_answer(struct world *w, uint32_t client)
{
    return !w->clients[client]->busy;
}

CASE_WITH(id_lease_ignored, 3, clients, "ids are counted on without a committed grant, and handed out twice")
{
    elect(w, 0);
    run_ms(w, 50);
    cut(w, N(0), ALL);
    ask(w, 0, 0, (struct request){.type = OP_ID, .mode = ACK_APPLIED});
    run_ms(w, 10);
    expect(w, has_answer(w, 0), "no id");
    elect(w, 1);
    run_ms(w, 50);
    ask(w, 1, 1, (struct request){.type = OP_ID, .mode = ACK_QUORUM});
    run_ms(w, 50);
    expect(w, has_answer(w, 1), "no second id");
}

CASE_WITH(overlay_dropped_early, 3, clients, "a committed batch takes a newer batch's row out of the overlay")
{
    elect(w, 0);
    run_ms(w, 50);
    for (uint32_t i = 0; i < 8; i++) {
        put(w, i % 4, 0, ACK_APPLIED);
        run_ms(w, 1);
    }
    run_ms(w, 50);
}

CASE_WITH(effect_before_commit, 3, clients, "side effects are released when an operation is executed")
{
    elect(w, 0);
    run_ms(w, 50);
    put(w, 0, 0, ACK_QUORUM);
    run_ms(w, 50);
    cut(w, N(0), ALL);
    ask(w, 0, 0, (struct request){.type = OP_REMOVE, .key = 0, .mode = ACK_APPLIED});
    run_ms(w, 50);
}

/* A leader with a lease whose changes reach nobody. */
static void cut_off_leader(struct world *w)
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 300);
    cut(w, N(0), ALL);
    put(w, 0, 0, ACK_QUORUM);
    run_ms(w, 5);
}

CASE_WITH(negative_answer_early, 3, leases, "errors and negative answers leave before what they rest on is committed")
{
    cut_off_leader(w);
    ask(w, 1, 0, (struct request){.type = OP_SWAP, .key = 0, .expected = 0});
    run_ms(w, 20);
    expect(w, !has_answer(w, 1), "a comparison with an uncommitted version was answered");
}

CASE_WITH(read_not_waiting, 3, leases, "reads show what is not committed")
{
    cut_off_leader(w);
    get(w, 1, 0, false);
    run_ms(w, 20);
    expect(w, !has_answer(w, 1), "an uncommitted version was shown");
}

CASE_WITH(local_ack_early, 3, leases, "an answer of mode local leaves before the change is on the leader's disk")
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 300);
    hold_disk(w, 0);
    put(w, 0, 0, ACK_LOCAL);
    run_ms(w, 200); /* with every heartbeat the master looks again */
    expect(w, !has_answer(w, 0), "answered, and not on disk");
    release_disk(w, 0);
    run_ms(w, 50);
    expect(w, has_answer(w, 0), "no answer");
}

static void narrow(struct params *p)
{
    clients(p);
    p->uncommitted_max = 2;
}

CASE_WITH(busy_refused, 3, narrow, "a change answered under applied is lost, and its leader leads on")
{
    elect(w, 0);
    run_ms(w, 50);
    cut(w, N(0), ALL);
    for (uint32_t i = 0; i < 4; i++) {
        put(w, i, 0, ACK_APPLIED);
        run_ms(w, 5);
        expect(w, has_answer(w, i), "no answer");
    }
    heal(w);
    all_ticks(w, true); /* what waits is tried again */
    run_ms(w, 1000);
    check_losses(w);
}

CASE_WITH(slot_not_undone, 3, clients, "a rolled-back request stays in its slot: its retry is answered, not executed")
{
    elect(w, 0);
    run_ms(w, 50);
    cut(w, N(0), ALL);
    put(w, 0, 0, ACK_APPLIED);
    run_ms(w, 10);
    elect(w, 1);
    run_ms(w, 20);
    heal(w);
    propose(w, 1);
    for (int i = 0; i < 6; i++) {
        tick(w, 1);
        run_ms(w, 60);
    }
    elect(w, 0);
    run_ms(w, 100);
    put(w, 0, 0, ACK_QUORUM);
    run_ms(w, 200);
    expect(w, has_answer(w, 0), "no answer after the change of leaders");
}

CASE_WITH(serve_before_attach_caught_up, 3, clients,
          "a restarted master serves before it knows its predecessor's proposals")
{
    elect(w, 0);
    run_ms(w, 50);
    hold_disk(w, 1);
    hold_disk(w, 2);
    put(w, 0, 0, ACK_APPLIED);
    run_ms(w, 10);
    node_stop(w->nodes[0], STOP_MASTER, 0);
    start(w, 0);
    run_ms(w, 1);
    put(w, 1, 0, ACK_APPLIED); /* must wait: entry 4 is not committed, and unknown to this master */
    run_ms(w, 10);
    release_disk(w, 1);
    release_disk(w, 2);
    run_ms(w, 100);
}

CASE_WITH(lease_kept_at_master, 3, leases, "a master goes on with its lease after the journal handed over")
{
    elect(w, 0);
    all_ticks(w, true);
    run_ms(w, 500);
    put(w, 0, 0, ACK_QUORUM);
    run_ms(w, 50);
    expect(w, has_answer(w, 0), "no answer");
    /* The master of 0 hears its journal's words 200 ms late, those of 1 at once. */
    struct link_state *link = &w->nodes[0]->link;
    link->slow_until_us = UINT64_MAX;
    link->slow_us = 200 * SIM_MS;
    link_transfer(w->nodes[0], w->nodes[1]->id);
    for (int i = 0; i < 400 && !leads(w, 1); i++)
        run_ms(w, 1);
    expect(w, leads(w, 1), "leadership was not handed over");
    run_ms(w, 10);
    put(w, 0, 1, ACK_QUORUM);
    run_ms(w, 10);
    expect(w, has_answer(w, 0), "the new leader does not answer");
    get(w, 1, 0, false);
    run_ms(w, 10);
}

CASE_WITH(read_unconfirmed, 3, clients, "reads are answered by a leader that does not know that it was replaced")
{
    elect(w, 0);
    run_ms(w, 50);
    put(w, 0, 0, ACK_QUORUM);
    run_ms(w, 50);
    cut(w, N(0), ALL);
    elect(w, 1);
    run_ms(w, 20);
    put(w, 0, 1, ACK_QUORUM);
    run_ms(w, 50);
    expect(w, has_answer(w, 0), "no answer");
    get(w, 1, 0, false);
    run_ms(w, 20);
    expect(w, !has_answer(w, 1), "a read was answered without a majority");
}

/* What the last leader committed is in the new leader's log, but it does not know yet that it is committed. */
CASE_WITH(read_before_noop, 3, clients, "a new leader's reads do not wait for its first entry")
{
    elect(w, 0);
    run_ms(w, 50);
    put(w, 0, 0, ACK_QUORUM);
    run_ms(w, 50);
    expect(w, has_answer(w, 0), "no answer");
    cut(w, N(0), ALL);
    lose(w, 1, 2, RAFT_MSG_APPEND);
    elect(w, 1);
    get(w, 1, 2, true); /* 2 asks the leader for the read index */
    for (int i = 0; i < 10; i++) {
        tick(w, 1);
        run_ms(w, 10);
    }
    expect(w, !has_answer(w, 1), "a read was answered before the leader knew what is committed");
}
