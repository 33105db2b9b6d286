/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts and workers: rows, what a mount refuses, and how one goes away with everything below it. */
#include "tests/unit/meta_rig.h"

#include <fcntl.h>

static struct rig g;

static int mount_at(uint64_t parent, const char *name, uint8_t mode, uint32_t flags)
{
    struct buf params cleanup(buf_fini) = {0};
    const struct rec_mount_param p = {TEXT("endpoint"), TEXT("http://store")}, q = {TEXT("secret_key"), TEXT("s")};
    ck_assert_int_eq(rec_mount_param_append(&params, &p), 0);
    ck_assert_int_eq(rec_mount_param_append(&params, &q), 0);
    return SEND(&g, mount_add, .parent = parent, .name = text_of(name), .path = TEXT("/m"),
                .uri = text_of(mode == MOUNT_SCRATCH ? "" : "s3://bucket/prefix"), .mode = mode, .flags = flags,
                .params = wire_list_of(&params, 2));
}

static uint64_t mounted(const char *name, uint8_t mode, uint32_t flags, uint32_t *mount)
{
    ck_assert_int_eq(mount_at(META_ROOT, name, mode, flags), 0);
    *mount = g.q.answer.mount_add.mount;
    return g.q.answer.mount_add.attr.inode;
}

/* As if it had been listed. */
static void set_flags(uint64_t inode, uint32_t off)
{
    struct meta_inode i;
    uint8_t key[META_KEY_MAX], value[META_INODE_MAX];
    rig_commit(&g);
    rig_flush(&g);
    struct buf row cleanup(buf_fini) = {0};
    ck_assert_int_eq(store_get(&g.store, META_FAMILY_inode, key_of(key, meta_key_inode(inode, key)), false, &row), 0);
    ck_assert_int_eq(meta_inode_decode(inode, key_of(row.p, (uint32_t)row.n), &i), 0);
    i.flags &= ~off;
    store_put(&g.store, META_TABLE_inode, key_of(key, 8), key_of(value, meta_inode_encode(&i, value)));
    rig_crash(&g, g.log_count);
}

struct found {
    uint32_t mounts, workers;
    struct meta_mount_row mount;
};

static bool note_mount(void *arg, const struct meta_mount_row *row)
{
    struct found *f = arg;
    f->mounts++;
    f->mount = *row;
    return true;
}

static bool note_worker(void *arg, const struct meta_worker_row *row)
{
    ((struct found *)arg)->workers++;
    return true;
}

static struct found find(void)
{
    struct found f = {0};
    meta_mounts(g.m, note_mount, &f);
    meta_workers(g.m, note_worker, &f);
    return f;
}

static void purge_all(void)
{
    meta_allow_purge(g.m);
    for (int i = 0; i < 10000 && meta_next_inner(g.m, &g.q); i++) {
        int r = rig_run(&g, &g.q);
        ck_assert(r == 0 || r == -EBUSY);
        if (i % 7 == 0)
            rig_commit(&g);
        meta_request_reset(&g.q);
    }
    rig_commit(&g);
}

