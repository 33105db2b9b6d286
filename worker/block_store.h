/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block store: what one worker keeps on its disks. docs/block-store.md draws the directory, the states of a chunk
 * and what is synced when; worker/block_format.h is what is on disk.
 *
 * Data is named (inode, block index, version). A block is a stretch of a file (default 64 MiB, see block_bytes);
 * it is kept in chunks of 1 MiB, each absent, open (being written in place, no CRC promised) or sealed (a CRC32C for
 * each 64 KiB unit is in the index). The store holds one version of a block; a fill or write of a newer one replaces
 * it. Clean data can be fetched again and may go any time nobody uses it; written (dirty) data stays until
 * block_write_clean() or block_store_remove().
 *
 * Bytes of an inode lie in one sparse backing file at their natural offsets; clean files of up to 128 KiB lie
 * packed in segments. So a read is always one descriptor, one offset, one length.
 *
 * Threads: every function may be called from any thread. Those marked BLOCKING do disk I/O (or wait for a thread
 * that does) and belong on an I/O thread. The others take one short lock, no system call, and answer
 * -CV_NOT_PREPARED when the answer is not in memory: call the blocking function named beside them, then try again.
 * The store has no threads of its own: block_store_maintain() is to be called about once a second, block_store_flow() may be.
 *
 * Errors every function may return: -CV_BAD_CHECKSUM the index is damaged (block_store_open() heals it: close and
 * open again); -EIO and friends from the disk; -CV_STOPPING the directory left service (status.failed says why).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

#define BLOCK_CHUNK_BYTES (1u << 20)
#define BLOCK_UNIT_BYTES  (1u << 16)
#define BLOCK_CHUNK_UNITS 16u
#define BLOCK_BYTES_MIN   (1u << 20)
#define BLOCK_BYTES_MAX   (64u << 20) /* so the chunks of a block are the bits of one word */
#define BLOCK_PACKED_MAX  (128u << 10)

struct block_store;
struct block_fill;
struct block;

struct block_key {
    uint64_t inode;
    uint64_t version;
    uint32_t index;
};

enum block_kind { BLOCK_MEM, BLOCK_SSD, BLOCK_HDD };

/* ---- a directory, the store ---- */

struct block_identity_options {
    uint8_t cluster[16];
    uint64_t worker_id;
    uint32_t directory_id;
    enum block_kind kind;
};

/* Make path (an existing, empty directory) a store's directory. BLOCKING.
 * Errors: -CV_ALREADY_FORMATTED; -ENOTEMPTY; -EOPNOTSUPP the file system cannot punch holes. */
int block_store_format(const char *path, const struct block_identity_options *o);

/* Whose directory this is, as format wrote it; sets path's cluster, worker_id, directory_id, kind. BLOCKING.
 * Errors: -CV_NOT_FORMATTED; -CV_BAD_CHECKSUM; -CV_FORMAT_TOO_NEW. */
int block_store_identity(const char *path, struct block_identity_options *ret);

struct block_store_options {
    struct {
        const char *path;
        uint64_t capacity_bytes; /* of data; leave the file system 5 % and the index 0.1 % more */
    } dirs[1];                   /* several later; the index lies in the first */
    uint32_t dir_count;          /* 1 */
    uint8_t cluster[16];
    uint64_t worker_id;
    uint64_t memory_bytes;      /* for the state of what is used; 0: 64 MiB */
    uint64_t index_cache_bytes; /* RocksDB's block cache; 0: 64 MiB */
    uint32_t files_max;         /* descriptors kept open; 0: 4096 */
    uint32_t segment_bytes;     /* 0: 1/128 of the capacity, within 1 and 64 MiB */
    uint32_t calm_max;          /* calls of block_store_maintain() without a write before a block is sealed; 0: 30 */
};

