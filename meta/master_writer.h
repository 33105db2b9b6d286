/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: the thread that brings committed rows to the database. It is given one sealed delta at a time, sorts it,
 * writes it as one batch, and flushes:
 *
 *      scribe: master_writer_give(delta) --> sort, write --> written() on the scribe's loop: readers find the rows there
 *                                            flush       --> flushed() on the scribe's loop: the log may forget them
 *
 * An error of the database is fatal: it is said and the process ends; the journal has everything behind what is flushed. But for
 * a full disk: then the writer gives up, and its owner begins anew with the database when there is room.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/loop.h"
#include "meta/master_store.h"
#include "meta/meta.h"

struct master_writer; /* opaque */

struct master_writer_events {
    void *arg;
    /* On the loop. The delta stays valid during the call (meta_delta_written() wants it); the writer frees it. */
    void (*written)(void *arg, struct meta_delta *delta);
    /* On the loop, after written(): the database is safe up to the log index master_store_flushed(). The writer is idle. */
    void (*flushed)(void *arg);
    /* On the loop, in place of flushed(), and of written() if that was not called: there is no room. The writer is idle, and may
     * be given nothing any more. */
    void (*no_room)(void *arg, int error);
};

/* Start the thread. events is borrowed. Errors: -ENOMEM, -EAGAIN. */
int master_writer_new(struct loop *loop, struct master_store *store, const struct master_writer_events *events,
                      struct master_writer **ret);

/* The loop: can it be given a delta? */
bool master_writer_is_idle(const struct master_writer *w);

/* The loop, when idle: write it. */
void master_writer_give(struct master_writer *w, struct meta_delta *delta);

/* Ends the thread. It must be idle. NULL is fine. */
struct master_writer *master_writer_free(struct master_writer *w);
