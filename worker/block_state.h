/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the block store: what is in memory of blocks and files, and how threads share it.
 *
 * One mutex (lock) guards everything in struct block_store and below; it is never held across I/O or an index call.
 * Whoever needs the disk marks what it works on and lets go of the lock:
 *
 *   refs                  an operation holds the block in memory
 *   busy (block)          one thread changes what the block is: its version, its chunks' states. Others that want that
 *                         wait for `changed`, readers go on with what is present, writers step aside.
 *   readers, writers      descriptors of it are in use; filling: chunks a fill owns
 *   busy (file)           one thread creates, retires or empties the file
 *   loading               the row is being read
 *
 * Order: block busy, evict_lock, file busy, mark_lock, sync_lock, lock. Who evicts, and who has a file, never waits for a block but
 * tries and gives up. A state is changed in memory when the index has it, except what is dropped: that leaves memory first.
 */
#pragma once

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/list.h"
#include "base/pool.h"
#include "worker/block_dir.h"
#include "worker/block_evict.h"
#include "worker/block_format.h"
#include "worker/block_index.h"
#include "worker/block_io.h"
#include "worker/block_store.h"

#define BLOCK_PAGE    4096u
#define BLOCK_FOLDERS 258u /* files/00 to files/ff, segments, written */

struct block_file {
    struct block_file *hash_next;
    struct list blocks;          /* resident blocks with data in it */
    struct list unsynced;        /* on store.unsynced: sealed since the mark */
    struct list open;            /* on store.open_files, when fd >= 0: oldest first */
    struct list flowing;         /* on store.flowing */
    uint64_t flow_from, flow_to; /* written in sequence, and not yet on its way to the disk */
    uint64_t named;              /* store.names with its last name */
    uint32_t flow_bytes;         /* of it, at least */
    uint64_t key;                /* inode, or segment id */
    uint64_t id;                 /* file id; a segment's is its key */
    uint64_t exported;           /* as on disk */
    uint64_t condemned;          /* bytes that leave `used` when the file is unlinked */
    uint32_t refs;               /* blocks and operations */
    uint32_t users;              /* of fd */
    uint32_t writers;            /* of them */
    int fd;                      /* -1: not open */
    uint8_t type;                /* enum block_file_type */
    uint8_t shift;               /* block_shift */
    bool loading, busy;
    bool exists;  /* has its row (or will have it with the batch being made) */
    bool fresh;   /* it may have a name that is not on disk */
    bool written; /* has, or should have, its second name */
    bool linked;  /* we made sure of it */
    bool lost;    /* as on disk */
    bool missing; /* the index knows it, the file system does not */
    bool retired; /* unlinked, no longer in the table */
};

struct block {
    struct block *hash_next;
    struct list lru;
    struct list of_file;
    struct list of_opened;   /* store.opened: has, or had, open chunks */
    struct block_file *file; /* NULL: no data here */
    uint64_t inode, version, base_version, epoch;
    uint64_t present, open; /* chunks; open is part of present */
    uint64_t filling;       /* a fill owns them */
    uint64_t checked;       /* sealed chunks verified (or made) since the block became resident */
    uint64_t written;       /* content newer than base_version */
    uint64_t doubt;         /* sealed in a doubtful range */
    uint64_t damaged;       /* CRC mismatch: of present */
    struct block_heat heat;
    uint32_t index, length, base_length, mount;
    uint32_t room;                 /* open chunks are charged up to here */
    uint32_t durable;              /* dirty: as the row says: bytes of it that are on disk */
    uint32_t cuts;                 /* how often it became shorter */
    struct block_stretches torn;   /* answers -CV_DATA_DAMAGED */
    struct block_stretches mended; /* torn as its row says: what was written anew is torn until it is on disk */
    struct block_stretches gaps;   /* some of the stretches nothing was written to yet, of the newest */
    struct block_stretches filled; /* as in the writing row */
    uint32_t entry_offset;         /* packed: in the segment */
    uint32_t next_offset;          /* where the last read ended */
    uint32_t refs, readers, writers;
    uint32_t calm; /* looks for calm blocks (seal_calm()) since the last write */
    bool exists;   /* has a row */
    bool loading, busy, packed, pinned, lost;
    bool unsaved; /* length or torn are newer than the row's */
    bool watched; /* has its writing row: may be written */
    bool recent;  /* used since unloading last looked */
};

