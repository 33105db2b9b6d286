/* SPDX-License-Identifier: Apache-2.0 */
/* Known bugs around snapshots and compaction. */
#include "sim_case.h"

CASE(snapshot_over_newer, 3, "a snapshot replaces a log that is newer")
{
    elect(w, 0);
    run_ms(w, 20);
    for (int i = 0; i < 4; i++) {
        propose(w, 0);
        run_ms(w, 20);
    }
    struct node *n = w->nodes[1];
    uint64_t last = last_of(w, 1);
    expect(w, commit_of(w, 1) >= 4, "nothing was committed");
    /* A fetch of the state at entry 3 is complete: too late. */
    struct state *s = sim_alloc(&w->arena, sizeof(*s));
    s->applied = 3;
    n->install_state = s;
    n->install_conf = image_conf(&n->disk.live, 3);
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_INSTALL};
    in.snapshot_install.index = 3;
    in.snapshot_install.term = image_entry(&n->disk.live, 3)->term;
    in.snapshot_install.conf_index = n->install_conf->index;
    in.snapshot_install.conf = n->install_conf->conf;
    int r = node_step(n, &in);
    expect(w, r == -EALREADY && last_of(w, 1) == last, "an old snapshot gets %s, the log ends at %llu",
           r ? cv_error_name(r) : "installed", (unsigned long long)last_of(w, 1));
}

static void compacting(struct params *p)
{
    p->compact_every = 4;
    p->flush_ms = 100;
}

static bool hints_too_low(struct world *w, struct sim_message *m, struct node *from, struct node *to)
{
    if (m->m.type == RAFT_MSG_APPEND_REPLY && m->m.append_reply.rejected)
        m->m.append_reply.conflict_term = m->m.append_reply.conflict_first = m->m.append_reply.last_index = 0;
    return true;
}

CASE_WITH(low_hint_believed, 3, compacting,
          "a follower whose hints are too low waits for a snapshot, and could have gone on from the log")
{
    elect(w, 0);
    all_ticks(w, true);
    for (int i = 0; i < 20; i++) {
        propose(w, 0);
        run_ms(w, 40);
    }
    run_ms(w, 300);
    cut(w, N(2), ALL);
    propose(w, 0);
    run_ms(w, 20);
    expect(w, w->nodes[0]->disk.live.first > 4 && w->nodes[0]->disk.live.first <= last_of(w, 2) + 1,
           "not compacted as it should be");
    node_stop(w->nodes[0], STOP_MASTER, 0); /* nobody can give a snapshot, or lead, but 2 */
    node_stop(w->nodes[1], STOP_MASTER, 0);
    w->net->filter = hints_too_low;
    heal(w);
    elect(w, 0); /* it knows nothing of 2 */
    run_ms(w, 5000);
    expect(w, leads(w, 2), "2 has not got the entries it lacks");
}

static bool no_offers_taken(struct world *w, struct sim_message *m, struct node *from, struct node *to)
{
    return m->m.type != RAFT_MSG_SNAPSHOT;
}

CASE_WITH(compaction_ignores_pin, 3, compacting, "the log is compacted beyond a snapshot that is under way")
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
    w->net->filter = no_offers_taken; /* the fetch takes long */
    heal(w);
    struct raft_status status;
    uint64_t pinned = 0;
    for (int i = 0; i < 100 && !pinned; i++) {
        run_ms(w, 20);
        raft_status(w->nodes[0]->raft, &status);
        for (uint32_t k = 0; k < status.peer_count; k++)
            pinned = max(pinned, status.peers[k].snapshot_index);
    }
    expect(w, pinned, "no snapshot is offered");
    for (int i = 0; i < 20; i++) {
        propose(w, 0);
        run_ms(w, 20);
    }
    run_ms(w, 300);
    expect(w, w->nodes[0]->disk.live.first <= pinned + 1, "log begins at %llu, the snapshot under way ends at %llu",
           (unsigned long long)w->nodes[0]->disk.live.first, (unsigned long long)pinned);
    w->net->filter = NULL;
    run_ms(w, 3000);
    expect(w, last_of(w, 2) == last_of(w, 0), "2 did not catch up");
}
