/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of a loop: a pairing heap (Fredman, Sedgewick, Sleator, Tarjan, 1986). A node's children are a list through
 * next and prev; prev of the first child is the parent, prev of the root is the root itself. The usual timer is a
 * deadline: started later than all others, stopped before it fires. It becomes a leaf under the root and leaves
 * again: both constant time.
 */
#include "io/loop_internal.h"

#include "base/clock.h"

static bool before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

/* Join two roots; either may be NULL. The result's next is NULL, its prev is not set. */
static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (before(b, a)) {
        struct loop_timer *t = a;
        a = b;
        b = t;
    }
    b->prev = a;
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    a->child = b;
    a->next = NULL;
    return a;
}

/* One heap of a list of siblings: meld pairs from the left, then the pairs from the right. */
static struct loop_timer *meld_siblings(struct loop_timer *first)
{
    struct loop_timer *pairs = NULL;
    while (first) {
        struct loop_timer *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = NULL;
        if (b)
            b->next = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    struct loop_timer *root = NULL;
    while (pairs) {
        struct loop_timer *a = pairs;
        pairs = a->next;
        a->next = NULL;
        root = meld(root, a);
    }
    return root;
}

static void set_root(struct loop *loop, struct loop_timer *root)
{
    loop->timers = root;
    if (root)
        root->prev = root;
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    assert_on_loop(loop);
    if (!loop_timer_running(timer))
        return;
    struct loop_timer *children = meld_siblings(timer->child);
    if (timer == loop->timers) {
        set_root(loop, children);
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next)
            timer->next->prev = timer->prev;
        set_root(loop, meld(loop->timers, children));
    }
    timer->child = timer->next = timer->prev = NULL;
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t at_ns)
{
    assert_on_loop(loop);
    loop_timer_stop(loop, timer);
    timer->at_ns = at_ns;
    timer->sequence = loop->timer_sequence++;
    set_root(loop, meld(loop->timers, timer));
}

uint64_t loop_timer_next(const struct loop *loop)
{
    return loop->timers ? loop->timers->at_ns : UINT64_MAX;
}

void loop_timers_fire(struct loop *loop)
{
    uint64_t started = loop->timer_sequence; /* those started from here on wait for the next turn */
    while (loop->timers && loop->timers->at_ns <= loop->now && loop->timers->sequence < started) {
        struct loop_timer *timer = loop->timers;
        loop_timer_stop(loop, timer);
        LOOP_COUNT(loop, timers, 1);
        timer->fire(timer);
    }
}
