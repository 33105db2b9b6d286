/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of a worker on this host: its files' descriptors, which chunks of them may be read, and making more readable.
 *
 *      need chunks --block_open--> there? ----------------------------------------> wake
 *                                   no: --block_fill--> filled --block_open--> wake
 *
 * A fill is always followed by an open: the file may have been replaced meanwhile (evicted and fetched again), and only the
 * answer of block_open says which chunks of the descriptor we hold may be read. A descriptor stays good for its version
 * and epoch whatever the worker does. When the worker cannot serve us this way, the block is read like that of another
 * host for a second.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/client_file.h"

#define REMOTE_MS    1000
#define RELEASE_MS   10000
#define RELEASE_MAX  (64u << 10) /* bytes of ids in one message */
#define BLOCKS_MAX   4096        /* open at a time, all inodes together */
#define BACKINGS_MAX 512
#define CALL_MIN_NS  NS_PER_S

static void open_block(struct client_block *b);

/* ---- descriptors and mappings -------------------------------------------------------------------------------------- */

void client_backing_unref(struct client_backing *b)
{
    atomic_fetch_sub(&b->refs, 1); /* the table's is the last: client_backings_sweep() */
}

void client_map_unref(struct client_map *m)
{
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1)
        return;
    if (m->start)
        munmap(m->start, m->n);
    client_backing_unref(m->backing);
    free(m);
}

static void say_released(struct client_worker *w);

/* What was not said is said again: bytes of files that were evicted stay charged at the worker until it hears of it. */
static void on_release_said(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct client_worker *w = container_of(call, struct client_worker, release);
    uint32_t said = w->releasing;
    w->releasing = 0;
    if (result < 0 || !said)
        return; /* the next sweep tries again; or the session was another one */
    w->released.n -= said;
    memmove(w->released.p, w->released.p + said, w->released.n);
    say_released(w);
}

static void say_released(struct client_worker *w)
{
    if (!w->released.n || w->opens || rpc_call_busy(&w->release) || !w->unix_socket ||
        !rpc_client_connected(w->unix_socket))
        return;
    w->releasing = (uint32_t)min(w->released.n, (size_t)RELEASE_MAX);
    struct msg_block_release m = {.files = {(const char *)w->released.p, w->releasing}};
    w->release.done = on_release_said;
    rpc_client_call(w->unix_socket, &w->release, MSG_block_release, msg_block_release_desc(), &m,
                    clock_ns() + RELEASE_MS * NS_PER_MS);
}

/* Close what nobody uses, and tell the workers, unless a descriptor of the same file may be on its way to us. */
void client_backings_sweep(struct curvine *cv, bool all)
{
    struct client_content *c = cv->content;
    list_for_each_safe (e, &c->backings) {
        struct client_backing *b = list_entry(e, struct client_backing, link);
        if (atomic_load(&b->refs) > 1 && !all)
            continue;
        struct client_worker *w = client_worker_find(cv, b->worker);
        if (w && w->opens && !all)
            continue;
        uint8_t id[8];
        put_le64(id, b->file);
        if (w)
            buf_append(&w->released, id, sizeof(id));
        list_remove(&b->link);
        c->backing_count--;
        close(b->fd);
        free(b);
    }
    for (unsigned i = 0; i < c->worker_count; i++)
        say_released(c->workers[i]);
}

static struct client_backing *backing_find(struct curvine *cv, uint64_t worker, uint64_t file)
{
    list_for_each (e, &cv->content->backings) {
        struct client_backing *b = list_entry(e, struct client_backing, link);
        if (b->file == file && b->worker == worker)
            return b;
    }
    return NULL;
}

/* The descriptor that came with an answer, or the one we have. */
static struct client_backing *backing_of(struct curvine *cv, uint64_t worker, uint64_t file, const struct rpc_frame *f)
{
    struct client_backing *b = backing_find(cv, worker, file);
    if (b || !f->fd_count)
        return b;
    b = calloc(1, sizeof(*b));
    if (!b)
        return NULL;
    *b = (struct client_backing){.refs = 1, .fd = take_fd(f->fds[0]), .file = file, .worker = worker};
    list_push_front(&cv->content->backings, &b->link);
    if (++cv->content->backing_count > BACKINGS_MAX)
        client_backings_sweep(cv, false);
    return b;
}

/* Mapped to the block's end, behind the file's too: who reads looks at file_end. A file that cannot be mapped is read by
 * its descriptor. */
static struct client_map *map_new(struct client_backing *backing, uint64_t fd_offset, uint32_t n)
{
    struct client_map *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    atomic_fetch_add(&backing->refs, 1);
    *m = (struct client_map){.refs = 1, .backing = backing, .fd_offset = fd_offset};
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), skew = fd_offset % page;
    m->n = n + skew;
    m->start = mmap(NULL, m->n, PROT_READ, MAP_SHARED, backing->fd, (off_t)(fd_offset - skew));
    if (m->start == MAP_FAILED)
        m->start = NULL;
    else
        m->p = (uint8_t *)m->start + skew;
    return m;
}

