/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's table of workers, with a clock of the test's. */
#include <errno.h>

#include "base/clock.h"
#include "base/error.h"
#include "meta/master_workers.h"
#include "tests/unit/unit.h"

#define SECOND NS_PER_S
#define GIB    (1ull << 30)

static const struct master_options options = {
    .worker_heartbeat_ms = 1000, .worker_down_ms = 10000, .worker_out_ms = 900000};

static struct master_workers *workers_new(void)
{
    struct master_workers *w;
    ck_assert_int_eq(master_workers_new(&options, &w), 0);
    master_workers_lead(w, 7);
    return w;
}

static struct wire_list one_dir(struct buf *b, uint64_t capacity, uint64_t used, const char *failed)
{
    struct rec_worker_dir d = {
        .id = 1, .path = TEXT("/d"), .capacity = capacity, .used = used, .failed = text_of(failed)};
    b->n = 0;
    ck_assert_int_eq(rec_worker_dir_append(b, &d), 0);
    return wire_list_of(b, 1);
}

static void add(struct master_workers *w, uint64_t id, const char *address, uint64_t capacity, uint64_t now_ns)
{
    struct buf dirs = {0};
    struct msg_worker_register m = {.worker = id,
                                    .address = text_of(address),
                                    .socket = TEXT("/run/w.sock"),
                                    .host = TEXT("h"),
                                    .version = TEXT("1"),
                                    .dirs = one_dir(&dirs, capacity, 0, "")};
    struct msg_worker_register_answer a;
    ck_assert_int_eq(master_workers_register(w, &m, now_ns, &a), 0);
    ck_assert_uint_eq(a.heartbeat_ms, 1000);
    buf_fini(&dirs);
}

static struct msg_worker_heartbeat_answer beat(struct master_workers *w, uint64_t id, uint64_t dropped, uint64_t dirty,
                                               uint64_t now_ns, struct buf *texts)
{
    struct buf dirs = {0};
    struct msg_worker_heartbeat m = {
        .worker = id, .dirs = one_dir(&dirs, 100 * GIB, 10 * GIB, ""), .dropped = dropped, .dirty_bytes = dirty};
    struct msg_worker_heartbeat_answer a;
    texts->n = 0;
    ck_assert_int_eq(master_workers_heartbeat(w, &m, now_ns, &a, texts), 0);
    buf_fini(&dirs);
    return a;
}

static struct rec_worker row_of(struct master_workers *w, uint64_t id, uint64_t now_ns, struct buf *texts)
{
    struct msg_workers_answer a;
    texts->n = 0;
    ck_assert_int_eq(master_workers_map(w, 0, now_ns, &a, texts), 0);
    rec_for_each (worker, e, &a.workers)
        if (e.worker == id)
            return e;
    return (struct rec_worker){0};
}

TEST(workers_register_live_and_fall_silent)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0};
    struct msg_worker_heartbeat_answer b = beat(w, 5, 0, 0, SECOND, &texts);
    ck_assert_uint_eq(b.register_again, 1); /* nobody knows it */
    add(w, 5, "a:1", 100 * GIB, SECOND);
    add(w, 5, "a:2", 100 * GIB, SECOND); /* it moved */
    uint64_t version = master_workers_version(w, SECOND);
    b = beat(w, 5, 0, 0, 2 * SECOND, &texts);
    ck_assert_uint_eq(b.register_again, 0);
    ck_assert_uint_eq(b.map_version, version);
    struct rec_worker r = row_of(w, 5, 2 * SECOND, &texts);
    ck_assert(text_equal(r.address, TEXT("a:2")) && text_equal(r.socket, TEXT("/run/w.sock")));
    ck_assert(r.in == 1 && r.up == 1 && r.weight == 100 && r.used == 10 * GIB);

    ck_assert_uint_eq(master_workers_version(w, 11 * SECOND), version);
    ck_assert_uint_gt(master_workers_version(w, 12 * SECOND), version); /* 10 s after the heartbeat */
    r = row_of(w, 5, 12 * SECOND, &texts);
    ck_assert(r.in == 1 && r.up == 0);
    r = row_of(w, 5, 902 * SECOND, &texts);
    ck_assert(r.in == 0 && r.up == 0);
    ck_assert_uint_eq(beat(w, 5, 0, 0, 903 * SECOND, &texts).register_again, 1);
    add(w, 5, "a:2", 100 * GIB, 904 * SECOND);
    r = row_of(w, 5, 904 * SECOND, &texts);
    ck_assert(r.in == 1 && r.up == 1);
    buf_fini(&texts);
    master_workers_free(w);
}

