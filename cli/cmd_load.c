/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv load, cv free: content into the cache and out of it. load asks the owner of each block to fetch it, many at the same
 * time; the worker makes sure that it is fetched once. A file is loaded when all its blocks are.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/error.h"
#include "cli/cluster_map.h"
#include "cli/connect.h"
#include "cli/copy.h"
#include "cli/crew.h"
#include "cli/progress.h"
#include "cli/tree.h"
#include "client/client_ask.h"

#define LOAD_THREADS 32
#define FILL_MS      300000 /* one block from a slow store */
#define CHUNK        (1u << 20)
#define PATH_SIZE    4400

struct work {
    struct cli *cli;
    struct curvine *cv;
    struct cluster_map map;
    struct progress progress;
    bool recursive, check;
    unsigned threads;
    struct crew crew;
    _Atomic uint64_t fetched; /* load: bytes that came from under file systems */
    /* free, check: inodes are asked for in portions. */
    uint64_t inodes[PRESENCE_MAX], sizes[PRESENCE_MAX];
    unsigned n;
    uint64_t freed, dirty, busy;          /* free */
    uint64_t files, bytes, whole, cached; /* check */
};

/* ---- arguments and walking ---------------------------------------------------------------------------------------------- */

static int parse(struct cli *cli, int argc, char **argv, bool load, struct work *w)
{
    static const struct option all[] = {{"recursive", no_argument, NULL, 'r'},
                                        {"check", no_argument, NULL, 1},
                                        {"threads", required_argument, NULL, 'T'},
                                        {0}};
    static const struct option recursive_only[] = {{"recursive", no_argument, NULL, 'r'}, {0}};
    char *end;
    w->cli = cli;
    w->threads = LOAD_THREADS;
    for (int o; (o = cli_option(cli, argc, argv, load ? "rRT:" : "rR", load ? all : recursive_only)) != -1;)
        switch (o) {
        case 'r':
        case 'R': w->recursive = true; break;
        case 1: w->check = true; break;
        case 'T':
            w->threads = (unsigned)strtoul(optarg, &end, 10);
            if (*end || w->threads == 0 || w->threads > CREW_MAX)
                return cli_usage(cli, "--threads %s: expected 1 to %d", optarg, CREW_MAX);
            break;
        default: return cli_option_status() == CLI_OK ? -1 : cli_option_status();
        }
    return optind < argc ? CLI_OK : cli_usage(cli, load ? "load what?" : "free what?");
}

static void fail_path(struct work *w, int r, const char *path, const char *why)
{
    char shown[PATH_SIZE + 1];
    snprintf(shown, sizeof(shown), ":%s", path);
    progress_fail(&w->progress, r, shown, why);
}

/* Walk all arguments; each() gets regular files only. Failures are reported, each as one. */
static void walk_all(struct work *w, char **arguments, int (*each)(const struct tree_entry *e, void *arg))
{
    for (char **a = arguments; *a && !copy_interrupted(); a++) {
        char path[PATH_SIZE], where[PATH_SIZE];
        struct curvine_attr attr;
        cli_any_path(w->cli, *a, path, sizeof(path)); /* checked already */
        int r = curvine_stat(w->cv, path, 0, &attr);
        if (r == 0 && S_ISDIR(attr.mode) && !w->recursive) {
            fail_path(w, -EISDIR, path, "it is a directory: add -r for everything in it");
            continue;
        }
        r = tree_walk(w->cv, path, TREE_BEFORE, UINT32_MAX, each, w, where, sizeof(where));
        if (r < 0 && r != -ECANCELED)
            fail_path(w, r, where, NULL);
    }
}

static int prepare(struct work *w, char **arguments)
{
    char path[PATH_SIZE];
    int status = CLI_OK;
    for (char **a = arguments; status == CLI_OK && *a; a++)
        status = cli_any_path(w->cli, *a, path, sizeof(path));
    if (status == CLI_OK)
        status = cli_connect(w->cli, &w->cv);
    int r = status == CLI_OK ? cluster_map_get(w->cv, &w->map) : 0;
    return r < 0 ? cli_fail(w->cli, r, NULL, "ask for the workers") : status;
}

static void work_fini(struct work *w)
{
    cluster_map_fini(&w->map);
    curvine_close(w->cv);
}

/* ---- load ------------------------------------------------------------------------------------------------------------------ */

/* A file whose blocks are being fetched; freed by whoever ends its last task. */
struct load_file {
    struct work *work;
    _Atomic unsigned left; /* tasks, and one for the walker while it adds them */
    _Atomic int error;
    _Atomic uint64_t counted;
    char why[160];
    char path[];
};

