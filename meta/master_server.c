/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_server.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "meta/master_net.h"

#define LOOPS_MAX 64

struct master_server {
    struct master_server_options o;
    struct master_net *nets;
    uint32_t count, running;
    _Atomic uint32_t stopping; /* loops whose server has not stopped yet */
};

/* Two threads beside the loops do real work (scribe, writer), and the journal wants its share of the machine. */
static uint32_t loops_wanted(const struct master_options *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t n = o->threads ? o->threads : cores > 3 ? (uint32_t)cores / 2 : 1;
    return min(n, (uint32_t)LOOPS_MAX);
}

int master_server_new(struct master_core *core, struct master_scribe *scribe,
                      const struct master_server_options *options, struct master_server **ret)
{
    struct master_server *s cleanup(master_server_free_p) = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->o = *options;
    uint32_t n = loops_wanted(options->options);
    s->nets = calloc(n, sizeof(*s->nets));
    if (!s->nets)
        return -ENOMEM;
    struct rpc_server *servers[LOOPS_MAX];
    for (; s->count < n; s->count++) {
        struct master_net *net = &s->nets[s->count];
        int r = master_net_init(net, s->count, core, scribe, &s->o);
        if (r == 0)
            r = master_scribe_add_home(scribe, &net->home);
        if (r < 0) {
            master_net_fini(net);
            return r;
        }
        servers[s->count] = net->rpc;
    }
    rpc_server_share(s->nets[0].rpc, servers, n);
    *ret = take(s);
    return 0;
}

struct master_server *master_server_free(struct master_server *s)
{
    if (!s)
        return NULL;
    assert(s->running == 0);
    for (uint32_t i = 0; i < s->count; i++)
        master_net_fini(&s->nets[i]);
    free(s->nets);
    free(s);
    return NULL;
}

static int listen_on_loop(void *arg)
{
    struct master_server *s = arg;
    const struct master_options *o = s->o.options;
    char address[320];
    struct rpc_server *first = s->nets[0].rpc;
    snprintf(address, sizeof(address), strchr(o->listen, ':') ? "[%s]:%u" : "%s:%u", o->listen, o->port);
    int r = rpc_server_listen(first, address, 0, 0);
    if (r < 0)
        return log_error(r, "listen on %s", address);
    if (!s->o.socket)
        return 0;
    snprintf(address, sizeof(address), "unix:%s", s->o.socket);
    r = rpc_server_listen(first, address, 0, 0666); /* who asks is checked per request */
    return r < 0 ? log_error(r, "listen on %s", address) : 0;
}

int master_server_start(struct master_server *s)
{
    int r = 0;
    for (; r == 0 && s->running < s->count; s->running += r == 0)
        r = loop_start(s->nets[s->running].loop);
    if (r == 0)
        r = loop_call(s->nets[0].loop, listen_on_loop, s);
    if (r < 0) {
        master_server_stop(s, 0);
        master_server_end(s);
    }
    return r;
}

static void net_stopped(void *arg)
{
    struct master_server *s = arg;
    s->stopping--;
}

struct stop_call {
    struct master_server *s;
    struct master_net *n;
    uint32_t grace_ms;
};

static int stop_on_loop(void *arg)
{
    struct stop_call *c = arg;
    c->n->stopped = true;
    master_net_answer_askers(c->n, UINT64_MAX);
    rpc_server_stop(c->n->rpc, c->grace_ms, net_stopped, c->s);
    return 0;
}

void master_server_stop(struct master_server *s, uint32_t grace_ms)
{
    s->stopping = s->running;
    for (uint32_t i = 0; i < s->running; i++)
        loop_call(s->nets[i].loop, stop_on_loop, &(struct stop_call){s, &s->nets[i], grace_ms});
}

void master_server_end(struct master_server *s)
{
    while (s->stopping)
        usleep(1000);
    for (uint32_t i = 0; i < s->running; i++)
        loop_stop(s->nets[i].loop);
    for (uint32_t i = 0; i < s->running; i++)
        loop_join(s->nets[i].loop);
    s->running = 0;
}

uint16_t master_server_port(const struct master_server *s)
{
    return rpc_server_port(s->nets[0].rpc);
}

uint32_t master_server_connections(const struct master_server *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->count; i++)
        n += rpc_server_connections(s->nets[i].rpc);
    return n;
}

uint32_t master_server_in_flight(const struct master_server *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->count; i++)
        n += rpc_server_in_flight(s->nets[i].rpc);
    return n;
}
