/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the consensus core (raft.h): the state of one replica, and which file keeps which part of it.
 *
 *   raft_core.c       raft_new, raft_step: takes an input apart, puts the output together; roles
 *   raft_log.c        struct raft_log: term runs, what is durable, the queue of writes
 *   raft_election.c   timeouts, pre-votes, votes, stickiness
 *   raft_replicate.c  entries to followers and their acks, commit; the follower's side
 *   raft_read.c       heartbeats, quorum check, lease, read index
 *   raft_conf.c       configurations: which is in force, changing it      (raft_conf_code.c: the bytes)
 *   raft_transfer.c   handing leadership over
 *   raft_snapshot.c   peers too far behind, installation, compaction
 *   raft_message.c    messages as bytes
 *
 * Functions here change state and note what the step shall put out; nothing leaves before raft_step() ends.
 */
#pragma once

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/random.h"
#include "raft/raft.h"
#include "raft/raft_mutant.h"

enum raft_alarm_code {
    RAFT_ALARM_NONE,
#define RAFT_ALARM(NAME, text) RAFT_ALARM_##NAME,
#include "raft/raft_alarm.def"
#undef RAFT_ALARM
};

enum {
    RAFT_PEERS_MAX = RAFT_MEMBERS_MAX + 4, /* removed members are peers until they know of it, or for T_min */
    RAFT_ROUNDS_MAX = 128,                 /* heartbeat rounds whose time of sending is remembered */
    RAFT_SENDS_SPARE = 40,                 /* of RAFT_SENDS_MAX: kept free of entries, for heartbeats and replies */
    RAFT_WRITES_SPARE = 64,                /* of RAFT_WRITES_MAX: kept free of proposals, for terms and votes */
};

/* What is known of the log: no entries, only which term each has and how far the disk is. */
struct raft_log {
    uint64_t first, last; /* last == first - 1: nothing retained */
    uint64_t base_term;   /* of entry first - 1 */
    uint64_t durable;     /* the disk has the log up to here */
    uint64_t loaded;      /* what was on disk at the start and is still in the log */
    struct raft_run *runs;
    uint32_t run_count, run_room;

    /* Write units are numbered; claims[seq % max] is how far the log is durable once that unit is. */
    uint64_t queued_seq, written_seq;
    uint64_t claims[RAFT_WRITES_MAX];
};

/* What a leader knows of another member. Reset at each election. */
struct raft_peer {
    uint64_t id;
    enum raft_progress_state state;
    uint64_t match;    /* acknowledged: durable there */
    uint64_t next;     /* the next entry to send */
    uint64_t accepted; /* as in its last heartbeat reply: reached its log, durable or not */
    uint64_t moved_ms; /* when accepted or match last grew, or sending began */
    uint32_t window;   /* REPLICATE: entries sent and not acknowledged, at most */
    bool probing;      /* PROBE: its one message is under way */
    bool can_lead, reluctant, log_full;
    uint64_t heard_ms;    /* last answer in this term, 0 never */
    uint64_t acked_round; /* newest heartbeat round it answered */
    uint64_t flushed;

    uint64_t snapshot_index, snapshot_source; /* offered; 0 while wanted */
    uint64_t snapshot_pin;                    /* keep the log behind this index; 0 none */
    uint64_t offered_ms;                      /* when the offer was last sent */
    uint64_t want_after_ms;                   /* do not ask for a snapshot before */

    uint64_t leaving_ms;        /* removed: when that was committed; 0 a member */
    uint64_t target, target_ms; /* catch-up round (4.2.1): the last index when it began, and when */
    bool caught_up;
};

struct raft_conf_at {
    uint64_t index;
    struct raft_conf conf;
};

/* A read waiting: for a heartbeat round (leader) or for the leader's word (follower). */
struct raft_waiting {
    uint64_t context;
    uint64_t from; /* the follower that asks; 0 our own application */
    uint64_t index, round;
    uint64_t since_ms;
    bool answered;
};

/* What a message waits for (raft_send.after_seq). */
enum raft_gate {
    RAFT_GATE_NONE, /* entries and heartbeats of a leader, questions: they promise nothing of ours */
    RAFT_GATE_TERM, /* the write that made the term durable: no message carries a term a crash can undo */
    RAFT_GATE_ALL,  /* the newest write of all */
};

struct raft {
    struct raft_options options;
    struct prng prng;
    uint64_t now_ms;
    enum raft_alarm_code alarm;

    /* Persistent (3.8): goes through the write units. */
    uint64_t term, vote;
    struct raft_log log;
    struct raft_conf_at confs[2]; /* the newest configurations of the log, ascending; the newest is in force */
    uint32_t conf_count;

    enum raft_role role;
    uint64_t leader;
    uint64_t commit;
    uint64_t accepted; /* follower: our log equals this term's leader's up to here */

    /* Elections. */
    uint64_t election_ms;  /* campaign at */
    uint64_t sticky_ms;    /* no votes before (4.2.3) */
    bool waited_extra;     /* the extra timeout of a node that cannot lead has been granted */
    uint32_t votes;        /* bit i: member i of the newest configuration said yes */
    uint64_t own_vote_seq; /* candidate: our own vote counts once this is durable */

