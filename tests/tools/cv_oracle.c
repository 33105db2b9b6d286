/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mutation load with an oracle: each thread works in a directory of its own, one operation at a time, and writes
 * what it is about to do and what it was told to a log that no daemon knows of. Daemons may be killed under it at any
 * time: the library retries, so every answer must be the one a file system that never failed would have given. A
 * second execution shows as a wrong answer (EEXIST for a new name, ENOENT for one that is there); a lost one when the
 * names are compared with the log at the end.
 *
 *      cv-oracle run    --masters A --log FILE [--threads N] [--seconds S] [--seed X] [--root /path]
 *      cv-oracle verify --masters A --log FILE [--root /path]
 *
 * "run" ends after S seconds or on SIGTERM, verifies, and exits 0 only when nothing was wrong. "verify" needs the log
 * alone: for power cuts, after which the operation under way of each thread may or may not have happened.
 *
 * Log lines: "<thread> B <op> <a> <b>" before, "<thread> E <result>" after, appended with one write each.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "client/curvine.h"

#define NAMES       512 /* names a thread plays with: small, so that they are made and removed again and again */
#define THREADS_MAX 256

enum op {
    OP_CREATE,
    OP_MKDIR,
    OP_SYMLINK,
    OP_LINK,
    OP_UNLINK,
    OP_RMDIR,
    OP_RENAME,
    OP_TRUNCATE,
    OP_CHMOD,
    OP_SETXATTR,
    OP_COUNT
};

static const char *const op_names[OP_COUNT] = {"create", "mkdir",  "symlink",  "link",  "unlink",
                                               "rmdir",  "rename", "truncate", "chmod", "setxattr"};

enum kind { NONE, FILE_, DIR_, SYMLINK_ };

/* What a thread knows of the file behind a name; hard links share one. */
struct thing {
    enum kind kind;
    uint64_t size;
    uint32_t mode, nlink;
    uint32_t xattr; /* value of user.v, 0: none */
};

struct name {
    int thing; /* index into things, -1: no such name */
};

struct model {
    struct name names[NAMES];
    struct thing things[NAMES + 1];
    /* The operation without an answer at the end of a log. */
    bool open;
    enum op op;
    int a, b;
};

struct worker {
    int id;
    pthread_t thread;
    struct prng prng;
    struct model model;
    uint64_t inode, done, retries;
    bool failed;
};

static struct {
    const char *masters, *root, *log;
    int threads, seconds;
    uint64_t seed;
} options = {.root = "/oracle", .threads = 40, .seconds = 10, .seed = 1};

static struct curvine *cv;
static int log_fd = -1;
static atomic_bool stop;
static atomic_ullong total;
static atomic_bool any_failed;

/* ---- the model: what an answer must be, and what it changes ------------------------------------------------------- */

static void model_init(struct model *m)
{
    *m = (struct model){0};
    for (int i = 0; i < NAMES; i++)
        m->names[i].thing = -1;
}

static int new_thing(struct model *m, enum kind kind)
{
    for (int i = 0; i <= NAMES; i++)
        if (m->things[i].kind == NONE) {
            m->things[i] = (struct thing){.kind = kind, .nlink = 1, .mode = kind == DIR_ ? 0755 : 0644};
            return i;
        }
    abort();
}

static void drop_name(struct model *m, int a)
{
    struct thing *t = &m->things[m->names[a].thing];
    if (--t->nlink == 0)
        t->kind = NONE;
    m->names[a].thing = -1;
}

static struct thing *thing_of(struct model *m, int a)
{
    return m->names[a].thing < 0 ? NULL : &m->things[m->names[a].thing];
}

static int expected(struct model *m, enum op op, int a, int b)
{
    struct thing *ta = thing_of(m, a), *tb = thing_of(m, b);
    switch (op) {
    case OP_CREATE:
    case OP_MKDIR:
    case OP_SYMLINK: return ta ? -EEXIST : 0;
    case OP_LINK: return !ta ? -ENOENT : tb ? -EEXIST : ta->kind == DIR_ ? -EPERM : 0; /* in the order of link(2) */
    case OP_UNLINK: return !ta ? -ENOENT : ta->kind == DIR_ ? -EISDIR : 0;
    case OP_RMDIR: return !ta ? -ENOENT : ta->kind != DIR_ ? -ENOTDIR : 0;
    case OP_RENAME:
        if (!ta)
            return -ENOENT;
        if (a == b || (tb && ta == tb))
            return 0;
        if (tb && ta->kind == DIR_ && tb->kind != DIR_)
            return -ENOTDIR;
        if (tb && ta->kind != DIR_ && tb->kind == DIR_)
            return -EISDIR;
        return 0;
    case OP_TRUNCATE:
    case OP_CHMOD:
    case OP_SETXATTR: return !ta ? -ENOENT : 0;
    default: abort();
    }
}

