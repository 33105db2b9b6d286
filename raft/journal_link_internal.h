/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Link: what its sources share. Each line calls those below it:
 *
 *      journal_link.c           connections, attaching
 *      journal_link_tell.c      entries and watermarks to the master
 *      journal_link_lease.c     the role and its lease, and how leases end
 *      journal_link_propose.c   proposals into the log     journal_link_admin.c     administration, reads
 *                                                          journal_link_identify.c  questions to other journals
 *      journal_link_master.c    messages to the master, the end of its connection and of the link
 */
#pragma once

#include "raft/journal_link.h"
#include "rpc/rpc_conn.h"
#include "wire/link.h"
#include "wire/message.h"

enum {
    LINK_PEERS_MAX = 8,
    LINK_CREDIT_ENTRIES = 4096, /* a power of two */
    LINK_OWN_MAX = 2 * LINK_CREDIT_ENTRIES,
    LINK_FRAMES_MAX = 256, /* entries messages not yet acknowledged by link_applied */
    LINK_RANGES_MAX = 64,
    LINK_READS_MAX = 1024,
    LINK_TELL_BYTES = 1 << 20, /* of one entries message, about */
    LINK_HAND_OVER_MS = 3000,  /* for another voter to take the lead before clients hear that the disk is full */
};

enum link_peer_kind { PEER_NEW, PEER_MASTER, PEER_HEALTH };

struct link_peer {
    struct list link; /* l->peers */
    struct journal_link *l;
    struct rpc_conn *conn;
    enum link_peer_kind kind;
    uint64_t since_ns;
    bool again; /* this master came a moment ago, too */
};

/* Entries first..last that the attached master proposed itself. */
struct link_range {
    uint64_t first, last;
};

/* One attached master: all zero between two. */
struct link_session {
    uint64_t master;    /* its number */
    uint64_t silent_ns; /* without a sign of health; see look_at_health() */
    bool silent;

    /* What it was told of the role. */
    uint64_t role_term, role_leader, lease_until_ns, start_index;
    uint8_t role;
    bool credited;         /* link_credit was sent */
    uint8_t disk_told;     /* and what it said of disks: enum link_disk_flag */
    uint32_t roles_unseen; /* link_role sent and not answered */

    /* Proposals: taken, not yet in the log. */
    uint64_t next_sequence;
    bool refused; /* until link_role_seen */
    struct journal_record *pending[LINK_CREDIT_ENTRIES];
    uint32_t pending_head, pending_count;

    /* In the log, not told committed. */
    struct link_range ranges[LINK_RANGES_MAX];
    uint32_t range_count;
    struct {
        uint64_t arrived_ns;
        uint32_t bytes;
    } own[LINK_OWN_MAX]; /* by index */
    uint32_t inflight_entries;
    uint64_t inflight_bytes; /* pending ones too */

    /* Told. */
    uint64_t told; /* entries up to here */
    uint64_t told_durable;
    uint64_t told_committed;
    struct {
        uint64_t last;
        uint32_t bytes;
    } frames[LINK_FRAMES_MAX]; /* entries messages on their way */
    uint32_t frame_head, frame_count;
    uint64_t window; /* bytes of them */
    uint64_t applied, flushed;
    bool can_lead;      /* says the master */
    uint8_t unfit;      /* and why it cannot: enum link_unfit */
    bool core_can_lead; /* and should, as the core was told: false only when no lease is left */
    bool install_told;  /* that it has to use another state, see journal_link_installed() */
};

/* Something a person asked for that would end our leadership: it waits until no lease is left. */
struct link_wish {
    bool waits;
    uint64_t generation;
    struct buf body; /* link_admin */
};

struct journal_link {
    struct journal_link_options options;
    char *socket, *reason;
    char *directory, *state; /* of the master that attached last; NULL: none did */
    struct journal_driver *driver;
    int fd;
    struct io_op accept;
    struct loop_timer look; /* connections that say nothing, health, held proposals */
    uint64_t looked_ns;
    struct list peers;
    uint32_t peer_count;

    struct link_peer *master; /* attached, or NULL */
    struct link_session session;
    struct { /* the last attach, accepted or not */
        uint64_t master, at_ns;
        int result;
    } visit;
    uint64_t generation; /* counts attaches: answers of earlier ones are void */
    struct loop_hook propose;
    bool proposing;

