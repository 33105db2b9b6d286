/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_daemon.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "io/loop.h"
#include "rpc/rpc_buffer.h"
#include "worker/worker_chores.h"
#include "worker/worker_core.h"
#include "worker/worker_exports.h"
#include "worker/worker_fill.h"
#include "worker/worker_keeper.h"
#include "worker/worker_master.h"
#include "worker/worker_server.h"

#define STOP_GRACE_MS     3000
#define BACK_FILE_THREADS 8

struct worker {
    struct worker_config config;
    struct worker_core core;
    struct worker_server *server;
    struct worker_keeper *keeper;
    struct loop *back;
    struct worker_metrics *back_metrics;
    struct worker_master *master;
    struct worker_chores *chores;
    bool running, back_running;
    _Atomic bool back_stopped;
    char socket[128], advertise[320];
};

static enum loop_backend backend(const struct cluster_options *o)
{
    return o->io == IO_URING ? LOOP_URING : o->io == IO_EPOLL ? LOOP_EPOLL : LOOP_AUTO;
}

/* ---- what there is to see --------------------------------------------------------------------------------------- */

static void fill_gauges(void *arg, void *gauges)
{
    struct worker *w = arg;
    struct worker_gauges *g = gauges;
    struct block_store_status s;
    block_store_status(w->core.store, &s);
    g->capacity_bytes = (int64_t)s.capacity_bytes;
    g->used_bytes = (int64_t)s.used_bytes;
    g->reserved_bytes = (int64_t)s.reserved_bytes;
    g->left_bytes = (int64_t)s.left_bytes;
    g->dirty_bytes = (int64_t)w->core.dirty_bytes;
    g->open_files = (int64_t)s.open_files;
    g->memory_state_bytes = (int64_t)s.memory_bytes;
    g->evicted_bytes = (int64_t)s.evicted_bytes;
    g->damaged_chunks = (int64_t)s.damaged_chunks;
    g->lost_blocks = (int64_t)s.lost_blocks;
    g->hits = (int64_t)s.hits;
    g->misses = (int64_t)s.misses;
    g->connections = worker_server_connections(w->server);
    g->in_flight = worker_server_in_flight(w->server);
    g->registered = w->core.registered;
}

int worker_ready(struct worker *w, char *why, size_t why_size)
{
    struct block_store_status s;
    block_store_status(w->core.store, &s);
    if (s.failed)
        snprintf(why, why_size, "the data directory left service: %s", cv_error_text(s.failed));
    return s.failed;
}

