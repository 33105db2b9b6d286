/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of several masters leads: one connection to each, kept, and one question (MSG_leader) that every master answers
 * at once, whatever else it does. For clients, workers and tools; what is sent to the leader is theirs.
 *
 *                      one says "I serve"                        it says it leads no more (rpc_leader_lost),
 *      IDLE ──find──► LOOKING ──────────────► KNOWN: found(c) ─── its connection ends ──────────► LOOKING: lost()
 *                     all are asked at once,    │
 *                     again after 10..50 ms     │ silent for SILENT_MS with calls in flight: the others are asked;
 *                                               └─ if one of them serves: lost(), its connection is dropped, found(other)
 *
 * Who follows names the leader: a TCP address that is none of ours is asked too from then on.
 *
 * A connection whose other host acknowledges nothing for 3 s ends, and is tried anew once or twice a second. TCP by itself
 * would try half a minute long, at twice the pause each time: a network that was cut for a minute and works again would not
 * be noticed for the next one.
 *
 * No more than one master serves at any time: its lease has run out before another may be elected (raft.md 5.2). So
 * whoever says that it serves is believed, and a silent one is left only for one that does.
 *
 * Owner: the loop. Callbacks run on the loop, never from inside the calls below.
 */
#pragma once

#include "rpc/rpc_client.h"

#define RPC_LEADER_MAX 16 /* masters */

struct rpc_leader; /* opaque */

struct rpc_leader_options {
    uint16_t default_port;
    struct rpc_self self; /* its texts stay the caller's */
    bool watch; /* ask the one found four times a second whether it still serves: for who asks it little else */

    /* This one leads. Also when it is the same as before: it may know handles no more. */
    void (*found)(struct rpc_client *c, void *user);
    /* The one that was found is not to be asked any more; calls in flight there end, most with -CV_CLOSED. error: why. */
    void (*lost)(int error, void *user);
    /* While looking: one of them cannot be reached or refuses us (error, its words or ""), or does not lead
     * (-CV_NOT_LEADER). May be NULL. */
    void (*missed)(const char *address, int error, const char *reason, void *user);
    /* As rpc_client_options.late. May be NULL. */
    void (*late)(const struct rpc_frame *f, void *user);
    void *user;
};

/* addresses: "host:port" or "unix:/path", count of them. Close with rpc_leader_close(). Errors: -EINVAL an address, named in *ret_bad
 * (may be NULL), or count 0; -E2BIG; -ENOMEM. */
int rpc_leader_new(struct loop *loop, const struct rpc_leader_options *options, char *const *addresses, unsigned count,
                   struct rpc_leader **ret, const char **ret_bad);

/* Close all connections, free; closed() (may be NULL) runs on the loop after that. No callback runs any more, but calls in
 * flight end. */
void rpc_leader_close(struct rpc_leader *l, void (*closed)(void *arg), void *arg);

/* Begin to look, if not looking and none is known. */
void rpc_leader_find(struct rpc_leader *l);

/* The one that was found said, with error, that it does not lead; or did not answer. Looks again: no lost() for this one. */
void rpc_leader_lost(struct rpc_leader *l, int error);

/* Who was found; NULL: none. */
struct rpc_client *rpc_leader_client(const struct rpc_leader *l);
