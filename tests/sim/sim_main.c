/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim: the deterministic simulator of the consensus core. See usage() and tests/sim/README.md.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "sim_case.h"
#include "sim_mutants.h"
#include "sim_run.h"

static int usage(void)
{
    fputs("usage: sim seeds FROM TO [-j THREADS] [SETTING...]   run seeds; failures print how to replay them\n"
          "       sim seed N [-v] [SETTING...]                 replay one; -v: its whole story\n"
          "       sim shrink N [SETTING...]                    fewer faults, nodes and time that still fail\n"
          "       sim file FILE                                seeds that failed once (SEED [SETTING...] a line)\n"
          "       sim cases [NAME] [-v]                        scripted cases\n"
          "       sim list                                     names of faults, cases, mutants\n"
          "builds with mutants:\n"
          "       sim gate FILE [NAME] [--cases]               all are noticed, as often as the file says\n"
          "       sim measure FILE [NAME]                      print the file anew\n"
          "       sim ... --mutant NAME                        with this one switched on\n"
          "SETTING: voters=3, crash=20 (a fault's intensity), only=FAULT,... no=FAULT,..., harm_only=1\n",
          stderr);
    return 2;
}

struct arguments {
    const char *words[64]; /* what is not an option; settings too, NULL-terminated */
    uint32_t count;
    uint32_t threads;
    bool verbose, cases;
    const char *mutant;
};

static int parse(int argc, char **argv, struct arguments *a)
{
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "-v"))
            a->verbose = true;
        else if (!strcmp(argv[i], "--cases"))
            a->cases = true;
        else if (!strcmp(argv[i], "-j") && i + 1 < argc)
            a->threads = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--mutant") && i + 1 < argc)
            a->mutant = argv[++i];
        else if (argv[i][0] == '-' || a->count == 62)
            return -1;
        else
            a->words[a->count++] = argv[i];
    }
    return 0;
}

static int set_mutant(const char *wanted)
{
    const char *name, *text;
    if (!wanted)
        return 0;
    for (uint32_t i = 1; (name = mutant_name(i, &text)); i++)
        if (!strcmp(name, wanted)) {
            mutant_set(i);
            return 0;
        }
    fprintf(stderr, "sim: no such mutant in this build: %s\n", wanted);
    return -1;
}

static int cmd_seeds(const struct arguments *a)
{
    if (a->count < 2)
        return usage();
    struct run_options o = {.threads = a->threads, .settings = (const char **)a->words + 2};
    struct run_totals t;
    if (run_seeds(strtoull(a->words[0], NULL, 10), strtoull(a->words[1], NULL, 10), &o, &t) < 0)
        return usage();
    run_print_totals(&t);
    if (t.failed && !a->mutant) {
        /* The story of the first, and as little of it as still fails. */
        printf("\n==== the first: seed %llu\n", (unsigned long long)t.first_failed);
        o.trace_lines = 60;
        run_replay(t.first_failed, &o);
        run_shrink(t.first_failed, &o);
    }
    return t.failed > 0;
}

static int cmd_seed(const struct arguments *a)
{
    if (a->count < 1)
        return usage();
    struct run_options o = {.settings = (const char **)a->words + 1, .trace_lines = a->verbose ? UINT32_MAX : 200};
    uint64_t seed = strtoull(a->words[0], NULL, 10);
    bool ok = run_replay(seed, &o);
    if (!ok)
        run_shrink(seed, &o);
    return !ok;
}

static int cmd_shrink(const struct arguments *a)
{
    if (a->count < 1)
        return usage();
    struct run_options o = {.settings = (const char **)a->words + 1};
    run_shrink(strtoull(a->words[0], NULL, 10), &o);
    return 0;
}

/* Seeds that failed once: all must pass. */
static int cmd_file(const struct arguments *a)
{
    FILE *f = a->count ? fopen(a->words[0], "r") : NULL;
    if (!f)
        return usage();
    char line[1024];
    uint32_t count = 0, failed = 0;
    while (fgets(line, sizeof(line), f)) {
        const char *settings[64] = {0};
        uint32_t n = 0;
        line[strcspn(line, "#\n")] = 0;
        char *save = NULL, *word = strtok_r(line, " ", &save);
        if (!word)
            continue;
        uint64_t seed = strtoull(word, NULL, 10);
        while ((word = strtok_r(NULL, " ", &save)) && n < 63)
            settings[n++] = word;
        struct run_options o = {.threads = 1, .settings = settings};
        struct run_totals t;
        if (run_seeds(seed, seed, &o, &t) < 0)
            t.failed = 1;
        count++;
        failed += t.failed > 0;
    }
    fclose(f);
    printf("%u seeds that failed once: %u fail\n", count, failed);
    return failed > 0;
}

static int cmd_cases(const struct arguments *a)
{
    struct world *w cleanup(world_free_p) = world_new();
    uint32_t count = 0, failed = 0;
    for (const struct sim_case *c = sim_cases; c; c = c->next) {
        if (a->count && strcmp(a->words[0], c->name) != 0)
            continue;
        count++;
        if (case_run(w, c, a->verbose ? stdout : NULL))
            continue;
        failed++;
        printf("case %s fails: %s: %s\n  (%s)\n", c->name, w->failure.check, w->failure.text, c->text);
    }
    printf("%u scripted cases, %u fail\n", count, failed);
    return failed > 0 || count == 0;
}

static int cmd_list(void)
{
    const char *name, *text;
    for (int i = 0; i < FAULT_COUNT; i++)
        printf("fault  %-28s %s\n", fault_infos[i].name, fault_infos[i].text);
    for (const struct sim_case *c = sim_cases; c; c = c->next)
        printf("case   %-28s %s\n", c->name, c->text);
    for (uint32_t i = 1; (name = mutant_name(i, &text)); i++)
        printf("mutant %-28s %s\n", name, text);
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments a = {.threads = 1};
    if (argc < 2 || parse(argc, argv, &a) < 0)
        return usage();
    world_catch_signals();
    if (set_mutant(a.mutant) < 0)
        return 2;
    const char *only = a.count > 1 ? a.words[1] : NULL;
    if (!strcmp(argv[1], "seeds"))
        return cmd_seeds(&a);
    if (!strcmp(argv[1], "seed"))
        return cmd_seed(&a);
    if (!strcmp(argv[1], "shrink"))
        return cmd_shrink(&a);
    if (!strcmp(argv[1], "file"))
        return cmd_file(&a);
    if (!strcmp(argv[1], "cases"))
        return cmd_cases(&a);
    if (!strcmp(argv[1], "list"))
        return cmd_list();
    if (!strcmp(argv[1], "gate") && a.count)
        return gate_run(a.words[0], false, a.cases, only) > 0;
    if (!strcmp(argv[1], "measure") && a.count)
        return gate_run(a.words[0], true, false, only) > 0;
    return usage();
}
