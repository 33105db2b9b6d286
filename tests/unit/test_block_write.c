/* SPDX-License-Identifier: Apache-2.0 */
/* On RocksDB: not for the thread sanitizer (test_block_threads.c is). */
#include "tests/unit/block_test.h"
#include "wire/data_flags.h"

/* Write the pattern of k to [offset, offset + n). */
static int write_pattern(struct block_store *s, struct block_key k, uint64_t epoch, uint32_t offset, uint32_t n)
{
    char *p cleanup(freep) = malloc(n);
    pattern(&k, offset, p, n);
    return block_write(s, &k, epoch, offset, p, n);
}

TEST(block_write_makes_a_new_file_that_reads_back)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(5, 0, 1);
    struct block_grant g = grant_of(5, 0, 1, 1, 0);
    ck_error(write_pattern(s, k, 1, 0, 100), -CV_STALE_EPOCH);
    ck_ok(block_write_begin(s, &g));
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, k, 1, 0, 100));
    ck_assert_uint_eq(status_of(s).used_bytes, 64 * KIB); /* a small file is charged a small room */
    ck_ok(write_pattern(s, k, 1, 100, 300 * KIB));
    ck_ok(check(s, k, 100 + 300 * KIB));
    ck_ok(write_pattern(s, k, 1, 2 * MIB + 7, 1000));
    struct block_presence p = presence_of(s, 5, 0);
    ck_assert_uint_eq(p.open, 5);
    ck_assert_uint_eq(p.readable, 7);
    ck_assert_uint_eq(p.length, 2 * MIB + 1007);
    ck_assert(p.dirty);
    static char zeros[1000], got[1000];
    ck_assert_int_eq(block_read(s, &k, MIB + 500, got, 1000), 1000);
    ck_assert_mem_eq(got, zeros, 1000);
    ck_error(write_pattern(s, k, 1, TEST_BLOCK - 10, 11), -EINVAL);
    s = test_reopen(s, 64 * MIB);
    ck_ok(check(s, k, 100 + 300 * KIB));
    ck_ok(check_as(s, k, k, 2 * MIB + 7, 1000));
    ck_ok(write_pattern(s, k, 1, MIB, MIB));
    ck_ok(check_as(s, k, k, MIB, MIB));
    block_store_free(s);
}

TEST(block_write_refuses_older_epochs_for_ever)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_grant g = grant_of(5, 0, 4, 9, 0), older = grant_of(5, 0, 5, 8, 0);
    ck_ok(block_write_begin(s, &g));
    ck_error(block_write_begin(s, &older), -CV_STALE_EPOCH);
    ck_ok(write_pattern(s, g.key, 9, 0, MIB));
    ck_error(write_pattern(s, g.key, 8, 0, MIB), -CV_STALE_EPOCH);
    ck_ok(block_write_clean(s, &g.key, 9));
    uint64_t freed;
    ck_error(block_store_evict(s, 64 * MIB, &freed), -CV_NO_SPACE);
    ck_assert_uint_eq(freed, MIB);
    s = test_reopen(s, 64 * MIB);
    ck_error(check(s, g.key, 100), -ENODATA);
    ck_error(block_write_begin(s, &older), -CV_STALE_EPOCH); /* of the data nothing is left, but the epoch is */
    ck_ok(fill(s, key_of(5, 0, 4), place_of(2 * MIB, 2 * MIB)));
    ck_error(block_write_begin(s, &older), -CV_STALE_EPOCH);
    struct block_grant newer = grant_of(5, 0, 5, 10, 2 * MIB);
    newer.base_version = 4;
    newer.base_length = 2 * MIB;
    ck_ok(block_write_begin(s, &newer));
    block_store_free(s);
}

