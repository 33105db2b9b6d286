/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_fill.h"

#include <errno.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "worker/worker_flight.h"

#define FLIGHTS_MAX 65536
#define GET_MS_MIN  1000   /* a range gets at least this long, also for impatient askers */
#define GET_MS_MAX  120000 /* and at most */
#define TICK_MS     1000

/* ---- flights ---------------------------------------------------------------------------------------------------- */

static struct flight **place(struct worker_fill *f, const struct rec_block *b)
{
    struct flight **p = &f->flights[hash_u64(b->inode * 31 + b->index + b->version * 7919) % FLIGHT_BUCKETS];
    while (*p && ((*p)->block.inode != b->inode || (*p)->block.index != b->index || (*p)->block.version != b->version))
        p = &(*p)->hash_next;
    return p;
}

static void flight_free_when_idle(struct flight *f)
{
    if (!list_empty(&f->waits) || f->runs || f->asking || f->going)
        return;
    *place(f->fill, &f->block) = f->hash_next;
    f->fill->flight_count--;
    struct worker_fill *fill = f->fill;
    free(f->origin.key);
    free(f);
    fill_stopped_when_quiet(fill);
}

static void wait_done(struct loop_job *job)
{
    struct fill_wait *w = container_of(job, struct fill_wait, job);
    w->done(w);
}

void fill_wait_end(struct fill_wait *w, int result)
{
    list_remove(&w->link);
    w->result = result;
    w->job = (struct loop_job){.run = wait_done};
    loop_post(w->home, &w->job);
}

void flight_settle(struct flight *f, uint64_t chunks, uint64_t bytes)
{
    list_for_each_safe (e, &f->waits) {
        struct fill_wait *w = list_entry(e, struct fill_wait, link);
        if (!(w->left & chunks))
            continue;
        w->left &= ~chunks;
        w->fetched += bytes;
        if (!w->left)
            fill_wait_end(w, 0);
    }
}

void flight_fail(struct flight *f, uint64_t chunks, int error)
{
    list_for_each_safe (e, &f->waits) {
        struct fill_wait *w = list_entry(e, struct fill_wait, link);
        if (w->left & chunks)
            fill_wait_end(w, error);
    }
}

/* ---- runs ------------------------------------------------------------------------------------------------------- */

static void add_run(struct flight *f, uint32_t first, uint32_t count, bool ahead, bool pin, uint64_t deadline_ns)
{
    struct run *r = calloc(1, sizeof(*r));
    uint64_t chunks = (count >= 64 ? ~0ull : (1ull << count) - 1) << first;
    if (!r) {
        flight_fail(f, chunks, -ENOMEM);
        return;
    }
    r->flight = f;
    r->first = first;
    r->count = count;
    r->ahead = ahead;
    r->pin = pin;
    r->deadline_ns = deadline_ns;
    f->taken |= chunks;
    f->runs++;
    list_push_back(&f->queued, &r->of_flight);
    list_push_back(ahead ? &f->fill->ahead : &f->fill->needed, &r->link);
}

/* Runs of chunks that are not taken: neighbours together, up to the size of a range. */
static bool make_runs(struct flight *f, uint64_t wanted, bool ahead, bool pin, uint64_t deadline_ns)
{
    uint64_t now = clock_ns();
    uint64_t deadline = min(max(deadline_ns, now + GET_MS_MIN * NS_PER_MS), now + GET_MS_MAX * NS_PER_MS);
    uint32_t most = (uint32_t)max(f->fill->o.core->options->fill_range_bytes / BLOCK_CHUNK_BYTES, 1ull);
    for (wanted &= ~f->taken; wanted; wanted &= ~f->taken) {
        uint32_t first = (uint32_t)__builtin_ctzll(wanted), n = 0, runs = f->runs;
        while (n < most && first + n < 64 && wanted >> (first + n) & 1)
            n++;
        add_run(f, first, n, ahead, pin, deadline);
        if (f->runs == runs) /* no memory: who waited was told, and is gone */
            return false;
    }
    return true;
}

