/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executing requests in small groups, and the batches that come of it: closed, proposed, committed. Under the write lock, but
 * for proposing.
 */
#include <assert.h>

#include "base/hash.h"
#include "meta/master_scribe_internal.h"

#define GROUP_MAX 64 /* requests executed under one lock: bounds how long readers wait */

/* ---- batches -------------------------------------------------------------------------------------------------- */

void scribe_commit_some(struct master_scribe *s)
{
    uint64_t now = clock_ns();
    for (const struct master_batch_entry *e; (e = master_batches_committed(&s->batches, s->commit_index));) {
        if (e->type == LINK_BATCH)
            meta_batch_committed(s->core->meta, e->number, e->index);
        else
            meta_skip(s->core->meta, e->index);
        s->applied = e->index;
        s->stalled = false;
        master_digests_note(&s->digests, e->index, meta_digest(s->core->meta));
        OBSERVE(s, commit_ns, now - e->proposed_ns);
        master_batches_drop(&s->batches);
    }
}

/* Let the others compare what they have with what we had at the last commit. */
static void propose_digest(struct master_scribe *s)
{
    if (++s->since_digest < s->options->digest_entries || !master_batches_may_close(&s->batches, MASTER_DIGEST_SIZE))
        return;
    uint8_t payload[MASTER_DIGEST_SIZE];
    master_digest_encode(s->applied, meta_digest(s->core->meta), payload);
    master_batches_add(&s->batches, LINK_DIGEST, payload, sizeof(payload))->opened_ns = loop_now(s->loop);
    s->since_digest = 0;
}

static void close_batch(struct master_scribe *s)
{
    struct meta_payload *p = meta_batch_close(s->core->meta);
    assert(p);
    OBSERVE(s, batch_ops, p->op_count);
    OBSERVE(s, batch_bytes, p->n);
    COUNT(s, batches, 1);
    struct master_batch_entry *e = master_batches_close(&s->batches, p);
    e->opened_ns = s->opened_ns ? s->opened_ns : loop_now(s->loop);
    s->opened_ns = 0;
    s->filling_since_ns = 0;
    s->window_over = false;
    propose_digest(s);
}

/* Close the batch being filled if it is full, or if nothing is gained by waiting. Returns false when it is full and may
 * not be closed: nothing more can be executed. */
bool scribe_close_if_due(struct master_scribe *s, bool end_of_turn)
{
    struct meta_open_batch now = meta_batch_now(s->core->meta);
    if (now.op_count == 0)
        return true;
    bool full = now.op_count >= s->options->batch_ops || now.bytes >= s->options->batch_bytes;
    if (!full && !(end_of_turn && (s->batches.count == 0 || s->window_over || s->options->batch_window_ms == 0)))
        return true;
    if (!master_batches_may_close(&s->batches, now.bytes))
        return !full;
    close_batch(s);
    return true;
}

void scribe_propose_some(struct master_scribe *s)
{
    for (struct master_batch_entry *e; (e = master_batches_next(&s->batches));) {
        const struct meta_payload *batch = e->payload;
        struct master_proposal p = {
            .term = s->term,
            .sequence = s->sequence + 1,
            .type = e->type,
            .op_count = e->op_count,
            .bytes = batch ? batch->bytes : e->small,
            .n = e->bytes,
            .payload = e->payload,
        };
        p.crc = e->crc = crc32c(0, p.bytes, p.n);
        int r = master_link_propose(s->link, &p);
        if (r < 0) {
            /* The link is going down: lost() takes the batch back. */
            log_debug("batch %llu cannot be proposed: %s", (unsigned long long)e->number, cv_error_name(r));
            return;
        }
        master_batches_proposed(&s->batches, e, s->term, ++s->sequence, clock_ns());
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------- */

static bool may_execute(struct master_scribe *s)
{
    return scribe_state(s) == SCRIBE_LEADING && s->core->leading && !s->stalled &&
           meta_delta_load(s->core->meta).bytes < SCRIBE_DELTA_STALL * s->options->flush_bytes &&
           scribe_close_if_due(s, false);
}

static void put_waiting_back(struct master_scribe *s, struct master_request *q)
{
    master_chain_put_first(&s->waiting, q);
    atomic_fetch_add_explicit(&s->queued, 1, memory_order_relaxed);
}

/* Returns whether the request is done with (not: it has to wait for a commit). */
static bool execute_one(struct master_scribe *s, struct master_request *q, uint64_t wall_ns)
{
    int r = meta_execute(s->core->meta, &q->meta, wall_ns);
    if (r == -CV_BUSY) {
        s->stalled = s->batches.count > 0 || meta_batch_now(s->core->meta).op_count > 0;
        if (s->stalled || s->inner_busy)
            return false;
        q->meta.error = -CV_BUSY; /* no commit will come to change that */
        scribe_give_back(s, q);
        return true;
    }
    if (r == -CV_NOT_PREPARED || r == -CV_NOT_LISTED) { /* either way meta_prepare() says what is missing */
        COUNT(s, not_prepared, 1);
        q->again = true;
        scribe_give_back(s, q);
        return true;
    }
    COUNT(s, executed, 1);
    if (!q->meta.changed) { /* what changed something proves by its commit that it was us who led */
        q->term = s->term;
        q->executed_ns = clock_ns();
        q->certain = master_core_certain(s->core, q->term, q->executed_ns, q->executed_ns) == 0;
    }
    s->mounts_change |= q->meta.changed && (q->meta.type == MSG_mount_add || q->meta.type == MSG_mount_remove);
    if (q->meta.changed && (q->meta.type == MSG_mount_add || q->meta.type == MSG_mount_set))
        scribe_look_at_modes(s, true);
    if (q->meta.type == MSG_session_open && !q->meta.error && s->o.sessions)
        master_sessions_heard(s->o.sessions, q->meta.answer.session_open.session, clock_ns());
    scribe_answer_or_wait(s, q);
    return true;
}

/* What came too late or to the wrong master is not executed. Returns its error, or 0. */
static int refuse(struct master_scribe *s, const struct master_request *q, uint64_t now)
{
    if (scribe_state(s) != SCRIBE_LEADING)
        return -CV_NOT_LEADER;
    if (s->stopping)
        return -CV_STOPPING;
    if (q->cancelled && atomic_load_explicit(q->cancelled, memory_order_relaxed))
        return -CV_CANCELLED;
    return q->deadline_ns < now ? -CV_DEADLINE : 0;
}

/* Returns whether it stopped only to let readers in. */
bool scribe_execute_some(struct master_scribe *s)
{
    uint64_t wall_ns = clock_wall_ns(), now = loop_now(s->loop);
    for (int n = 0; n < GROUP_MAX && s->waiting.first; n++) {
        struct master_request *q = scribe_take_waiting(s);
        if (q->install) {
            meta_install(s->core->meta, &q->meta);
            scribe_give_back(s, q);
            continue;
        }
        q->meta.error = refuse(s, q, now);
        if (q->meta.error) {
            scribe_give_back(s, q);
        } else if (!may_execute(s) || !execute_one(s, q, wall_ns)) {
            put_waiting_back(s, q);
            return false;
        }
    }
    return s->waiting.first != NULL;
}
