/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the block store costs: a store on the file system of the directory given (default: a new one in /var/tmp).
 *
 *      bench_block [directory]
 *
 * Figures are medians of ROUNDS rounds. Fills and writes are compared with the same bytes written and synced to one plain file in the
 * same run, in turns, the sync in the time of both; ratios are what lasts.
 */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "worker/block_store.h"

enum { ROUNDS = 7, FILE_MIB = 256, SMALL_FILES = 20000, SMALL_BYTES = 16 << 10, LOOKUPS = 2000000 };
#define MIB (1u << 20)

static const struct block_identity_options identity = {.cluster = "bench of blocks", .worker_id = 1, .kind = BLOCK_SSD};
static char dir[256], store_dir[300];
static uint8_t *data;

static void must(int r, const char *what)
{
    if (r < 0)
        log_fatal(r, "%s", what);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof(*v), by_value);
    return v[n / 2];
}

static double seconds_since(uint64_t begin)
{
    return (double)(clock_ns() - begin) / 1e9;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static struct block_store *open_store(void)
{
    struct block_store_options o = {.dir_count = 1, .worker_id = 1};
    struct block_store *s = NULL;
    o.dirs[0].path = store_dir;
    o.dirs[0].capacity_bytes = 16ull << 30;
    memcpy(o.cluster, identity.cluster, 16);
    must(block_store_open(&o, &s), "open");
    return s;
}

/* ---- large files ---- */

static void fill_block(struct block_store *s, uint64_t inode, uint32_t index)
{
    struct block_key k = {.inode = inode, .index = index, .version = 1};
    struct block_place place = {
        .block_bytes = BLOCK_BYTES_MAX, .length = BLOCK_BYTES_MAX, .file_bytes = FILE_MIB * (uint64_t)MIB, .mount = 1};
    struct block_fill *f;
    uint64_t mine;
    must(block_fill_begin(s, &k, &place, 0, 64, 0, &f, &mine), "fill");
    for (uint32_t c = 0; c < 64; c++) {
        for (uint32_t at = 0; at < MIB; at += 256 << 10)
            must(block_fill_write(f, c * MIB + at, data + at, 256 << 10), "fill");
        must(block_fill_seal(f, c, NULL), "seal");
    }
    block_fill_end(f);
}

static double fill_file(struct block_store *s, uint64_t inode)
{
    uint64_t begin = clock_ns();
    for (uint32_t i = 0; i < FILE_MIB / 64; i++)
        fill_block(s, inode, i);
    must(block_store_sync(s), "sync");
    double t = seconds_since(begin);
    must(block_store_remove(s, inode, BLOCK_REMOVE_ALL), "remove");
    return FILE_MIB / t;
}

static double write_file(struct block_store *s, uint64_t inode)
{
    uint64_t begin = clock_ns();
    for (uint32_t i = 0; i < FILE_MIB / 64; i++) {
        struct block_grant g = {
            .key = {.inode = inode, .index = i, .version = 1}, .epoch = 1, .place = {.block_bytes = BLOCK_BYTES_MAX}};
        must(block_write_begin(s, &g), "begin");
        for (uint32_t at = 0; at < BLOCK_BYTES_MAX; at += 256 << 10)
            must(block_write(s, &g.key, 1, at, data + at % MIB, 256 << 10), "write");
    }
    must(block_write_sync(s, inode), "sync");
    double t = seconds_since(begin);
    must(block_store_remove(s, inode, BLOCK_REMOVE_ALL), "remove");
    return FILE_MIB / t;
}

static double raw_file(void)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/raw", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    must(fd < 0 ? -errno : 0, path);
    uint64_t begin = clock_ns();
    for (uint32_t at = 0; at < FILE_MIB * 4; at++)
        must(pwrite(fd, data + at % 4 * (256 << 10), 256 << 10, (off_t)at << 18) == 256 << 10 ? 0 : -EIO, "write");
    must(fdatasync(fd) < 0 ? -errno : 0, "fdatasync");
    double t = seconds_since(begin);
    close(fd);
    unlink(path);
    return FILE_MIB / t;
}

static void bench_large(struct block_store *s)
{
    double raw[ROUNDS], fill[ROUNDS], write_[ROUNDS], fill_ratio[ROUNDS], write_ratio[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        raw[i] = raw_file();
        fill[i] = fill_file(s, 1000 + (uint64_t)i);
        write_[i] = write_file(s, 2000 + (uint64_t)i);
        fill_ratio[i] = fill[i] / raw[i];
        write_ratio[i] = write_[i] / raw[i];
    }
    printf("%-52s %8.0f MiB/s\n", "plain file: write 256 MiB + fdatasync", median(raw, ROUNDS));
    printf("%-52s %8.0f MiB/s  %.2f of it\n", "fill of 256 MiB with CRCs + sync of the mark", median(fill, ROUNDS),
           median(fill_ratio, ROUNDS));
    printf("%-52s %8.0f MiB/s  %.2f of it\n", "write of 256 MiB under a grant + fsync", median(write_, ROUNDS),
           median(write_ratio, ROUNDS));
}

/* ---- small files ---- */

