/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A journal in memory that speaks the real link over a real unix socket, on a loop of its own: for tests of the master
 * without a cv-journal. It does as it is told: hold commits back, break the connection, lead or not, truncate.
 * All functions may be called from the test's thread.
 */
#pragma once

#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "io/loop.h"
#include "rpc/rpc_conn.h"
#include "wire/link.h"
#include "wire/message.h"

struct fake_entry {
    uint64_t term;
    uint8_t type;
    uint32_t op_count, n;
    uint8_t *payload;
    uint64_t connection; /* proposed on this one (counted by attaches); 0: not by a master */
};

struct fake_journal {
    struct loop *loop;
    struct uuid cluster;
    int listen_fd;
    struct io_op accept;
    struct rpc_conn *master; /* attached, or NULL */
    struct fake_entry *log;  /* log[i - 1] is index i */
    _Atomic uint64_t last, commit;
    uint64_t room;
    uint64_t told; /* entries up to here were told to the master that is attached */
    uint64_t term;
    uint8_t role;
    uint64_t sequence; /* of the last proposal taken */
    bool seen;         /* role_seen of this term */
    uint32_t refuse;   /* error to refuse proposals with */
    bool hold;         /* append, but commit nothing */
    bool swallow;      /* take no notice of proposals: they came while the role changed */
    _Atomic uint64_t swallowed;
    uint32_t incarnation;
    uint64_t lease_until_ns; /* told while it leads */
    bool hold_reads;         /* answer no link_read */
    uint64_t read_contexts[64];
    _Atomic uint32_t reads; /* asked; those not answered are the last `reads - reads_answered` of the contexts */
    uint32_t reads_answered;
    _Atomic uint64_t proposals, ops, health, applied, flushed, attaches, bytes;
    _Atomic int can_lead, lease_back, unfit;
    uint8_t disk;             /* told with the credit: enum link_disk_flag */
    _Atomic uint32_t largest; /* operations of a batch */
};

static void fj_send(struct fake_journal *j, uint16_t type, const void *m)
{
    struct frame_header h = {.type = type, .flags = FRAME_ONE_WAY};
    if (j->master)
        ck_assert_int_eq(rpc_conn_send(j->master, &h, message_desc(type), m), 0);
}

static void fj_append(struct fake_journal *j, uint8_t type, const void *p, uint32_t n, uint32_t op_count)
{
    if (j->last == j->room) {
        j->room = j->room ? j->room * 2 : 64;
        j->log = realloc(j->log, j->room * sizeof(*j->log));
    }
    struct fake_entry e = {.term = j->term, .type = type, .op_count = op_count, .n = n, .payload = malloc(n + 1)};
    if (n)
        memcpy(e.payload, p, n);
    j->log[j->last++] = e;
}

static void fj_tell_entry(struct fake_journal *j, uint64_t index)
{
    const struct fake_entry *e = &j->log[index - 1];
    struct buf list = {0};
    struct rec_link_entry r = {index, e->term, e->type, e->op_count, e->n, crc32c(0, e->payload, e->n)};
    ck_assert_int_eq(rec_link_entry_append(&list, &r), 0);
    struct msg_link_entries m = {.entries = wire_list_of(&list, 1), .commit = j->commit};
    struct frame_header h = {.type = MSG_link_entries, .flags = FRAME_ONE_WAY};
    struct iovec v = {e->payload, e->n};
    ck_assert_int_eq(rpc_conn_send_data(j->master, &h, msg_link_entries_desc(), &m, &v, 1), 0);
    buf_fini(&list);
}

/* In order of index: entries that are not the master's own, committed for those that are. */
static void fj_tell(struct fake_journal *j)
{
    while (j->master && j->told < j->commit) {
        uint64_t next = j->told + 1;
        if (j->log[next - 1].connection != j->attaches) {
            fj_tell_entry(j, next);
            j->told = next;
            continue;
        }
        while (next < j->commit && j->log[next].connection == j->attaches)
            next++;
        j->told = next;
        struct msg_link_committed m = {.index = next, .term = j->log[next - 1].term};
        fj_send(j, MSG_link_committed, &m);
    }
}

static void fj_tell_role(struct fake_journal *j)
{
    j->seen = false;
    j->sequence = 0;
    bool leads = j->role == LINK_LEADER;
    struct msg_link_role m = {
        .term = j->term,
        .role = j->role,
        .leader = leads ? 1 : 2,
        .leader_address = leads ? TEXT("here:1") : TEXT("there:2"),
        .start_index = j->last,
        .lease_until_ns = leads ? j->lease_until_ns : 0,
    };
    fj_send(j, MSG_link_role, &m);
}

