/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which sessions hold descriptors of which files. A descriptor that left cannot be recalled: the file is charged until all
 * sessions said they closed it, or ended; a lost connection means nothing. So that a restarted worker still knows, every
 * change is appended to DIR/exports (not synced: after another boot nobody holds anything).
 *
 * Any thread; functions marked BLOCKING write that file or ask the store.
 */
#pragma once

#include "worker/block_store.h"

struct worker_exports;

/* dir: the data directory. Reads what was held before; what nobody holds any more is released. BLOCKING. */
int worker_exports_open(const char *dir, struct block_store *s, struct worker_exports **ret);
struct worker_exports *worker_exports_free(struct worker_exports *x);

/* Around block_export(): while anyone is between begin and end the file is not released. end: file_id 0: it came to
 * nothing. BLOCKING. Errors of end: -CV_BUSY too many (1,000,000); then the descriptor must not be given out. */
void worker_exports_begin(struct worker_exports *x);
int worker_exports_end(struct worker_exports *x, uint64_t session, uint64_t file_id);

/* Does this session hold this file? */
bool worker_exports_has(struct worker_exports *x, uint64_t session, uint64_t file_id);

/* The session closed its descriptors of this file; file_id 0: the session ended. BLOCKING. */
int worker_exports_release(struct worker_exports *x, uint64_t session, uint64_t file_id);

/* Sessions that hold something, up to max of those above after, ascending. Returns how many. */
uint32_t worker_exports_sessions(struct worker_exports *x, uint64_t after, uint64_t *out, uint32_t max);

uint32_t worker_exports_count(struct worker_exports *x);
