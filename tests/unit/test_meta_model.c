/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations (meta_play.h) on the namespace core and on the naive model beside it. Meanwhile nodes are evicted
 * anywhere, batches are closed, committed, undone, written to the base; the process dies and starts again from base and log;
 * a follower applies what is committed. A failure prints its seed.
 */
#include "tests/unit/meta_play.h"

/* --- the log ------------------------------------------------------------------------------------------------------------------ */

static void close_batch(struct play *p)
{
    uint64_t before = p->g.log_count;
    rig_close(&p->g);
    if (p->g.log_count == before)
        return;
    p->after = realloc(p->after, p->g.log_count * sizeof(*p->after));
    p->after[before] = m_copy(&p->now);
}

static void commit_some(struct play *p)
{
    uint64_t to = p->g.committed + below(p, (uint32_t)(p->g.log_count - p->g.committed) + 1);
    rig_commit_to(&p->g, to);
}

/* Forget the log behind `keep` entries and go back to the state there. */
static void back_to(struct play *p, uint64_t keep)
{
    m_free(&p->now);
    p->now = m_copy(&p->after[keep - 1]);
    for (uint64_t i = keep; i < p->g.log_count; i++)
        m_free(&p->after[i]);
}

/* Clients tell the leader what they have open; what it no longer knows they lose. */
static void reassert(struct play *p)
{
    int kept = 0;
    for (int i = 0; i < p->held_count; i++)
        if (m_find(&p->now, p->held[i].inode))
            p->held[kept++] = p->held[i];
    p->held_count = kept;
    for (int i = 0; i < kept; i++) {
        const struct held *h = &p->held[i];
        ck_assert_int_eq(meta_reassert(p->g.m, p->g.head.session, h->inode, h->handle, h->flags), 0);
    }
    meta_allow_purge(p->g.m);
}

static void lead_again(struct play *p)
{
    meta_lead(p->g.m, ++p->g.epoch);
    ck_assert_int_eq(rig_inner(&p->g, META_OP_grant, 0), 0);
    close_batch(p);
    rig_commit_to(&p->g, p->g.log_count);
    reassert(p);
}

static void undo_some(struct play *p)
{
    uint64_t flight = p->g.log_count - p->g.committed;
    uint64_t keep = p->g.committed + below(p, (uint32_t)flight + 1);
    uint64_t from = keep < p->g.log_count ? p->g.log[keep]->batch : p->g.m->open.number;
    meta_batch_undo(p->g.m, from);
    back_to(p, keep);
    if (p->last_entry > keep)
        p->last_type = 0;
    while (p->g.log_count > keep)
        meta_payload_unref(p->g.log[--p->g.log_count]);
    rig_commit_to(&p->g, keep);
    meta_follow(p->g.m);
    lead_again(p);
}

static void crash(struct play *p)
{
    uint64_t keep = p->g.committed + below(p, (uint32_t)(p->g.log_count - p->g.committed) + 1);
    back_to(p, keep);
    p->out = NULL; /* gone with the process, whether the base has it or not */
    rig_crash(&p->g, keep);
    p->after = realloc(p->after, p->g.log_count * sizeof(*p->after));
    for (uint64_t i = keep; i < p->g.log_count; i++)
        p->after[i] = m_copy(&p->now);
    reassert(p);
    if (p->last_type && p->last_entry <= keep) { /* the answer never arrived: it asks the new leader */
        struct meta_request *q = &p->g.q;
        meta_request_reset(q);
        ck_assert_int_eq(meta_request_decode(q, p->last_type, p->last.p, p->last.n), 0);
        int r = rig_run(&p->g, q);
        bool moved_on = p->last_type == MSG_write_grant && r == -CV_STALE_EPOCH; /* another request cut the file */
        EXPECT(p, (r == 0 || moved_on) && q->replayed, "after a crash %s: %s\n", message_name(p->last_type),
               cv_error_name(r));
    }
    p->last_type = 0;
}

