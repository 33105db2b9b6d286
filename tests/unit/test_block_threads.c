/* SPDX-License-Identifier: Apache-2.0 */
/* Many threads on one store, on an index in memory: what the thread sanitizer is for. */
#include "tests/unit/fake_index.h"

#include "tests/unit/block_test.h"

#include "base/clock.h"

#define THREADS  6
#define CAPACITY (24 * MIB)

struct worker {
    pthread_t thread;
    struct block_store *s;
    uint64_t seed;
    uint64_t versions[8]; /* of the inode this thread writes */
    uint64_t hits, fills, refused, writes;
};

static bool expected(int r)
{
    return r == 0 || r == -ENODATA || r == -EALREADY || r == -ESTALE || r == -CV_BUSY || r == -CV_NO_SPACE ||
           r == -CV_NOT_PREPARED;
}

static void fill_and_read(struct worker *w, struct prng *random)
{
    uint64_t inode = 1 + prng_below(random, 16), version = 1 + prng_below(random, 3);
    uint32_t length = inode % 2 ? (uint32_t)inode * 7000 : MIB + (uint32_t)inode * 100 * KIB;
    struct block_key k = key_of(inode, 0, version);
    int r = check(w->s, k, length);
    ck_assert_msg(expected(r), "read: %s", cv_error_name(r));
    w->hits += r == 0;
    if (r == -ENODATA) {
        r = fill(w->s, k, place_of(length, length));
        ck_assert_msg(expected(r), "fill: %s", cv_error_name(r));
        w->fills += r == 0;
        w->refused += r == -CV_BUSY || r == -CV_NO_SPACE;
    }
}

/* Each thread writes to a block of its own in one inode of all, and to an inode that is exported meanwhile. */
static void write_some(struct worker *w, struct prng *random, uint32_t index)
{
    struct block_key k = key_of(1000, index, w->versions[0] + 1);
    struct block_grant g = {.key = k, .epoch = k.version, .place = place_of(0, 0), .base_version = w->versions[0]};
    g.base_length = w->versions[0] ? 200 * KIB : 0;
    g.place.length = g.base_length;
    int r = block_write_begin(w->s, &g);
    ck_assert_msg(expected(r), "begin: %s", cv_error_name(r));
    if (r < 0)
        return;
    char *p cleanup(freep) = malloc(200 * KIB);
    pattern(&k, 0, p, 200 * KIB);
    for (uint32_t at = 0; r == 0 && at < 200 * KIB; at += 50 * KIB)
        r = block_write(w->s, &k, g.epoch, at, p + at, 50 * KIB);
    ck_assert_msg(expected(r), "write: %s", cv_error_name(r));
    if (r == 0 && prng_below(random, 2))
        ck_ok(block_write_sync(w->s, 1000));
    if (r == 0)
        ck_ok(check(w->s, k, 200 * KIB));
    if (r < 0) { /* no space: what was written goes */
        while ((r = block_store_remove(w->s, 1000, BLOCK_REMOVE_CLEAN)) == -CV_BUSY)
            usleep(100);
        return;
    }
    ck_ok(block_write_clean(w->s, &k, g.epoch));
    w->versions[0] = k.version;
    w->writes++;
}

