/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash tests of the block store: a random workload and its oracle, in shared memory so that it outlives the process that is
 * killed. Each page of a written inode carries a stamp; a page must read as its last acknowledged stamp, or as that of an
 * operation that was under way or failed. Written data must be there until its clean was asked for; clean data may be
 * absent, never wrong. SEED=n: another run; BLOCK_ROUNDS=n: a longer one (0: trouble at every single call).
 * On RocksDB: not for the thread sanitizer.
 */
#include "tests/unit/block_test.h"

#include <signal.h>
#include <sys/mman.h>

#include "base/clock.h"

#define WORLD_INODES   6
#define WORLD_PAGES    (TEST_BLOCK / 4096)
#define WORLD_CLEAN    12 /* inodes that are only filled: 100.. */
#define WORLD_CAPACITY (24 * MIB)

struct world_inode {
    uint64_t version, epoch, base_version;
    uint32_t length, base_length; /* bytes */
    uint32_t base_now;            /* of the base, what no cut took away */
    uint32_t alt_length;          /* length may be this instead */
    uint32_t known;               /* to the master: bytes of it that were acknowledged, or what it was cut to */
    bool begun;                   /* a write grant is out */
    bool gone_ok;                 /* clean was asked for: it may be absent */
    uint64_t next;                /* a begin of this version is under way; 0: none */
    uint32_t stamp[WORLD_PAGES];  /* 0: zeros */
    uint32_t alt[WORLD_PAGES];    /* may be this instead */
    uint32_t base[WORLD_PAGES];   /* what the under file system has */
};

struct world {
    struct prng random;
    uint64_t operations, failed_operations;
    uint32_t last_stamp;
    uint64_t clean_version[WORLD_CLEAN];
    struct world_inode inode[WORLD_INODES];
};

/* ---- content ---- */

static void page_content(uint64_t inode, uint32_t page, uint32_t stamp, void *p)
{
    if (stamp == 0) {
        memset(p, 0, 4096);
        return;
    }
    struct block_key k = key_of(inode, 0, stamp);
    pattern(&k, page * 4096, p, 4096);
}

static struct world *world_new(uint64_t seed)
{
    struct world *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(w != MAP_FAILED);
    memset(w, 0, sizeof(*w));
    w->random.state = seed;
    return w;
}

static struct block_key world_key(const struct world *w, int i)
{
    return key_of((uint64_t)i + 1, 0, w->inode[i].version);
}

/* ---- operations on written inodes ---- */

/* As presence_of(), without insisting. */
static int look(struct block_store *s, int i, struct block_presence *ret)
{
    *ret = (struct block_presence){0};
    int r = block_prepare(s, (uint64_t)i + 1, 0);
    if (r == 0)
        r = block_presence(s, (uint64_t)i + 1, 0, ret);
    return r == -ENODATA ? 0 : r;
}

/* Ask for a new grant: a new version, perhaps cut to a shorter length. It is as long as the master knows it to be: what a write
 * that was killed left behind that goes; were anything of that not there, it would be torn. */
static int begin(struct world *w, struct block_store *s, int i)
{
    struct world_inode *n = &w->inode[i];
    struct block_grant g = {
        .key = key_of((uint64_t)i + 1, 0, n->version + 1),
        .epoch = n->epoch + 1,
        .base_version = n->base_version,
        .base_length = n->base_length,
    };
    uint32_t length = n->known;
    if (length && prng_below(&w->random, 4) == 0)
        length = prng_below(&w->random, length / 4096 + 1) * 4096;
    g.place = place_of(length, length);
    if (length < n->length) { /* from here on either may be read */
        for (uint32_t p = length / 4096; p < n->length / 4096; p++)
            n->alt[p] = 0;
        n->alt_length = length;
    }
    n->next = g.key.version;
    int r = block_write_begin(s, &g);
    if (r < 0)
        return r;
    for (uint32_t p = length / 4096; p < WORLD_PAGES; p++)
        n->stamp[p] = n->alt[p] = 0;
    n->base_now = min(n->base_now, length);
    n->length = n->alt_length = n->known = length;
    n->version = n->epoch = n->next;
    n->begun = true;
    n->gone_ok = false;
    __atomic_store_n(&n->next, 0, __ATOMIC_RELEASE); /* last: killed before that, check_inode() does it again */
    return 0;
}

