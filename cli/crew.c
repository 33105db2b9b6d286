/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/crew.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

static void *crew_thread(void *arg)
{
    struct crew *c = arg;
    pthread_mutex_lock(&c->mutex);
    for (;;) {
        while (!c->count && !c->ending)
            pthread_cond_wait(&c->work, &c->mutex);
        if (!c->count)
            break;
        void *task = c->queue[c->first];
        c->first = (c->first + 1) % CREW_QUEUE;
        c->count--;
        pthread_cond_signal(&c->room);
        pthread_mutex_unlock(&c->mutex);
        c->run(task);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

int crew_init(struct crew *c, unsigned threads, void (*run)(void *task))
{
    memset(c, 0, sizeof(*c));
    c->run = run;
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->room, NULL);
    threads = min(threads, (unsigned)CREW_MAX);
    while (c->n_threads < threads && pthread_create(&c->threads[c->n_threads], NULL, crew_thread, c) == 0)
        c->n_threads++;
    if (c->n_threads)
        return 0;
    crew_fini(c);
    return -EAGAIN;
}

void crew_push(struct crew *c, void *task)
{
    pthread_mutex_lock(&c->mutex);
    while (c->count == CREW_QUEUE)
        pthread_cond_wait(&c->room, &c->mutex);
    c->queue[(c->first + c->count++) % CREW_QUEUE] = task;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->mutex);
}

void crew_fini(struct crew *c)
{
    pthread_mutex_lock(&c->mutex);
    c->ending = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->mutex);
    for (unsigned i = 0; i < c->n_threads; i++)
        pthread_join(c->threads[i], NULL);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->room);
    pthread_mutex_destroy(&c->mutex);
}
