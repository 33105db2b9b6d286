/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/random.h"
#include "meta/meta_cursor.h"
#include "meta/meta_redo.h"

static struct text bytes(const void *p, size_t n)
{
    return (struct text){p, (uint32_t)n};
}

/* A decoder takes exactly its own bytes: any cut and any trailing byte is refused, another version is too new or damaged. */
static void exact(const uint8_t *row, uint32_t n, int (*decode)(struct text value), bool version_in_high_bits)
{
    uint8_t *copy = malloc(n + 1);
    ck_assert_int_eq(decode(bytes(row, n)), 0);
    for (uint32_t cut = 0; cut < n; cut++) {
        uint8_t *shorter = malloc(cut + 1); /* its own block, so that a sanitizer sees reading behind it */
        memcpy(shorter, row, cut);
        ck_assert_int_eq(decode(bytes(shorter, cut)), -CV_BAD_FORMAT);
        free(shorter);
    }
    memcpy(copy, row, n);
    copy[n] = 0;
    ck_assert_int_eq(decode(bytes(copy, n + 1)), -CV_BAD_FORMAT);
    copy[0] = (uint8_t)(row[0] + (version_in_high_bits ? 16 : 1));
    ck_assert_int_eq(decode(bytes(copy, n)), -CV_FORMAT_TOO_NEW);
    copy[0] = version_in_high_bits ? row[0] & 15 : 0;
    ck_assert_int_eq(decode(bytes(copy, n)), -CV_BAD_FORMAT);
    free(copy);
}

/* --- inode ------------------------------------------------------------------------------------------------------------------ */

static int decode_inode(struct text v)
{
    struct meta_inode i;
    return meta_inode_decode(7, v, &i);
}

static struct meta_inode full_inode(void)
{
    return (struct meta_inode){
        .id = 7,
        .mode = S_IFLNK | 0777,
        .uid = 1000,
        .gid = 0xffffffff,
        .nlink = 3,
        .flags = INODE_FLAGS_ALL,
        .size = 1ull << 62,
        .parent = 5,
        .change = 9,
        .mtime_ns = -5,
        .atime_ns = INT64_MAX,
        .ctime_ns = INT64_MIN,
        .btime_ns = 77,
        .entries = 12,
        .rdev = 0x801,
        .target = TEXT("to"),
        .base_version = 4,
        .base_bytes = 1ull << 40,
        .epoch = 6,
        .ufs_mtime_ns = 123,
        .ufs_length = 456,
        .ufs_etag = TEXT("\"etag\""),
        .ufs_at = TEXT("old/key"),
        .ttl_due_ns = 99,
        .ufs_flags = 2,
        .mount = 8,
        .xattr_count = 2,
        .xattr_name_bytes = 20,
        .ttl_action = 1,
        .replicas = 3,
        .tier = 2,
        .policy_flags = 1,
        .block_shift = 26,
    };
}

TEST(meta_format_inode_with_everything_in_it_comes_back)
{
    uint8_t row[META_INODE_MAX], again[META_INODE_MAX];
    struct meta_inode i = full_inode(), back;
    uint32_t n = meta_inode_encode(&i, row);
    ck_assert_int_eq(meta_inode_decode(7, bytes(row, n), &back), 0);
    ck_assert_uint_eq(meta_inode_encode(&back, again), n);
    ck_assert_mem_eq(row, again, n);
    ck_assert(back.mode == i.mode && back.uid == i.uid && back.gid == i.gid && back.nlink == i.nlink);
    ck_assert(back.flags == i.flags && back.size == i.size && back.parent == i.parent && back.change == i.change);
    ck_assert(back.mtime_ns == i.mtime_ns && back.atime_ns == i.atime_ns && back.ctime_ns == i.ctime_ns);
    ck_assert(back.btime_ns == i.btime_ns && back.entries == i.entries && back.rdev == i.rdev);
    ck_assert(text_equal(back.target, i.target) && text_equal(back.ufs_etag, i.ufs_etag));
    ck_assert(text_equal(back.ufs_at, i.ufs_at) && back.base_version == i.base_version && back.epoch == i.epoch);
    ck_assert_uint_eq(back.base_bytes, i.base_bytes);
    ck_assert(back.ufs_mtime_ns == i.ufs_mtime_ns && back.ufs_length == i.ufs_length && back.ufs_flags == i.ufs_flags);
    ck_assert(back.ttl_due_ns == i.ttl_due_ns && back.ttl_action == i.ttl_action && back.mount == i.mount);
    ck_assert(back.replicas == 3 && back.tier == 2 && back.policy_flags == 1 && back.block_shift == 26);
    ck_assert(back.xattr_count == 2 && back.xattr_name_bytes == 20);
    exact(row, n, decode_inode, false);
}

