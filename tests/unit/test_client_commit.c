/* SPDX-License-Identifier: Apache-2.0 */
/* libcurvine's data path towards the master: commits, flush and fsync, another leader, other clients. */
#include "tests/unit/client_data.h"

/* The append knew its place and waited for the inline content to go to a block when the file became empty. */
TEST(what_waits_to_be_appended_goes_behind_the_new_end)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR | O_APPEND);
    char bytes[5000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, 100, 0), 100);
    ck_assert_int_eq(rig_flush(cv, f), 0);
    rig.workers[0].error[MSG_block_write & 0x3f] = -CV_BUSY;
    rig.workers[0].trouble[MSG_block_write & 0x3f] = 4;
    struct flush w = {.q = {.op = CURVINE_WRITE, .file = f, .value = {bytes, sizeof(bytes)}, .done = on_flushed}};
    sem_init(&w.done, 0, 0);
    curvine_submit(cv, &w.q);
    ck_assert_int_eq(rig_truncate_file(cv, 0, 0), 0);
    ck_assert_int_eq(flush_end(&w), sizeof(bytes));
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_uint_eq(rig.files[0].size, sizeof(bytes));
    curvine_close(cv);
    rig_stop(&rig);
}

TEST(files_are_opened_again_for_a_leader_that_knows_no_handles)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR), *g = rig_open_file(cv, 1, O_RDWR);
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_pwrite(g, bytes, 100, 0), 100); /* inline */
    loop_call(rig.loop, rig_forget_handles, &rig);
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 2 * RIG_BLOCK), sizeof(bytes)); /* needs a grant */
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_int_eq(curvine_file_close(g), 0); /* the commit that closes is refused first */
    ck_assert_uint_eq(rig.files[0].size, 2 * RIG_BLOCK + 10000);
    ck_assert_uint_eq(rig.files[1].inline_n, 100);
    ck_assert_int_eq(rig.files[0].opens, 0);
    ck_assert_int_eq(rig.files[1].opens, 0);
    curvine_close(cv);
    rig_stop(&rig);
}

/* The same where the leader takes handles of the one before: nothing is opened again. */
TEST(handles_are_told_to_a_new_leader)
{
    rig_start(&rig, 1, 1, true);
    rig.takes_handles = true;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR), *g = rig_open_file(cv, 1, O_RDWR | O_TRUNC);
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_pwrite(g, bytes, 100, 0), 100);
    loop_call(rig.loop, rig_forget_handles, &rig);
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 2 * RIG_BLOCK), sizeof(bytes)); /* needs a grant */
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_file_close(g), 0);
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_int_eq(rig.asked[MSG_open & 0xff], 2);
    ck_assert_int_ge(rig.asked[MSG_reassert & 0xff], 1);
    ck_assert_int_eq(rig.files[0].opens, 0);
    ck_assert_int_eq(rig.files[1].opens, 0);
    curvine_close(cv);
    rig_stop(&rig);
}

/* Early answers, and then another generation: what was written since the last fsync may be gone. Told once. */
TEST(fsync_says_that_what_was_answered_early_may_be_lost)
{
    rig_start(&rig, 1, 1, true);
    rig.acks_early = true;
    rig.generation = 7;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR), *g = rig_open_file(cv, 1, O_RDWR);
    struct curvine_request flush = {.op = CURVINE_FLUSH, .file = f},
                           sync = {.op = CURVINE_FSYNC, .inode = CURVINE_ROOT};
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_run(cv, &sync), 0);
    rig.generation = 8; /* nothing was in the air */
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_run(cv, &sync), 0);
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_run(cv, &flush), 0);
    rig.generation = 9;
    ck_assert_int_eq(curvine_run(cv, &sync), -CV_ACK_LOST);
    ck_assert_int_eq(curvine_run(cv, &sync), 0);
    ck_assert_int_eq(curvine_fsync(g), 0); /* nothing of it was written */
    ck_assert_int_eq(curvine_fsync(f), -CV_ACK_LOST);
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_int_eq(curvine_file_close(g), 0);
    curvine_close(cv);
    rig_stop(&rig);
}

