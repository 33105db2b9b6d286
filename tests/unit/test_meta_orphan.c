/* SPDX-License-Identifier: Apache-2.0 */
/* What lost its last name: kept as long as somebody holds it, then purged in steps. */
#include "tests/unit/meta_rig.h"

#include <fcntl.h>

#include "wire/meta_flags.h"

static struct rig g;

static uint64_t orphans(void)
{
    return g.m->now.orphans;
}

TEST(meta_orphan_an_open_file_outlives_its_name)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    ck_assert_uint_eq(g.q.answer.unlink.attr.nlink, 0);
    ck_assert_uint_eq(orphans(), 1);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 3, .handle = handle), 0);
    ck_assert_int_eq(SEND(&g, link, .inode = f, .parent = META_ROOT, .name = TEXT("back")), -ENOENT);
    ck_assert_int_eq(SEND(&g, open, .inode = f), 0); /* by another way, /proc/self/fd */
    uint64_t handle2 = g.q.answer.open.handle;
    ck_assert_int_eq(rig_inner(&g, META_OP_purge, f), -EBUSY);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle), 0);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle2), 0);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    ck_assert_uint_eq(orphans(), 0);
    rig_commit(&g);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 1 && s.state.orphans == 0 && s.state.bytes == 0 && s.handles == 0);
    rig_fini(&g);
}

TEST(meta_orphan_a_removed_directory_that_is_open_takes_no_names)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    ck_assert_int_eq(SEND(&g, open, .inode = d, .flags = O_RDONLY | O_DIRECTORY), 0);
    uint64_t handle = g.q.answer.open.handle;
    ck_assert_int_eq(SEND(&g, rmdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = d), 0);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = d, .name = TEXT("e")), -ENOENT);
    make_file(&g, META_ROOT, "f");
    ck_assert_int_eq(SEND(&g, rename, .parent = META_ROOT, .name = TEXT("f"), .new_parent = d, .new_name = TEXT("f")),
                     -ENOENT);
    ck_assert_int_eq(SEND(&g, readdir, .inode = d), 0);
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 0);
    ck_assert_int_eq(SEND(&g, close, .inode = d, .handle = handle), 0);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = d), -ESTALE);
    rig_fini(&g);
}

TEST(meta_orphan_a_new_leader_purges_only_after_its_clients_had_their_say)
{
    rig_init(&g, NULL);
    uint64_t f[3], handle[3];
    const char *names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = text_of(names[i]), .flags = O_RDWR), 0);
        f[i] = g.q.answer.create.attr.inode;
        handle[i] = g.q.answer.create.handle;
        ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = text_of(names[i])), 0);
    }
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    rig_purge_all(&g);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(SEND(&g, getattr, .inode = f[i]), 0);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f[0], handle[0], O_RDWR), 0);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f[0], handle[0], O_RDWR), -EEXIST);
    ck_assert_int_eq(meta_reassert(g.m, 999999, f[1], handle[1], O_RDWR), -CV_SESSION_ENDED);
    meta_allow_purge(g.m);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[0]), 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[1]), -ESTALE);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[2]), -ESTALE);
    ck_assert_int_eq(SEND(&g, close, .inode = f[0], .handle = handle[0]), 0);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[0]), -ESTALE);
    rig_fini(&g);
}

/* What reassert says of one handle. */
static int reassert_one(uint64_t inode, uint64_t handle, uint32_t flags)
{
    struct buf list = {0};
    struct rec_held_handle h = {.handle = handle, .inode = inode, .flags = flags};
    ck_assert_int_eq(rec_held_handle_append(&list, &h), 0);
    ck_assert_int_eq(SEND(&g, reassert, .handles = wire_list_of(&list, 1)), 0);
    buf_fini(&list);
    ck_assert_uint_eq(g.q.answer.reassert.results.n, 4);
    return -(int)get_le32((const uint8_t *)g.q.answer.reassert.results.p);
}

