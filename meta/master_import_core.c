/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_import_core.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "meta/master_request.h"

#define RETRY_NS  (10 * NS_PER_MS)
#define RETRY_MAX 1000 /* of a scribe with a full queue */

struct master_import_core {
    struct master_core *core;
    struct master_scribe *scribe;
    struct loop *loop;
    struct master_home home;
};

static bool leads(const struct master_import_core *c)
{
    return atomic_load_explicit(&c->core->leading, memory_order_acquire) != 0;
}

/* ---- batches ------------------------------------------------------------------------------------------------------------ */

/* One batch on its way: prepare --> (rows from disk) --> scribe --> done; back to prepare when rows left memory. */
struct importing {
    struct master_request base; /* first: chains point here */
    struct master_import_core *c;
    struct master_import_batch *batch;
    struct io_op fetch;
    struct loop_timer retry;
    uint32_t retries;
    struct meta_import what;
    struct meta_import_name names[];
};

static void import_end(struct importing *x, int error)
{
    struct master_import_batch *b = x->batch;
    if (error == 0 && x->what.kept)
        log_debug("%u names of an under file system were changed here and stay", x->what.kept);
    meta_request_fini(&x->base.meta);
    free(x);
    master_import_done(b, error);
}

static void import_prepare(struct importing *x);

static int fetch_work(void *arg)
{
    struct importing *x = arg;
    return meta_fetch(&x->c->core->base, &x->base.meta, false);
}

static void fetch_done(struct io_op *op, int result)
{
    struct importing *x = container_of(op, struct importing, fetch);
    if (result < 0)
        import_end(x, result);
    else
        import_prepare(x);
}

static void retry_fired(struct loop_timer *timer)
{
    import_prepare(container_of(timer, struct importing, retry));
}

static void import_push(struct importing *x)
{
    struct master_chain one = {0};
    x->base.again = false;
    master_chain_add(&one, &x->base);
    int r = master_scribe_push(x->c->scribe, &one);
    if (r == -CV_BUSY && x->retries++ < RETRY_MAX)
        loop_timer_start(x->c->loop, &x->retry, clock_ns() + RETRY_NS);
    else if (r < 0)
        import_end(x, r);
}

static void import_prepare(struct importing *x)
{
    struct master_core *core = x->c->core;
    if (!leads(x->c))
        return import_end(x, -CV_NOT_LEADER);
    master_core_read_lock(core);
    int r = meta_prepare(core->meta, &x->base.meta);
    master_core_unlock(core);
    if (r == 0)
        import_push(x);
    else
        io_work(x->c->loop, &x->fetch, fetch_work, x, fetch_done);
}

static void take_back(struct loop_job *job)
{
    for (struct master_request *q = container_of(job, struct master_request, job), *next; q; q = next) {
        struct importing *x = container_of(q, struct importing, base);
        next = q->next;
        if (q->again)
            import_prepare(x);
        else if (q->meta.error == -CV_BUSY && x->retries++ < RETRY_MAX)
            loop_timer_start(x->c->loop, &x->retry, clock_ns() + RETRY_NS);
        else
            import_end(x, q->meta.error);
    }
}

static void take_names(struct importing *x, const struct master_import_batch *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const struct master_import_name *n = &b->names[i];
        x->names[i] = (struct meta_import_name){
            .name = n->name,
            .key = n->key,
            .etag = text_of(n->identity.etag),
            .directory = n->type == UFS_DIRECTORY,
            .mode = n->mode,
            .uid = n->uid,
            .gid = n->gid,
            .size = n->identity.size,
            .mtime_ns = n->identity.mtime_ns,
        };
    }
    x->what =
        (struct meta_import){.directory = b->directory, .names = x->names, .count = b->count, .complete = b->complete};
}