static void follow(struct play *p)
{
    struct rig *f = &p->follower;
    for (; p->followed < p->g.committed; p->followed++) {
        const struct meta_payload *e = p->g.log[p->followed];
        ck_assert_int_eq(meta_apply(f->m, (struct text){(const char *)e->bytes, e->n}, p->followed + 1), 0);
        if (below(p, 8) == 0)
            rig_flush(f);
        if (below(p, 100) == 0) { /* it starts again from what it has written */
            f->m = meta_free(f->m);
            ck_assert_int_eq(meta_new(&f->options, &f->base, &f->m), 0);
            p->followed = meta_applied(f->m) - 1;
        }
    }
    EXPECT(p, meta_digest(f->m) == meta_digest(p->g.m), "digests differ\n");
}

static void purge(struct play *p)
{
    struct meta_request q;
    meta_request_init(&q);
    while (meta_next_inner(p->g.m, &q)) {
        int r = rig_run(&p->g, &q);
        EXPECT(p, r == 0 || r == -EBUSY, "purge: %s\n", cv_error_name(r));
        meta_request_reset(&q);
    }
    meta_request_fini(&q);
    for (int i = 0; i < p->now.count; i++) {
        uint64_t id = p->now.nodes[i].id;
        if (p->now.nodes[i].nlink == 0 && !is_held(p, id)) {
            m_remove_node(&p->now, id);
            i--;
        }
    }
    /* Every orphan that is left is open. */
    uint64_t orphans = 0, directories = 0, bytes = 0;
    for (int i = 0; i < p->now.count; i++) {
        orphans += p->now.nodes[i].nlink == 0;
        directories += S_ISDIR(p->now.nodes[i].mode);
        bytes += p->now.nodes[i].size;
    }
    const struct totals *t = &p->g.m->now;
    EXPECT(p,
           t->inodes == (uint64_t)p->now.count && t->orphans == orphans && t->directories == directories &&
               t->bytes == bytes,
           "totals: inodes %lu/%d orphans %lu/%lu directories %lu/%lu bytes %lu/%lu\n", (unsigned long)t->inodes,
           p->now.count, (unsigned long)t->orphans, (unsigned long)orphans, (unsigned long)t->directories,
           (unsigned long)directories, (unsigned long)t->bytes, (unsigned long)bytes);
}

/* --- playing ------------------------------------------------------------------------------------------------------------------ */

static void any_op(struct play *p)
{
    static void (*const ops[])(struct play *) = {
        do_make,    do_make,  do_make, do_make, do_link,  do_remove, do_remove,  do_remove,  do_rename,  do_rename,
        do_setattr, do_xattr, do_open, do_open, do_close, do_look,   do_content, do_content, do_content,
    };
    static void (*const removing[])(struct play *) = {do_remove, do_remove, do_close, do_rename, do_make};
    any_caller(p);
    if (p->now.count > 120)
        removing[below(p, array_size(removing))](p);
    else
        ops[below(p, array_size(ops))](p);
}

/* The three steps of writing a delta, each at its own time. */
static void flush_step(struct play *p)
{
    if (!p->out) {
        p->out = meta_delta_seal(p->g.m);
        p->out_written = false;
    } else if (!p->out_written) {
        store_write(&p->g.store, p->out);
        p->out_written = true;
    } else {
        meta_delta_written(p->g.m, p->out);
        p->out = meta_delta_free(p->out);
    }
}

/* Another client's request overtakes the one under way; or what was fetched for it grows old. */
static void overtake(void *arg)
{
    struct play *p = arg;
    struct m_caller caller = p->caller;
    uint32_t x = below(p, 6);
    if (x < 3) {
        close_batch(p);
        rig_commit_to(&p->g, p->g.log_count);
        flush_step(p);
        if (x == 0)
            flush_step(p);
        if (below(p, 2))
            return;
    }
    p->g.head.slot = 1;
    p->g.sequence = p->sequence_between + 1;
    any_op(p);
    p->sequence_between = p->g.sequence;
    p->caller = caller;
}