TEST(meta_mount_row_stands_in_every_list_once_it_is_committed)
{
    uint32_t id;
    rig_init(&g, NULL);
    uint64_t before = meta_mounts_version(g.m);
    uint64_t dir = mounted("m", MOUNT_CACHE, MOUNT_WRITABLE, &id);
    ck_assert_uint_eq(g.q.answer.mount_add.attr.flags & INODE_LISTING_UNKNOWN, INODE_LISTING_UNKNOWN);
    ck_assert_int_eq(SEND(&g, mount_list, .head = {0}), 0);
    ck_assert(g.q.answer.mount_list.mounts.count == 1 && g.q.depends > 0);
    rec_for_each (mount, m, &g.q.answer.mount_list.mounts) {
        ck_assert(m.mount == id && m.inode == dir && m.params.count == 2 && text_equal(m.path, TEXT("/m")));
        rec_for_each (mount_param, p, &m.params)
            ck_assert(p.name.n == 8 || text_equal(p.value, TEXT("s")));
    }
    ck_assert_uint_eq(find().mounts, 0);
    rig_commit(&g);
    ck_assert_uint_gt(meta_mounts_version(g.m), before);
    ck_assert_uint_eq(find().mounts, 1);
    for (int i = 0; i < 2; i++) { /* from the log, then from the base */
        rig_flush(&g);
        rig_crash(&g, g.log_count);
        struct found f = find();
        ck_assert(f.mounts == 1 && f.mount.mount == id && f.mount.inode == dir && !f.mount.written);
        ck_assert(f.mount.mode == MOUNT_CACHE && f.mount.param_count == 2 && f.mount.created_ns > 0);
        ck_assert(text_equal(f.mount.uri, TEXT("s3://bucket/prefix")) && text_equal(f.mount.name, TEXT("m")));
    }
    uint32_t second;
    mounted("n", MOUNT_SCRATCH, 0, &second);
    ck_assert_uint_gt(second, id);
    uint64_t number = meta_batch_now(g.m).number;
    ck_assert_int_eq(SEND(&g, mount_list, .head = {0}), 0);
    ck_assert_uint_eq(g.q.answer.mount_list.mounts.count, 2);
    meta_batch_undo(g.m, number);
    ck_assert_int_eq(SEND(&g, mount_list, .head = {0}), 0);
    ck_assert_uint_eq(g.q.answer.mount_list.mounts.count, 1);
    rig_fini(&g);
}

TEST(meta_mount_point_that_is_made_belongs_to_whom_the_directory_does)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    ck_assert_int_eq(SEND(&g, setattr, .inode = d, .valid = SETATTR_UID | SETATTR_GID, .uid = 7, .gid = 8), 0);
    ck_assert_int_eq(mount_at(d, "m", MOUNT_SCRATCH, 0), 0);
    const struct rec_attr *attr = &g.q.answer.mount_add.attr;
    ck_assert(attr->uid == 7 && attr->gid == 8);
    ck_assert_int_eq(SEND(&g, getattr, .inode = attr->inode), 0);
    ck_assert(g.q.answer.getattr.attr.uid == 7 && g.q.answer.getattr.attr.gid == 8);
    rig_fini(&g);
}

TEST(meta_mount_refuses_what_cannot_be_a_mount_point)
{
    uint32_t id;
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d"), e = make_dir(&g, META_ROOT, "e");
    make_file(&g, d, "x");
    make_file(&g, META_ROOT, "f");
    ck_assert_int_eq(mount_at(META_ROOT, "d", MOUNT_FS, 0), -ENOTEMPTY);
    ck_assert_int_eq(mount_at(META_ROOT, "f", MOUNT_FS, 0), -EEXIST);
    ck_assert_int_eq(mount_at(META_ROOT, "", MOUNT_FS, 0), -ENOENT);
    ck_assert_int_eq(mount_at(META_ROOT, "a/b", MOUNT_FS, 0), -EINVAL);
    ck_assert_int_eq(mount_at(META_ROOT, "e", 9, 0), -EINVAL);
    ck_assert_int_eq(mount_at(META_ROOT, "e", MOUNT_FS, MOUNT_FORCE), -EINVAL);
    ck_assert_int_eq(SEND(&g, mount_add, .parent = META_ROOT, .name = TEXT("e"), .mode = MOUNT_CACHE), -EINVAL);
    ck_assert_int_eq(mount_at(META_ROOT, "e", MOUNT_FS, MOUNT_CHECK), 0);
    ck_assert(!g.q.changed);
    g.head.uid = 5;
    ck_assert_int_eq(mount_at(META_ROOT, "e", MOUNT_FS, 0), -EPERM);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = 1), -EPERM);
    g.head.uid = 0;
    ck_assert_uint_eq(mounted("e", MOUNT_SCRATCH, 0, &id), e); /* taken over */
    ck_assert_int_eq(mount_at(META_ROOT, "e", MOUNT_FS, 0), -EBUSY);
    ck_assert_int_eq(mount_at(e, "below", MOUNT_FS, 0), -EBUSY);
    uint64_t inside = make_dir(&g, e, "inside");
    ck_assert_int_eq(mount_at(inside, "below", MOUNT_FS, 0), -EBUSY);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id + 1), -ENOENT);
    rig_fini(&g);
}

