/* SPDX-License-Identifier: Apache-2.0 */
/* cv config: the option tables (conf/options.h) and configuration files, for people. None needs a cluster. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"
#include "conf/options_doc.h"

/* Which options a command is about: all, or those of "SECTION" and "SECTION.KEY" arguments. */
struct selection {
    char **words;
};

static bool selected(const struct selection *s, struct option_ref ref)
{
    if (!s->words[0])
        return true;
    for (char **word = s->words; *word; word++) {
        size_t n = strlen(ref.section->name);
        if (strncmp(*word, ref.section->name, n) != 0)
            continue;
        if (!(*word)[n] || ((*word)[n] == '.' && strcmp(*word + n + 1, ref.option->name) == 0))
            return true;
    }
    return false;
}

/* Hold the words against the tables. Returns CLI_OK, or reports the first that names nothing. */
static int check_selection(struct cli *cli, const struct selection *s)
{
    for (char **word = s->words; *word; word++) {
        const char *dot = strchr(*word, '.');
        struct text section = {*word, (uint32_t)(dot ? dot - *word : (ssize_t)strlen(*word))};
        struct option_ref ref;
        char why[OPTION_MESSAGE_MAX];
        if (!dot && option_find_section(cli->sections, section))
            continue;
        if (config_find(cli->sections, section, dot ? text_of(dot + 1) : TEXT(""), &ref, why) < 0)
            return cli_usage(cli, "%s: %s", *word, why);
    }
    return CLI_OK;
}

#define for_each_option(cli, ref)                                                                                      \
    for (uint32_t s_ = 0; (cli)->sections[s_]; s_++)                                                                   \
        for (uint32_t o_ = 0; o_ < (cli)->sections[s_]->n; o_++)                                                       \
            for (struct option_ref ref = {(cli)->sections[s_], &(cli)->sections[s_]->options[o_]}; ref.option;         \
                 ref.option = NULL)

/* What a writer of conf/ appends, as a cell. */
static void add_text(struct out *o, int r, struct buf *b)
{
    out_text(o, r == 0 && buf_append(b, "", 1) == 0 ? (char *)b->p : NULL);
}

static void add_key(struct out *o, struct option_ref ref)
{
    char key[128];
    snprintf(key, sizeof(key), "%s.%s", ref.section->name, ref.option->name);
    out_text(o, key);
}

static void add_value(struct out *o, const struct config *c, struct option_ref ref)
{
    struct buf shown cleanup(buf_fini) = {0};
    struct buf exact cleanup(buf_fini) = {0};
    const void *values = config_values(c, ref.section);
    int r = option_format(ref.option, values, &shown);
    if (r == 0)
        r = option_format_json(ref.option, values, &exact);
    if (r == 0)
        r = buf_append(&shown, "", 1);
    json_t *value = r == 0 ? json_loadb((char *)exact.p, exact.n, JSON_DECODE_ANY, NULL) : NULL;
    out_json(o, r == 0 ? (char *)shown.p : "", value);
}

static void add_default(struct out *o, struct option_ref ref)
{
    struct buf b cleanup(buf_fini) = {0};
    int r = option_format_default(ref.option, &b);
    add_text(o, r, &b);
}

/* Read one file into a fresh configuration, with the messages of what is wrong with it still inside. */
static int load_file(struct cli *cli, const char *path, struct config **ret)
{
    struct config *c = NULL;
    int r = config_new(cli->sections, &c);
    if (r < 0)
        return r;
    if (path)
        r = config_load(c, path);
    if (r == 0)
        r = config_check(c);
    *ret = c;
    return r;
}

/* "a\nb\n" as ["a", "b"]. */
static json_t *lines_to_json(const char *lines)
{
    json_t *array = json_array();
    while (array && *lines) {
        size_t n = strcspn(lines, "\n");
        json_array_append_new(array, json_stringn(lines, n));
        lines += n + (lines[n] == '\n');
    }
    return array;
}

int cmd_config_check(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {{"file", OUT_TEXT}, {"valid", OUT_BOOL}, {"problems", OUT_JSON}};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc - optind > 1)
        return cli_usage(cli, "takes one file at most");
    const char *path = argv[optind] ? argv[optind] : cli_config_path(cli);
    struct config *c cleanup(config_free_p) = NULL;
    int r = load_file(cli, path, &c);
    if (!c)
        return cli_fail(cli, r, NULL, "%s", path);
    const char *problems = config_errors(c);
    if (cli->form == OUT_AS_JSON || cli->form == OUT_AS_YAML) {
        struct out *o = out_record(columns, array_size(columns));
        out_text(o, path);
        out_number(o, r == 0);
        out_json(o, "", lines_to_json(problems));
        int status = cli_print(cli, o);
        return status == CLI_OK && r < 0 ? CLI_FAILED : status;
    }
    if (r < 0) {
        fprintf(stderr, "%s", problems);
        return CLI_FAILED;
    }
    if (path)
        printf("%s: valid\n", path);
    else
        printf("no configuration file: all options are at their defaults\n");
    return CLI_OK;
}

