/* SPDX-License-Identifier: Apache-2.0 */
/* cv help */
#include <stdio.h>

#include "cli/cli.h"

/* The table itself, for completion and documentation. */
static int list_commands(struct cli *cli)
{
    static const struct out_column columns[] = {
        {"command", OUT_TEXT},
        {"arguments", OUT_TEXT},
        {"group", OUT_TEXT},
        {"summary", OUT_TEXT},
        {"examples", OUT_TEXT, .wide = true},
    };
    struct out *o = out_table(columns, array_size(columns));
    for_each_command(c)
    {
        out_text(o, c->name);
        out_text(o, c->args);
        out_text(o, c->group);
        out_text(o, c->summary);
        out_text(o, c->examples);
    }
    return cli_print(cli, o);
}

static int print_man(struct cli *cli)
{
    struct buf page cleanup(buf_fini) = {0};
    int r = cli_man_page(&page);
    return r < 0 ? cli_fail(cli, r, NULL, "manual page") : cli_write(cli, &page);
}

int cmd_help(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"man", no_argument, NULL, 'm'}, {0}};
    bool man = false;
    for (int c; (c = cli_option(cli, argc, argv, "", options)) != -1;) {
        if (c != 'm')
            return cli_option_status();
        man = true;
    }
    if (man)
        return print_man(cli);
    char **words = argv + optind;
    int n;
    const struct cli_command *c = cli_find(words, &n);
    if (!words[0] && cli->form != OUT_TABLE)
        return list_commands(cli);
    if (!words[0])
        cli_help_overview(stdout);
    else if (c)
        cli_help_command(c, stdout);
    else if (cli_is_family(words[0]) && !words[1])
        cli_help_family(words[0], stdout);
    else
        return cli_unknown(words);
    return CLI_OK;
}
