/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block store: what is on disk. Formats are exact: a reader that meets an unknown version or a wrong size stops
 * (-CV_FORMAT_TOO_NEW, -CV_BAD_FORMAT), it never guesses. docs/block-store.md has the drawing.
 *
 *   DIR/identity              whose directory this is (struct block_identity), written once by block_store_format()
 *   DIR/lock                  held (flock) while a worker has the directory open
 *   DIR/files/00..ff/<id>     backing files: name is the file id in 16 hex digits, folder its lowest byte
 *   DIR/segments/<id>         segments: struct block_segment_head, then entries (struct block_entry_head + data)
 *   DIR/written/<inode>.<id>  second name of every backing file that holds data no under file system has: what is
 *                             kept when the index cannot be read any more
 *   DIR/index/                RocksDB, one a worker
 *   DIR/index.mark            sequence number the index has reached on disk (struct block_index_mark)
 *
 * Integers are little-endian, in keys big-endian, so that RocksDB's bytewise order is the numeric order. A row is one
 * of the packed structs below; its last field is the CRC32C of the key followed by the row without that field.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/block_stretch.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are copied to disk as they are in memory");

#define BLOCK_FORMAT_VERSION 1

/* ---- files ---- */

#define BLOCK_IDENTITY_MAGIC 0x5249445f4b4c4256ull /* "VBLK_DIR" */
#define BLOCK_MARK_MAGIC     0x4b52414d5f584449ull /* "IDX_MARK" */
#define BLOCK_SEGMENT_MAGIC  0x544d4745535f4b42ull /* "BK_SEGMT" */
#define BLOCK_ENTRY_MAGIC    0x52544e45u           /* "ENTR" */

struct block_identity {
    uint64_t magic;
    uint32_t version; /* BLOCK_FORMAT_VERSION */
    uint32_t directory_id;
    uint8_t cluster[16]; /* uuid */
    uint64_t worker_id;
    uint64_t created_ns; /* wall clock */
    uint32_t kind;       /* enum block_kind */
    uint8_t zero[72];
    uint32_t crc; /* of all before */
} __attribute__((packed));
static_assert(sizeof(struct block_identity) == 128, "disk format");

/* Rewritten in place, synced, at most once a second and at close: an index that ends below it has lost rows. */
struct block_index_mark {
    uint64_t magic;
    uint32_t version;
    uint32_t crc;      /* of all else, this field taken as 0 */
    uint64_t sequence; /* RocksDB sequence number of the last synced batch */
    uint8_t zero[40];
} __attribute__((packed));
static_assert(sizeof(struct block_index_mark) == 64, "disk format");

#define BLOCK_SEGMENT_ALIGN 64u /* entries begin at multiples of it */

struct block_segment_head {
    uint64_t magic;
    uint32_t version;
    uint32_t directory_id;
    uint64_t segment_id;
    uint8_t zero[36];
    uint32_t crc; /* of all before */
} __attribute__((packed));
static_assert(sizeof(struct block_segment_head) == BLOCK_SEGMENT_ALIGN, "disk format");

/* One small file in a segment; its bytes follow. */
struct block_entry_head {
    uint32_t magic;
    uint32_t version;
    uint64_t inode;
    uint64_t block_version;
    uint32_t length; /* bytes of data, up to 128 KiB */
    uint32_t mount;
    uint32_t crc[2]; /* CRC32C of each 64 KiB unit of data; 0 for one that is not there */
    uint8_t zero[20];
    uint32_t head_crc; /* of all before */
} __attribute__((packed));
static_assert(sizeof(struct block_entry_head) == BLOCK_SEGMENT_ALIGN, "disk format");

/* ---- rows ---- */

