/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare, force-new-cluster, rejoin, check --repair-tail. The last three throw something away: each says what, and goes
 * on only when a person typed the cluster's id, or gave it with --yes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "conf/json.h"
#include "raft/journal_status.h"
#include "raft/journal_tool_internal.h"

/* ---- the question ---- */

/* 0: go on. Otherwise the exit status; nothing was changed. */
static int confirm(const struct tool *t, struct uuid cluster)
{
    char expected[UUID_STRING], typed[128] = "";
    struct uuid u;
    uuid_format(cluster, expected);
    fflush(stdout);
    if (t->yes) {
        if (uuid_parse(t->yes, &u) == 0 && uuid_equal(u, cluster))
            return 0;
        tool_complain(t, "--yes %s: this is cluster %s. Nothing was changed", t->yes, expected);
        return TOOL_USAGE;
    }
    fprintf(stderr, "Type the id of the cluster to go on (%s): ", expected);
    bool got = fgets(typed, sizeof(typed), stdin) != NULL;
    typed[strcspn(typed, "\r\n")] = '\0';
    if (got && uuid_parse(typed, &u) == 0 && uuid_equal(u, cluster))
        return 0;
    if (!isatty(STDIN_FILENO))
        fputc('\n', stderr);
    tool_complain(t, "not confirmed, nothing was changed. Without a terminal: --yes %s", expected);
    return TOOL_FAILED;
}

static int open_store(const struct tool *t, const char *dir, bool read_only, bool no_check, struct journal_store **ret)
{
    struct buf why cleanup(buf_fini) = {0};
    struct journal_store_options options = {.read_only = read_only, .no_check = no_check};
    int r = journal_store_open(dir, &options, &why, ret);
    if (r == 0)
        return TOOL_OK;
    struct tool named = *t;
    named.dir = dir;
    return tool_failed(&named, r, &why);
}

/* ---- compare ---- */

enum { COPIES_MAX = RAFT_MEMBERS_MAX };

static void print_copy(const char *dir, const struct journal_copy *c, bool best)
{
    const struct journal_state *s = journal_store_state(c->store);
    char node[17], same[32] = "-";
    if (c->compared)
        snprintf(same, sizeof(same), "%" PRIu64, c->same_to);
    printf("%c %-16s %5u %8" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10s  %s%s\n", best ? '*' : ' ',
           journal_node_text(s->node, node), s->incarnation, s->last_term, s->first, s->last, s->commit, same, dir,
           c->diverged ? "  DIVERGED" : "");
}

static void print_copy_json(const char *dir, const struct journal_copy *c, bool best, bool first)
{
    const struct journal_state *s = journal_store_state(c->store);
    char node[17];
    struct buf name cleanup(buf_fini) = {0};
    (void)json_write_text(&name, dir);
    printf("%s{\"dir\":%.*s,\"node\":\"%s\",\"incarnation\":%u,\"last_term\":%" PRIu64 ",\"first\":%" PRIu64
           ",\"last\":%" PRIu64 ",\"commit\":%" PRIu64 ",\"best\":%s,\"same_to\":",
           first ? "" : ",", (int)name.n, (const char *)name.p, journal_node_text(s->node, node), s->incarnation,
           s->last_term, s->first, s->last, s->commit, best ? "true" : "false");
    if (c->compared)
        printf("%" PRIu64, c->same_to);
    else
        printf("null");
    printf(",\"diverged\":%s}", c->diverged ? "true" : "false");
}

static void say_best(const struct tool *t, const struct journal_copy *copies, uint32_t best, bool diverged)
{
    const struct journal_state *s = journal_store_state(copies[best].store);
    char node[17];
    printf("* node %s is the furthest. If a majority of the voters is among these, do nothing: start them, they elect\n"
           "  it. If quorum is gone for good: cv-journal force-new-cluster -d %s --keep %s\n",
           journal_node_text(s->node, node), t->arguments[best], node);
    if (diverged)
        printf("DIVERGED: these logs differ in entries that both call committed. One of them was restored, damaged or\n"
               "forced; do not let both vote: keep one, rejoin the other (cv-journal rejoin)\n");
}

