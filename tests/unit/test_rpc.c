/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a call, on real sockets and both loops: an echo server on one thread, the caller on another. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "rpc/rpc_buffer.h"
#include "rpc/rpc_client.h"
#include "rpc/rpc_server.h"

static const enum loop_backend backends[] = {LOOP_URING, LOOP_EPOLL};

/* Rings of all processes of a user count against RLIMIT_MEMLOCK: epoll when others have it all. */
static int new_loop(const char *name, enum loop_backend backend, struct loop **ret)
{
    int r = loop_new(&(struct loop_options){.name = name, .backend = backend}, ret);
    return r == -ENOMEM ? loop_new(&(struct loop_options){.name = name, .backend = LOOP_EPOLL}, ret) : r;
}

static bool have(enum loop_backend backend)
{
    struct loop *l;
    if (loop_new(&(struct loop_options){.backend = backend}, &l) < 0)
        return false;
    loop_free(l);
    return true;
}

#define EACH_BACKEND(b)                                                                                                \
    for (unsigned b##_i = 0; b##_i < 2; b##_i++)                                                                       \
        for (enum loop_backend b = backends[b##_i]; have(b) && b != LOOP_AUTO; b = LOOP_AUTO)

/* ---- a server: ping-like session_renew echoes, readlink is held back, getattr answers with data -------------------------- */

struct server {
    struct rpc_metrics metrics;
    struct loop *loop;
    struct rpc_server *server;
    char address[160];
    struct list held;
    _Atomic int held_count, cancelled_seen, gone;
    _Atomic int file;
    uint64_t stop_done;
};

struct file_release {
    struct rpc_release release;
    int fd;
};

static void close_file(struct rpc_release *r)
{
    struct file_release *f = container_of(r, struct file_release, release);
    close(f->fd);
    free(f);
}

static void release_nothing(struct rpc_release *r)
{
}

static void on_request(struct rpc_request *q, void *user)
{
    struct server *s = user;
    if (q->header.type == MSG_session_renew) {
        struct msg_session_renew m;
        int r = msg_session_renew_decode(q->body, q->header.body_len, &m);
        struct msg_session_renew_answer a = {.lease_epoch = m.lease_epoch};
        rpc_answer(q, r ? r : m.session == 7 ? -ENOENT : 0, 99, msg_session_renew_answer_desc(), &a);
    } else if (q->header.type == MSG_readlink) {
        list_push_back(&s->held, &q->link);
        atomic_fetch_add(&s->held_count, 1);
    } else if (q->header.type == MSG_getattr) {
        struct file_release *f = malloc(sizeof(*f));
        *f = (struct file_release){.release.run = close_file, .fd = dup(s->file)};
        struct msg_getattr_answer a = {.lease_ms = 1};
        rpc_answer_file(q, 0, msg_getattr_answer_desc(), &a, f->fd, 100, 300000, &f->release);
    } else if (q->header.type == MSG_listxattr) { /* the file itself */
        static struct rpc_release nothing = {release_nothing};
        int fd = s->file;
        rpc_answer_fds(q, 0, NULL, NULL, &fd, 1, &nothing);
    } else if (q->header.type == MSG_setxattr) { /* echo the data part */
        struct iovec v = {(void *)(uintptr_t)q->data, q->header.data_len};
        rpc_answer_data(q, 0, 0, NULL, NULL, &v, 1);
    } else {
        rpc_answer(q, -CV_UNKNOWN_MESSAGE, 0, NULL, NULL);
    }
}

static void on_gone(struct rpc_peer *p, void *user)
{
    struct server *s = user;
    atomic_fetch_add(&s->gone, 1);
}

static int listen_here(void *arg)
{
    struct server *s = arg;
    return rpc_server_listen(s->server, s->address, 0, 0600);
}

static void server_start(struct server *s, enum loop_backend backend, const char *address)
{
    *s = (struct server){.file = -1};
    list_init(&s->held);
    snprintf(s->address, sizeof(s->address), "%s", address);
    ck_assert_int_eq(new_loop("server", backend, &s->loop), 0);
    struct rpc_server_options o = {
        .self = {.role = RPC_MASTER, .cluster = "0123456789abcde", .program = "test"},
        .request = on_request,
        .gone = on_gone,
        .user = s,
        .in_flight_max = 500,
        .limits = {.metrics = &s->metrics},
        .hello_ms = 100,
    };
    ck_assert_int_eq(rpc_server_new(s->loop, &o, &s->server), 0);
    ck_assert_int_eq(listen_here(s), 0);
    uint16_t port = rpc_server_port(s->server);
    if (port)
        snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", port);
    ck_assert_int_eq(loop_start(s->loop), 0);
}

static int answer_held(void *arg)
{
    struct server *s = arg;
    for (struct list *e; (e = list_pop_front(&s->held));) {
        struct rpc_request *q = list_entry(e, struct rpc_request, link);
        if (atomic_load(&q->cancelled))
            atomic_fetch_add(&s->cancelled_seen, 1);
        struct msg_readlink_answer a = {.target = TEXT("there")};
        rpc_answer(q, 0, 0, msg_readlink_answer_desc(), &a);
    }
    return 0;
}

static void on_stopped(void *arg)
{
    struct server *s = arg;
    loop_stop(s->loop);
}

static int stop_here(void *arg)
{
    struct server *s = arg;
    rpc_server_stop(s->server, 2000, on_stopped, s);
    return 0;
}

static void server_stop(struct server *s)
{
    loop_call(s->loop, stop_here, s);
    loop_join(s->loop);
    rpc_server_free(s->server);
    loop_free(s->loop);
}

/* ---- a caller -------------------------------------------------------------------------------------------------------------- */

struct caller {
    struct loop *loop;
    struct rpc_client *client;
    uint8_t cluster[16];
    int done, ok;
    _Atomic int last; /* result of the newest */
    uint64_t started, limit;
    _Atomic int connects, losses;
    _Atomic bool finished;
    const char *address;
    _Atomic uint32_t crc, data_n;
    _Atomic int fd; /* that came with the answer */
    uint8_t *kept;  /* the answer's buffer */
    const uint8_t *data;
};

struct one {
    struct rpc_call call;
    struct caller *caller;
    uint64_t number;
};

static void on_state(struct rpc_client *client, int error, const struct msg_hello_answer *a, const char *reason,
                     void *user)
{
    struct caller *c = user;
    atomic_fetch_add(error ? &c->losses : &c->connects, 1);
}

static int make_client(void *arg)
{
    struct caller *c = arg;
    struct rpc_client_options o = {
        .address = c->address,
        .self = {.role = RPC_CLIENT, .program = "test"},
        .connect_timeout_ms = 2000,
        .limits = {.receive_fds = true},
        .state = on_state,
        .user = c,
    };
    memcpy(o.self.cluster, c->cluster, 16);
    return rpc_client_new(c->loop, &o, &c->client);
}

static void caller_start(struct caller *c, enum loop_backend backend, const char *address, const char *cluster)
{
    *c = (struct caller){.address = address};
    if (cluster)
        memcpy(c->cluster, cluster, 16);
    ck_assert_int_eq(new_loop("caller", backend, &c->loop), 0);
    ck_assert_int_eq(loop_start(c->loop), 0);
    ck_assert_int_eq(loop_call(c->loop, make_client, c), 0);
}

static void on_client_closed(void *arg)
{
    struct caller *c = arg;
    loop_stop(c->loop);
}

static int close_client(void *arg)
{
    struct caller *c = arg;
    rpc_client_close(c->client, on_client_closed, c);
    return 0;
}

static void caller_stop(struct caller *c)
{
    loop_call(c->loop, close_client, c);
    loop_join(c->loop);
    loop_free(c->loop);
}

/* Wait until *flag is set or at least value; fail after 10 s. */
#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        uint64_t until_ = clock_ns() + 20 * NS_PER_S;                                                                  \
        while (!(condition)) {                                                                                         \
            ck_assert_msg(clock_ns() < until_, "waited for: " #condition);                                             \
            sched_yield();                                                                                             \
        }                                                                                                              \
    } while (0)

static void renew(struct caller *c, struct one *o);

static void on_renewed(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct one *o = container_of(call, struct one, call);
    struct caller *c = o->caller;
    struct msg_session_renew_answer a;
    c->done++;
    c->last = result;
    if (result == 0) {
        ck_assert_int_eq(msg_session_renew_answer_decode(f->body, f->header.body_len, &a), 0);
        ck_assert_uint_eq(a.lease_epoch, o->number);
        ck_assert_uint_eq(f->header.index, 99);
        c->ok++;
    }
    if (c->started < c->limit)
        renew(c, o);
    else if ((uint64_t)c->done == c->limit)
        atomic_store(&c->finished, true);
}

static void renew(struct caller *c, struct one *o)
{
    o->caller = c;
    o->number = c->started++;
    o->call.done = on_renewed;
    struct msg_session_renew m = {.lease_epoch = o->number};
    rpc_client_call(c->client, &o->call, MSG_session_renew, msg_session_renew_desc(), &m, clock_ns() + 20 * NS_PER_S);
}

#define WINDOW 64
static struct one window[WINDOW];

static int start_window(void *arg)
{
    struct caller *c = arg;
    for (int i = 0; i < WINDOW; i++)
        renew(c, &window[i]);
    return 0;
}

static void path_of(char *out, size_t size)
{
    snprintf(out, size, "unix:%s/s", unit_tempdir());
}

TEST_TIMEOUT(many_calls_in_flight_are_answered_each_once, 60)
{
    EACH_BACKEND(b)
    {
        for (int tcp = 0; tcp < 2; tcp++) {
            char path[160];
            path_of(path, sizeof(path));
            struct server s;
            struct caller c;
            server_start(&s, b, tcp ? "127.0.0.1:0" : path);
            caller_start(&c, b, s.address, "0123456789abcde");
            c.limit = 20000;
            loop_call(c.loop, start_window, &c);
            UNTIL(atomic_load(&c.finished));
            ck_assert_int_eq(c.ok, 20000);
            ck_assert_int_eq(c.connects, 1);
            ck_assert_uint_eq(counter_get(&s.metrics.requests), 20000);
            ck_assert_uint_eq(counter_get(&s.metrics.frames_in), 20001); /* and HELLO */
            ck_assert_uint_eq(counter_get(&s.metrics.frames_out), 20001);
            ck_assert_uint_lt(counter_get(&s.metrics.sends), 10000); /* many answers in one */
            caller_stop(&c);
            server_stop(&s);
        }
    }
}

/* ---- one call at a time, its result ---------------------------------------------------------------------------------------- */

static struct one single;
static struct {
    struct caller *c;
    uint64_t session;
    uint16_t type;
    uint64_t timeout_ns;
    const void *data;
    uint32_t data_n;
} ask;

static void on_single(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct caller *c = single.caller;
    c->last = result;
    if (f) {
        c->data_n = f->header.data_len;
        c->crc = crc32c(0, f->data, f->header.data_len);
        c->fd = f->fd_count ? take_fd(f->fds[0]) : -1;
        c->data = f->data;
        c->kept = rpc_client_take_buffer(c->client);
    }
    atomic_store(&c->finished, true);
}

static int start_single(void *arg)
{
    struct caller *c = arg;
    single.caller = c;
    single.call.done = on_single;
    atomic_store(&c->finished, false);
    if (ask.type == MSG_session_renew) {
        struct msg_session_renew m = {.session = ask.session};
        rpc_client_call(c->client, &single.call, ask.type, msg_session_renew_desc(), &m, clock_ns() + ask.timeout_ns);
    } else {
        rpc_client_call_body(c->client, &single.call, ask.type, 0, NULL, 0, ask.data, ask.data_n,
                             clock_ns() + ask.timeout_ns);
    }
    return 0;
}

static int call_once(struct caller *c, uint16_t type, uint64_t session, uint64_t timeout_ns)
{
    ask.type = type;
    ask.session = session;
    ask.timeout_ns = timeout_ns;
    loop_call(c->loop, start_single, c);
    UNTIL(atomic_load(&c->finished));
    return c->last;
}

/* Calls given up leave nothing behind: more of them than a client may have in flight. */
static struct {
    struct one one;
    int left;
} given_up;

static void on_given_up(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct caller *c = given_up.one.caller;
    ck_assert_ptr_null(f);
    if (result != -CV_CANCELLED)
        ck_abort_msg("%d, %d left", result, given_up.left);
    if (--given_up.left == 0) {
        atomic_store(&c->finished, true);
        return;
    }
    struct msg_session_renew m = {0};
    rpc_client_call(c->client, call, MSG_session_renew, msg_session_renew_desc(), &m, UINT64_MAX);
    rpc_client_cancel(call);
}

static int give_up_many(void *arg)
{
    given_up.one.caller = arg;
    given_up.one.call.done = on_given_up;
    given_up.left = 70000;
    struct msg_session_renew m = {0};
    rpc_client_call(given_up.one.caller->client, &given_up.one.call, MSG_session_renew, msg_session_renew_desc(), &m,
                    UINT64_MAX);
    rpc_client_cancel(&given_up.one.call);
    rpc_client_cancel(&given_up.one.call); /* twice is once */
    return 0;
}

TEST_TIMEOUT(calls_given_up_leave_nothing_behind, 60)
{
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct server s;
        struct caller c;
        server_start(&s, b, path);
        caller_start(&c, b, s.address, NULL);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, NS_PER_S), 0);
        atomic_store(&c.finished, false);
        loop_call(c.loop, give_up_many, &c);
        UNTIL(atomic_load(&c.finished));
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, NS_PER_S), 0);
        ck_assert_int_eq(c.connects, 1);
        caller_stop(&c);
        server_stop(&s);
    }
}