/* Fill the chunks of [first, last] pages that are missing from the base. */
static int fill_base(struct world *w, struct block_store *s, int i, uint32_t chunk)
{
    struct world_inode *n = &w->inode[i];
    struct block_key k = world_key(w, i);
    struct block_fill *f cleanup(block_fill_end_p) = NULL;
    uint64_t mine;
    struct block_place place = place_of(n->begun ? max(n->length, 1u) : n->base_length, n->base_length);
    place.length = max(place.length, (chunk + 1) * MIB < TEST_BLOCK ? (chunk + 1) * MIB : TEST_BLOCK);
    if (!n->begun)
        place.length = n->base_length;
    int r = block_fill_begin(s, &k, &place, chunk, 1, 0, &f, &mine);
    if (r < 0)
        return r;
    char page[4096];
    uint32_t until = min(n->begun ? n->base_now : n->base_length, (chunk + 1) * MIB);
    for (uint32_t p = chunk * 256; r == 0 && p * 4096 < until; p++) {
        page_content((uint64_t)i + 1, p, n->base[p], page);
        r = block_fill_write(f, p * 4096, page, min(4096u, until - p * 4096));
    }
    return r < 0 ? r : block_fill_seal(f, chunk, NULL);
}

static int write_pages(struct world *w, struct block_store *s, int i)
{
    struct world_inode *n = &w->inode[i];
    uint32_t first = prng_below(&w->random, WORLD_PAGES * 3 / 4);
    uint32_t count = 1 + prng_below(&w->random, prng_below(&w->random, 8) ? 20 : 300);
    if (prng_below(&w->random, 2)) /* near the end, growing */
        first = n->length / 4096;
    count = min(count, WORLD_PAGES - min(first, (uint32_t)WORLD_PAGES - 1));
    first = min(first, (uint32_t)WORLD_PAGES - 1);
    int r = n->begun ? 0 : begin(w, s, i);
    if (r < 0)
        return r;
    uint32_t stamp = ++w->last_stamp;
    char *data cleanup(freep) = malloc(count * 4096);
    for (uint32_t p = 0; p < count; p++) {
        page_content((uint64_t)i + 1, first + p, stamp, data + p * 4096);
        n->alt[first + p] = stamp;
    }
    n->alt_length = max(n->length, (first + count) * 4096);
    struct block_key k = world_key(w, i);
    for (int tries = 0; (r = block_write(s, &k, n->epoch, first * 4096, data, count * 4096)) == -ENODATA && tries < 8;
         tries++)
        for (uint32_t c = first / 256; c <= (first + count - 1) / 256; c++)
            (void)fill_base(w, s, i, c);
    if (r < 0)
        return r;
    for (uint32_t p = first; p < first + count; p++)
        n->stamp[p] = stamp;
    n->length = n->alt_length;
    n->known = max(n->known, (first + count) * 4096);
    return 0;
}

/* Read one page. An error, or what it is: the stamp or alt; anything else fails the test. */
static int read_page(struct world *w, struct block_store *s, const struct block_key *k, int i, uint32_t p)
{
    struct world_inode *n = &w->inode[i];
    char got[4096], want[4096];
    memset(got, 0, sizeof(got));
    int r = block_read(s, k, p * 4096, got, 4096);
    if (r < 0)
        return r;
    page_content((uint64_t)i + 1, p, n->stamp[p], want);
    if (memcmp(got, want, 4096) == 0) {
        n->alt[p] = n->stamp[p];
        return 0;
    }
    page_content((uint64_t)i + 1, p, n->alt[p], want);
    if (memcmp(got, want, 4096) == 0) {
        n->stamp[p] = n->alt[p];
        return 0;
    }
    /* A write that was cut short may have left part of a page. */
    char before[4096];
    page_content((uint64_t)i + 1, p, n->stamp[p], before);
    for (int at = 0; at < 4096; at++)
        ck_assert_msg(n->stamp[p] != n->alt[p] && (got[at] == before[at] || got[at] == want[at]),
                      "inode %d page %u (stamp %u or %u, length %u, version %llu) is wrong at %d", i + 1, p,
                      n->stamp[p], n->alt[p], n->length, (unsigned long long)n->version, at);
    n->stamp[p] = n->alt[p] = 0; /* cannot be told by a stamp: written again below */
    return 1;
}