struct block_seg_writer {
    struct block_file *file; /* NULL: none yet */
    uint64_t at;             /* next free byte */
    bool rolling;
};

struct block_store {
    struct block_dir dir;
    struct block_index *index;
    struct block_store_options options;
    uint64_t boot; /* hash of the boot id, not 0 */
    uint8_t boot_id[16];

    pthread_mutex_t evict_lock; /* one eviction at a time; held across I/O */
    pthread_mutex_t mark_lock;  /* one sync of everything at a time; held across I/O */
    pthread_mutex_t sync_lock;  /* writes of index.mark; held across I/O */
    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t changed;     /* busy, loading, filling, writers, rolling went down */

    struct block **blocks;
    uint32_t block_mask;
    struct pool block_pool;
    struct list lru; /* resident blocks, oldest first */
    struct block_file **files;
    uint32_t file_mask;
    struct pool file_pool;
    struct list open_files;
    uint32_t open_count;
    uint64_t block_count, file_count;
    struct list opened; /* blocks with open chunks: to be sealed when writing has paused */

    uint64_t capacity; /* may be lowered while the disk is full */
    uint64_t used, reserved, left;

    uint64_t seal_next, seal_limit;     /* next number; numbers below the limit may be given out */
    uint64_t id_next, id_end, id_limit; /* file ids that have their creating row: [next, end) */
    bool limit_busy;
    struct list unsynced; /* files, each held */
    struct list flowing;  /* files, each held: block_flow.c */
    pthread_cond_t flow_wanted;
    bool flow_ended;
    struct block_file *graveyard; /* through hash_next: to be closed and released */
    struct block_row_dir row;     /* mark and doubts; boot id */
    uint64_t hand_inode, hand_segment;
    uint32_t hand_index;
    uint64_t compact_next; /* evict_lock */

    struct block_seg_writer fills, survivors; /* segments being appended to */

    int mark_fd;
    uint64_t mark_ns;                      /* when index.mark was written last */
    uint64_t names;                        /* given to files so far */
    uint64_t folder_synced[BLOCK_FOLDERS]; /* names up to this one are on disk */
    int failed;
    struct block_store_status stats; /* counters only */
};

/* ---- errors (block_store.c) ---- */

/* The directory takes nothing new any more. Logs once. Returns r. */
int block_store_fail(struct block_store *s, int r, const char *what);

/* -CV_STOPPING when the directory left service. */
int block_store_check(struct block_store *s);

/* Judge an error of an index call: damage is remembered for the next open. Returns r. */
int block_store_index_error(struct block_store *s, int r);

/* block_index_write, judged. */
int block_store_commit(struct block_store *s, struct block_batch *b, bool sync);

/* Write index.mark when it is older than a second (or at once). */
int block_store_mark(struct block_store *s, bool at_once);

/* ---- numbers (block_store.c); lock not held, BLOCKING ---- */
int block_store_file_id(struct block_store *s, uint64_t *ret); /* its creating row is on disk */

/* f is to be synced when the mark moves next. Lock held. */
void block_store_unsynced(struct block_store *s, struct block_file *f);

/* [from, from + n) of f was written (block_flow.c). Lock held. */
void block_flow_note(struct block_store *s, struct block_file *f, uint64_t from, uint32_t n);

/* A seal number for data that is written to f; f is synced before the mark reaches the number. */
int block_store_seal(struct block_store *s, struct block_file *f, uint64_t *ret);

/* ---- space (block_space.c) ---- */

/* Reserve bytes, evicting if need be. Lock not held, no file held, BLOCKING. Errors: -CV_NO_SPACE. */
int block_space_reserve(struct block_store *s, uint64_t bytes);

/* Reserve from what is held back for survivors of eviction. */
int block_space_reserve_survivor(struct block_store *s, uint64_t bytes);

void block_space_unreserve(struct block_store *s, uint64_t bytes); /* lock held */

/* What has to be freed before bytes fit. */
uint64_t block_space_missing(struct block_store *s, uint64_t bytes);

/* Judge an error of a data write. A disk that is full though there should be room: what is used counts as all there is,
 * until block_space_look() finds room again (-CV_NO_SPACE). Anything else: the directory leaves service. */
int block_space_write_error(struct block_store *s, int r);
void block_space_look(struct block_store *s);

