/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_space.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "meta/meta.h"
#include "sim_check.h"
#include "sim_disk.h"
#include "sim_mutants.h"
#include "sim_node.h"
#include "sim_space_base.h"
#include "wire/meta_flags.h"

enum { SPACE_GRANT = 16, SLOT_FAILS = 3 };

struct space {
    struct world *world;
    uint32_t slot;
    struct meta *meta;
    struct meta_base base;
    struct space_view view;
    struct meta_delta *sealed;
    struct meta_request q;
    struct buf body;
    struct prng random; /* its own: what happens here disturbs nothing else */
    uint64_t led_term;
    uint64_t early; /* batches up to here went to the base at once (mutant) */
};

typedef unsigned long long ull; /* for printing */

struct space *space_new(struct world *w, uint32_t slot, const struct space_base *base)
{
    struct space *s = calloc(1, sizeof(*s));
    if (!s)
        abort();
    *s = (struct space){.world = w, .slot = slot, .view.rows = base, .random = {w->seed * 64 + slot + w->now_us}};
    s->view.random = &s->random;
    s->base = space_base_of(&s->view);
    meta_request_init(&s->q);
    const struct meta_options o = {.memory_bytes = 1 << 20, .whole_dir_names = 8, .id_grant = SPACE_GRANT, .slots = 4};
    int r = meta_new(&o, &s->base, &s->meta);
    if (r < 0)
        fail_harm(w, "space", "n%u: the namespace does not start: %s", slot, cv_error_name(r));
    return s;
}

struct space *space_free(struct space *s)
{
    if (!s)
        return NULL;
    meta_request_fini(&s->q);
    buf_fini(&s->body);
    meta_free(s->meta); /* the sealed delta too */
    free(s);
    return NULL;
}

void space_lead(struct space *s, uint64_t term)
{
    if (s->led_term == term)
        return;
    s->led_term = term;
    meta_lead(s->meta, (uint32_t)term);
    meta_allow_purge(s->meta);
}

void space_follow(struct space *s)
{
    s->led_term = 0;
    meta_follow(s->meta);
}

/* ---- Requests ---- */

/* Anything may leave the tree at any moment. */
static void shake(struct space *s)
{
    if (chance(&s->random, 100))
        space_evict(s->meta, 1 + prng_below(&s->random, 8));
}

/* All the way: 0 and q.error, or -CV_BUSY. */
static int run(struct space *s)
{
    struct meta_request *q = &s->q;
    for (int rounds = 0; rounds < 1000; rounds++) {
        shake(s);
        int r = q->op_class == META_READ ? meta_read(s->meta, q) : meta_prepare(s->meta, q);
        if (r == -CV_NOT_PREPARED) {
            r = meta_fetch(&s->base, q, true);
            if (r == -CV_NOT_PREPARED)
                r = meta_fetch(&s->base, q, false);
            if (r < 0)
                fail_harm(s->world, "space", "n%u: a fetch from the base gets %s", s->slot, cv_error_name(r));
            continue;
        }
        shake(s);
        if (q->op_class == META_READ) {
            meta_install(s->meta, q);
            return 0;
        }
        r = meta_execute(s->meta, q, s->world->now_us * 1000);
        if (r != -CV_NOT_PREPARED)
            return r;
    }
    fail_harm(s->world, "space", "n%u: a request is never prepared", s->slot);
}

static int send(struct space *s, uint16_t type, const void *message)
{
    s->body.n = 0;
    int r = wire_encode(message_desc(type), message, &s->body);
    meta_request_reset(&s->q);
    if (r == 0)
        r = meta_request_decode(&s->q, type, s->body.p, s->body.n);
    if (r < 0)
        fail_harm(s->world, "space", "a message of type %u cannot travel: %s", type, cv_error_name(r));
    return run(s);
}

#define SEND(s, name, ...) send((s), MSG_##name, &(struct msg_##name){__VA_ARGS__})

