/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespace core (meta/meta.h, the very object files) under a master of the simulator. In seeds with params.space
 * whatever the small master executes (sim_master.h) is executed in the namespace too, in the same batch: a key is a
 * file of that name, its size the key's version. So the small master is the model the namespace is held against, all
 * the way through crashes, changes of leader and undone batches:
 *
 *     request  -> overlay row        + meta_execute(session, slot, sequence), in 1 to 3 operations
 *     retry    -> joins the original + must be answered from the slots, not executed
 *     PROPOSE  -> batch_data         + payload of meta_batch_close behind it
 *     commit, TRUNCATE, entries of others, flush, restart -> the same of the core
 *
 * What must hold is in sim_space_check.c. The base is an immutable sorted array, one a flush.
 */
#pragma once

#include "sim_master.h"
#include "sim_world.h"

struct space;      /* of a master process, or the checker's fold */
struct space_base; /* rows on a disk; lives as long as the run */
struct sim_entry;

/* Which operations a change was made of; kept in the slot, so that a retry repeats them. */
enum space_plan {
    SPACE_CREATE = 1, /* mknod, setattr */
    SPACE_RESIZE,     /* setattr */
    SPACE_REPLACE,    /* mknod, setattr, rename over it */
    SPACE_REMOVE,     /* unlink */
    SPACE_TAKE_ID,    /* mknod, rename over the last one */
};

/* slot: of the machine it runs on. base: what is on its disk, NULL: nothing. */
struct space *space_new(struct world *w, uint32_t slot, const struct space_base *base);
struct space *space_free(struct space *s); /* NULL is fine */

/* Lead in this term, once in each, when all before it is applied; follow. */
void space_lead(struct space *s, uint64_t term);
void space_follow(struct space *s);

/* Execute in the open batch. before: the version the key had. Sets op->plan and *ret_depends, a batch of the core's.
 * Errors: -CV_BUSY no ids are left, nothing happened. */
int space_execute(struct space *s, struct op *op, uint64_t *ret_depends);

/* The same request again: it must be answered from the slots. */
void space_repeat(struct space *s, const struct op *op, uint64_t *ret_depends);

/* Ask for a key, expecting this version; negative: by a removal that must fail. */
void space_expect(struct space *s, uint32_t key, uint64_t version, bool negative, uint64_t *ret_depends);

/* Is there anything to do before this client can be served: the root, its session? Does it in the open batch.
 * Returns whether there was; *ret_session: opened, 0 none. */
bool space_prepare(struct space *s, uint32_t client, uint64_t *ret_session);

/* Behind: a leader that was replaced and does not know of the session, as of much else. */
enum space_client { SPACE_READY, SPACE_NO_SESSION, SPACE_BEHIND };
enum space_client space_client(const struct space *s, uint32_t client);

/* What the core asks of itself; whether something was done. */
bool space_inner(struct space *s);

/* Batches: the number the open one will have; its payload behind the batch, which moves, or number 0: nothing changed. */
uint64_t space_open_number(const struct space *s);
uint64_t space_close(struct space *s, struct batch_data **data);
void space_committed(struct space *s, uint64_t number, uint64_t index);
void space_undo(struct space *s, uint64_t from_number);

/* An entry that is not ours; any type. */
void space_apply(struct space *s, const struct sim_entry *e);

/* Write what is committed to a new base. seal: only set the delta apart; the next call writes it. */
void space_seal(struct space *s);
const struct space_base *space_flush(struct space *s);

/* Hash of everything that can be seen, with what is not committed. */
uint64_t space_dump(struct space *s);
uint64_t space_digest(const struct space *s);

/* ---- sim_space_check.c ---- */

/* An entry is committed, for the first time anywhere: fold it (15). */
void space_check_fold(struct world *w, const struct sim_entry *e);

/* A master has applied up to index and has nothing in flight: it must see what the fold saw there (13, 15, 16). */
void space_check_applied(struct node *n, uint64_t index, bool quiet);

/* What a base holds must be the fold at index (15). */
void space_check_base(struct node *n, const struct space_base *base, uint64_t index);

/* An id is given to something new (18). */
void space_check_id(struct world *w, uint32_t slot, uint64_t id);
