/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running many seeds, telling what failed, replaying one with its story, shrinking it, and the gate that shows that
 * known bugs are noticed.
 */
#pragma once

#include "sim_world.h"

struct run_options {
    const char **settings; /* params_set() after the seed's draw, NULL-terminated */
    uint32_t threads;
    uint32_t trace_lines; /* of a failing seed; UINT32_MAX: all */
    bool quiet;
    bool stop_at_first;
};

/* Totals over seeds. */
struct run_totals {
    uint64_t seeds, failed, harm;
    uint64_t virtual_us, cpu_ns;
    struct counters counters;
    uint64_t first_failed; /* lowest seed */
};

/* Run seeds from..to; each failure is printed with the command that replays it. Errors: -EINVAL a setting. */
int run_seeds(uint64_t from, uint64_t to, const struct run_options *o, struct run_totals *ret);

/* One seed, with the last lines of its story when it fails. Returns whether it passed. */
bool run_replay(uint64_t seed, const struct run_options *o);

/* Look for fewer faults, fewer nodes, less time that still fail the same check, and print the command. */
void run_print_command(uint64_t seed, const char *settings);
void run_shrink(uint64_t seed, const struct run_options *o);

void run_print_totals(const struct run_totals *t);

/* Every mutant: killed by its scripted case, and by random seeds at no less than half the rate in the file
 * (tests/sim/mutants.txt). measure: write the file anew. Returns how many survived or weakened. */
int gate_run(const char *file, bool measure, bool cases_only, const char *only);
