/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A master that only proposes, with an oracle: every payload is different, what is about to be proposed and what was
 * told committed goes to a log that no daemon knows of. The journal may be killed under it at any time: it reconnects,
 * attaches with what it was told, and goes on.
 *
 *      cv-proposer --socket PATH --cluster UUID --log FILE [--window N] [--size BYTES] [--rate PER_SECOND] [--seconds S]
 *
 * Log lines, one write each: "P <crc> <size>" before a proposal is sent, "C <index> <crc> <size>" when a batch was told
 * committed (own or, after a reconnect, as an entry). A log that exists is continued behind its last C line. Ends after
 * S seconds or on SIGTERM, with status 0; 1 when the journal broke a promise. tests/tools/journal-oracle holds the log
 * against a dump.
 */
#include <assert.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>

#include "base/log.h"
#include "base/random.h"
#include "tests/link_client.h"

enum { WINDOW_MAX = 1024, RETRY_MS = 20 };

struct proposal {
    uint32_t crc, size;
};

static const char *socket_path;
static struct uuid cluster;
static uint32_t window = 16, size_max = 8000, rate; /* rate 0: as fast as it goes */
static int log_fd = -1;
static uint64_t applied; /* told committed, and noted */
/* By sequence since the role was answered. */
static struct proposal inflight[WINDOW_MAX];
static uint64_t index_of[WINDOW_MAX];
static uint64_t sent, proposed, noted; /* sequences sent, numbered, told committed */
static volatile sig_atomic_t stop;
static struct prng prng;

static void on_term(int signal)
{
    stop = 1;
}

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
    char line[100];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (write(log_fd, line, (size_t)n) != n)
        log_fatal(-errno, "write the oracle's log");
}

static void broken(const char *what)
{
    log_error(0, "the journal broke a promise: %s", what);
    exit(1);
}

/* An entry that another connection, or none of ours, proposed. */
static void on_entry(void *arg, const struct rec_link_entry *e, const uint8_t *data)
{
    if (e->index != applied + 1)
        broken("entries out of order");
    applied = e->index;
    if (e->type == LINK_BATCH)
        note("C %" PRIu64 " %u %u\n", e->index, e->crc, e->length);
}

static void on_committed(uint64_t index)
{
    while (noted < proposed && index_of[(noted + 1) % WINDOW_MAX] <= index) {
        noted++;
        const struct proposal *p = &inflight[noted % WINDOW_MAX];
        note("C %" PRIu64 " %u %u\n", index_of[noted % WINDOW_MAX], p->crc, p->size);
    }
    if (index < applied)
        broken("committed went back");
    applied = index;
}

static int on_proposed(const struct link_frame *f)
{
    struct msg_link_proposed m;
    int r = msg_link_proposed_decode(f->body, f->header.body_len, &m);
    if (r < 0)
        return r;
    if (m.first_sequence != proposed + 1 || proposed + m.count > sent || m.first_index <= applied)
        broken("wrong numbers for proposals");
    for (uint32_t i = 0; i < m.count; i++)
        index_of[++proposed % WINDOW_MAX] = m.first_index + i;
    return 0;
}

static int take(struct link_client *c, int timeout_ms)
{
    struct link_frame f;
    int r = link_client_receive(c, timeout_ms, &f);
    if (r < 0)
        return r;
    uint64_t committed = c->committed;
    r = link_client_take(c, &f, on_entry, NULL);
    if (r == 0 && f.header.type == MSG_link_proposed)
        r = on_proposed(&f);
    if (r == 0 && f.header.type == MSG_link_committed && c->committed > committed)
        on_committed(c->committed);
    if (r == 0 && (f.header.type == MSG_link_rejected || c->role.role != LINK_LEADER))
        r = -CV_NOT_LEADER;
    return r;
}

