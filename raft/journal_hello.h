/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hello: what two journals say to each other before anything else on a connection, and who is refused.
 *
 *      dialer                                   acceptor
 *        peer_hello(channel, who, to whom) ------> journal_hello_check()
 *        journal_hello_accept() <----------------- peer_hello_answer, an error in it ends the connection
 *
 * Refused: another cluster; another incarnation (one of the two was left behind when the cluster was founded again); a
 * node that is not the one looked for; a version nobody here speaks. Membership is checked by who knows it
 * (journal_peer.c). Pure functions; messages: wire/messages_peer.def.
 */
#pragma once

#include "base/uuid.h"
#include "wire/message.h"

#define PEER_VERSION_MIN 1
#define PEER_VERSION_MAX 1

/* What a connection is for; bulk never stands before what must be quick. Numbers are on the wire. */
enum peer_channel {
    PEER_CONTROL = 1,  /* every message of the core but APPEND: heartbeats, votes, answers */
    PEER_ENTRIES = 2,  /* APPEND */
    PEER_SNAPSHOT = 3, /* the files of a state */
    PEER_IDENTIFY = 4, /* only to learn who is there, or what a range of its log comes to: answered, then closed */
};
#define PEER_CHANNELS 5

/* "control"; "unknown". Static storage. */
const char *peer_channel_name(uint8_t channel);

/* What one journal says of itself. */
struct journal_self {
    struct uuid cluster;
    uint64_t node;
    uint32_t incarnation;
    const char *address; /* where it listens; borrowed */
};

/* Borrows from self. to: the node looked for, 0 any. */
void journal_hello_fill(const struct journal_self *self, enum peer_channel channel, uint64_t to,
                        struct msg_peer_hello *ret);

/* May the sender of this hello stay? Fills answer in any case (borrows from self; reason is static text). Errors, also
 * in answer->error: -CV_WRONG_CLUSTER, -CV_WRONG_INCARNATION, -ENXIO, -EPROTONOSUPPORT, -CV_BAD_MESSAGE. */
int journal_hello_check(const struct journal_self *self, const struct msg_peer_hello *hello,
                        struct msg_peer_hello_answer *answer);

/* Refuse with other words: membership, bounds. error: negative. */
void journal_hello_refuse(struct msg_peer_hello_answer *answer, int error, const char *reason);

/* The dialer's view of an answer; *ret_reason is text for people on errors and borrows from answer or is static. Errors:
 * the acceptor's (-EPERM removed, ...), and those of journal_hello_check() as seen from here. */
int journal_hello_accept(const struct journal_self *self, uint64_t to, const struct msg_peer_hello_answer *answer,
                         struct text *ret_reason);