static void fj_tell_credit(struct fake_journal *j)
{
    struct msg_link_credit m = {.bytes = 4 << 20, .entries = 64, .disk_low = j->disk};
    fj_send(j, MSG_link_credit, &m);
}

static void fj_attach(struct fake_journal *j, struct rpc_conn *c, const struct msg_link_attach *a)
{
    if (j->master)
        rpc_conn_close(j->master, -CV_CLOSED);
    j->master = c;
    j->attaches++;
    j->applied = a->applied;
    j->flushed = a->flushed;
    j->told = a->applied;
    struct msg_link_welcome w = {.node = 1,
                                 .term = j->term,
                                 .role = j->role,
                                 .leader = 1,
                                 .commit = j->commit,
                                 .first = 1,
                                 .last = j->last,
                                 .cluster = uuid_bytes(&j->cluster),
                                 .incarnation = j->incarnation};
    if (!uuid_equal(uuid_from_bytes(a->cluster), j->cluster))
        w.error = CV_WRONG_CLUSTER;
    fj_send(j, MSG_link_welcome, &w);
    if (w.error) {
        j->master = NULL;
        return rpc_conn_finish(c, -CV_CLOSED);
    }
    if (!j->hold)
        j->commit = j->last;
    fj_tell_role(j);
    fj_tell_credit(j);
    fj_tell(j);
}

static void fj_propose(struct fake_journal *j, const struct rpc_frame *f)
{
    struct msg_link_propose m;
    ck_assert_int_eq(msg_link_propose_decode(f->body, f->header.body_len, &m), 0);
    if (j->swallow) {
        j->swallowed++;
        return;
    }
    if (m.term != j->term || !j->seen || j->refuse) {
        struct msg_link_rejected r = {j->term, m.sequence, j->refuse ? j->refuse : CV_NOT_LEADER};
        j->seen = false;
        j->refuse = 0;
        return fj_send(j, MSG_link_rejected, &r);
    }
    ck_assert_uint_eq(m.sequence, j->sequence + 1);
    ck_assert_uint_eq(m.payload_crc, crc32c(0, f->data, f->header.data_len));
    j->sequence = m.sequence;
    fj_append(j, m.entry_type, f->data, f->header.data_len, m.op_count);
    j->log[j->last - 1].connection = j->attaches;
    j->proposals++;
    j->largest = max((uint32_t)j->largest, m.op_count);
    j->ops += m.op_count;
    j->bytes += f->header.data_len;
    struct msg_link_proposed p = {j->term, m.sequence, j->last, 1};
    fj_send(j, MSG_link_proposed, &p);
    if (!j->hold) {
        j->commit = j->last;
        fj_tell(j);
    }
}

/* Answer the reads asked so far, up to count of them. */
static void fj_answer_reads(struct fake_journal *j, uint64_t count)
{
    for (; count && j->reads_answered < j->reads; count--) {
        struct msg_link_read_index m = {j->read_contexts[j->reads_answered++ % 64], j->commit,
                                        j->role == LINK_LEADER ? 0 : CV_NOT_LEADER};
        fj_send(j, MSG_link_read_index, &m);
    }
}

static void fj_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct fake_journal *j = user;
    struct msg_link_attach attach;
    struct msg_link_applied applied;
    struct msg_link_role_seen seen;
    struct msg_link_read read;
    if (f->header.type == MSG_link_health) {
        j->health++;
    } else if (f->header.type == MSG_link_attach) {
        ck_assert_int_eq(msg_link_attach_decode(f->body, f->header.body_len, &attach), 0);
        j->can_lead = attach.can_lead;
        fj_attach(j, c, &attach);
    } else if (c != j->master) {
        return;
    } else if (f->header.type == MSG_link_propose) {
        fj_propose(j, f);
    } else if (f->header.type == MSG_link_role_seen) {
        ck_assert_int_eq(msg_link_role_seen_decode(f->body, f->header.body_len, &seen), 0);
        j->seen |= seen.term == j->term;
        j->sequence = 0;
    } else if (f->header.type == MSG_link_read) {
        ck_assert_int_eq(msg_link_read_decode(f->body, f->header.body_len, &read), 0);
        j->read_contexts[j->reads++ % 64] = read.context;
        if (!j->hold_reads)
            fj_answer_reads(j, UINT64_MAX);
    } else if (f->header.type == MSG_link_applied) {
        ck_assert_int_eq(msg_link_applied_decode(f->body, f->header.body_len, &applied), 0);
        j->applied = applied.applied;
        j->flushed = applied.flushed;
        j->can_lead = applied.can_lead;
        j->lease_back = applied.lease_back;
        j->unfit = applied.unfit;
    }
}

