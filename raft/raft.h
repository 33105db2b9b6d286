/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raft: the consensus core, one replica as a pure state machine. No I/O, no clock, no threads, no payloads: the
 * driver (journal_* in production, tests/sim in simulation) hands in one input at a time with the time, and carries
 * out what comes back. A run is a function of its inputs. Algorithm: D. Ongaro, "Consensus: Bridging Theory and
 * Practice" (2014); section numbers in comments are of that text.
 *
 *                     tick, message, proposal, written, read, ...
 *                                       |
 *      raft_new(state from disk) -> raft_step() -> one write unit  (disk; answered by RAFT_IN_WRITTEN)
 *                                       |          messages        (network; some wait for a write)
 *                                       |          role, commit, reads, snapshot requests  (application)
 *
 * The core keeps no entries: of its log it knows first and last index and the runs of equal terms (a few bytes an
 * election), the last two configurations, and the progress of each peer. Messages name index ranges; the driver
 * attaches the bytes. One voter uses the same call: it elects itself on the first tick, and commits what its own
 * disk has.
 *
 * Owner: one thread. After raft_new() nothing is allocated but the table of term runs, when it doubles.
 *
 * ---- What the driver must do -------------------------------------------------------------------------------------
 *
 * One raft_step() at a time; carry out its output completely before the next (queueing a write or a message is
 * carrying out), in this order:
 *
 *  1. role_changed: tell the application the new role, term, leader. A leader's proposals count only when they were
 *     executed under this very term.
 *  2. write (seq != 0): queue it for the disk. Units are written in order of seq, each atomically: all of
 *       - hard state: term and vote as one record (always given; unchanged ones may be skipped),
 *       - install: if install.index != 0, switch to that snapshot: first = install.index + 1, its term and
 *         configuration recorded, entries <= install.index deleted,
 *       - truncate_from: if != 0, delete all entries >= it (with their rows in the table of configurations),
 *       - entries: count of them from index first on; store a copy of each RAFT_CONF entry in the table of
 *         configurations, which keeps at least the newest two whatever is compacted,
 *       - commit: the hint for the next start.
 *     Several units may share one sync. Then RAFT_IN_WRITTEN with the highest seq that is durable. The entries point
 *     into the input of this step (or into the core: valid until the next step); their payloads are the driver's
 *     from here on, e.g. in a cache that also serves reads of what is not yet on disk. A failed write is fatal:
 *     never report it written, stop the process.
 *  3. truncate_from also concerns the application: entries >= it are void. (install: see RAFT_IN_SNAPSHOT_INSTALL.)
 *  4. durable, commit, apply_to: watermarks, see struct raft_output. Within one term none goes back but durable,
 *     by truncation.
 *  5. sends: in order, each when everything up to its after_seq is durable (0: at once). A held message may be
 *     dropped, like any message, and none is ever changed. For APPEND attach entries prev_index+1 ..
 *     prev_index+count as they are in the log when attached (queued writes included), read in order of index. If the
 *     last one's term is not append.last_term, or one is gone (truncated or compacted meanwhile): drop the message.
 *     By log matching the check of the last term covers all of them, so attaching may happen late. The driver may
 *     cut one range into several messages (prev_term and last_term adjusted) or send a shorter prefix; acks follow
 *     what was sent. Heartbeats should not queue behind entries (own connection); order between connections is free.
 *  6. reads, snapshot requests and offers: as described at their structs.
 *
 * Messages received are decoded (raft_message_decode), entries included, checked to come from the node they name,
 * and stepped. Any loss, duplication, delay and reordering is fine. Corruption, a forged sender or a message of
 * another cluster or incarnation is not: the driver's frames and HELLO exclude them.
 *
 * Refused inputs (a proposal at a follower, a change that may not be made now) return an error, change nothing and
 * ask for nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    RAFT_MEMBERS_MAX = 16,        /* voters and learners in a configuration */
    RAFT_ADDRESS_SIZE = 128,      /* bytes of an address with its final zero */
    RAFT_APPEND_ENTRIES_MAX = 64, /* entries in one message, and in one proposal */
    RAFT_SENDS_MAX = 128,         /* messages one step may ask for */
    RAFT_READS_MAX = 1024,        /* reads waiting for confirmation */
    RAFT_WRITES_MAX = 1024,       /* write units not yet reported durable */
    RAFT_CONF_ENCODED_MAX = 16 + RAFT_MEMBERS_MAX * (16 + 2 * RAFT_ADDRESS_SIZE),
};