/* Evict until bytes can be reserved (block_hand.c). Lock and file claims not held, BLOCKING. Errors: -CV_NO_SPACE. */
int block_hand_make_room(struct block_store *s, uint64_t bytes);

/* What chunk is charged, in bytes. */
static inline uint32_t block_pages(uint32_t end, uint32_t chunk)
{
    uint32_t start = chunk * BLOCK_CHUNK_BYTES;
    uint32_t n = end <= start ? 0 : min(end - start, BLOCK_CHUNK_BYTES);
    return (n + BLOCK_PAGE - 1) / BLOCK_PAGE;
}
static inline uint32_t block_chunk_charge(const struct block *b, uint32_t chunk)
{
    return BLOCK_PAGE * block_pages(b->open >> chunk & 1 ? b->room : b->length, chunk);
}
uint64_t block_charge(const struct block *b, uint64_t chunks);

/* ---- blocks (block_state.c) ---- */

/* Lock held. NULL: not resident. */
struct block *block_find(struct block_store *s, uint64_t inode, uint32_t index);

/* The block, loaded if need be; exists says whether there is anything. Lock not held, BLOCKING. Ends with
 * block_unhold(). Errors: -CV_BUSY the memory budget is used up by blocks in use. */
int block_hold(struct block_store *s, uint64_t inode, uint32_t index, struct block **ret);
void block_unhold(struct block_store *s, struct block *b);
void block_unhold_locked(struct block_store *s, struct block *b);

/* b may have open chunks now. Lock held. */
void block_note_open(struct block_store *s, struct block *b);

/* Become the one who changes the block. Lock held; claim waits, BLOCKING. */
void block_claim(struct block_store *s, struct block *b);
bool block_try_claim(struct block_store *s, struct block *b);
void block_unclaim(struct block_store *s, struct block *b);

/* hold and claim in one, and back. Lock not held. */
int block_take(struct block_store *s, uint64_t inode, uint32_t index, struct block **ret);
void block_give_back(struct block_store *s, struct block *b);

/* Say that the block's data is in f from now on (NULL: nowhere). Lock held. */
void block_attach(struct block_store *s, struct block *b, struct block_file *f);

static inline bool block_dirty(const struct block *b)
{
    return b->exists && b->version != b->base_version;
}

/* Chunks of which we know that they are zeros: never here, never in the under file system. */
uint64_t block_zero_chunks(const struct block *b);

static inline uint64_t block_bits(uint32_t first, uint32_t count)
{
    return (count >= 64 ? ~0ull : (1ull << count) - 1) << first;
}
static inline uint32_t block_chunk_count(uint32_t length)
{
    return (length + BLOCK_CHUNK_BYTES - 1) / BLOCK_CHUNK_BYTES;
}
static inline uint32_t block_chunk_length(const struct block *b, uint32_t chunk)
{
    uint32_t start = chunk * BLOCK_CHUNK_BYTES;
    return b->length <= start ? 0 : min(b->length - start, BLOCK_CHUNK_BYTES);
}

/* Rows from state. */
void block_put_row(struct block_store *s, struct block_batch *batch, const struct block *b);
void block_add_charge(struct block_store *s, struct block_batch *batch, uint32_t mount, int64_t delta);
struct block_row_chunk block_open_row(const struct block *b, uint32_t room, uint32_t chunk);
void block_put_packed_row(struct block_batch *batch, const struct block *b, uint64_t segment, uint32_t offset,
                          const uint32_t unit_crc[2], uint64_t seal);
void block_put_chunk(struct block_batch *batch, const struct block *b, uint32_t chunk, struct block_row_chunk *row);
static inline int64_t block_packed_bytes(uint32_t length)
{
    return (int64_t)((sizeof(struct block_entry_head) + length + BLOCK_SEGMENT_ALIGN - 1) / BLOCK_SEGMENT_ALIGN *
                     BLOCK_SEGMENT_ALIGN);
}

/* ---- how far written blocks are on disk (block_durable.c) ---- */

/* fdatasync the file and write down how long its written blocks are on disk. Returns 0; *ret_all false: blocks that are
 * being changed come another time (never when patient: then it waits for them). In use, lock not held, BLOCKING. */
int block_durable_save(struct block_store *s, struct block_file *f, bool patient, bool *ret_all);

/* Something is written to the block from now on; or all of it is sealed, or gone. */
void block_durable_put(struct block_store *s, struct block_batch *batch, const struct block *b);
void block_durable_end(struct block_batch *batch, const struct block *b);

