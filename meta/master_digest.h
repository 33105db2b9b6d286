/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests: does every master have the same state? Each keeps the hash of the row stream it applied (meta_digest) for the
 * last entries. Now and then the leader proposes one of its own as an entry of the log (raft.md 6.5); who has another
 * value for the same index has another state, and must not go on.
 *
 * Owner: the scribe.
 *
 *      payload, 24 bytes, little-endian: u32 version (1), u32 0, u64 log index, u64 digest of the state there
 */
#pragma once

#include <stdint.h>

#include "base/text.h"

#define MASTER_DIGEST_SIZE 24
#define MASTER_DIGESTS     4096 /* entries behind the one that carries it; more is never in flight */

struct master_digests {
    struct {
        uint64_t index, digest;
    } ring[MASTER_DIGESTS]; /* by index; 0: none */
};

/* The state at index has this digest. */
void master_digests_note(struct master_digests *d, uint64_t index, uint64_t digest);

void master_digest_encode(uint64_t index, uint64_t digest, uint8_t out[MASTER_DIGEST_SIZE]);

/* Compare one that came with the log. Returns 0, also when we do not know ours at that index (we began later).
 * Errors: -CV_LOG_DIVERGED, with what was compared; -CV_BAD_FORMAT; -CV_FORMAT_TOO_NEW. */
struct master_digest_pair {
    uint64_t index, ours, theirs;
};
int master_digests_check(const struct master_digests *d, struct text payload, struct master_digest_pair *ret);