TEST(meta_mount_bounds_renames_and_links)
{
    uint32_t a, b;
    rig_init(&g, NULL);
    uint64_t up = make_dir(&g, META_ROOT, "up");
    ck_assert_int_eq(mount_at(up, "a", MOUNT_SCRATCH, 0), 0);
    a = g.q.answer.mount_add.mount;
    uint64_t at_a = g.q.answer.mount_add.attr.inode, at_b = mounted("b", MOUNT_SCRATCH, 0, &b);
    ck_assert_uint_ne(a, b);
    uint64_t f = make_file(&g, at_a, "f"), d = make_dir(&g, at_a, "d");
#define MOVE(p, n, np, nn)                                                                                             \
    SEND(&g, rename, .parent = (p), .name = text_of(n), .new_parent = (np), .new_name = text_of(nn))
    ck_assert_int_eq(MOVE(at_a, "f", at_b, "f"), -EXDEV);
    ck_assert_int_eq(MOVE(d, "x", META_ROOT, "x"), -EXDEV);
    ck_assert_int_eq(SEND(&g, link, .inode = f, .parent = at_b, .name = TEXT("l")), -EXDEV);
    ck_assert_int_eq(MOVE(at_a, "f", d, "g"), 0);
    ck_assert_int_eq(SEND(&g, link, .inode = f, .parent = at_a, .name = TEXT("l")), 0);
    /* where a mount begins, and above */
    ck_assert_int_eq(MOVE(META_ROOT, "b", META_ROOT, "c"), -EBUSY);
    ck_assert_int_eq(MOVE(META_ROOT, "up", META_ROOT, "down"), -EBUSY);
    make_dir(&g, META_ROOT, "e");
    ck_assert_int_eq(MOVE(META_ROOT, "e", META_ROOT, "b"), -EBUSY);
    ck_assert_int_eq(SEND(&g, rename, .parent = META_ROOT, .name = TEXT("e"), .new_parent = META_ROOT,
                          .new_name = TEXT("up"), .flags = 2),
                     -EBUSY);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = META_ROOT, .name = TEXT("b")), -EBUSY);
    ck_assert_int_eq(MOVE(META_ROOT, "e", META_ROOT, "h"), 0);
    rig_fini(&g);
}

TEST(meta_mount_read_only_refuses_content_and_names)
{
    uint32_t id;
    rig_init(&g, NULL);
    uint64_t dir = mounted("m", MOUNT_CACHE, MOUNT_WRITABLE, &id);
    set_flags(dir, INODE_LISTING_UNKNOWN);
    uint64_t f = make_file(&g, dir, "f"), d = make_dir(&g, dir, "d");
    /* the same, attached for reading only */
    struct meta_mount_row row;
    uint8_t key[META_KEY_MAX], value[META_MOUNT_MAX];
    rig_commit(&g);
    rig_flush(&g);
    ck_assert(meta_mount_find(g.m, id, &row));
    row.flags = 0;
    store_put(&g.store, META_TABLE_mount, key_of(key, meta_key_mount(id, key)),
              key_of(value, meta_mount_encode(&row, value)));
    rig_crash(&g, g.log_count);
    const int e = -CV_READ_ONLY_MOUNT;
    ck_assert_int_eq(SEND(&g, mkdir, .parent = dir, .name = TEXT("n")), e);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = dir, .name = TEXT("d")), -EEXIST);
    ck_assert_int_eq(SEND(&g, mknod, .parent = d, .name = TEXT("n"), .mode = S_IFREG), e);
    ck_assert_int_eq(SEND(&g, symlink, .parent = dir, .name = TEXT("n"), .target = TEXT("t")), e);
    ck_assert_int_eq(SEND(&g, link, .inode = f, .parent = dir, .name = TEXT("n")), e);
    ck_assert_int_eq(SEND(&g, unlink, .parent = dir, .name = TEXT("f")), e);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = dir, .name = TEXT("d")), e);
    ck_assert_int_eq(MOVE(dir, "f", dir, "g"), e);
    ck_assert_int_eq(SEND(&g, create, .parent = dir, .name = TEXT("n"), .flags = O_RDONLY), e);
    ck_assert_int_eq(SEND(&g, create, .parent = dir, .name = TEXT("f"), .flags = O_RDWR), e);
    ck_assert_int_eq(SEND(&g, create, .parent = dir, .name = TEXT("f"), .flags = O_RDONLY), 0);
    uint64_t handle = g.q.answer.create.handle;
    ck_assert_uint_eq(g.q.answer.create.layout.flags & LAYOUT_READ_ONLY, LAYOUT_READ_ONLY);
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_WRONLY), e);
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDONLY | O_TRUNC), e);
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDONLY), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 1), e);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE, .mode = 0600), 0);
    ck_assert_uint_eq(g.q.answer.setattr.attr.flags & INODE_LOCAL_ATTRS, INODE_LOCAL_ATTRS);
    ck_assert_int_eq(SEND(&g, access, .inode = f, .mask = 2), e);
    ck_assert_int_eq(SEND(&g, access, .inode = f, .mask = 4), 0);
    ck_assert_int_eq(SEND(&g, write_grant, .inode = f, .handle = handle, .count = 1), e);
    rig_fini(&g);
}

