/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside libcurvine: one loop thread owns everything but what is marked "any thread".
 *
 *      client.c        the handle: the master that leads, the session
 *      client_call.c   requests on their way: slots, sending, sending again
 *      client_wait.c   curvine_run()
 *      client_sync.c   fsync where the master answers before a majority of them has it
 *      client_codec.c  requests as messages
 *      client_path.c   calls by path
 *      client_file.h   open files
 */
#pragma once

#include <assert.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "client/client_codec.h"
#include "client/curvine.h"
#include "io/loop.h"
#include "rpc/rpc_leader.h"

#define CLIENT_SLOTS_MAX 1024

/* Where the handle stands. */
enum client_state {
    CLIENT_IDLE,    /* nothing wanted yet */
    CLIENT_FINDING, /* looking for who leads */
    CLIENT_OPENING, /* connected, the session is being opened */
    CLIENT_OPEN,    /* connected, with a session: requests go out */
    CLIENT_CLOSING, /* curvine_close() */
};

/* A slot of the session: one mutation at a time, numbered; a retry carries the same number. */
struct client_slot {
    uint64_t sequence; /* of the newest mutation */
    uint32_t next_free;
};

/* The part of a request that is ours: struct curvine_request.reserved. */
struct client_call {
    struct rpc_call rpc;
    struct loop_job job;
    struct loop_timer timer; /* deadline while it waits; pause before a retry */
    struct list link;        /* waiting, or waiting for a slot, or in flight */
    struct curvine_request *request;
    struct curvine *cv;
    const struct client_op *op;
    struct buf body;
    uint64_t deadline_ns, session, sequence, sent_ns;
    uint64_t changes; /* FSYNC: of the handle, when it was sent */
    uint32_t slot;    /* UINT32_MAX: none */
    bool once;        /* a mutation: needs a slot */
    bool sent;        /* at least once, with an outcome we do not know */
    bool plain;       /* the message does not begin with an op_head */
    bool exclusive;   /* a truncation that writes wait for */
    bool pausing;     /* in cv->pausing: the timer sends it again */
    uint32_t retries;
    int result;         /* ends with this before anything is sent */
    struct buf *answer; /* client_ask: where the answer's body goes */
};
static_assert(sizeof(struct client_call) <= sizeof(((struct curvine_request *)0)->reserved), "reserved is too small");

static inline struct client_call *call_of(struct curvine_request *q)
{
    return (struct client_call *)(void *)q->reserved;
}

struct curvine {
    struct loop *loop;
    struct curvine_options options;
    char *program, *mount_point;
    struct rpc_leader *leader;
    enum client_state state;
    _Atomic int last_error; /* why we are not open; any thread */

    uint64_t session; /* 0: none */
    uint32_t lease_ms;
    struct rpc_call session_call, renew_call, told_call;
    uint64_t session_sent_ns, renew_sent_ns;
    uint32_t session_timeout_ms; /* silence after which the master ends it; 0: not known */
    uint64_t session_until_ns;   /* before that it has not */

    /* client_sync.c: what is answered may not be replicated yet */
    bool acks_early;
    uint64_t acks_known_until_ns; /* until then acks_early false is true */
    uint64_t generation;          /* of the master's early answers, 0: not known */
    uint64_t changes, synced;     /* answered so far; of these known to be there to stay */
    bool lost;                    /* some of them may be lost, and nobody was told */

    struct loop_timer renew;
    struct client_slot slots[CLIENT_SLOTS_MAX];
    uint32_t slot_count, free_slot;

    struct list waiting;      /* calls: for the session */
    struct list slot_waiting; /* calls: for a free slot */
    struct list pausing;      /* calls: for their timer */
    struct list in_flight;    /* calls: for their answer */
    unsigned open_clients;    /* while closing */

    sem_t opened; /* posted once, when the first session is open */
    bool opened_posted;
    uint64_t index_seen; /* highest log index an answer depended on */

    struct client_content *content; /* client_file.h */
};

/* client.c, on the loop: we are not connected to a leader any more (error: why); look for one. */
void client_lost_leader(struct curvine *cv, int error);
/* The session has ended at the master. */
void client_lost_session(struct curvine *cv);
/* Something wants to be sent. */
void client_want(struct curvine *cv);

/* client_call.c, on the loop. */
void client_call_go(struct client_call *call);                       /* on no list: send it */
void client_call_hold(struct client_call *call, struct list *where); /* until client_call_go(), or its deadline */

/* client_call.c, any thread: like curvine_submit() for a message that is encoded already; the answer's body is appended to
 * answer. plain: the message does not begin with an op_head. error: end with it (a negative code) without sending. */
void client_submit_encoded(struct curvine *cv, struct curvine_request *q, const struct client_op *op, struct buf *body,
                           struct buf *answer, bool plain, int error);

/* client_sync.c, on the loop. */
bool client_acks_early(const struct curvine *cv); /* may be: then fsync has to ask */
/* A master told, by what was sent at sent_ns. */
void client_acks_told(struct curvine *cv, bool early, uint64_t generation, uint64_t sent_ns);
int client_sync_decode(struct client_call *call, const void *body, uint32_t n); /* of a directory */

/* client_file.c, on the loop: of an OPEN or CREATE nobody waits for any more: the handle is given back. */
void client_late_answer(const struct rpc_frame *f, void *cv);
void client_handle_back(struct curvine *cv, uint64_t inode, uint64_t handle);

/* client_call.c, on the loop. */
void client_calls_send(struct curvine *cv);             /* the session is open: send what waits */
void client_calls_fail(struct curvine *cv, int result); /* closing */
uint32_t client_slot_take(struct curvine *cv);          /* UINT32_MAX: none is free */