/* Gaps: what nothing was written to yet, below the length that is on disk. A write into one that is lost would be taken for a
 * hole: so the writing row says first that it is going to be filled. Lock held.
 * note: a write of [from, to) begins; false: it has to be prepared. fill: prepare it; false: a sync has to come first.
 * opened: chunks of which nothing was here. */
bool block_durable_note(struct block *b, uint32_t from, uint32_t to);
bool block_durable_fill(const struct block *b, uint32_t from, uint32_t to, struct block_stretches *filled);
void block_durable_opened(struct block *b, uint64_t chunks);

/* At start, before and after block_drop_recover(): after another boot files end where what is known to be on disk does;
 * after the same one (a kill) what was written and not synced is synced with the next mark. */
int block_durable_recover(struct block_store *s);
int block_durable_resume(struct block_store *s);

/* Is the row behind what is in memory? */
static inline bool block_unsaved(const struct block *b)
{
    return b->exists && b->version != b->base_version &&
           (b->durable < b->length || block_stretches_any(&b->filled) ||
            memcmp(&b->torn, &b->mended, sizeof(b->torn)) != 0);
}

/* ---- files (block_file.c) ---- */

/* The backing file of an inode, or a segment, from memory or its row; exists says whether there is one. Lock not
 * held, BLOCKING. Ends with block_file_unhold(). */
int block_file_hold(struct block_store *s, enum block_file_type type, uint64_t key, struct block_file **ret);
void block_file_unhold(struct block_store *s, struct block_file *f);
void block_file_unhold_locked(struct block_store *s, struct block_file *f);

void block_file_claim(struct block_store *s, struct block_file *f);   /* lock held, waits */
void block_file_unclaim(struct block_store *s, struct block_file *f); /* lock held */

/* Make the file of one that has none, in use by the caller afterwards. id has its creating row already. Claimed,
 * lock not held, BLOCKING. The row is for the caller's batch, which is where the creating row ends too. */
int block_file_create(struct block_store *s, struct block_file *f, uint64_t id, uint8_t shift);
void block_file_put_row(struct block_store *s, struct block_batch *batch, const struct block_file *f); /* backing */

/* Open it and count a user. Lock not held, BLOCKING. Errors: -ENOENT the file is gone. */
int block_file_use(struct block_store *s, struct block_file *f);
void block_file_unuse_locked(struct block_store *s, struct block_file *f);
void block_file_unuse(struct block_store *s, struct block_file *f);

bool block_file_exported(const struct block_store *s, const struct block_file *f);

/* It has got a name just now. Lock held. */
void block_file_named(struct block_store *s, struct block_file *f);

/* fdatasync, and its folders unless they were synced since it got its names. In use, lock not held, BLOCKING. An error takes the directory out of service. */
int block_file_sync(struct block_store *s, struct block_file *f);

/* The ways a file goes. Rows first: put_going adds them to a batch that is then synced; unlink does the rest, and the
 * bytes leave `used`, or are counted as left if its descriptors are out. Claimed, lock not held, BLOCKING. */
void block_file_put_going(struct block_store *s, struct block_batch *batch, const struct block_file *f, uint64_t left);
int block_file_unlink(struct block_store *s, struct block_file *f, uint64_t bytes);

/* Unlink a backing file in which no block has data any more; its condemned bytes go with it. Does nothing if one has.
 * Held, not claimed, lock not held, BLOCKING. */
int block_file_reap(struct block_store *s, struct block_file *f);

/* Close what is not used any more. Lock not held, BLOCKING. */
void block_files_bury(struct block_store *s);

/* ---- whole files (block_retire.c) ---- */

/* Dropping all blocks of a backing file in two steps, so that many files share one synced batch. prepare claims the file
 * and its blocks and adds to the batch; after the commit finish unlinks; abort undoes. All blocks must be clean,
 * unpinned, not being filled or written, and, if its descriptors are not out, not being read; with only_cold such as
 * the hand would take. held: a block of it the caller has claimed, or NULL. BLOCKING.
 * Errors: -CV_BUSY it is not so; -ENOENT the file is gone. */
