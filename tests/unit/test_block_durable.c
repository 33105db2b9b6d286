/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a power cut leaves of written blocks: what was synced, and -CV_DATA_DAMAGED for what was acknowledged behind it. A
 * child works and dies; the file loses what it had not synced, and the next start sees another boot id.
 * On RocksDB: not for the thread sanitizer.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "tests/unit/block_test.h"

#define INODE 5

static const uint8_t boots[4][16] = {"first boot", "second boot", "third boot", "fourth boot"};

static int put_as(struct block_store *s, uint64_t epoch, uint32_t offset, uint32_t n)
{
    struct block_key k = key_of(INODE, 0, epoch), same = key_of(INODE, 0, 1);
    char *p cleanup(freep) = malloc(n);
    pattern(&same, offset, p, n);
    return block_write(s, &k, epoch, offset, p, n);
}

/* Contact as a request brings it: the length the master has committed. */
static int contact(struct block_store *s, uint64_t epoch, uint32_t length)
{
    struct block_grant g = grant_of(INODE, 0, epoch, epoch, length);
    return block_write_begin(s, &g);
}

static int good(struct block_store *s, uint64_t epoch, uint32_t from, uint32_t to)
{
    return check_as(s, key_of(INODE, 0, epoch), key_of(INODE, 0, 1), from, to - from);
}

static bool zeros(struct block_store *s, uint64_t epoch, uint32_t from, uint32_t to)
{
    struct block_key k = key_of(INODE, 0, epoch);
    char *p cleanup(freep) = malloc(to - from);
    memset(p, 1, to - from);
    uint32_t at = from;
    while (at < to) {
        int r = block_read(s, &k, at, p + (at - from), to - at);
        if (r <= 0)
            return false;
        at += (uint32_t)r;
    }
    for (uint32_t i = 0; i < to - from; i++)
        if (p[i])
            return false;
    return true;
}

/* Every page of [from, to) */
static bool damaged(struct block_store *s, uint64_t epoch, uint32_t from, uint32_t to)
{
    struct block_key k = key_of(INODE, 0, epoch);
    char p[4096];
    for (uint32_t at = from; at < to; at += sizeof(p))
        if (block_read(s, &k, at, p, min(to - at, (uint32_t)sizeof(p))) != -CV_DATA_DAMAGED)
            return false;
    return true;
}

/* The next start is of another boot. */
static struct block_store *reboot(int boot)
{
    block_io_boot_id = boots[boot];
    return test_open(64 * MIB);
}

static void in_child(int boot, void (*part)(struct block_store *))
{
    pid_t child = fork();
    if (child == 0) {
        part(reboot(boot));
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

static void new_store(void)
{
    block_io_boot_id = boots[0];
    block_store_free(test_new(64 * MIB));
}

static void some_synced_more_not(struct block_store *s)
{
    ck_ok(contact(s, 1, 0));
    ck_ok(put_as(s, 1, 0, 100 * KIB));
    ck_ok(block_write_sync(s, INODE));
    ck_ok(put_as(s, 1, 100 * KIB, MIB));
}

TEST(what_was_acknowledged_but_not_synced_is_damaged_after_a_power_cut_never_zeros)
{
    new_store();
    in_child(0, some_synced_more_not);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 100 * KIB + MIB));
    ck_ok(good(s, 1, 0, 100 * KIB));
    ck_assert(damaged(s, 1, 100 * KIB, 100 * KIB + MIB));
    char page[8192];
    struct block_key k = key_of(INODE, 0, 1);
    ck_assert_int_eq(block_read(s, &k, 100 * KIB - 4096, page, sizeof(page)), 4096); /* ends before it */
    struct block_presence p = presence_of(s, INODE, 0);
    ck_assert_uint_eq(p.readable, 0);
    ck_assert_uint_eq(p.torn, 3);
    s = test_reopen(s, 64 * MIB); /* and it stays so */
    ck_assert(damaged(s, 1, 100 * KIB, 100 * KIB + MIB));
    block_store_free(s);
    s = reboot(2);
    ck_ok(contact(s, 2, 100 * KIB + MIB));
    ck_ok(good(s, 2, 0, 100 * KIB));
    ck_assert(damaged(s, 2, 100 * KIB, 100 * KIB + MIB));
    block_store_free(s);
}

TEST(what_was_not_committed_either_is_just_not_there_after_a_power_cut)
{
    new_store();
    in_child(0, some_synced_more_not);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 100 * KIB));
    ck_ok(good(s, 1, 0, 100 * KIB));
    ck_ok(put_as(s, 1, MIB, 4096)); /* a hole, not what the file had there */
    ck_assert(zeros(s, 1, 100 * KIB, MIB));
    ck_ok(good(s, 1, MIB, MIB + 4096));
    block_store_free(s);
}

