/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Through a mount: reads as ratios to the same reads of a file beside it, in the same run, in turns; names made, looked at
 * and removed per second. Starts a cluster of its own (cv local up) below /tmp and mounts it; needs root or
 * fusermount3. bench_fuse [DIR FILE]: measure in DIR of a mount that is there, FILE being as large a file elsewhere.
 *
 * Method: each figure is the median of ROUNDS rounds of SECONDS each, native and mount taking turns, so that neighbours
 * disturb both alike. One thread, pread(2) of a warm 256 MiB file. O_DIRECT has two things beside it: "native" is page-cached,
 * so memory that costs one system call and no round trip, and "disk" is the same read with the same flag. "buffered again": the second pass, from the page cache the
 * mount keeps; "first": after the kernel was told to drop its pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"

#define ROUNDS     5
#define ROUND_NS   (400 * NS_PER_MS)
#define FILE_BYTES (256ull << 20)
#define NAMES      2000

static uint8_t *buffer;
static struct prng rng = {.state = 7};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench_fuse: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v)
{
    double ordered[ROUNDS];
    memcpy(ordered, v, sizeof(ordered));
    qsort(ordered, ROUNDS, sizeof(*ordered), compare);
    return ordered[ROUNDS / 2];
}

/* Reads a second for one round. */
static double read_round(int fd, size_t n, bool random)
{
    uint64_t start = clock_ns(), count = 0, now, blocks = FILE_BYTES / n;
    static uint64_t next;
    do {
        for (int i = 0; i < 16; i++, count++) {
            uint64_t block = random ? prng_next(&rng) % blocks : next++ % blocks;
            if (pread(fd, buffer, n, (off_t)(block * n)) != (ssize_t)n)
                fail("read");
        }
        now = clock_ns();
    } while (now - start < ROUND_NS);
    return (double)count * 1e9 / (double)(now - start);
}

/* Once through the file. */
static double first_pass(const char *path, size_t n, bool drop)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    if (drop)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    uint64_t start = clock_ns();
    for (uint64_t at = 0; at < FILE_BYTES; at += n)
        if (pread(fd, buffer, n, (off_t)at) != (ssize_t)n)
            fail("read");
    double result = (double)FILE_BYTES / (double)n * 1e9 / (double)(clock_ns() - start);
    close(fd);
    return result;
}

static void show_ratio(const char *name, const double *mount, double *beside, const char *aim)
{
    double ratios[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        ratios[i] = mount[i] / beside[i];
    printf("   %s %9.0f/s   ratio %.2f %s", name, median(beside), median(ratios), aim);
}

static void show(const char *name, size_t n, double *mount, double *native, double *disk, const char *aim)
{
    double m = median(mount);
    printf("  %-32s %9.0f/s %7.2f GiB/s", name, m, m * (double)n / (1 << 30));
    show_ratio("native", mount, native, aim);
    if (disk)
        show_ratio("disk", mount, disk, aim);
    printf("\n");
}

static void reads(const char *name, const char *path, const char *native_path, size_t n, bool random, int flags,
                  const char *aim)
{
    double mount[ROUNDS], native[ROUNDS], disk[ROUNDS];
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags), native_fd = open(native_path, O_RDONLY | O_CLOEXEC);
    int disk_fd = open(native_path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    bool direct = (flags & O_DIRECT) && disk_fd >= 0; /* not every file system has it */
    if (fd < 0 || native_fd < 0)
        fail(path);
    read_round(fd, n, random);
    for (int i = 0; i < ROUNDS; i++) {
        mount[i] = read_round(fd, n, random);
        if (direct)
            disk[i] = read_round(disk_fd, n, random);
        first_pass(native_path, 256 << 10, false); /* the disk's reads may have pushed it out */
        native[i] = read_round(native_fd, n, random);
    }
    close(fd);
    close(native_fd);
    if (disk_fd >= 0)
        close(disk_fd);
    show(name, n, mount, native, direct ? disk : NULL, aim);
}

static void first_reads(const char *path, const char *native_path, size_t n)
{
    double mount[ROUNDS], native[ROUNDS];
    int fd = open(native_path, O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < ROUNDS; i++) {
        mount[i] = first_pass(path, n, true);
        native[i] = read_round(fd, n, false);
    }
    close(fd);
    show("256 KiB sequential buffered, first", n, mount, native, NULL, "");
}

static void write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        fail(path);
    uint64_t start = clock_ns();
    for (uint64_t at = 0; at < FILE_BYTES; at += 1 << 20) {
        for (size_t i = 0; i < 1 << 20; i += 8)
            *(uint64_t *)(void *)(buffer + i) = prng_next(&rng);
        if (pwrite(fd, buffer, 1 << 20, (off_t)at) != 1 << 20)
            fail("write");
    }
    if (fsync(fd) < 0 || close(fd) < 0)
        fail("fsync");
    printf("  %-32s %38.2f GiB/s\n",
           strstr(path, "native") ? "256 MiB written and synced, native" : "256 MiB written and synced",
           (double)FILE_BYTES / (double)(clock_ns() - start) * 1e9 / (1 << 30));
}

