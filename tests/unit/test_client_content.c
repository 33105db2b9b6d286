/* SPDX-License-Identifier: Apache-2.0 */
/* libcurvine's data path against a small cluster in the process: client_rig.h. */
#include "tests/unit/client_rig.h"

#include <semaphore.h>

#include "base/random.h"

static struct rig rig;

static void expect_base(struct curvine_file *f, unsigned i, uint64_t offset, size_t n, size_t expected)
{
    uint8_t *p = malloc(n);
    ck_assert_int_eq(curvine_pread(f, p, n, offset), expected);
    for (size_t k = 0; k < expected; k++)
        if (p[k] != rig_base(RIG_FIRST_INODE + i, offset + k))
            ck_abort_msg("byte %zu", (size_t)offset + k);
    free(p);
}

static void with_base(uint64_t bytes)
{
    rig.files[0].size = rig.files[0].base_bytes = bytes;
    rig.files[0].base_version = 7;
}

static void read_cold_and_warm(bool local)
{
    rig_start(&rig, 2, 1, local);
    with_base(5 * RIG_BLOCK / 2 + 123);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDONLY);
    uint64_t size = rig.files[0].size;
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t at = 0; at < size; at += 256 << 10)
            expect_base(f, 0, at, 256 << 10, min(size - at, 256u << 10));
        expect_base(f, 0, RIG_BLOCK - 100, 4096, 4096);
        expect_base(f, 0, size - 10, 100, 10);
        expect_base(f, 0, size, 100, 0);
        expect_base(f, 0, size + RIG_BLOCK, 100, 0);
        expect_base(f, 0, 0, size + 100, size);
    }
    int requests = 0;
    for (unsigned w = 0; w < 2; w++)
        for (unsigned t = 0; t < 0x40; t++)
            requests += rig.workers[w].count[t];
    for (uint64_t at = 0; local && at < size; at += 4096)
        expect_base(f, 0, at, 4096, min(size - at, 4096u));
    for (unsigned w = 0; w < 2; w++)
        for (unsigned t = 0; t < 0x40; t++)
            requests -= rig.workers[w].count[t];
    if (local)
        ck_assert_int_eq(requests, 0); /* warm: none at all */
    int reads = rig.workers[0].count[MSG_block_read & 0x3f] + rig.workers[1].count[MSG_block_read & 0x3f];
    ck_assert_int_eq(reads > 0, !local);
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_int_eq(rig.files[0].opens, 0);
    curvine_close(cv);
    rig_stop(&rig);
}

TEST(a_file_of_a_worker_on_this_host_is_read_through_its_descriptor)
{
    read_cold_and_warm(true);
}

TEST(a_file_of_another_host_is_read_by_messages)
{
    read_cold_and_warm(false);
}

TEST(reading_one_byte_does_not_fetch_the_file)
{
    rig_start(&rig, 1, 1, false);
    with_base(40 * RIG_FILL);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDONLY);
    expect_base(f, 0, 7777777, 1, 1);
    expect_base(f, 0, 17777777, 1, 1);
    expect_base(f, 0, 3777777, 1, 1);
    ck_assert_int_eq(rig.workers[0].count[MSG_block_read & 0x3f], 3);
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
}