struct raft; /* opaque */

/* ---- Entries ----------------------------------------------------------------------------------------------------
 * Only CONF means anything to the core. Codes are on disk and on the wire: retired, never reused. */

enum raft_entry_type {
    RAFT_NOOP = 1,     /* first entry of each term (8 of the ordering rules); no payload */
    RAFT_BATCH = 2,    /* mutations */
    RAFT_CONF = 3,     /* a configuration: raft_conf_encode() */
    RAFT_ID_LEASE = 4, /* a grant of ids */
    RAFT_DIGEST = 5,   /* hash of the applied state */
    RAFT_BARRIER = 6,  /* nothing; marks a place */
};

struct raft_entry {
    uint64_t term;       /* PROPOSE: set by the core */
    const uint8_t *data; /* read by the core for CONF only, during the step; may be NULL for others */
    uint32_t size;       /* bytes of data */
    uint8_t type;        /* enum raft_entry_type */
};

/* ---- Configurations: who belongs to the cluster (4.1) ------------------------------------------------------------- */

enum raft_member_role { RAFT_VOTER = 1, RAFT_LEARNER = 2 };

struct raft_member {
    uint64_t id;                          /* random, never 0, never reused: a wiped machine is a new member */
    uint8_t role;                         /* enum raft_member_role */
    uint8_t journal_only;                 /* 1: keeps the log but no state; campaigns last and hands over */
    uint8_t priority;                     /* who is asked first to take over; higher first */
    char raft_address[RAFT_ADDRESS_SIZE]; /* "host:port" for voters, opaque to the core */
    char client_address[RAFT_ADDRESS_SIZE];
};

/* Members in ascending order of id. */
struct raft_conf {
    uint32_t count;
    struct raft_member members[RAFT_MEMBERS_MAX];
};

/* The member, or NULL. */
const struct raft_member *raft_conf_find(const struct raft_conf *conf, uint64_t id);

uint32_t raft_conf_voters(const struct raft_conf *conf);

/* Add or replace a member, keeping the order. Errors: -ENOSPC RAFT_MEMBERS_MAX reached. */
int raft_conf_put(struct raft_conf *conf, const struct raft_member *member);

/* Is it a configuration a cluster may have: ids ascending and not 0, roles known, addresses terminated, at least one
 * full (not journal-only) voter. Errors: -EINVAL. */
int raft_conf_check(const struct raft_conf *conf);

/* The payload of a CONF entry, also used in snapshots' records. Writes at most RAFT_CONF_ENCODED_MAX bytes to out and
 * returns how many. */
size_t raft_conf_encode(const struct raft_conf *conf, uint8_t out[RAFT_CONF_ENCODED_MAX]);

/* The exact inverse: consumes all n bytes. Errors: -CV_BAD_FORMAT malformed, or not a valid configuration;
 * -CV_FORMAT_TOO_NEW a later version's. */
int raft_conf_decode(const uint8_t *p, size_t n, struct raft_conf *ret);

/* ---- Messages ------------------------------------------------------------------------------------------------------ */

enum raft_message_type {
#define RAFT_MESSAGE(code, NAME, name, ...) RAFT_MSG_##NAME = code,
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
};

enum raft_heartbeat_flag {
    RAFT_HEARTBEAT_CAN_LEAD = 1,  /* the application is attached, near enough and able to lead */
    RAFT_HEARTBEAT_LOG_FULL = 2,  /* this node's log reached its byte cap: see RAFT_IN_APP */
    RAFT_HEARTBEAT_RELUCTANT = 4, /* able, but should not if another one is: a disk is nearly full */
};

