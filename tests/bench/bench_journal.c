/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the journal costs: a real log on the file system of the directory given (default: a new one in /var/tmp), the
 * real threads, and one master's connection made of plain calls, in one process.
 *
 *      bench_journal [-3] [directory]      -3: only what follows last: one journal and three, connected over loopback
 *
 * Limits in the same run and on the same file system, taken in turns with what they are compared with: append + fsync
 * of 4 KiB (and of the bytes of a group); figures are medians, rates are of whole rounds, ratios are what lasts.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/log.h"
#include "raft/journal.h"
#include "raft/journal_store.h"
#include "tests/link_client.h"

enum { ENTRY = 16000, OPS = 100, ROUNDS = 9, LONE = 300, STORE = 300 };

static const struct uuid cluster = {{42}};
static char dir[256], log_dir[300], socket_path[300];
static uint8_t data[1 << 20];

static void check(int r, const char *what)
{
    if (r < 0)
        log_fatal(r, "%s", what);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(uint64_t *ns, uint32_t n, double q)
{
    qsort(ns, n, sizeof(*ns), by_value);
    return (double)ns[(uint32_t)((n - 1) * q)] / 1000;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* ---- limits ---- */

/* n appends of size bytes with fdatasync; raw: behind preallocated, already written space when `over` is set. */
static void raw_appends(const char *name, uint32_t size, uint32_t n, bool preallocated, bool over, uint64_t *ret_ns)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(fd < 0 ? -errno : 0, path);
    if (preallocated)
        check(posix_fallocate(fd, 0, (off_t)size * n) ? -EIO : 0, "fallocate");
    for (uint32_t i = 0; over && i < n; i++)
        check(pwrite(fd, data, size, (off_t)size * i) == size ? 0 : -EIO, "write");
    check(fsync(fd) < 0 ? -errno : 0, "fsync");
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin = clock_ns();
        check(pwrite(fd, data, size, (off_t)size * i) == size ? 0 : -EIO, "write");
        check(fdatasync(fd) < 0 ? -errno : 0, "fdatasync");
        ret_ns[i] = clock_ns() - begin;
    }
    close(fd);
    unlink(path);
}

/* ---- the store alone ---- */

static void format(void)
{
    struct raft_conf conf = {.count = 1};
    conf.members[0] = (struct raft_member){.id = 7, .role = RAFT_VOTER, .raft_address = "h:1"};
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct journal_format f = {.cluster = cluster, .node = 7, .conf = encoded};
    f.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
    check(journal_store_format(log_dir, &f, NULL), "format");
}

/* One writer calling the store: no thread to wake, no socket. */
static void store_appends(struct journal_store *s, uint32_t size, uint32_t count, uint32_t n, uint64_t *ret_ns)
{
    struct journal_entry entries[64], *list[64];
    for (uint32_t i = 0; i < n; i++) {
        uint64_t next = journal_store_state(s)->last + 1;
        for (uint32_t k = 0; k < count; k++) {
            entries[k] =
                (struct journal_entry){.index = next + k, .term = 1, .data = data, .size = size, .type = RAFT_BATCH};
            entries[k].data_crc = crc32c(0, data, size);
            list[k] = &entries[k];
        }
        struct journal_unit unit = {.term = 1, .entries = list, .count = count};
        uint64_t begin = clock_ns();
        check(journal_store_add(s, &unit), "add");
        check(journal_store_sync(s, begin), "sync");
        ret_ns[i] = clock_ns() - begin;
    }
}

