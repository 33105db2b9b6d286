/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_status.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "conf/json.h"

const char *journal_role_name(uint8_t role)
{
    static const char *const names[] = {"unknown", "follower", "pre-candidate", "candidate", "leader"};
    return names[role < array_size(names) ? role : 0];
}

const char *journal_entry_type_name(uint8_t type)
{
    static const char *const names[] = {"unknown", "noop", "batch", "conf", "id-lease", "digest", "barrier"};
    return names[type < array_size(names) ? type : 0];
}

char *journal_node_text(uint64_t node, char out[17])
{
    snprintf(out, 17, "%016" PRIx64, node);
    return out;
}

int journal_conf_write(const struct raft_conf *conf, struct buf *out)
{
    char node[17];
    int r = buf_printf(out, "[");
    for (uint32_t i = 0; i < conf->count && r == 0; i++) {
        const struct raft_member *m = &conf->members[i];
        r = buf_printf(out, "%s{\"id\":\"%s\",\"role\":\"%s\",\"journal_only\":%s,\"priority\":%u,\"address\":",
                       i ? "," : "", journal_node_text(m->id, node), m->role == RAFT_VOTER ? "voter" : "learner",
                       m->journal_only ? "true" : "false", m->priority);
        if (r == 0)
            r = json_write_text(out, m->raft_address);
        if (r == 0)
            r = buf_printf(out, ",\"client_address\":");
        if (r == 0)
            r = json_write_text(out, m->client_address);
        if (r == 0)
            r = buf_printf(out, "}");
    }
    return r < 0 ? r : buf_printf(out, "]");
}

int journal_status_write(const struct raft *raft, uint64_t now_ms, struct buf *out)
{
    struct raft_status s;
    raft_status(raft, &s);
    char node[17], leader[17], to[17];
    int r = buf_printf(out,
                       "{\"id\":\"%s\",\"role\":\"%s\",\"term\":%" PRIu64 ",\"leader\":\"%s\",\"first\":%" PRIu64
                       ",\"last\":%" PRIu64 ",\"durable\":%" PRIu64 ",\"commit\":%" PRIu64 ",\"applied\":%" PRIu64
                       ",\"flushed\":%" PRIu64 ",\"conf_index\":%" PRIu64
                       ",\"conf_committed\":%s,\"warnings\":%u,\"transfer_to\":\"%s\"",
                       journal_node_text(s.id, node), journal_role_name((uint8_t)s.role), s.term,
                       s.leader ? journal_node_text(s.leader, leader) : "", s.first, s.last, s.durable, s.commit,
                       s.applied, s.flushed, s.conf_index, s.conf_committed ? "true" : "false", s.warnings,
                       s.transfer_to ? journal_node_text(s.transfer_to, to) : "");
    const struct raft_conf *conf = raft_conf_newest(raft, &s.conf_index);
    if (r == 0 && conf) {
        r = buf_printf(out, ",\"members\":");
        if (r == 0)
            r = journal_conf_write(conf, out);
    }
    if (r == 0)
        r = buf_printf(out, ",\"peers\":[");
    for (uint32_t i = 0; i < s.peer_count && r == 0; i++) {
        const struct raft_peer_status *p = &s.peers[i];
        static const char *const states[] = {"unknown", "probe", "replicate", "snapshot"};
        r = buf_printf(out,
                       "%s{\"id\":\"%s\",\"state\":\"%s\",\"match\":%" PRIu64 ",\"next\":%" PRIu64 ",\"lag\":%" PRIu64
                       ",\"flushed\":%" PRIu64 ",\"heard_ago_ms\":%" PRId64 ",\"snapshot_index\":%" PRIu64
                       ",\"can_lead\":%s,\"caught_up\":%s}",
                       i ? "," : "", journal_node_text(p->id, node), states[p->state <= RAFT_SNAPSHOT ? p->state : 0],
                       p->match, p->next, s.last > p->match ? s.last - p->match : 0, p->flushed,
                       p->heard_ms ? (int64_t)(now_ms - p->heard_ms) : -1, p->snapshot_index,
                       p->can_lead ? "true" : "false", p->caught_up ? "true" : "false");
    }
    return r < 0 ? r : buf_printf(out, "]");
}
