/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Acks: which answers may leave before a majority has what they rest on (modes "local" and "applied"), and what became of
 * those that did. Operations answered early are noted with their batch; when the batch is committed the notes go, when it
 * cannot be any more each is counted and logged (audit). When nobody knows (the link to the journal broke) they are kept
 * until the log tells: it has the very entry, or it is past the place where it could have been.
 *
 * Owner: the scribe. No I/O but the log lines.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "meta/master_options.h"
#include "meta/meta.h"

/* After it ran: must its answer wait for a majority in every mode? What was asked for so (OP_DURABLE); what changes or tells
 * who may write where (a grant or a cut that is lost would be given again under the same epoch, while workers
 * have acted on it); sessions and mounts. */
bool master_ack_is_strict(const struct meta_request *q);

/* After it ran: what its answer waits for. Of what it was about below mounts with modes of their own the strictest counts;
 * mounts false: modes of mounts that are weaker than the cluster's do not count yet. */
enum ack_mode master_ack_mode(const struct meta_request *q, enum ack_mode cluster, bool mounts);

/* Note that q, which changed something, is answered although it may still be lost. Without memory it is not listed. */
void master_ack_note(struct buf *notes, const struct meta_request *q);

#define MASTER_ACK_PENDING_MAX 4096 /* batches; of more nothing is waited for: they count as lost */

struct master_ack_batch {
    uint64_t term;
    uint32_t crc, n; /* of the payload */
    struct buf notes;
};

struct master_ack_book {
    struct master_ack_batch *pending; /* fate unknown */
    uint32_t count, room;
    uint64_t lost; /* operations, since start */
};
void master_ack_fini(struct master_ack_book *b);

/* All of these take the notes away. */
void master_ack_lost(struct master_ack_book *b, struct buf *notes);
void master_ack_unknown(struct master_ack_book *b, struct buf *notes, uint64_t term, uint32_t crc, uint32_t n);

/* The log has this entry: batches of it are not lost, those of earlier terms that were not seen are. */
void master_ack_seen(struct master_ack_book *b, uint64_t term, uint32_t crc, uint32_t n);
/* All of the log was seen. */
void master_ack_settle(struct master_ack_book *b);