/* Open a formatted directory. Walks nothing, whatever the number of files; heals a damaged index (clean data is
 * forgotten, written data kept and what cannot be attributed reported in status.lost_blocks). BLOCKING.
 * Errors: -CV_NOT_FORMATTED; -CV_WRONG_CLUSTER (or worker); -CV_LOCKED another process has it; -CV_FORMAT_TOO_NEW. */
int block_store_open(const struct block_store_options *o, struct block_store **ret);

/* Sync and close. Nothing may be in use: reads, fills and writes have ended. NULL is fine. BLOCKING. */
struct block_store *block_store_free(struct block_store *s);
DEFINE_CLEANUP(struct block_store *, block_store_free)

/* Housekeeping: sync what was sealed and move the mark, evict down to the watermark, give written blocks their CRCs when
 * writing has paused (so that damage to the only copy is found). Call about once a second from one thread. BLOCKING. */
int block_store_maintain(struct block_store *s);

/* For one thread, over and over: wait until a file is written in large sequence, and have the kernel begin to bring that to
 * the disk. Returns false after block_store_flow_end(). BLOCKING. */
bool block_store_flow(struct block_store *s);
void block_store_flow_end(struct block_store *s);

/* Bring everything acknowledged so far to the disk. BLOCKING. */
int block_store_sync(struct block_store *s);

/* Free at least bytes by dropping clean, unpinned data, coldest first; *ret_freed may be more. BLOCKING.
 * Errors: -CV_NO_SPACE less than that could be freed (what could be was). */
int block_store_evict(struct block_store *s, uint64_t bytes, uint64_t *ret_freed);

struct block_store_status {
    uint64_t capacity_bytes, used_bytes, reserved_bytes; /* used + reserved <= capacity, always */
    uint64_t left_bytes;                                 /* part of used: unlinked files whose descriptors are out */
    uint64_t resident_blocks, resident_files, open_files, memory_bytes;
    uint64_t hits, misses, prepares; /* block_read_begin(): found, absent, not in memory */
    uint64_t filled_bytes, evicted_bytes, written_bytes, verified_bytes;
    uint64_t damaged_chunks, lost_blocks; /* found damaged since start; written blocks lost with the index */
    uint64_t file_opens, file_syncs;
    int failed; /* 0, or why the directory takes nothing new any more */
};
void block_store_status(struct block_store *s, struct block_store_status *ret);

/* Stands for the boot of this host, not 0: what is written and not synced is lost with it. */
uint64_t block_store_boot(const struct block_store *s);

/* Bytes kept for one mount. BLOCKING. */
int block_store_mount_bytes(struct block_store *s, uint32_t mount, uint64_t *ret);

/* What is kept, in order of (inode, index): up to max blocks after *cursor, which is moved. For reports and orphan
 * proposals. Returns the number, 0 at the end. Start with a cursor of zeros. BLOCKING. */
struct block_cursor {
    uint64_t inode;
    uint32_t index;
    bool started;
};
struct block_info {
    uint64_t inode, version, base_version, epoch;
    uint32_t index, mount, length;
    bool dirty, packed, pinned, lost;
};
int block_store_list(struct block_store *s, struct block_cursor *cursor, struct block_info *out, int max);

/* Look at up to max blocks behind *cursor and add what is charged for their written chunks to *bytes: the space of data that
 * is nowhere else. Start with a cursor of zeros; a pass over everything gives the sum, as of about now. Returns the number of
 * blocks looked at, 0 at the end. BLOCKING. */
int block_store_dirty(struct block_store *s, struct block_cursor *cursor, int max, uint64_t *bytes);

/* Forget an inode: all of it (its removal is committed), or only what is clean and not pinned (free). Descriptors
 * that are out keep their bytes charged. BLOCKING. Errors: -CV_BUSY something of it is being filled or written. */
enum block_remove_what { BLOCK_REMOVE_ALL, BLOCK_REMOVE_CLEAN };
int block_store_remove(struct block_store *s, uint64_t inode, enum block_remove_what what);

