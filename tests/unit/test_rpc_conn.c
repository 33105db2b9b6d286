/* SPDX-License-Identifier: Apache-2.0 */
/* Two connections on the ends of one socket pair, on one loop. Frames carry their number as the request id. */
#include "tests/unit/loop_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "io/net.h"
#include "rpc/rpc_buffer.h"
#include "rpc/rpc_conn.h"

struct end {
    struct rpc_conn *conn;
    struct loop *loop;
    const char *name;
    uint64_t frames, bytes; /* received */
    uint64_t next_id;       /* of the frame expected next */
    uint64_t stop_at;       /* close both ends after so many frames; 0: never */
    struct end *other;
    uint8_t *kept[8]; /* buffers taken */
    const uint8_t *kept_data[8];
    unsigned kept_count;
    bool keeps;
    int fds[8];
    unsigned fd_count;
    bool takes_fds;
    uint64_t pause_after; /* frames; 0: never */
    int reason, closed, drained;
};

static uint8_t byte_of(uint64_t id, size_t at)
{
    return (uint8_t)(id * 31 + at * 7 + at / 251);
}

static void check_data(const struct rpc_frame *f, const uint8_t *data)
{
    for (uint32_t i = 0; i < f->header.data_len; i++)
        if (data[i] != byte_of(f->header.request_id, i))
            ck_abort_msg("frame %lu: wrong byte at %u", (unsigned long)f->header.request_id, i);
}

static void on_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct end *e = user;
    ck_assert_ptr_eq(e->conn, c);
    if (f->header.request_id != e->next_id)
        ck_abort_msg("%s: frame %lu, expected %lu", e->name, (unsigned long)f->header.request_id,
                     (unsigned long)e->next_id);
    e->next_id++;
    e->frames++;
    e->bytes += f->header.data_len;
    check_data(f, f->data);
    if (e->keeps && e->kept_count < 8 && (e->kept[e->kept_count] = rpc_conn_take_buffer(c)))
        e->kept_data[e->kept_count++] = f->data;
    if (f->header.flags & FRAME_FDS && e->takes_fds)
        e->fds[e->fd_count++] = take_fd(f->fds[0]);
    if (e->pause_after && e->frames == e->pause_after)
        rpc_conn_pause(c);
    if (e->stop_at && e->frames == e->stop_at) {
        rpc_conn_close(c, -CV_STOPPING);
        rpc_conn_close(c, -ENOENT); /* only the first counts */
    }
}

static void on_closed(struct rpc_conn *c, int reason, void *user)
{
    struct end *e = user;
    e->conn = NULL;
    e->reason = reason;
    e->closed++;
    if (e->other->closed)
        loop_stop(e->loop);
}

static void on_drained(struct rpc_conn *c, void *user)
{
    ((struct end *)user)->drained++;
}

static const struct rpc_conn_ops ops = {.frame = on_frame, .closed = on_closed, .drained = on_drained};

static struct end ends[2];

static void connect_ends(struct loop *loop, const struct rpc_conn_limits *a, const struct rpc_conn_limits *b)
{
    int fd[2];
    ck_assert_int_eq(net_pair(fd), 0);
    for (int i = 0; i < 2; i++) {
        ends[i] = (struct end){.loop = loop, .other = &ends[!i], .name = i ? "second" : "first"};
        ck_assert_int_eq(rpc_conn_new(loop, fd[i], &ops, &ends[i], i ? b : a, &ends[i].conn), 0);
    }
}

/* Send a frame with n bytes of data, copied. */
static int send_data(struct end *e, uint64_t id, size_t n)
{
    uint8_t *data = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        data[i] = byte_of(id, i);
    struct frame_header h = {.type = MSG_ping, .request_id = id};
    struct msg_ping m = {.sent_ns = id};
    struct iovec v = {data, n};
    int r = rpc_conn_send_data(e->conn, &h, msg_ping_desc(), &m, &v, 1);
    free(data);
    return r;
}

static void check_ended(void)
{
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(ends[i].closed, 1);
        ck_assert_ptr_null(ends[i].conn);
    }
    ck_assert_uint_eq(rpc_buffer_used(), 0);
}

LOOP_TEST(rpc_conn_carries_frames_of_all_sizes_in_order)
{
    static const size_t sizes[] = {0, 1, 100, 65000, 65488, 65489, 70000, 1, 300000, 300000, 3, 4u << 20, 65536, 7};
    connect_ends(loop, NULL, NULL);
    for (uint64_t i = 0; i < 3 * array_size(sizes); i++)
        for (int e = 0; e < 2; e++)
            ck_assert_int_eq(send_data(&ends[e], i, sizes[i % array_size(sizes)]), 0);
    ends[0].stop_at = ends[1].stop_at = 3 * array_size(sizes);
    run_loop(loop);
    /* The first to have all of them closes; the other had what was sent before. */
    ck_assert(ends[0].frames == ends[0].stop_at || ends[1].frames == ends[1].stop_at);
    for (int i = 0; i < 2; i++)
        ck_assert(ends[i].reason == -CV_STOPPING || ends[i].reason == -CV_CLOSED || ends[i].reason == -ECONNRESET);
    check_ended();
}

