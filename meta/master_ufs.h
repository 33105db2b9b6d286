/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread "ufs": the master's hands in the under file systems. It asks them before a mount is made (preflight) and
 * keeps them open for listings (master_import.h); data never passes through it.
 *
 *      check      ufs_open + ufs_check of something that is no mount yet: its refusal comes back in words
 *      mounts     opened at the first use, from what the namespace says of them then; one that is gone or is another one
 *                 by now is closed when it is found so
 *      failing    the last thing a mount's under file system said when it refused, until something works again
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "io/loop.h"
#include "ufs/ufs.h"
#include "wire/message.h"

struct master_ufs; /* opaque */

/* io_backend: enum loop_backend. Errors: -ENOMEM; those of loop_new(). */
int master_ufs_new(uint32_t io_backend, struct master_ufs **ret);
struct master_ufs *master_ufs_free(struct master_ufs *u); /* after stop, or when it never ran. NULL is fine */
DEFINE_CLEANUP(struct master_ufs *, master_ufs_free)

int master_ufs_start(struct master_ufs *u);

/* Not on its thread: refuse what comes and cancel preflights that run. Then, when nobody asks any more: close everything,
 * end the thread. */
void master_ufs_refuse(struct master_ufs *u);
void master_ufs_stop(struct master_ufs *u);

struct loop *master_ufs_loop(struct master_ufs *u);

/* --- preflight --- */
struct master_ufs_check {
    /* Results; message: what failed, and what to do. */
    int result;
    char message[400];
    void (*done)(struct master_ufs_check *c); /* on the thread ufs; c is the caller's again, free with _free */
    void *arg;

    /* Private. */
    struct master_ufs *u;
    struct loop_job job;
    struct list link;
    struct ufs *ufs;
    struct ufs_op op;
    char *uri;
    struct ufs_param *params;
    unsigned count;
};

/* Copies what it needs. Errors: -ENOMEM; -EINVAL a text with a zero byte in it, too many parameters. */
int master_ufs_check_new(struct text uri, const struct wire_list *params, struct master_ufs_check **ret);
struct master_ufs_check *master_ufs_check_free(struct master_ufs_check *c);

/* Any thread: give it away until done(), which comes within some seconds also when nobody answers. */
void master_ufs_check(struct master_ufs *u, struct master_ufs_check *c);

/* --- mounts, on the thread ufs --- */

/* Set before start: what to open for this mount; texts go into texts. Errors: -ENOENT no such mount (any more). */
void master_ufs_set_describe(struct master_ufs *u,
                             int (*describe)(void *arg, uint32_t mount, struct rec_mount *ret, struct buf *texts),
                             void *arg);

/* Its under file system, opened if it is not; to be used in this turn. Errors: of describe; -CV_UFS_FAILED it
 * cannot be opened (noted as failing). */
int master_ufs_of(struct master_ufs *u, uint32_t mount, struct ufs **ret);

/* Any thread: a mount may be gone: at the next use those that are get closed, and what runs on them cancelled. */
void master_ufs_mounts_changed(struct master_ufs *u);

/* How it went: result < 0 with the message of the operation, or 0: it works. -ENOENT, -ENOTDIR and cancellation are no failure. */
void master_ufs_note(struct master_ufs *u, uint32_t mount, int result, const char *message);

/* Any thread: why it does not answer now, appended; nothing when it does. Errors: -ENOMEM. */
int master_ufs_failing(struct master_ufs *u, uint32_t mount, struct buf *text);

struct master_ufs_stats {
    uint64_t requests, failures, retries; /* sent to stores by this thread */
    uint32_t open, failing;               /* mounts */
};
void master_ufs_get_stats(struct master_ufs *u, struct master_ufs_stats *ret); /* any thread */
