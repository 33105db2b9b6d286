/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv: find the command in the table, read the global options, run it. Global options may stand anywhere: before the
 * command they are read here, behind it by cli_option(), which commands read their own options with.
 */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"

/* In the order of cli_commands. */
static int (*const functions[])(struct cli *cli, int argc, char **argv) = {
#define CMD(group, id, name, args, summary, options, examples) cmd_##id,
#include "cli/commands.def"
#undef CMD
};

static bool terminal_has_colour(void)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
    optind = 1;
    if (cli_next_option(cli, argc, argv, "+", "", NULL) == '?')
        return cli_option_status();
    char **words = argv + optind;
    int n;
    if (!words[0]) {
        cli_help_overview(stdout);
        return CLI_OK;
    }
    cli->command = cli_find(words, &n);
    if (!cli->command && cli_is_family(words[0])) {
        bool asked = words[1] && (strcmp(words[1], "--help") == 0 || strcmp(words[1], "-h") == 0);
        if (asked || !words[1]) {
            cli_help_family(words[0], asked ? stdout : stderr);
            return asked ? CLI_OK : CLI_USAGE;
        }
    }
    if (!cli->command)
        return cli_unknown(words);
    argv += optind + n - 1;
    argc -= optind + n - 1;
    optind = 0; /* begin anew, in glibc's words */
    return functions[cli->command - cli_commands](cli, argc, argv);
}

int cli_main(int argc, char **argv, const struct option_section *const *sections)
{
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of print, not a death */
    log_set_name("cv");
    log_set_level(LOG_LEVEL_WARN);
    struct cli cli = {.sections = sections, .colour = terminal_has_colour()};
    cli.sets = calloc((size_t)argc + 1, sizeof(*cli.sets));
    if (!cli.sets)
        return CLI_FAILED;
    int status = run(&cli, argc, argv);
    errno = 0;
    if (status == CLI_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = cli_printed(&cli, errno ? -errno : -EIO);
    config_free(cli.config);
    free(cli.sets);
    return status;
}
