/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all threads of a master share: the namespace with its lock, the database under it, and the few words that say
 * whether we lead and which answers may leave. Everything else belongs to one thread.
 *
 *      network loops   read lock: look up, prepare            wait for `safe`
 *      scribe          write lock: execute, commit, apply     moves `safe`
 *      writer          no lock: the sealed delta -> database
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "meta/master_options.h"
#include "meta/master_store.h"
#include "meta/meta.h"
#include "wire/message.h"

#define MASTER_ADDRESS_SIZE 128 /* "host:port" and the final zero */

enum master_disk { MASTER_DISK_OWN = 1, MASTER_DISK_JOURNAL = 2 };

struct master_core {
    struct meta *meta;
    struct master_store *store;
    struct meta_base base; /* meta's view of store */
    pthread_rwlock_t lock; /* meta.h's [R] and [W]; a waiting writer goes first */

    /* Written by the scribe, read by any thread, atomic. */
    _Atomic uint64_t leading;        /* the term we lead and serve in; 0: ask somebody else */
    _Atomic uint64_t lease_until_ns; /* we lead at least until then (CLOCK_BOOTTIME) */
    _Atomic uint64_t confirmed_ns;   /* a majority confirmed that we led in this term at this time, or later */
    _Atomic uint64_t asked_ns;       /* when a majority was asked for that the last time */
    /* By ack mode: answers that depend on batches up to this may leave. [ACK_QUORUM]: those that are committed. */
    _Atomic uint64_t safe[ACK_MODES];
    _Atomic uint64_t early; /* what was answered before a majority had it rests on batches up to this: see MSG sync */
    /* Changes when some of that may have been lost: with the term, and when it is taken back. */
    _Atomic uint64_t generation;
    _Atomic bool acks_early; /* something may be answered so, somewhere */
    /* clock_ns(): from then on also below mounts whose mode is weaker than the cluster's. */
    _Atomic uint64_t mount_acks_ns;
    _Atomic uint64_t released_index; /* log index of that batch, or the last applied: what such answers rest on */
    _Atomic uint64_t view;           /* counts up, under the write lock, when batches not released were taken back */
    _Atomic uint64_t led_since_ns;   /* when `leading` began */
    _Atomic uint64_t node;           /* our journal's id */
    _Atomic uint64_t leader;         /* node that leads as far as the journal knows; 0: nobody */
    _Atomic uint32_t disks_low;      /* enum master_disk: whose file system is nearly full; then another should lead */
    _Atomic bool disk_held;          /* ours is so full that nothing is written to it */
    _Atomic bool refuses_new;        /* and when no other can: nothing new is made */
    _Atomic uint64_t disk_free;      /* bytes of ours */
    _Atomic uint64_t damaged_ns;     /* since then (clock_ns()) the database cannot be read in all places; 0: it can */
    _Atomic uint32_t incarnation;    /* of the cluster */

    /* [R] [W] Where clients find `leader`, as the journal knows it; empty: not known. In which term. */
    char leader_address[MASTER_ADDRESS_SIZE];
    uint64_t leader_term;
};

/* Build the namespace on an open store, which stays the caller's. Reads the database.
 * Errors: those of meta_new(). */
int master_core_init(struct master_core *c, const struct meta_options *options, struct master_store *store);
void master_core_fini(struct master_core *c);

static inline void master_core_read_lock(struct master_core *c)
{
    pthread_rwlock_rdlock(&c->lock);
}

static inline void master_core_write_lock(struct master_core *c)
{
    pthread_rwlock_wrlock(&c->lock);
}

static inline void master_core_unlock(struct master_core *c)
{
    pthread_rwlock_unlock(&c->lock);
}

/* Scribe: somebody else leads now, or nobody is known to (leader 0). */
void master_core_set_leader(struct master_core *c, uint64_t leader, uint64_t term, struct text address);

/* Any thread: who leads, as it is told to who asked the wrong master. address: room for the text ret points to. */
void master_core_leader(struct master_core *c, char address[MASTER_ADDRESS_SIZE], struct msg_leader_answer *ret);

/* The scribe: note whether a disk is nearly full; whether new names are refused for it. Said when it changes. */
void master_core_note_disk(struct master_core *c, enum master_disk disk, bool low);
void master_core_refuse_new(struct master_core *c, bool refuse);

/* Any thread: a row cannot be read: error, which is noted, and the first time said. Returns what to answer: -CV_BUSY while
 * another master may be about to lead; then error. */
int master_core_damaged(struct master_core *c, int error);

/* Any thread: do we lead, as far as we know? Requests are executed then; what may be answered: master_core_certain(). */
static inline bool master_core_leads(const struct master_core *c)
{
    return atomic_load_explicit(&c->leading, memory_order_acquire) != 0;
}

/* Any thread: something was read from our memory in this term, not after executed_ns. Was it the truth then, and not what
 * a leader that nobody follows any more remembers? Our lease must last until now, after it was read; or a majority was
 * asked after it was read and followed us (raft.md 6.6). Returns 0; -CV_BUSY: not certain yet, master_scribe_confirm()
 * asks; -CV_NOT_LEADER. What was committed needs no such proof: the commit is one. */
static inline int master_core_certain(const struct master_core *c, uint64_t term, uint64_t executed_ns, uint64_t now_ns)
{
    bool certain = now_ns < atomic_load_explicit(&c->lease_until_ns, memory_order_acquire) ||
                   executed_ns <= atomic_load_explicit(&c->confirmed_ns, memory_order_acquire);
    /* Last: those of another term are written when this one is over. */
    if (atomic_load_explicit(&c->leading, memory_order_acquire) != term || !term)
        return -CV_NOT_LEADER;
    return certain ? 0 : -CV_BUSY;
}
