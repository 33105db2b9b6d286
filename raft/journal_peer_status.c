/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "base/clock.h"
#include "base/error.h"
#include "conf/json.h"
#include "raft/journal_peer_internal.h"
#include "raft/journal_status.h"

static const char *state_name(const struct peer_out *o)
{
    if (o->conn)
        return "open";
    if (o->dial.refused)
        return "refused";
    return journal_dial_busy(&o->dial) ? "connecting" : "waiting";
}

static int write_peer(const struct peer *peer, bool first, struct buf *out)
{
    const struct peer_out *control = &peer->out[PEER_CONTROL], *entries = &peer->out[PEER_ENTRIES];
    const struct peer_figures *f = &peer->figures;
    char node[17];
    int r = buf_printf(out, "%s{\"id\":\"%s\",\"member\":%s,\"address\":", first ? "" : ",",
                       journal_node_text(peer->id, node), peer->member ? "true" : "false");
    if (r == 0)
        r = json_write_text(out, peer->address);
    if (r == 0)
        r = buf_printf(out, ",\"control\":\"%s\",\"entries\":\"%s\",\"accepted\":%s,\"reason\":", state_name(control),
                       state_name(entries), peer->in[PEER_CONTROL] && peer->in[PEER_ENTRIES] ? "true" : "false");
    if (r == 0)
        r = json_write_text(out, control->reason[0] ? control->reason : entries->reason);
    if (r == 0)
        r = buf_printf(out, ",\"error\":\"%s\"", control->error ? cv_error_name(control->error) : "");
    if (r == 0)
        r = buf_printf(out,
                       ",\"queued_bytes\":%" PRIu64 ",\"waiting\":%u,\"bytes_out\":%" PRIu64 ",\"bytes_in\":%" PRIu64
                       ",\"messages_out\":%" PRIu64 ",\"messages_in\":%" PRIu64 ",\"dropped\":%" PRIu64
                       ",\"connects\":%" PRIu64 ",\"disk_reads\":%" PRIu64 "}",
                       entries->conn ? rpc_conn_queued(entries->conn) : 0, peer->count, f->bytes_out, f->bytes_in,
                       f->messages_out, f->messages_in, f->dropped, f->connects, f->disk_reads);
    return r;
}

static int write_refused(const struct peer_refused *x, bool first, struct buf *out)
{
    char node[17];
    int r = buf_printf(out, "%s{\"id\":\"%s\",\"from\":", first ? "" : ",", journal_node_text(x->node, node));
    if (r == 0)
        r = json_write_text(out, x->from);
    if (r == 0)
        r = buf_printf(out, ",\"error\":\"%s\",\"reason\":", cv_error_name(x->error));
    if (r == 0)
        r = json_write_text(out, x->reason);
    return r < 0 ? r
                 : buf_printf(out, ",\"count\":%" PRIu64 ",\"ago_ms\":%" PRIu64 "}", x->count,
                              (uint64_t)((clock_ns() - x->at_ns) / NS_PER_MS));
}

int journal_peers_status(struct journal_peers *p, struct buf *out)
{
    int r = buf_printf(out, ",\"transport\":{\"listen\":");
    if (r == 0)
        r = json_write_text(out, p->fd >= 0 ? p->address : "");
    if (r == 0)
        r = buf_printf(out, ",\"peers\":[");
    bool first = true;
    list_for_each (e, &p->peers) {
        if (r == 0)
            r = write_peer(list_entry(e, struct peer, link), first, out);
        first = false;
    }
    if (r == 0)
        r = buf_printf(out, "],\"refused\":[");
    for (uint32_t i = 0; i < p->refused_count && r == 0; i++)
        r = write_refused(&p->refused[i], i == 0, out);
    return r < 0 ? r : buf_printf(out, "]}");
}
