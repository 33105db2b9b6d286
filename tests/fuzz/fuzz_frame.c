/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes, and any well-formed frames with any bodies, into the answering end: it serves, refuses or hangs up, frees
 * everything and keeps its books. Checksums would stop random bytes at the door, so the input is a script; each step:
 *
 *      0 n bytes...                                              n bytes as they are
 *      1                                                         a HELLO that is accepted
 *      2 type:2 flags id aux body_n:2 data_n:2 body... data...   a frame with its checksums
 *      3 type:2 id                                               a message of that type with every field zero
 */
#include <assert.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "io/net.h"
#include "rpc/rpc_buffer.h"
#include "rpc/rpc_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HELD_MAX 4

static struct {
    struct loop *loop;
    struct rpc_server *server;
    struct rpc_request *held[HELD_MAX];
    unsigned held_count;
} rig;

/* Decode whatever it is, print it, and answer, some only when the peer has gone. */
static void on_request(struct rpc_request *q, void *user)
{
    const struct wire_desc *desc = message_desc(q->header.type);
    assert(q->header.type < 0x8000 && q->header.flags == 0);
    int r = -CV_UNKNOWN_MESSAGE;
    _Alignas(8) uint8_t record[4096];
    if (desc) {
        assert(desc->size <= sizeof(record));
        r = wire_decode(desc, q->body, q->header.body_len, record);
        struct buf text = {0};
        assert(r < 0 || wire_print(desc, record, &text) == 0);
        buf_fini(&text);
    }
    if (q->header.request_id % 8 == 7 && rig.held_count < HELD_MAX) {
        rig.held[rig.held_count++] = q;
        return;
    }
    struct iovec echo = {(void *)(uintptr_t)q->data, q->header.data_len};
    rpc_answer_data(q, r, 1, r == 0 ? desc : NULL, record, &echo, 1);
}

static void on_one_way(struct rpc_peer *p, const struct rpc_frame *f, void *user)
{
    assert(crc32c(0, f->body, f->header.body_len) == f->header.body_crc);
}

static void on_stopped(void *arg)
{
    loop_stop(rig.loop);
}

/* When everything was read the server meets the end of the stream; the grace period only bounds a hang. */
static void stop_when_gone(struct loop_timer *timer)
{
    if (rpc_server_connections(rig.server) > 0) {
        loop_timer_start(rig.loop, timer, loop_now(rig.loop));
        return;
    }
    while (rig.held_count)
        rpc_answer(rig.held[--rig.held_count], 0, 0, NULL, NULL);
    rpc_server_stop(rig.server, 1000, on_stopped, NULL);
}

/* ---- the script ---------------------------------------------------------------------------------------------------- */

static uint8_t out[100000]; /* less than a socket takes at once */
static size_t out_n;

static void put(const void *p, size_t n)
{
    n = min(n, sizeof(out) - out_n);
    if (n)
        memcpy(out + out_n, p, n);
    out_n += n;
}

static void put_frame(struct frame_header h, const void *body, const void *bulk)
{
    uint8_t raw[FRAME_HEADER_SIZE];
    h.body_crc = crc32c(0, body, h.body_len);
    frame_encode(&h, raw);
    put(raw, sizeof(raw));
    put(body, h.body_len);
    put(bulk, h.data_len);
}

static void put_message(const struct wire_desc *desc, const void *record, uint64_t id)
{
    struct buf body = {0};
    int r = wire_encode(desc, record, &body);
    assert(r == 0);
    put_frame((struct frame_header){.type = desc->type, .request_id = id, .body_len = (uint32_t)body.n}, body.p, NULL);
    buf_fini(&body);
}

/* One step; returns what it used of the input, 0 at the end. */
static size_t step(const uint8_t *p, size_t n)
{
    if (n >= 2 && p[0] % 4 == 0) {
        size_t raw = min((size_t)p[1], n - 2);
        put(p + 2, raw);
        return 2 + raw;
    }
    if (n >= 1 && p[0] % 4 == 1) {
        struct msg_hello hello;
        rpc_hello_fill(&(struct rpc_self){.role = RPC_CLIENT, .program = "fuzz"}, &hello);
        put_message(msg_hello_desc(), &hello, 1);
        return 1;
    }
    if (n >= 10 && p[0] % 4 == 2) {
        struct frame_header h = {.type = get_le16(p + 1), .flags = p[3] & 15, .request_id = p[4], .aux = p[5]};
        size_t left = n - 10;
        h.body_len = (uint32_t)min((size_t)get_le16(p + 6), left);
        h.data_len = (uint32_t)min((size_t)get_le16(p + 8), left - h.body_len);
        put_frame(h, p + 10, p + 10 + h.body_len);
        return 10 + h.body_len + h.data_len;
    }
    if (n >= 4 && p[0] % 4 == 3) {
        static const uint64_t zeros[512];
        const struct wire_desc *desc = message_desc(get_le16(p + 1));
        if (desc)
            put_message(desc, zeros, p[3]);
        return 4;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_set_level(LOG_LEVEL_ERROR);
    int r = loop_new(&(struct loop_options){.backend = LOOP_EPOLL}, &rig.loop);
    assert(r == 0);
    struct rpc_server_options options = {
        .self = {.role = RPC_MASTER, .program = "fuzz"}, .request = on_request, .one_way = on_one_way};
    r = rpc_server_new(rig.loop, &options, &rig.server);
    assert(r == 0);
    int fd[2];
    r = net_pair(fd);
    assert(r == 0);
    rpc_server_adopt(rig.server, fd[0]);

    out_n = 0;
    for (size_t at = 0, used; at < size && (used = step(data + at, size - at)); at += used)
        ;
    ssize_t n = write(fd[1], out, out_n);
    assert(n == (ssize_t)out_n);
    shutdown(fd[1], SHUT_WR);
    struct loop_timer timer;
    loop_timer_init(&timer, stop_when_gone);
    loop_timer_start(rig.loop, &timer, 0);
    r = loop_run(rig.loop);
    assert(r == 0);
    close(fd[1]);
    rpc_server_free(rig.server);
    loop_free(rig.loop);
    assert(rpc_buffer_used() == 0);
    return 0;
}
