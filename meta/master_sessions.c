/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing, linear probing, at most half full; removal moves followers up, so there are no tombstones. */
#include "meta/master_sessions.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"

#define FIRST_SLOTS 1024u

struct slot {
    uint64_t session; /* 0: empty */
    uint64_t heard_ns;
};

struct master_sessions {
    pthread_mutex_t lock; /* guards all below */
    struct slot *slots;
    uint32_t size, count, max; /* size: a power of two */
};

int master_sessions_new(uint32_t sessions_max, struct master_sessions **ret)
{
    struct master_sessions *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->size = FIRST_SLOTS;
    s->max = sessions_max;
    s->slots = calloc(s->size, sizeof(*s->slots));
    if (!s->slots) {
        free(s);
        return -ENOMEM;
    }
    pthread_mutex_init(&s->lock, NULL);
    *ret = s;
    return 0;
}

struct master_sessions *master_sessions_free(struct master_sessions *s)
{
    if (!s)
        return NULL;
    pthread_mutex_destroy(&s->lock);
    free(s->slots);
    free(s);
    return NULL;
}

/* Its slot, or the empty one where it belongs. */
static struct slot *find(const struct master_sessions *s, uint64_t session)
{
    uint32_t i = (uint32_t)hash_u64(session) & (s->size - 1);
    while (s->slots[i].session && s->slots[i].session != session)
        i = (i + 1) & (s->size - 1);
    return &s->slots[i];
}

static int grow(struct master_sessions *s)
{
    struct master_sessions bigger = *s;
    bigger.size *= 2;
    bigger.slots = calloc(bigger.size, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->size; i++)
        if (s->slots[i].session)
            *find(&bigger, s->slots[i].session) = s->slots[i];
    free(s->slots);
    s->slots = bigger.slots;
    s->size = bigger.size;
    return 0;
}

void master_sessions_reset(struct master_sessions *s)
{
    pthread_mutex_lock(&s->lock);
    memset(s->slots, 0, s->size * sizeof(*s->slots));
    s->count = 0;
    pthread_mutex_unlock(&s->lock);
}

static int heard(struct master_sessions *s, uint64_t session, uint64_t now_ns)
{
    struct slot *at = find(s, session);
    if (!at->session) {
        if (s->count >= s->max)
            return -CV_BUSY;
        if (s->count >= s->size / 2) {
            int r = grow(s);
            if (r < 0)
                return r;
            at = find(s, session);
        }
        at->session = session;
        s->count++;
    }
    at->heard_ns = now_ns;
    return 0;
}

int master_sessions_heard(struct master_sessions *s, uint64_t session, uint64_t now_ns)
{
    pthread_mutex_lock(&s->lock);
    int r = heard(s, session, now_ns);
    pthread_mutex_unlock(&s->lock);
    return r;
}

uint64_t master_sessions_last(struct master_sessions *s, uint64_t session)
{
    pthread_mutex_lock(&s->lock);
    const struct slot *at = find(s, session);
    uint64_t ns = at->session ? at->heard_ns : 0;
    pthread_mutex_unlock(&s->lock);
    return ns;
}

static void forget(struct master_sessions *s, struct slot *at)
{
    uint32_t hole = (uint32_t)(at - s->slots), mask = s->size - 1;
    for (uint32_t i = (hole + 1) & mask; s->slots[i].session; i = (i + 1) & mask) {
        uint32_t wants = (uint32_t)hash_u64(s->slots[i].session) & mask;
        if (((i - wants) & mask) >= ((i - hole) & mask)) { /* the hole lies on its way */
            s->slots[hole] = s->slots[i];
            hole = i;
        }
    }
    s->slots[hole] = (struct slot){0};
    s->count--;
}

void master_sessions_forget(struct master_sessions *s, uint64_t session)
{
    pthread_mutex_lock(&s->lock);
    struct slot *at = find(s, session);
    if (at->session)
        forget(s, at);
    pthread_mutex_unlock(&s->lock);
}

uint32_t master_sessions_count(struct master_sessions *s)
{
    pthread_mutex_lock(&s->lock);
    uint32_t n = s->count;
    pthread_mutex_unlock(&s->lock);
    return n;
}
