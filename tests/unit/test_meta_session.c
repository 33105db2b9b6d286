/* SPDX-License-Identifier: Apache-2.0 */
/* Slots and sessions: at most once, over a leader's end and a process's. */
#include "tests/unit/meta_rig.h"

#include <fcntl.h>

#include "wire/meta_flags.h"

static struct rig g;

/* --- slots --------------------------------------------------------------------------------------------------------------------- */

/* Send with this slot and sequence. */
#define ONCE(slot_, sequence_, name_, ...)                                                                             \
    SEND(&g, name_, .head = {.session = g.head.session, .slot = (slot_), .sequence = (sequence_)}, __VA_ARGS__)

TEST(meta_session_a_repetition_is_answered_not_executed)
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

TEST(meta_session_repetitions_of_every_mutation_bring_the_same_inodes)
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

TEST(meta_session_a_failure_is_remembered_by_its_leader)
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

TEST(meta_session_a_failure_is_forgotten_with_the_batch_it_was_seen_in)
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

TEST(meta_session_slots_outlive_the_process_and_go_back_with_their_batch)
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

TEST(meta_session_sessions_begin_and_end_by_committed_records)
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

TEST(meta_session_sessions_can_be_listed)
{
    int n = 0;
    rig_init(&g, NULL);
    rig_open_session(&g, 0);
    rig_open_session(&g, 0);
    meta_sessions(g.m, count_session, &n);
    ck_assert_int_eq(n, 3);
    rig_fini(&g);
}
