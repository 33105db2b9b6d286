/* SPDX-License-Identifier: Apache-2.0 */
/* On RocksDB: not for the thread sanitizer (test_block_threads.c is). */
#include "tests/unit/block_test.h"

TEST(block_store_reads_back_what_was_filled)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(10, 0, 1);
    struct block_place place = place_of(3 * MIB + 12345, 3 * MIB + 12345);
    ck_error(check(s, k, 100), -ENODATA);
    ck_ok(fill(s, k, place));
    ck_ok(check(s, k, place.length));
    ck_ok(check_as(s, k, k, 3 * MIB + 12000, 345));
    struct block_presence p = presence_of(s, 10, 0);
    ck_assert_uint_eq(p.sealed, 0xf);
    ck_assert_uint_eq(p.readable, 0xf);
    ck_assert_uint_eq(p.length, place.length);
    ck_assert_uint_eq(p.version, 1);
    ck_assert(!p.dirty && !p.packed);
    ck_error(check(s, key_of(10, 0, 2), 100), -ENODATA);
    ck_error(check(s, key_of(10, 1, 1), 100), -ENODATA);
    s = test_reopen(s, 64 * MIB);
    ck_ok(check(s, k, place.length));
    ck_assert_uint_eq(presence_of(s, 10, 0).sealed, 0xf);
    ck_assert_uint_eq(status_of(s).used_bytes, 3 * MIB + 16 * KIB);
    block_store_free(s);
}

TEST(block_store_packs_small_files_into_segments)
{
    struct block_store *s = test_new(64 * MIB);
    for (uint64_t i = 1; i <= 100; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of((uint32_t)i * 1000 + 1, i * 1000 + 1)));
    for (int again = 0; again < 2; again++) {
        for (uint64_t i = 1; i <= 100; i++) {
            ck_ok(check(s, key_of(i, 0, 1), (uint32_t)i * 1000 + 1));
            ck_assert(presence_of(s, i, 0).packed);
        }
        ck_assert_uint_le(status_of(s).file_opens, 8);
        s = test_reopen(s, 64 * MIB);
    }
    block_store_free(s);
}

TEST(block_store_opens_only_what_is_its_own)
{
    struct block_store_options o = test_options(64 * MIB);
    struct block_store *s = NULL, *other = NULL;
    ck_error(block_store_open(&o, &s), -ENOENT);
    ck_assert_int_eq(mkdir(test_dir(), 0700), 0);
    ck_error(block_store_open(&o, &s), -CV_NOT_FORMATTED);
    ck_ok(block_store_format(test_dir(), &test_identity));
    ck_error(block_store_format(test_dir(), &test_identity), -CV_ALREADY_FORMATTED);
    ck_ok(block_store_open(&o, &s));
    ck_error(block_store_open(&o, &other), -CV_LOCKED);
    s = block_store_free(s);
    o.cluster[0]++;
    ck_error(block_store_open(&o, &s), -CV_WRONG_CLUSTER);
    o.cluster[0]--;
    o.worker_id++;
    ck_error(block_store_open(&o, &s), -CV_WRONG_CLUSTER);
    o.worker_id--;

    char path[300];
    struct block_identity d;
    snprintf(path, sizeof(path), "%s/identity", test_dir());
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pread(fd, &d, sizeof(d), 0), sizeof(d));
    d.worker_id ^= 1;
    ck_assert_int_eq(pwrite(fd, &d, sizeof(d), 0), sizeof(d));
    ck_error(block_store_open(&o, &s), -CV_BAD_CHECKSUM);
    d.worker_id ^= 1;
    d.version = BLOCK_FORMAT_VERSION + 1;
    d.crc = crc32c(0, &d, offsetof(struct block_identity, crc));
    ck_assert_int_eq(pwrite(fd, &d, sizeof(d), 0), sizeof(d));
    ck_error(block_store_open(&o, &s), -CV_FORMAT_TOO_NEW);
    close(fd);
}

