/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: what their sources share. Each line calls those below it:
 *
 *      journal_snapshot.c         what driver, link and peers tell; messages; life
 *      journal_snapshot_want.c    the leader's part: who gives to whom     journal_snapshot_fetch.c  receiving
 *      journal_snapshot_source.c  giving
 *      journal_snapshot_bulk.c    connections, what is left over, the end
 *      journal_snapshot_files.c   what is done with files, on file threads
 */
#pragma once

#include "base/clock.h"
#include "base/error.h"
#include "raft/journal_snapshot.h"
#include "wire/manifest.h"

#define CHECKPOINT_PREFIX "checkpoint-" /* as the master names them */
#define STAGING           "staging"

enum {
    BULK_MAX = 8, /* connections */
    LEASE_S = 600,
    FETCH_RETRY_MS = 300,
    FETCH_SILENT_S = 30, /* without a byte: ask the leader for another source */
};

/* A connection of channel PEER_SNAPSHOT, whoever made it. */
struct bulk {
    struct list link; /* s->bulks */
    struct journal_snapshots *s;
    struct rpc_conn *conn; /* NULL: closed, waiting for its op */
    uint64_t node;

    /* What the other end asked for. */
    bool prepare, open; /* waits for our source */
    uint64_t prepare_index, open_index, open_term;
    struct msg_bulk_need needs[BULK_WINDOW]; /* a ring */
    uint32_t head, count;
    struct io_op op; /* reads the first */
    struct loop_timer rate;
    char *path;
    uint8_t *piece;
    uint32_t piece_crc;
};

enum source_state { SOURCE_NONE, SOURCE_ASKED, SOURCE_COMPLETE, SOURCE_READY };

struct journal_snapshots;

/* The one checkpoint we can give. */
struct source {
    enum source_state state;
    uint64_t context; /* ASKED: of the request */
    uint64_t asked_ns;
    uint64_t adopt_index; /* COMPLETE: one that an earlier life left; 0: a new one */
    struct io_op op;
    char *path; /* of its directory */
    struct manifest manifest;
    struct buf encoded;
    uint64_t used_ns;
    void (*wanted)(struct journal_snapshots *s, int result, uint64_t index); /* by our own leader part; NULL: no */
    uint64_t wanted_index;
};

/* A peer the core wants a snapshot for. */
struct want {
    uint64_t peer, min_index;
    bool self; /* followers were tried */
};

enum want_state { WANT_IDLE, WANT_SELF, WANT_DIAL, WANT_ASKED, WANT_REACH };

struct wants {
    struct want queue[RAFT_MEMBERS_MAX];
    uint32_t count;
    enum want_state state;
    uint64_t source, index; /* of the first of the queue */
    struct journal_dial dial;
    struct loop_timer late;
    uint64_t warned_ns; /* when it was last said that there is none */
};

enum fetch_state {
    FETCH_IDLE,
    FETCH_WAIT,
    FETCH_DIAL,
    FETCH_OPEN,
    FETCH_RESUME,
    FETCH_RUN,
    FETCH_VERIFY,
    FETCH_SWITCH
};

/* A piece received and not on disk yet. */
struct piece {
    struct list link;
    uint32_t file, n;
    uint64_t offset;
    uint8_t *p; /* rpc_buffer_free() */
};

struct fetch {
    enum fetch_state state;
    struct raft_snapshot_offer offer;
    bool again; /* the offer was replaced: start over when what is in flight has ended */
    struct bulk *bulk;
    struct journal_dial dial;
    struct loop_timer timer;
    struct io_op op;
    bool working;                       /* op: pieces are written, or files checked */
    char *directory, *staging, *target; /* the master's, where files gather, where they end */
    char name[64];                      /* of target in directory */
    bool log_only;
    struct manifest manifest;
    struct raft_conf conf;
    uint64_t *have;    /* of each file: bytes that are there */
    uint32_t ask_file; /* next to ask for */
    uint64_t ask_offset;
    uint32_t asked;     /* pieces under way */
    uint32_t synced;    /* files below are complete and synced */
    struct list pieces; /* to be written */
    struct piece *writing;
    uint64_t progress_ns; /* something arrived */
    uint64_t none_ns;     /* the source is there and says that it has nothing, since; 0: it does not */
    uint64_t began_ns;
    uint32_t damaged;               /* times the files turned out wrong */
    uint64_t total, kept, received; /* bytes: of all files; that were there; that came over the wire */
};

