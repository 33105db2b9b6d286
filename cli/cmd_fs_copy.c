/* SPDX-License-Identifier: Apache-2.0 */
/* cv fs put, get, cp: files and trees into, out of and within the namespace. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/copy.h"
#include "cli/tree.h"

#define PATH_SIZE 4400
#define DEPTH_MAX 1000

struct copying {
    struct cli *cli;
    struct curvine *cv;
    struct progress progress;
    struct copier *copier;
    enum copy_place from, to;
    bool recursive, sync;
    unsigned threads;
    /* Of the source under way. */
    const char *target; /* where its top goes */
    size_t prefix;      /* of source paths, replaced by target */
};

static void report(struct copying *c, int r, enum copy_place place, const char *path, const char *why)
{
    char shown[PATH_SIZE + 1];
    snprintf(shown, sizeof(shown), "%s%s", place == COPY_CLUSTER ? ":" : "", path);
    progress_fail(&c->progress, r, shown, why);
}

static int status_of(struct copying *c, enum copy_place place, const char *path, bool follow, struct curvine_attr *ret)
{
    struct stat st;
    if (place == COPY_CLUSTER)
        return curvine_stat(c->cv, path, follow ? CURVINE_FOLLOW : 0, ret);
    if ((follow ? stat(path, &st) : lstat(path, &st)) < 0)
        return -errno;
    *ret = (struct curvine_attr){.mode = st.st_mode,
                                 .size = (uint64_t)st.st_size,
                                 .mtime_ns = ns_of_timespec(st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec)};
    return 0;
}

static int make_directory(struct copying *c, const char *path, uint32_t mode)
{
    mode = (mode & 0777) | 0700; /* we write into it */
    int r = c->to == COPY_CLUSTER ? curvine_mkdir(c->cv, path, mode) : mkdir(path, mode) < 0 ? -errno : 0;
    if (r != -EEXIST)
        return r;
    struct curvine_attr attr;
    r = status_of(c, c->to, path, true, &attr);
    return r ? r : S_ISDIR(attr.mode) ? 0 : -ENOTDIR;
}

static int copy_symlink(struct copying *c, const char *from, const char *to)
{
    char target[4096];
    int r = 0;
    if (c->from == COPY_CLUSTER) {
        r = curvine_readlink(c->cv, from, target, sizeof(target));
    } else {
        ssize_t n = readlink(from, target, sizeof(target) - 1);
        r = n < 0 ? -errno : 0;
        target[max(n, (ssize_t)0)] = '\0';
    }
    if (r == 0)
        r = c->to == COPY_CLUSTER ? curvine_symlink(c->cv, target, to) : symlink(target, to) < 0 ? -errno : 0;
    return r;
}

/* One name. Its failure is reported; a negative result ends everything. */
static int copy_one(struct copying *c, const char *from, const struct curvine_attr *attr)
{
    char to[PATH_SIZE];
    int r = 0;
    if (copy_interrupted())
        return -ECANCELED;
    if (snprintf(to, sizeof(to), "%s%s", c->target, from + c->prefix) >= (int)sizeof(to)) {
        report(c, -ENAMETOOLONG, c->from, from, NULL);
    } else if (S_ISREG(attr->mode)) {
        r = copier_file(c->copier, (struct copy_end){c->from, from}, (struct copy_end){c->to, to}, attr->size,
                        attr->mode, attr->mtime_ns);
    } else if (S_ISDIR(attr->mode)) {
        r = make_directory(c, to, attr->mode);
        if (r < 0) { /* nothing below it can be copied */
            report(c, r, c->to, to, NULL);
            return r;
        }
    } else if (S_ISLNK(attr->mode)) {
        progress_expect(&c->progress, 1, 0);
        int made = copy_symlink(c, from, to);
        if (made < 0)
            report(c, made, c->from, from, NULL);
        else
            progress_add(&c->progress, 1, 0);
    } else {
        report(c, -EINVAL, c->from, from, "neither a file, a directory nor a symlink: left out");
    }
    return r;
}

