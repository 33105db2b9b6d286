/* SPDX-License-Identifier: Apache-2.0 */
/* Names of under file systems: what is not listed yet, taking names over, what happens to those that change or vanish. */
#include "tests/unit/meta_rig.h"

#include <fcntl.h>

#define HOUR 3600000000000ull

static struct rig g;
static uint32_t mount;

static uint64_t start(uint32_t flags)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(SEND(&g, mount_add, .parent = META_ROOT, .name = TEXT("m"), .path = TEXT("/m"),
                          .uri = TEXT("s3://b"), .mode = MOUNT_CACHE, .flags = flags),
                     0);
    mount = g.q.answer.mount_add.mount;
    uint64_t inode = g.q.answer.mount_add.attr.inode;
    rig_commit(&g);
    return inode;
}

static struct meta_import last;

static int import(uint64_t dir, const struct meta_import_name *names, uint32_t count, bool complete)
{
    last = (struct meta_import){.directory = dir, .names = names, .count = count, .complete = complete};
    meta_request_reset(&g.q);
    meta_request_import(&g.q, &last);
    return rig_run(&g, &g.q);
}

static struct meta_import_name file(const char *name, uint64_t size, const char *etag)
{
    return (struct meta_import_name){
        .name = text_of(name), .size = size, .mtime_ns = 1000 + size, .etag = text_of(etag)};
}

static struct meta_import_name dir(const char *name)
{
    return (struct meta_import_name){.name = text_of(name), .directory = true};
}

static int import_one(uint64_t d, struct meta_import_name n)
{
    return import(d, &n, 1, false);
}

static uint64_t inode_of(uint64_t parent, const char *name)
{
    ck_assert_int_eq(look(&g, parent, name), 0);
    return g.q.answer.lookup.attr.inode;
}

static bool in_list(void *arg, struct text name)
{
    for (const char **n = arg; *n; n++)
        if (text_equal(text_of(*n), name))
            return true;
    return false;
}

static uint32_t sweep(uint64_t d, const char **names)
{
    uint32_t removed = 0;
    last = (struct meta_import){.directory = d, .listed = in_list, .arg = names};
    do {
        meta_request_reset(&g.q);
        meta_request_sweep(&g.q, &last);
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
        removed += last.removed;
        memcpy(last.after, last.next, last.next_n);
        last.after_n = last.next_n;
    } while (!last.end);
    return removed;
}

/* The same request again, from the start, after the under file system was asked. */
static int again(void)
{
    return rig_run(&g, &g.q);
}

static void absent(void)
{
    meta_unlisted_absent(&g.q);
}

static void expect_unlisted(uint64_t directory, const char *key, const char *name)
{
    ck_assert_uint_eq(g.q.unlisted.directory, directory);
    ck_assert_uint_eq(g.q.unlisted.mount, mount);
    ck_assert(text_equal(g.q.unlisted.key, text_of(key)));
    ck_assert(text_equal(g.q.unlisted.name, text_of(name)));
}

TEST(meta_import_names_that_are_not_listed_are_asked_for)
{
    uint64_t top = start(0);
    ck_assert_int_eq(look(&g, top, "a"), -CV_NOT_LISTED);
    expect_unlisted(top, "", "a");
    absent();
    ck_assert_int_eq(again(), -ENOENT);
    ck_assert_int_eq(look(&g, top, "a"), -CV_NOT_LISTED); /* it was for that request only */
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("m/d/x")), -CV_NOT_LISTED);
    expect_unlisted(top, "", "d");
    ck_assert_int_eq(import_one(top, dir("d")), 0);
    ck_assert(last.created == 1 && g.q.changed);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("m/d/x")), -CV_NOT_LISTED);
    uint64_t d = inode_of(top, "d");
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("m/d/x")), -CV_NOT_LISTED);
    expect_unlisted(d, "d/", "x");
    ck_assert_int_eq(import_one(d, file("x", 5, "e")), 0);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("m/d/x")), 0);
    ck_assert_uint_eq(g.q.answer.walk.attr.size, 5);
    ck_assert_int_eq(SEND(&g, readdir, .inode = d), -CV_NOT_LISTED);
    expect_unlisted(d, "d/", "");
    absent();
    ck_assert_int_eq(again(), 0); /* what there is */
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 1);
    ck_assert_int_eq(import(d, NULL, 0, true), 0);
    ck_assert_int_eq(SEND(&g, readdir, .inode = d), 0);
    ck_assert_int_eq(look(&g, d, "y"), -ENOENT);
    ck_assert_int_eq(SEND(&g, getattr, .inode = d), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.flags & (INODE_LISTING_PARTIAL | INODE_LISTING_UNKNOWN), 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = top), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.flags & INODE_LISTING_PARTIAL, INODE_LISTING_PARTIAL);
    rig_fini(&g);
}

