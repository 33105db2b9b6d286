/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a call costs: a lookup (about 110 bytes out, 230 back, header included) decoded and answered by a server on one
 * thread for a caller on another, over unix and TCP, by both loops, with a few calls in flight; and bulk data out of a
 * cached file by sendfile. A line each: calls a second, latency, CPU of both threads per call, system calls per call.
 *
 *     build/bench/bench_rpc [seconds per line, 1] [words a line must contain]...
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "conf/metrics.h"
#include "rpc/rpc_client.h"
#include "rpc/rpc_server.h"

#define IN_FLIGHT_MAX 256
#define FILE_BYTES    (64u << 20)

/* ---- the server --------------------------------------------------------------------------------------------------- */

static struct loop *server_loop, *caller_loop;
static struct rpc_server *server;
static int file_fd = -1;
static uint32_t file_piece;

static void nothing(struct rpc_release *release)
{
}

static void on_request(struct rpc_request *q, void *user)
{
    static struct rpc_release release = {nothing};
    if (q->header.type == MSG_getattr) {
        struct msg_getattr m;
        int r = msg_getattr_decode(q->body, q->header.body_len, &m);
        assert(r == 0);
        struct msg_getattr_answer a = {.lease_ms = 1};
        uint64_t offset = m.inode * file_piece % FILE_BYTES;
        rpc_answer_file(q, 0, msg_getattr_answer_desc(), &a, file_fd, offset, file_piece, &release);
        return;
    }
    struct msg_lookup m;
    int r = msg_lookup_decode(q->body, q->header.body_len, &m);
    struct msg_lookup_answer a = {.attr = {.inode = m.parent + 1, .mode = 0100644, .nlink = 1}, .lease_ms = 1000};
    rpc_answer(q, r, 42, msg_lookup_answer_desc(), &a);
}

/* ---- the caller --------------------------------------------------------------------------------------------------- */

struct one {
    struct rpc_call call;
    uint64_t started_ns;
};

static struct one ones[IN_FLIGHT_MAX];
static struct rpc_client *client;
static struct histogram latency;
static uint64_t calls, bytes, until_ns;
static unsigned running;
static bool bulk;

static void call_next(struct one *o);

static void on_answer(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct one *o = container_of(call, struct one, call);
    if (result < 0) {
        log_error(result, "call");
        exit(1);
    }
    uint64_t now = clock_ns();
    histogram_add(&latency, now - o->started_ns);
    calls++;
    bytes += f->header.data_len;
    if (!bulk) {
        struct msg_lookup_answer a;
        int r = msg_lookup_answer_decode(f->body, f->header.body_len, &a);
        assert(r == 0);
    }
    if (now < until_ns)
        call_next(o);
    else if (--running == 0)
        loop_stop(caller_loop);
}

static void call_next(struct one *o)
{
    o->started_ns = clock_ns();
    o->call.done = on_answer;
    if (bulk) {
        struct msg_getattr m = {.inode = calls};
        rpc_client_call(client, &o->call, MSG_getattr, msg_getattr_desc(), &m, o->started_ns + 60 * NS_PER_S);
        return;
    }
    struct msg_lookup m = {.head = {.session = 1, .uid = 1000, .gid = 1000}, .parent = calls, .name = TEXT("file.txt")};
    rpc_client_call(client, &o->call, MSG_lookup, msg_lookup_desc(), &m, o->started_ns + 60 * NS_PER_S);
}

static uint64_t caller_cpu_ns, caller_enters, server_cpu_ns;

static void on_state(struct rpc_client *c, int error, const struct msg_hello_answer *answer, const char *reason,
                     void *user)
{
    if (error) {
        if (running == 0)
            return; /* the end */
        log_error(error, "connect: %s", reason);
        exit(1);
    }
    caller_cpu_ns = clock_thread_cpu_ns();
    struct loop_stats s;
    loop_get_stats(caller_loop, &s);
    caller_enters = s.enters;
    for (unsigned i = 0; i < running; i++)
        call_next(&ones[i]);
}

static int read_cpu(void *arg)
{
    *(uint64_t *)arg = clock_thread_cpu_ns();
    return 0;
}

static void on_stopped(void *arg)
{
    loop_stop(server_loop);
}

static int stop_server(void *arg)
{
    rpc_server_stop(server, 1000, on_stopped, NULL);
    return 0;
}

/* ---- a line ------------------------------------------------------------------------------------------------------- */

static void check(int r, const char *what)
{
    if (r < 0) {
        log_error(r, "%s", what);
        exit(1);
    }
}

