/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/mounts.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "cli/process.h"

#define TYPE "fuse.curvine"

/* Undo the kernel's \040 for space, tab, newline and backslash, in place. */
static char *unescape(char *s)
{
    char *to = s;
    for (const char *p = s; *p;)
        if (p[0] == '\\' && isdigit((unsigned char)p[1]) && isdigit((unsigned char)p[2]) &&
            isdigit((unsigned char)p[3])) {
            *to++ = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
            p += 4;
        } else {
            *to++ = *p++;
        }
    *to = '\0';
    return s;
}

/* "36 35 0:50 / /mnt/d rw,nosuid shared:7 - fuse.curvine curvine:/data rw,user_id=0" */
static bool parse(char *line, struct host_mount *m)
{
    char *tail = strstr(line, " - ");
    char *save, *field[6] = {0}, *behind[3] = {0};
    if (!tail)
        return false;
    *tail = '\0';
    unsigned n = 0;
    for (char *p = strtok_r(line, " ", &save); p && n < 6; p = strtok_r(NULL, " ", &save))
        field[n++] = p;
    unsigned k = 0;
    for (char *p = strtok_r(tail + 3, " \n", &save); p && k < 3; p = strtok_r(NULL, " \n", &save))
        behind[k++] = p;
    if (n < 6 || k < 2)
        return false;
    const char *minor = strchr(field[2], ':');
    m->minor = minor ? (unsigned)strtoul(minor + 1, NULL, 10) : 0;
    snprintf(m->point, sizeof(m->point), "%s", unescape(field[4]));
    snprintf(m->options, sizeof(m->options), "%s", field[5]);
    snprintf(m->type, sizeof(m->type), "%s", behind[0]);
    snprintf(m->source, sizeof(m->source), "%s", unescape(behind[1]));
    m->ours = strcmp(m->type, TYPE) == 0;
    return true;
}

int mounts_each(int (*each)(const struct host_mount *m, void *arg), void *arg)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    struct host_mount m;
    int r = 0;
    if (!f)
        return -errno;
    while (r == 0 && getline(&line, &room, f) > 0)
        if (parse(line, &m))
            r = each(&m, arg);
    free(line);
    fclose(f);
    return r;
}

struct wanted {
    const char *point;
    struct host_mount *ret;
    bool found;
};

static int is_wanted(const struct host_mount *m, void *arg)
{
    struct wanted *w = arg;
    if (strcmp(m->point, w->point) == 0) {
        *w->ret = *m; /* the last one is the uppermost */
        w->found = true;
    }
    return 0;
}

int mounts_find(const char *point, struct host_mount *ret)
{
    struct wanted w = {point, ret, false};
    int r = mounts_each(is_wanted, &w);
    return r < 0 ? r : w.found ? 0 : -ENOENT;
}

/* ---- who serves it ----------------------------------------------------------------------------------------------------- */

struct server {
    const char *point;
    char *path, *config;
    size_t size;
    pid_t pid;
    uint64_t started;
};

static int is_server(pid_t pid, const char *const *argv, void *arg)
{
    struct server *s = arg;
    const char *name = strrchr(argv[0], '/'), *path = "", *config = "";
    bool here = false;
    if (strcmp(name ? name + 1 : argv[0], "cv-fuse") != 0)
        return true;
    for (unsigned i = 1; argv[i]; i++) {
        here |= strcmp(argv[i], s->point) == 0;
        if (strncmp(argv[i], ":/", 2) == 0)
            path = argv[i];
        if (strcmp(argv[i], "--config") == 0 && argv[i + 1])
            config = argv[i + 1];
    }
    uint64_t started = here ? process_started(pid) : 0;
    if (!here || started < s->started)
        return true;
    s->pid = pid;
    s->started = started;
    if (s->path)
        snprintf(s->path, s->size, "%s", path);
    if (s->config)
        snprintf(s->config, s->size, "%s", config);
    return true; /* there may be a newer one: the older serves what another mount namespace still has */
}

pid_t mounts_server(const char *point, char *path, char *config, size_t size)
{
    struct server s = {point, path, config, size, 0, 0};
    if (path)
        path[0] = '\0';
    if (config)
        config[0] = '\0';
    process_each(is_server, &s);
    return s.pid;
}

/* ---- unmounting ----------------------------------------------------------------------------------------------------------- */

static char helper_said[200];

const char *mounts_helper_said(void)
{
    return helper_said;
}

/* What comes from fd until its end; the first line is kept. */
static void read_said(int fd)
{
    char rest[256];
    size_t n = 0;
    for (ssize_t r; (r = read(fd, rest, sizeof(rest))) > 0;) {
        size_t more = min((size_t)r, sizeof(helper_said) - 1 - n);
        memcpy(helper_said + n, rest, more);
        n += more;
    }
    helper_said[n] = '\0';
    helper_said[strcspn(helper_said, "\n")] = '\0';
}

/* The helper of libfuse, for those who are not root. */
static int run_fusermount(const char *point, bool lazy)
{
    int said[2];
    if (pipe2(said, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(said[1], STDOUT_FILENO);
        dup2(said[1], STDERR_FILENO);
        execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", point, (char *)NULL);
        _exit(127);
    }
    int status, r = pid < 0 ? -errno : 0;
    close(said[1]);
    read_said(said[0]);
    close(said[0]);
    if (r == 0 && waitpid(pid, &status, 0) < 0)
        r = -errno;
    struct host_mount m;
    if (r < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0) || mounts_find(point, &m) == -ENOENT)
        return r;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return -EPERM;
    return strstr(helper_said, "busy") ? -EBUSY : -EIO;
}

