/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv: find the command in the table, read the global options, run it. Global options may stand anywhere: before the
 * command they are read here, behind it by cli_option(), which commands read their own options with.
 */
#include <assert.h>
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/local.h"
#include "conf/nearest.h"

const struct cli_command cli_commands[] = {
#define CMD(group, id, name, args, summary, options, examples)                                                         \
    {group, name, args, summary, options, examples, cmd_##id},
#include "cli/commands.def"
#undef CMD
    {0},
};

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

/* One option of either kind; mode is "" or "+" (stop at the first argument). */
static int next_option(struct cli *cli, int argc, char **argv, const char *mode, const char *short_options,
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
    return next_option(cli, argc, argv, "", short_options, options);
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

static bool nobody_answers(int r)
{
    return r == -CV_UNREACHABLE || r == -CV_CLOSED || r == -ECONNREFUSED || r == -EHOSTUNREACH || r == -ENETUNREACH;
}

int cli_fail(struct cli *cli, int r, const char *hint, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "cv%s%s: ", cli->command ? " " : "", cli->command ? cli->command->name : "");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, ": %s (%s)\n", cv_error_text(r), cv_error_name(r));
    if (hint)
        fprintf(stderr, "  try: %s\n", hint);
    return nobody_answers(r) ? CLI_UNREACHABLE : CLI_FAILED;
}

/* The status of having written to stdout, r saying how that went. */
static int written(struct cli *cli, int r)
{
    if (r == -EPIPE) { /* "| head" has seen enough */
        clearerr(stdout);
        return CLI_OK;
    }
    return r < 0 ? cli_fail(cli, r, NULL, "print") : CLI_OK;
}

int cli_print(struct cli *cli, struct out *o)
{
    int r = out_print(o, stdout, cli->form, cli->colour);
    out_free(o);
    return written(cli, r);
}

int cli_printed(struct cli *cli, int r)
{
    errno = 0;
    if (r == 0 && fflush(stdout) != 0)
        r = errno ? -errno : -EIO;
    return written(cli, r);
}

int cli_write(struct cli *cli, const struct buf *text)
{
    errno = 0;
    bool good = fwrite(text->p, 1, text->n, stdout) == text->n && fflush(stdout) == 0;
    return written(cli, good ? 0 : errno ? -errno : -EIO);
}

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

static bool terminal_has_colour(void)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
    optind = 1;
    if (next_option(cli, argc, argv, "+", "", NULL) == '?')
        return option_status;
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
    return cli->command->run(cli, argc, argv);
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
        status = written(&cli, errno ? -errno : -EIO);
    config_free(cli.config);
    free(cli.sets);
    return status;
}
