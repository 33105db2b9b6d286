/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving: the one checkpoint, and its bytes to whoever asks.
 *
 *      NONE --prepare--> ASKED (the master) --ready--> COMPLETE (file thread: term, chain, configuration) --> READY
 *        ^--open of one an earlier life left -----------^                                  READY --lease over--> NONE
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "raft/journal_snapshot_internal.h"

#define ASKED_NS (60 * NS_PER_S) /* a master that does not answer for so long is asked again */

void source_fini(struct source *source)
{
    manifest_fini(&source->manifest);
    buf_fini(&source->encoded);
    free(source->path);
    source->path = NULL;
}

/* ---- who waits ---- */

static void send_manifest(struct bulk *b)
{
    const struct source *source = &b->s->source;
    struct msg_bulk_manifest m = {.id = source->manifest.id};
    struct frame_header h = {.type = MSG_bulk_manifest,
                             .flags = FRAME_ONE_WAY,
                             .incarnation = b->s->options.incarnation,
                             .aux = crc32c(0, source->encoded.p, source->encoded.n)};
    struct iovec data = {source->encoded.p, source->encoded.n};
    int r = rpc_conn_send_data(b->conn, &h, msg_bulk_manifest_desc(), &m, &data, 1);
    if (r < 0)
        rpc_conn_close(b->conn, r);
}

/* The source is ready, or result says why not: answer all who wait, each by what it asked for. */
static void answer_all(struct journal_snapshots *s, int result)
{
    struct source *source = &s->source;
    const struct manifest *m = &source->manifest;
    list_for_each_safe (e, &s->bulks) {
        struct bulk *b = list_entry(e, struct bulk, link);
        if (b->prepare && b->conn) {
            int r = result == 0 && m->index < b->prepare_index ? -EAGAIN : result;
            struct msg_bulk_prepared answer = {.index = r == 0 ? m->index : 0, .error = (uint32_t)-r};
            b->prepare = false;
            bulk_send(b, MSG_bulk_prepared, &answer);
        }
        if (b->open && b->conn) {
            b->open = false;
            struct msg_bulk_manifest none = {.error = ENOENT};
            if (result == 0 && m->index == b->open_index && m->term == b->open_term)
                send_manifest(b);
            else
                bulk_send(b, MSG_bulk_manifest, &none);
        }
    }
    void (*wanted)(struct journal_snapshots * s, int result, uint64_t index) = source->wanted;
    source->wanted = NULL;
    if (wanted)
        wanted(s, result == 0 && m->index < source->wanted_index ? -EAGAIN : result, m->index);
}

/* ---- making it ---- */

/* On a file thread: the manifest gets what only the log knows. */
static int complete(void *arg)
{
    struct journal_snapshots *s = arg;
    struct source *source = &s->source;
    struct manifest m = {.id = 0};
    int r = manifest_read(source->path, &m);
    if (r == 0 && source->adopt_index) {
        if (m.index != source->adopt_index || m.term == 0 || !m.conf.n)
            r = -ENOENT; /* never completed */
    } else if (r == 0) {
        m.term = source->manifest.term;
        m.conf_index = source->manifest.conf_index;
        m.incarnation = s->options.incarnation;
        m.conf.n = 0;
        r = m.index != source->manifest.index ? -CV_BAD_FORMAT
                                              : buf_append(&m.conf, source->manifest.conf.p, source->manifest.conf.n);
        if (r == 0)
            r = journal_store_chain(journal_driver_store(s->driver), m.index, &m.chain);
        if (r == 0)
            r = manifest_write(source->path, &m);
    }
    if (r == 0 && !uuid_equal(m.cluster, s->options.cluster))
        r = -CV_WRONG_CLUSTER;
    if (r == 0) {
        source->encoded.n = 0;
        r = manifest_encode(&m, &source->encoded);
    }
    if (r < 0) {
        manifest_fini(&m);
        return r;
    }
    manifest_fini(&source->manifest);
    source->manifest = m;
    return 0;
}

static void completed(struct io_op *op, int result)
{
    struct journal_snapshots *s = container_of(op, struct journal_snapshots, source.op);
    struct source *source = &s->source;
    assert(source->state == SOURCE_COMPLETE);
    source->state = result < 0 ? SOURCE_NONE : SOURCE_READY;
    source->used_ns = clock_ns();
    if (result < 0 && result != -ENOENT)
        log_error(result, "the checkpoint in %s", source->path);
    else if (result == 0)
        log_info("%s a checkpoint at entry %" PRIu64 " to give: %" PRIu64 " bytes in %u files",
                 source->adopt_index ? "found" : "have", source->manifest.index, manifest_bytes(&source->manifest),
                 source->manifest.file_count);
    answer_all(s, result);
    if (result == 0)
        snapshots_sweep(s);
    snapshots_finish_stop(s);
}

