/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_tool.h"

#include <getopt.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "conf/config.h"
#include "conf/json.h"
#include "raft/journal_options.h"
#include "raft/journal_status.h"
#include "raft/journal_tool_internal.h"

enum { NAME_MAX_SIZE = 64, DUMP_BYTES = 4 << 20 };

/* ---- messages ---- */

void tool_complain(const struct tool *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "cv-journal %s: ", t->command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int tool_failed(const struct tool *t, int r, const struct buf *why)
{
    if (why && why->n)
        tool_complain(t, "%s: %.*s", t->dir, (int)why->n, (const char *)why->p);
    else
        tool_complain(t, "%s: %s", t->dir, cv_error_text(r));
    return r == -CV_LOCKED || r == -CV_NOT_FORMATTED || r == -EACCES ? TOOL_UNREACHABLE : TOOL_FAILED;
}

/* ---- format, join ---- */

/* "host:port" of a journal to a member with the client address of the master beside it. beside: that master's port;
 * NULL: as configured here. */
static int make_member(const struct tool *t, const char *address, const char *beside, uint64_t id,
                       struct raft_member *ret)
{
    char port[OPTION_WRITTEN_MAX];
    const char *colon = strrchr(address, ':');
    int r = config_text(t->config, "master", "port", port, sizeof(port));
    if (r < 0 || !colon || colon == address || !colon[1])
        return -EINVAL;
    *ret = (struct raft_member){.id = id, .role = RAFT_VOTER};
    int n = snprintf(ret->raft_address, sizeof(ret->raft_address), "%s", address);
    int m = snprintf(ret->client_address, sizeof(ret->client_address), "%.*s:%s", (int)(colon - address), address,
                     beside ? beside : port);
    return n >= (int)sizeof(ret->raft_address) || m >= (int)sizeof(ret->client_address) ? -ENAMETOOLONG : 0;
}

static int single_conf(const struct tool *t, struct raft_conf *conf, uint64_t *ret_node)
{
    char host[NAME_MAX_SIZE] = "localhost", port[OPTION_WRITTEN_MAX], address[NAME_MAX_SIZE + OPTION_WRITTEN_MAX + 1];
    (void)gethostname(host, sizeof(host) - 1);
    int r = config_text(t->config, "journal", "port", port, sizeof(port));
    snprintf(address, sizeof(address), "%s:%s", host, port);
    struct raft_member member;
    *ret_node = random_u64();
    if (r == 0)
        r = make_member(t, t->self ? t->self : address, NULL, *ret_node, &member);
    return r < 0 ? r : raft_conf_put(conf, &member);
}

/* The same ids on every founding member: they follow from cluster and address. */
static uint64_t founding_id(struct uuid cluster, const char *address)
{
    uint64_t id = hash_bytes(hash_bytes(0, cluster.b, UUID_SIZE), address, strlen(address));
    return id ? id : 1;
}

/* Is address one of a list with commas? */
static bool is_listed(const char *list, const char *address)
{
    size_t n = strlen(address);
    for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && memcmp(p, address, n) == 0)
            return true;
    return false;
}

