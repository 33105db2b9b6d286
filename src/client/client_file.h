/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside libcurvine: open files and their content.
 *
 *      client_file.c    files, the waiting forms, the way of an operation on content to where it is worked on
 *      client_inode.c   what all open files of one inode share: layout, size, what is granted
 *      client_worker.c  the map of workers, connections to them
 *      client_block.c   blocks of a worker on this host: descriptors, mappings, filling what is cold
 *      client_ahead.c   what a sequential reader will want next: the pattern, and having it filled in large ranges
 *      client_fetch.c   blocks of other hosts: reads with checksums and fail-over; the cache of what was read ahead
 *      client_read.c    READ, pieces
 *      client_write.c   WRITE: grants, pieces on their way to the replicas
 *      client_shared.c  memory shared with workers of this host, through which pieces go
 *      client_reopen.c  handles for a new leader
 *      client_commit.c  what was written becomes known: write_commit, FLUSH, FSYNC, RELEASE, truncation
 *
 * Everything belongs to the loop. What readers on other threads look at (size, extents, blocks, cached chunks) is changed
 * under the inode's lock held for writing, read on other threads under the lock held for reading, and on the loop
 * without it. No other lock is taken under it.
 */
#pragma once

#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "client/client_internal.h"
#include "place/place.h"
#include "wire/data_flags.h"
#include "wire/meta_flags.h"

#define CLIENT_REPLICAS_MAX 4
#define CLIENT_OWNERS_MAX   8            /* workers tried for one block */
#define CLIENT_CHUNK_BYTES  (256u << 10) /* of the cache of remote content */
#define CLIENT_FILL_BYTES   (1u << 20)   /* a bit of "readable" */
#define CLIENT_IO_MAX       (1u << 20)   /* of one block_read or block_write */
#define CLIENT_TICK_MS      100

/* ---- memory others may be looking at ---- */

struct client_bytes {
    _Atomic uint32_t refs;
    uint32_t n;
    uint8_t p[];
};
struct client_bytes *client_bytes_new(uint32_t n); /* zeros; NULL: no memory */
void client_bytes_unref(struct client_bytes *b);   /* NULL is fine */

/* A file of a local worker, open here. The table in struct client_content holds one reference. */
struct client_backing {
    _Atomic uint32_t refs;
    int fd;
    uint64_t file, worker;
    struct list link;
};

/* A stretch of it in memory. */
struct client_map {
    _Atomic uint32_t refs;
    struct client_backing *backing;
    uint8_t *p; /* of fd_offset */
    uint64_t fd_offset;
    void *start;
    size_t n;
};
void client_map_unref(struct client_map *m);

/* ---- workers ---- */

struct client_worker {
    struct curvine *cv;
    uint64_t id;
    char *address, *socket; /* "": none */
    bool local;             /* on this host, by what it says */
    bool in, up;
    uint32_t weight;
    struct rpc_client *tcp, *unix_socket;
    struct rpc_call tcp_ping, unix_ping;
    uint64_t socket_failed_until_ns; /* TCP till then */
    uint32_t opens;                  /* block_open in flight */
    struct buf released;             /* files to say block_release of; the first `releasing` bytes are being said */
    uint32_t releasing;
    struct rpc_call release;
    struct client_shared *shared; /* of the connection to its unix socket; NULL: none (yet) */
    struct rpc_call memory_call;
    uint64_t memory_again_ns; /* not asked for before */
};

/* ---- what the handle has of content: struct curvine.content ---- */

struct client_content {
    struct curvine *cv;
    struct client_worker **workers;
    unsigned worker_count;
    struct place_member *members; /* of the workers, same order */
    uint64_t map_version, map_asked_ns;
    bool map_known, map_stale;
    struct client_master_call *map_call;
    struct list map_waiting; /* client_io */
    char boot[40];           /* this boot of this host */

    struct list inodes[1024]; /* client_inode.link by hash */
    unsigned inode_count;
    struct list backings;
    unsigned backing_count;
    struct list blocks; /* client_block.lru of all inodes, least recently opened first */
    unsigned block_count;

    struct list chunks;                /* client_chunk.lru, least recently used first */
    uint64_t chunk_bytes, write_bytes; /* cached; written and not acknowledged */
    struct list write_room;            /* client_inode.room: pieces wait for write_bytes to fall */

