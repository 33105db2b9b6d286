/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bits in the fields of messages_meta.def. Values are retired, never reused. Where Linux has numbers for the same
 * (open flags, RENAME_*, XATTR_*, R_OK ...), the fields hold those of x86-64 Linux.
 */
#pragma once

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
