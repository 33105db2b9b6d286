/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "conf/dir_lock.h"
#include "conf/json.h"
#include "raft/journal_driver.h"
#include "raft/journal_link.h"
#include "raft/journal_peer.h"
#include "raft/journal_snapshot.h"
#include "raft/journal_status.h"

enum { SILENT_MS = 1000, CREDIT_PART = 8 /* of the cache */ };

struct journal {
    struct journal_config config;
    struct loop *loop;
    struct journal_store *store;         /* NULL in quarantine */
    int lock_fd;                         /* of the directory, in quarantine: the store has its own */
    struct journal_driver *driver;       /* NULL in quarantine */
    struct journal_peers *peers;         /* NULL in quarantine */
    struct journal_snapshots *snapshots; /* NULL in quarantine */
    struct journal_link *link;
    bool started, running;
    sem_t done; /* a part has stopped */
    char socket[128];
    struct buf reason; /* of quarantine, with a final zero */
    struct buf *status;
};

/* ---- start ---- */

static int open_store(struct journal *j)
{
    const char *dir = j->config.options->dir;
    struct journal_store_options options = {.memtable_bytes = j->config.options->memtable_bytes};
    int r = journal_store_open(dir, &options, &j->reason, &j->store);
    int e = buf_append(&j->reason, "", 1);
    if (e < 0)
        return e;
    if (r == -CV_LOG_DAMAGED) {
        log_error(r, "the log in %s: %s. In quarantine until it is replaced", dir, (const char *)j->reason.p);
        r = dir_lock(dir, &j->lock_fd, NULL); /* a process of this directory still: seen, stopped, and alone */
        return r < 0 ? log_error(r, "the log in %s", dir) : 0;
    }
    if (r < 0)
        return log_error(r, "the log in %s: %s", dir, (const char *)j->reason.p);
    const struct journal_state *t = journal_store_state(j->store);
    char node[17], cluster[UUID_STRING];
    log_info("node %s of cluster %s: log %llu to %llu, term %llu", journal_node_text(t->node, node),
             uuid_format(t->cluster, cluster), (unsigned long long)t->first, (unsigned long long)t->last,
             (unsigned long long)t->term);
    return 0;
}

static int new_link(struct journal *j)
{
    const struct journal_options *o = j->config.options;
    int n = *o->socket ? snprintf(j->socket, sizeof(j->socket), "%s", o->socket)
                       : snprintf(j->socket, sizeof(j->socket), "%s/journal.sock", j->config.run_dir);
    if (n >= (int)sizeof(j->socket))
        return log_error(-ENAMETOOLONG, "the path of the master's socket");
    struct journal_link_options options = {
        .loop = j->loop,
        .socket = j->socket,
        .credit_bytes = min(o->uncommitted_bytes, o->cache_bytes / CREDIT_PART),
        .silent_ms = SILENT_MS,
    };
    if (j->store) {
        const struct journal_state *t = journal_store_state(j->store);
        options.cluster = t->cluster;
        options.node = t->node;
        options.incarnation = t->incarnation;
        options.snapshots = &journal_snapshots_link;
        options.snapshots_arg = j->snapshots;
    } else {
        options.refuse = -CV_LOG_DAMAGED;
        options.reason = (const char *)j->reason.p;
    }
    return journal_link_new(&options, &j->link);
}

static int new_snapshots(struct journal *j)
{
    const struct journal_state *t = journal_store_state(j->store);
    struct journal_snapshots_options options = {
        .loop = j->loop,
        .cluster = t->cluster,
        .node = t->node,
        .incarnation = t->incarnation,
        .rate = j->config.options->snapshot_rate,
    };
    return journal_snapshots_new(&options, &j->snapshots);
}