static void bench_store(void)
{
    static uint64_t raw[ROUNDS][STORE], over[ROUNDS][STORE], pre[ROUNDS][STORE], ours[ROUNDS][STORE];
    struct journal_store *s;
    check(journal_store_open(log_dir, NULL, NULL, &s), "open");
    store_appends(s, 100, 1, STORE, ours[0]); /* warm */
    for (int r = 0; r < ROUNDS; r++) {
        raw_appends("raw", 4096, STORE, false, false, raw[r]);
        store_appends(s, 4096, 1, STORE, ours[r]);
        raw_appends("raw", 4096, STORE, true, false, pre[r]);
        raw_appends("raw", 4096, STORE, true, true, over[r]);
    }
    double append = quantile_us(raw[0], ROUNDS * STORE, 0.5), mine = quantile_us(ours[0], ROUNDS * STORE, 0.5);
    printf("4 KiB write + fdatasync    append %.0f us, preallocated %.0f us, over written space %.0f us\n", append,
           quantile_us(pre[0], ROUNDS * STORE, 0.5), quantile_us(over[0], ROUNDS * STORE, 0.5));
    printf("store, one 4 KiB entry     %.0f us p50, %.0f us p99: %.2f of the append\n", mine,
           quantile_us(ours[0], ROUNDS * STORE, 0.99), mine / append);
    static const uint32_t counts[] = {1, 16, 64};
    for (uint32_t k = 0; k < array_size(counts); k++) {
        for (int r = 0; r < ROUNDS; r++) {
            raw_appends("raw", ENTRY * counts[k], 40, false, false, raw[0] + r * 40);
            store_appends(s, ENTRY, counts[k], 40, ours[0] + r * 40);
        }
        append = quantile_us(raw[0], ROUNDS * 40, 0.5);
        mine = quantile_us(ours[0], ROUNDS * 40, 0.5);
        printf("store, group of %2u         %.0f us p50 (%.0f entries/s); append + fdatasync of the same bytes %.0f "
               "us: %.2f\n",
               counts[k], mine, counts[k] * 1e6 / mine, append, mine / append);
    }
    journal_store_free(s);
}

/* ---- through the link ---- */

static uint64_t committed_ns; /* when the client saw it */

/* Propose n entries with at most window in flight. Returns ns a whole. */
static uint64_t pump(struct link_client *c, uint64_t *sequence, uint32_t n, uint32_t window, uint32_t size)
{
    uint64_t begin = clock_ns(), base = c->committed;
    uint32_t sent = 0;
    while (c->committed - base < n) {
        while (sent < n && sent - (c->committed - base) < window) {
            check(link_client_propose(c, c->role.term, (*sequence)++, data, size, OPS), "propose");
            sent++;
        }
        struct link_frame f;
        check(link_client_receive(c, 30000, &f), "receive");
        check(link_client_take(c, &f, NULL, NULL), "take");
        if (c->rejected_from)
            log_fatal(-(int)c->rejected_error, "rejected");
    }
    committed_ns = clock_ns();
    return committed_ns - begin;
}

static void bench_lone(struct link_client *c, uint64_t *sequence, uint32_t size)
{
    static uint64_t raw[ROUNDS][LONE], lone[ROUNDS][LONE];
    pump(c, sequence, LONE, 1, size);
    for (int r = 0; r < ROUNDS; r++) {
        raw_appends("raw", 4096, LONE, false, false, raw[r]);
        for (uint32_t i = 0; i < LONE; i++)
            lone[r][i] = pump(c, sequence, 1, 1, size);
    }
    double append = quantile_us(raw[0], ROUNDS * LONE, 0.5), mine = quantile_us(lone[0], ROUNDS * LONE, 0.5);
    printf("lone proposal of %5u B    %.0f us p50, %.0f us p99; 4 KiB append + fdatasync %.0f us: %.2f, %+.0f us\n",
           size, mine, quantile_us(lone[0], ROUNDS * LONE, 0.99), append, mine / append, mine - append);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static uint64_t counter_of(struct metrics *m, const char *name)
{
    struct buf text cleanup(buf_fini) = {0};
    check(metrics_write_text(m, &text), "metrics");
    check(buf_append(&text, "", 1), "metrics");
    char line[100];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr((char *)text.p, line);
    return at ? strtoull(at + strlen(line), NULL, 10) : 0;
}

static void bench_windows(struct link_client *c, uint64_t *sequence, struct metrics *m)
{
    static const uint32_t windows[] = {1, 4, 16, 64};
    for (uint32_t w = 0; w < array_size(windows); w++) {
        uint64_t ns[ROUNDS], syncs = counter_of(m, "curvine_journal_syncs_total");
        uint32_t n = windows[w] < 16 ? 400 : 1500;
        double cpu = cpu_seconds();
        for (int r = 0; r < ROUNDS; r++)
            ns[r] = pump(c, sequence, n, windows[w], ENTRY);
        cpu = cpu_seconds() - cpu;
        syncs = counter_of(m, "curvine_journal_syncs_total") - syncs;
        double us = quantile_us(ns, ROUNDS, 0.5), rate = n * 1e6 / us;
        printf("window %2u                  %.0f entries/s, %.0f operations/s, %.0f MB/s, %.2f ms mean, %.1f entries a "
               "sync, "
               "%.0f us CPU an entry (client too)\n",
               windows[w], rate, rate * OPS, rate * ENTRY / 1e6, us * windows[w] / n / 1000,
               (double)n * ROUNDS / (double)syncs, cpu * 1e6 / n / ROUNDS);
    }
}

static uint64_t rss_bytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%lu %lu", &pages, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return resident * 4096;
}