struct load_task {
    struct load_file *file;
    struct block_place place;
};

static void file_error(struct load_file *f, int r, const char *step, uint32_t block)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&f->error, &none, r))
        snprintf(f->why, sizeof(f->why), "%s block %u: %s", step, block, cv_error_text(r));
}

static void file_put(struct load_file *f)
{
    if (atomic_fetch_sub(&f->left, 1) != 1)
        return;
    if (f->error) {
        progress_forget(&f->work->progress, f->counted);
        fail_path(f->work, f->error, f->path, f->why[0] ? f->why : NULL);
    } else {
        progress_add(&f->work->progress, 1, 0);
    }
    free(f);
}

static int fill(struct work *w, const struct block_place *p)
{
    struct buf body cleanup(buf_fini) = {0};
    uint32_t length = max(p->block.base_length, p->written ? p->block.valid_length : 0);
    struct msg_block_fill ask = {.block = p->block, .first = 0, .count = (length + CHUNK - 1) / CHUNK};
    struct msg_block_fill_answer answer;
    int r = client_ask_worker(w->cv, p->worker, MSG_block_fill, msg_block_fill_desc(), &ask, NULL, 0,
                              cli_timeout_ms(w->cli, FILL_MS), &body);
    if (r == 0)
        r = msg_block_fill_answer_decode(body.p, body.n, &answer);
    if (r == 0)
        w->fetched += answer.filled;
    return r;
}

static void run_task(void *arg)
{
    struct load_task *t = arg;
    struct load_file *f = t->file;
    int r = copy_interrupted() ? -ECANCELED : f->error ? f->error : fill(f->work, &t->place);
    if (r < 0) {
        file_error(f, r, "fetch", t->place.block.index);
    } else {
        f->counted += t->place.block.base_length;
        progress_add(&f->work->progress, 0, t->place.block.base_length);
    }
    free(t);
    file_put(f);
}

static int load_block(const struct block_place *p, void *arg)
{
    struct load_file *f = arg;
    if (copy_interrupted())
        return -ECANCELED;
    if (p->block.base_length == 0)
        return 0; /* written: it is nowhere but in the cache */
    if (p->worker == 0)
        return -CV_NO_WORKER;
    struct load_task *t = malloc(sizeof(*t));
    if (!t)
        return -ENOMEM;
    *t = (struct load_task){f, *p};
    f->left++;
    progress_expect(&f->work->progress, 0, p->block.base_length);
    crew_push(&f->work->crew, t);
    return 0;
}

static int load_entry(const struct tree_entry *e, void *arg)
{
    struct work *w = arg;
    if (copy_interrupted())
        return -ECANCELED;
    if (!S_ISREG(e->attr.mode))
        return 0;
    size_t n = strlen(e->path) + 1;
    struct load_file *f = calloc(1, sizeof(*f) + n);
    if (!f)
        return -ENOMEM;
    f->work = w;
    f->left = 1;
    memcpy(f->path, e->path, n);
    progress_expect(&w->progress, 1, 0);
    int r = cluster_each_block(w->cv, &w->map, e->attr.inode, load_block, f);
    if (r < 0)
        file_error(f, r, "find", 0);
    file_put(f);
    return 0;
}

static int load(struct work *w, char **arguments)
{
    char text[24];
    copy_catch_interrupts();
    progress_start(&w->progress, w->cli, "load", NULL);
    int r = crew_init(&w->crew, w->threads, run_task);
    if (r < 0) {
        progress_fail(&w->progress, r, "threads", NULL);
        return progress_end(&w->progress);
    }
    walk_all(w, arguments, load_entry);
    progress_counted(&w->progress);
    crew_fini(&w->crew);
    progress_note(&w->progress, "%s came from the under file system; the rest was cached already",
                  format_size(w->fetched, text, sizeof(text)));
    int status = progress_end(&w->progress);
    return copy_interrupted() ? CLI_FAILED : status;
}

/* ---- check ------------------------------------------------------------------------------------------------------------------ */

static int check_portion(struct work *w)
{
    struct held sums[PRESENCE_MAX];
    int r = w->n ? cluster_held(w->cv, &w->map, w->inodes, w->n, sums) : 0;
    for (unsigned i = 0; r == 0 && i < w->n; i++) {
        uint64_t cached = min(sums[i].cached, w->sizes[i]);
        w->cached += cached;
        w->whole += cached == w->sizes[i];
    }
    w->n = 0;
    return r;
}

