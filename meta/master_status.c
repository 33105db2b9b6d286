/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "conf/json.h"
#include "meta/master_metrics.h"

static const char *ack_name(enum ack_mode mode)
{
    static const char *const names[] = {[ACK_QUORUM] = "quorum", [ACK_LOCAL] = "local", [ACK_APPLIED] = "applied"};
    return names[mode];
}

static void read_stats(struct master_status *s, struct meta_stats *ret)
{
    master_core_read_lock(s->core);
    meta_stats(s->core->meta, ret);
    master_core_unlock(s->core);
}

/* Append what we know of a node; without memory it is left out. */
static uint32_t add_node(struct buf *list, const struct rec_node_info *node)
{
    return rec_node_info_append(list, node) == 0;
}

/* What is wrong with which disk, and what that means now. */
static struct text bad_disk(const struct master_core *c)
{
    bool own = c->disks_low & MASTER_DISK_OWN;
    if (c->damaged_ns)
        return TEXT("it cannot read all of its database");
    if (c->refuses_new)
        return own ? TEXT("less than master.disk_reserve_bytes are free: nothing new is made")
                   : TEXT("its journal has less than journal.disk_reserve_bytes free: nothing new is made");
    if (c->disk_held)
        return TEXT("no room: its database is not written, another master should lead");
    return !c->disks_low ? TEXT("")
           : own         ? TEXT("less than master.disk_reserve_bytes are free: another master should lead")
                         : TEXT("its journal has less than journal.disk_reserve_bytes free: another one should lead");
}

static uint32_t add_self(const struct master_status *s, const struct master_scribe_status *scribe, struct buf *list)
{
    const struct rec_node_info node = {
        .node = s->master,
        .role = TEXT("master"),
        .address = text_of(s->address),
        .state = s->core->damaged_ns  ? TEXT("damaged")
                 : s->core->disks_low ? TEXT("disk full")
                                      : text_of(scribe->state),
        .detail = bad_disk(s->core),
        .version = TEXT(CV_VERSION),
        .started_ns = s->started_wall_ns,
    };
    return add_node(list, &node);
}

/* The journal we are attached to. What others there are it knows, not we. */
static uint32_t add_journal(const struct master_status *s, const struct master_scribe_status *scribe, struct buf *list)
{
    uint64_t id = s->core->node;
    bool detached = !strcmp(scribe->state, "detached");
    if (!id)
        return 0;
    const struct rec_node_info node = {
        .node = id,
        .role = TEXT("journal"),
        .address = text_of(s->journal),
        .state = detached                ? TEXT("detached")
                 : id == s->core->leader ? TEXT("leader")
                                         : TEXT("follower"),
    };
    return add_node(list, &node);
}

static uint32_t add_nodes(const struct master_status *s, const struct master_scribe_status *scribe, struct buf *list)
{
    return add_self(s, scribe, list) + add_journal(s, scribe, list) +
           master_workers_nodes(s->workers, clock_ns(), list);
}

void master_status_answer(void *arg, struct msg_cluster_status_answer *ret, struct buf *texts)
{
    struct master_status *s = arg;
    struct master_scribe_status scribe;
    struct meta_stats meta;
    master_scribe_get_status(s->scribe, &scribe);
    read_stats(s, &meta);
    uint32_t nodes = add_nodes(s, &scribe, texts);
    *ret = (struct msg_cluster_status_answer){
        .cluster = uuid_bytes(&s->cluster),
        .incarnation = s->core->incarnation,
        .leader = s->core->leader,
        .term = scribe.term,
        .committed = scribe.committed,
        .applied = scribe.applied,
        .flushed = scribe.flushed,
        .inodes = meta.state.inodes,
        .directories = meta.state.directories,
        .memory_bytes = meta.tree_bytes + meta.delta_bytes,
        .sessions = meta.sessions,
        .uptime_ms = (clock_ns() - s->started_ns) / NS_PER_MS,
        .ack_mode = text_of(ack_name(s->options->ack_mode)),
        .nodes = wire_list_of(texts, nodes),
        .feature_level = meta.level,
        .feature_level_max = meta.level_max,
    };
}

static void worker_gauges(const struct master_status *s, struct master_gauges *g)
{
    struct master_workers_stats w;
    master_workers_get_stats(s->workers, clock_ns(), &w);
    g->workers_up = w.up;
    g->workers_down = w.down;
    g->workers_out = w.out;
    g->worker_capacity_bytes = (int64_t)w.capacity;
    g->worker_used_bytes = (int64_t)w.used;
    g->worker_dirty_bytes = (int64_t)w.dirty;
    g->worker_damaged_chunks = (int64_t)w.damaged_chunks;
    g->worker_lost_blocks = (int64_t)w.lost_blocks;
    g->drops_waiting = (int64_t)w.drops_waiting;
    g->drops_lost = (int64_t)w.drops_lost;
}

