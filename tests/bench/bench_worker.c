/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the way through the worker costs: a worker in a process of its own, one client with IN_FLIGHT requests, over its unix
 * socket and over TCP on the loopback.
 *
 *      bench_worker [directory]        (default: a new one in /var/tmp)
 *
 * Each figure is the median of ROUNDS rounds, each with the same reads (writes) of a plain file in the same round; the ratio
 * is to those. CPU: of the worker's process, per GiB. The client checks no checksums: what it costs is not the worker's.
 */
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "conf/config.h"
#include "rpc/rpc_client.h"
#include "wire/data_flags.h"
#include "worker/worker_daemon.h"
#include "worker/worker_dir.h"

enum { ROUNDS = 5, IN_FLIGHT = 8, FILE_MIB = 256 };
#define MIB   (1u << 20)
#define KIB   (1u << 10)
#define BLOCK (64u << 20)

static char dir[256], data_dir[300], plain_path[300], socket_path[300], tcp[64];
static pid_t worker_pid;
static struct prng prng = {1};

static void must(int r, const char *what)
{
    if (r < 0)
        log_fatal(r, "%s", what);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof(*v), by_value);
    return v[ROUNDS / 2];
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* ---- the worker's process --------------------------------------------------------------------------------------- */

static const struct option_section *const sections[] = {&cluster_section, &worker_section, NULL};

static void serve(int to_parent)
{
    struct config *config;
    struct worker_dir d;
    struct worker *w;
    uint64_t id;
    char text[900];
    must(worker_dir_parse(data_dir, &d), "directory");
    must(worker_dir_format(&d, uuid_new(), &id), "format");
    int n = snprintf(text, sizeof(text),
                     "cluster:\n  run_dir: %s\n  masters: [\"127.0.0.1:1\"]\nworker:\n  dirs: [\"[SSD:2GiB]%s\"]\n"
                     "  listen: 127.0.0.1\n  port: 0\n  http_port: 0\n",
                     dir, data_dir);
    must(config_new(sections, &config), "configuration");
    must(config_load_text(config, "bench", text, (size_t)n), config_errors(config));
    struct worker_config c = {.options = config_options(config, worker), .cluster = config_options(config, cluster)};
    must(worker_new(&c, &w), "worker");
    must(worker_start(w), "worker");
    uint16_t port = worker_port(w);
    if (write(to_parent, &port, sizeof(port)) != sizeof(port))
        _exit(1);
    pause();
    _exit(0);
}

static void start_worker(void)
{
    int ends[2];
    uint16_t port;
    must(pipe(ends) < 0 ? -errno : 0, "pipe");
    worker_pid = fork();
    if (worker_pid == 0)
        serve(ends[1]);
    if (read(ends[0], &port, sizeof(port)) != sizeof(port))
        log_fatal(-EIO, "the worker did not start");
    snprintf(socket_path, sizeof(socket_path), "unix:%s/worker.sock", dir);
    snprintf(tcp, sizeof(tcp), "127.0.0.1:%u", port);
}

