/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_own.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "meta/master_admin.h"
#include "meta/master_mounts.h"
#include "meta/master_net.h"
#include "meta/master_workers.h"

/* One request and its answer. */
struct own {
    struct master_net *n;
    struct rpc_request *rpc;
    struct master_workers *workers;
    uint64_t now_ns;
    struct buf texts; /* what the answer points to */
    char address[MASTER_ADDRESS_SIZE];
    union {
        struct msg_leader_answer leader;
        struct msg_cluster_status_answer status;
        struct msg_workers_answer workers;
        struct msg_worker_register_answer registered;
        struct msg_worker_heartbeat_answer heartbeat;
        struct msg_worker_mounts_answer mounts;
        struct msg_sessions_check_answer sessions;
    } answer;
};

static int own_cluster_status(struct own *o)
{
    o->n->o->status(o->n->o->arg, &o->answer.status, &o->texts);
    return 0;
}

static int own_leader(struct own *o)
{
    master_core_leader(o->n->core, o->address, &o->answer.leader);
    return 0;
}

static int own_workers(struct own *o)
{
    struct msg_workers m;
    int r = msg_workers_decode(o->rpc->body, o->rpc->header.body_len, &m);
    return r < 0 ? r : master_workers_map(o->workers, m.map_version, o->now_ns, &o->answer.workers, &o->texts);
}

static uint32_t incarnation(const struct own *o)
{
    master_core_read_lock(o->n->core);
    uint32_t is = meta_incarnation(o->n->core->meta);
    master_core_unlock(o->n->core);
    return is;
}

static uint64_t mounts_version(const struct own *o)
{
    master_core_read_lock(o->n->core);
    uint64_t version = master_mounts_version(o->n->core);
    master_core_unlock(o->n->core);
    return version;
}

static int own_worker_mounts(struct own *o)
{
    struct msg_worker_mounts m;
    int r = msg_worker_mounts_decode(o->rpc->body, o->rpc->header.body_len, &m);
    if (r < 0)
        return r;
    master_core_read_lock(o->n->core);
    o->answer.mounts.mounts_version = master_mounts_version(o->n->core);
    r = master_mounts_all(o->n->core, &o->texts, &o->answer.mounts.mounts);
    master_core_unlock(o->n->core);
    return r;
}

static int own_worker_register(struct own *o)
{
    struct msg_worker_register m;
    int r = msg_worker_register_decode(o->rpc->body, o->rpc->header.body_len, &m);
    if (r == 0)
        r = master_workers_register(o->workers, &m, o->now_ns, &o->answer.registered);
    o->answer.registered.mounts_version = mounts_version(o);
    o->answer.registered.incarnation = incarnation(o);
    if (r == 0)
        master_scribe_poke(o->n->scribe); /* its row */
    return r;
}

static int own_worker_heartbeat(struct own *o)
{
    struct msg_worker_heartbeat m;
    int r = msg_worker_heartbeat_decode(o->rpc->body, o->rpc->header.body_len, &m);
    if (r == 0)
        r = master_workers_heartbeat(o->workers, &m, o->now_ns, &o->answer.heartbeat, &o->texts);
    o->answer.heartbeat.mounts_version = mounts_version(o);
    return r;
}

static int own_sessions_check(struct own *o)
{
    struct msg_sessions_check m;
    uint8_t id[8];
    int r = msg_sessions_check_decode(o->rpc->body, o->rpc->header.body_len, &m);
    if (r == 0 && m.sessions.n % 8)
        r = -CV_BAD_MESSAGE;
    if (r < 0)
        return r;
    master_core_read_lock(o->n->core);
    for (uint32_t i = 0; r == 0 && i < m.sessions.n; i += 8) {
        uint64_t session = get_le64((const uint8_t *)m.sessions.p + i);
        if (meta_session_exists(o->n->core->meta, session))
            continue;
        put_le64(id, session);
        r = buf_append(&o->texts, id, sizeof(id));
    }
    master_core_unlock(o->n->core);
    o->answer.sessions.ended = (struct text){(const char *)o->texts.p, (uint32_t)o->texts.n};
    return r;
}

/* worker: only a worker may ask. leader: only who leads may answer. */
struct own_op {
    uint16_t type;
    bool worker, leader;
    int (*run)(struct own *o);
};

// clang-format off
static const struct own_op ops[] = {
    {MSG_leader,           false, false, own_leader},
    {MSG_cluster_status,   false, false, own_cluster_status},
    {MSG_workers,          false, true,  own_workers},
    {MSG_worker_register,  true,  true,  own_worker_register},
    {MSG_worker_heartbeat, true,  true,  own_worker_heartbeat},
    {MSG_worker_mounts,    true,  true,  own_worker_mounts},
    {MSG_sessions_check,   true,  true,  own_sessions_check},
    {MSG_raft_admin,       false, false, NULL}, /* answered later: meta/master_admin.h */
};
// clang-format on

static const struct own_op *find(uint16_t type)
{
    for (size_t i = 0; i < array_size(ops); i++)
        if (ops[i].type == type)
            return &ops[i];
    return NULL;
}

bool master_own_serves(uint16_t type)
{
    return find(type) != NULL;
}

/* Who looks for a leader and has heard of the last one: we may be the next. */
static bool may_wait(struct master_net *n, struct rpc_request *rpc)
{
    struct msg_leader m;
    struct msg_leader_answer known;
    char address[MASTER_ADDRESS_SIZE];
    if (msg_leader_decode(rpc->body, rpc->header.body_len, &m) < 0 || !(m.flags & 1))
        return false;
    master_core_leader(n->core, address, &known);
    return !known.serving && (!known.node || known.node == n->core->node || known.term <= m.known_term);
}

void master_own_request(struct master_net *n, struct rpc_request *rpc)
{
    struct own o = {.n = n, .rpc = rpc, .workers = n->o->workers, .now_ns = clock_ns()};
    const struct own_op *op = find(rpc->header.type);
    if (!op->run)
        return master_admin_request(n, rpc);
    if (rpc->header.type == MSG_leader && may_wait(n, rpc) && master_net_wait_for_leader(n, rpc) == 0)
        return;
    uint64_t received_ns = loop_now(n->loop), index = n->core->released_index;
    int r = 0;
    if (op->worker && !master_peer_is_worker(rpc->peer))
        r = -EPERM;
    else if (op->leader && !master_core_leads(n->core))
        r = -CV_NOT_LEADER;
    else
        r = op->run(&o);
    /* No lease is asked for: what a leader of before says of workers and ended sessions was true and does no harm. */
    if (r == 0 && op->leader && !master_core_leads(n->core))
        r = -CV_NOT_LEADER;
    master_net_count(n, master_op_of(rpc->header.type), received_ns, r, clock_ns());
    if (r < 0)
        master_net_refuse(n, rpc, r);
    else
        rpc_answer(rpc, 0, index, message_desc(rpc->header.type + 0x8000), &o.answer);
    buf_fini(&o.texts);
}