LOOP_TEST(rpc_conn_lets_frames_keep_their_buffer)
{
    connect_ends(loop, NULL, NULL);
    ends[1].keeps = true;
    ends[1].stop_at = 6;
    for (uint64_t i = 0; i < 6; i++)
        ck_assert_int_eq(send_data(&ends[0], i, i % 2 ? 200000 : 1000), 0);
    run_loop(loop);
    ck_assert_uint_eq(ends[1].kept_count, 3); /* small ones have none of their own */
    for (unsigned k = 0; k < 3; k++) {
        struct rpc_frame f = {.header = {.request_id = 2 * k + 1, .data_len = 200000}};
        check_data(&f, ends[1].kept_data[k]);
        rpc_buffer_free(ends[1].kept[k]);
    }
    check_ended();
}

/* The first end is congested by a peer that does not read, while its receive is in flight and frames come in. */
static struct loop_timer resume_timer;

static void resume_second(struct loop_timer *timer)
{
    ck_assert_uint_gt(rpc_conn_queued(ends[0].conn), 100000);
    ck_assert(rpc_conn_congested(ends[0].conn));
    ck_assert_uint_lt(ends[0].frames, 300); /* held back as well */
    ends[1].pause_after = 0;
    rpc_conn_resume(ends[1].conn);
}

static void send_much(struct loop_timer *timer)
{
    for (uint64_t i = 0; i < 300; i++) {
        ck_assert_int_eq(send_data(&ends[0], i + 1, 10000), 0);
        ck_assert_int_eq(send_data(&ends[1], i, 1000), 0);
    }
    loop_timer_init(&resume_timer, resume_second);
    loop_timer_start(ends[0].loop, &resume_timer, clock_ns() + 50 * NS_PER_MS);
}

LOOP_TEST(rpc_conn_holds_a_peer_that_does_not_read_and_goes_on_when_it_does)
{
    struct rpc_conn_limits small = {.send_high = 65536, .hold_when_congested = true};
    connect_ends(loop, &small, NULL);
    ck_assert_int_eq(send_data(&ends[0], 0, 10), 0);
    ends[1].pause_after = 1;
    struct loop_timer t;
    loop_timer_init(&t, send_much);
    loop_timer_start(loop, &t, clock_ns() + 10 * NS_PER_MS); /* receives are in flight by then */
    ends[1].stop_at = 301;
    ends[0].stop_at = 300;
    run_loop(loop);
    ck_assert(ends[0].frames == 300 || ends[1].frames == 301);
    ck_assert_int_ge(ends[0].drained, 1);
    check_ended();
}

LOOP_TEST(rpc_conn_is_closed_when_its_queue_is_over_the_limit)
{
    log_set_level(LOG_LEVEL_ERROR);
    struct rpc_conn_limits small = {.send_max = 100000};
    connect_ends(loop, &small, NULL);
    int r = 0, sent = 0;
    while ((r = send_data(&ends[0], (uint64_t)sent, 10000)) == 0)
        sent++;
    ck_assert_int_eq(r, -CV_BUSY);
    ck_assert_int_ge(sent, 9);
    ck_assert_int_eq(send_data(&ends[0], 0, 1), -CV_CLOSED);
    run_loop(loop);
    ck_assert_int_eq(ends[0].reason, -CV_BUSY);
    check_ended();
}

static uint8_t *give_buffer;

static void give_buffer_back(struct loop_timer *timer)
{
    ck_assert_uint_eq(ends[1].frames, 0);
    rpc_buffer_free(give_buffer);
}

LOOP_TEST(rpc_conn_waits_for_a_large_buffer_when_the_limit_is_reached)
{
    connect_ends(loop, NULL, NULL);
    rpc_buffer_set_limit(300000);
    uint8_t *taken = rpc_buffer_new(200000);
    ck_assert_ptr_nonnull(taken);
    ck_assert_ptr_null(rpc_buffer_new(200000));
    ends[1].stop_at = 3;
    for (uint64_t i = 0; i < 3; i++)
        ck_assert_int_eq(send_data(&ends[0], i, 200000), 0);
    /* Nothing arrives until the buffer is given back. */
    struct loop_timer t;
    loop_timer_init(&t, give_buffer_back);
    give_buffer = taken;
    loop_timer_start(loop, &t, clock_ns() + 30 * NS_PER_MS);
    run_loop(loop);
    ck_assert_uint_eq(ends[1].frames, 3);
    check_ended();
}