/* ---- walking ------------------------------------------------------------------------------------------------------------- */

static int copy_entry(const struct tree_entry *e, void *arg)
{
    return copy_one(arg, e->path, &e->attr);
}

static int walk_here(struct copying *c, const char *path, unsigned depth)
{
    struct curvine_attr attr;
    int r = status_of(c, COPY_HERE, path, depth == 0, &attr);
    if (r < 0) {
        report(c, r, COPY_HERE, path, NULL);
        return 0;
    }
    r = copy_one(c, path, &attr);
    if (r < 0 || !S_ISDIR(attr.mode))
        return r;
    if (depth == DEPTH_MAX)
        return -ELOOP;
    DIR *d = opendir(path);
    if (!d) {
        report(c, -errno, COPY_HERE, path, NULL);
        return 0;
    }
    for (struct dirent *e; r == 0 && (e = readdir(d));) {
        char *child cleanup(freep) = NULL;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        r = asprintf(&child, "%s/%s", path, e->d_name) < 0 ? -ENOMEM : walk_here(c, child, depth + 1);
    }
    closedir(d);
    return r;
}

/* ---- one source ------------------------------------------------------------------------------------------------------------ */

static size_t trimmed(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n;
}

/* "into" a directory: its path, '/', the last name of source. */
static int target_in(const char *directory, const char *source, char *out, size_t size)
{
    const char *slash = memrchr(source, '/', strlen(source)), *name = slash ? slash + 1 : source;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        name = ""; /* the root, or a directory without a name of its own: its content */
    size_t n = trimmed(directory);
    int length = snprintf(out, size, "%.*s%s%s", (int)n, directory, *name && directory[n - 1] != '/' ? "/" : "", name);
    return length >= (int)size ? -ENAMETOOLONG : 0;
}

static bool is_inside(const char *path, const char *directory)
{
    size_t n = trimmed(directory);
    return strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == '\0' || n == 1);
}

/* Is a path that may not exist yet at or below the directory, whatever symlinks and dots lead there? */
static int leads_below(struct copying *c, const char *path, uint64_t directory, bool *ret)
{
    struct buf at cleanup(buf_fini) = {0};
    struct curvine_attr attr;
    int r = buf_printf(&at, "%s", path);
    r = r ? r : curvine_stat(c->cv, (const char *)at.p, CURVINE_FOLLOW, &attr);
    if (r == -ENOENT) { /* its last name is to be made: what counts is where */
        const char *slash = strrchr(path, '/');
        at.n = 0;
        r = buf_printf(&at, "%.*s/", (int)(slash - path), path);
        r = r ? r : curvine_stat(c->cv, (const char *)at.p, CURVINE_FOLLOW, &attr);
    }
    while (r == 0 && attr.inode != directory && attr.inode != CURVINE_ROOT) {
        r = buf_printf(&at, "/..");
        r = r ? r : curvine_stat(c->cv, (const char *)at.p, CURVINE_FOLLOW, &attr);
    }
    *ret = r == 0 && attr.inode == directory;
    return r;
}