    struct { /* reads of the log from disk, one at a time */
        struct io_op op;
        bool busy;
        uint64_t generation, from, to;
        struct journal_read read;
        int result;
    } disk;
    struct list identifies; /* struct link_identify: dials under way */
    uint32_t identify_count;
    struct { /* linearizable reads the core knows by their place here */
        uint64_t context, generation;
    } reads[LINK_READS_MAX];
    uint64_t read_next;

    /* journal_link_lease.c */
    uint64_t lease_told_ns;   /* the latest that any master was told */
    uint64_t lease_over_term; /* no leases any more in this term */
    struct link_wish wish;
    uint64_t low_since_ns; /* since when we lead with a disk that is nearly full; 0: we do not */
    bool letting_go;       /* the master is gone: the core learns of it when no lease is left */

    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static inline bool link_has_master(const struct journal_link *l)
{
    return l->master && rpc_conn_is_open(l->master->conn);
}

/* Is our disk nearly full, or the master's? Then another node should lead, if one can. */
static inline bool link_disk_is_low(const struct journal_link *l)
{
    return journal_driver_view(l->driver)->disk_low || l->session.unfit == LINK_UNFIT_DISK;
}

/* ---- journal_link_master.c ---- */
void link_send_to(struct link_peer *p, uint16_t type, const void *message);
/* One-way message to the attached master; a failure ends the connection. */
void link_send(struct journal_link *l, uint16_t type, const void *message);

/* End the attached master's connection: it broke the rules, or we cannot go on with it. */
void link_drop_master(struct journal_link *l, int reason, const char *what);

/* Something that was in flight has ended: if it was the last, the link has stopped. */
void link_finish_stop(struct journal_link *l);

/* Answer what was asked by link_admin. */
void link_admin_answer(struct journal_link *l, uint64_t context, int result, const struct buf *text);

/* ---- journal_link_propose.c ---- */
void link_on_propose(struct journal_link *l, const struct msg_link_propose *m, const uint8_t *data, uint32_t n);
void link_on_role_seen(struct journal_link *l);
void link_propose_pending(struct journal_link *l);
void link_drop_pending(struct journal_link *l);
/* All that wait were executed under a role we no longer have. */
void link_refuse_pending(struct journal_link *l);
void link_propose_hook(struct loop_hook *hook);
void link_tell_credit(struct journal_link *l);

/* ---- journal_link_tell.c ---- */
void link_tell_truncated(struct journal_link *l, uint64_t from);
void link_tell(struct journal_link *l);
void link_on_applied(struct journal_link *l, const struct msg_link_applied *m);

/* ---- journal_link_lease.c ---- */

/* Role, leader and lease, if any of them is another than it was told last. */
void link_tell_role(struct journal_link *l);

/* Leases are over in this term. Returns whether none is left that the master could use: only then may the core hear of
 * what ends this leadership; otherwise ask again (link_look_at_leases). */
bool link_lease_end(struct journal_link *l);

/* Do it, or keep it until it may be done; then link_on_admin(). */
void link_admin_or_wait(struct journal_link *l, const struct msg_link_admin *m);

/* The watermarks to the core, and that the master cannot lead if so and no lease is left. Errors: of
 * journal_driver_applied(). */
int link_tell_app(struct journal_link *l);

/* The master is gone. dead: by its own end. */
void link_lease_gone(struct journal_link *l, bool dead);
void link_lease_back(struct journal_link *l);
void link_look_at_leases(struct journal_link *l);

/* ---- journal_link_admin.c ---- */
void link_on_read(struct journal_link *l, uint64_t context);
void link_read_answer(struct journal_link *l, uint64_t context, uint64_t index, int result);
void link_on_admin(struct journal_link *l, const struct msg_link_admin *m);

/* ---- journal_link_identify.c ---- */
/* Who is at the message's address, node if that is not 0; with a range (to not 0): and what does it come to there (here, if
 * node is this one)? Answered later. Errors: -CV_BUSY. */
int link_identify(struct journal_link *l, const struct msg_link_admin *m);
void link_identify_stop(struct journal_link *l);
