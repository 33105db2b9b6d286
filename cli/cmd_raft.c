/* SPDX-License-Identifier: Apache-2.0 */
/* cv raft status, transfer, snapshot, wait-caught-up: who votes, and how they are. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/raft_change.h"

#define LOOK_MS     10000
#define SETTLE_MS   1500 /* a new leader has heard from everybody by then */
#define AGAIN_MS    100
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

/* What to type about a member the leader does not hear, by why. */
static void advise_silent(const struct raft_view_member *m, char *out, size_t size)
{
    static const struct {
        const char *error, *action; /* %1$s: the node, %2$s: its address */
    } known[] = {
        {"ENXIO", "it came back without its log, as a new member: cv raft replace %1$s %2$s"},
        {"CV_WRONG_INCARNATION", "one of the two is of a former life of the cluster: cv-journal rejoin and cv-master "
                                 "rejoin there, then cv raft "
                                 "replace %1$s %2$s"},
        {"CV_WRONG_CLUSTER", "%2$s is a journal of another cluster: the right address by cv raft set-addr %1$s "
                             "HOST:PORT, or cv raft replace "
                             "%1$s HOST:PORT"},
        {"CV_UNREACHABLE",
         "the name in %2$s is not known on the leader's host: name service, /etc/hosts, or cv raft set-addr %1$s "
         "HOST:PORT"},
        {"ECONNREFUSED", "start cv-journal there; if it runs, its log says why it does not vote; if it is gone for "
                         "good: cv raft replace "
                         "%1$s HOST:PORT"},
    };
    static const char other[] =
        "is that host up, cv-journal started, its port open to the leader? If it is gone for good: "
        "cv raft replace %1$s HOST:PORT";
    const char *action = other;
    char node[17];
    for (size_t i = 0; i < array_size(known); i++)
        if (strcmp(m->error, known[i].error) == 0)
            action = known[i].action;
    /* cppcheck-suppress wrongPrintfScanfArgNum; the texts take one of the two, or both */
    snprintf(out, size, action, raft_node_text(m->id, node), m->address);
}

static void judge_silent(struct findings *f, const struct raft_view_member *m)
{
    char node[17], action[400], since[60] = "has not answered this leader";
    advise_silent(m, action, sizeof(action));
    if (m->heard_ago_ms >= 0)
        snprintf(since, sizeof(since), "is silent for %" PRId64 " s", m->heard_ago_ms / 1000);
    bool refuses = strcmp(m->error, "ENXIO") == 0 || strncmp(m->error, "CV_WRONG", 8) == 0;
    found(f, action, "%s (%s) %s%s%s%s", raft_node_text(m->id, node), m->address, since, *m->reason ? ": " : "",
          refuses ? "who is there says: " : "", m->reason);
}

static void judge_member(struct findings *f, const struct raft_view *v, const struct raft_view_member *m)
{
    char node[17], action[300];
    raft_node_text(m->id, node);
    snprintf(action, sizeof(action), "wait: cv raft wait-caught-up %s", node);
    if (!m->followed || m->id == v->leader)
        return;
    if (raft_view_silent(v, m)) {
        judge_silent(f, m);
    } else if (m->snapshot_index) {
        found(f, action, "%s fetches a snapshot of the state at entry %" PRIu64, node, m->snapshot_index);
    } else if (!m->caught_up && m->lag) {
        found(f, action, "%s, a %s, is %" PRIu64 " entries behind", node, m->voter ? "voter" : "learner", m->lag);
    } else if (!m->voter && m->caught_up) {
        snprintf(action, sizeof(action), "cv raft promote %s", node);
        found(f, action, "%s is a learner and has caught up", node);
    } else if (m->voter && !m->journal_only && !m->can_lead) {
        found(f, "start cv-master there, or look at its log",
              "%s could not lead: no master that keeps up is attached to it", node);
    }
}

/* Nobody leads: who is missing, if we know. */
static void judge_leaderless(struct findings *f, const struct raft_view *v)
{
    uint32_t voters = raft_view_voters(v, false), there = 0;
    char missing[RAFT_VIEW_MEMBERS * 40] = "";
    for (uint32_t i = 0; i < v->count; i++) {
        const struct raft_view_member *m = &v->members[i];
        size_t n = strlen(missing);
        there += m->voter && m->answered;
        if (m->voter && !m->answered)
            snprintf(missing + n, sizeof(missing) - n, "%s%.38s", n ? ", " : "", m->address);
    }
    if (there > voters / 2)
        found(f, "look again in some seconds; then at the logs of cv-journal and cv-master",
              "nobody leads, though %u of %u voters answer: an election, or none of them has a master that could lead",
              there, voters);
    else if (v->count)
        found(f,
              "start the journals (and the masters they are asked through) that do not answer; if a majority is gone "
              "for good: "
              "docs/operations.md, \"quorum is gone\"",
              "nobody leads: %u of %u voters answer, %u are needed; no word of %s", there, voters, voters / 2 + 1,
              missing);
    else
        found(f, "on that host: systemctl status cv-journal, journalctl -u cv-journal -n 20",
              "nobody leads, and no journal answers: see below why");
}

