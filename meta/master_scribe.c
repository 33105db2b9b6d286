/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One function, turn_run(), does the work, at the end of each turn of the loop; everything else only notes what
 * happened and asks for a turn: requests pushed, batches committed, timers. Roles and entries come from the link and are
 * handled when they come, in order.
 */
#include "meta/master_scribe.h"

#include <assert.h>
#include <errno.h>

#include "base/random.h"
#include "meta/master_scribe_internal.h"
#include "meta/master_ufs.h"

#define QUEUE_MAX 8192
#define TICK_MS   1000

/* ---- the delta ---------------------------------------------------------------------------------------------------- */

/* [W] Hand the delta to the writer when there is enough of it, or it is old, or all of it is wanted. */
static void seal_if_due(struct master_scribe *s, bool all)
{
    if (!master_writer_is_idle(s->writer) || s->broken)
        return;
    struct meta_delta_load load = meta_delta_load(s->core->meta);
    uint64_t now = loop_now(s->loop);
    if (load.rows == 0) {
        s->last_seal_ns = now;
        return;
    }
    if (!all && load.bytes < s->options->flush_bytes && load.operations < s->options->flush_ops &&
        now - s->last_seal_ns < s->options->flush_interval_ms * NS_PER_MS)
        return;
    scribe_look_at_disk(s);
    struct meta_delta *d = scribe_may_write(s) ? meta_delta_seal(s->core->meta) : NULL;
    if (!d)
        return;
    s->last_seal_ns = now;
    master_writer_give(s->writer, d);
}

static void on_written(void *arg, struct meta_delta *delta)
{
    struct master_scribe *s = arg;
    master_core_write_lock(s->core);
    meta_delta_written(s->core->meta, delta);
    master_core_unlock(s->core);
    if (s->applied_untold)
        scribe_tell_applied(s);
    scribe_ask_for_turn(s);
}

static void on_flushed(void *arg)
{
    struct master_scribe *s = arg;
    scribe_tell_applied(s);
    scribe_admin_flushed(s);
    scribe_ask_for_turn(s);
}

/* What is committed stays in memory and in the journal; nothing more is proposed or answered by a lease from here. */
static void on_no_room(void *arg, int error)
{
    struct master_scribe *s = arg;
    s->broken = error;
    log_error(error,
              "write the metadata database in %s: another master leads, this one opens it anew when there is room",
              s->options->dir);
    atomic_store(&s->core->lease_until_ns, 0);
    scribe_tell_applied(s);
    if (s->o.no_room)
        s->o.no_room(s->o.arg);
    else
        s->o.failed(s->o.arg, error);
    scribe_ask_for_turn(s);
}

/* ---- the turn ----------------------------------------------------------------------------------------------------- */

/* The batch being filled stays open: close it when its window is over. */
static void watch_window(struct master_scribe *s, bool filling)
{
    if (!filling) {
        s->filling_since_ns = 0;
        loop_timer_stop(s->loop, &s->window);
    } else if (!s->filling_since_ns) {
        s->filling_since_ns = loop_now(s->loop);
        loop_timer_start(s->loop, &s->window, s->filling_since_ns + s->options->batch_window_ms * NS_PER_MS);
    }
}

static void stop_step(struct master_scribe *s);
static void grace_fired(struct loop_timer *timer);

static void turn_run(struct loop_hook *hook)
{
    struct master_scribe *s = container_of(hook, struct master_scribe, turn);
    /* They have waited longest. Only who attached is told when what goes by committed rows (the thread ufs) finds the mount. */
    bool released = scribe_release(s), held = released && s->mounts_change;
    if (released && !held)
        scribe_post(s, true);
    master_core_write_lock(s->core);
    uint64_t locked_ns = clock_ns();
    scribe_commit_some(s);
    scribe_inner_run(s);
    bool more = scribe_execute_some(s);
    scribe_release_early(s);
    scribe_close_if_due(s, true);
    seal_if_due(s, (s->stopping && s->batches.count == 0) || scribe_snapshot_wants_flush(s) ||
                       scribe_admin_wants_flush(s));
    scribe_serve_if_formatted(s);
    bool filling = meta_batch_now(s->core->meta).op_count > 0;
    master_core_unlock(s->core);
    OBSERVE(s, lock_ns, clock_ns() - locked_ns);
    COUNT(s, groups, 1);
    scribe_propose_some(s);
    scribe_inner_fetch(s);
    watch_window(s, filling);
    s->mounts_change &= filling || s->batches.count > 0;
    scribe_post(s, held || s->serves_anew); /* who asked for a leader waits, too */
    s->serves_anew = false;
    s->in_flight = s->batches.count;
    if (s->disk_untold)
        scribe_tell_applied(s);
    s->disk_untold = false;
    scribe_snapshot_step(s);
    if (more)
        scribe_ask_for_turn(s);
    if (s->stopping)
        stop_step(s);
}

