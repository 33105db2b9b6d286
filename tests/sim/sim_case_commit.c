/* SPDX-License-Identifier: Apache-2.0 */
/* Known bugs around commit and acknowledgements. */
#include "sim_case.h"

static void one_entry(struct params *p)
{
    p->append_entries_max = 1;
}

/* Entries behind 3 are lost, but not the questions that will be refused. */
static bool nothing_behind_3(struct world *w, struct sim_message *m, struct node *from, struct node *to)
{
    if (m->m.type != RAFT_MSG_APPEND || m->m.append.prev_index + m->m.append.count <= 3)
        return true;
    const struct sim_entry *prev = image_entry(&to->disk.live, m->m.append.prev_index);
    return !prev || prev->term != m->m.append.prev_term;
}

/* Figure 3.7: an old entry reaches a majority under a later leader, is counted as committed, and is then replaced by a
 * leader of a term between the two. */
CASE_WITH(commit_old_term, 5, one_entry, "libraft 0.15 (R2): entries of older terms are committed by counting replicas")
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(0) | N(1), N(2) | N(3) | N(4));
    uint64_t old = propose(w, 0); /* on 0 and 1 */
    run_ms(w, 20);
    elect(w, 4);
    cut(w, N(4), ALL); /* its first entry stays its own */
    run_ms(w, 20);
    stop(w, 0, -1);
    start(w, 0);
    heal(w);
    cut(w, N(4), ALL);
    w->net->filter = nothing_behind_3;
    elect(w, 0);
    run_ms(w, 20);
    expect(w, last_of(w, 2) == old && last_of(w, 3) == old, "the old entry did not reach a majority");
    stop(w, 0, -1);
    w->net->filter = NULL;
    heal(w);
    elect(w, 4);
    run_ms(w, 20);
    start(w, 0);
    propose(w, 4);
    run_ms(w, 20);
}

CASE(commit_last_index, 3, "RedisLabs/raft (R6): a follower's commit is limited by its last index, not by the message")
{
    elect(w, 2);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    propose(w, 2); /* entry 3 of term 2: only here */
    elect(w, 0);   /* entry 3 of term 3 */
    run_ms(w, 20);
    expect(w, commit_of(w, 0) == 3, "entry 3 is not committed");
    inject_append(w, 0, 2, 2, 0, 3); /* empty, behind entry 2, which is equal */
    expect(w, commit_of(w, 2) == 2, "commit %llu, the message covers 2", (unsigned long long)commit_of(w, 2));
}

CASE(commit_backwards, 3, "a delayed message takes the commit index back")
{
    elect(w, 0);
    propose(w, 0);
    run_ms(w, 20);
    propose(w, 0);
    run_ms(w, 20);
    uint64_t commit = commit_of(w, 1);
    expect(w, commit >= 3, "nothing was committed");
    inject_append(w, 0, 1, 1, 1, 1);
    expect(w, commit_of(w, 1) == commit, "the commit index moved");
}

CASE(leader_counts_unsynced, 3, "the leader counts itself before its own disk has the entry")
{
    elect(w, 0);
    run_ms(w, 20);
    hold_disk(w, 0);
    cut(w, N(2), ALL);
    propose(w, 0); /* on 1's disk, in 0's memory */
    run_ms(w, 20);
    stop(w, 0, 0);
    heal(w);
    cut(w, N(1), ALL);
    release_disk(w, 0);
    start(w, 0);
    elect(w, 2);
    run_ms(w, 20);
}

CASE(ack_before_fsync, 3, "append acks leave before the entries are durable")
{
    elect(w, 0);
    run_ms(w, 20);
    hold_disk(w, 1);
    cut(w, N(2), ALL);
    propose(w, 0); /* on 0's disk, in 1's memory */
    run_ms(w, 20);
    stop(w, 1, 0);
    heal(w);
    cut(w, N(0), ALL);
    release_disk(w, 1);
    start(w, 1);
    elect(w, 2);
    run_ms(w, 20);
}

static void one_at_a_time(struct params *p)
{
    p->group_max = 1;
}

/* The index alone does not say what is on disk: entries 3 to 5 of term 2 are written, replaced by 3 of term 3 before
 * the disk says so, and its late word must not count for the new entry 3. */
