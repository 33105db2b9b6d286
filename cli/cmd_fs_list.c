/* SPDX-License-Identifier: Apache-2.0 */
/* cv fs ls, stat, find: looking at the namespace. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/modes.h"
#include "cli/tree.h"

#define ERROR_PATH 4400

static const struct out_column entry_columns[] = {
    {"mode", OUT_TEXT},
    {"links", OUT_NUMBER},
    {"owner", OUT_TEXT},
    {"group", OUT_TEXT},
    {"size", OUT_SIZE},
    {"modified", OUT_TIME},
    {"name", OUT_TEXT},
    {"type", OUT_TEXT, .wide = true},
    {"inode", OUT_NUMBER, .wide = true},
    {"changed", OUT_TIME, .wide = true},
};

static void add_entry(struct out *o, const struct curvine_attr *a, const char *name)
{
    char mode[11], owner[64];
    out_text(o, mode_format(a->mode, mode));
    out_number(o, a->nlink);
    out_text(o, user_format(a->uid, owner, sizeof(owner)));
    out_text(o, group_format(a->gid, owner, sizeof(owner)));
    out_number(o, a->size);
    out_number(o, a->mtime_ns);
    out_text(o, name);
    if (S_ISDIR(a->mode))
        out_colour(o, OUT_GOOD);
    out_text(o, type_name(a->mode));
    out_number(o, a->inode);
    out_number(o, a->ctime_ns);
}

/* ---- ls -------------------------------------------------------------------------------------------------------------- */

struct listing {
    struct out *out;
    size_t prefix; /* of paths that are left out */
};

static int list_entry_(const struct tree_entry *e, void *arg)
{
    struct listing *l = arg;
    if (e->depth == 0)
        return 0;
    add_entry(l->out, &e->attr, e->path + l->prefix);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Directories come in the order of the master; people want names in order. */
struct names {
    char **names; /* each followed by its attributes */
    uint32_t n, room;
};

static int collect(const struct curvine_dirent *e, void *arg)
{
    struct names *l = arg;
    if (l->n == l->room) {
        uint32_t room = l->room ? l->room * 2 : 256;
        char **names = reallocarray(l->names, room, sizeof(*names));
        if (!names)
            return -ENOMEM;
        l->names = names;
        l->room = room;
    }
    /* The attributes travel in front of the name, so that sorting moves one pointer. */
    char *item = malloc(sizeof(struct curvine_attr) + e->name.n + 1);
    if (!item)
        return -ENOMEM;
    memcpy(item + e->name.n + 1, &e->attr, sizeof(e->attr));
    memcpy(item, e->name.p, e->name.n);
    item[e->name.n] = '\0';
    l->names[l->n++] = item;
    return 0;
}

static int list_directory(struct curvine *cv, uint64_t inode, struct out *out)
{
    struct names l = {0};
    int r = curvine_list(cv, inode, collect, &l);
    if (l.n)
        qsort(l.names, l.n, sizeof(*l.names), by_name);
    for (uint32_t i = 0; i < l.n; i++) {
        struct curvine_attr attr;
        memcpy(&attr, l.names[i] + strlen(l.names[i]) + 1, sizeof(attr));
        if (r == 0)
            add_entry(out, &attr, l.names[i]);
        free(l.names[i]);
    }
    free(l.names);
    return r;
}

int cmd_fs_ls(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"recursive", no_argument, NULL, 'R'}, {"directory", no_argument, NULL, 'd'}, {0}};
    bool recursive = false, itself = false;
    for (int c; (c = cli_option(cli, argc, argv, "Rd", options)) != -1;)
        switch (c) {
        case 'R': recursive = true; break;
        case 'd': itself = true; break;
        default: return cli_option_status();
        }
    if (argc - optind > 1)
        return cli_usage(cli, "one path at a time");
    const char *path;
    int status = cli_path(cli, optind < argc ? argv[optind] : ":/", &path);
    struct curvine *cv cleanup(curvine_closep) = NULL;
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    struct curvine_attr attr;
    int r = curvine_stat(cv, path, itself ? 0 : CURVINE_FOLLOW, &attr);
    if (r < 0)
        return cli_fail_path(cli, r, "list", path);
    struct out *out = out_table(entry_columns, array_size(entry_columns));
    char where[ERROR_PATH];
    snprintf(where, sizeof(where), "%s", path);
    if (itself || !S_ISDIR(attr.mode)) {
        add_entry(out, &attr, path);
    } else if (recursive) {
        struct listing l = {.out = out,
                            .prefix = strcmp(path, "/") == 0 ? 1 : strlen(path) + (path[strlen(path) - 1] != '/')};
        r = tree_walk(cv, path, TREE_BEFORE, UINT32_MAX, list_entry_, &l, where, sizeof(where));
    } else {
        r = list_directory(cv, attr.inode, out);
    }
    if (r < 0) {
        out_free(out);
        return cli_fail_path(cli, r, "list", where);
    }
    return cli_print(cli, out);
}