static void fj_closed(struct rpc_conn *c, int reason, void *user)
{
    struct fake_journal *j = user;
    if (c == j->master)
        j->master = NULL;
}

static void fj_accepted(struct io_op *op, int result)
{
    struct fake_journal *j = container_of(op, struct fake_journal, accept);
    if (result < 0)
        return;
    static const struct rpc_conn_ops ops = {.frame = fj_frame, .closed = fj_closed};
    struct rpc_conn *c;
    ck_assert_int_eq(rpc_conn_new(j->loop, result, &ops, j, NULL, &c), 0);
    io_accept(j->loop, &j->accept, j->listen_fd, fj_accepted);
}

/* One voter: leads in term 1 with a no-op at index 1. */
static struct fake_journal *fake_journal_new(const char *socket, struct uuid cluster)
{
    struct fake_journal *j = calloc(1, sizeof(*j));
    j->cluster = cluster;
    j->term = 1;
    j->role = LINK_LEADER;
    j->incarnation = 1;
    j->lease_until_ns = UINT64_MAX;
    fj_append(j, LINK_NOOP, NULL, 0, 0);
    j->commit = 1;
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "journal"}, &j->loop), 0);
    char address[160];
    snprintf(address, sizeof(address), "unix:%s", socket);
    struct net_address a;
    ck_assert_int_eq(net_parse(address, 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0600, &j->listen_fd), 0);
    io_accept(j->loop, &j->accept, j->listen_fd, fj_accepted);
    ck_assert_int_eq(loop_start(j->loop), 0);
    return j;
}

static void fake_journal_free(struct fake_journal *j)
{
    loop_stop(j->loop);
    loop_join(j->loop);
    close(j->listen_fd);
    for (uint64_t i = 0; i < j->last; i++)
        free(j->log[i].payload);
    free(j->log);
    loop_free(j->loop);
    free(j);
}

/* ---- orders --------------------------------------------------------------------------------------------------------- */

struct fj_order {
    struct fake_journal *j;
    uint64_t a;
};

static int fj_do_hold(void *arg)
{
    struct fj_order *o = arg;
    o->j->hold = o->a;
    if (!o->a) {
        o->j->commit = o->j->last;
        fj_tell(o->j);
    }
    return 0;
}

/* Hold commits back; letting go commits everything there is. */
static void __attribute__((unused)) fake_journal_hold(struct fake_journal *j, bool hold)
{
    loop_call(j->loop, fj_do_hold, &(struct fj_order){j, hold});
}

static int fj_do_disk(void *arg)
{
    struct fj_order *o = arg;
    o->j->disk = (uint8_t)o->a;
    fj_tell_credit(o->j);
    return 0;
}

/* Say what full disks mean: enum link_disk_flag. */
static void __attribute__((unused)) fake_journal_disk(struct fake_journal *j, uint8_t flags)
{
    loop_call(j->loop, fj_do_disk, &(struct fj_order){j, flags});
}

static int fj_do_disconnect(void *arg)
{
    struct fj_order *o = arg;
    if (o->a) { /* what is not committed is lost */
        while (o->j->last > o->j->commit)
            free(o->j->log[--o->j->last].payload);
    }
    if (o->j->master)
        rpc_conn_close(o->j->master, -CV_CLOSED);
    o->j->master = NULL;
    return 0;
}

static void __attribute__((unused)) fake_journal_disconnect(struct fake_journal *j, bool forget)
{
    loop_call(j->loop, fj_do_disconnect, &(struct fj_order){j, forget});
}

static int fj_do_follow(void *arg)
{
    struct fj_order *o = arg;
    o->j->term++;
    o->j->role = LINK_FOLLOWER;
    fj_tell_role(o->j);
    return 0;
}

static void __attribute__((unused)) fake_journal_follow(struct fake_journal *j)
{
    loop_call(j->loop, fj_do_follow, &(struct fj_order){j, 0});
}

static int fj_do_truncate(void *arg)
{
    struct fj_order *o = arg;
    struct fake_journal *j = o->j;
    while (j->last > j->commit)
        free(j->log[--j->last].payload);
    struct msg_link_truncate m = {.from = j->commit + 1};
    fj_send(j, MSG_link_truncate, &m);
    return 0;
}

