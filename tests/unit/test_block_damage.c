/* SPDX-License-Identifier: Apache-2.0 */
/* On RocksDB: not for the thread sanitizer (test_block_threads.c is). */
#include "tests/unit/block_test.h"

#include <dirent.h>

/* Flip one bit of the n-th byte (from the end when negative) of a file. */
static void flip(const char *path, long at)
{
    int fd = open(path, O_RDWR);
    ck_assert_msg(fd >= 0, "open %s", path);
    struct stat st;
    uint8_t byte;
    fstat(fd, &st);
    off_t where = at < 0 ? st.st_size + at : at;
    ck_assert_int_eq(pread(fd, &byte, 1, where), 1);
    byte ^= 0x10;
    ck_assert_int_eq(pwrite(fd, &byte, 1, where), 1);
    close(fd);
}

static const char *path_in_store(const char *name)
{
    static char path[20000];
    snprintf(path, sizeof(path), "%s/%s", test_dir(), name);
    return path;
}

static const char *file_path(struct block_store *s, uint64_t inode, uint32_t index, bool segment)
{
    char name[BLOCK_NAME_MAX];
    block_dir_name(segment ? BLOCK_FILE_SEGMENT : BLOCK_FILE_BACKING, presence_of(s, inode, index).file_id, name);
    return path_in_store(name);
}

TEST(block_damage_of_clean_chunks_is_found_and_they_are_filled_again)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(1, 0, 1), small = key_of(2, 0, 1);
    struct block_place place = place_of(3 * MIB, 3 * MIB), little = place_of(100000, 100000);
    ck_ok(fill(s, k, place));
    ck_ok(fill(s, small, little));
    flip(file_path(s, 1, 0, false), MIB + 70000);
    flip(file_path(s, 2, 0, true), -5);
    s = test_reopen(s, 64 * MIB);
    ck_ok(check_as(s, k, k, 0, MIB));
    ck_error(check_as(s, k, k, MIB, MIB), -ENODATA);
    ck_ok(check_as(s, k, k, 2 * MIB, MIB));
    ck_assert_uint_eq(presence_of(s, 1, 0).sealed, 5);
    ck_error(check(s, small, 100), -ENODATA);
    ck_assert_uint_eq(status_of(s).damaged_chunks, 2);
    ck_ok(fill(s, k, place));
    ck_ok(fill(s, small, little));
    ck_ok(check(s, k, 3 * MIB));
    ck_ok(check(s, small, 100000));
    block_store_free(s);
}

TEST(block_damage_that_a_reader_found_is_looked_at_again)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(1, 0, 1);
    ck_ok(fill(s, k, place_of(3 * MIB, 3 * MIB)));
    flip(file_path(s, 1, 0, false), MIB + 70000);
    struct block_read rd;
    ck_ok(block_read_begin(s, &k, MIB, MIB, BLOCK_READ_UNCHECKED, &rd)); /* nobody looked: it was just filled */
    ck_ok(block_read_verify(s, &k, 0));
    ck_error(block_read_verify(s, &k, 1), -ENODATA);
    block_read_end(s, &rd);
    ck_error(check_as(s, k, k, MIB, MIB), -ENODATA);
    uint32_t crc[BLOCK_CHUNK_UNITS], length;
    ck_error(block_read_crcs(s, &k, 1, true, crc, &length), -ENODATA);
    ck_ok(block_read_crcs(s, &k, 0, true, crc, &length));
    block_store_free(s);
}

static void write_blocks(struct block_store *s, uint64_t inode, uint32_t blocks)
{
    char *p = malloc(2 * MIB);
    for (uint32_t i = 0; i < blocks; i++) {
        struct block_grant g = grant_of(inode, i, 5, 1, 0);
        pattern(&g.key, 0, p, 2 * MIB);
        ck_ok(block_write_begin(s, &g));
        ck_ok(block_write(s, &g.key, 1, 0, p, 2 * MIB));
        ck_ok(block_write_seal(s, &g.key, 1));
    }
    free(p);
}

