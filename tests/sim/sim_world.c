/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_world.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sim_check.h"
#include "sim_clients.h"
#include "sim_nemesis.h"
#include "sim_mutants.h"
#include "sim_net.h"
#include "sim_node.h"
#include "sim_space.h"
#include "sim_store.h"
#include "sim_twin.h"

/* ---- Memory ---- */

enum { ARENA_CHUNK = 4 << 20 };

struct sim_chunk {
    struct sim_chunk *next;
    size_t size;
    uint8_t bytes[];
};

static struct sim_chunk *chunk_new(size_t size)
{
    struct sim_chunk *c = malloc(sizeof(*c) + size);
    if (!c)
        abort();
    c->next = NULL;
    c->size = size;
    return c;
}

void *sim_alloc(struct sim_arena *a, size_t n)
{
    n = (n + 7) & ~(size_t)7;
    if (!a->first)
        a->first = a->current = chunk_new(ARENA_CHUNK);
    while (a->current->size - a->used < n) {
        if (!a->current->next)
            a->current->next = chunk_new(max((size_t)ARENA_CHUNK, n));
        a->current = a->current->next;
        a->used = 0;
    }
    void *p = a->current->bytes + a->used;
    a->used += n;
    memset(p, 0, n);
    return p;
}

static void arena_reset(struct sim_arena *a)
{
    a->current = a->first;
    a->used = 0;
}

