/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the link tells the scribe, handled when it comes and in its order: who leads, what is durable and committed, what
 * other leaders committed, what is gone.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "meta/master_dir.h"
#include "meta/master_scribe_internal.h"
#include "meta/meta_redo.h"

static void on_attaching(void *arg, struct msg_link_attach *attach)
{
    struct master_scribe *s = arg;
    attach->applied = s->applied;
    attach->flushed = master_store_flushed(s->core->store);
    attach->can_lead = scribe_unfit(s) != LINK_UNFIT_STOPS; /* whether it should: when it is attached */
    attach->directory = text_of(s->o.dir);
    attach->state = text_of(s->o.state);
}

/* The state here belongs to this journal, or does from now on. The link tries again for ever: what is wrong is said once. */
static int bind_journal(struct master_scribe *s, uint64_t node)
{
    int r = s->o.dir ? master_dir_bind(s->o.dir, node, s->applied) : 0;
    bool said = r == s->attach_error;
    s->attach_error = r;
    if (said || r == 0)
        return r;
    if (r == -CV_WRONG_INCARNATION)
        return log_error(
            r,
            "the state in %s was made beside another journal than %016llx, which may know another history. "
            "If that journal is a new member, throw the state away: cv-master rejoin",
            s->o.dir, (unsigned long long)node);
    return log_error(r, "note the journal in %s: this master neither follows nor leads until it can, retrying",
                     s->o.dir);
}

static int on_attached(void *arg, const struct msg_link_welcome *w)
{
    struct master_scribe *s = arg;
    int r = bind_journal(s, w->node);
    if (r < 0)
        return r;
    assert(s->batches.count == 0);
    s->state = SCRIBE_FOLLOWING;
    s->role = 0;
    s->applied_untold = false;
    s->applied_told = s->applied;
    s->term = s->commit_index = s->durable_index = 0;
    s->batches.credit_bytes = s->batches.credit_entries = 0;
    s->core->incarnation = w->incarnation;
    s->core->node = w->node;
    if (w->incarnation < meta_incarnation(s->core->meta)) {
        log_error(-CV_WRONG_INCARNATION,
                  "the state here is of incarnation %u, the journal of %u: that journal is of a cluster given up, "
                  "let it rejoin (cv-journal rejoin)",
                  meta_incarnation(s->core->meta), w->incarnation);
        s->o.failed(s->o.arg, -CV_WRONG_INCARNATION);
    }
    s->attached++;
    log_info("attached to the journal: term %llu, applied %llu of %llu", (unsigned long long)w->term,
             (unsigned long long)s->applied, (unsigned long long)w->commit);
    if (scribe_unfit(s) != LINK_FIT)
        scribe_tell_applied(s); /* and why */
    return 0;
}

static void lead_if_caught_up(struct master_scribe *s)
{
    if (s->role == LINK_LEADER && scribe_state(s) == SCRIBE_FOLLOWING && s->applied >= s->start_index &&
        scribe_unfit(s) != LINK_UNFIT_STOPS)
        scribe_lead(s);
}

static void on_role(void *arg, const struct msg_link_role *m)
{
    struct master_scribe *s = arg;
    uint64_t lease_ns = scribe_unfit(s) == LINK_UNFIT_STOPS ? 0 : m->lease_until_ns; /* it was given back */
    master_core_set_leader(s->core, m->leader, m->term, m->leader_address);
    if (m->term == s->term && m->role == s->role) {
        s->core->lease_until_ns = lease_ns;
        return;
    }
    scribe_step_down(s, false);
    s->core->lease_until_ns = lease_ns; /* not before the lead of another term is over */
    s->term = m->term;
    s->role = m->role;
    s->start_index = m->start_index;
    s->elected_ns = clock_ns();
    s->elected_behind = m->start_index > s->applied ? m->start_index - s->applied : 0;
    s->sequence = 0;
    master_link_role_seen(s->link, m->term);
    if (s->applied_untold)
        scribe_tell_applied(s);
    lead_if_caught_up(s);
}

