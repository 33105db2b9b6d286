/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data directory of a master: which cluster it belongs to, and that one process at a time uses it. An empty
 * directory is never taken for a new master's: a disk that was lost must not come back as an empty name space.
 * So directories are formatted explicitly (cv-master format, cv local up).
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "base/uuid.h"

struct master_dir {
    char *path, *rows; /* the directory, absolute; the database in it */
    char *state;       /* name of the latter in the former */
    int lock_fd;       /* holds the lock; -1: not open */
    struct uuid cluster;
    uint64_t master; /* random id of the directory */
};

#define MASTER_DIR_NONE ((struct master_dir){.lock_fd = -1})

/* Make path (whose parent must exist) the data directory of a master of this cluster, with an empty name space.
 * Errors: -CV_ALREADY_FORMATTED; -ENOTEMPTY something else is in it; -CV_LOCKED. */
int master_dir_format(const char *path, struct uuid cluster);

/* Make path the data directory of a master of this new cluster, with the name space of a backup (a directory with
 * MANIFEST.cv, which is verified while it is copied). *ret_index: the log entry its log must go on behind; why gets the cause.
 * Errors: as master_dir_format(); -CV_BAD_CHECKSUM, -CV_BAD_FORMAT the backup is damaged. */
int master_dir_restore(const char *path, struct uuid cluster, const char *backup, struct buf *why, uint64_t *ret_index);

/* Lock it and read who it is. Close with master_dir_close().
 * Errors: -CV_NOT_FORMATTED; -CV_LOCKED; -CV_BAD_CHECKSUM, -CV_BAD_FORMAT ident is damaged; -CV_FORMAT_TOO_NEW;
 * -CV_LOG_DIVERGED its state was condemned. */
int master_dir_open(const char *path, struct master_dir *ret);
void master_dir_close(struct master_dir *d);

/* The state (its name in the directory) is not what the cluster's is: note why, so that no start uses it again. Survives
 * a power cut when it returns. */
int master_dir_condemn(const char *path, const char *state, const char *why);

/* The state here goes on beside this journal: noted the first time, held against that later. A journal that was thrown away
 * comes back under another id, and what its log will say need not begin with what is here. applied: of the state; without
 * one any journal will do. Errors: -CV_WRONG_INCARNATION another journal's; -CV_BAD_FORMAT; errno. */
int master_dir_bind(const char *path, uint64_t journal, uint64_t applied);

/* Which cluster a directory belongs to, without the lock. Errors: as master_dir_open(). */
int master_dir_cluster(const char *path, struct uuid *ret);

/* Throw the state away and make path the directory of a new master of the same cluster, with an empty name space. Can be
 * repeated when it was cut short. Errors: -CV_NOT_FORMATTED; -CV_LOCKED; those of master_dir_open(). */
int master_dir_rejoin(const char *path);

/* From the next open on the database is the one in directory name. Survives a power cut when it returns. Errors: -EINVAL
 * not a plain name; -ENOENT there is none. */
int master_dir_switch(const char *path, const char *name);
