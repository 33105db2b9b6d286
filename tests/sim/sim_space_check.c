/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the namespace cores (raft.md 9.2). Every committed entry is folded once, by a core that only follows; what
 * it sees and its digest are remembered by index. A master with nothing in flight must see the same at the same index,
 * wherever it came from: its own execution, undone batches, entries of others, a restart, a snapshot.
 */
#include <stdlib.h>
#include <string.h>

#include "sim_check.h"
#include "sim_disk.h"
#include "sim_node.h"
#include "sim_space.h"

typedef unsigned long long ull; /* for printing */

void space_check_fold(struct world *w, const struct sim_entry *e)
{
    struct check *c = w->check;
    if (!c->space)
        c->space = space_new(w, SIM_NODES_MAX, NULL);
    space_apply(c->space, e);
    if (e->index % 64 == 0)
        space_flush(c->space);
    struct check_index *at = &c->at[e->index];
    at->space_dump = space_dump(c->space);
    at->space_digest = space_digest(c->space);
    const struct batch_data *b = (const void *)e->data;
    if (e->type == RAFT_BATCH && b->session && !c->space_sessions[b->session_client]) {
        c->space_sessions[b->session_client] = b->session;
        c->space_since[b->session_client] = e->index;
    }
}

void space_check_applied(struct node *n, uint64_t index, bool quiet)
{
    struct world *w = n->world;
    const struct check_index *at = &w->check->at[index];
    if (index == 0)
        return;
    if (space_digest(n->master.space) != at->space_digest)
        fail_harm(w, "space_digest", "n%u: another stream of rows up to entry %llu", n->slot, (ull)index);
    if (quiet && space_dump(n->master.space) != at->space_dump)
        fail_harm(w, "space_state", "n%u: the namespace at entry %llu is not what the log says", n->slot, (ull)index);
}

void space_check_base(struct node *n, const struct space_base *base, uint64_t index)
{
    struct world *w = n->world;
    const struct check_index *at = &w->check->at[index];
    if (index % 2 && !w->scripted)
        return; /* starting a core is not cheap */
    struct space *s = space_new(w, SIM_NODES_MAX, base);
    bool good = index == 0 || (space_digest(s) == at->space_digest && space_dump(s) == at->space_dump);
    space_free(s);
    if (!good)
        fail_harm(w, "space_base", "n%u: what is on disk is not the fold up to entry %llu", n->slot, (ull)index);
}

void space_check_id(struct world *w, uint32_t slot, uint64_t id)
{
    struct check *c = w->check;
    if (id / 8 >= c->space_id_room) {
        uint64_t room = max(2 * c->space_id_room, id / 8 + 1024);
        c->space_ids = realloc(c->space_ids, room);
        if (!c->space_ids)
            abort();
        memset(c->space_ids + c->space_id_room, 0, room - c->space_id_room);
        c->space_id_room = room;
    }
    c->space_id_end = max(c->space_id_end, id / 8 + 1);
    if (c->space_ids[id / 8] >> id % 8 & 1)
        fail_harm(w, "space_id_twice", "n%u gives id %llu to something new, for the second time", slot, (ull)id);
    c->space_ids[id / 8] |= (uint8_t)(1 << id % 8);
}
