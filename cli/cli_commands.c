/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, without what they do (that is in cv.c): looked up in, and what is near a word that is not there. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "conf/nearest.h"

const struct cli_command cli_commands[] = {
#define CMD(group, id, name, args, summary, options, examples) {group, name, args, summary, options, examples},
#include "cli/commands.def"
#undef CMD
    {0},
};

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

bool cli_is_of_family(const struct cli_command *c, const char *name)
{
    return word_is(c->name, 0, name);
}
