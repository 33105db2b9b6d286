/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read-ahead. A file remembers where a sequential reader began and would go on. Each read there doubles the window, up to
 * four times what was read in sequence so far and at most 128 MiB of a worker on this host (which keeps it on its disk),
 * 32 MiB of another (which we keep in memory, within memory_bytes); any other read closes it: then nothing is fetched but
 * what is asked for.
 *
 *      began      next                  ahead
 *        | was read | readable, on its way |   not asked for yet
 *                   |<------- window ---------->|
 *
 * Of this host, what lies between ahead and the end of the window is asked for by block_fill with BLOCK_AHEAD. Each call
 * becomes one range of the under file system, of a sixteenth of the window and 1 to 8 MiB: so a reader has up to 16 ranges on
 * their way from its first MiB on (one connection of an object store is slow), and large ones when it goes on; it meets the
 * chunks of a range as they come in. The window is filled up a range at a time.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "client/client_file.h"

#define AHEAD_FIRST  (512u << 10)
#define AHEAD_LOCAL  (128u << 20)
#define AHEAD_REMOTE (32u << 20)
#define AHEAD_RATIO  4
#define RANGES       16 /* of a window */
#define RANGE_MAX    (8u << 20)
#define ASK_CALLS    16 /* of one block */
#define FILL_MS      30000
#define OPEN_MS      5000

/* ---- the pattern: any thread --------------------------------------------------------------------------------------------- */

