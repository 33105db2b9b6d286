/* SPDX-License-Identifier: Apache-2.0 */
/* cv local up, down, status: a cluster on this machine. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/local.h"
#include "cli/process.h"
#include "cli/unmount.h"

#define UP_MS   60000
#define DOWN_MS 60000

/* Behind the options. */
static int find_dir(struct cli *cli, int argc, char *dir, size_t size)
{
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    int r = local_dir(cli, dir, size);
    if (r == -ENAMETOOLONG)
        return cli_fail(cli, r, "unix sockets live in it, whose names are short: choose --dir of at most 80 bytes",
                        "directory");
    return r < 0 ? cli_fail(cli, r, "say which: --dir DIR", "directory") : CLI_OK;
}

static uint64_t deadline(const struct cli *cli, uint64_t otherwise_ms)
{
    return clock_ns() + (cli->timeout_ms ? cli->timeout_ms : otherwise_ms) * NS_PER_MS;
}

/* ---- up ---------------------------------------------------------------------------------------------------------------------- */

static int start_all(struct cli *cli, const char *dir)
{
    uint64_t until = deadline(cli, UP_MS);
    struct local_daemon daemons[LOCAL_DAEMONS_MAX];
    unsigned n = local_daemons(dir, daemons);
    for (const struct local_daemon *d = daemons; d < daemons + n; d++) {
        pid_t pid = local_pid(dir, d);
        uint64_t start = clock_ns();
        if (pid) {
            fprintf(stderr, "%-10s runs already (pid %d)\n", d->name, (int)pid);
            continue;
        }
        int status = local_start(cli, dir, d, until, &pid);
        if (status != CLI_OK)
            return status;
        fprintf(stderr, "%-10s ready after %llu ms (pid %d)\n", d->name,
                (unsigned long long)((clock_ns() - start) / NS_PER_MS), (int)pid);
    }
    return CLI_OK;
}

/* The root of a new namespace is root's. Who starts the daemons may speak for root, and gets it: it is their cluster. */
static int own_root(struct cli *cli, struct curvine *cv)
{
    static const struct curvine_caller root = {0};
    struct curvine_attr attr;
    int r = geteuid() == 0 ? 0 : curvine_stat(cv, "/", 0, &attr);
    if (geteuid() == 0 || (r == 0 && attr.uid != 0))
        return CLI_OK;
    struct curvine_request q = {.op = CURVINE_SETATTR,
                                .caller = &root,
                                .inode = CURVINE_ROOT,
                                .valid = CURVINE_SET_UID | CURVINE_SET_GID,
                                .uid = geteuid(),
                                .gid = getegid()};
    if (r == 0)
        r = curvine_run(cv, &q);
    curvine_request_free(&q);
    return r < 0 ? cli_fail(cli, r, NULL, "give you the root of the namespace") : CLI_OK;
}

/* A daemon is ready when it listens: whether the cluster serves shows when it is asked. */
static int check_serves(struct cli *cli, const char *dir)
{
    struct curvine *cv cleanup(curvine_closep) = NULL;
    cli->dir = dir;
    int status = cli_connect(cli, &cv);
    if (status == CLI_OK)
        return own_root(cli, cv);
    struct local_daemon daemons[LOCAL_DAEMONS_MAX];
    unsigned n = local_daemons(dir, daemons);
    for (const struct local_daemon *d = daemons; d < daemons + n; d++) {
        char log[4200];
        snprintf(log, sizeof(log), "%s/log/%.23s.log", dir, d->name);
        process_show_log(log);
    }
    return status;
}