static void is_clean_now(struct world_inode *n)
{
    for (uint32_t p = n->known / 4096; p < WORLD_PAGES; p++) /* nobody asks for it, and it does not go to the base */
        n->stamp[p] = n->alt[p] = 0;
    n->length = n->alt_length = n->known;
    n->base_version = n->version;
    n->base_length = n->base_now = n->length;
    memcpy(n->base, n->stamp, sizeof(n->base));
    __atomic_store_n(&n->begun, false, __ATOMIC_RELEASE); /* last: killed before that it is done again */
}

/* Everything of a written inode that must be there is, and is right. */
static int check_inode(struct world *w, struct block_store *s, int i, bool strict)
{
    struct world_inode *n = &w->inode[i];
    if (n->version == 0 && !n->next)
        return 0;
    struct block_key k = world_key(w, i);
    if (n->next) { /* did the begin get through? */
        struct block_presence p;
        int r = look(s, i, &p);
        if (r < 0 && !strict)
            return r;
        ck_ok(r);
        if (p.version == n->next) {
            n->version = n->epoch = k.version = n->next;
            n->begun = true;
            n->gone_ok = false;
            n->base_now = min(n->base_now, n->alt_length);
            n->known = min(n->known, n->alt_length);
        } else if (n->alt_length < n->length) {
            n->alt_length = n->length;
            memcpy(n->alt, n->stamp, sizeof(n->alt));
        }
        __atomic_store_n(&n->next, 0, __ATOMIC_RELEASE);
        if (n->version == 0)
            return 0;
    }
    struct block_presence here;
    int seen = look(s, i, &here);
    if (seen < 0 && !strict)
        return seen;
    ck_ok(seen);
    if (n->begun && n->gone_ok && !here.dirty) /* killed in make_clean(), behind the commit */
        is_clean_now(n);
    if (n->begun || !n->gone_ok)
        ck_assert_msg(here.version == n->version && here.dirty, "inode %d: version %llu (want %llu), dirty %d", i + 1,
                      (unsigned long long)here.version, (unsigned long long)n->version, here.dirty);
    bool torn = false;
    for (uint32_t p = 0; p * 4096 < max(n->length, n->alt_length); p++) {
        int r = read_page(w, s, &k, i, p);
        bool base = p * 4096 / MIB * MIB < n->base_now; /* the chunk may have been left to the base */
        uint32_t based = p * 4096 < n->base_now ? n->base[p] : 0;
        bool same = n->stamp[p] == based || n->alt[p] == based;
        if (r < 0 && r != -ENODATA && !strict)
            return r;
        ck_assert_msg(r >= 0 || (r == -ENODATA && (n->gone_ok || (base && same))), "inode %d page %u: %s", i + 1, p,
                      cv_error_name(r));
        torn |= r == 1;
        if (r == -ENODATA && n->begun)
            n->stamp[p] = n->alt[p] = based;
    }
    n->length = n->alt_length = max(n->length, n->alt_length);
    if (torn) { /* make it certain again */
        char zeros[4096] = {0};
        ck_assert(n->begun);
        for (uint32_t p = 0; p * 4096 < n->length; p++)
            if (n->stamp[p] == 0) {
                int r = block_write(s, &k, n->epoch, p * 4096, zeros, 4096);
                if (r < 0 && !strict)
                    return r;
                ck_assert_msg(r == 0 || r == -ENODATA || r == -CV_NO_SPACE, "%s", cv_error_name(r));
                n->known = r == 0 ? max(n->known, (p + 1) * 4096) : n->known;
            }
    }
    return 0;
}

static int make_clean(struct world *w, struct block_store *s, int i)
{
    struct world_inode *n = &w->inode[i];
    struct block_key k = world_key(w, i);
    if (!n->begun)
        return 0;
    int r = check_inode(w, s, i, false); /* nothing open about it any more */
    if (r < 0 || n->length == 0)
        return r;
    n->gone_ok = true;
    r = block_write_clean(s, &k, n->epoch);
    if (r < 0)
        return r;
    is_clean_now(n);
    return 0;
}

