/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's view of the log: runs of equal terms instead of entries, and how far the disk has followed.
 *
 *      first                                     last
 *   ---|=========term 2=========|==3==|====5=====|        runs: (first, 2) (i, 3) (j, 5)
 *    base (compacted, its term kept)        ^ durable
 *
 * Write units are numbered and finish in order, so one number per unit says how far the log is durable when that
 * unit is: its claim. A truncation cuts all claims that are not fulfilled yet: an ack that arrives later speaks of
 * bytes that the truncation, queued behind it, is about to remove (the ABA case: the same index, perhaps even the
 * same term again, is only durable with the unit that wrote it again).
 */
#include "raft/raft_state.h"

#include <errno.h>

/* Position of the run that holds index; the log must hold it. */
static uint32_t find_run(const struct raft_log *log, uint64_t index)
{
    uint32_t low = 0, high = log->run_count;
    /* Mostly the question is about the newest. */
    if (log->runs[high - 1].first <= index)
        return high - 1;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (log->runs[mid].first <= index)
            low = mid;
        else
            high = mid;
    }
    return low;
}

uint64_t raft_log_term(const struct raft_log *log, uint64_t index)
{
    if (index == log->first - 1)
        return log->base_term;
    if (index < log->first || index > log->last)
        return 0;
    return log->runs[find_run(log, index)].term;
}

uint64_t raft_log_run_first(const struct raft_log *log, uint64_t index)
{
    return log->runs[find_run(log, index)].first;
}

uint64_t raft_log_last_of_term(const struct raft_log *log, uint64_t term, uint64_t upto)
{
    uint64_t end = log->last; /* of the run looked at */
    for (uint32_t i = log->run_count; i > 0; i--) {
        const struct raft_run *run = &log->runs[i - 1];
        if (run->term < term)
            break;
        if (run->term == term && run->first <= upto)
            return min(end, upto);
        end = run->first - 1;
    }
    if (log->base_term == term && log->first - 1 <= upto)
        return log->first - 1;
    return 0;
}

int raft_log_reserve(struct raft_log *log, uint32_t runs)
{
    if (log->run_room - log->run_count >= runs)
        return 0;
    uint32_t room = max(2 * log->run_room, log->run_count + runs);
    struct raft_run *p = realloc(log->runs, room * sizeof(*p));
    if (!p)
        return -ENOMEM;
    log->runs = p;
    log->run_room = room;
    return 0;
}

void raft_log_append(struct raft_log *log, uint64_t term)
{
    log->last++;
    if (log->run_count == 0 || log->runs[log->run_count - 1].term != term)
        log->runs[log->run_count++] = (struct raft_run){.first = log->last, .term = term};
}

/* No write queued before now makes more than this durable. */
static void cut_claims(struct raft_log *log, uint64_t index)
{
    log->durable = min(log->durable, index);
    log->loaded = min(log->loaded, index);
    if (MUTANT(late_ack_aba))
        return;
    for (uint64_t seq = log->written_seq + 1; seq <= log->queued_seq; seq++) {
        uint64_t *claim = &log->claims[seq % RAFT_WRITES_MAX];
        *claim = min(*claim, index);
    }
}

void raft_log_truncate(struct raft_log *log, uint64_t from)
{
    while (log->run_count && log->runs[log->run_count - 1].first >= from)
        log->run_count--;
    log->last = from - 1;
    cut_claims(log, log->last);
}

void raft_log_compact(struct raft_log *log, uint64_t first)
{
    log->base_term = raft_log_term(log, first - 1);
    log->first = first;
    uint32_t drop = 0;
    while (drop < log->run_count &&
           (drop + 1 < log->run_count ? log->runs[drop + 1].first <= first : log->last < first))
        drop++;
    log->run_count -= drop;
    memmove(log->runs, log->runs + drop, log->run_count * sizeof(*log->runs));
    if (log->run_count && log->runs[0].first < first)
        log->runs[0].first = first;
}

void raft_log_reset(struct raft_log *log, uint64_t index, uint64_t term, uint64_t common)
{
    log->run_count = 0;
    log->first = index + 1;
    log->last = index;
    log->base_term = term;
    cut_claims(log, common);
}

uint64_t raft_log_queue(struct raft_log *log)
{
    uint64_t seq = ++log->queued_seq;
    log->claims[seq % RAFT_WRITES_MAX] = log->last;
    return seq;
}

uint32_t raft_log_writes_left(const struct raft_log *log)
{
    return RAFT_WRITES_MAX - (uint32_t)(log->queued_seq - log->written_seq);
}

int raft_log_written(struct raft_log *log, uint64_t seq)
{
    if (seq > log->queued_seq)
        return -EINVAL;
    if (seq <= log->written_seq)
        return 0;
    log->written_seq = seq;
    uint64_t claim = min(log->claims[seq % RAFT_WRITES_MAX], log->last);
    log->durable = max(log->durable, claim);
    return 0;
}
