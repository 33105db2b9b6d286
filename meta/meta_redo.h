/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The redo record: the payload of one log entry, one batch of operations as the rows they result in. As exact as the rows
 * (meta_format.h, where the notation is): an unknown version, kind, table or flag is -CV_FORMAT_TOO_NEW, a cut or trailing
 * byte -CV_BAD_FORMAT; neither is ever skipped over. No state: any thread.
 *
 *      header   REDO_HEADER_SIZE bytes, fixed (below)
 *      ops      op count x { kind u8, uid v, session v, inode v, other v, extra v }       for people, audit and effects
 *      rows     row count x { table u8 (| 0x80: the row is deleted), key bytes, [value bytes] }  the result: all that
 *               applying means. Each key once, in order of first change within the batch.
 */
#pragma once

#include "meta/meta_format.h"

#define REDO_MAGIC       0x4452 /* "RD" */
#define REDO_VERSION     1
#define REDO_HEADER_SIZE 72
#define REDO_DELETE      0x80

/*  0 u16 magic      8 u32 op count     24 u64 directories   48 u64 time ns
 *  2 u8  version   12 u32 row count    32 u64 orphans       56 u32 incarnation
 *  3 u8  flags (0) 16 u64 inodes       40 u64 bytes         60 u32 ops length
 *  4 u32 feature level                                      64 u64 reserved (0)
 * The totals are the results after this batch. */
struct redo_header {
    uint32_t feature_level, op_count, row_count, incarnation, ops_length;
    uint64_t inodes, directories, orphans, bytes, time_ns;
};

/* KIND(name, code): what an operation of a redo record was. Codes are retired, never reused. */
// clang-format off
#define REDO_KINDS_(KIND)                                                                                               \
    KIND(format, 1) KIND(grant, 2) KIND(session_open, 3) KIND(session_close, 4) KIND(create, 5) KIND(mkdir, 6)          \
    KIND(mknod, 7) KIND(symlink, 8) KIND(link, 9) KIND(unlink, 10) KIND(rmdir, 11) KIND(rename, 12)                     \
    KIND(setattr, 13) KIND(truncate, 14) KIND(setxattr, 15) KIND(removexattr, 16) KIND(purge, 17) KIND(write_grant, 18)  \
    KIND(write_commit, 19) KIND(mount_add, 20) KIND(mount_remove, 21) KIND(worker, 22)  \
    KIND(import, 23) KIND(sweep, 24) KIND(fence, 25) KIND(level, 26) KIND(mount_set, 27)
// clang-format on
enum redo_kind {
#define KIND(name, code) REDO_##name = code,
    REDO_KINDS_(KIND)
#undef KIND
        REDO_KIND_COUNT = 28
};
const char *redo_kind_name(uint8_t kind);

/* What an operation was about, for people, audit and effects; applying looks at rows only:
 *
 *      kind                              inode            other                 extra
 *      create, mkdir, mknod, symlink,
 *      link                              the new one      its parent
 *      unlink, rmdir                     the one          its parent            0 it has other names, 1 it is gone, 2 it is an
 *                                                                               orphan, 3 gone and never was at a worker
 *      rename                            the moved one    its new parent        replaced inode (its unlink or rmdir follows)
 *      truncate                          the file         new size              its epoch after that
 *      setattr                           the inode        what was set: the message's `valid`
 *      setxattr                          the inode                              bytes of the value
 *      removexattr                       the inode
 *      write_grant                       the file         first block           epoch
 *      write_commit                      the file         size                  enum commit_valid
 *      purge                             the orphan       1 workers may have    1 rows are left, 0 it is gone
 *                                                         blocks of it
 *      fence                             the file         rows                  their epoch
 *      mount_add, mount_remove           its directory    the mount
 *      mount_set                         its directory    the mount             its enum mount_ack
 *      import                            the directory    names that are new    names other objects took over (each with an
 *                                                                               unlink or rmdir)
 *      sweep                             the directory    names removed (likewise)
 *      worker                            the worker                             1 it is in
 *      session_open, session_close       the session
 *      format                            the root         incarnation
 *      grant                                                                    the limit
 *      level                                                                    the feature level from this batch on */
struct redo_op {
    uint8_t kind;
    uint32_t uid;
    uint64_t session, inode, other, extra;
};
uint32_t redo_op_encode(const struct redo_op *op, uint8_t *out); /* room: 64 */

struct redo_row {
    enum meta_table table;
    bool deleted;
    struct text key, value;
};

void redo_header_encode(const struct redo_header *h, uint8_t out[REDO_HEADER_SIZE]);

/* Reading a payload front to back: init, each op, each row, then end. Borrows from the payload. */
struct redo_reader {
    struct redo_header header;
    const uint8_t *at, *end, *ops_end;
    uint32_t ops_left, rows_left;
};
int redo_reader_init(struct redo_reader *r, struct text payload);
int redo_reader_rows(struct redo_reader *r, struct text payload); /* init, and to its first row */
int redo_next_op(struct redo_reader *r, struct redo_op *ret);     /* -ENODATA behind the last */
int redo_next_row(struct redo_reader *r, struct redo_row *ret);   /* -ENODATA behind the last, when nothing trails; ops
                                                                   not read yet are passed over unchecked */

/* Is the value what the row's table says? Errors as decoding it. */
int redo_row_check(const struct redo_row *row);

/* Decode everything in it: header, ops, rows, and the value of each row. What fuzzing and a receiver of doubtful bytes
 * use; 0 means that applying it cannot fail. */
int redo_check(struct text payload);
