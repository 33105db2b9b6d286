/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_clients.h"

#include <string.h>

#include "sim_check.h"
#include "sim_nemesis.h"
#include "sim_net.h"
#include "sim_node.h"

static void timer(struct world *w, struct client *c, uint64_t us)
{
    struct event *e = world_schedule(w, w->now_us + us, EVENT_CLIENT);
    e->other = c->number;
    e->life = ++c->timer;
}

struct client *client_new(struct world *w, uint32_t number)
{
    struct client *c = sim_alloc(&w->arena, sizeof(*c));
    c->number = (uint8_t)number;
    c->stopped = w->scripted;
    if (!c->stopped)
        timer(w, c, between(&w->client_random, 0, w->params.think_ms) * SIM_MS);
    return c;
}

/* ---- Asking ---- */

static void send(struct world *w, struct client *c)
{
    if (c->target >= w->node_count || c->attempts > 1)
        c->target = c->attempts > 1 && c->attempts % 2 ? c->target % w->node_count
                                                       : prng_below(&w->client_random, w->node_count);
    c->sent_us = w->now_us;
    struct node *n = w->nodes[c->target];
    uint64_t us = net_delay_anywhere(w);
    if (us != UINT64_MAX) {
        struct request *copy = sim_alloc(&w->arena, sizeof(*copy));
        *copy = c->request;
        struct event *e = world_schedule(w, w->now_us + us, EVENT_REQUEST);
        e->node = n->slot;
        e->p = copy;
    }
    timer(w, c, (uint64_t)w->params.election_ms * SIM_MS / 2);
}

void client_ask(struct world *w, struct client *c, struct request request)
{
    c->busy = true;
    c->attempts = 0;
    c->begun_us = w->now_us;
    c->request = request;
    c->request.client = c->number;
    c->request.seq = ++c->seq;
    if (request.type == OP_PUT || request.type == OP_SWAP || request.type == OP_REMOVE)
        c->request.version = check_version_new(w, request.type == OP_REMOVE);
    c->floor = check_floor(w, request.key);
    w->counters.requests++;
    send(w, c);
}

static void ask_something(struct world *w, struct client *c)
{
    const struct params *p = &w->params;
    struct prng *random = &w->client_random;
    struct request r = {.key = (uint8_t)prng_below(random, SIM_KEYS), .mode = ACK_QUORUM};
    if (chance(random, p->read_permille)) {
        r.type = OP_GET;
        r.follower = chance(random, p->follower_read_permille);
        if (r.follower)
            c->target = prng_below(random, w->node_count);
        else if (w->nemesis->stale && chance(random, 500))
            c->target = w->nemesis->stale->slot;
    } else {
        uint32_t type = prng_below(random, 100);
        r.type = type < 45 ? OP_PUT : type < 65 ? OP_SWAP : type < 80 ? OP_REMOVE : OP_ID;
        r.mode = chance(random, p->applied_permille) ? ACK_APPLIED
                 : chance(random, p->local_permille) ? ACK_LOCAL
                                                     : ACK_QUORUM;
        r.expected = chance(random, 700) ? c->known[r.key] : w->check->state.rows[r.key];
    }
    client_ask(w, c, r);
}

static void done(struct world *w, struct client *c)
{
    c->busy = false;
    if (c->stopped || w->calm)
        return;
    uint32_t think_ms = w->params.think_ms;
    timer(w, c, (uint64_t)between(&w->client_random, 0, 2 * think_ms) * SIM_MS + 1);
}

void client_on_timer(struct world *w, struct client *c, uint32_t number)
{
    if (number != c->timer)
        return;
    if (!c->busy) {
        if (!w->calm && !c->stopped)
            ask_something(w, c);
        return;
    }
    /* Outcome unknown for good: the next request's number is higher, so this one runs now or never. */
    uint64_t deadline_us = (uint64_t)w->params.election_ms * SIM_MS * 12;
    if (w->now_us - c->begun_us > deadline_us && !w->calm) {
        done(w, c);
        return;
    }
    c->attempts++;
    send(w, c);
}

/* ---- Answers ---- */

void client_answer(struct node *from, const struct answer *a)
{
    struct world *w = from->world;
    uint64_t us = net_delay_anywhere(w);
    w->counters.answers++;
    trace(w, "n%u answers client %u request %llu: %s version %llu", from->slot, a->client, (unsigned long long)a->seq,
          a->result ? cv_error_name(a->result) : "ok", (unsigned long long)a->version);
    /* A promise counts from when it leaves. */
    check_promise(from, a);
    if (us == UINT64_MAX)
        return;
    struct answer *copy = sim_alloc(&w->arena, sizeof(*copy));
    *copy = *a;
    struct event *e = world_schedule(w, w->now_us + us, EVENT_ANSWER);
    e->p = copy;
}

void client_on_answer(struct world *w, const struct answer *a)
{
    struct client *c = w->clients[a->client];
    if (!c->busy || a->seq != c->request.seq)
        return;
    if (a->result != 0 && a->result != -EEXIST) {
        c->target = a->hint ? a->hint - 1 : prng_below(&w->client_random, w->node_count);
        c->attempts++;
        timer(w, c, between(&w->client_random, 1, w->params.election_ms / 4 + 1) * SIM_MS);
        return;
    }
    c->target = a->slot;
    c->last = *a;
    check_answer(w, c, a);
    if (c->request.type != OP_ID)
        c->known[c->request.key] = a->version;
    done(w, c);
}
