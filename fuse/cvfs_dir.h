/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open directory: one page of the listing, and what the cookies (d_off) that were given out mean.
 *
 * A cookie is a number that grows with every entry this handle was ever given, never used twice before a rewinddir(): it
 * means "behind the entry that got this number", and for that the name is kept. The master lists by name, so going on
 * behind a name is right whatever was made or removed meanwhile: nothing that stays is shown twice or left out. Names
 * take DIR_LOG_BYTES at most; from then on only the last of each page is kept, and seekdir() into the middle of such a page
 * counts from its start.
 *
 *      cookie 0        the start: the listing begins anew
 *      cookie 1, 2     behind ".", ".."
 *      cookie 3...     behind a name
 *
 * Owner: whoever has begun an operation on it (cvfs_ops_dir.c lets one in at a time).
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/text.h"
#include "client/curvine.h"

#define CVFS_DIR_LOG_BYTES (4u << 20)
#define CVFS_DOT_COOKIE    2u

struct cvfs_dir_entry {
    uint64_t inode;
    uint32_t type, name_at, name_bytes;
    struct curvine_attr attr; /* attr.inode 0: none */
};

struct cvfs_dir {
    pthread_mutex_t lock; /* guards the two below */
    bool busy;
    struct list waiting; /* cvfs_request.link */

    /* the page: entry i has cookie cookie + 1 + i */
    struct cvfs_dir_entry *entries;
    struct buf names;
    uint32_t count, room;
    uint64_t from; /* the cookie it was asked for ... */
    uint32_t skip; /* ... is in front of this entry */
    uint64_t cookie;
    bool valid, end;
    uint64_t asked_ns; /* clock_ns() before it was asked for */
    uint32_t lease_ms;

    /* the log of cookies */
    struct buf log; /* u8 length, name */
    struct cvfs_dir_mark {
        uint64_t cookie;
        size_t at;
    } * marks;
    uint32_t mark_count, mark_room, since_mark;
    uint64_t last;        /* cookie given out last */
    size_t log_bytes_max; /* CVFS_DIR_LOG_BYTES */
};

int cvfs_dir_new(struct cvfs_dir **ret);
struct cvfs_dir *cvfs_dir_free(struct cvfs_dir *d);

/* Where the entry behind cookie is in the page: its index (count at the end of the last page), or -1: fetch. */
int64_t cvfs_dir_find(const struct cvfs_dir *d, uint64_t cookie);

/* What to fetch for cookie: the name to list from ("" for the start). Forgets everything when cookie is 0.
 * Errors: -EINVAL this cookie was never given out. after borrows until the page is taken. */
int cvfs_dir_after(struct cvfs_dir *d, uint64_t cookie, struct curvine_text *after);

/* The page that was fetched for cookie is q's result. Errors: -ENOMEM. */
int cvfs_dir_take(struct cvfs_dir *d, uint64_t cookie, const struct curvine_request *q, uint64_t asked_ns);
