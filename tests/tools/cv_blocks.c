/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-blocks: the block store under power cuts.
 *
 *   cv-blocks format DIR
 *   cv-blocks run DIR ORACLE BOOT SEED    work until killed; write down in ORACLE what must survive
 *   cv-blocks check DIR ORACLE BOOT       open after the cut and hold what is there against ORACLE
 *
 * With CV_BLOCKS_SKIP=data or =index in the environment the syncs of data files, or of the index, are left out: the
 * tests have to notice.
 *
 * ORACLE lies on another file system. BOOT is a number that stands for the boot id. Status 1: something is lost or wrong.
 *
 * Written inodes have pages that carry (inode, page, stamp) and content that follows from it; stamps rise. A line "B inode
 * stamp" says that a run writes stamps above this one, "S inode stamp" that those up to this one were synced, "C inode stamp"
 * that they were committed to the master without a sync (their length is asked for; what is lost of it is damaged, never
 * zeros), "Z inode 0" that the inode is cut to nothing, "E inode epoch" that an epoch was begun. Which pages were written with which stamp follows from the seed of the stamp. Filled inodes are right or absent, read
 * without their CRCs, as a client reads an exported file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "worker/block_io.h"
#include "worker/block_store.h"

#define INODES   8
#define FILLED   40
#define PAGES    512u
#define PAGE     4096u
#define CAPACITY (96ull << 20)

static const uint8_t cluster[16] = "power cut tests";

struct page {
    uint64_t inode, page, stamp;
    uint64_t words[PAGE / 8 - 3];
};

static void make_page(uint64_t inode, uint32_t page, uint64_t stamp, struct page *p)
{
    p->inode = inode;
    p->page = page;
    p->stamp = stamp;
    for (size_t i = 0; i < sizeof(p->words) / 8; i++)
        p->words[i] = hash_u64(inode * 1000003 + page * 7919 + stamp * 0x9e3779b97f4a7c15ull + i);
}

/* The pages a stamp writes. */
static void pages_of(uint64_t stamp, uint32_t *ret_first, uint32_t *ret_count)
{
    uint64_t h = hash_u64(stamp);
    *ret_first = (uint32_t)(h % PAGES);
    *ret_count = 1 + (uint32_t)(h >> 32) % 24;
    if (*ret_first + *ret_count > PAGES)
        *ret_count = PAGES - *ret_first;
}

static struct block_store *open_store(const char *dir, const char *boot)
{
    static uint8_t boot_id[16];
    struct block_store_options o = {.dir_count = 1, .worker_id = 1, .segment_bytes = 4 << 20};
    struct block_store *s = NULL;
    snprintf((char *)boot_id, sizeof(boot_id), "boot %s", boot);
    block_io_boot_id = boot_id;
    o.dirs[0].path = dir;
    o.dirs[0].capacity_bytes = CAPACITY;
    memcpy(o.cluster, cluster, 16);
    int r = block_store_open(&o, &s);
    if (r < 0) {
        log_error(r, "open %s", dir);
        exit(1);
    }
    return s;
}

static struct block_place place_of_filled(uint64_t inode)
{
    uint32_t length = inode % 3 == 0 ? 20000 + (uint32_t)inode * 100 : (1u << 20) + (uint32_t)inode * 60000;
    return (struct block_place){.block_bytes = 4 << 20, .length = length, .file_bytes = length, .mount = 1};
}

/* ---- what ORACLE says ---- */

#define RUNS 64

struct oracle {
    uint64_t synced[INODES + 1], committed[INODES + 1], epoch[INODES + 1], filled_version[FILLED + 1];
    struct {
        uint64_t above, upto; /* stamps of one run that were synced */
    } runs[INODES + 1][RUNS];
    int count[INODES + 1];
};

