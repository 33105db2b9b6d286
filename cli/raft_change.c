/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/raft_change.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"

#define PAUSE_MIN_MS   20
#define PAUSE_MAX_MS   300
#define NO_MAJORITY_MS 5000 /* a majority that does not answer for so long will not come by waiting */
#define SAY_MS         1000
#define NOW_MS         500 /* who was not heard for longer may be gone, whatever it had */

struct raft_step *raft_change_step(struct raft_change *c, enum raft_step_kind kind, uint64_t node)
{
    struct raft_step *s = &c->steps[c->count++];
    *s = (struct raft_step){.kind = kind, .node = node};
    return s;
}

/* ---- where things stand ------------------------------------------------------------------------------------------------- */

/* Who died a moment ago still has every entry, for all the leader knows: only a word from after the question counts. */
static bool is_heard(const struct raft_view *v, const struct raft_step *s, const struct raft_view_member *m)
{
    uint64_t since_ms = s->begun_ns ? (v->looked_ns - min(s->begun_ns, v->looked_ns)) / NS_PER_MS : NOW_MS;
    return m->id == v->leader || (m->heard_ago_ms >= 0 && (uint64_t)m->heard_ago_ms < since_ms);
}

static bool is_done(const struct raft_view *v, const struct raft_step *s)
{
    const struct raft_view_member *m = raft_view_find(v, s->node);
    switch (s->kind) {
    case STEP_ADD: return m != NULL;
    case STEP_CATCH_UP: return m && m->followed && m->caught_up && is_heard(v, s, m);
    case STEP_PROMOTE: return m && m->voter;
    case STEP_DEMOTE: return m && !m->voter;
    case STEP_REMOVE: return !m;
    case STEP_SET_ADDRESS:
        return m && strcmp(m->address, s->address) == 0 &&
               (!*s->client_address || strcmp(m->client_address, s->client_address) == 0);
    case STEP_HAND_OVER: return v->leader != s->node;
    case STEP_LEAD: return v->leader == s->node;
    }
    return false;
}

static const char *const commands[] = {"add", NULL, "promote", "demote", "remove", "set-addr", "transfer", "transfer"};

static void describe(const struct raft_step *s, char *out, size_t size)
{
    char node[17];
    raft_node_text(s->node, node);
    switch (s->kind) {
    case STEP_ADD:
        snprintf(out, size, "add %s at %s as a learner%s", node, s->address,
                 s->flags & LINK_ADMIN_JOURNAL_ONLY ? " (journal-only)" : "");
        break;
    case STEP_CATCH_UP: snprintf(out, size, "wait until %s has caught up", node); break;
    case STEP_PROMOTE: snprintf(out, size, "make %s a voter", node); break;
    case STEP_DEMOTE: snprintf(out, size, "make %s a learner", node); break;
    case STEP_REMOVE: snprintf(out, size, "remove %s", node); break;
    case STEP_SET_ADDRESS: snprintf(out, size, "note that %s is at %s", node, s->address); break;
    case STEP_HAND_OVER: snprintf(out, size, "have another one lead instead of %s", node); break;
    case STEP_LEAD: snprintf(out, size, "have %s lead", node); break;
    }
}

/* ---- one step ------------------------------------------------------------------------------------------------------------- */

struct attempt {
    uint32_t pause_ms;
    uint64_t no_majority_ns; /* since when no majority answers; 0: it does */
    uint64_t said_ns;
    char last[400]; /* why it is not done yet */
};

static void wait_a_little(struct attempt *a)
{
    usleep(a->pause_ms * 1000);
    a->pause_ms = min(a->pause_ms * 2, (uint32_t)PAUSE_MAX_MS);
}

/* How far a learner is, about once a second. */
static void say_progress(struct raft_change *c, const struct raft_step *s, struct attempt *a)
{
    const struct raft_view_member *m = raft_view_find(c->view, s->node);
    char node[17];
    uint64_t now = clock_ns();
    if (!m)
        return;
    if (m->heard_ago_ms < 0 || m->heard_ago_ms > NOW_MS)
        snprintf(a->last, sizeof(a->last), "the leader does not hear from it%s%s", *m->reason ? ": " : "", m->reason);
    else if (m->snapshot_index)
        snprintf(a->last, sizeof(a->last), "it fetches a snapshot of the state at entry %" PRIu64, m->snapshot_index);
    else
        snprintf(a->last, sizeof(a->last), "it has %" PRIu64 " of %" PRIu64 " entries", m->match, c->view->last);
    if (now - a->said_ns < SAY_MS * NS_PER_MS)
        return;
    if (a->said_ns)
        fprintf(stderr, "%s: %s\n", raft_node_text(m->id, node), a->last);
    a->said_ns = now;
}

