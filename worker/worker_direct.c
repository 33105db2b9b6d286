/* SPDX-License-Identifier: Apache-2.0 */
/* A range for one asker, into its memory: what cannot be kept is served all the same. */
#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "worker/worker_flight.h"

struct direct {
    struct list link;
    struct worker_fill *fill;
    struct fill_wait *wait;
    struct origin_wait origin_wait;
    struct mount_wait mount_wait;
    struct origin origin; /* key is ours */
    struct ufs_op op;
    uint32_t got;
};

static void direct_end(struct direct *d, int result)
{
    struct worker_fill *f = d->fill;
    f->directs_active--;
    fill_wait_end(d->wait, result);
    free(d->origin.key);
    free(d);
    fill_start_some(f);
    fill_stopped_when_quiet(f);
}

static int on_piece(struct ufs_op *op, const void *p, size_t n)
{
    struct direct *d = container_of(op, struct direct, op);
    if (n > d->wait->n - d->got)
        return -CV_STALE_IDENTITY;
    memcpy(d->wait->into + d->got, p, n);
    d->got += (uint32_t)n;
    WORKER_COUNT(d->fill->o.metrics, direct_bytes, n);
    return 0;
}

static void got(struct ufs_op *op)
{
    struct direct *d = container_of(op, struct direct, op);
    int e = op->result == 0 && d->got != d->wait->n ? -CV_STALE_IDENTITY : op->result;
    if (e == -CV_STALE_IDENTITY || e == -ENOENT) {
        if (!d->fill->stopping)
            worker_origins_changed(d->fill->origins, d->origin.inode, d->origin.version);
        e = -CV_STALE_IDENTITY;
    }
    if (e < 0)
        log_warn(e, "inode %llu, '%s': %s", (unsigned long long)d->origin.inode, d->origin.key, op->message);
    d->wait->fetched = d->got;
    direct_end(d, e == -ECANCELED ? -CV_UFS_FAILED : e);
}

static void with_ufs(struct mount_wait *w, int result, struct ufs *u, bool early)
{
    struct direct *d = container_of(w, struct direct, mount_wait);
    const struct rec_block *b = &d->wait->block;
    if (result < 0) {
        direct_end(d, result);
        return;
    }
    d->op = (struct ufs_op){.deadline_ns = d->wait->deadline_ns == UINT64_MAX ? 0 : d->wait->deadline_ns};
    ufs_get(u, &d->op, text_of(d->origin.key), &d->origin.identity,
            (uint64_t)b->index * b->block_bytes + d->wait->offset, d->wait->n, on_piece, got);
}

static void with_origin(struct origin_wait *w, int result, const struct origin *o)
{
    struct direct *d = container_of(w, struct direct, origin_wait);
    if (result == 0) {
        d->origin = *o;
        d->origin.key = strdup(o->key);
        result = d->origin.key ? 0 : -ENOMEM;
    }
    if (result < 0) {
        direct_end(d, result);
        return;
    }
    d->mount_wait.done = with_ufs;
    worker_mounts_get(d->fill->mounts, d->origin.mount, &d->mount_wait);
}

int direct_new(struct worker_fill *f, struct fill_wait *w)
{
    struct direct *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->fill = f;
    d->wait = w;
    d->origin_wait.done = with_origin;
    list_push_back(&f->directs, &d->link);
    return 0;
}

void direct_start(struct worker_fill *f)
{
    struct direct *d = list_entry(list_pop_front(&f->directs), struct direct, link);
    f->directs_active++;
    if (f->stopping)
        direct_end(d, -CV_STOPPING);
    else if (d->wait->n == 0)
        direct_end(d, 0);
    else
        worker_origins_get(f->origins, d->wait->block.inode, d->wait->block.base_version, d->wait->deadline_ns,
                           &d->origin_wait);
}