TEST(workers_map_is_only_told_to_who_has_another)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0};
    struct msg_workers_answer a;
    for (uint64_t id = 9; id > 0; id--)
        add(w, id, "a:1", GIB, SECOND);
    uint64_t version = master_workers_version(w, SECOND);
    ck_assert_uint_eq(version >> 32, 7);
    ck_assert_int_eq(master_workers_map(w, version, SECOND, &a, &texts), 0);
    ck_assert_uint_eq(a.workers.count, 0);
    ck_assert_int_eq(master_workers_map(w, version - 1, SECOND, &a, &texts), 0);
    ck_assert_uint_eq(a.workers.count, 9);
    master_workers_lead(w, 8);
    ck_assert_uint_gt(master_workers_version(w, SECOND), version);
    buf_fini(&texts);
    master_workers_free(w);
}

TEST(workers_of_a_new_leader_keep_their_place_until_found_silent)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0};
    struct meta_worker_row known = {.worker = 3, .address = TEXT("a:1"), .in = true, .weight = 50};
    ck_assert_int_eq(master_workers_known(w, &known, SECOND), 0);
    struct rec_worker r = row_of(w, 3, 10 * SECOND, &texts);
    ck_assert(r.in && r.up && r.weight == 50);
    ck_assert_uint_eq(beat(w, 3, 0, 0, 10 * SECOND, &texts).register_again, 1);
    r = row_of(w, 3, 11 * SECOND, &texts);
    ck_assert(r.in && !r.up);
    add(w, 3, "a:1", 50 * GIB, 12 * SECOND);
    ck_assert(row_of(w, 3, 12 * SECOND, &texts).up);
    buf_fini(&texts);
    master_workers_free(w);
}

static uint64_t nth_sequence(const struct msg_worker_heartbeat_answer *b, uint32_t n)
{
    rec_for_each (worker_drop, d, &b->drops)
        if (n-- == 0)
            return d.sequence;
    return 0;
}

TEST(workers_are_told_what_to_drop_until_they_did)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0};
    master_workers_drop(w, 1, 0, 1); /* nobody there: nobody told */
    add(w, 5, "a:1", GIB, SECOND);
    for (uint64_t i = 0; i < 200; i++)
        master_workers_drop(w, 1000 + i, i, 2 * i);
    struct msg_worker_heartbeat_answer b = beat(w, 5, 0, 0, SECOND, &texts);
    ck_assert_uint_eq(b.drops.count, 200);
    uint64_t first = nth_sequence(&b, 0), i = 0;
    rec_for_each (worker_drop, d, &b.drops) {
        ck_assert(d.sequence == first + i && d.inode == 1000 + i && d.size == i && d.epoch == 2 * i);
        i++;
    }
    b = beat(w, 5, 17, 0, SECOND, &texts); /* a number of another leader */
    ck_assert_uint_eq(b.drops.count, 200);
    b = beat(w, 5, first + 149, 0, SECOND, &texts);
    ck_assert_uint_eq(b.drops.count, 50);
    ck_assert_uint_eq(nth_sequence(&b, 0), first + 150);
    master_workers_drop(w, 7, 0, 0);
    b = beat(w, 5, first + 10, 0, SECOND, &texts); /* an old heartbeat */
    ck_assert_uint_eq(b.drops.count, 51);
    b = beat(w, 5, first + 200, 0, SECOND, &texts);
    ck_assert_uint_eq(b.drops.count, 0);
    buf_fini(&texts);
    master_workers_free(w);
}

