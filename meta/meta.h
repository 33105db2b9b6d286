/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespace of a master, as a pure state machine: names, inodes, sessions, open handles. It does no I/O, reads no
 * clock and starts no thread; the daemon around it (master_*) brings requests, times, log positions and the base.
 *
 *          request --> meta_read (network thread)                        answer
 *                  --> meta_prepare (network thread) --> meta_execute (scribe) ------> answer when committed
 *                            |  ^ rows not in memory          |
 *                            v  |                             v meta_batch_close
 *                         meta_fetch <---- base            payload --> journal --> meta_batch_committed
 *
 *      overlay   rows of batches not committed yet       (removals are rows too: tombstones)
 *      delta     committed rows, last value wins         meta_delta_seal
 *      sealed    the delta being written to the base     meta_delta_written
 *      base      the metadata database: struct meta_base, exactly the state at its applied index
 *
 * Readers look through the layers from the top. Beside them stands the tree: nodes and names that have been used,
 * decoded enough to be fast; a pure cache of the layers under one memory budget, anything in it may leave at any time.
 *
 * The base is read only by meta_new() and meta_fetch(), never under a lock and never by the scribe. What a request got
 * from the base it carries with it (struct meta_request); it stays valid until the next meta_delta_written().
 *
 * LOCKS. The daemon owns one reader-writer lock; each function below says what it needs:
 *      [R] held shared at least, any thread        [W] held exclusively (the scribe, for a group of requests at a time)
 *      [-] none
 * Functions on one request are called by one thread at a time, whoever has the request.
 *
 * BATCHES are numbered upward from 1 by this process and are proposed and committed in that order; the number of one that
 * was undone is not used again. Every answer,
 * also an error or "no such name", tells in request.depends the highest batch it rests on; 0: committed state only. The
 * daemon lets it go when the ack mode allows.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "meta/meta_format.h"
#include "wire/message.h"

struct meta;
struct redo_row; /* meta/meta_redo.h */

/* --- the base ------------------------------------------------------------------------------------------------- */

/* What the core asks of the metadata database. Any thread, concurrently. memory: answer from memory or say
 * -CV_NOT_PREPARED; otherwise it may block. Other errors pass through to whoever waits for the request. */
struct meta_base {
    void *context;
    /* Append the value of a row to *value. -ENOENT: there is none. */
    int (*get)(void *context, enum meta_family family, struct text key, bool memory, struct buf *value);
    /* Give each row whose key begins with prefix and is >= from, in bytewise order, until each() returns false.
     * from begins with prefix. */
    int (*scan)(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                bool (*each)(void *arg, struct text key, struct text value), void *arg);
};

/* --- life ------------------------------------------------------------------------------------------------------ */

struct meta_options {
    uint64_t memory_bytes;    /* of the tree; 0: 1 GiB; at most 32 GiB */
    uint32_t whole_dir_names; /* directories up to this are loaded whole; 0: 1000 */
    uint32_t id_grant;        /* ids asked for at a time; 0: 2^20 */
    uint32_t slots;           /* of a session that asks for none or more; 0: 64; at most META_SLOTS_MAX */
    uint32_t lease_ms;        /* given in answers; 0: 1000 */
    uint32_t level_max; /* feature level a new namespace begins with, and no later one is read; 0: META_FEATURE_LEVEL */
    uint32_t block_shift; /* of new files: blocks of 1 << block_shift bytes; 0: META_BLOCK_SHIFT; 12 to 30 */
    uint32_t replicas;    /* of written blocks; 0: 1; at most META_REPLICAS_MAX */
};

/* Build from the base: its state row, sessions, slots, grants; of the tree only the root. The base may be empty (no
 * state row): then log entries from the first on bring it to life, or META_OP_format does. Blocks in the base. [-]
 * Errors: -ENOMEM; -CV_BAD_FORMAT, -CV_FORMAT_TOO_NEW: a row of the base; errors of the base. */
int meta_new(const struct meta_options *o, const struct meta_base *base, struct meta **ret);
struct meta *meta_free(struct meta *m); /* nothing in flight, no sealed delta out. NULL is fine */

uint32_t meta_incarnation(const struct meta *m); /* as executed. [R] */
uint32_t meta_level(const struct meta *m);       /* the feature level, as executed. [R] */
uint32_t meta_acks(const struct meta *m);        /* bit 1 << enum mount_ack of each mount, as executed. [R] */
bool meta_is_formatted(const struct meta *m);    /* there is a root. [R] */
uint64_t meta_applied(const struct meta *m);     /* highest log index applied, in memory. [R] */

