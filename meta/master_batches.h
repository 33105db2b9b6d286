/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scribe's book of batches: one being filled, behind it those in flight, oldest first; with each the requests whose
 * answers wait for it, and what the journal has given it: sequence, then log index.
 *
 *      fill --close--> to propose --proposed--> in flight --indexed--> --durable--> --committed--> gone
 *
 * Owner: the scribe. No I/O, no clock: a unit test drives it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "meta/master_request.h"
#include "meta/meta.h"

struct master_batch_entry {
    uint64_t number;   /* the core's */
    uint64_t sequence; /* on the link; 0: not proposed yet */
    uint64_t index;    /* in the log; 0: not known yet */
    uint32_t bytes, op_count;
    struct meta_payload *payload; /* until it is proposed; a reference */
    struct master_chain waiting;
    uint64_t proposed_ns;
};

struct master_batches {
    struct master_batch_entry *ring; /* oldest first: ring[head], count of them */
    uint32_t size, head, count;
    uint32_t unproposed;         /* the last so many are not proposed yet */
    uint64_t bytes;              /* of all in the ring */
    struct master_chain filling; /* requests that wait for the batch being filled */
    uint64_t credit_bytes;       /* what may be in the ring; from the journal */
    uint32_t credit_entries;
};

/* in_flight_max: batches in the ring at most. Errors: -ENOMEM. */
int master_batches_init(struct master_batches *b, uint32_t in_flight_max);
void master_batches_fini(struct master_batches *b); /* must be empty */

/* May a batch of so many bytes be closed? One always may when none is in flight and there is any credit. */
bool master_batches_may_close(const struct master_batches *b, uint32_t bytes);

/* The batch being filled is closed: payload (the reference moves here) is to be proposed. Its requests move along. */
void master_batches_close(struct master_batches *b, struct meta_payload *payload);

/* The next to propose, or NULL; then say that it was. */
struct master_batch_entry *master_batches_next(struct master_batches *b);
void master_batches_proposed(struct master_batches *b, struct master_batch_entry *e, uint64_t sequence,
                             uint64_t now_ns);

/* Let a request wait for batch `number`: one in the ring, or the one being filled. */
void master_batches_wait(struct master_batches *b, uint64_t number, struct master_request *q);

/* The journal gave sequences from first on these indexes. */
void master_batches_indexed(struct master_batches *b, uint64_t first_sequence, uint64_t first_index, uint32_t count);

/* Everything up to index is as safe as asked for: move the requests that waited for it to ret. Returns the number of
 * the last such batch, 0: none. */
uint64_t master_batches_release(struct master_batches *b, uint64_t index, struct master_chain *ret);

/* Committed: the oldest batch, if its index is known and up to index. Give them one by one, then drop each. */
const struct master_batch_entry *master_batches_committed(const struct master_batches *b, uint64_t index);
void master_batches_drop(struct master_batches *b);

/* Take back everything with an unknown or cut index, from batch `number` on (0: all): requests move to ret. */
void master_batches_undo(struct master_batches *b, uint64_t number, struct master_chain *ret);
