/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/connect.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
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
                                                   .timeout_ms = cli->timeout_ms
                                                                     ? (uint32_t)min(cli->timeout_ms, 1ul << 31)
                                                                     : CONNECT_MS},
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
