/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that must not notice: many, each with a session of its own, make, remove, rename, change, look up and list a few
 * names that all of them share, while somebody kills what leads. Every call, answer and error is kept with its times and
 * held against linear.h at the end. An answer that a file system cannot give (no connection, session ended, deadline) is an
 * application error: the library is to retry until there is a leader.
 *
 *      cv-failover run    --masters A,B,C --history FILE [--kills FILE] [--clients N] [--keys K] [--seconds S] [--root /path]
 *                         [--first N] [--joint] [--phases] [--readers N]
 *      cv-failover check  --history FILE [--kills FILE] [--phases]
 *      cv-failover signal KILL|STOP|CONT --kills FILE --what TEXT PID...
 *
 * "run" ends after S seconds or on SIGTERM, writes the history, and does what "check" does: 0 when nothing is wrong. It says
 * "running" on its output once all clients have made a change. "signal" notes the time and then sends it to the processes.
 *
 * How long a failover is: from the signal until a change that was begun after it is acknowledged: the first one of any
 * client ("service"), and each client's own first ("client": what it was doing when the leader died comes before that).
 *
 * Kills are lines of a file: clock_ns() and what was done; "CONT ...", the end of what was done before, is none. --phases:
 * also what went through from each until the next line. --first, --joint: the number of the first client; several runs
 * with different ones may share names, are not checked each by itself, and their histories, one behind the other in one
 * file, are checked as one. --readers: so many of the clients only look, and do not wait long for an answer: who changes
 * something, or asks for what is being changed, waits for a majority, and would never see what a leader without one tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "client/curvine.h"
#include "tests/tools/linear.h"

#define CLIENTS_MAX 256
#define KEYS_MAX    256
#define KILLS_MAX   4096
#define PAUSE_US    12000 /* of a client, at most, between operations */
#define READER_MS   50    /* how long a reader waits for an answer; without one it has not asked */

static struct {
    const char *masters, *history, *kills, *root, *what;
    unsigned clients, keys, seconds, first, readers;
    bool phases, joint;
    uint64_t seed;
} options = {.root = "/failover", .what = "?", .clients = 40, .keys = 24, .seconds = 10, .seed = 1};

struct history {
    struct linear_op *ops;
    size_t count, room;
};

struct client {
    unsigned id;
    pthread_t thread;
    struct curvine *cv;
    struct prng prng;
    struct history h;
    bool reader;
    uint64_t inodes[KEYS_MAX]; /* the last one seen of each key */
    _Atomic uint64_t changed;  /* a reader: looked */
    uint64_t errors;
};

static struct client clients[CLIENTS_MAX];
static uint64_t directories[KEYS_MAX];
static atomic_bool stop;
static _Atomic uint64_t value; /* unique */

static struct linear_op *history_add(struct history *h)
{
    if (h->count == h->room) {
        h->room = h->room ? 2 * h->room : 1024;
        h->ops = reallocarray(h->ops, h->room, sizeof(*h->ops));
        if (!h->ops)
            abort();
    }
    return &h->ops[h->count++];
}

/* ---- operations --------------------------------------------------------------------------------------------------------- */

static struct curvine_text name_of(unsigned n)
{
    return n ? (struct curvine_text){"b", 1} : (struct curvine_text){"a", 1};
}

static void take_list(const struct curvine_request *q, struct linear_op *o)
{
    for (uint32_t i = 0; i < q->entry_count; i++) {
        const struct curvine_dirent *e = &q->entries[i];
        if (e->name.n == 1 && e->name.p[0] == 'a')
            o->inode = e->inode;
        if (e->name.n == 1 && e->name.p[0] == 'b')
            o->other = e->inode;
    }
}

