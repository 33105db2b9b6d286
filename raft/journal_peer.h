/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers: the network between the voters, behind journal_transport.h. TCP, frames of wire/frame.h, hello first
 * (journal_hello.h).
 *
 *      core --send--> CONTROL connection: heartbeats, votes, answers          one TCP connection each for every
 *                     ENTRIES connection: APPEND, entries attached when       ordered pair of nodes, made by the sender;
 *                     there is room on the wire, from memory or, for who      never is a heartbeat behind entries
 *                     is far behind, from disk by a file thread
 *      wire --------> decoded, from the node that said hello, of our cluster and incarnation --> journal_driver_message
 *
 * Who is told to whom:  each node dials every other member of its newest configuration, with backoff; what it says goes
 * on its own connections, or, while they are not there (an address that does not work, a node that does not know the
 * configuration yet), back on those the other made. The core is told of messages only, never of connections: one that
 * breaks costs the messages on it and nothing else.
 *
 * Bounds per peer: CONTROL 64 KiB queued, then messages are dropped; ENTRIES 256 messages waiting (fixed size), 1 MiB
 * queued and one message more, at most one read of 1 MiB from disk at a time (a single entry may be up to 8 MiB);
 * receiving 64 KiB a connection and one message of at most 8 MiB and 2 KiB. 32 peers, 16 connections that have not said
 * hello.
 *
 * A node listens once it has fellow members or waits to be added: a single voter opens no port.
 *
 * Owner: the loop.
 */
#pragma once

#include "base/uuid.h"
#include "raft/journal_dial.h"
#include "raft/journal_driver.h"
#include "raft/journal_transport.h"

enum {
    PEERS_MAX = 2 * RAFT_MEMBERS_MAX,
    PEER_CONTROL_QUEUE = 64 << 10,
    PEER_ENTRIES_QUEUE = 1 << 20,
    PEER_ENTRIES_BYTES = 1 << 20, /* of one message, about */
    PEER_WAITING_MAX = 256,       /* APPENDs without their entries yet */
};

struct journal_peers;

struct journal_peers_options {
    struct loop *loop;
    struct journal_self self; /* address: not needed */
    const char *listen;       /* address without port */
    uint16_t port;            /* 0: any */
    uint32_t election_ms;     /* connections whose peer acknowledges nothing for twice this, a second at least, end */

    /* A connection of channel PEER_SNAPSHOT from a member: the callee's, which sets its ops. NULL: refused. */
    void (*snapshot)(void *arg, struct rpc_conn *conn, uint64_t node);
    void *snapshot_arg;
};

/* journal_driver_options.transport, with the peers as its argument. */
extern const struct journal_transport_ops journal_peers_transport;

/* Errors: -ENOMEM; those of net_resolve() for listen. */
int journal_peers_new(const struct journal_peers_options *options, struct journal_peers **ret);

/* After journal_peers_stop() is done, or before start. */
struct journal_peers *journal_peers_free(struct journal_peers *p);

/* After the driver's start. Errors: -EADDRINUSE and others of net_listen(). */
int journal_peers_start(struct journal_peers *p, struct journal_driver *driver);

/* Nothing is sent or received from now on; stopped() when nothing is in flight. Before the driver's stop. */
void journal_peers_stop(struct journal_peers *p, void (*stopped)(void *arg), void *arg);

/* Fill in a dial to a member for a channel of one's own: everything but done. Errors: -ENOENT not a member. */
int journal_peers_dial(struct journal_peers *p, uint64_t node, enum peer_channel channel, struct journal_dial *d);

/* The port we listen on; 0: none. */
uint16_t journal_peers_port(const struct journal_peers *p);

/* Append ,"transport":{...} for the status. Errors: -ENOMEM. */
int journal_peers_status(struct journal_peers *p, struct buf *out);

/* Any thread: fill in the gauges that are ours. */
void journal_peers_gauges(const struct journal_peers *p, struct journal_gauges *ret);
