/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application's state: a few rows with versions, the slots that make requests happen once, the ids granted. What
 * a batch carries are results, not increments; it also says which version it was executed on, so that folding the log
 * proves that every operation saw exactly what the log says it saw.
 */
#pragma once

#include "sim_world.h"

/* A version names one write for ever; tombstones are versions too. 0: never written. */
enum { VERSION_GONE = 1 }; /* bit 0: the row was removed by this version */

static inline bool version_exists(uint64_t version)
{
    return version && !(version & VERSION_GONE);
}

struct slot_row {
    uint64_t seq; /* of the client's last executed request */
    uint64_t result;
    uint64_t plan; /* enum space_plan */
};

struct space_base;

struct state {
    const struct space_base *base; /* rows of the namespace, in what is flushed */
    uint64_t applied;              /* index */
    uint64_t rows[SIM_KEYS];
    struct slot_row slots[SIM_CLIENTS_MAX];
    uint64_t granted; /* ids below this were granted to some leader */
    uint64_t id_last; /* the highest id used */
};

enum op_type {
    OP_PUT = 1,
    OP_SWAP,   /* compare and set: result is the version found when it does not match */
    OP_REMOVE, /* negative answer when there is nothing; releases a side effect when committed */
    OP_ID,     /* takes an id */
    OP_GET,    /* never in a batch */
};

struct op {
    uint8_t type;
    uint8_t key;
    uint8_t client;
    uint8_t plan; /* enum space_plan */
    uint64_t seq;
    uint64_t before; /* version it was executed on */
    uint64_t after;  /* version written; OP_ID: the id */
};

enum { BATCH_OPS = 4 };

/* Payload of a BATCH entry. */
struct batch_data {
    uint64_t executed_term; /* must be the entry's */
    uint32_t count;
    uint32_t space_n;                 /* bytes of the namespace's payload, behind the operations */
    uint64_t session, session_client; /* the namespace's session it opens for a client; 0: none */
    struct op ops[BATCH_OPS];
};

/* Payload of an ID_LEASE entry. */
struct grant_data {
    uint64_t executed_term;
    uint64_t from, to;
};

/* Bytes that are hashed and kept: without its unused operations, with what is behind. */
static inline uint32_t batch_size(const struct batch_data *b)
{
    return (uint32_t)(offsetof(struct batch_data, ops) + b->count * sizeof(struct op) + b->space_n);
}

struct sim_entry;

/* Fold an entry into the state (applied becomes its index). NULL, or what does not fit. */
const char *state_apply(struct state *s, const struct sim_entry *e);

uint64_t state_digest(const struct state *s);
