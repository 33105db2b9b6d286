/* SPDX-License-Identifier: Apache-2.0 */
/* A later incarnation of the cluster: what an earlier one may have given out is not given out again. */
#include <fcntl.h>

#include "tests/unit/meta_rig.h"

static struct rig g;

static uint64_t make(const char *name)
{
    ck_assert_int_eq(SEND(&g, mkdir, .parent = META_ROOT, .name = text_of(name), .mode = 0755), 0);
    return g.q.answer.mkdir.attr.inode;
}

TEST(a_later_incarnation_jumps_with_ids_when_it_is_committed_and_not_before)
{
    rig_init(&g, NULL);
    uint64_t before = make("a");
    rig_commit(&g);
    ck_assert_uint_eq(meta_incarnation(g.m), 1);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 1), 0);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    ck_assert_uint_eq(meta_incarnation(g.m), 2);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = META_ROOT, .name = TEXT("b"), .mode = 0755), -CV_BUSY);
    rig_commit(&g);
    uint64_t after = make("b");
    ck_assert_uint_ge(after, before + INCARNATION_STEP);
    rig_commit(&g);

    /* It stays so after a crash, and the next one jumps again. */
    rig_crash(&g, g.log_count);
    ck_assert_uint_eq(meta_incarnation(g.m), 2);
    uint64_t again = make("c");
    ck_assert_uint_gt(again, after);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 5), 0);
    rig_commit(&g);
    ck_assert_uint_ge(make("d"), 4 * INCARNATION_STEP);
    rig_fini(&g);
}

TEST(an_incarnation_whose_batch_is_lost_was_never_begun)
{
    rig_init(&g, NULL);
    uint64_t first = make("a");
    rig_close(&g); /* in flight, of incarnation 1 */
    uint64_t kept = g.log_count;
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    rig_close(&g);
    rig_commit_to(&g, kept); /* only the one before is committed */
    rig_flush(&g);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert_uint_eq(s.state.incarnation, 1);
    rig_crash(&g, kept);
    ck_assert_uint_eq(meta_incarnation(g.m), 1);
    uint64_t second = make("b");
    ck_assert(second > first && second < INCARNATION_STEP);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    meta_batch_undo(g.m, meta_batch_now(g.m).number);
    ck_assert_uint_eq(meta_incarnation(g.m), 1);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    rig_commit(&g);
    ck_assert_uint_ge(make("c"), INCARNATION_STEP);
    rig_fini(&g);
}

TEST(block_versions_and_epochs_of_a_later_incarnation_are_above_all_of_an_earlier_one)
{
    const struct meta_options o = {.block_shift = 12, .replicas = 1};
    rig_init(&g, &o);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .mode = 0644, .flags = O_RDWR), 0);
    uint64_t inode = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    ck_assert_int_eq(SEND(&g, write_grant, .inode = inode, .handle = handle, .count = 1), 0);
    rec_for_each (extent, e, &g.q.answer.write_grant.layout.extents)
        ck_assert_uint_eq(e.epoch, 1);
    rig_commit(&g);
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 3), 0);
    rig_commit(&g);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = inode, .handle = handle, .first_block = 1, .count = 1), 0);
    rec_for_each (extent, x, &g.q.answer.write_grant.layout.extents) {
        ck_assert_uint_gt(x.epoch, 2 * INCARNATION_STEP);
        ck_assert_uint_eq(x.version, x.epoch);
    }
    rig_fini(&g);
}

TEST(a_namespace_that_begins_in_a_later_incarnation_begins_with_its_ids)
{
    struct store store = {0};
    g = (struct rig){.base = store_base(&store)};
    meta_request_init(&g.q);
    ck_assert_int_eq(meta_new(NULL, &g.base, &g.m), 0);
    meta_lead(g.m, 1);
    ck_assert_int_eq(rig_inner(&g, META_OP_format, 3), 0);
    rig_commit(&g);
    rig_open_session(&g, 0);
    ck_assert_uint_ge(make("a"), 2 * INCARNATION_STEP);
    rig_fini(&g);
}
