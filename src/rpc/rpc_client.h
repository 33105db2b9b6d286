/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calling end, on one loop: one address, one connection, many calls in flight, answered in any order.
 *
 * Connects by itself and again when the connection is lost (first at once, then with backoff and jitter up to 1 s). Calls
 * made meanwhile wait for it until their deadline; a failed attempt to connect fails those that wait. Which address,
 * whether to try again: that is the caller's (src/client). Owner: the loop.
 */
#pragma once

#include "rpc/rpc_conn.h"
#include "rpc/rpc_hello.h"

struct rpc_client;

/* One call, embedded in what it serves; all zero before its first use. */
struct rpc_call {
    /* Once, on the loop, not from inside rpc_client_call(). result: 0, the error the server answered with, or
     *   -CV_UNREACHABLE  never sent: no connection          -CV_CLOSED    sent, the connection broke: outcome unknown
     *   -CV_DEADLINE     sent or not; outcome unknown       -CV_CANCELLED by rpc_client_cancel(); outcome unknown
     *   -CV_BUSY         never sent: 65536 calls in flight, or 32 MiB the server has not taken
     * f: the answer; NULL when there was none. The call may be reused or freed in it. */
    void (*done)(struct rpc_call *call, int result, const struct rpc_frame *f);
    bool late; /* given up when it was sent: the server is not told, and its answer goes to options.late() */

    /* Private. */
    struct rpc_client *client;
    struct list link; /* waiting or in flight */
    struct loop_timer timer;
    struct loop_job job;
    uint64_t deadline_ns;
    uint32_t place; /* in the table of calls in flight */
    uint16_t type;
    uint8_t state;
    bool sent;
    uint8_t *body; /* while it waits for a connection */
    uint32_t body_n, data_n;
    int result;
};

static inline bool rpc_call_busy(const struct rpc_call *call)
{
    return call->state != 0;
}

/* Whom it was last started with. */
static inline const struct rpc_client *rpc_call_client(const struct rpc_call *call)
{
    return call->client;
}

#define MASTER_PORT 8995 /* when an address says none; the default of master.port, too */

struct rpc_client_options {
    const char *address; /* "host:port", "unix:/path"; copied */
    uint16_t default_port;
    struct rpc_self self;
    uint64_t session;            /* said in HELLO */
    uint32_t connect_timeout_ms; /* of one attempt, HELLO included; 0: 3000 */
    uint32_t give_up_ms; /* the connection ends when the other host acknowledges nothing for so long; 0: 40000 */
    struct rpc_conn_limits limits;

    /* The connection is there (error 0; answer of the other end) or lost or could not be made (a code; reason: the other
     * end's words, or ""). May be NULL. */
    void (*state)(struct rpc_client *c, int error, const struct msg_hello_answer *answer, const char *reason,
                  void *user);
    /* The answer of a call with `late` that was given up meanwhile. None comes when the connection is lost. NULL: ignored. */
    void (*late)(struct rpc_client *c, const struct rpc_frame *f, void *user);
    /* A one-way frame from the other end. NULL: ignored. */
    void (*one_way)(struct rpc_client *c, const struct rpc_frame *f, void *user);
    void *user;
};

/* Errors: -ENOMEM, -EINVAL address. Connecting begins with the first call, or rpc_client_connect(). */
int rpc_client_new(struct loop *loop, const struct rpc_client_options *options, struct rpc_client **ret);

/* Begin to connect, if not connected or at it. */
void rpc_client_connect(struct rpc_client *c);

/* Fail all calls with -CV_CLOSED or -CV_UNREACHABLE, close, free; closed() (may be NULL) runs on the loop after that. */
void rpc_client_close(struct rpc_client *c, void (*closed)(void *arg), void *arg);

/* Close the connection if calls are in flight on it: they end soon with -CV_CLOSED. The next call connects again. */
void rpc_client_drop(struct rpc_client *c);

bool rpc_client_connected(const struct rpc_client *c);
const char *rpc_client_address(const struct rpc_client *c);

/* Milliseconds the calls in flight have waited at most for anything from the other end; for noticing a silent one. */
uint64_t rpc_client_silent_ms(const struct rpc_client *c);

/* Start a call. deadline_ns: by clock_ns(), UINT64_MAX none (then only a lost connection ends it). */
void rpc_client_call(struct rpc_client *c, struct rpc_call *call, uint16_t type, const struct wire_desc *desc,
                     const void *record, uint64_t deadline_ns);

/* The same with an encoded body and data, both copied. index: what the caller has seen. */
void rpc_client_call_body(struct rpc_client *c, struct rpc_call *call, uint16_t type, uint64_t index, const void *body,
                          uint32_t n, const void *data, uint32_t data_n, uint64_t deadline_ns);

/* done runs soon with -CV_CANCELLED, unless it was faster. The server is told. */
void rpc_client_cancel(struct rpc_call *call);

/* From done(): keep body and data of this answer. Returns what to give to rpc_buffer_free() in the end, or NULL: the answer
 * is too small to have a buffer of its own, copy it. */
uint8_t *rpc_client_take_buffer(struct rpc_client *c);
