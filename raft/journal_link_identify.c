/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to other journals: who is at an address (identify), and what do your entries come to (digest)? The leader's
 * journal asks there itself, since it is the one that must reach a new member, and it knows those that have no master.
 * One hello on a channel of its own; what is learnt goes back to the master that asked, and the connection is closed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "raft/journal_dial.h"
#include "raft/journal_digest.h"
#include "raft/journal_link_internal.h"
#include "raft/journal_status.h"

enum { IDENTIFY_MAX = 4, STEP_MS = 2000, DIGEST_MS = 8000 /* reading may take a while */ };

struct link_identify {
    struct list link; /* l->identifies */
    struct journal_link *l;
    struct journal_self self;
    struct journal_dial dial;
    struct journal_digest_job job; /* of our own log */
    uint64_t context, generation;
};

static void forget(struct link_identify *i)
{
    struct journal_link *l = i->l;
    list_remove(&i->link);
    l->identify_count--;
    free(i);
    link_finish_stop(l);
}

static void answer(struct link_identify *i, int result, const struct buf *text)
{
    if (i->generation == i->l->generation)
        link_admin_answer(i->l, i->context, result, text);
}

static void on_closed(struct rpc_conn *c, int reason, void *user)
{
    forget(user);
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
    bool connected = result == 0;
    if (result == 0 && d->to_index && !d->digest[0]) {
        result = -EPROTONOSUPPORT;
        snprintf(d->reason, sizeof(d->reason), "that journal is older and cannot say: upgrade it");
    }
    if (result == -CV_WRONG_INCARNATION)
        (void)buf_printf(&text, "%s. There: cv-journal rejoin --incarnation %u", d->reason, l->options.incarnation);
    else if (result < 0)
        (void)buf_printf(&text, "%s", d->reason);
    else if (d->to_index)
        (void)buf_printf(&text, "%s", d->digest);
    else
        (void)buf_printf(&text, "{\"node\":\"%s\"}", journal_node_text(d->node, node));
    answer(i, result, &text);
    if (!connected) {
        forget(i);
        return;
    }
    rpc_conn_set_ops(d->conn, &ops, i);
    rpc_conn_close(d->conn, -CV_CLOSED);
}

static void digested(struct journal_digest_job *job, int result)
{
    struct link_identify *i = container_of(job, struct link_identify, job);
    struct buf text cleanup(buf_fini) = {0};
    if (result == 0)
        result = journal_digest_write(&job->digest, i->l->options.node, &text);
    else
        (void)buf_printf(&text, "%s", "these entries are not in its log");
    answer(i, result, &text);
    forget(i);
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
                                    .to = m->node,
                                    .step_ms = m->from ? DIGEST_MS : STEP_MS,
                                    .silent_ms = STEP_MS,
                                    .from_index = m->from,
                                    .to_index = m->to,
                                    .done = dialed};
    i->job = (struct journal_digest_job){.digest = {.from = m->from, .to = m->to}, .done = digested};
    snprintf(i->dial.address, sizeof(i->dial.address), TEXT_FMT, TEXT_ARG(m->address));
    list_push_back(&l->identifies, &i->link);
    l->identify_count++;
    if (m->to && m->node == l->options.node)
        journal_digest_start(l->options.loop, l->driver, &i->job);
    else
        journal_dial_start(&i->dial);
    return 0;
}

void link_identify_stop(struct journal_link *l)
{
    list_for_each_safe (e, &l->identifies)
        journal_dial_stop(&list_entry(e, struct link_identify, link)->dial);
}