/* One message; fields by type in raft_message.def. */
struct raft_message {
    uint8_t type; /* enum raft_message_type */
    uint64_t from, to;
    uint64_t term;
    union {
// clang-format off
#define raft_u64 uint64_t
#define raft_u32 uint32_t
#define raft_u8  uint8_t
#define FIELD(type, name) raft_##type name;
#define RAFT_MESSAGE(code, NAME, name, ...) struct { __VA_ARGS__ } name;
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
#undef FIELD
#undef raft_u64
#undef raft_u32
#undef raft_u8
        // clang-format on
    };
    /* APPEND received: append.count entries, the caller's. NULL in messages to send. */
    const struct raft_entry *entries;
};

/* "append_reply"; "unknown". Static storage. */
const char *raft_message_name(uint8_t type);

/* Bytes of the fixed part of any message, at most. */
enum { RAFT_MESSAGE_FIXED_MAX = 96, RAFT_ENTRY_HEADER_SIZE = 16 };

/* A message as bytes: fixed part (u8 type, u8 reserved, u16 length of the fields, u32 reserved, u64 from, to, term,
 * fields in order), then for APPEND append.count entry headers (u64 term, u32 size, u8 type, 3 reserved), then the
 * payloads in order. Little-endian. This writes the fixed part and returns its length; the driver adds the rest. */
size_t raft_message_encode(const struct raft_message *m, uint8_t out[RAFT_MESSAGE_FIXED_MAX]);

void raft_entry_header_encode(const struct raft_entry *e, uint8_t out[RAFT_ENTRY_HEADER_SIZE]);

/* Decode a whole message of n bytes; entries (room for RAFT_APPEND_ENTRIES_MAX) receive an APPEND's, whose data borrow
 * from p. Never reads beyond p + n; unknown later fields are skipped, missing ones are 0.
 * Errors: -CV_BAD_MESSAGE truncated, over a limit, bytes left over, or values no sender writes (index overflow,
 * decreasing terms, unknown entry type); -CV_UNKNOWN_MESSAGE. */
int raft_message_decode(const uint8_t *p, size_t n, struct raft_entry *entries, struct raft_message *ret);

/* ---- Start ---------------------------------------------------------------------------------------------------------- */

/* 0 takes the default. */
struct raft_options {
    uint64_t id;                   /* this node's; required */
    uint64_t seed;                 /* for the jitter of election timeouts */
    uint32_t heartbeat_ms;         /* 50 */
    uint32_t election_ms;          /* 500: T_min; a follower campaigns after a random time in [1, 2) of it */
    uint32_t drift_percent;        /* 10: bound on the relative rate of two machines' clocks, for leases */
    uint32_t append_entries_max;   /* 64: entries a message, at most RAFT_APPEND_ENTRIES_MAX */
    uint32_t inflight_entries_max; /* 512: entries sent to a peer and not acknowledged */
    uint32_t uncommitted_max;      /* 65536: entries of our own term not yet committed; then -CV_BUSY */
    uint32_t silent_ms;         /* 60000: a full member this silent no longer holds up compaction, if a log is full */
    uint32_t handover_alarm_ms; /* 5000: a leader that should hand over and cannot for this long warns */
    bool pessimistic_hints;     /* step back one entry a rejection, as if there were no hints: for tests */
    bool no_lease;              /* never a lease: reads by read index only */
};

struct raft_run {
    uint64_t first, term; /* entries from first on, up to the next run, are of this term */
};

/* What the driver loads from disk. An empty log is never started: format writes a CONF entry of term 1 at index 1
 * (the same on every founding member), or a snapshot's record; a node that waits to be added ("join") starts with
 * term 0, everything empty, and conf_count 0. Copied; nothing is kept. */
