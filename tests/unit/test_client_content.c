/* SPDX-License-Identifier: Apache-2.0 */
/* libcurvine's data path against a small cluster in the process (client_rig.h): what is read is what was written. */
#include "tests/unit/client_data.h"

#include "base/random.h"

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
    end_file(cv, f);
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
    end_file(cv, f);
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

/* ---- memory shared with a worker of this host --------------------------------------------------------------------------- */

#define SHARED_BYTES (2 * RIG_BLOCK)

static void write_pattern(struct curvine_file *f, uint8_t seed)
{
    static uint8_t bytes[SHARED_BYTES], back[SHARED_BYTES];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251 + seed);
    ck_assert_int_eq(curvine_pwrite(f, bytes, sizeof(bytes), 0), sizeof(bytes));
    ck_assert_int_eq(curvine_fsync(f), 0);
    ck_assert_int_eq(curvine_pread(f, back, sizeof(back), 0), sizeof(back));
    ck_assert_int_eq(memcmp(bytes, back, sizeof(back)), 0);
}

/* The first write asks for it and does not wait; of later ones some may. */
static void until_shared(struct curvine_file *f)
{
    uint64_t until = clock_ns() + 10 * NS_PER_S;
    for (int before = rig.workers[0].shared_writes; rig.workers[0].shared_writes == before;) {
        ck_assert_uint_lt(clock_ns(), until);
        write_pattern(f, 1);
    }
}

TEST(what_is_written_to_a_worker_of_this_host_goes_by_shared_memory)
{
    rig_start(&rig, 1, 1, true);
    rig.workers[0].lends = true;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    until_shared(f);
    for (uint8_t i = 0; i < 20; i++)
        write_pattern(f, i);
    ck_assert_int_eq(rig.workers[0].memories, 1);
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
}

TEST(shared_memory_of_a_connection_that_broke_is_asked_for_anew)
{
    rig_start(&rig, 1, 1, true);
    rig.workers[0].lends = true;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR);
    for (int i = 1; i <= 3; i++) {
        until_shared(f);
        ck_assert_int_eq(rig.workers[0].memories, i);
        rig.workers[0].error[MSG_block_write & 0x3f] = -CV_CLOSED;
        rig.workers[0].trouble[MSG_block_write & 0x3f] = 1;
        write_pattern(f, 2);
    }
    ck_assert_int_eq(curvine_file_close(f), 0);
    curvine_close(cv);
    rig_stop(&rig);
}

/* A worker that is late reads what it was told to write, not what was written since. */
TEST(shared_memory_of_a_write_that_was_given_up_is_not_used_again)
{
    static uint8_t bytes[100000];
    rig_start(&rig, 1, 1, true);
    rig.workers[0].lends = true;
    struct curvine *cv = rig_client(&rig);
    struct curvine_file *f = rig_open_file(cv, 0, O_RDWR), *other = rig_open_file(cv, 1, O_RDWR);
    until_shared(f);
    memset(bytes, 0x33, sizeof(bytes));
    rig.workers[0].hold_write = true;
    struct curvine_request w = {
        .op = CURVINE_WRITE, .file = f, .value = {(char *)bytes, sizeof(bytes)}, .timeout_ms = 300};
    ck_assert_int_lt(curvine_run(cv, &w), 0);
    ck_assert_ptr_nonnull(rig.workers[0].held_write);
    for (uint8_t i = 0; i < 5; i++)
        write_pattern(other, i);
    until_shared(other);
    ck_assert_int_eq(rig.workers[0].memories, 2);
    loop_call(rig.loop, rig_write_go, &rig.workers[0]); /* checks the checksum */
    ck_assert_int_eq(curvine_file_close(other), 0);
    (void)curvine_file_close(f);
    curvine_close(cv);
    rig_stop(&rig);
}