TEST(block_fill_takes_ranges_in_any_order_and_leaves_nothing_when_it_ends_early)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(10, 0, 1);
    struct block_place place = place_of(3 * MIB, 3 * MIB);
    struct block_fill *f = NULL, *other = NULL;
    uint64_t mine;
    char *p = malloc(3 * MIB);
    pattern(&k, 0, p, 3 * MIB);
    ck_ok(block_fill_begin(s, &k, &place, 0, 2, 0, &f, &mine));
    ck_assert_uint_eq(mine, 3);
    ck_assert_uint_eq(status_of(s).reserved_bytes, 2 * MIB);
    ck_assert_uint_eq(presence_of(s, 10, 0).filling, 3);
    ck_error(block_fill_begin(s, &k, &place, 0, 2, 0, &other, &mine), -EALREADY);
    ck_ok(block_fill_begin(s, &k, &place, 1, 2, 0, &other, &mine));
    ck_assert_uint_eq(mine, 4);
    ck_ok(block_fill_write(f, MIB + 128 * KIB, p + MIB + 128 * KIB, MIB - 128 * KIB));
    ck_error(block_fill_write(f, MIB + 1, p + MIB + 1, 10), -EINVAL);
    ck_error(block_fill_write(f, 2 * MIB, p, 10), -EINVAL);
    ck_error(block_fill_seal(f, 1, NULL), -EAGAIN);
    ck_ok(block_fill_write(f, 512 * KIB, p + 512 * KIB, 600 * KIB)); /* into the next chunk */
    ck_ok(block_fill_write(f, MIB, p + MIB, 128 * KIB));             /* again from the start of the unit */
    ck_ok(block_fill_write(f, MIB + 128 * KIB, p + MIB + 128 * KIB, MIB - 128 * KIB));
    uint32_t crc[BLOCK_CHUNK_UNITS];
    for (uint32_t u = 0; u < BLOCK_CHUNK_UNITS; u++)
        crc[u] = crc32c(0, p + MIB + u * BLOCK_UNIT_BYTES, BLOCK_UNIT_BYTES);
    crc[3]++;
    ck_error(block_fill_seal(f, 1, crc), -CV_BAD_CHECKSUM);
    crc[3]--;
    ck_ok(block_fill_seal(f, 1, crc));
    ck_ok(check_as(s, k, k, MIB, MIB));
    ck_error(check(s, k, 10), -ENODATA);
    f = block_fill_end(f); /* chunk 0 was not sealed */
    ck_assert_uint_eq(presence_of(s, 10, 0).readable, 2);
    ck_assert_uint_eq(status_of(s).used_bytes, MIB);
    ck_assert_uint_eq(test_disk_bytes(), MIB);
    other = block_fill_end(other);
    ck_assert_uint_eq(status_of(s).reserved_bytes, 0);

    struct block_key k2 = key_of(11, 0, 1);
    ck_ok(block_fill_begin(s, &k2, &place, 0, 3, 0, &f, &mine));
    ck_ok(block_fill_write(f, 0, p, 100));
    f = block_fill_end(f);
    ck_error(block_presence(s, 11, 0, &(struct block_presence){0}), -CV_NOT_PREPARED);
    ck_error(block_prepare(s, 11, 0), -ENODATA);
    ck_assert_uint_eq(test_disk_bytes(), MIB);
    free(p);
    block_store_free(s);
}

TEST(block_fill_of_a_newer_version_replaces_the_older)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_place place = place_of(2 * MIB, 2 * MIB), small = place_of(1000, 1000);
    struct block_key v1 = key_of(10, 0, 1), v2 = key_of(10, 0, 2), v3 = key_of(10, 0, 3);
    ck_ok(fill(s, v1, place));
    struct block_read rd;
    ck_ok(block_read_begin(s, &v1, 0, 100, 0, &rd));
    ck_error(fill(s, v2, place), -CV_BUSY); /* its bytes are being sent */
    block_read_end(s, &rd);
    ck_ok(fill(s, v2, place));
    ck_ok(check(s, v2, 2 * MIB));
    ck_error(fill(s, v1, place), -ESTALE);
    ck_error(check(s, v1, 10), -ENODATA);
    ck_ok(fill(s, v3, small));
    ck_ok(check(s, v3, 1000));
    ck_assert(presence_of(s, 10, 0).packed);
    ck_ok(fill(s, key_of(10, 0, 4), place));
    ck_ok(check(s, key_of(10, 0, 4), 2 * MIB));
    ck_assert_uint_eq(test_disk_bytes(), 2 * MIB + 4096);
    block_store_free(s);
}