/* ---- all operations ---- */

static uint32_t clean_length(uint32_t i)
{
    return i % 2 ? 1000 + i * 5000 : MIB + i * 100 * KIB;
}

static int fill_clean(struct world *w, struct block_store *s)
{
    uint32_t i = prng_below(&w->random, WORLD_CLEAN);
    if (w->clean_version[i] == 0 || prng_below(&w->random, 6) == 0)
        w->clean_version[i]++;
    uint32_t length = clean_length(i);
    return fill(s, key_of(100 + i, 0, w->clean_version[i]), place_of(length, length));
}

static int read_clean(struct world *w, struct block_store *s, uint32_t i)
{
    uint32_t length = clean_length(i);
    int r = 0;
    if (w->clean_version[i] > 1)
        (void)check(s, key_of(100 + i, 0, w->clean_version[i] - 1), length);
    if (w->clean_version[i])
        r = check(s, key_of(100 + i, 0, w->clean_version[i]), length);
    return r == -ENODATA ? 0 : r;
}

static int export_one(struct world *w, struct block_store *s)
{
    uint32_t i = prng_below(&w->random, WORLD_CLEAN);
    struct block_key k = key_of(100 + i, 0, w->clean_version[i]);
    struct block_read rd;
    struct block_export e;
    if (w->clean_version[i] == 0 || block_read_begin(s, &k, 0, 100, 0, &rd) < 0)
        return 0;
    int r = block_export(s, &rd, &e);
    block_read_end(s, &rd);
    if (r < 0)
        return r;
    close(e.fd);
    return prng_below(&w->random, 2) ? block_export_release(s, e.file_id) : 0;
}

static int step(struct world *w, struct block_store *s)
{
    int i = (int)prng_below(&w->random, WORLD_INODES);
    uint64_t freed, left[8];
    struct world_inode *n = &w->inode[i];
    switch (prng_below(&w->random, 16)) {
    case 0: return block_store_evict(s, prng_below(&w->random, 8) * MIB, &freed);
    case 1: return block_store_maintain(s);
    case 2: return n->begun ? block_write_sync(s, (uint64_t)i + 1) : 0;
    case 3: {
        struct block_key k = world_key(w, i);
        return n->begun ? block_write_seal(s, &k, n->epoch) : 0;
    }
    case 4: return make_clean(w, s, i);
    case 5: return begin(w, s, i);
    case 6: return export_one(w, s);
    case 7: {
        int count = block_export_left(s, 0, left, 8);
        return count > 0 ? block_export_release(s, left[0]) : count;
    }
    case 8:
        return block_store_remove(s, 100 + prng_below(&w->random, WORLD_CLEAN),
                                  prng_below(&w->random, 2) ? BLOCK_REMOVE_ALL : BLOCK_REMOVE_CLEAN);
    case 9: return read_clean(w, s, prng_below(&w->random, WORLD_CLEAN));
    case 10:
    case 11:
    case 12: return fill_clean(w, s);
    default: return write_pages(w, s, i);
    }
}

/* One random operation. Errors of the store are taken as they come. */
static void world_step(struct world *w, struct block_store *s)
{
    w->operations++;
    w->failed_operations += step(w, s) < 0;
}

/* Hold all of the store against the oracle, and make what was open in it certain. */
static void world_check(struct world *w, struct block_store *s)
{
    for (int i = 0; i < WORLD_INODES; i++)
        check_inode(w, s, i, true);
    for (uint32_t i = 0; i < WORLD_CLEAN; i++)
        ck_ok(read_clean(w, s, i));
    status_of(s);
    ck_assert_uint_le(test_disk_bytes(), WORLD_CAPACITY);
}

/* ---- the tests ---- */

static uint64_t seed_of_run(void)
{
    return getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 1;
}

static int rounds_of_run(int normal)
{
    return getenv("BLOCK_ROUNDS") ? atoi(getenv("BLOCK_ROUNDS")) : normal;
}

