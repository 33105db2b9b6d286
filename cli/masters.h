/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every master of the configuration says of itself and of the cluster (MSG cluster_status), asked all at once and
 * without a session: it works when some are down and when nobody leads.
 */
#pragma once

#include "cli/cli.h"
#include "wire/message.h"

#define MASTERS_MAX 16

struct master_says {
    char address[256]; /* as configured */
    int error;         /* 0, or why it did not answer */
    char reason[160];  /* the same in words, "" when there is nothing to add */
    bool leads;
    struct msg_cluster_status_answer answer; /* error 0; borrows from body */
    struct buf body;
};

struct masters {
    struct master_says list[MASTERS_MAX];
    uint32_t count, answers;
    const struct master_says *leader; /* NULL: nobody says that it leads */
};

/* Ask all; while nobody leads, again for up to patience_ms. Free with masters_fini() in every case. Returns CLI_OK (also when nobody
 * answers), or reports what is wrong with the configuration. */
int masters_ask(struct cli *cli, uint32_t patience_ms, struct masters *ret);
/* The same once, leader or not: for half a second at most. */
int masters_ask_once(struct cli *cli, struct masters *ret);
/* Ask all again, and another one. Without room, or what the loop gives, nothing is asked. */
void masters_ask_also(struct cli *cli, struct masters *m, const char *address);
void masters_fini(struct masters *m);

/* What it says of itself among its nodes; false: nothing. */
bool master_self(const struct master_says *m, struct rec_node_info *ret);
