/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: who may come, what the first message makes of them (attach: the master; health: its second one), and
 * the end of each. The rest of the link: journal_link_internal.h.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "io/net.h"
#include "raft/journal_link_internal.h"

static_assert((int)LINK_LEADER == (int)RAFT_LEADER && (int)LINK_FOLLOWER == (int)RAFT_FOLLOWER &&
                  (int)LINK_CANDIDATE == (int)RAFT_CANDIDATE,
              "the link speaks the core's numbers");

enum {
    NEW_PEER_NS = 5 * NS_PER_S, /* to say what it is */
    LOOK_NS = 50 * NS_PER_MS,
    TURNED_NS = 2 * LOOK_NS, /* what lies between two looks at most while our loop turns */
    VISIT_NS = 5 * NS_PER_S,
};

static void start_accept(struct journal_link *l);

/* ---- ending ---- */

/* The master is gone. What it proposed and the core has not seen is void; the rest stays in the log. */
static void detach(struct journal_link *l, bool dead)
{
    loop_hook_cancel(l->options.loop, &l->propose);
    link_drop_pending(l);
    l->master = NULL;
    l->session = (struct link_session){.master = 0};
    l->generation++;
    link_lease_gone(l, dead);
}

static void conn_closed(struct rpc_conn *c, int reason, void *user)
{
    struct link_peer *p = user;
    struct journal_link *l = p->l;
    if (p == l->master) {
        if (p->again && loop_now(l->options.loop) - l->visit.at_ns < VISIT_NS)
            ; /* said before */
        else if (reason == -CV_CLOSED || reason == -CV_STOPPING)
            log_info("the master (%s) is gone", rpc_conn_peer(c));
        else
            log_warn(reason, "the master (%s) is gone", rpc_conn_peer(c));
        detach(l, reason == -CV_CLOSED || reason == -ECONNRESET || reason == -EPIPE);
    }
    list_remove(&p->link);
    l->peer_count--;
    free(p);
    link_finish_stop(l);
}

/* ---- attach ---- */

/* A state the log goes on behind lies beside the one the master has. */
static bool installed_is_there(struct journal_link *l, const struct msg_link_attach *m)
{
    const char *name;
    uint64_t index = journal_driver_installed(l->driver, &name);
    char *path cleanup(freep) = NULL;
    if (index + 1 < journal_driver_view(l->driver)->first || !*name || !m->directory.n)
        return false;
    return asprintf(&path, TEXT_FMT "/%s", TEXT_ARG(m->directory), name) > 0 && access(path, F_OK) == 0;
}

/* Why this master cannot be attached: a code, and text for it. 0: it can. */
static int check_attach(struct journal_link *l, const struct msg_link_attach *m, struct buf *why)
{
    if (l->options.refuse) {
        (void)buf_printf(why, "%s", l->reason);
        return l->options.refuse;
    }
    char ours[UUID_STRING], theirs[UUID_STRING];
    struct uuid cluster = uuid_from_bytes(m->cluster);
    const struct journal_view *v = journal_driver_view(l->driver);
    if (m->cluster.n && !uuid_equal(cluster, l->options.cluster)) {
        (void)buf_printf(why, "the master belongs to cluster %s, this journal to %s", uuid_format(cluster, theirs),
                         uuid_format(l->options.cluster, ours));
        return -CV_WRONG_CLUSTER;
    }
    if (m->applied + 1 < v->first && !installed_is_there(l, m)) {
        (void)buf_printf(why,
                         "the master's state ends at entry %" PRIu64 " and the log begins at %" PRIu64
                         ": it needs the state of another master",
                         m->applied, v->first);
        return -CV_LOG_DAMAGED;
    }
    journal_driver_reluctant(l->driver, false); /* it will say so */
    int r = journal_driver_applied(l->driver, m->applied, min(m->flushed, m->applied), m->can_lead);
    if (r == -CV_LOG_DAMAGED)
        (void)buf_printf(why,
                         "the master's state is at entry %" PRIu64 " and the log ends at %" PRIu64
                         ": the log lost entries, or this is another log (beside a new member a master begins empty: "
                         "cv-master rejoin)",
                         m->applied, v->last);
    return r;
}

