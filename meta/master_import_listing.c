/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings: a directory's names, page by page.
 *
 *      page asked for --entries--> batch being filled --full--> ready --one at a time--> sink --done--> next
 *            ^                                                    |
 *            '--------- few are ready, and there is more ---------'
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "meta/master_import_internal.h"

#define LISTINGS_MAX 4u              /* at once; others wait their turn */
#define PAGE_KEYS    20000u          /* asked for at a time */
#define READY_LOW    (PAGE_KEYS / 2) /* names not imported yet, below which the next page is asked for */
#define PAUSE_MAX_NS (50 * NS_PER_MS)
#define LIST_NS      (15 * NS_PER_S) /* without a new name; a page that brought some is asked for again */

static void listing_pump(struct listing *l);

static void listing_free(struct listing *l)
{
    import_names_fini(&l->names);
    import_batch_free(l->filling);
    for (struct list *e; (e = list_pop_front(&l->ready));)
        import_batch_free(list_entry(e, struct master_import_batch, link));
    buf_fini(&l->after);
    free(l);
}

void import_listing_next(struct master_import *m)
{
    while (m->running < LISTINGS_MAX && !list_empty(&m->queued)) {
        struct listing *l = list_entry(list_pop_front(&m->queued), struct listing, link);
        l->begun = true;
        m->running++;
        listing_pump(l);
    }
}

/* It is over, with the first error it met. */
static void listing_end(struct listing *l)
{
    struct import_directory *d = l->of;
    struct master_import *m = d->import;
    int error = l->error;
    loop_timer_stop(m->loop, &l->pause);
    list_remove(&l->link);
    m->running -= l->begun;
    listing_free(l);
    d->listing = NULL;
    if (error < 0)
        atomic_fetch_add(&m->listings_failed, 1);
    import_waits_end(&d->waits, import_result_of(m, error));
    import_idle(d);
    import_listing_next(m);
    atomic_fetch_sub(&m->active, 1);
}

void import_listing_fail(struct listing *l, int error)
{
    if (!l->failed)
        l->error = error;
    l->failed = true;
    if (l->asking)
        ufs_cancel(&l->op);
    else if (!l->importing)
        listing_end(l);
}

static void listing_seal(struct listing *l)
{
    import_batch_seal(l->filling);
    list_push_back(&l->ready, &l->filling->link);
    l->filling = NULL;
}

static int listing_batch(struct listing *l)
{
    if (l->filling && l->filling->count == l->filling->room)
        listing_seal(l);
    if (!l->filling)
        l->filling = import_batch_new(l->of, IMPORT_NAMES);
    return l->filling ? 0 : -ENOMEM;
}

static int listing_name(void *arg, struct text name, struct text component, const struct ufs_entry *e)
{
    struct listing *l = arg;
    int r = listing_batch(l);
    if (r == 0)
        r = import_batch_add(l->filling, name, component, e);
    l->ready_names += r == 0;
    return r;
}

static void listing_skipped(void *arg, struct text component)
{
    struct listing *l = arg;
    uint64_t before = atomic_fetch_add(&l->of->import->names_skipped, 1);
    if (before < 10)
        log_warn(0, "mount %u: '" TEXT_FMT TEXT_FMT "' cannot be a name here, left out", l->of->mount,
                 TEXT_ARG(import_prefix_of(l->of)), TEXT_ARG(component));
}

static int listing_each(struct ufs_op *op, const struct ufs_entry *e)
{
    struct listing *l = container_of(op, struct listing, op);
    const struct import_names_out out = {l, listing_name, listing_skipped};
    uint32_t prefix = (uint32_t)l->of->prefix.n;
    if (e->key.n < prefix)
        return 0;
    l->progress = true;
    l->after.n = 0;
    int r = buf_append(&l->after, e->key.p, e->key.n);
    return r < 0 ? r : import_names_add(&l->names, (struct text){e->key.p + prefix, e->key.n - prefix}, e, &out);
}

/* The last batch, empty or not, says that there are no more names. */
static int listing_last(struct listing *l)
{
    const struct import_names_out out = {l, listing_name, listing_skipped};
    int r = import_names_end(&l->names, &out);
    if (r == 0)
        r = listing_batch(l);
    if (r < 0)
        return r;
    l->filling->complete = true;
    listing_seal(l);
    return 0;
}

static void listing_page_done(struct ufs_op *op)
{
    struct listing *l = container_of(op, struct listing, op);
    struct import_directory *d = l->of;
    bool again = op->result < 0 && op->result != -ECANCELED && op->result != -ENOMEM && l->progress;
    int r = again ? 0 : import_said(op->result);
    l->asking = false;
    l->more = again || (r == 0 && op->more);
    master_ufs_note(d->import->ufs, d->mount, r, op->message);
    if (r == 0 && !l->more)
        r = listing_last(l);
    if (r < 0 || l->failed)
        return import_listing_fail(l, r);
    listing_pump(l);
}

static int listing_ask(struct listing *l)
{
    struct import_directory *d = l->of;
    struct ufs *u;
    int r = master_ufs_of(d->import->ufs, d->mount, &u);
    if (r < 0)
        return r;
    l->asking = true;
    l->more = l->progress = false;
    l->op.deadline_ns = clock_ns() + LIST_NS;
    ufs_list(u, &l->op, import_prefix_of(d), (struct text){(const char *)l->after.p, (uint32_t)l->after.n}, PAGE_KEYS,
             false, listing_each, listing_page_done);
    return 0;
}

/* Whatever may begin now. */
static void listing_pump(struct listing *l)
{
    struct list *e;
    if (l->more && !l->asking && l->ready_names <= READY_LOW) {
        int r = listing_ask(l);
        if (r < 0)
            return import_listing_fail(l, r);
    }
    if (l->importing || loop_timer_running(&l->pause) || !(e = list_pop_front(&l->ready)))
        return;
    l->importing = true;
    import_batch_give(list_entry(e, struct master_import_batch, link));
}

static void pause_fired(struct loop_timer *timer)
{
    listing_pump(container_of(timer, struct listing, pause));
}

void import_listing_imported(struct listing *l, const struct master_import_batch *b, int error)
{
    uint64_t now = clock_ns();
    l->importing = false;
    l->ready_names -= b->count;
    if (error < 0 || l->failed)
        return import_listing_fail(l, error);
    if (b->complete)
        return listing_end(l);
    loop_timer_start(l->of->import->loop, &l->pause, now + min(now - b->began_ns, PAUSE_MAX_NS));
    if (l->more)
        listing_pump(l); /* the next page need not wait */
}

int import_listing_start(struct import_directory *d)
{
    struct master_import *m = d->import;
    struct listing *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->of = d;
    l->more = true;
    list_init(&l->ready);
    import_names_init(&l->names);
    loop_timer_init(&l->pause, pause_fired);
    d->listing = l;
    list_push_back(&m->queued, &l->link);
    atomic_fetch_add(&m->active, 1);
    atomic_fetch_add(&m->listings, 1);
    return 0;
}
