/* SPDX-License-Identifier: Apache-2.0 */
/* One rig (client_rig.h) and a file on it: what the tests of libcurvine's data path share. */
#pragma once

#include <semaphore.h>

#include "tests/unit/client_rig.h"

static struct rig rig;

static inline void expect_base(struct curvine_file *f, unsigned i, uint64_t offset, size_t n, size_t expected)
{
    uint8_t *p = malloc(n);
    ck_assert_int_eq(curvine_pread(f, p, n, offset), expected);
    for (size_t k = 0; k < expected; k++)
        if (p[k] != rig_base(RIG_FIRST_INODE + i, offset + k))
            ck_abort_msg("byte %zu", (size_t)offset + k);
    free(p);
}

static inline void with_base(uint64_t bytes)
{
    rig.files[0].size = rig.files[0].base_bytes = bytes;
    rig.files[0].base_version = 7;
}

static inline void end_file(struct curvine *cv, struct curvine_file *f)
{
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
}

/* ---- flushes and commits that take their time ---- */

static inline void wait_held(void)
{
    uint64_t until = clock_ns() + 5 * NS_PER_S;
    while (!atomic_load(&rig.held_commit)) {
        ck_assert_uint_lt(clock_ns(), until);
        usleep(1000);
    }
}

struct flush {
    struct curvine_request q;
    sem_t done;
};

static inline void on_flushed(struct curvine_request *q)
{
    sem_post(&container_of(q, struct flush, q)->done);
}

/* Begun when this returns: what follows on the handle's loop comes behind it. */
static inline void flush_begin(struct flush *f, struct curvine *cv, struct curvine_file *file)
{
    *f = (struct flush){.q = {.op = CURVINE_FLUSH, .file = file, .done = on_flushed}};
    sem_init(&f->done, 0, 0);
    curvine_submit(cv, &f->q);
    struct curvine_request next = {.op = CURVINE_GETATTR, .inode = curvine_file_inode(file)};
    ck_assert_int_eq(curvine_run(cv, &next), 0);
}

static inline int flush_end(struct flush *f)
{
    while (sem_wait(&f->done) < 0)
        ;
    sem_destroy(&f->done);
    return f->q.result;
}