    unsigned stale_files, reopens, reassertions; /* handles a new leader does not know; being opened again; messages */
    bool as_self;                                /* the master lets us speak for ourselves only */
    bool tell_done;                              /* that these are all is to be told when they are */

    struct loop_timer tick;
};

/* ---- a message to the master, from inside ---- */

struct client_master_call {
    struct curvine_request q;
    struct client_op op;
    struct buf answer;
    void (*done)(struct client_master_call *m, int result); /* on the loop; m->answer: the body */
    void *user;
};

/* record begins with an op_head (unless plain). mutation: exactly once. */
void client_master_call(struct curvine *cv, struct client_master_call *m, uint16_t type, bool mutation, bool plain,
                        const struct wire_desc *desc, const void *record, uint64_t deadline_ns,
                        void (*done)(struct client_master_call *m, int result));
void client_master_call_fini(struct client_master_call *m); /* frees the answer */

/* ---- one operation on content: the library's part of the request ---- */

struct client_io {
    struct loop_job job;
    struct loop_timer timer; /* the deadline */
    struct list link;        /* where it waits, or nowhere */
    struct list order;       /* WRITE: client_inode.writes */
    struct list subs;        /* client_fetch in flight for it, to be cancelled at the deadline */
    struct curvine *cv;
    struct curvine_request *request;
    struct client_inode *inode;
    void (*resume)(struct client_io *io); /* what it waited for happened */
    uint64_t deadline_ns;
    uint64_t position, end; /* READ: next byte to look at, end of what is read; WRITE: of what is written */
    uint64_t sequence;      /* order of writes and those that wait for them */
    uint64_t generation;    /* FLUSH...: committed when the inode's is there */
    uint32_t outstanding;   /* parts in flight */
    uint16_t turns;
    uint8_t state;
    bool expired, marked;
    bool exact; /* READ: nothing with it that was not asked for: some of that is damaged */
    int error;
    struct client_sync *sync;       /* FSYNC waits for it */
    struct client_durable *durable; /* or for this */
};
static_assert(sizeof(struct client_io) <= sizeof(((struct curvine_request *)0)->reserved), "reserved is too small");

static inline struct client_io *io_of(struct curvine_request *q)
{
    return (struct client_io *)(void *)q->reserved;
}

void client_io_start(struct curvine *cv, struct curvine_request *q); /* any thread */
void client_io_wait(struct client_io *io, struct list *where, void (*resume)(struct client_io *));
void client_io_wake(struct list *where);                  /* all that wait there resume */
void client_io_wake_error(struct list *where, int error); /* some may have time left to try again */
void client_io_finish(struct client_io *io, int result);
void client_io_cancel(struct client_io *io);

/* ---- inodes ---- */

struct client_extent {
    uint32_t block;
    uint32_t valid, committed; /* length as acknowledged here, as the master knows it */
    uint8_t replica_count;
    bool granted; /* to us, now */
    bool ours;    /* nobody else had a grant since it was granted to us */
    uint64_t version, epoch;
    uint64_t replicas[CLIENT_REPLICAS_MAX];
};

/* A block that a worker on this host has. */
struct client_block {
    struct client_inode *inode;
    struct list lru;
    uint32_t index;
    bool open, broken; /* broken: looked at anew before it is used */
    uint64_t version, epoch;
    struct client_map *map;
    uint64_t fd_offset, readable;
    uint32_t length;
    _Atomic uint64_t file_end;
    uint64_t remote_until_ns;

    /* filling and opening, one call at a time; and some for what is ahead of readers */
    uint64_t need; /* chunks somebody waits for */
    struct list waiting;
    bool busy, filled;
    int error;
    struct rpc_call rpc;
    uint64_t deadline_ns, called_version, called_epoch;
    struct client_worker *worker;
    uint64_t ahead_chunks; /* asked for by ahead_calls */
    unsigned ahead_calls;
};

/* Content of another host in memory. */
struct client_chunk {
    struct list lru, of_inode;
    struct list waiting;
    struct client_inode *inode;
    uint32_t block, offset, n;
    uint64_t version, epoch;
    bool ready, stale;
    struct client_bytes *bytes;
    struct client_fetch *fetch;
};

struct client_inode {
    struct list link;
    struct curvine *cv;
    uint64_t inode;
    unsigned files, ios; /* that use it */
    struct list open_files;
    pthread_rwlock_t lock; /* see the top */

