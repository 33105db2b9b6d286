/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A master's end of the link to the journal, as plain blocking calls: for tests, the proposer of the kill loops and the
 * benchmark. Nothing here aborts; who calls decides.
 */
#pragma once

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "raft/raft.h"
#include "wire/frame.h"
#include "wire/link.h"
#include "wire/message.h"

struct link_client {
    int fd;
    uint8_t *in; /* received: in[taken..filled) */
    size_t room, filled, taken;
    struct buf body;

    /* What the journal said, kept by link_client_take(). */
    struct msg_link_welcome welcome;
    struct msg_link_role role;
    uint8_t disk;                /* enum link_disk_flag */
    uint64_t durable, committed; /* told: own entries and others' */
    uint64_t credit_bytes;
    uint32_t credit_entries;
    uint64_t rejected_from; /* 0: none */
    uint32_t rejected_error;
};

/* A frame; body and data are valid until the next receive. */
struct link_frame {
    struct frame_header header;
    const uint8_t *body, *data;
};

static inline int link_client_connect(struct link_client *c, const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *c = (struct link_client){.fd = -1};
    if (strlen(socket_path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, socket_path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int r = -errno;
        close(c->fd);
        c->fd = -1;
        return r;
    }
    c->room = 1 << 20;
    c->in = malloc(c->room);
    return 0;
}

static inline void link_client_close(struct link_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->in);
    buf_fini(&c->body);
    *c = (struct link_client){.fd = -1};
}

/* Send one message with data. */
static inline int link_client_send(struct link_client *c, uint16_t type, const void *message, const void *data,
                                   uint32_t data_n)
{
    uint8_t head[FRAME_HEADER_SIZE];
    c->body.n = 0;
    int r = wire_encode(message_desc(type), message, &c->body);
    if (r < 0)
        return r;
    struct frame_header h = {.type = type, .flags = FRAME_ONE_WAY, .body_len = (uint32_t)c->body.n, .data_len = data_n};
    h.body_crc = crc32c(0, c->body.p, c->body.n);
    frame_encode(&h, head);
    struct iovec v[3] = {{head, sizeof(head)}, {c->body.p, c->body.n}, {(void *)(uintptr_t)data, data_n}};
    for (int at = 0; at < 3;) {
        struct msghdr m = {.msg_iov = v + at, .msg_iovlen = (size_t)(3 - at)};
        ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        while (at < 3 && (size_t)n >= v[at].iov_len)
            n -= (ssize_t)v[at++].iov_len;
        if (at < 3) {
            v[at].iov_base = (char *)v[at].iov_base + n;
            v[at].iov_len -= (size_t)n;
        }
    }
    return 0;
}

/* Is a whole frame there? 1, 0, or an error. */
static inline int link_client_parse(struct link_client *c, struct link_frame *ret)
{
    size_t held = c->filled - c->taken;
    if (held < FRAME_HEADER_SIZE)
        return 0;
    int r = frame_decode(c->in + c->taken, &ret->header);
    if (r < 0)
        return r;
    size_t total = FRAME_HEADER_SIZE + (size_t)ret->header.body_len + ret->header.data_len;
    if (held < total) {
        if (total > c->room) {
            c->in = realloc(c->in, total);
            c->room = total;
        }
        return 0;
    }
    ret->body = c->in + c->taken + FRAME_HEADER_SIZE;
    ret->data = ret->body + ret->header.body_len;
    c->taken += total;
    return crc32c(0, ret->body, ret->header.body_len) == ret->header.body_crc ? 1 : -CV_BAD_CHECKSUM;
}

