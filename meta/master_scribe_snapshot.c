/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots, the scribe's part. Given: the journal asks for a checkpoint; the delta is flushed if the database is not far
 * enough, then a file thread makes it. Taken: the journal has put another state beside ours; when it opens and is what
 * it should be, the directory switches to it and the master is asked to begin anew.
 *
 *      asked --(flushed >= index)--> file thread: checkpoint, manifest --> snapshot_ready
 *      install --> file thread: open read-only, switch ------------------> install(): the master reopens
 *
 * One of them at a time.
 */
#include <errno.h>
#include <stdio.h>

#include "meta/master_checkpoint.h"
#include "meta/master_dir.h"
#include "meta/master_scribe_internal.h"

#define FLUSH_WAIT_NS (10 * NS_PER_S) /* for the delta to reach what was asked for */

static void answer(struct master_scribe *s, int result)
{
    struct scribe_snapshot *n = &s->snapshot;
    char name[64] = "";
    if (result == 0)
        snprintf(name, sizeof(name), MASTER_CHECKPOINT_PREFIX "%016llx", (unsigned long long)n->manifest.index);
    struct msg_link_snapshot_ready m = {
        .context = n->context,
        .index = n->manifest.index,
        .directory = text_of(name),
        .error = (uint32_t)-result,
    };
    manifest_fini(&n->manifest);
    n->state = SNAPSHOT_IDLE;
    master_link_send(s->link, MSG_link_snapshot_ready, &m);
}

static int make(void *arg)
{
    struct master_scribe *s = arg;
    return master_checkpoint_make(s->core->store, s->o.cluster, s->o.dir, MASTER_CHECKPOINT_PREFIX, 0,
                                  &s->snapshot.manifest);
}

static void made(struct io_op *op, int result)
{
    struct master_scribe *s = container_of(op, struct master_scribe, snapshot.op);
    if (result < 0)
        log_error(result, "checkpoint of the metadata in %s", s->o.dir);
    answer(s, result);
    scribe_ask_for_turn(s); /* stopping may wait for us */
}

/* After a flush, and each turn while something is wanted. */
void scribe_snapshot_step(struct master_scribe *s)
{
    struct scribe_snapshot *n = &s->snapshot;
    if (n->state != SNAPSHOT_FLUSH)
        return;
    if (master_store_flushed(s->core->store) >= n->index) {
        n->state = SNAPSHOT_MAKE;
        io_work(s->loop, &n->op, make, s, made);
    } else if (clock_ns() > n->until_ns || s->stopping) {
        answer(s, -EAGAIN);
    }
}

bool scribe_snapshot_wants_flush(const struct master_scribe *s)
{
    return s->snapshot.state == SNAPSHOT_FLUSH;
}

void scribe_on_snapshot_request(void *arg, const struct msg_link_snapshot_request *m)
{
    struct master_scribe *s = arg;
    struct scribe_snapshot *n = &s->snapshot;
    if (n->state != SNAPSHOT_IDLE || s->stopping || !s->o.dir || !scribe_may_write(s)) {
        struct msg_link_snapshot_ready busy = {.context = m->context, .error = CV_BUSY};
        master_link_send(s->link, MSG_link_snapshot_ready, &busy);
        return;
    }
    n->state = SNAPSHOT_FLUSH;
    n->context = m->context;
    n->index = m->index;
    n->until_ns = clock_ns() + FLUSH_WAIT_NS;
    scribe_snapshot_step(s);
    scribe_ask_for_turn(s);
}

/* ---- another state ------------------------------------------------------------------------------------------------ */

static int look_and_switch(void *arg)
{
    struct master_scribe *s = arg;
    struct scribe_snapshot *n = &s->snapshot;
    char *path cleanup(freep) = NULL;
    if (asprintf(&path, "%s/%s", s->o.dir, n->directory) < 0)
        return -ENOMEM;
    struct meta_state state;
    int r = master_store_peek(path, s->o.cluster, &state);
    if (r == 0 && state.applied != n->index)
        r = -CV_LOG_DIVERGED;
    return r == 0 ? master_dir_switch(s->o.dir, n->directory) : r;
}

static void looked(struct io_op *op, int result)
{
    struct master_scribe *s = container_of(op, struct master_scribe, snapshot.op);
    struct scribe_snapshot *n = &s->snapshot;
    n->state = SNAPSHOT_IDLE;
    if (result < 0) {
        struct msg_link_install_done m = {.index = n->index, .error = (uint32_t)-result};
        log_error(result, "the state in %s/%s that came from another master cannot be used: cv-journal rejoin",
                  s->o.dir, n->directory);
        master_link_send(s->link, MSG_link_install_done, &m);
    } else if (!s->stopping) {
        log_info("the state is now %s/%s, at log entry %llu: beginning anew with it", s->o.dir, n->directory,
                 (unsigned long long)n->index);
        s->o.install(s->o.arg);
    }
    scribe_ask_for_turn(s);
}

void scribe_on_install(void *arg, const struct msg_link_install *m)
{
    struct master_scribe *s = arg;
    struct scribe_snapshot *n = &s->snapshot;
    if (s->stopping || n->state == SNAPSHOT_LOOK)
        return;
    int r = m->directory.n == 0 || m->directory.n >= sizeof(n->directory) || !s->o.install ? -EINVAL
            : m->index <= s->applied                                                       ? -EALREADY
            : n->state != SNAPSHOT_IDLE                                                    ? -CV_BUSY
                                                                                           : 0;
    if (r < 0) {
        struct msg_link_install_done done = {.index = m->index, .error = r == -EALREADY ? 0 : (uint32_t)-r};
        master_link_send(s->link, MSG_link_install_done, &done);
        return;
    }
    n->state = SNAPSHOT_LOOK;
    n->index = m->index;
    memcpy(n->directory, m->directory.p, m->directory.n);
    n->directory[m->directory.n] = '\0';
    io_work(s->loop, &n->op, look_and_switch, s, looked);
}