static void send_welcome(struct link_peer *p, int error, const struct buf *why)
{
    struct journal_link *l = p->l;
    static const struct journal_view nothing;
    const struct journal_view *v = l->driver ? journal_driver_view(l->driver) : &nothing;
    struct msg_link_welcome m = {
        .node = l->options.node,
        .term = v->term,
        .role = (uint8_t)v->role,
        .leader = v->leader,
        .commit = v->commit,
        .first = v->first,
        .last = v->last,
        .cluster = uuid_bytes(&l->options.cluster),
        .incarnation = l->options.incarnation,
        .error = (uint32_t)-error,
        .reason = {(const char *)why->p, (uint32_t)why->n},
    };
    link_send_to(p, MSG_link_welcome, &m);
}

static void remember_directory(struct journal_link *l, const struct msg_link_attach *m)
{
    char *directory = m->directory.n ? strndup(m->directory.p, m->directory.n) : NULL;
    char *state = m->state.n ? strndup(m->state.p, m->state.n) : NULL;
    free(l->directory);
    free(l->state);
    l->directory = directory;
    l->state = state;
}

/* The same master with the same result a moment ago: it comes again and again, and was told of. */
static bool visits_again(struct journal_link *l, uint64_t master, int result)
{
    uint64_t now = loop_now(l->options.loop);
    bool again = l->visit.master == master && l->visit.result == result && now - l->visit.at_ns < VISIT_NS;
    l->visit.master = master;
    l->visit.result = result;
    l->visit.at_ns = now;
    return again;
}

static void on_attach(struct link_peer *p, const struct msg_link_attach *m)
{
    struct journal_link *l = p->l;
    struct buf why cleanup(buf_fini) = {0};
    int r = check_attach(l, m, &why);
    p->again = visits_again(l, m->master, r);
    if (r < 0) {
        if (!p->again)
            log_warn(r, "refused a master (%s): %.*s", rpc_conn_peer(p->conn), (int)why.n, (const char *)why.p);
        send_welcome(p, r, &why);
        rpc_conn_finish(p->conn, r);
        return;
    }
    if (l->master) {
        log_warn(0, "another master (%s) attached in place of %s", rpc_conn_peer(p->conn),
                 rpc_conn_peer(l->master->conn));
        struct rpc_conn *old = l->master->conn;
        detach(l, false);
        rpc_conn_close(old, -CV_CLOSED);
        (void)journal_driver_applied(l->driver, m->applied, min(m->flushed, m->applied), m->can_lead);
    }
    p->kind = PEER_MASTER;
    l->master = p;
    l->session = (struct link_session){
        .master = m->master,
        .told = m->applied,
        .told_committed = m->applied,
        .applied = m->applied,
        .flushed = min(m->flushed, m->applied),
        .can_lead = m->can_lead,
        .core_can_lead = m->can_lead,
    };
    remember_directory(l, m);
    if (!p->again)
        log_info("master attached (%s), its state is at entry %" PRIu64, rpc_conn_peer(p->conn), m->applied);
    counter_add(&journal_driver_metrics(l->driver)->attaches, 1);
    journal_driver_attached(l->driver, true);
    send_welcome(p, 0, &why);
    link_tell_role(l);
    link_tell_credit(l);
    link_tell(l);
    if (l->options.snapshots)
        l->options.snapshots->attached(l->options.snapshots_arg);
}

static void on_ready(struct journal_link *l, const struct msg_link_snapshot_ready *m)
{
    if (l->options.snapshots)
        l->options.snapshots->ready(l->options.snapshots_arg, m);
}

static void on_install_done(struct journal_link *l, const struct msg_link_install_done *m)
{
    if (m->error)
        log_error(-(int)m->error,
                  "the master cannot use the state at entry %" PRIu64 " that was fetched: cv-journal rejoin", m->index);
}

static void on_health(struct link_peer *p, const struct msg_link_health *m)
{
    struct journal_link *l = p->l;
    p->kind = PEER_HEALTH;
    if (l->master && l->session.master == m->master)
        l->session.silent_ns = 0;
}

/* ---- frames ---- */

/* Decode the body as message `name` into m and do what follows. */
#define ON(name, ...)                                                                                                  \
    case MSG_link_##name: {                                                                                            \
        struct msg_link_##name m;                                                                                      \
        int r = msg_link_##name##_decode(f->body, f->header.body_len, &m);                                             \
        if (r < 0)                                                                                                     \
            return r;                                                                                                  \
        __VA_ARGS__;                                                                                                   \
        return 0;                                                                                                      \
    }

static int handle_first(struct link_peer *p, const struct rpc_frame *f)
{
    switch (f->header.type) {
        ON(attach, on_attach(p, &m))
        ON(health, on_health(p, &m))
    default: return -CV_BAD_MESSAGE;
    }
}