int cmd_config_show(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"key", OUT_TEXT},
        {"value", OUT_JSON},
        {"origin", OUT_TEXT},
        {"default", OUT_TEXT, .wide = true},
        {"help", OUT_TEXT, .wide = true},
    };
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    struct selection which = {argv + optind};
    const struct config *c;
    int status = check_selection(cli, &which);
    if (status != CLI_OK)
        return status;
    if (cli_config(cli, &c) < 0)
        return CLI_USAGE;
    struct out *o = out_table(columns, array_size(columns));
    for_each_option(cli, ref)
    {
        if (!selected(&which, ref))
            continue;
        const char *origin = config_origin(c, ref);
        add_key(o, ref);
        add_value(o, c, ref);
        out_text(o, origin);
        out_colour(o, strcmp(origin, "default") == 0 ? OUT_DIM : OUT_PLAIN);
        add_default(o, ref);
        out_text(o, ref.option->help);
    }
    return cli_print(cli, o);
}

struct diff {
    struct out *out;
    const struct config *from, *to;
};

static void add_difference(void *arg, struct option_ref ref)
{
    struct diff *d = arg;
    add_key(d->out, ref);
    add_value(d->out, d->from, ref);
    add_value(d->out, d->to, ref);
    out_text(d->out, config_origin(d->to, ref));
}

int cmd_config_diff(struct cli *cli, int argc, char **argv)
{
    static const struct out_column to_defaults[] = {
        {"key", OUT_TEXT}, {"default", OUT_JSON}, {"value", OUT_JSON}, {"origin", OUT_TEXT}};
    static const struct out_column two_files[] = {
        {"key", OUT_TEXT}, {"first", OUT_JSON}, {"second", OUT_JSON}, {"origin", OUT_TEXT}};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    int files = argc - optind;
    if (files > 2)
        return cli_usage(cli, "takes two files at most");

    struct config *from cleanup(config_free_p) = NULL;
    struct config *named cleanup(config_free_p) = NULL;
    int r = load_file(cli, files == 2 ? argv[optind] : NULL, &from);
    if (r == 0 && files)
        r = load_file(cli, argv[optind + files - 1], &named);
    if (r < 0) {
        fprintf(stderr, "%s", named ? config_errors(named) : from ? config_errors(from) : "out of memory\n");
        return CLI_FAILED;
    }
    const struct config *to = named;
    if (!to && cli_config(cli, &to) < 0)
        return CLI_USAGE;
    struct diff d = {.out = files == 2 ? out_table(two_files, array_size(two_files))
                                       : out_table(to_defaults, array_size(to_defaults)),
                     .from = from,
                     .to = to};
    config_diff(from, to, add_difference, &d);
    return cli_print(cli, d.out);
}

/* For people: all there is to say about the options named, the keys of the sections named, or the sections. */
static int explain_in_words(struct cli *cli, const struct selection *which)
{
    struct buf b cleanup(buf_fini) = {0};
    int r = 0;
    if (!which->words[0]) {
        for (uint32_t i = 0; r == 0 && cli->sections[i]; i++)
            r = buf_printf(&b, "  %-10s %s\n", cli->sections[i]->name, cli->sections[i]->summary);
        if (r == 0)
            r = buf_printf(&b, "\nMore: cv config explain SECTION, cv config explain SECTION.KEY\n");
    }
    for (char **word = which->words; r == 0 && *word; word++) {
        const char *dot = strchr(*word, '.');
        const struct option_section *s =
            option_find_section(cli->sections, dot ? (struct text){*word, (uint32_t)(dot - *word)} : text_of(*word));
        if (word > which->words)
            r = buf_append(&b, "\n", 1);
        if (r == 0 && dot)
            r = options_explain((struct option_ref){s, option_find(s, text_of(dot + 1))}, &b);
        else if (r == 0)
            r = options_help(s, &b);
    }
    if (r < 0)
        return cli_fail(cli, r, NULL, "explain");
    return cli_write(cli, &b);
}

int cmd_config_explain(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"key", OUT_TEXT},  {"type", OUT_TEXT},    {"default", OUT_TEXT},
        {"live", OUT_BOOL}, {"allowed", OUT_TEXT}, {"help", OUT_TEXT},
    };
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    struct selection which = {argv + optind};
    int status = check_selection(cli, &which);
    if (status != CLI_OK)
        return status;
    if (cli->form == OUT_TABLE)
        return explain_in_words(cli, &which);
    struct out *o = out_table(columns, array_size(columns));
    for_each_option(cli, ref)
    {
        if (!selected(&which, ref))
            continue;
        struct buf allowed cleanup(buf_fini) = {0};
        add_key(o, ref);
        out_text(o, option_type_name(ref.option->type));
        add_default(o, ref);
        out_number(o, ref.option->live);
        add_text(o, option_allowed(ref.option, &allowed), &allowed);
        out_text(o, ref.option->help);
    }
    return cli_print(cli, o);
}

int cmd_config_sample(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"markdown", no_argument, NULL, 'M'}, {"man", no_argument, NULL, 'm'}, {0}};
    int (*write)(const struct option_section *const *sections, struct buf *out) = options_sample;
    for (int c; (c = cli_option(cli, argc, argv, "", options)) != -1;)
        switch (c) {
        case 'M': write = options_markdown; break;
        case 'm': write = options_man_page; break;
        default: return cli_option_status();
        }
    if (argv[optind])
        return cli_usage(cli, "takes no arguments");
    struct buf b cleanup(buf_fini) = {0};
    int r = write(cli->sections, &b);
    if (r < 0)
        return cli_fail(cli, r, NULL, "sample");
    return cli_write(cli, &b);
}