struct raft_restart {
    uint64_t now_ms;             /* the same clock as in inputs */
    uint64_t term, vote;         /* hard state; vote 0: none in this term */
    uint64_t first;              /* first index retained (1: nothing compacted) */
    uint64_t last;               /* last index; first - 1: none retained */
    uint64_t base_term;          /* term of entry first - 1; 0 when first is 1 */
    const struct raft_run *runs; /* of entries first..last, ascending; the first starts at or before first */
    uint32_t run_count;
    uint64_t commit;     /* hint: known committed; clamped to [first - 1, last] */
    uint64_t applied;    /* the application's state, if known; 0 otherwise */
    uint32_t conf_count; /* the newest two configurations of log and snapshot (one if there is one), ascending */
    uint64_t conf_index[2];
    const struct raft_conf *conf[2];
};

/* Errors: -EINVAL options out of range; -CV_LOG_DAMAGED the restart state contradicts itself; -ENOMEM. */
int raft_new(const struct raft_options *options, const struct raft_restart *restart, struct raft **ret);
struct raft *raft_free(struct raft *r);

/* ---- Inputs --------------------------------------------------------------------------------------------------------- */

enum raft_input_type {
    RAFT_IN_TICK = 1, /* every 10 ms or so: elections, heartbeats, timeouts */
    RAFT_IN_MESSAGE,
    RAFT_IN_PROPOSE,
    RAFT_IN_WRITTEN,
    RAFT_IN_READ,
    RAFT_IN_CONF,
    RAFT_IN_TRANSFER,
    RAFT_IN_APP,
    RAFT_IN_COMPACT,
    RAFT_IN_SNAPSHOT_READY,
    RAFT_IN_SNAPSHOT_INSTALL,
    RAFT_IN_SNAPSHOT_FAILED,
    RAFT_IN_CAMPAIGN,
};

enum raft_conf_op {
    RAFT_ADD_LEARNER = 1, /* member: a new id */
    RAFT_PROMOTE,         /* learner to voter: member.id, once caught up (4.2.1) */
    RAFT_DEMOTE,          /* voter to learner */
    RAFT_REMOVE,
    RAFT_UPDATE, /* addresses and priority of a member; id, role and kind stay */
};

struct raft_input {
    enum raft_input_type type;
    uint64_t now_ms; /* CLOCK_BOOTTIME or virtual, never 0; a step back is taken as no step */
    union {
        /* A message received, to this node. Bad ones are dropped. Errors: -CV_BAD_MESSAGE not to us, from us, or
         * contradicting itself; -CV_BUSY too many writes are queued and it was dropped. */
        const struct raft_message *message;

        /* Append 1..RAFT_APPEND_ENTRIES_MAX entries executed under term; they get the output's proposed_first and
         * following indexes. Entry types BATCH, ID_LEASE, DIGEST, BARRIER. Errors: -CV_NOT_LEADER, also of a
         * journal-only leader; -ESTALE executed under another term: refuse all behind it until the application has
         * seen the role change; -CV_BUSY too much is uncommitted or a transfer is under way; -EINVAL. */
        struct {
            uint64_t term;
            struct raft_entry *entries; /* term is filled in; write.entries will point here */
            uint32_t count;
        } propose;

        /* Everything up to this seq is durable. */
        struct {
            uint64_t seq;
        } written;

        /* A read wants to know from which applied index on its answer is linearizable (6.4). Answered in a later (or
         * this) step's reads, by the leader or, at a follower, by asking the leader. Errors: -CV_BUSY too many wait;
         * -CV_NOT_LEADER there is no known leader. */
        struct {
            uint64_t context; /* returned as is */
        } read;

        /* Change the membership, at the leader; takes effect when appended, done when proposed_first is committed,
         * void when truncated. Errors: -CV_NOT_LEADER; -EBUSY another change or this term's first entry is not
         * committed yet, or a transfer is under way; -EEXIST, -ENOENT the member is (not) there, or already so;
         * -EAGAIN the learner to promote has not caught up; -CV_UNREACHABLE no majority of the new configuration
         * answered lately; -EINVAL not a valid configuration; -ENOSPC RAFT_MEMBERS_MAX. */
        struct {
            enum raft_conf_op op;
            struct raft_member member; /* only id for PROMOTE, DEMOTE, REMOVE */
        } conf;

