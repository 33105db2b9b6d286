/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One mount: the kernel's requests in, libcurvine calls out.
 *
 *      /dev/fuse --read--> channel thread --table--> handler --curvine_submit--> library
 *          ^                    |                                                   |
 *          +------- writev -----+ (answered on the spot: mapped reads, local ones)  |
 *          +------- writev ---------------------------------------------- done() ---+
 *
 * Channel threads (cvfs_channel.c) read requests into slots of a shared memfd and never wait for anything but the kernel;
 * answers leave on the thread that has them: the library's, or the channel's own. Node ids are inode numbers (the mounted
 * directory is node 1), file handles are numbers of a table: nothing the kernel holds is a pointer of ours.
 *
 * Every operation ends by the deadline, and earlier when who asked is killed (cvfs_interrupt.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "client/curvine.h"
#include "conf/metrics.h"
#include "fuse/cvfs_options.h"

struct cvfs; /* opaque: fuse/cvfs_internal.h */

struct cvfs_config {
    const struct cvfs_options *options; /* stays */
    struct metrics *metrics;
    struct curvine *client;
    uint64_t root; /* inode that is mounted */
    int fd;        /* /dev/fuse of a mount that has not answered FUSE_INIT; stays the caller's */
    /* The kernel let go of the mount (error 0: it was unmounted), or the descriptor failed. Once, on a channel thread. */
    void (*ended)(void *arg, int error);
    void *arg;
};

/* Make it. Errors: -ENOMEM, -EMFILE, -ENOSPC no memory for the request buffers. */
int cvfs_new(const struct cvfs_config *config, struct cvfs **ret);

/* Answer FUSE_INIT and begin to serve. Logs errors. -EPROTO: the kernel speaks another protocol. */
int cvfs_start(struct cvfs *fs);

/* Serve no more: requests under way get a second, then they are cancelled; then all files that are still open are
 * released, so that what was written to them is kept. Unmount first: new requests stay unanswered from here on. */
void cvfs_stop(struct cvfs *fs);

/* Stopped, or never started. NULL is fine; returns NULL. */
struct cvfs *cvfs_free(struct cvfs *fs);
DEFINE_CLEANUP(struct cvfs *, cvfs_free)
