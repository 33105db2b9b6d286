/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_net.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define FILE_THREADS  8
#define IN_FLIGHT_MAX 1024 /* of one connection */

static void on_request(struct rpc_request *rpc, void *user)
{
    struct worker_net *n = user;
    enum worker_op op = worker_op_of(rpc->header.type);
    if (op == WORKER_OP_COUNT)
        return rpc_answer(rpc, -CV_UNKNOWN_MESSAGE, 0, NULL, NULL);
    struct worker_request *q = worker_request_new(n);
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
