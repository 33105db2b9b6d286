/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_mutants.h"

#include <stddef.h>

#ifdef RAFT_MUTANTS
enum raft_mutant raft_mutant;
enum sim_mutant sim_mutant;

static const struct {
    const char *name, *text;
    enum raft_mutant core;
    enum sim_mutant own;
} mutants[] = {
    {NULL, NULL, 0, 0},
#define RAFT_MUTANT(name, place, text) {#name, text, RAFT_MUTANT_##name, 0},
#include "raft/raft_mutants.def"
#undef RAFT_MUTANT
#define SIM_MUTANT_DEF(name, text) {#name, text, 0, SIM_MUTANT_##name},
#include "sim_mutants.def"
#undef SIM_MUTANT_DEF
};

static uint32_t on;

const char *mutant_name(uint32_t number, const char **ret_text)
{
    if (number >= sizeof(mutants) / sizeof(mutants[0]))
        return NULL;
    *ret_text = mutants[number].text;
    return mutants[number].name;
}

void mutant_set(uint32_t number)
{
    raft_mutant = mutants[number].core;
    sim_mutant = mutants[number].own;
    on = number;
}

const char *mutant_on(void)
{
    return mutants[on].name;
}
#else
const char *mutant_name(uint32_t number, const char **ret_text)
{
    return NULL;
}

void mutant_set(uint32_t number)
{
}

const char *mutant_on(void)
{
    return NULL;
}
#endif
