/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_dir.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "conf/dir_lock.h"
#include "meta/master_format.h"
#include "meta/master_store.h"
#include "wire/link.h"
#include "wire/manifest.h"

/* Ids are handed out from so far above those of a backup: nobody grants so many between it and its loss. */
#define RESTORE_JUMP (1ull << 36)
#define NEW          ".new" /* of what is being made: never live, free to be removed */

static int lock_directory(const char *path, int *ret)
{
    pid_t holder = 0;
    int r = dir_lock(path, ret, &holder);
    return r == -CV_LOCKED && holder ? log_warn(r, "'%s': process %d", path, (int)holder) : r;
}

static int ident_read(int dir_fd, struct master_ident *ret)
{
    int fd cleanup(closep) = openat(dir_fd, MASTER_FILE_IDENT, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -CV_NOT_FORMATTED : -errno;
    struct master_ident id;
    ssize_t n = pread(fd, &id, sizeof(id), 0);
    if (n < 0)
        return -errno;
    if (n != sizeof(id) || le64toh(id.magic) != MASTER_IDENT_MAGIC)
        return -CV_BAD_FORMAT;
    if (crc32c(0, &id, offsetof(struct master_ident, crc)) != le32toh(id.crc))
        return -CV_BAD_CHECKSUM;
    if (le32toh(id.version) > MASTER_IDENT_VERSION)
        return -CV_FORMAT_TOO_NEW;
    *ret = id;
    return 0;
}

static int ident_write(int dir_fd, struct uuid cluster)
{
    struct master_ident id = {
        .magic = htole64(MASTER_IDENT_MAGIC),
        .version = htole32(MASTER_IDENT_VERSION),
        .cluster = cluster,
        .master = htole64(random_u64()),
        .created_ns = htole64(clock_wall_ns()),
    };
    id.crc = htole32(crc32c(0, &id, offsetof(struct master_ident, crc)));
    int fd cleanup(closep) = openat(dir_fd, MASTER_FILE_IDENT NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, &id, sizeof(id));
    if (n != sizeof(id))
        return n < 0 ? -errno : -ENOSPC;
    return fsync(fd) < 0 || renameat(dir_fd, MASTER_FILE_IDENT NEW, dir_fd, MASTER_FILE_IDENT) < 0 || fsync(dir_fd) < 0
               ? -errno
               : 0;
}

/* Is there anything but what an interrupted format may leave behind? */
static int check_empty(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return -errno;
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));) {
        const char *ours[] = {".", "..", "lost+found", MASTER_FILE_LOCK, MASTER_FILE_IDENT NEW, MASTER_FILE_ROWS NEW};
        r = -ENOTEMPTY;
        for (size_t i = 0; i < array_size(ours); i++)
            if (!strcmp(e->d_name, ours[i]))
                r = 0;
    }
    closedir(d);
    return r;
}

/* Open a directory that is formatted, and read who it is. */
static int open_formatted(const char *path, int *ret_fd, struct master_ident *ret)
{
    int dir_fd cleanup(closep) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return errno == ENOENT ? -CV_NOT_FORMATTED : -errno;
    int r = ident_read(dir_fd, ret);
    if (r == 0)
        *ret_fd = take_fd(dir_fd);
    return r;
}

/* ---- a new one ---- */

/* A directory that is none yet, made if need be, locked and found empty. */
struct fresh {
    int dir_fd, lock_fd;
    char *rows; /* where its database is made */
};

static void fresh_fini(struct fresh *f)
{
    close_fd(f->lock_fd);
    close_fd(f->dir_fd);
    free(f->rows);
}

static int fresh_open(const char *path, struct fresh *f)
{
    struct master_ident id;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    f->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->dir_fd < 0)
        return -errno;
    int r = lock_directory(path, &f->lock_fd);
    if (r < 0)
        return r;
    r = ident_read(f->dir_fd, &id);
    if (r != -CV_NOT_FORMATTED)
        return r < 0 ? r : -CV_ALREADY_FORMATTED;
    r = check_empty(f->dir_fd);
    if (r < 0)
        return r;
    return asprintf(&f->rows, "%s/%s", path, MASTER_FILE_ROWS NEW) < 0 ? -ENOMEM : 0;
}

