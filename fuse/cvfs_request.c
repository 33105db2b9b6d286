/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request: its slot is taken, it is handed to the library as often as its operation has steps, and given back when nobody
 * refers to it any more. The pool is the channel's.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/error.h"
#include "fuse/cvfs_internal.h"

struct cvfs_request *cvfs_request_take(struct cvfs *fs)
{
    struct cvfs_channel *c = &fs->channel;
    struct cvfs_request *r = NULL;
    pthread_mutex_lock(&c->lock);
    while (c->idle_count == 0 && !atomic_load(&c->stopping))
        pthread_cond_wait(&c->freed, &c->lock);
    if (!atomic_load(&c->stopping)) {
        r = &c->requests[c->idle[--c->idle_count]];
        c->warm_idle -= r->warm;
    }
    pthread_mutex_unlock(&c->lock);
    if (r) {
        r->op = NULL;
        r->handle = NULL;
        r->scratch = 0;
        r->as_root = false;
        atomic_store_explicit(&r->cancellable, false, memory_order_relaxed);
        atomic_store_explicit(&r->interrupted, 0, memory_order_relaxed);
        atomic_store_explicit(&r->refs, 1, memory_order_release);
    }
    return r;
}

static void give_back(struct cvfs_request *r)
{
    struct cvfs_channel *c = &r->fs->channel;
    bool cool = false;
    if (r->warm) {
        pthread_mutex_lock(&c->lock);
        cool = c->warm_idle >= CVFS_WARM_MAX;
        pthread_mutex_unlock(&c->lock);
    }
    if (cool && madvise(r->slot, c->slot_bytes, MADV_REMOVE) == 0)
        r->warm = false;
    pthread_mutex_lock(&c->lock);
    c->idle[c->idle_count++] = (uint32_t)(r - c->requests);
    c->warm_idle += r->warm;
    pthread_cond_signal(&c->freed);
    pthread_mutex_unlock(&c->lock);
}

void cvfs_request_unref(struct cvfs_request *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        give_back(r);
}

bool cvfs_request_ref_unique(struct cvfs_request *r, uint64_t unique)
{
    uint32_t refs = atomic_load(&r->refs);
    do
        if (refs == 0)
            return false;
    while (!atomic_compare_exchange_weak(&r->refs, &refs, refs + 1));
    if (atomic_load(&r->unique) == unique)
        return true;
    cvfs_request_unref(r);
    return false;
}

static void on_done(struct curvine_request *q)
{
    struct cvfs_request *r = q->user;
    r->then(r);
}

static void fill_caller(struct cvfs_request *r)
{
    const struct fuse_in_header *in = r->in;
    r->caller = (struct curvine_caller){.uid = in->uid, .gid = in->gid, .pid = in->pid, .groups = r->groups};
    if (r->as_root)
        r->caller.uid = r->caller.gid = 0;
    else if (in->uid != 0) /* root needs no groups */
        r->caller.group_count = cvfs_groups_of(&r->fs->groups, in->pid, in->uid, in->gid, r->groups);
}

void cvfs_submit(struct cvfs_request *r, void (*then)(struct cvfs_request *r))
{
    struct cvfs *fs = r->fs;
    uint64_t spent_ms = (clock_ns() - r->start_ns) / NS_PER_MS, deadline_ms = fs->options->deadline_ms;
    bool first = !r->q.done;
    if (first)
        fill_caller(r);
    r->q.caller = &r->caller;
    r->q.timeout_ms = (uint32_t)(spent_ms < deadline_ms ? deadline_ms - spent_ms : 1);
    r->q.done = on_done;
    r->q.user = r;
    r->then = then;
    curvine_submit(fs->client, &r->q);
    /* It may have been answered meanwhile: whoever dispatches still holds a reference, so this is no other request yet.
     * Later steps are submitted by the library's thread, when cancelling is allowed already. */
    if (first)
        atomic_store(&r->cancellable, true);
}
