/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journal: what is on disk. Formats are exact: an unknown version or a wrong size stops the node
 * (-CV_FORMAT_TOO_NEW, -CV_BAD_FORMAT), it never guesses.
 *
 *   DIR/lock           held (flock) while a journal or one of its tools works here
 *   DIR/log/           RocksDB, settings: journal_db.h
 *     default          ident, hs, run/<be64 first index>, first, commit, snap, forced: the structs below
 *     log              <be64 index>: struct journal_entry_head, then the payload
 *     conf             <be64 index>: each configuration: its raft_conf_encode(), then the CRC32C of key and value; the
 *                      newest two are kept whatever is compacted
 *   DIR/durable.mark   how far the log reached on disk: struct journal_mark, one sector, rewritten in place
 *
 * Every row of `default` ends in the CRC32C of its key followed by the row without that field. Entries are chained:
 *
 *   chain(i) = XXH64(payload, seed = XXH64(chain(i-1) as le64, term as le64, type as u8; seed 0)),  chain(0) = 0
 *
 * so two logs whose entry i has the same chain are equal up to i.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/uuid.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are copied to disk as they are in memory");

#define JOURNAL_FORMAT_VERSION 1

/* Families of the log database, in the order they are opened. */
enum journal_family { JOURNAL_DEFAULT, JOURNAL_LOG, JOURNAL_CONF, JOURNAL_FAMILIES };

/* Keys of `default`. run/ is followed by the first index, be64. */
#define JOURNAL_KEY_IDENT  "ident"
#define JOURNAL_KEY_HS     "hs"
#define JOURNAL_KEY_RUN    "run/"
#define JOURNAL_KEY_FIRST  "first"
#define JOURNAL_KEY_COMMIT "commit"
#define JOURNAL_KEY_SNAP   "snap"
#define JOURNAL_KEY_FORCED "forced"
#define JOURNAL_RUN_KEY    12 /* bytes of a whole run key */

/* Whose log this is: written by format or join, last of all, so a directory without it was never formatted. */
struct journal_ident_row {
    uint32_t version;     /* JOURNAL_FORMAT_VERSION */
    uint32_t incarnation; /* of the cluster, from 1; counts up with force-new-cluster */
    struct uuid cluster;
    uint64_t node;       /* random, never 0, never reused */
    uint64_t created_ns; /* wall clock */
    uint32_t zero;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct journal_ident_row) == 48, "disk format");

/* Hard state: one row, so that term and vote change together. */
struct journal_hs_row {
    uint64_t term, vote;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct journal_hs_row) == 20, "disk format");

/* Entries from the key's index on, up to the next run, are of this term. */
struct journal_run_row {
    uint64_t term;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct journal_run_row) == 12, "disk format");

/* First index retained; term and chain of the entry before it (0 when first is 1). */
struct journal_first_row {
    uint64_t first, base_term, base_chain;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct journal_first_row) == 28, "disk format");

/* Known committed: a hint for the next start, written with the next append. */
struct journal_commit_row {
    uint64_t commit;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct journal_commit_row) == 12, "disk format");

/* The snapshot this node's state was installed from, if any. Followed by directory_size bytes of the metadata
 * directory's name and a u32 CRC32C of the key and all before. Its configuration is the one in `conf` at conf_index. */
struct journal_snap_row {
    uint64_t index, term, chain;
    uint64_t conf_index;
    uint64_t manifest_hash;
    uint32_t zero;
    uint32_t directory_size;
} __attribute__((packed));
static_assert(sizeof(struct journal_snap_row) == 48, "disk format");

/* force-new-cluster was here: what this log held up to index is the beginning of this incarnation, so a master beside it
 * whose state is of an earlier one and not beyond index may go on with it. */
struct journal_forced_row {
    uint32_t incarnation;
    uint32_t zero;
    uint64_t index;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct journal_forced_row) == 20, "disk format");

/* Before each payload. */
struct journal_entry_head {
    uint8_t version;   /* JOURNAL_FORMAT_VERSION */
    uint8_t type;      /* enum raft_entry_type */
    uint16_t flags;    /* 0 */
    uint32_t op_count; /* operations in a batch, for people; 0 unknown (an entry that came from a peer) */
    uint64_t term;
    uint64_t chain;
    uint32_t size;     /* of the payload */
    uint32_t data_crc; /* CRC32C of the payload, as its proposer computed it */
    uint32_t head_crc; /* CRC32C of the key and all before */
} __attribute__((packed));
static_assert(sizeof(struct journal_entry_head) == 36, "disk format");

/* durable.mark: what was known to be on disk at some moment, at most a second old. A log that ends below it, or has
 * an older term or another vote, has lost what it had promised. */
#define JOURNAL_MARK_MAGIC 0x4b52414d4c4e4a43ull /* "CJNLMARK" */

struct journal_mark {
    uint64_t magic;
    uint32_t version;
    uint32_t zero;
    uint64_t node;
    uint64_t index, index_term; /* last durable entry */
    uint64_t term, vote;        /* durable hard state */
    uint32_t zero2;
    uint32_t crc; /* of all before */
} __attribute__((packed));
static_assert(sizeof(struct journal_mark) == 64, "disk format");

/* Set the crc of a row (its last four bytes) for its key. */
void journal_row_seal(const void *key, size_t key_size, void *row, size_t row_size);

/* Copy a row as read into *ret. Errors: -CV_BAD_FORMAT wrong size; -CV_BAD_CHECKSUM. */
int journal_row_open(const void *key, size_t key_size, const void *value, size_t n, void *ret, size_t row_size);

/* chain(i) from chain(i-1). */
uint64_t journal_chain(uint64_t before, uint64_t term, uint8_t type, const void *data, size_t size);

/* Set version, flags and head_crc; all else must be set. */
void journal_entry_seal(uint64_t index, struct journal_entry_head *head);

/* Read a stored entry: head into *ret, its payload is the rest of value. The payload's own checksum is checked too.
 * Errors: -CV_BAD_FORMAT, -CV_FORMAT_TOO_NEW, -CV_BAD_CHECKSUM. */
int journal_entry_open(uint64_t index, const void *value, size_t n, struct journal_entry_head *ret);
