/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MUTANT(name): is the deliberate bug of raft_mutants.def switched on? The constant 0 but in builds of the simulator
 * with -DRAFT_MUTANTS, which define the variable.
 */
#pragma once

#ifdef RAFT_MUTANTS
enum raft_mutant {
    RAFT_MUTANT_none,
#define RAFT_MUTANT(name, place, text) RAFT_MUTANT_##name,
#include "raft/raft_mutants.def"
#undef RAFT_MUTANT
    RAFT_MUTANT_count,
};
extern enum raft_mutant raft_mutant; /* set before raft_new, by tests only */
#define MUTANT(name) (raft_mutant == RAFT_MUTANT_##name)
#else
#define MUTANT(name) 0
#endif
