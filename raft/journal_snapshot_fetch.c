/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving: from an offer to a state the log goes on behind.
 *
 *      IDLE -> WAIT -> DIAL -> OPEN (manifest) -> RESUME (what is there?) -> RUN (need, data, write) -> VERIFY -> SWITCH -> IDLE
 *               ^       |        |                  |                         |                        |
 *               '-------+--------+------------------+-- broken, damaged ------+------------------------'
 *
 * RESUME, writing and VERIFY run on file threads, one at a time, so a new offer or a broken connection waits for the one
 * under way and then begins at WAIT. Without a byte for FETCH_SILENT_S the leader is asked for another source.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "raft/journal_snapshot_internal.h"
#include "raft/journal_status.h"
#include "rpc/rpc_buffer.h"
#include "wire/link.h"

enum { DAMAGED_MAX = 3 };

#define ROOM_NS (10 * NS_PER_S) /* looked for again after so long */
#define NONE_NS (5 * NS_PER_S)  /* a source without a state, or we without a place for it, is waited for */

static void start(struct journal_snapshots *s);

/* ---- parts ---- */

static void free_pieces(struct fetch *f)
{
    for (struct list *e; (e = list_pop_front(&f->pieces));) {
        struct piece *p = list_entry(e, struct piece, link);
        rpc_buffer_free(p->p);
        free(p);
    }
}

static void free_files(struct fetch *f)
{
    free_pieces(f);
    manifest_fini(&f->manifest);
    free(f->have);
    free(f->directory);
    free(f->staging);
    free(f->target);
    f->have = NULL;
    f->directory = f->staging = f->target = NULL;
}

/* Not while a file thread works on them. */
static void reset(struct fetch *f)
{
    assert(!f->working);
    free_files(f);
    f->ask_file = f->asked = f->synced = 0;
    f->ask_offset = 0;
    f->bulk = NULL;
}

/* Try again soon, from the connection on. */
static void wait_and_retry(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    f->state = FETCH_WAIT;
    f->bulk = NULL;
    if (!f->working)
        loop_timer_start(s->options.loop, &f->timer, clock_ns() + FETCH_RETRY_MS * NS_PER_MS);
}

static void end(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    loop_timer_stop(s->options.loop, &f->timer);
    f->state = FETCH_IDLE;
    reset(f);
    if (f->again)
        loop_at_turn_end(s->options.loop, &s->turn);
}

/* This source, or this snapshot, will not do. What arrived stays for the next. */
static void give_up(struct journal_snapshots *s, int error)
{
    struct fetch *f = &s->fetch;
    if (error == -ENOSPC && !f->again) { /* no other source helps */
        log_warn(error, "the snapshot at entry %" PRIu64 " waits for room in %s", f->offer.index, f->directory);
        f->state = FETCH_WAIT;
        f->bulk = NULL;
        f->progress_ns = clock_ns() + ROOM_NS;
        loop_timer_start(s->options.loop, &f->timer, f->progress_ns);
        return;
    }
    log_warn(error, "the snapshot at entry %" PRIu64 " cannot be fetched: asking the leader for another",
             f->offer.index);
    end(s);
    if (!f->again)
        (void)journal_driver_snapshot_failed(s->driver, 0);
}

static bool self_is_log_only(struct journal_snapshots *s)
{
    const struct raft_conf *conf = journal_driver_conf(s->driver);
    const struct raft_member *m = conf ? raft_conf_find(conf, s->options.node) : NULL;
    return m && m->journal_only;
}

/* ---- the connection ---- */

static void ask_for_manifest(struct journal_snapshots *s, struct bulk *b)
{
    struct fetch *f = &s->fetch;
    struct msg_bulk_open m = {.index = f->offer.index, .term = f->offer.term};
    f->state = FETCH_OPEN;
    f->bulk = b;
    bulk_send(b, MSG_bulk_open, &m);
}

static void dialed(struct journal_dial *d, int result)
{
    struct journal_snapshots *s = container_of(d, struct journal_snapshots, fetch.dial);
    struct bulk *b = bulk_dialed(s, d, result);
    if (s->stopping || s->fetch.state != FETCH_DIAL)
        return;
    if (b && !s->fetch.again) {
        ask_for_manifest(s, b);
        return;
    }
    if (result < 0)
        log_debug("no connection for the snapshot yet: %s", d->reason);
    wait_and_retry(s);
}