static void export_some(struct worker *w, struct prng *random)
{
    struct block_key k = key_of(1 + prng_below(random, 16), 0, 1 + prng_below(random, 3));
    struct block_read rd;
    struct block_export e;
    if (block_read_begin(w->s, &k, 0, 4096, BLOCK_READ_UNCHECKED, &rd) < 0)
        return;
    char got[4096], want[4096];
    pattern(&k, 0, want, sizeof(want));
    int r = block_export(w->s, &rd, &e);
    if (r == 0) {
        usleep(prng_below(random, 500));
        ck_assert_int_eq(pread(e.fd, got, sizeof(got), (off_t)rd.fd_offset), 4096);
        ck_assert_mem_eq(got, want, sizeof(got)); /* whatever happened to it meanwhile */
        close(e.fd);
    }
    block_read_end(w->s, &rd);
    if (r == 0)
        ck_ok(block_export_release(w->s, e.file_id));
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct prng random = {w->seed};
    uint64_t freed;
    for (uint64_t until = clock_ns() + 3 * NS_PER_S; clock_ns() < until;) {
        switch (prng_below(&random, 12)) {
        case 0: ck_assert(expected(block_store_evict(w->s, MIB, &freed))); break;
        case 1: ck_ok(block_store_maintain(w->s)); break;
        case 2: ck_assert(expected(block_store_remove(w->s, 1 + prng_below(&random, 16), BLOCK_REMOVE_CLEAN))); break;
        case 3: ck_ok(block_store_pin(w->s, 1 + prng_below(&random, 16), prng_below(&random, 8) == 0)); break;
        case 4: export_some(w, &random); break;
        case 5:
        case 6: write_some(w, &random, (uint32_t)w->seed); break;
        default: fill_and_read(w, &random); break;
        }
        struct block_store_status st = status_of(w->s);
        ck_assert_int_eq(st.failed, 0);
    }
    return NULL;
}

static struct block_store *removing;

static void remove_now(const struct block_row_key *key)
{
    ck_assert_int_eq(key->p[0], BLOCK_ROW_LEFT);
    ck_ok(block_store_remove(removing, 1, BLOCK_REMOVE_ALL));
}

TEST(block_store_charges_nothing_for_a_file_that_goes_while_its_descriptor_is_given_back)
{
    struct block_store *s = removing = test_new(CAPACITY);
    struct block_key k = key_of(1, 0, 1);
    struct block_read rd;
    struct block_export e;
    ck_ok(fill(s, k, place_of(200 * KIB, 200 * KIB)));
    ck_ok(block_read_begin(s, &k, 0, 4096, BLOCK_READ_UNCHECKED, &rd));
    ck_ok(block_export(s, &rd, &e));
    close(e.fd);
    block_read_end(s, &rd);
    fake_index_missed = remove_now; /* it looks whether the file is unlinked; then it is */
    ck_ok(block_export_release(s, e.file_id));
    ck_assert_ptr_null(fake_index_missed);
    struct block_store_status st = status_of(s);
    ck_assert_uint_eq(st.left_bytes, 0);
    ck_assert_uint_eq(st.used_bytes, 0);
    block_store_free(s);
}

TEST_TIMEOUT(block_store_serves_many_threads_at_once, 30)
{
    static struct worker w[THREADS];
    struct block_store *s = test_new(CAPACITY);
    block_store_free(s);
    struct block_store_options o = test_options(CAPACITY);
    o.memory_bytes = 20 * KIB; /* unload now and then */
    o.files_max = 6;
    ck_ok(block_store_open(&o, &s));
    for (uint32_t i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.s = s, .seed = i};
        ck_assert_int_eq(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    uint64_t hits = 0, fills = 0, writes = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        hits += w[i].hits;
        fills += w[i].fills;
        writes += w[i].writes;
    }
    ck_assert_uint_ge(hits, 3);
    ck_assert_uint_ge(fills, 3);
    ck_assert_uint_ge(writes, 3);
    ck_assert_uint_eq(status_of(s).reserved_bytes, 0);
    ck_assert_uint_le(test_disk_bytes(), CAPACITY);
    for (uint32_t i = 0; i < THREADS; i++)
        if (w[i].versions[0]) {
            int r = check(s, key_of(1000, i, w[i].versions[0]), 200 * KIB);
            ck_assert_msg(expected(r), "%s", cv_error_name(r));
        }
    s = test_reopen(s, CAPACITY);
    uint64_t freed;
    for (uint64_t i = 1; i <= 16; i++)
        ck_ok(block_store_pin(s, i, false));
    (void)block_store_evict(s, CAPACITY, &freed);
    struct block_store_status st = status_of(s);
    ck_assert_msg(st.used_bytes == 0, "%lu bytes are used, %lu of them by files that were left", st.used_bytes,
                  st.left_bytes); /* every byte is accounted for */
    ck_assert_uint_eq(test_disk_bytes(), 0);
    block_store_free(s);
}
