/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scribe's book of batches: one being filled, behind it those in flight, oldest first; with each the requests whose
 * answers wait for it, and what the journal has given it: sequence, then log index. Digests stand among them.
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
#include "wire/link.h"

#define MASTER_SMALL_MAX 32

/* Who waits for one batch, and who did not. */
struct master_batch_waits {
    struct master_chain mode;   /* for what the ack mode asks */
    struct master_chain strict; /* for the commit, whatever the mode */
    struct buf acked;           /* notes of what was answered before (meta/master_ack.h) */
};

struct master_batch_entry {
    uint8_t type;      /* enum link_entry_type: a batch, or a digest */
    uint64_t number;   /* the core's; of what is no batch: of the batch before it */
    uint64_t sequence; /* on the link; 0: not proposed yet */
    uint64_t term;     /* it was proposed in */
    uint64_t index;    /* in the log; 0: not known yet */
    uint32_t bytes, op_count, crc;
    struct meta_payload *payload; /* of a batch until it is proposed; a reference */
    uint8_t small[MASTER_SMALL_MAX];
    struct master_batch_waits waits;
    uint64_t opened_ns, proposed_ns; /* opened: its first operation was executed */
};

struct master_batches {
    struct master_batch_entry *ring; /* oldest first: ring[head], count of them */
    uint32_t size, head, count;
    uint32_t unproposed;               /* the last so many are not proposed yet */
    uint64_t bytes;                    /* of all in the ring */
    struct master_batch_waits filling; /* of the batch being filled */
    uint64_t credit_bytes;             /* what may be in the ring; from the journal */
    uint32_t credit_entries;
};

/* in_flight_max: batches in the ring at most. Errors: -ENOMEM. */
int master_batches_init(struct master_batches *b, uint32_t in_flight_max);
void master_batches_fini(struct master_batches *b); /* must be empty */

static inline struct master_batch_entry *master_batches_at(const struct master_batches *b, uint32_t position)
{
    return &b->ring[(b->head + position) % b->size];
}

/* May a batch of so many bytes be closed? One always may when none is in flight and there is any credit. */
bool master_batches_may_close(const struct master_batches *b, uint32_t bytes);

/* The batch being filled is closed: payload (the reference moves here) is to be proposed. Its requests move along. */
struct master_batch_entry *master_batches_close(struct master_batches *b, struct meta_payload *payload);

/* Something small to propose behind the last batch; there must be room: master_batches_may_close(). */
struct master_batch_entry *master_batches_add(struct master_batches *b, enum link_entry_type type, const void *bytes,
                                              uint32_t n);

/* The next to propose, or NULL; then say that it was. */
struct master_batch_entry *master_batches_next(struct master_batches *b);
void master_batches_proposed(struct master_batches *b, struct master_batch_entry *e, uint64_t term, uint64_t sequence,
                             uint64_t now_ns);

/* What belongs to batch `number`: one in the ring, or the one being filled. */
struct master_batch_waits *master_batches_waits(struct master_batches *b, uint64_t number);

/* The journal gave sequences from first on these indexes. */
void master_batches_indexed(struct master_batches *b, uint64_t first_sequence, uint64_t first_index, uint32_t count);

/* Up to `index` all is as safe as the mode asks for, up to `commit` it is committed: move the requests that waited for it
 * to ret; those that are not committed and changed something are noted. Returns the number of the last batch up to each of
 * the two, 0: none. */
uint64_t master_batches_release(struct master_batches *b, uint64_t index, uint64_t commit, struct master_chain *ret,
                                uint64_t *ret_committed);

/* Committed: the oldest, if its index is known and up to index. Give them one by one, then drop each. */
const struct master_batch_entry *master_batches_committed(const struct master_batches *b, uint64_t index);
void master_batches_drop(struct master_batches *b);

/* Take back everything from this position in the ring on, and the batch being filled: requests move to ret. Returns the
 * number of the first batch among them, 0: only the one being filled. Their notes must have been taken away. */
uint64_t master_batches_undo(struct master_batches *b, uint32_t position, struct master_chain *ret);
