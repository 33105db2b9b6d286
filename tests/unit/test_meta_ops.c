/* SPDX-License-Identifier: Apache-2.0 */
/* What each operation does and refuses. Rights and renaming in all combinations: test_meta_model.c. */
#include "tests/unit/meta_rig.h"

#include <dirent.h>
#include <fcntl.h>

static struct rig g;

/* dir/ (0755 of uid 1) with file f, directory e (with x in it), symlink s, fifo p. */
struct place {
    uint64_t dir, f, e, x, s, p;
};

static struct place place_init(void)
{
    struct place at;
    rig_init(&g, NULL);
    at.dir = make_dir(&g, META_ROOT, "dir");
    at.f = make_file(&g, at.dir, "f");
    at.e = make_dir(&g, at.dir, "e");
    at.x = make_file(&g, at.e, "x");
    ck_assert_int_eq(SEND(&g, symlink, .parent = at.dir, .name = TEXT("s"), .target = TEXT("e/x")), 0);
    at.s = g.q.answer.symlink.attr.inode;
    ck_assert_int_eq(SEND(&g, mknod, .parent = at.dir, .name = TEXT("p"), .mode = S_IFIFO | 0644), 0);
    at.p = g.q.answer.mknod.attr.inode;
    ck_assert_int_eq(SEND(&g, setattr, .inode = at.dir, .valid = SETATTR_UID, .uid = 1), 0);
    rig_commit(&g);
    return at;
}

static struct rec_attr attr_of(uint64_t inode)
{
    ck_assert_int_eq(SEND(&g, getattr, .inode = inode), 0);
    return g.q.answer.getattr.attr;
}

static void as(uint32_t uid, uint32_t gid)
{
    g.head.uid = uid;
    g.head.gid = gid;
}

TEST(meta_ops_fill_all_attributes)
{
    struct place at = place_init();
    struct rec_attr a = attr_of(at.f);
    ck_assert(a.mode == (S_IFREG | 0644) && a.nlink == 1 && a.uid == 0 && a.size == 0 && a.version == 1);
    ck_assert(a.atime_ns == a.mtime_ns && a.mtime_ns == a.ctime_ns && a.ctime_ns == a.btime_ns &&
              a.btime_ns > 1000000000);
    a = attr_of(at.dir);
    ck_assert(a.nlink == 3 && S_ISDIR(a.mode) && a.uid == 1);
    a = attr_of(at.s);
    ck_assert(S_ISLNK(a.mode) && a.size == 3);
    ck_assert_int_eq(SEND(&g, setattr, .inode = at.f, .valid = SETATTR_SIZE, .size = 1000), 0);
    a = attr_of(at.f);
    ck_assert(a.size == 1000 && a.blocks == 2 && a.version == 2 && a.mtime_ns > a.btime_ns && a.ctime_ns == a.mtime_ns);
    ck_assert_int_eq(SEND(&g, mknod, .parent = at.dir, .name = TEXT("dev"), .mode = S_IFBLK | 0600, .rdev = 0x801), 0);
    ck_assert_uint_eq(g.q.answer.mknod.attr.rdev, 0x801);
    ck_assert_uint_eq(g.q.answer.mknod.parent.inode, at.dir);
    rig_fini(&g);
}

TEST(meta_ops_times_never_repeat_or_go_back)
{
    struct place at = place_init();
    uint64_t last = 0;
    for (int i = 0; i < 100; i++) {
        g.wall_ns -= 1000; /* the clock runs backwards */
        ck_assert_int_eq(SEND(&g, setattr, .inode = at.f, .valid = SETATTR_SIZE, .size = 1), 0);
        ck_assert_uint_gt(g.q.answer.setattr.attr.mtime_ns, last);
        last = g.q.answer.setattr.attr.mtime_ns;
    }
    rig_fini(&g);
}

TEST(meta_ops_refuse_bad_names_everywhere)
{
    struct place at = place_init();
    static char long_name[256];
    memset(long_name, 'n', sizeof(long_name));
    const struct {
        struct text name;
        int error;
    } bad[] = {{{"", 0}, -ENOENT},     {TEXT("."), -EINVAL},   {TEXT(".."), -EINVAL},
               {TEXT("a/b"), -EINVAL}, {{"a\0b", 3}, -EINVAL}, {{long_name, 256}, -ENAMETOOLONG}};
    for (size_t i = 0; i < array_size(bad); i++) {
        struct text n = bad[i].name;
        int e = bad[i].error;
        ck_assert_int_eq(SEND(&g, lookup, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, mkdir, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, mknod, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, symlink, .parent = at.dir, .name = n, .target = TEXT("t")), e);
        ck_assert_int_eq(SEND(&g, link, .inode = at.f, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, unlink, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, rmdir, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = n), e);
        ck_assert_int_eq(SEND(&g, rename, .parent = at.dir, .name = n, .new_parent = at.e, .new_name = TEXT("z")), e);
        ck_assert_int_eq(SEND(&g, rename, .parent = at.dir, .name = TEXT("f"), .new_parent = at.e, .new_name = n), e);
    }
    ck_assert_int_eq(SEND(&g, mkdir, .parent = at.dir, .name = {long_name, 255}), 0);
    ck_assert_int_eq(SEND(&g, lookup, .parent = at.dir, .name = {long_name, 255}), 0);
    rig_fini(&g);
}