        /* Hand leadership over (3.10): to 0 is the best full voter. Until it is done or given up (one election_ms)
         * proposals get -CV_BUSY; leases are over for the rest of this term. Errors: -CV_NOT_LEADER; -ENOENT no such
         * (other, full) voter; -EBUSY one is under way; -CV_UNREACHABLE nobody suitable answers. */
        struct {
            uint64_t to;
        } transfer;

        /* The application's watermarks, whenever they change: applied, flushed (survives a crash; the log up to here
         * is not needed by this node), can_lead (a leader with false hands over at once; a follower waits one more
         * timeout before it campaigns), reluctant (it can lead, and should only if nobody else can: the same, but handed
         * over only to who is not), log_full (the log's bytes reached their cap: do not wait for silent members). */
        struct {
            uint64_t applied, flushed;
            bool can_lead, reluctant, log_full;
        } app;

        /* The driver is about to delete entries below first (its decision by bytes; at most output.compact_to + 1).
         * Write the term of entry first - 1 (raft_term) with it. Errors: -EINVAL beyond what is allowed. */
        struct {
            uint64_t first;
        } compact;

        /* Leader: the state at index can be fetched from node source; answers output.wants. The core offers it to
         * peer and keeps the log from there. Errors: -CV_NOT_LEADER; -ENOENT peer does not wait for one; -EINVAL
         * index not in [compacted, commit]. */
        struct {
            uint64_t peer, source, index;
        } snapshot_ready;

        /* Receiver: the files of an offer are complete, verified and ready to be switched to. The output's write has
         * .install set: when it is durable, the application opens the new state and reports applied. conf is the
         * configuration in force at index. Errors: -EALREADY the log needs no such snapshot any more (discard it). */
        struct {
            uint64_t index, term;
            uint64_t conf_index;
            const struct raft_conf *conf;
        } snapshot_install;

        /* Leader: no snapshot for peer, or its pin has to go (peer != 0): it will be asked for again. Receiver
         * (peer 0): the fetch was given up. */
        struct {
            uint64_t peer;
        } snapshot_failed;

        /* As if the election timeout had passed, once earlier promises to a leader ran out. force: at once, without
         * pre-vote, overriding every voter's promise, which breaks leases: for tests. Errors: -EINVAL not a voter, or
         * leader already. */
        struct {
            bool force;
        } campaign;
    };
};

/* ---- Outputs -------------------------------------------------------------------------------------------------------- */

enum raft_role { RAFT_FOLLOWER = 1, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

/* One atomic, ordered write: see the top. */
struct raft_write {
    uint64_t seq; /* 1, 2, ... since raft_new; 0: nothing to write */
    uint64_t term, vote;
    uint64_t commit; /* hint */
    uint64_t truncate_from;
    uint64_t first; /* index of entries[0] */
    uint32_t count;
    const struct raft_entry *entries;
    struct {
        uint64_t index, term; /* index 0: none */
        uint64_t conf_index;
        const struct raft_conf *conf;
    } install;
};

struct raft_send {
    uint64_t after_seq; /* leaves when this write is durable; 0 at once */
    struct raft_message message;
};

struct raft_read {
    uint64_t context;
    uint64_t index; /* serve when applied >= index */
    int result;     /* 0, or -CV_NOT_LEADER: ask (the new leader) again */
};

/* Leader: peer needs a state at an index >= min_index. Make (or name) a checkpoint, then RAFT_IN_SNAPSHOT_READY or
 * _FAILED. Given once until one of them, or until another role. */
struct raft_snapshot_want {
    uint64_t peer, min_index;
};

/* Receiver: fetch the state at (index, term) from source, then RAFT_IN_SNAPSHOT_INSTALL or _FAILED. An offer while
 * another is fetched replaces it (resume what is equal). No campaign until then. index 0: no offer in this step. */
struct raft_snapshot_offer {
    uint64_t index, term, source;
};

/* Things an administrator should know; state, not events. */
enum raft_warning {
    RAFT_WARN_HANDOVER = 1,    /* leads although journal-only or unable to, and nobody can take over */
    RAFT_WARN_LEFT_BEHIND = 2, /* compaction went on without a silent full member */
    RAFT_WARN_NOT_MEMBER = 4,  /* not in the newest configuration */
};

struct raft_output {
    struct raft_write write;
    const struct raft_send *sends; /* valid until the next step, like every pointer here */
    uint32_t send_count;

