/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading. client_plan() says where the next stretch of content is: zeros, memory, a local worker's file, or nowhere yet.
 * Readers on other threads take what is at hand (curvine_read_pieces(), curvine_pread()); READ on the loop makes the rest
 * available and looks again, until everything is there. What comes next is client_ahead.c's business.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "client/client_file.h"

#define TURNS_MAX 8  /* attempts to read through a local descriptor, or under a layout that moved on */
#define PARTS_MAX 16 /* of one READ in flight */

static const uint8_t zeros[CLIENT_IO_MAX];

/* ---- where content is ----------------------------------------------------------------------------------------------- */

static struct client_seg plan_file(const struct client_inode *in, struct client_block *b, uint32_t offset, uint32_t n)
{
    struct client_seg miss = {.kind = SEG_MISS, .n = n, .block = b->index, .offset = offset};
    uint32_t chunk = offset / CLIENT_FILL_BYTES, end = chunk;
    if (chunk >= 64 || offset >= b->length)
        return miss;
    while (end < 64 && b->readable & 1ull << end)
        end++;
    if (end == chunk || !(b->readable & 1ull << chunk))
        return miss;
    n = min(n, min(end * CLIENT_FILL_BYTES, b->length) - offset);
    uint64_t at = b->fd_offset + offset, file_end = atomic_load(&b->file_end);
    if (at + n > file_end && b->map->p) { /* it has grown, or ends here */
        struct stat st;
        if (fstat(b->map->backing->fd, &st) == 0)
            file_end = (uint64_t)st.st_size;
        atomic_store(&b->file_end, file_end);
    }
    if (at >= file_end)
        return (struct client_seg){.kind = SEG_ZEROS, .n = n};
    return (struct client_seg){
        .kind = SEG_FILE, .n = (uint32_t)min((uint64_t)n, file_end - at), .map = b->map, .at = at};
}

struct client_seg client_plan(const struct client_inode *in, uint64_t offset, uint64_t length)
{
    uint32_t n = (uint32_t)min(length, (uint64_t)1 << 30);
    struct client_bytes *data = in->inline_data;
    if (data) {
        if (offset >= data->n)
            return (struct client_seg){.kind = SEG_ZEROS, .n = min(n, CLIENT_IO_MAX)};
        return (struct client_seg){
            .kind = SEG_BYTES, .n = (uint32_t)min((uint64_t)n, data->n - offset), .bytes = data, .at = offset};
    }
    uint32_t block = (uint32_t)(offset >> in->shift), at = (uint32_t)(offset & (client_block_bytes(in) - 1));
    const struct client_extent *e = client_extent_find(in, block);
    uint32_t content = e ? e->valid : client_base_length(in, block);
    n = min(n, client_block_bytes(in) - at);
    if (at >= content)
        return (struct client_seg){.kind = SEG_ZEROS, .n = min(n, CLIENT_IO_MAX)};
    n = min(n, content - at);
    struct client_block *b = client_block_find(in, block);
    struct client_seg miss = {.kind = SEG_MISS, .n = n, .block = block, .offset = at};
    if (b && b->open && b->version == (e ? e->version : in->base_version) && b->epoch == (e ? e->epoch : 0)) {
        struct client_seg s = plan_file(in, b, at, n);
        if (s.kind != SEG_MISS)
            return s;
        miss = s; /* not in the file, for want of space: it may have come by message */
    }
    struct client_chunk *c = client_chunk_find(in, block, at);
    if (c && c->ready) {
        uint32_t skip = at - c->offset;
        return (struct client_seg){.kind = SEG_BYTES, .n = min(n, c->n - skip), .bytes = c->bytes, .at = skip};
    }
    return miss;
}

/* ---- any thread: what is at hand ---------------------------------------------------------------------------------------- */

/* What pieces borrow from. A single one is the pin itself, told by its lowest bits. */
#define PIN_MAP   1u
#define PIN_BYTES 2u
struct pins {
    unsigned count;
    void *held[];
};

static void *pin_ref(const struct client_seg *s)
{
    if (s->kind == SEG_FILE) {
        atomic_fetch_add(&s->map->refs, 1);
        return (void *)((uintptr_t)s->map | PIN_MAP);
    }
    atomic_fetch_add(&s->bytes->refs, 1);
    return (void *)((uintptr_t)s->bytes | PIN_BYTES);
}

