/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request on its way through the master: made and answered by a network loop (its home), prepared there, executed by
 * the scribe, given back in chains: one post carries all that goes to the same loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/loop.h"
#include "meta/meta.h"

struct master_scribe;

enum master_home_state { HOME_CONTENT, HOME_WAITS, HOME_WOKEN };

/* Where requests come from and go back to. One per network loop. */
struct master_home {
    struct loop *loop;
    /* On the loop: the first of a chain of requests that the scribe is done with (container_of(job, ..., job)). */
    void (*take_back)(struct loop_job *job);
    uint32_t number; /* set by master_scribe_add_home() */

    /* Answers of reads wait at home until core.released (or core.view) moves. Then `wake` is posted, once: the loop sets
     * CONTENT -> WAITS and looks at `released` again; the scribe moves `released`, sets WAITS -> WOKEN and posts. */
    _Atomic int state; /* enum master_home_state */
    struct loop_job wake;
};

struct master_request {
    struct meta_request meta;
    struct loop_job job;         /* of the first of a chain */
    struct master_request *next; /* in a chain */
    struct master_home *home;
    struct master_scribe *scribe;  /* set by master_scribe_push() */
    uint64_t deadline_ns;          /* clock_ns(); UINT64_MAX: none */
    const _Atomic bool *cancelled; /* nobody waits any more; NULL: not asked */
    bool install;                  /* a read that was answered: only put the rows it fetched into the tree */
    uint64_t term, executed_ns;    /* not certain: the answer rests on our memory in this term, at this time */
    bool certain;                  /* master_core_certain() has said so, or nothing is told of our memory */
    bool again;                    /* given back not executed: rows it needs left memory. Prepare it again */
};

/* Requests one behind another. All zero is an empty chain. */
struct master_chain {
    struct master_request *first, *last;
    uint32_t n;
};

static inline void master_chain_add(struct master_chain *c, struct master_request *q)
{
    q->next = NULL;
    if (c->last)
        c->last->next = q;
    else
        c->first = q;
    c->last = q;
    c->n++;
}

static inline void master_chain_put_first(struct master_chain *c, struct master_request *q)
{
    q->next = c->first;
    c->first = q;
    if (!c->last)
        c->last = q;
    c->n++;
}

static inline struct master_request *master_chain_take(struct master_chain *c)
{
    struct master_request *q = c->first;
    if (!q)
        return NULL;
    c->first = q->next;
    if (!c->first)
        c->last = NULL;
    c->n--;
    q->next = NULL;
    return q;
}

/* Move all of src behind dst. */
static inline void master_chain_append(struct master_chain *dst, struct master_chain *src)
{
    if (!src->first)
        return;
    if (dst->last)
        dst->last->next = src->first;
    else
        dst->first = src->first;
    dst->last = src->last;
    dst->n += src->n;
    *src = (struct master_chain){0};
}
