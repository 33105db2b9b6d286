/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv upgrade status, finish: the feature level. New packages are installed member by member, and write what the old ones
 * can read; when all members run them the level is raised, for good. Who is asked are the masters beside all members of the
 * log: those of the configuration, and others by the address the log has of them. A member without a master (journal only)
 * reads no records.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/masters.h"
#include "cli/raft_view.h"
#include "client/client_ask.h"

#define PATIENCE_MS 2000
#define LOOK_MS     10000
#define FINISH_MS   10000

struct upgrade {
    struct cli *cli;
    struct masters masters;
    struct raft_view *view;
    uint32_t level, newest; /* that is committed; the latest any member knows */
    uint32_t behind;        /* members that do not know that, or do not answer */
    char who[300];          /* of these, in words */
};

static void upgrade_end(struct upgrade *u)
{
    masters_fini(&u->masters);
    raft_view_closep(&u->view);
}

/* The master beside a journal, if it answers. */
static const struct master_says *beside(const struct upgrade *u, uint64_t journal)
{
    for (uint32_t i = 0; i < u->masters.count; i++) {
        const struct master_says *m = &u->masters.list[i];
        if (m->error < 0)
            continue;
        rec_for_each (node_info, n, &m->answer.nodes)
            if (n.node == journal && text_equal(n.role, TEXT("journal")))
                return m;
    }
    return NULL;
}

/* Of programs before there were levels nothing is told: they know the first. */
static uint32_t knows(const struct master_says *m)
{
    return max(m->answer.feature_level_max, 1u);
}

static void note_behind(struct upgrade *u, const struct raft_view_member *m, const struct master_says *says)
{
    size_t at = strlen(u->who);
    const char *name = *m->client_address ? m->client_address : m->address;
    u->behind++;
    if (says)
        snprintf(u->who + at, sizeof(u->who) - at, "%s%s knows up to level %u", at ? ", " : "", name, knows(says));
    else
        snprintf(u->who + at, sizeof(u->who) - at, "%s%s does not answer", at ? ", " : "", name);
}

/* Ask everybody. Returns CLI_OK when there is a leader, or reports. */
static int look(struct cli *cli, struct upgrade *u)
{
    *u = (struct upgrade){.cli = cli};
    int status = masters_ask(cli, PATIENCE_MS, &u->masters);
    if (status == CLI_OK)
        status = raft_view_open(cli, &u->view);
    if (status != CLI_OK)
        return status;
    int r = raft_view_look(u->view, clock_ns() + cli_timeout_ms(cli, LOOK_MS) * NS_PER_MS);
    if (r < 0 || !u->masters.leader || !u->view->leader)
        return cli_fail(cli, r < 0 ? r : -CV_UNREACHABLE, "cv cluster status", "find the leader");
    for (uint32_t i = 0; i < u->view->count; i++) {
        const struct raft_view_member *m = &u->view->members[i];
        if (!m->journal_only && *m->client_address && !beside(u, m->id))
            masters_ask_also(cli, &u->masters, m->client_address);
    }
    if (!u->masters.leader)
        return cli_fail(cli, -CV_UNREACHABLE, "cv cluster status", "find the leader");
    u->level = max(u->masters.leader->answer.feature_level, 1u);
    for (uint32_t i = 0; i < u->masters.count; i++)
        if (u->masters.list[i].error == 0)
            u->newest = max(u->newest, knows(&u->masters.list[i]));
    for (uint32_t i = 0; i < u->view->count; i++) {
        const struct raft_view_member *m = &u->view->members[i];
        const struct master_says *says = beside(u, m->id);
        if (!m->journal_only && (!says || knows(says) < u->newest))
            note_behind(u, m, says);
    }
    return CLI_OK;
}

/* ---- status -------------------------------------------------------------------------------------------------------------- */

static struct out *members(const struct upgrade *u)
{
    static const struct out_column columns[] = {
        {"address", OUT_TEXT}, {"node", OUT_TEXT}, {"version", OUT_TEXT}, {"knows", OUT_NUMBER}, {"state", OUT_TEXT}};
    struct out *o = out_table(columns, array_size(columns));
    for (uint32_t i = 0; i < u->view->count; i++) {
        const struct raft_view_member *m = &u->view->members[i];
        const struct master_says *says = beside(u, m->id);
        struct rec_node_info self;
        bool known = says && master_self(says, &self);
        out_text(o, *m->client_address ? m->client_address : m->address);
        out_id(o, m->id);
        if (known)
            out_text_of(o, self.version);
        else
            out_text(o, NULL);
        if (says)
            out_number(o, knows(says));
        else
            out_text(o, NULL);
        const char *state = m->journal_only           ? "journal only: reads no records"
                            : !says                   ? "does not answer"
                            : knows(says) < u->newest ? "behind"
                                                      : "ok";
        out_text(o, state);
        out_colour(o, m->journal_only || (says && knows(says) == u->newest) ? OUT_GOOD : OUT_BAD);
    }
    return o;
}

