/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory somebody waits for is a struct import_directory, found by its inode. It has the look-ups of single names
 * that run, and at most one listing:
 *
 *      page asked for --entries--> batch being filled --full--> ready --one at a time--> sink --done--> next
 *            ^                                                    |
 *            '--------- few are ready, and there is more ---------'
 *
 * Directories nobody waits for are kept a while for their counters, so that a walk over many names becomes a listing.
 */
#include "meta/master_import.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "meta/master_import_names.h"
#include "ufs/ufs_escape.h"

#define BUCKETS      4096u
#define IDLE_MAX     1024u           /* directories kept for their counters */
#define LOOKS_MAX    8u              /* single names of one directory within a second; then it is listed */
#define WAITING_MAX  65536u          /* requests */
#define LISTINGS_MAX 4u              /* at once; others wait their turn */
#define PAGE_KEYS    20000u          /* asked for at a time */
#define READY_LOW    (PAGE_KEYS / 2) /* names not imported yet, below which the next page is asked for */
#define PAUSE_MAX_NS (50 * NS_PER_MS)
#define TICK_NS      (50 * NS_PER_MS)
#define LIST_NS      (15 * NS_PER_S) /* without a new name; a page that brought some is asked for again */
#define LOOK_NS      (10 * NS_PER_S) /* shorter than people wait: they shall hear why */

struct listing {
    struct import_directory *of;
    struct list link; /* queued, until it may begin */
    struct ufs_op op;
    bool begun, asking, more, importing; /* importing: a batch is with the sink */
    bool progress;                       /* this page has brought something */
    bool failed;
    int error;
    struct buf after; /* last key seen */
    struct import_names names;
    struct master_import_batch *filling;
    struct list ready;    /* master_import_batch.link */
    uint32_t ready_names; /* in ready and filling */
    struct loop_timer pause;
};

struct import_look {
    struct import_directory *of;
    struct list link, waits;
    struct ufs_op op;
    struct buf name, key; /* key: below the mount's URI */
    bool asking, beside;  /* beside: there is a directory of that name too */
    bool other;           /* what was found has another name */
    struct ufs_entry found;
};

struct import_directory {
    struct master_import *import;
    struct list link, idle; /* bucket; idle */
    uint64_t inode;
    bool placing, placed; /* placed: mount and prefix are known */
    struct master_import_place place;
    uint32_t mount;
    struct buf prefix;
    struct list parked; /* those who wait for that */
    struct list looks;
    struct list waits; /* for the listing */
    struct listing *listing;
    uint64_t window_ns; /* when counting began */
    uint32_t window_looks;
};

struct master_import {
    struct master_ufs *ufs;
    struct loop *loop;
    struct master_import_sink sink;
    struct list buckets[BUCKETS];
    struct list idle;             /* the longest idle first */
    struct list queued;           /* listings */
    struct list waits;            /* all */
    uint32_t idle_count, running; /* listings begun */
    struct loop_timer tick;
    _Atomic bool stopping;
    _Atomic uint32_t active; /* looks and listings */
    _Atomic uint64_t looks, listings, listings_failed, names, names_skipped, waiting;
};

static void tick_fired(struct loop_timer *timer);

int master_import_new(struct master_ufs *ufs, const struct master_import_sink *sink, struct master_import **ret)
{
    struct master_import *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->ufs = ufs;
    m->loop = master_ufs_loop(ufs);
    m->sink = *sink;
    for (uint32_t i = 0; i < BUCKETS; i++)
        list_init(&m->buckets[i]);
    list_init(&m->idle);
    list_init(&m->queued);
    list_init(&m->waits);
    loop_timer_init(&m->tick, tick_fired);
    *ret = m;
    return 0;
}

static void directory_free(struct import_directory *d)
{
    list_remove(&d->link);
    list_remove(&d->idle);
    buf_fini(&d->prefix);
    free(d);
}

struct master_import *master_import_free(struct master_import *m)
{
    if (!m)
        return NULL;
    assert(m->active == 0 && m->waiting == 0);
    for (struct list *e; (e = list_pop_front(&m->idle));)
        directory_free(list_entry(e, struct import_directory, idle));
    free(m);
    return NULL;
}

