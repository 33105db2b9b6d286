/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "meta/master_net.h"

#define GROUPS_MAX 1024

struct master_peer {
    bool trusted; /* may speak for anybody */
    uid_t uid;
    gid_t gid;
    uint32_t group_count;
    gid_t groups[];
};

int master_peer_new(struct rpc_peer *p, struct master_peer **ret)
{
    struct net_credentials who;
    gid_t groups[GROUPS_MAX];
    bool local = rpc_peer_credentials(p, &who) == 0;
    bool trusted = !local || who.uid == 0 || who.uid == geteuid();
    int n = trusted ? 0 : rpc_conn_groups(rpc_peer_conn(p), groups, GROUPS_MAX);
    uint32_t count = n > 0 ? (uint32_t)n : 0; /* on an error: only the group it has */
    struct master_peer *peer = malloc(sizeof(*peer) + count * sizeof(gid_t));
    if (!peer)
        return -ENOMEM;
    *peer = (struct master_peer){.trusted = trusted, .group_count = count};
    if (local) {
        peer->uid = who.uid;
        peer->gid = who.gid;
    }
    if (count)
        memcpy(peer->groups, groups, count * sizeof(gid_t));
    *ret = peer;
    return 0;
}

void master_peer_free(struct master_peer *p)
{
    free(p);
}

static bool has_group(const struct master_peer *p, gid_t gid)
{
    if (gid == p->gid)
        return true;
    for (uint32_t i = 0; i < p->group_count; i++)
        if (p->groups[i] == gid)
            return true;
    return false;
}

int master_peer_check(const struct master_peer *p, const struct meta_caller *caller)
{
    if (p->trusted)
        return 0;
    if (caller->uid != p->uid || !has_group(p, caller->gid))
        return -EPERM;
    for (uint32_t i = 0; i < caller->group_count; i++)
        if (!has_group(p, get_le32(caller->groups + 4 * i)))
            return -EPERM;
    return 0;
}

bool master_peer_may_administer(const struct master_peer *p, const struct meta_caller *caller)
{
    return p->trusted && (caller->uid == 0 || caller->uid == geteuid());
}

bool master_peer_is_worker(const struct rpc_peer *p)
{
    const struct master_peer *peer = rpc_peer_user(p);
    return rpc_peer_role(p) == RPC_WORKER && peer->trusted;
}