    /* Leader. */
    uint64_t start_index, start_ms;
    struct raft_peer peers[RAFT_PEERS_MAX];
    uint32_t peer_count;
    uint64_t round, round_ms[RAFT_ROUNDS_MAX], heartbeat_ms;
    bool lease_lost;
    uint64_t transfer_to, transfer_until_ms, transfer_sent_ms;
    uint64_t handover_since_ms, handover_after_ms;

    /* Reads, a ring in order of arrival. */
    struct raft_waiting reads[RAFT_READS_MAX];
    uint64_t read_head; /* number of the oldest */
    uint32_t read_count;

    /* Application, compaction, snapshots. */
    uint64_t applied, flushed;
    bool can_lead, reluctant, log_full;
    uint64_t floor; /* no full member needs the log up to here: what journal-only members compact by */
    uint64_t receiving_index, receiving_term; /* a snapshot is being fetched; 0 none */
    bool left_behind;

    /* Noted for the end of the step. */
    bool hard_changed;
    uint64_t hard_seq; /* the newest unit that changed term or vote */
    struct raft_write write;
    struct raft_entry made; /* an entry of our own making, and its payload */
    uint8_t made_data[RAFT_CONF_ENCODED_MAX];
    struct raft_send sends[RAFT_SENDS_MAX + 1]; /* the last takes what is lost */
    uint8_t gates[RAFT_SENDS_MAX + 1];          /* enum raft_gate */
    uint32_t send_count;
    struct raft_read answers[RAFT_READS_MAX];
    uint32_t answer_count;
    struct raft_snapshot_want wants[RAFT_PEERS_MAX];
    uint32_t want_count;
    struct raft_snapshot_offer offer;
    uint64_t proposed_first;
};

/* ---- raft_core.c ---- */

/* An invariant does not hold: the step puts out nothing and the node stops. */
void raft_alarm_raise(struct raft *r, enum raft_alarm_code code);

/* A message to fill in. When this step sends enough it is lost, as any message may be. */
struct raft_message *raft_send_new(struct raft *r, enum raft_message_type type, uint64_t to, enum raft_gate gate);

/* Take a term as ours, without a vote in it (3.3). */
void raft_set_term(struct raft *r, uint64_t term);
void raft_set_vote(struct raft *r, uint64_t id);
void raft_set_commit(struct raft *r, uint64_t index);

/* Follow leader (0 nobody yet) in our term. */
void raft_follow(struct raft *r, uint64_t leader);

/* Append entries to the log and to this step's write. Terms are set already. */
void raft_append(struct raft *r, const struct raft_entry *entries, uint32_t count);

/* Append an entry of our own, in our term. */
void raft_append_made(struct raft *r, enum raft_entry_type type, uint32_t size);

/* Remove entries from index on, with what depends on them. */
void raft_truncate(struct raft *r, uint64_t from);

/* ---- raft_log.c ---- */

/* Term of an entry, 0 when it is neither in the log nor the one before it. */
uint64_t raft_log_term(const struct raft_log *log, uint64_t index);

static inline uint64_t raft_log_last_term(const struct raft_log *log)
{
    return raft_log_term(log, log->last);
}

/* First index of the run holding index, which must be in the log. */
uint64_t raft_log_run_first(const struct raft_log *log, uint64_t index);

/* Highest index <= upto with this term, or 0. */
uint64_t raft_log_last_of_term(const struct raft_log *log, uint64_t term, uint64_t upto);

/* Room for that many more runs. Errors: -ENOMEM. */
int raft_log_reserve(struct raft_log *log, uint32_t runs);

void raft_log_append(struct raft_log *log, uint64_t term);
void raft_log_truncate(struct raft_log *log, uint64_t from);
void raft_log_compact(struct raft_log *log, uint64_t first);

/* Forget everything: the log begins behind (index, term). Entries up to common stay on disk as they are. */
void raft_log_reset(struct raft_log *log, uint64_t index, uint64_t term, uint64_t common);

/* Number a write unit that leaves the log as it is now. */
uint64_t raft_log_queue(struct raft_log *log);
uint32_t raft_log_writes_left(const struct raft_log *log);

/* Everything up to seq is on disk. Errors: -EINVAL there is no such unit. */
int raft_log_written(struct raft_log *log, uint64_t seq);

/* ---- raft_election.c ---- */

void raft_reset_timeout(struct raft *r);
void raft_election_tick(struct raft *r);

/* Ask for votes in the next term. transfer: the leader wants it, voters' promises to it do not matter (3.10). */
void raft_campaign(struct raft *r, bool transfer);

/* Does a candidate have the votes? */
bool raft_has_won(const struct raft *r);

bool raft_is_sticky(const struct raft *r);
void raft_on_prevote(struct raft *r, const struct raft_message *m);
void raft_on_prevote_reply(struct raft *r, const struct raft_message *m);
void raft_on_vote(struct raft *r, const struct raft_message *m);
void raft_on_vote_reply(struct raft *r, const struct raft_message *m);
void raft_on_timeout_now(struct raft *r, const struct raft_message *m);
int raft_on_campaign(struct raft *r, bool force);