int mounts_unmount(const char *point, bool lazy)
{
    if (umount2(point, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    return errno == EPERM ? run_fusermount(point, lazy) : -errno;
}

int mounts_abort(const struct host_mount *m)
{
    char path[64];
    snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", m->minor);
    int fd cleanup(closep) = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write(fd, "1", 1) == 1 ? 0 : -errno;
}

/* ---- who holds it ----------------------------------------------------------------------------------------------------------- */

static bool link_is_below(int dir_fd, const char *name, const char *point)
{
    char target[4096];
    size_t n = strlen(point);
    ssize_t got = readlinkat(dir_fd, name, target, sizeof(target) - 1);
    if (got < (ssize_t)n || memcmp(target, point, n) != 0)
        return false;
    target[got] = '\0';
    return target[n] == '\0' || target[n] == '/' || target[n] == ' '; /* " (deleted)" */
}

static bool has_mapping(int proc_fd, const char *point)
{
    char needle[4100], *line = NULL;
    size_t room = 0;
    bool found = false;
    int fd = openat(proc_fd, "maps", O_RDONLY | O_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "re");
    if (!f) {
        close_fd(fd);
        return false;
    }
    snprintf(needle, sizeof(needle), " %s/", point);
    while (!found && getline(&line, &room, f) > 0)
        found = strstr(line, needle) != NULL;
    free(line);
    fclose(f);
    return found;
}

/* Why a process holds the mount, in words; NULL: it does not. */
static const char *holds(int proc_fd, const char *point)
{
    const char *why = NULL;
    if (link_is_below(proc_fd, "cwd", point))
        return "its working directory";
    if (link_is_below(proc_fd, "root", point))
        return "its root directory";
    if (link_is_below(proc_fd, "exe", point))
        return "its program";
    int fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        close_fd(fd);
    for (struct dirent *e; d && !why && (e = readdir(d));)
        if (isdigit((unsigned char)e->d_name[0]) && link_is_below(dirfd(d), e->d_name, point))
            why = "an open file";
    if (d)
        closedir(d);
    return why ? why : has_mapping(proc_fd, point) ? "a mapped file" : NULL;
}

unsigned mounts_holders(const char *point, struct buf *ret)
{
    unsigned count = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!isdigit((unsigned char)e->d_name[0]))
            continue;
        int fd cleanup(closep) = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const char *why = fd < 0 ? NULL : holds(fd, point);
        if (!why)
            continue;
        char name[64] = "?";
        int comm cleanup(closep) = openat(fd, "comm", O_RDONLY | O_CLOEXEC);
        ssize_t n = comm < 0 ? 0 : read(comm, name, sizeof(name) - 1);
        name[max(n, (ssize_t)0)] = '\0';
        name[strcspn(name, "\n")] = '\0';
        buf_printf(ret, "    %7s %s (%s)\n", e->d_name, name, why);
        count++;
    }
    if (d)
        closedir(d);
    return count;
}

pid_t mounts_elsewhere(const struct host_mount *m)
{
    char device[sizeof(m->point) + 2];
    pid_t found = 0;
    DIR *d = opendir("/proc");
    if (m->minor)
        snprintf(device, sizeof(device), " 0:%u ", m->minor);
    else
        snprintf(device, sizeof(device), " %s ", m->point);
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char path[64], *line = NULL;
        size_t room = 0;
        snprintf(path, sizeof(path), "/proc/%.20s/mountinfo", e->d_name);
        FILE *f = isdigit((unsigned char)e->d_name[0]) ? fopen(path, "re") : NULL;
        while (f && !found && getline(&line, &room, f) > 0)
            if (strstr(line, device) && strstr(line, " " TYPE " "))
                found = (pid_t)strtol(e->d_name, NULL, 10);
        free(line);
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return found;
}

/* ---- paths ---------------------------------------------------------------------------------------------------------------- */

int mounts_absolute(const char *path, char *out, size_t size)
{
    char whole[PATH_MAX], parent[PATH_MAX], resolved[PATH_MAX], here[PATH_MAX] = "";
    struct host_mount m;
    if (path[0] != '/' && !getcwd(here, sizeof(here)))
        return -errno;
    int n = snprintf(whole, sizeof(whole), "%s%s%s", here, path[0] == '/' ? "" : "/", path);
    if (n >= (int)sizeof(whole))
        return -ENAMETOOLONG;
    while (n > 1 && whole[n - 1] == '/')
        whole[--n] = '\0';
    /* As it is written it may be a mount point already; then nothing of it is looked at. */
    if (mounts_find(whole, &m) == 0)
        return snprintf(out, size, "%s", whole) < (int)size ? 0 : -ENAMETOOLONG;
    char *slash = strrchr(whole, '/');
    if (slash[1] == '\0' || strcmp(slash + 1, ".") == 0 || strcmp(slash + 1, "..") == 0) {
        if (!realpath(whole, resolved))
            return -errno;
        return snprintf(out, size, "%s", resolved) < (int)size ? 0 : -ENAMETOOLONG;
    }
    snprintf(parent, sizeof(parent), "%.*s", slash == whole ? 1 : (int)(slash - whole), whole);
    if (!realpath(parent, resolved))
        return -errno;
    n = snprintf(out, size, "%s%s%s", resolved, strcmp(resolved, "/") ? "/" : "", slash + 1);
    if (n >= (int)size)
        return -ENAMETOOLONG;
    if (mounts_find(out, &m) == 0)
        return 0;
    if (!realpath(out, resolved))
        return -errno;
    return snprintf(out, size, "%s", resolved) < (int)size ? 0 : -ENAMETOOLONG;
}
