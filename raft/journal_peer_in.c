/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes in: accept, hello, what is refused. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "raft/journal_digest.h"
#include "raft/journal_peer_internal.h"
#include "raft/journal_status.h"

enum { HELLO_NS = 3 * NS_PER_S, HELLO_BODY_MAX = 4096, REFUSED_LOG_NS = 60 * NS_PER_S, QUESTION_NS = 10 * NS_PER_S };

/* What a range of our log comes to, asked for by hello; outlives the connection it came by. */
struct peer_question {
    struct journal_peers *p;
    struct peer_in *in; /* NULL: it is gone */
    struct journal_digest_job job;
};

/* ---- hello ---- */

static void note_refused(struct journal_peers *p, uint64_t node, const char *from, int error, const char *reason)
{
    struct peer_refused *found = NULL, *oldest = &p->refused[0];
    for (uint32_t i = 0; i < p->refused_count; i++) {
        struct peer_refused *x = &p->refused[i];
        if (x->node == node && x->error == error)
            found = x;
        if (x->at_ns < oldest->at_ns)
            oldest = x;
    }
    uint64_t now = clock_ns();
    bool say = !found || now - found->at_ns > REFUSED_LOG_NS;
    if (!found) {
        found = p->refused_count < PEER_REFUSED_MAX ? &p->refused[p->refused_count++] : oldest;
        *found = (struct peer_refused){.node = node, .error = error};
    }
    found->reason = reason;
    snprintf(found->from, sizeof(found->from), "%s", from);
    found->count++;
    char text[17];
    if (say)
        log_warn(error, "refused node %s (%s): %s", journal_node_text(node, text), from, reason);
    found->at_ns = now;
    counter_add(&journal_driver_metrics(p->driver)->peer_refused, 1);
}

/* Only a leader, or who saw it leave by a committed configuration, can tell that somebody is no member: a follower may
 * lack the very entries that made the caller one (4.1), and must take them from whoever leads. */
static int check_member(struct journal_peers *p, uint64_t id, struct msg_peer_hello_answer *answer)
{
    const struct raft_conf *conf = journal_driver_conf(p->driver);
    struct raft_status s;
    if (!conf || raft_conf_find(conf, id))
        return 0;
    raft_status(journal_driver_raft(p->driver), &s);
    if (s.conf_committed && peers_was_removed(p, id)) {
        journal_hello_refuse(answer, -EPERM, "removed from the cluster: to come back, rejoin as a new member");
        return -EPERM;
    }
    if (s.role == RAFT_LEADER && s.conf_committed) {
        journal_hello_refuse(answer, -EPERM, "not a member of the cluster: add it first (cv raft add)");
        return -EPERM;
    }
    return 0;
}

static void send_answer(struct peer_in *in, const struct msg_peer_hello_answer *answer)
{
    struct frame_header h = {
        .type = MSG_peer_hello_answer, .flags = FRAME_ONE_WAY, .incarnation = in->p->options.self.incarnation};
    int r = rpc_conn_send(in->conn, &h, msg_peer_hello_answer_desc(), answer);
    if (r < 0)
        rpc_conn_close(in->conn, r);
}

/* The connection of this channel is this one from now on: the earlier one is dead, or the peer gave it up. */
static void settle(struct peer_in *in, struct peer *peer, enum peer_channel channel)
{
    if (peer->in[channel]) {
        struct peer_in *old = peer->in[channel];
        old->peer = NULL;
        rpc_conn_close(old->conn, -CV_CLOSED);
    }
    in->peer = peer;
    in->channel = channel;
    peer->in[channel] = in;
    in->p->new_count--;
    rpc_conn_set_max(in->conn, PEER_BODY_MAX, channel == PEER_ENTRIES ? JOURNAL_ENTRY_SIZE_MAX : 1);
    peer_pump(peer);
}

static void forget_in(struct peer_in *in)
{
    struct journal_peers *p = in->p;
    if (in->question)
        in->question->in = NULL;
    list_remove(&in->link);
    p->in_count--;
    free(in);
}

/* ---- what do your entries come to? ---- */

static void answer_question(struct peer_in *in, const struct journal_digest *d, int result)
{
    const struct journal_self *self = &in->p->options.self;
    struct buf text cleanup(buf_fini) = {0};
    struct msg_peer_hello_answer a = {.version = PEER_VERSION_MAX,
                                      .node = self->node,
                                      .cluster = uuid_bytes(&self->cluster),
                                      .incarnation = self->incarnation};
    if (result == 0)
        result = journal_digest_write(d, self->node, &text);
    if (result < 0)
        journal_hello_refuse(&a, result,
                             result == -ENOENT ? "these entries are not in its log" : cv_error_text(result));
    a.digest = (struct text){(const char *)text.p, (uint32_t)text.n};
    send_answer(in, &a);
    rpc_conn_finish(in->conn, -CV_CLOSED);
}

static void question_done(struct journal_digest_job *job, int result)
{
    struct peer_question *q = container_of(job, struct peer_question, job);
    struct journal_peers *p = q->p;
    if (q->in) {
        q->in->question = NULL;
        answer_question(q->in, &job->digest, result);
    }
    p->question_count--;
    free(q);
    peers_finish_stop(p);
}

