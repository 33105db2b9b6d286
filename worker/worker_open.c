/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_open, block_release: descriptors for clients on this host. Export first, then look at the presence: what is
 * readable then stays readable in that file. Only chunks that were verified (or made) since the block became resident are
 * said to be readable: block_fill verifies the others. Blocks of a few MiB are verified right away.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "worker/worker_exports.h"
#include "worker/worker_net.h"

#define VERIFY_NOW_MAX (4u << 20)

static void describe(const struct worker_request *q, uint64_t file, uint64_t fd_offset, bool segment,
                     struct msg_block_open_answer *ret)
{
    const struct block_presence *p = &q->presence;
    uint32_t length = min(p->length, q->content);
    uint64_t readable = p->readable & (p->checked | p->open | ~p->sealed);
    *ret = (struct msg_block_open_answer){.file = file,
                                          .fd_offset = fd_offset,
                                          .length = length,
                                          .readable = readable,
                                          .flags = segment ? BLOCK_SEGMENT : 0};
    uint64_t all = worker_chunks(0, q->content);
    if (p->length >= q->content && (readable & all) == all)
        ret->flags |= BLOCK_WHOLE;
}

static uint64_t natural_offset(const struct worker_request *q)
{
    return (uint64_t)q->block.index * q->block.block_bytes;
}

/* The presence of this version, or why not. Errors: -ENODATA; -CV_NOT_PREPARED. */
static int look(struct worker_request *q)
{
    int r = block_presence(q->net->core->store, q->block.inode, q->block.index, &q->presence);
    if (r == 0 && q->presence.version != q->block.version)
        return -ENODATA;
    return r == 0 && !q->presence.readable ? -ENODATA : r;
}

/* Begin a read of any stretch, so that the file stays while its descriptor is made. */
static int hold_file(struct worker_request *q)
{
    struct worker_core *c = q->net->core;
    struct block_key key = worker_block_key(&q->block);
    int r;
    if (q->content <= VERIFY_NOW_MAX) {
        r = block_read_prepare(c->store, &key, 0, max(q->content, 1u), 0);
        if (r < 0 && r != -ENODATA)
            return r;
    }
    for (int tries = 0; tries < 8; tries++) {
        while ((r = look(q)) == -CV_NOT_PREPARED && (r = block_prepare(c->store, q->block.inode, q->block.index)) == 0)
            ;
        if (r < 0)
            return r;
        uint32_t at = (uint32_t)__builtin_ctzll(q->presence.readable) * BLOCK_CHUNK_BYTES;
        r = block_read_begin(c->store, &key, at, 1, BLOCK_READ_UNCHECKED, &q->read);
        if (r == 0 && q->read.block)
            return 0;
        if (r == 0)
            return -ENODATA; /* nothing but zeros behind the end */
        if (r == -CV_NOT_PREPARED)
            r = block_read_prepare(c->store, &key, at, 1, BLOCK_READ_UNCHECKED);
        if (r < 0 && r != -ENODATA)
            return r;
    }
    return -CV_BUSY;
}

static int export_file(struct worker_request *q)
{
    struct worker_core *c = q->net->core;
    worker_exports_begin(c->exports);
    int r = block_export(c->store, &q->read, &q->export);
    int e = worker_exports_end(c->exports, q->session, r == 0 ? q->export.file_id : 0);
    r = r < 0 ? r : e;
    if (r == 0)
        r = look(q);
    if (r == 0 && q->presence.file_id != q->export.file_id)
        r = -CV_BUSY; /* replaced meanwhile: once more; the session holds the other file too until it releases it */
    return r;
}

static int open_work(struct worker_request *q)
{
    q->export.fd = close_fd(q->export.fd);
    int r = worker_block_contact(q->net->core, &q->block);
    if (r == 0)
        r = hold_file(q);
    if (r < 0)
        return r;
    uint32_t at = (uint32_t)__builtin_ctzll(q->presence.readable) * BLOCK_CHUNK_BYTES;
    uint64_t fd_offset = q->read.fd_offset - at;
    r = export_file(q);
    block_read_end(q->net->core->store, &q->read);
    if (r < 0)
        return r;
    struct msg_block_open_answer a;
    describe(q, q->export.file_id, q->export.segment ? fd_offset : natural_offset(q), q->export.segment, &a);
    q->out.n = 0;
    return buf_append(&q->out, &a, sizeof(a));
}

static void fd_sent(struct rpc_release *release)
{
    struct worker_request *q = container_of(release, struct worker_request, release);
    q->export.fd = close_fd(q->export.fd);
    worker_request_done(q, 0);
}

static void opened(struct worker_request *q, int r)
{
    if (r < 0) {
        q->export.fd = close_fd(q->export.fd);
        return worker_request_end(q, r, NULL, NULL);
    }
    struct msg_block_open_answer a;
    memcpy(&a, q->out.p, sizeof(a));
    if (q->have && q->have == a.file) { /* it has one already */
        q->export.fd = close_fd(q->export.fd);
        return worker_request_end(q, 0, msg_block_open_answer_desc(), &a);
    }
    WORKER_COUNT(q->net->metrics, opens, 1);
    q->release.run = fd_sent;
    rpc_answer_fds(q->rpc, 0, msg_block_open_answer_desc(), &a, &q->export.fd, 1, &q->release);
}

void worker_open_begin(struct worker_request *q)
{
    struct msg_block_open m;
    struct net_credentials who;
    int r = msg_block_open_decode(q->rpc->body, q->rpc->header.body_len, &m);
    if (r == 0) {
        q->block = m.block;
        q->have = m.have;
        r = worker_block_check(q);
    }
    if (r == 0)
        r = rpc_peer_credentials(q->rpc->peer, &who); /* -ENOTSUP: not a unix socket */
    if (r == 0 && !q->session)
        r = -CV_SESSION_UNKNOWN; /* nobody could say when it is over */
    if (r < 0)
        return worker_request_end(q, r, NULL, NULL);
    /* Nothing to send and nothing to record: on the loop. */
    if (q->have && look(q) == 0 && q->presence.file_id == q->have && !q->presence.packed &&
        worker_exports_has(q->net->core->exports, q->session, q->have)) {
        struct msg_block_open_answer a;
        describe(q, q->have, natural_offset(q), false, &a);
        return worker_request_end(q, 0, msg_block_open_answer_desc(), &a);
    }
    worker_request_work(q, open_work, opened);
}

/* ---- closing ---------------------------------------------------------------------------------------------------- */

static int release_work(struct worker_request *q)
{
    struct msg_block_release m;
    int r = msg_block_release_decode(q->rpc->body, q->rpc->header.body_len, &m);
    for (uint32_t i = 0; r == 0 && i + 8 <= m.files.n; i += 8) {
        uint64_t file = get_le64(m.files.p + i);
        if (file)
            r = worker_exports_release(q->net->core->exports, q->session, file);
    }
    return r;
}

static void released(struct worker_request *q, int r)
{
    worker_request_end(q, r, NULL, NULL);
}

void worker_release_begin(struct worker_request *q)
{
    worker_request_work(q, release_work, released);
}
