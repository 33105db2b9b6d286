/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mutant gate (raft.md 9.4): a simulator that stays green proves nothing until it has seen known bugs. Each mutant
 * must be noticed by its scripted case, and by random seeds as often as when it was measured, or nearly: a rate that
 * halves means that a nemesis or a check became blind. What counts by default is harm, not broken rules: a rule is
 * broken at once and shows little about the faults.
 *
 * The file, one line a mutant: name, scripted case, seeds, killed per 1000 by harm, killed per 1000 by any check.
 * The same seeds are run again, so without changes the rates are exactly those.
 */
#include "sim_run.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "sim_case.h"
#include "sim_mutants.h"

enum { SEEDS_FIRST = 200, SEEDS_MOST = 10000, KILLS_WANTED = 40, KILLS_GATED = 8 };

struct gate_line {
    char name[48], case_name[48];
    uint32_t seeds;
    double harm, any; /* per 1000 */
};

static uint64_t kills(uint64_t from, uint64_t to, bool harm_only)
{
    static const char *const settings[] = {"harm_only=1", NULL};
    struct run_options o = {.threads = 1, .quiet = true, .settings = harm_only ? (const char **)settings : NULL};
    struct run_totals t;
    run_seeds(from, to, &o, &t);
    return t.failed;
}

/* Enough seeds to know the rate by harm, within reason. */
static void measure(struct gate_line *l)
{
    uint64_t seeds = SEEDS_FIRST, killed = kills(1, seeds, true);
    while (killed < KILLS_WANTED && seeds < SEEDS_MOST) {
        uint64_t more = min(seeds * 3, (uint64_t)SEEDS_MOST);
        killed += kills(seeds + 1, more, true);
        seeds = more;
    }
    l->seeds = (uint32_t)seeds;
    l->harm = (double)killed * 1000 / (double)seeds;
    uint64_t few = min(seeds, (uint64_t)1000);
    l->any = (double)kills(1, few, false) * 1000 / (double)few;
}

static bool case_kills(const struct gate_line *l)
{
    const struct sim_case *c = case_find(l->case_name);
    if (!c)
        return false;
    struct world *w cleanup(world_free_p) = world_new();
    return !case_run(w, c, NULL);
}

static bool find_line(FILE *f, const char *name, struct gate_line *ret)
{
    char text[512];
    if (!f)
        return false;
    rewind(f);
    while (fgets(text, sizeof(text), f))
        if (text[0] != '#' &&
            sscanf(text, "%47s %47s %u %lf %lf", ret->name, ret->case_name, &ret->seeds, &ret->harm, &ret->any) == 5 &&
            !strcmp(ret->name, name))
            return true;
    return false;
}

/* Returns whether the mutant was noticed as it should be. */
static bool check_line(const struct gate_line *l, bool cases_only)
{
    bool by_case = case_kills(l);
    if (!by_case)
        printf("%-32s SURVIVES its scripted case %s\n", l->name, l->case_name);
    if (cases_only)
        return by_case;
    double expected = l->harm * l->seeds / 1000;
    uint64_t killed = kills(1, l->seeds, true);
    bool weak = expected >= KILLS_GATED && (double)killed < expected / 2;
    printf("%-32s %8.1f of 1000 seeds, measured %8.1f%s\n", l->name, (double)killed * 1000 / l->seeds, l->harm,
           weak                     ? "  WEAKENED"
           : expected < KILLS_GATED ? "  (rare: by its scripted case)"
                                    : "");
    fflush(stdout);
    return by_case && !weak;
}

int gate_run(const char *file, bool measure_anew, bool cases_only, const char *only)
{
    const char *name, *text;
    int bad = 0;
    uint32_t count = 0;
    FILE *f = fopen(file, "r");
    uint64_t started = clock_thread_cpu_ns();
    if (!mutant_name(1, &text)) {
        fprintf(stderr, "sim: this build has no mutants\n");
        return 1;
    }
    for (uint32_t i = 1; (name = mutant_name(i, &text)); i++) {
        if (only && strcmp(only, name) != 0)
            continue;
        count++;
        struct gate_line l = {0};
        bool known = find_line(f, name, &l);
        mutant_set(i);
        if (measure_anew) {
            if (!known)
                snprintf(l.case_name, sizeof(l.case_name), "%s", name);
            snprintf(l.name, sizeof(l.name), "%s", name);
            measure(&l);
            printf("%-32s %-32s %6u %8.1f %8.1f\n", l.name, l.case_name, l.seeds, l.harm, l.any);
            fflush(stdout);
            bad += !case_kills(&l);
        } else if (!known) {
            printf("%-32s is not in %s\n", name, file);
            bad++;
        } else {
            bad += !check_line(&l, cases_only);
        }
    }
    mutant_set(0);
    if (f)
        fclose(f);
    if (!measure_anew)
        printf("%u mutants, %d not noticed as they should be; %.1f s CPU\n", count, bad,
               (double)(clock_thread_cpu_ns() - started) / 1e9);
    return bad;
}
