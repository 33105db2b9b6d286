/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-fsx [-n OPERATIONS] [-s SEED] [-l BYTES] [-c EVERY] [-d] [-v] FILE: random operations on one file, each held against a model in memory:
 * reads and writes at any offset, appends, truncation both ways, shared mappings read and written, fsync, closing and opening
 * again, two descriptors at once. -c: read it all after so many. -d: with O_DIRECT now and then. -v: says each. Stops at the first byte that differs, saying which of the
 * last operations touched it. In the manner of Apple's fsx, written anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"

#define LOG_MAX 4096

static uint8_t *model, *buffer;
static uint64_t size, limit = 3 << 20;
static int fds[2];
static const char *path;
static struct prng rng;
static uint64_t step, seed = 1, check_every;
static bool direct, verbose;

static struct {
    uint64_t step, from, n;
    char text[64];
} history[LOG_MAX];

static void note(uint64_t from, uint64_t n, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void note(uint64_t from, uint64_t n, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    history[step % LOG_MAX].step = step;
    history[step % LOG_MAX].from = from;
    history[step % LOG_MAX].n = n;
    vsnprintf(history[step % LOG_MAX].text, sizeof(history[0].text), format, args);
    va_end(args);
    if (verbose)
        fprintf(stderr, "%6llu %-30s [%llu, %llu)\n", (unsigned long long)step, history[step % LOG_MAX].text,
                (unsigned long long)from, (unsigned long long)from + n);
}

static _Noreturn void fail(uint64_t at, const char *format, ...) __attribute__((format(printf, 2, 3)));
static _Noreturn void fail(uint64_t at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "cv-fsx: seed %llu, operation %llu: ", (unsigned long long)seed, (unsigned long long)step);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    for (uint64_t s = step >= LOG_MAX ? step - LOG_MAX + 1 : 0; s <= step; s++) {
        uint64_t i = s % LOG_MAX;
        if (history[i].step == s &&
            (at == UINT64_MAX || (at >= history[i].from && at - history[i].from < history[i].n)))
            fprintf(stderr, "  %6llu %-30s [%llu, %llu)\n", (unsigned long long)s, history[i].text,
                    (unsigned long long)history[i].from, (unsigned long long)history[i].from + history[i].n);
    }
    exit(1);
}

static uint64_t pick(uint64_t n)
{
    return n ? prng_next(&rng) % n : 0;
}

/* Lengths: mostly small, sometimes across many pages. */
static uint64_t pick_length(uint64_t most)
{
    static const uint64_t scales[] = {16, 512, 4096, 70000, 300000, 1200000};
    uint64_t n = 1 + pick(scales[pick(6)]);
    return n < most ? n : most;
}

static void compare(uint64_t offset, const uint8_t *got, uint64_t n, const char *how)
{
    if (memcmp(got, model + offset, n) == 0)
        return;
    uint64_t i = 0;
    while (got[i] == model[offset + i])
        i++;
    fail(offset + i, "%s at %llu: byte %llu is %02x, should be %02x (size %llu)", how, (unsigned long long)offset,
         (unsigned long long)offset + i, got[i], model[offset + i], (unsigned long long)size);
}

static void check_size(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        fail(UINT64_MAX, "fstat: %s", strerror(errno));
    if ((uint64_t)st.st_size != size)
        fail(UINT64_MAX, "the size is %lld, should be %llu", (long long)st.st_size, (unsigned long long)size);
}

static void do_read(int fd)
{
    uint64_t offset = pick(size + 5000), n = pick_length(limit - (offset < limit ? offset : limit));
    uint64_t want = offset >= size ? 0 : n < size - offset ? n : size - offset;
    note(offset, n, "read");
    ssize_t got = pread(fd, buffer, n, (off_t)offset);
    if (got < 0)
        fail(UINT64_MAX, "read: %s", strerror(errno));
    if ((uint64_t)got != want)
        fail(UINT64_MAX, "read of %llu at %llu gives %zd, should be %llu (size %llu)", (unsigned long long)n,
             (unsigned long long)offset, got, (unsigned long long)want, (unsigned long long)size);
    compare(offset, buffer, want, "read");
}

static void fill(uint8_t *p, uint64_t n)
{
    uint8_t tag = (uint8_t)(1 + step % 255);
    for (uint64_t i = 0; i < n; i++)
        p[i] = (uint8_t)(tag + i / 64);
}

static void grow(uint64_t to)
{
    if (to > size) /* what is between is a hole */
        size = to;
}

static void do_write(int fd)
{
    uint64_t offset = pick(4) ? pick(size + 1) : pick(limit - 1), n = pick_length(limit - offset);
    if (n == 0)
        return;
    note(offset, n, "write");
    fill(buffer, n);
    ssize_t put = pwrite(fd, buffer, n, (off_t)offset);
    if (put != (ssize_t)n)
        fail(UINT64_MAX, "write of %llu: %zd, %s", (unsigned long long)n, put, strerror(errno));
    memcpy(model + offset, buffer, n);
    grow(offset + n);
}

static void do_append(void)
{
    uint64_t n = pick_length(limit - size);
    if (n == 0)
        return;
    note(size, n, "append");
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        fail(UINT64_MAX, "open to append: %s", strerror(errno));
    fill(buffer, n);
    if (write(fd, buffer, n) != (ssize_t)n)
        fail(UINT64_MAX, "append: %s", strerror(errno));
    memcpy(model + size, buffer, n);
    grow(size + n);
    if (close(fd) < 0)
        fail(UINT64_MAX, "close: %s", strerror(errno));
}