TEST(pieces_show_content_where_it_lies)
{
    rig_start(&rig, 1, 1, true);
    with_base(2 * RIG_BLOCK);
    rig.files[0].size = 3 * RIG_BLOCK;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDONLY);
    struct curvine_piece pieces[8];
    unsigned count;
    void *pin;
    ck_assert_int_eq(curvine_read_pieces(f, 0, 4096, pieces, 8, &count, &pin), -EAGAIN);
    uint8_t *all = malloc(3 * RIG_BLOCK);
    ck_assert_int_eq(curvine_pread(f, all, 3 * RIG_BLOCK, 0), 3 * RIG_BLOCK);
    int64_t got = curvine_read_pieces(f, RIG_BLOCK - 1000, RIG_BLOCK + 5000, pieces, 8, &count, &pin);
    ck_assert_int_eq(got, RIG_BLOCK + 5000);
    uint64_t at = RIG_BLOCK - 1000;
    for (unsigned i = 0; i < count; i++) {
        ck_assert_ptr_nonnull(pieces[i].p);
        ck_assert_int_eq(memcmp(pieces[i].p, all + at, pieces[i].n), 0);
        at += pieces[i].n;
    }
    ck_assert_uint_eq(at, 2 * RIG_BLOCK + 4000);
    curvine_pieces_done(f, pin);
    ck_assert_int_eq(curvine_read_pieces(f, 3 * RIG_BLOCK, 4096, pieces, 8, &count, &pin), 0);
    curvine_pieces_done(f, pin);
    free(all);
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
}

/* ---- writing -------------------------------------------------------------------------------------------------------------- */

TEST(a_small_file_costs_one_message_at_close)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(curvine_pwrite(f, "0123456789", 10, (uint64_t)i * 10), 10);
    ck_assert_uint_eq(curvine_file_size(f), 1000);
    ck_assert_uint_eq(rig_size(cv, 0), 1000); /* the master does not know yet */
    char back[20];
    ck_assert_int_eq(curvine_pread(f, back, sizeof(back), 985), 15);
    ck_assert_int_eq(memcmp(back, "567890123456789", 15), 0);
    ck_assert_int_eq(rig.asked[MSG_write_commit & 0xff], 0);
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_int_eq(rig.asked[MSG_write_commit & 0xff], 1);
    ck_assert_int_eq(rig.asked[MSG_close & 0xff], 0);
    ck_assert_uint_eq(rig.files[0].inline_n, 1000);
    ck_assert_int_eq(rig.files[0].opens, 0);
    curvine_close(cv);
    rig_stop(&rig);
}

#define MODEL_BYTES (6u * RIG_BLOCK)

struct model {
    uint8_t *p;
    uint64_t size;
};

static void model_write(struct model *m, const uint8_t *p, uint64_t n, uint64_t at)
{
    memcpy(m->p + at, p, n);
    m->size = max(m->size, at + n);
}

static void model_truncate(struct model *m, uint64_t size)
{
    if (size < m->size)
        memset(m->p + size, 0, m->size - size);
    m->size = size;
}

static void expect_model(struct curvine_file *f, const struct model *m, uint64_t at, uint32_t n, int step)
{
    uint8_t *p = malloc(n);
    uint64_t expected = at < m->size ? min((uint64_t)n, m->size - at) : 0;
    int64_t got = curvine_pread(f, p, n, at);
    if (got != (int64_t)expected)
        ck_abort_msg("step %d: read %lld of %llu at %llu", step, (long long)got, (unsigned long long)expected,
                     (unsigned long long)at);
    for (uint64_t i = 0; i < expected; i++)
        if (p[i] != m->p[at + i])
            ck_abort_msg("step %d: byte %llu is %02x, not %02x", step, (unsigned long long)(at + i), p[i],
                         m->p[at + i]);
    free(p);
}

static uint64_t some_offset(struct prng *r, const struct model *m)
{
    switch (prng_below(r, 5)) {
    case 0: return prng_below(r, 5000);
    case 1: return m->size;
    case 2: return (1 + prng_below(r, 4)) * RIG_BLOCK - prng_below(r, 5000);
    default: return prng_below(r, MODEL_BYTES - 400000);
    }
}