static int new_peers(struct journal *j)
{
    const struct journal_options *o = j->config.options;
    const struct journal_state *t = journal_store_state(j->store);
    struct journal_peers_options options = {
        .loop = j->loop,
        .self = {.cluster = t->cluster, .node = t->node, .incarnation = t->incarnation},
        .listen = o->listen,
        .port = (uint16_t)o->port,
        .election_ms = (uint32_t)o->election_ms,
        .snapshot = journal_snapshots_accept,
        .snapshot_arg = j->snapshots,
    };
    int r = journal_peers_new(&options, &j->peers);
    return r < 0 ? log_error(r, "journal.listen '%s'", o->listen) : 0;
}

static int new_driver(struct journal *j)
{
    const struct journal_options *o = j->config.options;
    struct journal_driver_options options = {
        .loop = j->loop,
        .store = j->store,
        .dir = o->dir,
        .metrics = j->config.metrics,
        .app = &journal_link_app,
        .app_arg = j->link,
        .transport = &journal_peers_transport,
        .transport_arg = j->peers,
        .snapshots = &journal_snapshots_driver,
        .snapshots_arg = j->snapshots,
        .seed = random_u64(),
        .cache_bytes = o->cache_bytes,
        .tick_ms = o->tick_ms,
        .heartbeat_ms = o->heartbeat_ms,
        .election_ms = o->election_ms,
        .compact_entries = o->compact_entries,
        .keep_entries = o->keep_entries,
        .disk_reserve_bytes = o->disk_reserve_bytes,
        .log_bytes_max = o->log_bytes_max,
    };
    int r = journal_driver_new(&options, &j->driver);
    return r < 0 ? log_error(r, "the log in %s cannot be started from", o->dir) : 0;
}

static void fill_gauges(void *arg, void *gauges)
{
    const struct journal *j = arg;
    journal_driver_gauges(j->driver, gauges);
    journal_peers_gauges(j->peers, gauges);
}

static int start_parts(struct journal *j)
{
    int r = 0;
    if (j->driver) {
        journal_snapshots_start(j->snapshots, j->driver, j->link, j->peers);
        if (j->config.metrics)
            r = metrics_set_gauges(j->config.metrics, &journal_metric_set, fill_gauges, j);
        if (r < 0 || (r = journal_driver_start(j->driver)) < 0)
            return r;
    }
    j->started = true;
    if (j->driver && (r = journal_peers_start(j->peers, j->driver)) < 0)
        return r;
    r = journal_link_start(j->link, j->driver);
    if (r < 0)
        return log_error(r, "listen for the master on %s", j->socket);
    r = loop_start(j->loop);
    j->running = r == 0;
    return r;
}

int journal_start(const struct journal_config *config, struct journal **ret)
{
    struct journal *j cleanup(journal_stop_p) = calloc(1, sizeof(*j));
    if (!j)
        return -ENOMEM;
    j->lock_fd = -1;
    j->config = *config;
    sem_init(&j->done, 0, 0);
    struct loop_options options = {.name = "journal", .backend = config->io};
    int r = open_store(j);
    if (r < 0)
        return r;
    r = loop_new(&options, &j->loop);
    if (r < 0)
        return log_error(r, "make an event loop");
    if ((j->store && (r = new_snapshots(j)) < 0) || (r = new_link(j)) < 0 ||
        (j->store && ((r = new_peers(j)) < 0 || (r = new_driver(j)) < 0)) || (r = start_parts(j)) < 0)
        return r;
    *ret = take(j);
    return 0;
}

/* ---- stop ---- */

static void part_stopped(void *arg)
{
    struct journal *j = arg;
    sem_post(&j->done);
}

static int stop_link(void *arg)
{
    struct journal *j = arg;
    journal_link_stop(j->link, part_stopped, j);
    return 0;
}

static int stop_snapshots(void *arg)
{
    struct journal *j = arg;
    journal_snapshots_stop(j->snapshots, part_stopped, j);
    return 0;
}

static int stop_peers(void *arg)
{
    struct journal *j = arg;
    journal_peers_stop(j->peers, part_stopped, j);
    return 0;
}

static int stop_driver(void *arg)
{
    struct journal *j = arg;
    journal_driver_stop(j->driver, part_stopped, j);
    return 0;
}

