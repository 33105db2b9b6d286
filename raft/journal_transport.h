/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport: the seam between the driver and the network to the other voters. The driver hands out messages whose
 * promises are durable; the transport attaches entries when it has room on the wire, and gives back what it receives.
 * With one voter there is none (the driver's transport is NULL and nothing is ever sent).
 *
 *      driver                            transport
 *        send(message) -------------------> queue a peer, heartbeats not behind entries
 *        journal_driver_attach() <--------- room on the wire: an APPEND's entries from memory
 *        journal_driver_message() <-------- decoded, from the node it names, of our cluster and incarnation
 *        members(conf) -------------------> connect and disconnect
 *
 * Everything on the driver's loop.
 */
#pragma once

#include "base/text.h"
#include "raft/raft.h"

struct journal_transport_ops {
    /* A message that may leave now; borrowed for the call. Losing it is fine. */
    void (*send)(void *arg, const struct raft_message *message);
    /* Who belongs to the cluster from now on, committed or not; borrowed for the call. */
    void (*members)(void *arg, const struct raft_conf *conf);
    /* Append ,"transport":{...} to the status. May be NULL. Errors: -ENOMEM. */
    int (*status)(void *arg, struct buf *out);
};