/* Somebody needs now what was only ahead. */
static void promote(struct flight *f, uint64_t chunks)
{
    list_for_each_safe (e, &f->queued) {
        struct run *r = list_entry(e, struct run, of_flight);
        uint64_t its = (r->count >= 64 ? ~0ull : (1ull << r->count) - 1) << r->first;
        if (!r->ahead || !(its & chunks))
            continue;
        r->ahead = false;
        list_remove(&r->link);
        list_push_back(&f->fill->needed, &r->link);
    }
}

/* What is needed makes ranges together, whoever asked; who reads ahead knows which ranges are best. */
static void flight_go(struct flight *f)
{
    uint64_t needed = 0, deadline_ns = 0;
    bool pin = false;
    if (!f->known)
        return;
    list_for_each (e, &f->waits) {
        const struct fill_wait *w = list_entry(e, struct fill_wait, link);
        needed |= w->ahead ? 0 : w->left;
        pin |= !w->ahead && w->pin;
        deadline_ns = max(deadline_ns, w->ahead ? 0 : w->deadline_ns);
    }
    bool more = make_runs(f, needed, false, pin, deadline_ns);
    for (struct list *e = f->waits.next; more && e != &f->waits; e = e->next) {
        const struct fill_wait *w = list_entry(e, struct fill_wait, link);
        if (w->ahead)
            more = make_runs(f, w->left, true, w->pin, w->deadline_ns);
    }
    fill_start_some(f->fill);
}

static void go_posted(struct loop_job *job)
{
    struct flight *f = container_of(job, struct flight, go);
    f->going = false;
    if (f->fill->stopping)
        flight_fail(f, ~0ull, -CV_STOPPING);
    else
        flight_go(f);
    flight_free_when_idle(f);
}

/* On the next turn: requests that come in one turn become ranges together. */
static void flight_go_soon(struct flight *f)
{
    if (f->going)
        return;
    f->going = true;
    f->go = (struct loop_job){.run = go_posted};
    loop_post(f->fill->loop, &f->go);
}

void flight_run_ended(struct flight *f, uint64_t chunks)
{
    f->taken &= ~chunks;
    f->runs--;
    if (!list_empty(&f->waits))
        flight_go(f); /* came while it ended, or it left something */
    flight_free_when_idle(f);
}

static struct run *next_run(struct worker_fill *f, struct list *queue)
{
    list_for_each (e, queue) {
        struct run *r = list_entry(e, struct run, link);
        if (r->flight->active < f->o.core->options->fill_parallel)
            return r;
    }
    return NULL;
}

void fill_start_some(struct worker_fill *f)
{
    uint32_t most = f->o.core->options->fill_parallel_total;
    while (!list_empty(&f->directs) && f->active + f->directs_active < most)
        direct_start(f);
    while (f->active + f->directs_active < most) {
        struct run *r = next_run(f, &f->needed);
        if (!r)
            r = next_run(f, &f->ahead);
        if (!r)
            return;
        list_remove(&r->link);
        list_remove(&r->of_flight);
        r->flight->active++;
        f->active++;
        run_start(r);
    }
}

/* ---- where it comes from ---------------------------------------------------------------------------------------- */

static void with_origin(struct origin_wait *w, int result, const struct origin *o)
{
    struct flight *f = container_of(w, struct flight, origin_wait);
    f->asking = false;
    if (result == 0) {
        free(f->origin.key);
        f->origin = *o;
        f->origin.key = strdup(o->key);
        result = f->origin.key ? 0 : -ENOMEM;
    }
    f->known = result == 0;
    if (result < 0)
        flight_fail(f, ~0ull, result);
    else
        flight_go(f);
    flight_free_when_idle(f);
}

static struct flight *flight_get(struct worker_fill *f, const struct fill_wait *w)
{
    struct flight **p = place(f, &w->block);
    if (*p)
        return *p;
    if (f->flight_count >= FLIGHTS_MAX)
        return NULL;
    struct flight *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    n->fill = f;
    n->block = w->block;
    n->origin_wait.done = with_origin;
    list_init(&n->waits);
    list_init(&n->queued);
    f->flight_count++;
    *p = n;
    return n;
}

