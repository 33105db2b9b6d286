/* SPDX-License-Identifier: Apache-2.0 */
/* The linearizability checker: it must take what one namespace explains, and nothing else. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/random.h"
#include "tests/tools/linear.h"

#define OPS_MAX 4096

static struct linear_op ops[OPS_MAX];
static size_t count;

/* One operation from call to answer. */
static struct linear_op *op(uint64_t call, uint64_t answer, enum linear_type type, unsigned name, int32_t result)
{
    ck_assert_uint_lt(count, OPS_MAX);
    struct linear_op *o = &ops[count++];
    *o = (struct linear_op){
        .call_ns = call, .answer_ns = answer, .type = (uint8_t)type, .name = (uint8_t)name, .result = result};
    return o;
}

static void create(uint64_t call, uint64_t answer, unsigned name, uint64_t inode)
{
    op(call, answer, LINEAR_CREATE, name, inode ? 0 : -EEXIST)->inode = inode;
}

static void set(uint64_t call, uint64_t answer, uint64_t inode, uint64_t value)
{
    struct linear_op *o = op(call, answer, LINEAR_SET, 0, 0);
    o->inode = inode;
    o->value = value;
}

/* inode 0: no such name. */
static void look(uint64_t call, uint64_t answer, unsigned name, uint64_t inode, uint64_t value)
{
    struct linear_op *o = op(call, answer, LINEAR_LOOKUP, name, inode ? 0 : -ENOENT);
    o->inode = inode;
    o->value = value;
}

static void list(uint64_t call, uint64_t answer, uint64_t first, uint64_t second)
{
    struct linear_op *o = op(call, answer, LINEAR_LIST, 0, 0);
    o->inode = first;
    o->other = second;
}

static int verdict(void)
{
    size_t bad = SIZE_MAX;
    int r = linear_check(ops, count, &bad);
    if (r < 0)
        ck_assert_uint_lt(bad, count);
    count = 0;
    return r;
}

static void accepted(void)
{
    ck_assert_int_eq(verdict(), 0);
}

static void rejected(void)
{
    ck_assert_int_eq(verdict(), -EILSEQ);
}

/* ---- what must be taken ----------------------------------------------------------------------------------------------- */

TEST(nothing_is_linearizable)
{
    accepted();
}

TEST(one_after_another_is_taken)
{
    create(1, 2, 0, 7);
    look(3, 4, 0, 7, 0);
    create(5, 6, 0, 0);
    set(7, 8, 7, 3);
    look(9, 10, 0, 7, 3);
    op(11, 12, LINEAR_RENAME, 0, 0);
    look(13, 14, 0, 0, 0);
    list(15, 16, 0, 7);
    set(17, 18, 7, 4);
    look(19, 20, 1, 7, 4);
    op(21, 22, LINEAR_UNLINK, 1, 0);
    op(23, 24, LINEAR_UNLINK, 1, -ENOENT);
    op(25, 26, LINEAR_SET, 0, -ENOENT)->inode = 7;
    op(27, 28, LINEAR_RENAME, 1, -ENOENT);
    list(29, 30, 0, 0);
    accepted();
}

TEST(what_overlaps_may_have_happened_in_any_order)
{
    create(1, 10, 0, 7);
    create(1, 10, 0, 0); /* after it */
    look(2, 9, 0, 0, 0); /* before */
    look(2, 9, 0, 7, 5);
    set(3, 10, 7, 5);
    accepted();
}

TEST(an_operation_without_an_answer_may_have_happened_or_not_or_late)
{
    for (int late = 0; late < 3; late++) {
        create(1, 2, 0, 7);
        op(3, 0, LINEAR_UNLINK, 0, LINEAR_UNKNOWN);
        if (late < 2)
            look(4, 5, 0, late ? 7 : 0, 0);
        if (late)
            look(100, 101, 0, late == 2 ? 7 : 0, 0);
        accepted();
    }
}

TEST(the_inode_of_a_creation_without_an_answer_is_learned)
{
    op(1, 0, LINEAR_CREATE, 0, LINEAR_UNKNOWN);
    look(5, 6, 0, 9, 0);
    look(7, 8, 0, 9, 0);
    accepted();
    op(1, 0, LINEAR_CREATE, 0, LINEAR_UNKNOWN);
    look(5, 6, 0, 9, 0);
    look(7, 8, 0, 10, 0); /* not two */
    rejected();
}

