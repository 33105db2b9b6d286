/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-ufs: one operation on an under file system, by src/ufs alone and without daemons, for tests.
 *
 *      cv-ufs [option...] URI check
 *      cv-ufs [option...] URI stat KEY
 *      cv-ufs [option...] URI list [PREFIX]       lines "file|dir SIZE ETAG KEY", as the listing streams in
 *      cv-ufs [option...] URI get KEY             to standard output
 *      cv-ufs [option...] URI put KEY FILE
 *      cv-ufs [option...] URI delete KEY
 *
 *   --param N=V          a parameter of ufs_params.def, the last of a name counts
 *   --deadline SECONDS   of each operation (30)
 *   --identity SIZE:ETAG get, put: only if the object is still this one; put: "none": only if there is none
 *   --offset N --length N                get: a range of it (default: what a stat says there is)
 *   --pieces N           get: as N ranges at once, all of the object that a stat found first
 *   --after KEY --max N --recursive      list
 *   --counters           say on standard error what was sent: "counters GET 1 HEAD 0 ... retries 0"
 *
 * KEY "-" is the URI itself. A line feed and a backslash in a key are printed as \n and \\. Status 0, or 1 with
 * "cv-ufs: CODE: message" on standard error, CODE being the name of the error.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "ufs/ufs.h"

#define PIECES_MAX 64

static struct {
    struct ufs_param params[16];
    unsigned param_count;
    uint64_t deadline_s, offset, length;
    const char *after, *file;
    uint32_t max, pieces;
    bool recursive, counters, identified, none;
    struct ufs_identity identity;
} options = {.deadline_s = 30, .length = UINT64_MAX, .after = ""};

static struct loop *loop;
static struct ufs *ufs;
static struct text key;
static const char *command;
static int status;

/* One range of a get; other operations use the first one's op. */
static struct range {
    struct ufs_op op;
    uint64_t offset;
} ranges[PIECES_MAX];
static unsigned running;
static bool range_failed;

static void on_closed(void *arg)
{
    loop_stop(loop);
}

static void finish(void)
{
    if (options.counters) {
        const struct ufs_counters *c = ufs_counters(ufs);
        fprintf(stderr, "counters");
        for (int v = 0; v < UFS_VERBS; v++)
            fprintf(stderr, " %s %" PRIu64, ufs_verb_name((enum ufs_verb)v), c->requests[v]);
        fprintf(stderr, " retries %" PRIu64 " failures %" PRIu64 " in %" PRIu64 " out %" PRIu64 "\n", c->retries,
                c->failures, c->bytes_in, c->bytes_out);
    }
    ufs_close(ufs, on_closed, NULL);
}

static void fail(int r, const char *message)
{
    fprintf(stderr, "cv-ufs: %s: %s\n", cv_error_name(r), *message ? message : cv_error_text(r));
    status = 1;
}

static void print_key(struct text k)
{
    for (uint32_t i = 0; i < k.n; i++) {
        if (k.p[i] == '\n')
            fputs("\\n", stdout);
        else if (k.p[i] == '\\')
            fputs("\\\\", stdout);
        else
            putchar(k.p[i]);
    }
    putchar('\n');
}

static void print_entry(const struct ufs_entry *e, struct text k)
{
    static const char *const types[] = {"?", "file", "dir", "symlink"};
    const char *etag = e->identity.etag;
    printf("%s %" PRIu64 " %s ", types[e->type], e->identity.size, *etag ? etag : "-");
    print_key(k);
}

static int on_entry(struct ufs_op *op, const struct ufs_entry *e)
{
    print_entry(e, e->key);
    return 0;
}

static void on_done(struct ufs_op *op)
{
    if (op->result < 0)
        fail(op->result, op->message);
    else if (strcmp(command, "stat") == 0 || strcmp(command, "put") == 0)
        print_entry(&op->entry, key);
    else if (op->more)
        puts("more");
    finish();
}

static int on_piece(struct ufs_op *op, const void *p, size_t n)
{
    struct range *range = container_of(op, struct range, op);
    for (const char *at = p; n;) {
        ssize_t k =
            options.pieces > 1 ? pwrite(STDOUT_FILENO, at, n, (off_t)range->offset) : write(STDOUT_FILENO, at, n);
        if (k < 0)
            return -errno;
        at += k;
        n -= (size_t)k;
        range->offset += (uint64_t)k;
    }
    return 0;
}

static void on_range_done(struct ufs_op *op)
{
    if (op->result < 0 && !range_failed) {
        range_failed = true;
        fail(op->result, op->message);
    }
    if (--running == 0)
        finish();
}

static uint64_t deadline(void)
{
    return clock_ns() + options.deadline_s * NS_PER_S;
}

static void get_ranges(const struct ufs_identity *identity, uint64_t offset, uint64_t length, unsigned pieces)
{
    uint64_t piece = (length + pieces - 1) / pieces;
    running = 1;
    for (unsigned i = 0; i < pieces && (i == 0 || i * piece < length); i++) {
        struct range *range = &ranges[i];
        *range = (struct range){.offset = offset + i * piece, .op.deadline_ns = deadline()};
        running += i > 0;
        ufs_get(ufs, &range->op, key, identity, range->offset, min(piece, length - i * piece), on_piece, on_range_done);
    }
}