static void start_complete(struct journal_snapshots *s, char *path)
{
    free(s->source.path);
    s->source.path = path;
    s->source.state = SOURCE_COMPLETE;
    io_work(s->options.loop, &s->source.op, complete, s, completed);
}

static void failed(struct journal_snapshots *s, int error)
{
    s->source.state = SOURCE_NONE;
    answer_all(s, error);
}

/* The master made one. */
void source_on_ready(struct journal_snapshots *s, const struct msg_link_snapshot_ready *m)
{
    struct source *source = &s->source;
    const char *directory, *state;
    if (source->state != SOURCE_ASKED || m->context != source->context || s->stopping)
        return;
    char *path;
    if (m->error || journal_link_directory(s->link, &directory, &state) < 0) {
        failed(s, m->error ? bulk_error(m->error) : -ENOENT);
        return;
    }
    const struct raft *raft = journal_driver_raft(s->driver);
    manifest_fini(&source->manifest);
    source->manifest.index = m->index;
    const struct raft_conf *conf = raft_conf_at(raft, m->index, &source->manifest.conf_index);
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    int r = conf ? raft_term(raft, m->index, &source->manifest.term) : -EAGAIN;
    if (r == 0)
        r = buf_append(&source->manifest.conf, encoded, raft_conf_encode(conf, encoded));
    if (r == 0 && asprintf(&path, "%s/" TEXT_FMT, directory, TEXT_ARG(m->directory)) < 0)
        r = -ENOMEM;
    if (r < 0) {
        failed(s, r);
        return;
    }
    source->adopt_index = 0;
    start_complete(s, path);
}

/* Ask for one at or above min_index, or answer with what there is. Everybody who waits has been noted. */
static void provide(struct journal_snapshots *s, uint64_t min_index)
{
    struct source *source = &s->source;
    uint64_t now = clock_ns();
    source->used_ns = now;
    if (source->state == SOURCE_COMPLETE || (source->state == SOURCE_ASKED && now < source->asked_ns + ASKED_NS))
        return;
    if (source->state == SOURCE_READY && source->manifest.index >= min_index) {
        answer_all(s, 0);
        return;
    }
    int r = journal_link_checkpoint(s->link, ++source->context, min_index);
    if (r < 0) {
        failed(s, r);
        return;
    }
    source->state = SOURCE_ASKED;
    source->asked_ns = now;
}

void source_want(struct journal_snapshots *s, uint64_t min_index,
                 void (*wanted)(struct journal_snapshots *s, int result, uint64_t index))
{
    s->source.wanted = wanted;
    s->source.wanted_index = min_index;
    provide(s, min_index);
}

void source_on_prepare(struct bulk *b, const struct msg_bulk_prepare *m)
{
    b->prepare = true;
    b->prepare_index = m->min_index;
    provide(b->s, m->min_index);
}

/* ---- giving it ---- */

void source_on_open(struct bulk *b, const struct msg_bulk_open *m)
{
    struct journal_snapshots *s = b->s;
    struct source *source = &s->source;
    const char *directory, *state;
    source->used_ns = clock_ns();
    b->open = true;
    b->open_index = m->index;
    b->open_term = m->term;
    b->count = 0; /* what was asked before is of no use */
    if (source->state == SOURCE_COMPLETE || source->state == SOURCE_ASKED)
        return;
    if (source->state == SOURCE_READY && source->manifest.index == m->index) {
        answer_all(s, 0);
        return;
    }
    char *path;
    if (journal_link_directory(s->link, &directory, &state) < 0 ||
        asprintf(&path, "%s/" CHECKPOINT_PREFIX "%016" PRIx64, directory, m->index) < 0) {
        /* Our master may be on its way back: the asker tries again. */
        answer_all(s, -ENOENT);
        return;
    }
    source->adopt_index = m->index;
    start_complete(s, path);
}

static void next_piece(struct bulk *b);

static int read_piece(void *arg)
{
    struct bulk *b = arg;
    const struct msg_bulk_need *n = &b->needs[b->head % BULK_WINDOW];
    return files_read(b->path, n->offset, b->piece, n->length, &b->piece_crc);
}

