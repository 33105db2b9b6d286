/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the namespace core: the state, and what its files offer one another. For users: meta.h.
 *
 * Each line calls those below it, never above:
 *
 *      meta_life.c       built from the base, leading and following, figures
 *      meta_execute.c    running a request, slots          meta_request.c  requests: made, decoded, fetched
 *      meta_op.c         the table of operations           meta_op_*.c     what they do
 *      meta_step.c       steps that operations share
 *      meta_content.c    layouts, sizes                    meta_origin.c   keys of under file systems
 *      meta_mount.c      what mounts allow                 meta_access.c   permissions
 *      meta_batch.c      closing, committing, undoing, applying batches
 *      meta_put.c        rows into the open batch
 *      meta_resident.c   what rows mean for what is always in memory
 *      meta_scan.c       ranges through the layers         meta_see.c      single rows through the layers
 *      meta_session.c    sessions, slots, open handles     meta_kept.c     mounts and workers, in memory
 *      meta_tree.c       resident nodes and names          meta_rows.c     rows, delta
 *      meta_redo.c       log entries                       meta_format.c   rows as bytes
 *
 * An operation is one function (meta_op_*.c) that runs twice: dry, under the shared lock, on whatever thread has the
 * request, to find what is not in memory; then on the scribe, for good. It first sees all it needs (see_*), checks, and
 * returns what is wrong; after `if (u->dry) return 0` it only puts (put_*), which cannot fail.
 */
#pragma once

#include <assert.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "base/list.h"
#include "meta/meta.h"
#include "meta/meta_redo.h"
#include "meta/meta_rows.h"
#include "meta/meta_tree.h"
#include "meta/meta_session.h"
#include "meta/meta_kept.h"
#include "wire/data_flags.h"

/* Counters of this incarnation begin above it. */
static inline uint64_t incarnation_base(uint32_t incarnation)
{
    return incarnation > 1 ? (incarnation - 1ull) * INCARNATION_STEP : 0;
}

struct totals {
    uint64_t inodes, directories, orphans, bytes;
};

/* A closed batch that is not committed; in one block with its rows and its payload. */
struct batch {
    struct list link; /* in meta.inflight, oldest first */
    struct meta_payload *payload;
    struct row *rows;
    uint32_t row_count;
    uint32_t rows_at; /* where the rows begin in the payload */
    uint32_t feature_level, incarnation;
    struct totals totals;
    uint64_t time_ns;
    uint64_t memory; /* of the block */
};

#define ROW_CHUNK   256u
#define VALUE_CHUNK (512u << 10)

/* The batch being filled. Its rows are in the overlay already; keys and values lie in chunks that are used again. */
struct open_batch {
    uint64_t number;
    uint32_t op_count, row_count, ops_n;
    uint64_t row_bytes; /* that the rows will take in the payload, about */
    struct buf ops;     /* encoded */
    struct row **chunks;
    uint32_t chunk_count, chunk_room;
    struct value_chunk {
        struct value_chunk *next;
        uint32_t used, room;
        uint8_t bytes[];
    } * values, *spare;
};

static inline struct row *open_batch_row(const struct open_batch *o, uint32_t i)
{
    return &o->chunks[i / ROW_CHUNK][i % ROW_CHUNK];
}

#define PURGE_RING 1024

struct meta {
    struct meta_options options;
    struct tree tree;
    struct row_table overlay;
    uint32_t overlay_rows_of[META_TABLE_COUNT]; /* rows in flight by table: most scans find none */
    struct meta_delta *delta, *sealed;
    uint64_t generation;  /* goes up when rows leave the sealed delta: what was read from the base before is stale */
    struct list inflight; /* struct batch */
    struct open_batch open;
    uint64_t batch_committed;
    struct totals now;       /* executed, so with what is in flight */
    uint64_t time_ns;        /* the last given */
    struct meta_state state; /* committed */
    bool has_root, root_committed;
    uint32_t incarnation, level; /* level: of features, as executed */

