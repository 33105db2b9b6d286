/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts, grants, commits and sizes: what rows they leave, and who is refused. */
#include "tests/unit/meta_rig.h"

#include <fcntl.h>

#define BLOCK 4096u

static struct rig g;
static struct rec_op_head other; /* a second session */
static uint32_t places;          /* workers that take blocks */

static uint32_t place(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max, uint64_t *ret)
{
    uint32_t n = 0;
    if (near && places)
        ret[n++] = near;
    for (uint64_t w = 901; n < max && w < 901 + places; w++)
        ret[n++] = w;
    return n;
}

static void start(void)
{
    const struct meta_options o = {.block_shift = 12, .replicas = 2};
    rig_init(&g, &o);
    meta_on_place(g.m, place, NULL);
    places = 3;
    struct rec_op_head first = g.head;
    uint64_t sequence = g.sequence;
    rig_open_session(&g, 0);
    other = g.head;
    other.sequence = 1;
    g.head = first;
    g.sequence = sequence;
}

/* Be the other session until called again. */
static void swap(void)
{
    struct rec_op_head h = g.head;
    h.sequence = g.sequence;
    g.head = other;
    g.sequence = other.sequence;
    other = h;
}

struct file {
    uint64_t inode, handle;
};

static struct file create(const char *name)
{
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = text_of(name), .mode = 0644, .flags = O_RDWR), 0);
    return (struct file){g.q.answer.create.attr.inode, g.q.answer.create.handle};
}

static uint64_t reopen(uint64_t inode, uint32_t flags)
{
    ck_assert_int_eq(SEND(&g, open, .inode = inode, .flags = flags), 0);
    return g.q.answer.open.handle;
}

static struct rec_extent nth(const struct wire_list *list, uint32_t n)
{
    rec_for_each (extent, e, list)
        if (n-- == 0)
            return e;
    ck_abort_msg("no such extent");
}

static struct rec_extent granted(struct file f, uint32_t block)
{
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f.inode, .handle = f.handle, .first_block = block, .count = 1), 0);
    ck_assert_uint_eq(g.q.answer.write_grant.layout.extents.count, 1);
    struct rec_extent e = nth(&g.q.answer.write_grant.layout.extents, 0);
    ck_assert_uint_eq(e.block, block);
    return e;
}

static int commit(struct file f, const struct rec_extent *e, uint32_t length, uint64_t size)
{
    struct buf b cleanup(buf_fini) = {0};
    const struct rec_written_length w = {e->block, e->version, e->epoch, length};
    ck_assert_int_eq(rec_written_length_append(&b, &w), 0);
    return SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_LENGTHS | COMMIT_SIZE,
                .size = size, .lengths = wire_list_of(&b, 1));
}

static const struct rec_layout *layout(uint64_t inode, uint32_t first, uint32_t count)
{
    ck_assert_int_eq(SEND(&g, layout, .inode = inode, .first_block = first, .count = count), 0);
    return &g.q.answer.layout.layout;
}

static int truncate_to(struct file f, uint64_t size)
{
    return SEND(&g, setattr, .inode = f.inode, .handle = f.handle, .valid = SETATTR_SIZE, .size = size);
}

/* Everything to the base, so that rows must be fetched again. */
static void settle(void)
{
    rig_commit(&g);
    rig_flush(&g);
    tree_evict(&g.m->tree, 1000);
}

