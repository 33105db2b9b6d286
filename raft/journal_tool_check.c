/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a log: every entry held against its checksums (check), or listed (dump). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "raft/journal_status.h"
#include "raft/journal_tool_internal.h"

enum { DUMP_BYTES = 4 << 20 };

/* ---- check ---- */

static void print_state(const struct journal_state *s, const struct journal_mark *m)
{
    char node[17], vote[17], cluster[UUID_STRING];
    printf("  cluster        %s, incarnation %u\n", uuid_format(s->cluster, cluster), s->incarnation);
    printf("  node           %s\n", journal_node_text(s->node, node));
    printf("  term, vote     %" PRIu64 ", %s\n", s->term, s->vote ? journal_node_text(s->vote, vote) : "none");
    printf("  entries        %" PRIu64 " to %" PRIu64 ", last of term %" PRIu64 ", %u terms\n", s->first, s->last,
           s->last_term, s->run_count);
    printf("  chain          %016" PRIx64 "\n", s->last_chain);
    printf("  commit         at least %" PRIu64 "\n", s->commit);
    for (uint32_t i = 0; i < s->conf_count; i++)
        printf("  configuration  at %" PRIu64 "\n", s->confs[i]);
    if (s->forced_incarnation)
        printf("  forced         incarnation %u began behind entry %" PRIu64 "\n", s->forced_incarnation,
               s->forced_index);
    if (s->snap_index)
        printf("  snapshot       at %" PRIu64 " in %s\n", s->snap_index, s->snap_directory);
    printf("  durable.mark   entry %" PRIu64 " of term %" PRIu64 ", term %" PRIu64 "\n", m->index, m->index_term,
           m->term);
}

static void print_json(const struct tool *t, const struct journal_state *s, const struct journal_mark *m,
                       const struct journal_check *c, const struct tool_problems *p)
{
    char node[17], vote[17], cluster[UUID_STRING];
    printf("{\"cluster\":\"%s\",\"incarnation\":%u,\"node\":\"%s\",\"term\":%" PRIu64 ",\"vote\":\"%s\",",
           uuid_format(s->cluster, cluster), s->incarnation, journal_node_text(s->node, node), s->term,
           s->vote ? journal_node_text(s->vote, vote) : "");
    printf("\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"last_term\":%" PRIu64 ",\"chain\":\"%016" PRIx64
           "\",\"commit\":%" PRIu64 ",\"mark\":%" PRIu64 ",",
           s->first, s->last, s->last_term, s->last_chain, s->commit, m->index);
    printf("\"checked\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"operations\":%" PRIu64 ",\"problems\":[%.*s]}\n",
           c->entries, c->bytes, c->operations, (int)p->json.n, (const char *)p->json.p);
}

/* To look at only, whatever is wrong with it. TOOL_OK, or it is said. */
static int open_to_look(struct tool *t, struct journal_store **ret)
{
    struct buf why cleanup(buf_fini) = {0};
    struct journal_store_options options = {.read_only = true, .no_check = true};
    int r = journal_store_open(t->dir, &options, &why, ret);
    return r < 0 ? tool_failed(t, r, &why) : TOOL_OK;
}

int tool_check(struct tool *t)
{
    if (t->repair_tail)
        return tool_repair_tail(t);
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct buf why cleanup(buf_fini) = {0};
    int status = open_to_look(t, &s);
    if (status != TOOL_OK)
        return status;
    const struct journal_state *state = journal_store_state(s);
    struct tool_problems problems = {.tool = t};
    struct journal_check check = {.problem = tool_problem, .arg = &problems};
    if (!t->json) {
        printf("%s\n", t->dir);
        print_state(state, journal_store_mark(s));
    }
    if (journal_store_check_mark(s, &why) < 0 && buf_append(&why, "", 1) == 0)
        tool_problem(&problems, (const char *)why.p);
    int r = journal_check_entries(journal_store_db(s), state, state->first, &check);
    if (t->json) {
        print_json(t, state, journal_store_mark(s), &check, &problems);
    } else {
        printf("  checked        %" PRIu64 " entries, %" PRIu64 " bytes, %" PRIu64 " operations\n", check.entries,
               check.bytes, check.operations);
        printf(problems.n
                   ? "%u problems: this node must not vote; with other voters alive replace it (cv raft replace)\n"
                   : "sound\n",
               problems.n);
    }
    buf_fini(&problems.json);
    return problems.n || r < 0 ? TOOL_FAILED : TOOL_OK;
}

/* ---- dump ---- */

static void dump_entry(const struct tool *t, const struct journal_entry *e)
{
    struct raft_conf conf;
    struct buf members cleanup(buf_fini) = {0};
    if (e->type == RAFT_CONF && raft_conf_decode(e->data, e->size, &conf) == 0)
        (void)journal_conf_write(&conf, &members);
    if (t->json)
        printf("{\"index\":%" PRIu64 ",\"term\":%" PRIu64 ",\"type\":\"%s\",\"operations\":%u,\"size\":%u,\"crc\":%u,"
               "\"chain\":\"%016" PRIx64 "\"%s%.*s}\n",
               e->index, e->term, journal_entry_type_name(e->type), e->op_count, e->size, e->data_crc, e->chain,
               members.n ? ",\"members\":" : "", (int)members.n, (const char *)members.p);
    else
        printf("%10" PRIu64 " %8" PRIu64 "  %-8s %6u %9u  %016" PRIx64 "  %.*s\n", e->index, e->term,
               journal_entry_type_name(e->type), e->op_count, e->size, e->chain, (int)members.n,
               (const char *)members.p);
}

int tool_dump(struct tool *t)
{
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    int status = open_to_look(t, &s);
    if (status != TOOL_OK)
        return status;
    const struct journal_state *state = journal_store_state(s);
    struct journal_read read = {.count = 0};
    int r = 0;
    if (!t->json)
        printf("%10s %8s  %-8s %6s %9s  %-16s\n", "entry", "term", "type", "ops", "bytes", "chain");
    for (uint64_t at = max(t->from, state->first); r == 0 && at <= min(t->to, state->last); at += read.count) {
        r = journal_store_read(s, at, min(t->to, state->last), DUMP_BYTES, &read);
        for (uint32_t i = 0; i < read.count; i++)
            dump_entry(t, &read.entries[i]);
        if (r < 0)
            tool_complain(t, "entry %" PRIu64 ": %s (cv-journal check says more)", at + read.count,
                          cv_error_text(r == -ENOENT ? -CV_LOG_DAMAGED : r));
    }
    journal_read_fini(&read);
    return r < 0 ? TOOL_FAILED : TOOL_OK;
}