    uint64_t next_id, id_limit, id_asked; /* ids from next_id to id_limit are ours to give; asked for up to id_asked */
    struct session_table sessions;
    struct kept mounts, workers;
    uint32_t mount_next, mount_limit; /* the next mount's id; as it is committed */

    bool leading, purge_allowed;
    bool full; /* meta_set_full() */
    uint32_t epoch;
    uint64_t purge_ring[PURGE_RING]; /* orphans that became purgeable */
    uint32_t purge_first, purge_count;
    bool purge_scan; /* orphans may be there that the ring has not */
    uint64_t purge_cursor;

    struct buf fences; /* struct meta_fence: grants of sessions that ended, to be taken back */

    void (*effect)(void *arg, const struct meta_effect *e);
    void *effect_arg;
    uint32_t (*place)(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max, uint64_t *ret);
    bool (*checked)(void *arg, uint64_t worker); /* NULL: none has to */
    void *place_arg;
    uint64_t installed, prepare_again;
};

/* A request being run. */
struct run {
    struct meta *m; /* changed by the scribe only: not when dry, not by reads */
    struct meta_request *q;
    bool dry;
    uint64_t now_ns;             /* the leader's time of this operation */
    uint64_t made;               /* ids taken so far */
    struct meta_slot_row result; /* for the slot: what a repetition is answered from */
};

/* --- seeing: through tree, overlay, delta, sealed, and what the request fetched. 0; -ENOENT: it does not exist;
 * -CV_NOT_PREPARED: noted in the request; -CV_BAD_FORMAT, -CV_FORMAT_TOO_NEW: a row of the base; -ENOMEM. All raise
 * q->depends to the batch of what they saw, also of an absence. --------------------------------------------------- */

int see_inode(struct run *u, uint64_t id, struct meta_inode *ret);
/* The row of the directory must have been seen: its batch is that of the last change of any of its names. */
int see_name(struct run *u, uint64_t parent, struct text name, struct meta_dentry *ret);
/* Any row; its value stays until the request is run again. */
int see_row(struct run *u, enum meta_table table, struct text key, struct text *ret);
void see_depend(struct run *u, uint32_t batch);

/* Loops over many inodes give back the room of their texts. */
static inline uint32_t see_mark(const struct run *u)
{
    return u->q->texts_used;
}
static inline void see_release(struct run *u, uint32_t mark)
{
    u->q->texts_used = mark;
}

/* Note what is missing. Returns -CV_NOT_PREPARED, or -ENOMEM, -E2BIG. */
int need_row(struct run *u, enum meta_table table, struct text key);
int need_scan(struct run *u, enum meta_table table, struct text from, uint32_t prefix_n, uint32_t limit,
              bool keys_only);
struct meta_need *need_find(struct meta_request *q, bool scan, enum meta_table table, struct text key);
/* Forget what was fetched from a base that has moved on. */
void need_check(const struct meta *m, struct meta_request *q);

/* The row above the base: overlay, delta, sealed. NULL: the base decides. */
const struct row *layers_find(const struct meta *m, enum meta_table table, struct text key, uint32_t hash);

/* Rows of a table whose keys begin with a prefix, in order, from a key on, merged from all layers; removed ones left out.
 * page: rows asked of the base at a time. After -CV_NOT_PREPARED there is no use in going on. Always end with scan_fini. */
struct scan {
    struct run *u;
    enum meta_table table;
    bool keys_only;
    uint32_t prefix_n, page;
    uint8_t from[META_KEY_MAX + 1]; /* where the current page of the base begins */
    uint32_t from_n;
    const struct row **overlay;
    uint32_t overlay_count, overlay_at;
    struct order_cursor delta, sealed;
    uint32_t need;              /* the page of the base, + 1: an index, since needs move when one is added */
    uint32_t need_row, need_at; /* its next row */
};
int scan_init(struct scan *s, struct run *u, enum meta_table table, struct text from, uint32_t prefix_n, uint32_t page,
              bool keys_only);