int cmd_local_up(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"capacity", required_argument, NULL, 'C'}, {"masters", required_argument, NULL, 'm'}, {0}};
    uint64_t capacity = 0;
    unsigned masters = 0;
    char dir[4096];
    for (int c; (c = cli_option(cli, argc, argv, "", options)) != -1;)
        switch (c) {
        case 'C':
            if (parse_size(optarg, &capacity) < 0 || capacity < 64 << 20)
                return cli_usage(cli, "--capacity %s: expected e.g. 8GiB, at least 64MiB", optarg);
            break;
        case 'm':
            masters = strlen(optarg) == 1 && optarg[0] >= '1' ? (unsigned)(optarg[0] - '0') : 0;
            if (masters < 1 || masters > LOCAL_MASTERS_MAX)
                return cli_usage(cli, "--masters %s: expected 1 to %d; 3 survive the loss of one", optarg,
                                 LOCAL_MASTERS_MAX);
            break;
        default: return cli_option_status();
        }
    int status = find_dir(cli, argc, dir, sizeof(dir));
    if (status != CLI_OK)
        return status;
    bool there = local_is_set_up(dir);
    if (there && capacity)
        return cli_usage(cli, "the cluster in '%s' is there: its capacity is worker.dirs in %s/curvine.yaml", dir, dir);
    if (there && masters && masters != local_masters(dir))
        return cli_usage(cli, "the cluster in '%s' is there, with %u: choose another --dir", dir, local_masters(dir));
    if (!there) {
        fprintf(stderr, "setting up a cluster in %s\n", dir);
        status = local_set_up(cli, dir, masters ? masters : 1, capacity);
    }
    if (status == CLI_OK)
        status = start_all(cli, dir);
    if (status == CLI_OK)
        status = check_serves(cli, dir);
    if (status != CLI_OK)
        return status;
    /* The usual directory is found without --dir. */
    char usual[4096] = "", with[4200] = "";
    struct cli without = {0};
    if (local_dir(&without, usual, sizeof(usual)) < 0 || strcmp(dir, usual) != 0)
        snprintf(with, sizeof(with), " --dir %s", dir);
    fprintf(stderr,
            "\nTry it:    cv%s fs put FILE :/ && cv%s fs ls\n"
            "Attach:    cv%s mount file:///SOME/DIR :/data     (or s3://BUCKET, see cv help mount)\n"
            "Mount:     cv%s mount :/ /SOME/EMPTY/DIR\n"
            "See it:    cv%s cluster status\n"
            "Stop it:   cv%s local down\n",
            with, with, with, with, with, with);
    return CLI_OK;
}

/* ---- down -------------------------------------------------------------------------------------------------------------------- */

struct leaving {
    struct cli *cli;
    enum unmount_how how;
    int status;
};

static int unmount_one(const struct host_mount *m, pid_t pid, void *arg)
{
    struct leaving *l = arg;
    l->status = unmount_here(l->cli, m->point, m, l->how);
    if (l->status == CLI_OK)
        fprintf(stderr, "%-8s unmounted\n", m->point);
    return l->status == CLI_OK ? 1 : -EBUSY; /* the list has changed: begin anew */
}

/* While the cluster runs, so that what was written through them gets there. */
static int unmount_all(struct cli *cli, const char *dir, enum unmount_how how)
{
    struct leaving l = {.cli = cli, .how = how};
    char point[4096];
    pid_t pid;
    while (local_each_mount(dir, unmount_one, &l) == 1)
        ;
    while (l.status == CLI_OK && (pid = local_unseen_mount(dir, point, sizeof(point))))
        l.status = unmount_elsewhere(cli, point, pid, how);
    if (l.status != CLI_OK)
        fprintf(stderr, "cv local down: nothing was stopped\n  try: cv local down --force, which fails what uses it\n");
    return l.status;
}

