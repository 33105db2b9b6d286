/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "place/place.h"
#include "tests/unit/unit.h"

enum { MEMBERS = 10, BLOCKS = 100000 };

static void make(struct place_member m[MEMBERS])
{
    for (unsigned i = 0; i < MEMBERS; i++)
        m[i] = (struct place_member){.worker = 1000 + i * 7, .weight = 100, .in = true, .up = true};
}

TEST(blocks_are_spread_by_weight)
{
    struct place_member m[MEMBERS];
    make(m);
    m[3].weight = 300;
    unsigned of[MEMBERS] = {0};
    for (uint64_t inode = 0; inode < BLOCKS; inode++) {
        uint64_t worker;
        ck_assert_uint_eq(place_order(m, MEMBERS, inode, 0, 1, &worker), 1);
        of[(worker - 1000) / 7]++;
    }
    /* 3/12 and 1/12 of the blocks, within 5 %. */
    for (unsigned i = 0; i < MEMBERS; i++)
        ck_assert_uint_le(i == 3 ? (unsigned)abs((int)of[i] - 25000) * 20 : (unsigned)abs((int)of[i] - 8333) * 20,
                          i == 3 ? 25000 : 8333);
}

TEST(only_the_share_of_a_leaving_member_moves)
{
    struct place_member m[MEMBERS];
    make(m);
    for (uint64_t inode = 0; inode < BLOCKS / 10; inode++) {
        uint64_t before[3], after[3];
        m[5].in = true;
        ck_assert_uint_eq(place_order(m, MEMBERS, inode, 7, 3, before), 3);
        ck_assert(before[0] != before[1] && before[1] != before[2] && before[0] != before[2]);
        m[5].in = false;
        ck_assert_uint_eq(place_order(m, MEMBERS, inode, 7, 3, after), 3);
        unsigned j = 0;
        for (unsigned i = 0; i < 3; i++)
            if (before[i] != m[5].worker)
                ck_assert_uint_eq(before[i], after[j++]);
    }
}

TEST(the_order_of_the_map_does_not_matter_and_nobody_is_an_answer)
{
    struct place_member m[MEMBERS], turned[MEMBERS];
    make(m);
    for (unsigned i = 0; i < MEMBERS; i++)
        turned[i] = m[MEMBERS - 1 - i];
    for (uint64_t inode = 0; inode < 1000; inode++) {
        uint64_t a[MEMBERS + 2], b[MEMBERS + 2];
        ck_assert_uint_eq(place_order(m, MEMBERS, inode, 1, MEMBERS + 2, a), MEMBERS);
        ck_assert_uint_eq(place_order(turned, MEMBERS, inode, 1, MEMBERS + 2, b), MEMBERS);
        ck_assert_mem_eq(a, b, MEMBERS * sizeof(a[0]));
    }
    for (unsigned i = 0; i < MEMBERS; i++)
        m[i].in = false;
    uint64_t none;
    ck_assert_uint_eq(place_order(m, MEMBERS, 1, 1, 1, &none), 0);
}

TEST(the_answer_never_changes)
{
    /* Data lies where these answers say: another result is another cluster. */
    struct place_member m[MEMBERS];
    make(m);
    m[2].weight = 250;
    uint64_t all = 0;
    for (uint64_t inode = 1; inode <= 1000; inode++) {
        uint64_t first;
        place_order(m, MEMBERS, inode << 20, (uint32_t)inode, 1, &first);
        all = all * 31 + first;
    }
    ck_assert_uint_eq(all, 13959162597646073838u);
}