TEST(meta_import_takes_over_sizes_times_and_identities)
{
    uint64_t top = start(0);
    const struct meta_import_name names[] = {
        file("f", 1ull << 33, "\"tag\""),
        dir("d"),
        {.name = TEXT("own"), .mode = 0640, .uid = 7, .gid = 8, .size = 3, .mtime_ns = 5, .key = TEXT("%6fwn")}};
    ck_assert_int_eq(import(top, names, 3, true), 0);
    rig_commit(&g);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(look(&g, top, "f"), 0);
    const struct rec_attr *a = &g.q.answer.lookup.attr;
    ck_assert(a->mode == (S_IFREG | 0644) && a->size == 1ull << 33 && a->mtime_ns == 1000 + (1ull << 33));
    uint64_t f = a->inode;
    ck_assert_int_eq(look(&g, top, "own"), 0);
    ck_assert(a->mode == (S_IFREG | 0640) && a->uid == 7 && a->gid == 8);
    uint64_t own = a->inode;
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDONLY), 0);
    const struct rec_layout *l = &g.q.answer.open.layout;
    ck_assert(l->base_version == 1 && l->base_bytes == 1ull << 33 && l->mount == mount && l->block_shift == 26);
    ck_assert_uint_eq(l->flags & LAYOUT_READ_ONLY, LAYOUT_READ_ONLY);
    ck_assert_int_eq(SEND(&g, origin, .inode = f), 0);
    const struct msg_origin_answer *o = &g.q.answer.origin;
    ck_assert(o->mount == mount && text_equal(o->key, TEXT("f")) && text_equal(o->etag, TEXT("\"tag\"")));
    ck_assert(o->version == 1 && o->base_bytes == 1ull << 33 && o->size == 1ull << 33);
    ck_assert_int_eq(SEND(&g, origin, .inode = own), 0);
    ck_assert(text_equal(o->key, TEXT("%6fwn")) && o->etag.n == 0 && o->mtime_ns == 5);
    ck_assert_int_eq(SEND(&g, origin, .inode = top), 0); /* a directory: what its names' keys begin with */
    ck_assert(o->mount == mount && o->key.n == 0);
    ck_assert_int_eq(SEND(&g, origin, .inode = META_ROOT), -ENOENT);
    ck_assert_int_eq(SEND(&g, origin, .inode = 99999), -ENOENT);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 5 && s.state.directories == 3 && s.state.bytes == (1ull << 33) + 3);
    rig_fini(&g);
}

TEST(meta_import_again_changes_nothing_and_skips_what_is_no_name)
{
    uint64_t top = start(0);
    const struct meta_import_name names[] = {file("f", 10, "a"), dir("d"), file("g", 1, "")};
    ck_assert_int_eq(import(top, names, 3, true), 0);
    uint64_t f = inode_of(top, "f");
    ck_assert_int_eq(import(top, names, 3, true), 0);
    ck_assert(!g.q.changed && last.created == 0 && last.replaced == 0 && last.kept == 0);
    ck_assert_uint_eq(inode_of(top, "f"), f);
    const struct meta_import_name bad[] = {file("a/b", 1, ""), file("", 1, ""), file("..", 1, ""), file("n", 1, ""),
                                           file("n", 1, "")};
    ck_assert_int_eq(import(top, bad, 5, false), 0);
    ck_assert(last.skipped == 3 && last.created == 1);
    ck_assert_int_eq(SEND(&g, getattr, .inode = top), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.nlink, 3);
    ck_assert_int_eq(SEND(&g, readdir, .inode = top), 0);
    ck_assert_uint_eq(g.q.answer.readdir.entries.count, 4);
    ck_assert_int_eq(import(META_ROOT, names, 1, false), -ESTALE);
    ck_assert_int_eq(import(f, names, 1, false), -ENOTDIR);
    rig_fini(&g);
}

