/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop_health.h"

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "io/loop_internal.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, and that loops on it do not end */
static struct list running = LIST_INIT(running);         /* loops, by health.link */

static void has_run(struct loop_job *job)
{
    struct loop_health *h = container_of(job, struct loop_health, job);
    atomic_store(&h->asked_ns, 0);
}

void loop_health_begin(struct loop *loop)
{
    loop->health.job.run = has_run;
    pthread_mutex_lock(&lock);
    list_push_back(&running, &loop->health.link);
    pthread_mutex_unlock(&lock);
}

void loop_health_end(struct loop *loop)
{
    pthread_mutex_lock(&lock);
    if (loop->health.link.next) /* not if loop_run() runs it */
        list_remove(&loop->health.link);
    pthread_mutex_unlock(&lock);
}

int loops_healthy(uint32_t patience_ms, char *which, size_t size)
{
    int r = 0;
    uint64_t now = clock_ns();
    pthread_mutex_lock(&lock);
    for (struct list *e = running.next; e != &running; e = e->next) {
        struct loop *loop = list_entry(e, struct loop, health.link);
        uint64_t asked_ns = atomic_load(&loop->health.asked_ns);
        if (!asked_ns) {
            atomic_store(&loop->health.asked_ns, now);
            loop_post(loop, &loop->health.job);
        } else if (now > asked_ns + patience_ms * NS_PER_MS) {
            snprintf(which, size, "%s", loop->name);
            r = -ETIMEDOUT;
        }
    }
    pthread_mutex_unlock(&lock);
    return r;
}