static uint64_t get(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static void set(_Atomic uint64_t *p, uint64_t value)
{
    atomic_store_explicit(p, value, memory_order_relaxed);
}

static uint64_t range_bytes(uint64_t window)
{
    return min(max(window / RANGES, (uint64_t)CLIENT_FILL_BYTES), (uint64_t)RANGE_MAX);
}

/* Several threads may read one file: then the pattern is a guess, and any guess is fine. */
bool client_ahead_note(struct curvine_file *f, uint64_t offset, uint64_t end)
{
    uint64_t next = get(&f->next), window = get(&f->window), began = get(&f->began);
    bool sequential = offset == next || (window && offset < next + window && offset + window > next);
    if (!sequential) {
        set(&f->began, offset);
        set(&f->next, end);
        set(&f->ahead, end);
        set(&f->window, 0);
        return false;
    }
    next = max(end, next);
    uint64_t read = next > began ? next - began : 0;
    uint64_t most = min(max(read * AHEAD_RATIO, (uint64_t)AHEAD_FIRST), (uint64_t)AHEAD_LOCAL);
    window = min(max(window * 2, (uint64_t)AHEAD_FIRST), most);
    set(&f->next, next);
    set(&f->window, window);
    uint64_t ahead = get(&f->ahead);
    return ahead < f->inode->size && end + window >= ahead + range_bytes(window);
}

void client_ahead_post(struct curvine_file *f)
{
    if (!atomic_exchange(&f->ahead_posted, true))
        loop_post(f->cv->loop, &f->ahead_job);
}

/* ---- blocks of this host --------------------------------------------------------------------------------------------------- */

struct ahead_call {
    struct rpc_call rpc;
    struct client_block *block;
    struct client_worker *worker;
    uint64_t chunks, version, epoch;
};

static void call_end(struct ahead_call *a)
{
    struct client_block *b = a->block;
    b->ahead_chunks &= ~a->chunks;
    b->ahead_calls--;
    free(a);
    client_inode_put(b->inode);
}

/* Is what we have open of the block still what its layout says? */
static bool is_current(const struct client_block *b)
{
    const struct client_extent *e = client_extent_find(b->inode, b->index);
    if (!b->open || !b->map)
        return false;
    return e ? e->version == b->version && e->epoch == b->epoch : b->inode->base_version == b->version && b->epoch == 0;
}

static void on_opened(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct ahead_call *a = container_of(call, struct ahead_call, rpc);
    struct client_block *b = a->block;
    a->worker->opens--;
    if (result == 0 && !b->busy && is_current(b) && b->version == a->version && b->epoch == a->epoch)
        (void)client_block_opened(b, b->version, b->epoch, a->worker, f);
    call_end(a);
}

/* A block that a reader has open already is looked at again, so that it reads on without asking. */
static void on_filled(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct ahead_call *a = container_of(call, struct ahead_call, rpc);
    struct client_block *b = a->block;
    struct rpc_client *conn = result == 0 ? client_worker_conn(a->worker, true) : NULL;
    if (!conn || b->busy || !is_current(b) || b->version != a->version || b->epoch != a->epoch) {
        call_end(a); /* who opens it next sees what is there */
        return;
    }
    struct msg_block_open m = {.have = b->map->backing->file};
    client_block_desc(b->inode, b->index, &m.block);
    a->worker->opens++;
    a->rpc.done = on_opened;
    rpc_client_call(conn, &a->rpc, MSG_block_open, msg_block_open_desc(), &m, clock_ns() + OPEN_MS * NS_PER_MS);
}

static uint64_t chunk_bits(uint32_t first, uint32_t count)
{
    return (count >= 64 ? ~0ull : (1ull << count) - 1) << first;
}

/* Ask for chunks of a block. Returns false: not now. */
static bool ask(struct client_inode *in, struct client_worker *w, uint32_t index, uint32_t first, uint32_t count)
{
    struct client_block *b = client_block_get(in, index);
    struct rpc_client *conn = b ? client_worker_conn(w, true) : NULL;
    if (!conn)
        return false;
    uint64_t there = b->ahead_chunks | (is_current(b) ? b->readable : 0), chunks = chunk_bits(first, count);
    if (!(chunks & ~there))
        return true;
    struct ahead_call *a = b->ahead_calls < ASK_CALLS ? calloc(1, sizeof(*a)) : NULL;
    if (!a)
        return false;
    *a = (struct ahead_call){.block = b, .worker = w, .chunks = chunks & ~there};
    uint32_t from = (uint32_t)__builtin_ctzll(a->chunks), to = 64 - (uint32_t)__builtin_clzll(a->chunks);
    struct msg_block_fill m = {.first = from, .count = to - from, .flags = BLOCK_AHEAD};
    client_block_desc(in, index, &m.block);
    a->version = m.block.version;
    a->epoch = m.block.epoch;
    b->ahead_chunks |= a->chunks;
    b->ahead_calls++;
    a->rpc.done = on_filled;
    rpc_client_call(conn, &a->rpc, MSG_block_fill, msg_block_fill_desc(), &m, clock_ns() + FILL_MS * NS_PER_MS);
    return true;
}

/* ---- the window, on the loop ----------------------------------------------------------------------------------------------- */

/* Of this host: the next range. Returns how far it got, 0: no further now. */
static uint64_t ahead_here(struct client_inode *in, struct client_worker *w, const struct client_seg *s, uint64_t n)
{
    uint32_t first = s->offset / CLIENT_FILL_BYTES, last = (s->offset + (uint32_t)n - 1) / CLIENT_FILL_BYTES;
    return ask(in, w, s->block, first, last - first + 1)
               ? min((uint64_t)(last + 1) * CLIENT_FILL_BYTES - s->offset, (uint64_t)s->n)
               : 0;
}

/* Of another: into memory. */
static uint64_t ahead_there(struct client_inode *in, const struct client_seg *s)
{
    uint64_t deadline_ns = clock_ns() + in->cv->options.timeout_ms * NS_PER_MS;
    const struct client_chunk *c = client_chunk_get(in, s->block, s->offset, deadline_ns);
    return c ? min(s->n, c->offset + c->n - s->offset) : 0;
}

void client_ahead_run(struct curvine_file *f, uint64_t from)
{
    struct client_inode *in = f->inode;
    uint64_t window = get(&f->window), range = range_bytes(window), size = in->size, end = min(from + window, size);
    for (uint64_t at = max(from, get(&f->ahead)); at < end && client_map_ready(in->cv);) {
        if (in->next_known && (at >> in->shift) >= in->known_end)
            return;
        struct client_seg s = client_plan(in, at, min(range, size - at));
        uint64_t n = s.n;
        if (s.kind == SEG_MISS) {
            struct client_worker *w = client_block_local(in, s.block);
            if (w ? at + n > end && end < size : at >= from + AHEAD_REMOTE)
                return; /* a whole range at a time */
            n = w ? ahead_here(in, w, &s, n) : ahead_there(in, &s);
        }
        if (n == 0)
            return;
        at += n;
        set(&f->ahead, at);
    }
}

void client_ahead_job(struct loop_job *job)
{
    struct curvine_file *f = container_of(job, struct curvine_file, ahead_job);
    f->ahead_posted = false;
    if (f->cv->state != CLIENT_CLOSING)
        client_ahead_run(f, f->next);
}
