/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/local.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/error.h"
#include "base/uuid.h"
#include "cli/process.h"
#include "conf/dir_lock.h"

#define DIR_MAX      80 /* so that socket names fit in 107 bytes */
#define CAPACITY_MIN (256ull << 20)
#define CAPACITY_MAX (16ull << 30)

const struct local_daemon local_daemons[] = {
    {"journal", "cv-journal"}, {"master", "cv-master"}, {"worker", "cv-worker"}, {0}};

int local_dir(struct cli *cli, char *out, size_t size)
{
    const char *given = cli->dir ? cli->dir : getenv("CURVINE_LOCAL"), *home = getenv("HOME");
    int n;
    if (given && given[0] == '/') {
        n = snprintf(out, size, "%s", given);
    } else if (given) {
        char here[4096];
        if (!getcwd(here, sizeof(here)))
            return -errno;
        n = snprintf(out, size, "%s/%s", here, given);
    } else {
        if (!home || home[0] != '/')
            return -ENOENT;
        n = snprintf(out, size, "%s/.curvine", home);
    }
    while (n > 1 && n < (int)size && out[n - 1] == '/')
        out[--n] = '\0';
    return n >= (int)size || n > DIR_MAX ? -ENAMETOOLONG : 0;
}

bool local_is_set_up(const char *dir)
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id", dir);
    return access(path, F_OK) == 0;
}

/* ---- set-up -------------------------------------------------------------------------------------------------------------- */

/* A port nobody listens on now, from the range for such uses. */
static unsigned free_port(void)
{
    int fd cleanup(closep) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) < 0 || getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    return ntohs(a.sin_port);
}