/* The database is made: it gets its name. ident comes last: a crash before it leaves a directory that is not formatted. */
static int put_in_place(int dir_fd, struct uuid cluster)
{
    if (renameat(dir_fd, MASTER_FILE_ROWS NEW, dir_fd, MASTER_FILE_ROWS) < 0 || fsync(dir_fd) < 0)
        return -errno;
    return ident_write(dir_fd, cluster);
}

int master_dir_format(const char *path, struct uuid cluster)
{
    struct fresh f cleanup(fresh_fini) = {.dir_fd = -1, .lock_fd = -1};
    int r = fresh_open(path, &f);
    if (r == 0)
        r = master_store_create(f.rows, cluster);
    return r == 0 ? put_in_place(f.dir_fd, cluster) : r;
}

int master_dir_restore(const char *path, struct uuid cluster, const char *backup, struct buf *why, uint64_t *ret_index)
{
    struct fresh f cleanup(fresh_fini) = {.dir_fd = -1, .lock_fd = -1};
    struct manifest m cleanup(manifest_fini) = {.id = 0};
    const char *bad = MANIFEST_FILE;
    int r = fresh_open(path, &f);
    if (r < 0)
        return r;
    r = manifest_read(backup, &m);
    if (r == 0 && m.state_version > LINK_STATE_VERSION)
        r = -CV_FORMAT_TOO_NEW;
    if (r == 0)
        r = manifest_remove_dir(f.rows);
    if (r == 0 && mkdir(f.rows, 0700) < 0)
        r = -errno;
    if (r == 0)
        r = manifest_copy(backup, f.rows, &m, NULL, NULL, &bad);
    if (r < 0)
        (void)buf_printf(why, "%s/%s: ", backup, bad);
    if (r == 0)
        r = master_store_refound(f.rows, m.cluster, cluster, RESTORE_JUMP, ret_index);
    if (r == 0 && unlinkat(f.dir_fd, MASTER_FILE_ROWS NEW "/" MANIFEST_FILE, 0) < 0)
        r = -errno;
    return r == 0 ? put_in_place(f.dir_fd, cluster) : r;
}

/* ---- which of its databases is used ---- */

/* A name in the directory, nothing else. */
static bool name_is_plain(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= MASTER_STATE_MAX && name[0] != '.' && !strpbrk(name, "/\n");
}

