/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the block store: a store in a directory of its own, content that is a function of (inode, version,
 * offset), and fills and reads that check it.
 */
#pragma once

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "tests/unit/unit.h"
#include "worker/block_io.h"
#include "worker/block_state.h"
#include "worker/block_store.h"

#define MIB        (1u << 20)
#define KIB        (1u << 10)
#define TEST_BLOCK (4 * MIB) /* block_bytes of most tests */

static const struct block_identity_options test_identity = {
    .cluster = "cluster-of-tests", .worker_id = 7, .kind = BLOCK_SSD};

static inline const char *test_dir(void)
{
    static char path[256];
    if (!path[0]) /* the same in children */
        snprintf(path, sizeof(path), "%s/store", unit_tempdir());
    return path;
}

static inline struct block_store_options test_options(uint64_t capacity)
{
    struct block_store_options o = {.dir_count = 1, .worker_id = 7};
    o.dirs[0].path = test_dir();
    o.dirs[0].capacity_bytes = capacity;
    memcpy(o.cluster, test_identity.cluster, 16);
    return o;
}

static inline struct block_store *test_open(uint64_t capacity)
{
    struct block_store_options o = test_options(capacity);
    struct block_store *s = NULL;
    ck_ok(block_store_open(&o, &s));
    return s;
}

static inline struct block_store *test_new(uint64_t capacity)
{
    log_set_level(LOG_LEVEL_ERROR);
    ck_assert_int_eq(mkdir(test_dir(), 0700), 0);
    ck_ok(block_store_format(test_dir(), &test_identity));
    return test_open(capacity);
}

static inline struct block_store *test_reopen(struct block_store *s, uint64_t capacity)
{
    block_store_free(s);
    return test_open(capacity);
}

static inline struct block_key key_of(uint64_t inode, uint32_t index, uint64_t version)
{
    return (struct block_key){.inode = inode, .index = index, .version = version};
}

static inline struct block_place place_of(uint32_t length, uint64_t file_bytes)
{
    return (struct block_place){.block_bytes = TEST_BLOCK, .length = length, .file_bytes = file_bytes, .mount = 3};
}

/* The byte at an offset of a block; cheap, and different everywhere. */
__attribute__((no_sanitize("thread"))) static inline void pattern(const struct block_key *k, uint32_t offset, void *p,
                                                                  uint32_t n)
{
    uint8_t *out = p;
    for (uint32_t i = 0; i < n;) {
        uint32_t at = offset + i, within = at % 8;
        uint64_t word = hash_u64(k->inode * 0x100000001b3ull + k->version * 0x9e3779b97f4a7c15ull + k->index * 7919ull +
                                 (at / 8) * 0xd6e8feb86659fd93ull);
        for (; within < 8 && i < n; within++, i++)
            out[i] = (uint8_t)(word >> (8 * within));
    }
}

/* Fill the missing chunks of [first, first + count) with the pattern of pattern_key. */
static inline int fill_as(struct block_store *s, const struct block_key *k, const struct block_key *pattern_key,
                          const struct block_place *place, uint32_t first, uint32_t count, uint32_t fetched,
                          unsigned flags)
{
    struct block_fill *f cleanup(block_fill_end_p) = NULL;
    uint64_t mine;
    int r = block_fill_begin(s, k, place, first, count, flags, &f, &mine);
    if (r < 0)
        return r;
    char *buffer cleanup(freep) = malloc(MIB);
    for (uint32_t c = first; c < 64; c++) {
        if (!(mine >> c & 1))
            continue;
        uint32_t start = c * MIB, n = min(MIB, fetched - start);
        pattern(pattern_key, start, buffer, n);
        for (uint32_t at = 0; r == 0 && at < n; at += 100 * KIB) /* pieces that do not end with units */
            r = block_fill_write(f, start + at, buffer + at, min(n - at, 100 * KIB));
        if (r == 0)
            r = block_fill_seal(f, c, NULL);
        if (r < 0)
            return r;
    }
    return 0;
}

static inline int fill(struct block_store *s, struct block_key k, struct block_place place)
{
    return fill_as(s, &k, &k, &place, 0, block_chunk_count(place.length), place.length, 0);
}

/* Read [offset, offset + n) and hold it against the pattern of pattern_key. 0, or the error of the read. */
static inline int check_as(struct block_store *s, struct block_key k, struct block_key pattern_key, uint32_t offset,
                           uint32_t n)
{
    char *got cleanup(freep) = malloc(n), *want cleanup(freep) = malloc(n);
    for (uint32_t done = 0; done < n;) {
        int r = block_read(s, &k, offset + done, got, n - done);
        if (r < 0)
            return r;
        ck_assert_msg(r > 0, "inode %llu: the block ends at %u", (unsigned long long)k.inode, offset + done);
        pattern(&pattern_key, offset + done, want, (uint32_t)r);
        if (memcmp(got, want, (size_t)r) != 0) {
            uint32_t at = 0;
            while (got[at] == want[at])
                at++;
            ck_abort_msg("inode %llu block %u byte %u is wrong", (unsigned long long)k.inode, k.index,
                         offset + done + at);
        }
        done += (uint32_t)r;
    }
    return 0;
}

static inline int check(struct block_store *s, struct block_key k, uint32_t n)
{
    return check_as(s, k, k, 0, n);
}

static inline struct block_store_status status_of(struct block_store *s)
{
    struct block_store_status st;
    block_store_status(s, &st);
    ck_assert_uint_le(st.used_bytes + st.reserved_bytes, st.capacity_bytes);
    return st;
}

static inline struct block_presence presence_of(struct block_store *s, uint64_t inode, uint32_t index)
{
    struct block_presence p = {0};
    int r = block_prepare(s, inode, index);
    if (r == 0)
        r = block_presence(s, inode, index, &p);
    ck_assert_msg(r == 0 || r == -ENODATA, "presence: %s", cv_error_name(r));
    return p;
}

static inline struct block_grant grant_of(uint64_t inode, uint32_t index, uint64_t version, uint64_t epoch,
                                          uint32_t length)
{
    return (struct block_grant){
        .key = key_of(inode, index, version), .epoch = epoch, .place = place_of(length, length)};
}

/* Bytes the data files really take. */
static uint64_t test_disk_sum;
static inline int test_disk_add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    /* A file with two names counts once. */
    if (type == FTW_F && (strstr(path, "/files/") || strstr(path, "/segments/")))
        test_disk_sum += (uint64_t)st->st_blocks * 512;
    return 0;
}
static inline uint64_t test_disk_bytes(void)
{
    test_disk_sum = 0;
    int fd = open(test_dir(), O_RDONLY);
    syncfs(fd); /* blocks that are just being allocated are counted nowhere */
    close(fd);
    nftw(test_dir(), test_disk_add, 16, FTW_PHYS);
    return test_disk_sum;
}