/* -ENODATA at the end. Key and value stay until the request is run again. */
int scan_next(struct scan *s, struct text *key, struct text *value);
void scan_fini(struct scan *s);

/* --- putting: rows of the open batch and the tree beside it. Reserve first, then they cannot fail. -------------- */

/* Errors: -ENOMEM; -CV_BUSY: too much is in flight. bytes: of keys and values. */
int put_reserve(struct run *u, uint32_t rows, uint64_t bytes);
int put_reserve_ops(struct run *u, uint32_t ops); /* for more than four */
#define PUT_INODE_BYTES (META_INODE_MAX + 16)     /* to reserve for an inode row */
#define PUT_NAME_BYTES  (META_KEY_MAX + 16)
void put_inode(struct run *u, const struct meta_inode *i);
void put_no_inode(struct run *u, const struct meta_inode *i);
void put_name(struct run *u, uint64_t parent, struct text name, uint64_t child, uint8_t type); /* child 0: remove */
void put_row(struct run *u, enum meta_table table, struct text key, struct text value);
void put_no_row(struct run *u, enum meta_table table, struct text key);
/* The operation's own record. Each operation that puts rows tells one. */
void put_op(struct run *u, enum redo_kind kind, uint64_t inode, uint64_t other, uint64_t extra);

/* An id for something new. Check with ids_left() first (-CV_BUSY when there are none). */
int ids_left(struct run *u, uint32_t n);
uint64_t id_take(struct run *u);
void put_grant(struct run *u);

/* Take what was put into the open batch out of it, and begin one of this number. Its rows stay in the overlay. */
void open_reset(struct meta *m, uint64_t number);
void open_fini(struct open_batch *o);

/* --- what a row means for what is always in memory: sessions, slots, grants, mounts, workers (meta_resident.c) ------ */

/* What stands in the layers for the key of r, or nothing (top NULL): adjust what is always in memory. */
void row_now(struct meta *m, const struct row *r, const struct row *top);
void row_committed(struct meta *m, const struct row *r);
/* A row of the base, when the node starts. */
void row_loaded(struct meta *m, const struct row *r);
/* What slots remember without a row was the last leader's alone. */
void slots_forget_all(struct meta *m);
/* An orphan nobody holds open any more. */
void purge_wanted(struct meta *m, uint64_t inode);

void batch_init(struct meta *m);
void batch_fini(struct meta *m);

/* --- operations ------------------------------------------------------------------------------------------------ */

struct meta_op {
    const char *name;
    uint16_t type; /* MSG_*; 0: inner */
    uint8_t op_class;
    bool has_head;
    uint8_t once;
    int (*run)(struct run *u);
};

/* meta_op.once: never takes a slot; always; if it brings a sequence; if it brings a session (an administrator's command
 * has none: asked twice, the second is told so by its error). */
enum { META_FREE, META_ONCE, META_ONCE_MAYBE, META_ONCE_ADMIN };

const struct meta_op *meta_op_find(uint16_t type);
const struct meta_op *meta_op_inner(enum meta_inner what);

/* --- access ----------------------------------------------------------------------------------------------------- */

enum { MAY_EXEC = 1, MAY_WRITE = 2, MAY_READ = 4 };
int may(const struct meta_caller *c, const struct meta_inode *i, int mask); /* -EACCES */
bool in_group(const struct meta_caller *c, uint32_t gid);
static inline bool is_root(const struct meta_caller *c)
{
    return c->uid == 0;
}
/* May the caller remove or replace `victim` in `parent`? is_dir: it must be a directory, or must not be. -EACCES, -EPERM
 * (sticky), -ENOTDIR, -EISDIR: as Linux orders them. */