static void on_stat_before_get(struct ufs_op *op)
{
    if (op->result < 0) {
        fail(op->result, op->message);
        finish();
        return;
    }
    static struct ufs_identity found;
    found = op->entry.identity;
    uint64_t left = found.size - min(found.size, options.offset);
    get_ranges(options.identified ? &options.identity : &found, options.offset, min(left, options.length),
               options.pieces ? options.pieces : 1);
}

static void start_get(struct ufs_op *op)
{
    if (options.length == UINT64_MAX || options.pieces > 1)
        ufs_stat(ufs, op, key, on_stat_before_get);
    else
        get_ranges(options.identified ? &options.identity : NULL, options.offset, options.length, 1);
}

static int start_put(struct ufs_op *op)
{
    struct stat st;
    int fd = open(options.file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    ufs_put(ufs, op, key, options.identified ? &options.identity : NULL, fd, 0, (uint64_t)st.st_size, on_done);
    return 0;
}

static int start(void *arg)
{
    struct ufs_op *op = &ranges[0].op;
    op->deadline_ns = deadline();
    if (strcmp(command, "check") == 0)
        ufs_check(ufs, op, on_done);
    else if (strcmp(command, "stat") == 0)
        ufs_stat(ufs, op, key, on_done);
    else if (strcmp(command, "list") == 0)
        ufs_list(ufs, op, key, text_of(options.after), options.max, options.recursive, on_entry, on_done);
    else if (strcmp(command, "get") == 0)
        start_get(op);
    else if (strcmp(command, "put") == 0 && options.file)
        return start_put(op);
    else if (strcmp(command, "delete") == 0)
        ufs_delete(ufs, op, key, on_done);
    else
        return -EINVAL;
    return 0;
}

static bool read_identity(const char *s)
{
    options.identified = true;
    options.none = strcmp(s, "none") == 0;
    if (options.none)
        return true;
    char *end;
    options.identity.size = strtoull(s, &end, 10);
    snprintf(options.identity.etag, sizeof(options.identity.etag), "%s", *end ? end + 1 : "");
    return *end == ':';
}

/* The last one of a name counts. */
static void add_param(const char *name, const char *value)
{
    unsigned i = 0;
    while (i < options.param_count && strcmp(options.params[i].name, name) != 0)
        i++;
    options.params[i] = (struct ufs_param){name, value};
    options.param_count = max(options.param_count, i + 1);
}

static bool read_option(int o, char *value)
{
    char *equals;
    switch (o) {
    case 'p':
        equals = strchr(value, '=');
        if (!equals || options.param_count == array_size(options.params))
            return false;
        *equals = '\0';
        add_param(value, equals + 1);
        return true;
    case 'd': options.deadline_s = strtoull(value, NULL, 10); return true;
    case 'i': return read_identity(value);
    case 'o': options.offset = strtoull(value, NULL, 10); return true;
    case 'l': options.length = strtoull(value, NULL, 10); return true;
    case 'n': options.pieces = (uint32_t)strtoul(value, NULL, 10); return options.pieces <= PIECES_MAX;
    case 'a': options.after = value; return true;
    case 'm': options.max = (uint32_t)strtoul(value, NULL, 10); return true;
    case 'r': options.recursive = true; return true;
    case 'c': options.counters = true; return true;
    default: return false;
    }
}

int main(int argc, char **argv)
{
    static const struct option table[] = {
        {"param", required_argument, NULL, 'p'},
        {"deadline", required_argument, NULL, 'd'},
        {"identity", required_argument, NULL, 'i'},
        {"offset", required_argument, NULL, 'o'},
        {"length", required_argument, NULL, 'l'},
        {"pieces", required_argument, NULL, 'n'},
        {"after", required_argument, NULL, 'a'},
        {"max", required_argument, NULL, 'm'},
        {"recursive", no_argument, NULL, 'r'},
        {"counters", no_argument, NULL, 'c'},
        {0},
    };
    for (int o; (o = getopt_long(argc, argv, "+", table, NULL)) != -1;)
        if (!read_option(o, optarg)) {
            fprintf(stderr, "cv-ufs: see the top of tests/tools/cv_ufs.c\n");
            return 2;
        }
    if (argc - optind < 2) {
        fprintf(stderr, "cv-ufs: expected URI and command\n");
        return 2;
    }
    const char *uri = argv[optind];
    command = argv[optind + 1];
    if (argc - optind > 2 && strcmp(argv[optind + 2], "-") != 0)
        key = text_of(argv[optind + 2]);
    options.file = argc - optind > 3 ? argv[optind + 3] : NULL;

    char message[400];
    log_set_level(LOG_LEVEL_WARN);
    int r = loop_new(NULL, &loop);
    if (r < 0)
        return 1;
    r = ufs_open(loop, uri, options.params, options.param_count, &ufs, message, sizeof(message));
    if (r < 0) {
        fail(r, message);
        loop_free(loop);
        return status;
    }
    r = start(NULL);
    if (r < 0) {
        fail(r, "");
        finish();
    }
    loop_run(loop);
    loop_free(loop);
    return status;
}
