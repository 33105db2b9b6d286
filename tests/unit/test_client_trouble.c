/* SPDX-License-Identifier: Apache-2.0 */
/* libcurvine's data path when workers break, are slow, damaged or gone, and when the session may be over. */
#include "tests/unit/client_data.h"

static void with_trouble(uint16_t type, int error, int times, bool local, unsigned replicas)
{
    rig_start(&rig, 2, replicas, local);
    with_base(2 * RIG_BLOCK);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    for (unsigned w = 0; w < 2; w++) {
        rig.workers[w].error[type & 0x3f] = error;
        rig.workers[w].trouble[type & 0x3f] = times;
    }
    static uint8_t bytes[100000], back[100000];
    memset(bytes, 0x5a, sizeof(bytes));
    expect_base(f, 0, 1000, 10000, 10000);
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), RIG_BLOCK - 5000), sizeof(bytes));
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_pread(f, back, sizeof(back), RIG_BLOCK - 5000), sizeof(back));
    ck_assert_int_eq(memcmp(bytes, back, sizeof(back)), 0);
    expect_base(f, 0, 1000, 10000, 10000);
    end_file(cv, f);
}

TEST(a_worker_that_breaks_connections_is_asked_again)
{
    static const uint16_t types[] = {MSG_block_read, MSG_block_open, MSG_block_fill, MSG_block_write, MSG_block_sync};
    for (unsigned local = 0; local < 2; local++)
        for (unsigned i = 0; i < array_size(types); i++)
            with_trouble(types[i], -CV_CLOSED, 2, local, 2);
}

TEST(a_worker_that_is_busy_is_asked_again)
{
    static const uint16_t types[] = {MSG_block_read, MSG_block_open, MSG_block_fill, MSG_block_write, MSG_block_sync};
    for (unsigned i = 0; i < array_size(types); i++)
        with_trouble(types[i], -CV_BUSY, 3, i % 2, 1);
}

TEST(a_stale_grant_is_asked_for_again_once)
{
    with_trouble(MSG_block_write, -CV_STALE_EPOCH, 1, true, 1);
}

TEST(damage_on_the_way_is_noticed_and_the_data_asked_for_again)
{
    with_trouble(0, 0, 1, false, 1);
}

TEST(damage_that_stays_is_an_error)
{
    rig_start(&rig, 1, 1, false);
    with_base(RIG_BLOCK);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDONLY);
    rig.workers[0].trouble[0] = 100;
    char c;
    ck_assert_int_eq(curvine_pread(f, &c, 1, 100), -CV_BAD_CHECKSUM);
    end_file(cv, f);
}

TEST(a_dead_worker_ends_calls_at_their_deadline)
{
    rig_start(&rig, 1, 1, false);
    with_base(RIG_BLOCK);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    rig.workers[0].dead = true;
    char bytes[5000] = {1};
    uint64_t start = clock_ns();
    struct curvine_request r = {.op = CURVINE_READ, .file = f, .length = 10, .buffer = bytes, .timeout_ms = 300};
    ck_assert_int_lt(curvine_run(cv, &r), 0);
    struct curvine_request w = {.op = CURVINE_WRITE, .file = f, .value = {bytes, sizeof(bytes)}, .timeout_ms = 300};
    ck_assert_int_lt(curvine_run(cv, &w), 0);
    ck_assert_uint_lt(clock_ns() - start, 5 * NS_PER_S);
    end_file(cv, f);
}

TEST(a_read_goes_to_the_other_replica_when_one_is_gone)
{
    rig_start(&rig, 2, 2, false);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    static uint8_t bytes[1 << 20], back[1 << 20];
    memset(bytes, 0x77, sizeof(bytes));
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_fsync(f), 0);
    for (unsigned w = 0; w < 2; w++) {
        rig.workers[w].dead = true;
        ck_assert_int_eq(curvine_pread(f, back, sizeof(back), 0), sizeof(back));
        ck_assert_int_eq(memcmp(bytes, back, sizeof(back)), 0);
        rig.workers[w].dead = false;
    }
    end_file(cv, f);
}

/* By loop_call(): the worker evicts what the session that is over held, and gives the space to others. */
static int evict_all(void *arg)
{
    static const uint8_t none[2 * RIG_BLOCK];
    struct rig_worker *w = arg;
    ck_assert_int_eq(pwrite(w->fds[0], none, sizeof(none), 0), sizeof(none));
    for (unsigned b = 0; b < 2; b++)
        w->blocks[0][b].readable = 0;
    return 0;
}