/* --- requests -------------------------------------------------------------------------------------------------- */

/* How an operation runs. */
enum meta_class {
    META_READ,   /* meta_read, on any thread */
    META_SCRIBE, /* meta_prepare on any thread, meta_execute on the scribe; may change rows or handles */
};

/* OP(name, class, head): the requests of messages_meta.def served here; head 1: begins with an op_head. */
// clang-format off
#define META_OPS_(OP)                                                                                                  \
    OP(lookup, READ, 1) OP(walk, READ, 1) OP(readlink, READ, 1) OP(readdir, READ, 1) OP(getattr, READ, 1)              \
    OP(access, READ, 1) OP(statfs, READ, 1) OP(getxattr, READ, 1) OP(listxattr, READ, 1)                               \
    OP(mkdir, SCRIBE, 1) OP(mknod, SCRIBE, 1) OP(symlink, SCRIBE, 1) OP(link, SCRIBE, 1) OP(unlink, SCRIBE, 1)         \
    OP(rmdir, SCRIBE, 1) OP(rename, SCRIBE, 1) OP(setattr, SCRIBE, 1) OP(setxattr, SCRIBE, 1)                          \
    OP(removexattr, SCRIBE, 1) OP(create, SCRIBE, 1) OP(open, SCRIBE, 1) OP(close, SCRIBE, 1)                          \
    OP(layout, READ, 1) OP(write_grant, SCRIBE, 1) OP(write_commit, SCRIBE, 1)                                         \
    OP(mount_add, SCRIBE, 1) OP(mount_remove, SCRIBE, 1) OP(mount_list, READ, 1) OP(mount_set, SCRIBE, 1)              \
    OP(sync, READ, 1) OP(reassert, SCRIBE, 1) OP(upgrade, SCRIBE, 1)                                                   \
    OP(session_open, SCRIBE, 0) OP(session_close, SCRIBE, 0) OP(origin, READ, 0) OP(blocks_check, READ, 0)
// clang-format on

/* INNER(name): what the master asks of itself, all on the scribe like the others (meta_request_inner). */
// clang-format off
#define META_INNER_OPS_(INNER)                                                                                         \
    INNER(format)      /* arg: incarnation. Make the root. -EEXIST: there is one */                                    \
    INNER(incarnation) /* arg: the cluster's, later than the state's: ids and epochs begin above what was given before */   \
    INNER(grant)       /* ask for more ids; happens by itself in other requests while half a grant is left */          \
    INNER(end_session) /* arg: session. As session_close: it did not renew in time */                                  \
    INNER(import)      /* names of an under file system: meta_request_import() */                                      \
    INNER(sweep)       /* names it has no longer: meta_request_sweep() */                                              \
    INNER(worker)      /* put a worker's row: meta_request_worker(). Nothing happens when it says so already */        \
    INNER(fence)       /* rows of a session that ended get a new epoch */                                              \
    INNER(purge)       /* arg: an orphan; take away some of its rows or names, in the end itself. -EBUSY: it is open */
// clang-format on

enum meta_inner {
#define INNER(name) META_OP_##name,
    META_INNER_OPS_(INNER)
#undef INNER
};

/* Who asks. Filled from the message by meta_request_decode(); the daemon may change it then (root squash). */
struct meta_caller {
    uint64_t session;
    uint32_t uid, gid;
    const uint8_t *groups; /* group_count packed u32 */
    uint32_t group_count;
    uint32_t pid;
};