/* Ask for it. 0: taken, or not now (look again). Errors: what will not go away. */
static int ask(struct raft_change *c, const struct raft_step *s, struct attempt *a, struct buf *text)
{
    struct msg_raft_admin m = {
        .head = cli_head(),
        .command = text_of(commands[s->kind]),
        .node = s->kind == STEP_HAND_OVER ? 0 : s->node,
        .address = text_of(s->address),
        .client_address = text_of(s->client_address),
        .flags = s->flags,
    };
    int r = raft_view_ask(c->view, c->view->leader_master, &m, min(c->deadline_ns, clock_ns() + 5 * NS_PER_S), text);
    const char *words = text->n > 1 && r < 0 ? (const char *)text->p : cv_error_text(r);
    uint64_t now = clock_ns();
    if (r < 0)
        snprintf(a->last, sizeof(a->last), "%s", words);
    if (r != -CV_UNREACHABLE)
        a->no_majority_ns = 0;
    else if (!a->no_majority_ns)
        a->no_majority_ns = now;
    switch (r) {
    case 0:
    case -CV_NOT_LEADER:
    case -EBUSY:
    case -EAGAIN:
    case -EEXIST: /* the view was older than it is now */
    case -ENOENT:
    case -CV_BUSY:
    case -CV_CLOSED:
    case -CV_DEADLINE:
    case -CV_STOPPING: return 0;
    case -CV_UNREACHABLE: return now - a->no_majority_ns > NO_MAJORITY_MS * NS_PER_MS ? r : 0;
    default: return r;
    }
}

static int give_up(struct raft_change *c, const struct raft_step *s, const struct attempt *a, int r)
{
    char what[300];
    describe(s, what, sizeof(what));
    const char *hint = s->kind == STEP_CATCH_UP && c->on_timeout ? c->on_timeout
                       : r == -EPERM                             ? "see who votes: cv raft status"
                                     : "see how the members are: cv raft status; then type the command again";
    bool more = *a->last && strcmp(a->last, cv_error_text(r)) != 0;
    return cli_fail(c->cli, r, hint, "%s%s%s", what, more ? ": " : "", more ? a->last : "");
}

