/* SPDX-License-Identifier: Apache-2.0 */
/* The life of mutations: preparing, slots, sessions, orphans, ids, commit and undo, following, what answers depend on. */
#include "tests/unit/meta_rig.h"

#include <fcntl.h>

#include "wire/meta_flags.h"

static struct rig g;

/* --- preparing ---------------------------------------------------------------------------------------------------------------- */

/* Everything is in the base only, and the base answers nothing from memory. */
static void cold(void)
{
    rig_commit(&g);
    rig_flush(&g);
    for (int i = 0; i < 4; i++) /* a directory leaves after its names */
        tree_evict(&g.m->tree, 1000000);
    g.store.cold = true;
}

TEST(meta_life_a_cold_start_fetches_what_a_request_needs_and_keeps_it)
{
    rig_init(&g, NULL);
    uint64_t a = make_dir(&g, META_ROOT, "a"), b = make_dir(&g, a, "b"), f = make_file(&g, b, "f");
    cold();
    rig_crash(&g, g.log_count);
    uint64_t gets = g.store.gets;
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("a/b/f")), 0);
    ck_assert_uint_eq(g.q.answer.walk.attr.inode, f);
    ck_assert_uint_eq(g.store.gets - gets, 6); /* three names, three inodes; the root is here */
    ck_assert_uint_eq(g.rounds, 6);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("a/b/f")), 0);
    ck_assert_uint_eq(g.rounds, 0);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = b, .name = TEXT("new")), 0); /* its absence has to be seen */
    ck_assert_uint_eq(g.rounds, 1);
    ck_assert_int_eq(look(&g, b, "nothing"), -ENOENT);
    ck_assert_uint_eq(g.rounds, 1);
    ck_assert_int_eq(look(&g, b, "nothing"), -ENOENT); /* an absence is kept too */
    ck_assert_uint_eq(g.rounds, 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = 3000), -ESTALE);
    ck_assert_int_eq(SEND(&g, getattr, .inode = 3000), -ESTALE);
    ck_assert_uint_eq(g.rounds, 0);
    rig_fini(&g);
}

TEST(meta_life_a_small_directory_is_held_whole_after_a_listing)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    char name[16];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make_file(&g, d, name);
    }
    cold();
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(SEND(&g, readdir, .inode = d, .flags = READDIR_ATTR), 0);
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 300);
    ck_assert_uint_le(g.rounds, 3);
    uint64_t asked = g.store.gets + g.store.scans;
    ck_assert_int_eq(SEND(&g, readdir, .inode = d, .flags = READDIR_ATTR), 0);
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 300);
    ck_assert_int_eq(look(&g, d, "no such name"), -ENOENT);
    ck_assert_int_eq(look(&g, d, "f77"), 0);
    make_file(&g, d, "new");
    ck_assert_int_eq(SEND(&g, unlink, .parent = d, .name = TEXT("f5")), 0);
    ck_assert_int_eq(look(&g, d, "f5"), -ENOENT);
    ck_assert_uint_eq(g.store.gets + g.store.scans, asked); /* all from memory */
    ck_assert_int_eq(SEND(&g, readdir, .inode = d), 0);
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 300);
    rig_fini(&g);
}

/* Between preparing and executing everything may leave, and the base may move on: then it goes back. */
TEST(meta_life_an_execution_without_its_rows_goes_back_and_changes_nothing)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    make_file(&g, d, "f");
    cold();
    struct msg_unlink msg = {.parent = d, .name = TEXT("f"), .head = g.head};
    struct meta_stats s;
    msg.head.sequence = ++g.sequence;
    ck_assert_int_eq(msg_unlink_encode(&msg, &g.body), 0);
    meta_request_reset(&g.q);
    g.body.n = 0;
    ck_assert_int_eq(msg_unlink_encode(&msg, &g.body), 0);
    ck_assert_int_eq(meta_request_decode(&g.q, MSG_unlink, g.body.p, g.body.n), 0);
    ck_assert_int_eq(meta_execute(g.m, &g.q, 1), -CV_NOT_PREPARED); /* it was never prepared */
    ck_assert_uint_eq(meta_batch_now(g.m).op_count, 0);
    while (meta_prepare(g.m, &g.q) < 0) {
        ck_assert_int_eq(meta_fetch(&g.base, &g.q, true), -CV_NOT_PREPARED); /* cold: not without blocking */
        ck_assert_int_eq(meta_fetch(&g.base, &g.q, false), 0);
    }
    /* Meanwhile somebody else changes a row and the delta is written: what was fetched is stale. */
    struct meta_request other;
    meta_request_init(&other);
    struct buf body = {0};
    struct msg_setattr change = {.inode = META_ROOT, .valid = SETATTR_MODE, .mode = 0700, .head = g.head};
    change.head.slot = 5;
    change.head.sequence = 1;
    ck_assert_int_eq(msg_setattr_encode(&change, &body), 0);
    ck_assert_int_eq(meta_request_decode(&other, MSG_setattr, body.p, body.n), 0);
    ck_assert_int_eq(rig_run(&g, &other), 0);
    rig_commit(&g);
    rig_flush(&g);
    tree_evict(&g.m->tree, 1000000);
    ck_assert_int_eq(meta_execute(g.m, &g.q, 1), -CV_NOT_PREPARED);
    ck_assert_uint_eq(g.q.prepares, 2);
    meta_stats(g.m, &s);
    ck_assert_uint_eq(s.prepare_again, 2);
    ck_assert_int_eq(rig_run(&g, &g.q), 0); /* it goes the way again */
    ck_assert_uint_eq(g.q.answer.unlink.attr.nlink, 0);
    ck_assert_int_eq(look(&g, d, "f"), -ENOENT);
    meta_request_fini(&other);
    buf_fini(&body);
    rig_fini(&g);
}