static void judge(struct findings *f, const struct raft_view *v)
{
    uint32_t voters = raft_view_voters(v, false), full = raft_view_voters(v, true);
    if (!v->leader) {
        judge_leaderless(f, v);
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

/* What a look finds while a leader is new, and what is over in a moment: nobody leads, a member has not answered it yet, or
 * its end is not found out. */
static bool is_settling(const struct raft_view *v)
{
    if (!v->leader)
        return true;
    for (uint32_t i = 0; i < v->count; i++) {
        const struct raft_view_member *m = &v->members[i];
        if (m->followed && m->id != v->leader &&
            (m->heard_ago_ms < 0 || (m->voter && !m->caught_up && !m->snapshot_index) ||
             (m->voter && !m->journal_only && !m->can_lead)))
            return true;
    }
    return false;
}

/* Look until what is seen lasts, for a while. */
static int look(struct raft_view *v, uint64_t deadline_ns)
{
    uint64_t until = min(deadline_ns, clock_ns() + SETTLE_MS * NS_PER_MS);
    for (;;) {
        int r = raft_view_look(v, deadline_ns);
        if (r < 0 || !is_settling(v) || clock_ns() >= until)
            return r;
        usleep(AGAIN_MS * 1000);
    }
}

/* How many voters more may be lost, as things are. */
static void survives(const struct raft_view *v, char *out, size_t size)
{
    uint32_t voters = raft_view_voters(v, false), there = 0;
    for (uint32_t i = 0; i < v->count; i++)
        there += v->members[i].voter && (v->leader ? !raft_view_silent(v, &v->members[i]) : v->members[i].answered);
    uint32_t left = there > voters / 2 ? there - voters / 2 - 1 : 0;
    if (!v->leader || there <= voters / 2)
        snprintf(out, size, "no loss: no majority is there");
    else if (!left)
        snprintf(out, size, "no%s loss", there < voters ? " further" : "");
    else
        snprintf(out, size, "the loss of %u %svoter%s", left, there < voters ? "more " : "", left == 1 ? "" : "s");
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
    survives(v, text, sizeof(text));
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
    int r = look(v, clock_ns() + cli_timeout_ms(cli, LOOK_MS) * NS_PER_MS);
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
        return raft_view_fail_name(c.view, r, argv[optind]);
    if (!m->voter || m->journal_only)
        return cli_fail(cli, -EPERM, "cv raft status lists the members", "%s cannot lead: it is %s", argv[optind],
                        m->voter ? "journal-only" : "a learner");
    if (raft_view_silent(c.view, m)) /* the attempt would cost the service a pause, for nothing */
        return cli_fail(cli, -CV_UNREACHABLE, "see why: cv raft status",
                        "%s cannot lead: the leader does not hear it%s%s", argv[optind], *m->reason ? ": " : "",
                        m->reason);
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
            return raft_view_fail_name(c.view, r, argv[i]);
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
        const struct raft_view_master *master = &c.view->masters[i];
        int r = master->error; /* of the look just now: who does not answer would take all the time there is */
        if (r < 0 && !master->named)
            continue;
        struct buf text cleanup(buf_fini) = {0};
        if (r == 0)
            r = raft_view_ask(c.view, i, &m, c.deadline_ns, &text);
        json_t *said = r == 0 ? json_loads((const char *)text.p, 0, NULL) : NULL;
        char line[200];
        if (said)
            snprintf(line, sizeof(line), "all up to entry %" PRIu64 " is on disk",
                     (uint64_t)json_integer_value(json_object_get(said, "flushed")));
        else
            snprintf(line, sizeof(line), "failed: %s", *master->reason ? master->reason : cv_error_text(r));
        json_decref(said);
        if (r < 0)
            worst = i == c.view->leader_master ? CLI_FAILED : worst == CLI_OK ? CLI_DEGRADED : worst;
        out_text(o, master->address);
        out_text(o, line);
        out_colour(o, r < 0 ? OUT_BAD : OUT_PLAIN);
    }
    status = cli_print(cli, o);
    return status != CLI_OK ? status : worst;
}
