/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command of cv gets and how it answers. A command is one row of commands.def and one function:
 *
 *     int cmd_node_list(struct cli *cli, int argc, char **argv)
 *     {
 *         static const struct option options[] = {{"watch", no_argument, NULL, 'w'}, {0}};
 *         for (int c; (c = cli_option(cli, argc, argv, "w", options)) != -1;)
 *             switch (c) {
 *             case 'w': ...; break;
 *             default:  return CLI_USAGE;                    already reported
 *             }
 *         if (argc - optind != 0)
 *             return cli_usage(cli, "takes no arguments");
 *         const struct config *config;
 *         if (cli_config(cli, &config) < 0)
 *             return CLI_USAGE;                              already reported
 *         ...
 *         if (r < 0)
 *             return cli_fail(cli, r, "is the master running? cv local status", "list nodes");
 *         return cli_print(cli, out);
 *     }
 *
 * One thread, but for what works in a crew (cli/crew.h). Results go to stdout, in the form asked for (cli/out.h); everything else to stderr. Each line calls those below it:
 *
 *      cv.c            main: which command, and its function
 *      cmd_*.c         the commands, one file each, or one for those that share much
 *      (all others)    what several commands share: connect, mounts, copy, raft_view ...
 *      cli_config.c    the configuration                 local.c  a cluster of this machine
 *      cli_option.c    options, deadlines, wrong usage
 *      cli_help.c      help                              cli_say.c  results, what failed
 *      cli_commands.c  the table of commands
 */
#pragma once

#include <getopt.h>

#include "cli/out.h"
#include "conf/config.h"

enum cli_status {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,       /* wrong command line or configuration */
    CLI_DEGRADED = 3,    /* it works, but something is wrong with the cluster */
    CLI_UNREACHABLE = 4, /* the cluster does not answer */
};

struct cli;

struct cli_command {
    const char *group;    /* heading it is listed under */
    const char *name;     /* "config check": one or two words */
    const char *args;     /* "[FILE]" */
    const char *summary;  /* one line */
    const char *options;  /* lines of help on its own options, or "" */
    const char *examples; /* lines that run as they are */
};

/* The table, in the order of commands.def; ends with name NULL. */
extern const struct cli_command cli_commands[];
#define for_each_command(c) for (const struct cli_command *c = cli_commands; c->name; c++)

struct cli {
    const struct option_section *const *sections; /* of curvine.yaml */
    const struct cli_command *command;            /* that runs */

    /* Global options. */
    enum out_form form;
    bool colour;    /* of stdout */
    bool no_colour; /* asked for; progress on stderr wants to know */
    bool verbose;
    uint64_t timeout_ms;                     /* 0: not given, the command's own deadline */
    const char *config_path, *dir, *masters; /* NULL: not given */
    const char **sets;                       /* --set */
    uint32_t n_sets;

    struct config *config; /* once cli_config() was called */
};

/* The whole program. sections: all of curvine.yaml. Returns the exit status. */
int cli_main(int argc, char **argv, const struct option_section *const *sections);

/* getopt_long() for a command's own options, beside which the global ones are taken at any place. Returns -1 at the
 * end, '?' after a mistake (reported, with a suggestion) and after --help (cli->command's help has been printed; the
 * status to return is then cli_option_status()). options may be NULL. */
int cli_option(struct cli *cli, int argc, char **argv, const char *short_options, const struct option *options);

/* The same for those before the command; mode "+": stop at the first argument. */
int cli_next_option(struct cli *cli, int argc, char **argv, const char *mode, const char *short_options,
                    const struct option *options);

/* Status for cli_option() == '?': CLI_OK after --help, else CLI_USAGE. */
int cli_option_status(void);

/* The deadline for calls of a command: --timeout, else otherwise_ms. */
uint32_t cli_timeout_ms(const struct cli *cli, uint32_t otherwise_ms);

/* Report a wrong command line and how to get help. Returns CLI_USAGE. */
int cli_usage(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Report what failed, why (r) and what to do (hint, may be NULL), on stderr. Returns CLI_UNREACHABLE when r says that
 * nobody answers, else CLI_FAILED. */
int cli_fail(struct cli *cli, int r, const char *hint, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Print o in the form asked for and free it. Returns CLI_OK, or reports and returns CLI_FAILED. */
int cli_print(struct cli *cli, struct out *o);

/* Write text to stdout as it is. Returns CLI_OK, or reports and returns CLI_FAILED. */
int cli_write(struct cli *cli, const struct buf *text);

/* For what is printed as it is found: the status of it, r saying how that went (0, or the error of the first write that failed;
 * -EPIPE is none). Writes out what stdio still has. */
int cli_printed(struct cli *cli, int r);

/* The configuration: defaults, file, global options. Read at the first call; mistakes are reported.
 * Errors: -CV_CONFIG_BAD, -ENOMEM. */
int cli_config(struct cli *cli, const struct config **ret);

/* The file cli_config() reads: --config, --dir, $CURVINE_CONFIG, the installed one, that of a local cluster; NULL: none,
 * all defaults. */
const char *cli_config_path(struct cli *cli);

/* Help: everything by groups; the commands that begin with one word; one command. */
void cli_help_overview(FILE *to);
void cli_help_family(const char *first, FILE *to);
void cli_help_command(const struct cli_command *command, FILE *to);

/* Append cv(1), for man. Errors: -ENOMEM. */
int cli_man_page(struct buf *out);

/* The command that words (NULL-terminated) begin with, and of how many words its name is; NULL: none. */
const struct cli_command *cli_find(char **words, int *ret_words);

/* Whether name is the first word of commands of two words; of this command. */
bool cli_is_family(const char *name);
bool cli_is_of_family(const struct cli_command *c, const char *name);

/* Report that there is no such command and what is near. Returns CLI_USAGE. */
int cli_unknown(char **words);

/* What commands do; argv[0] is the last word of the name. */
#define CMD(group, id, name, args, summary, options, examples) int cmd_##id(struct cli *cli, int argc, char **argv);
#include "cli/commands.def"
#undef CMD
