/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker daemon when things go wrong: under file systems that fail or change, a full disk, flipped bytes, a slow or
 * missing master, frames that are none. RocksDB inside, so not for the thread sanitizer.
 */
#include <ftw.h>

#include "tests/unit/worker_test.h"

TEST(worker_says_that_the_object_changed)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    ufs_file(&g, 5, BASE, 6 * MIB);
    struct rec_block b = clean_block(5, 0, 6 * MIB), c = clean_block(5, 1, 6 * MIB);
    ck_assert_int_eq(get_checked(&p, &b, 0, 4096, BASE), 4096);
    ufs_file(&g, 5, BASE + 1, 6 * MIB); /* the origin known is of the file before */
    ck_error(get(&p, &c, 0, 4096, 0, NULL, NULL), -CV_STALE_IDENTITY);
    until(g.master.changed == 1);
    ck_assert_int_eq(get_checked(&p, &b, 0, 4096, BASE), 4096); /* what is cached stays what it was */
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_says_that_a_layout_is_out_of_date)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    ufs_file(&g, 5, BASE, MIB);
    g.master.truncated_base = 1; /* it has another version by now */
    struct rec_block b = clean_block(5, 0, MIB);
    ck_error(get(&p, &b, 0, 4096, 0, NULL, NULL), -CV_STALE_EPOCH);
    struct rec_block w = written_block(7, 20, 0);
    ck_ok(put(&p, &w, 0, 1000, 1));
    w.version = w.epoch = 0;
    w.base_version = w.version = 10; /* older than what was written */
    w.base_length = 1000;
    ck_error(get(&p, &w, 0, 1000, 0, NULL, NULL), -CV_STALE_EPOCH);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_hands_on_what_the_ufs_and_the_master_say)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    struct rec_block b = clean_block(5, 0, MIB);
    ck_error(get(&p, &b, 0, 4096, 0, NULL, NULL), -ENODATA); /* the master knows no origin */
    ck_error(get(&p, &b, 0, 4096, BLOCK_NO_FILL, NULL, NULL), -ENODATA);
    ufs_file(&g, 5, BASE, MIB);
    ck_assert_int_eq(get_checked(&p, &b, 0, 4096, BASE), 4096);
    struct rec_block gone = clean_block(6, 0, MIB);
    ufs_file(&g, 6, BASE, MIB);
    g.master.refuse = -CV_NOT_LEADER;
    until(rig_metric(&g, "registered") == 0);
    struct msg_block_read q = {.block = gone, .length = 4096};
    struct pending late;
    ask_begin(&p, &late, MSG_block_read, msg_block_read_desc(), &q, NULL, 0);
    ck_assert_int_eq(get_checked(&p, &b, 0, 4096, BASE), 4096); /* what is here does not wait */
    g.master.refuse = 0;
    struct answer a = ask_end(&late); /* answered when a leader is found */
    ck_ok(a.result);
    answer_free(&a);
    peer_end(&p);
    rig_end(&g);
}

/* A disk full of written data: writers are told, readers do not notice. */
TEST_TIMEOUT(worker_serves_readers_on_a_full_disk, 60)
{
    struct rig g;
    struct peer p;
    struct msg_block_fill_answer f;
    rig_begin(&g, "64MiB", "");
    peer_begin(&p, g.socket, SESSION);
    int r = 0;
    for (uint64_t i = 100; r == 0 && i < 200; i++) {
        struct rec_block w = written_block(i, 20, 0);
        r = put(&p, &w, 0, MIB, 1);
    }
    ck_error(r, -CV_NO_SPACE);
    ufs_file(&g, 5, BASE, 6 * MIB + 77);
    for (uint32_t i = 0; i < 2; i++) {
        struct rec_block b = clean_block(5, i, 6 * MIB + 77);
        ck_assert_int_eq(get_checked(&p, &b, 0, TEST_BLOCK, BASE), (int)b.base_length);
        ck_assert_int_eq(get_checked(&p, &b, 70000, 5000, BASE), 5000);
        ck_error(fill(&p, &b, 0, 4, 0, &f), -CV_NO_SPACE);
    }
    ck_assert_uint_ge((uint64_t)rig_metric(&g, "direct_bytes_total"), 6 * MIB + 77);
    struct rec_block w = written_block(100, 20, MIB);
    ck_assert_int_eq(get_checked(&p, &w, 0, MIB, 1), MIB);
    g.master.drop = (struct rec_worker_drop){.sequence = 1, .inode = 101, .epoch = UINT64_MAX};
    g.master.has_drop = true;
    until(g.master.dropped == 1);
    w = written_block(300, 20, 0);
    ck_ok(put(&p, &w, 0, 100000, 1));
    peer_end(&p);
    rig_end(&g);
}

/* Eviction under readers of more than there is room for. */
TEST_TIMEOUT(worker_evicts_what_is_cold, 60)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "64MiB", "");
    peer_begin(&p, g.address, 0);
    for (uint64_t i = 5; i < 25; i++) {
        ufs_file(&g, i, BASE, TEST_BLOCK);
        struct rec_block b = clean_block(i, 0, TEST_BLOCK);
        ck_assert_int_eq(get_checked(&p, &b, 0, TEST_BLOCK, BASE), TEST_BLOCK);
    }
    ck_assert_uint_gt((uint64_t)rig_metric(&g, "evicted_bytes"), 0);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_bytes_total"), 20 * TEST_BLOCK);
    peer_end(&p);
    rig_end(&g);
}

/* ---- flipped bytes ---- */

static uint64_t flip_from, flip_bytes;
static int flipped;

