/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE_INIT. What we use is an allow-list: a feature the kernel offers and we do not know stays off. Left off on purpose:
 * WRITEBACK_CACHE (it excludes passthrough, and sizes would be the kernel's to decide), EXPORT_SUPPORT (look-ups of ".."),
 * POSIX_LOCKS and FLOCK_LOCKS (the kernel keeps locks of this host), AUTO_INVAL_DATA (every write here would drop all pages
 * of its file; what others wrote is seen at the next open), SPLICE_* (buffers are mapped), POSIX_ACL.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/cvfs_internal.h"

#define INIT_WAIT_MS 10000
#define MINOR_MIN    31 /* Linux 5.4: max_pages, and all structs as we use them */

static const struct feature {
    uint64_t flag;
    const char *name;
} allowed[] = {
    {FUSE_ASYNC_READ, "async_read"},
    {FUSE_ATOMIC_O_TRUNC, "atomic_o_trunc"},
    {FUSE_BIG_WRITES, "big_writes"},
    {FUSE_DONT_MASK, "dont_mask"},
    {FUSE_DO_READDIRPLUS, "readdirplus"},
    {FUSE_READDIRPLUS_AUTO, "readdirplus_auto"},
    {FUSE_ASYNC_DIO, "async_dio"},
    {FUSE_PARALLEL_DIROPS, "parallel_dirops"},
    {FUSE_ABORT_ERROR, "abort_error"},
    {FUSE_MAX_PAGES, "max_pages"},
    {FUSE_HANDLE_KILLPRIV_V2, "handle_killpriv_v2"},
    {CVFS_INIT_EXT, "init_ext"},
    {CVFS_DIRECT_IO_ALLOW_MMAP, "direct_io_allow_mmap"},
};

int cvfs_negotiate(const struct cvfs_options *options, const struct cvfs_init_in *in, uint32_t in_bytes,
                   struct cvfs_init_out *out, uint64_t *ret_features)
{
    if (in_bytes < offsetof(struct cvfs_init_in, flags2) || in->major != FUSE_KERNEL_VERSION || in->minor < MINOR_MIN)
        return -EPROTO;
    uint64_t offered = in->flags, features = 0;
    if (offered & CVFS_INIT_EXT && in_bytes >= offsetof(struct cvfs_init_in, unused))
        offered |= (uint64_t)in->flags2 << 32;
    for (size_t i = 0; i < array_size(allowed); i++)
        features |= allowed[i].flag & offered;
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE), write_max = (uint32_t)options->write_bytes_max / page * page;
    uint32_t background = min(max(options->requests_max / 2, 4u), 64u);
    *out = (struct cvfs_init_out){
        .major = FUSE_KERNEL_VERSION,
        .minor = min(in->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION),
        .max_readahead = in->max_readahead,
        .flags = (uint32_t)features,
        .flags2 = (uint32_t)(features >> 32),
        .max_background = (uint16_t)background,
        .congestion_threshold = (uint16_t)(background * 3 / 4),
        .max_write = write_max,
        .time_gran = 1,
        .max_pages = (uint16_t)(write_max / page),
    };
    *ret_features = features;
    return 0;
}

static void log_features(const struct cvfs *fs, const struct cvfs_init_in *in)
{
    char text[512] = "";
    size_t n = 0;
    for (size_t i = 0; i < array_size(allowed) && n < sizeof(text); i++)
        if (fs->features & allowed[i].flag)
            n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", allowed[i].name);
    log_info("kernel protocol %u.%u, requests up to %u KiB:%s", in->major, in->minor, fs->write_max / 1024, text);
}

/* The first request, on the mount's descriptor, before any thread reads there. */
static int read_init(struct cvfs *fs, struct cvfs_request *r, size_t *ret)
{
    struct pollfd p = {.fd = fs->config.fd, .events = POLLIN};
    uint64_t until = clock_ms() + INIT_WAIT_MS;
    for (;;) {
        uint64_t now = clock_ms();
        int ready = now < until ? poll(&p, 1, (int)(until - now)) : 0;
        if (ready == 0)
            return -ETIMEDOUT;
        ssize_t n =
            ready < 0 ? -1 : read(fs->config.fd, r->slot + CVFS_WRITE_AT, fs->channel.slot_bytes - CVFS_WRITE_AT);
        if (n >= 0) {
            *ret = (size_t)n;
            return 0;
        }
        if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
            return -errno;
    }
}

static int answer(struct cvfs *fs, uint64_t unique, int error, const struct cvfs_init_out *out)
{
    struct fuse_out_header head = {.len = sizeof(head) + (out ? sizeof(*out) : 0), .error = error, .unique = unique};
    struct iovec iov[] = {{&head, sizeof(head)}, {(void *)(uintptr_t)out, sizeof(*out)}};
    return writev(fs->config.fd, iov, out ? 2 : 1) < 0 ? -errno : 0;
}

int cvfs_init_answer(struct cvfs *fs)
{
    struct cvfs_request *r = &fs->channel.requests[0]; /* nobody uses requests yet */
    struct cvfs_init_out out;
    size_t n = 0;
    for (;;) {
        int error = read_init(fs, r, &n);
        if (error < 0)
            return log_error(error, "wait for the kernel's FUSE_INIT");
        const struct fuse_in_header *head = (const void *)(r->slot + CVFS_WRITE_AT);
        if (n < sizeof(*head) || head->opcode != FUSE_INIT)
            return log_error(-EPROTO, "the kernel's first request is not FUSE_INIT");
        const struct cvfs_init_in *in = (const void *)(head + 1);
        if (n >= sizeof(*head) + 2 * sizeof(uint32_t) && in->major > FUSE_KERNEL_VERSION) {
            out = (struct cvfs_init_out){.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};
            error = answer(fs, head->unique, 0, &out); /* it asks again, in our version */
            if (error < 0)
                return log_error(error, "answer FUSE_INIT");
            continue;
        }
        error = cvfs_negotiate(fs->options, in, (uint32_t)(n - sizeof(*head)), &out, &fs->features);
        if (error < 0) {
            answer(fs, head->unique, -EPROTO, NULL);
            return log_error(error, "the kernel speaks FUSE protocol %u.%u; at least %u.%u is needed", in->major,
                             in->minor, FUSE_KERNEL_VERSION, MINOR_MIN);
        }
        fs->write_max = out.max_write;
        log_features(fs, in);
        error = answer(fs, head->unique, 0, &out);
        return error < 0 ? log_error(error, "answer FUSE_INIT") : 0;
    }
}
