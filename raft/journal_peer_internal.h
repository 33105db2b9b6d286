/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers: what their sources share. Each line calls those below it:
 *
 *      journal_peer.c        members, listening, life      journal_peer_status.c
 *      journal_peer_in.c     who comes in: accept, hello
 *      journal_peer_list.c   who there is, and who left
 *      journal_peer_out.c    the connections we make
 *      journal_peer_send.c   what waits for the wire, with entries from memory or disk
 *      journal_peer_frame.c  one frame, out or in; the end of all connections
 */
#pragma once

#include <stdatomic.h>

#include "raft/journal_peer.h"

enum {
    PEER_REFUSED_MAX = 8,  /* who was refused here, for the status */
    PEER_REMOVED_MAX = 64, /* ids that left the configuration while we ran */
    PEER_NEW_MAX = 16,     /* connections before their hello */
    PEER_QUESTIONS_MAX = 4,
    PEER_HEAD_MAX = RAFT_MESSAGE_FIXED_MAX + RAFT_APPEND_ENTRIES_MAX * RAFT_ENTRY_HEADER_SIZE,
    PEER_BODY_MAX = PEER_HEAD_MAX + 64,
};

/* The connection we make to a peer, for one channel. */
struct peer_out {
    struct peer *peer;
    enum peer_channel channel;
    struct journal_dial dial;
    struct rpc_conn *conn; /* NULL: none */
    struct loop_timer retry;
    uint32_t failures;             /* since it last worked */
    char reason[DIAL_REASON_SIZE]; /* why there is none */
    int error;
};

/* A connection somebody made to us. */
struct peer_in {
    struct list link; /* p->in */
    struct journal_peers *p;
    struct peer *peer; /* NULL: no hello yet */
    enum peer_channel channel;
    struct rpc_conn *conn;
    uint64_t since_ns;
    struct peer_question *question; /* it asked, and is not answered yet */
};

struct peer_figures {
    uint64_t bytes_out, bytes_in, messages_out, messages_in, dropped, connects, disk_reads;
};

struct peer {
    struct list link; /* p->peers */
    struct journal_peers *p;
    uint64_t id;
    char address[RAFT_ADDRESS_SIZE]; /* empty: not known */
    bool member;
    uint64_t leave_ns;                  /* no member: connections end then */
    struct peer_out out[PEER_SNAPSHOT]; /* by channel, 0 unused */
    struct peer_in *in[PEER_SNAPSHOT];

    /* APPENDs without their entries yet, in order. */
    struct raft_message waiting[PEER_WAITING_MAX];
    uint32_t head, count;
    struct { /* old entries for the first of them */
        struct io_op op;
        bool busy;
        uint64_t from, to;
        struct journal_read read;
        int result;
    } disk;
    struct peer_figures figures;
};

/* Somebody who was refused here. */
struct peer_refused {
    uint64_t node, at_ns, count;
    int error;
    char from[NET_TEXT_MAX];
    const char *reason; /* static */
};

struct journal_peers {
    struct journal_peers_options options;
    struct journal_driver *driver;
    struct net_address listen;
    char address[NET_TEXT_MAX]; /* where we listen, for hellos */
    int fd;
    struct io_op accept;
    bool started, want_listen;
    int listen_error; /* logged */
    struct loop_timer look;

    struct list peers, in;
    uint32_t peer_count, new_count, in_count, question_count;
    uint64_t removed[PEER_REMOVED_MAX]; /* a ring */
    uint32_t removed_count;
    struct peer_refused refused[PEER_REFUSED_MAX];
    uint32_t refused_count;

    _Atomic uint64_t connected, lag_entries; /* any thread reads */
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* ---- journal_peer_in.c ---- */
void peers_start_accept(struct journal_peers *p);
void peers_close_late(struct journal_peers *p, uint64_t now);

/* ---- journal_peer_list.c ---- */
struct peer *peers_find(struct journal_peers *p, uint64_t id);
/* Find or make. NULL: too many, or no memory. */
struct peer *peers_get(struct journal_peers *p, uint64_t id);
/* No member any more. What it does not know yet, its own removal, it may still learn. */
void peers_leave(struct journal_peers *p, struct peer *peer);
void peers_forget_removed(struct journal_peers *p, uint64_t id);
bool peers_was_removed(const struct journal_peers *p, uint64_t id);
void peers_drop(struct peer *peer); /* it is idle */

/* ---- journal_peer_out.c ---- */
void peer_out_init(struct peer *peer);
void peer_connect(struct peer *peer);
void peer_disconnect(struct peer *peer);
/* As journal_peers_dial(). */
int peer_fill_dial(struct peer *peer, enum peer_channel channel, struct journal_dial *d);

/* ---- journal_peer_send.c ---- */
void peer_send(struct peer *peer, const struct raft_message *m);
/* Entries that wait, as far as there is room. */
void peer_pump(struct peer *peer);

/* ---- journal_peer_frame.c ---- */
/* The open connection for what we say on this channel, or NULL. */
struct rpc_conn *peer_conn(const struct peer *peer, enum peer_channel channel);
/* Send a message with its entries. */
int peer_put(struct peer *peer, enum peer_channel channel, const struct raft_message *m,
             const struct journal_entry *const *entries);
void peer_dropped(struct peer *peer, uint32_t messages); /* for the figures */
/* A message of node from, as it came in a frame; entries (RAFT_APPEND_ENTRIES_MAX of them) borrow from the frame. Errors:
 * -CV_BAD_MESSAGE, -CV_BAD_CHECKSUM the connection cannot be trusted; -CV_UNKNOWN_MESSAGE of a newer version. */
int peer_decode(const struct journal_self *self, uint64_t from, const struct rpc_frame *f, struct raft_entry *entries,
                struct raft_message *ret);
/* A frame of a connection whose ends know each other. */
void peer_on_frame(struct peer *peer, enum peer_channel channel, struct rpc_conn *c, const struct rpc_frame *f);
uint32_t peers_silent_ms(const struct journal_peers *p); /* without an acknowledgement connections end */
bool peer_is_idle(const struct peer *peer);              /* nothing is open or in flight */
/* Something that was in flight has ended. */
void peers_finish_stop(struct journal_peers *p);