static int copy_source(struct copying *c, const char *argument, const char *target, bool into)
{
    char source[PATH_SIZE], to[PATH_SIZE];
    struct curvine_attr attr;
    snprintf(source, sizeof(source), "%.*s", (int)trimmed(argument), argument);
    int r = status_of(c, c->from, source, true, &attr);
    if (r == 0 && S_ISDIR(attr.mode) && !c->recursive) {
        report(c, -EISDIR, c->from, source, "it is a directory: add -r for it and everything in it");
        return 0;
    }
    if (r == 0)
        r = into ? target_in(target, source, to, sizeof(to))
            : snprintf(to, sizeof(to), "%.*s", (int)trimmed(target), target) >= (int)sizeof(to) ? -ENAMETOOLONG
                                                                                                : 0;
    bool inside =
        r == 0 && c->from == c->to && is_inside(to, source) && (S_ISDIR(attr.mode) || strcmp(to, source) == 0);
    if (r == 0 && !inside && c->from == c->to && S_ISDIR(attr.mode))
        r = leads_below(c, to, attr.inode, &inside);
    if (inside) {
        report(c, -EINVAL, c->from, source, "it cannot be copied into itself");
        return 0;
    }
    if (r < 0) {
        report(c, r, c->from, source, NULL);
        return 0;
    }
    c->target = strcmp(to, "/") == 0 ? "" : to;
    c->prefix = strcmp(source, "/") == 0 ? 0 : strlen(source);
    if (!S_ISDIR(attr.mode))
        return copy_one(c, source, &attr);
    if (c->from == COPY_HERE)
        return walk_here(c, source, 0);
    char where[PATH_SIZE] = "";
    uint64_t failed = c->progress.failed;
    r = tree_walk(c->cv, source, TREE_BEFORE, UINT32_MAX, copy_entry, c, where, sizeof(where));
    if (r < 0 && r != -ECANCELED && c->progress.failed == failed)
        report(c, r, c->from, where, NULL);
    return r == -ECANCELED || r == -ENOMEM ? r : 0;
}

/* ---- commands --------------------------------------------------------------------------------------------------------------- */

static int options_of(struct cli *cli, int argc, char **argv, struct copying *c)
{
    static const struct option options[] = {{"recursive", no_argument, NULL, 'r'},
                                            {"sync", no_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 'T'},
                                            {0}};
    char *end;
    for (int o; (o = cli_option(cli, argc, argv, "rRT:", options)) != -1;)
        switch (o) {
        case 'r':
        case 'R': c->recursive = true; break;
        case 's': c->sync = true; break;
        case 'T':
            c->threads = (unsigned)strtoul(optarg, &end, 10);
            if (*end || c->threads == 0 || c->threads > COPY_THREADS_MAX)
                return cli_usage(cli, "--threads %s: expected 1 to %d", optarg, COPY_THREADS_MAX);
            break;
        default: return cli_option_status() == CLI_OK ? -1 : cli_option_status();
        }
    return CLI_OK;
}

/* Sources and target are paths already, of the places in c. */
static int copy_all(struct copying *c, const char *verb, char **sources, int n, const char *target)
{
    struct curvine_attr attr;
    bool slash = target[strlen(target) - 1] == '/';
    int r = status_of(c, c->to, target, true, &attr);
    bool into = r == 0 && S_ISDIR(attr.mode);
    if (!into && (n > 1 || slash)) {
        r = r ? r : -ENOTDIR;
        return cli_fail(c->cli, r, c->to == COPY_CLUSTER ? "make it first: cv fs mkdir -p" : "make it first: mkdir -p",
                        "into '%s%s'", c->to == COPY_CLUSTER ? ":" : "", target);
    }
    copy_catch_interrupts();
    progress_start(&c->progress, c->cli, verb, NULL);
    if (!c->threads)
        c->threads = c->to == COPY_CLUSTER ? COPY_THREADS_IN : COPY_THREADS_OUT;
    r = copier_new(c->cv, &c->progress, c->threads, c->sync, &c->copier);
    if (r < 0)
        progress_fail(&c->progress, r, verb, NULL);
    bool copying = r == 0;
    for (int i = 0; r == 0 && i < n; i++)
        r = copy_source(c, sources[i], target, into);
    progress_counted(&c->progress);
    int ended = copying ? copier_end(c->copier) : 0;
    if (r == -ENOMEM)
        progress_fail(&c->progress, r, verb, NULL);
    int status = progress_end(&c->progress);
    if (r == -ECANCELED || ended == -ECANCELED) {
        fprintf(stderr, "cv fs %s: interrupted; what was not whole has been removed\n", verb);
        return CLI_FAILED;
    }
    return status;
}

