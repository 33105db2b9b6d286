/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions, their slots, and open handles: always in memory.
 *
 * Sessions and slots are rows too; each has what was executed (now) and what is committed, so that an undone batch can
 * fall back without asking the base. Handles are not rows: the leader holds them, clients tell them to a new one.
 * Owner: the scribe; readers look under the shared lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/pool.h"
#include "meta/meta_format.h"

/* Hash of links by number; several may have the same. Grows by doubling: for thousands, not for millions. */
struct link {
    struct link *next;
    uint64_t key;
};
struct link_table {
    struct link **buckets;
    uint32_t mask, count;
};

/* What a slot did last. error, handle-only results and other things without a row live as long as this leader. */
struct slot {
    struct meta_slot_row now, committed; /* sequence 0: nothing yet */
    int error;                           /* of now: it failed, so there is no row of it */
    uint32_t batch;                      /* low bits; of now, when it has a row */
};

struct session {
    struct link link; /* key: id */
    bool now_open, committed_open;
    bool told;      /* this leader knows all its handles */
    uint32_t batch; /* low bits; of the last opening or closing */
    uint32_t slot_count, handle_count;
    struct slot **slots; /* each made at first use */
    struct list handles; /* struct handle.of_session */
    uint8_t *row;        /* encoded */
    uint32_t row_n;
};

struct handle {
    struct link by_id;    /* key: handle */
    struct link by_inode; /* key: inode */
    struct list of_session;
    struct session *session;
    uint64_t granted;    /* extent rows with this epoch or a later one were made for this session; 0: none */
    uint64_t granted_to; /* the last epoch given through this handle */
    uint32_t flags;      /* of open(2) */
    bool orphan;         /* its inode lost its last name while open */
};

#define SESSION_HANDLES_MAX (1u << 20)

struct session_table {
    struct link_table sessions, handles, inodes;
    struct pool handle_pool;
    uint32_t next_handle;
    uint64_t open_sessions;
    uint32_t untold; /* sessions that may have handles the leader does not know */
};

int session_table_init(struct session_table *t); /* -ENOMEM */
void session_table_fini(struct session_table *t);

/* Also those closing or opening: look at now_open. NULL: none. */
struct session *session_find(const struct session_table *t, uint64_t id);
/* Errors: -ENOMEM. */
int session_add(struct session_table *t, uint64_t id, struct text row, struct session **ret);
/* The leader before may have given any of them handles; this one is known to have told all it has. */
void session_forget_told(struct session_table *t);
void session_has_told(struct session_table *t, struct session *s);

/* Free it when it is neither open now nor committed. Its handles must be gone. */
void session_settle(struct session_table *t, struct session *s);

/* Every session there is, until each() returns false; it may not remove any. */
void session_each(const struct session_table *t, bool (*each)(void *arg, struct session *s), void *arg);

/* The slot, made if need be. Errors: -CV_SLOT_BAD out of range; -ENOMEM. */
int session_slot(struct session *s, uint32_t slot, struct slot **ret);
/* The slot if it was ever used, else NULL. */
const struct slot *session_slot_peek(const struct session *s, uint32_t slot);

/* Errors: -ENOMEM; -ENFILE. */
int handle_add(struct session_table *t, struct session *s, uint64_t handle, uint64_t inode, uint32_t flags,
               struct handle **ret);
struct handle *handle_find(const struct session_table *t, uint64_t handle);
bool handle_any(const struct session_table *t, uint64_t inode);
void handle_remove(struct session_table *t, struct handle *h);
/* May this handle write? */
bool handle_writes(const struct handle *h);
/* Does a handle of another session than this one write to the inode? */
bool handle_shared(const struct session_table *t, uint64_t inode, uint64_t session);
/* Grants. Of the session: from which epoch on rows of the inode are its own; 0: none are known to be. */
uint64_t handle_granted(const struct session_table *t, uint64_t inode, uint64_t session);
/* Those of all other sessions are over (session 0: of all). */
void handle_end_grants(struct session_table *t, uint64_t inode, uint64_t but_session);
/* The inode lost its last name: note it at its handles. */
void handle_set_orphan(struct session_table *t, uint64_t inode);