TEST(block_write_carries_the_base_over_and_asks_for_what_is_missing)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key base = key_of(5, 0, 1), k = key_of(5, 0, 2);
    struct block_place place = place_of(3 * MIB, 3 * MIB);
    ck_ok(fill_as(s, &base, &base, &place, 0, 1, place.length, 0));
    struct block_grant g = grant_of(5, 0, 2, 1, 3 * MIB);
    g.base_version = 1;
    g.base_length = 3 * MIB;
    ck_ok(block_write_begin(s, &g));
    ck_error(check(s, base, 100), -ENODATA);
    ck_ok(check_as(s, k, base, 0, MIB)); /* the same bytes under the new version */
    ck_ok(write_pattern(s, k, 1, 1000, 5000));
    ck_ok(check_as(s, k, base, 0, 1000));
    ck_ok(check_as(s, k, k, 1000, 5000));
    ck_ok(check_as(s, k, base, 6000, MIB - 6000));
    ck_error(write_pattern(s, k, 1, MIB + 100, 100), -ENODATA); /* its surroundings are not here */
    ck_error(check_as(s, k, base, MIB, 100), -ENODATA);
    ck_ok(fill_as(s, &k, &base, &place, 1, 1, place.length, 0));
    ck_ok(write_pattern(s, k, 1, MIB + 100, 100));
    ck_ok(check_as(s, k, base, MIB, 100));
    ck_ok(check_as(s, k, k, MIB + 100, 100));
    ck_ok(write_pattern(s, k, 1, 2 * MIB, MIB)); /* wholly overwritten: nothing to fetch */
    ck_ok(check_as(s, k, k, 2 * MIB, MIB));
    s = test_reopen(s, 64 * MIB);
    ck_ok(check_as(s, k, base, 0, 1000));
    ck_ok(check_as(s, k, k, 2 * MIB, MIB));
    block_store_free(s);
}

TEST(block_write_of_a_packed_file_unpacks_it)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key base = key_of(5, 0, 1), k = key_of(5, 0, 2);
    ck_ok(fill(s, base, place_of(50000, 50000)));
    struct block_grant g = grant_of(5, 0, 2, 1, 50000);
    g.base_version = 1;
    g.base_length = 50000;
    ck_ok(block_write_begin(s, &g));
    ck_ok(check_as(s, k, base, 0, 50000));
    ck_ok(write_pattern(s, k, 1, 40000, 200000));
    ck_ok(check_as(s, k, base, 0, 40000));
    ck_ok(check_as(s, k, k, 40000, 200000));
    ck_assert(!presence_of(s, 5, 0).packed);
    block_store_free(s);
}

TEST(block_write_cuts_to_the_valid_length_and_what_follows_is_zeros)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key base = key_of(5, 0, 1), k = key_of(5, 0, 2), k3 = key_of(5, 0, 3);
    struct block_place place = place_of(4 * MIB, 4 * MIB);
    ck_ok(fill_as(s, &base, &base, &place, 0, 3, place.length, 0)); /* chunk 3 is not here */
    struct block_grant g = grant_of(5, 0, 2, 1, MIB + 1000);
    g.base_version = 1;
    g.base_length = 4 * MIB;
    ck_ok(block_write_begin(s, &g));
    ck_ok(check_as(s, k, base, 0, MIB + 1000));
    char got[4096], zeros[4096] = {0};
    ck_assert_int_eq(block_read(s, &k, MIB + 1000, got, 100), 0);
    ck_assert_uint_eq(test_disk_bytes(), MIB + 4096);
    g = grant_of(5, 0, 3, 2, MIB + 1000); /* longer again: zeros, not the old bytes, and not the base */
    g.base_version = 1;
    g.base_length = MIB + 1000;
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, k3, 2, 4 * MIB - 1, 1));
    for (uint32_t at = MIB + 1000; at < 4 * MIB - sizeof(got); at += sizeof(got)) {
        int n = block_read(s, &k3, at, got, sizeof(got));
        ck_assert_int_gt(n, 0);
        ck_assert_mem_eq(got, zeros, (size_t)n);
    }
    ck_ok(check_as(s, k3, base, 0, MIB + 1000));
    s = test_reopen(s, 64 * MIB);
    ck_ok(check_as(s, k3, base, 0, MIB + 1000));
    ck_assert_int_eq(block_read(s, &k3, 3 * MIB + 5, got, 100), 100);
    ck_assert_mem_eq(got, zeros, 100);
    block_store_free(s);
}