static void stop_part(struct journal *j, int (*stop)(void *arg))
{
    (void)loop_call(j->loop, stop, j);
    while (sem_wait(&j->done) < 0)
        ;
}

static int begin_handover(void *arg)
{
    struct journal *j = arg;
    const struct journal_view *v = journal_driver_view(j->driver);
    if (v->role != RAFT_LEADER || v->voters <= 1)
        return -CV_NOT_LEADER;
    return journal_link_let_go(j->link) ? journal_driver_transfer(j->driver, 0) : -EAGAIN;
}

static int leads(void *arg)
{
    struct journal *j = arg;
    return journal_driver_view(j->driver)->role == RAFT_LEADER;
}

/* A leader that stops names its successor, so that nobody has to find out by waiting (3.10). */
static void hand_over(struct journal *j)
{
    uint64_t leased = clock_ms() + j->config.options->election_ms;
    int r;
    while ((r = loop_call(j->loop, begin_handover, j)) == -EAGAIN && clock_ms() < leased)
        usleep(2000);
    if (r < 0)
        return;
    uint64_t until = clock_ms() + j->config.options->election_ms; /* then the core has given it up */
    while (loop_call(j->loop, leads, j) && clock_ms() < until)
        usleep(2000);
}

struct journal *journal_stop(struct journal *j)
{
    if (!j)
        return NULL;
    if (j->started && !j->running)
        j->running = loop_start(j->loop) == 0; /* what was begun ends on the loop */
    if (j->running) {
        if (j->driver)
            hand_over(j);
        stop_part(j, stop_link);
        if (j->driver) {
            stop_part(j, stop_snapshots);
            stop_part(j, stop_peers);
            stop_part(j, stop_driver);
        }
        loop_stop(j->loop);
        (void)loop_join(j->loop);
    }
    if (j->driver && j->config.metrics)
        (void)metrics_set_gauges(j->config.metrics, &journal_metric_set, NULL, NULL);
    j->driver = journal_driver_free(j->driver);
    j->snapshots = journal_snapshots_free(j->snapshots);
    j->peers = journal_peers_free(j->peers);
    j->link = journal_link_free(j->link);
    j->loop = loop_free(j->loop);
    j->store = journal_store_free(j->store);
    closep(&j->lock_fd);
    buf_fini(&j->reason);
    sem_destroy(&j->done);
    free(j);
    return NULL;
}

/* ---- reload ---- */

struct reload {
    struct journal *j;
    const struct journal_options *options;
};

static int take_options(void *arg)
{
    const struct reload *r = arg;
    journal_snapshots_set_rate(r->j->snapshots, r->options->snapshot_rate);
    return 0;
}

void journal_reload(struct journal *j, const struct journal_options *options)
{
    struct reload r = {.j = j, .options = options};
    if (j->snapshots)
        (void)loop_call(j->loop, take_options, &r);
}

/* ---- questions ---- */

const char *journal_socket(const struct journal *j)
{
    return j->socket;
}

static int read_view(void *arg)
{
    struct journal *j = arg;
    const struct journal_view *v = journal_driver_view(j->driver);
    return v->leader ? 0 : -CV_NOT_LEADER;
}

int journal_ready(struct journal *j, char *why, size_t why_size)
{
    if (!j->driver) {
        snprintf(why, why_size, "in quarantine: %s", (const char *)j->reason.p);
        return -CV_LOG_DAMAGED;
    }
    int r = loop_call(j->loop, read_view, j);
    if (r < 0)
        snprintf(why, why_size, "no leader known");
    return r;
}

static int write_status(void *arg)
{
    struct journal *j = arg;
    return journal_driver_status(j->driver, j->status);
}

int journal_status(struct journal *j, struct buf *out)
{
    if (!j->driver) {
        int r = buf_printf(out, "{\"quarantine\":");
        if (r == 0)
            r = json_write_text(out, (const char *)j->reason.p);
        return r < 0 ? r : buf_printf(out, "}");
    }
    j->status = out;
    return loop_call(j->loop, write_status, j);
}
