/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: one writev to the descriptor the request came from, then the operation's reference goes. An answer that the
 * kernel does not want any more (ENOENT: aborted; ENODEV: unmounted) is no error of ours.
 */
#include <errno.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "fuse/cvfs_internal.h"

/* ---- counting -------------------------------------------------------------------------------------------------------- */

struct cvfs_metrics *cvfs_count(struct cvfs *fs)
{
    static _Thread_local uint64_t mine_of; /* cvfs.number */
    static _Thread_local struct cvfs_metrics *mine;
    if (mine_of == fs->number)
        return mine;
    struct cvfs_block *b = calloc(1, sizeof(*b));
    mine_of = fs->number;
    mine = NULL;
    if (!b || !fs->config.metrics || metrics_block_new(fs->config.metrics, &cvfs_metric_set, &b->metrics) < 0) {
        free(b);
        return NULL;
    }
    mine = b->metrics;
    pthread_mutex_lock(&fs->metrics_lock);
    b->next = fs->blocks;
    fs->blocks = b;
    pthread_mutex_unlock(&fs->metrics_lock);
    return mine;
}

static enum cvfs_op_number number_of(const struct cvfs_request *r)
{
    static const uint8_t numbers[] = {
#define CVFS_OP(name, argument, names, run) [FUSE_##name] = CVFS_OP_##name,
#include "fuse/cvfs_ops.def"
    };
    return r->op && r->in->opcode < array_size(numbers) ? numbers[r->in->opcode] : CVFS_OP_OTHER;
}

static void finish(struct cvfs_request *r, int error)
{
    struct cvfs_metrics *m = cvfs_count(r->fs);
    if (m) {
        histogram_add(&m->op_ns[number_of(r)], clock_ns() - r->start_ns);
        if (error && error != -ENOENT && error != -ENODATA)
            counter_add(&m->errors, 1);
        if (error == -EINTR)
            counter_add(&m->interrupted, 1);
        if (error == -ETIMEDOUT)
            counter_add(&m->deadlines_missed, 1);
    }
    atomic_store(&r->unique, 0);
    cvfs_request_unref(r);
}

/* ---- sending ----------------------------------------------------------------------------------------------------------- */

/* 0, or -EFAULT. */
static int send_iov(struct cvfs_request *r, int error, struct iovec *iov, unsigned count)
{
    size_t n = sizeof(struct fuse_out_header);
    for (unsigned i = 1; i < count; i++)
        n += iov[i].iov_len;
    struct fuse_out_header head = {.len = (uint32_t)n, .error = error, .unique = r->in->unique};
    iov[0] = (struct iovec){&head, sizeof(head)};
    ssize_t sent;
    do
        sent = writev(r->fd, iov, (int)count);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0;
    if (errno == EFAULT)
        return -EFAULT;
    if (errno != ENOENT && errno != ENODEV)
        log_warn(-errno, "answer %s with %zu bytes", r->op ? r->op->name : "a request", n);
    return 0;
}

int cvfs_reply_iov(struct cvfs_request *r, struct iovec *iov, unsigned count)
{
    int error = send_iov(r, 0, iov, count);
    if (error == 0)
        finish(r, 0);
    return error;
}

/* The errno for the application. */
static int errno_of(const struct cvfs_request *r, int code)
{
    if (code == -CV_CANCELLED || code == -ECANCELED)
        return atomic_load(&r->interrupted) ? EINTR : ETIMEDOUT;
    int e = cv_error_errno(code);
    return e > 0 && e < 512 ? e : EIO; /* the kernel takes no others */
}

/* An application sees EIO only: what it was is said here, once a second at most. */
static void say_why(const struct cvfs_request *r, int code)
{
    static _Atomic uint64_t said_ns;
    uint64_t last = atomic_load(&said_ns), now = clock_ns();
    if (now - last >= NS_PER_S && atomic_compare_exchange_strong(&said_ns, &last, now))
        log_warn(code, "%s of inode %llu", r->op ? r->op->name : "a request", (unsigned long long)r->q.inode);
}

