/* SPDX-License-Identifier: Apache-2.0 */
/* cv raft status, transfer, snapshot, wait-caught-up: who votes, and how they are. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/raft_change.h"

#define LOOK_MS     10000
#define SILENT_MS   3000
#define CHANGE_MS   30000
#define CATCH_UP_MS 600000

/* ---- what is wrong, in words, and what to type ---------------------------------------------------------------------------- */

struct findings {
    struct out *table; /* what, try */
    uint32_t n;
};

static __attribute__((format(printf, 3, 4))) void found(struct findings *f, const char *action, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    out_text(f->table, text);
    out_colour(f->table, OUT_WARN);
    out_text(f->table, action);
    f->n++;
}

static void judge_member(struct findings *f, const struct raft_view *v, const struct raft_view_member *m)
{
    char node[17], action[300];
    raft_node_text(m->id, node);
    if (!m->followed)
        return;
    if (m->heard_ago_ms < 0 || m->heard_ago_ms > SILENT_MS) {
        snprintf(action, sizeof(action), "start cv-journal there; if it is gone for good: cv raft replace %s HOST:PORT",
                 node);
        if (m->heard_ago_ms < 0)
            found(f, action, "%s (%s) has not answered this leader%s%s", node, m->address, *m->reason ? ": " : "",
                  m->reason);
        else
            found(f, action, "%s (%s) is silent for %" PRId64 " s%s%s", node, m->address, m->heard_ago_ms / 1000,
                  *m->reason ? ": " : "", m->reason);
    } else if (m->snapshot_index) {
        snprintf(action, sizeof(action), "wait: cv raft wait-caught-up %s", node);
        found(f, action, "%s fetches a snapshot of the state at entry %" PRIu64, node, m->snapshot_index);
    } else if (!m->voter && m->caught_up) {
        snprintf(action, sizeof(action), "cv raft promote %s", node);
        found(f, action, "%s is a learner and has caught up", node);
    } else if (m->voter && !m->caught_up && m->id != v->leader) {
        snprintf(action, sizeof(action), "wait: cv raft wait-caught-up %s", node);
        found(f, action, "%s is %" PRIu64 " entries behind", node, m->lag);
    } else if (m->voter && !m->journal_only && !m->can_lead && m->id != v->leader) {
        found(f, "start cv-master there, or look at its log",
              "%s could not lead: no master that keeps up is attached to it", node);
    }
}

static void judge(struct findings *f, const struct raft_view *v)
{
    uint32_t voters = raft_view_voters(v, false), full = raft_view_voters(v, true);
    if (!v->leader) {
        found(
            f,
            "start the journals that are down; if a majority is gone for good: docs/operations.md, \"quorum is gone\"",
            "nobody leads: %u of %u masters asked answer, %u voters are needed of %u", v->answers, v->master_count,
            voters / 2 + 1, voters);
        return;
    }
    if (!v->conf_committed)
        found(f, "wait, and look again: cv raft status",
              "the newest configuration (entry %" PRIu64 ") is not committed yet", v->conf_index);
    if (voters == 2)
        found(f, "cv raft add HOST:PORT (a third vote may be --journal-only)",
              "two voters: the loss of either stops all changes");
    else if (voters > 1 && full < 2)
        found(f, "cv raft add HOST:PORT", "one full voter: its loss is the loss of the namespace");
    for (uint32_t i = 0; i < v->count; i++)
        judge_member(f, v, &v->members[i]);
    if (v->warnings & RAFT_VIEW_HANDOVER)
        found(f, "start a master beside a full voter", "the leader should not lead, and nobody can take over");
    if (v->warnings & RAFT_VIEW_LEFT_BEHIND)
        found(f, "it catches up by a snapshot when it is back; gone for good: cv raft replace NODE HOST:PORT",
              "the log was cut without waiting for a silent member");
}

/* ---- status ------------------------------------------------------------------------------------------------------------------ */

