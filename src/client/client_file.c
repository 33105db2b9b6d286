/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: made by the answers of OPEN and CREATE, gone with RELEASE; and the forms that wait. */
#include "client/client_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"

int client_file_new(struct curvine *cv, struct curvine_request *q)
{
    q->file = NULL;
    if (!S_ISREG(q->attr.mode))
        return 0;
    struct curvine_file *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    *f = (struct curvine_file){
        .cv = cv,
        .inode = q->attr.inode,
        .handle = q->handle,
        .size = q->attr.size,
        .flags = (int)q->flags,
    };
    q->file = f;
    return 0;
}

void client_file_free(struct curvine_file *file)
{
    free(file);
}

/* ---- any thread ------------------------------------------------------------------------------------------------- */

int64_t curvine_read_pieces(struct curvine_file *file, uint64_t offset, uint32_t length, struct curvine_piece *pieces,
                            unsigned limit, unsigned *ret_count, void **ret_pin)
{
    return -EAGAIN;
}

void curvine_pieces_done(struct curvine_file *file, void *pin)
{
}

uint64_t curvine_file_inode(const struct curvine_file *file)
{
    return file->inode;
}

uint64_t curvine_file_size(const struct curvine_file *file)
{
    return file->size;
}

/* ---- waiting forms ---------------------------------------------------------------------------------------------- */

static int open_inode(struct curvine *cv, uint64_t inode, int flags, struct curvine_file **ret)
{
    struct curvine_request q = {.op = CURVINE_OPEN, .inode = inode, .flags = (uint32_t)flags};
    int r = curvine_run(cv, &q);
    if (r < 0)
        return r;
    if (q.file) {
        *ret = q.file;
        return 0;
    }
    struct curvine_request close = {.op = CURVINE_RELEASE, .inode = inode, .handle = q.handle};
    curvine_run(cv, &close);
    return S_ISDIR(q.attr.mode) ? -EISDIR : -ENOTSUP;
}

int curvine_file_open(struct curvine *cv, const char *path, int flags, uint32_t mode, struct curvine_file **ret)
{
    uint64_t inode;
    int r = 0;
    if (flags & O_CREAT) {
        struct curvine_text name;
        r = curvine_resolve_parent(cv, path, &inode, &name);
        if (r < 0)
            return r;
        struct curvine_request q = {
            .op = CURVINE_CREATE, .inode = inode, .name = name, .mode = mode & 07777, .flags = (uint32_t)flags};
        r = curvine_run(cv, &q);
        if (r == 0 && q.file) {
            *ret = q.file;
            return 0;
        }
        if (r < 0 && (r != -ELOOP || flags & (O_EXCL | O_NOFOLLOW)))
            return r;
    }
    struct curvine_attr attr;
    r = curvine_resolve(cv, path, flags & O_NOFOLLOW ? 0 : CURVINE_FOLLOW, &inode, &attr);
    if (r < 0)
        return r;
    if (S_ISLNK(attr.mode))
        return -ELOOP;
    return open_inode(cv, inode, flags & ~(O_CREAT | O_EXCL), ret);
}

int64_t curvine_pread(struct curvine_file *file, void *p, size_t n, uint64_t offset)
{
    struct curvine_request q = {
        .op = CURVINE_READ, .file = file, .offset = offset, .length = (uint32_t)min(n, 1u << 30), .buffer = p};
    return curvine_run(file->cv, &q);
}

int64_t curvine_pwrite(struct curvine_file *file, const void *p, size_t n, uint64_t offset)
{
    struct curvine_request q = {
        .op = CURVINE_WRITE, .file = file, .offset = offset, .value = {p, (uint32_t)min(n, 1u << 30)}};
    return curvine_run(file->cv, &q);
}

int curvine_fsync(struct curvine_file *file)
{
    struct curvine_request q = {.op = CURVINE_FSYNC, .file = file};
    return curvine_run(file->cv, &q);
}

int curvine_file_close(struct curvine_file *file)
{
    if (!file)
        return 0;
    struct curvine_request q = {.op = CURVINE_RELEASE, .file = file};
    return curvine_run(file->cv, &q);
}