/* ---- those who wait ----------------------------------------------------------------------------------------------------- */

static void wait_end(struct master_import_wait *w, int result)
{
    struct master_import *m = w->import;
    list_remove(&w->link);
    list_remove(&w->all);
    w->result = result;
    struct loop *loop = w->loop;
    loop_post(loop, &w->job);
    atomic_fetch_sub(&m->waiting, 1);
}

static void waits_end(struct list *waits, int result)
{
    while (!list_empty(waits))
        wait_end(list_entry(waits->next, struct master_import_wait, link), result);
}

/* What an under file system says, as those who wait see it: that it cannot be reached, or lets us in no more, is not said
 * of the master. */
static int said(int result)
{
    if (result >= 0 || result == -ENOENT || result == -ECANCELED || result == -ENOMEM)
        return result;
    return result == -ENOTDIR ? -ENOENT : -CV_UFS_FAILED;
}

/* Cancelled: we stop, or the mount is gone: then the namespace knows best. */
static int result_of(const struct master_import *m, int result)
{
    return result != -ECANCELED ? result : m->stopping ? -CV_STOPPING : 0;
}

/* ---- directories ---------------------------------------------------------------------------------------------------------- */

static struct list *bucket_of(struct master_import *m, uint64_t inode)
{
    return &m->buckets[hash_u64(inode) % BUCKETS];
}

static struct import_directory *find(struct master_import *m, uint64_t inode)
{
    list_for_each (e, bucket_of(m, inode)) {
        struct import_directory *d = list_entry(e, struct import_directory, link);
        if (d->inode == inode)
            return d;
    }
    return NULL;
}

static struct import_directory *find_or_add(struct master_import *m, uint64_t inode)
{
    struct import_directory *d = find(m, inode);
    if (d) {
        if (!list_empty(&d->idle))
            m->idle_count--;
        list_remove(&d->idle);
        return d;
    }
    d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->import = m;
    d->inode = inode;
    list_init(&d->idle);
    list_init(&d->parked);
    list_init(&d->looks);
    list_init(&d->waits);
    list_push_back(bucket_of(m, d->inode), &d->link);
    return d;
}

/* It may have nothing to do now. */
static void directory_idle(struct import_directory *d)
{
    struct master_import *m = d->import;
    if (d->listing || d->placing || !list_empty(&d->looks) || !list_empty(&d->idle))
        return;
    assert(list_empty(&d->waits) && list_empty(&d->parked));
    list_push_back(&m->idle, &d->idle);
    if (++m->idle_count <= IDLE_MAX || m->stopping)
        return;
    m->idle_count--;
    directory_free(list_entry(m->idle.next, struct import_directory, idle));
}

static struct text prefix_of(const struct import_directory *d)
{
    return (struct text){(const char *)d->prefix.p, (uint32_t)d->prefix.n};
}

/* ---- batches ---------------------------------------------------------------------------------------------------------------- */

static struct master_import_batch *batch_new(struct import_directory *d, uint32_t room)
{
    struct master_import_batch *b = malloc(sizeof(*b) + room * sizeof(b->names[0]));
    if (b)
        *b = (struct master_import_batch){.directory = d->inode, .of = d, .room = room};
    return b;
}

static void batch_free(struct master_import_batch *b)
{
    if (!b)
        return;
    buf_fini(&b->texts);
    free(b);
}

static int batch_add(struct master_import_batch *b, struct text name, struct text key, const struct ufs_entry *e)
{
    if (text_equal(name, key))
        key.n = 0;
    else if (key.n == 0)
        key = TEXT("/");
    int r = buf_reserve(&b->texts, name.n + key.n);
    if (r < 0)
        return r;
    buf_append(&b->texts, name.p, name.n);
    if (key.n)
        buf_append(&b->texts, key.p, key.n);
    b->names[b->count++] = (struct master_import_name){.name.n = name.n,
                                                       .key.n = key.n,
                                                       .type = e->type,
                                                       .identity = e->identity,
                                                       .mode = e->mode,
                                                       .uid = e->uid,
                                                       .gid = e->gid};
    return 0;
}