void cvfs_reply_error(struct cvfs_request *r, int code)
{
    struct iovec iov[1];
    int error = code < 0 ? -errno_of(r, code) : 0;
    if (error == -EIO)
        say_why(r, code);
    send_iov(r, error, iov, 1);
    finish(r, error);
}

void cvfs_reply_data(struct cvfs_request *r, const void *p, size_t n)
{
    struct iovec iov[2] = {{0}, {(void *)(uintptr_t)p, n}};
    if (cvfs_reply_iov(r, iov, 2) < 0)
        cvfs_reply_error(r, -EIO);
}

void cvfs_reply_none(struct cvfs_request *r)
{
    finish(r, 0);
}

/* ---- attributes ------------------------------------------------------------------------------------------------------------ */

void cvfs_fill_attr(const struct curvine_attr *attr, struct fuse_attr *out)
{
    struct timespec atime = ns_to_timespec(attr->atime_ns), mtime = ns_to_timespec(attr->mtime_ns),
                    ctime = ns_to_timespec(attr->ctime_ns);
    *out = (struct fuse_attr){
        .ino = attr->inode,
        .size = attr->size,
        .blocks = attr->blocks,
        .atime = (uint64_t)atime.tv_sec,
        .mtime = (uint64_t)mtime.tv_sec,
        .ctime = (uint64_t)ctime.tv_sec,
        .atimensec = (uint32_t)atime.tv_nsec,
        .mtimensec = (uint32_t)mtime.tv_nsec,
        .ctimensec = (uint32_t)ctime.tv_nsec,
        .mode = attr->mode,
        .nlink = attr->nlink,
        .uid = attr->uid,
        .gid = attr->gid,
        .rdev = (uint32_t)attr->rdev,
        .blksize = 4096,
    };
}

/* How long the kernel may believe it: never longer than the lease of the answer. */
static void set_valid(uint64_t most_ms, uint32_t lease_ms, uint64_t *seconds, uint32_t *ns)
{
    uint64_t ms = min(most_ms, (uint64_t)lease_ms);
    *seconds = ms / 1000;
    *ns = (uint32_t)(ms % 1000 * NS_PER_MS);
}

void cvfs_fill_entry(struct cvfs *fs, const struct curvine_attr *attr, uint32_t lease_ms, struct fuse_entry_out *out)
{
    *out = (struct fuse_entry_out){.nodeid = cvfs_node_of(fs, attr->inode)};
    set_valid(fs->options->entry_timeout_ms, lease_ms, &out->entry_valid, &out->entry_valid_nsec);
    set_valid(fs->options->attr_timeout_ms, lease_ms, &out->attr_valid, &out->attr_valid_nsec);
    cvfs_fill_attr(attr, &out->attr);
}

void cvfs_reply_entry(struct cvfs_request *r, const struct curvine_attr *attr)
{
    struct fuse_entry_out out;
    cvfs_fill_entry(r->fs, attr, r->q.lease_ms, &out);
    cvfs_reply_data(r, &out, sizeof(out));
}

void cvfs_reply_attr(struct cvfs_request *r, const struct curvine_attr *attr)
{
    struct fuse_attr_out out = {0};
    set_valid(r->fs->options->attr_timeout_ms, r->q.lease_ms, &out.attr_valid, &out.attr_valid_nsec);
    cvfs_fill_attr(attr, &out.attr);
    cvfs_reply_data(r, &out, sizeof(out));
}

/* ---- what changed here ------------------------------------------------------------------------------------------------------- */

void cvfs_touch(struct cvfs *fs, uint64_t inode)
{
    atomic_store_explicit(&fs->touched[hash_u64(inode) % CVFS_TOUCHED], clock_ns(), memory_order_release);
}

uint64_t cvfs_touched_ns(struct cvfs *fs, uint64_t inode)
{
    return atomic_load_explicit(&fs->touched[hash_u64(inode) % CVFS_TOUCHED], memory_order_acquire);
}
