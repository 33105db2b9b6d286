/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a master with its journal does for clients: operations a second, latency, and CPU per operation by thread.
 *
 *      bench_master [-t seconds a round] [-r rounds] [-n files at most] [-c in flight] [-s socket -p pid,pid] [-a ack mode] [workload...]
 *
 * Starts cv-journal and cv-master of the same build in a directory of its own (TMPDIR), or uses a running master. One
 * client process, one connection on the unix socket, 1 or 40 requests in flight. Workloads:
 *
 *      mknod     a new file, no handle                  getattr   of a random file made before
 *      create    open(O_CREAT) and close: two requests  lookup    of a random name made before
 *      mkdir     a new, empty directory
 *
 * Files lie in directories of 1,000. Figures: median of the rounds; CPU by schedstat of each thread, over all rounds.
 */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "rpc/rpc_client.h"

#define SLOTS     64
#define PER_DIR   1000
#define FILES_MAX (8u << 20)
#define SAMPLES   (4u << 20)

enum workload { MKNOD, CREATE, MKDIR, GETATTR, LOOKUP, WORKLOADS };
static const char *const names[WORKLOADS] = {"mknod", "create", "mkdir", "getattr", "lookup"};

struct lane { /* one request in flight */
    struct rpc_call call;
    uint32_t slot;
    uint64_t sequence, began_ns;
    uint64_t inode, handle; /* to close; 0: nothing */
    uint64_t file;          /* what is being made */
};

static struct {
    struct loop *loop;
    struct rpc_client *client;
    uint64_t session;
    enum workload workload;
    uint32_t in_flight, running;
    uint64_t until_ns, done, began_ns, took_ns;
    struct lane lanes[SLOTS];
    uint64_t dir, dir_files; /* where files are made */
    uint64_t *inodes, file_count;
    struct {
        uint64_t dir;
        uint32_t number;
    } * files;
    uint64_t made, files_max;
    uint32_t *samples, sample_count;
    struct prng prng;
    bool want_dir;
} b;

static char dir[200], bin[4096]; /* of the daemons, if they are ours */

static void die(int r, const char *what)
{
    log_fatal(r, "%s", what);
}

/* ---- calls ---------------------------------------------------------------------------------------------------------- */

static struct rec_op_head head(struct lane *l, bool mutation)
{
    return (struct rec_op_head){.session = b.session, .slot = l->slot, .sequence = mutation ? ++l->sequence : 0};
}

static void lane_done(struct rpc_call *call, int result, const struct rpc_frame *f);

static void call(struct lane *l, uint16_t type, const void *message)
{
    l->call.done = lane_done;
    rpc_client_call(b.client, &l->call, type, message_desc(type), message, UINT64_MAX);
}

static struct text file_name(uint64_t number, char *out)
{
    return (struct text){out, (uint32_t)sprintf(out, "file-%d-%010llu", (int)getpid(), (unsigned long long)number)};
}

static void next_op(struct lane *l)
{
    char name[48];
    l->began_ns = clock_ns();
    if (b.workload < GETATTR) {
        if (b.dir_files == PER_DIR && !b.want_dir) {
            b.want_dir = true; /* this lane makes the next directory */
            l->file = UINT64_MAX;
            struct msg_mkdir m = {.head = head(l, true), .parent = 1, .mode = 0755};
            m.name = (struct text){
                name, (uint32_t)sprintf(name, "dir-%d-%010llu", (int)getpid(), (unsigned long long)b.made)};
            return call(l, MSG_mkdir, &m);
        }
        l->file = b.made++;
        b.files[l->file].dir = b.dir;
        b.dir_files++;
        if (b.workload == MKNOD) {
            struct msg_mknod m = {.head = head(l, true), .parent = b.dir, .mode = S_IFREG | 0644};
            m.name = file_name(l->file, name);
            return call(l, MSG_mknod, &m);
        }
        if (b.workload == MKDIR) {
            struct msg_mkdir m = {.head = head(l, true), .parent = b.dir, .mode = 0755};
            m.name = file_name(l->file, name);
            return call(l, MSG_mkdir, &m);
        }
        struct msg_create m = {.head = head(l, true), .parent = b.dir, .mode = 0644, .flags = O_RDWR};
        m.name = file_name(l->file, name);
        return call(l, MSG_create, &m);
    }
    uint64_t i = prng_below(&b.prng, (uint32_t)b.file_count);
    if (b.workload == GETATTR) {
        struct msg_getattr m = {.head = head(l, false), .inode = b.inodes[i]};
        return call(l, MSG_getattr, &m);
    }
    struct msg_lookup m = {.head = head(l, false), .parent = b.files[i].dir, .name = file_name(i, name)};
    call(l, MSG_lookup, &m);
}

