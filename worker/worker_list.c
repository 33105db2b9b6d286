/* SPDX-License-Identifier: Apache-2.0 */
/* presence, block_list, free: what is cached of inodes, and letting it go. On file threads. */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "worker/worker_net.h"

#define INODES_MAX 4096 /* of one request */
#define PAGE_MAX   512  /* blocks in one answer */

static void answer_out(struct worker_request *q, int r)
{
    rpc_answer_body(q->rpc, r, 0, q->out.p, r < 0 ? 0 : (uint32_t)q->out.n);
    worker_request_done(q, r);
}

static uint64_t bytes_of(uint64_t chunks, uint32_t length)
{
    uint64_t bytes = 0;
    for (; chunks; chunks &= chunks - 1) {
        uint64_t start = (uint64_t)__builtin_ctzll(chunks) * BLOCK_CHUNK_BYTES;
        bytes += start < length ? min(length - start, (uint64_t)BLOCK_CHUNK_BYTES) : 0;
    }
    return bytes;
}

/* The next block of the inode at or behind the cursor, and its state. Returns 1, 0 at the end, or an error. */
static int next_block(struct block_store *s, uint64_t inode, struct block_cursor *cursor, struct block_info *info,
                      struct block_presence *p)
{
    int r = block_store_list(s, cursor, info, 1);
    if (r <= 0 || info->inode != inode)
        return r < 0 ? r : 0;
    while ((r = block_presence(s, inode, info->index, p)) == -CV_NOT_PREPARED &&
           (r = block_prepare(s, inode, info->index)) == 0)
        ;
    if (r == -ENODATA || r == -CV_DATA_DAMAGED) {
        *p = (struct block_presence){.version = info->version, .length = info->length};
        info->lost = r == -CV_DATA_DAMAGED;
        r = 0;
    }
    return r < 0 ? r : 1;
}

static uint32_t flags_of(const struct block_info *i)
{
    return (i->dirty ? BLOCK_DIRTY : 0) | (i->packed ? BLOCK_PACKED : 0) | (i->pinned ? BLOCK_PINNED : 0) |
           (i->lost ? BLOCK_LOST : 0);
}

static int presence_of(struct block_store *s, uint64_t inode, struct rec_presence *ret)
{
    struct block_cursor cursor = {.inode = inode};
    struct block_info info;
    struct block_presence p;
    int r;
    *ret = (struct rec_presence){.inode = inode};
    while ((r = next_block(s, inode, &cursor, &info, &p)) == 1) {
        uint64_t bytes = bytes_of(p.sealed | p.open, p.length);
        ret->cached_bytes += bytes;
        ret->dirty_bytes += info.dirty ? bytes : 0;
        ret->blocks++;
        ret->flags |= flags_of(&info);
    }
    return r;
}

static int presence_work(struct worker_request *q)
{
    struct msg_presence m;
    struct msg_presence_answer a = {0};
    struct buf list = {0};
    int r = msg_presence_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0 && (m.inodes.n % 8 || m.inodes.n / 8 > INODES_MAX))
        r = -EINVAL;
    for (uint32_t i = 0; r == 0 && i < m.inodes.n; i += 8) {
        struct rec_presence one;
        r = presence_of(q->net->core->store, get_le64(m.inodes.p + i), &one);
        if (r == 0)
            r = rec_presence_append(&list, &one);
    }
    a.inodes = wire_list_of(&list, m.inodes.n / 8);
    q->out.n = 0;
    if (r == 0)
        r = msg_presence_answer_encode(&a, &q->out);
    buf_fini(&list);
    return r;
}

void worker_presence_begin(struct worker_request *q)
{
    worker_request_work(q, presence_work, answer_out);
}

static int list_work(struct worker_request *q)
{
    struct msg_block_list m;
    struct msg_block_list_answer a = {0};
    struct buf list = {0};
    struct block_info info;
    struct block_presence p;
    uint32_t n = 0;
    int r = msg_block_list_decode(q->rpc->body, q->rpc->header.body_len, &m);
    struct block_cursor cursor = {.inode = m.inode, .index = m.first};
    while (r == 0 && n < PAGE_MAX && (r = next_block(q->net->core->store, m.inode, &cursor, &info, &p)) == 1) {
        struct rec_block_state one = {
            .index = info.index,
            .version = info.version,
            .epoch = info.epoch,
            .length = p.length,
            .readable = p.readable,
            .cached_bytes = bytes_of(p.sealed | p.open, p.length),
            .flags = flags_of(&info) | (p.open ? BLOCK_OPEN : 0) | (p.damaged | p.torn ? BLOCK_DAMAGED : 0),
        };
        r = rec_block_state_append(&list, &one);
        a.next = info.index + 1;
        n++;
    }
    if (n < PAGE_MAX)
        a.next = 0;
    a.blocks = wire_list_of(&list, n);
    q->out.n = 0;
    if (r >= 0)
        r = msg_block_list_answer_encode(&a, &q->out);
    buf_fini(&list);
    return r;
}

void worker_list_begin(struct worker_request *q)
{
    worker_request_work(q, list_work, answer_out);
}

static int free_work(struct worker_request *q)
{
    struct msg_free m;
    struct msg_free_answer a = {0};
    struct block_store *s = q->net->core->store;
    int r = msg_free_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0 && (m.inodes.n % 8 || m.inodes.n / 8 > INODES_MAX))
        r = -EINVAL;
    for (uint32_t i = 0; r == 0 && i < m.inodes.n; i += 8) {
        struct rec_presence before, after;
        uint64_t inode = get_le64(m.inodes.p + i);
        r = presence_of(s, inode, &before);
        if (r == 0)
            r = block_store_remove(s, inode, BLOCK_REMOVE_CLEAN);
        bool busy = r == -CV_BUSY;
        if (r == 0 || busy)
            r = presence_of(s, inode, &after);
        if (r < 0)
            break;
        a.busy += busy;
        a.freed_bytes += before.cached_bytes > after.cached_bytes ? before.cached_bytes - after.cached_bytes : 0;
        a.dirty_bytes += after.dirty_bytes;
    }
    q->out.n = 0;
    return r < 0 ? r : msg_free_answer_encode(&a, &q->out);
}

void worker_free_begin(struct worker_request *q)
{
    worker_request_work(q, free_work, answer_out);
}