static void start_question(struct peer_in *in, uint64_t from, uint64_t to)
{
    struct journal_peers *p = in->p;
    struct peer_question *q = !in->question && p->question_count < PEER_QUESTIONS_MAX ? calloc(1, sizeof(*q)) : NULL;
    if (!q) {
        answer_question(in, NULL, -CV_BUSY);
        return;
    }
    q->p = p;
    q->in = in;
    q->job = (struct journal_digest_job){.digest = {.from = from, .to = to}, .done = question_done};
    in->question = q;
    in->since_ns = clock_ns() + QUESTION_NS; /* who asks gives up before */
    p->question_count++;
    journal_digest_start(p->options.loop, p->driver, &q->job);
}

static void on_hello(struct peer_in *in, const struct rpc_frame *f)
{
    struct journal_peers *p = in->p;
    struct msg_peer_hello hello;
    struct msg_peer_hello_answer answer;
    int r =
        f->header.type == MSG_peer_hello ? msg_peer_hello_decode(f->body, f->header.body_len, &hello) : -CV_BAD_MESSAGE;
    if (r < 0) {
        rpc_conn_close(in->conn, r);
        return;
    }
    r = journal_hello_check(&p->options.self, &hello, &answer);
    if (r == 0 && hello.channel == PEER_IDENTIFY && hello.to_index) {
        start_question(in, hello.from_index, hello.to_index);
        return;
    }
    if (r == 0 && hello.channel == PEER_IDENTIFY) {
        send_answer(in, &answer);
        rpc_conn_finish(in->conn, -CV_CLOSED);
        return;
    }
    if (r == 0)
        r = check_member(p, hello.node, &answer);
    struct peer *peer = NULL;
    if (r == 0 && hello.channel == PEER_SNAPSHOT && !p->options.snapshot)
        journal_hello_refuse(&answer, r = -EPROTONOSUPPORT, "no snapshots here");
    else if (r == 0 && hello.channel != PEER_SNAPSHOT && !(peer = peers_get(p, hello.node)))
        journal_hello_refuse(&answer, r = -CV_BUSY, "too many nodes connect");
    send_answer(in, &answer);
    if (r < 0) {
        note_refused(p, hello.node, rpc_conn_peer(in->conn), r, answer.reason.p);
        rpc_conn_finish(in->conn, r);
    } else if (peer) {
        settle(in, peer, (enum peer_channel)hello.channel);
    } else {
        struct rpc_conn *c = in->conn;
        p->new_count--;
        rpc_conn_set_max(c, 0, 0);
        p->options.snapshot(p->options.snapshot_arg, c, hello.node);
        forget_in(in);
    }
}

static void in_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct peer_in *in = user;
    if (in->p->stopping)
        return;
    if (in->peer)
        peer_on_frame(in->peer, in->channel, c, f);
    else
        on_hello(in, f);
}

static void in_closed(struct rpc_conn *c, int reason, void *user)
{
    struct peer_in *in = user;
    struct journal_peers *p = in->p;
    if (in->peer)
        in->peer->in[in->channel] = NULL;
    else if (in->channel == 0)
        p->new_count--;
    forget_in(in);
    peers_finish_stop(p);
}

static void in_drained(struct rpc_conn *c, void *user)
{
    struct peer_in *in = user;
    if (in->peer)
        peer_pump(in->peer);
}

static const struct rpc_conn_ops in_ops = {.frame = in_frame, .closed = in_closed, .drained = in_drained};

/* ---- accept ---- */

static void add(struct journal_peers *p, int fd)
{
    struct peer_in *in = p->new_count < PEER_NEW_MAX ? calloc(1, sizeof(*in)) : NULL;
    if (!in) {
        loop_close(p->options.loop, fd);
        return;
    }
    in->p = p;
    in->since_ns = clock_ns();
    struct rpc_conn_limits limits = {
        .send_high = PEER_ENTRIES_QUEUE,
        .send_max = PEER_ENTRIES_QUEUE + 2 * JOURNAL_ENTRY_SIZE_MAX,
        .body_max = HELLO_BODY_MAX,
        .data_max = 1,
    };
    if (rpc_conn_new(p->options.loop, fd, &in_ops, in, &limits, &in->conn) < 0) {
        free(in);
        return;
    }
    (void)net_give_up(fd, peers_silent_ms(p));
    list_push_back(&p->in, &in->link);
    p->in_count++;
    p->new_count++;
}

static void accepted(struct io_op *op, int result)
{
    struct journal_peers *p = container_of(op, struct journal_peers, accept);
    if (result >= 0 && p->stopping)
        loop_close(p->options.loop, result);
    else if (result >= 0)
        add(p, result);
    if (p->stopping)
        peers_finish_stop(p);
    else if (result >= 0 || result == -ECONNABORTED || result == -EINTR)
        peers_start_accept(p); /* otherwise in a second */
}

void peers_start_accept(struct journal_peers *p)
{
    io_accept(p->options.loop, &p->accept, p->fd, accepted);
}

void peers_close_late(struct journal_peers *p, uint64_t now)
{
    list_for_each (e, &p->in) {
        struct peer_in *in = list_entry(e, struct peer_in, link);
        if (!in->peer && now > in->since_ns + HELLO_NS)
            rpc_conn_close(in->conn, -CV_DEADLINE);
    }
}
