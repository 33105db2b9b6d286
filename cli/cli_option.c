/* SPDX-License-Identifier: Apache-2.0 */
/* Options: the global ones, which may stand anywhere, and a command's own beside them. */
#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "conf/nearest.h"

/* Values of the global options that have no letter; above any a command may use. */
enum { GLOBAL_CLUSTER = 0x1000, GLOBAL_DIR, GLOBAL_JSON, GLOBAL_NO_COLOR, GLOBAL_TIMEOUT, GLOBAL_SET, GLOBAL_VERSION };

#define GLOBAL_SHORT "c:o:vh"
static const struct option global_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"output", required_argument, NULL, 'o'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"cluster", required_argument, NULL, GLOBAL_CLUSTER},
    {"dir", required_argument, NULL, GLOBAL_DIR},
    {"json", no_argument, NULL, GLOBAL_JSON},
    {"no-color", no_argument, NULL, GLOBAL_NO_COLOR},
    {"timeout", required_argument, NULL, GLOBAL_TIMEOUT},
    {"set", required_argument, NULL, GLOBAL_SET},
    {"version", no_argument, NULL, GLOBAL_VERSION},
};
#define COMMAND_OPTIONS_MAX 48

static int option_status; /* of the last cli_option() == '?' */

int cli_option_status(void)
{
    return option_status;
}

static void on_deadline(int signal_number)
{
    static const char text[] = "cv: not done within --timeout\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)written;
    _exit(CLI_FAILED);
}

/* Commands hold to the deadline themselves; this is for what hangs in spite of it (a dead mount, a name server). */
static void arm_deadline(const struct cli *cli)
{
    uint64_t ms = cli->timeout_ms + 1000;
    struct itimerval timer = {.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)}};
    signal(SIGALRM, on_deadline);
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Take a global option. Returns 0; '?' to stop (status in option_status); the value itself when it is not ours. */
static int take_global(struct cli *cli, int value)
{
    switch (value) {
    case 'c': cli->config_path = optarg; return 0;
    case 'v':
        cli->verbose = true;
        log_set_level(LOG_LEVEL_DEBUG);
        return 0;
    case GLOBAL_CLUSTER: cli->masters = optarg; return 0;
    case GLOBAL_DIR: cli->dir = optarg; return 0;
    case GLOBAL_JSON: cli->form = OUT_AS_JSON; return 0;
    case GLOBAL_NO_COLOR:
        cli->colour = false;
        cli->no_colour = true;
        return 0;
    case GLOBAL_SET: cli->sets[cli->n_sets++] = optarg; return 0;
    case 'o':
        if (out_form_parse(optarg, &cli->form) == 0)
            return 0;
        option_status = cli_usage(cli, "-o %s: expected table, wide, json or yaml", optarg);
        return '?';
    case GLOBAL_TIMEOUT:
        if (parse_duration_ms(optarg, &cli->timeout_ms) == 0 && cli->timeout_ms) {
            arm_deadline(cli);
            return 0;
        }
        option_status = cli_usage(cli, "--timeout %s: expected a duration such as 500ms, 10s, 5m", optarg);
        return '?';
    case GLOBAL_VERSION:
        printf("cv " CV_VERSION "\n");
        option_status = CLI_OK;
        return '?';
    case 'h':
        option_status = CLI_OK;
        if (cli->command)
            cli_help_command(cli->command, stdout);
        else
            cli_help_overview(stdout);
        return '?';
    default: return value;
    }
}

/* getopt has refused something (c is '?', or ':' for a missing value): say what, and what is near. */
static int report_option(struct cli *cli, int argc, char **argv, int c, const struct option *known)
{
    /* For a letter optopt is the letter; for a word it is 0, or the option's value when the word is right but not what
     * is around it: "--config" as the last word, "--json=x". */
    const char *typed = c == ':' ? argv[argc - 1] : argv[optind - 1];
    char letter[3] = {'-', (char)optopt, 0};
    bool is_word = strncmp(typed, "--", 2) == 0 && (c == ':' || optopt == 0 || strchr(typed, '='));
    if (c == ':')
        return cli_usage(cli, "%s needs a value", is_word ? typed : letter);
    if (!is_word)
        return cli_usage(cli, "unknown option %s", letter);
    if (optopt)
        return cli_usage(cli, "%.*s takes no value", (int)strcspn(typed, "="), typed);
    struct nearest near = {.wanted = {typed + 2, (uint32_t)strcspn(typed + 2, "=")}};
    for (; known->name; known++)
        nearest_offer(&near, known->name);
    return near.word ? cli_usage(cli, "unknown option %s, did you mean --%s?", typed, near.word)
                     : cli_usage(cli, "unknown option %s", typed);
}

int cli_next_option(struct cli *cli, int argc, char **argv, const char *mode, const char *short_options,
                    const struct option *options)
{
    struct option all[COMMAND_OPTIONS_MAX + array_size(global_options) + 1] = {0};
    size_t n = 0;
    for (; options && options->name; options++) {
        assert(n < COMMAND_OPTIONS_MAX);
        all[n++] = *options;
    }
    memcpy(&all[n], global_options, sizeof(global_options));
    char letters[128];
    int length = snprintf(letters, sizeof(letters), "%s:%s" GLOBAL_SHORT, mode, short_options);
    assert((size_t)length < sizeof(letters));

    opterr = 0;
    for (;;) {
        int c = getopt_long(argc, argv, letters, all, NULL);
        if (c == '?' || c == ':') {
            option_status = report_option(cli, argc, argv, c, all);
            return '?';
        }
        if (c == -1)
            return -1;
        c = take_global(cli, c);
        if (c)
            return c;
    }
}

int cli_option(struct cli *cli, int argc, char **argv, const char *short_options, const struct option *options)
{
    return cli_next_option(cli, argc, argv, "", short_options, options);
}

int cli_usage(struct cli *cli, const char *format, ...)
{
    const char *name = cli->command ? cli->command->name : NULL;
    va_list args;
    fprintf(stderr, "cv%s%s: ", name ? " " : "", name ? name : "");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (name)
        fprintf(stderr, "\nUsage: cv %s%s%s\nMore: cv help %s\n", name, *cli->command->args ? " " : "",
                cli->command->args, name);
    else
        fprintf(stderr, "\nMore: cv help\n");
    return CLI_USAGE;
}

uint32_t cli_timeout_ms(const struct cli *cli, uint32_t otherwise_ms)
{
    return cli->timeout_ms ? (uint32_t)min(cli->timeout_ms, 1ul << 31) : otherwise_ms;
}