static void names(const char *dir)
{
    char path[PATH_MAX];
    struct stat st;
    uint64_t start = clock_ns(), made, looked, again;
    for (int i = 0; i < NAMES; i++) {
        snprintf(path, sizeof(path), "%s/n%d", dir, i);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0 || close(fd) < 0)
            fail(path);
    }
    made = clock_ns();
    nanosleep(&(struct timespec){.tv_sec = 2}, NULL); /* what the kernel was told has run out */
    looked = clock_ns();
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < NAMES; i++) {
            snprintf(path, sizeof(path), "%s/n%d", dir, i);
            if (stat(path, &st) < 0)
                fail(path);
        }
        if (pass == 0)
            again = clock_ns();
    }
    uint64_t end = clock_ns();
    for (int i = 0; i < NAMES; i++) {
        snprintf(path, sizeof(path), "%s/n%d", dir, i);
        if (unlink(path) < 0)
            fail(path);
    }
    printf("  create+close %8.0f/s   stat, asked %8.0f/s   stat, cached %8.0f/s   unlink %8.0f/s   (one thread)\n",
           NAMES * 1e9 / (double)(made - start), NAMES * 1e9 / (double)(again - looked),
           NAMES * 1e9 / (double)(end - again), NAMES * 1e9 / (double)(clock_ns() - end));
}

static void measure(const char *dir, const char *native)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/bench-data", dir);
    write_file(native);
    write_file(path);
    reads("256 KiB sequential O_DIRECT", path, native, 256 << 10, false, O_DIRECT, "(aim 0.5)");
    reads("256 KiB random O_DIRECT", path, native, 256 << 10, true, O_DIRECT, "(aim 0.5)");
    reads("4 KiB random O_DIRECT", path, native, 4096, true, O_DIRECT, "(aim 0.5)");
    first_reads(path, native, 256 << 10);
    reads("256 KiB sequential buffered again", path, native, 256 << 10, false, 0, "(aim 0.7)");
    reads("256 KiB random buffered again", path, native, 256 << 10, true, 0, "(aim 0.7)");
    reads("4 KiB random buffered again", path, native, 4096, true, 0, "(aim 0.7)");
    unlink(path);
    names(dir);
}

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *format, ...)
{
    char command[2 * PATH_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    return system(command);
}

int main(int argc, char **argv)
{
    char self[PATH_MAX], base[] = "/tmp/cv-bench-XXXXXX", mount[64], native[64];
    buffer = aligned_alloc(4096, 1 << 20);
    if (argc == 3) {
        measure(argv[1], argv[2]);
        return 0;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0 || !mkdtemp(base))
        fail("start");
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(mount, sizeof(mount), "%s/mnt", base);
    snprintf(native, sizeof(native), "%s/native", base);
    if (mkdir(mount, 0755) < 0)
        fail(mount);
    bool up = run("%s/../bin/cv local up --dir %s >/dev/null", self, base) == 0;
    pid_t pid = up ? fork() : -1;
    if (pid == 0) {
        char program[PATH_MAX + 32], config[64];
        snprintf(program, sizeof(program), "%s/../bin/cv-fuse", self);
        snprintf(config, sizeof(config), "%s/curvine.yaml", base);
        int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(log, STDERR_FILENO);
        execl(program, program, "-c", config, ":/", mount, NULL);
        _exit(127);
    }
    bool mounted = false;
    for (int i = 0; up && !mounted && i < 100; i++) {
        mounted = run("mountpoint -q %s", mount) == 0;
        nanosleep(&(struct timespec){.tv_nsec = 50 * NS_PER_MS}, NULL);
    }
    if (mounted)
        measure(mount, native);
    else
        printf("  skipped: no mount (needs /dev/fuse, and root or fusermount3)\n");
    if (pid > 0) {
        kill(pid, SIGTERM);
        waitpid(pid, NULL, 0);
    }
    run("%s/../bin/cv local down --dir %s >/dev/null; rm -rf %s", self, base, base);
    free(buffer);
    return 0;
}
