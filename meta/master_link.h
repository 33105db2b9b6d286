/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master's end of the link to its journal (wire/messages_link.def draws its course): connects, attaches, proposes
 * batches, and tells the owner what the journal says, in the journal's order. Reconnects by itself for ever. Keeps no
 * state of the namespace: what is in flight when the connection breaks is the owner's to take back (lost).
 *
 *      DOWN --connect--> CONNECTING --attach--> ATTACHING --welcome--> UP --> CLOSING
 *        ^                    |                     |                           |
 *        '---- after a while --+---------------------+--- any error: lost() -----'
 *
 * Owner: one loop (the scribe's). Health has a thread and a connection of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "base/uuid.h"
#include "io/loop.h"
#include "meta/meta.h"
#include "wire/link.h"
#include "wire/message.h"

struct master_link; /* opaque */

/* What happens; all on the loop. Texts borrow from the receive buffer: valid during the call. */
struct master_link_events {
    void *arg;
    /* What the journal must know to attach us: fill in applied, flushed and can_lead. */
    void (*attaching)(void *arg, struct msg_link_attach *attach);
    /* Returns 0, or an error: this is not our journal, and the link goes down. */
    int (*attached)(void *arg, const struct msg_link_welcome *welcome);
    void (*role)(void *arg, const struct msg_link_role *role);
    void (*proposed)(void *arg, const struct msg_link_proposed *proposed);
    void (*rejected)(void *arg, const struct msg_link_rejected *rejected);
    void (*durable)(void *arg, uint64_t index, uint64_t term);
    void (*committed)(void *arg, uint64_t index, uint64_t term);
    /* One committed entry that is not ours. more: others follow in this message. Returns 0, or an error: then the
     * link goes down, as nothing further can be applied. */
    int (*entry)(void *arg, const struct rec_link_entry *entry, struct text payload, bool more);
    void (*truncated)(void *arg, uint64_t from);
    void (*credit)(void *arg, const struct msg_link_credit *credit);
    void (*admin)(void *arg, const struct msg_link_admin_answer *answer);
    void (*read)(void *arg, const struct msg_link_read_index *answer);
    /* A checkpoint is wanted; another state is to be used from now on. */
    void (*snapshot_request)(void *arg, const struct msg_link_snapshot_request *request);
    void (*install)(void *arg, const struct msg_link_install *install);
    /* The connection is gone, if there was one: everything proposed and not committed has an unknown outcome. error:
     * why; -CV_WRONG_CLUSTER, -CV_WRONG_INCARNATION and -CV_LOG_DAMAGED will not go away by themselves. */
    void (*lost)(void *arg, int error);
};

struct master_link_options {
    const char *socket; /* path of the journal's unix socket */
    struct uuid cluster;
    uint64_t master;                         /* random, of this process */
    const struct master_link_events *events; /* borrowed */
};

/* Errors: -ENOMEM; -ENAMETOOLONG, -EINVAL the socket's path. */
int master_link_new(struct loop *loop, const struct master_link_options *options, struct master_link **ret);

/* Nothing may be in flight: after master_link_stop() said so, or before start. */
struct master_link *master_link_free(struct master_link *l);
DEFINE_CLEANUP(struct master_link *, master_link_free)

/* Begin to connect; health begins to beat. */
int master_link_start(struct master_link *l);

/* Send what is queued, disconnect, and tell when nothing is in flight any more. No event is told from here on. */
void master_link_stop(struct master_link *l, void (*stopped)(void *arg), void *arg);

/* Why it is not up, for people: "the journal at /run/curvine/journal.sock: Connection refused". */
int master_link_why(const struct master_link *l, struct buf *out);

/* Something for the log that was made under term. payload: lent (a reference is taken), or NULL: bytes are copied.
 * Sequences are given in order from 1 after each master_link_role_seen(). */
struct master_proposal {
    uint64_t term, sequence;
    uint8_t type; /* enum link_entry_type */
    uint32_t op_count, crc, n;
    const void *bytes;
    struct meta_payload *payload;
};
/* Errors: -CV_CLOSED not up; -CV_BUSY the journal does not read; -ENOMEM. */
int master_link_propose(struct master_link *l, const struct master_proposal *p);

/* Tell the journal (when not up: nothing happens, attaching says it again). */
void master_link_role_seen(struct master_link *l, uint64_t term);
/* unfit: why this master should not lead. With LINK_UNFIT_STOPS its lease is over before. */
void master_link_applied(struct master_link *l, uint64_t applied, uint64_t flushed, enum link_unfit unfit);
/* Any other message of ours; nothing happens when not up. */
void master_link_send(struct master_link *l, uint16_t type, const void *message);
/* Errors: -CV_CLOSED not up; -CV_BUSY too much is queued; -ENOMEM. */
int master_link_admin(struct master_link *l, const struct msg_link_admin *admin);

/* Ask for the index a read must have applied. Errors: as above. */
int master_link_read(struct master_link *l, uint64_t context);