/* ---- lent memory, files ------------------------------------------------------------------------------------------ */

struct counted_release {
    struct rpc_release release;
    int runs;
};

static void count_release(struct rpc_release *release)
{
    container_of(release, struct counted_release, release)->runs++;
}

LOOP_TEST(rpc_conn_releases_what_was_lent_once)
{
    connect_ends(loop, NULL, NULL);
    static uint8_t data[8][50000];
    struct counted_release lent[9] = {0};
    struct frame_header h = {.type = MSG_ping};
    for (uint64_t i = 0; i < 8; i++) {
        lent[i].release.run = count_release;
        for (size_t j = 0; j < sizeof(data[i]); j++)
            data[i][j] = byte_of(i, j);
        h.request_id = i;
        uint32_t n = i % 3 == 2 ? 0 : sizeof(data[i]);
        ck_assert_int_eq(rpc_conn_send_lent(ends[0].conn, &h, NULL, NULL, data[i], n, &lent[i].release), 0);
        ck_assert_int_eq(lent[i].runs, 0); /* not from inside the call */
    }
    lent[8].release.run = count_release;
    ck_assert_int_eq(rpc_conn_send_lent(ends[0].conn, &h, NULL, NULL, data, FRAME_DATA_MAX + 1, &lent[8].release),
                     -CV_FRAME_TOO_BIG);
    ends[1].stop_at = 5;
    run_loop(loop);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(lent[i].runs, 1); /* sent or not */
    ck_assert_int_eq(lent[8].runs, 0);
    check_ended();
}

LOOP_TEST(rpc_conn_finish_sends_what_is_queued)
{
    connect_ends(loop, NULL, NULL);
    for (uint64_t i = 0; i < 50; i++)
        ck_assert_int_eq(send_data(&ends[0], i, 100000), 0);
    rpc_conn_finish(ends[0].conn, -CV_WRONG_CLUSTER);
    ck_assert(!rpc_conn_is_open(ends[0].conn));
    ck_assert_int_eq(send_data(&ends[0], 50, 1), -CV_CLOSED);
    run_loop(loop);
    ck_assert_uint_eq(ends[1].frames, 50);
    ck_assert_int_eq(ends[0].reason, -CV_WRONG_CLUSTER);
    ck_assert_int_eq(ends[1].reason, -CV_CLOSED);
    check_ended();
}

/* ---- descriptors --------------------------------------------------------------------------------------------------- */

static int open_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

LOOP_TEST(rpc_conn_passes_descriptors_with_their_frames)
{
    int before = open_fds(), pipes[4][2];
    struct rpc_conn_limits takes = {.receive_fds = true};
    connect_ends(loop, NULL, &takes);
    struct counted_release lent[4] = {0};
    uint64_t id = 0;
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pipe2(pipes[i], O_CLOEXEC), 0);
        ck_assert_int_eq(send_data(&ends[0], id++, i * 1000), 0);
        lent[i].release.run = count_release;
        struct frame_header h = {.type = MSG_ping, .request_id = id++};
        ck_assert_int_eq(rpc_conn_send_fds(ends[0].conn, &h, NULL, NULL, pipes[i], 2, &lent[i].release), 0);
        ck_assert_int_eq(send_data(&ends[0], id++, i * 1000), 0);
    }
    ends[1].takes_fds = true;
    ends[1].stop_at = id;
    run_loop(loop);
    ck_assert_uint_eq(ends[1].fd_count, 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(lent[i].runs, 1);
        char c = 0;
        ck_assert_int_eq(write(pipes[i][1], &(char){(char)('a' + i)}, 1), 1);
        ck_assert_int_eq(read(ends[1].fds[i], &c, 1), 1); /* the same pipe, the first of the two */
        ck_assert_int_eq(c, 'a' + i);
        close(ends[1].fds[i]);
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
    ck_assert_int_le(open_fds(), before); /* the second ones, which nobody took, are closed */
    check_ended();
}

LOOP_TEST(rpc_conn_refuses_a_frame_whose_descriptors_are_missing)
{
    log_set_level(LOG_LEVEL_ERROR);
    struct rpc_conn_limits takes = {.receive_fds = true};
    connect_ends(loop, NULL, &takes);
    struct frame_header h = {.type = MSG_ping, .flags = FRAME_FDS};
    ck_assert_int_eq(rpc_conn_send(ends[0].conn, &h, NULL, NULL), 0);
    run_loop(loop);
    ck_assert_int_eq(ends[1].reason, -CV_BAD_MESSAGE);
    check_ended();
}
