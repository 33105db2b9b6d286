/* SPDX-License-Identifier: Apache-2.0 */
/* cv fs mkdir, touch, rm, mv, ln, chmod, chown, truncate: changing the namespace. Trees are changed many names at a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/fan.h"
#include "cli/modes.h"
#include "cli/tree.h"

#define ERROR_PATH 4400

/* Connect and run one() for each path argument; the first failure ends it. */
static int each_path(struct cli *cli, char **arguments,
                     int (*one)(struct cli *, struct curvine *, const char *, void *), void *arg)
{
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = CLI_OK;
    for (char **a = arguments; status == CLI_OK && *a; a++) {
        const char *path;
        status = cli_path(cli, *a, &path);
    }
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    for (char **a = arguments; status == CLI_OK && *a; a++)
        status = one(cli, cv, *a + 1, arg);
    return status;
}

/* ---- mkdir -------------------------------------------------------------------------------------------------------------- */

struct mkdir_options {
    bool parents;
    uint32_t mode;
};

static int mkdir_one(struct cli *cli, struct curvine *cv, const char *path, void *arg)
{
    const struct mkdir_options *o = arg;
    int r = o->parents ? curvine_mkdirs(cv, path, o->mode) : curvine_mkdir(cv, path, o->mode);
    if (r == -ENOENT)
        return cli_fail(cli, r, "make the directories above it, too: cv fs mkdir -p", "mkdir :%s", path);
    return r < 0 ? cli_fail_path(cli, r, "mkdir", path) : CLI_OK;
}

int cmd_fs_mkdir(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"parents", no_argument, NULL, 'p'}, {"mode", required_argument, NULL, 'm'}, {0}};
    struct mkdir_options o = {.mode = 0755};
    for (int c; (c = cli_option(cli, argc, argv, "pm:", options)) != -1;)
        switch (c) {
        case 'p': o.parents = true; break;
        case 'm':
            if (mode_parse(optarg, S_IFDIR | 0777, 0, &o.mode) < 0)
                return cli_usage(cli, "--mode %s: expected e.g. 755 or u=rwx,go=rx", optarg);
            break;
        default: return cli_option_status();
        }
    if (optind == argc)
        return cli_usage(cli, "which directory?");
    return each_path(cli, argv + optind, mkdir_one, &o);
}

/* ---- touch -------------------------------------------------------------------------------------------------------------- */

static int touch_one(struct cli *cli, struct curvine *cv, const char *path, void *arg)
{
    const bool *no_create = arg;
    uint64_t now = clock_wall_ns();
    int r = curvine_utimens(cv, path, now, now, CURVINE_FOLLOW);
    if (r == -ENOENT && !*no_create) {
        struct curvine_request q = {.op = CURVINE_CREATE, .mode = 0644, .flags = O_CREAT | O_WRONLY};
        r = curvine_resolve_parent(cv, path, &q.inode, &q.name);
        if (r == 0)
            r = curvine_run(cv, &q);
        if (r == 0) {
            struct curvine_request close = {.op = CURVINE_RELEASE, .inode = q.attr.inode, .handle = q.handle};
            curvine_run(cv, &close);
            curvine_request_free(&close);
        }
        curvine_request_free(&q);
    }
    return r < 0 && !(r == -ENOENT && *no_create) ? cli_fail_path(cli, r, "touch", path) : CLI_OK;
}

int cmd_fs_touch(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"no-create", no_argument, NULL, 'n'}, {0}};
    bool no_create = false;
    for (int c; (c = cli_option(cli, argc, argv, "n", options)) != -1;)
        switch (c) {
        case 'n': no_create = true; break;
        default: return cli_option_status();
        }
    if (optind == argc)
        return cli_usage(cli, "which file?");
    return each_path(cli, argv + optind, touch_one, &no_create);
}

/* ---- rm ------------------------------------------------------------------------------------------------------------------ */