/* The server takes as many requests as it may have in flight; the rest waits in the sockets and is answered later. */
#define MANY 2000
static struct one many[MANY];
static _Atomic int many_done;

static void on_one_of_many(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    ck_assert_int_eq(result, 0);
    atomic_fetch_add(&many_done, 1);
}

static int start_many(void *arg)
{
    struct caller *c = arg;
    for (int i = 0; i < MANY; i++) {
        many[i].call.done = on_one_of_many;
        rpc_client_call(c->client, &many[i].call, MSG_readlink, NULL, NULL, UINT64_MAX);
    }
    return 0;
}

TEST_TIMEOUT(requests_above_the_limit_wait, 60)
{
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct server s;
        struct caller c;
        server_start(&s, b, path);
        caller_start(&c, b, s.address, NULL);
        atomic_store(&many_done, 0);
        loop_call(c.loop, start_many, &c);
        UNTIL(atomic_load(&s.held_count) == 500);
        usleep(20000); /* time to take one too many */
        ck_assert_int_eq(s.held_count, 500);
        ck_assert_uint_eq(rpc_server_in_flight(s.server), 500);
        for (int taken = 500; taken <= MANY; taken += 500) {
            UNTIL(atomic_load(&s.held_count) == taken);
            loop_call(s.loop, answer_held, &s);
        }
        UNTIL(atomic_load(&many_done) == MANY);
        caller_stop(&c);
        server_stop(&s);
    }
}