/* Names: keys, what a client is making, what it took an id for. */
static struct text name_of(char text[8], char kind, uint32_t number)
{
    snprintf(text, 8, "%c%u", kind, number);
    return text_of(text);
}

static int look(struct space *s, struct text name, struct rec_attr *ret)
{
    int r = SEND(s, lookup, .parent = META_ROOT, .name = name);
    *ret = s->q.answer.lookup.attr;
    return r < 0 ? r : s->q.error;
}

/* ---- A change, in operations with a slot each ---- */

/* One operation of a change: the first may be -CV_BUSY, the others must work. */
struct change {
    struct space *s;
    const struct op *op;
    bool again;
    struct rec_op_head head;
    uint32_t steps;
    uint64_t depends;
};

static int step(struct change *c, uint16_t type, const void *message)
{
    struct space *s = c->s;
    int r = send(s, type, message);
    if (r == -CV_BUSY && c->steps == 0 && !c->again)
        return r;
    if (r < 0 || s->q.error < 0)
        fail_harm(s->world, "space", "n%u: step %u of client %u's request %llu gets %s", s->slot, c->steps,
                  c->op->client, (ull)c->op->seq, cv_error_name(r ? r : s->q.error));
    if (s->q.replayed != c->again || s->q.changed == c->again)
        fail_harm(s->world, "exactly_once", "n%u: client %u's request %llu is %s", s->slot, c->op->client,
                  (ull)c->op->seq, c->again ? "executed twice" : "taken for a repetition");
    c->depends = max(c->depends, s->q.depends);
    c->head.slot = ++c->steps;
    return 0;
}

#define STEP(c, name, ...) step((c), MSG_##name, &(struct msg_##name){.head = (c)->head, ##__VA_ARGS__})

/* A new file of the right size. */
static int make(struct change *c, struct text name, uint64_t size)
{
    int r = STEP(c, mknod, .parent = META_ROOT, .name = name, .mode = S_IFREG | 0644);
    if (r < 0)
        return r;
    uint64_t inode = c->s->q.answer.mknod.attr.inode;
    if (!c->again)
        space_check_id(c->s->world, c->s->slot, inode);
    return size ? STEP(c, setattr, .inode = inode, .valid = SETATTR_SIZE, .size = size) : 0;
}

static int change(struct change *c, uint32_t plan)
{
    const struct op *op = c->op;
    char key_text[8], new_text[8];
    struct text key = name_of(key_text, 'k', op->key), fresh = name_of(new_text, 'n', op->client);
    struct rec_attr attr;
    int r;
    switch ((enum space_plan)plan) {
    case SPACE_CREATE: return make(c, key, op->after);
    case SPACE_RESIZE:
        r = c->again ? 0 : look(c->s, key, &attr);
        if (r < 0)
            fail_harm(c->s->world, "space", "n%u: key %u is not there: %s", c->s->slot, op->key, cv_error_name(r));
        /* Again: whatever it was, the answer comes from the slot. */
        return STEP(c, setattr, .inode = c->again ? META_ROOT : attr.inode, .valid = SETATTR_SIZE, .size = op->after);
    case SPACE_REMOVE: return STEP(c, unlink, .parent = META_ROOT, .name = key);
    case SPACE_REPLACE:
    case SPACE_TAKE_ID:
        r = make(c, fresh, plan == SPACE_REPLACE ? op->after : 0);
        if (r < 0)
            return r;
        if (plan == SPACE_TAKE_ID)
            key = name_of(key_text, 'i', op->client);
        return STEP(c, rename, .parent = META_ROOT, .name = fresh, .new_parent = META_ROOT, .new_name = key);
    }
    return 0;
}