TEST(meta_format_inode_of_an_ordinary_file_is_small_and_has_these_bytes)
{
    uint8_t row[META_INODE_MAX];
    const int64_t t = 1700000000000000000;
    const struct meta_inode i = {.id = 5000,
                                 .mode = S_IFREG | 0644,
                                 .uid = 1000,
                                 .gid = 1000,
                                 .nlink = 1,
                                 .size = 300,
                                 .parent = 4096,
                                 .change = 2,
                                 .mtime_ns = t,
                                 .atime_ns = t,
                                 .ctime_ns = t,
                                 .btime_ns = t - 1};
    const uint8_t golden[] = {1,    0xa4, 0x81, 0,    2,    0xe8, 7,    0xe8, 7,    1,    0xac, 2, 0x80,
                              0x20, 0,    0x00, 0x00, 0x7f, 0xc6, 0x44, 0x8d, 0x97, 0x17, 0,    0, 2};
    uint32_t n = meta_inode_encode(&i, row);
    put_le64((uint8_t *)(uintptr_t)golden + 15, (uint64_t)t);
    ck_assert_uint_eq(n, sizeof(golden));
    ck_assert_mem_eq(row, golden, n);
    exact(row, n, decode_inode, false);
}

static int decode_mount(struct text v)
{
    struct meta_mount_row m;
    return meta_mount_decode(3, v, &m);
}

static int decode_worker(struct text v)
{
    struct meta_worker_row w;
    return meta_worker_decode(3, v, &w);
}

TEST(meta_format_mount_and_worker_rows_come_back)
{
    uint8_t row[META_MOUNT_MAX], params[256], *end = params;
    end = meta_param_put(end, TEXT("endpoint"), TEXT("http://x"));
    end = meta_param_put(end, TEXT("region"), TEXT(""));
    const struct meta_mount_row m = {.mount = 3,
                                     .mode = 2,
                                     .written = true,
                                     .flags = 1,
                                     .inode = 1ull << 40,
                                     .created_ns = 123456789,
                                     .name = TEXT("data"),
                                     .path = TEXT("/a/data"),
                                     .uri = TEXT("s3://b/p"),
                                     .param_count = 2,
                                     .params = bytes(params, (size_t)(end - params))};
    struct meta_mount_row back;
    struct text left, name, value;
    uint32_t n = meta_mount_encode(&m, row);
    ck_assert_uint_le(n, meta_mount_bytes(&m));
    ck_assert_int_eq(meta_mount_decode(3, bytes(row, n), &back), 0);
    ck_assert(back.mount == 3 && back.mode == 2 && back.written && back.flags == 1 && back.inode == m.inode &&
              back.created_ns == m.created_ns && back.param_count == 2);
    ck_assert(text_equal(back.name, m.name) && text_equal(back.path, m.path) && text_equal(back.uri, m.uri));
    left = back.params;
    ck_assert(meta_param_next(&left, &name, &value) && text_equal(name, TEXT("endpoint")) &&
              text_equal(value, TEXT("http://x")));
    ck_assert(meta_param_next(&left, &name, &value) && text_equal(name, TEXT("region")) && value.n == 0);
    ck_assert(!meta_param_next(&left, &name, &value));
    exact(row, n, decode_mount, false);

    const struct meta_worker_row w = {.worker = 3,
                                      .weight = 300,
                                      .in = true,
                                      .address = TEXT("h:1"),
                                      .socket = TEXT("/s"),
                                      .host = TEXT("id"),
                                      .boot = TEXT("b")};
    struct meta_worker_row same;
    const uint8_t golden[] = {1, 0xac, 2, 1, 3, 'h', ':', '1', 2, '/', 's', 2, 'i', 'd', 1, 'b'};
    n = meta_worker_encode(&w, row);
    ck_assert_uint_eq(n, sizeof(golden));
    ck_assert_mem_eq(row, golden, n);
    ck_assert_int_eq(meta_worker_decode(3, bytes(row, n), &same), 0);
    ck_assert(same.weight == 300 && same.in && text_equal(same.boot, w.boot) && text_equal(same.host, w.host));
    exact(row, n, decode_worker, false);
}

