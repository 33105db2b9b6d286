/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leading: how it begins, how what was executed is taken back when it ends, and whether it is still us who leads, which
 * answers may have to wait for.
 */
#include <errno.h>

#include "meta/master_scribe_internal.h"
#include "meta/master_ufs.h"

#define CONFIRM_AGAIN_MS 10
#define GENERATION_BITS  24

/* ---- is it still us? ------------------------------------------------------------------------------------------------- */

/* A change of role is on its way, or too many ask. */
static void confirm_later(struct master_scribe *s)
{
    atomic_store(&s->confirm_wanted, true);
    loop_timer_start(s->loop, &s->confirm_again, clock_ns() + CONFIRM_AGAIN_MS * NS_PER_MS);
}

/* The journal answers when a majority has followed it after we asked: then what was read before we asked was the truth.
 * The index it names is no matter to a leader: its memory is ahead of what is committed. */
static void confirm(struct master_scribe *s)
{
    if (s->confirming || scribe_state(s) != SCRIBE_LEADING || !atomic_exchange(&s->confirm_wanted, false))
        return;
    s->core->asked_ns = s->confirm_asked_ns = clock_ns();
    s->confirming = master_link_read(s->link, ++s->confirm_context) == 0;
    if (s->confirming)
        COUNT(s, confirmations, 1);
    else
        confirm_later(s);
}

void scribe_on_read_index(void *arg, const struct msg_link_read_index *m)
{
    struct master_scribe *s = arg;
    if (!s->confirming || m->context != s->confirm_context)
        return;
    s->confirming = false;
    if (m->error) {
        confirm_later(s);
        return;
    }
    s->core->confirmed_ns = s->confirm_asked_ns;
    confirm(s);
    scribe_post(s, true);
}

static void confirm_run(struct loop_job *job)
{
    struct master_scribe *s = container_of(job, struct master_scribe, confirm);
    atomic_store(&s->confirm_posted, false);
    confirm(s);
}

static void confirm_again_fired(struct loop_timer *timer)
{
    confirm(container_of(timer, struct master_scribe, confirm_again));
}

void master_scribe_confirm(struct master_scribe *s)
{
    atomic_store(&s->confirm_wanted, true);
    if (!atomic_exchange(&s->confirm_posted, true))
        loop_post(s->loop, &s->confirm);
}

void scribe_role_init(struct master_scribe *s)
{
    s->confirm.run = confirm_run;
    loop_timer_init(&s->confirm_again, confirm_again_fired);
}

/* ---- leading -------------------------------------------------------------------------------------------------------- */

/* Requests are served from the moment there is a root, and counters are those of this incarnation. */
void scribe_serve_if_formatted(struct master_scribe *s)
{
    if (s->core->leading || scribe_state(s) != SCRIBE_LEADING || !meta_is_formatted(s->core->meta) ||
        meta_incarnation(s->core->meta) < s->core->incarnation)
        return;
    atomic_store_explicit(&s->core->leading, s->term, memory_order_release);
    s->serves_anew = true;
    scribe_ask_for_turn(s);
    uint64_t took_ns = clock_ns() - s->elected_ns;
    OBSERVE(s, promotion_ns, took_ns);
    log_info("leading in term %llu, log index %llu, %llu.%llu ms after the journal said so (%llu entries behind then)",
             (unsigned long long)s->term, (unsigned long long)s->applied, (unsigned long long)(took_ns / NS_PER_MS),
             (unsigned long long)(took_ns / (NS_PER_MS / 10) % 10), (unsigned long long)s->elected_behind);
}

static bool note_session(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles)
{
    *(bool *)arg = true;
    return false;
}

static bool has_sessions(const struct meta *m)
{
    bool any = false;
    meta_sessions(m, note_session, &any);
    return any;
}

static bool know_worker(void *arg, const struct meta_worker_row *row)
{
    struct master_scribe *s = arg;
    int r = master_workers_known(s->o.workers, row, clock_ns());
    if (r < 0)
        log_warn(r, "worker " TEXT_FMT " is not known until it registers", TEXT_ARG(row->address));
    return true;
}

/* [R] */
static void know_workers(struct master_scribe *s)
{
    if (!s->o.workers)
        return;
    master_workers_lead(s->o.workers, s->term);
    meta_workers(s->core->meta, know_worker, s);
}

void scribe_count_lost(struct master_scribe *s)
{
    COUNT(s, lost_acked_ops, s->acks.lost - s->lost_counted);
    s->lost_counted = s->acks.lost;
}