TEST(meta_ops_say_what_is_wrong_with_the_inode)
{
    struct place at = place_init();
    const struct {
        uint64_t parent;
        int error;
    } parents[] = {{at.f, -ENOTDIR}, {at.s, -ENOTDIR}, {77777, -ESTALE}, {1ull << 50, -ESTALE}, {0, -ESTALE}};
    for (size_t i = 0; i < array_size(parents); i++) {
        uint64_t p = parents[i].parent;
        int e = parents[i].error;
        ck_assert_int_eq(SEND(&g, lookup, .parent = p, .name = TEXT("n")), e);
        ck_assert_int_eq(SEND(&g, mkdir, .parent = p, .name = TEXT("n")), e);
        ck_assert_int_eq(SEND(&g, create, .parent = p, .name = TEXT("n")), e);
        ck_assert_int_eq(SEND(&g, unlink, .parent = p, .name = TEXT("n")), e);
        ck_assert_int_eq(SEND(&g, rmdir, .parent = p, .name = TEXT("n")), e);
        ck_assert_int_eq(SEND(&g, readdir, .inode = p), e);
        ck_assert_int_eq(SEND(&g, rename, .parent = p, .name = TEXT("n"), .new_parent = at.dir, .new_name = TEXT("m")),
                         e);
        ck_assert_int_eq(SEND(&g, rename, .parent = at.dir, .name = TEXT("f"), .new_parent = p, .new_name = TEXT("m")),
                         e);
        ck_assert_int_eq(SEND(&g, link, .inode = at.f, .parent = p, .name = TEXT("m")), e);
    }
    const uint64_t gone = 77777;
    ck_assert_int_eq(SEND(&g, getattr, .inode = gone), -ESTALE);
    ck_assert_int_eq(SEND(&g, setattr, .inode = gone, .valid = SETATTR_MODE), -ESTALE);
    ck_assert_int_eq(SEND(&g, open, .inode = gone), -ESTALE);
    ck_assert_int_eq(SEND(&g, access, .inode = gone), -ESTALE);
    ck_assert_int_eq(SEND(&g, readlink, .inode = gone), -ESTALE);
    ck_assert_int_eq(SEND(&g, getxattr, .inode = gone, .name = TEXT("user.a")), -ESTALE);
    ck_assert_int_eq(SEND(&g, listxattr, .inode = gone), -ESTALE);
    ck_assert_int_eq(SEND(&g, link, .inode = gone, .parent = at.dir, .name = TEXT("m")), -ESTALE);
    ck_assert_int_eq(SEND(&g, readlink, .inode = at.f), -EINVAL);
    rig_fini(&g);
}

TEST(meta_ops_make_and_remove)
{
    struct place at = place_init();
    ck_assert_int_eq(SEND(&g, mkdir, .parent = at.dir, .name = TEXT("f")), -EEXIST);
    ck_assert_int_eq(SEND(&g, mknod, .parent = at.dir, .name = TEXT("n"), .mode = S_IFDIR), -EPERM);
    ck_assert_int_eq(SEND(&g, mknod, .parent = at.dir, .name = TEXT("n"), .mode = S_IFLNK), -EINVAL);
    ck_assert_int_eq(SEND(&g, mknod, .parent = at.dir, .name = TEXT("n"), .mode = 0644), 0); /* no type: a file */
    ck_assert(S_ISREG(g.q.answer.mknod.attr.mode));
    ck_assert_int_eq(SEND(&g, symlink, .parent = at.dir, .name = TEXT("t")), -ENOENT);
    static char target[META_TARGET_MAX + 1];
    memset(target, 't', sizeof(target));
    ck_assert_int_eq(SEND(&g, symlink, .parent = at.dir, .name = TEXT("t"), .target = {target, META_TARGET_MAX + 1}),
                     -ENAMETOOLONG);
    ck_assert_int_eq(SEND(&g, symlink, .parent = at.dir, .name = TEXT("t"), .target = {target, META_TARGET_MAX}), 0);
    ck_assert_int_eq(SEND(&g, readlink, .inode = g.q.answer.symlink.attr.inode), 0);
    ck_assert(text_equal(g.q.answer.readlink.target, (struct text){target, META_TARGET_MAX}));
    ck_assert_int_eq(SEND(&g, rmdir, .parent = at.dir, .name = TEXT("e")), -ENOTEMPTY);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = at.dir, .name = TEXT("f")), -ENOTDIR);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = at.dir, .name = TEXT("no")), -ENOENT);
    ck_assert_int_eq(SEND(&g, unlink, .parent = at.dir, .name = TEXT("e")), -EISDIR);
    ck_assert_int_eq(SEND(&g, unlink, .parent = at.dir, .name = TEXT("no")), -ENOENT);
    ck_assert_int_eq(SEND(&g, unlink, .parent = at.e, .name = TEXT("x")), 0);
    ck_assert_uint_eq(g.q.answer.unlink.attr.nlink, 0);
    ck_assert_int_eq(SEND(&g, getattr, .inode = at.x), -ESTALE);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = at.dir, .name = TEXT("e")), 0);
    ck_assert_int_eq(SEND(&g, lookup, .parent = at.dir, .name = TEXT("e")), -ENOENT);
    ck_assert_int_eq(SEND(&g, lookup, .parent = at.e, .name = TEXT("x")), -ESTALE);
    ck_assert_uint_eq(attr_of(at.dir).nlink, 2);
    rig_fini(&g);
}