/* The message and the answer of the request, one member per operation: q->message.lookup.name, q->answer.lookup.attr. */
union meta_message {
    struct rec_op_head head;
#define OP(name, class, head) struct msg_##name name;
    META_OPS_(OP)
#undef OP
};
union meta_answer {
    struct msg_lookup_answer lookup;
    struct msg_walk_answer walk;
    struct msg_readlink_answer readlink;
    struct msg_readdir_answer readdir;
    struct msg_getattr_answer getattr;
    struct msg_statfs_answer statfs; /* totals of the cache are the daemon's: it fills them in before encoding */
    struct msg_getxattr_answer getxattr;
    struct msg_listxattr_answer listxattr;
    struct msg_mkdir_answer mkdir;
    struct msg_mknod_answer mknod;
    struct msg_symlink_answer symlink;
    struct msg_link_answer link;
    struct msg_unlink_answer unlink;
    struct msg_rmdir_answer rmdir;
    struct msg_rename_answer rename;
    struct msg_setattr_answer setattr;
    struct msg_create_answer create;
    struct msg_open_answer open;
    struct msg_layout_answer layout;
    struct msg_write_grant_answer write_grant;
    struct msg_write_commit_answer write_commit;
    struct msg_origin_answer origin;
    struct msg_blocks_check_answer blocks_check;
    struct msg_mount_add_answer mount_add;       /* reason, error: the daemon's (preflight) */
    struct msg_mount_remove_answer mount_remove; /* likewise */
    struct msg_sync_answer sync;                 /* generation and early are the daemon's to fill in */
    struct msg_reassert_answer reassert;
    struct msg_upgrade_answer upgrade;
    struct msg_mount_list_answer mount_list;     /* with secrets: the daemon masks them, and says what failed */
    struct msg_session_open_answer session_open; /* timeout_ms and incarnation are the daemon's to fill in */
};

#define META_NEEDS_MAX 8192

/* What a request must know of an under file system before it can go on: whether the directory has this name; name empty:
 * all it has. key: the directory's, within the mount's URI: empty or with a final '/'; valid until the request runs again.
 * name: as here, so perhaps escaped; it borrows from the message. */
struct meta_unlisted {
    uint64_t directory;
    uint32_t mount;
    struct text key, name;
};
#define META_ABSENT_MAX 4

/* A row, or a range of rows, that was not in memory. Private to the core. */
struct meta_need {
    uint8_t table;
    bool done, absent;                  /* asked of the base; a row: there is none */
    bool scan, keys_only, end;          /* a range; without values; nothing follows the rows fetched */
    uint16_t key_n, prefix_n;           /* the key, or where a scan begins; its first bytes that all keys share */
    uint32_t limit, rows;               /* of a scan */
    uint32_t key_at, value_at, value_n; /* in the request's store; a scan's rows stand one behind another */
};

/* Rows of an inode made for a session that has ended: those with epochs from .. to. Private to the core. */
struct meta_fence {
    uint64_t inode, from, to;
};

/* One request on its way. The daemon keeps them in a pool, meta_request_init() once, meta_request_reset() between uses:
 * buffers stay. What the message was decoded from must stay in place as long as the request runs. */
struct meta_request {
    /* --- yours to read (caller: to change, before the first meta_prepare or meta_read) */
    uint16_t type;    /* MSG_* ; 0: an inner operation */
    uint8_t op_class; /* enum meta_class */
    struct meta_caller caller;
    union meta_message message;
    int error;         /* the outcome: 0 or a negative code */
    uint64_t depends;  /* batch the answer rests on; 0: committed */
    bool changed;      /* it put rows into batch `depends` (not: an error, a repetition, an open) */
    bool replayed;     /* the same (session, slot, sequence) was executed before: the answer was built again */
    uint32_t mount;    /* that it was about, 0: none */
    uint8_t acks;      /* bit 1 << enum mount_ack of each inode it was about */
    uint32_t prepares; /* how often it went back to be prepared; for metrics */
    struct meta_unlisted unlisted; /* after -CV_NOT_LISTED */
    union meta_answer answer;

    /* --- the core's */
    const struct meta_op *op;
    uint64_t arg;                         /* of an inner operation */
    const struct meta_worker_row *worker; /* of META_OP_worker */
    struct meta_import *import;           /* of META_OP_import and META_OP_sweep */
    struct meta_fence fence;              /* of META_OP_fence */
    struct meta_unlisted absent[META_ABSENT_MAX];
    uint32_t absent_count;
    uint64_t generation; /* of the base, that the fetched rows belong to */
    struct meta_need *needs;
    uint32_t need_count, need_room, need_hint;
    struct buf store; /* keys and values of needs */
    struct buf data;  /* bytes the answer points to */
    uint8_t *texts;   /* texts of inode rows while they are worked on */
    uint32_t texts_used;
};

void meta_request_init(struct meta_request *q);
void meta_request_reset(struct meta_request *q);
void meta_request_fini(struct meta_request *q);

/* Decode the body of a message of META_OPS_. [-] Errors: -CV_UNKNOWN_MESSAGE not one of ours; -CV_BAD_MESSAGE. */
int meta_request_decode(struct meta_request *q, uint16_t type, const void *body, size_t n);

/* Make an inner request. [-] */
void meta_request_inner(struct meta_request *q, enum meta_inner what, uint64_t arg);

