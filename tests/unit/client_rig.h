/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small cluster in the process for tests of libcurvine's data path: a master that keeps files, layouts and grants, and
 * workers that keep blocks in sparse files, all over the real rpc. Blocks are 2 MiB (two chunks). What a worker does wrong
 * is asked for with trouble[type]: how many of the next requests of a message type end with error[type].
 */
#pragma once

#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "client/client_ask.h"
#include "client/curvine.h"
#include "place/place.h"
#include "rpc/rpc_server.h"
#include "wire/data_flags.h"
#include "wire/meta_flags.h"

#define RIG_SHIFT       21
#define RIG_BLOCK       (1u << RIG_SHIFT)
#define RIG_FILL        (1u << 20)
#define RIG_BLOCKS      1200 /* more than one commit can name */
#define RIG_FILES       16
#define RIG_FIRST_INODE 100
#define RIG_WORKERS     24

struct rig_file {
    bool there;
    uint64_t base_version, base_bytes, version, epoch, mtime_ns;
    uint8_t inline_data[INLINE_MAX];
    _Atomic uint64_t size; /* these the tests look at, too */
    _Atomic uint32_t inline_n, opens;
    struct {
        bool there;
        uint64_t version, epoch, granted_to;
        uint32_t valid;
        uint64_t replicas[2];
    } rows[RIG_BLOCKS];
};

struct rig_block {
    uint64_t version, epoch;
    _Atomic uint64_t readable; /* tests take it away from their own thread */
    uint32_t valid;
};

#define RIG_MEMORIES 8

struct rig;
struct rig_worker {
    struct rig *rig;
    struct rpc_server *server;
    uint64_t id;
    char socket[128], tcp[64];
    bool local;
    int fds[RIG_FILES];
    struct rig_block blocks[RIG_FILES][RIG_BLOCKS];
    uint8_t *lent;
    _Atomic int trouble[0x40], error[0x40]; /* by the low byte of the message type */
    _Atomic int count[0x40];
    _Atomic bool dead;
    _Atomic bool hold_sync; /* the next block_sync waits for rig_sync_go() */
    struct rpc_request *_Atomic held_sync;
    _Atomic uint64_t opened_by; /* session of the last block_open */
    _Atomic uint64_t boot;      /* of its host; 0: it does not say */
    _Atomic bool lends;         /* memory, for what is written */
    _Atomic int memories, shared_writes;
    uint8_t *memory[RIG_MEMORIES]; /* the last one is that of new writes */
    _Atomic bool hold_write;       /* the next one waits for rig_write_go() */
    struct rpc_request *_Atomic held_write;
    uint8_t *held_memory;
};

struct rig {
    struct loop *loop;
    struct rpc_server *master;
    char address[128];
    char boot[40], host[65];
    struct rig_file files[RIG_FILES];
    struct rig_worker workers[RIG_WORKERS];
    unsigned worker_count, replicas;
    _Atomic uint64_t sessions;
    uint64_t handles, map_version;
    _Atomic bool acks_early;
    _Atomic int durable_asked; /* sync: waits for a majority */
    _Atomic uint64_t generation;
    _Atomic bool told[64];      /* handles of another leader that we were told of */
    _Atomic bool takes_handles; /* of the leader before, when they are told */
    _Atomic uint64_t log_index;
    _Atomic int asked[0x100]; /* of the master, by the low byte */
    _Atomic int refuse_commit;
    _Atomic bool hold_commit; /* the next one waits for rig_commit_go() */
    struct rpc_request *_Atomic held_commit;
    _Atomic bool end_session, deaf_renew; /* the next renewal says so; gets no answer */
    _Atomic uint32_t session_timeout_ms;
    _Atomic bool deaf_layout; /* MSG layout gets no answer */
    struct rpc_request *deaf[64];
    unsigned deaf_count;
    int held_error;                /* of its answer: it is not executed then */
    _Atomic uint64_t handles_from; /* older handles are those of another leader */
    bool shared;
};

static inline bool rig_knows(const struct rig *g, uint64_t handle)
{
    return handle >= g->handles_from || g->told[handle % 64];
}

/* The content of the under file system. */
static inline uint8_t rig_base(uint64_t inode, uint64_t offset)
{
    return (uint8_t)hash_u64(inode * 1000003 + offset / 8 + 1) ^ (uint8_t)offset;
}

/* ---- workers -------------------------------------------------------------------------------------------------------- */