static struct change change_of(struct space *s, const struct op *op, bool again)
{
    const struct check *check = s->world->check;
    uint64_t sequence = SIM_MUTANT(space_sequence_anew) ? s->world->check->space_count++ + 1 : op->seq;
    return (struct change){
        .s = s, .op = op, .again = again, .head = {.session = check->space_sessions[op->client], .sequence = sequence}};
}

int space_execute(struct space *s, struct op *op, uint64_t *ret_depends)
{
    struct change c = change_of(s, op, false);
    if (op->type == OP_ID)
        op->plan = SPACE_TAKE_ID;
    else if (op->type == OP_REMOVE)
        op->plan = SPACE_REMOVE;
    else if (!version_exists(op->before))
        op->plan = SPACE_CREATE;
    else
        op->plan = (op->after >> 1) % 2 ? SPACE_RESIZE : SPACE_REPLACE;
    int r = change(&c, op->plan);
    *ret_depends = c.depends;
    return r;
}

void space_repeat(struct space *s, const struct op *op, uint64_t *ret_depends)
{
    struct change c = change_of(s, op, true);
    change(&c, op->plan);
    *ret_depends = c.depends;
}

void space_expect(struct space *s, uint32_t key, uint64_t version, bool negative, uint64_t *ret_depends)
{
    struct world *w = s->world;
    char text[8];
    struct rec_attr attr;
    struct text name = name_of(text, 'k', key);
    int r, wanted = version_exists(version) ? 0 : -ENOENT;
    if (negative && wanted) {
        struct rec_op_head head = {
            .session = w->check->space_sessions[0], .slot = SLOT_FAILS, .sequence = ++w->check->space_count};
        bool known = head.session && w->check->space_since[0] <= meta_applied(s->meta);
        r = known ? SEND(s, unlink, .head = head, .parent = META_ROOT, .name = name) : look(s, name, &attr);
        r = r < 0 ? r : s->q.error;
    } else {
        r = look(s, name, &attr);
    }
    *ret_depends = s->q.depends;
    if (r == -CV_NOT_FORMATTED && !meta_is_formatted(s->meta))
        r = -ENOENT; /* a follower, at the very beginning */
    if (r != wanted)
        fail_harm(w, "space", "n%u: key %u of version %llu: %s", s->slot, key, (ull)version, cv_error_name(r));
    if (r == 0 && attr.size != version)
        fail_harm(w, "space", "n%u: key %u has version %llu, expected %llu", s->slot, key, (ull)attr.size,
                  (ull)version);
}

/* ---- What comes before: the root, a session a client ---- */

enum space_client space_client(const struct space *s, uint32_t client)
{
    const struct check *c = s->world->check;
    if (!c->space_sessions[client])
        return SPACE_NO_SESSION;
    return c->space_since[client] <= meta_applied(s->meta) ? SPACE_READY : SPACE_BEHIND;
}

bool space_prepare(struct space *s, uint32_t client, uint64_t *ret_session)
{
    *ret_session = 0;
    if (!meta_is_formatted(s->meta)) {
        meta_request_reset(&s->q);
        meta_request_inner(&s->q, META_OP_format, 1);
        return run(s) == 0;
    }
    if (SEND(s, session_open, .host = TEXT("sim"), .program = TEXT("sim")) == -CV_BUSY)
        return space_inner(s);
    *ret_session = s->q.answer.session_open.session;
    space_check_id(s->world, s->slot, *ret_session);
    return true;
}

bool space_inner(struct space *s)
{
    meta_request_reset(&s->q);
    if (!s->led_term || !meta_next_inner(s->meta, &s->q))
        return false;
    run(s);
    return true;
}

/* ---- Batches ---- */

uint64_t space_open_number(const struct space *s)
{
    return meta_batch_now(s->meta).number;
}