static void on_proposed(void *arg, const struct msg_link_proposed *m)
{
    struct master_scribe *s = arg;
    master_batches_indexed(&s->batches, m->first_sequence, m->first_index, m->count);
}

/* Not appended, and neither is what came behind: as if it had not been executed. */
static void on_rejected(void *arg, const struct msg_link_rejected *m)
{
    struct master_scribe *s = arg;
    if (m->term != s->term)
        return;
    int error = m->error == CV_BUSY ? -CV_BUSY : -CV_NOT_LEADER;
    uint32_t first = 0;
    while (first < s->batches.count && master_batches_at(&s->batches, first)->sequence &&
           master_batches_at(&s->batches, first)->sequence < m->from_sequence)
        first++;
    master_core_write_lock(s->core);
    scribe_undo(s, first, error, false);
    master_core_unlock(s->core);
    scribe_post(s, true);
    if (error == -CV_BUSY) { /* still ours: begin counting anew */
        s->sequence = 0;
        master_link_role_seen(s->link, s->term);
    }
}

static void on_durable(void *arg, uint64_t index, uint64_t term)
{
    struct master_scribe *s = arg;
    s->durable_index = max(s->durable_index, index);
    if (s->modes & 1u << ACK_LOCAL)
        scribe_ask_for_turn(s);
}

static void on_committed(void *arg, uint64_t index, uint64_t term)
{
    struct master_scribe *s = arg;
    s->commit_index = max(s->commit_index, index);
    s->committed = s->commit_index;
    scribe_ask_for_turn(s);
}

/* While the writer is far behind, nothing is acknowledged: the journal stops feeding us, so memory has a bound. A leader
 * in waiting takes what there is: it comes from memory, and the cluster waits for it. Whether we can lead is told always. */
void scribe_tell_applied(struct master_scribe *s)
{
    bool late = meta_delta_load(s->core->meta).bytes > SCRIBE_DELTA_STALL * s->options->flush_bytes;
    s->applied_untold = late && s->role != LINK_LEADER && !s->stopping;
    if (!s->applied_untold)
        s->applied_told = s->applied;
    uint64_t flushed = min(master_store_flushed(s->core->store), s->applied_told);
    master_link_applied(s->link, s->applied_told, flushed, scribe_unfit(s));
}

/* Who has another state than the leader had must not lead, nor answer, nor be copied: it stops, for good. */
static int compare_digest(struct master_scribe *s, struct text payload)
{
    struct master_digest_pair d;
    char why[256];
    int r = master_digests_check(&s->digests, payload, &d);
    COUNT(s, digests_compared, 1);
    if (r != -CV_LOG_DIVERGED)
        return r;
    snprintf(why, sizeof(why), "state at log index %llu: digest %016llx, the leader's is %016llx\n",
             (unsigned long long)d.index, (unsigned long long)d.ours, (unsigned long long)d.theirs);
    log_error(r, "alarm: this master stops and will not use its %s/%s again: %.*s", s->o.dir ? s->o.dir : "",
              s->o.state ? s->o.state : "state", (int)strlen(why) - 1, why);
    int e = s->o.dir ? master_dir_condemn(s->o.dir, s->o.state, why) : 0;
    if (e < 0)
        log_error(e, "note that in %s", s->o.dir);
    return r;
}

static int apply_entry(struct master_scribe *s, const struct rec_link_entry *e, struct text payload)
{
    /* What changes the name space and is not ours may not come while batches of ours are in flight: they would have been
     * cut, or committed before it. Others may: a configuration within our own term. */
    if (e->index != s->applied + 1 || (e->type == LINK_BATCH && s->batches.count))
        return -CV_LOG_DIVERGED;
    int r = e->type == LINK_DIGEST ? compare_digest(s, payload) : 0;
    if (r < 0)
        return r;
    master_core_write_lock(s->core);
    if (e->type == LINK_BATCH)
        r = meta_apply(s->core->meta, payload, e->index);
    else
        meta_skip(s->core->meta, e->index);
    master_core_unlock(s->core);
    if (r == 0)
        master_digests_note(&s->digests, e->index, meta_digest(s->core->meta));
    return r;
}