static void bench_link(void)
{
    struct journal_options options = {.dir = log_dir,
                                      .listen = (char *)(uintptr_t) "127.0.0.1",
                                      .socket = socket_path,
                                      .tick_ms = 10,
                                      .heartbeat_ms = 50,
                                      .election_ms = 500,
                                      .uncommitted_bytes = 64 << 20,
                                      .cache_bytes = 256 << 20,
                                      .keep_entries = 100000,
                                      .log_bytes_max = 16ull << 30};
    struct metrics *m;
    check(metrics_new(&m), "metrics");
    struct journal_config config = {.options = &options, .run_dir = dir, .metrics = m};
    struct journal *j;
    uint64_t before = rss_bytes();
    check(journal_start(&config, &j), "start");
    struct link_client c;
    check(link_client_attach(&c, socket_path, cluster, 0), "attach");
    check(link_client_lead(&c, 60000, NULL, NULL), "lead"); /* takes all entries */
    printf("memory at start            %.1f MB\n", (double)(rss_bytes() - before) / 1e6);
    uint64_t sequence = 1;
    bench_lone(&c, &sequence, 200);
    bench_lone(&c, &sequence, 4096);
    bench_windows(&c, &sequence, m);
    printf("memory at the end          %.1f MB (cache of one voter: 64 MiB, RocksDB: two memtables of 64 MiB)\n",
           (double)(rss_bytes() - before) / 1e6);
    link_client_close(&c);
    journal_stop(j);
    metrics_free(m);
}

/* ---- one journal and three ---- */

enum { NODES = 3, SMALL = 200, PROPOSALS = 6000 };

struct bench_node {
    char dir[320], socket[320];
    struct journal_options options;
    struct metrics *metrics;
    struct journal *journal;
};

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0, "bind");
    check(getsockname(fd, (struct sockaddr *)&a, &n) < 0 ? -errno : 0, "getsockname");
    close(fd);
    return ntohs(a.sin_port);
}

static void start_nodes(struct bench_node *nodes, uint32_t count)
{
    struct raft_conf conf = {.count = 0};
    for (uint32_t i = 0; i < count; i++) {
        struct bench_node *n = &nodes[i];
        snprintf(n->dir, sizeof(n->dir), "%s/of%u-%u", dir, count, i);
        snprintf(n->socket, sizeof(n->socket), "%s/sock%u-%u", dir, count, i);
        n->options = (struct journal_options){.dir = n->dir,
                                              .listen = (char *)(uintptr_t) "127.0.0.1",
                                              .port = free_port(),
                                              .socket = n->socket,
                                              .tick_ms = 10,
                                              .heartbeat_ms = 50,
                                              .election_ms = 500,
                                              .uncommitted_bytes = 64 << 20,
                                              .cache_bytes = 64 << 20,
                                              .memtable_bytes = 16 << 20,
                                              .keep_entries = 100000,
                                              .log_bytes_max = 16ull << 30};
        struct raft_member m = {.id = 10 + i, .role = RAFT_VOTER};
        snprintf(m.raft_address, sizeof(m.raft_address), "127.0.0.1:%u", n->options.port);
        check(raft_conf_put(&conf, &m), "member");
    }
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct journal_format f = {.cluster = cluster, .conf = encoded};
    f.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
    for (uint32_t i = 0; i < count; i++) {
        struct bench_node *n = &nodes[i];
        f.node = 10 + i;
        check(journal_store_format(n->dir, &f, NULL), "format");
        check(metrics_new(&n->metrics), "metrics");
        struct journal_config config = {.options = &n->options, .run_dir = dir, .metrics = n->metrics};
        check(journal_start(&config, &n->journal), "start");
    }
}

static _Atomic bool healthy;

static void *run_health(void *socket)
{
    struct link_client c;
    check(link_client_connect(&c, socket), "connect");
    for (uint64_t beat = 1; healthy; usleep(LINK_HEALTH_MS * 1000)) {
        struct msg_link_health m = {.beat = beat++, .master = 1 + (uint64_t)getpid()};
        check(link_client_send(&c, MSG_link_health, &m, NULL, 0), "health");
    }
    link_client_close(&c);
    return NULL;
}

