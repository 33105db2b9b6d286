/* SPDX-License-Identifier: Apache-2.0 */
/* Stretches against a map of bytes. */
#include "base/random.h"
#include "tests/unit/unit.h"
#include "worker/block_stretch.h"

#define BYTES 64u

static uint64_t map_of(const struct block_stretches *s)
{
    uint64_t map = 0;
    uint32_t last = 0;
    bool ended = false;
    for (int i = 0; i < BLOCK_STRETCHES; i++) {
        const struct block_stretch *t = &s->at[i];
        if (t->from == t->to) {
            ck_assert_uint_eq(t->to, 0);
            ended = true;
            continue;
        }
        ck_assert(!ended && t->from < t->to && (i == 0 || t->from > last)); /* in order, none touching the next */
        last = t->to;
        for (uint32_t b = t->from; b < t->to; b++)
            map |= 1ull << b;
    }
    return map;
}

static uint64_t bits(uint32_t from, uint32_t to)
{
    return from < to ? (to - from >= 64 ? ~0ull : ((1ull << (to - from)) - 1) << from) : 0;
}

static int runs(uint64_t map)
{
    return __builtin_popcountll(map & ~(map << 1));
}

TEST(stretches_are_what_a_map_of_bytes_says)
{
    struct prng random = {7};
    struct block_stretches s = {0};
    uint64_t map = 0;
    for (int i = 0; i < 200000; i++) {
        uint32_t from = (uint32_t)prng_below(&random, BYTES), to = from + (uint32_t)prng_below(&random, 12);
        to = to > BYTES ? BYTES : to;
        uint64_t changed = bits(from, to);
        struct block_stretch t;
        switch (prng_below(&random, 4)) {
        case 0: {
            bool room = runs(map | changed) <= BLOCK_STRETCHES;
            ck_assert_int_eq(block_stretches_add(&s, from, to), room);
            map |= room ? changed : 0;
            break;
        }
        case 1: /* more than that, perhaps: but nothing is missing */
            block_stretches_force(&s, from, to);
            ck_assert_uint_eq(map_of(&s) & (map | changed), map | changed);
            if (runs(map | changed) <= BLOCK_STRETCHES)
                ck_assert_uint_eq(map_of(&s), map | changed);
            map = map_of(&s);
            break;
        case 2:
            ck_assert_int_eq(block_stretches_sub(&s, from, to), (map & changed) != 0);
            map &= ~changed;
            if (runs(map) > BLOCK_STRETCHES) /* the lowest went */
                map &= map + (map & -map);
            break;
        default:
            ck_assert_int_eq(block_stretches_find(&s, from, to, &t), (map & changed) != 0);
            if (map & changed) {
                ck_assert_uint_eq(t.from, (uint32_t)__builtin_ctzll(map & changed));
                ck_assert_uint_eq(bits(t.from, t.to) & ~(map & changed), 0);
            }
            bool around =
                from > 0 && to < BYTES && from < to && (map & bits(from - 1, to + 1)) == bits(from - 1, to + 1);
            if (from < to)
                ck_assert_int_eq(block_stretches_surround(&s, from, to), around);
        }
        ck_assert_uint_eq(map_of(&s), map);
        ck_assert_int_eq(block_stretches_any(&s), map != 0);
    }
}

TEST(stretches_say_which_chunks_they_touch)
{
    struct block_stretches s = {0};
    ck_assert_uint_eq(block_stretches_chunks(&s), 0);
    ck_assert(block_stretches_add(&s, (1u << 20) - 1, (1u << 20) + 1));
    ck_assert(block_stretches_add(&s, 63u << 20, 64u << 20));
    ck_assert_uint_eq(block_stretches_chunks(&s), 3 | 1ull << 63);
}
