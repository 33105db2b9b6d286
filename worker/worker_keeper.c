/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define DIRTY_PAGES 16 /* of 256 blocks, a second */

struct worker_keeper {
    struct worker_core *core;
    struct block_cursor dirty_at; /* how far this pass has got */
    uint64_t dirty_bytes;
    pthread_t thread, flow;
    pthread_mutex_t lock; /* guards stopping */
    pthread_cond_t stop;
    bool stopping;
};

/* Sleep a second. Returns false when it is time to stop. */
static bool rest(struct worker_keeper *k)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    pthread_mutex_lock(&k->lock);
    while (!k->stopping && pthread_cond_timedwait(&k->stop, &k->lock, &until) == 0)
        ;
    bool go_on = !k->stopping;
    pthread_mutex_unlock(&k->lock);
    return go_on;
}

/* A part of a pass; at its end the sum is published. */
static int count_dirty(struct worker_keeper *k)
{
    for (int i = 0; i < DIRTY_PAGES; i++) {
        int n = block_store_dirty(k->core->store, &k->dirty_at, 256, &k->dirty_bytes);
        if (n < 0)
            return n;
        if (n == 0) {
            k->core->dirty_bytes = k->dirty_bytes;
            k->dirty_at = (struct block_cursor){0};
            k->dirty_bytes = 0;
            break;
        }
    }
    return 0;
}

static void *run(void *arg)
{
    struct worker_keeper *k = arg;
    int before = 0;
    while (rest(k)) {
        int r = block_store_maintain(k->core->store);
        r = r < 0 ? r : count_dirty(k);
        if (r < 0 && r != before)
            log_error(r, "housekeeping of the block store");
        before = r;
    }
    return NULL;
}

/* Large files on their way to the disk. */
static void *flow(void *arg)
{
    struct worker_keeper *k = arg;
    while (block_store_flow(k->core->store))
        ;
    return NULL;
}

/* Both threads, or none. */
static int start(struct worker_keeper *k)
{
    int r = -pthread_create(&k->flow, NULL, flow, k);
    if (r < 0)
        return r;
    pthread_setname_np(k->flow, "flow");
    r = -pthread_create(&k->thread, NULL, run, k);
    if (r < 0) {
        block_store_flow_end(k->core->store);
        pthread_join(k->flow, NULL);
        return r;
    }
    pthread_setname_np(k->thread, "keeper");
    return 0;
}

int worker_keeper_start(struct worker_core *core, struct worker_keeper **ret)
{
    struct worker_keeper *k = calloc(1, sizeof(*k));
    pthread_condattr_t attr;
    if (!k)
        return -ENOMEM;
    k->core = core;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->stop, &attr);
    pthread_condattr_destroy(&attr);
    int r = start(k);
    if (r < 0) {
        free(k);
        return r;
    }
    *ret = k;
    return 0;
}

struct worker_keeper *worker_keeper_stop(struct worker_keeper *k)
{
    if (!k)
        return NULL;
    pthread_mutex_lock(&k->lock);
    k->stopping = true;
    pthread_cond_signal(&k->stop);
    pthread_mutex_unlock(&k->lock);
    block_store_flow_end(k->core->store);
    pthread_join(k->thread, NULL);
    pthread_join(k->flow, NULL);
    pthread_cond_destroy(&k->stop);
    pthread_mutex_destroy(&k->lock);
    free(k);
    return NULL;
}
