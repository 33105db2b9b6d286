/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which deliberate bug is switched on: one of the core's or the disk's (raft/raft_mutants.def) or one of the
 * simulator's own master (sim_mutants.def). SIM_MUTANT(name) is the constant 0 but in builds with -DRAFT_MUTANTS.
 */
#pragma once

#include <stdint.h>

#include "raft/raft_mutant.h"

#ifdef RAFT_MUTANTS
enum sim_mutant {
    SIM_MUTANT_none,
#define SIM_MUTANT_DEF(name, text) SIM_MUTANT_##name,
#include "sim_mutants.def"
#undef SIM_MUTANT_DEF
    SIM_MUTANT_count,
};
extern enum sim_mutant sim_mutant;
#define SIM_MUTANT(name) (sim_mutant == SIM_MUTANT_##name)
#else
#define SIM_MUTANT(name) 0
#endif

/* All of them, numbered from 1: name and text, NULL behind the last (and always, in builds without mutants). */
const char *mutant_name(uint32_t number, const char **ret_text);

/* Switch one on, 0: none. */
void mutant_set(uint32_t number);

/* The name of the one that is on, or NULL. */
const char *mutant_on(void);
