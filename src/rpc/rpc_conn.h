/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection that speaks frames (wire/frame.h), in both directions, on one loop. It knows no requests: those are
 * rpc_server.h and rpc_client.h, which stand on it, and the link between master and journal, which uses it alone.
 *
 *      sending     rpc_conn_send() appends to the queue; at the end of the loop's turn everything queued goes out with
 *                  one system call. File content goes by sendfile, memory that is lent by reference.
 *      receiving   frames are parsed in the receive buffer and given to frame() one after the other; header checksum,
 *                  sizes and body checksum have been checked. Anything wrong closes the connection.
 *      bounds      a peer that does not read: when send_high bytes wait, the end that answers (hold_when_congested) stops
 *                  receiving until half of them are gone: who does not read answers gets no further questions in. Only one
 *                  end may do so, else both may wait for each other. At send_max bytes the connection is closed.
 *
 * Owner: the loop; every function runs on it. Data that is sent carries its own checksum, described by its message.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/text.h"
#include "io/loop.h"
#include "io/net.h"
#include "rpc/rpc_metrics.h"
#include "wire/frame.h"
#include "wire/message.h"

struct rpc_conn;

/* A frame received; body and data borrow from the receive buffer and are gone when frame() returns, unless it took the
 * buffer (rpc_conn_take_buffer). With FRAME_FDS descriptors came along: take those of interest with take_fd(), the others
 * are closed afterwards. None at all although announced: this process has too many open. */
struct rpc_frame {
    struct frame_header header;
    const uint8_t *body, *data;
    int *fds;
    unsigned fd_count;
};

struct rpc_conn_ops {
    /* One frame. May send, and may close the connection: then no further frame comes. */
    void (*frame)(struct rpc_conn *c, const struct rpc_frame *f, void *user);

    /* Once, after rpc_conn_close() or because of an error (reason: -CV_CLOSED the peer ended it; -errno;
     * -CV_BAD_MESSAGE, -CV_BAD_CHECKSUM, -CV_FRAME_TOO_BIG the peer is broken; -CV_BUSY it did not read). Nothing is
     * in flight any more; the connection frees itself when this returns. */
    void (*closed)(struct rpc_conn *c, int reason, void *user);

    /* The queue fell below send_high / 2 again after rpc_conn_congested() was true. May be NULL. */
    void (*drained)(struct rpc_conn *c, void *user);
};

struct rpc_conn_limits {
    uint32_t send_high; /* bytes; 0: 4 MiB */
    uint32_t send_max;  /* bytes; 0: 64 MiB */
    uint32_t body_max;  /* largest body accepted; 0: FRAME_BODY_MAX */
    uint32_t data_max;  /* largest data part accepted; 0: FRAME_DATA_MAX */
    bool hold_when_congested;
    bool receive_fds;            /* unix sockets: take descriptors that come along */
    struct rpc_metrics *metrics; /* the loop thread's; NULL: none */
};

/* Take a connected socket (owned from here on, also on error) and start receiving. limits may be NULL.
 * Errors: -ENOMEM. */
int rpc_conn_new(struct loop *loop, int fd, const struct rpc_conn_ops *ops, void *user,
                 const struct rpc_conn_limits *limits, struct rpc_conn **ret);

/* Other sizes of frames are accepted from now on (0: as above): little before HELLO, more after it. */
void rpc_conn_set_max(struct rpc_conn *c, uint32_t body_max, uint32_t data_max);

/* From frame(): keep body and data of this frame. Returns what to give to rpc_buffer_free() in the end, or NULL: the frame
 * is too small to have a buffer of its own, copy it. */
uint8_t *rpc_conn_take_buffer(struct rpc_conn *c);

/* Call frame() no more until rpc_conn_resume(): the peer is held back by its full socket. Frames held go on coming at the
 * end of the turn of rpc_conn_resume(). */
void rpc_conn_pause(struct rpc_conn *c);
void rpc_conn_resume(struct rpc_conn *c);

/* End it: what is queued is dropped; closed() runs later. Further calls do nothing. */
void rpc_conn_close(struct rpc_conn *c, int reason);

/* As rpc_conn_close(), but after what is queued has gone out. No further frame comes. */
void rpc_conn_finish(struct rpc_conn *c, int reason);

bool rpc_conn_is_open(const struct rpc_conn *c);

/* Another owner from now on: after a greeting that says what the connection is for. */
void rpc_conn_set_ops(struct rpc_conn *c, const struct rpc_conn_ops *ops, void *user);

/* The peer as text: its address, or for unix sockets "unix:pid". */
const char *rpc_conn_peer(const struct rpc_conn *c);

/* Who is at the other end of a unix socket. Errors: -ENOTSUP. */
int rpc_conn_credentials(const struct rpc_conn *c, struct net_credentials *ret);
int rpc_conn_groups(const struct rpc_conn *c, gid_t *groups, unsigned limit); /* as net_groups() */

/* Bytes queued and not sent; congested: at or above send_high. */
uint64_t rpc_conn_queued(const struct rpc_conn *c);
bool rpc_conn_congested(const struct rpc_conn *c);

/* --- sending: all return 0, or -CV_CLOSED, -CV_BUSY (send_max), -ENOMEM, -CV_FRAME_TOO_BIG, and then nothing is queued.
 * header: type, flags, request_id, aux, incarnation, index; the rest is filled in. --- */

/* A message (desc and record NULL: no body). */
int rpc_conn_send(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                  const void *record);

/* A body that is encoded already. */
int rpc_conn_send_body(struct rpc_conn *c, const struct frame_header *header, const void *body, uint32_t n);

/* A body that is encoded already, with data; both copied. */
int rpc_conn_send_body_data(struct rpc_conn *c, const struct frame_header *header, const void *body, uint32_t n,
                            const void *data, uint32_t data_n);

/* A message with data copied from count pieces. */
int rpc_conn_send_data(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, const struct iovec *data, unsigned count);

/* What lent memory or an open file needs when it is no longer used: runs once, on the loop, also when the connection
 * closes before it was sent, but not when the call that lent it failed. */
struct rpc_release {
    void (*run)(struct rpc_release *release);
};

/* A message with n bytes of data lent by the caller until release runs. */
int rpc_conn_send_lent(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, const void *data, uint32_t n, struct rpc_release *release);

/* A message with n bytes of a file from offset as data, by sendfile. A file that turns out shorter closes the
 * connection. release may close the file. */
int rpc_conn_send_file(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                       const void *record, int fd, uint64_t offset, uint32_t n, struct rpc_release *release);

/* unix sockets: a message with n descriptors (at most NET_FDS_MAX) lent until release runs (it may close them); FRAME_FDS
 * is set. Errors: -ENOTSUP not a unix socket. */
int rpc_conn_send_fds(struct rpc_conn *c, const struct frame_header *header, const struct wire_desc *desc,
                      const void *record, const int *fds, unsigned n, struct rpc_release *release);