TEST(block_store_never_exceeds_its_capacity)
{
    struct block_store *s = test_new(16 * MIB);
    struct block_place place = place_of(TEST_BLOCK, TEST_BLOCK);
    for (uint64_t i = 1; i <= 12; i++) {
        ck_ok(fill(s, key_of(i, 0, 1), place));
        ck_ok(check(s, key_of(i, 0, 1), TEST_BLOCK));
        ck_assert_uint_le(status_of(s).used_bytes, 16 * MIB);
        ck_assert_uint_le(test_disk_bytes(), 16 * MIB);
    }
    ck_error(check(s, key_of(1, 0, 1), 10), -ENODATA);
    for (uint64_t i = 100; i < 600; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(100 * KIB, 100 * KIB)));
    ck_ok(check(s, key_of(599, 0, 1), 100 * KIB));
    status_of(s);
    ck_assert_uint_le(test_disk_bytes(), 16 * MIB);

    /* Written data cannot go: the writer is told, and readers are served on. */
    int r = 0;
    char *p = malloc(MIB);
    uint32_t written = 0;
    for (uint64_t i = 1000; r == 0 && i < 1010; i++) {
        struct block_grant g = grant_of(i, 0, 1, 1, 0);
        r = block_write_begin(s, &g);
        for (uint32_t c = 0; r == 0 && c < 4; c++) {
            pattern(&g.key, c * MIB, p, MIB);
            r = block_write(s, &g.key, 1, c * MIB, p, MIB);
            written += r == 0;
        }
    }
    ck_assert_int_eq(r, -CV_NO_SPACE);
    ck_assert_uint_ge(written, 12);
    ck_error(fill(s, key_of(1, 0, 1), place), -CV_NO_SPACE);
    for (uint32_t i = 0; i < written; i++) {
        struct block_key k = key_of(1000 + i / 4, 0, 1);
        ck_ok(check_as(s, k, k, i % 4 * MIB, MIB));
    }
    ck_assert_uint_le(test_disk_bytes(), 16 * MIB);
    s = test_reopen(s, 16 * MIB);
    ck_error(fill(s, key_of(1, 0, 1), place), -CV_NO_SPACE);
    ck_ok(block_store_remove(s, 1000, BLOCK_REMOVE_ALL));
    ck_ok(fill(s, key_of(1, 0, 1), place_of(3 * MIB, 3 * MIB)));
    status_of(s);
    free(p);
    block_store_free(s);
}

TEST(block_eviction_leaves_what_is_pinned_or_read_and_takes_the_cold_first)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_place place = place_of(MIB, MIB), small = place_of(50 * KIB, 50 * KIB);
    for (uint64_t i = 1; i <= 20; i++)
        ck_ok(fill(s, key_of(i, 0, 1), i % 2 ? place : small));
    ck_ok(block_store_pin(s, 3, true));
    ck_ok(block_store_pin(s, 4, true));
    struct block_read rd, rd_small;
    struct block_key k5 = key_of(5, 0, 1), k6 = key_of(6, 0, 1);
    ck_ok(block_read_begin(s, &k5, 0, 100, 0, &rd));
    ck_ok(block_read_begin(s, &k6, 0, 100, 0, &rd_small));
    for (int again = 0; again < 3; again++) {
        ck_ok(check(s, key_of(7, 0, 1), MIB));
        ck_ok(check(s, key_of(8, 0, 1), 50 * KIB));
    }
    uint64_t freed;
    ck_ok(block_store_evict(s, 6 * MIB, &freed));
    ck_ok(check(s, key_of(7, 0, 1), MIB));
    ck_error(block_store_evict(s, 64 * MIB, &freed), -CV_NO_SPACE);
    for (uint64_t i = 1; i <= 20; i++) {
        int r = check(s, key_of(i, 0, 1), i % 2 ? MIB : 50 * KIB);
        if (i == 3 || i == 5)
            ck_ok(r);
        else if (i != 4 && i % 2)
            ck_error(r, -ENODATA);
    }
    ck_ok(check(s, key_of(4, 0, 1), 50 * KIB)); /* moved to another segment, if need be */
    char got[100], want[100];
    pattern(&k6, 0, want, 100);
    ck_assert_int_eq(pread(rd_small.fd, got, 100, (off_t)rd_small.fd_offset), 100);
    ck_assert_mem_eq(got, want, 100); /* a descriptor in use stays good */
    block_read_end(s, &rd);
    block_read_end(s, &rd_small);
    block_store_free(s);
}

