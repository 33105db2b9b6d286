/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link between a master and its journal: enums and limits of wire/messages_link.def, where its course is drawn.
 * The numbers are those of raft/raft.h, which the master does not see (the journal asserts that they are equal).
 */
#pragma once

enum link_role { LINK_FOLLOWER = 1, LINK_PRECANDIDATE, LINK_CANDIDATE, LINK_LEADER };

/* Types of log entries; only BATCH carries what changes the name space. */
enum link_entry_type {
    LINK_NOOP = 1,
    LINK_BATCH = 2,
    LINK_CONF = 3,
    LINK_ID_LEASE = 4,
    LINK_DIGEST = 5,
    LINK_BARRIER = 6,
};

/* Why a master says that it cannot lead: link_applied.unfit. */
enum link_unfit {
    LINK_FIT = 0,
    LINK_UNFIT_STOPS = 1,  /* it stops, or begins anew; its lease is over */
    LINK_UNFIT_DISK = 2,   /* the file system of its database is nearly full: it can, and will when nobody else can */
    LINK_UNFIT_DAMAGE = 3, /* it cannot read all of its database, which others can: the same */
};

/* link_credit.disk_low: what full disks mean to the master. */
enum link_disk_flag {
    LINK_DISK_REFUSE = 1,  /* nobody with room can lead: refuse what only adds */
    LINK_DISK_JOURNAL = 2, /* the journal's own is nearly full */
};

/* link_admin.flags, also raft_admin's. */
enum link_admin_flag {
    LINK_ADMIN_JOURNAL_ONLY = 1, /* add: a vote without a namespace beside it */
    LINK_ADMIN_FORCE = 2,        /* demote, remove: also when less than two full voters are left */
};

#define LINK_HEALTH_MS      100
#define LINK_ENTRIES_WINDOW (16u << 20) /* bytes of entries sent and not acknowledged by link_applied */
#define LINK_APPLIED_BYTES  (4u << 20)
#define LINK_PAYLOAD_MAX    (4u << 20) /* of one proposal */
#define LINK_STATE_VERSION  1          /* link_attach.state_version: of the payloads the master understands */