TEST(meta_format_refuses_presence_and_flag_bits_it_does_not_know)
{
    uint8_t row[META_INODE_MAX];
    struct meta_inode i = {.mode = S_IFREG};
    uint32_t n = meta_inode_encode(&i, row);
    row[3] = 0x40; /* present: one byte, no part follows */
    ck_assert_int_eq(decode_inode(bytes(row, n)), -CV_BAD_FORMAT);
    uint8_t wide[META_INODE_MAX];
    memcpy(wide, row, 3);
    wide[3] = 0x80, wide[4] = 0x08; /* 1024: a part of the future */
    memcpy(wide + 5, row + 4, n - 4);
    ck_assert_int_eq(decode_inode(bytes(wide, n + 1)), -CV_FORMAT_TOO_NEW);
    i.flags = INODE_FLAGS_ALL + 1;
    n = meta_inode_encode(&i, row);
    ck_assert_int_eq(decode_inode(bytes(row, n)), -CV_FORMAT_TOO_NEW);
}

/* --- the others ------------------------------------------------------------------------------------------------------------- */

static int decode_dentry(struct text v)
{
    struct meta_dentry d;
    return meta_dentry_decode(v, &d);
}

static int decode_extent(struct text v)
{
    struct meta_extent e;
    return meta_extent_decode(v, &e);
}

static int decode_session(struct text v)
{
    struct meta_session_row s;
    return meta_session_decode(v, &s);
}

static int decode_slot(struct text v)
{
    struct meta_slot_row s;
    return meta_slot_decode(v, &s);
}

static int decode_u64(struct text v)
{
    uint64_t x;
    return meta_u64_decode(v, &x);
}

static int decode_limit(struct text v)
{
    uint64_t x;
    return meta_limit_decode(v, &x);
}

static int decode_state(struct text v)
{
    struct meta_state s;
    return meta_state_decode(v, &s);
}

TEST(meta_format_dentry)
{
    uint8_t row[16];
    struct meta_dentry back;
    uint32_t n = meta_dentry_encode(&(struct meta_dentry){5000, DT_DIR}, row);
    ck_assert_uint_eq(n, 3);
    ck_assert_mem_eq(row, "\x14\x88\x27", 3);
    ck_assert_int_eq(meta_dentry_decode(bytes(row, n), &back), 0);
    ck_assert(back.child == 5000 && back.type == DT_DIR);
    exact(row, n, decode_dentry, true);
}

