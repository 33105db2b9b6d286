/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file operations of the block store, each one the whole of it (short writes go on, EINTR is retried), and the
 * place where tests make them fail. All block. Results: 0 or a negative code.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What a test may hook. ALLOC and INDEX_* have no function here: their callers ask block_io_check() themselves. */
enum block_io_op {
    BLOCK_IO_ALLOC,
    BLOCK_IO_OPEN,
    BLOCK_IO_CREATE,
    BLOCK_IO_READ,
    BLOCK_IO_WRITE,
    BLOCK_IO_SYNC,
    BLOCK_IO_FLOW,
    BLOCK_IO_SYNC_DIR,
    BLOCK_IO_PUNCH,
    BLOCK_IO_CUT,
    BLOCK_IO_UNLINK,
    BLOCK_IO_LINK,
    BLOCK_IO_INDEX_READ,
    BLOCK_IO_INDEX_WRITE,
    BLOCK_IO_INDEX_SYNC, /* asked besides INDEX_WRITE when a batch is to be synced */
    BLOCK_IO_OPS
};

#define BLOCK_IO_SKIP 1

/* Tests only, set before the store is used: called before each operation. Returns 0: go on; a negative code: fail with
 * it; BLOCK_IO_SKIP: pretend it was done (the sync that is not there). */
extern int (*block_io_hook)(enum block_io_op op);

/* Tests only: the boot id to believe in instead of the kernel's. */
extern const uint8_t *block_io_boot_id;

static inline int block_io_check(enum block_io_op op)
{
    return block_io_hook ? block_io_hook(op) : 0;
}

/* calloc under the hook. NULL: no memory. */
void *block_io_alloc(size_t n);

/* Open name below dir_fd. flags as for open(2); O_CREAT files get mode 0600. */
int block_io_open(int dir_fd, const char *name, int flags, int *ret_fd);

/* Read n bytes; *ret is less at the end of the file. */
int block_io_read(int fd, void *p, size_t n, uint64_t offset, size_t *ret);
int block_io_write(int fd, const void *p, size_t n, uint64_t offset);
int block_io_write2(int fd, const void *p, size_t n, const void *q, size_t m, uint64_t offset); /* p, then q */
int block_io_sync(int fd);                                                                      /* fdatasync */
int block_io_flow(int fd, uint64_t offset, uint64_t n);          /* begin to write it back, promise nothing */
int block_io_sync_dir(int dir_fd, const char *name);             /* fsync of a folder */
int block_io_punch(int fd, uint64_t offset, uint64_t n);         /* to zeros, the file keeps its size */
int block_io_cut(int fd, uint64_t size);                         /* ftruncate */
int block_io_unlink(int dir_fd, const char *name);               /* no such name is fine */
int block_io_link(int dir_fd, const char *from, const char *to); /* an existing name is fine */

/* A whole small file of n bytes: written beside, synced, renamed. */
int block_io_replace(int dir_fd, const char *name, const void *p, size_t n);

/* Remove a folder and all in it. No such name is fine. */
int block_io_remove_tree(int dir_fd, const char *name);

/* The kernel's boot id, 16 bytes. */
int block_io_read_boot_id(uint8_t ret[16]);
