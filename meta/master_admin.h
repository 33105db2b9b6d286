/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Administration of the journal through its master (cv raft): MSG raft_admin of any master is handed to the scribe, whose
 * link carries it to the journal beside it, and the answer goes back the same way.
 *
 *      cv --raft_admin--> network loop --job--> scribe --link_admin--> journal
 *         <--answer------              <--job--        <--answer-------
 *
 * Why this way: masters are what cv knows the addresses of (cluster.masters), they already tell administrators from others,
 * and a journal listens for nobody but its peers and, on a unix socket, its master. Every master answers, leading or not,
 * also when there is no leader: a change is refused with CV_NOT_LEADER by any journal but the leader's, and cv asks the next.
 *
 * "snapshot" is the master's own: it writes and flushes what it has applied.
 */
#pragma once

#include "io/loop.h"
#include "base/text.h"
#include "wire/message.h"

struct master_net;
struct master_scribe;
struct rpc_request;

/* A request for administration, on its network loop: answered from there, now or later. */
void master_admin_request(struct master_net *n, struct rpc_request *rpc);

/* One question on its way. */
struct master_admin {
    struct loop_job job; /* to the scribe, and back */
    struct list link;    /* the scribe's */
    struct master_net *net;
    struct loop *home;                  /* of net, where it is answered */
    void (*back)(struct loop_job *job); /* there */
    struct master_scribe *scribe;
    struct rpc_request *rpc;
    struct msg_raft_admin message; /* texts lie in the request */
    uint64_t received_ns;
    uint64_t context; /* of link_admin; 0: waits for a flush */
    uint64_t flushed_to;
    bool backup; /* and then a checkpoint, see meta/master_scribe_backup.c */

    int result;      /* nobody could be asked */
    uint32_t error;  /* the journal's */
    struct buf text; /* its words */
};

/* On the scribe: result, error and text are set; the question is gone afterwards. */
static inline void master_admin_done(struct master_admin *a)
{
    a->job.run = a->back;
    loop_post(a->home, &a->job);
}

/* Any thread: hand it to the scribe (meta/master_scribe_admin.c). */
void master_scribe_admin(struct master_scribe *s, struct master_admin *a);