TEST(meta_life_evicted_nodes_do_not_matter_to_a_prepared_request)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    make_file(&g, d, "f");
    cold();
    struct msg_rename msg = {
        .parent = d, .name = TEXT("f"), .new_parent = META_ROOT, .new_name = TEXT("moved"), .head = g.head};
    msg.head.sequence = ++g.sequence;
    g.body.n = 0;
    ck_assert_int_eq(msg_rename_encode(&msg, &g.body), 0);
    meta_request_reset(&g.q);
    ck_assert_int_eq(meta_request_decode(&g.q, MSG_rename, g.body.p, g.body.n), 0);
    while (meta_prepare(g.m, &g.q) < 0)
        ck_assert_int_eq(meta_fetch(&g.base, &g.q, false), 0);
    tree_evict(&g.m->tree, 1000000);
    ck_assert_int_eq(meta_execute(g.m, &g.q, 1), 0);
    ck_assert_int_eq(g.q.error, 0);
    ck_assert_int_eq(look(&g, META_ROOT, "moved"), 0);
    rig_fini(&g);
}

TEST(meta_life_errors_of_the_base_reach_the_caller_and_damage_is_told)
{
    rig_init(&g, NULL);
    uint64_t f = make_file(&g, META_ROOT, "f");
    uint8_t key[META_KEY_MAX];
    cold();
    g.store.fail = -EIO;
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -EIO);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), -EIO);
    g.store.fail = 0;
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    cold();
    store_put(&g.store, META_TABLE_inode, key_of(key, meta_key_inode(f, key)), TEXT("\x01garbage"));
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -CV_BAD_FORMAT);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE), -CV_BAD_FORMAT);
    store_put(&g.store, META_TABLE_inode, key_of(key, meta_key_inode(f, key)), TEXT("\x02the future"));
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -CV_FORMAT_TOO_NEW);
    rig_fini(&g);
}

/* --- slots --------------------------------------------------------------------------------------------------------------------- */

/* Send with this slot and sequence. */
#define ONCE(slot_, sequence_, name_, ...)                                                                             \
    SEND(&g, name_, .head = {.session = g.head.session, .slot = (slot_), .sequence = (sequence_)}, __VA_ARGS__)

