/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_daemon.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "io/loop.h"
#include "meta/master_checkpoint.h"
#include "meta/master_core.h"
#include "meta/master_dir.h"
#include "meta/master_import_core.h"
#include "meta/master_metrics.h"
#include "meta/master_mounts.h"
#include "meta/master_scribe.h"
#include "meta/master_server.h"
#include "meta/master_sessions.h"
#include "meta/master_status.h"
#include "meta/master_workers.h"

#define STOP_GRACE_MS 3000

struct master {
    struct master_config config;
    struct master_dir dir;
    struct master_store *store;
    struct master_core core;
    struct master_sessions *sessions;
    struct master_workers *workers;
    struct master_ufs *ufs;
    struct master_import_core *import_core;
    struct master_import *import;
    struct master_scribe *scribe;
    struct master_server *server;
    struct master_status status;
    char socket[128], journal_socket[128];
    bool started;
};

static enum loop_backend backend(const struct cluster_options *o)
{
    return o->io == IO_URING ? LOOP_URING : o->io == IO_EPOLL ? LOOP_EPOLL : LOOP_AUTO;
}

/* Half of the machine's memory, unless told. */
static uint64_t memory_budget(const struct master_options *o)
{
    if (o->memory_bytes)
        return o->memory_bytes;
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
}

/* The largest power of two that is not more. */
static uint32_t block_shift(uint64_t block_bytes)
{
    return min(63u - (uint32_t)__builtin_clzll(block_bytes | 1), 30u);
}

static int open_state(struct master *m)
{
    const struct master_options *o = m->config.options;
    int r = master_dir_open(o->dir, &m->dir);
    if (r == -CV_NOT_FORMATTED)
        return log_error(r, "data directory '%s' (cv cluster init formats it, or cv-master format)", o->dir);
    if (r == -CV_LOG_DIVERGED)
        return log_error(
            r,
            "data directory '%s': keep it for who looks for the cause (*.diverged says when), make a new one "
            "(cv-master format) and start: the state comes again, from the log or another master",
            o->dir);
    if (r < 0)
        return log_error(r, "data directory '%s'", o->dir);
    master_checkpoint_remove_all(m->dir.path, MASTER_BACKUP_PREFIX); /* nobody copies them any more */
    struct master_store_options so = {.path = m->dir.rows, .cache_bytes = o->cache_bytes};
    r = master_store_open(&so, m->dir.cluster, &m->store);
    if (r < 0)
        return log_error(r, "metadata database '%s'", m->dir.rows);
    struct meta_options mo = {
        .memory_bytes = min(memory_budget(o), 32ull << 30),
        .slots = o->session_slots,
        .lease_ms = (uint32_t)o->lease_ms,
        .block_shift = block_shift(o->block_bytes),
        .level_max = o->feature_level_max,
        .replicas = min(o->replicas, (uint32_t)META_REPLICAS_MAX),
    };
    r = master_core_init(&m->core, &mo, m->store);
    return r < 0 ? log_error(r, "namespace in '%s'", m->dir.rows) : 0;
}

static int make_threads(struct master *m)
{
    const struct master_options *o = m->config.options;
    int r = master_sessions_new(o->sessions_max, &m->sessions);
    if (r == 0)
        r = master_workers_new(o, &m->workers);
    if (r == 0)
        r = master_ufs_new(backend(m->config.cluster), &m->ufs);
    if (r < 0)
        return r;
    master_ufs_set_describe(m->ufs, master_mounts_describe, &m->core);
    struct master_scribe_options so = {
        .options = o,
        .journal_socket = m->journal_socket,
        .cluster = m->dir.cluster,
        .metrics = m->config.metrics,
        .io_backend = backend(m->config.cluster),
        .sessions = m->sessions,
        .workers = m->workers,
        .ufs = m->ufs,
        .dir = m->dir.path,
        .state = m->dir.state,
        .failed = m->config.failed,
        .install = m->config.install,
        .no_room = m->config.no_room,
        .arg = m->config.arg,
    };
    r = master_scribe_new(&m->core, &so, &m->scribe);
    if (r < 0)
        return log_error(r, "scribe (journal socket %s)", m->journal_socket);
    r = master_import_core_new(&m->core, m->scribe, master_ufs_loop(m->ufs), &m->import_core);
    if (r < 0)
        return r;
    const struct master_import_sink sink = master_import_core_sink(m->import_core);
    r = master_import_new(m->ufs, &sink, &m->import);
    if (r < 0)
        return r;
    struct master_server_options no = {
        .options = o,
        .socket = m->socket,
        .cluster = m->dir.cluster,
        .master = m->dir.master,
        .metrics = m->config.metrics,
        .io_backend = backend(m->config.cluster),
        .sessions = m->sessions,
        .workers = m->workers,
        .ufs = m->ufs,
        .import = m->import,
        .status = master_status_answer,
        .arg = &m->status,
    };
    r = master_server_new(&m->core, m->scribe, &no, &m->server);
    return r < 0 ? log_error(r, "network loops") : 0;
}