/* Make the inner request that puts a worker's row. The row stays in place as long as the request runs. Errors in q->error:
 * -EINVAL a text is too long; -ENOSPC. [-] */
void meta_request_worker(struct meta_request *q, const struct meta_worker_row *row);

/* --- names of under file systems
 *
 * A directory below a mount with an under file system is listed completely, or partly, or not at all. What is not found in
 * one of the last two kinds makes meta_read(), meta_prepare() and meta_execute() return -CV_NOT_LISTED, with q->unlisted
 * saying what to ask. The daemon asks, and
 *      it has the name(s)   META_OP_import, then the request again from meta_read() or meta_prepare() on
 *      it has not           meta_unlisted_absent(q), then again; also for "answer with what is here", when it is down
 *      it cannot be asked   answers the request with the reason
 * What is told by meta_unlisted_absent() holds until meta_request_reset(). Mounts that take changes are listed
 * whole, never asked for one name: what was removed here may still be there. */
void meta_unlisted_absent(struct meta_request *q); /* [-] */

#define META_IMPORT_NAMES 1000u

struct meta_import_name {
    struct text name;
    struct text key; /* what it is called there, within the key of its directory; empty: the same */
    struct text etag;
    bool directory;
    uint32_t mode, uid, gid; /* permissions and owner; mode 0: 0644, directories 0755, owner of the directory */
    uint64_t size, mtime_ns;
};

/* A part of a listing. Stays in place as long as the request runs. */
struct meta_import {
    uint64_t directory;

    const struct meta_import_name *names; /* import */
    uint32_t count;                       /* at most META_IMPORT_NAMES; names that cannot be kept are skipped */
    bool complete;                        /* with these, all its names are here */

    /* sweep: names behind `after` (after_n 0: from the start). Did the listing have this one? Quick, and it may be called
     * more than once for a name, under the lock, on any thread. */
    uint8_t after_n, after[META_NAME_MAX];
    bool (*listed)(void *arg, struct text name);
    void *arg;

    uint32_t created, replaced, removed; /* results */
    uint32_t kept, skipped;              /* names left alone because they were changed here; names that are no good */
    bool end; /* sweep: there are no names behind `next`; else copy that to `after` and go on */
    uint8_t next_n, next[META_NAME_MAX];
};

/* Make the inner requests: take names over; remove names the listing did not have, up to META_IMPORT_NAMES looked at. A
 * whole listing is: imports of its pages, sweeps, an import with complete (it may have no names). A single look-up is an
 * import of one name. q->error: -ESTALE the directory or its mount is gone; -ENOTDIR; -EINVAL. [-] */
void meta_request_import(struct meta_request *q, struct meta_import *what);
void meta_request_sweep(struct meta_request *q, struct meta_import *what);

/* Run a META_READ request. [R] Returns 0: done, q->error and the answer are set; -CV_NOT_PREPARED: leave the lock,
 * meta_fetch(), and call again; -CV_NOT_LISTED: see above. Never blocks. */
int meta_read(const struct meta *m, struct meta_request *q);

/* Find out what a META_SCRIBE request needs that is not in memory. [R] Returns 0: give it to the scribe;
 * -CV_NOT_PREPARED: leave the lock, meta_fetch(), and call again; -CV_NOT_LISTED: see above. Never blocks. */
int meta_prepare(const struct meta *m, struct meta_request *q);

/* Get the missing rows from the base into the request. [-] With memory only what the base has at hand: -CV_NOT_PREPARED
 * says that the rest needs a thread that may block. 0: all there, call meta_read or meta_prepare again. Errors: of the
 * base; give up the request. */
int meta_fetch(const struct meta_base *base, struct meta_request *q, bool memory);

/* Put what the request fetched into the tree, for those who ask next. [W] Worth calling after a read that had to fetch
 * (meta_execute does it by itself); may come after the answer left. */
void meta_install(struct meta *m, struct meta_request *q);

/* Run a META_SCRIBE request. [W] wall_ns: the wall clock. Returns
 *   0                  done: q->error, q->answer, q->depends, q->changed are set
 *   -CV_NOT_PREPARED   something it needs left memory meanwhile: back to meta_prepare
 *   -CV_NOT_LISTED     see above
 *   -CV_BUSY           no granted id is left, or a limit on what is in flight: again after the next commit */
int meta_execute(struct meta *m, struct meta_request *q, uint64_t wall_ns);

