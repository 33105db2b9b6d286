/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libcurvine that does what the test says, for tests of cv-fuse: the program defines the library's functions itself, so
 * that the linker takes none of the real ones. Requests wait until the test answers them, or are answered by fake.answer.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "client/curvine.h"

#define FAKE_WAITING_MAX 64

static struct fake_curvine {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct curvine_request *waiting[FAKE_WAITING_MAX];
    _Atomic unsigned count, submitted, cancelled, pins; /* written under the lock, or alone; read by tests without it */
    /* Fill the results and return true to answer at once. */
    bool (*answer)(struct curvine_request *q);
    int64_t (*pieces)(uint64_t offset, uint32_t length, struct curvine_piece *pieces, unsigned *ret_count);
    uint64_t file_size;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

void curvine_submit(struct curvine *cv, struct curvine_request *q)
{
    if (fake.answer && fake.answer(q)) {
        q->done(q);
        return;
    }
    pthread_mutex_lock(&fake.lock);
    fake.waiting[fake.count++] = q;
    fake.submitted++;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
}

static bool fake_take(struct curvine_request *q)
{
    bool found = false;
    pthread_mutex_lock(&fake.lock);
    for (unsigned i = 0; i < fake.count && !found; i++)
        if (fake.waiting[i] == q) {
            fake.waiting[i] = fake.waiting[--fake.count];
            found = true;
        }
    pthread_mutex_unlock(&fake.lock);
    return found;
}

void curvine_cancel(struct curvine *cv, struct curvine_request *q)
{
    if (!fake_take(q))
        return;
    fake.cancelled++;
    q->result = -CV_CANCELLED;
    q->done(q);
}

int curvine_run(struct curvine *cv, struct curvine_request *q)
{
    q->result = 0;
    if (fake.answer)
        fake.answer(q);
    return q->result;
}

void curvine_request_free(struct curvine_request *q)
{
}

int64_t curvine_read_pieces(struct curvine_file *file, uint64_t offset, uint32_t length, struct curvine_piece *pieces,
                            unsigned max, unsigned *ret_count, void **ret_pin)
{
    int64_t r = fake.pieces ? fake.pieces(offset, length, pieces, ret_count) : -EAGAIN;
    if (r >= 0) {
        fake.pins++;
        *ret_pin = &fake;
    }
    return r;
}

void curvine_pieces_done(struct curvine_file *file, void *pin)
{
    fake.pins--;
}

uint64_t curvine_file_size(const struct curvine_file *file)
{
    return fake.file_size;
}

/* Wait for one more request that nobody answers. */
static inline struct curvine_request *fake_next(void)
{
    pthread_mutex_lock(&fake.lock);
    while (fake.count == 0)
        pthread_cond_wait(&fake.changed, &fake.lock);
    struct curvine_request *q = fake.waiting[0];
    pthread_mutex_unlock(&fake.lock);
    return q;
}

static inline void fake_end(struct curvine_request *q, int result)
{
    if (!fake_take(q))
        return;
    q->result = result;
    q->done(q);
}
