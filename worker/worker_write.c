/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_fill, block_write, block_sync: what changes the store for a client, on file threads. A write goes to the file from the
 * receive buffer, or from memory shared with a client of this host. One that changes part of a chunk whose base content is not
 * here has it fetched first.
 */
#include <errno.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/cleanup.h"
#include "worker/worker_net.h"

static void end(struct worker_request *q, int r)
{
    worker_request_end(q, r, NULL, NULL);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static void write_again(struct worker_request *q, int r);

/* Chunks that are overwritten in part and have content in the under file system: the first and the last there may be. */
static uint64_t partly_overwritten(const struct worker_request *q)
{
    uint32_t to = q->offset + q->length, based = min(q->block.base_length, q->block.valid_length), ends[2];
    uint64_t chunks = 0;
    ends[0] = q->offset / BLOCK_CHUNK_BYTES;
    ends[1] = (to - 1) / BLOCK_CHUNK_BYTES;
    for (int i = 0; i < 2; i++) {
        uint32_t start = ends[i] * BLOCK_CHUNK_BYTES, base_end = min(based, start + BLOCK_CHUNK_BYTES);
        if (based > start && !(q->offset <= start && to >= base_end))
            chunks |= 1ull << ends[i];
    }
    return chunks;
}

/* Less than was acknowledged is here: a power cut took it. To be noted before bytes behind it hide that. */
static bool shorter_here(const struct worker_request *q)
{
    struct block_presence p;
    int r = block_presence(q->net->core->store, q->block.inode, q->block.index, &p);
    return r < 0 || p.length < q->block.valid_length;
}

static int write_work(struct worker_request *q)
{
    struct worker_core *c = q->net->core;
    struct block_key key = worker_block_key(&q->block);
    const void *p = q->data;
    if (q->tries == 0 && crc32c(0, p, q->length) != q->crc)
        return -CV_BAD_CHECKSUM;
    int r = shorter_here(q) ? -CV_STALE_EPOCH : block_write(c->store, &key, q->block.epoch, q->offset, p, q->length);
    if (r == -CV_STALE_EPOCH) { /* over, or not begun */
        r = worker_block_contact(c, &q->block);
        if (r == 0)
            r = block_write(c->store, &key, q->block.epoch, q->offset, p, q->length);
    }
    if (r == -ENODATA)
        q->missing = partly_overwritten(q);
    return r;
}

static void written(struct worker_request *q, int r)
{
    if (r == -ENODATA && q->missing)
        return worker_request_fetch(q, false, write_again);
    if (r < 0)
        return end(q, r == -ENODATA ? -CV_DATA_DAMAGED : r);
    q->net->core->written_bytes += q->length;
    WORKER_COUNT(q->net->metrics, write_bytes, q->length);
    struct msg_block_write_answer a = {.boot = block_store_boot(q->net->core->store)};
    worker_request_end(q, 0, msg_block_write_answer_desc(), &a);
}

static void write_again(struct worker_request *q, int r)
{
    if (r < 0)
        end(q, r);
    else
        worker_request_work(q, write_work, written);
}

/* Where the data is. */
static int find_data(struct worker_request *q, const struct msg_block_write *m)
{
    const struct worker_peer *peer = rpc_peer_user(q->rpc->peer);
    q->data = q->rpc->data;
    q->length = q->rpc->header.data_len;
    if (!m->shared_length)
        return 0;
    if (!peer->memory || m->shared_length > peer->memory->bytes ||
        m->shared_offset > peer->memory->bytes - m->shared_length)
        return -EINVAL;
    q->memory = worker_memory_ref(peer->memory);
    q->data = q->memory->p + m->shared_offset;
    q->length = m->shared_length;
    return 0;
}

/* Under a grant of an earlier incarnation: all sessions of that have ended, whoever still writes has not heard. */
static bool is_of_former_life(const struct worker_request *q)
{
    uint32_t incarnation = q->net->core->incarnation;
    return incarnation > 1 && q->block.epoch < (incarnation - 1ull) * INCARNATION_STEP;
}

void worker_write_begin(struct worker_request *q)
{
    struct msg_block_write m;
    int r = msg_block_write_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0) {
        q->block = m.block;
        q->offset = m.offset;
        q->crc = m.crc;
        r = find_data(q, &m);
    }
    if (r == 0)
        r = worker_block_check(q);
    if (r == 0 && (q->block.epoch == 0 || q->length == 0 || q->offset >= q->block.block_bytes ||
                   q->length > q->block.block_bytes - q->offset))
        r = -EINVAL;
    if (r == 0 && is_of_former_life(q))
        r = -CV_STALE_EPOCH;
    if (r < 0)
        return end(q, r);
    worker_request_work(q, write_work, written);
}

