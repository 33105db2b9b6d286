/* SPDX-License-Identifier: Apache-2.0 */
/* The worker daemon: RocksDB inside, so not for the thread sanitizer. */
#include "tests/unit/worker_test.h"
#include "worker/block_io.h"

TEST(worker_registers_and_beats)
{
    struct rig g;
    rig_begin(&g, "256MiB", "");
    until(g.master.registered == 1 && g.master.beats >= 3);
    g.master.register_again = true;
    until(g.master.registered == 2);
    g.master.refuse = -CV_NOT_LEADER;
    until(rig_metric(&g, "registered") == 0);
    g.master.refuse = 0;
    until(rig_metric(&g, "registered") == 1);
    rig_end(&g);
}

TEST(worker_serves_without_a_master)
{
    struct rig g;
    char why[100] = "";
    rig_begin(&g, "256MiB", "");
    master_end(&g.master);
    struct peer p;
    peer_begin(&p, g.address, 0);
    ck_ok(worker_ready(g.worker, why, sizeof(why)));
    struct rec_block b = written_block(5, 10, 0);
    ck_ok(put(&p, &b, 0, 100, 1));
    b.valid_length = 100;
    ck_assert_int_eq(get_checked(&p, &b, 0, 4096, 1), 100);
    peer_end(&p);
    rig_stop(&g);
    config_free(g.config);
}

TEST(worker_reads_what_it_fetches)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    ufs_file(&g, 5, BASE, 9 * MIB + 12345);
    for (uint32_t i = 0; i < 3; i++) {
        struct rec_block b = clean_block(5, i, 9 * MIB + 12345);
        ck_assert_int_eq(get_checked(&p, &b, 0, TEST_BLOCK, BASE), (int)b.base_length);
        ck_assert_int_eq(get_checked(&p, &b, 100, 5000, BASE), 5000);
        ck_assert_int_eq(get_checked(&p, &b, MIB - 10, 20, BASE), 20);
        ck_assert_int_eq(get_checked(&p, &b, b.base_length - 7, 4096, BASE), 7);
        ck_assert_int_eq(get_checked(&p, &b, b.base_length, 4096, BASE), 0);
    }
    ck_assert_uint_eq(g.master.origins, 1);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_bytes_total"), 9 * MIB + 12345);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_reads_small_files)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    for (uint64_t inode = 10; inode < 60; inode++) {
        uint64_t n = 1 + (inode - 10) * 2777;
        ufs_file(&g, inode, BASE, n);
        struct rec_block b = clean_block(inode, 0, n);
        ck_assert_int_eq(get_checked(&p, &b, 0, TEST_BLOCK, BASE), (int)n);
        ck_assert_int_eq(get_checked(&p, &b, (uint32_t)n / 2, TEST_BLOCK, BASE), (int)(n - n / 2));
    }
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_gets_total"), 50);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_sends_units_with_their_checksums)
{
    struct rig g;
    struct peer p;
    uint32_t flags;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    ufs_file(&g, 5, BASE, 3 * MIB + 70000);
    struct rec_block b = clean_block(5, 0, 3 * MIB + 70000);
    ck_assert_int_eq(get(&p, &b, 0, 256 * KIB, 0, NULL, &flags), 256 * KIB);
    ck_assert_uint_eq(flags, BLOCK_CRC_UNITS);
    ck_assert_int_eq(get(&p, &b, 3 * MIB, MIB, 0, NULL, &flags), 70000);
    ck_assert_uint_eq(flags, BLOCK_CRC_UNITS);
    ck_assert_int_eq(get(&p, &b, 1, 256 * KIB, 0, NULL, &flags), 256 * KIB);
    ck_assert_uint_eq(flags, 0);
    ck_assert_int_eq(get(&p, &b, 0, 4096, 0, NULL, &flags), 4096);
    ck_assert_uint_eq(flags, 0);
    peer_end(&p);
    rig_end(&g);
}

static uint64_t put_and_boot(struct peer *p, const struct rec_block *b)
{
    struct msg_block_write q = {.block = *b, .crc = crc32c(0, "x", 1)};
    struct msg_block_write_answer m;
    struct answer a = ask(p, MSG_block_write, msg_block_write_desc(), &q, "x", 1);
    ck_ok(a.result);
    ck_ok(msg_block_write_answer_decode(a.body, a.body_n, &m));
    answer_free(&a);
    ck_assert_uint_ne(m.boot, 0);
    return m.boot;
}

