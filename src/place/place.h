/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement: which workers keep a block. Everybody who has the same map computes the same answer, so the master keeps no
 * record of clean blocks. Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights: Mosko/Schindelhauer's
 * logarithmic method): when a member joins or leaves, only its own share of the blocks moves. Integers only: the same on
 * every machine. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct place_member {
    uint64_t worker; /* id, never reused */
    uint32_t weight; /* share of the blocks, e.g. capacity in GiB; 0 counts as 1 */
    bool in;         /* takes part in placement: changes rarely, by command or after a long absence */
    bool up;         /* answers now: those who ask may skip it, its blocks stay its own */
};

/* The first max members that are in, best first, for block index of an inode. Returns their number. */
unsigned place_order(const struct place_member *members, unsigned count, uint64_t inode, uint32_t index, unsigned max,
                     uint64_t *ret);