static inline struct rig_block *rig_block(struct rig_worker *w, const struct rec_block *b)
{
    ck_assert_uint_lt(b->inode - RIG_FIRST_INODE, RIG_FILES);
    ck_assert_uint_lt(b->index, RIG_BLOCKS);
    return &w->blocks[b->inode - RIG_FIRST_INODE][b->index];
}

static inline void rig_fill(struct rig_worker *w, const struct rec_block *b, unsigned chunk)
{
    static uint8_t bytes[RIG_FILL];
    struct rig_block *have = rig_block(w, b);
    uint64_t start = (uint64_t)b->index * RIG_BLOCK + (uint64_t)chunk * RIG_FILL;
    for (uint32_t i = 0; i < RIG_FILL; i++)
        bytes[i] = chunk * RIG_FILL + i < b->base_length ? rig_base(b->inode, start + i) : 0;
    ck_assert_int_eq(pwrite(w->fds[b->inode - RIG_FIRST_INODE], bytes, RIG_FILL, (off_t)start), RIG_FILL);
    have->readable |= 1ull << chunk;
}

/* First contact with a version: its epoch, and zeros behind its valid length. */
static inline int rig_contact(struct rig_worker *w, const struct rec_block *b)
{
    static const uint8_t none[RIG_BLOCK];
    struct rig_block *have = rig_block(w, b);
    ck_assert_uint_eq(b->block_bytes, RIG_BLOCK);
    if (b->epoch < have->epoch)
        return -CV_STALE_EPOCH;
    if (b->epoch == 0) {
        if (have->version != b->version)
            *have = (struct rig_block){.version = b->version};
        return 0;
    }
    if (b->epoch == have->epoch)
        return 0;
    if (!have->epoch && !b->valid_length) { /* cheaper than to write zeros */
        ck_assert_int_eq(fallocate(w->fds[b->inode - RIG_FIRST_INODE], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   (off_t)b->index * RIG_BLOCK, RIG_BLOCK),
                         0);
        *have = (struct rig_block){.version = b->version, .epoch = b->epoch, .readable = 3};
        return 0;
    }
    if (!have->epoch) /* content of the base carries over */
        for (unsigned c = 0; c < RIG_BLOCK / RIG_FILL; c++)
            rig_fill(w, b, c);
    if (!have->epoch && b->valid_length > b->base_length)
        return -CV_DATA_DAMAGED;
    uint64_t end = (uint64_t)b->index * RIG_BLOCK + b->valid_length;
    uint32_t n = RIG_BLOCK - b->valid_length;
    ck_assert_int_eq(pwrite(w->fds[b->inode - RIG_FIRST_INODE], none, n, (off_t)end), n);
    have->version = b->version;
    have->epoch = b->epoch;
    have->readable = 3;
    return 0;
}

static inline void rig_read(struct rig_worker *w, struct rpc_request *q)
{
    struct msg_block_read m;
    static uint8_t bytes[RIG_BLOCK];
    ck_assert_int_eq(msg_block_read_decode(q->body, q->header.body_len, &m), 0);
    int r = rig_contact(w, &m.block);
    if (r < 0) {
        rpc_answer(q, r, 0, NULL, NULL);
        return;
    }
    uint32_t end = max(m.block.valid_length, 0u);
    uint32_t n = m.offset < end ? min(m.length, end - m.offset) : 0;
    for (uint32_t c = m.offset / RIG_FILL; n && c <= (m.offset + n - 1) / RIG_FILL; c++)
        if (!(rig_block(w, &m.block)->readable & 1ull << c))
            rig_fill(w, &m.block, c);
    ssize_t got = pread(w->fds[m.block.inode - RIG_FIRST_INODE], bytes, n,
                        (off_t)((uint64_t)m.block.index * RIG_BLOCK + m.offset));
    ck_assert_int_eq(got, n);
    struct msg_block_read_answer a = {.length = n, .crc = crc32c(0, bytes, n)};
    if (atomic_load(&w->trouble[0]) > 0) { /* damage on the way */
        atomic_fetch_sub(&w->trouble[0], 1);
        bytes[0] ^= 1;
    }
    rpc_answer_data(q, 0, 0, msg_block_read_answer_desc(), &a, &(struct iovec){bytes, n}, 1);
}