TEST(meta_format_extent)
{
    uint8_t row[128];
    struct meta_extent e = {9, 1ull << 40, 4096, META_REPLICAS_MAX, {1, 2, 3, 4, 5, 6, 7, ~0ull}}, back;
    uint32_t n = meta_extent_encode(&e, row);
    ck_assert_int_eq(meta_extent_decode(bytes(row, n), &back), 0);
    ck_assert_mem_eq(&e, &back, sizeof(e));
    exact(row, n, decode_extent, false);
    row[1 + 1 + 6 + 2] = META_REPLICAS_MAX + 1; /* the count */
    ck_assert_int_eq(decode_extent(bytes(row, n)), -CV_BAD_FORMAT);
}

TEST(meta_format_session_slot_and_numbers)
{
    uint8_t row[1024];
    const struct meta_session_row s = {64, 12, 99, TEXT("host"), TEXT("prog"), TEXT("/mnt")};
    struct meta_session_row s_back;
    uint32_t n = meta_session_encode(&s, row);
    ck_assert_int_eq(meta_session_decode(bytes(row, n), &s_back), 0);
    ck_assert(s_back.slots == 64 && s_back.pid == 12 && s_back.opened_ns == 99);
    ck_assert(text_equal(s_back.host, s.host) && text_equal(s_back.mount_point, s.mount_point));
    exact(row, n, decode_session, false);

    const struct meta_slot_row t = {1ull << 50, 0x130, 1, 5000, 1, 1ull << 33};
    struct meta_slot_row t_back;
    n = meta_slot_encode(&t, row);
    ck_assert_uint_le(n, 256);
    ck_assert_int_eq(meta_slot_decode(bytes(row, n), &t_back), 0);
    ck_assert(t_back.sequence == t.sequence && t_back.type == t.type && t_back.flags == 1 && t_back.inode == 5000 &&
              t_back.other == 1 && t_back.handle == t.handle);
    exact(row, n, decode_slot, false);

    uint64_t x;
    n = meta_u64_encode(123456789012, row);
    ck_assert_int_eq(meta_u64_decode(bytes(row, n), &x), 0);
    ck_assert_uint_eq(x, 123456789012);
    exact(row, n, decode_u64, false);
    n = meta_limit_encode(1ull << 47, row);
    ck_assert_int_eq(meta_limit_decode(bytes(row, n), &x), 0);
    ck_assert_uint_eq(x, 1ull << 47);
    exact(row, n, decode_limit, false);

    const struct meta_state a = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct meta_state a_back;
    n = meta_state_encode(&a, row);
    ck_assert_uint_eq(n, META_STATE_SIZE);
    ck_assert_int_eq(meta_state_decode(bytes(row, n), &a_back), 0);
    ck_assert(a_back.applied == 1 && a_back.digest == 2 && a_back.bytes == 7 && a_back.feature_level == 8 &&
              a_back.incarnation == 9);
    exact(row, n, decode_state, false);
}

TEST(meta_format_varints_have_one_form)
{
    const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, 1ull << 32, (1ull << 63) - 1, 1ull << 63, ~0ull};
    uint8_t p[16];
    for (size_t i = 0; i < array_size(values); i++) {
        uint64_t back;
        uint8_t *end = varint_put(p, values[i]);
        const uint8_t *at = p;
        ck_assert_int_eq(varint_get(&at, end, &back), 0);
        ck_assert(at == end && back == values[i]);
        at = p;
        ck_assert_int_eq(varint_get(&at, end - 1, &back), -CV_BAD_FORMAT);
    }
    static const struct {
        const char *bytes;
        uint32_t n;
    } bad[] = {{"\x80\x00", 2},
               {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10},
               {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}};
    for (size_t i = 0; i < array_size(bad); i++) {
        const uint8_t *at = (const uint8_t *)bad[i].bytes;
        uint64_t v;
        ck_assert_int_eq(varint_get(&at, at + bad[i].n, &v), -CV_BAD_FORMAT);
    }
}