TEST(workers_queue_of_drops_is_bounded)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0};
    struct master_workers_stats s;
    add(w, 5, "a:1", GIB, SECOND);
    for (uint64_t i = 1; i <= MASTER_DROPS_MAX + 100; i++)
        master_workers_drop(w, i, 0, 0);
    master_workers_get_stats(w, SECOND, &s);
    ck_assert_uint_eq(s.drops_waiting, MASTER_DROPS_MAX);
    ck_assert_uint_eq(s.drops_lost, 100);
    struct msg_worker_heartbeat_answer b = beat(w, 5, 0, 0, SECOND, &texts);
    ck_assert_uint_eq(b.drops.count, MASTER_DROPS_TOLD);
    struct wire_list rest = b.drops;
    struct rec_worker_drop first;
    ck_assert(wire_list_next(rec_worker_drop_desc(), &rest, &first));
    ck_assert_uint_eq(first.inode, 101);
    uint64_t acknowledged = 0;
    for (uint64_t expected = 101; expected <= MASTER_DROPS_MAX + 100;) {
        b = beat(w, 5, acknowledged, 0, SECOND, &texts);
        ck_assert_uint_gt(b.drops.count, 0);
        rec_for_each (worker_drop, d, &b.drops) {
            ck_assert_uint_eq(d.inode, expected);
            expected++;
            acknowledged = d.sequence;
        }
    }
    ck_assert_uint_eq(beat(w, 5, acknowledged, 0, SECOND, &texts).drops.count, 0);
    buf_fini(&texts);
    master_workers_free(w);
}

TEST(workers_are_chosen_near_first_and_only_when_they_answer)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0};
    uint64_t r[16];
    ck_assert_uint_eq(master_workers_place(w, 1, 0, 0, 1, SECOND, r), 0);
    for (uint64_t id = 1; id <= 4; id++)
        add(w, id, "a:1", 100 * GIB, SECOND);
    uint32_t first[5] = {0};
    for (uint32_t i = 0; i < 64; i++) {
        ck_assert_uint_eq(master_workers_place(w, 42, i, 0, 3, SECOND, r), 3);
        ck_assert(r[0] != r[1] && r[1] != r[2] && r[0] != r[2]);
        first[r[0]]++;
    }
    for (int id = 1; id <= 4; id++)
        ck_assert_msg(first[id] > 0, "worker %d is never first", id);
    for (uint32_t i = 0; i < 64; i++) {
        ck_assert_uint_eq(master_workers_place(w, 42, i, 3, 2, SECOND, r), 2);
        ck_assert(r[0] == 3 && r[1] != 3);
    }
    for (uint64_t id = 1; id <= 2; id++)
        beat(w, id, 0, 0, 10 * SECOND, &texts); /* 3 and 4 fall silent */
    ck_assert_uint_eq(master_workers_place(w, 42, 0, 3, 3, 12 * SECOND, r), 2);
    ck_assert_uint_eq(r[0] + r[1], 3);
    beat(w, 1, 0, 99 * GIB, 12 * SECOND, &texts); /* full of data that is nowhere else */
    ck_assert_uint_eq(master_workers_place(w, 42, 0, 1, 3, 12 * SECOND, r), 1);
    ck_assert_uint_eq(r[0], 2);
    beat(w, 2, 0, 99 * GIB, 12 * SECOND, &texts);
    ck_assert_uint_eq(master_workers_place(w, 42, 0, 0, 1, 12 * SECOND, r), 0);
    buf_fini(&texts);
    master_workers_free(w);
}