static inline void rig_open(struct rig_worker *w, struct rpc_request *q)
{
    struct msg_block_open m;
    ck_assert_int_eq(msg_block_open_decode(q->body, q->header.body_len, &m), 0);
    w->opened_by = (uintptr_t)rpc_peer_user(q->peer);
    int r = rig_contact(w, &m.block);
    struct rig_block *b = rig_block(w, &m.block);
    if (r == 0 && !b->readable)
        r = -ENODATA;
    if (r < 0) {
        rpc_answer(q, r, 0, NULL, NULL);
        return;
    }
    struct msg_block_open_answer a = {
        .file = m.block.inode,
        .fd_offset = (uint64_t)m.block.index * RIG_BLOCK,
        .length = m.block.valid_length,
        .readable = b->readable,
    };
    if (m.have == a.file)
        rpc_answer(q, 0, 0, msg_block_open_answer_desc(), &a);
    else
        rpc_answer_fds(q, 0, msg_block_open_answer_desc(), &a, &w->fds[m.block.inode - RIG_FIRST_INODE], 1, NULL);
}

static inline void rig_memory(struct rig_worker *w, struct rpc_request *q)
{
    struct msg_block_memory m;
    ck_assert_int_eq(msg_block_memory_decode(q->body, q->header.body_len, &m), 0);
    if (!w->lends || w->memories == RIG_MEMORIES) {
        rpc_answer(q, -CV_UNKNOWN_MESSAGE, 0, NULL, NULL); /* as an older one does */
        return;
    }
    static int fd;
    fd = memfd_create("rig", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, m.bytes), 0);
    w->memory[w->memories] = mmap(NULL, m.bytes, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(w->memory[w->memories], MAP_FAILED);
    w->memories++;
    struct msg_block_memory_answer a = {.bytes = m.bytes};
    rpc_answer_fds(q, 0, msg_block_memory_answer_desc(), &a, &fd, 1, NULL);
}

static inline void rig_write_from(struct rig_worker *w, struct rpc_request *q, const uint8_t *memory)
{
    struct msg_block_write m;
    ck_assert_int_eq(msg_block_write_decode(q->body, q->header.body_len, &m), 0);
    const uint8_t *data = m.shared_length ? memory + m.shared_offset : q->data;
    uint32_t n = m.shared_length ? m.shared_length : q->header.data_len;
    w->shared_writes += m.shared_length > 0;
    ck_assert_uint_eq(crc32c(0, data, n), m.crc);
    ck_assert_uint_gt(m.block.epoch, 0);
    int r = rig_contact(w, &m.block);
    if (r == 0)
        ck_assert_int_eq(pwrite(w->fds[m.block.inode - RIG_FIRST_INODE], data, n,
                                (off_t)((uint64_t)m.block.index * RIG_BLOCK + m.offset)),
                         n);
    struct msg_block_write_answer a = {.boot = atomic_load(&w->boot)};
    rpc_answer(q, r, 0, r < 0 ? NULL : msg_block_write_answer_desc(), r < 0 ? NULL : &a);
}

static inline void rig_write(struct rig_worker *w, struct rpc_request *q)
{
    uint8_t *memory = w->memories ? w->memory[w->memories - 1] : NULL;
    if (atomic_exchange(&w->hold_write, false)) {
        w->held_memory = memory;
        w->held_write = q;
    } else {
        rig_write_from(w, q, memory);
    }
}

/* As late as it likes: what it is to write is still what it was told. */
static inline int rig_write_go(void *arg)
{
    struct rig_worker *w = arg;
    rig_write_from(w, atomic_exchange(&w->held_write, NULL), w->held_memory);
    return 0;
}

static inline void rig_sync(struct rig_worker *w, struct rpc_request *q)
{
    struct msg_block_sync m;
    if (atomic_exchange(&w->hold_sync, false)) {
        w->held_sync = q;
        return;
    }
    ck_assert_int_eq(msg_block_sync_decode(q->body, q->header.body_len, &m), 0);
    rpc_answer(q, m.boot && m.boot != atomic_load(&w->boot) ? -CV_WRITES_LOST : 0, 0, NULL, NULL);
}

static inline int rig_sync_go(void *arg)
{
    struct rig_worker *w = arg;
    rig_sync(w, atomic_exchange(&w->held_sync, NULL));
    return 0;
}

