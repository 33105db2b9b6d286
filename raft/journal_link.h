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

struct journal_link;

struct journal_link_options {
    struct loop *loop;
    const char *socket;    /* path of the unix socket; the file goes with the link */
    uint64_t credit_bytes; /* proposed and not told committed at most */
    uint64_t silent_ms;    /* a master without a sign of health for this long gives leadership away */
    struct uuid cluster;
    uint64_t node;
    uint32_t incarnation;
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

/* Refuse, disconnect; stopped() when nothing is in flight. */
void journal_link_stop(struct journal_link *l, void (*stopped)(void *arg), void *arg);