TEST(meta_import_of_another_object_gives_the_name_a_new_inode)
{
    uint64_t top = start(0);
    ck_assert_int_eq(import_one(top, file("f", 10, "a")), 0);
    ck_assert_int_eq(import_one(top, file("g", 10, "a")), 0);
    uint64_t f = inode_of(top, "f"), other = inode_of(top, "g");
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDONLY), 0);
    uint64_t h = g.q.answer.open.handle;
    rig_commit(&g);
    ck_assert_int_eq(import_one(top, file("f", 20, "b")), 0);
    ck_assert_uint_eq(last.replaced, 1);
    ck_assert_int_eq(import_one(top, file("g", 30, "")), 0); /* no etag any more: by time and length */
    ck_assert_uint_eq(last.replaced, 1);
    ck_assert_uint_ne(inode_of(top, "f"), f);
    ck_assert_uint_eq(g.q.answer.lookup.attr.size, 20);
    ck_assert_int_eq(SEND(&g, getattr, .inode = f), 0); /* the old one as long as it is open */
    ck_assert(g.q.answer.getattr.attr.nlink == 0 && g.q.answer.getattr.attr.size == 10);
    ck_assert_int_eq(SEND(&g, getattr, .inode = other), -ESTALE);
    /* a file becomes a directory, and back */
    ck_assert_int_eq(import_one(top, dir("f")), 0);
    uint64_t d = inode_of(top, "f");
    ck_assert_int_eq(import_one(d, file("below", 1, "x")), 0);
    ck_assert_int_eq(import_one(top, file("f", 3, "c")), 0);
    ck_assert_uint_eq(last.replaced, 1);
    ck_assert_int_eq(SEND(&g, getattr, .inode = top), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.nlink, 2);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = h), 0);
    meta_allow_purge(g.m);
    while (meta_next_inner(g.m, &g.q))
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
    rig_commit(&g);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 4 && s.state.orphans == 0 && s.state.directories == 2 && s.state.bytes == 33);
    rig_fini(&g);
}

TEST(meta_import_leaves_what_was_changed_here)
{
    uint64_t top = start(MOUNT_WRITABLE);
    const struct meta_import_name names[] = {file("f", 10, "a"), file("g", 10, "a"), dir("d")};
    ck_assert_int_eq(import(top, names, 3, true), 0);
    uint64_t f = inode_of(top, "f"), d = inode_of(top, "d");
    ck_assert_int_eq(import(d, names, 1, true), 0);
    uint64_t own = make_file(&g, top, "own");
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 3), 0);
    ck_assert_int_eq(import_one(top, file("f", 20, "b")), 0);
    ck_assert(last.kept == 1 && !g.q.changed);
    ck_assert_int_eq(import_one(top, file("own", 20, "b")), 0);
    ck_assert(last.kept == 1 && inode_of(top, "own") == own);
    ck_assert_int_eq(import_one(top, file("d", 20, "b")), 0); /* it has names, and this mount was written to */
    ck_assert(last.kept == 1 && inode_of(top, "d") == d);
    const char *nothing[] = {NULL};
    ck_assert_uint_eq(sweep(top, nothing), 1); /* g */
    ck_assert_int_eq(look(&g, top, "g"), -ENOENT);
    inode_of(top, "f");
    rig_fini(&g);
}

