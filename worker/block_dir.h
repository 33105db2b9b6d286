/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of the block store as the file system sees it: identity, lock, names. All functions block.
 */
#pragma once

#include "worker/block_format.h"
#include "worker/block_store.h"

#define BLOCK_NAME_MAX 48

struct block_dir {
    int fd, lock_fd; /* -1: none */
    struct block_identity identity;
};
#define BLOCK_DIR_NONE ((struct block_dir){.fd = -1, .lock_fd = -1})

/* Make the folders in an empty directory, all but the identity, which block_dir_finish_format() writes last: a format
 * that was cut short is no store. Errors: -CV_ALREADY_FORMATTED; -ENOTEMPTY; -EOPNOTSUPP no holes can be punched. */
int block_dir_format(const char *path, struct block_dir *ret);
void block_dir_set_identity(struct block_dir *d, const struct block_identity_options *o);
int block_dir_finish_format(struct block_dir *d);

/* The identity alone. Errors: -CV_NOT_FORMATTED; -CV_BAD_FORMAT and others of a damaged one. */
int block_dir_identity(const char *path, struct block_identity *ret);

/* Lock and check. Errors: -CV_NOT_FORMATTED; -CV_LOCKED; -CV_WRONG_CLUSTER; -CV_FORMAT_TOO_NEW; -CV_BAD_CHECKSUM. */
int block_dir_open(const char *path, const uint8_t cluster[16], uint64_t worker_id, struct block_dir *ret);
void block_dir_close(struct block_dir *d);

/* The folders of backing files and segments, empty: at format and after healing. */
int block_dir_make_folders(struct block_dir *d);

/* "files/2a/000000000000002a", "segments/000000000000002b", "written/0000000000000007.000000000000002a" */
void block_dir_name(enum block_file_type type, uint64_t id, char out[BLOCK_NAME_MAX]);
void block_dir_folder(enum block_file_type type, uint64_t id, char out[BLOCK_NAME_MAX]);
void block_dir_written_name(uint64_t inode, uint64_t id, char out[BLOCK_NAME_MAX]);