/* First byte of a key, and what follows it. */
enum block_row_kind {
    BLOCK_ROW_STORE = 'A',    /*                                        struct block_row_store */
    BLOCK_ROW_DIR = 'd',      /* directory id be32                      struct block_row_dir */
    BLOCK_ROW_LIMIT = 'n',    /* directory id be32                      struct block_row_limit */
    BLOCK_ROW_CREATING = 'c', /* file id be64                           struct block_row_creating */
    BLOCK_ROW_FILE = 'f',     /* inode be64, directory id be32          struct block_row_file */
    BLOCK_ROW_SEGMENT = 's',  /* segment id be64                        struct block_row_segment */
    BLOCK_ROW_ACTIVE = 'a',   /* segment id be64                        struct block_row_mark: still appended to */
    BLOCK_ROW_LEFT = 'x',     /* file id be64                           struct block_row_left */
    BLOCK_ROW_BLOCK = 'b',    /* inode be64, block be32                 struct block_row_block */
    BLOCK_ROW_CHUNK = 'k',    /* inode be64, block be32, chunk u8       struct block_row_chunk */
    BLOCK_ROW_PENDING = 'p',  /* inode be64, block be32                 struct block_row_pending */
    BLOCK_ROW_WRITING = 'w',  /* inode be64, block be32                 struct block_row_writing */
    BLOCK_ROW_TORN = 't',     /* inode be64, block be32                 struct block_row_torn */
    /* Sums: a bare u64 changed by RocksDB's uint64add merge, in the batch whose rows change it. */
    BLOCK_ROW_USED = 'u',  /* directory id be32: bytes charged */
    BLOCK_ROW_MOUNT = 'm', /* mount be32: bytes cached or written of this mount */
    BLOCK_ROW_DEAD = 'D',  /* segment id be64: bytes of entries nobody wants any more */
};
#define BLOCK_ROW_KEY_MAX 16

/* Whose index this is. */
struct block_row_store {
    uint8_t version;
    uint8_t cluster[16];
    uint64_t worker_id;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_store) == 29, "disk format");

/* Seals get rising numbers. Data of numbers up to synced_seal is on disk. Chunks with a number in a doubtful range
 * were sealed shortly before a power cut or a failed fsync: they are verified before they are served, each time. */
#define BLOCK_DOUBTS 4
struct block_row_dir {
    uint8_t version;
    uint8_t boot_id[16]; /* of the boot synced_seal belongs to */
    uint64_t synced_seal;
    uint64_t hand_inode; /* where eviction goes on */
    uint64_t hand_segment;
    struct {
        uint64_t first, last; /* 0, 0: none */
    } doubt[BLOCK_DOUBTS];
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_dir) == 109, "disk format");

/* Numbers below these may have been given out; a start goes on from here. */
struct block_row_limit {
    uint8_t version;
    uint64_t file_id;
    uint64_t seal;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_limit) == 21, "disk format");

enum block_file_type { BLOCK_FILE_BACKING = 1, BLOCK_FILE_SEGMENT = 2 };

/* A name that may exist though no file or segment row knows it. Synced before the file is created or unlinked;
 * deleted in the batch that gives the file its row. What is left of these at start is unlinked. */
struct block_row_creating {
    uint8_t version;
    uint8_t type; /* enum block_file_type */
    uint32_t directory_id;
    uint64_t inode; /* not 0: also a name in DIR/written */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_creating) == 18, "disk format");

/* The backing file of an inode in one directory. */
struct block_row_file {
    uint8_t version;
    uint8_t block_shift; /* block i begins at i << block_shift */
    uint8_t written;     /* DIR/written holds a second name */
    uint8_t lost;        /* the index lost what it knew of written data in here: answers -CV_DATA_DAMAGED */
    uint64_t file_id;
    uint64_t exported; /* hash of the boot id in which a descriptor left; another boot's means none is out */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_file) == 24, "disk format");

struct block_row_segment {
    uint8_t version;
    uint8_t closed; /* nothing is appended any more; bytes is its length */
    uint16_t zero;
    uint32_t directory_id;
    uint64_t bytes;    /* charged: room taken at creation, length once closed */
    uint64_t exported; /* as in struct block_row_file */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_segment) == 28, "disk format");

/* An unlinked file whose descriptors are still out: its bytes stay charged. Void after another boot id. */
struct block_row_left {
    uint8_t version;
    uint8_t type;
    uint32_t directory_id;
    uint64_t bytes;
    uint64_t exported;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_left) == 26, "disk format");

enum block_row_flags {
    BLOCK_FLAG_PACKED = 1, /* data is in a segment */
    BLOCK_FLAG_PINNED = 2, /* not evicted */
    BLOCK_FLAG_TORN = 8,   /* it has a struct block_row_torn */
    BLOCK_FLAG_LOST = 4,   /* written under a grant that was given up: answers -CV_DATA_DAMAGED */
};

/* One block. Written data is there (the block is dirty) while block_version differs from base_version. A row may be
 * all that is left of a block: it keeps the highest epoch. */
