/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv raft compare: the logs of journals that run, held against each other without stopping them. Each is asked what a range
 * of its entries comes to (raft/journal_digest.h), piece by piece; where the answers part, the first entry that differs is
 * found by halving. One journal passes all questions on, so those without a master are asked too.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/raft_view.h"

#define COMPARE_MS 600000
#define ONE_MS     15000 /* one question: a journal gives another one 8 s */
#define PIECE      1024  /* entries: DIGEST_ENTRIES_MAX of the journal */

/* One member's log. */
struct copy {
    const struct raft_view_member *member;
    char reason[300];     /* why it is not compared (any more); "" */
    uint64_t first, last; /* entries there that are committed, as far as it knows */
    bool asked;           /* takes part in this piece; then its answer: */
    uint64_t covered, damaged;
    char digest[20], before[20];
};

struct compare {
    struct cli *cli;
    struct raft_view *view;
    uint64_t deadline_ns;
    struct copy copies[RAFT_VIEW_MEMBERS];
    uint32_t count;
    uint64_t from, to;   /* of interest */
    uint64_t low, high;  /* compared */
    uint64_t difference; /* the first entry that differs; 0: none found */
    bool earlier;        /* it lies at or before that entry, where the logs were cut */
};

/* ---- questions -------------------------------------------------------------------------------------------------------- */

static void copy_text(const json_t *o, const char *key, char *out, size_t size)
{
    const char *s = json_string_value(json_object_get(o, key));
    snprintf(out, size, "%s", s ? s : "");
}

static uint64_t number(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* What from..to comes to in this log; from 0: where the log stands. -ENOENT: it has been cut meanwhile. */
static int ask(struct compare *c, struct copy *k, uint64_t from, uint64_t to)
{
    struct buf text cleanup(buf_fini) = {0};
    struct msg_raft_admin m = {
        .head = cli_head(), .command = TEXT("digest"), .node = k->member->id, .from = from, .to = max(to, (uint64_t)1)};
    uint64_t deadline_ns = min(c->deadline_ns, clock_ns() + ONE_MS * NS_PER_MS);
    int r = raft_view_ask(c->view, c->view->leader_master, &m, deadline_ns, &text);
    json_t *said = r == 0 ? json_loads((const char *)text.p, 0, NULL) : NULL;
    if (r == 0 && !said)
        r = -CV_BAD_MESSAGE;
    if (r < 0) {
        snprintf(k->reason, sizeof(k->reason), "%s", text.n > 1 ? (const char *)text.p : cv_error_text(r));
        return r;
    }
    k->first = number(said, "first");
    k->last = min(number(said, "last"), number(said, "commit"));
    k->covered = number(said, "covered");
    k->damaged = number(said, "damaged");
    copy_text(said, "digest", k->digest, sizeof(k->digest));
    copy_text(said, "before", k->before, sizeof(k->before));
    json_decref(said);
    return 0;
}

static bool has(const struct copy *k, uint64_t index)
{
    return !*k->reason && k->first <= index && index <= k->last;
}

/* All that have these entries. Returns how many answered. */
static uint32_t ask_all(struct compare *c, uint64_t from, uint64_t to)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        struct copy *k = &c->copies[i];
        k->asked = has(k, from) && has(k, to) && ask(c, k, from, to) == 0;
        if (!k->asked && *k->reason && k->first > from)
            k->reason[0] = '\0'; /* cut meanwhile: it goes on behind */
        n += k->asked;
    }
    return n;
}

/* ---- comparing -------------------------------------------------------------------------------------------------------- */

static bool same(const struct copy *a, const struct copy *b)
{
    return a->damaged == 0 && b->damaged == 0 && a->covered == b->covered && strcmp(a->digest, b->digest) == 0;
}

static const struct copy *first_asked(const struct compare *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->copies[i].asked)
            return &c->copies[i];
    return NULL;
}

static bool all_same(const struct compare *c)
{
    const struct copy *one = first_asked(c);
    for (uint32_t i = 0; i < c->count; i++)
        if (c->copies[i].asked && !same(one, &c->copies[i]))
            return false;
    return true;
}

static bool all_before_same(const struct compare *c)
{
    const struct copy *one = first_asked(c);
    for (uint32_t i = 0; i < c->count; i++)
        if (c->copies[i].asked && strcmp(one->before, c->copies[i].before) != 0)
            return false;
    return true;
}

