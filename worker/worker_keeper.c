/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

struct worker_keeper {
    struct block_store *store;
    pthread_t thread;
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

static void *run(void *arg)
{
    struct worker_keeper *k = arg;
    int before = 0;
    while (rest(k)) {
        int r = block_store_maintain(k->store);
        if (r < 0 && r != before)
            log_error(r, "housekeeping of the block store");
        before = r;
    }
    return NULL;
}

int worker_keeper_start(struct block_store *s, struct worker_keeper **ret)
{
    struct worker_keeper *k = calloc(1, sizeof(*k));
    pthread_condattr_t attr;
    if (!k)
        return -ENOMEM;
    k->store = s;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->stop, &attr);
    pthread_condattr_destroy(&attr);
    int r = pthread_create(&k->thread, NULL, run, k);
    if (r != 0) {
        free(k);
        return -r;
    }
    pthread_setname_np(k->thread, "keeper");
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
    pthread_join(k->thread, NULL);
    pthread_cond_destroy(&k->stop);
    pthread_mutex_destroy(&k->lock);
    free(k);
    return NULL;
}
