/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Link: the journal's end of the connection to its master (wire/messages_link.def draws its course; the master's end is
 * meta/master_link.h). A unix socket, mode 0660; who connects must be root, our user or our group. One master at a
 * time; one more connection carries its health.
 *
 *      propose  ->  checked, into the ring  ->  at the end of the turn one step of the core for all that came
 *      core     ->  told in order of index: own entries as watermarks, all others with their payload, from the ring or,
 *                   far behind, from disk by a file thread
 *
 * Committed is told only as far as our own disk has it too, so what a master makes of it may become persistent at
 * once, and "committed" implies "durable".
 *
 * Owner: the loop.
 */
#pragma once

#include "base/uuid.h"
#include "raft/journal_driver.h"
#include "wire/message.h"

struct journal_link;

/* Who moves snapshots; on the loop. */
struct journal_link_snapshots {
    void (*attached)(void *arg); /* a master, maybe with another directory */
    void (*ready)(void *arg, const struct msg_link_snapshot_ready *answer);
};

struct journal_link_options {
    struct loop *loop;
    const char *socket;    /* path of the unix socket; the file goes with the link */
    uint64_t credit_bytes; /* proposed and not told committed at most */
    uint64_t
        silent_ms; /* a master without a sign of health while our loop turned for this long: leadership is given away */
    struct uuid cluster;
    uint64_t node;
    uint32_t incarnation;
    const struct journal_link_snapshots *snapshots; /* NULL: none */
    void *snapshots_arg;
    int refuse;         /* quarantine: every master is refused with this error; no driver */
    const char *reason; /* and this text; copied */
};

/* What the driver tells: journal_driver_options.app, with the link as its argument. */
extern const struct journal_app journal_link_app;

/* Errors: -ENOMEM. */
int journal_link_new(const struct journal_link_options *options, struct journal_link **ret);
/* After journal_link_stop() is done, or before start. */
struct journal_link *journal_link_free(struct journal_link *l);

/* Listen. driver: NULL in quarantine. Errors: -EADDRINUSE another process listens there; errno. */
int journal_link_start(struct journal_link *l, struct journal_driver *driver);

/* The data directory of the master that attached last and what it uses in it (borrowed until the next attach), and whether
 * it still is there. Errors: -ENOENT none was. */
int journal_link_directory(const struct journal_link *l, const char **ret_directory, const char **ret_state);

/* Ask the master for a checkpoint at or above index: ready() follows, unless the master goes away before.
 * Errors: -CV_CLOSED none is attached. */
int journal_link_checkpoint(struct journal_link *l, uint64_t context, uint64_t index);

/* Leadership is about to be given away: may the core hear of it? Not while a lease the master was told may be in use (T_min
 * at most): ask again. No lease is told in this term any more. */
bool journal_link_let_go(struct journal_link *l);

/* The log goes on behind a state that was installed: the master is told to use it. */
void journal_link_installed(struct journal_link *l);

/* Refuse, disconnect; stopped() when nothing is in flight. */
void journal_link_stop(struct journal_link *l, void (*stopped)(void *arg), void *arg);
