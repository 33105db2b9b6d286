/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the scribe. All of it belongs to its thread but for what is marked. [W]: under the write lock. Each line calls
 * those below it, never above:
 *
 *      master_scribe.c           the turn, the delta, life
 *      master_scribe_link.c      what the link tells: roles, entries, commits
 *      master_scribe_disk.c      the file system of the database: how full, and what that means
 *      master_scribe_role.c      leading: beginning, taking back, is it still us
 *      master_scribe_inner.c     what the master asks of itself      master_scribe_admin.c     what administrators ask
 *      master_scribe_snapshot.c  checkpoints, states to switch to    master_scribe_backup.c    (of the journal; backups)
 *      master_scribe_execute.c   requests, and the batches that come of them
 *      master_scribe_answer.c    when answers may leave, and how they get home
 */
#pragma once

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "meta/master_ack.h"
#include "meta/master_admin.h"
#include "meta/master_batches.h"
#include "meta/master_digest.h"
#include "meta/master_link.h"
#include "meta/master_metrics.h"
#include "meta/master_scribe.h"
#include "meta/master_sessions.h"
#include "meta/master_workers.h"
#include "meta/master_writer.h"
#include "wire/manifest.h"

#define SCRIBE_EXPIRE_MAX  64
#define SCRIBE_DELTA_STALL 4 /* times flush_bytes: above it nothing is executed or fed until the writer caught up */

enum scribe_state { SCRIBE_DETACHED, SCRIBE_FOLLOWING, SCRIBE_LEADING };

/* See master_scribe_snapshot.c. */
enum scribe_snapshot_state { SNAPSHOT_IDLE, SNAPSHOT_FLUSH, SNAPSHOT_MAKE, SNAPSHOT_LOOK };

struct scribe_snapshot {
    enum scribe_snapshot_state state;
    struct io_op op;
    uint64_t context, index; /* as asked for */
    uint64_t until_ns;       /* FLUSH */
    struct manifest manifest;
    char directory[64]; /* LOOK */
};

struct master_scribe {
    struct loop *loop;
    struct master_core *core;
    struct master_scribe_options o;
    const struct master_options *options;
    struct master_link *link;
    struct master_writer *writer;
    struct master_link_events link_events;
    struct master_writer_events writer_events;
    struct master_metrics *metrics; /* this thread's block */
    struct master_batches batches;
    struct loop_hook turn;
    struct loop_timer window, tick, grace;
    bool started;

    /* Any thread, atomic. */
    _Atomic uint32_t queued; /* pushed and not executed yet */
    _Atomic bool refusing;
    _Atomic int state; /* enum scribe_state; the scribe's to write, as all below */
    _Atomic uint64_t term, applied, committed, attached;
    _Atomic uint32_t in_flight;

    struct master_chain waiting;
    int attach_error; /* why the last attach did not last, as it was logged; 0: it did */
    uint8_t role;
    uint64_t start_index;                 /* of our leadership: execute only on top of it */
    uint64_t elected_ns, elected_behind;  /* when the role came, and how many entries were missing then */
    bool applied_untold;                  /* the journal waits for link_applied: see scribe_tell_applied() */
    uint64_t applied_told;                /* what it was told last */
    bool disk_untold, damage_told;        /* what the disk is like has to be told; that it is damaged was noticed */
    int broken;                           /* the writer gave up with this: we are about to be made anew */
    uint64_t sequence;                    /* of the last proposal since role_seen */
    uint64_t commit_index, durable_index; /* as told by the journal */
    uint64_t filling_since_ns;            /* 0: the batch being filled is empty */
    uint64_t opened_ns;                   /* its first operation was executed; 0: none was by a client */
    uint32_t modes;                       /* bit 1 << enum ack_mode of each that is in use */
    struct master_ack_book acks;          /* what was answered early and then taken back */
    struct master_digests digests;        /* of what was applied last */
    uint32_t since_digest;                /* batches of ours since the last one proposed */
    uint64_t lost_counted;                /* of acks.lost, in the metrics */
    bool window_over;                     /* close the batch being filled although others are in flight */
    bool stalled;                         /* the core wants a commit before it executes more */
    bool purge_allowed;
    bool serves_anew;                        /* nobody was told yet */
    bool mounts_change;                      /* in a batch that is not committed yet */
    bool stopping, grace_over, link_stopped; /* see stop_step() */
    uint64_t last_seal_ns, last_expiry_ns;

    /* Is it still us who leads: one question at a time (master_scribe_role.c). */
    _Atomic bool confirm_wanted; /* any thread, atomic: an answer waits for a question not asked yet */
    _Atomic bool confirm_posted; /* any thread, atomic */
    struct loop_job confirm;
    struct loop_timer confirm_again;
    bool confirming;
    uint64_t confirm_context, confirm_asked_ns;

    /* What the master asks of itself: one at a time. */
    struct meta_request inner;
    bool inner_busy;     /* holds a request */
    bool inner_fetching; /* its rows are on the way; then it is prepared again */
    bool inner_failed;   /* do not ask for more before the next tick */
    struct io_op inner_fetch;
    struct master_worker_row inner_worker; /* of a request that stores it */
    _Atomic bool poked;                    /* any thread, atomic: poke is posted */
    struct loop_job poke;
    uint64_t expired[SCRIBE_EXPIRE_MAX];
    uint32_t expired_count;