TEST(meta_format_keys_sort_as_numbers_and_know_their_shape)
{
    uint8_t a[META_KEY_MAX], b[META_KEY_MAX];
    uint32_t an = meta_key_inode(255, a), bn = meta_key_inode(256, b);
    ck_assert_int_lt(text_compare(bytes(a, an), bytes(b, bn)), 0);
    an = meta_key_dentry(1, TEXT("zz"), a);
    bn = meta_key_dentry(2, TEXT("a"), b);
    ck_assert_int_lt(text_compare(bytes(a, an), bytes(b, bn)), 0);
    ck_assert(meta_key_fits(META_TABLE_dentry, bytes(a, an)));
    ck_assert(!meta_key_fits(META_TABLE_dentry, bytes(a, 8))); /* without a name */
    ck_assert(!meta_key_fits(META_TABLE_inode, bytes(a, an)));
    an = meta_key_slot(5, 63, a);
    ck_assert(meta_key_fits(META_TABLE_slot, bytes(a, an)));
    ck_assert(!meta_key_fits(META_TABLE_session, bytes(a, an)));
    a[0] = 'S';
    ck_assert(!meta_key_fits(META_TABLE_slot, bytes(a, an)));
    char name[META_NAME_MAX + 1];
    memset(name, 'n', sizeof(name));
    an = meta_key_xattr(5, bytes(name, META_NAME_MAX), a);
    ck_assert(meta_key_fits(META_TABLE_xattr, bytes(a, an)));
    ck_assert(!meta_key_fits(META_TABLE_xattr, bytes(a, an + 1)));
    for (int t = 0; t < 256; t++)
        ck_assert(meta_table_known((uint8_t)t) == (t >= 1 && t < META_TABLE_COUNT));
    ck_assert_str_eq(meta_table_name(META_TABLE_orphan), "orphan");
    ck_assert_str_eq(meta_table_name(99), "?");
    ck_assert_str_eq(redo_kind_name(REDO_rename), "rename");
    ck_assert_str_eq(redo_kind_name(200), "?");
    ck_assert_str_eq(meta_family_name(META_FAMILY_queue), "queue");
}

/* --- redo ------------------------------------------------------------------------------------------------------------------- */

/* A small record: one operation, an inode row and a removed name. */
static uint32_t small_record(uint8_t *p)
{
    uint8_t *at = p + REDO_HEADER_SIZE;
    const struct redo_op op = {REDO_create, 1000, 2000, 5000, 1, 0};
    const struct meta_inode i = {.id = 5000, .mode = S_IFREG | 0644, .nlink = 1, .parent = 1, .change = 1};
    uint32_t ops = redo_op_encode(&op, at);
    at += ops;
    *at++ = META_TABLE_inode;
    *at++ = 8;
    at += meta_key_inode(5000, at);
    uint8_t *length = at++;
    *length = (uint8_t)meta_inode_encode(&i, at);
    at += *length;
    *at++ = META_TABLE_dentry | REDO_DELETE;
    *at++ = 9;
    at += meta_key_dentry(1, TEXT("x"), at);
    const struct redo_header h = {1, 1, 2, 7, ops, 10, 2, 0, 300, 12345};
    redo_header_encode(&h, p);
    return (uint32_t)(at - p);
}

TEST(meta_format_redo_record_reads_as_written)
{
    uint8_t p[512];
    uint32_t n = small_record(p);
    struct redo_reader r;
    struct redo_op op;
    struct redo_row row;
    ck_assert_int_eq(redo_check(bytes(p, n)), 0);
    ck_assert_int_eq(redo_reader_init(&r, bytes(p, n)), 0);
    ck_assert(r.header.feature_level == 1 && r.header.op_count == 1 && r.header.row_count == 2 &&
              r.header.incarnation == 7);
    ck_assert(r.header.inodes == 10 && r.header.directories == 2 && r.header.bytes == 300 && r.header.time_ns == 12345);
    ck_assert_int_eq(redo_next_op(&r, &op), 0);
    ck_assert(op.kind == REDO_create && op.uid == 1000 && op.session == 2000 && op.inode == 5000 && op.other == 1);
    ck_assert_int_eq(redo_next_op(&r, &op), -ENODATA);
    ck_assert_int_eq(redo_next_row(&r, &row), 0);
    ck_assert(row.table == META_TABLE_inode && !row.deleted && get_be64(row.key.p) == 5000);
    ck_assert_int_eq(redo_next_row(&r, &row), 0);
    ck_assert(row.table == META_TABLE_dentry && row.deleted && row.value.n == 0);
    ck_assert_int_eq(redo_next_row(&r, &row), -ENODATA);
}

