/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workers of the cluster: the map (MSG workers), and a connection to each that is needed: the unix socket of a worker
 * on this host while it can be connected to, TCP otherwise. A worker that left the map is kept: its id is never reused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/client_ask.h"
#include "client/client_file.h"

#define WORKER_PORT     8997
#define SOCKET_AGAIN_MS 1000 /* after a unix socket could not be connected to */
#define MAP_AGAIN_MS    200
#define MAP_DEADLINE_MS 5000
#define ASK_AGAIN_MS    20
#define WORKERS_MAX     4096
#define PROBE_MS        2000 /* silence, then a ping */
#define SILENT_MS       5000 /* silence that is too long */

/* ---- the map ------------------------------------------------------------------------------------------------------- */

struct client_worker *client_worker_find(struct curvine *cv, uint64_t id)
{
    struct client_content *c = cv->content;
    for (unsigned i = 0; i < c->worker_count; i++)
        if (c->workers[i]->id == id)
            return c->workers[i];
    return NULL;
}

static void worker_free(struct client_worker *w)
{
    client_shared_leave(w);
    free(w->address);
    free(w->socket);
    buf_fini(&w->released);
    free(w);
}

static struct client_worker *add_worker(struct curvine *cv, uint64_t id)
{
    struct client_content *c = cv->content;
    if (c->worker_count == WORKERS_MAX)
        return NULL;
    struct client_worker **workers = reallocarray(c->workers, c->worker_count + 1, sizeof(*workers));
    if (!workers)
        return NULL;
    c->workers = workers;
    struct place_member *members = reallocarray(c->members, c->worker_count + 1, sizeof(*members));
    if (!members)
        return NULL;
    c->members = members;
    struct client_worker *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->cv = cv;
    w->id = id;
    c->workers[c->worker_count++] = w;
    return w;
}

/* Another address than before: the old connection ends, its calls with it. */
static int set_address(char **at, struct rpc_client **client, struct text t)
{
    if (*at && text_equal(text_of(*at), t))
        return 0;
    char *copy = strndup(t.n ? t.p : "", t.n);
    if (!copy)
        return -ENOMEM;
    free(*at);
    *at = copy;
    if (*client)
        rpc_client_close(take(*client), NULL, NULL);
    return 0;
}

static int take_worker(struct curvine *cv, const struct rec_worker *r)
{
    struct client_content *c = cv->content;
    struct client_worker *w = client_worker_find(cv, r->worker);
    if (!w)
        w = add_worker(cv, r->worker);
    if (!w || set_address(&w->address, &w->tcp, r->address) < 0 ||
        set_address(&w->socket, &w->unix_socket, r->socket) < 0)
        return -ENOMEM;
    if (!w->unix_socket)
        client_shared_leave(w);
    w->local = r->socket.n && r->boot.n && text_equal(r->boot, text_of(c->boot));
    w->in = r->in;
    w->up = r->up;
    w->weight = r->weight;
    return 0;
}

static void on_map(struct client_master_call *m, int result)
{
    struct curvine *cv = m->user;
    struct client_content *c = cv->content;
    struct msg_workers_answer a;
    if (result == 0)
        result = msg_workers_answer_decode(m->answer.p, m->answer.n, &a);
    if (result == 0) {
        for (unsigned i = 0; i < c->worker_count; i++)
            c->workers[i]->in = c->workers[i]->up = false;
        rec_for_each (worker, r, &a.workers)
            if (take_worker(cv, &r) < 0)
                result = -ENOMEM;
        for (unsigned i = 0; i < c->worker_count; i++) {
            const struct client_worker *w = c->workers[i];
            c->members[i] = (struct place_member){.worker = w->id, .weight = w->weight, .in = w->in, .up = w->up};
        }
        c->map_version = a.map_version;
        c->map_known = true;
        c->map_stale = false;
    }
    client_master_call_fini(m);
    c->map_call = NULL;
    free(m);
    client_io_wake(&c->map_waiting);
}

static void ask_map(struct curvine *cv)
{
    struct client_content *c = cv->content;
    if (c->map_call || cv->state == CLIENT_CLOSING)
        return;
    struct client_master_call *m = calloc(1, sizeof(*m));
    if (!m)
        return;
    m->user = cv;
    c->map_call = m;
    c->map_asked_ns = clock_ns();
    struct msg_workers q = {.map_version = 0};
    client_master_call(cv, m, MSG_workers, false, true, msg_workers_desc(), &q,
                       clock_ns() + MAP_DEADLINE_MS * NS_PER_MS, on_map);
}

bool client_map_ready(struct curvine *cv)
{
    if (!cv->content->map_known || cv->content->map_stale)
        ask_map(cv);
    return cv->content->map_known;
}

