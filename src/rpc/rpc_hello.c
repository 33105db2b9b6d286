/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/rpc_hello.h"

#include <pthread.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

static bool cluster_known(const uint8_t *cluster)
{
    static const uint8_t zero[16];
    return memcmp(cluster, zero, sizeof(zero)) != 0;
}

static struct text cluster_text(const struct rpc_self *self)
{
    return (struct text){(const char *)self->cluster, cluster_known(self->cluster) ? 16 : 0};
}

static bool cluster_fits(const struct rpc_self *self, struct text other)
{
    return other.n == 0 || !cluster_known(self->cluster) || (other.n == 16 && memcmp(other.p, self->cluster, 16) == 0);
}

int rpc_hello_check(const struct rpc_self *self, const struct msg_hello *hello, struct msg_hello_answer *answer)
{
    *answer = (struct msg_hello_answer){
        .version = min(hello->version_max, (uint16_t)RPC_VERSION_MAX),
        .role = (uint8_t)self->role,
        .node = self->node,
        .cluster = cluster_text(self),
        .incarnation = self->incarnation,
        .program = text_of(self->program),
    };
    if (hello->version_min > RPC_VERSION_MAX || hello->version_max < RPC_VERSION_MIN) {
        answer->reason = hello->version_min > RPC_VERSION_MAX ? TEXT("your protocol is newer: upgrade the server first")
                                                              : TEXT("your protocol is too old: upgrade the client");
        return -EPROTONOSUPPORT;
    }
    if (!cluster_fits(self, hello->cluster)) {
        answer->reason = TEXT("you belong to another cluster: check the address");
        return -CV_WRONG_CLUSTER;
    }
    if (hello->incarnation && self->incarnation && hello->incarnation != self->incarnation) {
        answer->reason = TEXT("the cluster was restored since: restart to join its new incarnation");
        return -CV_WRONG_INCARNATION;
    }
    return 0;
}

int rpc_hello_accept(const struct rpc_self *self, const struct msg_hello_answer *answer)
{
    if (answer->version < RPC_VERSION_MIN || answer->version > RPC_VERSION_MAX)
        return -EPROTONOSUPPORT;
    if (!cluster_fits(self, answer->cluster))
        return -CV_WRONG_CLUSTER;
    if (self->incarnation && answer->incarnation && self->incarnation != answer->incarnation)
        return -CV_WRONG_INCARNATION;
    return 0;
}

static char host[64];

static void find_host(void)
{
    if (gethostname(host, sizeof(host) - 1) < 0)
        strcpy(host, "?");
}

void rpc_hello_fill(const struct rpc_self *self, struct msg_hello *ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* clients live on several threads */
    pthread_once(&once, find_host);
    *ret = (struct msg_hello){
        .version_min = RPC_VERSION_MIN,
        .version_max = RPC_VERSION_MAX,
        .role = (uint8_t)self->role,
        .node = self->node,
        .cluster = cluster_text(self),
        .incarnation = self->incarnation,
        .program = text_of(self->program),
        .host = text_of(host),
        .pid = (uint32_t)getpid(),
    };
}
