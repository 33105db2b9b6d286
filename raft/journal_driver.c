/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_driver_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "raft/journal_status.h"

enum {
    COMPACT_ENTRIES = 1 << 16, /* delete in steps of at least so many entries */
    COMPACT_EVERY_NS = NS_PER_S,
    PINNED_PART = 4, /* so much of log_bytes_max above it may be held for who fetches a snapshot */
    HELD_MAX = 4096, /* messages waiting for their write; more are dropped, as any message may be */
    SLAB_BYTES = 64 << 10,
};

static void on_tick(struct loop_timer *timer);
static void on_written(void *arg, struct list *group);

const struct raft_conf *journal_driver_conf(const struct journal_driver *d)
{
    uint64_t index;
    return raft_conf_newest(d->raft, &index);
}

/* ---- life ---- */

/* The newest one or two configurations of the log. */
static int load_confs(struct journal_driver *d, struct raft_conf confs[2], struct raft_restart *restart)
{
    const struct journal_state *t = journal_store_state(d->options.store);
    uint32_t from = t->conf_count > 2 ? t->conf_count - 2 : 0;
    for (uint32_t i = from; i < t->conf_count; i++) {
        struct buf bytes cleanup(buf_fini) = {0};
        int r = journal_store_conf(d->options.store, t->confs[i], &bytes);
        if (r == 0)
            r = raft_conf_decode(bytes.p, bytes.n, &confs[i - from]);
        if (r < 0)
            return r == -ENOMEM || r == -CV_FORMAT_TOO_NEW ? r : -CV_LOG_DAMAGED;
        restart->conf_index[i - from] = t->confs[i];
        restart->conf[i - from] = &confs[i - from];
    }
    restart->conf_count = t->conf_count - from;
    return 0;
}

static int new_raft(struct journal_driver *d)
{
    const struct journal_state *t = journal_store_state(d->options.store);
    struct raft_options options = {
        .id = t->node,
        .seed = d->options.seed,
        .heartbeat_ms = (uint32_t)d->options.heartbeat_ms,
        .election_ms = (uint32_t)d->options.election_ms,
    };
    struct raft_restart restart = {
        .now_ms = clock_ms(),
        .term = t->term,
        .vote = t->vote,
        .first = t->first,
        .last = t->last,
        .base_term = t->base_term,
        .runs = t->runs,
        .run_count = t->run_count,
        .commit = t->commit,
        .applied = t->snap_index,
    };
    struct raft_conf confs[2];
    int r = load_confs(d, confs, &restart);
    if (r == 0)
        r = raft_new(&options, &restart, &d->raft);
    d->view.first = t->first;
    d->loaded = t->last;
    d->installed = t->snap_index;
    snprintf(d->installed_directory, sizeof(d->installed_directory), "%s", t->snap_directory);
    return r;
}

DEFINE_CLEANUP(struct journal_driver *, journal_driver_free)

int journal_driver_new(const struct journal_driver_options *options, struct journal_driver **ret)
{
    struct journal_driver *d cleanup(journal_driver_free_p) = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->options = *options;
    list_init(&d->held);
    loop_timer_init(&d->tick, on_tick);
    pool_init(&d->writes, sizeof(struct journal_write), SLAB_BYTES, 0); /* bounded by RAFT_WRITES_MAX */
    pool_init(&d->held_pool, sizeof(struct held_send), SLAB_BYTES, HELD_MAX);
    d->own_metrics = !options->metrics;
    int r = 0;
    if (options->metrics)
        r = metrics_block_new(options->metrics, &journal_metric_set, &d->metrics);
    else if (!(d->metrics = calloc(1, sizeof(*d->metrics))))
        r = -ENOMEM;
    if (r < 0 || (r = journal_ring_new(options->cache_bytes / 4, options->cache_bytes, &d->ring)) < 0 ||
        (r = new_raft(d)) < 0)
        return r;
    driver_look_around(d);
    *ret = take(d);
    return 0;
}

struct journal_driver *journal_driver_free(struct journal_driver *d)
{
    if (!d)
        return NULL;
    assert(d->writes_out == 0);
    journal_writer_stop(d->writer);
    raft_free(d->raft);
    journal_ring_free(d->ring);
    pool_fini(&d->writes);
    pool_fini(&d->held_pool);
    if (d->own_metrics)
        free(d->metrics);
    else if (d->metrics)
        metrics_block_free(d->options.metrics, &journal_metric_set, d->metrics);
    free(d);
    return NULL;
}

