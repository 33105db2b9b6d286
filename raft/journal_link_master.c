/* SPDX-License-Identifier: Apache-2.0 */
/* What all files of the link end in: a message on a connection, the end of the master's, the end of the link. */
#include <unistd.h>

#include "base/log.h"
#include "raft/journal_link_internal.h"

void link_send_to(struct link_peer *p, uint16_t type, const void *message)
{
    struct frame_header h = {.type = type, .flags = FRAME_ONE_WAY};
    int r = rpc_conn_send(p->conn, &h, message_desc(type), message);
    if (r < 0)
        rpc_conn_close(p->conn, r);
}

void link_send(struct journal_link *l, uint16_t type, const void *message)
{
    if (link_has_master(l))
        link_send_to(l->master, type, message);
}

void link_drop_master(struct journal_link *l, int reason, const char *what)
{
    if (!link_has_master(l))
        return;
    log_warn(reason, "master (%s) %s: disconnecting it", rpc_conn_peer(l->master->conn), what);
    rpc_conn_close(l->master->conn, reason);
}

void link_admin_answer(struct journal_link *l, uint64_t context, int result, const struct buf *text)
{
    struct msg_link_admin_answer answer = {
        .context = context,
        .error = result < 0 ? (uint32_t)-result : 0,
        .text = {(const char *)text->p, (uint32_t)text->n},
    };
    link_send(l, MSG_link_admin_answer, &answer);
}

void link_finish_stop(struct journal_link *l)
{
    if (!l->stopping || l->peer_count || l->disk.busy || l->identify_count || io_op_busy(&l->accept) || !l->stopped)
        return;
    if (l->fd >= 0) /* otherwise the file is somebody else's */
        unlink(l->socket);
    l->fd = loop_close(l->options.loop, l->fd);
    void (*stopped)(void *arg) = l->stopped;
    l->stopped = NULL;
    stopped(l->stopped_arg);
}