/* What is charged for data that is nowhere else. */
static uint64_t dirty_of(struct block_store *s)
{
    struct block_cursor cursor = {0};
    uint64_t bytes = 0;
    int n;
    while ((n = block_store_dirty(s, &cursor, 1, &bytes)) > 0)
        ;
    ck_assert_int_eq(n, 0);
    return bytes;
}

TEST(block_write_seals_and_becomes_clean_only_at_its_own_version_and_epoch)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(5, 0, 3);
    struct block_grant g = grant_of(5, 0, 3, 7, 0);
    uint64_t freed;
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, k, 7, 0, 2 * MIB + 100));
    ck_ok(block_write_seal(s, &k, 7));
    struct block_presence p = presence_of(s, 5, 0);
    ck_assert_uint_eq(p.sealed, 7);
    ck_assert(p.dirty);
    ck_assert_uint_eq(dirty_of(s), 2 * MIB + 4096);
    uint32_t crc[BLOCK_CHUNK_UNITS], length;
    ck_ok(block_read_crcs(s, &k, 2, true, crc, &length));
    ck_assert_uint_eq(length, 100);
    ck_error(block_store_evict(s, MIB, &freed), -CV_NO_SPACE);
    ck_assert_uint_eq(freed, 0);
    ck_error(block_write_clean(s, &(struct block_key){5, 2, 0}, 7), -CV_STALE_EPOCH);
    ck_error(block_write_clean(s, &k, 6), -CV_STALE_EPOCH);
    ck_assert(presence_of(s, 5, 0).dirty);
    ck_ok(write_pattern(s, k, 7, 2 * MIB + 50, MIB)); /* grows past a sealed chunk that was short */
    ck_ok(check(s, k, 3 * MIB + 50));
    ck_ok(block_write_clean(s, &k, 7));
    ck_ok(block_write_clean(s, &k, 7));
    p = presence_of(s, 5, 0);
    ck_assert(!p.dirty);
    ck_assert_uint_eq(dirty_of(s), 0);
    ck_assert_uint_eq(p.sealed, 0xf);
    ck_ok(check(s, k, 3 * MIB + 50));
    ck_error(write_pattern(s, k, 7, 0, 10), -CV_STALE_EPOCH); /* the under file system has this version */
    s = test_reopen(s, 64 * MIB);
    ck_ok(check(s, k, 3 * MIB + 50));
    ck_ok(block_store_evict(s, MIB, &freed));
    ck_error(check(s, k, 100), -ENODATA);
    ck_assert_uint_eq(status_of(s).used_bytes, 0);
    ck_assert_uint_eq(test_disk_bytes(), 0);
    block_store_free(s);
}

TEST(block_write_finds_its_length_again_after_a_kill)
{
    struct block_store *s = test_new(64 * MIB);
    block_store_free(s);
    pid_t child = fork();
    if (child == 0) {
        s = test_open(64 * MIB);
        struct block_grant g = grant_of(5, 1, 3, 7, 0), first = grant_of(5, 0, 3, 7, 0);
        ck_ok(block_write_begin(s, &first));
        ck_ok(block_write_begin(s, &g));
        ck_ok(write_pattern(s, g.key, 7, 0, MIB + 4321));
        ck_ok(write_pattern(s, first.key, 7, 0, 200));
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    s = test_open(64 * MIB);
    ck_assert_uint_eq(presence_of(s, 5, 1).length, MIB + 4321);
    ck_ok(check(s, key_of(5, 1, 3), MIB + 4321));
    ck_ok(check(s, key_of(5, 0, 3), 200));
    ck_ok(block_store_sync(s));
    block_store_free(s);
}

TEST(block_write_syncs_files_and_rows)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_grant g = grant_of(5, 0, 3, 7, 0);
    ck_ok(block_write_sync(s, 5));
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, g.key, 7, 0, 5000));
    uint64_t before = status_of(s).file_syncs;
    ck_ok(block_write_sync(s, 5));
    ck_assert_uint_eq(status_of(s).file_syncs, before + 1);
    block_store_free(s);
}

