/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: opening, reading, writing, closing.
 *
 * A READ is answered on the spot when the library has the content mapped (a local worker's files, or memory): one writev
 * from there. Else, and when a mapping went away under the writev (EFAULT), the library reads into the request's slot.
 * A WRITE goes to the library from the slot, where the kernel put it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/cvfs_internal.h"

#define PIECES_MAX 64
#define ZERO_BYTES 65536u

static void begin(struct cvfs_request *r, enum curvine_op op)
{
    r->q.op = op;
    r->q.inode = cvfs_inode_of(r->fs, r->in->nodeid);
}

static void answer_error(struct cvfs_request *r)
{
    cvfs_reply_error(r, r->q.result);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

static bool writes(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

/* What the kernel may do with its pages. O_DIRECT goes around them both ways, so that reads do not fill them. */
static uint32_t open_flags(const struct cvfs *fs, uint32_t flags, bool keep)
{
    uint32_t out = keep ? CVFS_FOPEN_KEEP_CACHE : 0;
    if (!writes(flags))
        out |= CVFS_FOPEN_NOFLUSH;
    if (flags & O_DIRECT && fs->features & CVFS_DIRECT_IO_ALLOW_MMAP)
        out |= CVFS_FOPEN_DIRECT_IO;
    return out;
}

/* Nothing was changed here since this was asked: what it says of extended attributes may be believed as long as the rest. */
static void note_plain(struct cvfs_request *r)
{
    struct cvfs *fs = r->fs;
    uint64_t ms = min(fs->options->attr_timeout_ms, (uint64_t)r->q.lease_ms), inode = r->q.attr.inode;
    bool plain = !(r->q.attr.flags & CURVINE_HAS_XATTR) && cvfs_touched_ns(fs, inode) < r->start_ns;
    if (plain)
        cvfs_node_set_plain(&fs->nodes, inode, r->start_ns + ms * NS_PER_MS);
}

/* A handle for what r->q opened. */
static int handle_for(struct cvfs_request *r, uint32_t flags, struct fuse_open_out *out)
{
    struct cvfs *fs = r->fs;
    struct cvfs_handle *h;
    bool keep = false;
    int error = cvfs_handle_new(&fs->handles, &out->fh, &h);
    if (error < 0)
        return error;
    error = cvfs_node_open(&fs->nodes, &r->q.attr, &keep);
    if (error < 0) {
        cvfs_handle_release(&fs->handles, out->fh);
        return error;
    }
    note_plain(r);
    h->inode = r->q.attr.inode;
    h->flags = flags;
    h->file = r->q.file;
    out->open_flags = open_flags(fs, flags, keep);
    if (keep)
        cvfs_add(fs, opens_kept, 1);
    else
        cvfs_add(fs, opens_fresh, 1);
    return 0;
}

static void given_up(struct cvfs_request *r)
{
    cvfs_reply_error(r, -(int)r->scratch);
}

/* The library opened it, we cannot keep it. */
static void give_up(struct cvfs_request *r, int error)
{
    r->scratch = (uint64_t)-error;
    r->q.op = CURVINE_RELEASE;
    r->q.inode = r->q.attr.inode;
    cvfs_submit(r, given_up);
}

/* The answer to an OPEN or CREATE that the kernel does not take (its caller was killed) is followed by a RELEASE from it all
 * the same: the kernel does that itself. */
static void opened(struct cvfs_request *r)
{
    struct fuse_open_out out = {0};
    int error = r->q.result;
    if (error < 0) {
        cvfs_reply_error(r, error);
        return;
    }
    error = handle_for(r, (uint32_t)r->scratch, &out);
    if (r->scratch & O_TRUNC)
        cvfs_touch(r->fs, r->q.attr.inode);
    if (error < 0)
        give_up(r, error);
    else
        cvfs_reply_data(r, &out, sizeof(out));
}

void cvfs_op_open(struct cvfs_request *r)
{
    const struct fuse_open_in *in = r->arg;
    begin(r, CURVINE_OPEN);
    r->q.flags = in->flags & ~(uint32_t)(O_CREAT | O_EXCL | O_NOCTTY);
    r->scratch = in->flags;
    cvfs_submit(r, opened);
}

/* The kernel asks for a name that it believes free. Where another host made a symlink, fifo or device since, there is nothing for
 * us to open: ESTALE has the kernel look again, and do what is to be done with such a thing. */
static void created(struct cvfs_request *r)
{
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {0};
    int error = r->q.result;
    if (error < 0) {
        cvfs_reply_error(r, error == -ELOOP ? -ESTALE : error);
        return;
    }
    error = S_ISREG(r->q.attr.mode) ? handle_for(r, (uint32_t)r->scratch, &out.open) : -ESTALE;
    cvfs_touch(r->fs, r->q.attr.inode);
    if (error < 0) {
        give_up(r, error);
        return;
    }
    cvfs_fill_entry(r->fs, &r->q.attr, r->q.lease_ms, &out.entry);
    cvfs_reply_data(r, &out, sizeof(out));
}

void cvfs_op_create(struct cvfs_request *r)
{
    const struct fuse_create_in *in = r->arg;
    begin(r, CURVINE_CREATE);
    r->q.name = r->a;
    r->q.mode = in->mode;
    r->q.umask = in->umask;
    r->q.flags = in->flags;
    r->scratch = in->flags;
    cvfs_submit(r, created);
}

/* ---- closing ----------------------------------------------------------------------------------------------------------------- */

static struct cvfs_handle *file_handle(struct cvfs_request *r, uint64_t number)
{
    struct cvfs_handle *h = cvfs_handle_get(&r->fs->handles, number);
    if (!h || !h->file) {
        cvfs_reply_error(r, -EBADF);
        return NULL;
    }
    r->handle = h;
    return h;
}

static void released(struct cvfs_request *r)
{
    cvfs_touch(r->fs, r->q.inode);
    cvfs_reply_error(r, r->q.result);
}

void cvfs_op_release(struct cvfs_request *r)
{
    const struct fuse_release_in *in = r->arg;
    struct cvfs_handle *h = file_handle(r, in->fh);
    if (!h)
        return;
    begin(r, CURVINE_RELEASE);
    r->q.file = h->file;
    cvfs_node_close(&r->fs->nodes, h->inode);
    cvfs_handle_release(&r->fs->handles, in->fh);
    cvfs_submit(r, released);
}

void cvfs_op_flush(struct cvfs_request *r)
{
    struct cvfs_handle *h = file_handle(r, ((const struct fuse_flush_in *)r->arg)->fh);
    if (!h)
        return;
    if (!writes(h->flags)) {
        cvfs_reply_error(r, 0);
        return;
    }
    begin(r, CURVINE_FLUSH);
    r->q.file = h->file;
    cvfs_submit(r, answer_error);
}

void cvfs_op_fsync(struct cvfs_request *r)
{
    const struct fuse_fsync_in *in = r->arg;
    struct cvfs_handle *h = file_handle(r, in->fh);
    if (!h)
        return;
    begin(r, CURVINE_FSYNC);
    r->q.file = h->file;
    r->q.flags = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? 1 : 0;
    cvfs_submit(r, answer_error);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------- */

static void read_done(struct cvfs_request *r)
{
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    cvfs_add(r->fs, read_bytes, (uint64_t)r->q.result);
    cvfs_reply_data(r, r->q.buffer, (size_t)r->q.result);
}

/* Pieces as an iovec from 1 on; contents of descriptors are read into the slot. Returns the count, or -EAGAIN. */
static int pieces_to_iov(struct cvfs_request *r, const struct curvine_piece *pieces, unsigned n, struct iovec *iov,
                         unsigned most)
{
    static const uint8_t zeros[ZERO_BYTES];
    uint32_t at = 0;
    unsigned count = 1;
    for (unsigned i = 0; i < n; i++) {
        const struct curvine_piece *p = &pieces[i];
        if (p->p || p->fd >= 0) {
            if (count == most)
                return -EAGAIN;
            iov[count] = (struct iovec){(void *)(uintptr_t)p->p, p->n};
            if (!p->p) {
                iov[count].iov_base = r->slot + CVFS_DATA_AT + at;
                ssize_t got = pread(p->fd, iov[count].iov_base, p->n, (off_t)p->fd_offset);
                if (got < 0)
                    return -EAGAIN;
                memset((uint8_t *)iov[count].iov_base + got, 0, p->n - (size_t)got);
                r->warm = true;
            }
            count++;
        } else {
            for (uint32_t left = p->n; left; left -= min(left, ZERO_BYTES)) {
                if (count == most)
                    return -EAGAIN;
                iov[count++] = (struct iovec){(void *)(uintptr_t)zeros, min(left, ZERO_BYTES)};
            }
        }
        at += p->n;
    }
    return (int)count;
}

/* Returns false when the library has to be asked. */
static bool read_at_once(struct cvfs_request *r, struct curvine_file *file, uint64_t offset, uint32_t length)
{
    struct curvine_piece pieces[PIECES_MAX];
    struct iovec iov[PIECES_MAX + 1];
    unsigned n = 0;
    void *pin = NULL;
    int64_t got = curvine_read_pieces(file, offset, length, pieces, PIECES_MAX, &n, &pin);
    if (got < 0)
        return false;
    /* Shorter than asked means the end of the file to the kernel. */
    int count = got < length && offset + (uint64_t)got < curvine_file_size(file)
                    ? -EAGAIN
                    : pieces_to_iov(r, pieces, n, iov, PIECES_MAX + 1);
    struct cvfs *fs = r->fs;
    bool answered = count > 0 && cvfs_reply_iov(r, iov, (unsigned)count) == 0; /* r is gone then */
    curvine_pieces_done(file, pin);
    if (answered) {
        cvfs_add(fs, read_bytes, (uint64_t)got);
        cvfs_add(fs, read_mapped_bytes, (uint64_t)got);
    }
    return answered;
}

void cvfs_op_read(struct cvfs_request *r)
{
    const struct fuse_read_in *in = r->arg;
    struct cvfs_handle *h = file_handle(r, in->fh);
    if (!h)
        return;
    if (in->size > r->fs->write_max) {
        cvfs_reply_error(r, -EINVAL);
        return;
    }
    uint64_t offset = in->offset;
    uint32_t length = in->size;
    if (read_at_once(r, h->file, offset, length))
        return;
    begin(r, CURVINE_READ);
    r->q.file = h->file;
    r->q.offset = offset;
    r->q.length = length;
    r->q.buffer = r->slot + CVFS_DATA_AT;
    r->warm = r->warm || length > CVFS_DATA_AT;
    cvfs_submit(r, read_done);
}

/* ---- writing --------------------------------------------------------------------------------------------------------------------- */

static void written(struct cvfs_request *r)
{
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    cvfs_touch(r->fs, r->q.inode);
    cvfs_add(r->fs, write_bytes, (uint64_t)r->q.result);
    struct fuse_write_out out = {.size = (uint32_t)r->q.result};
    cvfs_reply_data(r, &out, sizeof(out));
}

static void write_now(struct cvfs_request *r)
{
    const struct fuse_write_in *in = r->arg;
    r->q.op = CURVINE_WRITE;
    r->q.file = r->handle->file;
    r->q.offset = in->offset;
    r->q.value = (struct curvine_text){r->b.p, in->size};
    r->q.flags =
        in->flags & O_APPEND && !(in->write_flags & CVFS_WRITE_CACHE) ? CURVINE_WRITE_AT_END : CURVINE_WRITE_AT_OFFSET;
    cvfs_submit(r, written);
}

/* Set-id bits are gone: now the content. */
static void bits_cleared(struct cvfs_request *r)
{
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    cvfs_node_see(&r->fs->nodes, &r->q.attr);
    write_now(r);
}

/* What a write by others than root takes away: set-uid, and set-gid where it means anything (group may execute). */
static uint32_t without_setid(uint32_t mode)
{
    mode &= ~(uint32_t)S_ISUID;
    return mode & S_IXGRP ? mode & ~(uint32_t)S_ISGID : mode;
}

/* The mode as it is, not as it was when the file was opened: its owner may have taken away more than these bits since. */
static void mode_known(struct cvfs_request *r)
{
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    uint32_t mode = r->q.attr.mode;
    cvfs_node_see(&r->fs->nodes, &r->q.attr);
    if (mode == without_setid(mode)) {
        write_now(r);
        return;
    }
    r->q.op = CURVINE_SETATTR;
    r->q.valid = CURVINE_SET_MODE;
    r->q.mode = without_setid(mode) & 07777;
    cvfs_submit(r, bits_cleared);
}

void cvfs_op_write(struct cvfs_request *r)
{
    const struct fuse_write_in *in = r->arg;
    struct cvfs_handle *h = file_handle(r, in->fh);
    if (!h)
        return;
    if (in->size > r->b.n) {
        cvfs_reply_error(r, -EINVAL);
        return;
    }
    begin(r, CURVINE_WRITE);
    uint32_t mode = in->write_flags & CVFS_WRITE_KILL_SUIDGID ? cvfs_node_mode(&r->fs->nodes, h->inode) : 0;
    if (mode == without_setid(mode)) {
        write_now(r);
        return;
    }
    r->q.op = CURVINE_GETATTR;
    r->as_root = true;
    cvfs_submit(r, mode_known);
}

/* Space is not reserved ahead, and saying so makes callers do without. */
void cvfs_op_fallocate(struct cvfs_request *r)
{
    cvfs_reply_error(r, -EOPNOTSUPP);
}
