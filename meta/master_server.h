/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network side of a master: loops (one per core to spare) with listeners on TCP and a unix socket. Requests that come
 * in one turn are looked at together under one read lock:
 *
 *      read      -> meta_read on the loop                      --> answer, when what it rests on is safe
 *      mutation  -> meta_prepare on the loop --> scribe        --> answer, when the scribe gives it back
 *      names not known yet -> the thread ufs asks the under file system, and again
 *      rows not in memory -> the database's cache, at once; else a file thread of the loop reads them, and again
 *
 * Who asks: clients on TCP say who they are (they know the cluster's secret). On the unix socket the kernel says it: root
 * and the user this daemon runs as may speak for others (a mount does), everybody else only for himself.
 */
#pragma once

#include <stdint.h>

#include "base/uuid.h"
#include "conf/metrics.h"
#include "meta/master_core.h"
#include "meta/master_options.h"
#include "meta/master_scribe.h"

struct master_server; /* opaque */
struct master_sessions;
struct master_workers;
struct master_ufs;
struct master_import;

struct master_server_options {
    const struct master_options *options; /* listen, port, threads, connections, sessions; borrowed */
    const char *socket;                   /* path of the unix socket; NULL: none */
    struct uuid cluster;
    uint64_t master;         /* random id of the directory */
    struct metrics *metrics; /* may be NULL */
    uint32_t io_backend;     /* enum loop_backend */
    struct master_sessions *sessions;
    struct master_workers *workers;
    struct master_ufs *ufs;
    struct master_import *import;
    /* Any loop: the answer to cluster_status. Texts it points to go into texts. */
    void (*status)(void *arg, struct msg_cluster_status_answer *ret, struct buf *texts);
    void *arg;
};

/* Makes the loops and their listeners' servers, and makes them known to the scribe (which must not run yet).
 * Errors: -ENOMEM; those of the loops. */
int master_server_new(struct master_core *core, struct master_scribe *scribe,
                      const struct master_server_options *options, struct master_server **ret);

/* After master_server_end(), or when it never ran. NULL is fine. */
struct master_server *master_server_free(struct master_server *s);
DEFINE_CLEANUP(struct master_server *, master_server_free)

/* Listen and start the loops. Errors: -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, ... (logged) */
int master_server_start(struct master_server *s);

/* Begin to stop: no new connections and requests; what is in flight is answered, connections are closed when theirs are,
 * or after grace_ms. The scribe must still run; stop it next: it gives back what it has. */
void master_server_stop(struct master_server *s, uint32_t grace_ms);

/* Wait until all is answered and end the loops. The scribe has stopped and gives nothing back any more. */
void master_server_end(struct master_server *s);

/* The TCP port, when the options asked for any. */
uint16_t master_server_port(const struct master_server *s);

/* Any thread, approximate. */
uint32_t master_server_connections(const struct master_server *s);
uint32_t master_server_in_flight(const struct master_server *s);