TEST(a_kill_loses_nothing_that_was_acknowledged_and_the_next_mark_syncs_it)
{
    new_store();
    in_child(0, some_synced_more_not);
    struct block_store *s = reboot(0);
    ck_ok(block_store_maintain(s));
    s->failed = -EIO; /* closes without syncing */
    block_store_free(s);
    s = reboot(1);
    ck_ok(contact(s, 1, 100 * KIB + MIB));
    ck_ok(good(s, 1, 0, 100 * KIB + MIB));
    block_store_free(s);
}

TEST(a_stop_before_a_reboot_loses_nothing)
{
    new_store();
    struct block_store *s = reboot(0);
    some_synced_more_not(s);
    block_store_free(s);
    s = reboot(1);
    ck_ok(contact(s, 1, 100 * KIB + MIB));
    ck_ok(good(s, 1, 0, 100 * KIB + MIB));
    block_store_free(s);
}

static void write_with_holes(struct block_store *s)
{
    ck_ok(contact(s, 1, 0));
    ck_ok(put_as(s, 1, 8192, 4096));
    ck_ok(put_as(s, 1, 2 * MIB, 4096));
    ck_ok(block_write_sync(s, INODE));
    ck_ok(put_as(s, 1, 3 * MIB, 4096));
}

TEST(holes_that_were_never_written_read_as_zeros_after_a_power_cut)
{
    new_store();
    in_child(0, write_with_holes);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 3 * MIB + 4096));
    ck_assert(zeros(s, 1, 0, 8192));
    ck_ok(good(s, 1, 8192, 12288));
    ck_assert(zeros(s, 1, 12288, 2 * MIB));
    ck_ok(good(s, 1, 2 * MIB, 2 * MIB + 4096));
    ck_assert(damaged(s, 1, 2 * MIB + 4096, 3 * MIB + 4096));
    block_store_free(s);
}

static void write_and_be_granted_again(struct block_store *s)
{
    some_synced_more_not(s);
    ck_ok(contact(s, 2, 100 * KIB + MIB)); /* its row is synced, the bytes are not */
    ck_ok(put_as(s, 2, 100 * KIB + MIB, 4096));
    ck_ok(contact(s, 3, 104 * KIB + MIB));
}

TEST(a_grant_of_what_is_not_on_disk_does_not_make_it_so)
{
    new_store();
    in_child(0, write_and_be_granted_again);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 3, 104 * KIB + MIB));
    ck_ok(good(s, 3, 0, 100 * KIB));
    ck_assert(damaged(s, 3, 100 * KIB, 104 * KIB + MIB));
    block_store_free(s);
}

TEST(what_is_written_behind_a_torn_stretch_is_there_and_the_stretch_mends_from_its_ends)
{
    new_store();
    in_child(0, some_synced_more_not);
    uint32_t end = 100 * KIB + MIB;
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, end));
    ck_ok(put_as(s, 1, end, 50 * KIB));
    ck_error(put_as(s, 1, 200 * KIB, 4096), -CV_DATA_DAMAGED);
    ck_ok(good(s, 1, end, end + 50 * KIB));
    ck_ok(put_as(s, 1, 90 * KIB, 30 * KIB));
    ck_ok(put_as(s, 1, end - 8 * KIB, 8 * KIB));
    ck_ok(block_write_sync(s, INODE));
    s->failed = -EIO;
    block_store_free(s);
    s = reboot(2);
    ck_ok(contact(s, 1, end + 50 * KIB));
    ck_ok(good(s, 1, 0, 120 * KIB));
    ck_assert(damaged(s, 1, 120 * KIB, end - 8 * KIB));
    ck_ok(good(s, 1, end - 8 * KIB, end + 50 * KIB));
    ck_ok(put_as(s, 1, 100 * KIB, MIB));
    ck_ok(good(s, 1, 0, end + 50 * KIB));
    ck_assert_uint_eq(presence_of(s, INODE, 0).torn, 0);
    block_store_free(s);
    s = reboot(3);
    ck_ok(good(s, 1, 0, end + 50 * KIB));
    block_store_free(s);
}

static void write_behind_what_is_torn(struct block_store *s)
{
    ck_ok(contact(s, 1, 100 * KIB + MIB));
    ck_ok(put_as(s, 1, 100 * KIB + MIB, 50 * KIB));
    ck_ok(block_write_sync(s, INODE));
    ck_ok(put_as(s, 1, 150 * KIB + MIB, 50 * KIB));
    ck_ok(put_as(s, 1, 96 * KIB, 100 * KIB)); /* mended, and not synced */
}