static struct importing *importing_new(struct master_import_core *c, struct master_import_batch *b)
{
    struct importing *x = calloc(1, sizeof(*x) + b->count * sizeof(x->names[0]));
    if (!x)
        return NULL;
    x->c = c;
    x->batch = b;
    loop_timer_init(&x->retry, retry_fired);
    take_names(x, b);
    meta_request_init(&x->base.meta);
    meta_request_import(&x->base.meta, &x->what);
    x->base.home = &c->home;
    x->base.deadline_ns = UINT64_MAX;
    return x;
}

static void import_run(struct loop_job *job)
{
    struct master_import_batch *b = container_of(job, struct master_import_batch, job);
    struct importing *x = importing_new(b->sink, b);
    if (x)
        import_prepare(x);
    else
        master_import_done(b, -ENOMEM);
}

static void core_import(void *arg, struct master_import_batch *b)
{
    struct master_import_core *c = arg;
    b->sink = c;
    b->job.run = import_run;
    loop_post(c->loop, &b->job);
}

/* ---- places --------------------------------------------------------------------------------------------------------------- */

/* As a worker asks for the origin of a file. */
struct placing {
    struct master_import_core *c;
    struct master_import_place *place;
    struct meta_request q;
    struct io_op fetch;
    struct buf body, prefix;
};

static void place_end(struct placing *x, int error)
{
    struct master_import_place *p = x->place;
    if (error == 0) {
        const struct msg_origin_answer *a = &x->q.answer.origin;
        p->mount = a->mount;
        error = buf_append(&x->prefix, a->key.p, a->key.n);
        p->prefix = (struct text){(const char *)x->prefix.p, (uint32_t)x->prefix.n};
    }
    master_import_placed(p, error);
    meta_request_fini(&x->q);
    buf_fini(&x->body);
    buf_fini(&x->prefix);
    free(x);
}

static void place_look(struct placing *x);

static int place_fetch_work(void *arg)
{
    struct placing *x = arg;
    return meta_fetch(&x->c->core->base, &x->q, false);
}

static void place_fetch_done(struct io_op *op, int result)
{
    struct placing *x = container_of(op, struct placing, fetch);
    if (result < 0)
        place_end(x, result);
    else
        place_look(x);
}

static void place_look(struct placing *x)
{
    struct master_core *core = x->c->core;
    master_core_read_lock(core);
    int r = meta_read(core->meta, &x->q);
    master_core_unlock(core);
    if (r == 0)
        place_end(x, x->q.error);
    else
        io_work(x->c->loop, &x->fetch, place_fetch_work, x, place_fetch_done);
}

static void place_run(struct loop_job *job)
{
    struct master_import_place *p = container_of(job, struct master_import_place, job);
    const struct msg_origin m = {.inode = p->directory};
    struct placing *x = calloc(1, sizeof(*x));
    if (!x)
        return master_import_placed(p, -ENOMEM);
    x->c = p->sink;
    x->place = p;
    meta_request_init(&x->q);
    int r = msg_origin_encode(&m, &x->body);
    if (r == 0)
        r = meta_request_decode(&x->q, MSG_origin, x->body.p, x->body.n);
    if (r < 0)
        place_end(x, r);
    else
        place_look(x);
}

static void core_place(void *arg, struct master_import_place *p)
{
    struct master_import_core *c = arg;
    p->sink = c;
    p->job.run = place_run;
    loop_post(c->loop, &p->job);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------- */

int master_import_core_new(struct master_core *core, struct master_scribe *scribe, struct loop *loop,
                           struct master_import_core **ret)
{
    struct master_import_core *c cleanup(master_import_core_free_p) = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->core = core;
    c->scribe = scribe;
    c->loop = loop;
    c->home = (struct master_home){.loop = loop, .take_back = take_back};
    int r = master_scribe_add_home(scribe, &c->home);
    if (r < 0)
        return r;
    *ret = take(c);
    return 0;
}

struct master_import_core *master_import_core_free(struct master_import_core *c)
{
    free(c);
    return NULL;
}

struct master_import_sink master_import_core_sink(struct master_import_core *c)
{
    return (struct master_import_sink){c, core_import, core_place};
}
