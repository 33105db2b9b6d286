/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the server: one network loop and the requests on it (master_net.c), who may ask what (master_peer.c). */
#pragma once

#include "base/list.h"
#include "meta/master_import.h"
#include "meta/master_metrics.h"
#include "meta/master_request.h"
#include "meta/master_server.h"
#include "meta/master_ufs.h"
#include "rpc/rpc_server.h"

struct master_net {
    struct master_home home;
    struct master_core *core;
    struct master_scribe *scribe;
    const struct master_server_options *o;
    struct loop *loop;
    struct rpc_server *rpc;
    struct master_metrics *metrics;
    struct loop_hook turn;
    struct list arrived;            /* to be looked at at the end of the turn */
    struct list waiting[ACK_MODES]; /* reads that are done but rest on a batch that is not safe; ascending by it */
    struct list askers;             /* struct master_asker: who leads? oldest first */
    struct loop_timer askers_timer; /* of the oldest */
    struct list uncertain;          /* done, but do we lead? in order of executed_ns */
    struct list spare;              /* requests for reuse */
    uint32_t spare_count;
    struct buf out; /* answers are encoded here */
    bool listens, stopped;
    char name[16];
};

/* One request on this loop. */
struct net_request {
    struct master_request base; /* first: chains point here */
    struct rpc_request *rpc;
    struct master_net *net;
    struct list link; /* arrived, waiting or spare */
    struct io_op fetch;
    uint64_t received_ns, view;
    uint8_t op;           /* enum master_op */
    uint8_t rounds;       /* how often its rows came from the database's memory */
    bool fetched;         /* some rows did not come from the tree: worth installing */
    struct loop_job back; /* from the thread ufs */
    struct master_ufs_check *check;
    struct master_import_wait wait;
    uint32_t asked;  /* how often names were asked for */
    struct buf name; /* of an object that is another one by now */
    int outcome;     /* of this round of looking at it */
};

/* Who leads: told when we do, or after a moment. */
struct master_asker {
    struct list link;
    struct rpc_request *rpc;
    uint64_t received_ns;
};

/* Keep the question. -ENOMEM; -CV_STOPPING: answer at once. */
int master_net_wait_for_leader(struct master_net *n, struct rpc_request *rpc);
void master_net_answer_askers(struct master_net *n, uint64_t before_ns); /* those that came before */

int master_net_init(struct master_net *n, uint32_t number, struct master_core *core, struct master_scribe *scribe,
                    const struct master_server_options *options);
void master_net_fini(struct master_net *n);

/* Count an answer. */
void master_net_count(struct master_net *n, enum master_op op, uint64_t received_ns, int error, uint64_t now_ns);

/* Answer without a result; who asked the wrong master is told who leads. */
void master_net_refuse(struct master_net *n, struct rpc_request *rpc, int error);

/* --- master_peer.c: what is kept of a connection --- */
struct master_peer;

/* Called when a peer said HELLO. Errors: -ENOMEM. */
int master_peer_new(struct rpc_peer *p, struct master_peer **ret);
void master_peer_free(struct master_peer *p);

/* May this peer speak for this caller? Errors: -EPERM. */
int master_peer_check(const struct master_peer *p, const struct meta_caller *caller);

/* May it administer: root, or who this daemon runs as? */
bool master_peer_may_administer(const struct master_peer *p, const struct meta_caller *caller);

/* Did it say that it is a worker, and may it? */
bool master_peer_is_worker(const struct rpc_peer *p);
