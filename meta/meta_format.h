/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the namespace looks like on disk and in the log: the tables of the metadata database, row keys and row values (in
 * the log they stand in a redo record: meta_redo.h). Exact: an unknown version, table or presence bit is
 * -CV_FORMAT_TOO_NEW, a cut or trailing byte -CV_BAD_FORMAT; neither is ever skipped over. No state: any thread.
 *
 * Notation: u8, u16, u32, u64 little-endian in values, big-endian in keys (be), so that bytewise order is numeric
 * order. v = varint: 7 bits a byte, low bits first, at most 10 bytes, shortest form only. z = varint of a signed
 * difference, zigzag. bytes = v length, then that many bytes.
 *
 * Keys (a key in the family "small" or "queue" begins with the table's letter):
 *
 *      inode    id be64                            mount    'M' id be32
 *      dentry   parent be64, name                  quota    'Q' id be64
 *      extent   inode be64, block be32             job      'J' id be64
 *      ttl      't' due be64, inode be64           worker   'W' id be64
 *      mirror   'm' mount be32, sequence be64      session  'S' id be64
 *      inline   'i' inode be64                     slot     's' session be64, slot be16
 *      xattr    'x' inode be64, name               grant    'g' kind u8
 *      orphan   'o' inode be64                     state    'a'
 *
 * Values begin with a version byte (1 today; of a dentry the high four bits):
 *
 *      inode    version u8, mode u16, present v, change v, uid v, gid v, nlink v, size v, parent v, flags v,
 *               ctime u64, then z: ctime - mtime, ctime - atime, ctime - btime (ns since 1970, signed); then what
 *               `present` says is there, in the order of enum meta_present
 *      dentry   version << 4 | type (DT_*), child v
 *      extent   version u8, version v, epoch v, valid length v, replica count v, each u64
 *      xattr, inline                the bytes behind the version
 *      orphan   version u8, since u64 (ns)
 *      session  version u8, slots v, opened u64, pid v, host bytes, program bytes, mount point bytes
 *      slot     version u8, sequence v, type u16, flags v, inode v, other v, handle v
 *      grant    version u8, limit v: ids below it were granted at some time. Kind 0: of inodes and sessions; 1: of mounts
 *      state    version u8, struct meta_state in its order (u64 each, then feature level u32, incarnation u32)
 *      mount    version u8, inode v, created u64, mode u8, flags v, written u8, name bytes, path bytes, uri bytes,
 *               params v, each: name bytes, value bytes
 *      worker   version u8, weight v, in u8, address bytes, socket bytes, host bytes, boot bytes
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"

#define META_ROW_VERSION 1

/* Records of a level are written only when it is committed (META_OP level, cv upgrade finish).
 *      1  the beginning
 *      2  ack modes of mounts: redo kinds level and mount_set, an ack mode among the flags of a mount row */
#define META_FEATURE_LEVEL 2 /* the highest this program knows */
#define META_LEVEL_ACKS    2

#define META_NAME_MAX    255
#define META_TARGET_MAX  4095
#define META_XATTR_MAX   65536 /* value; also the sum of an inode's names */
#define META_ETAG_MAX    255
#define META_UFS_AT_MAX  2048
#define META_KEY_MAX     272
#define META_VALUE_MAX   (META_XATTR_MAX + 16)
#define META_INODE_MAX   8192 /* bytes of an encoded inode row */
#define META_SLOTS_MAX   1024 /* per session */
#define META_MOUNTS_MAX  1024
#define META_MOUNT_MAX   16384 /* bytes of an encoded mount row */
#define META_PATH_MAX    4096  /* of a mount, also its uri and the value of a param */
#define META_PARAMS_MAX  64
#define META_WORKERS_MAX 4096
#define META_WORKER_MAX  1100 /* bytes of an encoded worker row */
#define META_ROOT        1ull
#define META_FIRST_ID    1024ull      /* ids below are for what exists from the start */
#define META_ID_LIMIT    (1ull << 48) /* top 16 bits: the shard, 0 */
#define META_BLOCK_SHIFT 26           /* of files whose row names no other */

/* The column families of the metadata database. */
#define META_FAMILIES_(F) F(inode) F(dentry) F(extent) F(queue) F(small)
enum meta_family {
#define F(name) META_FAMILY_##name,
    META_FAMILIES_(F)
#undef F
        META_FAMILY_COUNT
};
const char *meta_family_name(enum meta_family family); /* "inode" */

/* TABLE(name, code, family, letter); codes are retired, never reused */
// clang-format off
#define META_TABLES_(TABLE)                                                                                            \
    TABLE(inode,   1,  inode,  0)   TABLE(dentry,  2,  dentry, 0)   TABLE(extent,  3,  extent, 0)                        \
    TABLE(ttl,     4,  queue,  't') TABLE(mirror,  5,  queue,  'm') TABLE(inline,  6,  small,  'i')                      \
    TABLE(xattr,   7,  small,  'x') TABLE(orphan,  8,  small,  'o') TABLE(mount,   9,  small,  'M')                      \
    TABLE(quota,   10, small,  'Q') TABLE(job,     11, small,  'J') TABLE(worker,  12, small,  'W')                      \
    TABLE(session, 13, small,  'S') TABLE(slot,    14, small,  's') TABLE(grant,   15, small,  'g')                      \
    TABLE(state,   16, small,  'a')
// clang-format on
enum meta_table {
#define TABLE(name, code, family, letter) META_TABLE_##name = code,
    META_TABLES_(TABLE)
#undef TABLE
        META_TABLE_COUNT = 17
};
const char *meta_table_name(enum meta_table table);        /* "inode"; "?" for none of ours */
enum meta_family meta_table_family(enum meta_table table); /* of a table of ours */
bool meta_table_known(uint8_t code);

/* --- keys. out has META_KEY_MAX bytes; the length is returned. ------------------------------------------------- */
uint32_t meta_key_inode(uint64_t inode, uint8_t *out);
uint32_t meta_key_dentry(uint64_t parent, struct text name, uint8_t *out); /* empty name: the prefix of the directory */
uint32_t meta_key_extent(uint64_t inode, uint32_t block, uint8_t *out);
uint32_t meta_key_xattr(uint64_t inode, struct text name, uint8_t *out); /* empty name: the prefix */
/* Of inline, orphan, quota, job, worker, session. */
uint32_t meta_key_id(enum meta_table table, uint64_t id, uint8_t *out);
uint32_t meta_key_slot(uint64_t session, uint32_t slot, uint8_t *out);
uint32_t meta_key_grant(uint8_t kind, uint8_t *out);
uint32_t meta_key_mount(uint32_t mount, uint8_t *out);
uint32_t meta_key_state(uint8_t *out);

/* Has the key the shape its table gives it? */
bool meta_key_fits(enum meta_table table, struct text key);

/* --- values. Encoders return the length written to out (room: stated there). Decoders: -CV_BAD_FORMAT,
 * -CV_FORMAT_TOO_NEW; decoded text borrows from the value. ------------------------------------------------------- */

/* Optional parts of an inode row, in this order. */
enum meta_present {
    META_HAS_RDEV = 1,         /* rdev v */
    META_HAS_TARGET = 2,       /* target bytes */
    META_HAS_ENTRIES = 4,      /* entries v */
    META_HAS_BASE_VERSION = 8, /* base_version v, base_bytes v, epoch v */
    META_HAS_UFS = 16,         /* ufs_flags v, ufs_mtime u64, ufs_length v, etag bytes */
    META_HAS_UFS_AT = 32,      /* ufs_at bytes */
    META_HAS_TTL = 64,         /* ttl_due u64, ttl_action u8 */
    META_HAS_POLICY = 128,     /* replicas u8, tier u8, policy_flags u8, block_shift u8 (at most 30) */
    META_HAS_MOUNT = 256,      /* mount v */
    META_HAS_XATTRS = 512,     /* xattr_count v, xattr_name_bytes v: there are xattr rows */
    META_PRESENT_ALL = 1023,
};

/* flags of an inode row; also in rec_attr.flags */
enum inode_flag {
    INODE_HAS_XATTR = 1,   /* xattr_count > 0: without it a client need not ask (CURVINE_HAS_XATTR) */
    INODE_HAS_EXTENTS = 2, /* extent rows may exist */
    INODE_HAS_INLINE = 4,  /* an inline row may exist */
    INODE_ORPHAN = 8,      /* without a name, kept for open handles or until its rows are purged */
    INODE_DIRTY = 16,      /* holds data the UFS does not have */
    /* A directory of a UFS: some of its names, or none, are known here. Neither: what is here is all there is. */
    INODE_LISTING_PARTIAL = 32,
    INODE_LISTING_UNKNOWN = 64,
    INODE_LOCAL_ATTRS = 128, /* modes, owners, links the UFS cannot hold: ours are the truth */
    INODE_FLAGS_ALL = 255,
};

/* An inode row, decoded. Zero in an optional part is the same as absent. */
struct meta_inode {
    uint64_t id;   /* from the key */
    uint32_t mode; /* type and permissions, as stat(2) */
    uint32_t uid, gid, nlink;
    uint32_t flags;        /* enum inode_flag */
    uint64_t size, parent; /* parent: of a directory, or of a file's first name; of the root itself */
    uint64_t change;       /* counts the changes of names or content */
    int64_t mtime_ns, atime_ns, ctime_ns, btime_ns;
    uint64_t entries; /* directory: names in it */
    uint64_t rdev;
    struct text target;    /* symlink */
    uint64_t base_version; /* of all blocks without an extent row */
    uint64_t base_bytes;   /* how much of the file, from its start, is of that version */
    uint64_t epoch;        /* highest write epoch granted */
    uint64_t ufs_mtime_ns, ufs_length;
    struct text ufs_etag;
    /* Where it lies in the UFS: its name within the parent's key; beginning with '/': its whole key within the mount.
     * Empty: it is not from there. */
    struct text ufs_at;
    uint64_t ttl_due_ns;
    uint32_t ufs_flags, mount;
    uint32_t xattr_count, xattr_name_bytes; /* each name with its zero, as listxattr(2) gives them */
    uint8_t ttl_action, replicas, tier, policy_flags, block_shift; /* 0: as the parent */
};

/* Room for out: META_INODE_MAX is enough for texts within their limits. */
uint32_t meta_inode_encode(const struct meta_inode *i, uint8_t *out);
int meta_inode_decode(uint64_t id, struct text value, struct meta_inode *ret);

struct meta_dentry {
    uint64_t child;
    uint8_t type; /* DT_REG ... of dirent.h */
};
uint32_t meta_dentry_encode(const struct meta_dentry *d, uint8_t *out); /* room: 16 */
int meta_dentry_decode(struct text value, struct meta_dentry *ret);

#define META_REPLICAS_MAX 8
struct meta_extent {
    uint64_t version, epoch;
    uint32_t valid_length, replica_count;
    uint64_t replicas[META_REPLICAS_MAX]; /* worker ids, in order */
};
uint32_t meta_extent_encode(const struct meta_extent *e, uint8_t *out); /* room: 128 */
int meta_extent_decode(struct text value, struct meta_extent *ret);

struct meta_session_row {
    uint32_t slots, pid;
    uint64_t opened_ns;
    struct text host, program, mount_point; /* at most 255 bytes each */
};
uint32_t meta_session_encode(const struct meta_session_row *s, uint8_t *out); /* room: 1024 */
int meta_session_decode(struct text value, struct meta_session_row *ret);

/* What the last mutation of a slot did: enough to answer it again. */
struct meta_slot_row {
    uint64_t sequence;
    uint16_t type;  /* enum message_type of the request */
    uint32_t flags; /* 1: created */
    uint64_t inode, other, handle;
};
uint32_t meta_slot_encode(const struct meta_slot_row *s, uint8_t *out); /* room: 64 */
int meta_slot_decode(struct text value, struct meta_slot_row *ret);

uint32_t meta_u64_encode(uint64_t fixed, uint8_t *out); /* orphan: version, u64. Room: 16 */
int meta_u64_decode(struct text value, uint64_t *ret);
uint32_t meta_limit_encode(uint64_t limit, uint8_t *out); /* grant. Room: 16 */
int meta_limit_decode(struct text value, uint64_t *ret);

/* An under file system attached to a directory. */
struct meta_mount_row {
    uint32_t mount; /* from the key */
    uint8_t mode;   /* enum mount_mode */
    bool written;   /* something below it was written since it was attached */
    uint32_t flags; /* enum mount_flag; from MOUNT_ROW_ACK on: enum mount_ack */
    uint64_t inode, created_ns;
    struct text name, path, uri; /* name: the directory's, in its parent; path: from the root */
    uint32_t param_count;
    struct text params; /* as in the row: meta_param_next() */
};
#define MOUNT_ROW_ACK 8 /* bit in flags */
static inline uint8_t meta_mount_ack(const struct meta_mount_row *m)
{
    return m->flags >> MOUNT_ROW_ACK & 3;
}
static inline void meta_mount_set_ack(struct meta_mount_row *m, uint8_t ack)
{
    m->flags = (m->flags & ~(3u << MOUNT_ROW_ACK)) | (uint32_t)ack << MOUNT_ROW_ACK;
}
/* Room: meta_mount_bytes(), which is at most META_MOUNT_MAX in a row that decodes. */
uint32_t meta_mount_bytes(const struct meta_mount_row *m);
uint32_t meta_mount_encode(const struct meta_mount_row *m, uint8_t *out);
int meta_mount_decode(uint32_t mount, struct text value, struct meta_mount_row *ret);
/* Params one by one. put: room 16 + both lengths; returns the end. next: false behind the last. */
uint8_t *meta_param_put(uint8_t *p, struct text name, struct text value);
bool meta_param_next(struct text *params, struct text *name, struct text *value);

/* A worker that ever registered. */
struct meta_worker_row {
    uint64_t worker; /* from the key */
    uint32_t weight;
    bool in;                                 /* takes part in placement */
    struct text address, socket, host, boot; /* at most 255 bytes each; see worker_register */
};
uint32_t meta_worker_encode(const struct meta_worker_row *w, uint8_t *out); /* room: META_WORKER_MAX */
int meta_worker_decode(uint64_t worker, struct text value, struct meta_worker_row *ret);

/* Written with each delta; the database's word on what it holds. Written by no log entry. */
struct meta_state {
    uint64_t applied, digest, time_ns;            /* log index; of the row stream up to it; leader's time */
    uint64_t inodes, directories, orphans, bytes; /* totals; bytes: sum of file sizes */
    uint32_t feature_level, incarnation;
};
#define META_STATE_SIZE 65
uint32_t meta_state_encode(const struct meta_state *s, uint8_t *out);
int meta_state_decode(struct text value, struct meta_state *ret);