TEST(a_truncation_forgets_the_blocks_behind_the_end)
{
    struct block_store *s = test_new(256 * MIB);
    struct block_info found[8];
    struct block_cursor cursor = {0};
    struct block_store_status before, after;
    for (uint32_t i = 0; i < 4; i++) {
        struct block_key k = key_of(5, i, 10 + i);
        struct block_grant g = {.key = k, .epoch = 10 + i, .place = place_of(TEST_BLOCK, 16 * MIB)};
        g.place.length = 0;
        ck_ok(block_write_begin(s, &g));
        char data[4096] = "x";
        ck_ok(block_write(s, &k, 10 + i, 0, data, sizeof(data)));
    }
    block_store_status(s, &before);
    ck_ok(block_store_truncate(s, 5, TEST_BLOCK + 1, 12)); /* block 3 was granted anew since */
    block_store_status(s, &after);
    ck_assert_uint_lt(after.used_bytes, before.used_bytes);
    ck_assert_int_eq(block_store_list(s, &cursor, found, 8), 3);
    ck_assert_uint_eq(found[0].index, 0);
    ck_assert_uint_eq(found[1].index, 1);
    ck_assert_uint_eq(found[2].index, 3);
    ck_ok(block_store_truncate(s, 5, 0, 20));
    cursor = (struct block_cursor){0};
    ck_assert_int_eq(block_store_list(s, &cursor, found, 8), 0);
    block_store_status(s, &after);
    ck_assert_uint_eq(after.used_bytes, 0);
    s = test_reopen(s, 256 * MIB);
    block_store_status(s, &after);
    ck_assert_uint_eq(after.used_bytes, 0);
    block_store_free(s);
}

/* What an earlier incarnation wrote, in a part of the log that was given up (cv-journal force-new-cluster). */
TEST(block_write_of_a_grant_that_was_given_up_is_damaged_until_the_inode_is_removed)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_grant g = grant_of(5, 0, 9, 9, 0), before = grant_of(5, 0, 4, 4, MIB),
                       later = grant_of(5, 0, INCARNATION_STEP + 1, INCARNATION_STEP + 1, MIB);
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, g.key, 9, 0, 2 * MIB));
    ck_error(block_write_begin(s, &before), -CV_STALE_EPOCH); /* what the master still knows: not served as that */
    ck_error(block_store_give_up(s, &g.key, 8), -ESTALE);
    ck_error(block_store_give_up(s, &before.key, 9), -ESTALE);
    ck_ok(check(s, g.key, 100));
    ck_ok(block_store_give_up(s, &g.key, 9));
    for (int i = 0; i < 2; i++) {
        ck_error(check(s, g.key, 100), -CV_DATA_DAMAGED);
        ck_error(block_write_begin(s, &before), -CV_DATA_DAMAGED);
        ck_error(block_write_begin(s, &later), -CV_DATA_DAMAGED);
        ck_error(write_pattern(s, g.key, 9, 0, 100), -CV_DATA_DAMAGED);
        struct block_cursor c = {0};
        struct block_info info;
        ck_assert_int_eq(block_store_list(s, &c, &info, 1), 1);
        ck_assert(info.lost && info.dirty && info.epoch == 9);
        s = test_reopen(s, 64 * MIB);
    }
    ck_ok(block_store_remove(s, 5, BLOCK_REMOVE_ALL));
    ck_assert_uint_eq(status_of(s).used_bytes, 0);
    later.place.length = 0;
    ck_ok(block_write_begin(s, &later));
    ck_ok(write_pattern(s, later.key, INCARNATION_STEP + 1, 0, 100));
    ck_ok(check(s, later.key, 100));
    block_store_free(s);
}