    /* the layout */
    _Atomic uint64_t size, until_ns; /* until_ns: when the layout must be asked for again */
    _Atomic bool used;               /* read since the last tick */
    uint64_t mtime_ns, version, base_version, base_bytes;
    uint32_t mount, flags, lease_ms;
    uint8_t shift;
    bool next_known; /* extents behind known_end are not known */
    uint32_t known_end;
    struct client_extent *extents; /* by block */
    uint32_t extent_count, extent_room;
    struct client_bytes *inline_data; /* the content is this, zeros behind it. NULL: it is in blocks */
    uint64_t generation;              /* of the layout: answers to what was asked earlier are not applied */
    uint64_t index;                   /* log index of what we know */
    struct client_master_call *layout_call;
    uint64_t layout_generation;
    struct list layout_waiting;
    uint32_t uid, gid; /* who opened it */

    struct client_block **blocks; /* by index */
    uint32_t block_count, block_room;
    struct list chunks;

    /* writing: client_write.c */
    struct list writes;        /* client_io: WRITE, in order */
    struct list pieces;        /* client_piece, in order */
    struct list write_waiting; /* client_io: WRITE behind a truncation or conversion */
    struct list room;
    uint64_t sequence, size_next;
    uint32_t grant_first, grant_count, grant_next; /* the grant asked for; behind the last one */
    uint64_t grant_handle;
    struct client_master_call *grant_call;
    struct client_touched {
        uint64_t worker, boot; /* of the first write that is not synced; 0: not known */
        bool unsynced;
    } * touched; /* every worker written to since it was opened here */
    unsigned touched_count;
    bool converting;

    /* commits: client_commit.c */
    struct list drain_waiting;  /* client_io: until earlier writes are acknowledged */
    struct list commit_waiting; /* client_io */
    struct list sync_waiting;   /* client_io: until nobody else syncs */
    struct list truncates;      /* client_call: until everything is written and committed */
    struct client_call *truncating;
    struct client_sync *sync; /* one at a time */
    bool size_dirty, inline_dirty;
    uint64_t dirty_generation, committed_generation, commit_generation, dirty_since_ns;
    uint64_t closed_handle; /* by the commit in flight */
    struct client_master_call *commit_call;
    int error;             /* the newest, of what was written by whomever: see client_error() */
    uint32_t error_count;  /* how many there were */
    bool error_told;       /* somebody was told the newest */
    bool unsynced, unsure; /* commits were answered that may not be replicated; and then another master led */

    unsigned reopening;    /* files whose handle is not good now */
    unsigned reopen_tries; /* since a grant or a commit last succeeded */
};

struct curvine_file {
    struct curvine *cv;
    struct client_inode *inode;
    uint64_t handle;
    int flags;
    struct list link; /* inode.open_files */
    /* read-ahead: where a sequential reader began, its next byte; how far; asked for up to */
    _Atomic uint64_t began, next, window, ahead;
    _Atomic bool ahead_posted;
    bool stale, reopening, refused; /* client_reopen.c */
    bool closing;                   /* its handle is being closed: not opened again, the file may be freed any time */
    uint32_t errors_told;           /* of inode.error_count */
    struct loop_job ahead_job;
};

/* What was written is lost. As with a local file, who has it open is told once each, by the next fsync, or flush of a writer;
 * who opens it later only if nobody was told yet. */
void client_error(struct client_inode *in, int error);
void client_error_told(struct curvine_file *f); /* it learns, or learned, of the newest */

/* The answer of an OPEN or CREATE has come. Errors: -ENOMEM, -CV_BAD_MESSAGE. */
int client_file_new(struct curvine *cv, struct curvine_request *q, const struct rec_layout *layout, uint64_t sent_ns);
void client_file_free(struct curvine_file *f);

struct client_inode *client_inode_find(struct curvine *cv, uint64_t inode);
struct client_inode *client_inode_get(struct curvine *cv, uint64_t inode); /* found or made; NULL: no memory */
void client_inode_put(struct client_inode *in);                            /* freed when nobody uses it */
/* The layout in an answer; sent_ns: when it was asked for. whole: everything that is known changes (open, setattr). */
int client_layout_apply(struct client_inode *in, const struct rec_layout *l, bool whole);
void client_attr_apply(struct client_inode *in, const struct curvine_attr *attr, uint32_t lease_ms, uint64_t sent_ns);
void client_attr_patch(struct curvine *cv, struct curvine_attr *attr, uint64_t index);
struct client_extent *client_extent_find(const struct client_inode *in, uint32_t block);
int client_extent_put(struct client_inode *in, const struct rec_extent *e, bool granted);
bool client_layout_ready(struct client_inode *in, uint32_t block); /* known, and not too old */
void client_layout_want(struct client_inode *in, uint32_t block, uint64_t deadline_ns);
void client_layout_expire(struct client_inode *in);
void client_head(struct client_inode *in, struct rec_op_head *ret);