TEST(fsync_asks_for_a_majority_where_answers_leave_before_it)
{
    for (int early = 0; early < 2; early++) {
        rig_start(&rig, 1, 1, true);
        rig.acks_early = early;
        struct curvine *cv = rig_client(&rig);
        struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
        char bytes[10000] = {1};
        ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
        ck_assert_int_eq(curvine_fsync(f), 0);
        ck_assert_int_eq(rig.durable_asked, early);
        ck_assert_int_eq(curvine_fsync(f),
                         0); /* nothing was written: the last answer may not be durable all the same */
        ck_assert_int_eq(rig.durable_asked, 2 * early);
        ck_assert_int_eq(curvine_file_close(f), 0);
        ck_assert_int_eq(rig.durable_asked, 2 * early); /* closing promises nothing */
        curvine_close(cv);
        rig_stop(&rig);
    }
}

TEST(a_refused_commit_is_reported)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    rig.refuse_commit = 1;
    ck_assert_int_eq(curvine_fsync(f), -CV_STALE_EPOCH);
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 10000), sizeof(bytes));
    ck_assert_int_eq(curvine_fsync(f), 0);
    end_file(cv, f);
}

TEST(each_handle_is_told_once_that_what_was_written_is_lost)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR), *other = rig_open_file(cv, 0, O_RDWR);
    struct curvine_file *reader = rig_open_file(cv, 0, O_RDONLY);
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    rig.refuse_commit = 1;
    ck_error(curvine_fsync(f), -CV_STALE_EPOCH);
    struct curvine_file *later = rig_open_file(cv, 0, O_RDWR);
    ck_ok(curvine_fsync(f));
    ck_ok(curvine_fsync(later)); /* somebody knew it when this was opened */
    ck_error(curvine_fsync(other), -CV_STALE_EPOCH);
    ck_ok(curvine_fsync(other));
    ck_ok(rig_flush(cv, reader));
    ck_error(curvine_fsync(reader), -CV_STALE_EPOCH);
    ck_ok(curvine_fsync(reader));

    rig.workers[0].boot = 7;
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    rig.workers[0].boot = 8;
    ck_error(curvine_fsync(other), -CV_WRITES_LOST);
    ck_error(curvine_fsync(f), -CV_WRITES_LOST); /* it was this one's */
    ck_error(rig_flush(cv, later), -CV_WRITES_LOST);
    ck_ok(curvine_fsync(f));
    ck_ok(curvine_fsync(other));
    ck_ok(curvine_fsync(later));
    curvine_file_close(later);
    curvine_file_close(other);
    curvine_file_close(reader);
    end_file(cv, f);
}

TEST(an_error_that_nobody_was_told_waits_for_who_opens_next)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR), *next, *last;
    char bytes[10000] = {1};
    rig.refuse_commit = 1;
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    until(rig.refuse_commit == 0); /* of the tick */
    struct curvine_request q = {.op = CURVINE_GETATTR, .inode = RIG_FIRST_INODE};
    ck_ok(curvine_run(cv, &q)); /* its answer is behind that of the commit */
    next = rig_open_file(cv, 0, O_RDONLY);
    ck_error(curvine_fsync(next), -CV_STALE_EPOCH);
    last = rig_open_file(cv, 0, O_RDONLY);
    ck_ok(curvine_fsync(last));
    ck_error(curvine_fsync(f), -CV_STALE_EPOCH);
    curvine_file_close(next);
    curvine_file_close(last);
    end_file(cv, f);
}

static void fsync_begin(struct flush *y, struct curvine *cv, struct curvine_file *f, uint32_t timeout_ms)
{
    *y = (struct flush){.q = {.op = CURVINE_FSYNC, .file = f, .done = on_flushed, .timeout_ms = timeout_ms}};
    sem_init(&y->done, 0, 0);
    curvine_submit(cv, &y->q);
}