TEST_TIMEOUT(block_world_is_as_the_oracle_says_without_any_trouble, 60)
{
    struct world *w = world_new(seed_of_run());
    struct block_store *s = test_new(WORLD_CAPACITY);
    for (int i = 0; i < rounds_of_run(600); i++) {
        world_step(w, s);
        if (i % 100 == 99) {
            world_check(w, s);
            s = test_reopen(s, WORLD_CAPACITY);
            world_check(w, s);
        }
    }
    ck_assert_uint_lt(w->failed_operations * 2, w->operations);
    ck_assert_int_eq(status_of(s).failed, 0);
    block_store_free(s);
}

/* A child works until it is killed, or exits by itself after some time; then all of it is checked. */
static void kill_and_check(struct world *w, uint64_t microseconds)
{
    pid_t child = unit_fork();
    if (child == 0) {
        struct block_store *s = test_open(WORLD_CAPACITY);
        for (uint64_t until = clock_ns() + 5 * NS_PER_S; clock_ns() < until;)
            world_step(w, s);
        _exit(0);
    }
    usleep((useconds_t)microseconds);
    kill(child, SIGKILL);
    int status = unit_wait(child);
    ck_assert_msg(WIFSIGNALED(status), "the child stopped with %d", status);
    struct block_store *s = test_open(WORLD_CAPACITY);
    world_check(w, s);
    block_store_free(s);
}

TEST_TIMEOUT(block_world_survives_kills_at_random_times, 120)
{
    struct world *w = world_new(seed_of_run());
    struct prng random = {seed_of_run() * 77};
    block_store_free(test_new(WORLD_CAPACITY));
    for (int i = 0; i < rounds_of_run(40); i++)
        kill_and_check(w, 20000 + prng_below(&random, 150000));
    ck_assert_uint_ge(w->operations, 100);
}

/* A child begins to write `count` pages behind the end of an inode, and is killed when `done` bytes of them are in the file. */
static void write_some_and_die(struct world *w, int i, uint32_t count, uint32_t done)
{
    struct world_inode *n = &w->inode[i];
    uint32_t first = n->length / 4096, stamp = ++w->last_stamp;
    char *data cleanup(freep) = malloc(count * 4096);
    for (uint32_t p = 0; p < count; p++) {
        page_content((uint64_t)i + 1, first + p, stamp, data + p * 4096);
        n->alt[first + p] = stamp;
    }
    n->alt_length = (first + count) * 4096;
    pid_t child = unit_fork();
    if (child == 0) {
        struct block_store *s = test_open(WORLD_CAPACITY);
        struct block_key k = world_key(w, i);
        struct block_write writing;
        int r;
        while ((r = block_write_start(s, &k, n->epoch, first * 4096, count * 4096, &writing)) == -CV_NOT_PREPARED)
            ck_ok(block_write_prepare(s, &k, n->epoch, first * 4096, count * 4096));
        ck_ok(r);
        ck_ok(block_io_write(writing.fd, data, done, writing.fd_offset));
        kill(getpid(), SIGKILL);
    }
    int status = unit_wait(child);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child stopped with %d", status);
}

/* Ten pages are acknowledged; of twenty more only some bytes come to the file. */
static void grant_after_a_killed_write(uint32_t done)
{
    struct world *w = world_new(5);
    struct world_inode *n = &w->inode[0];
    struct block_store *s = test_new(WORLD_CAPACITY);
    char data[10 * 4096];
    ck_ok(begin(w, s, 0));
    struct block_key k = world_key(w, 0);
    for (uint32_t p = 0; p < 10; p++)
        page_content(1, p, n->stamp[p] = n->alt[p] = 77, data + p * 4096);
    ck_ok(block_write(s, &k, n->epoch, 0, data, sizeof(data)));
    n->length = n->alt_length = n->known = sizeof(data);
    block_store_free(s);
    write_some_and_die(w, 0, 20, done);
    s = test_open(WORLD_CAPACITY);
    world_check(w, s);
    ck_assert_uint_eq(presence_of(s, 1, 0).length, 10 * 4096 + done);
    while (n->known == 10 * 4096) { /* some of its grants cut */
        ck_ok(begin(w, s, 0));
        world_check(w, s);
        ck_assert_uint_eq(presence_of(s, 1, 0).length, n->known);
        ck_assert_uint_eq(presence_of(s, 1, 0).torn, 0);
    }
    block_store_free(s);
    munmap(w, sizeof(*w));
}

