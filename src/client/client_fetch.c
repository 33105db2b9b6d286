/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content by block_read: one stretch of a block, from whoever has it, checked against its CRC32C. When a worker does not
 * answer, the next one is asked, then all of them again after a pause, until the deadline. And the cache of what was read
 * ahead: chunks of 256 KiB, the least recently used go first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "client/client_file.h"

#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 500
#define UNIT_BYTES   (1u << 16)

static void attempt(struct client_fetch *f);

static void fetch_end(struct client_fetch *f, int result)
{
    loop_timer_stop(f->cv->loop, &f->timer);
    list_remove(&f->link);
    f->done(f, result);
}

static void on_pause(struct loop_timer *timer)
{
    struct client_fetch *f = container_of(timer, struct client_fetch, timer);
    if (f->cancelled || clock_ns() >= f->deadline_ns)
        fetch_end(f, f->cancelled ? -CV_CANCELLED : f->error ? f->error : -CV_DEADLINE);
    else
        attempt(f);
}

/* Nobody could: what we know of the workers may be old. */
static void next_owner(struct client_fetch *f, int error)
{
    f->error = error;
    f->asked_again = false;
    f->hope |= client_worker_error(error);
    if (++f->at < f->owner_count) {
        attempt(f);
        return;
    }
    f->at = 0;
    client_map_refresh(f->cv);
    if (!f->hope) { /* all that have it say so */
        fetch_end(f, error);
        return;
    }
    f->hope = false;
    uint64_t pause_ms = min((uint64_t)PAUSE_MIN_MS << min(f->rounds++, 6u), (uint64_t)PAUSE_MAX_MS);
    loop_timer_start(f->cv->loop, &f->timer, min(clock_ns() + pause_ms * NS_PER_MS, f->deadline_ns));
}

/* The answer's checksums: one for all of the data, or one for each unit of the block that it touches. */
static bool checksums_match(const struct client_fetch *f, const struct msg_block_read_answer *a, const uint8_t *p)
{
    if (!(a->flags & BLOCK_CRC_UNITS))
        return crc32c(0, p, a->length) == a->crc;
    uint32_t done = 0, unit = 0;
    while (done < a->length) {
        uint32_t n = min(UNIT_BYTES - (f->offset + done) % UNIT_BYTES, a->length - done);
        if ((unit + 1) * 4 > a->crcs.n || crc32c(0, p + done, n) != get_le32(a->crcs.p + (size_t)4 * unit))
            return false;
        done += n;
        unit++;
    }
    return true;
}

static int take_data(struct client_fetch *f, const struct rpc_frame *frame)
{
    struct msg_block_read_answer a;
    int r = msg_block_read_answer_decode(frame->body, frame->header.body_len, &a);
    if (r < 0)
        return r;
    if (a.length != frame->header.data_len || a.length > f->n)
        return -CV_BAD_MESSAGE;
    if (!checksums_match(f, &a, frame->data))
        return -CV_BAD_CHECKSUM;
    memcpy(f->buffer, frame->data, a.length);
    memset(f->buffer + a.length, 0, f->n - a.length);
    return 0;
}

static void on_read(struct rpc_call *call, int result, const struct rpc_frame *frame)
{
    struct client_fetch *f = container_of(call, struct client_fetch, rpc);
    if (f->cancelled) {
        fetch_end(f, -CV_CANCELLED);
        return;
    }
    if (result == 0)
        result = take_data(f, frame);
    if (result == -CV_BAD_CHECKSUM &&
        !f->asked_again) { /* damaged on the way, or where it lies: then it is fetched anew */
        f->asked_again = true;
        f->flags |= BLOCK_VERIFY;
        attempt(f);
        return;
    }
    if (result == -CV_DATA_DAMAGED || result == -CV_BAD_CHECKSUM || result == -ENODATA || client_worker_error(result))
        next_owner(f, result);
    else
        fetch_end(f, result);
}

static void attempt(struct client_fetch *f)
{
    uint64_t now = clock_ns(), left = f->deadline_ns > now ? f->deadline_ns - now : 0;
    struct client_worker *w = f->at < f->owner_count ? client_worker_find(f->cv, f->owners[f->at]) : NULL;
    struct rpc_client *conn = w ? client_worker_conn(w, false) : NULL;
    if (!conn) {
        next_owner(f, -CV_NO_WORKER);
        return;
    }
    struct msg_block_read m = {.block = f->block, .offset = f->offset, .length = f->n, .flags = f->flags};
    f->rpc.done = on_read;
    rpc_client_call(conn, &f->rpc, MSG_block_read, msg_block_read_desc(), &m,
                    min(f->deadline_ns, now + max(left / 2, NS_PER_S)));
}

static void on_first(struct loop_timer *timer)
{
    on_pause(timer);
}

/* done() never runs from inside. */
void client_fetch_start(struct client_fetch *f, struct client_inode *in, uint32_t block)
{
    f->cv = in->cv;
    client_block_desc(in, block, &f->block);
    f->owner_count = client_block_owners(in, block, f->owners);
    loop_timer_init(&f->timer, on_first);
    if (!f->link.next)
        list_init(&f->link);
    struct client_worker *w = f->owner_count ? client_worker_find(f->cv, f->owners[0]) : NULL;
    if (w && client_worker_conn(w, false))
        attempt(f);
    else
        loop_timer_start(f->cv->loop, &f->timer, clock_ns());
}

void client_fetch_cancel(struct client_fetch *f)
{
    f->cancelled = true;
    if (rpc_call_busy(&f->rpc))
        rpc_client_cancel(&f->rpc);
    else
        loop_timer_start(f->cv->loop, &f->timer, clock_ns());
}

/* ---- the cache ------------------------------------------------------------------------------------------------------- */