int may_delete(const struct meta_caller *c, const struct meta_inode *parent, const struct meta_inode *victim,
               bool is_dir);

/* --- small helpers of the operations ------------------------------------------------------------------------------ */

int check_name(struct text name); /* -ENOENT empty, -EINVAL ".", "..", '/' or zero in it, -ENAMETOOLONG */
void attr_fill(struct rec_attr *a, const struct meta_inode *i);
/* See a directory for something in it: -ESTALE there is no such inode, -ENOTDIR. */
int see_directory(struct run *u, uint64_t id, struct meta_inode *ret);
/* See an inode a message names: -ESTALE there is none. */
int see_target(struct run *u, uint64_t id, struct meta_inode *ret);
static inline struct text key_of(const uint8_t *key, uint32_t n)
{
    return (struct text){(const char *)key, n};
}

/* A name about to be made: the directory, searched and writable, without it. -EEXIST, -EACCES ... in Linux's order. */
int see_new_name(struct run *u, uint64_t parent, struct text name, struct meta_inode *ret);
/* A name that is there, with its inode: -ENOENT. Only searching the directory is checked. */
int see_old_name(struct run *u, const struct meta_inode *parent, struct text name, struct meta_inode *ret);

/* A name is not among our rows: -ENOENT, or -CV_NOT_LISTED if the under file system may have it. name empty: any name. */
int not_here(struct run *u, const struct meta_inode *dir, struct text name);
/* -CV_NOT_LISTED: the directory may have more names than are here. */
static inline int not_all_here(struct run *u, const struct meta_inode *dir)
{
    int r = not_here(u, dir, (struct text){NULL, 0});
    return r == -ENOENT ? 0 : r;
}

/* --- origins (meta_origin.c) --------------------------------------------------------------------------------------- */
#define META_ORIGIN_KEY_MAX 4097
/* The key within its mount. -ENOENT the mount is gone; -ENODATA it is not from there; -ENAMETOOLONG. */
int origin_key(struct run *u, const struct meta_inode *i, char key[META_ORIGIN_KEY_MAX], struct text *ret);
/* It will have another place here: ufs_at becomes its whole key (in `key`, which must stay). */
int origin_pin(struct run *u, struct meta_inode *i, char key[META_ORIGIN_KEY_MAX]);

/* A new inode under a name; the directory row is put too. link_max for callers that add links. */
struct new_node {
    struct text name, target;
    uint32_t mode; /* with type; umask taken off */
    uint64_t rdev;
};
#define NEW_NODE_ROWS 3
int put_new_node(struct run *u, struct meta_inode *parent, const struct new_node *n, struct meta_inode *ret);

/* A directory lost or gained a name. */
void directory_changed(struct run *u, struct meta_inode *d, int entries, int links);

/* Is `ancestor` on the way from `below` (included) up to the root? 1 or 0. */
int is_above(struct run *u, uint64_t ancestor, const struct meta_inode *below);

/* --- mounts (meta_mount.c) ------------------------------------------------------------------------------------------ */

/* Takes no change of content or names. Also of a mount that is gone: what was below it is on its way out. */
bool read_only(const struct run *u, uint32_t mount);
bool has_ufs(const struct run *u, uint32_t mount);
bool is_mirrored(const struct run *u, uint32_t mount);  /* mode fs: what is here counts */
bool listed_whole(const struct run *u, uint32_t mount); /* names are made and removed here: never look up one alone */
/* Its row. Room: META_MOUNT_MAX. */
void put_mount(struct run *u, const struct meta_mount_row *row);
/* Something below it is written. put_reserve() counts with it. */
void mount_written(struct run *u, uint32_t mount);
/* Is it, or a directory below it, where a mount begins? 1 or 0. */
int is_above_mount(struct run *u, uint64_t directory);

/* One name of the inode is gone; puts its row, or what remains of it. Returns the `extra` of REDO_unlink. Room:
 * DROP_LINK_ROWS. */
