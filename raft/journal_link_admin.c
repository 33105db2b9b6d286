/* SPDX-License-Identifier: Apache-2.0 */
/* Linearizable reads and administration over the link. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "raft/journal_link_internal.h"
#include "raft/journal_status.h"

/* ---- reads: the core knows them by a number of ours, which also names the attached master ---- */

void link_read_answer(struct journal_link *l, uint64_t number, uint64_t index, int result)
{
    uint64_t at = number % LINK_READS_MAX;
    if (l->reads[at].generation != l->generation || !link_has_master(l))
        return; /* asked by a master that is gone */
    struct msg_link_read_index m = {.context = l->reads[at].context, .index = index, .error = (uint32_t)-result};
    link_send(l, MSG_link_read_index, &m);
}

void link_on_read(struct journal_link *l, uint64_t context)
{
    uint64_t number = l->read_next++;
    l->reads[number % LINK_READS_MAX].context = context;
    l->reads[number % LINK_READS_MAX].generation = l->generation;
    int r = journal_driver_read(l->driver, number);
    if (r < 0)
        link_read_answer(l, number, 0, r);
}

/* ---- administration ---- */

static uint32_t full_voters(const struct raft_conf *conf, uint64_t without)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < conf->count; i++) {
        const struct raft_member *m = &conf->members[i];
        n += m->role == RAFT_VOTER && !m->journal_only && m->id != without;
    }
    return n;
}

/* With one full voter its loss is the loss of the namespace: only on purpose. */
static int guard(const struct journal_link *l, const struct msg_link_admin *m, enum raft_conf_op op, struct buf *out)
{
    const struct raft_conf *conf = journal_driver_conf(l->driver);
    const struct raft_member *there = conf ? raft_conf_find(conf, m->node) : NULL;
    if (!there || (op != RAFT_DEMOTE && op != RAFT_REMOVE))
        return 0;
    uint32_t before = full_voters(conf, 0), after = full_voters(conf, m->node);
    if (before == after || after >= 2)
        return 0;
    if (after == 0)
        (void)buf_printf(out, "it is the last full voter: the cluster would have nobody with a namespace");
    else if (!(m->flags & LINK_ADMIN_FORCE))
        (void)buf_printf(out, "one full voter would be left, whose loss is the loss of everything: add another one "
                              "first, or say --force");
    else
        return 0;
    return -EPERM;
}

/* Why the core refuses, in words; what to type is the command's to say. */
static void explain(int r, enum raft_conf_op op, struct buf *out)
{
    switch (-r) {
    case EBUSY: (void)buf_printf(out, "another change, or this leader's first entry, is not committed yet"); break;
    case EAGAIN: (void)buf_printf(out, "it has not caught up yet, or does not answer"); break;
    case EEXIST: (void)buf_printf(out, op == RAFT_ADD_LEARNER ? "it is a member already" : "it is so already"); break;
    case ENOENT: (void)buf_printf(out, "it is no member"); break;
    case ENOSPC: (void)buf_printf(out, "a cluster has at most %d members", RAFT_MEMBERS_MAX); break;
    case CV_UNREACHABLE:
        (void)buf_printf(out,
                         "no majority of the voters there would be answers now: the change could not be committed");
        break;
    default: break;
    }
}