static void pin_unref(void *pin)
{
    uintptr_t p = (uintptr_t)pin & ~(uintptr_t)3;
    if ((uintptr_t)pin & PIN_MAP)
        client_map_unref((struct client_map *)p);
    else
        client_bytes_unref((struct client_bytes *)p);
}

void curvine_pieces_done(struct curvine_file *file, void *pin)
{
    if (!pin)
        return;
    if ((uintptr_t)pin & 3) {
        pin_unref(pin);
        return;
    }
    struct pins *p = pin;
    for (unsigned i = 0; i < p->count; i++)
        pin_unref(p->held[i]);
    free(p);
}

static int add_pin(void **pin, const struct client_seg *s)
{
    void *one = s->kind == SEG_FILE ? (void *)((uintptr_t)s->map | PIN_MAP) : (void *)((uintptr_t)s->bytes | PIN_BYTES);
    struct pins *p = NULL;
    if (!*pin) {
        *pin = pin_ref(s);
        return 0;
    }
    if (*pin == one)
        return 0;
    if (!((uintptr_t)*pin & 3))
        p = *pin;
    if (p && p->held[p->count - 1] == one)
        return 0;
    unsigned count = p ? p->count : 1;
    struct pins *more = realloc(p, sizeof(*p) + (count + 1) * sizeof(p->held[0]));
    if (!more)
        return -ENOMEM;
    if (!p)
        more->held[0] = *pin;
    more->held[count] = pin_ref(s);
    more->count = count + 1;
    *pin = more;
    return 0;
}

static struct curvine_piece piece_of(const struct client_seg *s, bool by_descriptor)
{
    switch (s->kind) {
    case SEG_ZEROS: return (struct curvine_piece){.p = zeros, .fd = -1, .n = s->n};
    case SEG_BYTES: return (struct curvine_piece){.p = s->bytes->p + s->at, .fd = -1, .n = s->n};
    default:
        if (s->map->p && !by_descriptor)
            return (struct curvine_piece){.p = s->map->p + (s->at - s->map->fd_offset), .fd = -1, .n = s->n};
        return (struct curvine_piece){.fd = s->map->backing->fd, .fd_offset = s->at, .n = s->n};
    }
}

static int64_t read_pieces(struct curvine_file *f, uint64_t offset, uint32_t length, struct curvine_piece *pieces,
                           unsigned limit, unsigned *ret_count, void **ret_pin, bool by_descriptor)
{
    struct client_inode *in = f->inode;
    if ((f->flags & O_ACCMODE) == O_WRONLY)
        return -EBADF;
    if (clock_ns() >= atomic_load(&in->until_ns))
        return -EAGAIN;
    if (!atomic_load_explicit(&in->used, memory_order_relaxed))
        atomic_store_explicit(&in->used, true, memory_order_relaxed);
    void *pin = NULL;
    unsigned count = 0;
    int r = 0;
    pthread_rwlock_rdlock(&in->lock);
    uint64_t size = in->size, end = offset < size ? min(offset + length, size) : offset;
    if (in->next_known && offset < end && (end - 1) >> in->shift >= in->known_end)
        r = -EAGAIN;
    for (uint64_t at = offset; r == 0 && at < end;) {
        struct client_seg s = client_plan(in, at, end - at);
        if (s.kind == SEG_MISS || count == limit)
            r = -EAGAIN;
        else if (s.kind != SEG_ZEROS)
            r = add_pin(&pin, &s);
        if (r == 0)
            pieces[count++] = piece_of(&s, by_descriptor);
        at += s.n;
    }
    pthread_rwlock_unlock(&in->lock);
    if (r < 0) {
        curvine_pieces_done(f, pin);
        return -EAGAIN;
    }
    if (client_ahead_note(f, offset, end))
        client_ahead_post(f);
    *ret_count = count;
    *ret_pin = pin;
    return (int64_t)(end - offset);
}

int64_t curvine_read_pieces(struct curvine_file *file, uint64_t offset, uint32_t length, struct curvine_piece *pieces,
                            unsigned limit, unsigned *ret_count, void **ret_pin)
{
    return read_pieces(file, offset, length, pieces, limit, ret_count, ret_pin, false);
}