static void read_oracle(const char *path, struct oracle *o)
{
    memset(o, 0, sizeof(*o));
    FILE *f = fopen(path, "r");
    char what;
    unsigned long long inode, value;
    while (f && fscanf(f, " %c %llu %llu", &what, &inode, &value) == 3) {
        if (inode <= INODES && (what == 'S' || what == 'B')) {
            o->synced[inode] = o->committed[inode] = value;
            if (what == 'B' && o->count[inode] < RUNS)
                o->runs[inode][o->count[inode]++].above = value;
            if (o->count[inode])
                o->runs[inode][o->count[inode] - 1].upto = value;
        } else if (what == 'C' && inode <= INODES)
            o->committed[inode] = value;
        else if (what == 'Z' && inode <= INODES)
            o->count[inode] = 0;
        else if (what == 'E' && inode <= INODES)
            o->epoch[inode] = value;
        else if (what == 'F' && inode <= FILLED)
            o->filled_version[inode] = value;
    }
    if (f)
        fclose(f);
}

/* The newest stamp of each page that was synced, and how many pages that makes; and that was committed. */
static void replay(const struct oracle *o, uint64_t inode, uint64_t synced[PAGES], uint32_t *ret_synced,
                   bool committed[PAGES], uint32_t *ret_committed)
{
    *ret_synced = *ret_committed = 0;
    for (int i = 0; i < o->count[inode]; i++) {
        uint64_t upto = o->runs[inode][i].upto, last = i + 1 == o->count[inode] ? o->committed[inode] : upto;
        for (uint64_t t = o->runs[inode][i].above + INODES; t <= max(upto, last); t += INODES) {
            uint32_t first, count;
            pages_of(t, &first, &count);
            for (uint32_t p = first; p < first + count; p++) {
                committed[p] = true;
                if (t <= upto)
                    synced[p] = t;
            }
            *ret_committed = max(*ret_committed, first + count);
            if (t <= upto)
                *ret_synced = max(*ret_synced, first + count);
        }
    }
}

static void say(int fd, char what, uint64_t inode, uint64_t value)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "%c %llu %llu\n", what, (unsigned long long)inode, (unsigned long long)value);
    if (write(fd, line, (size_t)n) != n)
        exit(3);
}

/* ---- run ---- */

/* The disk is gone: what follows the cut does not count. */
static void must(int r, const char *what)
{
    if (r >= 0 || r == -CV_NO_SPACE)
        return;
    log_error(r, "%s", what);
    exit(4);
}

static void write_stamp(struct block_store *s, const struct block_key *k, uint64_t epoch, uint64_t stamp)
{
    static struct page pages[24];
    uint32_t first, count;
    pages_of(stamp, &first, &count);
    for (uint32_t i = 0; i < count; i++)
        make_page(k->inode, first + i, stamp, &pages[i]);
    must(block_write(s, k, epoch, first * PAGE, pages, count * PAGE), "write");
}

static void fill_one(struct block_store *s, uint64_t inode, uint64_t version)
{
    struct block_key k = {.inode = 1000 + inode, .version = version};
    struct block_place place = place_of_filled(inode);
    struct block_fill *f = NULL;
    uint64_t mine;
    int r = block_fill_begin(s, &k, &place, 0, 64, 0, &f, &mine);
    if (r == -EALREADY || r == -ESTALE || r == -CV_BUSY)
        return;
    must(r, "fill");
    if (r < 0)
        return;
    for (uint32_t c = 0; c * BLOCK_CHUNK_BYTES < place.length; c++) {
        if (!(mine >> c & 1))
            continue;
        uint32_t end = min(place.length, (c + 1) * BLOCK_CHUNK_BYTES);
        for (uint32_t at = c * BLOCK_CHUNK_BYTES; at < end; at += PAGE) {
            struct page p;
            make_page(k.inode, at / PAGE, version, &p);
            must(block_fill_write(f, at, &p, min(PAGE, end - at)), "fill");
        }
        must(block_fill_seal(f, c, NULL), "seal");
    }
    block_fill_end(f);
}