int cmd_local_down(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {0}};
    enum unmount_how how = UNMOUNT_NORMAL;
    char dir[4096];
    for (int c; (c = cli_option(cli, argc, argv, "f", options)) != -1;)
        switch (c) {
        case 'f': how = UNMOUNT_FORCE; break;
        default: return cli_option_status();
        }
    int status = find_dir(cli, argc, dir, sizeof(dir));
    if (status != CLI_OK)
        return status;
    if (!local_is_set_up(dir))
        return cli_fail(cli, -ENOENT, "which one? --dir DIR", "no cluster in '%s'", dir);
    status = unmount_all(cli, dir, how);
    if (status != CLI_OK)
        return status;
    uint64_t until = deadline(cli, DOWN_MS);
    struct local_daemon daemons[LOCAL_DAEMONS_MAX];
    unsigned n = local_daemons(dir, daemons);
    while (n-- > 0) {
        const struct local_daemon *d = &daemons[n];
        pid_t pid = local_pid(dir, d);
        int r = pid ? process_stop(pid, until) : 0;
        if (r < 0)
            return cli_fail(cli, r, "it goes on stopping; look at its log, or kill it: nothing acknowledged is lost",
                            "stop %s (pid %d)", d->program, (int)pid);
        fprintf(stderr, pid ? "%-10s stopped\n" : "%-10s did not run\n", d->name);
    }
    return CLI_OK;
}

/* ---- status ------------------------------------------------------------------------------------------------------------------ */

/* From /proc: resident bytes and when the process began. */
static bool process_facts(pid_t pid, uint64_t *rss, uint64_t *uptime_ms)
{
    char path[64], line[1024];
    unsigned long long pages = 0, start = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    char *got = fgets(line, sizeof(line), f);
    fclose(f);
    char *p = got ? strrchr(line, ')') : NULL;
    /* Fields behind the name: 3 state ... 22 start, 23 size, 24 resident pages. */
    if (!p ||
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu %*u %llu",
               &start, &pages) != 2)
        return false;
    *rss = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t began_ms = start * 1000 / (uint64_t)sysconf(_SC_CLK_TCK), now_ms = clock_ms();
    *uptime_ms = now_ms > began_ms ? now_ms - began_ms : 0;
    return true;
}

static void add_process(struct out *o, const char *name, pid_t pid)
{
    uint64_t rss, uptime_ms;
    out_text(o, name);
    out_text(o, pid ? "running" : "stopped");
    out_colour(o, pid ? OUT_GOOD : OUT_BAD);
    if (pid && process_facts(pid, &rss, &uptime_ms)) {
        out_number(o, (uint64_t)pid);
        out_number(o, uptime_ms);
        out_number(o, rss);
        return;
    }
    for (int i = 0; i < 3; i++)
        out_text(o, NULL);
}

static int add_mount(const struct host_mount *m, pid_t pid, void *arg)
{
    char name[4200];
    snprintf(name, sizeof(name), "cv-fuse %s", m->point);
    add_process(arg, name, pid);
    out_text(arg, NULL);
    return 0;
}

int cmd_local_status(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"daemon", OUT_TEXT},     {"state", OUT_TEXT},  {"pid", OUT_NUMBER},
        {"uptime", OUT_DURATION}, {"memory", OUT_SIZE}, {"log", OUT_TEXT},
    };
    char dir[4096], log[4200];
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    int status = find_dir(cli, argc, dir, sizeof(dir));
    if (status != CLI_OK)
        return status;
    if (!local_is_set_up(dir))
        return cli_fail(cli, -ENOENT, "make one: cv local up", "no cluster in '%s'", dir);
    struct out *o = out_table(columns, array_size(columns));
    struct local_daemon daemons[LOCAL_DAEMONS_MAX];
    unsigned running = 0, all = local_daemons(dir, daemons);
    for (const struct local_daemon *d = daemons; d < daemons + all; d++) {
        pid_t pid = local_pid(dir, d);
        char name[32];
        snprintf(name, sizeof(name), "cv-%.23s", d->name);
        add_process(o, name, pid);
        running += pid != 0;
        snprintf(log, sizeof(log), "%s/log/%.23s.log", dir, d->name);
        out_text(o, log);
    }
    local_each_mount(dir, add_mount, o);
    status = cli_print(cli, o);
    if (status == CLI_OK && running < all) {
        fprintf(stderr, "\n  try: cv local up%s%s\n", cli->dir ? " --dir " : "", cli->dir ? cli->dir : "");
        status = running ? CLI_DEGRADED : CLI_UNREACHABLE;
    }
    return status;
}
