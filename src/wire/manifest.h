/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifest: what belongs to one snapshot of the metadata (a directory of files), and how to tell that every byte of it
 * has arrived. Written beside the files as MANIFEST.cv by the master that made the checkpoint; its journal completes it
 * with what the log knows (term, chain, configuration); receivers, backup and restore check against it.
 *
 *      magic u64 | version u32 | body bytes u32 | body | crc32c u32 of all before
 *      body: the fields of struct manifest in order; conf as u32 length, bytes; u32 files, each: name as u8 length,
 *      bytes; size u64; hash u64; crc32c u32 of each 4 MiB of it
 *
 * Little-endian, exact: an unknown version or a byte too many is refused. Names are in ascending order, plain (letters,
 * digits, '.', '_', '-'; not beginning with '.'), so that no manifest names a file outside of its directory.
 *
 * Pure but for the functions at the end, which read and write files and may block. Any thread.
 */
#pragma once

#include "base/cleanup.h"
#include "base/text.h"
#include "base/uuid.h"

#define MANIFEST_FILE     "MANIFEST.cv"
#define MANIFEST_CHUNK    (4u << 20) /* what one checksum covers */
#define MANIFEST_NAME_MAX 63

enum {
    MANIFEST_FILES_MAX = 100000,
    MANIFEST_BYTES_MAX = 16 << 20, /* encoded: about 4 M chunks, 16 TiB */
};

struct manifest_file {
    char name[MANIFEST_NAME_MAX + 1];
    uint64_t size;
    uint64_t hash;  /* XXH64 of each chunk, seeded with that of the chunk before; 0: an empty file */
    uint32_t *crcs; /* of each chunk; the manifest's */
};

struct manifest {
    uint64_t id;            /* random: tells this checkpoint from every other, also of the same index */
    struct uuid cluster;    /* of which it is the state */
    uint64_t index;         /* the state after this log entry */
    uint64_t term, chain;   /* of that entry; 0: not completed by a journal */
    uint64_t conf_index;    /* of the configuration in force there */
    uint64_t created_ns;    /* wall clock, for people */
    uint32_t state_version; /* LINK_STATE_VERSION of who made it */
    uint32_t incarnation;   /* of the cluster */
    struct buf conf;        /* raft_conf_encode(); empty: not completed */
    struct manifest_file *files;
    uint32_t file_count, file_room;
};

/* Also when all zero. */
void manifest_fini(struct manifest *m);

static inline uint32_t manifest_chunks(uint64_t size)
{
    return (uint32_t)((size + MANIFEST_CHUNK - 1) / MANIFEST_CHUNK);
}

/* Bytes of all files. */
uint64_t manifest_bytes(const struct manifest *m);

/* Add a file, behind all others by name; its crcs are to be filled in. Errors: -EINVAL the name, or not behind; -ENOMEM. */
int manifest_add(struct manifest *m, struct text name, uint64_t size, struct manifest_file **ret);

/* The file of this name, or NULL. */
const struct manifest_file *manifest_find(const struct manifest *m, const char *name);

/* Append the encoded manifest. Errors: -ENOMEM; -EFBIG over MANIFEST_BYTES_MAX. */
int manifest_encode(const struct manifest *m, struct buf *out);

/* Read one that fills n bytes. Free *ret with manifest_fini(). Errors: -CV_BAD_FORMAT; -CV_BAD_CHECKSUM;
 * -CV_FORMAT_TOO_NEW; -ENOMEM. */
int manifest_decode(const void *p, size_t n, struct manifest *ret);

/* ---- files: may block -------------------------------------------------------------------------------------------- */

/* Add every regular file of directory dir but MANIFEST.cv and RocksDB's lock and log of messages, with checksums: reads
 * everything once. Errors: errno; -EINVAL a name we do not write. */
int manifest_scan(const char *dir, struct manifest *m);

/* Read dir's MANIFEST.cv; write it (synced, in one step). */
int manifest_read(const char *dir, struct manifest *ret);
int manifest_write(const char *dir, const struct manifest *m);

/* How many bytes from the beginning of dir's file are as they should be: whole chunks, or all of it. 0 when it is not
 * there. Errors: errno. */
int manifest_check_prefix(const char *dir, const struct manifest_file *f, uint64_t *ret);

/* Hold all files against the manifest, sizes, chunks and hashes. *ret_bad (may be NULL) becomes the first file that is
 * wrong. Errors: -CV_BAD_CHECKSUM; -ENOENT; errno. */
int manifest_verify(const char *dir, const struct manifest *m, const char **ret_bad);

/* Copy all files from one directory to another, which is empty, and the manifest behind them; each chunk is held against
 * the manifest on its way. copied (may be NULL) hears of bytes. Everything survives a power cut when it returns.
 * Errors: -CV_BAD_CHECKSUM; errno. *ret_bad as above. */
int manifest_copy(const char *from, const char *to, const struct manifest *m, void (*copied)(void *arg, uint64_t bytes),
                  void *arg, const char **ret_bad);

/* Make what was written to the files and to the directory itself survive a power cut. */
int manifest_sync(const char *dir, const struct manifest *m);

/* Remove a directory with the files in it (there are no directories in it). Fine when it is not there. */
int manifest_remove_dir(const char *dir);

/* fsync a directory. */
int manifest_sync_dir(const char *dir);
