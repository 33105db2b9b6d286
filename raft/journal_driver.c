/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_driver.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/pool.h"
#include "raft/journal_status.h"

enum {
    DISK_FULL = 64 << 20,      /* with less, or a quarter of the reserve, nothing is taken at all */
    COMPACT_ENTRIES = 1 << 16, /* delete in steps of at least so many entries */
    COMPACT_EVERY_NS = NS_PER_S,
    PINNED_PART = 4, /* so much of log_bytes_max above it may be held for who fetches a snapshot */
    HELD_MAX = 4096, /* messages waiting for their write; more are dropped, as any message may be */
    SLAB_BYTES = 64 << 10,
};

/* A message whose promise is not durable yet. */
struct held_send {
    struct list link;
    struct raft_send send;
};

/* What other threads may read: the view and the application's watermarks. */
struct figures {
    _Atomic uint64_t role, term, first, last, durable, commit, applied, flushed, attached, warnings, cache_used;
};

struct journal_driver {
    struct journal_driver_options options;
    struct raft *raft;
    struct journal_ring *ring;
    struct journal_writer *writer;
    struct journal_metrics *metrics;
    bool own_metrics;
    struct loop_timer tick;
    uint64_t compact_looked_ns, compact_to;

    struct journal_view view;
    uint64_t installed; /* index of the state the log goes on behind, and its directory; durable */
    char installed_directory[256];
    struct journal_install *installing; /* for the next write of the core: see journal_driver_install() */
    uint64_t loaded;                    /* last entry of ours that was on disk at the start, and still is */
    uint64_t applied, flushed;
    bool attached, can_lead, log_full, compacting;
    uint32_t warned; /* warnings that were logged */