/* Returns CLI_OK when the step is so. changed: it was not before. */
static int take_step(struct raft_change *c, struct raft_step *s, bool *changed)
{
    struct attempt a = {.pause_ms = PAUSE_MIN_MS};
    s->begun_ns = clock_ns();
    *changed = false;
    for (;;) {
        int r = raft_view_look(c->view, c->deadline_ns);
        bool led = r == 0 && c->view->leader;
        if (led && is_done(c->view, s) && c->view->conf_committed)
            return CLI_OK;
        if (!led && clock_ns() < c->deadline_ns)
            snprintf(a.last, sizeof(a.last), "no master says that its journal leads");
        else if (!led && !*a.last) /* the look was cut short */
            snprintf(a.last, sizeof(a.last), "no time was left to look at it (--timeout)");
        if (clock_ns() >= c->deadline_ns)
            return give_up(c, s, &a, -CV_DEADLINE);
        if (led && s->kind == STEP_CATCH_UP) {
            say_progress(c, s, &a);
        } else if (led && !is_done(c->view, s) && !(c->view->transfer_to && s->kind >= STEP_HAND_OVER)) {
            struct buf text cleanup(buf_fini) = {0};
            r = ask(c, s, &a, &text);
            if (r < 0)
                return give_up(c, s, &a, r);
            *changed = true;
        }
        wait_a_little(&a);
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------ */

int raft_change_begin(struct raft_change *c, struct cli *cli, uint64_t timeout_ms)
{
    c->cli = cli;
    c->deadline_ns = clock_ns() + (cli->timeout_ms ? cli->timeout_ms : timeout_ms) * NS_PER_MS;
    int status = raft_view_open(cli, &c->view);
    if (status != CLI_OK)
        return status;
    uint64_t until = min(c->deadline_ns, clock_ns() + 10 * NS_PER_S);
    struct attempt a = {.pause_ms = PAUSE_MIN_MS};
    int r;
    while (((r = raft_view_look(c->view, c->deadline_ns)) < 0 || !c->view->leader) && clock_ns() < until)
        wait_a_little(&a);
    if (r < 0)
        return raft_view_fail(c->view, r);
    if (!c->view->leader)
        return cli_fail(cli, -CV_UNREACHABLE, "see who is there: cv raft status",
                        "nobody leads now: nothing can be changed");
    return CLI_OK;
}

void raft_change_end(struct raft_change *c)
{
    raft_view_closep(&c->view);
    c->view = NULL;
}

static void add_member(struct out *o, const struct raft_view *v, const struct raft_view_member *m, bool status)
{
    char node[17];
    out_text(o, raft_node_text(m->id, node));
    out_text(o, m->voter ? "voter" : "learner");
    out_text(o, m->journal_only ? "journal-only" : "full");
    if (status) {
        bool silent = m->followed && raft_view_silent(v, m);
        out_text(o, m->id == v->leader ? "leader"
                    : silent           ? "silent"
                    : *m->role         ? m->role
                    : m->followed      ? "follower"
                                       : NULL);
        out_colour(o, silent ? OUT_BAD : m->id == v->leader ? OUT_GOOD : OUT_PLAIN);
    }
    out_text(o, m->address);
    out_text(o, *m->client_address ? m->client_address : NULL);
    if (!status)
        return;
    bool known = m->followed || m->answered;
    if (known)
        out_number(o, m->match);
    else
        out_text(o, NULL);
    if (m->followed) {
        out_number(o, m->lag);
        out_number(o, m->flushed);
    } else {
        out_text(o, NULL);
        out_text(o, NULL);
    }
    if (m->followed && m->heard_ago_ms >= 0)
        out_number(o, (uint64_t)m->heard_ago_ms);
    else
        out_text(o, NULL);
    if (m->snapshot_index)
        out_number(o, m->snapshot_index);
    else
        out_text(o, NULL);
    out_text(o, m->followed && m->id != v->leader ? m->progress : NULL);
    out_text(o, *m->reason ? m->reason : NULL);
}

struct out *raft_members_table(const struct raft_view *v, bool status)
{
    static const struct out_column is[] = {{"node", OUT_TEXT},
                                           {"vote", OUT_TEXT},
                                           {"kind", OUT_TEXT},
                                           {"address", OUT_TEXT},
                                           {"clients", OUT_TEXT, .wide = true}};
    static const struct out_column does[] = {
        {"node", OUT_TEXT},
        {"vote", OUT_TEXT},
        {"kind", OUT_TEXT},
        {"role", OUT_TEXT},
        {"address", OUT_TEXT},
        {"clients", OUT_TEXT, .wide = true},
        {"match", OUT_NUMBER},
        {"lag", OUT_NUMBER},
        {"flushed", OUT_NUMBER, .wide = true},
        {"last_contact", OUT_DURATION},
        {"snapshot", OUT_NUMBER, .wide = true},
        {"progress", OUT_TEXT, .wide = true},
        {"reason", OUT_TEXT, .wide = true},
    };
    struct out *o = status ? out_table(does, array_size(does)) : out_table(is, array_size(is));
    for (uint32_t i = 0; i < v->count; i++)
        add_member(o, v, &v->members[i], status);
    return o;
}

static struct out *steps_table(const struct raft_change *c, const bool *changed)
{
    static const struct out_column columns[] = {{"step", OUT_TEXT}, {"result", OUT_TEXT}};
    struct out *o = out_table(columns, array_size(columns));
    for (uint32_t i = 0; i < c->count; i++) {
        char what[300];
        describe(&c->steps[i], what, sizeof(what));
        out_text(o, what);
        out_text(o, c->dry_run ? (changed[i] ? "to be done" : "already so") : changed[i] ? "done" : "already so");
    }
    return o;
}

int raft_change_run(struct raft_change *c)
{
    static const struct out_column columns[] = {{"result", OUT_TEXT}, {"cluster", OUT_TEXT}};
    bool changed[RAFT_STEPS_MAX] = {false}, any = false;
    int status = CLI_OK;
    struct out *before cleanup(out_free_p) = raft_members_table(c->view, false);
    for (uint32_t i = 0; i < c->count && status == CLI_OK; i++) {
        if (c->dry_run)
            changed[i] = !is_done(c->view, &c->steps[i]);
        else
            status = take_step(c, &c->steps[i], &changed[i]);
        any |= changed[i];
    }
    if (status != CLI_OK)
        return status;
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, c->dry_run ? (any ? "dry run: nothing was changed" : "already so") : any ? "done" : "already so");
    out_text(o, *c->view->cluster ? c->view->cluster : NULL);
    out_nest(o, "steps", steps_table(c, changed));
    out_nest(o, "before", take(before));
    if (!c->dry_run)
        out_nest(o, "after", raft_members_table(c->view, false));
    return cli_print(c->cli, o);
}
