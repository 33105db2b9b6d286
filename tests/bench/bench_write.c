/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing in two directories in turns, the first of a mount and the second beside it on the same disk: ratios pair by pair, so
 * that neighbours and the disk's moods meet both alike. tests/bench/figures-write starts the cluster and calls this.
 *
 *      bench_write DIR BESIDE [ROUNDS] [NAME]     NAME: only figures that begin so
 *      bench_write hold DIR COUNT BYTES           make COUNT files of BYTES, say so, and keep them open until stdin ends
 *
 * A large file is 256 MiB of noise made before the clock starts, written in pieces to a new file; "synced" has an fsync in the
 * time. Small files are created, written with one write and closed, by one thread or eight, each file of its own name;
 * "synced" has an fsync of each. Figures are medians of ROUNDS rounds (5), in brackets the slowest and the fastest; before
 * each of them the file system is synced, so that nobody pays for what another one wrote.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"

enum { ROUNDS_MAX = 99, THREADS_MAX = 8 };
#define LARGE_BYTES (256ull << 20)
#define NOISE_BYTES (8ull << 20)

static uint8_t *noise;
static unsigned rounds = 5;
static const char *only = "";

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench_write: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- large ------------------------------------------------------------------------------------------------------ */

struct large {
    uint32_t piece;
    bool sync, again; /* again: over what is there */
};

/* MiB a second. */
static double large_round(const char *dir, const void *arg)
{
    const struct large *how = arg;
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/large", dir);
    if (!how->again)
        unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        fail(path);
    sync();
    uint64_t start = clock_ns();
    for (uint64_t at = 0; at < LARGE_BYTES; at += how->piece)
        if (pwrite(fd, noise + at % NOISE_BYTES, how->piece, (off_t)at) != (ssize_t)how->piece)
            fail("write");
    if (how->sync && fsync(fd) < 0)
        fail("fsync");
    double result = (double)LARGE_BYTES * 1e9 / (double)(clock_ns() - start);
    if (close(fd) < 0)
        fail("close");
    return result / (1 << 20);
}

/* ---- small ------------------------------------------------------------------------------------------------------ */

struct small {
    uint32_t bytes, threads, files; /* files: of a thread */
    bool sync;
};

struct writer {
    pthread_t thread;
    const struct small *how;
    const char *dir;
    unsigned number;
};

static void small_path(char *path, const char *dir, unsigned thread, unsigned i)
{
    snprintf(path, PATH_MAX, "%s/small/%u-%u", dir, thread, i);
}

