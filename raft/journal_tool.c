/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: which tool, with what. */
#include "raft/journal_tool.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "conf/config.h"
#include "raft/journal_options.h"
#include "raft/journal_tool_internal.h"

static const struct {
    const char *name;
    int (*run)(struct tool *t);
    const char *usage, *help;
} tools[] = {
    {"format", tool_format, "--cluster UUID|new --single | --peers A,B,C [--self A] [--journal-only C]",
     "make the log of a founding voter"},
    {"join", tool_format, "--cluster UUID [--incarnation N]", "make an empty log of a member that will be added"},
    {"check", tool_check, "[--json] [--repair-tail [--yes UUID]]",
     "hold every entry and row against their checksums; cut a damaged end that nobody was told of"},
    {"compare", tool_compare, "DIR DIR... [--json]", "which of several logs is the furthest, and where they part"},
    {"dump", tool_dump, "[--from N] [--to N] [--json]", "list the entries of a stopped journal"},
    {"rejoin", tool_rejoin, "[--incarnation N] [--cluster UUID] [--yes UUID] [--json]",
     "throw this log away and wait to be added as a new member"},
    {"force-new-cluster", tool_force_new_cluster, "--keep NODE [--yes UUID] [--json]",
     "quorum is gone for good: go on with this log alone"},
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"set", required_argument, NULL, 's'},
    {"dir", required_argument, NULL, 'd'},
    {"cluster", required_argument, NULL, 'C'},
    {"single", no_argument, NULL, '1'},
    {"peers", required_argument, NULL, 'p'},
    {"self", required_argument, NULL, 'S'},
    {"from", required_argument, NULL, 'f'},
    {"behind", required_argument, NULL, 'b'},
    {"to", required_argument, NULL, 't'},
    {"json", no_argument, NULL, 'j'},
    {"keep", required_argument, NULL, 'k'},
    {"incarnation", required_argument, NULL, 'i'},
    {"yes", required_argument, NULL, 'y'},
    {"repair-tail", no_argument, NULL, 'r'},
    {"journal-only", required_argument, NULL, 'J'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

const char *journal_tool_commands(void)
{
    static char text[2048];
    size_t n = 0;
    for (size_t i = 0; i < array_size(tools) && n < sizeof(text); i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "  cv-journal %s %s\n      %s\n", tools[i].name,
                              tools[i].usage, tools[i].help);
    return text;
}

static void print_help(void)
{
    printf("Tools for the directory of a journal that does not run:\n\n%s", journal_tool_commands());
    printf(
        "\nEach refuses while the journal runs (stop it first). What is thrown away is said before, and done only when "
        "the\n"
        "id of the cluster is typed, or given with --yes.\n"
        "\n  -d, --dir DIR            the directory (else journal.dir of the configuration)\n"
        "  -c, --config FILE        read FILE (else $CURVINE_CONFIG, else /etc/curvine/curvine.yaml if it is there)\n"
        "  -s, --set SECTION.KEY=V  set one option, over what the file says\n"
        "\nExit status: 0 done, sound; 1 failed, damaged; 2 wrong usage; 4 no log there, or in use.\n");
}

static bool parse_number(const char *s, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(s, &end, 10);
    return errno == 0 && end != s && !*end && *s != '-';
}

/* Returns -1 when there is something to run, otherwise the exit status. */
static int parse(struct tool *t, int argc, char **argv)
{
    for (int c; (c = getopt_long(argc, argv, "c:s:d:h", long_options, NULL)) != -1;) {
        bool good = true;
        switch (c) {
        case 'c': t->path = optarg; break;
        case 's': t->sets[t->set_count++] = optarg; break;
        case 'd': t->dir = optarg; break;
        case 'C': t->cluster = optarg; break;
        case '1': t->single = true; break;
        case 'p': t->peers = optarg; break;
        case 'S': t->self = optarg; break;
        case 'b': good = parse_number(optarg, &t->behind); break;
        case 'f': good = parse_number(optarg, &t->from); break;
        case 't': good = parse_number(optarg, &t->to); break;
        case 'j': t->json = true; break;
        case 'k': t->keep = optarg; break;
        case 'i': good = parse_number(optarg, &t->incarnation) && t->incarnation < UINT32_MAX; break;
        case 'y': t->yes = optarg; break;
        case 'r': t->repair_tail = true; break;
        case 'J': t->journal_only = optarg; break;
        case 'h': print_help(); return TOOL_OK;
        default: fprintf(stderr, "Try 'cv-journal %s --help'.\n", t->command); return TOOL_USAGE;
        }
        if (!good) {
            tool_complain(t, "'%s' is not a number", optarg);
            return TOOL_USAGE;
        }
    }
    t->arguments = argv + optind;
    t->argument_count = argc - optind;
    if (argv[optind] && strcmp(t->command, "compare") != 0) {
        tool_complain(t, "unexpected argument '%s'", argv[optind]);
        return TOOL_USAGE;
    }
    return -1;
}

static int read_config(struct tool *t, const struct option_section *const *sections)
{
    int r = config_new(sections, &t->config);
    if (r == 0 && (t->path || access(config_default_path(), F_OK) == 0))
        r = config_load(t->config, t->path ? t->path : config_default_path());
    for (int i = 0; i < t->set_count; i++) {
        int set = config_set(t->config, t->sets[i]);
        r = r < 0 ? r : set;
    }
    if (r == 0)
        r = config_check(t->config);
    if (r < 0)
        tool_complain(t, "configuration: %s", t->config ? config_errors(t->config) : cv_error_text(r));
    else if (!t->dir)
        t->dir = config_options(t->config, journal)->dir;
    return r;
}

static int run(struct tool *t, int argc, char **argv, const struct option_section *const *sections)
{
    int status = parse(t, argc, argv);
    if (status >= 0)
        return status;
    if (read_config(t, sections) < 0)
        return TOOL_USAGE;
    for (size_t i = 0; i < array_size(tools); i++)
        if (strcmp(t->command, tools[i].name) == 0)
            return tools[i].run(t);
    return TOOL_USAGE;
}

/* Where the first word is that is no option, nor the value of one; argc: there is none. */
static int find_command(int argc, char **argv)
{
    static const char *const valued[] = {"-c", "-s", "-d", "--config", "--set", "--dir"};
    int i = 1;
    while (i < argc && argv[i][0] == '-') {
        bool has_value = false;
        for (size_t k = 0; k < array_size(valued); k++)
            has_value |= strcmp(argv[i], valued[k]) == 0;
        i += has_value ? 2 : 1;
    }
    return min(i, argc);
}

int journal_tool_main(int argc, char **argv, const struct option_section *const *sections)
{
    int at = find_command(argc, argv);
    char *command = argv[at];
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof(*argv)); /* to the front */
    argv[1] = command;
    struct tool t = {.command = command, .from = 1, .to = UINT64_MAX};
    t.sets = calloc((size_t)argc, sizeof(t.sets[0]));
    if (!t.sets)
        return TOOL_FAILED;
    int status = run(&t, argc - 1, argv + 1, sections);
    config_free(t.config);
    free(t.sets);
    return status;
}

bool journal_tool_is(int argc, char **argv)
{
    int at = find_command(argc, argv);
    for (size_t i = 0; at < argc && i < array_size(tools); i++)
        if (strcmp(argv[at], tools[i].name) == 0)
            return true;
    return false;
}
