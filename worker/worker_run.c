/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run: begin (file thread), gets of the stretches the store does not have, sealing of chunks (file thread, beside the
 * get), end (file thread). A store that says who it is only behind the last byte (file://) has its chunks sealed only then:
 * nobody reads a mix of two objects.
 */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "worker/worker_flight.h"

static void go_on(struct run *r);

static uint64_t run_chunks(const struct run *r)
{
    return (r->count >= 64 ? ~0ull : (1ull << r->count) - 1) << r->first;
}

/* The first error counts; what has come in whole by then is kept. */
static void run_fail(struct run *r, int error)
{
    if (r->result == 0)
        r->result = error;
}

/* ---- file threads ----------------------------------------------------------------------------------------------- */

static int begin_work(void *arg)
{
    struct run *r = arg;
    const struct rec_block *b = &r->flight->block;
    struct block_key key = {.inode = b->inode, .index = b->index, .version = b->version};
    struct block_place place = {
        .block_bytes = b->block_bytes, .length = b->base_length, .file_bytes = b->file_bytes, .mount = b->mount};
    int e = block_fill_begin(r->flight->fill->o.core->store, &key, &place, r->first, r->count,
                             r->pin ? BLOCK_FILL_PINNED : 0, &r->fill, &r->mine);
    if (e == 0)
        r->bytes = block_fill_bytes(r->fill);
    return e;
}

static int seal_work(void *arg)
{
    struct run *r = arg;
    for (uint64_t left = r->ready; left; left &= left - 1) {
        uint32_t chunk = (uint32_t)__builtin_ctzll(left);
        int e = block_fill_seal(r->fill, chunk, NULL);
        if (e < 0) {
            r->ready &= (1ull << chunk) - 1; /* those before it are sealed */
            return e;
        }
    }
    return 0;
}

static int end_work(void *arg)
{
    struct run *r = arg;
    r->fill = block_fill_end(r->fill);
    return 0;
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void run_over(struct run *r)
{
    struct flight *f = r->flight;
    struct worker_fill *fill = f->fill;
    uint64_t chunks = run_chunks(r);
    if (r->result < 0) {
        WORKER_COUNT(fill->o.metrics, fill_failures, 1);
        flight_fail(f, chunks & ~r->sealed, r->result);
    }
    f->active--;
    fill->active--;
    free(r);
    flight_run_ended(f, chunks);
    fill_start_some(fill);
}

static void end_done(struct io_op *op, int result)
{
    struct run *r = container_of(op, struct run, io);
    r->working = false;
    run_over(r);
}

/* ---- sealing ---------------------------------------------------------------------------------------------------- */

static uint32_t chunk_bytes(const struct run *r, uint64_t chunks)
{
    uint32_t sum = 0;
    for (; chunks; chunks &= chunks - 1) {
        uint32_t start = (uint32_t)__builtin_ctzll(chunks) * BLOCK_CHUNK_BYTES;
        sum += start < r->bytes ? min(r->bytes - start, BLOCK_CHUNK_BYTES) : 0;
    }
    return sum;
}

static void seal_done(struct io_op *op, int result)
{
    struct run *r = container_of(op, struct run, io);
    r->working = false;
    r->sealed |= r->ready;
    flight_settle(r->flight, r->ready, chunk_bytes(r, r->ready));
    if (result < 0) {
        run_fail(r, result == -ENOSPC || result == -CV_STOPPING ? -CV_NO_SPACE : result);
        r->got = r->sealed; /* no more */
        if (r->getting)
            ufs_cancel(&r->op);
    }
    go_on(r);
}

static void seal_some(struct run *r)
{
    r->ready = r->got & ~r->sealed;
    r->working = true;
    io_work(r->flight->fill->loop, &r->io, seal_work, r, seal_done);
}

/* ---- getting ---------------------------------------------------------------------------------------------------- */

static int on_piece(struct ufs_op *op, const void *p, size_t n)
{
    struct run *r = container_of(op, struct run, op);
    struct worker_fill *f = r->flight->fill;
    if (r->result < 0)
        return r->result;
    if (n > r->until - r->at)
        return -CV_STALE_IDENTITY;
    int e = block_fill_write(r->fill, r->at, p, (uint32_t)n);
    if (e < 0)
        return e == -CV_NO_SPACE || e == -ENOSPC || e == -EIO || e == -CV_STOPPING ? -CV_NO_SPACE : e;
    uint32_t before = r->at / BLOCK_CHUNK_BYTES;
    r->at += (uint32_t)n;
    WORKER_COUNT(f->o.metrics, fill_bytes, n);
    f->o.core->filled_bytes += n;
    if (!r->flight->early)
        return 0;
    uint32_t now = r->at == r->until ? (r->at + BLOCK_CHUNK_BYTES - 1) / BLOCK_CHUNK_BYTES : r->at / BLOCK_CHUNK_BYTES;
    for (uint32_t c = before; c < now; c++)
        r->got |= 1ull << c;
    if (!r->working && r->got & ~r->sealed)
        seal_some(r);
    return 0;
}

static void got(struct ufs_op *op)
{
    struct run *r = container_of(op, struct run, op);
    struct flight *f = r->flight;
    r->getting = false;
    int e = op->result;
    if (e == 0 && r->at != r->until)
        e = -CV_STALE_IDENTITY; /* shorter than it was */
    if (e == -CV_STALE_IDENTITY || e == -ENOENT) {
        log_warn(e, "inode %llu, '%s': %s", (unsigned long long)f->block.inode, f->origin.key,
                 op->message[0] ? op->message : "the object has changed");
        WORKER_COUNT(f->fill->o.metrics, identity_changes, 1);
        if (!f->fill->stopping)
            worker_origins_changed(f->fill->origins, f->block.inode, f->origin.version);
        e = -CV_STALE_IDENTITY;
    } else if (e < 0 && e != -CV_NO_SPACE && e != -ECANCELED && r->result == 0) {
        log_warn(e, "inode %llu, '%s': %s", (unsigned long long)f->block.inode, f->origin.key, op->message);
    }
    if (e < 0)
        run_fail(r, e == -ECANCELED ? -CV_UFS_FAILED : e);
    else
        for (uint32_t c = r->first; c < r->first + r->count; c++)
            if (r->mine >> c & 1 && c * BLOCK_CHUNK_BYTES < r->until)
                r->got |= 1ull << c;
    go_on(r);
}

static void with_ufs(struct mount_wait *w, int result, struct ufs *u, bool early)
{
    struct run *r = container_of(w, struct run, mount_wait);
    struct flight *f = r->flight;
    if (result < 0) {
        r->getting = false;
        run_fail(r, result);
        go_on(r);
        return;
    }
    f->early = early;
    WORKER_COUNT(f->fill->o.metrics, fill_gets, 1);
    r->op = (struct ufs_op){.deadline_ns = r->deadline_ns};
    uint64_t from = (uint64_t)f->block.index * f->block.block_bytes + r->at;
    ufs_get(u, &r->op, text_of(f->origin.key), &f->origin.identity, from, r->until - r->at, on_piece, got);
}

/* The next stretch the store does not have. */
static void get_next(struct run *r, uint64_t left)
{
    uint32_t first = (uint32_t)__builtin_ctzll(left), n = 0;
    while (first + n < 64 && left >> (first + n) & 1)
        n++;
    r->at = first * BLOCK_CHUNK_BYTES;
    r->until = min((first + n) * BLOCK_CHUNK_BYTES, r->bytes);
    r->getting = true;
    worker_mounts_get(r->flight->fill->mounts, r->flight->origin.mount, &r->mount_wait);
}

/* ---- one step after the other ----------------------------------------------------------------------------------- */

static void go_on(struct run *r)
{
    if (r->working || r->getting)
        return;
    uint64_t left = r->mine & ~r->got;
    if (r->got & ~r->sealed) {
        seal_some(r);
    } else if (r->result == 0 && left) {
        get_next(r, left);
    } else {
        r->working = true;
        io_work(r->flight->fill->loop, &r->io, end_work, r, end_done);
    }
}

static void begun(struct io_op *op, int result)
{
    struct run *r = container_of(op, struct run, io);
    r->working = false;
    switch (result) {
    case 0:
        flight_settle(r->flight, run_chunks(r) & ~r->mine, 0); /* somebody was faster */
        r->sealed |= run_chunks(r) & ~r->mine;
        r->got |= r->sealed;
        go_on(r);
        return;
    case -EALREADY: flight_settle(r->flight, run_chunks(r), 0); break;
    case -CV_NO_SPACE:
    case -CV_BUSY:
    case -CV_STOPPING:
    case -ENOMEM:
    case -EIO: run_fail(r, -CV_NO_SPACE); break; /* served without being kept */
    case -ESTALE: run_fail(r, -CV_STALE_EPOCH); break;
    default: run_fail(r, result);
    }
    run_over(r);
}

void run_start(struct run *r)
{
    r->mount_wait.done = with_ufs;
    r->working = true;
    io_work(r->flight->fill->loop, &r->io, begin_work, r, begun);
}