TEST(block_write_of_a_later_incarnation_is_given_no_zeros_for_what_was_cut)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_grant g = grant_of(5, 0, 9, 9, 0);
    struct block_grant later = grant_of(5, 0, INCARNATION_STEP + 1, INCARNATION_STEP + 1, 3 * MIB);
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, g.key, 9, 0, 2 * MIB));
    ck_error(block_write_begin(s, &later), -CV_DATA_DAMAGED);
    later.place.length = 2 * MIB;
    ck_ok(block_write_begin(s, &later));
    ck_ok(check_as(s, later.key, g.key, 0, 2 * MIB));
    block_store_free(s);
}

static int flows, syncs;
static int count_flows(enum block_io_op op)
{
    flows += op == BLOCK_IO_FLOW;
    syncs += op == BLOCK_IO_SYNC;
    return 0;
}

static void write_blocks(struct block_store *s, uint64_t inode, uint32_t first, uint32_t end, uint32_t n)
{
    for (uint32_t i = first; i < end; i++) {
        struct block_grant g = grant_of(inode, i, 1, 1, 0);
        ck_ok(block_write_begin(s, &g));
        for (uint32_t at = 0; at < TEST_BLOCK; at += MIB)
            ck_ok(write_pattern(s, g.key, 1, at, n));
    }
}

static void *flow_thread(void *s)
{
    while (block_store_flow(s))
        ;
    return NULL;
}

TEST(block_write_of_a_large_file_begins_to_go_to_the_disk_before_it_is_synced)
{
    struct block_store *s = test_new(256 * MIB);
    pthread_t thread;
    block_io_hook = count_flows;
    write_blocks(s, 6, 0, 4, 4 * KIB); /* here and there */
    ck_assert(list_empty(&s->flowing));
    write_blocks(s, 5, 0, 1, MIB);
    ck_assert(list_empty(&s->flowing));
    write_blocks(s, 5, 1, 2, MIB);
    ck_assert(!list_empty(&s->flowing));
    int before = syncs;
    ck_assert(block_store_flow(s));
    ck_assert_int_eq(flows, 1);
    ck_assert_int_eq(syncs, before);
    ck_assert(list_empty(&s->flowing));
    write_blocks(s, 5, 2, 3, MIB);
    ck_assert(list_empty(&s->flowing)); /* half as much since */
    write_blocks(s, 5, 3, 6, MIB);
    ck_ok(block_store_remove(s, 5, BLOCK_REMOVE_ALL)); /* with some of it still to come */
    ck_assert_int_eq(pthread_create(&thread, NULL, flow_thread, s), 0);
    write_blocks(s, 7, 0, 4, MIB);
    block_store_flow_end(s);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    write_blocks(s, 7, 4, 8, MIB); /* nobody is left to take it */
    block_io_hook = NULL;
    ck_ok(check(s, key_of(7, 3, 1), TEST_BLOCK));
    block_store_free(s);
}

static int folder_syncs;
static int count_folder_syncs(enum block_io_op op)
{
    folder_syncs += op == BLOCK_IO_SYNC_DIR;
    return 0;
}

TEST(block_write_of_many_new_files_syncs_each_folder_once)
{
    struct block_store *s = test_new(256 * MIB);
    block_io_hook = count_folder_syncs;
    for (uint64_t inode = 1; inode <= 600; inode++) {
        struct block_grant g = grant_of(inode, 0, 1, 1, 0);
        ck_ok(block_write_begin(s, &g));
        ck_ok(write_pattern(s, g.key, 1, 0, 100));
    }
    ck_assert_int_eq(folder_syncs, 0);
    ck_ok(block_store_sync(s));
    ck_assert_int_eq(folder_syncs, 256 + 1); /* files/00 to ff, written */
    ck_ok(block_store_sync(s));
    ck_assert_int_eq(folder_syncs, 256 + 1);
    struct block_grant g = grant_of(1000, 0, 1, 1, 0);
    ck_ok(block_write_begin(s, &g));
    ck_ok(write_pattern(s, g.key, 1, 0, 100));
    ck_ok(block_write_sync(s, 1000));
    ck_assert_int_eq(folder_syncs, 256 + 1 + 2); /* a newer name: both of its folders again */
    block_io_hook = NULL;
    block_store_free(s);
}
