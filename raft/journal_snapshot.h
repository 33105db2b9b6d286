/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots between journals: the state of a master goes to a node whose log ends before the others' logs begin (5.3 of
 * raft.md; Ongaro (2014) 5.1-5.3). Files are shipped as they are, checked against a manifest (wire/manifest.h).
 *
 *   leader's journal                 source's journal, master                 receiver's journal, master
 *     core wants one for a peer
 *     bulk_prepare --------------->  a checkpoint, or the one there is
 *     <-- bulk_prepared(index)       (its own master's when no follower is caught up)
 *     core offers it ------------------------------------------------------>  core: offer
 *                                    <--------------------------- bulk_open   dials the source
 *                                    bulk_manifest ---------------------->    keeps what it has that is equal
 *                                    <--------------------------- bulk_need   up to 16 MiB asked for and not there
 *                                    bulk_data --------------------------->   DIR/staging/, each file synced
 *                                                                             all verified: rename to DIR/meta-<index>-<id>
 *                                                                             log switches in one synced write
 *                                                                             master begins anew on it, attaches
 *
 * A connection that breaks, a receiver that restarts, another leader: what is in staging and equal by checksum is kept,
 * chunk by chunk (4 MiB), whoever sends the rest. A crash at any moment leaves the old or the new state, as the log's
 * `snap` row says; what is in use nowhere is removed when a master attaches.
 *
 * A checkpoint is shared by all receivers, also by those that come later as long as the log behind it is there, and
 * removed when nobody asked for it for LEASE_S. Bounds: one checkpoint, one fetch, 8 connections, 16 MiB under way per
 * receiver. While a peer fetches, the core keeps the log behind its snapshot, up to a cap (journal_driver.h).
 *
 * Journal-only members fetch the manifest alone: it tells where the log goes on.
 *
 * Owner: the loop; files are read, written and checked on its file threads.
 */
#pragma once

#include "raft/journal_driver.h"
#include "raft/journal_link.h"
#include "raft/journal_peer.h"

struct journal_snapshots;

enum { BULK_PIECE = 1 << 20, BULK_WINDOW = 16 /* pieces */ };

struct journal_snapshots_options {
    struct loop *loop;
    struct uuid cluster;
    uint64_t node;
    uint32_t incarnation;
    uint64_t rate; /* bytes a second we send; 0: no limit */
};

/* For struct journal_driver_options, journal_link_options and journal_peers_options, with the snapshots as argument. */
extern const struct journal_snapshot_ops journal_snapshots_driver;
extern const struct journal_link_snapshots journal_snapshots_link;
void journal_snapshots_accept(void *arg, struct rpc_conn *conn, uint64_t node);

/* Errors: -ENOMEM. */
int journal_snapshots_new(const struct journal_snapshots_options *options, struct journal_snapshots **ret);
struct journal_snapshots *journal_snapshots_free(struct journal_snapshots *s);

/* Before the driver's start. */
void journal_snapshots_start(struct journal_snapshots *s, struct journal_driver *driver, struct journal_link *link,
                             struct journal_peers *peers);

/* From now on, also for what is under way. */
void journal_snapshots_set_rate(struct journal_snapshots *s, uint64_t rate);

/* Nothing is moved any more; stopped() when nothing is in flight. Before the peers' and the driver's stop. */
void journal_snapshots_stop(struct journal_snapshots *s, void (*stopped)(void *arg), void *arg);