static inline void rig_fill_request(struct rig_worker *w, struct rpc_request *q)
{
    struct msg_block_fill m;
    ck_assert_int_eq(msg_block_fill_decode(q->body, q->header.body_len, &m), 0);
    int r = rig_contact(w, &m.block);
    for (unsigned c = m.first; r == 0 && c < m.first + m.count && c < RIG_BLOCK / RIG_FILL; c++)
        if (!(rig_block(w, &m.block)->readable & 1ull << c))
            rig_fill(w, &m.block, c);
    struct msg_block_fill_answer a = {.readable = rig_block(w, &m.block)->readable};
    rpc_answer(q, r, 0, r < 0 ? NULL : msg_block_fill_answer_desc(), r < 0 ? NULL : &a);
}

static inline void rig_worker_request(struct rpc_request *q, void *user)
{
    struct rig_worker *w = user;
    unsigned type = q->header.type & 0x3f;
    atomic_fetch_add(&w->count[type], 1);
    if (w->dead || atomic_load(&w->trouble[type]) > 0) {
        atomic_fetch_sub(&w->trouble[type], 1);
        int error = w->dead ? -CV_CLOSED : atomic_load(&w->error[type]);
        if (error == -CV_CLOSED)
            rpc_conn_close(rpc_peer_conn(q->peer), -CV_CLOSED);
        rpc_answer(q, error, 0, NULL, NULL);
        return;
    }
    switch (q->header.type) {
    case MSG_block_read: rig_read(w, q); return;
    case MSG_block_open: rig_open(w, q); return;
    case MSG_block_fill: rig_fill_request(w, q); return;
    case MSG_block_write: rig_write(w, q); return;
    case MSG_block_sync: rig_sync(w, q); return;
    case MSG_block_memory: rig_memory(w, q); return;
    default: rpc_answer(q, -CV_UNKNOWN_MESSAGE, 0, NULL, NULL);
    }
}

static inline int rig_worker_hello(struct rpc_peer *peer, const struct msg_hello *hello,
                                   struct msg_hello_answer *answer, void *user)
{
    rpc_peer_set_user(peer, (void *)(uintptr_t)hello->session); /* NOLINT(performance-no-int-to-ptr) */
    return 0;
}

static inline void rig_worker_one_way(struct rpc_peer *peer, const struct rpc_frame *f, void *user)
{
}

/* ---- the master ------------------------------------------------------------------------------------------------------------ */

static inline struct rig_file *rig_file(struct rig *g, uint64_t inode)
{
    ck_assert_uint_lt(inode - RIG_FIRST_INODE, RIG_FILES);
    return &g->files[inode - RIG_FIRST_INODE];
}

static inline struct rec_attr rig_attr(struct rig *g, uint64_t inode)
{
    const struct rig_file *f = rig_file(g, inode);
    return (struct rec_attr){.inode = inode,
                             .mode = S_IFREG | 0644,
                             .nlink = 1,
                             .size = f->size,
                             .version = f->version,
                             .mtime_ns = f->mtime_ns};
}

static inline struct rec_layout rig_layout(struct rig *g, struct rig_file *f, uint32_t first, uint32_t count,
                                           struct buf *list, uint8_t replicas[RIG_BLOCKS][16])
{
    uint32_t n = 0;
    for (uint32_t i = first; i < RIG_BLOCKS && i - first < count; i++) {
        if (!f->rows[i].there)
            continue;
        for (unsigned k = 0; k < g->replicas; k++)
            put_le64(replicas[i] + (size_t)8 * k, f->rows[i].replicas[k]);
        struct rec_extent e = {.block = i,
                               .version = f->rows[i].version,
                               .epoch = f->rows[i].epoch,
                               .valid_length = f->rows[i].valid,
                               .replicas = {(const char *)replicas[i], 8 * g->replicas}};
        ck_assert_int_eq(rec_extent_append(list, &e), 0);
        n++;
    }
    return (struct rec_layout){.base_version = f->base_version,
                               .base_bytes = f->base_bytes,
                               .block_shift = RIG_SHIFT,
                               .replicas = (uint8_t)g->replicas,
                               .first_block = first,
                               .extents = wire_list_of(list, n),
                               .flags = g->shared ? LAYOUT_SHARED : 0,
                               .inline_data = {(const char *)f->inline_data, f->inline_n}};
}