static int run(const char *dir, const char *oracle_path, const char *boot, uint64_t seed)
{
    struct oracle o;
    read_oracle(oracle_path, &o);
    int fd = open(oracle_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    struct block_store *s = open_store(dir, boot);
    struct prng random = {seed};
    uint64_t stamp[INODES + 1], epoch[INODES + 1];
    for (uint64_t i = 1; i <= INODES; i++) {
        uint64_t least[PAGES] = {0};
        bool there[PAGES] = {false};
        uint32_t pages, all;
        if (i % 2)
            say(fd, 'Z', i, 0);
        replay(&o, i, least, &pages, there, &all);
        struct block_grant g = {
            .key = {.inode = i, .version = o.epoch[i] + 1},
            .epoch = o.epoch[i] + 1,
            .place = {.block_bytes = 4 << 20, .length = i % 2 ? 0 : pages * PAGE, .mount = 2},
        };
        must(block_write_begin(s, &g), "begin");
        say(fd, 'E', i, g.epoch);
        epoch[i] = g.epoch;
        stamp[i] = o.synced[i] ? o.synced[i] + INODES * 1000 : i; /* above all that were written before the cut */
        say(fd, 'B', i, stamp[i]);
    }
    for (uint64_t n = 0;; n++) {
        uint64_t i = 1 + prng_below(&random, INODES), freed;
        struct block_key k = {.inode = i, .version = epoch[i]};
        switch (prng_below(&random, 8)) {
        case 0:
            must(block_write_sync(s, i), "sync");
            say(fd, 'S', i, stamp[i]);
            break;
        case 1: must(block_store_maintain(s), "maintain"); break;
        case 2:
            if (prng_below(&random, 8) == 0)
                must(block_store_evict(s, 4 << 20, &freed), "evict");
            break;
        case 3:
        case 4: {
            uint64_t which = 1 + prng_below(&random, FILLED);
            if (prng_below(&random, 8) == 0 || !o.filled_version[which])
                say(fd, 'F', which, ++o.filled_version[which]);
            fill_one(s, which, o.filled_version[which]);
            break;
        }
        case 5:
            if (prng_below(&random, 4) == 0)
                must(block_write_seal(s, &k, epoch[i]), "seal");
            break;
        default:
            stamp[i] += INODES;
            write_stamp(s, &k, epoch[i], stamp[i]);
            if (prng_below(&random, 2) == 0)
                say(fd, 'C', i, stamp[i]);
            break;
        }
        if (n == UINT64_MAX)
            return 0;
    }
}

/* ---- check ---- */

static int bad, torn;

#define wrong(...)                                                                                                     \
    do {                                                                                                               \
        if (++bad > 10)                                                                                                \
            break;                                                                                                     \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fputc('\n', stderr);                                                                                           \
    } while (0)

static void check_written(struct block_store *s, const struct oracle *o, uint64_t inode)
{
    uint64_t least[PAGES] = {0};
    bool there[PAGES] = {false};
    uint32_t synced, committed;
    replay(o, inode, least, &synced, there, &committed);
    struct block_key k = {.inode = inode, .version = o->epoch[inode]};
    struct block_grant old = {.key = k, .epoch = o->epoch[inode] - 1, .place = {.block_bytes = 4 << 20}};
    if (old.epoch && block_write_begin(s, &old) != -CV_STALE_EPOCH)
        wrong("inode %llu: epoch %llu was accepted again", (unsigned long long)inode, (unsigned long long)old.epoch);
    struct block_grant now = {
        .key = k, .epoch = o->epoch[inode], .place = {.block_bytes = 4 << 20, .length = committed * PAGE}};
    int begun = block_write_begin(s, &now);
    if (begun < 0)
        wrong("inode %llu: contact: %s", (unsigned long long)inode, cv_error_name(begun));
    for (uint32_t p = 0; p < committed; p++) {
        struct page got = {0}, want;
        int r = block_read(s, &k, p * PAGE, &got, PAGE);
        if (r == -CV_DATA_DAMAGED && !least[p]) {
            torn++;
            continue;
        }
        if (r < 0) {
            wrong("inode %llu page %u: %s", (unsigned long long)inode, p, cv_error_name(r));
            continue;
        }
        if (got.stamp == 0 && there[p] && p >= synced) {
            wrong("inode %llu page %u: zeros, but it was committed", (unsigned long long)inode, p);
            continue;
        }
        if (got.stamp < least[p]) {
            wrong("inode %llu page %u: stamp %llu, but %llu was synced", (unsigned long long)inode, p,
                  (unsigned long long)got.stamp, (unsigned long long)least[p]);
            continue;
        }
        make_page(inode, p, got.stamp, &want);
        if (got.stamp && memcmp(&got, &want, sizeof(got)) != 0)
            wrong("inode %llu page %u: torn or foreign content", (unsigned long long)inode, p);
    }
}

static int check_filled(struct block_store *s, uint64_t inode, uint64_t version)
{
    struct block_key k = {.inode = 1000 + inode, .version = version};
    struct block_place place = place_of_filled(inode);
    int seen = 0;
    for (uint32_t at = 0; at < place.length; at += PAGE) {
        struct block_read rd;
        struct page got = {0}, want;
        uint32_t n = min(PAGE, place.length - at);
        int r;
        while ((r = block_read_begin(s, &k, at, n, BLOCK_READ_UNCHECKED, &rd)) == -CV_NOT_PREPARED)
            if ((r = block_read_prepare(s, &k, at, n, BLOCK_READ_UNCHECKED)) < 0)
                break;
        if (r == -ENODATA)
            continue;
        if (r < 0) {
            wrong("inode %llu: %s", (unsigned long long)k.inode, cv_error_name(r));
            return seen;
        }
        if (pread(rd.fd, &got, rd.length, (off_t)rd.fd_offset) < 0)
            wrong("inode %llu: pread", (unsigned long long)k.inode);
        make_page(k.inode, at / PAGE, version, &want);
        if (memcmp(&got, &want, rd.length) != 0) {
            wrong("inode %llu version %llu byte %u: wrong bytes are served", (unsigned long long)k.inode,
                  (unsigned long long)version, at);
            block_read_end(s, &rd);
            return seen;
        }
        seen++;
        block_read_end(s, &rd);
    }
    return seen;
}

static int check(const char *dir, const char *oracle_path, const char *boot)
{
    struct oracle o;
    read_oracle(oracle_path, &o);
    struct block_store *s = open_store(dir, boot);
    struct block_store_status st;
    int seen = 0;
    block_store_status(s, &st);
    if (st.lost_blocks)
        wrong("%llu blocks were lost with the index", (unsigned long long)st.lost_blocks);
    for (uint64_t i = 1; i <= INODES; i++)
        if (o.epoch[i])
            check_written(s, &o, i);
    for (uint64_t i = 1; i <= FILLED; i++)
        for (uint64_t v = o.filled_version[i]; v && v + 2 > o.filled_version[i]; v--)
            seen += check_filled(s, i, v);
    block_store_status(s, &st);
    printf("%d pages of filled files there, %llu chunks found damaged, %d pages torn, %d wrong\n", seen,
           (unsigned long long)st.damaged_chunks, torn, bad);
    block_store_free(s);
    return bad ? 1 : 0;
}

static int skip_data(enum block_io_op op)
{
    return op == BLOCK_IO_SYNC || op == BLOCK_IO_SYNC_DIR ? BLOCK_IO_SKIP : 0;
}

static int skip_index(enum block_io_op op)
{
    return op == BLOCK_IO_INDEX_SYNC ? BLOCK_IO_SKIP : 0;
}

int main(int argc, char **argv)
{
    const char *skip = getenv("CV_BLOCKS_SKIP");
    if (skip && *skip)
        block_io_hook = strcmp(skip, "data") == 0 ? skip_data : skip_index;
    log_set_name("cv-blocks");
    log_set_level(LOG_LEVEL_ERROR);
    if (argc == 3 && strcmp(argv[1], "format") == 0) {
        struct block_identity_options o = {.worker_id = 1, .directory_id = 1, .kind = BLOCK_SSD};
        memcpy(o.cluster, cluster, 16);
        int r = block_store_format(argv[2], &o);
        return r < 0 ? log_error(r, "format %s", argv[2]), 1 : 0;
    }
    if (argc == 6 && strcmp(argv[1], "run") == 0)
        return run(argv[2], argv[3], argv[4], strtoull(argv[5], NULL, 10));
    if (argc == 5 && strcmp(argv[1], "check") == 0)
        return check(argv[2], argv[3], argv[4]);
    fprintf(stderr, "usage: cv-blocks format DIR | run DIR ORACLE BOOT SEED | check DIR ORACLE BOOT\n");
    return 2;
}