static struct loop_timer renew_timer;

static void finished(struct lane *l)
{
    uint64_t now = clock_ns();
    if (b.sample_count < SAMPLES)
        b.samples[b.sample_count++] = (uint32_t)min((now - l->began_ns) / 10, (uint64_t)UINT32_MAX);
    b.done++;
    if (now < b.until_ns && b.made + SLOTS < b.files_max)
        return next_op(l);
    b.took_ns = now - b.began_ns;
    if (--b.running > 0)
        return;
    loop_timer_stop(b.loop, &renew_timer);
    loop_stop(b.loop);
}

static void keep(uint64_t file, uint64_t inode)
{
    b.inodes[file] = inode;
    b.file_count = max(b.file_count, file + 1);
}

static void lane_done(struct rpc_call *c, int result, const struct rpc_frame *f)
{
    struct lane *l = container_of(c, struct lane, call);
    if (result < 0)
        die(result, message_name(f ? f->header.type : 0));
    struct msg_mknod_answer mknod;
    struct msg_mkdir_answer mkdir;
    struct msg_create_answer create;
    switch (f->header.type) {
    case MSG_mkdir_answer:
        msg_mkdir_answer_decode(f->body, f->header.body_len, &mkdir);
        if (l->file != UINT64_MAX) {
            keep(l->file, mkdir.attr.inode);
            break;
        }
        b.dir = mkdir.attr.inode;
        b.dir_files = 0;
        b.want_dir = false;
        return next_op(l);
    case MSG_mknod_answer:
        msg_mknod_answer_decode(f->body, f->header.body_len, &mknod);
        keep(l->file, mknod.attr.inode);
        break;
    case MSG_create_answer: {
        msg_create_answer_decode(f->body, f->header.body_len, &create);
        keep(l->file, create.attr.inode);
        struct msg_close m = {.head = head(l, false), .inode = create.attr.inode, .handle = create.handle};
        return call(l, MSG_close, &m);
    }
    default: break;
    }
    finished(l);
}

/* ---- CPU by thread -------------------------------------------------------------------------------------------------- */

struct thread_cpu {
    int pid, tid;
    char name[64];
    uint64_t ns;
};
#define THREADS_MAX 256
static struct thread_cpu before[THREADS_MAX];
static int before_count;
static int pids[4], pid_count;

static int read_cpu(struct thread_cpu *out)
{
    int n = 0;
    for (int i = 0; i < pid_count; i++) {
        char path[300];
        snprintf(path, sizeof(path), "/proc/%d/task", pids[i]);
        DIR *d = opendir(path);
        for (struct dirent *e; d && n < THREADS_MAX && (e = readdir(d));) {
            if (e->d_name[0] == '.')
                continue;
            struct thread_cpu *t = &out[n];
            *t = (struct thread_cpu){.pid = pids[i], .tid = atoi(e->d_name)};
            snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", t->pid, t->tid);
            FILE *f = fopen(path, "r");
            if (f && fgets(t->name, sizeof(t->name), f))
                t->name[strcspn(t->name, "\n")] = 0;
            if (f)
                fclose(f);
            snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", t->pid, t->tid);
            f = fopen(path, "r");
            unsigned long long ns = 0;
            if (f && fscanf(f, "%llu", &ns) == 1)
                t->ns = ns;
            if (f)
                fclose(f);
            n++;
        }
        if (d)
            closedir(d);
    }
    return n;
}

