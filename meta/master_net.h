/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the server: one network loop. Each line calls those below it:
 *
 *      master_net.c         requests as they come, and where each goes next
 *      master_own.c         what the daemon answers itself            master_admin.c  questions for the journal
 *      master_net_answer.c  what answers say, and when they may leave
 *      master_peer.c        who may ask what
 *
 * Everything on the loop.
 */
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

#define COUNT(n, name, by)                                                                                             \
    do {                                                                                                               \
        if ((n)->metrics)                                                                                              \
            counter_add(&(n)->metrics->name, (by));                                                                    \
    } while (0)

/* --- master_net_answer.c */
/* A request, from those kept for reuse; net_answer() drops it. NULL: no memory. */
struct net_request *net_request_new(struct master_net *n);
void net_request_drop(struct net_request *q);
/* At the end of this turn. */
void net_look_at(struct net_request *q);

/* Answer now; error 0: with what the core has found. */
void net_answer(struct net_request *q, int error, uint64_t now);
/* The same for what is not the core's, by q->outcome: a renewal, or a request that does not get so far. */
void net_answer_own(struct net_request *q, uint64_t now);
/* The answer is found: it leaves when it may. */
void net_settle(struct net_request *q, uint64_t now);
void net_count_answer(struct net_request *q, int error, uint64_t now);

/* Let answers go that may by now, and ask to be woken for those that may not. */
void net_release_waiting(struct master_net *n, uint64_t now);
bool net_anybody_waits(const struct master_net *n);
void net_askers_fired(struct loop_timer *timer);
void net_wake_run(struct loop_job *job);

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