TEST(meta_import_sweep_removes_what_the_listing_did_not_have)
{
    uint64_t top = start(0);
    static char text[2600][8];
    static struct meta_import_name names[2600];
    for (uint32_t i = 0; i < 2600; i++) {
        snprintf(text[i], sizeof(text[i]), "n%04u", i);
        names[i] = i % 100 == 7 ? dir(text[i]) : file(text[i], 1, "t");
    }
    for (uint32_t i = 0; i < 2600; i += 650)
        ck_assert_int_eq(import(top, names + i, 650, false), 0);
    ck_assert_int_eq(import(inode_of(top, "n0107"), names, 10, true), 0);
    ck_assert_int_eq(import(top, NULL, 0, true), 0);
    rig_commit(&g);
    rig_flush(&g);
    tree_evict(&g.m->tree, 10000);
    g.evict_chance = 3;
    const char *left[] = {"n0003", "n1500", "n2599", "n0207", NULL};
    ck_assert_uint_eq(sweep(top, left), 2596);
    char after[8] = "";
    uint32_t listed = 0;
    do {
        ck_assert_int_eq(SEND(&g, readdir, .inode = top, .after = text_of(after)), 0);
        listed += g.q.answer.readdir.entries.count;
        rec_for_each (dir_entry, e, &g.q.answer.readdir.entries)
            snprintf(after, sizeof(after), "%.*s", TEXT_ARG(e.name));
    } while (!g.q.answer.readdir.end);
    ck_assert_uint_eq(listed, 4);
    ck_assert_int_eq(SEND(&g, getattr, .inode = top), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.nlink, 3);
    meta_allow_purge(g.m);
    while (meta_next_inner(g.m, &g.q))
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
    rig_commit(&g);
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 6 && s.state.orphans == 0 && s.state.directories == 3);
    rig_fini(&g);
}

TEST(meta_import_changes_of_unseen_names_are_asked_for_first)
{
    uint64_t top = start(MOUNT_WRITABLE);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = top, .name = TEXT("n")), -CV_NOT_LISTED);
    expect_unlisted(top, "", ""); /* all names: what is removed here might come back with one */
    absent();
    ck_assert_int_eq(again(), 0);
    ck_assert_int_eq(again(), 0); /* a repetition */
    ck_assert(g.q.replayed);
    uint64_t n = inode_of(top, "n");
    ck_assert_int_eq(look(&g, n, "x"), -ENOENT); /* made here: all its names are */
    ck_assert_int_eq(SEND(&g, unlink, .parent = top, .name = TEXT("u")), -CV_NOT_LISTED);
    ck_assert_int_eq(import_one(top, file("u", 1, "e")), 0);
    ck_assert_int_eq(SEND(&g, unlink, .parent = top, .name = TEXT("u")), 0);
    ck_assert_int_eq(SEND(&g, create, .parent = top, .name = TEXT("c"), .flags = O_RDWR), -CV_NOT_LISTED);
    absent();
    ck_assert_int_eq(again(), 0);
    ck_assert_int_eq(import_one(top, file("s", 1, "e")), 0);
    ck_assert_int_eq(SEND(&g, rename, .parent = top, .name = TEXT("s"), .new_parent = n, .new_name = TEXT("t")), 0);
    ck_assert_int_eq(SEND(&g, rename, .parent = top, .name = TEXT("c"), .new_parent = top, .new_name = TEXT("t")),
                     -CV_NOT_LISTED);
    expect_unlisted(top, "", "");
    absent();
    ck_assert_int_eq(again(), 0);
    /* removing a directory needs to know that it is empty */
    ck_assert_int_eq(import_one(top, dir("d")), 0);
    uint64_t d = inode_of(top, "d");
    ck_assert_int_eq(SEND(&g, rmdir, .parent = top, .name = TEXT("d")), -CV_NOT_LISTED);
    expect_unlisted(d, "d/", "");
    ck_assert_int_eq(import_one(d, file("x", 1, "e")), 0);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = top, .name = TEXT("d")), -ENOTEMPTY);
    const char *nothing[] = {NULL};
    ck_assert_uint_eq(sweep(d, nothing), 1);
    ck_assert_int_eq(import(d, NULL, 0, true), 0);
    ck_assert_int_eq(SEND(&g, rename, .parent = top, .name = TEXT("n"), .new_parent = top, .new_name = TEXT("d")), 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = d), -ESTALE);
    rig_fini(&g);
}