TEST(meta_ops_link_up_to_the_limit)
{
    struct place at = place_init();
    ck_assert_int_eq(SEND(&g, link, .inode = at.e, .parent = at.dir, .name = TEXT("l")), -EPERM);
    ck_assert_int_eq(SEND(&g, link, .inode = at.f, .parent = at.dir, .name = TEXT("e")), -EEXIST);
    ck_assert_int_eq(SEND(&g, link, .inode = at.f, .parent = at.dir, .name = TEXT("l")), 0);
    ck_assert_uint_eq(g.q.answer.link.attr.nlink, 2);
    ck_assert_int_eq(SEND(&g, unlink, .parent = at.dir, .name = TEXT("f")), 0);
    ck_assert_uint_eq(g.q.answer.unlink.attr.nlink, 1);
    ck_assert_int_eq(SEND(&g, getattr, .inode = at.f), 0);
    rig_commit(&g);
    rig_flush(&g);
    /* As many links as there may be: only by writing the row. */
    uint8_t key[META_KEY_MAX], row[META_INODE_MAX];
    struct meta_inode i = {.id = 900, .mode = S_IFREG | 0644, .nlink = META_NLINK_MAX, .parent = at.dir};
    struct meta_inode d = {.id = 901, .mode = S_IFDIR | 0755, .nlink = META_NLINK_MAX, .parent = META_ROOT};
    store_put(&g.store, META_TABLE_inode, key_of(key, meta_key_inode(900, key)),
              key_of(row, meta_inode_encode(&i, row)));
    store_put(&g.store, META_TABLE_inode, key_of(key, meta_key_inode(901, key)),
              key_of(row, meta_inode_encode(&d, row)));
    ck_assert_int_eq(SEND(&g, link, .inode = 900, .parent = at.dir, .name = TEXT("many")), -EMLINK);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = 901, .name = TEXT("sub")), -EMLINK);
    ck_assert_int_eq(SEND(&g, rename, .parent = at.dir, .name = TEXT("e"), .new_parent = 901, .new_name = TEXT("e")),
                     -EMLINK);
    ck_assert_int_eq(SEND(&g, mknod, .parent = 901, .name = TEXT("file"), .mode = S_IFREG), 0);
    rig_fini(&g);
}

/* --- rights ------------------------------------------------------------------------------------------------------------------ */

TEST(meta_ops_rights_follow_owner_group_and_others)
{
    rig_init(&g, NULL);
    static const struct {
        uint32_t uid, gid, groups;
    } who[] = {{10, 1, 0}, {11, 20, 0}, {11, 1, 20}, {12, 1, 0}, {0, 0, 0}};
    for (uint32_t mode = 0; mode < 01000; mode++) {
        as(0, 0);
        char name[16];
        snprintf(name, sizeof(name), "m%o", mode);
        uint64_t f = make_file(&g, META_ROOT, name);
        ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_UID | SETATTR_GID | SETATTR_MODE, .uid = 10,
                              .gid = 20, .mode = mode),
                         0);
        for (size_t w = 0; w < array_size(who); w++) {
            uint8_t groups[4];
            put_le32(groups, who[w].groups);
            as(who[w].uid, who[w].gid);
            g.head.groups = (struct text){(char *)groups, who[w].groups ? 4 : 0};
            uint32_t bits = w == 0 ? mode >> 6 : w == 1 || w == 2 ? mode >> 3 : mode;
            for (uint32_t mask = 0; mask < 8; mask++) {
                bool allowed = w == 4 ? !(mask & 1) || mode & 0111 : (bits & mask) == mask;
                ck_assert_int_eq(SEND(&g, access, .inode = f, .mask = mask), allowed ? 0 : -EACCES);
            }
            g.head.groups = (struct text){NULL, 0};
        }
    }
    ck_assert_int_eq(SEND(&g, access, .inode = META_ROOT, .mask = 8), -EINVAL);
    rig_fini(&g);
}

TEST(meta_ops_sticky_directories_protect_names_of_others)
{
    rig_init(&g, NULL);
    uint64_t tmp = make_dir(&g, META_ROOT, "tmp");
    ck_assert_int_eq(SEND(&g, setattr, .inode = tmp, .valid = SETATTR_MODE, .mode = 01777), 0);
    as(1, 1);
    make_file(&g, tmp, "of1");
    uint64_t d1 = make_dir(&g, tmp, "d1");
    as(2, 2);
    make_file(&g, tmp, "of2");
    ck_assert_int_eq(SEND(&g, unlink, .parent = tmp, .name = TEXT("of1")), -EPERM);
    ck_assert_int_eq(SEND(&g, rmdir, .parent = tmp, .name = TEXT("d1")), -EPERM);
    ck_assert_int_eq(SEND(&g, rename, .parent = tmp, .name = TEXT("of1"), .new_parent = tmp, .new_name = TEXT("z")),
                     -EPERM);
    ck_assert_int_eq(SEND(&g, rename, .parent = tmp, .name = TEXT("of2"), .new_parent = tmp, .new_name = TEXT("of1")),
                     -EPERM);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = tmp, .name = TEXT("user.x")), -EPERM);
    as(1, 1);
    ck_assert_int_eq(SEND(&g, unlink, .parent = tmp, .name = TEXT("of1")), 0);
    as(0, 0);
    ck_assert_int_eq(SEND(&g, unlink, .parent = tmp, .name = TEXT("of2")), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = d1, .valid = SETATTR_UID, .uid = 9), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = tmp, .valid = SETATTR_UID, .uid = 2), 0);
    as(2, 2); /* the directory is his */
    ck_assert_int_eq(SEND(&g, rmdir, .parent = tmp, .name = TEXT("d1")), 0);
    rig_fini(&g);
}

