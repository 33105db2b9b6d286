/* SPDX-License-Identifier: Apache-2.0 */
/* Ops on sockets, files and foreign descriptors, on both implementations of the loop. */
#include "tests/unit/loop_test.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "io/net.h"

/* An op with its result. */
struct probe {
    struct io_op op;
    struct loop *loop;
    int result, runs;
    int *left; /* counts down; the loop stops at 0 */
};

static bool submitting; /* a done function that runs now runs inside the call that submitted */

static void probe_done(struct io_op *op, int result)
{
    struct probe *p = container_of(op, struct probe, op);
    ck_assert(!submitting);
    assert_on_loop(p->loop);
    p->result = result;
    p->runs++;
    if (p->left && --*p->left == 0)
        loop_stop(p->loop);
}

#define SUBMIT(call)                                                                                                   \
    do {                                                                                                               \
        submitting = true;                                                                                             \
        call;                                                                                                          \
        submitting = false;                                                                                            \
    } while (0)

static struct probe probe(struct loop *loop, int *left)
{
    return (struct probe){.loop = loop, .left = left};
}

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

struct echo {
    struct loop *loop;
    struct net_address address;
    struct io_op accept, connect, server_recv, server_send, client_send, client_recv;
    int listen_fd, server_fd, client_fd, rounds;
    char server_buf[64], client_buf[64];
};

static void echo_client_got(struct io_op *op, int n)
{
    struct echo *e = container_of(op, struct echo, client_recv);
    if (e->rounds < 0) { /* the server closed */
        ck_assert_int_eq(n, 0);
        e->client_fd = loop_close(e->loop, e->client_fd);
        e->listen_fd = loop_close(e->loop, e->listen_fd);
        loop_stop(e->loop);
        return;
    }
    ck_assert_int_eq(n, 5);
    ck_assert_mem_eq(e->client_buf, "hello", 5);
    io_recv(e->loop, op, e->client_fd, e->client_buf, sizeof(e->client_buf), echo_client_got);
    if (--e->rounds >= 0)
        io_send(e->loop, &e->client_send, e->client_fd, "hello", 5, e->client_send.done);
}

static void echo_sent(struct io_op *op, int n)
{
    ck_assert_int_eq(n, 5);
}

static void echo_server_sent(struct io_op *op, int n)
{
    struct echo *e = container_of(op, struct echo, server_send);
    ck_assert_int_eq(n, 5);
    if (e->rounds == 0)
        shutdown(e->server_fd, SHUT_WR);
}

static void echo_server_got(struct io_op *op, int n)
{
    struct echo *e = container_of(op, struct echo, server_recv);
    ck_assert_int_eq(n, 5);
    struct iovec v[2] = {{e->server_buf, 2}, {e->server_buf + 2, 3}};
    memcpy(e->server_buf + 32, v, sizeof(v)); /* must live until it is sent */
    io_sendv(e->loop, &e->server_send, e->server_fd, (struct iovec *)(e->server_buf + 32), 2, echo_server_sent);
    if (e->rounds > 0)
        io_recv(e->loop, op, e->server_fd, e->server_buf, 32, echo_server_got);
}

static void echo_accepted(struct io_op *op, int fd)
{
    struct echo *e = container_of(op, struct echo, accept);
    ck_assert_int_ge(fd, 0);
    ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    e->server_fd = fd;
    io_recv(e->loop, &e->server_recv, fd, e->server_buf, 32, echo_server_got);
}

static void echo_connected(struct io_op *op, int r)
{
    struct echo *e = container_of(op, struct echo, connect);
    ck_assert_int_eq(r, 0);
    io_recv(e->loop, &e->client_recv, e->client_fd, e->client_buf, sizeof(e->client_buf), echo_client_got);
    io_send(e->loop, &e->client_send, e->client_fd, "hello", 5, echo_sent);
}

