/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Did you mean": how far two words are apart, in insertions, removals, changes and swaps of neighbours (the optimal
 * string alignment distance), and whether that is near enough to suggest.
 */
#pragma once

#include "base/text.h"

/* Words longer than this are never near anything. */
#define NEAREST_WORD_MAX 64

/* Keeps the nearest of the words offered one by one. Start with {.wanted = ...}. */
struct nearest {
    struct text wanted;
    const char *word; /* best so far, NULL when none is near: borrowed from the offer */
    uint32_t distance;
};

void nearest_offer(struct nearest *n, const char *word);