/* Nothing is added any more: names find their texts. */
static void batch_seal(struct master_import_batch *b)
{
    const char *p = (const char *)b->texts.p;
    for (uint32_t i = 0; i < b->count; i++) {
        b->names[i].name.p = p;
        b->names[i].key.p = p += b->names[i].name.n;
        p += b->names[i].key.n;
    }
}

static void batch_give(struct master_import_batch *b)
{
    struct master_import *m = b->of->import;
    b->began_ns = clock_ns();
    atomic_fetch_add(&m->names, b->count);
    m->sink.import(m->sink.arg, b);
}

static void listing_imported(struct listing *l, const struct master_import_batch *b, int error);
static void look_imported(struct import_look *k, int error);

void master_import_done(struct master_import_batch *b, int error)
{
    assert_on_loop(b->of->import->loop);
    if (b->look)
        look_imported(b->look, error);
    else
        listing_imported(b->of->listing, b, error);
    batch_free(b);
}

/* ---- listings --------------------------------------------------------------------------------------------------------------- */

static void listing_pump(struct listing *l);

static void listing_free(struct listing *l)
{
    import_names_fini(&l->names);
    batch_free(l->filling);
    for (struct list *e; (e = list_pop_front(&l->ready));)
        batch_free(list_entry(e, struct master_import_batch, link));
    buf_fini(&l->after);
    free(l);
}

static void begin_next(struct master_import *m)
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
    waits_end(&d->waits, result_of(m, error));
    directory_idle(d);
    begin_next(m);
    atomic_fetch_sub(&m->active, 1);
}

static void listing_fail(struct listing *l, int error)
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
    batch_seal(l->filling);
    list_push_back(&l->ready, &l->filling->link);
    l->filling = NULL;
}

static int listing_batch(struct listing *l)
{
    if (l->filling && l->filling->count == l->filling->room)
        listing_seal(l);
    if (!l->filling)
        l->filling = batch_new(l->of, IMPORT_NAMES);
    return l->filling ? 0 : -ENOMEM;
}

static int listing_name(void *arg, struct text name, struct text component, const struct ufs_entry *e)
{
    struct listing *l = arg;
    int r = listing_batch(l);
    if (r == 0)
        r = batch_add(l->filling, name, component, e);
    l->ready_names += r == 0;
    return r;
}

static void listing_skipped(void *arg, struct text component)
{
    struct listing *l = arg;
    uint64_t before = atomic_fetch_add(&l->of->import->names_skipped, 1);
    if (before < 10)
        log_warn(0, "mount %u: '" TEXT_FMT TEXT_FMT "' cannot be a name here, left out", l->of->mount,
                 TEXT_ARG(prefix_of(l->of)), TEXT_ARG(component));
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
    int r = again ? 0 : said(op->result);
    l->asking = false;
    l->more = again || (r == 0 && op->more);
    master_ufs_note(d->import->ufs, d->mount, r, op->message);
    if (r == 0 && !l->more)
        r = listing_last(l);
    if (r < 0 || l->failed)
        return listing_fail(l, r);
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
    ufs_list(u, &l->op, prefix_of(d), (struct text){(const char *)l->after.p, (uint32_t)l->after.n}, PAGE_KEYS, false,
             listing_each, listing_page_done);
    return 0;
}

/* Whatever may begin now. */
static void listing_pump(struct listing *l)
{
    struct list *e;
    if (l->more && !l->asking && l->ready_names <= READY_LOW) {
        int r = listing_ask(l);
        if (r < 0)
            return listing_fail(l, r);
    }
    if (l->importing || loop_timer_running(&l->pause) || !(e = list_pop_front(&l->ready)))
        return;
    l->importing = true;
    batch_give(list_entry(e, struct master_import_batch, link));
}

static void pause_fired(struct loop_timer *timer)
{
    listing_pump(container_of(timer, struct listing, pause));
}