static void do_truncate(int fd)
{
    uint64_t to = pick(3) ? pick(size + 1) : pick(limit);
    if (pick(20) == 0)
        to = 0;
    note(to < size ? to : size, to < size ? size - to : to - size, "truncate to %llu", (unsigned long long)to);
    if ((pick(2) ? ftruncate(fd, (off_t)to) : truncate(path, (off_t)to)) < 0)
        fail(UINT64_MAX, "truncate: %s", strerror(errno));
    if (to < size)
        memset(model + to, 0, size - to);
    size = to;
}

static void do_map(int fd, bool write)
{
    if (size == 0)
        return;
    uint64_t offset = pick(size), n = pick_length(size - offset), page = offset / 4096 * 4096;
    note(offset, n, write ? "write mapped" : "read mapped");
    uint8_t *p = mmap(NULL, offset - page + n, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, (off_t)page);
    if (p == MAP_FAILED)
        fail(UINT64_MAX, "mmap: %s", strerror(errno));
    if (write) {
        fill(p + (offset - page), n);
        memcpy(model + offset, p + (offset - page), n);
        if (pick(2) && msync(p, offset - page + n, MS_SYNC) < 0)
            fail(UINT64_MAX, "msync: %s", strerror(errno));
    } else {
        compare(offset, p + (offset - page), n, "mapping");
    }
    munmap(p, offset - page + n);
}

static void do_direct(void)
{
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        fail(UINT64_MAX, "open with O_DIRECT: %s", strerror(errno));
    uint64_t offset = pick(size + 1) / 4096 * 4096, n = (pick_length(300000) + 4095) / 4096 * 4096;
    if (pick(2) && offset + n <= limit) {
        note(offset, n, "write direct");
        fill(buffer, n);
        if (pwrite(fd, buffer, n, (off_t)offset) != (ssize_t)n)
            fail(UINT64_MAX, "write direct: %s", strerror(errno));
        memcpy(model + offset, buffer, n);
        grow(offset + n);
    } else {
        uint64_t want = offset >= size ? 0 : n < size - offset ? n : size - offset;
        note(offset, n, "read direct");
        ssize_t got = pread(fd, buffer, n, (off_t)offset);
        if (got != (ssize_t)want)
            fail(UINT64_MAX, "read direct of %llu at %llu: %zd, should be %llu (%s)", (unsigned long long)n,
                 (unsigned long long)offset, got, (unsigned long long)want, strerror(errno));
        compare(offset, buffer, want, "read direct");
    }
    close(fd);
}

static void do_reopen(int *fd)
{
    note(0, 0, "close and open");
    if (close(*fd) < 0)
        fail(UINT64_MAX, "close: %s", strerror(errno));
    *fd = open(path, O_RDWR | O_CLOEXEC);
    if (*fd < 0)
        fail(UINT64_MAX, "open: %s", strerror(errno));
    check_size(*fd);
}

static void one(void)
{
    int *fd = &fds[pick(2)];
    switch (pick(direct ? 22 : 20)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
    case 5: do_read(*fd); break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10: do_write(*fd); break;
    case 11: do_append(); break;
    case 12:
    case 13: do_truncate(*fd); break;
    case 14:
    case 15: do_map(*fd, false); break;
    case 16: do_map(*fd, true); break;
    case 17:
        note(0, 0, "fsync");
        if ((pick(2) ? fsync(*fd) : fdatasync(*fd)) < 0)
            fail(UINT64_MAX, "fsync: %s", strerror(errno));
        break;
    case 18: do_reopen(fd); break;
    case 19: check_size(*fd); break;
    default: do_direct();
    }
}

static void check_all(void)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(UINT64_MAX, "open: %s", strerror(errno));
    check_size(fd);
    for (uint64_t at = 0; at < size;) {
        ssize_t got = pread(fd, buffer, limit, (off_t)at);
        if (got <= 0)
            fail(UINT64_MAX, "read at %llu: %zd", (unsigned long long)at, got);
        compare(at, buffer, (uint64_t)got, "the end");
        at += (uint64_t)got;
    }
    close(fd);
}

int main(int argc, char **argv)
{
    uint64_t count = 2000;
    for (int c; (c = getopt(argc, argv, "n:s:l:c:dv")) != -1;)
        switch (c) {
        case 'n': count = strtoull(optarg, NULL, 10); break;
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 'l': limit = strtoull(optarg, NULL, 10); break;
        case 'c': check_every = strtoull(optarg, NULL, 10); break;
        case 'd': direct = true; break;
        case 'v': verbose = true; break;
        default: return 2;
        }
    path = argv[optind];
    if (!path || limit < 8192) {
        fprintf(stderr, "usage: cv-fsx [-n OPERATIONS] [-s SEED] [-l BYTES] [-c EVERY] [-d] [-v] FILE\n");
        return 2;
    }
    rng.state = seed;
    model = calloc(1, limit + 4096);
    buffer = aligned_alloc(4096, (limit + 2 * 1200000) / 4096 * 4096);
    for (int i = 0; i < 2; i++) {
        fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (i == 0 ? O_TRUNC : 0), 0644);
        if (fds[i] < 0) {
            perror("cv-fsx");
            return 2;
        }
    }
    for (step = 0; step < count; step++) {
        one();
        if (check_every && step % check_every == check_every - 1)
            check_all();
    }
    close(fds[0]);
    close(fds[1]);
    check_all();
    printf("seed %llu: %llu operations, size %llu at the end\n", (unsigned long long)seed, (unsigned long long)count,
           (unsigned long long)size);
    free(model);
    free(buffer);
    return 0;
}