TEST(an_fsync_that_is_cancelled_ends_at_once_and_the_sync_goes_on)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    struct flush y, again;
    struct rig_worker *w = &rig.workers[0];
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    w->hold_sync = true;
    uint64_t start = clock_ns();
    fsync_begin(&y, cv, f, 60000);
    until(w->held_sync);
    curvine_cancel(cv, &y.q);
    ck_error(flush_end(&y), -CV_CANCELLED);
    ck_assert_uint_lt(clock_ns() - start, 20 * NS_PER_S);
    fsync_begin(&again, cv, f, 60000); /* joins the one under way */
    loop_call(rig.loop, rig_sync_go, w);
    ck_ok(flush_end(&again));
    ck_assert_int_eq(w->count[MSG_block_sync & 0x3f], 1);
    ck_ok(curvine_fsync(f));
    ck_assert_int_eq(w->count[MSG_block_sync & 0x3f], 1); /* nothing was left to do */

    /* What it finds is not lost because nobody waited for it. */
    w->boot = 7;
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    w->boot = 8;
    w->hold_sync = true;
    fsync_begin(&y, cv, f, 60000);
    until(w->held_sync);
    curvine_cancel(cv, &y.q);
    ck_error(flush_end(&y), -CV_CANCELLED);
    loop_call(rig.loop, rig_sync_go, w);
    ck_error(curvine_fsync(f), -CV_WRITES_LOST);
    ck_ok(curvine_fsync(f));
    end_file(cv, f);
}

TEST(a_handle_is_closed_while_a_sync_nobody_waits_for_is_under_way)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    struct flush y;
    struct rig_worker *w = &rig.workers[0];
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    w->hold_sync = true;
    fsync_begin(&y, cv, f, 60000);
    until(w->held_sync);
    curvine_cancel(cv, &y.q);
    ck_error(flush_end(&y), -CV_CANCELLED);
    ck_ok(curvine_file_close(f));
    curvine_close(cv);
    loop_call(rig.loop, rig_sync_go, w);
    rig_stop(&rig);
}

/* Two flushes; the second one's write came after the commit that fails had left. */
static void two_flushes(int error, int *first, int *second)
{
    rig_start(&rig, 1, 1, true);
    rig.held_error = error;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    struct flush a, b;
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    rig.hold_commit = true;
    flush_begin(&a, cv, f);
    wait_held();
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 10000), sizeof(bytes));
    flush_begin(&b, cv, f);
    loop_call(rig.loop, rig_commit_go, &rig);
    *first = flush_end(&a);
    *second = flush_end(&b);
    if (*second == 0)
        ck_assert_uint_eq(rig.files[0].size, 20000);
    end_file(cv, f);
}

TEST(a_flush_behind_a_commit_that_nobody_answers_waits_for_its_own)
{
    int first, second;
    two_flushes(-CV_DEADLINE, &first, &second);
    ck_assert_int_eq(first, -CV_DEADLINE);
    ck_assert_int_eq(second, 0);
}

TEST(a_flush_behind_a_commit_that_is_refused_fails_too)
{
    int first, second;
    two_flushes(-CV_STALE_EPOCH, &first, &second);
    ck_assert_int_eq(first, -CV_STALE_EPOCH);
    ck_assert_int_eq(second, -CV_STALE_EPOCH);
}

TEST(a_write_behind_a_commit_that_is_refused_is_reported_to_the_next_flush)
{
    rig_start(&rig, 1, 1, true);
    rig.held_error = -CV_STALE_EPOCH;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    struct flush a;
    char bytes[10000] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    rig.hold_commit = true;
    flush_begin(&a, cv, f);
    wait_held();
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 10000), sizeof(bytes));
    loop_call(rig.loop, rig_commit_go, &rig);
    ck_assert_int_eq(flush_end(&a), -CV_STALE_EPOCH);
    ck_assert_int_eq(rig_flush(cv, f), -CV_STALE_EPOCH);
    end_file(cv, f);
}

TEST(more_blocks_than_a_commit_can_name_go_with_several)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    char bytes[2] = {1, 2};
    for (uint64_t b = 0; b < RIG_BLOCKS; b++)
        ck_assert_int_eq(curvine_pwrite(f, bytes, 1, b * RIG_BLOCK), 1);
    ck_assert_int_eq(rig_flush(cv, f), 0);
    ck_assert_int_eq(curvine_pwrite(f, bytes, 2, 0), 2);
    rig.hold_commit = true; /* of the tick: what is written meanwhile goes with the next one */
    wait_held();
    for (uint64_t b = 0; b < RIG_BLOCKS; b++)
        ck_assert_int_eq(curvine_pwrite(f, bytes, 2, b * RIG_BLOCK), 2);
    loop_call(rig.loop, rig_commit_go, &rig);
    ck_assert_int_eq(rig_flush(cv, f), 0);
    for (unsigned b = 0; b < RIG_BLOCKS; b++)
        ck_assert_uint_eq(rig.files[0].rows[b].valid, 2);
    end_file(cv, f);
}

