/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durable.mark: a sector beside the log that says how far it had reached on disk, so that a log that lost its end
 * (a restored old copy, a file system that lied, a lost file) is noticed before this node votes or acknowledges again.
 * Raised at most once a second, so the last second is not covered; lowered before every truncation. Owner: one thread.
 */
#pragma once

#include "raft/journal_format.h"

#define JOURNAL_MARK_FILE "durable.mark"

struct journal_mark_file {
    int fd;
    struct journal_mark mark; /* as on disk */
};

#define JOURNAL_MARK_FILE_NONE ((struct journal_mark_file){.fd = -1})

/* Make the file of a new log. Errors: errno. */
int journal_mark_create(int dir_fd, uint64_t node);

/* Open and read it. Errors: -CV_LOG_DAMAGED missing, torn or of another node; -CV_FORMAT_TOO_NEW; errno. */
int journal_mark_open(int dir_fd, uint64_t node, bool read_only, struct journal_mark_file *ret);
void journal_mark_close(struct journal_mark_file *f);

/* Rewrite and sync. Errors: errno; the log must not be written any more then. */
int journal_mark_write(struct journal_mark_file *f, uint64_t index, uint64_t index_term, uint64_t term, uint64_t vote);
