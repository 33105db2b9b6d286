/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/fan.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/tree.h"

void fan_init(struct fan *fan, struct curvine *cv)
{
    memset(fan, 0, sizeof(*fan));
    fan->cv = cv;
    sem_init(&fan->ended, 0, 0);
    for (unsigned i = 0; i < FAN_WIDTH; i++) {
        fan->slots[i].fan = fan;
        fan->free[fan->free_count++] = &fan->slots[i];
    }
}

void fan_fini(struct fan *fan)
{
    assert(fan->in_flight == 0);
    sem_destroy(&fan->ended);
}

static void on_done(struct curvine_request *q)
{
    struct fan_slot *slot = container_of(q, struct fan_slot, request);
    struct fan *fan = slot->fan;
    unsigned at = atomic_load_explicit(&fan->done_written, memory_order_relaxed);
    fan->done[at % FAN_WIDTH] = slot; /* the one that writes is the library's one thread */
    atomic_store_explicit(&fan->done_written, at + 1, memory_order_release);
    sem_post(&fan->ended);
}

static void take_one(struct fan *fan)
{
    while (sem_wait(&fan->ended) < 0)
        ;
    struct fan_slot *slot = fan->done[fan->done_read++ % FAN_WIDTH];
    int r = slot->request.result;
    fan->in_flight--;
    if (r < 0 && !(fan->gone_is_good && tree_is_gone(r))) {
        fan->failed++;
        if (!fan->first_error) {
            fan->first_error = r;
            memcpy(fan->first_name, slot->name, sizeof(slot->name));
        }
    } else {
        fan->ok++;
    }
    fan->free[fan->free_count++] = slot;
}

struct curvine_request *fan_next(struct fan *fan, struct curvine_text name)
{
    if (fan->free_count == 0)
        take_one(fan);
    struct fan_slot *slot = fan->free[--fan->free_count];
    uint32_t n = min(name.n, (uint32_t)sizeof(slot->name) - 1);
    memset(&slot->request, 0, sizeof(slot->request));
    memcpy(slot->name, name.p, n);
    slot->name[n] = '\0';
    slot->request.name = (struct curvine_text){slot->name, n};
    return &slot->request;
}

void fan_start(struct fan *fan, struct curvine_request *q)
{
    q->done = on_done;
    fan->in_flight++;
    curvine_submit(fan->cv, q);
}

int fan_wait(struct fan *fan)
{
    while (fan->in_flight)
        take_one(fan);
    return fan->first_error;
}