static void apply(struct model *m, enum op op, int a, int b)
{
    struct thing *ta = thing_of(m, a);
    switch (op) {
    case OP_CREATE: m->names[a].thing = new_thing(m, FILE_); break;
    case OP_MKDIR: m->names[a].thing = new_thing(m, DIR_); break;
    case OP_SYMLINK: m->names[a].thing = new_thing(m, SYMLINK_); break;
    case OP_LINK:
        m->names[b].thing = m->names[a].thing;
        ta->nlink++;
        break;
    case OP_UNLINK:
    case OP_RMDIR: drop_name(m, a); break;
    case OP_RENAME:
        if (a == b || thing_of(m, b) == ta)
            break;
        if (thing_of(m, b))
            drop_name(m, b);
        m->names[b].thing = m->names[a].thing;
        m->names[a].thing = -1;
        break;
    case OP_TRUNCATE: ta->size = (uint64_t)b; break;
    case OP_CHMOD: ta->mode = 0600 | (uint32_t)(b & 077); break;
    case OP_SETXATTR: ta->xattr = (uint32_t)b + 1; break;
    default: abort();
    }
}

/* Operations the namespace refuses by type are not worth a log line. */
static bool allowed(struct model *m, enum op op, int a)
{
    struct thing *t = thing_of(m, a);
    if (op == OP_TRUNCATE)
        return !t || t->kind == FILE_;
    if (op == OP_CHMOD || op == OP_SETXATTR)
        return !t || t->kind != SYMLINK_;
    return true;
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static void log_write(const char *line, int n)
{
    if (write(log_fd, line, (size_t)n) != n) {
        perror("oracle log");
        abort();
    }
}

static struct curvine_text name_text(int a, char out[16])
{
    return (struct curvine_text){out, (uint32_t)snprintf(out, 16, "n%d", a)};
}

/* The inode behind a name, for operations by inode. */
static int lookup(const struct worker *w, int a, uint64_t *ret)
{
    char n[16];
    struct curvine_request q = {.op = CURVINE_LOOKUP, .inode = w->inode, .name = name_text(a, n)};
    int r = curvine_run(cv, &q);
    if (r == 0)
        *ret = q.attr.inode;
    curvine_request_free(&q);
    return r;
}

static int execute(const struct worker *w, enum op op, int a, int b)
{
    char na[16], nb[16], value[16];
    struct curvine_request q = {.inode = w->inode, .name = name_text(a, na)};
    int r = 0;
    switch (op) {
    case OP_CREATE:
        q.op = CURVINE_CREATE;
        q.mode = 0644;
        q.flags = O_CREAT | O_EXCL | O_WRONLY;
        break;
    case OP_MKDIR:
        q.op = CURVINE_MKDIR;
        q.mode = 0755;
        break;
    case OP_SYMLINK:
        q.op = CURVINE_SYMLINK;
        q.value = (struct curvine_text){"target", 6};
        break;
    case OP_LINK:
        q.op = CURVINE_LINK;
        r = lookup(w, a, &q.inode2);
        q.name = name_text(b, nb);
        break;
    case OP_UNLINK: q.op = CURVINE_UNLINK; break;
    case OP_RMDIR: q.op = CURVINE_RMDIR; break;
    case OP_RENAME:
        q.op = CURVINE_RENAME;
        q.inode2 = w->inode;
        q.value = name_text(b, nb);
        break;
    case OP_TRUNCATE:
        q.op = CURVINE_SETATTR;
        q.valid = CURVINE_SET_SIZE;
        q.size = (uint64_t)b;
        r = lookup(w, a, &q.inode);
        break;
    case OP_CHMOD:
        q.op = CURVINE_SETATTR;
        q.valid = CURVINE_SET_MODE;
        q.mode = 0600 | (uint32_t)(b & 077);
        r = lookup(w, a, &q.inode);
        break;
    case OP_SETXATTR:
        q.op = CURVINE_SETXATTR;
        q.name = (struct curvine_text){"user.v", 6};
        q.value = (struct curvine_text){value, (uint32_t)snprintf(value, sizeof(value), "%d", b + 1)};
        r = lookup(w, a, &q.inode);
        break;
    default: abort();
    }
    if (r == 0)
        r = curvine_run(cv, &q);
    if (r == 0 && op == OP_CREATE) { /* nobody keeps it open */
        struct curvine_request close = {.op = CURVINE_RELEASE, .inode = q.attr.inode, .handle = q.handle};
        curvine_run(cv, &close);
        curvine_request_free(&close);
    }
    curvine_request_free(&q);
    return r;
}

static bool step(struct worker *w)
{
    struct model *m = &w->model;
    enum op op = prng_below(&w->prng, OP_COUNT);
    int a = (int)prng_below(&w->prng, NAMES), b = (int)prng_below(&w->prng, NAMES);
    if (!allowed(m, op, a))
        return true;
    char line[96];
    log_write(line, snprintf(line, sizeof(line), "%d B %d %d %d\n", w->id, op, a, b));
    int want = expected(m, op, a, b), got = execute(w, op, a, b);
    log_write(line, snprintf(line, sizeof(line), "%d E %d\n", w->id, got));
    if (cv_error_errno(got) != cv_error_errno(want)) {
        fprintf(stderr, "thread %d: %s n%d n%d (operation %" PRIu64 "): answer %s, expected %s\n", w->id, op_names[op],
                a, b, w->done, got ? cv_error_name(got) : "ok", want ? cv_error_name(want) : "ok");
        return false;
    }
    if (got == 0)
        apply(m, op, a, b);
    w->done++;
    atomic_fetch_add(&total, 1);
    return true;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&stop) && !atomic_load(&any_failed))
        if (!step(w)) {
            w->failed = true;
            atomic_store(&any_failed, true);
        }
    return NULL;
}