/* Which database is used. */
static int state_read(int dir_fd, char out[MASTER_STATE_MAX + 1])
{
    int fd cleanup(closep) = openat(dir_fd, MASTER_FILE_STATE, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return -errno;
    if (fd < 0) {
        strcpy(out, MASTER_FILE_ROWS);
        return 0;
    }
    char text[MASTER_STATE_MAX + 2];
    ssize_t n = read(fd, text, sizeof(text));
    if (n < 0)
        return -errno;
    if (n < 2 || text[n - 1] != '\n')
        return -CV_BAD_FORMAT;
    text[n - 1] = '\0';
    if (!name_is_plain(text))
        return -CV_BAD_FORMAT;
    memcpy(out, text, (size_t)n);
    return 0;
}

/* Replace a small file in one step. */
static int file_write(int dir_fd, const char *name, const char *text, size_t n)
{
    char new_name[MASTER_STATE_MAX + 32];
    snprintf(new_name, sizeof(new_name), "%s" NEW, name);
    int fd cleanup(closep) = openat(dir_fd, new_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (write(fd, text, n) != (ssize_t)n)
        return -EIO;
    return fsync(fd) < 0 || renameat(dir_fd, new_name, dir_fd, name) < 0 || fsync(dir_fd) < 0 ? -errno : 0;
}

int master_dir_condemn(const char *path, const char *state, const char *why)
{
    char name[MASTER_STATE_MAX + 16];
    int dir_fd cleanup(closep) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -errno;
    snprintf(name, sizeof(name), "%s" MASTER_DIVERGED, state);
    return file_write(dir_fd, name, why, strlen(why));
}

int master_dir_switch(const char *path, const char *name)
{
    if (!name_is_plain(name))
        return -EINVAL;
    int dir_fd cleanup(closep) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0 || faccessat(dir_fd, name, F_OK, 0) < 0)
        return -errno;
    char text[MASTER_STATE_MAX + 2];
    int n = snprintf(text, sizeof(text), "%s\n", name);
    return file_write(dir_fd, MASTER_FILE_STATE, text, (size_t)n);
}

int master_dir_open(const char *path, struct master_dir *ret)
{
    struct master_ident id;
    int dir_fd cleanup(closep) = -1;
    int r = open_formatted(path, &dir_fd, &id); /* before the lock file appears where nothing was formatted */
    if (r < 0)
        return r;
    int lock_fd cleanup(closep) = -1;
    r = lock_directory(path, &lock_fd);
    if (r < 0)
        return r;
    char name[MASTER_STATE_MAX + 1];
    char diverged[MASTER_STATE_MAX + 16];
    r = state_read(dir_fd, name);
    if (r < 0)
        return r;
    snprintf(diverged, sizeof(diverged), "%s" MASTER_DIVERGED, name);
    if (faccessat(dir_fd, diverged, F_OK, 0) == 0)
        return -CV_LOG_DIVERGED;
    char *copy cleanup(freep) = realpath(path, NULL), *state cleanup(freep) = strdup(name), *rows = NULL;
    if (!copy)
        return -errno;
    if (!state || asprintf(&rows, "%s/%s", path, name) < 0)
        return -ENOMEM;
    *ret = (struct master_dir){
        .path = take(copy),
        .rows = rows,
        .state = take(state),
        .lock_fd = take_fd(lock_fd),
        .cluster = id.cluster,
        .master = le64toh(id.master),
    };
    return 0;
}

void master_dir_close(struct master_dir *d)
{
    free(d->path);
    free(d->rows);
    free(d->state);
    close_fd(d->lock_fd);
    *d = MASTER_DIR_NONE;
}

/* ---- the journal beside it -------------------------------------------------------------------------------------------- */

static int journal_write(int dir_fd, uint64_t journal)
{
    char text[18];
    int n = snprintf(text, sizeof(text), "%016" PRIx64 "\n", journal);
    return file_write(dir_fd, MASTER_FILE_JOURNAL, text, (size_t)n);
}

int master_dir_bind(const char *path, uint64_t journal, uint64_t applied)
{
    int dir_fd cleanup(closep) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -errno;
    int fd cleanup(closep) = openat(dir_fd, MASTER_FILE_JOURNAL, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? journal_write(dir_fd, journal) : -errno;
    char text[32] = "", *end;
    if (read(fd, text, sizeof(text) - 1) != 17)
        return -CV_BAD_FORMAT;
    uint64_t was = strtoull(text, &end, 16);
    if (end != text + 16 || *end != '\n')
        return -CV_BAD_FORMAT;
    if (was == journal)
        return 0;
    return applied ? -CV_WRONG_INCARNATION : journal_write(dir_fd, journal);
}

/* ---- throwing it away --------------------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* All but who we are: a rejoin that is cut short is begun again. */
static int remove_state(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return -errno;
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));) {
        const char *kept[] = {".", "..", "lost+found", MASTER_FILE_LOCK, MASTER_FILE_IDENT};
        bool keep = false;
        for (size_t i = 0; i < array_size(kept); i++)
            keep |= !strcmp(e->d_name, kept[i]);
        char *name cleanup(freep) = NULL;
        if (keep)
            continue;
        if (asprintf(&name, "%s/%s", path, e->d_name) < 0)
            r = -ENOMEM;
        else if (nftw(name, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0)
            r = -errno;
    }
    closedir(d);
    return r;
}

int master_dir_cluster(const char *path, struct uuid *ret)
{
    struct master_ident id;
    int dir_fd cleanup(closep) = -1;
    int r = open_formatted(path, &dir_fd, &id);
    if (r == 0)
        *ret = id.cluster;
    return r;
}

int master_dir_rejoin(const char *path)
{
    struct master_ident id;
    int dir_fd cleanup(closep) = -1, lock_fd cleanup(closep) = -1;
    char *rows cleanup(freep) = NULL;
    int r = open_formatted(path, &dir_fd, &id);
    if (r == 0)
        r = lock_directory(path, &lock_fd);
    if (r == 0)
        r = remove_state(path);
    if (r == 0 && asprintf(&rows, "%s/%s", path, MASTER_FILE_ROWS NEW) < 0)
        r = -ENOMEM;
    if (r == 0)
        r = master_store_create(rows, id.cluster);
    return r == 0 ? put_in_place(dir_fd, id.cluster) : r;
}
