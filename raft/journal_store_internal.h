/* SPDX-License-Identifier: Apache-2.0 */
/* Journal store: what its two sources share (journal_store.c: life and reading, journal_append.c: writing). */
#pragma once

#include "raft/journal_mark.h"
#include "raft/journal_store.h"

struct journal_store {
    int dir_fd, lock_fd;
    char *log_dir; /* of RocksDB */
    bool read_only;
    struct journal_db db;
    struct journal_mark_file mark;

    /* The writer's. */
    struct journal_state state; /* with everything added, synced or not */
    rocksdb_writebatch_t *batch;
    size_t batch_bytes; /* payloads and some */
    bool hs_known;      /* state.term and .vote are in the log or in the batch */
    uint64_t marked_ns; /* when durable.mark was raised */
    bool mark_late;     /* the log is further than durable.mark says */
    uint64_t hint;      /* last commit hint added */
};
