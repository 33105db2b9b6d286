/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_case.h"

#include <string.h>

struct sim_case *sim_cases;

bool case_run(struct world *w, const struct sim_case *c, FILE *trace)
{
    struct params p;
    params_quiet(c->voters, &p);
    if (c->set)
        c->set(&p);
    world_reset(w, 1, &p, true);
    w->trace = trace;
    for (uint32_t i = 0; i < w->node_count; i++)
        w->nodes[i]->no_ticks = true;
    bool ok = world_protect(w, c->run);
    w->trace = NULL;
    return ok;
}

const struct sim_case *case_find(const char *name)
{
    const struct sim_case *c = sim_cases;
    while (c && strcmp(c->name, name) != 0)
        c = c->next;
    return c;
}

/* ---- What scripts say ---- */

void run_ms(struct world *w, uint64_t ms)
{
    world_run_until(w, w->now_us + ms * SIM_MS);
}

void ticks(struct world *w, uint32_t slot, bool on)
{
    w->nodes[slot]->no_ticks = !on;
}

void all_ticks(struct world *w, bool on)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        ticks(w, i, on);
}

void tick(struct world *w, uint32_t slot)
{
    struct raft_input in = {.type = RAFT_IN_TICK};
    node_step(w->nodes[slot], &in);
}

void campaign(struct world *w, uint32_t slot)
{
    struct raft_input in = {.type = RAFT_IN_CAMPAIGN};
    in.campaign.force = true;
    int r = node_step(w->nodes[slot], &in);
    expect(w, r == 0, "n%u cannot campaign: %s", slot, cv_error_name(r));
}

void campaign_politely(struct world *w, uint32_t slot)
{
    struct raft_input in = {.type = RAFT_IN_CAMPAIGN};
    node_step(w->nodes[slot], &in);
    tick(w, slot);
}

void elect(struct world *w, uint32_t slot)
{
    for (int i = 0; i < 100 && !leads(w, slot); i++) {
        if (i % 20 == 0)
            campaign(w, slot);
        run_ms(w, 1);
    }
    expect(w, leads(w, slot), "n%u was not elected", slot);
}

uint64_t propose(struct world *w, uint32_t slot)
{
    struct node *n = w->nodes[slot];
    struct raft_entry e = {.type = RAFT_BARRIER};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.term = n->out.term;
    in.propose.entries = &e;
    in.propose.count = 1;
    int r = node_step(n, &in);
    expect(w, r == 0, "n%u takes no proposal: %s", slot, cv_error_name(r));
    return n->out.last;
}

void cut(struct world *w, uint32_t a, uint32_t b)
{
    nemesis_cut(w, a, b, true, 0);
}

void heal(struct world *w)
{
    for (uint32_t i = 0; i < NEMESIS_HEALS; i++)
        nemesis_on_heal(w, i);
}

void stop(struct world *w, uint32_t slot, int keep)
{
    struct node *n = w->nodes[slot];
    node_stop(n, STOP_MACHINE, keep < 0 ? (int)n->disk.queued : keep);
}

void start(struct world *w, uint32_t slot)
{
    node_start(w->nodes[slot], STOP_MACHINE);
}

void hold_disk(struct world *w, uint32_t slot)
{
    w->nodes[slot]->disk.hold = true;
}

void release_disk(struct world *w, uint32_t slot)
{
    w->nodes[slot]->disk.hold = false;
    disk_kick(w->nodes[slot]);
}

void inject(struct world *w, uint32_t from, uint32_t to, uint64_t term, struct raft_message m)
{
    m.from = w->nodes[from]->id;
    m.to = w->nodes[to]->id;
    m.term = term;
    node_receive(w->nodes[to], &m);
}

void inject_append(struct world *w, uint32_t from, uint32_t to, uint64_t prev_index, uint32_t count, uint64_t commit)
{
    const struct disk_image *log = &w->nodes[from]->disk.live;
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    for (uint32_t i = 0; i < count; i++) {
        const struct sim_entry *e = image_entry(log, prev_index + 1 + i);
        entries[i] = (struct raft_entry){.term = e->term, .data = e->data, .size = e->size, .type = e->type};
    }
    struct raft_message m = {.type = RAFT_MSG_APPEND, .entries = entries};
    m.append.prev_index = prev_index;
    m.append.prev_term = image_entry(log, prev_index)->term;
    m.append.count = count;
    m.append.last_term = image_entry(log, prev_index + count)->term;
    m.append.commit = commit;
    inject(w, from, to, term_of(w, from), m);
}

static uint32_t lost_from, lost_to;
static uint8_t lost_type;

static bool lose_filter(struct world *w, struct sim_message *m, struct node *from, struct node *to)
{
    return !(from->slot == lost_from && to->slot == lost_to && m->m.type == lost_type);
}

void lose(struct world *w, uint32_t from, uint32_t to, uint8_t type)
{
    lost_from = from;
    lost_to = to;
    lost_type = type;
    w->net->filter = type ? lose_filter : NULL;
}

int change(struct world *w, uint32_t leader, enum raft_conf_op op, uint32_t slot)
{
    const struct node *who = w->nodes[slot];
    struct raft_input in = {.type = RAFT_IN_CONF};
    in.conf.op = op;
    in.conf.member = (struct raft_member){.id = who->id, .role = RAFT_LEARNER, .journal_only = who->journal_only};
    snprintf(in.conf.member.raft_address, sizeof(in.conf.member.raft_address), "n%u:1", slot);
    return node_step(w->nodes[leader], &in);
}

uint32_t new_machine(struct world *w, bool journal_only)
{
    struct node *n = node_new(w, journal_only);
    n->no_ticks = true;
    node_start(n, STOP_MACHINE);
    return n->slot;
}

void ask(struct world *w, uint32_t client, uint32_t slot, struct request r)
{
    struct client *c = w->clients[client];
    c->target = slot;
    if (!r.mode)
        r.mode = ACK_QUORUM;
    client_ask(w, c, r);
}