static void prepare(struct curvine_request *q, const struct linear_op *o)
{
    *q = (struct curvine_request){.inode = directories[o->key], .name = name_of(o->name)};
    switch ((enum linear_type)o->type) {
    case LINEAR_CREATE:
        q->op = CURVINE_MKNOD; /* no handle that would keep the inode after its removal */
        q->mode = S_IFREG | 0644;
        break;
    case LINEAR_UNLINK: q->op = CURVINE_UNLINK; break;
    case LINEAR_LOOKUP: q->op = CURVINE_LOOKUP; break;
    case LINEAR_RENAME:
        q->op = CURVINE_RENAME;
        q->inode2 = q->inode;
        q->value = name_of(!o->name);
        break;
    case LINEAR_SET:
        q->op = CURVINE_SETATTR;
        q->inode = o->inode;
        q->valid = CURVINE_SET_SIZE;
        q->size = o->value;
        break;
    default: q->op = CURVINE_READDIR; q->name = (struct curvine_text){0};
    }
}

/* What a namespace may say; anything else a failover must not show. */
static bool is_answer(const struct linear_op *o)
{
    static const int errors[LINEAR_TYPES] = {[LINEAR_CREATE] = -EEXIST,
                                             [LINEAR_UNLINK] = -ENOENT,
                                             [LINEAR_LOOKUP] = -ENOENT,
                                             [LINEAR_RENAME] = -ENOENT,
                                             [LINEAR_SET] = -ENOENT};
    return o->result == 0 || o->result == errors[o->type];
}

static void execute(struct client *c, struct linear_op *o)
{
    struct curvine_request q;
    prepare(&q, o);
    q.timeout_ms = c->reader ? READER_MS : 0;
    o->call_ns = clock_ns();
    int r = curvine_run(c->cv, &q);
    o->answer_ns = clock_ns();
    o->result = r == -ESTALE ? -ENOENT : r;
    if (r == 0 && (o->type == LINEAR_CREATE || o->type == LINEAR_LOOKUP)) {
        o->inode = q.attr.inode;
        o->value = o->type == LINEAR_LOOKUP ? q.attr.size : 0;
        c->inodes[o->key] = o->inode;
    } else if (r == 0 && o->type == LINEAR_LIST) {
        take_list(&q, o);
    }
    curvine_request_free(&q);
    if (c->reader && r == -CV_DEADLINE) {
        o->result = LINEAR_UNKNOWN;
        return;
    }
    if (!is_answer(o)) {
        fprintf(stderr, "client %u: %s: %s after %.0f ms\n", c->id, linear_names[o->type], r ? cv_error_name(r) : "?",
                (double)(o->answer_ns - o->call_ns) / 1e6);
        c->errors++;
        o->result = LINEAR_UNKNOWN;
    }
    if (c->reader || (o->result == 0 && o->type != LINEAR_LOOKUP && o->type != LINEAR_LIST))
        c->changed++;
}

static void step(struct client *c)
{
    static const uint8_t mix[] = {LINEAR_CREATE, LINEAR_CREATE, LINEAR_CREATE, LINEAR_CREATE, LINEAR_UNLINK,
                                  LINEAR_UNLINK, LINEAR_UNLINK, LINEAR_RENAME, LINEAR_RENAME, LINEAR_RENAME,
                                  LINEAR_SET,    LINEAR_SET,    LINEAR_SET,    LINEAR_SET,    LINEAR_LOOKUP,
                                  LINEAR_LOOKUP, LINEAR_LOOKUP, LINEAR_LIST};
    struct linear_op o = {.client = c->id, .type = mix[prng_below(&c->prng, sizeof(mix))]};
    if (c->reader)
        o.type = o.type % 4 ? LINEAR_LOOKUP : LINEAR_LIST;
    o.key = (uint32_t)prng_below(&c->prng, options.keys);
    o.name = (uint8_t)prng_below(&c->prng, 2);
    if (o.type == LINEAR_SET) {
        o.inode = c->inodes[o.key];
        o.value = ++value;
        if (!o.inode)
            return;
    }
    struct linear_op *kept = history_add(&c->h);
    execute(c, &o);
    *kept = o;
    if (c->reader && o.result == LINEAR_UNKNOWN)
        c->h.count--;
    usleep((useconds_t)prng_below(&c->prng, PAUSE_US));
}

