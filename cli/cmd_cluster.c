/* SPDX-License-Identifier: Apache-2.0 */
/* cv cluster status, cv node list: all masters and journals, the workers as the leader sees them, and what to do. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/uuid.h"
#include "cli/connect.h"
#include "cli/host.h"
#include "cli/masters.h"
#include "cli/raft_view.h"

#define PATIENCE_MS 2000 /* for somebody to lead: a failover takes about a second */
#define JOURNALS_MS 2000
#define SILENT_MS   3000
#define BEHIND_MAX  10000 /* entries a master may be behind before it is worth a word */

/* What was found, and the worst of it: one line each, and the command to type. */
struct look {
    struct cli *cli;
    struct masters masters;
    struct raft_view *journals; /* NULL, or without answers: they could not be asked */
    struct out *table;
    const char *verdict;
    char action[300];
};

static void look_end(struct look *l)
{
    masters_fini(&l->masters);
    raft_view_closep(&l->journals);
}

/* The first that is found is the one told. */
static __attribute__((format(printf, 3, 4))) void found(struct look *l, const char *verdict, const char *format, ...)
{
    va_list args;
    if (l->verdict)
        return;
    l->verdict = verdict;
    va_start(args, format);
    vsnprintf(l->action, sizeof(l->action), format, args);
    va_end(args);
}

