/* SPDX-License-Identifier: Apache-2.0 */
/* cv raft add, promote, demote, remove, replace, set-addr: who votes from now on. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/raft_change.h"
#include "rpc/rpc_client.h"

#define CHANGE_MS   30000
#define CATCH_UP_MS 600000
#define STARTING_MS 3000

enum { OPT_JOURNAL_ONLY = 1, OPT_LEARNER, OPT_CLIENTS, OPT_NODE, OPT_FORCE };

/* What these commands have in common on their command lines. */
struct wanted {
    struct raft_change change;
    bool journal_only, learner, force;
    const char *clients, *node;
    char on_timeout[200];
};

static void wanted_end(struct wanted *w)
{
    raft_change_end(&w->change);
}

/* Read options; then count arguments must be left, or which is what is asked. *ret_stop: exit with what is returned. */
static int read_options(struct cli *cli, struct wanted *w, int argc, char **argv, int count, const char *which,
                        bool *ret_stop)
{
    static const struct option options[] = {
        {"dry-run", no_argument, NULL, 'n'},
        {"journal-only", no_argument, NULL, OPT_JOURNAL_ONLY},
        {"learner", no_argument, NULL, OPT_LEARNER},
        {"clients", required_argument, NULL, OPT_CLIENTS},
        {"node", required_argument, NULL, OPT_NODE},
        {"force", no_argument, NULL, OPT_FORCE},
        {0},
    };
    *ret_stop = true;
    for (int o; (o = cli_option(cli, argc, argv, "n", options)) != -1;)
        switch (o) {
        case 'n': w->change.dry_run = true; break;
        case OPT_JOURNAL_ONLY: w->journal_only = true; break;
        case OPT_LEARNER: w->learner = true; break;
        case OPT_CLIENTS: w->clients = optarg; break;
        case OPT_NODE: w->node = optarg; break;
        case OPT_FORCE: w->force = true; break;
        default: return cli_option_status();
        }
    if (argc - optind != count)
        return cli_usage(cli, "%s", argc - optind > count ? "that is too much: see below" : which);
    *ret_stop = false;
    return CLI_OK;
}

/* ---- addresses ------------------------------------------------------------------------------------------------------------------ */

static int check_address(struct cli *cli, const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    unsigned long port = digits && digits <= 5 && !colon[1 + digits] ? strtoul(colon + 1, NULL, 10) : 0;
    if (!port || port > 65535 || colon == address || strlen(address) >= RAFT_VIEW_ADDRESS)
        return cli_usage(cli, "'%s': expected host:port of a cv-journal, e.g. node4:8996", address);
    return CLI_OK;
}

/* Where the master beside that journal serves clients. */
static void clients_of(const struct wanted *w, const char *address, char *out, size_t size)
{
    if (w->journal_only)
        snprintf(out, size, "%s", "");
    else if (w->clients)
        snprintf(out, size, "%s", w->clients);
    else
        snprintf(out, size, "%.*s:%d", (int)(strrchr(address, ':') - address), address, MASTER_PORT);
}

/* ---- who is at an address: the leader's journal asks there ------------------------------------------------------------------------ */

static int identify(struct wanted *w, const char *address, uint64_t *ret)
{
    struct raft_change *c = &w->change;
    struct cli *cli = c->cli;
    if (w->node) {
        *ret = strtoull(w->node, NULL, 16);
        return strlen(w->node) == 16 && *ret ? CLI_OK : cli_usage(cli, "--node %s: expected 16 hex digits", w->node);
    }
    struct buf text cleanup(buf_fini) = {0};
    struct msg_raft_admin m = {.head = cli_head(), .command = TEXT("identify"), .address = text_of(address)};
    uint64_t until = min(c->deadline_ns, clock_ns() + STARTING_MS * NS_PER_MS);
    int r;
    while ((r = raft_view_ask(c->view, c->view->leader_master, &m, clock_ns() + 10 * NS_PER_S, &text)) < 0 &&
           (r == -ECONNREFUSED || r == -CV_CLOSED) && clock_ns() < until) {
        buf_fini(&text);
        text = (struct buf){0};
        usleep(100000); /* it may be starting */
    }
    if (r < 0) {
        const char *words = text.n > 1 ? (const char *)text.p : "";
        bool more = *words && strcmp(words, cv_error_text(r)) != 0;
        (void)cli_fail(cli, r,
                       "on that host: cv-journal join --cluster UUID (cv raft status shows it), systemctl start "
                       "cv-journal; is the port open to the leader?",
                       "nobody to add at %s%s%s", address, more ? ": " : "", more ? words : "");
        return CLI_FAILED; /* the cluster does answer */
    }
    json_t *said = json_loads((const char *)text.p, 0, NULL);
    const char *node = json_string_value(json_object_get(said, "node"));
    *ret = node ? strtoull(node, NULL, 16) : 0;
    json_decref(said);
    return *ret ? CLI_OK : cli_fail(cli, -CV_BAD_MESSAGE, NULL, "ask who is at %s", address);
}