static void *work(void *arg)
{
    struct client *c = arg;
    while (!stop)
        step(c);
    return NULL;
}

/* ---- what came of it ---------------------------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
    const struct linear_op *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

static void show(const struct linear_op *o, uint64_t from_ns, const char *mark)
{
    char result[32];
    snprintf(result, sizeof(result), "%s",
             o->result == LINEAR_UNKNOWN ? "unknown"
             : o->result                 ? cv_error_name(o->result)
                                         : "ok");
    fprintf(stderr,
            "%s %10.3f to %10.3f ms  client %-3u %s %c = %s, inode %" PRIu64 ", other %" PRIu64 ", value %" PRIu64 "\n",
            mark, (double)(int64_t)(o->call_ns - from_ns) / 1e6, (double)(int64_t)(o->answer_ns - from_ns) / 1e6,
            o->client, linear_names[o->type], o->name ? 'b' : 'a', result, o->inode, o->other, o->value);
}

static int check_key(struct linear_op *ops, size_t count)
{
    size_t bad = 0;
    int r = linear_check(ops, count, &bad);
    if (r == 0)
        return 0;
    fprintf(stderr, "key %u: %s; the answer nothing explains, and what was before it:\n", ops->key,
            r == -EILSEQ ? "NOT LINEARIZABLE" : strerror(-r));
    for (size_t i = bad < 30 ? 0 : bad - 30; i < count && i < bad + 10; i++)
        show(&ops[i], ops[bad].call_ns, i == bad ? ">>" : "  ");
    return r;
}

static int check_all(struct history *h)
{
    int bad = 0;
    if (h->count)
        qsort(h->ops, h->count, sizeof(*h->ops), by_key);
    for (size_t i = 0, end; i < h->count; i = end) {
        for (end = i; end < h->count && h->ops[end].key == h->ops[i].key; end++)
            ;
        bad += check_key(h->ops + i, end - i) != 0;
    }
    return bad;
}

struct kill {
    uint64_t at_ns, end_ns; /* end: of its phase */
    char what[64];
};