/* The inode was cut to size under this epoch (committed): forget its blocks that begin at or behind size, written data
 * too, unless they were granted anew since (a higher epoch). The block the end lies in is left alone: what comes with its
 * next contact cuts it. Descriptors that are out see zeros. BLOCKING. Errors: -CV_BUSY as block_store_remove(). */
int block_store_truncate(struct block_store *s, uint64_t inode, uint64_t size, uint64_t epoch);

/* Forget one block, written data too, if it still is what it was said to be. BLOCKING. Errors: -ESTALE it is not;
 * -CV_BUSY as above. */
int block_store_forget(struct block_store *s, const struct block_key *key, uint64_t epoch);

/* The grant this block was written under was given up with a part of the log: what is in it answers -CV_DATA_DAMAGED from now
 * on, to readers and writers, until the inode or the block is forgotten (it is not evicted either). A clean one is forgotten
 * at once. BLOCKING. Errors: as block_store_forget(). */
int block_store_give_up(struct block_store *s, const struct block_key *key, uint64_t epoch);

/* Pin or unpin what is cached of an inode now (later fills: flag BLOCK_FILL_PINNED). BLOCKING. */
int block_store_pin(struct block_store *s, uint64_t inode, bool pinned);

/* ---- presence ---- */

/* Bit c of each word stands for chunk c of the block. The same words in shared memory will tell local clients what
 * they may read from a descriptor: in an exported file bits of readable are only ever added. */
struct block_presence {
    uint64_t version;
    uint64_t file_id;  /* of the file behind it; a different one later means the file was replaced. 0: none */
    uint32_t length;   /* bytes of the block known here */
    uint64_t readable; /* sealed or open, or known to be zeros: bytes are at their place */
    uint64_t sealed, open, filling;
    uint64_t checked; /* of sealed: verified, or made, since the block became resident */
    uint64_t damaged; /* written data whose CRC does not match: reads answer -CV_DATA_DAMAGED */
    uint64_t torn; /* with bytes that were lost in a power cut: these bytes answer -CV_DATA_DAMAGED; not in readable */
    bool dirty, packed, pinned;
};

/* Errors: -CV_NOT_PREPARED (block_prepare()); -ENODATA nothing of this block is here (in any version). */
int block_presence(struct block_store *s, uint64_t inode, uint32_t index, struct block_presence *ret);

/* Bring the state of a block into memory and its file open. BLOCKING. Errors: -ENODATA nothing of it is here. */
int block_prepare(struct block_store *s, uint64_t inode, uint32_t index);

/* ---- reading ---- */

enum block_read_flags {
    BLOCK_READ_UNCHECKED = 1, /* the reader checks whole chunks itself against block_read_crcs(), or the file was
                                 exported: do not verify sealed chunks (those in doubt after a power cut still are) */
};

/* A stretch to pread, sendfile or hand out. Valid until block_read_end(); meanwhile the bytes stay. The file may end before
 * the stretch does: what is missing are zeros. */
struct block_read {
    int fd; /* the store's: do not close */
    uint64_t fd_offset;
    uint32_t length;     /* up to what was asked for: ends at the first chunk that is not readable, or at the length */
    struct block *block; /* the store's */
    struct block_file *file;
};

/* Find length bytes from offset within the block. Sub-chunk readers get chunks verified once a residency.
 * A read at or beyond the block's length gets length 0; one that reaches into what a power cut tore ends before it. Fast.
 * Errors: -ENODATA the first chunk is absent in this version: fill it; -CV_NOT_PREPARED: block_read_prepare();
 * -CV_DATA_DAMAGED written data whose CRC does not match, or that was lost in a power cut. */
int block_read_begin(struct block_store *s, const struct block_key *key, uint32_t offset, uint32_t length,
                     unsigned flags, struct block_read *ret);
void block_read_end(struct block_store *s, struct block_read *r);

/* Load, open and verify what block_read_begin() missed. A clean chunk that does not match its CRC is dropped, and
 * then -ENODATA says so. BLOCKING. Errors as block_read_begin(). */