/* from..to are not the same everywhere: which entry is the first? The answers to it alone are left in the copies. */
static void find_first(struct compare *c, uint64_t from, uint64_t to)
{
    uint64_t low = from, high = to;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        ask_all(c, from, middle);
        if (all_same(c))
            low = middle + 1;
        else
            high = middle;
    }
    c->difference = low;
    ask_all(c, low, low);
}

/* The end of the piece that begins at from: as far as all go that have its beginning. 0: fewer than two have it. *ret_next:
 * where to go on. */
static uint64_t piece(const struct compare *c, uint64_t from, uint64_t *ret_next)
{
    uint64_t end = min(c->to, from + PIECE - 1), later = UINT64_MAX;
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct copy *k = &c->copies[i];
        if (has(k, from)) {
            end = min(end, k->last);
            n++;
        } else if (!*k->reason && k->first > from) {
            later = min(later, k->first);
        }
    }
    *ret_next = n > 1 ? end + 1 : later;
    return n > 1 ? end : 0;
}

static void compare_all(struct compare *c)
{
    uint64_t next, end;
    for (uint64_t at = c->from; at <= c->to && clock_ns() < c->deadline_ns; at = next) {
        end = piece(c, at, &next);
        if (!end && next > c->to)
            return;
        if (!end || ask_all(c, at, end) < 2)
            continue;
        c->low = c->low ? c->low : at;
        if (!all_same(c)) {
            find_first(c, at, end);
            c->high = c->difference;
            return;
        }
        c->high = end;
        if (!all_before_same(c)) {
            c->difference = at - 1;
            c->earlier = true;
            return;
        }
    }
}

/* ---- what is said ----------------------------------------------------------------------------------------------------- */

static bool agrees(const struct compare *c, const struct copy *a, const struct copy *b)
{
    return c->earlier ? strcmp(a->before, b->before) == 0 : same(a, b);
}

/* How many of those asked last hold what this one holds; itself too. */
static uint32_t companions(const struct compare *c, const struct copy *k)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->count; i++)
        n += &c->copies[i] == k || (c->copies[i].asked && agrees(c, k, &c->copies[i]));
    return n;
}

static uint32_t asked(const struct compare *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->count; i++)
        n += c->copies[i].asked;
    return n;
}

/* A word for one copy. Those a majority of the compared agree on are right: a minority cannot have committed it. */
static const char *verdict(const struct compare *c, const struct copy *k)
{
    if (*k->reason)
        return "not compared";
    if (!c->difference)
        return k->last < c->low || k->first > c->high ? "nothing in common" : "same";
    if (!k->asked)
        return "does not have it";
    if (k->damaged)
        return "DAMAGED";
    return 2 * companions(c, k) > asked(c) ? "as most" : "DIFFERS";
}

static struct out *nodes_table(const struct compare *c)
{
    static const struct out_column columns[] = {{"node", OUT_TEXT},    {"address", OUT_TEXT},
                                                {"first", OUT_NUMBER}, {"last", OUT_NUMBER},
                                                {"log", OUT_TEXT},     {"digest", OUT_TEXT, .wide = true},
                                                {"reason", OUT_TEXT}};
    struct out *o = out_table(columns, array_size(columns));
    for (uint32_t i = 0; i < c->count; i++) {
        const struct copy *k = &c->copies[i];
        const char *word = verdict(c, k);
        bool bad = strcmp(word, "DIFFERS") == 0 || strcmp(word, "DAMAGED") == 0;
        char node[17];
        out_text(o, raft_node_text(k->member->id, node));
        out_text(o, k->member->address);
        if (k->last) {
            out_number(o, k->first);
            out_number(o, k->last);
        } else {
            out_text(o, NULL);
            out_text(o, NULL);
        }
        out_text(o, word);
        out_colour(o, bad ? OUT_BAD : *k->reason ? OUT_WARN : OUT_GOOD);
        out_text(o, c->difference && k->asked && !k->damaged ? k->digest : NULL);
        out_text(o, *k->reason ? k->reason : NULL);
    }
    return o;
}