int journal_driver_start(struct journal_driver *d)
{
    struct journal_writer_options options = {
        .loop = d->options.loop,
        .store = d->options.store,
        .dir = d->options.dir,
        .metrics = d->options.metrics,
        .written = on_written,
        .arg = d,
    };
    int r = journal_writer_start(&options, &d->writer);
    if (r < 0)
        return r;
    const struct raft_conf *conf = journal_driver_conf(d);
    if (conf && d->options.transport)
        d->options.transport->members(d->options.transport_arg, conf);
    loop_timer_start(d->options.loop, &d->tick, 0);
    return 0;
}

static void finish_stop(struct journal_driver *d)
{
    if (d->stopping && d->writes_out == 0 && d->stopped) {
        void (*stopped)(void *arg) = d->stopped;
        d->stopped = NULL;
        stopped(d->stopped_arg);
    }
}

void journal_driver_stop(struct journal_driver *d, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(d->options.loop);
    d->stopping = true;
    d->stopped = stopped;
    d->stopped_arg = arg;
    loop_timer_stop(d->options.loop, &d->tick);
    finish_stop(d);
}

/* ---- the disk and the clock ---- */

static void on_written(void *arg, struct list *group)
{
    struct journal_driver *d = arg;
    uint64_t seq = 0;
    bool installed = false;
    for (struct list *e; (e = list_pop_front(group));) {
        struct journal_write *w = list_entry(e, struct journal_write, link);
        for (uint32_t i = 0; i < w->unit.count; i++)
            journal_ring_unpin(d->ring, container_of(w->entries[i], struct journal_record, entry));
        seq = max(seq, w->seq);
        d->compacting = d->compacting && !w->compact_first;
        if (w->install) {
            d->installed = w->install->index;
            snprintf(d->installed_directory, sizeof(d->installed_directory), "%s", w->install->directory);
            installed = true;
        }
        free(w->install);
        pool_release(&d->writes, w);
        d->writes_out--;
    }
    if (seq) {
        struct raft_input in = {.type = RAFT_IN_WRITTEN, .written.seq = seq};
        (void)driver_step(d, &in, NULL);
        if (d->options.transport)
            driver_release_held(d, seq);
    }
    if (installed && d->options.snapshots && !d->stopping)
        d->options.snapshots->installed(d->options.snapshots_arg);
    finish_stop(d);
}

/* A peer's fetch holds the log from its snapshot on, but not for ever: it would be offered another. */
static void unpin_snapshots(struct journal_driver *d)
{
    struct raft_status s;
    raft_status(d->raft, &s);
    for (uint32_t i = 0; i < s.peer_count; i++) {
        if (s.peers[i].state != RAFT_SNAPSHOT)
            continue;
        log_warn(0,
                 "the log is above journal.log_bytes_max: node %016" PRIx64 " loses its hold on it, and needs another "
                 "snapshot",
                 s.peers[i].id);
        (void)journal_driver_snapshot_failed(d, s.peers[i].id);
    }
}

/* The application's watermarks. */
static int step_app(struct journal_driver *d)
{
    struct raft_input in = {
        .type = RAFT_IN_APP,
        .app = {.applied = d->applied,
                .flushed = d->flushed,
                .can_lead = d->can_lead,
                .reluctant = d->reluctant,
                .log_full = d->log_full},
    };
    return driver_step(d, &in, NULL);
}

/* Delete the beginning of the log once enough of it is needed by nobody. */
static void maybe_compact(struct journal_driver *d)
{
    uint64_t bytes = journal_writer_log_bytes(d->writer);
    bool full = bytes > d->options.log_bytes_max;
    if (full != d->log_full) {
        d->log_full = full;
        (void)step_app(d);
    }
    if (bytes > d->options.log_bytes_max + d->options.log_bytes_max / PINNED_PART)
        unpin_snapshots(d);
    uint64_t keep = full ? 0 : d->options.keep_entries;
    uint64_t first = d->compact_to > keep ? d->compact_to - keep + 1 : 1;
    uint64_t least = d->options.compact_entries ? d->options.compact_entries : COMPACT_ENTRIES;
    if (full)
        least = min(least, (uint64_t)COMPACT_ENTRIES / 64);
    if (d->compacting || first < d->view.first + least)
        return;
    struct raft_input in = {.type = RAFT_IN_COMPACT, .compact.first = first};
    if (driver_step(d, &in, NULL) < 0)
        return;
    d->view.first = first;
    d->compacting = true;
    struct journal_write *w = driver_new_write(d);
    w->compact_first = first;
    driver_push(d, w);
}