static void piece_read(struct io_op *op, int result)
{
    struct bulk *b = container_of(op, struct bulk, op);
    struct journal_snapshots *s = b->s;
    free(b->path);
    b->path = NULL;
    if (!b->conn) {
        bulk_release(b);
        return;
    }
    const struct msg_bulk_need *n = &b->needs[b->head++ % BULK_WINDOW];
    if (b->count)
        b->count--;
    struct msg_bulk_data m = {.id = n->id, .file = n->file, .offset = n->offset, .error = (uint32_t)-result};
    struct frame_header h = {
        .type = MSG_bulk_data, .flags = FRAME_ONE_WAY, .incarnation = s->options.incarnation, .aux = b->piece_crc};
    struct iovec data = {b->piece, result < 0 ? 0 : n->length};
    int r = rpc_conn_send_data(b->conn, &h, msg_bulk_data_desc(), &m, &data, 1);
    if (r < 0) {
        rpc_conn_close(b->conn, r);
        return;
    }
    if (result == 0)
        s->sent += n->length;
    s->source.used_ns = clock_ns();
    next_piece(b);
}

static void rate_fired(struct loop_timer *timer)
{
    next_piece(container_of(timer, struct bulk, rate));
}

/* The rate is of all receivers together. */
static bool wait_for_rate(struct bulk *b)
{
    struct journal_snapshots *s = b->s;
    uint64_t now = clock_ns();
    if (!s->options.rate)
        return false;
    if (now < s->rate_ns) {
        b->rate.fire = rate_fired;
        loop_timer_start(s->options.loop, &b->rate, s->rate_ns);
        return true;
    }
    s->rate_ns =
        max(s->rate_ns, now - NS_PER_S / 10) + b->needs[b->head % BULK_WINDOW].length * NS_PER_S / s->options.rate;
    return false;
}

static void next_piece(struct bulk *b)
{
    struct journal_snapshots *s = b->s;
    struct source *source = &s->source;
    if (b->count == 0 || !b->conn || s->stopping || io_op_busy(&b->op) || loop_timer_running(&b->rate) ||
        rpc_conn_congested(b->conn))
        return;
    const struct msg_bulk_need *n = &b->needs[b->head % BULK_WINDOW];
    if (source->state != SOURCE_READY || n->id != source->manifest.id) {
        struct msg_bulk_data gone = {.id = n->id, .file = n->file, .offset = n->offset, .error = ENOENT};
        b->count = 0; /* the asker begins again from the manifest */
        bulk_send(b, MSG_bulk_data, &gone);
        return;
    }
    if (wait_for_rate(b))
        return;
    b->piece = b->piece ? b->piece : malloc(BULK_PIECE);
    if (!b->piece || asprintf(&b->path, "%s/%s", source->path, source->manifest.files[n->file].name) < 0) {
        b->path = NULL;
        rpc_conn_close(b->conn, -ENOMEM);
        return;
    }
    io_work(s->options.loop, &b->op, read_piece, b, piece_read);
}

void source_drained(struct bulk *b)
{
    next_piece(b);
}

int source_on_need(struct bulk *b, const struct msg_bulk_need *m)
{
    const struct source *source = &b->s->source;
    const struct manifest *manifest = &source->manifest;
    if (b->count == BULK_WINDOW || m->length == 0 || m->length > BULK_PIECE)
        return -CV_BAD_MESSAGE;
    if (source->state == SOURCE_READY && m->id == manifest->id &&
        (m->file >= manifest->file_count || m->offset > manifest->files[m->file].size ||
         m->length > manifest->files[m->file].size - m->offset))
        return -CV_BAD_MESSAGE;
    b->needs[(b->head + b->count++) % BULK_WINDOW] = *m;
    next_piece(b);
    return 0;
}

/* ---- its end ---- */

void source_look(struct journal_snapshots *s)
{
    struct source *source = &s->source;
    uint64_t now = clock_ns();
    if (source->state == SOURCE_ASKED && now > source->asked_ns + ASKED_NS) {
        log_warn(0, "the master makes no checkpoint");
        failed(s, -CV_DEADLINE);
    }
    if (source->state != SOURCE_READY || now < source->used_ns + LEASE_S * NS_PER_S)
        return;
    log_info("nobody needs the checkpoint at entry %" PRIu64 " any more", source->manifest.index);
    source->state = SOURCE_NONE;
    snapshots_sweep(s);
}