static void connect_source(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    struct bulk *b = bulk_find(s, f->offer.source);
    if (b) {
        ask_for_manifest(s, b);
        return;
    }
    f->dial.done = dialed;
    if (journal_dial_busy(&f->dial) || journal_peers_dial(s->peers, f->offer.source, PEER_SNAPSHOT, &f->dial) < 0) {
        wait_and_retry(s); /* it connects to us, if we do not know where it is */
        return;
    }
    f->state = FETCH_DIAL;
    journal_dial_start(&f->dial);
}

void fetch_bulk_closed(struct bulk *b)
{
    struct journal_snapshots *s = b->s;
    struct fetch *f = &s->fetch;
    if (f->bulk != b || s->stopping)
        return;
    f->bulk = NULL;
    f->asked = 0;
    f->none_ns = 0;
    if (f->state == FETCH_OPEN || f->state == FETCH_RUN || f->state == FETCH_RESUME) {
        log_info("the connection for the snapshot broke after %" PRIu64 " bytes of %" PRIu64 ": trying again",
                 f->kept + f->received, f->total);
        wait_and_retry(s);
    }
}

/* ---- switching ---- */

static void discard(struct journal_snapshots *s)
{
    log_info("the log needs no snapshot any more");
    end(s);
    snapshots_sweep(s); /* with what was put in its place */
}

static void switch_over(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    struct buf encoded cleanup(buf_fini) = {0};
    f->state = FETCH_SWITCH;
    struct journal_install install = {
        .index = f->manifest.index,
        .term = f->manifest.term,
        .chain = f->manifest.chain,
        .conf_index = f->manifest.conf_index,
        .conf = f->manifest.conf.p,
        .conf_size = (uint32_t)f->manifest.conf.n,
        .manifest_hash =
            f->log_only || manifest_encode(&f->manifest, &encoded) < 0 ? 0 : hash_bytes(0, encoded.p, encoded.n),
        .directory = f->log_only ? "" : f->name,
    };
    int r = journal_driver_install(s->driver, &install, &f->conf);
    if (r == -EALREADY)
        discard(s);
    else if (r < 0)
        give_up(s, r);
}

void fetch_installed(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    if (f->state != FETCH_SWITCH)
        return;
    uint64_t ms = (clock_ns() - f->began_ns) / NS_PER_MS;
    log_info("the log goes on behind entry %" PRIu64 ": %" PRIu64 " bytes of state, %" PRIu64
             " of them received, in %" PRIu64 " ms",
             f->manifest.index, f->total, f->received, ms);
    s->fetches++;
    end(s);
    journal_link_installed(s->link);
}

/* ---- the files ---- */

static int verify(void *arg)
{
    struct fetch *f = &((struct journal_snapshots *)arg)->fetch;
    return files_finish(f->directory, f->staging, f->target, &f->manifest);
}

static void verified(struct io_op *op, int result)
{
    struct journal_snapshots *s = container_of(op, struct journal_snapshots, fetch.op);
    struct fetch *f = &s->fetch;
    f->working = false;
    if (s->stopping) {
        snapshots_finish_stop(s);
        return;
    }
    if (result == -CV_BAD_CHECKSUM && ++f->damaged < DAMAGED_MAX) {
        wait_and_retry(s);
        return;
    }
    if (result < 0) {
        give_up(s, result);
        return;
    }
    switch_over(s); /* also when another was offered meanwhile: this one is whole */
}

static void run(struct journal_snapshots *s);

static int write_piece(void *arg)
{
    struct fetch *f = &((struct journal_snapshots *)arg)->fetch;
    const struct piece *p = f->writing;
    return files_write(f->staging, &f->manifest.files[p->file], p->offset, p->p, p->n);
}

static void piece_written(struct io_op *op, int result)
{
    struct journal_snapshots *s = container_of(op, struct journal_snapshots, fetch.op);
    struct fetch *f = &s->fetch;
    struct piece *p = take(f->writing);
    f->working = false;
    if (result == 0)
        f->have[p->file] = p->offset + p->n;
    rpc_buffer_free(p->p);
    free(p);
    if (s->stopping) {
        snapshots_finish_stop(s);
        return;
    }
    if (result < 0)
        give_up(s, result);
    else if (f->state == FETCH_RUN && !f->again)
        run(s);
    else
        wait_and_retry(s);
}

