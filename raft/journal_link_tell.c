/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the master what is committed, in order of index: its own entries by a watermark, all others with their
 * payload. Payloads come from the ring; a master that attaches far behind is fed from disk, a piece at a time, read by a
 * file thread. Not more than LINK_ENTRIES_WINDOW bytes are on their way, so a slow master fills no queue of ours.
 */
#include <assert.h>
#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "raft/journal_link_internal.h"

/* ---- own entries ---- */

/* Own entries first..last are told, or gone. */
static void release_own(struct journal_link *l, uint64_t first, uint64_t last, bool committed)
{
    struct link_session *s = &l->session;
    uint64_t now = loop_now(l->options.loop);
    for (uint64_t i = first; i <= last; i++) {
        s->inflight_entries--;
        s->inflight_bytes -= s->own[i % LINK_OWN_MAX].bytes;
        if (committed)
            histogram_add(&journal_driver_metrics(l->driver)->commit_ns, now - s->own[i % LINK_OWN_MAX].arrived_ns);
    }
}

void link_tell_truncated(struct journal_link *l, uint64_t from)
{
    struct link_session *s = &l->session;
    bool gone = false;
    while (s->range_count && s->ranges[s->range_count - 1].last >= from) {
        struct link_range *range = &s->ranges[s->range_count - 1];
        uint64_t first = max(range->first, from);
        release_own(l, first, range->last, false);
        gone = true;
        if (range->first >= from)
            s->range_count--;
        else
            range->last = from - 1;
    }
    s->told_durable = min(s->told_durable, from - 1);
    struct msg_link_truncate m = {.from = from};
    if (gone)
        link_send(l, MSG_link_truncate, &m);
}

/* Committed own entries at the head of what is to be told. Returns whether there were any. */
static bool tell_own(struct journal_link *l, uint64_t limit)
{
    struct link_session *s = &l->session;
    struct link_range *range = &s->ranges[0];
    if (!s->range_count || s->told + 1 < range->first)
        return false;
    uint64_t last = min(range->last, limit);
    release_own(l, s->told + 1, last, true);
    s->told = last;
    range->first = last + 1;
    if (range->first > range->last) {
        s->range_count--;
        memmove(range, range + 1, s->range_count * sizeof(*range));
    }
    return true;
}

/* ---- others' entries ---- */

static void send_entries(struct journal_link *l, const struct journal_entry *const *entries, uint32_t count)
{
    struct link_session *s = &l->session;
    struct buf list cleanup(buf_fini) = {0};
    struct iovec data[RAFT_APPEND_ENTRIES_MAX];
    uint32_t bytes = 0;
    int r = 0;
    for (uint32_t i = 0; i < count && r == 0; i++) {
        const struct journal_entry *e = entries[i];
        struct rec_link_entry rec = {.index = e->index,
                                     .term = e->term,
                                     .type = e->type,
                                     .op_count = e->op_count,
                                     .length = e->size,
                                     .crc = e->data_crc};
        r = rec_link_entry_append(&list, &rec);
        data[i] = (struct iovec){(void *)(uintptr_t)e->data, e->size};
        bytes += e->size;
    }
    uint64_t last = entries[count - 1]->index;
    struct msg_link_entries m = {.entries = wire_list_of(&list, count),
                                 .commit = journal_driver_view(l->driver)->apply_to};
    struct frame_header h = {.type = MSG_link_entries, .flags = FRAME_ONE_WAY};
    if (r == 0)
        r = rpc_conn_send_data(l->master->conn, &h, msg_link_entries_desc(), &m, data, count);
    if (r < 0) {
        link_drop_master(l, r, "entries cannot be sent");
        return;
    }
    s->told = s->told_committed = last;
    s->frames[(s->frame_head + s->frame_count++) % LINK_FRAMES_MAX].last = last;
    s->frames[(s->frame_head + s->frame_count - 1) % LINK_FRAMES_MAX].bytes = bytes;
    s->window += bytes;
    counter_add(&journal_driver_metrics(l->driver)->told_entries, count);
}

static int read_disk(void *arg)
{
    struct journal_link *l = arg;
    l->disk.result =
        journal_store_read(journal_driver_store(l->driver), l->disk.from, l->disk.to, LINK_TELL_BYTES, &l->disk.read);
    return 0;
}

static void disk_done(struct io_op *op, int result)
{
    struct journal_link *l = container_of(op, struct journal_link, disk.op);
    l->disk.busy = false;
    int r = result < 0 ? result : l->disk.result;
    if (!link_has_master(l) || l->stopping || l->disk.generation != l->generation) {
        journal_read_fini(&l->disk.read);
        if (l->stopping)
            link_finish_stop(l);
        else
            link_tell(l); /* another master may wait for its own */
        return;
    }
    if (r < 0) {
        link_drop_master(l, r, "an entry cannot be read");
    } else {
        const struct journal_entry *entries[JOURNAL_READ_ENTRIES_MAX];
        for (uint32_t i = 0; i < l->disk.read.count; i++)
            entries[i] = &l->disk.read.entries[i];
        send_entries(l, entries, l->disk.read.count);
    }
    bool more = link_has_master(l) && !journal_ring_find(journal_driver_ring(l->driver), l->session.told + 1);
    if (!more)
        journal_read_fini(&l->disk.read);
    link_tell(l);
}

