/* SPDX-License-Identifier: Apache-2.0 */
/* The network loop's end: who may ask, and the answer. */
#include "meta/master_admin.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "meta/master_net.h"

static void answer(struct master_net *n, struct rpc_request *rpc, uint64_t received_ns, int result, uint32_t error,
                   const struct buf *text)
{
    struct msg_raft_admin_answer m = {.error = error, .node = n->core->node};
    if (text)
        m.text = (struct text){(const char *)text->p, (uint32_t)text->n};
    master_net_count(n, MASTER_OP_raft_admin, received_ns, result, clock_ns());
    rpc_answer(rpc, result, n->core->released_index, result < 0 ? NULL : msg_raft_admin_answer_desc(),
               result < 0 ? NULL : &m);
}

static void back_run(struct loop_job *job)
{
    struct master_admin *a = container_of(job, struct master_admin, job);
    answer(a->net, a->rpc, a->received_ns, a->result, a->error, &a->text);
    buf_fini(&a->text);
    free(a);
}

/* Everybody may look; changing is for administrators. */
static int may_ask(const struct rpc_request *rpc, const struct msg_raft_admin *m)
{
    struct meta_caller caller = {
        .uid = m->head.uid,
        .gid = m->head.gid,
        .groups = (const uint8_t *)m->head.groups.p,
        .group_count = m->head.groups.n / 4,
    };
    const struct master_peer *peer = rpc_peer_user(rpc->peer);
    int r = master_peer_check(peer, &caller);
    if (r < 0 || text_equal(m->command, TEXT("status")))
        return r;
    return master_peer_may_administer(peer, &caller) ? 0 : -EPERM;
}

void master_admin_request(struct master_net *n, struct rpc_request *rpc)
{
    uint64_t received_ns = loop_now(n->loop);
    struct msg_raft_admin m;
    int r = msg_raft_admin_decode(rpc->body, rpc->header.body_len, &m);
    if (r == 0)
        r = may_ask(rpc, &m);
    struct master_admin *a = r == 0 ? calloc(1, sizeof(*a)) : NULL;
    if (!a)
        return answer(n, rpc, received_ns, r < 0 ? r : -ENOMEM, 0, NULL);
    *a = (struct master_admin){
        .net = n, .rpc = rpc, .message = m, .received_ns = received_ns, .home = n->loop, .back = back_run};
    master_scribe_admin(n->scribe, a);
}