TEST(fsync_reaches_every_worker_that_was_written_to)
{
    rig_start(&rig, RIG_WORKERS, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    unsigned written = 0;
    for (uint64_t b = 0; b < 100; b++)
        ck_assert_int_eq(curvine_pwrite(f, "x", 1, b * RIG_BLOCK), 1);
    ck_assert_int_eq(curvine_fsync(f), 0);
    for (unsigned w = 0; w < RIG_WORKERS; w++) {
        written += rig.workers[w].count[MSG_block_write & 0x3f] > 0;
        ck_assert_int_eq(rig.workers[w].count[MSG_block_sync & 0x3f], rig.workers[w].count[MSG_block_write & 0x3f] > 0);
    }
    ck_assert_uint_gt(written, 20);
    ck_assert_int_eq(curvine_fsync(f), 0); /* nothing to do */
    ck_assert_int_eq(rig.workers[0].count[MSG_block_sync & 0x3f], 1);
    end_file(cv, f);
}

TEST(fsync_tells_once_that_a_workers_host_restarted_since_the_first_write)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    rig.workers[0].boot = 7;
    ck_assert_int_eq(curvine_pwrite(f, "a", 1, INLINE_MAX + 0), 1);
    ck_assert_int_eq(curvine_fsync(f), 0);
    rig.workers[0].boot = 8; /* nothing was left to be synced */
    ck_assert_int_eq(curvine_pwrite(f, "b", 1, INLINE_MAX + 0), 1);
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_pwrite(f, "c", 1, INLINE_MAX + 0), 1);
    rig.workers[0].boot = 9;
    ck_assert_int_eq(curvine_pwrite(f, "d", 1, INLINE_MAX + 1), 1);
    ck_assert_int_eq(curvine_fsync(f), -CV_WRITES_LOST);
    ck_assert_int_eq(curvine_pwrite(f, "e", 1, INLINE_MAX + 2), 1);
    ck_assert_int_eq(curvine_fsync(f), 0);
    /* A sync that does not succeed for another reason forgets nothing. */
    ck_assert_int_eq(curvine_pwrite(f, "f", 1, INLINE_MAX + 3), 1);
    rig.workers[0].boot = 10;
    rig.workers[0].error[MSG_block_sync & 0x3f] = -EIO;
    rig.workers[0].trouble[MSG_block_sync & 0x3f] = 1;
    ck_assert_int_eq(curvine_fsync(f), -EIO);
    ck_assert_int_eq(curvine_pwrite(f, "g", 1, INLINE_MAX + 4), 1);
    ck_assert_int_eq(curvine_fsync(f), -CV_WRITES_LOST);
    end_file(cv, f);
}

TEST(what_another_client_writes_is_seen_within_its_lease)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *a = rig_client(&rig), *b = rig_client(&rig);
    struct curvine_file *f = rig_open_file(a, 0, O_RDWR), *g = rig_open_file(b, 0, O_RDONLY);
    char bytes[8192], back[8192];
    for (int round = 'a'; round < 'd'; round++) {
        memset(bytes, round, sizeof(bytes));
        ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
        ck_assert_int_eq(rig_flush(a, f), 0);
        uint64_t until = clock_ns() + 3 * NS_PER_S;
        do
            ck_assert_uint_lt(clock_ns(), until);
        while (curvine_pread(g, back, sizeof(back), 0) != sizeof(back) || memcmp(bytes, back, sizeof(back)) != 0);
    }
    curvine_file_close(f);
    curvine_file_close(g);
    curvine_close(a);
    curvine_close(b);
    rig_stop(&rig);
}

TEST(the_size_reaches_the_master_while_a_file_is_written)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    char bytes[8192] = {1};
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    uint64_t until = clock_ns() + 5 * NS_PER_S;
    while (atomic_load(&rig.asked[MSG_write_commit & 0xff]) == 0) {
        ck_assert_uint_lt(clock_ns(), until);
        usleep(10000);
    }
    end_file(cv, f);
}