TEST(meta_content_grant_makes_rows_that_a_layout_shows)
{
    start();
    struct file f = create("f");
    ck_assert_uint_eq(g.q.answer.create.layout.block_shift, 12);
    ck_assert_uint_eq(g.q.answer.create.layout.replicas, 2);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f.inode, .handle = f.handle, .count = 3, .near = 77), 0);
    const struct rec_layout *l = &g.q.answer.write_grant.layout;
    ck_assert_uint_eq(l->extents.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct rec_extent e = nth(&l->extents, i);
        ck_assert(e.block == i && e.version == 1 && e.epoch == 1 && e.valid_length == 0);
        ck_assert(e.replicas.n == 16 && get_le64(e.replicas.p) == 77 && get_le64(e.replicas.p + 8) == 901);
    }
    struct rec_extent e = nth(&l->extents, 1);
    ck_assert_int_eq(commit(f, &e, 100, BLOCK + 100), 0);
    ck_assert_uint_eq(g.q.answer.write_commit.attr.size, BLOCK + 100);
    settle();
    l = layout(f.inode, 0, 0);
    ck_assert(l->extents.count == 3 && l->next_block == 0 && nth(&l->extents, 1).valid_length == 100);
    l = layout(f.inode, 1, 1);
    ck_assert(l->extents.count == 1 && l->next_block == 2 && nth(&l->extents, 0).block == 1);
    ck_assert_int_eq(SEND(&g, open, .inode = f.inode, .flags = O_RDONLY), 0);
    ck_assert_uint_eq(g.q.answer.open.layout.extents.count, 3);
    rig_fini(&g);
}

TEST(meta_content_grant_again_to_the_same_session_changes_nothing)
{
    start();
    struct file f = create("f");
    struct rec_extent a = granted(f, 0);
    struct rec_extent b = granted(f, 1);
    ck_assert_uint_eq(b.epoch, 2);
    ck_assert_uint_eq(granted(f, 0).epoch, a.epoch);
    ck_assert(!g.q.changed);
    /* another handle of the same session may use it too */
    uint64_t second = reopen(f.inode, O_WRONLY);
    ck_assert_uint_eq(granted((struct file){f.inode, second}, 1).epoch, 2);
    rig_fini(&g);
}

TEST(meta_content_grant_to_another_session_makes_a_new_epoch_and_carries_over)
{
    start();
    struct file f = create("f");
    struct rec_extent a = granted(f, 0);
    ck_assert_uint_eq(g.q.answer.write_grant.layout.flags & LAYOUT_SHARED, 0);
    ck_assert_int_eq(commit(f, &a, 500, 500), 0);
    swap();
    struct file h = {f.inode, reopen(f.inode, O_RDWR)};
    ck_assert_uint_eq(g.q.answer.open.layout.flags & LAYOUT_SHARED, LAYOUT_SHARED);
    struct rec_extent b = granted(h, 0);
    ck_assert(b.epoch == 2 && b.version == 2 && b.valid_length == 500 && text_equal(b.replicas, b.replicas));
    ck_assert_uint_eq(g.q.answer.write_grant.layout.flags & LAYOUT_SHARED, LAYOUT_SHARED);
    swap();
    ck_assert_int_eq(commit(f, &a, 600, 600), -CV_STALE_EPOCH);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f.inode), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.size, 500);
    struct rec_extent c = granted(f, 0); /* and back */
    ck_assert_uint_eq(c.epoch, 3);
    ck_assert_int_eq(commit(f, &c, 600, 600), 0);
    rig_fini(&g);
}

TEST(meta_content_grant_is_refused_without_a_handle_that_writes_or_without_workers)
{
    start();
    struct file f = create("f");
    uint64_t reading = reopen(f.inode, O_RDONLY);
    uint64_t d = make_dir(&g, META_ROOT, "d");
#define GRANT(i, h, first, n) SEND(&g, write_grant, .inode = (i), .handle = (h), .first_block = (first), .count = (n))
    ck_assert_int_eq(GRANT(f.inode, reading, 0, 1), -EBADF);
    ck_assert_int_eq(GRANT(f.inode, 12345, 0, 1), -EBADF);
    ck_assert_int_eq(GRANT(f.inode, 0, 0, 1), -EBADF);
    ck_assert_int_eq(GRANT(d, f.handle, 0, 1), -EISDIR);
    ck_assert_int_eq(GRANT(f.inode, f.handle, 0, 0), -EINVAL);
    ck_assert_int_eq(GRANT(f.inode, f.handle, 0, 65), -EINVAL);
    ck_assert_int_eq(GRANT(f.inode, f.handle, UINT32_MAX, 2), -EINVAL);
    ck_assert_int_eq(GRANT(f.inode, f.handle, UINT32_MAX, 1), 0);
    swap();
    ck_assert_int_eq(GRANT(f.inode, f.handle, 0, 1), -EBADF); /* not its handle */
    swap();
    places = 0;
    ck_assert_int_eq(GRANT(f.inode, f.handle, 0, 1), -CV_NO_SPACE);
    ck_assert(!g.q.changed);
    ck_assert_int_eq(GRANT(77777, f.handle, 0, 1), -ESTALE);
    rig_fini(&g);
}

