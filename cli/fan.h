/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many requests at once, for commands that work on trees: up to FAN_WIDTH under way, the rest waits. One thread feeds it.
 * Each request and its name live in a slot of the fan.
 */
#pragma once

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "client/curvine.h"

#define FAN_WIDTH 64

struct fan_slot {
    struct curvine_request request;
    struct fan *fan;
    char name[256];
};

struct fan {
    struct curvine *cv;
    struct fan_slot slots[FAN_WIDTH];
    struct fan_slot *free[FAN_WIDTH]; /* feeder's */
    unsigned free_count;
    struct fan_slot *done[FAN_WIDTH]; /* by the library's thread */
    _Atomic unsigned done_written;
    unsigned done_read;
    sem_t ended;
    unsigned in_flight;
    uint64_t ok, failed;
    int first_error; /* 0: none */
    char first_name[256];
    bool gone_is_good; /* tree_is_gone() counts as success: somebody else was faster */
};

void fan_init(struct fan *fan, struct curvine *cv);
void fan_fini(struct fan *fan); /* nothing in flight */

/* A zeroed request whose name is a copy of name; waits for one to end when all are busy. Then fan_start() it. */
struct curvine_request *fan_next(struct fan *fan, struct curvine_text name);
void fan_start(struct fan *fan, struct curvine_request *q);

/* Wait until all ended. Returns the first error. */
int fan_wait(struct fan *fan);