TEST(meta_life_a_repetition_is_answered_not_executed)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("d"), .mode = 0755), 0);
    uint64_t d = g.q.answer.mkdir.attr.inode, batch = g.q.depends;
    ck_assert(g.q.changed && !g.q.replayed && batch);
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("d"), .mode = 0755), 0);
    ck_assert(!g.q.changed && g.q.replayed && g.q.answer.mkdir.attr.inode == d &&
              g.q.answer.mkdir.parent.inode == META_ROOT);
    ck_assert_uint_eq(g.q.depends, batch); /* it waits for the same commit */
    rig_commit(&g);
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("d"), .mode = 0755), 0);
    ck_assert(g.q.replayed && g.q.depends == 0);
    ck_assert_int_eq(ONCE(1, 1, rmdir, .parent = META_ROOT, .name = TEXT("d")), -CV_SLOT_BAD); /* another request */
    ck_assert_int_eq(ONCE(1, 5, rmdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("d")), -CV_SLOT_BAD); /* from long ago */
    ck_assert_int_eq(ONCE(1, 5, rmdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    ck_assert(g.q.replayed && g.q.answer.rmdir.attr.inode == d && g.q.answer.rmdir.attr.nlink == 0);
    ck_assert_int_eq(ONCE(64, 1, rmdir, .parent = META_ROOT, .name = TEXT("d")), -CV_SLOT_BAD); /* no such slot */
    ck_assert_int_eq(ONCE(2, 0, rmdir, .parent = META_ROOT, .name = TEXT("d")), -CV_SLOT_BAD);
    rig_fini(&g);
}

TEST(meta_life_repetitions_of_every_mutation_bring_the_same_inodes)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d"), f = make_file(&g, META_ROOT, "f");
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(ONCE(1, 1, create, .parent = d, .name = TEXT("c"), .flags = O_RDWR | O_EXCL), 0);
        static uint64_t handle, inode;
        if (again)
            ck_assert(g.q.answer.create.handle == handle && g.q.answer.create.attr.inode == inode &&
                      g.q.answer.create.created);
        handle = g.q.answer.create.handle;
        inode = g.q.answer.create.attr.inode;
        ck_assert_int_eq(ONCE(2, 1, symlink, .parent = d, .name = TEXT("s"), .target = TEXT("t")), 0);
        ck_assert_int_eq(ONCE(3, 1, link, .inode = f, .parent = d, .name = TEXT("l")), 0);
        ck_assert(g.q.answer.link.attr.nlink == 2 && g.q.answer.link.parent.inode == d);
        ck_assert_int_eq(ONCE(4, 1, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 9), 0);
        ck_assert_uint_eq(g.q.answer.setattr.attr.size, 9);
        ck_assert_int_eq(ONCE(5, 1, setxattr, .inode = f, .name = TEXT("user.a"), .flags = 1), 0);
        ck_assert_int_eq(ONCE(6, 1, mknod, .parent = d, .name = TEXT("n"), .mode = S_IFREG), 0);
        ck_assert_int_eq(
            ONCE(7, 1, rename, .parent = d, .name = TEXT("n"), .new_parent = META_ROOT, .new_name = TEXT("m")), 0);
        ck_assert(g.q.answer.rename.parent.inode == d && g.q.answer.rename.new_parent.inode == META_ROOT);
        ck_assert_int_eq(ONCE(8, 1, unlink, .parent = META_ROOT, .name = TEXT("m")), 0);
        ck_assert_int_eq(ONCE(9, 1, open, .inode = f, .flags = O_RDONLY), 0);
        static uint64_t opened;
        if (again)
            ck_assert_uint_eq(g.q.answer.open.handle, opened);
        opened = g.q.answer.open.handle;
        ck_assert_int_eq(ONCE(10, 1, removexattr, .inode = f, .name = TEXT("user.a")), again ? 0 : 0);
        ck_assert(g.q.replayed == (again == 1));
        rig_commit(&g);
    }
    rig_fini(&g);
}

