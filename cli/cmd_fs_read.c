/* SPDX-License-Identifier: Apache-2.0 */
/* cv fs cat, head, tail: content to standard output. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/connect.h"

#define PIECE (1u << 20)

static inline void file_closep(struct curvine_file **file)
{
    if (*file)
        curvine_file_close(*file);
}

/* Errors: -EPIPE nobody reads on. */
static int write_out(const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t put = write(STDOUT_FILENO, p, n);
        if (put < 0 && errno != EINTR)
            return -errno;
        p += max(put, (ssize_t)0);
        n -= (size_t)max(put, (ssize_t)0);
    }
    return 0;
}

static int done(struct cli *cli, int r, const char *path)
{
    return r < 0 && r != -EPIPE ? cli_fail_path(cli, r, "read", path) : CLI_OK;
}

/* [from, to) of a file, or what there is of it. */
static int copy_out(struct curvine_file *file, uint64_t from, uint64_t to)
{
    uint8_t *buffer cleanup(freep) = malloc(PIECE);
    if (!buffer)
        return -ENOMEM;
    while (from < to) {
        int64_t n = curvine_pread(file, buffer, min((uint64_t)PIECE, to - from), from);
        if (n <= 0)
            return (int)n;
        int r = write_out(buffer, (size_t)n);
        if (r < 0)
            return r;
        from += (uint64_t)n;
    }
    return 0;
}

int cmd_fs_cat(struct cli *cli, int argc, char **argv)
{
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc == optind)
        return cli_usage(cli, "which file?");
    struct curvine *cv cleanup(curvine_closep) = NULL;
    const char *path;
    int status = CLI_OK;
    for (int i = optind; status == CLI_OK && i < argc; i++)
        status = cli_path(cli, argv[i], &path);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    for (int i = optind; status == CLI_OK && i < argc; i++) {
        struct curvine_file *file cleanup(file_closep) = NULL;
        int r = curvine_file_open(cv, argv[i] + 1, O_RDONLY, 0, &file);
        if (r == 0)
            r = copy_out(file, 0, UINT64_MAX);
        if (r == -EPIPE)
            return CLI_OK;
        status = done(cli, r, argv[i] + 1);
    }
    return status;
}

/* ---- head, tail --------------------------------------------------------------------------------------------------------- */

struct extract {
    uint64_t lines, bytes;
    bool by_bytes;
};

static int parse_extract(struct cli *cli, int argc, char **argv, struct extract *e)
{
    static const struct option options[] = {
        {"lines", required_argument, NULL, 'n'}, {"bytes", required_argument, NULL, 'b'}, {0}};
    e->lines = 10;
    for (int c; (c = cli_option(cli, argc, argv, "n:b:", options)) != -1;)
        switch (c) {
        case 'n':
            if (parse_size(optarg, &e->lines) < 0)
                return cli_usage(cli, "--lines %s: expected a number", optarg);
            break;
        case 'b':
            e->by_bytes = true;
            if (parse_size(optarg, &e->bytes) < 0)
                return cli_usage(cli, "--bytes %s: expected e.g. 100 or 4KiB", optarg);
            break;
        default: return cli_option_status() == CLI_OK ? -1 : cli_option_status();
        }
    return argc - optind == 1 ? CLI_OK : cli_usage(cli, "expected one file");
}

/* Where the first `lines` lines end. */
static int find_head(struct curvine_file *file, uint64_t lines, uint64_t *ret)
{
    uint8_t *buffer cleanup(freep) = malloc(PIECE);
    if (!buffer)
        return -ENOMEM;
    for (uint64_t at = 0;;) {
        size_t size = at ? PIECE : 16384; /* ten lines are near the start */
        int64_t n = lines ? curvine_pread(file, buffer, size, at) : 0;
        if (n <= 0) {
            *ret = at;
            return (int)n;
        }
        const uint8_t *p = buffer, *end = buffer + n;
        while (lines && (p = memchr(p, '\n', (size_t)(end - p)))) {
            p++;
            lines--;
        }
        if (!lines) {
            *ret = at + (uint64_t)(p - buffer);
            return 0;
        }
        at += (uint64_t)n;
    }
}

/* Where the last `lines` lines begin: backwards; a line feed at the very end ends the last line. */
static int find_tail(struct curvine_file *file, uint64_t size, uint64_t lines, uint64_t *ret)
{
    uint8_t *buffer cleanup(freep) = malloc(PIECE);
    if (!buffer)
        return -ENOMEM;
    *ret = size;
    if (!lines)
        return 0;
    for (uint64_t end = size; end > 0;) {
        uint64_t from = end > PIECE ? end - PIECE : 0;
        for (uint64_t got = from; got < end;) {
            int64_t n = curvine_pread(file, buffer + (got - from), end - got, got);
            if (n <= 0)
                return n < 0 ? (int)n : -ESTALE; /* shorter by now */
            got += (uint64_t)n;
        }
        for (uint64_t i = end - from; i-- > 0;)
            if (buffer[i] == '\n' && from + i + 1 != size && --lines == 0) {
                *ret = from + i + 1;
                return 0;
            }
        end = from;
    }
    *ret = 0;
    return 0;
}

static int extract(struct cli *cli, int argc, char **argv, bool tail)
{
    struct extract e = {0};
    const char *path;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct curvine_file *file cleanup(file_closep) = NULL;
    int status = parse_extract(cli, argc, argv, &e);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    status = cli_path(cli, argv[optind], &path);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    int r = curvine_file_open(cv, path, O_RDONLY, 0, &file);
    uint64_t size = r == 0 ? curvine_file_size(file) : 0, from = 0, to = size;
    if (r == 0 && e.by_bytes && tail)
        from = size - min(size, e.bytes);
    else if (r == 0 && e.by_bytes)
        to = min(size, e.bytes);
    else if (r == 0)
        r = tail ? find_tail(file, size, e.lines, &from) : find_head(file, e.lines, &to);
    if (r == 0)
        r = copy_out(file, from, to);
    return done(cli, r, path);
}

int cmd_fs_head(struct cli *cli, int argc, char **argv)
{
    return extract(cli, argc, argv, false);
}

int cmd_fs_tail(struct cli *cli, int argc, char **argv)
{
    return extract(cli, argc, argv, true);
}