static int peers_conf(const struct tool *t, struct uuid cluster, struct raft_conf *conf, uint64_t *ret_node)
{
    char host[NAME_MAX_SIZE] = "";
    (void)gethostname(host, sizeof(host) - 1);
    char *list cleanup(freep) = strdup(t->peers);
    if (!list)
        return -ENOMEM;
    *ret_node = 0;
    for (char *rest = list, *address; (address = strsep(&rest, ","));) {
        struct raft_member member;
        char *beside = strchr(address, '/');
        if (beside)
            *beside++ = 0;
        uint64_t id = founding_id(cluster, address);
        int r = make_member(t, address, beside, id, &member);
        if (r == 0 && is_listed(t->journal_only, address)) {
            member.journal_only = 1;
            member.client_address[0] = 0;
        }
        if (r == 0)
            r = raft_conf_find(conf, id) ? -EEXIST : raft_conf_put(conf, &member);
        if (r < 0) {
            tool_complain(t, "--peers: '%s': %s (write each as host:port or host:port/port-of-its-master, once)",
                          address, cv_error_text(r));
            return r;
        }
        size_t host_n = strcspn(address, ":");
        bool ours =
            t->self ? strcmp(address, t->self) == 0 : strlen(host) == host_n && memcmp(address, host, host_n) == 0;
        if (ours)
            *ret_node = id;
    }
    uint32_t marked = 0, listed = 0;
    for (uint32_t i = 0; i < conf->count; i++)
        marked += conf->members[i].journal_only;
    for (const char *p = t->journal_only; p && *p; p += strcspn(p, ","), p += *p == ',')
        listed++;
    if (marked != listed) {
        tool_complain(t, "--journal-only %s: one of these is none of --peers", t->journal_only);
        return -EINVAL;
    }
    if (raft_conf_check(conf) < 0) {
        tool_complain(t, "at least one of --peers keeps the namespace: not all can be --journal-only");
        return -EINVAL;
    }
    if (*ret_node == 0) {
        tool_complain(t, "which of --peers is this host? '%s' is none of them: say --self host:port",
                      t->self ? t->self : host);
        return -EINVAL;
    }
    return 0;
}

static int run_format(struct tool *t)
{
    bool join = strcmp(t->command, "join") == 0;
    struct journal_format format = {.node = 0};
    if (!t->cluster) {
        tool_complain(t, "--cluster UUID says which cluster this log belongs to (--cluster new: make one up)");
        return TOOL_USAGE;
    }
    if (strcmp(t->cluster, "new") == 0 && !join)
        format.cluster = uuid_new();
    else if (uuid_parse(t->cluster, &format.cluster) < 0) {
        tool_complain(t, "'%s' is not a UUID", t->cluster);
        return TOOL_USAGE;
    }
    if (!join && t->single == (t->peers != NULL)) {
        tool_complain(t, "say either --single, or --peers a:8996,b:8996,c:8996 with the same list on each of them. "
                         "A new member of a cluster that exists: cv-journal join");
        return TOOL_USAGE;
    }
    struct raft_conf conf = {.count = 0};
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct buf why cleanup(buf_fini) = {0};
    int r = 0;
    if (!join) {
        r = t->single ? single_conf(t, &conf, &format.node) : peers_conf(t, format.cluster, &conf, &format.node);
        if (r < 0)
            return TOOL_USAGE;
        format.conf = encoded;
        format.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
        format.behind = t->behind;
    } else {
        format.node = random_u64();
    }
    format.incarnation = (uint32_t)t->incarnation;
    r = journal_store_format(t->dir, &format, &why);
    if (r < 0)
        return tool_failed(t, r, &why);
    char node[17], cluster[UUID_STRING];
    printf("formatted %s: node %s of cluster %s, %s\n", t->dir, journal_node_text(format.node, node),
           uuid_format(format.cluster, cluster),
           join              ? "waiting to be added (cv raft add)"
           : conf.count == 1 ? "the only voter"
                             : "one of several voters");
    return TOOL_OK;
}

/* ---- check ---- */

void tool_problem(void *arg, const char *text)
{
    struct tool_problems *p = arg;
    if (p->n++ >= 100)
        return;
    if (!p->tool->json) {
        printf("  problem        %s\n", text);
        return;
    }
    (void)buf_printf(&p->json, p->n > 1 ? "," : "");
    (void)json_write_text(&p->json, text);
}

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