TEST(two_power_cuts_tear_twice_and_what_was_synced_between_stays)
{
    new_store();
    in_child(0, some_synced_more_not);
    in_child(1, write_behind_what_is_torn);
    struct block_store *s = reboot(2);
    ck_ok(contact(s, 1, 200 * KIB + MIB));
    ck_ok(good(s, 1, 0, 96 * KIB));
    ck_assert(damaged(s, 1, 100 * KIB, 100 * KIB + MIB));
    ck_ok(good(s, 1, 100 * KIB + MIB, 150 * KIB + MIB));
    ck_assert(damaged(s, 1, 150 * KIB + MIB, 200 * KIB + MIB));
    block_store_free(s);
}

TEST(a_truncation_takes_a_torn_stretch_along)
{
    new_store();
    in_child(0, some_synced_more_not);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 100 * KIB + MIB));
    ck_ok(contact(s, 2, 200 * KIB));
    ck_assert(damaged(s, 2, 100 * KIB, 200 * KIB));
    ck_ok(contact(s, 3, 50 * KIB));
    ck_ok(put_as(s, 3, MIB, 4096));
    ck_assert(zeros(s, 3, 50 * KIB, MIB));
    ck_error(block_write_clean(s, &(struct block_key){.inode = INODE, .version = 2}, 2), -CV_STALE_EPOCH);
    ck_ok(block_write_clean(s, &(struct block_key){.inode = INODE, .version = 3}, 3));
    block_store_free(s);
}

static void seal_without_an_fsync(struct block_store *s)
{
    some_synced_more_not(s);
    struct block_key k = key_of(INODE, 0, 1);
    ck_ok(block_write_seal(s, &k, 1));
    ck_ok(block_store_sync(s));
}

TEST(what_was_sealed_is_on_disk)
{
    new_store();
    in_child(0, seal_without_an_fsync);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 100 * KIB + MIB));
    ck_ok(good(s, 1, 0, 100 * KIB + MIB));
    block_store_free(s);
}

/* ---- gaps ---- */

/* Lose what lies in the backing file there, as a power cut does of what was not synced. */
static void lose(uint32_t from, uint32_t n)
{
    char name[BLOCK_NAME_MAX], path[600];
    struct block_store *s = test_open(64 * MIB);
    block_dir_name(BLOCK_FILE_BACKING, presence_of(s, INODE, 0).file_id, name);
    s->failed = -EIO;
    block_store_free(s);
    snprintf(path, sizeof(path), "%s/%s", test_dir(), name);
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, n), 0);
    close(fd);
}

/* As the pieces of one stream may come when a sync falls between them. */
static void fill_a_gap_after_a_sync(struct block_store *s)
{
    ck_ok(contact(s, 1, 0));
    ck_ok(put_as(s, 1, 0, 64 * KIB));
    ck_ok(put_as(s, 1, 128 * KIB, 64 * KIB));
    ck_ok(put_as(s, 1, 3 * MIB, 64 * KIB));
    ck_ok(block_store_maintain(s));
    ck_ok(put_as(s, 1, 64 * KIB, 32 * KIB));
    ck_ok(put_as(s, 1, 2 * MIB + 4096, 4096));
}

TEST(what_filled_a_gap_and_was_not_synced_is_damaged_too_and_never_zeros)
{
    new_store();
    in_child(0, fill_a_gap_after_a_sync);
    lose(64 * KIB, 64 * KIB);
    lose(2 * MIB, MIB);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 3 * MIB + 64 * KIB));
    ck_ok(good(s, 1, 0, 64 * KIB));
    ck_assert(damaged(s, 1, 64 * KIB, 96 * KIB));
    ck_ok(good(s, 1, 128 * KIB, 192 * KIB));
    ck_assert(zeros(s, 1, 192 * KIB, 2 * MIB)); /* chunks nobody wrote to */
    ck_assert(damaged(s, 1, 2 * MIB + 4096, 2 * MIB + 8192));
    ck_ok(good(s, 1, 3 * MIB, 3 * MIB + 64 * KIB));
    ck_ok(put_as(s, 1, 64 * KIB, 64 * KIB));
    ck_ok(good(s, 1, 0, 192 * KIB));
    block_store_free(s);
}

static void fill_many_gaps(struct block_store *s)
{
    ck_ok(contact(s, 1, 0));
    ck_ok(put_as(s, 1, 4 * MIB - 4096, 4096));
    ck_ok(block_store_maintain(s));
    for (uint32_t i = 0; i < 100; i++)
        ck_ok(put_as(s, 1, i * 37 % 100 * 4 * 4096, 4096));
    ck_ok(block_write_sync(s, INODE));
    ck_ok(put_as(s, 1, 4 * 4096, 4096)); /* over what is there: no gap */
}

