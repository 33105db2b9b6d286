/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a history linearizable? That is: is there one moment for each operation, between its call and its answer, so that all
 * answers, errors and "no such name" too, are those of one namespace that nobody else touched meanwhile?
 *
 * Histories of different keys are independent, so each is checked by itself. A key is a directory with two names, 0 and 1:
 * enough for creating, removing, renaming (one onto the other), looking up, listing, and setting a value by inode.
 *
 * Algorithm: J. Wing, C. Gong, Testing and verifying concurrent objects, 1993, in the just-in-time form of G. Lowe, Testing
 * for linearizability, 2017: go through calls and answers in order of time with the set of all configurations (state, which of
 * the operations under way have happened). An answer keeps those in which its operation has happened, after letting any of
 * the operations under way happen in any order. None left: no order explains the answers. Costs grow with what is under
 * way at once on one key, not with the length.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LINEAR_UNKNOWN INT32_MIN /* result: no answer; it may happen at any time from its call on, or never */
#define LINEAR_OPEN    64        /* operations under way at once on one key */

enum linear_type {
    LINEAR_CREATE, /* name -> inode; -EEXIST */
    LINEAR_UNLINK, /* name; -ENOENT */
    LINEAR_LOOKUP, /* name -> inode, value; -ENOENT */
    LINEAR_RENAME, /* name onto the other one; -ENOENT */
    LINEAR_SET,    /* inode, value; -ENOENT: only if it is under neither name */
    LINEAR_LIST,   /* -> inode of name 0, other: inode of name 1; 0: not there */
    LINEAR_TYPES
};

extern const char *const linear_names[LINEAR_TYPES];

struct linear_op {
    uint64_t call_ns, answer_ns;  /* one clock for all */
    uint64_t inode, other, value; /* a new inode has value 0 */
    int32_t result;               /* 0, -errno, LINEAR_UNKNOWN */
    uint32_t key, client;
    uint8_t type, name; /* name: 0, 1 */
};

/* Check the operations of one key, in any order (they get sorted by call). Returns 0, or
 *   -EILSEQ   not linearizable; *ret_bad: the answer that nothing explains
 *   -E2BIG    too many operations under way at once, or too many configurations: cannot say
 *   -EINVAL   an operation is answered before it is called, or is no such type; *ret_bad: it
 *   -ENOMEM   */
int linear_check(struct linear_op *ops, size_t count, size_t *ret_bad);