static void bench_small(struct block_store *s)
{
    struct block_place place = {
        .block_bytes = BLOCK_BYTES_MAX, .length = SMALL_BYTES, .file_bytes = SMALL_BYTES, .mount = 1};
    double rate[5];
    for (int round = 0; round < 5; round++) {
        uint64_t begin = clock_ns();
        for (uint64_t i = 0; i < SMALL_FILES / 5; i++) {
            struct block_key k = {.inode = 10000 + (uint64_t)round * SMALL_FILES / 5 + i, .version = 1};
            struct block_fill *f;
            uint64_t mine;
            must(block_fill_begin(s, &k, &place, 0, 1, 0, &f, &mine), "fill");
            must(block_fill_write(f, 0, data, SMALL_BYTES), "fill");
            must(block_fill_seal(f, 0, NULL), "seal");
            block_fill_end(f);
        }
        must(block_store_sync(s), "sync");
        rate[round] = SMALL_FILES / 5.0 / seconds_since(begin);
    }
    printf("%-52s %8.0f files/s\n", "fill of files of 16 KiB, packed, synced each 4,000", median(rate, 5));
}

/* ---- look-ups ---- */

static double lookup_ns(struct block_store *s, uint64_t first, uint32_t files, uint32_t span)
{
    double ns[5];
    struct prng random = {1};
    for (int round = 0; round < 5; round++) {
        uint64_t begin = clock_thread_cpu_ns();
        for (int i = 0; i < LOOKUPS / 5; i++) {
            struct block_key k = {.inode = first + prng_below(&random, files), .version = 1};
            struct block_read rd;
            must(block_read_begin(s, &k, prng_below(&random, span), 4096, 0, &rd), "look-up");
            block_read_end(s, &rd);
        }
        ns[round] = (double)(clock_thread_cpu_ns() - begin) / (LOOKUPS / 5.0);
    }
    return median(ns, 5);
}

static void bench_lookups(struct block_store *s)
{
    static char buffer[BLOCK_PACKED_MAX];
    fill_block(s, 500, 0);
    printf("%-52s %8.0f ns\n", "hit: begin + end of a read, one large file", lookup_ns(s, 500, 1, 63 * MIB));
    printf("%-52s %8.0f ns\n", "hit: begin + end of a read, 20,000 small files",
           lookup_ns(s, 10000, SMALL_FILES, SMALL_BYTES / 2));
    double native[5], store[5];
    struct block_key k = {.inode = 500, .version = 1};
    struct block_read rd;
    must(block_read_begin(s, &k, 0, 4096, 0, &rd), "look-up");
    for (int round = 0; round < 5; round++) {
        struct prng random = {7};
        uint64_t begin = clock_ns();
        for (int i = 0; i < 100000; i++)
            must((int)pread(rd.fd, buffer, 4096, (off_t)prng_below(&random, 63 << 8) << 12), "pread");
        native[round] = 100000 / seconds_since(begin);
        begin = clock_ns();
        for (int i = 0; i < 100000; i++)
            must(block_read(s, &k, prng_below(&random, 63 << 8) << 12, buffer, 4096), "read");
        store[round] = 100000 / seconds_since(begin) / native[round];
    }
    block_read_end(s, &rd);
    printf("%-52s %8.0f k/s\n", "pread of 4 KiB, random, page cache", median(native, 5) / 1000);
    printf("%-52s %8.2f of it\n", "block_read of 4 KiB, the same", median(store, 5));
}

/* ---- a cold start ---- */

static void bench_start(struct block_store **s)
{
    struct block_store_status st;
    block_store_free(*s);
    uint64_t begin = clock_ns();
    *s = open_store();
    printf("%-52s %8.1f ms\n", "open of a store of 20,000 files", seconds_since(begin) * 1000);
    block_store_status(*s, &st);
    uint64_t tables = st.memory_bytes;
    begin = clock_ns();
    for (uint64_t i = 0; i < SMALL_FILES; i++)
        must(block_prepare(*s, 10000 + i, 0), "prepare");
    printf("%-52s %8.1f us\n", "prepare: state of a file from the index", seconds_since(begin) * 1e6 / SMALL_FILES);
    block_store_status(*s, &st);
    printf("%-52s %8.0f bytes\n", "memory of a resident small file",
           (double)(st.memory_bytes - tables) / (double)st.resident_blocks);
}

int main(int argc, char **argv)
{
    snprintf(dir, sizeof(dir), "%s", argc > 1 ? argv[1] : "/var/tmp/bench-block-XXXXXX");
    if (argc <= 1)
        must(mkdtemp(dir) ? 0 : -errno, "mkdtemp");
    snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
    data = malloc(MIB);
    struct prng random = {42};
    for (uint32_t i = 0; i < MIB / 8; i++)
        ((uint64_t *)(void *)data)[i] = prng_next(&random);
    must(mkdir(store_dir, 0700) < 0 ? -errno : 0, store_dir);
    must(block_store_format(store_dir, &identity), "format");
    struct block_store *s = open_store();
    bench_large(s);
    bench_small(s);
    bench_lookups(s);
    bench_start(&s);
    block_store_free(s);
    free(data);
    nftw(argc > 1 ? store_dir : dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
