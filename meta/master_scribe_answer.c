/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: when they may leave the scribe, and how they get home. What an answer rests on must be as safe as its ack mode
 * asks for: applied here, durable here, or committed.
 */
#include "meta/master_scribe_internal.h"
#include "wire/meta_flags.h"

#define MODE_DRIFT 10 /* clocks of sessions may be slower by a tenth */

/* ---- giving back ---------------------------------------------------------------------------------------------- */

void scribe_give_back(struct master_scribe *s, struct master_request *q)
{
    master_chain_add(&s->outs[q->home->number], q);
}

void scribe_give_back_all(struct master_scribe *s, struct master_chain *chain, int error)
{
    for (struct master_request *q; (q = master_chain_take(chain));) {
        if (error)
            q->meta.error = error;
        scribe_give_back(s, q);
    }
}

/* Wake a loop whose reads wait for `released`, unless it comes to life anyway. */
static void wake_home(struct master_home *h)
{
    int waits = HOME_WAITS;
    if (atomic_compare_exchange_strong(&h->state, &waits, HOME_WOKEN))
        loop_post(h->loop, &h->wake);
}

void scribe_post(struct master_scribe *s, bool released)
{
    for (uint32_t i = 0; i < s->home_count; i++) {
        struct master_chain *out = &s->outs[i];
        if (released)
            wake_home(s->homes[i]);
        if (!out->first)
            continue;
        struct master_request *first = out->first;
        *out = (struct master_chain){0};
        first->job.run = s->homes[i]->take_back;
        loop_post(s->homes[i]->loop, &first->job);
    }
}

struct master_request *scribe_take_waiting(struct master_scribe *s)
{
    struct master_request *q = master_chain_take(&s->waiting);
    if (q)
        atomic_fetch_sub_explicit(&s->queued, 1, memory_order_relaxed);
    return q;
}

void scribe_refuse_waiting(struct master_scribe *s, int error)
{
    for (struct master_request *q; (q = scribe_take_waiting(s));) {
        q->meta.error = error;
        scribe_give_back(s, q);
    }
}

/* ---- when they may leave -------------------------------------------------------------------------------------- */

/* In increasing order of readers: they look at the mode's own first. Returns whether it moved. */
static bool safe_up_to(struct master_core *c, enum ack_mode mode, uint64_t batch)
{
    if (batch <= c->safe[mode])
        return false;
    atomic_store(&c->safe[mode], batch);
    return true;
}

/* What is late in mode "applied" waits for the commit, like everything in mode "quorum". */
bool scribe_release(struct master_scribe *s)
{
    struct master_core *c = s->core;
    bool local = s->modes & 1u << ACK_LOCAL;
    uint64_t safe = local ? max(s->commit_index, s->durable_index) : s->commit_index, committed;
    struct master_chain chain = {0};
    uint64_t last = master_batches_release(&s->batches, safe, s->commit_index, &chain, &committed);
    if (last > committed) /* before the answers leave */
        atomic_store(&c->early, max(c->early, last));
    if (last)
        atomic_store(&c->released_index,
                     max(c->released_index, s->options->ack_mode == ACK_LOCAL ? safe : s->commit_index));
    bool waited = chain.n > 0, durable = safe_up_to(c, ACK_LOCAL, last),
         replicated = safe_up_to(c, ACK_QUORUM, committed);
    scribe_give_back_all(s, &chain, 0);
    return waited || durable || replicated;
}

/* Mode "applied": may an answer leave before anything of it is replicated? Not when what is older waits for long: then
 * we may be a leader that nobody follows any more (raft.md 6.3). */
static bool may_answer_early(const struct master_scribe *s, uint64_t now)
{
    if (!(s->modes & 1u << ACK_APPLIED) || now >= s->core->lease_until_ns)
        return false;
    uint64_t oldest = s->batches.count ? master_batches_at(&s->batches, 0)->opened_ns : s->opened_ns;
    return !oldest || now - min(oldest, now) <= s->options->max_unreplicated_ms * NS_PER_MS;
}

/* Reads, too, see at once what was executed. [W] */
void scribe_release_early(struct master_scribe *s)
{
    if (scribe_state(s) != SCRIBE_LEADING || !may_answer_early(s, loop_now(s->loop)))
        return;
    struct meta_open_batch now = meta_batch_now(s->core->meta);
    safe_up_to(s->core, ACK_APPLIED, now.number - (now.op_count == 0));
}

void scribe_look_at_modes(struct master_scribe *s, bool changed)
{
    uint32_t mounts = meta_acks(s->core->meta);
    s->modes = 1u << s->options->ack_mode;
    for (unsigned i = MOUNT_ACK_QUORUM; i <= MOUNT_ACK_APPLIED; i++)
        if (mounts & 1u << i)
            s->modes |= 1u << (ACK_QUORUM + i - MOUNT_ACK_QUORUM);
    atomic_store(&s->core->acks_early, (s->modes & ~(1u << ACK_QUORUM)) != 0);
    if (changed)
        atomic_store(&s->core->mount_acks_ns,
                     clock_ns() + s->options->lease_ms * NS_PER_MS / MODE_DRIFT * (MODE_DRIFT + 1));
}

/* It was executed. A change joins the batch being filled, perhaps one that answers have left early from: each decides anew
 * whether it may. */
void scribe_answer_or_wait(struct master_scribe *s, struct master_request *q)
{
    struct master_core *c = s->core;
    uint64_t now = loop_now(s->loop), depends = q->meta.depends;
    enum ack_mode mode = master_ack_mode(&q->meta, s->options->ack_mode, now >= c->mount_acks_ns);
    bool changed = q->meta.changed;
    if (changed && !s->opened_ns)
        s->opened_ns = now;
    struct master_batch_waits *w = master_batches_waits(&s->batches, depends);
    if (depends <= c->safe[ACK_QUORUM] || (!changed && depends <= c->safe[mode])) {
        scribe_give_back(s, q);
    } else if (mode == ACK_LOCAL) {
        master_chain_add(&w->mode, q);
    } else if (mode == ACK_QUORUM || !may_answer_early(s, now)) {
        master_chain_add(&w->strict, q);
    } else {
        if (changed) {
            master_ack_note(&w->acked, &q->meta);
            atomic_store(&c->early, max(c->early, depends));
            COUNT(s, acked_early, 1);
        }
        scribe_give_back(s, q);
    }
}
