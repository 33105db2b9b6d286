/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver: gives the pure core (raft.h) its disk, its time and its surroundings. All of it runs on one loop; the disk
 * belongs to the log writer's thread.
 *
 *        master's link     transport      timer
 *              |               |            |        one input at a time
 *              +-------> raft_step() <------+------ written(seq)
 *                            |                          |
 *              write unit ---+--> ring, log writer -----+
 *              messages -----+--> held until their write is durable, then the transport
 *              the rest -----+--> the app: role, truncated, progress, read
 *
 * Owner: the loop. Functions return before anything they cause is durable.
 */
#pragma once

#include "raft/journal_ring.h"
#include "raft/journal_transport.h"
#include "raft/journal_writer.h"

struct journal_driver;

/* What the core knows, as of the last step. */
struct journal_view {
    enum raft_role role;
    uint64_t term, leader;
    uint64_t first, last, durable, commit, apply_to;
    uint64_t lease_until_ns; /* CLOCK_BOOTTIME; UINT64_MAX: for ever (one member); 0: none */
    uint32_t warnings;       /* enum raft_warning */
    uint32_t voters, members;
    bool disk_low;  /* nearly full: the master should refuse what only adds */
    bool disk_full; /* proposals should wait */
};

/* Who is told; on the loop. None of these may call into the driver, but for questions. May be NULL. */
struct journal_app {
    void (*role)(void *arg);                                               /* role, term or leader changed */
    void (*truncated)(void *arg, uint64_t from);                           /* entries from here on are gone */
    void (*progress)(void *arg);                                           /* any other part of the view changed */
    void (*read)(void *arg, uint64_t context, uint64_t index, int result); /* see struct raft_read */
};

/* Who moves snapshots; on the loop, within a step: none of these may call into the driver. */
struct journal_snapshot_ops {
    void (*want)(void *arg, const struct raft_snapshot_want *want);    /* leader: answer by ready or failed */
    void (*offer)(void *arg, const struct raft_snapshot_offer *offer); /* receiver: by install or failed */
    void (*installed)(void *arg);                                      /* journal_driver_install() is durable */
    int (*status)(void *arg, struct buf *out);                         /* append ,"snapshots":{...} */
};

struct journal_driver_options {
    struct loop *loop;
    struct journal_store *store; /* open; the driver's until journal_driver_stop() is done */
    const char *dir;             /* of the log; NULL: free space is not watched */
    struct metrics *metrics;     /* may be NULL */
    const struct journal_app *app;
    void *app_arg;
    const struct journal_transport_ops *transport; /* NULL: none */
    void *transport_arg;

    const struct journal_snapshot_ops *snapshots; /* NULL: none can be moved */
    void *snapshots_arg;

    uint64_t seed;        /* of the core's jitter */
    uint64_t cache_bytes; /* of the ring with several voters; with one a quarter of it */
    uint64_t tick_ms, heartbeat_ms, election_ms;
    uint64_t compact_entries;    /* delete in steps of at least so many; 0: 65536 */
    uint64_t keep_entries;       /* behind what nobody needs any more */
    uint64_t disk_reserve_bytes; /* with less than this free below dir it is low */
    uint64_t log_bytes_max;      /* then entries go although a silent member will need a snapshot */
};

/* Read the state of the store into a core. Errors: -CV_LOG_DAMAGED a configuration cannot be read, or the state
 * contradicts itself; -ENOMEM. */
int journal_driver_new(const struct journal_driver_options *options, struct journal_driver **ret);
struct journal_driver *journal_driver_free(struct journal_driver *d);

/* Start the log writer and the clock. */
int journal_driver_start(struct journal_driver *d);

/* No further input is taken; stopped() when everything queued is durable. Then journal_driver_free(). */
void journal_driver_stop(struct journal_driver *d, void (*stopped)(void *arg), void *arg);

const struct journal_view *journal_driver_view(const struct journal_driver *d);
struct journal_ring *journal_driver_ring(struct journal_driver *d);
struct journal_store *journal_driver_store(struct journal_driver *d);
struct journal_metrics *journal_driver_metrics(struct journal_driver *d); /* of the loop's thread */

const struct raft *journal_driver_raft(const struct journal_driver *d); /* for questions only */

/* The newest configuration, committed or not, or NULL; valid until the next input. */
const struct raft_conf *journal_driver_conf(const struct journal_driver *d);

/* The status as JSON, the transport's with it. Errors: -ENOMEM. */
int journal_driver_status(struct journal_driver *d, struct buf *out);

/* Term of an entry. Errors: -ENOENT. */
int journal_driver_term(const struct journal_driver *d, uint64_t index, uint64_t *ret);

/* ---- inputs: all may be refused with the errors of struct raft_input, and with -CV_STOPPING ---- */

/* Append records (count up to RAFT_APPEND_ENTRIES_MAX, each pinned once by the caller), executed under term. Their pins
 * are the driver's when this succeeds. */
int journal_driver_propose(struct journal_driver *d, uint64_t term, struct journal_record *const *records,
                           uint32_t count, uint64_t *ret_first);

/* It can lead, and should only if nobody else can, or no longer so: the core is told with the next watermarks. */
void journal_driver_reluctant(struct journal_driver *d, bool reluctant);

/* The application's watermarks. Errors: -CV_LOG_DAMAGED applied is not in our log, or flushed above it. */
int journal_driver_applied(struct journal_driver *d, uint64_t applied, uint64_t flushed, bool can_lead);

/* A master is there, or no longer: then this node cannot lead. */
void journal_driver_attached(struct journal_driver *d, bool attached);

int journal_driver_read(struct journal_driver *d, uint64_t context);
int journal_driver_transfer(struct journal_driver *d, uint64_t to);
int journal_driver_change(struct journal_driver *d, enum raft_conf_op op, const struct raft_member *member,
                          uint64_t *ret_index);

/* ---- for who moves snapshots: errors of struct raft_input ---- */

int journal_driver_snapshot_ready(struct journal_driver *d, uint64_t peer, uint64_t source, uint64_t index);
int journal_driver_snapshot_failed(struct journal_driver *d, uint64_t peer);

/* Switch to the state of a snapshot, whose files are where they stay, synced; install is copied. conf: what install->conf
 * decodes to. Errors: -EALREADY the log needs no such snapshot any more. */
int journal_driver_install(struct journal_driver *d, const struct journal_install *install,
                           const struct raft_conf *conf);

/* The state the log goes on behind, durably: 0 and "" until one was installed. */
uint64_t journal_driver_installed(const struct journal_driver *d, const char **ret_directory);

/* ---- for the transport ---- */

/* A message from a peer, entries included, which are copied. Errors: -CV_BAD_MESSAGE; -CV_BUSY: dropped. */
int journal_driver_message(struct journal_driver *d, const struct raft_message *message);

/* Attach entries to an APPEND: pinned records of a prefix of the range it names, of up to bytes_max payload (one at
 * least); count and last_term of the message are set to what was taken. Returns how many. Errors: -ENOENT the range is not in the log any more: drop the message;
 * -EAGAIN it is no longer in memory: read it from the store. */
int journal_driver_attach(struct journal_driver *d, struct raft_message *message, uint64_t bytes_max,
                          struct journal_record *records[RAFT_APPEND_ENTRIES_MAX]);

/* ---- any thread ---- */

struct journal_gauges;
void journal_driver_gauges(const struct journal_driver *d, struct journal_gauges *ret);