void client_map_refresh(struct curvine *cv)
{
    struct client_content *c = cv->content;
    c->map_stale = true;
    if (clock_ns() > c->map_asked_ns + MAP_AGAIN_MS * NS_PER_MS)
        ask_map(cv);
}

/* ---- connections ------------------------------------------------------------------------------------------------------- */

static void on_socket_state(struct rpc_client *c, int error, const struct msg_hello_answer *answer, const char *reason,
                            void *user)
{
    struct client_worker *w = user;
    if (error < 0) {
        w->socket_failed_until_ns = clock_ns() + SOCKET_AGAIN_MS * NS_PER_MS;
        client_shared_leave(w);
    }
}

static struct rpc_client *make_client(struct client_worker *w, const char *address, bool local)
{
    char text[160];
    if (!address || !*address)
        return NULL;
    if (local && strncmp(address, "unix:", 5) != 0) {
        snprintf(text, sizeof(text), "unix:%s", address);
        address = text;
    }
    struct rpc_client_options o = {
        .address = address,
        .default_port = WORKER_PORT,
        .self = {.role = RPC_CLIENT, .program = w->cv->program},
        .session = w->cv->session,
        .limits.receive_fds = local,
        .state = local ? on_socket_state : NULL,
        .user = w,
    };
    struct rpc_client *c;
    int r = rpc_client_new(w->cv->loop, &o, &c);
    if (r == 0)
        return c;
    log_warn(r, "worker %016llx at '%s'", (unsigned long long)w->id, address);
    return NULL;
}

/* Descriptors are given to a session, and are good no longer than it: without one, blocks are read by messages. */
bool client_worker_is_local(struct client_worker *w)
{
    uint64_t now = clock_ns();
    return w->local && w->cv->session && now < w->cv->session_until_ns && now >= w->socket_failed_until_ns;
}

void client_workers_let_go(struct curvine *cv)
{
    struct client_content *c = cv->content;
    client_blocks_let_go(cv);
    for (unsigned i = 0; i < c->worker_count; i++) {
        struct client_worker *w = c->workers[i];
        w->released.n = 0; /* they go with the session */
        w->releasing = 0;
        client_shared_leave(w);
        if (w->unix_socket)
            rpc_client_close(take(w->unix_socket), NULL, NULL);
    }
}

struct rpc_client *client_worker_conn(struct client_worker *w, bool local_only)
{
    if (w->cv->state == CLIENT_CLOSING)
        return NULL;
    if (client_worker_is_local(w)) {
        if (!w->unix_socket)
            w->unix_socket = make_client(w, w->socket, true);
        if (w->unix_socket)
            return w->unix_socket;
    }
    if (local_only)
        return NULL;
    if (!w->tcp)
        w->tcp = make_client(w, w->address, false);
    return w->tcp;
}

/* The answer, or the end of the connection: either will do. */
static void on_ping(struct rpc_call *call, int result, const struct rpc_frame *f)
{
}

/* A worker that is slow (a disk, an under file system) still answers pings; one that does not is stopped, or its host is gone
 * without a word. Its calls end, and are tried elsewhere or under a new grant. */
static void probe(struct client_worker *w, struct rpc_client *conn, struct rpc_call *ping)
{
    uint64_t silent_ms = conn ? rpc_client_silent_ms(conn) : 0;
    if (silent_ms >= SILENT_MS && rpc_call_busy(ping)) {
        log_warn(0, "worker %016llx is silent for %llu ms: closing the connection", (unsigned long long)w->id,
                 (unsigned long long)silent_ms);
        rpc_client_drop(conn);
    } else if (silent_ms >= PROBE_MS && !rpc_call_busy(ping)) {
        struct msg_ping m = {.sent_ns = clock_ns()};
        ping->done = on_ping;
        rpc_client_call(conn, ping, MSG_ping, msg_ping_desc(), &m, UINT64_MAX);
    }
}

void client_workers_probe(struct curvine *cv)
{
    if (cv->session && clock_ns() >= cv->session_until_ns)
        client_blocks_let_go(cv);
    for (unsigned i = 0; i < cv->content->worker_count; i++) {
        struct client_worker *w = cv->content->workers[i];
        probe(w, w->tcp, &w->tcp_ping);
        probe(w, w->unix_socket, &w->unix_ping);
    }
}

bool client_worker_error(int r)
{
    switch (r) {
    case -CV_UNREACHABLE:
    case -CV_CLOSED:
    case -CV_DEADLINE:
    case -CV_BUSY:
    case -CV_STOPPING:
    case -CV_NOT_OWNER:
    case -CV_NO_WORKER:
    case -CV_UNKNOWN_OUTCOME:
    case -CV_WRONG_INCARNATION: return true;
    default: return false;
    }
}

/* ---- beginning and end ------------------------------------------------------------------------------------------------------ */