/* Say what is wrong and what to do, for those whom that helps. */
static void explain(const struct rec_link_entry *e, struct text payload, int error)
{
    struct redo_reader r;
    if (error != -CV_FORMAT_TOO_NEW)
        log_error(error, "log entry %llu cannot be applied", (unsigned long long)e->index);
    else if (e->type == LINK_BATCH && redo_reader_init(&r, payload) == 0)
        log_error(error, "log entry %llu is of feature level %u, this program (%s) knows up to %u%s: upgrade it",
                  (unsigned long long)e->index, r.header.feature_level, CV_VERSION, META_FEATURE_LEVEL,
                  r.header.feature_level <= META_FEATURE_LEVEL ? " and is held back by master.feature_level_max" : "");
    else
        log_error(error, "log entry %llu is of a newer version than this program (%s): upgrade it",
                  (unsigned long long)e->index, CV_VERSION);
}

static int on_entry(void *arg, const struct rec_link_entry *e, struct text payload, bool more)
{
    struct master_scribe *s = arg;
    if (master_batches_committed(&s->batches, s->commit_index)) { /* what was told before it comes before it */
        scribe_release(s);
        master_core_write_lock(s->core);
        scribe_commit_some(s);
        master_core_unlock(s->core);
        scribe_post(s, true);
    }
    int r = apply_entry(s, e, payload);
    if (r < 0) {
        explain(e, payload, r);
        s->o.failed(s->o.arg, r);
        return r;
    }
    COUNT(s, entries_applied, 1);
    if (s->acks.count) {
        master_ack_seen(&s->acks, e->term, e->crc, e->length);
        scribe_count_lost(s);
    }
    s->applied = e->index;
    s->committed = max(s->committed, e->index);
    if (!more) {
        s->core->released_index = max(s->core->released_index, s->applied);
        scribe_tell_applied(s);
        lead_if_caught_up(s);
        scribe_ask_for_turn(s);
    }
    return 0;
}

static void on_truncated(void *arg, uint64_t from)
{
    struct master_scribe *s = arg;
    uint32_t first = 0;
    while (first < s->batches.count && master_batches_at(&s->batches, first)->index &&
           master_batches_at(&s->batches, first)->index < from)
        first++;
    if (first == s->batches.count)
        return;
    master_core_write_lock(s->core);
    scribe_undo(s, first, -CV_NOT_LEADER, false);
    master_core_unlock(s->core);
    scribe_post(s, true);
}

static void on_credit(void *arg, const struct msg_link_credit *credit)
{
    struct master_scribe *s = arg;
    s->batches.credit_bytes = credit->bytes;
    s->batches.credit_entries = credit->entries;
    master_core_note_disk(s->core, MASTER_DISK_JOURNAL, credit->disk_low & LINK_DISK_JOURNAL);
    master_core_refuse_new(s->core, credit->disk_low & LINK_DISK_REFUSE);
    scribe_ask_for_turn(s);
}

static void on_admin(void *arg, const struct msg_link_admin_answer *answer)
{
    scribe_admin_answered(arg, answer);
}

static void on_lost(void *arg, int error)
{
    struct master_scribe *s = arg;
    scribe_step_down(s, true);
    scribe_admin_fail(s, -CV_UNREACHABLE, false);
    if (error == -CV_WRONG_CLUSTER || error == -CV_LOG_DAMAGED || error == -CV_WRONG_INCARNATION) {
        log_error(error, "this master and the journal at %s do not belong together", s->o.journal_socket);
        s->o.failed(s->o.arg, error);
    }
}

const struct master_link_events scribe_link_events = {
    .attaching = on_attaching,
    .attached = on_attached,
    .role = on_role,
    .proposed = on_proposed,
    .rejected = on_rejected,
    .durable = on_durable,
    .committed = on_committed,
    .entry = on_entry,
    .truncated = on_truncated,
    .credit = on_credit,
    .admin = on_admin,
    .read = scribe_on_read_index,
    .snapshot_request = scribe_on_snapshot_request,
    .install = scribe_on_install,
    .lost = on_lost,
};