static int flip_in(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    uint8_t c;
    if (type != FTW_F || !strstr(path, "/files/") || (uint64_t)st->st_size < flip_bytes)
        return 0;
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pread(fd, &c, 1, (off_t)flip_from), 1);
    c ^= 0x10;
    ck_assert_int_eq(pwrite(fd, &c, 1, (off_t)flip_from), 1);
    close(fd);
    flipped++;
    return 0;
}

/* A byte of the one backing file that is at least so long. */
static void flip(struct rig *g, uint64_t at, uint64_t at_least)
{
    flip_from = at;
    flip_bytes = at_least;
    flipped = 0;
    nftw(g->dir, flip_in, 16, FTW_PHYS);
    ck_assert_int_eq(flipped, 1);
}

TEST(worker_fetches_damaged_clean_data_again)
{
    struct rig g;
    struct peer p;
    struct msg_block_fill_answer f;
    uint8_t *data = NULL;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, SESSION);
    ufs_file(&g, 5, BASE, 3 * MIB);
    struct rec_block b = clean_block(5, 0, 3 * MIB);
    ck_assert_int_eq(get_checked(&p, &b, 0, 3 * MIB, BASE), 3 * MIB);
    rig_stop(&g);
    flip(&g, MIB + 70000, 3 * MIB);
    rig_start(&g);
    peer_end(&p);
    peer_begin(&p, g.socket, SESSION);
    /* Small pieces: found by the worker. */
    ck_assert_int_eq(get_checked(&p, &b, MIB + 70000 - 50, 100, BASE), 100);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "damaged_chunks"), 1);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "fill_bytes_total"), MIB);
    /* Whole units: found by the reader, who says so. */
    flip(&g, 70000, 3 * MIB);
    struct msg_block_read q = {.block = b, .length = MIB};
    struct answer a = ask(&p, MSG_block_read, msg_block_read_desc(), &q, NULL, 0);
    struct msg_block_read_answer m;
    ck_ok(a.result);
    ck_ok(msg_block_read_answer_decode(a.body, a.body_n, &m));
    ck_assert_uint_ne(get_le32(m.crcs.p + 4), crc32c(0, a.data + 65536, 65536));
    answer_free(&a);
    ck_assert_int_eq(get(&p, &b, 0, MIB, BLOCK_VERIFY, &data, NULL), MIB);
    ck_pattern(5, BASE, 0, data, MIB);
    free(data);
    /* By descriptor: verified before it is said to be readable. */
    rig_stop(&g);
    flip(&g, 2 * MIB + 5, 3 * MIB);
    rig_start(&g);
    peer_end(&p);
    peer_begin(&p, g.socket, SESSION);
    struct opened o = open_block(&p, &b, 0);
    ck_ok(o.result);
    ck_assert_uint_eq(o.m.readable, 3);
    ck_ok(fill(&p, &b, 2, 1, 0, &f));
    close(o.fd);
    o = open_block(&p, &b, 0);
    ck_assert_uint_eq(o.m.readable, 7);
    uint8_t one[100];
    ck_assert_int_eq(pread(o.fd, one, 100, (off_t)o.m.fd_offset + 2 * MIB), 100);
    ck_pattern(5, BASE, 2 * MIB, one, 100);
    close(o.fd);
    peer_end(&p);
    rig_end(&g);
}

/* ---- frames ---- */

TEST(worker_refuses_malformed_messages)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    static const uint16_t types[] = {MSG_block_read, MSG_block_open, MSG_block_release, MSG_block_fill, MSG_block_write,
                                     MSG_block_sync, MSG_presence,   MSG_block_list,    MSG_free};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct msg_ping junk = {.sent_ns = 0x0102030405060708}; /* a field cut in the middle, or nonsense */
        struct answer a = ask(&p, types[i], msg_ping_desc(), &junk, "data", 4);
        ck_assert_msg(a.result < 0 || types[i] == MSG_block_sync || types[i] == MSG_block_list, "%s",
                      message_name(types[i]));
        answer_free(&a);
    }
    struct msg_ping ping = {0};
    struct answer a = ask(&p, 0x02f0, msg_ping_desc(), &ping, NULL, 0);
    ck_error(a.result, -CV_UNKNOWN_MESSAGE);
    answer_free(&a);
    struct rec_block b = clean_block(5, 0, MIB);
    ck_error(get(&p, &b, 0, 17 * MIB, 0, NULL, NULL), -EINVAL);
    ck_error(get(&p, &b, 5 * MIB, 1, 0, NULL, NULL), -EINVAL);
    b.base_length = 5 * MIB;
    ck_error(get(&p, &b, 0, 1, 0, NULL, NULL), -EINVAL);
    b = clean_block(0, 0, MIB);
    ck_error(get(&p, &b, 0, 1, 0, NULL, NULL), -EINVAL);
    peer_end(&p);
    rig_end(&g);
}

/* Stopping does not wait for a master that never answers. */
TEST_TIMEOUT(worker_stops_although_something_waits, 30)
{
    struct rig g;
    struct peer p;
    struct pending late;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    until(g.master.registered);
    g.master.refuse = -CV_NOT_LEADER;
    struct rec_block b = clean_block(5, 0, MIB);
    struct msg_block_read q = {.block = b, .length = 4096};
    ask_begin(&p, &late, MSG_block_read, msg_block_read_desc(), &q, NULL, 0);
    until(rig_metric(&g, "in_flight") >= 1);
    rig_stop(&g);
    struct answer a = ask_end(&late);
    ck_assert_int_lt(a.result, 0);
    answer_free(&a);
    peer_end(&p);
    config_free(g.config);
    master_end(&g.master);
}
