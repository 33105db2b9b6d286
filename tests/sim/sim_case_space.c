/* SPDX-License-Identifier: Apache-2.0 */
/* The namespace core under a master: undone batches, retries, what answers rest on, what reaches the disk. */
#include "sim_case.h"
#include "sim_space.h"

static void space(struct params *p)
{
    p->space = true;
    p->clients = 3;
    p->link_us = 0;
    p->flush_ms = 100;
}

static void space_lease(struct params *p)
{
    space(p);
    p->no_lease = false;
}

/* Until it is answered; the first requests of a session are refused until there is one. */
static void done(struct world *w, uint32_t client, uint32_t slot, enum op_type type, enum ack_mode mode)
{
    ask(w, client, slot, (struct request){.type = (uint8_t)type, .key = 0, .mode = (uint8_t)mode});
    for (int i = 0; i < 300 && w->clients[client]->busy; i++) {
        w->clients[client]->target = slot;
        run_ms(w, 10);
    }
    expect(w, !w->clients[client]->busy, "client %u gets no answer", client);
}

/* A leader whose clients have sessions, and a file. */
static void settle(struct world *w)
{
    elect(w, 0);
    run_ms(w, 50);
    for (uint32_t i = 0; i < w->client_count; i++)
        done(w, i, 0, OP_PUT, ACK_QUORUM);
    expect(w, space_client(w->nodes[0]->master.space, 0) == SPACE_READY, "no session");
}

/* The new leader's entries reach the old one, which has to take back what it executed. */
static void replace_leader(struct world *w)
{
    elect(w, 1);
    run_ms(w, 20);
    heal(w);
    for (int i = 0; i < 6; i++) {
        if (i < 3)
            propose(w, 1);
        tick(w, 1);
        run_ms(w, 60);
    }
    expect(w, commit_of(w, 0) == commit_of(w, 1), "0 does not follow");
}

CASE_WITH(space_undo_forgotten, 3, space, "a batch that is gone stays in the namespace of the leader that executed it")
{
    settle(w);
    cut(w, N(0), ALL);
    done(w, 0, 0, OP_REMOVE, ACK_APPLIED);
    done(w, 1, 0, OP_PUT, ACK_APPLIED);
    done(w, 2, 0, OP_ID, ACK_APPLIED);
    replace_leader(w);
    done(w, 2, 1, OP_REMOVE, ACK_QUORUM);
    done(w, 2, 1, OP_ID, ACK_QUORUM);
}

CASE_WITH(space_rows_early, 3, space, "rows of the namespace reach its base before they are committed")
{
    settle(w);
    cut(w, N(0), ALL);
    done(w, 0, 0, OP_PUT, ACK_APPLIED);
    run_ms(w, 500); /* a few flushes */
    stop(w, 0, -1);
    start(w, 0);
    replace_leader(w);
}

CASE_WITH(space_sequence_anew, 3, space, "a retry is executed by the namespace a second time")
{
    static const enum op_type types[] = {OP_PUT, OP_REMOVE, OP_PUT, OP_ID};
    settle(w);
    for (uint32_t i = 0; i < array_size(types); i++) {
        done(w, 0, 0, types[i], ACK_QUORUM);
        master_on_request(w->nodes[0], &w->clients[0]->request);
        run_ms(w, 20);
    }
    /* Also by another master, which has it from the log alone. */
    done(w, 0, 0, OP_PUT, ACK_QUORUM);
    elect(w, 1);
    run_ms(w, 50);
    done(w, 1, 1, OP_PUT, ACK_QUORUM);
    master_on_request(w->nodes[1], &w->clients[0]->request);
    run_ms(w, 20);
}

CASE_WITH(space_depends_ignored, 3, space_lease, "a negative answer of the namespace leaves before what it rests on")
{
    settle(w);
    all_ticks(w, true);
    run_ms(w, 300);
    cut(w, N(0), ALL);
    ask(w, 0, 0, (struct request){.type = OP_REMOVE, .key = 0});
    run_ms(w, 5);
    ask(w, 1, 0, (struct request){.type = OP_REMOVE, .key = 0}); /* no such name, if that is committed */
    run_ms(w, 20);
    expect(w, w->clients[1]->busy, "a name whose removal is not committed was said not to be there");
}

CASE_WITH(space_snapshot, 3, space, "a member that was away gets the namespace as a snapshot")
{
    w->params.compact_every = 4;
    settle(w);
    all_ticks(w, true);
    ticks(w, 2, false);
    cut(w, N(2), ALL);
    for (int i = 0; i < 20; i++)
        done(w, (uint32_t)i % 3, 0, i % 5 ? OP_PUT : OP_ID, ACK_QUORUM);
    run_ms(w, 500);
    expect(w, w->nodes[0]->disk.live.first > last_of(w, 2) + 1, "nothing was compacted");
    heal(w);
    run_ms(w, 3000);
    expect(w, w->counters.snapshots > 0 && last_of(w, 2) == last_of(w, 0), "2 did not catch up by a snapshot");
    done(w, 0, 0, OP_PUT, ACK_QUORUM); /* on top of it */
    run_ms(w, 200);
}