static void *small_thread(void *arg)
{
    struct writer *w = arg;
    char path[PATH_MAX];
    for (unsigned i = 0; i < w->how->files; i++) {
        small_path(path, w->dir, w->number, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
            fail(path);
        if (write(fd, noise + (i % 64) * 65536, w->how->bytes) != (ssize_t)w->how->bytes)
            fail("write");
        if ((w->how->sync && fsync(fd) < 0) || close(fd) < 0)
            fail(path);
    }
    return NULL;
}

/* Files a second. */
static double small_round(const char *dir, const void *arg)
{
    const struct small *how = arg;
    struct writer writers[THREADS_MAX];
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/small", dir);
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        fail(path);
    sync();
    uint64_t start = clock_ns();
    for (unsigned t = 0; t < how->threads; t++) {
        writers[t] = (struct writer){.how = how, .dir = dir, .number = t};
        if (pthread_create(&writers[t].thread, NULL, small_thread, &writers[t]) != 0)
            fail("start a thread");
    }
    for (unsigned t = 0; t < how->threads; t++)
        pthread_join(writers[t].thread, NULL);
    double result = (double)how->files * how->threads * 1e9 / (double)(clock_ns() - start);
    for (unsigned t = 0; t < how->threads; t++)
        for (unsigned i = 0; i < how->files; i++) {
            small_path(path, dir, t, i);
            if (unlink(path) < 0)
                fail(path);
        }
    return result;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show(const char *name, double *v, const char *format)
{
    char text[64];
    qsort(v, rounds, sizeof(*v), by_value);
    snprintf(text, sizeof(text), format, v[rounds / 2], v[0], v[rounds - 1]);
    printf("  %s %-24s", name, text);
}

static void compare(const char *name, const char *dir, const char *beside, double (*run)(const char *, const void *),
                    const void *how)
{
    double mount[ROUNDS_MAX], native[ROUNDS_MAX], ratio[ROUNDS_MAX];
    if (strncmp(name, only, strlen(only)) != 0)
        return;
    run(dir, how);
    for (unsigned i = 0; i < rounds; i++) {
        native[i] = run(beside, how);
        mount[i] = run(dir, how);
        ratio[i] = mount[i] / native[i];
    }
    printf("%-38s", name);
    show("mount", mount, "%.0f (%.0f-%.0f)");
    show("beside", native, "%.0f (%.0f-%.0f)");
    show("ratio", ratio, "%.2f (%.2f-%.2f)");
    printf("\n");
    fflush(stdout);
}

static int hold(const char *dir, unsigned count, uint32_t bytes)
{
    char path[PATH_MAX];
    for (unsigned i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/held-%u-%u", dir, bytes, i);
        int fd = open(path, O_RDWR | O_CREAT, 0644);
        if (fd < 0)
            fail(path);
        for (uint32_t at = 0; at < bytes; at += 1 << 20) {
            uint32_t n = min(bytes - at, 1u << 20);
            if (pwrite(fd, noise + at % NOISE_BYTES, n, at) != (ssize_t)n)
                fail("write");
        }
    }
    printf("held\n");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        printf("  skipped: bench_write DIR BESIDE [ROUNDS] [NAME] is for tests/bench/figures-write\n");
        return 0;
    }
    struct prng rng = {.state = 7};
    const char *dir = argv[1], *beside = argv[2];
    bool holds = strcmp(argv[1], "hold") == 0 && argc == 5;
    if (argc > 3 && !holds)
        rounds = (unsigned)min(max(atoi(argv[3]), 1), (int)ROUNDS_MAX);
    if (argc > 4 && !holds)
        only = argv[4];
    noise = aligned_alloc(4096, NOISE_BYTES);
    for (size_t i = 0; i < NOISE_BYTES; i += 8)
        *(uint64_t *)(void *)(noise + i) = prng_next(&rng);
    if (holds)
        return hold(argv[2], (unsigned)atoi(argv[3]), (uint32_t)atoi(argv[4]));

    compare("large, 1 MiB writes, synced, MiB/s", dir, beside, large_round, &(struct large){1 << 20, true, false});
    compare("large, 1 MiB writes, MiB/s", dir, beside, large_round, &(struct large){1 << 20, false, false});
    compare("large, 128 KiB writes, synced, MiB/s", dir, beside, large_round, &(struct large){128 << 10, true, false});
    compare("large, over itself, synced, MiB/s", dir, beside, large_round, &(struct large){1 << 20, true, true});
    compare("4 KiB files, 1 thread, files/s", dir, beside, small_round, &(struct small){4096, 1, 1000, false});
    compare("4 KiB files, 8 threads, files/s", dir, beside, small_round, &(struct small){4096, 8, 500, false});
    compare("64 KiB files, 1 thread, files/s", dir, beside, small_round, &(struct small){65536, 1, 500, false});
    compare("64 KiB files, 8 threads, files/s", dir, beside, small_round, &(struct small){65536, 8, 200, false});
    compare("4 KiB files, synced, 1 thread, files/s", dir, beside, small_round, &(struct small){4096, 1, 200, true});
    compare("64 KiB files, synced, 8 threads", dir, beside, small_round, &(struct small){65536, 8, 50, true});
    free(noise);
    return 0;
}
