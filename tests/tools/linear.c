/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/tools/linear.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define ANY         UINT64_MAX /* inode of a creation whose answer nobody saw: the first answer that shows it says which */
#define CONFIGS_MAX (1u << 20)

const char *const linear_names[LINEAR_TYPES] = {"create", "unlink", "lookup", "rename", "set", "list"};

/* ---- the namespace ------------------------------------------------------------------------------------------------------ */

struct place {
    uint64_t inode, value; /* inode 0: no such name */
};

struct config {
    struct place at[2];
    uint64_t happened; /* bit i: what is under way in slot i has */
};

static bool is(struct place *p, uint64_t inode)
{
    if (p->inode == ANY)
        p->inode = inode;
    return p->inode == inode;
}

/* What is said to be under a name, 0: nothing, is. */
static bool shows(struct place *p, uint64_t inode)
{
    return inode ? p->inode && is(p, inode) : !p->inode;
}

/* What has lost its names may still be there, open: also for a while when only a new leader does not know that it is not. So
 * a change of it may succeed, which nobody sees; that it does not exist is only true without a name. */
static bool set(struct config *c, const struct linear_op *o)
{
    struct place *p = NULL;
    for (int i = 0; i < 2; i++)
        if (c->at[i].inode == o->inode)
            p = &c->at[i];
    if (o->result == -ENOENT)
        return !p;
    for (int i = 0; !p && i < 2; i++)
        if (c->at[i].inode == ANY && is(&c->at[i], o->inode))
            p = &c->at[i];
    if (p)
        p->value = o->value;
    return true;
}

/* Let it happen. Returns whether that explains its answer; without one: whether it changes anything to explain. */
static bool happen(struct config *c, const struct linear_op *o)
{
    struct place *p = &c->at[o->name], *other = &c->at[!o->name];
    bool unknown = o->result == LINEAR_UNKNOWN, there = p->inode != 0;
    switch ((enum linear_type)o->type) {
    case LINEAR_CREATE:
        if (there)
            return o->result == -EEXIST;
        *p = (struct place){.inode = unknown ? ANY : o->inode};
        return unknown || o->result == 0;
    case LINEAR_UNLINK:
        if (!there)
            return o->result == -ENOENT;
        *p = (struct place){0};
        return unknown || o->result == 0;
    case LINEAR_RENAME:
        if (!there)
            return o->result == -ENOENT;
        *other = *p;
        *p = (struct place){0};
        return unknown || o->result == 0;
    case LINEAR_LOOKUP:
        if (!there)
            return o->result == -ENOENT;
        return o->result == 0 && is(p, o->inode) && p->value == o->value;
    case LINEAR_SET: return set(c, o);
    case LINEAR_LIST: return o->result == 0 && shows(&c->at[0], o->inode) && shows(&c->at[1], o->other);
    default: return false;
    }
}

/* ---- sets of configurations --------------------------------------------------------------------------------------------- */

struct set {
    struct config *list;
    uint32_t *table; /* place in list + 1; open addressing, at most half full */
    uint32_t count, room;
};

static void set_fini(struct set *s)
{
    free(s->list);
    free(s->table);
}

static void set_clear(struct set *s)
{
    if (s->count)
        memset(s->table, 0, 2ul * s->room * sizeof(*s->table));
    s->count = 0;
}

static uint32_t slot_of(const struct set *s, const struct config *c)
{
    uint32_t mask = 2 * s->room - 1, at = (uint32_t)hash_bytes(0, c, sizeof(*c)) & mask;
    while (s->table[at] && memcmp(&s->list[s->table[at] - 1], c, sizeof(*c)) != 0)
        at = (at + 1) & mask;
    return at;
}

static int set_grow(struct set *s)
{
    uint32_t room = s->room ? 2 * s->room : 64;
    if (room > CONFIGS_MAX)
        return -E2BIG;
    struct config *list = reallocarray(s->list, room, sizeof(*list));
    if (!list)
        return -ENOMEM;
    s->list = list;
    uint32_t *table = calloc(2ul * room, sizeof(*table));
    if (!table)
        return -ENOMEM;
    free(s->table);
    s->table = table;
    s->room = room;
    for (uint32_t i = 0; i < s->count; i++)
        s->table[slot_of(s, &s->list[i])] = i + 1;
    return 0;
}