struct block_retire {
    struct block_file *file;
    struct block *held;
    struct block **blocks; /* claimed and held by us, but for `held` */
    uint32_t count, room;
    uint64_t bytes;
};
int block_retire_prepare(struct block_store *s, struct block_file *f, struct block *held, bool only_cold,
                         struct block_batch *batch, struct block_retire *ret);
int block_retire_finish(struct block_store *s, struct block_retire *x);
void block_retire_abort(struct block_store *s, struct block_retire *x);

/* All of it for one file. */
int block_retire(struct block_store *s, struct block_file *f, struct block *held);

/* ---- dropping chunks (block_drop.c) ---- */

/* Give up chunks of a claimed block: rows (synced), memory, disk; the last one takes row and file along. The caller has
 * made sure nobody fills, writes or needs them. A file that was exported goes as a whole.
 * Errors: -CV_BUSY it is exported and cannot be retired now. BLOCKING. */
int block_drop(struct block_store *s, struct block *b, uint64_t chunks);

/* All of a claimed block, written data and epoch too: rows (synced), memory, disk; also in a file that was exported.
 * BLOCKING. */
int block_drop_all(struct block_store *s, struct block *b);

/* Forget all of a claimed block, written data and epoch too. The bytes stay in the file, condemned, until it is reaped. */
int block_forget(struct block_store *s, struct block *b);

/* Something of this block is pending. */
void block_drop_put_pending(struct block_batch *batch, const struct block *b, uint32_t cut);

/* Cut a block's bytes to length: zeros from there on, and the file ends there if this was its last block. In use; nobody
 * else writes to the file. BLOCKING. */
int block_drop_cut(struct block_store *s, struct block_file *f, uint32_t index, uint32_t length);

/* Punch chunks of a block that are absent. Lock not held, BLOCKING. */
int block_drop_punch(struct block_store *s, struct block_file *f, uint32_t index, uint64_t chunks);

/* Nothing of this block is pending any more. settled: claimed, lock not held, BLOCKING; for want of memory that is left to the
 * next start, so not after a cut. */
void block_drop_put_settled(struct block_batch *batch, const struct block *b);
int block_drop_settled(struct block_store *s, struct block *b);

/* At start: punch what fills and drops left behind. */
int block_drop_recover(struct block_store *s);

/* ---- segments (block_segment.c) ---- */

/* Append a small file; the entry is written, not synced. Lock not held, BLOCKING. *ret_file is held. */
int block_segment_append(struct block_store *s, struct block_seg_writer *w, struct block_entry_head *head,
                         const void *data, struct block_file **ret_file, uint32_t *ret_offset);

/* Copy what is wanted out of a closed segment, drop the rest, unlink it: the hand passes (cold entries go), or, with
 * keep_cold, compaction. evict_lock held, BLOCKING. Errors: -CV_BUSY in use, or nothing to gain. */
int block_segment_evict(struct block_store *s, uint64_t id, bool keep_cold, uint64_t *ret_freed);

/* At start: close what was being appended to. BLOCKING. */
int block_segment_recover(struct block_store *s);

/* ---- shared by fills and writes (block_fill.c) ---- */

/* The backing file of an inode: held, in use and claimed; made if there is none. Lock not held, BLOCKING.
 * Errors: -EINVAL other block size; -CV_BUSY its file is missing; -CV_DATA_DAMAGED lost. */
int block_fill_file(struct block_store *s, uint64_t inode, uint32_t block_bytes, struct block_file **ret);

/* ---- CRCs (block_check.c) ---- */

/* Verify sealed chunk c of a claimed block against the index. In memory: checked, or damaged. Lock not held, BLOCKING.
 * Returns 0 fine, -CV_DATA_DAMAGED it does not match (clean or not), other errors. */
int block_check_chunk(struct block_store *s, struct block *b, uint32_t chunk);

/* What becomes of the damaged chunks of a claimed block: clean ones are dropped (-ENODATA), written ones stay flagged
 * (-CV_DATA_DAMAGED). 0: there are none. BLOCKING. */
int block_check_settle(struct block_store *s, struct block *b);

/* The CRCs of a sealed chunk from its row. BLOCKING, unless must_not_block. */
int block_check_row(struct block_store *s, const struct block *b, uint32_t chunk, bool must_not_block,
                    uint32_t ret_crc[BLOCK_CHUNK_UNITS], uint32_t *ret_length);

/* Where in its file byte offset of the block lies. */
uint64_t block_place_of(const struct block *b, uint32_t offset);
