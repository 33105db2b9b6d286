/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_master.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define PAUSE_MIN_MS    50
#define PAUSE_MAX_MS    1000
#define REGISTER_MS     3000
#define BEAT_DEFAULT_MS 3000
#define DROPS_MAX       65536 /* taken from one answer; the others are told again */

enum state { SEEKING, KNOWN, STOPPING };

struct worker_master {
    struct worker_master_options o;
    struct loop *loop;
    struct rpc_leader *leader;
    bool open;
    enum state state;
    uint32_t pause_ms;       /* before the next attempt to register with who leads */
    int last_error;          /* logged already */
    struct loop_timer timer; /* the next attempt, or the next heartbeat */
    struct rpc_call own;     /* registering or beating */
    uint32_t heartbeat_ms;
    uint64_t mounts_version, started_ns;
    struct list waiting, in_flight; /* calls */
    char host[65], boot[48];

    /* Removals being carried out: one lot at a time. */
    struct io_op drop_op;
    struct rec_worker_drop *drops;
    uint32_t drop_count;
    uint64_t drop_done, dropped;
    uint32_t drop_lot, lot; /* lots of an earlier leader count for nothing */

    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void seek(struct worker_master *m);
static void send_waiting(struct worker_master *m);

/* ---- leaders come and go ---------------------------------------------------------------------------------------- */

static struct rpc_client *leader(const struct worker_master *m)
{
    return rpc_leader_client(m->leader);
}

static void complain(struct worker_master *m, int error, const char *address)
{
    if (error == m->last_error)
        return;
    m->last_error = error;
    log_warn(error, "%s: no master takes our registration: trying on", address);
}

/* Whom we registered with is not the leader any more, or gone. */
static void forget(struct worker_master *m, int error)
{
    if (m->state == KNOWN)
        log_info("lost the master: %s", cv_error_text(error));
    m->state = SEEKING;
    m->pause_ms = PAUSE_MIN_MS;
    m->o.core->registered = 0;
    loop_timer_stop(m->loop, &m->timer);
}

static void lose(struct worker_master *m, int error)
{
    if (m->state != KNOWN)
        return;
    forget(m, error);
    rpc_leader_lost(m->leader, error);
}

static void on_found(struct rpc_client *c, void *user)
{
    struct worker_master *m = user;
    if (m->state == SEEKING)
        seek(m);
}

static void on_lost(int error, void *user)
{
    struct worker_master *m = user;
    if (m->state != STOPPING)
        forget(m, error);
}

static void on_missed(const char *address, int error, const char *reason, void *user)
{
    struct worker_master *m = user;
    if (error != -CV_NOT_LEADER)
        complain(m, error, address);
}

static struct rec_worker_dir describe_dir(struct worker_master *m, struct block_store_status *s)
{
    const struct worker_dir *d = &m->o.core->dir;
    block_store_status(m->o.core->store, s);
    return (struct rec_worker_dir){
        .id = 1,
        .kind = (uint8_t)d->kind,
        .path = text_of(d->path),
        .capacity = s->capacity_bytes,
        .used = s->used_bytes,
        .failed = text_of(s->failed ? cv_error_text(s->failed) : ""),
    };
}

static void beat(struct worker_master *m);

static void on_timer(struct loop_timer *timer)
{
    struct worker_master *m = container_of(timer, struct worker_master, timer);
    if (m->state == SEEKING)
        seek(m);
    else if (m->state == KNOWN)
        beat(m);
}

static void see_mounts(struct worker_master *m, uint64_t version, bool always)
{
    if (version == m->mounts_version && !always)
        return;
    m->mounts_version = version;
    if (m->o.mounts_changed)
        m->o.mounts_changed(m->o.arg, version);
}

/* It leads no more: look for another. It leads, and does not want us: ask again later. */
static void refused(struct worker_master *m, int error)
{
    if (error == -CV_NOT_LEADER || error == -CV_DEADLINE || error == -CV_STOPPING) {
        rpc_leader_lost(m->leader, error);
        return;
    }
    complain(m, error, rpc_client_address(leader(m)));
    loop_timer_start(m->loop, &m->timer, loop_now(m->loop) + m->pause_ms * NS_PER_MS);
    m->pause_ms = min(m->pause_ms * 2, (uint32_t)PAUSE_MAX_MS);
}

static void on_registered(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct worker_master *m = container_of(call, struct worker_master, own);
    struct msg_worker_register_answer a;
    if (m->state == STOPPING)
        return;
    if (rpc_call_client(call) != leader(m)) { /* of a leader that was lost meanwhile */
        if (leader(m))
            seek(m);
        return;
    }
    if (result == 0)
        result = msg_worker_register_answer_decode(f->body, f->header.body_len, &a);
    if (result < 0) {
        refused(m, result);
        return;
    }
    m->state = KNOWN;
    m->pause_ms = PAUSE_MIN_MS;
    m->last_error = 0;
    m->heartbeat_ms = a.heartbeat_ms ? a.heartbeat_ms : BEAT_DEFAULT_MS;
    m->dropped = 0; /* its own numbers */
    m->lot++;
    m->o.core->registered = 1;
    m->o.core->incarnation = a.incarnation;
    WORKER_COUNT(m->o.metrics, registrations, 1);
    log_info("registered with the master at %s", rpc_client_address(leader(m)));
    loop_timer_start(m->loop, &m->timer, loop_now(m->loop) + m->heartbeat_ms * NS_PER_MS);
    see_mounts(m, a.mounts_version, true);
    send_waiting(m);
    if (m->o.registered)
        m->o.registered(m->o.arg);
}

/* Register with who leads; when it is not known, as soon as it is. */
static void seek(struct worker_master *m)
{
    if (rpc_call_busy(&m->own) || !leader(m))
        return;
    struct block_store_status s;
    struct rec_worker_dir dir = describe_dir(m, &s);
    struct buf dirs = {0};
    struct msg_worker_register r = {
        .worker = m->o.core->worker,
        .address = text_of(m->o.advertise),
        .socket = text_of(m->o.socket),
        .host = text_of(m->host),
        .boot = text_of(m->boot),
        .version = text_of(CV_VERSION),
        .started_ns = m->started_ns,
        .checked = m->o.core->checked,
    };
    if (rec_worker_dir_append(&dirs, &dir) == 0)
        r.dirs = wire_list_of(&dirs, 1);
    m->own.done = on_registered;
    rpc_client_call(leader(m), &m->own, MSG_worker_register, msg_worker_register_desc(), &r,
                    clock_ns() + REGISTER_MS * NS_PER_MS);
    buf_fini(&dirs);
}

/* ---- removals --------------------------------------------------------------------------------------------------- */

/* On a file thread. In order; what is in use now is told again with the next heartbeat, and so is all behind it. */
static int drop_work(void *arg)
{
    struct worker_master *m = arg;
    struct block_store *s = m->o.core->store;
    for (uint32_t i = 0; i < m->drop_count; i++) {
        const struct rec_worker_drop *d = &m->drops[i];
        int r = d->epoch == UINT64_MAX ? block_store_remove(s, d->inode, BLOCK_REMOVE_ALL)
                                       : block_store_truncate(s, d->inode, d->size, d->epoch);
        if (r < 0)
            return r;
        m->drop_done = d->sequence;
    }
    return 0;
}

static void drops_done(struct io_op *op, int result)
{
    struct worker_master *m = container_of(op, struct worker_master, drop_op);
    uint64_t before = m->dropped;
    if (m->lot == m->drop_lot)
        m->dropped = max(m->dropped, m->drop_done);
    WORKER_COUNT(m->o.metrics, drops, m->dropped - before < m->drop_count ? m->dropped - before : m->drop_count);
    if (result < 0 && result != -CV_BUSY && result != -CV_STOPPING)
        log_warn(result, "inode %llu: removal, trying again", (unsigned long long)m->drops[0].inode);
    free(m->drops);
    m->drops = NULL;
    if (m->stopped && !m->open)
        m->stopped(m->stopped_arg);
}

static void take_drops(struct worker_master *m, const struct wire_list *list)
{
    if (m->drops || !list->count)
        return;
    uint32_t room = min(list->count, (uint32_t)DROPS_MAX);
    m->drops = calloc(room, sizeof(*m->drops));
    if (!m->drops)
        return;
    m->drop_count = 0;
    rec_for_each (worker_drop, d, list) {
        if (d.sequence > m->dropped && m->drop_count < room)
            m->drops[m->drop_count++] = d;
    }
    m->drop_done = 0;
    m->drop_lot = m->lot;
    io_work(m->loop, &m->drop_op, drop_work, m, drops_done);
}

/* ---- heartbeats ------------------------------------------------------------------------------------------------- */

static void on_beat(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct worker_master *m = container_of(call, struct worker_master, own);
    struct msg_worker_heartbeat_answer a;
    if (m->state == STOPPING)
        return;
    if (m->state != KNOWN || rpc_call_client(call) != leader(m)) { /* lost meanwhile; another one may be known */
        if (m->state == SEEKING)
            seek(m);
        return;
    }
    if (result == 0)
        result = msg_worker_heartbeat_answer_decode(f->body, f->header.body_len, &a);
    if (result < 0) {
        lose(m, result);
        return;
    }
    WORKER_COUNT(m->o.metrics, heartbeats, 1);
    if (a.register_again) {
        m->state = SEEKING;
        seek(m);
        return;
    }
    see_mounts(m, a.mounts_version, false);
    take_drops(m, &a.drops);
    if (m->o.beaten)
        m->o.beaten(m->o.arg);
    loop_timer_start(m->loop, &m->timer, loop_now(m->loop) + m->heartbeat_ms * NS_PER_MS);
}

static void beat(struct worker_master *m)
{
    struct worker_core *c = m->o.core;
    struct block_store_status s;
    struct rec_worker_dir dir = describe_dir(m, &s);
    struct buf dirs = {0};
    struct msg_worker_heartbeat h = {
        .worker = c->worker,
        .dropped = m->dropped,
        .damaged_chunks = s.damaged_chunks,
        .lost_blocks = s.lost_blocks,
        .dirty_bytes = c->dirty_bytes,
        .filled_bytes = c->filled_bytes,
        .served_bytes = c->served_bytes,
        .written_bytes = c->written_bytes,
        .checked = c->checked,
    };
    if (rec_worker_dir_append(&dirs, &dir) == 0)
        h.dirs = wire_list_of(&dirs, 1);
    m->own.done = on_beat;
    rpc_client_call(leader(m), &m->own, MSG_worker_heartbeat, msg_worker_heartbeat_desc(), &h,
                    clock_ns() + max(m->heartbeat_ms, (uint32_t)BEAT_DEFAULT_MS) * NS_PER_MS);
    buf_fini(&dirs);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static void finish(struct worker_call *call, int result, const struct rpc_frame *f)
{
    list_remove(&call->link);
    loop_timer_stop(call->master->loop, &call->timer);
    buf_fini(&call->body);
    call->done(call, result, f);
}

static void on_late(struct loop_timer *timer)
{
    struct worker_call *call = container_of(timer, struct worker_call, timer);
    finish(call, -CV_DEADLINE, NULL);
}

static void wait(struct worker_call *call)
{
    list_remove(&call->link);
    list_push_back(&call->master->waiting, &call->link);
    loop_timer_start(call->master->loop, &call->timer, call->deadline_ns);
}

static void send_call(struct worker_call *call);

static void on_answer(struct rpc_call *rpc, int result, const struct rpc_frame *f)
{
    struct worker_call *call = container_of(rpc, struct worker_call, rpc);
    struct worker_master *m = call->master;
    if (m->state == STOPPING) {
        finish(call, -CV_STOPPING, NULL);
        return;
    }
    switch (result) {
    case -CV_NOT_LEADER:
    case -CV_CLOSED:
    case -CV_UNREACHABLE:
    case -CV_STOPPING:
        wait(call);
        if (rpc_call_client(rpc) == leader(m))
            lose(m, result);
        else if (m->state == KNOWN)
            send_call(call);
        return;
    default: finish(call, result, f);
    }
}

static void send_call(struct worker_call *call)
{
    struct worker_master *m = call->master;
    loop_timer_stop(m->loop, &call->timer);
    list_remove(&call->link);
    list_push_back(&m->in_flight, &call->link);
    call->rpc.done = on_answer;
    rpc_client_call_body(leader(m), &call->rpc, call->type, 0, call->body.p, (uint32_t)call->body.n, NULL, 0,
                         call->deadline_ns);
}

static void send_waiting(struct worker_master *m)
{
    struct list calls = LIST_INIT(calls);
    list_append_all(&calls, &m->waiting);
    while (!list_empty(&calls))
        send_call(list_entry(calls.next, struct worker_call, link));
}

void worker_master_call(struct worker_master *m, struct worker_call *call, uint16_t type, const struct wire_desc *desc,
                        const void *record, uint64_t deadline_ns)
{
    assert_on_loop(m->loop);
    call->master = m;
    call->type = type;
    call->deadline_ns = deadline_ns;
    call->body = (struct buf){0};
    list_init(&call->link);
    loop_timer_init(&call->timer, on_late);
    if (wire_encode(desc, record, &call->body) < 0 || m->state == STOPPING) {
        call->deadline_ns = 0; /* done runs later, never from in here */
        wait(call);
    } else if (m->state == KNOWN) {
        send_call(call);
    } else {
        wait(call);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void read_boot_id(char *out, size_t size)
{
    int fd cleanup(closep) = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
    out[n > 0 ? n : 0] = 0;
    out[strcspn(out, "\n")] = 0;
}

int worker_master_new(struct loop *loop, const struct worker_master_options *o, struct worker_master **ret)
{
    struct worker_master *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->loop = loop;
    m->o = *o;
    m->pause_ms = PAUSE_MIN_MS;
    m->started_ns = clock_wall_ns();
    list_init(&m->waiting);
    list_init(&m->in_flight);
    loop_timer_init(&m->timer, on_timer);
    read_boot_id(m->boot, sizeof(m->boot));
    gethostname(m->host, sizeof(m->host) - 1);
    const struct option_list *masters = &o->cluster->masters;
    struct rpc_leader_options lo = {
        .default_port = MASTER_PORT,
        .self = {.role = RPC_WORKER, .node = o->core->worker, .program = "cv-worker " CV_VERSION},
        .watch = true, /* a new leader grants nothing here until we register with it */
        .found = on_found,
        .lost = on_lost,
        .missed = on_missed,
        .user = m,
    };
    const char *bad;
    memcpy(lo.self.cluster, o->core->cluster.b, UUID_SIZE);
    int r = rpc_leader_new(loop, &lo, masters->items, masters->n, &m->leader, &bad);
    if (r < 0) {
        log_error(r, "address of a master '%s'", bad);
        free(m);
        return r;
    }
    *ret = m;
    return 0;
}

void worker_master_start(struct worker_master *m)
{
    assert_on_loop(m->loop);
    rpc_leader_find(m->leader);
}

static void leader_closed(void *arg)
{
    struct worker_master *m = arg;
    m->open = false;
    if (!m->drops)
        m->stopped(m->stopped_arg);
}

void worker_master_stop(struct worker_master *m, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(m->loop);
    m->state = STOPPING;
    m->stopped = stopped;
    m->stopped_arg = arg;
    m->o.core->registered = 0;
    loop_timer_stop(m->loop, &m->timer);
    while (!list_empty(&m->waiting))
        finish(list_entry(m->waiting.next, struct worker_call, link), -CV_STOPPING, NULL);
    m->open = true;
    rpc_leader_close(m->leader, leader_closed, m);
}

struct worker_master *worker_master_free(struct worker_master *m)
{
    free(m);
    return NULL;
}