static void random_work(uint64_t seed, unsigned workers, unsigned replicas, bool local, uint64_t base, bool shared)
{
    struct prng r = {seed};
    struct model m = {.p = calloc(1, MODEL_BYTES), .size = base};
    rig_start(&rig, workers, replicas, local);
    rig.shared = shared;
    if (base)
        with_base(base);
    for (uint64_t i = 0; i < base; i++)
        m.p[i] = rig_base(RIG_FIRST_INODE, i);
    struct curvine *cv = rig_client(&rig), *other = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    static uint8_t bytes[400000];
    for (int step = 0; step < 400; step++) {
        uint32_t n = prng_below(&r, 4) ? prng_below(&r, 9000) + 1 : prng_below(&r, sizeof(bytes)) + 1;
        uint64_t at = some_offset(&r, &m);
        at = min(at, (uint64_t)MODEL_BYTES - n);
        bool small = prng_below(&r, 400) < 200 && step < 60;
        if (small)
            at = prng_below(&r, 3000), n = prng_below(&r, 1000) + 1;
        switch (prng_below(&r, 12)) {
        case 0:
        case 1:
        case 2:
        case 3:
            for (uint32_t i = 0; i < n; i += 8)
                put_le64(bytes + min(i, (uint32_t)sizeof(bytes) - 8), prng_next(&r));
            ck_assert_int_eq(curvine_pwrite(f, bytes, n, at), n);
            model_write(&m, bytes, n, at);
            break;
        case 4: {
            uint64_t size = small ? at : prng_below(&r, 3) ? min(m.size, at) : at;
            ck_assert_int_eq(rig_truncate_file(cv, 0, size), 0);
            model_truncate(&m, size);
            break;
        }
        case 5: ck_assert_int_eq(curvine_fsync(f), 0); break;
        case 6:
            ck_assert_int_eq(curvine_file_close(f), 0);
            f = rig_open_file(cv, 0, O_RDWR);
            break;
        case 7: { /* another client sees what was flushed */
            ck_assert_int_eq(rig_flush(cv, f), 0);
            struct curvine_file *g = rig_open_file(other, 0, O_RDONLY);
            expect_model(g, &m, at, n, step);
            ck_assert_int_eq(curvine_file_close(g), 0);
            break;
        }
        case 8: ck_assert_uint_eq(rig_size(cv, 0), m.size); break;
        default: expect_model(f, &m, at, n, step);
        }
        ck_assert_uint_eq(curvine_file_size(f), m.size);
    }
    expect_model(f, &m, 0, MODEL_BYTES, -1);
    ck_assert_int_eq(curvine_file_close(f), 0);
    f = rig_open_file(other, 0, O_RDONLY);
    expect_model(f, &m, 0, MODEL_BYTES, -2);
    ck_assert_int_eq(curvine_file_close(f), 0);
    ck_assert_int_eq(rig.files[0].opens, 0);
    curvine_close(cv);
    curvine_close(other);
    rig_stop(&rig);
    free(m.p);
}

TEST_TIMEOUT(random_work_on_a_local_worker_agrees_with_a_model, 60)
{
    for (uint64_t seed = 1; seed <= 5; seed++)
        random_work(seed, 1, 1, true, 0, false);
}

TEST_TIMEOUT(random_work_on_remote_workers_with_two_replicas_agrees_with_a_model, 60)
{
    for (uint64_t seed = 11; seed <= 15; seed++)
        random_work(seed, 3, 2, false, 0, false);
}

TEST_TIMEOUT(random_work_on_base_content_agrees_with_a_model, 60)
{
    for (uint64_t seed = 21; seed <= 24; seed++)
        random_work(seed, 2, 1, seed % 2, 3 * RIG_BLOCK + 4711, false);
}

TEST_TIMEOUT(random_work_on_a_shared_file_agrees_with_a_model, 60)
{
    random_work(31, 2, 2, false, 0, true);
    random_work(32, 1, 1, true, 3 * RIG_BLOCK / 2, true);
}