int block_read_prepare(struct block_store *s, const struct block_key *key, uint32_t offset, uint32_t length,
                       unsigned flags);

/* Both and the pread in one. Returns bytes read. BLOCKING. */
int block_read(struct block_store *s, const struct block_key *key, uint32_t offset, void *p, uint32_t length);

/* CRC32C of the units of a sealed chunk and the bytes they cover. Does no disk I/O unless may_block.
 * Errors: -CV_NOT_PREPARED call it with may_block; -ENODATA not sealed in this version. */
int block_read_crcs(struct block_store *s, const struct block_key *key, uint32_t chunk, bool may_block,
                    uint32_t ret_crc[BLOCK_CHUNK_UNITS], uint32_t *ret_length);

/* A reader found a chunk damaged: look again, and drop it (clean) or flag it (dirty). BLOCKING.
 * Returns 0 it is fine; -ENODATA dropped; -CV_DATA_DAMAGED. */
int block_read_verify(struct block_store *s, const struct block_key *key, uint32_t chunk);

/* ---- descriptors for local clients ---- */

struct block_export {
    int fd;           /* read-only, the caller's to pass on and close */
    uint64_t file_id; /* to release it, and to hold against block_presence.file_id */
    bool segment;     /* a segment: the client gets offsets from us, and must know no others */
};

/* A descriptor of the file behind a read. On disk first: from now on this file is never punched, overwritten by a
 * refresh, or reused; eviction unlinks it and its bytes stay charged until block_export_release(). Export first,
 * then look at the presence: complete then stays complete. BLOCKING. */
int block_export(struct block_store *s, const struct block_read *r, struct block_export *ret);

/* All descriptors of this file that were given out are closed (sessions closed them or ended), and no block_export() of it
 * is under way. BLOCKING. */
int block_export_release(struct block_store *s, uint64_t file_id);

/* Files whose descriptors are out and that are unlinked already (after a restart: ask the sessions). Up to max ids
 * above after; returns their number. BLOCKING. */
int block_export_left(struct block_store *s, uint64_t after, uint64_t *out, int max);

/* ---- filling: clean content fetched from elsewhere ---- */

struct block_place {
    uint32_t block_bytes; /* power of two, BLOCK_BYTES_MIN to BLOCK_BYTES_MAX, the same for all blocks of an inode */
    uint32_t length;      /* bytes of this block that are part of the file, 1..block_bytes */
    uint64_t file_bytes;  /* size of the whole file; up to BLOCK_PACKED_MAX it is packed */
    uint32_t mount;
};

enum block_fill_flags { BLOCK_FILL_PINNED = 1 };

/* Begin to fill chunks [first, first + count) of a block. Space for all of them is reserved, evicting if need be. The
 * fill owns the chunks of *ret_mine; the others are there already or are being filled by somebody else (single
 * flight is the caller's). An older version of the block is dropped first. BLOCKING.
 * Errors: -CV_NO_SPACE; -EALREADY nothing is left to fill; -ESTALE a newer version is here; -CV_BUSY the older
 * version is being read or written and cannot be replaced now: serve without caching. */
int block_fill_begin(struct block_store *s, const struct block_key *key, const struct block_place *place,
                     uint32_t first, uint32_t count, unsigned flags, struct block_fill **ret, uint64_t *ret_mine);

/* Bytes of the block that the source has to give: the last chunk's end there, zeros follow. */
uint32_t block_fill_bytes(const struct block_fill *f);

/* Write bytes as they come in, offset within the block. Stretches come in any order; within one 64 KiB unit bytes
 * come in order, or the unit begins again at its start. Bytes are checksummed here. One thread at a time for each
 * chunk. BLOCKING. Errors: -EINVAL not in a chunk of this fill or not in order; -CV_NO_SPACE, -EIO the chunk is lost. */
int block_fill_write(struct block_fill *f, uint32_t offset, const void *p, uint32_t n);