/* Append the body of the answer message to b (nothing when the operation has none or failed). [-] After meta_execute
 * or meta_read, outside of the lock. Errors: -ENOMEM, -CV_FRAME_TOO_BIG. */
int meta_answer_encode(const struct meta_request *q, struct buf *b);

/* --- leading --------------------------------------------------------------------------------------------------- */

/* We lead from now on: ids start above the highest committed grant; epoch (the term) becomes part of open handles. All
 * entries of earlier terms are applied. Nothing is purged before meta_allow_purge(). [W] */
void meta_lead(struct meta *m, uint32_t epoch);

/* No room: what adds to the namespace answers -ENOSPC from now on (retries of what was done get its answer); what removes or
 * finishes something is taken. [W] */
void meta_set_full(struct meta *m, bool full);

/* The re-assertion period is over: orphans nobody holds open may be purged from now on. [W] */
void meta_allow_purge(struct meta *m);

/* Has every session of before told us its handles (MSG reassert)? Then that period is over. [R] */
bool meta_all_told(const struct meta *m);

/* A client of the leader before us still holds this handle (flags: as it was opened): what MSG reassert does for each of
 * its handles. Whether the inode exists is not checked. [W] Errors: -CV_SESSION_ENDED; -EEXIST: the handle is known; -ENFILE;
 * -ENOMEM. */
int meta_reassert(struct meta *m, uint64_t session, uint64_t inode, uint64_t handle, uint32_t flags);

/* We lead no longer: forget open handles and ids. Batches not committed stay until committed or undone. [W] */
void meta_follow(struct meta *m);

/* Give the next inner request worth running (more ids; grants of an ended session; an orphan to purge), if there is one. [W] Call it when the scribe
 * has nothing else to do, and after commits; run it like any other request. */
bool meta_next_inner(struct meta *m, struct meta_request *q);

/* --- batches --------------------------------------------------------------------------------------------------- */

/* The payload of a batch. Counted, because delta rows point into it. */
struct meta_payload {
    uint64_t batch; /* its number */
    uint32_t op_count;
    uint32_t n;          /* bytes */
    uint32_t references; /* any thread, atomic */
    void *block;         /* the core's */
    uint8_t bytes[];
};
void meta_payload_ref(struct meta_payload *p);   /* any thread */
void meta_payload_unref(struct meta_payload *p); /* any thread. NULL is fine */

/* What is in the batch that is being filled: 0 operations: none is. [R] */
struct meta_open_batch {
    uint64_t number;          /* the next to close */
    uint32_t op_count, bytes; /* bytes: about what its payload will have */
};
struct meta_open_batch meta_batch_now(const struct meta *m);

/* Close the batch and give its payload to propose, with a reference of the caller's. NULL: nothing changed since the last
 * one. [W] */
struct meta_payload *meta_batch_close(struct meta *m);

/* Our batches up to and including `upto` are committed; index: log index of that one. Rows move to the delta, effects are
 * told. Also for batches of a time when we led, which still made it. [W] */
void meta_batch_committed(struct meta *m, uint64_t upto, uint64_t index);

/* Batches from `from` on will not be committed (the log was cut, or we were told so): take them back, the open one too.
 * [W] */
void meta_batch_undo(struct meta *m, uint64_t from);

uint64_t meta_batch_last_committed(const struct meta *m); /* [R] */

/* Side effects that committing released: told, not done. */
enum meta_effect_kind {
    META_EFFECT_PURGED = 1, /* inode is gone for good. a 1: workers may have blocks of it, to be deleted; 0: none has */
    META_EFFECT_TRUNCATED, /* a: new size; epoch: what is behind it, of older epochs, may be deleted; 0: never written */
    META_EFFECT_ORPHANED,  /* inode lost its last name */
    META_EFFECT_SESSION_OPENED,
    META_EFFECT_SESSION_CLOSED, /* session */
    META_EFFECT_MOUNTS,         /* one came or went: inode; its id in a */
    META_EFFECT_WORKERS,        /* a worker's row changed: inode is its id */
};
struct meta_effect {
    enum meta_effect_kind kind;
    uint64_t inode, session, a, epoch;
};
/* Called within meta_batch_committed() for each, in order. NULL: not interested. [W] */
void meta_on_effect(struct meta *m, void (*effect)(void *arg, const struct meta_effect *e), void *arg);

