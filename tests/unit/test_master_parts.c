/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the master without threads: the book of batches, the table of sessions. */
#include <errno.h>

#include "base/error.h"
#include "base/random.h"
#include "meta/master_batches.h"
#include "meta/master_digest.h"
#include "meta/master_sessions.h"
#include "tests/unit/unit.h"

/* ---- batches -------------------------------------------------------------------------------------------------------- */

static struct meta_payload *payload(uint64_t number, uint32_t bytes)
{
    struct meta_payload *p = calloc(1, sizeof(*p) + bytes);
    p->batch = number;
    p->n = bytes;
    p->op_count = 1;
    p->references = 2; /* one is the test's: the core's blocks are not freed here */
    return p;
}

static void close_one(struct master_batches *b, struct meta_payload *p)
{
    master_batches_close(b, p);
}

static void wait_for(struct master_batches *b, uint64_t number, struct master_request *q)
{
    master_chain_add(&master_batches_waits(b, number)->mode, q);
}

static uint64_t release(struct master_batches *b, uint64_t index, struct master_chain *out)
{
    uint64_t committed, last = master_batches_release(b, index, index, out, &committed);
    ck_assert_uint_eq(committed, last);
    return last;
}

static void propose_all(struct master_batches *b, uint64_t *sequence)
{
    for (struct master_batch_entry *e; (e = master_batches_next(b));)
        master_batches_proposed(b, e, 1, ++*sequence, 1);
}

TEST(batches_release_requests_with_what_they_depend_on)
{
    struct master_batches b;
    ck_assert_int_eq(master_batches_init(&b, 4), 0);
    b.credit_bytes = 1000;
    b.credit_entries = 10;
    struct meta_payload *p[3];
    struct master_request q[6] = {0};
    uint64_t sequence = 0;
    wait_for(&b, 7, &q[0]);
    close_one(&b, p[0] = payload(7, 100));
    wait_for(&b, 8, &q[1]); /* the one being filled */
    wait_for(&b, 7, &q[2]);
    close_one(&b, p[1] = payload(8, 100));
    close_one(&b, p[2] = payload(11, 100)); /* numbers may have gaps */
    propose_all(&b, &sequence);
    ck_assert_uint_eq(sequence, 3);
    wait_for(&b, 11, &q[3]);
    wait_for(&b, 12, &q[4]);

    struct master_chain out = {0};
    ck_assert_uint_eq(release(&b, 100, &out), 0); /* no index is known yet */
    master_batches_indexed(&b, 1, 50, 3);
    ck_assert_uint_eq(release(&b, 51, &out), 8);
    ck_assert_uint_eq(out.n, 3);
    ck_assert_ptr_eq(master_chain_take(&out), &q[0]);
    ck_assert_ptr_eq(master_chain_take(&out), &q[2]);
    ck_assert_ptr_eq(master_chain_take(&out), &q[1]);
    ck_assert_uint_eq(master_batches_committed(&b, 51)->number, 7);
    master_batches_drop(&b);
    master_batches_drop(&b);
    ck_assert_ptr_null(master_batches_committed(&b, 51));
    ck_assert_uint_eq(master_batches_undo(&b, 0, &out), 11);
    ck_assert_uint_eq(out.n, 2);
    ck_assert_ptr_eq(master_chain_take(&out), &q[3]);
    ck_assert_ptr_eq(master_chain_take(&out), &q[4]);
    ck_assert_uint_eq(b.bytes, 0);
    master_batches_fini(&b);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(p[i]->references, 1);
        free(p[i]);
    }
}

TEST(batches_keep_to_credit_and_size)
{
    struct master_batches b;
    ck_assert_int_eq(master_batches_init(&b, 3), 0);
    ck_assert(!master_batches_may_close(&b, 10)); /* no credit at all */
    b.credit_bytes = 100;
    b.credit_entries = 10;
    ck_assert(master_batches_may_close(&b, 1000)); /* one always may */
    struct meta_payload *p[3];
    close_one(&b, p[0] = payload(1, 60));
    ck_assert(!master_batches_may_close(&b, 41));
    ck_assert(master_batches_may_close(&b, 40));
    b.credit_bytes = 10000;
    b.credit_entries = 1;
    ck_assert(!master_batches_may_close(&b, 1));
    b.credit_entries = 10;
    close_one(&b, p[1] = payload(2, 60));
    close_one(&b, p[2] = payload(3, 60));
    ck_assert(!master_batches_may_close(&b, 1)); /* the ring is full */
    struct master_chain out = {0};
    uint64_t sequence = 0;
    struct master_batch_entry *e = master_batches_next(&b);
    master_batches_proposed(&b, e, 1, ++sequence, 1);
    ck_assert_uint_eq(master_batches_undo(&b, 1, &out), 2); /* one of them was not proposed yet, nor the last */
    ck_assert_uint_eq(b.count, 1);
    ck_assert_uint_eq(b.bytes, 60);
    ck_assert_ptr_null(master_batches_next(&b));
    master_batches_indexed(&b, 1, 9, 1);
    ck_assert_uint_eq(master_batches_committed(&b, 9)->number, 1);
    master_batches_drop(&b);
    master_batches_fini(&b);
    for (int i = 0; i < 3; i++)
        free(p[i]);
}