uint64_t space_close(struct space *s, struct batch_data **data)
{
    struct meta_payload *p = meta_batch_close(s->meta);
    struct batch_data *b = *data;
    b->space_n = p ? p->n : 0;
    *data = sim_alloc(&s->world->arena, batch_size(b));
    memcpy(*data, b, batch_size(b) - b->space_n);
    if (!p)
        return 0;
    uint64_t number = p->batch;
    memcpy((uint8_t *)*data + batch_size(b) - p->n, p->bytes, p->n);
    meta_payload_unref(p);
    return number;
}

void space_committed(struct space *s, uint64_t number, uint64_t index)
{
    if (number > s->early)
        meta_batch_committed(s->meta, number, index);
    else if (index > meta_applied(s->meta))
        meta_skip(s->meta, index);
}

void space_undo(struct space *s, uint64_t from_number)
{
    if (!SIM_MUTANT(space_undo_forgotten) && from_number > s->early)
        meta_batch_undo(s->meta, from_number);
}

void space_apply(struct space *s, const struct sim_entry *e)
{
    const struct batch_data *b = (const void *)e->data;
    if (e->index <= meta_applied(s->meta))
        return;
    if (e->type != RAFT_BATCH || b->space_n == 0) {
        meta_skip(s->meta, e->index);
        return;
    }
    struct text payload = {(const char *)b + batch_size(b) - b->space_n, b->space_n};
    int r = meta_apply(s->meta, payload, e->index);
    if (r < 0)
        fail_harm(s->world, "space", "n%u: entry %llu cannot be applied: %s", s->slot, (ull)e->index, cv_error_name(r));
}

/* ---- Disk ---- */

void space_seal(struct space *s)
{
    uint64_t newest = space_open_number(s) - 1;
    if (SIM_MUTANT(space_rows_early) && newest > s->early && newest > meta_batch_last_committed(s->meta)) {
        meta_batch_committed(s->meta, newest, meta_applied(s->meta) + 1);
        s->early = newest;
    }
    if (!s->sealed)
        s->sealed = meta_delta_seal(s->meta);
}

const struct space_base *space_flush(struct space *s)
{
    space_seal(s);
    while (s->sealed) {
        s->view.rows = space_base_write(s->world, s->view.rows, s->sealed);
        meta_delta_written(s->meta, s->sealed);
        s->sealed = meta_delta_free(s->sealed);
        space_seal(s);
    }
    return s->view.rows;
}

/* ---- Looking ---- */

uint64_t space_digest(const struct space *s)
{
    return meta_digest(s->meta);
}

static uint64_t entry_hash(const struct rec_dir_entry *e)
{
    const struct rec_attr *a = &e->attr;
    const uint64_t fields[] = {e->inode, a->inode, a->mode, a->nlink, a->size, a->mtime_ns, a->ctime_ns, a->btime_ns};
    return hash_bytes(hash_bytes(e->type, e->name.p, e->name.n), fields, sizeof(fields));
}

uint64_t space_dump(struct space *s)
{
    char after[META_NAME_MAX + 1];
    struct text from = {after, 0};
    uint64_t hash = meta_is_formatted(s->meta);
    if (!hash)
        return 0;
    for (bool end = false; !end;) {
        int r = SEND(s, readdir, .inode = META_ROOT, .after = from, .max_entries = 5, .flags = READDIR_ATTR);
        if (r < 0 || s->q.error < 0)
            fail_harm(s->world, "space", "n%u: no listing: %s", s->slot, cv_error_name(r ? r : s->q.error));
        const struct msg_readdir_answer *a = &s->q.answer.readdir;
        end = a->end;
        rec_for_each (dir_entry, e, &a->entries) {
            hash += entry_hash(&e);
            from.n = e.name.n;
            memcpy(after, e.name.p, e.name.n);
        }
    }
    struct rec_attr root;
    SEND(s, getattr, .inode = META_ROOT);
    root = s->q.answer.getattr.attr;
    const uint64_t fields[] = {root.nlink, root.size, root.mtime_ns, root.ctime_ns};
    return hash_bytes(hash, fields, sizeof(fields));
}
