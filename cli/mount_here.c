/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/local.h"
#include "cli/mount.h"
#include "cli/mounts.h"
#include "cli/process.h"

#define READY_MS      30000
#define ARGUMENTS_MAX 128

/* ---- before --------------------------------------------------------------------------------------------------------- */

static bool is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    bool empty = true;
    for (struct dirent *e; d && empty && (e = readdir(d));)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    if (d)
        closedir(d);
    return empty;
}

static bool in_path(const char *program)
{
    const char *path = getenv("PATH");
    char *copy cleanup(freep) = strdup(path ? path : "/usr/bin:/bin"), *save, file[4096];
    for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
        snprintf(file, sizeof(file), "%s/%s", dir, program);
        if (access(file, X_OK) == 0)
            return true;
    }
    return false;
}

static int host_check(struct cli *cli)
{
    if (access("/dev/fuse", F_OK) < 0)
        return cli_fail(cli, -errno,
                        "modprobe fuse; in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN",
                        "this host has no /dev/fuse, so nothing can be mounted; cv fs works without");
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        return cli_fail(cli, -errno, "chmod 666 /dev/fuse, its usual mode, or ask your administrator", "/dev/fuse");
    if (geteuid() != 0 && !in_path("fusermount3"))
        return cli_fail(cli, -ENOENT, "install fuse3 (apt install fuse3, dnf install fuse3)",
                        "mounting without being root takes fusermount3");
    return CLI_OK;
}

/* Does an automounter (x-systemd.automount in fstab) wait there for us? Whoever goes near the directory waits for the mount as well;
 * the kernel lets only the automounter's group of processes pass, which is ours, and has to be cv-fuse's. */
static bool is_awaited(const char *point)
{
    struct host_mount there;
    return mounts_find(point, &there) == 0 && strcmp(there.type, "autofs") == 0;
}

int mount_point_check(struct cli *cli, const struct host_mounting *m, char *out, size_t size)
{
    struct host_mount there;
    struct stat st;
    int status = host_check(cli);
    if (status != CLI_OK)
        return status;
    int r = mounts_absolute(m->point, out, size);
    if (r == -ENOENT) {
        char hint[4200];
        snprintf(hint, sizeof(hint), "make it first: mkdir -p %s", m->point);
        return cli_fail(cli, r, hint, "mount point '%s'", m->point);
    }
    if (r < 0)
        return cli_fail(cli, r, NULL, "mount point '%s'", m->point);
    bool awaited = is_awaited(out);
    if (!awaited && mounts_find(out, &there) == 0) {
        char path[1024];
        pid_t pid = there.ours ? mounts_server(out, path, NULL, sizeof(path)) : 0;
        fprintf(stderr, "cv mount: '%s' is busy: %s is mounted there (%s)", out, there.source, there.type);
        fprintf(stderr, pid ? ", served by cv-fuse, pid %d\n" : "\n", (int)pid);
        fprintf(stderr, "  try: another directory, or cv umount %s\n", out);
        return CLI_FAILED;
    }
    if (stat(out, &st) < 0)
        return cli_fail(cli, -errno, NULL, "mount point '%s'", out);
    if (!S_ISDIR(st.st_mode))
        return cli_fail(cli, -ENOTDIR, NULL, "mount point '%s'", out);
    if (!m->over && !awaited && !is_empty(out))
        return cli_fail(cli, -ENOTEMPTY, "an empty directory; --over hides what is in this one while it is mounted",
                        "mount point '%s'", out);
    if (geteuid() != 0 && st.st_uid != geteuid())
        return cli_fail(cli, -EPERM, "a directory of your own, or be root", "mount point '%s' is another user's", out);
    return CLI_OK;
}

/* ---- mounting --------------------------------------------------------------------------------------------------------- */

static int make_dirs(const char *path)
{
    char part[4096];
    for (const char *p = path + 1;; p++)
        if (*p == '/' || !*p) {
            snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
            if (mkdir(part, 0700) < 0 && errno != EEXIST)
                return -errno;
            if (!*p)
                return 0;
        }
}

/* "…/fuse-mnt-d.log": beside the logs of a local cluster, else where logs of this user belong. */
static int log_path(struct cli *cli, const char *point, char *out, size_t size)
{
    char dir[3000], local[256];
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    const char *config = cli_config_path(cli);
    if (config && local_dir(cli, local, sizeof(local)) == 0 && strncmp(config, local, strlen(local)) == 0 &&
        strcmp(config + strlen(local), "/curvine.yaml") == 0)
        snprintf(dir, sizeof(dir), "%s/log", local);
    else if (geteuid() == 0)
        snprintf(dir, sizeof(dir), "/var/log/curvine");
    else if (state && state[0] == '/')
        snprintf(dir, sizeof(dir), "%s/curvine", state);
    else
        snprintf(dir, sizeof(dir), "%s/.local/state/curvine", home && home[0] == '/' ? home : "/tmp");
    int r = make_dirs(dir);
    int n = snprintf(out, size, "%s/fuse%.200s.log", dir, strlen(point) > 200 ? point + strlen(point) - 200 : point);
    for (char *p = out + strlen(dir) + 1; n < (int)size && *p; p++)
        if (*p == '/')
            *p = '-';
    return r < 0 ? r : n >= (int)size ? -ENAMETOOLONG : 0;
}

int mount_here(struct cli *cli, const struct host_mounting *m, const char *point)
{
    char log[4096], config[PATH_MAX], masters[4096], path[4096];
    const char *argv[ARGUMENTS_MAX], *file = cli_config_path(cli);
    unsigned n = 0;
    argv[n++] = "cv-fuse";
    if (file) {
        if (!realpath(file, config))
            return cli_fail(cli, -errno, NULL, "configuration '%s'", file);
        argv[n++] = "--config";
        argv[n++] = config;
    }
    if (cli->masters) {
        snprintf(masters, sizeof(masters), "cluster.masters=%s", cli->masters);
        argv[n++] = "--set";
        argv[n++] = masters;
    }
    for (uint32_t i = 0; i < cli->n_sets && n < ARGUMENTS_MAX - 8; i++) {
        argv[n++] = "--set";
        argv[n++] = cli->sets[i];
    }
    if (m->allow_other) {
        argv[n++] = "--set";
        argv[n++] = "fuse.allow_other=true";
    }
    if (m->over) {
        argv[n++] = "--set";
        argv[n++] = "fuse.nonempty=true";
    }
    snprintf(path, sizeof(path), ":%s", m->path);
    argv[n++] = path;
    argv[n++] = point;
    argv[n] = NULL;
    int r = log_path(cli, point, log, sizeof(log));
    if (r < 0)
        return cli_fail(cli, r, NULL, "log file '%s'", log);
    pid_t pid;
    uint64_t began = clock_ns();
    r = process_start(argv, log, !is_awaited(point), began + cli_timeout_ms(cli, READY_MS) * NS_PER_MS, &pid);
    if (r == -CV_DEADLINE)
        return cli_fail(cli, r, "it goes on trying; look at its log, or end it: cv umount --force DIR",
                        "cv-fuse does not serve '%s' yet", point);
    if (r < 0)
        return cli_fail(cli, r, NULL, "cv-fuse ended while it mounted :%s at '%s'", m->path, point);
    if (cli->form == OUT_TABLE)
        printf("mounted :%s at %s (pid %d, log %s)\n", m->path, point, (int)pid, log);
    return CLI_OK;
}
