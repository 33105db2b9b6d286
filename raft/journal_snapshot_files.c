/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: the files of a state. Everything here blocks: file threads only. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "raft/journal_snapshot_internal.h"

#define SPARE_BYTES (64ull << 20) /* left free for everything else */

static char *join(const char *a, const char *b)
{
    char *path;
    return asprintf(&path, "%s/%s", a, b) < 0 ? NULL : path;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------- */

static int remove_strangers(const char *staging, const struct manifest *m)
{
    DIR *d = opendir(staging);
    if (!d)
        return -errno;
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && !manifest_find(m, e->d_name))
            r = unlinkat(dirfd(d), e->d_name, 0) < 0 && errno != ENOENT ? -errno : 0;
    closedir(d);
    return r;
}

static int check_space(const char *staging, uint64_t missing)
{
    struct statvfs fs;
    if (statvfs(staging, &fs) < 0)
        return -errno;
    return (uint64_t)fs.f_bavail * fs.f_frsize < missing + SPARE_BYTES ? -ENOSPC : 0;
}

int files_resume(const char *staging, const struct manifest *m, uint64_t *have)
{
    if (mkdir(staging, 0700) < 0 && errno != EEXIST)
        return -errno;
    int r = remove_strangers(staging, m);
    uint64_t missing = 0;
    for (uint32_t i = 0; r == 0 && i < m->file_count; i++) {
        const struct manifest_file *f = &m->files[i];
        r = manifest_check_prefix(staging, f, &have[i]);
        char *path cleanup(freep) = join(staging, f->name);
        if (r == 0 && !path)
            r = -ENOMEM;
        int fd cleanup(closep) = r == 0 ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
        if (r == 0 && (fd < 0 || ftruncate(fd, (off_t)have[i]) < 0))
            r = -errno;
        missing += f->size - have[i];
    }
    return r < 0 ? r : check_space(staging, missing);
}

int files_write(const char *staging, const struct manifest_file *f, uint64_t offset, const uint8_t *p, uint32_t n)
{
    char *path cleanup(freep) = join(staging, f->name);
    int fd cleanup(closep) = path ? open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0)
        return path ? -errno : -ENOMEM;
    for (uint32_t done = 0; done < n;) {
        ssize_t got = pwrite(fd, p + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno != EINTR)
            return -errno;
        done += got > 0 ? (uint32_t)got : 0;
    }
#ifndef CV_TEST_NO_FSYNC /* a build that must fail the power cut tests */
    if (offset + n == f->size && fdatasync(fd) < 0)
        return -errno;
#endif
    return 0;
}

int files_finish(const char *directory, const char *staging, const char *target, const struct manifest *m)
{
    const char *bad = NULL;
    int r = manifest_verify(staging, m, &bad);
    if (r < 0) {
        log_error(r, "file %s of the snapshot", bad);
        char *path cleanup(freep) = join(staging, bad);
        if (path)
            (void)unlink(path);
        return r == -ENOENT ? -CV_BAD_CHECKSUM : r;
    }
    if ((r = manifest_sync(staging, m)) < 0 || (r = manifest_remove_dir(target)) < 0)
        return r;
    if (rename(staging, target) < 0)
        return -errno;
    return manifest_sync_dir(directory);
}

/* ---- giving -------------------------------------------------------------------------------------------------------- */

int files_read(const char *path, uint64_t offset, uint8_t *p, uint32_t n, uint32_t *ret_crc)
{
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (uint32_t done = 0; done < n;) {
        ssize_t got = pread(fd, p + done, n - done, (off_t)(offset + done));
        if (got == 0 || (got < 0 && errno != EINTR))
            return got == 0 ? -EIO : -errno;
        done += got > 0 ? (uint32_t)got : 0;
    }
    *ret_crc = crc32c(0, p, n);
    return 0;
}

/* ---- what is left over --------------------------------------------------------------------------------------------- */

static bool is_ours(const char *name, const struct stat *st, uint64_t lease_s)
{
    bool old = st->st_mtime + (time_t)lease_s < time(NULL);
    if (strncmp(name, CHECKPOINT_PREFIX, strlen(CHECKPOINT_PREFIX)) == 0)
        return old; /* somebody may come back for it */
    if (strcmp(name, STAGING) == 0)
        return st->st_mtime + 24 * 3600 < time(NULL);
    return strncmp(name, "meta-", 5) == 0 || strcmp(name, "rows") == 0;
}

void files_sweep(const char *directory, char *const *keep, uint32_t count, uint64_t lease_s)
{
    DIR *d = opendir(directory);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        bool kept = fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode) ||
                    !is_ours(e->d_name, &st, lease_s);
        for (uint32_t i = 0; i < count; i++)
            kept |= keep[i] && strcmp(keep[i], e->d_name) == 0;
        if (kept)
            continue;
        char *path cleanup(freep) = join(directory, e->d_name);
        int r = path ? manifest_remove_dir(path) : -ENOMEM;
        if (r < 0)
            log_warn(r, "remove %s/%s, which is not in use", directory, e->d_name);
        else
            log_info("removed %s/%s, which was not in use", directory, e->d_name);
    }
    closedir(d);
}
