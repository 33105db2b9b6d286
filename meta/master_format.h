/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies on disk in a master's data directory beside the rows:
 *
 *      ident   whose directory this is (below); written once, by format
 *      lock    empty; flock()ed by the process that uses the directory
 *      rows/   the metadata RocksDB: families and keys are meta/meta.h's, but for the keys declared here
 *      journal the id of the journal this state was made beside, 16 hex digits with a final newline: written when the first
 *              journal attached this master. Another one may know another history
 *      current the name of the directory that is used instead of rows/, with a final newline: a state that was installed
 *              from another master, meta-<index>-<id>. Replaced in one step; not there: rows/
 *      <state>.diverged   the state in that directory differs from the cluster's, and why: it is not used any more
 *
 * All integers little-endian.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#include "base/uuid.h"

#define MASTER_IDENT_MAGIC   0x5453414d56430a0dull /* "\r\nCVMAST" */
#define MASTER_IDENT_VERSION 1

#define MASTER_FILE_IDENT   "ident"
#define MASTER_FILE_LOCK    "lock"
#define MASTER_FILE_ROWS    "rows"
#define MASTER_FILE_JOURNAL "journal"
#define MASTER_FILE_STATE   "current"
#define MASTER_DIVERGED     ".diverged"
#define MASTER_STATE_MAX    63 /* bytes of a state's name */

struct master_ident {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved; /* 0 */
    struct uuid cluster;
    uint64_t master;     /* random: tells this directory from every other, also of the same cluster */
    uint64_t created_ns; /* wall clock; for people */
    uint8_t unused[12];  /* 0 */
    uint32_t crc;        /* CRC32C of what is before */
} __attribute__((packed));
static_assert(sizeof(struct master_ident) == 64, "on disk");

/* Rows of ours, in the family "default" (which every RocksDB has). Their first byte is 0, which no row of the core's
 * begins with. The values: */
#define MASTER_ROW_CLUSTER "\0cluster" /* the cluster's uuid, 16 bytes: rows travel between nodes without ident */
#define MASTER_ROW_FORMAT  "\0format"  /* u32: of the rows as a whole */
#define MASTER_ROWS_FORMAT 1
