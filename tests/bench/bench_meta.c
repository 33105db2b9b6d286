/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the namespace core costs: CPU of one thread per operation, and bytes per file and per directory. No disk, no network:
 * the base swallows what is written and knows nothing, so everything asked for must be resident.
 *
 *      bench_meta [files]      default 1,000,000; directories of 1,000 files, names of 16 bytes
 *
 * Figures: median of 5 rounds (creates: of 5 fifths of the files); ns are CPU time of the thread (CLOCK_THREAD_CPUTIME_ID).
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "meta/meta_core.h"
#include "wire/meta_flags.h"

#define BATCH   100
#define PER_DIR 1000
#define ROUNDS  5

static int null_get(void *context, enum meta_family family, struct text key, bool memory, struct buf *value)
{
    return -ENOENT;
}

static int null_scan(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                     bool (*each)(void *arg, struct text key, struct text value), void *arg)
{
    return 0;
}

static const struct meta_base null_base = {NULL, null_get, null_scan};
static struct meta *m;
static struct meta_request q[BATCH];
static struct buf bodies[BATCH];
static uint64_t session, sequence, index_, wall_ns = 1700000000000000000;
static struct prng prng = {42};

static void check(int r, const char *what)
{
    if (r != 0)
        log_fatal(r, "%s", what);
}

static void request(unsigned i, uint16_t type, void *msg)
{
    bodies[i].n = 0;
    *(struct rec_op_head *)msg =
        (struct rec_op_head){.session = session, .slot = (uint32_t)i % 64, .sequence = ++sequence, .uid = 0};
    check(wire_encode(message_desc(type), msg, &bodies[i]), "encode");
    meta_request_reset(&q[i]);
    check(meta_request_decode(&q[i], type, bodies[i].p, bodies[i].n), "decode");
}

static void execute(unsigned i)
{
    check(meta_execute(m, &q[i], wall_ns), "execute");
    check(q[i].error, "request");
}

static uint64_t commit_ns, prepare_ns, close_ns, write_ns, log_bytes;

static void commit(void)
{
    uint64_t t = clock_thread_cpu_ns();
    struct meta_payload *p = meta_batch_close(m);
    uint64_t t2 = clock_thread_cpu_ns();
    close_ns += t2 - t;
    if (!p)
        return;
    log_bytes += p->n;
    meta_batch_committed(m, p->batch, ++index_);
    meta_payload_unref(p);
    commit_ns += clock_thread_cpu_ns() - t2;
    struct meta_delta_load load = meta_delta_load(m);
    if (load.operations < 200000 && load.bytes < 64u << 20)
        return;
    t = clock_thread_cpu_ns();
    struct meta_delta *d = meta_delta_seal(m);
    struct redo_row row;
    check(meta_delta_sort(d), "sort");
    while (meta_delta_next(d, &row))
        ;
    meta_delta_written(m, d);
    meta_delta_free(d);
    write_ns += clock_thread_cpu_ns() - t;
}

static void inner(enum meta_inner what, uint64_t arg)
{
    meta_request_reset(&q[0]);
    meta_request_inner(&q[0], what, arg);
    check(meta_execute(m, &q[0], wall_ns), "inner");
    commit();
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof(*v), compare);
    return v[ROUNDS / 2];
}

/* Spread over the name like real names, 16 bytes. */
static void file_name(uint64_t i, char out[17])
{
    snprintf(out, 17, "%016lx", (unsigned long)hash_u64(i));
}

static uint64_t make_dir(uint64_t parent, const char *name)
{
    request(0, MSG_mkdir, &(struct msg_mkdir){.parent = parent, .name = text_of(name), .mode = 0755});
    execute(0);
    return q[0].answer.mkdir.attr.inode;
}

/* --- figures --------------------------------------------------------------------------------------------------------------- */

static uint64_t *dirs, *ids, file_count;

static void row(const char *what, double *ns)
{
    printf("%-44s %8.0f ns   %7.2f M/s\n", what, median(ns), 1e3 / ns[ROUNDS / 2]);
}

static void bench_create(void)
{
    double execute_ns[ROUNDS], prepared[ROUNDS], closed[ROUNDS], committed[ROUNDS], written[ROUNDS];
    uint64_t done = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t n = file_count / ROUNDS, ns = 0, before = done;
        prepare_ns = close_ns = commit_ns = write_ns = 0;
        while (done < before + n) {
            for (unsigned i = 0; i < BATCH; i++) {
                char name[17];
                file_name(done + i, name);
                request(i, MSG_mknod,
                        &(struct msg_mknod){
                            .parent = dirs[(done + i) / PER_DIR], .name = {name, 16}, .mode = S_IFREG | 0644});
            }
            uint64_t t = clock_thread_cpu_ns();
            for (unsigned i = 0; i < BATCH; i++)
                check(meta_prepare(m, &q[i]), "prepare");
            uint64_t t2 = clock_thread_cpu_ns();
            prepare_ns += t2 - t;
            for (unsigned i = 0; i < BATCH; i++)
                execute(i);
            ns += clock_thread_cpu_ns() - t2;
            for (unsigned i = 0; i < BATCH; i++)
                ids[done++] = q[i].answer.mknod.attr.inode;
            commit();
        }
        execute_ns[round] = (double)ns / (double)n;
        prepared[round] = (double)prepare_ns / (double)n;
        closed[round] = (double)close_ns / (double)n;
        committed[round] = (double)commit_ns / (double)n;
        written[round] = (double)write_ns / (double)n;
    }
    row("create: prepare (network thread)", prepared);
    row("create: execute (scribe)", execute_ns);
    row("create: close the batch of 100 (scribe)", closed);
    row("create: commit (scribe)", committed);
    row("create: seal, sort, walk, free (writer)", written);
    printf("%-44s %8.1f bytes\n", "create: log", (double)log_bytes / (double)file_count);
}