static int compare_open(struct tool *t, struct journal_copy *copies, uint32_t n)
{
    uint32_t best;
    for (uint32_t i = 1; i < n; i++)
        if (!uuid_equal(journal_store_state(copies[i].store)->cluster, journal_store_state(copies[0].store)->cluster)) {
            tool_complain(t, "%s and %s belong to different clusters", t->arguments[0], t->arguments[i]);
            return TOOL_FAILED;
        }
    int r = journal_compare(copies, n, &best);
    if (r < 0)
        return tool_failed(t, r, NULL);
    bool diverged = false;
    if (t->json)
        printf("[");
    else
        printf("  %-16s %5s %8s %10s %10s %10s %10s  %s\n", "node", "inc", "lastterm", "first", "last", "commit",
               "same to", "directory");
    for (uint32_t i = 0; i < n; i++) {
        diverged |= copies[i].diverged;
        if (t->json)
            print_copy_json(t->arguments[i], &copies[i], i == best, i == 0);
        else
            print_copy(t->arguments[i], &copies[i], i == best);
    }
    if (t->json)
        printf("]\n");
    else
        say_best(t, copies, best, diverged);
    return diverged ? TOOL_FAILED : TOOL_OK;
}

int tool_compare(struct tool *t)
{
    struct journal_store *stores[COPIES_MAX] = {NULL};
    struct journal_copy copies[COPIES_MAX];
    int status = TOOL_OK;
    if (t->argument_count < 2 || t->argument_count > COPIES_MAX) {
        tool_complain(t, "name two or more directories of stopped journals (copies of them from other hosts will do)");
        return TOOL_USAGE;
    }
    uint32_t n = (uint32_t)t->argument_count;
    for (uint32_t i = 0; i < n && status == TOOL_OK; i++) {
        status = open_store(t, t->arguments[i], true, true, &stores[i]);
        copies[i] = (struct journal_copy){.store = stores[i]};
    }
    if (status == TOOL_OK)
        status = compare_open(t, copies, n);
    for (uint32_t i = 0; i < n; i++)
        journal_store_free(stores[i]);
    return status;
}

/* ---- force-new-cluster ---- */

static int newest_conf(const struct journal_store *s, struct raft_conf *ret, uint64_t *ret_index)
{
    const struct journal_state *t = journal_store_state(s);
    struct buf bytes cleanup(buf_fini) = {0};
    if (t->conf_count == 0)
        return -ENOENT;
    *ret_index = t->confs[t->conf_count - 1];
    int r = journal_store_conf(s, *ret_index, &bytes);
    return r < 0 ? r : raft_conf_decode(bytes.p, bytes.n, ret);
}

static void say_force(const struct tool *t, const struct journal_store *s)
{
    const struct journal_state *st = journal_store_state(s);
    char node[17], cluster[UUID_STRING];
    struct raft_conf conf;
    uint64_t at;
    fprintf(stderr, "%s: node %s of cluster %s, incarnation %u\n", t->dir, journal_node_text(st->node, node),
            uuid_format(st->cluster, cluster), st->incarnation);
    fprintf(stderr, "  log            entries %" PRIu64 " to %" PRIu64 ", last of term %" PRIu64 "\n", st->first,
            st->last, st->last_term);
    fprintf(stderr, "  known commit   at least %" PRIu64 "\n", st->commit);
    if (newest_conf(s, &conf, &at) == 0) {
        fprintf(stderr, "  configuration  at %" PRIu64 ":\n", at);
        for (uint32_t i = 0; i < conf.count; i++) {
            const struct raft_member *m = &conf.members[i];
            fprintf(stderr, "                 %s %s%s %s%s\n", journal_node_text(m->id, node),
                    m->role == RAFT_VOTER ? "voter" : "learner", m->journal_only ? ", journal-only" : "",
                    m->raft_address, m->id == st->node ? "  (this one)" : "");
        }
    }
    fprintf(
        stderr,
        "What this does, for ever:\n"
        "  - this node becomes the only voter: incarnation %u, term %" PRIu64 "\n"
        "  - entries up to %" PRIu64 " count as committed, also those behind %" PRIu64
        " that perhaps were not: operations that\n"
        "    nobody was told are done may turn out to be done\n"
        "  - LOST is what the others committed behind entry %" PRIu64
        ", if anything; nobody here can tell. If a disk of\n"
        "    theirs is left, hold its log against this one first: cv-journal compare %s OTHER_DIR\n"
        "  - the others' logs are refused from now on: on each, when it is back, cv-journal rejoin --incarnation %u\n"
        "  - sessions of clients end; ids go on far above everything that can have been given out\n",
        st->incarnation + 1, st->term + JOURNAL_FORCE_TERMS, st->last, st->commit, st->last, t->dir,
        st->incarnation + 1);
}