TEST(meta_content_a_repeated_grant_is_answered_with_its_rows_unless_they_moved_on)
{
    start();
    struct file f = create("f");
    struct msg_write_grant m = {.head = g.head, .inode = f.inode, .handle = f.handle, .count = 2};
    m.head.sequence = ++g.sequence;
    ck_assert_int_eq(rig_send(&g, MSG_write_grant, &m), 0);
    ck_assert_int_eq(rig_send(&g, MSG_write_grant, &m), 0);
    ck_assert(g.q.replayed && g.q.answer.write_grant.layout.extents.count == 2);
    ck_assert_uint_eq(nth(&g.q.answer.write_grant.layout.extents, 1).epoch, 1);
    swap();
    granted((struct file){f.inode, reopen(f.inode, O_RDWR)}, 1);
    swap();
    ck_assert_int_eq(rig_send(&g, MSG_write_grant, &m), -CV_STALE_EPOCH);
    rig_fini(&g);
}

TEST(meta_content_a_grant_is_not_remembered_over_an_undo)
{
    start();
    struct file f = create("f");
    uint64_t theirs, number;
    swap();
    theirs = reopen(f.inode, O_RDWR);
    swap();
    rig_commit(&g);
    number = meta_batch_now(g.m).number;
    ck_assert_uint_eq(granted(f, 0).epoch, 1);
    meta_batch_undo(g.m, number);
    swap();
    struct rec_extent e = granted((struct file){f.inode, theirs}, 0);
    ck_assert_uint_eq(e.epoch, 1); /* nobody ever heard of the first one */
    swap();
    ck_assert_uint_gt(granted(f, 0).epoch, e.epoch);
    rig_fini(&g);
}

TEST(meta_content_small_files_are_inline_in_one_request)
{
    start();
    struct file f = create("f");
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_INLINE | COMMIT_CLOSE,
                          .inline_data = TEXT("hello")),
                     0);
    ck_assert_uint_eq(g.q.answer.write_commit.attr.size, 5);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert_uint_eq(s.handles, 0);
    settle();
    f.handle = reopen(f.inode, O_RDWR);
    ck_assert(text_equal(g.q.answer.open.layout.inline_data, TEXT("hello")));
    ck_assert_int_eq(truncate_to(f, 3), 0); /* its answer says what is left: the client goes by it */
    ck_assert(text_equal(g.q.answer.setattr.layout.inline_data, TEXT("hel")));
    ck_assert(text_equal(layout(f.inode, 0, 0)->inline_data, TEXT("hel")));
    ck_assert_int_eq(truncate_to(f, 10), 0);
    ck_assert(text_equal(g.q.answer.setattr.layout.inline_data, TEXT("hel")));
    ck_assert(text_equal(layout(f.inode, 0, 0)->inline_data, TEXT("hel")));
    ck_assert_uint_eq(g.q.answer.layout.attr.size, 10);
    ck_assert_int_eq(truncate_to(f, 0), 0);
    ck_assert_uint_eq(layout(f.inode, 0, 0)->inline_data.n, 0);
    ck_assert_uint_eq(g.q.answer.layout.attr.flags & INODE_HAS_INLINE, 0);
    static char big[INLINE_MAX + 1];
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_INLINE,
                          .inline_data = {big, sizeof(big)}),
                     -EINVAL);
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_INLINE,
                          .inline_data = {big, INLINE_MAX}),
                     0);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    ck_assert_int_eq(SEND(&g, close, .inode = f.inode, .handle = f.handle), 0);
    meta_allow_purge(g.m);
    while (meta_next_inner(g.m, &g.q))
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
    settle();
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 1 && s.state.bytes == 0 && s.state.orphans == 0);
    for (size_t i = 0; i < g.store.count; i++)
        ck_assert(!(g.store.cells[i].key[0] == META_FAMILY_small && g.store.cells[i].key[1] == 'i'));
    rig_fini(&g);
}