TEST(meta_mount_written_to_needs_force_to_go)
{
    uint32_t id;
    rig_init(&g, NULL);
    uint64_t dir = mounted("m", MOUNT_SCRATCH, 0, &id);
    rig_commit(&g);
    uint64_t number = meta_batch_now(g.m).number;
    ck_assert_int_eq(SEND(&g, create, .parent = dir, .name = TEXT("f"), .mode = 0644, .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, h = g.q.answer.create.handle;
    ck_assert_int_eq(SEND(&g, write_commit, .inode = f, .handle = h, .valid = COMMIT_INLINE | COMMIT_CLOSE,
                          .inline_data = TEXT("x")),
                     0);
    ck_assert_uint_eq(g.q.answer.write_commit.attr.flags & INODE_DIRTY, INODE_DIRTY);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id), -CV_DIRTY);
    meta_batch_undo(g.m, number);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id, ), 0); /* never written */
    rig_commit(&g);
    dir = mounted("m", MOUNT_SCRATCH, 0, &id);
    f = make_file(&g, dir, "f");
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 1), 0);
    rig_commit(&g);
    ck_assert(find().mount.written);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id), -CV_DIRTY);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id, .flags = MOUNT_FORCE), 0);
    rig_commit(&g);
    ck_assert_uint_eq(find().mounts, 0);
    ck_assert_int_eq(look(&g, META_ROOT, "m"), -ENOENT);
    /* names are nowhere else either */
    for (int what = 0; what < 5; what++) {
        dir = mounted("n", MOUNT_SCRATCH, 0, &id);
        rig_commit(&g);
        ck_assert_int_eq(SEND(&g, lookup, .parent = dir, .name = TEXT("x")), -ENOENT);
        ck_assert(!find().mount.written);
        uint64_t d = make_dir(&g, dir, "d");
        rig_commit(&g);
        ck_assert(find().mount.written);
        g.m->mounts.rows[0]->mount.written = false; /* as if only what follows had happened */
        ck_assert_int_eq(
            what == 0   ? SEND(&g, symlink, .parent = dir, .name = TEXT("s"), .target = TEXT("t"))
            : what == 1 ? SEND(&g, rename, .parent = dir, .name = TEXT("d"), .new_parent = dir, .new_name = TEXT("e"))
            : what == 2 ? SEND(&g, rmdir, .parent = dir, .name = TEXT("d"))
            : what == 3 ? SEND(&g, mknod, .parent = d, .name = TEXT("f"), .mode = S_IFREG)
                        : SEND(&g, create, .parent = d, .name = TEXT("f"), .flags = O_RDWR),
            0);
        ck_assert_int_eq(SEND(&g, mount_remove, .mount = id), -CV_DIRTY);
        ck_assert_int_eq(SEND(&g, mount_remove, .mount = id, .flags = MOUNT_FORCE), 0);
        rig_commit(&g);
    }
    dir = mounted("m", MOUNT_SCRATCH, 0, &id);
    f = make_file(&g, dir, "f");
    rig_commit(&g);
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id, .flags = MOUNT_FORCE), 0);
    rig_commit(&g);
    /* what is still known by its number takes nothing any more */
    ck_assert_int_eq(SEND(&g, mkdir, .parent = dir, .name = TEXT("n")), -ENOENT);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 0), -CV_READ_ONLY_MOUNT);
    rig_fini(&g);
}

