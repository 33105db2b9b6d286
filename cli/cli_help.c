/* SPDX-License-Identifier: Apache-2.0 */
/* Help, from the table of commands: for people, and as cv(1). */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "conf/man.h"

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
    for_each_command(c) if (cli_is_of_family(c, first)) print_line(c, to);
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
int cli_man_page(struct buf *out)
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
