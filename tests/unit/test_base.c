/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <pthread.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/queue.h"
#include "base/random.h"
#include "base/text.h"

TEST(errors_have_name_text_and_errno)
{
    ck_assert_str_eq(cv_error_name(-CV_NOT_LEADER), "CV_NOT_LEADER");
    ck_assert_str_eq(cv_error_name(-ENOENT), "ENOENT");
    ck_assert_int_eq(cv_error_errno(-CV_NO_SPACE), ENOSPC);
    ck_assert_int_eq(cv_error_errno(-EPERM), EPERM);
    ck_assert_int_eq(cv_error_errno(-9999), EIO);
    ck_assert_str_eq(cv_error_name(-9999), "E9999");
}

TEST(crc32c_has_the_check_value_of_the_standard)
{
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
    ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    ck_assert_uint_eq(crc32c(0, "", 0), 0);
}

struct number {
    struct list link;
    int value;
};

TEST(list_keeps_the_order_of_insertion)
{
    struct list l = LIST_INIT(l), other = LIST_INIT(other);
    struct number n[4] = {{.value = 0}, {.value = 1}, {.value = 2}, {.value = 3}};
    list_push_back(&l, &n[1].link);
    list_push_back(&l, &n[2].link);
    list_push_front(&l, &n[0].link);
    list_push_back(&other, &n[3].link);
    list_append_all(&l, &other);
    ck_assert(list_empty(&other));
    int i = 0;
    list_for_each_safe (e, &l) {
        ck_assert_int_eq(list_entry(e, struct number, link)->value, i++);
        list_remove(e);
    }
    ck_assert_int_eq(i, 4);
    ck_assert_ptr_null(list_pop_front(&l));
}

TEST(bytes_keep_their_order)
{
    uint8_t b[8];
    put_be32(b, 0x01020304);
    ck_assert_mem_eq(b, "\x01\x02\x03\x04", 4);
    put_le64(b, 0x0102030405060708ull);
    ck_assert_mem_eq(b, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    ck_assert_uint_eq(get_le64(b), 0x0102030405060708ull);
}

TEST(sizes_and_durations_are_parsed_or_refused)
{
    uint64_t v;
    ck_assert_int_eq(parse_size("64MiB", &v), 0);
    ck_assert_uint_eq(v, 64ull << 20);
    ck_assert_int_eq(parse_size("10 G", &v), 0);
    ck_assert_uint_eq(v, 10ull << 30);
    ck_assert_int_lt(parse_size("10X", &v), 0);
    ck_assert_int_lt(parse_size("-1", &v), 0);
    ck_assert_int_lt(parse_size("99999999999T", &v), 0);
    ck_assert_int_eq(parse_duration_ms("3s", &v), 0);
    ck_assert_uint_eq(v, 3000);
    ck_assert_int_lt(parse_duration_ms("", &v), 0);
}

TEST(sizes_print_with_three_digits)
{
    char s[32];
    ck_assert_str_eq(format_size(0, s, sizeof(s)), "0 B");
    ck_assert_str_eq(format_size(1536, s, sizeof(s)), "1.50 KiB");
    ck_assert_str_eq(format_size(200ull << 20, s, sizeof(s)), "200 MiB");
}

TEST(buffers_grow_and_keep_what_they_hold)
{
    struct buf b = {0};
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(buf_printf(&b, "%d,", i), 0);
    ck_assert_mem_eq(b.p, "0,1,2,3,", 8);
    ck_assert_mem_eq(b.p + b.n - 4, "999,", 4);
    ck_assert_int_eq(buf_reserve(&b, SIZE_MAX), -ENOMEM);
    buf_fini(&b);
}

TEST(pool_gives_back_released_objects_and_holds_its_limit)
{
    struct pool p;
    pool_init(&p, 24, 100, 10);
    void *o[10];
    for (int i = 0; i < 10; i++) {
        o[i] = pool_alloc(&p);
        ck_assert_ptr_nonnull(o[i]);
        memset(o[i], i, 24);
    }
    ck_assert_ptr_null(pool_alloc(&p));
    pool_release(&p, o[3]);
    ck_assert_ptr_eq(pool_alloc(&p), o[3]);
    pool_release(&p, NULL);
    pool_fini(&p);
}

#define PRODUCERS 4
#define EACH      5000

static void *produce(void *arg)
{
    struct queue *q = arg;
    for (int i = 0; i < EACH; i++) {
        struct number *n = malloc(sizeof(*n));
        n->value = i;
        while (queue_push(q, &n->link) == -CV_BUSY)
            sched_yield();
    }
    return NULL;
}

TEST(queue_passes_every_element_once_and_refuses_when_full)
{
    struct queue q;
    queue_init(&q, 64);
    pthread_t threads[PRODUCERS];
    for (int i = 0; i < PRODUCERS; i++)
        pthread_create(&threads[i], NULL, produce, &q);
    long sum = 0, count = 0;
    while (count < PRODUCERS * EACH) {
        struct list got = LIST_INIT(got);
        ck_assert(queue_take_all(&q, &got, UINT64_MAX));
        struct list *e;
        while ((e = list_pop_front(&got))) {
            struct number *n = list_entry(e, struct number, link);
            sum += n->value;
            count++;
            free(n);
        }
    }
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(sum, (long)PRODUCERS * EACH * (EACH - 1) / 2);

    struct number n[65];
    for (int i = 0; i < 64; i++)
        ck_assert_int_eq(queue_push(&q, &n[i].link), 0);
    ck_assert_int_eq(queue_push(&q, &n[64].link), -CV_BUSY);
    queue_close(&q);
    ck_assert_int_eq(queue_push(&q, &n[64].link), -CV_STOPPING);
    struct list got = LIST_INIT(got);
    ck_assert(queue_take_all(&q, &got, UINT64_MAX));
    ck_assert(!queue_take_all(&q, &got, UINT64_MAX));
    queue_fini(&q);
}

TEST(queue_wait_ends_at_its_timeout)
{
    struct queue q;
    struct list got = LIST_INIT(got);
    queue_init(&q, 1);
    uint64_t start = clock_ns();
    ck_assert(queue_take_all(&q, &got, 10 * NS_PER_MS));
    ck_assert(list_empty(&got));
    ck_assert_uint_ge(clock_ns() - start, 9 * NS_PER_MS);
    queue_fini(&q);
}

TEST(prng_is_a_function_of_its_seed)
{
    struct prng a = {42}, b = {42};
    for (int i = 0; i < 100; i++) {
        ck_assert_uint_eq(prng_next(&a), prng_next(&b));
        ck_assert_uint_lt(prng_below(&a, 7), 7);
        prng_below(&b, 7);
    }
    ck_assert_uint_ne(random_u64(), random_u64());
}
