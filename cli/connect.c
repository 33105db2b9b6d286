/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/connect.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "client/client_ask.h"
#include "conf/common_options.h"

#define CONNECT_MS 10000

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
                                                   .timeout_ms = cli_timeout_ms(cli, CONNECT_MS)},
                         ret);
    if (r < 0)
        return cli_fail(
            cli, r,
            cli->dir ? "is it running? cv local status --dir DIR"
                     : "is it running? systemctl status cv-master, or name it with --cluster HOST:PORT or --dir DIR",
            "no master at %s", (char *)masters.p);
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

int cli_fail_path(struct cli *cli, int r, const char *what, const char *path)
{
    return cli_fail(cli, r, NULL, "%s :%s", what, path);
}

struct rec_op_head cli_head(void)
{
    return (struct rec_op_head){.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()};
}

uint32_t cli_timeout_ms(const struct cli *cli, uint32_t otherwise_ms)
{
    return cli->timeout_ms ? (uint32_t)min(cli->timeout_ms, 1ul << 31) : otherwise_ms;
}

int cli_mount_list(struct curvine *cv, struct buf *body, struct msg_mount_list_answer *ret)
{
    struct msg_mount_list m = {.head = cli_head()};
    int r = client_ask(cv, MSG_mount_list, msg_mount_list_desc(), &m, 0, body);
    return r < 0 ? r : msg_mount_list_answer_decode(body->p, body->n, ret);
}