static void run(enum loop_backend backend, bool tcp, unsigned in_flight, uint32_t piece, double seconds)
{
    char address[64], at[64];
    snprintf(address, sizeof(address), "unix:/tmp/cv-bench-rpc-%d", (int)getpid());
    check(loop_new(&(struct loop_options){.name = "server", .backend = backend}, &server_loop), "loop");
    check(loop_new(&(struct loop_options){.name = "caller", .backend = backend}, &caller_loop), "loop");
    struct rpc_server_options so = {.self = {.role = RPC_MASTER, .program = "bench"}, .request = on_request};
    check(rpc_server_new(server_loop, &so, &server), "server");
    check(rpc_server_listen(server, tcp ? "127.0.0.1:0" : address, 0, 0600), "listen");
    snprintf(at, sizeof(at), "127.0.0.1:%u", rpc_server_port(server));
    check(loop_start(server_loop), "start");

    struct rpc_client_options co = {
        .address = tcp ? at : address, .self = {.role = RPC_CLIENT, .program = "bench"}, .state = on_state};
    check(rpc_client_new(caller_loop, &co, &client), "client");
    memset(&latency, 0, sizeof(latency));
    calls = bytes = 0;
    bulk = piece > 0;
    file_piece = piece;
    running = in_flight;
    uint64_t cpu0, began = clock_ns();
    check(loop_call(server_loop, read_cpu, &cpu0), "cpu");
    until_ns = began + (uint64_t)(seconds * 1e9);
    rpc_client_connect(client);
    check(loop_run(caller_loop), "run");
    double took = (double)(clock_ns() - began) / 1e9;
    caller_cpu_ns = clock_thread_cpu_ns() - caller_cpu_ns;
    check(loop_call(server_loop, read_cpu, &server_cpu_ns), "cpu");
    server_cpu_ns -= cpu0;
    struct loop_stats cs, ss;
    loop_get_stats(caller_loop, &cs);
    loop_get_stats(server_loop, &ss);
    double n = (double)calls;
    printf(
        "%-5s %-4s %4u in flight %5u KiB  %8.0f/s  p50 %6.1f us  p99 %7.1f us  cpu/call: server %5.2f caller %5.2f us  "
        "syscalls/call: %.2f %.2f",
        loop_backend_name(caller_loop), tcp ? "tcp" : "unix", in_flight, piece >> 10, n / took,
        (double)histogram_quantile(&latency, 0.5) / 1e3, (double)histogram_quantile(&latency, 0.99) / 1e3,
        (double)server_cpu_ns / n / 1e3, (double)caller_cpu_ns / n / 1e3, (double)ss.enters / n,
        (double)(cs.enters - caller_enters) / n);
    if (bytes)
        printf("  %.2f GiB/s", (double)bytes / took / (1u << 30));
    printf("\n");
    fflush(stdout);

    loop_call(server_loop, stop_server, NULL);
    check(loop_join(server_loop), "join");
    rpc_server_free(server);
    loop_free(server_loop);
}

static bool wanted(int argc, char **argv, const char *line)
{
    for (int i = 2; i < argc; i++)
        if (!strstr(line, argv[i]))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    static const unsigned in_flight[] = {1, 40, 200};
    static const uint32_t pieces[] = {0, 128u << 10, 1u << 20};
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    char path[] = "/tmp/cv-bench-XXXXXX";
    file_fd = mkstemp(path);
    check(file_fd < 0 ? -errno : 0, path);
    unlink(path);
    char *block = calloc(1, 1u << 20);
    for (uint32_t at = 0; at < FILE_BYTES; at += 1u << 20)
        check(pwrite(file_fd, block, 1u << 20, at) < 0 ? -errno : 0, "write");
    free(block);
    for (enum loop_backend b = LOOP_URING; b <= LOOP_EPOLL; b++)
        for (int tcp = 0; tcp < 2; tcp++)
            for (unsigned p = 0; p < array_size(pieces); p++)
                for (unsigned f = 0; f < array_size(in_flight); f++) {
                    char line[64];
                    snprintf(line, sizeof(line), "%s %s f%u p%u", b == LOOP_URING ? "uring" : "epoll",
                             tcp ? "tcp" : "unix", in_flight[f], pieces[p] >> 10);
                    if (wanted(argc, argv, line) && !(pieces[p] && in_flight[f] > 40))
                        run(b, tcp, in_flight[f], pieces[p], seconds);
                }
    close(file_fd);
    return 0;
}
