/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content against a model in memory, through libcurvine and a real cluster: each thread has a file of its own that it writes,
 * reads, truncates, appends to, syncs and opens again at random; every byte read is compared. Daemons may be killed under
 * it: the library asks again until its deadline, so every answer must be the one a file system that never failed would have
 * given. At the end each file is read whole by another session.
 *
 *      cv-content run    --masters A [--threads N] [--seconds S] [--seed X] [--root /path] [--size BYTES] [--model DIR]
 *      cv-content verify --masters A --model DIR [--threads N] [--seed X] [--root /path] [--size BYTES]
 *
 * --model DIR: after each fsync the model is written there, synced; the last thing a run does is an fsync. "verify" compares
 * the files with it: after a run, and then a power cut.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "client/curvine.h"

#define THREADS_MAX 64
#define WRITE_MAX   (512u << 10)

static struct {
    const char *masters, *root, *model;
    unsigned threads;
    uint64_t seconds, seed, size;
} options = {.root = "/", .threads = 4, .seconds = 10, .seed = 1, .size = 24u << 20};

static struct curvine *cv;
static _Atomic bool stop;
static _Atomic uint64_t operations, bytes_done, wrong;

struct thread {
    pthread_t id;
    unsigned number;
    char path[256];
    struct curvine_file *f;
    struct prng random;
    uint8_t *p, *buffer; /* the model; what is read or written */
    uint64_t size, syncs;
};

static void complain(struct thread *t, const char *what, uint64_t at, uint64_t n, int64_t got)
{
    if (atomic_fetch_add(&wrong, 1) < 20)
        fprintf(stderr, "WRONG %s: %s at %" PRIu64 " length %" PRIu64 ": %" PRId64 " %s\n", t->path, what, at, n, got,
                got < 0 ? curvine_strerror((int)got) : "");
    stop = true;
}

static void check_read(struct thread *t, uint64_t at, uint64_t n)
{
    uint64_t expected = at < t->size ? min(n, t->size - at) : 0;
    int64_t got = curvine_pread(t->f, t->buffer, n, at);
    if (got != (int64_t)expected)
        complain(t, "read", at, expected, got);
    for (uint64_t i = 0; i < expected && got == (int64_t)expected; i++)
        if (t->buffer[i] != t->p[at + i]) {
            fprintf(stderr, "byte %" PRIu64 ": is %02x, not %02x\n", at + i, t->buffer[i], t->p[at + i]);
            complain(t, "content", at, n, 0);
            return;
        }
}

static void do_write(struct thread *t, uint64_t at, uint64_t n)
{
    for (uint64_t i = 0; i < n; i += 8)
        put_le64(t->buffer + i, prng_next(&t->random));
    int64_t got = curvine_pwrite(t->f, t->buffer, n, at);
    if (got != (int64_t)n) {
        complain(t, "write", at, n, got);
        return;
    }
    memcpy(t->p + at, t->buffer, n);
    t->size = max(t->size, at + n);
}

static void do_truncate(struct thread *t, uint64_t size)
{
    struct curvine_request q = {.op = CURVINE_SETATTR, .file = t->f, .valid = CURVINE_SET_SIZE, .size = size};
    int r = curvine_run(cv, &q);
    if (r < 0) {
        complain(t, "truncate", size, 0, r);
        return;
    }
    if (size < t->size)
        memset(t->p + size, 0, t->size - size);
    t->size = size;
}

static void write_model(struct thread *t)
{
    char path[512], next[520];
    snprintf(path, sizeof(path), "%s/%u", options.model, t->number);
    snprintf(next, sizeof(next), "%s.new", path);
    FILE *f = fopen(next, "w");
    bool fine = f && fwrite(t->p, 1, t->size, f) == t->size && fflush(f) == 0 && fsync(fileno(f)) == 0;
    if (f)
        fclose(f);
    if (!fine || rename(next, path) < 0)
        complain(t, "write the model", 0, 0, -errno);
}

static void do_sync(struct thread *t)
{
    int r = curvine_fsync(t->f);
    if (r < 0)
        complain(t, "fsync", 0, 0, r);
    else if (options.model)
        write_model(t);
    t->syncs++;
}

static void reopen(struct thread *t)
{
    int r = curvine_file_close(t->f);
    if (r < 0)
        complain(t, "close", 0, 0, r);
    t->f = NULL;
    r = curvine_file_open(cv, t->path, O_RDWR, 0, &t->f);
    if (r < 0)
        complain(t, "open", 0, 0, r);
}

static uint64_t some_offset(struct thread *t, uint64_t n)
{
    uint64_t at;
    switch (prng_below(&t->random, 4)) {
    case 0: at = prng_below(&t->random, 6000); break;
    case 1: at = t->size; break;
    default: at = prng_next(&t->random) % options.size;
    }
    return min(at, options.size - n);
}