static struct out *masters_table(const struct raft_view *v)
{
    static const struct out_column columns[] = {{"master", OUT_TEXT}, {"journal", OUT_TEXT}, {"error", OUT_TEXT}};
    struct out *o = out_table(columns, array_size(columns));
    for (uint32_t i = 0; i < v->master_count; i++) {
        const struct raft_view_master *m = &v->masters[i];
        char node[17];
        out_text(o, m->address);
        out_text(o, m->node ? raft_node_text(m->node, node) : NULL);
        out_text(o, m->error < 0 ? (*m->reason ? m->reason : cv_error_text(m->error)) : NULL);
    }
    return o;
}

static struct out *status_record(const struct raft_view *v, const struct findings *f)
{
    static const struct out_column columns[] = {
        {"status", OUT_TEXT},   {"cluster", OUT_TEXT},         {"incarnation", OUT_NUMBER}, {"leader", OUT_TEXT},
        {"term", OUT_NUMBER},   {"commit", OUT_NUMBER},        {"last", OUT_NUMBER},        {"voters", OUT_NUMBER},
        {"survives", OUT_TEXT}, {"configuration", OUT_NUMBER},
    };
    uint32_t voters = raft_view_voters(v, false);
    char text[80], node[17];
    struct out *o = out_record(columns, array_size(columns));
    snprintf(text, sizeof(text), "%s", !v->leader ? "NO LEADER" : f->n ? "DEGRADED" : "OK");
    out_text(o, text);
    out_colour(o, !v->leader ? OUT_BAD : f->n ? OUT_WARN : OUT_GOOD);
    out_text(o, *v->cluster ? v->cluster : NULL);
    if (v->incarnation)
        out_number(o, v->incarnation);
    else
        out_text(o, NULL);
    out_text(o, v->leader ? raft_node_text(v->leader, node) : NULL);
    out_number(o, v->term);
    out_number(o, v->commit);
    out_number(o, v->last);
    out_number(o, voters);
    snprintf(text, sizeof(text), "the loss of %u voter%s", voters ? (voters - 1) / 2 : 0,
             voters == 3 || voters == 4 ? "" : "s");
    out_text(o, text);
    out_number(o, v->conf_index);
    return o;
}

int cmd_raft_status(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {{"what", OUT_TEXT}, {"try", OUT_TEXT}};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    struct raft_view *v cleanup(raft_view_closep) = NULL;
    int status = raft_view_open(cli, &v);
    if (status != CLI_OK)
        return status;
    int r = raft_view_look(v, clock_ns() + cli_timeout_ms(cli, LOOK_MS) * NS_PER_MS);
    if (r < 0)
        return raft_view_fail(v, r);
    struct findings f = {.table = out_table(columns, array_size(columns))};
    judge(&f, v);
    struct out *o = status_record(v, &f);
    out_nest(o, "members", raft_members_table(v, true));
    if (cli->form != OUT_TABLE || !v->leader)
        out_nest(o, "masters", masters_table(v));
    if (f.n || cli->form != OUT_TABLE)
        out_nest(o, "warnings", f.table);
    else
        out_free(f.table);
    status = cli_print(cli, o);
    return status != CLI_OK ? status : !v->leader ? CLI_UNREACHABLE : f.n ? CLI_DEGRADED : CLI_OK;
}

/* ---- transfer ---------------------------------------------------------------------------------------------------------------- */

static const struct option change_options[] = {{"dry-run", no_argument, NULL, 'n'}, {0}};

