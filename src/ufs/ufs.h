/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Under file systems (UFS): the storage behind the cache, one ops table, one file each: file:// (ufs_file.c) and
 * s3:// (ufs_s3.c).
 *
 *      struct ufs *u;
 *      r = ufs_open(loop, "s3://bucket/prefix", params, n, &u, message, sizeof(message));
 *      ufs_get(u, &op, key, identity, offset, length, piece, done);
 *
 * A ufs belongs to one loop; everything runs on it and nothing blocks it. An operation is a struct ufs_op, embedded in
 * what it serves: started by a call below, ended by its done function, exactly once, later, on the loop. op->result is 0
 * or a negative code, and then op->message says in words what was asked of whom, what came back and what to do about it.
 *
 * Keys are relative to the URI's prefix, without a leading '/', and are what the store calls the object. Names in the
 * namespace are ufs_escape.h's business. Failing requests are retried inside with backoff and jitter as far as that can
 * help (connections, 429, 5xx), until op->deadline_ns; every request sent is counted by verb.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "io/loop.h"

struct ufs;

/* What an object was when it was looked at: enough to notice that it is another one now. */
struct ufs_identity {
    char etag[72];     /* without quotes; "" when the store has none */
    uint64_t mtime_ns; /* since 1970 */
    uint64_t size;
};

bool ufs_identity_equal(const struct ufs_identity *a, const struct ufs_identity *b);

enum ufs_type { UFS_FILE = 1, UFS_DIRECTORY = 2, UFS_SYMLINK = 3 };

struct ufs_entry {
    struct text key; /* of a listing: whole key below the prefix, a directory's with a final '/'; borrowed */
    enum ufs_type type;
    struct ufs_identity identity;
    uint32_t mode, uid, gid; /* permission bits and owners; mode 0: the store has none */
};

struct ufs_param {
    const char *name, *value; /* e.g. "endpoint", "http://127.0.0.1:9000": see ufs_params.def */
};

struct ufs_op {
    struct ufs *ufs;
    void (*done)(struct ufs_op *op);
    uint64_t deadline_ns; /* by clock_ns(), set by the caller before starting; 0: none */
    /* Results. */
    int result;
    char message[400];      /* why, when result < 0 */
    struct ufs_entry entry; /* stat, get, put: of the object; key unset */
    uint64_t bytes;         /* moved */
    /* The caller's functions: ufs_list: one entry; ufs_get: one piece at a time, in order, from offset on. A negative
     * result ends the operation with that code. */
    int (*each)(struct ufs_op *op, const struct ufs_entry *entry);
    int (*piece)(struct ufs_op *op, const void *p, size_t n);
    bool more;        /* list: the page ended before the listing did: go on after the last key */
    void *state;      /* the implementation's, while it runs */
    struct list link; /* all that run on a ufs */
};

/* Parse and check without asking the store. message receives what is wrong, in words. params are copied.
 * Errors: -EPROTONOSUPPORT unknown scheme; -EINVAL malformed URI, unknown, repeated, missing or bad parameter; -ENOMEM. */
int ufs_open(struct loop *loop, const char *uri, const struct ufs_param *params, unsigned n, struct ufs **ret,
             char *message, size_t message_size);

/* Cancel what runs, wait for it, free, then call closed (if given) on the loop. */
void ufs_close(struct ufs *u, void (*closed)(void *arg), void *arg);

/* Is the store there, may we list and read? The first request of a mount; errors name the failing call and the fix. */
void ufs_check(struct ufs *u, struct ufs_op *op, void (*done)(struct ufs_op *));

/* What is behind a key. A key that only is a prefix of others is a directory. Errors: -ENOENT. */
void ufs_stat(struct ufs *u, struct ufs_op *op, struct text key, void (*done)(struct ufs_op *));

/* Entries of a directory (prefix: "" or with a final '/'), or of everything below it when recursive, in the order of
 * keys, behind the key after (empty: from the start). max 0: to the end; otherwise about as many, then op->more.
 * An object that is named like the prefix itself ("a/") is listed when it has content; an empty one is only a marker.
 * Streamed page by page: memory does not grow with the listing. */
void ufs_list(struct ufs *u, struct ufs_op *op, struct text prefix, struct text after, uint32_t max, bool recursive,
              int (*each)(struct ufs_op *, const struct ufs_entry *), void (*done)(struct ufs_op *));

/* Bytes of an object, only if it is still the one identified (NULL: whatever is there).
 * Errors: -ENOENT; -CV_STALE_IDENTITY it is another object by now; -CV_UFS_FAILED. */
void ufs_get(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *identity, uint64_t offset,
             uint64_t length, int (*piece)(struct ufs_op *, const void *, size_t), void (*done)(struct ufs_op *));

/* Replace or make a whole object from size bytes of a file. identity: only if the object is still that one (zero etag and
 * size 0: only if there is none); NULL: whatever is there. The new identity is in op->entry.
 * Errors: -CV_STALE_IDENTITY, -CV_UFS_FAILED, errno of reading fd. */
void ufs_put(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *identity, int fd,
             uint64_t offset, uint64_t size, void (*done)(struct ufs_op *));

/* Remove an object. One that is not there is success. */
void ufs_delete(struct ufs *u, struct ufs_op *op, struct text key, void (*done)(struct ufs_op *));

/* End an operation early: done runs with -ECANCELED unless it was faster. */
void ufs_cancel(struct ufs_op *op);

/* Requests sent by verb since ufs_open, and bytes of bodies received and sent. Read from the loop. */
enum ufs_verb { UFS_GET, UFS_HEAD, UFS_PUT, UFS_DELETE, UFS_LIST, UFS_POST, UFS_VERBS };
struct ufs_counters {
    uint64_t requests[UFS_VERBS], retries, failures;
    uint64_t bytes_in, bytes_out;
};
const struct ufs_counters *ufs_counters(const struct ufs *u);
const char *ufs_verb_name(enum ufs_verb verb);