static int change(struct journal_link *l, const struct msg_link_admin *m, enum raft_conf_op op, struct buf *out)
{
    struct raft_member member = {.id = m->node, .role = op == RAFT_ADD_LEARNER ? RAFT_LEARNER : RAFT_VOTER};
    const struct raft_conf *conf = journal_driver_conf(l->driver);
    const struct raft_member *there = conf ? raft_conf_find(conf, m->node) : NULL;
    if (op == RAFT_UPDATE && there)
        member = *there;
    if (m->node == 0 || m->address.n >= RAFT_ADDRESS_SIZE || m->client_address.n >= RAFT_ADDRESS_SIZE ||
        ((op == RAFT_ADD_LEARNER || op == RAFT_UPDATE) && m->address.n == 0))
        return -EINVAL;
    if (m->address.n)
        snprintf(member.raft_address, sizeof(member.raft_address), TEXT_FMT, TEXT_ARG(m->address));
    if (m->client_address.n)
        snprintf(member.client_address, sizeof(member.client_address), TEXT_FMT, TEXT_ARG(m->client_address));
    if (op == RAFT_ADD_LEARNER)
        member.journal_only = m->flags & LINK_ADMIN_JOURNAL_ONLY;
    int r = guard(l, m, op, out);
    if (r < 0)
        return r;
    uint64_t index;
    r = journal_driver_change(l->driver, op, &member, &index);
    if (r < 0)
        explain(r, op, out);
    return r < 0 ? r : buf_printf(out, "{\"index\":%" PRIu64 "}", index);
}

static int admin_add(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    return change(l, m, RAFT_ADD_LEARNER, out);
}

static int admin_promote(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    return change(l, m, RAFT_PROMOTE, out);
}

static int admin_demote(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    return change(l, m, RAFT_DEMOTE, out);
}

static int admin_remove(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    return change(l, m, RAFT_REMOVE, out);
}

static int admin_set_address(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    return change(l, m, RAFT_UPDATE, out);
}

static int admin_transfer(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    int r = journal_driver_transfer(l->driver, m->node);
    return r < 0 ? r : buf_printf(out, "{}");
}

static int admin_status(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    return journal_driver_status(l->driver, out);
}

/* Answered when it is known. */
static int admin_identify(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    if (m->address.n == 0 || m->address.n >= RAFT_ADDRESS_SIZE)
        return -EINVAL;
    const struct raft_conf *conf = journal_driver_conf(l->driver);
    const struct raft_member *self = conf ? raft_conf_find(conf, l->options.node) : NULL;
    char node[17];
    if (self && text_equal(m->address, text_of(self->raft_address)))
        return buf_printf(out, "{\"node\":\"%s\"}", journal_node_text(self->id, node));
    struct msg_link_admin ask = {.context = m->context, .address = m->address};
    int r = link_identify(l, &ask);
    return r < 0 ? r : -EINPROGRESS;
}

/* What entries from..to come to in the log of the member node. Answered when it is known. */
static int admin_digest(struct journal_link *l, const struct msg_link_admin *m, struct buf *out)
{
    const struct raft_conf *conf = journal_driver_conf(l->driver);
    const struct raft_member *there = conf ? raft_conf_find(conf, m->node) : NULL;
    if (m->to == 0 || m->from > m->to)
        return -EINVAL;
    if (!there) {
        explain(-ENOENT, RAFT_UPDATE, out);
        return -ENOENT;
    }
    struct msg_link_admin ask = *m;
    ask.address = text_of(there->raft_address);
    int r = link_identify(l, &ask);
    return r < 0 ? r : -EINPROGRESS;
}

/* The grammar: one word; node and address as the command needs them. */
static const struct {
    const char *command;
    int (*run)(struct journal_link *l, const struct msg_link_admin *m, struct buf *out);
} commands[] = {
    {"status", admin_status},        {"transfer", admin_transfer}, {"add", admin_add},
    {"promote", admin_promote},      {"demote", admin_demote},     {"remove", admin_remove},
    {"set-addr", admin_set_address}, {"identify", admin_identify}, {"digest", admin_digest},
};

void link_on_admin(struct journal_link *l, const struct msg_link_admin *m)
{
    struct buf out cleanup(buf_fini) = {0};
    int r = -CV_UNKNOWN_MESSAGE;
    for (size_t i = 0; i < array_size(commands); i++) {
        if (text_equal(m->command, text_of(commands[i].command)))
            r = commands[i].run(l, m, &out);
    }
    if (r != -EINPROGRESS)
        link_admin_answer(l, m->context, r, &out);
}