/* How a daemon is started again here. */
static void found_down(struct look *l, const char *verdict, const char *program, const char *address)
{
    if (l->cli->dir)
        found(l, verdict, "start it: cv local up --dir %s", l->cli->dir);
    else if (strncmp(address, "unix:", 5) == 0)
        found(l, verdict, "start it: systemctl start %s (or cv local up), and look at its log", program);
    else
        found(l, verdict, "start it on %s: systemctl start %s, and look at its log", address, program);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------- */

static void add_number(struct out *o, bool known, uint64_t n)
{
    if (known)
        out_number(o, n);
    else
        out_text(o, NULL);
}

/* One row. term, behind: UINT64_MAX: does not apply, or not known. */
static void add_node(struct look *l, const struct rec_node_info *n, uint64_t term, uint64_t behind, bool well)
{
    struct out *o = l->table;
    uint64_t now = clock_wall_ns();
    out_text_of(o, n->role);
    out_id(o, n->node);
    out_text_of(o, n->state);
    out_colour(o, well ? OUT_GOOD : OUT_BAD);
    out_text_of(o, n->address);
    add_number(o, term != UINT64_MAX, term);
    add_number(o, behind != UINT64_MAX, behind);
    out_text_of(o, n->version);
    add_number(o, n->started_ns && now > n->started_ns, (now - n->started_ns) / NS_PER_MS);
    add_number(o, n->capacity, n->capacity);
    add_number(o, n->capacity, n->used);
    add_number(o, n->capacity, n->dirty);
    out_text_of(o, n->detail);
}

/* Where a master that listens on all addresses is found: as the configuration of the voters has it, else where it was asked. */
static struct text reachable(const struct look *l, const struct master_says *m, struct text said)
{
    static const struct text all[] = {{"0.0.0.0:", 8}, {"[::]:", 5}};
    bool everywhere = false;
    for (size_t i = 0; i < array_size(all); i++)
        everywhere |= said.n > all[i].n && memcmp(said.p, all[i].p, all[i].n) == 0;
    if (!everywhere)
        return said;
    rec_for_each (node_info, n, &m->answer.nodes) {
        const struct raft_view_member *journal =
            l->journals && text_equal(n.role, TEXT("journal")) ? raft_view_find(l->journals, n.node) : NULL;
        if (journal && *journal->client_address)
            return text_of(journal->client_address);
    }
    return strncmp(m->address, "unix:", 5) == 0 ? said : text_of(m->address);
}

/* The journal beside it is no member: it was removed, or is of a life of the cluster that was given up. It follows nobody. */
static bool is_outside(const struct look *l, const struct master_says *m)
{
    const struct raft_view *v = l->journals;
    for (uint32_t i = 0; v && v->leader && i < v->master_count; i++) {
        const struct raft_view_master *its = &v->masters[i];
        if (strcmp(its->address, m->address) == 0)
            return its->error == 0 && its->node && !raft_view_find(v, its->node);
    }
    return false;
}

static void found_outside(struct look *l)
{
    char incarnation[40] = "";
    if (l->journals->incarnation > 1)
        snprintf(incarnation, sizeof(incarnation), " --incarnation %" PRIu32, l->journals->incarnation);
    found(l, "DEGRADED: a master's journal is no member",
          "cv node list shows it outside; cv raft add HOST:PORT if it waits for that; if it was removed: first "
          "cv-journal "
          "rejoin%s and cv-master rejoin there, or take it out of cluster.masters",
          incarnation);
}

static void add_master(struct look *l, const struct master_says *m)
{
    const struct master_says *leader = l->masters.leader;
    struct rec_node_info n;
    if (!master_self(m, &n)) {
        n = (struct rec_node_info){.role = TEXT("master"), .state = TEXT("down"), .address = text_of(m->address)};
        n.detail = text_of(*m->reason ? m->reason : cv_error_text(m->error));
        add_node(l, &n, UINT64_MAX, UINT64_MAX, false);
        found_down(l, "DEGRADED: a master is down", "cv-master", m->address);
        return;
    }
    n.address = reachable(l, m, n.address);
    uint64_t committed = leader ? leader->answer.committed : m->answer.committed;
    uint64_t behind = committed > m->answer.applied ? committed - m->answer.applied : 0;
    bool outside = is_outside(l, m),
         well = !outside && (text_equal(n.state, TEXT("leading")) || text_equal(n.state, TEXT("following")));
    if (outside)
        n.state = TEXT("outside");
    add_node(l, &n, m->answer.term, behind, well);
    if (text_equal(n.state, TEXT("detached")))
        found_down(l, "DEGRADED: a master has no journal", "cv-journal", m->address);
    else if (outside)
        found_outside(l);
    else if (text_equal(n.state, TEXT("disk full")))
        found(l, "DEGRADED: a disk is nearly full", "make room on the host of " TEXT_FMT ": " TEXT_FMT,
              TEXT_ARG(n.address), TEXT_ARG(n.detail));
    else if (text_equal(n.state, TEXT("damaged")))
        found(l, "DEGRADED: a master cannot read all of its database",
              "look at the disk on the host of " TEXT_FMT " (dmesg), then as for a node that lost it: cv raft replace",
              TEXT_ARG(n.address));
    else if (behind > BEHIND_MAX)
        found(l, "DEGRADED: a master applies more slowly than the journal commits",
              "it catches up by itself; watch: cv node list");
}

/* A voter as the journals tell it. */
static void add_journal(struct look *l, const struct raft_view_member *m)
{
    const struct raft_view *v = l->journals;
    bool leads = m->id == v->leader, silent = m->followed && (m->heard_ago_ms < 0 || m->heard_ago_ms > SILENT_MS);
    bool known = m->answered || m->followed;
    char detail[200];
    struct rec_node_info n = {.node = m->id,
                              .role = TEXT("journal"),
                              .address = text_of(m->address),
                              .state = text_of(leads                     ? "leader"
                                               : silent                  ? "down"
                                               : m->answered && *m->role ? m->role
                                               : known                   ? "follower"
                                                                         : "unknown")};
    snprintf(detail, sizeof(detail), "%s%s%.150s", m->voter ? "" : "learner", m->journal_only ? "journal only" : "",
             m->reason);
    n.detail = text_of(detail);
    add_node(l, &n,
             m->answered                         ? m->term
             : leads || (m->followed && !silent) ? v->term
                                                 : UINT64_MAX,
             m->followed ? m->lag : UINT64_MAX, known && !silent);
    if (silent && *m->error && strcmp(m->error, "ECONNREFUSED") != 0)
        found(l, "DEGRADED: a journal does not vote", "see why, and what to type: cv raft status");
    else if (silent || !known)
        found_down(l, "DEGRADED: a journal is down", "cv-journal", m->address);
}

static void found_worker_down(struct look *l, const struct rec_node_info *n)
{
    char address[256];
    snprintf(address, sizeof(address), TEXT_FMT, TEXT_ARG(n->address));
    found_down(l,
               text_equal(n->state, TEXT("out")) ? "DEGRADED: a worker is out, others have its share"
                                                 : "DEGRADED: a worker is down",
               "cv-worker", address);
}

static void add_others(struct look *l, const struct master_says *m, struct text role)
{
    rec_for_each (node_info, n, &m->answer.nodes) {
        bool well = text_equal(n.state, TEXT("up")) || text_equal(n.state, TEXT("leader")) ||
                    text_equal(n.state, TEXT("follower"));
        if (!text_equal(n.role, role))
            continue;
        add_node(l, &n, text_equal(role, TEXT("journal")) ? m->answer.term : UINT64_MAX, UINT64_MAX, well);
        if (text_equal(n.state, TEXT("detached")))
            found_down(l, "DEGRADED: a journal is down", "cv-journal", m->address);
        else if (!well)
            found_worker_down(l, &n);
        else if (n.detail.n)
            found(l, "DEGRADED: a worker has trouble", "on " TEXT_FMT ": " TEXT_FMT, TEXT_ARG(n.address),
                  TEXT_ARG(n.detail));
    }
}

static void make_table(struct look *l)
{
    static const struct out_column columns[] = {
        {"role", OUT_TEXT},
        {"node", OUT_TEXT},
        {"state", OUT_TEXT},
        {"address", OUT_TEXT},
        {"term", OUT_NUMBER},
        {"behind", OUT_NUMBER},
        {"version", OUT_TEXT},
        {"up", OUT_DURATION},
        {"capacity", OUT_SIZE, .wide = true},
        {"used", OUT_SIZE, .wide = true},
        {"dirty", OUT_SIZE, .wide = true},
        {"detail", OUT_TEXT, .wide = true},
    };
    const struct masters *m = &l->masters;
    l->table = out_table(columns, array_size(columns));
    if (!m->leader)
        found(l, "DOWN: nobody leads",
              "a majority of the journals must run, and a master beside one of them: cv raft status");
    for (uint32_t i = 0; i < m->count; i++)
        add_master(l, &m->list[i]);
    for (uint32_t i = 0; l->journals && i < l->journals->count; i++)
        add_journal(l, &l->journals->members[i]);
    for (uint32_t i = 0; (!l->journals || !l->journals->count) && i < m->count; i++)
        if (m->list[i].error == 0)
            add_others(l, &m->list[i], TEXT("journal"));
    if (m->leader)
        add_others(l, m->leader, TEXT("worker"));
    if (m->leader && l->journals && raft_view_voters(l->journals, false) == 2)
        found(l, "DEGRADED: two voters, the loss of either stops all changes",
              "cv raft add HOST:PORT (a third vote may be --journal-only)");
}

/* ---- asking ----------------------------------------------------------------------------------------------------------------- */

/* Ask everybody. Returns CLI_OK when at least one master answered, or reports and returns a status. */
static int look(struct cli *cli, struct look *ret)
{
    *ret = (struct look){.cli = cli};
    int status = masters_ask(cli, PATIENCE_MS, &ret->masters);
    if (status != CLI_OK)
        return status;
    if (!ret->masters.answers) {
        /* Here, what is missing and the command for it; elsewhere, what may be the matter. */
        const struct master_says *m = &ret->masters.list[0];
        struct host_daemon here[HOST_DAEMONS];
        bool advise = host_look(cli, here) == CLI_OK && host_is_one(cli, here);
        status = cli_fail(cli, -CV_UNREACHABLE, advise ? NULL : cli_start_hint(cli), "no master answers (%s: %s)",
                          m->address, *m->reason ? m->reason : cv_error_text(m->error));
        if (advise)
            host_advise(here);
        return status;
    }
    if (raft_view_open(cli, &ret->journals) == CLI_OK)
        raft_view_look(ret->journals, clock_ns() + cli_timeout_ms(cli, JOURNALS_MS) * NS_PER_MS);
    make_table(ret);
    return CLI_OK;
}

int cmd_node_list(struct cli *cli, int argc, char **argv)
{
    struct look l cleanup(look_end) = {.cli = cli};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    int status = look(cli, &l);
    return status == CLI_OK ? cli_print(cli, l.table) : status;
}

int cmd_cluster_status(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"status", OUT_TEXT},        {"action", OUT_TEXT},    {"cluster", OUT_TEXT},    {"incarnation", OUT_NUMBER},
        {"leader", OUT_TEXT},        {"term", OUT_NUMBER},    {"uptime", OUT_DURATION}, {"ack_mode", OUT_TEXT},
        {"committed", OUT_NUMBER},   {"applied", OUT_NUMBER}, {"flushed", OUT_NUMBER},  {"inodes", OUT_NUMBER},
        {"directories", OUT_NUMBER}, {"memory", OUT_SIZE},    {"sessions", OUT_NUMBER}, {"feature_level", OUT_NUMBER},
    };
    struct look l cleanup(look_end) = {.cli = cli};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    int status = look(cli, &l);
    if (status != CLI_OK)
        return status;
    const struct msg_cluster_status_answer *a = NULL; /* the leader's, or of whoever answered */
    for (uint32_t i = 0; i < l.masters.count && !a; i++)
        a = l.masters.list[i].error == 0 ? &l.masters.list[i].answer : NULL;
    a = l.masters.leader ? &l.masters.leader->answer : a;
    char id[UUID_STRING];
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, l.verdict ? l.verdict : "OK");
    out_colour(o, !l.verdict ? OUT_GOOD : l.masters.leader ? OUT_WARN : OUT_BAD);
    out_text(o, l.verdict ? l.action : NULL);
    out_text(o, uuid_format(uuid_from_bytes(a->cluster), id));
    out_number(o, a->incarnation);
    out_id(o, a->leader);
    out_number(o, a->term);
    out_number(o, a->uptime_ms);
    out_text_of(o, a->ack_mode);
    out_number(o, a->committed);
    out_number(o, a->applied);
    out_number(o, a->flushed);
    out_number(o, a->inodes);
    out_number(o, a->directories);
    out_number(o, a->memory_bytes);
    out_number(o, a->sessions);
    out_number(o, max(a->feature_level, 1u));
    out_nest(o, "nodes", l.table);
    status = cli_print(cli, o);
    return status != CLI_OK ? status : !l.masters.leader ? CLI_UNREACHABLE : l.verdict ? CLI_DEGRADED : CLI_OK;
}