/* What is no batch has a place of its own in the order, and nobody waits for it. */
TEST(batches_take_small_things_between_them)
{
    struct master_batches b;
    ck_assert_int_eq(master_batches_init(&b, 4), 0);
    b.credit_bytes = 1000;
    b.credit_entries = 10;
    struct meta_payload *p[2];
    struct master_request q[2] = {0};
    struct master_chain out = {0};
    uint64_t sequence = 0;
    close_one(&b, p[0] = payload(3, 100));
    master_batches_add(&b, LINK_DIGEST, "digest", 6);
    wait_for(&b, 3, &q[0]);
    close_one(&b, p[1] = payload(4, 100));
    ck_assert_uint_eq(b.bytes, 206);
    propose_all(&b, &sequence);
    ck_assert_uint_eq(sequence, 3);
    master_batches_indexed(&b, 1, 10, 3);
    ck_assert_uint_eq(release(&b, 10, &out), 3);
    ck_assert_uint_eq(out.n, 1);
    ck_assert_uint_eq(master_batches_committed(&b, 11)->type, LINK_BATCH);
    master_batches_drop(&b);
    ck_assert_uint_eq(master_batches_committed(&b, 11)->type, LINK_DIGEST);
    ck_assert_uint_eq(master_batches_undo(&b, 0, &out), 4); /* the core knows of batches only */
    master_batches_fini(&b);
    for (int i = 0; i < 2; i++)
        free(p[i]);
}

/* ---- digests -------------------------------------------------------------------------------------------------------- */

static int check_digest(const struct master_digests *d, uint64_t index, uint64_t digest, uint32_t n)
{
    uint8_t bytes[MASTER_DIGEST_SIZE + 1] = {0};
    struct master_digest_pair pair;
    master_digest_encode(index, digest, bytes);
    return master_digests_check(d, (struct text){(const char *)bytes, n}, &pair);
}

TEST(digests_of_equal_indexes_are_compared)
{
    struct master_digests *d = calloc(1, sizeof(*d));
    for (uint64_t i = 100; i < 100 + 2 * MASTER_DIGESTS; i++)
        master_digests_note(d, i, i * 7);
    uint64_t last = 99 + 2 * MASTER_DIGESTS;
    ck_assert_int_eq(check_digest(d, last, last * 7, MASTER_DIGEST_SIZE), 0);
    ck_assert_int_eq(check_digest(d, last, last * 7 + 1, MASTER_DIGEST_SIZE), -CV_LOG_DIVERGED);
    ck_assert_int_eq(check_digest(d, last - MASTER_DIGESTS + 1, 0, MASTER_DIGEST_SIZE), -CV_LOG_DIVERGED);
    ck_assert_int_eq(check_digest(d, last - MASTER_DIGESTS, 0, MASTER_DIGEST_SIZE), 0); /* not known any more */
    ck_assert_int_eq(check_digest(d, last + 1, 0, MASTER_DIGEST_SIZE), 0);
    ck_assert_int_eq(check_digest(d, last, last * 7, MASTER_DIGEST_SIZE - 1), -CV_BAD_FORMAT);
    ck_assert_int_eq(check_digest(d, last, last * 7, MASTER_DIGEST_SIZE + 1), -CV_BAD_FORMAT);
    struct master_digest_pair pair;
    ck_assert_int_eq(master_digests_check(d, TEXT("\x02\0\0\0"), &pair), -CV_FORMAT_TOO_NEW);
    free(d);
}

/* ---- sessions ------------------------------------------------------------------------------------------------------- */

TEST(sessions_table_agrees_with_a_plain_one)
{
    enum { IDS = 5000 };
    static uint64_t model[IDS];
    struct master_sessions *s;
    struct prng p = {7};
    ck_assert_int_eq(master_sessions_new(4000, &s), 0);
    uint32_t count = 0;
    for (uint64_t step = 1; step < 200000; step++) {
        uint64_t id = prng_below(&p, IDS - 1) + 1;
        if (prng_below(&p, 3)) {
            int r = master_sessions_heard(s, id, step);
            ck_assert_int_eq(r, model[id] || count < 4000 ? 0 : -CV_BUSY);
            count += r == 0 && !model[id];
            if (r == 0)
                model[id] = step;
        } else {
            master_sessions_forget(s, id);
            count -= model[id] != 0;
            model[id] = 0;
        }
        id = prng_below(&p, IDS - 1) + 1;
        ck_assert_uint_eq(master_sessions_last(s, id), model[id]);
    }
    ck_assert_uint_eq(master_sessions_count(s), count);
    master_sessions_reset(s);
    ck_assert_uint_eq(master_sessions_count(s), 0);
    ck_assert_uint_eq(master_sessions_last(s, 1), 0);
    master_sessions_free(s);
}
