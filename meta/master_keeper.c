/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

enum { ROOM_BYTES = 16 << 20, ROOM_LOOK_S = 1 };

struct master_keeper {
    struct master_config config; /* as given to the master: failed and install are ours */
    void (*failed)(void *arg, int error);
    void *arg;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards the following */
    pthread_cond_t changed;
    bool again, stop;
    bool no_room; /* not before there is some */

    pthread_rwlock_t master_lock; /* guards master against the keeper's thread replacing it */
    struct master *master;        /* NULL: none now */
};

static void has_failed(void *arg, int error)
{
    struct master_keeper *k = arg;
    if (k->failed)
        k->failed(k->arg, error);
}

static void wants_install(void *arg)
{
    struct master_keeper *k = arg;
    pthread_mutex_lock(&k->lock);
    k->again = true;
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

static void ran_out_of_room(void *arg)
{
    struct master_keeper *k = arg;
    pthread_mutex_lock(&k->lock);
    k->again = k->no_room = true;
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

/* A database that is opened writes a little, and must not fail at it: some builds of it abort. */
static bool has_room(const struct master_keeper *k)
{
    struct statvfs fs;
    return statvfs(k->config.options->dir, &fs) < 0 || (uint64_t)fs.f_bavail * fs.f_frsize >= ROOM_BYTES;
}

/* Without the lock. What the master gave away another one may have by now, so it is stopped first. */
static void wait_for_room(struct master_keeper *k)
{
    pthread_rwlock_wrlock(&k->master_lock);
    k->master = master_free(k->master);
    pthread_rwlock_unlock(&k->master_lock);
    log_warn(-ENOSPC, "the master waits for room in %s", k->config.options->dir);
    pthread_mutex_lock(&k->lock);
    do {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += ROOM_LOOK_S;
        if (!k->stop)
            pthread_cond_timedwait(&k->changed, &k->lock, &until);
    } while (!k->stop && !has_room(k));
    pthread_mutex_unlock(&k->lock);
}

/* Under the write lock. */
static int begin_anew(struct master_keeper *k)
{
    uint64_t began = clock_ns();
    k->master = master_free(k->master);
    int r = master_new(&k->config, &k->master);
    if (r == 0)
        r = master_start(k->master);
    if (r == 0)
        log_info("began anew in %llu ms", (unsigned long long)((clock_ns() - began) / NS_PER_MS));
    return r;
}

static void *keeper_main(void *arg)
{
    struct master_keeper *k = arg;
    pthread_setname_np(pthread_self(), "keeper");
    pthread_mutex_lock(&k->lock);
    while (!k->stop) {
        if (!k->again) {
            pthread_cond_wait(&k->changed, &k->lock);
            continue;
        }
        bool wait = k->no_room;
        k->again = false;
        pthread_mutex_unlock(&k->lock);
        if (wait)
            wait_for_room(k);
        pthread_mutex_lock(&k->lock);
        if (k->stop)
            break;
        k->no_room = false;
        pthread_mutex_unlock(&k->lock);
        pthread_rwlock_wrlock(&k->master_lock);
        int r = begin_anew(k);
        pthread_rwlock_unlock(&k->master_lock);
        if (r == -ENOSPC)
            ran_out_of_room(k);
        else if (r < 0)
            has_failed(k, r);
        pthread_mutex_lock(&k->lock);
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

int master_keeper_new(const struct master_config *config, struct master_keeper **ret)
{
    struct master_keeper *k = calloc(1, sizeof(*k));
    if (!k)
        return -ENOMEM;
    k->config = *config;
    k->failed = config->failed;
    k->arg = config->arg;
    k->config.failed = has_failed;
    k->config.install = wants_install;
    k->config.no_room = ran_out_of_room;
    k->config.arg = k;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&k->changed, &a);
    pthread_condattr_destroy(&a);
    pthread_rwlock_init(&k->master_lock, NULL);
    int r = has_room(k) ? master_new(&k->config, &k->master) : -ENOSPC;
    if (r == -ENOSPC) {
        ran_out_of_room(k);
        r = 0;
    }
    if (r < 0) {
        master_keeper_free(k);
        return r;
    }
    *ret = k;
    return 0;
}

struct master_keeper *master_keeper_free(struct master_keeper *k)
{
    if (!k)
        return NULL;
    master_keeper_stop(k);
    master_free(k->master);
    pthread_rwlock_destroy(&k->master_lock);
    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->lock);
    free(k);
    return NULL;
}

int master_keeper_start(struct master_keeper *k)
{
    int r = -pthread_create(&k->thread, NULL, keeper_main, k);
    k->started = r == 0;
    if (r < 0)
        return log_error(r, "thread keeper");
    pthread_rwlock_rdlock(&k->master_lock);
    r = k->master ? master_start(k->master) : 0; /* it waits for room */
    pthread_rwlock_unlock(&k->master_lock);
    return r;
}

void master_keeper_stop(struct master_keeper *k)
{
    if (k->started) {
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_broadcast(&k->changed);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
        k->started = false;
    }
    if (k->master)
        master_stop(k->master);
}

/* ---- questions ------------------------------------------------------------------------------------------------------ */

static bool waits_for_room(struct master_keeper *k)
{
    pthread_mutex_lock(&k->lock);
    bool waits = k->no_room;
    pthread_mutex_unlock(&k->lock);
    return waits;
}

int master_keeper_ready(struct master_keeper *k, char *why, size_t why_size)
{
    int r = -CV_BUSY;
    bool there = pthread_rwlock_tryrdlock(&k->master_lock) == 0;
    if (there && k->master)
        r = master_ready(k->master, why, why_size);
    else
        snprintf(why, why_size, "%s",
                 waits_for_room(k) ? "waiting for room on its disk"
                                   : "beginning anew with the state of another master");
    if (there)
        pthread_rwlock_unlock(&k->master_lock);
    return r;
}

int master_keeper_wait_ready(struct master_keeper *k, uint32_t timeout_ms)
{
    char why[128];
    uint64_t until = clock_ns() + timeout_ms * NS_PER_MS;
    int r;
    while ((r = master_keeper_ready(k, why, sizeof(why))) < 0 && clock_ns() < until)
        usleep(1000);
    return r;
}

int master_keeper_status_page(struct master_keeper *k, struct buf *out)
{
    pthread_rwlock_rdlock(&k->master_lock);
    int r = k->master ? master_status_page(k->master, out) : -CV_BUSY;
    pthread_rwlock_unlock(&k->master_lock);
    return r;
}
