/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What content costs through libcurvine on one host: warm reads by copy (curvine_pread) and in place (curvine_read_pieces, each
 * piece then copied once, as a reply is), held against pread of a plain file with the same bytes in the same run, in turns;
 * and writes of 128 KiB held against pwrite. Ratios above 1 are faster than the plain file.
 *
 *      bench_content [masters]        without: a cluster of its own by "cv local up" in a new directory
 *
 * Figures are medians of ROUNDS rounds. CPU is that of this process, all threads, per operation.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "client/curvine.h"

enum { ROUNDS = 7, FILE_MIB = 256 };
#define FILE_BYTES ((uint64_t)FILE_MIB << 20)

static char dir[64];
static struct curvine *cv;
static struct curvine_file *file;
static int plain;
static uint8_t *buffer;

enum how { PLAIN, COPY, PIECES };

static void must(int64_t r, const char *what)
{
    if (r < 0)
        log_fatal((int)r, "%s", what);
}

static uint64_t cpu_ns(void)
{
    return clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof(*v), by_value);
    return v[ROUNDS / 2];
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static void read_pieces(uint64_t at, uint32_t n)
{
    struct curvine_piece pieces[16];
    unsigned count;
    void *pin;
    int64_t got = curvine_read_pieces(file, at, n, pieces, array_size(pieces), &count, &pin);
    if (got < 0) { /* not at hand just now: as its users do */
        must(curvine_pread(file, buffer, n, at), "read");
        return;
    }
    uint8_t *p = buffer;
    for (unsigned i = 0; i < count; i++) {
        memcpy(p, pieces[i].p, pieces[i].n);
        p += pieces[i].n;
    }
    curvine_pieces_done(file, pin);
}

static void read_one(enum how how, uint64_t at, uint32_t n)
{
    if (how == PLAIN)
        must(pread(plain, buffer, n, (off_t)at), "read the plain file");
    else if (how == COPY)
        must(curvine_pread(file, buffer, n, at), "read");
    else
        read_pieces(at, n);
}

struct figure {
    double ns, cpu;
};

static struct figure read_pass(enum how how, uint32_t n, bool random, uint64_t count)
{
    struct prng r = {42};
    uint64_t begin = clock_ns(), cpu = cpu_ns(), places = FILE_BYTES / n;
    for (uint64_t i = 0; i < count; i++)
        read_one(how, (random ? prng_next(&r) % places : i % places) * n, n);
    return (struct figure){(double)(clock_ns() - begin) / (double)count, (double)(cpu_ns() - cpu) / (double)count};
}

static void reads(const char *name, uint32_t n, bool random)
{
    static const char *hows[] = {"plain", "copy", "pieces"};
    double ns[3][ROUNDS], cpu[3][ROUNDS];
    uint64_t count = n > 65536 ? FILE_BYTES / n : 100000;
    for (int round = 0; round < ROUNDS; round++)
        for (enum how how = PLAIN; how <= PIECES; how++) {
            struct figure f = read_pass(how, n, random, count);
            ns[how][round] = f.ns;
            cpu[how][round] = f.cpu;
        }
    double base = median(ns[PLAIN]);
    for (enum how how = PLAIN; how <= PIECES; how++) {
        double t = median(ns[how]);
        printf("%-22s %-7s %9.0f ns  cpu %9.0f ns  %7.0f MiB/s  x %.2f\n", name, hows[how], t, median(cpu[how]),
               (double)n / 1048576 / (t / 1e9), base / t);
    }
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static struct figure write_pass(enum how how, uint32_t n)
{
    uint64_t begin = clock_ns(), cpu = cpu_ns(), count = FILE_BYTES / n;
    for (uint64_t i = 0; i < count; i++) {
        if (how == PLAIN)
            must(pwrite(plain, buffer, n, (off_t)(i * n)), "write the plain file");
        else
            must(curvine_pwrite(file, buffer, n, i * n), "write");
    }
    return (struct figure){(double)(clock_ns() - begin) / (double)count, (double)(cpu_ns() - cpu) / (double)count};
}

static void writes(uint32_t n)
{
    double ns[2][ROUNDS], cpu[2][ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        for (enum how how = PLAIN; how <= COPY; how++) {
            struct figure f = write_pass(how, n);
            ns[how][round] = f.ns;
            cpu[how][round] = f.cpu;
        }
    double base = median(ns[PLAIN]), t = median(ns[COPY]);
    printf("%-22s %-7s %9.0f ns  cpu %9.0f ns  %7.0f MiB/s  x 1.00\n", "128 KiB writes", "plain", base,
           median(cpu[PLAIN]), (double)n / 1048576 / (base / 1e9));
    printf("%-22s %-7s %9.0f ns  cpu %9.0f ns  %7.0f MiB/s  x %.2f\n", "128 KiB writes", "copy", t, median(cpu[COPY]),
           (double)n / 1048576 / (t / 1e9), base / t);
}

/* ---- the cluster ---------------------------------------------------------------------------------------------------- */

static int local(const char *program, const char *command)
{
    char line[1200];
    int at = (int)(strrchr(program, '/') ? strrchr(program, '/') - program : 0);
    snprintf(line, sizeof(line), "%.*s%s../bin/cv local %s --dir %s > /dev/null 2>&1", at, program, at ? "/" : "",
             command, dir);
    return system(line);
}

int main(int argc, char **argv)
{
    char masters[128], path[128];
    strcpy(dir, "/tmp/cv-bench-XXXXXX");
    if (!mkdtemp(dir))
        log_fatal(-errno, "make a directory");
    snprintf(masters, sizeof(masters), "unix:%s/run/master.sock", dir);
    if (argc < 2 && local(argv[0], "up") != 0)
        log_fatal(0, "cv local up: no cluster to measure");
    must(curvine_open(&(struct curvine_options){.masters = argc < 2 ? masters : argv[1]}, &cv), "open a session");
    must(curvine_file_open(cv, "/bench-content", O_RDWR | O_CREAT | O_TRUNC, 0644, &file), "make a file");
    snprintf(path, sizeof(path), "%s/plain", dir);
    plain = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(plain, "make the plain file");
    buffer = malloc(1 << 20);
    memset(buffer, 0x5a, 1 << 20);
    writes(128 << 10);
    must(curvine_fsync(file), "fsync");
    reads("256 KiB in sequence", 256 << 10, false);
    reads("256 KiB at random", 256 << 10, true);
    reads("4 KiB at random", 4 << 10, true);
    must(curvine_file_close(file), "close");
    curvine_unlink(cv, "/bench-content");
    curvine_close(cv);
    if (argc < 2)
        local(argv[0], "down");
    snprintf(path, sizeof(path), "rm -rf %s", dir);
    return system(path) != 0;
}