/* ---- stat ------------------------------------------------------------------------------------------------------------- */

int cmd_fs_stat(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"follow", no_argument, NULL, 'L'}, {0}};
    static const struct out_column columns[] = {
        {"path", OUT_TEXT},      {"type", OUT_TEXT},     {"inode", OUT_NUMBER}, {"size", OUT_SIZE},
        {"mode", OUT_TEXT},      {"links", OUT_NUMBER},  {"owner", OUT_TEXT},   {"group", OUT_TEXT},
        {"accessed", OUT_TIME},  {"modified", OUT_TIME}, {"changed", OUT_TIME}, {"born", OUT_TIME},
        {"version", OUT_NUMBER}, {"target", OUT_TEXT},
    };
    int flags = 0;
    for (int c; (c = cli_option(cli, argc, argv, "L", options)) != -1;)
        switch (c) {
        case 'L': flags = CURVINE_FOLLOW; break;
        default: return cli_option_status();
        }
    const char *path;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = cli_connect_path(cli, argc, argv, &path, &cv);
    if (status != CLI_OK)
        return status;
    struct curvine_attr a;
    int r = curvine_stat(cv, path, flags, &a);
    if (r < 0)
        return cli_fail_path(cli, r, "stat", path);
    char target[4096] = "", name[64], mode[32], letters[11];
    if (S_ISLNK(a.mode))
        curvine_readlink(cv, path, target, sizeof(target));
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, argv[optind]);
    out_text(o, type_name(a.mode));
    out_number(o, a.inode);
    out_number(o, a.size);
    snprintf(mode, sizeof(mode), "%04o (%s)", a.mode & 07777, mode_format(a.mode, letters));
    out_text(o, mode);
    out_number(o, a.nlink);
    out_text(o, user_format(a.uid, name, sizeof(name)));
    out_text(o, group_format(a.gid, name, sizeof(name)));
    out_number(o, a.atime_ns);
    out_number(o, a.mtime_ns);
    out_number(o, a.ctime_ns);
    out_number(o, a.btime_ns);
    out_number(o, a.version);
    out_text(o, S_ISLNK(a.mode) ? target : NULL);
    return cli_print(cli, o);
}

/* ---- find --------------------------------------------------------------------------------------------------------------- */

struct find {
    struct cli *cli;
    struct out *out; /* forms other than table: collected */
    bool terminal;   /* stdout is one: names go there without what it would take for orders */
    int print_error; /* of the first write to stdout that failed */
    const char *name, *type;
    char size_sign, age_sign; /* '+' more, '-' less, '=' equal, 0: not asked */
    uint64_t size, age_ns, now_ns;
};

static bool compare(char sign, uint64_t value, uint64_t with)
{
    return sign == '+' ? value > with : sign == '-' ? value < with : value == with;
}