static uint32_t purged;

static void count_purged(void *arg, const struct meta_effect *e)
{
    purged += e->kind == META_EFFECT_PURGED;
}

TEST(meta_mount_detached_goes_with_all_that_is_below_in_steps)
{
    uint32_t id;
    rig_init(&g, NULL);
    meta_on_effect(g.m, count_purged, NULL);
    uint64_t dir = mounted("m", MOUNT_SCRATCH, 0, &id), deep = dir;
    char name[16];
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make_file(&g, dir, name);
    }
    for (int i = 0; i < 20; i++) {
        deep = make_dir(&g, deep, "d");
        make_file(&g, deep, "x");
    }
    ck_assert_int_eq(SEND(&g, create, .parent = deep, .name = TEXT("open"), .mode = 0644, .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, h = g.q.answer.create.handle;
    ck_assert_int_eq(SEND(&g, link, .inode = f, .parent = dir, .name = TEXT("second")), 0);
    rig_commit(&g);
    rig_flush(&g);
    tree_evict(&g.m->tree, 10000);
    g.evict_chance = 5;
    ck_assert_int_eq(SEND(&g, mount_remove, .mount = id, .flags = MOUNT_FORCE), 0);
    purged = 0;
    meta_allow_purge(g.m);
    for (int i = 0; i < 3; i++) { /* it dies in the middle, too */
        ck_assert(meta_next_inner(g.m, &g.q));
        ck_assert_int_eq(rig_run(&g, &g.q), 0);
    }
    rig_commit(&g);
    ck_assert_uint_gt(purged, 0);
    ck_assert_uint_le(purged, 750);
    rig_crash(&g, g.log_count);
    ck_assert_int_eq(meta_reassert(g.m, g.head.session, f, h, O_RDWR), 0);
    purge_all();
    struct meta_stats s;
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 2 && s.state.orphans == 1 && s.state.directories == 1);
    ck_assert_int_eq(SEND(&g, close, .inode = f, .handle = h), 0);
    purge_all();
    meta_stats(g.m, &s);
    ck_assert(s.state.inodes == 1 && s.state.orphans == 0);
    rig_flush(&g);
    for (size_t i = 0; i < g.store.count; i++)
        ck_assert(g.store.cells[i].key[0] != META_FAMILY_dentry);
    rig_fini(&g);
}

TEST(meta_mount_worker_rows_are_put_once_and_listed)
{
    rig_init(&g, NULL);
    struct meta_worker_row w = {.worker = 0x123456789abcdefull,
                                .weight = 10,
                                .in = true,
                                .address = TEXT("h:8997"),
                                .socket = TEXT("/run/w"),
                                .host = TEXT("host"),
                                .boot = TEXT("boot")};
    meta_request_reset(&g.q);
    meta_request_worker(&g.q, &w);
    ck_assert_int_eq(rig_run(&g, &g.q), 0);
    ck_assert(g.q.changed);
    ck_assert_uint_eq(find().workers, 0);
    rig_commit(&g);
    uint64_t version = meta_workers_version(g.m);
    ck_assert_uint_eq(find().workers, 1);
    meta_request_reset(&g.q);
    meta_request_worker(&g.q, &w);
    ck_assert_int_eq(rig_run(&g, &g.q), 0);
    ck_assert(!g.q.changed);
    w.worker++;
    meta_request_reset(&g.q);
    meta_request_worker(&g.q, &w);
    ck_assert_int_eq(rig_run(&g, &g.q), 0);
    rig_commit(&g);
    ck_assert_uint_gt(meta_workers_version(g.m), version);
    rig_flush(&g);
    rig_crash(&g, g.log_count);
    ck_assert_uint_eq(find().workers, 2);
    rig_fini(&g);
}