TEST(block_eviction_resists_a_scan)
{
    struct block_store *s = test_new(32 * MIB);
    struct block_place place = place_of(512 * KIB, 512 * KIB);
    int hits = 0, reads = 0;
    for (uint64_t i = 1; i <= 20; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place));
    for (uint64_t scan = 1000; scan < 1400; scan++) {
        ck_ok(fill(s, key_of(scan, 0, 1), place));
        ck_ok(check(s, key_of(scan, 0, 1), 512 * KIB)); /* once, and never again */
        uint64_t hot = 1 + scan % 20;
        int r = check(s, key_of(hot, 0, 1), 512 * KIB);
        reads++;
        hits += r == 0;
        if (r < 0)
            ck_ok(fill(s, key_of(hot, 0, 1), place));
    }
    ck_assert_int_ge(hits * 100, reads * 90);
    block_store_free(s);
}

TEST(block_store_restarts_without_a_walk)
{
    struct block_store *s = test_new(1024 * MIB);
    for (uint64_t i = 1; i <= 400; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(200 * KIB, 200 * KIB)));
    for (uint64_t i = 1001; i <= 3000; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(5000, 5000)));
    s = test_reopen(s, 1024 * MIB);
    struct block_store_status st = status_of(s);
    ck_assert_uint_le(st.file_opens, 2); /* the segment that was being appended to */
    ck_assert_uint_eq(st.resident_blocks, 0);
    ck_ok(check(s, key_of(400, 0, 1), 200 * KIB));
    ck_assert_uint_eq(status_of(s).file_opens, st.file_opens + 1);
    block_store_free(s);
}