static void print_cpu(uint64_t ops)
{
    static struct thread_cpu after[THREADS_MAX];
    int n = read_cpu(after);
    printf("    CPU us/op:");
    for (int p = 0; p < pid_count; p++) {
        double total = 0;
        char line[512] = "";
        size_t at = 0;
        for (int i = 0; i < n; i++) {
            if (after[i].pid != pids[p])
                continue;
            uint64_t was = 0;
            for (int k = 0; k < before_count; k++)
                if (before[k].tid == after[i].tid)
                    was = before[k].ns;
            double us = (double)(after[i].ns - was) / 1000.0 / (double)ops;
            total += us;
            if (us >= 0.05 && at < sizeof(line) - 80)
                at += (size_t)snprintf(line + at, sizeof(line) - at, " %s %.2f", after[i].name, us);
        }
        printf(" %s %.2f [%s ]", p == 0 ? "master" : "journal", total, line);
    }
    printf("\n");
}

/* ---- rounds --------------------------------------------------------------------------------------------------------- */

static int by_number(const void *x, const void *y)
{
    uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
    return (p > q) - (p < q);
}

static int by_double(const void *x, const void *y)
{
    double p = *(const double *)x, q = *(const double *)y;
    return (p > q) - (p < q);
}

/* The session must not end in a long round. */
static struct rpc_call renew_call;

static void renewed(struct rpc_call *c, int result, const struct rpc_frame *f)
{
}

static void renew(struct loop_timer *timer)
{
    struct msg_session_renew m = {.session = b.session};
    if (!rpc_call_busy(&renew_call)) {
        renew_call.done = renewed;
        rpc_client_call(b.client, &renew_call, MSG_session_renew, msg_session_renew_desc(), &m, UINT64_MAX);
    }
    loop_timer_start(b.loop, timer, clock_ns() + 5 * NS_PER_S);
}

static void start_lanes(struct loop_job *job)
{
    loop_timer_init(&renew_timer, renew);
    renew(&renew_timer);
    b.began_ns = clock_ns();
    for (uint32_t i = 0; i < b.in_flight; i++)
        next_op(&b.lanes[i]);
}

static void new_loop(const char *socket);
static void drop_loop(void);

static double run_round(const char *socket, enum workload w, uint32_t in_flight, double seconds)
{
    b.workload = w;
    b.in_flight = b.running = in_flight;
    b.done = 0;
    b.until_ns = clock_ns() + (uint64_t)(seconds * 1e9);
    static struct loop_job job;
    job = (struct loop_job){.run = start_lanes};
    new_loop(socket);
    loop_post(b.loop, &job);
    loop_run(b.loop);
    drop_loop();
    return (double)b.done * 1e9 / (double)b.took_ns;
}

/* What the disk gives at this moment: median of small appends, each synced, in microseconds. */
static double sync_us(void)
{
    enum { N = 100 };
    static uint32_t took[N];
    char path[300], page[4096] = "x";
    const char *base = dir[0] ? dir : "/tmp";
    snprintf(path, sizeof(path), "%s/sync-test", base);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    for (int i = 0; i < N; i++) {
        uint64_t began = clock_ns();
        if (write(fd, page, sizeof(page)) != sizeof(page) || fdatasync(fd) < 0)
            die(-errno, path);
        took[i] = (uint32_t)(clock_ns() - began);
    }
    close(fd);
    unlink(path);
    qsort(took, N, sizeof(took[0]), by_number);
    size_t middle = N / 2;
    return took[middle] / 1000.0;
}

