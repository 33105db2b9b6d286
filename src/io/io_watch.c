/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches: an io_poll that is submitted again as long as it is wanted.
 */
#include "io/loop_internal.h"

#include <errno.h>
#include <poll.h>

static void watch_done(struct io_op *op, int result);

static void watch_arm(struct io_watch *w)
{
    if (w->events)
        io_poll(w->loop, &w->op, w->fd, w->events, watch_done);
}

static void watch_done(struct io_op *op, int result)
{
    struct io_watch *w = container_of(op, struct io_watch, op);
    if (w->stopping) {
        w->fd = -1;
        w->stopped(w);
        return;
    }
    if (result < 0 && result != -ECANCELED) { /* not pollable, or the loop stops: said once */
        w->ready(w, POLLERR);
        return;
    }
    uint32_t events = result < 0 ? 0 : (uint32_t)result & (w->events | POLLERR | POLLHUP | POLLNVAL);
    if (events)
        w->ready(w, events);
    if (!w->stopping && !io_op_busy(op))
        watch_arm(w);
}

void io_watch_start(struct loop *loop, struct io_watch *w, int fd, uint32_t events,
                    void (*ready)(struct io_watch *, uint32_t))
{
    *w = (struct io_watch){.loop = loop, .fd = fd, .events = events, .ready = ready};
    watch_arm(w);
}

void io_watch_change(struct io_watch *w, uint32_t events)
{
    assert_on_loop(w->loop);
    assert(!w->stopping);
    if (events == w->events)
        return;
    w->events = events;
    if (io_op_busy(&w->op))
        io_cancel(&w->op); /* watch_done arms it with the new events */
    else
        watch_arm(w);
}

void io_watch_stop(struct io_watch *w, void (*stopped)(struct io_watch *))
{
    assert_on_loop(w->loop);
    assert(!w->stopping && w->fd >= 0);
    w->stopping = true;
    w->stopped = stopped;
    if (io_op_busy(&w->op))
        io_cancel(&w->op);
    else
        io_submit(w->loop, &w->op, IO_NOTHING, -1, watch_done);
}