static void arena_fini(struct sim_arena *a)
{
    for (struct sim_chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
}

void *recycler_take(struct recycler *r, struct sim_arena *a, size_t n)
{
    void *p = r->free;
    if (!p)
        return sim_alloc(a, n);
    memcpy(&r->free, p, sizeof(void *));
    return p;
}

void recycler_give(struct recycler *r, void *p)
{
    memcpy(p, &r->free, sizeof(void *));
    r->free = p;
}

/* ---- Events: a heap of four children, smallest key first ---- */

struct event *world_schedule(struct world *w, uint64_t at_us, enum event_type type)
{
    if (w->heap_count == w->heap_room) {
        w->heap_room = max(2 * w->heap_room, 1024u);
        w->heap = realloc(w->heap, w->heap_room * sizeof(struct event));
        if (!w->heap)
            abort();
    }
    at_us = max(at_us, w->now_us);
    assert(at_us >> 32 == 0);
    uint64_t key = at_us << 32 | w->order++;
    uint32_t i = w->heap_count++;
    while (i > 0) {
        uint32_t up = (i - 1) / 4;
        if (w->heap[up].key < key)
            break;
        w->heap[i] = w->heap[up];
        i = up;
    }
    w->heap[i] = (struct event){.key = key, .type = (uint8_t)type};
    return &w->heap[i];
}

static struct event pop(struct world *w)
{
    struct event top = w->heap[0];
    struct event last = w->heap[--w->heap_count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 4 * i + 1, best = child;
        if (child >= w->heap_count)
            break;
        uint32_t end = min(child + 4, w->heap_count);
        for (uint32_t c = child + 1; c < end; c++)
            if (w->heap[c].key < w->heap[best].key)
                best = c;
        if (w->heap[best].key >= last.key)
            break;
        w->heap[i] = w->heap[best];
        i = best;
    }
    w->heap[i] = last;
    return top;
}

/* ---- Failures and the story ---- */

void world_fail(struct world *w, bool rule, const char *check, const char *format, ...)
{
    w->failed = true;
    w->failure.rule = rule;
    w->failure.at_us = w->now_us;
    snprintf(w->failure.check, sizeof(w->failure.check), "%s", check);
    va_list ap;
    va_start(ap, format);
    vsnprintf(w->failure.text, sizeof(w->failure.text), format, ap);
    va_end(ap);
    siglongjmp(w->escape, 1);
}

void world_trace(struct world *w, const char *format, ...)
{
    fprintf(w->trace, "%4llu.%06llu  ", (unsigned long long)(w->now_us / 1000000),
            (unsigned long long)(w->now_us % 1000000));
    va_list ap;
    va_start(ap, format);
    vfprintf(w->trace, format, ap);
    va_end(ap);
    fputc('\n', w->trace);
}

/* ---- Running ---- */

enum { STILL_MAX = 100000, CALM_TIMEOUTS = 80 };

static void dispatch(struct world *w, const struct event *e);

/* The processes of a paused machine get their events when it goes on, in order. */
static bool defer(struct world *w, struct node *n, const struct event *e)
{
    if (!node_is_paused(n) && n->deferred_count == 0)
        return false;
    switch (e->type) {
    case EVENT_TICK:
    case EVENT_MESSAGE:
    case EVENT_WRITTEN:
    case EVENT_TO_MASTER:
    case EVENT_TO_JOURNAL:
    case EVENT_MASTER:
    case EVENT_REQUEST:
    case EVENT_FETCH:
    case EVENT_CHECKPOINT: break;
    default: return false;
    }
    if (n->deferred_count == n->deferred_room) {
        n->deferred_room = max(2 * n->deferred_room, 64u);
        n->deferred = realloc(n->deferred, n->deferred_room * sizeof(struct event));
        if (!n->deferred)
            abort();
    }
    if (n->deferred_count == 0)
        world_schedule(w, n->paused_until_us, EVENT_RESUME)->node = e->node;
    n->deferred[n->deferred_count++] = *e;
    return true;
}

static void resume(struct world *w, struct node *n)
{
    if (node_is_paused(n)) {
        world_schedule(w, n->paused_until_us, EVENT_RESUME)->node = (uint8_t)n->slot;
        return;
    }
    uint32_t count = n->deferred_count;
    n->deferred_count = 0;
    for (uint32_t i = 0; i < count; i++)
        dispatch(w, &n->deferred[i]);
}

static void dispatch(struct world *w, const struct event *e)
{
    struct node *n = w->nodes[e->node];
    if (n && defer(w, n, e))
        return;
    w->counters.events++;
    switch ((enum event_type)e->type) {
    case EVENT_TICK:
        if (e->life == n->life && n->up)
            node_on_tick(n);
        break;
    case EVENT_MESSAGE: net_on_message(w, e->p); break;
    case EVENT_SYNCED: disk_on_synced(n, e->life); break;
    case EVENT_WRITTEN:
        if (e->life == n->life)
            node_on_written(n, e->value, e->other);
        break;
    case EVENT_RESTART:
        n->restarts_pending--;
        node_start(n, STOP_MACHINE);
        break;
    case EVENT_TO_MASTER:
        if (e->life == n->link.number)
            link_on_master(n, e->p);
        break;
    case EVENT_TO_JOURNAL:
        if (e->life == n->link.number)
            link_on_journal(n, e->p);
        break;
    case EVENT_MASTER:
        if (e->life == n->master.life)
            master_on_timer(n, e->value);
        break;
    case EVENT_REQUEST: master_on_request(n, e->p); break;
    case EVENT_ANSWER: client_on_answer(w, e->p); break;
    case EVENT_CLIENT: client_on_timer(w, w->clients[e->other], e->life); break;
    case EVENT_FETCH:
        if (e->life == n->life)
            snapshot_on_fetch(n, (uint32_t)e->value);
        break;
    case EVENT_CHECKPOINT:
        if (e->life == n->life)
            snapshot_on_checkpoint(n, e->value, e->other);
        break;
    case EVENT_FAULT: nemesis_on_fault(w, (enum fault)e->other); break;
    case EVENT_HEAL: nemesis_on_heal(w, e->other); break;
    case EVENT_AIMED: nemesis_on_aimed(n, (enum aimed)e->other, e->value); break;
    case EVENT_RESUME: resume(w, n); break;
    case EVENT_CALL: ((void (*)(struct world *))e->p)(w); break;
    case EVENT_COUNT: break;
    }
}

void world_run_until(struct world *w, uint64_t until_us)
{
    uint64_t still = 0; /* events since time moved */
    while (w->heap_count && w->heap[0].key >> 32 <= until_us) {
        struct event e = pop(w);
        still = e.key >> 32 > w->now_us ? 0 : still + 1;
        if (still > STILL_MAX)
            fail_harm(w, "endless", "%llu events and no time passes", (unsigned long long)still);
        w->now_us = e.key >> 32;
        dispatch(w, &e);
    }
    w->now_us = max(w->now_us, until_us);
}

/* Settled: from here on only heartbeats and their answers. What was late in the network is answered once: a storm goes
 * on, so there is a second look when that is over. */
static void check_quiet(struct world *w, bool again)
{
    const struct params *p = &w->params;
    uint64_t messages = w->counters.messages, commits = w->check->commit;
    world_run_until(w, w->now_us + 10 * (uint64_t)p->heartbeat_ms * SIM_MS);
    messages = w->counters.messages - messages;
    commits = w->check->commit - commits;
    uint64_t alive = (uint64_t)__builtin_popcount(nemesis_alive(w));
    uint64_t bound = 2 * alive * (12 + 4 * commits) + 64;
    if (messages <= bound)
        return;
    if (!again)
        fail_harm(w, "storm", "%llu messages in 10 heartbeats of a quiet cluster, at most %llu expected",
                  (unsigned long long)messages, (unsigned long long)bound);
    world_run_until(w, w->now_us + 10 * (uint64_t)p->election_ms * SIM_MS);
    check_quiet(w, false);
}

/* No more faults and no new requests: now everything that should happen must (9.2, liveness), and without a storm of
 * messages. */
static void run_calm(struct world *w)
{
    const struct params *p = &w->params;
    w->calm = true;
    trace(w, "---- calm");
    nemesis_end(w);
    uint64_t step_us = (uint64_t)p->election_ms * SIM_MS;
    uint64_t progress = 0;
    const char *missing = "it has not begun";
    for (int still = 0; missing; still++) {
        if (still == CALM_TIMEOUTS)
            fail_harm(w, "liveness", "%d timeouts without faults and without progress: %s", CALM_TIMEOUTS, missing);
        world_run_until(w, w->now_us + step_us);
        missing = check_settled(w);
        uint64_t now = check_progress(w);
        if (now > progress)
            still = 0; /* a slow network and a window of one entry take their time */
        progress = now;
    }
    check_losses(w);
    check_quiet(w, true);
}

static void run_seed(struct world *w)
{
    world_run_until(w, (uint64_t)w->params.run_ms * SIM_MS);
    run_calm(w);
}

static _Thread_local struct world *running;

bool world_protect(struct world *w, void (*run)(struct world *))
{
    running = w;
    if (sigsetjmp(w->escape, 1) == 0)
        run(w);
    running = NULL;
    return !w->failed;
}

bool world_run(struct world *w)
{
    return world_protect(w, run_seed);
}

static void on_signal(int number)
{
    if (!running) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    world_fail(running, false, "crash", "the process would have stopped with signal %d", number);
}

void world_catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
    sigaction(SIGABRT, &a, NULL);
#ifdef RAFT_MUTANTS
    sigaction(SIGSEGV, &a, NULL); /* otherwise the sanitizer's, which says more */
#endif
}

