/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/meta_rig.h"

TEST(meta_makes_and_finds_names)
{
    struct rig g;
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    uint64_t f = make_file(&g, d, "f");
    ck_assert_int_eq(look(&g, d, "f"), 0);
    ck_assert_uint_eq(g.q.answer.lookup.attr.inode, f);
    ck_assert_int_eq(look(&g, d, "g"), -ENOENT);
    ck_assert_int_eq(look(&g, f, "g"), -ENOTDIR);
    ck_assert_int_eq(look(&g, 999, "g"), -ESTALE);
    rig_fini(&g);
}