struct rm {
    bool recursive, force;
    struct fan fan;
    uint64_t removed;
    uint64_t shown_ns; /* progress on a terminal, twice a second */
};

static void show_progress(struct rm *rm)
{
    uint64_t now = clock_ns();
    if (now - rm->shown_ns < NS_PER_S / 2 || !isatty(STDERR_FILENO))
        return;
    rm->shown_ns = now;
    fprintf(stderr, "\r%llu removed\033[K", (unsigned long long)rm->removed);
}

/* A directory goes when all that was in it is gone: the fan is drained first. */
static int rm_entry(const struct tree_entry *e, void *arg)
{
    struct rm *rm = arg;
    if (e->depth == 0)
        return fan_wait(&rm->fan);
    bool directory = S_ISDIR(e->attr.mode);
    int r = directory ? fan_wait(&rm->fan) : rm->fan.first_error;
    if (r < 0)
        return r;
    struct curvine_request *q = fan_next(&rm->fan, e->name);
    q->op = directory ? CURVINE_RMDIR : CURVINE_UNLINK;
    q->inode = e->parent;
    fan_start(&rm->fan, q);
    rm->removed++;
    show_progress(rm);
    return 0;
}

static int rm_tree(struct cli *cli, struct curvine *cv, const char *path, struct rm *rm)
{
    char where[ERROR_PATH];
    fan_init(&rm->fan, cv);
    rm->fan.gone_is_good = true;
    rm->shown_ns = clock_ns();
    int r = tree_walk(cv, path, TREE_AFTER, UINT32_MAX, rm_entry, rm, where, sizeof(where));
    int waited = fan_wait(&rm->fan);
    r = r ? r : waited;
    if (isatty(STDERR_FILENO) && rm->removed)
        fprintf(stderr, "\r\033[K");
    if (rm->fan.first_error)
        snprintf(where, sizeof(where), "%s (at '%s')", path, rm->fan.first_name);
    fan_fini(&rm->fan);
    if (r == 0) {
        struct curvine_attr attr;
        r = curvine_stat(cv, path, 0, &attr);
        if (r == 0)
            r = S_ISDIR(attr.mode) ? curvine_rmdir(cv, path) : curvine_unlink(cv, path);
        snprintf(where, sizeof(where), "%s", path);
    }
    return r < 0 && !(r == -ENOENT && rm->force) ? cli_fail_path(cli, r, "remove", where) : CLI_OK;
}

static bool ends_in_dots(const char *path)
{
    size_t n = strlen(path);
    while (n && path[n - 1] == '/')
        n--;
    const char *end = path + n, *name = n ? memrchr(path, '/', n) : NULL;
    size_t length = name ? (size_t)(end - name - 1) : 0;
    return (length == 1 || length == 2) && strncmp(name + 1, "..", length) == 0;
}

static int rm_one(struct cli *cli, struct curvine *cv, const char *path, void *arg)
{
    struct rm *rm = arg;
    if (strspn(path, "/") == strlen(path))
        return cli_usage(cli, "the root of the namespace cannot be removed; name what is in it");
    if (ends_in_dots(path)) /* the name itself could not go, but everything below it would */
        return cli_usage(cli, "':%s' ends in '.' or '..': name what is to be removed", path);
    if (rm->recursive)
        return rm_tree(cli, cv, path, rm);
    int r = curvine_unlink(cv, path);
    if (r == -EISDIR)
        return cli_fail(cli, r, "for a directory and everything in it: cv fs rm -r", "remove :%s", path);
    return r < 0 && !(r == -ENOENT && rm->force) ? cli_fail_path(cli, r, "remove", path) : CLI_OK;
}

int cmd_fs_rm(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"recursive", no_argument, NULL, 'r'}, {"force", no_argument, NULL, 'f'}, {0}};
    static struct rm rm;
    for (int c; (c = cli_option(cli, argc, argv, "rRf", options)) != -1;)
        switch (c) {
        case 'r':
        case 'R': rm.recursive = true; break;
        case 'f': rm.force = true; break;
        default: return cli_option_status();
        }
    if (optind == argc)
        return cli_usage(cli, "remove what?");
    return each_path(cli, argv + optind, rm_one, &rm);
}