/* What dir's names are now they stay, also after a power cut. */
static int sync_dir(const char *dir)
{
    int fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* A new file under another name: what is under its own is always whole. */
static FILE *begin_file(const char *path)
{
    char temporary[DIR_MAX + 64];
    snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    return fopen(temporary, "we");
}

static int end_file(FILE *f, const char *path, const char *dir)
{
    char temporary[DIR_MAX + 64];
    snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    int r = ferror(f) || fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    return r < 0 ? r : sync_dir(dir);
}

/* A tenth of what is free, not more than a developer's machine has to spare. */
static uint64_t default_capacity(const char *dir)
{
    struct statvfs s;
    uint64_t available = statvfs(dir, &s) == 0 ? (uint64_t)s.f_bavail * s.f_frsize : 0;
    return min(max(available / 10, CAPACITY_MIN), CAPACITY_MAX) >> 20 << 20;
}

static int write_config(const char *path, const char *dir, uint64_t capacity)
{
    if (access(path, F_OK) == 0)
        return 0; /* the user's from now on */
    capacity = capacity ? capacity : default_capacity(dir);
    FILE *f = begin_file(path);
    if (!f)
        return -errno;
    fprintf(
        f,
        "# A cluster on one machine, made by \"cv local up\". Yours to edit: \"cv config explain\" lists all options,\n"
        "# \"cv config check FILE\" checks them, \"cv local down\" and \"up\" apply them.\n"
        "cluster:\n"
        "  masters: [\"unix:%s/run/master.sock\"]\n"
        "  run_dir: \"%s/run\"\n"
        "journal:\n"
        "  dir: \"%s/journal\"\n"
        "  listen: 127.0.0.1\n"
        "  port: 0\n"
        "  http_port: %u\n"
        "master:\n"
        "  dir: \"%s/master\"\n"
        "  listen: 127.0.0.1\n"
        "  port: 0\n"
        "  http_port: %u\n"
        "worker:\n"
        "  dirs: [\"[SSD:%lluMiB]%s/worker\"]\n"
        "  listen: 127.0.0.1\n"
        "  advertise: 127.0.0.1\n"
        "  port: 0\n"
        "  http_port: %u\n"
        "  reserve_bytes: 256MiB\n",
        dir, dir, dir, free_port(), dir, free_port(), (unsigned long long)(capacity >> 20), dir, free_port());
    return end_file(f, path, dir);
}

static int make_dir(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* The id of the cluster to be, on disk before anything is formatted. again: an attempt before this one got as far. */
static int cluster_id(const char *dir, char id[UUID_STRING], bool *ret_again)
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    FILE *f = fopen(path, "re");
    struct uuid u;
    *ret_again = f && fscanf(f, "%36s", id) == 1 && uuid_parse(id, &u) == 0;
    if (f)
        fclose(f);
    if (*ret_again)
        return 0;
    uuid_format(uuid_new(), id);
    f = begin_file(path);
    if (!f)
        return -errno;
    fprintf(f, "%s\n", id);
    return end_file(f, path, dir);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* What an attempt that was cut short has formatted, perhaps half: no daemon has ever run there. */
static void remove_folder(const char *dir, const char *folder)
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", dir, folder);
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

int local_set_up(struct cli *cli, const char *dir, uint64_t capacity)
{
    static const char *const folders[] = {"", "/run", "/log"};
    char path[DIR_MAX + 32], done[DIR_MAX + 32], config[DIR_MAX + 32], data[DIR_MAX + 32], id[UUID_STRING];
    bool again = false;
    int r = 0;
    for (size_t i = 0; r == 0 && i < array_size(folders); i++) {
        snprintf(path, sizeof(path), "%s%s", dir, folders[i]);
        r = make_dir(path);
    }
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    if (r == 0)
        r = write_config(config, dir, capacity);
    if (r == 0)
        r = cluster_id(dir, id, &again);
    if (r < 0)
        return cli_fail(cli, r, "choose another directory: cv local up --dir DIR", "set up '%s'", dir);
    const char *const journal[] = {"cv-journal", "format", "--cluster", id, "--single", "--config", config, NULL};
    const char *const master[] = {"cv-master", "--config", config, "format", "--cluster", id, NULL};
    const char *const worker[] = {"cv-worker", "--config", config, "format", "--cluster", id, "--dir", data, NULL};
    snprintf(data, sizeof(data), "%s/worker", dir);
    for (const struct local_daemon *d = local_daemons; again && d->name; d++)
        remove_folder(dir, d->name);
    r = process_run(journal);
    if (r == 0)
        r = process_run(master);
    if (r == 0)
        r = process_run(worker);
    if (r == 0)
        r = sync_dir(dir);
    if (r < 0)
        return cli_fail(cli, r, NULL, "format the data directories in '%s'", dir);
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    snprintf(done, sizeof(done), "%s/cluster-id", dir);
    r = rename(path, done) < 0 ? -errno : sync_dir(dir); /* before a daemon runs: see remove_folder */
    return r < 0 ? cli_fail(cli, r, NULL, "write '%s'", done) : CLI_OK;
}

/* ---- starting ------------------------------------------------------------------------------------------------------------- */

/* A pid in a file may be another process's by now. */
static bool is_program(pid_t pid, const char *program)
{
    char path[64], name[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    if (pid <= 0 || fd < 0 || read(fd, name, sizeof(name) - 1) <= 0)
        return false;
    name[strcspn(name, "\n")] = '\0';
    return strcmp(name, program) == 0;
}

pid_t local_pid(const char *dir, const struct local_daemon *d)
{
    char path[DIR_MAX + 32];
    int fd = -1;
    pid_t holder = 0;
    snprintf(path, sizeof(path), "%s/%s", dir, d->name);
    int r = dir_lock(path, &fd, &holder);
    if (r == 0)
        close(fd);
    return r == -CV_LOCKED && is_program(holder, d->program) ? holder : 0;
}

int local_start(struct cli *cli, const char *dir, const struct local_daemon *d, uint64_t deadline_ns, pid_t *ret)
{
    char config[DIR_MAX + 32], log[DIR_MAX + 64];
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    snprintf(log, sizeof(log), "%s/log/%s.log", dir, d->name);
    const char *const argv[] = {d->program, "--config", config, NULL};
    int r = process_start(argv, log, deadline_ns, ret);
    return r < 0
               ? cli_fail(cli, r, NULL, r == -ECHILD ? "%s ended while it started" : "%s is not ready yet", d->program)
               : CLI_OK;
}

/* ---- mounts --------------------------------------------------------------------------------------------------------------- */

struct of_cluster {
    char config[PATH_MAX];
    int (*each)(const struct host_mount *m, pid_t pid, void *arg);
    void *arg;
};

static int if_of_cluster(const struct host_mount *m, void *arg)
{
    struct of_cluster *c = arg;
    char config[PATH_MAX];
    pid_t pid = m->ours ? mounts_server(m->point, NULL, config, sizeof(config)) : 0;
    return pid && strcmp(config, c->config) == 0 ? c->each(m, pid, c->arg) : 0;
}

int local_each_mount(const char *dir, int (*each)(const struct host_mount *m, pid_t pid, void *arg), void *arg)
{
    struct of_cluster c = {.each = each, .arg = arg};
    char config[DIR_MAX + 32];
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    return realpath(config, c.config) ? mounts_each(if_of_cluster, &c) : 0;
}
