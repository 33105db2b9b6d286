/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_origin.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"

#define ORIGINS_MAX 16384
#define BUCKETS     4096
#define TELL_MS     10000

struct entry {
    struct entry *hash_next;
    struct list lru;
    struct origin origin; /* origin.version 0: not known yet */
    struct list waiting;
    struct worker_call call;
    struct worker_origins *all;
    bool asking;
};

struct worker_origins {
    struct worker_master *master;
    struct worker_metrics *metrics;
    struct entry *buckets[BUCKETS];
    struct list lru; /* oldest first */
    uint32_t count, asking;
};

static struct entry **place(struct worker_origins *o, uint64_t inode)
{
    struct entry **p = &o->buckets[hash_u64(inode) % BUCKETS];
    while (*p && (*p)->origin.inode != inode)
        p = &(*p)->hash_next;
    return p;
}

static void forget(struct worker_origins *o, struct entry *e)
{
    *place(o, e->origin.inode) = e->hash_next;
    list_remove(&e->lru);
    free(e->origin.key);
    free(e);
    o->count--;
}

static void make_room(struct worker_origins *o)
{
    list_for_each_safe (l, &o->lru) {
        if (o->count < ORIGINS_MAX)
            return;
        struct entry *e = list_entry(l, struct entry, lru);
        if (!e->asking)
            forget(o, e);
    }
}

static int take_answer(struct entry *e, const struct rpc_frame *f)
{
    struct msg_origin_answer a;
    int r = msg_origin_answer_decode(f->body, f->header.body_len, &a);
    if (r < 0)
        return r;
    struct origin *o = &e->origin;
    if (a.etag.n >= sizeof(o->identity.etag) || a.version == 0)
        return -CV_BAD_MESSAGE;
    char *key = strndup(a.key.p ? a.key.p : "", a.key.n);
    if (!key)
        return -ENOMEM;
    free(o->key);
    *o = (struct origin){
        .inode = o->inode,
        .version = a.version,
        .base_bytes = a.base_bytes,
        .mount = a.mount,
        .identity = {.mtime_ns = a.mtime_ns, .size = a.size},
        .key = key,
    };
    memcpy(o->identity.etag, a.etag.p, a.etag.n);
    return 0;
}

static void answered(struct worker_call *call, int result, const struct rpc_frame *f)
{
    struct entry *e = container_of(call, struct entry, call);
    struct worker_origins *o = e->all;
    if (result == 0)
        result = take_answer(e, f);
    struct list waiting = LIST_INIT(waiting);
    list_append_all(&waiting, &e->waiting);
    for (struct list *l; (l = list_pop_front(&waiting));) {
        struct origin_wait *w = list_entry(l, struct origin_wait, link);
        int r = result == 0 && w->version != e->origin.version ? -CV_STALE_EPOCH : result;
        w->done(w, r, &e->origin); /* may ask anew: then it waits in e->waiting, which asking prevents being sent */
    }
    e->asking = false;
    o->asking--;
    for (struct list *l; (l = list_pop_front(&e->waiting));) { /* those that came from inside done() */
        struct origin_wait *w = list_entry(l, struct origin_wait, link);
        w->done(w, -CV_BUSY, NULL);
    }
    if (result < 0)
        forget(o, e);
}

void worker_origins_get(struct worker_origins *o, uint64_t inode, uint64_t version, uint64_t deadline_ns,
                        struct origin_wait *w)
{
    struct entry *e = *place(o, inode);
    w->version = version;
    list_init(&w->link);
    if (e && !e->asking && e->origin.version == version) {
        list_remove(&e->lru);
        list_push_back(&o->lru, &e->lru);
        w->done(w, 0, &e->origin);
        return;
    }
    if (!e) {
        make_room(o);
        e = calloc(1, sizeof(*e));
        if (!e) {
            w->done(w, -ENOMEM, NULL);
            return;
        }
        e->all = o;
        e->origin.inode = inode;
        list_init(&e->waiting);
        list_push_back(&o->lru, &e->lru);
        e->hash_next = NULL;
        *place(o, inode) = e;
        o->count++;
    }
    list_push_back(&e->waiting, &w->link);
    if (e->asking)
        return;
    e->asking = true;
    o->asking++;
    e->call = (struct worker_call){.done = answered};
    WORKER_COUNT(o->metrics, origins, 1);
    struct msg_origin q = {.inode = inode};
    uint64_t latest = clock_ns() + 60 * NS_PER_S;
    worker_master_call(o->master, &e->call, MSG_origin, msg_origin_desc(), &q, min(deadline_ns, latest));
}

struct tell {
    struct worker_call call;
    struct worker_origins *all;
};

static void told(struct worker_call *call, int result, const struct rpc_frame *f)
{
    struct tell *t = container_of(call, struct tell, call);
    if (result < 0)
        log_warn(result, "telling the master of a changed object");
    t->all->asking--;
    free(t);
}

void worker_origins_changed(struct worker_origins *o, uint64_t inode, uint64_t version)
{
    struct entry *e = *place(o, inode);
    if (e && !e->asking && e->origin.version == version)
        forget(o, e);
    struct tell *t = calloc(1, sizeof(*t));
    if (!t)
        return;
    t->all = o;
    t->call.done = told;
    o->asking++;
    struct msg_origin_changed q = {.inode = inode, .version = version};
    worker_master_call(o->master, &t->call, MSG_origin_changed, msg_origin_changed_desc(), &q,
                       clock_ns() + TELL_MS * NS_PER_MS);
}

uint32_t worker_origins_asking(const struct worker_origins *o)
{
    return o->asking;
}

int worker_origins_new(struct worker_master *master, struct worker_metrics *metrics, struct worker_origins **ret)
{
    struct worker_origins *o = calloc(1, sizeof(*o));
    if (!o)
        return -ENOMEM;
    o->master = master;
    o->metrics = metrics;
    list_init(&o->lru);
    *ret = o;
    return 0;
}

struct worker_origins *worker_origins_free(struct worker_origins *o)
{
    if (!o)
        return NULL;
    while (!list_empty(&o->lru))
        forget(o, list_entry(o->lru.next, struct entry, lru));
    free(o);
    return NULL;
}