TEST(meta_ops_groups_are_inherited_from_setgid_directories)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    ck_assert_int_eq(SEND(&g, setattr, .inode = d, .valid = SETATTR_GID | SETATTR_MODE, .gid = 50, .mode = 02777), 0);
    as(1, 1);
    ck_assert_int_eq(SEND(&g, mkdir, .parent = d, .name = TEXT("s"), .mode = 0755), 0);
    ck_assert(g.q.answer.mkdir.attr.gid == 50 && g.q.answer.mkdir.attr.mode == (S_IFDIR | 02755));
    ck_assert_int_eq(SEND(&g, create, .parent = d, .name = TEXT("f"), .mode = 02775), 0);
    ck_assert(g.q.answer.create.attr.gid == 50 && g.q.answer.create.attr.mode == (S_IFREG | 0775));
    ck_assert_int_eq(SEND(&g, create, .parent = d, .name = TEXT("h"), .mode = 02764), 0);
    ck_assert_uint_eq(g.q.answer.create.attr.mode, S_IFREG | 02764); /* not executable by the group: it means locking */
    ck_assert_int_eq(SEND(&g, mkdir, .parent = d, .name = TEXT("u"), .mode = 07777, .umask = 027), 0);
    ck_assert_uint_eq(g.q.answer.mkdir.attr.mode, S_IFDIR | 03750);
    rig_fini(&g);
}

TEST(meta_ops_owners_change_their_own_things_only)
{
    rig_init(&g, NULL);
    as(0, 0);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    ck_assert_int_eq(SEND(&g, setattr, .inode = d, .valid = SETATTR_MODE, .mode = 0777), 0);
    as(1, 1);
    uint64_t f = make_file(&g, d, "f");
    uint8_t groups[4];
    put_le32(groups, 5);
    g.head.groups = (struct text){(char *)groups, 4};
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_UID, .uid = 2), -EPERM);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_UID, .uid = 1), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_GID, .gid = 6), -EPERM);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_GID, .gid = 5), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE, .mode = 06755), 0);
    ck_assert_uint_eq(g.q.answer.setattr.attr.mode & 07777, 06755);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_GID, .gid = 1), 0); /* set-id bits go */
    ck_assert_uint_eq(g.q.answer.setattr.attr.mode & 07777, 0755);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE, .mode = 06755), 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 5), 0);
    ck_assert_uint_eq(g.q.answer.setattr.attr.mode & 07777, 0755);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE, .mode = 0666), 0);
    as(2, 2);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE, .mode = 0), -EPERM);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MTIME, .mtime_ns = 1), -EPERM);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MTIME | SETATTR_SIZE, .mtime_ns = 1), -EPERM);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MTIME | SETATTR_MTIME_NOW), 0); /* he may write */
    as(0, 0);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MODE, .mode = 0644), 0);
    as(2, 2);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_MTIME | SETATTR_MTIME_NOW), -EACCES);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE), -EACCES);
    as(0, 0);
    g.head.groups = (struct text){NULL, 0};
    ck_assert_int_eq(
        SEND(&g, setattr, .inode = f, .valid = SETATTR_ATIME | SETATTR_MTIME, .atime_ns = 1, .mtime_ns = (uint64_t)-2),
        0);
    struct rec_attr a = attr_of(f);
    ck_assert(a.atime_ns == 1 && (int64_t)a.mtime_ns == -2 && a.ctime_ns > 1000);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = 1u << 20), -EINVAL);
    ck_assert_int_eq(SEND(&g, setattr, .inode = d, .valid = SETATTR_SIZE), -EISDIR);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 1ull << 63), -EFBIG);
    rig_fini(&g);
}

/* --- renaming ----------------------------------------------------------------------------------------------------------------- */