struct journal_snapshots {
    struct journal_snapshots_options options;
    struct journal_driver *driver;
    struct journal_link *link;
    struct journal_peers *peers;
    const struct rpc_conn_ops *bulk_ops;
    struct list bulks;
    uint32_t bulk_count;
    struct source source;
    struct wants wants;
    struct fetch fetch;
    struct loop_hook turn; /* what the driver told, outside of its step */
    struct loop_timer look;
    uint64_t rate_ns;   /* when the next piece may leave */
    struct io_op sweep; /* removes what is not in use */
    void (*swept)(struct journal_snapshots *s);
    char *sweep_directory, *sweep_keep[4];
    uint64_t sent, fetched, fetches, offers; /* bytes sent; received; states installed; offers taken, since start */
    bool started, stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* The error another process names, as a negative code whatever it sent; 0: none. */
static inline int bulk_error(uint32_t sent)
{
    return sent <= INT32_MAX ? -(int)sent : -CV_BAD_MESSAGE;
}

/* ---- journal_snapshot_bulk.c ---- */
/* One-way message. A failure ends the connection. */
void bulk_send(struct bulk *b, uint16_t type, const void *message);
struct bulk *bulk_find(struct journal_snapshots *s, uint64_t node);
/* Take over a connection that said hello. NULL: too many (it is closed). */
struct bulk *bulk_add(struct journal_snapshots *s, struct rpc_conn *conn, uint64_t node);
/* The same with what a dial came to. NULL: it came to nothing, or we stop. */
struct bulk *bulk_dialed(struct journal_snapshots *s, const struct journal_dial *d, int result);
/* Free it, once it is closed and nothing is read for it. */
void bulk_release(struct bulk *b);
bool snapshots_busy(const struct journal_snapshots *s); /* something is open or in flight */
/* Something that was in flight has ended. */
void snapshots_finish_stop(struct journal_snapshots *s);
/* Remove from the master's directory what nobody uses. */
void snapshots_sweep(struct journal_snapshots *s);

/* ---- journal_snapshot_source.c ---- */
void source_on_prepare(struct bulk *b, const struct msg_bulk_prepare *m);
void source_on_open(struct bulk *b, const struct msg_bulk_open *m);
int source_on_need(struct bulk *b, const struct msg_bulk_need *m);
void source_on_ready(struct journal_snapshots *s, const struct msg_link_snapshot_ready *m);
/* For our own leader part: wanted() follows, once. */
void source_want(struct journal_snapshots *s, uint64_t min_index,
                 void (*wanted)(struct journal_snapshots *s, int result, uint64_t index));
void source_drained(struct bulk *b);
void source_look(struct journal_snapshots *s);
void source_fini(struct source *source);

/* ---- journal_snapshot_want.c ---- */
void wants_init(struct journal_snapshots *s);
void wants_add(struct journal_snapshots *s, uint64_t peer, uint64_t min_index);
void wants_step(struct journal_snapshots *s);
void wants_on_prepared(struct bulk *b, const struct msg_bulk_prepared *m);
void wants_bulk_closed(struct bulk *b);
void wants_stop(struct journal_snapshots *s);

/* ---- journal_snapshot_fetch.c ---- */
void fetch_init(struct journal_snapshots *s);
void fetch_offer(struct journal_snapshots *s);
void fetch_on_manifest(struct bulk *b, const struct msg_bulk_manifest *m, const struct rpc_frame *f);
int fetch_on_data(struct bulk *b, const struct msg_bulk_data *m, const struct rpc_frame *f);
void fetch_bulk_closed(struct bulk *b);
void fetch_installed(struct journal_snapshots *s);
void fetch_swept(struct journal_snapshots *s); /* the sweep has ended */
void fetch_stop(struct journal_snapshots *s);
void fetch_fini(struct fetch *f);

/* ---- journal_snapshot_files.c: file threads ---- */
/* Make staging ready: files that are not in the manifest go, of the others what is not equal; have: bytes left of each. */
int files_resume(const char *staging, const struct manifest *m, uint64_t *have);
/* Write a piece; the last one of a file syncs it. */
int files_write(const char *staging, const struct manifest_file *f, uint64_t offset, const uint8_t *p, uint32_t n);
/* All is there: verify, sync, put in its place. Errors: -CV_BAD_CHECKSUM what was wrong is removed. */
int files_finish(const char *directory, const char *staging, const char *target, const struct manifest *m);
/* Read a piece. Errors: -ENOENT, -EIO shorter than that. */
int files_read(const char *path, uint64_t offset, uint8_t *p, uint32_t n, uint32_t *ret_crc);
/* Remove what a receiver or source left in a master's directory, but for what is kept (names, NULLs are none). */
void files_sweep(const char *directory, char *const *keep, uint32_t count, uint64_t lease_s);