/* Signs of health for the attached connection, on one of their own. */
static void *run_health(void *arg)
{
    for (uint64_t beat = 1; !stop; usleep(LINK_HEALTH_MS * 1000)) {
        struct link_client c;
        int r = link_client_connect(&c, socket_path);
        for (; r == 0 && !stop; usleep(LINK_HEALTH_MS * 1000)) {
            struct msg_link_health m = {.beat = beat++, .master = 1 + (uint64_t)getpid()};
            r = link_client_send(&c, MSG_link_health, &m, NULL, 0);
        }
        link_client_close(&c);
    }
    return NULL;
}

static int propose_one(struct link_client *c)
{
    static uint8_t data[1 << 20];
    uint32_t size = 8 + prng_below(&prng, size_max);
    for (uint32_t i = 0; i < size; i += 8) {
        uint64_t x = prng_next(&prng);
        memcpy(data + i, &x, sizeof(x));
    }
    sent++;
    inflight[sent % WINDOW_MAX] = (struct proposal){crc32c(0, data, size), size};
    note("P %u %u\n", inflight[sent % WINDOW_MAX].crc, size);
    return link_client_propose(c, c->role.term, sent, data, size, 1);
}

/* One connection, until it breaks. */
static int run_connection(uint64_t until_ms)
{
    struct link_client c;
    sent = proposed = noted = 0;
    int r = link_client_attach(&c, socket_path, cluster, applied);
    if (r == 0 && c.welcome.error)
        r = -(int)c.welcome.error;
    if (r == 0)
        r = link_client_lead(&c, 20000, on_entry, NULL);
    uint64_t began = clock_ms();
    while (r == 0 && !stop && clock_ms() < until_ms) {
        uint64_t may = rate ? (clock_ms() - began) * rate / 1000 : UINT64_MAX;
        while (r == 0 && sent - noted < window && sent < may)
            r = propose_one(&c);
        if (r == 0)
            r = take(&c, rate ? 5 : 20000);
        if (r == -ETIMEDOUT && rate)
            r = 0;
    }
    /* Orderly end: everything sent is waited for. */
    while (r == 0 && noted < sent)
        r = take(&c, 20000);
    link_client_close(&c);
    return r;
}

/* Go on behind what the log says was told. */
static void read_log(const char *path)
{
    FILE *f = fopen(path, "r");
    unsigned long long index;
    char line[200];
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "C %llu", &index) == 1)
            applied = index;
    if (f)
        fclose(f);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"socket", 1, NULL, 's'}, {"cluster", 1, NULL, 'c'}, {"log", 1, NULL, 'l'},  {"window", 1, NULL, 'w'},
        {"size", 1, NULL, 'z'},   {"seconds", 1, NULL, 't'}, {"rate", 1, NULL, 'r'}, {0}};
    const char *path = NULL;
    uint64_t seconds = 3600;
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (o) {
        case 's': socket_path = optarg; break;
        case 'c':
            if (uuid_parse(optarg, &cluster) < 0)
                return 2;
            break;
        case 'l': path = optarg; break;
        case 'w': window = (uint32_t)atoi(optarg); break;
        case 'z': size_max = (uint32_t)atoi(optarg); break;
        case 'r': rate = (uint32_t)atoi(optarg); break;
        case 't': seconds = strtoull(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (!path || !socket_path || window < 1 || window >= WINDOW_MAX || size_max > 1000000)
        return 2;
    read_log(path);
    log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        log_fatal(-errno, "open %s", path);
    prng.state = random_u64();
    signal(SIGTERM, on_term);
    pthread_t health;
    pthread_create(&health, NULL, run_health, NULL); /* ends with the process */
    uint64_t until = clock_ms() + seconds * 1000;
    int r = 0;
    while (!stop && clock_ms() < until) {
        r = run_connection(until);
        if (r == -CV_WRONG_CLUSTER || r == -CV_LOG_DAMAGED || r == -CV_BAD_CHECKSUM || r == -CV_BAD_MESSAGE) {
            log_error(r, "the journal refuses or lies");
            return 1;
        }
        usleep(RETRY_MS * 1000);
    }
    return 0;
}
