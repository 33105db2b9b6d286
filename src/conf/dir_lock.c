/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/dir_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "base/error.h"

int dir_lock(const char *dir, int *ret_fd, pid_t *ret_holder)
{
    char text[32] = "";
    int dir_fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -errno;
    int fd cleanup(closep) = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return -errno;
        long pid = 0;
        if (pread(fd, text, sizeof(text) - 1, 0) > 0)
            pid = strtol(text, NULL, 10);
        if (ret_holder)
            *ret_holder = (pid_t)pid;
        return -CV_LOCKED;
    }
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return -errno;
    *ret_fd = take_fd(fd);
    return 0;
}