/* Everything that speaks against it. 0: nothing. */
static int refuse_force(const struct tool *t, const struct journal_store *s, struct raft_conf *ret)
{
    const struct journal_state *st = journal_store_state(s);
    char node[17];
    journal_node_text(st->node, node);
    if (!t->keep) {
        tool_complain(t, "--keep NODE says whose log goes on; the one in %s is %s", t->dir, node);
        return TOOL_USAGE;
    }
    if (strcmp(t->keep, node) != 0) {
        tool_complain(t, "--keep %s: the log in %s is node %s's. Nothing was changed", t->keep, t->dir, node);
        return TOOL_USAGE;
    }
    int r = journal_alone_conf(s, ret);
    if (r == -ENOENT)
        tool_complain(t, "node %s belongs to no configuration: it was never added, or it was removed", node);
    else if (r == -EINVAL)
        tool_complain(t,
                      "node %s is journal-only: there is no metadata beside its log to go on with. Keep a full member, "
                      "or restore a backup (cv restore)",
                      node);
    else if (r < 0)
        return tool_failed(t, r, NULL);
    return r < 0 ? TOOL_FAILED : TOOL_OK;
}

static void say_forced(const struct tool *t, const struct journal_state *s, bool changed)
{
    char node[17], cluster[UUID_STRING];
    if (t->json)
        printf("{\"changed\":%s,\"cluster\":\"%s\",\"node\":\"%s\",\"incarnation\":%u,\"term\":%" PRIu64
               ",\"last\":%" PRIu64 "}\n",
               changed ? "true" : "false", uuid_format(s->cluster, cluster), journal_node_text(s->node, node),
               s->incarnation, s->term, s->last);
    else
        printf("node %s is the only voter of cluster %s, incarnation %u%s\n"
               "next: start cv-journal and cv-master here; then, on each other node:\n"
               "  cv-journal rejoin --incarnation %u && cv-master rejoin\n"
               "start both there, and: cv raft add HOST:PORT\n",
               journal_node_text(s->node, node), uuid_format(s->cluster, cluster), s->incarnation,
               changed ? "" : " already: nothing was changed", s->incarnation);
}

int tool_force_new_cluster(struct tool *t)
{
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct raft_conf conf, now;
    uint64_t at;
    int status = open_store(t, t->dir, false, false, &s);
    if (status == TOOL_OK)
        status = refuse_force(t, s, &conf);
    if (status != TOOL_OK)
        return status;
    const struct journal_state *st = journal_store_state(s);
    if (newest_conf(s, &now, &at) == 0 && now.count == 1) {
        say_forced(t, st, false);
        return TOOL_OK;
    }
    say_force(t, s);
    status = confirm(t, st->cluster);
    if (status != TOOL_OK)
        return status;
    int r = journal_force(s, &conf);
    if (r < 0)
        return tool_failed(t, r, NULL);
    say_forced(t, st, true);
    return TOOL_OK;
}

/* ---- rejoin ---- */

static void say_waits(const struct tool *t, uint64_t node, struct uuid cluster)
{
    char text[17], id[UUID_STRING];
    journal_node_text(node, text);
    uuid_format(cluster, id);
    if (t->json)
        printf("{\"cluster\":\"%s\",\"node\":\"%s\",\"old\":\"\",\"changed\":false}\n", id, text);
    else
        printf("%s: node %s of cluster %s, waiting to be added already: nothing was changed\n"
               "next: throw the namespace beside it away too (cv-master rejoin --yes %s), start both,\n"
               "and: cv raft add HOST:PORT, or cv raft replace OLD HOST:PORT (cv raft status names OLD)\n",
               t->dir, text, id, id);
}

/* What is known of the log that goes: not much, if it is damaged. *ret_waits: the node that waits already, nothing goes; or 0. */
static int say_rejoin(const struct tool *t, struct uuid *cluster, uint64_t *ret_waits)
{
    struct buf why cleanup(buf_fini) = {0};
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct journal_store_options options = {.read_only = true, .no_check = true};
    int r = journal_store_open(t->dir, &options, &why, &s);
    if (r == -CV_LOCKED || (r == -CV_NOT_FORMATTED && uuid_is_none(*cluster)))
        return tool_failed(t, r, &why);
    char node[17];
    if (r < 0) {
        fprintf(stderr, "%s: the log cannot be read: %.*s\n", t->dir, (int)why.n, (const char *)why.p);
    } else {
        const struct journal_state *st = journal_store_state(s);
        if (uuid_is_none(*cluster))
            *cluster = st->cluster;
        *ret_waits = tool_waits(t, st, *cluster) ? st->node : 0;
        if (*ret_waits)
            return TOOL_OK;
        fprintf(stderr,
                "%s: node %s, incarnation %u: entries %" PRIu64 " to %" PRIu64 ", last of term %" PRIu64
                ", known commit at least %" PRIu64 "\n",
                t->dir, journal_node_text(st->node, node), st->incarnation, st->first, st->last, st->last_term,
                st->commit);
    }
    if (uuid_is_none(*cluster)) {
        tool_complain(t, "the old log does not say which cluster it belongs to: say --cluster UUID");
        return TOOL_FAILED;
    }
    fprintf(stderr,
            "This log is thrown away, with every promise it made. If no other voter has its entries, they are LOST:\n"
            "only do it while a majority of the others runs (cv raft status says so)\n");
    return TOOL_OK;
}