TEST(block_exported_files_are_only_unlinked_and_stay_charged_until_released)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(10, 0, 1), v2 = key_of(10, 0, 2), small = key_of(11, 0, 1);
    struct block_place place = place_of(2 * MIB, 2 * MIB);
    ck_ok(fill(s, k, place));
    ck_ok(fill(s, small, place_of(1000, 1000)));
    struct block_read rd;
    struct block_export e, e_small;
    ck_ok(block_read_begin(s, &k, 0, 100, 0, &rd));
    ck_ok(block_export(s, &rd, &e));
    block_read_end(s, &rd);
    ck_assert_uint_eq(presence_of(s, 10, 0).file_id, e.file_id);
    ck_ok(block_read_begin(s, &small, 0, 100, 0, &rd));
    uint64_t small_at = rd.fd_offset;
    ck_ok(block_export(s, &rd, &e_small));
    ck_assert(e_small.segment);
    block_read_end(s, &rd);
    ck_assert(fcntl(e.fd, F_GETFL) % 4 == O_RDONLY);

    ck_ok(fill(s, v2, place)); /* a refresh: into another file */
    ck_ok(check(s, v2, 2 * MIB));
    ck_assert_uint_ne(presence_of(s, 10, 0).file_id, e.file_id);
    struct block_store_status st = status_of(s);
    ck_assert_uint_eq(st.left_bytes, 2 * MIB);
    uint64_t freed, used = st.used_bytes, left[4];
    ck_error(block_store_evict(s, 32 * MIB, &freed), -CV_NO_SPACE);
    s = test_reopen(s, 64 * MIB); /* the same boot: the descriptors may still be out */
    ck_error(block_store_evict(s, 32 * MIB, &freed), -CV_NO_SPACE);
    st = status_of(s);
    ck_assert_uint_ge(st.left_bytes, 2 * MIB + 1000);
    ck_assert_uint_eq(st.used_bytes, st.left_bytes);
    ck_assert_uint_lt(st.used_bytes, used);
    ck_error(check(s, v2, 10), -ENODATA);

    char *got = malloc(2 * MIB), *want = malloc(2 * MIB);
    pattern(&k, 0, want, 2 * MIB);
    ck_assert_int_eq(pread(e.fd, got, 2 * MIB, 0), 2 * MIB);
    ck_assert_mem_eq(got, want, 2 * MIB); /* the client reads on, the old version */
    pattern(&small, 0, want, 1000);
    ck_assert_int_eq(pread(e_small.fd, got, 1000, (off_t)small_at), 1000);
    ck_assert_mem_eq(got, want, 1000);
    free(got);
    free(want);

    ck_assert_int_eq(block_export_left(s, 0, left, 4), 2);
    ck_ok(block_export_release(s, e.file_id));
    ck_ok(block_export_release(s, e.file_id));
    ck_ok(block_export_release(s, e_small.file_id));
    ck_assert_uint_eq(status_of(s).used_bytes, 0);
    ck_assert_int_eq(block_export_left(s, 0, left, 4), 0);
    close(e.fd);
    close(e_small.fd);
    block_store_free(s);
}

TEST(block_exports_end_with_the_boot)
{
    static const uint8_t boots[2][16] = {"first boot", "second boot"};
    block_io_boot_id = boots[0];
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(10, 0, 1), k2 = key_of(12, 0, 1);
    struct block_place place = place_of(2 * MIB, 2 * MIB);
    struct block_read rd;
    struct block_export e;
    for (uint64_t i = 10; i <= 12; i += 2) {
        struct block_key key = key_of(i, 0, 1);
        ck_ok(fill(s, key, place));
        ck_ok(block_read_begin(s, &key, 0, 100, 0, &rd));
        ck_ok(block_export(s, &rd, &e));
        block_read_end(s, &rd);
        close(e.fd);
    }
    ck_ok(fill(s, key_of(10, 0, 2), place));
    ck_assert_uint_eq(status_of(s).left_bytes, 2 * MIB);
    block_io_boot_id = boots[1];
    s = test_reopen(s, 64 * MIB);
    ck_assert_uint_eq(status_of(s).left_bytes, 0);
    ck_assert_uint_eq(status_of(s).used_bytes, 4 * MIB);
    uint64_t freed;
    ck_ok(block_store_evict(s, 4 * MIB, &freed)); /* no descriptor is out any more */
    ck_assert_uint_eq(status_of(s).used_bytes, 0);
    ck_error(check(s, k2, 10), -ENODATA);
    ck_error(check(s, k, 10), -ENODATA);
    block_store_free(s);
}