TEST(meta_orphan_what_loses_its_name_before_its_holder_had_a_say_is_kept_for_him)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    rig_commit(&g);
    rig_purge_all(&g);
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), 0);
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), 0); /* again: it is known */
    ck_assert(!meta_all_told(g.m));
    ck_assert_int_eq(SEND(&g, reassert, .done = 1), 0);
    ck_assert(meta_all_told(g.m));
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f, .handle = handle, .valid = COMMIT_SIZE | COMMIT_INLINE,
                          .size = 3, .inline_data = TEXT("abc")),
                     0);
    meta_allow_purge(g.m);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDONLY), 0);
    ck_assert(text_equal(g.q.answer.open.layout.inline_data, TEXT("abc")));
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = g.q.answer.open.handle), 0);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle), 0);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    rig_fini(&g);
}

/* For who told that he holds nothing, what has no name is gone at once; others may still come. */
TEST(meta_orphan_what_is_kept_for_others_is_gone_for_who_told_all)
{
    rig_init(&g, NULL);
    uint64_t first = g.head.session, f = make_file(&g, META_ROOT, "f"), e = make_file(&g, META_ROOT, "e");
    rig_open_session(&g, 0);
    uint64_t second = g.head.session;
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(SEND(&g, reassert, .done = 1), 0);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 3), -ESTALE);
    ck_assert(!meta_all_told(g.m));
    g.head.session = first;
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0); /* it may have it open */
    ck_assert_int_eq(rig_inner(&g, META_OP_end_session, first), 0);
    rig_commit(&g);
    ck_assert(meta_all_told(g.m)); /* who ended has nothing to tell */
    g.head.session = second;
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("e")), 0);
    rig_open_session(&g, 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = e), -ESTALE);
    meta_allow_purge(g.m);
    rig_purge_all(&g);
    rig_commit(&g);
    struct meta_stats stats;
    meta_stats(g.m, &stats);
    ck_assert_uint_eq(stats.state.orphans, 0);
    rig_fini(&g);
}

TEST(meta_orphan_handles_are_taken_from_who_may_have_had_them)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .mode = 0600, .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle, first = g.head.session;
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle), 0);
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), -EBADF); /* this leader's own, and closed */
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(reassert_one(f, (uint64_t)g.epoch << 32 | 7, O_RDWR), -EBADF); /* never given */
    ck_assert_int_eq(reassert_one(f + 500, handle, O_RDWR), -ESTALE);
    g.head.uid = 1000;
    ck_assert_int_eq(reassert_one(f, handle, O_RDONLY), -EACCES);
    g.head.uid = 0;
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), 0);
    rig_open_session(&g, 0);
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), -EBADF); /* another session's */
    ck_assert_uint_ne(g.head.session, first);
    struct buf list = {0};
    struct rec_held_handle h = {.handle = 1, .inode = f};
    for (int i = 0; i < 4097; i++)
        ck_assert_int_eq(rec_held_handle_append(&list, &h), 0);
    ck_assert_int_eq(SEND(&g, reassert, .handles = wire_list_of(&list, 4097)), -E2BIG);
    buf_fini(&list);
    rig_fini(&g);
}