struct client_chunk *client_chunk_find(const struct client_inode *in, uint32_t block, uint32_t offset)
{
    offset -= offset % CLIENT_CHUNK_BYTES;
    list_for_each (e, &in->chunks) {
        struct client_chunk *c = list_entry(e, struct client_chunk, of_inode);
        if (c->block == block && c->offset == offset && !c->stale)
            return c;
    }
    return NULL;
}

static void chunk_free(struct client_chunk *c)
{
    struct client_inode *in = c->inode;
    pthread_rwlock_wrlock(&in->lock);
    list_remove(&c->of_inode);
    pthread_rwlock_unlock(&in->lock);
    list_remove(&c->lru);
    in->cv->content->chunk_bytes -= c->n;
    client_bytes_unref(c->bytes);
    free(c);
}

static void on_fetched(struct client_fetch *f, int result)
{
    struct client_chunk *c = f->user;
    struct client_inode *in = c->inode;
    free(f);
    c->fetch = NULL;
    pthread_rwlock_wrlock(&in->lock);
    c->ready = result == 0;
    pthread_rwlock_unlock(&in->lock);
    struct list waiting = LIST_INIT(waiting);
    list_append_all(&waiting, &c->waiting);
    if (result < 0 || c->stale)
        chunk_free(c);
    in->ios++;
    if (result == -CV_DATA_DAMAGED) /* some of it: each looks for its own */
        list_for_each (e, &waiting)
            list_entry(e, struct client_io, link)->exact = true;
    if (result < 0 && result != -CV_DATA_DAMAGED)
        client_io_wake_error(&waiting, result);
    else
        client_io_wake(&waiting);
    in->ios--;
    client_inode_put(in);
}

static bool make_room(struct curvine *cv, uint32_t n)
{
    struct client_content *k = cv->content;
    uint64_t limit = cv->options.memory_bytes;
    list_for_each_safe (e, &k->chunks) {
        if (k->chunk_bytes + n <= limit)
            return true;
        struct client_chunk *c = list_entry(e, struct client_chunk, lru);
        if (!c->fetch)
            chunk_free(c);
    }
    return k->chunk_bytes + n <= limit;
}

struct client_chunk *client_chunk_get(struct client_inode *in, uint32_t block, uint32_t offset, uint64_t deadline_ns)
{
    struct client_chunk *c = client_chunk_find(in, block, offset);
    if (c) {
        list_remove(&c->lru);
        list_push_back(&in->cv->content->chunks, &c->lru);
        return c;
    }
    offset -= offset % CLIENT_CHUNK_BYTES;
    uint32_t n = min(CLIENT_CHUNK_BYTES, client_block_bytes(in) - offset);
    if (!make_room(in->cv, n))
        return NULL;
    c = calloc(1, sizeof(*c));
    struct client_fetch *f = calloc(1, sizeof(*f));
    struct client_bytes *bytes = client_bytes_new(n);
    if (!c || !f || !bytes) {
        free(c);
        free(f);
        client_bytes_unref(bytes);
        return NULL;
    }
    const struct client_extent *e = client_extent_find(in, block);
    *c = (struct client_chunk){
        .inode = in,
        .block = block,
        .offset = offset,
        .n = n,
        .version = e ? e->version : in->base_version,
        .epoch = e ? e->epoch : 0,
        .bytes = bytes,
        .fetch = f,
    };
    list_init(&c->waiting);
    *f = (struct client_fetch){
        .offset = offset, .n = n, .buffer = bytes->p, .deadline_ns = deadline_ns, .done = on_fetched, .user = c};
    pthread_rwlock_wrlock(&in->lock);
    list_push_front(&in->chunks, &c->of_inode);
    pthread_rwlock_unlock(&in->lock);
    list_push_back(&in->cv->content->chunks, &c->lru);
    in->cv->content->chunk_bytes += n;
    client_fetch_start(f, in, block);
    return c;
}

static void chunk_drop(struct client_chunk *c)
{
    if (!c->fetch) {
        chunk_free(c);
        return;
    }
    pthread_rwlock_wrlock(&c->inode->lock);
    c->stale = true; /* on_fetched() frees it */
    pthread_rwlock_unlock(&c->inode->lock);
}

/* n UINT32_MAX: all written blocks. */
void client_chunks_drop(struct client_inode *in, uint32_t block, uint32_t offset, uint32_t n)
{
    list_for_each_safe (e, &in->chunks) {
        struct client_chunk *c = list_entry(e, struct client_chunk, of_inode);
        if (n == UINT32_MAX ? c->epoch > 0 : c->block == block && c->offset < offset + n && offset < c->offset + c->n)
            chunk_drop(c);
    }
}

void client_chunks_drop_stale(struct client_inode *in)
{
    list_for_each_safe (e, &in->chunks) {
        struct client_chunk *c = list_entry(e, struct client_chunk, of_inode);
        const struct client_extent *x = client_extent_find(in, c->block);
        if (c->version != (x ? x->version : in->base_version) || c->epoch != (x ? x->epoch : 0))
            chunk_drop(c);
    }
}

/* At the end: connections are closed, so what is still being fetched (ahead) pauses between two attempts. */
void client_chunks_forget(struct client_inode *in)
{
    list_for_each (e, &in->chunks) {
        struct client_chunk *c = list_entry(e, struct client_chunk, of_inode);
        if (!c->fetch || rpc_call_busy(&c->fetch->rpc))
            continue;
        loop_timer_stop(in->cv->loop, &c->fetch->timer);
        free(take(c->fetch));
    }
}

void client_chunks_free(struct client_inode *in)
{
    while (!list_empty(&in->chunks))
        chunk_free(list_entry(in->chunks.next, struct client_chunk, of_inode));
}