TEST(descriptors_are_given_back_with_the_session)
{
    rig_start(&rig, 1, 1, true);
    with_base(2 * RIG_BLOCK);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDONLY);
    for (uint64_t session = 1; session < 4; session++) {
        for (uint64_t at = 0; at < 2 * RIG_BLOCK; at += 65536)
            expect_base(f, 0, at, 65536, 65536);
        ck_assert_uint_eq(rig.workers[0].opened_by, session);
        rig.end_session = true;
        uint64_t until = clock_ns() + 10 * NS_PER_S;
        while (rig.sessions == session) {
            ck_assert_uint_lt(clock_ns(), until);
            usleep(1000);
        }
        loop_call(rig.loop, evict_all, &rig.workers[0]);
        struct curvine_request q = {.op = CURVINE_GETATTR, .inode = RIG_FIRST_INODE};
        ck_assert_int_eq(curvine_run(cv, &q), 0); /* under the new session: it is known here now */
    }
    end_file(cv, f);
}

/* No master is heard of for so long that it has ended the session: content is read by messages, which cannot be wrong. */
TEST_TIMEOUT(a_session_that_may_be_over_reads_by_messages, 60)
{
    rig_start(&rig, 1, 1, true);
    rig.session_timeout_ms = 3000;
    with_base(2 * RIG_BLOCK);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDONLY);
    expect_base(f, 0, 0, 2 * RIG_BLOCK, 2 * RIG_BLOCK);
    ck_assert_int_eq(rig.workers[0].count[MSG_block_read & 0x3f], 0);
    rig.deaf_renew = rig.deaf_layout = true;
    uint64_t until = clock_ns() + 20 * NS_PER_S;
    while (rig.workers[0].count[MSG_block_read & 0x3f] == 0) {
        ck_assert_uint_lt(clock_ns(), until);
        expect_base(f, 0, 4096, 4096, 4096);
        usleep(1000);
    }
    loop_call(rig.loop, evict_all, &rig.workers[0]);
    expect_base(f, 0, 0, 2 * RIG_BLOCK, 2 * RIG_BLOCK);
    rig.deaf_renew = rig.deaf_layout = false;
    end_file(cv, f);
}

/* One replica is damaged, the other may come back: that is no reason to give up. */
TEST(a_read_waits_for_a_replica_when_the_other_one_is_damaged)
{
    rig_start(&rig, 2, 2, false);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    char bytes[10000] = {7}, back[10000];
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_fsync(f), 0);
    const unsigned type = MSG_block_read & 0x3f;
    unsigned first = rig.files[0].rows[0].replicas[0] == rig.workers[0].id ? 0 : 1;
    rig.workers[first].error[type] = -CV_BUSY;
    rig.workers[first].trouble[type] = 3;
    rig.workers[!first].error[type] = -CV_DATA_DAMAGED;
    rig.workers[!first].trouble[type] = 1000;
    ck_assert_int_eq(curvine_pread(f, back, sizeof(back), 0), sizeof(back));
    ck_assert_int_eq(memcmp(bytes, back, sizeof(back)), 0);
    rig.workers[first].error[type] = -CV_DATA_DAMAGED;
    rig.workers[first].trouble[type] = 1000;
    ck_assert_int_eq(curvine_pwrite(f, bytes, 1, 0), 1);                /* what was read is not kept */
    ck_assert_int_eq(curvine_pread(f, back, 100, 5), -CV_DATA_DAMAGED); /* both say so: at once */
    end_file(cv, f);
}

/* A layout is asked for with a deadline of its own, which is not that of who needs it. */
TEST_TIMEOUT(a_write_outlives_a_layout_that_nobody_answers, 30)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    rig.refuse_commit = 1;
    ck_assert_int_eq(curvine_fsync(f), -CV_STALE_EPOCH); /* what is known of the layout is void now */
    rig.deaf_layout = true;
    int asked = rig.asked[MSG_layout & 0xff];
    struct flush w = {.q = {.op = CURVINE_WRITE, .file = f, .value = {bytes, 100}, .done = on_flushed}};
    sem_init(&w.done, 0, 0);
    curvine_submit(cv, &w.q);
    uint64_t until = clock_ns() + 20 * NS_PER_S;
    while (atomic_load(&rig.asked[MSG_layout & 0xff]) < asked + 2 && sem_trywait(&w.done) < 0) {
        ck_assert_uint_lt(clock_ns(), until);
        usleep(1000);
    }
    ck_assert_int_ge(rig.asked[MSG_layout & 0xff], asked + 2); /* the first was given up, not the write */
    rig.deaf_layout = false;
    ck_assert_int_eq(flush_end(&w), 100);
    end_file(cv, f);
}
