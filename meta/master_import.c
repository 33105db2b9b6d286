/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes, and what becomes of it: the directory is placed, then a single name is looked for or a listing joined. */
#include "meta/master_import_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define LOOKS_MAX   8u     /* single names of one directory within a second; then it is listed */
#define WAITING_MAX 65536u /* requests */
#define TICK_NS     (50 * NS_PER_MS)

static void tick_fired(struct loop_timer *timer);

int master_import_new(struct master_ufs *ufs, const struct master_import_sink *sink, struct master_import **ret)
{
    struct master_import *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->ufs = ufs;
    m->loop = master_ufs_loop(ufs);
    m->sink = *sink;
    for (uint32_t i = 0; i < IMPORT_BUCKETS; i++)
        list_init(&m->buckets[i]);
    list_init(&m->idle);
    list_init(&m->queued);
    list_init(&m->waits);
    loop_timer_init(&m->tick, tick_fired);
    *ret = m;
    return 0;
}

struct master_import *master_import_free(struct master_import *m)
{
    if (!m)
        return NULL;
    assert(m->active == 0 && m->waiting == 0);
    for (struct list *e; (e = list_pop_front(&m->idle));)
        import_directory_free(list_entry(e, struct import_directory, idle));
    free(m);
    return NULL;
}

void master_import_done(struct master_import_batch *b, int error)
{
    assert_on_loop(b->of->import->loop);
    if (b->look)
        import_look_imported(b->look, error);
    else
        import_listing_imported(b->of->listing, b, error);
    import_batch_free(b);
}

/* ---- who comes ---------------------------------------------------------------------------------------------------------------- */

static bool is_over(const struct master_import_wait *w, uint64_t now, int *ret)
{
    bool cancelled = w->cancelled && atomic_load_explicit(w->cancelled, memory_order_relaxed);
    *ret = w->import->stopping ? -CV_STOPPING : cancelled ? -CV_CANCELLED : -CV_DEADLINE;
    return w->import->stopping || cancelled || w->deadline_ns < now;
}

/* So many single names that all of them are better asked for at once? */
static bool many_looks(struct import_directory *d, uint64_t now)
{
    if (now - d->window_ns > NS_PER_S) {
        d->window_ns = now;
        d->window_looks = 0;
    }
    return ++d->window_looks > LOOKS_MAX;
}

/* The directory's place is known: let w wait for what it wants. */
static void admit(struct import_directory *d, struct master_import_wait *w, uint64_t now)
{
    w->began_ns = now;
    w->of_listing = false;
    if (w->name.n && !many_looks(d, now))
        return import_look_for(d, w);
    int r = d->listing ? 0 : import_listing_start(d);
    if (r < 0) {
        import_wait_end(w, r);
        return import_idle(d);
    }
    w->of_listing = true;
    list_push_back(&d->waits, &w->link);
    import_listing_next(d->import);
}

void master_import_placed(struct master_import_place *p, int error)
{
    struct import_directory *d = p->of;
    struct master_import *m = d->import;
    assert_on_loop(m->loop);
    struct list parked = LIST_INIT(parked);
    list_append_all(&parked, &d->parked);
    if (error == 0)
        error = buf_append(&d->prefix, p->prefix.p, p->prefix.n);
    d->mount = p->mount;
    d->placed = error == 0;
    /* What is not below a mount has no names elsewhere; what is gone the namespace tells by itself. */
    if (error < 0)
        import_waits_end(&parked, error == -ENODATA ? -ENOENT : error == -ENOENT ? 0 : error);
    for (struct list *e; (e = list_pop_front(&parked));)
        admit(d, list_entry(e, struct master_import_wait, link), clock_ns());
    d->placing = false;
    import_idle(d);
    atomic_fetch_sub(&m->active, 1);
}

static void ask_run(struct loop_job *job)
{
    struct master_import_wait *w = container_of(job, struct master_import_wait, ask);
    struct master_import *m = w->import;
    uint64_t now = clock_ns();
    int r;
    list_init(&w->link);
    list_push_back(&m->waits, &w->all);
    if (!loop_timer_running(&m->tick))
        loop_timer_start(m->loop, &m->tick, now + TICK_NS);
    if (is_over(w, now, &r))
        return import_wait_end(w, r);
    if (atomic_load(&m->waiting) > WAITING_MAX)
        return import_wait_end(w, -CV_BUSY);
    struct import_directory *d = import_find_or_add(m, w->directory);
    if (!d)
        return import_wait_end(w, -ENOMEM);
    if (d->placed)
        return admit(d, w, now);
    list_push_back(&d->parked, &w->link);
    w->of_listing = false;
    if (d->placing)
        return;
    d->placing = true;
    d->place = (struct master_import_place){.directory = d->inode, .of = d};
    atomic_fetch_add(&m->active, 1);
    m->sink.place(m->sink.arg, &d->place);
}

void master_import_want(struct master_import *m, struct master_import_wait *w)
{
    w->import = m;
    w->ask = (struct loop_job){.run = ask_run};
    atomic_fetch_add(&m->waiting, 1);
    loop_post(m->loop, &w->ask);
}

/* Those whose time is up, and those who wait for one name while a long listing goes on. */
static void tick_fired(struct loop_timer *timer)
{
    struct master_import *m = container_of(timer, struct master_import, tick);
    uint64_t now = clock_ns();
    int r;
    list_for_each_safe (e, &m->waits) {
        struct master_import_wait *w = list_entry(e, struct master_import_wait, all);
        struct import_directory *d = NULL;
        if (is_over(w, now, &r)) {
            import_wait_end(w, r);
        } else if (w->name.n && w->of_listing && now - w->began_ns > NS_PER_S && (d = import_find(m, w->directory))) {
            w->of_listing = false;
            list_remove(&w->link);
            import_look_for(d, w);
        }
    }
    if (!list_empty(&m->waits))
        loop_timer_start(m->loop, &m->tick, now + TICK_NS);
}

/* ---- stopping ------------------------------------------------------------------------------------------------------------------- */

static int stop_on_loop(void *arg)
{
    struct master_import *m = arg;
    m->stopping = true;
    list_for_each_safe (e, &m->waits)
        import_wait_end(list_entry(e, struct master_import_wait, all), -CV_STOPPING);
    for (uint32_t i = 0; i < IMPORT_BUCKETS; i++) {
        list_for_each_safe (e, &m->buckets[i]) {
            struct import_directory *d = list_entry(e, struct import_directory, link);
            list_for_each (k, &d->looks)
                ufs_cancel(&list_entry(k, struct import_look, link)->op);
            if (d->listing)
                import_listing_fail(d->listing, -ECANCELED);
        }
    }
    loop_timer_stop(m->loop, &m->tick);
    return 0;
}

void master_import_stop(struct master_import *m)
{
    loop_call(m->loop, stop_on_loop, m);
}

void master_import_end(struct master_import *m)
{
    while (atomic_load(&m->active) || atomic_load(&m->waiting))
        usleep(1000);
}

void master_import_get_stats(const struct master_import *m, struct master_import_stats *ret)
{
    *ret = (struct master_import_stats){
        .looks = m->looks,
        .listings = m->listings,
        .listings_failed = m->listings_failed,
        .names = m->names,
        .names_skipped = m->names_skipped,
        .waiting = m->waiting,
    };
}