TEST(meta_ops_rename_in_all_pairs_of_kinds)
{
    /* What a rename of the row over the column gives: file, empty directory, full directory, symlink, nothing. */
    enum { FILE_, EMPTY, FULL, LINK, NONE, KINDS };
    static const int plain[KINDS][KINDS] = {
        [FILE_] = {0, -EISDIR, -EISDIR, 0, 0},
        [EMPTY] = {-ENOTDIR, 0, -ENOTEMPTY, -ENOTDIR, 0},
        [FULL] = {-ENOTDIR, 0, -ENOTEMPTY, -ENOTDIR, 0},
        [LINK] = {0, -EISDIR, -EISDIR, 0, 0},
        [NONE] = {-ENOENT, -ENOENT, -ENOENT, -ENOENT, -ENOENT},
    };
    for (int from = 0; from < KINDS; from++)
        for (int to = 0; to < KINDS; to++)
            for (uint32_t flags = 0; flags < 5; flags++)
                for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
                    rig_init(&g, NULL);
                    uint64_t d = make_dir(&g, META_ROOT, "d"), e = elsewhere ? make_dir(&g, META_ROOT, "e") : d;
                    uint64_t ids[2] = {0};
                    for (int side = 0; side < 2; side++) {
                        uint64_t p = side ? e : d;
                        const char *name = side ? "to" : "from";
                        switch (side ? to : from) {
                        case FILE_: ids[side] = make_file(&g, p, name); break;
                        case EMPTY: ids[side] = make_dir(&g, p, name); break;
                        case FULL:
                            ids[side] = make_dir(&g, p, name);
                            make_file(&g, ids[side], "x");
                            break;
                        case LINK:
                            ck_assert_int_eq(SEND(&g, symlink, .parent = p, .name = text_of(name), .target = TEXT("t")),
                                             0);
                            ids[side] = g.q.answer.symlink.attr.inode;
                            break;
                        default: break;
                        }
                    }
                    int want = plain[from][to];
                    if (flags > 2)
                        want = -EINVAL;
                    else if (from != NONE && flags == 1)
                        want = to == NONE ? 0 : -EEXIST;
                    else if (from != NONE && flags == 2)
                        want = to == NONE ? -ENOENT : 0;
                    int r = SEND(&g, rename, .parent = d, .name = TEXT("from"), .new_parent = e, .new_name = TEXT("to"),
                                 .flags = flags);
                    ck_assert_msg(r == want, "from %d to %d flags %u: %s, not %s", from, to, flags, cv_error_name(r),
                                  cv_error_name(want));
                    uint64_t now[2];
                    now[0] = look(&g, d, "from") == 0 ? g.q.answer.lookup.attr.inode : 0;
                    now[1] = look(&g, e, "to") == 0 ? g.q.answer.lookup.attr.inode : 0;
                    if (r < 0)
                        ck_assert(now[0] == ids[0] && now[1] == ids[1]);
                    else if (flags == 2)
                        ck_assert(now[0] == ids[1] && now[1] == ids[0]);
                    else
                        ck_assert(now[0] == 0 && now[1] == ids[0]);
                    /* Links of the directories are those of what is in them. */
                    uint32_t links_d = 2, links_e = 2;
                    for (int side = 0; side < 2; side++)
                        if (now[side] && S_ISDIR(attr_of(now[side]).mode))
                            *(side && elsewhere ? &links_e : &links_d) += 1;
                    ck_assert_uint_eq(attr_of(d).nlink, links_d);
                    if (elsewhere)
                        ck_assert_uint_eq(attr_of(e).nlink, links_e);
                    rig_fini(&g);
                }
}

TEST(meta_ops_rename_makes_no_loops)
{
    rig_init(&g, NULL);
    uint64_t a = make_dir(&g, META_ROOT, "a"), b = make_dir(&g, a, "b"), c = make_dir(&g, b, "c");
    make_file(&g, c, "f");
    ck_assert_int_eq(SEND(&g, rename, .parent = META_ROOT, .name = TEXT("a"), .new_parent = c, .new_name = TEXT("z")),
                     -EINVAL);
    ck_assert_int_eq(SEND(&g, rename, .parent = META_ROOT, .name = TEXT("a"), .new_parent = a, .new_name = TEXT("z")),
                     -EINVAL);
    ck_assert_int_eq(SEND(&g, rename, .parent = b, .name = TEXT("c"), .new_parent = META_ROOT, .new_name = TEXT("a")),
                     -ENOTEMPTY);
    ck_assert_int_eq(SEND(&g, rename, .parent = c, .name = TEXT("f"), .new_parent = META_ROOT, .new_name = TEXT("a")),
                     -ENOTEMPTY);
    ck_assert_int_eq(
        SEND(&g, rename, .parent = b, .name = TEXT("c"), .new_parent = META_ROOT, .new_name = TEXT("a"), .flags = 2),
        -EINVAL);
    ck_assert_int_eq(
        SEND(&g, rename, .parent = META_ROOT, .name = TEXT("a"), .new_parent = b, .new_name = TEXT("c"), .flags = 2),
        -EINVAL);
    ck_assert_int_eq(
        SEND(&g, rename, .parent = META_ROOT, .name = TEXT("a"), .new_parent = META_ROOT, .new_name = TEXT("a")), 0);
    ck_assert_int_eq(SEND(&g, rename, .parent = b, .name = TEXT("c"), .new_parent = META_ROOT, .new_name = TEXT("c")),
                     0);
    ck_assert_int_eq(SEND(&g, rename, .parent = META_ROOT, .name = TEXT("a"), .new_parent = c, .new_name = TEXT("a")),
                     0);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("c/a/b")), 0);
    ck_assert_uint_eq(g.q.answer.walk.attr.inode, b);
    rig_fini(&g);
}

TEST(meta_ops_rename_of_two_names_of_one_inode_does_nothing)
{
    struct place at = place_init();
    ck_assert_int_eq(SEND(&g, link, .inode = at.f, .parent = at.e, .name = TEXT("l")), 0);
    ck_assert_int_eq(SEND(&g, rename, .parent = at.dir, .name = TEXT("f"), .new_parent = at.e, .new_name = TEXT("l")),
                     0);
    ck_assert(!g.q.changed);
    ck_assert_int_eq(look(&g, at.dir, "f"), 0);
    ck_assert_int_eq(look(&g, at.e, "l"), 0);
    rig_fini(&g);
}

/* --- walking, listing ------------------------------------------------------------------------------------------------------------ */