    /* State after the step, always set. */
    bool role_changed; /* role, term or leader changed in this step */
    enum raft_role role;
    uint64_t term;
    uint64_t leader;         /* of this term, 0 unknown */
    uint64_t start_index;    /* leader: its first entry (the no-op); it serves when that is applied */
    uint64_t last;           /* last index of the log, durable or not */
    uint64_t durable;        /* our disk has the log up to here ("local" acks) */
    uint64_t commit;         /* a majority's disks have it ("quorum" acks, side effects) */
    uint64_t apply_to;       /* min(commit, durable): what may enter persistent state; never ahead of our own log */
    uint64_t lease_until_ms; /* leader: reads of applied >= start_index need no confirmation before this; 0 none.
                              * Compare with the clock after executing the read, just before the reply leaves. */
    uint64_t compact_to;     /* entries up to here may be compacted (keep some behind it for peers that lag) */
    uint32_t warnings;       /* enum raft_warning */

    uint64_t proposed_first; /* PROPOSE, CONF: index of the first entry; 0 otherwise */

    const struct raft_read *reads;
    uint32_t read_count;
    const struct raft_snapshot_want *wants;
    uint32_t want_count;
    struct raft_snapshot_offer offer;
};

/* Take one input. *ret is always filled, also when the input is refused (then with nothing to do).
 * Errors: the input's, see struct raft_input; -ENOMEM nothing happened (a message may be dropped, others retried);
 * -CV_LOG_DIVERGED an invariant broke: stop the process (raft_alarm). */
int raft_step(struct raft *r, const struct raft_input *in, struct raft_output *ret);

/* ---- Questions -------------------------------------------------------------------------------------------------------- */

/* The alarm that stopped this node as text, or NULL. Static storage. */
const char *raft_alarm(const struct raft *r);

/* Term of an entry (first - 1 included). Errors: -ENOENT compacted or beyond the end. */
int raft_term(const struct raft *r, uint64_t index, uint64_t *ret);

/* Newest configuration and its index, committed or not; valid until the next step. NULL before any is known. */
const struct raft_conf *raft_conf_newest(const struct raft *r, uint64_t *ret_index);

/* Newest configuration at or below index: what a snapshot of that index records. Known for commit and for anything
 * the last two cover; NULL otherwise. */
const struct raft_conf *raft_conf_at(const struct raft *r, uint64_t index, uint64_t *ret_index);

enum raft_progress_state { RAFT_PROBE = 1, RAFT_REPLICATE, RAFT_SNAPSHOT };

struct raft_peer_status {
    uint64_t id;
    enum raft_progress_state state;
    uint64_t match, next;    /* acknowledged; next to send */
    uint64_t flushed;        /* the peer application's */
    uint64_t heard_ms;       /* when it last answered in this term; 0 never */
    uint64_t snapshot_index; /* SNAPSHOT: offered, 0 while wanted */
    bool can_lead, caught_up;
};

struct raft_status {
    uint64_t id;
    enum raft_role role;
    uint64_t term, vote, leader;
    uint64_t first, last, durable, commit, applied, flushed;
    uint64_t conf_index;
    bool conf_committed;
    uint64_t transfer_to; /* under way, 0 none */
    bool lease_lost;      /* given up for this term */
    uint64_t queued_seq, written_seq;
    uint32_t reads_waiting, run_count;
    uint32_t warnings;
    uint32_t peer_count; /* leader only */
    struct raft_peer_status peers[RAFT_MEMBERS_MAX];
};

void raft_status(const struct raft *r, struct raft_status *ret);