static void ufs_gauges(const struct master_status *s, struct master_gauges *g)
{
    struct master_ufs_stats u;
    struct master_import_stats i;
    master_ufs_get_stats(s->ufs, &u);
    master_import_get_stats(s->import, &i);
    g->ufs_looks = (int64_t)i.looks;
    g->ufs_listings = (int64_t)i.listings;
    g->ufs_listings_failed = (int64_t)i.listings_failed;
    g->ufs_names = (int64_t)i.names;
    g->ufs_names_skipped = (int64_t)i.names_skipped;
    g->ufs_waiting = (int64_t)i.waiting;
    g->mounts_open = u.open;
    g->mounts_failing = u.failing;
    g->ufs_requests = (int64_t)u.requests;
    g->ufs_failures = (int64_t)u.failures;
    g->ufs_retries = (int64_t)u.retries;
}

void master_status_gauges(void *arg, void *gauges)
{
    struct master_status *s = arg;
    struct master_gauges *g = gauges;
    struct master_scribe_status scribe;
    struct master_store_stats store;
    struct meta_stats meta;
    master_scribe_get_status(s->scribe, &scribe);
    master_store_get_stats(s->core->store, &store);
    read_stats(s, &meta);
    worker_gauges(s, g);
    ufs_gauges(s, g);
    g->leading = s->core->leading != 0;
    g->applied_index = (int64_t)scribe.applied;
    g->committed_index = (int64_t)scribe.committed;
    g->flushed_index = (int64_t)scribe.flushed;
    g->inodes = (int64_t)meta.state.inodes;
    g->directories = (int64_t)meta.state.directories;
    g->orphans = (int64_t)meta.state.orphans;
    g->file_bytes = (int64_t)meta.state.bytes;
    g->sessions = (int64_t)meta.sessions;
    g->handles = (int64_t)meta.handles;
    g->tree_bytes = (int64_t)meta.tree_bytes;
    g->tree_budget_bytes = (int64_t)meta.tree_budget;
    g->tree_nodes = (int64_t)meta.nodes;
    g->overlay_rows = (int64_t)meta.overlay_rows;
    g->delta_rows = (int64_t)meta.delta_rows;
    g->delta_bytes = (int64_t)meta.delta_bytes;
    g->scribe_queue = scribe.queued;
    g->batches_in_flight = scribe.batches_in_flight;
    g->connections = s->server ? master_server_connections(s->server) : 0;
    g->requests_in_flight = s->server ? master_server_in_flight(s->server) : 0;
    g->database_cache_bytes = (int64_t)store.cache_bytes;
    g->database_file_bytes = (int64_t)store.file_bytes;
    g->database_files = (int64_t)store.files;
    g->database_flushes = (int64_t)store.flushes;
    g->disk_free_bytes = (int64_t)s->core->disk_free;
    g->disk_low = s->core->disks_low != 0;
    g->disk_held = s->core->disk_held;
    g->damaged = s->core->damaged_ns != 0;
    g->refuses_new = s->core->refuses_new;
}

/* A master that follows is ready too: it is what takes over. */
int master_status_ready(const struct master_status *s, char *why, size_t why_size)
{
    struct master_scribe_status scribe;
    master_scribe_get_status(s->scribe, &scribe);
    if (master_core_leads(s->core))
        return 0;
    if (scribe.attached == 0 || !strcmp(scribe.state, "detached")) {
        snprintf(why, why_size, "no link to the journal");
        return -CV_UNREACHABLE;
    }
    if (!s->core->leader) {
        snprintf(why, why_size, "no leader is known");
        return -CV_NOT_LEADER;
    }
    if (s->core->disk_held) {
        snprintf(why, why_size, "no room in %s: the database is not written", s->options->dir);
        return -ENOSPC;
    }
    if (strcmp(scribe.state, "following") != 0 || s->core->leader == s->core->node) {
        snprintf(why, why_size, "not serving yet, applied %" PRIu64 " of %" PRIu64, scribe.applied, scribe.committed);
        return -CV_NOT_LEADER;
    }
    return 0;
}

int master_status_json(struct master_status *s, struct buf *out)
{
    struct master_scribe_status scribe;
    struct meta_stats meta;
    char cluster[UUID_STRING];
    master_scribe_get_status(s->scribe, &scribe);
    read_stats(s, &meta);
    int r = buf_printf(out,
                       "{\"cluster\": \"%s\", \"state\": \"%s\", \"term\": %" PRIu64 ", \"committed\": %" PRIu64
                       ", \"applied\": %" PRIu64 ", \"flushed\": %" PRIu64 ", \"inodes\": %" PRIu64
                       ", \"directories\": %" PRIu64 ", \"sessions\": %" PRIu64 ", \"ack_mode\": \"%s\", \"address\": ",
                       uuid_format(s->cluster, cluster), scribe.state, scribe.term, scribe.committed, scribe.applied,
                       scribe.flushed, meta.state.inodes, meta.state.directories, meta.sessions,
                       ack_name(s->options->ack_mode));
    if (r == 0)
        r = json_write_text(out, s->address);
    return r < 0 ? r : buf_append(out, "}", 1);
}
