/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients: each has one request under way, retries it with the same sequence number at the same or another master
 * until an answer comes or its deadline passes, and then asks the next. The checker learns when each request began and
 * what was answered: that is the history.
 */
#pragma once

#include "sim_master.h"
#include "sim_world.h"

struct client {
    uint8_t number;
    bool busy;
    struct request request;
    uint64_t floor; /* index of the newest version of the key anybody had been shown when the request began */
    uint64_t begun_us;
    uint64_t sent_us;
    uint32_t attempts;
    uint64_t seq;
    uint64_t known[SIM_KEYS]; /* versions it last saw: what it compares with */
    uint32_t target;          /* slot it believes to lead */
    uint32_t timer;           /* number of the newest: older ones are void */
    bool stopped;             /* scripted: no requests of its own */
    struct answer last;       /* the newest final answer */
};

struct client *client_new(struct world *w, uint32_t number);

/* EVENT_CLIENT, EVENT_ANSWER. */
void client_on_timer(struct world *w, struct client *c, uint32_t timer);
void client_on_answer(struct world *w, const struct answer *a);

/* Scripted: ask this now (the client fills in sequence and version). */
void client_ask(struct world *w, struct client *c, struct request request);

/* A master answers. */
void client_answer(struct node *from, const struct answer *a);
