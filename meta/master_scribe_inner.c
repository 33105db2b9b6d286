/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the master asks of itself: the root of a new namespace, id grants, orphans to purge, sessions to end. One request
 * at a time, at most one a turn, so that clients go first.
 */
#include <errno.h>

#include "meta/master_scribe_internal.h"

static void inner_fetched(struct io_op *op, int result)
{
    struct master_scribe *s = container_of(op, struct master_scribe, inner_fetch);
    s->inner_fetching = false;
    if (result < 0 && result != -CV_STOPPING)
        log_warn(result, "rows for the master's own request, later");
    if (result == -EIO || result == -CV_BAD_CHECKSUM)
        (void)master_core_damaged(s->core, result);
    s->inner_failed |= result < 0;
    if (result < 0 || scribe_state(s) != SCRIBE_LEADING)
        s->inner_busy = false;
    scribe_ask_for_turn(s);
}

static int inner_work(void *arg)
{
    struct master_scribe *s = arg;
    return meta_fetch(&s->core->base, &s->inner, false);
}

static bool every_session(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles)
{
    struct master_scribe *s = arg;
    s->expired[s->expired_count++] = session;
    return s->expired_count < SCRIBE_EXPIRE_MAX;
}

/* The next one worth running. */
static bool inner_next(struct master_scribe *s)
{
    struct meta *m = s->core->meta;
    if (s->inner_failed || s->stopping)
        return false;
    meta_request_reset(&s->inner);
    if (!meta_is_formatted(m)) {
        meta_request_inner(&s->inner, META_OP_format, s->core->incarnation);
    } else if (meta_incarnation(m) < s->core->incarnation && !s->expired_count) {
        /* Sessions of before may know slots and handles that this log does not: they end first. */
        meta_sessions(m, every_session, s);
        if (s->expired_count)
            meta_request_inner(&s->inner, META_OP_end_session, s->expired[--s->expired_count]);
        else
            meta_request_inner(&s->inner, META_OP_incarnation, s->core->incarnation);
    } else if (s->expired_count) {
        meta_request_inner(&s->inner, META_OP_end_session, s->expired[--s->expired_count]);
        COUNT(s, sessions_expired, 1);
    } else if (s->o.workers && master_workers_next_row(s->o.workers, &s->inner_worker)) {
        meta_request_worker(&s->inner, &s->inner_worker.row);
    } else {
        return meta_next_inner(m, &s->inner);
    }
    return true;
}

void scribe_inner_run(struct master_scribe *s)
{
    struct meta *m = s->core->meta;
    if (scribe_state(s) != SCRIBE_LEADING || s->inner_fetching || !scribe_close_if_due(s, false))
        return;
    if (!s->inner_busy && !(s->inner_busy = inner_next(s)))
        return;
    int r = meta_prepare(m, &s->inner);
    if (r == -CV_NOT_PREPARED) {
        s->inner_fetching = true;
        return; /* io_work() is called outside of the lock */
    }
    r = meta_execute(m, &s->inner, clock_wall_ns());
    if (r == -CV_NOT_PREPARED || (r == -CV_BUSY && s->batches.count))
        return; /* again in the next turn */
    s->inner_busy = false;
    if (r == 0)
        r = s->inner.error;
    if (r < 0)
        s->inner_failed = true;
    else
        scribe_ask_for_turn(s); /* there may be another */
}

static void poked_run(struct loop_job *job)
{
    struct master_scribe *s = container_of(job, struct master_scribe, poke);
    atomic_store(&s->poked, false);
    scribe_ask_for_turn(s);
}

void master_scribe_poke(struct master_scribe *s)
{
    if (!atomic_exchange(&s->poked, true))
        loop_post(s->loop, &s->poke);
}

void scribe_inner_init(struct master_scribe *s)
{
    meta_request_init(&s->inner);
    s->poke.run = poked_run;
}

void scribe_inner_fetch(struct master_scribe *s)
{
    if (s->inner_fetching && !io_op_busy(&s->inner_fetch))
        io_work(s->loop, &s->inner_fetch, inner_work, s, inner_fetched);
}

/* ---- sessions that did not renew ---------------------------------------------------------------------------------- */

struct expiry {
    struct master_scribe *s;
    uint64_t before_ns; /* last heard of before this: it has ended */
};

static bool look_at_session(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles)
{
    struct expiry *e = arg;
    struct master_scribe *s = e->s;
    uint64_t heard = max(master_sessions_last(s->o.sessions, session), (uint64_t)s->core->led_since_ns);
    if (heard < e->before_ns)
        s->expired[s->expired_count++] = session;
    return s->expired_count < SCRIBE_EXPIRE_MAX;
}

void scribe_inner_tick(struct master_scribe *s)
{
    s->inner_failed = false;
    uint64_t now = clock_ns(), timeout_ns = s->options->session_timeout_ms * NS_PER_MS;
    if (s->o.workers)
        master_workers_version(s->o.workers, now); /* somebody may be out by now */
    if (scribe_state(s) != SCRIBE_LEADING || s->stopping)
        return;
    bool late = now - s->core->led_since_ns > timeout_ns;
    if (!s->purge_allowed && (late || meta_all_told(s->core->meta))) {
        s->purge_allowed = true;
        master_core_write_lock(s->core);
        meta_allow_purge(s->core->meta);
        master_core_unlock(s->core);
    }
    if (!late)
        return;
    if (!s->o.sessions || s->expired_count || now - s->last_expiry_ns < timeout_ns / 20)
        return;
    s->last_expiry_ns = now;
    struct expiry e = {s, now - timeout_ns};
    master_core_read_lock(s->core);
    meta_sessions(s->core->meta, look_at_session, &e);
    master_core_unlock(s->core);
}