static void on_tick(struct loop_timer *timer)
{
    struct journal_driver *d = container_of(timer, struct journal_driver, tick);
    uint64_t now = clock_ns();
    loop_timer_start(d->options.loop, &d->tick, now + d->options.tick_ms * NS_PER_MS);
    struct raft_input in = {.type = RAFT_IN_TICK};
    (void)driver_step(d, &in, NULL);
    if (now - d->compact_looked_ns >= COMPACT_EVERY_NS) {
        d->compact_looked_ns = now;
        maybe_compact(d);
    }
}

/* ---- inputs ---- */

int journal_driver_propose(struct journal_driver *d, uint64_t term, struct journal_record *const *records,
                           uint32_t count, uint64_t *ret_first)
{
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    assert(count > 0 && count <= RAFT_APPEND_ENTRIES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const struct journal_entry *e = &records[i]->entry;
        entries[i] = (struct raft_entry){.data = e->data, .size = e->size, .type = e->type};
    }
    struct raft_input in = {.type = RAFT_IN_PROPOSE, .propose = {.term = term, .entries = entries, .count = count}};
    int r = driver_step(d, &in, records);
    if (r == 0)
        *ret_first = d->view.last - count + 1;
    return r;
}

void journal_driver_reluctant(struct journal_driver *d, bool reluctant)
{
    d->reluctant = reluctant;
}

int journal_driver_applied(struct journal_driver *d, uint64_t applied, uint64_t flushed, bool can_lead)
{
    if (applied > max(d->view.apply_to, d->loaded) || flushed > applied)
        return -CV_LOG_DAMAGED;
    d->applied = applied;
    d->flushed = flushed;
    d->can_lead = can_lead;
    return step_app(d);
}

void journal_driver_attached(struct journal_driver *d, bool attached)
{
    d->attached = attached;
    if (!attached && !d->stopping)
        (void)journal_driver_applied(d, d->applied, d->flushed, false);
    driver_publish(d);
}

int journal_driver_read(struct journal_driver *d, uint64_t context)
{
    struct raft_input in = {.type = RAFT_IN_READ, .read.context = context};
    return driver_step(d, &in, NULL);
}

int journal_driver_transfer(struct journal_driver *d, uint64_t to)
{
    struct raft_input in = {.type = RAFT_IN_TRANSFER, .transfer.to = to};
    return driver_step(d, &in, NULL);
}

int journal_driver_change(struct journal_driver *d, enum raft_conf_op op, const struct raft_member *member,
                          uint64_t *ret_index)
{
    struct raft_input in = {.type = RAFT_IN_CONF, .conf = {.op = op, .member = *member}};
    int r = driver_step(d, &in, NULL);
    if (r == 0)
        *ret_index = d->view.last;
    return r;
}

/* ---- snapshots ---- */

int journal_driver_snapshot_ready(struct journal_driver *d, uint64_t peer, uint64_t source, uint64_t index)
{
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_READY,
                            .snapshot_ready = {.peer = peer, .source = source, .index = index}};
    return driver_step(d, &in, NULL);
}

int journal_driver_snapshot_failed(struct journal_driver *d, uint64_t peer)
{
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_FAILED, .snapshot_failed.peer = peer};
    return driver_step(d, &in, NULL);
}

/* One piece of memory with all it points to. */
static struct journal_install *copy_install(const struct journal_install *from)
{
    size_t name = strlen(from->directory) + 1;
    struct journal_install *i = malloc(sizeof(*i) + from->conf_size + name);
    if (!i)
        return NULL;
    uint8_t *at = (uint8_t *)(i + 1);
    *i = *from;
    i->conf = memcpy(at, from->conf, from->conf_size);
    i->directory = memcpy(at + from->conf_size, from->directory, name);
    return i;
}

int journal_driver_install(struct journal_driver *d, const struct journal_install *install,
                           const struct raft_conf *conf)
{
    if (strlen(install->directory) >= sizeof(d->installed_directory))
        return -ENAMETOOLONG;
    d->installing = copy_install(install);
    if (!d->installing)
        return -ENOMEM;
    struct raft_input in = {
        .type = RAFT_IN_SNAPSHOT_INSTALL,
        .snapshot_install = {
            .index = install->index, .term = install->term, .conf_index = install->conf_index, .conf = conf}};
    int r = driver_step(d, &in, NULL);
    free(d->installing); /* refused */
    d->installing = NULL;
    return r;
}