/* ---- mv, ln --------------------------------------------------------------------------------------------------------------- */

/* "to" itself, or below it when it is a directory. */
static int target_path(struct curvine *cv, const char *from, const char *to, char *out, size_t size)
{
    struct curvine_attr attr;
    size_t n = strlen(from);
    while (n > 1 && from[n - 1] == '/')
        n--;
    const char *name = memrchr(from, '/', n);
    bool into = curvine_stat(cv, to, CURVINE_FOLLOW, &attr) == 0 && S_ISDIR(attr.mode);
    int length =
        into ? snprintf(out, size, "%s/%.*s", to, (int)(from + n - name - 1), name + 1) : snprintf(out, size, "%s", to);
    return length >= (int)size ? -ENAMETOOLONG : 0;
}

int cmd_fs_mv(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"no-clobber", no_argument, NULL, 'n'}, {"exchange", no_argument, NULL, 'x'}, {0}};
    uint32_t flags = 0;
    for (int c; (c = cli_option(cli, argc, argv, "nx", options)) != -1;)
        switch (c) {
        case 'n': flags |= RENAME_NOREPLACE; break;
        case 'x': flags |= RENAME_EXCHANGE; break;
        default: return cli_option_status();
        }
    if (argc - optind != 2)
        return cli_usage(cli, "expected what to move and where to");
    if (flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return cli_usage(cli, "--no-clobber and --exchange exclude each other");
    const char *from, *to;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = cli_path(cli, argv[optind], &from);
    if (status == CLI_OK)
        status = cli_path(cli, argv[optind + 1], &to);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    char target[4400];
    int r = flags & RENAME_EXCHANGE ? (int)(snprintf(target, sizeof(target), "%s", to) < 0)
                                    : target_path(cv, from, to, target, sizeof(target));
    if (r == 0)
        r = curvine_rename(cv, from, target, flags);
    return r < 0 ? cli_fail(cli, r, NULL, "move :%s to :%s", from, target) : CLI_OK;
}

int cmd_fs_ln(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"symbolic", no_argument, NULL, 's'}, {0}};
    bool symbolic = false;
    for (int c; (c = cli_option(cli, argc, argv, "s", options)) != -1;)
        switch (c) {
        case 's': symbolic = true; break;
        default: return cli_option_status();
        }
    if (argc - optind != 2)
        return cli_usage(cli, "expected what to link to and the new name");
    const char *existing = argv[optind], *path;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = symbolic ? CLI_OK : cli_path(cli, argv[optind], &existing);
    if (symbolic && existing[0] == ':')
        existing++; /* absolute in the namespace */
    if (status == CLI_OK)
        status = cli_path(cli, argv[optind + 1], &path);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    int r = symbolic ? curvine_symlink(cv, existing, path) : curvine_link(cv, existing, path);
    return r < 0 ? cli_fail_path(cli, r, "link", path) : CLI_OK;
}

/* ---- chmod, chown ------------------------------------------------------------------------------------------------------------ */

struct change {
    bool recursive;
    const char *mode; /* chmod */
    uint32_t uid, gid;
    struct fan fan;
};

static int change_request(struct change *ch, const struct curvine_attr *attr, struct curvine_request *q)
{
    q->op = CURVINE_SETATTR;
    q->inode = attr->inode;
    if (ch->mode) {
        q->valid = CURVINE_SET_MODE;
        return mode_parse(ch->mode, attr->mode, 022, &q->mode);
    }
    q->valid = (ch->uid != UINT32_MAX ? CURVINE_SET_UID : 0) | (ch->gid != UINT32_MAX ? CURVINE_SET_GID : 0);
    q->uid = ch->uid;
    q->gid = ch->gid;
    return 0;
}

