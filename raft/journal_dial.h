/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dial: one attempt to reach another journal: look its name up, connect, say hello, read the answer. What comes out is
 * a connection both ends have agreed on, of the channel asked for; or the reason why not, in words.
 *
 *      IDLE --start--> RESOLVE --> CONNECT (each address in turn) --> HELLO --> IDLE + done(0)
 *                         |           |                                |
 *                         +-----------+--------- an error, too late ---+------> IDLE + done(error)
 *
 * Owner: the loop. done() runs exactly once for each start, never inside it.
 */
#pragma once

#include "io/net.h"
#include "raft/journal_hello.h"
#include "raft/raft.h"
#include "rpc/rpc_conn.h"

enum { DIAL_ADDRESSES_MAX = 4, DIAL_REASON_SIZE = 200, DIAL_DIGEST_SIZE = 512 };

enum dial_state { DIAL_IDLE, DIAL_RESOLVE, DIAL_CONNECT, DIAL_HELLO };

struct journal_dial {
    /* Set before each start. */
    struct loop *loop;
    const struct journal_self *self; /* borrowed while the dial runs */
    enum peer_channel channel;
    uint64_t to;                     /* the node that should be there; 0: any */
    char address[RAFT_ADDRESS_SIZE]; /* "host:port" */
    uint32_t step_ms;                /* for a connect, and for the answer */
    uint32_t silent_ms;              /* later: the connection ends when what was sent is not acknowledged for so long */
    struct rpc_conn_limits limits;
    uint64_t from_index, to_index; /* PEER_IDENTIFY: what do these entries come to? 0: not asked */
    /* 0: conn is the owner's, who must rpc_conn_set_ops() and rpc_conn_set_max() before returning. Otherwise an error
     * and reason; refused: the other journal said so. */
    void (*done)(struct journal_dial *d, int result);

    /* Results. */
    struct rpc_conn *conn;
    uint64_t node, features;
    bool refused;
    char reason[DIAL_REASON_SIZE];
    char digest[DIAL_DIGEST_SIZE]; /* what they come to, JSON; "" not asked, or the other end is too old to say */

    /* Private. */
    enum dial_state state;
    bool stopping;
    int fd, result;
    unsigned count, at;
    struct net_address where[DIAL_ADDRESSES_MAX];
    struct io_op op;
    struct loop_timer timer;
};

void journal_dial_start(struct journal_dial *d);

/* End early: done(-CV_STOPPING) follows. A name being looked up is waited for. Nothing when idle. */
void journal_dial_stop(struct journal_dial *d);

static inline bool journal_dial_busy(const struct journal_dial *d)
{
    return d->state != DIAL_IDLE;
}