int worker_status_page(struct worker *w, struct buf *out)
{
    struct block_store_status s;
    char id[UUID_STRING];
    block_store_status(w->core.store, &s);
    return buf_printf(out,
                      "{\"worker\":\"%016llx\",\"cluster\":\"%s\",\"address\":\"%s\",\"registered\":%s,\"kind\":\"%s\","
                      "\"capacity_bytes\":%llu,\"used_bytes\":%llu,\"left_bytes\":%llu,\"damaged_chunks\":%llu,"
                      "\"lost_blocks\":%llu,\"failed\":%d,\"exports\":%u}",
                      (unsigned long long)w->core.worker, uuid_format(w->core.cluster, id), w->advertise,
                      w->core.registered ? "true" : "false", worker_kind_name(w->core.dir.kind),
                      (unsigned long long)s.capacity_bytes, (unsigned long long)s.used_bytes,
                      (unsigned long long)s.left_bytes, (unsigned long long)s.damaged_chunks,
                      (unsigned long long)s.lost_blocks, s.failed, worker_exports_count(w->core.exports));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static int open_store(struct worker *w)
{
    struct block_identity_options id;
    int r = worker_dir_choose(w->config.options, NULL, &w->core.dir);
    if (r == 0)
        r = worker_dir_open(&w->core.dir, w->config.options, &id, &w->core.store);
    if (r < 0)
        return r;
    memcpy(w->core.cluster.b, id.cluster, UUID_SIZE);
    w->core.worker = id.worker_id;
    return worker_exports_open(w->core.dir.path, w->core.store, &w->core.exports);
}

static void mounts_changed(void *arg, uint64_t mounts_version)
{
    struct worker *w = arg;
    worker_fill_mounts_changed(w->core.fill, mounts_version);
}

static void beaten(void *arg)
{
    struct worker *w = arg;
    worker_chores_beat(w->chores);
}

static void registered(void *arg)
{
    struct worker *w = arg;
    worker_chores_registered(w->chores);
}

static int make_back(struct worker *w)
{
    struct loop_options lo = {.name = "back", .backend = backend(w->config.cluster), .file_threads = BACK_FILE_THREADS};
    int r = loop_new(&lo, &w->back);
    if (r == 0 && w->config.metrics)
        r = metrics_block_new(w->config.metrics, &worker_metric_set, &w->back_metrics);
    if (r < 0)
        return log_error(r, "back loop");
    struct worker_master_options mo = {
        .core = &w->core,
        .cluster = w->config.cluster,
        .metrics = w->back_metrics,
        .advertise = w->advertise,
        .socket = w->socket,
        .mounts_changed = mounts_changed,
        .registered = registered,
        .beaten = beaten,
        .arg = w,
    };
    r = worker_master_new(w->back, &mo, &w->master);
    if (r == 0)
        r = worker_chores_new(w->back, &w->core, w->master, w->back_metrics, &w->chores);
    if (r < 0)
        return r;
    struct worker_fill_options fo = {.core = &w->core, .master = w->master, .metrics = w->back_metrics};
    return worker_fill_new(w->back, &fo, &w->core.fill);
}

int worker_new(const struct worker_config *config, struct worker **ret)
{
    struct worker *w cleanup(worker_free_p) = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->config = *config;
    w->core.options = config->options;
    w->core.metrics = config->metrics;
    if (config->options->socket[0])
        snprintf(w->socket, sizeof(w->socket), "%s", config->options->socket);
    else
        snprintf(w->socket, sizeof(w->socket), "%s/worker.sock", config->cluster->run_dir);
    int r = open_store(w);
    if (r == 0)
        r = make_back(w);
    if (r == 0)
        r = worker_server_new(&w->core, (int)backend(config->cluster), &w->server);
    if (r < 0)
        return r;
    if (config->metrics)
        metrics_set_gauges(config->metrics, &worker_metric_set, fill_gauges, w);
    *ret = take(w);
    return 0;
}

/* ---- starting and stopping -------------------------------------------------------------------------------------- */

/* What others reach us at: as told, else the address we listen on, else our host name. */
static void make_advertise(struct worker *w)
{
    const struct worker_options *o = w->config.options;
    char host[256] = "localhost";
    bool any = strcmp(o->listen, "0.0.0.0") == 0 || strcmp(o->listen, "::") == 0 || strcmp(o->listen, "*") == 0;
    if (o->advertise[0] && strrchr(o->advertise, ':') && o->advertise[strlen(o->advertise) - 1] != ']') {
        snprintf(w->advertise, sizeof(w->advertise), "%s", o->advertise);
        return;
    }
    if (o->advertise[0])
        snprintf(host, sizeof(host), "%s", o->advertise);
    else if (!any)
        snprintf(host, sizeof(host), strchr(o->listen, ':') ? "[%.200s]" : "%.200s", o->listen);
    else if (gethostname(host, sizeof(host) - 1) < 0)
        snprintf(host, sizeof(host), "localhost");
    snprintf(w->advertise, sizeof(w->advertise), "%s:%u", host, worker_port(w));
}

static int start_master(void *arg)
{
    struct worker *w = arg;
    worker_master_start(w->master);
    return 0;
}

int worker_start(struct worker *w)
{
    rpc_buffer_set_limit(w->config.options->buffer_bytes);
    int r = loop_start(w->back);
    if (r < 0)
        return log_error(r, "back loop");
    w->back_running = true;
    r = worker_keeper_start(&w->core, &w->keeper);
    if (r < 0)
        return log_error(r, "keeper thread");
    r = worker_server_start(w->server, w->socket);
    if (r < 0)
        return r;
    w->running = true;
    make_advertise(w);
    log_info("worker %016llx listening on %s and %s", (unsigned long long)w->core.worker, w->advertise, w->socket);
    return loop_call(w->back, start_master, w);
}

static void fill_stopped(void *arg)
{
    struct worker *w = arg;
    w->back_stopped = true;
}

static void chores_stopped(void *arg)
{
    struct worker *w = arg;
    worker_fill_stop(w->core.fill, fill_stopped, w);
}

static void master_stopped(void *arg)
{
    struct worker *w = arg;
    worker_chores_stop(w->chores, chores_stopped, w);
}

static int stop_back(void *arg)
{
    struct worker *w = arg;
    if (w->master)
        worker_master_stop(w->master, master_stopped, w);
    else
        w->back_stopped = true;
    return 0;
}

void worker_stop(struct worker *w)
{
    if (w->running)
        worker_server_stop(w->server, STOP_GRACE_MS);
    if (w->running)
        worker_server_quiet(w->server, STOP_GRACE_MS);
    if (w->back_running) { /* then what still waits for a fill is told that we stop */
        loop_call(w->back, stop_back, w);
        while (!w->back_stopped)
            usleep(1000);
    }
    if (w->running)
        worker_server_end(w->server);
    w->running = false;
    w->keeper = worker_keeper_stop(w->keeper);
    if (w->back_running) {
        loop_stop(w->back);
        loop_join(w->back);
    }
    w->back_running = false;
}

struct worker *worker_free(struct worker *w)
{
    if (!w)
        return NULL;
    if (w->config.metrics)
        metrics_set_gauges(w->config.metrics, &worker_metric_set, NULL, NULL);
    if (w->back && !w->back_stopped && !w->back_running && w->master && w->core.fill) {
        /* Never started: the loop has to run for its objects to end. */
        if (loop_start(w->back) == 0)
            w->back_running = true;
    }
    worker_stop(w);
    worker_server_free(w->server);
    worker_fill_free(w->core.fill);
    worker_chores_free(w->chores);
    worker_master_free(w->master);
    if (w->back_metrics)
        metrics_block_free(w->config.metrics, &worker_metric_set, w->back_metrics);
    loop_free(w->back);
    worker_exports_free(w->core.exports);
    block_store_free(w->core.store);
    free(w);
    return NULL;
}

uint16_t worker_port(const struct worker *w)
{
    return worker_server_port(w->server);
}

uint64_t worker_id(const struct worker *w)
{
    return w->core.worker;
}

const char *worker_socket(const struct worker *w)
{
    return w->socket;
}