TEST(gaps_that_were_filled_and_synced_are_there)
{
    new_store();
    in_child(0, fill_many_gaps);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 4 * MIB));
    for (uint32_t i = 0; i < 100; i++) {
        ck_ok(good(s, 1, i * 4 * 4096, (i * 4 + 1) * 4096));
        ck_assert(zeros(s, 1, (i * 4 + 1) * 4096, (i * 4 + 4) * 4096));
    }
    ck_ok(good(s, 1, 4 * MIB - 4096, 4 * MIB));
    block_store_free(s);
}

static void fill_a_gap_and_be_killed(struct block_store *s)
{
    ck_ok(put_as(s, 1, 2 * MIB + 8192, 4096));
}

/* On disk it ends within a gap that reaches further. */
static void fill_a_gap_that_begins_on_disk(struct block_store *s)
{
    ck_ok(contact(s, 1, 0));
    ck_ok(put_as(s, 1, 0, 64 * KIB));
    ck_ok(put_as(s, 1, 128 * KIB, 4096));
    ck_ok(block_store_maintain(s));
    ck_ok(put_as(s, 1, 512 * KIB, 4096));
    ck_ok(put_as(s, 1, 256 * KIB, 4096));
    ck_ok(put_as(s, 1, 96 * KIB, 64 * KIB));
}

TEST(gaps_behind_what_is_on_disk_are_torn_with_the_rest)
{
    new_store();
    in_child(0, fill_a_gap_that_begins_on_disk);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 516 * KIB));
    ck_ok(good(s, 1, 0, 64 * KIB));
    ck_assert(zeros(s, 1, 64 * KIB, 96 * KIB));
    ck_assert(damaged(s, 1, 96 * KIB, 128 * KIB));
    ck_ok(good(s, 1, 128 * KIB, 132 * KIB));
    ck_assert(damaged(s, 1, 132 * KIB, 516 * KIB));
    block_store_free(s);
}

TEST(a_kill_between_does_not_hide_that_a_gap_was_filled)
{
    new_store();
    in_child(0, fill_a_gap_after_a_sync);
    in_child(0, fill_a_gap_and_be_killed);
    lose(2 * MIB, MIB);
    struct block_store *s = reboot(1);
    ck_ok(contact(s, 1, 3 * MIB + 64 * KIB));
    ck_assert(damaged(s, 1, 2 * MIB + 4096, 2 * MIB + 12288));
    block_store_free(s);
}

/* ---- syncs beside writers ---- */

#define PIECE  (16 * KIB)
#define PIECES (TEST_BLOCK / PIECE)

static struct block_store *shared;
static _Atomic uint32_t next_piece;
static struct outcome {
    _Atomic bool acked[PIECES];
    uint32_t synced;
} * outcome; /* the parent sees it */

static void *write_pieces(void *arg)
{
    for (uint32_t i; (i = next_piece++) < PIECES;) {
        ck_ok(put_as(shared, 1, i * PIECE, PIECE));
        outcome->acked[i] = true;
    }
    return NULL;
}

/* Three threads write pieces from the front; what was acknowledged without a gap before a sync began is in `synced`. */
static void sync_beside_writers(struct block_store *s)
{
    pthread_t t[3];
    uint32_t synced = 0;
    shared = s;
    ck_ok(contact(s, 1, 0));
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, write_pieces, NULL);
    while (synced < PIECES / 2) {
        uint32_t n = synced;
        while (n < PIECES && outcome->acked[n])
            n++;
        ck_ok(n % 2 ? block_store_sync(s) : block_write_sync(s, INODE));
        if (n % 2 == 0)
            synced = n;
    }
    outcome->synced = synced;
    _exit(0); /* in the middle */
}

TEST(a_sync_beside_writers_covers_what_was_acknowledged_and_no_more_is_believed)
{
    new_store();
    outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(outcome, MAP_FAILED);
    in_child(0, sync_beside_writers);
    struct block_store *s = reboot(1);
    uint32_t synced = outcome->synced;
    ck_ok(contact(s, 1, TEST_BLOCK));
    ck_ok(good(s, 1, 0, synced * PIECE));
    for (uint32_t i = synced; i < PIECES; i++) {
        int r = outcome->acked[i] ? good(s, 1, i * PIECE, (i + 1) * PIECE) : 0;
        ck_assert_msg(r == 0 || r == -CV_DATA_DAMAGED, "piece %u: %s", i, cv_error_name(r));
    }
    block_store_free(s);
}