static void echo(struct loop *loop, const char *where)
{
    struct echo e = {.loop = loop, .server_fd = -1, .rounds = 100};
    struct net_address any;
    ck_assert_int_eq(net_parse(where, 0, &any), 0);
    ck_assert_int_eq(net_listen(&any, 0600, &e.listen_fd), 0);
    ck_assert_int_eq(net_local(e.listen_fd, &e.address), 0);
    ck_assert_int_eq(net_socket(&e.address, &e.client_fd), 0);
    SUBMIT(io_accept(loop, &e.accept, e.listen_fd, echo_accepted));
    SUBMIT(io_connect(loop, &e.connect, e.client_fd, &e.address.any, e.address.n, echo_connected));
    run_loop(loop);
    ck_assert_int_eq(e.rounds, -1);
    loop_close(loop, e.server_fd);
}

LOOP_TEST(io_echoes_over_tcp)
{
    echo(loop, "127.0.0.1:0");
}

LOOP_TEST(io_echoes_over_unix)
{
    char path[256];
    snprintf(path, sizeof(path), "unix:%s/socket", unit_tempdir());
    echo(loop, path);
}

LOOP_TEST(io_connect_tells_that_nobody_listens)
{
    struct net_address a;
    int fd, left = 2, unix_fd;
    ck_assert_int_eq(net_parse("127.0.0.1:0", 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0, &fd), 0);
    ck_assert_int_eq(net_local(fd, &a), 0);
    close(fd); /* a port nobody uses now */
    ck_assert_int_eq(net_socket(&a, &fd), 0);
    struct probe p = probe(loop, &left), q = probe(loop, &left);
    io_connect(loop, &p.op, fd, &a.any, a.n, probe_done);
    struct net_address u;
    char path[256];
    snprintf(path, sizeof(path), "unix:%s/nobody", unit_tempdir());
    ck_assert_int_eq(net_parse(path, 0, &u), 0);
    ck_assert_int_eq(net_socket(&u, &unix_fd), 0);
    io_connect(loop, &q.op, unix_fd, &u.any, u.n, probe_done);
    run_loop(loop);
    ck_assert_int_eq(p.result, -ECONNREFUSED);
    ck_assert_int_eq(q.result, -ENOENT);
    loop_close(loop, fd);
    loop_close(loop, unix_fd);
}

/* A big send against a reader that reads in odd pieces: short sends, full sockets, every byte in order. */
#define STREAM_BYTES (8u << 20)

struct stream {
    struct loop *loop;
    struct io_op send, recv;
    int fd[2];
    uint8_t *data;
    size_t sent, received;
    uint8_t buf[70001];
    struct prng random;
};

static uint8_t stream_byte(size_t at)
{
    return (uint8_t)(at * 7 + at / 251);
}

static void check_bytes(const uint8_t *p, int n, size_t at)
{
    for (int i = 0; i < n; i++)
        if (p[i] != stream_byte(at + (size_t)i))
            ck_abort_msg("wrong byte at %zu", at + (size_t)i);
}

static void stream_sent(struct io_op *op, int n)
{
    struct stream *s = container_of(op, struct stream, send);
    ck_assert_int_gt(n, 0);
    s->sent += (size_t)n;
    if (s->sent < STREAM_BYTES)
        io_send(s->loop, op, s->fd[0], s->data + s->sent, STREAM_BYTES - s->sent, stream_sent);
    else
        shutdown(s->fd[0], SHUT_WR);
}

static void stream_received(struct io_op *op, int n)
{
    struct stream *s = container_of(op, struct stream, recv);
    ck_assert_int_ge(n, 0);
    check_bytes(s->buf, n, s->received);
    s->received += (size_t)n;
    if (n == 0)
        loop_stop(s->loop);
    else
        io_recv(s->loop, op, s->fd[1], s->buf, 1 + prng_below(&s->random, sizeof(s->buf)), stream_received);
}

static void stream_over(struct loop *loop, const int fd[2])
{
    struct stream *s = calloc(1, sizeof(*s));
    *s = (struct stream){.loop = loop, .fd = {fd[0], fd[1]}, .data = malloc(STREAM_BYTES), .random = {3}};
    for (size_t i = 0; i < STREAM_BYTES; i++)
        s->data[i] = stream_byte(i);
    SUBMIT(io_recv(loop, &s->recv, s->fd[1], s->buf, sizeof(s->buf), stream_received));
    SUBMIT(io_send(loop, &s->send, s->fd[0], s->data, STREAM_BYTES, stream_sent));
    run_loop(loop);
    ck_assert_uint_eq(s->received, STREAM_BYTES);
    loop_close(loop, fd[0]);
    loop_close(loop, fd[1]);
    free(s->data);
    free(s);
}