static void read_line(const char *path, char *out, size_t size)
{
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, size - 1) : 0;
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

void client_workers_init(struct curvine *cv)
{
    struct client_content *c = cv->content;
    list_init(&c->map_waiting);
    read_line("/proc/sys/kernel/random/boot_id", c->boot, sizeof(c->boot));
}

unsigned client_workers_close(struct curvine *cv, void (*closed)(void *arg), void *arg)
{
    struct client_content *c = cv->content;
    unsigned n = 0;
    for (unsigned i = 0; i < c->worker_count; i++) {
        struct client_worker *w = c->workers[i];
        n += !!w->tcp + !!w->unix_socket;
        if (w->tcp)
            rpc_client_close(take(w->tcp), closed, arg);
        if (w->unix_socket)
            rpc_client_close(take(w->unix_socket), closed, arg);
    }
    return n;
}

void client_workers_fini(struct curvine *cv)
{
    struct client_content *c = cv->content;
    for (unsigned i = 0; i < c->worker_count; i++)
        worker_free(c->workers[i]);
    free(c->workers);
    free(c->members);
}

/* ---- asking one (cv) ------------------------------------------------------------------------------------------------------------ */

struct ask {
    struct rpc_call rpc;
    struct loop_job job;
    struct loop_timer timer;
    struct curvine *cv;
    uint64_t worker, deadline_ns;
    uint16_t type;
    struct buf body;
    const void *data;
    uint32_t data_n;
    struct buf *answer;
    int result;
    sem_t ended;
};

static void ask_end(struct ask *a, int result)
{
    a->result = result;
    sem_post(&a->ended); /* a is gone */
}

static void on_asked(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct ask *a = container_of(call, struct ask, rpc);
    bool again = (result == -CV_UNREACHABLE || result == -CV_CLOSED || result == -CV_BUSY) &&
                 clock_ns() + 2 * ASK_AGAIN_MS * NS_PER_MS < a->deadline_ns;
    if (again) {
        loop_timer_start(a->cv->loop, &a->timer, clock_ns() + ASK_AGAIN_MS * NS_PER_MS);
        return;
    }
    if (f && f->header.body_len) {
        int r = buf_append(a->answer, f->body, f->header.body_len);
        result = result < 0 ? result : r;
    }
    ask_end(a, result);
}

static void ask_go(struct ask *a)
{
    struct curvine *cv = a->cv;
    struct client_worker *w = client_worker_find(cv, a->worker);
    bool late = clock_ns() >= a->deadline_ns;
    if (cv->state == CLIENT_CLOSING || (late && !w)) {
        ask_end(a, late ? -CV_DEADLINE : -CV_CANCELLED);
        return;
    }
    if (!w && cv->content->map_known && !cv->content->map_stale) {
        ask_end(a, -CV_NO_WORKER);
        return;
    }
    struct rpc_client *conn = w ? client_worker_conn(w, false) : NULL;
    if (!conn) {
        if (late || (w && !*w->address && !w->local)) {
            ask_end(a, -CV_UNREACHABLE);
            return;
        }
        client_map_ready(cv);
        loop_timer_start(cv->loop, &a->timer, clock_ns() + ASK_AGAIN_MS * NS_PER_MS);
        return;
    }
    a->rpc.done = on_asked;
    rpc_client_call_body(conn, &a->rpc, a->type, 0, a->body.p, (uint32_t)a->body.n, a->data, a->data_n, a->deadline_ns);
}

static void on_ask_timer(struct loop_timer *timer)
{
    ask_go(container_of(timer, struct ask, timer));
}

static void on_ask_job(struct loop_job *job)
{
    struct ask *a = container_of(job, struct ask, job);
    if (!client_worker_find(a->cv, a->worker)) /* perhaps a new one */
        a->cv->content->map_stale = true;
    ask_go(a);
}

int client_ask_worker(struct curvine *cv, uint64_t worker, uint16_t type, const struct wire_desc *desc,
                      const void *record, const void *data, uint32_t data_n, uint32_t timeout_ms, struct buf *answer)
{
    struct ask a = {.cv = cv, .worker = worker, .type = type, .data = data, .data_n = data_n, .answer = answer};
    int r = desc ? wire_encode(desc, record, &a.body) : 0;
    if (r < 0)
        return r;
    assert(!loop_is_here(cv->loop));
    a.deadline_ns = clock_ns() + (timeout_ms ? timeout_ms : cv->options.timeout_ms) * NS_PER_MS;
    a.job.run = on_ask_job;
    loop_timer_init(&a.timer, on_ask_timer);
    sem_init(&a.ended, 0, 0);
    loop_post(cv->loop, &a.job);
    while (sem_wait(&a.ended) < 0)
        ;
    sem_destroy(&a.ended);
    buf_fini(&a.body);
    return a.result;
}
