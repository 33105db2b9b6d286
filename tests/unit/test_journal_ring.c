/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of the newest entries. */
#include "raft/journal_ring.h"

#include "base/error.h"
#include "base/random.h"
#include "tests/unit/unit.h"

static struct journal_record *add(struct journal_ring *r, uint64_t index, uint32_t size)
{
    struct journal_record *record;
    ck_assert_int_eq(journal_ring_alloc(r, size, &record), 0);
    memset(record->data, (int)(index & 0xff), size);
    journal_ring_add(r, record, index, 1);
    return record;
}

static void check(const struct journal_ring *r, uint64_t index)
{
    struct journal_record *record = journal_ring_find(r, index);
    ck_assert_ptr_nonnull(record);
    ck_assert_uint_eq(record->entry.index, index);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < record->entry.size; i++)
        wrong += record->entry.data[i] != (index & 0xff);
    ck_assert_uint_eq(wrong, 0);
}

TEST(the_newest_entries_stay_and_the_oldest_give_way)
{
    struct journal_ring *r;
    ck_assert_int_eq(journal_ring_new(1 << 20, 1 << 20, &r), 0);
    struct prng p = {1};
    for (uint64_t i = 1; i < 5000; i++) {
        journal_ring_unpin(r, add(r, i, prng_below(&p, 3000)));
        check(r, i);
        ck_assert_uint_le(journal_ring_used(r), 1 << 20);
        ck_assert_uint_eq(journal_ring_pinned(r), 0);
    }
    uint64_t there = 4999;
    while (journal_ring_find(r, there))
        check(r, there--);
    ck_assert_uint_lt(there, 4600);
    for (; there > 0; there--) /* one contiguous range */
        ck_assert_ptr_null(journal_ring_find(r, there));
    r = journal_ring_free(r);
}

TEST(pinned_entries_are_never_overwritten)
{
    struct journal_ring *r;
    ck_assert_int_eq(journal_ring_new(100 << 10, 100 << 10, &r), 0);
    struct journal_record *held[200], *record;
    uint64_t i = 1, first = 1;
    struct prng p = {7};
    for (int round = 0; round < 3000; round++) {
        while (i - first < 200 && journal_ring_alloc(r, prng_below(&p, 9000), &record) == 0) {
            memset(record->data, (int)(i & 0xff), record->entry.size);
            journal_ring_add(r, record, i, 1);
            held[i++ % 200] = record;
        }
        ck_assert_uint_gt(i, first); /* everything pinned is never less than one record */
        for (uint64_t k = first; k < i; k++)
            check(r, k);
        for (uint32_t n = 1 + prng_below(&p, 8); n && first < i; n--)
            journal_ring_unpin(r, held[first++ % 200]);
    }
    ck_assert_int_eq(journal_ring_alloc(r, 200 << 10, &record), -CV_BUSY);
    while (first < i)
        journal_ring_unpin(r, held[first++ % 200]);
    ck_assert_uint_eq(journal_ring_pinned(r), 0);
    r = journal_ring_free(r);
}

TEST(what_may_not_be_refused_gets_memory_of_its_own)
{
    struct journal_ring *r;
    ck_assert_int_eq(journal_ring_new(10 << 10, 10 << 10, &r), 0);
    struct journal_record *pinned = add(r, 1, 9000), *record;
    ck_assert_int_eq(journal_ring_alloc(r, 5000, &record), -CV_BUSY);
    ck_assert_int_eq(journal_ring_alloc_always(r, 5000, &record), 0);
    memset(record->data, 2, 5000);
    journal_ring_add(r, record, 2, 1);
    check(r, 2);
    check(r, 1);
    journal_ring_unpin(r, record); /* gone with its pin */
    ck_assert_ptr_null(journal_ring_find(r, 2));
    journal_ring_unpin(r, pinned);
    journal_ring_unpin(r, add(r, 3, 100));
    check(r, 3);
    ck_assert_int_eq(journal_ring_alloc(r, 9500, &record), 0); /* evicts all */
    ck_assert_int_eq(journal_ring_alloc_always(r, 5000, &record), 0);
    journal_ring_add(r, record, 4, 1);
    journal_ring_truncate(r, 4);
    ck_assert_ptr_null(journal_ring_find(r, 4));
    journal_ring_unpin(r, record);
    r = journal_ring_free(r);
}

TEST(a_truncated_entry_is_replaced)
{
    struct journal_ring *r;
    ck_assert_int_eq(journal_ring_new(1 << 20, 2 << 20, &r), 0);
    for (uint64_t i = 1; i <= 20; i++)
        journal_ring_unpin(r, add(r, i, 100));
    journal_ring_truncate(r, 11);
    ck_assert_ptr_null(journal_ring_find(r, 11));
    check(r, 10);
    struct journal_record *record = add(r, 11, 50);
    ck_assert_ptr_eq(journal_ring_find(r, 11), record);
    journal_ring_unpin(r, record);
    journal_ring_truncate(r, 1);
    ck_assert_ptr_null(journal_ring_find(r, 1));
    journal_ring_unpin(r, add(r, 1, 50));
    check(r, 1);
    journal_ring_unpin(r, add(r, 500, 50)); /* behind a snapshot */
    ck_assert_ptr_null(journal_ring_find(r, 1));
    check(r, 500);
    journal_ring_resize(r, 2 << 20);
    uint64_t i;
    for (i = 501; i < 5000; i++)
        journal_ring_unpin(r, add(r, i, 1000));
    ck_assert_uint_gt(journal_ring_used(r), 3 << 19);
    check(r, i - 1500);
    journal_ring_resize(r, 1 << 18);
    for (; i < 9000; i++)
        journal_ring_unpin(r, add(r, i, 1000));
    ck_assert_uint_le(journal_ring_used(r), 1 << 18);
    check(r, i - 1);
    r = journal_ring_free(r);
}