/* Who keeps new blocks: place() gives up to max worker ids for a block, best first, and returns how many (0: nobody takes
 * data: the grant fails with -CV_NO_SPACE). near: the worker beside the writer, 0: none. It is called within
 * meta_execute() of a write_grant, so it may not block; wanted copies: options.replicas, or what the inode says. Without
 * this nothing can be written. [W] */
void meta_on_place(struct meta *m,
                   uint32_t (*place)(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max,
                                     uint64_t *ret),
                   void *arg);
/* In a later incarnation: whether a worker has asked about all it holds since that began (blocks_check). A block written
 * before is granted anew only then: until then -CV_NO_SPACE. Called as place() is, with its argument. [W] */
void meta_on_checked(struct meta *m, bool (*checked)(void *arg, uint64_t worker));

/* --- following and replay ------------------------------------------------------------------------------------------ */

/* Apply a committed batch that is not ours; nothing of ours may be in flight. No effects are told. Takes no reference of
 * the caller's: the bytes are copied. [W]
 * Errors: -CV_BAD_FORMAT, -CV_FORMAT_TOO_NEW: nothing was applied; stop the node. -ENOMEM. */
int meta_apply(struct meta *m, struct text payload, uint64_t index);

/* The log has an entry at index that is not a batch (a leader's no-op, a configuration). [W] */
void meta_skip(struct meta *m, uint64_t index);

/* --- writing the delta to the base ------------------------------------------------------------------------------- */

struct meta_delta;

/* How much is waiting to be written: seal at 64 MiB, 200,000 operations or 10 s. [R] */
struct meta_delta_load {
    uint64_t rows, operations, bytes; /* bytes: memory held by rows and payloads */
    uint64_t from_applied;            /* log index the base (or the sealed delta) ends at */
    bool sealed;                      /* one is being written: no other can be sealed */
};
struct meta_delta_load meta_delta_load(const struct meta *m);

/* Take the committed rows so far out for writing, with the state row that belongs to them. NULL: there are none, or one
 * is out already. [W] */
struct meta_delta *meta_delta_seal(struct meta *m);

/* Sort the rows, then give them in order of (family, key), all of one family together; each key once. One thread,
 * beside everything else. [-] Errors of _sort: -ENOMEM (try again). _next: false at the end; rewind to start over. */
int meta_delta_sort(struct meta_delta *d);
void meta_delta_rewind(struct meta_delta *d);
bool meta_delta_next(struct meta_delta *d, struct redo_row *ret);
uint64_t meta_delta_applied(const struct meta_delta *d); /* log index the rows lead to */

/* They are in the base (flushed or not): readers find them there from now on. [W], then meta_delta_free [-]. */
void meta_delta_written(struct meta *m, struct meta_delta *d);
struct meta_delta *meta_delta_free(struct meta_delta *d);

/* --- mounts and workers ---------------------------------------------------------------------------------------------- */

/* Always in memory; as committed, on any node. A row's texts are valid as long as the lock is held. [R] Versions count
 * committed changes since this node started. */
bool meta_mount_find(const struct meta *m, uint32_t mount, struct meta_mount_row *ret);
void meta_mounts(const struct meta *m, bool (*each)(void *arg, const struct meta_mount_row *row), void *arg);
uint64_t meta_mounts_version(const struct meta *m);
void meta_workers(const struct meta *m, bool (*each)(void *arg, const struct meta_worker_row *row), void *arg);
uint64_t meta_workers_version(const struct meta *m);

/* --- state and figures --------------------------------------------------------------------------------------------- */

struct meta_stats {
    struct meta_state state;   /* applied, digest, totals, of committed and executed state */
    uint32_t level, level_max; /* of features: committed; that we take part in */
    uint64_t sessions, handles;
    uint64_t tree_bytes, tree_budget, nodes, resident_directories, dentries;
    uint64_t overlay_rows, delta_rows, delta_bytes;
    uint64_t evicted, installed, prepare_again; /* since start */
    uint64_t batch_last, batch_committed;
};
void meta_stats(const struct meta *m, struct meta_stats *ret); /* [R] */

/* The digest of the row stream up to the applied index: equal on every node with the same applied. [R] */
uint64_t meta_digest(const struct meta *m);

/* Sessions there are, e.g. for expiry: call each() until it returns false. [R] */
void meta_sessions(const struct meta *m,
                   bool (*each)(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles),
                   void *arg);
/* Not one that never was, nor one whose end is committed: an end that may still be taken back is none. [R] */
bool meta_session_exists(const struct meta *m, uint64_t session);