uint64_t journal_driver_installed(const struct journal_driver *d, const char **ret_directory)
{
    *ret_directory = d->installed_directory;
    return d->installed;
}

/* ---- the transport's ---- */

int journal_driver_message(struct journal_driver *d, const struct raft_message *message)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; message->type == RAFT_MSG_APPEND && i < message->append.count; i++)
        bytes += message->entries[i].size;
    if (journal_ring_pinned(d->ring) + bytes > d->options.cache_bytes / 2)
        return -CV_BUSY; /* the disk is far behind */
    if (message->type == RAFT_MSG_HEARTBEAT && message->heartbeat.chain &&
        message->heartbeat.commit <= d->view.durable) {
        const struct journal_record *record = journal_ring_find(d->ring, message->heartbeat.commit);
        if (record && record->entry.chain != message->heartbeat.chain && message->heartbeat.commit <= d->view.commit)
            log_fatal(-CV_LOG_DIVERGED,
                      "committed entry %" PRIu64 " differs from the leader's: stopping, compare the logs",
                      message->heartbeat.commit);
    }
    struct raft_input in = {.type = RAFT_IN_MESSAGE, .message = message};
    return driver_step(d, &in, NULL);
}

int journal_driver_attach(struct journal_driver *d, struct raft_message *message, uint64_t bytes_max,
                          struct journal_record *records[RAFT_APPEND_ENTRIES_MAX])
{
    assert(message->type == RAFT_MSG_APPEND);
    uint64_t term, last = message->append.prev_index + message->append.count;
    if (message->append.count == 0)
        return 0;
    if (raft_term(d->raft, last, &term) < 0 || term != message->append.last_term ||
        message->append.prev_index + 1 < d->view.first)
        return -ENOENT;
    uint32_t count = 0;
    uint64_t bytes = 0;
    for (; count < message->append.count; count++) {
        struct journal_record *record = journal_ring_find(d->ring, message->append.prev_index + 1 + count);
        if (!record || (count > 0 && bytes + record->entry.size > bytes_max))
            break;
        journal_ring_pin(d->ring, record);
        records[count] = record;
        bytes += record->entry.size;
    }
    if (count == 0)
        return -EAGAIN;
    message->append.count = count;
    message->append.last_term = records[count - 1]->entry.term;
    return (int)count;
}

/* ---- questions ---- */

const struct journal_view *journal_driver_view(const struct journal_driver *d)
{
    return &d->view;
}

struct journal_ring *journal_driver_ring(struct journal_driver *d)
{
    return d->ring;
}

struct journal_store *journal_driver_store(struct journal_driver *d)
{
    return d->options.store;
}

struct journal_metrics *journal_driver_metrics(struct journal_driver *d)
{
    return d->metrics;
}

const struct raft *journal_driver_raft(const struct journal_driver *d)
{
    return d->raft;
}

int journal_driver_status(struct journal_driver *d, struct buf *out)
{
    const struct journal_state *t = journal_store_state(d->options.store);
    char cluster[UUID_STRING];
    int r = journal_status_write(d->raft, clock_ms(), out);
    if (r == 0)
        r = buf_printf(out, ",\"cluster\":\"%s\",\"incarnation\":%u", uuid_format(t->cluster, cluster), t->incarnation);
    if (r == 0 && d->options.transport && d->options.transport->status)
        r = d->options.transport->status(d->options.transport_arg, out);
    if (r == 0 && d->options.snapshots)
        r = d->options.snapshots->status(d->options.snapshots_arg, out);
    return r < 0 ? r : buf_printf(out, "}");
}

int journal_driver_term(const struct journal_driver *d, uint64_t index, uint64_t *ret)
{
    return raft_term(d->raft, index, ret);
}

void journal_driver_gauges(const struct journal_driver *d, struct journal_gauges *ret)
{
    const struct figures *f = &d->figures;
#define READ(name) (int64_t) atomic_load_explicit(&f->name, memory_order_relaxed)
    ret->role = READ(role);
    ret->term = READ(term);
    ret->first = READ(first);
    ret->last = READ(last);
    ret->durable = READ(durable);
    ret->commit = READ(commit);
    ret->applied = READ(applied);
    ret->flushed = READ(flushed);
    ret->attached = READ(attached);
    ret->warnings = READ(warnings);
    ret->cache_used_bytes = READ(cache_used);
#undef READ
    ret->log_bytes = (int64_t)journal_writer_log_bytes(d->writer);
    ret->disk_free_bytes = (int64_t)journal_writer_disk_free(d->writer);
}