TEST(meta_content_grown_file_takes_its_inline_bytes_to_block_0)
{
    start();
    struct file f = create("f");
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_INLINE,
                          .inline_data = TEXT("hello")),
                     0);
    /* a block further on brings block 0 with it */
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f.inode, .handle = f.handle, .first_block = 2, .count = 1), 0);
    const struct rec_layout *l = &g.q.answer.write_grant.layout;
    ck_assert_uint_eq(l->extents.count, 2);
    ck_assert(text_equal(l->inline_data, TEXT("hello")));
    struct rec_extent e0 = nth(&l->extents, 0), e2 = nth(&l->extents, 1);
    ck_assert(e0.block == 0 && e2.block == 2);
    /* readers still see what was */
    ck_assert(text_equal(layout(f.inode, 0, 0)->inline_data, TEXT("hello")));
    ck_assert_uint_eq(g.q.answer.layout.layout.extents.count, 0);
    ck_assert_int_eq(commit(f, &e2, 10, 2 * BLOCK + 10), -EINVAL);
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_INLINE,
                          .inline_data = TEXT("late")),
                     -CV_STALE_EPOCH);
    ck_assert_int_eq(commit(f, &e0, 5, 5), 0);
    ck_assert_int_eq(commit(f, &e2, 10, 2 * BLOCK + 10), 0);
    l = layout(f.inode, 0, 0);
    ck_assert(l->inline_data.n == 0 && l->extents.count == 2 && nth(&l->extents, 0).valid_length == 5);
    rig_fini(&g);
}

TEST(meta_content_commit_takes_only_what_was_granted)
{
    start();
    struct file f = create("f");
    struct rec_extent e = granted(f, 0), wrong = e;
    wrong.epoch++;
    ck_assert_int_eq(commit(f, &wrong, 1, 1), -CV_STALE_EPOCH);
    wrong = e;
    wrong.version = 9;
    ck_assert_int_eq(commit(f, &wrong, 1, 1), -CV_STALE_EPOCH);
    wrong = e;
    wrong.block = 1;
    ck_assert_int_eq(commit(f, &wrong, 1, 1), -CV_STALE_EPOCH);
    ck_assert_int_eq(commit(f, &e, BLOCK + 1, 1), -EINVAL);
    ck_assert_int_eq(commit((struct file){f.inode, 5}, &e, 1, 1), -EBADF);
    ck_assert_int_eq(commit(f, &e, 1, 1ull << 63), -EFBIG);
    ck_assert_int_eq(commit(f, &e, 100, 100), 0);
    ck_assert_int_eq(commit(f, &e, 50, 50), 0); /* nothing shrinks */
    ck_assert_uint_eq(g.q.answer.write_commit.attr.size, 100);
    ck_assert_uint_eq(nth(&layout(f.inode, 0, 0)->extents, 0).valid_length, 100);
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = 32), -EINVAL);
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_MTIME, .mtime_ns = 7),
                     0);
    ck_assert_uint_eq(g.q.answer.write_commit.attr.mtime_ns, 7);
    /* written over what was there: nothing grew, and yet the content is another, for who has kept it */
    uint64_t version = g.q.answer.write_commit.attr.version;
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_SIZE | COMMIT_MTIME,
                          .size = 100, .mtime_ns = 8),
                     0);
    ck_assert_uint_eq(g.q.answer.write_commit.attr.version, version + 1);
    /* closing twice is fine */
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_CLOSE), 0);
    ck_assert_int_eq(commit(f, &e, 1, 1), -EBADF);
    rig_fini(&g);
}