/* The steps that make whoever is at address a member, and a voter. */
static int plan_add(struct wanted *w, const char *address)
{
    struct raft_change *c = &w->change;
    uint64_t node;
    char text[17], old[17];
    int status = check_address(c->cli, address);
    if (status == CLI_OK)
        status = identify(w, address, &node);
    if (status != CLI_OK)
        return status;
    raft_node_text(node, text);
    for (uint32_t i = 0; i < c->view->count; i++) {
        const struct raft_view_member *m = &c->view->members[i];
        if (m->id == node && m->journal_only != w->journal_only)
            return cli_fail(c->cli, -EEXIST, "remove it first, or say it the other way", "%s is a member already, %s",
                            text, m->journal_only ? "journal-only" : "with a namespace");
    }
    struct raft_step *s = raft_change_step(c, STEP_ADD, node);
    snprintf(s->address, sizeof(s->address), "%s", address);
    clients_of(w, address, s->client_address, sizeof(s->client_address));
    s->flags = w->journal_only ? LINK_ADMIN_JOURNAL_ONLY : 0;
    raft_change_step(c, STEP_CATCH_UP, node);
    if (!w->learner)
        raft_change_step(c, STEP_PROMOTE, node);
    snprintf(w->on_timeout, sizeof(w->on_timeout),
             "it stays a learner and goes on; later: cv raft promote %s; or take it back: cv raft remove %s", text,
             raft_node_text(node, old));
    c->on_timeout = w->on_timeout;
    return CLI_OK;
}

/* The steps that take a member's vote, or all of it, away. What the leader's journal would refuse is refused before
 * anything is done, the lead handed over for one. */
static int plan_remove(struct wanted *w, uint64_t node, enum raft_step_kind kind)
{
    struct raft_change *c = &w->change;
    const struct raft_view_member *m = raft_view_find(c->view, node);
    uint32_t full = raft_view_voters(c->view, true);
    const struct raft_view_member *other = c->count ? raft_view_find(c->view, c->steps[0].node) : NULL;
    uint32_t added = c->count && !w->journal_only && !w->learner && !(other && other->voter); /* in its place */
    if (m && m->voter && !m->journal_only && full + added == 1)
        return cli_fail(c->cli, -EPERM, "cv raft add HOST:PORT first",
                        "%s is the last full voter: the cluster would have nobody with a namespace", m->address);
    if (m && m->voter && !m->journal_only && full + added == 2 && !w->force)
        return cli_fail(c->cli, -EPERM, "cv raft add HOST:PORT first, or say --force",
                        "%s is one of two full voters: the loss of the other would be the loss of everything",
                        m->address);
    if (c->view->leader == node && m && full > 1)
        raft_change_step(c, STEP_HAND_OVER, node); /* first, so that nobody waits for an election */
    raft_change_step(c, kind, node)->flags = w->force ? LINK_ADMIN_FORCE : 0;
    return CLI_OK;
}

/* The member an argument names. CLI_OK with *ret 0: it is no member, which is what some want. */
static int name_member(struct wanted *w, const char *name, bool gone_is_fine, uint64_t *ret)
{
    const struct raft_view_member *m;
    int r = raft_view_resolve(w->change.view, name, &m, ret);
    if (r == 0 || (r == -ENOENT && gone_is_fine && (*ret || strchr(name, ':'))))
        return CLI_OK;
    return raft_view_fail_name(w->change.view, r, name);
}

/* A leader's address is what clients are told: said while it is easily mended, not when it leads one day. */
static int run_and_check(struct wanted *w, const struct raft_step *s)
{
    struct raft_change *c = &w->change;
    char node[17];
    uint64_t there = 0;
    int status = raft_change_run(c);
    if (status != CLI_OK || c->dry_run || !*s->client_address)
        return status;
    int r = raft_view_who_serves(c->view, s->client_address, clock_ns() + STARTING_MS * NS_PER_MS, &there);
    if (r == 0 && there == s->node)
        return status;
    raft_node_text(s->node, node);
    fprintf(stderr,
            "cv %s: clients will look for the master beside %s at %s, and %s\n"
            "  try: start cv-master there; if it serves elsewhere: cv raft set-addr %s %s --clients HOST:PORT\n",
            c->cli->command->name, node, s->client_address, r == 0 ? "another one is there" : "none answers there now",
            node, s->address);
    return status;
}

/* ---- the commands -------------------------------------------------------------------------------------------------------------- */