/* n random requests a round, made beforehand in groups, run by meta_read. */
static void bench_read(const char *what, uint64_t n, void (*make)(unsigned i))
{
    double ns[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t spent = 0;
        for (uint64_t done = 0; done < n; done += BATCH) {
            for (unsigned i = 0; i < BATCH; i++)
                make(i);
            uint64_t t = clock_thread_cpu_ns();
            for (unsigned i = 0; i < BATCH; i++)
                if (meta_read(m, &q[i]) != 0)
                    log_fatal(-CV_NOT_PREPARED, "%s", what);
            spent += clock_thread_cpu_ns() - t;
        }
        ns[round] = (double)spent / (double)n;
    }
    row(what, ns);
}

static uint64_t span; /* files the random choice is from */

static void make_lookup(unsigned i)
{
    char name[17];
    uint64_t k = prng_next(&prng) % span;
    file_name(k, name);
    request(i, MSG_lookup, &(struct msg_lookup){.parent = dirs[k / PER_DIR], .name = {name, 16}});
}

static void make_absent(unsigned i)
{
    request(i, MSG_lookup,
            &(struct msg_lookup){.parent = dirs[prng_next(&prng) % span / PER_DIR], .name = TEXT("no such name")});
}

static void make_getattr(unsigned i)
{
    request(i, MSG_getattr, &(struct msg_getattr){.inode = ids[prng_next(&prng) % span]});
}

static void make_readdir(unsigned i)
{
    request(i, MSG_readdir,
            &(struct msg_readdir){.inode = dirs[prng_next(&prng) % span / PER_DIR], .flags = READDIR_ATTR});
}

static void bench_change(const char *what, uint64_t n, void (*make)(unsigned i))
{
    double ns[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t spent = 0;
        for (uint64_t done = 0; done < n; done += BATCH) {
            for (unsigned i = 0; i < BATCH; i++)
                make(i);
            uint64_t t = clock_thread_cpu_ns();
            for (unsigned i = 0; i < BATCH; i++)
                execute(i);
            spent += clock_thread_cpu_ns() - t;
            commit();
        }
        ns[round] = (double)spent / (double)n;
    }
    row(what, ns);
}

static void make_chmod(unsigned i)
{
    request(i, MSG_setattr,
            &(struct msg_setattr){.inode = ids[prng_next(&prng) % span], .valid = SETATTR_MODE, .mode = 0600});
}

static uint64_t removed;

static void make_unlink(unsigned i)
{
    char name[17];
    file_name(removed, name);
    request(i, MSG_unlink, &(struct msg_unlink){.parent = dirs[removed / PER_DIR], .name = {name, 16}});
    removed++;
}

static uint64_t rss(void)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return (uint64_t)resident * 4096;
}

int main(int argc, char **argv)
{
    file_count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t dir_count = (file_count + PER_DIR - 1) / PER_DIR;
    dirs = calloc(dir_count, sizeof(*dirs));
    ids = calloc(file_count + BATCH, sizeof(*ids));
    const struct meta_options o = {.memory_bytes = 8ull << 30};
    check(meta_new(&o, &null_base, &m), "new");
    meta_lead(m, 1);
    inner(META_OP_format, 1);
    request(0, MSG_session_open, &(struct msg_session_open){.slots = 64});
    execute(0);
    session = q[0].answer.session_open.session;
    commit();
    memset(ids, 0xff, (file_count + BATCH) * sizeof(*ids));
    memset(dirs, 0xff, dir_count * sizeof(*dirs));

    struct meta_stats s;
    uint64_t before = rss();
    meta_stats(m, &s);
    uint64_t tree_before = s.tree_bytes;
    for (uint64_t i = 0; i < dir_count; i++) {
        char name[17];
        file_name(i, name);
        dirs[i] = make_dir(META_ROOT, name);
        if (i % BATCH == 0)
            commit();
    }
    commit();
    meta_stats(m, &s);
    printf("%-44s %8.1f bytes\n", "memory: tree per directory (name of 16 bytes)",
           (double)(s.tree_bytes - tree_before) / (double)dir_count);
    tree_before = s.tree_bytes;
    bench_create();
    meta_stats(m, &s);
    printf("%-44s %8.1f bytes\n", "memory: tree per file", (double)(s.tree_bytes - tree_before) / (double)file_count);
    malloc_trim(0);
    printf("%-44s %8.1f bytes (delta: %.1f)\n", "memory: process per file",
           (double)(rss() - before) / (double)file_count, (double)s.delta_bytes / (double)file_count);
    const uint64_t spans[] = {1000, 10000, file_count};
    for (size_t i = 0; i < array_size(spans); i++) {
        span = min(spans[i], file_count);
        printf("--- reads of %lu files\n", (unsigned long)span);
        bench_read("lookup", 200000, make_lookup);
        bench_read("lookup of a name that is not there", 200000, make_absent);
        bench_read("getattr", 200000, make_getattr);
        bench_read("readdir of 1,000 names with attributes", 500, make_readdir);
    }
    bench_change("chmod: execute", file_count / 10, make_chmod);
    bench_change("unlink: execute", file_count / 10, make_unlink);
    meta_free(m);
    for (unsigned i = 0; i < BATCH; i++) {
        meta_request_fini(&q[i]);
        buf_fini(&bodies[i]);
    }
    free(dirs);
    free(ids);
    return 0;
}