/* ---- the table of an inode ------------------------------------------------------------------------------------------------- */

static uint32_t block_place(const struct client_inode *in, uint32_t index)
{
    uint32_t lo = 0, hi = in->block_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (in->blocks[mid]->index < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct client_block *client_block_find(const struct client_inode *in, uint32_t index)
{
    uint32_t i = block_place(in, index);
    return i < in->block_count && in->blocks[i]->index == index ? in->blocks[i] : NULL;
}

static void block_free(struct client_block *b)
{
    struct client_inode *in = b->inode;
    struct client_map *m = b->map;
    uint32_t i = block_place(in, b->index);
    pthread_rwlock_wrlock(&in->lock);
    memmove(&in->blocks[i], &in->blocks[i + 1], (in->block_count - i - 1) * sizeof(struct client_block *));
    in->block_count--;
    pthread_rwlock_unlock(&in->lock);
    client_map_unref(m);
    list_remove(&b->lru);
    in->cv->content->block_count--;
    free(b);
}

static void blocks_trim(struct curvine *cv)
{
    struct client_content *c = cv->content;
    list_for_each_safe (e, &c->blocks) {
        struct client_block *b = list_entry(e, struct client_block, lru);
        if (c->block_count <= BLOCKS_MAX)
            return;
        if (!b->busy && !b->ahead_calls && list_empty(&b->waiting))
            block_free(b);
    }
}

struct client_block *client_block_get(struct client_inode *in, uint32_t index)
{
    struct client_block *b = client_block_find(in, index);
    if (b)
        return b;
    blocks_trim(in->cv);
    b = calloc(1, sizeof(*b));
    if (!b)
        return NULL;
    if (in->block_count == in->block_room) {
        uint32_t room = in->block_room ? in->block_room * 2 : 4;
        pthread_rwlock_wrlock(&in->lock);
        struct client_block **blocks = reallocarray(in->blocks, room, sizeof(*blocks));
        if (blocks) {
            in->blocks = blocks;
            in->block_room = room;
        }
        pthread_rwlock_unlock(&in->lock);
        if (!blocks) {
            free(b);
            return NULL;
        }
    }
    b->inode = in;
    b->index = index;
    list_init(&b->waiting);
    uint32_t i = block_place(in, index);
    pthread_rwlock_wrlock(&in->lock);
    memmove(&in->blocks[i + 1], &in->blocks[i], (in->block_count - i) * sizeof(struct client_block *));
    in->blocks[i] = b;
    in->block_count++;
    pthread_rwlock_unlock(&in->lock);
    list_push_back(&in->cv->content->blocks, &b->lru);
    in->cv->content->block_count++;
    return b;
}

void client_blocks_free(struct client_inode *in)
{
    while (in->block_count)
        block_free(in->blocks[in->block_count - 1]);
    free(in->blocks);
}

struct client_worker *client_block_local(struct client_inode *in, uint32_t index)
{
    uint64_t owners[CLIENT_OWNERS_MAX];
    unsigned n = client_block_owners(in, index, owners);
    struct client_worker *w = n ? client_worker_find(in->cv, owners[0]) : NULL;
    if (!w || !client_worker_is_local(w))
        return NULL;
    struct client_block *b = client_block_find(in, index);
    return b && clock_ns() < b->remote_until_ns ? NULL : w;
}

/* ---- opening and filling ---------------------------------------------------------------------------------------------------- */

static void call_ended(struct client_block *b, int error)
{
    struct client_inode *in = b->inode;
    b->busy = b->filled = false;
    b->need = 0;
    b->worker = NULL;
    if (error < 0)
        list_for_each (e, &b->waiting)
            list_entry(e, struct client_io, link)->error = error;
    in->ios++;
    client_io_wake(&b->waiting);
    in->ios--;
    client_inode_put(in);
}

/* Read it like that of another host for a while. */
static void call_failed(struct client_block *b, int result)
{
    if (result == -CV_STALE_EPOCH)
        client_layout_expire(b->inode);
    else
        b->remote_until_ns = clock_ns() + REMOTE_MS * NS_PER_MS;
    call_ended(b, 0);
}

static uint64_t attempt_deadline(uint64_t deadline_ns)
{
    uint64_t now = clock_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
    return min(deadline_ns, now + max(left / 2, CALL_MIN_NS));
}

/* What block_open answered, unless the layout has moved on. */
int client_block_opened(struct client_block *b, uint64_t version, uint64_t epoch, struct client_worker *w,
                        const struct rpc_frame *f)
{
    struct client_inode *in = b->inode;
    struct msg_block_open_answer a;
    int r = msg_block_open_answer_decode(f->body, f->header.body_len, &a);
    if (r < 0)
        return r;
    struct client_backing *backing = backing_of(in->cv, w->id, a.file, f);
    if (!backing)
        return f->header.flags & FRAME_FDS ? -EMFILE : -CV_BAD_MESSAGE;
    bool same = b->map && b->map->backing == backing && b->fd_offset == a.fd_offset && b->length >= a.length;
    uint32_t n = a.flags & BLOCK_SEGMENT ? a.length : client_block_bytes(in);
    struct client_map *map = same ? b->map : map_new(backing, a.fd_offset, max(n, 1u));
    if (!map)
        return -ENOMEM;
    struct stat st;
    uint64_t end = fstat(backing->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    if (a.flags & BLOCK_SEGMENT)
        end = min(end, a.fd_offset + a.length);
    struct client_map *old = same ? NULL : b->map;
    pthread_rwlock_wrlock(&in->lock);
    b->map = map;
    b->fd_offset = a.fd_offset;
    b->length = n;
    b->readable = a.flags & BLOCK_WHOLE ? UINT64_MAX : a.readable;
    b->file_end = end;
    b->version = version;
    b->epoch = epoch;
    b->open = true;
    pthread_rwlock_unlock(&in->lock);
    client_map_unref(old);
    return 0;
}

static void let_go(struct client_block *b)
{
    pthread_rwlock_wrlock(&b->inode->lock);
    struct client_map *m = take(b->map);
    b->readable = 0;
    b->open = false;
    pthread_rwlock_unlock(&b->inode->lock);
    client_map_unref(m);
}

/* The worker has no room: what it evicted is free only when nobody has the file open. Let go of everything but what is in
 * use this moment; it is opened again when it is read again. */
static void give_back(struct curvine *cv, const struct client_worker *w, const struct client_block *refused)
{
    list_for_each (e, &cv->content->blocks) {
        struct client_block *b = list_entry(e, struct client_block, lru);
        if (!b->map || b->map->backing->worker != w->id || (b->busy && b != refused) || b->ahead_calls)
            continue;
        let_go(b);
    }
    client_backings_sweep(cv, false);
}

void client_blocks_let_go(struct curvine *cv)
{
    list_for_each (e, &cv->content->blocks) {
        struct client_block *b = list_entry(e, struct client_block, lru);
        if (b->map)
            let_go(b);
    }
    client_backings_sweep(cv, false);
}

static void on_filled(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct client_block *b = container_of(call, struct client_block, rpc);
    b->filled = true;
    if (result == -CV_NO_SPACE)
        give_back(b->inode->cv, b->worker, b);
    if (result == 0)
        open_block(b);
    else if (client_worker_error(result) || result == -CV_NO_SPACE || result == -CV_STALE_EPOCH || result == -ESTALE)
        call_failed(b, result);
    else
        call_ended(b, result);
}

static void fill_block(struct client_block *b, uint64_t missing)
{
    struct rpc_client *conn = client_worker_conn(b->worker, true);
    if (!conn) {
        call_failed(b, 0);
        return;
    }
    unsigned first = (unsigned)__builtin_ctzll(missing), last = 63u - (unsigned)__builtin_clzll(missing);
    struct msg_block_fill m = {.first = first, .count = last - first + 1};
    client_block_desc(b->inode, b->index, &m.block);
    b->rpc.done = on_filled;
    rpc_client_call(conn, &b->rpc, MSG_block_fill, msg_block_fill_desc(), &m, attempt_deadline(b->deadline_ns));
}

static void on_opened(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct client_block *b = container_of(call, struct client_block, rpc);
    b->worker->opens--;
    bool nothing = result == -ENODATA;
    if (result == 0)
        result = client_block_opened(b, b->called_version, b->called_epoch, b->worker, f);
    uint64_t missing = nothing ? b->need : b->need & ~b->readable;
    if (nothing)
        result = 0;
    if (result < 0)
        call_failed(b, result);
    else if (!missing)
        call_ended(b, 0);
    else if (b->filled) /* gone again: the disk is too small for it */
        call_failed(b, 0);
    else
        fill_block(b, missing);
}

static void open_block(struct client_block *b)
{
    struct client_inode *in = b->inode;
    struct rpc_client *conn = client_worker_conn(b->worker, true);
    if (!conn) {
        call_failed(b, 0);
        return;
    }
    struct msg_block_open m = {.have = b->map ? b->map->backing->file : 0};
    client_block_desc(in, b->index, &m.block);
    if (b->map && b->map->backing->worker != b->worker->id)
        m.have = 0;
    for (uint32_t i = 0; !m.have && !b->map && i < in->block_count; i++) /* most likely the same file */
        if (in->blocks[i]->map && in->blocks[i]->map->backing->worker == b->worker->id)
            m.have = in->blocks[i]->map->backing->file;
    b->called_version = m.block.version;
    b->called_epoch = m.block.epoch;
    b->worker->opens++;
    b->rpc.done = on_opened;
    rpc_client_call(conn, &b->rpc, MSG_block_open, msg_block_open_desc(), &m, attempt_deadline(b->deadline_ns));
}

void client_block_need(struct client_block *b, struct client_worker *w, uint64_t chunks, struct client_io *io,
                       void (*resume)(struct client_io *))
{
    client_io_wait(io, &b->waiting, resume);
    b->need |= chunks;
    if (b->busy)
        return;
    b->busy = true;
    b->filled = false;
    b->worker = w;
    b->deadline_ns = io->deadline_ns;
    open_block(b);
}