TEST(meta_life_a_failure_is_remembered_by_its_leader)
{
    rig_init(&g, NULL);
    make_dir(&g, META_ROOT, "d");
    rig_commit(&g);
    ck_assert_int_eq(ONCE(1, 7, mkdir, .parent = META_ROOT, .name = TEXT("d")), -EEXIST);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    /* The client has read EEXIST; a copy of its request arrives late: it must not make a directory now. */
    ck_assert_int_eq(ONCE(1, 7, mkdir, .parent = META_ROOT, .name = TEXT("d")), -EEXIST);
    ck_assert(g.q.replayed);
    ck_assert_int_eq(look(&g, META_ROOT, "d"), -ENOENT);
    rig_commit(&g);
    /* A new leader knows nothing of it: who still asks has had no answer, so now is when it happens. */
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(ONCE(1, 7, mkdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    ck_assert(!g.q.replayed);
    rig_fini(&g);
}

TEST(meta_life_a_failure_is_forgotten_with_the_batch_it_was_seen_in)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    uint64_t batch = g.q.depends;
    ck_assert_int_eq(ONCE(2, 1, mkdir, .parent = META_ROOT, .name = TEXT("d")), -EEXIST);
    ck_assert_uint_eq(g.q.depends, batch); /* so nobody has read that answer */
    ck_assert_int_eq(ONCE(2, 1, mkdir, .parent = META_ROOT, .name = TEXT("d")), -EEXIST);
    ck_assert(g.q.replayed && g.q.depends == batch);
    meta_batch_undo(g.m, batch);
    ck_assert_int_eq(ONCE(2, 1, mkdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    ck_assert(!g.q.replayed);
    rig_fini(&g);
}

TEST(meta_life_slots_outlive_the_process_and_go_back_with_their_batch)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("one")), 0);
    uint64_t one = g.q.answer.mkdir.attr.inode;
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count); /* from the base */
    ck_assert_int_eq(ONCE(1, 1, mkdir, .parent = META_ROOT, .name = TEXT("one")), 0);
    ck_assert(g.q.replayed && g.q.answer.mkdir.attr.inode == one);
    ck_assert_int_eq(ONCE(1, 2, mkdir, .parent = META_ROOT, .name = TEXT("two")), 0);
    uint64_t two = g.q.answer.mkdir.attr.inode;
    rig_commit(&g);
    rig_crash(&g, g.log_count); /* from the log */
    ck_assert_int_eq(ONCE(1, 2, mkdir, .parent = META_ROOT, .name = TEXT("two")), 0);
    ck_assert(g.q.replayed && g.q.answer.mkdir.attr.inode == two);
    ck_assert_int_eq(ONCE(1, 3, mkdir, .parent = META_ROOT, .name = TEXT("three")), 0);
    uint64_t three = g.q.answer.mkdir.attr.inode;
    meta_batch_undo(g.m, g.q.depends);
    ck_assert_int_eq(ONCE(1, 2, mkdir, .parent = META_ROOT, .name = TEXT("two")), 0); /* the slot is back at that */
    ck_assert(g.q.replayed);
    ck_assert_int_eq(look(&g, META_ROOT, "three"), -ENOENT);
    ck_assert_int_eq(ONCE(1, 3, mkdir, .parent = META_ROOT, .name = TEXT("three")), 0);
    ck_assert(!g.q.replayed && g.q.answer.mkdir.attr.inode != three); /* ids are not used twice */
    rig_fini(&g);
}

/* --- sessions ------------------------------------------------------------------------------------------------------------------ */

TEST(meta_life_sessions_begin_and_end_by_committed_records)
{
    rig_init(&g, NULL);
    uint64_t first = g.head.session;
    ck_assert_int_eq(SEND(&g, session_open, .host = TEXT("h"), .slots = 1000), 0);
    uint64_t second = g.q.answer.session_open.session;
    ck_assert(second != first && g.q.answer.session_open.slots == 64 && g.q.depends &&
              meta_session_exists(g.m, second));
    meta_batch_undo(g.m, g.q.depends);
    ck_assert(!meta_session_exists(g.m, second));
    g.head.session = second;
    ck_assert_int_eq(SEND(&g, mkdir, .parent = META_ROOT, .name = TEXT("d")), -CV_SESSION_ENDED);
    ck_assert_int_eq(look(&g, META_ROOT, "d"), -CV_SESSION_ENDED);
    g.head.session = 1ull << 40; /* never given out */
    ck_assert_int_eq(SEND(&g, mkdir, .parent = META_ROOT, .name = TEXT("d")), -CV_SESSION_UNKNOWN);
    g.head.session = first;
    ck_assert_int_eq(SEND(&g, mkdir, .parent = META_ROOT, .name = TEXT("d")), 0);
    rig_commit(&g);
    ck_assert_int_eq(SEND(&g, session_close, .session = first), 0);
    uint64_t closing = g.q.depends;
    ck_assert_int_eq(look(&g, META_ROOT, "d"), -CV_SESSION_ENDED);
    ck_assert_uint_eq(g.q.depends, closing); /* also this answer waits */
    meta_batch_undo(g.m, closing);
    ck_assert_int_eq(look(&g, META_ROOT, "d"), 0);
    ck_assert_int_eq(rig_inner(&g, META_OP_end_session, first), 0);
    ck_assert_int_eq(rig_inner(&g, META_OP_end_session, first), -CV_SESSION_ENDED);
    rig_commit(&g);
    ck_assert_int_eq(look(&g, META_ROOT, "d"), -CV_SESSION_ENDED);
    ck_assert_int_eq(SEND(&g, session_close, .session = 0), -CV_SESSION_UNKNOWN);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(look(&g, META_ROOT, "d"), -CV_SESSION_ENDED);
    for (size_t i = 0; i < g.store.count; i++) /* nothing of it is left */
        ck_assert(g.store.cells[i].key[0] != META_FAMILY_small ||
                  (g.store.cells[i].key[1] != 'S' && g.store.cells[i].key[1] != 's'));
    char long_name[300];
    memset(long_name, 'x', sizeof(long_name));
    ck_assert_int_eq(SEND(&g, session_open, .host = {long_name, 300}), -EINVAL);
    rig_fini(&g);
}

