/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a command. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/local.h"

const char *cli_config_path(struct cli *cli)
{
    static char in_dir[4096];
    if (cli->config_path)
        return cli->config_path;
    if (cli->dir) {
        snprintf(in_dir, sizeof(in_dir), "%s/curvine.yaml", cli->dir);
        return in_dir;
    }
    const char *path = config_default_path();
    if (getenv("CURVINE_CONFIG") || access(path, F_OK) == 0)
        return path;
    /* No installed cluster: the one that cv local up made, if it did. */
    char local[256];
    if (local_dir(cli, local, sizeof(local)) == 0 && local_is_set_up(local)) {
        snprintf(in_dir, sizeof(in_dir), "%s/curvine.yaml", local);
        return in_dir;
    }
    return NULL;
}

int cli_config(struct cli *cli, const struct config **ret)
{
    if (cli->config) {
        *ret = cli->config;
        return 0;
    }
    struct config *c cleanup(config_free_p) = NULL;
    int r = config_new(cli->sections, &c);
    if (r < 0) {
        cli_fail(cli, r, NULL, "configuration");
        return r;
    }
    const char *path = cli_config_path(cli);
    if (path)
        r = config_load(c, path);
    char masters[4096];
    if (r == 0 && cli->masters) {
        snprintf(masters, sizeof(masters), "cluster.masters=%s", cli->masters);
        r = config_set(c, masters);
    }
    for (uint32_t i = 0; r == 0 && i < cli->n_sets; i++)
        r = config_set(c, cli->sets[i]);
    if (r == 0)
        r = config_check(c);
    if (r < 0) {
        fprintf(stderr, "%s", config_errors(c));
        return r;
    }
    *ret = cli->config = take(c);
    return 0;
}