TEST(writes_append_behind_one_another)
{
    rig_start(&rig, 1, 1, true);
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR | O_APPEND);
    char line[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof(line), "%09d\n", i);
        ck_assert_int_eq(curvine_pwrite(f, line, 10, 0), 10);
    }
    for (int i = 0; i < 1000; i++) {
        char back[10];
        snprintf(line, sizeof(line), "%09d\n", i);
        ck_assert_int_eq(curvine_pread(f, back, 10, (uint64_t)i * 10), 10);
        ck_assert_int_eq(memcmp(back, line, 10), 0);
    }
    curvine_file_close(f);
    ck_assert_uint_eq(rig.files[0].size, 10000);
    curvine_close(cv);
    rig_stop(&rig);
}

/* ---- trouble ----------------------------------------------------------------------------------------------------------------- */

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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
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
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
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
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
}

static void wait_held(void)
{
    uint64_t until = clock_ns() + 5 * NS_PER_S;
    while (!atomic_load(&rig.held_commit)) {
        ck_assert_uint_lt(clock_ns(), until);
        usleep(1000);
    }
}

struct flush {
    struct curvine_request q;
    sem_t done;
};

static void on_flushed(struct curvine_request *q)
{
    sem_post(&container_of(q, struct flush, q)->done);
}

/* Begun when this returns: what follows on the handle's loop comes behind it. */
static void flush_begin(struct flush *f, struct curvine *cv, struct curvine_file *file)
{
    *f = (struct flush){.q = {.op = CURVINE_FLUSH, .file = file, .done = on_flushed}};
    sem_init(&f->done, 0, 0);
    curvine_submit(cv, &f->q);
    struct curvine_request next = {.op = CURVINE_GETATTR, .inode = curvine_file_inode(file)};
    ck_assert_int_eq(curvine_run(cv, &next), 0);
}

static int flush_end(struct flush *f)
{
    while (sem_wait(&f->done) < 0)
        ;
    sem_destroy(&f->done);
    return f->q.result;
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
}

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
    curvine_file_close(f);
    curvine_close(cv);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
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
    curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
}

/* ---- threads -------------------------------------------------------------------------------------------------------------------- */

struct worker_thread {
    struct curvine_file *f;
    unsigned number;
};

#define THREADS 4

/* Each thread has every fourth stretch of 16 KiB to itself. */
static void *write_and_read(void *arg)
{
    struct worker_thread *t = arg;
    struct prng r = {t->number + 1};
    uint8_t bytes[16384], back[16384], last[64] = {0};
    for (int i = 0; i < 300; i++) {
        unsigned place = prng_below(&r, 64);
        uint64_t at = ((uint64_t)place * THREADS + t->number) * sizeof(bytes);
        if (prng_below(&r, 2)) {
            last[place] = (uint8_t)(1 + prng_below(&r, 255));
            memset(bytes, last[place], sizeof(bytes));
            ck_assert_int_eq(curvine_pwrite(t->f, bytes, sizeof(bytes), at), sizeof(bytes));
        } else {
            int64_t got = curvine_pread(t->f, back, sizeof(back), at);
            ck_assert_int_ge(got, last[place] ? (int64_t)sizeof(back) : 0);
            memset(bytes, last[place], sizeof(bytes));
            ck_assert_int_eq(memcmp(bytes, back, (size_t)got), 0);
        }
        if (i % 100 == 50)
            ck_assert_int_eq(curvine_fsync(t->f), 0);
    }
    return NULL;
}

TEST_TIMEOUT(threads_write_and_read_one_file, 60)
{
    for (unsigned local = 0; local < 2; local++) {
        rig_start(&rig, 2, 2, local);
        struct curvine *cv = rig_client(&rig);
        struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
        pthread_t threads[THREADS];
        struct worker_thread args[THREADS];
        for (unsigned i = 0; i < THREADS; i++) {
            args[i] = (struct worker_thread){f, i};
            ck_assert_int_eq(pthread_create(&threads[i], NULL, write_and_read, &args[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        ck_assert_int_eq(curvine_file_close(f), 0);
        curvine_close(cv);
        rig_stop(&rig);
    }
}
