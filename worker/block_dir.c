/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "worker/block_io.h"

void block_dir_folder(enum block_file_type type, uint64_t id, char out[BLOCK_NAME_MAX])
{
    if (type == BLOCK_FILE_BACKING)
        snprintf(out, BLOCK_NAME_MAX, "files/%02x", (unsigned)(id & 0xff));
    else
        snprintf(out, BLOCK_NAME_MAX, "segments");
}

void block_dir_name(enum block_file_type type, uint64_t id, char out[BLOCK_NAME_MAX])
{
    if (type == BLOCK_FILE_BACKING)
        snprintf(out, BLOCK_NAME_MAX, "files/%02x/%016" PRIx64, (unsigned)(id & 0xff), id);
    else
        snprintf(out, BLOCK_NAME_MAX, "segments/%016" PRIx64, id);
}

void block_dir_written_name(uint64_t inode, uint64_t id, char out[BLOCK_NAME_MAX])
{
    snprintf(out, BLOCK_NAME_MAX, "written/%016" PRIx64 ".%016" PRIx64, inode, id);
}

/* A fresh file system has a lost+found. */
static int check_empty(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return -ENOMEM;
    }
    int r = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, "identity") == 0)
            r = -CV_ALREADY_FORMATTED;
        else if (e->d_name[0] != '.' && strcmp(e->d_name, "lost+found") != 0 && r == 0)
            r = -ENOTEMPTY;
    }
    closedir(d);
    return r;
}

static int check_punch(int dir_fd)
{
    int fd cleanup(closep) = -1;
    int r = block_io_open(dir_fd, "lock", O_RDWR | O_CREAT, &fd);
    if (r == 0)
        r = block_io_write(fd, "x", 1, 4096);
    if (r == 0)
        r = block_io_punch(fd, 0, 4096 + 4096);
    if (r == 0)
        r = block_io_cut(fd, 0);
    return r;
}

static int make_folder(int dir_fd, const char *name)
{
    return mkdirat(dir_fd, name, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int block_dir_make_folders(struct block_dir *d)
{
    static const char *const names[] = {"files", "segments", "written"};
    for (size_t i = 0; i < array_size(names); i++) {
        int r = make_folder(d->fd, names[i]);
        if (r < 0)
            return r;
    }
    for (unsigned i = 0; i < 256; i++) {
        char name[BLOCK_NAME_MAX];
        block_dir_folder(BLOCK_FILE_BACKING, i, name);
        int r = make_folder(d->fd, name);
        if (r < 0)
            return r;
    }
    int r = block_io_sync_dir(d->fd, "files");
    return r < 0 ? r : block_io_sync_dir(d->fd, ".");
}

static int take_lock(struct block_dir *d)
{
    int r = block_io_open(d->fd, "lock", O_RDWR | O_CREAT, &d->lock_fd);
    if (r < 0)
        return r;
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -CV_LOCKED : -errno;
    /* Who holds it, for people and cv local, as conf/dir_lock.h does. */
    char text[32];
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    return ftruncate(d->lock_fd, 0) < 0 || pwrite(d->lock_fd, text, (size_t)n, 0) != n ? -errno : 0;
}

int block_dir_format(const char *path, struct block_dir *ret)
{
    struct block_dir d = BLOCK_DIR_NONE;
    int r = block_io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, &d.fd);
    if (r == 0)
        r = check_empty(d.fd);
    if (r == 0)
        r = take_lock(&d);
    if (r == 0)
        r = check_punch(d.fd);
    if (r == 0)
        r = block_dir_make_folders(&d);
    if (r < 0)
        block_dir_close(&d);
    else
        *ret = d;
    return r;
}

void block_dir_set_identity(struct block_dir *d, const struct block_identity_options *o)
{
    d->identity = (struct block_identity){
        .directory_id = o->directory_id,
        .worker_id = o->worker_id,
        .created_ns = clock_wall_ns(),
        .kind = o->kind,
    };
    memcpy(d->identity.cluster, o->cluster, sizeof(o->cluster));
}

int block_dir_finish_format(struct block_dir *d)
{
    block_identity_finish(&d->identity);
    return block_io_replace(d->fd, "identity", &d->identity, sizeof(d->identity));
}

static int read_identity(int dir_fd, struct block_identity *ret)
{
    int fd cleanup(closep) = -1;
    size_t n = 0;
    int r = block_io_open(dir_fd, "identity", O_RDONLY, &fd);
    if (r == -ENOENT)
        return -CV_NOT_FORMATTED;
    if (r == 0)
        r = block_io_read(fd, ret, sizeof(*ret), 0, &n);
    if (r < 0)
        return r;
    return n == sizeof(*ret) ? block_identity_check(ret) : -CV_BAD_FORMAT;
}

int block_dir_identity(const char *path, struct block_identity *ret)
{
    int fd cleanup(closep) = -1;
    int r = block_io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, &fd);
    if (r < 0)
        return r == -ENOENT ? -CV_NOT_FORMATTED : r;
    return read_identity(fd, ret);
}

static int check_identity(struct block_dir *d, const uint8_t cluster[16], uint64_t worker_id)
{
    int r = read_identity(d->fd, &d->identity);
    if (r < 0)
        return r;
    return memcmp(d->identity.cluster, cluster, 16) == 0 && d->identity.worker_id == worker_id ? 0 : -CV_WRONG_CLUSTER;
}

int block_dir_open(const char *path, const uint8_t cluster[16], uint64_t worker_id, struct block_dir *ret)
{
    struct block_dir d = BLOCK_DIR_NONE;
    int r = block_io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, &d.fd);
    if (r == 0)
        r = check_identity(&d, cluster, worker_id);
    if (r == 0)
        r = take_lock(&d);
    if (r < 0)
        block_dir_close(&d);
    else
        *ret = d;
    return r;
}

void block_dir_close(struct block_dir *d)
{
    d->lock_fd = close_fd(d->lock_fd);
    d->fd = close_fd(d->fd);
}
