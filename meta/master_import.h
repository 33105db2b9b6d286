/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of under file systems on their way into the namespace. A request that meets a directory whose names are not all
 * known waits here; the under file system is asked, what it says becomes ordinary batches, and the request is tried again.
 *
 *      one name    asked for by itself (ufs_stat), unless the directory was asked for LOOKS_MAX names within a second
 *      directory   listed page by page; names go in batches of at most IMPORT_NAMES to the sink, one listing batch at a
 *                  time and with a pause as long as it took: half of the scribe's time is left to others. A page is read
 *                  while the one before it is imported, and not before: memory is two pages a listing
 *
 * Single flight: whoever asks for the same joins. A listing that failed half way leaves what it has brought; the directory
 * stays partial, the waiting ones get its error.
 *
 * Owner: the loop of master_ufs.h, but for what is marked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/text.h"
#include "meta/master_ufs.h"

#define IMPORT_NAMES 500 /* in a batch */

struct master_import; /* opaque */

/* --- what is brought --- */
struct master_import_name {
    struct text name; /* in the namespace: escaped */
    struct text key;  /* within the directory's key; empty: as the name; "/": it is the empty one */
    enum ufs_type type;
    struct ufs_identity identity;
    uint32_t mode, uid, gid; /* mode 0: the store has none */
};

struct import_directory;
struct import_look;

struct master_import_batch {
    uint64_t directory;
    bool complete;       /* behind these the directory has no other names */
    struct loop_job job; /* the sink's, as the next */
    void *sink;
    uint32_t count;

    /* Private. */
    uint32_t room;
    struct list link;
    struct import_directory *of;
    struct import_look *look; /* a batch of this look; NULL: of a listing */
    struct buf texts;
    uint64_t began_ns;

    struct master_import_name names[];
};

/* Where a directory lies. */
struct master_import_place {
    uint64_t directory;
    /* Results. */
    uint32_t mount;
    struct text prefix;  /* key below the mount's URI: "" or with a final '/'; copied by master_import_placed() */
    struct loop_job job; /* the sink's, as the next */
    void *sink;

    /* Private. */
    struct import_directory *of;
};

/* The namespace, as far as importing sees it. Both run on the loop and are answered there, once, not within the call. */
struct master_import_sink {
    void *arg;
    /* Take names in: by master_import_done() with 0 when they can be seen (committed), or an error. */
    void (*import)(void *arg, struct master_import_batch *b);
    /* Say where a directory lies: by master_import_placed(). */
    void (*place)(void *arg, struct master_import_place *p);
};
void master_import_done(struct master_import_batch *b, int error);
void master_import_placed(struct master_import_place *p, int error);

/* --- who waits --- */
struct master_import_wait {
    uint64_t directory;
    struct text name; /* of one name; empty: all of them. Stays in place until done */
    uint64_t deadline_ns;
    const _Atomic bool *cancelled; /* may be NULL */
    struct loop *loop;             /* job is posted there when it is over */
    struct loop_job job;           /* run is the caller's */
    /* 0: look again. -ENOENT: there is no such name (or directory) in the under file system. -CV_DEADLINE, -CV_CANCELLED,
     * -CV_STOPPING, -CV_BUSY too many wait; -CV_UFS_FAILED and others: of the under file system, logged, see
     * master_ufs_failing(). */
    int result;

    /* Private. */
    struct list link, all;
    struct master_import *import;
    struct loop_job ask;
    uint64_t began_ns;
    bool of_listing;
};

int master_import_new(struct master_ufs *ufs, const struct master_import_sink *sink, struct master_import **ret);
struct master_import *master_import_free(struct master_import *m); /* after the loop has ended. NULL is fine */
DEFINE_CLEANUP(struct master_import *, master_import_free)

/* Any thread: give it away until its job runs. */
void master_import_want(struct master_import *m, struct master_import_wait *w);

/* Not on the loop: everybody who waits is answered, nothing new begins. What is with the sink must come back. */
void master_import_stop(struct master_import *m);
/* Then: wait until it has. Before master_ufs_stop(). */
void master_import_end(struct master_import *m);

/* Any thread, since start. */
struct master_import_stats {
    uint64_t looks, listings, listings_failed, names, names_skipped;
    uint64_t waiting; /* requests, now */
};
void master_import_get_stats(const struct master_import *m, struct master_import_stats *ret);