static void step(struct thread *t)
{
    bool large = prng_below(&t->random, 4) == 0;
    uint64_t n = 8 * (1 + prng_below(&t->random, large ? WRITE_MAX / 8 : 1000)), at = some_offset(t, n);
    switch (prng_below(&t->random, 32)) {
    case 0: do_sync(t); break;
    case 1: reopen(t); break;
    case 2: do_truncate(t, prng_below(&t->random, 8) ? min(at, t->size) : prng_below(&t->random, 5000)); break;
    case 3: do_truncate(t, at); break;
    case 4 ... 15: do_write(t, at, n); break;
    default: check_read(t, at, n);
    }
    operations++;
    bytes_done += n;
}

static void *run_thread(void *arg)
{
    struct thread *t = arg;
    uint64_t end = clock_ns() + options.seconds * NS_PER_S;
    while (!stop && clock_ns() < end && t->f)
        step(t);
    if (t->f)
        do_sync(t);
    int r = curvine_file_close(t->f);
    if (r < 0)
        complain(t, "close", 0, 0, r);
    return NULL;
}

static void thread_init(struct thread *t, unsigned i)
{
    *t = (struct thread){.number = i, .random = {options.seed * 1000 + i}};
    t->p = calloc(1, options.size);
    t->buffer = malloc(max(options.size, (uint64_t)WRITE_MAX));
    assert(t->p && t->buffer);
    snprintf(t->path, sizeof(t->path), "%s/content-%" PRIu64 "-%u", strcmp(options.root, "/") ? options.root : "",
             options.seed, i);
}

static void on_signal(int number)
{
    stop = true;
}

static void open_session(void)
{
    int r = curvine_open(&(struct curvine_options){.masters = options.masters, .timeout_ms = 60000}, &cv);
    if (r < 0) {
        fprintf(stderr, "cv-content: %s: %s\n", options.masters, curvine_strerror(r));
        exit(1);
    }
}

/* By a session that knows nothing of what was written. */
static void check_all(struct thread *threads)
{
    for (unsigned i = 0; i < options.threads; i++) {
        struct thread *t = &threads[i];
        int r = curvine_file_open(cv, t->path, O_RDONLY, 0, &t->f);
        if (r < 0) {
            complain(t, "open", 0, 0, r);
            continue;
        }
        check_read(t, 0, options.size);
        curvine_file_close(t->f);
    }
}

static int run(void)
{
    static struct thread threads[THREADS_MAX];
    open_session();
    for (unsigned i = 0; i < options.threads; i++) {
        struct thread *t = &threads[i];
        thread_init(t, i);
        int r = curvine_file_open(cv, t->path, O_RDWR | O_CREAT | O_TRUNC, 0644, &t->f);
        if (r < 0) {
            fprintf(stderr, "cv-content: %s: %s\n", t->path, curvine_strerror(r));
            return 1;
        }
    }
    for (unsigned i = 0; i < options.threads; i++)
        if (pthread_create(&threads[i].id, NULL, run_thread, &threads[i]) != 0)
            return 1;
    for (unsigned i = 0; i < options.threads; i++)
        pthread_join(threads[i].id, NULL);
    curvine_close(cv);
    open_session();
    if (!wrong)
        check_all(threads);
    curvine_close(cv);
    printf("%" PRIu64 " operations, %" PRIu64 " MiB, %" PRIu64 " wrong\n", operations, bytes_done >> 20, wrong);
    return wrong ? 1 : 0;
}

/* What was synced last: the file may have been written since, so only a run that ended with its fsync can be compared whole. */
static int verify(void)
{
    static struct thread threads[THREADS_MAX];
    open_session();
    for (unsigned i = 0; i < options.threads; i++) {
        struct thread *t = &threads[i];
        thread_init(t, i);
        char path[512];
        snprintf(path, sizeof(path), "%s/%u", options.model, i);
        FILE *f = fopen(path, "r");
        if (f) {
            t->size = fread(t->p, 1, options.size, f);
            fclose(f);
        }
    }
    check_all(threads);
    curvine_close(cv);
    printf("%" PRIu64 " wrong\n", wrong);
    return wrong ? 1 : 0;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"masters", required_argument, NULL, 'm'}, {"threads", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'x'},
        {"root", required_argument, NULL, 'r'},    {"size", required_argument, NULL, 'z'},
        {"model", required_argument, NULL, 'M'},   {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'm': options.masters = optarg; break;
        case 't': options.threads = (unsigned)min(strtoul(optarg, NULL, 10), (unsigned long)THREADS_MAX); break;
        case 's': options.seconds = strtoul(optarg, NULL, 10); break;
        case 'x': options.seed = strtoul(optarg, NULL, 10); break;
        case 'r': options.root = optarg; break;
        case 'z': options.size = max(strtoul(optarg, NULL, 10), 1ul << 20); break;
        case 'M': options.model = optarg; break;
        default: return 2;
        }
    }
    bool verifies = optind < argc && strcmp(argv[optind], "verify") == 0;
    if (optind >= argc || !options.masters || (verifies && !options.model)) {
        fprintf(stderr, "usage: cv-content run|verify --masters A [options]\n");
        return 2;
    }
    signal(SIGTERM, on_signal);
    return verifies ? verify() : run();
}
