/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_net.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "rpc/rpc_buffer.h"

#define SPARE_MAX     1024
#define WORKS_MAX     8192 /* on file threads, of all loops: above it requests are refused */
#define FILE_THREADS  8
#define AGAIN_MS      5 /* pause when something was busy, longer each time */
#define AGAIN_MAX_MS  50
#define BUSY_MAX_MS   30000 /* a fill in the way of a write takes as long as its store does */
#define IN_FLIGHT_MAX 1024  /* of one connection */

/* ---- requests --------------------------------------------------------------------------------------------------- */

static struct worker_request *request_new(struct worker_net *n)
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

/* ---- the network ------------------------------------------------------------------------------------------------ */

static void on_request(struct rpc_request *rpc, void *user)
{
    struct worker_net *n = user;
    enum worker_op op = worker_op_of(rpc->header.type);
    if (op == WORKER_OP_COUNT)
        return rpc_answer(rpc, -CV_UNKNOWN_MESSAGE, 0, NULL, NULL);
    struct worker_request *q = request_new(n);
    if (!q)
        return rpc_answer(rpc, -ENOMEM, 0, NULL, NULL);
    q->rpc = rpc;
    q->op = op;
    q->session = ((const struct worker_peer *)rpc_peer_user(rpc->peer))->session;
    switch (op) {
    case WORKER_OP_block_read: return worker_read_begin(q);
    case WORKER_OP_block_open: return worker_open_begin(q);
    case WORKER_OP_block_release: return worker_release_begin(q);
    case WORKER_OP_block_fill: return worker_fill_begin(q);
    case WORKER_OP_block_write: return worker_write_begin(q);
    case WORKER_OP_block_sync: return worker_sync_begin(q);
    case WORKER_OP_block_memory: return worker_memory_begin(q);
    case WORKER_OP_presence: return worker_presence_begin(q);
    case WORKER_OP_block_list: return worker_list_begin(q);
    case WORKER_OP_free: return worker_free_begin(q);
    case WORKER_OP_COUNT: break;
    }
}

static int on_hello(struct rpc_peer *peer, const struct msg_hello *hello, struct msg_hello_answer *answer, void *user)
{
    struct worker_peer *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->session = hello->session;
    rpc_peer_set_user(peer, p);
    return 0;
}

/* Requests of it that are under way keep the memory they read from. */
static void on_gone(struct rpc_peer *peer, void *user)
{
    struct worker_peer *p = rpc_peer_user(peer);
    worker_memory_unref(p->memory);
    free(p);
}

int worker_net_init(struct worker_net *n, uint32_t number, struct worker_core *core, enum loop_backend backend)
{
    *n = (struct worker_net){.core = core};
    list_init(&n->spare);
    snprintf(n->name, sizeof(n->name), "net%u", number);
    struct loop_options lo = {.name = n->name, .backend = backend, .file_threads = FILE_THREADS};
    int r = loop_new(&lo, &n->loop);
    if (r < 0)
        return r;
    if (core->metrics) {
        r = metrics_block_new(core->metrics, &worker_metric_set, &n->metrics);
        if (r == 0)
            r = metrics_block_new(core->metrics, &rpc_metric_set, &n->rpc_metrics);
        if (r < 0)
            return r;
    }
    struct rpc_server_options so = {
        .self = {.role = RPC_WORKER, .node = core->worker, .program = "cv-worker " CV_VERSION},
        .connections_max = core->options->connections_max,
        .in_flight_max = IN_FLIGHT_MAX,
        .limits = {.send_high = 2 * FRAME_DATA_MAX, .send_max = 64 * FRAME_DATA_MAX, .metrics = n->rpc_metrics},
        .request = on_request,
        .hello = on_hello,
        .gone = on_gone,
        .user = n,
    };
    memcpy(so.self.cluster, core->cluster.b, UUID_SIZE);
    return rpc_server_new(n->loop, &so, &n->rpc);
}

void worker_net_fini(struct worker_net *n)
{
    for (struct list *e; (e = list_pop_front(&n->spare));)
        free(list_entry(e, struct worker_request, link));
    rpc_server_free(n->rpc);
    if (n->metrics)
        metrics_block_free(n->core->metrics, &worker_metric_set, n->metrics);
    if (n->rpc_metrics)
        metrics_block_free(n->core->metrics, &rpc_metric_set, n->rpc_metrics);
    loop_free(n->loop);
    buf_fini(&n->out);
}
