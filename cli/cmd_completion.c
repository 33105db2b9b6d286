/* SPDX-License-Identifier: Apache-2.0 */
/* cv completion: scripts for shells, from the command table. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

/* Words that begin a command, and below each family its second words, as lines "first: second second". */
static const char global_words[] =
    "--config --set --cluster --dir --output --json --no-color --timeout --verbose --help";

/* The long options in lines of help. */
static int long_options(const char *help, struct buf *out)
{
    for (const char *p = help; (p = strstr(p, "--")); p += 2) {
        size_t n = 2;
        while (isalnum((unsigned char)p[n]) || p[n] == '-')
            n++;
        bool begins = p == help || p[-1] == ' ';
        if (n > 3 && begins && buf_printf(out, " %.*s", (int)n, p) < 0)
            return -ENOMEM;
    }
    return 0;
}

static size_t first_word(const struct cli_command *c)
{
    return strcspn(c->name, " ");
}

static bool seen_before(const struct cli_command *c)
{
    for (const struct cli_command *before = cli_commands; before < c; before++)
        if (first_word(before) == first_word(c) && memcmp(before->name, c->name, first_word(c)) == 0)
            return true;
    return false;
}

static int first_words(struct buf *out)
{
    for_each_command(c) if (!seen_before(c) &&
                            buf_printf(out, " %.*s", (int)first_word(c), c->name) < 0) return -ENOMEM;
    return 0;
}

static int second_words(const struct cli_command *family, struct buf *out)
{
    size_t n = first_word(family);
    for_each_command(c)
    {
        bool ours = first_word(c) == n && memcmp(c->name, family->name, n) == 0 && c->name[n];
        if (ours && buf_printf(out, " %s", c->name + n + 1) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* bash: two words decide; then options of the command, local files, or names behind ":/" asked of the cluster. zsh takes the
 * same script through bashcompinit. */
static int bash(struct buf *out)
{
    int r = buf_printf(out, "# Completion of cv, made by: cv completion bash\n"
                            "_cv() {\n"
                            "    local cur=${COMP_WORDS[COMP_CWORD]} first second words=\n"
                            "    if declare -F _get_comp_words_by_ref >/dev/null; then\n"
                            "        local words_ cword_\n"
                            "        _get_comp_words_by_ref -n : cur\n"
                            "    fi\n"
                            "    first=${COMP_WORDS[1]} second=${COMP_WORDS[2]}\n"
                            "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
                            "        words='");
    r = r < 0 ? r : first_words(out);
    r = r < 0 ? r : buf_printf(out, "'\n    else\n        case \"$first $second\" in\n");
    for_each_command(c)
    {
        r = r < 0 ? r
                  : buf_printf(out, "        '%s%s) words='%s", c->name, strchr(c->name, ' ') ? "'" : " '*",
                               global_words);
        r = r < 0 ? r : long_options(c->options, out);
        r = r < 0 ? r : buf_printf(out, "' ;;\n");
    }
    for_each_command(c)
    {
        if (!strchr(c->name, ' ') || seen_before(c))
            continue;
        r = r < 0 ? r : buf_printf(out, "        '%.*s '*) words='", (int)first_word(c), c->name);
        r = r < 0 ? r : second_words(c, out);
        r = r < 0 ? r : buf_printf(out, "' ;;\n");
    }
    return r < 0 ? r
                 : buf_printf(
                       out,
                       "        esac\n"
                       "    fi\n"
                       "    case $cur in\n"
                       "    :/*)\n"
                       "        local dir=${cur%%/*}/ name IFS=$'\\n'\n"
                       "        COMPREPLY=()\n"
                       "        while read -r name; do\n"
                       "            [[ $dir$name == \"$cur\"* ]] && COMPREPLY+=(\"$dir$name\")\n"
                       "        done < <(timeout 2 cv fs ls \"$dir\" --json 2>/dev/null |\n"
                       "            sed -n 's/.*\"name\": *\"\\([^\"]*\\)\".*/\\1/p')\n"
                       "        declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions \"$cur\"\n"
                       "        compopt -o nospace ;;\n"
                       "    -*) mapfile -t COMPREPLY < <(compgen -W \"$(printf '%%s\\n' $words | grep -- ^-)\" -- "
                       "\"$cur\") ;;\n"
                       "    *)\n"
                       "        mapfile -t COMPREPLY < <(compgen -W \"$(printf '%%s\\n' $words | grep -v -- ^-)\" -- "
                       "\"$cur\")\n"
                       "        [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default ;;\n"
                       "    esac\n"
                       "}\n"
                       "complete -F _cv cv\n");
}

static int zsh(struct buf *out)
{
    int r = buf_printf(out, "#compdef cv\nautoload -Uz +X bashcompinit && bashcompinit\n");
    return r < 0 ? r : bash(out);
}

static int fish(struct buf *out)
{
    int r = buf_printf(out, "# Completion of cv, made by: cv completion fish\n");
    for_each_command(c)
    {
        size_t n = first_word(c);
        const char *second = c->name[n] ? c->name + n + 1 : NULL;
        if (r == 0 && second && !seen_before(c))
            r = buf_printf(out, "complete -c cv -n __fish_use_subcommand -f -a %.*s\n", (int)n, c->name);
        if (r == 0 && second)
            r = buf_printf(out, "complete -c cv -n '__fish_seen_subcommand_from %.*s' -f -a %s -d \"%s\"\n", (int)n,
                           c->name, second, c->summary);
        else if (r == 0)
            r = buf_printf(out, "complete -c cv -n __fish_use_subcommand -f -a %s -d \"%s\"\n", c->name, c->summary);
    }
    return r;
}

int cmd_completion(struct cli *cli, int argc, char **argv)
{
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    static const struct {
        const char *name;
        int (*write)(struct buf *out);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    if (!argv[optind] || argv[optind + 1])
        return cli_usage(cli, "name one shell: bash, zsh or fish");
    for (size_t i = 0; i < array_size(shells); i++) {
        if (strcmp(argv[optind], shells[i].name) != 0)
            continue;
        struct buf b cleanup(buf_fini) = {0};
        int r = shells[i].write(&b);
        return r < 0 ? cli_fail(cli, r, NULL, "completion") : cli_write(cli, &b);
    }
    return cli_usage(cli, "no completions for '%s': bash, zsh or fish", argv[optind]);
}