struct told {
    struct meta_effect last;
    uint32_t purged, truncated;
};

static void tell(void *arg, const struct meta_effect *e)
{
    struct told *t = arg;
    t->purged += e->kind == META_EFFECT_PURGED;
    t->truncated += e->kind == META_EFFECT_TRUNCATED;
    t->last = *e;
}

TEST(meta_content_new_size_takes_rows_behind_it_and_ends_every_grant)
{
    start();
    struct told told = {0};
    meta_on_effect(g.m, tell, &told);
    struct file f = create("f");
    struct rec_extent e[4];
    for (uint32_t i = 0; i < 4; i++) {
        e[i] = granted(f, i);
        ck_assert_int_eq(commit(f, &e[i], BLOCK, (i + 1) * BLOCK), 0);
    }
    settle();
    ck_assert_int_eq(truncate_to(f, BLOCK + 10), 0);
    const struct rec_layout *l = &g.q.answer.setattr.layout;
    ck_assert(l->first_block == 1 && l->extents.count == 1);
    struct rec_extent b = nth(&l->extents, 0);
    ck_assert(b.block == 1 && b.epoch == 5 && b.version == 2 && b.valid_length == 10);
    rig_commit(&g);
    ck_assert(told.truncated == 1 && told.last.a == BLOCK + 10 && told.last.epoch == 5);
    l = layout(f.inode, 0, 0);
    ck_assert(l->extents.count == 2 && nth(&l->extents, 0).epoch == 1 && nth(&l->extents, 1).valid_length == 10);
    ck_assert_int_eq(commit(f, &e[1], BLOCK, 2 * BLOCK), -CV_STALE_EPOCH);
    ck_assert_int_eq(commit(f, &e[3], BLOCK, 4 * BLOCK), -CV_STALE_EPOCH);
    ck_assert_uint_eq(granted(f, 0).epoch, 6); /* also of what was not cut */
    struct rec_extent again = granted(f, 3);
    ck_assert(again.epoch == 7 && again.valid_length == 0);
    /* growing: what was granted but never committed must not show either */
    ck_assert_int_eq(truncate_to(f, 2 * BLOCK), 0);
    ck_assert_uint_eq(layout(f.inode, 0, 0)->extents.count, 2);
    ck_assert_uint_eq(nth(&layout(f.inode, 0, 0)->extents, 1).valid_length, 10);
    ck_assert_int_eq(SEND(&g, open, .inode = f.inode, .flags = O_WRONLY | O_TRUNC), 0);
    l = &g.q.answer.open.layout;
    ck_assert(l->extents.count == 0 && g.q.answer.open.attr.size == 0);
    ck_assert_uint_eq(g.q.answer.open.attr.flags & INODE_HAS_EXTENTS, 0);
    ck_assert_uint_eq(layout(f.inode, 0, 0)->extents.count, 0);
    ck_assert_uint_gt(granted(f, 0).epoch, 7);
    settle();
    rig_fini(&g);
}

TEST(meta_content_truncates_thousands_of_blocks_at_once)
{
    start();
    struct file f = create("f");
    for (uint32_t i = 0; i < 3200; i += 64)
        ck_assert_int_eq(SEND(&g, write_grant, .inode = f.inode, .handle = f.handle, .first_block = i, .count = 64), 0);
    settle();
    ck_assert_int_eq(truncate_to(f, BLOCK), 0);
    ck_assert_uint_eq(layout(f.inode, 0, 0)->extents.count, 1);
    settle();
    ck_assert_uint_eq(layout(f.inode, 0, 0)->extents.count, 1);
    rig_fini(&g);
}

