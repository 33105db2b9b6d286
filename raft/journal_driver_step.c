/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One input to the core, and all that follows from it: the unit to the log writer, messages out or held until their write is
 * durable, the rest to the application.
 */
#include <assert.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "raft/journal_driver_internal.h"

enum { DISK_FULL = 64 << 20 }; /* with less, or a quarter of the reserve, nothing is taken at all */

void driver_look_around(struct journal_driver *d)
{
    uint64_t index;
    const struct raft_conf *conf = raft_conf_newest(d->raft, &index);
    uint32_t voters = conf ? raft_conf_voters(conf) : 0;
    d->view.members = conf ? conf->count : 0;
    if (voters != d->view.voters) {
        d->view.voters = voters;
        uint64_t all = d->options.cache_bytes;
        journal_ring_resize(d->ring, voters > 1 ? all : all / 4); /* with one only its own master reads */
    }
    uint64_t disk_free = d->writer ? journal_writer_disk_free(d->writer) : UINT64_MAX;
    /* An eighth more ends it: what is deleted now and then must not make leadership go to and fro. */
    uint64_t reserve = d->options.disk_reserve_bytes;
    bool low = disk_free < reserve + (d->view.disk_low ? reserve / 8 : 0);
    if (low != d->view.disk_low)
        log_warn(0,
                 low ? "less than %" PRIu64 " MiB are free on the log's file system: another node should lead"
                     : "more than %" PRIu64 " MiB are free on the log's file system again",
                 reserve >> 20);
    d->view.disk_low = low;
    d->view.disk_full = disk_free < min(d->options.disk_reserve_bytes / 4, (uint64_t)DISK_FULL);
}

struct journal_write *driver_new_write(struct journal_driver *d)
{
    struct journal_write *w = pool_alloc(&d->writes);
    if (!w)
        log_fatal(-ENOMEM, "no memory for a write of the log: stopping");
    memset(w, 0, sizeof(*w));
    return w;
}

void driver_push(struct journal_driver *d, struct journal_write *w)
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
    struct journal_write *w = driver_new_write(d);
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
    driver_push(d, w);
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

void driver_release_held(struct journal_driver *d, uint64_t seq)
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

void driver_publish(struct journal_driver *d)
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
    driver_look_around(d);
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
    driver_publish(d);
}

int driver_step(struct journal_driver *d, struct raft_input *in, struct journal_record *const *records)
{
    assert_on_loop(d->options.loop);
    if (d->stopping && in->type != RAFT_IN_WRITTEN)
        return -CV_STOPPING;
    in->now_ms = clock_ms();
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