/* ---- what must be refused ----------------------------------------------------------------------------------------------- */

TEST(a_stale_read_is_refused)
{
    create(1, 2, 0, 7);
    set(3, 4, 7, 1);
    set(5, 6, 7, 2);
    look(7, 8, 0, 7, 1);
    rejected();
}

TEST(a_stale_name_is_refused)
{
    create(1, 2, 0, 7);
    op(3, 4, LINEAR_UNLINK, 0, 0);
    look(5, 6, 0, 7, 0);
    rejected();
}

TEST(two_readers_cannot_see_changes_in_different_orders)
{
    create(1, 2, 0, 7);
    set(3, 20, 7, 1);
    set(3, 20, 7, 2);
    look(4, 5, 0, 7, 1);
    look(6, 7, 0, 7, 2);
    accepted();
    create(1, 2, 0, 7);
    set(3, 20, 7, 1);
    set(3, 20, 7, 2);
    look(4, 5, 0, 7, 1);
    look(6, 7, 0, 7, 2);
    look(8, 9, 0, 7, 1);
    rejected();
}

TEST(a_lost_write_is_refused)
{
    create(1, 2, 0, 7);
    set(3, 4, 7, 1);
    look(50, 60, 0, 7, 0);
    rejected();
    create(1, 2, 0, 7);
    look(50, 60, 0, 0, 0);
    rejected();
}

TEST(a_lost_creation_shows_in_the_next_one)
{
    create(1, 2, 0, 7);
    create(3, 4, 0, 8);
    rejected();
}

TEST(a_doubled_operation_is_refused)
{
    create(1, 9, 0, 0); /* executed, and once more by its retry: "exists" */
    look(10, 11, 0, 7, 0);
    rejected();
    create(1, 2, 0, 7);
    op(3, 9, LINEAR_UNLINK, 0, -ENOENT);
    look(10, 11, 0, 0, 0);
    rejected();
    create(1, 2, 0, 7);
    op(3, 9, LINEAR_RENAME, 0, -ENOENT);
    list(10, 11, 0, 7);
    rejected();
    create(1, 2, 0, 7); /* a set that comes again after another one */
    set(3, 4, 7, 1);
    set(5, 6, 7, 2);
    look(7, 8, 0, 7, 2);
    look(9, 10, 0, 7, 1);
    rejected();
}

TEST(a_negative_answer_that_vanishes_is_refused)
{
    create(1, 2, 0, 7);
    op(3, 0, LINEAR_UNLINK, 0, LINEAR_UNKNOWN); /* taken back with its leader */
    look(4, 5, 0, 0, 0);                        /* and shown before it was safe */
    look(10, 11, 0, 7, 0);
    rejected();
}

TEST(an_error_that_vanishes_is_refused)
{
    op(1, 0, LINEAR_CREATE, 0, LINEAR_UNKNOWN);
    create(2, 3, 0, 0); /* it exists */
    look(4, 5, 0, 0, 0);
    rejected();
}

TEST(what_has_lost_its_name_may_still_be_changed_and_what_has_one_exists)
{
    create(1, 2, 0, 7);
    op(3, 4, LINEAR_UNLINK, 0, 0);
    set(5, 6, 7, 1);
    op(7, 8, LINEAR_SET, 0, -ENOENT)->inode = 7;
    look(9, 10, 0, 0, 0);
    accepted();
    create(1, 2, 0, 7);
    op(3, 4, LINEAR_SET, 0, -ENOENT)->inode = 7;
    rejected();
}

TEST(a_rename_is_one_moment)
{
    create(1, 2, 0, 7);
    op(3, 20, LINEAR_RENAME, 0, 0);
    list(4, 5, 7, 7);
    rejected();
    create(1, 2, 0, 7);
    op(3, 20, LINEAR_RENAME, 0, 0);
    list(4, 5, 0, 0);
    rejected();
}