static inline uint32_t client_block_bytes(const struct client_inode *in)
{
    return 1u << in->shift;
}
uint32_t client_base_length(const struct client_inode *in, uint32_t block);
/* As messages to workers name it. */
void client_block_desc(const struct client_inode *in, uint32_t block, struct rec_block *ret);
/* Who may have it, best first. */
unsigned client_block_owners(struct client_inode *in, uint32_t block, uint64_t ret[CLIENT_OWNERS_MAX]);
static inline bool client_inode_dirty(const struct client_inode *in)
{
    return in->dirty_generation != in->committed_generation;
}

/* ---- workers ---- */
void client_workers_init(struct curvine *cv);
void client_workers_fini(struct curvine *cv);
unsigned client_workers_close(struct curvine *cv, void (*closed)(void *arg), void *arg); /* how many will be closed */
bool client_map_ready(struct curvine *cv); /* asks for it when it is not */
void client_map_refresh(struct curvine *cv);
struct client_worker *client_worker_find(struct curvine *cv, uint64_t id);
bool client_worker_is_local(struct client_worker *w);                            /* its unix socket is worth trying */
struct rpc_client *client_worker_conn(struct client_worker *w, bool local_only); /* NULL: none */
/* The session is over, or may be: what workers of this host gave to it they may change from now on. */
void client_workers_let_go(struct curvine *cv);
void client_workers_probe(struct curvine *cv); /* every CLIENT_TICK_MS */
bool client_worker_error(int r);               /* try another, or later */

/* ---- blocks of this host ---- */
struct client_block *client_block_find(const struct client_inode *in, uint32_t index);
struct client_block *client_block_get(struct client_inode *in, uint32_t index);
/* The worker on this host to ask for it, or NULL. */
struct client_worker *client_block_local(struct client_inode *in, uint32_t index);
/* Make chunks readable; io waits. */
void client_block_need(struct client_block *b, struct client_worker *w, uint64_t chunks, struct client_io *io,
                       void (*resume)(struct client_io *));
/* What block_open answered, unless the layout has moved on. */
int client_block_opened(struct client_block *b, uint64_t version, uint64_t epoch, struct client_worker *w,
                        const struct rpc_frame *f);
void client_blocks_free(struct client_inode *in);
void client_backings_sweep(struct curvine *cv, bool all);
void client_blocks_let_go(struct curvine *cv); /* nothing is read through a descriptor until it is opened again */
void client_backing_unref(struct client_backing *b);

/* ---- blocks of other hosts ---- */
struct client_fetch {
    struct rpc_call rpc;
    struct loop_timer timer;
    struct list link; /* client_io.subs */
    struct curvine *cv;
    struct rec_block block;
    uint64_t owners[CLIENT_OWNERS_MAX];
    unsigned owner_count, at, rounds;
    uint32_t offset, n, flags;
    uint8_t *buffer;
    uint64_t deadline_ns;
    bool asked_again, cancelled;
    bool hope; /* somebody of this round may have it and could not be asked */
    int error;
    void (*done)(struct client_fetch *f, int result); /* 0: buffer is filled; may free f */
    void *user;
};
void client_fetch_start(struct client_fetch *f, struct client_inode *in, uint32_t block);
void client_fetch_cancel(struct client_fetch *f);

struct client_chunk *client_chunk_find(const struct client_inode *in, uint32_t block, uint32_t offset);
/* Found, or begun to be fetched. NULL: no room. */
struct client_chunk *client_chunk_get(struct client_inode *in, uint32_t block, uint32_t offset, uint64_t deadline_ns);
void client_chunks_drop(struct client_inode *in, uint32_t block, uint32_t offset, uint32_t n); /* they changed */
void client_chunks_drop_stale(struct client_inode *in); /* versions that are not the layout's */
void client_chunks_forget(struct client_inode *in);     /* at the end of everything */
void client_chunks_free(struct client_inode *in);