static void window_fired(struct loop_timer *timer)
{
    struct master_scribe *s = container_of(timer, struct master_scribe, window);
    s->window_over = true;
    scribe_ask_for_turn(s);
}

static void tick_fired(struct loop_timer *timer)
{
    struct master_scribe *s = container_of(timer, struct master_scribe, tick);
    scribe_look_at_disk(s);
    scribe_inner_tick(s);
    scribe_ask_for_turn(s);
    uint64_t ms = min((uint64_t)TICK_MS, s->options->flush_interval_ms);
    loop_timer_start(s->loop, &s->tick, clock_ns() + ms * NS_PER_MS);
}

/* What commits set free: blocks that are nobody's, sessions that ended. The mirror comes later. */
static void on_effect(void *arg, const struct meta_effect *e)
{
    struct master_scribe *s = arg;
    COUNT(s, effects, 1);
    if (e->kind == META_EFFECT_SESSION_CLOSED && s->o.sessions)
        master_sessions_forget(s->o.sessions, e->session);
    else if (e->kind == META_EFFECT_PURGED && s->o.workers)
        master_workers_drop(s->o.workers, e->inode, 0, UINT64_MAX);
    else if (e->kind == META_EFFECT_TRUNCATED && s->o.workers)
        master_workers_drop(s->o.workers, e->inode, e->a, e->epoch);
    else if (e->kind == META_EFFECT_MOUNTS && s->o.ufs)
        master_ufs_mounts_changed(s->o.ufs);
}

/* Who keeps a new block. */
static uint32_t on_place(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max, uint64_t *ret)
{
    struct master_scribe *s = arg;
    return master_workers_place(s->o.workers, inode, block, near, max, loop_now(s->loop), ret);
}