static int check_entry(const struct tree_entry *e, void *arg)
{
    struct work *w = arg;
    if (copy_interrupted())
        return -ECANCELED;
    if (!S_ISREG(e->attr.mode))
        return 0;
    w->files++;
    w->bytes += e->attr.size;
    w->inodes[w->n] = e->attr.inode;
    w->sizes[w->n++] = e->attr.size;
    return w->n == PRESENCE_MAX ? check_portion(w) : 0;
}

static int check(struct work *w, char **arguments)
{
    static const struct out_column columns[] = {
        {"path", OUT_TEXT},  {"files", OUT_NUMBER}, {"whole", OUT_NUMBER},
        {"bytes", OUT_SIZE}, {"cached", OUT_SIZE},  {"share", OUT_TEXT},
    };
    struct out *o = out_table(columns, array_size(columns));
    for (char **a = arguments; *a; a++) {
        char path[PATH_SIZE], where[PATH_SIZE], share[16];
        w->files = w->bytes = w->whole = w->cached = 0;
        cli_any_path(w->cli, *a, path, sizeof(path));
        int r = tree_walk(w->cv, path, TREE_BEFORE, UINT32_MAX, check_entry, w, where, sizeof(where));
        r = r ? r : check_portion(w);
        if (r < 0) {
            out_free(o);
            return cli_fail_path(w->cli, r, "look at", where[0] ? where : path);
        }
        /* Rounded down: 100 % is everything. */
        snprintf(share, sizeof(share), "%u%%",
                 w->bytes ? (unsigned)((double)w->cached * 100 / (double)w->bytes) : 100u);
        out_text(o, *a);
        out_number(o, w->files);
        out_number(o, w->whole);
        out_number(o, w->bytes);
        out_number(o, w->cached);
        out_text(o, share);
    }
    return cli_print(w->cli, o);
}

int cmd_load(struct cli *cli, int argc, char **argv)
{
    static struct work w;
    int status = parse(cli, argc, argv, true, &w);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    char **arguments = argv + optind;
    status = prepare(&w, arguments);
    if (status == CLI_OK)
        status = w.check ? check(&w, arguments) : load(&w, arguments);
    work_fini(&w);
    return status;
}

/* ---- free -------------------------------------------------------------------------------------------------------------------- */

static int free_portion(struct work *w)
{
    uint8_t packed[PRESENCE_MAX * 8];
    for (unsigned i = 0; i < w->n; i++)
        put_le64(packed + 8 * i, w->inodes[i]);
    struct msg_free ask = {.inodes = {(char *)packed, w->n * 8}};
    int r = 0;
    for (unsigned i = 0; r == 0 && w->n && i < w->map.count; i++) {
        struct buf body cleanup(buf_fini) = {0};
        struct msg_free_answer answer;
        const struct rec_worker *worker = &w->map.workers[i];
        if (!worker->up)
            continue;
        r = client_ask_worker(w->cv, worker->worker, MSG_free, msg_free_desc(), &ask, NULL, 0, 0, &body);
        if (r == 0)
            r = msg_free_answer_decode(body.p, body.n, &answer);
        if (r < 0) {
            char name[64];
            snprintf(name, sizeof(name), "worker %016llx", (unsigned long long)worker->worker);
            progress_fail(&w->progress, r, name, NULL);
            break;
        }
        w->freed += answer.freed_bytes;
        w->dirty += answer.dirty_bytes;
        w->busy += answer.busy;
        progress_add(&w->progress, 0, answer.freed_bytes);
    }
    if (r == 0)
        progress_add(&w->progress, w->n, 0);
    w->n = 0;
    return 0;
}

static int free_entry(const struct tree_entry *e, void *arg)
{
    struct work *w = arg;
    if (copy_interrupted())
        return -ECANCELED;
    if (!S_ISREG(e->attr.mode))
        return 0;
    progress_expect(&w->progress, 1, 0);
    w->inodes[w->n++] = e->attr.inode;
    return w->n == PRESENCE_MAX ? free_portion(w) : 0;
}

int cmd_free(struct cli *cli, int argc, char **argv)
{
    static struct work w;
    int status = parse(cli, argc, argv, false, &w);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    char **arguments = argv + optind, text[24];
    status = prepare(&w, arguments);
    if (status == CLI_OK) {
        copy_catch_interrupts();
        progress_start(&w.progress, cli, "free", NULL);
        walk_all(&w, arguments, free_entry);
        free_portion(&w);
        progress_counted(&w.progress);
        if (w.dirty)
            progress_note(&w.progress, "%s stays: it is nowhere but in the cache",
                          format_size(w.dirty, text, sizeof(text)));
        if (w.busy)
            progress_note(&w.progress, "%llu files are in use and kept something", (unsigned long long)w.busy);
        status = progress_end(&w.progress);
    }
    work_fini(&w);
    return status;
}
