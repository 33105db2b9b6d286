/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/local.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/process.h"
#include "conf/dir_lock.h"

void local_config(const char *dir, unsigned node, char *out, size_t size)
{
    if (node <= 1)
        snprintf(out, size, "%s/curvine.yaml", dir);
    else
        snprintf(out, size, "%s/curvine-%u.yaml", dir, node);
}

unsigned local_masters(const char *dir)
{
    char path[LOCAL_DIR_MAX + 32];
    unsigned n = 1;
    for (; n < LOCAL_MASTERS_MAX; n++) {
        local_config(dir, n + 1, path, sizeof(path));
        if (access(path, F_OK) < 0)
            break;
    }
    return n;
}

unsigned local_daemons(const char *dir, struct local_daemon ret[LOCAL_DAEMONS_MAX])
{
    static const char *const kinds[][2] = {{"journal", "cv-journal"}, {"master", "cv-master"}, {"worker", "cv-worker"}};
    unsigned masters = local_masters(dir), n = 0;
    for (size_t i = 0; i < array_size(kinds); i++)
        for (unsigned node = 1; node <= (i < 2 ? masters : 1); node++) {
            struct local_daemon *d = &ret[n++];
            *d = (struct local_daemon){.program = kinds[i][1], .node = node};
            snprintf(d->name, sizeof(d->name), node > 1 ? "%s-%u" : "%s", kinds[i][0], node);
        }
    return n;
}

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
    return n >= (int)size || n > LOCAL_DIR_MAX ? -ENAMETOOLONG : 0;
}

bool local_is_set_up(const char *dir)
{
    char path[LOCAL_DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id", dir);
    return access(path, F_OK) == 0;
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
    char path[LOCAL_DIR_MAX + 32];
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
    char config[LOCAL_DIR_MAX + 32], log[LOCAL_DIR_MAX + 64];
    local_config(dir, d->node, config, sizeof(config));
    snprintf(log, sizeof(log), "%s/log/%s.log", dir, d->name);
    const char *const argv[] = {d->program, "--config", config, NULL};
    int r = process_start(argv, log, true, deadline_ns, ret);
    if (r == -ECHILD) { /* why: its own last lines, which are shown */
        fprintf(stderr, "cv local up: %s ended while it started; its log: %s\n", d->program, log);
        return CLI_FAILED;
    }
    return r < 0 ? cli_fail(cli, r, NULL, "%s is not ready yet", d->program) : CLI_OK;
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
    char config[LOCAL_DIR_MAX + 32];
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    return realpath(config, c.config) ? mounts_each(if_of_cluster, &c) : 0;
}

struct serving {
    char config[PATH_MAX], *point;
    size_t size;
    pid_t pid;
};

static int if_serves(pid_t pid, const char *const *argv, void *arg)
{
    struct serving *s = arg;
    struct host_mount m;
    const char *name = strrchr(argv[0], '/'), *config = "", *point = "";
    if (strcmp(name ? name + 1 : argv[0], "cv-fuse") != 0)
        return true;
    for (unsigned i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "--config") == 0 && argv[i + 1])
            config = argv[i + 1];
        point = argv[i];
    }
    if (strcmp(config, s->config) != 0 || mounts_find(point, &m) == 0)
        return true;
    s->pid = pid;
    snprintf(s->point, s->size, "%s", point);
    return false;
}

pid_t local_unseen_mount(const char *dir, char *point, size_t size)
{
    struct serving s = {.point = point, .size = size};
    char config[LOCAL_DIR_MAX + 32];
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    if (realpath(config, s.config))
        process_each(if_serves, &s);
    return s.pid;
}
