/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/random.h"
#include "tests/unit/unit.h"

static const char *make_dir(void)
{
    static char dir[300];
    snprintf(dir, sizeof(dir), "%s/snapshot", unit_tempdir());
    mkdir(dir, 0700);
    return dir;
}

static void put_file(const char *dir, const char *name, uint64_t size, uint64_t seed)
{
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    struct prng p = {seed};
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t v = prng_next(&p);
        fwrite(&v, 1, (size_t)min(size - at, (uint64_t)8), f);
    }
    fclose(f);
}

static void flip(const char *dir, const char *name, uint64_t at)
{
    char path[400], c;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pread(fd, &c, 1, (off_t)at), 1);
    c ^= 1;
    ck_assert_int_eq(pwrite(fd, &c, 1, (off_t)at), 1);
    close(fd);
}

static struct manifest sample(const char *dir)
{
    put_file(dir, "000012.sst", 2 * MANIFEST_CHUNK + 77, 1);
    put_file(dir, "CURRENT", 16, 2);
    put_file(dir, "empty", 0, 3);
    put_file(dir, "LOCK", 0, 4);
    put_file(dir, "LOG.old.17", 5, 5);
    struct manifest m = {.id = 9, .index = 1000, .term = 7, .chain = 0xabc, .conf_index = 3, .incarnation = 2};
    ck_assert_int_eq(buf_append(&m.conf, "conf", 4), 0);
    ck_assert_int_eq(manifest_scan(dir, &m), 0);
    return m;
}

TEST(manifest_written_and_read_describes_the_data_files)
{
    const char *dir = make_dir();
    struct manifest m = sample(dir), back;
    ck_assert_uint_eq(m.file_count, 3);
    ck_assert_int_eq(manifest_write(dir, &m), 0);
    ck_assert_int_eq(manifest_read(dir, &back), 0);
    ck_assert_uint_eq(back.index, 1000);
    ck_assert_uint_eq(back.chain, 0xabc);
    ck_assert_uint_eq(back.conf.n, 4);
    ck_assert_uint_eq(manifest_bytes(&back), 2 * MANIFEST_CHUNK + 77 + 16);
    ck_assert_ptr_nonnull(manifest_find(&back, "CURRENT"));
    ck_assert_ptr_null(manifest_find(&back, "LOCK"));
    ck_assert_int_eq(manifest_verify(dir, &back, NULL), 0);
    manifest_fini(&m);
    manifest_fini(&back);
}

TEST(manifest_notices_a_flipped_bit_a_missing_file_and_a_byte_too_many)
{
    const char *dir = make_dir(), *bad = NULL;
    struct manifest m = sample(dir);
    uint64_t good;
    flip(dir, "000012.sst", MANIFEST_CHUNK + 5);
    ck_assert_int_eq(manifest_verify(dir, &m, &bad), -CV_BAD_CHECKSUM);
    ck_assert_str_eq(bad, "000012.sst");
    /* What is before it can be kept. */
    ck_assert_int_eq(manifest_check_prefix(dir, manifest_find(&m, "000012.sst"), &good), 0);
    ck_assert_uint_eq(good, MANIFEST_CHUNK);
    flip(dir, "000012.sst", MANIFEST_CHUNK + 5);
    ck_assert_int_eq(manifest_verify(dir, &m, &bad), 0);
    put_file(dir, "CURRENT", 17, 2);
    ck_assert_int_eq(manifest_verify(dir, &m, &bad), -CV_BAD_CHECKSUM);
    char path[400];
    snprintf(path, sizeof(path), "%s/CURRENT", dir);
    unlink(path);
    ck_assert_int_eq(manifest_verify(dir, &m, &bad), -ENOENT);
    ck_assert_int_eq(manifest_check_prefix(dir, manifest_find(&m, "CURRENT"), &good), 0);
    ck_assert_uint_eq(good, 0);
    manifest_fini(&m);
}

TEST(manifest_refuses_every_truncation_and_every_flipped_bit)
{
    struct manifest m = sample(make_dir()), back;
    struct buf b cleanup(buf_fini) = {0};
    ck_assert_int_eq(manifest_encode(&m, &b), 0);
    for (size_t n = 0; n < b.n; n++)
        ck_assert_int_lt(manifest_decode(b.p, n, &back), 0);
    for (size_t i = 0; i < 8 * b.n; i++) {
        b.p[i / 8] ^= (uint8_t)(1u << i % 8);
        ck_assert_int_lt(manifest_decode(b.p, b.n, &back), 0);
        b.p[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    ck_assert_int_eq(manifest_decode(b.p, b.n, &back), 0);
    manifest_fini(&m);
    manifest_fini(&back);
}

TEST(manifest_names_no_file_outside_of_its_directory)
{
    struct manifest m = {.id = 1};
    struct manifest_file *f;
    ck_assert_int_eq(manifest_add(&m, TEXT("../passwd"), 0, &f), -EINVAL);
    ck_assert_int_eq(manifest_add(&m, TEXT(".."), 0, &f), -EINVAL);
    ck_assert_int_eq(manifest_add(&m, TEXT("a/b"), 0, &f), -EINVAL);
    ck_assert_int_eq(manifest_add(&m, TEXT(""), 0, &f), -EINVAL);
    ck_assert_int_eq(manifest_add(&m, TEXT("b"), 0, &f), 0);
    ck_assert_int_eq(manifest_add(&m, TEXT("b"), 0, &f), -EINVAL);
    ck_assert_int_eq(manifest_add(&m, TEXT("a"), 0, &f), -EINVAL);
    manifest_fini(&m);
}
