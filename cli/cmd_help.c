/* SPDX-License-Identifier: Apache-2.0 */
/* cv help, and everything else that reads the command table for people. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "conf/man.h"
#include "conf/nearest.h"

#define for_each_command(c) for (const struct cli_command *c = cli_commands; c->name; c++)

/* Whether word is the n-th (0 or 1) word of the name. */
static bool word_is(const char *name, int n, const char *word)
{
    const char *second = strchr(name, ' ');
    size_t first_length = second ? (size_t)(second - name) : strlen(name);
    if (n == 0)
        return strlen(word) == first_length && memcmp(word, name, first_length) == 0;
    return second && strcmp(second + 1, word) == 0;
}

const struct cli_command *cli_find(char **words, int *ret_words)
{
    for_each_command(c)
    {
        bool two = strchr(c->name, ' ');
        if (words[0] && word_is(c->name, 0, words[0]) && (!two || (words[1] && word_is(c->name, 1, words[1])))) {
            *ret_words = two ? 2 : 1;
            return c;
        }
    }
    return NULL;
}

bool cli_is_family(const char *name)
{
    for_each_command(c) if (strchr(c->name, ' ') && word_is(c->name, 0, name)) return true;
    return false;
}

int cli_unknown(char **words)
{
    if (cli_is_family(words[0]) && words[1]) {
        struct nearest near = {.wanted = text_of(words[1])};
        for_each_command(c) if (word_is(c->name, 0, words[0])) nearest_offer(&near, strchr(c->name, ' ') + 1);
        fprintf(stderr, "cv: unknown command '%s %s'", words[0], words[1]);
        if (near.word)
            fprintf(stderr, ", did you mean 'cv %s %s'?", words[0], near.word);
        fprintf(stderr, "\nMore: cv help %s\n", words[0]);
        return CLI_USAGE;
    }
    /* The first words of all commands; a command that needs two is offered by its first. */
    char first[32][32];
    size_t n = 0;
    struct nearest near = {.wanted = text_of(words[0])};
    for_each_command(c)
    {
        size_t length = strcspn(c->name, " ");
        if (n == array_size(first) || length >= sizeof(first[0]))
            continue;
        memcpy(first[n], c->name, length);
        first[n][length] = 0;
        nearest_offer(&near, first[n]);
        n += near.word == first[n]; /* kept only when it is the suggestion */
    }
    fprintf(stderr, "cv: unknown command '%s'", words[0]);
    if (near.word)
        fprintf(stderr, ", did you mean 'cv %s'?", near.word);
    fprintf(stderr, "\nMore: cv help\n");
    return CLI_USAGE;
}

static void print_line(const struct cli_command *c, FILE *to)
{
    char usage[128];
    snprintf(usage, sizeof(usage), "%s%s%s", c->name, *c->args ? " " : "", c->args);
    if (strlen(usage) <= 36)
        fprintf(to, "  %-36s  %s\n", usage, c->summary);
    else
        fprintf(to, "  %s\n  %-36s  %s\n", usage, "", c->summary);
}

static void print_indented(const char *lines, FILE *to)
{
    while (*lines) {
        int n = (int)strcspn(lines, "\n");
        fprintf(to, "  %.*s\n", n, lines);
        lines += n + (lines[n] == '\n');
    }
}

/* Whether a command of this group stands before c. */
static bool group_is_done(const struct cli_command *c)
{
    for (const struct cli_command *before = cli_commands; before < c; before++)
        if (strcmp(before->group, c->group) == 0)
            return true;
    return false;
}

static const char global_options[] =
    "  -c, --config FILE         read FILE (else DIR/curvine.yaml with --dir, $CURVINE_CONFIG,\n"
    "                            /etc/curvine/curvine.yaml if it is there)\n"
    "      --set SECTION.KEY=V   set one option, over what the file says; may be repeated\n"
    "      --cluster HOST:PORT,… talk to these masters\n"
    "      --dir DIR             talk to the one-machine cluster in DIR (cv local)\n"
    "  -o, --output FORM         table, wide, json or yaml; --json is -o json\n"
    "      --no-color            no colour (also: NO_COLOR in the environment, or no terminal)\n"
    "      --timeout TIME        give up after TIME: 500ms, 10s, 5m\n"
    "  -v, --verbose             say more about what is done, on standard error\n"
    "  -h, --help                this, or the help of a command; --version\n";