/* ---- comparing what is there with the model ----------------------------------------------------------------------------- */

struct seen {
    struct worker *w;
    struct model *m;
    bool present[NAMES];
    int bad;
};

static int complain(const struct seen *s, int a, const char *what, uint64_t got, uint64_t want)
{
    fprintf(stderr, "thread %d: n%d: %s is %" PRIu64 ", expected %" PRIu64 "\n", s->w->id, a, what, got, want);
    return 1;
}

static int check_xattr(const struct seen *s, int a, uint64_t inode, uint32_t want)
{
    struct curvine_request q = {.op = CURVINE_GETXATTR, .inode = inode, .name = {"user.v", 6}};
    int r = curvine_run(cv, &q);
    uint32_t got = 0;
    for (uint32_t i = 0; r == 0 && i < q.data.n; i++)
        got = got * 10 + (uint32_t)(q.data.p[i] - '0');
    curvine_request_free(&q);
    if (r < 0 && cv_error_errno(r) != ENODATA)
        return complain(s, a, "error of getxattr", (uint64_t)-r, 0);
    return got != want ? complain(s, a, "user.v", got, want) : 0;
}

static int check_entry(const struct curvine_dirent *e, void *arg)
{
    struct seen *s = arg;
    char number[16] = {0};
    memcpy(number, e->name.p, min(e->name.n, 15u));
    int a = atoi(number + 1);
    if (number[0] != 'n' || a < 0 || a >= NAMES || s->present[a]) {
        fprintf(stderr, "thread %d: unexpected or double name %s\n", s->w->id, number);
        s->bad++;
        return 0;
    }
    s->present[a] = true;
    struct thing *t = thing_of(s->m, a);
    if (!t) {
        s->bad += complain(s, a, "presence", 1, 0);
        return 0;
    }
    uint32_t type = t->kind == FILE_ ? S_IFREG : t->kind == DIR_ ? S_IFDIR : S_IFLNK;
    if ((e->attr.mode & S_IFMT) != type)
        s->bad += complain(s, a, "type", e->attr.mode & S_IFMT, type);
    if (t->kind != DIR_ && e->attr.nlink != t->nlink)
        s->bad += complain(s, a, "nlink", e->attr.nlink, t->nlink);
    if (t->kind == FILE_ && e->attr.size != t->size)
        s->bad += complain(s, a, "size", e->attr.size, t->size);
    if (t->kind != SYMLINK_ && (e->attr.mode & 0777) != t->mode)
        s->bad += complain(s, a, "mode", e->attr.mode & 0777, t->mode);
    if (t->kind != SYMLINK_)
        s->bad += check_xattr(s, a, e->inode, t->xattr);
    return 0;
}

static int differences(struct worker *w, struct model *m)
{
    struct seen s = {.w = w, .m = m};
    int r = curvine_list(cv, w->inode, check_entry, &s);
    if (r < 0) {
        fprintf(stderr, "thread %d: list: %s\n", w->id, cv_error_text(r));
        return 1;
    }
    for (int a = 0; a < NAMES; a++)
        if (m->names[a].thing >= 0 && !s.present[a])
            s.bad += complain(&s, a, "presence", 0, 1);
    return s.bad;
}

/* An operation under way at the end of the log may have happened or not: the names must be as in one of the two. */
static int verify_worker(struct worker *w)
{
    struct model *m = &w->model;
    if (m->open && expected(m, m->op, m->a, m->b) == 0) {
        struct model after = *m;
        apply(&after, m->op, m->a, m->b);
        fprintf(stderr, "thread %d: trying without and with the open %s n%d n%d\n", w->id, op_names[m->op], m->a, m->b);
        return differences(w, m) == 0 || differences(w, &after) == 0 ? 0 : 1;
    }
    return differences(w, m);
}