static inline void rig_grant(struct rig *g, struct rpc_request *q)
{
    struct msg_write_grant m;
    ck_assert_int_eq(msg_write_grant_decode(q->body, q->header.body_len, &m), 0);
    struct rig_file *f = rig_file(g, m.inode);
    if (!rig_knows(g, m.handle)) {
        rpc_answer(q, -EBADF, 0, NULL, NULL);
        return;
    }
    struct place_member members[RIG_WORKERS];
    for (unsigned i = 0; i < g->worker_count; i++)
        members[i] = (struct place_member){g->workers[i].id, 1, true, true};
    bool raised = false;
    for (uint32_t b = m.first_block; b < m.first_block + m.count && b < RIG_BLOCKS; b++) {
        if (f->rows[b].there && f->rows[b].granted_to == m.head.session)
            continue;
        if (!raised)
            f->epoch++;
        raised = true;
        if (!f->rows[b].there) {
            uint64_t start = (uint64_t)b * RIG_BLOCK;
            f->rows[b].valid = f->base_bytes > start ? (uint32_t)min(f->base_bytes - start, (uint64_t)RIG_BLOCK) : 0;
            place_order(members, g->worker_count, m.inode, b, g->replicas, f->rows[b].replicas);
        }
        f->rows[b].there = true;
        f->rows[b].version = f->rows[b].epoch = f->epoch;
        f->rows[b].granted_to = m.head.session;
        f->version++;
    }
    struct buf list = {0};
    uint8_t replicas[RIG_BLOCKS][16];
    struct msg_write_grant_answer a = {.attr = rig_attr(g, m.inode),
                                       .layout = rig_layout(g, f, m.first_block, m.count, &list, replicas)};
    rpc_answer(q, 0, ++g->log_index, msg_write_grant_answer_desc(), &a);
    buf_fini(&list);
}

static inline int rig_commit_apply(struct rig *g, const struct msg_write_commit *m)
{
    struct rig_file *f = rig_file(g, m->inode);
    if (!rig_knows(g, m->handle))
        return -EBADF;
    if (m->lengths.count > COMMIT_LENGTHS_MAX)
        return -EINVAL;
    if (atomic_load(&g->refuse_commit)) {
        atomic_fetch_sub(&g->refuse_commit, 1);
        return -CV_STALE_EPOCH;
    }
    rec_for_each (written_length, l, &m->lengths)
        if (!f->rows[l.block].there || f->rows[l.block].version != l.version || f->rows[l.block].epoch != l.epoch)
            return -CV_STALE_EPOCH;
    rec_for_each (written_length, l, &m->lengths) {
        f->rows[l.block].valid = max(f->rows[l.block].valid, l.valid_length);
        if (l.block == 0)
            f->inline_n = 0;
    }
    if (m->valid & COMMIT_INLINE) {
        for (unsigned b = 0; b < RIG_BLOCKS; b++)
            ck_assert(!f->rows[b].there);
        ck_assert_uint_eq(f->base_bytes, 0);
        ck_assert_uint_le(m->inline_data.n, INLINE_MAX);
        memcpy(f->inline_data, m->inline_data.p, m->inline_data.n);
        f->inline_n = m->inline_data.n;
    }
    if (m->valid & COMMIT_SIZE)
        f->size = max(atomic_load(&f->size), m->size);
    if (m->valid & COMMIT_MTIME)
        f->mtime_ns = m->mtime_ns;
    if (m->valid & COMMIT_CLOSE)
        f->opens--;
    f->version++;
    return 0;
}

static inline void rig_commit(struct rig *g, struct rpc_request *q, int error)
{
    struct msg_write_commit m;
    ck_assert_int_eq(msg_write_commit_decode(q->body, q->header.body_len, &m), 0);
    int r = error ? error : rig_commit_apply(g, &m);
    struct msg_write_commit_answer a = {.attr = rig_attr(g, m.inode), .lease_ms = 1000};
    rpc_answer(q, r, ++g->log_index, r ? NULL : msg_write_commit_answer_desc(), r ? NULL : &a);
}

/* By loop_call(): the commit that is held goes on. */
static inline int rig_commit_go(void *arg)
{
    struct rig *g = arg;
    rig_commit(g, atomic_exchange(&g->held_commit, NULL), g->held_error);
    return 0;
}

static inline void rig_truncate(struct rig *g, struct rig_file *f, uint64_t size)
{
    uint32_t last = (uint32_t)(size >> RIG_SHIFT), at = (uint32_t)(size & (RIG_BLOCK - 1));
    f->epoch++;
    f->version++;
    for (uint32_t b = 0; b < RIG_BLOCKS; b++) {
        f->rows[b].granted_to = 0;
        if (size < f->size && b > last)
            f->rows[b].there = false;
        if (size < f->size && b == last && f->rows[b].there) {
            f->rows[b].epoch = f->epoch;
            f->rows[b].valid = min(f->rows[b].valid, at);
        }
    }
    f->base_bytes = min(f->base_bytes, size);
    f->inline_n = (uint32_t)min((uint64_t)atomic_load(&f->inline_n), size);
    f->size = size;
}

