/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large files go to the disk while they are written: whoever ends with an fsync finds little left to wait for, and the disk is
 * not idle before that. The kernel would begin when a tenth of the memory is dirty, or after half a minute.
 *
 * A file that grows, or is written over, in sequence is put on a list with every 8 MiB; one thread takes it from there and has
 * the kernel begin (sync_file_range: nothing is promised by it). It is that thread that waits when the disk has more to do than
 * it takes, never a writer; what it has not come to by then is written with the rest.
 */
#include "worker/block_state.h"

#define FLOW_BYTES (8u << 20)

void block_flow_note(struct block_store *s, struct block_file *f, uint64_t from, uint32_t n)
{
    bool goes_on = from >= f->flow_from && from <= f->flow_to + FLOW_BYTES; /* pieces come in any order */
    f->flow_from = goes_on ? f->flow_from : from;
    f->flow_to = goes_on ? max(f->flow_to, from + n) : from + n;
    f->flow_bytes = goes_on ? min(f->flow_bytes + n, FLOW_BYTES) : n;
    if (f->flow_bytes < FLOW_BYTES || !list_empty(&f->flowing))
        return;
    list_push_back(&s->flowing, &f->flowing);
    f->refs++;
    pthread_cond_signal(&s->flow_wanted);
}

bool block_store_flow(struct block_store *s)
{
    pthread_mutex_lock(&s->lock);
    while (list_empty(&s->flowing) && !s->flow_ended)
        pthread_cond_wait(&s->flow_wanted, &s->lock);
    struct list *e = s->flow_ended ? NULL : list_pop_front(&s->flowing);
    struct block_file *f = e ? list_entry(e, struct block_file, flowing) : NULL;
    uint64_t from = f ? f->flow_from : 0, to = f ? f->flow_to : 0;
    bool gone = f && f->retired;
    if (f) {
        f->flow_from = to;
        f->flow_bytes = 0;
    }
    pthread_mutex_unlock(&s->lock);
    if (!f)
        return false;
    if (!gone && block_file_use(s, f) == 0) {
        (void)block_io_flow(f->fd, from, to - from); /* what fails is told by the fdatasync to come */
        block_file_unuse(s, f);
    }
    block_file_unhold(s, f);
    return true;
}

void block_store_flow_end(struct block_store *s)
{
    pthread_mutex_lock(&s->lock);
    s->flow_ended = true;
    pthread_cond_broadcast(&s->flow_wanted);
    pthread_mutex_unlock(&s->lock);
}