static int print(const struct upgrade *u, const char *status, const char *action)
{
    static const struct out_column columns[] = {
        {"status", OUT_TEXT}, {"action", OUT_TEXT}, {"feature_level", OUT_NUMBER}, {"newest", OUT_NUMBER}};
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, status);
    out_colour(o, action ? OUT_WARN : OUT_GOOD);
    out_text(o, action);
    out_number(o, u->level);
    out_number(o, u->newest);
    out_nest(o, "members", members(u));
    return cli_print(u->cli, o);
}

static int begin(struct cli *cli, int argc, char **argv, struct upgrade *u, bool *dry_run, bool *ret_stop)
{
    static const struct option options[] = {{"dry-run", no_argument, NULL, 'n'}, {0}};
    *ret_stop = true;
    for (int c; (c = cli_option(cli, argc, argv, dry_run ? "n" : "", dry_run ? options : NULL)) != -1;)
        switch (c) {
        case 'n': *dry_run = true; break;
        default: return cli_option_status();
        }
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    *ret_stop = false;
    return look(cli, u);
}

int cmd_upgrade_status(struct cli *cli, int argc, char **argv)
{
    struct upgrade u cleanup(upgrade_end) = {.cli = cli};
    char action[400];
    bool stop;
    int status = begin(cli, argc, argv, &u, NULL, &stop);
    if (status != CLI_OK || stop)
        return status;
    if (u.level >= u.newest && !u.behind)
        return print(&u, "OK: nothing to finish", NULL);
    if (!u.behind)
        return print(&u, "all members know what is new", "use it, for good: cv upgrade finish");
    snprintf(action, sizeof(action), "install the new version there and restart cv-master: %s", u.who);
    return print(&u, "under way", action);
}

/* ---- finish -------------------------------------------------------------------------------------------------------------- */

static int raise_level(struct upgrade *u)
{
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct buf body cleanup(buf_fini) = {0};
    struct msg_upgrade m = {.head = cli_head(), .level = u->newest};
    struct msg_upgrade_answer answer;
    int status = cli_connect(u->cli, &cv);
    if (status != CLI_OK)
        return status;
    int r = client_ask(cv, MSG_upgrade, msg_upgrade_desc(), &m, cli_timeout_ms(u->cli, FINISH_MS), &body);
    if (r == 0)
        r = msg_upgrade_answer_decode(body.p, body.n, &answer);
    if (r < 0)
        return cli_fail(u->cli, r, r == -EPERM ? "as root, or as the user the masters run as" : NULL,
                        "raise the feature level to %u", u->newest);
    u->level = answer.level;
    return CLI_OK;
}

int cmd_upgrade_finish(struct cli *cli, int argc, char **argv)
{
    struct upgrade u cleanup(upgrade_end) = {.cli = cli};
    bool stop, dry_run = false;
    char done[100];
    int status = begin(cli, argc, argv, &u, &dry_run, &stop);
    if (status != CLI_OK || stop)
        return status;
    if (u.behind && u.level < u.newest) {
        fprintf(
            stderr,
            "cv upgrade: the feature level stays %u, not all members know level %u: %s\n"
            "  try: install the new version there and restart cv-master; a member that is gone: cv raft remove NODE\n",
            u.level, u.newest, u.who);
        return CLI_FAILED;
    }
    if (u.level >= u.newest) {
        snprintf(done, sizeof(done), "feature level %u already, nothing was changed", u.level);
        return print(&u, done, NULL);
    }
    if (dry_run) {
        snprintf(done, sizeof(done), "would raise the feature level from %u to %u; nothing was changed", u.level,
                 u.newest);
        return print(&u, done, NULL);
    }
    uint32_t before = u.level;
    status = raise_level(&u);
    if (status != CLI_OK)
        return status;
    snprintf(done, sizeof(done), "raised the feature level from %u to %u", before, u.level);
    return print(&u, done, NULL);
}