TEST(nonsense_is_refused_as_such)
{
    op(5, 4, LINEAR_UNLINK, 0, -ENOENT);
    ck_assert_int_eq(verdict(), -EINVAL);
    op(5, 6, LINEAR_TYPES, 0, 0);
    ck_assert_int_eq(verdict(), -EINVAL);
    for (int i = 0; i <= LINEAR_OPEN; i++)
        op(1, 2, LINEAR_UNLINK, 0, -ENOENT);
    ck_assert_int_eq(verdict(), -E2BIG);
}

/* ---- by chance ---------------------------------------------------------------------------------------------------------- */

/* A true history: each operation happens at a moment of its own, between call and answer. */
struct truth {
    uint64_t inode[2], value[2];
    uint64_t inodes;
};

static void truly(struct truth *t, struct linear_op *o, struct prng *p)
{
    unsigned n = o->name, other = !n;
    bool there = t->inode[n] != 0;
    switch ((enum linear_type)o->type) {
    case LINEAR_CREATE:
        o->result = there ? -EEXIST : 0;
        if (there)
            return;
        o->inode = t->inode[n] = ++t->inodes;
        t->value[n] = 0;
        return;
    case LINEAR_UNLINK:
        o->result = there ? 0 : -ENOENT;
        t->inode[n] = 0;
        return;
    case LINEAR_RENAME:
        o->result = there ? 0 : -ENOENT;
        if (!there)
            return;
        t->inode[other] = t->inode[n];
        t->value[other] = t->value[n];
        t->inode[n] = 0;
        return;
    case LINEAR_LOOKUP:
        o->result = there ? 0 : -ENOENT;
        o->inode = t->inode[n];
        o->value = there ? t->value[n] : 0;
        return;
    case LINEAR_SET:
        o->inode = there ? t->inode[n] : 1 + prng_below(p, t->inodes + 1);
        o->value = prng_below(p, 1u << 30);
        o->result = -ENOENT;
        for (unsigned i = 0; i < 2; i++)
            if (t->inode[i] == o->inode) {
                t->value[i] = o->value;
                o->result = 0;
            }
        return;
    default: o->inode = t->inode[0]; o->other = t->inode[1];
    }
}

static void invent(struct prng *p, unsigned n, unsigned clients)
{
    struct truth t = {0};
    uint64_t busy[16] = {0}, moment = 100;
    for (unsigned i = 0; i < n; i++) {
        unsigned c = (unsigned)prng_below(p, clients);
        moment = max(moment, busy[c]) + 2 + prng_below(p, 10); /* of each operation, in order */
        uint64_t call = max(busy[c] + 1, moment - prng_below(p, 60)), answer = moment + prng_below(p, 60);
        struct linear_op *o =
            op(min(call, moment), answer, (enum linear_type)prng_below(p, LINEAR_TYPES), (unsigned)prng_below(p, 2), 0);
        busy[c] = answer;
        truly(&t, o, p);
        if (prng_below(p, 100) == 0 && o->type != LINEAR_LOOKUP && o->type != LINEAR_LIST && o->result == 0 && n < 200)
            o->result = LINEAR_UNKNOWN;
    }
}

TEST(true_histories_are_taken)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct prng p = {seed};
        invent(&p, seed % 10 ? 100 : 4000, 2 + (unsigned)seed % 6);
        size_t bad;
        int r = linear_check(ops, count, &bad);
        ck_assert_msg(r == 0, "seed %d: %d", (int)seed, r);
        count = 0;
    }
}

/* One answer is changed: nearly always nothing explains it any more. */
TEST_TIMEOUT(true_histories_with_one_false_answer_are_refused, 60)
{
    int refused = 0, all = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct prng p = {seed};
        invent(&p, 300, 3);
        struct linear_op *o = &ops[prng_below(&p, count)];
        if (o->type == LINEAR_LIST)
            o->other += 1000;
        else if (o->type == LINEAR_LOOKUP && o->result == 0)
            o->value ^= 1ull << 40;
        else if (o->result == 0)
            o->result = o->type == LINEAR_CREATE ? -EEXIST : -ENOENT;
        else
            continue;
        all++;
        refused += verdict() == -EILSEQ;
        count = 0;
    }
    ck_assert_int_gt(all, 150);
    ck_assert_int_ge(refused, all * 8 / 10);
}