static void run(const char *socket, enum workload w, uint32_t in_flight, double seconds, int rounds)
{
    double rates[64], syncs[64];
    uint64_t ops = 0;
    if ((w == GETATTR || w == LOOKUP) && b.file_count == 0)
        run_round(socket, MKNOD, 40, seconds);
    b.sample_count = 0;
    before_count = read_cpu(before);
    for (int i = 0; i < rounds; i++) {
        syncs[i] = w < GETATTR ? sync_us() : 0;
        rates[i] = run_round(socket, w, in_flight, seconds);
        ops += b.done;
    }
    qsort(syncs, (size_t)rounds, sizeof(double), by_double);
    qsort(rates, (size_t)rounds, sizeof(double), by_double);
    qsort(b.samples, b.sample_count, sizeof(uint32_t), by_number);
    size_t p50 = b.sample_count / 2, p99 = (size_t)b.sample_count * 99 / 100;
    printf("%-8s %2u in flight: %8.0f /s (%.0f to %.0f)   p50 %.0f us, p99 %.0f us\n", names[w], in_flight,
           rates[rounds / 2], rates[0], rates[rounds - 1], b.samples[p50] / 100.0, b.samples[p99] / 100.0);
    if (w < GETATTR)
        printf("    a 4 KiB append with fdatasync took %.0f us between the rounds\n", syncs[rounds / 2]);
    print_cpu(ops);
    fflush(stdout);
}

/* ---- the client ----------------------------------------------------------------------------------------------------- */

static void new_loop(const char *socket)
{
    char address[200];
    snprintf(address, sizeof(address), "unix:%s", socket);
    struct rpc_client_options o = {.address = address, .self = {.role = RPC_CLIENT, .program = "bench_master"}};
    if (loop_new(&(struct loop_options){.name = "bench"}, &b.loop) < 0 || rpc_client_new(b.loop, &o, &b.client) < 0)
        die(-ENOMEM, "client");
}

static void closed(void *arg)
{
}

static void drop_loop(void)
{
    rpc_client_close(b.client, closed, NULL);
    loop_run(b.loop);
    loop_free(b.loop);
}

static int setup_error;

static void setup_done(struct rpc_call *c, int result, const struct rpc_frame *f)
{
    struct msg_session_open_answer session;
    setup_error = result;
    if (result == 0 && f->header.type == MSG_session_open_answer) {
        msg_session_open_answer_decode(f->body, f->header.body_len, &session);
        b.session = session.session;
    }
    loop_stop(b.loop);
}

static struct rpc_call setup_call;

static void setup_run(struct loop_job *job)
{
    struct msg_session_open m = {.host = TEXT("bench"), .program = TEXT("bench_master"), .slots = SLOTS};
    setup_call = (struct rpc_call){.done = setup_done};
    rpc_client_call(b.client, &setup_call, MSG_session_open, msg_session_open_desc(), &m, clock_ns() + NS_PER_S);
}

/* Until there is a leader. */
static void open_session(const char *socket)
{
    for (int i = 0; i < 200; i++) {
        static struct loop_job job;
        job = (struct loop_job){.run = setup_run};
        new_loop(socket);
        loop_post(b.loop, &job);
        loop_run(b.loop);
        drop_loop();
        if (setup_error == 0)
            return;
        usleep(50000);
    }
    die(setup_error, "open a session");
}

/* ---- the daemons ---------------------------------------------------------------------------------------------------- */

static int spawn(const char *program, char **argv)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/%s", bin, program);
    int pid = fork();
    if (pid == 0) {
        char log[300];
        snprintf(log, sizeof(log), "%s/%s.log", dir, program);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(path, argv);
        _exit(127);
    }
    return pid;
}

static void run_tool(const char *program, char **argv)
{
    int status, pid = spawn(program, argv);
    waitpid(pid, &status, 0);
    if (status)
        log_fatal(-EIO, "%s: see %s", program, dir);
}

#define ARGV(...)                                                                                                      \
    (char *[])                                                                                                         \
    {                                                                                                                  \
        __VA_ARGS__, NULL                                                                                              \
    }