TEST(block_store_counts_mounts_lists_blocks_and_removes_inodes)
{
    struct block_store *s = test_new(64 * MIB);
    uint64_t bytes;
    ck_ok(fill(s, key_of(1, 0, 1), place_of(TEST_BLOCK, 2 * TEST_BLOCK)));
    ck_ok(fill(s, key_of(1, 1, 1), place_of(TEST_BLOCK, 2 * TEST_BLOCK)));
    ck_ok(fill(s, key_of(2, 0, 1), place_of(1000, 1000)));
    struct block_grant g = grant_of(3, 0, 1, 1, 0);
    ck_ok(block_write_begin(s, &g));
    ck_ok(block_write(s, &g.key, 1, 0, "x", 1));
    ck_ok(block_store_mount_bytes(s, 3, &bytes));
    ck_assert_uint_eq(bytes, 2 * TEST_BLOCK + 1088 + 64 * KIB);
    struct block_cursor cursor = {0};
    struct block_info info[3];
    ck_assert_int_eq(block_store_list(s, &cursor, info, 3), 3);
    ck_assert(info[0].inode == 1 && info[0].index == 0 && info[1].index == 1 && info[2].packed);
    ck_assert_int_eq(block_store_list(s, &cursor, info, 3), 1);
    ck_assert(info[0].inode == 3 && info[0].dirty);
    ck_assert_int_eq(block_store_list(s, &cursor, info, 3), 0);

    for (uint64_t i = 1; i <= 3; i++)
        ck_ok(block_store_remove(s, i, BLOCK_REMOVE_CLEAN));
    ck_ok(check(s, g.key, 0));
    ck_assert_uint_eq(presence_of(s, 3, 0).length, 1);
    ck_error(check(s, key_of(1, 1, 1), 10), -ENODATA);
    ck_ok(block_store_remove(s, 3, BLOCK_REMOVE_ALL));
    ck_error(block_prepare(s, 3, 0), -ENODATA);
    ck_ok(block_store_mount_bytes(s, 3, &bytes));
    ck_assert_uint_eq(bytes, 0);
    cursor = (struct block_cursor){0};
    ck_assert_int_eq(block_store_list(s, &cursor, info, 3), 0);
    s = test_reopen(s, 64 * MIB);
    uint64_t freed;
    ck_ok(block_store_evict(s, KIB, &freed)); /* the segment with the dead file */
    ck_assert_uint_eq(status_of(s).used_bytes, 0);
    ck_assert_uint_eq(test_disk_bytes(), 0);
    block_store_free(s);
}

TEST(block_store_compacts_segments_that_are_mostly_dead)
{
    struct block_store *s = test_new(64 * MIB);
    for (uint64_t i = 1; i <= 100; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(64 * KIB, 64 * KIB)));
    for (uint64_t i = 1; i <= 100; i++)
        if (i % 4)
            ck_ok(block_store_remove(s, i, BLOCK_REMOVE_CLEAN));
    uint64_t before = test_disk_bytes();
    for (int i = 0; i < 12; i++)
        ck_ok(block_store_maintain(s));
    ck_assert_uint_lt(test_disk_bytes(), before / 2);
    for (int again = 0; again < 2; again++) {
        for (uint64_t i = 4; i <= 100; i += 4)
            ck_ok(check(s, key_of(i, 0, 1), 64 * KIB));
        s = test_reopen(s, 64 * MIB);
    }
    block_store_free(s);
}

TEST(block_store_keeps_its_memory_within_the_budget)
{
    struct block_store *s = test_new(1024 * MIB);
    block_store_free(s);
    struct block_store_options o = test_options(1024 * MIB);
    o.memory_bytes = 100 * KIB;
    o.files_max = 10;
    ck_ok(block_store_open(&o, &s));
    for (uint64_t i = 1; i <= 1000; i++)
        ck_ok(fill(s, key_of(i, 0, 1), i % 10 ? place_of(3000, 3000) : place_of(150 * KIB, 150 * KIB)));
    for (uint64_t i = 1; i <= 1000; i++)
        ck_ok(check(s, key_of(i, 0, 1), i % 10 ? 3000 : 150 * KIB));
    struct block_store_status st = status_of(s);
    ck_assert_uint_le(st.resident_blocks, 400);
    ck_assert_uint_le(st.open_files, 12);
    struct block_read rd[400];
    int n = 0, r = 0;
    for (; n < 400; n++) { /* all of it in use */
        struct block_key k = key_of((uint64_t)n + 1, 0, 1);
        for (int tries = 0; tries < 3 && (r = block_read_begin(s, &k, 0, 10, 0, &rd[n])) == -CV_NOT_PREPARED; tries++)
            if ((r = block_read_prepare(s, &k, 0, 10, 0)) < 0)
                break;
        if (r < 0)
            break;
    }
    ck_error(r, -CV_BUSY);
    while (n-- > 0)
        block_read_end(s, &rd[n]);
    ck_ok(check(s, key_of(1000, 0, 1), 150 * KIB));
    block_store_free(s);
}