/* Of the incarnation that the state is of. */
static bool on_checked(void *arg, uint64_t worker)
{
    struct master_scribe *s = arg;
    return master_workers_checked(s->o.workers, worker, meta_incarnation(s->core->meta));
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

int master_scribe_new(struct master_core *core, const struct master_scribe_options *options, struct master_scribe **ret)
{
    struct master_scribe *s cleanup(master_scribe_free_p) = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->core = core;
    s->o = *options;
    s->options = options->options;
    s->o.queue_max = s->o.queue_max ? s->o.queue_max : QUEUE_MAX;
    loop_hook_init(&s->turn, turn_run);
    loop_timer_init(&s->window, window_fired);
    loop_timer_init(&s->tick, tick_fired);
    loop_timer_init(&s->grace, grace_fired);
    list_init(&s->admins);
    scribe_inner_init(s);
    scribe_role_init(s);
    meta_on_effect(core->meta, on_effect, s);
    if (s->o.workers) {
        meta_on_place(core->meta, on_place, s);
        meta_on_checked(core->meta, on_checked);
    }
    s->applied = s->committed = meta_applied(core->meta);
    core->released_index = s->applied;
    master_digests_note(&s->digests, s->applied, meta_digest(core->meta));
    int r = master_batches_init(&s->batches, s->options->batches_in_flight_max);
    if (r < 0)
        return r;
    struct loop_options lo = {.name = "scribe", .backend = (enum loop_backend)s->o.io_backend, .file_threads = 2};
    r = loop_new(&lo, &s->loop);
    if (r < 0)
        return r;
    if (s->o.metrics && (r = metrics_block_new(s->o.metrics, &master_metric_set, &s->metrics)) < 0)
        return r;
    s->link_events = scribe_link_events;
    s->link_events.arg = s;
    struct master_link_options l = {
        .socket = s->o.journal_socket,
        .cluster = s->o.cluster,
        .master = random_u64(),
        .events = &s->link_events,
    };
    r = master_link_new(s->loop, &l, &s->link);
    if (r < 0)
        return r;
    s->writer_events =
        (struct master_writer_events){.arg = s, .written = on_written, .flushed = on_flushed, .no_room = on_no_room};
    r = master_writer_new(s->loop, core->store, &s->writer_events, &s->writer);
    if (r < 0)
        return r;
    *ret = take(s);
    return 0;
}

struct master_scribe *master_scribe_free(struct master_scribe *s)
{
    if (!s)
        return NULL;
    assert(s->queued == 0);
    master_writer_free(s->writer);
    master_link_free(s->link);
    loop_free(s->loop);
    if (s->metrics)
        metrics_block_free(s->o.metrics, &master_metric_set, s->metrics);
    if (s->batches.ring)
        master_batches_fini(&s->batches);
    meta_request_fini(&s->inner);
    master_ack_fini(&s->acks);
    free(s);
    return NULL;
}

int master_scribe_add_home(struct master_scribe *s, struct master_home *home)
{
    if (s->home_count == MASTER_HOMES_MAX)
        return -ENOSPC;
    home->number = s->home_count;
    s->homes[s->home_count++] = home;
    return 0;
}

static int start_on_loop(void *arg)
{
    struct master_scribe *s = arg;
    s->last_seal_ns = clock_ns();
    scribe_look_at_disk(s);
    loop_timer_start(s->loop, &s->tick, clock_ns());
    return master_link_start(s->link);
}

int master_scribe_start(struct master_scribe *s)
{
    int r = loop_start(s->loop);
    if (r < 0)
        return r;
    s->started = true;
    return loop_call(s->loop, start_on_loop, s);
}

/* The chain rides on the job of its first request. */
static void pushed_run(struct loop_job *job)
{
    struct master_request *first = container_of(job, struct master_request, job), *last = first;
    struct master_scribe *s = first->scribe;
    uint32_t n = 1;
    for (; last->next; last = last->next)
        n++;
    struct master_chain chain = {first, last, n};
    master_chain_append(&s->waiting, &chain);
    scribe_ask_for_turn(s);
}

/* Counting comes before asking whether we refuse, and stopping refuses before it looks at the count: so either the
 * pusher sees that we stop, or stopping waits for what was pushed. */
int master_scribe_push(struct master_scribe *s, struct master_chain *chain)
{
    if (!chain->first)
        return 0;
    uint32_t before = atomic_fetch_add(&s->queued, chain->n);
    int r = atomic_load(&s->refusing) ? -CV_STOPPING : before >= s->o.queue_max ? -CV_BUSY : 0;
    if (r < 0) {
        atomic_fetch_sub(&s->queued, chain->n);
        return r;
    }
    struct master_request *first = chain->first;
    *chain = (struct master_chain){0};
    first->scribe = s;
    first->job.run = pushed_run;
    loop_post(s->loop, &first->job);
    return 0;
}

/* ---- stopping ------------------------------------------------------------------------------------------------------
 * refuse -> what is in flight commits (or the grace is over) -> the delta is written -> the link is told and closed. */

static void link_stopped(void *arg)
{
    struct master_scribe *s = arg;
    scribe_step_down(s, true); /* if batches are left, the grace was over: nobody will tell us of them */
    scribe_post(s, true);
    scribe_admin_fail(s, -CV_STOPPING, true);
    loop_timer_stop(s->loop, &s->tick);
    loop_timer_stop(s->loop, &s->grace);
    loop_timer_stop(s->loop, &s->window);
    loop_timer_stop(s->loop, &s->confirm_again);
    loop_hook_cancel(s->loop, &s->turn);
    loop_stop(s->loop);
}

static void stop_step(struct master_scribe *s)
{
    if (s->link_stopped || s->inner_fetching || io_op_busy(&s->snapshot.op) || io_op_busy(&s->backup.op) ||
        atomic_load(&s->queued) > 0)
        return;
    if (s->batches.count && !s->grace_over)
        return;
    bool more = meta_delta_load(s->core->meta).rows > 0 && !s->batches.count && scribe_may_write(s);
    if (!master_writer_is_idle(s->writer) || more)
        return; /* written() and flushed() ask for the next turn */
    s->link_stopped = true;
    master_link_applied(s->link, s->applied, master_store_flushed(s->core->store), LINK_UNFIT_STOPS);
    master_link_stop(s->link, link_stopped, s);
}

static void grace_fired(struct loop_timer *timer)
{
    struct master_scribe *s = container_of(timer, struct master_scribe, grace);
    s->grace_over = true;
    scribe_ask_for_turn(s);
}

struct stop_call {
    struct master_scribe *s;
    uint32_t grace_ms;
};

static int stop_on_loop(void *arg)
{
    struct stop_call *call = arg;
    struct master_scribe *s = call->s;
    s->stopping = true;
    scribe_refuse_waiting(s, -CV_STOPPING);
    scribe_post(s, false);
    loop_timer_start(s->loop, &s->grace, clock_ns() + call->grace_ms * NS_PER_MS);
    /* A leader that cannot lead hands over at once, and does not wait for the lease that ends here: answers that were found
     * before go, others ask a majority. */
    atomic_store(&s->core->lease_until_ns, 0);
    master_link_applied(s->link, s->applied, master_store_flushed(s->core->store), LINK_UNFIT_STOPS);
    scribe_ask_for_turn(s);
    return 0;
}

void master_scribe_stop(struct master_scribe *s, uint32_t grace_ms)
{
    if (!s->started)
        return;
    atomic_store(&s->refusing, true);
    struct stop_call call = {s, grace_ms};
    loop_call(s->loop, stop_on_loop, &call);
    loop_join(s->loop);
    s->started = false;
}

void master_scribe_get_status(const struct master_scribe *s, struct master_scribe_status *ret)
{
    static const char *const names[] = {"detached", "following", "leading"};
    int state = atomic_load(&s->state);
    *ret = (struct master_scribe_status){
        .state = s->refusing ? "stopping" : names[state],
        .term = s->term,
        .applied = s->applied,
        .flushed = master_store_flushed(s->core->store),
        .committed = s->committed,
        .queued = s->queued,
        .batches_in_flight = s->in_flight,
        .attached = s->attached,
    };
}
