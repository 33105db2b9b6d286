/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The voters as cv raft sees them: every master of the configuration is asked for the status of the journal beside it
 * (MSG raft_admin), all at once and without a session, so it also works when nobody leads. What the leader says decides;
 * what others say of themselves fills in the rest. When no leader is among them, masters they name are asked too.
 *
 *      struct raft_view *v;
 *      int status = raft_view_open(cli, &v);                  connections are made when needed, and kept
 *      raft_view_look(v, deadline_ns);                        as often as wanted: v->members, v->leader, ...
 *      raft_view_ask(v, v->leader_master, &message, ...);
 *      raft_view_close(v);
 */
#pragma once

#include "cli/cli.h"
#include "wire/link.h"
#include "wire/message.h"

/* The numbers of enum raft_warning of raft/raft.h. */
enum raft_view_warning { RAFT_VIEW_HANDOVER = 1, RAFT_VIEW_LEFT_BEHIND = 2, RAFT_VIEW_NOT_MEMBER = 4 };

enum { RAFT_VIEW_MASTERS = 32, RAFT_VIEW_MEMBERS = 16, RAFT_VIEW_ADDRESS = 128 };

struct raft_view_member {
    uint64_t id;
    bool voter, journal_only;
    char address[RAFT_VIEW_ADDRESS], client_address[RAFT_VIEW_ADDRESS];

    /* As the leader sees it; of the leader itself: its own end. */
    bool followed;           /* the leader says something of it */
    char progress[16];       /* "probe", "replicate", "snapshot"; "" of the leader */
    uint64_t match, flushed; /* entries it has acknowledged; its master's state on disk */
    uint64_t lag;            /* entries behind the leader's last */
    int64_t heard_ago_ms;    /* -1: never in this term; the leader: 0 */
    uint64_t snapshot_index; /* being fetched; 0: none */
    bool caught_up, can_lead;
    char reason[200]; /* why the leader does not reach it; "" */
    char error[32];   /* the same by name: "ECONNREFUSED" */

    /* As its own journal says, if its master was asked. */
    bool answered;
    char role[16]; /* "leader", "follower", ...; "" not known */
    uint64_t term, commit;
};

struct raft_view_master {
    char address[256];
    bool named; /* by the configuration, not by a member */
    int error;  /* of the last question: 0, or why nobody answered */
    bool there; /* the master did, if only to say so of its journal */
    uint64_t node;
    char reason[256];
};

struct raft_view {
    struct raft_view_master masters[RAFT_VIEW_MASTERS];
    uint32_t master_count;

    /* As of the last look. */
    uint64_t looked_ns; /* when it began, clock_ns() */
    uint32_t answers;
    uint64_t leader; /* node; 0: nobody says that it leads */
    uint32_t leader_master;
    uint64_t term, commit, last, conf_index;
    bool conf_committed;
    uint64_t transfer_to;
    uint32_t warnings; /* the leader's, enum raft_view_warning */
    char cluster[40];
    uint32_t incarnation;
    struct raft_view_member members[RAFT_VIEW_MEMBERS];
    uint32_t count;

    struct raft_view_private *private;
};

/* Returns CLI_OK, or reports what is wrong with the configuration. */
int raft_view_open(struct cli *cli, struct raft_view **ret);
void raft_view_close(struct raft_view *v);
static inline void raft_view_closep(struct raft_view **v)
{
    if (*v)
        raft_view_close(*v);
}

/* Ask all for their status. 0 when any answered. Errors: -CV_UNREACHABLE and such: the first master's. */
int raft_view_look(struct raft_view *v, uint64_t deadline_ns);

/* Report that raft_view_look() failed. Returns the status to exit with. */
int raft_view_fail(const struct raft_view *v, int r);

/* Whether the leader has heard nothing of a follower for so long that it is not there. False without a leader. */
bool raft_view_silent(const struct raft_view *v, const struct raft_view_member *m);

/* Whose journal is beside the master that serves clients at an address: the node. Errors: why nobody says. */
int raft_view_who_serves(struct raft_view *v, const char *address, uint64_t deadline_ns, uint64_t *ret_node);

/* Ask one master. *ret_text: JSON, or the reason in words (with a zero behind it). Errors: the journal's (-CV_NOT_LEADER,
 * ...), or why the master could not be asked. */
int raft_view_ask(struct raft_view *v, uint32_t master, const struct msg_raft_admin *m, uint64_t deadline_ns,
                  struct buf *ret_text);

const struct raft_view_member *raft_view_find(const struct raft_view *v, uint64_t id);
uint32_t raft_view_voters(const struct raft_view *v, bool full_only);

/* The member an argument names: its id, the beginning of it (4 digits at least), "host:port" of journal or master, or the
 * host alone. 0, and *ret; errors: -ENOENT; -ENOTUNIQ. *ret_id: the number, when it is a whole id of no member. */
int raft_view_resolve(const struct raft_view *v, const char *name, const struct raft_view_member **ret,
                      uint64_t *ret_id);

/* Report that an argument names no member, or more than one. Returns CLI_FAILED. */
int raft_view_fail_name(const struct raft_view *v, int r, const char *name);

/* "0123456789abcdef" into out (17 bytes); returns out. */
char *raft_node_text(uint64_t node, char out[17]);
