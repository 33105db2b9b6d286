/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsync where a master answers before a majority of masters has what it did (ack modes local and applied, of the cluster or
 * of a mount). Then fsync asks (MSG sync) and is answered when a majority has all that was answered before. Where no master
 * answers early nobody has to ask: that is told with the session and each renewal, and holds for the lease.
 *
 * What was answered early and then lost with its leader nobody can wait for: the generation in the answers is another one
 * then. Changes since the last fsync may be lost: the next fsync says so, once: of a file that was written, of any directory.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/client_file.h"

bool client_acks_early(const struct curvine *cv)
{
    return cv->acks_early || cv->lost || clock_ns() >= cv->acks_known_until_ns;
}

static void maybe_lost(struct curvine *cv)
{
    struct client_content *c = cv->content;
    cv->lost = cv->changes > cv->synced;
    for (size_t i = 0; i < array_size(c->inodes); i++)
        list_for_each (e, &c->inodes[i]) {
            struct client_inode *in = list_entry(e, struct client_inode, link);
            in->unsure |= in->unsynced;
        }
    if (cv->lost)
        log_warn(0, "a change of leader: what was answered just before it may be lost, the next fsync says so");
}

void client_acks_told(struct curvine *cv, bool early, uint64_t generation, uint64_t sent_ns)
{
    bool another = cv->generation && generation && generation != cv->generation;
    if (another && (cv->acks_early || early))
        maybe_lost(cv);
    cv->generation = generation ? generation : cv->generation;
    cv->acks_early = early;
    if (sent_ns)
        cv->acks_known_until_ns = sent_ns + cv->lease_ms * NS_PER_MS;
}

int client_sync_decode(struct client_call *call, const void *body, uint32_t n)
{
    struct curvine *cv = call->cv;
    struct msg_sync_answer a;
    int r = msg_sync_answer_decode(body, n, &a);
    if (r < 0)
        return r;
    client_acks_told(cv, a.early, a.generation, 0);
    cv->synced = max(cv->synced, call->changes);
    if (!cv->lost)
        return 0;
    cv->lost = false;
    return -CV_ACK_LOST;
}