TEST(meta_format_redo_record_is_exact)
{
    uint8_t p[512], q[512];
    uint32_t n = small_record(p);
    for (uint32_t cut = 0; cut < n; cut++) {
        uint8_t *shorter = malloc(cut + 1);
        memcpy(shorter, p, cut);
        ck_assert_int_eq(redo_check(bytes(shorter, cut)), -CV_BAD_FORMAT);
        free(shorter);
    }
    memcpy(q, p, n);
    q[n] = 0;
    ck_assert_int_eq(redo_check(bytes(q, n + 1)), -CV_BAD_FORMAT);
    static const struct {
        int at, value, error;
    } bad[] = {
        {0, 'X', -CV_BAD_FORMAT},                                          /* magic */
        {2, REDO_VERSION + 1, -CV_FORMAT_TOO_NEW},                         /* version */
        {2, 0, -CV_BAD_FORMAT},                                            /* version */
        {3, 1, -CV_FORMAT_TOO_NEW},                                        /* a flag */
        {64, 1, -CV_FORMAT_TOO_NEW},                                       /* reserved */
        {8, 2, -CV_BAD_FORMAT},                                            /* op count */
        {8, 0, -CV_BAD_FORMAT},                                            /* ops left over */
        {12, 1, -CV_BAD_FORMAT},                                           /* a row left over */
        {12, 3, -CV_BAD_FORMAT},                                           /* a row too few */
        {60, 255, -CV_BAD_FORMAT},                                         /* ops length */
        {REDO_HEADER_SIZE, REDO_KIND_COUNT, -CV_FORMAT_TOO_NEW},           /* kind */
        {REDO_HEADER_SIZE, 0, -CV_FORMAT_TOO_NEW},                         /* kind */
        {REDO_HEADER_SIZE + 9, META_TABLE_COUNT, -CV_FORMAT_TOO_NEW},      /* table */
        {REDO_HEADER_SIZE + 9, META_TABLE_state, -CV_BAD_FORMAT},          /* never in the log; and no such key */
        {REDO_HEADER_SIZE + 9, META_TABLE_dentry, -CV_BAD_FORMAT},         /* key too short for that */
        {REDO_HEADER_SIZE + 10, 7, -CV_BAD_FORMAT},                        /* key length */
        {REDO_HEADER_SIZE + 20, META_ROW_VERSION + 1, -CV_FORMAT_TOO_NEW}, /* the row's own version */
    };
    for (size_t i = 0; i < array_size(bad); i++) {
        memcpy(q, p, n);
        q[bad[i].at] = (uint8_t)bad[i].value;
        ck_assert_msg(redo_check(bytes(q, n)) == bad[i].error, "case %zu: %s", i,
                      cv_error_name(redo_check(bytes(q, n))));
    }
}

TEST(meta_format_survives_noise_in_a_record)
{
    struct prng prng = {5};
    uint8_t p[512];
    uint32_t n = small_record(p);
    for (int i = 0; i < 200000; i++) {
        uint8_t *q = malloc(n);
        memcpy(q, p, n);
        for (uint32_t k = 0, flips = 1 + prng_below(&prng, 4); k < flips; k++)
            q[prng_below(&prng, n)] = (uint8_t)prng_next(&prng);
        (void)redo_check(bytes(q, n));
        free(q);
    }
}