/* The next frame; waits up to timeout_ms. Errors: -ETIMEDOUT; -CV_CLOSED the journal ended the connection. */
static inline int link_client_receive(struct link_client *c, int timeout_ms, struct link_frame *ret)
{
    uint64_t until = clock_ms() + (uint64_t)timeout_ms;
    for (;;) {
        int r = link_client_parse(c, ret);
        if (r != 0)
            return r < 0 ? r : 0;
        memmove(c->in, c->in + c->taken, c->filled - c->taken);
        c->filled -= c->taken;
        c->taken = 0;
        uint64_t now = clock_ms();
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (poll(&p, 1, now < until ? (int)(until - now) : 0) <= 0)
            return -ETIMEDOUT;
        ssize_t n = recv(c->fd, c->in + c->filled, c->room - c->filled, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return -CV_CLOSED;
        if (n < 0)
            return -errno;
        c->filled += (size_t)n;
    }
}

/* Note what a frame says. entry: called for each entry told; may be NULL. */
static inline int link_client_take(struct link_client *c, const struct link_frame *f,
                                   void (*entry)(void *arg, const struct rec_link_entry *e, const uint8_t *data),
                                   void *arg)
{
    const uint8_t *b = f->body;
    size_t n = f->header.body_len;
    struct msg_link_committed committed;
    struct msg_link_durable durable;
    struct msg_link_credit credit;
    struct msg_link_rejected rejected;
    struct msg_link_entries entries;
    int r = 0;
    switch (f->header.type) {
    case MSG_link_welcome: r = msg_link_welcome_decode(b, n, &c->welcome); break;
    case MSG_link_role: r = msg_link_role_decode(b, n, &c->role); break;
    case MSG_link_credit:
        r = msg_link_credit_decode(b, n, &credit);
        c->credit_bytes = credit.bytes;
        c->credit_entries = credit.entries;
        c->disk = credit.disk_low;
        break;
    case MSG_link_durable:
        r = msg_link_durable_decode(b, n, &durable);
        c->durable = durable.index;
        break;
    case MSG_link_committed:
        r = msg_link_committed_decode(b, n, &committed);
        c->committed = c->durable = committed.index;
        break;
    case MSG_link_rejected:
        r = msg_link_rejected_decode(b, n, &rejected);
        c->rejected_from = rejected.from_sequence;
        c->rejected_error = rejected.error;
        break;
    case MSG_link_entries: {
        const uint8_t *data = f->data;
        r = msg_link_entries_decode(b, n, &entries);
        if (r < 0)
            break;
        rec_for_each (link_entry, e, &entries.entries) {
            if (crc32c(0, data, e.length) != e.crc)
                return -CV_BAD_CHECKSUM;
            if (entry)
                entry(arg, &e, data);
            data += e.length;
            c->committed = e.index;
        }
        break;
    }
    default: break;
    }
    return r;
}

/* Take frames until *value reaches at least, or an error. */
static inline int link_client_wait(struct link_client *c, const uint64_t *value, uint64_t least, int timeout_ms,
                                   void (*entry)(void *arg, const struct rec_link_entry *e, const uint8_t *data),
                                   void *arg)
{
    uint64_t until = clock_ms() + (uint64_t)timeout_ms;
    while (*value < least) {
        struct link_frame f;
        uint64_t now = clock_ms();
        int r = link_client_receive(c, now < until ? (int)(until - now) : 0, &f);
        if (r == 0)
            r = link_client_take(c, &f, entry, arg);
        if (r < 0)
            return r;
    }
    return 0;
}

static inline int link_client_applied(struct link_client *c, uint64_t applied, uint64_t flushed)
{
    struct msg_link_applied m = {.applied = applied, .flushed = flushed, .can_lead = 1};
    return link_client_send(c, MSG_link_applied, &m, NULL, 0);
}

/* Connect and attach with a state at applied; then the welcome is there. */
static inline int link_client_attach(struct link_client *c, const char *path, struct uuid cluster, uint64_t applied)
{
    struct msg_link_attach m = {.master = 1 + (uint64_t)getpid(),
                                .state_version = LINK_STATE_VERSION,
                                .applied = applied,
                                .flushed = applied,
                                .can_lead = 1,
                                .cluster = uuid_is_none(cluster) ? (struct text){NULL, 0} : uuid_bytes(&cluster)};
    struct link_frame f;
    int r = link_client_connect(c, path);
    c->committed = applied;
    if (r == 0)
        r = link_client_send(c, MSG_link_attach, &m, NULL, 0);
    if (r == 0)
        r = link_client_receive(c, 5000, &f);
    if (r == 0 && f.header.type != MSG_link_welcome)
        r = -CV_BAD_MESSAGE;
    if (r == 0)
        r = link_client_take(c, &f, NULL, NULL);
    return r;
}

/* Wait until the journal leads, everything before is told, and answer the role: then proposals are taken. Returns the
 * term in c->role. */
static inline int link_client_lead(struct link_client *c, int timeout_ms,
                                   void (*entry)(void *arg, const struct rec_link_entry *e, const uint8_t *data),
                                   void *arg)
{
    uint64_t until = clock_ms() + (uint64_t)timeout_ms;
    struct msg_link_role answered = {0};
    while (c->role.role != LINK_LEADER || c->credit_bytes == 0 || answered.term != c->role.term ||
           answered.role != c->role.role || c->committed < c->role.start_index) {
        struct link_frame f;
        uint64_t now = clock_ms();
        int r = link_client_receive(c, now < until ? (int)(until - now) : 0, &f);
        if (r == 0)
            r = link_client_take(c, &f, entry, arg);
        bool another = answered.term != c->role.term || answered.role != c->role.role;
        if (r == 0 && f.header.type == MSG_link_role && another) { /* not when only leader or lease changed */
            struct msg_link_role_seen m = {.term = c->role.term};
            r = link_client_send(c, MSG_link_role_seen, &m, NULL, 0);
            answered = c->role;
        }
        if (r == 0 && f.header.type == MSG_link_entries)
            r = link_client_applied(c, c->committed, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

static inline int link_client_propose(struct link_client *c, uint64_t term, uint64_t sequence, const void *data,
                                      uint32_t n, uint32_t op_count)
{
    struct msg_link_propose m = {.term = term,
                                 .sequence = sequence,
                                 .op_count = op_count,
                                 .payload_crc = crc32c(0, data, n),
                                 .entry_type = LINK_BATCH};
    return link_client_send(c, MSG_link_propose, &m, data, n);
}
