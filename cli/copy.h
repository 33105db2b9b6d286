/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on their way: between this host and the namespace, or within the namespace. Several at once, and large ones in
 * several parts at once, by threads with one buffer each. A file appears under its name when it is whole, never before:
 * it is written beside it (".NAME.cv-XXXX") and renamed. Holes stay holes. An interrupt (SIGINT, SIGTERM) ends it and
 * removes what is unfinished.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "cli/progress.h"
#include "client/curvine.h"

/* Into the namespace: each file waits for its names and its content to be in the journal; many share one sync of it. */
#define COPY_THREADS_IN  32
#define COPY_THREADS_OUT 8
#define COPY_THREADS_MAX 64
#define COPY_PART        (16u << 20) /* of a large file, one thread's share */
#define COPY_BUFFER      (1u << 20)

enum copy_place { COPY_HERE, COPY_CLUSTER };

/* Where something is: a path of this host or of the namespace ("/data/x"). */
struct copy_end {
    enum copy_place place;
    const char *path;
};

struct copier;

/* sync: each file is on disk before it counts as done. Failures go to progress.
 * Errors: -ENOMEM, -EAGAIN no threads. */
int copier_new(struct curvine *cv, struct progress *progress, unsigned threads, bool sync, struct copier **ret);

/* Copy one regular file with its permissions and time; waits while many are under way. Texts are copied.
 * Errors: -ENOMEM; -ECANCELED interrupted: no more, please. */
int copier_file(struct copier *c, struct copy_end from, struct copy_end to, uint64_t size, uint32_t mode,
                uint64_t mtime_ns);

/* Wait for everything and free. Returns -ECANCELED when it was interrupted. */
int copier_end(struct copier *c);

/* From now on SIGINT and SIGTERM only set what this returns; a second one kills. */
void copy_catch_interrupts(void);
bool copy_interrupted(void);

/* Everything from a stream into a new file of the namespace. Errors: errno, of writing. */
int copy_stream(struct curvine *cv, int fd, const char *to, uint32_t mode, bool sync, struct progress *progress);
