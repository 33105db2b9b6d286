/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal daemon's parts joined: store, driver, link and their loop. bin/cv_journal.c is its only caller in
 * production; tests run several in one process.
 */
#pragma once

#include "base/cleanup.h"
#include "base/text.h"
#include "conf/metrics.h"
#include "io/loop.h"
#include "raft/journal_options.h"

struct journal;

struct journal_config {
    const struct journal_options *options; /* borrowed until journal_stop() */
    const char *run_dir;                   /* where the socket is when options do not say */
    enum loop_backend io;
    struct metrics *metrics; /* may be NULL */
};

/* Open the log, then serve. A damaged log does not fail the start: the journal then runs in quarantine, does not vote,
 * refuses every master with the reason, and is not ready. Everything else that is wrong is logged, with what to do.
 * Errors: those of journal_store_open() and journal_link_start(). */
int journal_start(const struct journal_config *config, struct journal **ret);

/* Finish what is queued, disconnect, close the log. Not from the loop. */
struct journal *journal_stop(struct journal *j);
DEFINE_CLEANUP(struct journal *, journal_stop)

/* Any thread but the loop's: options were read again; those that are live take effect. */
void journal_reload(struct journal *j, const struct journal_options *options);

/* The path of the master's socket. */
const char *journal_socket(const struct journal *j);

/* Any thread but the loop's. 0: knows a leader; otherwise a negative code and the reason. */
int journal_ready(struct journal *j, char *why, size_t why_size);

/* Any thread but the loop's: append the status as JSON. */
int journal_status(struct journal *j, struct buf *out);