TEST(meta_import_origin_of_what_was_moved_here_stays_where_it_was)
{
    uint64_t top = start(MOUNT_WRITABLE);
    const struct meta_import_name names[] = {dir("a"), dir("b")};
    ck_assert_int_eq(import(top, names, 2, true), 0);
    uint64_t a = inode_of(top, "a"), b = inode_of(top, "b");
    ck_assert_int_eq(import_one(a, dir("sub")), 0);
    uint64_t sub = inode_of(a, "sub");
    ck_assert_int_eq(import(a, NULL, 0, true), 0);
    ck_assert_int_eq(import_one(sub, file("f", 4, "e")), 0);
    ck_assert_int_eq(import(sub, NULL, 0, true), 0);
    ck_assert_int_eq(import(b, NULL, 0, true), 0);
    uint64_t f = inode_of(sub, "f");
    rig_commit(&g);
    rig_flush(&g);
    g.evict_chance = 2;
    const struct msg_origin_answer *o = &g.q.answer.origin;
    ck_assert_int_eq(SEND(&g, origin, .inode = f), 0);
    ck_assert(text_equal(o->key, TEXT("a/sub/f")));
    /* the same directory: its name there stays */
    ck_assert_int_eq(SEND(&g, rename, .parent = sub, .name = TEXT("f"), .new_parent = sub, .new_name = TEXT("g")), 0);
    ck_assert_int_eq(SEND(&g, origin, .inode = f), 0);
    ck_assert(text_equal(o->key, TEXT("a/sub/f")));
    ck_assert_int_eq(SEND(&g, rename, .parent = a, .name = TEXT("sub"), .new_parent = b, .new_name = TEXT("z")), 0);
    ck_assert_int_eq(SEND(&g, origin, .inode = f), 0);
    ck_assert(text_equal(o->key, TEXT("a/sub/f")));
    ck_assert_int_eq(SEND(&g, rename, .parent = sub, .name = TEXT("g"), .new_parent = top, .new_name = TEXT("top")), 0);
    ck_assert_int_eq(SEND(&g, rename, .parent = top, .name = TEXT("a"), .new_parent = b, .new_name = TEXT("a")), 0);
    ck_assert_int_eq(SEND(&g, origin, .inode = f), 0);
    ck_assert(text_equal(o->key, TEXT("a/sub/f")));
    ck_assert_int_eq(SEND(&g, create, .parent = top, .name = TEXT("new"), .flags = O_RDWR), 0);
    ck_assert_int_eq(SEND(&g, origin, .inode = g.q.answer.create.attr.inode), -ENODATA);
    rig_fini(&g);
}

TEST(meta_import_adds_to_a_mirrored_mount_until_a_directory_is_known_and_never_takes)
{
    rig_init(&g, NULL);
    ck_assert_int_eq(SEND(&g, mount_add, .parent = META_ROOT, .name = TEXT("m"), .path = TEXT("/m"),
                          .uri = TEXT("s3://b"), .mode = MOUNT_FS),
                     0);
    mount = g.q.answer.mount_add.mount;
    uint64_t top = g.q.answer.mount_add.attr.inode;
    const struct meta_import_name names[] = {file("f", 10, "a"), file("g", 10, "a"), dir("d")};
    ck_assert_int_eq(look(&g, top, "f"), -CV_NOT_LISTED);
    expect_unlisted(top, "", ""); /* all of it, not one name */
    ck_assert_int_eq(import(top, names, 2, false), 0);
    ck_assert_int_eq(look(&g, top, "x"), -CV_NOT_LISTED);
    ck_assert_int_eq(import(top, names, 3, true), 0);
    ck_assert_uint_eq(last.created, 1);
    ck_assert_int_eq(SEND(&g, unlink, .parent = top, .name = TEXT("f")), 0);
    ck_assert_int_eq(import(top, names, 3, true), 0);
    ck_assert(!g.q.changed && last.kept == 3);
    ck_assert_int_eq(look(&g, top, "f"), -ENOENT);
    const char *nothing[] = {NULL};
    ck_assert_uint_eq(sweep(top, nothing), 0);
    inode_of(top, "g");
    rig_fini(&g);
}

/* --- a store that changes all the time ---------------------------------------------------------------------------------------- */

#define STORE 40

