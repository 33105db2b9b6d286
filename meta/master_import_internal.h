/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the import: a directory somebody waits for is a struct import_directory, found by its inode. It has the look-ups
 * of single names that run, and at most one listing. Directories nobody waits for are kept a while for their counters, so
 * that a walk over many names becomes a listing. Everything on the thread ufs but for what is atomic. Each line calls those
 * below it:
 *
 *      master_import.c            who comes, and what becomes of it
 *      master_import_listing.c    all names of a directory        master_import_look.c  single names
 *      master_import_directory.c  directories, those who wait, batches
 */
#pragma once

#include <stdatomic.h>

#include "meta/master_import.h"
#include "meta/master_import_names.h"

#define IMPORT_BUCKETS 4096u

struct listing {
    struct import_directory *of;
    struct list link; /* queued, until it may begin */
    struct ufs_op op;
    bool begun, asking, more, importing; /* importing: a batch is with the sink */
    bool progress;                       /* this page has brought something */
    bool failed;
    int error;
    struct buf after; /* last key seen */
    struct import_names names;
    struct master_import_batch *filling;
    struct list ready;    /* master_import_batch.link */
    uint32_t ready_names; /* in ready and filling */
    struct loop_timer pause;
};

struct import_look {
    struct import_directory *of;
    struct list link, waits;
    struct ufs_op op;
    struct buf name, key; /* key: below the mount's URI */
    bool asking, beside;  /* beside: there is a directory of that name too */
    bool other;           /* what was found has another name */
    struct ufs_entry found;
};

struct import_directory {
    struct master_import *import;
    struct list link, idle; /* bucket; idle */
    uint64_t inode;
    bool placing, placed; /* placed: mount and prefix are known */
    struct master_import_place place;
    uint32_t mount;
    struct buf prefix;
    struct list parked; /* those who wait for that */
    struct list looks;
    struct list waits; /* for the listing */
    struct listing *listing;
    uint64_t window_ns; /* when counting began */
    uint32_t window_looks;
};

struct master_import {
    struct master_ufs *ufs;
    struct loop *loop;
    struct master_import_sink sink;
    struct list buckets[IMPORT_BUCKETS];
    struct list idle;             /* the longest idle first */
    struct list queued;           /* listings */
    struct list waits;            /* all */
    uint32_t idle_count, running; /* listings begun */
    struct loop_timer tick;
    _Atomic bool stopping;
    _Atomic uint32_t active; /* looks and listings */
    _Atomic uint64_t looks, listings, listings_failed, names, names_skipped, waiting;
};

/* --- master_import_directory.c */
struct import_directory *import_find(struct master_import *m, uint64_t inode);        /* NULL: not here */
struct import_directory *import_find_or_add(struct master_import *m, uint64_t inode); /* NULL: no memory */
/* It may have nothing to do now. */
void import_idle(struct import_directory *d);
void import_directory_free(struct import_directory *d);
/* What keys of its names begin with, below the mount's URI. */
struct text import_prefix_of(const struct import_directory *d);

void import_wait_end(struct master_import_wait *w, int result);
void import_waits_end(struct list *waits, int result);
/* What an under file system says, as those who wait see it: that it cannot be reached, or lets us in no more, is not said
 * of the master. */
int import_said(int result);
/* Cancelled: we stop, or the mount is gone: then the namespace knows best. */
int import_result_of(const struct master_import *m, int result);

/* Names to be imported: filled (errors: -ENOMEM), sealed, given to the sink, which answers by master_import_done(). */
struct master_import_batch *import_batch_new(struct import_directory *d, uint32_t room);
void import_batch_free(struct master_import_batch *b);
int import_batch_add(struct master_import_batch *b, struct text name, struct text key, const struct ufs_entry *e);
void import_batch_seal(struct master_import_batch *b);
void import_batch_give(struct master_import_batch *b);

/* --- master_import_listing.c */
/* Queue one. Errors: -ENOMEM. */
int import_listing_start(struct import_directory *d);
/* Begin those that may run by now. */
void import_listing_next(struct master_import *m);
void import_listing_fail(struct listing *l, int error);
void import_listing_imported(struct listing *l, const struct master_import_batch *b, int error);

/* --- master_import_look.c */
/* Let w wait for its name alone. */
void import_look_for(struct import_directory *d, struct master_import_wait *w);
void import_look_imported(struct import_look *k, int error);