#define DROP_LINK_ROWS 2
enum {
    LINK_LEFT = 0,
    LINK_GONE = 1,
    LINK_ORPHAN = 2,
    LINK_NEVER = 3
}; /* NEVER: gone, and no worker has a block of it */
int drop_link(struct run *u, struct meta_inode *i);

#define META_NLINK_MAX 0x7fffffffu

/* Set-id bits and capabilities do not survive a change of content or owner by others than root: the mode after it. */
uint32_t mode_after_write(const struct meta_caller *c, const struct meta_inode *i);
/* Remove the xattr security.capability if there is one: see it first (0, -ENOENT, ...), then put. */
int see_capability(struct run *u, const struct meta_inode *i);
void put_no_capability(struct run *u, struct meta_inode *i);

/* --- content (meta_content.c) --------------------------------------------------------------------------------------- */

#define FILE_BYTES_MAX ((1ull << 63) - 1)
#define EXTENTS_OPEN   64u   /* extents in the answer of an open */
#define EXTENTS_PAGE   1024u /* most in any answer */

static inline uint32_t block_shift_of(const struct meta_inode *i)
{
    return i->block_shift ? i->block_shift : META_BLOCK_SHIFT;
}
/* Bytes of the block that are base content. */
uint32_t base_length_of(const struct meta_inode *i, uint32_t block);
/* The epoch of the next grant or cut: above all before, and above base_version, since it becomes a version. */
static inline uint64_t next_epoch(const struct run *u, const struct meta_inode *i)
{
    uint64_t newest = max(i->epoch, i->base_version);
    return max(newest, incarnation_base(u->m->incarnation)) + 1;
}

/* All of a layout but extents and inline data. writer: it goes to the caller's session for writing. */
void layout_head(const struct run *u, const struct meta_inode *i, bool writer, struct rec_layout *ret);
/* The layout from a block on, with at most `most` extents; looks at rows, so it may be -CV_NOT_PREPARED. */
int layout_see(struct run *u, const struct meta_inode *i, uint32_t first, uint32_t most, bool writer,
               struct rec_layout *ret);
int extent_see(struct run *u, uint64_t inode, uint32_t block, struct meta_extent *ret); /* -ENOENT */
void extent_put(struct run *u, uint64_t inode, uint32_t block, const struct meta_extent *e);
#define EXTENT_BYTES 160 /* to reserve for an extent row */
/* Into the answer's data. */
int extent_append(struct run *u, uint32_t block, const struct meta_extent *e);
/* The inline row's bytes; empty when there are none. */
int inline_see(struct run *u, const struct meta_inode *i, struct text *ret);
void inline_drop(struct run *u, struct meta_inode *i);

/* Setting the size. First see what it takes away, then reserve for it, then put (all but the inode's row). */
struct cut {
    uint64_t size;
    uint32_t rows, boundary; /* extent rows behind the new end; the block it lies in */
    bool capability, has_boundary;
    struct meta_extent extent; /* has_boundary: its row */
    struct text inlined;
};
#define CUT_ROWS_MAX 65536u
int cut_see(struct run *u, const struct meta_inode *i, uint64_t size, struct cut *ret); /* -EFBIG: too many rows go */
int cut_reserve(struct run *u, const struct cut *c, uint32_t rows, uint64_t bytes);
void cut_put(struct run *u, struct meta_inode *i, struct cut *c);

/* Content is not what the under file system has; the version counts up, set-id bits go, times are set. */
void content_changed(struct run *u, struct meta_inode *i);
/* The caller's handle on the inode that may write, or NULL. */
struct handle *write_handle(const struct run *u, uint64_t handle, uint64_t inode);
void close_handle(struct run *u, struct handle *h);
/* Answers of repetitions; u->result says what was done. */
int write_grant_again(struct run *u);
void write_commit_again(struct run *u);