int cmd_raft_add(struct cli *cli, int argc, char **argv)
{
    struct wanted w cleanup(wanted_end) = {.force = false};
    bool stop;
    int status = read_options(cli, &w, argc, argv, 1, "the address of which journal?", &stop);
    if (stop)
        return status;
    const char *address = argv[optind];
    status = check_address(cli, address);
    if (status == CLI_OK)
        status = raft_change_begin(&w.change, cli, CATCH_UP_MS);
    if (status == CLI_OK)
        status = plan_add(&w, address);
    if (status != CLI_OK)
        return status;
    /* Another id at a member's address: the machine came back empty. Two members at one address help nobody. */
    for (uint32_t i = 0; i < w.change.view->count; i++) {
        const struct raft_view_member *m = &w.change.view->members[i];
        char old[17], now[17], hint[100];
        if (strcmp(m->address, address) != 0 || m->id == w.change.steps[0].node)
            continue;
        snprintf(hint, sizeof(hint), "cv raft replace %s %s", raft_node_text(m->id, old), address);
        return cli_fail(cli, -EEXIST, hint, "%s is member %s's address, and node %s is there now", address, old,
                        raft_node_text(w.change.steps[0].node, now));
    }
    return run_and_check(&w, &w.change.steps[0]);
}

int cmd_raft_replace(struct cli *cli, int argc, char **argv)
{
    struct wanted w cleanup(wanted_end) = {.force = false};
    bool stop;
    int status =
        read_options(cli, &w, argc, argv, 2, "which member, and the address of the journal in its place?", &stop);
    if (stop)
        return status;
    char **names = argv + optind;
    uint64_t old = 0;
    status = check_address(cli, names[1]);
    if (status == CLI_OK)
        status = raft_change_begin(&w.change, cli, CATCH_UP_MS);
    if (status == CLI_OK)
        status = name_member(&w, names[0], true, &old);
    const struct raft_view_member *m = status == CLI_OK ? raft_view_find(w.change.view, old) : NULL;
    if (m && m->journal_only)
        w.journal_only = true; /* its vote is passed on as it was */
    if (status == CLI_OK)
        status = plan_add(&w, names[1]);
    if (status != CLI_OK)
        return status;
    if (old == w.change.steps[0].node)
        return cli_fail(cli, -EINVAL, "a machine that came back empty has a new id: cv-journal rejoin there",
                        "%s is the member itself, as it was", names[1]);
    if (old)
        status = plan_remove(&w, old, STEP_REMOVE);
    return status == CLI_OK ? run_and_check(&w, &w.change.steps[0]) : status;
}

/* One member, one step. */
static int change_one(struct cli *cli, int argc, char **argv, enum raft_step_kind kind)
{
    struct wanted w cleanup(wanted_end) = {.force = false};
    bool stop;
    uint64_t node = 0;
    int status = read_options(cli, &w, argc, argv, 1, "which member?", &stop);
    if (stop)
        return status;
    status = raft_change_begin(&w.change, cli, kind == STEP_PROMOTE ? CATCH_UP_MS : CHANGE_MS);
    if (status == CLI_OK)
        status = name_member(&w, argv[optind], kind == STEP_REMOVE, &node);
    if (status != CLI_OK)
        return status;
    if (kind == STEP_PROMOTE) {
        const struct raft_view_member *m = raft_view_find(w.change.view, node);
        if (m && !m->voter)
            raft_change_step(&w.change, STEP_CATCH_UP, node);
        raft_change_step(&w.change, STEP_PROMOTE, node);
    } else {
        status = plan_remove(&w, node, kind);
    }
    return status == CLI_OK ? raft_change_run(&w.change) : status;
}

int cmd_raft_promote(struct cli *cli, int argc, char **argv)
{
    return change_one(cli, argc, argv, STEP_PROMOTE);
}

int cmd_raft_demote(struct cli *cli, int argc, char **argv)
{
    return change_one(cli, argc, argv, STEP_DEMOTE);
}

int cmd_raft_remove(struct cli *cli, int argc, char **argv)
{
    return change_one(cli, argc, argv, STEP_REMOVE);
}

int cmd_raft_set_addr(struct cli *cli, int argc, char **argv)
{
    struct wanted w cleanup(wanted_end) = {.force = false};
    bool stop;
    uint64_t node = 0;
    int status = read_options(cli, &w, argc, argv, 2, "which member, and its address?", &stop);
    if (stop)
        return status;
    char **names = argv + optind;
    status = check_address(cli, names[1]);
    if (status == CLI_OK)
        status = raft_change_begin(&w.change, cli, CHANGE_MS);
    if (status == CLI_OK)
        status = name_member(&w, names[0], false, &node);
    if (status != CLI_OK)
        return status;
    struct raft_step *s = raft_change_step(&w.change, STEP_SET_ADDRESS, node);
    snprintf(s->address, sizeof(s->address), "%s", names[1]);
    if (w.clients)
        snprintf(s->client_address, sizeof(s->client_address), "%s", w.clients);
    return run_and_check(&w, s);
}