struct object {
    bool there, directory;
    uint64_t size;
    char name[8], etag[8];
};

struct bucket {
    struct object objects[STORE];
    uint64_t changes;
};

static void bucket_change(struct bucket *b)
{
    struct object *o = &b->objects[prng_below(&g.prng, STORE)];
    o->there = prng_below(&g.prng, 3) != 0;
    o->directory = prng_below(&g.prng, 8) == 0;
    o->size = ++b->changes;
    snprintf(o->etag, sizeof(o->etag), "e%u", (unsigned)b->changes);
}

static struct meta_import_name name_of(const struct object *o)
{
    struct meta_import_name n = o->directory ? dir(o->name) : file(o->name, o->size, o->etag);
    return n;
}

static bool in_bucket(void *arg, struct text name)
{
    const struct bucket *b = arg;
    for (int i = 0; i < STORE; i++)
        if (b->objects[i].there && text_equal(text_of(b->objects[i].name), name))
            return true;
    return false;
}

static void list_bucket(struct bucket *b, uint64_t top)
{
    struct meta_import_name page[7];
    uint32_t n = 0;
    for (int i = 0; i < STORE; i++) {
        if (b->objects[i].there)
            page[n++] = name_of(&b->objects[i]);
        if (n == array_size(page) || i == STORE - 1) {
            ck_assert_int_eq(import(top, page, n, false), 0);
            n = 0;
        }
    }
    last = (struct meta_import){.directory = top, .listed = in_bucket, .arg = b};
    do {
        meta_request_reset(&g.q);
        meta_request_sweep(&g.q, &last);
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
        memcpy(last.after, last.next, last.next_n);
        last.after_n = last.next_n;
    } while (!last.end);
    ck_assert_int_eq(import(top, NULL, 0, true), 0);
}

static void look_in_bucket(struct bucket *b, uint64_t top)
{
    const struct object *o = &b->objects[prng_below(&g.prng, STORE)];
    int r = look(&g, top, o->name);
    if (r != -CV_NOT_LISTED)
        return; /* known, perhaps of old */
    if (o->there) {
        ck_assert_int_eq(import_one(top, name_of(o)), 0);
        ck_assert_int_eq(look(&g, top, o->name), 0);
        ck_assert_uint_eq(g.q.answer.lookup.attr.size, o->directory ? 0 : o->size);
    } else {
        absent();
        ck_assert_int_eq(again(), -ENOENT);
    }
}

static void compare_bucket(struct bucket *b, uint64_t top)
{
    uint32_t here = 0, there = 0, directories = 2;
    char after[8] = "";
    do {
        ck_assert_int_eq(SEND(&g, readdir, .inode = top, .after = text_of(after), .flags = READDIR_ATTR), 0);
        rec_for_each (dir_entry, e, &g.q.answer.readdir.entries) {
            const struct object *o = &b->objects[atoi(e.name.p + 1)];
            here++;
            ck_assert(o->there && text_equal(e.name, text_of(o->name)) && S_ISDIR(e.attr.mode) == o->directory &&
                      e.attr.size == (o->directory ? 0 : o->size));
            snprintf(after, sizeof(after), "%.*s", TEXT_ARG(e.name));
        }
    } while (!g.q.answer.readdir.end);
    for (int i = 0; i < STORE; i++) {
        there += b->objects[i].there;
        directories += b->objects[i].there && b->objects[i].directory;
    }
    ck_assert_uint_eq(here, there);
    ck_assert_int_eq(SEND(&g, getattr, .inode = top), 0);
    ck_assert_uint_eq(g.q.answer.getattr.attr.nlink, directories);
}