/* ---- reading ---- */
enum client_seg_kind { SEG_ZEROS, SEG_BYTES, SEG_FILE, SEG_MISS };

/* A stretch of content and where it is: zeros, memory, a local worker's file, or nowhere yet. */
struct client_seg {
    enum client_seg_kind kind;
    uint32_t n;
    uint32_t block, offset; /* MISS: n bytes of content from here */
    struct client_bytes *bytes;
    struct client_map *map;
    uint64_t at; /* in bytes, or in the file */
};

/* The next stretch of [offset, offset + length), which is below the size; at least one byte, at most CLIENT_IO_MAX of zeros.
 * Under the lock, or on the loop. */
struct client_seg client_plan(const struct client_inode *in, uint64_t offset, uint64_t length);
void client_read(struct client_io *io);

/* A read of [offset, end): any thread. Returns true when there is something to be fetched ahead: client_ahead_post(). */
bool client_ahead_note(struct curvine_file *f, uint64_t offset, uint64_t end);
void client_ahead_post(struct curvine_file *f);
void client_ahead_job(struct loop_job *job);
/* On the loop: begin to fetch what is not there of the window from here on. */
void client_ahead_run(struct curvine_file *f, uint64_t from);

/* ---- memory shared with workers of this host ---- */

/* A part of it for one piece; no memory: none. */
struct client_shared_slot {
    struct client_shared *memory;
    uint32_t number;
};
/* True: n bytes may go by the slot on this connection. False: they go behind the message. */
bool client_shared_take(struct client_worker *w, struct rpc_client *conn, uint32_t n, struct client_shared_slot *ret);
/* Put them there. Returns their CRC32C. ret_offset: as the message says it. */
uint32_t client_shared_fill(const struct client_shared_slot *slot, const uint8_t *data, uint32_t n,
                            uint32_t *ret_offset);
/* The call has ended. answered: by the worker, so nobody reads the slot any more. Does nothing when none was taken. */
void client_shared_give_back(struct client_worker *w, struct client_shared_slot *slot, bool answered);
void client_shared_leave(struct client_worker *w); /* the connection is over, or will be */
bool client_shared_tick(struct curvine *cv);       /* true: idle ones are still to be emptied */

/* ---- writing, telling ---- */
void client_write(struct client_io *io);
void client_write_pump(struct client_inode *in);

/* NULL: nothing was written to that worker. */
struct client_touched *client_touched_find(struct client_inode *in, uint64_t worker);
/* Something was written that is in the memory of that boot. */
void client_touched_since(struct client_touched *t, uint64_t boot);
void client_write_cancel(struct client_io *io);                         /* io->error is why */
bool client_write_idle(const struct client_inode *in, uint64_t before); /* nothing submitted before is in flight */
void client_convert(struct client_inode *in, uint64_t deadline_ns);     /* the inline content goes to block 0 */
void client_flush(struct client_io *io);                                /* FLUSH, FSYNC, RELEASE */
/* Until everything written so far is known to the master. closing: a handle that may be closed with it, or 0. */
void client_flush_leave(struct client_io *io); /* FSYNC: do not wait any longer. io may be gone */
void client_sync_forget(struct client_inode *in);
void client_commit_wait(struct client_io *io, uint64_t closing, void (*resume)(struct client_io *));
void client_dirty(struct client_inode *in);          /* something was written */
void client_drained(struct client_inode *in);        /* a write, conversion or commit has ended */
bool client_truncate_hold(struct client_call *call); /* it waits, or is under way already */
void client_truncate_ended(struct client_call *call);
void client_truncated(struct client_inode *in, const struct curvine_attr *attr, const struct rec_layout *l);
void client_tick_start(struct curvine *cv);
/* On the loop: an answer for the caller is decoded; open files have their part in it. */
int client_answered(struct client_call *call, const void *body, uint32_t n);
void client_reopen_all(struct curvine *cv); /* connected to a master again */
void client_reopen_some(struct curvine *cv);
bool client_reopen_bad(struct client_inode *in,
                       uint64_t handle);           /* -EBADF for it. True: try again when it is open again */
void client_reopen_forget(struct curvine_file *f); /* it is being closed */
int client_content_init(struct curvine *cv);
void client_content_fini(struct curvine *cv);