/* As pump(), with the time each proposal took until the client saw it committed. */
static uint64_t pump_timed(struct link_client *c, uint64_t *sequence, uint32_t window, uint64_t *ret_ns)
{
    static uint64_t at[PROPOSALS];
    uint64_t begin = clock_ns(), base = c->committed;
    uint32_t sent = 0, done = 0;
    while (done < PROPOSALS) {
        for (; sent < PROPOSALS && sent - done < window; sent++) {
            at[sent] = clock_ns();
            check(link_client_propose(c, c->role.term, (*sequence)++, data, SMALL, 1), "propose");
        }
        struct link_frame f;
        check(link_client_receive(c, 30000, &f), "receive");
        check(link_client_take(c, &f, NULL, NULL), "take");
        if (c->rejected_from)
            log_fatal(-(int)c->rejected_error, "rejected");
        for (uint64_t now = clock_ns(); done < c->committed - base; done++)
            ret_ns[done] = now - at[done];
    }
    return clock_ns() - begin;
}

/* CPU of the threads of one name, in seconds. */
static double thread_seconds(const char *name)
{
    double sum = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        char path[300], line[600] = "", *rest;
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof(path), "/proc/self/task/%s/stat", e->d_name);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        if (fgets(line, sizeof(line), f) && strstr(line, name) && (rest = strrchr(line, ')')) &&
            sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            sum += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        fclose(f);
    }
    if (tasks)
        closedir(tasks);
    return sum;
}

static void bench_nodes(uint32_t count)
{
    static struct bench_node nodes[NODES];
    static uint64_t ns[PROPOSALS];
    memset(nodes, 0, sizeof(nodes));
    start_nodes(nodes, count);
    struct link_client c;
    pthread_t health;
    uint64_t sequence = 1;
    check(link_client_attach(&c, nodes[0].socket, cluster, 0), "attach"); /* only this one can lead */
    healthy = true;
    pthread_create(&health, NULL, run_health, nodes[0].socket);
    check(link_client_lead(&c, 60000, NULL, NULL), "lead");
    (void)pump_timed(&c, &sequence, 40, ns); /* warm */
    static const uint32_t windows[] = {1, 40, 400};
    for (uint32_t w = 0; w < array_size(windows); w++) {
        uint64_t syncs = counter_of(nodes[0].metrics, "curvine_journal_syncs_total");
        double cpu = cpu_seconds(), loops = thread_seconds("(journal)"), writers = thread_seconds("(log-writer)");
        double seconds = (double)pump_timed(&c, &sequence, windows[w], ns) / 1e9;
        cpu = cpu_seconds() - cpu;
        syncs = counter_of(nodes[0].metrics, "curvine_journal_syncs_total") - syncs;
        printf("%u journal%s, %3u in flight  %.0f proposals/s, %.0f us p50, %.0f us p99, %.1f entries a sync, %.0f us "
               "CPU a "
               "proposal (loops %.0f, log writers %.0f, client the rest)\n",
               count, count > 1 ? "s" : " ", windows[w], PROPOSALS / seconds, quantile_us(ns, PROPOSALS, 0.5),
               quantile_us(ns, PROPOSALS, 0.99), (double)PROPOSALS / (double)syncs, cpu * 1e6 / PROPOSALS,
               (thread_seconds("(journal)") - loops) * 1e6 / PROPOSALS,
               (thread_seconds("(log-writer)") - writers) * 1e6 / PROPOSALS);
    }
    healthy = false;
    pthread_join(health, NULL);
    link_client_close(&c);
    for (uint32_t i = 0; i < count; i++) {
        journal_stop(nodes[i].journal);
        metrics_free(nodes[i].metrics);
    }
}

int main(int argc, char **argv)
{
    bool only = argc > 1 && strcmp(argv[1], "-3") == 0;
    argc -= only;
    argv += only;
    log_set_level(LOG_LEVEL_WARN);
    snprintf(dir, sizeof(dir), "%s/cv-bench-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    check(mkdtemp(dir) ? 0 : -errno, dir);
    snprintf(log_dir, sizeof(log_dir), "%s/journal", dir);
    snprintf(socket_path, sizeof(socket_path), "%s/sock", dir);
    memset(data, 'x', sizeof(data));
    if (!only) {
        format();
        bench_store();
        bench_link();
    }
    bench_nodes(1);
    bench_nodes(NODES);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