static bool count_session(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles)
{
    ++*(int *)arg;
    ck_assert(text_equal(row->host, TEXT("host")));
    return true;
}

TEST(meta_life_sessions_can_be_listed)
{
    int n = 0;
    rig_init(&g, NULL);
    rig_open_session(&g, 0);
    rig_open_session(&g, 0);
    meta_sessions(g.m, count_session, &n);
    ck_assert_int_eq(n, 3);
    rig_fini(&g);
}

/* --- orphans ------------------------------------------------------------------------------------------------------------------- */

static void purge_all(void)
{
    struct meta_request q;
    meta_request_init(&q);
    while (meta_next_inner(g.m, &q)) {
        rig_run(&g, &q);
        meta_request_reset(&q);
    }
    meta_request_fini(&q);
}

static uint64_t orphans(void)
{
    return g.m->now.orphans;
}

TEST(meta_life_an_open_file_outlives_its_name)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    ck_assert_uint_eq(g.q.answer.unlink.attr.nlink, 0);
    ck_assert_uint_eq(orphans(), 1);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 3, .handle = handle), 0);
    ck_assert_int_eq(SEND(&g, link, .inode = f, .parent = META_ROOT, .name = TEXT("back")), -ENOENT);
    ck_assert_int_eq(SEND(&g, open, .inode = f), 0); /* by another way, /proc/self/fd */
    uint64_t handle2 = g.q.answer.open.handle;
    ck_assert_int_eq(rig_inner(&g, META_OP_purge, f), -EBUSY);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle), 0);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle2), 0);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    ck_assert_uint_eq(orphans(), 0);
    rig_commit(&g);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 1 && s.state.orphans == 0 && s.state.bytes == 0 && s.handles == 0);
    rig_fini(&g);
}

TEST(meta_life_a_removed_directory_that_is_open_takes_no_names)
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
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = d), -ESTALE);
    rig_fini(&g);
}

TEST(meta_life_a_new_leader_purges_only_after_its_clients_had_their_say)
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
    purge_all();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(SEND(&g, getattr, .inode = f[i]), 0);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f[0], handle[0], O_RDWR), 0);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f[0], handle[0], O_RDWR), -EEXIST);
    ck_assert_int_eq(meta_reassert(g.m, 999999, f[1], handle[1], O_RDWR), -CV_SESSION_ENDED);
    meta_allow_purge(g.m);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[0]), 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[1]), -ESTALE);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f[2]), -ESTALE);
    ck_assert_int_eq(SEND(&g, close, .inode = f[0], .handle = handle[0]), 0);
    purge_all();
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

TEST(meta_life_what_loses_its_name_before_its_holder_had_a_say_is_kept_for_him)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    rig_commit(&g);
    purge_all();
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), 0);
    ck_assert_int_eq(reassert_one(f, handle, O_RDWR), 0); /* again: it is known */
    ck_assert(!meta_all_told(g.m));
    ck_assert_int_eq(SEND(&g, reassert, .done = 1), 0);
    ck_assert(meta_all_told(g.m));
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f, .handle = handle, .valid = COMMIT_SIZE | COMMIT_INLINE,
                          .size = 3, .inline_data = TEXT("abc")),
                     0);
    meta_allow_purge(g.m);
    purge_all();
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDONLY), 0);
    ck_assert(text_equal(g.q.answer.open.layout.inline_data, TEXT("abc")));
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = g.q.answer.open.handle), 0);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = handle), 0);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    rig_fini(&g);
}

/* For who told that he holds nothing, what has no name is gone at once; others may still come. */
TEST(meta_life_what_is_kept_for_others_is_gone_for_who_told_all)
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
    purge_all();
    rig_commit(&g);
    struct meta_stats stats;
    meta_stats(g.m, &stats);
    ck_assert_uint_eq(stats.state.orphans, 0);
    rig_fini(&g);
}

TEST(meta_life_handles_are_taken_from_who_may_have_had_them)
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
TEST(meta_life_the_feature_level_is_raised_by_a_committed_batch)
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

TEST(meta_life_the_end_of_a_session_closes_its_files_when_it_is_committed)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    uint64_t first = g.head.session;
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("f"), .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode;
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f")), 0);
    rig_open_session(&g, 0);
    ck_assert_int_eq(rig_inner(&g, META_OP_end_session, first), 0);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0); /* it may still be undone */
    rig_commit(&g);
    purge_all();
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), -ESTALE);
    rig_fini(&g);
}

