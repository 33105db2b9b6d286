/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digest: what a range of this log comes to, as one number, so that logs of journals that run can be held against each
 * other over the network (cv raft compare). It is the hash chain of journal_format.h begun anew at the range's first entry,
 * over what is read back from the disk: two logs that differ before the range, or in how they were compacted, still agree
 * on it, and the first entry where they differ is found by halving.
 *
 * Along the way every entry is held against its own checksum and the chain that was stored with it: what was changed or
 * rotted on one disk only shows as damaged, wherever in the log it lies. (The check at start reads the end only.)
 */
#pragma once

#include "io/loop.h"
#include "raft/journal_driver.h"

enum { DIGEST_ENTRIES_MAX = 1024 };

struct journal_digest {
    /* Asked for; of it at most DIGEST_ENTRIES_MAX entries, and what is committed here. from 0: only where the log stands. */
    uint64_t from, to;
    uint64_t first, last, commit; /* of this log: there, on disk, known to be committed */
    uint64_t covered;             /* from..covered is what digest is of; from - 1: nothing */
    uint64_t digest;
    uint64_t before;  /* the stored chain of entry from - 1 */
    uint64_t damaged; /* the first entry that is not what was once written; 0: none up to covered */
};

/* Read the range. first, last and commit must be set. May block; any thread. Errors: -ENOENT from is not in this log (any
 * more); -ENOMEM. */
int journal_digest_read(const struct journal_store *s, struct journal_digest *d);

/* As JSON, with the node it is of. */
int journal_digest_write(const struct journal_digest *d, uint64_t node, struct buf *out);

/* The same by a file thread of a loop. from..to set; done() on the loop, never inside the call, with *job all filled. */
struct journal_digest_job {
    struct journal_digest digest;
    void (*done)(struct journal_digest_job *job, int result);

    /* Private. */
    struct io_op op;
    const struct journal_store *store;
};
void journal_digest_start(struct loop *loop, struct journal_driver *driver, struct journal_digest_job *job);
