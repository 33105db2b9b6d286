/* SPDX-License-Identifier: Apache-2.0 */
#include "base/queue.h"

#include <assert.h>
#include <errno.h>

#include "base/clock.h"
#include "base/error.h"

void queue_init(struct queue *q, uint32_t limit)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->filled, &attr);
    pthread_condattr_destroy(&attr);
    list_init(&q->elements);
    q->count = 0;
    q->limit = limit;
    q->sleeping = q->closed = false;
}

void queue_fini(struct queue *q)
{
    assert(list_empty(&q->elements));
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
}

/* Unlock and wake the consumer if it sleeps: after the unlock, so that it does not wake into a held lock. */
static void unlock_and_wake(struct queue *q)
{
    bool wake = q->sleeping;
    q->sleeping = false;
    pthread_mutex_unlock(&q->lock);
    if (wake)
        pthread_cond_signal(&q->filled);
}

static int push(struct queue *q, struct list *element, bool bounded)
{
    pthread_mutex_lock(&q->lock);
    int r = q->closed ? -CV_STOPPING : bounded && q->count >= q->limit ? -CV_BUSY : 0;
    if (r < 0) {
        pthread_mutex_unlock(&q->lock);
        return r;
    }
    list_push_back(&q->elements, element);
    q->count++;
    unlock_and_wake(q);
    return 0;
}

int queue_push(struct queue *q, struct list *element)
{
    return push(q, element, true);
}

int queue_push_unbounded(struct queue *q, struct list *element)
{
    return push(q, element, false);
}

bool queue_take_all(struct queue *q, struct list *out, uint64_t timeout_ns)
{
    pthread_mutex_lock(&q->lock);
    if (q->count == 0 && !q->closed && timeout_ns) {
        q->sleeping = true;
        if (timeout_ns == UINT64_MAX) {
            while (q->sleeping)
                pthread_cond_wait(&q->filled, &q->lock);
        } else {
            uint64_t until = clock_read(CLOCK_MONOTONIC) + timeout_ns;
            struct timespec t = {.tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S)};
            while (q->sleeping && pthread_cond_timedwait(&q->filled, &q->lock, &t) != ETIMEDOUT)
                ;
            q->sleeping = false;
        }
    }
    bool open = !q->closed || q->count > 0;
    list_append_all(out, &q->elements);
    q->count = 0;
    pthread_mutex_unlock(&q->lock);
    return open;
}

void queue_wake(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    unlock_and_wake(q);
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    unlock_and_wake(q);
}

uint32_t queue_depth(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    uint32_t n = q->count;
    pthread_mutex_unlock(&q->lock);
    return n;
}