TEST(workers_refuse_what_cannot_be_a_registration)
{
    struct master_workers *w = workers_new();
    char large[400];
    memset(large, 'x', sizeof(large));
    struct msg_worker_register_answer a;
    struct msg_worker_register m = {.worker = 1};
    ck_assert_int_eq(master_workers_register(w, &m, SECOND, &a), -EINVAL);
    m = (struct msg_worker_register){.worker = 0, .address = TEXT("a:1")};
    ck_assert_int_eq(master_workers_register(w, &m, SECOND, &a), -EINVAL);
    m = (struct msg_worker_register){.worker = 1, .address = {large, sizeof(large)}};
    ck_assert_int_eq(master_workers_register(w, &m, SECOND, &a), -EINVAL);
    struct master_workers_stats s;
    for (uint64_t id = 1; id <= MASTER_WORKERS_MAX; id++)
        add(w, id, "a:1", GIB, SECOND);
    m = (struct msg_worker_register){.worker = MASTER_WORKERS_MAX + 1, .address = TEXT("a:1")};
    ck_assert_int_eq(master_workers_register(w, &m, SECOND, &a), -CV_BUSY);
    master_workers_get_stats(w, SECOND, &s);
    ck_assert_uint_eq(s.up, MASTER_WORKERS_MAX);
    ck_assert_uint_eq(s.capacity, MASTER_WORKERS_MAX * GIB);
    master_workers_free(w);
}

TEST(workers_rows_are_stored_when_they_say_something_else)
{
    struct master_workers *w = workers_new();
    struct master_worker_row row;
    struct buf texts = {0};
    struct meta_worker_row known = {.worker = 3, .address = TEXT("a:1"), .host = TEXT("h"), .in = true, .weight = 50};
    known.socket = TEXT("/run/w.sock");
    ck_assert_int_eq(master_workers_known(w, &known, SECOND), 0);
    add(w, 3, "a:1", 50 * GIB, SECOND);
    ck_assert(!master_workers_next_row(w, &row)); /* all as stored */
    add(w, 3, "a:1", 60 * GIB, SECOND);
    add(w, 4, "a:4", GIB, SECOND);
    ck_assert(master_workers_next_row(w, &row));
    ck_assert(row.row.worker == 3 && row.row.weight == 60 && row.row.in && text_equal(row.row.address, TEXT("a:1")));
    ck_assert(master_workers_next_row(w, &row));
    ck_assert(row.row.worker == 4 && text_equal(row.row.socket, TEXT("/run/w.sock")));
    ck_assert(!master_workers_next_row(w, &row));
    beat(w, 4, 0, 0, 800 * SECOND, &texts);
    master_workers_version(w, 902 * SECOND); /* 3 is out by now */
    ck_assert(master_workers_next_row(w, &row));
    ck_assert(row.row.worker == 3 && !row.row.in);
    ck_assert(!master_workers_next_row(w, &row));
    master_workers_store_again(w);
    ck_assert(master_workers_next_row(w, &row) && master_workers_next_row(w, &row));
    ck_assert(!master_workers_next_row(w, &row));
    buf_fini(&texts);
    master_workers_free(w);
}

TEST(workers_that_have_not_asked_about_what_they_hold_are_waited_for_unless_they_are_out)
{
    struct master_workers *w = workers_new();
    struct buf texts = {0}, dirs = {0};
    struct msg_worker_heartbeat_answer a;
    add(w, 1, "a:1", 100 * GIB, SECOND);
    ck_assert(!master_workers_checked(w, 1, 2));
    ck_assert(master_workers_checked(w, 2, 2)); /* not known */
    struct msg_worker_heartbeat m = {.worker = 1, .dirs = one_dir(&dirs, 100 * GIB, 0, ""), .checked = 1};
    ck_assert_int_eq(master_workers_heartbeat(w, &m, 2 * SECOND, &a, &texts), 0);
    ck_assert(!master_workers_checked(w, 1, 2));
    m.checked = 2;
    ck_assert_int_eq(master_workers_heartbeat(w, &m, 3 * SECOND, &a, &texts), 0);
    ck_assert(master_workers_checked(w, 1, 2));
    add(w, 1, "a:1", 100 * GIB, 4 * SECOND); /* a process that has just begun */
    ck_assert(!master_workers_checked(w, 1, 2));
    struct master_workers_stats s;
    master_workers_get_stats(w, 4 * SECOND + 3600 * SECOND, &s); /* out by now */
    ck_assert(master_workers_checked(w, 1, 2));
    buf_fini(&dirs);
    buf_fini(&texts);
    master_workers_free(w);
}