/* Cut what is not committed, as a new leader would. */
static void __attribute__((unused)) fake_journal_truncate(struct fake_journal *j)
{
    loop_call(j->loop, fj_do_truncate, &(struct fj_order){j, 0});
}

static int fj_do_lead(void *arg)
{
    struct fj_order *o = arg;
    o->j->term++;
    o->j->role = LINK_LEADER;
    fj_append(o->j, LINK_NOOP, NULL, 0, 0);
    o->j->commit = o->j->last;
    fj_tell_role(o->j);
    fj_tell(o->j);
    return 0;
}

/* Lead in a new term; what is not committed becomes so. */
static void __attribute__((unused)) fake_journal_lead(struct fake_journal *j)
{
    loop_call(j->loop, fj_do_lead, &(struct fj_order){j, 0});
}

static int fj_do_refuse(void *arg)
{
    struct fj_order *o = arg;
    o->j->refuse = (uint32_t)o->a;
    return 0;
}

/* Refuse the next proposal with this error (positive). */
static void __attribute__((unused)) fake_journal_refuse(struct fake_journal *j, int error)
{
    loop_call(j->loop, fj_do_refuse, &(struct fj_order){j, (uint64_t)error});
}

static int fj_do_swallow(void *arg)
{
    struct fj_order *o = arg;
    o->j->swallow = o->a;
    return 0;
}

/* Proposals are lost without a word, as those are that cross a change of role on their way. */
static void __attribute__((unused)) fake_journal_swallow(struct fake_journal *j, bool swallow)
{
    loop_call(j->loop, fj_do_swallow, &(struct fj_order){j, swallow});
}

static int fj_do_insert(void *arg)
{
    struct fj_order *o = arg;
    fj_append(o->j, (uint8_t)o->a, "insert", 6, 0);
    return 0;
}

/* An entry the master did not propose: it is told when it is committed. */
static void __attribute__((unused)) fake_journal_insert(struct fake_journal *j, enum link_entry_type type)
{
    loop_call(j->loop, fj_do_insert, &(struct fj_order){j, type});
}

static int fj_do_commit(void *arg)
{
    struct fj_order *o = arg;
    o->j->commit = o->a;
    fj_tell(o->j);
    return 0;
}

/* While commits are held: commit up to here. */
static void __attribute__((unused)) fake_journal_commit(struct fake_journal *j, uint64_t index)
{
    loop_call(j->loop, fj_do_commit, &(struct fj_order){j, index});
}

static int fj_do_lease(void *arg)
{
    struct fj_order *o = arg;
    bool seen = o->j->seen;
    uint64_t sequence = o->j->sequence;
    o->j->lease_until_ns = o->a;
    fj_tell_role(o->j);
    o->j->seen = seen; /* the role is as before: it asks for no role_seen */
    o->j->sequence = sequence;
    return 0;
}

/* Until when it is leader for sure; 0: it may be leader no more. */
static void __attribute__((unused)) fake_journal_lease(struct fake_journal *j, uint64_t until_ns)
{
    loop_call(j->loop, fj_do_lease, &(struct fj_order){j, until_ns});
}

static int fj_do_hold_reads(void *arg)
{
    struct fj_order *o = arg;
    o->j->hold_reads = o->a;
    if (!o->a)
        fj_answer_reads(o->j, UINT64_MAX);
    return 0;
}

/* Hold the confirmations of reads back. */
static void __attribute__((unused)) fake_journal_hold_reads(struct fake_journal *j, bool hold)
{
    loop_call(j->loop, fj_do_hold_reads, &(struct fj_order){j, hold});
}

static int fj_do_answer_reads(void *arg)
{
    struct fj_order *o = arg;
    fj_answer_reads(o->j, o->a);
    return 0;
}

/* Answer so many of those held back, the oldest. */
static void __attribute__((unused)) fake_journal_answer_reads(struct fake_journal *j, uint64_t count)
{
    loop_call(j->loop, fj_do_answer_reads, &(struct fj_order){j, count});
}

static int fj_do_durable(void *arg)
{
    struct fj_order *o = arg;
    struct msg_link_durable m = {.index = o->j->last, .term = o->j->term};
    fj_send(o->j, MSG_link_durable, &m);
    return 0;
}

/* All there is is on our disk, committed or not. */
static void __attribute__((unused)) fake_journal_durable(struct fake_journal *j)
{
    loop_call(j->loop, fj_do_durable, &(struct fj_order){j, 0});
}
