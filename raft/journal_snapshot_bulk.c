/* SPDX-License-Identifier: Apache-2.0 */
/* Connections for snapshots, whoever made them; what is left over in the master's directory; and the end of it all. */
#include <stdlib.h>

#include "base/error.h"
#include "raft/journal_snapshot_internal.h"

/* ---- connections ---- */

void bulk_send(struct bulk *b, uint16_t type, const void *message)
{
    struct frame_header h = {.type = type, .flags = FRAME_ONE_WAY, .incarnation = b->s->options.incarnation};
    int r = b->conn ? rpc_conn_send(b->conn, &h, message_desc(type), message) : 0;
    if (r < 0)
        rpc_conn_close(b->conn, r);
}

struct bulk *bulk_find(struct journal_snapshots *s, uint64_t node)
{
    list_for_each (e, &s->bulks) {
        struct bulk *b = list_entry(e, struct bulk, link);
        if (b->node == node && b->conn && rpc_conn_is_open(b->conn))
            return b;
    }
    return NULL;
}

void bulk_release(struct bulk *b)
{
    struct journal_snapshots *s = b->s;
    if (b->conn || io_op_busy(&b->op))
        return;
    loop_timer_stop(s->options.loop, &b->rate);
    list_remove(&b->link);
    s->bulk_count--;
    free(b->path);
    free(b->piece);
    free(b);
    snapshots_finish_stop(s);
}

struct bulk *bulk_add(struct journal_snapshots *s, struct rpc_conn *conn, uint64_t node)
{
    struct bulk *b = calloc(1, sizeof(*b));
    if (!b) {
        rpc_conn_close(conn, -ENOMEM); /* its owner hears of it */
        return NULL;
    }
    b->s = s;
    b->conn = conn;
    b->node = node;
    list_push_back(&s->bulks, &b->link);
    s->bulk_count++;
    rpc_conn_set_ops(conn, s->bulk_ops, b);
    rpc_conn_set_max(conn, 0, MANIFEST_BYTES_MAX);
    if (s->bulk_count > BULK_MAX || s->stopping) {
        rpc_conn_close(conn, s->stopping ? -CV_STOPPING : -CV_BUSY);
        return NULL;
    }
    return b;
}

struct bulk *bulk_dialed(struct journal_snapshots *s, const struct journal_dial *d, int result)
{
    if (!s->stopping)
        return result == 0 ? bulk_add(s, d->conn, d->node) : NULL;
    if (result == 0)
        rpc_conn_close(d->conn, -CV_STOPPING);
    snapshots_finish_stop(s);
    return NULL;
}

/* ---- what is left over ---- */

static int sweep_work(void *arg)
{
    struct journal_snapshots *s = arg;
    files_sweep(s->sweep_directory, s->sweep_keep, array_size(s->sweep_keep), LEASE_S);
    return 0;
}

static void free_sweep(struct journal_snapshots *s)
{
    for (size_t i = 0; i < array_size(s->sweep_keep); i++) {
        free(s->sweep_keep[i]);
        s->sweep_keep[i] = NULL;
    }
    free(s->sweep_directory);
    s->sweep_directory = NULL;
}

static void sweep_done(struct io_op *op, int result)
{
    struct journal_snapshots *s = container_of(op, struct journal_snapshots, sweep);
    free_sweep(s);
    s->swept(s);
    snapshots_finish_stop(s);
}

void snapshots_sweep(struct journal_snapshots *s)
{
    const char *directory, *state, *installed;
    if (s->stopping || io_op_busy(&s->sweep) || journal_link_directory(s->link, &directory, &state) < 0)
        return;
    /* Not while a state is put in its place, or the master has yet to take it. */
    (void)journal_driver_installed(s->driver, &installed);
    if (s->fetch.state == FETCH_VERIFY || s->fetch.state == FETCH_SWITCH)
        return;
    s->sweep_directory = strdup(directory);
    s->sweep_keep[0] = strdup(state);
    s->sweep_keep[1] = strdup(installed);
    const char *slash = s->source.state != SOURCE_NONE && s->source.path ? strrchr(s->source.path, '/') : NULL;
    s->sweep_keep[2] = slash ? strdup(slash + 1) : NULL;
    s->sweep_keep[3] = s->fetch.state != FETCH_IDLE ? strdup(STAGING) : NULL;
    if (!s->sweep_directory || !s->sweep_keep[0] || !s->sweep_keep[1]) {
        free_sweep(s);
        return;
    }
    io_work(s->options.loop, &s->sweep, sweep_work, s, sweep_done);
}

/* ---- the end ---- */

static bool wants_busy(const struct journal_snapshots *s)
{
    return journal_dial_busy(&s->wants.dial);
}

static bool source_busy(const struct journal_snapshots *s)
{
    return io_op_busy(&s->source.op);
}

static bool fetch_busy(const struct journal_snapshots *s)
{
    return s->fetch.working || journal_dial_busy(&s->fetch.dial);
}

bool snapshots_busy(const struct journal_snapshots *s)
{
    return s->bulk_count || io_op_busy(&s->sweep) || source_busy(s) || wants_busy(s) || fetch_busy(s);
}

void snapshots_finish_stop(struct journal_snapshots *s)
{
    if (!s->stopping || !s->stopped || snapshots_busy(s))
        return;
    void (*stopped)(void *arg) = s->stopped;
    s->stopped = NULL;
    stopped(s->stopped_arg);
}
