/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mutant gate (raft.md 9.4): a simulator that stays green proves nothing until it has seen known bugs. Each mutant
 * must be noticed by its scripted case, and by random seeds as often as when it was measured, or nearly: a rate that
 * halves means that a nemesis or a check became blind. Two rates are kept: by harm alone (two leaders, a committed entry
 * gone, a stale read: what the faults really brought out) and by any check (a rule is broken long before harm is done).
 * A rate too low to be told from chance is not held against the file: such mutants rest on their case and on the
 * other rate.
 *
 * The file, one line a mutant: name, scripted case, seeds, killed per 1000 by harm, killed per 1000 by any check (of
 * at most 1000 seeds). The same seeds are run again, so without changes the rates are exactly those.
 */
#include "sim_run.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "sim_case.h"
#include "sim_mutants.h"

enum { SEEDS_FIRST = 200, SEEDS_MOST = 3000, SEEDS_ANY = 1000, KILLS_WANTED = 40, KILLS_GATED = 8 };

static uint64_t cpu_ns;

struct gate_line {
    char name[48], case_name[48];
    uint32_t seeds;
    double harm, any; /* per 1000 */
};

static uint64_t kills(uint64_t from, uint64_t to, bool harm_only)
{
    static const char *const settings[] = {"harm_only=1", NULL};
    struct run_options o = {.threads = 2, .quiet = true, .settings = harm_only ? (const char **)settings : NULL};
    struct run_totals t;
    run_seeds(from, to, &o, &t);
    cpu_ns += t.cpu_ns;
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
    uint64_t few = min(l->seeds, (uint32_t)SEEDS_ANY);
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

/* Is the rate at least half of what it was? Prints it. Rates that are chance are not measured again. */
static bool rate_holds(const char *kind, double was, uint64_t seeds, bool harm_only)
{
    double expected = was * (double)seeds / 1000;
    if (expected < KILLS_GATED) {
        printf("  %s %6.1f (rare)  ", kind, was);
        return true;
    }
    if (expected > KILLS_WANTED) { /* fewer seeds tell as well */
        seeds = (uint64_t)(KILLS_WANTED * 1000 / was) + 1;
        expected = was * (double)seeds / 1000;
    }
    uint64_t killed = kills(1, seeds, harm_only);
    bool holds = (double)killed >= expected / 2;
    printf("  %s %6.1f, was %6.1f%s", kind, (double)killed * 1000 / (double)seeds, was, holds ? "" : " WEAKENED");
    return holds;
}

/* Returns whether the mutant was noticed as it should be. */
static bool check_line(const struct gate_line *l, bool cases_only)
{
    bool by_case = case_kills(l);
    if (!by_case)
        printf("%-32s SURVIVES its scripted case %s\n", l->name, l->case_name);
    if (cases_only)
        return by_case;
    printf("%-30s of 1000 seeds:", l->name);
    bool harm = rate_holds("harm", l->harm, l->seeds, true);
    bool any = rate_holds("any", l->any, min(l->seeds, (uint32_t)SEEDS_ANY), false);
    putchar('\n');
    fflush(stdout);
    return by_case && harm && any;
}

int gate_run(const char *file, bool measure_anew, bool cases_only, const char *only)
{
    const char *name, *text;
    int bad = 0;
    uint32_t count = 0;
    FILE *f = fopen(file, "r");
    if (!mutant_name(1, &text)) {
        fprintf(stderr, "sim: this build has no mutants\n");
        return 1;
    }
    if (!freopen("/dev/null", "w", stderr)) /* what assertions say of mutants is no news */
        return 1;
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
        printf("%u mutants, %d not noticed as they should be; %.1f s CPU\n", count, bad, (double)cpu_ns / 1e9);
    return bad;
}