static int handle_masters(struct journal_link *l, const struct rpc_frame *f)
{
    switch (f->header.type) {
        ON(propose, link_on_propose(l, &m, f->data, f->header.data_len))
        ON(role_seen, link_on_role_seen(l))
        ON(applied, link_on_applied(l, &m))
        ON(read, link_on_read(l, m.context))
        ON(admin, link_admin_or_wait(l, &m))
        ON(snapshot_ready, on_ready(l, &m))
        ON(install_done, on_install_done(l, &m))
    case MSG_link_attach: return -CV_BAD_MESSAGE;
    default: return 0; /* of a newer master: nothing we rely on */
    }
}

static int handle_healths(struct link_peer *p, const struct rpc_frame *f)
{
    switch (f->header.type) {
        ON(health, on_health(p, &m))
    default: return -CV_BAD_MESSAGE;
    }
}

static void conn_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
    struct link_peer *p = user;
    struct journal_link *l = p->l;
    if (l->stopping || !rpc_conn_is_open(c))
        return;
    int r = p->kind == PEER_NEW      ? handle_first(p, f)
            : p->kind == PEER_HEALTH ? handle_healths(p, f)
            : l->master == p         ? handle_masters(l, f)
                                     : 0; /* displaced, about to close */
    if (r < 0) {
        log_warn(r, "%s sent what it may not (%s): disconnecting", rpc_conn_peer(c), message_name(f->header.type));
        rpc_conn_close(c, r);
    }
}

static void conn_drained(struct rpc_conn *c, void *user)
{
    struct link_peer *p = user;
    if (p == p->l->master && !p->l->stopping)
        link_tell(p->l);
}

/* ---- accepting ---- */

static bool may_connect(const struct rpc_conn *c)
{
    struct net_credentials who;
    return rpc_conn_credentials(c, &who) == 0 && (who.uid == 0 || who.uid == geteuid() || who.gid == getegid());
}

static void add_peer(struct journal_link *l, int fd)
{
    static const struct rpc_conn_ops ops = {.frame = conn_frame, .closed = conn_closed, .drained = conn_drained};
    static const struct rpc_conn_limits limits = {.data_max = LINK_PAYLOAD_MAX};
    struct link_peer *p = l->peer_count < LINK_PEERS_MAX ? calloc(1, sizeof(*p)) : NULL;
    if (!p) {
        loop_close(l->options.loop, fd);
        return;
    }
    p->l = l;
    p->since_ns = loop_now(l->options.loop);
    if (rpc_conn_new(l->options.loop, fd, &ops, p, &limits, &p->conn) < 0) {
        free(p);
        return;
    }
    list_push_back(&l->peers, &p->link);
    l->peer_count++;
    if (!may_connect(p->conn)) {
        log_warn(0, "refused %s on the master's socket: neither root nor our user or group", rpc_conn_peer(p->conn));
        rpc_conn_close(p->conn, -EACCES);
    }
}

static void accept_done(struct io_op *op, int result)
{
    struct journal_link *l = container_of(op, struct journal_link, accept);
    if (result >= 0 && l->stopping)
        loop_close(l->options.loop, result);
    else if (result >= 0)
        add_peer(l, result);
    if (!l->stopping && result != -EMFILE && result != -ENFILE)
        start_accept(l); /* out of descriptors: the timer tries again */
    link_finish_stop(l);
}

static void start_accept(struct journal_link *l)
{
    io_accept(l->options.loop, &l->accept, l->fd, accept_done);
}

/* ---- the clock ---- */

/* Silence is counted in the time in which our own loop turned. A host with too much to do lets both stand still together, and
 * the beats that came meanwhile are read behind this look: so a look adds no more than what it finds when all is well, and
 * whoever is judged silent was so in many turns of ours, each of which read what there was. */
static void look_at_health(struct journal_link *l, uint64_t passed_ns)
{
    struct link_session *s = &l->session;
    s->silent_ns += min(passed_ns, (uint64_t)TURNED_NS);
    bool silent = s->silent_ns > l->options.silent_ms * NS_PER_MS;
    if (silent == s->silent || journal_driver_view(l->driver)->voters <= 1)
        return; /* with one voter nobody could take over */
    s->silent = silent;
    log_warn(0, silent ? "the master gives no sign of health: giving leadership away" : "the master is healthy again");
    (void)link_tell_app(l);
}