static void want(struct loop_job *job)
{
    struct fill_wait *w = container_of(job, struct fill_wait, job);
    struct worker_fill *f = w->fill;
    list_init(&w->link);
    w->left = w->chunks;
    w->fetched = 0;
    if (f->stopping) {
        fill_wait_end(w, -CV_STOPPING);
        return;
    }
    if (w->into) {
        int r = direct_new(f, w);
        if (r < 0)
            fill_wait_end(w, r);
        fill_start_some(f);
        return;
    }
    struct flight *n = flight_get(f, w);
    if (!n || !w->left) {
        fill_wait_end(w, n ? 0 : -CV_BUSY);
        if (n)
            flight_free_when_idle(n);
        return;
    }
    if (w->left & n->taken)
        WORKER_COUNT(f->o.metrics, fill_joins, 1);
    list_push_back(&n->waits, &w->link);
    if (!w->ahead)
        promote(n, w->left);
    if (n->known) {
        flight_go_soon(n);
    } else if (!n->asking) {
        n->asking = true;
        worker_origins_get(f->origins, w->block.inode, w->block.base_version, w->deadline_ns, &n->origin_wait);
    }
}

void worker_fill_want(struct worker_fill *f, struct fill_wait *w)
{
    w->fill = f;
    w->job = (struct loop_job){.run = want};
    loop_post(f->loop, &w->job);
}

void worker_fill_mounts_changed(struct worker_fill *f, uint64_t mounts_version)
{
    worker_mounts_refresh(f->mounts);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void on_tick(struct loop_timer *timer)
{
    struct worker_fill *f = container_of(timer, struct worker_fill, tick);
    worker_mounts_count(f->mounts);
    loop_timer_start(f->loop, &f->tick, loop_now(f->loop) + TICK_MS * NS_PER_MS);
}

int worker_fill_new(struct loop *loop, const struct worker_fill_options *o, struct worker_fill **ret)
{
    struct worker_fill *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->loop = loop;
    f->o = *o;
    list_init(&f->needed);
    list_init(&f->ahead);
    list_init(&f->directs);
    int r = worker_origins_new(o->master, o->metrics, &f->origins);
    if (r == 0)
        r = worker_mounts_new(loop, o->master, o->metrics, &f->mounts);
    if (r < 0) {
        worker_fill_free(f);
        return r;
    }
    loop_timer_init(&f->tick, on_tick);
    loop_timer_start(loop, &f->tick, clock_ns() + TICK_MS * NS_PER_MS);
    *ret = f;
    return 0;
}

void fill_stopped_when_quiet(struct worker_fill *f)
{
    if (!f->stopping || !f->mounts_stopped || f->flight_count || f->directs_active || !list_empty(&f->directs) ||
        !f->stopped)
        return;
    void (*stopped)(void *) = take(f->stopped);
    stopped(f->stopped_arg);
}

static void mounts_stopped(void *arg)
{
    struct worker_fill *f = arg;
    f->mounts_stopped = true;
    fill_stopped_when_quiet(f);
}

/* Closing the under file systems ends what is being got; the master's calls are ended before (worker_master_stop). */
void worker_fill_stop(struct worker_fill *f, void (*stopped)(void *arg), void *arg)
{
    f->stopping = true;
    f->stopped = stopped;
    f->stopped_arg = arg;
    loop_timer_stop(f->loop, &f->tick);
    worker_mounts_count(f->mounts);
    while (!list_empty(&f->directs))
        direct_start(f);
    struct list *queues[] = {&f->needed, &f->ahead};
    for (size_t i = 0; i < array_size(queues); i++)
        for (struct list *e; (e = list_pop_front(queues[i]));) {
            struct run *r = list_entry(e, struct run, link);
            struct flight *n = r->flight;
            uint64_t chunks = (r->count >= 64 ? ~0ull : (1ull << r->count) - 1) << r->first;
            list_remove(&r->of_flight);
            free(r);
            flight_fail(n, chunks, -CV_STOPPING);
            flight_run_ended(n, chunks);
        }
    worker_mounts_stop(f->mounts, mounts_stopped, f);
}

struct worker_fill *worker_fill_free(struct worker_fill *f)
{
    if (!f)
        return NULL;
    worker_origins_free(f->origins);
    worker_mounts_free(f->mounts);
    free(f);
    return NULL;
}
