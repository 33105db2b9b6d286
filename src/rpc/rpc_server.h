/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answering end of calls, on one loop: listeners, connections, requests in flight.
 *
 * After HELLO every request frame becomes a struct rpc_request and is given to request(). It is answered by one
 * rpc_answer*() call, now or later, in any order; body and data stay with the request until then. Requests may
 * be worked on by any thread, but taking and answering them happens on the loop: come back with loop_post() of the job
 * inside the request. Every request is answered, also when nobody waits any more (the answer is dropped).
 *
 * Bounds: connections, requests in flight per connection (above it the connection is not read on), send queue. One
 * listener may serve several loops: rpc_server_share() hands connections over.
 */
#pragma once

#include "rpc/rpc_conn.h"
#include "rpc/rpc_hello.h"

struct rpc_server;
struct rpc_peer; /* one connection, of which requests come */

struct rpc_request {
    struct frame_header header; /* as received */
    const uint8_t *body;        /* header.body_len bytes */
    const uint8_t *data;        /* header.data_len bytes */
    uint64_t deadline_ns;       /* by clock_ns(); UINT64_MAX: none. An answer after it is of no use */
    _Atomic bool cancelled;     /* any thread: nobody waits any more; stopping early is fine, answering is still due */
    struct rpc_peer *peer;
    struct loop_job job; /* the handler's, to come back to the loop */
    struct list link;    /* the handler's, while it has the request */
    void *user;          /* the handler's */

    /* Private. */
    struct list of_peer;
    uint8_t *large; /* the receive buffer body and data lie in, when they are not in bytes */
    uint8_t bytes[];
};

struct rpc_server_options {
    struct rpc_self self;
    uint32_t connections_max; /* 0: 10,000 */
    uint32_t in_flight_max;   /* requests of one connection; 0: 4096 */
    uint32_t hello_ms;        /* for a new connection to say HELLO; 0: 5000 */
    struct rpc_conn_limits limits;

    /* One request. */
    void (*request)(struct rpc_request *q, void *user);
    /* After a HELLO that fits, before its answer: may refuse (a negative code; reason in answer->reason) and may fill in
     * more. May be NULL. */
    int (*hello)(struct rpc_peer *peer, const struct msg_hello *hello, struct msg_hello_answer *answer, void *user);
    /* A one-way frame. NULL: they close the connection. */
    void (*one_way)(struct rpc_peer *peer, const struct rpc_frame *f, void *user);
    /* A peer that had said HELLO is gone; its requests are marked cancelled. May be NULL. */
    void (*gone)(struct rpc_peer *peer, void *user);
    void *user;
};

int rpc_server_new(struct loop *loop, const struct rpc_server_options *options, struct rpc_server **ret);

/* Listen: "host:port", "unix:/path". mode: of a unix socket's file. Errors: -EINVAL; -EADDRINUSE (after
 * 2 s: net_listen_at_start()); -EACCES; ... */
int rpc_server_listen(struct rpc_server *s, const char *address, uint16_t default_port, mode_t mode);

/* Take listening connections on behalf of other loops too: accepted connections go round robin to these servers, s among
 * them. Call before connections arrive. Each must stay until s has stopped. */
void rpc_server_share(struct rpc_server *s, struct rpc_server *const *servers, unsigned count);

/* Serve a connected socket (owned from here on) as if it had been accepted. */
void rpc_server_adopt(struct rpc_server *s, int fd);

/* The port of the n-th listener that is TCP, when ":0" asked for any; 0: none. */
uint16_t rpc_server_port(const struct rpc_server *s);

/* Stop: no new connections and requests; what is in flight is answered, for up to grace_ms, then connections close;
 * then stopped() runs on the loop, when the last request is answered. */
void rpc_server_stop(struct rpc_server *s, uint32_t grace_ms, void (*stopped)(void *arg), void *arg);

/* After stopped(). NULL is fine. */
struct rpc_server *rpc_server_free(struct rpc_server *s);

uint32_t rpc_server_connections(const struct rpc_server *s); /* any thread, approximate */
uint32_t rpc_server_in_flight(const struct rpc_server *s);   /* any thread, approximate */

/* --- answering, on the loop; q is gone afterwards. error: 0 or a negative code. index: what the answer depends on. --- */
void rpc_answer(struct rpc_request *q, int error, uint64_t index, const struct wire_desc *desc, const void *record);
void rpc_answer_body(struct rpc_request *q, int error, uint64_t index, const void *body, uint32_t n);
void rpc_answer_data(struct rpc_request *q, int error, uint64_t index, const struct wire_desc *desc, const void *record,
                     const struct iovec *data, unsigned count);
/* release runs when the data is no longer used, in every case. */
void rpc_answer_lent(struct rpc_request *q, uint64_t index, const struct wire_desc *desc, const void *record,
                     const void *data, uint32_t n, struct rpc_release *release);
void rpc_answer_file(struct rpc_request *q, uint64_t index, const struct wire_desc *desc, const void *record, int fd,
                     uint64_t offset, uint32_t n, struct rpc_release *release);

/* unix sockets: with n descriptors lent until release runs. To TCP peers: an error, -ENOTSUP. */
void rpc_answer_fds(struct rpc_request *q, uint64_t index, const struct wire_desc *desc, const void *record,
                    const int *fds, unsigned n, struct rpc_release *release);

/* --- peers --- */
struct rpc_conn *rpc_peer_conn(const struct rpc_peer *p);
uint8_t rpc_peer_role(const struct rpc_peer *p);
/* Credentials of a unix socket's peer. Errors: -ENOTSUP TCP. */
int rpc_peer_credentials(const struct rpc_peer *p, struct net_credentials *ret);
void rpc_peer_set_user(struct rpc_peer *p, void *user);
void *rpc_peer_user(const struct rpc_peer *p);
