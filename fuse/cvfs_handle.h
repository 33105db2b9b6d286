/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files and directories by number. The kernel gets generation << 32 | index: a number of something that was closed
 * finds nothing. Chunks of handles are never given back, so looking one up takes no lock.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CVFS_HANDLE_CHUNK  256u
#define CVFS_HANDLE_CHUNKS 4096u /* 1 Mi handles */

struct curvine_file;
struct cvfs_dir;

struct cvfs_handle {
    _Atomic uint32_t generation; /* odd: open */
    uint32_t next_free;
    uint64_t inode;
    uint32_t flags;            /* open(2) */
    struct curvine_file *file; /* of a file */
    struct cvfs_dir *dir;      /* of a directory */
};

struct cvfs_handles {
    struct cvfs_handle *_Atomic chunks[CVFS_HANDLE_CHUNKS];
    pthread_mutex_t lock; /* guards all below, and next_free */
    uint32_t free, made, open;
};

void cvfs_handles_init(struct cvfs_handles *h);
void cvfs_handles_fini(struct cvfs_handles *h); /* what handles point at is the caller's */

/* Any thread. Errors: -ENFILE, -ENOMEM. The handle is all zero but its number. */
int cvfs_handle_new(struct cvfs_handles *h, uint64_t *ret_number, struct cvfs_handle **ret);
/* Any thread. NULL: no such handle is open. */
struct cvfs_handle *cvfs_handle_get(struct cvfs_handles *h, uint64_t number);
/* Any thread. The number means nothing from now on. */
void cvfs_handle_release(struct cvfs_handles *h, uint64_t number);

uint32_t cvfs_handles_open(struct cvfs_handles *h);
/* The number of the next open handle at or behind *position, which moves on; false: there are no more. */
bool cvfs_handle_next(struct cvfs_handles *h, uint32_t *position, uint64_t *ret_number);