static void look(struct loop_timer *timer)
{
    struct journal_link *l = container_of(timer, struct journal_link, look);
    uint64_t now = loop_now(l->options.loop), passed_ns = now - l->looked_ns;
    l->looked_ns = now;
    loop_timer_start(l->options.loop, &l->look, now + LOOK_NS);
    if (!io_op_busy(&l->accept))
        start_accept(l);
    list_for_each (e, &l->peers) {
        struct link_peer *p = list_entry(e, struct link_peer, link);
        if (p->kind == PEER_NEW && now - p->since_ns > NEW_PEER_NS)
            rpc_conn_close(p->conn, -CV_DEADLINE);
    }
    if (l->driver)
        link_look_at_leases(l);
    if (link_has_master(l)) {
        look_at_health(l, passed_ns);
        link_tell_credit(l);
        link_propose_pending(l);
    }
}

/* ---- what the driver tells ---- */

static void app_role(void *arg)
{
    struct journal_link *l = arg;
    if (link_has_master(l))
        link_tell_role(l);
}

static void app_truncated(void *arg, uint64_t from)
{
    struct journal_link *l = arg;
    if (link_has_master(l))
        link_tell_truncated(l, from);
}

static void app_progress(void *arg)
{
    struct journal_link *l = arg;
    if (!link_has_master(l) || l->stopping)
        return;
    link_tell_role(l); /* the lease may have changed */
    link_tell_credit(l);
    link_tell(l);
    if (l->session.pending_count && !l->proposing)
        loop_at_turn_end(l->options.loop, &l->propose);
}

static void app_read(void *arg, uint64_t context, uint64_t index, int result)
{
    link_read_answer(arg, context, index, result);
}

const struct journal_app journal_link_app = {
    .role = app_role,
    .truncated = app_truncated,
    .progress = app_progress,
    .read = app_read,
};

/* ---- life ---- */

DEFINE_CLEANUP(struct journal_link *, journal_link_free)

int journal_link_new(const struct journal_link_options *options, struct journal_link **ret)
{
    struct journal_link *l cleanup(journal_link_free_p) = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->options = *options;
    l->fd = -1;
    list_init(&l->peers);
    list_init(&l->identifies);
    loop_timer_init(&l->look, look);
    loop_hook_init(&l->propose, link_propose_hook);
    l->socket = strdup(options->socket);
    l->reason = strdup(options->reason ? options->reason : "");
    if (!l->socket || !l->reason)
        return -ENOMEM;
    *ret = take(l);
    return 0;
}

struct journal_link *journal_link_free(struct journal_link *l)
{
    if (!l)
        return NULL;
    assert(l->peer_count == 0 && !l->disk.busy);
    journal_read_fini(&l->disk.read);
    buf_fini(&l->wish.body);
    free(l->socket);
    free(l->reason);
    free(l->directory);
    free(l->state);
    free(l);
    return NULL;
}

int journal_link_directory(const struct journal_link *l, const char **ret_directory, const char **ret_state)
{
    if (!l->directory || !l->state)
        return -ENOENT;
    *ret_directory = l->directory;
    *ret_state = l->state;
    return 0;
}

int journal_link_checkpoint(struct journal_link *l, uint64_t context, uint64_t index)
{
    if (!link_has_master(l))
        return -CV_CLOSED;
    struct msg_link_snapshot_request m = {.context = context, .index = index};
    link_send(l, MSG_link_snapshot_request, &m);
    return 0;
}

void journal_link_installed(struct journal_link *l)
{
    if (link_has_master(l))
        link_tell(l);
}

int journal_link_start(struct journal_link *l, struct journal_driver *driver)
{
    assert(driver || l->options.refuse);
    char text[NET_TEXT_MAX];
    struct net_address address;
    if (snprintf(text, sizeof(text), "unix:%s", l->socket) >= (int)sizeof(text))
        return -ENAMETOOLONG;
    int r = net_parse(text, 0, &address);
    if (r == 0)
        r = net_listen_at_start(&address, 0660, &l->fd);
    if (r < 0)
        return r;
    l->driver = driver;
    start_accept(l);
    l->looked_ns = loop_now(l->options.loop);
    loop_timer_start(l->options.loop, &l->look, l->looked_ns + LOOK_NS);
    return 0;
}

void journal_link_stop(struct journal_link *l, void (*stopped)(void *arg), void *arg)
{
    assert_on_loop(l->options.loop);
    l->stopping = true;
    l->stopped = stopped;
    l->stopped_arg = arg;
    loop_timer_stop(l->options.loop, &l->look);
    link_identify_stop(l);
    loop_hook_cancel(l->options.loop, &l->propose);
    io_cancel(&l->accept);
    list_for_each (e, &l->peers)
        rpc_conn_close(list_entry(e, struct link_peer, link)->conn, -CV_STOPPING);
    link_finish_stop(l);
}