static unsigned read_kills(struct kill *ret)
{
    FILE *f = options.kills ? fopen(options.kills, "re") : NULL;
    unsigned n = 0;
    while (f && n < KILLS_MAX && fscanf(f, "%" SCNu64 " %63[^\n]", &ret[n].at_ns, ret[n].what) == 2) {
        ret[n].end_ns = UINT64_MAX;
        if (n > 0 && ret[n - 1].end_ns == UINT64_MAX)
            ret[n - 1].end_ns = ret[n].at_ns;
        n += strncmp(ret[n].what, "CONT", 4) != 0;
    }
    if (f)
        fclose(f);
    return n;
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void print_times(const char *what, const char *of, double *ms, unsigned n)
{
    if (!n)
        return;
    qsort(ms, n, sizeof(*ms), by_size);
    printf("failover %-18s %-8s %6u: p50 %5.0f ms, p90 %5.0f, p99 %5.0f, worst %5.0f\n", what, of, n, ms[n / 2],
           ms[n * 9 / 10], ms[n * 99 / 100], ms[n - 1]);
}

/* The first acknowledged change of each client that was begun between two times, as ms behind the first. */
static unsigned first_changes(const struct history *h, uint64_t from_ns, uint64_t to_ns, double *ret_ms,
                              double *ret_least)
{
    double first[CLIENTS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        first[i] = -1;
    *ret_least = -1;
    for (size_t i = 0; i < h->count; i++) {
        const struct linear_op *o = &h->ops[i];
        if (o->result != 0 || o->type == LINEAR_LOOKUP || o->type == LINEAR_LIST || o->call_ns < from_ns ||
            o->call_ns >= to_ns || o->client >= CLIENTS_MAX)
            continue;
        double ms = (double)(o->answer_ns - from_ns) / 1e6;
        if (first[o->client] < 0 || ms < first[o->client])
            first[o->client] = ms;
        if (*ret_least < 0 || ms < *ret_least)
            *ret_least = ms;
    }
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (first[i] >= 0)
            ret_ms[n++] = first[i];
    return n;
}

/* Of all kills of this kind; NULL: of all. */
static void print_failovers(const struct history *h, const struct kill *kills, unsigned n, const char *what)
{
    double *service = calloc(n + 1, sizeof(double)), *each = calloc((size_t)(n + 1) * CLIENTS_MAX, sizeof(double));
    unsigned services = 0, all = 0;
    for (unsigned i = 0; service && each && i < n; i++) {
        double least;
        if (what && strcmp(kills[i].what, what) != 0)
            continue;
        all += first_changes(h, kills[i].at_ns, i + 1 < n ? kills[i + 1].at_ns : UINT64_MAX, each + all, &least);
        if (least >= 0)
            service[services++] = least;
    }
    print_times(what ? what : "all", "service", service, services);
    print_times(what ? what : "all", "client", each, all);
    free(service);
    free(each);
}

static int by_answer(const void *a, const void *b)
{
    const struct linear_op *x = a, *y = b;
    return x->answer_ns < y->answer_ns ? -1 : x->answer_ns > y->answer_ns;
}

/* What went through in all phases of this kind: operations answered in them, and the longest time without an acknowledged
 * change. h: by time of the answer. */
static void print_phases(const struct history *h, const struct kill *kills, unsigned n, const char *what)
{
    double *ms = calloc(h->count + 1, sizeof(double)), seconds = 0, silence = 0;
    unsigned times = 0, count = 0, i = 0;
    for (size_t at = 0; ms && h->count && i < n; i++) {
        uint64_t last = kills[i].at_ns, end = min(kills[i].end_ns, h->ops[h->count - 1].answer_ns);
        if (strcmp(kills[i].what, what) != 0 || end < last)
            continue;
        times++;
        seconds += (double)(end - last) / 1e9;
        for (; at < h->count && h->ops[at].answer_ns <= end; at++) {
            const struct linear_op *o = &h->ops[at];
            if (o->answer_ns < kills[i].at_ns)
                continue;
            ms[count++] = (double)(o->answer_ns - o->call_ns) / 1e6;
            if (o->result != 0 || o->type == LINEAR_LOOKUP || o->type == LINEAR_LIST)
                continue;
            silence = max(silence, (double)(o->answer_ns - last) / 1e6);
            last = o->answer_ns;
        }
        silence = max(silence, (double)(end - last) / 1e6);
    }
    if (ms && count) {
        qsort(ms, count, sizeof(*ms), by_size);
        printf("phase    %-18s %4u, %6.1f s: %5.0f operations/s, answered after p50 %6.1f ms, p99 %6.0f, worst %6.0f; "
               "longest silence %5.0f ms\n",
               what, times, seconds, count / seconds, ms[count / 2], ms[count * 99ull / 100], ms[count - 1], silence);
    }
    free(ms);
}

static void print_all_failovers(struct history *h)
{
    static struct kill kills[KILLS_MAX];
    unsigned n = read_kills(kills);
    for (unsigned i = 0; i < n; i++) {
        bool before = false;
        for (unsigned k = 0; k < i; k++)
            before |= strcmp(kills[k].what, kills[i].what) == 0;
        if (!before)
            print_failovers(h, kills, n, kills[i].what);
    }
    if (n)
        print_failovers(h, kills, n, NULL);
    if (options.phases && h->count)
        qsort(h->ops, h->count, sizeof(*h->ops), by_answer);
    for (unsigned i = 0; options.phases && i < n; i++) {
        bool before = false;
        for (unsigned k = 0; k < i; k++)
            before |= strcmp(kills[k].what, kills[i].what) == 0;
        if (!before)
            print_phases(h, kills, n, kills[i].what);
    }
}

static int judge(struct history *h, uint64_t errors)
{
    size_t negative = 0, unknown = 0;
    for (size_t i = 0; i < h->count; i++) {
        negative += h->ops[i].result < 0 && h->ops[i].result != LINEAR_UNKNOWN;
        unknown += h->ops[i].result == LINEAR_UNKNOWN;
    }
    print_all_failovers(h); /* in the order of the clients: before they are sorted by key */
    int bad = options.joint ? 0 : check_all(h);
    errors = max(errors, (uint64_t)unknown);
    printf("%s: %zu operations (%zu negative answers), %" PRIu64 " application errors, %d keys not linearizable\n",
           bad || errors ? "WRONG" : "ok", h->count, negative, errors, bad);
    return bad || errors;
}

/* ---- histories in files: one line an operation ---------------------------------------------------------------------------- */

static int history_write(const struct history *h, const char *path)
{
    FILE *f = fopen(path, "we");
    if (!f)
        return -errno;
    for (size_t i = 0; i < h->count; i++) {
        const struct linear_op *o = &h->ops[i];
        fprintf(f, "%u %u %u %u %" PRIu64 " %" PRIu64 " %d %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", o->key, o->client,
                o->type, o->name, o->call_ns, o->answer_ns, o->result, o->inode, o->other, o->value);
    }
    return fclose(f) == 0 ? 0 : -EIO;
}

static int history_read(struct history *h, const char *path)
{
    FILE *f = fopen(path, "re");
    struct linear_op o;
    int n;
    if (!f)
        return -errno;
    while ((n = fscanf(f,
                       "%" SCNu32 " %" SCNu32 " %" SCNu8 " %" SCNu8 " %" SCNu64 " %" SCNu64 " %" SCNd32 " %" SCNu64
                       " %" SCNu64 " %" SCNu64,
                       &o.key, &o.client, &o.type, &o.name, &o.call_ns, &o.answer_ns, &o.result, &o.inode, &o.other,
                       &o.value)) == 10)
        *history_add(h) = o;
    fclose(f);
    return n == EOF ? 0 : -EINVAL;
}

/* ---- commands ------------------------------------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    stop = true;
}

static int open_client(struct client *c, unsigned id)
{
    *c = (struct client){.id = options.first + id, .prng = {options.seed * 1000 + options.first + id + 1}};
    return curvine_open(
        &(struct curvine_options){.masters = options.masters, .timeout_ms = 30000, .program = "cv-failover"}, &c->cv);
}

static int make_directories(struct curvine *cv)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < options.keys; i++) {
        char path[512];
        struct curvine_attr attr;
        snprintf(path, sizeof(path), "%s/%u", options.root, i);
        r = curvine_mkdirs(cv, path, 0755);
        r = r ? r : curvine_stat(cv, path, 0, &attr);
        directories[i] = attr.inode;
    }
    return r;
}

static bool all_changed(void)
{
    for (unsigned i = 0; i < options.clients; i++)
        if (!clients[i].changed)
            return false;
    return true;
}

static int run(void)
{
    struct history all = {0};
    uint64_t errors = 0;
    int r = 0;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    value = (uint64_t)options.first << 20; /* sizes: a file may have so many bytes */
    for (unsigned i = 0; r == 0 && i < options.clients; i++)
        r = open_client(&clients[i], i);
    for (unsigned i = 0; i < min(options.readers, options.clients); i++)
        clients[i].reader = true;
    r = r ? r : make_directories(clients[0].cv);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", options.masters, cv_error_text(r));
        return 1;
    }
    for (unsigned i = 0; i < options.clients; i++)
        if (pthread_create(&clients[i].thread, NULL, work, &clients[i]))
            abort();
    uint64_t start = clock_ns();
    bool said = false;
    while (!stop && clock_ns() - start < options.seconds * NS_PER_S) {
        usleep(20000);
        if (!said && (said = all_changed())) {
            printf("running\n");
            fflush(stdout);
        }
    }
    stop = true;
    uint64_t stopped = clock_ns();
    for (unsigned i = 0; i < options.clients; i++) {
        struct client *c = &clients[i];
        pthread_join(c->thread, NULL);
        errors += c->errors;
        for (size_t k = 0; k < c->h.count; k++)
            *history_add(&all) = c->h.ops[k];
        curvine_close(c->cv);
    }
    printf("%zu operations of %u clients in %.1f s; the last one ended after %.1f s\n", all.count, options.clients,
           (double)(stopped - start) / 1e9, (double)(clock_ns() - stopped) / 1e9);
    fflush(stdout);
    r = history_write(&all, options.history);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", options.history, cv_error_text(r));
    return judge(&all, errors) || r < 0;
}

