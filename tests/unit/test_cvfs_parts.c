/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of cv-fuse by themselves: handles, nodes, groups, cookies of directories. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "fuse/cvfs_dir.h"
#include "fuse/cvfs_groups.h"
#include "fuse/cvfs_handle.h"
#include "fuse/cvfs_node.h"

/* ---- handles ------------------------------------------------------------------------------------------------------------ */

TEST(handles_of_something_closed_find_nothing)
{
    static struct cvfs_handles h;
    struct cvfs_handle *a, *b;
    uint64_t x, y;
    cvfs_handles_init(&h);
    ck_assert_int_eq(cvfs_handle_new(&h, &x, &a), 0);
    ck_assert_ptr_eq(cvfs_handle_get(&h, x), a);
    cvfs_handle_release(&h, x);
    ck_assert_ptr_null(cvfs_handle_get(&h, x));
    ck_assert_int_eq(cvfs_handle_new(&h, &y, &b), 0);
    ck_assert_ptr_eq(a, b); /* the place is used again, under another number */
    ck_assert_uint_ne(x, y);
    ck_assert_ptr_null(cvfs_handle_get(&h, x));
    static const uint64_t bad[] = {0, 1, UINT64_MAX, 1ull << 32 | 5000, 0xffffffff, 5ull << 32};
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_ptr_null(cvfs_handle_get(&h, bad[i]));
    cvfs_handle_release(&h, y);
    cvfs_handles_fini(&h);
}

