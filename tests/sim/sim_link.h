/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local link between a journal and its master: two ordered streams with small delays; it breaks when either
 * process stops and is made again when both run (raft.md 7.1). The journal's side is here too: it feeds entries,
 * refuses proposals, reports watermarks.
 */
#pragma once

#include "sim_world.h"

enum to_master {
    TO_MASTER_WELCOME = 1, /* after an attach: role, term, start, last index of the log, durable, apply_to, lease */
    TO_MASTER_ROLE,        /* the same fields */
    TO_MASTER_STATUS,      /* durable, apply_to, lease */
    TO_MASTER_PROPOSED,    /* number -> index, term */
    TO_MASTER_REJECTED,    /* number, and all after it in flight */
    TO_MASTER_TRUNCATE,    /* from index */
    TO_MASTER_INSTALL,     /* the state was replaced: index */
    TO_MASTER_READ,        /* context, index, result */
    TO_MASTER_NO_LEASE,    /* leases are over in this term: answer with TO_JOURNAL_NO_LEASE */
    TO_MASTER_FRAME = 16,  /* of the twin (sim_twin.h). number: type of the message, data: body (size) and data */
};

enum to_journal {
    TO_JOURNAL_ATTACH = 1, /* applied, flushed */
    TO_JOURNAL_PROPOSE,    /* number, term, payload */
    TO_JOURNAL_APPLIED,    /* applied, flushed, can_lead, log_full */
    TO_JOURNAL_READ,       /* context */
    TO_JOURNAL_NO_LEASE,   /* as asked: no read is served under a lease of that term any more */
    TO_JOURNAL_FRAME = 16, /* of the twin: the answer to a role. term */
};

struct link_message {
    struct link_message *next; /* the journal's queue of proposals */
    uint8_t type;
    uint8_t entry_type;
    bool flag, flag2;
    enum raft_role role;
    uint64_t term, number, index, start, last, durable, apply_to, lease_ms;
    int result;
    const void *data;
    uint32_t size;
};

struct link_state {
    bool up;
    uint32_t number;                      /* of the connection: messages of an older one are void */
    uint64_t to_master_us, to_journal_us; /* when the last message arrives */
    uint64_t slow_until_us, slow_us;      /* a fault: up to this much more */

    /* The journal's side. */
    bool attached;
    uint64_t told_durable, told_apply_to, told_lease;
    struct link_message *proposals, **proposals_end; /* in order; a busy core makes them wait */
    struct link_message *proposing;                  /* in the core at this moment */
    uint64_t applied, flushed;                       /* the master's last word */
    bool can_lead;                                   /* as the core was told */
    bool handing_over;                               /* the master has been asked to give up its lease */
};

/* Both run: connect and attach. */
void link_connect(struct node *n);

/* One side died. */
void link_break(struct node *n);

void link_send_master(struct node *n, const struct link_message *m);
void link_send_journal(struct node *n, const struct link_message *m);

/* EVENT_TO_MASTER, EVENT_TO_JOURNAL. */
void link_on_master(struct node *n, struct link_message *m);
void link_on_journal(struct node *n, struct link_message *m);

/* The journal after each step: role changes, truncation and watermarks for the master. */
void link_after_step(struct node *n, const struct raft_output *before, const struct raft_output *out);
void link_answer_read(struct node *n, const struct raft_read *read);
void link_on_installed(struct node *n);
void link_propose_waiting(struct node *n);

/* What ends this leader's promise to be the only one (a transfer, its own removal or demotion) is first told to the
 * master, which serves no more reads under its lease in this term; when it says so, the core gets the input. Without
 * this, a read under the old lease could still leave while the successor commits. */
void link_transfer(struct node *n, uint64_t to);
void link_leave(struct node *n, const struct raft_input *conf);
