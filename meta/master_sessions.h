/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When each session was last heard of. Sessions themselves are replicated (the core's); this is what their leader
 * remembers, in memory: a session that is not in the table was last heard of when we began to lead. A leader ends
 * sessions only after it has led for longer than the session timeout.
 *
 * Any thread; one lock (clients renew every few seconds, not with every request).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct master_sessions; /* opaque */

int master_sessions_new(uint32_t sessions_max, struct master_sessions **ret);
struct master_sessions *master_sessions_free(struct master_sessions *s);
DEFINE_CLEANUP(struct master_sessions *, master_sessions_free)

/* Forget all: we begin to lead. */
void master_sessions_reset(struct master_sessions *s);

/* It renewed. Errors: -CV_BUSY the table is full (then it counts as heard of when we began to lead). */
int master_sessions_heard(struct master_sessions *s, uint64_t session, uint64_t now_ns);

/* When it was last heard of; 0: not since the reset. */
uint64_t master_sessions_last(struct master_sessions *s, uint64_t session);

/* It ended. */
void master_sessions_forget(struct master_sessions *s, uint64_t session);

uint32_t master_sessions_count(struct master_sessions *s);