TEST(meta_content_survives_a_crash_and_a_retry_under_the_next_leader)
{
    start();
    struct file f = create("f");
    struct msg_write_commit m = {.head = g.head,
                                 .inode = f.inode,
                                 .handle = f.handle,
                                 .valid = COMMIT_INLINE | COMMIT_CLOSE,
                                 .inline_data = TEXT("data")};
    m.head.sequence = ++g.sequence;
    ck_assert_int_eq(rig_send(&g, MSG_write_commit, &m), 0);
    rig_commit(&g);
    rig_crash(&g, g.log_count);
    meta_on_place(g.m, place, NULL);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f.inode, f.handle, O_RDWR), 0);
    ck_assert_int_eq(rig_send(&g, MSG_write_commit, &m), 0);
    ck_assert(g.q.replayed && g.q.answer.write_commit.attr.size == 4);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert_uint_eq(s.handles, 0); /* closed here too */
    ck_assert(text_equal(layout(f.inode, 0, 0)->inline_data, TEXT("data")));
    f.handle = reopen(f.inode, O_RDWR);
    struct rec_extent e = granted(f, 0);
    rig_commit(&g);
    rig_crash(&g, g.log_count);
    meta_on_place(g.m, place, NULL);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f.inode, f.handle, O_RDWR), 0);
    ck_assert_int_eq(commit(f, &e, 4, 4), 0);        /* rows are what counts */
    ck_assert_uint_gt(granted(f, 0).epoch, e.epoch); /* whose they are is not known any more */
    rig_fini(&g);
}

TEST(meta_content_commit_asks_for_rows_that_left_memory_before_it_judges)
{
    start();
    struct file f = create("f");
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f.inode, .handle = f.handle, .valid = COMMIT_INLINE,
                          .inline_data = TEXT("hello")),
                     0);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f.inode, .handle = f.handle, .first_block = 2, .count = 1), 0);
    struct rec_extent e2 = nth(&g.q.answer.write_grant.layout.extents, 1), wrong = e2;
    wrong.epoch = 99;
    settle();
    ck_assert_int_eq(commit(f, &wrong, 10, 10), -CV_STALE_EPOCH);
    settle();
    ck_assert_int_eq(commit(f, &e2, 10, 10), -EINVAL);
    rig_fini(&g);
}

TEST(meta_content_an_ended_session_loses_its_grants_by_an_epoch)
{
    start();
    struct file f = create("f");
    uint64_t mine = reopen(f.inode, O_RDWR);
    struct rec_extent old = granted(f, 0);
    swap();
    struct file theirs = {f.inode, reopen(f.inode, O_RDWR)};
    struct rec_extent e = granted(theirs, 1);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f.inode, .handle = theirs.handle, .first_block = 2, .count = 64),
                     0);
    uint64_t ended = g.head.session;
    swap();
    ck_assert_int_eq(commit((struct file){f.inode, mine}, &old, 7, 7), 0);
    settle();
    ck_assert_int_eq(rig_inner(&g, META_OP_end_session, ended), 0);
    ck_assert(!meta_next_inner(g.m, &g.q) || g.q.op != meta_op_inner(META_OP_fence)); /* not before it is committed */
    rig_commit(&g);
    meta_request_reset(&g.q);
    ck_assert(meta_next_inner(g.m, &g.q) && g.q.op == meta_op_inner(META_OP_fence));
    ck_assert_int_eq(rig_run(&g, &g.q), 0);
    settle();
    const struct rec_layout *l = layout(f.inode, 0, 0);
    ck_assert_uint_eq(l->extents.count, 64 + 2);
    ck_assert_uint_eq(nth(&l->extents, 0).epoch, old.epoch); /* nobody else's */
    for (uint32_t i = 1; i < 66; i++)
        ck_assert_uint_eq(nth(&l->extents, i).epoch, 4);
    ck_assert_uint_eq(nth(&l->extents, 1).version, e.version);
    meta_request_reset(&g.q);
    ck_assert(!meta_next_inner(g.m, &g.q));
    rig_fini(&g);
}
