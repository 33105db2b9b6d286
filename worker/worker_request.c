/* SPDX-License-Identifier: Apache-2.0 */
/* What every request goes through: made, on a file thread, on the back loop for what is missing, answered. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "rpc/rpc_buffer.h"
#include "worker/worker_net.h"

#define SPARE_MAX    1024
#define WORKS_MAX    8192 /* on file threads, of all loops: above it requests are refused */
#define AGAIN_MS     5    /* pause when something was busy, longer each time */
#define AGAIN_MAX_MS 50
#define BUSY_MAX_MS  30000 /* a fill in the way of a write takes as long as its store does */

/* ---- requests --------------------------------------------------------------------------------------------------- */

struct worker_request *worker_request_new(struct worker_net *n)
{
    struct list *e = list_pop_front(&n->spare);
    struct worker_request *q = e ? list_entry(e, struct worker_request, link) : malloc(sizeof(*q));
    if (!q)
        return NULL;
    n->spare_count -= e != NULL;
    *q = (struct worker_request){.net = n, .started_ns = loop_now(n->loop), .read.fd = -1, .export.fd = -1};
    list_init(&q->link);
    return q;
}

static void request_drop(struct worker_request *q)
{
    struct worker_net *n = q->net;
    rpc_buffer_free(q->buffer);
    worker_memory_unref(q->memory);
    buf_fini(&q->out);
    if (n->spare_count >= SPARE_MAX) {
        free(q);
        return;
    }
    list_push_front(&n->spare, &q->link);
    n->spare_count++;
}

void worker_request_done(struct worker_request *q, int error)
{
    struct worker_net *n = q->net;
    if (n->metrics) {
        histogram_add(&n->metrics->op_ns[q->op], clock_ns() - q->started_ns);
        if (error < 0)
            counter_add(&n->metrics->op_errors, 1);
    }
    request_drop(q);
}

void worker_request_end(struct worker_request *q, int error, const struct wire_desc *desc, const void *record)
{
    rpc_answer(q->rpc, error, 0, error < 0 ? NULL : desc, error < 0 ? NULL : record);
    worker_request_done(q, error);
}

bool worker_request_dead(const struct worker_request *q)
{
    return atomic_load_explicit(&q->rpc->cancelled, memory_order_relaxed) || q->rpc->deadline_ns < clock_ns();
}

/* ---- file threads ----------------------------------------------------------------------------------------------- */

static int run_work(void *arg)
{
    struct worker_request *q = arg;
    return worker_request_dead(q) ? -CV_CANCELLED : q->work(q);
}

static void work_done(struct io_op *op, int result);

static void submit(struct worker_request *q)
{
    q->net->core->works++;
    io_work(q->net->loop, &q->io, run_work, q, work_done);
}

static void work_again(struct loop_timer *timer)
{
    submit(container_of(timer, struct worker_request, again));
}

static void work_done(struct io_op *op, int result)
{
    struct worker_request *q = container_of(op, struct worker_request, io);
    q->net->core->works--;
    uint64_t now = loop_now(q->net->loop);
    if (result == -CV_BUSY && !worker_request_dead(q) && now < q->started_ns + BUSY_MAX_MS * NS_PER_MS) {
        uint32_t pause_ms = min(AGAIN_MS * ++q->pauses, (uint32_t)AGAIN_MAX_MS);
        loop_timer_init(&q->again, work_again);
        loop_timer_start(q->net->loop, &q->again, now + pause_ms * NS_PER_MS);
        return;
    }
    q->back(q, result);
}

void worker_request_work(struct worker_request *q, int (*work)(struct worker_request *),
                         void (*back)(struct worker_request *, int))
{
    if (q->net->core->works >= WORKS_MAX) {
        back(q, -CV_BUSY);
        return;
    }
    WORKER_COUNT(q->net->metrics, works, 1);
    q->work = work;
    q->back = back;
    submit(q);
}

/* ---- the back loop ---------------------------------------------------------------------------------------------- */

static void fetch_done(struct fill_wait *w)
{
    struct worker_request *q = container_of(w, struct worker_request, wait);
    q->fetched += w->fetched;
    q->back(q, w->result);
}

void worker_request_fetch(struct worker_request *q, bool ahead, void (*back)(struct worker_request *, int))
{
    if (q->tries++ >= WORKER_TRIES_MAX) { /* evicted again and again before it could be used */
        back(q, -CV_BUSY);
        return;
    }
    q->back = back;
    q->wait = (struct fill_wait){
        .block = q->block,
        .chunks = q->missing,
        .ahead = ahead,
        .pin = q->flags & BLOCK_PIN && q->op == WORKER_OP_block_fill,
        .deadline_ns = q->rpc->deadline_ns,
        .home = q->net->loop,
        .done = fetch_done,
    };
    worker_fill_want(q->net->core->fill, &q->wait);
}
