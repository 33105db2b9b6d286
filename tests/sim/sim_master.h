/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small master: executes on a speculative view first (overlay over committed state), proposes, answers by the ack
 * mode, moves overlay rows to the committed state when their batch is committed, undoes batches that are truncated
 * (design.md 4; raft.md 6). In seeds with params.space the namespace core runs beside it (sim_space.h).
 *
 *     request -> overlay row (tagged with its batch) -> PROPOSE -> PROPOSED(index) -> committed: row, side effects
 *                        ^ undo list of the batch <------------- TRUNCATE(index), rejected, link lost
 */
#pragma once

#include "sim_state.h"
#include "sim_world.h"

struct node;
struct link_message;

enum ack_mode { ACK_QUORUM = 1, ACK_LOCAL, ACK_APPLIED };

struct request {
    uint8_t client;
    uint8_t type; /* enum op_type */
    uint8_t key;
    uint8_t mode; /* enum ack_mode */
    uint64_t seq;
    uint64_t version; /* to write; of OP_SWAP too */
    uint64_t expected;
    bool follower; /* OP_GET: any full node may answer */
};

struct answer {
    uint8_t client;
    uint8_t slot; /* who answers */
    uint8_t mode; /* enum ack_mode it was given under */
    uint8_t type; /* enum op_type of the request */
    int result;   /* 0; -EEXIST: negative (version says what was found); -CV_...: try again elsewhere */
    uint64_t seq;
    uint64_t version; /* written, or found; OP_ID: the id */
    uint32_t hint;    /* slot of the leader + 1; 0 unknown */
};

struct overlay_row {
    uint64_t value;
    uint64_t batch; /* which holds it; 0: none, look below */
};

struct overlay_slot {
    struct slot_row row;
    uint64_t batch;
};

struct undo {
    uint8_t key, client;
    bool has_row;
    struct overlay_row row;
    struct overlay_slot slot;
    uint64_t id_last;
};

struct batch {
    uint64_t number;
    uint64_t term;
    uint64_t index; /* 0: not known yet */
    uint64_t digest_before;
    uint64_t space_number; /* of the namespace's batch; 0: it has none */
    uint64_t space_before; /* what could be seen before it */
    struct batch_data *data;
    struct undo undo[BATCH_OPS];
};

enum { MASTER_BATCHES = 32 };

/* A request that waits for its answer's conditions. */
struct waiter {
    bool used;
    struct request request;
    struct answer answer;
    uint64_t batch; /* depends on this one; 0: on nothing uncommitted */
    uint64_t since_us;
    bool needs_leader; /* rests on reading: leadership must be confirmed after it was evaluated */
    bool confirmed;
    bool asked;           /* a read index is under way */
    uint32_t read_number; /* the question's */
    bool at_follower;     /* read the committed state once applied >= read_index */
    uint64_t read_index;
};

struct master {
    bool up;
    uint32_t life;
    struct state state;  /* committed, up to state.applied */
    struct space *space; /* the namespace core; NULL: not in this run */
    bool sealed;         /* a delta of it is set apart, to be written by the next flush */
    uint64_t preparing;  /* batch that makes the root or a session */

    /* As told by the journal. */
    bool attached;
    bool leading;
    uint64_t term, start_index, serve_from; /* serves when applied >= serve_from */
    uint64_t durable, lease_ms;
    bool no_lease; /* gave it up for this term */
    uint32_t leader_hint;

    /* Speculation. */
    struct overlay_row rows[SIM_KEYS];
    struct overlay_slot slots[SIM_CLIENTS_MAX];
    uint64_t id_last;                     /* of the view */
    struct batch batches[MASTER_BATCHES]; /* by number % MASTER_BATCHES: first_batch .. next_batch - 1 */
    uint64_t first_batch, next_batch;
    bool open; /* the newest batch still takes operations */
    uint64_t id_next, id_end;
    bool granting;
    bool cannot_lead, log_full; /* faults */

    struct waiter waiters[SIM_CLIENTS_MAX];
    uint32_t read_number;
};

void master_start(struct node *n);
void master_stop(struct node *n);

/* The link was lost: what was speculative is dropped. */
void master_unlink(struct node *n);

void master_on_link(struct node *n, const struct link_message *m);
void master_on_request(struct node *n, const struct request *r);
void master_on_timer(struct node *n, uint64_t batch);

/* Tell the journal how far we are. */
void master_report(struct node *n);

static inline bool master_serves(const struct master *m)
{
    return m->up && m->attached && m->leading && m->state.applied >= m->serve_from;
}

/* ---- sim_overlay.c: the speculative view ---- */

uint64_t view_row(const struct master *m, uint32_t key, uint64_t *ret_batch);
const struct slot_row *view_slot(const struct master *m, uint32_t client, uint64_t *ret_batch);
uint64_t view_digest(const struct master *m);

/* Execute in the open batch. */
void overlay_execute(struct master *m, struct batch *b, const struct op *op);

/* The oldest batch is committed: its rows leave the overlay. */
void overlay_commit(struct master *m, struct batch *b);

/* Undo batches from number on, newest first. */
void overlay_undo(struct node *n, uint64_t from_number);

static inline struct batch *master_batch(struct master *m, uint64_t number)
{
    return &m->batches[number % MASTER_BATCHES];
}
