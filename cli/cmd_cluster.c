/* SPDX-License-Identifier: Apache-2.0 */
/* cv cluster status, cv node list: what the leading master knows of the cluster. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/uuid.h"
#include "cli/connect.h"
#include "cli/host.h"
#include "client/client_ask.h"

#define HALF_SET_UP_MS                                                                                                 \
    2000 /* a master may be elsewhere, but this host's journal does not run: do not keep people waiting */

/* Ask the leader; the answer borrows from *body. */
static int ask_status(struct cli *cli, struct buf *body, struct msg_cluster_status_answer *ret)
{
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    struct msg_cluster_status m = {0};
    int r = client_ask(cv, MSG_cluster_status, msg_cluster_status_desc(), &m, 0, body);
    if (r == 0)
        r = msg_cluster_status_answer_decode(body->p, body->n, ret);
    return r < 0 ? cli_fail(cli, r, NULL, "ask the master") : CLI_OK;
}

static struct out *nodes_table(const struct wire_list *nodes, bool *ret_all_well)
{
    static const struct out_column columns[] = {
        {"role", OUT_TEXT},
        {"node", OUT_TEXT},
        {"state", OUT_TEXT},
        {"address", OUT_TEXT},
        {"version", OUT_TEXT},
        {"up", OUT_DURATION},
        {"capacity", OUT_SIZE, .wide = true},
        {"used", OUT_SIZE, .wide = true},
        {"detail", OUT_TEXT, .wide = true},
    };
    struct out *o = out_table(columns, array_size(columns));
    uint64_t now = clock_wall_ns();
    *ret_all_well = true;
    rec_for_each (node_info, n, nodes) {
        bool well = text_equal(n.state, TEXT("up")) || text_equal(n.state, TEXT("leading")) ||
                    text_equal(n.state, TEXT("following")) || text_equal(n.state, TEXT("leader")) ||
                    text_equal(n.state, TEXT("follower"));
        *ret_all_well &= well;
        out_text_of(o, n.role);
        out_id(o, n.node);
        out_text_of(o, n.state);
        out_colour(o, well ? OUT_GOOD : OUT_BAD);
        out_text_of(o, n.address);
        out_text_of(o, n.version);
        if (n.started_ns && now > n.started_ns)
            out_number(o, (now - n.started_ns) / NS_PER_MS);
        else
            out_text(o, NULL);
        if (n.capacity) {
            out_number(o, n.capacity);
            out_number(o, n.used);
        } else {
            out_text(o, NULL);
            out_text(o, NULL);
        }
        out_text_of(o, n.detail);
    }
    return o;
}

int cmd_node_list(struct cli *cli, int argc, char **argv)
{
    struct buf body cleanup(buf_fini) = {0};
    struct msg_cluster_status_answer a;
    bool well;
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    int status = ask_status(cli, &body, &a);
    return status == CLI_OK ? cli_print(cli, nodes_table(&a.nodes, &well)) : status;
}

/* What is wrong, and what to type; one line each. */
static const char *judge(const struct msg_cluster_status_answer *a, bool nodes_well, const char **ret_action)
{
    *ret_action = NULL;
    if (!nodes_well) {
        *ret_action = "see which: cv node list -o wide";
        return "DEGRADED: a node is not up";
    }
    if (a->committed > a->applied + 10000) {
        *ret_action = "it catches up by itself; watch: cv cluster status";
        return "DEGRADED: the master applies more slowly than the journal commits";
    }
    return "OK";
}

int cmd_cluster_status(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"status", OUT_TEXT},        {"action", OUT_TEXT},    {"cluster", OUT_TEXT},    {"incarnation", OUT_NUMBER},
        {"leader", OUT_TEXT},        {"term", OUT_NUMBER},    {"uptime", OUT_DURATION}, {"ack_mode", OUT_TEXT},
        {"committed", OUT_NUMBER},   {"applied", OUT_NUMBER}, {"flushed", OUT_NUMBER},  {"inodes", OUT_NUMBER},
        {"directories", OUT_NUMBER}, {"memory", OUT_SIZE},    {"sessions", OUT_NUMBER},
    };
    struct buf body cleanup(buf_fini) = {0};
    struct msg_cluster_status_answer a;
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    struct host_daemon here[HOST_DAEMONS];
    int status = host_look(cli, here);
    if (status != CLI_OK)
        return status;
    bool is_host = host_is_one(cli, here);
    if (is_host && !cli->timeout_ms && here[0].state != HOST_RUNNING && here[0].state != HOST_ABSENT)
        cli->timeout_ms = HALF_SET_UP_MS;
    status = ask_status(cli, &body, &a);
    if (status == CLI_UNREACHABLE && is_host)
        host_advise(here);
    if (status != CLI_OK)
        return status;
    bool nodes_well;
    struct out *nodes = nodes_table(&a.nodes, &nodes_well);
    const char *action, *verdict = judge(&a, nodes_well, &action);
    bool well = strcmp(verdict, "OK") == 0;
    char id[UUID_STRING];
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, verdict);
    out_colour(o, well ? OUT_GOOD : OUT_WARN);
    out_text(o, action);
    out_text(o, uuid_format(uuid_from_bytes(a.cluster), id));
    out_number(o, a.incarnation);
    out_id(o, a.leader);
    out_number(o, a.term);
    out_number(o, a.uptime_ms);
    out_text_of(o, a.ack_mode);
    out_number(o, a.committed);
    out_number(o, a.applied);
    out_number(o, a.flushed);
    out_number(o, a.inodes);
    out_number(o, a.directories);
    out_number(o, a.memory_bytes);
    out_number(o, a.sessions);
    out_nest(o, "nodes", nodes);
    status = cli_print(cli, o);
    return status != CLI_OK ? status : well ? CLI_OK : CLI_DEGRADED;
}