TEST(meta_ops_walk_to_the_end_or_to_a_symlink)
{
    struct place at = place_init();
    const struct msg_walk_answer *a = &g.q.answer.walk;
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/e/x")), 0);
    ck_assert(a->attr.inode == at.x && a->parent == at.e && a->rest.n == 0);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("//dir///e/")), 0);
    ck_assert_uint_eq(a->attr.inode, at.e);
    ck_assert_int_eq(SEND(&g, walk, .start = at.dir, .path = TEXT("")), 0);
    ck_assert_uint_eq(a->attr.inode, at.dir);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/s/more/of/it")), 0);
    ck_assert(a->attr.inode == at.s && a->parent == at.dir && text_equal(a->rest, TEXT("more/of/it")) &&
              text_equal(a->target, TEXT("e/x")));
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/s")), 0);
    ck_assert(a->rest.n == 0 && text_equal(a->target, TEXT("e/x")));
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/f/x")), -ENOTDIR);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/no/x")), -ENOENT);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/../x")), -EINVAL);
    ck_assert_int_eq(SEND(&g, walk, .start = 77777, .path = TEXT("dir")), -ESTALE);
    static char path[5000];
    memset(path, '/', sizeof(path));
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = {path, sizeof(path)}), -ENAMETOOLONG);
    ck_assert_int_eq(SEND(&g, setattr, .inode = at.dir, .valid = SETATTR_MODE, .mode = 0700), 0);
    as(5, 5);
    ck_assert_int_eq(SEND(&g, walk, .start = META_ROOT, .path = TEXT("dir/e")), -EACCES);
    ck_assert_int_eq(SEND(&g, readdir, .inode = at.dir), -EACCES);
    rig_fini(&g);
}

/* List in pages of `page`, changing the directory on the way; every name that was there all the time comes once. */
static void list_while_changing(uint32_t n, uint32_t page, bool flush)
{
    const struct meta_options o = {.whole_dir_names = 100};
    rig_init(&g, &o);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    static uint8_t seen[3000];
    char name[32], after[32] = "";
    for (uint32_t i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "f%05u", i);
        make_file(&g, d, name);
        if (i == n / 2) {
            rig_commit(&g);
            if (flush)
                rig_flush(&g);
        }
    }
    memset(seen, 0, sizeof(seen));
    for (uint32_t pages = 0, end = 0; !end; pages++) {
        ck_assert_int_eq(
            SEND(&g, readdir, .inode = d, .after = text_of(after), .max_entries = page, .flags = READDIR_ATTR), 0);
        end = g.q.answer.readdir.end;
        ck_assert_uint_le(g.q.answer.readdir.entries.count, page);
        ck_assert(end || g.q.answer.readdir.entries.count > 0);
        rec_for_each (dir_entry, e, &g.q.answer.readdir.entries) {
            ck_assert_int_gt(text_compare(e.name, text_of(after)), 0);
            memcpy(after, e.name.p, e.name.n);
            after[e.name.n] = 0;
            ck_assert(e.attr.inode == e.inode && e.type == DT_REG);
            seen[atoi(after + 1)]++;
        }
        snprintf(name, sizeof(name), "f%05u", (pages * 7919) % n); /* odd ones come and go */
        uint32_t k = (uint32_t)atoi(name + 1);
        if (k % 2 && look(&g, d, name) == 0)
            ck_assert_int_eq(SEND(&g, unlink, .parent = d, .name = text_of(name)), 0);
        else if (k % 2)
            make_file(&g, d, name);
        if (flush && pages % 5 == 0) {
            rig_commit(&g);
            rig_flush(&g);
        }
    }
    for (uint32_t i = 0; i < n; i++)
        ck_assert(seen[i] <= 1 && (i % 2 || seen[i] == 1));
    rig_fini(&g);
}

TEST(meta_ops_list_small_and_large_directories_while_they_change)
{
    list_while_changing(90, 7, false);
    list_while_changing(90, 7, true);
    list_while_changing(2500, 64, false);
    list_while_changing(2500, 64, true);
    list_while_changing(2500, 4000, true);
}

TEST(meta_ops_list_past_pages_of_the_base_that_are_all_removed)
{
    const struct meta_options o = {.whole_dir_names = 20};
    rig_init(&g, &o);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    char name[16], after[16] = "";
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "f%03d", i);
        make_file(&g, d, name);
    }
    rig_commit(&g);
    rig_flush(&g);
    for (int i = 0; i < 300; i++) { /* two stretches go, some of the rest in delta and overlay */
        snprintf(name, sizeof(name), "f%03d", i);
        if (i < 150 || (i >= 200 && i < 290))
            ck_assert_int_eq(SEND(&g, unlink, .parent = d, .name = text_of(name)), 0);
        if (i == 100)
            rig_commit(&g);
    }
    int next = 150;
    for (bool end = false; !end;) {
        ck_assert_int_eq(SEND(&g, readdir, .inode = d, .after = text_of(after), .max_entries = 7), 0);
        end = g.q.answer.readdir.end;
        rec_for_each (dir_entry, e, &g.q.answer.readdir.entries) {
            snprintf(name, sizeof(name), "f%03d", next);
            ck_assert(text_equal(e.name, text_of(name)));
            next = next == 199 ? 290 : next + 1;
            memcpy(after, e.name.p, e.name.n);
            after[e.name.n] = 0;
        }
    }
    ck_assert_int_eq(next, 300);
    rig_fini(&g);
}

TEST(meta_ops_list_within_the_bytes_asked_for)
{
    struct place at = place_init();
    ck_assert_int_eq(SEND(&g, readdir, .inode = at.dir, .max_bytes = 512), 0);
    ck_assert(!g.q.answer.readdir.end || g.q.answer.readdir.entries.bytes <= 512);
    ck_assert_uint_le(g.q.answer.readdir.entries.bytes, 512);
    ck_assert_int_eq(SEND(&g, readdir, .inode = at.dir, .max_bytes = 10), -EINVAL);
    ck_assert_int_eq(SEND(&g, readdir, .inode = at.dir), 0);
    ck_assert(g.q.answer.readdir.end && g.q.answer.readdir.entries.count == 4 &&
              g.q.answer.readdir.parent == META_ROOT);
    struct buf b = {0};
    ck_assert_int_eq(meta_answer_encode(&g.q, &b), 0);
    struct msg_readdir_answer back;
    ck_assert_int_eq(msg_readdir_answer_decode(b.p, b.n, &back), 0);
    ck_assert_uint_eq(back.entries.count, 4);
    buf_fini(&b);
    rig_fini(&g);
}

