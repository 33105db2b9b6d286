/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space is reserved before it is written: used + reserved <= capacity at every moment. One segment's room is held back for
 * the survivors of an eviction, so that a full store can always make room.
 */
#include "worker/block_state.h"

#include <sys/statvfs.h>

static bool fits(const struct block_store *s, uint64_t bytes, uint64_t held_back)
{
    return s->used + s->reserved + bytes + held_back <= s->capacity;
}

/* What must be freed before bytes fit. Lock held. */
static uint64_t missing(const struct block_store *s, uint64_t bytes)
{
    uint64_t want = s->used + s->reserved + bytes + s->options.segment_bytes;
    return want > s->capacity ? want - s->capacity : 0;
}

uint64_t block_space_missing(struct block_store *s, uint64_t bytes)
{
    pthread_mutex_lock(&s->lock);
    uint64_t n = missing(s, bytes);
    pthread_mutex_unlock(&s->lock);
    return n;
}

int block_space_reserve(struct block_store *s, uint64_t bytes)
{
    for (int tries = 0;; tries++) {
        pthread_mutex_lock(&s->lock);
        bool ok = fits(s, bytes, s->options.segment_bytes);
        if (ok)
            s->reserved += bytes;
        bool never = bytes + s->options.segment_bytes > s->capacity;
        pthread_mutex_unlock(&s->lock);
        if (ok)
            return 0;
        if (never || tries == 8)
            return -CV_NO_SPACE;
        int r = block_hand_make_room(s, bytes);
        if (r < 0)
            return r;
    }
}

int block_space_reserve_survivor(struct block_store *s, uint64_t bytes)
{
    pthread_mutex_lock(&s->lock);
    bool ok = fits(s, bytes, 0);
    if (ok)
        s->reserved += bytes;
    pthread_mutex_unlock(&s->lock);
    return ok ? 0 : -CV_NO_SPACE;
}

void block_space_unreserve(struct block_store *s, uint64_t bytes)
{
    assert(s->reserved >= bytes);
    s->reserved -= bytes;
}

int block_space_write_error(struct block_store *s, int r)
{
    if (r != -ENOSPC && r != -EDQUOT)
        return block_store_fail(s, r, "write of a data file");
    pthread_mutex_lock(&s->lock);
    s->capacity = min(s->capacity, max(s->used + s->reserved, (uint64_t)s->options.segment_bytes));
    pthread_mutex_unlock(&s->lock);
    return -CV_NO_SPACE;
}

void block_space_look(struct block_store *s)
{
    struct statvfs v;
    uint64_t wanted = s->options.dirs[0].capacity_bytes;
    if (fstatvfs(s->dir.fd, &v) < 0)
        return;
    uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    pthread_mutex_lock(&s->lock);
    if (s->capacity < wanted && free_bytes > s->options.segment_bytes)
        s->capacity = min(wanted, s->used + s->reserved + free_bytes - s->options.segment_bytes);
    pthread_mutex_unlock(&s->lock);
}