TEST(a_write_that_was_killed_before_its_first_byte_leaves_nothing_torn)
{
    grant_after_a_killed_write(0);
}

TEST(a_write_that_was_killed_halfway_leaves_nothing_torn)
{
    grant_after_a_killed_write(7 * 4096);
}

TEST(what_a_killed_child_was_just_saying_is_no_message)
{
    pid_t child = unit_fork();
    if (child == 0) {
        ck_assert_int_eq(write(unit_messages(), "half a message", 14), 14);
        kill(getpid(), SIGKILL);
    }
    ck_assert_msg(WIFSIGNALED(unit_wait(child)), "the child lives");
}

/* ---- what a killed fill leaves ---- */

/* A fill begins and writes in a child, which ends before any of it is sealed. */
static void begin_fill_and_die(uint64_t version, uint32_t length)
{
    pid_t child = fork();
    if (child == 0) {
        struct block_store *s = test_open(WORLD_CAPACITY);
        struct block_key k = key_of(104, 0, version);
        struct block_place place = place_of(length, length);
        struct block_fill *f;
        uint64_t mine;
        int r = block_fill_begin(s, &k, &place, 0, 2, 0, &f, &mine);
        if (r == 0)
            r = block_fill_write(f, 0, "some", 4);
        _exit(r == 0 ? 0 : 2);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

TEST(a_fill_of_a_newer_version_over_one_that_was_killed_is_the_newer_one_after_a_start)
{
    block_store_free(test_new(WORLD_CAPACITY));
    begin_fill_and_die(1, 2 * MIB);
    struct block_store *s = test_open(WORLD_CAPACITY);
    ck_ok(fill(s, key_of(104, 0, 2), place_of(2 * MIB, 2 * MIB)));
    s = test_reopen(s, WORLD_CAPACITY);
    ck_error(check(s, key_of(104, 0, 1), 2 * MIB), -ENODATA);
    ck_ok(check(s, key_of(104, 0, 2), 2 * MIB));
    ck_assert_uint_eq(presence_of(s, 104, 0).version, 2);
    block_store_free(s);
}

TEST(a_fill_that_knows_another_length_than_one_that_was_killed_keeps_it_after_a_start)
{
    block_store_free(test_new(WORLD_CAPACITY));
    begin_fill_and_die(1, 2 * MIB);
    struct block_store *s = test_open(WORLD_CAPACITY);
    ck_ok(fill(s, key_of(104, 0, 1), place_of(MIB + 300 * KIB, MIB + 300 * KIB)));
    s = test_reopen(s, WORLD_CAPACITY);
    ck_assert_uint_eq(presence_of(s, 104, 0).length, MIB + 300 * KIB);
    ck_ok(check(s, key_of(104, 0, 1), MIB + 300 * KIB));
    block_store_free(s);
}

/* ---- at one exact call ---- */

static int countdown, countdown_error; /* 0: kill */

/* The next version of all that is only filled, over whatever the trouble left. */
static void refill(struct world *w, struct block_store *s)
{
    for (uint32_t i = 0; i < WORLD_CLEAN; i++) {
        uint32_t length = clean_length(i);
        w->clean_version[i]++;
        int r = fill(s, key_of(100 + i, 0, w->clean_version[i]), place_of(length, length));
        ck_assert_msg(r == 0 || r == -CV_NO_SPACE, "refill of inode %u: %s", 100 + i, cv_error_name(r));
    }
}

static int at_countdown(enum block_io_op op)
{
    if (__atomic_sub_fetch(&countdown, 1, __ATOMIC_RELAXED) != 0)
        return 0;
    if (!countdown_error)
        kill(getpid(), SIGKILL);
    return op == BLOCK_IO_ALLOC ? -ENOMEM : countdown_error;
}

static int no_memory_at_countdown(enum block_io_op op)
{
    return op == BLOCK_IO_ALLOC && __atomic_sub_fetch(&countdown, 1, __ATOMIC_RELAXED) == 0 ? -ENOMEM : 0;
}

/* Twenty pages, cut to five, twenty again behind the fifth. Returns whether an allocation for the cut failed. */
static bool cut_without_memory(struct block_store *s, uint64_t inode, int n)
{
    struct block_grant g = grant_of(inode, 0, 1, 1, 0);
    char *data cleanup(freep) = malloc(25 * 4096);
    pattern(&(struct block_key){.inode = inode}, 0, data, 25 * 4096);
    ck_ok(block_write_begin(s, &g));
    ck_ok(block_write(s, &g.key, 1, 0, data, 20 * 4096));
    g = grant_of(inode, 0, 2, 2, 5 * 4096);
    countdown = n;
    block_io_hook = no_memory_at_countdown;
    int r = block_write_begin(s, &g);
    block_io_hook = NULL;
    ck_assert_msg(r == 0 || r == -ENOMEM || r == -CV_BUSY, "cut: %s", cv_error_name(r));
    if (r < 0)
        ck_ok(block_write_begin(s, &g));
    ck_ok(block_write(s, &g.key, 2, 5 * 4096, data + 5 * 4096, 20 * 4096));
    return countdown <= 0;
}

TEST(a_cut_for_which_memory_was_short_is_not_done_again_at_the_next_start)
{
    struct block_store *s = test_new(WORLD_CAPACITY);
    int n = 1;
    while (n < 50 && cut_without_memory(s, (uint64_t)n, n))
        n++;
    ck_assert_int_gt(n, 2);
    ck_assert_int_lt(n, 50);
    s = test_reopen(s, WORLD_CAPACITY);
    for (int i = 1; i <= n; i++)
        ck_ok(check_as(s, key_of((uint64_t)i, 0, 2), (struct block_key){.inode = (uint64_t)i}, 0, 25 * 4096));
    block_store_free(s);
}

/* The same forty operations each time, with trouble at call n. Returns whether it came so far. */
static bool trouble_at(int n, int error)
{
    static int made;
    char command[600];
    if (made++) {
        snprintf(command, sizeof(command), "rm -rf '%s'", test_dir());
        ck_assert_int_eq(system(command), 0);
    }
    struct world *w = world_new(seed_of_run());
    block_store_free(test_new(WORLD_CAPACITY));
    pid_t child = unit_fork();
    if (child == 0) {
        struct block_store_options o = test_options(WORLD_CAPACITY);
        struct block_store *s = NULL;
        log_set_level(LOG_LEVEL_ERROR);
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        countdown = n;
        countdown_error = error;
        block_io_hook = at_countdown;
        if (block_store_open(&o, &s) < 0)
            _exit(2);
        for (int i = 0; i < 40; i++)
            world_step(w, s);
        int left = countdown;
        block_store_free(s);
        _exit(left > 0 ? 3 : 2);
    }
    int status = unit_wait(child);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    ck_assert_msg(killed || (WIFEXITED(status) && WEXITSTATUS(status) >= 2), "call %d: child status %x", n, status);
    struct block_store *s = test_open(WORLD_CAPACITY);
    world_check(w, s);
    ck_assert_int_eq(status_of(s).failed, 0);
    for (int i = 0; i < 10; i++)
        world_step(w, s);
    world_check(w, s);
    refill(w, s);
    s = test_reopen(s, WORLD_CAPACITY);
    world_check(w, s);
    block_store_free(s);
    munmap(w, sizeof(*w));
    return killed || WEXITSTATUS(status) != 3;
}

/* All of the calls with BLOCK_ROUNDS=0; else that many, spread. */
static void trouble_everywhere(int error)
{
    int points = rounds_of_run(15), step_size = points ? 800 / points : 1;
    for (int n = 1 + (int)(seed_of_run() % 7); n < 5000; n += step_size)
        if (!trouble_at(n, error))
            return;
}

TEST_TIMEOUT(block_world_survives_a_kill_at_each_call, 120)
{
    trouble_everywhere(0);
}

TEST_TIMEOUT(block_world_survives_an_io_error_at_each_call, 120)
{
    trouble_everywhere(-EIO);
}

TEST_TIMEOUT(block_world_survives_a_full_disk_at_each_call, 120)
{
    trouble_everywhere(-ENOSPC);
}