static int run_check(struct tool *t)
{
    if (t->repair_tail)
        return tool_repair_tail(t);
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct buf why cleanup(buf_fini) = {0};
    struct journal_store_options options = {.read_only = true, .no_check = true};
    int r = journal_store_open(t->dir, &options, &why, &s);
    if (r < 0)
        return tool_failed(t, r, &why);
    const struct journal_state *state = journal_store_state(s);
    struct tool_problems problems = {.tool = t};
    struct journal_check check = {.problem = tool_problem, .arg = &problems};
    if (!t->json) {
        printf("%s\n", t->dir);
        print_state(state, journal_store_mark(s));
    }
    if (journal_store_check_mark(s, &why) < 0 && buf_append(&why, "", 1) == 0)
        tool_problem(&problems, (const char *)why.p);
    r = journal_check_entries(journal_store_db(s), state, state->first, &check);
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

static int run_dump(struct tool *t)
{
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct buf why cleanup(buf_fini) = {0};
    struct journal_store_options options = {.read_only = true, .no_check = true};
    int r = journal_store_open(t->dir, &options, &why, &s);
    if (r < 0)
        return tool_failed(t, r, &why);
    const struct journal_state *state = journal_store_state(s);
    struct journal_read read = {.count = 0};
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

/* ---- the command line ---- */

static const struct {
    const char *name;
    int (*run)(struct tool *t);
    const char *usage, *help;
} tools[] = {
    {"format", run_format, "--cluster UUID|new --single | --peers A,B,C [--self A] [--journal-only C]",
     "make the log of a founding voter"},
    {"join", run_format, "--cluster UUID [--incarnation N]", "make an empty log of a member that will be added"},
    {"check", run_check, "[--json] [--repair-tail [--yes UUID]]",
     "hold every entry and row against their checksums; cut a damaged end that nobody was told of"},
    {"compare", tool_compare, "DIR DIR...", "which of several logs is the furthest, and where they part"},
    {"dump", run_dump, "[--from N] [--to N] [--json]", "list the entries of a stopped journal"},
    {"rejoin", tool_rejoin, "[--incarnation N] [--cluster UUID] [--yes UUID]",
     "throw this log away and wait to be added as a new member"},
    {"force-new-cluster", tool_force_new_cluster, "--keep NODE [--yes UUID]",
     "quorum is gone for good: go on with this log alone"},
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"set", required_argument, NULL, 's'},
    {"dir", required_argument, NULL, 'd'},
    {"cluster", required_argument, NULL, 'C'},
    {"single", no_argument, NULL, '1'},
    {"peers", required_argument, NULL, 'p'},
    {"self", required_argument, NULL, 'S'},
    {"from", required_argument, NULL, 'f'},
    {"behind", required_argument, NULL, 'b'},
    {"to", required_argument, NULL, 't'},
    {"json", no_argument, NULL, 'j'},
    {"keep", required_argument, NULL, 'k'},
    {"incarnation", required_argument, NULL, 'i'},
    {"yes", required_argument, NULL, 'y'},
    {"repair-tail", no_argument, NULL, 'r'},
    {"journal-only", required_argument, NULL, 'J'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

const char *journal_tool_commands(void)
{
    static char text[2048];
    size_t n = 0;
    for (size_t i = 0; i < array_size(tools) && n < sizeof(text); i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "  cv-journal %s %s\n      %s\n", tools[i].name,
                              tools[i].usage, tools[i].help);
    return text;
}

static void print_help(void)
{
    printf("Tools for the directory of a journal that does not run:\n\n%s", journal_tool_commands());
    printf(
        "\nEach refuses while the journal runs (stop it first). What is thrown away is said before, and done only when "
        "the\n"
        "id of the cluster is typed, or given with --yes.\n"
        "\n  -d, --dir DIR            the directory (else journal.dir of the configuration)\n"
        "  -c, --config FILE        read FILE (else $CURVINE_CONFIG, else /etc/curvine/curvine.yaml if it is there)\n"
        "  -s, --set SECTION.KEY=V  set one option, over what the file says\n"
        "\nExit status: 0 done, sound; 1 failed, damaged; 2 wrong usage; 4 no log there, or in use.\n");
}

static bool parse_number(const char *s, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(s, &end, 10);
    return errno == 0 && end != s && !*end && *s != '-';
}

/* Returns -1 when there is something to run, otherwise the exit status. */
static int parse(struct tool *t, int argc, char **argv)
{
    for (int c; (c = getopt_long(argc, argv, "c:s:d:h", long_options, NULL)) != -1;) {
        bool good = true;
        switch (c) {
        case 'c': t->path = optarg; break;
        case 's': t->sets[t->set_count++] = optarg; break;
        case 'd': t->dir = optarg; break;
        case 'C': t->cluster = optarg; break;
        case '1': t->single = true; break;
        case 'p': t->peers = optarg; break;
        case 'S': t->self = optarg; break;
        case 'b': good = parse_number(optarg, &t->behind); break;
        case 'f': good = parse_number(optarg, &t->from); break;
        case 't': good = parse_number(optarg, &t->to); break;
        case 'j': t->json = true; break;
        case 'k': t->keep = optarg; break;
        case 'i': good = parse_number(optarg, &t->incarnation) && t->incarnation < UINT32_MAX; break;
        case 'y': t->yes = optarg; break;
        case 'r': t->repair_tail = true; break;
        case 'J': t->journal_only = optarg; break;
        case 'h': print_help(); return TOOL_OK;
        default: fprintf(stderr, "Try 'cv-journal %s --help'.\n", t->command); return TOOL_USAGE;
        }
        if (!good) {
            tool_complain(t, "'%s' is not a number", optarg);
            return TOOL_USAGE;
        }
    }
    t->arguments = argv + optind;
    t->argument_count = argc - optind;
    if (argv[optind] && strcmp(t->command, "compare") != 0) {
        tool_complain(t, "unexpected argument '%s'", argv[optind]);
        return TOOL_USAGE;
    }
    return -1;
}

static int read_config(struct tool *t, const struct option_section *const *sections)
{
    int r = config_new(sections, &t->config);
    if (r == 0 && (t->path || access(config_default_path(), F_OK) == 0))
        r = config_load(t->config, t->path ? t->path : config_default_path());
    for (int i = 0; i < t->set_count; i++) {
        int set = config_set(t->config, t->sets[i]);
        r = r < 0 ? r : set;
    }
    if (r == 0)
        r = config_check(t->config);
    if (r < 0)
        tool_complain(t, "configuration: %s", t->config ? config_errors(t->config) : cv_error_text(r));
    else if (!t->dir)
        t->dir = config_options(t->config, journal)->dir;
    return r;
}

static int run(struct tool *t, int argc, char **argv, const struct option_section *const *sections)
{
    int status = parse(t, argc, argv);
    if (status >= 0)
        return status;
    if (read_config(t, sections) < 0)
        return TOOL_USAGE;
    for (size_t i = 0; i < array_size(tools); i++)
        if (strcmp(t->command, tools[i].name) == 0)
            return tools[i].run(t);
    return TOOL_USAGE;
}

/* Where the first word is that is no option, nor the value of one; argc: there is none. */
static int find_command(int argc, char **argv)
{
    static const char *const valued[] = {"-c", "-s", "-d", "--config", "--set", "--dir"};
    int i = 1;
    while (i < argc && argv[i][0] == '-') {
        bool has_value = false;
        for (size_t k = 0; k < array_size(valued); k++)
            has_value |= strcmp(argv[i], valued[k]) == 0;
        i += has_value ? 2 : 1;
    }
    return min(i, argc);
}

int journal_tool_main(int argc, char **argv, const struct option_section *const *sections)
{
    int at = find_command(argc, argv);
    char *command = argv[at];
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof(*argv)); /* to the front */
    argv[1] = command;
    struct tool t = {.command = command, .from = 1, .to = UINT64_MAX};
    t.sets = calloc((size_t)argc, sizeof(t.sets[0]));
    if (!t.sets)
        return TOOL_FAILED;
    int status = run(&t, argc - 1, argv + 1, sections);
    config_free(t.config);
    free(t.sets);
    return status;
}

bool journal_tool_is(int argc, char **argv)
{
    int at = find_command(argc, argv);
    for (size_t i = 0; at < argc && i < array_size(tools); i++)
        if (strcmp(argv[at], tools[i].name) == 0)
            return true;
    return false;
}