static int cancel_single(void *arg)
{
    rpc_client_cancel(&single.call);
    return 0;
}

TEST_TIMEOUT(errors_deadlines_and_cancellation_end_calls, 60)
{
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct server s;
        struct caller c;
        server_start(&s, b, path);
        caller_start(&c, b, s.address, NULL);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 7, NS_PER_S), -ENOENT);
        ck_assert_int_eq(call_once(&c, MSG_statfs, 0, NS_PER_S), -CV_UNKNOWN_MESSAGE);
        ck_assert_int_eq(call_once(&c, MSG_readlink, 0, 20 * NS_PER_MS), -CV_DEADLINE);
        UNTIL(atomic_load(&s.held_count) == 1);
        /* The late answer finds nobody, and the connection goes on. */
        loop_call(s.loop, answer_held, &s);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, NS_PER_S), 0);

        ask.type = MSG_readlink;
        ask.timeout_ns = 10 * NS_PER_S;
        loop_call(c.loop, start_single, &c);
        UNTIL(atomic_load(&s.held_count) == 2);
        loop_call(c.loop, cancel_single, &c);
        UNTIL(atomic_load(&c.finished));
        ck_assert_int_eq(c.last, -CV_CANCELLED);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, NS_PER_S), 0);
        loop_call(s.loop, answer_held, &s);
        ck_assert_int_ge(atomic_load(&s.cancelled_seen), 1);
        caller_stop(&c);
        server_stop(&s);
    }
}