static inline void rig_setattr(struct rig *g, struct rpc_request *q)
{
    struct msg_setattr m;
    ck_assert_int_eq(msg_setattr_decode(q->body, q->header.body_len, &m), 0);
    struct rig_file *f = rig_file(g, m.inode);
    struct buf list = {0};
    uint8_t replicas[RIG_BLOCKS][16];
    struct msg_setattr_answer a = {.lease_ms = 1000};
    if (m.valid & SETATTR_SIZE) {
        rig_truncate(g, f, m.size);
        a.layout = rig_layout(g, f, (uint32_t)(m.size >> RIG_SHIFT), RIG_BLOCKS, &list, replicas);
    }
    a.attr = rig_attr(g, m.inode);
    rpc_answer(q, 0, ++g->log_index, msg_setattr_answer_desc(), &a);
    buf_fini(&list);
}

static inline void rig_layout_request(struct rig *g, struct rpc_request *q)
{
    struct buf list = {0};
    uint8_t replicas[RIG_BLOCKS][16];
    if (q->header.type == MSG_layout) {
        struct msg_layout m;
        ck_assert_int_eq(msg_layout_decode(q->body, q->header.body_len, &m), 0);
        struct msg_layout_answer a = {
            .attr = rig_attr(g, m.inode),
            .lease_ms = 1000,
            .layout = rig_layout(g, rig_file(g, m.inode), m.first_block, RIG_BLOCKS, &list, replicas)};
        rpc_answer(q, 0, g->log_index, msg_layout_answer_desc(), &a);
    } else {
        struct msg_open m;
        ck_assert_int_eq(msg_open_decode(q->body, q->header.body_len, &m), 0);
        struct rig_file *f = rig_file(g, m.inode);
        if (m.flags & O_TRUNC)
            rig_truncate(g, f, 0);
        f->opens++;
        struct msg_open_answer a = {.attr = rig_attr(g, m.inode),
                                    .lease_ms = 1000,
                                    .handle = ++g->handles,
                                    .layout = rig_layout(g, f, 0, RIG_BLOCKS, &list, replicas)};
        rpc_answer(q, 0, ++g->log_index, msg_open_answer_desc(), &a);
    }
    buf_fini(&list);
}

static inline void rig_workers(struct rig *g, struct rpc_request *q)
{
    struct buf list = {0};
    for (unsigned i = 0; i < g->worker_count; i++) {
        struct rig_worker *w = &g->workers[i];
        struct rec_worker r = {.worker = w->id, .in = 1, .up = !w->dead, .weight = 1, .address = text_of(w->tcp)};
        r.socket = text_of(w->socket);
        r.host = text_of(w->local ? g->host : "elsewhere");
        r.boot = text_of(w->local ? g->boot : "other");
        ck_assert_int_eq(rec_worker_append(&list, &r), 0);
    }
    struct msg_workers_answer a = {.map_version = g->map_version, .workers = wire_list_of(&list, g->worker_count)};
    rpc_answer(q, 0, g->log_index, msg_workers_answer_desc(), &a);
    buf_fini(&list);
}

/* Not told, or not taken: EBADF. */
static inline void rig_reassert(struct rig *g, struct rpc_request *q)
{
    struct msg_reassert m;
    struct buf results = {0};
    ck_assert_int_eq(msg_reassert_decode(q->body, q->header.body_len, &m), 0);
    rec_for_each (held_handle, h, &m.handles) {
        uint8_t code[4];
        bool known = rig_knows(g, h.handle);
        put_le32(code, known || g->takes_handles ? 0 : EBADF);
        if (!known && g->takes_handles) {
            rig_file(g, h.inode)->opens++;
            g->told[h.handle % 64] = true;
        }
        ck_assert_int_eq(buf_append(&results, code, sizeof(code)), 0);
    }
    struct msg_reassert_answer a = {.results = {(const char *)results.p, (uint32_t)results.n}};
    rpc_answer(q, 0, 0, msg_reassert_answer_desc(), &a);
    buf_fini(&results);
}

