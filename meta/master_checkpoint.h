/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: the state of a master at one log index as a directory of its own beside the state in use (hard links, so
 * it costs what changed since), with MANIFEST.cv (wire/manifest.h). What they are for: a peer that lags behind the log,
 * a backup.
 *
 *      DIR/checkpoint-<index>   the journal's: shared by all receivers, removed by the journal
 *      DIR/backup-<id>          of one "cv backup", removed when it is over, or when the master starts
 *
 * Blocks (reads every file once for the checksums): file threads only.
 */
#pragma once

#include "base/uuid.h"
#include "meta/master_store.h"
#include "wire/manifest.h"

#define MASTER_CHECKPOINT_PREFIX "checkpoint-"
#define MASTER_BACKUP_PREFIX     "backup-"

/* Make one in directory dir (of the master), named prefix and 16 hexadecimal digits: id, or with id 0 the index. It is there
 * whole, synced, or not at all. *ret: its manifest, to be freed. Errors: errno; those of the store. */
int master_checkpoint_make(struct master_store *store, struct uuid cluster, const char *dir, const char *prefix,
                           uint64_t id, struct manifest *ret);

/* Path of a checkpoint, malloc'ed. NULL: no memory. */
char *master_checkpoint_path(const char *dir, const char *prefix, uint64_t id);

/* Remove every directory of dir whose name begins with prefix, and what an interrupted make left. */
void master_checkpoint_remove_all(const char *dir, const char *prefix);