struct block_row_block {
    uint8_t version;
    uint8_t flags;
    uint16_t zero;
    uint32_t mount;
    uint64_t block_version;
    uint64_t base_version; /* what the under file system has; 0: nothing */
    uint64_t epoch;        /* highest write epoch seen; 0: never written here */
    uint32_t length;       /* bytes of the block that are part of the file, here; of a dirty one: that are on disk */
    uint32_t base_length;  /* below it a chunk that is absent here has content in the under file system; above, zeros */
    uint64_t file_id;      /* backing file or segment; 0: no data here */
    /* packed only */
    uint32_t entry_offset; /* of the struct block_entry_head in the segment */
    uint32_t unit_crc[2];
    uint64_t seal; /* as in struct block_row_chunk */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_block) == 72, "disk format");

enum block_chunk_state { BLOCK_CHUNK_ABSENT = 0, BLOCK_CHUNK_OPEN = 1, BLOCK_CHUNK_SEALED = 2 };

/* One chunk of 1 MiB that is not absent. Sealed ones reach to the end of the chunk or of the block: a block does not
 * grow past a shorter sealed chunk without opening it. */
struct block_row_chunk {
    uint8_t version;
    uint8_t state;          /* enum block_chunk_state */
    uint16_t pages;         /* charged for it, in 4 KiB; an open chunk's length may grow that far */
    uint32_t length;        /* sealed: bytes the CRCs cover */
    uint64_t block_version; /* of the block when this content was made: above base_version it is written data */
    uint64_t seal;          /* sealed: its number, see struct block_row_dir */
    uint32_t unit_crc[16];  /* sealed: CRC32C of each 64 KiB unit; 0 for one that is not there */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_chunk) == 92, "disk format");

/* Chunks of this block are being filled, or were dropped and are being punched: the next start punches what is absent.
 * With a cut the block is being cut to that length: the next start does it. */
#define BLOCK_CUT_NONE UINT32_MAX
struct block_row_pending {
    uint8_t version;
    uint32_t cut; /* bytes of the block, or BLOCK_CUT_NONE */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_pending) == 9, "disk format");

/* Written data of this block may be newer than what is on disk: its file may be longer than the row says, and when the
 * boot is another one by now, that is not to be believed. On disk before the first byte is written. */
struct block_row_writing {
    uint8_t version;
    uint64_t boot;                 /* hash of the boot id */
    struct block_stretches filled; /* below the row's length, written where nothing was: they may be holes as well */
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_writing) == 45, "disk format");

/* Bytes that were acknowledged and then lost in a power cut: they answer -CV_DATA_DAMAGED. */
struct block_row_torn {
    uint8_t version;
    struct block_stretches torn;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_torn) == 37, "disk format");

/* A row that only has to be there. ACTIVE: the next start closes this segment at its length. */
struct block_row_mark {
    uint8_t version;
    uint32_t crc;
} __attribute__((packed));
static_assert(sizeof(struct block_row_mark) == 5, "disk format");

/* ---- keys and checks (block_format.c) ---- */

struct block_row_key {
    uint8_t n;
    uint8_t p[BLOCK_ROW_KEY_MAX];
};

struct block_row_key block_key_plain(enum block_row_kind kind);            /* 'A' */
struct block_row_key block_key_u32(enum block_row_kind kind, uint32_t id); /* directory or mount */
struct block_row_key block_key_u64(enum block_row_kind kind, uint64_t id); /* file id, segment id, or a prefix */
struct block_row_key block_key_file(uint64_t inode, uint32_t directory_id);
struct block_row_key block_key_block(enum block_row_kind kind, uint64_t inode,
                                     uint32_t index); /* also a chunk prefix */
struct block_row_key block_key_chunk(uint64_t inode, uint32_t index, uint8_t chunk);

/* Set version and crc of a row of n bytes before it is written under key. */
void block_row_finish(const struct block_row_key *key, void *row, size_t n);

/* Copy what was read under key into row. Errors: -CV_BAD_FORMAT wrong size; -CV_FORMAT_TOO_NEW a later version;
 * -CV_BAD_CHECKSUM damaged. */
int block_row_read(const struct block_row_key *key, const void *p, size_t size, void *row, size_t n);

/* Set and check the checksums of the files' heads. Check errors as block_row_read(). */
void block_identity_finish(struct block_identity *d);
int block_identity_check(const struct block_identity *d);
void block_mark_finish(struct block_index_mark *d);
int block_mark_check(const struct block_index_mark *d);
void block_segment_head_finish(struct block_segment_head *d);
int block_segment_head_check(const struct block_segment_head *d);
void block_entry_head_finish(struct block_entry_head *d);
int block_entry_head_check(const struct block_entry_head *d);