static inline void rig_master_request(struct rpc_request *q, void *user)
{
    struct rig *g = user;
    atomic_fetch_add(&g->asked[q->header.type & 0xff], 1);
    switch (q->header.type) {
    case MSG_leader: {
        const struct msg_leader_answer a = {.serving = 1};
        rpc_answer(q, 0, 0, msg_leader_answer_desc(), &a);
        return;
    }
    case MSG_session_open: {
        struct msg_session_open_answer a = {.session = ++g->sessions,
                                            .timeout_ms = g->session_timeout_ms,
                                            .slots = 64,
                                            .lease_ms = 3000,
                                            .acks_early = g->acks_early,
                                            .generation = g->generation};
        rpc_answer(q, 0, 0, msg_session_open_answer_desc(), &a);
        return;
    }
    case MSG_session_renew: {
        if (atomic_load(&g->deaf_renew) && g->deaf_count < 64) {
            g->deaf[g->deaf_count++] = q;
            return;
        }
        if (atomic_exchange(&g->end_session, false)) {
            rpc_answer(q, -CV_SESSION_ENDED, 0, NULL, NULL);
            return;
        }
        struct msg_session_renew_answer a = {
            .lease_ms = 3000, .map_version = g->map_version, .acks_early = g->acks_early, .generation = g->generation};
        rpc_answer(q, 0, 0, msg_session_renew_answer_desc(), &a);
        return;
    }
    case MSG_layout:
        if (atomic_load(&g->deaf_layout) && g->deaf_count < 64) {
            g->deaf[g->deaf_count++] = q;
            return;
        }
        /* fallthrough */
    case MSG_open: rig_layout_request(g, q); return;
    case MSG_write_grant: rig_grant(g, q); return;
    case MSG_setattr: rig_setattr(g, q); return;
    case MSG_workers: rig_workers(g, q); return;
    case MSG_write_commit:
        if (atomic_exchange(&g->hold_commit, false))
            atomic_store(&g->held_commit, q);
        else
            rig_commit(g, q, 0);
        return;
    case MSG_getattr: {
        struct msg_getattr m;
        ck_assert_int_eq(msg_getattr_decode(q->body, q->header.body_len, &m), 0);
        struct msg_getattr_answer a = {.attr = rig_attr(g, m.inode), .lease_ms = 1000};
        rpc_answer(q, 0, g->log_index, msg_getattr_answer_desc(), &a);
        return;
    }
    case MSG_sync: {
        struct msg_sync m;
        ck_assert_int_eq(msg_sync_decode(q->body, q->header.body_len, &m), 0);
        struct msg_sync_answer a = {.generation = g->generation, .early = g->acks_early};
        if (m.inode >= RIG_FIRST_INODE)
            a.attr = rig_attr(g, m.inode);
        g->durable_asked++;
        rpc_answer(q, 0, g->log_index, msg_sync_answer_desc(), &a);
        return;
    }
    case MSG_reassert: rig_reassert(g, q); return;
    case MSG_close: {
        struct msg_close m;
        ck_assert_int_eq(msg_close_decode(q->body, q->header.body_len, &m), 0);
        if (rig_knows(g, m.handle))
            rig_file(g, m.inode)->opens--;
        rpc_answer(q, 0, 0, NULL, NULL);
        return;
    }
    default: rpc_answer(q, 0, 0, NULL, NULL);
    }
}

/* Another leader: it knows no handle. */
static inline int rig_forget_handles(void *arg)
{
    struct rig *g = arg;
    g->handles_from = g->handles + 1;
    for (unsigned i = 0; i < RIG_FILES; i++)
        g->files[i].opens = 0;
    return 0;
}

/* ---- beginning and end -------------------------------------------------------------------------------------------------------- */

static inline void rig_read_line(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(out, (int)size, f));
    out[strcspn(out, "\n")] = '\0';
    fclose(f);
}