static int put_stream(struct copying *c, const char *target)
{
    struct curvine_attr attr;
    if (status_of(c, COPY_CLUSTER, target, true, &attr) == 0 && S_ISDIR(attr.mode))
        return cli_usage(c->cli, "':%s' is a directory: say the name of the file, too", target);
    copy_catch_interrupts();
    progress_start(&c->progress, c->cli, "put", NULL);
    progress_expect(&c->progress, 1, 0);
    int r = copy_stream(c->cv, STDIN_FILENO, target, 0644, c->sync, &c->progress);
    if (r < 0) {
        progress_forget(&c->progress, c->progress.bytes);
        report(c, r, COPY_CLUSTER, target, NULL);
    } else {
        progress_add(&c->progress, 1, 0);
    }
    return progress_end(&c->progress);
}

int cmd_fs_put(struct cli *cli, int argc, char **argv)
{
    struct copying c = {.cli = cli, .from = COPY_HERE, .to = COPY_CLUSTER};
    int status = options_of(cli, argc, argv, &c);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    int n = argc - optind - 1;
    if (n < 1)
        return cli_usage(cli, "expected local files and :/PATH, where they go");
    const char *target;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    status = cli_path(cli, argv[argc - 1], &target);
    bool stream = strcmp(argv[optind], "-") == 0;
    if (status == CLI_OK && stream && n > 1)
        return cli_usage(cli, "'-' is one file: nothing beside it");
    for (int i = 0; status == CLI_OK && i < n; i++)
        if (argv[optind + i][0] == ':')
            status = cli_usage(cli, "'%s' is in the namespace already: cv fs cp", argv[optind + i]);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    c.cv = cv;
    if (status != CLI_OK)
        return status;
    return stream ? put_stream(&c, target) : copy_all(&c, "put", argv + optind, n, target);
}

/* Namespace paths of arguments, in place. */
static int namespace_paths(struct cli *cli, char **arguments, int n)
{
    for (int i = 0; i < n; i++) {
        const char *path;
        int status = cli_path(cli, arguments[i], &path);
        if (status != CLI_OK)
            return status;
        arguments[i]++;
    }
    return CLI_OK;
}

int cmd_fs_get(struct cli *cli, int argc, char **argv)
{
    struct copying c = {.cli = cli, .from = COPY_CLUSTER, .to = COPY_HERE};
    int status = options_of(cli, argc, argv, &c);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    int n = argc - optind;
    if (n < 1)
        return cli_usage(cli, "expected :/PATHs, and a local file or directory (.)");
    const char *target = n > 1 && argv[argc - 1][0] != ':' ? argv[argc - 1] : ".";
    n -= n > 1 && argv[argc - 1][0] != ':';
    if (strcmp(target, "-") == 0)
        return cli_usage(cli, "to standard output: cv fs cat");
    struct curvine *cv cleanup(curvine_closep) = NULL;
    status = namespace_paths(cli, argv + optind, n);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    c.cv = cv;
    return status == CLI_OK ? copy_all(&c, "get", argv + optind, n, target) : status;
}

int cmd_fs_cp(struct cli *cli, int argc, char **argv)
{
    struct copying c = {.cli = cli, .from = COPY_CLUSTER, .to = COPY_CLUSTER};
    int status = options_of(cli, argc, argv, &c);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    int n = argc - optind;
    if (n < 2)
        return cli_usage(cli, "expected what to copy and where to");
    for (int i = optind; i < argc; i++)
        if (argv[i][0] != ':')
            return cli_usage(cli, "'%s' is local: cv fs put copies into the namespace, cv fs get out of it", argv[i]);
    struct curvine *cv cleanup(curvine_closep) = NULL;
    status = namespace_paths(cli, argv + optind, n);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    c.cv = cv;
    return status == CLI_OK ? copy_all(&c, "cp", argv + optind, n - 1, argv[argc - 1]) : status;
}