static int open_directory(struct worker *w, bool make)
{
    char path[512];
    struct curvine_attr attr;
    snprintf(path, sizeof(path), "%s/t%d", options.root, w->id);
    int r = make ? curvine_mkdirs(cv, path, 0755) : 0;
    r = r ? r : curvine_stat(cv, path, 0, &attr);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", path, cv_error_text(r));
    else
        w->inode = attr.inode;
    return r;
}

static int verify_all(struct worker *workers, int count)
{
    int bad = 0;
    for (int i = 0; i < count; i++)
        bad += verify_worker(&workers[i]) != 0;
    printf("%s: %d threads' directories, %d differ\n", bad ? "WRONG" : "ok", count, bad);
    return bad ? 1 : 0;
}

static void on_signal(int number)
{
    atomic_store(&stop, true);
}

static int run(struct worker *workers)
{
    log_fd = open(options.log, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0) {
        perror(options.log);
        return 1;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    for (int i = 0; i < options.threads; i++)
        if (open_directory(&workers[i], true) < 0)
            return 1;
    uint64_t start = clock_ns();
    for (int i = 0; i < options.threads; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            abort();
    uint64_t end = start + (uint64_t)options.seconds * NS_PER_S;
    while (clock_ns() < end && !atomic_load(&stop) && !atomic_load(&any_failed))
        usleep(20000);
    atomic_store(&stop, true);
    for (int i = 0; i < options.threads; i++)
        pthread_join(workers[i].thread, NULL);
    double seconds = (double)(clock_ns() - start) / 1e9;
    printf("%llu operations in %.1f s, %.0f/s\n", (unsigned long long)atomic_load(&total), seconds,
           (double)atomic_load(&total) / seconds);
    if (atomic_load(&any_failed))
        return 1;
    return verify_all(workers, options.threads);
}

/* Rebuild the models from the log. Returns the number of threads in it, or -1. */
static int read_log(struct worker *workers)
{
    FILE *f = fopen(options.log, "r");
    if (!f) {
        perror(options.log);
        return -1;
    }
    char line[128];
    int count = 0;
    while (fgets(line, sizeof(line), f)) {
        int id, op, a, b, result;
        if (!strchr(line, '\n'))
            break; /* torn by the end of this process */
        if (sscanf(line, "%d B %d %d %d", &id, &op, &a, &b) == 4) {
            struct model *m = &workers[id].model;
            m->open = true;
            m->op = (enum op)op;
            m->a = a;
            m->b = b;
            count = max(count, id + 1);
        } else if (sscanf(line, "%d E %d", &id, &result) == 2) {
            struct model *m = &workers[id].model;
            /* Only definite answers count: after a deadline or a dead session the outcome is open. */
            if (result == 0)
                apply(m, m->op, m->a, m->b);
            if (result == 0 || -result < 1000)
                m->open = false;
        }
    }
    fclose(f);
    return count;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: cv-oracle run|verify --masters A --log FILE [--threads N] [--seconds S] [--seed X] [--root P]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"masters", 1, NULL, 'm'},
                                          {"log", 1, NULL, 'l'},
                                          {"threads", 1, NULL, 't'},
                                          {"seconds", 1, NULL, 's'},
                                          {"seed", 1, NULL, 'x'},
                                          {"root", 1, NULL, 'r'},
                                          {0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        switch (c) {
        case 'm': options.masters = optarg; break;
        case 'l': options.log = optarg; break;
        case 't': options.threads = atoi(optarg); break;
        case 's': options.seconds = atoi(optarg); break;
        case 'x': options.seed = strtoull(optarg, NULL, 10); break;
        case 'r': options.root = optarg; break;
        default: return usage();
        }
    if (optind != argc - 1 || !options.masters || !options.log || options.threads < 1 || options.threads > THREADS_MAX)
        return usage();
    static struct worker workers[THREADS_MAX];
    for (int i = 0; i < THREADS_MAX; i++) {
        workers[i] = (struct worker){.id = i, .prng = {options.seed * 1000 + (uint64_t)i}};
        model_init(&workers[i].model);
    }
    int r = curvine_open(
        &(struct curvine_options){.masters = options.masters, .timeout_ms = 60000, .program = "cv-oracle"}, &cv);
    if (r < 0) {
        fprintf(stderr, "cv-oracle: %s: %s\n", options.masters, cv_error_text(r));
        return 1;
    }
    int status = 2;
    if (strcmp(argv[optind], "run") == 0) {
        status = run(workers);
    } else if (strcmp(argv[optind], "verify") == 0) {
        int count = read_log(workers);
        status = count < 0;
        for (int i = 0; i < count; i++)
            if (open_directory(&workers[i], false) < 0)
                return 1;
        if (count >= 0)
            status = verify_all(workers, count);
    } else {
        usage();
    }
    curvine_close(cv);
    return status;
}
