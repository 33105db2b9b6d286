/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/local.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/uuid.h"
#include "cli/process.h"
#include "conf/dir_lock.h"

#define DIR_MAX 80 /* so that socket names fit in 107 bytes */

const struct local_daemon local_daemons[] = {{"journal", "cv-journal"}, {"master", "cv-master"}, {0}};

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

static int write_config(const char *path, const char *dir)
{
    if (access(path, F_OK) == 0)
        return 0; /* the user's from now on */
    FILE *f = fopen(path, "we");
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
        "  http_port: %u\n",
        dir, dir, dir, free_port(), dir, free_port());
    int r = ferror(f) || fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    return r;
}

static int make_dir(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* The id outlives a failed attempt, so that journal and master always belong to one cluster. */
static int cluster_id(const char *dir, char id[UUID_STRING])
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    FILE *f = fopen(path, "re");
    struct uuid u;
    bool known = f && fscanf(f, "%36s", id) == 1 && uuid_parse(id, &u) == 0;
    if (f)
        fclose(f);
    if (known)
        return 0;
    uuid_format(uuid_new(), id);
    f = fopen(path, "we");
    if (!f)
        return -errno;
    fprintf(f, "%s\n", id);
    int r = fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    return r;
}

static bool is_formatted(const char *dir, const char *folder)
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", dir, folder);
    return rmdir(path) < 0 && errno != ENOENT; /* an empty folder is as good as none */
}

int local_set_up(struct cli *cli, const char *dir)
{
    static const char *const folders[] = {"", "/run", "/log"};
    char path[DIR_MAX + 32], done[DIR_MAX + 32], config[DIR_MAX + 32], id[UUID_STRING];
    int r = 0;
    for (size_t i = 0; r == 0 && i < array_size(folders); i++) {
        snprintf(path, sizeof(path), "%s%s", dir, folders[i]);
        r = make_dir(path);
    }
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    if (r == 0)
        r = write_config(config, dir);
    if (r == 0)
        r = cluster_id(dir, id);
    if (r < 0)
        return cli_fail(cli, r, "choose another directory: cv local up --dir DIR", "set up '%s'", dir);
    const char *const journal[] = {"cv-journal", "format", "--cluster", id, "--single", "--config", config, NULL};
    const char *const master[] = {"cv-master", "--config", config, "format", "--cluster", id, NULL};
    if (!is_formatted(dir, "journal"))
        r = process_run(journal);
    if (r == 0 && !is_formatted(dir, "master"))
        r = process_run(master);
    if (r < 0)
        return cli_fail(cli, r, NULL, "format the data directories in '%s'", dir);
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    snprintf(done, sizeof(done), "%s/cluster-id", dir);
    return rename(path, done) < 0 ? cli_fail(cli, -errno, NULL, "write '%s'", done) : CLI_OK;
}

/* ---- starting ------------------------------------------------------------------------------------------------------------- */

pid_t local_pid(const char *dir, const struct local_daemon *d)
{
    char path[DIR_MAX + 32];
    int fd = -1;
    pid_t holder = 0;
    snprintf(path, sizeof(path), "%s/%s", dir, d->name);
    int r = dir_lock(path, &fd, &holder);
    if (r == 0)
        close(fd);
    return r == -CV_LOCKED ? holder : 0;
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