TEST(block_damage_of_written_data_is_reported_and_the_rest_of_it_kept)
{
    struct block_store *s = test_new(64 * MIB);
    write_blocks(s, 1, 2);
    flip(file_path(s, 1, 1, false), TEST_BLOCK + MIB + 70000);
    s = test_reopen(s, 64 * MIB);
    struct block_key k0 = key_of(1, 0, 5), k1 = key_of(1, 1, 5);
    uint64_t freed;
    ck_ok(check(s, k0, 2 * MIB));
    ck_ok(check_as(s, k1, k1, 0, MIB));
    ck_error(check_as(s, k1, k1, MIB, 10), -CV_DATA_DAMAGED);
    ck_assert_uint_eq(presence_of(s, 1, 1).damaged, 2);
    ck_error(block_store_evict(s, MIB, &freed), -CV_NO_SPACE);
    ck_error(check_as(s, k1, k1, MIB, 10), -CV_DATA_DAMAGED);
    ck_error(block_write(s, &k1, 1, MIB + 10, "x", 1), -CV_DATA_DAMAGED);
    char *p = malloc(MIB);
    pattern(&k1, MIB, p, MIB);
    ck_ok(block_write(s, &k1, 1, MIB, p, MIB)); /* all of it anew */
    ck_ok(check(s, k1, 2 * MIB));
    free(p);
    block_store_free(s);
}

TEST(block_files_that_vanished_are_damage_too)
{
    struct block_store *s = test_new(64 * MIB);
    struct block_key k = key_of(2, 0, 1), small = key_of(3, 0, 1), written = key_of(1, 0, 5);
    write_blocks(s, 1, 1);
    ck_ok(fill(s, k, place_of(3 * MIB, 3 * MIB)));
    ck_ok(fill(s, small, place_of(1000, 1000)));
    ck_assert_int_eq(unlink(file_path(s, 1, 0, false)), 0);
    ck_assert_int_eq(unlink(file_path(s, 2, 0, false)), 0);
    ck_assert_int_eq(unlink(file_path(s, 3, 0, true)), 0);
    s = test_reopen(s, 64 * MIB);
    ck_error(check(s, written, 10), -CV_DATA_DAMAGED);
    ck_error(check(s, k, 10), -ENODATA);
    ck_error(check(s, small, 10), -ENODATA);
    ck_ok(fill(s, k, place_of(3 * MIB, 3 * MIB)));
    ck_ok(fill(s, small, place_of(1000, 1000)));
    ck_ok(check(s, k, 3 * MIB));
    ck_ok(check(s, small, 1000));
    block_store_free(s);
}

TEST(block_segment_with_a_damaged_entry_gives_up_what_is_behind_it)
{
    struct block_store *s = test_new(64 * MIB);
    for (uint64_t i = 1; i <= 30; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(64 * KIB, 64 * KIB)));
    flip(file_path(s, 5, 0, true), 64 + 3 * (64 * KIB + 64) + 20); /* the head of the fourth entry */
    uint64_t freed;
    s = test_reopen(s, 64 * MIB);
    ck_ok(check(s, key_of(4, 0, 1), 64 * KIB)); /* the index knows all that is in a head */
    ck_ok(block_store_evict(s, MIB, &freed));
    for (uint64_t i = 1; i <= 15; i++)
        ck_error(check(s, key_of(i, 0, 1), 64 * KIB), -ENODATA);
    for (uint64_t i = 1; i <= 30; i++) {
        int r = fill(s, key_of(i, 0, 1), place_of(64 * KIB, 64 * KIB));
        ck_assert(r == 0 || r == -EALREADY);
        ck_ok(check(s, key_of(i, 0, 1), 64 * KIB));
    }
    block_store_free(s);
}

/* ---- another boot ---- */

static const uint8_t boots[3][16] = {"first boot", "second boot", "third boot"};

