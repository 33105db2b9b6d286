/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journal store: the log of one voter on its disk. Formats: journal_format.h; settings of RocksDB: journal_db.h.
 *
 *      add(unit) add(unit) ... sync()      one WriteBatch, one synced write for any number of units
 *
 * Threads: opening and closing anywhere; adding, syncing and compacting on one thread (the log writer); reading on any.
 * After an error from add, sync, idle or compact nothing is known about the disk: the caller stops the process, and
 * the next open judges what is there. Nothing is retried.
 *
 * Source: raft.md 5.3 of the design papers; Ongaro (2014) 3.8 for what must be durable.
 */
#pragma once

#include "base/cleanup.h"
#include "raft/journal_state.h"

enum {
    JOURNAL_READ_ENTRIES_MAX = 64,
    JOURNAL_ENTRY_SIZE_MAX = 8 << 20, /* payload bytes of one entry */
};

struct journal_store; /* opaque */

/* An entry as the store writes and reads it. */
struct journal_entry {
    uint64_t index, term;
    uint64_t chain;      /* set by the store */
    const uint8_t *data; /* payload */
    uint32_t size, op_count, data_crc;
    uint8_t type; /* enum raft_entry_type */
};

/* Switch to the state of a snapshot: see struct raft_write. */
struct journal_install {
    uint64_t index, term, chain;
    uint64_t conf_index;
    const uint8_t *conf; /* raft_conf_encode() of the configuration there */
    uint32_t conf_size;
    uint64_t manifest_hash;
    const char *directory;
};

/* One atomic step of the log: struct raft_write with payloads. */
struct journal_unit {
    uint64_t term, vote;
    uint64_t commit;
    uint64_t truncate_from; /* 0: nothing to remove */
    const struct journal_install *install;
    struct journal_entry *const *entries; /* consecutive, from last + 1 on; chain is filled in */
    uint32_t count;
};

/* ---- life ---- */

struct journal_format {
    struct uuid cluster;
    uint64_t node;        /* 0: a random one */
    uint32_t incarnation; /* of the cluster; 0: 1 */
    /* raft_conf_encode() of the founding members: entry 1, term 1, the same on all. NULL: join, wait to be added. */
    const uint8_t *conf;
    uint32_t conf_size;
    uint64_t behind; /* conf is in force behind this entry, whose state a restored master has; 0: from the first */
};

/* Make the log of a new member in dir, which is created if its parent is there. Never implicit: only a person says
 * this. why gets the cause. Errors: -CV_ALREADY_FORMATTED, -CV_LOCKED, errno. */
int journal_store_format(const char *dir, const struct journal_format *format, struct buf *why);

struct journal_store_options {
    bool read_only;          /* tools: nothing is changed; add and sync may not be called */
    bool no_check;           /* tools that check for themselves */
    uint64_t memtable_bytes; /* 0: 64 MiB */
};

/* Lock dir, open the log, and check: settings, rows, everything the last start of RocksDB could have lost (all it
 * read back from its write-ahead log, at least 16 MiB), and durable.mark. options and why may be
 * NULL; why gets the cause and what to do next, for people.
 * Errors: -CV_NOT_FORMATTED; -CV_LOCKED; -CV_LOG_DAMAGED: must not act as voter; -CV_FORMAT_TOO_NEW; -CV_CONFIG_BAD
 * RocksDB runs with other settings than needed; errno. */
int journal_store_open(const char *dir, const struct journal_store_options *options, struct buf *why,
                       struct journal_store **ret);
struct journal_store *journal_store_free(struct journal_store *s);
DEFINE_CLEANUP(struct journal_store *, journal_store_free)

/* What is there. Valid as long as the store; the writer's once it has begun. */
const struct journal_state *journal_store_state(const struct journal_store *s);
const struct journal_db *journal_store_db(const struct journal_store *s);

/* durable.mark as it is on disk; hold the log against it (opening does, unless no_check). Errors: -CV_LOG_DAMAGED. */
const struct journal_mark *journal_store_mark(const struct journal_store *s);
int journal_store_check_mark(const struct journal_store *s, struct buf *why);

/* The encoded configuration at index, one of state->confs. Errors: -ENOENT, -ENOMEM, -CV_LOG_DAMAGED. */
int journal_store_conf(const struct journal_store *s, uint64_t index, struct buf *ret);

/* ---- writing: one thread ---- */

/* Add a unit to the batch. Payloads are copied. A unit that truncates is preceded by a sync of what was added before
 * and by a lower durable.mark. Errors: fatal. */
int journal_store_add(struct journal_store *s, const struct journal_unit *unit);

/* Bytes added since the last sync: the caller bounds its groups by it. */
size_t journal_store_batch_bytes(const struct journal_store *s);

/* Write and sync what was added (nothing: no system call), and raise durable.mark if it is a second old.
 * Errors: fatal. */
int journal_store_sync(struct journal_store *s, uint64_t now_ns);

/* To be called when nothing is written. *ret_due_ns: when to call again, UINT64_MAX not before the next sync.
 * Errors: fatal. */
int journal_store_idle(struct journal_store *s, uint64_t now_ns, uint64_t *ret_due_ns);

/* Forget all entries below first, at most last + 1. Deletes whole files, so it is worth it for large steps only.
 * Nothing may be waiting for a sync. Errors: -EINVAL; fatal. */
int journal_store_compact(struct journal_store *s, uint64_t first);

/* ---- reading: any thread ---- */

struct journal_read {
    struct journal_entry entries[JOURNAL_READ_ENTRIES_MAX]; /* data points into bytes */
    uint32_t count;
    struct buf bytes;
};

/* Entries from..to, as many as fit in bytes_max, but one at least; they are checked. All zero before the first read;
 * free with journal_read_fini. Errors: -ENOENT from is not there; -CV_LOG_DAMAGED; -ENOMEM. */
int journal_store_read(const struct journal_store *s, uint64_t from, uint64_t to, size_t bytes_max,
                       struct journal_read *ret);
void journal_read_fini(struct journal_read *r);

/* chain(index) of an entry, or of the one before the first. Errors: -ENOENT; -CV_LOG_DAMAGED. */
int journal_store_chain(const struct journal_store *s, uint64_t index, uint64_t *ret);

/* Bytes the log takes on disk and in memtables, about. */
uint64_t journal_store_bytes(const struct journal_store *s);
