/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"

static int mark_sync(int fd)
{
#ifdef CV_TEST_NO_FSYNC
    if (!getenv("CV_TEST_SYNC_LOG"))
        return 0;
#endif
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int write_whole(int fd, struct journal_mark *mark)
{
    mark->crc = crc32c(0, mark, offsetof(struct journal_mark, crc));
    ssize_t n = pwrite(fd, mark, sizeof(*mark), 0);
    if (n != sizeof(*mark))
        return n < 0 ? -errno : -EIO;
    return mark_sync(fd);
}

int journal_mark_create(int dir_fd, uint64_t node)
{
    int fd cleanup(closep) = openat(dir_fd, JOURNAL_MARK_FILE, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    struct journal_mark mark = {.magic = JOURNAL_MARK_MAGIC, .version = JOURNAL_FORMAT_VERSION, .node = node};
    int r = write_whole(fd, &mark);
    if (r < 0)
        return r;
    return fsync(fd) < 0 || fsync(dir_fd) < 0 ? -errno : 0;
}

int journal_mark_open(int dir_fd, uint64_t node, bool read_only, struct journal_mark_file *ret)
{
    int fd cleanup(closep) = openat(dir_fd, JOURNAL_MARK_FILE, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -CV_LOG_DAMAGED : -errno;
    struct journal_mark mark;
    ssize_t n = pread(fd, &mark, sizeof(mark), 0);
    if (n < 0)
        return -errno;
    if (n != sizeof(mark) || mark.magic != JOURNAL_MARK_MAGIC ||
        mark.crc != crc32c(0, &mark, offsetof(struct journal_mark, crc)))
        return -CV_LOG_DAMAGED;
    if (mark.version != JOURNAL_FORMAT_VERSION)
        return -CV_FORMAT_TOO_NEW;
    if (mark.node != node)
        return -CV_LOG_DAMAGED;
    ret->mark = mark;
    ret->fd = take_fd(fd);
    return 0;
}

void journal_mark_close(struct journal_mark_file *f)
{
    f->fd = close_fd(f->fd);
}

int journal_mark_write(struct journal_mark_file *f, uint64_t index, uint64_t index_term, uint64_t term, uint64_t vote)
{
    struct journal_mark mark = f->mark;
    mark.index = index;
    mark.index_term = index_term;
    mark.term = term;
    mark.vote = vote;
    int r = write_whole(f->fd, &mark);
    if (r == 0)
        f->mark = mark;
    return r;
}