/* ---- raft_replicate.c ---- */

struct raft_peer *raft_peer_find(struct raft *r, uint64_t id);

/* Did it answer within T_min? */
bool raft_peer_heard(const struct raft *r, const struct raft_peer *p);

/* Start over with a peer whose log we do not know. */
void raft_peer_init(struct raft *r, struct raft_peer *p, uint64_t id);

/* It has our log durably up to index. */
void raft_peer_acked(struct raft *r, struct raft_peer *p, uint64_t index);

/* Next entry to send to it: first one message to see, or many. */
void raft_peer_probe(struct raft_peer *p, uint64_t next);
void raft_peer_replicate(struct raft *r, struct raft_peer *p, uint64_t next);

/* Messages were lost or overtook each other: fewer at a time. */
void raft_peer_slow(struct raft_peer *p);

/* Time without progress after which what was sent counts as lost. */
uint64_t raft_resend_ms(const struct raft *r);

/* Send what the window of a peer allows. */
void raft_peer_send(struct raft *r, struct raft_peer *p);

/* Leader, after every input: commit what a majority has. */
void raft_leader_commit(struct raft *r);

void raft_on_append(struct raft *r, const struct raft_message *m);
void raft_on_append_reply(struct raft *r, struct raft_peer *p, const struct raft_message *m);
int raft_on_propose(struct raft *r, uint64_t term, struct raft_entry *entries, uint32_t count);
void raft_ack(struct raft *r, uint64_t to, uint64_t index);

/* ---- raft_read.c ---- */

/* A heartbeat of the current round; to everybody, in a new round. */
void raft_heartbeat_send(struct raft *r, const struct raft_peer *p);
void raft_round_begin(struct raft *r);

/* The newest round a majority answered. */
uint64_t raft_round_confirmed(const struct raft *r);

/* Did a majority of the voters of conf answer within T_min? Ourselves included. */
bool raft_quorum_heard(const struct raft *r, const struct raft_conf *conf, bool grace);
uint64_t raft_lease_until(const struct raft *r);
void raft_leader_tick(struct raft *r);
void raft_leader_reads(struct raft *r);
void raft_reads_expire(struct raft *r);
void raft_reads_refuse(struct raft *r);
int raft_on_read_local(struct raft *r, uint64_t context);
void raft_on_read(struct raft *r, const struct raft_message *m);
void raft_on_read_reply(struct raft *r, const struct raft_message *m);
void raft_on_heartbeat(struct raft *r, const struct raft_message *m);
void raft_on_heartbeat_reply(struct raft *r, struct raft_peer *p, const struct raft_message *m);

/* ---- raft_conf.c ---- */

/* In force; empty when none is known. */
const struct raft_conf *raft_conf_current(const struct raft *r);
const struct raft_member *raft_self(const struct raft *r);
bool raft_is_voter(const struct raft *r);

static inline bool raft_votes(const struct raft_member *m)
{
    return m->role == RAFT_VOTER;
}

/* An appended configuration takes effect (4.1). */
void raft_conf_adopt(struct raft *r, uint64_t index, const struct raft_conf *conf);
void raft_conf_rollback(struct raft *r, uint64_t from);

/* Leader: have progress for everybody we must talk to; let go of who is removed and knows it. */
void raft_peers_sync(struct raft *r);
int raft_on_conf(struct raft *r, enum raft_conf_op op, const struct raft_member *member);

/* ---- raft_transfer.c ---- */

int raft_on_transfer(struct raft *r, uint64_t to);
void raft_transfer_tick(struct raft *r);

/* Leader, after every input: tell the successor when it has everything. */
void raft_leader_transfer(struct raft *r);

/* Leadership ends by its own configuration: name a successor, so that nobody waits for a timeout (4.2.2). */
void raft_transfer_parting(struct raft *r);

/* ---- raft_snapshot.c ---- */

void raft_snapshot_want(struct raft *r, struct raft_peer *p);
void raft_snapshot_offer(struct raft *r, struct raft_peer *p);
void raft_on_snapshot(struct raft *r, const struct raft_message *m);
void raft_on_snapshot_failed(struct raft *r, struct raft_peer *p, const struct raft_message *m);
int raft_on_snapshot_ready(struct raft *r, uint64_t peer, uint64_t source, uint64_t index);
int raft_on_snapshot_install(struct raft *r, const struct raft_input *in);
int raft_on_snapshot_given_up(struct raft *r, uint64_t peer);
uint64_t raft_compact_to(const struct raft *r);

/* Leader: raise floor to the lowest index every full member's application has flushed. */
void raft_compact_floor(struct raft *r);
int raft_on_compact(struct raft *r, uint64_t first);

/* ---- raft_message.c ---- */

/* Does it contradict itself? Errors: -CV_BAD_MESSAGE. */
int raft_message_check(const struct raft_message *m);