TEST_TIMEOUT(data_goes_out_of_files_and_memory, 60)
{
    EACH_BACKEND(b)
    {
        char path[160], file[192];
        path_of(path, sizeof(path));
        snprintf(file, sizeof(file), "%s/data", unit_tempdir());
        struct server s;
        struct caller c;
        server_start(&s, b, path);
        uint8_t *bytes = malloc(400000);
        for (int i = 0; i < 400000; i++)
            bytes[i] = (uint8_t)(i * 7 + i / 251);
        s.file = open(file, O_CREAT | O_TRUNC | O_RDWR, 0600);
        ck_assert_int_eq(write(s.file, bytes, 400000), 400000);
        caller_start(&c, b, s.address, NULL);
        for (int i = 0; i < 20; i++) {
            ck_assert_int_eq(call_once(&c, MSG_getattr, 0, 5 * NS_PER_S), 0);
            ck_assert_uint_eq(c.data_n, 300000);
            ck_assert_uint_eq(c.crc, crc32c(0, bytes + 100, 300000));
            ck_assert_uint_eq(c.crc, crc32c(0, c.data, 300000)); /* kept */
            rpc_buffer_free(c.kept);
            ask.data = bytes;
            ask.data_n = 399999;
            ck_assert_int_eq(call_once(&c, MSG_setxattr, 0, 5 * NS_PER_S), 0);
            ck_assert_uint_eq(c.crc, crc32c(0, bytes, 399999));
            rpc_buffer_free(c.kept);
            ask.data_n = 0;
        }
        ck_assert_int_eq(call_once(&c, MSG_listxattr, 0, 5 * NS_PER_S), 0);
        ck_assert_ptr_null(c.kept);
        uint8_t some[1000];
        ck_assert_int_eq(pread(c.fd, some, sizeof(some), 5000), sizeof(some));
        ck_assert_mem_eq(some, bytes + 5000, sizeof(some));
        close(c.fd);
        /* A file shorter than promised ends the connection; the next call has a new one. */
        ck_assert_int_eq(ftruncate(s.file, 1000), 0);
        ck_assert_int_eq(call_once(&c, MSG_getattr, 0, 5 * NS_PER_S), -CV_CLOSED);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), 0);
        ck_assert_int_eq(c.connects, 2);
        caller_stop(&c);
        server_stop(&s);
        close(s.file);
        free(bytes);
    }
}