static int change_entry(const struct tree_entry *e, void *arg)
{
    struct change *ch = arg;
    if (ch->mode && S_ISLNK(e->attr.mode))
        return 0; /* symlinks have no mode of their own */
    struct curvine_request *q = fan_next(&ch->fan, e->name);
    int r = change_request(ch, &e->attr, q);
    if (r == 0)
        fan_start(&ch->fan, q);
    return r ? r : ch->fan.first_error;
}

static int change_one(struct cli *cli, struct curvine *cv, const char *path, void *arg)
{
    struct change *ch = arg;
    const char *what = ch->mode ? "chmod" : "chown";
    if (!ch->recursive) {
        struct curvine_attr attr;
        struct curvine_request q = {0};
        int r = curvine_stat(cv, path, CURVINE_FOLLOW, &attr);
        if (r == 0)
            r = change_request(ch, &attr, &q);
        if (r == 0)
            r = curvine_run(cv, &q);
        curvine_request_free(&q);
        return r < 0 ? cli_fail_path(cli, r, what, path) : CLI_OK;
    }
    char where[ERROR_PATH];
    fan_init(&ch->fan, cv);
    ch->fan.gone_is_good = true;
    int r = tree_walk(cv, path, TREE_BEFORE, UINT32_MAX, change_entry, ch, where, sizeof(where));
    int waited = fan_wait(&ch->fan);
    if (ch->fan.first_error)
        snprintf(where, sizeof(where), "%s (at '%s')", path, ch->fan.first_name);
    fan_fini(&ch->fan);
    r = r ? r : waited;
    return r < 0 ? cli_fail_path(cli, r, what, where) : CLI_OK;
}

static int change(struct cli *cli, int argc, char **argv, bool mode)
{
    static const struct option options[] = {{"recursive", no_argument, NULL, 'R'}, {0}};
    static struct change ch;
    ch.uid = ch.gid = UINT32_MAX;
    for (int c; (c = cli_option(cli, argc, argv, "R", options)) != -1;)
        switch (c) {
        case 'R': ch.recursive = true; break;
        default: return cli_option_status();
        }
    if (argc - optind < 2)
        return cli_usage(cli, mode ? "expected a mode and paths" : "expected an owner and paths");
    char why[160];
    uint32_t ignored;
    if (mode && mode_parse(argv[optind], 0, 022, &ignored) < 0)
        return cli_usage(cli, "'%s' is no mode: expected e.g. 644 or u+x,go-w", argv[optind]);
    if (!mode && owner_parse(argv[optind], &ch.uid, &ch.gid, why, sizeof(why)) < 0)
        return cli_usage(cli, "%s", why);
    ch.mode = mode ? argv[optind] : NULL;
    return each_path(cli, argv + optind + 1, change_one, &ch);
}

int cmd_fs_chmod(struct cli *cli, int argc, char **argv)
{
    return change(cli, argc, argv, true);
}

int cmd_fs_chown(struct cli *cli, int argc, char **argv)
{
    return change(cli, argc, argv, false);
}

/* ---- truncate ----------------------------------------------------------------------------------------------------------------- */

static int truncate_one(struct cli *cli, struct curvine *cv, const char *path, void *arg)
{
    int r = curvine_truncate(cv, path, *(uint64_t *)arg);
    return r < 0 ? cli_fail_path(cli, r, "truncate", path) : CLI_OK;
}

int cmd_fs_truncate(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"size", required_argument, NULL, 's'}, {0}};
    uint64_t size = UINT64_MAX;
    for (int c; (c = cli_option(cli, argc, argv, "s:", options)) != -1;)
        switch (c) {
        case 's':
            if (parse_size(optarg, &size) < 0 || size > INT64_MAX)
                return cli_usage(cli, "--size %s: expected e.g. 0 or 10MiB", optarg);
            break;
        default: return cli_option_status();
        }
    if (size == UINT64_MAX || optind == argc)
        return cli_usage(cli, "expected --size and paths");
    return each_path(cli, argv + optind, truncate_one, &size);
}
