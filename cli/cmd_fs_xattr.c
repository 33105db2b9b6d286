/* SPDX-License-Identifier: Apache-2.0 */
/* cv fs xattr: extended attributes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/connect.h"

static int find_inode(struct cli *cli, int argc, char **argv, struct curvine **cv, uint64_t *inode)
{
    const char *path;
    int status = cli_path(cli, argv[0], &path);
    if (status == CLI_OK)
        status = cli_connect(cli, cv);
    if (status != CLI_OK)
        return status;
    int r = curvine_resolve(*cv, path, CURVINE_FOLLOW, inode, NULL);
    return r < 0 ? cli_fail_path(cli, r, "find", path) : CLI_OK;
}

static int no_options(struct cli *cli, int argc, char **argv, int arguments, const char *expected)
{
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status() == CLI_OK ? -1 : cli_option_status();
    return argc - optind != arguments ? cli_usage(cli, "%s", expected) : CLI_OK;
}

static int set_or_remove(struct cli *cli, int argc, char **argv, bool set)
{
    int status = no_options(cli, argc, argv, set ? 3 : 2,
                            set ? "expected a path, a name and a value" : "expected a path and a name");
    if (status != CLI_OK)
        return status < 0 ? CLI_OK : status;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    const char *name = argv[optind + 1], *value = set ? argv[optind + 2] : "";
    struct curvine_request q = {.op = set ? CURVINE_SETXATTR : CURVINE_REMOVEXATTR,
                                .name = {name, (uint32_t)strlen(name)},
                                .value = {value, (uint32_t)strlen(value)}};
    status = find_inode(cli, argc, argv + optind, &cv, &q.inode);
    if (status != CLI_OK)
        return status;
    int r = curvine_run(cv, &q);
    curvine_request_free(&q);
    const char *hint = r == -EOPNOTSUPP ? "names begin with user., trusted. or security." : NULL;
    return r < 0 ? cli_fail(cli, r, hint, "%s '%s' of %s", set ? "set" : "remove", name, argv[optind]) : CLI_OK;
}

int cmd_fs_setxattr(struct cli *cli, int argc, char **argv)
{
    return set_or_remove(cli, argc, argv, true);
}

int cmd_fs_rmxattr(struct cli *cli, int argc, char **argv)
{
    return set_or_remove(cli, argc, argv, false);
}

/* As it is, or in hexadecimal when it is no text: as getfattr(1) does. */
static int show_value(struct text value, struct buf *ret)
{
    int r = buf_append(ret, value.p, value.n);
    r = r ? r : buf_append(ret, "", 1);
    if (r < 0 || ((!value.n || !memchr(value.p, 0, value.n)) && out_is_utf8((const char *)ret->p)))
        return r;
    ret->n = 0;
    r = buf_printf(ret, "0x");
    for (uint32_t i = 0; r == 0 && i < value.n; i++)
        r = buf_printf(ret, "%02x", (uint8_t)value.p[i]);
    return r;
}

static int add_value(struct curvine *cv, uint64_t inode, struct curvine_text name, struct out *o)
{
    struct curvine_request q = {.op = CURVINE_GETXATTR, .inode = inode, .name = name};
    struct buf shown cleanup(buf_fini) = {0};
    char name_text[256];
    int r = curvine_run(cv, &q);
    if (r == 0)
        r = show_value((struct text){q.data.p, q.data.n}, &shown);
    if (r == 0) {
        snprintf(name_text, sizeof(name_text), "%.*s", (int)name.n, name.p);
        out_text(o, name_text);
        out_number(o, q.data.n);
        out_text(o, (const char *)shown.p);
    }
    curvine_request_free(&q);
    return r == -ENODATA ? 0 : r;
}

int cmd_fs_xattr(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {{"name", OUT_TEXT}, {"size", OUT_SIZE}, {"value", OUT_TEXT}};
    int status = no_options(cli, argc, argv, 1, "expected one path");
    if (status != CLI_OK)
        return status < 0 ? CLI_OK : status;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct curvine_request q = {.op = CURVINE_LISTXATTR};
    status = find_inode(cli, argc, argv + optind, &cv, &q.inode);
    if (status != CLI_OK)
        return status;
    struct out *o = out_table(columns, array_size(columns));
    int r = curvine_run(cv, &q);
    for (uint32_t at = 0; r == 0 && at < q.data.n;) {
        uint32_t n = (uint32_t)strnlen(q.data.p + at, q.data.n - at);
        r = add_value(cv, q.inode, (struct curvine_text){q.data.p + at, n}, o);
        at += n + 1;
    }
    curvine_request_free(&q);
    if (r < 0) {
        out_free(o);
        return cli_fail(cli, r, NULL, "list attributes of %s", argv[optind]);
    }
    return cli_print(cli, o);
}