/* ---- memory shared with the client ------------------------------------------------------------------------------ */

static void memory_sent(struct rpc_release *release)
{
    struct worker_request *q = container_of(release, struct worker_request, release);
    q->export.fd = close_fd(q->export.fd);
    worker_request_done(q, 0);
}

void worker_memory_begin(struct worker_request *q)
{
    struct worker_peer *peer = rpc_peer_user(q->rpc->peer);
    struct msg_block_memory m;
    struct net_credentials who;
    struct worker_memory *memory;
    int r = msg_block_memory_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0)
        r = rpc_peer_credentials(q->rpc->peer, &who); /* -ENOTSUP: not a unix socket */
    if (r == 0)
        r = worker_memory_new(m.bytes, &memory, &q->export.fd);
    if (r < 0)
        return end(q, r);
    worker_memory_unref(peer->memory);
    peer->memory = memory;
    struct msg_block_memory_answer a = {.bytes = memory->bytes};
    q->release.run = memory_sent;
    rpc_answer_fds(q->rpc, 0, msg_block_memory_answer_desc(), &a, &q->export.fd, 1, &q->release);
}

/* ---- to the disk ------------------------------------------------------------------------------------------------ */

static int sync_work(struct worker_request *q)
{
    struct block_store *store = q->net->core->store;
    struct msg_block_sync m;
    int r = msg_block_sync_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0)
        r = block_write_sync(store, m.inode);
    return r == 0 && m.boot && m.boot != block_store_boot(store) ? -CV_WRITES_LOST : r;
}

void worker_sync_begin(struct worker_request *q)
{
    worker_request_work(q, sync_work, end);
}

/* ---- filling ---------------------------------------------------------------------------------------------------- */

static void fill_filled(struct worker_request *q, int r);

static uint64_t fill_chunks(const struct worker_request *q)
{
    uint64_t wanted = (q->count >= 64 ? ~0ull : (1ull << q->count) - 1) << q->first;
    return wanted & worker_chunks(0, q->content);
}

/* Verify what is here; what is missing then is to be fetched. */
static int fill_work(struct worker_request *q)
{
    struct worker_core *c = q->net->core;
    struct block_key key = worker_block_key(&q->block);
    uint64_t chunks = fill_chunks(q);
    q->missing = 0;
    int r = worker_block_contact(c, &q->block);
    if (r < 0 || !chunks)
        return r;
    uint32_t first = (uint32_t)__builtin_ctzll(chunks) * BLOCK_CHUNK_BYTES;
    uint32_t last = 64 - (uint32_t)__builtin_clzll(chunks); /* chunks of a request are neighbours */
    r = block_read_prepare(c->store, &key, first, last * BLOCK_CHUNK_BYTES - first, 0);
    if (r < 0 && r != -ENODATA)
        return r;
    r = worker_block_missing_prepared(c, &q->block, chunks, &q->missing);
    if (r == 0 && !q->missing && q->flags & BLOCK_PIN)
        r = block_store_pin(c->store, q->block.inode, true);
    return r;
}

static void answer_fill(struct worker_request *q)
{
    struct block_presence p = {0};
    int r = block_presence(q->net->core->store, q->block.inode, q->block.index, &p);
    struct msg_block_fill_answer a = {.filled = q->fetched};
    if (r == 0 && p.version == q->block.version) {
        a.readable = p.readable & (p.checked | p.open | ~p.sealed);
        a.length = min(p.length, q->content);
    }
    worker_request_end(q, 0, msg_block_fill_answer_desc(), &a);
}

static void fill_looked(struct worker_request *q, int r)
{
    if (r < 0)
        end(q, r);
    else if (q->missing)
        worker_request_fetch(q, q->flags & BLOCK_AHEAD, fill_filled);
    else
        answer_fill(q);
}

static void fill_filled(struct worker_request *q, int r)
{
    if (r < 0)
        end(q, r);
    else
        worker_request_work(q, fill_work, fill_looked);
}

void worker_fill_begin(struct worker_request *q)
{
    struct msg_block_fill m;
    int r = msg_block_fill_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0) {
        q->block = m.block;
        q->first = m.first;
        q->count = m.count;
        q->flags = m.flags;
        r = worker_block_check(q);
    }
    if (r == 0 && (m.count == 0 || m.first >= 64 || m.count > 64 || m.first + m.count > 64))
        r = -EINVAL;
    if (r < 0)
        return end(q, r);
    worker_request_work(q, fill_work, fill_looked);
}
