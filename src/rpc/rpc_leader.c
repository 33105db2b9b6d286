/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/rpc_leader.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define ASK_MS       1000 /* for one answer; then the question is asked again */
#define AGAIN_MIN_MS 10   /* between questions while looking */
#define AGAIN_MAX_MS 50
#define LONG_MS      5000 /* having looked for so long, ask less often */
#define LONG_MAX_MS  200
#define CALM_MS      1000 /* who served for so long is not suspected of flapping */
#define WATCH_MS     250
#define SILENT_MS    500
#define GIVE_UP_MS   3000 /* a host that acknowledges nothing for so long is gone: a new connection finds it again */
#define CONNECT_MS   2000

enum state { IDLE, LOOKING, KNOWN, CLOSING };

struct seat {
    struct rpc_leader *leader;
    struct rpc_client *client;
    struct rpc_call ask;
};

struct rpc_leader {
    struct loop *loop;
    struct rpc_leader_options o;
    struct seat seats[RPC_LEADER_MAX];
    unsigned count, open;
    enum state state;
    struct seat *current;    /* KNOWN: who leads. LOOKING: who led last, or NULL */
    struct loop_timer timer; /* LOOKING: ask again. KNOWN: is it silent? */
    uint64_t since_ns;       /* of this state */
    uint32_t again_ms;
    uint64_t term; /* the latest anybody named */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- asking ----------------------------------------------------------------------------------------------------------- */

static void known(struct rpc_leader *l, struct seat *s)
{
    struct seat *before = l->current;
    l->state = KNOWN;
    l->current = s;
    l->since_ns = clock_ns();
    loop_timer_stop(l->loop, &l->timer);
    if (l->count > 1)
        loop_timer_start(l->loop, &l->timer, l->since_ns + WATCH_MS * NS_PER_MS);
    if (before && before != s) /* what is in flight there is sent to the new one */
        rpc_client_drop(before->client);
    l->o.found(s->client, l->o.user);
}

static int add_seat(struct rpc_leader *l, const char *address);
static void look(struct rpc_leader *l);

/* A follower names a leader at an address that is none of ours: the cluster has got other members than we were told. Where
 * we talk over unix sockets the name is another one for a master we have. */
static void learn(struct rpc_leader *l, struct text address)
{
    char name[256];
    if (!address.n || address.n >= sizeof(name) || l->count == RPC_LEADER_MAX)
        return;
    snprintf(name, sizeof(name), TEXT_FMT, TEXT_ARG(address));
    for (unsigned i = 0; i < l->count; i++) {
        const char *ours = rpc_client_address(l->seats[i].client);
        if (strcmp(ours, name) == 0 || strncmp(ours, "unix:", 5) == 0)
            return;
    }
    if (add_seat(l, name) == 0)
        log_info("asking the master at %s too", name);
}

static void on_asked(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct seat *s = container_of(call, struct seat, ask);
    struct rpc_leader *l = s->leader;
    struct msg_leader_answer a = {0};
    if (l->state == CLOSING)
        return;
    if (result == 0)
        result = msg_leader_answer_decode(f->body, f->header.body_len, &a);
    if (result == 0 && a.node)
        l->term = max(l->term, a.term);
    if (l->state == KNOWN && l->current == s) {
        if (result == 0 && !a.serving) {
            look(l);
            l->o.lost(-CV_NOT_LEADER, l->o.user);
        }
        return;
    }
    if (result == 0 && a.serving) {
        if (l->state == KNOWN)
            l->o.lost(-CV_DEADLINE, l->o.user);
        known(l, s);
        return;
    }
    if (result == 0 && l->state == LOOKING)
        learn(l, a.address);
    if (l->state == LOOKING && l->o.missed && result != -CV_UNREACHABLE && result != -CV_CLOSED) {
        l->o.missed(rpc_client_address(s->client), result ? result : -CV_NOT_LEADER, "", l->o.user);
    }
}

static void ask_one(struct seat *s)
{
    const struct rpc_leader *l = s->leader;
    /* While we look, who does not serve answers when it does, unless it knows more than we. */
    const struct msg_leader m = {.flags = l->state == LOOKING, .known_term = l->term};
    if (rpc_call_busy(&s->ask))
        return;
    s->ask.done = on_asked;
    rpc_client_call(s->client, &s->ask, MSG_leader, msg_leader_desc(), &m, clock_ns() + ASK_MS * NS_PER_MS);
}

static void ask(struct rpc_leader *l, const struct seat *but)
{
    for (unsigned i = 0; i < l->count; i++)
        if (&l->seats[i] != but)
            ask_one(&l->seats[i]);
}

static void ask_again(struct rpc_leader *l)
{
    uint64_t now = clock_ns();
    uint32_t longest = now - l->since_ns > LONG_MS * NS_PER_MS ? LONG_MAX_MS : AGAIN_MAX_MS;
    ask(l, NULL);
    loop_timer_start(l->loop, &l->timer, now + l->again_ms * NS_PER_MS);
    l->again_ms = min(l->again_ms * 2, longest);
}

static void on_timer(struct loop_timer *timer)
{
    struct rpc_leader *l = container_of(timer, struct rpc_leader, timer);
    if (l->state == LOOKING) {
        ask_again(l);
    } else if (l->state == KNOWN) {
        if (rpc_client_silent_ms(l->current->client) >= SILENT_MS)
            ask(l, l->current);
        if (l->o.watch)
            ask_one(l->current);
        loop_timer_start(l->loop, &l->timer, clock_ns() + WATCH_MS * NS_PER_MS);
    }
}

static void look(struct rpc_leader *l)
{
    uint64_t now = clock_ns();
    bool calm = l->state != KNOWN || now - l->since_ns >= CALM_MS * NS_PER_MS;
    if (calm)
        l->again_ms = AGAIN_MIN_MS;
    l->state = LOOKING;
    l->since_ns = now;
    if (calm) {
        ask_again(l);
    } else { /* it has just said that it serves: not at once again */
        loop_timer_start(l->loop, &l->timer, now + l->again_ms * NS_PER_MS);
        l->again_ms = min(l->again_ms * 2, (uint32_t)AGAIN_MAX_MS);
    }
}

static void on_state(struct rpc_client *c, int error, const struct msg_hello_answer *answer, const char *reason,
                     void *user)
{
    struct seat *s = user;
    struct rpc_leader *l = s->leader;
    if (error == 0 || l->state == CLOSING)
        return;
    if (l->state == KNOWN && l->current == s) {
        look(l);
        l->o.lost(error, l->o.user);
    } else if (l->state == LOOKING && l->o.missed) {
        l->o.missed(rpc_client_address(c), error, reason, l->o.user);
    }
}

/* ---- from outside ----------------------------------------------------------------------------------------------------- */

void rpc_leader_find(struct rpc_leader *l)
{
    assert_on_loop(l->loop);
    if (l->state == IDLE)
        look(l);
}

void rpc_leader_lost(struct rpc_leader *l, int error)
{
    assert_on_loop(l->loop);
    if (l->state == KNOWN)
        look(l);
}

struct rpc_client *rpc_leader_client(const struct rpc_leader *l)
{
    return l->state == KNOWN ? l->current->client : NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static void on_late(struct rpc_client *c, const struct rpc_frame *f, void *user)
{
    struct rpc_leader *l = ((struct seat *)user)->leader;
    if (l->o.late)
        l->o.late(f, l->o.user);
}

static int add_seat(struct rpc_leader *l, const char *address)
{
    struct seat *s = &l->seats[l->count];
    struct rpc_client_options o = {
        .address = address,
        .default_port = l->o.default_port,
        .self = l->o.self,
        .connect_timeout_ms = CONNECT_MS,
        .give_up_ms = GIVE_UP_MS,
        .state = on_state,
        .late = on_late,
        .user = s,
    };
    s->leader = l;
    int r = rpc_client_new(l->loop, &o, &s->client);
    if (r == 0)
        l->count++;
    return r;
}

static void on_closed(void *arg)
{
    struct rpc_leader *l = arg;
    if (--l->open)
        return;
    void (*closed)(void *) = l->closed;
    arg = l->closed_arg;
    free(l);
    if (closed)
        closed(arg);
}

int rpc_leader_new(struct loop *loop, const struct rpc_leader_options *options, char *const *addresses, unsigned count,
                   struct rpc_leader **ret, const char **ret_bad)
{
    if (ret_bad)
        *ret_bad = "";
    if (count == 0 || count > RPC_LEADER_MAX)
        return count ? -E2BIG : -EINVAL;
    struct rpc_leader *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->loop = loop;
    l->o = *options;
    l->again_ms = AGAIN_MIN_MS;
    loop_timer_init(&l->timer, on_timer);
    for (unsigned i = 0; i < count; i++) {
        int r = add_seat(l, addresses[i]);
        if (r < 0) {
            if (ret_bad)
                *ret_bad = addresses[i];
            rpc_leader_close(l, NULL, NULL);
            return r;
        }
    }
    *ret = l;
    return 0;
}

void rpc_leader_close(struct rpc_leader *l, void (*closed)(void *arg), void *arg)
{
    l->state = CLOSING;
    l->closed = closed;
    l->closed_arg = arg;
    loop_timer_stop(l->loop, &l->timer);
    l->open = l->count + 1; /* one for us: none may be open */
    for (unsigned i = 0; i < l->count; i++)
        rpc_client_close(l->seats[i].client, on_closed, l);
    on_closed(l);
}
