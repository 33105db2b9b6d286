/* SPDX-License-Identifier: Apache-2.0 */
#define FUSE_USE_VERSION 35
#include "fuse/cvfs_mount.h"

#include <dirent.h>
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <mntent.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

extern char **environ;

struct cvfs_mount {
    struct fuse_session *session;
    char *point; /* absolute */
    bool mounted;
};

/* ---- is the mount point good? ---------------------------------------------------------------------------------------- */

/* What is mounted at the directory, from /proc/self/mounts; false: nothing. */
static bool mounted_at(const char *point, char *source, size_t source_size, char *type, size_t type_size)
{
    FILE *f = setmntent("/proc/self/mounts", "re");
    bool found = false;
    struct mntent entry;
    char line[8192];
    while (f && getmntent_r(f, &entry, line, sizeof(line)))
        if (strcmp(entry.mnt_dir, point) == 0) { /* the last one is on top */
            found = true;
            snprintf(source, source_size, "%s", entry.mnt_fsname);
            snprintf(type, type_size, "%s", entry.mnt_type);
        }
    if (f)
        endmntent(f);
    return found;
}

/* Does systemd, or another automounter, wait there for what we mount (x-systemd.automount)? Then it is not to be looked into:
 * what is there now is nothing. */
static bool is_awaited(const char *point)
{
    char source[512], type[64];
    return mounted_at(point, source, sizeof(source), type, sizeof(type)) && strcmp(type, "autofs") == 0;
}

static int run_fusermount(const char *point)
{
    const char *const argv[] = {"fusermount3", "-u", "-q", "-z", "--", point, NULL};
    pid_t pid;
    int status, r = -posix_spawnp(&pid, argv[0], NULL, NULL, (char **)(uintptr_t)argv, environ);
    if (r < 0)
        return r;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static int unmount(const char *point)
{
    return umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : run_fusermount(point);
}

/* A daemon died and left its mount: "Transport endpoint is not connected". statfs() asks even while the kernel still
 * believes attributes it has. */
static int clean_stale(const char *point)
{
    struct statfs st;
    for (int i = 0; i < 8 && !is_awaited(point) && statfs(point, &st) < 0 && errno == ENOTCONN; i++) {
        int r = unmount(point);
        if (r < 0)
            return log_error(r, "'%s' is what is left of a mount whose daemon died, and cannot be unmounted", point);
        log_warn(0, "'%s' was what is left of a mount whose daemon died: unmounted it", point);
    }
    return 0;
}

static int check_empty(const char *point)
{
    DIR *d = opendir(point);
    if (!d)
        return log_error(-errno, "look into '%s'", point);
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    return empty ? 0
                 : log_error(-ENOTEMPTY, "'%s' has files, which the mount would hide (fuse.nonempty=true allows that)",
                             point);
}

int cvfs_mount_check(const struct cvfs_mount_options *o)
{
    struct stat st;
    char source[512], type[64], *full cleanup(freep) = NULL;
    int r = clean_stale(o->point);
    if (r < 0)
        return r;
    if (stat(o->point, &st) < 0)
        return log_error(-errno, errno == ENOENT ? "mount point '%s' (make it first: mkdir -p)" : "mount point '%s'",
                         o->point);
    if (!S_ISDIR(st.st_mode))
        return log_error(-ENOTDIR, "mount point '%s'", o->point);
    full = realpath(o->point, NULL);
    if (!full)
        return log_error(-errno, "mount point '%s'", o->point);
    if (mounted_at(full, source, sizeof(source), type, sizeof(type)) && strcmp(type, "fuse.curvine") == 0)
        return log_error(-EBUSY, "'%s' is a mount of %s already (cv umount '%s')", full, source, full);
    return o->nonempty || is_awaited(full) ? 0 : check_empty(o->point);
}

/* ---- mounting ------------------------------------------------------------------------------------------------------------ */

/* libfuse splits at commas. */
static int add_escaped(struct buf *b, const char *text)
{
    int r = 0;
    for (; r == 0 && *text; text++) {
        if (*text == ',' || *text == '\\')
            r = buf_append(b, "\\", 1);
        if (r == 0)
            r = buf_append(b, text, 1);
    }
    return r;
}

/* default_permissions: the kernel checks every step of a path with the caller's whole identity, from attributes it may
 * believe; the master checks again what it is asked. */
static int mount_arguments(const struct cvfs_mount_options *o, struct buf *b)
{
    int r =
        buf_printf(b, "subtype=curvine,default_permissions%s%s,fsname=curvine:", o->allow_other ? ",allow_other" : "",
                   o->read_only ? ",ro" : "");
    if (r == 0)
        r = add_escaped(b, o->path);
    return r < 0 ? r : buf_append(b, "", 1);
}

int cvfs_mount_new(const struct cvfs_mount_options *o, struct cvfs_mount **ret)
{
    static const struct fuse_lowlevel_ops none; /* requests never reach libfuse */
    struct buf options cleanup(buf_fini) = {0};
    struct cvfs_mount *m cleanup(cvfs_mount_free_p) = calloc(1, sizeof(*m));
    int r = m ? mount_arguments(o, &options) : -ENOMEM;
    if (r < 0)
        return log_error(r, "mount '%s'", o->point);
    m->point = realpath(o->point, NULL);
    if (!m->point)
        return log_error(-errno, "mount point '%s'", o->point);
    const char *const argv[] = {"cv-fuse", "-o", (const char *)options.p, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, (char **)(uintptr_t)argv);
    m->session = fuse_session_new(&args, &none, sizeof(none), NULL);
    fuse_opt_free_args(&args);
    if (!m->session)
        return log_error(-EINVAL, "mount '%s'", o->point);
    if (fuse_session_mount(m->session, o->point) != 0) /* it has said why on stderr */
        return log_error(-EPERM, "mount '%s'%s", o->point,
                         o->allow_other && geteuid() ? " (allow_other needs user_allow_other in /etc/fuse.conf)" : "");
    m->mounted = true;
    *ret = take(m);
    return 0;
}

int cvfs_mount_fd(const struct cvfs_mount *m)
{
    return fuse_session_fd(m->session);
}

/* Has somebody unmounted it? Then another mount may be at its place, which is not ours to touch. */
static bool is_over(const struct cvfs_mount *m)
{
    struct pollfd p = {.fd = cvfs_mount_fd(m)};
    return poll(&p, 1, 0) == 1 && p.revents & POLLERR;
}

/* Not by libfuse: it closes the descriptor first, which would abort what is under way. */
void cvfs_mount_detach(struct cvfs_mount *m)
{
    if (!m->mounted)
        return;
    m->mounted = false;
    if (is_over(m))
        return;
    int r = unmount(m->point);
    if (r < 0)
        log_error(r, "unmount '%s'", m->point);
}

struct cvfs_mount *cvfs_mount_free(struct cvfs_mount *m)
{
    if (!m)
        return NULL;
    if (m->session) {
        cvfs_mount_detach(m);
        fuse_session_destroy(m->session); /* closes the descriptor */
    }
    free(m->point);
    free(m);
    return NULL;
}
