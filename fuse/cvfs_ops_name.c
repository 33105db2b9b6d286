/* SPDX-License-Identifier: Apache-2.0 */
/* Names: look-up, making, linking, renaming, removing. The node of a request is the directory. */
#include <errno.h>

#include "base/clock.h"
#include "base/error.h"
#include "fuse/cvfs_internal.h"

#define NAME_BYTES_MAX 255

static void begin(struct cvfs_request *r, enum curvine_op op)
{
    r->q.op = op;
    r->q.inode = cvfs_inode_of(r->fs, r->in->nodeid);
    r->q.name = r->a;
}

/* ---- look-up ------------------------------------------------------------------------------------------------------------ */

static void looked_up(struct cvfs_request *r)
{
    uint64_t negative_ms = r->fs->options->negative_timeout_ms;
    if (r->q.result == 0) {
        cvfs_reply_entry(r, &r->q.attr);
    } else if (r->q.result == -ENOENT && negative_ms) { /* "there is none" may be kept too: node 0 */
        struct fuse_entry_out none = {
            .entry_valid = negative_ms / 1000,
            .entry_valid_nsec = (uint32_t)(negative_ms % 1000 * NS_PER_MS),
        };
        cvfs_reply_data(r, &none, sizeof(none));
    } else {
        cvfs_reply_error(r, r->q.result);
    }
}

void cvfs_op_lookup(struct cvfs_request *r)
{
    if (r->a.n > NAME_BYTES_MAX) {
        cvfs_reply_error(r, -ENAMETOOLONG);
        return;
    }
    begin(r, CURVINE_LOOKUP);
    cvfs_submit(r, looked_up);
}

/* ---- making --------------------------------------------------------------------------------------------------------------- */

static void made(struct cvfs_request *r)
{
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    cvfs_touch(r->fs, r->q.attr.inode);
    cvfs_reply_entry(r, &r->q.attr);
}

void cvfs_op_mknod(struct cvfs_request *r)
{
    const struct fuse_mknod_in *in = r->arg;
    begin(r, CURVINE_MKNOD);
    r->q.mode = in->mode;
    r->q.umask = in->umask;
    r->q.rdev = in->rdev;
    cvfs_submit(r, made);
}

void cvfs_op_mkdir(struct cvfs_request *r)
{
    const struct fuse_mkdir_in *in = r->arg;
    begin(r, CURVINE_MKDIR);
    r->q.mode = in->mode;
    r->q.umask = in->umask;
    cvfs_submit(r, made);
}

void cvfs_op_symlink(struct cvfs_request *r)
{
    begin(r, CURVINE_SYMLINK);
    r->q.value = r->b;
    cvfs_submit(r, made);
}

void cvfs_op_link(struct cvfs_request *r)
{
    begin(r, CURVINE_LINK);
    r->q.inode2 = cvfs_inode_of(r->fs, ((const struct fuse_link_in *)r->arg)->oldnodeid);
    cvfs_submit(r, made);
}

/* ---- removing, renaming ------------------------------------------------------------------------------------------------------ */

static void gone(struct cvfs_request *r)
{
    if (r->q.result == 0)
        cvfs_touch(r->fs, r->q.attr.inode);
    cvfs_reply_error(r, r->q.result);
}

void cvfs_op_unlink(struct cvfs_request *r)
{
    begin(r, CURVINE_UNLINK);
    cvfs_submit(r, gone);
}

void cvfs_op_rmdir(struct cvfs_request *r)
{
    begin(r, CURVINE_RMDIR);
    cvfs_submit(r, gone);
}

/* Listings that show what the rename replaced are older than the directories' change: see cvfs_ops_dir.c. */
static void renamed(struct cvfs_request *r)
{
    if (r->q.result == 0) {
        cvfs_touch(r->fs, r->q.attr.inode);
        cvfs_touch(r->fs, r->q.inode);
        cvfs_touch(r->fs, r->q.inode2);
    }
    cvfs_reply_error(r, r->q.result);
}

static void rename_to(struct cvfs_request *r, uint64_t directory, uint32_t flags)
{
    begin(r, CURVINE_RENAME);
    r->q.inode2 = cvfs_inode_of(r->fs, directory);
    r->q.value = r->b;
    r->q.flags = flags;
    cvfs_submit(r, renamed);
}

void cvfs_op_rename(struct cvfs_request *r)
{
    rename_to(r, ((const struct fuse_rename_in *)r->arg)->newdir, 0);
}

void cvfs_op_rename2(struct cvfs_request *r)
{
    const struct fuse_rename2_in *in = r->arg;
    rename_to(r, in->newdir, in->flags);
}

/* ---- forgetting: we keep nothing the kernel's counts matter for ---------------------------------------------------------------- */

void cvfs_op_forget(struct cvfs_request *r)
{
    cvfs_node_forget(&r->fs->nodes, cvfs_inode_of(r->fs, r->in->nodeid));
    cvfs_reply_none(r);
}

void cvfs_op_batch_forget(struct cvfs_request *r)
{
    const struct fuse_batch_forget_in *in = r->arg;
    const struct fuse_forget_one *one = (const void *)r->b.p;
    uint32_t count = min(in->count, r->b.n / (uint32_t)sizeof(*one));
    for (uint32_t i = 0; i < count; i++)
        cvfs_node_forget(&r->fs->nodes, cvfs_inode_of(r->fs, one[i].nodeid));
    cvfs_reply_none(r);
}