/* Run part in a child that dies without closing the store. */
static void in_child(void (*part)(struct block_store *))
{
    pid_t child = fork();
    if (child == 0) {
        part(test_open(64 * MIB));
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

static void fill_two_with_a_mark_between(struct block_store *s)
{
    ck_ok(fill(s, key_of(1, 0, 1), place_of(2 * MIB, 2 * MIB)));
    ck_ok(fill(s, key_of(11, 0, 1), place_of(1000, 1000)));
    ck_ok(block_store_sync(s));
    ck_ok(fill(s, key_of(2, 0, 1), place_of(2 * MIB, 2 * MIB)));
    ck_ok(fill(s, key_of(12, 0, 1), place_of(1000, 1000)));
}

/* Unchecked, as an exported file is read. */
static int read_unchecked(struct block_store *s, uint64_t inode)
{
    struct block_key k = key_of(inode, 0, 1);
    struct block_read rd;
    int r;
    while ((r = block_read_begin(s, &k, 0, 1000, BLOCK_READ_UNCHECKED, &rd)) == -CV_NOT_PREPARED)
        if ((r = block_read_prepare(s, &k, 0, 1000, BLOCK_READ_UNCHECKED)) < 0)
            return r;
    if (r == 0)
        block_read_end(s, &rd);
    return r;
}

TEST(block_chunks_sealed_since_the_mark_are_verified_after_another_boot)
{
    block_io_boot_id = boots[0];
    block_store_free(test_new(64 * MIB));
    in_child(fill_two_with_a_mark_between);
    struct block_store *s = test_open(64 * MIB); /* the same boot: the page cache was not lost */
    char paths[4][512];
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s", file_path(s, 1 + (uint64_t)i, 0, false));
        snprintf(paths[2 + i], sizeof(paths[2 + i]), "%s", file_path(s, 11 + (uint64_t)i, 0, true));
    }
    flip(paths[1], 100); /* as if the power cut had lost a page */
    flip(paths[3], -20);
    ck_ok(read_unchecked(s, 2));
    ck_ok(read_unchecked(s, 12));
    pid_t child = fork(); /* not closed: that would move the mark */
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    s->failed = -EIO;
    block_store_free(s);

    block_io_boot_id = boots[1];
    for (int boot = 1; boot <= 2; boot++) {
        block_io_boot_id = boots[boot];
        s = test_open(64 * MIB);
        ck_ok(read_unchecked(s, 1));
        ck_ok(read_unchecked(s, 11));
        if (boot == 2) { /* still in doubt, though the mark moved on at the close of the second boot */
            ck_error(read_unchecked(s, 2), -ENODATA);
            ck_error(read_unchecked(s, 12), -ENODATA);
        }
        block_store_free(s);
    }
}

/* ---- the index ---- */

static void fill_index(struct block_store *s)
{
    for (uint64_t i = 10; i < 40; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(200 * KIB, 200 * KIB)));
    for (uint64_t i = 40; i < 140; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(5000, 5000)));
    write_blocks(s, 1, 2);
    write_blocks(s, 2, 1);
}

/* Everything is right, or absent (clean), or said to be damaged (written). Counts what is right. */
static void check_all(struct block_store *s, int *ret_clean, int *ret_written)
{
    *ret_clean = *ret_written = 0;
    for (uint64_t i = 10; i < 140; i++) {
        int r = check(s, key_of(i, 0, 1), i < 40 ? 200 * KIB : 5000);
        ck_assert_msg(r == 0 || r == -ENODATA || r == -CV_BAD_CHECKSUM, "clean: %s", cv_error_name(r));
        *ret_clean += r == 0;
    }
    for (uint64_t i = 0; i < 3; i++) {
        struct block_key k = key_of(1 + i / 2, i % 2, 5);
        int r = check(s, k, 2 * MIB);
        ck_assert_msg(r == 0 || r == -CV_DATA_DAMAGED || r == -CV_BAD_CHECKSUM, "written: %s", cv_error_name(r));
        *ret_written += r == 0;
    }
}

static int copy_store(const char *from, const char *to)
{
    char command[1200];
    snprintf(command, sizeof(command), "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
    return system(command);
}

/* The files of the index whose damage counts, in a fixed order. */
static int index_files(char names[64][300])
{
    struct dirent **list;
    int n = scandir(path_in_store("index"), &list, NULL, alphasort), used = 0;
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        bool counts = strstr(name, ".sst") || strstr(name, ".log") || strncmp(name, "MANIFEST", 8) == 0 ||
                      strcmp(name, "CURRENT") == 0;
        struct stat st;
        char path[300];
        snprintf(path, sizeof(path), "index/%s", name);
        if (counts && used < 64 && stat(path_in_store(path), &st) == 0 && st.st_size > 0)
            snprintf(names[used++], 300, "%s", path);
        free(list[i]);
    }
    free(list);
    return used;
}

static void open_and_check(uint64_t seed)
{
    struct block_store *s = test_open(64 * MIB);
    int clean, written;
    check_all(s, &clean, &written);
    bool failed = status_of(s).failed;
    if (failed) { /* found while reading: healed at the next open */
        s = test_reopen(s, 64 * MIB);
        check_all(s, &clean, &written);
        ck_assert_int_eq(status_of(s).failed, 0);
    }
    ck_assert_msg(written == 3 || status_of(s).lost_blocks, "seed %llu: %d written", (unsigned long long)seed, written);
    for (uint64_t i = 10; i < 140; i++) { /* and life goes on */
        int r = fill(s, key_of(i, 0, 1), i < 40 ? place_of(200 * KIB, 200 * KIB) : place_of(5000, 5000));
        ck_assert_msg(r == 0 || r == -EALREADY, "fill: %s", cv_error_name(r));
        ck_ok(check(s, key_of(i, 0, 1), i < 40 ? 200 * KIB : 5000));
    }
    status_of(s);
    ck_assert_uint_le(test_disk_bytes(), 64 * MIB);
    block_store_free(s);
}