TEST(handles_are_counted_and_walked)
{
    static struct cvfs_handles h;
    struct cvfs_handle *p;
    uint64_t numbers[1000], number;
    uint32_t position = 0, seen = 0;
    cvfs_handles_init(&h);
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(cvfs_handle_new(&h, &numbers[i], &p), 0);
    for (int i = 0; i < 1000; i += 2)
        cvfs_handle_release(&h, numbers[i]);
    ck_assert_uint_eq(cvfs_handles_open(&h), 500);
    while (cvfs_handle_next(&h, &position, &number))
        ck_assert_uint_eq(number, numbers[1 + 2 * seen++]);
    ck_assert_uint_eq(seen, 500);
    cvfs_handles_fini(&h);
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------------ */

static bool opens_with(struct cvfs_nodes *n, uint64_t inode, uint64_t version)
{
    bool keep = false;
    ck_assert_int_eq(cvfs_node_open(n, &(struct curvine_attr){.inode = inode, .version = version, .mode = 0644}, &keep),
                     0);
    return keep;
}

TEST(nodes_remember_versions_until_forgotten)
{
    static struct cvfs_nodes n;
    ck_assert_int_eq(cvfs_nodes_init(&n), 0);
    ck_assert(!opens_with(&n, 7, 1));
    ck_assert(opens_with(&n, 7, 1));
    ck_assert(!opens_with(&n, 7, 2));
    cvfs_node_forget(&n, 7); /* it is open: stays */
    ck_assert(opens_with(&n, 7, 2));
    for (int i = 0; i < 4; i++)
        cvfs_node_close(&n, 7);
    ck_assert_uint_eq(cvfs_node_mode(&n, 7), 0);
    ck_assert(opens_with(&n, 7, 2));
    cvfs_node_close(&n, 7);
    cvfs_node_forget(&n, 7);
    ck_assert(!opens_with(&n, 7, 2));
    ck_assert_uint_eq(cvfs_node_mode(&n, 7), 0644);
    cvfs_node_close(&n, 7);
    cvfs_nodes_fini(&n);
}

TEST(nodes_that_are_not_open_are_bounded)
{
    static struct cvfs_nodes n;
    uint64_t kept = 0;
    ck_assert_int_eq(cvfs_nodes_init(&n), 0);
    for (uint64_t i = 1; i <= 400000; i++) {
        opens_with(&n, i, 1);
        cvfs_node_close(&n, i);
    }
    for (uint32_t i = 0; i < CVFS_NODE_SHARDS; i++)
        kept += n.shards[i].count;
    ck_assert_uint_le(kept, CVFS_NODES_MAX);
    ck_assert_uint_ge(kept, CVFS_NODES_MAX / 2);
    cvfs_nodes_fini(&n);
}

/* ---- groups --------------------------------------------------------------------------------------------------------------------- */

TEST(groups_are_read_from_the_status_of_a_process)
{
    uint32_t out[4];
    ck_assert_uint_eq(cvfs_groups_parse("Name:\tx\nGroups:\t4 24 1000 \nNStgid:\t5\n", out, 4), 3);
    ck_assert_uint_eq(out[2], 1000);
    ck_assert_uint_eq(cvfs_groups_parse("Name:\tx\nGroups:\t1 2 3 4 5 6\n", out, 4), 4);
    ck_assert_uint_eq(cvfs_groups_parse("Name:\tx\nGroups:\t \nNStgid:\t5\n", out, 4), 0);
    ck_assert_uint_eq(cvfs_groups_parse("Name:\tGroups: 7\n", out, 4), 0);
}

/* ---- cookies ----------------------------------------------------------------------------------------------------------------------- */

/* A directory of names n0000... that a page is listed from as the master does it. */
enum { NAMES = 5000, PAGE = 700 };
static bool gone[NAMES];

static void fetch(struct cvfs_dir *d, uint64_t cookie)
{
    static struct curvine_dirent entries[PAGE];
    static char names[PAGE][16];
    struct curvine_text after;
    ck_assert_int_eq(cvfs_dir_after(d, cookie, &after), 0);
    int first = 0;
    if (after.n) {
        char text[16] = "";
        memcpy(text, after.p, after.n);
        first = atoi(text + 1) + 1;
    }
    struct curvine_request q = {.entries = entries, .end = 1};
    for (int i = first; i < NAMES; i++) {
        if (gone[i])
            continue;
        if (q.entry_count == PAGE) {
            q.end = 0;
            break;
        }
        uint32_t n = (uint32_t)snprintf(names[q.entry_count], sizeof(names[0]), "n%04d", i);
        entries[q.entry_count] = (struct curvine_dirent){.inode = (uint64_t)i + 100, .name = {names[q.entry_count], n}};
        q.entry_count++;
    }
    ck_assert_int_eq(cvfs_dir_take(d, cookie, &q, 1), 0);
}

/* The entry behind cookie: its number, -1 at the end; *cookie moves on. */
static int step(struct cvfs_dir *d, uint64_t *cookie)
{
    int64_t i = cvfs_dir_find(d, *cookie);
    if (i < 0) {
        fetch(d, *cookie);
        i = cvfs_dir_find(d, *cookie);
    }
    ck_assert(i >= 0);
    if ((uint32_t)i == d->count)
        return -1;
    *cookie = d->cookie + 1 + (uint64_t)i;
    return (int)d->entries[i].inode - 100;
}

TEST(cookies_mean_the_same_after_any_change)
{
    static uint64_t behind[NAMES];
    struct cvfs_dir *d;
    uint64_t cookie = 0;
    ck_assert_int_eq(cvfs_dir_new(&d), 0);
    fetch(d, 0);
    cookie = 1; /* behind "." */
    for (int i = 0; i < NAMES; i++) {
        ck_assert_int_eq(step(d, &cookie), i);
        behind[i] = cookie;
    }
    ck_assert_int_eq(step(d, &cookie), -1);
    for (int round = 0; round < 500; round++) {
        int from = (round * 37) % (NAMES - 10);
        gone[from] = gone[(from + 3) % NAMES] = true;
        cookie = behind[from];
        bool fresh = cvfs_dir_find(d, cookie) < 0;
        int next = from + 1;
        for (int k = 0; k < 5; k++, next++) {
            int got = step(d, &cookie);
            while (fresh && gone[next])
                next++;
            if (!fresh) /* an older page may still show what is gone, but nothing is left out */
                ck_assert(got == next || gone[next]);
            else
                ck_assert_int_eq(got, next);
            next = got;
        }
    }
    cookie = 1ull << 40;
    ck_assert_int_eq(cvfs_dir_after(d, cookie, &(struct curvine_text){0}), -EINVAL);
    fetch(d, 0); /* rewinddir */
    cookie = CVFS_DOT_COOKIE;
    ck_assert(!gone[1] || step(d, &cookie) != 1);
    cvfs_dir_free(d);
}

TEST(a_full_log_of_cookies_goes_by_pages)
{
    static uint64_t behind[NAMES];
    struct cvfs_dir *d;
    uint64_t cookie = 0;
    memset(gone, 0, sizeof(gone));
    ck_assert_int_eq(cvfs_dir_new(&d), 0);
    d->log_bytes_max = 10000;
    fetch(d, 0);
    cookie = CVFS_DOT_COOKIE;
    for (int i = 0; i < NAMES; i++) {
        ck_assert_int_eq(step(d, &cookie), i);
        behind[i] = cookie;
    }
    ck_assert_uint_lt(d->log.n, 10000 + 6 * PAGE + 100);
    for (int i = 0; i < NAMES - 1; i += 311) {
        cookie = behind[i];
        ck_assert_int_eq(step(d, &cookie), i + 1);
    }
    cvfs_dir_free(d);
}
