/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/connect.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/local.h"
#include "cli/masters.h"
#include "cli/mounts.h"
#include "client/client_ask.h"
#include "client/client_options.h"
#include "conf/common_options.h"

#define CONNECT_MS 10000

const char *cli_start_hint(struct cli *cli)
{
    static char hint[4200];
    char dir[4096] = "";
    if (cli->masters)
        return "is it running? systemctl status cv-master on its hosts";
    const char *path = cli_config_path(cli);
    if (!path)
        return "there is no cluster on this host: cv local up makes one; or name yours with --cluster HOST:PORT or "
               "--dir DIR";
    /* The local one's, by --dir or because nothing else is there? */
    size_t n = local_dir(cli, dir, sizeof(dir)) == 0 && local_is_set_up(dir) ? strlen(dir) : 0;
    bool by_dir = cli->dir && !cli->config_path;
    if (!n || (!by_dir && (strncmp(path, dir, n) != 0 || strcmp(path + n, "/curvine.yaml") != 0)))
        return "is it running? systemctl status cv-master, or name it with --cluster HOST:PORT or --dir DIR";
    snprintf(hint, sizeof(hint), "is it running? cv local up%s%s starts what is down", cli->dir ? " --dir " : "",
             cli->dir ? dir : "");
    return hint;
}

/* No session came about. Is anybody there at all? */
static int fail_connect(struct cli *cli, int r, const char *named)
{
    struct masters m cleanup(masters_fini) = {.count = 0};
    if ((r == -CV_UNREACHABLE || r == -CV_DEADLINE) && masters_ask_once(cli, &m) == CLI_OK && m.answers && !m.leader)
        return cli_fail(cli, -CV_UNREACHABLE, "who is missing, and what to type: cv raft status",
                        "nobody leads, though %u of %u masters answer", m.answers, m.count);
    return cli_fail(cli, r, cli_start_hint(cli), "no master at %s", named);
}

int cli_connect(struct cli *cli, struct curvine **ret)
{
    const struct config *config;
    if (cli_config(cli, &config) < 0)
        return CLI_USAGE;
    const struct cluster_options *o = config_options(config, cluster);
    struct buf masters cleanup(buf_fini) = {0};
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < o->masters.n; i++)
        r = buf_printf(&masters, "%s%s", i ? "," : "", o->masters.items[i]);
    r = r ? r : buf_append(&masters, "", 1);
    if (r == 0)
        r = curvine_open(&(struct curvine_options){.masters = (char *)masters.p,
                                                   .program = "cv",
                                                   .memory_bytes = config_options(config, client)->memory_bytes,
                                                   .timeout_ms = cli_timeout_ms(cli, CONNECT_MS)},
                         ret);
    if (r < 0)
        return fail_connect(cli, r, (char *)masters.p);
    return CLI_OK;
}

int cli_path(struct cli *cli, const char *argument, const char **ret)
{
    if (argument[0] == ':' && argument[1] == '/') {
        *ret = argument + 1;
        return CLI_OK;
    }
    if (argument[0] == '/')
        return cli_usage(cli, "'%s' is a local path; paths of the namespace begin with a colon: ':%s'", argument,
                         argument);
    return cli_usage(cli, "'%s' is no namespace path: expected e.g. :/data/x", argument);
}

int cli_connect_path(struct cli *cli, int argc, char **argv, const char **ret_path, struct curvine **ret)
{
    if (argc - optind != 1)
        return cli_usage(cli, "expected one path");
    int status = cli_path(cli, argv[optind], ret_path);
    return status == CLI_OK ? cli_connect(cli, ret) : status;
}

struct below {
    const char *path; /* absolute */
    char *out;
    size_t size, longest;
    int r;
};

static int if_below(const struct host_mount *m, void *arg)
{
    struct below *b = arg;
    size_t n = strlen(m->point);
    char top[4096];
    if (!m->ours || n < b->longest || strncmp(b->path, m->point, n) != 0 || (b->path[n] && b->path[n] != '/'))
        return 0;
    mounts_server(m->point, top, NULL, sizeof(top));
    if (!top[0])
        return 0;
    b->longest = n;
    b->r = snprintf(b->out, b->size, "%s%s", strcmp(top, ":/") ? top + 1 : "", b->path[n] ? b->path + n : "/") <
                   (int)b->size
               ? 0
               : -ENAMETOOLONG;
    return 0;
}

int cli_any_path(struct cli *cli, const char *argument, char *out, size_t size)
{
    char path[PATH_MAX];
    const char *given;
    if (argument[0] == ':') {
        int status = cli_path(cli, argument, &given);
        if (status == CLI_OK && snprintf(out, size, "%s", given) >= (int)size)
            return cli_fail(cli, -ENAMETOOLONG, NULL, "%s", argument);
        return status;
    }
    int r = mounts_absolute(argument, path, sizeof(path));
    if (r < 0)
        return cli_fail(cli, r, NULL, "'%s'", argument);
    struct below b = {.path = path, .out = out, .size = size, .r = -ENOENT};
    mounts_each(if_below, &b);
    return b.r == 0 ? CLI_OK
                    : cli_usage(cli,
                                "'%s' is below no mount of ours (cv mount lists them); paths of the namespace begin "
                                "with a colon: ':/data'",
                                argument);
}

int cli_fail_path(struct cli *cli, int r, const char *what, const char *path)
{
    return cli_fail(cli, r, NULL, "%s :%s", what, path);
}

struct rec_op_head cli_head(void)
{
    return (struct rec_op_head){.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()};
}

int cli_mount_list(struct curvine *cv, struct buf *body, struct msg_mount_list_answer *ret)
{
    struct msg_mount_list m = {.head = cli_head()};
    int r = client_ask(cv, MSG_mount_list, msg_mount_list_desc(), &m, 0, body);
    return r < 0 ? r : msg_mount_list_answer_decode(body->p, body->n, ret);
}
