/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network between nodes: every ordered pair has a link that may be cut, slow or lossy. Messages carry entries as
 * shared pointers, or travel as bytes through the core's codec in seeds with params.codec. Clients reach masters
 * through delays of the same kind, and lose requests and answers with the same chance.
 */
#pragma once

#include "sim_world.h"

struct sim_entry;

struct sim_message {
    struct raft_message m;
    uint64_t after_seq; /* held back until the sender's disk is there */
    struct sim_message *next;
    uint32_t sender_life, receiver_life;
    uint64_t chain; /* APPEND_REPLY accepted: chain of the entry acknowledged, as it was at the time of the promise */
    uint32_t count;
    struct sim_entry *entries[];
};

struct link {
    uint8_t cuts; /* faults that cut it at present */
    uint64_t slow_until_us, slow_us;
    uint64_t busy_until_us; /* links that keep order: no message arrives before this */
};

struct network {
    struct link links[SIM_NODES_MAX][SIM_NODES_MAX]; /* [from][to] */
    struct recycler small, big;

    /* Scripted: return false to swallow the message. */
    bool (*filter)(struct world *w, struct sim_message *m, struct node *from, struct node *to);
    void *filter_arg;
};

struct sim_message *net_message_new(struct world *w, uint32_t count);
void net_message_free(struct world *w, struct sim_message *m);

/* Send it on its way (or lose it); takes the message. */
void net_send(struct node *from, struct sim_message *m);

/* EVENT_MESSAGE. */
void net_on_message(struct world *w, struct sim_message *m);

/* Cut or mend one direction; cuts count. */
void net_cut(struct world *w, uint32_t from, uint32_t to, int change);

static inline bool net_is_cut(struct world *w, uint32_t from, uint32_t to)
{
    return w->net->links[from][to].cuts;
}

/* Time a message between two machines takes now. UINT64_MAX: it is lost. */
uint64_t net_delay(struct world *w, struct link *link);

/* The same for clients and what has no link of its own. */
uint64_t net_delay_anywhere(struct world *w);