CASE_WITH(late_ack_aba, 3, one_at_a_time, "a late disk ack counts for the entry that replaced the written one")
{
    elect(w, 2);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    hold_disk(w, 2);
    for (int i = 0; i < 3; i++)
        propose(w, 2); /* units 1 to 3 */
    elect(w, 0);
    cut(w, N(0), ALL); /* its first entry, 3 of term 3, is nowhere else */
    run_ms(w, 20);
    struct raft_message vote = {.type = RAFT_MSG_VOTE};
    vote.vote.last_index = 2;
    vote.vote.last_term = 2;
    vote.vote.transfer = 1;
    inject(w, 0, 2, 3, vote);        /* unit 4: term 3, no vote for so short a log */
    inject_append(w, 0, 2, 2, 1, 2); /* unit 5: entry 3 of term 3 replaces them */
    release_disk(w, 2);
    for (int i = 0; i < 100 && w->nodes[2]->disk.queued > 1; i++)
        world_run_until(w, w->now_us + 100);
    hold_disk(w, 2); /* units 1 to 4 are written */
    heal(w);
    cut(w, N(1), ALL);
    expect(w, w->nodes[2]->disk.queued == 1, "the disk should have one unit left");
    w->nodes[2]->disk.stall_until_us = UINT64_MAX >> 32;
    w->nodes[2]->disk.epoch++; /* the one under way takes for ever */
    for (int i = 0; i < 6; i++) {
        tick(w, 0); /* heartbeats: their answers say what 2 has on disk */
        run_ms(w, 60);
    }
    stop(w, 2, 0);
    w->nodes[2]->disk.stall_until_us = 0;
    heal(w);
    cut(w, N(0), ALL);
    release_disk(w, 2);
    start(w, 2);
    elect(w, 2);
    run_ms(w, 20);
}

CASE(stale_append_truncates, 3, "a delayed append removes entries acknowledged after it was sent")
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    uint64_t first = propose(w, 0);
    run_ms(w, 2); /* both reach 1; their commit is not known there */
    propose(w, 0);
    run_ms(w, 20);
    expect(w, commit_of(w, 0) == first + 1, "nothing was committed");
    inject_append(w, 0, 1, first - 1, 1, first - 1); /* the first once more */
    run_ms(w, 20);
    expect(w, last_of(w, 1) == first + 1, "an acknowledged entry is gone");
}

CASE(noop_omitted, 3, "no entry at the start of a term: nothing older is ever committed")
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(2), ALL);
    stop(w, 0, -1);
    start(w, 0);
    elect(w, 0);
    run_ms(w, 20);
    struct node *n = w->nodes[0];
    expect(w,
           n->out.commit >= n->out.start_index && n->out.commit == n->out.last &&
               image_entry(&n->disk.live, n->out.last)->term == n->out.term,
           "the leader has committed nothing of its term");
}

CASE(stale_term_proposal, 3, "what was executed under an older term is appended")
{
    elect(w, 0);
    run_ms(w, 20);
    uint64_t old = term_of(w, 0);
    elect(w, 1);
    run_ms(w, 20);
    elect(w, 0);
    run_ms(w, 20);
    struct batch_data data = {.executed_term = old, .count = 0};
    struct raft_entry e = {.type = RAFT_BATCH, .data = (const uint8_t *)&data, .size = batch_size(&data)};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.term = old;
    in.propose.entries = &e;
    in.propose.count = 1;
    int r = node_step(w->nodes[0], &in);
    expect(w, r == -ESTALE, "a proposal of an older term gets %s", r ? cv_error_name(r) : "appended");
}

static void pipelined(struct params *p)
{
    p->append_entries_max = 1;
    p->inflight_entries_max = 256;
    p->net_jitter_us = 3000; /* messages overtake each other */
}

/* Found by seed 5726: every message behind a gap was refused, and every refusal had the whole window sent again. */
CASE_WITH(overtaking_multiplies, 2, pipelined, "messages that overtake each other multiply without end")
{
    elect(w, 0);
    run_ms(w, 20);
    cut(w, N(1), ALL);
    /* One voter of two is no majority: the entries wait. */
    for (int i = 0; i < 300; i++)
        propose(w, 0);
    run_ms(w, 10);
    heal(w);
    uint64_t before = w->counters.messages;
    for (int i = 0; i < 100; i++) {
        if (i % 5 == 0)
            tick(w, 0);
        run_ms(w, 10);
    }
    uint64_t messages = w->counters.messages - before;
    expect(w, messages < 6000, "%llu messages for 300 entries", (unsigned long long)messages);
    for (int i = 0; i < 1000 && commit_of(w, 0) < last_of(w, 0); i++) {
        if (i % 5 == 0)
            tick(w, 0);
        run_ms(w, 10);
    }
    expect(w, commit_of(w, 0) == last_of(w, 0), "the entries do not arrive");
}