    struct pool writes;    /* struct journal_write */
    uint32_t writes_out;   /* pushed and not back */
    struct pool held_pool; /* struct held_send */
    struct list held;      /* in order of sending */
    struct figures figures;

    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void on_tick(struct loop_timer *timer);
static void on_written(void *arg, struct list *group);

static uint64_t now_ms(void)
{
    return clock_ms();
}

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
        .now_ms = now_ms(),
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

/* What does not come from a step: configuration, disk. */
static void look_around(struct journal_driver *d)
{
    const struct raft_conf *conf = journal_driver_conf(d);
    uint32_t voters = conf ? raft_conf_voters(conf) : 0;
    d->view.members = conf ? conf->count : 0;
    if (voters != d->view.voters) {
        d->view.voters = voters;
        uint64_t all = d->options.cache_bytes;
        journal_ring_resize(d->ring, voters > 1 ? all : all / 4); /* with one only its own master reads */
    }
    uint64_t disk_free = d->writer ? journal_writer_disk_free(d->writer) : UINT64_MAX;
    bool low = disk_free < d->options.disk_reserve_bytes;
    if (low != d->view.disk_low)
        log_warn(0,
                 low ? "less than %" PRIu64 " MiB are free on the log's file system: the master refuses what is new"
                     : "%" PRIu64 " MiB are free on the log's file system again",
                 d->options.disk_reserve_bytes >> 20);
    d->view.disk_low = low;
    d->view.disk_full = disk_free < min(d->options.disk_reserve_bytes / 4, (uint64_t)DISK_FULL);
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
    look_around(d);
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

/* ---- carrying out a step ---- */

static struct journal_write *new_write(struct journal_driver *d)
{
    struct journal_write *w = pool_alloc(&d->writes);
    if (!w)
        log_fatal(-ENOMEM, "no memory for a write of the log: stopping");
    memset(w, 0, sizeof(*w));
    return w;
}

static void push(struct journal_driver *d, struct journal_write *w)
{
    d->writes_out++;
    journal_writer_push(d->writer, w);
}

/* The core's own entries, and those of a message, into the ring. */
static struct journal_record *copy_entry(struct journal_driver *d, const struct raft_entry *e)
{
    struct journal_record *record;
    int r = journal_ring_alloc_always(d->ring, e->size, &record);
    if (r < 0)
        log_fatal(r, "no memory for an entry of the log: stopping");
    if (e->size)
        memcpy(record->data, e->data, e->size);
    record->entry.type = e->type;
    record->entry.data_crc = crc32c(0, e->data, e->size);
    return record;
}

/* The unit of raft.h's point 2 to the log writer. records: of a proposal; NULL: the entries are copied. */
static void queue_write(struct journal_driver *d, const struct raft_write *in, struct journal_record *const *records)
{
    struct journal_write *w = new_write(d);
    w->seq = in->seq;
    w->unit = (struct journal_unit){
        .term = in->term,
        .vote = in->vote,
        .commit = in->commit,
        .truncate_from = in->truncate_from,
        .entries = w->entries,
        .count = in->count,
    };
    if (in->install.index) {
        assert(d->installing && d->installing->index == in->install.index);
        w->unit.install = w->install = take(d->installing);
        d->view.first = in->install.index + 1;
        if (in->truncate_from)
            journal_ring_truncate(d->ring, 0); /* also what is below: it was never committed */
    }
    if (in->truncate_from) {
        journal_ring_truncate(d->ring, in->truncate_from);
        d->loaded = min(d->loaded, in->truncate_from - 1);
    }
    for (uint32_t i = 0; i < in->count; i++) {
        struct journal_record *record = records ? records[i] : copy_entry(d, &in->entries[i]);
        journal_ring_add(d->ring, record, in->first + i, in->entries[i].term);
        w->entries[i] = &record->entry;
    }
    push(d, w);
}

static void send_now(struct journal_driver *d, struct raft_message *m)
{
    if (m->type == RAFT_MSG_HEARTBEAT) {
        const struct journal_record *record = journal_ring_find(d->ring, m->heartbeat.commit);
        m->heartbeat.chain = record && m->heartbeat.commit <= d->view.durable ? record->entry.chain : 0;
    }
    d->options.transport->send(d->options.transport_arg, m);
}

static void send_or_hold(struct journal_driver *d, const struct raft_send *send)
{
    if (!d->options.transport)
        return;
    if (send->after_seq == 0) {
        struct raft_message m = send->message;
        send_now(d, &m);
        return;
    }
    struct held_send *h = pool_alloc(&d->held_pool);
    if (!h)
        return; /* a lost message */
    h->send = *send;
    list_push_back(&d->held, &h->link);
}

static void release_held(struct journal_driver *d, uint64_t seq)
{
    while (!list_empty(&d->held)) {
        struct held_send *h = list_entry(d->held.next, struct held_send, link);
        if (h->send.after_seq > seq)
            break;
        list_remove(&h->link);
        send_now(d, &h->send.message);
        pool_release(&d->held_pool, h);
    }
}

static void publish(struct journal_driver *d)
{
    const struct journal_view *v = &d->view;
    struct figures *f = &d->figures;
    const uint64_t values[] = {v->role,
                               v->term,
                               v->first,
                               v->last,
                               v->durable,
                               v->commit,
                               d->applied,
                               d->flushed,
                               d->attached,
                               v->warnings,
                               journal_ring_used(d->ring)};
    _Atomic uint64_t *const to[] = {&f->role,    &f->term,    &f->first,    &f->last,     &f->durable,   &f->commit,
                                    &f->applied, &f->flushed, &f->attached, &f->warnings, &f->cache_used};
    for (size_t i = 0; i < array_size(to); i++)
        atomic_store_explicit(to[i], values[i], memory_order_relaxed);
}

static void log_warnings(struct journal_driver *d, uint32_t now)
{
    static const char *const texts[] = {
        "this node leads but should not, and nobody can take over",
        "the log was compacted without waiting for a silent member, which will need a snapshot",
        "this node does not belong to the cluster's newest configuration",
    };
    for (uint32_t i = 0; i < array_size(texts); i++) {
        if (now & ~d->warned & (1u << i))
            log_warn(0, "%s", texts[i]);
    }
    d->warned = now;
}

/* Returns whether anything but the role changed. */
static bool update_view(struct journal_driver *d, const struct raft_output *out)
{
    struct journal_view old = d->view, *v = &d->view;
    v->role = out->role;
    v->term = out->term;
    v->leader = out->leader;
    v->last = out->last;
    v->durable = out->durable;
    v->commit = out->commit;
    v->apply_to = out->apply_to;
    v->warnings = out->warnings;
    d->compact_to = out->compact_to;
    look_around(d);
    v->lease_until_ns = v->role == RAFT_LEADER && v->members == 1 ? UINT64_MAX : out->lease_until_ms * NS_PER_MS;
    if (v->warnings != d->warned)
        log_warnings(d, v->warnings);
    /* Padding that differs tells once too often, no harm. NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    return memcmp(&old, v, sizeof(old)) != 0;
}

static void carry_out(struct journal_driver *d, const struct raft_output *out, struct journal_record *const *records)
{
    const struct journal_app *app = d->options.app;
    bool moved = update_view(d, out);
    if (out->role_changed) {
        static const char *const roles[] = {"", "follower", "pre-candidate", "candidate", "leader"};
        log_info("%s of term %" PRIu64 ", log ends at %" PRIu64, roles[out->role], out->term, out->last);
        if (app)
            app->role(d->options.app_arg);
    }
    if (out->write.seq)
        queue_write(d, &out->write, records);
    if (out->write.truncate_from && app)
        app->truncated(d->options.app_arg, out->write.truncate_from);
    if (moved && app)
        app->progress(d->options.app_arg);
    for (uint32_t i = 0; i < out->send_count; i++)
        send_or_hold(d, &out->sends[i]);
    for (uint32_t i = 0; i < out->read_count && app; i++)
        app->read(d->options.app_arg, out->reads[i].context, out->reads[i].index, out->reads[i].result);
    const struct journal_snapshot_ops *snapshots = d->options.snapshots;
    for (uint32_t i = 0; i < out->want_count && snapshots; i++)
        snapshots->want(d->options.snapshots_arg, &out->wants[i]);
    if (out->offer.index && snapshots)
        snapshots->offer(d->options.snapshots_arg, &out->offer);
    publish(d);
}

/* One input. records: of a proposal. */
static int step(struct journal_driver *d, struct raft_input *in, struct journal_record *const *records)
{
    assert_on_loop(d->options.loop);
    if (d->stopping && in->type != RAFT_IN_WRITTEN)
        return -CV_STOPPING;
    in->now_ms = now_ms();
    struct raft_output out;
    uint64_t conf_before, conf_after;
    (void)raft_conf_newest(d->raft, &conf_before);
    int r = raft_step(d->raft, in, &out);
    if (r == -CV_LOG_DIVERGED)
        log_fatal(r, "%s: stopping, look with cv-journal check and compare with the other members",
                  raft_alarm(d->raft));
    carry_out(d, &out, records);
    const struct raft_conf *conf = raft_conf_newest(d->raft, &conf_after);
    if (conf && conf_after != conf_before && d->options.transport)
        d->options.transport->members(d->options.transport_arg, conf);
    return r;
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
        (void)step(d, &in, NULL);
        if (d->options.transport)
            release_held(d, seq);
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
        .app = {.applied = d->applied, .flushed = d->flushed, .can_lead = d->can_lead, .log_full = d->log_full},
    };
    return step(d, &in, NULL);
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
    if (step(d, &in, NULL) < 0)
        return;
    d->view.first = first;
    d->compacting = true;
    struct journal_write *w = new_write(d);
    w->compact_first = first;
    push(d, w);
}

static void on_tick(struct loop_timer *timer)
{
    struct journal_driver *d = container_of(timer, struct journal_driver, tick);
    uint64_t now = clock_ns();
    loop_timer_start(d->options.loop, &d->tick, now + d->options.tick_ms * NS_PER_MS);
    struct raft_input in = {.type = RAFT_IN_TICK};
    (void)step(d, &in, NULL);
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
    int r = step(d, &in, records);
    if (r == 0)
        *ret_first = d->view.last - count + 1;
    return r;
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
    publish(d);
}

int journal_driver_read(struct journal_driver *d, uint64_t context)
{
    struct raft_input in = {.type = RAFT_IN_READ, .read.context = context};
    return step(d, &in, NULL);
}

int journal_driver_transfer(struct journal_driver *d, uint64_t to)
{
    struct raft_input in = {.type = RAFT_IN_TRANSFER, .transfer.to = to};
    return step(d, &in, NULL);
}

int journal_driver_change(struct journal_driver *d, enum raft_conf_op op, const struct raft_member *member,
                          uint64_t *ret_index)
{
    struct raft_input in = {.type = RAFT_IN_CONF, .conf = {.op = op, .member = *member}};
    int r = step(d, &in, NULL);
    if (r == 0)
        *ret_index = d->view.last;
    return r;
}

/* ---- snapshots ---- */

int journal_driver_snapshot_ready(struct journal_driver *d, uint64_t peer, uint64_t source, uint64_t index)
{
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_READY,
                            .snapshot_ready = {.peer = peer, .source = source, .index = index}};
    return step(d, &in, NULL);
}

int journal_driver_snapshot_failed(struct journal_driver *d, uint64_t peer)
{
    struct raft_input in = {.type = RAFT_IN_SNAPSHOT_FAILED, .snapshot_failed.peer = peer};
    return step(d, &in, NULL);
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
    int r = step(d, &in, NULL);
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
    return step(d, &in, NULL);
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
    int r = journal_status_write(d->raft, now_ms(), out);
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