/* ---- Setting up ---- */

struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    if (!w)
        abort();
    w->check = check_new();
    return w;
}

/* A namespace that ran into an assertion is not fit to be taken apart: it is left alone. */
static void free_cores(struct world *w)
{
    bool crashed = w->failed && !strcmp(w->failure.check, "crash");
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *n = w->nodes[i];
        if (!n)
            continue;
        n->raft = raft_free(n->raft);
        n->master.space = crashed ? NULL : space_free(n->master.space);
    }
    if (crashed)
        w->check->space = NULL;
    twin_clear(w, crashed);
    store_clear(w, false);
}

struct world *world_free(struct world *w)
{
    if (!w)
        return NULL;
    free_cores(w);
    store_clear(w, true);
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        if (!w->nodes_kept[i])
            continue;
        free(w->nodes_kept[i]->disk.live.entries);
        free(w->nodes_kept[i]->disk.durable.entries);
        free(w->nodes_kept[i]->deferred);
        free(w->nodes_kept[i]);
    }
    check_free(w->check);
    arena_fini(&w->arena);
    free(w->heap);
    free(w);
    return NULL;
}

static void found_cluster(struct world *w)
{
    const struct params *p = &w->params;
    struct raft_conf conf = {0};
    uint32_t count = p->voters + p->learners;
    for (uint32_t i = 0; i < count; i++) {
        bool journal_only = i < p->voters && i >= p->voters - p->journal_only;
        struct node *n = node_new(w, journal_only);
        struct raft_member m = {
            .id = n->id,
            .role = i < p->voters ? RAFT_VOTER : RAFT_LEARNER,
            .journal_only = journal_only,
            .priority = (uint8_t)i,
        };
        snprintf(m.raft_address, sizeof(m.raft_address), "n%u:1", i);
        raft_conf_put(&conf, &m);
    }
    for (uint32_t i = 0; i < count; i++)
        node_format(w->nodes[i], &conf);
    for (uint32_t i = 0; i < count; i++)
        node_start(w->nodes[i], STOP_MACHINE);
}

void world_reset(struct world *w, uint64_t seed, const struct params *params, bool scripted)
{
    free_cores(w);
    memset(w->nodes, 0, sizeof(w->nodes));
    memset(&w->counters, 0, sizeof(w->counters));
    memset(&w->failure, 0, sizeof(w->failure));
    arena_reset(&w->arena);
    w->seed = seed;
    w->params = *params;
    /* Disks that break their promises are not the log store's business. */
    if (MUTANT(term_vote_split) || MUTANT(truncate_append_split) || MUTANT(hard_state_lost))
        w->params.store = false;
    w->now_us = 1;
    w->order = 0;
    w->heap_count = 0;
    w->node_count = w->client_count = 0;
    w->scripted = scripted;
    w->calm = w->failed = false;
    struct prng *streams[] = {&w->net_random, &w->disk_random, &w->node_random, &w->client_random, &w->nemesis_random};
    for (uint32_t i = 0; i < array_size(streams); i++) {
        streams[i]->state = seed * 16 + i;
        streams[i]->state = prng_next(streams[i]);
    }
    w->net = sim_alloc(&w->arena, sizeof(*w->net));
    w->nemesis = nemesis_new(w);
    check_reset(w);
    found_cluster(w);
    for (uint32_t i = 0; i < params->clients; i++)
        w->clients[w->client_count++] = client_new(w, i);
    if (!scripted)
        nemesis_start(w);
}