int master_new(const struct master_config *config, struct master **ret)
{
    struct master *m cleanup(master_free_p) = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->config = *config;
    m->dir = MASTER_DIR_NONE;
    const struct master_options *o = config->options;
    snprintf(m->socket, sizeof(m->socket), "%s/master.sock", config->cluster->run_dir);
    if (o->journal_socket[0])
        snprintf(m->journal_socket, sizeof(m->journal_socket), "%s", o->journal_socket);
    else
        snprintf(m->journal_socket, sizeof(m->journal_socket), "%s/journal.sock", config->cluster->run_dir);
    int r = open_state(m);
    if (r == 0)
        r = make_threads(m);
    if (r < 0)
        return r;
    m->status = (struct master_status){
        .core = &m->core,
        .scribe = m->scribe,
        .workers = m->workers,
        .ufs = m->ufs,
        .import = m->import,
        .server = m->server,
        .options = o,
        .cluster = m->dir.cluster,
        .master = m->dir.master,
        .started_ns = clock_ns(),
        .started_wall_ns = clock_wall_ns(),
        .journal = m->journal_socket,
    };
    if (config->metrics)
        metrics_set_gauges(config->metrics, &master_metric_set, master_status_gauges, &m->status);
    *ret = take(m);
    return 0;
}

struct master *master_free(struct master *m)
{
    if (!m)
        return NULL;
    master_stop(m);
    if (m->config.metrics)
        metrics_set_gauges(m->config.metrics, &master_metric_set, NULL, NULL);
    master_server_free(m->server);
    master_scribe_free(m->scribe);
    master_import_free(m->import);
    master_import_core_free(m->import_core);
    master_ufs_free(m->ufs);
    master_workers_free(m->workers);
    master_sessions_free(m->sessions);
    master_core_fini(&m->core);
    master_store_free(m->store);
    master_dir_close(&m->dir);
    free(m);
    return NULL;
}

int master_start(struct master *m)
{
    int r = master_ufs_start(m->ufs);
    if (r < 0)
        return log_error(r, "thread ufs");
    r = master_server_start(m->server);
    if (r < 0)
        return r;
    m->started = true;
    snprintf(m->status.address, sizeof(m->status.address), "%s:%u", m->config.options->listen, master_port(m));
    log_info("listening on %s and %s", m->status.address, m->socket);
    r = master_scribe_start(m->scribe);
    return r < 0 ? log_error(r, "scribe") : 0;
}

int master_wait_ready(struct master *m, uint32_t timeout_ms)
{
    char why[128];
    uint64_t until = clock_ns() + timeout_ms * NS_PER_MS;
    int r;
    while ((r = master_ready(m, why, sizeof(why))) < 0 && clock_ns() < until)
        usleep(1000);
    return r;
}

void master_stop(struct master *m)
{
    if (m->started) {
        m->started = false;
        master_server_stop(m->server, STOP_GRACE_MS);
        master_ufs_refuse(m->ufs);
        master_import_stop(m->import);
        master_scribe_stop(m->scribe, STOP_GRACE_MS);
        master_import_end(m->import); /* what the scribe had has come back */
        master_server_end(m->server);
    }
    if (m->ufs)
        master_ufs_stop(m->ufs);
}

int master_ready(struct master *m, char *why, size_t why_size)
{
    return master_status_ready(&m->status, why, why_size);
}

int master_status_page(struct master *m, struct buf *out)
{
    return master_status_json(&m->status, out);
}

uint16_t master_port(const struct master *m)
{
    return master_server_port(m->server);
}
