/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

int (*block_io_hook)(enum block_io_op op);
const uint8_t *block_io_boot_id;

#define CHECK(op)                                                                                                      \
    do {                                                                                                               \
        int hooked_ = block_io_check(op);                                                                              \
        if (hooked_)                                                                                                   \
            return hooked_ == BLOCK_IO_SKIP ? 0 : hooked_;                                                             \
    } while (0)

void *block_io_alloc(size_t n)
{
    return block_io_check(BLOCK_IO_ALLOC) ? NULL : calloc(1, n);
}

int block_io_open(int dir_fd, const char *name, int flags, int *ret_fd)
{
    CHECK(flags & O_CREAT ? BLOCK_IO_CREATE : BLOCK_IO_OPEN);
    int fd = openat(dir_fd, name, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

int block_io_read(int fd, void *p, size_t n, uint64_t offset, size_t *ret)
{
    CHECK(BLOCK_IO_READ);
    size_t done = 0;
    while (done < n) {
        ssize_t k = pread(fd, (char *)p + done, n - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        if (k == 0)
            break;
        done += (size_t)k;
    }
    *ret = done;
    return 0;
}

int block_io_write(int fd, const void *p, size_t n, uint64_t offset)
{
    CHECK(BLOCK_IO_WRITE);
    size_t done = 0;
    while (done < n) {
        ssize_t k = pwrite(fd, (const char *)p + done, n - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        done += (size_t)k;
    }
    return 0;
}

int block_io_write2(int fd, const void *p, size_t n, const void *q, size_t m, uint64_t offset)
{
    CHECK(BLOCK_IO_WRITE);
    struct iovec v[2] = {{(void *)(uintptr_t)p, n}, {(void *)(uintptr_t)q, m}};
    ssize_t k;
    do
        k = pwritev(fd, v, 2, (off_t)offset);
    while (k < 0 && errno == EINTR);
    if (k < 0)
        return -errno;
    size_t done = (size_t)k;
    if (done < n) { /* short: the rest piece by piece */
        int r = block_io_write(fd, (const char *)p + done, n - done, offset + done);
        if (r < 0)
            return r;
        done = n;
    }
    return done == n + m ? 0 : block_io_write(fd, (const char *)q + (done - n), n + m - done, offset + done);
}

int block_io_sync(int fd)
{
    CHECK(BLOCK_IO_SYNC);
#ifdef CV_TEST_NO_FSYNC /* a build that must fail the power cut tests */
    return 0;
#endif
    return fdatasync(fd) < 0 ? -errno : 0;
}

int block_io_flow(int fd, uint64_t offset, uint64_t n)
{
    CHECK(BLOCK_IO_FLOW);
    return sync_file_range(fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE) < 0 ? -errno : 0;
}

int block_io_sync_dir(int dir_fd, const char *name)
{
    CHECK(BLOCK_IO_SYNC_DIR);
    int fd cleanup(closep) = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int block_io_punch(int fd, uint64_t offset, uint64_t n)
{
    CHECK(BLOCK_IO_PUNCH);
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n) < 0 ? -errno : 0;
}

int block_io_cut(int fd, uint64_t size)
{
    CHECK(BLOCK_IO_CUT);
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int block_io_unlink(int dir_fd, const char *name)
{
    CHECK(BLOCK_IO_UNLINK);
    return unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int block_io_link(int dir_fd, const char *from, const char *to)
{
    CHECK(BLOCK_IO_LINK);
    return linkat(dir_fd, from, dir_fd, to, 0) < 0 && errno != EEXIST ? -errno : 0;
}

int block_io_replace(int dir_fd, const char *name, const void *p, size_t n)
{
    char beside[64];
    snprintf(beside, sizeof(beside), "%s.new", name);
    int fd cleanup(closep) = -1;
    int r = block_io_open(dir_fd, beside, O_WRONLY | O_CREAT | O_TRUNC, &fd);
    if (r == 0)
        r = block_io_write(fd, p, n, 0);
    if (r == 0)
        r = block_io_sync(fd);
    if (r < 0)
        return r;
    if (renameat(dir_fd, beside, dir_fd, name) < 0)
        return -errno;
    return block_io_sync_dir(dir_fd, ".");
}

int block_io_remove_tree(int dir_fd, const char *name)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return -ENOMEM;
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = block_io_remove_tree(dirfd(d), e->d_name);
    closedir(d);
    if (r == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = -errno;
    return r;
}

int block_io_read_boot_id(uint8_t ret[16])
{
    if (block_io_boot_id) {
        memcpy(ret, block_io_boot_id, 16);
        return 0;
    }
    char text[64] = "";
    int fd cleanup(closep) = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    int got = 0;
    for (ssize_t i = 0; i + 1 < n && got < 16; i++) {
        if (text[i] == '-')
            continue;
        unsigned byte;
        if (sscanf((char[]){text[i], text[i + 1], 0}, "%2x", &byte) != 1)
            return -CV_BAD_FORMAT;
        ret[got++] = (uint8_t)byte;
        i++;
    }
    return got == 16 ? 0 : -CV_BAD_FORMAT;
}
