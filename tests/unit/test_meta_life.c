/* SPDX-License-Identifier: Apache-2.0 */
/* The life of mutations: preparing, ids, commit and undo, following, what answers depend on. */
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
    rig_purge_all(&g);
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
