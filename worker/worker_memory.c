/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"

#define ALL_MAX (1ull << 30) /* bytes, of all connections: who gets none writes through the socket */

static _Atomic uint64_t all;

static int make(uint32_t bytes, struct worker_memory *m, int *ret_fd)
{
    int fd cleanup(closep) = memfd_create("cv-worker-writes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *m = (struct worker_memory){.refs = 1, .bytes = bytes, .p = p};
    *ret_fd = take_fd(fd);
    return 0;
}

int worker_memory_new(uint32_t bytes, struct worker_memory **ret, int *ret_fd)
{
    if (bytes < WORKER_MEMORY_MIN || bytes > WORKER_MEMORY_MAX)
        return -EINVAL;
    struct worker_memory *m cleanup(freep) = malloc(sizeof(*m));
    int r = m ? 0 : -ENOMEM;
    if (atomic_fetch_add(&all, bytes) + bytes > ALL_MAX)
        r = -CV_BUSY;
    if (r == 0)
        r = make(bytes, m, ret_fd);
    if (r < 0) {
        atomic_fetch_sub(&all, bytes);
        return r;
    }
    *ret = take(m);
    return 0;
}

struct worker_memory *worker_memory_ref(struct worker_memory *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

struct worker_memory *worker_memory_unref(struct worker_memory *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
        munmap((void *)(uintptr_t)m->p, m->bytes);
        atomic_fetch_sub(&all, m->bytes);
        free(m);
    }
    return NULL;
}