int tool_rejoin(struct tool *t)
{
    struct uuid cluster = {{0}};
    struct buf why cleanup(buf_fini) = {0};
    char text[17], id[UUID_STRING];
    uint64_t old, node;
    if (t->cluster && uuid_parse(t->cluster, &cluster) < 0) {
        tool_complain(t, "'%s' is not a UUID", t->cluster);
        return TOOL_USAGE;
    }
    uint64_t waits = 0;
    int status = say_rejoin(t, &cluster, &waits);
    if (status == TOOL_OK && waits)
        say_waits(t, waits, cluster);
    if (status == TOOL_OK && !waits)
        status = confirm(t, cluster);
    if (status != TOOL_OK || waits)
        return status;
    int r = journal_rejoin(t->dir, cluster, (uint32_t)t->incarnation, &why, &cluster, &old, &node);
    if (r < 0)
        return tool_failed(t, r, &why);
    journal_node_text(node, text);
    uuid_format(cluster, id);
    if (t->json) {
        char old_text[17];
        printf("{\"cluster\":\"%s\",\"node\":\"%s\",\"old\":\"%s\",\"changed\":true}\n", id, text,
               old ? journal_node_text(old, old_text) : "");
        return TOOL_OK;
    }
    printf("%s: node %s of cluster %s, waiting to be added\n", t->dir, text, id);
    printf("next: throw the namespace beside it away too (cv-master rejoin --yes %s), start both,\n", id);
    if (old)
        printf("and: cv raft replace %s HOST:PORT\n", journal_node_text(old, text));
    else
        printf("and: cv raft replace OLD HOST:PORT (cv raft status names OLD)\n");
    return TOOL_OK;
}

/* ---- check --repair-tail ---- */

static int report_tail(const struct tool *t, int r, const struct buf *why, const struct journal_check *check)
{
    if (r == -ENODATA) {
        printf("sound: nothing to repair\n");
        return TOOL_OK;
    }
    if (r == -EPERM)
        tool_complain(t, "%s: %.*s: not repaired. Throw it away and rejoin (cv-journal rejoin), then cv raft replace",
                      t->dir, (int)why->n, (const char *)why->p);
    else
        return tool_failed(t, r, why);
    return TOOL_FAILED;
}

int tool_repair_tail(struct tool *t)
{
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct buf why cleanup(buf_fini) = {0};
    struct tool_problems problems = {.tool = t};
    struct journal_check check = {.problem = tool_problem, .arg = &problems};
    uint64_t from;
    int status = open_store(t, t->dir, false, true, &s);
    if (status != TOOL_OK)
        return status;
    const struct journal_state *st = journal_store_state(s);
    printf("%s\n", t->dir);
    int r = journal_tail_check(s, &check, &why, &from);
    buf_fini(&problems.json);
    if (r < 0)
        return report_tail(t, r, &why, &check);
    fprintf(stderr,
            "Entries %" PRIu64 " to %" PRIu64 " would be cut off. They lie behind what is known committed (%" PRIu64
            ") and behind durable.mark (%" PRIu64 "),\n"
            "which is up to a second late: LOST may be what was acknowledged in the last second before the damage.\n"
            "With a majority of other voters alive do not repair, rejoin: cv-journal rejoin\n",
            from, st->last, st->commit, journal_store_mark(s)->index);
    status = confirm(t, st->cluster);
    if (status != TOOL_OK)
        return status;
    r = journal_tail_cut(s, from);
    if (r < 0)
        return tool_failed(t, r, NULL);
    printf("cut: the log ends at entry %" PRIu64 " now\n", st->last);
    return TOOL_OK;
}