static void play_op(struct play *p)
{
    uint64_t sequence = p->g.sequence;
    p->g.between = overtake;
    p->g.between_arg = p;
    any_op(p);
    p->g.between = NULL;
    if (p->g.sequence == sequence)
        return;
    int r = p->g.q.error;
    if (p->g.q.changed) {
        p->last.n = 0;
        ck_assert_int_eq(buf_append(&p->last, p->g.body.p, p->g.body.n), 0);
        p->last_type = p->g.q.type;
        p->last_entry = p->g.log_count + 1;
    } else if (p->g.q.op_class == META_SCRIBE && p->g.q.type != MSG_close) {
        p->last_type = 0; /* the slot has moved on */
    }
    if (below(p, 10) == 0)
        do_again(p, r);
}

static void play(uint64_t seed, int steps, const struct meta_options *o, uint32_t evict_chance)
{
    struct play p = {.seed = seed, .prng = {seed}};
    rig_init(&p.g, o);
    rig_init(&p.follower, o);
    p.follower.m = meta_free(p.follower.m);
    store_free(&p.follower.store);
    p.follower.head.session = 0; /* its requests have none: reads only */
    ck_assert_int_eq(meta_new(&p.follower.options, &p.follower.base, &p.follower.m), 0);
    p.g.evict_chance = evict_chance;
    p.g.prng.state = seed * 7919;
    p.now = m_new();
    p.after = calloc(p.g.log_count, sizeof(*p.after));
    for (uint64_t i = 0; i < p.g.log_count; i++)
        p.after[i] = m_copy(&p.now);
    meta_allow_purge(p.g.m);
    p.g.store.cold = seed & 1;
    for (p.step = 0; p.step < steps; p.step++) {
        play_op(&p);
        uint32_t x = below(&p, 1000);
        if (x < 150)
            close_batch(&p);
        else if (x < 250)
            commit_some(&p);
        else if (x < 310)
            flush_step(&p);
        else if (x < 315)
            undo_some(&p);
        else if (x < 318)
            crash(&p);
        else if (x < 328)
            purge(&p);
        else if (x < 338)
            compare_all(&p, &p.g);
    }
    purge(&p);
    close_batch(&p);
    rig_commit_to(&p.g, p.g.log_count);
    compare_all(&p, &p.g);
    follow(&p);
    p.follower.head.session = p.g.head.session;
    compare_all(&p, &p.follower);
    for (uint64_t i = 0; i < p.g.log_count; i++)
        m_free(&p.after[i]);
    free(p.after);
    m_free(&p.now);
    buf_fini(&p.last);
    /* the follower never owned a log of its own beyond what rig_init made */
    rig_fini(&p.follower);
    rig_fini(&p.g);
}

/* CV_MODEL_SEED=n CV_MODEL_STEPS=m: one seed, for looking into a failure or for a long run. */
static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 10) : otherwise;
}

/* One thread: what the thread sanitizer could see here it sees in one seed, at a tenth of the speed. */
#if defined(__SANITIZE_THREAD__)
#define SEEDS 1
#elif defined(__SANITIZE_ADDRESS__)
#define SEEDS 3
#else
#define SEEDS 6
#endif

TEST_TIMEOUT(meta_equals_a_naive_namespace, 60)
{
    const struct meta_options o = {.block_shift = 12};
    uint64_t seed = number("CV_MODEL_SEED", 0);
    for (uint64_t i = seed ? seed : 1, n = seed ? number("CV_MODEL_SEEDS", 1) : SEEDS; n > 0; n--, i++)
        play(i, (int)number("CV_MODEL_STEPS", 4000), &o, 0);
}

TEST_TIMEOUT(meta_equals_a_naive_namespace_while_everything_is_evicted, 60)
{
    uint64_t seed = number("CV_MODEL_SEED", 0);
    const struct meta_options o = {.block_shift = 12, .whole_dir_names = 5, .id_grant = 64, .slots = 4};
    for (uint64_t i = seed ? seed : 1001, n = seed ? number("CV_MODEL_SEEDS", 1) : SEEDS; n > 0; n--, i++)
        play(i, (int)number("CV_MODEL_STEPS", 4000), &o, 2);
}