static const char exit_statuses[] = "0 ok, 1 failed, 2 wrong usage, 3 degraded, 4 unreachable.";

void cli_help_overview(FILE *to)
{
    fprintf(to, "cv: everything an administrator or user of a Curvine cluster types.\n\n"
                "Usage: cv [global options] COMMAND [options] [arguments]\n");
    for_each_command(c)
    {
        if (group_is_done(c))
            continue;
        fprintf(to, "\n%s\n", c->group);
        for (const struct cli_command *member = c; member->name; member++)
            if (strcmp(member->group, c->group) == 0)
                print_line(member, to);
    }
    fprintf(to,
            "\nGlobal options (before or behind the command)\n%s\nExit status: %s\nMore on a command, with examples: "
            "cv help COMMAND\n",
            global_options, exit_statuses);
}

void cli_help_family(const char *first, FILE *to)
{
    fprintf(to, "Commands of cv %s:\n\n", first);
    for_each_command(c) if (word_is(c->name, 0, first)) print_line(c, to);
    fprintf(to, "\nMore on one, with examples: cv help %s COMMAND\n", first);
}

void cli_help_command(const struct cli_command *c, FILE *to)
{
    fprintf(to, "cv %s: %s\n\nUsage: cv %s%s%s\n", c->name, c->summary, c->name, *c->args ? " " : "", c->args);
    if (*c->options) {
        fprintf(to, "\nOptions\n");
        print_indented(c->options, to);
    }
    if (*c->examples) {
        fprintf(to, "\nExamples\n");
        print_indented(c->examples, to);
    }
    fprintf(to, "\nGlobal options (-o, --json, --timeout, ...): cv help\n");
}

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

static int man_command(struct buf *out, const struct cli_command *c)
{
    char usage[512];
    snprintf(usage, sizeof(usage), "cv %s%s%s", c->name, *c->args ? " " : "", c->args);
    int r = man_term(out, usage, c->summary);
    if (r == 0 && *c->options) {
        r = buf_append(out, ".RS\n", 4);
        r = r < 0 ? r : man_terms(out, c->options);
        r = r < 0 ? r : buf_append(out, ".RE\n", 4);
    }
    if (r == 0 && *c->examples) {
        r = buf_append(out, ".RS\n", 4);
        r = r < 0 ? r : man_lines(out, c->examples);
        r = r < 0 ? r : buf_append(out, ".RE\n", 4);
    }
    return r;
}

/* cv(1). */
static int man_page(struct buf *out)
{
    int r = man_head(out, "cv", 1, "everything an administrator or user of a Curvine cluster types");
    r = r < 0 ? r : man_section(out, "SYNOPSIS");
    r = r < 0 ? r : man_lines(out, "cv [global options] COMMAND [options] [arguments]\n");
    r = r < 0 ? r : man_section(out, "DESCRIPTION");
    r = r < 0 ? r
              : man_text(out, "Curvine is a distributed file cache between computing and cloud storage. Paths in its "
                              "namespace begin with a colon (:/data); paths without one are of this host.");
    for_each_command(c)
    {
        if (group_is_done(c))
            continue;
        char heading[64];
        snprintf(heading, sizeof(heading), "%s", c->group);
        for (char *p = heading; *p; p++)
            *p = (char)toupper(*p);
        r = r < 0 ? r : man_section(out, heading);
        for (const struct cli_command *member = c; member->name; member++)
            if (strcmp(member->group, c->group) == 0)
                r = r < 0 ? r : man_command(out, member);
    }
    r = r < 0 ? r : man_section(out, "GLOBAL OPTIONS");
    r = r < 0 ? r : man_terms(out, global_options);
    r = r < 0 ? r : man_section(out, "EXIT STATUS");
    r = r < 0 ? r : man_text(out, exit_statuses);
    r = r < 0 ? r : man_section(out, "SEE ALSO");
    return r < 0 ? r : man_text(out, "curvine.yaml(5), cv-master(8), cv-journal(8), cv-worker(8), cv-fuse(8)");
}

static int print_man(struct cli *cli)
{
    struct buf page cleanup(buf_fini) = {0};
    int r = man_page(&page);
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