TEST_TIMEOUT(block_index_damage_anywhere_heals_clean_data_and_keeps_or_reports_written, 120)
{
    char saved[400];
    snprintf(saved, sizeof(saved), "%s.saved", test_dir());
    struct block_store *s = test_new(64 * MIB);
    fill_index(s);
    s = test_reopen(s, 64 * MIB);      /* rows in tables */
    for (uint64_t i = 40; i < 60; i++) /* and in the log */
        ck_ok(block_store_remove(s, i, BLOCK_REMOVE_CLEAN));
    for (uint64_t i = 40; i < 60; i++)
        ck_ok(fill(s, key_of(i, 0, 1), place_of(5000, 5000)));
    block_store_free(s);
    ck_assert_int_eq(copy_store(test_dir(), saved), 0);
    log_set_level((enum log_level) - 1);
    char names[64][300];
    int files = index_files(names);
    ck_assert_int_ge(files, 3);
    struct prng random = {getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 1};
    for (int i = 0; i < files * 3; i++) {
        struct stat st;
        ck_assert_int_eq(copy_store(saved, test_dir()), 0);
        ck_assert_int_eq(stat(path_in_store(names[i % files]), &st), 0);
        flip(path_in_store(names[i % files]), prng_below(&random, (uint32_t)st.st_size));
        open_and_check(random.state);
    }
    char command[500];
    snprintf(command, sizeof(command), "rm -rf '%s'", saved);
    ck_assert_int_eq(system(command), 0);
}

TEST(block_index_that_lost_rows_is_noticed)
{
    struct block_store *s = test_new(64 * MIB);
    fill_index(s);
    block_store_free(s);
    log_set_level((enum log_level) - 1);
    char names[64][300];
    int files = index_files(names);
    for (int i = 0; i < files; i++)
        if (strstr(names[i], ".log"))
            ck_assert_int_eq(truncate(path_in_store(names[i]), 3000), 0); /* ends clean, as far as RocksDB can tell */
    s = test_open(64 * MIB);
    int clean, written;
    check_all(s, &clean, &written);
    ck_assert_int_eq(clean, 0);
    ck_assert_uint_eq(status_of(s).lost_blocks, 2);
    ck_error(check(s, key_of(1, 0, 5), 10), -CV_DATA_DAMAGED);
    ck_error(block_write_begin(s, &(struct block_grant){.key = {1, 6, 0}, .epoch = 9, .place = place_of(0, 0)}),
             -CV_DATA_DAMAGED);
    ck_ok(block_store_remove(s, 1, BLOCK_REMOVE_ALL));
    ck_error(check(s, key_of(1, 0, 5), 10), -ENODATA);
    s = test_reopen(s, 64 * MIB);
    ck_error(check(s, key_of(2, 0, 5), 10), -CV_DATA_DAMAGED);
    ck_ok(block_store_remove(s, 2, BLOCK_REMOVE_ALL));
    ck_assert_uint_eq(status_of(s).used_bytes, 0);
    ck_assert_uint_eq(test_disk_bytes(), 0);
    block_store_free(s);
}

/* Open chunks promise no CRC; when writing has paused they get one, and damage to the only copy is found. */
TEST(written_data_is_sealed_when_writing_pauses)
{
    struct block_store *s = test_new(256 * MIB);
    block_store_free(s);
    struct block_store_options o = test_options(256 * MIB);
    struct block_presence p;
    char data[8192] = "x";
    o.calm_max = 3;
    ck_ok(block_store_open(&o, &s));
    struct block_key k = key_of(5, 0, 10);
    struct block_grant g = {.key = k, .epoch = 10, .place = place_of(0, 16 * MIB)};
    ck_ok(block_write_begin(s, &g));
    ck_ok(block_write(s, &k, 10, 0, data, sizeof(data)));
    for (int i = 0; i < 2; i++)
        ck_ok(block_store_maintain(s));
    ck_ok(block_write(s, &k, 10, 100, data, 100)); /* begins to count anew */
    for (int i = 0; i < 2; i++)
        ck_ok(block_store_maintain(s));
    ck_ok(block_presence(s, 5, 0, &p));
    ck_assert_uint_eq(p.open, 1);
    ck_ok(block_store_maintain(s));
    ck_ok(block_presence(s, 5, 0, &p));
    ck_assert_uint_eq(p.open, 0);
    ck_assert_uint_eq(p.sealed, 1);
    ck_assert(p.dirty);
    ck_ok(block_write(s, &k, 10, 0, data, 100));
    ck_ok(block_presence(s, 5, 0, &p));
    ck_assert_uint_eq(p.open, 1);
    for (int i = 0; i < 3; i++)
        ck_ok(block_store_maintain(s));
    ck_ok(block_presence(s, 5, 0, &p));
    ck_assert_uint_eq(p.sealed, 1);
    block_store_free(s);
}