/* Connect a TCP pair with small buffers. */
static void tcp_pair(int fd[2])
{
    struct net_address a;
    int listener, small = 131072; /* full often; much less waits for delayed acknowledgements */
    ck_assert_int_eq(net_parse("127.0.0.1:0", 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0, &listener), 0);
    ck_assert_int_eq(net_local(listener, &a), 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    ck_assert_int_eq(connect(fd[0], &a.any, a.n), 0);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    fd[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ck_assert_int_ge(fd[1], 0);
    close(listener);
}

LOOP_TEST(io_streams_through_full_tcp_sockets)
{
    int fd[2];
    tcp_pair(fd);
    stream_over(loop, fd);
}

LOOP_TEST(io_streams_through_full_unix_sockets)
{
    int fd[2];
    ck_assert_int_eq(net_pair(fd), 0);
    stream_over(loop, fd);
}

static void close_other_end(struct loop_job *job);

static struct {
    struct loop_job job;
    int fd;
} other_end;

static void close_other_end(struct loop_job *job)
{
    struct linger now = {.l_onoff = 1};
    setsockopt(other_end.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)); /* reset, not FIN */
    close(other_end.fd);
}

LOOP_TEST(io_tells_of_a_peer_that_reset_and_raises_no_signal)
{
    int fd[2], left = 1;
    char buf[16];
    tcp_pair(fd);
    struct probe r = probe(loop, &left);
    io_recv(loop, &r.op, fd[0], buf, sizeof(buf), probe_done);
    other_end.job.run = close_other_end;
    other_end.fd = fd[1];
    loop_post(loop, &other_end.job);
    run_loop(loop);
    ck_assert_int_eq(r.result, -ECONNRESET);
    /* writing to it now: a loop of its own, the first one has ended */
    struct loop *again;
    enum loop_backend backend = loop_get_backend(loop);
    loop_close(loop, fd[0]);
    tcp_pair(fd);
    close(fd[1]);
    ck_assert_int_eq(loop_new(&(struct loop_options){.backend = backend}, &again), 0);
    ck_assert_int_eq(net_pair(fd), 0);
    close(fd[1]);
    left = 1;
    struct probe s = probe(again, &left);
    io_send(again, &s.op, fd[0], "x", 1, probe_done);
    run_loop(again);
    ck_assert_int_eq(s.result, -EPIPE);
    loop_close(again, fd[0]);
    loop_free(again);
}

LOOP_TEST(io_passes_descriptors)
{
    int fd[2], file[2], left = 2, got[NET_FDS_MAX];
    char buf[16] = "";
    ck_assert_int_eq(net_pair(fd), 0);
    ck_assert_int_eq(pipe(file), 0);
    struct iovec out = {(void *)"two", 3}, in = {buf, sizeof(buf)};
    struct msghdr send = {.msg_iov = &out, .msg_iovlen = 1}, recv = {.msg_iov = &in, .msg_iovlen = 1};
    union net_control send_control, recv_control;
    net_put_fds(&send, &send_control, file, 2);
    net_fd_room(&recv, &recv_control);
    struct probe s = probe(loop, &left), r = probe(loop, &left);
    io_recvmsg(loop, &r.op, fd[1], &recv, 0, probe_done);
    io_sendmsg(loop, &s.op, fd[0], &send, 0, probe_done);
    run_loop(loop);
    ck_assert_int_eq(s.result, 3);
    ck_assert_int_eq(r.result, 3);
    ck_assert_int_eq(net_take_fds(&recv, got, NET_FDS_MAX), 2);
    ck_assert_int_eq(write(got[1], "hi", 2), 2);
    ck_assert_int_eq(read(file[0], buf, sizeof(buf)), 2); /* the same pipe */
    ck_assert(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        close(got[i]);
        close(file[i]);
        loop_close(loop, fd[i]);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

struct file_test {
    struct loop *loop;
    struct io_op op;
    int fd, step;
    char buf[64];
    struct iovec v[2];
};

static int answer(void *arg)
{
    return *(int *)arg + 1;
}

static void file_next(struct io_op *op, int result)
{
    struct file_test *t = container_of(op, struct file_test, op);
    static int forty_one = 41;
    switch (t->step++) {
    case 0: io_write(t->loop, op, t->fd, "0123456789", 10, 4096, file_next); break;
    case 1:
        ck_assert_int_eq(result, 10);
        t->v[0] = (struct iovec){(void *)"ab", 2};
        t->v[1] = (struct iovec){(void *)"cd", 2};
        io_writev(t->loop, op, t->fd, t->v, 2, 4106, file_next);
        break;
    case 2:
        ck_assert_int_eq(result, 4);
        io_fsync(t->loop, op, t->fd, true, file_next);
        break;
    case 3:
        ck_assert_int_eq(result, 0);
        io_read(t->loop, op, t->fd, t->buf, sizeof(t->buf), 4100, file_next);
        break;
    case 4: /* short at the end of the file */
        ck_assert_int_eq(result, 10);
        ck_assert_mem_eq(t->buf, "456789abcd", 10);
        t->v[0] = (struct iovec){t->buf, 3};
        t->v[1] = (struct iovec){t->buf + 32, 3};
        io_readv(t->loop, op, t->fd, t->v, 2, 4096, file_next);
        break;
    case 5:
        ck_assert_int_eq(result, 6);
        ck_assert_mem_eq(t->buf, "012", 3);
        ck_assert_mem_eq(t->buf + 32, "345", 3);
        io_read(t->loop, op, t->fd, t->buf, sizeof(t->buf), 1 << 20, file_next);
        break;
    case 6:
        ck_assert_int_eq(result, 0); /* behind the end */
        io_fallocate(t->loop, op, t->fd, 0, 0, 65536, file_next);
        break;
    case 7:
        ck_assert_int_eq(result, 0);
        io_fsync(t->loop, op, t->fd, false, file_next);
        break;
    case 8:
        ck_assert_int_eq(result, 0);
        io_read(t->loop, op, -1, t->buf, sizeof(t->buf), 0, file_next);
        break;
    case 9:
        ck_assert_int_eq(result, -EBADF);
        io_work(t->loop, op, answer, &forty_one, file_next);
        break;
    case 10:
        ck_assert_int_eq(result, 42);
        loop_stop(t->loop);
        break;
    default: ck_abort();
    }
}

LOOP_TEST(io_reads_and_writes_files)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/file", unit_tempdir());
    struct file_test t = {.loop = loop, .fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    ck_assert_int_ge(t.fd, 0);
    file_next(&t.op, 0);
    run_loop(loop);
    ck_assert_int_eq(t.step, 11);
    struct stat st;
    ck_assert_int_eq(fstat(t.fd, &st), 0);
    ck_assert_int_eq(st.st_size, 65536);
    close(t.fd);
}

struct file_sender {
    struct loop *loop;
    struct io_op send, recv;
    int fd[2], file;
    uint64_t at, size, received;
    uint8_t buf[65536];
};

static void file_sent(struct io_op *op, int n)
{
    struct file_sender *s = container_of(op, struct file_sender, send);
    ck_assert_int_ge(n, 0);
    s->at += (uint64_t)n;
    if (n == 0) {
        ck_assert_uint_eq(s->at, s->size);
        shutdown(s->fd[0], SHUT_WR);
    } else {
        io_sendfile(s->loop, op, s->fd[0], s->file, s->at, 5u << 20, file_sent);
    }
}

static void file_received(struct io_op *op, int n)
{
    struct file_sender *s = container_of(op, struct file_sender, recv);
    ck_assert_int_ge(n, 0);
    check_bytes(s->buf, n, s->received);
    s->received += (uint64_t)n;
    if (n == 0)
        loop_stop(s->loop);
    else
        io_recv(s->loop, op, s->fd[1], s->buf, sizeof(s->buf), file_received);
}

static void send_a_file(struct loop *loop, bool cached)
{
    struct file_sender *s = calloc(1, sizeof(*s));
    *s = (struct file_sender){.loop = loop, .size = STREAM_BYTES + 123};
    char path[256];
    snprintf(path, sizeof(path), "%s/file", unit_tempdir());
    s->file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (uint64_t at = 0; at < s->size; at += sizeof(s->buf)) {
        for (size_t i = 0; i < sizeof(s->buf); i++)
            s->buf[i] = stream_byte(at + i);
        size_t n = min(sizeof(s->buf), s->size - at);
        ck_assert_int_eq(pwrite(s->file, s->buf, n, (off_t)at), (ssize_t)n);
    }
    if (!cached) {
        fsync(s->file);
        posix_fadvise(s->file, 0, 0, POSIX_FADV_DONTNEED);
    }
    tcp_pair(s->fd);
    io_recv(loop, &s->recv, s->fd[1], s->buf, sizeof(s->buf), file_received);
    SUBMIT(io_sendfile(loop, &s->send, s->fd[0], s->file, 0, 5u << 20, file_sent));
    run_loop(loop);
    ck_assert_uint_eq(s->received, s->size);
    struct loop_stats stats;
    loop_get_stats(loop, &stats);
    if (!cached)
        ck_assert_uint_gt(stats.works, 0); /* the disk was waited for elsewhere */
    loop_close(loop, s->fd[0]);
    loop_close(loop, s->fd[1]);
    close(s->file);
    free(s);
}

LOOP_TEST(io_sends_a_cached_file)
{
    send_a_file(loop, true);
}

LOOP_TEST(io_sends_a_file_that_is_not_cached)
{
    send_a_file(loop, false);
}

/* ---- cancelling and stopping ------------------------------------------------------------------------------------ */

static void cancel_all(struct loop_job *job);

static struct {
    struct loop_job job;
    struct probe *p;
    int n;
} cancelling;

static void cancel_all(struct loop_job *job)
{
    for (int i = 0; i < cancelling.n; i++) {
        io_cancel(&cancelling.p[i].op);
        io_cancel(&cancelling.p[i].op); /* twice is once */
        ck_assert_int_eq(cancelling.p[i].runs, 0);
    }
}

/* One of each op that waits, in flight when fn(loop) is called. Returns after the loop ended. */
static void with_ops_in_flight(struct loop *loop, struct probe p[8], int *left, void (*begin)(struct loop *))
{
    int in[2], full[2], listener, pipe_fd[2];
    char buf[16], big[65536] = "";
    struct net_address a;
    ck_assert_int_eq(net_pair(in), 0);
    ck_assert_int_eq(net_pair(full), 0);
    ck_assert_int_eq(pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK), 0);
    ck_assert_int_eq(net_parse("127.0.0.1:0", 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0, &listener), 0);
    while (write(full[0], big, sizeof(big)) > 0)
        ;
    for (int i = 0; i < 8; i++)
        p[i] = probe(loop, left);
    struct iovec v = {buf, sizeof(buf)}, w = {(void *)"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    io_recv(loop, &p[0].op, in[0], buf, sizeof(buf), probe_done);
    io_recvmsg(loop, &p[1].op, in[1], &m, 0, probe_done);
    io_send(loop, &p[2].op, full[0], "x", 1, probe_done);
    io_accept(loop, &p[3].op, listener, probe_done);
    io_poll(loop, &p[4].op, pipe_fd[0], POLLIN, probe_done);
    io_sendv(loop, &p[5].op, full[0], &w, 1, probe_done);
    io_poll(loop, &p[6].op, in[0], POLLIN, probe_done);
    io_poll(loop, &p[7].op, full[0], POLLOUT, probe_done);
    begin(loop);
    run_loop(loop);
    for (int i = 0; i < 2; i++) {
        loop_close(loop, in[i]);
        loop_close(loop, full[i]);
        loop_close(loop, pipe_fd[i]);
    }
    loop_close(loop, listener);
}

static void cancel_before_the_loop_runs(struct loop *loop)
{
    cancel_all(NULL);
}

static void cancel_by_job(struct loop *loop)
{
    cancelling.job.run = cancel_all;
    loop_post(loop, &cancelling.job);
}

static struct loop_timer later;

static void cancel_later(struct loop_timer *timer)
{
    cancel_all(NULL);
}

static void cancel_by_timer(struct loop *loop)
{
    loop_timer_init(&later, cancel_later);
    loop_timer_start(loop, &later, clock_ns() + 10 * NS_PER_MS); /* the kernel has them by then */
}

static void check_cancelled(struct loop *loop, void (*begin)(struct loop *))
{
    struct probe p[8];
    int left = 8;
    cancelling.p = p;
    cancelling.n = 8;
    with_ops_in_flight(loop, p, &left, begin);
    for (int i = 0; i < 8; i++) {
        ck_assert_msg(p[i].result == -ECANCELED, "op %d: %d", i, p[i].result);
        ck_assert_int_eq(p[i].runs, 1);
        ck_assert(!io_op_busy(&p[i].op));
        io_cancel(&p[i].op); /* nothing happens */
    }
}

LOOP_TEST(io_cancel_ends_every_waiting_op_once_before_the_loop_runs)
{
    check_cancelled(loop, cancel_before_the_loop_runs);
}

LOOP_TEST(io_cancel_ends_every_waiting_op_once_in_the_first_turn)
{
    check_cancelled(loop, cancel_by_job);
}

LOOP_TEST(io_cancel_ends_every_waiting_op_once_when_the_kernel_has_it)
{
    check_cancelled(loop, cancel_by_timer);
}

static void stop_later(struct loop_timer *timer)
{
    loop_stop(cancelling.p[0].loop);
}

static void stop_by_timer(struct loop *loop)
{
    loop_timer_init(&later, stop_later);
    loop_timer_start(loop, &later, clock_ns() + 10 * NS_PER_MS);
}

LOOP_TEST(loop_stop_cancels_what_is_in_flight_and_refuses_what_comes)
{
    struct probe p[8];
    cancelling.p = p;
    with_ops_in_flight(loop, p, NULL, stop_by_timer);
    for (int i = 0; i < 8; i++) {
        ck_assert_msg(p[i].result == -ECANCELED, "op %d: %d", i, p[i].result);
        ck_assert_int_eq(p[i].runs, 1);
    }
}

struct resubmit {
    struct io_op op;
    struct loop *loop;
    int fd[2], runs;
    char buf[8];
};

static void resubmit_done(struct io_op *op, int result)
{
    struct resubmit *s = container_of(op, struct resubmit, op);
    if (s->runs++ == 0) {
        ck_assert_int_eq(result, -ECANCELED);
        io_recv(s->loop, op, s->fd[0], s->buf, sizeof(s->buf), resubmit_done);
    } else {
        ck_assert_int_eq(result, -CV_STOPPING);
    }
}

LOOP_TEST(loop_stop_refuses_an_op_submitted_again)
{
    struct resubmit s = {.loop = loop};
    ck_assert_int_eq(net_pair(s.fd), 0);
    io_recv(loop, &s.op, s.fd[0], s.buf, sizeof(s.buf), resubmit_done);
    loop_stop(loop);
    run_loop(loop);
    ck_assert_int_eq(s.runs, 2);
    loop_close(loop, s.fd[0]);
    loop_close(loop, s.fd[1]);
}

static atomic_int working; /* 0; 1: some work has begun; 2: the loop was told to stop */

static int work_until_stopped(void *arg)
{
    int none = 0;
    atomic_compare_exchange_strong(&working, &none, 1);
    while (atomic_load(&working) != 2)
        usleep(1000);
    usleep(20000);
    return 7;
}

static void stop_when_working(struct loop_timer *timer)
{
    if (atomic_load(&working)) {
        loop_stop(cancelling.p[0].loop);
        atomic_store(&working, 2);
    } else {
        loop_timer_start(cancelling.p[0].loop, timer, clock_ns() + NS_PER_MS);
    }
}

LOOP_TEST(loop_stop_waits_for_work_that_has_begun)
{
    enum { N = 16 };
    struct probe p[N];
    int done = 0, cancelled = 0;
    working = 0;
    for (int i = 0; i < N; i++) {
        p[i] = probe(loop, NULL);
        io_work(loop, &p[i].op, work_until_stopped, NULL, probe_done);
    }
    struct loop_timer t;
    cancelling.p = p;
    loop_timer_init(&t, stop_when_working);
    loop_timer_start(loop, &t, clock_ns() + NS_PER_MS);
    run_loop(loop);
    for (int i = 0; i < N; i++) {
        ck_assert_int_eq(p[i].runs, 1);
        done += p[i].result == 7;
        cancelled += p[i].result == -ECANCELED;
    }
    ck_assert_int_eq(done + cancelled, N);
    ck_assert_int_gt(done, 0);
    ck_assert_int_gt(cancelled, 0);
}

/* More ops in a turn than the queue has room for, then cancelled the same way. */
LOOP_TEST(io_takes_more_ops_than_the_queue_holds)
{
    enum { N = 3000 };
    enum loop_backend backend = loop_get_backend(loop);
    struct loop *small;
    ck_assert_int_eq(loop_new(&(struct loop_options){.backend = backend, .queue_entries = 8}, &small), 0);
    int fd[2], left = N;
    ck_assert_int_eq(net_pair(fd), 0);
    struct probe *p = calloc(N, sizeof(*p));
    for (int i = 0; i < N; i++) {
        p[i] = probe(small, &left);
        io_poll(small, &p[i].op, fd[0], POLLIN, probe_done);
    }
    cancelling.p = p;
    cancelling.n = N;
    cancel_by_timer(small);
    run_loop(small);
    for (int i = 0; i < N; i++)
        ck_assert(p[i].result == -ECANCELED && p[i].runs == 1);
    free(p);
    loop_close(small, fd[0]);
    loop_close(small, fd[1]);
    loop_free(small);
}

/* ---- watches ---------------------------------------------------------------------------------------------------- */

static struct {
    struct loop *loop;
    struct io_watch watch;
    int fd[2], reads, writes, stops;
} watching;

static void watch_stopped(struct io_watch *watch)
{
    watching.stops++;
    loop_stop(watching.loop);
}

static void watch_ready(struct io_watch *watch, uint32_t events)
{
    char c;
    ck_assert_int_eq(watching.stops, 0);
    if (events & POLLOUT) {
        watching.writes++;
        ck_assert_int_eq(write(watching.fd[0], "x", 1), 1);
        if (watching.writes == 3)
            io_watch_change(watch, POLLIN);
    } else if (events & POLLIN) { /* level-triggered: one byte at a time, told again */
        ck_assert_int_eq(watching.writes, 3);
        ck_assert_int_eq(read(watching.fd[0], &c, 1), 1);
        if (++watching.reads == 4) {
            io_watch_stop(watch, watch_stopped);
            close(watching.fd[0]); /* its owner may close it at once */
            watching.fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        }
    }
}

static void write_to_watched(struct loop_timer *timer)
{
    ck_assert_int_eq(write(watching.fd[1], "abcd", 4), 4);
}

LOOP_TEST(io_watch_tells_readiness_until_stopped)
{
    memset(&watching, 0, sizeof(watching));
    watching.loop = loop;
    ck_assert_int_eq(net_pair(watching.fd), 0);
    io_watch_start(loop, &watching.watch, watching.fd[0], POLLOUT, watch_ready);
    struct loop_timer t;
    loop_timer_init(&t, write_to_watched);
    loop_timer_start(loop, &t, clock_ns() + 20 * NS_PER_MS);
    run_loop(loop);
    ck_assert_int_eq(watching.reads, 4);
    ck_assert_int_eq(watching.stops, 1);
    close(watching.fd[0]);
    close(watching.fd[1]);
}

static void stop_the_watch(struct loop_timer *timer)
{
    io_watch_stop(&watching.watch, watch_stopped);
    close(watching.fd[0]);
}

LOOP_TEST(io_watch_stops_while_it_waits)
{
    memset(&watching, 0, sizeof(watching));
    watching.loop = loop;
    ck_assert_int_eq(net_pair(watching.fd), 0);
    io_watch_start(loop, &watching.watch, watching.fd[0], POLLIN, watch_ready);
    struct loop_timer t;
    loop_timer_init(&t, stop_the_watch);
    loop_timer_start(loop, &t, clock_ns() + 10 * NS_PER_MS);
    run_loop(loop);
    ck_assert_int_eq(watching.stops, 1);
    close(watching.fd[1]);
}
