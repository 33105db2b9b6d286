/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_read. On the loop: find the stretch; whole units go out by sendfile with the checksums the index has of them (the
 * reader checks), anything else is copied, with a checksum of the piece, from chunks verified once a residency. A copy of
 * what is not in the page cache, and everything that needs the disk to be found, is left to a file thread. What is not here
 * is fetched; what cannot be kept for want of space is fetched for this one answer.
 */
#include <errno.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"
#include "rpc/rpc_buffer.h"
#include "worker/block_io.h"
#include "worker/worker_net.h"

#define CRCS_MAX (WORKER_READ_MAX / BLOCK_UNIT_BYTES + 1)

static void read_on(struct worker_request *q);

/* May the answer carry checksums of units? Then the reader checks. */
static bool by_units(const struct worker_request *q)
{
    return !q->plain && q->length >= BLOCK_UNIT_BYTES;
}

static void end_read(struct worker_request *q)
{
    block_read_end(q->net->core->store, &q->read);
}

static void fail(struct worker_request *q, int r)
{
    end_read(q);
    worker_request_end(q, r, NULL, NULL);
}

static void count_sent(struct worker_request *q, uint32_t n, bool file)
{
    q->net->core->served_bytes += n;
    WORKER_COUNT(q->net->metrics, read_bytes, n);
    if (file)
        WORKER_COUNT(q->net->metrics, read_file_bytes, n);
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void file_sent(struct rpc_release *release)
{
    struct worker_request *q = container_of(release, struct worker_request, release);
    end_read(q);
    worker_request_done(q, 0);
}

static void buffer_sent(struct rpc_release *release)
{
    worker_request_done(container_of(release, struct worker_request, release), 0);
}

/* q->buffer has it all. */
static void answer_buffer(struct worker_request *q)
{
    struct msg_block_read_answer a = {.length = q->length, .crc = q->buffer_crc};
    count_sent(q, q->length, false);
    q->release.run = buffer_sent;
    rpc_answer_lent(q->rpc, 0, msg_block_read_answer_desc(), &a, q->buffer, q->length, &q->release);
}

static void answer_small(struct worker_request *q, const void *p)
{
    struct msg_block_read_answer a = {.length = q->length, .crc = crc32c(0, p, q->length)};
    struct iovec v = {(void *)(uintptr_t)p, q->length};
    count_sent(q, q->length, false);
    rpc_answer_data(q->rpc, 0, 0, msg_block_read_answer_desc(), &a, &v, 1);
    worker_request_done(q, 0);
}

/* ---- checksums of units ----------------------------------------------------------------------------------------- */

/* Of the units [offset, offset + length) touches, from the index. Errors: -CV_NOT_PREPARED; -ENODATA there are none, or
 * not of exactly these bytes. */
static int gather_crcs(const struct worker_request *q, bool may_block, uint8_t *out, uint32_t *ret_n)
{
    struct block_key key = worker_block_key(&q->block);
    uint32_t end = q->offset + q->length, n = 0;
    for (uint32_t at = q->offset; at < end;) {
        uint32_t chunk = at / BLOCK_CHUNK_BYTES, start = chunk * BLOCK_CHUNK_BYTES, known;
        uint32_t crc[BLOCK_CHUNK_UNITS];
        int r = block_read_crcs(q->net->core->store, &key, chunk, may_block, crc, &known);
        if (r < 0)
            return r;
        uint32_t to = min(end - start, BLOCK_CHUNK_BYTES);
        if (to > known || (to % BLOCK_UNIT_BYTES && to != known))
            return -ENODATA;
        for (uint32_t u = (at - start) / BLOCK_UNIT_BYTES; u * BLOCK_UNIT_BYTES < to; u++, n++)
            put_le32(out + 4 * (size_t)n, crc[u]);
        at = start + to;
    }
    *ret_n = n;
    return 0;
}

static void answer_file(struct worker_request *q, const uint8_t *crcs, uint32_t n)
{
    struct msg_block_read_answer a = {
        .length = q->length, .flags = BLOCK_CRC_UNITS, .crcs = {(const char *)crcs, 4 * n}};
    count_sent(q, q->length, true);
    q->release.run = file_sent;
    rpc_answer_file(q->rpc, 0, msg_block_read_answer_desc(), &a, q->read.fd, q->read.fd_offset, q->length, &q->release);
}

static bool file_reaches(const struct worker_request *q)
{
    struct stat st;
    return fstat(q->read.fd, &st) == 0 && (uint64_t)st.st_size >= q->read.fd_offset + q->length;
}

/* ---- copies ----------------------------------------------------------------------------------------------------- */

/* On a file thread: q->read is held; the file may end early: zeros. */
static int copy_work(struct worker_request *q)
{
    size_t got = 0;
    q->buffer = rpc_buffer_new(max(q->length, 1u));
    if (!q->buffer)
        return -CV_BUSY;
    int r = q->read.length ? block_io_read(q->read.fd, q->buffer, q->read.length, q->read.fd_offset, &got) : 0;
    if (r < 0)
        return r;
    memset(q->buffer + got, 0, q->length - got);
    q->buffer_crc = crc32c(0, q->buffer, q->length);
    return 0;
}

static void copied(struct worker_request *q, int r)
{
    end_read(q);
    if (r < 0)
        fail(q, r);
    else
        answer_buffer(q);
}

static void copy(struct worker_request *q)
{
    if (q->length <= WORKER_SMALL_MAX && q->read.length == q->length) {
        struct iovec v = {q->net->scratch, q->length};
        ssize_t n = preadv2(q->read.fd, &v, 1, (off_t)q->read.fd_offset, RWF_NOWAIT);
        if (n == (ssize_t)q->length) {
            end_read(q);
            answer_small(q, q->net->scratch);
            return;
        }
    }
    worker_request_work(q, copy_work, copied);
}

/* ---- units the index had not in memory -------------------------------------------------------------------------- */

static int crcs_work(struct worker_request *q)
{
    uint8_t out[4 * CRCS_MAX];
    uint32_t n;
    int r = gather_crcs(q, true, out, &n);
    return r < 0 ? r : buf_append(&q->out, out, 4 * (size_t)n);
}

static void crcs_known(struct worker_request *q, int r)
{
    if (r == 0) {
        answer_file(q, q->out.p, (uint32_t)q->out.n / 4);
    } else if (r == -ENODATA) {
        end_read(q);
        q->plain = true;
        read_on(q);
    } else {
        fail(q, r);
    }
}

static void send_units(struct worker_request *q)
{
    uint8_t crcs[4 * CRCS_MAX];
    uint32_t n;
    int r = file_reaches(q) ? gather_crcs(q, false, crcs, &n) : -ENODATA;
    if (r == 0)
        answer_file(q, crcs, n);
    else if (r == -CV_NOT_PREPARED)
        worker_request_work(q, crcs_work, crcs_known);
    else
        crcs_known(q, r);
}

/* ---- not to be kept --------------------------------------------------------------------------------------------- */

/* On a file thread: what was fetched is the base; what is here of a written block lies above it. */
static int overlay_work(struct worker_request *q)
{
    struct block_key key = worker_block_key(&q->block);
    for (uint32_t at = q->offset; at < q->offset + q->length;) {
        uint32_t end = min((at / BLOCK_CHUNK_BYTES + 1) * BLOCK_CHUNK_BYTES, q->offset + q->length);
        int r = q->block.epoch ? block_read(q->net->core->store, &key, at, q->buffer + (at - q->offset), end - at) : 0;
        if (r < 0 && r != -ENODATA)
            return r;
        at = r > 0 ? at + (uint32_t)r : end; /* one that ends early does so before what is damaged */
    }
    q->buffer_crc = crc32c(0, q->buffer, q->length);
    return 0;
}

static void direct_done(struct worker_request *q, int r)
{
    if (r < 0)
        fail(q, r);
    else
        worker_request_work(q, overlay_work, copied);
}

static void fetched_directly(struct fill_wait *w)
{
    struct worker_request *q = container_of(w, struct worker_request, wait);
    direct_done(q, w->result);
}

static void fetch_directly(struct worker_request *q)
{
    uint32_t based = q->block.epoch ? min(q->block.valid_length, q->block.base_length) : q->block.base_length;
    q->buffer = rpc_buffer_new(q->length);
    if (!q->buffer)
        return fail(q, -CV_BUSY);
    uint32_t n = q->offset < based ? min(q->length, based - q->offset) : 0;
    memset(q->buffer + n, 0, q->length - n);
    q->wait = (struct fill_wait){
        .block = q->block,
        .into = q->buffer,
        .offset = q->offset,
        .n = n,
        .deadline_ns = q->rpc->deadline_ns,
        .home = q->net->loop,
        .done = fetched_directly,
    };
    worker_fill_want(q->net->core->fill, &q->wait);
}

static void filled(struct worker_request *q, int r)
{
    if (r == -CV_NO_SPACE)
        fetch_directly(q);
    else if (r < 0)
        fail(q, r);
    else
        read_on(q);
}

/* ---- finding it ------------------------------------------------------------------------------------------------- */

/* On a file thread: contact, load, verify; then what is still missing. */
static int find_work(struct worker_request *q)
{
    struct worker_core *c = q->net->core;
    struct block_key key = worker_block_key(&q->block);
    uint64_t chunks = worker_chunks(q->offset, q->length);
    int r = worker_block_contact(c, &q->block);
    if (q->flags & BLOCK_VERIFY)
        for (uint64_t left = chunks; r == 0 && left; left &= left - 1) {
            r = block_read_verify(c->store, &key, (uint32_t)__builtin_ctzll(left));
            r = r == -ENODATA ? 0 : r; /* not sealed, or dropped: it will be missing */
        }
    q->flags &= ~(uint32_t)BLOCK_VERIFY;
    if (r == 0)
        r = block_read_prepare(c->store, &key, q->offset, q->length, by_units(q) ? BLOCK_READ_UNCHECKED : 0);
    if (r < 0 && r != -ENODATA)
        return r;
    return worker_block_missing_prepared(c, &q->block, chunks, &q->missing);
}

static void go_on(struct worker_request *q, int r)
{
    if (r < 0)
        fail(q, r);
    else if (!q->missing)
        read_on(q);
    else if (q->flags & BLOCK_NO_FILL)
        fail(q, -ENODATA);
    else
        worker_request_fetch(q, q->flags & BLOCK_AHEAD, filled);
}

static void find(struct worker_request *q)
{
    if (q->tries++ >= WORKER_TRIES_MAX)
        return fail(q, -CV_BUSY);
    worker_request_work(q, find_work, go_on);
}

static void read_on(struct worker_request *q)
{
    struct worker_core *c = q->net->core;
    struct block_key key = worker_block_key(&q->block);
    bool units = by_units(q);
    int r = q->flags & BLOCK_VERIFY
                ? -CV_NOT_PREPARED
                : block_read_begin(c->store, &key, q->offset, q->length, units ? BLOCK_READ_UNCHECKED : 0, &q->read);
    if (r == -ENODATA && q->block.epoch == 0) { /* the common miss */
        r = worker_block_missing(c, &q->block, worker_chunks(q->offset, q->length), &q->missing);
        if (r == 0 && q->missing)
            return go_on(q, 0);
        r = -CV_NOT_PREPARED;
    }
    if (r == -CV_NOT_PREPARED || r == -ENODATA)
        return find(q);
    if (r < 0)
        return fail(q, r);
    if (q->read.length == q->length)
        return units ? send_units(q) : copy(q);
    /* Why no more? Not readable yet, longer than what is here (contact says what became of the rest), or torn. */
    uint32_t at = q->offset + q->read.length;
    end_read(q);
    r = block_read_begin(c->store, &key, at, 1, BLOCK_READ_UNCHECKED, &q->read);
    end_read(q);
    if (r == -CV_DATA_DAMAGED)
        return fail(q, r);
    find(q);
}

void worker_read_begin(struct worker_request *q)
{
    struct msg_block_read m;
    int r = msg_block_read_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0) {
        q->block = m.block;
        r = worker_block_check(q);
    }
    if (r == 0 && (m.offset > m.block.block_bytes || m.length > WORKER_READ_MAX))
        r = -EINVAL;
    if (r < 0)
        return worker_request_end(q, r, NULL, NULL);
    q->offset = m.offset;
    q->flags = m.flags;
    q->length = m.offset < q->content ? min(m.length, q->content - m.offset) : 0;
    if (q->length == 0) {
        struct msg_block_read_answer a = {0};
        return worker_request_end(q, 0, msg_block_read_answer_desc(), &a);
    }
    bool end = q->offset + q->length == q->content;
    q->plain = q->flags & BLOCK_VERIFY || q->offset % BLOCK_UNIT_BYTES || (q->length % BLOCK_UNIT_BYTES && !end);
    read_on(q);
}