/* --- xattrs ----------------------------------------------------------------------------------------------------------------------- */

TEST(meta_ops_xattrs_as_in_the_manual)
{
    struct place at = place_init();
    const struct {
        struct text name;
        int set, get;
    } names[] = {{TEXT("user."), -EINVAL, -EINVAL},
                 {TEXT("system.x"), -EOPNOTSUPP, -EOPNOTSUPP},
                 {TEXT("nothing"), -EOPNOTSUPP, -EOPNOTSUPP},
                 {{"user.a\0b", 8}, -EINVAL, -EINVAL},
                 {{"", 0}, -ERANGE, -ERANGE},
                 {TEXT("user.a"), 0, 0},
                 {TEXT("trusted.a"), 0, 0},
                 {TEXT("security.a"), 0, 0}};
    for (size_t i = 0; i < array_size(names); i++) {
        ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = names[i].name, .value = TEXT("v")), names[i].set);
        ck_assert_int_eq(SEND(&g, getxattr, .inode = at.f, .name = names[i].name), names[i].get);
    }
    static char name[300] = "user.";
    memset(name + 5, 'n', 290);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = {name, 256}), -ERANGE);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = {name, 255}), 0);
    ck_assert_int_eq(SEND(&g, getxattr, .inode = at.f, .name = {name, 255}), 0); /* an empty value */
    ck_assert_uint_eq(g.q.answer.getxattr.value.n, 0);
    char *big cleanup(freep) = calloc(1, META_XATTR_MAX + 1);
    memset(big, 'b', META_XATTR_MAX);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("user.big"), .value = {big, META_XATTR_MAX + 1}),
                     -E2BIG);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("user.big"), .value = {big, META_XATTR_MAX}), 0);
    rig_commit(&g);
    rig_flush(&g);
    ck_assert_int_eq(SEND(&g, getxattr, .inode = at.f, .name = TEXT("user.big")), 0);
    ck_assert(text_equal(g.q.answer.getxattr.value, (struct text){big, META_XATTR_MAX}));
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("user.a"), .flags = 1), -EEXIST);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("user.b"), .flags = 2), -ENODATA);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("user.b"), .flags = 4), -EINVAL);
    ck_assert_int_eq(SEND(&g, removexattr, .inode = at.f, .name = TEXT("user.b")), -ENODATA);
    ck_assert_int_eq(SEND(&g, removexattr, .inode = at.f, .name = TEXT("user.a")), 0);
    ck_assert_int_eq(SEND(&g, getxattr, .inode = at.f, .name = TEXT("user.a")), -ENODATA);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.p, .name = TEXT("user.a")), -EPERM); /* a fifo */
    ck_assert_int_eq(SEND(&g, getxattr, .inode = at.s, .name = TEXT("user.a")), -ENODATA);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.e, .name = TEXT("user.a")), 0);
    ck_assert(attr_of(at.f).flags & INODE_HAS_XATTR);
    as(7, 7);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("user.z")), -EACCES);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("trusted.z")), -EPERM);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = TEXT("security.z")), -EPERM);
    ck_assert_int_eq(SEND(&g, getxattr, .inode = at.f, .name = TEXT("trusted.a")), -ENODATA);
    ck_assert_int_eq(SEND(&g, listxattr, .inode = at.f), 0); /* without trusted. */
    ck_assert_uint_eq(g.q.answer.listxattr.names.n, sizeof("security.a") + sizeof("user.big") + 256);
    as(0, 0);
    ck_assert_int_eq(SEND(&g, listxattr, .inode = at.f), 0);
    ck_assert_uint_eq(g.q.answer.listxattr.names.n,
                      sizeof("security.a") + sizeof("user.big") + 256 + sizeof("trusted.a"));
    rig_fini(&g);
}

TEST(meta_ops_xattr_names_have_room_for_one_list)
{
    struct place at = place_init();
    char name[256];
    uint32_t n = 0;
    for (int r = 0; r == 0; n++) {
        snprintf(name, sizeof(name), "user.%0250u", n);
        r = SEND(&g, setxattr, .inode = at.f, .name = {name, 255});
        if (r < 0)
            ck_assert_int_eq(r, -ENOSPC);
    }
    ck_assert_uint_eq(n - 1, META_XATTR_MAX / 256);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = {name, 255}, .flags = 0), -ENOSPC);
    snprintf(name, sizeof(name), "user.%0250u", 3);
    ck_assert_int_eq(SEND(&g, setxattr, .inode = at.f, .name = {name, 255}, .value = TEXT("over")), 0);
    ck_assert_int_eq(SEND(&g, listxattr, .inode = at.f), 0);
    ck_assert_uint_eq(g.q.answer.listxattr.names.n, META_XATTR_MAX);
    rig_fini(&g);
}

/* --- opening ---------------------------------------------------------------------------------------------------------------------- */

