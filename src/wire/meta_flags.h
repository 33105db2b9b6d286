/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bits in the fields of messages_meta.def. Values are retired, never reused. Where Linux has numbers for the same
 * (open flags, RENAME_*, XATTR_*, R_OK ...), the fields hold those of x86-64 Linux.
 */
#pragma once

/* op_head.flags */
enum op_flag {
    OP_DURABLE = 1, /* answer when a majority has what it rests on, whatever the ack mode: fsync, O_SYNC */
};

/* open.flags, create.flags, held_handle.flags, beside those of open(2): the kernel opens a program to run it, which asks for
 * the right to execute, not to read. (Its __FMODE_EXEC, which FUSE passes on; open(2) lets no caller give it.) */
#define OPEN_EXEC 0x20u

/* setattr.valid: which fields are meant. Numbers as in FUSE. */
enum setattr_valid {
    SETATTR_MODE = 1,
    SETATTR_UID = 2,
    SETATTR_GID = 4,
    SETATTR_SIZE = 8,
    SETATTR_ATIME = 16,
    SETATTR_MTIME = 32,
    SETATTR_ATIME_NOW = 128, /* with SETATTR_ATIME: the master's time */
    SETATTR_MTIME_NOW = 256,
    SETATTR_ALL = 16 + 32 + 8 + 4 + 2 + 1 + 128 + 256,
};

/* readdir.flags */
enum readdir_flag {
    READDIR_ATTR = 1, /* with attributes */
};

#define INLINE_MAX 4096 /* bytes of a written file that the inode's inline row holds */

/* layout.flags */
enum layout_flag {
    LAYOUT_READ_ONLY = 1, /* the mount takes no writes */
    LAYOUT_SHARED = 2, /* another session may be writing too: sizes go to the master before a write is acknowledged */
};

/* write_commit.valid */
enum commit_valid { COMMIT_SIZE = 1, COMMIT_MTIME = 2, COMMIT_LENGTHS = 4, COMMIT_INLINE = 8, COMMIT_CLOSE = 16 };
#define COMMIT_LENGTHS_MAX 1024u /* blocks one write_commit may name */

/* mount.mode */
enum mount_mode {
    MOUNT_CACHE = 1,   /* the under file system is the truth */
    MOUNT_FS = 2,      /* we are; it is a mirror */
    MOUNT_SCRATCH = 3, /* there is none */
};

/* mount.ack_mode: when what changes below it is answered. */
enum mount_ack {
    MOUNT_ACK_CLUSTER = 0, /* as master.ack_mode says */
    MOUNT_ACK_QUORUM = 1,
    MOUNT_ACK_LOCAL = 2,
    MOUNT_ACK_APPLIED = 3,
};

/* mount.flags, mount_remove.flags */
enum mount_flag {
    MOUNT_WRITABLE = 1, /* cache: writes go through */
    MOUNT_CHECK = 2,    /* mount_add: preflight only, change nothing */
    MOUNT_FORCE = 4,    /* mount_remove: also with data only we have */
};