TEST_TIMEOUT(another_cluster_is_refused, 60)
{
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct server s;
        struct caller c;
        server_start(&s, b, path);
        caller_start(&c, b, s.address, "other cluster..");
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), -CV_WRONG_CLUSTER);
        ck_assert_int_eq(c.connects, 0);
        caller_stop(&c);
        server_stop(&s);
    }
}

TEST_TIMEOUT(calls_wait_for_the_connection_and_fail_without_one, 60)
{
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct caller c;
        caller_start(&c, b, path, NULL);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), -CV_UNREACHABLE);
        struct server s;
        server_start(&s, b, path);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), 0);
        /* A server that goes away with a call in flight: the outcome is unknown. */
        ask.type = MSG_readlink;
        ask.timeout_ns = 10 * NS_PER_S;
        loop_call(c.loop, start_single, &c);
        UNTIL(atomic_load(&s.held_count) == 1);
        loop_call(s.loop, stop_here, &s); /* waits for the held one, up to its grace */
        UNTIL(atomic_load(&c.finished));
        ck_assert_int_eq(c.last, -CV_CLOSED);
        loop_call(s.loop, answer_held, &s);
        loop_join(s.loop);
        rpc_server_free(s.server);
        loop_free(s.loop);
        caller_stop(&c);
    }
}

/* ---- broken peers: raw bytes into the server ------------------------------------------------------------------------------------ */

static void expect_closed(const char *address, const void *bytes, size_t n)
{
    struct net_address a;
    int fd;
    ck_assert_int_eq(net_parse(address, 0, &a), 0);
    ck_assert_int_eq(net_socket(&a, &fd), 0);
    fcntl(fd, F_SETFL, 0);
    ck_assert_int_eq(connect(fd, &a.any, a.n), 0);
    ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
    char answer[4096];
    ssize_t r;
    while ((r = recv(fd, answer, sizeof(answer), 0)) > 0)
        ;
    ck_assert(r == 0 || errno == ECONNRESET);
    close(fd);
}

