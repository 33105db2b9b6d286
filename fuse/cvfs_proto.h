/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's FUSE protocol: the header of the build host, and what newer kernels added, defined by us. Everything newer
 * than what the host's header has is a bit the kernel offers or does not: nothing here needs a newer kernel.
 */
#pragma once

#include <linux/fuse.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

/* open_out.open_flags */
#define CVFS_FOPEN_DIRECT_IO              (1u << 0)
#define CVFS_FOPEN_KEEP_CACHE             (1u << 1)
#define CVFS_FOPEN_NOFLUSH                (1u << 5) /* no FLUSH at close(2); since 5.16 */
#define CVFS_FOPEN_PARALLEL_DIRECT_WRITES (1u << 6) /* since 6.2 */

/* init flags; 32 and above travel in flags2, when the kernel offers INIT_EXT */
#define CVFS_INIT_EXT             (1ull << 30)
#define CVFS_DIRECT_IO_ALLOW_MMAP (1ull << 36) /* shared mappings of FOPEN_DIRECT_IO files; since 6.6 */

/* FUSE_INIT as of 5.17, whose flags2 older headers have among what is unused: Red Hat 9's may. */
struct cvfs_init_in {
    uint32_t major, minor;
    uint32_t max_readahead;
    uint32_t flags;
    uint32_t flags2; /* with CVFS_INIT_EXT */
    uint32_t unused[11];
};

struct cvfs_init_out {
    uint32_t major, minor;
    uint32_t max_readahead;
    uint32_t flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write;
    uint32_t time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2;
    uint32_t unused[7];
};
_Static_assert(sizeof(struct cvfs_init_in) == 64 && sizeof(struct cvfs_init_out) == sizeof(struct fuse_init_out),
               "the kernel's");

/* setattr_in.valid */
#define CVFS_FATTR_FH           (1u << 6)
#define CVFS_FATTR_KILL_SUIDGID (1u << 11)

/* write_in.write_flags */
#define CVFS_WRITE_CACHE        (1u << 0) /* from the page cache: nobody in particular asks */
#define CVFS_WRITE_KILL_SUIDGID (1u << 2)

/* Node id of the root: the directory that is mounted, whatever its inode number. */
#define CVFS_ROOT_NODE 1

/* Units of 8 bytes of extensions behind a request's arguments; since 6.2. In older headers the field is padding. */
static inline uint16_t cvfs_in_extlen(const struct fuse_in_header *in)
{
    _Static_assert(sizeof(*in) == 40, "pid is followed by total_extlen and padding");
    uint16_t n;
    memcpy(&n, (const char *)in + 36, sizeof(n));
    return n;
}

/* A request of the kernel without a name is at least this long in the buffer. */
#define CVFS_HEADER_BYTES ((uint32_t)sizeof(struct fuse_in_header))
