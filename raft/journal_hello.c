/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_hello.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/error.h"

#define PROGRAM "cv-journal"

const char *peer_channel_name(uint8_t channel)
{
    static const char *const names[PEER_CHANNELS] = {"unknown", "control", "entries", "snapshot", "identify"};
    return names[channel < PEER_CHANNELS ? channel : 0];
}

void journal_hello_fill(const struct journal_self *self, enum peer_channel channel, uint64_t to,
                        struct msg_peer_hello *ret)
{
    *ret = (struct msg_peer_hello){
        .version_min = PEER_VERSION_MIN,
        .version_max = PEER_VERSION_MAX,
        .channel = (uint8_t)channel,
        .node = self->node,
        .to = to,
        .cluster = uuid_bytes(&self->cluster),
        .incarnation = self->incarnation,
        .program = text_of(PROGRAM),
        .address = text_of(self->address),
    };
}

void journal_hello_refuse(struct msg_peer_hello_answer *answer, int error, const char *reason)
{
    answer->error = (uint32_t)-error;
    answer->reason = text_of(reason);
}

static bool same_cluster(const struct journal_self *self, struct text cluster)
{
    return cluster.n == UUID_SIZE && uuid_equal(uuid_from_bytes(cluster), self->cluster);
}

int journal_hello_check(const struct journal_self *self, const struct msg_peer_hello *hello,
                        struct msg_peer_hello_answer *answer)
{
    *answer = (struct msg_peer_hello_answer){
        .version = min(hello->version_max, (uint16_t)PEER_VERSION_MAX),
        .node = self->node,
        .cluster = uuid_bytes(&self->cluster),
        .incarnation = self->incarnation,
        .program = text_of(PROGRAM),
    };
    int r = 0;
    const char *reason = NULL;
    if (hello->version_min > PEER_VERSION_MAX || hello->version_max < PEER_VERSION_MIN) {
        r = -EPROTONOSUPPORT;
        reason = hello->version_min > PEER_VERSION_MAX ? "this journal is older than the dialer: upgrade it"
                                                       : "the dialer is older than this journal: upgrade it";
    } else if (!same_cluster(self, hello->cluster)) {
        r = -CV_WRONG_CLUSTER;
        reason = "this journal belongs to another cluster: check the address";
    } else if (hello->incarnation < self->incarnation) {
        r = -CV_WRONG_INCARNATION;
        reason = "the cluster was founded again without the dialer: it must rejoin as a new member";
    } else if (hello->incarnation > self->incarnation) {
        r = -CV_WRONG_INCARNATION;
        reason = "this journal belongs to an older incarnation of the cluster: it must rejoin as a new member";
    } else if (hello->to && hello->to != self->node) {
        r = -ENXIO;
        reason = "another node is at this address";
    } else if (hello->node == 0 || hello->node == self->node || hello->channel == 0 ||
               hello->channel >= PEER_CHANNELS) {
        r = -CV_BAD_MESSAGE;
        reason = hello->node == self->node ? "the dialer has this node's id: a copy of its directory runs twice"
                                           : "malformed hello";
    }
    if (r < 0)
        journal_hello_refuse(answer, r, reason);
    return r;
}

int journal_hello_accept(const struct journal_self *self, uint64_t to, const struct msg_peer_hello_answer *answer,
                         struct text *ret_reason)
{
    int r = 0;
    *ret_reason = TEXT("");
    if (answer->error) {
        *ret_reason = answer->reason;
        r = answer->error < INT32_MAX ? -(int)answer->error : -CV_BAD_MESSAGE;
    } else if (!same_cluster(self, answer->cluster)) {
        *ret_reason = TEXT("a journal of another cluster answers there");
        r = -CV_WRONG_CLUSTER;
    } else if (answer->incarnation != self->incarnation) {
        *ret_reason = TEXT("a journal of another incarnation answers there");
        r = -CV_WRONG_INCARNATION;
    } else if (answer->node == 0 || answer->node == self->node || (to && answer->node != to)) {
        *ret_reason = TEXT("another node answers there");
        r = -ENXIO;
    } else if (answer->version < PEER_VERSION_MIN || answer->version > PEER_VERSION_MAX) {
        *ret_reason = TEXT("no version that both speak");
        r = -EPROTONOSUPPORT;
    }
    return r;
}
