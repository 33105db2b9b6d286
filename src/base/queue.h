/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded queue from many threads to one: producers push single elements, the consumer takes all that is there in
 * one go. A full queue refuses (push back to the caller), it never grows. One short lock a push; the consumer is
 * woken only when it sleeps, so a busy consumer costs its producers no system call.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct queue {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t filled;
    struct list elements;
    uint32_t count, limit;
    bool sleeping; /* the consumer waits on filled */
    bool closed;   /* pushes are refused, queue_take_all returns what is left, then false */
};

/* limit: elements the queue holds at most. */
void queue_init(struct queue *q, uint32_t limit);

/* The queue must be empty. */
void queue_fini(struct queue *q);

/* Any thread. Errors: -CV_BUSY the queue is full; -CV_STOPPING it is closed. On error the element stays the caller's. */
int queue_push(struct queue *q, struct list *element);

/* Any thread; as queue_push, but above the limit too: for work that must not be refused (completions). */
int queue_push_unbounded(struct queue *q, struct list *element);

/* Consumer: move all elements to out; waits up to timeout_ns (UINT64_MAX: for ever) for the first.
 * Returns false when the queue is closed and empty. */
bool queue_take_all(struct queue *q, struct list *out, uint64_t timeout_ns);

/* Any thread: wake the consumer without an element (queue_take_all returns with out empty). */
void queue_wake(struct queue *q);

/* Any thread. */
void queue_close(struct queue *q);

/* Any thread: elements waiting now. */
uint32_t queue_depth(struct queue *q);
