/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that work off tasks which wait for answers: as many tasks at the same time as there are threads. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#define CREW_MAX   256
#define CREW_QUEUE 256

struct crew {
    void (*run)(void *task); /* on a thread of the crew; the task is its to free */
    pthread_t threads[CREW_MAX];
    unsigned n_threads;
    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t work, room;
    void *queue[CREW_QUEUE];
    unsigned first, count;
    bool ending;
};

/* Errors: -EAGAIN no threads. */
int crew_init(struct crew *c, unsigned threads, void (*run)(void *task));

/* Give a task away; waits while the queue is full. */
void crew_push(struct crew *c, void *task);

/* Wait for all tasks. */
void crew_fini(struct crew *c);