int cmd_raft_transfer(struct cli *cli, int argc, char **argv)
{
    struct raft_change c cleanup(raft_change_end) = {.dry_run = false};
    for (int o; (o = cli_option(cli, argc, argv, "n", change_options)) != -1;) {
        if (o != 'n')
            return cli_option_status();
        c.dry_run = true;
    }
    if (argc - optind > 1)
        return cli_usage(cli, "one node, or none: whoever is best");
    int status = raft_change_begin(&c, cli, CHANGE_MS);
    if (status != CLI_OK)
        return status;
    if (argc == optind) {
        if (raft_view_voters(c.view, true) < 2)
            return cli_fail(cli, -EPERM, "cv raft add HOST:PORT", "there is no other full voter that could lead");
        raft_change_step(&c, STEP_HAND_OVER, c.view->leader);
        return raft_change_run(&c);
    }
    const struct raft_view_member *m;
    uint64_t id;
    int r = raft_view_resolve(c.view, argv[optind], &m, &id);
    if (r < 0)
        return cli_fail(cli, r, "cv raft status lists the members", "'%s'", argv[optind]);
    if (!m->voter || m->journal_only)
        return cli_fail(cli, -EPERM, "cv raft status lists the members", "%s cannot lead: it is %s", argv[optind],
                        m->voter ? "journal-only" : "a learner");
    raft_change_step(&c, STEP_LEAD, m->id);
    return raft_change_run(&c);
}

/* ---- wait-caught-up ---------------------------------------------------------------------------------------------------------- */

int cmd_raft_wait_caught_up(struct cli *cli, int argc, char **argv)
{
    struct raft_change c cleanup(raft_change_end) = {.dry_run = false};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc - optind > RAFT_STEPS_MAX)
        return cli_usage(cli, "at most %d nodes", RAFT_STEPS_MAX);
    int status = raft_change_begin(&c, cli, CATCH_UP_MS);
    if (status != CLI_OK)
        return status;
    for (int i = optind; i < argc; i++) {
        const struct raft_view_member *m;
        uint64_t id;
        int r = raft_view_resolve(c.view, argv[i], &m, &id);
        if (r < 0)
            return cli_fail(cli, r, "cv raft status lists the members", "'%s'", argv[i]);
        raft_change_step(&c, STEP_CATCH_UP, m->id);
    }
    for (uint32_t i = 0; argc == optind && i < c.view->count && c.count < RAFT_STEPS_MAX; i++)
        raft_change_step(&c, STEP_CATCH_UP, c.view->members[i].id);
    return raft_change_run(&c);
}

/* ---- snapshot ---------------------------------------------------------------------------------------------------------------- */

int cmd_raft_snapshot(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {{"master", OUT_TEXT}, {"result", OUT_TEXT}};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    struct raft_change c cleanup(raft_change_end) = {.dry_run = false};
    int status = raft_change_begin(&c, cli, 60000), worst = CLI_OK;
    if (status != CLI_OK)
        return status;
    struct out *o = out_table(columns, array_size(columns));
    struct msg_raft_admin m = {.head = cli_head(), .command = TEXT("snapshot")};
    for (uint32_t i = 0; i < c.view->master_count; i++) {
        if (c.view->masters[i].error < 0 && !c.view->masters[i].named)
            continue;
        struct buf text cleanup(buf_fini) = {0};
        int r = raft_view_ask(c.view, i, &m, c.deadline_ns, &text);
        json_t *said = r == 0 ? json_loads((const char *)text.p, 0, NULL) : NULL;
        char line[200];
        if (said)
            snprintf(line, sizeof(line), "all up to entry %" PRIu64 " is on disk",
                     (uint64_t)json_integer_value(json_object_get(said, "flushed")));
        else
            snprintf(line, sizeof(line), "failed: %s", cv_error_text(r));
        json_decref(said);
        if (r < 0)
            worst = i == c.view->leader_master ? CLI_FAILED : worst == CLI_OK ? CLI_DEGRADED : worst;
        out_text(o, c.view->masters[i].address);
        out_text(o, line);
        out_colour(o, r < 0 ? OUT_BAD : OUT_PLAIN);
    }
    status = cli_print(cli, o);
    return status != CLI_OK ? status : worst;
}