static bool matches(const struct find *f, const struct tree_entry *e)
{
    if (f->name) {
        char name[256];
        snprintf(name, sizeof(name), "%.*s", (int)e->name.n, e->name.p);
        if (fnmatch(f->name, name, 0) != 0)
            return false;
    }
    if (f->type) {
        char type = S_ISREG(e->attr.mode) ? 'f' : S_ISDIR(e->attr.mode) ? 'd' : S_ISLNK(e->attr.mode) ? 'l' : 'o';
        if (!strchr(f->type, type))
            return false;
    }
    if (f->size_sign && !compare(f->size_sign, e->attr.size, f->size))
        return false;
    uint64_t age = (int64_t)f->now_ns > (int64_t)e->attr.mtime_ns ? f->now_ns - e->attr.mtime_ns : 0;
    return !f->age_sign || compare(f->age_sign, age, f->age_ns);
}

/* As they are found. */
static int print_path(struct find *f, const char *path)
{
    char *shown cleanup(freep) = f->terminal ? out_printable(path) : NULL;
    if (f->terminal && !shown)
        return -ENOMEM;
    errno = 0;
    if (printf(":%s\n", shown ? shown : path) < 0)
        f->print_error = errno ? -errno : -EIO;
    return f->print_error;
}

static int find_entry(const struct tree_entry *e, void *arg)
{
    struct find *f = arg;
    if (!matches(f, e))
        return 0;
    if (f->out) {
        out_text(f->out, e->path);
        out_text(f->out, type_name(e->attr.mode));
        out_number(f->out, e->attr.size);
        out_number(f->out, e->attr.mtime_ns);
        out_number(f->out, e->attr.inode);
    } else {
        return print_path(f, e->path);
    }
    return 0;
}

static char sign_of(const char **s)
{
    return **s == '+' || **s == '-' ? *(*s)++ : '=';
}

int cmd_fs_find(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},  {"type", required_argument, NULL, 't'},
        {"size", required_argument, NULL, 's'},  {"mtime", required_argument, NULL, 'm'},
        {"depth", required_argument, NULL, 'd'}, {0}};
    static const struct out_column columns[] = {
        {"path", OUT_TEXT}, {"type", OUT_TEXT}, {"size", OUT_SIZE}, {"modified", OUT_TIME}, {"inode", OUT_NUMBER},
    };
    struct find f = {.cli = cli, .now_ns = clock_wall_ns(), .terminal = isatty(STDOUT_FILENO)};
    unsigned long depth = UINT32_MAX;
    uint64_t age_ms = 0;
    char *end = NULL;
    for (int c; (c = cli_option(cli, argc, argv, "n:t:s:m:d:", options)) != -1;) {
        const char *value = optarg;
        switch (c) {
        case 'n': f.name = value; break;
        case 't':
            f.type = value;
            if (value[strspn(value, "fdl")])
                return cli_usage(cli, "--type %s: expected f, d, l or several of them", value);
            break;
        case 's':
            f.size_sign = sign_of(&value);
            if (parse_size(value, &f.size) < 0)
                return cli_usage(cli, "--size %s: expected e.g. +1GiB, -4KiB or 0", optarg);
            break;
        case 'm':
            f.age_sign = sign_of(&value);
            if (parse_duration_ms(value, &age_ms) < 0)
                return cli_usage(cli, "--mtime %s: expected an age such as -1h (younger) or +7d (older)", optarg);
            f.age_ns = age_ms * NS_PER_MS;
            break;
        case 'd':
            depth = strtoul(value, &end, 10);
            if (*end || depth > UINT32_MAX)
                return cli_usage(cli, "--depth %s: expected a number", value);
            break;
        default: return cli_option_status();
        }
    }
    const char *path;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = cli_connect_path(cli, argc, argv, &path, &cv);
    if (status != CLI_OK)
        return status;
    if (cli->form != OUT_TABLE)
        f.out = out_table(columns, array_size(columns));
    char where[ERROR_PATH];
    int r = tree_walk(cv, path, TREE_BEFORE, (unsigned)depth, find_entry, &f, where, sizeof(where));
    if (r < 0 && !f.print_error) {
        fflush(stdout); /* what was found comes before what was not */
        out_free(f.out);
        return cli_fail_path(cli, r, "search", where);
    }
    return f.out ? cli_print(cli, f.out) : cli_printed(cli, f.print_error);
}