/* The same in two steps, for a caller with its own ring: where to write; and that it was written. p as it came in. */
int block_fill_where(struct block_fill *f, uint32_t offset, uint32_t n, int *ret_fd, uint64_t *ret_fd_offset);
int block_fill_wrote(struct block_fill *f, uint32_t offset, const void *p, uint32_t n);

/* All bytes of the chunk are written: readable from now on. crc: what the source says the units are (checked,
 * -CV_BAD_CHECKSUM), or NULL. BLOCKING (one index write, no sync). Errors: -EAGAIN bytes are missing. */
int block_fill_seal(struct block_fill *f, uint32_t chunk, const uint32_t *crc);

/* End: chunks not sealed are given back, nothing of them stays. NULL is fine. BLOCKING. */
struct block_fill *block_fill_end(struct block_fill *f);
DEFINE_CLEANUP(struct block_fill *, block_fill_end)

/* ---- writing: content only we have ---- */

/* What a write grant says about one block; key.version is the version this grant's data gets. */
struct block_grant {
    struct block_key key;
    uint64_t epoch;
    struct block_place place; /* length: the committed valid length; the store zeroes beyond it on first contact */
    uint64_t base_version;    /* what the under file system has of this block; 0: nothing */
    uint32_t base_length;     /* bytes of it */
};

/* First contact under an epoch, repeated calls do nothing. On disk when it returns. Cached content of the
 * base version (or of the version written before) carries over. When place.length is more than is here of a dirty block, a
 * power cut took it: that stretch answers -CV_DATA_DAMAGED from now on, until it is cut off or written from its start or to
 * its end. BLOCKING.
 * Errors: -CV_STALE_EPOCH a higher epoch or version was here; -CV_BUSY being filled; -CV_NO_SPACE. */
int block_write_begin(struct block_store *s, const struct block_grant *g);

struct block_write {
    int fd;
    uint64_t fd_offset;
    uint32_t offset, length;
    struct block *block;
    struct block_file *file;
};

/* Write n bytes at offset within the block: where to. Fast when the chunks are open already. The block's length
 * grows as needed; space is reserved. End with block_write_end().
 * Errors: -CV_STALE_EPOCH; -CV_NOT_PREPARED: block_write_prepare(); -CV_NO_SPACE; -EINVAL beyond the block;
 * -CV_DATA_DAMAGED it begins and ends within what a power cut tore. */
int block_write_start(struct block_store *s, const struct block_key *key, uint64_t epoch, uint32_t offset, uint32_t n,
                      struct block_write *ret);
void block_write_end(struct block_store *s, struct block_write *w, int result);

/* Open the chunks for writing: on disk before the first byte changes. BLOCKING.
 * Errors: as block_write_start(); -ENODATA a chunk that is only partly overwritten has content in the under file
 * system that is not here: fill it (a fill with the grant's version), then try again. */
int block_write_prepare(struct block_store *s, const struct block_key *key, uint64_t epoch, uint32_t offset,
                        uint32_t n);

/* All of it in one. Returns 0 when everything is written to the file (not synced). BLOCKING. */
int block_write(struct block_store *s, const struct block_key *key, uint64_t epoch, uint32_t offset, const void *p,
                uint32_t n);

/* Everything written to this inode so far survives a power cut when this returns 0. Errors: -CV_BUSY it was cut again and again
 * meanwhile: ask again. BLOCKING. */
int block_write_sync(struct block_store *s, uint64_t inode);

/* Give the open chunks of a block their CRCs (before an upload, or when writing paused): synced first. BLOCKING.
 * Errors: -CV_STALE_EPOCH the block moved on; -CV_BUSY it is being written. */
int block_write_seal(struct block_store *s, const struct block_key *key, uint64_t epoch);

/* A record was committed that the under file system has this version and epoch: the block is clean and may be
 * evicted. Seals first. BLOCKING. Errors: -CV_STALE_EPOCH the block moved on and stays dirty; -ENODATA. */
int block_write_clean(struct block_store *s, const struct block_key *key, uint64_t epoch);