static int put_one(struct peer *p, const struct rec_block *b)
{
    struct msg_block_write q = {.block = *b, .crc = crc32c(0, "x", 1)};
    struct answer a = ask(p, MSG_block_write, msg_block_write_desc(), &q, "x", 1);
    int r = a.result;
    answer_free(&a);
    return r;
}

TEST(worker_asks_about_all_it_holds_when_another_incarnation_begins_and_takes_no_writes_of_the_former)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    struct rec_block kept = written_block(7, 20, 0), lost = written_block(8, 30, 0);
    ck_ok(put_one(&p, &kept));
    ck_ok(put_one(&p, &lost));
    ck_assert_uint_lt(g.master.checked, 2);
    g.master.given_up = 8;
    g.master.incarnation = 2;
    g.master.register_again = true;
    until(g.master.checked == 2);
    until(rig_metric(&g, "given_up_total") == 1);
    ck_assert_int_eq(put_one(&p, &kept), -CV_STALE_EPOCH); /* its session has ended */
    kept.version = kept.epoch = INCARNATION_STEP + 5;
    kept.valid_length = 1;
    ck_ok(put_one(&p, &kept));
    lost.version = lost.epoch = INCARNATION_STEP + 5;
    ck_assert_int_eq(put_one(&p, &lost), -CV_DATA_DAMAGED);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_does_not_promise_to_sync_what_was_written_before_its_host_restarted)
{
    static const uint8_t other_boot[16] = {1, 2, 3};
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    struct rec_block b = written_block(7, 20, 0);
    uint64_t boot = put_and_boot(&p, &b);
    peer_end(&p);
    rig_stop(&g);
    rig_start(&g); /* the daemon alone: the host has it in memory still */
    peer_begin(&p, g.socket, 0);
    ck_ok(put_sync_since(&p, 7, boot));
    peer_end(&p);
    rig_stop(&g);
    block_io_boot_id = other_boot;
    rig_start(&g);
    peer_begin(&p, g.socket, 0);
    ck_assert_int_eq(put_sync_since(&p, 7, boot), -CV_WRITES_LOST);
    boot = put_and_boot(&p, &b);
    ck_ok(put_sync_since(&p, 7, boot));
    peer_end(&p);
    rig_end(&g);
    block_io_boot_id = NULL;
}

TEST(worker_writes_and_reads_back)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    struct rec_block b = written_block(7, 20, 0);
    ck_ok(put(&p, &b, 0, 100000, 1));
    ck_ok(put(&p, &b, 100000, 3 * MIB, 1));
    ck_ok(put_sync(&p, 7));
    b.valid_length = 100000 + 3 * MIB;
    ck_assert_int_eq(get_checked(&p, &b, 0, TEST_BLOCK, 1), (int)b.valid_length);
    ck_assert_int_eq(get_checked(&p, &b, 99990, 20, 1), 20);
    rig_stop(&g);
    rig_start(&g);
    peer_end(&p);
    peer_begin(&p, g.socket, 0);
    ck_assert_int_eq(get_checked(&p, &b, 0, TEST_BLOCK, 1), (int)b.valid_length);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_refuses_lower_epochs_and_bad_data)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    struct rec_block b = written_block(7, 20, 0), old = written_block(7, 10, 0);
    ck_ok(put(&p, &b, 0, 1000, 1));
    ck_error(put(&p, &old, 0, 1000, 1), -CV_STALE_EPOCH);
    ck_error(put(&p, &b, TEST_BLOCK - 10, 11, 1), -EINVAL);
    struct msg_block_write q = {.block = b, .crc = 1};
    struct answer a = ask(&p, MSG_block_write, msg_block_write_desc(), &q, "abc", 3);
    ck_error(a.result, -CV_BAD_CHECKSUM);
    answer_free(&a);
    struct rec_block bad = b;
    bad.block_bytes = 3 * MIB;
    ck_error(put(&p, &bad, 0, 10, 1), -EINVAL);
    ck_error(get(&p, &bad, 0, 10, 0, NULL, NULL), -EINVAL);
    b.valid_length = 1000;
    ck_assert_int_eq(get_checked(&p, &b, 0, 1000, 1), 1000);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_says_that_written_data_is_lost)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    struct rec_block b = written_block(7, 20, 1000);
    ck_error(get(&p, &b, 0, 1000, 0, NULL, NULL), -CV_DATA_DAMAGED);
    ck_error(put(&p, &b, 0, 1000, 1), -CV_DATA_DAMAGED);
    b.valid_length = 0; /* nothing was acknowledged yet */
    ck_ok(put(&p, &b, 0, 1000, 1));
    peer_end(&p);
    rig_end(&g);
}

