/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_lone.h"

#include <string.h>

void lone_init(struct lone *l, struct world *w, uint64_t last)
{
    *l = (struct lone){.w = w, .now_ms = 1000000};
    for (uint64_t id = 1; id <= 3; id++) {
        struct raft_member m = {.id = id, .role = RAFT_VOTER};
        raft_conf_put(&l->conf, &m);
    }
    l->runs[0] = (struct raft_run){1, 1};
    l->options = (struct raft_options){.id = 1};
    l->restart = (struct raft_restart){
        .now_ms = l->now_ms, .term = 1, .first = 1, .last = last, .runs = l->runs, .run_count = 1, .conf_count = 1};
    l->restart.conf_index[0] = 1;
    l->restart.conf[0] = &l->conf;
}

int lone_start(struct lone *l)
{
    l->raft = raft_free(l->raft);
    return raft_new(&l->options, &l->restart, &l->raft);
}

void lone_fini(struct lone *l)
{
    l->raft = raft_free(l->raft);
}

int lone_step(struct lone *l, struct raft_input in)
{
    in.now_ms = l->now_ms;
    int r = raft_step(l->raft, &in, &l->out);
    uint64_t seq = l->out.write.seq, proposed = l->out.proposed_first;
    struct raft_snapshot_offer offer = l->out.offer;
    if (seq && !l->slow_disk) {
        struct raft_input written = {.type = RAFT_IN_WRITTEN, .now_ms = l->now_ms, .written.seq = seq};
        int e = raft_step(l->raft, &written, &l->out);
        r = r ? r : e;
        l->out.proposed_first = proposed;
        l->out.offer = offer;
    }
    return r;
}

int lone_message(struct lone *l, uint64_t from, uint64_t term, struct raft_message m)
{
    m.from = from;
    m.to = 1;
    m.term = term;
    return lone_step(l, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &m});
}

int lone_append(struct lone *l, uint64_t from, uint64_t term, uint64_t prev, uint64_t prev_term, uint32_t count,
                uint64_t commit)
{
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    for (uint32_t i = 0; i < count; i++)
        entries[i] = (struct raft_entry){.term = term, .type = RAFT_BARRIER};
    struct raft_message m = {.type = RAFT_MSG_APPEND, .entries = entries};
    m.append.prev_index = prev;
    m.append.prev_term = prev_term;
    m.append.count = count;
    m.append.last_term = count ? term : prev_term;
    m.append.commit = commit;
    return lone_message(l, from, term, m);
}

void lone_lead(struct lone *l)
{
    struct raft_input in = {.type = RAFT_IN_CAMPAIGN};
    in.campaign.force = true;
    lone_step(l, in);
    struct raft_message vote = {.type = RAFT_MSG_VOTE_REPLY};
    vote.vote_reply.granted = 1;
    lone_message(l, 2, l->out.term, vote);
    expect(l->w, l->out.role == RAFT_LEADER, "the lone core was not elected");
}