static void play(uint64_t seed)
{
    struct bucket b = {0};
    uint64_t top = start(0);
    g.prng.state = seed;
    g.evict_chance = 4;
    g.store.cold = seed & 1;
    for (int i = 0; i < STORE; i++)
        snprintf(b.objects[i].name, sizeof(b.objects[i].name), "n%02u", (unsigned)i % 100);
    for (int step = 0; step < 600; step++) {
        uint32_t x = prng_below(&g.prng, 100);
        if (x < 30)
            bucket_change(&b);
        else if (x < 70)
            look_in_bucket(&b, top);
        else if (x < 75)
            list_bucket(&b, top), compare_bucket(&b, top);
        else if (x < 85)
            rig_commit(&g);
        else if (x < 92)
            rig_flush(&g);
        else if (x < 96 && g.m->open.op_count)
            meta_batch_undo(g.m, g.m->open.number);
        else if (x < 98)
            rig_commit(&g), rig_crash(&g, g.log_count);
    }
    list_bucket(&b, top);
    compare_bucket(&b, top);
    meta_allow_purge(g.m);
    while (meta_next_inner(g.m, &g.q))
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
    rig_commit(&g);
    uint64_t inodes = 2, bytes = 0;
    for (int i = 0; i < STORE; i++) {
        inodes += b.objects[i].there;
        bytes += b.objects[i].there && !b.objects[i].directory ? b.objects[i].size : 0;
    }
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert_uint_eq(s.state.inodes, inodes);
    ck_assert_uint_eq(s.state.bytes, bytes);
    ck_assert_uint_eq(s.state.orphans, 0);
    rig_fini(&g);
}

TEST_TIMEOUT(meta_import_ends_with_what_the_store_has_whatever_happens_on_the_way, 60)
{
    for (uint64_t seed = 1; seed <= 30; seed++)
        play(seed);
}

/* --- what a worker holds ------------------------------------------------------------------------------------------------------ */

static uint32_t place(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max, uint64_t *ret)
{
    ret[0] = 901;
    return 1;
}

static uint8_t verdict(uint64_t worker, uint64_t inode, uint32_t block, uint64_t version, uint64_t epoch)
{
    struct buf b cleanup(buf_fini) = {0};
    const struct rec_held_block h = {inode, block, version, epoch};
    ck_assert_int_eq(rec_held_block_append(&b, &h), 0);
    ck_assert_int_eq(SEND(&g, blocks_check, .worker = worker, .blocks = wire_list_of(&b, 1)), 0);
    ck_assert_uint_eq(g.q.answer.blocks_check.verdicts.n, 1);
    return (uint8_t)g.q.answer.blocks_check.verdicts.p[0];
}

TEST(meta_import_blocks_are_dropped_only_when_they_are_nobodys)
{
    uint64_t top = start(MOUNT_WRITABLE);
    meta_on_place(g.m, place, NULL);
    ck_assert_int_eq(import_one(top, file("f", 100u << 20, "e")), 0);
    ck_assert_int_eq(import_one(top, file("gone", 1, "e")), 0);
    uint64_t f = inode_of(top, "f"), gone = inode_of(top, "gone");
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDWR), 0);
    uint64_t h = g.q.answer.open.handle;
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 1, .count = 1), 0);
    rec_for_each (extent, e, &g.q.answer.write_grant.layout.extents)
        ck_assert(e.version == 2 && e.valid_length == 36u << 20); /* what the base has of it */
    ck_assert_int_eq(SEND(&g, unlink, .parent = top, .name = TEXT("gone")), 0);
    ck_assert_uint_eq(verdict(901, f, 5, 9, 1), BLOCK_KEEP); /* young */
    ck_assert_uint_eq(verdict(901, gone, 0, 1, 0), BLOCK_DROP);
    ck_assert_uint_eq(verdict(901, 1ull << 40, 0, 1, 0), BLOCK_KEEP); /* of a future we do not know */
    g.wall_ns += 2 * HOUR;
    make_dir(&g, META_ROOT, "later");
    ck_assert_uint_eq(verdict(901, f, 0, 1, 0), BLOCK_KEEP);
    ck_assert_uint_eq(verdict(901, f, 1, 1, 0), BLOCK_KEEP); /* what the written block builds on */
    ck_assert_uint_eq(verdict(901, f, 2, 1, 0), BLOCK_DROP); /* behind the base */
    ck_assert_uint_eq(verdict(901, f, 0, 5, 0), BLOCK_DROP); /* another version */
    ck_assert_uint_eq(verdict(901, f, 1, 2, 2), BLOCK_KEEP);
    ck_assert_uint_eq(verdict(902, f, 1, 2, 3), BLOCK_KEEP); /* newer than we know */
    ck_assert_uint_eq(verdict(902, f, 1, 2, 1), BLOCK_DROP); /* older, and not among the replicas */
    ck_assert_uint_eq(verdict(901, f, 1, 2, 1), BLOCK_KEEP);
    ck_assert_uint_eq(verdict(901, f, 5, 9, 9), BLOCK_DROP); /* no such block */
    rig_fini(&g);
}