TEST_TIMEOUT(corrupted_and_oversized_frames_close_the_connection_only, 60)
{
    log_set_level(LOG_LEVEL_ERROR);
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct server s;
        server_start(&s, b, path);
        uint8_t raw[256] = {0};
        expect_closed(path, "GET / HTTP/1.1\r\nHost: localhost.localdomain\r\n\r\n", 48);
        struct frame_header h = {.type = MSG_hello, .body_len = 10, .body_crc = 1};
        frame_encode(&h, raw);
        expect_closed(path, raw, 58); /* body does not match its checksum */
        h = (struct frame_header){.type = MSG_ping};
        frame_encode(&h, raw);
        expect_closed(path, raw, 48); /* no HELLO */
        h = (struct frame_header){.type = MSG_hello, .body_len = FRAME_BODY_MAX + 1};
        frame_encode(&h, raw);
        expect_closed(path, raw, 48);
        h = (struct frame_header){.type = MSG_hello, .data_len = FRAME_DATA_MAX + 1};
        frame_encode(&h, raw);
        expect_closed(path, raw, 48);
        h.data_len = 0;
        frame_encode(&h, raw);
        raw[9] ^= 4;
        expect_closed(path, raw, 48);
        h = (struct frame_header){.type = MSG_hello, .body_len = 20000}; /* more than a stranger may say */
        frame_encode(&h, raw);
        expect_closed(path, raw, 48);
        expect_closed(path, raw, 40); /* says nothing more, in time */
        UNTIL(counter_get(&s.metrics.connections_refused) == 2);
        ck_assert_uint_eq(counter_get(&s.metrics.connections_broken), 6);
        ck_assert_uint_eq(counter_get(&s.metrics.requests), 0);
        struct caller c;
        caller_start(&c, b, path, NULL);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), 0);
        usleep(150000); /* those who have said HELLO may be silent */
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), 0);
        ck_assert_int_eq(c.connects, 1);
        caller_stop(&c);
        server_stop(&s);
    }
}

/* A peer that asks for more and more and reads nothing: memory stays bounded, others are served. */
TEST_TIMEOUT(a_peer_that_does_not_read_is_not_read_on, 60)
{
    log_set_level(LOG_LEVEL_ERROR);
    EACH_BACKEND(b)
    {
        char path[160];
        path_of(path, sizeof(path));
        struct server s;
        server_start(&s, b, path);
        struct net_address a;
        int fd;
        ck_assert_int_eq(net_parse(path, 0, &a), 0);
        ck_assert_int_eq(net_socket(&a, &fd), 0);
        fcntl(fd, F_SETFL, 0);
        ck_assert_int_eq(connect(fd, &a.any, a.n), 0);
        struct rpc_self self = {.role = RPC_CLIENT, .program = "rude"};
        struct msg_hello hello;
        rpc_hello_fill(&self, &hello);
        struct buf body = {0};
        ck_assert_int_eq(msg_hello_encode(&hello, &body), 0);
        uint8_t raw[FRAME_HEADER_SIZE];
        struct frame_header h = {
            .type = MSG_hello, .body_len = (uint32_t)body.n, .body_crc = crc32c(0, body.p, body.n)};
        frame_encode(&h, raw);
        ck_assert_int_eq(write(fd, raw, sizeof(raw)), sizeof(raw));
        ck_assert_int_eq(write(fd, body.p, body.n), (ssize_t)body.n);
        /* Each asks for 200,000 bytes back. */
        uint8_t *big = calloc(1, 200000);
        h = (struct frame_header){.type = MSG_setxattr, .request_id = 1, .data_len = 200000};
        frame_encode(&h, raw);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        size_t accepted = 0, at = 0;
        for (uint64_t quiet = clock_ns(); clock_ns() - quiet < 300 * NS_PER_MS && accepted < 100u << 20;) {
            size_t whole = sizeof(raw) + 200000;
            ssize_t n = at < sizeof(raw) ? write(fd, raw + at, sizeof(raw) - at)
                                         : write(fd, big + at - sizeof(raw), whole - at);
            if (n > 0) {
                at = (at + (size_t)n) % whole;
                accepted += (size_t)n;
                quiet = clock_ns();
            }
        }
        ck_assert_uint_lt(accepted, 40u << 20);
        struct caller c;
        caller_start(&c, b, path, NULL);
        ck_assert_int_eq(call_once(&c, MSG_session_renew, 1, 5 * NS_PER_S), 0);
        caller_stop(&c);
        close(fd);
        UNTIL(atomic_load(&s.gone) >= 2);
        server_stop(&s);
        free(big);
        buf_fini(&body);
    }
}
