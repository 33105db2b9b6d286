/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_server.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "worker/worker_net.h"

#define LOOPS_MAX 64

struct worker_server {
    struct worker_core *core;
    struct worker_net *nets;
    uint32_t count, running;
    _Atomic uint32_t stopping; /* loops whose server has not stopped yet */
};

/* The file threads and the back loop want cores too. */
static uint32_t loops_wanted(const struct worker_options *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t n = o->threads ? o->threads : cores > 3 ? (uint32_t)cores / 2 : 1;
    return min(n, (uint32_t)LOOPS_MAX);
}

int worker_server_new(struct worker_core *core, int backend, struct worker_server **ret)
{
    struct worker_server *s cleanup(worker_server_free_p) = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->core = core;
    uint32_t n = loops_wanted(core->options);
    s->nets = calloc(n, sizeof(*s->nets));
    if (!s->nets)
        return -ENOMEM;
    struct rpc_server *servers[LOOPS_MAX];
    for (; s->count < n; s->count++) {
        struct worker_net *net = &s->nets[s->count];
        int r = worker_net_init(net, s->count, core, (enum loop_backend)backend);
        if (r < 0) {
            worker_net_fini(net);
            return log_error(r, "network loop");
        }
        servers[s->count] = net->rpc;
    }
    rpc_server_share(s->nets[0].rpc, servers, n);
    *ret = take(s);
    return 0;
}

struct worker_server *worker_server_free(struct worker_server *s)
{
    if (!s)
        return NULL;
    assert(s->running == 0);
    for (uint32_t i = 0; i < s->count; i++)
        worker_net_fini(&s->nets[i]);
    free(s->nets);
    free(s);
    return NULL;
}

struct listen_call {
    struct worker_server *s;
    const char *socket;
};

static int listen_on_loop(void *arg)
{
    struct listen_call *c = arg;
    const struct worker_options *o = c->s->core->options;
    struct rpc_server *first = c->s->nets[0].rpc;
    char address[320];
    snprintf(address, sizeof(address), strchr(o->listen, ':') ? "[%s]:%u" : "%s:%u", o->listen, o->port);
    int r = rpc_server_listen(first, address, 0, 0);
    if (r < 0)
        return log_error(r, "listen on %s", address);
    snprintf(address, sizeof(address), "unix:%s", c->socket);
    r = rpc_server_listen(first, address, 0, 0666);
    return r < 0 ? log_error(r, "listen on %s", address) : 0;
}

int worker_server_start(struct worker_server *s, const char *socket)
{
    int r = 0;
    for (; r == 0 && s->running < s->count; s->running += r == 0)
        r = loop_start(s->nets[s->running].loop);
    if (r == 0)
        r = loop_call(s->nets[0].loop, listen_on_loop, &(struct listen_call){s, socket});
    if (r < 0) {
        worker_server_stop(s, 0);
        worker_server_end(s);
    }
    return r;
}

static void net_stopped(void *arg)
{
    struct worker_server *s = arg;
    s->stopping--;
}

struct stop_call {
    struct worker_server *s;
    struct worker_net *n;
    uint32_t grace_ms;
};

static int stop_on_loop(void *arg)
{
    struct stop_call *c = arg;
    rpc_server_stop(c->n->rpc, c->grace_ms, net_stopped, c->s);
    return 0;
}

void worker_server_stop(struct worker_server *s, uint32_t grace_ms)
{
    s->stopping = s->running;
    for (uint32_t i = 0; i < s->running; i++)
        loop_call(s->nets[i].loop, stop_on_loop, &(struct stop_call){s, &s->nets[i], grace_ms});
}

bool worker_server_quiet(struct worker_server *s, uint32_t timeout_ms)
{
    uint64_t until = clock_ns() + timeout_ms * NS_PER_MS;
    while (s->stopping && clock_ns() < until)
        usleep(1000);
    return s->stopping == 0;
}

void worker_server_end(struct worker_server *s)
{
    while (s->stopping)
        usleep(1000);
    for (; s->running; s->running--) {
        loop_stop(s->nets[s->running - 1].loop);
        loop_join(s->nets[s->running - 1].loop);
    }
}

uint16_t worker_server_port(const struct worker_server *s)
{
    return rpc_server_port(s->nets[0].rpc);
}

uint32_t worker_server_connections(const struct worker_server *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->count; i++)
        n += rpc_server_connections(s->nets[i].rpc);
    return n;
}

uint32_t worker_server_in_flight(const struct worker_server *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->count; i++)
        n += rpc_server_in_flight(s->nets[i].rpc);
    return n;
}
