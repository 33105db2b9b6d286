/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts as the daemon tells of them: to clients without secrets, to workers with them, to the thread ufs. The rows
 * themselves are the core's.
 */
#pragma once

#include "meta/master_core.h"
#include "meta/master_ufs.h"
#include "wire/message.h"

/* Counts changes of the mounts, over leaders too. [R], while leading. */
uint64_t master_mounts_version(const struct master_core *c);

/* All of them, with secrets. Texts go into texts. [R] Errors: -ENOMEM. */
int master_mounts_all(const struct master_core *c, struct buf *texts, struct wire_list *ret);

/* What to open, for master_ufs_set_describe(); arg: the core. Takes the lock. Errors: -ENOENT; -ENOMEM. */
int master_mounts_describe(void *arg, uint32_t mount, struct rec_mount *ret, struct buf *texts);

/* The same list with "***" for secrets, and with why a mount fails now. Errors: -ENOMEM. */
int master_mounts_mask(struct master_ufs *ufs, const struct wire_list *mounts, struct buf *texts,
                       struct wire_list *ret);

/* Is the value of a parameter of this name nobody's business? (ufs_params.def; unknown ones are.) */
bool master_mounts_is_secret(struct text param);
