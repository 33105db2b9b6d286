/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_health.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "wire/frame.h"
#include "wire/link.h"
#include "wire/message.h"

struct master_health {
    struct net_address address;
    uint64_t master, beat;
    int fd; /* the thread's */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* guards stop */
    pthread_cond_t stopped;
    bool stop;
};

/* One beat; a connection that does not take it at once is dropped: the next beat begins a new one. */
static void beat_once(struct master_health *h)
{
    if (h->fd < 0 && net_socket(&h->address, &h->fd) < 0)
        return;
    uint8_t out[FRAME_HEADER_SIZE + 32];
    struct msg_link_health m = {.beat = ++h->beat, .master = h->master};
    size_t n = (size_t)(wire_put(msg_link_health_desc(), &m, out + FRAME_HEADER_SIZE) - out - FRAME_HEADER_SIZE);
    struct frame_header head = {
        .type = MSG_link_health,
        .flags = FRAME_ONE_WAY,
        .body_len = (uint32_t)n,
        .body_crc = crc32c(0, out + FRAME_HEADER_SIZE, n),
    };
    frame_encode(&head, out);
    /* A unix socket connects at once or not at all; the second time it says EISCONN. */
    bool connected = connect(h->fd, &h->address.any, h->address.n) == 0 || errno == EISCONN;
    ssize_t sent = connected ? send(h->fd, out, FRAME_HEADER_SIZE + n, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;
    if (sent != (ssize_t)(FRAME_HEADER_SIZE + n))
        h->fd = close_fd(h->fd);
}

static void *health_main(void *arg)
{
    struct master_health *h = arg;
    pthread_setname_np(pthread_self(), "health");
    pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        pthread_mutex_unlock(&h->lock);
        beat_once(h);
        pthread_mutex_lock(&h->lock);
        if (h->stop)
            break;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + LINK_HEALTH_MS * NS_PER_MS;
        until.tv_sec += (time_t)(ns / NS_PER_S);
        until.tv_nsec = (long)(ns % NS_PER_S);
        pthread_cond_timedwait(&h->stopped, &h->lock, &until);
    }
    pthread_mutex_unlock(&h->lock);
    h->fd = close_fd(h->fd);
    return NULL;
}

int master_health_new(const struct net_address *address, uint64_t master, struct master_health **ret)
{
    struct master_health *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    *h = (struct master_health){.address = *address, .master = master, .fd = -1};
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&h->stopped, &a);
    pthread_condattr_destroy(&a);
    *ret = h;
    return 0;
}

int master_health_start(struct master_health *h)
{
    int r = -pthread_create(&h->thread, NULL, health_main, h);
    h->running = r == 0;
    return r;
}

struct master_health *master_health_free(struct master_health *h)
{
    if (!h)
        return NULL;
    if (h->running) {
        pthread_mutex_lock(&h->lock);
        h->stop = true;
        pthread_cond_signal(&h->stopped);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->thread, NULL);
    }
    pthread_cond_destroy(&h->stopped);
    pthread_mutex_destroy(&h->lock);
    free(h);
    return NULL;
}