static void start_daemons(const char *ack_mode)
{
    static char run_dir[300], master[340], journal[340], ack[64], m[300], j[300];
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/cv-bench-XXXXXX", base ? base : "/tmp");
    ssize_t n = readlink("/proc/self/exe", bin, sizeof(bin) - 1);
    if (!mkdtemp(dir) || n < 0)
        die(-errno, "temporary directory");
    bin[n] = 0;
    for (int i = 0; i < 2; i++)
        *strrchr(bin, '/') = 0;
    strcat(bin, "/bin");
    snprintf(run_dir, sizeof(run_dir), "cluster.run_dir=%s", dir);
    snprintf(m, sizeof(m), "%s/m", dir);
    snprintf(j, sizeof(j), "%s/j", dir);
    snprintf(master, sizeof(master), "master.dir=%s", m);
    snprintf(journal, sizeof(journal), "journal.dir=%s", j);
    snprintf(ack, sizeof(ack), "master.ack_mode=%s", ack_mode);
    static char id[] = "0f8fad5b-d9cb-469f-a165-70867728950e";
#define S(x) (char *)(uintptr_t)(x)
    run_tool("cv-master", ARGV(S("cv-master"), S("format"), S("--cluster"), id, S("--dir"), m));
    run_tool("cv-journal", ARGV(S("cv-journal"), S("format"), S("--cluster"), id, S("--dir"), j, S("--single")));
    pids[1] = spawn("cv-journal", ARGV(S("cv-journal"), S("--set"), run_dir, S("--set"), journal, S("--set"),
                                       S("journal.port=0"), S("--set"), S("journal.http_port=0")));
    pids[0] = spawn("cv-master", ARGV(S("cv-master"), S("--set"), run_dir, S("--set"), master, S("--set"),
                                      S("master.port=0"), S("--set"), S("master.http_port=0"), S("--set"),
                                      S("master.listen=127.0.0.1"), S("--set"), ack));
    pid_count = 2;
}

static void stop_daemons(void)
{
    for (int i = 0; i < pid_count; i++) {
        int status;
        kill(pids[i], SIGTERM);
        waitpid(pids[i], &status, 0);
        if (status)
            fprintf(stderr, "%s ended with status %x: see %s\n", i ? "cv-journal" : "cv-master", status, dir);
    }
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (dir[0] && !getenv("KEEP") && system(command) != 0)
        fprintf(stderr, "%s is left\n", dir);
}

int main(int argc, char **argv)
{
    double seconds = 1;
    b.files_max = FILES_MAX;
    int rounds = 5;
    uint32_t only = 0;
    char socket[300] = "";
    const char *ack_mode = "local";
    for (int c; (c = getopt(argc, argv, "t:r:n:c:s:p:a:")) != -1;)
        switch (c) {
        case 't': seconds = atof(optarg); break;
        case 'r': rounds = min(max(atoi(optarg), 1), 64); break;
        case 'n': b.files_max = min((uint64_t)atol(optarg) + SLOTS, (uint64_t)FILES_MAX); break;
        case 'c': only = min((uint32_t)atoi(optarg), (uint32_t)SLOTS); break;
        case 's': snprintf(socket, sizeof(socket), "%s", optarg); break;
        case 'p': pid_count = sscanf(optarg, "%d,%d", &pids[0], &pids[1]); break;
        case 'a': ack_mode = optarg; break;
        default: return 2;
        }
    log_set_level(LOG_LEVEL_ERROR);
    bool own = !socket[0];
    if (own) {
        start_daemons(ack_mode);
        snprintf(socket, sizeof(socket), "%s/master.sock", dir);
    }
    b.samples = malloc(SAMPLES * sizeof(uint32_t));
    b.files = calloc(FILES_MAX, sizeof(*b.files));
    b.inodes = calloc(FILES_MAX, sizeof(*b.inodes));
    b.dir = 1;
    b.dir_files = PER_DIR;
    for (uint32_t i = 0; i < SLOTS; i++)
        b.lanes[i].slot = i;
    open_session(socket);
    for (int w = 0; w < WORKLOADS; w++) {
        bool wanted = optind == argc;
        for (int i = optind; i < argc; i++)
            wanted |= !strcmp(argv[i], names[w]);
        if (!wanted)
            continue;
        if (!only || only != 40)
            run(socket, (enum workload)w, only ? only : 1, seconds, rounds);
        if (!only || only == 40)
            run(socket, (enum workload)w, 40, seconds, rounds);
    }
    if (own)
        stop_daemons();
    return 0;
}
