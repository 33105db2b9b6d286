/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identify: who is at an address? The leader's journal asks there itself, since it is the one that must reach a new member.
 * One hello on a channel of its own; what is learnt goes back to the master that asked, and the connection is closed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "raft/journal_dial.h"
#include "raft/journal_link_internal.h"
#include "raft/journal_status.h"

enum { IDENTIFY_MAX = 4, STEP_MS = 2000 };

struct link_identify {
    struct list link; /* l->identifies */
    struct journal_link *l;
    struct journal_self self;
    struct journal_dial dial;
    uint64_t context, generation;
};

static void on_closed(struct rpc_conn *c, int reason, void *user)
{
    struct link_identify *i = user;
    struct journal_link *l = i->l;
    list_remove(&i->link);
    l->identify_count--;
    free(i);
    link_finish_stop(l);
}

static void on_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
}

static const struct rpc_conn_ops ops = {.frame = on_frame, .closed = on_closed};

static void dialed(struct journal_dial *d, int result)
{
    struct link_identify *i = container_of(d, struct link_identify, dial);
    struct journal_link *l = i->l;
    struct buf text cleanup(buf_fini) = {0};
    char node[17];
    if (result == -CV_WRONG_INCARNATION)
        (void)buf_printf(&text, "%s. There: cv-journal rejoin --incarnation %u", d->reason, l->options.incarnation);
    else if (result < 0)
        (void)buf_printf(&text, "%s", d->reason);
    else
        (void)buf_printf(&text, "{\"node\":\"%s\"}", journal_node_text(d->node, node));
    if (i->generation == l->generation)
        link_admin_answer(l, i->context, result, &text);
    if (result < 0) {
        on_closed(NULL, result, i);
        return;
    }
    rpc_conn_set_ops(d->conn, &ops, i);
    rpc_conn_close(d->conn, -CV_CLOSED);
}

int link_identify(struct journal_link *l, const struct msg_link_admin *m)
{
    struct link_identify *i = l->identify_count < IDENTIFY_MAX ? calloc(1, sizeof(*i)) : NULL;
    if (!i)
        return -CV_BUSY;
    i->l = l;
    i->self = (struct journal_self){
        .cluster = l->options.cluster, .node = l->options.node, .incarnation = l->options.incarnation, .address = ""};
    i->context = m->context;
    i->generation = l->generation;
    i->dial = (struct journal_dial){.loop = l->options.loop,
                                    .self = &i->self,
                                    .channel = PEER_IDENTIFY,
                                    .step_ms = STEP_MS,
                                    .silent_ms = STEP_MS,
                                    .done = dialed};
    snprintf(i->dial.address, sizeof(i->dial.address), TEXT_FMT, TEXT_ARG(m->address));
    list_push_back(&l->identifies, &i->link);
    l->identify_count++;
    journal_dial_start(&i->dial);
    return 0;
}

void link_identify_stop(struct journal_link *l)
{
    list_for_each_safe (e, &l->identifies)
        journal_dial_stop(&list_entry(e, struct link_identify, link)->dial);
}
