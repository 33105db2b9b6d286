/* SPDX-License-Identifier: Apache-2.0 */
/* Frames as somebody sends and reads them who is no journal: a plain socket, which may say anything. */
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/hash.h"
#include "tests/unit/unit.h"
#include "wire/frame.h"

enum { ENDS_MS = 20000, STAYS_MS = 50 };

static uint32_t raw_damage; /* to the checksum of the data that is sent */

static inline void raw_send(int fd, uint16_t type, const void *body, size_t n, const void *data, uint32_t data_n)
{
    uint8_t head[FRAME_HEADER_SIZE];
    struct frame_header h = {.type = type,
                             .flags = FRAME_ONE_WAY,
                             .body_len = (uint32_t)n,
                             .data_len = data_n,
                             .incarnation = 1,
                             .body_crc = crc32c(0, body, n),
                             .aux = crc32c(0, data, data_n) ^ raw_damage};
    frame_encode(&h, head);
    /* In one piece: who is refused by the header alone may be gone before the rest. */
    struct iovec parts[] = {{head, sizeof(head)}, {(void *)(uintptr_t)body, n}, {(void *)(uintptr_t)data, data_n}};
    const struct msghdr m = {.msg_iov = parts, .msg_iovlen = 3};
    ck_assert_int_eq(sendmsg(fd, &m, MSG_NOSIGNAL), (ssize_t)(sizeof(head) + n + data_n));
}

/* More of what the other end says: at least a byte, 0: it ended, -1: nothing within timeout_ms. */
static inline ssize_t raw_receive(int fd, uint8_t *out, size_t room, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) == 0)
        return -1;
    ssize_t n = recv(fd, out, room, 0);
    return n < 0 ? 0 : n;
}

/* The next frame whole, body and data in out. Returns false when there is none: the connection ended, or timeout_ms. */
static inline bool raw_frame(int fd, struct frame_header *h, uint8_t *out, size_t room, int timeout_ms)
{
    uint8_t head[FRAME_HEADER_SIZE];
    size_t got = 0, all = FRAME_HEADER_SIZE;
    while (got < all) {
        uint8_t *to = got < FRAME_HEADER_SIZE ? head + got : out + (got - FRAME_HEADER_SIZE);
        size_t part = got < FRAME_HEADER_SIZE ? FRAME_HEADER_SIZE - got : all - got;
        ssize_t n = raw_receive(fd, to, part, got ? ENDS_MS : timeout_ms);
        if (n <= 0)
            return false;
        got += (size_t)n;
        if (got == FRAME_HEADER_SIZE) {
            ck_assert_int_eq(frame_decode(head, h), 0);
            all += h->body_len + h->data_len;
            ck_assert_uint_le(all - FRAME_HEADER_SIZE, room);
        }
    }
    return true;
}

/* Nothing but its end comes any more. */
static inline void raw_ends(int fd)
{
    uint8_t in[4096];
    ssize_t n;
    while ((n = raw_receive(fd, in, sizeof(in), ENDS_MS)) > 0)
        ;
    ck_assert_int_eq(n, 0);
    close(fd);
}
