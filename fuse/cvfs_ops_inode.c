/* SPDX-License-Identifier: Apache-2.0 */
/* Inodes: attributes, symlink targets, extended attributes, the file system as a whole. */
#include <errno.h>
#include <linux/limits.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "fuse/cvfs_internal.h"

static void begin(struct cvfs_request *r, enum curvine_op op)
{
    r->q.op = op;
    r->q.inode = cvfs_inode_of(r->fs, r->in->nodeid);
}

static void answer_error(struct cvfs_request *r)
{
    cvfs_reply_error(r, r->q.result);
}

static struct curvine_file *file_of(struct cvfs_request *r, uint64_t number)
{
    struct cvfs_handle *h = cvfs_handle_get(&r->fs->handles, number);
    return h ? h->file : NULL;
}

/* ---- attributes ------------------------------------------------------------------------------------------------------------ */

static void got_attr(struct cvfs_request *r)
{
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    cvfs_node_see(&r->fs->nodes, &r->q.attr);
    cvfs_reply_attr(r, &r->q.attr);
}

void cvfs_op_getattr(struct cvfs_request *r)
{
    const struct fuse_getattr_in *in = r->arg;
    begin(r, CURVINE_GETATTR);
    if (in->getattr_flags & FUSE_GETATTR_FH)
        r->q.file = file_of(r, in->fh);
    cvfs_submit(r, got_attr);
}

static void changed_attr(struct cvfs_request *r)
{
    if (r->q.result == 0)
        cvfs_touch(r->fs, r->q.attr.inode);
    got_attr(r);
}

/* The bits of valid are FUSE's own; clearing set-id bits when a size changes is the master's. */
void cvfs_op_setattr(struct cvfs_request *r)
{
    const struct fuse_setattr_in *in = r->arg;
    const uint32_t known = CURVINE_SET_MODE | CURVINE_SET_UID | CURVINE_SET_GID | CURVINE_SET_SIZE | CURVINE_SET_ATIME |
                           CURVINE_SET_MTIME | CURVINE_SET_ATIME_NOW | CURVINE_SET_MTIME_NOW;
    begin(r, CURVINE_SETATTR);
    r->q.valid = in->valid & known;
    r->q.mode = in->mode;
    r->q.uid = in->uid;
    r->q.gid = in->gid;
    r->q.size = in->size;
    r->q.atime_ns = ns_of_timespec((int64_t)in->atime, in->atimensec);
    r->q.mtime_ns = ns_of_timespec((int64_t)in->mtime, in->mtimensec);
    if (in->valid & CVFS_FATTR_FH)
        r->q.file = file_of(r, in->fh);
    cvfs_submit(r, changed_attr);
}

void cvfs_op_access(struct cvfs_request *r)
{
    begin(r, CURVINE_ACCESS);
    r->q.mode = ((const struct fuse_access_in *)r->arg)->mask;
    cvfs_submit(r, answer_error);
}

static void got_target(struct cvfs_request *r)
{
    if (r->q.result < 0)
        cvfs_reply_error(r, r->q.result);
    else
        cvfs_reply_data(r, r->q.data.p, r->q.data.n);
}

void cvfs_op_readlink(struct cvfs_request *r)
{
    begin(r, CURVINE_READLINK);
    cvfs_submit(r, got_target);
}

/* ---- extended attributes ------------------------------------------------------------------------------------------------------ */

/* POSIX ACLs are not kept: answered without asking anybody, since ls asks for each file. */
static bool is_foreign(const struct cvfs_request *r)
{
    return r->a.n >= 7 && memcmp(r->a.p, "system.", 7) == 0;
}

static void got_value(struct cvfs_request *r)
{
    uint32_t room = ((const struct fuse_getxattr_in *)r->arg)->size;
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
    } else if (room == 0) { /* how long is it? */
        struct fuse_getxattr_out out = {.size = r->q.data.n};
        cvfs_reply_data(r, &out, sizeof(out));
    } else if (r->q.data.n > room) {
        cvfs_reply_error(r, -ERANGE);
    } else {
        cvfs_reply_data(r, r->q.data.p, r->q.data.n);
    }
}

/* The kernel asks for it before the first write to each file, whether it is to be taken away. */
static bool is_capability(const struct cvfs_request *r)
{
    static const char name[] = "security.capability";
    return r->a.n == sizeof(name) - 1 && memcmp(r->a.p, name, r->a.n) == 0;
}

void cvfs_op_getxattr(struct cvfs_request *r)
{
    if (is_foreign(r)) {
        cvfs_reply_error(r, -EOPNOTSUPP);
        return;
    }
    begin(r, CURVINE_GETXATTR);
    if (is_capability(r) && cvfs_node_is_plain(&r->fs->nodes, r->q.inode, r->start_ns)) {
        cvfs_reply_error(r, -ENODATA);
        return;
    }
    r->q.name = r->a;
    cvfs_submit(r, got_value);
}

void cvfs_op_listxattr(struct cvfs_request *r)
{
    begin(r, CURVINE_LISTXATTR);
    cvfs_submit(r, got_value);
}

/* From its beginning to its end it may or may not have them. */
static void no_more_plain(struct cvfs_request *r)
{
    cvfs_touch(r->fs, r->q.inode);
    cvfs_node_set_plain(&r->fs->nodes, r->q.inode, 0);
}

static void xattr_set(struct cvfs_request *r)
{
    no_more_plain(r);
    cvfs_reply_error(r, r->q.result);
}

void cvfs_op_setxattr(struct cvfs_request *r)
{
    const struct fuse_setxattr_in *in = r->arg; /* its first two fields: SETXATTR_EXT is not in use */
    if (is_foreign(r) || in->size > r->b.n) {
        cvfs_reply_error(r, is_foreign(r) ? -EOPNOTSUPP : -EINVAL);
        return;
    }
    begin(r, CURVINE_SETXATTR);
    no_more_plain(r);
    r->q.name = r->a;
    r->q.value = (struct curvine_text){r->b.p, in->size};
    r->q.flags = in->flags;
    cvfs_submit(r, xattr_set);
}

void cvfs_op_removexattr(struct cvfs_request *r)
{
    if (is_foreign(r)) {
        cvfs_reply_error(r, -EOPNOTSUPP);
        return;
    }
    begin(r, CURVINE_REMOVEXATTR);
    r->q.name = r->a;
    cvfs_submit(r, answer_error);
}

/* ---- the file system ------------------------------------------------------------------------------------------------------------- */

static void got_statfs(struct cvfs_request *r)
{
    const struct curvine_statfs *s = &r->q.statfs;
    enum { UNIT = 4096 };
    if (r->q.result < 0) {
        cvfs_reply_error(r, r->q.result);
        return;
    }
    struct fuse_statfs_out out = {
        .st =
            {
                .blocks = s->total_bytes / UNIT,
                .bfree = s->free_bytes / UNIT,
                .bavail = s->free_bytes / UNIT,
                .files = s->inodes + s->free_inodes,
                .ffree = s->free_inodes,
                .bsize = UNIT,
                .frsize = UNIT,
                .namelen = s->name_max ? s->name_max : NAME_MAX,
            },
    };
    cvfs_reply_data(r, &out, sizeof(out));
}

void cvfs_op_statfs(struct cvfs_request *r)
{
    begin(r, CURVINE_STATFS);
    cvfs_submit(r, got_statfs);
}