/* Entries from..to, as far as one message goes. Returns false when it must be continued later. */
static bool tell_others(struct journal_link *l, uint64_t from, uint64_t to)
{
    struct link_session *s = &l->session;
    if (s->window >= LINK_ENTRIES_WINDOW || s->frame_count == LINK_FRAMES_MAX || rpc_conn_congested(l->master->conn))
        return false; /* continued by link_applied, or when the connection has drained */
    const struct journal_entry *entries[RAFT_APPEND_ENTRIES_MAX];
    uint32_t count = 0;
    uint64_t bytes = 0;
    while (from + count <= to && count < RAFT_APPEND_ENTRIES_MAX && bytes < LINK_TELL_BYTES) {
        struct journal_record *record = journal_ring_find(journal_driver_ring(l->driver), from + count);
        if (!record)
            break;
        entries[count++] = &record->entry;
        bytes += record->entry.size;
    }
    if (count) {
        send_entries(l, entries, count);
        return true;
    }
    counter_add(&journal_driver_metrics(l->driver)->disk_reads, 1);
    l->disk.busy = true;
    l->disk.generation = l->generation;
    l->disk.from = from;
    l->disk.to = to;
    io_work(l->options.loop, &l->disk.op, read_disk, l, disk_done);
    return false;
}

/* ---- all together ---- */

static void tell_committed(struct journal_link *l)
{
    struct link_session *s = &l->session;
    if (s->told <= s->told_committed)
        return;
    struct msg_link_committed m = {.index = s->told};
    (void)journal_driver_term(l->driver, s->told, &m.term);
    s->told_committed = s->told;
    link_send(l, MSG_link_committed, &m);
}

/* Own entries that are on our disk and not committed. */
static void tell_durable(struct journal_link *l)
{
    struct link_session *s = &l->session;
    uint64_t durable = journal_driver_view(l->driver)->durable;
    if (!s->range_count || durable < s->ranges[0].first || durable <= max(s->told_durable, s->told))
        return;
    struct msg_link_durable m = {.index = durable};
    (void)journal_driver_term(l->driver, durable, &m.term);
    s->told_durable = durable;
    link_send(l, MSG_link_durable, &m);
}

/* What the master has to be told first is not in the log any more: a state from another master is in its place, or soon
 * will be. */
static void tell_install(struct journal_link *l)
{
    struct link_session *s = &l->session;
    const char *directory;
    uint64_t index = journal_driver_installed(l->driver, &directory);
    if (s->install_told || index + 1 < journal_driver_view(l->driver)->first)
        return;
    struct msg_link_install m = {.index = index, .directory = text_of(directory)};
    (void)journal_driver_term(l->driver, index, &m.term);
    s->install_told = true;
    link_send(l, MSG_link_install, &m);
}

void link_tell(struct journal_link *l)
{
    struct link_session *s = &l->session;
    if (link_has_master(l) && s->told + 1 < journal_driver_view(l->driver)->first) {
        tell_install(l);
        return;
    }
    while (link_has_master(l) && !l->disk.busy && s->told < journal_driver_view(l->driver)->apply_to) {
        uint64_t limit = journal_driver_view(l->driver)->apply_to;
        if (tell_own(l, limit))
            continue;
        tell_committed(l);
        if (s->range_count)
            limit = min(limit, s->ranges[0].first - 1);
        if (!link_has_master(l) || !tell_others(l, s->told + 1, limit))
            break;
    }
    if (!link_has_master(l))
        return;
    tell_committed(l);
    tell_durable(l);
}

static void note_unfit(struct journal_link *l, uint8_t unfit)
{
    struct link_session *s = &l->session;
    if (s->unfit == LINK_UNFIT_DISK && unfit == LINK_FIT)
        log_info("the file system of the master's database has room again: it can lead");
    else if (s->unfit != LINK_UNFIT_DISK && unfit == LINK_UNFIT_DISK)
        log_warn(-ENOSPC, "the file system of the master's database is nearly full: another one should lead");
    if (s->unfit != LINK_UNFIT_DAMAGE && unfit == LINK_UNFIT_DAMAGE)
        log_warn(-EIO, "the master cannot read all of its database: another one should lead");
    s->unfit = unfit;
}

void link_on_applied(struct journal_link *l, const struct msg_link_applied *m)
{
    struct link_session *s = &l->session;
    if (m->applied > s->told || m->applied < s->applied || m->flushed > m->applied) {
        link_drop_master(l, -CV_BAD_MESSAGE, "applied what it was not told");
        return;
    }
    s->applied = m->applied;
    s->flushed = m->flushed;
    s->can_lead = m->can_lead;
    note_unfit(l, m->unfit);
    if (m->lease_back)
        link_lease_back(l);
    while (s->frame_count && s->frames[s->frame_head % LINK_FRAMES_MAX].last <= m->applied) {
        s->window -= s->frames[s->frame_head % LINK_FRAMES_MAX].bytes;
        s->frame_head++;
        s->frame_count--;
    }
    int r = link_tell_app(l);
    if (r < 0 && r != -CV_STOPPING)
        link_drop_master(l, r, "applied what is not in the log");
    if (r < 0 || !link_has_master(l))
        return;
    link_tell_credit(l);
    link_tell(l);
}