static void listing_imported(struct listing *l, const struct master_import_batch *b, int error)
{
    uint64_t now = clock_ns();
    l->importing = false;
    l->ready_names -= b->count;
    if (error < 0 || l->failed)
        return listing_fail(l, error);
    if (b->complete)
        return listing_end(l);
    loop_timer_start(l->of->import->loop, &l->pause, now + min(now - b->began_ns, PAUSE_MAX_NS));
    if (l->more)
        listing_pump(l); /* the next page need not wait */
}

static int listing_start(struct import_directory *d)
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

/* ---- single names ------------------------------------------------------------------------------------------------------------ */

static void look_end(struct import_look *k, int result)
{
    struct import_directory *d = k->of;
    struct master_import *m = d->import;
    waits_end(&k->waits, result_of(m, result));
    list_remove(&k->link);
    buf_fini(&k->name);
    buf_fini(&k->key);
    free(k);
    directory_idle(d);
    atomic_fetch_sub(&m->active, 1);
}

static void look_imported(struct import_look *k, int error)
{
    look_end(k, error == 0 && k->other ? -ENOENT : error);
}

static int look_add(struct master_import_batch *b, struct text component, bool beside, const struct ufs_entry *e)
{
    struct buf name = {0};
    int r = import_name_of(component, beside, &name);
    if (r == 0)
        r = batch_add(b, (struct text){(const char *)name.p, (uint32_t)name.n}, component, e);
    buf_fini(&name);
    return r == -ENOTSUP ? -ENOENT : r;
}

/* What was found becomes one name, or two when object and directory share one. */
static int look_import(struct import_look *k)
{
    static const struct ufs_entry directory = {.type = UFS_DIRECTORY};
    uint32_t prefix = (uint32_t)k->of->prefix.n;
    struct text component = {(const char *)k->key.p + prefix, (uint32_t)k->key.n - prefix};
    struct master_import_batch *b = batch_new(k->of, 2);
    if (!b)
        return -ENOMEM;
    b->look = k;
    int r = look_add(b, component, k->beside, &k->found);
    if (r == 0 && k->beside)
        r = look_add(b, component, false, &directory);
    if (r < 0) {
        batch_free(b);
        return r;
    }
    const struct text wanted = {(const char *)k->name.p, (uint32_t)k->name.n};
    k->other = true;
    batch_seal(b);
    for (uint32_t i = 0; i < b->count; i++)
        k->other &= !text_equal(b->names[i].name, wanted);
    batch_give(b);
    return 0;
}

static void look_go_on(struct import_look *k, int r)
{
    if (r == 0)
        r = k->found.type == UFS_SYMLINK ? -ENOENT : look_import(k);
    if (r < 0)
        look_end(k, r);
}

static int look_any(struct ufs_op *op, const struct ufs_entry *e)
{
    container_of(op, struct import_look, op)->beside = true;
    return 0;
}

static void look_listed(struct ufs_op *op)
{
    struct import_look *k = container_of(op, struct import_look, op);
    int r = said(op->result);
    k->asking = false;
    if (r == 0 && k->key.n == 0) { /* of a directory without a name, its directory was not asked for */
        r = k->beside ? 0 : -ENOENT;
        k->found.type = UFS_DIRECTORY;
        k->beside = false;
    }
    look_go_on(k, r);
}

/* Of an object store: may there be objects below what is an object? */
static int look_for_directory(struct import_look *k)
{
    struct ufs *u;
    int r = buf_append(&k->key, "/", 1);
    if (r == 0)
        r = master_ufs_of(k->of->import->ufs, k->of->mount, &u);
    if (r < 0)
        return r;
    k->asking = true;
    ufs_list(u, &k->op, (struct text){(const char *)k->key.p, (uint32_t)k->key.n}, (struct text){0}, 1, false, look_any,
             look_listed);
    k->key.n--; /* the call has made its own copy */
    return 0;
}