TEST(meta_life_purging_takes_all_rows_of_an_inode_in_steps)
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
    purge_all();
    ck_assert_uint_eq(orphans(), 0);
    rig_commit(&g);
    rig_flush(&g);
    for (size_t k = 0; k < g.store.count; k++)
        ck_assert(g.store.cells[k].key[0] != META_FAMILY_extent &&
                  (g.store.cells[k].key[0] != META_FAMILY_small || !strchr("xio", g.store.cells[k].key[1])));
    rig_fini(&g);
}

/* --- ids ----------------------------------------------------------------------------------------------------------------------- */

TEST(meta_life_ids_come_from_committed_grants_only)
{
    const struct meta_options o = {.id_grant = 16};
    rig_init(&g, &o);
    uint64_t highest = 0;
    int made = 0, r;
    char name[16];
    for (r = 0; r == 0; made++) { /* without a commit the grant runs out */
        snprintf(name, sizeof(name), "f%d", made);
        r = SEND(&g, mknod, .parent = META_ROOT, .name = text_of(name), .mode = S_IFREG);
        if (r == 0)
            highest = g.q.answer.mknod.attr.inode;
    }
    ck_assert_int_eq(r, -CV_BUSY);
    ck_assert_int_lt(made, 18);
    ck_assert_uint_lt(highest, g.m->id_limit);
    rig_commit(&g); /* the next grant was in the batch */
    ck_assert_int_eq(rig_run(&g, &g.q), 0);
    ck_assert_uint_gt(g.q.answer.mknod.attr.inode, highest);
    highest = g.q.answer.mknod.attr.inode;
    for (int i = 0; i < 20; i++) {
        rig_close(&g);
        rig_crash(&g, g.committed); /* what was not committed is lost, its ids are not given again */
        ck_assert_int_eq(SEND(&g, mknod, .parent = META_ROOT, .name = TEXT("x"), .mode = S_IFREG), 0);
        ck_assert_uint_gt(g.q.answer.mknod.attr.inode, highest);
        highest = g.q.answer.mknod.attr.inode;
    }
    rig_fini(&g);
}

/* --- what answers depend on -------------------------------------------------------------------------------------------------------- */

TEST(meta_life_answers_depend_on_the_batches_they_saw)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d"), e = make_dir(&g, META_ROOT, "e");
    make_file(&g, d, "old");
    rig_commit(&g);
    ck_assert_int_eq(look(&g, d, "old"), 0);
    ck_assert_uint_eq(g.q.depends, 0);
    uint64_t f = make_file(&g, d, "new");
    uint64_t first = g.q.depends;
    ck_assert_uint_gt(first, 0);
    rig_close(&g);
    ck_assert_int_eq(SEND(&g, unlink, .parent = d, .name = TEXT("old")), 0);
    uint64_t second = g.q.depends;
    ck_assert_uint_gt(second, first);
    rig_close(&g);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    ck_assert_uint_eq(g.q.depends, first);
    ck_assert_int_eq(look(&g, d, "old"), -ENOENT); /* "no such name" rests on the removal */
    ck_assert_uint_eq(g.q.depends, second);
    ck_assert_int_eq(SEND(&g, getattr, .inode = e), 0);
    ck_assert_uint_eq(g.q.depends, 0);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = d, .name = TEXT("new")), -EEXIST); /* an error too */
    ck_assert(g.q.depends == second && !g.q.changed);
    ck_assert_int_eq(SEND(&g, readdir, .inode = d), 0);
    ck_assert_uint_eq(g.q.depends, second);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("d/new/x")), -ENOTDIR);
    ck_assert_uint_eq(g.q.depends, second);
    rig_commit_to(&g, g.committed + 1);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0);
    ck_assert_uint_eq(g.q.depends, 0);
    ck_assert_int_eq(look(&g, d, "old"), -ENOENT);
    ck_assert_uint_eq(g.q.depends, second);
    /* The same when the tree has forgotten everything. */
    tree_evict(&g.m->tree, 100000);
    ck_assert_int_eq(look(&g, d, "old"), -ENOENT);
    ck_assert_uint_eq(g.q.depends, second);
    rig_commit(&g);
    ck_assert_int_eq(look(&g, d, "old"), -ENOENT);
    ck_assert_uint_eq(g.q.depends, 0);
    rig_fini(&g);
}

/* --- batches, following --------------------------------------------------------------------------------------------------------------- */

static struct meta_effect effects[64];
static int effect_count;