/* What to type about a difference: who is wrong is known when a majority of those compared agrees. */
static void advise(const struct compare *c, char *out, size_t size)
{
    const struct copy *odd = NULL;
    bool most = false;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct copy *k = &c->copies[i];
        const char *word = verdict(c, k);
        most |= strcmp(word, "as most") == 0;
        if (strcmp(word, "DAMAGED") == 0 || (strcmp(word, "DIFFERS") == 0 && !odd))
            odd = k;
    }
    char node[17] = "NODE";
    if (odd && (most || odd->damaged))
        snprintf(out, size,
                 "%s (%s) must not vote on: stop cv-journal there, keep a copy of its directory, cv-journal rejoin, "
                 "then cv raft replace %s %s",
                 raft_node_text(odd->member->id, node), odd->member->address, node, odd->member->address);
    else
        snprintf(out, size,
                 "no majority agrees: stop them all, copy their directories, then cv-journal compare DIR DIR");
}

static int print(struct compare *c)
{
    static const struct out_column columns[] = {
        {"status", OUT_TEXT}, {"action", OUT_TEXT},     {"cluster", OUT_TEXT},           {"from", OUT_NUMBER},
        {"to", OUT_NUMBER},   {"compared", OUT_NUMBER}, {"first_difference", OUT_NUMBER}};
    uint32_t missing = 0;
    char status[100], action[400] = "";
    for (uint32_t i = 0; i < c->count; i++)
        missing += strcmp(verdict(c, &c->copies[i]), "same") != 0;
    bool late = clock_ns() >= c->deadline_ns;
    if (c->difference) {
        snprintf(status, sizeof(status), "DIFFERENT %s entry %" PRIu64, c->earlier ? "at or before" : "from",
                 c->difference);
        advise(c, action, sizeof(action));
    } else if (!c->low) {
        snprintf(status, sizeof(status), "NOT COMPARED: no two logs that answer have entries of this range");
        snprintf(action, sizeof(action), "another range (--from, --to), or see who answers: cv raft status");
    } else if (late) {
        snprintf(status, sizeof(status), "SAME up to entry %" PRIu64 ", then the time was up", c->high);
        snprintf(action, sizeof(action), "go on: cv raft compare --from %" PRIu64 " --timeout 1h", c->high + 1);
    } else if (missing) {
        snprintf(status, sizeof(status), "SAME, but %u of %u not compared", missing, c->count);
        snprintf(action, sizeof(action), "see how they are: cv raft status");
    } else {
        snprintf(status, sizeof(status), "SAME");
    }
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, status);
    out_colour(o, c->difference ? OUT_BAD : *action ? OUT_WARN : OUT_GOOD);
    out_text(o, *action ? action : NULL);
    out_text(o, *c->view->cluster ? c->view->cluster : NULL);
    out_number(o, c->low);
    out_number(o, c->high);
    out_number(o, c->low ? c->high - c->low + 1 : 0);
    if (c->difference)
        out_number(o, c->difference);
    else
        out_text(o, NULL);
    out_nest(o, "nodes", nodes_table(c));
    int r = cli_print(c->cli, o);
    return r != CLI_OK ? r : c->difference ? CLI_FAILED : *action ? CLI_DEGRADED : CLI_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------------ */

static bool parse_index(const char *s, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(s, &end, 10);
    return errno == 0 && end != s && !*end && *s != '-' && *ret > 0;
}

static void compare_end(struct compare *c)
{
    raft_view_closep(&c->view);
}

int cmd_raft_compare(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, 'f'}, {"to", required_argument, NULL, 't'}, {0}};
    struct compare c cleanup(compare_end) = {.cli = cli, .from = 1, .to = UINT64_MAX - PIECE};
    for (int o; (o = cli_option(cli, argc, argv, "", options)) != -1;) {
        if (o != 'f' && o != 't')
            return cli_option_status();
        if (!parse_index(optarg, o == 'f' ? &c.from : &c.to))
            return cli_usage(cli, "'%s' is not the number of an entry", optarg);
    }
    if (argc != optind || c.from > c.to)
        return cli_usage(cli, argc != optind ? "takes no arguments" : "--from is behind --to");
    c.to = min(c.to, UINT64_MAX - PIECE);
    c.deadline_ns = clock_ns() + cli_timeout_ms(cli, COMPARE_MS) * NS_PER_MS;
    int status = raft_view_open(cli, &c.view);
    if (status != CLI_OK)
        return status;
    int r = raft_view_look(c.view, c.deadline_ns);
    if (r < 0)
        return raft_view_fail(c.view, r);
    for (uint32_t i = 0; i < c.view->count; i++) {
        c.copies[i].member = &c.view->members[i];
        (void)ask(&c, &c.copies[i], 0, 0);
    }
    c.count = c.view->count;
    compare_all(&c);
    return print(&c);
}