static void look_statted(struct ufs_op *op)
{
    struct import_look *k = container_of(op, struct import_look, op);
    struct import_directory *d = k->of;
    k->asking = false;
    master_ufs_note(d->import->ufs, d->mount, op->result, op->message);
    k->found = op->entry;
    int r = said(op->result);
    if (r == 0 && op->entry.type == UFS_FILE && op->entry.mode == 0)
        r = look_for_directory(k);
    if (!k->asking)
        look_go_on(k, r);
}

/* The key a name stands for, behind the prefix. Errors: -ENOENT: there can be none. */
static int look_key(struct import_look *k)
{
    const struct text name = {(const char *)k->name.p, (uint32_t)k->name.n};
    int r = buf_append(&k->key, k->of->prefix.p, k->of->prefix.n);
    if (r == 0)
        r = ufs_path_to_key(name, &k->key);
    return r == -EINVAL ? -ENOENT : r;
}

static int look_ask(struct import_look *k)
{
    struct import_directory *d = k->of;
    struct ufs *u = NULL;
    int r = look_key(k);
    k->op.deadline_ns = clock_ns() + LOOK_NS;
    if (r == 0 && k->key.n == 0)
        return look_for_directory(k); /* nothing has no name at all, but "/x" may be there */
    if (r == 0)
        r = master_ufs_of(d->import->ufs, d->mount, &u);
    if (r < 0)
        return r;
    k->asking = true;
    ufs_stat(u, &k->op, (struct text){(const char *)k->key.p, (uint32_t)k->key.n}, look_statted);
    return 0;
}

static struct import_look *look_find(struct import_directory *d, struct text name)
{
    list_for_each (e, &d->looks) {
        struct import_look *k = list_entry(e, struct import_look, link);
        if (text_equal((struct text){(const char *)k->name.p, (uint32_t)k->name.n}, name))
            return k;
    }
    return NULL;
}

/* Let w wait for its name alone. */
static void look_for(struct import_directory *d, struct master_import_wait *w)
{
    struct master_import *m = d->import;
    struct import_look *k = look_find(d, w->name);
    if (k) {
        list_push_back(&k->waits, &w->link);
        return;
    }
    k = calloc(1, sizeof(*k));
    if (!k || buf_append(&k->name, w->name.p, w->name.n) < 0) {
        free(k);
        wait_end(w, -ENOMEM);
        return directory_idle(d);
    }
    k->of = d;
    list_init(&k->waits);
    list_push_back(&k->waits, &w->link);
    list_push_back(&d->looks, &k->link);
    atomic_fetch_add(&m->active, 1);
    atomic_fetch_add(&m->looks, 1);
    int r = look_ask(k);
    if (r < 0)
        look_end(k, r);
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
        return look_for(d, w);
    int r = d->listing ? 0 : listing_start(d);
    if (r < 0) {
        wait_end(w, r);
        return directory_idle(d);
    }
    w->of_listing = true;
    list_push_back(&d->waits, &w->link);
    begin_next(d->import);
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
        waits_end(&parked, error == -ENODATA ? -ENOENT : error == -ENOENT ? 0 : error);
    for (struct list *e; (e = list_pop_front(&parked));)
        admit(d, list_entry(e, struct master_import_wait, link), clock_ns());
    d->placing = false;
    directory_idle(d);
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
        return wait_end(w, r);
    if (atomic_load(&m->waiting) > WAITING_MAX)
        return wait_end(w, -CV_BUSY);
    struct import_directory *d = find_or_add(m, w->directory);
    if (!d)
        return wait_end(w, -ENOMEM);
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
            wait_end(w, r);
        } else if (w->name.n && w->of_listing && now - w->began_ns > NS_PER_S && (d = find(m, w->directory))) {
            w->of_listing = false;
            list_remove(&w->link);
            look_for(d, w);
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
        wait_end(list_entry(e, struct master_import_wait, all), -CV_STOPPING);
    for (uint32_t i = 0; i < BUCKETS; i++) {
        list_for_each_safe (e, &m->buckets[i]) {
            struct import_directory *d = list_entry(e, struct import_directory, link);
            list_for_each (k, &d->looks)
                ufs_cancel(&list_entry(k, struct import_look, link)->op);
            if (d->listing)
                listing_fail(d->listing, -ECANCELED);
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