void scribe_lead(struct master_scribe *s)
{
    struct meta *m = s->core->meta;
    s->state = SCRIBE_LEADING;
    if (s->o.sessions)
        master_sessions_reset(s->o.sessions);
    s->core->led_since_ns = clock_ns();
    s->purge_allowed = s->inner_failed = s->stalled = false;
    s->confirming = false;
    s->confirm_wanted = false;
    s->core->confirmed_ns = 0;
    s->expired_count = 0;
    s->last_expiry_ns = 0;
    COUNT(s, leaderships, 1);
    master_ack_settle(&s->acks);
    scribe_count_lost(s);
    s->core->early = 0;
    s->core->generation = s->term << GENERATION_BITS;
    master_core_write_lock(s->core);
    meta_lead(m, (uint32_t)s->term);
    scribe_look_at_modes(s, false); /* sessions of before ask until they are told by us */
    know_workers(s);
    if (s->o.ufs)
        master_ufs_mounts_changed(s->o.ufs);
    if (!s->o.sessions || !has_sessions(m)) { /* nobody can hold an orphan open */
        meta_allow_purge(m);
        s->purge_allowed = true;
    }
    scribe_serve_if_formatted(s);
    master_core_unlock(s->core);
    scribe_ask_for_turn(s);
}

/* What was answered early and is taken back: lost, unless the log may still have it. */
static void take_notes(struct master_scribe *s, uint32_t position, bool unknown)
{
    for (uint32_t i = position; i < s->batches.count; i++) {
        struct master_batch_entry *e = master_batches_at(&s->batches, i);
        if (unknown && e->sequence)
            master_ack_unknown(&s->acks, &e->waits.acked, e->term, e->crc, e->bytes);
        else
            master_ack_lost(&s->acks, &e->waits.acked);
    }
    master_ack_lost(&s->acks, &s->batches.filling.acked);
    scribe_count_lost(s);
}

/* Take back all from this position in the book on, and what is being filled, answering their requests with error. unknown:
 * they may be in the log all the same. Under the write lock. */
void scribe_undo(struct master_scribe *s, uint32_t position, int error, bool unknown)
{
    struct meta *m = s->core->meta;
    struct meta_open_batch now = meta_batch_now(m);
    uint32_t before = s->batches.count;
    struct master_chain chain = {0};
    take_notes(s, position, unknown);
    uint64_t first = master_batches_undo(&s->batches, position, &chain);
    COUNT(s, batches_undone, before - s->batches.count);
    if (first || now.op_count)
        meta_batch_undo(m, first ? first : now.number);
    if (s->core->early >= (first ? first : now.number)) { /* a part of what was answered is gone */
        s->core->generation++;
        s->core->early = s->batches.count ? master_batches_at(&s->batches, s->batches.count - 1)->number : 0;
    }
    scribe_look_at_modes(s, true);
    s->core->view++;
    s->filling_since_ns = s->opened_ns = 0;
    if (s->o.workers)
        master_workers_store_again(s->o.workers);
    scribe_give_back_all(s, &chain, error);
}

/* Answer those who wait for a commit, and tell from which position on nothing can be committed any more. The journal says
 * "proposed" before it says that our role is over, so what it has not said that of will never be in the log. When the
 * link is lost nobody knows, but of what was never sent. */
static uint32_t give_up_waiting(struct master_scribe *s, bool lost)
{
    uint32_t void_from = s->batches.count;
    for (uint32_t i = s->batches.count; i-- > 0;) {
        struct master_batch_entry *e = master_batches_at(&s->batches, i);
        bool is_void = lost ? e->sequence == 0 : e->index == 0;
        if (is_void)
            void_from = i;
        scribe_give_back_all(s, &e->waits.mode, is_void ? -CV_NOT_LEADER : -CV_UNKNOWN_OUTCOME);
        scribe_give_back_all(s, &e->waits.strict, is_void ? -CV_NOT_LEADER : -CV_UNKNOWN_OUTCOME);
    }
    return lost ? 0 : void_from;
}

/* We lead no longer. What was proposed may still be committed, if the link told us so (not lost). */
void scribe_step_down(struct master_scribe *s, bool lost)
{
    bool led = scribe_state(s) == SCRIBE_LEADING;
    s->state = lost ? SCRIBE_DETACHED : SCRIBE_FOLLOWING;
    if (!led && !s->batches.count)
        return;
    scribe_release(s); /* what was told committed is, whatever comes now */
    master_core_write_lock(s->core);
    scribe_commit_some(s);
    s->core->leading = 0;
    /* Requests wait no longer: a retry with the same slot finds out what became of them. */
    scribe_undo(s, give_up_waiting(s, lost), -CV_NOT_LEADER, lost);
    if (led)
        meta_follow(s->core->meta);
    master_core_unlock(s->core);
    scribe_refuse_waiting(s, -CV_NOT_LEADER);
    if (!s->inner_fetching)
        s->inner_busy = false;
    scribe_post(s, true);
    scribe_ask_for_turn(s);
}