static void effect_note(void *arg, const struct meta_effect *e)
{
    effects[effect_count++] = *e;
}

TEST(meta_life_side_effects_are_told_at_commit_and_not_before)
{
    rig_init(&g, NULL);
    meta_allow_purge(g.m);
    effect_count = 0;
    meta_on_effect(g.m, effect_note, NULL);
    uint64_t f = make_file(&g, META_ROOT, "f");
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 12), 0);
    ck_assert_int_eq(SEND(&g, create, .parent = META_ROOT, .name = TEXT("o"), .flags = O_RDWR), 0);
    uint64_t o = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    rig_close(&g);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("o")), 0);
    ck_assert_int_eq(
        SEND(&g, rename, .parent = META_ROOT, .name = TEXT("f"), .new_parent = META_ROOT, .new_name = TEXT("o")), 0);
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("o")), 0);
    ck_assert_int_eq(effect_count, 0);
    rig_commit_to(&g, g.committed + 1);
    ck_assert_int_eq(effect_count, 1);
    ck_assert(effects[0].kind == META_EFFECT_TRUNCATED && effects[0].inode == f && effects[0].a == 12);
    rig_commit(&g);
    ck_assert_int_eq(effect_count, 3);
    ck_assert(effects[1].kind == META_EFFECT_ORPHANED && effects[1].inode == o);
    ck_assert(effects[2].kind == META_EFFECT_PURGED && effects[2].inode == f);
    ck_assert_int_eq(SEND(&g, close, .inode = o, .handle = handle), 0);
    purge_all();
    uint64_t first = g.head.session;
    ck_assert_int_eq(SEND(&g, session_close, .session = first), 0);
    meta_batch_undo(g.m, g.q.depends); /* never committed, never told */
    rig_commit(&g);
    ck_assert_int_eq(effect_count, 3);
    rig_fini(&g);
}

TEST(meta_life_a_follower_refuses_what_it_cannot_read_and_applies_nothing_of_it)
{
    rig_init(&g, NULL);
    make_file(&g, META_ROOT, "f");
    rig_commit(&g);
    struct store store = {0};
    struct meta_base base = store_base(&store);
    struct meta *m;
    uint64_t chain = 0;
    ck_assert_int_eq(meta_new(NULL, &base, &m), 0);
    ck_assert(!meta_is_formatted(m) && meta_applied(m) == 0);
    for (uint64_t i = 0; i < g.log_count; i++) {
        const struct meta_payload *p = g.log[i];
        struct text bytes = {(const char *)p->bytes, p->n};
        uint64_t digest = meta_digest(m);
        for (uint32_t cut = 0; cut < p->n; cut += 1 + cut / 16) {
            int r = meta_apply(m, (struct text){bytes.p, cut}, i + 1);
            ck_assert_int_eq(r, -CV_BAD_FORMAT);
        }
        char *wrong = malloc(p->n);
        memcpy(wrong, bytes.p, p->n);
        wrong[2] = 9;
        ck_assert_int_eq(meta_apply(m, (struct text){wrong, p->n}, i + 1), -CV_FORMAT_TOO_NEW);
        wrong[2] = bytes.p[2];
        wrong[4] = 9; /* feature level */
        ck_assert_int_eq(meta_apply(m, (struct text){wrong, p->n}, i + 1), -CV_FORMAT_TOO_NEW);
        free(wrong);
        ck_assert_uint_eq(meta_digest(m), digest);
        ck_assert_uint_eq(meta_applied(m), i);
        ck_assert_int_eq(meta_apply(m, bytes, i + 1), 0);
        struct redo_reader r;
        ck_assert_int_eq(redo_reader_init(&r, bytes), 0);
        chain = hash_bytes(chain, r.ops_end, (size_t)(r.end - r.ops_end));
        ck_assert_uint_eq(meta_digest(m), chain);
    }
    ck_assert(meta_is_formatted(m) && meta_digest(m) == meta_digest(g.m));
    meta_skip(m, g.log_count + 1);
    ck_assert_uint_eq(meta_applied(m), g.log_count + 1);
    ck_assert_ptr_nonnull(meta_delta_seal(m));
    meta_free(m);
    rig_fini(&g);
}