static inline void rig_worker_start(struct rig *g, unsigned i, bool local)
{
    struct rig_worker *w = &g->workers[i];
    *w = (struct rig_worker){.rig = g, .id = 1000 + i, .local = local};
    for (unsigned k = 0; k < RIG_FILES; k++) {
        char path[160];
        snprintf(path, sizeof(path), "%s/w%u-%u", unit_tempdir(), i, k);
        w->fds[k] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ck_assert_int_ge(w->fds[k], 0);
    }
    struct rpc_server_options o = {.self = {.role = RPC_WORKER, .program = "test"},
                                   .request = rig_worker_request,
                                   .hello = rig_worker_hello,
                                   .one_way = rig_worker_one_way,
                                   .user = w};
    snprintf(w->socket, sizeof(w->socket), "%s/w%u", unit_tempdir(), i);
    char address[160];
    snprintf(address, sizeof(address), "unix:%s", w->socket);
    ck_assert_int_eq(rpc_server_new(g->loop, &o, &w->server), 0);
    ck_assert_int_eq(rpc_server_listen(w->server, address, 0, 0600), 0);
    ck_assert_int_eq(rpc_server_listen(w->server, "127.0.0.1:0", 0, 0), 0);
    snprintf(w->tcp, sizeof(w->tcp), "127.0.0.1:%u", rpc_server_port(w->server));
}

static inline void rig_start(struct rig *g, unsigned workers, unsigned replicas, bool local)
{
    memset(g, 0, sizeof(*g));
    log_set_level(LOG_LEVEL_ERROR);
    rig_read_line("/proc/sys/kernel/random/boot_id", g->boot, sizeof(g->boot));
    gethostname(g->host, sizeof(g->host) - 1);
    g->worker_count = workers;
    g->replicas = replicas;
    g->map_version = 1;
    snprintf(g->address, sizeof(g->address), "unix:%s/m", unit_tempdir());
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "rig"}, &g->loop), 0);
    struct rpc_server_options o = {
        .self = {.role = RPC_MASTER, .program = "test"}, .request = rig_master_request, .user = g};
    ck_assert_int_eq(rpc_server_new(g->loop, &o, &g->master), 0);
    ck_assert_int_eq(rpc_server_listen(g->master, g->address, 0, 0600), 0);
    for (unsigned i = 0; i < workers; i++)
        rig_worker_start(g, i, local);
    for (unsigned i = 0; i < RIG_FILES; i++)
        g->files[i] = (struct rig_file){.there = true, .version = 1};
    ck_assert_int_eq(loop_start(g->loop), 0);
}

static inline void rig_stopped(void *arg)
{
    struct rig *g = arg;
    if (g->worker_count == 0)
        loop_stop(g->loop);
    else
        rpc_server_stop(g->workers[--g->worker_count].server, 100, rig_stopped, g);
}

static inline int rig_stop_here(void *arg)
{
    struct rig *g = arg;
    while (g->deaf_count)
        rpc_answer(g->deaf[--g->deaf_count], -CV_STOPPING, 0, NULL, NULL);
    rpc_server_stop(g->master, 100, rig_stopped, g);
    return 0;
}

static inline void rig_stop(struct rig *g)
{
    unsigned n = g->worker_count;
    loop_call(g->loop, rig_stop_here, g);
    loop_join(g->loop);
    rpc_server_free(g->master);
    for (unsigned i = 0; i < n; i++) {
        rpc_server_free(g->workers[i].server);
        for (unsigned k = 0; k < RIG_FILES; k++)
            close(g->workers[i].fds[k]);
    }
    loop_free(g->loop);
}

static inline struct curvine *rig_client(struct rig *g)
{
    struct curvine *cv;
    ck_assert_int_eq(curvine_open(&(struct curvine_options){.masters = g->address, .timeout_ms = 10000}, &cv), 0);
    return cv;
}

static inline struct curvine_file *rig_open_file(struct curvine *cv, unsigned i, int flags)
{
    struct curvine_request q = {.op = CURVINE_OPEN, .inode = RIG_FIRST_INODE + i, .flags = (uint32_t)flags};
    ck_assert_int_eq(curvine_run(cv, &q), 0);
    ck_assert_ptr_nonnull(q.file);
    return q.file;
}

static inline int rig_truncate_file(struct curvine *cv, unsigned i, uint64_t size)
{
    struct curvine_request q = {
        .op = CURVINE_SETATTR, .inode = RIG_FIRST_INODE + i, .valid = CURVINE_SET_SIZE, .size = size};
    return curvine_run(cv, &q);
}

static inline int rig_flush(struct curvine *cv, struct curvine_file *f)
{
    struct curvine_request q = {.op = CURVINE_FLUSH, .file = f};
    return curvine_run(cv, &q);
}

static inline uint64_t rig_size(struct curvine *cv, unsigned i)
{
    struct curvine_request q = {.op = CURVINE_GETATTR, .inode = RIG_FIRST_INODE + i};
    ck_assert_int_eq(curvine_run(cv, &q), 0);
    return q.attr.size;
}
