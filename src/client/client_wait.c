/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for a request, and keeping what its answer borrowed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "client/client_ask.h"
#include "client/client_internal.h"

struct waiter {
    sem_t ended;
};

static char *copy_text(char *at, struct curvine_text *t)
{
    if (t->n)
        memcpy(at, t->p, t->n);
    t->p = at;
    return at + t->n;
}

/* One allocation holds the entries, then all texts. */
static int own_results(struct curvine_request *q)
{
    size_t entries_size = q->entry_count * sizeof(*q->entries), n = entries_size + q->data.n + q->rest.n;
    for (uint32_t i = 0; i < q->entry_count; i++)
        n += q->entries[i].name.n;
    if (n == 0)
        return 0;
    char *owned = malloc(n);
    if (!owned)
        return -ENOMEM;
    char *at = owned + entries_size;
    struct curvine_dirent *entries = (struct curvine_dirent *)(void *)owned;
    for (uint32_t i = 0; i < q->entry_count; i++) {
        entries[i] = q->entries[i];
        at = copy_text(at, &entries[i].name);
    }
    at = copy_text(at, &q->data);
    copy_text(at, &q->rest);
    q->entries = q->entry_count ? entries : NULL;
    q->owned = owned;
    return 0;
}

static void on_done(struct curvine_request *q)
{
    struct waiter *w = q->user;
    if (q->result == 0)
        q->result = own_results(q);
    if (q->result < 0) {
        q->entries = NULL;
        q->entry_count = 0;
        q->data = q->rest = (struct curvine_text){0};
    }
    sem_post(&w->ended); /* q and w may be gone from here on */
}

int curvine_run(struct curvine *cv, struct curvine_request *q)
{
    struct waiter w;
    assert(!loop_is_here(cv->loop));
    sem_init(&w.ended, 0, 0);
    q->done = on_done;
    q->user = &w;
    q->owned = NULL;
    q->data = q->rest = (struct curvine_text){0};
    curvine_submit(cv, q);
    while (sem_wait(&w.ended) < 0)
        ;
    sem_destroy(&w.ended);
    return q->result;
}

void curvine_request_free(struct curvine_request *q)
{
    if (q->owned)
        free(q->owned);
    q->owned = NULL;
    q->entries = NULL;
    q->entry_count = 0;
    q->data = q->rest = (struct curvine_text){0};
}

static void on_asked(struct curvine_request *q)
{
    struct waiter *w = q->user;
    sem_post(&w->ended);
}

int client_ask(struct curvine *cv, uint16_t type, const struct wire_desc *desc, const void *record, uint32_t timeout_ms,
               struct buf *answer)
{
    struct client_op op = {.name = message_name(type), .type = type};
    struct waiter w;
    struct curvine_request q = {.timeout_ms = timeout_ms, .done = on_asked, .user = &w};
    struct buf body cleanup(buf_fini) = {0};
    int r = wire_encode(desc, record, &body);
    if (r < 0)
        return r;
    /* Some begin with an op_head: ours is the session in it, and for what changes something the slot. */
    op.mutation = type == MSG_mount_add || type == MSG_mount_remove || type == MSG_mount_set || type == MSG_upgrade;
    bool plain = !op.mutation && type != MSG_mount_list && type != MSG_layout;
    assert(!loop_is_here(cv->loop));
    sem_init(&w.ended, 0, 0);
    client_submit_encoded(cv, &q, &op, &body, answer, plain, 0);
    while (sem_wait(&w.ended) < 0)
        ;
    sem_destroy(&w.ended);
    return q.result;
}