TEST(meta_life_a_demoted_leader_undoes_what_was_cut_off_and_follows)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    rig_commit(&g);
    struct rig other = {.wall_ns = 5};
    other.base = store_base(&other.store);
    meta_request_init(&other.q);
    ck_assert_int_eq(meta_new(NULL, &other.base, &other.m), 0);
    for (uint64_t i = 0; i < g.log_count; i++)
        ck_assert_int_eq(meta_apply(other.m, (struct text){(char *)g.log[i]->bytes, g.log[i]->n}, i + 1), 0);
    /* g goes on alone and loses; other leads. */
    make_file(&g, d, "lost");
    ck_assert_int_eq(
        SEND(&g, rename, .parent = META_ROOT, .name = TEXT("d"), .new_parent = META_ROOT, .new_name = TEXT("gone")), 0);
    rig_close(&g);
    make_file(&g, META_ROOT, "lost too");
    meta_follow(g.m);
    meta_batch_undo(g.m, g.log[g.committed]->batch);
    meta_lead(other.m, 9);
    other.head = g.head;
    other.sequence = 100;
    ck_assert_int_eq(rig_inner(&other, META_OP_grant, 0), 0);
    rig_commit(&other);
    make_file(&other, d, "kept");
    rig_commit(&other);
    for (uint64_t i = 0; i < other.log_count; i++)
        ck_assert_int_eq(
            meta_apply(g.m, (struct text){(char *)other.log[i]->bytes, other.log[i]->n}, g.committed + 1 + i), 0);
    ck_assert_int_eq(look(&g, META_ROOT, "d"), 0);
    ck_assert_int_eq(look(&g, d, "lost"), -ENOENT);
    ck_assert_int_eq(look(&g, META_ROOT, "lost too"), -ENOENT);
    ck_assert_int_eq(look(&g, d, "kept"), 0);
    ck_assert_int_eq(SEND(&g, readdir, .inode = d), 0);
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 1);
    ck_assert_uint_eq(meta_digest(g.m), meta_digest(other.m));
    rig_fini(&other);
    rig_fini(&g);
}

TEST(meta_life_a_batch_holds_each_row_once)
{
    rig_init(&g, NULL);
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        make_file(&g, META_ROOT, name);
    }
    struct meta_open_batch open = meta_batch_now(g.m);
    ck_assert_uint_eq(open.op_count, 100);
    rig_close(&g);
    const struct meta_payload *p = g.log[g.log_count - 1];
    struct redo_reader r;
    ck_assert_int_eq(redo_reader_init(&r, (struct text){(const char *)p->bytes, p->n}), 0);
    ck_assert_uint_eq(r.header.row_count, 100 + 100 + 1 + 1); /* inodes, names, the root, one slot */
    ck_assert(open.number == p->batch && p->op_count == 100);
    ck_assert_uint_lt(p->n, 100 * 100);
    ck_assert_uint_ge(open.bytes + 2000, p->n);
    ck_assert_ptr_null(meta_batch_close(g.m)); /* nothing in it */
    ck_assert_uint_eq(meta_batch_now(g.m).op_count, 0);
    rig_fini(&g);
}

TEST(meta_life_requests_of_other_kinds_are_refused)
{
    struct meta_request q;
    meta_request_init(&q);
    ck_assert_int_eq(meta_request_decode(&q, MSG_ping, "", 0), -CV_UNKNOWN_MESSAGE);
    ck_assert_int_eq(meta_request_decode(&q, 0x7777, "", 0), -CV_UNKNOWN_MESSAGE);
    ck_assert_int_eq(meta_request_decode(&q, MSG_lookup, "abc", 3), -CV_BAD_MESSAGE);
    struct msg_lookup msg = {.head = {.groups = TEXT("abc")}, .parent = 1, .name = TEXT("x")};
    struct buf b = {0};
    ck_assert_int_eq(msg_lookup_encode(&msg, &b), 0);
    ck_assert_int_eq(meta_request_decode(&q, MSG_lookup, b.p, b.n),
                     -CV_BAD_MESSAGE); /* groups come in fours of bytes */
    buf_fini(&b);
    meta_request_fini(&q);
    /* Nothing works before there is a root. */
    struct store store = {0};
    struct rig r = {.base = store_base(&store)};
    ck_assert_int_eq(meta_new(NULL, &r.base, &r.m), 0);
    meta_lead(r.m, 1);
    ck_assert_int_eq(SEND(&r, session_open, .slots = 1), -CV_NOT_FORMATTED);
    ck_assert_int_eq(SEND(&r, getattr, .inode = 1), -CV_NOT_FORMATTED);
    ck_assert_int_eq(rig_inner(&r, META_OP_format, 3), 0);
    ck_assert_int_eq(rig_inner(&r, META_OP_format, 3), -EEXIST);
    rig_fini(&r);
}