/* Raised once, by a batch that is of the new level itself; and what is not committed can be taken back. */
TEST(meta_orphan_the_feature_level_is_raised_by_a_committed_batch)
{
    const struct meta_options o = {.level_max = 1};
    rig_init(&g, &o);
    ck_assert_uint_eq(meta_level(g.m), 1);
    ck_assert_int_eq(SEND(&g, upgrade, .level = 2), -CV_FORMAT_TOO_NEW); /* not this program */
    ck_assert_int_eq(SEND(&g, mount_add, .parent = META_ROOT, .name = TEXT("m"), .path = TEXT("/m"),
                          .mode = MOUNT_SCRATCH, .ack_mode = MOUNT_ACK_LOCAL),
                     -CV_LEVEL_TOO_LOW);
    rig_commit(&g);
    rig_flush(&g);
    g.options.level_max = 0;
    rig_crash(&g, g.log_count);
    ck_assert_uint_eq(meta_level(g.m), 1);
    g.head.uid = 1000;
    ck_assert_int_eq(SEND(&g, upgrade, .level = 2), -EPERM);
    g.head.uid = 0;
    ck_assert_int_eq(SEND(&g, upgrade, .level = META_FEATURE_LEVEL + 1), -CV_FORMAT_TOO_NEW);
    ck_assert_int_eq(SEND(&g, upgrade, .level = 1), 0);
    ck_assert_uint_eq(g.q.answer.upgrade.level, 1);
    ck_assert_int_eq(SEND(&g, upgrade, .level = 2), 0);
    ck_assert_uint_eq(meta_level(g.m), 2);
    meta_batch_undo(g.m, meta_batch_now(g.m).number);
    ck_assert_uint_eq(meta_level(g.m), 1);
    ck_assert_int_eq(SEND(&g, upgrade, .level = 2), 0);
    ck_assert_uint_eq(g.q.answer.upgrade.level, 2);
    ck_assert_int_eq(SEND(&g, upgrade, .level = 2), 0);
    ck_assert(!g.q.changed);
    struct meta_stats stats;
    meta_stats(g.m, &stats);
    ck_assert_uint_eq(stats.level, 1);
    rig_commit(&g);
    meta_stats(g.m, &stats);
    ck_assert_uint_eq(stats.level, 2);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_uint_eq(meta_level(g.m), 2);
    rig_fini(&g);
}

TEST(meta_orphan_the_end_of_a_session_closes_its_files_when_it_is_committed)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    uint64_t first = g.head.session;
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode;
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    rig_open_session(&g, 0);
    ck_assert_int_eq(rig_inner(&g, META_OP_end_session, first), 0);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0); /* it may still be undone */
    rig_commit(&g);
    rig_purge_all(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    rig_fini(&g);
}

TEST(meta_orphan_purging_takes_all_rows_of_an_inode_in_steps)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    uint64_t f = make_file(&g, META_ROOT, "f");
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof(name), "user.%d", i);
        ck_assert_int_eq(SEND(&g, setxattr, .inode = f, .name = text_of(name), .value = TEXT("v")), 0);
    }
    rig_commit(&g);
    rig_flush(&g);
    /* Extents, as the data plane will write them. */
    uint8_t key[META_KEY_MAX], row[META_INODE_MAX];
    struct meta_extent e = {.version = 1, .epoch = 1, .valid_length = 5, .replica_count = 1, .replicas = {3}};
    for (uint32_t i = 0; i < 2500; i++)
        store_put(&g.store, META_TABLE_extent, key_of(key, meta_key_extent(f, i, key)),
                  key_of(row, meta_extent_encode(&e, row)));
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    struct meta_inode i;
    size_t at = store_seek(&g.store, META_FAMILY_inode, key_of(key, meta_key_inode(f, key)));
    struct cell *c = &g.store.cells[at];
    ck_assert_int_eq(meta_inode_decode(f, key_of(c->key + 1 + c->key_n, c->value_n), &i), 0);
    i.flags |= INODE_HAS_EXTENTS | INODE_HAS_INLINE;
    store_put(&g.store, META_TABLE_inode, key_of(key, meta_key_inode(f, key)), key_of(row, meta_inode_encode(&i, row)));
    store_put(&g.store, META_TABLE_inline, key_of(key, meta_key_id(META_TABLE_inline, f, key)),
              TEXT("\x01"
                   "bytes"));
    tree_evict(&g.m->tree, 1000);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    ck_assert_uint_eq(orphans(), 1); /* nobody has it open, but its rows are many */
    ck_assert_int_eq(rig_inner(&g, META_OP_purge, f), 0);
    ck_assert_uint_eq(g.m->open.row_count, 5 + 1000);
    ck_assert_uint_eq(orphans(), 1);
    rig_purge_all(&g);
    ck_assert_uint_eq(orphans(), 0);
    rig_commit(&g);
    rig_flush(&g);
    for (size_t k = 0; k < g.store.count; k++)
        ck_assert(g.store.cells[k].key[0] != META_FAMILY_extent &&
                  (g.store.cells[k].key[0] != META_FAMILY_small || !strchr("xio", g.store.cells[k].key[1])));
    rig_fini(&g);
}