static int set_add(struct set *s, const struct config *c)
{
    int r = s->count == s->room ? set_grow(s) : 0;
    if (r < 0)
        return r;
    uint32_t at = slot_of(s, c);
    if (s->table[at])
        return 0;
    s->list[s->count] = *c;
    s->table[at] = ++s->count;
    return 0;
}

/* ---- time --------------------------------------------------------------------------------------------------------------- */

struct check {
    struct linear_op *ops;
    size_t open[LINEAR_OPEN]; /* by slot: the operation under way + 1; 0: free */
    struct set now, next;
};

/* The operation in slot is answered: it has happened in every configuration that goes on. */
static int answered(struct check *k, unsigned slot)
{
    const uint64_t bit = 1ull << slot;
    set_clear(&k->next);
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < k->now.count; i++) { /* grows while we look */
        struct config c = k->now.list[i];
        if (c.happened & bit) {
            c.happened &= ~bit;
            r = set_add(&k->next, &c);
            continue;
        }
        for (unsigned p = 0; r == 0 && p < LINEAR_OPEN; p++) {
            struct config after = c;
            if (!k->open[p] || c.happened & 1ull << p || !happen(&after, &k->ops[k->open[p] - 1]))
                continue;
            after.happened |= 1ull << p;
            r = set_add(&k->now, &after);
        }
    }
    struct set empty = k->now;
    k->now = k->next;
    k->next = empty;
    k->open[slot] = 0;
    return r < 0 ? r : k->now.count ? 0 : -EILSEQ;
}

static int called(struct check *k, size_t op)
{
    for (unsigned i = 0; i < LINEAR_OPEN; i++)
        if (!k->open[i]) {
            k->open[i] = op + 1;
            return 0;
        }
    return -E2BIG;
}

/* The slot that is answered next, before (not at) the time; LINEAR_OPEN: none. */
static unsigned next_answer(const struct check *k, uint64_t before_ns)
{
    unsigned found = LINEAR_OPEN;
    for (unsigned i = 0; i < LINEAR_OPEN; i++) {
        const struct linear_op *o = k->open[i] ? &k->ops[k->open[i] - 1] : NULL;
        if (!o || o->result == LINEAR_UNKNOWN || o->answer_ns >= before_ns)
            continue;
        if (found == LINEAR_OPEN || o->answer_ns < k->ops[k->open[found] - 1].answer_ns)
            found = i;
    }
    return found;
}

static int run(struct check *k, size_t count, size_t *bad)
{
    const struct config empty = {0};
    int r = set_add(&k->now, &empty);
    for (size_t i = 0; r == 0 && i <= count; i++) {
        unsigned slot;
        while (r == 0 && (slot = next_answer(k, i < count ? k->ops[i].call_ns : UINT64_MAX)) < LINEAR_OPEN) {
            *bad = k->open[slot] - 1;
            r = answered(k, slot);
        }
        if (r == 0 && i < count) {
            *bad = i;
            r = called(k, i);
        }
    }
    return r;
}

static int by_call(const void *a, const void *b)
{
    const struct linear_op *x = a, *y = b;
    return x->call_ns < y->call_ns ? -1 : x->call_ns > y->call_ns;
}

int linear_check(struct linear_op *ops, size_t count, size_t *ret_bad)
{
    struct check k = {.ops = ops};
    size_t bad = 0;
    int r = 0;
    if (count)
        qsort(ops, count, sizeof(*ops), by_call);
    for (size_t i = 0; r == 0 && i < count; i++)
        if (ops[i].type >= LINEAR_TYPES || ops[i].name > 1 ||
            (ops[i].result != LINEAR_UNKNOWN && ops[i].answer_ns < ops[i].call_ns)) {
            bad = i;
            r = -EINVAL;
        }
    if (r == 0)
        r = run(&k, count, &bad);
    set_fini(&k.now);
    set_fini(&k.next);
    if (r < 0 && ret_bad)
        *ret_bad = bad;
    return r;
}