/* As after a power cut: 1000 bytes are here of 5000 that were acknowledged. */
TEST(worker_says_which_part_of_written_data_is_lost)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, 0);
    struct rec_block b = written_block(7, 20, 0);
    ck_ok(put(&p, &b, 0, 1000, 1));
    b.valid_length = 5000;
    ck_ok(put(&p, &b, 5000, 1000, 1)); /* what is written behind it does not hide it */
    b.valid_length = 6000;
    ck_assert_int_eq(get_checked(&p, &b, 0, 1000, 1), 1000);
    ck_error(get(&p, &b, 0, 6000, 0, NULL, NULL), -CV_DATA_DAMAGED);
    ck_error(get(&p, &b, 1000, 4000, 0, NULL, NULL), -CV_DATA_DAMAGED);
    ck_assert_int_eq(get_checked(&p, &b, 5000, 1000, 1), 1000);
    ck_error(put(&p, &b, 2000, 1000, 1), -CV_DATA_DAMAGED);
    struct opened o = open_block(&p, &b, 0);
    ck_assert(o.result == -ENODATA || !(o.m.readable & 1)); /* nor in the descriptor */
    close_fd(o.fd);
    ck_ok(put(&p, &b, 0, 5000, 1));
    ck_assert_int_eq(get_checked(&p, &b, 0, 6000, 1), 6000);
    peer_end(&p);
    rig_end(&g);
}

/* A few bytes in the middle of a file that was not cached: the chunk is fetched, the rest stays where it is. */
TEST(worker_fetches_the_base_under_a_write)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    ufs_file(&g, 5, BASE, 3 * MIB + 500);
    struct rec_block b = clean_block(5, 0, 3 * MIB + 500);
    b.version = b.epoch = 200;
    b.valid_length = 3 * MIB + 500;
    ck_ok(put(&p, &b, MIB + 1000, 100, 2));
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_bytes_total"), MIB);
    ck_assert_int_eq(get_checked(&p, &b, 0, MIB + 1000, BASE), MIB + 1000);
    ck_assert_int_eq(get_checked(&p, &b, MIB + 1000, 100, 2), 100);
    ck_assert_int_eq(get_checked(&p, &b, MIB + 1100, 2 * MIB, BASE), 2 * MIB - 600);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_bytes_total"), 3 * MIB + 500);
    peer_end(&p);
    rig_end(&g);
}

TEST_TIMEOUT(worker_fetches_each_byte_once_for_many_readers, 60)
{
    enum { READERS = 32 };
    struct rig g;
    struct peer peers[4];
    static struct pending asked[READERS][16];
    rig_begin(&g, "256MiB", "  fill_range_bytes: 1MiB\n");
    for (int i = 0; i < 4; i++)
        peer_begin(&peers[i], i % 2 ? g.address : g.socket, 0);
    ufs_file(&g, 5, BASE, 16 * MIB);
    for (int r = 0; r < READERS; r++)
        for (uint32_t i = 0; i < 16; i++) {
            struct rec_block b = clean_block(5, i / 4, 16 * MIB);
            struct msg_block_read q = {.block = b, .offset = i % 4 * MIB, .length = MIB};
            ask_begin(&peers[r % 4], &asked[r][i], MSG_block_read, msg_block_read_desc(), &q, NULL, 0);
        }
    for (int r = 0; r < READERS; r++)
        for (uint32_t i = 0; i < 16; i++) {
            struct answer a = ask_end(&asked[r][i]);
            ck_ok(a.result);
            ck_assert_uint_eq(a.data_n, MIB);
            ck_assert_uint_eq(a.data[77], byte_of(5, BASE, (uint64_t)i * MIB + 77));
            answer_free(&a);
        }
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_bytes_total"), 16 * MIB);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_gets_total"), 16);
    ck_assert_uint_eq(g.master.origins, 1);
    for (int i = 0; i < 4; i++)
        peer_end(&peers[i]);
    rig_end(&g);
}