/* The next bytes that are neither there nor asked for. Returns false when there are none. */
static bool next_need(struct fetch *f, struct msg_bulk_need *ret)
{
    for (; f->ask_file < f->manifest.file_count; f->ask_file++, f->ask_offset = 0) {
        const struct manifest_file *file = &f->manifest.files[f->ask_file];
        uint64_t from = max(f->ask_offset, f->have[f->ask_file]);
        if (from >= file->size)
            continue;
        *ret = (struct msg_bulk_need){.id = f->manifest.id,
                                      .file = f->ask_file,
                                      .offset = from,
                                      .length = (uint32_t)min(file->size - from, (uint64_t)BULK_PIECE)};
        f->ask_offset = from + ret->length;
        return true;
    }
    return false;
}

/* Ask for more, write what came, or see that all is there. */
static void run(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    struct msg_bulk_need need;
    uint32_t waiting = 0;
    list_for_each (e, &f->pieces)
        waiting++;
    while (f->asked + waiting < BULK_WINDOW && f->bulk && next_need(f, &need)) {
        f->asked++;
        bulk_send(f->bulk, MSG_bulk_need, &need);
    }
    if (f->working)
        return;
    if (!list_empty(&f->pieces)) {
        f->writing = list_entry(list_pop_front(&f->pieces), struct piece, link);
        f->working = true;
        io_work(s->options.loop, &f->op, write_piece, s, piece_written);
    } else if (f->asked == 0 && f->ask_file == f->manifest.file_count) {
        if (io_op_busy(&s->sweep))
            return; /* it must not see the new directory, which nothing refers to yet: fetch_swept() */
        f->state = FETCH_VERIFY;
        f->working = true;
        io_work(s->options.loop, &f->op, verify, s, verified);
    }
}

void fetch_swept(struct journal_snapshots *s)
{
    if (s->fetch.state == FETCH_RUN && !s->stopping)
        run(s);
}

int fetch_on_data(struct bulk *b, const struct msg_bulk_data *m, const struct rpc_frame *frame)
{
    struct journal_snapshots *s = b->s;
    struct fetch *f = &s->fetch;
    if (f->bulk != b || f->state != FETCH_RUN || m->id != f->manifest.id)
        return 0;   /* asked for before something changed */
    if (m->error) { /* the source has another one now */
        f->asked = 0;
        wait_and_retry(s);
        return 0;
    }
    uint32_t n = frame->header.data_len;
    if (f->asked == 0 || m->file >= f->manifest.file_count || n == 0 || n > BULK_PIECE ||
        m->offset > f->manifest.files[m->file].size || n > f->manifest.files[m->file].size - m->offset)
        return -CV_BAD_MESSAGE;
    if (crc32c(0, frame->data, n) != frame->header.aux)
        return -CV_BAD_CHECKSUM;
    struct piece *p = calloc(1, sizeof(*p));
    uint8_t *bytes = p ? rpc_buffer_new(n) : NULL;
    if (!bytes) {
        free(p);
        return -ENOMEM;
    }
    memcpy(bytes, frame->data, n);
    *p = (struct piece){.file = m->file, .n = n, .offset = m->offset, .p = bytes};
    list_push_back(&f->pieces, &p->link);
    f->asked--;
    f->received += n;
    s->fetched += n;
    f->progress_ns = clock_ns();
    run(s);
    return 0;
}

/* ---- the manifest ---- */

static int resume(void *arg)
{
    struct fetch *f = &((struct journal_snapshots *)arg)->fetch;
    return files_resume(f->staging, &f->manifest, f->have);
}

static void resumed(struct io_op *op, int result)
{
    struct journal_snapshots *s = container_of(op, struct journal_snapshots, fetch.op);
    struct fetch *f = &s->fetch;
    f->working = false;
    if (s->stopping) {
        snapshots_finish_stop(s);
        return;
    }
    if (result < 0) {
        give_up(s, result);
        return;
    }
    if (f->state != FETCH_RESUME || f->again) {
        wait_and_retry(s);
        return;
    }
    f->kept = 0;
    for (uint32_t i = 0; i < f->manifest.file_count; i++)
        f->kept += f->have[i];
    if (f->kept)
        log_info("%" PRIu64 " of %" PRIu64 " bytes of the snapshot are here already", f->kept, f->total);
    f->state = FETCH_RUN;
    f->progress_ns = clock_ns();
    run(s);
}

/* Where the files go. Errors: -ENOENT no master was attached yet. */
static int make_paths(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    const char *directory, *state;
    int r = journal_link_directory(s->link, &directory, &state);
    if (r < 0)
        return r;
    snprintf(f->name, sizeof(f->name), "meta-%016" PRIx64 "-%016" PRIx64, f->manifest.index, f->manifest.id);
    f->directory = strdup(directory);
    if (asprintf(&f->staging, "%s/" STAGING, directory) < 0)
        f->staging = NULL;
    if (asprintf(&f->target, "%s/%s", directory, f->name) < 0)
        f->target = NULL;
    f->have = calloc(f->manifest.file_count + 1, sizeof(f->have[0]));
    return f->directory && f->staging && f->target && f->have ? 0 : -ENOMEM;
}