static double worker_cpu(void)
{
    clockid_t clock;
    struct timespec t;
    clock_getcpuclockid(worker_pid, &clock);
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the client ------------------------------------------------------------------------------------------------- */

struct lane {
    struct rpc_call call;
    struct client *client;
};

struct client {
    struct loop *loop;
    struct rpc_client *rpc;
    const char *address;
    struct lane lanes[IN_FLIGHT];
    /* The job: count pieces of n bytes. */
    bool write, random;
    uint32_t n, count, started, ended;
    const uint8_t *data;
    uint32_t crc;
    sem_t done;
};

static struct rec_block block_of(uint64_t at, uint32_t length)
{
    return (struct rec_block){
        .inode = 1,
        .index = (uint32_t)(at / BLOCK),
        .version = 10,
        .epoch = 10,
        .valid_length = length,
        .block_bytes = BLOCK,
        .file_bytes = (uint64_t)FILE_MIB * MIB,
    };
}

static uint64_t place(const struct client *c, uint32_t i)
{
    uint32_t all = (uint32_t)((uint64_t)FILE_MIB * MIB / c->n);
    return (uint64_t)(c->random ? prng_below(&prng, all) : i % all) * c->n;
}

static void next(struct lane *l);

static void on_done(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct lane *l = container_of(call, struct lane, call);
    struct client *c = l->client;
    must(result, c->write ? "write" : "read");
    if (!c->write && f->header.data_len != c->n)
        log_fatal(-EIO, "short answer");
    if (++c->ended == c->count)
        sem_post(&c->done);
    else if (c->started < c->count)
        next(l);
}

static void next(struct lane *l)
{
    struct client *c = l->client;
    uint64_t at = place(c, c->started++);
    struct buf body = {0};
    l->call.done = on_done;
    if (c->write) {
        struct msg_block_write m = {.block = block_of(at, 0), .offset = (uint32_t)(at % BLOCK), .crc = c->crc};
        must(msg_block_write_encode(&m, &body), "encode");
    } else {
        struct msg_block_read m = {.block = block_of(at, BLOCK), .offset = (uint32_t)(at % BLOCK), .length = c->n};
        must(msg_block_read_encode(&m, &body), "encode");
    }
    rpc_client_call_body(c->rpc, &l->call, c->write ? MSG_block_write : MSG_block_read, 0, body.p, (uint32_t)body.n,
                         c->write ? c->data : NULL, c->write ? c->n : 0, UINT64_MAX);
    buf_fini(&body);
}

static int start_lanes(void *arg)
{
    struct client *c = arg;
    for (uint32_t i = 0; i < IN_FLIGHT && c->started < c->count; i++) {
        c->lanes[i] = (struct lane){.client = c};
        next(&c->lanes[i]);
    }
    return 0;
}

static int make_client(void *arg)
{
    struct client *c = arg;
    struct rpc_client_options o = {
        .address = c->address, .self = {.role = RPC_CLIENT, .program = "bench"}, .session = 1};
    return rpc_client_new(c->loop, &o, &c->rpc);
}

static void connect_to(struct client *c, const char *address)
{
    *c = (struct client){.address = address};
    sem_init(&c->done, 0, 0);
    must(loop_new(NULL, &c->loop), "loop");
    must(loop_start(c->loop), "loop");
    must(loop_call(c->loop, make_client, c), "connect");
}

/* Seconds. */
static double through_worker(struct client *c, bool write, bool random, uint32_t n, uint32_t count, const uint8_t *data)
{
    c->write = write;
    c->random = random;
    c->n = n;
    c->count = count;
    c->started = c->ended = 0;
    c->data = data;
    c->crc = data ? crc32c(0, data, n) : 0;
    uint64_t begin = clock_ns();
    must(loop_call(c->loop, start_lanes, c), "start");
    while (sem_wait(&c->done) < 0)
        ;
    return (double)(clock_ns() - begin) / 1e9;
}

/* ---- the plain file --------------------------------------------------------------------------------------------- */

static double plainly(bool write, bool random, uint32_t n, uint32_t count, uint8_t *data)
{
    int fd = open(plain_path, O_RDWR | O_CREAT, 0600);
    uint32_t all = (uint32_t)((uint64_t)FILE_MIB * MIB / n);
    must(fd < 0 ? -errno : 0, "open");
    uint64_t begin = clock_ns();
    for (uint32_t i = 0; i < count; i++) {
        off_t at = (off_t)(random ? prng_below(&prng, all) : i % all) * n;
        ssize_t did = write ? pwrite(fd, data, n, at) : pread(fd, data, n, at);
        must(did == (ssize_t)n ? 0 : -EIO, "plain file");
    }
    double took = (double)(clock_ns() - begin) / 1e9;
    close(fd);
    return took;
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */

static void measure(const char *what, const char *address, bool write, bool random, uint32_t n, uint32_t count)
{
    struct client c;
    double rate[ROUNDS], ratio[ROUNDS], cpu[ROUNDS];
    uint8_t *data = malloc(n);
    memset(data, 7, n);
    connect_to(&c, address);
    for (int i = 0; i < ROUNDS; i++) {
        double plain = plainly(write, random, n, count, data);
        double before = worker_cpu(), took = through_worker(&c, write, random, n, count, write ? data : NULL);
        double gib = (double)n * count / (1 << 30);
        rate[i] = n >= 64 * KIB ? gib / took : count / took / 1000;
        ratio[i] = plain / took;
        cpu[i] = (worker_cpu() - before) / gib;
    }
    printf("%-28s %7.2f %-7s %5.2f of the plain file, %6.2f s CPU a GiB\n", what, median(rate),
           n >= 64 * KIB ? "GiB/s" : "k/s", median(ratio), median(cpu));
    fflush(stdout);
    free(data);
}

int main(int argc, char **argv)
{
    snprintf(dir, sizeof(dir), "%s", argc > 1 ? argv[1] : "/var/tmp/bench_worker.XXXXXX");
    if (argc < 2 && !mkdtemp(dir))
        return 1;
    snprintf(data_dir, sizeof(data_dir), "%s/data", dir);
    snprintf(plain_path, sizeof(plain_path), "%s/plain", dir);
    log_set_level(LOG_LEVEL_ERROR);
    start_worker();
    printf("%d in flight, file of %d MiB, %d rounds\n", IN_FLIGHT, FILE_MIB, ROUNDS);
    uint8_t *data = calloc(1, MIB);
    plainly(true, false, MIB, FILE_MIB, data);
    measure("write 1 MiB, unix", socket_path, true, false, MIB, FILE_MIB);
    measure("write 128 KiB, unix", socket_path, true, false, 128 * KIB, FILE_MIB * 8);
    measure("write 128 KiB, TCP", tcp, true, false, 128 * KIB, FILE_MIB * 8);
    measure("read 256 KiB, unix", socket_path, false, false, 256 * KIB, FILE_MIB * 4);
    measure("read 256 KiB, TCP", tcp, false, false, 256 * KIB, FILE_MIB * 4);
    measure("read 256 KiB random, TCP", tcp, false, true, 256 * KIB, FILE_MIB * 4);
    measure("read 4 KiB random, unix", socket_path, false, true, 4 * KIB, 20000);
    measure("read 4 KiB random, TCP", tcp, false, true, 4 * KIB, 20000);
    kill(worker_pid, SIGKILL);
    waitpid(worker_pid, NULL, 0);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(data);
    return 0;
}