    struct scribe_snapshot snapshot;
    struct { /* one backup at a time: master_scribe_backup.c */
        struct io_op op;
        struct master_admin *admin; /* on a file thread */
        struct manifest manifest;
    } backup;
    struct list admins; /* struct master_admin: waiting for the journal, or a flush */
    uint64_t admin_context;

    struct master_home *homes[MASTER_HOMES_MAX];
    struct master_chain outs[MASTER_HOMES_MAX]; /* to be given back at the end of the turn */
    uint32_t home_count;
};

static inline void scribe_ask_for_turn(struct master_scribe *s)
{
    loop_at_turn_end(s->loop, &s->turn);
}

static inline enum scribe_state scribe_state(const struct master_scribe *s)
{
    return (enum scribe_state)s->state;
}

/* Metrics, if anybody wants them. */
#define COUNT(s, name, n)                                                                                              \
    do {                                                                                                               \
        if ((s)->metrics)                                                                                              \
            counter_add(&(s)->metrics->name, (n));                                                                     \
    } while (0)
#define OBSERVE(s, name, v)                                                                                            \
    do {                                                                                                               \
        if ((s)->metrics)                                                                                              \
            histogram_add(&(s)->metrics->name, (v));                                                                   \
    } while (0)

/* --- master_scribe_answer.c */
/* Give requests back to their homes; they leave with scribe_post(). released: reads may wait for that, too. */
void scribe_give_back(struct master_scribe *s, struct master_request *q);
void scribe_give_back_all(struct master_scribe *s, struct master_chain *chain, int error); /* error 0: as it is */
void scribe_post(struct master_scribe *s, bool released);
struct master_request *scribe_take_waiting(struct master_scribe *s); /* the next that was pushed, or NULL */
void scribe_refuse_waiting(struct master_scribe *s, int error);
/* [W] It was executed: it leaves when its ack mode allows. */
void scribe_answer_or_wait(struct master_scribe *s, struct master_request *q);
/* Let answers go that depend on what is safe now. Returns whether any may: scribe_post(s, true). */
bool scribe_release(struct master_scribe *s);
void scribe_release_early(struct master_scribe *s); /* [W] Mode "applied": reads see at once what was executed */
/* [W] Find out which ack modes are in use. changed: modes of mounts may be others than before; a weaker one counts when all
 * sessions were told, or have nothing they were told before to go by any more. */
void scribe_look_at_modes(struct master_scribe *s, bool changed);

/* --- master_scribe_execute.c */
/* [W] Requests that wait. Returns whether it stopped only to let readers in. */
bool scribe_execute_some(struct master_scribe *s);
/* [W] Bring what the journal told committed into the namespace. */
void scribe_commit_some(struct master_scribe *s);
/* [W] May something be executed, as far as batches go? Closes the one being filled when it is full. */
bool scribe_close_if_due(struct master_scribe *s, bool end_of_turn);
void scribe_propose_some(struct master_scribe *s);

/* --- master_scribe_inner.c */
void scribe_inner_init(struct master_scribe *s);
void scribe_inner_run(struct master_scribe *s);   /* [W] */
void scribe_inner_fetch(struct master_scribe *s); /* after the lock, if scribe_inner_run() found rows missing */
void scribe_inner_tick(struct master_scribe *s);  /* now and then: sessions that did not renew, orphans */

/* --- master_scribe_admin.c, master_scribe_backup.c */
void scribe_admin_answered(struct master_scribe *s, const struct msg_link_admin_answer *answer);
void scribe_admin_flushed(struct master_scribe *s);
bool scribe_admin_wants_flush(const struct master_scribe *s);
void scribe_admin_fail(struct master_scribe *s, int error, bool stopping);
bool scribe_backup_is(const struct master_admin *a);
void scribe_backup_asked(struct master_scribe *s, struct master_admin *a);   /* from the network */
void scribe_backup_flushed(struct master_scribe *s, struct master_admin *a); /* the state is on disk */

/* --- master_scribe_snapshot.c */
void scribe_on_snapshot_request(void *arg, const struct msg_link_snapshot_request *m);
void scribe_on_install(void *arg, const struct msg_link_install *m);
bool scribe_snapshot_wants_flush(const struct master_scribe *s);
void scribe_snapshot_step(struct master_scribe *s);

/* --- master_scribe_disk.c */
/* How full is it? disk_untold: the journal has to hear of it. */
void scribe_look_at_disk(struct master_scribe *s);
/* May the writer be given something, and checkpoints be made? */
bool scribe_may_write(const struct master_scribe *s);
/* Why we should not lead. */
enum link_unfit scribe_unfit(const struct master_scribe *s);

/* --- master_scribe_role.c */
void scribe_role_init(struct master_scribe *s);
void scribe_lead(struct master_scribe *s);
void scribe_serve_if_formatted(struct master_scribe *s); /* [W] */
/* [W] Take back all from this position in the book on, and what is being filled, answering their requests with error.
 * unknown: they may be in the log all the same. */
void scribe_undo(struct master_scribe *s, uint32_t position, int error, bool unknown);
/* Lose the leadership, if there is one. lost: and the link, so everything in flight has to be taken back. */
void scribe_step_down(struct master_scribe *s, bool lost);
void scribe_count_lost(struct master_scribe *s);                           /* acks.lost, in the metrics */
void scribe_on_read_index(void *arg, const struct msg_link_read_index *m); /* it is, or is not, still us */

/* --- master_scribe_link.c */
extern const struct master_link_events scribe_link_events;
void scribe_tell_applied(struct master_scribe *s);