static int check(void)
{
    struct history h = {0};
    int r = history_read(&h, options.history);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", options.history, cv_error_text(r));
        return 2;
    }
    return judge(&h, 0);
}

static int send_signal(int argc, char **argv)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {{"KILL", SIGKILL}, {"STOP", SIGSTOP}, {"CONT", SIGCONT}, {"TERM", SIGTERM}};
    int number = 0;
    for (size_t i = 0; argc > 0 && i < array_size(known); i++)
        if (!strcmp(argv[0], known[i].name))
            number = known[i].number;
    FILE *f = options.kills && number ? fopen(options.kills, "ae") : NULL;
    if (!f)
        return 2;
    fprintf(f, "%" PRIu64 " %s %s\n", clock_ns(), argv[0], options.what);
    fclose(f);
    int bad = 0;
    for (int i = 1; i < argc; i++)
        bad |= kill((pid_t)atol(argv[i]), number);
    return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"masters", 1, NULL, 'm'}, {"history", 1, NULL, 'h'},
                                          {"kills", 1, NULL, 'k'},   {"clients", 1, NULL, 'c'},
                                          {"keys", 1, NULL, 'n'},    {"seconds", 1, NULL, 's'},
                                          {"root", 1, NULL, 'r'},    {"seed", 1, NULL, 'x'},
                                          {"what", 1, NULL, 'w'},    {"first", 1, NULL, 'f'},
                                          {"phases", 0, NULL, 'p'},  {"joint", 0, NULL, 'j'},
                                          {"readers", 1, NULL, 'l'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 'm': options.masters = optarg; break;
        case 'h': options.history = optarg; break;
        case 'k': options.kills = optarg; break;
        case 'c': options.clients = min((unsigned)atoi(optarg), (unsigned)CLIENTS_MAX / 2); break;
        case 'n': options.keys = max(1u, min((unsigned)atoi(optarg), (unsigned)KEYS_MAX)); break;
        case 's': options.seconds = (unsigned)atoi(optarg); break;
        case 'r': options.root = optarg; break;
        case 'x': options.seed = (uint64_t)atoll(optarg); break;
        case 'w': options.what = optarg; break;
        case 'f': options.first = min((unsigned)atoi(optarg), (unsigned)CLIENTS_MAX / 2); break;
        case 'p': options.phases = true; break;
        case 'j': options.joint = true; break;
        case 'l': options.readers = (unsigned)atoi(optarg); break;
        default: return 2;
        }
    const char *command = optind < argc ? argv[optind] : "";
    if (!strcmp(command, "run") && options.masters && options.history)
        return run();
    if (!strcmp(command, "check") && options.history)
        return check();
    if (!strcmp(command, "signal"))
        return send_signal(argc - optind - 1, argv + optind + 1);
    fprintf(stderr, "usage: see the top of cv_failover.c\n");
    return 2;
}