TEST(meta_ops_open_and_create)
{
    struct place at = place_init();
    const struct msg_create_answer *a = &g.q.answer.create;
    ck_assert_int_eq(
        SEND(&g, create, .parent = at.dir, .name = TEXT("n"), .mode = 0666, .umask = 022, .flags = O_RDWR | O_EXCL), 0);
    ck_assert(a->created && a->handle && a->attr.mode == (S_IFREG | 0644) && a->parent.inode == at.dir);
    uint64_t n = a->attr.inode, handle = a->handle;
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("n"), .flags = O_RDWR | O_EXCL), -EEXIST);
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("n"), .flags = O_RDWR), 0);
    ck_assert(!a->created && a->attr.inode == n && a->handle != handle);
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("e"), .flags = O_RDONLY), -EISDIR);
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("s"), .flags = O_RDONLY), -ELOOP);
    ck_assert_int_eq(SEND(&g, setattr, .inode = n, .valid = SETATTR_SIZE, .size = 100), 0);
    ck_assert_int_eq(SEND(&g, open, .inode = n, .flags = O_WRONLY | O_TRUNC), 0);
    ck_assert(g.q.answer.open.attr.size == 0 && g.q.changed);
    ck_assert_int_eq(SEND(&g, open, .inode = n, .flags = O_RDONLY), 0);
    ck_assert(!g.q.changed);
    ck_assert_int_eq(SEND(&g, open, .inode = at.e, .flags = O_RDONLY | O_DIRECTORY), 0);
    ck_assert_int_eq(SEND(&g, open, .inode = n, .flags = O_RDONLY | O_DIRECTORY), -ENOTDIR);
    ck_assert_int_eq(SEND(&g, open, .inode = at.e, .flags = O_WRONLY), -EISDIR);
    ck_assert_int_eq(SEND(&g, open, .inode = at.s, .flags = O_RDONLY), -ELOOP);
    ck_assert_int_eq(SEND(&g, close, .inode = n, .handle = handle), 0);
    ck_assert_int_eq(SEND(&g, close, .inode = n, .handle = handle), 0); /* twice: nothing */
    as(7, 7);
    ck_assert_int_eq(SEND(&g, open, .inode = n, .flags = O_RDONLY), 0);
    ck_assert_int_eq(SEND(&g, open, .inode = n, .flags = O_WRONLY), -EACCES);
    ck_assert_int_eq(SEND(&g, open, .inode = n, .flags = O_RDONLY | O_TRUNC), -EACCES);
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("z")), -EACCES);
    rig_fini(&g);
}

TEST(meta_ops_numbers_of_handles_come_round_without_being_given_twice)
{
    rig_init(&g, NULL);
    uint64_t f = make_file(&g, META_ROOT, "f"), e = make_file(&g, META_ROOT, "e"), handles[4];
    ck_assert_int_eq(SEND(&g, open, .inode = f, .flags = O_RDWR), 0);
    uint64_t first = g.q.answer.open.handle;
    g.m->sessions.next_handle = (uint32_t)first - 3; /* 2^32 - 3 later */
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(SEND(&g, open, .inode = e, .flags = O_RDWR), 0);
        handles[i] = g.q.answer.open.handle;
        ck_assert_uint_ne(handles[i], first);
    }
    ck_assert_uint_eq(handles[1], first - 1);
    ck_assert_uint_eq(handles[2], first + 1);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .handle = first, .valid = SETATTR_SIZE, .size = 7), 0);
    rig_fini(&g);
}

TEST(meta_ops_a_program_is_opened_by_who_may_execute_it)
{
    struct place at = place_init();
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("x"), .mode = 0711, .flags = O_RDWR), 0);
    uint64_t x = g.q.answer.create.attr.inode;
    ck_assert_int_eq(SEND(&g, create, .parent = at.dir, .name = TEXT("r"), .mode = 0644, .flags = O_RDWR), 0);
    uint64_t r = g.q.answer.create.attr.inode;
    as(7, 7);
    ck_assert_int_eq(SEND(&g, open, .inode = x, .flags = O_RDONLY), -EACCES);
    ck_assert_int_eq(SEND(&g, open, .inode = x, .flags = O_RDONLY | OPEN_EXEC), 0);
    ck_assert_int_eq(SEND(&g, open, .inode = x, .flags = O_RDWR | OPEN_EXEC), -EACCES);
    ck_assert_int_eq(SEND(&g, open, .inode = r, .flags = O_RDONLY | OPEN_EXEC), -EACCES);
    rig_fini(&g);
}

TEST(meta_ops_truncate_by_a_handle_that_was_opened_for_writing)
{
    rig_init(&g, NULL);
    uint64_t d = make_dir(&g, META_ROOT, "d");
    ck_assert_int_eq(SEND(&g, setattr, .inode = d, .valid = SETATTR_MODE, .mode = 0777), 0);
    as(1, 1);
    ck_assert_int_eq(SEND(&g, create, .parent = d, .name = TEXT("f"), .mode = 0444, .flags = O_RDWR), 0);
    uint64_t f = g.q.answer.create.attr.inode, handle = g.q.answer.create.handle;
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 7), -EACCES);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 7, .handle = handle + 1), -EACCES);
    ck_assert_int_eq(SEND(&g, setattr, .inode = f, .valid = SETATTR_SIZE, .size = 7, .handle = handle), 0);
    ck_assert_int_eq(SEND(&g, statfs, .inode = f), 0);
    rig_commit(&g);
    ck_assert_int_eq(SEND(&g, statfs, .inode = f), 0);
    ck_assert(g.q.answer.statfs.inodes == 3 && g.q.answer.statfs.name_max == 255);
    rig_fini(&g);
}