/* Behind the end of the file are zeros. */
static int read_descriptor(int fd, uint8_t *p, uint32_t n, uint64_t offset)
{
    while (n) {
        ssize_t got = pread(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        p += got;
        n -= (uint32_t)got;
        offset += (uint64_t)got;
    }
    memset(p, 0, n);
    return 0;
}

/* By descriptor: a file that becomes shorter meanwhile is no signal. */
static int64_t read_at_hand(struct curvine_file *f, uint8_t *p, uint32_t n, uint64_t offset)
{
    struct curvine_piece pieces[16];
    unsigned count;
    void *pin;
    int64_t got = read_pieces(f, offset, n, pieces, array_size(pieces), &count, &pin, true);
    if (got <= 0)
        return got;
    int r = 0;
    for (unsigned i = 0; i < count && r == 0; i++) {
        if (pieces[i].p)
            memcpy(p, pieces[i].p, pieces[i].n);
        else
            r = read_descriptor(pieces[i].fd, p, pieces[i].n, pieces[i].fd_offset);
        p += pieces[i].n;
    }
    curvine_pieces_done(f, pin);
    return r < 0 ? r : got;
}

int64_t curvine_pread(struct curvine_file *file, void *p, size_t n, uint64_t offset)
{
    uint32_t length = (uint32_t)min(n, (size_t)1 << 30);
    int64_t got = read_at_hand(file, p, length, offset);
    if (got != -EAGAIN)
        return got;
    struct curvine_request q = {.op = CURVINE_READ, .file = file, .offset = offset, .length = length, .buffer = p};
    return curvine_run(file->cv, &q);
}

/* ---- READ, on the loop ------------------------------------------------------------------------------------------------------- */

/* A part of a READ on its way. */
struct part {
    struct client_fetch fetch;
    struct io_op op;
    struct client_io *io;
    struct client_map *map;
    uint8_t *p;
    uint32_t n;
    uint64_t at;
};

static void read_go(struct client_io *io);

static void part_ended(struct part *p, int result)
{
    struct client_io *io = p->io;
    client_map_unref(p->map);
    free(p);
    io->outstanding--;
    if (result < 0 && !io->error)
        io->error = result;
    if (list_empty(&io->link))
        read_go(io);
}

static void on_part_fetched(struct client_fetch *f, int result)
{
    part_ended(f->user, result);
}

static void on_part_read(struct io_op *op, int result)
{
    struct part *p = container_of(op, struct part, op);
    if (result <= 0) {
        memset(p->p, 0, p->n);
        part_ended(p, result);
        return;
    }
    p->p += result;
    p->n -= (uint32_t)result;
    p->at += (uint64_t)result;
    if (p->n)
        io_read(p->io->cv->loop, &p->op, p->map->backing->fd, p->p, p->n, p->at, on_part_read);
    else
        part_ended(p, 0);
}

static struct part *part_new(struct client_io *io, uint32_t n)
{
    struct part *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->io = io;
    p->p = (uint8_t *)io->request->buffer + (io->position - io->request->offset);
    p->n = n;
    io->outstanding++;
    return p;
}

static int read_file(struct client_io *io, const struct client_seg *s)
{
    struct part *p = part_new(io, s->n);
    if (!p)
        return -ENOMEM;
    atomic_fetch_add(&s->map->refs, 1);
    p->map = s->map;
    p->at = s->at;
    io_read(io->cv->loop, &p->op, s->map->backing->fd, p->p, p->n, p->at, on_part_read);
    return 0;
}

static int read_remote(struct client_io *io, const struct client_seg *s)
{
    struct part *p = part_new(io, min(s->n, CLIENT_IO_MAX));
    if (!p)
        return -ENOMEM;
    p->fetch = (struct client_fetch){.offset = s->offset,
                                     .n = p->n,
                                     .buffer = p->p,
                                     .deadline_ns = io->deadline_ns,
                                     .done = on_part_fetched,
                                     .user = p};
    list_push_back(&io->subs, &p->fetch.link);
    client_fetch_start(&p->fetch, io->inode, s->block);
    return 0;
}

static uint64_t chunk_bits(uint32_t offset, uint32_t n)
{
    uint32_t first = offset / CLIENT_FILL_BYTES, last = (offset + n - 1) / CLIENT_FILL_BYTES;
    return (last >= 63 ? UINT64_MAX : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

/* What is not at hand. Returns true: it waits. */
static bool read_miss(struct client_io *io, struct client_seg *s)
{
    struct client_inode *in = io->inode;
    struct curvine_file *f = io->request->file;
    struct client_worker *w = client_block_local(in, s->block);
    struct client_block *b = w ? client_block_get(in, s->block) : NULL;
    if (b && io->turns++ < TURNS_MAX) {
        uint64_t chunk_end = (io->position + s->n + CLIENT_FILL_BYTES - 1) / CLIENT_FILL_BYTES * CLIENT_FILL_BYTES;
        if (f->window && io->position + f->window > chunk_end) /* in one range with what comes next */
            client_ahead_run(f, io->position);
        client_block_need(b, w, chunk_bits(s->offset, s->n), io, read_go);
        return true;
    }
    if (b)
        b->remote_until_ns = clock_ns() + NS_PER_S;
    struct client_chunk *c =
        f->window && !io->exact ? client_chunk_get(in, s->block, s->offset, io->deadline_ns) : NULL;
    if (c && !c->ready) {
        client_ahead_run(f, io->position);
        client_io_wait(io, &c->waiting, read_go);
        return true;
    }
    if (!c && io->outstanding >= PARTS_MAX) {
        s->n = 0;
        return true; /* a part that ends goes on */
    }
    if (!c) {
        s->n = min(s->n, CLIENT_IO_MAX);
        io->error = read_remote(io, s);
    } else
        s->n = 0; /* it is there now: look again */
    return false;
}

static void read_end(struct client_io *io)
{
    struct curvine_request *q = io->request;
    bool moved = io->error == -CV_STALE_EPOCH || io->error == -ENODATA; /* the layout is older than the block */
    if (moved && io->turns++ < TURNS_MAX && !io->expired) {
        io->error = 0;
        io->position = q->offset;
        io->marked = false;
        client_layout_expire(io->inode);
        read_go(io);
        return;
    }
    client_io_finish(io, io->error ? io->error : (int)(io->end - q->offset));
}

static void read_go(struct client_io *io)
{
    struct client_inode *in = io->inode;
    struct curvine_request *q = io->request;
    if (io->expired && !io->error)
        io->error = -CV_DEADLINE;
    while (!io->error && (!io->marked || io->position < io->end)) {
        uint32_t block = (uint32_t)((io->marked ? io->position : q->offset) >> in->shift);
        if (!client_map_ready(io->cv)) {
            client_io_wait(io, &io->cv->content->map_waiting, read_go);
            return;
        }
        if (!client_layout_ready(in, block)) {
            client_layout_want(in, block, io->deadline_ns);
            client_io_wait(io, &in->layout_waiting, read_go);
            return;
        }
        if (!io->marked) {
            io->marked = true;
            uint64_t size = in->size;
            io->end = q->offset < size ? min(q->offset + q->length, size) : q->offset;
            if (io->end > io->position)
                (void)client_ahead_note(q->file, q->offset, io->end);
            continue;
        }
        if (io->position >= in->size) { /* it became shorter meanwhile */
            io->end = io->position;
            break;
        }
        struct client_seg s = client_plan(in, io->position, io->end - io->position);
        uint8_t *p = (uint8_t *)q->buffer + (io->position - q->offset);
        if (s.kind == SEG_ZEROS)
            memset(p, 0, s.n);
        else if (s.kind == SEG_BYTES)
            memcpy(p, s.bytes->p + s.at, s.n);
        else if (s.kind == SEG_FILE)
            io->error = read_file(io, &s);
        else if (read_miss(io, &s))
            return;
        io->position += s.n;
    }
    if (!io->outstanding)
        read_end(io);
}

void client_read(struct client_io *io)
{
    struct curvine_request *q = io->request;
    if ((q->file->flags & O_ACCMODE) == O_WRONLY) {
        client_io_finish(io, -EBADF);
        return;
    }
    if (q->length > INT32_MAX)
        q->length = INT32_MAX;
    io->position = q->offset;
    atomic_store_explicit(&io->inode->used, true, memory_order_relaxed);
    read_go(io);
    /* io may be gone */
}