TEST(meta_import_blocks_of_grants_that_were_given_up_are_told_at_once)
{
    uint64_t top = start(MOUNT_WRITABLE);
    meta_on_place(g.m, place, NULL);
    ck_assert_int_eq(import_one(top, file("f", 100u << 20, "e")), 0);
    uint64_t f = inode_of(top, "f");
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDWR), 0);
    uint64_t h = g.q.answer.open.handle;
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 1, .count = 1), 0);
    rig_commit(&g);
    ck_assert_uint_eq(verdict(901, f, 1, 7, 7), BLOCK_KEEP); /* newer than we know: it may be on its way */
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    rig_commit(&g);
    ck_assert_uint_eq(verdict(901, f, 1, 7, 7), BLOCK_GIVEN_UP); /* no: it never comes */
    ck_assert_uint_eq(verdict(901, f, 1, 2, 2), BLOCK_KEEP);     /* what we know */
    ck_assert_uint_eq(verdict(901, f, 1, INCARNATION_STEP + 9, INCARNATION_STEP + 9), BLOCK_KEEP); /* of our time */
    ck_assert_uint_eq(verdict(901, f, 0, 7, 7), BLOCK_DROP); /* here nothing was written: the base has it */
    ck_assert_uint_eq(verdict(901, f, 0, 7, 0), BLOCK_DROP); /* fetched after an upload we do not know of */
    ck_assert_uint_eq(verdict(901, f, 0, 1, 0), BLOCK_KEEP);
    ck_assert_uint_eq(verdict(901, f, 0, 2, 2), BLOCK_KEEP);                    /* young, and of a time we know */
    ck_assert_uint_eq(verdict(901, INCARNATION_STEP / 2, 0, 7, 7), BLOCK_DROP); /* a file that was given up */
    rig_fini(&g);
}

static bool all_checked;

static bool is_checked(void *arg, uint64_t worker)
{
    ck_assert_uint_eq(worker, 901);
    return all_checked;
}

TEST(meta_import_what_was_given_up_is_known_until_workers_have_asked)
{
    uint64_t top = start(MOUNT_WRITABLE);
    meta_on_place(g.m, place, NULL);
    meta_on_checked(g.m, is_checked);
    ck_assert_int_eq(import_one(top, file("f", 100u << 20, "e")), 0);
    uint64_t f = inode_of(top, "f");
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDWR), 0);
    uint64_t h = g.q.answer.open.handle;
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 1, .count = 1), 0);
    rig_commit(&g); /* nobody has to ask in the first incarnation */
    ck_assert_int_eq(rig_inner(&g, META_OP_incarnation, 2), 0);
    rig_commit(&g);

    /* A cut in our time raises the epoch of the row; what a lost grant wrote is still told by its version. */
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .handle = h, .valid = SETATTR_SIZE, .size = 70u << 20), 0);
    rig_commit(&g);
    ck_assert_uint_eq(verdict(901, f, 1, 7, 7), BLOCK_GIVEN_UP);
    ck_assert_uint_eq(verdict(901, f, 1, 2, 2), BLOCK_KEEP);

    /* A grant would raise that, too: it waits, one of a block that nobody has does not. */
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 1, .count = 1), -CV_NO_SPACE);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 0, .count = 1), 0);
    all_checked = true;
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 1, .count = 1), 0);
    rec_for_each (extent, e, &g.q.answer.write_grant.layout.extents)
        ck_assert_uint_gt(e.version, INCARNATION_STEP);
    rig_commit(&g);
    all_checked = false; /* of our time now: nothing has to be asked */
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .handle = h, .valid = SETATTR_SIZE, .size = 69u << 20), 0);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = h, .first_block = 1, .count = 1), 0);
    rig_fini(&g);
}