static int take_manifest(struct journal_snapshots *s, const struct rpc_frame *frame)
{
    struct fetch *f = &s->fetch;
    if (crc32c(0, frame->data, frame->header.data_len) != frame->header.aux)
        return -CV_BAD_CHECKSUM;
    int r = manifest_decode(frame->data, frame->header.data_len, &f->manifest);
    if (r < 0)
        return r;
    const struct manifest *m = &f->manifest;
    if (!uuid_equal(m->cluster, s->options.cluster) || m->incarnation != s->options.incarnation)
        return -CV_WRONG_CLUSTER;
    if (m->index != f->offer.index || m->term != f->offer.term || m->conf_index == 0 || m->conf_index > m->index)
        return -CV_BAD_FORMAT;
    if (m->state_version > LINK_STATE_VERSION)
        return -CV_FORMAT_TOO_NEW;
    r = raft_conf_decode(m->conf.p, m->conf.n, &f->conf);
    f->total = f->log_only ? 0 : manifest_bytes(m);
    return r;
}

void fetch_on_manifest(struct bulk *b, const struct msg_bulk_manifest *m, const struct rpc_frame *frame)
{
    struct journal_snapshots *s = b->s;
    struct fetch *f = &s->fetch;
    if (f->bulk != b || f->state != FETCH_OPEN)
        return;
    if (f->working || f->again) {
        wait_and_retry(s);
        return;
    }
    reset(f);
    f->bulk = b;
    int r = m->error ? bulk_error(m->error) : take_manifest(s, frame);
    if (r == 0 && !f->log_only)
        r = make_paths(s);
    uint64_t now = clock_ns();
    if (r == -ENOENT) {
        f->none_ns = f->none_ns ? f->none_ns : now;
        if (now < f->none_ns + NONE_NS) {
            wait_and_retry(s); /* its master, or ours, comes back perhaps */
            return;
        }
    }
    f->none_ns = 0;
    if (r < 0) {
        give_up(s, r);
        return;
    }
    f->received = 0;
    if (f->log_only) {
        switch_over(s);
        return;
    }
    f->state = FETCH_RESUME;
    f->working = true;
    io_work(s->options.loop, &f->op, resume, s, resumed);
}

/* ---- life ---- */

static void start(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    const char *directory, *state;
    char node[17];
    loop_timer_stop(s->options.loop, &f->timer);
    reset(f);
    if (f->again) {
        f->again = false;
        f->began_ns = f->progress_ns = clock_ns();
        f->damaged = 0;
        f->none_ns = 0;
        f->log_only = self_is_log_only(s);
        f->total = f->kept = f->received = 0;
        log_info("fetching the state at entry %" PRIu64 " from node %s", f->offer.index,
                 journal_node_text(f->offer.source, node));
    }
    if (clock_ns() > f->progress_ns + FETCH_SILENT_S * NS_PER_S) {
        give_up(s, -CV_DEADLINE);
        return;
    }
    if (!f->log_only && journal_link_directory(s->link, &directory, &state) < 0)
        wait_and_retry(s); /* files go beside our master's, which did not attach yet */
    else
        connect_source(s);
}

static void timer_fired(struct loop_timer *timer)
{
    struct journal_snapshots *s = container_of(timer, struct journal_snapshots, fetch.timer);
    if (s->fetch.state == FETCH_WAIT && !s->fetch.working && !s->stopping)
        start(s);
}

/* An offer came. */
void fetch_offer(struct journal_snapshots *s)
{
    struct fetch *f = &s->fetch;
    if (!f->again || f->working)
        return; /* what is under way sees it when it ends */
    if (f->state == FETCH_IDLE || f->state == FETCH_WAIT || f->state == FETCH_RUN || f->state == FETCH_OPEN)
        start(s);
}

void fetch_init(struct journal_snapshots *s)
{
    list_init(&s->fetch.pieces);
    loop_timer_init(&s->fetch.timer, timer_fired);
}

void fetch_stop(struct journal_snapshots *s)
{
    loop_timer_stop(s->options.loop, &s->fetch.timer);
    journal_dial_stop(&s->fetch.dial);
}

void fetch_fini(struct fetch *f)
{
    free_files(f);
}
